//! From the files of a shard's log to a state that can go on.
//!
//! Runs once, on the shard's core, before it serves. Files are read past the page cache; a thread beside
//! the core walks and checks a segment while the core folds what was found, in slices, so that even a
//! restart never holds the core for long. What recovery says must be repaired is written and synced
//! here, and every file is synced before anything counts as durable.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::beside::spawn_beside;
use super::clock::Clock;
use super::disk::checkpoint::{Loaded, Unusable, load_newest};
use super::disk::directory::{DirectoryError, files_in};
use super::disk::read::{ReadError, read_file, sync_files};
use super::executor::sleep;
use super::mailbox::mailbox;
use super::stats::CoreStats;
use crate::base::Index;
use crate::base::limits::{
    PAGE_SIZE_BYTES, RECOVERY_BATCH_PIECES_MAX, RECOVERY_BATCHES_MAX, SLICE_STEPS_MAX,
};
use crate::keyspace::steps::Steps;
use crate::shard::checkpoints::UnknownRow;
use crate::shard::replay::{Piece, Replayed, Replayer};
use crate::wal::damage::RefusalReason;
use crate::wal::{
    Appender, Damage, Geometry, LogIdentity, Outcome, Recovered, Recovery, Refusal, SegmentFile,
    SegmentSequence,
};

/// Between two slices, so that the core looks at its rings.
const SLICE_PAUSE: Duration = Duration::from_micros(1);

/// A log that is found again.
pub struct RecoveredLog {
    /// The state it folds to.
    pub replayed: Replayed,
    /// Where it goes on.
    pub appender: Appender,
    /// The segment that takes commits; none in an empty log.
    pub active: Option<SegmentSequence>,
    /// Entries that were read.
    pub entry_count: u64,
    /// Bytes of the files that were read.
    pub size_bytes: u64,
    /// Bytes of the checkpoint that was loaded, zero for none.
    pub checkpoint_bytes: u64,
    /// Where a torn tail was cut.
    pub torn_at: Option<(SegmentSequence, u64)>,
}

/// Why a log cannot be continued.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The directory cannot be listed.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A file cannot be read or synced.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file cannot be measured or repaired.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file is not what it must be.
    #[error("{}: {source}", directory.display())]
    Refused {
        /// Where the files lie.
        directory: PathBuf,
        /// Which one, where and why.
        source: Box<Refusal>,
    },
    /// Something that was durable is gone.
    #[error(
        "{}: {damage}. This member is the only voter, so no other member can restore it: it stops. \
         Restore the directory from a backup",
        directory.display()
    )]
    Corrupt {
        /// Where the files lie.
        directory: PathBuf,
        /// What is damaged.
        damage: Box<Damage>,
    },
    /// A checkpoint is damaged, and the log does not reach back far enough to do without it.
    #[error(
        "{checkpoint}. The log cannot replace it: {reason}. This member is the only voter, so no other \
         member can restore it: it stops. Restore the directory from a backup"
    )]
    CheckpointLost {
        /// The newest file that cannot be used.
        checkpoint: Box<Unusable>,
        /// What the log lacks.
        reason: String,
    },
    /// A checkpoint holds what this program does not know.
    #[error("{}: {source}", directory.display())]
    CheckpointUnknown {
        /// Where the checkpoints lie.
        directory: PathBuf,
        /// What it is.
        source: UnknownRow,
    },
    /// The walking thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// Where the slices of a replay are counted: they are turns of the core like those that serve.
pub struct Turns<'a> {
    /// The core's clock.
    pub clock: Clock,
    /// The core's counters.
    pub stats: &'a CoreStats,
}

impl Turns<'_> {
    fn fold(&self, replayer: &mut Replayer) -> bool {
        self.stats.turn_begin(self.clock.now());
        let done = replayer.run(&mut Steps::new(SLICE_STEPS_MAX));
        self.stats.turn_end(self.clock.now());
        done
    }
}

/// What the walking thread mails.
enum Walk {
    Found(Vec<Piece>),
    Done {
        recovery: Box<Recovery>,
        bytes: Vec<u8>,
        result: Result<(), Refusal>,
    },
    Repaired(Result<(), RecoveryError>),
}

