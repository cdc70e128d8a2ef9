//! From settings to a [`Config`]: what single values must be, and what they must be together.

use std::path::PathBuf;
use std::time::Duration;

use super::error::ConfigError;
use super::sources::Settings;
use super::{
    AllowList, ClusterState, Config, Cores, InitialCluster, Keepalive, Limits, ListenUrl,
    LogFormat, LogLevel, LogOutput, LogSettings, Notice, Placement, RaftSettings, Url, Urls,
    WalWrite, founding,
};
use crate::base::limits::{ENTRY_SIZE_BYTES_MAX, MIB, QUOTA_BYTES_DEFAULT, SEGMENT_SIZE_BYTES};

/// etcd's bound for `--election-timeout`, in milliseconds.
const ELECTION_TIMEOUT_MS_MAX: u64 = 50_000;
/// An election timeout is at least this many heartbeats.
const HEARTBEATS_PER_ELECTION_MIN: u64 = 5;
/// Above this a quota is worth a warning.
const QUOTA_BYTES_RECOMMENDED_MAX: u64 = 8 * 1_024 * MIB;
/// Above this a request size is worth a warning.
const REQUEST_SIZE_BYTES_RECOMMENDED_MAX: u64 = 10 * MIB;

/// Checks `settings` and brings them into their types.
pub(super) fn settle(
    settings: &Settings,
    notices: &mut Vec<Notice>,
) -> Result<Config, ConfigError> {
    let name = settings.text("name");
    if name == "default" {
        notices.push(Notice::warning(
            "this member has the default name",
            &[("name", "default")],
        ));
    }
    let data_dir = match settings.text("data-dir") {
        given if given.is_empty() => format!("{name}.kontiki"),
        given => given,
    };
    let wal_dir = Some(settings.text("wal-dir")).filter(|path| !path.is_empty());
    choose(settings, "logger", "zap", |word| {
        (word == "zap").then_some(())
    })?;
    let urls = urls(settings)?;
    Ok(Config {
        initial: initial_cluster(settings, &name, &urls)?,
        name,
        data_dir: PathBuf::from(data_dir),
        wal_dir: wal_dir.map(PathBuf::from),
        urls,
        raft: raft(settings)?,
        limits: limits(settings, notices)?,
        keepalive: Keepalive {
            min_time: span(settings, "grpc-keepalive-min-time")?,
            interval: positive_span(settings, "grpc-keepalive-interval")?,
            timeout: positive_span(settings, "grpc-keepalive-timeout")?,
        },
        reuse_port: settings.bool("socket-reuse-port"),
        cors: allow_list(settings, "cors"),
        host_whitelist: allow_list(settings, "host-whitelist"),
        log: log(settings)?,
        slow_request: positive_span(settings, "warning-unary-request-duration")?,
        placement: placement(settings)?,
        memory_budget_bytes: Some(settings.uint("memory-budget-bytes")).filter(|bytes| *bytes > 0),
    })
}

fn urls(settings: &Settings) -> Result<Urls, ConfigError> {
    // Who moves the listener and says nothing else would tell clients an address where nobody is.
    if settings.is_set("listen-client-urls") && !settings.is_set("advertise-client-urls") {
        return Err(ConfigError::AdvertiseClientUrlsRequired);
    }
    Ok(Urls {
        listen_client: url_list(settings, "listen-client-urls", ListenUrl::parse)?,
        listen_peer: url_list(settings, "listen-peer-urls", ListenUrl::parse)?,
        advertise_client: advertised(settings, "advertise-client-urls")?,
        advertise_peer: advertised(settings, "initial-advertise-peer-urls")?,
    })
}

fn advertised(settings: &Settings, flag: &'static str) -> Result<Vec<Url>, ConfigError> {
    let mut urls = url_list(settings, flag, Url::parse)?;
    urls.sort();
    Ok(urls)
}

