//! `kontiki local-cluster`: a cluster on this machine, every member a process of its own.
//!
//! Owns the members' processes: starts them in process groups of their own, so that a signal from the terminal
//! reaches them only through here, waits until they serve, says which one ends, and hands signals on. It never
//! starts a member again, and it touches no process that it did not start. Blocks; runs on plain threads.

mod look;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use self::look::Looker;
use crate::base::Instant;
use crate::config::{ConfigError, LocalCluster, LocalMember, LocalShape};
use crate::runtime::clock::Clock;
use crate::runtime::placement::{self, CoreRequest, PlacementError};

/// Says, beside the members' directories, how the cluster began.
const SHAPE_FILE: &str = "cluster.json";
/// Between two questions whether the members serve.
const LOOK: Duration = Duration::from_millis(100);
/// After this somebody is told that it takes long.
const PATIENCE: Duration = Duration::from_mins(1);
/// A signal that follows another so soon is the same wish: `timeout` and terminals signal process and group.
const ONE_WISH: Duration = Duration::from_millis(500);
/// Members of a cluster whose start failed have so long to end before they are killed.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);
/// Lines of its log shown of a member that ended.
const SHOWN_LINES: usize = 3;

/// Why no cluster runs.
#[derive(Debug, thiserror::Error)]
pub enum LocalClusterError {
    /// The CPUs of this process are not known.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// The flags do not fit the cluster that was found.
    #[error(transparent)]
    Flags(#[from] ConfigError),
    /// What says how the cluster began cannot be read.
    #[error("{}: {source}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The kernel or the file system said no.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: String,
        /// The answer.
        source: io::Error,
    },
    /// A member ended although nobody asked it to.
    #[error("{ended} of {members} members ended by themselves")]
    Ended {
        /// How many did.
        ended: usize,
        /// Of how many.
        members: usize,
    },
}

/// What can happen.
enum Happening {
    /// The members that were asked whether they serve do so, all of them, or not.
    Looked(bool),
    /// Somebody wants the cluster to end.
    Asked(Signal),
    /// The member with this number is gone.
    Ended(usize, io::Result<ExitStatus>),
}

/// A member that was started.
struct Running {
    plan: LocalMember,
    /// Stands for this very process, also when its number is used again.
    process: OwnedFd,
    pid: u32,
    alive: bool,
}

/// Runs a cluster until it is told to stop, or no member is left.
///
/// # Errors
/// What could not be started, or that members ended by themselves.
pub fn run(mut cluster: LocalCluster) -> Result<(), LocalClusterError> {
    std::fs::create_dir_all(&cluster.data_dir)
        .map_err(system(format!("make {}", cluster.data_dir.display())))?;
    go_on_or_begin(&mut cluster)?;
    let program = std::env::current_exe().map_err(system("find this program"))?;
    let cpus = placement::choose(&CoreRequest::All)?;
    let (sender, happenings) = channel();
    let looker = Looker::start(sender.clone()).map_err(system("start a thread"))?;
    // Before the first member: nothing that was started may be left alone.
    watch_signals(sender.clone())?;
    let mut starter = Starter {
        program,
        sender,
        members: Vec::new(),
    };
    for plan in cluster.plan(&cpus) {
        if let Err(error) = starter.start(plan) {
            starter.end(&happenings, STOP_TIME_MAX);
            return Err(error);
        }
    }
    Attendance::begin(starter, looker).attend(&happenings)
}

