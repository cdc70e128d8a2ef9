//! Many kill -9 in the life of one data directory: nothing acknowledged is lost, nothing is half there.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use kontiki_harness::client::{CallError, Client, block_on};
use kontiki_harness::messages::{
    COMPACT, CompactionRequest, CompactionResponse, KeyValue, PUT, PutRequest, PutResponse, RANGE,
    RangeRequest, RangeResponse, TXN, TxnResponse,
};
use kontiki_harness::segments::{ChangeWatch, LogEnd, log_end};
use kontiki_harness::server::{Server, ServerOptions};
use rustix::process::Signal;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::checkpoints::checkpoints;
use crate::model::{Model, Operation, Outcome, Value, holds, key};
use crate::{Scratch, program, report};

/// Cycles when the environment does not say otherwise.
const CYCLES_DEFAULT: usize = 200;
/// The same for cycles with checkpoints.
const CYCLES_AMID_CHECKPOINTS_DEFAULT: usize = 60;
/// One cycle in this many is aimed at a change of segments.
const AIMED_EVERY: usize = 25;
/// Puts of one cycle, all in flight or acknowledged when the process dies.
const PUTS: usize = 1000;
/// Transactions of two puts and a deletion beside them.
const UNITS: usize = 50;
/// Keys that all cycles share.
const KEYS: u32 = 4000;
/// The key of the large values that move the log towards the end of a segment.
const FILL_KEY: u32 = KEYS;
/// Size of those values.
const FILL_BYTES: usize = 1024 * 1024;
/// Size of the values while a change of segments is due.
const AIMED_VALUE_BYTES: usize = 4096;
/// What is left of a segment when an aimed cycle starts its puts, so that the change falls among them.
const AIMED_ROOM_BYTES: u64 = (PUTS * AIMED_VALUE_BYTES / 2) as u64;
/// Connections that share the requests of a cycle.
const CONNECTIONS: usize = 8;
/// Keys per page when the whole store is read.
const PAGE_KEYS: i64 = 250;
/// Old revisions that are read again after each restart.
const HISTORY_SAMPLES: usize = 100;
/// No request may take longer, however it ends.
const CYCLE_TIME_MAX: Duration = Duration::from_secs(60);

/// When a cycle kills the process.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So long after the first request.
    Time(Duration),
    /// So long after this many answers.
    Answers(usize, Duration),
    /// So long after a file of the log appeared, disappeared or was renamed.
    Change(Duration),
}

/// What a run has gone through.
#[derive(Default)]
struct Tally {
    acknowledged: usize,
    unknown_there: usize,
    unknown_gone: usize,
    killed_with_calls_open: usize,
    aimed: usize,
    segment_changes: usize,
    checkpoints: usize,
    restart_max: Duration,
    restart_sum: Duration,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} acknowledged, 0 lost; {} of unknown outcome there, {} not; {} kills with calls open; \
             {} aimed at a segment change, {} changes in all; {} checkpoints; restart max {:.0?}, sum {:.1?}",
            self.acknowledged,
            self.unknown_there,
            self.unknown_gone,
            self.killed_with_calls_open,
            self.aimed,
            self.segment_changes,
            self.checkpoints,
            self.restart_max,
            self.restart_sum,
        )
    }
}

/// Goal: after each of many kills at random moments, every acknowledged write is there with its
/// revision, every transaction whole or absent, and the whole state what the model says.
#[test]
fn kill_nine_loses_nothing() {
    let (seed, cycles) = course(CYCLES_DEFAULT);
    report(&format!(
        "crash: {cycles} cycles, KONTIKI_CRASH_SEED={seed}"
    ));
    let scratch = Scratch::new("crash");
    let mut options = ServerOptions::new(&program(), scratch.path()).expect("free ports");
    // The log keeps everything and the fill values are many: no alarm before the end.
    options.extra = vec![format!("--quota-backend-bytes={}", 8_u64 << 30)];
    let tally = block_on(run(&options, seed, cycles, Aim::Segments));
    report(&format!("crash: {cycles} cycles: {tally}"));
    assert!(
        cycles < 2 * AIMED_EVERY || tally.segment_changes > 0,
        "no cycle saw a change of segments"
    );
}

