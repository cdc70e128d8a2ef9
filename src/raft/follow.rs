//! The follower's side of the log: what it takes from its leader, what it cuts off, and what it
//! acknowledges (Raft paper, section 5.3).
//!
//! ```text
//! leader     1 1 2 2 4 4 4        prev = (2, index 4), entries 4 4 4
//! follower   1 1 2 2 3 3          first difference: index 5
//!                    ^ cut after 4, append 5..=7
//! ```

use super::Raft;
use super::log::LogTerms;
use super::membership::Membership;
use super::membership::Memberships;
use super::message::{
    Append, AppendResponse, AppendResult, Body, Heartbeat, HeartbeatResponse, Matched, Message,
    is_possible,
};
use super::types::{Output, PeerRefusal, Position, Role};
use crate::base::planted::Defect;
use crate::base::{Index, Instant, MemberId, Term};

/// What a follower knows about its log in one term.
#[derive(Debug, Default)]
pub(super) struct Following {
    /// Its log agrees with that of this term's leader up to here.
    verified: Index,
    /// What it has told the leader to be durable.
    acknowledged: Index,
}

impl Raft {
    /// Drops what no leader can say while all members keep the rules, if the group has not agreed on the directory that it
    /// comes from: anybody may have made that one up. From one that is agreed on it is our own bug, and ends the process
    /// where it is found.
    pub(super) fn is_lie(
        &self,
        from: MemberId,
        message: &Message,
        outputs: &mut Vec<Output>,
    ) -> bool {
        let incarnation = message.incarnation;
        let is_lie = self.agreed_incarnation(from) != Some(incarnation)
            && message.term >= self.hard_state.term
            && self.cannot_be(from, message);
        if is_lie {
            self.refuse_peer(from, incarnation, PeerRefusal::Impossible, outputs);
        }
        is_lie
    }

    /// Whether a message of this term or a later one is none of its leader, by what is known here.
    pub(super) fn cannot_be(&self, from: MemberId, message: &Message) -> bool {
        let is_present = message.term == self.hard_state.term;
        let another_leads = is_present
            && (self.role == Role::Leader || self.leader.is_some_and(|known| known != from));
        let append = match &message.body {
            Body::Heartbeat(_) => return another_leads,
            Body::Append(append) if append.is_sound(message.term) => append,
            // What is not sound is not looked at.
            _ => return false,
        };
        let Append { prev, entries, .. } = append;
        let replaced = if self.agrees_with(*prev) {
            self.terms.first_conflict(prev.index, entries)
        } else {
            Some(prev.index)
        };
        let replaces = |settled: Index| replaced.is_some_and(|first| first <= settled);
        let replaces_own = self.agrees_with(*prev) && replaces(self.following.verified);
        another_leads
            || replaces(self.hard_state.commit)
            || (is_present && replaces_own)
            || self.terms.has_another_base(prev.index, entries)
    }

    /// The leader of this term was heard.
    fn follow(&mut self, leader: MemberId, outputs: &mut Vec<Output>) {
        assert_ne!(
            self.role,
            Role::Leader,
            "{leader} leads in term {} as well as {}",
            self.hard_state.term,
            self.id
        );
        if let Some(known) = self.leader.filter(|&known| known != leader) {
            assert_eq!(
                self.agreed_incarnation(known),
                None,
                "{leader} leads in term {} as well as {known}",
                self.hard_state.term,
            );
            // What somebody made up came first: nothing was compared with this leader's log.
            self.following = Following::default();
        }
        self.role = Role::Follower;
        self.set_leader(Some(leader), outputs);
        self.election.heard = Some(self.now);
        self.rearm();
        self.ask_leader_end();
    }

    pub(super) fn on_append(&mut self, from: MemberId, append: &Append, outputs: &mut Vec<Output>) {
        if !append.is_sound(self.hard_state.term) {
            return;
        }
        self.follow(from, outputs);
        if !self.agrees_with(append.prev) {
            self.reject(from, append.prev, outputs);
            return;
        }
        if let Some(conflict) = self
            .terms
            .first_conflict(append.prev.index, &append.entries)
        {
            self.cut_before(conflict, outputs);
        }
        let end = self.terms.last_index();
        let news = append.last() > end;
        if news {
            self.terms.extend(append.prev.index, &append.entries);
            outputs.push(Output::AppendEntries {
                first: end.next(),
                last: append.last(),
            });
        }
        self.following.verified = self.following.verified.max(append.last());
        self.commit_verified(append.commit, outputs);
        if !news && append.probe {
            self.accept(from, outputs);
        } else {
            self.acknowledge(outputs);
        }
    }

    /// Log matching: an entry of the same term at the same index, and so the same log before it. What lies
    /// before our first entry is committed, and no leader lacks that.
    fn agrees_with(&self, prev: Position) -> bool {
        prev.index < self.terms.base().index || self.terms.holds(prev)
    }

