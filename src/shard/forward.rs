//! Writes that reach a member that does not lead: sent to the leader once, and answered when this member
//! has committed what the leader's answer rests on, so that a client reads its own write here.
//!
//! Nobody sends a forward again that may have taken effect: whether a lost one did is not known, and its client is told
//! so at its deadline. One that the leader refuses without an effect, because it leads no longer or is full, takes
//! its turn among the writes that wait, for the next leader or for another try. The leader sends no forward on.
//!
//! A leader that is full is not sent everything again and again: each refusal halves how many requests may be on their way
//! to it, down to one by which its room is found out. Each answer adds one, and each tick without a refusal doubles them:
//! what is answered late or was lost on the way holds up nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Shard;
use super::asker::{Ask, Asker, Reply};
use super::event::{Header, PeerMessage, Refusal, Request, Response};
use super::size::{answer_bytes, ask_bytes};
use super::writes::Write;
use crate::base::limits::{
    SHARD_FORWARDED_ANSWERS_BYTES_MAX, SHARD_FORWARDED_BYTES_MAX, SHARD_FORWARDED_LINGER,
    SHARD_FORWARDED_REQUESTS_MAX,
};
use crate::base::planted::Defect;
use crate::base::{Index, Instant, MemberId};

/// What this member has forwarded.
#[derive(Debug)]
pub(super) struct Forwards {
    /// The number of the next one; never used again in this process.
    next: u64,
    /// Without an answer, by number.
    sent: BTreeMap<u64, Sent>,
    /// Of how many of them somebody waits for the answer.
    waiting: usize,
    /// What of them may be on its way to each member: bounded below what the way there holds, so that nothing is lost
    /// for its size.
    on_way: BTreeMap<MemberId, Load>,
    /// The leader has refused something: until the next tick, or another leader, it is asked for nothing.
    leader_refuses: bool,
    /// So many requests may be on their way to the leader, as far as it had room of late; at least one.
    requests_max: usize,
    /// The connection to the leader is closed: until it is heard, or there is another one, nothing would arrive.
    leader_lost: bool,
    /// Answered, by what must be committed here first.
    answered: BTreeMap<(Index, u64), Answered>,
    /// Memory of those answers, about.
    answered_bytes: u64,
}

#[derive(Debug)]
struct Sent {
    /// To whom: nobody else may answer it.
    to: MemberId,
    /// None once its client was told that it takes too long. The forward may still be on its way.
    write: Option<Write>,
    deadline: Instant,
    /// Its part of what is on the way to that member; none when the connection was closed since.
    load: Load,
}

