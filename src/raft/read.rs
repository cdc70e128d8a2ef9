//! Confirmed leadership: the one way in which an answer that adds no entry becomes linearizable
//! (dissertation, section 6.4).
//!
//! Reads that wait share a round. A round begins after they came in, asks every voter whether it still
//! follows, and ends when a majority has said so in the same term; what came in meanwhile shares the next
//! one.
//!
//! ```text
//! reads     r1 r2         r3 r4 r5
//! rounds    | 1 begins ........ 1 ends | 2 begins ... 2 ends |
//!              answered by 1: r1 r2       answered by 2: r3 r4 r5
//! ```
//!
//! A follower's round is one question to the leader. Of three members those two are a majority already: the
//! question is its sender's confirmation, and the leader answers at once. Of more it has a round of its own
//! for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Raft;
use super::membership::ReadMode;
use super::message::{Body, ReadContext, Standing};
use super::quorum::majority_value;
use super::types::{Output, Role, Round};
use crate::base::planted::Defect;
use crate::base::{Index, Instant, MemberId};

/// The share of the election timeout that is not part of a lease: two clocks may differ by a tenth of
/// their speed, and one more tenth is for the time a message is looked at.
const LEASE_MARGIN_DIVISOR: u32 = 5;

/// Reads that wait for confirmation.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Rounds that have begun so far.
    begun: u64,
    /// Whether a read waits for the next one.
    wanted: bool,
    under_way: Option<UnderWay>,
    /// What followers ask for: one question each, and the round that answers it.
    asked: BTreeMap<MemberId, (ReadContext, Round)>,
    /// When a follower asks its leader again.
    ask_due: Instant,
}

#[derive(Debug)]
struct UnderWay {
    round: Round,
    context: ReadContext,
    /// What was committed when it began.
    index: Index,
    /// Who has confirmed it.
    confirmed: BTreeSet<MemberId>,
}

impl Reads {
    /// The round that answers what comes in now.
    fn next(&mut self) -> Round {
        self.wanted = true;
        Round(self.begun + 1)
    }

    pub(super) fn context(&self) -> Option<ReadContext> {
        self.under_way.as_ref().map(|round| round.context)
    }

    /// Another leader, or none: what waits is confirmed by a later round, under whoever leads then.
    pub(super) fn abandon(&mut self) {
        self.wanted |= self.under_way.take().is_some();
        self.asked.clear();
    }
}

impl Raft {
    /// A read came in, or a request whose answer adds no entry was evaluated. It may be answered when
    /// [`Output::ReadReady`] says this round or a later one. On a follower the leader is asked.
    pub fn read(&mut self) -> Round {
        self.reads.next()
    }

    /// Begins a round if one is wanted and can be begun.
    pub(super) fn begin_round(&mut self, outputs: &mut Vec<Output>) {
        // Who has not answered may have left the group, and with it the last one who could.
        if self.role == Role::Leader && self.is_confirmed() {
            self.end_round(outputs);
        }
        if !self.reads.wanted || self.reads.under_way.is_some() {
            return;
        }
        if self.role == Role::Leader {
            // Before that a leader does not know what is committed (section 6.4, step 1).
            if self.has_committed_in_term() {
                self.lead_round(outputs);
            }
        } else if let Some(leader) = self.leader {
            let context = self.open_round(BTreeSet::new());
            self.ask(leader, context, outputs);
        }
    }

    fn ask(&mut self, leader: MemberId, context: ReadContext, outputs: &mut Vec<Output>) {
        self.reads.ask_due = self.now + self.heartbeat_interval;
        let question = Body::ReadRequest {
            context,
            standing: self.standing(),
        };
        self.send(leader, question, outputs);
    }

    fn open_round(&mut self, confirmed: BTreeSet<MemberId>) -> ReadContext {
        let context = self.unguessable();
        self.reads.begun += 1;
        self.reads.wanted = false;
        self.reads.under_way = Some(UnderWay {
            round: Round(self.reads.begun),
            context,
            index: self.hard_state.commit,
            confirmed,
        });
        context
    }

    /// Drawn anew for each attempt; the term of the message binds it to this term.
    fn unguessable(&mut self) -> ReadContext {
        let high = u128::from(self.prng.next_u64());
        ReadContext(high << 64 | u128::from(self.prng.next_u64()))
    }

    fn lead_round(&mut self, outputs: &mut Vec<Output>) {
        self.open_round(BTreeSet::from([self.id]));
        if self.has_lease() || self.is_confirmed() || self.planted.has(Defect::ReadUnconfirmed) {
            self.end_round(outputs);
        } else {
            self.send_heartbeats(outputs);
        }
    }