fn url_list<U>(
    settings: &Settings,
    flag: &'static str,
    parse: impl Fn(&str) -> Result<U, super::UrlFault>,
) -> Result<Vec<U>, ConfigError> {
    let text = settings.text(flag);
    if text.is_empty() {
        return Err(ConfigError::NoUrl { flag });
    }
    let fault = |url: &str, fault| ConfigError::Url {
        flag,
        url: url.to_owned(),
        fault,
    };
    text.split(',')
        .map(|url| parse(url).map_err(|reason| fault(url, reason)))
        .collect()
}

fn initial_cluster(
    settings: &Settings,
    name: &str,
    urls: &Urls,
) -> Result<InitialCluster, ConfigError> {
    let listed = settings.text("initial-cluster");
    let token = settings.text("initial-cluster-token");
    Ok(InitialCluster {
        state: choose(
            settings,
            "initial-cluster-state",
            "new, existing",
            |word| match word {
                "new" => Some(ClusterState::New),
                "existing" => Some(ClusterState::Existing),
                _ => None,
            },
        )?,
        founding: founding::founding(&listed, name, &urls.advertise_peer, &token),
        token,
    })
}

fn raft(settings: &Settings) -> Result<RaftSettings, ConfigError> {
    let heartbeat_ms = settings.uint("heartbeat-interval");
    let election_ms = settings.uint("election-timeout");
    for (flag, value) in [
        ("heartbeat-interval", heartbeat_ms),
        ("election-timeout", election_ms),
    ] {
        if value == 0 {
            return Err(ConfigError::ZeroInterval { flag });
        }
    }
    if heartbeat_ms.saturating_mul(HEARTBEATS_PER_ELECTION_MIN) > election_ms {
        return Err(ConfigError::ElectionTooShort {
            election_ms,
            heartbeat_ms,
        });
    }
    if election_ms > ELECTION_TIMEOUT_MS_MAX {
        return Err(ConfigError::ElectionTooLong { election_ms });
    }
    Ok(RaftSettings {
        election_timeout: Duration::from_millis(election_ms),
        heartbeat_interval: Duration::from_millis(heartbeat_ms),
        pre_vote: settings.bool("pre-vote"),
    })
}

fn limits(settings: &Settings, notices: &mut Vec<Notice>) -> Result<Limits, ConfigError> {
    let quota_bytes = match settings.int("quota-backend-bytes") {
        0 => u64::try_from(QUOTA_BYTES_DEFAULT).ok(),
        given => u64::try_from(given).ok(),
    };
    if quota_bytes.is_some_and(|bytes| bytes > QUOTA_BYTES_RECOMMENDED_MAX) {
        notices.push(Notice::warning(
            "--quota-backend-bytes is above the recommended maximum",
            &[
                (
                    "quota-size-bytes",
                    &settings.int("quota-backend-bytes").to_string(),
                ),
                ("recommended", "8 GiB"),
            ],
        ));
    }
    let request_size_bytes_max = settings.uint("max-request-bytes");
    if request_size_bytes_max == 0 || request_size_bytes_max > ENTRY_SIZE_BYTES_MAX {
        return Err(ConfigError::OutOfRange {
            flag: "max-request-bytes",
            value: request_size_bytes_max.to_string(),
            bounds: format!("1 to {ENTRY_SIZE_BYTES_MAX} (the largest entry of the log)"),
        });
    }
    if request_size_bytes_max > REQUEST_SIZE_BYTES_RECOMMENDED_MAX {
        notices.push(Notice::warning(
            "--max-request-bytes is above the recommended maximum",
            &[
                ("max-request-bytes", &request_size_bytes_max.to_string()),
                ("recommended", "10 MiB"),
            ],
        ));
    }
    Ok(Limits {
        quota_bytes,
        txn_operations_max: settings.uint("max-txn-ops"),
        request_size_bytes_max,
        concurrent_streams_max: match settings.uint("max-concurrent-streams") {
            0 => u32::MAX,
            given => u32::try_from(given).expect("the flag's kind keeps it in 32 bits"),
        },
    })
}

