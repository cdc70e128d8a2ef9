//! A load generator for any etcd v3 endpoint: it measures latency honestly and says what it cost.
//!
//! ```text
//! cli                                  one file per subcommand
//! compare   failover  slow             ours beside etcd, pair by pair; a member's death, and its slowness, under load
//! elections                            terms that begin while nothing is wrong but the load
//! run       cluster                    one run from start to result; servers under control
//! report    history                    table, JSON, CSV, HTML; records of operations and their checkers
//! shape     workload                   when the next operation starts; which operation it is
//! measure   result                     histograms while it runs; what is kept of a run
//! wire                                 HTTP/2 and gRPC by hand, non-blocking, one turn at a time
//! ```
//!
//! Must never link the server, so that a mistake in the server's own types cannot hide from the load, and
//! must never send to an address that it was not given.

#![allow(
    clippy::disallowed_methods,
    reason = "real clocks, sockets and processes are what this crate is about"
)]

pub mod cli;
pub mod cluster;
pub mod compare;
pub mod elections;
pub mod failover;
pub mod history;
pub mod measure;
pub mod report;
pub mod result;
pub mod run;
pub mod shape;
pub mod slow;
pub mod wire;
pub mod workload;
