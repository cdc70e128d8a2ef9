//! `kontiki-load kube`: a mix like that of a Kubernetes API server.

use std::process::ExitCode;

use super::Failure;
use super::load::LoadArguments;
use crate::workload::Kind;

/// Out of a hundred operations: guarded updates, reads, lists, renewals.
const MIX: [(Kind, u32); 4] = [
    (Kind::Txn, 60),
    (Kind::Get, 20),
    (Kind::Range, 5),
    (Kind::Renew, 15),
];

/// Command line of `kontiki-load kube`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// Watchers of the whole key space, as the API server's caches are.
    #[arg(long, default_value_t = 10)]
    watchers: u64,
    /// Keys of one list.
    #[arg(long, default_value_t = 500)]
    list_keys: u64,
    /// Leases that are renewed.
    #[arg(long, default_value_t = 100)]
    leases: u64,
    #[command(flatten)]
    load: LoadArguments,
}

/// Runs it.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut workload = arguments.load.workload(MIX.to_vec());
    workload.watchers = arguments.watchers;
    workload.range_keys = arguments.list_keys.max(1);
    workload.leases = arguments.leases.max(1);
    workload.values.size_min = workload.values.size_min.max(16);
    workload.values.size_max = workload.values.size_max.max(16);
    arguments.load.run(workload)
}
