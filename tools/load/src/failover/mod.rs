//! The leader's death under load, many times.
