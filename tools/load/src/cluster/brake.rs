//! Slow syncs for one process: a group of the kernel's block I/O controller that lets few writes pass in a second.
//!
//! Works with the first version of control groups where they are mounted and this process may make one (root, on most
//! machines). A sync is more than one write, how many depends on the file system: so it is measured first, by a thread
//! that enters the group, and the limit set accordingly. Must never keep a process in the group, or the group itself,
//! when it is dropped. Blocks the calling thread.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thiserror::Error;

/// Where the controller is mounted.
const MOUNTED: &str = "/sys/fs/cgroup/blkio";
/// The file of a group that holds its limit.
const LIMIT: &str = "blkio.throttle.write_iops_device";
/// Writes per second with which it is measured of how many writes a sync consists.
const MEASURED_WRITES_PER_SECOND: u64 = 20;
/// Syncs of one measurement; the first has no queue before it and is left out.
const MEASURED_SYNCS: usize = 5;
/// What one of them writes.
const PAGE_BYTES: usize = 4096;
/// Attempts to remove a group whose last process has just left.
const REMOVE_ATTEMPTS_MAX: usize = 50;
const REMOVE_PAUSE: Duration = Duration::from_millis(20);

/// Why syncs cannot be slowed here.
#[derive(Debug, Error)]
pub enum NoBrake {
    /// There is no such controller, or no right to it.
    #[error("no group of the block I/O controller at {path}: {error}")]
    Group {
        /// What was tried.
        path: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// The data is on no block device.
    #[error("{path} is on no block device that the kernel could limit")]
    NoDevice {
        /// Which directory.
        path: String,
    },
    /// The group changes nothing.
    #[error("a sync takes {took:?} in a group in which it should take {wanted:?}")]
    NoEffect {
        /// What was asked for.
        wanted: Duration,
        /// What was measured.
        took: Duration,
    },
    /// The measurement failed.
    #[error("measuring a sync: {0}")]
    Measure(io::Error),
}

/// A group in which syncs are slow. Dropping it frees its processes and removes it.
#[derive(Debug)]
pub struct Brake {
    group: PathBuf,
    sync_time: Duration,
}

impl Brake {
    /// A group in which a sync on the disk of `data_dir` takes about `sync_time`.
    ///
    /// # Errors
    /// When this machine, or this user, cannot have one.
    pub fn new(data_dir: &Path, sync_time: Duration) -> Result<Brake, NoBrake> {
        let device = device_of(data_dir)?;
        let group = Path::new(MOUNTED).join(format!("kontiki-load-{}", std::process::id()));
        fs::create_dir(&group).map_err(no_group(&group))?;
        let mut brake = Brake {
            group,
            sync_time: Duration::ZERO,
        };
        brake.limit(&device, MEASURED_WRITES_PER_SECOND)?;
        let took = brake.measure(data_dir).map_err(NoBrake::Measure)?;
        let per_second = writes_per_second(took, sync_time);
        brake.limit(&device, per_second)?;
        let took = brake.measure(data_dir).map_err(NoBrake::Measure)?;
        if took < sync_time / 2 {
            return Err(NoBrake::NoEffect {
                wanted: sync_time,
                took,
            });
        }
        brake.sync_time = took;
        Ok(brake)
    }

    /// What a sync takes in it, as measured without other load.
    #[must_use]
    pub fn sync_time(&self) -> Duration {
        self.sync_time
    }

    /// Takes a process in, with all its threads.
    ///
    /// # Errors
    /// When the kernel says no.
    pub fn hold(&self, pid: u32) -> io::Result<()> {
        fs::write(self.group.join("cgroup.procs"), pid.to_string())
    }

    /// Lets it go.
    ///
    /// # Errors
    /// When the kernel says no.
    pub fn release(&self, pid: u32) -> io::Result<()> {
        fs::write(Path::new(MOUNTED).join("cgroup.procs"), pid.to_string())
    }

    fn limit(&self, device: &str, per_second: u64) -> Result<(), NoBrake> {
        let file = self.group.join(LIMIT);
        fs::write(&file, format!("{device} {per_second}")).map_err(no_group(&file))
    }