fn log(settings: &Settings) -> Result<LogSettings, ConfigError> {
    let level = choose(
        settings,
        "log-level",
        "debug, info, warn, error, dpanic, panic, fatal",
        |word| match word {
            "debug" => Some(LogLevel::Debug),
            "info" => Some(LogLevel::Info),
            "warn" => Some(LogLevel::Warn),
            "error" | "dpanic" | "panic" | "fatal" => Some(LogLevel::Error),
            _ => None,
        },
    )?;
    let format = choose(settings, "log-format", "json, console", |word| match word {
        "json" => Some(LogFormat::Json),
        "console" => Some(LogFormat::Console),
        _ => None,
    })?;
    let mut outputs = Vec::new();
    for word in settings.text("log-outputs").split(',').map(str::trim) {
        let output = match word {
            "" => {
                return Err(ConfigError::NotAChoice {
                    place: settings.place("log-outputs"),
                    value: settings.text("log-outputs"),
                    choices: "default, stderr, stdout and file paths",
                });
            }
            "default" | "stderr" => LogOutput::Stderr,
            "stdout" => LogOutput::Stdout,
            path => LogOutput::File(PathBuf::from(path)),
        };
        if !outputs.contains(&output) {
            outputs.push(output);
        }
    }
    Ok(LogSettings {
        level,
        format,
        outputs,
    })
}

fn placement(settings: &Settings) -> Result<Placement, ConfigError> {
    let shards = settings.uint("shards");
    if shards != 1 {
        return Err(ConfigError::NotYet {
            place: settings.place("shards"),
            value: shards.to_string(),
            remedy: "several shards are not built; leave it at 1",
        });
    }
    let at_least = |flag, bytes_min: u64| match settings.uint(flag) {
        bytes if bytes < bytes_min => Err(ConfigError::OutOfRange {
            flag,
            value: bytes.to_string(),
            bounds: format!("{bytes_min} or more"),
        }),
        bytes => Ok(bytes),
    };
    Ok(Placement {
        checkpoint_payload_bytes: at_least("checkpoint-payload-bytes", MIB)?,
        // The active segment, the one before it, and one on each side.
        checkpoint_log_bytes: at_least("checkpoint-log-bytes", 4 * SEGMENT_SIZE_BYTES)?,
        cores: choose(
            settings,
            "cores",
            "all, a count, or CPU numbers such as 0,2-3",
            Cores::parse,
        )?,
        shard_count: 1,
        wal_write: choose(
            settings,
            "wal-write",
            "mapped, written",
            |word| match word {
                "mapped" => Some(WalWrite::Mapped),
                "written" => Some(WalWrite::Written),
                _ => None,
            },
        )?,
    })
}

/// The value that `known` finds for the word of a text flag.
fn choose<T>(
    settings: &Settings,
    flag: &'static str,
    choices: &'static str,
    known: impl Fn(&str) -> Option<T>,
) -> Result<T, ConfigError> {
    let value = settings.text(flag);
    known(&value).ok_or_else(|| ConfigError::NotAChoice {
        place: settings.place(flag),
        value,
        choices,
    })
}

/// A comma list in which `*`, or nothing at all, allows everything.
fn allow_list(settings: &Settings, flag: &'static str) -> AllowList {
    let text = settings.text(flag);
    let words: Vec<String> = text
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .map(ToOwned::to_owned)
        .collect();
    if words.is_empty() || words.iter().any(|word| word == "*") {
        AllowList::Any
    } else {
        AllowList::Only(words)
    }
}

/// A duration that must not be negative.
fn span(settings: &Settings, flag: &'static str) -> Result<Duration, ConfigError> {
    let nanos = settings.nanos(flag);
    u64::try_from(nanos)
        .map(Duration::from_nanos)
        .map_err(|_| ConfigError::OutOfRange {
            flag,
            value: format!("{nanos}ns"),
            bounds: "zero or more".to_owned(),
        })
}

/// As [`span`], where zero means "off".
fn positive_span(settings: &Settings, flag: &'static str) -> Result<Option<Duration>, ConfigError> {
    span(settings, flag).map(|span| Some(span).filter(|span| !span.is_zero()))
}
