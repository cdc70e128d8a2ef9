//! Kontiki: a strongly consistent, replicated key-value store that speaks etcd's v3 API.
//!
//! ```text
//! main -> server                        wires everything; start and stop in order
//!         local_cluster                 several servers as child processes           threads
//!         read_mode                     asks members, for `kontiki read-mode`
//! logging                               log lines as etcd writes them                 a thread
//! config      rpc         transport     flags | clients (HTTP/2, gRPC, HTTP/1.1) | peers   async
//!             runtime                   pinned cores, mailboxes, mapped files, clock      async
//!                               sim     the same shard; simulated network, disk and clock
//! ======== below this line: no I/O, no clock, no randomness, no async, no threads ========
//!             shard                     one replica: raft + wal + checkpoint + keyspace
//! raft        wal         checkpoint    consensus | bytes of the log | the state as a file
//!             keyspace                  MVCC: versions, history, transactions, compaction
//!             frame                     record header, checksum, archived body
//!             base                      limits, time values, ids, prng, checksum
//! ```
//!
//! An arrow only points down; `tests/layers.rs` keeps the picture true.

// Above the line: async, sockets, files, clocks.
pub mod server;

pub mod local_cluster;
pub mod read_mode;

pub mod logging;

pub mod config;
pub mod rpc;
pub mod runtime;
pub mod transport;

// The other driver of a shard: a world from one seed. Pure as well.
pub mod sim;

// Below the line: functions of their arguments.
pub mod shard;

pub mod checkpoint;
pub mod raft;
pub mod wal;

pub mod keyspace;

pub mod frame;

pub mod base;
