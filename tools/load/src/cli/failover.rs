//! `kontiki-load failover`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::cluster::{ClusterArguments, Timing, origin, within};
use super::load::{duration, stop_at_signals};
use super::report::{deliver, make_directory};
use super::{Failure, ended};
use crate::failover::report::{csv, report};
use crate::failover::{
    CELLS_MAX, Cell, FORMAT_VERSION, Fault, HistorySpec, Outcome, Phases, Spec, TRIALS_MAX, Victim,
    failover, sweep,
};
use crate::result::Origin;

/// Bytes of a value at most: everything is read back in pages.
const VALUE_BYTES_MAX: usize = 4_096;
/// Puts of the load in flight when nothing else is said, and no history is recorded: that one is load enough.
const IN_FLIGHT: usize = 16;

/// Command line of `kontiki-load failover`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    mut_arg("heartbeat", |heartbeat| heartbeat.conflicts_with("sweep")),
    mut_arg("election", |election| election.conflicts_with("sweep"))
)]
pub(super) struct Arguments {
    #[command(flatten)]
    cluster: ClusterArguments,
    #[command(flatten)]
    timing: Timing,
    /// What is done to a member; several take turns.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "kill")]
    fault: Vec<Fault>,
    /// To which member.
    #[arg(long, value_enum, default_value = "leader")]
    victim: Victim,
    /// How often; for a sweep, in each cell.
    #[arg(long, default_value_t = 10)]
    trials: u32,
    /// Between two probes of one endpoint: the resolution of the times.
    #[arg(long, value_parser = duration, default_value = "5ms")]
    interval: Duration,
    /// Patience with one operation.
    #[arg(long, value_parser = duration, default_value = "2s")]
    timeout: Duration,
    /// Puts of the load in flight, beside the probes; 0: the probes alone [default: 16; with --history 0].
    #[arg(long)]
    in_flight: Option<usize>,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    value_size: usize,
    /// Load before each fault, at least; up to twice of it, at random.
    #[arg(long, value_parser = duration, default_value = "1s")]
    before: Duration,
    /// Load after it, when everything serves again.
    #[arg(long, value_parser = duration, default_value = "500ms")]
    after: Duration,
    /// Without an acknowledged put for so long, a trial counts as failed.
    #[arg(long, value_parser = duration, default_value = "30s")]
    recovery_max: Duration,
    /// Where the random choices begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A load of puts, reads, swaps and deletions runs beside all trials and is written down in this directory, with the
    /// trials' own puts; at the end the whole history is checked, as `kontiki-load check` does.
    #[arg(
        long,
        value_name = "DIRECTORY",
        conflicts_with = "sweep",
        help_heading = "History"
    )]
    history: Option<PathBuf>,
    /// Its operations in flight.
    #[arg(long, default_value_t = 6, help_heading = "History")]
    history_in_flight: usize,
    /// Its keys: few, so that operations meet.
    #[arg(long, default_value_t = 300, help_heading = "History")]
    history_keys: u64,
    /// Runs the trials for each pair of --heartbeats and --elections, and counts elections that nobody needed.
    #[arg(long, help_heading = "Sweep")]
    sweep: bool,
    /// Heartbeat intervals of a sweep.
    #[arg(long, value_parser = duration, value_delimiter = ',', default_value = "10ms,25ms,50ms,100ms", help_heading = "Sweep")]
    heartbeats: Vec<Duration>,
    /// Election timeouts of a sweep.
    #[arg(long, value_parser = duration, value_delimiter = ',', default_value = "100ms,250ms,500ms,1s", help_heading = "Sweep")]
    elections: Vec<Duration>,
    /// How long elections are counted without load.
    #[arg(long, value_parser = duration, default_value = "10s", help_heading = "Sweep")]
    quiet_phase: Duration,
    /// How long they are counted under load.
    #[arg(long, value_parser = duration, default_value = "10s", help_heading = "Sweep")]
    loaded_phase: Duration,
    /// Writes everything as JSON.
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    json: Option<PathBuf>,
    /// Writes one CSV row for each trial.
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    csv: Option<PathBuf>,
    /// Writes one self-contained HTML page.
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    html: Option<PathBuf>,
    /// Writes raw.csv, raw.json, summary.txt and report.html into this directory.
    #[arg(long, value_name = "DIRECTORY", help_heading = "Results")]
    out: Option<PathBuf>,
    /// No line of progress for each trial.
    #[arg(long, help_heading = "Results")]
    quiet: bool,
}