/// Where a shard's state is kept.
#[derive(Clone, Debug)]
pub struct Places {
    /// The segments of its log.
    pub log: PathBuf,
    /// Its checkpoints.
    pub checkpoints: PathBuf,
}

/// Loads the newest checkpoint, then reads, checks, folds, repairs and syncs the log after it; counts its
/// slices as turns. Where a checkpoint is damaged, an older one or none does as well, if the log reaches
/// back that far.
///
/// # Errors
/// [`RecoveryError`] names the file, the offset and the cause. Nothing was changed then.
pub async fn recover(
    places: &Places,
    geometry: Geometry,
    identity: LogIdentity,
    turns: &Turns<'_>,
) -> Result<RecoveredLog, RecoveryError> {
    let directory = places.log.as_path();
    let refused = |source| RecoveryError::Refused {
        directory: directory.to_path_buf(),
        source: Box::new(source),
    };
    let files = segment_files(directory)?;
    let Loaded {
        restored,
        mut unusable,
    } = load_checkpoint(&places.checkpoints, identity).await?;
    for file in &unusable {
        tracing::warn!("{file}");
    }
    let checkpoint_bytes = restored.as_ref().map_or(0, |restored| restored.size_bytes);
    let mut start = Index(0);
    let mut checkpoint = None;
    let mut replayer = Replayer::default();
    if let Some(restored) = restored {
        start = restored.origin.mark.index;
        let base = Replayed::from_checkpoint(restored).map_err(|source| {
            let directory = places.checkpoints.clone();
            RecoveryError::CheckpointUnknown { directory, source }
        })?;
        checkpoint = base.recovers_after(identity.member);
        replayer = Replayer::after(base);
    }
    let newest = unusable.drain(..).next();
    let mut recovery = Recovery::new(geometry, identity, start, &files).map_err(refused)?;
    if let Some(checkpoint) = checkpoint {
        recovery.after_checkpoint(checkpoint);
    }
    let mut bytes = Vec::new();
    while let Some(sequence) = recovery.next_file() {
        read_file(&directory.join(sequence.file_name()), &mut bytes).await?;
        let result;
        (recovery, bytes, result) = walk(recovery, bytes, &mut replayer, turns).await?;
        if let Err(refusal) = result {
            return Err(match newest {
                Some(checkpoint) if begins_late(&refusal) => lost(checkpoint, refusal.to_string()),
                _ => refused(refusal),
            });
        }
    }
    let recovered = recovery.finish();
    if let Outcome::Corrupt(damage) = recovered.outcome {
        let directory = directory.to_path_buf();
        return Err(RecoveryError::Corrupt {
            directory,
            damage: Box::new(damage),
        });
    }
    // A checkpoint gets its name when the log is durable up to its index.
    if let Some(checkpoint) = newest.filter(|newest| recovered.last_index < newest.index) {
        let last = recovered.last_index;
        return Err(lost(checkpoint, format!("it ends at index {last}")));
    }
    repair(directory, &recovered).await?;
    let paths: Vec<PathBuf> = files
        .iter()
        .map(|file| directory.join(file.sequence.file_name()))
        .collect();
    sync_files(&paths).await?;
    let torn_at = match recovered.outcome {
        Outcome::TornTail { segment, offset } => Some((segment, offset)),
        Outcome::Clean | Outcome::Corrupt(_) => None,
    };
    Ok(RecoveredLog {
        replayed: replayer.finish(recovered.hard_state),
        active: recovered.active_segment(),
        entry_count: recovered.entry_count,
        checkpoint_bytes,
        size_bytes: files.iter().map(|file| file.size_bytes).sum(),
        torn_at,
        appender: Appender::resume(geometry, identity, recovered),
    })
}

fn begins_late(refusal: &Refusal) -> bool {
    matches!(refusal.reason, RefusalReason::BeginsLate { .. })
}

fn lost(checkpoint: Unusable, reason: String) -> RecoveryError {
    RecoveryError::CheckpointLost {
        checkpoint: Box::new(checkpoint),
        reason,
    }
}

