//! Connections between members.

pub mod wire;
