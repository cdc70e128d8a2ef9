//! The clocks of this process.
//!
//! Owns the only reads of monotonic and wall time. The monotonic clock is read once per turn of a core's
//! loop and handed down as a value; wall time is for log lines and random identities only, never for order.
//!
//! Monotonic is CLOCK_BOOTTIME: it goes on while the machine sleeps. On one that stands still then, a leader
//! that wakes up would take a lease for valid that the others have long forgotten.

use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::base::Instant;

/// The process's monotonic clock. Cheap to copy; every copy counts from the same origin.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// A reading of the kernel's clock.
    origin: Duration,
}

impl Clock {
    /// The clock, started by its first user.
    #[must_use]
    pub fn new() -> Clock {
        static ORIGIN: OnceLock<Duration> = OnceLock::new();
        Clock {
            origin: *ORIGIN.get_or_init(since_boot),
        }
    }

    /// Now, as time since the origin plus one second, so that no reading equals `Instant::default()`.
    #[must_use]
    pub fn now(&self) -> Instant {
        // Hypervisors have been seen to set a clock back a little: then it stands still for that long.
        let since_origin = since_boot().saturating_sub(self.origin);
        Instant::default() + Duration::from_secs(1) + since_origin
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

/// Time since the machine started, sleep included.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock"
)]
fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    time.try_into()
        .expect("the kernel counts from its start, forwards")
}

/// Wall time since the Unix epoch, for log lines and file stamps. Zero on a clock set before 1970.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock"
)]
pub fn wall() -> Duration {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: copies share an origin, time does not go back, and wall time is of this century.
    #[test]
    fn readings() {
        let first = Clock::new().now();
        let second = Clock::new().now();
        assert!(Instant::default() < first && first <= second);
        assert!(wall() > Duration::from_secs(1_700_000_000));
    }

    /// Goal: a reading before the origin is the origin.
    #[test]
    fn set_back() {
        let origin = since_boot() + Duration::from_secs(3_600);
        let clock = Clock { origin };
        assert_eq!(clock.now(), Instant::default() + Duration::from_secs(1));
    }
}
