//! Writes that wait: to be evaluated at the head, or to be sent to the leader.
//!
//! Each has a number, in the order in which this member took them. What comes back without an effect, because
//! the leadership has moved, has the number that it had, and goes ahead of what was taken later. Owns the bounds.

use std::collections::{BTreeMap, VecDeque};

use super::asker::{Ask, Asker};
use super::size::ask_bytes;
use crate::base::Instant;
use crate::base::limits::{SHARD_MEMBERS_WRITES_BYTES_MAX, SHARD_QUEUE_REQUESTS_MAX};

/// A write that was taken.
#[derive(Clone, Debug)]
pub(super) struct Write {
    /// How many this member took before it.
    number: u64,
    pub(super) ask: Ask,
}

/// The writes of one shard that nobody works on.
#[derive(Debug, Default)]
pub(super) struct Writes {
    /// What came back, by its number: ahead of all others.
    returned: BTreeMap<u64, Write>,
    waiting: VecDeque<Write>,
    /// The number of the next one.
    next: u64,
    /// Bytes of those that clients of other members asked for.
    of_members_bytes: u64,
}

impl Writes {
    pub(super) fn is_empty(&self) -> bool {
        self.returned.is_empty() && self.waiting.is_empty()
    }

    /// Whether one more may wait. Clients of this member are bounded by what their connections may hold; those of
    /// other members have no connection here. One of any size finds room.
    pub(super) fn has_room(&self, ask: &Ask) -> bool {
        let bytes = self.of_members_bytes + of_members_bytes(ask);
        let fits = self.of_members_bytes == 0 || bytes <= SHARD_MEMBERS_WRITES_BYTES_MAX;
        self.returned.len() + self.waiting.len() < SHARD_QUEUE_REQUESTS_MAX && fits
    }

    /// Takes one, behind all others. The caller refuses what has no room.
    pub(super) fn push(&mut self, ask: Ask) {
        self.of_members_bytes += of_members_bytes(&ask);
        let number = self.next;
        self.next += 1;
        self.waiting.push_back(Write { number, ask });
    }

    /// Takes one back that was taken out before and had no effect: there is room for what was taken once.
    pub(super) fn put_back(&mut self, write: Write) {
        self.of_members_bytes += of_members_bytes(&write.ask);
        let before = self.returned.insert(write.number, write);
        assert!(before.is_none(), "two writes have one number");
    }

    /// The one that is next.
    pub(super) fn first(&self) -> Option<&Ask> {
        let returned = self.returned.first_key_value().map(|(_, write)| write);
        let first = returned.or_else(|| self.waiting.front());
        first.map(|write| &write.ask)
    }

    /// Takes it out.
    pub(super) fn pop(&mut self) -> Option<Write> {
        let returned = self.returned.pop_first().map(|(_, write)| write);
        let write = returned.or_else(|| self.waiting.pop_front())?;
        self.of_members_bytes -= of_members_bytes(&write.ask);
        Some(write)
    }

    /// Takes out all that clients of other members asked for: who did.
    pub(super) fn take_of_members(&mut self) -> Vec<Asker> {
        if self.of_members_bytes == 0 {
            return Vec::new();
        }
        self.of_members_bytes = 0;
        let mut taken = Vec::new();
        let mut keep = |Write { ask, .. }: &Write| {
            let is_own = matches!(ask.asker, Asker::Client(_));
            if !is_own {
                taken.push(ask.asker);
            }
            is_own
        };
        self.returned.retain(|_, write| keep(write));
        self.waiting.retain(keep);
        taken
    }

    pub(super) fn expire(&mut self, now: Instant, late: &mut Vec<Asker>) {
        let held = &mut self.of_members_bytes;
        let mut keep = |Write { ask, .. }: &Write| {
            let keep = ask.deadline > now;
            if !keep {
                late.push(ask.asker);
                *held -= of_members_bytes(ask);
            }
            keep
        };
        self.returned.retain(|_, write| keep(write));
        self.waiting.retain(keep);
    }
}

/// What counts of one towards the bound on those of other members.
fn of_members_bytes(ask: &Ask) -> u64 {
    match ask.asker {
        Asker::Client(_) => 0,
        Asker::Member { .. } => ask_bytes(&ask.request),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::MemberId;
    use crate::shard::event::Request;

    /// Of another member's client; told apart by its number, and due then.
    fn ask(number: u64) -> Ask {
        Ask {
            asker: Asker::Member {
                member: MemberId(1),
                request: number,
            },
            deadline: Instant(number),
            request: Request::Status,
        }
    }

    fn popped(writes: &mut Writes) -> Vec<u64> {
        std::iter::from_fn(|| writes.pop())
            .map(|write| write.ask.deadline.0)
            .collect()
    }

    /// Goal: what comes back has its place again, whatever the order in which it does, and what is counted is what
    /// waits.
    #[test]
    fn in_their_order() {
        let mut writes = Writes::default();
        for number in 1..=5 {
            writes.push(ask(number));
        }
        let taken: Vec<Write> = std::iter::from_fn(|| writes.pop()).take(3).collect();
        writes.push(ask(6));
        for back in [1, 2, 0] {
            writes.put_back(taken[back].clone());
        }
        assert_eq!(writes.first().map(|ask| ask.deadline), Some(Instant(1)));
        let mut late = Vec::new();
        writes.expire(Instant(2), &mut late);
        assert_eq!(late, [ask(1).asker, ask(2).asker]);
        assert_eq!(writes.of_members_bytes, 4 * of_members_bytes(&ask(1)));
        assert_eq!(popped(&mut writes), [3, 4, 5, 6]);
        assert!(writes.is_empty());
        assert_eq!(writes.of_members_bytes, 0);
    }
}
