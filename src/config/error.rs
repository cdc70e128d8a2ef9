//! Why a start is refused, each with the flag's name and what to do about it.

use super::value::ValueError;
use crate::base::limits::RAFT_MEMBERS_MAX;
use crate::base::url::UrlFault;

/// Exit code for what the command line says wrongly, and for features that are not built.
pub const EXIT_USAGE: u8 = 2;
/// Exit code for settings that are well formed and still cannot work.
pub const EXIT_SETTINGS: u8 = 1;

/// A refused configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The command line names a flag that does not exist.
    #[error("flag provided but not defined: -{name}")]
    UnknownFlag {
        /// As given, without dashes.
        name: String,
    },
    /// A word that starts like a flag and is none, such as `---x` or `--=x`.
    #[error("bad flag syntax: {text}")]
    BadSyntax {
        /// The word.
        text: String,
    },
    /// A flag at the end of the line whose value is missing.
    #[error("flag needs an argument: -{name}")]
    MissingValue {
        /// The flag.
        name: &'static str,
    },
    /// Text that belongs to no flag.
    #[error("\"{text}\" is not a valid flag")]
    StrayText {
        /// The text.
        text: String,
    },
    /// A word of the command line is not UTF-8.
    #[error("argument {position} of the command line is not UTF-8")]
    NotUtf8 {
        /// Counted from one.
        position: usize,
    },
    /// A value that its flag cannot take.
    #[error("invalid value \"{value}\" for {place}: {reason}")]
    InvalidValue {
        /// The flag, variable or file key.
        place: String,
        /// The text given.
        value: String,
        /// What is wrong with it.
        reason: ValueError,
    },
    /// A flag and its environment variable are both set.
    #[error(
        "conflicting environment variable \"{variable}\" is shadowed by command-line flag \"--{name}\": \
         unset the variable or drop the flag"
    )]
    Shadowed {
        /// The flag.
        name: &'static str,
        /// Its variable.
        variable: String,
    },
    /// A feature of etcd that this version does not have.
    #[error("{place}={value} asks for what this version of kontiki does not do yet: {remedy}")]
    NotYet {
        /// The flag, variable or file key.
        place: String,
        /// The value given.
        value: String,
        /// What can be done instead.
        remedy: &'static str,
    },
    /// The value is none of the words that the flag knows.
    #[error("{place}: \"{value}\" is not one of {choices}")]
    NotAChoice {
        /// The flag, variable or file key.
        place: String,
        /// The value given.
        value: String,
        /// The words.
        choices: &'static str,
    },
    /// The configuration file could not be read.
    #[error("cannot read the configuration file {path}: {reason}")]
    FileUnreadable {
        /// Its path.
        path: String,
        /// The operating system's words.
        reason: String,
    },
    /// The configuration file is not what YAML or JSON allow, or not a mapping.
    #[error("cannot parse the configuration file {path}: {reason}")]
    FileMalformed {
        /// Its path.
        path: String,
        /// What and where.
        reason: String,
    },
    /// A URL that cannot be used.
    #[error("--{flag}: {fault}: \"{url}\"")]
    Url {
        /// The flag.
        flag: &'static str,
        /// The URL.
        url: String,
        /// What is wrong with it.
        fault: UrlFault,
    },
    /// A list of URLs that is empty.
    #[error("--{flag} must name at least one URL")]
    NoUrl {
        /// The flag.
        flag: &'static str,
    },
    /// Clients would be told the default address although another one is listened on.
    #[error("--advertise-client-urls is required when --listen-client-urls is set explicitly")]
    AdvertiseClientUrlsRequired,
    /// A number of milliseconds that is zero.
    #[error("--{flag} must be >0 (set to 0ms)")]
    ZeroInterval {
        /// The flag.
        flag: &'static str,
    },
    /// Followers would call elections between two heartbeats.
    #[error(
        "--election-timeout[{election_ms}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat_ms}ms]"
    )]
    ElectionTooShort {
        /// In milliseconds.
        election_ms: u64,
        /// In milliseconds.
        heartbeat_ms: u64,
    },
    /// A cluster would stay without a leader for minutes.
    #[error("--election-timeout[{election_ms}ms] is too long, and should be set less than 50000ms")]
    ElectionTooLong {
        /// In milliseconds.
        election_ms: u64,
    },
    /// A number outside what can work.
    #[error("--{flag}={value} is out of range: it must be {bounds}")]
    OutOfRange {
        /// The flag.
        flag: &'static str,
        /// The value given.
        value: String,
        /// The range in words.
        bounds: String,
    },
    /// `--initial-cluster` is not `name=url,name=url`.
    #[error("--initial-cluster: \"{text}\" does not have the form name=url")]
    InitialClusterForm {
        /// The offending part.
        text: String,
    },
    /// This member is not in `--initial-cluster`.
    #[error(
        "--initial-cluster: couldn't find local name \"{name}\" in the initial cluster configuration: add \
         \"{name}=<its peer URL>\" or change --name"
    )]
    NotInInitialCluster {
        /// `--name`.
        name: String,
    },
    /// `--initial-cluster` and `--initial-advertise-peer-urls` disagree about this member.
    #[error(
        "--initial-cluster gives this member the peer URLs \"{listed}\", --initial-advertise-peer-urls \"{advertised}\": \
         they must be the same, letter by letter"
    )]
    PeerUrlsDiffer {
        /// From `--initial-cluster`.
        listed: String,
        /// From `--initial-advertise-peer-urls`.
        advertised: String,
    },
    /// `--initial-cluster` gives two members the same URL.
    #[error("initial cluster {listed} has duplicate url {url}")]
    DuplicateUrl {
        /// The list.
        listed: String,
        /// The URL.
        url: String,
    },
    /// Two members of `--initial-cluster` have the same id.
    #[error(
        "--initial-cluster: member exists with identical ID: \"{one}\" and \"{other}\"; change a URL or \
         --initial-cluster-token"
    )]
    SameMemberId {
        /// One name.
        one: String,
        /// The other.
        other: String,
    },
    /// More members than a cluster can have.
    #[error("--initial-cluster names {count} members; a cluster has at most {RAFT_MEMBERS_MAX}")]
    TooManyMembers {
        /// How many it names.
        count: usize,
    },
    /// `--feature-gates` is not `Name=true,Name=false`, or names an unknown gate.
    #[error("--feature-gates: \"{text}\" is not a known gate with =true or =false")]
    FeatureGate {
        /// The offending part.
        text: String,
    },
}

impl ConfigError {
    /// What the process should exit with.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            ConfigError::UnknownFlag { .. }
            | ConfigError::BadSyntax { .. }
            | ConfigError::MissingValue { .. }
            | ConfigError::StrayText { .. }
            | ConfigError::NotUtf8 { .. }
            | ConfigError::InvalidValue { .. }
            | ConfigError::NotYet { .. } => EXIT_USAGE,
            _ => EXIT_SETTINGS,
        }
    }
}
