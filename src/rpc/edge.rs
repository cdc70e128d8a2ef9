//! What all client connections of one core share: identity, limits, the way to the shards, budgets.
//!
//! Built once per core and never crosses threads. Holds no connection: each owns itself and is only
//! counted here. Must never block, and never let one client's use exceed the budgets of all.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use slab::Slab;

use super::form::FormLimits;
use super::method::Method;
use super::status;
use crate::base::limits::{
    EDGE_CONNECTIONS_DEFAULT, EDGE_CORE_HELD_BYTES_DEFAULT, EDGE_IDLE_BUFFERS_MAX,
    EDGE_OUTPUT_BYTES_MAX, EDGE_READ_BUFFER_BYTES, EDGE_SLOW_LOG_INTERVAL, EDGE_STREAMS_DEFAULT,
    GRPC_OVERHEAD_BYTES, REQUEST_SIZE_BYTES_DEFAULT, TXN_OPERATIONS_DEFAULT,
};
use crate::base::{Instant, ShardId};
use crate::runtime::{self, router::Router};
use crate::shard::event::Identity;

/// Time, as the driver of this core has it.
pub trait Clock {
    /// The member's monotonic clock.
    fn now(&self) -> Instant;

    /// Completes once `span` has passed. Dropping it cancels the timer.
    fn sleep(&self, span: Duration) -> Pin<Box<dyn Future<Output = ()>>>;
}

/// The clock of the core this runs on.
pub struct CoreClock(pub runtime::clock::Clock);

impl Clock for CoreClock {
    fn now(&self) -> Instant {
        self.0.now()
    }

    fn sleep(&self, span: Duration) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(runtime::executor::sleep(span))
    }
}

/// Names that HTTP/1.1 requests may carry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Allowed {
    /// All.
    #[default]
    Any,
    /// These, compared exactly.
    These(Vec<String>),
}

impl Allowed {
    /// Whether `name` is among them.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        match self {
            Allowed::Any => true,
            Allowed::These(these) => these.iter().any(|this| this == name),
        }
    }
}

/// What the operator can set.
#[derive(Clone, Debug)]
pub struct EdgeConfig {
    /// `--max-request-bytes`.
    pub request_size_bytes_max: u64,
    /// `--max-txn-ops`.
    pub transaction_operations_max: usize,
    /// The server's own limit for a request: 5 s and two election timeouts.
    pub request_timeout: Duration,
    /// `--max-concurrent-streams`, at most `EDGE_STREAMS_MAX`.
    pub streams_per_connection_max: u32,
    /// Client connections of this core.
    pub connections_max: usize,
    /// Bytes of requests and answers that this core's connections hold.
    pub held_bytes_max: u64,
    /// `--grpc-keepalive-min-time`: clients that ping more often than this are sent away.
    pub keepalive_min_time: Duration,
    /// `--grpc-keepalive-interval`: a silent client is pinged after this.
    pub keepalive_interval: Duration,
    /// `--grpc-keepalive-timeout`: and closed when it does not answer within this.
    pub keepalive_timeout: Duration,
    /// `--warning-unary-request-duration`: a unary call that is answered later than this is logged.
    pub slow_request: Duration,
    /// `--cors`: web pages of these origins may read answers over HTTP/1.1.
    pub origins: Allowed,
    /// `--host-whitelist`: host names that HTTP/1.1 requests may be meant for.
    pub hosts: Allowed,
}

impl Default for EdgeConfig {
    /// etcd's defaults where it has them.
    fn default() -> EdgeConfig {
        EdgeConfig {
            request_size_bytes_max: REQUEST_SIZE_BYTES_DEFAULT,
            transaction_operations_max: usize::try_from(TXN_OPERATIONS_DEFAULT)
                .expect("a small number"),
            request_timeout: Duration::from_secs(7),
            streams_per_connection_max: EDGE_STREAMS_DEFAULT,
            connections_max: EDGE_CONNECTIONS_DEFAULT,
            held_bytes_max: EDGE_CORE_HELD_BYTES_DEFAULT,
            keepalive_min_time: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(2 * 60 * 60),
            keepalive_timeout: Duration::from_secs(20),
            slow_request: Duration::from_millis(300),
            origins: Allowed::Any,
            hosts: Allowed::Any,
        }
    }
}

