//! Two servers side by side: runs in turn (A B A B ...), each on fresh members and a fresh directory.
//!
//! Owns the order of runs and what is the same for both sides; the ratios are made by `report::pairs`. Must
//! never let a side keep anything from its last run, and never give one side a setting that the other could
//! use as well. Runs on the calling thread; the load has threads of its own.

mod idle;
mod judge;
mod optimum;
mod point;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kontiki_harness::cpu::{self, CpuTime};
use thiserror::Error;

use crate::cluster::{
    AGREE_TIME_MAX, Cluster, ClusterError, ClusterOptions, Kind, Placement, Program,
};
use crate::result::{Pairing, RunResult};
use crate::run::{self, RunError, RunSpec};
use crate::wire::{Endpoint, TlsOptions};

use idle::IdleSpec;
use optimum::Samples;
use point::{KEY_BYTES, Load};

pub use point::{
    ClosedLoop, Connections, Data, IDLE_CLIENTS_MAX, IN_FLIGHT_MAX, Measure, OpenLoop, Operation,
    Point, Rate, grid, measured,
};

/// Pairs at one point.
pub const PAIRS_MAX: u32 = 1_000;
/// Runs in which others use more than this part of all CPUs, in percent, are counted as disturbed.
pub const OTHERS_PERCENT_MAX: f64 = 10.0;
/// The side that is divided by.
const THEIRS: usize = 1;
/// Under which name a run of an open loop keeps the highest rate that a closed loop has found.
const HIGHEST_DETAIL: &str = "highest rate found by a closed loop, /s";
/// Under which name it keeps its own rate.
const RATE_DETAIL: &str = "rate of the open loop, /s";
/// Under which name each run keeps what others used.
const OTHERS_DETAIL: &str = "CPU of others, % of all CPUs";

/// What to compare.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The side that is divided, and the one it is divided by. The same program twice is a null test.
    pub sides: [Program; 2],
    /// Further flags of each side.
    pub flags: [Vec<String>; 2],
    /// Where.
    pub points: Vec<Point>,
    /// Pairs of runs at each point, at most [`PAIRS_MAX`].
    pub pairs: u32,
    /// Members of each cluster.
    pub members: usize,
    /// Who runs where.
    pub placement: Placement,
    /// Below which servers keep their data.
    pub data_dir: PathBuf,
    /// Keys and values.
    pub data: Data,
    /// The measured part of a run.
    pub duration: Duration,
    /// Load before it.
    pub warm_up: Duration,
    /// The measured part of a run in which nothing is asked.
    pub idle_duration: Duration,
    /// Threads of the generator.
    pub threads: usize,
    /// The command line, for the results.
    pub command: Vec<String>,
    /// A line for each run on stderr.
    pub progress: bool,
}

/// Why a run is no good one, or why a comparison ended early.
#[derive(Debug, Error)]
pub enum CompareError {
    /// A cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The load could not begin.
    #[error("{side}: {error}")]
    Run {
        /// On which side.
        side: String,
        /// Why.
        error: RunError,
    },
    /// The server does not have the operation. There is no run of it, and no further one is tried.
    #[error("{side} does not serve {operation}: {why}")]
    Unserved {
        /// Which side.
        side: String,
        /// What.
        operation: String,
        /// What it answers.
        why: String,
    },
    /// A run ended early, or answers were wrong or missing.
    #[error("{side}, {point}: {why}")]
    Marred {
        /// On which side.
        side: String,
        /// At which point.
        point: String,
        /// What happened.
        why: String,
    },
    /// The kernel did not say what CPUs did.
    #[error("CPU time: {0}")]
    Cpu(#[from] std::io::Error),
    /// The user ended it.
    #[error("interrupted")]
    Interrupted,
}

/// All runs until the end, and why that was not the end of the plan, if so.
#[derive(Debug, Default)]
pub struct Outcome {
    /// In the order in which they ran.
    pub runs: Vec<RunResult>,
    /// Runs that were no good ones; the plan went on after them.
    pub failed: Vec<CompareError>,
    /// Why it ended early.
    pub error: Option<CompareError>,
}

impl Outcome {
    /// Why this is no whole and clean comparison, in one line.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let runs = self.runs.len();
        let early = self.error.as_ref().map(|error| {
            let why = explain(error).map_or_else(String::new, |why| format!(" ({why})"));
            match runs {
                0 => format!("{error}{why}"),
                _ => format!("partial result, {runs} runs: {error}{why}"),
            }
        });
        let failed = self.failed.first().map(|first| match self.failed.len() {
            1 => first.to_string(),
            count => format!("{count} runs failed, the first one: {first}"),
        });
        let reasons: Vec<String> = early.into_iter().chain(failed).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }
}

