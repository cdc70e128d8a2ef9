//! Reports of small made-up runs: exact text, well-formed pages, logs that parse.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use super::*;
use crate::result::{
    CpuCost, Latency, Machine, Met, OpResult, Optimum, Pairing, RampStep, RunResult, ServerCost,
    Target, Workload,
};

/// Everything that markup, CSV and terminals could stumble over.
const HOSTILE: &str = "</style><script>alert('x')</script> & \"a\",\u{1b}[2J\u{0}\n]]>";

/// Puts of `step`, 2 `step`, ... up to a thousand steps in each of four seconds, the third one silent.
fn sample(label: &str, step_ns: u64) -> RunResult {
    let mut put = OpResult::new("put");
    for second in [0, 1, 3] {
        let mut latency = Latency::new();
        for at in 1..=1_000 {
            latency.record_ns(at * step_ns);
        }
        put.close_interval(second, Duration::from_secs(1), &latency, 0);
    }
    let cpu = |user_ms, system_ms| CpuCost {
        user: Duration::from_millis(user_ms),
        system: Duration::from_millis(system_ms),
    };
    RunResult {
        label: label.to_owned(),
        command: ["kontiki-load", "put", "--in-flight", "64"]
            .map(str::to_owned)
            .to_vec(),
        generator_version: "0.1.0".to_owned(),
        started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000),
        warmup: Duration::from_secs(1),
        duration: Duration::from_secs(4),
        endpoints: vec!["http://127.0.0.1:2379".to_owned()],
        target: Target {
            program: "etcd".to_owned(),
            version: "3.5.30".to_owned(),
            members: 1,
            details: BTreeMap::new(),
        },
        machine: Machine {
            cpu: "Some CPU".to_owned(),
            cpus: 2,
            memory_bytes: 24 << 30,
            kernel: "Linux 6.1".to_owned(),
        },
        workload: Workload {
            summary: "put, 64 in flight, 256 B values".to_owned(),
            parameters: BTreeMap::from([("keys".to_owned(), "100,000, uniform".to_owned())]),
        },
        operations: vec![put],
        servers: vec![ServerCost {
            pid: 42,
            name: "etcd".to_owned(),
            cpu: cpu(90, 30),
            rss_bytes: 50 << 20,
        }],
        generator: cpu(6, 3),
        steps: Vec::new(),
        pairing: None,
        optimum: None,
        notes: Vec::new(),
        partial: None,
    }
}

/// Three pairs at one point, ours twice as fast.
fn paired() -> Vec<RunResult> {
    let mut runs = Vec::new();
    for pair in 0..3 {
        for (side, step_ns) in [("kontiki", 1_000), ("etcd", 2_000)] {
            let mut run = sample(side, step_ns * (u64::from(pair) + 10));
            run.pairing = Some(Pairing {
                point: "put, 64 in flight".to_owned(),
                side: side.to_owned(),
                pair,
            });
            runs.push(run);
        }
    }
    runs
}

/// A page that no parser objects to; back come its texts.
fn parsed(html: &str) -> String {
    let options = roxmltree::ParsingOptions {
        allow_dtd: true,
        ..Default::default()
    };
    let document = roxmltree::Document::parse_with_options(html, options);
    let document = document.unwrap_or_else(|error| panic!("not well-formed: {error}"));
    for element in document.descendants().filter(|node| node.is_element()) {
        let name = element.tag_name().name();
        let loads = ["script", "link", "img", "iframe", "object", "use", "image"];
        assert!(!loads.contains(&name), "the page has a <{name}>");
        for attribute in element.attributes() {
            let name = attribute.name();
            assert!(!name.starts_with("on") && name != "src" && name != "href");
        }
    }
    let text = |node: roxmltree::Node<'_, '_>| node.text().map(str::to_owned);
    document
        .descendants()
        .filter_map(text)
        .collect::<Vec<_>>()
        .join("\n")
}

