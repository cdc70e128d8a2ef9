//! The part of the replicated state that belongs to the cluster and not to a key: members, alarms and
//! the cluster version.
//!
//! Like everything that is folded, it has a head (all the log holds) and a committed copy; only the
//! committed one is shown. Cutting the log's tail throws the head's surplus away.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::base::{Incarnation, Index, MemberId};
use crate::raft::{Change, Membership, ReadMode};
use crate::shard::event::{Alarm, AlarmKind, Member};

/// One replicated change of this state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterChange {
    /// A member joins.
    MemberAdded(Member),
    /// A member says its name and where its clients reach it.
    MemberAttributes {
        /// Whose.
        id: MemberId,
        /// `--name`.
        name: String,
        /// `--advertise-client-urls`.
        client_urls: Vec<String>,
    },
    /// A member leaves for good; its id is never used again.
    MemberRemoved(MemberId),
    /// A learner gets a vote.
    MemberPromoted(MemberId),
    /// Peers reach a member elsewhere from now on.
    MemberUpdated {
        /// Whose.
        id: MemberId,
        /// In place of all it had.
        peer_urls: Vec<String>,
    },
    /// The data directory that a member id belongs to, from now on.
    MemberIncarnation {
        /// Whose.
        id: MemberId,
        /// Which.
        incarnation: Incarnation,
    },
    /// How leaders prove that they still lead.
    ReadMode(ReadMode),
    /// What every member understands, as etcd counts versions.
    Version {
        /// First number.
        major: u32,
        /// Second number.
        minor: u32,
    },
    /// An alarm is raised.
    AlarmRaised(Alarm),
    /// An alarm is cleared.
    AlarmCleared(Alarm),
}

/// One copy of the state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Copy {
    members: BTreeMap<MemberId, Member>,
    alarms: BTreeSet<Alarm>,
    version: Option<(u32, u32)>,
    removed: BTreeSet<MemberId>,
    incarnations: BTreeMap<MemberId, Incarnation>,
    read_mode: ReadMode,
    /// Where the membership was changed last.
    membership_index: Index,
}

impl Copy {
    fn apply(&mut self, index: Index, change: &ClusterChange) {
        if change.is_membership() {
            self.membership_index = index;
        }
        match change {
            ClusterChange::MemberAdded(member) => {
                self.members.insert(member.id, member.clone());
            }
            ClusterChange::MemberAttributes {
                id,
                name,
                client_urls,
            } => {
                if let Some(member) = self.members.get_mut(id) {
                    member.name.clone_from(name);
                    member.client_urls.clone_from(client_urls);
                }
            }
            ClusterChange::MemberRemoved(id) => {
                self.members.remove(id);
                self.incarnations.remove(id);
                self.alarms.retain(|alarm| alarm.member != *id);
                self.removed.insert(*id);
            }
            ClusterChange::MemberPromoted(id) => {
                if let Some(member) = self.members.get_mut(id) {
                    member.is_learner = false;
                }
            }
            ClusterChange::MemberUpdated { id, peer_urls } => {
                if let Some(member) = self.members.get_mut(id) {
                    member.peer_urls.clone_from(peer_urls);
                }
            }
            ClusterChange::MemberIncarnation { id, incarnation } => {
                self.incarnations.insert(*id, *incarnation);
            }
            ClusterChange::ReadMode(mode) => self.read_mode = *mode,
            ClusterChange::Version { major, minor } => self.version = Some((*major, *minor)),
            ClusterChange::AlarmRaised(alarm) => {
                self.alarms.insert(*alarm);
            }
            ClusterChange::AlarmCleared(alarm) => {
                self.alarms.remove(alarm);
            }
        }
    }
}

impl Copy {
    fn membership(&self) -> Membership {
        let (learners, voters) = self
            .members
            .values()
            .partition::<Vec<_>, _>(|member| member.is_learner);
        Membership {
            voters: voters.iter().map(|member| member.id).collect(),
            learners: learners.iter().map(|member| member.id).collect(),
            removed: self.removed.clone(),
            incarnations: self.incarnations.clone(),
            read_mode: self.read_mode,
        }
    }
}

impl ClusterChange {
    /// Whether this changes who belongs to the group, or what is agreed about that.
    pub(super) fn is_membership(&self) -> bool {
        match self {
            ClusterChange::MemberAdded(_) => true,
            other => other.raft_change().is_some(),
        }
    }