/// Runs all pairs of all points.
pub fn compare(spec: &Spec, stop: &Arc<AtomicBool>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut found = None;
    let run = |side, point: &Point, pairing| run_one(spec, side, point, pairing, &mut found, stop);
    outcome.error = run_all(spec, stop, run, &mut outcome).err();
    note_others(&mut outcome.runs);
    outcome
}

/// Says once in how many runs the machine did other things beside.
fn note_others(runs: &mut [RunResult]) {
    let share = |run: &RunResult| run.target.details.get(OTHERS_DETAIL)?.parse::<f64>().ok();
    let shares: Vec<f64> = runs.iter().filter_map(share).collect();
    let disturbed = shares
        .iter()
        .filter(|share| **share > OTHERS_PERCENT_MAX)
        .count();
    let highest = shares.iter().copied().fold(0.0, f64::max);
    let all = runs.len();
    if let Some(first) = runs.first_mut().filter(|_| disturbed > 0) {
        first.notes.push(format!(
            "in {disturbed} of {all} runs others used more than {OTHERS_PERCENT_MAX} % of the CPUs, up to {highest:.0} %: \
             figures with such runs are worth little",
        ));
    }
}

/// The names of the sides in tables; different also for the same program twice.
#[must_use]
pub fn side_names(sides: &[Program; 2]) -> [String; 2] {
    let [ours, theirs] = sides;
    let first = ours.kind.to_string();
    let second = match (ours.kind == theirs.kind, ours.path == theirs.path) {
        (false, _) => theirs.kind.to_string(),
        (true, true) => format!("{} again", theirs.kind),
        (true, false) => format!("{} (other binary)", theirs.kind),
    };
    [first, second]
}

/// Runs everything in turn by `run`. A run in which something failed is kept, and told in `outcome`; it ends
/// nothing, as the others are worth as much as before.
fn run_all(
    spec: &Spec,
    stop: &AtomicBool,
    mut run: impl FnMut(usize, &Point, Pairing) -> Result<RunResult, CompareError>,
    outcome: &mut Outcome,
) -> Result<(), CompareError> {
    let names = side_names(&spec.sides);
    let mut unserved: Vec<Operation> = Vec::new();
    for point in &spec.points {
        for pair in 0..spec.pairs.min(PAIRS_MAX) {
            for (side, name) in names.iter().enumerate() {
                if stop.load(Ordering::Relaxed) {
                    return Err(CompareError::Interrupted);
                }
                if point
                    .operation()
                    .is_some_and(|asked| unserved.contains(&asked))
                {
                    continue;
                }
                let pairing = Pairing {
                    point: point.to_string(),
                    side: name.clone(),
                    pair,
                };
                let result = match run(side, point, pairing) {
                    Err(marred @ CompareError::Marred { .. }) => {
                        outcome.failed.push(marred);
                        continue;
                    }
                    result => result?,
                };
                let refused = point.operation().and_then(|operation| {
                    let why = judge::refusal(operation, &result)?;
                    Some((operation, why))
                });
                if let Some((operation, why)) = refused {
                    unserved.push(operation);
                    outcome.failed.push(CompareError::Unserved {
                        side: name.clone(),
                        operation: operation.name().to_owned(),
                        why,
                    });
                    continue;
                }
                if spec.progress {
                    eprintln!("{}", progress_line(&result));
                }
                if run::verdict(&result) != run::Verdict::Clean {
                    outcome.failed.push(CompareError::Marred {
                        side: name.clone(),
                        point: point.to_string(),
                        why: judge::failures(&result),
                    });
                }
                outcome.runs.push(result);
            }
        }
    }
    Ok(())
}