    /// What a sync takes: by a thread of its own, which leaves the group with its end.
    fn measure(&self, data_dir: &Path) -> io::Result<Duration> {
        let tasks = self.group.join("tasks");
        let file = tempfile::tempfile_in(data_dir)?;
        file.write_all_at(&[1; PAGE_BYTES * (MEASURED_SYNCS + 1)], 0)?;
        file.sync_all()?;
        std::thread::scope(|scope| {
            let measured = scope.spawn(|| {
                let own = rustix::thread::gettid().as_raw_nonzero();
                fs::write(&tasks, own.to_string())?;
                measure_syncs(&file)
            });
            measured.join().expect("measuring does not panic")
        })
    }
}

impl Drop for Brake {
    fn drop(&mut self) {
        let held = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
        for pid in held.lines().filter_map(|line| line.trim().parse().ok()) {
            // One that has ended meanwhile is in no group.
            let _ = self.release(pid);
        }
        for _ in 0..REMOVE_ATTEMPTS_MAX {
            if fs::remove_dir(&self.group).is_ok() {
                return;
            }
            std::thread::sleep(REMOVE_PAUSE);
        }
    }
}

fn no_group(path: &Path) -> impl FnOnce(io::Error) -> NoBrake {
    let path = path.display().to_string();
    |error| NoBrake::Group { path, error }
}

/// The median.
fn measure_syncs(file: &File) -> io::Result<Duration> {
    let mut times = Vec::new();
    for page in 0..=MEASURED_SYNCS {
        let start = Instant::now();
        file.write_all_at(&[2; PAGE_BYTES], (page * PAGE_BYTES) as u64)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    times.remove(0);
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// With which limit a sync takes `wanted`, when it took `took` with the one of the measurement.
fn writes_per_second(took: Duration, wanted: Duration) -> u64 {
    let writes = (took.as_secs_f64() * MEASURED_WRITES_PER_SECOND as f64).max(1.0);
    let per_second = writes / wanted.as_secs_f64().max(1e-3);
    (per_second.round() as u64).max(1)
}

/// The disk that holds a directory, as `MAJOR:MINOR`: limits are those of whole disks.
fn device_of(path: &Path) -> Result<String, NoBrake> {
    let none = || NoBrake::NoDevice {
        path: path.display().to_string(),
    };
    let device = fs::metadata(path).map_err(NoBrake::Measure)?.dev();
    let number = format!(
        "{}:{}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    );
    let known = Path::new("/sys/dev/block").join(&number);
    let place = known.canonicalize().map_err(|_| none())?;
    if !place.join("partition").exists() {
        return Ok(number);
    }
    let disk = place.parent().ok_or_else(none)?.join("dev");
    let disk = fs::read_to_string(disk).map_err(|_| none())?;
    Ok(disk.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: however many writes a sync consists of, the limit makes it take what was asked for.
    #[test]
    fn limits() {
        let check = |took_ms: u64, wanted_ms: u64, expected: u64| {
            let (took, wanted) = (
                Duration::from_millis(took_ms),
                Duration::from_millis(wanted_ms),
            );
            assert_eq!(writes_per_second(took, wanted), expected);
        };
        // One, two and three writes at 20 per second.
        check(50, 100, 10);
        check(100, 100, 20);
        check(150, 100, 30);
        // A sync that was not slowed at all counts as one write.
        check(1, 100, 10);
        check(50, 5_000, 1);
    }

    /// Goal: where there is a brake it works and is gone afterwards; elsewhere it says why there is none.
    #[test]
    fn slows_or_says_why() {
        let home = tempfile::tempdir_in(".").expect("the build is on a disk");
        let wanted = Duration::from_millis(60);
        match Brake::new(home.path(), wanted) {
            Ok(brake) => {
                assert!(brake.sync_time() >= wanted / 2, "{brake:?}");
                let group = brake.group.clone();
                assert!(group.exists());
                drop(brake);
                assert!(!group.exists(), "{group:?} is left");
            }
            Err(why) => assert!(!why.to_string().is_empty()),
        }
    }
}
