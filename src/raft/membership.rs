//! Who belongs to the group. A membership is in force from the moment its entry is appended, and undone
//! when that entry is cut off (dissertation, section 4.1).

use std::collections::{BTreeMap, BTreeSet};

use super::quorum::majority_size;
use crate::base::limits::RAFT_MEMBERS_MAX;
use crate::base::{Incarnation, Index, MemberId};

/// The members at one index of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Whose votes and acknowledgements count.
    pub voters: BTreeSet<MemberId>,
    /// Who is brought up to date without counting.
    pub learners: BTreeSet<MemberId>,
    /// Ids that are used up: never members, never heard, never again.
    pub removed: BTreeSet<MemberId>,
    /// The data directory each member id belongs to, as far as the group has agreed on it.
    pub incarnations: BTreeMap<MemberId, Incarnation>,
    /// How leaders prove that they still lead.
    pub read_mode: ReadMode,
}

/// How a leader knows that a read is linearizable. An option of the whole group: every member must keep
/// the promise a lease rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadMode {
    /// A majority confirms after the read has come in (dissertation, section 6.4).
    #[default]
    Quorum,
    /// A majority has promised to vote for nobody else for a while (section 6.4.1). Needs clocks that
    /// go on while the machine sleeps and differ in speed by less than a tenth.
    Lease,
}

impl std::fmt::Display for ReadMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ReadMode::Quorum => "index",
            ReadMode::Lease => "lease",
        })
    }
}

/// One change of a membership: one member at a time, so that the majorities before and after have a
/// voter in common (dissertation, section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A member joins with a vote.
    AddVoter(MemberId),
    /// A member joins without a vote.
    AddLearner(MemberId),
    /// A learner gets a vote.
    Promote(MemberId),
    /// A member leaves for good.
    Remove(MemberId),
    /// The member's data directory is this one, from now on.
    Incarnation(MemberId, Incarnation),
    /// How leaders prove that they still lead.
    ReadMode(ReadMode),
}

/// Why a change is not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefusal {
    /// This member does not lead, or is handing over.
    #[error("this member does not lead")]
    NotLeader,
    /// The leader has not committed in its term (the single-step rule is unsafe before).
    #[error("the leader has not committed an entry of its term")]
    NotReady,
    /// Another change is not committed yet.
    #[error("another change is under way")]
    UnderWay,
    /// The id belongs to a member already.
    #[error("the member exists")]
    Exists,
    /// There is no such member.
    #[error("no such member")]
    NotFound,
    /// The id was used by a member that was removed.
    #[error("the member was removed")]
    Removed,
    /// Only learners are promoted.
    #[error("the member is not a learner")]
    NotLearner,
    /// The learner is too far behind, or silent.
    #[error("the learner is not in sync")]
    LearnerNotReady,
    /// The directory of this member id is agreed on.
    #[error("another directory belongs to the member")]
    OtherIncarnation,
    /// Nobody would be left to vote.
    #[error("the last voter stays")]
    LastVoter,
    /// There are as many members as there may be.
    #[error("too many members")]
    TooMany,
}

impl Membership {
    /// A group of voters.
    #[must_use]
    pub fn of_voters(voters: impl IntoIterator<Item = MemberId>) -> Membership {
        Membership {
            voters: voters.into_iter().collect(),
            ..Membership::default()
        }
    }

    /// Whether `id` is a voter or a learner.
    #[must_use]
    pub fn contains(&self, id: MemberId) -> bool {
        self.voters.contains(&id) || self.learners.contains(&id)
    }

    /// Voters and learners, by kind and id.
    pub fn members(&self) -> impl Iterator<Item = MemberId> {
        self.voters.iter().chain(&self.learners).copied()
    }

    /// Whether the voters among `ids` are a majority of all voters.
    #[must_use]
    pub fn is_majority(&self, ids: &BTreeSet<MemberId>) -> bool {
        let voters = self.voters.iter().filter(|id| ids.contains(id)).count();
        voters >= majority_size(self.voters.len())
    }

    /// The membership after `change`.
    ///
    /// # Errors
    /// When the change does not fit; [`Raft::check_change`](super::Raft::check_change) knows further reasons.
    pub fn after(&self, change: &Change) -> Result<Membership, ChangeRefusal> {
        let mut next = self.clone();
        match *change {
            Change::AddVoter(id) | Change::AddLearner(id) => {
                if self.removed.contains(&id) {
                    return Err(ChangeRefusal::Removed);
                }
                if self.contains(id) {
                    return Err(ChangeRefusal::Exists);
                }
                if self.voters.len() + self.learners.len() >= RAFT_MEMBERS_MAX {
                    return Err(ChangeRefusal::TooMany);
                }
                match change {
                    Change::AddVoter(_) => next.voters.insert(id),
                    _ => next.learners.insert(id),
                };
            }
            Change::Promote(id) => {
                if !self.contains(id) {
                    return Err(ChangeRefusal::NotFound);
                }
                if !next.learners.remove(&id) {
                    return Err(ChangeRefusal::NotLearner);
                }
                next.voters.insert(id);
            }
            Change::Remove(id) => {
                if !self.contains(id) {
                    return Err(if self.removed.contains(&id) {
                        ChangeRefusal::Removed
                    } else {
                        ChangeRefusal::NotFound
                    });
                }
                next.voters.remove(&id);
                next.learners.remove(&id);
                next.incarnations.remove(&id);
                next.removed.insert(id);
                if next.voters.is_empty() {
                    return Err(ChangeRefusal::LastVoter);
                }
            }
            Change::Incarnation(id, incarnation) => {
                if !self.contains(id) {
                    return Err(ChangeRefusal::NotFound);
                }
                match next.incarnations.insert(id, incarnation) {
                    None => {}
                    Some(known) if known == incarnation => return Err(ChangeRefusal::Exists),
                    Some(_) => return Err(ChangeRefusal::OtherIncarnation),
                }
            }
            Change::ReadMode(mode) => {
                if self.read_mode == mode {
                    return Err(ChangeRefusal::Exists);
                }
                next.read_mode = mode;
            }
        }
        Ok(next)
    }
}

