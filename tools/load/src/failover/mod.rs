//! What happens when the leader or another member goes: how long until a put is acknowledged again, and whether
//! anything was lost or stale.
//!
//! Owns the plan of trials and what is measured in each. A trial hurts a member under load, waits until the
//! cluster serves, heals it, and checks every answer; where it is asked for, a mixed load is recorded beside all trials and
//! its whole history judged. Must never take a client's waiting for the cluster's: see
//! `stream`. Runs on the calling thread; probe, load and proxies have threads of their own.

mod chronicle;
mod kept;
mod outcome;
mod pages;
pub mod report;
mod stream;
mod sweep;
mod trial;
mod verify;
mod victim;

pub use chronicle::{History, HistoryError, HistorySpec};
pub use outcome::{Cell, FORMAT_VERSION, Outcome, Time, Times, Trial};
pub use sweep::{Phases, sweep};
pub use trial::{FailoverError, Spec, failover};
pub use verify::EXAMPLES_MAX;
pub use victim::Victim;

use serde::{Deserialize, Serialize};

/// Trials of one run, or of one cell of a sweep.
pub const TRIALS_MAX: u32 = 10_000;
/// Cells of a sweep.
pub const CELLS_MAX: usize = 400;

/// What is done to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// SIGKILL: its connections close at once.
    Kill,
    /// SIGSTOP: its connections stay, and it answers nothing.
    Stop,
    /// Its traffic with the other members is dropped in silence; clients reach it.
    Isolate,
    /// SIGTERM: a planned stop, before which it may hand over.
    Terminate,
}

impl Fault {
    /// In tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Stop => "stop",
            Fault::Isolate => "isolate",
            Fault::Terminate => "terminate",
        }
    }
}
