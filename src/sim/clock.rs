//! Time: the one true clock of a run, and each member's own, which is wrong in its own way.

use std::time::Duration;

use crate::base::Instant;

/// A point of simulated time, in nanoseconds since the run began. No member knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// The moment `span` later.
    #[must_use]
    pub fn after(self, span: Duration) -> Moment {
        Moment(self.0.saturating_add(nanos(span)))
    }

    /// The time from `earlier` to here; none when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// One member's monotonic clock: it begins anywhere and runs a little too fast or too slow.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What it showed when its rate was last set.
    shown: u64,
    /// When that was.
    set: Moment,
    /// Parts per million that it is too fast; too slow when negative.
    drift_ppm: i64,
}

impl Clock {
    /// A clock that shows `shown` nanoseconds at `now`.
    #[must_use]
    pub fn new(shown: u64, drift_ppm: i64, now: Moment) -> Clock {
        Clock {
            shown,
            set: now,
            drift_ppm,
        }
    }

    /// What the member reads at `now`.
    #[must_use]
    pub fn read(&self, now: Moment) -> Instant {
        let elapsed = now.0.saturating_sub(self.set.0);
        Instant(self.shown + scale(elapsed, self.drift_ppm))
    }

    /// From now on it runs at another rate. It never jumps and never runs backwards.
    pub fn set_drift(&mut self, drift_ppm: i64, now: Moment) {
        *self = Clock::new(self.read(now).0, drift_ppm, now);
    }

    /// How long something takes that the member believes to take `span`.
    #[must_use]
    pub fn true_time(&self, span: Duration) -> Duration {
        Duration::from_nanos(scale(nanos(span), -self.drift_ppm))
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

fn scale(span: u64, ppm: i64) -> u64 {
    let change = i128::from(span) * i128::from(ppm) / 1_000_000;
    u64::try_from(i128::from(span) + change).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a clock drifts by its rate, and a changed rate makes it neither jump nor go back.
    #[test]
    fn drift() {
        let second = Duration::from_secs(1);
        let mut clock = Clock::new(5_000, 1_000, Moment(0));
        let one = Moment(0).after(second);
        assert_eq!(clock.read(one), Instant(5_000 + 1_001_000_000));
        clock.set_drift(-500_000, one);
        assert_eq!(clock.read(one), Instant(5_000 + 1_001_000_000));
        assert_eq!(
            clock.read(one.after(second)),
            Instant(5_000 + 1_501_000_000)
        );
        assert_eq!(clock.true_time(second), Duration::from_millis(1_500));
    }
}