// Goal: the table of one run, exactly as a terminal shows it.
#[test]
fn one_run_as_text() {
    let mut run = sample("etcd", 10_000);
    run.operations[0].add_error("Unavailable", "connection closed");
    run.partial = Some("the server went away".to_owned());
    let expected = "\
kontiki-load: put, 64 in flight, 256 B values

!! PARTIAL RESULT: the server went away. All figures are of the 4.0 s that ran.

target     etcd 3.5.30, 1 member
endpoints  http://127.0.0.1:2379
workload   put, 64 in flight, 256 B values
keys       100,000, uniform
started    2026-09-21 14:13:20 UTC
measured   4.0 s after 1.0 s of warm-up
machine    2 CPUs, Some CPU, 24 GiB, Linux 6.1
generator  kontiki-load 0.1.0
command    kontiki-load put --in-flight 64

Operations
operation  count   rate     mean   p50   p90      p99    p99.9    max  errors
put        3,000  750/s  5.01 ms  5 ms  9 ms  9.90 ms  9.99 ms  10 ms       1

operation  error        first message      count
put        Unavailable  connection closed      1

Cost
process        CPU per op   user  system      CPU  memory
etcd (pid 42)       40 us  30 us   10 us      3 %  50 MiB
generator            3 us   2 us    1 us  0.225 %       -
";
    assert_eq!(runs::report(&[run]).to_text(), expected);
}

// Goal: pairs are compared by the median of their ratios, and a run that is partial takes its pair away.
#[test]
fn pairs_as_ratios() {
    let mut runs = paired();
    runs[2].partial = Some("cut".to_owned());
    let compared = pairs::compare(&runs);
    let [comparison] = &compared[..] else {
        panic!("one point, not {}", compared.len());
    };
    assert_eq!(
        (comparison.ours.as_str(), comparison.theirs.as_str()),
        ("kontiki", "etcd")
    );
    assert_eq!(comparison.pairs_left_out, 1);
    let p50 = comparison.rows.iter().find(|row| row.name == "latency p50");
    let p50 = p50.expect("measured on both sides");
    assert_eq!(p50.ratios.len(), 2);
    assert!((p50.ratio() - 0.5).abs() < 0.001, "{}", p50.ratio());
    let text = runs::report(&runs).to_text();
    assert!(text.contains("Compared: put, 64 in flight"), "{text}");
    assert!(text.contains("1 of the pairs left out"), "{text}");
}

/// Three pairs of linearizable and as many of serializable gets, ours a tenth slower where it is linearizable.
fn reads() -> Vec<RunResult> {
    let mut runs = Vec::new();
    for (point, ours_ms) in [("get, 256", 4_400), ("get serializable, 256", 4_000)] {
        for mut run in paired() {
            let pairing = run.pairing.as_mut().expect("paired");
            pairing.point = format!("{point} in flight, 10 connections");
            if pairing.side == "kontiki" {
                run.duration = Duration::from_millis(ours_ms);
                run.target.program = "kontiki".to_owned();
            }
            runs.push(run);
        }
    }
    runs
}

