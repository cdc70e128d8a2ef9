//! The command line: one file per subcommand, each with its arguments and the function that runs it.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workload::Kind;

mod check;
mod cluster;
mod compare;
mod elections;
mod failover;
mod kube;
mod lease;
mod load;
mod operations;
pub mod report;
mod slow;
mod watch;

/// Load for any etcd v3 endpoint, and what it costs.
#[derive(Debug, Parser)]
#[command(name = "kontiki-load", version, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Writes keys.
    Put(operations::WriteArguments),
    /// Reads keys one by one.
    Get(operations::GetArguments),
    /// Reads ranges of keys.
    Range(operations::RangeArguments),
    /// Compare-and-swap: writes a key if it is as it was last seen, else reads it.
    Txn(operations::WriteArguments),
    /// Deletes keys.
    Delete(operations::WriteArguments),
    /// Several operations, with a weight for each.
    Mixed(operations::MixedArguments),
    /// Writes keys that are watched, and measures how long events take to arrive.
    Watch(watch::Arguments),
    /// Grants or renews leases.
    Lease(lease::Arguments),
    /// A mix like that of a Kubernetes API server: guarded updates, reads, lists, watches, leases.
    Kube(kube::Arguments),
    /// Ours beside etcd, run by run in turn.
    Compare(compare::Arguments),
    /// Kills, stops or isolates the leader, or any member, under load, many times.
    Failover(failover::Arguments),
    /// Counts elections that nobody needed, under puts and a busy machine.
    Elections(elections::Arguments),
    /// Slows or stops a follower, and measures what the others notice.
    SlowFollower(slow::Arguments),
    /// Verifies a recorded history.
    Check(check::Arguments),
    /// Renders kept results again.
    Report(report::Arguments),
}

/// Why a subcommand did not end well: one line for people.
pub type Failure = Box<dyn std::error::Error>;

/// How a subcommand ends that may have a reason to fail.
fn ended(failure: Option<String>) -> Result<ExitCode, Failure> {
    failure.map_or(Ok(ExitCode::SUCCESS), |failure| Err(failure.into()))
}

/// Runs what the command line asks for. A failure is one line on stderr and exit code 1; a wrong command
/// line is exit code 2.
#[must_use]
pub fn main() -> ExitCode {
    let done = match CommandLine::parse().command {
        Command::Put(arguments) => operations::write(Kind::Put, &arguments),
        Command::Get(arguments) => operations::get(&arguments),
        Command::Range(arguments) => operations::range(&arguments),
        Command::Txn(arguments) => operations::write(Kind::Txn, &arguments),
        Command::Delete(arguments) => operations::write(Kind::Delete, &arguments),
        Command::Mixed(arguments) => operations::mixed(&arguments),
        Command::Watch(arguments) => watch::run(&arguments),
        Command::Lease(arguments) => lease::run(&arguments),
        Command::Kube(arguments) => kube::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Failover(arguments) => failover::run(&arguments),
        Command::Elections(arguments) => elections::run(&arguments),
        Command::SlowFollower(arguments) => slow::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
    };
    match done {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("kontiki-load: {failure}");
            ExitCode::FAILURE
        }
    }
}