/// How connections fared since the start, for metrics.
#[derive(Debug, Default)]
pub struct EdgeCounters {
    /// Connections taken.
    pub accepted: Cell<u64>,
    /// Connections closed at once because the core had too many.
    pub refused: Cell<u64>,
    /// Connections closed for breaking a limit or the protocol, or for not reading.
    pub expelled: Cell<u64>,
    /// Calls begun.
    pub calls: Cell<u64>,
    /// Calls refused because a budget or a queue was full.
    pub overloaded: Cell<u64>,
    /// Unary calls answered later than [`EdgeConfig::slow_request`].
    pub slow: Cell<u64>,
}

/// A reading of [`EdgeCounters`], field by field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EdgeReading {
    /// [`EdgeCounters::accepted`].
    pub accepted: u64,
    /// [`EdgeCounters::refused`].
    pub refused: u64,
    /// [`EdgeCounters::expelled`].
    pub expelled: u64,
    /// [`EdgeCounters::calls`].
    pub calls: u64,
    /// [`EdgeCounters::overloaded`].
    pub overloaded: u64,
    /// [`EdgeCounters::slow`].
    pub slow: u64,
}

impl EdgeCounters {
    /// The counters now, as a value that may leave the core.
    #[must_use]
    pub fn read(&self) -> EdgeReading {
        EdgeReading {
            accepted: self.accepted.get(),
            refused: self.refused.get(),
            expelled: self.expelled.get(),
            calls: self.calls.get(),
            overloaded: self.overloaded.get(),
            slow: self.slow.get(),
        }
    }
}

/// Adds one to a counter.
pub(super) fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

/// The shared part of one core's client connections.
pub struct Edge {
    pub(super) identity: Identity,
    pub(super) config: EdgeConfig,
    pub(super) form: FormLimits,
    pub(super) router: Rc<Router>,
    pub(super) clock: Rc<dyn Clock>,
    pub(super) buffers: Buffers,
    /// Bytes held by all connections, see [`EdgeConfig::held_bytes_max`].
    pub(super) held_bytes: Cell<u64>,
    /// The headers of every answer that has a body.
    pub(super) response_headers: HeaderMap,
    /// The trailers of every call that succeeds.
    pub(super) ok_trailers: HeaderMap,
    counters: EdgeCounters,
    slow: SlowLog,
    stopping: Cell<bool>,
    /// Who is told when the core stops: one entry per connection.
    connections: RefCell<Slab<Option<Waker>>>,
}

impl Edge {
    /// The shard that holds every key; others follow with sharding.
    pub(super) const SHARD: ShardId = ShardId(0);

