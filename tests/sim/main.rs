//! The simulator: that it finds what is wrong, that it repeats itself, and that it finds nothing.

mod checkers;
mod seeds;
