//! The leader's side of the log: what it sends to whom, and when an entry is committed (Raft paper,
//! sections 5.3 and 5.4.2; dissertation, section 10.2.1 for pipelining).

use std::collections::{BTreeMap, BTreeSet};

use super::Raft;
use super::message::{
    Append, AppendResponse, AppendResult, Body, Entries, Heartbeat, HeartbeatResponse, Matched,
    Standing,
};
use super::progress::{Flow, Progress};
use super::quorum::majority_value;
use super::transfer::Transfer;
use super::types::{Output, Position, Role, StepDown};
use crate::base::planted::Defect;
use crate::base::{Index, Instant, MemberId, Term};

/// What only a leader knows, for one term.
#[derive(Debug, Default)]
pub(super) struct Leading {
    /// Where its first entry of this term stands.
    pub(super) first_index: Index,
    /// Every other member, learners included.
    pub(super) progress: BTreeMap<MemberId, Progress>,
    pub(super) heartbeat_due: Instant,
    pub(super) transfer: Option<Transfer>,
    /// Who was to take over, and did not in time: others are chosen first.
    pub(super) declined: BTreeSet<MemberId>,
    /// Somebody was asked to campaign in this term: no lease of it is worth anything any more.
    pub(super) lease_forfeited: bool,
    /// Who leaves when the entry at this index is committed.
    pub(super) leaving: Option<(Index, MemberId)>,
}

impl Leading {
    pub(super) fn new(others: Vec<MemberId>, last: Index, now: Instant) -> Leading {
        let follower = |id| (id, Progress::new(last.next(), now));
        Leading {
            first_index: last.next(),
            progress: others.into_iter().map(follower).collect(),
            heartbeat_due: now,
            ..Leading::default()
        }
    }
}

impl Raft {
    /// Where the next entry would go; `None` unless this member leads and is not handing over.
    #[must_use]
    pub fn next_position(&self) -> Option<(Term, Index)> {
        let appends = self.role == Role::Leader && self.leading.transfer.is_none();
        appends.then(|| (self.hard_state.term, self.terms.last_index().next()))
    }

    /// The entry at [`Self::next_position`], of `size_bytes`, is in the log; durable later. It is sent
    /// with the next [`Self::flush`].
    ///
    /// # Panics
    /// When this member does not lead: a follower's log grows by its leader's word only.
    pub fn append(&mut self, size_bytes: u64) -> (Term, Index) {
        assert_eq!(self.role, Role::Leader, "only a leader appends");
        let term = self.hard_state.term;
        (term, self.terms.append(term, size_bytes))
    }

    /// The entries up to `index` cannot be read any more: a checkpoint holds what they did. Who needs them
    /// gets that.
    ///
    /// # Panics
    /// When they are not committed.
    pub fn log_released(&mut self, index: Index) {
        assert!(
            index <= self.hard_state.commit,
            "released {index} above the commit index {}",
            self.hard_state.commit
        );
        self.terms.release(index);
    }

    /// Entries that were sent to a follower are not in memory, and are being read from the log: nobody asks it what
    /// became of them before they have left. Said with every event while it goes on.
    pub fn reads_for(&mut self, to: MemberId) {
        if let Some(progress) = self.leading.progress.get_mut(&to) {
            progress.being_read = true;
        }
    }

    /// Entries that a follower needs are in the log no more: what the disk gives back for them is damaged. It gets a
    /// checkpoint.
    pub fn log_unreadable(&mut self, to: MemberId, outputs: &mut Vec<Output>) {
        if let Some(progress) = self.leading.progress.get_mut(&to)
            && progress.flow != Flow::Checkpoint
        {
            progress.wait_for_checkpoint();
            outputs.push(Output::NeedsCheckpoint { to });
        }
    }

