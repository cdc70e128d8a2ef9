//! Elections that nobody needed: terms that begin under puts and a busy machine, while nothing is wrong.
//!
//! Owns a cluster of its own, a closed loop of puts over a bounded set of keys, compactions that keep the store small, and
//! threads that burn CPU. Every member is asked for term and leader at a fixed interval. A planned handover of leadership
//! begins a term as well, and counts; a vote that was asked for and not begun (a pre-vote) does not. Must never do
//! anything to a member. Looks come from the calling thread; load, compactions and stress have threads of their own.

mod compact;
mod count;
pub mod report;
mod stress;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cluster::{AGREE_TIME_MAX, Cluster, ClusterError, ClusterOptions};
use crate::result::{ErrorCount, Origin, RunResult, origin::failure};
use crate::run::{Pulse, RunError, RunSpec, WRONG_ANSWER, run_told, whole_ns};
use crate::shape::Shape;
use crate::wire::{Endpoint, TlsOptions};
use crate::workload::{KeyOrder, KeySpec, Kind, ValueSpec, WorkloadSpec};

pub use compact::{Compactions, KEPT_REVISIONS};
pub use count::{Count, Election, KEPT_MAX};
pub use stress::STRESS_MAX;

use compact::compact_all_the_time;
use stress::Stress;

/// The form of a file of results.
pub const FORMAT_VERSION: u32 = 1;
/// The longest run.
pub const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Between two looks at the members.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// Connections of the load to each member.
const CONNECTIONS_PER_MEMBER: usize = 4;
/// Patience with one put, and with members that nobody can connect to.
const PATIENCE: Duration = Duration::from_secs(30);
/// What kontiki and etcd say in their logs of a sync that takes long.
const SLOW_SYNCS: [&str; 2] = ["has not completed a sync of the log", "slow fdatasync"];

/// What to do.
#[derive(Clone, Debug)]
pub struct Spec {
    /// At least three members.
    pub cluster: ClusterOptions,
    /// Puts in flight, over all members.
    pub in_flight: usize,
    /// Different keys.
    pub keys: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Threads that burn CPU, at most [`STRESS_MAX`].
    pub stress: usize,
    /// Between two compactions.
    pub compact_every: Duration,
    /// How long.
    pub duration: Duration,
    /// Where the random choices begin.
    pub seed: u64,
    /// Where the members' logs go when there was an election.
    pub logs: Option<PathBuf>,
    /// A line on stderr now and then.
    pub progress: bool,
}

/// Why it ended early.
#[derive(Debug, Error)]
pub enum ElectionsError {
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The load.
    #[error("the load: {0}")]
    Run(#[from] RunError),
    /// A thread cannot be had.
    #[error("{0}")]
    System(#[from] std::io::Error),
    /// A thread of ours has panicked, and said so on stderr.
    #[error("a thread ended without a word")]
    Thread,
}

/// The puts of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Puts {
    /// That were acknowledged.
    pub acknowledged: u64,
    /// Of these, in each second.
    pub per_second: f64,
    /// Their latency.
    pub p50_ns: u64,
    /// Its 99th percentile.
    pub p99_ns: u64,
    /// The highest.
    pub max_ns: u64,
    /// That were not, by code: how many, and what the first one said.
    pub failed: BTreeMap<String, (u64, String)>,
    /// The longest time without an acknowledgement.
    pub longest_gap_ns: u64,
    /// When that began, from the beginning of the load.
    pub longest_gap_at_ns: u64,
}

/// What was seen of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Terms and leaders.
    pub count: Count,
    /// The load.
    pub puts: Puts,
    /// How long it was.
    pub duration_ns: u64,
    /// What kept the store small.
    pub compactions: Compactions,
    /// The CPU time that the stress has got.
    pub stress_cpu_ns: u64,
    /// The highest resident memory of each member, in bytes.
    pub rss: Vec<u64>,
    /// Lines in each member's log that tell of a sync that takes long.
    pub slow_syncs: Vec<u64>,
}

/// Everything, as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: Origin,
    /// What was seen.
    pub seen: Seen,
    /// Elections that are allowed; none for any number.
    pub elections_max: Option<u64>,
    /// Why it ended before its time.
    pub partial: Option<String>,
}

