//! What each operation was and came to, for the history record: requests and answers read back from their bytes.
//!
//! Reading them back keeps the load itself free of it: a run that is not recorded pays nothing.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rustls::ClientConfig;

use crate::history::{
    Answer, Base, Compare, Delete, DeleteAnswer, Entry, Event, Header, Interval, Kv, Operand,
    Operation, Outcome, Put, PutAnswer, Range, RangeAnswer, RecordWriter, Recorder, Refusal,
    Relation, Request, Txn, TxnAnswer, TxnOp, TxnOpAnswer, ValueHash, WatchEntry, WatchNotice,
    WatchRequest,
};
use crate::wire::{End, Endpoint, Method, call};
use crate::workload::messages;
use crate::workload::proto::{Content, Fields};

use super::{RunError, RunSpec};

/// gRPC's code for a call that the server did not take: certainly without effect.
const UNAVAILABLE: u32 = 14;

/// Where a record goes.
#[derive(Clone, Debug)]
pub struct RecordSpec {
    /// The file.
    pub path: PathBuf,
    /// Nobody writes while it is recorded but this run, and others whose records are judged with it: everything that is
    /// seen must then be in one of them.
    pub exclusive: bool,
    /// What its times are of.
    pub clock: RecordClock,
}

/// A clock of records of this process. Operations in records of one clock can be ordered against each other.
#[derive(Clone, Copy, Debug)]
pub struct RecordClock {
    /// What a record's header says of it.
    pub id: [u8; 16],
    /// When it showed zero.
    pub zero: Instant,
}

impl RecordClock {
    /// One that begins now, different from all others.
    #[must_use]
    pub fn start() -> RecordClock {
        RecordClock {
            id: fastrand::u128(..).to_le_bytes(),
            zero: Instant::now(),
        }
    }
}

impl RecordSpec {
    /// Begins the file.
    ///
    /// # Errors
    /// When it cannot be written; the path is named.
    pub fn create(&self) -> io::Result<RecordWriter<File>> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
        };
        let header = Header {
            clock: self.clock.id,
            exclusive: self.exclusive,
        };
        let file = File::create(&self.path).map_err(named)?;
        RecordWriter::new(file, &header).map_err(named)
    }
}

/// Starts a record with the state that is there before the load.
pub(super) fn start(
    record: &RecordSpec,
    spec: &RunSpec,
    endpoint: &Endpoint,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<RecordWriter<File>, RunError> {
    let writer = record.create()?;
    let mut everything = Vec::new();
    messages::range(&mut everything, b"\0", b"\0", 0, false);
    let state = call(endpoint, tls, Method::Range, &everything, spec.timeout).map_err(|error| {
        RunError::Preparation(format!("while the state before the load is read: {error}"))
    })?;
    let (revision, Some(Answer::Range(state))) = answer(Method::Range, &state) else {
        return Err(RunError::Preparation(
            "the state before the load cannot be read".into(),
        ));
    };
    writer.recorder().entry(&Entry::Base(Base {
        revision,
        kvs: state.kvs,
    }));
    Ok(writer)
}

/// Writes down the operations of one thread.
pub(super) struct Scribe {
    recorder: Recorder<File>,
    /// The first client of this thread; its connections follow.
    first_client: u32,
    /// Watchers that were created and have not ended: number of the stream, and id.
    living: BTreeSet<(usize, i64)>,
}

impl std::fmt::Debug for Scribe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scribe").finish_non_exhaustive()
    }
}

