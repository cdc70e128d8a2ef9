//! Writes that reach a member that does not lead: sent to the leader once, and answered when this member
//! has committed what the leader's answer rests on, so that a client reads its own write here.
//!
//! Nobody sends a forward again: whether a lost one took effect is not known, and its client is told so at
//! its deadline. The leader sends no forward on.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Shard;
use super::asker::{Ask, Asker, Reply};
use super::event::{Header, PeerMessage, Refusal, Request, Response};
use super::size::answer_bytes;
use crate::base::limits::{SHARD_FORWARDED_ANSWERS_BYTES_MAX, SHARD_FORWARDED_REQUESTS_MAX};
use crate::base::planted::Defect;
use crate::base::{Index, Instant, MemberId};

/// What this member has forwarded.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    /// The number of the next one; never used again in this process.
    next: u64,
    /// Without an answer, by number.
    sent: BTreeMap<u64, Sent>,
    /// Answered, by what must be committed here first.
    answered: BTreeMap<(Index, u64), Answered>,
    /// Memory of those answers, about.
    answered_bytes: u64,
}

#[derive(Debug)]
struct Sent {
    /// To whom: nobody else may answer it.
    to: MemberId,
    asker: Asker,
    deadline: Instant,
}

#[derive(Debug)]
struct Answered {
    deadline: Instant,
    reply: Reply,
    size_bytes: u64,
}

impl Forwards {
    /// Numbers no earlier process of this member has used, if `seed` is another one at each start.
    pub(super) fn new(seed: u64) -> Forwards {
        Forwards {
            next: seed << 32,
            ..Forwards::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty() && self.answered.is_empty()
    }

    /// Whether another one may be sent. Those on their way count, and the answers that wait until this member has
    /// come as far: where its commits lag, what they hold would grow as long as the leader answers.
    fn has_room(&self) -> bool {
        self.sent.len() + self.answered.len() < SHARD_FORWARDED_REQUESTS_MAX
            && self.answered_bytes < SHARD_FORWARDED_ANSWERS_BYTES_MAX / 2
    }

    /// Keeps an answer until what it rests on is committed here. Of one that there is no room for only its client's
    /// right to hear something is kept: what was asked for may have happened.
    fn keep(&mut self, request: u64, deadline: Instant, mut reply: Reply) {
        let mut size_bytes = answer_bytes(&reply.result);
        if self.answered_bytes + size_bytes > SHARD_FORWARDED_ANSWERS_BYTES_MAX {
            reply.result = Err(Refusal::TimedOut);
            size_bytes = 0;
        }
        self.answered_bytes += size_bytes;
        let answered = Answered {
            deadline,
            reply,
            size_bytes,
        };
        self.answered
            .insert((answered.reply.index, request), answered);
    }

    /// The next answer that rests on nothing above `committed`.
    fn pop_settled(&mut self, committed: Index) -> Option<Reply> {
        let first = self.answered.first_entry()?;
        if first.key().0 > committed {
            return None;
        }
        let answered = first.remove();
        self.answered_bytes -= answered.size_bytes;
        Some(answered.reply)
    }

    pub(super) fn expire(&mut self, now: Instant, late: &mut Vec<Asker>) {
        self.sent.retain(|_, sent| {
            let keep = sent.deadline > now;
            if !keep {
                late.push(sent.asker);
            }
            keep
        });
        let held = &mut self.answered_bytes;
        self.answered.retain(|_, answered| {
            let keep = answered.deadline > now;
            if !keep {
                late.push(answered.reply.asker);
                *held -= answered.size_bytes;
            }
            keep
        });
    }
}

impl Shard {
    /// Sends what waits for evaluation to whoever leads, as far as there is room.
    pub(super) fn forward_writes(&mut self, now: Instant) {
        let Some(leader) = self.raft.leader() else {
            return;
        };
        if leader == self.raft.id() {
            return;
        }
        while self.forwards.has_room() {
            let Some(ask) = self.writes.pop() else {
                break;
            };
            let Asker::Client(_) = ask.asker else {
                // Who forwarded it thought that this member leads.
                self.refuse(ask.asker, Refusal::LeaderChanged);
                continue;
            };
            let request = self.forwards.next;
            self.forwards.next += 1;
            let sent = Sent {
                to: leader,
                asker: ask.asker,
                deadline: ask.deadline,
            };
            self.forwards.sent.insert(request, sent);
            let message = PeerMessage::Forward {
                request,
                patience: ask.deadline.since(now),
                body: ask.request,
            };
            if self.settings.planted.has(Defect::ForwardedTwice) {
                self.messages.push((leader, message.clone()));
            }
            self.messages.push((leader, message));
        }
    }

