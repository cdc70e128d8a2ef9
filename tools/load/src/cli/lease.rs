//! `kontiki-load lease`: leases granted, renewed and revoked.

use std::process::ExitCode;

use super::Failure;
use super::load::LoadArguments;
use crate::workload::Kind;

/// Command line of `kontiki-load lease`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// What is done with leases: they are renewed, or granted and revoked in turn.
    #[arg(long, value_enum, default_value = "renew")]
    operation: Operation,
    /// Leases that are there at the same time.
    #[arg(long, default_value_t = 1000)]
    leases: u64,
    /// Seconds that a lease lives.
    #[arg(long, default_value_t = 60)]
    ttl: u32,
    #[command(flatten)]
    load: LoadArguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Operation {
    /// Keep-alive messages over one stream for each connection.
    Renew,
    /// Grants; beyond --leases, each revokes the oldest.
    Grant,
}

/// Runs it.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let kind = match arguments.operation {
        Operation::Renew => Kind::Renew,
        Operation::Grant => Kind::Grant,
    };
    let mut workload = arguments.load.workload(vec![(kind, 1)]);
    workload.leases = arguments.leases.max(1);
    workload.lease_ttl_seconds = i64::from(arguments.ttl.max(1));
    arguments.load.run(workload)
}
