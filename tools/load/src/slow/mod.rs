//! What one slow or stopped follower costs the others: put latency and the leader's memory, beside those of healthy
//! members in the same minutes.
//!
//! Owns the plan of rounds and phases. Each round measures three healthy members, and the same with one
//! follower behind a slow network, with slow syncs, and stopped as it stands; another one of these is first in each
//! round, so that what changes in the course of a round is in no ratio for ever. Load goes to the leader alone, as a
//! client of the slow member waits for that member and not for the cluster. Must never compare across rounds. Runs on the
//! calling thread; load and proxies have threads of their own.

pub mod report;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cluster::{AGREE_TIME_MAX, Brake, Cluster, ClusterError, ClusterOptions};
use crate::measure::rss_bytes;
use crate::result::{Latency, Origin, RunResult, origin::failure};
use crate::run::{RunError, RunSpec, SUCCEEDED_ALL, run};
use crate::shape::Shape;
use crate::wire::TlsOptions;
use crate::workload::{KeyOrder, KeySpec, Kind, ValueSpec, WorkloadSpec};

/// Rounds of one run.
pub const ROUNDS_MAX: u32 = 1_000;
/// The form of a file of results.
pub const FORMAT_VERSION: u32 = 1;
/// How long a follower that was slow or stopped may take until it has what the others have.
const LEVEL_TIME_MAX: Duration = Duration::from_secs(120);
/// How long the kernel may take to move a process between groups, or a proxy to pass what was on its way.
const SETTLE_TIME: Duration = Duration::from_millis(300);
/// Connections of the load.
const CONNECTIONS: usize = 10;
/// Different keys.
const KEYS: u64 = 10_000;

/// What is wrong with one follower.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing: what the others are compared with.
    Healthy,
    /// What it sends and is sent by other members arrives late.
    SlowNetwork,
    /// Its syncs take long.
    SlowSyncs,
    /// SIGSTOP: its connections stay, and it answers nothing.
    Stopped,
}

impl Phase {
    /// In tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Phase::Healthy => "healthy",
            Phase::SlowNetwork => "slow network",
            Phase::SlowSyncs => "slow syncs",
            Phase::Stopped => "stopped",
        }
    }
}

/// When puts start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// So many per second.
    Rate(f64),
    /// So many in flight.
    InFlight(usize),
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Spec {
    /// At least three members; they talk through proxies whatever it says.
    pub cluster: ClusterOptions,
    /// What is wrong with the follower, one after the other in each round; a healthy phase is among them.
    pub phases: Vec<Phase>,
    /// How often, at most [`ROUNDS_MAX`].
    pub rounds: u32,
    /// The measured part of each phase.
    pub duration: Duration,
    /// Load before it.
    pub warm_up: Duration,
    /// How much load.
    pub load: Load,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// How long bytes between the follower and the others are on their way, in each direction.
    pub network_delay: Duration,
    /// How long its syncs take.
    pub sync_time: Duration,
    /// Where the random choices begin.
    pub seed: u64,
    /// A line for each phase on stderr.
    pub progress: bool,
}

/// Why phases ended early.
#[derive(Debug, Error)]
pub enum SlowError {
    /// A cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The load.
    #[error("the load: {0}")]
    Run(#[from] RunError),
    /// The kernel did not move a process.
    #[error("slowing the syncs of a member: {0}")]
    Brake(#[from] std::io::Error),
    /// The user ended it.
    #[error("interrupted")]
    Interrupted,
}

/// All phases of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: Origin,
    /// In order.
    pub samples: Vec<Sample>,
    /// Phases that this machine cannot have, and why.
    pub left_out: Vec<(Phase, String)>,
    /// Phases that were asked for by name, and must not be left out.
    #[serde(default)]
    pub required: Vec<Phase>,
    /// Why it ended early.
    pub partial: Option<String>,
}

/// One phase of one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// From one.
    pub round: u32,
    /// What was wrong with the follower.
    pub phase: Phase,
    /// Puts per second.
    pub rate: f64,
    /// Puts that succeeded in the measured part.
    pub puts: u64,
    /// The same with those of the warm-up, which have left memory with the leader too.
    pub puts_all: u64,
    /// Median latency.
    pub p50_ns: u64,
    /// The 99th percentile.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// Puts that failed.
    pub errors: u64,
    /// The leader's resident memory before the load.
    pub rss_before: u64,
    /// The highest while it was measured.
    pub rss_max: u64,
    /// Right after it, before the follower is whole again.
    pub rss_after: u64,
    /// Terms that began meanwhile: nobody needed them.
    pub elections: u64,
    /// From the healing until all members had the same revision.
    pub level_ns: u64,
}

