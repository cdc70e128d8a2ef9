use super::*;

/// A run with two operations, a failing server and everything else that a result can hold.
fn run() -> RunResult {
    let mut put = OpResult::new("put");
    let mut latency = Latency::new();
    for second in 0..3 {
        latency.clear();
        for at in 1..=1000 {
            latency.record_ns(at * 1_000 * (second + 1));
        }
        put.close_interval(second as u32, Duration::from_secs(1), &latency, second);
    }
    put.add_error("Unavailable", "gone");
    put.add_error("Unavailable", "gone again");
    RunResult {
        label: "etcd".to_owned(),
        command: vec!["kontiki-load".to_owned(), "put".to_owned()],
        generator_version: "0.1.0".to_owned(),
        started: SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_250),
        warmup: Duration::from_millis(1_500),
        duration: Duration::from_secs(3),
        endpoints: vec!["http://127.0.0.1:2379".to_owned()],
        target: Target {
            program: "etcd".to_owned(),
            version: "3.5.30".to_owned(),
            members: 1,
            details: BTreeMap::from([("data".to_owned(), "ext4".to_owned())]),
        },
        machine: Machine::default(),
        workload: Workload::default(),
        operations: vec![put, OpResult::new("get")],
        servers: vec![ServerCost {
            pid: 7,
            name: "etcd 1".to_owned(),
            cpu: CpuCost {
                user: Duration::from_millis(90),
                system: Duration::from_millis(30),
            },
            rss_bytes: 40 << 20,
        }],
        generator: CpuCost::default(),
        steps: vec![RampStep {
            offered_per_second: 1_000.0,
            achieved_per_second: 999.5,
            latency: latency.pack(),
            held: true,
        }],
        pairing: Some(Pairing {
            point: "put".to_owned(),
            side: "etcd".to_owned(),
            pair: 0,
        }),
        optimum: Some(Optimum {
            round_trip: latency.pack(),
            sync: latency.pack(),
            replicated: true,
        }),
        notes: vec!["\"quoted\" \u{1} <note>".to_owned()],
        partial: Some("server closed the connection".to_owned()),
    }
}

// Goal: what is written is read back as it was, histograms and texts from outside included.
#[test]
fn files_round_trip() {
    let file = ResultFile::new(vec![run()]);
    let text = file.to_json();
    assert_eq!(ResultFile::from_json("a.json", &text).expect("ours"), file);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.json");
    file.write(&path).expect("written");
    assert_eq!(ResultFile::read(&path).expect("read"), file);
    let names: Vec<_> = std::fs::read_dir(directory.path())
        .expect("listed")
        .collect();
    assert_eq!(names.len(), 1, "nothing is left beside the file");
}

// Goal: a file that is damaged, foreign or too new is an error that says so, and never a panic.
#[test]
fn bad_files_are_refused() {
    let good = ResultFile::new(vec![run()]).to_json();
    let check = |text: &str, expected: &str| {
        let error = ResultFile::from_json("a.json", text).expect_err("refused");
        let said = error.to_string();
        assert!(
            said.contains(expected),
            "{said:?} does not say {expected:?}"
        );
    };
    check("", "a.json: not a result of kontiki-load");
    check("[]", "not a result");
    check(
        &good.replacen("\"format\": 1", "\"format\": 2", 1),
        "format 2; this version reads up to 1",
    );
    check(
        &good.replacen("\"duration_seconds\": 3.0", "\"duration_seconds\": -3.0", 1),
        "-3 is not a time span",
    );
    check(&good.replacen("2026-", "1926-", 1), "is before all runs");
    let encoded = run().operations[0].latency.pack().to_base64();
    let hdr = |bad: &str| good.replacen(&encoded, bad, 1);
    check(&hdr("???"), "not base64");
    check(&hdr("AAAA"), "cut short");
    check(
        &hdr(&encoded.replacen('H', "I", 1)),
        "not a histogram of 1 ns",
    );
    check(&hdr(&encoded[..encoded.len() - 8]), "cut short or too long");
}

// Goal: no byte changed in a packed histogram makes reading it panic or need memory.
#[test]
fn damaged_histograms_never_panic() {
    let mut latency = Latency::new();
    for at in 0..2_000 {
        latency.record_ns(at * at * 731);
    }
    let encoded = latency.pack().to_base64().into_bytes();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..2_000 {
        let mut damaged = encoded.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..damaged.len());
            damaged[at] = b"AQgwv0z/+9"[random.usize(..10)];
        }
        damaged.truncate(random.usize(1..=damaged.len()) / 4 * 4);
        let text = String::from_utf8(damaged).expect("base64 is ASCII");
        if let Ok(packed) = Packed::from_base64(&text) {
            // What is accepted must be usable, also in a sum.
            let twice = Packed::sum([&packed, &packed]);
            assert!(twice.summary().count >= packed.summary().count);
        }
    }
}

// Goal: threads' results of the same seconds add up second by second, and so do their errors.
#[test]
fn threads_merge() {
    let mut all = run().operations.remove(0);
    let mut other = all.clone();
    other.series.remove(0);
    all.merge(&other);
    assert_eq!(all.count(), 6_000);
    assert_eq!(all.error_count(), 4);
    let counts: Vec<u64> = all
        .series
        .iter()
        .map(|own| own.latency.summary().count)
        .collect();
    assert_eq!(counts, [1_000, 2_000, 2_000]);
    assert_eq!(all.series[2].errors, 4);
    assert_eq!(all.series[2].latency.summary().p50_ns / 10_000, 150);
}

// Goal: a run after another continues its series, and times, costs and counts add up.
#[test]
fn runs_append() {
    let mut all = run();
    let mut next = run();
    next.partial = None;
    all.append(&next);
    assert_eq!(all.duration, Duration::from_secs(6));
    assert_eq!(all.count(), 6_000);
    assert_eq!(all.rate_per_second(), 1_000.0);
    assert_eq!(all.operations.len(), 2);
    let seconds: Vec<u32> = all.operations[0]
        .series
        .iter()
        .map(|own| own.second)
        .collect();
    assert_eq!(seconds, [0, 1, 2, 3, 4, 5]);
    assert_eq!(all.server_us_per_operation(), Some(40.0));
    assert_eq!(all.server_rss_bytes(), Some(40 << 20));
    assert!(all.partial.is_some(), "half of it is still partial");
}

// Goal: bounds hold: seconds, error codes and the length of a message.
#[test]
fn everything_is_bounded() {
    let mut operation = OpResult::new("put");
    let empty = Latency::new();
    for second in 0..INTERVALS_MAX as u32 + 3 {
        operation.close_interval(second, Duration::from_secs(1), &empty, 0);
    }
    assert_eq!(operation.series.len(), INTERVALS_MAX);
    assert_eq!(operation.intervals_dropped, 3);
    for code in 0..ERROR_CODES_MAX + 5 {
        operation.add_error(&format!("code {code}"), &"ä".repeat(400));
    }
    assert_eq!(operation.errors.len(), ERROR_CODES_MAX + 1);
    assert_eq!(operation.errors["other"].count, 5);
    assert_eq!(
        operation.errors["other"].first.len(),
        ERROR_MESSAGE_BYTES_MAX
    );
    let mut latency = Latency::new();
    latency.record_ns(u64::MAX);
    assert!(latency.max_ns() >= LATENCY_NS_MAX);
}
