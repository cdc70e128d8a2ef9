//! When the next operation starts.
