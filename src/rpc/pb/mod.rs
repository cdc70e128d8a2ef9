//! Protobuf messages of etcd's API and of our own calls, generated from `proto/` and checked in.
//!
//! Never edited by hand: `REWRITE=1 cargo test --test rpc_pb` writes them, and a plain run of that test
//! compares. Only `rpc` may name these types; below it requests are `keyspace::request` and
//! `shard::event`.
#![allow(
    missing_docs,
    reason = "generated; what a field means is said in proto/"
)]

#[rustfmt::skip]
pub mod authpb;
#[rustfmt::skip]
pub mod etcdserverpb;
#[rustfmt::skip]
pub mod health;
#[rustfmt::skip]
pub mod kontiki;
#[rustfmt::skip]
pub mod mvccpb;
