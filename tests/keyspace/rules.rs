//! etcd's exact rules, one by one, where a random history would seldom meet them.

use bytes::Bytes;
use kontiki::base::LeaseId;
use kontiki::keyspace::fold::Answer;
use kontiki::keyspace::range::RangeJob;
use kontiki::keyspace::request::*;
use kontiki::keyspace::steps::Steps;

use super::rig::{Rig, Write};

fn put(key: &'static str, value: &'static str) -> PutRequest {
    let (key, value) = (Bytes::from(key), Bytes::from(value));
    PutRequest {
        key,
        value,
        ..PutRequest::default()
    }
}

fn delete(key: &'static str) -> Write {
    let range = KeyRange {
        key: Bytes::from(key),
        range_end: Bytes::new(),
    };
    Write::DeleteRange(DeleteRangeRequest {
        range,
        prev_kv: false,
    })
}

fn refusal(rig: &mut Rig, write: Write) -> Option<Refusal> {
    rig.write(write).err()
}

/// Goal: an empty store is at revision 1 with floor -1; compacting at 0 works once, at -1 never.
#[test]
fn compactions_of_an_empty_store() {
    let mut rig = Rig::new(1);
    assert_eq!(
        (
            rig.keyspace.head_revision(),
            rig.keyspace.compacted_revision()
        ),
        (1, -1)
    );
    assert_eq!(
        refusal(&mut rig, Write::Compact(-1)),
        Some(Refusal::Compacted)
    );
    assert_eq!(
        refusal(&mut rig, Write::Compact(2)),
        Some(Refusal::FutureRevision)
    );
    assert_eq!(refusal(&mut rig, Write::Compact(0)), None);
    // Pending floors count at once for the next compaction, but are not in force before the commit.
    assert_eq!(
        refusal(&mut rig, Write::Compact(0)),
        Some(Refusal::Compacted)
    );
    assert_eq!(rig.keyspace.compacted_revision(), -1);
    assert_eq!(refusal(&mut rig, Write::Compact(1)), None);
    rig.keyspace.commit(rig.keyspace.folded_index());
    assert_eq!(
        (
            rig.keyspace.head_revision(),
            rig.keyspace.compacted_revision()
        ),
        (1, 1)
    );
}

/// Goal: create, mod and version over puts, a deletion and a new life.
#[test]
fn revisions_of_a_key() {
    let mut rig = Rig::new(1);
    let mut check = |write: Write, expected: Option<(i64, i64, i64)>| {
        rig.write(write).expect("no refusal");
        rig.keyspace.commit(rig.keyspace.folded_index());
        let range = KeyRange {
            key: Bytes::from("k"),
            range_end: Bytes::new(),
        };
        let answer = rig
            .range(RangeRequest {
                range,
                ..RangeRequest::default()
            })
            .expect("current");
        let found = answer.response.kvs.first();
        assert_eq!(
            found.map(|kv| (kv.create_revision, kv.mod_revision, kv.version)),
            expected
        );
    };
    check(Write::Put(put("k", "1")), Some((2, 2, 1)));
    check(Write::Put(put("k", "1")), Some((2, 3, 2)));
    check(delete("k"), None);
    check(delete("k"), None);
    check(Write::Put(put("k", "")), Some((5, 5, 1)));
}

/// Goal: a put asks for the lease before the key, alone and inside a transaction, whose operations are
/// refused in their order.
#[test]
fn order_of_refusals() {
    let mut rig = Rig::new(1);
    let both = PutRequest {
        lease: LeaseId(7),
        ignore_value: true,
        ..put("k", "")
    };
    assert_eq!(
        refusal(&mut rig, Write::Put(both.clone())),
        Some(Refusal::LeaseNotFound)
    );
    let range = RangeRequest {
        revision: 99,
        ..RangeRequest::default()
    };
    let operations = [RequestOp::Range(range), RequestOp::Put(both)];
    for (first, second, expected) in [
        (0, 1, Refusal::FutureRevision),
        (1, 0, Refusal::LeaseNotFound),
    ] {
        let txn = TxnRequest {
            success: vec![operations[first].clone(), operations[second].clone()],
            ..TxnRequest::default()
        };
        assert_eq!(refusal(&mut rig, Write::Txn(txn)), Some(expected));
    }
}

