//! Answers that are ready but not yet true: each waits for an index to be committed.
//!
//! An answer that changed something waits for its own entry; one that changed nothing is a read at the
//! head of its evaluation and waits for that head (nothing it saw may vanish afterwards). Indexes only
//! grow along the queue, so a commit releases a prefix.

use std::collections::VecDeque;

use crate::base::{Index, Instant, Term};
use crate::shard::event::{Answer, Header, Refusal, Response, Ticket};

/// One answer and what it waits for.
#[derive(Debug)]
pub(super) struct Waiter {
    /// Released when this index is committed.
    pub(super) index: Index,
    /// Where the answer goes.
    pub(super) ticket: Ticket,
    /// When the client is told that it took too long. The entry may still be committed.
    pub(super) deadline: Instant,
    /// The revision of the answer's header.
    pub(super) revision: i64,
    /// The answer.
    pub(super) result: Result<Response, Refusal>,
    /// Of a physical compaction: the answer also waits until the space below this revision is free.
    pub(super) reclaim_through: Option<i64>,
}

/// The queue of one shard.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    queue: VecDeque<Waiter>,
}

impl Waiters {
    /// Adds an answer; its index is not below that of the one before.
    pub(super) fn push(&mut self, waiter: Waiter) {
        let last = self.queue.back().map_or(Index(0), |last| last.index);
        assert!(
            waiter.index >= last,
            "waiter for {} behind one for {last}",
            waiter.index
        );
        self.queue.push_back(waiter);
    }

    /// Hands out every answer whose index is at or below `committed`, oldest first.
    pub(super) fn release(&mut self, committed: Index, mut each: impl FnMut(Waiter)) {
        while self
            .queue
            .front()
            .is_some_and(|waiter| waiter.index <= committed)
        {
            each(self.queue.pop_front().expect("the front was just seen"));
        }
    }

    /// Hands out every answer that waited past its deadline.
    pub(super) fn expire(&mut self, now: Instant, mut each: impl FnMut(Waiter)) {
        if self.queue.iter().all(|waiter| waiter.deadline > now) {
            return;
        }
        for waiter in std::mem::take(&mut self.queue) {
            if waiter.deadline <= now {
                each(waiter);
            } else {
                self.queue.push_back(waiter);
            }
        }
    }

    /// Answers that wait.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none waits.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl Waiter {
    /// The answer as it goes out.
    #[must_use]
    pub(super) fn into_answer(self, term: Term) -> Answer {
        let header = Header {
            revision: self.revision,
            term,
        };
        Answer {
            ticket: self.ticket,
            header,
            result: self.result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter(index: u64, deadline: u64) -> Waiter {
        Waiter {
            index: Index(index),
            ticket: Ticket {
                core: 0,
                connection: 0,
                generation: 0,
                request: 0,
            },
            deadline: Instant(deadline),
            revision: 1,
            result: Ok(Response::Compact),
            reclaim_through: None,
        }
    }

    fn queue(waiters: &[(u64, u64)]) -> Waiters {
        let mut queue = Waiters::default();
        for &(index, deadline) in waiters {
            queue.push(waiter(index, deadline));
        }
        queue
    }

    /// Goal: a commit releases exactly what waits at or below it, in order.
    #[test]
    fn release_by_index() {
        let mut queue = queue(&[(1, 9), (2, 9), (2, 9), (4, 9)]);
        let mut released = Vec::new();
        queue.release(Index(3), |waiter| released.push(waiter.index.0));
        assert_eq!(released, [1, 2, 2]);
        assert_eq!(queue.len(), 1);
    }

    /// Goal: a deadline takes out its own waiter and no other.
    #[test]
    fn expiry() {
        let mut queue = queue(&[(1, 9), (2, 5), (3, 9)]);
        queue.expire(Instant(4), |_| panic!("nothing is due"));
        let mut expired = Vec::new();
        queue.expire(Instant(5), |waiter| expired.push(waiter.index.0));
        assert_eq!(expired, [2]);
        assert_eq!(queue.len(), 2);
    }
}