/// A highest rate that both sides of a pair use.
struct Found {
    point: String,
    pair: u32,
    rate: f64,
}

/// A run of `side` at `point`, after a closed loop that finds its rate if it is an open loop that needs one.
fn run_one(
    spec: &Spec,
    side: usize,
    point: &Point,
    pairing: Pairing,
    found: &mut Option<Found>,
    stop: &Arc<AtomicBool>,
) -> Result<RunResult, CompareError> {
    let open = match point {
        Point::Closed(closed) => return run_load(spec, side, &closed.load(), pairing, stop),
        Point::OneClient => return run_one_client(spec, side, pairing, stop),
        Point::Idle { clients } => return run_idle(spec, side, *clients, pairing, stop),
        Point::Open(open) => open,
    };
    let highest = match (open.rate, &*found) {
        (Rate::HighestOfTheirs, Some(found))
            if found.point == pairing.point && found.pair == pairing.pair =>
        {
            found.rate
        }
        (Rate::HighestOfTheirs, _) => find_highest(spec, THEIRS, open, pairing.pair, stop)?,
        (Rate::HalfOfOwn, _) => find_highest(spec, side, open, pairing.pair, stop)?,
    };
    let rate = match open.rate {
        Rate::HighestOfTheirs => highest,
        Rate::HalfOfOwn => highest / 2.0,
    };
    *found = Some(Found {
        point: pairing.point.clone(),
        pair: pairing.pair,
        rate: highest,
    });
    let mut result = run_load(spec, side, &open.load(rate), pairing, stop)?;
    // Every pair has a rate of its own: in the summary it would make a row of each.
    result.workload.summary = format!("{point}, {} B values", spec.data.value_bytes);
    let details = &mut result.target.details;
    details.insert(HIGHEST_DETAIL.to_owned(), format!("{highest:.0}"));
    details.insert(RATE_DETAIL.to_owned(), format!("{rate:.0}"));
    Ok(result)
}

/// What a side does at most, by a closed loop on fresh members.
fn find_highest(
    spec: &Spec,
    side: usize,
    open: &OpenLoop,
    pair: u32,
    stop: &Arc<AtomicBool>,
) -> Result<f64, CompareError> {
    let closed = open.highest();
    let pairing = Pairing {
        point: format!("to find the highest rate: {}", Point::Closed(closed)),
        side: side_names(&spec.sides)[side].clone(),
        pair,
    };
    let found = run_load(spec, side, &closed.load(), pairing, stop)?;
    if spec.progress {
        eprintln!("{}", progress_line(&found));
    }
    // A rate is found also where some operations failed, but not by a run that ended early.
    if found.partial.is_some() || found.count() == 0 {
        let pairing = found.pairing.as_ref().expect("it was given one");
        return Err(CompareError::Marred {
            side: pairing.side.clone(),
            point: pairing.point.clone(),
            why: judge::failures(&found),
        });
    }
    Ok(found.rate_per_second())
}

fn run_load(
    spec: &Spec,
    side: usize,
    load: &Load,
    pairing: Pairing,
    stop: &Arc<AtomicBool>,
) -> Result<RunResult, CompareError> {
    run_on_fresh_members(spec, side, pairing, stop, |cluster, pairing| {
        let asked = run_spec(spec, load, pairing, cluster);
        run::run(&asked, stop).map_err(|error| CompareError::Run {
            side: pairing.side.clone(),
            error,
        })
    })
}

