//! The simulator: that it finds what is wrong, that it repeats itself, and that it finds nothing.

mod checkers;
#[cfg(feature = "planted")]
mod planted;
mod seeds;
