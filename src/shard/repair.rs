//! What is done about damage that a scrub finds in a segment which is not written any more.
//!
//! A segment is never patched: its chain and its salt are of one use. The state is whole in memory, so a
//! checkpoint is taken, and the segments before it are used again. Until then a restart would find the
//! damage: a lone member ends writes with the CORRUPT alarm, and takes it back when nothing damaged is left; a
//! member of a group would be rebuilt by the others, and nobody has to wait.

use super::Shard;
use super::cluster::ClusterChange;
use super::event::{Alarm, AlarmKind};
use crate::wal::SegmentSequence;

/// What is damaged and not repaired yet.
#[derive(Debug, Default)]
pub(super) struct Repair {
    /// The alarm is to be raised.
    to_raise: bool,
    /// It was raised for damage, by this process.
    raised: bool,
    /// What is damaged lies before this segment.
    damaged_before: Option<SegmentSequence>,
    /// The log must get shorter, whatever it holds.
    wants_checkpoint: bool,
}

impl Repair {
    /// Whether a checkpoint must be taken though none is due.
    pub(super) fn wants_checkpoint(&self) -> bool {
        self.wants_checkpoint
    }

    /// One was begun.
    pub(super) fn checkpoint_begun(&mut self) {
        self.wants_checkpoint = false;
    }
}

impl Shard {
    /// A segment does not hold what was written. Said at each scrub, so a checkpoint that came too early, or
    /// failed, is followed by another one.
    pub(super) fn damage_found(&mut self) {
        let last = self.log.sealed_segments().last().copied();
        self.repair.damaged_before = last.map(|segment| segment.summary.sequence.next());
        self.repair.wants_checkpoint = last.is_some();
        self.repair.to_raise = !self.has_peers;
    }

    /// Raises the alarm, and takes it back when its reason is gone. Not in the middle of a fold: the next entry
    /// follows when that is complete.
    pub(super) fn repair_log(&mut self) {
        let idle = !self.repair.to_raise && self.repair.damaged_before.is_none();
        if idle || self.job.is_some() || self.raft.next_position().is_none() {
            return;
        }
        let alarm = Alarm {
            member: self.settings.identity.member,
            kind: AlarmKind::Corrupt,
        };
        let is_raised = self.cluster.is_raised_at_head(alarm);
        if std::mem::take(&mut self.repair.to_raise) && !is_raised {
            // Without room for the alarm the log line of the scrub stands alone.
            let raised = self.append_cluster_change(ClusterChange::AlarmRaised(alarm));
            self.repair.raised = raised.is_ok();
            return;
        }
        let repaired = |before: SegmentSequence| {
            let oldest = self.log.sealed_segments().first().copied();
            oldest.is_none_or(|oldest| oldest.summary.sequence >= before)
        };
        if !self.repair.damaged_before.is_some_and(repaired) {
            return;
        }
        if self.repair.raised && is_raised {
            let cleared = self.append_cluster_change(ClusterChange::AlarmCleared(alarm));
            // Without room now, with the next event.
            if cleared.is_err() {
                return;
            }
        }
        self.repair = Repair::default();
    }
}