    /// The same for consensus; `None` for what consensus does not know.
    pub(super) fn raft_change(&self) -> Option<Change> {
        Some(match self {
            ClusterChange::MemberAdded(member) if member.is_learner => {
                Change::AddLearner(member.id)
            }
            ClusterChange::MemberAdded(member) => Change::AddVoter(member.id),
            ClusterChange::MemberRemoved(id) => Change::Remove(*id),
            ClusterChange::MemberPromoted(id) => Change::Promote(*id),
            ClusterChange::MemberIncarnation { id, incarnation } => {
                Change::Incarnation(*id, *incarnation)
            }
            ClusterChange::ReadMode(mode) => Change::ReadMode(*mode),
            ClusterChange::MemberAttributes { .. }
            | ClusterChange::MemberUpdated { .. }
            | ClusterChange::Version { .. }
            | ClusterChange::AlarmRaised(_)
            | ClusterChange::AlarmCleared(_) => return None,
        })
    }
}

/// Members, alarms and version, at the head and committed.
#[derive(Clone, Debug, Default)]
pub struct ClusterState {
    head: Copy,
    committed: Copy,
    /// Folded and not yet committed, in the order of the log.
    pending: VecDeque<(Index, ClusterChange)>,
    /// Where the committed copy last changed.
    changed_at: Index,
    /// How often the head was changed: what follows it looks again when this is another number.
    head_changes: u64,
}

impl ClusterState {
    /// Folds the change of the entry at `index` into the head.
    pub fn fold(&mut self, index: Index, change: ClusterChange) {
        self.head.apply(index, &change);
        self.pending.push_back((index, change));
        self.head_changes += 1;
    }

    /// Everything up to `index` is committed.
    pub fn commit(&mut self, index: Index) {
        while self.pending.front().is_some_and(|&(at, _)| at <= index) {
            let (at, change) = self.pending.pop_front().expect("the front was just seen");
            self.committed.apply(at, &change);
            self.changed_at = at;
        }
    }

    /// Forgets what was folded after `index`.
    pub fn truncate(&mut self, index: Index) {
        self.pending.retain(|&(at, _)| at <= index);
        self.head = self.committed.clone();
        for (at, change) in &self.pending {
            self.head.apply(*at, change);
        }
        self.head_changes += 1;
    }

    /// This state takes the place of `before`: whoever followed that one looks again.
    pub fn replaces(&mut self, before: &ClusterState) {
        self.head_changes = self.head_changes.max(before.head_changes) + 1;
    }

    /// The index of the last committed change.
    #[must_use]
    pub fn changed_at(&self) -> Index {
        self.changed_at
    }

    /// The changes that make the committed state of nothing, always the same for the same state.
    #[must_use]
    pub fn committed_changes(&self) -> Vec<ClusterChange> {
        let Copy {
            members,
            alarms,
            version,
            removed,
            incarnations,
            read_mode,
            membership_index: _,
        } = &self.committed;
        let mut changes: Vec<_> = removed
            .iter()
            .copied()
            .map(ClusterChange::MemberRemoved)
            .collect();
        for member in members.values() {
            changes.push(ClusterChange::MemberAdded(Member {
                name: String::new(),
                client_urls: Vec::new(),
                ..member.clone()
            }));
            if !member.name.is_empty() || !member.client_urls.is_empty() {
                changes.push(ClusterChange::MemberAttributes {
                    id: member.id,
                    name: member.name.clone(),
                    client_urls: member.client_urls.clone(),
                });
            }
        }
        for (&id, &incarnation) in incarnations {
            changes.push(ClusterChange::MemberIncarnation { id, incarnation });
        }
        if *read_mode != ReadMode::default() {
            changes.push(ClusterChange::ReadMode(*read_mode));
        }
        changes.extend(version.map(|(major, minor)| ClusterChange::Version { major, minor }));
        changes.extend(alarms.iter().copied().map(ClusterChange::AlarmRaised));
        changes
    }

