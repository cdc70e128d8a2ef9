//! What lies below a log directory: one line at start, so that slow syncs can be explained later.
//!
//! Owns the reading of /sys and /proc for it, and a few probe commits that show how many bytes the device
//! writes for one byte of the log. Runs at start, before the cores, and blocks for some milliseconds.
//! Nothing here is ever a reason not to start.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use crate::base::limits::PAGE_SIZE_BYTES;

/// Commits of the probe, and the size of each.
const PROBE_COMMITS: u64 = 24;
const PROBE_COMMIT_BYTES: u64 = 16 << 10;
/// Bytes on the device for one byte of the log, above which a warning is due.
const AMPLIFICATION_MAX: f64 = 3.0;
/// The unit of /sys/dev/block/*/stat.
const SECTOR_BYTES: u64 = 512;

/// The device and file system of a directory. Fields are `None` where the kernel does not say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceReport {
    /// The file system's type.
    pub file_system: Option<String>,
    /// The block device's name.
    pub device: Option<String>,
    /// Whether the device has a volatile write cache, which each sync must flush.
    pub write_cache: Option<bool>,
    /// Whether it can write past its cache, which saves the flush.
    pub fua: Option<bool>,
    /// Whether pages must not change while they are written.
    pub stable_pages: Option<bool>,
    /// Bytes written to the device for each byte committed, from the probe.
    pub amplification: Option<f64>,
}

impl DeviceReport {
    /// Looks at what `directory` lies on and makes a few probe commits in it.
    #[must_use]
    pub fn of(directory: &Path) -> DeviceReport {
        let Ok(number) = directory.metadata().map(|metadata| metadata.dev()) else {
            return DeviceReport::default();
        };
        let number = format!(
            "{}:{}",
            rustix::fs::major(number),
            rustix::fs::minor(number)
        );
        let mut report = DeviceReport {
            file_system: file_system(&number),
            ..DeviceReport::default()
        };
        // Without a block device of its own (overlay, btrfs, memory) there is no more to tell.
        let Ok(device) = std::fs::canonicalize(Path::new("/sys/dev/block").join(&number)) else {
            return report;
        };
        report.device = device
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let queue = if device.join("queue").exists() {
            device.join("queue")
        } else {
            // A partition: the queue is its disk's.
            device.join("../queue")
        };
        report.write_cache = attribute(&queue, "write_cache").map(|text| text == "write back");
        report.fua = attribute(&queue, "fua").map(|text| text == "1");
        report.stable_pages = attribute(&queue, "stable_writes").map(|text| text == "1");
        report.amplification = probe(directory, &device.join("stat")).ok();
        report
    }

    /// Whether the probe wrote so much that syncs will be slow and flash will wear.
    #[must_use]
    pub fn amplifies(&self) -> bool {
        self.amplification
            .is_some_and(|amplification| amplification > AMPLIFICATION_MAX)
    }

    /// Writes the line to the log, as a warning when the probe is out of bounds.
    pub fn log(&self) {
        if self.amplifies() {
            tracing::warn!(
                "log device: {self}: the device writes more than {AMPLIFICATION_MAX} bytes for each byte of the log"
            );
        } else {
            tracing::info!("log device: {self}");
        }
    }
}

impl fmt::Display for DeviceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |known: Option<bool>| match known {
            Some(true) => "yes",
            Some(false) => "no",
            None => "unknown",
        };
        write!(
            f,
            "file system {}, device {}, volatile write cache {}, FUA {}, stable pages {}, write amplification ",
            self.file_system.as_deref().unwrap_or("unknown"),
            self.device.as_deref().unwrap_or("unknown"),
            word(self.write_cache),
            word(self.fua),
            word(self.stable_pages),
        )?;
        match self.amplification {
            Some(amplification) => write!(f, "{amplification:.2}"),
            None => write!(f, "unknown"),
        }
    }
}

fn attribute(queue: &Path, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(queue.join(name)).ok()?;
    Some(text.trim().to_owned())
}

/// The type of the file system with this device number, from this process's mounts.
fn file_system(number: &str) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    parse_mounts(&mounts, number)
}

/// Per line: id, parent, major:minor, root, mount point, options, optional fields, "-", type, and more.
fn parse_mounts(mounts: &str, number: &str) -> Option<String> {
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some(number))?;
    let (_, after) = line.split_once(" - ")?;
    Some(after.split(' ').next()?.to_owned())
}

/// The seventh number: sectors written since the start of the machine.
fn sectors_written(stat: &Path) -> io::Result<u64> {
    std::fs::read_to_string(stat)?
        .split_whitespace()
        .nth(6)
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Bytes on the device for each byte committed. What others write meanwhile is counted too, so this is a hint.
fn probe(directory: &Path, stat: &Path) -> io::Result<f64> {
    let path = directory.join("probe.tmp");
    let amplification = probe_in(&path, stat);
    std::fs::remove_file(path)?;
    amplification
}

fn probe_in(path: &Path, stat: &Path) -> io::Result<f64> {
    let file = File::create(path)?;
    let page = [0u8; PAGE_SIZE_BYTES as usize];
    let size = PROBE_COMMITS * PROBE_COMMIT_BYTES;
    for offset in (0..size).step_by(page.len()) {
        file.write_all_at(&page, offset)?;
    }
    file.sync_all()?;
    let before = sectors_written(stat)?;
    let page = [0x5a; PAGE_SIZE_BYTES as usize];
    for commit in 0..PROBE_COMMITS {
        let start = commit * PROBE_COMMIT_BYTES;
        for offset in (start..start + PROBE_COMMIT_BYTES).step_by(page.len()) {
            file.write_all_at(&page, offset)?;
        }
        file.sync_data()?;
    }
    let written = sectors_written(stat)?.saturating_sub(before) * SECTOR_BYTES;
    Ok(written as f64 / size as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the mount table is read by device number, optional fields or not.
    #[test]
    fn mount_table() {
        let mounts = "22 1 254:0 / / rw - ext4 /dev/root rw\n\
                      30 22 0:25 / /dev/shm rw,nosuid shared:3 - tmpfs tmpfs rw\n";
        assert_eq!(parse_mounts(mounts, "254:0").as_deref(), Some("ext4"));
        assert_eq!(parse_mounts(mounts, "0:25").as_deref(), Some("tmpfs"));
        assert_eq!(parse_mounts(mounts, "8:1"), None);
        assert_eq!(parse_mounts("nonsense\n\n", "8:1"), None);
    }

    /// Goal: a real directory gives a line and keeps no probe file; a missing one gives "unknown", not an error.
    #[test]
    fn report() {
        let root = tempfile::tempdir().expect("a directory");
        let report = DeviceReport::of(root.path());
        assert!(report.file_system.is_some(), "{report}");
        assert_eq!(root.path().read_dir().expect("listed").count(), 0);
        let nowhere = DeviceReport::of(Path::new("/nowhere")).to_string();
        assert!(
            nowhere.ends_with("write amplification unknown"),
            "{nowhere}"
        );
    }

    /// Goal: the warning starts above the bound.
    #[test]
    fn warning() {
        let with = |amplification| DeviceReport {
            amplification,
            ..DeviceReport::default()
        };
        assert!(!with(None).amplifies());
        assert!(!with(Some(3.0)).amplifies());
        assert!(with(Some(3.1)).amplifies());
    }
}
