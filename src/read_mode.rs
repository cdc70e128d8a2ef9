//! `kontiki read-mode`: asks members on what linearizable reads rest, or has one of them change it.
//!
//! Blocks, on the thread of `main`; starts no server. What a mode means is `raft`'s business, how it is asked
//! for `rpc`'s.

use std::io::{self, Write as _};

use crate::base::url::Url;
use crate::config::ReadModeCommand;
use crate::raft::ReadMode;
use crate::rpc::client::{self, ClientError};

/// Why something was not said or done.
#[derive(Debug, thiserror::Error)]
pub enum ReadModeError {
    /// A member that was asked.
    #[error("{member}: {source}")]
    Member {
        /// Which.
        member: Url,
        /// Why not.
        source: ClientError,
    },
    /// Of several, and it was said of each why.
    #[error("{failed} of {asked} members did not answer")]
    Several {
        /// How many failed.
        failed: usize,
        /// How many were asked.
        asked: usize,
    },
}

/// Asks what the command says, and prints the answers.
///
/// # Errors
/// See [`ReadModeError`].
pub fn run(command: &ReadModeCommand) -> Result<(), ReadModeError> {
    match command.wanted {
        None => show(&command.endpoints),
        Some(mode) => change(&command.endpoints, mode),
    }
}

/// Each member is asked: one that lags says something else for a moment.
fn show(members: &[Url]) -> Result<(), ReadModeError> {
    let mut failures = Vec::new();
    for member in members {
        match client::read_mode(member) {
            Ok(mode) => say(&format!("{member}: {mode}")),
            Err(source) => failures.push(ReadModeError::Member {
                member: member.clone(),
                source,
            }),
        }
    }
    fail(failures, members.len())
}

/// The first member that takes it speaks for all.
fn change(members: &[Url], wanted: ReadMode) -> Result<(), ReadModeError> {
    let mut failures = Vec::new();
    for member in members {
        match client::set_read_mode(member, wanted) {
            Ok(mode) => {
                say(&format!("the whole cluster: {mode}"));
                return Ok(());
            }
            Err(source) => failures.push(ReadModeError::Member {
                member: member.clone(),
                source,
            }),
        }
    }
    fail(failures, members.len())
}

/// One failure is told by whoever called; of several each is told here.
fn fail(mut failures: Vec<ReadModeError>, asked: usize) -> Result<(), ReadModeError> {
    let failed = failures.len();
    match failures.pop() {
        None => Ok(()),
        Some(only) if failed == 1 => Err(only),
        Some(last) => {
            for failure in failures.iter().chain([&last]) {
                eprintln!("kontiki: {failure}");
            }
            Err(ReadModeError::Several { failed, asked })
        }
    }
}

/// A reader that closes early, such as `head`, is no failure.
fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}
