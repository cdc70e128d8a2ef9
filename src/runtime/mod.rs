//! The per-core runtime: what surrounds the pure layers on a real machine.

pub mod router;
