//! The record of what all clients did while members were hurt, and its judgement at the end.
//!
//! A mixed load (puts, reads, ranges, swaps, deletions of few keys) runs beside the trials, from before the first fault
//! until after the last healing, and writes down every operation. The trials' own puts and what is read back of them go into
//! a second record of the same clock. Together they hold every write of the store, so that the checker needs
//! to excuse nothing. Must never leave out a write that was sent. The load runs on a thread of its own.

use std::fs::File;
use std::io::{self, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kontiki_harness::messages::{RangeRequest, RangeResponse};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::pages::Page;
use super::stream::{Did, Record, key, value};
use super::verify::EXAMPLES_MAX;
use crate::history::{
    Answer, Checker, Close, Entry, Interval, Kv, Operation, Outcome, Put, PutAnswer, Range,
    RangeAnswer, RecordError, RecordReader, RecordWriter, Recorder, Report, Request, Unjudgeable,
    ValueHash,
};
use crate::result::RunResult;
use crate::run::{RecordClock, RecordSpec, RunError, RunSpec, WRONG_ANSWER, run_told};
use crate::shape::Shape;
use crate::wire::{Endpoint, TlsOptions};
use crate::workload::{KeyOrder, KeySpec, Kind, ValueSpec, WorkloadSpec};

/// What the load's keys begin with.
pub(super) const LOAD_PREFIX: &str = "kontiki-load/history/";
/// The record of the load, in the directory of the history.
const LOAD_FILE: &str = "load.record";
/// The record of the trials' puts.
const TRIALS_FILE: &str = "trials.record";
/// How often each operation is chosen: writes and reads of all kinds, and deletions that keep keys coming and going.
const MIX: [(Kind, u32); 5] = [
    (Kind::Put, 30),
    (Kind::Get, 30),
    (Kind::Txn, 20),
    (Kind::Delete, 15),
    (Kind::Range, 5),
];
/// Keys of one range.
const RANGE_KEYS: u64 = 20;
/// Connections to each member.
const CONNECTIONS_PER_MEMBER: usize = 2;
/// Longer than any run: the load ends when the trials do.
const DURATION_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// Patience with members before the load begins.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// How long an operation that begins after the last healing may take, before the load is ended.
const LAST_WRITE_TIME: Duration = Duration::from_secs(1);
/// One judgement or revision in so many acknowledged writes may be left open; beyond, too little was judged.
const LEFT_OPEN_IN_WRITES: u64 = 100;
/// So many are no matter, however few writes there were: a leader that goes leaves some, also where writes are slow.
const LEFT_OPEN_ALWAYS: u64 = 100;
/// Numbers of the trials' clients begin here; those of the load are small.
const CLIENTS_FROM: u32 = 1 << 20;

/// The load that is recorded beside the trials.
#[derive(Clone, Debug)]
pub struct HistorySpec {
    /// Where the records go. Made when it is not there.
    pub directory: PathBuf,
    /// Operations in flight, at least one for each member.
    pub in_flight: usize,
    /// Different keys.
    pub keys: u64,
}

/// What the judgement of the records found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Operations that were recorded and judged.
    pub operations: u64,
    /// Of them, writes that were acknowledged.
    pub writes: u64,
    /// Of them, writes without an answer.
    pub unanswered: u64,
    /// Of these, how many certainly took effect.
    pub settled: u64,
    /// Revisions that one of several unanswered writes has made, and which one cannot be told.
    pub unsettled_revisions: u64,
    /// Judgements that could have gone either way because of these.
    pub unjudged: u64,
    /// Breaches of a rule of linearizability, lost acknowledged writes among them.
    pub violations: u64,
    /// Answers that the load itself found wrong while it ran.
    pub wrong_answers: u64,
    /// The first violations, in words.
    pub examples: Vec<String>,
    /// Why this says less than it should, although it may have found nothing wrong.
    #[serde(default)]
    pub gaps: Vec<String>,
}

