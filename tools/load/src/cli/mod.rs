//! The command line: one file per subcommand, each with its arguments and the function that runs it.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod check;
mod compare;
mod failover;
pub mod report;

/// Load for any etcd v3 endpoint, and what it costs.
#[derive(Debug, Parser)]
#[command(name = "kontiki-load", version, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ours beside etcd, run by run in turn.
    Compare(compare::Arguments),
    /// Kills, stops or isolates the leader under load, many times.
    Failover(failover::Arguments),
    /// Verifies a recorded history.
    Check(check::Arguments),
    /// Renders kept results again.
    Report(report::Arguments),
}

/// Why a subcommand did not end well: one line for people.
pub type Failure = Box<dyn std::error::Error>;

/// Runs what the command line asks for. A failure is one line on stderr and exit code 1; a wrong command
/// line is exit code 2.
#[must_use]
pub fn main() -> ExitCode {
    let done = match CommandLine::parse().command {
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Failover(arguments) => failover::run(&arguments),
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