/// One client at the leader, with what disk and network take alone before it and after it.
fn run_one_client(
    spec: &Spec,
    side: usize,
    pairing: Pairing,
    stop: &Arc<AtomicBool>,
) -> Result<RunResult, CompareError> {
    run_on_fresh_members(spec, side, pairing, stop, |cluster, pairing| {
        let marred = |why: String| CompareError::Marred {
            side: pairing.side.clone(),
            point: pairing.point.clone(),
            why,
        };
        let status = cluster.status();
        let leader = status
            .leader()
            .ok_or_else(|| marred("nobody leads".to_owned()))?;
        let bytes = KEY_BYTES + spec.data.value_bytes;
        let mut samples = Samples::default();
        let take = |samples: &mut Samples| {
            let taken = samples.take(&cluster.home(), bytes, cluster.cpus()[leader]);
            taken.map_err(|error| marred(format!("measuring disk and network: {error}")))
        };
        take(&mut samples)?;
        let asked = run_spec(spec, &Load::of_one_client(), pairing, cluster);
        let ran = run::run(&asked, stop);
        let mut result = ran.map_err(|error| CompareError::Run {
            side: pairing.side.clone(),
            error,
        })?;
        take(&mut samples)?;
        let optimum = samples.optimum(spec.members);
        let optimum = optimum.ok_or_else(|| marred("nothing was measured beside".to_owned()))?;
        let us = |ns: u64| format!("{:.1}", ns as f64 / 1e3);
        let details = [
            ("round trip alone, us", optimum.round_trip.summary().p50_ns),
            ("sync alone, us", optimum.sync.summary().p50_ns),
            ("shortest possible commit, us", optimum.commit_ns()),
        ];
        for (name, ns) in details {
            result.target.details.insert(name.to_owned(), us(ns));
        }
        result.optimum = Some(optimum);
        Ok(result)
    })
}

fn run_idle(
    spec: &Spec,
    side: usize,
    clients: usize,
    pairing: Pairing,
    stop: &Arc<AtomicBool>,
) -> Result<RunResult, CompareError> {
    run_on_fresh_members(spec, side, pairing, stop, |cluster, pairing| {
        let asked = idle_spec(spec, clients, pairing, cluster);
        idle::run(&asked, stop).map_err(|why| CompareError::Marred {
            side: pairing.side.clone(),
            point: pairing.point.clone(),
            why,
        })
    })
}

/// Starts members, measures them by `run`, and says beside its result what a reader of the figures must know.
fn run_on_fresh_members(
    spec: &Spec,
    side: usize,
    pairing: Pairing,
    stop: &AtomicBool,
    run: impl FnOnce(&Cluster, &Pairing) -> Result<RunResult, CompareError>,
) -> Result<RunResult, CompareError> {
    let cluster = Cluster::start(&ClusterOptions {
        program: spec.sides[side].clone(),
        members: spec.members,
        data_dir: spec.data_dir.clone(),
        placement: spec.placement,
        settings: None,
        proxied: false,
        flags: spec.flags[side].clone(),
    })?;
    if spec.placement == Placement::Spread {
        cluster.seat_leader(AGREE_TIME_MAX, stop)?;
    }
    let led_before = cluster.status().leader();
    let before = Shares::read(&cluster)?;
    let mut result = run(&cluster, &pairing)?;
    let others = before.others(&Shares::read(&cluster)?);
    if run::verdict(&result) == run::Verdict::Clean {
        // What a clean run notes is for its own report; here it would stand there for every run.
        result.notes.clear();
    }
    describe(&mut result, spec, side, &cluster, others)?;
    let leader = judge::leader(led_before, cluster.status().leader(), &cluster.cpus());
    result.target.details.insert("leader".to_owned(), leader);
    result.pairing = Some(pairing);
    Ok(result)
}

fn idle_spec(spec: &Spec, clients: usize, pairing: &Pairing, cluster: &Cluster) -> IdleSpec {
    IdleSpec {
        label: pairing.side.clone(),
        command: spec.command.clone(),
        addresses: cluster.addresses(),
        pids: cluster.pids(),
        clients,
        warm_up: spec.warm_up,
        duration: spec.idle_duration,
    }
}

fn run_spec(spec: &Spec, load: &Load, pairing: &Pairing, cluster: &Cluster) -> RunSpec {
    RunSpec {
        label: pairing.side.clone(),
        command: spec.command.clone(),
        endpoints: cluster
            .addresses()
            .into_iter()
            .map(Endpoint::from)
            .collect(),
        tls: TlsOptions::default(),
        leader_only: load.leader_only,
        workload: load.operation.workload(&spec.data),
        shape: load.shape,
        connections: load.connections,
        threads: spec.threads,
        warm_up: spec.warm_up,
        duration: spec.duration,
        operations_max: None,
        timeout: Duration::from_secs(30),
        send_timeout: false,
        connect_timeout: Duration::from_secs(5),
        patience: Duration::from_secs(10),
        server_pids: cluster.pids(),
        record: None,
        pulse: None,
        progress: false,
    }
}

