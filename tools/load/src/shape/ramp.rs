//! The search for the knee: the highest rate at which the 99th percentile stays under a bound.
//!
//! Rates grow by a factor until one does not hold; then the gap between the highest that held and the lowest that
//! did not is halved until it is narrow.

use std::time::Duration;

use super::RATE_MAX;

/// Steps of one search at most.
const STEPS_MAX: usize = 40;
/// A rate is reached when at least this part of it was acknowledged.
const REACHED: f64 = 0.98;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RampSpec {
    /// The first rate, in operations per second.
    pub start_rate: f64,
    /// Factor from one rate to the next while they hold.
    pub growth: f64,
    /// The search ends when the gap is at most this part of the rate.
    pub precision: f64,
    /// Bound of the 99th percentile.
    pub p99_max: Duration,
}

/// A search that goes on.
#[derive(Clone, Debug)]
pub struct Ramp {
    spec: RampSpec,
    held: Option<f64>,
    missed: Option<f64>,
    steps: usize,
}

impl Ramp {
    /// Begins a search.
    #[must_use]
    pub fn new(spec: RampSpec) -> Ramp {
        Ramp {
            spec,
            held: None,
            missed: None,
            steps: 0,
        }
    }

    /// The next rate to try; `None` when the search is over.
    #[must_use]
    pub fn next_rate(&self) -> Option<f64> {
        if self.steps >= STEPS_MAX {
            return None;
        }
        match (self.held, self.missed) {
            (None, None) => Some(self.spec.start_rate),
            // There is nothing above it to be tried.
            (Some(held), None) if held >= RATE_MAX => None,
            (Some(held), None) => Some((held * self.spec.growth).min(RATE_MAX)),
            // The first one was too much already: look below.
            (None, Some(missed)) if missed < 1.0 => None,
            (None, Some(missed)) => Some(missed / self.spec.growth),
            (Some(held), Some(missed)) if missed - held <= held * self.spec.precision => None,
            (Some(held), Some(missed)) => Some(f64::midpoint(held, missed)),
        }
    }

    /// What came of a rate; says whether it held.
    pub fn tried(&mut self, offered: f64, achieved: f64, p99: Duration, errors: u64) -> bool {
        self.steps += 1;
        let held = p99 <= self.spec.p99_max && achieved >= offered * REACHED && errors == 0;
        if held {
            self.held = Some(self.held.map_or(offered, |best| best.max(offered)));
        } else {
            self.missed = Some(self.missed.map_or(offered, |worst| worst.min(offered)));
        }
        held
    }

    /// The highest rate that held.
    #[must_use]
    pub fn knee(&self) -> Option<f64> {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(capacity: f64, start_rate: f64) -> (Option<f64>, usize) {
        let mut ramp = Ramp::new(RampSpec {
            start_rate,
            growth: 1.5,
            precision: 0.05,
            p99_max: Duration::from_millis(5),
        });
        let mut steps = 0;
        while let Some(rate) = ramp.next_rate() {
            let p99 = Duration::from_millis(if rate <= capacity { 2 } else { 50 });
            ramp.tried(rate, rate.min(capacity), p99, 0);
            steps += 1;
        }
        (ramp.knee(), steps)
    }

    /// Goal: the knee is found from below and from above, and a server that never holds ends the search.
    #[test]
    fn finds_the_knee() {
        for start_rate in [1000.0, 40_000.0, 200_000.0] {
            let (knee, steps) = search(42_000.0, start_rate);
            let knee = knee.expect("a knee");
            assert!(
                (39_900.0..=42_000.0).contains(&knee),
                "{knee} from {start_rate}"
            );
            assert!(steps < 20, "{steps}");
        }
        assert_eq!(search(0.0, 1000.0).0, None);
        assert_eq!(search(f64::MAX, 1000.0).0, Some(RATE_MAX));
    }
}