impl Outcome {
    /// Why this is no good result, in one line: what went wrong, or a median ratio of p99 above `ratio_max`.
    #[must_use]
    pub fn failure(&self, ratio_max: Option<f64>) -> Option<String> {
        let errors: u64 = self.samples.iter().map(|sample| sample.errors).sum();
        let elections: u64 = self.samples.iter().map(|sample| sample.elections).sum();
        let mut reasons = Vec::new();
        if errors > 0 {
            reasons.push(format!("{errors} puts failed"));
        }
        if elections > 0 {
            reasons.push(format!("{elections} elections that nobody needed"));
        }
        for (phase, why) in &self.left_out {
            if self.required.contains(phase) {
                reasons.push(format!("{} was left out: {why}", phase.name()));
            }
        }
        for phase in self.phases() {
            let ratio = median(self.ratios(phase, |sample| sample.p99_ns));
            if let Some((ratio, max)) = ratio.zip(ratio_max).filter(|(ratio, max)| ratio > max) {
                let name = phase.name();
                reasons.push(format!("{name}: p99 {ratio:.2} of healthy, above {max:.2}"));
            }
        }
        failure(reasons, self.partial.as_ref())
    }

    /// The phases that were measured, each once: the healthy one first, whatever the order of the rounds.
    #[must_use]
    pub fn phases(&self) -> Vec<Phase> {
        let mut phases: Vec<Phase> = self.samples.iter().map(|sample| sample.phase).collect();
        phases.sort_unstable();
        phases.dedup();
        phases
    }

    /// The samples of a phase.
    pub fn of(&self, phase: Phase) -> impl Iterator<Item = &Sample> {
        self.samples
            .iter()
            .filter(move |sample| sample.phase == phase)
    }

    /// A figure of `phase` divided by that of the healthy phase of the same round, ascending.
    pub fn ratios(&self, phase: Phase, figure: fn(&Sample) -> u64) -> Vec<f64> {
        let healthy = |round| {
            self.of(Phase::Healthy)
                .find(|sample| sample.round == round)
                .map(figure)
        };
        let mut ratios: Vec<f64> = self
            .of(phase)
            .filter_map(|sample| Some(figure(sample) as f64 / healthy(sample.round)?.max(1) as f64))
            .collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }
}

/// The middle one of ascending values.
pub(crate) fn median<T: Copy>(sorted: Vec<T>) -> Option<T> {
    sorted.get(sorted.len() / 2).copied()
}

/// What was measured, what could not be, and why it ended early.
pub struct Measured {
    /// In order.
    pub samples: Vec<Sample>,
    /// Phases that this machine cannot have.
    pub left_out: Vec<(Phase, String)>,
    /// What a sync takes in the slow phase.
    pub sync_time: Option<Duration>,
    /// Why it ended early.
    pub error: Option<SlowError>,
}

/// Runs all rounds on one cluster.
pub fn slow_follower(spec: &Spec, stop: &Arc<AtomicBool>) -> Measured {
    let mut measured = Measured {
        samples: Vec::new(),
        left_out: Vec::new(),
        sync_time: None,
        error: None,
    };
    measured.error = run_rounds(spec, stop, &mut measured).err();
    measured
}

fn run_rounds(
    spec: &Spec,
    stop: &Arc<AtomicBool>,
    measured: &mut Measured,
) -> Result<(), SlowError> {
    if spec.cluster.members < 3 {
        let why = "without one of its members a cluster of fewer than 3 cannot serve";
        return Err(ClusterError::Settings(why.to_owned()).into());
    }
    let mut cluster = Cluster::start(&ClusterOptions {
        proxied: true,
        ..spec.cluster.clone()
    })?;
    let mut phases = vec![Phase::Healthy];
    phases.extend(spec.phases.iter().filter(|phase| **phase != Phase::Healthy));
    let brake = match phases.contains(&Phase::SlowSyncs) {
        true => Brake::new(&spec.cluster.data_dir, spec.sync_time).map(Some),
        false => Ok(None),
    };
    let brake = match brake {
        Ok(brake) => {
            measured.sync_time = brake.as_ref().map(Brake::sync_time);
            brake
        }
        Err(why) => {
            eprintln!("kontiki-load: without slow syncs: {why}");
            measured.left_out.push((Phase::SlowSyncs, why.to_string()));
            phases.retain(|phase| *phase != Phase::SlowSyncs);
            None
        }
    };
    for round in 1..=spec.rounds.min(ROUNDS_MAX) {
        for phase in order(&phases, round) {
            let sample = run_phase(spec, &mut cluster, brake.as_ref(), round, phase, stop)?;
            if stop.load(Ordering::Relaxed) {
                return Err(SlowError::Interrupted);
            }
            if spec.progress {
                eprintln!("{}", progress_line(spec, &sample));
            }
            measured.samples.push(sample);
        }
    }
    Ok(())
}

