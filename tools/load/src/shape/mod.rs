//! When the next operation starts.
//!
//! Closed loop: when an answer has come, so that a number of operations is always in flight. Open loop: when its
//! time has come, whether the server keeps up or not; latency then counts from that time, so that a stall is seen by
//! every operation that it delays (no coordinated omission). A function of time only: no clock in here.

mod ramp;

pub use ramp::{Ramp, RampSpec};

/// Operations per second at most, over all threads: more than any machine sends, and few enough that times of hours
/// in nanoseconds tell one start from the next.
pub const RATE_MAX: f64 = 1e8;

/// How operations are spread over time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// A fixed number in flight, over all threads.
    Closed {
        /// How many.
        in_flight: usize,
    },
    /// A fixed rate.
    Open {
        /// Operations per second, over all threads.
        rate: f64,
        /// Independent random intervals, as many independent users make them, instead of equal ones.
        poisson: bool,
        /// Operations in flight at most; beyond it they wait, and their waiting counts.
        in_flight_max: usize,
    },
}

/// The start times of one thread in an open loop.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    interval_ns: f64,
    poisson: bool,
    /// The next start, in nanoseconds of the run; a fraction so that no rate drifts.
    next_ns: f64,
    random: fastrand::Rng,
}

impl Schedule {
    /// For the thread `lane` of `lanes`, which share `rate`.
    pub(crate) fn new(rate: f64, poisson: bool, lane: u64, lanes: u64, start_ns: u64) -> Schedule {
        let interval_ns = 1e9 * lanes as f64 / rate.min(RATE_MAX);
        Schedule {
            interval_ns,
            poisson,
            // Threads take turns.
            next_ns: start_ns as f64 + interval_ns * lane as f64 / lanes as f64,
            random: fastrand::Rng::with_seed(lane),
        }
    }

    /// When the next operation is to start.
    pub(crate) fn next_ns(&self) -> u64 {
        self.next_ns as u64
    }

    /// That operation has been started.
    pub(crate) fn advance(&mut self) {
        self.next_ns += match self.poisson {
            false => self.interval_ns,
            // One minus it is never zero.
            true => -(1.0 - self.random.f64()).ln() * self.interval_ns,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(poisson: bool, lane: u64, lanes: u64, until_ns: u64) -> Vec<u64> {
        let mut schedule = Schedule::new(1000.0, poisson, lane, lanes, 0);
        let mut starts = Vec::new();
        while schedule.next_ns() < until_ns {
            starts.push(schedule.next_ns());
            schedule.advance();
        }
        starts
    }

    /// Goal: a rate is kept over any time, evenly over the threads, whatever the intervals are.
    #[test]
    fn rates() {
        assert_eq!(starts(false, 0, 1, 3_000_000), [0, 1_000_000, 2_000_000]);
        assert_eq!(starts(false, 1, 2, 4_000_000), [1_000_000, 3_000_000]);
        let second = 1_000_000_000;
        assert_eq!(starts(false, 0, 1, 100 * second).len(), 100_000);
        let random = starts(true, 0, 1, 100 * second).len();
        assert!((98_500..101_500).contains(&random), "{random}");
    }

    /// Goal: whatever rate is asked for, each operation has a start of its own, also late in a long run.
    #[test]
    fn always_goes_on() {
        for rate in [1e8, 1e18, f64::INFINITY] {
            let late_ns = 3_600_000_000_000;
            let mut schedule = Schedule::new(rate, false, 0, 1, late_ns);
            for _ in 0..1000 {
                let before_ns = schedule.next_ns();
                schedule.advance();
                assert!(schedule.next_ns() > before_ns, "{rate}");
            }
        }
    }
}
