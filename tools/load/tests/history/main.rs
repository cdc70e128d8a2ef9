//! The checkers of recorded histories: no false alarm on valid ones, every planted violation found.

#![allow(
    clippy::disallowed_methods,
    reason = "sessions with real servers are timed by a real clock"
)]

mod model;
mod plant;
mod server;
mod unanswered;
mod wire;

use kontiki_harness::server::{etcd_program, kontiki_program};
use kontiki_load::history::{
    Answer, Base, Checker, Close, Entry, Header, Kv, Operation, Outcome, Put, PutAnswer,
    RecordReader, Report, Request, Rule, Unjudgeable, ValueHash, Violation, WATCH_ALL, WatchEntry,
    WatchNotice,
};
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

/// A server that refuses to create a watch breaks nothing; one that ends a watch which is not there does.
#[test]
fn a_refused_watch_gives_no_alarm() {
    let judge = |watch: i64| {
        let mut entries = model::history(1, shapes()[1]);
        let notice = WatchNotice::Cancelled {
            compact_revision: 0,
        };
        entries.push(Entry::Watch(WatchEntry {
            stream: 999,
            watch,
            at: 0,
            notice,
        }));
        check(&entries).violations.first().map(|each| each.rule)
    };
    assert_eq!(judge(WATCH_ALL), None);
    assert_eq!(judge(0), Some(Rule::WatchUnasked));
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

/// A session with a real etcd: every call of KV but compaction, two watches, bookmarks.
const ETCD_RECORD: &[u8] = include_bytes!("etcd-3.5.30.record");

fn read(record: &[u8]) -> Vec<Entry> {
    let mut reader = RecordReader::new(record).expect("a record");
    let mut entries = Vec::new();
    while let Some(entry) = reader.read().expect("an entry") {
        entries.push(entry);
    }
    assert_eq!(reader.close(), Some(Close::Closed));
    entries
}

fn check_record(record: &[u8], watches: bool) {
    let entries = read(record);
    let report = check(&entries);
    assert!(report.is_clean(), "{}", report.violations[0]);
    assert_eq!((report.unjudged, report.revisions_unsettled), (0, 0));
    assert!(
        report.writes > 200 && (report.watch_events > 200) == watches,
        "{report:?}"
    );
    let mut planted = vec![0; plant::PLANTS.len()];
    let missed = plant_all(&entries, watches, &mut planted);
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    let kinds = planted.iter().filter(|count| **count > 0).count();
    assert!(
        kinds >= if watches { 30 } else { 18 },
        "only {kinds} kinds were planted"
    );
}

/// What etcd did is right, and every violation planted into it is found.
#[test]
fn a_record_of_etcd_is_right_and_every_edit_of_it_is_found() {
    check_record(ETCD_RECORD, true);
}

/// The same with a fresh record of a real etcd; with KONTIKI_RECORD it is kept there.
#[test]
fn a_fresh_record_of_etcd_is_right() {
    let record = server::record(&etcd_program(), true);
    if let Some(path) = std::env::var_os("KONTIKI_RECORD") {
        std::fs::write(path, &record).expect("it can be written");
    }
    check_record(&record, true);
}

/// The same with a fresh record of kontiki.
#[test]
fn a_fresh_record_of_kontiki_is_right() {
    check_record(&server::record(&kontiki_program(), false), false);
}

/// Every change of one shown number of a history without fog is found: what is accepted is exactly what the
/// store would have answered.
#[test]
fn every_changed_number_is_found() {
    let mut changed = 0;
    for seed in 1_000..1_150 {
        let entries = model::history(seed, shapes()[1]);
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..20 {
            let mut edited = entries.clone();
            let at = rng.usize(1..edited.len());
            let Some(what) = change_number(&mut edited[at], &mut rng) else {
                continue;
            };
            changed += 1;
            let report = check(&edited);
            assert!(
                !report.is_clean(),
                "seed {seed}: {what} of {:?}",
                entries[at]
            );
        }
    }
    assert!(changed > 500, "only {changed} edits");
}

/// Changes one number that an answer or event shows, if there is one that must be right.
fn change_number(entry: &mut Entry, rng: &mut fastrand::Rng) -> Option<&'static str> {
    let (kvs, revision): (Vec<&mut Kv>, Option<&mut i64>) = match entry {
        Entry::Base(_) => return None,
        Entry::Operation(operation) => {
            let Outcome::Ok { revision, answer } = &mut operation.outcome else {
                return None;
            };
            let (kvs, makes) = match answer {
                Answer::Put(answer) => (answer.prev.iter_mut().collect(), true),
                Answer::Range(answer) => (answer.kvs.iter_mut().collect(), false),
                Answer::Delete(answer) => {
                    let makes = answer.deleted > 0;
                    (answer.prev_kvs.iter_mut().collect(), makes)
                }
                _ => return None,
            };
            // A read may have been answered from another revision where the state is the same.
            (kvs, makes.then_some(revision))
        }
        Entry::Watch(watch) => match &mut watch.notice {
            WatchNotice::Events { events, .. } => {
                let puts = events.iter_mut().filter(|event| event.put);
                (puts.map(|event| &mut event.kv).collect(), None)
            }
            _ => return None,
        },
    };
    let count = kvs.len();
    let by = if rng.bool() { 1 } else { -1 };
    if let Some(revision) = revision
        && rng.u8(..3) == 0
    {
        *revision += by;
        return Some("the header's revision");
    }
    let kv = kvs.into_iter().nth(rng.usize(..count.max(1)))?;
    Some(match rng.u8(..5) {
        0 => {
            kv.create_revision += by;
            "a create revision"
        }
        1 => {
            kv.mod_revision += by;
            "a mod revision"
        }
        2 => {
            kv.version += by;
            "a version"
        }
        3 => {
            kv.lease += by;
            "a lease"
        }
        _ => {
            kv.value = Some(ValueHash(0xbad));
            "a value"
        }
    })
}