/// Goal: the same while a checkpoint is begun every few cycles, so that kills fall on every step of one.
#[test]
fn kill_nine_amid_checkpoints() {
    let (seed, cycles) = course(CYCLES_AMID_CHECKPOINTS_DEFAULT);
    report(&format!(
        "crash amid checkpoints: {cycles} cycles, KONTIKI_CRASH_SEED={seed}"
    ));
    let scratch = Scratch::new("crash-checkpoints");
    let mut options = ServerOptions::new(&program(), scratch.path()).expect("free ports");
    options.extra = vec![format!("--checkpoint-payload-bytes={}", 1 << 20)];
    let tally = block_on(run(&options, seed, cycles, Aim::Checkpoints));
    report(&format!("crash amid checkpoints: {cycles} cycles: {tally}"));
    assert!(
        tally.checkpoints * 10 >= cycles,
        "{} checkpoints",
        tally.checkpoints
    );
}

/// The seed and the count of cycles of a run.
fn course(cycles_default: usize) -> (u64, usize) {
    let seed = environment("KONTIKI_CRASH_SEED").unwrap_or_else(|| fastrand::u64(..));
    let cycles = environment("KONTIKI_CRASH_CYCLES").map_or(cycles_default, |count| {
        usize::try_from(count).expect("a count of cycles")
    });
    (seed, cycles)
}

/// What the kills of a run are meant to fall on, beside the requests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Aim {
    /// Changes of segments, in some cycles.
    Segments,
    /// Checkpoints, which a small history keeps frequent.
    Checkpoints,
}

async fn run(options: &ServerOptions, seed: u64, cycles: usize, aim: Aim) -> Tally {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut tally = Tally::default();
    let mut model = Model::new();
    let mut server = Server::start(options).expect("the first start");
    // How long a whole cycle takes undisturbed; learnt, so that random moments cover all of it.
    let mut whole = Duration::from_millis(200);
    let mut checkpoint = None;
    let mut compacted = 0;
    for cycle in 0..cycles {
        let aimed = aim == Aim::Segments && cycle % AIMED_EVERY == AIMED_EVERY - 1;
        tally.aimed += usize::from(aimed);
        if aimed {
            fill(options, &mut model, &mut random).await;
        }
        let before = log_end(&options.data_dir).expect("the log is readable");
        let operations = plan(&mut random, aimed);
        let moment = choose(&mut random, whole, aimed);
        let (outcomes, took) = strike(options, server, &operations, moment).await;
        if let Some(took) = took {
            whole = (whole + took) / 2;
        } else {
            tally.killed_with_calls_open += 1;
        }

        let restart = Instant::now();
        server = Server::start(options)
            .unwrap_or_else(|error| panic!("cycle {cycle}, killed at {moment:?}: {error}"));
        tally.restart_max = tally.restart_max.max(restart.elapsed());
        tally.restart_sum += restart.elapsed();

        let client = connect(options).await;
        let (observed, revision) = read_all(&client).await;
        let operations: Vec<_> = operations.into_iter().zip(outcomes).collect();
        let settled = model
            .settle(&operations, &observed, revision)
            .unwrap_or_else(|what| {
                panic!("cycle {cycle} of seed {seed}, killed at {moment:?}: {what}")
            });
        tally.acknowledged += settled.acknowledged;
        tally.unknown_there += settled.unknown_there;
        tally.unknown_gone += settled.unknown_gone;
        check_history(&client, &model, &mut random, cycle).await;
        let after = log_end(&options.data_dir).expect("the log is readable");
        tally.segment_changes += after.segments.saturating_sub(before.segments);
        let newest = checkpoints(&options.data_dir).pop();
        tally.checkpoints += usize::from(newest != checkpoint);
        checkpoint = newest;
        // A cycle that was killed at once wrote nothing, and a revision is compacted once.
        if aimed || aim == Aim::Checkpoints && model.revision > compacted {
            compacted = model.revision;
            compact(&client, &mut model).await;
        }
    }
    server.kill().expect("the last kill");
    tally
}

