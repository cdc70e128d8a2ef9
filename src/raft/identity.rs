//! Whose word is heard: a member id belongs to one data directory. Another directory under the same id
//! may have forgotten votes and acknowledgements, so nobody listens to it.
//!
//! ```text
//! empty directory           peers
//! IdentityQuestion -------> store its incarnation durably, unless they know another one
//!     counts only after <-- IdentityConfirmed, from a majority
//!      stops <------------- IdentityRefused, from anybody
//! ```
//!
//! Before that it neither votes nor is counted among those that have an entry or follow a leader. An entry
//! that says which directory it is takes the place of those answers when it is committed: an entry that is only
//! appended may come from a leader of the past that never met the directory before.
//!
//! Who is no member by this log may be one that the log does not know yet, or knows no more, and even the leader. Its
//! directory is stored and confirmed like that of a member: where the vote of a new member is needed to elect
//! anybody, the entry that adds it comes too late. But invented ids must fill neither disk nor memory: above a bound
//! somebody new is a *stranger*, heard, because entries may come from nobody else, and confirmed to nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Raft;
use super::message::{Body, Message, Voters};
use super::quorum::majority_size;
use super::types::{Output, PeerRefusal, Role};
use crate::base::limits::{RAFT_MEMBERS_MAX, RAFT_STRANGERS_MAX};
use crate::base::planted::{Defect, Planted};
use crate::base::{Incarnation, Instant, MemberId, Term};

/// What this member knows about directories, its own and others'.
#[derive(Debug)]
pub(super) struct Identity {
    /// Whether this member's own directory may vote.
    confirmed: bool,
    confirmed_by: BTreeSet<MemberId>,
    /// Stored durably here. It goes when the removal of the member is committed, and not before: an entry that added it
    /// and was cut off may have been in force elsewhere.
    known: BTreeMap<MemberId, Incarnation>,
    /// Being stored.
    storing: BTreeMap<MemberId, Incarnation>,
    /// Members of whom an entry in force here names another directory than the one that the group is said to have agreed
    /// on. No leader that has agreed on one appends another, so that entry can only be cut off.
    overruled: BTreeSet<MemberId>,
    /// Counts what may change whom connections let in, of these three.
    changes: u64,
    /// Of those who have no place there. Who was not heard for longest makes way.
    strangers: BTreeMap<MemberId, Stranger>,
    /// The newest leader that was heard from another directory than the one that is stored, and its term.
    followed: Option<(Term, MemberId, Incarnation)>,
    /// The newest membership that somebody has told, with this member among its voters.
    told: Voters,
    ask_due: Instant,
    pub(super) planted: Planted,
}

impl Identity {
    pub(super) fn new(confirmed: bool, known: BTreeMap<MemberId, Incarnation>) -> Identity {
        Identity {
            confirmed,
            confirmed_by: BTreeSet::new(),
            known,
            storing: BTreeMap::new(),
            overruled: BTreeSet::new(),
            changes: 0,
            strangers: BTreeMap::new(),
            followed: None,
            told: Voters::default(),
            ask_due: Instant(0),
            planted: Planted::NOTHING,
        }
    }

    pub(super) fn is_confirmed(&self) -> bool {
        self.confirmed || self.planted.has(Defect::WipedDirectoryVotes)
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn known(&self, id: MemberId) -> Option<Incarnation> {
        self.known.get(&id).copied()
    }

    /// All that is stored, or is being stored.
    pub(super) fn stored(&self) -> BTreeMap<MemberId, Incarnation> {
        let mut stored = self.storing.clone();
        stored.extend(&self.known);
        stored
    }

    /// Of one member.
    pub(super) fn stored_directory(&self, id: MemberId) -> Option<Incarnation> {
        self.known(id).or_else(|| self.storing.get(&id).copied())
    }

    /// A stranger said something. Its first directory stays, as long as it is remembered.
    fn hear_stranger(&mut self, member: MemberId, incarnation: Incarnation, now: Instant) {
        if self.strangers.len() >= RAFT_STRANGERS_MAX && !self.strangers.contains_key(&member) {
            let silent = self
                .strangers
                .iter()
                .min_by_key(|(_, stranger)| stranger.heard);
            if let Some(silent) = silent.map(|(&id, _)| id) {
                self.strangers.remove(&silent);
            }
        }
        let stranger = Stranger {
            incarnation,
            heard: now,
        };
        self.strangers.entry(member).or_insert(stranger).heard = now;
    }
}

/// Somebody whose directory is not stored.
#[derive(Clone, Copy, Debug)]
struct Stranger {
    incarnation: Incarnation,
    /// When it was heard last.
    heard: Instant,
}

/// Whether only a leader says such a thing.
fn is_of_leader(message: &Message) -> bool {
    matches!(message.body, Body::Append(_) | Body::Heartbeat(_))
}

/// How far the others have confirmed this member's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// Members that have.
    pub confirmed: usize,
    /// Members that must.
    pub needed: usize,
    /// The voters that have not.
    pub missing: Vec<MemberId>,
}