/// Goal: a missing key fails every compare of its value, and compares as zero otherwise.
#[test]
fn compares_of_a_missing_key() {
    let mut rig = Rig::new(1);
    let mut check = |result, target, expected| {
        let range = KeyRange {
            key: Bytes::from("none"),
            range_end: Bytes::new(),
        };
        let compare = vec![Compare {
            range,
            result,
            target,
        }];
        let txn = Write::Txn(TxnRequest {
            compare,
            ..TxnRequest::default()
        });
        let (folded, entry) = rig.write(txn).expect("no refusal");
        assert!(entry.is_empty() && !folded.changed);
        let expected = TxnResponse {
            succeeded: expected,
            responses: vec![],
        };
        assert_eq!(folded.answer, Some(Answer::Txn(expected)));
    };
    check(
        CompareResult::NotEqual,
        CompareTarget::Value(Bytes::from("x")),
        false,
    );
    check(
        CompareResult::Unknown,
        CompareTarget::Value(Bytes::new()),
        false,
    );
    check(CompareResult::Equal, CompareTarget::Version(0), true);
    check(CompareResult::Less, CompareTarget::CreateRevision(1), true);
    check(CompareResult::Unknown, CompareTarget::Lease(5), true);
}

/// Goal: with order NONE and a target the limit cuts in key order first; with an explicit order it does
/// not. A page that does not count stops at the first key beyond the limit.
#[test]
fn limits_and_orders() {
    let mut rig = Rig::new(1);
    for (key, value) in [("a", "3"), ("b", "4"), ("c", "2"), ("d", "1")] {
        rig.write(Write::Put(put(key, value))).expect("no refusal");
    }
    rig.keyspace.commit(rig.keyspace.folded_index());
    let mut check = |request: RangeRequest, keys: &[&str], count| {
        let range = KeyRange {
            key: Bytes::from("\0"),
            range_end: Bytes::from("\0"),
        };
        let response = rig
            .range(RangeRequest {
                range,
                limit: 2,
                ..request
            })
            .expect("current")
            .response;
        let found: Vec<_> = response.kvs.iter().map(|kv| kv.key.clone()).collect();
        assert_eq!(
            (found, response.count, response.more),
            (
                keys.iter()
                    .map(|key| Bytes::from(key.to_string()))
                    .collect(),
                count,
                true
            )
        );
    };
    let by_value = RangeRequest {
        sort_target: SortTarget::Value,
        ..RangeRequest::default()
    };
    check(by_value.clone(), &["c", "a"], 4);
    check(
        RangeRequest {
            sort_order: SortOrder::Ascend,
            ..by_value.clone()
        },
        &["d", "c"],
        4,
    );
    check(
        RangeRequest {
            sort_order: SortOrder::Descend,
            ..by_value
        },
        &["b", "a"],
        4,
    );
    check(
        RangeRequest {
            sort_order: SortOrder::Descend,
            ..RangeRequest::default()
        },
        &["d", "c"],
        4,
    );
    check(
        RangeRequest {
            count_skipped: true,
            ..RangeRequest::default()
        },
        &["a", "b"],
        3,
    );
}

/// Goal: a read under way gives its answer although everything it reads is compacted meanwhile; the space
/// comes back once it is complete.
#[test]
fn a_read_outlives_a_compaction() {
    let mut rig = Rig::new(1);
    for value in ["1", "2"] {
        for key in ["a", "b", "c"] {
            rig.write(Write::Put(put(key, value))).expect("no refusal");
        }
    }
    rig.keyspace.commit(rig.keyspace.folded_index());
    let range = KeyRange {
        key: Bytes::from("a"),
        range_end: Bytes::from("\0"),
    };
    let request = RangeRequest {
        range,
        revision: 4,
        ..RangeRequest::default()
    };
    let mut job = RangeJob::new(&mut rig.keyspace, request).expect("readable");
    assert!(job.run(&rig.keyspace, &mut Steps::new(1)).is_none());
    let size = rig.keyspace.size_bytes();
    rig.write(Write::Compact(7)).expect("current");
    rig.keyspace.commit(rig.keyspace.folded_index());
    rig.reclaim_all();
    assert!(rig.keyspace.reclaimed_through() <= 4);
    assert_eq!(rig.keyspace.size_bytes(), size);
    let answer = job
        .run(&rig.keyspace, &mut Steps::new(100))
        .expect("three keys");
    assert!(answer.response.kvs.iter().all(|kv| kv.value == "1"));
    assert_eq!(answer.response.kvs.len(), 3);
    rig.reclaim_all();
    assert_eq!(rig.keyspace.reclaimed_through(), 7);
    assert!(rig.keyspace.size_bytes() < size);
}

fn put_of(key: &'static str, value: &'static str) -> RequestOp {
    RequestOp::Put(PutRequest {
        prev_kv: true,
        ..put(key, value)
    })
}

fn delete_of(key: &'static str, range_end: &'static str) -> RequestOp {
    let range = KeyRange {
        key: Bytes::from(key),
        range_end: Bytes::from(range_end),
    };
    RequestOp::DeleteRange(DeleteRangeRequest {
        range,
        prev_kv: true,
    })
}

fn sequence(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest {
        success,
        ..TxnRequest::default()
    }
}

