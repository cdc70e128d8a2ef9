//! Consensus among several members, in memory: the public surface of `kontiki::raft` and nothing else.
//!
//! `transcripts` are stories written down (`REWRITE=1` writes them anew), `random` is a hostile network
//! under many seeds, `rules` are the promises made to operators.

mod checker;
mod cluster;
mod member;
mod random;
mod rules;
mod story;
mod transcripts;