impl Raft {
    /// What this member waits for before it votes; `None` when its directory is confirmed.
    #[must_use]
    pub fn confirmation(&self) -> Option<Confirmation> {
        if self.identity.confirmed {
            return None;
        }
        let (missing, confirmed): (Vec<_>, Vec<_>) = self
            .other_voters()
            .into_iter()
            .partition(|id| !self.identity.confirmed_by.contains(id));
        Some(Confirmation {
            confirmed: confirmed.len(),
            needed: self.confirmations_needed(),
            missing,
        })
    }

    /// What [`Output::LearnIncarnation`] asked for is on disk: from now on this member is heard.
    pub fn incarnation_durable(&mut self, member: MemberId, incarnation: Incarnation) {
        // The member may have been removed meanwhile, or another directory be the right one.
        if self.identity.storing.get(&member) == Some(&incarnation) {
            self.identity.storing.remove(&member);
            self.identity.known.insert(member, incarnation);
        }
    }

    /// The directory that whoever speaks for a member id must come from: as the group has agreed, or else as is stored
    /// here, or, of a stranger, as it was heard first. `None` for one that is not heard yet.
    #[must_use]
    pub fn directory_of(&self, member: MemberId) -> Option<Incarnation> {
        self.settled_directory(member).or_else(|| {
            let stranger = self.identity.strangers.get(&member);
            let stranger = stranger.filter(|_| !self.has_place(member));
            stranger.map(|stranger| stranger.incarnation)
        })
    }

    /// The same, as far as it outlives this process.
    pub(super) fn settled_directory(&self, member: MemberId) -> Option<Incarnation> {
        self.named_directory(member)
            .or_else(|| self.identity.known(member))
    }

    /// The directory that an entry in force names, if it is not known that this entry can only be cut off.
    pub(super) fn named_directory(&self, member: MemberId) -> Option<Incarnation> {
        let named = self.membership().incarnations.get(&member).copied();
        let agreed = self.agreed_incarnation(member);
        agreed.or_else(|| named.filter(|_| !self.identity.overruled.contains(&member)))
    }

    /// The directory of a member that the group has agreed on for good: that entry is committed.
    pub(super) fn agreed_incarnation(&self, member: MemberId) -> Option<Incarnation> {
        let committed = self.memberships.committed(self.hard_state.commit);
        committed.incarnations.get(&member).copied()
    }

    /// Whether this message is heard.
    pub(super) fn admit(
        &mut self,
        from: MemberId,
        message: &Message,
        outputs: &mut Vec<Output>,
    ) -> bool {
        if from == self.id {
            return false;
        }
        let incarnation = message.incarnation;
        if self.is_removed(from) {
            self.refuse_peer(from, incarnation, PeerRefusal::Removed, outputs);
            if message.body != Body::Removed {
                self.send(from, Body::Removed, outputs);
            }
            return false;
        }
        match self.directory_of(from) {
            Some(known) if known == incarnation => {
                if self.settled_directory(from).is_none() {
                    self.identity.hear_stranger(from, incarnation, self.now);
                }
                true
            }
            Some(_) if self.planted.has(Defect::WipedDirectoryVotes) => true,
            // Whoever leads was elected by a majority that knows its directory. What is stored here may be one that
            // was lost before the group had agreed on any, and the entry that says so comes from that leader.
            Some(_) if is_of_leader(message) && self.agreed_incarnation(from).is_none() => {
                if message.term >= self.hard_state.term && !self.cannot_be(from, message) {
                    self.identity.followed = Some((message.term, from, incarnation));
                }
                true
            }
            Some(known) => {
                let why = PeerRefusal::OtherIncarnation { known };
                self.refuse_peer(from, incarnation, why, outputs);
                if message.body == Body::IdentityQuestion {
                    self.send(from, Body::IdentityRefused { incarnation }, outputs);
                }
                false
            }
            None if self.has_place(from) => {
                self.learn(from, incarnation, outputs);
                false
            }
            None => {
                self.identity.hear_stranger(from, incarnation, self.now);
                true
            }
        }
    }

