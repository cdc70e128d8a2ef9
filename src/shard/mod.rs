//! One replica of one shard: raft, log and keyspace as one deterministic machine.

pub mod cluster;
pub mod event;
pub mod waiters;
