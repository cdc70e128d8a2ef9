//! Every planted defect is found by a seed that is kept for it.
//!
//! `tools/simrun/planted.tsv` has them. A change of the simulator changes what every seed does; then
//! `simrun --planted all --keep tools/simrun/planted.tsv` looks for others.

use std::panic;
use std::time::Duration;

use kontiki::base::planted::{Defect, Planted};
use kontiki::sim::{Options, run};

/// The columns: defect, members, seed, simulated milliseconds until it was found, promise that was broken. The
/// soonest seed of a defect stands first.
const KEPT: &str = include_str!("../planted.tsv");
/// A seed has found its defect, or not, this long after it once did.
const SLACK: Duration = Duration::from_mins(1);

struct Kept {
    name: String,
    members: usize,
    seed: u64,
    after: Duration,
}

fn kept() -> Vec<Kept> {
    let parse = |line: &str| {
        let columns: Vec<&str> = line.split('\t').collect();
        let [name, members, seed, millis, _] = columns[..] else {
            panic!("{line:?} has other columns");
        };
        Kept {
            name: name.to_owned(),
            members: members.parse().expect("a number of members"),
            seed: seed.parse().expect("a seed"),
            after: Duration::from_millis(millis.parse().expect("a time")),
        }
    };
    KEPT.lines().skip(1).map(parse).collect()
}

fn options(kept: &Kept, faults_for: Duration, planted: Planted) -> Options {
    Options {
        members: kept.members,
        faults_for,
        planted,
        ..Options::of_seed(kept.seed)
    }
}

/// Goal: every defect has a seed that finds it, in about the time it once took.
#[test]
fn kept_seeds_find_their_defects() {
    panic::set_hook(Box::new(|_| {}));
    let all = kept();
    let mut missed = Vec::new();
    for &defect in Defect::ALL {
        let name = format!("{defect:?}");
        let finds = |kept: &&Kept| {
            let report = run(options(kept, kept.after + SLACK, Planted::one(defect)));
            let seen = report.violation.map(|violation| violation.promise);
            println!("{name}: seed {} shows {seen:?}", kept.seed);
            seen.is_some()
        };
        let of_defect = all.iter().filter(|kept| kept.name == name);
        if of_defect.into_iter().find(finds).is_none() {
            missed.push(defect);
        }
    }
    assert!(
        missed.is_empty(),
        "not found: {missed:?}; after a change of the simulator, look for other seeds with simrun --keep"
    );
}

/// Goal: what a seed finds is the defect: the same run without it shows nothing.
#[test]
fn kept_seeds_find_nothing_else() {
    let mut last = String::new();
    for kept in kept() {
        // The soonest is the one that counts.
        if std::mem::replace(&mut last, kept.name.clone()) == kept.name {
            continue;
        }
        let report = run(options(&kept, kept.after, Planted::NOTHING));
        let violation = report.violation.map(|found| found.to_string());
        assert_eq!(violation, None, "seed {} of {}", kept.seed, kept.name);
    }
}
