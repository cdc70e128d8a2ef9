//! `kontiki-load compare`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::Failure;
use super::load::{duration, stop_at_signals};
use super::report::Outputs;
use crate::cluster::{Kind, MEMBERS_MAX, Placement, Program, default_data_dir, generator_cpu};
use crate::compare::{
    Connections, Data, IDLE_CLIENTS_MAX, IN_FLIGHT_MAX, Measure, Operation, PAIRS_MAX, Spec,
    compare, grid, measured, side_names,
};

/// Command line of `kontiki-load compare`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) servers: Servers,
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

/// Which servers are started, and where.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Servers")]
pub(super) struct Servers {
    /// Our binary [default: the one beside this program].
    #[arg(long, value_name = "PATH")]
    pub(super) kontiki: Option<PathBuf>,
    /// The binary of etcd [default: $ETCD_BIN, or what tools/fetch-etcd has fetched].
    #[arg(long, value_name = "PATH")]
    pub(super) etcd: Option<PathBuf>,
    /// Where servers keep their data: on a disk, never in memory [default: beside this program].
    #[arg(long, value_name = "DIRECTORY")]
    pub(super) data_dir: Option<PathBuf>,
    /// Members of each cluster.
    #[arg(long, default_value_t = 1)]
    pub(super) members: usize,
    /// Which CPUs they run on.
    #[arg(long, value_enum, default_value = "spread")]
    pub(super) placement: Placement,
}

impl Servers {
    /// The program asked for.
    pub(super) fn program(&self, kind: Kind) -> Result<Program, Failure> {
        Ok(match kind {
            Kind::Kontiki => Program::kontiki(self.kontiki.as_deref())?,
            Kind::Etcd => Program::etcd(self.etcd.as_deref())?,
        })
    }

    /// Where data goes.
    pub(super) fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(default_data_dir)
    }

    /// Leaves the members' CPUs to them, where there is one more.
    pub(super) fn bind_generator(&self) -> Result<(), Failure> {
        match generator_cpu(self.members) {
            Some(cpu) if self.placement == Placement::Spread => {
                Ok(kontiki_harness::cpu::bind_to_cpu(cpu)?)
            }
            _ => Ok(()),
        }
    }
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
    match failure {
        Some(failure) => Err(failure.into()),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn spec(arguments: &Arguments) -> Result<Spec, Failure> {
    let kinds = match arguments.null {
        Some(kind) => [kind, kind],
        None => [Kind::Kontiki, Kind::Etcd],
    };
    if arguments.pairs == 0 || arguments.pairs > PAIRS_MAX {
        return Err(format!("--pairs is from 1 to {PAIRS_MAX}").into());
    }
    if arguments
        .in_flight
        .iter()
        .any(|count| *count == 0 || *count > IN_FLIGHT_MAX)
    {
        return Err(format!("--in-flight is from 1 to {IN_FLIGHT_MAX}").into());
    }
    if arguments.servers.members == 0 || arguments.servers.members > MEMBERS_MAX {
        return Err(format!("--members is from 1 to {MEMBERS_MAX}").into());
    }
    if arguments.idle_clients == 0 || arguments.idle_clients > IDLE_CLIENTS_MAX {
        return Err(format!("--idle-clients is from 1 to {IDLE_CLIENTS_MAX}").into());
    }
    if arguments.keys == 0 || arguments.threads == 0 {
        return Err("--keys and --threads must be at least 1".into());
    }
    let sides = [
        arguments.servers.program(kinds[0])?,
        arguments.servers.program(kinds[1])?,
    ];
    let flags = |kind: Kind| -> Vec<String> {
        let text = match kind {
            Kind::Kontiki => &arguments.kontiki_flags,
            Kind::Etcd => &arguments.etcd_flags,
        };
        text.split_whitespace().map(str::to_owned).collect()
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

/// `kontiki` or `etcd`.
pub(super) fn kind(text: &str) -> Result<Kind, String> {
    match text {
        "kontiki" => Ok(Kind::Kontiki),
        "etcd" => Ok(Kind::Etcd),
        other => Err(format!("{other:?} is neither kontiki nor etcd")),
    }
}
