//! How long operations take to record and to judge, and what memory judging needs.
//!
//! `cargo bench -p kontiki-load --bench check` takes ten million of them, or as many as KONTIKI_OPERATIONS says; it runs
//! small without `--bench`, as a test.

#![allow(clippy::disallowed_methods, reason = "a bench reads real clocks")]

use bytes::Bytes;
use kontiki_load::history::{
    Answer, Base, Checker, Entry, Header, Operation, Outcome, Put, PutAnswer, RecordWriter,
    Request, ValueHash,
};

const HEADER: Header = Header {
    clock: [7; 16],
    exclusive: true,
};

fn main() {
    let full = std::env::args().any(|argument| argument == "--bench");
    let usual = if full { 10_000_000 } else { 10_000 };
    let count = std::env::var("KONTIKI_OPERATIONS")
        .map_or(usual, |count| count.parse::<u64>().expect("a number"));
    let writer = RecordWriter::new(std::io::sink(), &HEADER).expect("a sink takes everything");
    let mut recorder = writer.recorder();
    let key = |number: u64| Bytes::from(format!("key/{:012}", number % 1_000_000));
    let operation = |number: u64| Operation {
        client: 0,
        invoked: number * 1_000,
        returned: number * 1_000 + 200_000,
        request: Request::Put(Put {
            key: key(number),
            value: ValueHash(number),
            lease: 0,
            prev_kv: false,
        }),
        outcome: Outcome::Ok {
            revision: 2 + i64::try_from(number).expect("few"),
            answer: Answer::Put(PutAnswer::default()),
        },
    };
    let operations: Vec<Operation> = (0..100_000).map(operation).collect();
    let start = std::time::Instant::now();
    for _ in 0..10 {
        operations.iter().for_each(|each| recorder.operation(each));
    }
    println!("recorded at {:?} each", start.elapsed() / 1_000_000);
    let mut checker = Checker::new();
    let source = checker.source(&HEADER);
    let base = Base {
        revision: 1,
        kvs: vec![],
    };
    checker.add(source, Entry::Base(base));
    let start = std::time::Instant::now();
    (0..count).for_each(|number| checker.add(source, Entry::Operation(operation(number))));
    println!("added in {:?}", start.elapsed());
    let report = checker.check().expect("it has a base");
    println!("judged after {:?}: {report:?}", start.elapsed());
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    println!("{}", peak.expect("the kernel says"));
    assert!(report.is_clean());
}
