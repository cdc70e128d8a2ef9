//! Seeded randomness: the same seed gives the same numbers, so a shard is a function of its inputs.

/// A seeded generator for election jitter and the like. Not for secrets.
#[derive(Clone, Debug)]
pub struct Prng(fastrand::Rng);

impl Prng {
    /// A generator whose whole future is decided by `seed`.
    #[must_use]
    pub fn from_seed(seed: u64) -> Prng {
        Prng(fastrand::Rng::with_seed(seed))
    }

    /// A number below `bound`, which must not be zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.u64(0..bound)
    }

    /// Any 64-bit number.
    pub fn next_u64(&mut self) -> u64 {
        self.0.u64(..)
    }
}