/// A cluster that is found here goes on with its members and ports; a new one leaves a note of them.
fn go_on_or_begin(cluster: &mut LocalCluster) -> Result<(), LocalClusterError> {
    let path = cluster.data_dir.join(SHAPE_FILE);
    match std::fs::read(&path) {
        Ok(bytes) => {
            let shape: LocalShape = serde_json::from_slice(&bytes)
                .map_err(|source| LocalClusterError::Shape { path, source })?;
            Ok(cluster.go_on_with(shape)?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = serde_json::to_string(&cluster.shape).map_err(|source| {
                let path = path.clone();
                LocalClusterError::Shape { path, source }
            })?;
            std::fs::write(&path, text + "\n").map_err(system(format!("write {}", path.display())))
        }
        Err(error) => Err(system(format!("read {}", path.display()))(error)),
    }
}

struct Starter {
    program: PathBuf,
    sender: Sender<Happening>,
    members: Vec<Running>,
}

impl Starter {
    fn start(&mut self, plan: LocalMember) -> Result<(), LocalClusterError> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&plan.log)
            .map_err(system(format!("open {}", plan.log.display())))?;
        let mut child = Command::new(&self.program)
            .args(&plan.words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(system(format!("start {}", plan.name)))?;
        let pid = child.id();
        let process = match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(process) => process,
            Err(errno) => {
                // Nobody else knows of it yet.
                let _ = child.kill();
                let _ = child.wait();
                return Err(system(format!("watch {}", plan.name))(errno.into()));
            }
        };
        if let Err(error) = self.watch(self.members.len(), child) {
            let _ = pidfd_send_signal(&process, Signal::KILL);
            return Err(error);
        }
        self.members.push(Running {
            plan,
            process,
            pid,
            alive: true,
        });
        Ok(())
    }

    fn watch(&self, index: usize, mut child: Child) -> Result<(), LocalClusterError> {
        let sender = self.sender.clone();
        std::thread::Builder::new()
            .name(format!("member-{}", index + 1))
            .spawn(move || {
                let status = child.wait();
                // Nobody listens any more when the cluster's start has failed.
                let _ = sender.send(Happening::Ended(index, status));
            })
            .map(drop)
            .map_err(system("start a thread"))
    }

    /// Ends what was started, and returns when it has ended: a member that is left would keep its port and its
    /// directory from the next try. What has not ended after `patience` is killed, and at once what somebody asks to end.
    fn end(mut self, happenings: &Receiver<Happening>, patience: Duration) {
        for signal in [Signal::TERM, Signal::KILL] {
            self.signal_alive(signal);
            if self.ends(happenings, patience) {
                return;
            }
        }
    }

    /// Whether all members end within `patience`, and before somebody asks for it.
    fn ends(&mut self, happenings: &Receiver<Happening>, patience: Duration) -> bool {
        let clock = Clock::new();
        let until = clock.now() + patience;
        while self.members.iter().any(|member| member.alive) {
            match happenings.recv_timeout(until.since(clock.now())) {
                Ok(Happening::Ended(index, _)) => self.members[index].alive = false,
                Ok(Happening::Looked(_)) => {}
                Ok(Happening::Asked(_)) | Err(_) => return false,
            }
        }
        true
    }

    fn signal_alive(&self, signal: Signal) {
        let alive = self.members.iter().filter(|member| member.alive);
        alive.for_each(|member| member.signal(signal));
    }
}

impl Running {
    fn signal(&self, signal: Signal) {
        // A process that is gone needs none.
        let _ = pidfd_send_signal(&self.process, signal);
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.plan.client_port))
    }
}

/// Looks after members that run.
struct Attendance {
    members: Vec<Running>,
    program: PathBuf,
    clock: Clock,
    looker: Looker,
    /// Until all serve, or somebody asks for the end.
    wait: Option<Wait>,
    /// When somebody last asked for the end.
    asked: Option<Instant>,
    /// Members that ended although nobody had asked.
    ended_alone: usize,
}

/// For the members to serve.
#[derive(Clone, Copy, Debug)]
struct Wait {
    since: Instant,
    /// When to look again; none while a look is under way.
    look_at: Option<Instant>,
    /// Whether it was said that it takes long.
    said: bool,
}

impl Wait {
    /// When there is something to do although nothing has happened.
    fn due(&self) -> Option<Instant> {
        let patience = (!self.said).then(|| self.since + PATIENCE);
        self.look_at.into_iter().chain(patience).min()
    }

    /// Whether it is to be said, this once, that it takes long.
    fn is_long(&mut self, now: Instant) -> bool {
        let long = !self.said && now.since(self.since) >= PATIENCE;
        self.said |= long;
        long
    }
}

impl Attendance {
    fn begin(starter: Starter, looker: Looker) -> Attendance {
        let clock = Clock::new();
        let now = clock.now();
        Attendance {
            members: starter.members,
            program: starter.program,
            clock,
            looker,
            wait: Some(Wait {
                since: now,
                look_at: Some(now + LOOK),
                said: false,
            }),
            asked: None,
            ended_alone: 0,
        }
    }

