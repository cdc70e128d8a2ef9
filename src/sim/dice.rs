//! Every random choice of a run, from one seed.
//!
//! Parts of the simulation that must not disturb each other get dice of their own, so that one more choice
//! in the network does not change what the clients ask.

use std::time::Duration;

use crate::base::prng::Prng;

/// Parts per million: the unit of probabilities here.
pub const MILLION: u64 = 1_000_000;

/// A seeded source of choices.
#[derive(Clone, Debug)]
pub struct Dice(Prng);

impl Dice {
    /// Dice whose whole future is decided by `seed`, for the part of the run named by `stream`.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Dice {
        let mut mix = Prng::from_seed(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Dice(Prng::from_seed(mix.next_u64()))
    }

    /// Any 64-bit number.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    /// A place in a list of `count`, which is not zero.
    pub fn place(&mut self, count: usize) -> usize {
        usize::try_from(self.0.below(count as u64)).expect("below a usize")
    }

    /// A number from `low` up to and including `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.0.below(high - low + 1)
    }

    /// Whether something happens that happens so many times in a million.
    pub fn chance(&mut self, per_million: u64) -> bool {
        self.0.below(MILLION) < per_million
    }

    /// A time between none and twice `mean`.
    pub fn around(&mut self, mean: Duration) -> Duration {
        let mean = u64::try_from(mean.as_nanos()).unwrap_or(u64::MAX / 4);
        Duration::from_nanos(self.0.below(2 * mean + 1))
    }

    /// A time between `low` and `high`.
    pub fn time(&mut self, low: Duration, high: Duration) -> Duration {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2);
        Duration::from_nanos(self.between(nanos(low), nanos(high)))
    }

    /// One of the choices, each as likely as its weight says. `None` when all weights are zero.
    pub fn weighted<T: Copy>(&mut self, choices: &[(u32, T)]) -> Option<T> {
        let total: u64 = choices.iter().map(|&(weight, _)| u64::from(weight)).sum();
        if total == 0 {
            return None;
        }
        let mut left = self.below(total);
        for &(weight, choice) in choices {
            match left.checked_sub(u64::from(weight)) {
                None => return Some(choice),
                Some(rest) => left = rest,
            }
        }
        None
    }
}