    /// Whether this is the leader of the present term, heard from a directory other than the one that is stored.
    pub(super) fn follows(&self, member: MemberId, incarnation: Incarnation) -> bool {
        let followed = (self.hard_state.term, member, incarnation);
        self.identity.followed == Some(followed) && self.agreed_incarnation(member).is_none()
    }

    /// Whether it is stored which directory this one has: of a member by this log always, of others up to a bound. What
    /// is stored of them cannot make way for more: it was confirmed.
    fn has_place(&self, id: MemberId) -> bool {
        let members = self.membership();
        let identity = &self.identity;
        let stored = identity.known.keys().chain(identity.storing.keys());
        members.contains(id)
            || stored.filter(|id| !members.contains(**id)).count() < RAFT_STRANGERS_MAX
    }

    /// Whether the entry that removes this member is committed.
    fn is_removed(&self, member: MemberId) -> bool {
        let committed = self.memberships.committed(self.hard_state.commit);
        committed.removed.contains(&member)
    }

    pub(super) fn refuse_peer(
        &self,
        member: MemberId,
        incarnation: Incarnation,
        why: PeerRefusal,
        outputs: &mut Vec<Output>,
    ) {
        outputs.push(Output::RefusedPeer {
            member,
            incarnation,
            why,
        });
    }

    /// Nobody with a place is heard before it is stored durably who it is; the first directory that is stored stays.
    fn learn(&mut self, member: MemberId, incarnation: Incarnation, outputs: &mut Vec<Output>) {
        let identity = &mut self.identity;
        if identity.storing.contains_key(&member) {
            return;
        }
        let before = identity.strangers.remove(&member);
        let incarnation = before.map_or(incarnation, |stranger| stranger.incarnation);
        identity.storing.insert(member, incarnation);
        identity.changes += 1;
        outputs.push(Output::LearnIncarnation {
            member,
            incarnation,
        });
    }

    /// Who was removed is refused for that: from which directory it came matters no more.
    pub(super) fn forget_removed(&mut self, outputs: &mut Vec<Output>) {
        let removed = &self.memberships.committed(self.hard_state.commit).removed;
        let identity = &mut self.identity;
        identity.strangers.retain(|id, _| !removed.contains(id));
        identity.overruled.retain(|id| !removed.contains(id));
        identity.changes += 1;
        let storing = identity
            .storing
            .extract_if(.., |id, _| removed.contains(id));
        let known = identity.known.extract_if(.., |id, _| removed.contains(id));
        for (member, _) in storing.chain(known) {
            outputs.push(Output::ForgetIncarnation { member });
        }
    }

    /// An empty directory asks all voters and whoever else speaks to it, until enough have answered. One that joins a
    /// group knows no voter at first, or, by a checkpoint or entries from before it was added, voters of the past: who
    /// speaks to it names the others. So it has a vote before it has the entry that adds it, and a group that has lost
    /// its leader since then is not stuck for want of that vote.
    pub(super) fn ask_for_confirmation(&mut self, outputs: &mut Vec<Output>) {
        if self.identity.confirmed {
            return self.ask_for_signs_of_life(outputs);
        }
        if self.now < self.identity.ask_due {
            return;
        }
        if self.is_own_agreed() {
            self.confirm(outputs);
            return;
        }
        self.identity.ask_due = self.now + self.heartbeat_interval;
        let identity = &self.identity;
        let heard = identity.known.keys().chain(identity.strangers.keys());
        // By now the voters that it knows may all have been removed, and somebody who speaks to it lacks its vote.
        let voters = self.other_voters();
        let asked: BTreeSet<MemberId> = voters.into_iter().chain(heard.copied()).collect();
        for to in asked {
            self.send(to, Body::IdentityQuestion, outputs);
        }
        self.count_confirmations(outputs);
    }