/// Why there is no judgement.
#[derive(Debug, Error)]
pub enum HistoryError {
    /// A file, or a thread.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The load could not begin, or its record could not be written.
    #[error("the recorded load: {0}")]
    Load(#[from] RunError),
    /// What was written cannot be read.
    #[error("{path}: {error}")]
    Record {
        /// Which record.
        path: String,
        /// What is wrong with it.
        error: RecordError,
    },
    /// What was written has no end, although its writers have ended.
    #[error("{path} has no end")]
    Open {
        /// Which record.
        path: String,
    },
    /// The records do not say where they begin.
    #[error(transparent)]
    Unjudgeable(#[from] Unjudgeable),
}

/// A record that is being written.
#[derive(Debug)]
pub(super) struct Chronicle {
    directory: PathBuf,
    clock: RecordClock,
    trials: Scribe,
    load: Load,
    /// Patience with one operation.
    patience: Duration,
    /// When all members served after the last healing.
    healed: Option<Instant>,
    /// Whether the load has had the time to write something after it.
    awaited: bool,
    /// What the load said of itself when it ended.
    ended: Ended,
}

/// How a load has ended.
#[derive(Debug, Default)]
struct Ended {
    /// Answers that it found wrong.
    wrong_answers: u64,
    /// Whether it did so before it was asked to.
    by_itself: bool,
    /// Why before its time; always there, as its time is never up.
    why: Option<String>,
}

/// The load beside the trials. Dropping it ends it.
#[derive(Debug)]
struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Ended, RunError>>>,
}

/// The trials' record.
struct Scribe {
    writer: RecordWriter<File>,
    recorder: Recorder<File>,
}

impl std::fmt::Debug for Scribe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scribe").finish_non_exhaustive()
    }
}

