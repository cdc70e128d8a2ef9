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
use crate::base::limits::SHARD_FORWARDED_REQUESTS_MAX;
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
    answered: BTreeMap<(Index, u64), (Instant, Reply)>,
}

#[derive(Debug)]
struct Sent {
    /// To whom: nobody else may answer it.
    to: MemberId,
    asker: Asker,
    deadline: Instant,
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

    /// Those on their way, and the answers that wait until this member has come as far: where its commits lag, what
    /// they hold would grow as long as the leader answers.
    fn len(&self) -> usize {
        self.sent.len() + self.answered.len()
    }

    pub(super) fn expire(&mut self, now: Instant, late: &mut Vec<Asker>) {
        self.sent.retain(|_, sent| {
            let keep = sent.deadline > now;
            if !keep {
                late.push(sent.asker);
            }
            keep
        });
        self.answered.retain(|_, (deadline, reply)| {
            let keep = *deadline > now;
            if !keep {
                late.push(reply.asker);
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
        while self.forwards.len() < SHARD_FORWARDED_REQUESTS_MAX {
            let Some(ask) = self.writes.pop_front() else {
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
        self.forwards
            .answered
            .insert((index, request), (deadline, reply));
    }

    /// Lets go the answers whose index is committed here.
    pub(super) fn release_forwards(&mut self) {
        let committed = self.keyspace.committed_index();
        while let Some(first) = self.forwards.answered.first_entry() {
            if first.key().0 > committed {
                break;
            }
            let (_, reply) = first.remove();
            self.replies.push(reply);
        }
    }
}