/// What a reader of the figures must know about this side.
fn describe(
    result: &mut RunResult,
    spec: &Spec,
    side: usize,
    cluster: &Cluster,
    others: f64,
) -> Result<(), CompareError> {
    let program = cluster.program();
    result.target.program = program.kind.to_string();
    result.target.version.clone_from(&program.version);
    result.target.members = u32::try_from(spec.members).unwrap_or(u32::MAX);
    for (index, server) in result.servers.iter_mut().enumerate() {
        server.name = format!("{} {}", program.kind, index + 1);
    }
    let cpus: Vec<String> = cluster
        .cpus()
        .iter()
        .map(|cpu| cpu.map_or_else(|| "any".to_owned(), |cpu| cpu.to_string()))
        .collect();
    let mut workers = Duration::ZERO;
    for pid in cluster.pids() {
        workers += CpuTime::of_io_workers(pid)?.total();
    }
    let mut detail =
        |name: &str, value: String| result.target.details.insert(name.to_owned(), value);
    detail("members on CPUs", cpus.join(", "));
    detail("flags", spec.flags[side].join(" "));
    detail(OTHERS_DETAIL, format!("{:.1}", others * 100.0));
    detail(
        "CPU of living io_uring workers since the start, s",
        format!("{:.2}", workers.as_secs_f64()),
    );
    Ok(())
}

fn progress_line(result: &RunResult) -> String {
    let pairing = result.pairing.as_ref().expect("compared runs are paired");
    let whose = format!(
        "{}, pair {}, {}",
        pairing.point,
        pairing.pair + 1,
        pairing.side
    );
    if let Some(share) = result.idle_cpu_share() {
        return format!("{whose}: {:.2} % of a CPU, all servers", share * 100.0);
    }
    let latency = result.latency();
    let ms = |quantile| latency.quantile_ns(quantile) as f64 / 1e6;
    format!(
        "{whose}: {:.0}/s, {:.1} us of server CPU each, p50 {:.2} ms, p99 {:.2} ms, generator {:.1} us",
        result.rate_per_second(),
        result.server_us_per_operation().unwrap_or(f64::NAN),
        ms(0.5),
        ms(0.99),
        result.generator_us_per_operation().unwrap_or(f64::NAN),
    )
}

/// CPU time of everybody, at one moment.
struct Shares {
    at: Instant,
    machine: Duration,
    known: Duration,
}

impl Shares {
    fn read(cluster: &Cluster) -> Result<Shares, CompareError> {
        let mut known = CpuTime::of_process(std::process::id())?.total();
        for pid in cluster.pids() {
            known += CpuTime::of_process(pid)?.total();
        }
        Ok(Shares {
            at: Instant::now(),
            machine: cpu::machine_busy()?,
            known,
        })
    }

    /// The share of all CPUs that neither servers nor generator used until `later`.
    fn others(&self, later: &Shares) -> f64 {
        let machine = later.machine.saturating_sub(self.machine);
        let known = later.known.saturating_sub(self.known);
        let cpus = std::fs::read_to_string("/proc/stat").map_or(1, |stat| count_cpus(&stat));
        let whole = later.at.saturating_duration_since(self.at).as_secs_f64() * cpus as f64;
        if whole > 0.0 {
            machine.saturating_sub(known).as_secs_f64() / whole
        } else {
            0.0
        }
    }
}

/// CPUs of the machine, usable by this process or not: the busy time is that of all.
fn count_cpus(stat: &str) -> usize {
    let single = |line: &&str| {
        let digits = line
            .strip_prefix("cpu")
            .and_then(|rest| rest.split_whitespace().next());
        digits.is_some_and(|digits| line.starts_with(&format!("cpu{digits}")))
    };
    stat.lines().filter(single).count().max(1)
}

