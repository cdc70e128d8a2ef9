//! What a shard shows of itself: to its driver, which paces it by that, to clients, and to checks from outside.
//! Changes nothing.

use super::Shard;
use super::cluster::ClusterState;
use super::event::{Member, Status};
use crate::base::Instant;
use crate::keyspace::Keyspace;
use crate::raft::{Raft, Role};
use crate::wal::Appender;

impl Shard {
    /// Whether [`Event::Continue`](super::event::Event::Continue) would get something done.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.has_job()
            || self.folder.has_work()
            || (!self.writes.is_empty() && self.may_evaluate())
            || self.reads.has_work()
            || self.reclaiming
            || self.checkpoints.has_work()
    }

    /// Whether the last commit is durable and nothing on disk says so yet: a seal is due after about a
    /// millisecond of idleness.
    #[must_use]
    pub fn needs_seal(&self) -> bool {
        self.log.needs_seal()
    }

    /// Whether everything that was taken is answered, and durable and sealed as far as the disk has
    /// room: what waits for a segment that cannot be made was never acknowledged.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.is_answered() && self.is_at_rest()
    }

    fn is_answered(&self) -> bool {
        self.writes.is_empty()
            && self.job.is_none()
            && self.forwards.is_empty()
            && self.member_requests.is_empty()
            && self.reads.is_empty()
            && self.waiters.is_empty()
    }

    /// Whether everything that was appended is durable and sealed, as far as the disk has room.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        let stuck = self.log_space_exhausted && self.spare.is_none();
        let at_rest = stuck || !(self.log.has_work() || self.log.needs_seal());
        at_rest && !self.log.in_flight()
    }

    /// Requests that are being worked on or waited for.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.log.in_flight() || !self.is_answered() || self.has_work()
    }

    /// Whether requests can be answered: this member leads and has committed an entry of its term, or it
    /// knows who leads.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        match self.raft.role() {
            Role::Leader => self.raft.has_committed_in_term(),
            _ => self.raft.leader().is_some(),
        }
    }

    /// When [`Event::Tick`](super::event::Event::Tick) must come at the latest; `None` for whenever it comes.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.raft.next_deadline()
    }

    /// Consensus, for checks from outside.
    #[must_use]
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// Whether leadership is on its way to another member, which may need this one's vote yet.
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        self.raft.transfer_target().is_some() || self.raft.waits_for_successor()
    }

    /// Whether this member leads others and hands over to none of them.
    #[must_use]
    pub fn may_hand_over(&self) -> bool {
        self.has_peers && self.raft.role() == Role::Leader && !self.is_handing_over()
    }

    /// The members of the group, by id, as far as this log goes.
    #[must_use]
    pub fn members_at_head(&self) -> Vec<Member> {
        let members: Vec<Member> = self.cluster.members_at_head().cloned().collect();
        // A log that was lost as a whole tells nothing yet; then the first members may know more.
        if members.is_empty() {
            return self.settings.initial_members.clone();
        }
        members
    }

    /// Another number whenever they, or where they are, may have changed.
    #[must_use]
    pub fn membership_changes(&self) -> u64 {
        self.cluster.head_changes()
    }

    /// This member's own view.
    #[must_use]
    pub fn status(&self) -> Status {
        let size = i64::try_from(self.keyspace.size_bytes()).unwrap_or(i64::MAX);
        let quota = self
            .settings
            .quota_bytes
            .map_or(i64::MAX, |quota| i64::try_from(quota).unwrap_or(i64::MAX));
        Status {
            db_size_bytes: size,
            db_size_in_use_bytes: size,
            db_size_quota_bytes: quota,
            leader: self.raft.leader().unwrap_or_default(),
            raft_index: self.raft.commit().0,
            raft_term: self.raft.term().0,
            raft_applied_index: self.keyspace.committed_index().0,
            alarms: self.cluster.alarms(),
            is_learner: self.raft.role() == Role::Learner,
        }
    }

    /// The committed keyspace, for checks from outside.
    #[must_use]
    pub fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// Members, alarms and version, for checks from outside.
    #[must_use]
    pub fn cluster(&self) -> &ClusterState {
        &self.cluster
    }

    /// The log's end, for checks from outside.
    #[must_use]
    pub fn log(&self) -> &Appender {
        &self.log
    }
}
