//! A server as a real process: started by flags, awaited by its log, ended by its process id.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};

/// What a log line of a server that serves contains.
const READY: &str = "ready to serve client requests";
/// How long a server may take until it serves; recovery of a long log included.
pub const START_TIME_MAX: Duration = Duration::from_secs(120);
/// Log lines shown of a server that failed.
const SHOWN_LINES_MAX: usize = 60;

/// Below the default range of ports of outgoing connections.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// Tries to find one of them free.
const PORT_ATTEMPTS_MAX: usize = 100;

/// How to start one member, on its own or of a cluster.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The member's name.
    pub name: String,
    /// The binary: kontiki's or etcd's.
    pub program: PathBuf,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Where the log is kept; later starts append.
    pub log: PathBuf,
    /// The port for clients, on 127.0.0.1.
    pub client_port: u16,
    /// The port for peers, on 127.0.0.1. Part of the member's identity: a restart keeps it.
    pub peer_port: u16,
    /// The port on 127.0.0.1 that other members are told, where it is not the member's own: that of a
    /// proxy in front of it.
    pub peer_proxy_port: Option<u16>,
    /// All members at the first start, as `name=url,...`; empty for this member alone.
    pub initial_cluster: String,
    /// The CPU the process is bound to, if any.
    pub cpu: Option<usize>,
    /// Whether the kernel kills the process when the thread that starts it ends, however that comes: also by SIGKILL.
    pub ends_with_starter: bool,
    /// Further flags.
    pub extra: Vec<String>,
}

impl ServerOptions {
    /// Options with free ports, everything under `home`.
    ///
    /// # Errors
    /// When no port is free.
    pub fn new(program: &Path, home: &Path) -> io::Result<ServerOptions> {
        Ok(ServerOptions {
            name: "default".to_owned(),
            peer_proxy_port: None,
            initial_cluster: String::new(),
            program: program.to_owned(),
            data_dir: home.join("data"),
            log: home.join("server.log"),
            client_port: free_port()?,
            peer_port: free_port()?,
            cpu: None,
            ends_with_starter: false,
            extra: Vec::new(),
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn client_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.client_port))
    }

    /// Where other members are told to connect: the URL in the list of initial members.
    #[must_use]
    pub fn peer_url(&self) -> String {
        let port = self.peer_proxy_port.unwrap_or(self.peer_port);
        format!("http://127.0.0.1:{port}")
    }

    fn command(&self) -> Command {
        let client = format!("http://127.0.0.1:{}", self.client_port);
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let advertised = self.peer_url();
        let members = match self.initial_cluster.as_str() {
            "" => format!("{}={advertised}", self.name),
            members => members.to_owned(),
        };
        // Each becomes the next one, the last one the server: the process id stays.
        let mut words: Vec<OsString> = Vec::new();
        if self.ends_with_starter {
            words.extend(["setpriv", "--pdeathsig", "KILL"].map(OsString::from));
        }
        if let Some(cpu) = self.cpu {
            words.extend(["taskset".into(), "-c".into(), cpu.to_string().into()]);
        }
        words.push(self.program.clone().into());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(["--name", &self.name, "--logger", "zap"])
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &advertised,
            ])
            .args(["--initial-cluster", &members])
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a server that is expected to end by itself, and gives its status and everything it said.
    ///
    /// # Errors
    /// When it cannot be started, or has not ended after `time_max` (it is killed then).
    pub fn run_to_end(&self, time_max: Duration) -> io::Result<(ExitStatus, String)> {
        let mut child = self.command().spawn()?;
        let stderr = child.stderr.take().expect("stderr is piped");
        let reader = std::thread::spawn(move || io::read_to_string(stderr));
        let ended = wait_for_exit(&child, time_max)?;
        if !ended {
            child.kill()?;
        }
        let status = child.wait()?;
        let said = reader.join().expect("the reader does not panic")?;
        if ended {
            return Ok((status, said));
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the server still runs after {time_max:?}:\n{said}"),
        ))
    }
}

/// A server that may not serve yet. Dropping it kills it.
#[derive(Debug)]
pub struct Starting {
    server: Server,
    ready: mpsc::Receiver<()>,
}

/// A running server. Dropping it kills it; while panicking, the end of its log is printed.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
    log_copier: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server and waits until it serves.
    ///
    /// # Errors
    /// With the end of its log when it exits or is not ready within [`START_TIME_MAX`].
    pub fn start(options: &ServerOptions) -> io::Result<Server> {
        Starting::begin(options)?.wait()
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends `signal`; the process may be gone already.
    pub fn signal(&self, signal: Signal) {
        // The child is not reaped before `end`, so that its id cannot belong to another process.
        let _ = rustix::process::kill_process(Pid::from_child(&self.child), signal);
    }

    /// Kills the process as `kill -9` does and waits until it is gone.
    ///
    /// # Errors
    /// When waiting fails.
    pub fn kill(mut self) -> io::Result<()> {
        self.signal(Signal::KILL);
        self.end().map(|_| ())
    }

    /// Asks the process to stop (SIGTERM) and waits for its end.
    ///
    /// # Errors
    /// When it has not ended after `time_max`.
    pub fn terminate(self, time_max: Duration) -> io::Result<ExitStatus> {
        self.signal(Signal::TERM);
        self.wait(time_max)
    }

    /// Waits for an end that was asked for already.
    ///
    /// # Errors
    /// When it has not ended after `time_max`.
    pub fn wait(mut self, time_max: Duration) -> io::Result<ExitStatus> {
        if wait_for_exit(&self.child, time_max)? {
            return self.end();
        }
        let shown = last_lines(&self.log);
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the server still runs after {time_max:?}:\n{shown}"),
        ))
    }

    /// Whether the process still runs.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn is_running(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    fn end(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait()?;
        if let Some(copier) = self.log_copier.take() {
            copier.join().expect("the log copier does not panic");
        }
        Ok(status)
    }
}