    fn reject(&self, to: MemberId, prev: Position, outputs: &mut Vec<Output>) {
        assert!(
            prev.index > self.hard_state.commit,
            "the leader's entry at {} of term {} is not the one that is committed",
            prev.index,
            prev.term
        );
        let result = AppendResult::Rejected {
            prev: prev.index,
            hint: self.terms.last_not_above(prev),
        };
        let standing = self.standing();
        self.send(
            to,
            Body::AppendResponse(AppendResponse { result, standing }),
            outputs,
        );
    }

    /// Everything from the first entry that differs from the leader's on is cut off.
    fn cut_before(&mut self, conflict: Index, outputs: &mut Vec<Output>) {
        assert!(
            conflict > self.hard_state.commit,
            "the leader's entry at {conflict} replaces one that is committed up to {}",
            self.hard_state.commit
        );
        assert!(
            conflict > self.following.verified,
            "the leader's entry at {conflict} replaces one of its own up to {}",
            self.following.verified
        );
        let after = if self.planted.has(Defect::TailCutWrongly) {
            conflict
        } else {
            Index(conflict.0 - 1)
        };
        self.terms.truncate(after);
        self.durable = self.durable.min(after);
        outputs.push(Output::TruncateLog { after });
        self.memberships_truncated(after, outputs);
    }

    /// Commits no further than what was compared with this leader's log in this term: the rest may be
    /// another leader's.
    fn commit_verified(&mut self, commit: Index, outputs: &mut Vec<Output>) {
        let verified = if self.planted.has(Defect::CommitUnverified) {
            self.terms.last_index()
        } else {
            self.following.verified
        };
        self.commit_to(commit.min(verified), outputs);
        self.notice_rebuilt(outputs);
    }

    /// What may be acknowledged: durable, and the same as the leader's.
    fn matched(&self) -> Matched {
        let verified = self.following.verified;
        Matched {
            durable: if self.planted.has(Defect::AcknowledgedUnsynced) {
                verified
            } else {
                verified.min(self.durable)
            },
            verified,
        }
    }

    /// Tells the leader what has become durable since the last time.
    pub(super) fn acknowledge(&mut self, outputs: &mut Vec<Output>) {
        if self.role == Role::Follower
            && let Some(leader) = self.leader
            && self.matched().durable > self.following.acknowledged
        {
            self.accept(leader, outputs);
        }
    }

    fn accept(&mut self, to: MemberId, outputs: &mut Vec<Output>) {
        let matched = self.matched();
        self.following.acknowledged = matched.durable;
        let response = AppendResponse {
            result: AppendResult::Accepted(matched),
            standing: self.standing(),
        };
        self.send(to, Body::AppendResponse(response), outputs);
    }

    /// Up to where the log was compared with that of this term's leader.
    pub(super) fn following_verified(&self) -> Index {
        self.following.verified
    }

    pub(super) fn on_heartbeat(
        &mut self,
        from: MemberId,
        heartbeat: Heartbeat,
        outputs: &mut Vec<Output>,
    ) {
        self.follow(from, outputs);
        self.commit_verified(heartbeat.commit, outputs);
        if let Some(digest) = heartbeat.digest
            && digest.index <= self.hard_state.commit.min(self.following.verified)
        {
            outputs.push(Output::CompareDigest(digest));
        }
        let response = HeartbeatResponse {
            sent: heartbeat.sent,
            context: heartbeat.context,
            matched: self.matched(),
            standing: self.standing(),
        };
        self.send(from, Body::HeartbeatResponse(response), outputs);
    }

    /// Whether a checkpoint at `base`, offered by the leader of `term`, would bring this member forward.
    #[must_use]
    pub fn wants_checkpoint(&self, term: Term, base: Position) -> bool {
        let possible = is_possible(term, base.index);
        !self.silent
            && possible
            && term >= self.hard_state.term
            && base.index > self.hard_state.commit
    }

    /// A checkpoint from the leader of `term` is on disk here: the state at `base` and its membership.
    /// Entries after it are kept if the log has the one at `base` (Raft paper, section 7). Otherwise the log begins
    /// anew there, and counts as durable up to there when [`Self::log_durable`] says so: until the log leads to the
    /// checkpoint, that is lost as if it had never come. Whether it was taken; an older one than what is committed is
    /// not.
    pub fn install_checkpoint(
        &mut self,
        from: MemberId,
        term: Term,
        base: Position,
        membership: Membership,
        now: Instant,
        outputs: &mut Vec<Output>,
    ) -> bool {
        self.observe(now);
        let possible = is_possible(term, base.index) && base.term <= term;
        if self.silent || term < self.hard_state.term || !possible {
            return false;
        }
        if term > self.hard_state.term {
            self.become_follower(term, None, outputs);
        }
        self.follow(from, outputs);
        let wanted = self.wants_checkpoint(term, base);
        if wanted && !self.terms.holds(base) {
            self.terms = LogTerms::after(base);
            self.durable = self.durable.min(self.hard_state.commit);
            self.memberships = Memberships::new(vec![(base.index, membership)]);
            outputs.push(Output::ResetLog { base });
            outputs.push(Output::MembershipChanged(self.membership().clone()));
        }
        // What is committed is the same everywhere.
        self.following.verified = self.following.verified.max(base.index);
        self.commit_verified(base.index, outputs);
        self.accept(from, outputs);
        wanted
    }
}