impl Chronicle {
    /// Starts the load, and returns when it is under way.
    pub(super) fn start(
        spec: &HistorySpec,
        addresses: &[SocketAddr],
        patience: Duration,
        seed: u64,
    ) -> Result<Chronicle, HistoryError> {
        let named = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("{}: {error}", spec.directory.display()),
            )
        };
        std::fs::create_dir_all(&spec.directory).map_err(named)?;
        let clock = RecordClock::start();
        let record = |name: &str| RecordSpec {
            path: spec.directory.join(name),
            exclusive: true,
            clock,
        };
        let writer = record(TRIALS_FILE).create()?;
        let recorder = writer.recorder();
        let stop = Arc::new(AtomicBool::new(false));
        let run = run_spec(spec, addresses, patience, seed, record(LOAD_FILE));
        let (loading, begun) = mpsc::sync_channel(1);
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || {
                run_told(&run, &stopped, || {
                    // Nobody listens when the caller has given up.
                    let _ = loading.send(());
                })
                .map(Ended::from)
            })?;
        let mut load = Load {
            stop,
            thread: Some(thread),
        };
        if begun.recv().is_err() {
            // It has ended without having begun.
            load.end()?;
        }
        Ok(Chronicle {
            directory: spec.directory.clone(),
            clock,
            trials: Scribe { writer, recorder },
            load,
            patience,
            healed: None,
            awaited: false,
            ended: Ended::default(),
        })
    }

    /// The puts of a trial. Its reads are judged by themselves.
    pub(super) fn puts(&mut self, records: &[Record], prefix: &str, value_bytes: usize) {
        for record in records {
            let Did::Put(number) = record.did else {
                continue;
            };
            let (returned, outcome) = match record.acknowledged {
                Some((at, revision)) => (
                    at,
                    Outcome::Ok {
                        revision,
                        answer: Answer::Put(PutAnswer::default()),
                    },
                ),
                None => (record.invoked, Outcome::Unknown),
            };
            let operation = Operation {
                client: CLIENTS_FROM + record.endpoint as u32,
                invoked: self.nanos(record.invoked),
                returned: self.nanos(returned),
                request: Request::Put(Put {
                    key: key(prefix, number).into(),
                    value: ValueHash::of(&value(number, value_bytes)),
                    lease: 0,
                    prev_kv: false,
                }),
                outcome,
            };
            self.trials.recorder.operation(&operation);
        }
    }

    /// Linearizable reads of what is there.
    pub(super) fn pages(&mut self, pages: &[Page]) {
        for page in pages {
            self.range(&page.request, &page.answer, page.times);
        }
    }

    /// A linearizable range that was answered, from its sending to its answer.
    fn range(&mut self, request: &RangeRequest, answer: &RangeResponse, times: (Instant, Instant)) {
        let kv = |kv: &kontiki_harness::messages::KeyValue| Kv {
            key: kv.key.clone(),
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            value: Some(ValueHash::of(&kv.value)),
            lease: kv.lease,
        };
        let operation = Operation {
            client: CLIENTS_FROM - 1,
            invoked: self.nanos(times.0),
            returned: self.nanos(times.1),
            request: Request::Range(Range {
                interval: Interval {
                    key: request.key.clone(),
                    range_end: request.range_end.clone(),
                },
                limit: request.limit,
                revision: request.revision,
                serializable: false,
                count_only: false,
            }),
            outcome: Outcome::Ok {
                revision: answer.header.map_or(0, |header| header.revision),
                answer: Answer::Range(RangeAnswer {
                    kvs: answer.kvs.iter().map(kv).collect(),
                    more: answer.more,
                    count: answer.count,
                }),
            },
        };
        self.trials.recorder.operation(&operation);
    }

    /// All members serve again, from now on until the next fault.
    pub(super) fn healed(&mut self) {
        self.healed = Some(Instant::now());
    }

    /// Gives every operation that was on its way at the last healing the time to end, and a next one to be answered: the
    /// load has to show that it still writes.
    pub(super) fn await_last_writes(&mut self) {
        self.awaited = true;
        if let Some(healed) = self.healed {
            let until = healed + self.patience + LAST_WRITE_TIME;
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
    }

    /// Ends the load. What was on its way has an end in the record afterwards.
    pub(super) fn end_load(&mut self) -> Result<(), HistoryError> {
        self.ended = self.load.end()?;
        Ok(())
    }

    /// Judges everything, once the load has ended.
    pub(super) fn judge(self) -> Result<History, HistoryError> {
        let healed = self.healed.filter(|_| self.awaited);
        let healed = healed.map(|at| self.nanos(at));
        let Scribe { writer, recorder } = self.trials;
        drop(recorder);
        writer.finish()?;
        let mut checker = Checker::new();
        let mut last_write = None;
        for name in [LOAD_FILE, TRIALS_FILE] {
            read(&self.directory.join(name), &mut checker, |operation| {
                if name == LOAD_FILE && is_acknowledged_put(operation) {
                    last_write = last_write.max(Some(operation.invoked));
                }
            })?;
        }
        let report = checker.check()?;
        let mut gaps = Vec::new();
        if self.ended.by_itself {
            let why = self.ended.why.as_deref().unwrap_or("it does not say why");
            gaps.push(format!("the load ended by itself: {why}"));
        }
        if healed.is_some() && last_write < healed {
            gaps.push("the load wrote nothing after the last healing".to_owned());
        }
        gaps.extend(left_open(&report));
        let examples = report.violations.iter().take(EXAMPLES_MAX);
        Ok(History {
            operations: report.operations,
            writes: report.writes,
            unanswered: report.unknown_writes,
            settled: report.unknown_settled,
            unsettled_revisions: report.revisions_unsettled,
            unjudged: report.unjudged,
            violations: report.violation_count,
            wrong_answers: self.ended.wrong_answers,
            examples: examples.map(ToString::to_string).collect(),
            gaps,
        })
    }

    fn nanos(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.clock.zero);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Load {
    fn end(&mut self) -> Result<Ended, RunError> {
        let Some(thread) = self.thread.take() else {
            return Ok(Ended::default());
        };
        // It sets this flag itself when it has lost the servers.
        let stopped_itself = self.stop.swap(true, Ordering::Relaxed);
        let ended_itself = stopped_itself || thread.is_finished();
        let ended = thread.join().expect("the load does not panic")?;
        Ok(Ended {
            by_itself: ended_itself,
            ..ended
        })
    }
}

impl From<RunResult> for Ended {
    fn from(result: RunResult) -> Ended {
        let wrong = result
            .operations
            .iter()
            .filter_map(|operation| operation.errors.get(WRONG_ANSWER));
        Ended {
            wrong_answers: wrong.map(|error| error.count).sum(),
            by_itself: false,
            why: result.partial,
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // What came of it no longer matters to anybody.
        let _ = self.end();
    }
}

/// Whether more than may be is left open by writes without an answer.
fn left_open(report: &Report) -> Option<String> {
    let open = report.unjudged + report.revisions_unsettled;
    let open_max = LEFT_OPEN_ALWAYS.max(report.writes / LEFT_OPEN_IN_WRITES);
    (open > open_max).then(|| {
        let (unjudged, unsettled, writes) =
            (report.unjudged, report.revisions_unsettled, report.writes);
        format!(
            "{unjudged} judgements and {unsettled} revisions are left open, with {writes} acknowledged writes"
        )
    })
}

fn is_acknowledged_put(operation: &Operation) -> bool {
    matches!(operation.request, Request::Put(_)) && matches!(operation.outcome, Outcome::Ok { .. })
}

/// Gives a whole record to the checker, and each operation of it to `seen` before.
fn read(
    path: &Path,
    checker: &mut Checker,
    mut seen: impl FnMut(&Operation),
) -> Result<(), HistoryError> {
    let shown = || path.display().to_string();
    let wrong = |error| HistoryError::Record {
        path: shown(),
        error,
    };
    let file = File::open(path).map_err(|error| wrong(error.into()))?;
    let mut record = RecordReader::new(BufReader::new(file)).map_err(wrong)?;
    let source = checker.source(&record.header());
    while let Some(entry) = record.read().map_err(wrong)? {
        if let Entry::Operation(operation) = &entry {
            seen(operation);
        }
        checker.add(source, entry);
    }
    match record.close() {
        // Its writer has ended it: an open one would be excused what it does not hold.
        Some(Close::Closed) => Ok(()),
        Some(Close::Open) | None => Err(HistoryError::Open { path: shown() }),
    }
}

fn run_spec(
    spec: &HistorySpec,
    addresses: &[SocketAddr],
    patience: Duration,
    seed: u64,
    record: RecordSpec,
) -> RunSpec {
    let connections = CONNECTIONS_PER_MEMBER * addresses.len();
    let keys = KeySpec {
        count: spec.keys,
        size_bytes: 0,
        prefix: LOAD_PREFIX.to_owned(),
        order: KeyOrder::Uniform,
    };
    let values = ValueSpec {
        size_min: 16,
        size_max: 64,
    };
    RunSpec {
        label: "history".to_owned(),
        command: Vec::new(),
        endpoints: addresses.iter().copied().map(Endpoint::from).collect(),
        tls: TlsOptions::default(),
        leader_only: false,
        workload: WorkloadSpec {
            range_keys: RANGE_KEYS,
            fill: true,
            ..WorkloadSpec::new(MIX.to_vec(), keys, values, seed)
        },
        shape: Shape::Closed {
            in_flight: spec.in_flight.max(addresses.len()),
        },
        connections: connections.min(spec.in_flight.max(addresses.len())),
        threads: 1,
        warm_up: Duration::ZERO,
        duration: DURATION_MAX,
        operations_max: None,
        timeout: patience,
        send_timeout: false,
        connect_timeout: CONNECT_TIME_MAX,
        // All members may be gone at once; what counts is the history.
        patience: DURATION_MAX,
        server_pids: Vec::new(),
        record: Some(record),
        pulse: None,
        progress: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Base;
    use kontiki_harness::messages::{KeyValue, ResponseHeader};

    const PREFIX: &str = "t/";

    fn put(number: u64, revision: Option<i64>) -> Record {
        let now = Instant::now();
        Record {
            did: Did::Put(number),
            endpoint: 0,
            probe: true,
            invoked: now,
            acknowledged: revision.map(|revision| (now, revision)),
            found: None,
        }
    }

    /// What is there of put `number`.
    fn kv(number: u64, revision: i64) -> KeyValue {
        KeyValue {
            key: key(PREFIX, number).into(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            value: value(number, 8),
            lease: 0,
        }
    }

    /// With an empty record of the load in `home`, which `finish` ends or leaves open.
    fn chronicle(home: &Path, load: Load, finish: bool) -> Chronicle {
        let clock = RecordClock::start();
        let create = |name: &str| {
            let spec = RecordSpec {
                path: home.join(name),
                exclusive: true,
                clock,
            };
            spec.create().expect("a file")
        };
        let record = create(LOAD_FILE);
        record.recorder().entry(&Entry::Base(Base {
            revision: 1,
            kvs: Vec::new(),
        }));
        if finish {
            record.finish().expect("written");
        }
        let writer = create(TRIALS_FILE);
        Chronicle {
            directory: home.to_owned(),
            clock,
            trials: Scribe {
                recorder: writer.recorder(),
                writer,
            },
            load,
            patience: Duration::ZERO,
            healed: None,
            awaited: true,
            ended: Ended::default(),
        }
    }

    fn no_load() -> Load {
        Load {
            stop: Arc::new(AtomicBool::new(false)),
            thread: None,
        }
    }

    fn check(puts: &[Record], kvs: Vec<KeyValue>, revision: i64, violated: bool) -> History {
        let home = tempfile::tempdir().expect("a directory");
        let mut chronicle = chronicle(home.path(), no_load(), true);
        chronicle.puts(puts, PREFIX, 8);
        let request = RangeRequest {
            key: "t/".into(),
            range_end: "t0".into(),
            ..RangeRequest::default()
        };
        let header = ResponseHeader {
            revision,
            ..ResponseHeader::default()
        };
        let answer = RangeResponse {
            header: Some(header),
            count: kvs.len() as i64,
            kvs,
            more: false,
        };
        let now = Instant::now();
        chronicle.range(&request, &answer, (now, Instant::now()));
        let history = chronicle.judge().expect("records that can be read");
        assert_eq!(history.violations > 0, violated, "{history:?}");
        assert_eq!(history.violations == 0, history.examples.is_empty());
        history
    }

    /// Goal: the trials' puts and what is read back of them are judged as a whole: one that is gone, one at another
    /// revision, a writer that nobody knows and a read that goes back are violations; an unanswered put that is
    /// there, or is not, is none.
    #[test]
    fn puts_and_what_is_there() {
        let acknowledged = [put(0, Some(2)), put(1, Some(3))];
        let both = || vec![kv(0, 2), kv(1, 3)];
        let history = check(&acknowledged, both(), 3, false);
        assert_eq!((history.operations, history.writes), (3, 2));
        check(&acknowledged, vec![kv(1, 3)], 3, true);
        check(&acknowledged, vec![kv(0, 2), kv(1, 4)], 4, true);
        check(&acknowledged, vec![kv(0, 2)], 2, true);
        check(&acknowledged[..1], both(), 3, true);
        let unanswered = [put(0, Some(2)), put(1, None)];
        let history = check(&unanswered, both(), 3, false);
        assert_eq!((history.unanswered, history.settled), (1, 1));
        let history = check(&unanswered, vec![kv(0, 2)], 2, false);
        assert_eq!((history.unanswered, history.settled), (1, 0));
    }

    /// Goal: a load that ends before it is asked to, and one that writes nothing after the last healing, are gaps of the
    /// history: the checker cannot see what nobody wrote down.
    #[test]
    fn loads_that_end_early() {
        let check = |told: bool, why: &str, healed: bool, expected: &[&str]| {
            let home = tempfile::tempdir().expect("a directory");
            let stop = Arc::new(AtomicBool::new(told));
            let why = Some(why.to_owned());
            let load = Load {
                stop: Arc::clone(&stop),
                thread: Some(std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        std::thread::yield_now();
                    }
                    Ok(Ended {
                        why,
                        ..Ended::default()
                    })
                })),
            };
            let mut chronicle = chronicle(home.path(), load, true);
            if healed {
                chronicle.healed();
            }
            chronicle.end_load().expect("it has a result");
            let history = chronicle.judge().expect("records that can be read");
            assert_eq!(history.gaps, expected);
        };
        check(false, "interrupted", false, &[]);
        let lost = "the load ended by itself: the servers are gone";
        check(true, "the servers are gone", false, &[lost]);
        let idle = "the load wrote nothing after the last healing";
        check(false, "interrupted", true, &[idle]);
    }

    /// Goal: a record without its end is no whole history, whatever is found in it.
    #[test]
    fn open_records_are_refused() {
        let home = tempfile::tempdir().expect("a directory");
        let chronicle = chronicle(home.path(), no_load(), false);
        let refused = chronicle.judge().expect_err("the record is open");
        assert!(matches!(refused, HistoryError::Open { .. }), "{refused}");
    }

    /// Goal: few judgements may be left open, a share of all is a gap.
    #[test]
    fn little_is_left_open() {
        let check = |writes: u64, unjudged: u64, revisions_unsettled: u64, gap: bool| {
            let report = Report {
                writes,
                unjudged,
                revisions_unsettled,
                ..Report::default()
            };
            assert_eq!(left_open(&report).is_some(), gap, "{report:?}");
        };
        check(0, 50, 50, false);
        check(10, 60, 41, true);
        check(100_000, 600, 400, false);
        check(100_000, 601, 400, true);
    }
}
