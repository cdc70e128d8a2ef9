//! Random valid histories: clients, leases and watches on a simple store that does everything right.

use std::collections::BTreeMap;

use bytes::Bytes;
use fastrand::Rng;
use kontiki_load::history::{
    Answer, Base, Compare, Delete, DeleteAnswer, Entry, Event, Interval, Kv, Operand, Operation,
    Outcome, Put, PutAnswer, Range, RangeAnswer, Refusal, Relation, Request, Txn, TxnAnswer, TxnOp,
    TxnOpAnswer, ValueHash, WATCH_ALL, WatchEntry, WatchNotice, WatchRequest,
};

/// What a model run is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) operations: usize,
    pub(crate) clients: usize,
    pub(crate) keys: usize,
    /// Of a hundred operations, how many get no answer.
    pub(crate) unknown_percent: u32,
    pub(crate) leases: bool,
    pub(crate) watches: bool,
}

type State = BTreeMap<Bytes, Kv>;

struct Store {
    revision: i64,
    floor: i64,
    state: State,
    /// The state at each revision from the base on.
    states: BTreeMap<i64, State>,
    events: Vec<Event>,
    leases: BTreeMap<i64, u64>,
}

impl Store {
    fn put(&mut self, put: &Put, revision: i64) -> PutAnswer {
        let before = self.state.get(&put.key).cloned();
        let kv = Kv {
            key: put.key.clone(),
            create_revision: before.as_ref().map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            version: before.as_ref().map_or(1, |kv| kv.version + 1),
            value: Some(put.value),
            lease: put.lease,
        };
        self.state.insert(put.key.clone(), kv.clone());
        self.events.push(Event {
            put: true,
            kv,
            prev: before.clone(),
        });
        PutAnswer {
            prev: before.filter(|_| put.prev_kv),
        }
    }

    fn delete(&mut self, keys: Vec<Bytes>, prev_kv: bool, revision: i64) -> DeleteAnswer {
        let mut answer = DeleteAnswer::default();
        for key in keys {
            let before = self.state.remove(&key).expect("it is there");
            answer.deleted += 1;
            self.events.push(Event {
                put: false,
                kv: Kv {
                    key,
                    create_revision: 0,
                    mod_revision: revision,
                    version: 0,
                    value: None,
                    lease: 0,
                },
                prev: Some(before.clone()),
            });
            if prev_kv {
                answer.prev_kvs.push(before);
            }
        }
        answer
    }

    fn keys_in(&self, interval: &Interval) -> Vec<Bytes> {
        let keys = self.state.keys();
        keys.filter(|key| interval.contains(key)).cloned().collect()
    }

