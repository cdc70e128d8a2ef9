//! Changing the membership: one change at a time, in force when appended, undone when cut off
//! (dissertation, chapter 4).

use super::Raft;
use super::membership::{Change, ChangeRefusal, Membership};
use super::message::Body;
use super::progress::Progress;
use super::types::{Output, Role, StepDown};
use crate::base::{Incarnation, Index, MemberId, Term};

/// A learner is promoted when it has at least this share of what the leader has: nine tenths, as in etcd.
const PROMOTION_SHARE: (u64, u64) = (9, 10);

impl Raft {
    /// Whether [`Self::append_change`] would take this change now.
    ///
    /// # Errors
    /// Why not.
    pub fn check_change(&self, change: &Change) -> Result<(), ChangeRefusal> {
        if self.next_position().is_none() {
            return Err(ChangeRefusal::NotLeader);
        }
        if !self.has_committed_in_term() {
            return Err(ChangeRefusal::NotReady);
        }
        if self.change_is_under_way() {
            return Err(ChangeRefusal::UnderWay);
        }
        self.membership().after(change)?;
        match *change {
            Change::Promote(learner) if !self.is_in_sync(learner) => {
                Err(ChangeRefusal::LearnerNotReady)
            }
            _ => Ok(()),
        }
    }

    /// Whether the next change could be appended now, if it fits: this member leads and is not handing over,
    /// has committed in its term, and the change before is committed.
    #[must_use]
    pub fn may_change(&self) -> bool {
        self.next_position().is_some()
            && self.has_committed_in_term()
            && !self.change_is_under_way()
    }

    /// Whether a member is this one, or a follower that has answered this leader within an election timeout with a word
    /// that counts. One that has to rebuild its log, or has said nothing since this leader was elected, holds nothing
    /// together: were somebody else removed, the group could be left without a majority.
    #[must_use]
    pub fn is_heard(&self, member: MemberId) -> bool {
        let lately = |progress: &Progress| {
            progress.answered && self.now.since(progress.heard_whole) < self.election_timeout
        };
        member == self.id || self.progress(member).is_some_and(lately)
    }

    /// Majorities before and after two changes need not have a voter in common.
    fn change_is_under_way(&self) -> bool {
        self.memberships.index() > self.hard_state.commit
    }

    /// Whether a learner could vote without slowing the group down.
    fn is_in_sync(&self, learner: MemberId) -> bool {
        let (part, whole) = PROMOTION_SHARE;
        self.progress(learner).is_some_and(|progress| {
            progress.has_all()
                && self.is_heard(learner)
                && progress.matched.0.saturating_mul(whole) >= self.durable.0.saturating_mul(part)
        })
    }

    /// Like [`Self::append`], for an entry that changes the membership: it is in force from now on.
    ///
    /// # Panics
    /// When [`Self::check_change`] refuses it.
    pub fn append_change(
        &mut self,
        change: &Change,
        size_bytes: u64,
        outputs: &mut Vec<Output>,
    ) -> (Term, Index) {
        if let Err(refusal) = self.check_change(change) {
            panic!("{change:?} is appended although {refusal}");
        }
        let next = self.membership().after(change);
        let next = next.expect("the check has tried it");
        let (term, index) = self.append(size_bytes);
        self.put_in_force(index, next, outputs);
        if let Change::Remove(member) = *change {
            self.leading.leaving = Some((index, member));
        }
        (term, index)
    }

    /// The entry at `index`, which [`Output::AppendEntries`] asked for, changed the membership to this one.
    pub fn membership_appended(
        &mut self,
        index: Index,
        membership: Membership,
        outputs: &mut Vec<Output>,
    ) {
        assert!(
            index <= self.terms.last_index(),
            "a membership at {index} beyond the end of the log {}",
            self.terms.last_index()
        );
        self.put_in_force(index, membership, outputs);
        if index <= self.hard_state.commit {
            self.membership_committed(outputs);
            self.memberships.settle(self.hard_state.commit);
        }
    }

    fn put_in_force(&mut self, index: Index, membership: Membership, outputs: &mut Vec<Output>) {
        self.memberships.append(index, membership.clone());
        self.align_progress();
        outputs.push(Output::MembershipChanged(membership));
    }

    /// The log was cut: what was changed by what is gone never was.
    pub(super) fn memberships_truncated(&mut self, after: Index, outputs: &mut Vec<Output>) {
        if self.memberships.truncate(after) {
            outputs.push(Output::MembershipChanged(self.membership().clone()));
        }
    }

    /// The newest membership is committed: who left is told, and goes.
    pub(super) fn membership_committed(&mut self, outputs: &mut Vec<Output>) {
        let committed = self.memberships.committed(self.hard_state.commit);
        let left = committed.removed.contains(&self.id);
        let other = committed
            .incarnations
            .get(&self.id)
            .is_some_and(|&known| known != self.incarnation);
        if self.role == Role::Leader {
            if let Some((index, member)) = self.leading.leaving
                && index <= self.hard_state.commit
            {
                self.leading.leaving = None;
                if member != self.id {
                    self.send(member, Body::Removed, outputs);
                }
            }
            if left {
                self.leave_to_successor(outputs);
                self.step_down(StepDown::Removed, outputs);
            }
        }
        if left {
            self.on_removed(outputs);
        } else if other {
            self.silence(Output::OwnIdentityRefused, outputs);
        }
        self.forget_removed(outputs);
    }

    /// This member was removed, and that is committed: it never votes again.
    pub(super) fn on_removed(&mut self, outputs: &mut Vec<Output>) {
        self.silence(Output::Removed, outputs);
    }

    pub(super) fn silence(&mut self, why: Output, outputs: &mut Vec<Output>) {
        if self.silent {
            return;
        }
        if self.role == Role::Leader {
            self.step_down(StepDown::Removed, outputs);
        }
        self.role = Role::Follower;
        self.set_leader(None, outputs);
        self.silent = true;
        self.election.promises.clear();
        outputs.push(why);
    }

    /// A member whose directory is stored here and not yet agreed on by the group: the leader appends
    /// [`Change::Incarnation`] for it.
    #[must_use]
    pub fn unrecorded_incarnation(&self) -> Option<(MemberId, Incarnation)> {
        let membership = self.membership();
        membership
            .members()
            .filter(|id| !membership.incarnations.contains_key(id))
            .find_map(|id| {
                let known = if id == self.id {
                    Some(self.incarnation)
                } else {
                    self.identity.known(id)
                };
                known.map(|incarnation| (id, incarnation))
            })
    }
}
