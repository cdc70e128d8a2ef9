//! HTTP/2 and gRPC by hand, non-blocking, one turn at a time.
//!
//! A [`Connection`] is the protocol without a socket: bytes that arrived go in, events come out, and bytes to
//! send pile up until the end of the turn. A [`Socket`] moves them, plain or through TLS. Cheaper than a general
//! library because it serves one kind of caller: gRPC calls with short heads that repeat. Buffers are bounded by
//! the limits named here, and no byte of a server makes it panic.
//!
//! Runs on the thread that owns the connection. Must never block, except in [`call()`], which says so.

mod call;
mod connection;
mod endpoint;
mod frame;
mod hpack;
mod huffman;
mod socket;
mod tls;

pub use call::{CallError, call};
pub use connection::{CallOptions, Connection, End, Event, Fault, Method, Started};
pub use endpoint::{Endpoint, EndpointError};
pub use socket::{Received, Sent, Socket};
pub use tls::{TlsError, TlsOptions, client_config};

/// Bytes read from a socket at once.
pub const READ_BYTES: usize = 64 * 1024;
/// Bytes that may wait to be sent on one connection; above it no call is started there.
pub const UNSENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of one message of an answer; a larger one ends its call.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of one decoded header list, as HTTP/2 counts them.
pub const HEADER_LIST_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests;
