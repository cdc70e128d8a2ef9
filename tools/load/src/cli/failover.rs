//! `kontiki-load failover`.

use std::process::ExitCode;

use super::Failure;

/// Command line of `kontiki-load failover`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {}

/// Runs it.
pub(super) fn run(_: &Arguments) -> Result<ExitCode, Failure> {
    Err("failover is not part of this build".into())
}
