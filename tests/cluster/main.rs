//! Clusters of three real processes: every member serves, leaders die and stop, directories are lost.
//!
//! `KONTIKI_BIN` names another binary; see `docs/testing.md`.

#![allow(
    clippy::disallowed_methods,
    reason = "real clocks, sockets and processes are what these tests are about"
)]

mod birth;
mod group;
mod leaders;
mod local;
mod read_mode;
