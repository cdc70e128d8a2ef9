//! What a log holds, without making anything of it: for a judgement about damage, and for the operator who
//! accepts a cut.
//!
//! Reads files past the page cache, one segment in memory at a time, and blocks: for a thread beside the cores,
//! or for a process that serves nobody.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};

use super::disk::begun;
use super::disk::directory::{DirectoryError, files_in};
use crate::base::Index;
use crate::raft::Position;
use crate::shard::replay::Piece;
use crate::wal::damage::RefusalReason;
use crate::wal::{
    Checkpoint, Geometry, LogIdentity, Recovered, Recovery, Refusal, SegmentFile, SegmentSequence,
};

/// Why a log cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// The directory cannot be listed.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A file cannot be read.
    #[error("{}: cannot read the file: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file is not what it must be.
    #[error(transparent)]
    Refused(Refusal),
}

/// What was found.
#[derive(Debug)]
pub struct Survey {
    /// The log.
    pub found: Recovered,
    /// The index that the log begins with, if that is too late for the checkpoint: then it was judged from there.
    pub begins_late: Option<Index>,
}

/// Judges the log behind a checkpoint at `base`, index zero for none. It led to `led_to` once ([`Checkpoint::led_to`]).
/// `was_cut` says that it was just cut ([`Recovery::was_cut`]).
///
/// # Errors
/// [`SurveyError`].
pub fn survey(
    directory: &Path,
    geometry: Geometry,
    identity: LogIdentity,
    (base, led_to): (Position, Index),
    was_cut: bool,
) -> Result<Survey, SurveyError> {
    let checkpoint = (base.index > Index(0)).then_some(Checkpoint {
        term: base.term,
        led_to,
    });
    let first_index = match walk(
        directory,
        geometry,
        identity,
        (base.index, checkpoint),
        was_cut,
    ) {
        Err(SurveyError::Refused(Refusal {
            reason: RefusalReason::BeginsLate { first_index, .. },
            ..
        })) => first_index,
        judged => {
            return Ok(Survey {
                found: judged?,
                begins_late: None,
            });
        }
    };
    let start = Index(first_index.0.saturating_sub(1));
    Ok(Survey {
        found: walk(directory, geometry, identity, (start, None), was_cut)?,
        begins_late: Some(first_index),
    })
}

fn walk(
    directory: &Path,
    geometry: Geometry,
    identity: LogIdentity,
    (start, checkpoint): (Index, Option<Checkpoint>),
    was_cut: bool,
) -> Result<Recovered, SurveyError> {
    let files = segment_files(directory)?;
    let mut recovery =
        Recovery::new(geometry, identity, start, &files).map_err(SurveyError::Refused)?;
    if let Some(checkpoint) = checkpoint {
        recovery.after_checkpoint(checkpoint);
    }
    if was_cut {
        recovery.was_cut();
    }
    if begun::is_marked(directory)? {
        recovery.has_begun();
    }
    let mut bytes = Vec::new();
    while let Some(sequence) = recovery.next_file() {
        let path = directory.join(sequence.file_name());
        read_past_cache(&path, &mut bytes).map_err(|source| SurveyError::Io { path, source })?;
        recovery
            .segment(&bytes, &mut |found| Piece::new(found).map(drop))
            .map_err(SurveyError::Refused)?;
    }
    Ok(recovery.finish())
}

/// What the disk holds counts, not what the cache of an earlier life says.
fn read_past_cache(path: &Path, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut file = File::open(path)?;
    fadvise(&file, 0, None, Advice::DontNeed)?;
    bytes.clear();
    file.read_to_end(bytes).map(drop)
}

/// The files whose names are segments', in ascending order.
///
/// # Errors
/// [`SurveyError`].
pub fn segment_files(directory: &Path) -> Result<Vec<SegmentFile>, SurveyError> {
    let mut files = Vec::new();
    for path in files_in(directory)? {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(sequence) = name.and_then(SegmentSequence::from_file_name) else {
            continue;
        };
        let size_bytes = path
            .metadata()
            .map_err(|source| SurveyError::Io {
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
