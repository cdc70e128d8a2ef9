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

use super::beside::spawn_beside;
use super::clock::Clock;
use super::disk::begun;
use super::disk::checkpoint::{Loaded, Unusable, load_newest};
use super::disk::cut::{CutError, cut_log, record_cut, remove_checkpoints};
use super::disk::directory::DirectoryError;
use super::disk::known::{self, KnownError};
use super::disk::read::{ReadError, read_file, sync_files};
use super::executor::give_way;
use super::mailbox::mailbox;
use super::stats::CoreStats;
use super::survey::{SurveyError, segment_files, survey};
use crate::base::limits::{
    PAGE_SIZE_BYTES, RECOVERY_BATCH_PIECES_MAX, RECOVERY_BATCHES_MAX, RECOVERY_CUTS_MAX,
    SLICE_STEPS_MAX,
};
use crate::base::{Index, MemberId};
use crate::keyspace::steps::Steps;
use crate::raft::{Membership, Position};
use crate::shard::checkpoints::UnknownRow;
use crate::shard::event::KnownMembers;
use crate::shard::replay::{Piece, Replayed, Replayer};
use crate::wal::damage::RefusalReason;
use crate::wal::{
    Appender, Cut, Damage, Geometry, LogIdentity, Outcome, Recovered, Recovery, Refusal,
    SegmentSequence,
};