    /// A member whose own directory is not in question asks whom it has to hear, and does not hear unasked.
    fn ask_for_signs_of_life(&mut self, outputs: &mut Vec<Output>) {
        if self.now < self.identity.ask_due {
            return;
        }
        let asked = if self.is_forgotten() || self.may_know_lost_directory() {
            self.other_voters()
        } else {
            self.unheard_voters()
        };
        if !asked.is_empty() {
            self.identity.ask_due = self.now + self.election_timeout;
        }
        for to in asked {
            self.send(to, Body::IdentityQuestion, outputs);
        }
    }

    /// Whether this member never campaigns and has heard no leader for long: perhaps it was removed, and who told
    /// it so was not heard.
    fn is_forgotten(&self) -> bool {
        let asks_for_votes = self.role() != Role::Learner && !self.is_rebuilding();
        !asks_for_votes && self.lacks_leader_for_long()
    }

    /// Whether nobody may be elected because this member does not hear who can be: what it stored of a voter, or what an
    /// entry says that is not committed, may be a directory that was lost before the group has agreed on another one. A
    /// leader would have sent the entry that says so; without one, a voter can tell, if any knows that entry to be
    /// committed.
    fn may_know_lost_directory(&self) -> bool {
        let is_beyond_doubt = |&id: &MemberId| {
            self.settled_directory(id).is_none() || self.agreed_incarnation(id).is_some()
        };
        self.lacks_leader_for_long() && !self.other_voters().iter().all(is_beyond_doubt)
    }

    fn lacks_leader_for_long(&self) -> bool {
        let heard = self.election.heard.max(self.started);
        let silence = heard.map_or(Duration::ZERO, |at| self.now.since(at));
        self.role != Role::Leader && silence > 2 * self.election_timeout
    }

    /// The voters, by this member's log or by what others have told since.
    fn voters_known(&self) -> Vec<MemberId> {
        let told = &self.identity.told;
        if !told.ids.is_empty() && told.changed_at > self.memberships.index() {
            return told.ids.clone();
        }
        self.membership().voters.iter().copied().collect()
    }

    fn other_voters(&self) -> Vec<MemberId> {
        let own = self.id;
        let voters = self.voters_known();
        voters.into_iter().filter(|&id| id != own).collect()
    }

    /// Only who comes from the directory that the membership in force or the disk here names gets this far.
    pub(super) fn on_identity_question(
        &mut self,
        from: MemberId,
        incarnation: Incarnation,
        outputs: &mut Vec<Output>,
    ) {
        // An entry that may still be cut off is no reason to confirm it: this must be remembered.
        let known = self.agreed_incarnation(from);
        match known.or_else(|| self.identity.known(from)) {
            Some(known) if known == incarnation => {}
            // It asks again.
            None if self.has_place(from) => {
                return self.learn(from, incarnation, outputs);
            }
            Some(_) | None => return,
        }
        let committed = self.memberships.committed(self.hard_state.commit);
        let agreed = committed.incarnations.iter();
        let voters = Voters {
            changed_at: self.memberships.index(),
            ids: self.membership().voters.iter().copied().collect(),
            agreed: agreed.map(|(&id, &of)| (id, of)).collect(),
        };
        let confirmed = Body::IdentityConfirmed {
            incarnation,
            voters,
        };
        self.send(from, confirmed, outputs);
    }

    pub(super) fn on_identity_confirmed(
        &mut self,
        from: MemberId,
        incarnation: Incarnation,
        voters: Voters,
        outputs: &mut Vec<Output>,
    ) {
        if incarnation != self.incarnation {
            return;
        }
        if self.may_correct(from) && voters.agreed.len() <= RAFT_MEMBERS_MAX {
            self.correct_directories(&voters.agreed, outputs);
        }
        if self.identity.confirmed {
            return;
        }
        let newer = voters.changed_at > self.identity.told.changed_at;
        let sound = voters.ids.len() <= RAFT_MEMBERS_MAX && voters.ids.contains(&self.id);
        if newer && sound {
            let agreed = Vec::new();
            self.identity.told = Voters { agreed, ..voters };
        }
        self.note_confirmation(from);
        self.count_confirmations(outputs);
    }

