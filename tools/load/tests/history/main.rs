//! The checkers of recorded histories: no false alarm on valid ones, every planted violation found.

mod model;
mod plant;

use kontiki_load::history::{Checker, Close, Entry, Header, Report};
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
