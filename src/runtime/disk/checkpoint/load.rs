//! The checkpoints of a directory, read at start: the newest that holds, and which newer ones do not.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};

use crate::base::limits::CHECKPOINT_BLOCK_BYTES;
use crate::base::{ClusterId, Index, ShardId};
use crate::checkpoint::{CheckpointError, CheckpointId, Reader, Restored, Source};
use crate::runtime::disk::directory::{DirectoryError, files_in};

/// Blocks of one read.
const READ_BLOCKS: usize = 16;

/// The checkpoints of a directory by index, the newest first. Of two at one index that which promises less comes first.
pub(super) fn checkpoints_in(
    directory: &Path,
) -> Result<Vec<(Index, Source, PathBuf)>, DirectoryError> {
    let named = |path: PathBuf| {
        let name = path.file_name()?.to_str()?;
        let (index, source) = CheckpointId::from_file_name(name)?;
        Some((index, source, path))
    };
    let mut found: Vec<_> = files_in(directory)?.into_iter().filter_map(named).collect();
    found.sort_by_key(|&(index, source, _)| std::cmp::Reverse((index, source)));
    Ok(found)
}

/// Why a file is not a checkpoint that can be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read the checkpoint: {0}")]
    Io(#[from] io::Error),
    /// What is in it does not hold.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// It holds another index than its name says.
    #[error("it is the checkpoint of index {found}, under another's name")]
    Renamed {
        /// What is in it.
        found: Index,
    },
}

/// A checkpoint that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct Unusable {
    /// The file.
    pub path: PathBuf,
    /// The index that its name says.
    pub index: Index,
    /// Where it comes from, as its name says.
    pub origin: Source,
    /// Why.
    pub source: FileError,
}

impl Unusable {
    /// Whether the log holds everything up to its index, or once did: a checkpoint of one's own gets its name when the
    /// log is durable that far. One that was received has its name before the log says that it leads there; all of it was
    /// committed by others, and until then this member has acknowledged nothing of it.
    #[must_use]
    pub fn was_led_to(&self) -> bool {
        self.origin == Source::Log
    }
}

/// What was found in a directory of checkpoints.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The newest that holds.
    pub restored: Option<Restored>,
    /// Where that one comes from.
    pub source: Source,
    /// How far the log led once, as the names of that one and of older ones say, whether these hold or not
    /// ([`crate::wal::Checkpoint::led_to`]).
    pub led_to: Index,
    /// Newer ones that do not, the newest first.
    pub unusable: Vec<Unusable>,
}

/// Reads the newest checkpoint that holds. Takes as long as reading the files takes: for a thread.
///
/// # Errors
/// The directory cannot be listed.
pub fn load_newest(
    directory: &Path,
    cluster: ClusterId,
    shard: ShardId,
) -> Result<Loaded, DirectoryError> {
    let mut loaded = Loaded::default();
    let found = checkpoints_in(directory)?;
    let own = |&(index, source, _): &(Index, Source, _)| (source == Source::Log).then_some(index);
    let own: Vec<Index> = found.iter().filter_map(own).collect();
    for (index, origin, path) in found {
        match load(&path, index, cluster, shard) {
            Ok(restored) => {
                loaded.restored = Some(restored);
                loaded.source = origin;
                let led_to = own.into_iter().find(|&own| own <= index);
                loaded.led_to = led_to.unwrap_or_default();
                break;
            }
            Err(source) => loaded.unusable.push(Unusable {
                path,
                index,
                origin,
                source,
            }),
        }
    }
    Ok(loaded)
}

fn load(
    path: &Path,
    index: Index,
    cluster: ClusterId,
    shard: ShardId,
) -> Result<Restored, FileError> {
    let mut file = File::open(path)?;
    // What the disk holds counts, not what the cache of an earlier life says.
    fadvise(&file, 0, None, Advice::DontNeed).map_err(io::Error::from)?;
    fadvise(&file, 0, None, Advice::Sequential).map_err(io::Error::from)?;
    let mut reader = Reader::new(cluster, shard);
    let mut buffer = vec![0; READ_BLOCKS * CHECKPOINT_BLOCK_BYTES];
    loop {
        let length = fill(&mut file, &mut buffer)?;
        for block in buffer[..length].chunks(CHECKPOINT_BLOCK_BYTES) {
            reader.push(block)?;
        }
        if length < buffer.len() {
            break;
        }
    }
    // It stays in memory in another form.
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    let restored = reader.finish()?;
    let found = restored.origin.mark.index;
    if found != index {
        return Err(FileError::Renamed { found });
    }
    Ok(restored)
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
