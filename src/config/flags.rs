//! The one table of flags: command line, environment, configuration file, help and the documentation
//! are all driven by it.
//!
//! Names, defaults and meanings are etcd's, except in the last group, which is our own.

use super::value::Kind;

/// What setting a flag does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// What etcd does.
    Works,
    /// Nothing, and nothing is lost by it: accepted and logged once. The text says why.
    NoMeaning(&'static str),
    /// A feature that is not built: any other value than the default is refused. The text is what to
    /// do instead.
    NotYet(&'static str),
}

/// Under which title a flag is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// This member and its addresses.
    Member,
    /// How the cluster starts.
    Clustering,
    /// Sizes, rates and times that protect the member.
    Limits,
    /// Upkeep of history and data.
    Maintenance,
    /// TLS.
    Security,
    /// Users, roles and tokens.
    Auth,
    /// Logs, metrics and traces.
    Observability,
    /// What only kontiki has.
    Kontiki,
    /// Names that older versions of etcd knew.
    Older,
}

impl Group {
    /// The title in `--help`.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Group::Member => "Member",
            Group::Clustering => "Clustering",
            Group::Limits => "Limits",
            Group::Maintenance => "Maintenance",
            Group::Security => "Security",
            Group::Auth => "Authentication",
            Group::Observability => "Logs and metrics",
            Group::Kontiki => "Kontiki's own",
            Group::Older => "Names of older etcd versions",
        }
    }
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Without dashes; also the key in the configuration file, unless [`Flag::file_key`] says more.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// The text that stands for its absence. Of the right kind; a test keeps that true.
    pub default: &'static str,
    /// What setting it does.
    pub support: Support,
    /// Where `--help` shows it.
    pub group: Group,
    /// One line for `--help`.
    pub help: &'static str,
}

/// Options that etcd's configuration file nests in a section: section, key in it, flag.
pub const FILE_SECTIONS: &[(&str, &str, &str)] = &[
    ("socket-options", "reuse-port", "socket-reuse-port"),
    ("socket-options", "reuse-address", "socket-reuse-address"),
    ("client-transport-security", "cert-file", "cert-file"),
    ("client-transport-security", "key-file", "key-file"),
    (
        "client-transport-security",
        "client-cert-file",
        "client-cert-file",
    ),
    (
        "client-transport-security",
        "client-key-file",
        "client-key-file",
    ),
    (
        "client-transport-security",
        "client-cert-auth",
        "client-cert-auth",
    ),
    (
        "client-transport-security",
        "trusted-ca-file",
        "trusted-ca-file",
    ),
    ("client-transport-security", "auto-tls", "auto-tls"),
    (
        "client-transport-security",
        "allowed-hostname",
        "client-cert-allowed-hostname",
    ),
    ("peer-transport-security", "cert-file", "peer-cert-file"),
    ("peer-transport-security", "key-file", "peer-key-file"),
    (
        "peer-transport-security",
        "client-cert-file",
        "peer-client-cert-file",
    ),
    (
        "peer-transport-security",
        "client-key-file",
        "peer-client-key-file",
    ),
    (
        "peer-transport-security",
        "client-cert-auth",
        "peer-client-cert-auth",
    ),
    (
        "peer-transport-security",
        "trusted-ca-file",
        "peer-trusted-ca-file",
    ),
    ("peer-transport-security", "auto-tls", "peer-auto-tls"),
    (
        "peer-transport-security",
        "allowed-cn",
        "peer-cert-allowed-cn",
    ),
    (
        "peer-transport-security",
        "allowed-hostname",
        "peer-cert-allowed-hostname",
    ),
    (
        "peer-transport-security",
        "skip-client-san-verification",
        "peer-skip-client-san-verification",
    ),
    ("discovery-config", "token", "discovery-token"),
    ("discovery-config", "endpoints", "discovery-endpoints"),
    ("discovery-config", "dial-timeout", "discovery-dial-timeout"),
    (
        "discovery-config",
        "request-timeout",
        "discovery-request-timeout",
    ),
    (
        "discovery-config",
        "keepalive-time",
        "discovery-keepalive-time",
    ),
    (
        "discovery-config",
        "keepalive-timeout",
        "discovery-keepalive-timeout",
    ),
    (
        "discovery-config",
        "insecure-transport",
        "discovery-insecure-transport",
    ),
    (
        "discovery-config",
        "insecure-skip-tls-verify",
        "discovery-insecure-skip-tls-verify",
    ),
    ("discovery-config", "cert", "discovery-cert"),
    ("discovery-config", "key", "discovery-key"),
    ("discovery-config", "cacert", "discovery-cacert"),
    ("discovery-config", "user", "discovery-user"),
    ("discovery-config", "password", "discovery-password"),
];

