//! Carries requests from the connections of one core to the shards, and answers back.
//!
//! There is one router per core, shared by that core's connections; it never crosses threads. What is
//! submitted in one turn travels as one batch: a local shard finds it in its inbox, a shard on another
//! core gets it as one piece of mail. Answers are put into the connection's slot and its task is woken
//! once. A connection that has gone leaves a slot of another generation, so late answers are dropped.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use crate::base::limits::SHARD_QUEUE_REQUESTS_MAX;
use crate::base::{CoreId, ShardId};
use crate::shard::event::{Answer, ClientRequest, Ticket};

/// Wakes one task of this core when something was left for it.
#[derive(Default)]
pub struct Doorbell {
    rung: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Doorbell {
    /// Rings; rings before the waiter looks are one.
    pub fn ring(&self) {
        self.rung.set(true);
        if let Some(waker) = self.waiter.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Ready once after any number of rings since the last time. One task may wait at a time.
    pub fn poll_rung(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.rung.replace(false) {
            return Poll::Ready(());
        }
        *self.waiter.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Waits for a ring.
    pub async fn wait(&self) {
        std::future::poll_fn(|cx| self.poll_rung(cx)).await;
    }
}

/// Requests for one shard that were submitted on this core and not yet taken.
pub struct Outbound {
    requests: RefCell<Vec<ClientRequest>>,
    doorbell: Rc<Doorbell>,
}

impl Outbound {
    /// An empty queue whose consumer waits at `doorbell`.
    #[must_use]
    pub fn new(doorbell: Rc<Doorbell>) -> Outbound {
        Outbound {
            requests: RefCell::new(Vec::new()),
            doorbell,
        }
    }

    /// Moves everything that waits into `batch`, in the order it came.
    pub fn take_into(&self, batch: &mut Vec<ClientRequest>) {
        batch.append(&mut self.requests.borrow_mut());
    }
}

/// Where a connection's answers wait for it.
#[derive(Default)]
struct Slot {
    generation: u32,
    answers: Vec<Answer>,
    waiter: Option<Waker>,
}

/// One core's exchange between connections and shards.
pub struct Router {
    core: CoreId,
    outbound: Vec<Rc<Outbound>>,
    slots: RefCell<Slab<Slot>>,
    generation: Cell<u32>,
    /// Requests that were submitted and are not answered.
    waiting: Cell<usize>,
}

impl Router {
    /// A router of `core` that submits to `outbound`, one queue per shard in the order of their ids.
    #[must_use]
    pub fn new(core: CoreId, outbound: Vec<Rc<Outbound>>) -> Rc<Router> {
        Rc::new(Router {
            core,
            outbound,
            slots: RefCell::default(),
            generation: Cell::new(0),
            waiting: Cell::new(0),
        })
    }

    /// Opens a slot for one connection.
    #[must_use]
    pub fn open(self: &Rc<Self>) -> Session {
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        let slot = self.slots.borrow_mut().insert(Slot {
            generation,
            ..Slot::default()
        });
        Session {
            router: Rc::clone(self),
            slot,
            generation,
        }
    }

    /// Puts answers into their slots and wakes each connection once. Answers for connections that
    /// have gone are dropped.
    pub fn deliver(&self, answers: impl IntoIterator<Item = Answer>) {
        let mut slots = self.slots.borrow_mut();
        for answer in answers {
            self.waiting.set(self.waiting.get().saturating_sub(1));
            let ticket = answer.ticket;
            debug_assert_eq!(ticket.core, self.core.0, "answers are sorted by core");
            let Some(slot) = slots.get_mut(ticket.connection as usize) else {
                continue;
            };
            if slot.generation != ticket.generation {
                continue;
            }
            slot.answers.push(answer);
            if let Some(waker) = slot.waiter.take() {
                waker.wake();
            }
        }
    }

    /// Whether a request waits for its answer.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.waiting.get() > 0
    }

    /// The connections that are open.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.slots.borrow().len()
    }
}

/// A request was not taken, and is gone: its client is told to come back later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotTaken;

/// One connection's way to the shards; dropping it closes the slot.
pub struct Session {
    router: Rc<Router>,
    slot: usize,
    generation: u32,
}

impl Session {
    /// The ticket for a request of this connection.
    #[must_use]
    pub fn ticket(&self, request: u32) -> Ticket {
        let connection = u32::try_from(self.slot).expect("connections are limited far below 2^32");
        Ticket {
            core: self.router.core.0,
            connection,
            generation: self.generation,
            request,
        }
    }

