//! When operations last succeeded, for another thread to see while a run goes on, and the longest time without one.
//!
//! Written by the threads that load, with each success of the load and none of the fill. Must never slow them: only a
//! gap longer than all before takes the lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A time without a success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// When it began, in nanoseconds since the pulse's zero: at a success, or where the load began.
    pub from_ns: u64,
    /// How long it was, in nanoseconds.
    pub length_ns: u64,
}

/// The successes of a run, in nanoseconds since [`Pulse::zero`].
#[derive(Debug)]
pub struct Pulse {
    zero: Instant,
    beats: AtomicU64,
    /// Zero until the load begins.
    last_ns: AtomicU64,
    /// When nothing more is started.
    end_ns: AtomicU64,
    longest_ns: AtomicU64,
    longest: Mutex<Gap>,
}

impl Pulse {
    /// One without any success; its zero is now.
    #[must_use]
    pub fn start() -> Pulse {
        Pulse {
            zero: Instant::now(),
            beats: AtomicU64::new(0),
            last_ns: AtomicU64::new(0),
            end_ns: AtomicU64::new(u64::MAX),
            longest_ns: AtomicU64::new(0),
            longest: Mutex::new(Gap::default()),
        }
    }

    /// The zero of its times, which becomes that of the run.
    #[must_use]
    pub fn zero(&self) -> Instant {
        self.zero
    }

    /// Successes so far.
    #[must_use]
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// The longest gap until `now_ns`, the one included that has not ended by then. When nothing more is started, answers
    /// come ever less often: what is after that is in no gap.
    #[must_use]
    pub fn longest_gap(&self, now_ns: u64) -> Gap {
        let from_ns = self.last_ns.load(Ordering::Relaxed);
        let open = Gap {
            from_ns,
            length_ns: match from_ns {
                0 => 0,
                from_ns => self.until_end(now_ns).saturating_sub(from_ns),
            },
        };
        let longest = *self.longest();
        match open.length_ns > longest.length_ns {
            true => open,
            false => longest,
        }
    }

    /// The load begins: gaps count from here.
    pub(super) fn begin(&self, now_ns: u64) {
        self.last_ns.fetch_max(now_ns, Ordering::Relaxed);
    }

    /// Nothing is started from `end_ns` on.
    pub(super) fn end(&self, end_ns: u64) {
        self.end_ns.fetch_min(end_ns, Ordering::Relaxed);
    }

    fn until_end(&self, now_ns: u64) -> u64 {
        now_ns.min(self.end_ns.load(Ordering::Relaxed))
    }

    /// An operation has succeeded.
    pub(super) fn beat(&self, now_ns: u64) {
        self.beats.fetch_add(1, Ordering::Relaxed);
        // Threads may come by in another order than that of their clocks: then it is no gap.
        let from_ns = self.last_ns.fetch_max(now_ns, Ordering::Relaxed);
        let length_ns = match from_ns {
            0 => 0,
            from_ns => self.until_end(now_ns).saturating_sub(from_ns),
        };
        if self.longest_ns.fetch_max(length_ns, Ordering::Relaxed) < length_ns {
            let mut longest = self.longest();
            if longest.length_ns < length_ns {
                *longest = Gap { from_ns, length_ns };
            }
        }
    }

    fn longest(&self) -> MutexGuard<'_, Gap> {
        // Whoever panicked while holding it has left a whole gap.
        self.longest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nanoseconds, as far as they go.
#[must_use]
pub(crate) fn whole_ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: gaps count from the beginning of the load, between successes in whatever order they are told, and to
    /// where nothing more is started.
    #[test]
    fn gaps() {
        let check = |beats: &[u64], end_ns: u64, expected: (u64, u64)| {
            let pulse = Pulse::start();
            pulse.begin(100);
            for beat in beats {
                pulse.beat(*beat);
            }
            let gap = pulse.longest_gap(end_ns);
            assert_eq!((gap.from_ns, gap.length_ns), expected, "{beats:?}");
            assert_eq!(pulse.beats(), beats.len() as u64);
        };
        check(&[110, 150, 155], 160, (110, 40));
        check(&[150, 155], 160, (100, 50));
        check(&[110, 120, 115, 125], 126, (100, 10));
        check(&[110, 120], 200, (120, 80));
        check(&[], 130, (100, 30));
        check(&[110, 150], 120, (110, 40));
        let ended = Pulse::start();
        ended.begin(100);
        ended.end(150);
        ended.beat(140);
        ended.beat(400);
        assert_eq!(ended.longest_gap(1_000).length_ns, 40);
        let silent = Pulse::start();
        silent.begin(100);
        silent.end(150);
        assert_eq!(silent.longest_gap(1_000).length_ns, 50);
        assert_eq!(Pulse::start().longest_gap(1_000).length_ns, 0);
    }
}
