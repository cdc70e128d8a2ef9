//! Which calls of a connection have something to do.
//!
//! HTTP/2 wakes a stream when data, window or a reset arrives for it. Each parked call gets a waker of
//! its own that puts its number on a list and wakes the connection; so a turn looks at those calls and
//! not at all that are open. Everything stays on one core; the atomics are what `Waker` demands.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use atomic_waker::AtomicWaker;
use crossbeam::queue::ArrayQueue;

use crate::base::limits::EDGE_WAKES_MAX;

/// The list of one connection.
pub(super) struct Wakes {
    ready: ArrayQueue<u32>,
    /// More wakes than `ready` holds: look at all calls.
    overflow: AtomicBool,
    connection: AtomicWaker,
    /// The connection is at work and looks at the list before it rests.
    in_turn: AtomicBool,
}

impl Wakes {
    /// An empty list.
    pub(super) fn new() -> Arc<Wakes> {
        Arc::new(Wakes {
            ready: ArrayQueue::new(EDGE_WAKES_MAX),
            overflow: AtomicBool::new(false),
            connection: AtomicWaker::new(),
            in_turn: AtomicBool::new(false),
        })
    }

    /// A waker for one call.
    pub(super) fn waker(self: &Arc<Self>, call: u32) -> Waker {
        Waker::from(Arc::new(CallWaker {
            wakes: Arc::clone(self),
            call,
        }))
    }

    /// The connection works until [`Wakes::end_turn`]; wakes need not reach its task.
    pub(super) fn begin_turn(&self) {
        self.in_turn.store(true, Ordering::Relaxed);
    }

    /// The connection rests. What is on the list by now is its own to see.
    pub(super) fn end_turn(&self, connection: &Waker) {
        self.connection.register(connection);
        self.in_turn.store(false, Ordering::Release);
    }

    /// The next call that was woken.
    pub(super) fn pop(&self) -> Option<u32> {
        self.ready.pop()
    }

    /// Whether calls are on the list.
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && !self.overflow.load(Ordering::Relaxed)
    }

    /// Whether wakes were lost since the last time, so that every call is to be looked at.
    pub(super) fn take_overflow(&self) -> bool {
        self.overflow.swap(false, Ordering::Relaxed)
    }
}

struct CallWaker {
    wakes: Arc<Wakes>,
    call: u32,
}

impl Wake for CallWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.wakes.ready.push(self.call).is_err() {
            self.wakes.overflow.store(true, Ordering::Relaxed);
        }
        if !self.wakes.in_turn.load(Ordering::Acquire) {
            self.wakes.connection.wake();
        }
    }
}
