//! When a checkpoint is taken, what it holds beside the keys, and which part of the log it makes needless.
//!
//! One at a time, in slices of what writes and reads leave of a turn. The order of the steps is what
//! makes a crash between any two of them harmless:
//!
//! ```text
//! due -> Begin, Block... -> Finish -> durable under its name -> a mark in the log -> the mark is durable
//!                            |                                                       |
//!                            only when the log itself is durable up to the index     older checkpoints go,
//!                                                                                    then older segments
//! ```
//!
//! Before the mark is durable, everything that was there before still is; after it, the checkpoint and
//! the log behind it say all. A leader keeps a longer log while a follower that it hears needs it, and the
//! file that is on its way to one (`transfer`), up to `log_bytes_max`.

use std::time::Duration;

use super::Shard;
use super::cluster::{ClusterChange, ClusterState};
use super::entry::{ArchivedEntryBody, ClusterEffect, EntryBody};
use super::event::{CheckpointEffect, Effects, LogEffect};
use super::install::Incoming;
use super::replay::Replayed;
use crate::base::limits::{
    CHECKPOINT_BLOCKS_WAITING_MAX, CHECKPOINT_PAYLOAD_BYTES_MIN, CHECKPOINT_RETRY_SECONDS,
    ENTRY_SIZE_BYTES_MAX, LOG_BYTES_MAX,
};
use crate::base::{Index, Instant};
use crate::checkpoint::{CheckpointId, Origin, Restored, Row, Source, Writer};
use crate::frame::{self, Encoder, PageBuffer, Record};
use crate::keyspace::Keyspace;
use crate::keyspace::state::StateWalk;
use crate::keyspace::steps::Steps;
use crate::raft::{Flow, LogTerms, Position};
use crate::wal::{CommitSequence, SegmentSequence};

/// The table of the cluster's state: each row is an entry, as a log record, whose changes together give it.
const TABLE_CLUSTER: u16 = 1;

/// When a checkpoint is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointLimits {
    /// Bytes of entries since the last checkpoint, at least; and at least as many as that one's size, so
    /// that writing checkpoints never costs more than writing the log.
    pub payload_bytes_min: u64,
    /// Bytes of the log's segments, from which on a checkpoint is due however few entries are in them.
    pub log_bytes_max: u64,
}

impl Default for CheckpointLimits {
    fn default() -> CheckpointLimits {
        CheckpointLimits {
            payload_bytes_min: CHECKPOINT_PAYLOAD_BYTES_MIN,
            log_bytes_max: LOG_BYTES_MAX,
        }
    }
}

/// A checkpoint that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointSummary {
    /// Which.
    pub id: CheckpointId,
    /// Bytes of its file.
    pub size_bytes: u64,
    /// What its file's name says.
    pub source: Source,
}

/// The newest checkpoint, as followers may be sent it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ToSend {
    pub(super) summary: CheckpointSummary,
    /// Whether so little log has come after it that a follower has both before the next one, or whether there is no
    /// better one to be had.
    is_new: bool,
}

impl ToSend {
    /// Whether much log has come after it, so that the follower must not take long.
    pub(super) fn is_late(&self) -> bool {
        !self.is_new
    }

    /// Whether it is worth sending to a follower that passed over all up to `passed`. One that was taken since is,
    /// however much log has come meanwhile: the next would come as late.
    pub(super) fn is_worth(&self, passed: Index) -> bool {
        self.is_new || self.summary.id.index > passed
    }
}

/// What a shard knows of its checkpoints.
pub(super) struct Checkpoints {
    limits: CheckpointLimits,
    /// The newest that is durable.
    last: Option<CheckpointSummary>,
    /// Where the log stood when that one began.
    last_began: LogPosition,
    writing: Option<Writing>,
    /// The last one is durable, and the log does not say so yet.
    to_mark: bool,
    /// The commit that will say so.
    mark: Option<CommitSequence>,
    /// The log says durably that there is a checkpoint here: what is before is needless.
    marked: Option<Index>,
    /// Below this the driver was told to remove checkpoints.
    removed_before: Index,
    /// Writing failed; when it may be tried again.
    retry_at: Option<Instant>,
    /// The file of this one was found not to hold: another one must be taken.
    unreadable: Option<CheckpointId>,
    /// Entries up to here may be unreadable in the log: a follower gets a checkpoint that holds them.
    log_unreadable: Index,
    /// What comes from the leader.
    pub(super) incoming: Incoming,
    /// What was asked for in this event.
    pub(super) effects: Vec<CheckpointEffect>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LogPosition {
    /// Bytes of entries so far, from [`crate::wal::Appender::entry_bytes`].
    entry_bytes: u64,
    /// The segment that is opened next.
    next_segment: SegmentSequence,
}

struct Writing {
    writer: Writer,
    began: LogPosition,
    /// Blocks handed out and not written.
    blocks_waiting: usize,
    /// Whether the driver was told to give it its name.
    finishing: bool,
}

impl Checkpoints {
    pub(super) fn new(limits: CheckpointLimits, last: Option<CheckpointSummary>) -> Checkpoints {
        Checkpoints {
            limits,
            last,
            last_began: LogPosition::default(),
            writing: None,
            // The log may not say yet that it leads there.
            to_mark: last.is_some_and(|last| last.source == Source::Member),
            mark: None,
            marked: None,
            removed_before: Index(0),
            retry_at: None,
            unreadable: None,
            log_unreadable: Index(0),
            incoming: Incoming::default(),
            effects: Vec::new(),
        }
    }

