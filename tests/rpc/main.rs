//! The client edge as its clients see it: HTTP/2 and HTTP/1.1 over an in-memory connection, with a shard
//! that the test plays.

mod calls;
mod hostile;
mod sockets;
mod support;
