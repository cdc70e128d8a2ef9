//! The data directory: made, checked, locked.
//!
//! Owns the lock that keeps two processes from one directory. Runs once, before the cores start, and may
//! block. It must never touch a directory that another store's data lies in.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::base::ShardId;

/// The data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Files of an etcd member are in it.
    #[error(
        "{}: this directory holds the data of an etcd member ({} exists), which kontiki cannot read; \
         choose another --data-dir, and copy the data with a client (etcdctl make-mirror)",
        path.display(), evidence.display()
    )]
    EtcdData {
        /// The directory.
        path: PathBuf,
        /// What gives it away.
        evidence: PathBuf,
    },
    /// Another process runs on it.
    #[error(
        "{}: the data directory is locked by another process; only one member may use it at a time",
        path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// Something that is not a directory has the name.
    #[error("{}: the data directory's name is taken by something that is not a directory", path.display())]
    NotADirectory {
        /// The name.
        path: PathBuf,
    },
    /// No permission, or a read-only file system.
    #[error("{}: the data directory is not writable: {source}", path.display())]
    NotWritable {
        /// The file or directory that was tried.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Anything else.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Between two attempts to lock a directory.
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// Attempts to lock it: two seconds.
const LOCK_ATTEMPTS: u32 = 100;

/// A data directory that is this process's alone until it ends.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    /// Closed, and so unlocked, by the end of the process, however it comes.
    _lock: File,
}

impl DataDirectory {
    /// Makes the directory if need be (mode 0700), refuses one that is not ours, and locks it.
    ///
    /// # Errors
    /// [`DirectoryError`] with the path and the cause.
    pub fn open(path: &Path) -> Result<DataDirectory, DirectoryError> {
        refuse_etcd(path)?;
        make_directory(path)?;
        let lock_path = path.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|source| explain(&lock_path, "open the lock file", source))?;
        lock_exclusively(&lock, path, &lock_path)?;
        sync_directory(path)?;
        Ok(DataDirectory {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of one shard's log, made durably if it is missing.
    ///
    /// # Errors
    /// [`DirectoryError`] with the path and the cause.
    pub fn log_directory(&self, shard: ShardId) -> Result<PathBuf, DirectoryError> {
        self.part_of_shard(shard, "wal")
    }

    /// The directory of one shard's checkpoints, made durably if it is missing.
    ///
    /// # Errors
    /// [`DirectoryError`] with the path and the cause.
    pub fn checkpoint_directory(&self, shard: ShardId) -> Result<PathBuf, DirectoryError> {
        self.part_of_shard(shard, "checkpoints")
    }

    fn part_of_shard(&self, shard: ShardId, name: &str) -> Result<PathBuf, DirectoryError> {
        let shard_path = self.path.join(format!("shard-{shard}"));
        let part_path = shard_path.join(name);
        make_directory(&shard_path)?;
        make_directory(&part_path)?;
        sync_directory(&self.path)?;
        sync_directory(&shard_path)?;
        Ok(part_path)
    }
}

/// Takes the lock. A process that was killed holds it until its memory is given back, which a restart
/// right after must not mistake for another member.
fn lock_exclusively(lock: &File, path: &Path, lock_path: &Path) -> Result<(), DirectoryError> {
    for _ in 0..LOCK_ATTEMPTS {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::park_timeout(LOCK_RETRY),
            Err(errno) => return Err(explain(lock_path, "lock the directory", errno.into())),
        }
    }
    Err(DirectoryError::Locked {
        path: path.to_owned(),
    })
}

fn refuse_etcd(path: &Path) -> Result<(), DirectoryError> {
    for evidence in ["member/snap", "member/wal"] {
        let evidence = path.join(evidence);
        if evidence.exists() {
            return Err(DirectoryError::EtcdData {
                path: path.to_owned(),
                evidence,
            });
        }
    }
    Ok(())
}

fn make_directory(path: &Path) -> Result<(), DirectoryError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    match made {
        Ok(()) => Ok(()),
        Err(_) if path.exists() && !path.is_dir() => Err(DirectoryError::NotADirectory {
            path: path.to_owned(),
        }),
        Err(source) => Err(explain(path, "make the directory", source)),
    }
}

/// Makes names in `directory` durable: files created, renamed or removed there.
///
/// # Errors
/// [`DirectoryError::Io`].
pub fn sync_directory(directory: &Path) -> Result<(), DirectoryError> {
    File::open(directory)
        .and_then(|handle| handle.sync_all())
        .map_err(|source| explain(directory, "sync the directory", source))
}

/// A file's bytes and its name, both durable, in one step: a crash leaves the old file or the new one.
///
/// # Errors
/// [`DirectoryError::Io`] or [`DirectoryError::NotWritable`].
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), DirectoryError> {
    let temporary = path.with_extension("tmp");
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        io::Write::write_all(&mut file, bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|source| explain(path, "replace the file", source))?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

/// The paths of the plain files in `directory`, sorted.
///
/// # Errors
/// [`DirectoryError`].
pub fn files_in(directory: &Path) -> Result<Vec<PathBuf>, DirectoryError> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in directory.read_dir()? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                files.push(entry.path());
            }
        }
        Ok(files)
    };
    let mut files = list().map_err(|source| explain(directory, "list the directory", source))?;
    files.sort();
    Ok(files)
}

pub(super) fn explain(path: &Path, action: &'static str, source: io::Error) -> DirectoryError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            DirectoryError::NotWritable { path, source }
        }
        _ => DirectoryError::Io {
            path,
            action,
            source,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Goal: a new directory is private, locked while in use and free afterwards.
    #[test]
    fn made_and_locked() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("a/b");
        let held = DataDirectory::open(&path).expect("opened");
        let mode = path.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let second = DataDirectory::open(&path).expect_err("locked");
        assert!(matches!(second, DirectoryError::Locked { .. }), "{second}");
        let log = held.log_directory(ShardId(0)).expect("made");
        assert_eq!(log, path.join("shard-0/wal"));
        drop(held);
        DataDirectory::open(&path).expect("free again");
    }

    /// Goal: an etcd directory, a file and a place without permission are refused by name.
    #[test]
    fn refusals() {
        let root = tempfile::tempdir().expect("a directory");
        let etcd = root.path().join("etcd");
        std::fs::create_dir_all(etcd.join("member/snap")).expect("made");
        let error = DataDirectory::open(&etcd).expect_err("refused").to_string();
        assert!(
            error.contains("etcd member") && error.contains("--data-dir"),
            "{error}"
        );
        assert!(!etcd.join("lock").exists(), "nothing was written");

        let file = root.path().join("file");
        std::fs::write(&file, "").expect("written");
        let error = DataDirectory::open(&file).expect_err("refused");
        assert!(
            matches!(error, DirectoryError::NotADirectory { .. }),
            "{error}"
        );

        // Not even root may create files there.
        let error = DataDirectory::open(Path::new("/proc/kontiki")).expect_err("refused");
        assert!(error.to_string().contains("/proc/kontiki"), "{error}");
    }

    /// Goal: a replaced file has the new bytes and leaves nothing beside it.
    #[test]
    fn replaced_file() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("identity");
        for text in ["first", "second"] {
            replace_file(&path, text.as_bytes()).expect("replaced");
            assert_eq!(std::fs::read_to_string(&path).expect("read"), text);
        }
        assert_eq!(files_in(root.path()).expect("listed"), [path]);
    }
}