    /// The index of the newest that is durable; zero for none.
    pub(super) fn last_index(&self) -> Index {
        self.last.map_or(Index(0), |last| last.id.index)
    }

    pub(super) fn limits(&self) -> &CheckpointLimits {
        &self.limits
    }

    /// Whether no file is being written, nor is to be written now: one at a time, whoever it comes from.
    pub(super) fn may_begin(&self) -> bool {
        self.writing.is_none() && self.incoming.is_idle() && self.retry_at.is_none()
    }

    /// The file of a checkpoint does not hold.
    pub(super) fn unreadable(&mut self, id: CheckpointId) {
        if self.last.is_some_and(|last| last.id == id) {
            self.unreadable = Some(id);
        }
    }

    /// The log on disk does not hold the entry at `index` any more. A checkpoint before it would lead a follower
    /// there again.
    pub(super) fn log_unreadable(&mut self, index: Index) {
        self.log_unreadable = self.log_unreadable.max(index);
    }

    /// There is a newer durable checkpoint, `began` where the log stood then. `mark` is the commit that says so,
    /// if there is one already.
    pub(super) fn adopt(
        &mut self,
        summary: CheckpointSummary,
        began: LogPosition,
        mark: Option<CommitSequence>,
    ) {
        self.last = Some(summary);
        self.last_began = began;
        self.unreadable = None;
        self.to_mark = mark.is_none();
        self.mark = mark;
    }

    /// Whether the next slice would write something.
    pub(super) fn has_work(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| {
            !writing.writer.is_done() && writing.blocks_waiting < CHECKPOINT_BLOCKS_WAITING_MAX
        }) || self.incoming.has_work()
    }

    /// Whether the one that is being taken is what keeps versions from being reclaimed. While a read keeps earlier ones,
    /// nothing is freed by hurrying.
    pub(super) fn is_pinned_lowest(&self, keyspace: &mut Keyspace) -> bool {
        let writing = self.writing.as_ref();
        writing.is_some_and(|writing| writing.writer.is_pinned_lowest(keyspace))
    }

    /// The oldest block handed out is written.
    pub(super) fn block_written(&mut self) {
        if let Some(writing) = &mut self.writing {
            assert!(writing.blocks_waiting > 0, "no block is being written");
            writing.blocks_waiting -= 1;
        } else {
            self.incoming.block_written();
        }
    }

    /// The checkpoint has its name, durably.
    pub(super) fn durable(&mut self, id: CheckpointId) {
        let Some(writing) = self.writing.take() else {
            self.incoming.durable(id);
            return;
        };
        assert!(writing.finishing, "a checkpoint that is not finished");
        assert_eq!(writing.writer.origin().id(), id, "another checkpoint");
        let summary = CheckpointSummary {
            id,
            size_bytes: writing.writer.size_bytes(),
            source: Source::Log,
        };
        self.adopt(summary, writing.began, None);
    }

    /// The file could not be written; it is given up, and nothing was lost.
    pub(super) fn failed(&mut self, now: Instant) {
        self.writing = None;
        self.give_up_incoming();
        // The driver reports no block of it any more.
        self.incoming = Incoming::default();
        self.wait_to_retry(now);
    }

    /// Nothing is written for a while.
    pub(super) fn wait_to_retry(&mut self, now: Instant) {
        self.retry_at = Some(now + Duration::from_secs(CHECKPOINT_RETRY_SECONDS));
    }

    pub(super) fn tick(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
        }
    }
}

impl Shard {
    /// The newest checkpoint that is durable.
    #[must_use]
    pub fn last_checkpoint(&self) -> Option<CheckpointSummary> {
        self.checkpoints.last
    }

