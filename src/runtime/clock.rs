//! The clocks of this process.
//!
//! Owns the only reads of monotonic and wall time. The monotonic clock is read once per turn of a core's
//! loop and handed down as a value; wall time is for log lines and random identities only, never for order.

use std::sync::OnceLock;
use std::time::Duration;

use crate::base::Instant;

/// The process's monotonic clock. Cheap to copy; every copy counts from the same origin.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// The clock, started by its first user.
    #[must_use]
    pub fn new() -> Clock {
        static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
        Clock {
            origin: *ORIGIN.get_or_init(monotonic),
        }
    }

    /// Now, as time since the origin plus one second, so that no reading equals `Instant::default()`.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::default() + Duration::from_secs(1) + (monotonic() - self.origin)
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock"
)]
fn monotonic() -> std::time::Instant {
    std::time::Instant::now()
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
}
