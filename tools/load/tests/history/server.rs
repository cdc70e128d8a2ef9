//! Records of real servers: clients and watches of a small session, recorded as a generator would.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use fastrand::Rng;
use kontiki_harness::client::{CallError, Client, block_on};
use kontiki_harness::server::{Server, ServerOptions};
use kontiki_load::history::{
    Answer, Base, Compare, Delete, DeleteAnswer, Entry, Event, Interval, Kv, Operand, Operation,
    Outcome, Put, PutAnswer, Range, RangeAnswer, RecordWriter, Recorder, Relation, Request, Txn,
    TxnAnswer, TxnOp, TxnOpAnswer, ValueHash, WATCH_ALL, WatchEntry, WatchNotice, WatchRequest,
};

use crate::wire;

const CLIENTS: u32 = 4;
const OPERATIONS: usize = 150;
const KEYS: usize = 6;

type Shared = Rc<RefCell<Recorder<Vec<u8>>>>;

/// Runs a session against a server of this binary, and gives the record's bytes.
pub(crate) fn record(program: &Path, watches: bool) -> Vec<u8> {
    let home = tempfile::tempdir().expect("a directory");
    let options = ServerOptions::new(program, home.path()).expect("free ports");
    let _server = Server::start(&options).expect("it starts");
    let writer = RecordWriter::new(Vec::new(), &crate::HEADER).expect("a Vec takes everything");
    let recorder = Rc::new(RefCell::new(writer.recorder()));
    block_on(session(
        options.client_address(),
        Rc::clone(&recorder),
        watches,
    ));
    drop(
        Rc::try_unwrap(recorder)
            .map_err(|_| ())
            .expect("all tasks are over"),
    );
    writer.finish().expect("no recorder is left")
}

async fn session(address: SocketAddr, recorder: Shared, watches: bool) {
    let clock = Instant::now();
    let client = Client::connect(address).await.expect("it listens");
    let all = range(Interval::all());
    let Outcome::Ok {
        revision,
        answer: Answer::Range(answer),
    } = call(&client, &all).await
    else {
        panic!("the base cannot be read");
    };
    let base = Base {
        revision,
        kvs: answer.kvs,
    };
    recorder.borrow_mut().entry(&Entry::Base(base));
    let mut watching = Vec::new();
    if watches {
        for stream in 0..2 {
            watching.push(watch(address, stream, clock, Rc::clone(&recorder)).await);
        }
    }
    let working: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::task::spawn_local(work(address, number, clock, Rc::clone(&recorder))))
        .collect();
    for task in working {
        task.await.expect("no client panics");
    }
    let revision = operate(&client, CLIENTS, clock, &recorder, all).await;
    for (end, task) in watching {
        // The watches are over once they have seen everything.
        end.send(revision.expect("the dump is answered"))
            .expect("it waits");
        task.await.expect("no watch panics");
    }
}

async fn work(address: SocketAddr, number: u32, clock: Instant, recorder: Shared) {
    let mut rng = Rng::with_seed(u64::from(number));
    let client = Client::connect(address).await.expect("it listens");
    let mut newest = 0;
    for _ in 0..OPERATIONS {
        let request = request(newest, &mut rng);
        let revision = operate(&client, number, clock, &recorder, request).await;
        newest = revision.unwrap_or(newest);
    }
}

async fn operate(
    client: &Client,
    number: u32,
    clock: Instant,
    recorder: &Shared,
    request: Request,
) -> Option<i64> {
    let now = || u64::try_from(clock.elapsed().as_nanos()).expect("minutes");
    let invoked = now();
    let outcome = call(client, &request).await;
    let revision = match &outcome {
        Outcome::Ok { revision, .. } => Some(*revision),
        Outcome::Refused(_) | Outcome::Unknown => None,
    };
    recorder.borrow_mut().operation(&Operation {
        client: number,
        invoked,
        returned: now(),
        request,
        outcome,
    });
    revision
}

fn key(rng: &mut Rng) -> Bytes {
    crate::model::key(rng.usize(..KEYS))
}

fn range(interval: Interval) -> Request {
    Request::Range(Range {
        interval,
        limit: 0,
        revision: 0,
        serializable: false,
        count_only: false,
    })
}

fn put(rng: &mut Rng) -> Put {
    Put {
        key: key(rng),
        value: value(rng.u8(..20)).1,
        lease: 0,
        prev_kv: rng.bool(),
    }
}

/// One of a few values, and its hash.
fn value(number: u8) -> (Bytes, ValueHash) {
    let value = Bytes::from(format!("value {number}"));
    let hash = ValueHash::of(&value);
    (value, hash)
}

/// The value of a hash.
fn value_of(hash: ValueHash) -> Bytes {
    let value = (0..20).map(value).find(|(_, each)| *each == hash);
    value.expect("only these are written").0
}