    /// Begins a checkpoint when one is due, and writes on at the one that was begun.
    pub(super) fn write_checkpoint(&mut self, steps: &mut Steps, effects: &mut Effects) {
        effects.checkpoint.append(&mut self.checkpoints.effects);
        if self.checkpoint_is_due() {
            self.begin_checkpoint(effects);
        }
        let Some(writing) = &mut self.checkpoints.writing else {
            return;
        };
        while !writing.writer.is_done() && writing.blocks_waiting < CHECKPOINT_BLOCKS_WAITING_MAX {
            let Some(block) = writing.writer.next_block(&self.keyspace, steps) else {
                break;
            };
            writing.blocks_waiting += 1;
            effects.checkpoint.push(CheckpointEffect::Block(block));
        }
        writing.writer.let_go(&mut self.keyspace);
        let id = writing.writer.origin().id();
        // A checkpoint beyond the durable log would leave a gap behind it after a crash.
        if writing.writer.is_done() && !writing.finishing && self.log.durable_index() >= id.index {
            writing.finishing = true;
            let finish = CheckpointEffect::Finish(id, Source::Log);
            effects.checkpoint.push(finish);
        }
    }

    fn checkpoint_is_due(&self) -> bool {
        let Checkpoints {
            limits,
            last,
            last_began,
            ..
        } = &self.checkpoints;
        let idle = self.checkpoints.may_begin()
            && !self.checkpoints.to_mark
            && self.checkpoints.mark.is_none()
            && !self.stopping;
        let index = self.keyspace.committed_index();
        let last_index = self.checkpoints.last_index();
        let replaces = self.checkpoints.unreadable.is_some() && index == last_index;
        if !idle || (index <= last_index && !replaces) {
            return false;
        }
        let wanted = self.transfers.wants_checkpoint(self.checkpoint_to_send())
            && index >= self.checkpoints.log_unreadable;
        let payload = self.log.entry_bytes() - last_began.entry_bytes;
        let payload_min = limits
            .payload_bytes_min
            .max(last.map_or(0, |last| last.size_bytes));
        // Without a segment more than at the last one, another would free nothing.
        let log_is_long = self.log.log_size_bytes() >= limits.log_bytes_max
            && self.log.next_segment() > last_began.next_segment;
        // The fold may lag behind the commit; then the cluster's state is one of a later index.
        let together = self.cluster.changed_at() <= index;
        let wanted = wanted || self.repair.wants_checkpoint();
        (payload >= payload_min || log_is_long || wanted) && together
    }

    /// The newest checkpoint, if it can be sent.
    pub(super) fn checkpoint_to_send(&self) -> Option<ToSend> {
        let Checkpoints {
            limits,
            last,
            last_began,
            unreadable,
            log_unreadable,
            retry_at,
            ..
        } = &self.checkpoints;
        let last =
            last.filter(|last| *unreadable != Some(last.id) && last.id.index >= *log_unreadable)?;
        let log_after = self.log.entry_bytes() - last_began.entry_bytes;
        let is_new = log_after <= limits.log_bytes_max / 2
            || self.keyspace.committed_index() <= last.id.index
            || retry_at.is_some();
        Some(ToSend {
            summary: last,
            is_new,
        })
    }

    /// Where the log stands.
    pub(super) fn log_position(&self) -> LogPosition {
        LogPosition {
            entry_bytes: self.log.entry_bytes(),
            next_segment: self.log.next_segment(),
        }
    }

    fn begin_checkpoint(&mut self, effects: &mut Effects) {
        self.repair.checkpoint_begun();
        let walk = StateWalk::new(&mut self.keyspace);
        let mark = walk.mark();
        let term = self
            .raft
            .log()
            .term_at(mark.index)
            .expect("a committed entry after the last checkpoint is in the log");
        let origin = Origin {
            cluster: self.settings.identity.cluster,
            shard: self.settings.shard,
            term,
            mark,
        };
        let rows = cluster_rows(&self.cluster, &origin);
        self.checkpoints.writing = Some(Writing {
            writer: Writer::new(origin, walk, &rows),
            began: self.log_position(),
            blocks_waiting: 0,
            finishing: false,
        });
        effects
            .checkpoint
            .push(CheckpointEffect::Begin(origin.id()));
    }