impl Starting {
    /// Starts a server; the calling thread is its starter.
    ///
    /// # Errors
    /// When there is no such program, or no place for its log.
    pub fn begin(options: &ServerOptions) -> io::Result<Starting> {
        let mut log = File::options()
            .create(true)
            .append(true)
            .open(&options.log)?;
        writeln!(log, "--- start")?;
        let mut command = options.command();
        let mut child = command.spawn().map_err(|error| {
            let program = command.get_program().display();
            io::Error::new(error.kind(), format!("{program}: {error}"))
        })?;
        let stderr = child.stderr.take().expect("stderr is piped");
        let (ready_sender, ready) = mpsc::channel();
        let copier = std::thread::spawn(move || copy_log(stderr, log, &ready_sender));
        let server = Server {
            child,
            log: options.log.clone(),
            log_copier: Some(copier),
        };
        Ok(Starting { server, ready })
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// With the end of its log when it exits or is not ready within [`START_TIME_MAX`].
    pub fn wait(self) -> io::Result<Server> {
        let what = match self.ready.recv_timeout(START_TIME_MAX) {
            Ok(()) => return Ok(self.server),
            Err(mpsc::RecvTimeoutError::Timeout) => "is not ready in time",
            Err(mpsc::RecvTimeoutError::Disconnected) => "ended before it was ready",
        };
        let shown = last_lines(&self.server.log);
        Err(io::Error::other(format!("the server {what}:\n{shown}")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Does nothing to a child that was reaped.
        let _ = self.child.kill();
        let status = self.end();
        if std::thread::panicking() {
            let end = status.ok().and_then(|status| status.signal());
            let shown = last_lines(&self.log);
            eprintln!(
                "server {} (ended by signal {end:?}), its log:\n{shown}",
                self.pid()
            );
        }
    }
}

/// The server under test, where it is not a binary of the crate that is tested: `KONTIKI_BIN`, or the debug build
/// of this checkout.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn kontiki_program() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/debug/kontiki");
    program("KONTIKI_BIN", built, "cargo build")
}

/// A real etcd: `ETCD_BIN`, or what `tools/fetch-etcd` has fetched.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn etcd_program() -> PathBuf {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/etcd/usr/bin/etcd");
    program("ETCD_BIN", fetched, "tools/fetch-etcd")
}

fn program(variable: &str, usual: PathBuf, remedy: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or(usual, PathBuf::from);
    let shown = path.display();
    assert!(
        path.exists(),
        "{shown} is missing: run {remedy}, or set {variable}"
    );
    path
}

/// A port nobody listens on at the moment, below those the kernel gives to outgoing connections: a
/// restart needs its port back, and no client may have been given it meanwhile.
///
/// # Errors
/// When none is found.
pub fn free_port() -> io::Result<u16> {
    let mut random = fastrand::Rng::new();
    let mut attempt = || {
        let port = random.u16(PORTS);
        TcpListener::bind(("127.0.0.1", port)).map(|_| port)
    };
    (0..PORT_ATTEMPTS_MAX)
        .find_map(|_| attempt().ok())
        .ok_or_else(|| io::Error::other("no free port"))
}

/// Copies the server's log to its file, and says once when the ready line has come.
fn copy_log(stderr: ChildStderr, mut log: File, ready: &mpsc::Sender<()>) {
    for line in BufReader::new(stderr).split(b'\n') {
        let Ok(mut line) = line else { break };
        if line
            .windows(READY.len())
            .any(|part| part == READY.as_bytes())
        {
            // Nobody listens any more after the first.
            let _ = ready.send(());
        }
        line.push(b'\n');
        if log.write_all(&line).is_err() {
            break;
        }
    }
}

/// Whether the child ends within `time_max`. Waits on a descriptor of the process, without polling.
fn wait_for_exit(child: &Child, time_max: Duration) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let process = rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let timeout = Timespec::try_from(time_max).map_err(io::Error::other)?;
    let ready = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout))?;
    Ok(ready > 0)
}

fn last_lines(log: &Path) -> String {
    let Ok(file) = File::open(log) else {
        return format!("(no log at {})", log.display());
    };
    let mut lines = VecDeque::new();
    for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
        if lines.len() == SHOWN_LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(String::from_utf8_lossy(&line).into_owned());
    }
    Vec::from(lines).join("\n")
}