/// The requests of one cycle; no key occurs twice.
fn plan(random: &mut fastrand::Rng, aimed: bool) -> Vec<Operation> {
    let mut numbers: Vec<u32> = (0..KEYS).collect();
    random.shuffle(&mut numbers);
    let mut numbers = numbers.into_iter();
    let mut next = || numbers.next().expect("more keys than one cycle uses");
    let mut operations = Vec::with_capacity(PUTS + UNITS);
    for count in 0..PUTS {
        let size = match count % 50 {
            _ if aimed => AIMED_VALUE_BYTES,
            0 => random.usize(8..16 * 1024),
            _ => random.usize(8..512),
        };
        let stamp = random.u64(..);
        operations.push(Operation::Put(next(), Value { stamp, size }));
    }
    for _ in 0..UNITS {
        let mut put = || {
            let stamp = random.u64(..);
            (next(), Value { stamp, size: 64 })
        };
        let puts = [put(), put()];
        operations.push(Operation::Unit(puts, next()));
    }
    random.shuffle(&mut operations);
    operations
}

fn choose(random: &mut fastrand::Rng, whole: Duration, aimed: bool) -> Moment {
    let short = Duration::from_micros(random.u64(0..2_000));
    match (aimed, random.bool()) {
        (true, true) => Moment::Change(short),
        // The change is expected in the middle.
        (true, false) => Moment::Answers(random.usize(PUTS / 4..PUTS * 3 / 4), short),
        (false, true) => Moment::Answers(random.usize(0..PUTS + UNITS), short),
        (false, false) => Moment::Time(whole.mul_f64(random.f64())),
    }
}

/// Sends everything, kills the process at its moment, and tells how each request ended; beside it how
/// long the requests took, when all were answered before the end.
async fn strike(
    options: &ServerOptions,
    server: Server,
    operations: &[Operation],
    moment: Moment,
) -> (Vec<Outcome>, Option<Duration>) {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(connect(options).await);
    }
    let mut changes = ChangeWatch::start(&options.data_dir).expect("a watch on the log");
    let answered = Rc::new((Cell::new(0_usize), Notify::new()));
    let start = Instant::now();
    let mut calls = JoinSet::new();
    for (position, operation) in operations.iter().enumerate() {
        let client = clients[position % CONNECTIONS].clone();
        let operation = operation.clone();
        let answered = Rc::clone(&answered);
        calls.spawn_local(async move {
            let outcome = send(&client, &operation).await;
            answered.0.set(answered.0.get() + 1);
            answered.1.notify_one();
            (position, outcome)
        });
    }
    let wait_for_answers = async |count: usize| {
        while answered.0.get() < count {
            answered.1.notified().await;
        }
    };
    let delay = match moment {
        Moment::Time(span) => span,
        Moment::Answers(count, delay) => {
            wait_for_answers(count).await;
            delay
        }
        Moment::Change(delay) => {
            // Without any change the cycle ends with its last answer.
            tokio::select! {
                changed = changes.changed() => changed.expect("notices are readable"),
                () = wait_for_answers(operations.len()) => {}
            }
            delay
        }
    };
    tokio::time::sleep(delay).await;
    let took = (answered.0.get() == operations.len()).then(|| start.elapsed() - delay);
    server.signal(Signal::KILL);

    // Answers that were on their way still count as acknowledged.
    let mut outcomes = vec![Outcome::Unknown; operations.len()];
    let collect = async {
        while let Some(ended) = calls.join_next().await {
            let (position, outcome) = ended.expect("calls do not panic");
            outcomes[position] = outcome;
        }
    };
    tokio::time::timeout(CYCLE_TIME_MAX, collect)
        .await
        .expect("every call ends once the process is dead");
    server.kill().expect("the process can be waited for");
    (outcomes, took)
}