// Goal: figures with goals are judged by the median of their pairs where ours runs beside another's, and shown
// without a judgement where it does not; points without a goal have none.
#[test]
fn figures_beside_their_goals() {
    let check = |runs: &[RunResult], expected: &[(&str, f64, Option<Met>)]| {
        let found = goals::figures(runs);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (figure, (goal, value, met)) in found.iter().zip(expected) {
            assert_eq!(
                (figure.goal.as_str(), figure.met),
                (*goal, *met),
                "{figure:?}"
            );
            assert!((figure.value - value).abs() < 0.01, "{figure:?}");
            assert!(figure.lowest <= figure.value && figure.value <= figure.highest);
            assert_eq!(figure.pairs, 3);
        }
    };
    check(&paired(), &[]);
    let runs = reads();
    // The same CPU for the same number of gets; a tenth slower is more than must be, and less than the target.
    let g9 = ("G9", 1.0, Some(Met::Nothing));
    check(&runs, &[g9, ("G10", 1.0 / 1.1, Some(Met::Must))]);
    let mut null = runs.clone();
    for run in &mut null {
        run.target.program = "etcd".to_owned();
    }
    check(&null, &[("G9", 1.0, None), ("G10", 1.0 / 1.1, None)]);
    check(&runs[..6], &[g9]);
    let mut rates = paired();
    for run in &mut rates {
        let pairing = run.pairing.as_mut().expect("paired");
        pairing.point = "put, open loop at half of its own highest rate, 10 connections".to_owned();
        run.target.program.clone_from(&pairing.side);
    }
    check(&rates, &[("G7", 2.0, Some(Met::Stretch))]);
    for run in &mut rates {
        let pairing = run.pairing.as_mut().expect("paired");
        pairing.point = "put, open loop at the opponent's highest rate, 10 connections".to_owned();
    }
    check(&rates, &[("G6", 0.5, Some(Met::Nothing))]);
    for run in &mut rates {
        let pairing = run.pairing.as_mut().expect("paired");
        pairing.point = "idle, no client".to_owned();
        run.operations.clear();
        if pairing.side == "kontiki" {
            run.duration *= 6;
        }
    }
    check(&rates, &[("G2", 1.0 / 6.0, Some(Met::Stretch))]);
    // Puts of 6.5 ms in the median, beside commits that could take 3 ms and 9 ms: the latter cannot be.
    for (sync_ns, value, met) in [
        (3_000_000, 0.5, Met::Nothing),
        (9_000_000, 1.5, Met::Nothing),
    ] {
        let mut one = paired();
        for run in &mut one {
            let pairing = run.pairing.as_mut().expect("paired");
            pairing.point = "put, one client at the leader".to_owned();
            run.target.program.clone_from(&pairing.side);
            let (mut sync, mut round_trip) = (Latency::new(), Latency::new());
            sync.record_ns(sync_ns);
            round_trip.record_ns(1);
            run.optimum = Some(Optimum {
                round_trip: round_trip.pack(),
                sync: sync.pack(),
                replicated: false,
            });
        }
        let share = one[2].share_of_optimum().expect("measured beside");
        check(&one, &[("G8", share, (value < 1.0).then_some(met))]);
        assert_eq!(share > 1.0, value > 1.0, "{share}");
    }
    let text = runs::report(&runs).to_text();
    let row = text.lines().find(|line| line.starts_with("G10"));
    let row = row.expect("in the table");
    for part in ["0.909", ">= 0.850", ">= 0.950", ">= 0.980", "must"] {
        assert!(row.contains(part), "{row}");
    }
    assert!(text.contains("The levels were set for 3 members"), "{text}");
    assert!(parsed(&runs::report(&runs).to_html()).contains(">= 0.850"));
}

// Goal: medians of an even and an odd number of values, and of none.
#[test]
fn medians() {
    let check = |values: &[f64], expected: Option<f64>| assert_eq!(pairs::median(values), expected);
    check(&[], None);
    check(&[3.0], Some(3.0));
    check(&[9.0, 1.0, 2.0], Some(2.0));
    check(&[4.0, 1.0, 2.0, 9.0], Some(3.0));
}

// Goal: pages of one run, several runs, pairs and empty results are well-formed and load nothing.
#[test]
fn pages_are_well_formed() {
    let mut ramp = sample("ramp", 5_000);
    ramp.steps = vec![RampStep {
        offered_per_second: 1_000.0,
        achieved_per_second: 990.0,
        latency: ramp.operations[0].latency.pack(),
        held: true,
    }];
    let mut empty = sample("empty", 1);
    empty.operations = vec![OpResult::new("put")];
    empty.duration = Duration::ZERO;
    let check = |runs: &[RunResult], expected: &str| {
        let text = parsed(&runs::report(runs).to_html());
        assert!(
            text.contains(expected),
            "{text} does not contain {expected}"
        );
    };
    check(&[sample("etcd", 10_000)], "9.90 ms");
    check(&[sample("a", 1_000), sample("a", 2_000)], "a (2)");
    check(&paired(), "kontiki / etcd, each pair and the median");
    check(&[ramp], "p99 by offered rate");
    let mut idle = paired();
    for run in &mut idle {
        run.operations.clear();
    }
    check(&idle, "server CPU while idle, of one CPU");
    check(&[empty], "Nothing was measured that could be drawn.");
    check(&[], "kontiki-load: 0 runs");
}

