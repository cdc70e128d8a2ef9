//! Answers that are ready but not yet true.
//!
//! An answer that changed something waits for its own entry to be committed. One that changed nothing is a
//! read at the head of its evaluation: it waits until that head is committed (nothing it saw may vanish
//! afterwards) and until a round that began after the evaluation has confirmed that this member still led
//! (nobody else may have committed something that it did not see). Indexes and rounds only grow along the
//! two queues, so both are released from the front. Waiters outlive leadership: an entry that stays in
//! the log may still be committed by another leader.

use std::collections::VecDeque;

use crate::base::{Index, Instant, Term};
use crate::raft::Round;
use crate::shard::asker::{Asker, Reply};
use crate::shard::event::{Header, Refusal, Response};

/// One answer and what it waits for.
#[derive(Debug)]
pub(super) struct Waiter {
    /// Released when this index is committed.
    pub(super) index: Index,
    /// Who asked.
    pub(super) asker: Asker,
    /// When the client is told that it took too long. The entry may still be committed.
    pub(super) deadline: Instant,
    /// The revision of the answer's header.
    pub(super) revision: i64,
    /// The answer.
    pub(super) result: Result<Response, Refusal>,
    /// Of a physical compaction: the answer also waits until the space below this revision is free.
    pub(super) reclaim_through: Option<i64>,
}

/// The queues of one shard.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    /// With an entry of their own.
    logged: VecDeque<Waiter>,
    /// Without one.
    unlogged: VecDeque<(Round, Waiter)>,
}

impl Waiters {
    /// Adds an answer that has an entry; its index is not below that of the one before.
    pub(super) fn push(&mut self, waiter: Waiter) {
        let last = self.logged.back().map_or(Index(0), |last| last.index);
        assert!(
            waiter.index >= last,
            "waiter for {} behind one for {last}",
            waiter.index
        );
        self.logged.push_back(waiter);
    }

    /// Adds an answer without an entry; its round began after its evaluation.
    pub(super) fn push_unlogged(&mut self, round: Round, waiter: Waiter) {
        self.unlogged.push_back((round, waiter));
    }

    /// Hands out every answer whose index is at or below `committed` and whose round is at or below
    /// `confirmed`, oldest first in each queue.
    pub(super) fn release(
        &mut self,
        committed: Index,
        confirmed: Round,
        mut each: impl FnMut(Waiter),
    ) {
        while let Some(waiter) = self.logged.pop_front_if(|first| first.index <= committed) {
            each(waiter);
        }
        let is_true = |(round, waiter): &mut (Round, Waiter)| {
            *round <= confirmed && waiter.index <= committed
        };
        while let Some((_, waiter)) = self.unlogged.pop_front_if(is_true) {
            each(waiter);
        }
    }

    /// The log ends after `after` now: hands out every answer whose entry is gone.
    pub(super) fn truncate(&mut self, after: Index, mut each: impl FnMut(Waiter)) {
        while let Some(waiter) = self.logged.pop_back_if(|last| last.index > after) {
            each(waiter);
        }
    }

    /// This member leads no longer: hands out every answer that only its leadership could confirm.
    pub(super) fn step_down(&mut self, mut each: impl FnMut(Waiter)) {
        for (_, waiter) in self.unlogged.drain(..) {
            each(waiter);
        }
    }

    /// Hands out every answer that waited past its deadline.
    pub(super) fn expire(&mut self, now: Instant, mut each: impl FnMut(Waiter)) {
        if self.logged.iter().any(|waiter| waiter.deadline <= now) {
            for waiter in std::mem::take(&mut self.logged) {
                if waiter.deadline <= now {
                    each(waiter);
                } else {
                    self.logged.push_back(waiter);
                }
            }
        }
        let late = |(_, waiter): &(Round, Waiter)| waiter.deadline <= now;
        if self.unlogged.iter().any(late) {
            for (round, waiter) in std::mem::take(&mut self.unlogged) {
                if waiter.deadline <= now {
                    each(waiter);
                } else {
                    self.unlogged.push_back((round, waiter));
                }
            }
        }
    }

    /// Answers that wait.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.logged.len() + self.unlogged.len()
    }

    /// Whether none waits.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Waiter {
    /// The answer as it goes out.
    #[must_use]
    pub(super) fn into_reply(self, term: Term) -> Reply {
        let header = Header {
            revision: self.revision,
            term,
        };
        Reply {
            asker: self.asker,
            index: self.index,
            header,
            result: self.result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::MemberId;

    fn waiter(index: u64, deadline: u64) -> Waiter {
        Waiter {
            index: Index(index),
            asker: Asker::Member {
                member: MemberId(1),
                request: index,
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
        queue.release(Index(3), Round(0), |waiter| released.push(waiter.index.0));
        assert_eq!(released, [1, 2, 2]);
        assert_eq!(queue.len(), 1);
    }

    /// Goal: an answer without an entry needs both, its head committed and its round confirmed, and a write
    /// does not wait for it.
    #[test]
    fn unlogged_needs_both() {
        let mut queue = queue(&[(5, 9)]);
        queue.push_unlogged(Round(2), waiter(4, 9));
        let mut released = Vec::new();
        queue.release(Index(4), Round(1), |waiter| released.push(waiter.index.0));
        queue.release(Index(3), Round(2), |waiter| released.push(waiter.index.0));
        assert_eq!(released, [0; 0]);
        queue.release(Index(5), Round(1), |waiter| released.push(waiter.index.0));
        assert_eq!(released, [5]);
        queue.release(Index(5), Round(2), |waiter| released.push(waiter.index.0));
        assert_eq!(released, [5, 4]);
    }

    /// Goal: a cut takes the answers of the entries that are gone, and the end of leadership those that have
    /// no entry.
    #[test]
    fn truncation_and_step_down() {
        let mut queue = queue(&[(1, 9), (3, 9), (4, 9)]);
        queue.push_unlogged(Round(1), waiter(2, 9));
        let mut gone = Vec::new();
        queue.truncate(Index(2), |waiter| gone.push(waiter.index.0));
        queue.step_down(|waiter| gone.push(waiter.index.0));
        assert_eq!(gone, [4, 3, 2]);
        assert_eq!(queue.len(), 1);
    }

    /// Goal: a deadline takes out its own waiter and no other.
    #[test]
    fn expiry() {
        let mut queue = queue(&[(1, 9), (2, 5), (3, 9)]);
        queue.push_unlogged(Round(1), waiter(3, 5));
        queue.expire(Instant(4), |_| panic!("nothing is due"));
        let mut expired = Vec::new();
        queue.expire(Instant(5), |waiter| expired.push(waiter.index.0));
        assert_eq!(expired, [2, 3]);
        assert_eq!(queue.len(), 2);
    }
}
