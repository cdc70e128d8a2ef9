//! Slow syncs for one process: a group of the kernel's block I/O controller that lets few writes pass in a second.
//!
//! Works with the first version of control groups where they are mounted and this process may make one (root, on most
//! machines). A sync is more than one write, how many depends on the file system: so it is measured first, by a thread
//! that enters the group, and the limit set accordingly. The group lies below that of this process, so that limits
//! from outside stay in force. Must never keep a process in the group, or the group itself, when it is dropped, and
//! the group no longer than this process lives, however that ends. Blocks the calling thread.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use thiserror::Error;

/// Where the controller is mounted.
const MOUNTED: &str = "/sys/fs/cgroup/blkio";
/// What the name of a group begins with; the id of the process that made it follows.
const NAME: &str = "kontiki-load-";
/// The file of a group that names its processes.
const PROCESSES: &str = "cgroup.procs";
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
/// Waits for the end of whoever holds the other end of its standard input, and removes the group that is left then.
const JANITOR: &str = "read -r nothing; for attempt in $(seq 600); do [ -d \"$1\" ] || exit 0; \
                       rmdir \"$1\" 2>/dev/null || sleep 0.1; done";

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
    /// Removes the group when this process cannot any more.
    janitor: Child,
}

/// A process in a [`Brake`].
#[derive(Debug)]
#[must_use = "it stays slow until it is released"]
pub struct Held {
    pid: u32,
    /// The group that it came from.
    home: PathBuf,
}

impl Held {
    /// Lets it go, back to where it came from.
    ///
    /// # Errors
    /// When the kernel says no.
    pub fn release(self) -> io::Result<()> {
        fs::write(self.home.join(PROCESSES), self.pid.to_string())
    }
}

