//! What the keyspace costs: nanoseconds per operation, bytes per key and version, longest slices.
//!
//! `cargo bench --bench keyspace` measures; with `--test` everything runs once, small, and nothing is
//! concluded from it. Bytes are what the allocator hands out (jemalloc's `stats.allocated`), rounding
//! included.

#![allow(
    clippy::disallowed_methods,
    reason = "real clocks are what a bench is about"
)]

use std::fmt::Display;
use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use kontiki::base::limits::SLICE_STEPS_MAX;
use kontiki::keyspace::effects::Effect;
use kontiki::keyspace::fold::FoldJob;
use kontiki::keyspace::range::RangeJob;
use kontiki::keyspace::request::*;
use kontiki::keyspace::revision::View;
use kontiki::keyspace::steps::Steps;
use kontiki::keyspace::txn::{Plan, PlanJob};
use kontiki::keyspace::{Keyspace, TruncateJob};
use rkyv::rancor::Error;
use rkyv::util::AlignedVec;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const VALUE_BYTES: usize = 256;
/// Entries in flight between fold and commit.
const BATCH: u64 = 64;

/// Sizes of a run.
struct Scale {
    keys: usize,
    operations: usize,
}

/// A keyspace with the buffers of its shard.
struct Bench {
    keyspace: Keyspace,
    entry: AlignedVec,
    value: Bytes,
}

impl Bench {
    fn new(value_bytes: usize) -> Bench {
        let value = Bytes::from(vec![7; value_bytes]);
        Bench {
            keyspace: Keyspace::new(),
            entry: AlignedVec::new(),
            value,
        }
    }

    fn fold(&mut self, plan: Plan) {
        self.entry.clear();
        let entry = std::mem::take(&mut self.entry);
        self.entry = rkyv::api::high::to_bytes_in::<_, Error>(&plan.effects, entry)
            .expect("memory suffices");
        let effects =
            rkyv::access::<rkyv::Archived<Vec<Effect>>, Error>(&self.entry).expect("just archived");
        let index = self.keyspace.folded_index().next();
        let mut job = FoldJob::lead(&mut self.keyspace, index, plan.script);
        while black_box(job.run(
            &mut self.keyspace,
            effects,
            &mut Steps::new(SLICE_STEPS_MAX),
        ))
        .is_none()
        {}
        if index.0.is_multiple_of(BATCH) {
            self.keyspace.commit(index);
        }
    }

    fn put(&mut self, key: &Bytes) {
        let request = PutRequest {
            key: key.clone(),
            value: self.value.clone(),
            ..PutRequest::default()
        };
        let plan = self.keyspace.plan_put(request).expect("no lease");
        self.fold(plan);
    }

    fn txn(&mut self, key: &Bytes) {
        let put = PutRequest {
            key: key.clone(),
            value: self.value.clone(),
            ..PutRequest::default()
        };
        let request = TxnRequest {
            compare: vec![Compare {
                range: KeyRange {
                    key: key.clone(),
                    range_end: Bytes::new(),
                },
                result: CompareResult::Greater,
                target: CompareTarget::ModRevision(0),
            }],
            success: vec![RequestOp::Put(put)],
            failure: vec![],
        };
        let mut job = PlanJob::txn(&mut self.keyspace, request, View::Head);
        let plan = job
            .run(&mut self.keyspace, &mut Steps::new(SLICE_STEPS_MAX))
            .expect("short")
            .expect("no refusal");
        self.fold(plan);
    }

    fn range(&mut self, range: KeyRange, limit: i64, count_skipped: bool) {
        let request = RangeRequest {
            range,
            limit,
            count_skipped,
            ..RangeRequest::default()
        };
        let mut job = RangeJob::new(&mut self.keyspace, request).expect("current");
        while black_box(job.run(&self.keyspace, &mut Steps::new(SLICE_STEPS_MAX))).is_none() {}
    }

    fn commit_all(&mut self) {
        let index = self.keyspace.folded_index();
        self.keyspace.commit(index);
    }