/// So much of what was forwarded.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    requests: usize,
    bytes: u64,
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
            sent: BTreeMap::new(),
            waiting: 0,
            on_way: BTreeMap::new(),
            leader_refuses: false,
            requests_max: SHARD_FORWARDED_REQUESTS_MAX,
            leader_lost: false,
            answered: BTreeMap::new(),
            answered_bytes: 0,
        }
    }

    /// Whether nobody waits for an answer.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0 && self.answered.is_empty()
    }

    /// Whether a request of `bytes` bytes may be sent `to` this leader now. Those on their way to it count, not what was
    /// lost with another one; and the answers that wait until this member has come as far: where its commits lag, what
    /// they hold would grow as long as the leader answers. One of any size finds room.
    fn may_send(&self, to: MemberId, bytes: u64) -> bool {
        let load = self.on_way.get(&to).copied().unwrap_or_default();
        let fits = load.requests == 0 || load.bytes + bytes <= SHARD_FORWARDED_BYTES_MAX;
        let is_there = !(self.leader_refuses || self.leader_lost);
        is_there
            && fits
            && load.requests < self.requests_max
            && load.requests + self.answered.len() < SHARD_FORWARDED_REQUESTS_MAX
            && self.answered_bytes < SHARD_FORWARDED_ANSWERS_BYTES_MAX / 2
    }

    /// Notes one that is sent; its number.
    fn add(&mut self, to: MemberId, write: Write) -> u64 {
        let request = self.next;
        self.next += 1;
        let load = Load {
            requests: 1,
            bytes: ask_bytes(&write.ask.request),
        };
        let on_way = self.on_way.entry(to).or_default();
        on_way.requests += load.requests;
        on_way.bytes += load.bytes;
        let sent = Sent {
            to,
            deadline: write.ask.deadline,
            write: Some(write),
            load,
        };
        self.sent.insert(request, sent);
        self.waiting += 1;
        request
    }

    /// One that `from` answers, if it was asked.
    fn take(&mut self, request: u64, from: MemberId) -> Option<Sent> {
        self.sent.get(&request).filter(|sent| sent.to == from)?;
        let sent = self.sent.remove(&request)?;
        make_room(&mut self.on_way, &sent);
        self.waiting -= usize::from(sent.write.is_some());
        Some(sent)
    }

    /// The connection to a member was closed: nothing is on its way there. What has arrived may still be answered.
    pub(super) fn peer_disconnected(&mut self, peer: MemberId) {
        self.on_way.remove(&peer);
        for sent in self.sent.values_mut().filter(|sent| sent.to == peer) {
            sent.load = Load::default();
        }
    }

    /// There is another leader, or none.
    pub(super) fn leader_changed(&mut self) {
        self.leader_refuses = false;
        self.requests_max = SHARD_FORWARDED_REQUESTS_MAX;
        self.leader_lost = false;
    }

    /// The leader has refused a write without an effect.
    fn leader_refused(&mut self, refusal: Refusal) {
        self.leader_refuses = true;
        if refusal == Refusal::TooManyRequests {
            self.requests_max = (self.requests_max / 2).max(1);
        }
    }

    /// The leader has taken one and answered it.
    fn leader_answered(&mut self) {
        self.requests_max = SHARD_FORWARDED_REQUESTS_MAX.min(self.requests_max + 1);
    }

    /// The connection to the leader was closed. Under leases it stays the leader until its time is over.
    pub(super) fn leader_lost(&mut self) {
        self.leader_lost = true;
    }

    /// It is there again.
    pub(super) fn leader_heard(&mut self) {
        self.leader_lost = false;
    }

    /// Time passed.
    pub(super) fn tick(&mut self) {
        if !std::mem::take(&mut self.leader_refuses) {
            self.requests_max = SHARD_FORWARDED_REQUESTS_MAX.min(2 * self.requests_max);
        }
    }

    /// Keeps an answer until what it rests on is committed here. One of any size finds room. Of one that there is no room
    /// for only its client's right to hear something is kept: what was asked for may have happened.
    fn keep(&mut self, request: u64, deadline: Instant, mut reply: Reply) {
        let mut size_bytes = answer_bytes(&reply.result);
        let held = self.answered_bytes;
        if held > 0 && held + size_bytes > SHARD_FORWARDED_ANSWERS_BYTES_MAX {
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
        let (on_way, waiting) = (&mut self.on_way, &mut self.waiting);
        self.sent.retain(|_, sent| {
            if sent.deadline > now {
                return true;
            }
            if let Some(write) = sent.write.take() {
                *waiting -= 1;
                late.push(write.ask.asker);
            }
            // Over a slow connection it may still wait to be sent.
            let lingers = sent.load.requests > 0 && sent.deadline + SHARD_FORWARDED_LINGER > now;
            if !lingers {
                make_room(on_way, sent);
            }
            lingers
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

/// It is on its way no longer.
fn make_room(on_way: &mut BTreeMap<MemberId, Load>, sent: &Sent) {
    if let Some(load) = on_way.get_mut(&sent.to) {
        load.requests -= sent.load.requests;
        load.bytes -= sent.load.bytes;
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
        for asker in self.writes.take_of_members() {
            // Who forwarded it thought that this member leads, and must not wait for what waits here.
            self.refuse(asker, Refusal::LeaderChanged);
        }
        while let Some(first) = self.writes.first() {
            let bytes = ask_bytes(&first.request);
            if !self.forwards.may_send(leader, bytes) {
                break;
            }
            let write = self.writes.pop().expect("just seen");
            let ask = &write.ask;
            let (patience, body) = (ask.deadline.since(now), ask.request.clone());
            let message = PeerMessage::Forward {
                request: self.forwards.add(leader, write),
                patience,
                body,
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
        let sent = self.forwards.take(request, from);
        let Some(write) = sent.and_then(|sent| sent.write) else {
            return;
        };
        let leads = self.raft.leader() == Some(from);
        match result {
            // Whatever the leader has no room for, its client hears so: few changes of the membership wait at a time, and
            // one that came back would stand before other writes.
            Err(Refusal::TooManyRequests)
                if matches!(write.ask.request, Request::Membership(_)) => {}
            Err(refusal) if refusal.is_without_effect() => {
                if leads {
                    // What else it was asked comes back as well.
                    self.forwards.leader_refused(refusal);
                }
                return self.writes.put_back(write);
            }
            _ if leads => self.forwards.leader_answered(),
            _ => {}
        }
        let deadline = write.ask.deadline;
        let reply = Reply {
            asker: write.ask.asker,
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

    use super::super::writes::Writes;
    use super::*;
    use crate::base::limits::MIB;
    use crate::keyspace::request::{KeyValue, PutRequest, RangeResponse, ResponseOp, TxnResponse};

    const LEADER: MemberId = MemberId(1);

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

    /// Goal: what may be on the way to a leader is bounded in bytes, one request of any size apart, and another leader has
    /// room of its own. Room is made by an answer and by the end of the connection, and not because a client waits no
    /// longer: its request may still wait to be sent, for a while.
    #[test]
    fn what_is_on_its_way_is_bounded() {
        let other = MemberId(2);
        let put = PutRequest {
            value: vec![0; SHARD_FORWARDED_BYTES_MAX as usize / 4 - 1_000].into(),
            ..PutRequest::default()
        };
        let deadline = Instant(10);
        let ask = Ask {
            asker: answer(1, &Bytes::new()).asker,
            deadline,
            request: Request::Put(put),
        };
        let size = ask_bytes(&ask.request);
        let mut writes = Writes::default();
        writes.push(ask);
        let write = writes.pop().expect("just pushed");
        let fill = |forwards: &mut Forwards| {
            let mut sent = Vec::new();
            while forwards.may_send(LEADER, size) {
                sent.push(forwards.add(LEADER, write.clone()));
            }
            sent
        };
        let mut forwards = Forwards::new(0);
        assert!(forwards.may_send(LEADER, 9 * size));
        let first = fill(&mut forwards);
        assert_eq!(first.len(), 4);
        assert!(forwards.may_send(other, size));
        assert!(forwards.take(first[0], other).is_none(), "never asked");
        assert!(forwards.take(first[0], LEADER).is_some());
        assert_eq!(fill(&mut forwards).len(), 1);

        let mut late = Vec::new();
        forwards.expire(deadline, &mut late);
        assert_eq!(late.len(), 4);
        assert!(forwards.is_empty() && !forwards.may_send(LEADER, size));
        forwards.expire(deadline + SHARD_FORWARDED_LINGER, &mut late);
        assert_eq!(late.len(), 4, "each is told once");

        let lost = fill(&mut forwards);
        forwards.peer_disconnected(LEADER);
        assert_eq!(fill(&mut forwards).len(), 4);
        for request in lost {
            assert!(forwards.take(request, LEADER).is_some(), "it had arrived");
        }
        assert!(!forwards.may_send(LEADER, size));
    }

    /// Goal: a leader that was full is asked for one thing at a time, and for more again as time passes without a
    /// refusal, although the one that it was asked for is never answered.
    #[test]
    fn one_that_is_lost_holds_up_nothing_for_long() {
        let mut forwards = Forwards::new(0);
        while forwards.requests_max > 1 {
            forwards.leader_refused(Refusal::TooManyRequests);
        }
        assert!(!forwards.may_send(LEADER, 1), "it has just refused");
        forwards.tick();
        let probe = Load {
            requests: 1,
            bytes: 1,
        };
        assert!(forwards.may_send(LEADER, 1));
        forwards.on_way.insert(LEADER, probe);
        assert!(!forwards.may_send(LEADER, 1), "its room is to be found out");
        forwards.tick();
        assert!(forwards.may_send(LEADER, 1));
    }

    /// Goal: while the commit lags, answers hold no more than their limit: above half of it nothing more is asked
    /// for, what comes beyond it becomes a refusal that says nothing false, and what goes makes room again.
    #[test]
    fn answers_that_wait_are_bounded() {
        let value = Bytes::from(vec![0; MIB as usize]);
        let limit = SHARD_FORWARDED_ANSWERS_BYTES_MAX / MIB;
        let mut forwards = Forwards::new(0);
        let mut asked = 0;
        for number in 1..=2 * limit {
            asked += u64::from(forwards.may_send(LEADER, 1));
            let deadline = Instant(number);
            forwards.keep(number, deadline, answer(number, &value));
            assert!(forwards.answered_bytes <= SHARD_FORWARDED_ANSWERS_BYTES_MAX);
        }
        assert_eq!(asked, limit / 2);
        let mut late = Vec::new();
        forwards.expire(Instant(limit / 2), &mut late);
        assert_eq!(late.len() as u64, limit / 2);
        assert!(
            forwards.may_send(LEADER, 1),
            "what has expired holds nothing"
        );
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

    /// Goal: an answer that is larger than the limit by itself is kept, for it was received whole.
    #[test]
    fn one_answer_of_any_size_is_kept() {
        let value = Bytes::from(vec![0; SHARD_FORWARDED_ANSWERS_BYTES_MAX as usize]);
        let mut forwards = Forwards::new(0);
        forwards.keep(1, Instant(9), answer(1, &value));
        forwards.keep(2, Instant(9), answer(2, &value));
        let kept = |reply: Option<Reply>| reply.is_some_and(|reply| reply.result.is_ok());
        assert!(kept(forwards.pop_settled(Index(2))));
        assert!(!kept(forwards.pop_settled(Index(2))));
        assert_eq!(forwards.answered_bytes, 0);
    }
}