impl Outcome {
    /// Why this is no good result, in one line: more elections than are allowed, a wrong answer, or an early end.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let mut reasons = Vec::new();
        let elections = self.seen.count.elections();
        if let Some(max) = self.elections_max.filter(|max| elections > *max) {
            reasons.push(format!(
                "{elections} elections that nobody needed, above {max}"
            ));
        }
        if let Some((wrong, first)) = self.seen.puts.failed.get(WRONG_ANSWER) {
            reasons.push(format!("{wrong} wrong answers, the first: {first}"));
        }
        failure(reasons, self.partial.as_ref())
    }
}

/// Runs it on a fresh cluster. `stop` ends it early, with what was seen until then.
///
/// # Errors
/// When nothing was seen at all. What ends it early later is in the text beside.
pub fn elections(
    spec: &Spec,
    stop: &Arc<AtomicBool>,
) -> Result<(Seen, Option<String>), ElectionsError> {
    let cluster = Cluster::start(&spec.cluster)?;
    let before = cluster.wait_agreed(AGREE_TIME_MAX)?;
    let mut seen = Seen {
        count: Count::new(&before),
        ..Seen::default()
    };
    let partial = load_and_look(spec, &cluster, stop, &mut seen)?;
    // Every member says what it has seen, also one that did not answer in time before.
    let after = cluster.wait_agreed(AGREE_TIME_MAX);
    if let Ok(after) = &after {
        seen.count
            .look(Duration::from_nanos(seen.duration_ns), after);
    }
    let written = cluster.lines_in_logs(&SLOW_SYNCS).and_then(|slow_syncs| {
        seen.slow_syncs = slow_syncs;
        match spec.logs.as_ref().filter(|_| seen.count.elections() > 0) {
            Some(directory) => cluster.copy_logs(directory),
            None => Ok(()),
        }
    });
    let later = after.map(drop).and(written).err();
    Ok((
        seen,
        partial.or_else(|| later.map(|error| error.to_string())),
    ))
}

/// Loads a cluster and looks at it until the load has ended; gives why that was early.
fn load_and_look(
    spec: &Spec,
    cluster: &Cluster,
    stop: &Arc<AtomicBool>,
    seen: &mut Seen,
) -> Result<Option<String>, ElectionsError> {
    let pulse = Arc::new(Pulse::start());
    let run_spec = run_spec(spec, cluster, &pulse);
    let addresses = cluster.addresses();
    let newest = AtomicI64::new(0);
    let (told, begun) = mpsc::sync_channel(1);
    let result = std::thread::scope(|scope| {
        let load = scope.spawn(move || {
            // Whoever listens for it waits for this thread as well.
            run_told(&run_spec, stop, move || {
                let _ = told.send(Instant::now());
            })
        });
        let Ok(begun) = begun.recv() else {
            // It could not begin, and says why.
            return load
                .join()
                .map_err(|_| ElectionsError::Thread)?
                .map_err(Into::into);
        };
        // Dropped when this thread has looked enough, also when it panics: the other one ends by it.
        let (goes_on, end) = mpsc::sync_channel(0);
        let (newest, addresses) = (&newest, addresses.as_slice());
        let compactor =
            scope.spawn(move || compact_all_the_time(addresses, spec.compact_every, newest, &end));
        let stress = Stress::start(spec.stress);
        if stress.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        let mut progress = Progress::new(spec, &pulse);
        while !load.is_finished() {
            let status = cluster.status();
            seen.count.look(begun.elapsed(), &status);
            let revisions = status.0.iter().flatten().map(|member| member.revision);
            newest.fetch_max(revisions.max().unwrap_or(0), Ordering::Relaxed);
            progress.tell(begun.elapsed(), &seen.count);
            std::thread::sleep(LOOK_INTERVAL);
        }
        let burned = stress.map(Stress::finish);
        drop(goes_on);
        let result = load.join().map_err(|_| ElectionsError::Thread)??;
        seen.compactions = compactor.join().map_err(|_| ElectionsError::Thread)?;
        seen.stress_cpu_ns = whole_ns(burned?);
        let gap = pulse.longest_gap(whole_ns(pulse.zero().elapsed()));
        seen.puts = puts(&result);
        seen.puts.longest_gap_ns = gap.length_ns;
        let begun_ns = whole_ns(begun - pulse.zero());
        seen.puts.longest_gap_at_ns = gap.from_ns.saturating_sub(begun_ns);
        Ok::<_, ElectionsError>(result)
    })?;
    seen.duration_ns = whole_ns(result.duration);
    seen.rss = result
        .servers
        .iter()
        .map(|server| server.rss_bytes)
        .collect();
    Ok(result.partial)
}

