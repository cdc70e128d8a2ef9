//! What consensus asks for, done: entries appended and cut, leadership taken and given up, commits.
//!
//! Raft decides and names; here the log, the keyspace and those who wait follow, in the order in which
//! raft asks. What raft sends goes through `peers`.

use std::collections::VecDeque;

use bytes::Bytes;

use super::cluster::ClusterChange;
use super::entry::{ClusterEffect, EntryBody};
use super::event::{EndReason, KnownMembers, Notice, PeerMessage, Refusal};
use super::replay::Entry;
use super::{Shard, Waiter};
use crate::base::limits::SHARD_REFUSED_PEERS_MAX;
use crate::base::{Index, MemberId};
use crate::frame::Record;
use crate::raft::{Change, Output, StateDigest};
use crate::wal::{StageError, Staged};

/// An entry that came from the leader, checked, and its record.
pub(super) struct Incoming {
    pub(super) entry: Entry,
    pub(super) record: Bytes,
}

impl Shard {
    /// Does what consensus asks for until it asks for nothing more. `incoming` are the entries of the message
    /// that is being handled, in order.
    pub(super) fn follow_raft(&mut self, mut incoming: VecDeque<Incoming>) {
        while !self.outputs.is_empty() {
            for output in std::mem::take(&mut self.outputs) {
                match output {
                    // Every commit of the log carries it.
                    Output::PersistHardState(_) => {}
                    Output::Send { to, message } => self.send_raft(to, message),
                    Output::TruncateLog { after } => self.truncate(after),
                    Output::AppendEntries { first, last } => {
                        self.append_incoming(&mut incoming, first, last);
                    }
                    Output::Committed(index) => self.commit(index),
                    Output::BecameLeader { .. } => self.lead(),
                    Output::SteppedDown(why) => {
                        self.notices.push(Notice::SteppedDown(why));
                        self.step_down();
                    }
                    Output::ReadReady { round, index } => self.reads.round_ended(round, index),
                    Output::CompareDigest(digest) => self.compare = Some(digest),
                    Output::LearnIncarnation {
                        member,
                        incarnation,
                    } => {
                        self.known.incarnations.insert(member, incarnation);
                        self.store_known_members = true;
                    }
                    Output::ForgetIncarnation { member } => {
                        self.known.incarnations.remove(&member);
                        self.store_known_members = true;
                    }
                    Output::IdentityConfirmed => {
                        self.known.confirmed = true;
                        self.store_known_members = true;
                    }
                    Output::FollowerForgot {
                        member,
                        acknowledged,
                    } => self.notices.push(Notice::FollowerForgot {
                        member,
                        acknowledged,
                    }),
                    Output::OwnIdentityRefused => self.end = Some(EndReason::OtherDirectory),
                    Output::Removed => self.end = Some(EndReason::Removed),
                    Output::MembershipChanged(membership) => {
                        self.has_peers = has_others(self.raft.id(), membership.members());
                    }
                    Output::TransferAbandoned { to } => self.move_abandoned(to),
                    Output::LeaderChanged(_) => self.forwards.leader_changed(),
                    Output::RefusedPeer {
                        member,
                        incarnation,
                        why,
                    } => {
                        // Each of its messages is refused. Invented ids must not fill memory, nor the log.
                        if self.refused_peers.len() < SHARD_REFUSED_PEERS_MAX
                            && self.refused_peers.insert(member)
                        {
                            self.notices.push(Notice::RefusedPeer {
                                member,
                                incarnation,
                                why,
                            });
                        }
                    }
                    Output::NeedsCheckpoint { to } => {
                        self.sending.forget(to);
                        self.transfers.needs(to, self.checkpoints.last_index());
                    }
                    Output::Rebuilt => {
                        self.known.rebuild = None;
                        self.store_known_members = true;
                    }
                    Output::ResetLog { base } => self.begin_anew(base),
                }
            }
            self.log.set_hard_state(self.raft.hard_state());
        }
    }

    /// The first entries of a term: the no-op that commits what came before, and what this member has
    /// to say about itself.
    fn lead(&mut self) {
        let appended = self.append(&EntryBody::Noop, None);
        let (index, _) = appended.expect("the log has room for an election's entries");
        self.folder.push_nothing(index);
        let member = self.settings.member.clone();
        self.introduce(&member)
            .expect("the log has room for a member's attributes");
        if self
            .cluster
            .version_at_head()
            .is_none_or(|version| version < self.settings.version)
        {
            let (major, minor) = self.settings.version;
            let change = ClusterChange::Version { major, minor };
            self.append_cluster_change(change)
                .expect("the log has room for a version");
        }
    }

    /// A member says its name and where its clients reach it, unless that is known.
    pub(super) fn introduce(&mut self, member: &super::Member) -> Result<(), Refusal> {
        if self.cluster.is_introduced(member) {
            return Ok(());
        }
        let change = ClusterChange::MemberAttributes {
            id: member.id,
            name: member.name.clone(),
            client_urls: member.client_urls.clone(),
        };
        self.append_cluster_change(change).map(drop)
    }

    /// What a leader or follower does from time to time beside consensus: makes itself known, lets the group
    /// agree on directories, and shows its state for comparison.
    pub(super) fn tick_membership(&mut self) {
        let committed = self.keyspace.committed_index();
        if let Some(digest) = self.keyspace.digest(committed) {
            self.raft.set_digest(StateDigest {
                index: committed,
                digest: digest.0,
            });
        }
        let alone = self.raft.membership().members().count() == 1;
        if self.raft.next_position().is_some() {
            if !alone
                && let Some((id, incarnation)) = self.raft.unrecorded_incarnation()
                && self
                    .raft
                    .check_change(&Change::Incarnation(id, incarnation))
                    .is_ok()
            {
                // Without room now, with the next tick.
                let change = ClusterChange::MemberIncarnation { id, incarnation };
                let _appended = self.append_cluster_change(change);
            }
        } else if let Some(leader) = self.raft.leader()
            && leader != self.raft.id()
        {
            let own = &self.settings.member;
            if self.is_settled() && !self.cluster.is_introduced(own) {
                let introduction = PeerMessage::Introduce(own.clone());
                self.messages.push((leader, introduction));
            }
        }
    }

