//! `kontiki-load slow-follower`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::cluster::{ClusterArguments, origin, within};
use super::load::{duration, stop_at_signals};
use super::report::{deliver, make_directory};
use super::{Failure, ended};
use crate::result::Origin;
use crate::shape::RATE_MAX;
use crate::slow::report::{csv, report};
use crate::slow::{
    FORMAT_VERSION, Load, Measured, Outcome, Phase, ROUNDS_MAX, Spec, slow_follower,
};

/// What is measured when nothing else is said.
const PHASES: [Phase; 3] = [Phase::SlowNetwork, Phase::SlowSyncs, Phase::Stopped];

/// Command line of `kontiki-load slow-follower`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    cluster: ClusterArguments,
    /// What is wrong with the follower, one after the other; a healthy phase is beside them in each round. What is named here
    /// and cannot be had on this machine is a failure [default: slow-network,slow-syncs,stopped, without what cannot be had].
    #[arg(long, value_enum, value_delimiter = ',')]
    phases: Option<Vec<Phase>>,
    /// How often all phases take their turn.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// The measured part of each phase.
    #[arg(long, value_parser = duration, default_value = "10s")]
    duration: Duration,
    /// Load before it.
    #[arg(long, value_parser = duration, default_value = "2s")]
    warm_up: Duration,
    /// Puts per second to the leader.
    #[arg(long, default_value_t = 2_000.0)]
    rate: f64,
    /// Puts in flight, instead of a rate: as many puts as the leader takes.
    #[arg(long, value_name = "COUNT", conflicts_with = "rate")]
    in_flight: Option<usize>,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    value_size: usize,
    /// Of the slow network, each way.
    #[arg(long, value_parser = duration, default_value = "100ms")]
    network_delay: Duration,
    /// What a slow sync takes.
    #[arg(long, value_parser = duration, default_value = "100ms")]
    sync_time: Duration,
    /// Fails when the median ratio of a phase's p99 to the healthy one is above this.
    #[arg(long, value_name = "RATIO")]
    ratio_max: Option<f64>,
    /// Where the random choices begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Writes raw.csv, raw.json and summary.txt into this directory.
    #[arg(long, value_name = "DIRECTORY", help_heading = "Results")]
    out: Option<PathBuf>,
    /// No line of progress for each phase.
    #[arg(long, help_heading = "Results")]
    quiet: bool,
}

/// Runs it.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let spec = spec(arguments)?;
    make_directory(arguments.out.as_deref())?;
    arguments.cluster.servers.bind_generator()?;
    let origin = origin(FORMAT_VERSION, &spec.cluster);
    let stop = stop_at_signals()?;
    let measured = slow_follower(&spec, &stop);
    if let (Some(error), true) = (&measured.error, measured.samples.is_empty()) {
        return Err(error.to_string().into());
    }
    let Measured {
        samples,
        left_out,
        sync_time,
        error,
    } = measured;
    let outcome = Outcome {
        origin: Origin {
            parameters: parameters(&spec, sync_time),
            ..origin
        },
        samples,
        left_out,
        required: arguments.phases.clone().unwrap_or_default(),
        partial: error.map(|error| error.to_string()),
    };
    let files = [
        (&None, "raw.json", serde_json::to_string_pretty(&outcome)?),
        (&None, "raw.csv", csv(&outcome)),
    ];
    deliver(&report(&outcome), arguments.out.as_deref(), files)?;
    ended(outcome.failure(arguments.ratio_max))
}

fn spec(arguments: &Arguments) -> Result<Spec, Failure> {
    let in_flight = arguments.in_flight.unwrap_or(1);
    within([
        (
            "--rounds",
            arguments.rounds as usize,
            1..=ROUNDS_MAX as usize,
        ),
        arguments.cluster.members(),
        ("--in-flight", in_flight, 1..=10_000),
        ("--value-size", arguments.value_size, 16..=1 << 20),
    ])?;
    if !(arguments.rate > 0.0 && arguments.rate <= RATE_MAX) {
        return Err(format!("--rate must be above zero, and at most {RATE_MAX:.0}").into());
    }
    Ok(Spec {
        cluster: arguments.cluster.options(None)?,
        phases: arguments.phases.clone().unwrap_or_else(|| PHASES.to_vec()),
        rounds: arguments.rounds,
        duration: arguments.duration,
        warm_up: arguments.warm_up,
        load: arguments
            .in_flight
            .map_or(Load::Rate(arguments.rate), Load::InFlight),
        value_bytes: arguments.value_size,
        network_delay: arguments.network_delay,
        sync_time: arguments.sync_time,
        seed: arguments.seed,
        progress: !arguments.quiet,
    })
}

/// What was asked, for the result.
fn parameters(spec: &Spec, sync_time: Option<Duration>) -> BTreeMap<String, String> {
    let ms = |time: Duration| format!("{:.0} ms", time.as_secs_f64() * 1e3);
    let parameter = |name: &str, value: String| (name.to_owned(), value);
    BTreeMap::from([
        parameter(
            "load, to the leader",
            match spec.load {
                Load::Rate(rate) => format!("{rate:.0} puts/s at equal intervals"),
                Load::InFlight(count) => format!("{count} puts in flight"),
            },
        ),
        parameter("value size", format!("{} B", spec.value_bytes)),
        parameter("measured part of a phase", ms(spec.duration)),
        parameter("slow network, each way", ms(spec.network_delay)),
        parameter(
            "a slow sync, measured alone",
            sync_time.map_or_else(String::new, ms),
        ),
        parameter("seed", spec.seed.to_string()),
    ])
}
