//! What the process-level tests and benches share: a server process under control, a pipelining
//! gRPC client, the accounting of CPU time, and the log files of a data directory seen from outside.
//!
//! Speaks to kontiki and to etcd alike, through what both promise: flags, the ready line of the log,
//! signals, exit codes and the client API. Must never link the server itself, so that a mistake in the
//! server's own types cannot hide from the tests.

#![allow(
    clippy::disallowed_methods,
    reason = "real clocks, sockets and processes are what this crate is about"
)]

pub mod client;
pub mod cpu;
pub mod messages;
pub mod segments;
pub mod server;