/// A log that is found again.
pub struct RecoveredLog {
    /// What is stored beside it by now.
    pub known: KnownMembers,
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
         Start it on a backup of the whole directory, with the state of that time, or give up what follows \
         with: kontiki recover --accept-cut",
        directory.display()
    )]
    Corrupt {
        /// Where the files lie.
        directory: PathBuf,
        /// What is damaged.
        damage: Box<Damage>,
    },
    /// What is read is what was written, and this program cannot make sense of it.
    #[error(
        "{}: {damage}, so the disk has lost nothing. Start the version of the program that wrote it, or remove \
         this member from the cluster and add it again with an empty directory",
        directory.display()
    )]
    Unreadable {
        /// Where the files lie.
        directory: PathBuf,
        /// What it is.
        damage: Box<Damage>,
    },
    /// A part of the log that is damaged could not be judged or cut.
    #[error(transparent)]
    Survey(#[from] SurveyError),
    /// The same.
    #[error(transparent)]
    Cut(#[from] CutError),
    /// What must be stored before a cut could not be.
    #[error(transparent)]
    Known(#[from] KnownError),
    /// A checkpoint is damaged, and the log does not reach back far enough to do without it.
    #[error(
        "{checkpoint}. The log cannot replace it: {reason}. This member is the only voter, so no other \
         member can restore it: it stops. Start it on a backup of the whole directory, with the state of that \
         time, or give it up with: kontiki recover --accept-cut"
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
}

/// Where a shard's state is kept.
#[derive(Clone, Debug)]
pub struct Places {
    /// The segments of its log.
    pub log: PathBuf,
    /// Its checkpoints.
    pub checkpoints: PathBuf,
}

/// What stands beside the log, and says how damage is met.
#[derive(Clone, Debug)]
pub struct Beside {
    /// What is stored.
    pub known: KnownMembers,
    /// Whether the cluster began with several members.
    pub began_in_group: bool,
}

impl Beside {
    /// Whether anything tells that there are others, who could restore what is lost here.
    fn has_others(&self, own: MemberId, membership: &Membership) -> bool {
        let others = membership.members().any(|id| id != own);
        others || self.began_in_group || !self.known.incarnations.is_empty()
    }
}

/// Loads the newest checkpoint, then reads, checks, folds, repairs and syncs the log after it; counts its
/// slices as turns. Where a checkpoint is damaged, an older one or none does as well, if the log reaches
/// back that far.
///
/// Where something that was durable is gone, a member of a group cuts the log there and begins once more. Before
/// the cut it is stored that this member is to be rebuilt by the others: no crash turns it into one that is merely
/// torn, and may vote. A lone member has nobody to be rebuilt by: it stops.
///
/// # Errors
/// [`RecoveryError`] names the file, the offset and the cause. Nothing was changed then, unless a cut failed.
pub async fn recover(
    places: &Places,
    geometry: Geometry,
    identity: LogIdentity,
    beside: Beside,
    turns: &Turns<'_>,
) -> Result<RecoveredLog, RecoveryError> {
    let mut beside = beside;
    let mut cuts = 0;
    loop {
        let loss = match attempt(places, geometry, identity, &beside, turns).await? {
            Attempt::Whole(log) => {
                let known = beside.known;
                return Ok(RecoveredLog { known, ..*log });
            }
            Attempt::Lost(loss) => *loss,
        };
        if cuts == RECOVERY_CUTS_MAX || !beside.has_others(identity.member, &loss.membership) {
            return Err(loss.error);
        }
        cuts += 1;
        let what = loss.what;
        tracing::error!("{what}. The log is cut there, and rebuilt from the other members");
        beside.known.note_loss(&loss.found, loss.checkpoint);
        let (places, known) = (places.clone(), beside.known.clone());
        on_thread(move || {
            known::store(&places.log, &known)?;
            record_cut(
                &places.log,
                &format!("cut to be rebuilt from the other members: {what}"),
            )?;
            remove_checkpoints(&places.checkpoints, &loss.unusable)?;
            if let Some(cut) = loss.cut {
                cut_log(&places.log, geometry, cut)?;
            }
            Ok(())
        })
        .await?;
    }
}

/// What came of reading everything once.
enum Attempt {
    Whole(Box<RecoveredLog>),
    Lost(Box<Loss>),
}

/// Something that was durable is gone.
struct Loss {
    /// What a member says that is alone.
    error: RecoveryError,
    /// What one says that is not.
    what: String,
    /// What can be read of the log.
    found: Recovered,
    /// The checkpoint that holds.
    checkpoint: Position,
    /// Checkpoints that do not, and go.
    unusable: Vec<PathBuf>,
    /// What of the log goes.
    cut: Option<Cut>,
    membership: Membership,
}

async fn attempt(
    places: &Places,
    geometry: Geometry,
    identity: LogIdentity,
    beside: &Beside,
    turns: &Turns<'_>,
) -> Result<Attempt, RecoveryError> {
    let directory = places.log.as_path();
    let refused = |source| RecoveryError::Refused {
        directory: directory.to_path_buf(),
        source: Box::new(source),
    };
    let files = segment_files(directory)?;
    let Loaded {
        restored,
        source,
        led_to,
        unusable,
    } = load_checkpoint(&places.checkpoints, identity).await?;
    for file in &unusable {
        tracing::warn!("{file}");
    }
    let unusable_paths: Vec<PathBuf> = unusable.iter().map(|file| file.path.clone()).collect();
    let checkpoint_bytes = restored.as_ref().map_or(0, |restored| restored.size_bytes);
    let mut base = Position::default();
    let mut checkpoint = None;
    let mut replayer = Replayer::default();
    if let Some(restored) = restored {
        let id = restored.origin.id();
        base = Position {
            term: id.term,
            index: id.index,
        };
        let replayed = Replayed::from_checkpoint(restored, source).map_err(|source| {
            let directory = places.checkpoints.clone();
            RecoveryError::CheckpointUnknown { directory, source }
        })?;
        checkpoint = replayed.recovers_after(led_to);
        replayer = Replayer::after(replayed);
    }
    let mut recovery = Recovery::new(geometry, identity, base.index, &files).map_err(refused)?;
    if let Some(checkpoint) = checkpoint {
        recovery.after_checkpoint(checkpoint);
    }
    let was_cut = beside.known.just_cut;
    if was_cut {
        recovery.was_cut();
    }
    if begun::is_marked(directory)? {
        recovery.has_begun();
    }
    let mut bytes = Vec::new();
    while let Some(sequence) = recovery.next_file() {
        read_file(&directory.join(sequence.file_name()), &mut bytes).await?;
        let result;
        (recovery, bytes, result) = walk(recovery, bytes, &mut replayer, turns).await?;
        match result {
            Ok(()) => {}
            Err(refusal) if begins_late(&refusal) => {
                let newest = unusable.into_iter().next();
                let what = match &newest {
                    Some(checkpoint) => format!("{checkpoint}; {refusal}"),
                    None => refusal.to_string(),
                };
                let error = match newest {
                    Some(checkpoint) => lost(checkpoint, refusal.to_string()),
                    None => refused(refusal),
                };
                let found =
                    survey_beside(places, geometry, identity, (base, led_to), was_cut).await?;
                return Ok(Attempt::Lost(Box::new(Loss {
                    error,
                    what,
                    found,
                    checkpoint: base,
                    unusable: unusable_paths,
                    cut: Some(Cut::Everything),
                    membership: replayer.membership(),
                })));
            }
            Err(refusal) => return Err(refused(refusal)),
        }
    }
    let mut recovered = recovery.finish();
    if let Outcome::Corrupt(damage) = recovered.outcome {
        let directory = directory.to_path_buf();
        // That one is gone since a newer checkpoint was there, which led beyond it.
        let leads_beyond =
            |file: &Unusable| damage.missing_base().is_some_and(|base| file.index >= base);
        if !damage.is_loss() && !unusable.iter().any(leads_beyond) {
            let damage = Box::new(damage);
            return Err(RecoveryError::Unreadable { directory, damage });
        }
        let what = format!("{}: {damage}", directory.display());
        let error = RecoveryError::Corrupt {
            directory,
            damage: Box::new(damage),
        };
        return Ok(Attempt::Lost(Box::new(Loss {
            error,
            what,
            found: recovered,
            checkpoint: base,
            unusable: Vec::new(),
            cut: Some(damage.cut()),
            membership: replayer.membership(),
        })));
    }
    let (own, received): (Vec<_>, Vec<_>) = unusable.into_iter().partition(Unusable::was_led_to);
    let newest = own.into_iter().next();
    if let Some(checkpoint) = newest.filter(|newest| recovered.last_index < newest.index) {
        let reason = format!("it ends at index {}", recovered.last_index);
        recovered.term_lost = true;
        return Ok(Attempt::Lost(Box::new(Loss {
            what: format!("{checkpoint}; the log ends before it: {reason}"),
            error: lost(checkpoint, reason),
            found: recovered,
            checkpoint: base,
            unusable: unusable_paths,
            cut: None,
            membership: replayer.membership(),
        })));
    }
    give_up_received(places, received).await?;
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
    Ok(Attempt::Whole(Box::new(RecoveredLog {
        known: beside.known.clone(),
        replayed: replayer.finish(recovered.hard_state),
        active: recovered.active_segment(),
        entry_count: recovered.entry_count,
        checkpoint_bytes,
        size_bytes: files.iter().map(|file| file.size_bytes).sum(),
        torn_at,
        appender: Appender::resume(geometry, identity, recovered),
    })))
}

/// Checkpoints that other members sent, that do not hold, and that the log does not need: the leader sends another one.
async fn give_up_received(places: &Places, files: Vec<Unusable>) -> Result<(), RecoveryError> {
    if files.is_empty() {
        return Ok(());
    }
    let directory = places.checkpoints.clone();
    let paths: Vec<PathBuf> = files.into_iter().map(|file| file.path).collect();
    for path in &paths {
        tracing::warn!("{}: removed, the log does not need it", path.display());
    }
    on_thread(move || Ok(remove_checkpoints(&directory, &paths)?)).await
}

async fn survey_beside(
    places: &Places,
    geometry: Geometry,
    identity: LogIdentity,
    base: (Position, Index),
    was_cut: bool,
) -> Result<Recovered, RecoveryError> {
    let directory = places.log.clone();
    on_thread(move || Ok(survey(&directory, geometry, identity, base, was_cut)?.found)).await
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
    let directory = directory.to_path_buf();
    on_thread(move || Ok(load_newest(&directory, identity.cluster, identity.shard)?)).await
}

/// What may block, on a thread of its own.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RecoveryError> + Send + 'static,
) -> Result<T, RecoveryError> {
    let (sender, mut receiver) = mailbox(1);
    beside(move || {
        sender.send_waiting(work());
    })?;
    receiver
        .receive()
        .await
        .expect("the thread reports before it ends")
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
                    give_way().await;
                }
            }
            Walk::Done {
                recovery,
                bytes,
                result,
            } => return Ok((*recovery, bytes, result)),
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
    on_thread(move || {
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
        pages.into_iter().try_for_each(write)
    })
    .await
}

fn beside(work: impl FnOnce() + Send + 'static) -> Result<(), RecoveryError> {
    spawn_beside("recovery", work)
        .map(drop)
        .map_err(RecoveryError::Thread)
}
