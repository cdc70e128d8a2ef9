//! The keyspace: every version the log holds, and what a revision means.

pub mod request;
