//! Random histories: three keyspaces (slices of one step, of three, and unlimited; the second only
//! replays entries) and the model must agree on every answer, revision, digest and byte.

use bytes::Bytes;
use kontiki::base::{Index, LeaseId};
use kontiki::keyspace::range::RangeJob;
use kontiki::keyspace::request::*;
use kontiki::keyspace::revision::View;
use kontiki::keyspace::steps::Steps;
use kontiki::keyspace::txn::PlanJob;
use proptest::prelude::*;

use super::checkpoints::Checkpointed;
use super::model::{Model, State, inside};
use super::rig::{Rig, Write};

#[derive(Clone, Debug)]
enum Op {
    Write(Write),
    Commit(usize),
    Truncate(usize),
    Reclaim(usize),
    Range(RangeRequest),
    /// Starts a read, works one step, and goes on after other operations.
    Hold(RangeRequest),
    Release,
    ReadTxn(TxnRequest),
    Events(i64, KeyRange),
    /// Begins a checkpoint of what is committed, or works on for so many steps, and reads it when it is whole.
    Checkpoint(usize),
}

fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["a", "ab", "b", "c", "d", "e"])
        .prop_map(|key| Bytes::from_static(key.as_bytes()))
}

fn interval() -> impl Strategy<Value = KeyRange> {
    let end = prop::sample::select(vec!["", "", "\0", "b", "c", "e", "f"]);
    (key(), end).prop_map(|(key, end)| KeyRange {
        key,
        range_end: Bytes::from_static(end.as_bytes()),
    })
}

/// Some short, some long enough to be shared instead of copied.
fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => (0u8..4, 0usize..3).prop_map(|(byte, size)| Bytes::from(vec![byte; size])),
        1 => (0u8..4).prop_map(|byte| Bytes::from(vec![byte; 1_500])),
    ]
}

fn bound() -> impl Strategy<Value = i64> {
    prop_oneof![4 => Just(0i64), 1 => 1i64..12]
}