/// Reads and builds the state on a thread: it is handed over whole, so the core never waits for a slice.
async fn load_checkpoint(directory: &Path, identity: LogIdentity) -> Result<Loaded, RecoveryError> {
    let (sender, mut receiver) = mailbox(1);
    let directory = directory.to_path_buf();
    beside(move || {
        sender.send_waiting(load_newest(&directory, identity.cluster, identity.shard));
    })?;
    let loaded = receiver
        .receive()
        .await
        .expect("the thread reports before it ends");
    Ok(loaded?)
}

/// The files whose names are segments', in ascending order.
fn segment_files(directory: &Path) -> Result<Vec<SegmentFile>, RecoveryError> {
    let mut files = Vec::new();
    for path in files_in(directory)? {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(sequence) = name.and_then(SegmentSequence::from_file_name) else {
            continue;
        };
        let size_bytes = path
            .metadata()
            .map_err(|source| RecoveryError::Io {
                path: path.clone(),
                source,
            })?
            .len();
        files.push(SegmentFile {
            sequence,
            size_bytes,
        });
    }
    files.sort_by_key(|file| file.sequence);
    Ok(files)
}

/// Walks one segment on a thread of its own, and folds what it finds meanwhile.
async fn walk(
    mut recovery: Recovery,
    bytes: Vec<u8>,
    replayer: &mut Replayer,
    turns: &Turns<'_>,
) -> Result<(Recovery, Vec<u8>, Result<(), Refusal>), RecoveryError> {
    let (sender, mut receiver) = mailbox(RECOVERY_BATCHES_MAX);
    beside(move || {
        let mut pieces = Vec::with_capacity(RECOVERY_BATCH_PIECES_MAX);
        let result = recovery.segment(&bytes, &mut |recovered| {
            pieces.extend(Piece::new(recovered)?);
            if pieces.len() == RECOVERY_BATCH_PIECES_MAX {
                sender.send_waiting(Walk::Found(std::mem::take(&mut pieces)));
            }
            Ok(())
        });
        sender.send_waiting(Walk::Found(pieces));
        sender.send_waiting(Walk::Done {
            recovery: Box::new(recovery),
            bytes,
            result,
        });
    })?;
    loop {
        match receiver
            .receive()
            .await
            .expect("the thread reports before it ends")
        {
            Walk::Found(pieces) => {
                replayer.take(pieces);
                while !turns.fold(replayer) {
                    sleep(SLICE_PAUSE).await;
                }
            }
            Walk::Done {
                recovery,
                bytes,
                result,
            } => return Ok((*recovery, bytes, result)),
            Walk::Repaired(_) => unreachable!("only a repair reports a repair"),
        }
    }
}

/// Writes what recovery says must be written, on a thread, because the files are not the ring's.
async fn repair(directory: &Path, recovered: &Recovered) -> Result<(), RecoveryError> {
    let mut pages: Vec<(PathBuf, u64, Vec<u8>)> = recovered
        .damaged_headers
        .iter()
        .map(|header| {
            let path = directory.join(header.segment.file_name());
            (path, header.offset, header.page().to_vec())
        })
        .collect();
    if let Outcome::TornTail { segment, offset } = recovered.outcome {
        let page = usize::try_from(PAGE_SIZE_BYTES).expect("a page fits in memory");
        pages.push((directory.join(segment.file_name()), offset, vec![0; page]));
    }
    if pages.is_empty() {
        return Ok(());
    }
    let (sender, mut receiver) = mailbox(1);
    beside(move || {
        let write = |(path, offset, page): (PathBuf, u64, Vec<u8>)| {
            File::options()
                .write(true)
                .open(&path)
                .and_then(|file| {
                    file.write_all_at(&page, offset)
                        .and_then(|()| file.sync_data())
                })
                .map_err(|source| RecoveryError::Io { path, source })
        };
        sender.send_waiting(Walk::Repaired(pages.into_iter().try_for_each(write)));
    })?;
    match receiver
        .receive()
        .await
        .expect("the thread reports before it ends")
    {
        Walk::Repaired(result) => result,
        Walk::Found(_) | Walk::Done { .. } => unreachable!("only a walk reports a walk"),
    }
}

fn beside(work: impl FnOnce() + Send + 'static) -> Result<(), RecoveryError> {
    spawn_beside("recovery", work)
        .map(drop)
        .map_err(RecoveryError::Thread)
}