    fn range(state: &State, range: &Range) -> RangeAnswer {
        let all: Vec<Kv> = state
            .values()
            .filter(|kv| range.interval.contains(&kv.key))
            .cloned()
            .collect();
        let count = all.len() as i64;
        if range.count_only {
            return RangeAnswer {
                count,
                ..RangeAnswer::default()
            };
        }
        let limit = usize::try_from(range.limit).expect("limits are positive");
        let cut = limit > 0 && all.len() > limit;
        RangeAnswer {
            kvs: all[..if cut { limit } else { all.len() }].to_vec(),
            more: cut,
            count,
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let kv = self.state.get(&compare.key);
        let (held, operand) = match compare.operand {
            Operand::Version(number) => (kv.map_or(0, |kv| kv.version), number),
            Operand::Create(number) => (kv.map_or(0, |kv| kv.create_revision), number),
            Operand::Mod(number) => (kv.map_or(0, |kv| kv.mod_revision), number),
            Operand::Lease(number) => (kv.map_or(0, |kv| kv.lease), number),
            Operand::Value(value) => {
                let same = kv.map(|kv| kv.value == Some(value));
                return match compare.relation {
                    Relation::Equal => same == Some(true),
                    _ => same == Some(false),
                };
            }
        };
        match compare.relation {
            Relation::Equal => held == operand,
            Relation::Greater => held > operand,
            Relation::Less => held < operand,
            Relation::NotEqual => held != operand,
        }
    }

    /// Closes a revision, if anything was changed.
    fn commit(&mut self, changed: bool) -> i64 {
        if changed {
            self.revision += 1;
            self.states.insert(self.revision, self.state.clone());
        }
        self.revision
    }

    fn apply(&mut self, request: &Request, now: u64, rng: &mut Rng) -> Outcome {
        let next = self.revision + 1;
        let (changed, answer) = match request {
            Request::Put(put) => (true, Answer::Put(self.put(put, next))),
            Request::Delete(delete) => {
                let keys = self.keys_in(&delete.interval);
                let answer = self.delete(keys, delete.prev_kv, next);
                (answer.deleted > 0, Answer::Delete(answer))
            }
            Request::Range(range) => return self.read(range, rng),
            Request::Txn(txn) => {
                let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
                let mut changed = false;
                let branch = if succeeded {
                    &txn.success
                } else {
                    &txn.failure
                };
                let answers = branch
                    .iter()
                    .map(|op| match op {
                        TxnOp::Put(put) => {
                            changed = true;
                            TxnOpAnswer::Put(self.put(put, next))
                        }
                        TxnOp::Range(range) => TxnOpAnswer::Range(Store::range(&self.state, range)),
                        TxnOp::Delete(delete) => {
                            let keys = self.keys_in(&delete.interval);
                            let answer = self.delete(keys, delete.prev_kv, next);
                            changed |= answer.deleted > 0;
                            TxnOpAnswer::Delete(answer)
                        }
                    })
                    .collect();
                (changed, Answer::Txn(TxnAnswer { succeeded, answers }))
            }
            Request::Compact(revision) => {
                if *revision <= self.floor {
                    return Outcome::Refused(Refusal::Compacted);
                }
                if *revision > self.revision {
                    return Outcome::Refused(Refusal::Future);
                }
                self.floor = *revision;
                (false, Answer::Compact)
            }
            Request::LeaseGrant { id, ttl } => {
                let end = now + u64::try_from(*ttl).expect("positive") * 1_000_000_000;
                self.leases.insert(*id, end);
                (false, Answer::LeaseGrant { id: *id, ttl: *ttl })
            }
            Request::LeaseRevoke(id) => {
                if self.leases.remove(id).is_none() {
                    return Outcome::Refused(Refusal::Code(5));
                }
                (self.end_lease(*id), Answer::LeaseRevoke)
            }
            Request::LeaseKeepAlive(id) => {
                // Whatever was granted, a renewal is for one second more.
                let renewed = self.leases.get_mut(id);
                let ttl = i64::from(renewed.is_some());
                if let Some(end) = renewed {
                    *end = (*end).max(now + 1_000_000_000);
                }
                (false, Answer::LeaseKeepAlive(ttl))
            }
        };
        let revision = self.commit(changed);
        Outcome::Ok { revision, answer }
    }

    fn end_lease(&mut self, id: i64) -> bool {
        let on_it = self.state.values().filter(|kv| kv.lease == id);
        let keys: Vec<Bytes> = on_it.map(|kv| kv.key.clone()).collect();
        let next = self.revision + 1;
        self.delete(keys, false, next).deleted > 0
    }

    fn read(&self, range: &Range, rng: &mut Rng) -> Outcome {
        if range.revision > self.revision {
            return Outcome::Refused(Refusal::Future);
        }
        if range.revision > 0 && range.revision < self.floor {
            return Outcome::Refused(Refusal::Compacted);
        }
        let newest = if range.serializable && range.revision == 0 {
            let oldest = *self.states.keys().next().expect("the base");
            rng.i64(oldest..=self.revision)
        } else {
            self.revision
        };
        let at = if range.revision > 0 {
            range.revision
        } else {
            newest
        };
        Outcome::Ok {
            revision: newest,
            answer: Answer::Range(Store::range(&self.states[&at], range)),
        }
    }
}

struct Client {
    number: u32,
    pending: Option<Pending>,
}

struct Pending {
    invoked: u64,
    request: Request,
    outcome: Option<Outcome>,
    lost: bool,
}

struct Watcher {
    stream: u32,
    watch: i64,
    request: WatchRequest,
    /// Next event of the store.
    next: usize,
    /// Lowest revision that it is sent.
    start: i64,
    open: bool,
    sent: i64,
}

/// A valid history of this shape.
pub(crate) fn history(seed: u64, shape: Shape) -> Vec<Entry> {
    let mut rng = Rng::with_seed(seed);
    let rng = &mut rng;
    let base = rng.i64(1..40);
    let mut store = Store {
        revision: base,
        floor: 0,
        state: State::new(),
        states: BTreeMap::new(),
        events: Vec::new(),
        leases: BTreeMap::new(),
    };
    if base > 10 {
        for number in 0..shape.keys.div_ceil(3) {
            let kv = Kv {
                key: key(number),
                create_revision: 2,
                mod_revision: 3 + i64::try_from(number % 5).expect("small"),
                version: 2,
                value: Some(ValueHash(rng.u64(..))),
                lease: 0,
            };
            store.state.insert(kv.key.clone(), kv);
        }
    }
    store.states.insert(base, store.state.clone());
    let mut entries = vec![Entry::Base(Base {
        revision: base,
        kvs: store.state.values().cloned().collect(),
    })];
    let mut clients: Vec<Client> = (0..shape.clients)
        .map(|number| Client {
            number: u32::try_from(number).expect("few"),
            pending: None,
        })
        .collect();
    let mut watchers: Vec<Watcher> = Vec::new();
    // Operations whose client gave up, and which may still take effect.
    let mut adrift: Vec<Request> = Vec::new();
    let (mut now, mut begun) = (1_000u64, 0);
    while begun < shape.operations || clients.iter().any(|client| client.pending.is_some()) {
        now += rng.u64(1..40_000_000);
        if shape.leases {
            let ended = store.leases.iter().find(|(_, end)| **end < now);
            if let Some(id) = ended.map(|(id, _)| *id).filter(|_| rng.bool()) {
                store.leases.remove(&id);
                let changed = store.end_lease(id);
                store.commit(changed);
            }
        }
        if !adrift.is_empty() && rng.u8(..10) == 0 {
            let request = adrift.swap_remove(rng.usize(..adrift.len()));
            store.apply(&request, now, rng);
        }
        if shape.watches {
            watch_step(&mut store, &mut watchers, now, &mut entries, rng);
        }
        let client = rng.usize(..clients.len());
        let client = &mut clients[client];
        match &mut client.pending {
            None if begun < shape.operations => {
                begun += 1;
                client.pending = Some(Pending {
                    invoked: now,
                    request: request(&store, shape, rng),
                    outcome: None,
                    lost: rng.u32(..100) < shape.unknown_percent,
                });
            }
            None => {}
            Some(pending) => match &pending.outcome {
                None if pending.lost && rng.bool() => {
                    // Gives up; the request may still be on its way.
                    let pending = client.pending.take().expect("it is");
                    if rng.bool() {
                        adrift.push(pending.request.clone());
                    }
                    entries.push(operation(client.number, pending, now, Outcome::Unknown));
                }
                None => pending.outcome = Some(store.apply(&pending.request, now, rng)),
                Some(_) => {
                    let mut pending = client.pending.take().expect("it is");
                    let outcome = pending.outcome.take().expect("it has");
                    let outcome = if pending.lost {
                        Outcome::Unknown
                    } else {
                        outcome
                    };
                    entries.push(operation(client.number, pending, now, outcome));
                }
            },
        }
    }
    now += 1;
    let dump = Request::Range(Range {
        interval: Interval::all(),
        limit: 0,
        revision: 0,
        serializable: false,
        count_only: false,
    });
    let outcome = store.apply(&dump, now, rng);
    entries.push(Entry::Operation(Operation {
        client: 0,
        invoked: now,
        returned: now + 5,
        request: dump,
        outcome,
    }));
    entries
}

fn operation(client: u32, pending: Pending, returned: u64, outcome: Outcome) -> Entry {
    Entry::Operation(Operation {
        client,
        invoked: pending.invoked,
        returned,
        request: pending.request,
        outcome,
    })
}

pub(crate) fn key(number: usize) -> Bytes {
    format!("key{number:03}").into()
}

fn interval(shape: Shape, rng: &mut Rng) -> Interval {
    let first = rng.usize(..shape.keys);
    match rng.u8(..6) {
        0 => Interval::all(),
        1 => Interval {
            key: key(first),
            range_end: Bytes::from_static(b"\0"),
        },
        2 | 3 => Interval {
            key: key(first),
            range_end: key(rng.usize(..=shape.keys)),
        },
        _ => Interval::one(key(first)),
    }
}

fn put(store: &Store, shape: Shape, rng: &mut Rng) -> Put {
    let leases: Vec<i64> = store.leases.keys().copied().collect();
    Put {
        key: key(rng.usize(..shape.keys)),
        // Few values, so that the same one is written again.
        value: ValueHash(rng.u64(..6)),
        lease: match leases.get(rng.usize(..8)) {
            Some(lease) => *lease,
            None => 0,
        },
        prev_kv: rng.bool(),
    }
}

fn range(store: &Store, shape: Shape, rng: &mut Rng) -> Range {
    Range {
        interval: interval(shape, rng),
        limit: if rng.bool() { rng.i64(1..5) } else { 0 },
        revision: match rng.u8(..5) {
            0 => rng.i64(
                (store.revision - 20).max(*store.states.keys().next().expect("base"))
                    ..=store.revision + 2,
            ),
            _ => 0,
        },
        serializable: rng.u8(..4) == 0,
        count_only: rng.u8(..8) == 0,
    }
}

fn request(store: &Store, shape: Shape, rng: &mut Rng) -> Request {
    match rng.u8(..20) {
        0..=5 => Request::Put(put(store, shape, rng)),
        6..=10 => Request::Range(range(store, shape, rng)),
        11..=12 => Request::Delete(Delete {
            interval: interval(shape, rng),
            prev_kv: rng.bool(),
        }),
        13 if rng.u8(..3) == 0 => {
            Request::Compact(rng.i64((store.revision - 30).max(1)..=store.revision + 1))
        }
        14 if shape.leases => Request::LeaseGrant {
            id: rng.i64(1..1_000_000),
            ttl: rng.i64(1..3),
        },
        15 if shape.leases => match store.leases.keys().next() {
            Some(id) if rng.bool() => Request::LeaseKeepAlive(*id),
            Some(id) => Request::LeaseRevoke(*id),
            None => Request::LeaseKeepAlive(7),
        },
        _ => Request::Txn(txn(store, shape, rng)),
    }
}

fn txn(store: &Store, shape: Shape, rng: &mut Rng) -> Txn {
    let number = key(rng.usize(..shape.keys));
    let held = store.state.get(&number);
    let near = rng.i64(0..2);
    let operand = match rng.u8(..5) {
        0 => Operand::Version(held.map_or(0, |kv| kv.version) + near),
        1 => Operand::Create(held.map_or(0, |kv| kv.create_revision) + near),
        2 => Operand::Lease(held.map_or(0, |kv| kv.lease) + near),
        3 => Operand::Value(held.and_then(|kv| kv.value).unwrap_or(ValueHash(1))),
        _ => Operand::Mod(held.map_or(0, |kv| kv.mod_revision) + near),
    };
    let relation = match (rng.u8(..4), operand) {
        (0 | 1, _) => Relation::Equal,
        (2, Operand::Value(_)) | (_, Operand::Value(_)) => Relation::NotEqual,
        (2, _) => Relation::Less,
        _ => Relation::Greater,
    };
    let compares = match rng.u8(..4) {
        0 => vec![],
        _ => vec![Compare {
            key: number,
            relation,
            operand,
        }],
    };
    let mut branch = || {
        let mut ops = Vec::new();
        let first = rng.usize(..shape.keys);
        if rng.bool() {
            let put = put(store, shape, rng);
            ops.push(TxnOp::Put(Put {
                key: key(first),
                ..put
            }));
        }
        if rng.u8(..3) == 0 {
            let put = put(store, shape, rng);
            let other = key((first + 1) % shape.keys);
            ops.push(TxnOp::Put(Put { key: other, ..put }));
        }
        if rng.u8(..3) == 0 {
            let other = key((first + 2) % shape.keys);
            ops.push(TxnOp::Delete(Delete {
                interval: Interval::one(other),
                prev_kv: rng.bool(),
            }));
        }
        if rng.bool() {
            let range = Range {
                revision: 0,
                serializable: false,
                ..range(store, shape, rng)
            };
            ops.push(TxnOp::Range(range));
        }
        ops
    };
    let (success, failure) = (branch(), branch());
    Txn {
        compares,
        success,
        failure,
    }
}

fn watch_step(
    store: &mut Store,
    watchers: &mut Vec<Watcher>,
    now: u64,
    entries: &mut Vec<Entry>,
    rng: &mut Rng,
) {
    let mut tell = |stream, watch, notice| {
        entries.push(Entry::Watch(WatchEntry {
            stream,
            watch,
            at: now,
            notice,
        }));
    };
    if watchers.len() < 5 && rng.u8(..10) == 0 {
        let number = watchers.len();
        let request = WatchRequest {
            interval: match number {
                0 => Interval::all(),
                1 => Interval::one(key(0)),
                _ => Interval {
                    key: key(1),
                    range_end: key(5),
                },
            },
            start_revision: 0,
            prev_kv: number != 2,
            no_put: number == 3,
            no_delete: number == 4,
        };
        let watcher = Watcher {
            stream: u32::try_from(number / 2).expect("few"),
            watch: i64::try_from(number % 2).expect("few"),
            start: store.revision + 1,
            next: store.events.len(),
            sent: store.revision,
            open: true,
            request: request.clone(),
        };
        let notice = WatchNotice::Created {
            revision: store.revision,
            request,
        };
        tell(watcher.stream, watcher.watch, notice);
        watchers.push(watcher);
    }
    let Some(watcher) = watchers.len().checked_sub(1).map(|last| rng.usize(..=last)) else {
        return;
    };
    if rng.u8(..3) > 0 {
        return;
    }
    let stream = watchers[watcher].stream;
    if rng.u8(..12) == 0 {
        let mates: Vec<&Watcher> = watchers
            .iter()
            .filter(|each| each.stream == stream && each.open)
            .collect();
        let ready = mates
            .iter()
            .all(|each| each.next == store.events.len() && store.revision >= each.start);
        if ready && !mates.is_empty() {
            let notice = WatchNotice::Progress {
                revision: store.revision,
            };
            tell(stream, WATCH_ALL, notice);
        }
        return;
    }
    let each = &mut watchers[watcher];
    if !each.open {
        // Resumes after what it has seen.
        let start = each.sent + 1;
        if start < store.floor {
            return;
        }
        each.start = start;
        let events = store.events.iter();
        each.next = events
            .take_while(|event| event.kv.mod_revision < start)
            .count();
        each.open = true;
        let request = WatchRequest {
            start_revision: start,
            ..each.request.clone()
        };
        let notice = WatchNotice::Created {
            revision: store.revision,
            request,
        };
        tell(each.stream, each.watch, notice);
        return;
    }
    if rng.u8(..15) == 0 {
        each.open = false;
        tell(each.stream, each.watch, WatchNotice::Ended);
        return;
    }
    let owed = &store.events[each.next..];
    let Some(last) = owed.get(rng.usize(..8).min(owed.len().saturating_sub(1))) else {
        return;
    };
    let upto = last.kv.mod_revision;
    let batch: Vec<Event> = owed
        .iter()
        .take_while(|event| event.kv.mod_revision <= upto)
        .cloned()
        .collect();
    each.next += batch.len();
    let wanted: Vec<Event> = batch
        .into_iter()
        .filter(|event| each.request.interval.contains(&event.kv.key))
        .filter(|event| {
            !(if event.put {
                each.request.no_put
            } else {
                each.request.no_delete
            })
        })
        .map(|event| Event {
            prev: event.prev.filter(|prev| {
                each.request.prev_kv
                    && (prev.mod_revision > 0 && event.kv.mod_revision > store.floor)
            }),
            ..event
        })
        .collect();
    if wanted.is_empty() {
        return;
    }
    each.sent = upto;
    let (first, rest) = wanted.split_at(if rng.u8(..4) == 0 {
        wanted.len() / 2
    } else {
        0
    });
    for (events, fragment) in [(first, true), (rest, false)] {
        if !events.is_empty() {
            let notice = WatchNotice::Events {
                revision: if fragment {
                    upto
                } else {
                    store.revision.max(upto)
                },
                fragment,
                events: events.to_vec(),
            };
            tell(each.stream, each.watch, notice);
        }
    }
}