fn range_request() -> impl Strategy<Value = RangeRequest> {
    let order = prop::sample::select(vec![SortOrder::None, SortOrder::Ascend, SortOrder::Descend]);
    let target = prop::sample::select(vec![
        SortTarget::Key,
        SortTarget::Version,
        SortTarget::Create,
        SortTarget::Mod,
        SortTarget::Value,
    ]);
    let revision = prop_oneof![2 => Just(0i64), 2 => -2i64..12];
    let bounds = [
        bound().boxed(),
        bound().boxed(),
        bound().boxed(),
        bound().boxed(),
    ];
    let flags = (prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    (interval(), -1i64..4, revision, order, target, flags, bounds).prop_map(
        |(range, limit, revision, sort_order, sort_target, (keys_only, count_only), bounds)| {
            RangeRequest {
                range,
                limit,
                revision,
                sort_order,
                sort_target,
                keys_only,
                count_only,
                min_mod_revision: bounds[0],
                max_mod_revision: bounds[1],
                min_create_revision: bounds[2],
                max_create_revision: bounds[3],
                ..RangeRequest::default()
            }
        },
    )
}

fn put() -> impl Strategy<Value = PutRequest> {
    let flags = (
        any::<bool>(),
        prop::bool::weighted(0.15),
        prop::bool::weighted(0.1),
    );
    (key(), value(), flags, prop::bool::weighted(0.03)).prop_map(
        |(key, value, (prev_kv, ignore_value, ignore_lease), lease)| PutRequest {
            key,
            value: if ignore_value { Bytes::new() } else { value },
            lease: LeaseId(i64::from(lease)),
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

fn delete() -> impl Strategy<Value = DeleteRangeRequest> {
    (interval(), any::<bool>()).prop_map(|(range, prev_kv)| DeleteRangeRequest { range, prev_kv })
}

fn compare() -> impl Strategy<Value = Compare> {
    let result = prop::sample::select(vec![
        CompareResult::Equal,
        CompareResult::Greater,
        CompareResult::Less,
        CompareResult::NotEqual,
        CompareResult::Unknown,
    ]);
    let target = prop_oneof![
        (0i64..4).prop_map(CompareTarget::Version),
        (0i64..12).prop_map(CompareTarget::CreateRevision),
        (0i64..12).prop_map(CompareTarget::ModRevision),
        (0i64..2).prop_map(CompareTarget::Lease),
        value().prop_map(CompareTarget::Value),
    ];
    (interval(), result, target).prop_map(|(range, result, target)| Compare {
        range,
        result,
        target,
    })
}

fn txn() -> impl Strategy<Value = TxnRequest> {
    let leaf = prop_oneof![
        range_request().prop_map(RequestOp::Range),
        put().prop_map(RequestOp::Put),
        delete().prop_map(RequestOp::DeleteRange),
    ];
    let operation = leaf.prop_recursive(2, 8, 3, |inner| {
        (
            prop::collection::vec(compare(), 0..2),
            prop::collection::vec(inner.clone(), 0..3),
            prop::collection::vec(inner, 0..3),
        )
            .prop_map(|(compare, success, failure)| {
                RequestOp::Txn(TxnRequest {
                    compare,
                    success,
                    failure,
                })
            })
    });
    (
        prop::collection::vec(compare(), 0..3),
        prop::collection::vec(operation.clone(), 0..4),
        prop::collection::vec(operation, 0..3),
    )
        .prop_map(|(compare, success, failure)| {
            let mut txn = TxnRequest {
                compare,
                success,
                failure,
            };
            txn.success = legal(txn.success).0;
            txn.failure = legal(txn.failure).0;
            txn
        })
}

/// What a branch may put and delete.
#[derive(Default)]
struct Touched {
    puts: Vec<Bytes>,
    deletes: Vec<KeyRange>,
}

impl Touched {
    /// Whether etcd finds a deletion of this key: one without end never counts.
    fn deletes(&self, key: &Bytes) -> bool {
        let mut ranges = self.deletes.iter();
        ranges.any(|range| range.range_end != b"\0".as_ref() && inside(range, key))
    }
}

/// Leaves out what the check of form refuses, and nothing else: a key put twice in one branch, or put and
/// deleted as far as etcd looks. A put in one nested transaction and a deletion in a later one, or one
/// without end anywhere, may meet.
fn legal(operations: Vec<RequestOp>) -> (Vec<RequestOp>, Touched) {
    let mut level = Touched::default();
    for operation in &operations {
        if let RequestOp::DeleteRange(delete) = operation {
            level.deletes.push(delete.range.clone());
        }
    }
    let mut kept: Vec<Option<RequestOp>> = vec![];
    for operation in operations {
        let RequestOp::Txn(inner) = operation else {
            kept.push(Some(operation));
            continue;
        };
        let (success, one) = legal(inner.success);
        let (failure, other) = legal(inner.failure);
        let mut puts = one.puts.iter().chain(&other.puts);
        if puts.any(|key| level.deletes(key) || level.puts.contains(key)) {
            kept.push(None);
            continue;
        }
        level.puts.extend(one.puts.into_iter().chain(other.puts));
        level
            .deletes
            .extend(one.deletes.into_iter().chain(other.deletes));
        kept.push(Some(RequestOp::Txn(TxnRequest {
            compare: inner.compare,
            success,
            failure,
        })));
    }
    for slot in &mut kept {
        let Some(RequestOp::Put(put)) = slot else {
            continue;
        };
        if level.deletes(&put.key) || level.puts.contains(&put.key) {
            *slot = None;
        } else {
            level.puts.push(put.key.clone());
        }
    }
    (kept.into_iter().flatten().collect(), level)
}

fn op() -> impl Strategy<Value = Op> {
    let ranges = prop::collection::vec(range_request().prop_map(RequestOp::Range), 0..3);
    prop_oneof![
        12 => put().prop_map(|put| Op::Write(Write::Put(put))),
        4 => delete().prop_map(|delete| Op::Write(Write::DeleteRange(delete))),
        8 => txn().prop_map(|txn| Op::Write(Write::Txn(txn))),
        3 => (-1i64..14).prop_map(|revision| Op::Write(Write::Compact(revision))),
        8 => (0usize..6).prop_map(Op::Commit),
        2 => (0usize..4).prop_map(Op::Truncate),
        4 => (1usize..5).prop_map(Op::Reclaim),
        6 => range_request().prop_map(Op::Range),
        2 => range_request().prop_map(Op::Hold),
        1 => Just(Op::Release),
        2 => (prop::collection::vec(compare(), 0..2), ranges).prop_map(|(compare, success)| {
            Op::ReadTxn(TxnRequest { compare, success, failure: vec![] })
        }),
        2 => (-2i64..14, interval()).prop_map(|(from, range)| Op::Events(from, range)),
        6 => (1usize..24).prop_map(Op::Checkpoint),
    ]
}

/// A read that was started and not finished.
struct Held {
    jobs: Vec<RangeJob>,
    expected: RangeResponse,
}

/// A checkpoint of each rig that is being written, and what it must say.
struct Taken {
    writers: Vec<Checkpointed>,
    expected: State,
}

struct Scenario {
    model: Model,
    /// Slices of one step; unlimited; replay only.
    rigs: [Rig; 3],
    held: Vec<Held>,
    taken: Option<Taken>,
    /// What a log would hold: the entry of each index, counted from one.
    entries: Vec<Vec<u8>>,
}

impl Scenario {
    fn new() -> Scenario {
        let rigs = [Rig::new(1), Rig::new(1 << 40), Rig::new(3)];
        Scenario {
            model: Model::new(),
            rigs,
            held: vec![],
            taken: None,
            entries: vec![],
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Write(write) => self.write(&write),
            Op::Commit(ahead) => {
                self.model.committed =
                    (self.model.committed + ahead).min(self.model.states.len() - 1);
                let index = Index(self.model.visible().index);
                self.rigs
                    .iter_mut()
                    .for_each(|rig| rig.keyspace.commit(index));
            }
            Op::Truncate(ahead) => {
                let keep = (self.model.committed + ahead).min(self.model.states.len() - 1);
                self.model.states.truncate(keep + 1);
                let after = Index(self.model.head().index);
                self.entries
                    .truncate(usize::try_from(after.0).expect("small"));
                self.rigs.iter_mut().for_each(|rig| rig.truncate(after));
            }
            Op::Reclaim(steps) => self.rigs.iter_mut().for_each(|rig| {
                rig.keyspace.reclaim(&mut Steps::new(steps));
            }),
            Op::Range(request) => {
                let expected = self.expected(&request);
                for rig in &mut self.rigs {
                    let answer = rig.range(request.clone());
                    assert_eq!(
                        answer.map(|answer| answer.response),
                        expected,
                        "{request:?}"
                    );
                }
            }
            Op::Hold(request) => {
                let Ok(expected) = self.expected(&request) else {
                    return;
                };
                let mut jobs = vec![];
                for rig in &mut self.rigs {
                    let mut job = RangeJob::new(&mut rig.keyspace, request.clone())
                        .expect("the model says so");
                    if let Some(answer) = job.run(&rig.keyspace, &mut Steps::new(1)) {
                        assert_eq!(answer.response, expected);
                    } else {
                        jobs.push(job);
                    }
                }
                if jobs.len() == self.rigs.len() {
                    self.held.push(Held { jobs, expected });
                }
            }
            Op::Release => self.release(),
            Op::ReadTxn(txn) => self.read_txn(&txn),
            Op::Events(from, range) => self.events(from, &range),
            Op::Checkpoint(steps) => self.checkpoint(steps),
        }
        self.check();
    }

    fn write(&mut self, write: &Write) {
        let expected = self.model.head().write(write);
        let [stepwise, at_once, replay] = &mut self.rigs;
        let one = stepwise.write(write.clone());
        let other = at_once.write(write.clone());
        assert_eq!(one, other, "slices change nothing");
        let (mut next, answer) = match expected {
            Err(refusal) => {
                assert_eq!(one, Err(refusal));
                return;
            }
            Ok(expected) => expected,
        };
        let (folded, entry) = one.expect("the model does not refuse");
        assert_eq!(folded.answer.as_ref(), Some(&answer), "{write:?}");
        assert_eq!(folded.revision, next.main);
        assert_eq!(folded.changed, next.main > self.model.head().main);
        assert_eq!(
            entry.is_empty(),
            !folded.changed && !matches!(write, Write::Compact(_))
        );
        if !entry.is_empty() {
            let replayed = replay.replay(&entry);
            assert_eq!(
                (replayed.revision, replayed.answer),
                (folded.revision, None)
            );
            next.index += 1;
            self.model.states.push(next);
            self.entries.push(entry);
        }
    }

    fn expected(&self, request: &RangeRequest) -> Result<RangeResponse, Refusal> {
        let visible = self.model.visible();
        match request.revision {
            ..=0 => Ok(visible.range(request, visible.main)),
            at if at > visible.main => Err(Refusal::FutureRevision),
            at if at < visible.floor => Err(Refusal::Compacted),
            at => Ok(visible.range(request, at)),
        }
    }

    fn read_txn(&mut self, txn: &TxnRequest) {
        let expected = self.model.visible().write(&Write::Txn(txn.clone()));
        for rig in &mut self.rigs {
            let mut job = PlanJob::txn(&mut rig.keyspace, txn.clone(), View::Committed);
            let plan = loop {
                if let Some(plan) = job.run(&mut rig.keyspace, &mut Steps::new(rig.slice)) {
                    break plan;
                }
            };
            let answer = plan.map(|plan| rig.read(plan).answer.expect("a script answers"));
            assert_eq!(answer, expected.clone().map(|(_, answer)| answer));
        }
    }

    fn events(&mut self, from: i64, range: &KeyRange) {
        let visible = self.model.visible();
        for rig in &self.rigs {
            match rig.events(from, range) {
                Ok(events) => {
                    assert!(from >= visible.floor);
                    assert_eq!(events, visible.events(from, range));
                }
                Err(compacted) => {
                    assert!(from < visible.floor);
                    assert_eq!(compacted.floor, visible.floor);
                }
            }
        }
    }

    fn checkpoint(&mut self, steps: usize) {
        let rigs = &mut self.rigs;
        let taken = self.taken.get_or_insert_with(|| Taken {
            writers: rigs.iter_mut().map(Checkpointed::begin).collect(),
            expected: self.model.visible().clone(),
        });
        let mut done = true;
        for (writer, rig) in taken.writers.iter_mut().zip(&mut self.rigs) {
            done &= writer.run(rig, steps);
        }
        if done {
            let taken = self.taken.take().expect("it is under way");
            self.restore(&taken);
        }
    }

    /// What was read back is the state that was committed when the checkpoint began, whoever wrote it; a
    /// member that goes on from it with the log after it is like the others.
    fn restore(&mut self, taken: &Taken) {
        let [first, others @ ..] = taken.writers.as_slice() else {
            panic!("three rigs");
        };
        for other in others {
            assert_eq!(first.blocks, other.blocks, "the same state, other bytes");
        }
        let mut rig = Rig::new(3);
        rig.keyspace = first.read();
        let expected = &taken.expected;
        assert_eq!(rig.keyspace.committed_index(), Index(expected.index));
        assert_eq!(rig.keyspace.committed_revision(), expected.main);
        assert_eq!(rig.keyspace.compacted_revision(), expected.floor);
        assert_eq!(
            rig.keyspace.size_bytes(),
            expected.reclaimed_size(expected.floor)
        );
        let everything = everything();
        for revision in expected.floor.max(1)..=expected.main {
            let request = RangeRequest {
                range: everything.clone(),
                revision,
                ..RangeRequest::default()
            };
            let answer = rig.range(request.clone()).expect("readable");
            assert_eq!(answer.response, expected.range(&request, revision));
        }
        assert_eq!(
            rig.events(expected.floor, &everything).expect("readable"),
            expected.events(expected.floor, &everything)
        );
        for entry in &self.entries[usize::try_from(expected.index).expect("small")..] {
            rig.replay(entry);
        }
        rig.keyspace.commit(Index(self.model.visible().index));
        if self.held.is_empty() {
            self.rigs[2] = rig;
        }
    }

    fn release(&mut self) {
        for held in self.held.drain(..) {
            for (mut job, rig) in held.jobs.into_iter().zip(&self.rigs) {
                let answer = loop {
                    if let Some(answer) = job.run(&rig.keyspace, &mut Steps::new(rig.slice)) {
                        break answer;
                    }
                };
                assert_eq!(answer.response, held.expected);
            }
        }
    }

    fn check(&self) {
        let (head, visible) = (self.model.head(), self.model.visible());
        let digests: Vec<_> = self
            .rigs
            .iter()
            .map(|rig| rig.keyspace.digest(Index(head.index)))
            .collect();
        assert!(digests[0].is_some());
        assert!(
            digests.iter().all(|digest| *digest == digests[0]),
            "{digests:?}"
        );
        for Rig { keyspace, .. } in &self.rigs {
            assert_eq!(keyspace.head_revision(), head.main);
            assert_eq!(keyspace.folded_index(), Index(head.index));
            assert_eq!(keyspace.committed_revision(), visible.main);
            assert_eq!(keyspace.committed_index(), Index(visible.index));
            assert_eq!(keyspace.compacted_revision(), visible.floor);
        }
    }

    /// With nothing held, reclaim leaves exactly what etcd would keep, and every readable revision and
    /// event is still there.
    fn finish(&mut self) {
        while self.taken.is_some() {
            self.checkpoint(1_000);
        }
        // What is held must survive this.
        for rig in &mut self.rigs {
            rig.reclaim_all();
        }
        self.release();
        for rig in &mut self.rigs {
            rig.reclaim_all();
        }
        let (head, visible) = (self.model.head(), self.model.visible());
        for rig in &self.rigs {
            assert_eq!(rig.keyspace.reclaimed_through(), visible.floor);
            assert_eq!(
                rig.keyspace.size_bytes(),
                head.reclaimed_size(visible.floor)
            );
        }
        let everything = everything();
        for revision in visible.floor.max(1)..=visible.main {
            let request = RangeRequest {
                range: everything.clone(),
                revision,
                ..RangeRequest::default()
            };
            self.run(Op::Range(request));
        }
        let floor = self.model.visible().floor;
        self.events(floor, &everything);
        self.events(floor + 2, &everything);
    }
}

fn everything() -> KeyRange {
    KeyRange {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Goal: whatever happens in whatever order, the keyspace answers as the obvious one does.
    #[test]
    fn agrees_with_the_model(ops in prop::collection::vec(op(), 1..60)) {
        let mut scenario = Scenario::new();
        for op in ops {
            scenario.run(op);
        }
        scenario.finish();
    }
}