fn request(newest: i64, rng: &mut Rng) -> Request {
    let interval = match rng.u8(..3) {
        0 => Interval {
            key: key(rng),
            range_end: Bytes::from_static(b"\0"),
        },
        1 => Interval {
            key: crate::model::key(0),
            range_end: key(rng),
        },
        _ => Interval::one(key(rng)),
    };
    match rng.u8(..12) {
        0..=3 => Request::Put(put(rng)),
        4..=7 => Request::Range(Range {
            interval,
            limit: rng.i64(..4),
            revision: if rng.u8(..4) == 0 { newest } else { 0 },
            serializable: rng.u8(..4) == 0,
            count_only: rng.u8(..8) == 0,
        }),
        8 => Request::Delete(Delete {
            interval,
            prev_kv: rng.bool(),
        }),
        _ => {
            let compared = key(rng);
            let mut written = put(rng);
            written.key = compared.clone();
            let other = Put {
                key: Bytes::from_static(b"other"),
                ..put(rng)
            };
            let Request::Range(read) = range(interval) else {
                unreachable!("range makes one")
            };
            Request::Txn(Txn {
                compares: vec![Compare {
                    key: compared,
                    relation: if rng.bool() {
                        Relation::Greater
                    } else {
                        Relation::Equal
                    },
                    operand: Operand::Mod(rng.i64(..=newest)),
                }],
                success: vec![
                    TxnOp::Put(written),
                    TxnOp::Put(other),
                    TxnOp::Range(read.clone()),
                ],
                failure: vec![
                    TxnOp::Range(read),
                    TxnOp::Delete(Delete {
                        interval: Interval::one(key(rng)),
                        prev_kv: true,
                    }),
                ],
            })
        }
    }
}

fn kv(kv: wire::KeyValue, content: bool) -> Kv {
    Kv {
        key: kv.key,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: content.then(|| ValueHash::of(&kv.value)),
        lease: kv.lease,
    }
}

fn kvs(kvs: Vec<wire::KeyValue>) -> Vec<Kv> {
    kvs.into_iter().map(|each| kv(each, true)).collect()
}

fn wire_put(put: &Put) -> wire::PutRequest {
    wire::PutRequest {
        key: put.key.clone(),
        value: value_of(put.value),
        prev_kv: put.prev_kv,
    }
}

fn wire_range(range: &Range) -> wire::RangeRequest {
    wire::RangeRequest {
        key: range.interval.key.clone(),
        range_end: range.interval.range_end.clone(),
        limit: range.limit,
        revision: range.revision,
        serializable: range.serializable,
        count_only: range.count_only,
    }
}

fn wire_delete(delete: &Delete) -> wire::DeleteRangeRequest {
    wire::DeleteRangeRequest {
        key: delete.interval.key.clone(),
        range_end: delete.interval.range_end.clone(),
        prev_kv: delete.prev_kv,
    }
}

fn wire_ops(ops: &[TxnOp]) -> Vec<wire::RequestOp> {
    let mut all = Vec::new();
    for op in ops {
        let mut request = wire::RequestOp::default();
        match op {
            TxnOp::Put(put) => request.put = Some(wire_put(put)),
            TxnOp::Range(range) => request.range = Some(wire_range(range)),
            TxnOp::Delete(delete) => request.delete = Some(wire_delete(delete)),
        }
        all.push(request);
    }
    all
}

fn put_answer(answer: wire::PutResponse) -> PutAnswer {
    PutAnswer {
        prev: answer.prev_kv.map(|each| kv(each, true)),
    }
}

fn range_answer(answer: wire::RangeResponse) -> RangeAnswer {
    RangeAnswer {
        kvs: kvs(answer.kvs),
        more: answer.more,
        count: answer.count,
    }
}

fn delete_answer(answer: wire::DeleteRangeResponse) -> DeleteAnswer {
    DeleteAnswer {
        deleted: answer.deleted,
        prev_kvs: kvs(answer.prev_kvs),
    }
}