    /// Whether a majority has promised to vote for nobody else until a time that has not come yet.
    fn has_lease(&self) -> bool {
        let committed = self.memberships.committed(self.hard_state.commit);
        let lease = committed.read_mode == ReadMode::Lease
            && self.membership().read_mode == ReadMode::Lease
            && !self.leading.lease_forfeited;
        lease && self.now.since(self.followed_since()) < self.lease_duration()
    }

    /// When the newest heartbeats left that a majority has answered.
    fn followed_since(&self) -> Instant {
        majority_value(self.each_voter(self.now, |progress| progress.followed))
    }

    fn lease_duration(&self) -> Duration {
        if self.planted.has(Defect::LeaseTooLong) {
            return 4 * self.election_timeout;
        }
        self.election_timeout - self.election_timeout / LEASE_MARGIN_DIVISOR
    }

    fn is_confirmed(&self) -> bool {
        let round = self.reads.under_way.as_ref();
        round.is_some_and(|round| self.membership().is_majority(&round.confirmed))
    }

    /// A member answered a heartbeat, in this term.
    pub(super) fn on_round_answer(
        &mut self,
        from: MemberId,
        context: ReadContext,
        outputs: &mut Vec<Output>,
    ) {
        if !self.answers_round(from, context) {
            return;
        }
        if let Some(round) = &mut self.reads.under_way {
            round.confirmed.insert(from);
        }
        if self.is_confirmed() {
            self.end_round(outputs);
        }
    }

    /// Whether this is an answer to the round under way and not to an earlier one, of a member whose word
    /// counts.
    fn answers_round(&self, from: MemberId, context: ReadContext) -> bool {
        let of_this_round = self.reads.context() == Some(context)
            || (self.reads.under_way.is_some() && self.planted.has(Defect::StaleReadContext));
        of_this_round
            && self
                .leading
                .progress
                .get(&from)
                .is_some_and(|progress| progress.counts)
    }

    fn end_round(&mut self, outputs: &mut Vec<Output>) {
        let ended = self.reads.under_way.take().expect("a round is under way");
        let (round, index) = (ended.round, ended.index);
        outputs.push(Output::ReadReady { round, index });
        let answered: Vec<_> = self
            .reads
            .asked
            .iter()
            .filter(|(_, (_, asked))| *asked <= round)
            .map(|(&member, &(context, _))| (member, context))
            .collect();
        for (member, context) in answered {
            self.reads.asked.remove(&member);
            self.answer(member, context, index, outputs);
        }
    }

    fn answer(&self, to: MemberId, context: ReadContext, index: Index, outputs: &mut Vec<Output>) {
        let last = self.terms.last_index();
        let response = Body::ReadResponse {
            context,
            index,
            last,
        };
        self.send(to, response, outputs);
    }

    /// A follower asks for the sake of its clients.
    pub(super) fn on_read_request(
        &mut self,
        from: MemberId,
        context: ReadContext,
        standing: Standing,
        outputs: &mut Vec<Output>,
    ) {
        if self.role != Role::Leader || !self.leading.progress.contains_key(&from) {
            return;
        }
        if self.is_confirmed_by(from, standing) {
            self.reads.asked.remove(&from);
            return self.answer(from, context, self.hard_state.commit, outputs);
        }
        // Asked again: the round that was promised first answers it. A later one each time would never come.
        let known = self.reads.asked.get(&from);
        if known.is_some_and(|&(asked, _)| asked == context) {
            return;
        }
        let round = self.reads.next();
        self.reads.asked.insert(from, (context, round));
    }

    /// Whether the question itself is all that a round could bring. It left, after the reads had come, a member that
    /// had voted for nobody in a later term, and has found here another one: where the two are a majority, no
    /// later leader can have committed anything before. It says so about the reads of its sender only; others may
    /// have come after it left.
    fn is_confirmed_by(&self, from: MemberId, standing: Standing) -> bool {
        let both = BTreeSet::from([self.id, from]);
        standing == Standing::Whole
            && self.has_committed_in_term()
            && self.membership().is_majority(&both)
    }

    /// The leader has answered this member's question.
    pub(super) fn on_read_response(
        &mut self,
        from: MemberId,
        context: ReadContext,
        (index, last): (Index, Index),
        outputs: &mut Vec<Output>,
    ) {
        if self.role == Role::Leader
            || self.leader != Some(from)
            || self.reads.context() != Some(context)
            // A leader has committed nothing that it has not.
            || index > last
        {
            return;
        }
        if let Some(ended) = self.reads.under_way.take() {
            let round = ended.round;
            outputs.push(Output::ReadReady { round, index });
            self.leader_ends_at(last);
        }
    }

    /// The question or its answer may be lost: ask again after a while.
    pub(super) fn ask_again(&mut self, outputs: &mut Vec<Output>) {
        if let Some(leader) = self.leader
            && let Some(context) = self.reads.context()
            && self.reads.ask_due <= self.now
        {
            self.ask(leader, context, outputs);
        }
    }
}
