//! `kontiki-load watch`: puts under watchers, and how long events take to arrive.

use std::process::ExitCode;

use super::Failure;
use super::load::LoadArguments;
use crate::workload::Kind;

/// Command line of `kontiki-load watch`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// Watchers, spread over all connections.
    #[arg(long, default_value_t = 100)]
    watchers: u64,
    /// The watchers share so many keys, the first of the key space, and all puts go there; 0: each watches all keys.
    #[arg(long, default_value_t = 1)]
    watched_keys: u64,
    /// Streams that the watchers of one connection share.
    #[arg(long, default_value_t = 1)]
    watch_streams: u64,
    #[command(flatten)]
    load: LoadArguments,
}

/// Runs it.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut workload = arguments.load.workload(vec![(Kind::Put, 1)]);
    workload.watchers = arguments.watchers;
    workload.watch_streams = arguments.watch_streams.max(1);
    workload.watched_keys = arguments.watched_keys;
    if workload.watched_keys > 0 {
        workload.keys.count = workload.watched_keys;
    }
    // An event tells when its put was to start.
    workload.values.size_min = workload.values.size_min.max(16);
    workload.values.size_max = workload.values.size_max.max(16);
    arguments.load.run(workload)
}
