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
use crate::shard::replay::{Piece, Replayed, Replayer};
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

/// Reads, checks, folds, repairs and syncs the log in `directory`; counts its slices as turns.
///
/// # Errors
/// [`RecoveryError`] names the file, the offset and the cause. Nothing was changed then.
pub async fn recover(
    directory: &Path,
    geometry: Geometry,
    identity: LogIdentity,
    turns: &Turns<'_>,
) -> Result<RecoveredLog, RecoveryError> {
    let refused = |source| RecoveryError::Refused {
        directory: directory.to_path_buf(),
        source: Box::new(source),
    };
    let files = segment_files(directory)?;
    let mut recovery = Recovery::new(geometry, identity, Index(0), &files).map_err(refused)?;
    let mut replayer = Replayer::default();
    let mut bytes = Vec::new();
    while let Some(sequence) = recovery.next_file() {
        read_file(&directory.join(sequence.file_name()), &mut bytes).await?;
        let result;
        (recovery, bytes, result) = walk(recovery, bytes, &mut replayer, turns).await?;
        result.map_err(refused)?;
    }
    let recovered = recovery.finish();
    if let Outcome::Corrupt(damage) = recovered.outcome {
        let directory = directory.to_path_buf();
        return Err(RecoveryError::Corrupt {
            directory,
            damage: Box::new(damage),
        });
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
        size_bytes: files.iter().map(|file| file.size_bytes).sum(),
        torn_at,
        appender: Appender::resume(geometry, identity, recovered),
    })
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