    /// Leaves a request for a shard.
    ///
    /// # Errors
    /// [`NotTaken`] when the queue is full, or when there is no such shard.
    pub fn submit(&self, shard: ShardId, request: ClientRequest) -> Result<(), NotTaken> {
        let Some(outbound) = self.router.outbound.get(shard.0 as usize) else {
            return Err(NotTaken);
        };
        let mut requests = outbound.requests.borrow_mut();
        if requests.len() >= SHARD_QUEUE_REQUESTS_MAX {
            return Err(NotTaken);
        }
        requests.push(request);
        drop(requests);
        let waiting = &self.router.waiting;
        waiting.set(waiting.get() + 1);
        outbound.doorbell.ring();
        Ok(())
    }

    /// Appends the answers that have come to `into`; pends when there are none.
    pub fn poll_answers(&self, cx: &mut Context<'_>, into: &mut Vec<Answer>) -> Poll<()> {
        let mut slots = self.router.slots.borrow_mut();
        let slot = slots
            .get_mut(self.slot)
            .expect("the slot lives as long as its session");
        if slot.answers.is_empty() {
            match &slot.waiter {
                Some(waiter) if waiter.will_wake(cx.waker()) => {}
                _ => slot.waiter = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        into.append(&mut slot.answers);
        Poll::Ready(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.router.slots.borrow_mut().remove(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;
    use crate::base::Instant;
    use crate::shard::event::{Header, Refusal, Request};

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn answer(ticket: Ticket) -> Answer {
        Answer {
            ticket,
            header: Header::default(),
            result: Err(Refusal::NoLeader),
        }
    }

    fn router() -> (Rc<Router>, Rc<Outbound>) {
        let outbound = Rc::new(Outbound::new(Rc::new(Doorbell::default())));
        (Router::new(CoreId(0), vec![Rc::clone(&outbound)]), outbound)
    }

    /// Goal: answers reach the connection that asked, with one wake for many; a reused slot does not
    /// see its predecessor's answers.
    #[test]
    fn answers_find_their_connection() {
        let (router, _) = router();
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        let mut answers = Vec::new();

        let first = router.open();
        let late = first.ticket(1);
        drop(first);
        let second = router.open();
        assert!(second.poll_answers(&mut cx, &mut answers).is_pending());
        router.deliver([
            answer(late),
            answer(second.ticket(1)),
            answer(second.ticket(2)),
        ]);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert!(second.poll_answers(&mut cx, &mut answers).is_ready());
        assert_eq!(
            answers.iter().map(|a| a.ticket).collect::<Vec<_>>(),
            [second.ticket(1), second.ticket(2)]
        );
    }

    /// Goal: the queue to a shard is bounded, and an unknown shard is not a panic.
    #[test]
    fn submission_is_bounded() {
        let (router, outbound) = router();
        let session = router.open();
        let request = || ClientRequest {
            ticket: session.ticket(0),
            deadline: Instant(0),
            request: Request::Status,
        };
        for _ in 0..SHARD_QUEUE_REQUESTS_MAX {
            session
                .submit(ShardId(0), request())
                .expect("below the bound");
        }
        assert!(session.submit(ShardId(0), request()).is_err());
        assert!(session.submit(ShardId(1), request()).is_err());
        let mut batch = Vec::new();
        outbound.take_into(&mut batch);
        assert_eq!(batch.len(), SHARD_QUEUE_REQUESTS_MAX);
    }
}