    /// The end of what [`Output::NeedsCheckpoint`] asked for: the follower installed a checkpoint at `index`,
    /// or, with `None`, did not. In the latter case it is asked for again at the next flush.
    pub fn checkpoint_sent(&mut self, to: MemberId, index: Option<Index>) {
        if let Some(progress) = self.leading.progress.get_mut(&to)
            && progress.flow == Flow::Checkpoint
        {
            let next = index.map_or(progress.next, Index::next);
            progress.probe_from(next);
        }
    }

    /// The connection to a follower is new: what was sent and not answered may be lost.
    pub(super) fn restart_progress(&mut self, peer: MemberId) {
        if let Some(progress) = self.leading.progress.get_mut(&peer)
            && progress.flow != Flow::Checkpoint
        {
            progress.probe_from(progress.next);
        }
    }

    /// Heartbeats, and whether a majority still follows.
    pub(super) fn tick_leader(&mut self, outputs: &mut Vec<Output>) {
        if self.check_quorum && self.has_lost_quorum() {
            self.step_down(StepDown::LostQuorum, outputs);
            return;
        }
        self.abandon_transfer_when_late(outputs);
        if self.leading.heartbeat_due <= self.now {
            self.leading.heartbeat_due = self.now + self.heartbeat_interval;
            self.look_for_losses(outputs);
            self.send_heartbeats(outputs);
        }
    }

    /// Whether no majority was heard for an election timeout (dissertation, section 6.2): clients must not
    /// wait for a leader that leads nobody.
    fn has_lost_quorum(&self) -> bool {
        let heard = self.each_voter(self.now, |progress| progress.heard_whole);
        self.now.since(majority_value(heard)) > self.election_timeout
    }

    /// Leads no longer, in the same term.
    pub(super) fn step_down(&mut self, why: StepDown, outputs: &mut Vec<Output>) {
        self.role = Role::Follower;
        self.leading = Leading::default();
        self.reads.abandon();
        outputs.push(Output::SteppedDown(why));
        self.set_leader(None, outputs);
        self.rearm();
    }