    /// Another member's client asks.
    pub(super) fn take_forward(
        &mut self,
        member: MemberId,
        request: u64,
        patience: Duration,
        body: Request,
        now: Instant,
    ) {
        self.take(Ask {
            asker: Asker::Member { member, request },
            deadline: now + patience,
            request: body,
            place: 0,
        });
    }

    /// The leader answers what was forwarded.
    pub(super) fn take_forwarded(
        &mut self,
        from: MemberId,
        request: u64,
        index: Index,
        header: Header,
        result: Result<Response, Refusal>,
    ) {
        let sent = self.forwards.sent.get(&request);
        if sent.is_none_or(|sent| sent.to != from) {
            return;
        }
        let Sent {
            asker, deadline, ..
        } = self.forwards.sent.remove(&request).expect("just seen");
        let reply = Reply {
            asker,
            index,
            header,
            result,
        };
        self.forwards.keep(request, deadline, reply);
    }

    /// Lets go the answers whose index is committed here.
    pub(super) fn release_forwards(&mut self) {
        let committed = self.keyspace.committed_index();
        while let Some(reply) = self.forwards.pop_settled(committed) {
            self.replies.push(reply);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::base::limits::MIB;
    use crate::keyspace::request::{KeyValue, RangeResponse, ResponseOp, TxnResponse};

    /// An answer that shows a value of a mebibyte.
    fn answer(index: u64, value: &Bytes) -> Reply {
        let kv = KeyValue {
            value: value.clone(),
            ..KeyValue::default()
        };
        let response = RangeResponse {
            kvs: vec![kv],
            ..RangeResponse::default()
        };
        let txn = TxnResponse {
            succeeded: true,
            responses: vec![ResponseOp::Range {
                revision: 1,
                response,
            }],
        };
        Reply {
            asker: Asker::Member {
                member: MemberId(1),
                request: index,
            },
            index: Index(index),
            header: Header::default(),
            result: Ok(Response::Txn(txn)),
        }
    }

    /// Goal: while the commit lags, answers hold no more than their limit: above half of it nothing more is asked
    /// for, what comes beyond it becomes a refusal that says nothing false, and what goes makes room again.
    #[test]
    fn answers_that_wait_are_bounded() {
        let value = Bytes::from(vec![0; MIB as usize]);
        let limit = SHARD_FORWARDED_ANSWERS_BYTES_MAX / MIB;
        let mut forwards = Forwards::default();
        let mut asked = 0;
        for number in 1..=2 * limit {
            asked += u64::from(forwards.has_room());
            let deadline = Instant(number);
            forwards.keep(number, deadline, answer(number, &value));
            assert!(forwards.answered_bytes <= SHARD_FORWARDED_ANSWERS_BYTES_MAX);
        }
        assert_eq!(asked, limit / 2);
        let mut late = Vec::new();
        forwards.expire(Instant(limit / 2), &mut late);
        assert_eq!(late.len() as u64, limit / 2);
        assert!(forwards.has_room(), "what has expired holds nothing");
        let (mut whole, mut refused) = (0, 0);
        while let Some(reply) = forwards.pop_settled(Index(2 * limit)) {
            match reply.result {
                Ok(_) => whole += 1,
                Err(refusal) => {
                    assert_eq!(refusal, Refusal::TimedOut);
                    refused += 1;
                }
            }
        }
        // Each is a little more than its value, so that the last one within the limit does not fit.
        assert_eq!((whole, refused), (limit / 2 - 1, limit + 1));
        assert!(forwards.is_empty());
        assert_eq!(forwards.answered_bytes, 0);
    }
}
