//! A grid of heartbeat intervals and election timeouts: what each costs when the leader goes, and how many
//! elections it causes when nothing is wrong.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::outcome::Cell;
use super::trial::{FailoverError, Spec, run_trials, start, start_stream};
use crate::cluster::{AGREE_TIME_MAX, Cluster, Settings};

/// An election timeout is at least so many heartbeats: etcd refuses anything below.
const HEARTBEATS_MIN: u64 = 5;
/// Between two looks at whether the user wants the end.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How long elections are counted before the trials of each cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phases {
    /// Without load.
    pub quiet: Duration,
    /// Under the load of the trials.
    pub loaded: Duration,
}

/// Runs the trials of `spec` for every pair of settings, each on a fresh cluster. A pair that servers refuse is a
/// cell that says so, and so is one that failed, for example because it never got a leader: the others still run.
pub fn sweep(
    spec: &Spec,
    heartbeats_ms: &[u64],
    elections_ms: &[u64],
    phases: Phases,
    stop: &AtomicBool,
) -> (Vec<Cell>, Option<FailoverError>) {
    let mut cells = Vec::new();
    for election_ms in elections_ms {
        for heartbeat_ms in heartbeats_ms {
            let settings = Settings {
                heartbeat_ms: *heartbeat_ms,
                election_ms: *election_ms,
            };
            let mut cell = Cell {
                settings: Some(settings),
                ..Cell::default()
            };
            if election_ms / HEARTBEATS_MIN < *heartbeat_ms {
                cell.refused = Some(format!(
                    "the election timeout is below {HEARTBEATS_MIN} heartbeats"
                ));
                cells.push(cell);
                continue;
            }
            if spec.progress {
                eprintln!("heartbeat {heartbeat_ms} ms, election timeout {election_ms} ms");
            }
            let error = run_cell(spec, phases, stop, &mut cell).err();
            cell.failed = error.as_ref().map(ToString::to_string);
            cells.push(cell);
            if stop.load(Ordering::Relaxed) {
                return (cells, Some(FailoverError::Interrupted));
            }
        }
    }
    (cells, None)
}

fn run_cell(
    spec: &Spec,
    phases: Phases,
    stop: &AtomicBool,
    cell: &mut Cell,
) -> Result<(), FailoverError> {
    let mut spec = spec.clone();
    spec.cluster.settings = cell.settings;
    let mut cluster = start(&spec)?;
    cell.elections_quiet = Some(elections(&cluster, phases.quiet, stop)?);
    let load = start_stream(&spec, &cluster, "elections")?;
    let counted = elections(&cluster, phases.loaded, stop);
    drop(load);
    cell.elections_loaded = Some(counted?);
    if spec.progress {
        eprintln!(
            "  needless elections: {} in {:?} without load, {} in {:?} under load",
            cell.elections_quiet.unwrap_or(0),
            phases.quiet,
            cell.elections_loaded.unwrap_or(0),
            phases.loaded,
        );
    }
    run_trials(&spec, &mut cluster, stop, &mut cell.trials, None)
}

/// Terms that begin within `time`, while nothing is wrong.
fn elections(cluster: &Cluster, time: Duration, stop: &AtomicBool) -> Result<u64, FailoverError> {
    let before = cluster.wait_agreed(AGREE_TIME_MAX)?.term();
    let begin = Instant::now();
    while begin.elapsed() < time && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(LOOK_INTERVAL.min(time));
    }
    let after = cluster.wait_agreed(AGREE_TIME_MAX)?.term();
    Ok(after.saturating_sub(before))
}
