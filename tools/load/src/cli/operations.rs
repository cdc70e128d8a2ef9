//! The subcommands of one kind of operation each, and `mixed` for several.

use std::process::ExitCode;

use super::Failure;
use super::load::LoadArguments;
use crate::workload::Kind;

/// Command line of `put`, `txn` and `delete`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct WriteArguments {
    #[command(flatten)]
    load: LoadArguments,
}

/// Command line of `get`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct GetArguments {
    /// Any member may answer from what it has.
    #[arg(long)]
    serializable: bool,
    #[command(flatten)]
    load: LoadArguments,
}

/// Command line of `range`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RangeArguments {
    /// Keys of one range.
    #[arg(long, default_value_t = 100)]
    range_keys: u64,
    /// Any member may answer from what it has.
    #[arg(long)]
    serializable: bool,
    #[command(flatten)]
    load: LoadArguments,
}

/// Command line of `mixed`: how often each operation is chosen, relative to the others.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct MixedArguments {
    /// Puts.
    #[arg(long, default_value_t = 0, value_name = "WEIGHT")]
    put: u32,
    /// Reads of one key.
    #[arg(long, default_value_t = 0, value_name = "WEIGHT")]
    get: u32,
    /// Reads of many keys.
    #[arg(long, default_value_t = 0, value_name = "WEIGHT")]
    range: u32,
    /// Compare-and-swaps.
    #[arg(long, default_value_t = 0, value_name = "WEIGHT")]
    txn: u32,
    /// Deletions.
    #[arg(long, default_value_t = 0, value_name = "WEIGHT")]
    delete: u32,
    /// Keys of one range.
    #[arg(long, default_value_t = 100)]
    range_keys: u64,
    /// Any member may answer reads from what it has.
    #[arg(long)]
    serializable: bool,
    #[command(flatten)]
    load: LoadArguments,
}

/// Runs `put`, `txn` or `delete`.
pub(super) fn write(kind: Kind, arguments: &WriteArguments) -> Result<ExitCode, Failure> {
    let mut workload = arguments.load.workload(vec![(kind, 1)]);
    // What is deleted should be there.
    workload.fill |= kind == Kind::Delete;
    arguments.load.run(workload)
}

/// Runs `get`.
pub(super) fn get(arguments: &GetArguments) -> Result<ExitCode, Failure> {
    let mut workload = arguments.load.workload(vec![(Kind::Get, 1)]);
    workload.serializable = arguments.serializable;
    arguments.load.run(workload)
}

/// Runs `range`.
pub(super) fn range(arguments: &RangeArguments) -> Result<ExitCode, Failure> {
    let mut workload = arguments.load.workload(vec![(Kind::Range, 1)]);
    workload.serializable = arguments.serializable;
    workload.range_keys = arguments.range_keys.max(1);
    arguments.load.run(workload)
}

/// Runs `mixed`.
pub(super) fn mixed(arguments: &MixedArguments) -> Result<ExitCode, Failure> {
    let weights = [
        (Kind::Put, arguments.put),
        (Kind::Get, arguments.get),
        (Kind::Range, arguments.range),
        (Kind::Txn, arguments.txn),
        (Kind::Delete, arguments.delete),
    ];
    let mix: Vec<_> = weights
        .into_iter()
        .filter(|(_, weight)| *weight > 0)
        .collect();
    if mix.is_empty() {
        return Err("say how often each operation is chosen, such as --put 20 --get 80".into());
    }
    if mix.iter().any(|(_, weight)| *weight > 1_000_000) {
        return Err("a weight is at most 1000000".into());
    }
    let mut workload = arguments.load.workload(mix);
    workload.serializable = arguments.serializable;
    workload.range_keys = arguments.range_keys.max(1);
    arguments.load.run(workload)
}
