//! `kontiki-load lease`: leases granted, renewed, revoked and ended by time.

use std::process::ExitCode;

use super::Failure;
use super::load::LoadArguments;
use crate::workload::Kind;

/// Command line of `kontiki-load lease`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// What is done with leases.
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
    /// Each lease gets one key, and how much later than promised the key is deleted is measured. Needs --rate, of
    /// grants and puts together.
    Expire,
}

/// Runs it.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let kind = match arguments.operation {
        Operation::Renew => Kind::Renew,
        Operation::Grant => Kind::Grant,
        Operation::Expire => Kind::Expiry,
    };
    let mut workload = arguments.load.workload(vec![(kind, 1)]);
    workload.leases = arguments.leases.max(1);
    if arguments.operation == Operation::Expire {
        if !arguments.load.has_rate() {
            return Err(
                "--operation expire needs --rate: leases end by time, not by answers".into(),
            );
        }
        // Each thread sees the end of its own leases: through a watcher of the whole key space.
        workload.watchers = arguments.load.threads() as u64;
    }
    workload.lease_ttl_seconds = i64::from(arguments.ttl.max(1));
    arguments.load.run(workload)
}