/// Runs it.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let spec = spec(arguments)?;
    let (heartbeats, elections) = (
        milliseconds(&arguments.heartbeats),
        milliseconds(&arguments.elections),
    );
    if arguments.sweep && heartbeats.len() * elections.len() > CELLS_MAX {
        return Err(format!("a sweep has at most {CELLS_MAX} cells").into());
    }
    make_directory(arguments.out.as_deref())?;
    let origin = origin(FORMAT_VERSION, &spec.cluster);
    arguments.cluster.servers.bind_generator()?;
    let stop = stop_at_signals()?;
    let (cells, error) = match arguments.sweep {
        true => {
            let phases = Phases {
                quiet: arguments.quiet_phase,
                loaded: arguments.loaded_phase,
            };
            sweep(&spec, &heartbeats, &elections, phases, &stop)
        }
        false => {
            let (cell, error) = failover(&spec, &stop);
            (vec![cell], error)
        }
    };
    // A history tells something also without any trial that ended.
    let nothing = |cell: &Cell| cell.trials.is_empty() && cell.history.is_none();
    if let (Some(error), true) = (&error, cells.iter().all(nothing)) {
        return Err(error.to_string().into());
    }
    let outcome = Outcome {
        origin: Origin {
            parameters: parameters(&spec, arguments),
            ..origin
        },
        recovery_max_ns: u64::try_from(spec.recovery_max.as_nanos()).unwrap_or(u64::MAX),
        cells,
        partial: error.map(|error| error.to_string()),
    };
    let report = report(&outcome);
    let json = serde_json::to_string_pretty(&outcome)?;
    let files = [
        (&arguments.json, "raw.json", json),
        (&arguments.csv, "raw.csv", csv(&outcome)),
        (&arguments.html, "report.html", report.to_html()),
    ];
    deliver(&report, arguments.out.as_deref(), files)?;
    ended(outcome.failure())
}

fn spec(arguments: &Arguments) -> Result<Spec, Failure> {
    let in_flight = match (arguments.in_flight, &arguments.history) {
        (Some(in_flight), _) => in_flight,
        (None, None) => IN_FLIGHT,
        (None, Some(_)) => 0,
    };
    within([
        (
            "--trials",
            arguments.trials as usize,
            1..=TRIALS_MAX as usize,
        ),
        arguments.cluster.members(),
        ("--value-size", arguments.value_size, 0..=VALUE_BYTES_MAX),
        ("--in-flight", in_flight, 0..=10_000),
        (
            "--history-in-flight",
            arguments.history_in_flight,
            1..=10_000,
        ),
        (
            "--history-keys",
            usize::try_from(arguments.history_keys).unwrap_or(usize::MAX),
            1..=1_000_000,
        ),
    ])?;
    if arguments.interval < Duration::from_millis(1) {
        return Err("--interval is at least 1ms".into());
    }
    Ok(Spec {
        cluster: arguments.cluster.options(arguments.timing.settings())?,
        faults: arguments.fault.clone(),
        victim: arguments.victim,
        history: arguments.history.clone().map(|directory| HistorySpec {
            directory,
            in_flight: arguments.history_in_flight,
            keys: arguments.history_keys,
        }),
        trials: arguments.trials,
        interval: arguments.interval,
        patience: arguments.timeout,
        in_flight,
        value_bytes: arguments.value_size,
        before: arguments.before,
        after: arguments.after,
        recovery_max: arguments.recovery_max,
        seed: arguments.seed,
        progress: !arguments.quiet,
    })
}

fn milliseconds(times: &[Duration]) -> Vec<u64> {
    times.iter().map(|time| time.as_millis() as u64).collect()
}

/// What was asked, for the result.
fn parameters(spec: &Spec, arguments: &Arguments) -> BTreeMap<String, String> {
    let ms = |time: Duration| format!("{} ms", time.as_secs_f64() * 1e3);
    let timing = match spec.cluster.settings {
        _ if arguments.sweep => format!(
            "of each cell; elections counted for {} without load and {} under load",
            ms(arguments.quiet_phase),
            ms(arguments.loaded_phase)
        ),
        Some(settings) => format!("{} ms, {} ms", settings.heartbeat_ms, settings.election_ms),
        None => "the servers' defaults".to_owned(),
    };
    let parameter = |name: &str, value: String| (name.to_owned(), value);
    BTreeMap::from([
        parameter("heartbeat interval, election timeout", timing),
        parameter("between probes of one endpoint", ms(spec.interval)),
        parameter("patience with one operation", ms(spec.patience)),
        parameter(
            "puts in flight beside the probes",
            spec.in_flight.to_string(),
        ),
        parameter("value size", format!("{} B", spec.value_bytes)),
        parameter(
            "load before each fault",
            format!("{} to {}", ms(spec.before), ms(spec.before * 2)),
        ),
        parameter("seed", spec.seed.to_string()),
        parameter("hurt", arguments.victim.name().to_owned()),
        parameter(
            "recorded beside the trials",
            spec.history.as_ref().map_or_else(String::new, |history| {
                format!(
                    "puts, reads, swaps, deletions and ranges of {} keys, {} in flight",
                    history.keys, history.in_flight
                )
            }),
        ),
    ])
}