    /// The committed members, by id.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.committed.members.values().cloned().collect()
    }

    /// The members at the head, by id: those of the membership in force.
    pub fn members_at_head(&self) -> impl Iterator<Item = &Member> {
        self.head.members.values()
    }

    /// How often the head was changed in this process, by anything: another number after a change of who the
    /// members are or where, forwards or back.
    #[must_use]
    pub fn head_changes(&self) -> u64 {
        self.head_changes
    }

    /// Whether an id belongs, at the head, to a member that was removed.
    #[must_use]
    pub fn is_removed_at_head(&self, id: MemberId) -> bool {
        self.head.removed.contains(&id)
    }

    /// Whether it is committed that a member belongs to the group.
    #[must_use]
    pub fn is_member(&self, id: MemberId) -> bool {
        self.committed.members.contains_key(&id)
    }

    /// Whether the removal of a member is committed.
    #[must_use]
    pub fn is_removed(&self, id: MemberId) -> bool {
        self.committed.removed.contains(&id)
    }

    /// The committed membership and those that follow it, each with the index of its entry: one is in
    /// force when it is appended (Raft dissertation, section 4.1).
    #[must_use]
    pub fn memberships(&self) -> Vec<(Index, Membership)> {
        let mut copy = self.committed.clone();
        let mut memberships = vec![(copy.membership_index, copy.membership())];
        for (index, change) in &self.pending {
            copy.apply(*index, change);
            if change.is_membership() {
                let newest = (*index, copy.membership());
                match memberships.last_mut() {
                    // One entry may hold several changes.
                    Some(last) if last.0 == *index => *last = newest,
                    _ => memberships.push(newest),
                }
            }
        }
        memberships
    }

    /// Who belongs to the group, at the head.
    #[must_use]
    pub fn membership_at_head(&self) -> Membership {
        self.head.membership()
    }

    /// Whether the head has nothing to learn from how a member introduces itself: it says so already, or the
    /// member does not belong to the group.
    #[must_use]
    pub fn is_introduced(&self, member: &Member) -> bool {
        self.head.members.get(&member.id).is_none_or(|known| {
            known.name == member.name && known.client_urls == member.client_urls
        })
    }

    /// On what linearizable reads rest, as far as that is committed.
    #[must_use]
    pub fn read_mode(&self) -> ReadMode {
        self.committed.read_mode
    }

    /// The committed cluster version, when it is decided.
    #[must_use]
    pub fn version(&self) -> Option<(u32, u32)> {
        self.committed.version
    }

    /// The cluster version at the head.
    #[must_use]
    pub fn version_at_head(&self) -> Option<(u32, u32)> {
        self.head.version
    }

    /// The alarms that are raised and committed.
    #[must_use]
    pub fn alarms(&self) -> Vec<Alarm> {
        self.committed.alarms.iter().copied().collect()
    }

    /// The alarms that are raised at the head, committed or not, of one kind or all.
    #[must_use]
    pub fn alarms_at_head(&self, kind: Option<AlarmKind>) -> Vec<Alarm> {
        let wanted = |alarm: &&Alarm| kind.is_none_or(|kind| alarm.kind == kind);
        self.head.alarms.iter().filter(wanted).copied().collect()
    }

    /// Whether an alarm is raised at the head, committed or not.
    #[must_use]
    pub fn is_raised_at_head(&self, alarm: Alarm) -> bool {
        self.head.alarms.contains(&alarm)
    }

    /// Whether any member's alarm of this kind is in force at the head.
    #[must_use]
    pub fn in_force(&self, kind: AlarmKind) -> bool {
        self.head.alarms.iter().any(|alarm| alarm.kind == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALARM: Alarm = Alarm {
        member: MemberId(1),
        kind: AlarmKind::NoSpace,
    };

    fn member(id: u64) -> Member {
        Member {
            id: MemberId(id),
            ..Member::default()
        }
    }

    fn in_force(state: &ClusterState) -> Vec<u64> {
        let memberships = state.memberships();
        let (_, last) = memberships.last().expect("one is in force");
        last.voters.iter().map(|id| id.0).collect()
    }

    /// Goal: nothing is shown before it is committed, while the voters follow the head.
    #[test]
    fn shown_when_committed() {
        let mut state = ClusterState::default();
        state.fold(Index(1), ClusterChange::MemberAdded(member(1)));
        state.fold(Index(2), ClusterChange::AlarmRaised(ALARM));
        assert_eq!(state.members(), []);
        assert_eq!(in_force(&state), [1]);
        assert!(state.in_force(AlarmKind::NoSpace));
        state.commit(Index(1));
        assert_eq!(state.members(), [member(1)]);
        assert_eq!(state.alarms(), []);
        // An answer that waits for the head tells of the head.
        assert_eq!(state.alarms_at_head(None), [ALARM]);
        assert_eq!(state.alarms_at_head(Some(AlarmKind::Corrupt)), []);
        state.commit(Index(2));
        assert_eq!(state.alarms(), [ALARM]);
    }

    /// Goal: a cut tail leaves no trace.
    #[test]
    fn truncation() {
        let mut state = ClusterState::default();
        state.fold(Index(1), ClusterChange::MemberAdded(member(1)));
        state.commit(Index(1));
        state.fold(Index(2), ClusterChange::Version { major: 3, minor: 7 });
        state.fold(Index(3), ClusterChange::AlarmRaised(ALARM));
        state.truncate(Index(2));
        assert_eq!(state.version_at_head(), Some((3, 7)));
        assert!(!state.in_force(AlarmKind::NoSpace));
        state.truncate(Index(1));
        assert_eq!(state.version_at_head(), None);
        assert_eq!(in_force(&state), [1]);
    }
}
