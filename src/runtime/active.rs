//! The active segment of a shard's log, and the bytes on their way to it.

use std::path::PathBuf;

use super::disk::log::{LogJob, LogWriter};
use super::disk::segments::{DiskAnswer, DiskThread};
use super::mailbox::Receiver;
use crate::wal::{Commit, SegmentOpening, SegmentSequence};

/// Bytes on their way to the log's file.
#[derive(Debug)]
pub enum LogBytes {
    /// A batch of records.
    Commit(Commit),
    /// A segment's header.
    Opening(SegmentOpening),
}

impl AsRef<[u8]> for LogBytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            LogBytes::Commit(commit) => commit.bytes(),
            LogBytes::Opening(opening) => opening.page(),
        }
    }
}

/// Opens the segment that takes commits after a restart. It exists in full; only its mapping is made.
pub async fn open_active(
    writer: &LogWriter<LogBytes>,
    disk: &DiskThread,
    answers: &mut Receiver<DiskAnswer>,
    path: PathBuf,
    sequence: SegmentSequence,
) -> Result<(), String> {
    disk.prepare(sequence.0, path)
        .map_err(|error| error.to_string())?;
    match answers.receive().await {
        Some(DiskAnswer::Ready(segment)) => {
            if writer.submit(LogJob::Open(segment)).is_err() {
                return Err("the log's writer takes no jobs".to_owned());
            }
            writer.done().await;
            Ok(())
        }
        Some(DiskAnswer::OutOfSpace { .. }) => Err("the file system is full".to_owned()),
        Some(DiskAnswer::Failed { error, .. }) => Err(error.to_string()),
        None => Err("the disk thread has ended".to_owned()),
    }
}
