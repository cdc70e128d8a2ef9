//! The simulator: a whole cluster, its clients, its network, its disks and its clocks, on one thread and from
//! one seed.
//!
//! A driver of shards, as the runtime is: the same product code, with a world around it that is as hostile as
//! the product promises to survive. A run is a function of its [`Options`]: no clock, no thread, no
//! randomness but the seed's. It never changes what a shard does; it only decides what happens to it.
//!
//! ```text
//! schedule -> event -> shard -> effects -> disk, network, clients -> schedule
//!                        |         `- a trap may end a member between any two
//!                        `-> checkers
//! ```

pub mod checker;
mod clients;
pub mod clock;
mod cluster;
pub mod conditions;
pub mod dice;
pub mod disk;
mod ending;
mod estranged;
mod faults;
mod hung;
mod life;
mod member;
pub mod network;
mod observe;
mod operator;
mod perform;
mod pledged;
mod post;
mod recovery;
pub mod report;
mod schedule;
pub mod trace;
mod workload;
mod writes;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use self::checker::{Promise, Violation};
use self::cluster::Cluster;
use self::report::Report;
use self::trace::Keep;
use crate::base::planted::Planted;

/// What a run is a function of.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// Members of the cluster.
    pub members: usize,
    /// How long faults happen, in simulated time.
    pub faults_for: Duration,
    /// How long clients ask afterwards.
    pub calm_for: Duration,
    /// What is wrong with the product on purpose.
    pub planted: Planted,
    /// Which lines of the trace are kept.
    pub keep: Keep,
}

impl Options {
    /// Ten minutes of faults and half a minute of calm.
    #[must_use]
    pub fn of_seed(seed: u64) -> Options {
        Options {
            seed,
            members: 1,
            faults_for: Duration::from_mins(10),
            calm_for: Duration::from_secs(30),
            planted: Planted::NOTHING,
            keep: Keep::Tail,
        }
    }
}

/// Runs one seed to its end, or to the first violation.
#[must_use]
pub fn run(options: Options) -> Report {
    let mut cluster = Cluster::new(options);
    let ended = catch_unwind(AssertUnwindSafe(|| cluster.run()));
    let violation = match ended {
        Ok(verdict) => verdict.err(),
        Err(panic) => Some(Violation {
            promise: Promise::NoPanic,
            seen: words(panic.as_ref()),
        }),
    };
    Report {
        seed: options.seed,
        violation,
        statistics: cluster.statistics(),
        trace_hash: cluster.trace.hash(),
        trace: cluster.trace.lines(),
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}