/// Names from the time before version 3 that etcd takes in silence, with or without a value.
pub const IGNORED: &[&str] = &[
    "cluster-active-size",
    "cluster-remove-delay",
    "cluster-sync-interval",
    "config",
    "force",
    "max-result-buffer",
    "max-retry-attempts",
    "peer-heartbeat-interval",
    "peer-election-timeout",
    "retry-interval",
    "snapshot",
    "v",
    "vv",
    "test.coverprofile",
    "test.outputdir",
];

impl Flag {
    /// The environment variable that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        let prefix = if self.group == Group::Kontiki {
            "KONTIKI_"
        } else {
            "ETCD_"
        };
        format!(
            "{prefix}{}",
            self.name.to_ascii_uppercase().replace('-', "_")
        )
    }

    /// The section and key of the configuration file that set it; no section for most.
    #[must_use]
    pub fn file_key(&self) -> (Option<&'static str>, &'static str) {
        FILE_SECTIONS
            .iter()
            .find(|(_, _, flag)| *flag == self.name)
            .map_or((None, self.name), |(section, key, _)| (Some(section), key))
    }
}

/// The flag called `name`, if there is one.
#[must_use]
pub fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

const fn works(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    group: Group,
    help: &'static str,
) -> Flag {
    Flag {
        name,
        kind,
        default,
        support: Support::Works,
        group,
        help,
    }
}

const fn no_meaning(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    group: Group,
    why: &'static str,
) -> Flag {
    Flag {
        name,
        kind,
        default,
        support: Support::NoMeaning(why),
        group,
        help: why,
    }
}

const fn not_yet(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    group: Group,
    remedy: &'static str,
) -> Flag {
    Flag {
        name,
        kind,
        default,
        support: Support::NotYet(remedy),
        group,
        help: remedy,
    }
}

const fn older(name: &'static str, kind: Kind) -> Flag {
    no_meaning(
        name,
        kind,
        "",
        Group::Older,
        "experimental name, gone since etcd 3.7",
    )
}

const TLS: &str =
    "TLS is not built; leave it out and keep the ports on a trusted network or behind a TLS proxy";
const DISCOVERY: &str = "discovery is not built; name this member with --initial-cluster";
const TRACING: &str = "distributed tracing is not built; leave it out";
const AUTH: &str = "users, roles and tokens are not built; leave it at its default";
const CORRUPTION: &str = "corruption checks between members are not built; leave it at its default";
const AUTO_COMPACTION: &str =
    "automatic compaction is not built; run `etcdctl compaction` on a schedule";
const WATCH: &str = "watches are not built; leave it at its default";
const SLOW_APPLY: &str =
    "warnings about slow entries are not built; use --warning-unary-request-duration";
const NO_BACKEND: &str = "there is no bbolt backend whose batches it could tune";
const OWN_LOG: &str = "the log and its retention are kontiki's own";
const OWN_COMPACTION: &str = "compaction moves a floor at once and reclaims in bounded slices";

use Group::{
    Auth, Clustering, Kontiki, Limits, Maintenance, Member, Observability, Older, Security,
};
use Kind::{Bool, Duration, Int, Text, Uint, Uint32};

