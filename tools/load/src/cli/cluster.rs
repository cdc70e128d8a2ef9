//! What subcommands that start servers of their own have in common: the servers, their timing, and bounds of numbers.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::Failure;
use super::load::duration;
use crate::cluster::{
    ClusterOptions, Kind, MEMBERS_MAX, Placement, Program, Settings, default_data_dir,
    generator_cpu,
};
use crate::result::{Machine, Origin, Target};

/// Which servers are started, and where.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Servers")]
pub(super) struct Servers {
    /// Our binary [default: the one beside this program].
    #[arg(long, value_name = "PATH")]
    kontiki: Option<PathBuf>,
    /// The binary of etcd [default: $ETCD_BIN, or what tools/fetch-etcd has fetched].
    #[arg(long, value_name = "PATH")]
    etcd: Option<PathBuf>,
    /// Where servers keep their data: on a disk, never in memory [default: beside this program].
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
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

/// One cluster, which is to go on without one of its members: it needs three.
#[derive(Clone, Debug, clap::Args)]
#[command(
    next_help_heading = "Servers",
    mut_arg("members", |members| members.default_value("3").help("Members of the cluster"))
)]
pub(super) struct ClusterArguments {
    /// Whose cluster.
    #[arg(long, value_parser = kind, default_value = "kontiki")]
    program: Kind,
    #[command(flatten)]
    pub(super) servers: Servers,
    /// Further flags of the servers, separated by blanks.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    flags: String,
}

impl ClusterArguments {
    /// How many members, for [`within`].
    pub(super) fn members(&self) -> (&'static str, usize, RangeInclusive<usize>) {
        ("--members", self.servers.members, 3..=MEMBERS_MAX)
    }

    /// What to start, under these settings.
    pub(super) fn options(&self, settings: Option<Settings>) -> Result<ClusterOptions, Failure> {
        Ok(ClusterOptions {
            program: self.servers.program(self.program)?,
            members: self.servers.members,
            data_dir: self.servers.data_dir(),
            placement: self.servers.placement,
            settings,
            proxied: false,
            flags: words(&self.flags),
        })
    }
}

/// Both times of an election, or none.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Timing {
    /// Heartbeat interval; the servers' default when absent.
    #[arg(long, value_parser = duration, requires = "election")]
    heartbeat: Option<Duration>,
    /// Election timeout; the servers' default when absent.
    #[arg(long, value_parser = duration, requires = "heartbeat")]
    election: Option<Duration>,
}

impl Timing {
    /// In whole milliseconds, as servers take it.
    pub(super) fn settings(&self) -> Option<Settings> {
        let (heartbeat, election) = self.heartbeat.zip(self.election)?;
        Some(Settings {
            heartbeat_ms: heartbeat.as_millis() as u64,
            election_ms: election.as_millis() as u64,
        })
    }
}

/// The head of a result of this cluster, but for what was asked. It begins now, on the CPUs that are left to this thread.
pub(super) fn origin(format: u32, cluster: &ClusterOptions) -> Origin {
    Origin {
        format,
        command: std::env::args().collect(),
        generator_version: env!("CARGO_PKG_VERSION").to_owned(),
        started: format!("{:.0}", jiff::Timestamp::now()),
        target: Target {
            program: cluster.program.kind.to_string(),
            version: cluster.program.version.clone(),
            members: u32::try_from(cluster.members).unwrap_or(u32::MAX),
            details: BTreeMap::from([("flags".to_owned(), cluster.flags.join(" "))]),
        },
        machine: Machine::read(),
        parameters: BTreeMap::new(),
    }
}

/// Refuses the first number that is out of its bounds, by its flag.
pub(super) fn within<'a>(
    numbers: impl IntoIterator<Item = (&'a str, usize, RangeInclusive<usize>)>,
) -> Result<(), String> {
    for (flag, number, bounds) in numbers {
        if !bounds.contains(&number) {
            let (least, most) = bounds.into_inner();
            return Err(format!("{flag} is from {least} to {most}"));
        }
    }
    Ok(())
}

/// Flags of a server, which stand in one word of the command line.
pub(super) fn words(flags: &str) -> Vec<String> {
    flags.split_whitespace().map(str::to_owned).collect()
}

/// `kontiki` or `etcd`.
pub(super) fn kind(text: &str) -> Result<Kind, String> {
    match text {
        "kontiki" => Ok(Kind::Kontiki),
        "etcd" => Ok(Kind::Etcd),
        other => Err(format!("{other:?} is neither kontiki nor etcd")),
    }
}
