//! Seeds that must pass, and what makes a seed worth anything.

use std::time::Duration;

use kontiki::sim::report::{Report, Statistics};
use kontiki::sim::trace::Keep;
use kontiki::sim::{Options, run};

/// Seeds of every run of the tests; many more run by `simrun`.
const SEEDS: u64 = 12;
/// Seeds that failed once. None may fail again.
const KEPT: &[u64] = &[];

fn passes(report: &Report) {
    if let Some(violation) = &report.violation {
        panic!(
            "seed {}: {violation}\n{}",
            report.seed,
            report.trace.join("\n")
        );
    }
}

/// Goal: no seed breaks a promise, and the seeds together do what they are for.
#[test]
fn no_violation() {
    let mut all = Statistics::default();
    for seed in (1..=SEEDS).chain(KEPT.iter().copied()) {
        let report = run(Options {
            faults_for: Duration::from_mins(5),
            ..Options::of_seed(seed)
        });
        passes(&report);
        all += &report.statistics;
    }
    let seconds = all.simulated_nanos / 1_000_000_000;
    assert!(all.operations >= 20 * seconds, "{all:?}");
    assert!(all.fault_count() >= seconds, "{all:?}");
    assert!(all.done > all.operations / 2, "{all:?}");
    assert!(all.crashes > 300 && all.leader_changes > 300, "{all:?}");
    assert!(all.torn_tails > 5 && all.damage_found > 5, "{all:?}");
    assert!(all.compactions > 100, "{all:?}");
}

/// Goal: a run is a function of its seed: every line of the trace is the same, and another seed has others.
#[test]
fn same_seed_same_trace() {
    let traced = |seed| {
        run(Options {
            faults_for: Duration::from_mins(1),
            keep: Keep::All,
            ..Options::of_seed(seed)
        })
    };
    let (first, second, other) = (traced(7), traced(7), traced(8));
    assert_eq!(first.trace, second.trace);
    assert_eq!(first.trace_hash, second.trace_hash);
    assert_eq!(first.statistics, second.statistics);
    assert!(first.trace.len() > 1_000);
    assert_ne!(first.trace_hash, other.trace_hash);
    // What is kept does not change what happens.
    let tail = run(Options {
        faults_for: Duration::from_mins(1),
        ..Options::of_seed(7)
    });
    assert_eq!(tail.trace_hash, first.trace_hash);
    assert!(first.trace.ends_with(&tail.trace));
}
