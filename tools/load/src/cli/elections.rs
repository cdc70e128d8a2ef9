//! `kontiki-load elections`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::cluster::{ClusterArguments, Timing, origin, within};
use super::load::{duration, stop_at_signals};
use super::report::{deliver, make_directory};
use super::{Failure, ended};
use crate::cluster::Cluster;
use crate::elections::report::report;
use crate::elections::{
    DURATION_MAX, FORMAT_VERSION, KEPT_REVISIONS, Outcome, STRESS_MAX, Spec, elections,
};
use crate::result::Origin;

/// Keys at most: all of them stay in the members' memory.
const KEYS_MAX: usize = 10_000_000;
/// Between two compactions at least.
const COMPACT_EVERY_MIN: Duration = Duration::from_millis(100);

/// Command line of `kontiki-load elections`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    cluster: ClusterArguments,
    #[command(flatten)]
    timing: Timing,
    /// Puts in flight, over all members.
    #[arg(long, default_value_t = 1_000)]
    in_flight: usize,
    /// Different keys, written again and again.
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    value_size: usize,
    /// Threads of this program that burn CPU beside the servers.
    #[arg(long, value_name = "THREADS", default_value_t = 0)]
    stress: usize,
    /// Between two compactions.
    #[arg(long, value_parser = duration, default_value = "5s")]
    compact_every: Duration,
    /// How long.
    #[arg(long, value_parser = duration, default_value = "1m")]
    duration: Duration,
    /// Fails when there are more elections than this; else they are only reported.
    #[arg(long, value_name = "COUNT")]
    elections_max: Option<u64>,
    /// Where the random choices begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Writes result.json and summary.txt into this directory, and the members' logs when there was an election.
    #[arg(long, value_name = "DIRECTORY", help_heading = "Results")]
    out: Option<PathBuf>,
    /// No line of progress every ten seconds.
    #[arg(long, help_heading = "Results")]
    quiet: bool,
}

/// Runs it.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let spec = spec(arguments)?;
    make_directory(arguments.out.as_deref())?;
    if let Some(directory) = &arguments.out {
        Cluster::remove_logs(directory)?;
    }
    let origin = origin(FORMAT_VERSION, &spec.cluster);
    let stop = stop_at_signals()?;
    // Bound to no CPU, unlike the loads that measure: what burns CPU is to meet the members wherever they are.
    let (seen, partial) = elections(&spec, &stop)?;
    let outcome = Outcome {
        origin: Origin {
            parameters: parameters(&spec),
            ..origin
        },
        seen,
        elections_max: arguments.elections_max,
        partial,
    };
    let json = serde_json::to_string_pretty(&outcome)?;
    let files = [(&None, "result.json", json)];
    deliver(&report(&outcome), arguments.out.as_deref(), files)?;
    ended(outcome.failure())
}

/// What contradicts itself or is out of bounds, in one line.
fn check(arguments: &Arguments) -> Result<(), String> {
    let keys = usize::try_from(arguments.keys).unwrap_or(usize::MAX);
    within([
        arguments.cluster.members(),
        ("--in-flight", arguments.in_flight, 1..=10_000),
        ("--keys", keys, 1..=KEYS_MAX),
        ("--value-size", arguments.value_size, 16..=1 << 20),
        ("--stress", arguments.stress, 0..=STRESS_MAX),
    ])?;
    if arguments.duration.is_zero() || arguments.duration > DURATION_MAX {
        return Err("--duration is above zero, and at most a week".to_owned());
    }
    if arguments.compact_every < COMPACT_EVERY_MIN {
        return Err("--compact-every is at least 100ms".to_owned());
    }
    let settings = arguments.timing.settings();
    if settings.is_some_and(|settings| settings.heartbeat_ms.min(settings.election_ms) == 0) {
        return Err("--heartbeat and --election are at least 1ms".to_owned());
    }
    Ok(())
}

fn spec(arguments: &Arguments) -> Result<Spec, Failure> {
    check(arguments)?;
    Ok(Spec {
        cluster: arguments.cluster.options(arguments.timing.settings())?,
        in_flight: arguments.in_flight,
        keys: arguments.keys,
        value_bytes: arguments.value_size,
        stress: arguments.stress,
        compact_every: arguments.compact_every,
        duration: arguments.duration,
        seed: arguments.seed,
        logs: arguments.out.clone(),
        progress: !arguments.quiet,
    })
}

/// What was asked, for the result.
fn parameters(spec: &Spec) -> BTreeMap<String, String> {
    let parameter = |name: &str, value: String| (name.to_owned(), value);
    BTreeMap::from([
        parameter(
            "heartbeat interval, election timeout",
            spec.cluster.settings.map_or_else(
                || "the servers' defaults".to_owned(),
                |settings| format!("{} ms, {} ms", settings.heartbeat_ms, settings.election_ms),
            ),
        ),
        parameter(
            "load, to all members",
            format!(
                "{} puts in flight, {} keys, values of {} B",
                spec.in_flight, spec.keys, spec.value_bytes
            ),
        ),
        parameter("threads that burn CPU", spec.stress.to_string()),
        parameter(
            "compaction",
            format!(
                "every {:?}, {KEPT_REVISIONS} revisions below the newest",
                spec.compact_every
            ),
        ),
        parameter("asked for", format!("{:?}", spec.duration)),
        parameter("seed", spec.seed.to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        let words = ["elections"].into_iter().chain(line.split_whitespace());
        <Line as clap::Parser>::try_parse_from(words).map(|line| line.arguments)
    }

    /// Goal: what has no bound, or no sense, is refused with the flag's name before any server starts.
    #[test]
    fn bounds() {
        let refused = |line: &str| check(&parse(line).expect("well-formed")).err();
        assert_eq!(refused(""), None);
        let whole = "--program etcd --heartbeat 50ms --election 250ms --in-flight 1000 --keys 100000 --value-size 256 \
                     --stress 2 --duration 1h --elections-max 0 --out somewhere";
        assert_eq!(refused(whole), None);
        for line in [
            "--members 2",
            "--members 10",
            "--in-flight 0",
            "--in-flight 10001",
            "--keys 0",
            "--keys 10000001",
            "--value-size 15",
            "--stress 257",
            "--duration 0s",
            "--duration 8.1m --compact-every 99ms",
            "--heartbeat 0ms --election 1s",
        ] {
            let said = refused(line).unwrap_or_default();
            let flag = line.split(' ').find(|word| said.starts_with(word));
            let other = line.contains("--compact-every") && said.starts_with("--compact-every");
            assert!(flag.is_some() || other, "{line}: {said}");
        }
        assert!(refused("--duration 200h").is_some());
    }

    /// Goal: one of the two times alone is a wrong command line.
    #[test]
    fn both_times_or_none() {
        assert!(parse("--heartbeat 50ms").is_err());
        assert!(parse("--election 250ms").is_err());
        assert!(parse("--elections-max -1").is_err());
    }
}