    /// Whether this one's word on directories counts: that of a member, and not of whoever made up an id. Who knows no
    /// voter so far cannot tell the two apart, and has only met by chance whom it knows. A leader's own log says it all.
    fn may_correct(&self, teller: MemberId) -> bool {
        let membership = self.membership();
        let is_member = membership.contains(teller) || membership.voters.is_empty();
        is_member && self.role != Role::Leader
    }

    /// What this member stored of another one first may be a directory that was lost before anybody agreed on it: it met
    /// that one by chance. What the group has agreed on for good takes its place. This member may have confirmed the lost
    /// one, and even have voted for it: why that does no harm is said at
    /// [`Directories::admit`](super::Directories::admit).
    fn correct_directories(
        &mut self,
        agreed: &[(MemberId, Incarnation)],
        outputs: &mut Vec<Output>,
    ) {
        for &(member, incarnation) in agreed {
            if self.agreed_incarnation(member).is_some() {
                continue;
            }
            let named = self.named_directory(member);
            let stored = self.identity.stored_directory(member);
            let is_other = |of: Option<Incarnation>| of.is_some_and(|of| of != incarnation);
            let identity = &mut self.identity;
            identity.changes += 1;
            if is_other(named) {
                identity.overruled.insert(member);
            }
            if is_other(stored) || (is_other(named) && stored.is_none()) {
                identity.known.remove(&member);
                identity.confirmed_by.remove(&member);
                identity.storing.insert(member, incarnation);
                outputs.push(Output::LearnIncarnation {
                    member,
                    incarnation,
                });
            }
        }
    }

    /// Only voters count, and who is none now is asked again when it is one. While no voter is known, the first to
    /// answer are remembered.
    fn note_confirmation(&mut self, from: MemberId) {
        let voters = self.voters_known();
        let confirmed_by = &mut self.identity.confirmed_by;
        if !voters.is_empty() {
            confirmed_by.retain(|id| voters.contains(id));
        }
        let counts = voters.is_empty() || voters.contains(&from);
        if counts && confirmed_by.len() < RAFT_MEMBERS_MAX {
            confirmed_by.insert(from);
        }
    }

    pub(super) fn on_identity_refused(
        &mut self,
        incarnation: Incarnation,
        outputs: &mut Vec<Output>,
    ) {
        // Who refuses may not have the entry yet that says that it is this one.
        if incarnation == self.incarnation && !self.is_own_named() {
            self.silence(Output::OwnIdentityRefused, outputs);
        }
    }

    /// Whether this member's log says that the group agrees on its directory. Whether that is committed is not known
    /// for long after a start where nothing is written, and those who refuse may be the only ones that it hears. Going
    /// on grants nothing; and who refuses says so again if that entry is cut off.
    fn is_own_named(&self) -> bool {
        let in_force = &self.membership().incarnations;
        self.is_own_agreed() || in_force.get(&self.id) == Some(&self.incarnation)
    }

    /// Enough others have answered that at least one of them would know the majority that an earlier
    /// directory of this member was part of. This member itself does not count: it knows nothing.
    fn count_confirmations(&mut self, outputs: &mut Vec<Output>) {
        if self.voters_known().is_empty() {
            return;
        }
        let others = self.other_voters();
        let needed = self.confirmations_needed();
        let confirmed = others
            .iter()
            .filter(|id| self.identity.confirmed_by.contains(id))
            .count();
        if confirmed >= needed {
            self.confirm(outputs);
        }
    }

    fn confirmations_needed(&self) -> usize {
        majority_size(self.voters_known().len()).min(self.other_voters().len())
    }

    fn confirm(&mut self, outputs: &mut Vec<Output>) {
        self.identity.confirmed = true;
        outputs.push(Output::IdentityConfirmed);
    }
}