/// A record cut anywhere reads as what was whole before the cut, and as open; it never panics.
#[test]
fn a_cut_record_is_open() {
    let whole = read(ETCD_RECORD);
    for cut in (0..ETCD_RECORD.len()).step_by(97) {
        let Ok(mut reader) = RecordReader::new(&ETCD_RECORD[..cut]) else {
            assert!(cut < 64, "the header is short");
            continue;
        };
        let mut count = 0;
        while let Some(entry) = reader.read().expect("a cut is no damage") {
            assert_eq!(entry, whole[count]);
            count += 1;
        }
        assert_eq!(reader.close(), Some(Close::Open));
    }
}

/// A record with a flipped bit is refused, or reads as before where the bit decides nothing; it never panics.
#[test]
fn a_damaged_record_is_refused() {
    let mut refused = 0;
    for at in (0..ETCD_RECORD.len()).step_by(61) {
        let mut record = ETCD_RECORD.to_vec();
        record[at] ^= 1 << (at % 8);
        let Ok(mut reader) = RecordReader::new(&record[..]) else {
            refused += 1;
            continue;
        };
        let end = loop {
            match reader.read() {
                Ok(Some(_)) => {}
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        refused += u32::from(end || reader.close() == Some(Close::Open));
    }
    assert!(refused > 1_000, "{refused}");
}

/// What a killed writer did not write is excused: an open record of a prefix gives no alarm.
#[test]
fn an_open_record_gives_no_alarm() {
    for seed in 0..100 {
        let mut entries = model::history(seed, shapes()[3]);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut lost = |entry: &Entry| matches!(entry, Entry::Operation(_)) && rng.u8(..8) == 0;
        entries.retain(|entry| !lost(entry));
        let mut checker = Checker::new();
        let source = checker.source(&HEADER);
        for entry in &entries {
            checker.add(source, entry.clone());
        }
        checker.close(Close::Open);
        let report = checker.check().expect("it has a base");
        assert!(report.is_clean(), "seed {seed}: {}", report.violations[0]);
    }
}

/// Records without a base are not judged.
#[test]
fn a_history_needs_a_base() {
    let mut checker = Checker::new();
    checker.source(&HEADER);
    assert_eq!(
        checker.check().map(|report| report.is_clean()),
        Err(Unjudgeable::NoBase)
    );
}

/// Of records that begin one after the other the lowest base counts, in any order of the files; the state that another
/// began with must be what was written until then.
#[test]
fn records_may_begin_one_after_the_other() {
    let judge = |revision: i64, value: u64, swapped: bool| {
        let put = |number: i64| {
            let put = Put {
                key: "a".into(),
                value: ValueHash(number.cast_unsigned()),
                lease: 0,
                prev_kv: false,
            };
            let times = number.cast_unsigned() * 10;
            Entry::Operation(Operation {
                client: 1,
                invoked: times,
                returned: times + 5,
                request: Request::Put(put),
                outcome: Outcome::Ok {
                    revision: number,
                    answer: Answer::Put(PutAnswer::default()),
                },
            })
        };
        let base = |revision: i64, kvs: Vec<Kv>| Entry::Base(Base { revision, kvs });
        let kv = Kv {
            key: "a".into(),
            create_revision: 4,
            mod_revision: revision,
            version: revision - 3,
            value: Some(ValueHash(value)),
            lease: 0,
        };
        let mut records = [
            vec![base(3, vec![]), put(4), put(5), put(6)],
            vec![base(revision, vec![kv]), put(7)],
        ];
        if swapped {
            records.reverse();
        }
        let mut checker = Checker::new();
        for (number, record) in (0..).zip(records) {
            let source = checker.source(&Header {
                clock: [number; 16],
                ..HEADER
            });
            for entry in record {
                checker.add(source, entry);
            }
        }
        let report = checker.check().expect("there is a base");
        report.violations.first().map(|each| each.rule)
    };
    for swapped in [false, true] {
        assert_eq!(judge(5, 5, swapped), None);
        assert_eq!(judge(6, 6, swapped), None);
        assert_eq!(judge(5, 99, swapped), Some(Rule::WrongRange));
    }
}
