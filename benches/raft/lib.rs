//! Nothing: this crate is its bench, three members in memory beside the crate `raft`.
