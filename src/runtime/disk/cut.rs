//! Cutting a damaged log: what lies behind the damage goes, so that the log can be continued in its place.
//!
//! Irrevocable, so a caller stores first what the cut would make it forget ([`super::known`]). Every cut leaves a
//! line in the file `cuts` beside the log. Blocks: for a thread beside the cores.
//!
//! A crash in between leaves damage again, or a log that ends at the cut: the next start finds either, and what
//! was stored still holds.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::directory::{DirectoryError, files_in, replace_file, sync_directory};
use crate::base::limits::{CUT_RECORDS_MAX, PAGE_SIZE_BYTES};
use crate::runtime::clock::wall;
use crate::wal::{Cut, Geometry, SegmentSequence};

/// One line for each cut, the oldest first.
const RECORDS: &str = "cuts";
/// Zeros written at once.
const ZEROS_BYTES: usize = 256 * PAGE_SIZE_BYTES as usize;

/// A cut that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// A directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A file.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Cuts the log in `directory`, durably. Returns how many bytes of it are gone.
///
/// # Errors
/// [`CutError`]; then the cut is done in part, and is to be done again.
pub fn cut_log(directory: &Path, geometry: Geometry, cut: Cut) -> Result<u64, CutError> {
    let (zeros, first_gone) = match cut {
        Cut::At { segment, offset } => (Some((segment, offset)), segment.next()),
        Cut::From(segment) => (None, segment),
        Cut::Everything => (None, SegmentSequence(0)),
    };
    let mut gone = remove_from(directory, first_gone)?;
    if let Some((segment, offset)) = zeros {
        let path = directory.join(segment.file_name());
        let end = geometry.commits_end();
        write_zeros(&path, offset, end).map_err(|source| CutError::Io {
            path,
            action: "overwrite the file",
            source,
        })?;
        gone += end - offset;
    }
    Ok(gone)
}

/// Removes segments, the newest first, so that what is left has no gap. Returns their bytes.
fn remove_from(directory: &Path, first: SegmentSequence) -> Result<u64, CutError> {
    let mut gone = 0;
    for path in files_in(directory)?.into_iter().rev() {
        let name = path.file_name().and_then(|name| name.to_str());
        let sequence = name.and_then(SegmentSequence::from_file_name);
        if sequence.is_none_or(|sequence| sequence < first) {
            continue;
        }
        let size = path.metadata().and_then(|file| {
            std::fs::remove_file(&path)?;
            Ok(file.len())
        });
        gone += size.map_err(|source| CutError::Io {
            path,
            action: "remove the file",
            source,
        })?;
    }
    sync_directory(directory)?;
    Ok(gone)
}

/// The last page, the copy of the header, stays.
fn write_zeros(path: &Path, from: u64, end: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS_BYTES];
    let file = File::options().write(true).open(path)?;
    let mut offset = from;
    while offset < end {
        let length =
            usize::try_from(end - offset).map_or(ZEROS_BYTES, |left| left.min(ZEROS_BYTES));
        file.write_all_at(&zeros[..length], offset)?;
        offset += length as u64;
    }
    file.sync_all()
}

/// Removes checkpoints that cannot be used, durably.
///
/// # Errors
/// [`CutError`].
pub fn remove_checkpoints(directory: &Path, paths: &[PathBuf]) -> Result<(), CutError> {
    for path in paths {
        std::fs::remove_file(path).map_err(|source| CutError::Io {
            path: path.clone(),
            action: "remove the file",
            source,
        })?;
    }
    Ok(sync_directory(directory)?)
}

/// Adds a line about a cut, durably. The oldest lines go when there are too many.
///
/// # Errors
/// [`CutError`].
pub fn record_cut(log_directory: &Path, what: &str) -> Result<(), CutError> {
    let path = log_directory.join(RECORDS);
    let before = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        // Nothing depends on it: damage must not keep the member from its repair.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
        read => read.map_err(|source| CutError::Io {
            path: path.clone(),
            action: "read the file",
            source,
        })?,
    };
    let seconds = wall().as_secs();
    let kept = before.lines().count().saturating_sub(CUT_RECORDS_MAX - 1);
    let mut text: String = before
        .lines()
        .skip(kept)
        .map(|line| format!("{line}\n"))
        .collect();
    text.push_str(&format!("{seconds} {}\n", what.replace('\n', " ")));
    Ok(replace_file(&path, text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 64 * 1_024;

    fn log(segments: &[u64]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for &segment in segments {
            let path = root.path().join(SegmentSequence(segment).file_name());
            std::fs::write(path, vec![7; SIZE]).expect("written");
        }
        std::fs::write(root.path().join("owner"), "somebody").expect("written");
        root
    }

    /// Goal: a cut takes what lies behind it and nothing else, twice as well as once.
    #[test]
    fn what_goes() {
        let check = |cut: Cut, kept: &[u64], bytes: u64, zeros: Option<(u64, usize)>| {
            let root = log(&[4, 5, 6]);
            let geometry = Geometry::new(SIZE as u64);
            let gone = cut_log(root.path(), geometry, cut).expect("cut");
            assert_eq!(gone, bytes, "{cut:?}");
            cut_log(root.path(), geometry, cut).expect("again");
            for segment in 4..=6 {
                let file = std::fs::read(root.path().join(SegmentSequence(segment).file_name()));
                let Ok(file) = file else {
                    assert!(!kept.contains(&segment), "{cut:?} took {segment}");
                    continue;
                };
                assert!(kept.contains(&segment), "{cut:?} left {segment}");
                let from = zeros.filter(|(of, _)| *of == segment).map(|(_, from)| from);
                let (from, end) = (from.unwrap_or(SIZE - 4_096), SIZE - 4_096);
                assert!(file[..from].iter().all(|&byte| byte == 7), "{cut:?}");
                assert!(file[from..end].iter().all(|&byte| byte == 0), "{cut:?}");
                assert!(file[end..].iter().all(|&byte| byte == 7), "{cut:?}");
            }
            assert!(root.path().join("owner").exists());
        };
        let size = SIZE as u64;
        let at = Cut::At {
            segment: SegmentSequence(5),
            offset: 8_192,
        };
        check(at, &[4, 5], size + size - 12_288, Some((5, 8_192)));
        check(Cut::From(SegmentSequence(6)), &[4, 5], size, None);
        check(Cut::Everything, &[], 3 * size, None);
    }

    /// Goal: the file about cuts keeps the newest ones, one line each.
    #[test]
    fn records() {
        let root = log(&[]);
        for number in 0..CUT_RECORDS_MAX + 2 {
            record_cut(root.path(), &format!("cut\n{number}")).expect("recorded");
        }
        let text = std::fs::read_to_string(root.path().join(RECORDS)).expect("there");
        assert_eq!(text.lines().count(), CUT_RECORDS_MAX);
        let last = format!("cut {}", CUT_RECORDS_MAX + 1);
        assert!(
            text.lines()
                .next()
                .is_some_and(|line| line.ends_with("cut 2"))
        );
        assert!(
            text.lines()
                .last()
                .is_some_and(|line| line.ends_with(&last))
        );
    }
}
