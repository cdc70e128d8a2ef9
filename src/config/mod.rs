//! Flags, environment and configuration file, turned into one checked [`Config`].
//!
//! Owns the table of flags and everything that only flags know. A pure function of the command line, the
//! environment and the file's bytes: it never reads a file, never asks the system and never logs; what
//! should be logged comes back as [`Notice`]s. Runs once, before any core is up.

mod args;
mod cores;
mod error;
mod file;
pub mod flags;
mod founding;
mod gates;
mod help;
mod identity;
mod local_cluster;
mod memory;
mod read_mode;
mod settle;
mod sources;
mod value;

use std::path::PathBuf;
use std::time::Duration;

pub use cores::{CPU_NUMBER_MAX, Cores};
pub use error::{ConfigError, EXIT_SETTINGS, EXIT_USAGE};
pub use help::{ETCD_VERSION, KONTIKI_VERSION, markdown, usage, version};
pub use identity::{cluster_id, member_id};
pub use local_cluster::{
    LOCAL_CLUSTER, LOCAL_MEMBERS_MAX, LocalCluster, LocalClusterInvocation, LocalMember,
    LocalShape, parse_local_cluster,
};
pub use memory::default_budget;
pub use read_mode::{READ_MODE, ReadModeCommand, ReadModeInvocation, parse_read_mode};
pub use value::{Kind, Value, ValueError};

pub use crate::base::url::{ListenUrl, Url, UrlFault};
use crate::base::{ClusterId, MemberId};

/// Everything a member needs to know to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The member's name for people.
    pub name: String,
    /// Where its data lives.
    pub data_dir: PathBuf,
    /// Where its log lives, when not inside `data_dir`.
    pub wal_dir: Option<PathBuf>,
    /// Its addresses and those it tells others.
    pub urls: Urls,
    /// How the cluster starts.
    pub initial: InitialCluster,
    /// The pace of consensus.
    pub raft: RaftSettings,
    /// What clients may ask for.
    pub limits: Limits,
    /// Pings on client connections.
    pub keepalive: Keepalive,
    /// Other processes may listen on the same ports.
    pub reuse_port: bool,
    /// Origins that browsers may call from.
    pub cors: AllowList,
    /// Host names that plain HTTP requests may carry.
    pub host_whitelist: AllowList,
    /// Where log lines go, and which.
    pub log: LogSettings,
    /// A unary request that is answered later than this is worth a warning; `None`: never.
    pub slow_request: Option<Duration>,
    /// Cores, shards and the way to write the log and to shorten it.
    pub placement: Placement,
    /// Bytes of memory above which writes get NOSPACE; `None`: see [`default_budget`].
    pub memory_budget_bytes: Option<u64>,
}

/// A member's addresses. No list is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Urls {
    /// Clients are accepted here.
    pub listen_client: Vec<ListenUrl>,
    /// Other members are accepted here.
    pub listen_peer: Vec<ListenUrl>,
    /// Clients are told these, sorted.
    pub advertise_client: Vec<Url>,
    /// Other members are told these, sorted.
    pub advertise_peer: Vec<Url>,
}

/// How the cluster starts. Means nothing to a member whose data directory already belongs to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialCluster {
    /// Whether this member founds the cluster or joins it.
    pub state: ClusterState,
    /// Keeps the ids of clusters with equal URLs apart.
    pub token: String,
    /// The cluster that these settings found, or why they cannot: that counts for an empty data directory
    /// only, as with etcd.
    pub founding: Result<Founding, ConfigError>,
}

/// A new cluster as every one of its first members computes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founding {
    /// Its id.
    pub cluster_id: ClusterId,
    /// The id of this member.
    pub member_id: MemberId,
    /// All its members, this one among them, sorted by id.
    pub members: Vec<FirstMember>,
}

/// One of the first members of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstMember {
    /// Computed from its peer URLs and the cluster's token.
    pub id: MemberId,
    /// Its name in `--initial-cluster`.
    pub name: String,
    /// Where the others reach it, sorted; never empty.
    pub peer_urls: Vec<Url>,
}

/// `--initial-cluster-state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    /// The member is one of the first of its cluster.
    New,
    /// The member joins a running cluster.
    Existing,
}

/// The pace of consensus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaftSettings {
    /// Silence that starts an election; five heartbeats to 50 seconds.
    pub election_timeout: Duration,
    /// How often a leader says that it is there; more than zero.
    pub heartbeat_interval: Duration,
    /// Whether a member asks if it would be elected before it disturbs anybody.
    pub pre_vote: bool,
}