/// The phases in the order of a round, counted from one: each is the first one in its turn.
fn order(phases: &[Phase], round: u32) -> Vec<Phase> {
    let mut order = phases.to_vec();
    order.rotate_left((round as usize - 1) % phases.len());
    order
}

fn run_phase(
    spec: &Spec,
    cluster: &mut Cluster,
    brake: Option<&Brake>,
    round: u32,
    phase: Phase,
    stop: &Arc<AtomicBool>,
) -> Result<Sample, SlowError> {
    let before = cluster.wait_level(LEVEL_TIME_MAX)?;
    let leader = before.leader().expect("members that agree have a leader");
    // Another one in each round.
    let others = cluster.size() - 1;
    let follower = (leader + 1 + round as usize % others) % cluster.size();
    let leader_pid = cluster.pid(leader)?;
    let follower_pid = cluster.pid(follower)?;
    let mut held = None;
    match (phase, brake) {
        (Phase::SlowNetwork, _) => cluster.delay(follower, spec.network_delay)?,
        (Phase::SlowSyncs, Some(brake)) => held = Some(brake.hold(follower_pid)?),
        (Phase::Stopped, _) => drop(cluster.stop(follower)?),
        (Phase::Healthy | Phase::SlowSyncs, _) => {}
    }
    std::thread::sleep(SETTLE_TIME);
    let rss_before = rss_bytes(leader_pid);
    let result = run(&run_spec(spec, cluster, leader, leader_pid, round), stop);
    let rss_after = rss_bytes(leader_pid);
    let healing = Instant::now();
    if let Some(held) = held {
        held.release()?;
    }
    cluster.heal(follower)?;
    let after = match stop.load(Ordering::Relaxed) {
        true => cluster.wait_agreed(AGREE_TIME_MAX)?,
        false => cluster.wait_level(LEVEL_TIME_MAX)?,
    };
    let level_ns = u64::try_from(healing.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let result = result?;
    let latency = latency_of(&result);
    let all = result.workload.parameters.get(SUCCEEDED_ALL);
    Ok(Sample {
        round,
        phase,
        rate: result.count() as f64 / result.duration.as_secs_f64().max(1e-9),
        puts: result.count(),
        puts_all: all
            .and_then(|all| all.parse().ok())
            .unwrap_or(result.count()),
        p50_ns: latency.quantile_ns(0.5),
        p99_ns: latency.quantile_ns(0.99),
        max_ns: latency.max_ns(),
        errors: result.errors(),
        rss_before,
        rss_max: result.servers.first().map_or(0, |server| server.rss_bytes),
        rss_after,
        elections: after.term().saturating_sub(before.term()),
        level_ns,
    })
}

fn latency_of(result: &RunResult) -> Latency {
    let put = result.operations.first();
    put.map_or_else(Latency::new, |put| put.latency.clone())
}

fn run_spec(spec: &Spec, cluster: &Cluster, leader: usize, leader_pid: u32, round: u32) -> RunSpec {
    let address = cluster.addresses()[leader];
    let patience = Duration::from_secs(10);
    let (shape, connections) = match spec.load {
        Load::Rate(rate) => {
            let shape = Shape::Open {
                rate,
                poisson: false,
                in_flight_max: 10_000,
            };
            (shape, CONNECTIONS)
        }
        Load::InFlight(in_flight) => (Shape::Closed { in_flight }, CONNECTIONS.min(in_flight)),
    };
    let keys = KeySpec {
        count: KEYS,
        size_bytes: 24,
        prefix: "kontiki-load/slow/".to_owned(),
        order: KeyOrder::Uniform,
    };
    RunSpec {
        label: spec.cluster.program.kind.to_string(),
        command: Vec::new(),
        endpoints: vec![address.into()],
        tls: TlsOptions::default(),
        leader_only: false,
        workload: WorkloadSpec::new(
            vec![(Kind::Put, 1)],
            keys,
            ValueSpec::equal(spec.value_bytes),
            spec.seed.wrapping_add(u64::from(round)),
        ),
        shape,
        connections,
        threads: 1,
        warm_up: spec.warm_up,
        duration: spec.duration,
        operations_max: None,
        timeout: patience,
        send_timeout: false,
        connect_timeout: patience,
        patience,
        server_pids: vec![leader_pid],
        record: None,
        pulse: None,
        progress: false,
    }
}

fn progress_line(spec: &Spec, sample: &Sample) -> String {
    let ms = |ns: u64| ns as f64 / 1e6;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    format!(
        "round {} of {}, {}: {:.0} puts/s, p50 {:.2} ms, p99 {:.2} ms, max {:.1} ms, {} errors; leader {:.1} -> {:.1} MiB; \
         level after {:.0} ms",
        sample.round,
        spec.rounds,
        sample.phase.name(),
        sample.rate,
        ms(sample.p50_ns),
        ms(sample.p99_ns),
        ms(sample.max_ns),
        sample.errors,
        mib(sample.rss_before),
        mib(sample.rss_after),
        ms(sample.level_ns),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn sample(round: u32, phase: Phase, p99_ns: u64) -> Sample {
        Sample {
            round,
            phase,
            rate: 1_000.0,
            puts: 8_000,
            puts_all: 10_000,
            p50_ns: p99_ns / 2,
            p99_ns,
            max_ns: p99_ns * 2,
            errors: 0,
            rss_before: 1 << 20,
            rss_max: 3 << 20,
            rss_after: 2 << 20,
            elections: 0,
            level_ns: 5_000_000,
        }
    }

    pub(super) fn outcome(samples: Vec<Sample>) -> Outcome {
        Outcome {
            origin: Origin::default(),
            samples,
            left_out: Vec::new(),
            required: Vec::new(),
            partial: None,
        }
    }

    /// Goal: every phase is the first one, and each one is in every round.
    #[test]
    fn phases_take_turns() {
        use Phase::{Healthy, SlowSyncs, Stopped};
        let phases = [Healthy, SlowSyncs, Stopped];
        let check = |round: u32, expected: [Phase; 3]| assert_eq!(order(&phases, round), expected);
        check(1, phases);
        check(2, [SlowSyncs, Stopped, Healthy]);
        check(3, [Stopped, Healthy, SlowSyncs]);
        check(4, phases);
    }

    /// Goal: what was asked for by name and could not be measured is a failure; what is only usual may be left out.
    #[test]
    fn named_phases_are_required() {
        let mut found = outcome(vec![sample(1, Phase::Healthy, 100)]);
        let why = "no right to it".to_owned();
        found.left_out.push((Phase::SlowSyncs, why));
        assert_eq!(found.failure(Some(2.0)), None);
        found.required = vec![Phase::Stopped, Phase::SlowSyncs];
        let expected = "slow syncs was left out: no right to it";
        assert_eq!(found.failure(None).as_deref(), Some(expected));
    }

    /// Goal: a phase is compared with the healthy one of its own round, and fails by the median, by errors and by
    /// elections.
    #[test]
    fn ratios_within_a_round() {
        use Phase::{Healthy, SlowNetwork};
        let mut found = outcome(vec![
            sample(1, Healthy, 100),
            sample(1, SlowNetwork, 110),
            sample(2, Healthy, 1_000),
            sample(2, SlowNetwork, 900),
            sample(3, Healthy, 10),
            sample(3, SlowNetwork, 20),
        ]);
        let ratios = found.ratios(SlowNetwork, |sample| sample.p99_ns);
        assert_eq!(ratios, [0.9, 1.1, 2.0]);
        assert_eq!(found.failure(None), None);
        assert_eq!(found.failure(Some(1.2)), None);
        let above = found.failure(Some(1.05)).expect("1.1 is above");
        assert_eq!(above, "slow network: p99 1.10 of healthy, above 1.05");
        found.samples[1].elections = 1;
        found.samples[0].errors = 2;
        assert_eq!(
            found.failure(None).as_deref(),
            Some("2 puts failed; 1 elections that nobody needed")
        );
    }
}