    fn attend(mut self, happenings: &Receiver<Happening>) -> Result<(), LocalClusterError> {
        while self.members.iter().any(|member| member.alive) {
            let happening = match self.wait.and_then(|wait| wait.due()) {
                Some(due) => happenings.recv_timeout(due.since(self.clock.now())),
                None => happenings
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
            };
            match happening {
                Ok(Happening::Asked(signal)) => {
                    self.wait = None;
                    self.hand_on(signal);
                }
                Ok(Happening::Ended(index, status)) => self.ended(index, status),
                Ok(Happening::Looked(all_serve)) => self.looked(all_serve),
                Err(RecvTimeoutError::Timeout) => self.time_passed(),
                Err(RecvTimeoutError::Disconnected) => {
                    unreachable!("the signals' thread never ends")
                }
            }
        }
        if self.ended_alone == 0 {
            return Ok(());
        }
        Err(LocalClusterError::Ended {
            ended: self.ended_alone,
            members: self.members.len(),
        })
    }

    fn time_passed(&mut self) {
        let now = self.clock.now();
        let addresses: Vec<SocketAddr> = self.alive().map(Running::address).collect();
        let Some(wait) = &mut self.wait else {
            return;
        };
        if wait.look_at.is_some_and(|at| at <= now) {
            wait.look_at = None;
            self.looker.look(addresses);
        }
        if wait.is_long(now) {
            say("the cluster does not serve yet; the members' logs say what they wait for");
        }
    }

    fn looked(&mut self, all_serve: bool) {
        let now = self.clock.now();
        let Some(wait) = &mut self.wait else {
            return;
        };
        wait.look_at = Some(now + LOOK);
        if all_serve {
            self.wait = None;
            self.say_served();
        }
    }

    fn alive(&self) -> impl Iterator<Item = &Running> {
        self.members.iter().filter(|member| member.alive)
    }

    /// A second wish, too, reaches the members: they stop at once then.
    fn hand_on(&mut self, signal: Signal) {
        let now = self.clock.now();
        if self.asked.is_some_and(|asked| now.since(asked) < ONE_WISH) {
            return;
        }
        self.asked = Some(now);
        for member in &self.members {
            member.signal(signal);
        }
    }

    /// Says how to use the cluster.
    fn say_served(&self) {
        for member in self.alive() {
            say(&format!(
                "{} (pid {}) serves at {}; log: {}",
                member.plan.name,
                member.pid,
                member.address(),
                member.plan.log.display()
            ));
        }
        let endpoints: Vec<String> = self
            .members
            .iter()
            .map(|member| member.address().to_string())
            .collect();
        say(&format!(
            "etcdctl --endpoints {} endpoint status -w table",
            endpoints.join(",")
        ));
    }

    fn ended(&mut self, index: usize, status: io::Result<ExitStatus>) {
        let member = &mut self.members[index];
        member.alive = false;
        let how = match status {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let (name, pid) = (&member.plan.name, member.pid);
        if self.asked.is_some() {
            say(&format!("{name} (pid {pid}) ended: {how}"));
            return;
        }
        self.ended_alone += 1;
        say(&format!(
            "{name} (pid {pid}) ended by itself: {how}; the others go on"
        ));
        for line in last_lines(&member.plan.log) {
            say(&format!("  {line}"));
        }
        say(&format!(
            "to start it again: {} {}",
            self.program.display(),
            member.plan.words.join(" ")
        ));
    }
}

fn watch_signals(sender: Sender<Happening>) -> Result<(), LocalClusterError> {
    let mut wanted = vec![SIGTERM, SIGINT, SIGQUIT];
    // A terminal that is closed ends its cluster, unless `nohup` says otherwise.
    if !ignores_hangups() {
        wanted.push(SIGHUP);
    }
    let mut signals = Signals::new(wanted).map_err(system("watch signals"))?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for number in signals.forever() {
                let signal = match number {
                    SIGINT => Signal::INT,
                    _ => Signal::TERM,
                };
                if sender.send(Happening::Asked(signal)).is_err() {
                    return;
                }
            }
        })
        .map(drop)
        .map_err(system("start a thread"))
}

/// Whether this process was started with SIGHUP ignored.
fn ignores_hangups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (SIGHUP - 1) & 1 == 1)
}