    /// Of each voter, itself included if it is one.
    pub(super) fn each_voter<'a, T: Copy + Default + 'a>(
        &'a self,
        own: T,
        of: impl Fn(&Progress) -> T + 'a,
    ) -> impl Iterator<Item = T> + 'a {
        self.membership().voters.iter().map(move |id| {
            if *id == self.id {
                own
            } else {
                self.leading.progress.get(id).map_or_else(T::default, &of)
            }
        })
    }

    /// A follower that acknowledged nothing since the last heartbeat although something is under way is
    /// asked whether it has what was sent: if not, it says so, and that starts over.
    fn look_for_losses(&mut self, outputs: &mut Vec<Output>) {
        for to in self.others() {
            let progress = self.progress_of(to);
            let moved = progress.moved || progress.being_read;
            let silent = progress.flow == Flow::Pipeline && progress.is_waiting() && !moved;
            progress.moved = false;
            progress.being_read = false;
            if !silent {
                continue;
            }
            let prev = Index(progress.next.0 - 1);
            let Some(term) = self.terms.term_at(prev) else {
                // What it may lack was released meanwhile: ask from where the log begins now.
                let first = self.terms.base().index.next();
                self.progress_of(to).probe_from(first);
                continue;
            };
            let append = Append {
                prev: Position { term, index: prev },
                entries: Entries::default(),
                commit: self.hard_state.commit,
                probe: true,
            };
            self.send(to, Body::Append(append), outputs);
        }
    }

    /// To everybody, with the round of reads that is under way.
    pub(super) fn send_heartbeats(&mut self, outputs: &mut Vec<Output>) {
        for (&to, progress) in &self.leading.progress {
            let commit = if self.planted.has(Defect::CommitUnverified) {
                self.hard_state.commit
            } else {
                commit_for(progress, self.hard_state.commit)
            };
            let heartbeat = Heartbeat {
                commit,
                sent: self.now,
                context: self.reads.context(),
                digest: self.digest.filter(|digest| digest.index <= commit),
            };
            self.send(to, Body::Heartbeat(heartbeat), outputs);
        }
    }

    /// To every follower as much as its window takes; without entries when it does not know yet what is
    /// committed.
    pub(super) fn send_appends(&mut self, outputs: &mut Vec<Output>) {
        let last = self.terms.last_index();
        let commit = self.hard_state.commit;
        for to in self.others() {
            while self.send_append(to, last, commit, outputs) {}
        }
    }

    /// Whether there may be more to send.
    fn send_append(
        &mut self,
        to: MemberId,
        last: Index,
        commit: Index,
        outputs: &mut Vec<Output>,
    ) -> bool {
        let windows = self.windows;
        let progress = self.progress_of(to);
        let Some(budget_bytes) = progress.budget_bytes(&windows) else {
            return false;
        };
        let probe = progress.flow != Flow::Pipeline;
        if !probe && progress.next > last && progress.told_commit >= commit {
            return false;
        }
        let withheld = probe && progress.forgot;
        let mut prev = Index(progress.next.0 - 1);
        if withheld {
            // The log is not kept for it. Whether it has again what it had can be asked at any place behind that.
            prev = prev.max(self.terms.base().index);
        }
        let Some(term) = self.terms.term_at(prev) else {
            self.progress_of(to).wait_for_checkpoint();
            outputs.push(Output::NeedsCheckpoint { to });
            return false;
        };
        let entries = if withheld {
            Entries::default()
        } else {
            self.terms.entries_after(prev, budget_bytes)
        };
        let append = Append {
            prev: Position { term, index: prev },
            entries,
            commit,
            probe,
        };
        let progress = self.progress_of(to);
        progress.sent(append.last(), append.entries.size_bytes);
        progress.told_commit = commit;
        let more = !probe && progress.next <= last;
        self.send(to, Body::Append(append), outputs);
        more
    }

    pub(super) fn on_append_response(
        &mut self,
        from: MemberId,
        response: AppendResponse,
        outputs: &mut Vec<Output>,
    ) {
        if !self.hear(from, response.standing) {
            return;
        }
        match response.result {
            AppendResult::Accepted(matched) => self.on_accepted(from, matched, outputs),
            AppendResult::Rejected { prev, hint } => self.on_rejected(from, prev, hint, outputs),
        }
    }

    /// Whether `from` is a member that a leader listens to. What it acknowledged before its log was
    /// damaged is void.
    fn hear(&mut self, from: MemberId, standing: Standing) -> bool {
        let now = self.now;
        let Some(progress) = self.leading.progress.get_mut(&from) else {
            return false;
        };
        progress.heard = now;
        let counts = standing == Standing::Whole;
        if progress.counts && !counts {
            progress.matched = Index(0);
            progress.followed = Instant(0);
            progress.forgot = false;
        }
        progress.counts = counts;
        progress.answered = counts;
        if counts {
            progress.heard_whole = now;
        }
        true
    }

    fn on_accepted(&mut self, from: MemberId, matched: Matched, outputs: &mut Vec<Output>) {
        let (base, last) = (self.terms.base().index, self.terms.last_index());
        // Nobody can agree with more than there is.
        if matched.durable.max(matched.verified) > last {
            return;
        }
        let progress = self.progress_of(from);
        if progress.flow == Flow::Checkpoint {
            if matched.verified < base {
                return;
            }
            progress.probe_from(matched.verified.next());
        }
        progress.accepted(matched);
        self.advance_commit(outputs);
    }

    /// The logs part before `prev`: try where they can agree at the latest, skipping whole terms (Raft
    /// paper, end of section 5.3).
    fn on_rejected(
        &mut self,
        from: MemberId,
        prev: Index,
        hint: Position,
        outputs: &mut Vec<Output>,
    ) {
        let agree = if hint.index < self.terms.base().index {
            hint.index
        } else {
            self.terms.last_not_above(hint).index
        };
        let progress = self.progress_of(from);
        if !progress.counts {
            // It may have lost it again since.
            progress.matched = progress.matched.min(Index(prev.0.saturating_sub(1)));
        }
        let stale = match progress.flow {
            // Nobody takes back what it has acknowledged, unless its disk has lied, or an older copy of its directory has
            // taken the place of that: then it gets no entries any more while this member leads. It is asked again,
            // without any, after the next heartbeat: at once, it would go back and forth as fast as the link carries it.
            Flow::Probe { .. } => {
                prev.next() != progress.next || prev <= progress.matched || progress.forgot
            }
            Flow::Pipeline => prev <= progress.matched,
            Flow::Checkpoint => true,
        };
        if !stale {
            progress.probe_from(agree.next().min(prev));
        }
        // The answer to what it was just asked, and not one from before.
        let asked = matches!(progress.flow, Flow::Probe { .. }) && prev.next() == progress.next;
        let acknowledged = progress.matched;
        if asked && prev <= acknowledged && !std::mem::replace(&mut progress.forgot, true) {
            outputs.push(Output::FollowerForgot {
                member: from,
                acknowledged,
            });
        }
    }

    pub(super) fn on_heartbeat_response(
        &mut self,
        from: MemberId,
        response: HeartbeatResponse,
        outputs: &mut Vec<Output>,
    ) {
        if !self.hear(from, response.standing) {
            return;
        }
        // Nothing but an entry of this term says that its log ends as this one does: behind what they share there may
        // be another membership, which is in force there.
        let lease_since = self.memberships.index().max(self.leading.first_index);
        let now = self.now;
        let progress = self.progress_of(from);
        if let Flow::Probe { waiting } = &mut progress.flow {
            *waiting &= progress.being_read;
        }
        // It promises to vote for nobody else only if it knows that it should, and nothing newer to the contrary.
        if progress.counts && progress.matched >= lease_since && response.sent <= now {
            progress.followed = progress.followed.max(response.sent);
        }
        progress.verified = response.matched.verified;
        let known = progress.matched;
        if response.matched.durable > known {
            self.on_accepted(from, response.matched, outputs);
        } else if response.matched.verified < known && progress.flow == Flow::Pipeline {
            // It started anew and has not compared its log with ours.
            progress.probe_from(known.next());
        }
        // Its word may count again.
        self.advance_commit(outputs);
        if let Some(context) = response.context {
            self.on_round_answer(from, context, outputs);
        }
    }

    /// An entry is committed when a majority has it durable. Raft paper, section 5.4.2: only one of the
    /// current term is committed by counting; what is before it follows.
    pub(super) fn advance_commit(&mut self, outputs: &mut Vec<Output>) {
        let index = self.majority_durable();
        if index > self.hard_state.commit && self.is_of_own_term(index) {
            self.commit_to(index, outputs);
        }
    }

    /// What a majority of the voters has durable; this member counts when its own log is, and if it is
    /// a voter.
    fn majority_durable(&self) -> Index {
        if self.planted.has(Defect::CommittedByOne) {
            return self.durable;
        }
        majority_value(self.each_voter(self.durable, Progress::counted))
    }

    fn is_of_own_term(&self, index: Index) -> bool {
        self.terms.term_at(index) == Some(self.hard_state.term)
            || self.planted.has(Defect::OlderTermCommitted)
    }

    /// Followers come and go with the membership in force.
    pub(super) fn align_progress(&mut self) {
        if self.role != Role::Leader {
            return;
        }
        let others = self.others();
        self.leading.progress.retain(|id, _| others.contains(id));
        let next = self.terms.last_index().next();
        for id in others {
            let now = self.now;
            let joins = || Progress::new(next, now);
            self.leading.progress.entry(id).or_insert_with(joins);
        }
    }

    pub(super) fn progress_of(&mut self, id: MemberId) -> &mut Progress {
        self.leading
            .progress
            .get_mut(&id)
            .expect("a leader knows every other member")
    }
}

/// A heartbeat overtakes appends: it never speaks of more than this follower is known to have.
fn commit_for(progress: &Progress, commit: Index) -> Index {
    commit.min(progress.matched)
}