    fn compact_all(&mut self) {
        let plan = self
            .keyspace
            .plan_compact(self.keyspace.head_revision())
            .expect("current");
        self.fold(plan);
        self.commit_all();
        while self.keyspace.reclaim(&mut Steps::new(SLICE_STEPS_MAX)) {}
    }
}

/// Kubernetes-like keys of 64 bytes; `shuffled` spreads consecutive numbers over the whole key space.
fn key(number: usize, shuffled: bool) -> Bytes {
    let number = if shuffled {
        (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    } else {
        number as u64
    };
    let mut key =
        format!("/registry/pods/namespace-0042/deployment-7f9c/{number:016x}").into_bytes();
    key.resize(64, b'-');
    Bytes::from(key)
}

fn allocated() -> usize {
    tikv_jemalloc_ctl::epoch::advance().expect("jemalloc has statistics");
    tikv_jemalloc_ctl::stats::allocated::read().expect("jemalloc has statistics")
}

fn report(name: &str, figure: impl Display, unit: &str) {
    println!("{name:<58} {figure:>10} {unit}");
}

fn time(name: &str, count: usize, mut operation: impl FnMut(usize)) {
    let start = Instant::now();
    for number in 0..count {
        operation(number);
    }
    report(name, start.elapsed().as_nanos() / count as u128, "ns");
}

fn operations(scale: &Scale) {
    let mut bench = Bench::new(VALUE_BYTES);
    let keys: Vec<Bytes> = (0..scale.keys).map(|number| key(number, true)).collect();
    time(
        "put of a new key: plan, archive, fold, commit",
        scale.keys,
        |at| bench.put(&keys[at]),
    );
    let visit = |at: usize| at.wrapping_mul(7_919) % scale.keys;
    time("put of a present key", scale.operations, |at| {
        bench.put(&keys[visit(at)])
    });
    time("put of one hot key", scale.operations, |_| {
        bench.put(&keys[0])
    });
    time("transaction: compare and put", scale.operations, |at| {
        bench.txn(&keys[visit(at)])
    });
    bench.commit_all();
    time("get", scale.operations, |at| {
        bench.range(
            KeyRange {
                key: keys[visit(at)].clone(),
                range_end: Bytes::new(),
            },
            0,
            false,
        );
    });
    let end = Bytes::from_static(b"\0");
    time(
        "range of 100, without counting the rest",
        scale.operations / 20,
        |at| {
            bench.range(
                KeyRange {
                    key: keys[visit(at)].clone(),
                    range_end: end.clone(),
                },
                100,
                true,
            );
        },
    );
    time("range of everything", 1, |_| {
        bench.range(
            KeyRange {
                key: Bytes::from_static(b"\0"),
                range_end: end.clone(),
            },
            0,
            false,
        );
    });
}

fn memory(scale: &Scale, shuffled: bool) {
    let order = if shuffled {
        "random order"
    } else {
        "key order"
    };
    let (key_bytes, versions) = (64, 10);
    for value_bytes in [0, VALUE_BYTES] {
        let before = allocated();
        let mut bench = Bench::new(value_bytes);
        // The keys of one batch at a time, so that they are not counted.
        for number in 0..scale.keys {
            bench.put(&key(number, shuffled));
        }
        bench.commit_all();
        let per_key = |bytes: usize, beside: usize| {
            (bytes as i64 - before as i64) / scale.keys as i64 - beside as i64
        };
        let fresh = allocated();
        let name = |what: &str| format!("{what}, {order}, values of {value_bytes} B");
        report(
            &name("bytes per key"),
            per_key(fresh, key_bytes + value_bytes),
            "B",
        );
        for _ in 0..versions {
            for number in 0..scale.keys / versions {
                bench.put(&key(number * versions, shuffled));
            }
        }
        bench.commit_all();
        let further = (allocated() - fresh) / (scale.keys / versions * versions) - value_bytes;
        report(&name("bytes per further version"), further, "B");
        report(
            &name("size_bytes() against allocated, in %"),
            bench.keyspace.size_bytes() as usize * 100 / (allocated() - before),
            "%",
        );
        bench.compact_all();
        report(
            &name("bytes per key, compacted"),
            per_key(allocated(), key_bytes + value_bytes),
            "B",
        );
    }
}

fn slices(scale: &Scale) {
    let mut bench = Bench::new(VALUE_BYTES);
    for number in 0..scale.keys {
        bench.put(&key(number, true));
    }
    bench.commit_all();
    let everything = KeyRange {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
    };
    let keyspace = &mut bench.keyspace;
    let delete = DeleteRangeRequest {
        range: everything.clone(),
        prev_kv: false,
    };
    let mut job = PlanJob::delete_range(keyspace, delete);
    let plan = job
        .run(keyspace, &mut Steps::new(SLICE_STEPS_MAX))
        .expect("the first key is live")
        .expect("no refusal");
    let entry = rkyv::to_bytes::<Error>(&plan.effects).expect("memory suffices");
    let effects =
        rkyv::access::<rkyv::Archived<Vec<Effect>>, Error>(&entry).expect("just archived");
    report("delete everything: bytes of the effects", entry.len(), "B");

    let sorted = RangeRequest {
        range: everything,
        sort_order: SortOrder::Descend,
        sort_target: SortTarget::Mod,
        ..RangeRequest::default()
    };
    let mut job = RangeJob::new(keyspace, sorted).expect("current");
    longest("read everything sorted", || {
        job.run(keyspace, &mut Steps::new(SLICE_STEPS_MAX))
            .is_some()
    });
    drop(job);

    let committed = keyspace.committed_index();
    let mut script = Some(plan.script);
    for truncate in [true, false] {
        let index = keyspace.folded_index().next();
        let mut job = match script.take() {
            Some(script) => FoldJob::lead(keyspace, index, script),
            None => FoldJob::replay(keyspace, index),
        };
        longest("delete everything", || {
            job.run(keyspace, effects, &mut Steps::new(SLICE_STEPS_MAX))
                .is_some()
        });
        if truncate {
            let mut job = TruncateJob::new(keyspace, committed);
            longest("truncate that", || {
                job.run(keyspace, &mut Steps::new(SLICE_STEPS_MAX))
            });
        }
    }
    bench.put(&Bytes::from_static(b"last"));
    let plan = bench
        .keyspace
        .plan_compact(bench.keyspace.head_revision())
        .expect("current");
    bench.fold(plan);
    bench.commit_all();
    longest("reclaim everything", || {
        !bench.keyspace.reclaim(&mut Steps::new(SLICE_STEPS_MAX))
    });
}

fn longest(name: &str, mut slice: impl FnMut() -> bool) {
    let mut slices = Vec::new();
    loop {
        let start = Instant::now();
        let done = slice();
        let took = start.elapsed().as_micros();
        slices.push(took);
        if done {
            break;
        }
    }
    slices.sort_unstable();
    report(
        &format!("{name}: longest slice of {SLICE_STEPS_MAX} steps"),
        slices[slices.len() - 1],
        "us",
    );
    // What takes a core away from this process shows in the longest only.
    report(
        &format!("{name}: 99 of 100 slices within"),
        slices[(slices.len() - 1) * 99 / 100],
        "us",
    );
    report(
        &format!("{name}: all of {} slices", slices.len()),
        slices.iter().sum::<u128>(),
        "us",
    );
}

fn main() {
    let small = std::env::args().any(|argument| argument == "--test");
    let scale = if small {
        Scale {
            keys: 5_000,
            operations: 2_000,
        }
    } else {
        Scale {
            keys: 1_000_000,
            operations: 1_000_000,
        }
    };
    let tenth = Scale {
        keys: scale.keys / 10,
        operations: scale.operations,
    };
    for scale in [&tenth, &scale] {
        println!(
            "{} keys of 64 B, values of {VALUE_BYTES} B unless said otherwise",
            scale.keys
        );
        operations(scale);
    }
    memory(&scale, false);
    memory(&scale, true);
    slices(&scale);
}