/// The end of a member's log.
fn last_lines(log: &Path) -> Vec<String> {
    /// Enough for a few lines, and a backtrace.
    const TAIL_BYTES: u64 = 32 * 1_024;
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let size = file.metadata()?.len();
        io::Seek::seek(
            &mut file,
            io::SeekFrom::Start(size.saturating_sub(TAIL_BYTES)),
        )?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    // A backtrace says less than the line above it.
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with(' '))
        .collect();
    let shown = lines.len().saturating_sub(SHOWN_LINES);
    lines[shown..]
        .iter()
        .map(|line| (*line).to_owned())
        .collect()
}

/// A line for whoever started this; a closed standard output is no reason to end a cluster.
fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

fn system(action: impl Into<String>) -> impl FnOnce(io::Error) -> LocalClusterError {
    let action = action.into();
    |source| LocalClusterError::System { action, source }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Goal: that it takes long is said after a minute of the clock, however long a look lasts, and once.
    #[test]
    fn patience() {
        let since = Instant::default() + Duration::from_secs(5);
        let mut wait = Wait {
            since,
            look_at: None,
            said: false,
        };
        assert_eq!(wait.due(), Some(since + PATIENCE), "during a look as well");
        assert!(!wait.is_long(since + (PATIENCE - LOOK)));
        assert!(wait.is_long(since + PATIENCE));
        assert!(!wait.is_long(since + 2 * PATIENCE));
        assert_eq!(wait.due(), None);
        wait.look_at = Some(since);
        assert_eq!(wait.due(), Some(since));
    }

    /// Goal: a wish for the end reaches the members while a look is under way that does not end: of a member that takes
    /// a connection and answers a byte at a time.
    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a port of a test that only has to take a connection"
    )]
    fn end_during_a_look() {
        let home = tempfile::tempdir().expect("a directory");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (sender, happenings) = channel();
        let mut starter = Starter {
            program: "sleep".into(),
            sender: sender.clone(),
            members: Vec::new(),
        };
        let plan = LocalMember {
            name: "m1".into(),
            client_port: listener.local_addr().expect("bound").port(),
            words: vec!["600".into()],
            log: home.path().join("m1.log"),
        };
        starter.start(plan).expect("it starts");
        let ended = Arc::new(AtomicBool::new(false));
        let member = {
            let ended = Arc::clone(&ended);
            std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("a look");
                sender
                    .send(Happening::Asked(Signal::TERM))
                    .expect("it is heard");
                let pause = Duration::from_millis(100);
                let pauses = (0..600).take_while(|_| {
                    std::thread::park_timeout(pause);
                    !ended.load(Ordering::Acquire) && stream.write_all(b"H").is_ok()
                });
                // It would have gone on for a minute.
                pauses.count() < 600
            })
        };
        let looker = Looker::start(starter.sender.clone()).expect("a thread");
        let attended = Attendance::begin(starter, looker).attend(&happenings);
        ended.store(true, Ordering::Release);
        assert!(attended.is_ok(), "{attended:?}");
        assert!(member.join().expect("no panic"), "it waited for the look");
    }

    /// Goal: when a cluster cannot be started whole, what was started of it is gone afterwards, also a member that does
    /// not listen: the next try finds ports and directories free.
    #[test]
    fn no_member_is_left_of_a_failed_start() {
        let home = tempfile::tempdir().expect("a directory");
        let (sender, happenings) = channel();
        let mut starter = Starter {
            program: "sh".into(),
            sender,
            members: Vec::new(),
        };
        let deaf = home.path().join("deaf");
        let script = format!(
            "trap '' TERM; : > {}; while :; do sleep 1; done",
            deaf.display()
        );
        let plan = |name: &str, log: PathBuf| LocalMember {
            name: name.into(),
            client_port: 1,
            words: vec!["-c".into(), script.clone()],
            log,
        };
        let first = plan("m1", home.path().join("m1.log"));
        starter.start(first).expect("it starts");
        let second = plan("m2", home.path().join("nowhere/m2.log"));
        starter.start(second).expect_err("its log has no place");
        while !deaf.exists() {
            std::thread::yield_now();
        }
        let pid = starter.members[0].pid;
        let listens = happenings.try_recv();
        assert!(listens.is_err(), "it has not ended by itself");
        starter.end(&happenings, Duration::from_millis(50));
        let left = PathBuf::from(format!("/proc/{pid}"));
        assert!(!left.exists(), "{} is left", left.display());
    }
}