/// Goal: a transaction that writes a key more than once leaves what its last operation left, shows each
/// change as an event, and survives truncation and compaction.
#[test]
fn a_key_written_twice_in_a_transaction() {
    for slice in [1, 1 << 40] {
        let mut rig = Rig::new(slice);
        rig.write(Write::Put(put("a", "old"))).expect("a put");
        let before = rig.keyspace.size_bytes();
        // Revision 3: deletes, recreates, deletes again; a new key comes and goes.
        let operations = vec![
            delete_of("a", "\0"),
            RequestOp::Txn(sequence(vec![put_of("a", "new"), put_of("b", "new")])),
            RequestOp::Txn(sequence(vec![delete_of("a", "b"), delete_of("b", "")])),
        ];
        let truncated = rig.keyspace.folded_index();
        for round in 0..2 {
            let (folded, _) = rig
                .write(Write::Txn(sequence(operations.clone())))
                .expect("a transaction");
            assert_eq!((folded.revision, folded.changed), (3, true));
            if round == 0 {
                rig.truncate(truncated);
                assert_eq!(rig.keyspace.size_bytes(), before);
            }
        }
        // Revision 4: the other way round.
        let operations = vec![
            RequestOp::Txn(sequence(vec![put_of("a", "1")])),
            RequestOp::Txn(sequence(vec![delete_of("a", "")])),
            RequestOp::Range(RangeRequest {
                range: KeyRange {
                    key: Bytes::from("a"),
                    range_end: Bytes::from("\0"),
                },
                ..RangeRequest::default()
            }),
        ];
        let (folded, _) = rig
            .write(Write::Txn(sequence(operations)))
            .expect("a transaction");
        let Some(Answer::Txn(answer)) = folded.answer else {
            panic!("the answer of a transaction: {folded:?}");
        };
        let ResponseOp::Txn(nested) = &answer.responses[1] else {
            panic!("a nested answer: {answer:?}");
        };
        let ResponseOp::DeleteRange { response, .. } = &nested.responses[0] else {
            panic!("the answer of a deletion: {nested:?}");
        };
        assert_eq!((response.deleted, response.prev_kvs.len()), (1, 1));
        assert_eq!(
            (
                response.prev_kvs[0].create_revision,
                response.prev_kvs[0].version
            ),
            (4, 1)
        );
        let ResponseOp::Range { response, .. } = &answer.responses[2] else {
            panic!("the answer of a range: {answer:?}");
        };
        assert_eq!(response.count, 0);

        rig.keyspace.commit(rig.keyspace.folded_index());
        let all = KeyRange {
            key: Bytes::from("a"),
            range_end: Bytes::from("\0"),
        };
        let seen = |rig: &Rig, from| {
            let events = rig.events(from, &all).expect("at or above the floor");
            events
                .iter()
                .map(|event| (event.revision.main, event.revision.sub, event.deleted))
                .collect::<Vec<_>>()
        };
        let third = [
            (3, 0, true),
            (3, 1, false),
            (3, 2, false),
            (3, 3, true),
            (3, 4, true),
        ];
        let fourth = [(4, 0, false), (4, 1, true)];
        assert_eq!(seen(&rig, 3), [&third[..], &fourth].concat());
        rig.write(Write::Compact(3)).expect("a compaction");
        rig.keyspace.commit(rig.keyspace.folded_index());
        rig.reclaim_all();
        assert_eq!(seen(&rig, 3), [&third[..], &fourth].concat());
        rig.write(Write::Compact(4)).expect("a compaction");
        rig.keyspace.commit(rig.keyspace.folded_index());
        rig.reclaim_all();
        assert_eq!(seen(&rig, 4), fourth);
        rig.write(Write::Put(put("c", ""))).expect("a put");
        rig.write(Write::Compact(5)).expect("a compaction");
        rig.keyspace.commit(rig.keyspace.folded_index());
        rig.reclaim_all();
        assert_eq!(
            rig.keyspace.size_bytes(),
            1 + kontiki::keyspace::KEY_OVERHEAD_BYTES + kontiki::keyspace::VERSION_OVERHEAD_BYTES
        );
    }
}

/// Goal: keeping the value of a key that the same transaction has deleted is refused as a whole.
#[test]
fn nothing_is_kept_of_a_deleted_key() {
    let mut rig = Rig::new(1);
    rig.write(Write::Put(put("a", "v"))).expect("a put");
    let keep = RequestOp::Put(PutRequest {
        ignore_value: true,
        ..put("a", "")
    });
    let operations = vec![delete_of("a", "\0"), keep];
    assert_eq!(
        refusal(&mut rig, Write::Txn(sequence(operations))),
        Some(Refusal::KeyNotFound)
    );
    assert_eq!(rig.keyspace.head_revision(), 2);
}
