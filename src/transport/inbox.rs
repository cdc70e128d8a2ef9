//! What arrived and the shard has not looked at yet, in the order in which it must look.
//!
//! Owns the way from the connections of a core to its shard: what is prompt first, then what is ordered, then
//! blocks of checkpoints. Bounded by connection: one whose messages wait here reads no more, and the kernel
//! tells its peer to wait.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::TransportEvent;
use super::hello::Path;

/// Events for the shard.
#[derive(Default)]
pub(super) struct Inbox(RefCell<Events>);

#[derive(Default)]
struct Events {
    prompt: VecDeque<Held>,
    ordered: VecDeque<Held>,
    bulk: VecDeque<Held>,
    shard: Option<Waker>,
}

/// An event with what its connection gets back when it is taken.
struct Held {
    event: TransportEvent,
    credit: Option<(Rc<Credit>, usize)>,
}

impl Inbox {
    /// A message of `size_bytes` that came over a connection.
    pub(super) fn push(
        &self,
        path: Path,
        event: TransportEvent,
        credit: &Rc<Credit>,
        size_bytes: usize,
    ) {
        credit.held_bytes.set(credit.held_bytes.get() + size_bytes);
        self.add(path, event, Some((Rc::clone(credit), size_bytes)));
    }

    /// Something else than a message. It comes after all that is ordered.
    pub(super) fn push_own(&self, event: TransportEvent) {
        self.add(Path::Ordered, event, None);
    }

    fn add(&self, path: Path, event: TransportEvent, credit: Option<(Rc<Credit>, usize)>) {
        let mut events = self.0.borrow_mut();
        let queue = match path {
            Path::Prompt => &mut events.prompt,
            Path::Ordered => &mut events.ordered,
            Path::Bulk => &mut events.bulk,
        };
        queue.push_back(Held { event, credit });
        if let Some(shard) = events.shard.take() {
            shard.wake();
        }
    }

    /// The next event, or the shard is woken when there is one.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<TransportEvent> {
        let mut events = self.0.borrow_mut();
        let next = events
            .prompt
            .pop_front()
            .or_else(|| events.ordered.pop_front())
            .or_else(|| events.bulk.pop_front());
        let Some(Held { event, credit }) = next else {
            events.shard = Some(cx.waker().clone());
            return Poll::Pending;
        };
        if let Some((credit, size_bytes)) = credit {
            credit.give_back(size_bytes);
        }
        Poll::Ready(event)
    }
}

/// How much of one connection waits for the shard.
pub(super) struct Credit {
    held_bytes: Cell<usize>,
    held_bytes_max: usize,
    reader: RefCell<Option<Waker>>,
}

impl Credit {
    /// Lets a connection read on while less than this waits.
    pub(super) fn new(held_bytes_max: usize) -> Credit {
        Credit {
            held_bytes: Cell::new(0),
            held_bytes_max,
            reader: RefCell::new(None),
        }
    }

    /// Completes when the connection may read on.
    pub(super) async fn room(&self) {
        std::future::poll_fn(|cx| {
            if self.held_bytes.get() < self.held_bytes_max {
                return Poll::Ready(());
            }
            *self.reader.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn give_back(&self, size_bytes: usize) {
        self.held_bytes.set(self.held_bytes.get() - size_bytes);
        if self.held_bytes.get() < self.held_bytes_max
            && let Some(reader) = self.reader.borrow_mut().take()
        {
            reader.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::MemberId;

    fn event(number: u64) -> TransportEvent {
        TransportEvent::Disconnected(MemberId(number))
    }

    fn take(inbox: &Inbox) -> Option<u64> {
        match inbox.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(TransportEvent::Disconnected(MemberId(number))) => Some(number),
            Poll::Ready(TransportEvent::Received { .. }) => unreachable!("none was put in"),
            Poll::Pending => None,
        }
    }

    /// Goal: what is prompt overtakes what is ordered, which overtakes what is bulk; each keeps its order.
    #[test]
    fn order() {
        let inbox = Inbox::default();
        let credit = Rc::new(Credit::new(100));
        inbox.push(Path::Bulk, event(1), &credit, 10);
        inbox.push(Path::Ordered, event(2), &credit, 10);
        inbox.push(Path::Ordered, event(3), &credit, 10);
        inbox.push(Path::Prompt, event(4), &credit, 10);
        inbox.push_own(event(5));
        let taken: Vec<_> = std::iter::from_fn(|| take(&inbox)).collect();
        assert_eq!(taken, [4, 2, 3, 5, 1]);
    }

    /// Goal: a connection above its bound waits until the shard has taken enough, and then goes on.
    #[test]
    fn bounded() {
        let inbox = Inbox::default();
        let credit = Rc::new(Credit::new(20));
        let has_room = || {
            let mut room = std::pin::pin!(credit.room());
            let mut cx = Context::from_waker(Waker::noop());
            room.as_mut().poll(&mut cx).is_ready()
        };
        assert!(has_room());
        inbox.push(Path::Ordered, event(1), &credit, 19);
        assert!(has_room());
        inbox.push(Path::Ordered, event(2), &credit, 1);
        assert!(!has_room());
        assert_eq!(take(&inbox), Some(1));
        assert!(has_room());
    }
}