    /// Whether it is committed that this member belongs to the group, and on its own disk: it will be able to
    /// vote after a restart. Who has a name counts as started.
    fn is_settled(&self) -> bool {
        let settled = self.keyspace.committed_index() <= self.log.durable_index();
        settled && self.cluster.is_member(self.raft.id())
    }

    pub(super) fn commit(&mut self, index: Index) {
        self.keyspace.commit(index);
        self.cluster.commit(index);
    }

    /// Puts an entry at the end of the log. The caller folds it. `change` is what it means to consensus.
    pub(super) fn append(
        &mut self,
        body: &EntryBody,
        change: Option<&Change>,
    ) -> Result<(Index, Staged), Refusal> {
        let (term, index) = self.raft.next_position().ok_or(Refusal::NoLeader)?;
        let staged = self
            .log
            .stage_entry(term, index, body)
            .map_err(|error| match error {
                StageError::Full { .. } => Refusal::TooManyRequests,
                StageError::Encode(_) => Refusal::TooLarge,
            })?;
        let size_bytes = staged.range.len() as u64;
        if self.has_peers {
            let record = self.log.staged_record(&staged).expect("it was just staged");
            self.recent.push(index, record);
        }
        let appended = match change {
            Some(change) => self
                .raft
                .append_change(change, size_bytes, &mut self.outputs),
            None => self.raft.append(size_bytes),
        };
        assert_eq!(
            appended,
            (term, index),
            "raft and log disagree about the next entry"
        );
        Ok((index, staged))
    }

    pub(super) fn append_cluster_change(
        &mut self,
        change: ClusterChange,
    ) -> Result<Index, Refusal> {
        let body = EntryBody::Cluster(vec![ClusterEffect::from(&change)]);
        let (index, _) = self.append(&body, change.raft_change().as_ref())?;
        self.cluster.fold(index, change);
        self.folder.push_nothing(index);
        Ok(index)
    }

    /// Takes the leader's entries from `first` to `last` as they are.
    fn append_incoming(&mut self, incoming: &mut VecDeque<Incoming>, first: Index, last: Index) {
        while incoming
            .pop_front_if(|incoming| incoming.entry.header.index < first)
            .is_some()
        {}
        let mut next = first;
        while next <= last {
            let Incoming { entry, record } = incoming
                .pop_front()
                .filter(|incoming| incoming.entry.header.index == next)
                .expect("the message was checked to hold the entries it names");
            self.log
                .stage_record(&Record::parsed(entry.header, &record))
                .expect("there was room when the message came in");
            self.recent.push(next, &record);
            let changes_membership = entry.changes.iter().any(ClusterChange::is_membership);
            for change in entry.changes {
                self.cluster.fold(next, change);
            }
            if changes_membership {
                let membership = self.cluster.membership_at_head();
                self.raft
                    .membership_appended(next, membership, &mut self.outputs);
            }
            self.folder.push(next, entry.body);
            next = next.next();
        }
    }

    /// The log ends after `after` now: nothing of what followed has happened here.
    fn truncate(&mut self, after: Index) {
        self.log
            .stage_truncate(self.raft.term(), after)
            .expect("there was room when the message came in");
        self.recent.truncate(after);
        self.cluster.truncate(after);
        self.folder.truncate(&mut self.keyspace, after);
        self.truncate_evaluation(after);
        let mut gone = Vec::new();
        self.waiters.truncate(after, |waiter| gone.push(waiter));
        // Nobody knows what becomes of them: this member may forget the cut in a crash, or another one may hold
        // the same entry, be elected, and commit it.
        for waiter in gone {
            self.refuse(waiter.asker, Refusal::TimedOut);
        }
    }

    /// This member leads no longer. What it had evaluated without an entry cannot be confirmed any more; what has
    /// an entry may still be committed.
    fn step_down(&mut self) {
        self.abandon_evaluation();
        self.give_back_changes();
        self.sending.clear();
        self.transfers.clear();
        let mut gone = Vec::new();
        self.waiters.step_down(|waiter| gone.push(waiter));
        self.refuse_all(gone);
    }

    fn refuse_all(&mut self, waiters: Vec<Waiter>) {
        for waiter in waiters {
            self.refuse(waiter.asker, Refusal::LeaderChanged);
        }
    }

    /// Compares this member's state with the leader's, when it has come as far.
    pub(super) fn compare_digest(&mut self) {
        let Some(theirs) = self.compare else {
            return;
        };
        if self.keyspace.committed_index() < theirs.index {
            return;
        }
        self.compare = None;
        // One that is not kept any more is compared at a later index.
        if let Some(ours) = self.keyspace.digest(theirs.index)
            && ours.0 != theirs.digest
        {
            self.end = Some(EndReason::Diverged(theirs.index));
        }
    }

    /// What the driver has stored: from now on these members are heard.
    pub(super) fn known_members_stored(&mut self, stored: &KnownMembers) {
        self.storing_known_members = false;
        for (&member, &incarnation) in &stored.incarnations {
            self.raft.incarnation_durable(member, incarnation);
        }
    }
}

/// Whether a membership of these members has anybody but `own`.
pub(super) fn has_others(own: MemberId, mut members: impl Iterator<Item = MemberId>) -> bool {
    members.any(|member| member != own)
}