// Goal: no text of a result can leave its place, in any of the renderings.
#[test]
fn hostile_texts_stay_texts() {
    let mut run = sample(HOSTILE, 1_000);
    run.command = vec![HOSTILE.to_owned()];
    run.workload.summary = HOSTILE.to_owned();
    run.target.version = HOSTILE.to_owned();
    run.operations[0].name = HOSTILE.to_owned();
    run.operations[0].add_error(HOSTILE, HOSTILE);
    run.servers[0].name = HOSTILE.to_owned();
    run.notes.push(HOSTILE.to_owned());
    run.partial = Some(HOSTILE.to_owned());
    let mut other = run.clone();
    other.pairing = Some(Pairing {
        point: HOSTILE.to_owned(),
        side: HOSTILE.to_owned(),
        pair: 0,
    });
    for runs in [vec![run.clone()], vec![run, other]] {
        let report = runs::report(&runs);
        let page = report.to_html();
        assert!(
            parsed(&page).contains("<script>alert('x')</script>"),
            "shown as text"
        );
        assert!(!page.contains("<script"));
        let text = report.to_text();
        let bad = |c: char| c.is_control() && c != '\n';
        assert!(!text.contains(bad), "{text:?}");
        let row = csv::operations(&runs);
        let quoted = HOSTILE.replace('"', "\"\"");
        assert!(row.contains(&format!("0,\"{quoted}\",")), "{row}");
        let log = hlog::log(&runs[0]).expect("written");
        assert!(IntervalLogIterator::new(&log).all(|entry| entry.is_ok()));
    }
}

// Goal: a partial result says so at the top of the page.
#[test]
fn partial_results_are_marked() {
    let mut run = sample("etcd", 1_000);
    assert!(
        !runs::report(std::slice::from_ref(&run))
            .to_html()
            .contains("PARTIAL")
    );
    run.partial = Some("deadline".to_owned());
    let page = runs::report(&[run]).to_html();
    let (warning, table) = (page.find("PARTIAL RESULT: deadline"), page.find("<table"));
    assert!(warning.is_some() && warning < table);
}

// Goal: another reader of HdrHistogram logs gets the same seconds, tags and latencies.
#[test]
fn interval_logs_parse() {
    use base64::Engine as _;
    let run = sample("etcd", 10_000);
    let log = hlog::log(&run).expect("written");
    assert!(log.starts_with(b"#[Histogram log format version 1.3]\n"));
    let mut seconds = Vec::new();
    let mut sum = Latency::new();
    let mut base = None;
    for entry in IntervalLogIterator::new(&log) {
        match entry.expect("every line parses") {
            LogEntry::Interval(interval) => {
                assert_eq!(interval.tag().expect("tagged").as_str(), "put");
                assert!((interval.max() - 10.0).abs() < 0.1, "milliseconds");
                seconds.push(interval.start_timestamp().as_secs());
                let encoded = base64::engine::general_purpose::STANDARD
                    .decode(interval.encoded_histogram())
                    .expect("base64");
                let histogram: hdrhistogram::Histogram<u64> =
                    hdrhistogram::serialization::Deserializer::new()
                        .deserialize(&mut encoded.as_slice())
                        .expect("a histogram");
                for value in histogram.iter_recorded() {
                    for _ in 0..value.count_at_value() {
                        sum.record_ns(value.value_iterated_to());
                    }
                }
            }
            LogEntry::BaseTime(time) => base = Some(time.as_secs()),
            LogEntry::StartTime(_) => {}
        }
    }
    assert_eq!(seconds, [0, 1, 3]);
    assert_eq!(
        base,
        Some(1_790_000_001),
        "the measured part begins after the warm-up"
    );
    assert_eq!(sum.summary().count, 3_000);
    assert_eq!(
        sum.summary().p99_ns,
        run.operations[0].latency.summary().p99_ns
    );
}

// Goal: CSV has the same number of fields in every row, and the figures of the table.
#[test]
fn csv_rows() {
    let check = |text: &str, rows: usize, expected: &str| {
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), rows + 1, "{text}");
        let fields = |line: &str| line.split(',').count();
        assert!(
            lines.iter().all(|line| fields(line) == fields(lines[0])),
            "{text}"
        );
        assert!(lines.contains(&expected), "{text}");
    };
    let runs = [sample("etcd", 10_000)];
    check(
        &csv::operations(&runs),
        1,
        "0,etcd,,,,put,3000,5005.013,5001.215,9003.007,9904.127,9994.239,10002.431,4.000,750.00,0,40.000,52428800,0.120,3.000,",
    );
    let mut idle = sample("idle", 1);
    idle.operations.clear();
    check(
        &csv::operations(&[idle]),
        1,
        "0,idle,,,,,0,0.000,0.000,0.000,0.000,0.000,0.000,4.000,0.00,0,,52428800,0.120,,",
    );
    check(
        &csv::intervals(&runs),
        3,
        "0,etcd,,,,put,3,1.000,1000,5005.013,5001.215,9003.007,9904.127,9994.239,10002.431,0",
    );
}
