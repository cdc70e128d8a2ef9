//! Whose connections are let in: what a greeting between two members asks, answered by what consensus knows.
//!
//! A member is let in from the directory that the group has agreed on for good. Before that it is from the one that is
//! stored here; and from another one that says of itself that the group has agreed on it. That one may lead by now, and
//! the entry that says so may come from nobody else. Whether it is believed is for [`Raft::step`] to decide, message by
//! message: here it costs nothing but a connection. Must never change anything.

use std::collections::BTreeMap;

use super::Raft;
use crate::base::{Incarnation, Index, MemberId};

/// The data directories that belong to members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directories {
    /// As the group has agreed: that entry is committed.
    pub agreed: BTreeMap<MemberId, Incarnation>,
    /// As this member has stored, or as an entry says that may still be cut off. Some are agreed as well.
    pub stored: BTreeMap<MemberId, Incarnation>,
    /// Whether the group has agreed on this member's own one.
    pub own_agreed: bool,
}

/// What the directories to let in depend on, beside the membership at the head of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoriesVersion {
    /// The entry that brought the newest committed membership.
    agreed_at: Index,
    /// Of what is known beside the log.
    changes: u64,
}

impl Directories {
    /// Whether a connection is let in from a member with this directory, which says of itself whether the group has
    /// `agreed` on it.
    ///
    /// So two directories of one id may be let in: the stored one and the agreed one. What is said to that id then
    /// reaches the agreed one, also the answer to a request of the other, and it may count a vote that it never asked
    /// for. That is safe: this member has no entry that names the agreed directory, or it would let in no other, so all
    /// that it ever acknowledged and that is committed lies before that entry; and who says *agreed* has that entry
    /// committed in its own log, and all before it. So it lacks nothing that this vote must have made sure of; and the
    /// vote is one of its term and given to nobody else. The stored one gets no majority for anything: that entry is
    /// committed by one which hears the agreed one only.
    #[must_use]
    pub fn admit(&self, member: MemberId, incarnation: Incarnation, agreed: bool) -> bool {
        match self.agreed.get(&member) {
            Some(known) => *known == incarnation,
            None => {
                let stored = self.stored.get(&member);
                agreed || stored.is_none_or(|stored| *stored == incarnation)
            }
        }
    }

    /// Whether this is the directory that is known of a member, and not only one that is let in because nothing is, or
    /// because of what it says of itself.
    #[must_use]
    pub fn know(&self, member: MemberId, incarnation: Incarnation) -> bool {
        let known = self.agreed.get(&member).or(self.stored.get(&member));
        known == Some(&incarnation)
    }
}

impl Raft {
    /// What the connections of this member have to know.
    #[must_use]
    pub fn directories(&self) -> Directories {
        let mut stored = self.identity.stored();
        let named = self.membership().incarnations.keys();
        stored.extend(named.filter_map(|&id| Some((id, self.named_directory(id)?))));
        let committed = self.memberships.committed(self.hard_state.commit);
        Directories {
            agreed: committed.incarnations.clone(),
            stored,
            own_agreed: self.is_own_agreed(),
        }
    }

    /// Whether the group has agreed, for good, on the directory that this member runs on.
    #[must_use]
    pub fn is_own_agreed(&self) -> bool {
        self.agreed_incarnation(self.id) == Some(self.incarnation)
    }

    /// Differs when [`Self::directories`] does, but for a change of the membership at the head of the log.
    #[must_use]
    pub fn directories_version(&self) -> DirectoriesVersion {
        DirectoriesVersion {
            agreed_at: self.memberships.committed_index(self.hard_state.commit),
            changes: self.identity.changes(),
        }
    }

    /// Whether what a member says beside consensus is heard when it comes from this directory: from the one that
    /// consensus hears it from.
    #[must_use]
    pub fn hears(&self, member: MemberId, incarnation: Incarnation) -> bool {
        self.directory_of(member) == Some(incarnation) || self.follows(member, incarnation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Incarnation = Incarnation(1);
    const NEW: Incarnation = Incarnation(2);

    #[track_caller]
    fn check(agreed: Option<Incarnation>, stored: Option<Incarnation>, expected: [bool; 4]) {
        const ID: MemberId = MemberId(7);
        let map = |of: Option<Incarnation>| of.map(|of| (ID, of)).into_iter().collect();
        let directories = Directories {
            agreed: map(agreed),
            stored: map(stored),
            own_agreed: false,
        };
        let says = [(OLD, false), (OLD, true), (NEW, false), (NEW, true)];
        let admitted = says.map(|(from, agreed)| directories.admit(ID, from, agreed));
        assert_eq!(admitted, expected, "{directories:?}");
        for from in [OLD, NEW] {
            let known = agreed.or(stored) == Some(from);
            assert_eq!(directories.know(ID, from), known, "{directories:?}");
        }
    }

    /// Goal: who is let in from an old and from a new directory, that does not say or does say that it is agreed on.
    #[test]
    fn admission() {
        check(None, None, [true, true, true, true]);
        check(None, Some(OLD), [true, true, false, true]);
        check(Some(OLD), Some(OLD), [true, true, false, false]);
        check(Some(NEW), Some(OLD), [false, false, true, true]);
    }
}
