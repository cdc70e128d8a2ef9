//! The checkers of recorded histories: no false alarm on valid ones, every planted violation found.

mod model;
mod plant;

use kontiki_load::history::{Checker, Close, Entry, Header, Report, Rule, Violation};
use model::Shape;

const HEADER: Header = Header {
    clock: [7; 16],
    exclusive: true,
};

fn check(entries: &[Entry]) -> Report {
    let mut checker = Checker::new();
    let source = checker.source(&HEADER);
    for entry in entries {
        checker.add(source, entry.clone());
    }
    checker.close(Close::Closed);
    checker.check().expect("it has one base")
}

/// Shapes from easy to foggy.
fn shapes() -> Vec<Shape> {
    let plain = Shape {
        operations: 120,
        clients: 4,
        keys: 6,
        unknown_percent: 0,
        leases: false,
        watches: false,
    };
    vec![
        plain,
        Shape {
            watches: true,
            ..plain
        },
        Shape {
            unknown_percent: 10,
            ..plain
        },
        Shape {
            unknown_percent: 50,
            watches: true,
            keys: 3,
            ..plain
        },
        Shape {
            unknown_percent: 15,
            leases: true,
            watches: true,
            keys: 10,
            clients: 8,
            ..plain
        },
    ]
}

/// Valid histories of every shape give no alarm, answered or not, with leases and watches.
#[test]
fn a_valid_history_gives_no_alarm() {
    for shape in shapes() {
        for seed in 0..400 {
            let entries = model::history(seed, shape);
            let report = check(&entries);
            assert!(
                report.is_clean(),
                "seed {seed}, {shape:?}: {} of {} operations:\n{}",
                report.violation_count,
                report.operations,
                report.violations[0]
            );
        }
    }
}

/// Plants every kind into the history at several places, and says where one was not told as expected.
fn plant_all(entries: &[Entry], watches: bool, planted: &mut [usize]) -> Vec<String> {
    let mut missed = Vec::new();
    for (plant, count) in plant::PLANTS.iter().zip(planted) {
        if plant.watch && !watches {
            continue;
        }
        for from in [0, entries.len() / 4, entries.len() / 2] {
            let mut edited = entries.to_vec();
            if !(plant.edit)(&mut edited, from) {
                continue;
            }
            *count += 1;
            let report = check(&edited);
            let told = |violation: &Violation| plant.rules.contains(&violation.rule);
            if !report.violations.iter().any(told) {
                let (name, rules) = (plant.name, plant.rules);
                let found: Vec<Rule> = report.violations.iter().map(|each| each.rule).collect();
                missed.push(format!("{name}, from {from}: {found:?} and not {rules:?}"));
            }
        }
    }
    missed
}

/// Every planted violation of a valid history is found by the rule that it breaks.
#[test]
fn every_planted_violation_is_found() {
    let mut planted = vec![0; plant::PLANTS.len()];
    let shape = shapes()[1];
    for seed in 0..60 {
        let entries = model::history(seed, shape);
        let missed = plant_all(&entries, true, &mut planted);
        assert!(missed.is_empty(), "seed {seed}: {}", missed.join("\n"));
    }
    for (plant, count) in plant::PLANTS.iter().zip(planted) {
        assert!(count >= 10, "{} was planted only {count} times", plant.name);
    }
}
