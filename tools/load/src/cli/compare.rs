//! `kontiki-load compare`.

use std::process::ExitCode;

use super::Failure;

/// Command line of `kontiki-load compare`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {}

/// Runs it.
pub(super) fn run(_: &Arguments) -> Result<ExitCode, Failure> {
    Err("compare is not part of this build".into())
}