/// What came of an operation.
pub(super) enum Came<'a> {
    /// An answer's message.
    Answer(&'a [u8]),
    /// An end without one.
    End(&'a End),
    /// Nothing in time.
    Nothing,
}

impl Scribe {
    pub(super) fn new(recorder: Recorder<File>, first_client: u32) -> Scribe {
        Scribe {
            recorder,
            first_client,
            living: BTreeSet::new(),
        }
    }

    /// An operation is over.
    pub(super) fn over(
        &mut self,
        link: usize,
        method: Method,
        request: &[u8],
        times: (u64, u64),
        came: &Came<'_>,
    ) {
        // We wrote the request ourselves, so that it can be read.
        let Some(request) = self::request(method, request) else {
            return;
        };
        let outcome = outcome(method, came);
        self.recorder.operation(&Operation {
            client: self.first_client + link as u32,
            invoked: times.0,
            returned: times.1,
            request,
            outcome,
        });
    }
}

impl Scribe {
    /// A message of watch stream number `stream` of this thread. `asked` is the request of the watcher that the
    /// message creates, if it creates one. A refusal to create one has no living watcher's id.
    pub(super) fn watch_message(
        &mut self,
        stream: usize,
        asked: Option<&[u8]>,
        message: &[u8],
        at: u64,
    ) {
        let Some(answer) = messages::watch_answer(message) else {
            return;
        };
        let revision = answer.revision;
        let notice = if answer.cancelled.is_some() {
            self.living.remove(&(stream, answer.watcher));
            WatchNotice::Cancelled {
                compact_revision: number(message, 5),
            }
        } else if answer.created {
            self.living.insert((stream, answer.watcher));
            WatchNotice::Created {
                revision,
                request: watch_request(asked.unwrap_or_default()),
            }
        } else if answer.events.is_empty() {
            WatchNotice::Progress { revision }
        } else {
            WatchNotice::Events {
                revision,
                fragment: number(message, 7) != 0,
                events: events(message),
            }
        };
        self.watch(stream, answer.watcher, at, notice);
    }

    /// The watchers that are left on a stream are gone, at our wish or not.
    pub(super) fn watch_ended(&mut self, stream: usize, at: u64) {
        let left = (stream, i64::MIN)..=(stream, i64::MAX);
        let left: Vec<_> = self.living.range(left).copied().collect();
        for watcher in left {
            self.living.remove(&watcher);
            self.watch(stream, watcher.1, at, WatchNotice::Ended);
        }
    }

    fn watch(&mut self, stream: usize, watch: i64, at: u64, notice: WatchNotice) {
        self.recorder.entry(&Entry::Watch(WatchEntry {
            // Threads and their streams meet only after 65536 reconnections.
            stream: self.first_client << 16 | stream as u32 & 0xffff,
            watch,
            at,
            notice,
        }));
    }
}

/// The load asks for watchers from now on, without more.
fn watch_request(message: &[u8]) -> WatchRequest {
    let create = Fields::of(message).find_map(|field| match field {
        (1, Content::Bytes(create)) => Some(create),
        _ => None,
    });
    WatchRequest {
        interval: interval(create.unwrap_or_default()),
        start_revision: 0,
        prev_kv: false,
        no_put: false,
        no_delete: false,
    }
}

fn events(message: &[u8]) -> Vec<Event> {
    let event = |field: (u32, Content<'_>)| match field {
        (11, Content::Bytes(event)) => {
            let pair = Fields::of(event).find_map(|field| match field {
                (2, Content::Bytes(pair)) => Some(pair),
                _ => None,
            });
            let put = number(event, 1) == 0;
            let mut kv = kv(pair.unwrap_or_default());
            if !put {
                // Of a deletion there is a key and a revision, no value.
                kv.value = None;
            }
            Some(Event {
                put,
                kv,
                prev: None,
            })
        }
        _ => None,
    };
    Fields::of(message).filter_map(event).collect()
}

fn request(method: Method, message: &[u8]) -> Option<Request> {
    let number = || match Fields::of(message).next() {
        Some((1, Content::Number(number))) => number as i64,
        _ => 0,
    };
    Some(match method {
        Method::Put => Request::Put(put(message)),
        Method::Range => Request::Range(range(message)),
        Method::DeleteRange => Request::Delete(delete(message)),
        Method::Txn => Request::Txn(txn(message)?),
        Method::LeaseGrant => Request::LeaseGrant {
            id: 0,
            ttl: number(),
        },
        Method::LeaseRevoke => Request::LeaseRevoke(number()),
        Method::LeaseKeepAlive => Request::LeaseKeepAlive(number()),
        Method::Watch | Method::Status | Method::MemberList => return None,
    })
}

fn put(message: &[u8]) -> Put {
    let mut put = Put {
        key: Vec::new().into(),
        value: ValueHash::of(&[]),
        lease: 0,
        prev_kv: false,
    };
    for field in Fields::of(message) {
        match field {
            (1, Content::Bytes(key)) => put.key = key.to_vec().into(),
            (2, Content::Bytes(value)) => put.value = ValueHash::of(value),
            (3, Content::Number(lease)) => put.lease = lease as i64,
            _ => {}
        }
    }
    put
}

fn interval(message: &[u8]) -> Interval {
    let mut interval = Interval::one(Vec::new());
    for field in Fields::of(message) {
        match field {
            (1, Content::Bytes(key)) => interval.key = key.to_vec().into(),
            (2, Content::Bytes(end)) => interval.range_end = end.to_vec().into(),
            _ => {}
        }
    }
    interval
}

fn range(message: &[u8]) -> Range {
    let mut range = Range {
        interval: interval(message),
        limit: 0,
        revision: 0,
        serializable: false,
        count_only: false,
    };
    for field in Fields::of(message) {
        match field {
            (3, Content::Number(limit)) => range.limit = limit as i64,
            (7, Content::Number(set)) => range.serializable = set != 0,
            _ => {}
        }
    }
    range
}

fn delete(message: &[u8]) -> Delete {
    Delete {
        interval: interval(message),
        prev_kv: false,
    }
}

fn txn(message: &[u8]) -> Option<Txn> {
    let mut txn = Txn::default();
    for field in Fields::of(message) {
        match field {
            (1, Content::Bytes(compare)) => txn.compares.push(self::compare(compare)),
            (2, Content::Bytes(op)) => txn.success.push(txn_op(op)?),
            (3, Content::Bytes(op)) => txn.failure.push(txn_op(op)?),
            _ => {}
        }
    }
    Some(txn)
}

/// The load compares modification revisions for equality and nothing else.
fn compare(message: &[u8]) -> Compare {
    let mut compare = Compare {
        key: Vec::new().into(),
        relation: Relation::Equal,
        operand: Operand::Mod(0),
    };
    for field in Fields::of(message) {
        match field {
            (3, Content::Bytes(key)) => compare.key = key.to_vec().into(),
            (6, Content::Number(revision)) => compare.operand = Operand::Mod(revision as i64),
            _ => {}
        }
    }
    compare
}

fn txn_op(message: &[u8]) -> Option<TxnOp> {
    match Fields::of(message).next()? {
        (1, Content::Bytes(range)) => Some(TxnOp::Range(self::range(range))),
        (2, Content::Bytes(put)) => Some(TxnOp::Put(self::put(put))),
        (3, Content::Bytes(delete)) => Some(TxnOp::Delete(self::delete(delete))),
        _ => None,
    }
}

/// What is certain of an operation. Only the server's own status, or that it did not take the call, say that there was
/// no effect; what this side makes of a reset or of a proxy's answer does not.
fn outcome(method: Method, came: &Came<'_>) -> Outcome {
    match came {
        Came::Answer(message) => match answer(method, message) {
            (revision, Some(answer)) => Outcome::Ok { revision, answer },
            (_, None) => Outcome::Unknown,
        },
        Came::End(End::Status(code, message)) => Outcome::of_status(*code, message),
        Came::End(End::NotTaken(_)) => Outcome::Refused(Refusal::Code(UNAVAILABLE)),
        Came::End(End::Ok | End::NoStatus(..) | End::Broken(_)) | Came::Nothing => Outcome::Unknown,
    }
}

/// The header's revision and the rest; `None` when the message cannot be read.
fn answer(method: Method, message: &[u8]) -> (i64, Option<Answer>) {
    let mut fields = Fields::of(message);
    let mut revision = 0;
    for field in &mut fields {
        if let (1, Content::Bytes(header)) = field {
            revision = number(header, 3);
        }
    }
    if fields.broken {
        return (0, None);
    }
    let answer = match method {
        Method::Put => Some(Answer::Put(PutAnswer::default())),
        Method::Range => Some(Answer::Range(range_answer(message))),
        Method::DeleteRange => Some(Answer::Delete(delete_answer(message))),
        Method::Txn => txn_answer(message).map(Answer::Txn),
        Method::LeaseGrant => Some(Answer::LeaseGrant {
            id: number(message, 2),
            ttl: number(message, 3),
        }),
        Method::LeaseRevoke => Some(Answer::LeaseRevoke),
        Method::LeaseKeepAlive => Some(Answer::LeaseKeepAlive(number(message, 3))),
        Method::Watch | Method::Status | Method::MemberList => None,
    };
    (revision, answer)
}

/// The number in field `wanted`; zero when it is absent.
fn number(message: &[u8], wanted: u32) -> i64 {
    let found = Fields::of(message).find_map(|field| match field {
        (field, Content::Number(number)) if field == wanted => Some(number as i64),
        _ => None,
    });
    found.unwrap_or(0)
}

fn range_answer(message: &[u8]) -> RangeAnswer {
    let mut answer = RangeAnswer::default();
    for field in Fields::of(message) {
        match field {
            (2, Content::Bytes(pair)) => answer.kvs.push(kv(pair)),
            (3, Content::Number(more)) => answer.more = more != 0,
            (4, Content::Number(count)) => answer.count = count as i64,
            _ => {}
        }
    }
    answer
}

fn delete_answer(message: &[u8]) -> DeleteAnswer {
    DeleteAnswer {
        deleted: number(message, 2),
        prev_kvs: Vec::new(),
    }
}

fn txn_answer(message: &[u8]) -> Option<TxnAnswer> {
    let mut answer = TxnAnswer::default();
    for field in Fields::of(message) {
        match field {
            (2, Content::Number(succeeded)) => answer.succeeded = succeeded != 0,
            (3, Content::Bytes(op)) => answer.answers.push(match Fields::of(op).next()? {
                (1, Content::Bytes(range)) => TxnOpAnswer::Range(range_answer(range)),
                (2, Content::Bytes(_)) => TxnOpAnswer::Put(PutAnswer::default()),
                (3, Content::Bytes(delete)) => TxnOpAnswer::Delete(delete_answer(delete)),
                _ => return None,
            }),
            _ => {}
        }
    }
    Some(answer)
}

fn kv(message: &[u8]) -> Kv {
    let mut kv = Kv {
        key: Vec::new().into(),
        create_revision: number(message, 2),
        mod_revision: number(message, 3),
        version: number(message, 4),
        // An empty value is absent on the wire.
        value: Some(ValueHash::of(&[])),
        lease: number(message, 6),
    };
    for field in Fields::of(message) {
        match field {
            (1, Content::Bytes(key)) => kv.key = key.to_vec().into(),
            (5, Content::Bytes(value)) => kv.value = Some(ValueHash::of(value)),
            _ => {}
        }
    }
    kv
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;

    use crate::history::{Checker, RecordReader};

    use super::*;

    /// A message of a watch stream: watcher, created, cancelled, header's revision; all below 128.
    fn notice(watcher: i64, created: u8, cancelled: u8, revision: u8) -> Vec<u8> {
        let mut message = vec![0x0a, 2, 0x18, revision, 0x10];
        let mut rest = watcher.cast_unsigned();
        while rest >= 0x80 {
            message.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        message.push(rest as u8);
        message.extend_from_slice(&[0x18, created, 0x20, cancelled]);
        message
    }

    /// Goal: a watcher that the server cancelled or refused is not said to end again, so that nothing is wrong with it.
    #[test]
    fn only_living_watchers_end() {
        let file = tempfile::tempfile().expect("a file");
        let header = Header {
            clock: [1; 16],
            exclusive: true,
        };
        let writer = RecordWriter::new(file, &header).expect("the header");
        let mut scribe = Scribe::new(writer.recorder(), 3);
        let base = Base {
            revision: 1,
            kvs: Vec::new(),
        };
        scribe.recorder.entry(&Entry::Base(base));
        for watcher in 0..3 {
            scribe.watch_message(0, Some(&[]), &notice(watcher, 1, 0, 1), 10);
        }
        scribe.watch_message(1, Some(&[]), &notice(0, 1, 0, 1), 11);
        // Refused, and cancelled.
        scribe.watch_message(0, Some(&[]), &notice(-1, 1, 1, 1), 12);
        scribe.watch_message(0, None, &notice(1, 0, 1, 1), 13);
        scribe.watch_ended(0, 14);
        scribe.watch_ended(0, 15);
        scribe.watch_ended(1, 16);
        drop(scribe);
        let mut file = writer.finish().expect("the end");
        file.rewind().expect("a file");
        let mut reader = RecordReader::new(file).expect("a record");
        let mut checker = Checker::new();
        let source = checker.source(&reader.header());
        let mut ended = Vec::new();
        while let Some(entry) = reader.read().expect("an entry") {
            if let Entry::Watch(WatchEntry {
                stream,
                watch,
                at,
                notice: WatchNotice::Ended,
            }) = &entry
            {
                ended.push((*stream & 0xffff, *watch, *at));
            }
            checker.add(source, entry);
        }
        assert_eq!(ended, [(0, 0, 14), (0, 2, 14), (1, 0, 16)]);
        let report = checker.check().expect("a base");
        assert!(report.is_clean(), "{}", report.violations[0]);
    }

    /// Goal: only the server's own word makes an operation certainly without effect.
    #[test]
    fn certain_outcomes() {
        let check = |came: Came<'_>, expected: Outcome| {
            assert_eq!(outcome(Method::Put, &came), expected);
        };
        for code in [7, 8, 12, 16] {
            let text = || "no".to_owned();
            let refused = Outcome::Refused(Refusal::Code(code));
            check(Came::End(&End::Status(code, text())), refused);
            check(Came::End(&End::NoStatus(code, text())), Outcome::Unknown);
        }
        let not_taken = Outcome::Refused(Refusal::Code(UNAVAILABLE));
        check(Came::End(&End::NotTaken("farewell".into())), not_taken);
        check(Came::End(&End::Broken("gone".into())), Outcome::Unknown);
        check(Came::Nothing, Outcome::Unknown);
        // A put's answer with revision 5 in its header.
        let answered = Outcome::Ok {
            revision: 5,
            answer: Answer::Put(PutAnswer::default()),
        };
        check(Came::Answer(&[0x0a, 2, 0x18, 5]), answered);
        check(Came::Answer(&[0x0a, 9]), Outcome::Unknown);
    }
}
