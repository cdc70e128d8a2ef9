//! When the word of a member counts again whose log was damaged where it had been durable.
//!
//! Such a member may have forgotten entries that it acknowledged and votes that it gave. Until it has made
//! up for both it says [`Standing::Rebuilding`], and neither its acknowledgements nor its answers to
//! rounds count; it votes for nobody and asks for no vote. It takes entries and checkpoints as ever.
//!
//! *Acknowledgements.* Let `e` be an entry of term `t` that it acknowledged. What matters is that no leader is
//! ever elected without an `e` that is, or will be, committed with the help of that acknowledgement. The
//! damaged log cannot tell how far `e` may lie: its own end may be gone. So it asks the leader it follows,
//! in term `T`, and takes the end of that leader's log when a majority has confirmed the leader after the
//! question: a majority that does not count this member. Then `T >= t`: the leader of `t` was elected by a
//! majority, which shares somebody else with the confirming one, and whoever has once been in term `t`
//! confirms nobody in an earlier term. So the leader is that of `t`, which had `e` in its log when it was
//! acknowledged, or a later one, which has every committed `e` because all votes it got were given by
//! members that were whole. In both cases `e` lies at or below that end. The member is whole again
//! when it is durable, compared with a leader of its term, and committed that far: what is committed is the
//! same under every leader, so the leader may change meanwhile; then the end is asked for anew, because a
//! tail that nobody else has may never be committed. The commit index alone would not do: an
//! acknowledgement from before the damage may still be on its way.
//!
//! *Votes.* Every commit of the log carries term and vote, and a changed one is in two successive commits
//! before it is used, so one bad block forgets neither: the newest commit behind the damage names the last
//! term. A member that lost part of its log has a *floor*: it has no vote left in any term up to it, nor in
//! any term it enters while it rebuilds. When nothing behind the damage tells the term
//! ([`Rebuild::every_voter`]), it waits until it has heard every other voter since it started, and enters
//! the latest term it has heard of: a candidate that ever got its vote was in that term before. That may have been
//! itself, in a term that nobody else has reached, and it may vote in that term once more. The process that could have
//! counted the first vote is gone; should it campaign in that term again, a grant for the first campaign that comes late
//! is as good as one for the second: it was given to a log that ends no later than the one that was rebuilt.

use std::collections::BTreeSet;

use super::Raft;
use super::message::Standing;
use super::types::{Output, Rebuild};
use crate::base::planted::Defect;
use crate::base::{HardState, Index, MemberId, Term};

/// A damaged log that is being made whole.
#[derive(Debug)]
pub(super) struct Rebuilding {
    wanted: Rebuild,
    /// The end of the leader's log, when a majority had confirmed the leader.
    leader_end: Option<Index>,
    /// Who was heard since the start.
    heard: BTreeSet<MemberId>,
    /// The latest term that anybody was in.
    term_heard: Term,
}

impl Rebuilding {
    pub(super) fn new(wanted: Rebuild) -> Rebuilding {
        Rebuilding {
            wanted,
            leader_end: None,
            heard: BTreeSet::new(),
            term_heard: Term(0),
        }
    }
}

/// Term and vote of a member that may have voted in any term up to `floor`: a vote for itself is one that
/// nobody counts.
pub(super) fn above_floor(hard_state: HardState, floor: Term, own: MemberId) -> HardState {
    let HardState { term, vote, commit } = hard_state;
    if floor == Term(0) || floor < term {
        return hard_state;
    }
    HardState {
        term: floor,
        vote: vote.filter(|_| term == floor).or(Some(own)),
        commit,
    }
}

impl Raft {
    /// Whether this member's damaged log is being rebuilt: its word does not count.
    #[must_use]
    pub fn is_rebuilding(&self) -> bool {
        self.rebuilding.is_some() && !self.planted.has(Defect::CorruptVotes)
    }

    /// Whether this member's word counts: not while its damaged log is incomplete, nor while it may be an
    /// emptied directory that has forgotten what it promised.
    pub(super) fn standing(&self) -> Standing {
        if self.may_vote() {
            Standing::Whole
        } else {
            Standing::Rebuilding
        }
    }

    /// The vote with which this member enters a term: none, or one that it cannot give any more.
    pub(super) fn vote_on_entry(&self) -> Option<MemberId> {
        self.is_rebuilding().then_some(self.id)
    }

    /// Somebody said something in `term`, since this member started. Strangers are asked when they are members.
    pub(super) fn heard_while_rebuilding(&mut self, from: MemberId, term: Term) {
        let is_settled = self.settled_directory(from).is_some();
        if let Some(rebuilding) = self.rebuilding.as_mut().filter(|_| is_settled) {
            rebuilding.heard.insert(from);
            rebuilding.term_heard = rebuilding.term_heard.max(term);
        }
    }

    /// The voters that must be heard and were not: some say nothing to a follower unless they are asked.
    pub(super) fn unheard_voters(&self) -> Vec<MemberId> {
        let Some(rebuilding) = self.rebuilding.as_ref() else {
            return Vec::new();
        };
        let voters = self.membership().voters.iter().copied();
        let unheard = |id: &MemberId| *id != self.id && !rebuilding.heard.contains(id);
        let unheard = voters.filter(unheard);
        unheard.filter(|_| rebuilding.wanted.every_voter).collect()
    }

    /// Another leader, or none: its log may end elsewhere.
    pub(super) fn forget_leader_end(&mut self) {
        if let Some(rebuilding) = &mut self.rebuilding {
            rebuilding.leader_end = None;
        }
    }

    /// Asks the leader for the end of its log, unless that is known.
    pub(super) fn ask_leader_end(&mut self) {
        let unknown = |rebuilding: &Rebuilding| rebuilding.leader_end.is_none();
        if self.rebuilding.as_ref().is_some_and(unknown) && self.reads.context().is_none() {
            self.read();
        }
    }

    /// The leader, confirmed after this member had asked, has a log that ends there.
    pub(super) fn leader_ends_at(&mut self, last: Index) {
        if let Some(rebuilding) = &mut self.rebuilding {
            rebuilding.leader_end.get_or_insert(last);
        }
    }

    /// A damaged log is whole again when all it may ever have acknowledged is back, durable, and committed by
    /// a majority that did not count this member.
    pub(super) fn notice_rebuilt(&mut self, outputs: &mut Vec<Output>) {
        let Some(rebuilding) = &self.rebuilding else {
            return;
        };
        let Some(leader_end) = rebuilding.leader_end else {
            return;
        };
        let through = leader_end.max(rebuilding.wanted.through);
        let reached = self
            .hard_state
            .commit
            .min(self.durable)
            .min(self.following_verified());
        if reached < through || !self.vote_is_durable() {
            return;
        }
        if rebuilding.wanted.every_voter {
            if !self.unheard_voters().is_empty() {
                return;
            }
            let term = rebuilding.term_heard;
            if term > self.hard_state.term {
                return self.become_follower(term, None, outputs);
            }
        }
        self.rebuilding = None;
        outputs.push(Output::Rebuilt);
    }
}
