//! Where the measured part of an open loop really begins and ends.
//!
//! Operations count by the time at which they were to start; servers that cannot keep up do them later. The rate and
//! the CPU time must cover the time in which exactly those operations were done: from when nothing of the warm-up
//! waits any more, to the last success. With servers that keep up these are the edges that were asked for. Written
//! by the threads that load, read by the main thread.

use std::sync::atomic::{AtomicU64, Ordering};

/// The edges, in nanoseconds of the run, as far as they are known.
#[derive(Debug)]
pub(super) struct Edges {
    begin_ns: AtomicU64,
    end_ns: AtomicU64,
}

impl Edges {
    pub(super) fn new() -> Edges {
        Edges {
            begin_ns: AtomicU64::new(u64::MAX),
            end_ns: AtomicU64::new(0),
        }
    }

    /// A thread has sent all that was to start before the measured part.
    pub(super) fn begin(&self, at_ns: u64) {
        self.begin_ns.fetch_min(at_ns, Ordering::Relaxed);
    }

    /// An operation of the measured part has succeeded.
    pub(super) fn done(&self, at_ns: u64) {
        self.end_ns.fetch_max(at_ns, Ordering::Relaxed);
    }

    /// When the first thread began; `u64::MAX` until then.
    pub(super) fn begin_ns(&self) -> u64 {
        self.begin_ns.load(Ordering::Relaxed)
    }

    /// The last success so far; zero before the first.
    pub(super) fn end_ns(&self) -> u64 {
        self.end_ns.load(Ordering::Relaxed)
    }
}
