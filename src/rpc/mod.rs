//! The client edge: HTTP/2 with gRPC, and HTTP/1.1 for people and probes, on one port.
//!
//! One task per connection, on the core that accepted it, for life. Requests are decoded and checked for
//! form here, then mailed to the shard; what depends on state is never decided here. Only this module
//! knows protobuf, HTTP and etcd's error texts.
//!
//! ```text
//! serve  -> wire     the socket behind buffers; one send per turn
//!        -> http2    calls: accept all, hand on, answer all   -> call, large, grpc, frames, wakes
//!        -> http1    /health, /livez, /readyz, /version       -> http
//! method, form, convert, kv, range_stream, maintenance, cluster, health, admin   messages and their rules
//! status             every error a client can see
//! edge               what the connections of a core share
//! client             the other side of one call, for commands of operators
//! ```

mod call;
mod edge;
mod frames;
mod grpc;
mod http;
mod http1;
mod http2;
mod large;
mod serve;
mod wakes;
mod wire;

pub mod admin;
pub mod client;
pub mod cluster;
pub mod convert;
pub mod form;
pub mod health;
pub mod kv;
pub mod maintenance;
pub mod method;
pub mod pb;
pub mod range_stream;
pub mod status;
pub mod version;

pub use edge::{Allowed, Clock, CoreClock, Edge, EdgeConfig, EdgeCounters, EdgeReading};
pub use serve::serve_connection;