/// Every flag, in the order of `--help`.
#[rustfmt::skip]
pub const FLAGS: &[Flag] = &[
    works("name", Text, "default", Member, "This member's name for people."),
    works("data-dir", Text, "", Member, "Directory of this member's data; empty: <name>.kontiki."),
    works("wal-dir", Text, "", Member, "Directory of the log, to put it on another disk; empty: inside --data-dir."),
    works("listen-client-urls", Text, "http://localhost:2379", Member, "Addresses to accept clients on (http, IP or localhost; 0.0.0.0 and [::] both mean all of both families)."),
    works("advertise-client-urls", Text, "http://localhost:2379", Member, "Where clients reach this member; required when --listen-client-urls is set."),
    works("listen-peer-urls", Text, "http://localhost:2380", Member, "Addresses to accept other members on (http, IP or localhost; 0.0.0.0 and [::] both mean all of both families)."),
    works("config-file", Text, "", Member, "YAML or JSON file with options by flag name. All other flags and variables are then ignored."),
    works("version", Bool, "false", Member, "Print the version and exit."),
    works("help", Bool, "false", Member, "Print this help and exit."),

    works("initial-advertise-peer-urls", Text, "http://localhost:2380", Clustering, "Where other members reach this one; decides its id."),
    works("initial-cluster", Text, "", Clustering, "All members at the first start, name=url,...; empty: this one alone. Later starts ignore it."),
    works("initial-cluster-state", Text, "new", Clustering, "\"new\", or \"existing\" to join, which an empty directory cannot yet. Later starts ignore it."),
    works("initial-cluster-token", Text, "etcd-cluster", Clustering, "Keeps the ids of clusters with equal URLs apart."),
    no_meaning("strict-reconfig-check", Bool, "true", Clustering, "members cannot be changed yet"),
    works("heartbeat-interval", Uint, "100", Clustering, "Milliseconds between two heartbeats of a leader."),
    works("election-timeout", Uint, "1000", Clustering, "Milliseconds of silence before an election, in the limits of requests too; at least 5 heartbeats, at most 50000."),
    no_meaning("initial-election-tick-advance", Bool, "true", Clustering, "a member that starts waits one election timeout, two at most, before it asks for votes; alone it asks at once"),
    works("pre-vote", Bool, "true", Clustering, "Ask whether one would be elected before calling an election."),
    not_yet("max-learners", Int, "1", Clustering, "learners are not built; leave it at its default"),
    not_yet("force-new-cluster", Bool, "false", Clustering, "recovery from lost members is not built"),
    not_yet("discovery-srv", Text, "", Clustering, DISCOVERY),
    not_yet("discovery-srv-name", Text, "", Clustering, DISCOVERY),
    not_yet("discovery-fallback", Text, "exit", Clustering, DISCOVERY),
    not_yet("discovery-token", Text, "", Clustering, DISCOVERY),
    not_yet("discovery-endpoints", Text, "", Clustering, DISCOVERY),
    not_yet("discovery-dial-timeout", Duration, "2s", Clustering, DISCOVERY),
    not_yet("discovery-request-timeout", Duration, "5s", Clustering, DISCOVERY),
    not_yet("discovery-keepalive-time", Duration, "2s", Clustering, DISCOVERY),
    not_yet("discovery-keepalive-timeout", Duration, "6s", Clustering, DISCOVERY),
    not_yet("discovery-insecure-transport", Bool, "true", Clustering, DISCOVERY),
    not_yet("discovery-insecure-skip-tls-verify", Bool, "false", Clustering, DISCOVERY),
    not_yet("discovery-cert", Text, "", Clustering, DISCOVERY),
    not_yet("discovery-key", Text, "", Clustering, DISCOVERY),
    not_yet("discovery-cacert", Text, "", Clustering, DISCOVERY),
    not_yet("discovery-user", Text, "", Clustering, DISCOVERY),
    not_yet("discovery-password", Text, "", Clustering, DISCOVERY),

    works("quota-backend-bytes", Int, "0", Limits, "Size of the keyspace above which writes get NOSPACE; 0: 2 GiB; negative: no quota."),
    works("max-txn-ops", Uint, "128", Limits, "Operations in one transaction."),
    works("max-request-bytes", Uint, "1572864", Limits, "Size of one request in bytes."),
    works("max-concurrent-streams", Uint32, "4294967295", Limits, "Streams that one client connection may have open: 4096 at the default and at 0, and never more than 32768."),
    works("grpc-keepalive-min-time", Duration, "5s", Limits, "Clients that ping more often than this are disconnected."),
    works("grpc-keepalive-interval", Duration, "2h", Limits, "How long a connection is silent before the server pings it; 0: never."),
    works("grpc-keepalive-timeout", Duration, "20s", Limits, "How long the answer to that ping may take; 0: no limit."),
    works("socket-reuse-port", Bool, "false", Limits, "Let other processes of this user listen on the same port."),
    no_meaning("socket-reuse-address", Bool, "false", Limits, "always on: a start never waits for old connections that are still closing"),
    works("cors", Text, "*", Limits, "Origins that browsers may call from, comma-separated; *: all."),
    works("host-whitelist", Text, "*", Limits, "Host names that plain HTTP requests may carry, comma-separated; *: all."),
    no_meaning("raft-read-timeout", Duration, "5s", Limits, "the connections between members have limits of their own"),
    no_meaning("raft-write-timeout", Duration, "5s", Limits, "the connections between members have limits of their own"),

    not_yet("auto-compaction-mode", Text, "periodic", Maintenance, AUTO_COMPACTION),
    not_yet("auto-compaction-retention", Text, "0", Maintenance, AUTO_COMPACTION),
    no_meaning("compaction-batch-limit", Int, "0", Maintenance, OWN_COMPACTION),
    no_meaning("compaction-sleep-interval", Duration, "0", Maintenance, OWN_COMPACTION),
    no_meaning("snapshot-count", Uint, "10000", Maintenance, OWN_LOG),
    no_meaning("snapshot-catchup-entries", Uint, "5000", Maintenance, OWN_LOG),
    no_meaning("max-wals", Uint, "5", Maintenance, OWN_LOG),
    no_meaning("max-snapshots", Uint, "5", Maintenance, OWN_LOG),
    no_meaning("backend-batch-interval", Duration, "0", Maintenance, NO_BACKEND),
    no_meaning("backend-batch-limit", Int, "0", Maintenance, NO_BACKEND),
    no_meaning("backend-bbolt-freelist-type", Text, "map", Maintenance, NO_BACKEND),
    no_meaning("bootstrap-defrag-threshold-megabytes", Uint, "0", Maintenance, "there is nothing to defragment"),
    not_yet("watch-progress-notify-interval", Duration, "0", Maintenance, WATCH),
    not_yet("corrupt-check-time", Duration, "0", Maintenance, CORRUPTION),
    not_yet("compact-hash-check-time", Duration, "1m", Maintenance, CORRUPTION),
    no_meaning("downgrade-check-time", Duration, "5s", Maintenance, "the versions of members are not compared"),
    not_yet("memory-mlock", Bool, "false", Maintenance, "only the log is locked in memory, always; leave it out"),
    not_yet("unsafe-no-fsync", Bool, "false", Maintenance, "every acknowledged write is synced, always; for fast tests put --data-dir on tmpfs"),
    not_yet("feature-gates", Text, "", Maintenance, "no gate can be changed from its default yet; leave it out"),

    not_yet("cert-file", Text, "", Security, TLS),
    not_yet("key-file", Text, "", Security, TLS),
    not_yet("trusted-ca-file", Text, "", Security, TLS),
    not_yet("client-cert-auth", Bool, "false", Security, TLS),
    not_yet("client-crl-file", Text, "", Security, TLS),
    not_yet("client-cert-allowed-hostname", Text, "", Security, TLS),
    not_yet("client-cert-file", Text, "", Security, TLS),
    not_yet("client-key-file", Text, "", Security, TLS),
    not_yet("auto-tls", Bool, "false", Security, TLS),
    not_yet("peer-cert-file", Text, "", Security, TLS),
    not_yet("peer-key-file", Text, "", Security, TLS),
    not_yet("peer-trusted-ca-file", Text, "", Security, TLS),
    not_yet("peer-client-cert-auth", Bool, "false", Security, TLS),
    not_yet("peer-crl-file", Text, "", Security, TLS),
    not_yet("peer-cert-allowed-cn", Text, "", Security, TLS),
    not_yet("peer-cert-allowed-hostname", Text, "", Security, TLS),
    not_yet("peer-client-cert-file", Text, "", Security, TLS),
    not_yet("peer-client-key-file", Text, "", Security, TLS),
    not_yet("peer-auto-tls", Bool, "false", Security, TLS),
    not_yet("peer-skip-client-san-verification", Bool, "false", Security, TLS),
    not_yet("self-signed-cert-validity", Uint, "1", Security, TLS),
    not_yet("cipher-suites", Text, "", Security, TLS),
    not_yet("tls-min-version", Text, "TLS1.2", Security, TLS),
    not_yet("tls-max-version", Text, "", Security, TLS),

    not_yet("auth-token", Text, "simple", Auth, AUTH),
    not_yet("auth-token-ttl", Uint, "300", Auth, AUTH),
    not_yet("bcrypt-cost", Uint, "10", Auth, AUTH),

    works("logger", Text, "zap", Observability, "Only \"zap\": lines with etcd's keys."),
    works("log-level", Text, "info", Observability, "debug, info, warn, error, panic or fatal."),
    works("log-format", Text, "json", Observability, "json or console."),
    works("log-outputs", Text, "default", Observability, "default (stderr), stderr, stdout or file paths, comma-separated."),
    not_yet("warning-apply-duration", Duration, "100ms", Observability, SLOW_APPLY),
    works("warning-unary-request-duration", Duration, "300ms", Observability, "Warn when the answer to a unary request takes longer; 0: never. One line a second at most."),
    not_yet("listen-metrics-urls", Text, "", Observability, "listeners for metrics alone are not built; use the client port"),
    not_yet("listen-client-http-urls", Text, "", Observability, "listeners for HTTP alone are not built; the client port answers both"),
    not_yet("enable-grpc-gateway", Bool, "true", Observability, "the JSON gateway is not built and cannot be switched off; leave it out"),
    not_yet("metrics", Text, "basic", Observability, "only basic metrics; leave it out"),
    not_yet("enable-pprof", Bool, "false", Observability, "there is no Go profiler here; use `perf`"),
    not_yet("enable-log-rotation", Bool, "false", Observability, "log rotation is not built; log to stderr and let the service manager rotate"),
    no_meaning("log-rotation-config-json", Text, "", Observability, "it only has an effect with --enable-log-rotation"),
    not_yet("enable-distributed-tracing", Bool, "false", Observability, TRACING),
    not_yet("distributed-tracing-address", Text, "localhost:4317", Observability, TRACING),
    not_yet("distributed-tracing-service-name", Text, "etcd", Observability, TRACING),
    not_yet("distributed-tracing-instance-id", Text, "", Observability, TRACING),
    not_yet("distributed-tracing-sampling-rate", Int, "0", Observability, TRACING),

    works("cores", Text, "all", Kontiki, "Cores to run on: all, how many, or which (0,2-3; 2-2 for one)."),
    works("shards", Uint32, "1", Kontiki, "Shards of the keyspace. Only 1 is accepted yet."),
    works("wal-write", Text, "mapped", Kontiki, "How the log is written: mapped (memory map and fdatasync) or written (O_DSYNC writes)."),
    works("checkpoint-payload-bytes", Uint, "268435456", Kontiki, "Log entries, in bytes, after which the state is written to a checkpoint and the log before it given up; at least the last checkpoint's size."),
    works("checkpoint-log-bytes", Uint, "2147483648", Kontiki, "Log files, in bytes, from which on a checkpoint is taken however few entries are in them."),
    works("memory-budget-bytes", Uint, "0", Kontiki, "Memory above which writes get NOSPACE; 0: a safe share of the machine's or container's."),

    older("experimental-initial-corrupt-check", Bool),
    older("experimental-corrupt-check-time", Duration),
    older("experimental-compact-hash-check-enabled", Bool),
    older("experimental-compact-hash-check-time", Duration),
    older("experimental-watch-progress-notify-interval", Duration),
    older("experimental-enable-lease-checkpoint", Bool),
    older("experimental-enable-lease-checkpoint-persist", Bool),
    older("experimental-compaction-batch-limit", Int),
    older("experimental-compaction-sleep-interval", Duration),
    older("experimental-downgrade-check-time", Duration),
    older("experimental-warning-apply-duration", Duration),
    older("experimental-warning-unary-request-duration", Duration),
    older("experimental-memory-mlock", Bool),
    older("experimental-txn-mode-write-with-shared-buffer", Bool),
    older("experimental-stop-grpc-service-on-defrag", Bool),
    older("experimental-bootstrap-defrag-threshold-megabytes", Uint),
    older("experimental-max-learners", Int),
    older("experimental-wait-cluster-ready-timeout", Duration),
    older("experimental-snapshot-catchup-entries", Uint),
    older("experimental-set-member-localaddr", Bool),
    older("experimental-peer-skip-client-san-verification", Bool),
    older("experimental-enable-distributed-tracing", Bool),
    older("experimental-distributed-tracing-address", Text),
    older("experimental-distributed-tracing-service-name", Text),
    older("experimental-distributed-tracing-instance-id", Text),
    older("experimental-distributed-tracing-sampling-rate", Int),
    no_meaning("v2-deprecation", Text, "", Older, "gone since etcd 3.7; there is no v2 data here"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::Value;

    /// Goal: every default is of its flag's kind, and no name or variable appears twice.
    #[test]
    fn the_table_is_consistent() {
        for (position, flag) in FLAGS.iter().enumerate() {
            let unset = flag.default.is_empty() && flag.group == Older;
            assert!(
                unset || Value::parse(flag.kind, flag.default).is_ok(),
                "{}",
                flag.name
            );
            assert!(
                FLAGS[..position]
                    .iter()
                    .all(|earlier| earlier.name != flag.name),
                "{}",
                flag.name
            );
            assert!(!IGNORED.contains(&flag.name), "{}", flag.name);
        }
    }

    /// Goal: every nested key of the file leads to a flag.
    #[test]
    fn sections_lead_to_flags() {
        for (section, key, flag) in FILE_SECTIONS {
            let flag = find(flag).unwrap_or_else(|| panic!("{section}.{key}"));
            assert_eq!(flag.file_key(), (Some(*section), *key));
        }
        assert_eq!(
            find("data-dir").map(Flag::variable).as_deref(),
            Some("ETCD_DATA_DIR")
        );
        assert_eq!(
            find("wal-write").map(Flag::variable).as_deref(),
            Some("KONTIKI_WAL_WRITE")
        );
    }
}