/// The membership in force, and those it would fall back to.
#[derive(Clone, Debug)]
pub(super) struct Memberships {
    /// By rising index; the last one is in force, and at least one is there.
    history: Vec<(Index, Membership)>,
}

impl Memberships {
    /// # Panics
    /// When there is none, or they are not in the order of the log.
    pub(super) fn new(history: Vec<(Index, Membership)>) -> Memberships {
        assert!(!history.is_empty(), "a group has a membership");
        assert!(
            history.is_sorted_by(|(a, _), (b, _)| a < b),
            "memberships in the order of the log"
        );
        Memberships { history }
    }

    pub(super) fn in_force(&self) -> &Membership {
        &self.history.last().expect("at least one is there").1
    }

    /// The index of the entry that brought it.
    pub(super) fn index(&self) -> Index {
        self.history.last().expect("at least one is there").0
    }

    /// The newest one at or below `commit`.
    pub(super) fn committed(&self, commit: Index) -> &Membership {
        &self.committed_entry(commit).1
    }

    /// The index of the entry that brought that one.
    pub(super) fn committed_index(&self, commit: Index) -> Index {
        self.committed_entry(commit).0
    }

    fn committed_entry(&self, commit: Index) -> &(Index, Membership) {
        let settled = self.history.iter().rev().find(|&&(at, _)| at <= commit);
        settled.unwrap_or(&self.history[0])
    }

    pub(super) fn append(&mut self, index: Index, membership: Membership) {
        assert!(
            index > self.index(),
            "a membership at {index} after one at {}",
            self.index()
        );
        self.history.push((index, membership));
    }

    /// Whether cutting the log after `index` brought an earlier one back.
    pub(super) fn truncate(&mut self, index: Index) -> bool {
        let before = self.history.len();
        while self.history.len() > 1 && self.index() > index {
            self.history.pop();
        }
        self.history.len() != before
    }

    /// What was settled before the newest committed one is not needed any more.
    pub(super) fn settle(&mut self, commit: Index) {
        let settled = self.history.partition_point(|&(at, _)| at <= commit);
        if settled > 1 {
            self.history.drain(..settled - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MemberId = MemberId(1);
    const B: MemberId = MemberId(2);

    fn check(change: Change, expected: Result<(&[u64], &[u64]), ChangeRefusal>) {
        let mut from = Membership::of_voters([A]);
        from.learners.insert(B);
        from.removed.insert(MemberId(9));
        from.incarnations.insert(A, Incarnation(7));
        let ids = |set: &BTreeSet<MemberId>| set.iter().map(|id| id.0).collect::<Vec<_>>();
        let result = from
            .after(&change)
            .map(|next| (ids(&next.voters), ids(&next.learners)));
        let expected = expected.map(|(voters, learners)| (voters.to_vec(), learners.to_vec()));
        assert_eq!(result, expected, "{change:?}");
    }

    /// Goal: what each change makes of voter 1, learner 2 and the removed 9.
    #[test]
    fn changes() {
        use ChangeRefusal as No;
        check(Change::AddVoter(MemberId(3)), Ok((&[1, 3], &[2])));
        check(Change::AddLearner(MemberId(3)), Ok((&[1], &[2, 3])));
        check(Change::AddVoter(B), Err(No::Exists));
        check(Change::AddLearner(MemberId(9)), Err(No::Removed));
        check(Change::Promote(B), Ok((&[1, 2], &[])));
        check(Change::Promote(A), Err(No::NotLearner));
        check(Change::Promote(MemberId(3)), Err(No::NotFound));
        check(Change::Remove(B), Ok((&[1], &[])));
        check(Change::Remove(A), Err(No::LastVoter));
        check(Change::Remove(MemberId(9)), Err(No::Removed));
        check(Change::Incarnation(B, Incarnation(8)), Ok((&[1], &[2])));
        check(
            Change::Incarnation(A, Incarnation(8)),
            Err(No::OtherIncarnation),
        );
        check(Change::ReadMode(ReadMode::Quorum), Err(No::Exists));
    }

    /// Goal: the newest is in force, a cut brings the one before back, and what is settled goes.
    #[test]
    fn in_force_when_appended() {
        let one = Membership::of_voters([A]);
        let two = Membership::of_voters([A, B]);
        let mut memberships = Memberships::new(vec![(Index(1), one.clone())]);
        memberships.append(Index(5), two.clone());
        assert_eq!(memberships.in_force(), &two);
        assert_eq!(memberships.committed(Index(4)), &one);
        assert!(!memberships.truncate(Index(5)));
        assert!(memberships.truncate(Index(4)));
        assert_eq!(memberships.in_force(), &one);
        memberships.append(Index(5), two.clone());
        memberships.settle(Index(5));
        assert!(!memberships.truncate(Index(5)));
        assert_eq!(memberships.committed(Index(5)), &two);
    }
}
