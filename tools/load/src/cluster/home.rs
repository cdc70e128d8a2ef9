//! Where servers keep their data: on a disk, in a directory of their own that is removed with them.

use std::path::{Path, PathBuf};

use rustix::fs::statfs;
use tempfile::TempDir;

use super::{ClusterError, world};

/// File systems that keep files in memory, by the number that statfs(2) gives.
const IN_MEMORY: [(i64, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];

/// Where data goes when no place is named: beside the build, which is on a disk on most machines.
#[must_use]
pub fn default_data_dir() -> PathBuf {
    let executable = std::env::current_exe().unwrap_or_default();
    executable
        .parent()
        .unwrap_or(Path::new("."))
        .join("kontiki-load-data")
}

/// A fresh directory under `data_dir`.
pub(super) fn prepare(data_dir: &Path) -> Result<TempDir, ClusterError> {
    let shown = data_dir.display();
    std::fs::create_dir_all(data_dir).map_err(world(format!("{shown}")))?;
    let found = statfs(data_dir).map_err(|error| world(format!("{shown}"))(error.into()))?;
    refuse_memory(data_dir, found.f_type)?;
    tempfile::Builder::new()
        .prefix("cluster-")
        .tempdir_in(data_dir)
        .map_err(world(format!("{shown}")))
}

fn refuse_memory(path: &Path, number: i64) -> Result<(), ClusterError> {
    match IN_MEMORY.iter().find(|(known, _)| *known == number) {
        Some((_, file_system)) => Err(ClusterError::InMemory {
            path: path.display().to_string(),
            file_system,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: memory file systems are refused by name, disks are taken, and nothing is left behind.
    #[test]
    fn only_disks() {
        let check = |number, expected: &str| {
            let refused = refuse_memory(Path::new("/x"), number).expect_err("memory");
            assert!(refused.to_string().contains(expected), "{refused}");
        };
        check(0x0102_1994, "/x is on tmpfs");
        check(0x8584_58f6, "/x is on ramfs");
        assert!(refuse_memory(Path::new("/x"), 0xef53).is_ok(), "ext4");
        let shared = Path::new("/dev/shm");
        if statfs(shared).is_ok_and(|found| found.f_type == IN_MEMORY[0].0) {
            assert!(prepare(shared).is_err());
        }
        let below = tempfile::tempdir_in(".").expect("the build is on a disk");
        let home = prepare(below.path()).expect("a directory");
        let path = home.path().to_owned();
        drop(home);
        assert!(!path.exists());
    }
}