/// What a comparison with this program on one of its sides cannot show yet; none if nothing is known.
#[must_use]
pub fn explain(error: &CompareError) -> Option<&'static str> {
    match error {
        CompareError::Cluster(ClusterError::Start {
            kind: Kind::Kontiki,
            members,
            ..
        }) if *members > 1 => Some(
            "this build of kontiki does not form clusters: compare it with --members 1, or take --null etcd for a null test",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(kind: Kind, path: &str) -> Program {
        Program {
            kind,
            path: path.into(),
            version: "1".to_owned(),
        }
    }

    /// Goal: two sides never have one name, or their runs would be taken for one side's.
    #[test]
    fn sides_differ() {
        let check = |ours: (Kind, &str), theirs: (Kind, &str), expected: [&str; 2]| {
            assert_eq!(
                side_names(&[program(ours.0, ours.1), program(theirs.0, theirs.1)]),
                expected
            );
        };
        check((Kind::Kontiki, "a"), (Kind::Etcd, "b"), ["kontiki", "etcd"]);
        check((Kind::Etcd, "b"), (Kind::Etcd, "b"), ["etcd", "etcd again"]);
        check(
            (Kind::Kontiki, "a"),
            (Kind::Kontiki, "b"),
            ["kontiki", "kontiki (other binary)"],
        );
    }

    fn spec(points: Vec<Point>, pairs: u32) -> Spec {
        Spec {
            sides: [program(Kind::Kontiki, "a"), program(Kind::Etcd, "b")],
            flags: [Vec::new(), Vec::new()],
            points,
            pairs,
            members: 1,
            placement: Placement::Free,
            data_dir: PathBuf::new(),
            data: Data {
                keys: 1,
                value_bytes: 1,
                range_keys: 1,
                watchers: 1,
                seed: 1,
            },
            duration: Duration::from_secs(1),
            warm_up: Duration::ZERO,
            idle_duration: Duration::ZERO,
            threads: 1,
            command: Vec::new(),
            progress: false,
        }
    }

    /// Goal: a failed operation ends nothing and is told; an operation that a side does not have gives no figure, and
    /// is not tried again; the user's end is an end.
    #[test]
    fn plan_goes_on() {
        let points = grid(
            &[Operation::Watch, Operation::Put],
            &[1, 2],
            &[Connections::Each],
        );
        let spec = spec(points, 2);
        let stop = AtomicBool::new(false);
        let mut asked = Vec::new();
        let run = |side: usize, point: &Point, pairing: Pairing| {
            let operation = point.operation().expect("no idle point is asked for");
            asked.push(format!("{} {}", pairing.side, operation.name()));
            let watches = operation == Operation::Watch;
            let mut result = judge::tests::result(&[("put", 10)]);
            match (watches, side) {
                (true, _) => result.operations[0].add_error("Unimplemented", "no watch"),
                (false, 0) => result.operations[0].add_error("Unavailable", "gone"),
                (false, _) => {}
            }
            result.pairing = Some(pairing);
            Ok(result)
        };
        let mut outcome = Outcome::default();
        run_all(&spec, &stop, run, &mut outcome).expect("to the end");
        assert_eq!(asked.len(), 1 + 8, "{asked:?}");
        assert_eq!((outcome.runs.len(), outcome.failed.len()), (8, 1 + 4));
        assert_eq!(
            outcome.failure().as_deref(),
            Some(
                "5 runs failed, the first one: kontiki does not serve watch: put: Unimplemented: no watch"
            )
        );
        stop.store(true, Ordering::Relaxed);
        let mut outcome = Outcome::default();
        let never = |_, _: &Point, _| unreachable!("it is over");
        outcome.error = run_all(&spec, &stop, never, &mut outcome).err();
        assert_eq!(outcome.failure().as_deref(), Some("interrupted"));
    }

    /// Goal: the share of others is what the machine did beside those known, over all CPUs.
    #[test]
    fn share_of_others() {
        assert_eq!(
            count_cpus("cpu  1 2 3\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\n"),
            2
        );
        assert_eq!(count_cpus(""), 1);
        let start = Instant::now();
        let before = Shares {
            at: start,
            machine: Duration::from_secs(5),
            known: Duration::from_secs(1),
        };
        let later = Shares {
            at: start + Duration::from_secs(10),
            machine: Duration::from_secs(9),
            known: Duration::from_secs(4),
        };
        let cpus = count_cpus(&std::fs::read_to_string("/proc/stat").expect("Linux"));
        assert!((before.others(&later) - 0.1 / cpus as f64).abs() < 1e-9);
    }
}