async fn call(client: &Client, request: &Request) -> Outcome {
    let answered = match request {
        Request::Put(put) => client
            .call("/etcdserverpb.KV/Put", &wire_put(put))
            .await
            .map(|answer: wire::PutResponse| (answer.header, Answer::Put(put_answer(answer)))),
        Request::Range(range) => client
            .call("/etcdserverpb.KV/Range", &wire_range(range))
            .await
            .map(|answer: wire::RangeResponse| {
                (answer.header, Answer::Range(range_answer(answer)))
            }),
        Request::Delete(delete) => client
            .call("/etcdserverpb.KV/DeleteRange", &wire_delete(delete))
            .await
            .map(|answer: wire::DeleteRangeResponse| {
                (answer.header, Answer::Delete(delete_answer(answer)))
            }),
        Request::Txn(txn) => {
            let compares = txn.compares.iter().map(|compare| wire::Compare {
                result: i32::from(compare.relation == Relation::Greater),
                target: 2,
                key: compare.key.clone(),
                mod_revision: match compare.operand {
                    Operand::Mod(revision) => revision,
                    _ => unreachable!("this session compares nothing else"),
                },
            });
            let request = wire::TxnRequest {
                compare: compares.collect(),
                success: wire_ops(&txn.success),
                failure: wire_ops(&txn.failure),
            };
            client
                .call("/etcdserverpb.KV/Txn", &request)
                .await
                .map(|answer: wire::TxnResponse| (answer.header, Answer::Txn(txn_answer(answer))))
        }
        _ => unreachable!("this session asks nothing else"),
    };
    match answered {
        Ok((header, answer)) => Outcome::Ok {
            revision: header.map_or(0, |header| header.revision),
            answer,
        },
        Err(CallError::Refused { code, message }) => Outcome::of_status(code, &message),
        Err(_) => Outcome::Unknown,
    }
}

fn txn_answer(answer: wire::TxnResponse) -> TxnAnswer {
    let answers = answer.responses.into_iter().map(|each| {
        let put = each.put.map(|answer| TxnOpAnswer::Put(put_answer(answer)));
        let range = each
            .range
            .map(|answer| TxnOpAnswer::Range(range_answer(answer)));
        let delete = each
            .delete
            .map(|answer| TxnOpAnswer::Delete(delete_answer(answer)));
        put.or(range).or(delete).expect("one of them")
    });
    TxnAnswer {
        succeeded: answer.succeeded,
        answers: answers.collect(),
    }
}

type Watching = (
    tokio::sync::oneshot::Sender<i64>,
    tokio::task::JoinHandle<()>,
);

/// Watches everything on one stream, half of it on another, and asks for progress now and then. Ends when it has
/// a bookmark at or above the revision it is sent.
async fn watch(address: SocketAddr, stream: u32, clock: Instant, recorder: Shared) -> Watching {
    let interval = if stream == 0 {
        Interval::all()
    } else {
        Interval {
            key: crate::model::key(0),
            range_end: crate::model::key(3),
        }
    };
    let request = WatchRequest {
        interval,
        start_revision: 0,
        prev_kv: stream == 0,
        no_put: false,
        no_delete: false,
    };
    let create = wire::WatchRequest {
        create: Some(wire::WatchCreate {
            key: request.interval.key.clone(),
            range_end: request.interval.range_end.clone(),
            start_revision: 0,
            prev_kv: request.prev_kv,
        }),
        progress: None,
    };
    let mut watch = wire::WatchStream::open(address, &create).await;
    let first = watch.next().await.expect("created");
    assert!(first.created && !first.canceled, "{first:?}");
    tell(&recorder, stream, clock, first, &request);
    let (end, mut ended) = tokio::sync::oneshot::channel();
    let task = tokio::task::spawn_local(async move {
        let mut ask = tokio::time::interval(std::time::Duration::from_millis(3));
        let mut upto = i64::MAX;
        loop {
            tokio::select! {
                _ = ask.tick() => watch.ask(&wire::WatchRequest {
                    create: None,
                    progress: Some(wire::WatchProgress {}),
                }),
                Ok(revision) = &mut ended, if upto == i64::MAX => upto = revision,
                response = watch.next() => {
                    let response = response.expect("the stream lives");
                    let bookmark = response.events.is_empty().then(|| {
                        response.header.map_or(0, |header| header.revision)
                    });
                    tell(&recorder, stream, clock, response, &request);
                    if bookmark.is_some_and(|bookmark| bookmark >= upto) {
                        return;
                    }
                }
            }
        }
    });
    (end, task)
}

fn tell(
    recorder: &Shared,
    stream: u32,
    clock: Instant,
    response: wire::WatchResponse,
    request: &WatchRequest,
) {
    let revision = response.header.map_or(0, |header| header.revision);
    let events = response.events.into_iter().map(|event| {
        let put = event.kind == 0;
        Event {
            put,
            kv: kv(event.kv.expect("an event has a key"), put),
            prev: event.prev_kv.map(|prev| kv(prev, true)),
        }
    });
    let events: Vec<Event> = events.collect();
    let (watch, notice) = if response.created {
        (
            response.watch_id,
            WatchNotice::Created {
                revision,
                request: request.clone(),
            },
        )
    } else if events.is_empty() {
        assert!(!response.canceled, "nothing is compacted");
        (WATCH_ALL, WatchNotice::Progress { revision })
    } else {
        let notice = WatchNotice::Events {
            revision,
            fragment: false,
            events,
        };
        (response.watch_id, notice)
    };
    recorder.borrow_mut().entry(&Entry::Watch(WatchEntry {
        stream,
        watch,
        at: u64::try_from(clock.elapsed().as_nanos()).expect("minutes"),
        notice,
    }));
}