    /// Builds the shared part for one core.
    #[must_use]
    pub fn new(
        identity: Identity,
        config: EdgeConfig,
        router: Rc<Router>,
        clock: Rc<dyn Clock>,
    ) -> Rc<Edge> {
        let mut response_headers = HeaderMap::with_capacity(1);
        response_headers.insert(header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
        let mut ok_trailers = HeaderMap::with_capacity(1);
        ok_trailers.insert(GRPC_STATUS, status::OK.code.header());
        Rc::new(Edge {
            identity,
            form: FormLimits {
                request_size_bytes_max: config.request_size_bytes_max,
                transaction_operations_max: config.transaction_operations_max,
                member: identity.member,
            },
            config,
            router,
            clock,
            buffers: Buffers::default(),
            held_bytes: Cell::new(0),
            response_headers,
            ok_trailers,
            counters: EdgeCounters::default(),
            slow: SlowLog::default(),
            stopping: Cell::new(false),
            connections: RefCell::default(),
        })
    }

    /// Begins the shutdown: every connection finishes its calls, for a limited time, takes no new
    /// streams and closes. New connections are closed at once.
    pub fn stop(&self) {
        self.stopping.set(true);
        for waker in self.connections.borrow_mut().iter_mut() {
            if let Some(waker) = waker.1.take() {
                waker.wake();
            }
        }
    }

    /// Whether [`Edge::stop`] has been called.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Connections that are open.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Bytes of requests and answers that the connections hold now.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes.get()
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> &EdgeCounters {
        &self.counters
    }

    /// A unary call was answered after `took`, which is too long.
    #[cold]
    pub(super) fn note_slow(&self, method: Method, took: Duration, now: Instant) {
        count(&self.counters.slow);
        if let Some(untold) = self.slow.may_tell(now) {
            tracing::warn!(
                method = method.path(),
                took = ?took,
                expected_duration = ?self.config.slow_request,
                untold,
                "unary request took too long"
            );
        }
    }

    /// The largest gRPC message taken from a client, in bytes.
    pub(super) fn message_size_bytes_max(&self) -> u64 {
        self.config
            .request_size_bytes_max
            .saturating_add(GRPC_OVERHEAD_BYTES)
    }

    /// Counts a new connection, unless there are too many or the core stops.
    pub(super) fn admit(self: &Rc<Self>) -> Option<Admission> {
        let mut connections = self.connections.borrow_mut();
        if self.is_stopping() || connections.len() >= self.config.connections_max {
            count(&self.counters.refused);
            return None;
        }
        count(&self.counters.accepted);
        Some(Admission {
            edge: Rc::clone(self),
            slot: connections.insert(None),
        })
    }
}

/// Lines about slow calls, at a bounded rate.
#[derive(Default)]
struct SlowLog {
    /// When the last line was written.
    last: Cell<Option<Instant>>,
    /// Slow calls since then that have no line.
    untold: Cell<u64>,
}

impl SlowLog {
    /// Whether a slow call gets a line, and then how many had none since the line before.
    fn may_tell(&self, now: Instant) -> Option<u64> {
        let told_lately = |last| now.since(last) < EDGE_SLOW_LOG_INTERVAL;
        if self.last.get().is_some_and(told_lately) {
            self.untold.set(self.untold.get() + 1);
            return None;
        }
        self.last.set(Some(now));
        Some(self.untold.take())
    }
}

/// The place of one connection among those of its core; given back on drop.
pub(super) struct Admission {
    edge: Rc<Edge>,
    slot: usize,
}

impl Admission {
    /// Whether the core is stopping; if not, `waker` is woken when it does.
    pub(super) fn is_stopping(&self, waker: &Waker) -> bool {
        if self.edge.is_stopping() {
            return true;
        }
        let mut connections = self.edge.connections.borrow_mut();
        match &mut connections[self.slot] {
            Some(present) if present.will_wake(waker) => {}
            entry => *entry = Some(waker.clone()),
        }
        false
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.edge.connections.borrow_mut().remove(self.slot);
    }
}

/// `application/grpc`.
pub(super) const GRPC_CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
/// The trailer with the code.
pub(super) const GRPC_STATUS: http::HeaderName = http::HeaderName::from_static("grpc-status");
/// The trailer with the text.
pub(super) const GRPC_MESSAGE: http::HeaderName = http::HeaderName::from_static("grpc-message");

/// Buffers that idle connections have given back.
#[derive(Default)]
pub(super) struct Buffers {
    /// All of `EDGE_READ_BUFFER_BYTES`, with leftovers in them.
    inputs: RefCell<Vec<Box<[u8]>>>,
    /// Empty, with the capacity of their last use.
    outputs: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    /// A buffer to read into.
    pub(super) fn take_input(&self) -> Box<[u8]> {
        let idle = self.inputs.borrow_mut().pop();
        idle.unwrap_or_else(|| vec![0; EDGE_READ_BUFFER_BYTES].into_boxed_slice())
    }

    /// Gives it back; freed when enough are kept.
    pub(super) fn give_input(&self, buffer: Box<[u8]>) {
        let mut idle = self.inputs.borrow_mut();
        if idle.len() < EDGE_IDLE_BUFFERS_MAX && buffer.len() == EDGE_READ_BUFFER_BYTES {
            idle.push(buffer);
        }
    }

    /// An empty buffer to append to.
    pub(super) fn take_output(&self) -> Vec<u8> {
        self.outputs.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives it back; freed when enough are kept, or when it has grown unusually large.
    pub(super) fn give_output(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut idle = self.outputs.borrow_mut();
        if idle.len() < EDGE_IDLE_BUFFERS_MAX && buffer.capacity() <= 2 * EDGE_OUTPUT_BYTES_MAX {
            idle.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: one line in an interval, which tells of those that had none.
    #[test]
    fn slow_lines_are_few() {
        let slow = SlowLog::default();
        let start = Instant(7);
        assert_eq!(slow.may_tell(start), Some(0));
        assert_eq!(slow.may_tell(start), None);
        let almost = EDGE_SLOW_LOG_INTERVAL - Duration::from_nanos(1);
        assert_eq!(slow.may_tell(start + almost), None);
        assert_eq!(slow.may_tell(start + EDGE_SLOW_LOG_INTERVAL), Some(2));
        assert_eq!(slow.may_tell(start + 2 * EDGE_SLOW_LOG_INTERVAL), Some(0));
    }
}
