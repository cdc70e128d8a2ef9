//! Comparison, failover and sweep on a real etcd, small: that they measure what they say, and clean up.
//!
//! The binary is that of `ETCD_BIN`, or what `tools/fetch-etcd` has fetched. The data is below the build directory,
//! on a disk. One test at a time: what they measure is no place for the load of the others.

#![allow(
    clippy::disallowed_methods,
    reason = "a test of real processes reads real clocks"
)]

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kontiki_harness::server::etcd_program;
use kontiki_load::cluster::{
    AGREE_TIME_MAX, Cluster, ClusterOptions, Kind, Placement, Program, Settings,
};
use kontiki_load::compare::{self, Connections, Data, Measure, Operation, grid, measured};
use kontiki_load::failover::{self, Fault, HistorySpec, Phases, Victim};
use kontiki_load::report::pairs;
use kontiki_load::result::RunResult;
use kontiki_load::slow::{self, Phase};

static TURN: Mutex<()> = Mutex::new(());

/// Held by the test that runs.
fn turn() -> MutexGuard<'static, ()> {
    // A test that failed has ended its servers all the same.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn etcd() -> Program {
    Program::etcd(Some(&etcd_program())).expect("an etcd that runs")
}

fn data_dir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk of the build")
}

fn assert_empty(directory: &Path) {
    let left: Vec<PathBuf> = std::fs::read_dir(directory)
        .expect("it is there")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

/// Three members of etcd.
fn three(data_dir: &Path) -> ClusterOptions {
    ClusterOptions {
        program: etcd(),
        members: 3,
        data_dir: data_dir.to_owned(),
        placement: Placement::Spread,
        settings: Some(Settings {
            heartbeat_ms: 50,
            election_ms: 500,
        }),
        proxied: false,
        flags: Vec::new(),
    }
}

fn failover_spec(data_dir: &Path) -> failover::Spec {
    failover::Spec {
        cluster: three(data_dir),
        faults: vec![Fault::Kill],
        victim: Victim::Leader,
        history: None,
        trials: 1,
        interval: Duration::from_millis(10),
        patience: Duration::from_secs(2),
        in_flight: 4,
        value_bytes: 64,
        before: Duration::from_millis(300),
        after: Duration::from_millis(200),
        recovery_max: Duration::from_secs(30),
        seed: 1,
        progress: false,
    }
}

/// Three members of etcd beside themselves, one short pair.
fn null_spec(data_dir: &Path, points: Vec<compare::Point>) -> compare::Spec {
    compare::Spec {
        sides: [etcd(), etcd()],
        flags: [Vec::new(), Vec::new()],
        points,
        pairs: 1,
        members: 3,
        placement: Placement::Spread,
        data_dir: data_dir.to_owned(),
        data: Data {
            keys: 1_000,
            value_bytes: 256,
            range_keys: 10,
            watchers: 10,
            seed: 1,
        },
        duration: Duration::from_secs(1),
        warm_up: Duration::from_millis(300),
        idle_duration: Duration::from_secs(2),
        threads: 1,
        command: Vec::new(),
        progress: false,
    }
}

/// Goal: three members of etcd beside themselves: both sides are measured alike, over all three servers.
#[test]
fn null_comparison_of_three_members() {
    let _turn = turn();
    let data = data_dir();
    let points = grid(
        &[Operation::Put, Operation::Get],
        &[16],
        &[Connections::Shared(4)],
    );
    let spec = null_spec(data.path(), points);

    let outcome = compare::compare(&spec, &Arc::new(AtomicBool::new(false)));
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    assert_eq!(outcome.runs.len(), 4);
    for run in &outcome.runs {
        assert!(run.target.details["leader"].starts_with("member "));
        assert_eq!((run.servers.len(), run.target.members), (3, 3));
        assert!(
            run.servers.iter().all(|server| server.rss_bytes > 0),
            "{:?}",
            run.servers
        );
    }
    let comparisons = pairs::compare(&outcome.runs);
    assert_eq!(comparisons.len(), 2);
    for comparison in comparisons {
        assert_eq!(
            (comparison.ours.as_str(), comparison.theirs.as_str()),
            ("etcd", "etcd again")
        );
        let cost = &comparison.rows[0];
        assert_eq!(cost.name, "server CPU per operation");
        // A machine with other work is allowed much; a server that is not counted would be out of it.
        assert!((0.4..2.5).contains(&cost.ratio()), "{comparison:?}");
    }
    assert_empty(data.path());
}

/// Goal: members of which nothing is asked use CPU, with and without connected clients, and no operation is counted.
#[test]
fn idle_members() {
    let _turn = turn();
    let data = data_dir();
    let spec = null_spec(
        data.path(),
        measured(&[Measure::Idle], Connections::Shared(4), 5),
    );
    let outcome = compare::compare(&spec, &Arc::new(AtomicBool::new(false)));
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    assert_eq!(outcome.runs.len(), 4);
    for run in &outcome.runs {
        let share = run.idle_cpu_share().expect("nothing was asked");
        assert!(share > 0.0 && share < 3.0, "{share}");
        assert!(run.duration >= spec.idle_duration, "{:?}", run.duration);
    }
    let comparisons = pairs::compare(&outcome.runs);
    let names = comparisons
        .iter()
        .map(|comparison| &comparison.rows[0].name);
    assert!(
        names.eq([&"server CPU while idle, of one CPU"; 2]),
        "{comparisons:?}"
    );
    assert_empty(data.path());
}

/// Goal: open loops run at rates found just before: both sides of a pair at one rate, or each at half of its own.
#[test]
fn open_loops_at_found_rates() {
    let _turn = turn();
    let data = data_dir();
    let measures = [Measure::HighestRate, Measure::HalfRate];
    let points = measured(&measures, Connections::Shared(4), 1);
    let spec = null_spec(data.path(), points);
    let outcome = compare::compare(&spec, &Arc::new(AtomicBool::new(false)));
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    // At its highest rate etcd refuses some or lets them time out, and so it does below that where the machine slows down.
    let overloaded = |why: &compare::CompareError| why.to_string().contains(" operations failed");
    assert!(
        outcome.failed.iter().all(overloaded),
        "{:?}",
        outcome.failed
    );
    let [ours, theirs, half, other_half] = &outcome.runs[..] else {
        panic!("one pair at each point: {:?}", outcome.runs.len());
    };
    let detail = |run: &RunResult, name: &str| {
        let value = run.target.details.get(name).expect("said beside the run");
        value.parse::<f64>().expect("a number")
    };
    let rate = |run| detail(run, "rate of the open loop, /s");
    let highest = |run| detail(run, "highest rate found by a closed loop, /s");
    assert!(rate(ours) > 100.0 && rate(ours) == rate(theirs));
    assert_eq!(rate(ours), highest(theirs));
    assert!(
        outcome.runs.iter().all(|run| run.partial.is_none()),
        "ended early"
    );
    assert!([ours, theirs].iter().all(|run| run.count() > 0));
    for run in [half, other_half] {
        assert!((rate(run) - highest(run) / 2.0).abs() <= 1.0);
        // Nothing but what was intended was done.
        let done = run.rate_per_second();
        assert!(done > 0.0 && done / rate(run) < 1.2, "{done}");
    }
    assert_empty(data.path());
}

/// Goal: one client's puts go to the leader, and what disk and network alone take is measured beside.
#[test]
fn one_client_beside_the_optimum() {
    let _turn = turn();
    let data = data_dir();
    let points = measured(&[Measure::OneClient], Connections::Shared(4), 1);
    let spec = null_spec(data.path(), points);
    let outcome = compare::compare(&spec, &Arc::new(AtomicBool::new(false)));
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    assert_eq!(outcome.runs.len(), 2);
    for run in &outcome.runs {
        assert_eq!(run.workload.parameters["load goes to"], "the leader");
        let optimum = run.optimum.as_ref().expect("measured beside");
        let share = run.share_of_optimum().expect("puts were answered");
        assert!(optimum.sync.summary().count > 10, "{optimum:?}");
        // No upper bound: others may use the disk before and after, and not in between.
        assert!(share > 0.0 && share.is_finite(), "{share}: {optimum:?}");
    }
    assert_empty(data.path());
}

/// Goal: after every kind of fault another member leads, nothing is lost or stale, and the cluster is whole again.
#[test]
fn every_fault_once() {
    let _turn = turn();
    let data = data_dir();
    let spec = failover::Spec {
        faults: vec![Fault::Kill, Fault::Stop, Fault::Isolate, Fault::Terminate],
        trials: 4,
        ..failover_spec(data.path())
    };
    let (cell, error) = failover::failover(&spec, &AtomicBool::new(false));
    assert!(error.is_none(), "{error:?}");
    assert_eq!(cell.trials.len(), 4);
    for trial in &cell.trials {
        assert_eq!((trial.lost, trial.stale), (0, 0), "{trial:?}");
        assert!(trial.term_after > trial.term_before, "{trial:?}");
        assert!(trial.acknowledged > 20 && trial.reads > 20, "{trial:?}");
        let first_ms = trial.first_put_ns.expect("a put is acknowledged") / 1_000_000;
        if matches!(trial.fault, Fault::Stop | Fault::Isolate) {
            // Nobody can know before an election timeout, less a heartbeat, has passed.
            assert!(first_ms >= 400, "{trial:?}");
        }
    }
    assert_empty(data.path());
}

/// Goal: whichever member is hurt and how, the history of all clients stays linearizable; the records hold every write
/// of the store, so that nothing of it is left to be excused.
#[test]
fn history_over_faults() {
    let _turn = turn();
    let data = data_dir();
    let history = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let spec = failover::Spec {
        faults: vec![Fault::Kill, Fault::Stop, Fault::Isolate, Fault::Terminate],
        victim: Victim::Any,
        history: Some(HistorySpec {
            directory: history.path().to_owned(),
            in_flight: 6,
            keys: 100,
        }),
        in_flight: 0,
        trials: 4,
        ..failover_spec(data.path())
    };
    let (cell, error) = failover::failover(&spec, &AtomicBool::new(false));
    assert!(error.is_none(), "{error:?}");
    assert_eq!((cell.trials.len(), cell.violations()), (4, 0), "{cell:?}");
    let puts: u64 = cell.trials.iter().map(|trial| trial.acknowledged).sum();
    let found = cell.history.expect("it was asked for");
    assert!(found.writes > puts + 100, "{found:?}");
    assert!(
        found.operations > found.writes + found.unanswered + 100,
        "{found:?}"
    );
    assert_empty(data.path());
}

/// Goal: a leader that is cut off hears nothing of the others: its term stays while they go on in the next one, and
/// follows when it is back.
#[test]
fn isolation_has_two_sides() {
    let _turn = turn();
    let data = data_dir();
    let mut cluster = Cluster::start(&ClusterOptions {
        proxied: true,
        ..three(data.path())
    })
    .expect("a cluster");
    let before = cluster.wait_agreed(AGREE_TIME_MAX).expect("a leader");
    let leader = before.leader().expect("they agree");
    cluster.isolate(leader).expect("it runs");
    let started = Instant::now();
    while cluster.status().term() == before.term() {
        assert!(started.elapsed() < AGREE_TIME_MAX, "nobody else leads");
    }
    // Twenty heartbeats of the new leader.
    let elected = Instant::now();
    while elected.elapsed() < Duration::from_secs(1) {
        let status = cluster.status();
        let isolated = status.0[leader].as_ref().expect("clients reach it");
        assert_eq!(isolated.term, before.term(), "{status:?}");
    }
    cluster.heal(leader).expect("it runs");
    let after = cluster.wait_agreed(AGREE_TIME_MAX).expect("whole again");
    assert!(after.term() > before.term(), "{after:?}");
}

/// Goal: a follower behind a slow network, one with slow syncs where this machine can have them, and a stopped one are
/// measured beside healthy members, and have everything afterwards.
#[test]
fn follower_that_is_slow() {
    let _turn = turn();
    let data = data_dir();
    let spec = slow::Spec {
        cluster: ClusterOptions {
            settings: None,
            ..three(data.path())
        },
        phases: vec![Phase::SlowNetwork, Phase::SlowSyncs, Phase::Stopped],
        rounds: 1,
        duration: Duration::from_secs(1),
        warm_up: Duration::from_millis(300),
        load: slow::Load::Rate(200.0),
        value_bytes: 64,
        network_delay: Duration::from_millis(100),
        sync_time: Duration::from_millis(100),
        seed: 1,
        progress: false,
    };
    let measured = slow::slow_follower(&spec, &Arc::new(AtomicBool::new(false)));
    assert!(measured.error.is_none(), "{:?}", measured.error);
    assert_eq!(measured.samples.len() + measured.left_out.len(), 4);
    for sample in &measured.samples {
        assert!(sample.puts > 100 && sample.rss_max > 0, "{sample:?}");
        // The others are a majority: none of their puts waits for the slow one.
        let p50 = Duration::from_nanos(sample.p50_ns);
        assert!(p50 < spec.network_delay, "{sample:?}");
    }
    if let Some(took) = measured.sync_time {
        assert!(took >= spec.sync_time / 2, "{took:?}");
    }
    assert_empty(data.path());
}

/// Goal: a sweep says which settings are refused, and measures the others.
#[test]
fn sweep_of_two_cells() {
    let _turn = turn();
    let data = data_dir();
    let phases = Phases {
        quiet: Duration::from_millis(500),
        loaded: Duration::from_millis(500),
    };
    let (cells, error) = failover::sweep(
        &failover_spec(data.path()),
        &[50, 200],
        &[500],
        phases,
        &AtomicBool::new(false),
    );
    assert!(error.is_none(), "{error:?}");
    let [measured, refused] = &cells[..] else {
        panic!("two cells: {cells:?}");
    };
    assert_eq!(measured.failed, None);
    assert_eq!(measured.trials.len(), 1);
    assert!(measured.elections_quiet.is_some() && measured.elections_loaded.is_some());
    assert!(
        refused
            .refused
            .as_ref()
            .is_some_and(|why| why.contains("5 heartbeats")),
        "{refused:?}"
    );
    assert_empty(data.path());
}

/// Goal: the death of this program's children is never taken for a success: a cluster whose flags are wrong says so.
#[test]
fn wrong_flags_are_told() {
    let _turn = turn();
    let data = data_dir();
    let mut spec = failover_spec(data.path());
    spec.cluster.flags = vec!["--no-such-flag".to_owned()];
    let (cell, error) = failover::failover(&spec, &AtomicBool::new(false));
    let said = error.expect("refused").to_string();
    assert!(
        said.contains("does not start as one of 3 members"),
        "{said}"
    );
    assert!(cell.trials.is_empty());
    assert_eq!(spec.cluster.program.kind, Kind::Etcd);
    assert_empty(data.path());
}
