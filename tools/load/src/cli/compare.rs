//! `kontiki-load compare`.

use std::process::ExitCode;
use std::time::Duration;

use super::cluster::{Servers, kind, within, words};
use super::load::{duration, stop_at_signals};
use super::report::Outputs;
use super::{Failure, ended};
use crate::cluster::{Kind, MEMBERS_MAX};
use crate::compare::{
    Connections, Data, IDLE_CLIENTS_MAX, IN_FLIGHT_MAX, Measure, Operation, PAIRS_MAX, Spec,
    compare, grid, measured, side_names,
};

/// Command line of `kontiki-load compare`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    servers: Servers,
    /// Compares a program with itself: both ratios and their spread should be around 1.
    #[arg(long, value_name = "PROGRAM", value_parser = kind)]
    null: Option<Kind>,
    /// What is done.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "put")]
    operations: Vec<Operation>,
    /// Operations in flight.
    #[arg(long, value_delimiter = ',', default_value = "1,64,256,1000")]
    in_flight: Vec<usize>,
    /// Connections that share them: a number, or `each` for one connection for each operation in flight.
    #[arg(long, value_delimiter = ',', default_value = "10,each")]
    connections: Vec<Connections>,
    /// What is measured beside the closed loops of --operations; over the first of --connections.
    #[arg(long, value_enum, value_delimiter = ',')]
    measures: Vec<Measure>,
    /// Only --measures, no closed loop.
    #[arg(long, requires = "measures")]
    measures_only: bool,
    /// Connected clients of idle members; they are measured without any as well.
    #[arg(long, default_value_t = 100)]
    idle_clients: usize,
    /// The measured part of a run in which nothing is asked: CPU time is read in ticks of 10 ms.
    #[arg(long, value_parser = duration, default_value = "20s")]
    idle_duration: Duration,
    /// Pairs of runs at each point.
    #[arg(long, default_value_t = 5)]
    pairs: u32,
    /// The measured part of a run.
    #[arg(long, value_parser = duration, default_value = "8s")]
    duration: Duration,
    /// Load before it that is not measured.
    #[arg(long, value_parser = duration, default_value = "2s")]
    warm_up: Duration,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    value_size: usize,
    /// Different keys.
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Keys that a range reads.
    #[arg(long, default_value_t = 100)]
    range_keys: u64,
    /// Watchers of the one key of a watch.
    #[arg(long, default_value_t = 1_000)]
    watchers: u64,
    /// Threads of the generator.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Where the random choices begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Further flags of kontiki, separated by blanks.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    kontiki_flags: String,
    /// Further flags of etcd, separated by blanks.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    etcd_flags: String,
    /// No line of progress for each run.
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    outputs: Outputs,
}

/// Runs it.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let spec = spec(arguments)?;
    arguments.servers.bind_generator()?;
    let stop = stop_at_signals()?;
    let outcome = compare(&spec, &stop);
    let failure = outcome.failure();
    if !outcome.runs.is_empty() {
        arguments.outputs.deliver(outcome.runs)?;
    }
    ended(failure)
}

fn spec(arguments: &Arguments) -> Result<Spec, Failure> {
    let kinds = match arguments.null {
        Some(kind) => [kind, kind],
        None => [Kind::Kontiki, Kind::Etcd],
    };
    let pairs = ("--pairs", arguments.pairs as usize, 1..=PAIRS_MAX as usize);
    let in_flight = arguments.in_flight.iter();
    let in_flight = in_flight.map(|count| ("--in-flight", *count, 1..=IN_FLIGHT_MAX));
    let members = ("--members", arguments.servers.members, 1..=MEMBERS_MAX);
    let clients = (
        "--idle-clients",
        arguments.idle_clients,
        1..=IDLE_CLIENTS_MAX,
    );
    within(
        [pairs]
            .into_iter()
            .chain(in_flight)
            .chain([members, clients]),
    )?;
    if arguments.keys == 0 || arguments.threads == 0 {
        return Err("--keys and --threads must be at least 1".into());
    }
    let sides = [
        arguments.servers.program(kinds[0])?,
        arguments.servers.program(kinds[1])?,
    ];
    let flags = |kind: Kind| match kind {
        Kind::Kontiki => words(&arguments.kontiki_flags),
        Kind::Etcd => words(&arguments.etcd_flags),
    };
    let mut points = match arguments.measures_only {
        true => Vec::new(),
        false => grid(
            &arguments.operations,
            &arguments.in_flight,
            &arguments.connections,
        ),
    };
    let first = arguments.connections.first().copied();
    points.extend(measured(
        &arguments.measures,
        first.ok_or("--connections names none")?,
        arguments.idle_clients,
    ));
    let names = side_names(&sides);
    if !arguments.quiet {
        eprintln!(
            "{} ({}) / {} ({})",
            names[0], sides[0].version, names[1], sides[1].version
        );
    }
    Ok(Spec {
        flags: kinds.map(flags),
        points,
        sides,
        pairs: arguments.pairs,
        members: arguments.servers.members,
        placement: arguments.servers.placement,
        data_dir: arguments.servers.data_dir(),
        data: Data {
            keys: arguments.keys,
            value_bytes: arguments.value_size,
            range_keys: arguments.range_keys,
            watchers: arguments.watchers,
            seed: arguments.seed,
        },
        duration: arguments.duration,
        warm_up: arguments.warm_up,
        idle_duration: arguments.idle_duration,
        threads: arguments.threads,
        command: std::env::args().collect(),
        progress: !arguments.quiet,
    })
}