fn puts(result: &RunResult) -> Puts {
    let latency = result.latency();
    let mut failed: BTreeMap<String, (u64, String)> = BTreeMap::new();
    for operation in &result.operations {
        for (code, ErrorCount { count, first }) in &operation.errors {
            let code = failed.entry(code.clone());
            code.or_insert_with(|| (0, first.clone())).0 += count;
        }
    }
    Puts {
        acknowledged: result.count(),
        per_second: result.rate_per_second(),
        p50_ns: latency.quantile_ns(0.5),
        p99_ns: latency.quantile_ns(0.99),
        max_ns: latency.max_ns(),
        failed,
        ..Puts::default()
    }
}

fn run_spec(spec: &Spec, cluster: &Cluster, pulse: &Arc<Pulse>) -> RunSpec {
    let connections = CONNECTIONS_PER_MEMBER * cluster.size();
    let keys = KeySpec {
        count: spec.keys,
        size_bytes: 24,
        prefix: "kontiki-load/steady/".to_owned(),
        order: KeyOrder::Uniform,
    };
    RunSpec {
        label: spec.cluster.program.kind.to_string(),
        command: Vec::new(),
        endpoints: cluster
            .addresses()
            .into_iter()
            .map(Endpoint::from)
            .collect(),
        tls: TlsOptions::default(),
        leader_only: false,
        workload: WorkloadSpec::new(
            vec![(Kind::Put, 1)],
            keys,
            ValueSpec::equal(spec.value_bytes),
            spec.seed,
        ),
        shape: Shape::Closed {
            in_flight: spec.in_flight,
        },
        connections: connections.min(spec.in_flight),
        threads: 1,
        warm_up: Duration::ZERO,
        duration: spec.duration,
        operations_max: None,
        timeout: PATIENCE,
        send_timeout: false,
        connect_timeout: PATIENCE,
        patience: PATIENCE,
        server_pids: cluster.pids(),
        record: None,
        pulse: Some(Arc::clone(pulse)),
        progress: false,
    }
}

/// A line on stderr now and then.
struct Progress<'a> {
    spec: &'a Spec,
    pulse: &'a Pulse,
    told_at: Duration,
    beats: u64,
}

impl<'a> Progress<'a> {
    fn new(spec: &'a Spec, pulse: &'a Pulse) -> Progress<'a> {
        Progress {
            spec,
            pulse,
            told_at: Duration::ZERO,
            beats: 0,
        }
    }

    fn tell(&mut self, now: Duration, count: &Count) {
        let span = now.saturating_sub(self.told_at);
        if !self.spec.progress || span < PROGRESS_INTERVAL {
            return;
        }
        let beats = self.pulse.beats();
        let rate = (beats - self.beats) as f64 / span.as_secs_f64();
        eprintln!(
            "{:.0} of {:.0} s: {rate:.0} puts/s, {} elections, {} leader changes",
            now.as_secs_f64(),
            self.spec.duration.as_secs_f64(),
            count.elections(),
            count.leader_changes,
        );
        (self.told_at, self.beats) = (now, beats);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn outcome(seen: Seen) -> Outcome {
        Outcome {
            origin: Origin::default(),
            seen,
            elections_max: None,
            partial: None,
        }
    }

    /// Goal: elections fail a run only above the bound that was asked for; wrong answers and an early end always do, and
    /// puts without an answer never.
    #[test]
    fn what_fails() {
        let check = |elections_max, failed: &str, partial: Option<&str>, expected: Option<&str>| {
            let mut found = outcome(Seen::default());
            (found.seen.count.first_term, found.seen.count.term) = (2, 3);
            found.elections_max = elections_max;
            found.partial = partial.map(str::to_owned);
            let failed = (failed.to_owned(), (4, "why".to_owned()));
            found.seen.puts.failed = BTreeMap::from([failed]);
            assert_eq!(found.failure().as_deref(), expected);
        };
        check(None, "timeout", None, None);
        check(Some(1), "timeout", None, None);
        let above = "1 elections that nobody needed, above 0";
        check(Some(0), "timeout", None, Some(above));
        let wrong = "4 wrong answers, the first: why";
        check(None, WRONG_ANSWER, None, Some(wrong));
        let early = "partial result: interrupted";
        check(None, "timeout", Some("interrupted"), Some(early));
    }
}
