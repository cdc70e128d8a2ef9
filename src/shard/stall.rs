//! A sync that the disk does not complete.
//!
//! The others commit without this member, hear its heartbeats and follow it: nothing but this would tell anybody.
//! As a leader it would take writes until no more fit in memory, and then none, for as long as the disk hangs. So
//! it hands over, if anybody with a better disk is there to take over, and says why; when that comes to nothing it leads
//! no longer.

use super::Shard;
use super::event::Notice;
use crate::base::{Index, Instant};

/// The sync under way.
#[derive(Debug, Default)]
pub(super) struct SyncWatch {
    began: Option<Instant>,
    /// Where the log ended then.
    staged: Index,
    /// When it was called stalled last.
    stalled: Option<Instant>,
    /// Whether an attempt to hand over was begun since.
    handed_over: bool,
}

impl SyncWatch {
    /// The driver is asked to write and sync.
    pub(super) fn begin(&mut self, now: Instant, staged: Index) {
        self.began = Some(now);
        self.staged = staged;
    }

    /// It has.
    pub(super) fn end(&mut self) {
        *self = SyncWatch::default();
    }
}

impl Shard {
    /// Looks whether the disk still completes its syncs: half an election timeout is long for one. Followers would wait
    /// as long for a leader that is gone.
    pub(super) fn watch_sync(&mut self, now: Instant) {
        let Some(began) = self.sync.began else {
            return;
        };
        let patience = self.settings.election_timeout;
        let due = match self.sync.stalled {
            None => began + patience / 2,
            // The attempt to hand over has ended, or there was nobody.
            Some(last) => last + patience,
        };
        if now < due {
            return;
        }
        let is_news = self.sync.stalled.is_none();
        self.sync.stalled = Some(now);
        let (again, staged) = (self.sync.handed_over, self.sync.staged);
        self.raft
            .sync_stalled(again, staged, now, &mut self.outputs);
        let to = self.raft.transfer_target();
        self.sync.handed_over |= to.is_some();
        if is_news || to.is_some() {
            let span = now.since(began);
            self.notices.push(Notice::SyncStalled { span, to });
        }
    }
}