    /// Says in the log that there is a durable checkpoint, and, when that is durable itself, gives up what
    /// came before it: as far as no follower that is heard needs it, while the log is not too long.
    pub(super) fn release_log(&mut self, now: Instant, effects: &mut Effects) {
        let Checkpoints {
            last,
            to_mark,
            mark,
            marked,
            ..
        } = &mut self.checkpoints;
        if *to_mark
            && let Some(last) = last
            && last.id.index <= self.log.hard_state().commit
        {
            // Without room it is said with the next event.
            if let Ok(commit) = self.log.stage_checkpoint(last.id.term, last.id.index) {
                *to_mark = false;
                *mark = Some(commit);
            }
        }
        if mark.is_some_and(|commit| commit <= self.log.durable_commit()) {
            *mark = None;
            *marked = last.map(|last| last.id.index);
            if let Some(last) = last
                && last.source == Source::Member
            {
                last.source = Source::Log;
                effects.checkpoint.push(CheckpointEffect::Settle(last.id));
            }
        }
        let Some(marked) = *marked else {
            return;
        };
        if self.log.log_size_bytes() > self.checkpoints.limits.log_bytes_max {
            self.transfers.abandon_before(marked, &mut self.notices);
        }
        let on_the_way = self.transfers.oldest();
        let files_before = on_the_way.map_or(marked, |oldest| oldest.min(marked));
        if files_before > self.checkpoints.removed_before {
            self.checkpoints.removed_before = files_before;
            let remove = CheckpointEffect::RemoveBefore(files_before);
            effects.checkpoint.push(remove);
        }
        let needless = files_before.min(self.needed_by_followers(now).unwrap_or(marked));
        for sequence in self.log.recyclable(needless) {
            self.log.recycled(sequence);
            effects.log.push(LogEffect::Recycle(sequence));
        }
        // A cut may have taken the log back behind the beginning of a segment.
        let first = self.log.segments().map(|segment| segment.first_index).min();
        if let Some(first) = first {
            let released = Index(first.0.saturating_sub(1)).min(marked);
            self.raft.log_released(released);
        }
    }

    /// What the slowest follower that is heard has: it is served from the log while that is not too long.
    fn needed_by_followers(&self, now: Instant) -> Option<Index> {
        if self.log.log_size_bytes() > self.checkpoints.limits.log_bytes_max {
            return None;
        }
        let own = self.raft.id();
        let others = self.raft.membership().members().filter(|&id| id != own);
        let needs = |id| {
            let progress = self.raft.progress(id)?;
            let heard = now.since(progress.heard) <= self.settings.election_timeout;
            let served = progress.flow != Flow::Checkpoint && !progress.forgot;
            (heard && served).then_some(progress.matched)
        };
        others.filter_map(needs).min()
    }
}

/// The committed cluster state as rows.
fn cluster_rows(cluster: &ClusterState, origin: &Origin) -> Vec<Row> {
    let mut encoder = Encoder::new(ENTRY_SIZE_BYTES_MAX);
    let row = |change: ClusterChange| {
        let mut buffer = PageBuffer::new();
        let body = EntryBody::Cluster(vec![ClusterEffect::from(&change)]);
        encoder
            .entry(origin.term, origin.mark.index, &body, &mut buffer)
            .expect("a change that fitted into an entry of the log fits again");
        Row {
            table: TABLE_CLUSTER,
            bytes: buffer.to_vec(),
        }
    };
    cluster.committed_changes().into_iter().map(row).collect()
}

/// A row that this build cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("row {row} of the checkpoint, in table {table}, says nothing this program knows")]
pub struct UnknownRow {
    /// Counted from zero.
    pub row: usize,
    /// The table.
    pub table: u16,
}

impl Replayed {
    /// The state of a checkpoint, whose file says where it comes from: what a replay of the log after it begins with.
    ///
    /// # Errors
    /// [`UnknownRow`]: another version of the program wrote it.
    pub fn from_checkpoint(restored: Restored, source: Source) -> Result<Replayed, UnknownRow> {
        let Restored {
            origin,
            rows,
            keyspace,
            size_bytes,
        } = restored;
        let id = origin.id();
        let mut cluster = ClusterState::default();
        for (at, row) in rows.iter().enumerate() {
            let changes = cluster_changes(row).ok_or(UnknownRow {
                row: at,
                table: row.table,
            })?;
            for change in changes {
                cluster.fold(id.index, change);
            }
        }
        cluster.commit(id.index);
        Ok(Replayed {
            keyspace,
            cluster,
            terms: LogTerms::after(Position {
                term: id.term,
                index: id.index,
            }),
            checkpoint: Some(CheckpointSummary {
                id,
                size_bytes,
                source,
            }),
            ..Replayed::default()
        })
    }
}

fn cluster_changes(row: &Row) -> Option<Vec<ClusterChange>> {
    let (record, _) = Record::parse(&row.bytes).ok()?;
    let known = row.table == TABLE_CLUSTER;
    match frame::access::<EntryBody>(record.body).ok()? {
        ArchivedEntryBody::Cluster(effects) if known => {
            let changes = effects.iter().map(ClusterChange::try_from);
            changes.collect::<Result<_, _>>().ok()
        }
        _ => None,
    }
}
