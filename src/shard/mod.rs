//! One replica of one shard: raft, log and keyspace as one deterministic machine.

pub mod event;