impl Brake {
    /// A group in which a sync on the disk of `data_dir` takes about `sync_time`.
    ///
    /// # Errors
    /// When this machine, or this user, cannot have one.
    pub fn new(data_dir: &Path, sync_time: Duration) -> Result<Brake, NoBrake> {
        let device = device_of(data_dir)?;
        let home = group_of(std::process::id()).map_err(no_group(Path::new(MOUNTED)))?;
        remove_left(&home);
        let group = home.join(format!("{NAME}{}", std::process::id()));
        let janitor = janitor(&group).map_err(no_group(&group))?;
        let mut brake = Brake {
            group,
            sync_time: Duration::ZERO,
            janitor,
        };
        fs::create_dir(&brake.group).map_err(no_group(&brake.group))?;
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
    pub fn hold(&self, pid: u32) -> io::Result<Held> {
        let home = group_of(pid)?;
        fs::write(self.group.join(PROCESSES), pid.to_string())?;
        Ok(Held { pid, home })
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
        let home = self.group.parent().unwrap_or(Path::new(MOUNTED));
        let held = fs::read_to_string(self.group.join(PROCESSES)).unwrap_or_default();
        for pid in held.lines() {
            // One that has ended meanwhile is in no group.
            let _ = fs::write(home.join(PROCESSES), pid);
        }
        for _ in 0..REMOVE_ATTEMPTS_MAX {
            if fs::remove_dir(&self.group).is_ok() || !self.group.exists() {
                break;
            }
            std::thread::sleep(REMOVE_PAUSE);
        }
        // It goes on to try where this has failed.
        drop(self.janitor.stdin.take());
        let _ = self.janitor.wait();
    }
}

/// Starts the process that removes a group after the end of this one, also by SIGKILL. What is typed at the terminal does
/// not reach it.
fn janitor(group: &Path) -> io::Result<Child> {
    Command::new("sh")
        .args(["-c", JANITOR, "janitor"])
        .arg(group)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}

/// Removes the groups of processes that are gone, and one of an earlier process with the id of this one.
fn remove_left(home: &Path) {
    let names = fs::read_dir(home).into_iter().flatten().flatten();
    for entry in names {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(NAME));
        let Some(pid) = pid.and_then(|pid| pid.parse::<u32>().ok()) else {
            continue;
        };
        let lives = Path::new("/proc").join(pid.to_string()).exists();
        if !lives || pid == std::process::id() {
            // One that cannot be removed is not empty.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// The group of the controller that a process is in.
fn group_of(pid: u32) -> io::Result<PathBuf> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    place(&groups, &mounts).ok_or_else(|| io::Error::other("no such controller in sight"))
}

/// The directory of a process's group, from what the kernel says about the process and about mounts. A container may see
/// a part of all groups only: then it is that part's root that is mounted.
fn place(groups: &str, mounts: &str) -> Option<PathBuf> {
    let path = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        controllers
            .split(',')
            .any(|name| name == "blkio")
            .then_some(path)
    })?;
    let root = mounts.lines().rev().find_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, mounted) = (fields.next()?, fields.next()?);
        (mounted == MOUNTED).then_some(root)
    })?;
    let below = Path::new(path).strip_prefix(root).ok()?;
    Some(Path::new(MOUNTED).join(below))
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

    /// Goal: a group is found where the kernel says, also in a container that sees a part of all groups only.
    #[test]
    fn places() {
        let check = |path: &str, root: &str, expected: Option<&str>| {
            let groups = format!("9:name=systemd:/x\n7:blkio,other:{path}\n0::/y\n");
            let mounts = format!(
                "30 1 0:2 / /sys rw - sysfs sysfs rw\n\
                 38 31 0:35 {root} {MOUNTED} rw,relatime - cgroup cgroup rw,blkio\n"
            );
            let found = place(&groups, &mounts);
            assert_eq!(
                found.as_deref(),
                expected.map(Path::new),
                "{path} of {root}"
            );
        };
        check("/", "/", Some(MOUNTED));
        check(
            "/a.slice/b:c",
            "/",
            Some("/sys/fs/cgroup/blkio/a.slice/b:c"),
        );
        check("/docker/1", "/docker/1", Some(MOUNTED));
        check("/docker/1/m", "/docker/1", Some("/sys/fs/cgroup/blkio/m"));
        check("/docker/2", "/docker/1", None);
        assert_eq!(place("", ""), None);
    }

    /// Goal: where there is a brake it works, what it held goes back to where it came from, and nothing is left
    /// afterwards, of a process that was killed neither; elsewhere it says why there is none.
    #[test]
    fn slows_or_says_why() {
        let home = tempfile::tempdir_in(".").expect("the build is on a disk");
        let wanted = Duration::from_millis(60);
        match Brake::new(home.path(), wanted) {
            Ok(brake) => {
                assert!(brake.sync_time() >= wanted / 2, "{brake:?}");
                let group = brake.group.clone();
                assert!(group.exists());
                let home = group.with_file_name(format!("home-of-{}", std::process::id()));
                fs::create_dir(&home).expect("another group");
                let mut process = Command::new("sleep").arg("600").spawn().expect("it starts");
                let pid = process.id();
                fs::write(home.join(PROCESSES), pid.to_string()).expect("moved");
                let held = brake.hold(pid).expect("moved");
                assert_eq!(group_of(pid).expect("it runs"), group);
                held.release().expect("moved");
                assert_eq!(group_of(pid).expect("it runs"), home);
                process.kill().expect("it runs");
                process.wait().expect("it ends");
                fs::remove_dir(&home).expect("it is empty");
                drop(brake);
                assert!(!group.exists(), "{group:?} is left");
                // What a killed process leaves: no process has this id.
                let left = group.with_file_name(format!("{NAME}{}", u32::MAX));
                for by_janitor in [true, false] {
                    fs::create_dir(&left).expect("a group");
                    if by_janitor {
                        let mut janitor = janitor(&left).expect("it starts");
                        drop(janitor.stdin.take());
                        janitor.wait().expect("it ends");
                    } else {
                        remove_left(left.parent().expect("below another"));
                    }
                    assert!(!left.exists(), "{left:?} is left");
                }
            }
            Err(why) => assert!(!why.to_string().is_empty()),
        }
    }
}
