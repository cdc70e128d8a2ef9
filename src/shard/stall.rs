//! A sync that the disk does not complete, and a segment that it does not prepare.
//!
//! The others commit without this member, hear its heartbeats and follow it: nothing but this would tell anybody.
//! As a leader it would take writes until no more fit in memory, and then none, for as long as the disk hangs. So
//! it hands over, if a majority with better disks is there without it, and says why; when that comes to nothing it
//! leads no longer. A sync without entries (a seal, a new term) counts like any other: the others' disks are judged by
//! what was appended and sent since, and raft knows what they made of that.

use super::Shard;
use super::event::Notice;
use crate::base::{Index, Instant};
use crate::raft::SyncStall;

/// What the disk was asked for last.
#[derive(Debug, Default)]
pub(super) struct SyncWatch {
    under_way: Option<Sync>,
}

/// What it has not completed.
#[derive(Debug)]
struct Sync {
    began: Instant,
    /// When it was found under way last.
    looked: Instant,
    /// Where the log ended then.
    mark: Index,
    /// Whether it was said to be stalled.
    said: bool,
    /// Whether an attempt to hand over was begun since.
    handed_over: bool,
}

impl SyncWatch {
    /// It has done it.
    pub(super) fn end(&mut self) {
        self.under_way = None;
    }
}

impl Shard {
    /// The driver is asked to write and sync.
    pub(super) fn sync_begins(&mut self, now: Instant) {
        self.sync.under_way = Some(Sync {
            began: now,
            looked: now,
            mark: self.raft.last_index(),
            said: false,
            handed_over: false,
        });
    }

    /// The log goes on only with a segment that the driver is still preparing, on the same disk.
    pub(super) fn waits_for_segment(&mut self, now: Instant) {
        if self.sync.under_way.is_none() && !self.log_space_exhausted {
            self.sync_begins(now);
        }
    }

    /// There is no space for it. That is an answer of the disk: for want of space nobody gives way.
    pub(super) fn segment_refused(&mut self) {
        self.log_space_exhausted = true;
        if !self.log.in_flight() {
            self.sync.end();
        }
    }

    /// Looks whether the disk still completes its syncs: half an election timeout is long for one. Followers would wait
    /// as long for a leader that is gone.
    pub(super) fn watch_sync(&mut self, now: Instant) {
        let Some(sync) = &mut self.sync.under_way else {
            return;
        };
        let between_looks = self.settings.election_timeout / 4;
        let since = now.since(sync.looked);
        if since < between_looks {
            return;
        }
        sync.looked = now;
        let mark = std::mem::replace(&mut sync.mark, self.raft.last_index());
        let span = now.since(sync.began);
        // Of a time in which this process itself did not run it cannot judge.
        let is_late = since >= 3 * between_looks;
        if is_late || span < 2 * between_looks || self.raft.transfer_target().is_some() {
            return;
        }
        let again = sync.handed_over;
        let stall = SyncStall {
            span,
            mark,
            is_full: !self.has_room_for_entries(),
            again,
        };
        self.raft.sync_stalled(stall, now, &mut self.outputs);
        let to = self.raft.transfer_target();
        let Some(sync) = &mut self.sync.under_way else {
            return;
        };
        sync.handed_over |= to.is_some();
        let is_news = !std::mem::replace(&mut sync.said, true);
        if is_news || to.is_some() {
            self.notices.push(Notice::SyncStalled { span, to });
        }
    }
}