async fn send(client: &Client, operation: &Operation) -> Outcome {
    let header = match operation {
        Operation::Put(number, value) => {
            let request = PutRequest {
                key: key(*number),
                value: value.bytes().into(),
            };
            let answer = client.call::<PutResponse>(PUT, &request).await;
            answer.map(|answer| answer.header)
        }
        Operation::Unit(..) => {
            let answer = client
                .call::<TxnResponse>(TXN, &operation.transaction())
                .await;
            answer.map(|answer| answer.header)
        }
    };
    match header {
        Ok(header) => Outcome::Acknowledged(header.expect("every answer has a header").revision),
        Err(CallError::Broken(_) | CallError::NotTaken(_)) => Outcome::Unknown,
        Err(refused) => panic!("{operation:?} was {refused}"),
    }
}

/// Writes large values until the next puts will fill the segment.
async fn fill(options: &ServerOptions, model: &mut Model, random: &mut fastrand::Rng) {
    let client = connect(options).await;
    let LogEnd {
        used_bytes,
        size_bytes,
        ..
    } = log_end(&options.data_dir).expect("the log is readable");
    let room = size_bytes.saturating_sub(used_bytes);
    for _ in 0..room.saturating_sub(AIMED_ROOM_BYTES) / FILL_BYTES as u64 {
        let value = Value {
            stamp: random.u64(..),
            size: FILL_BYTES - 512,
        };
        let operation = Operation::Put(FILL_KEY, value);
        let Outcome::Acknowledged(revision) = send(&client, &operation).await else {
            panic!("the server broke off while nobody killed it");
        };
        assert_eq!(revision, model.revision + 1, "a put is one revision");
        model.apply(&operation, revision);
    }
}

/// Reads the whole store at one revision, page by page.
async fn read_all(client: &Client) -> (Vec<KeyValue>, i64) {
    let mut request = RangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        limit: PAGE_KEYS,
        revision: 0,
    };
    let mut kvs = Vec::new();
    loop {
        let page: RangeResponse = client.call(RANGE, &request).await.expect("a page");
        let revision = page.header.expect("every answer has a header").revision;
        assert!(
            request.revision == 0 || request.revision == revision,
            "the revision moved from {} to {revision} while nobody wrote",
            request.revision
        );
        request.revision = revision;
        kvs.extend(page.kvs);
        let (true, Some(last)) = (page.more, kvs.last()) else {
            return (kvs, revision);
        };
        // The next key in order.
        request.key = [&last.key[..], &[0]].concat().into();
    }
}

/// Reads some old writes at the revisions they were acknowledged with.
async fn check_history(client: &Client, model: &Model, random: &mut fastrand::Rng, cycle: usize) {
    for _ in 0..HISTORY_SAMPLES.min(model.history.len()) {
        let (revision, number, value) = model.history[random.usize(..model.history.len())];
        let answer = crate::read(client, &key(number), revision)
            .await
            .unwrap_or_else(|error| panic!("cycle {cycle}: key {number} at {revision}: {error}"));
        let good = answer.kvs.len() == 1
            && answer.kvs[0].mod_revision == revision
            && holds(&answer.kvs[0], value);
        assert!(
            good,
            "cycle {cycle}: key {number} at revision {revision} is another"
        );
    }
}

/// Gives up the history, so that the large values do not pile up in memory.
async fn compact(client: &Client, model: &mut Model) {
    let request = CompactionRequest {
        revision: model.revision,
        physical: true,
    };
    let answer: CompactionResponse = client.call(COMPACT, &request).await.expect("a compaction");
    let revision = answer.header.expect("every answer has a header").revision;
    assert_eq!(revision, model.revision, "a compaction is no revision");
    let floor = model.revision;
    model.history.retain(|(revision, ..)| *revision >= floor);
}

async fn connect(options: &ServerOptions) -> Client {
    Client::connect(options.client_address())
        .await
        .expect("a ready server accepts")
}

fn environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}