/// What clients may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the keyspace above which writes get NOSPACE; `None`: no quota.
    pub quota_bytes: Option<u64>,
    /// Operations in one transaction.
    pub txn_operations_max: u64,
    /// Bytes of one request; below [`crate::base::limits::ENTRY_SIZE_BYTES_MAX`].
    pub request_size_bytes_max: u64,
    /// Open streams of one connection, more than zero; the edge has a tighter bound of its own.
    pub concurrent_streams_max: u32,
}

/// Pings on client connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Clients that ping more often break the rules. Zero: they may.
    pub min_time: Duration,
    /// Silence after which the server pings; `None`: never.
    pub interval: Option<Duration>,
    /// How long the answer may take; `None`: for ever.
    pub timeout: Option<Duration>,
}

/// Values that are allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowList {
    /// All.
    Any,
    /// These; never empty.
    Only(Vec<String>),
}

/// Where log lines go, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Less severe lines are dropped.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
    /// Every line goes to each of these; never empty, none twice.
    pub outputs: Vec<LogOutput>,
}

/// The severity of a log line. etcd's `panic` and `fatal` are `Error` here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// For developers.
    Debug,
    /// What an operator likes to find later.
    Info,
    /// What an operator should look at.
    Warn,
    /// What went wrong.
    Error,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line, with etcd's keys.
    Json,
    /// Columns for people.
    Console,
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// Appended to this file.
    File(PathBuf),
}

/// Cores, shards and the way to write the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Which CPUs get an executor.
    pub cores: Cores,
    /// Shards of the keyspace; one, in this version.
    pub shard_count: u32,
    /// How the log is written.
    pub wal_write: WalWrite,
    /// Bytes of log entries after which a checkpoint is taken.
    pub checkpoint_payload_bytes: u64,
    /// Bytes of log files from which on a checkpoint is taken.
    pub checkpoint_log_bytes: u64,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalWrite {
    /// Copied into a memory map, then fdatasync.
    Mapped,
    /// One synchronous write per commit.
    Written,
}

/// Something to log at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// [`LogLevel::Info`] or [`LogLevel::Warn`].
    pub level: LogLevel,
    /// The line's `msg`.
    pub message: &'static str,
    /// Its fields.
    pub fields: Vec<(&'static str, String)>,
}

/// A configuration file that was read.
#[derive(Clone, Copy, Debug)]
pub struct ConfigFile<'a> {
    /// For messages.
    pub path: &'a str,
    /// Its content.
    pub bytes: &'a [u8],
}

/// What a command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Print this text on standard output and exit with zero.
    Print(String),
    /// Run a member; log the notices first.
    Run(Box<Config>, Vec<Notice>),
}

/// The path of the configuration file that [`parse`] wants, if any.
///
/// `words` is the command line without the program's name.
pub fn config_file(
    words: &[String],
    environment: &[(String, String)],
) -> Result<Option<String>, ConfigError> {
    let line = args::split(words)?;
    Ok(sources::config_file(&line, environment).map(ToOwned::to_owned))
}

/// Reads a command line (without the program's name), the environment and the file that
/// [`config_file`] named.
pub fn parse(
    words: &[String],
    environment: &[(String, String)],
    file: Option<&ConfigFile<'_>>,
) -> Result<Invocation, ConfigError> {
    let line = args::split(words)?;
    let asked = |name| {
        line.iter()
            .rev()
            .find(|(flag, _)| flag.name == name)
            .map(|(_, value)| value)
    };
    if asked("help") == Some(&Value::Bool(true)) {
        return Ok(Invocation::Print(usage()));
    }
    if asked("version") == Some(&Value::Bool(true)) {
        return Ok(Invocation::Print(version()));
    }
    let mut notices = Vec::new();
    let settings = sources::Settings::gather(line, environment, file, &mut notices)?;
    let config = settle::settle(&settings, &mut notices)?;
    Ok(Invocation::Run(Box::new(config), notices))
}

impl Notice {
    fn new(level: LogLevel, message: &'static str, fields: &[(&'static str, &str)]) -> Notice {
        let fields = fields
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        Notice {
            level,
            message,
            fields,
        }
    }

    fn info(message: &'static str, fields: &[(&'static str, &str)]) -> Notice {
        Notice::new(LogLevel::Info, message, fields)
    }

    fn warning(message: &'static str, fields: &[(&'static str, &str)]) -> Notice {
        Notice::new(LogLevel::Warn, message, fields)
    }
}
