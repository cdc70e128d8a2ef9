//! The files of the write-ahead log, seen from outside, to time a kill by them.
//!
//! Knows three things only, true of kontiki and of etcd: log files end in `.wal`, lie somewhere in the
//! data directory, and are zero beyond what was written.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// The last page of a segment may hold a copy of its header, written when the segment is prepared.
const TRAILER_BYTES: u64 = 4096;
/// The unit of the backward search for the end of what was written.
const SCAN_BYTES: usize = 256 * 1024;

/// How far the log is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogEnd {
    /// Segments with at least one record beyond their first page.
    pub segments: usize,
    /// Bytes of the newest of them that were written.
    pub used_bytes: u64,
    /// Size of the newest of them.
    pub size_bytes: u64,
}

/// Finds the end of the log below `data_dir`. A running server may move on meanwhile.
///
/// # Errors
/// When a file cannot be read.
pub fn log_end(data_dir: &Path) -> io::Result<LogEnd> {
    let mut files = wal_files(data_dir)?;
    files.sort();
    let mut end = LogEnd::default();
    for path in files {
        // A file may be renamed between the listing and the opening.
        let Ok(file) = File::open(&path) else {
            continue;
        };
        let size = file.metadata()?.len();
        let used = used_bytes(&file, size.saturating_sub(TRAILER_BYTES))?;
        if used > TRAILER_BYTES {
            end.segments += 1;
            end.used_bytes = used;
            end.size_bytes = size;
        }
    }
    Ok(end)
}

/// Notices of files that appear, disappear or change their names in the log's directories.
pub struct ChangeWatch(pipe::Receiver);

impl ChangeWatch {
    /// Watches every directory below `data_dir` that holds log files now.
    ///
    /// # Errors
    /// When the kernel refuses a watch.
    pub fn start(data_dir: &Path) -> io::Result<ChangeWatch> {
        let notices = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let mut directories: Vec<PathBuf> = wal_files(data_dir)?
            .iter()
            .filter_map(|file| Some(file.parent()?.to_owned()))
            .collect();
        directories.sort();
        directories.dedup();
        for directory in directories {
            let changes = WatchFlags::CREATE | WatchFlags::MOVE | WatchFlags::DELETE;
            inotify::add_watch(&notices, &directory, changes)?;
        }
        // Read like a pipe: a descriptor that becomes readable, and whole notices per read.
        Ok(ChangeWatch(pipe::Receiver::from_owned_fd_unchecked(
            notices,
        )?))
    }

    /// Waits for the next change.
    ///
    /// # Errors
    /// When reading the notices fails.
    pub async fn changed(&mut self) -> io::Result<()> {
        let mut notices = [0_u8; 4096];
        self.0.read(&mut notices).await.map(|_| ())
    }
}

fn wal_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(wal_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "wal") {
            found.push(path);
        }
    }
    Ok(found)
}

/// The position after the last byte below `end` that is not zero.
fn used_bytes(file: &File, end: u64) -> io::Result<u64> {
    let mut bytes = vec![0; SCAN_BYTES];
    let mut end = end;
    while end > 0 {
        let start = end.saturating_sub(SCAN_BYTES as u64);
        let part = &mut bytes[..(end - start) as usize];
        file.read_exact_at(part, start)?;
        if let Some(last) = part.iter().rposition(|byte| *byte != 0) {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the end is found over scan borders, the trailer is no content, a spare is no segment.
    #[test]
    fn end_of_a_log() {
        let home = tempfile::tempdir().expect("a directory");
        let size = 4 * SCAN_BYTES as u64 + TRAILER_BYTES;
        let write = |name: &str, at: &[u64]| {
            fs::create_dir_all(home.path().join("wal")).expect("a directory");
            let file = File::create(home.path().join("wal").join(name)).expect("a file");
            file.set_len(size).expect("room");
            for position in at {
                file.write_all_at(&[7], *position).expect("room");
            }
        };
        write("1.wal", &[0, size / 2, size - 1]);
        write("2.wal", &[0, 2 * SCAN_BYTES as u64 - 1, size - 1]);
        write("3.wal", &[0, size - 1]);
        write("4.tmp", &[size / 2]);
        let expected = LogEnd {
            segments: 2,
            used_bytes: 2 * SCAN_BYTES as u64,
            size_bytes: size,
        };
        assert_eq!(log_end(home.path()).expect("readable"), expected);
    }
}
