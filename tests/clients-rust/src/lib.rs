//! Starts one-member clusters of two kinds, a real etcd and kontiki, with the same flags, for the scenarios in
//! `tests/`. `ETCD_BIN` and `KONTIKI_BIN` name the programs; without them it is the etcd that
//! `tools/fetch-etcd` fetches, and the debug build of this checkout.
//!
//! Every process is ended by its process id, and its log is printed when the test failed.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{interval, timeout};

/// How long a member may take until it is healthy; generous, for loaded machines.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a member may take to stop after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// Pause between two questions for health.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// What of a log is printed, in bytes from its end.
const LOG_TAIL_BYTES: usize = 16 * 1024;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The real one.
    Etcd,
    /// The one under test.
    Kontiki,
}

impl Kind {
    /// Both, the real one first.
    pub const ALL: [Kind; 2] = [Kind::Etcd, Kind::Kontiki];

    fn program(self) -> Result<PathBuf> {
        let (variable, default, hint) = match self {
            Kind::Etcd => (
                "ETCD_BIN",
                "target/etcd/usr/bin/etcd",
                "run tools/fetch-etcd",
            ),
            Kind::Kontiki => ("KONTIKI_BIN", "target/debug/kontiki", "run cargo build"),
        };
        let program = match std::env::var_os(variable) {
            Some(path) => PathBuf::from(path),
            None => Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../..")
                .join(default),
        };
        if program.exists() {
            return Ok(program);
        }
        let program = program.display();
        Err(Error::new(
            ErrorKind::NotFound,
            format!("no server at {program}: {hint}, or set {variable}"),
        ))
    }
}

/// One running member with an empty directory.
#[derive(Debug)]
pub struct Member {
    kind: Kind,
    address: String,
    child: Child,
    directory: TempDir,
}

impl Member {
    /// Starts a member and waits until it is healthy.
    ///
    /// # Errors
    /// When the program is missing, does not start, or is not healthy in time.
    pub async fn start(kind: Kind) -> Result<Member> {
        let directory = TempDir::with_prefix("kontiki-client-tests-")?;
        let log = File::create(directory.path().join("log"))?;
        let address = free_address().await?;
        let peer = free_address().await?;
        let child = Command::new(kind.program()?)
            .args(["--name", "default", "--data-dir"])
            .arg(directory.path().join("data"))
            .args(["--listen-client-urls", &format!("http://{address}")])
            .args(["--advertise-client-urls", &format!("http://{address}")])
            .args(["--listen-peer-urls", &format!("http://{peer}")])
            .args(["--initial-advertise-peer-urls", "http://localhost:2380"])
            .args(["--initial-cluster", "default=http://localhost:2380"])
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let mut member = Member {
            kind,
            address,
            child,
            directory,
        };
        match timeout(READY_TIMEOUT, member.healthy()).await {
            Ok(ready) => ready.map(|()| member),
            Err(_) => Err(Error::new(
                ErrorKind::TimedOut,
                format!("{kind:?} is not healthy after {READY_TIMEOUT:?}"),
            )),
        }
    }

    /// `host:port` of the client listener.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Which server it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Ends the process with SIGTERM.
    ///
    /// # Errors
    /// When it has not ended in time; it is killed then.
    pub async fn stop(mut self) -> Result<()> {
        let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()) else {
            return Ok(());
        };
        let pid = rustix::process::Pid::from_raw(pid).ok_or(ErrorKind::InvalidInput)?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        match timeout(STOP_TIMEOUT, self.child.wait()).await {
            Ok(exit) => exit.map(drop),
            Err(_) => Err(Error::new(
                ErrorKind::TimedOut,
                format!("{:?} did not stop", self.kind),
            )),
        }
    }

    /// Waits until /health says so; ends early when the process does.
    async fn healthy(&mut self) -> Result<()> {
        let mut poll = interval(POLL_INTERVAL);
        loop {
            poll.tick().await;
            if let Some(exit) = self.child.try_wait()? {
                return Err(Error::other(format!(
                    "{:?} ended before it was ready: {exit}",
                    self.kind
                )));
            }
            if let Ok(answer) = health(&self.address).await
                && answer.contains("\"health\":\"true\"")
            {
                return Ok(());
            }
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(log) = std::fs::read(self.directory.path().join("log"))
        {
            let tail = &log[log.len().saturating_sub(LOG_TAIL_BYTES)..];
            eprintln!("log of {:?}:\n{}", self.kind, String::from_utf8_lossy(tail));
        }
    }
}

/// A loopback address that was free a moment ago.
async fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")
        .await?
        .local_addr()?
        .to_string())
}

/// The answer to GET /health, head and body.
async fn health(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    // A head and one line of JSON.
    stream.take(64 * 1024).read_to_string(&mut answer).await?;
    Ok(answer)
}
