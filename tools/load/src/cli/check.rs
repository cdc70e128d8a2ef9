//! `kontiki-load check`.

use std::process::ExitCode;

use super::Failure;

/// Command line of `kontiki-load check`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {}

/// Runs it.
pub(super) fn run(_: &Arguments) -> Result<ExitCode, Failure> {
    Err("check is not part of this build".into())
}
