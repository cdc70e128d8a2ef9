//! A million keys in one request: the entry stays small and every slice stays bounded.

use bytes::Bytes;
use kontiki::base::Index;
use kontiki::keyspace::TruncateJob;
use kontiki::keyspace::fold::{Answer, FoldJob};
use kontiki::keyspace::range::RangeJob;
use kontiki::keyspace::request::*;
use kontiki::keyspace::steps::{DELETE_STEPS, RECLAIM_STEPS, Steps, TRUNCATE_STEPS};

use super::rig::{Rig, Write, archive, effects};

const KEYS: usize = 1_000_000;
const STEPS: usize = 2_048;

fn everything() -> KeyRange {
    KeyRange {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
    }
}

fn filled(rig: &mut Rig) {
    for number in 0..KEYS {
        let key = Bytes::from(format!("/registry/pods/{number:08}"));
        let value = Bytes::from_static(b"v");
        rig.write(Write::Put(PutRequest {
            key,
            value,
            ..PutRequest::default()
        }))
        .expect("no refusal");
    }
    rig.keyspace.commit(rig.keyspace.folded_index());
}

/// The number of slices that `work` takes, each of at most [`STEPS`] steps.
fn slices(mut work: impl FnMut() -> bool) -> usize {
    let mut slices = 1;
    while !work() {
        slices += 1;
    }
    slices
}

/// Goal: a million keys are deleted, read, truncated, deleted again, compacted and reclaimed with a tiny
/// entry and in as many slices as their number asks for.
#[test]
fn delete_a_million_keys() {
    let mut rig = Rig::new(STEPS);
    filled(&mut rig);
    let size_full = rig.keyspace.size_bytes();
    let full = |changes: usize, each: usize| {
        let slices = changes.div_ceil(STEPS.div_ceil(each));
        slices..=slices + 1
    };

    let request = RangeRequest {
        range: everything(),
        count_only: true,
        ..RangeRequest::default()
    };
    let mut read = RangeJob::new(&mut rig.keyspace, request).expect("current");
    let mut count = 0;
    let reading = slices(|| {
        read.run(&rig.keyspace, &mut Steps::new(STEPS))
            .inspect(|a| count = a.response.count)
            .is_some()
    });
    assert_eq!(count, KEYS as i64);
    assert!(full(KEYS, 1).contains(&reading), "{reading} slices");

    let delete = DeleteRangeRequest {
        range: everything(),
        prev_kv: false,
    };
    for truncate in [true, false] {
        let plan = rig
            .plan(Write::DeleteRange(delete.clone()))
            .expect("no refusal");
        let entry = archive(&plan.effects);
        assert!(entry.len() < 64, "{} bytes", entry.len());
        let index = rig.keyspace.folded_index().next();
        let mut fold = FoldJob::lead(&mut rig.keyspace, index, plan.script);
        let mut answer = None;
        let folding = slices(|| {
            answer = fold.run(&mut rig.keyspace, effects(&entry), &mut Steps::new(STEPS));
            answer.is_some()
        });
        assert!(
            full(KEYS, DELETE_STEPS).contains(&folding),
            "{folding} slices"
        );
        let expected = DeleteRangeResponse {
            deleted: KEYS as i64,
            prev_kvs: vec![],
        };
        assert_eq!(
            answer.expect("complete").answer,
            Some(Answer::DeleteRange(expected))
        );
        if truncate {
            let mut cut = TruncateJob::new(&mut rig.keyspace, Index(index.0 - 1));
            let cutting = slices(|| cut.run(&mut rig.keyspace, &mut Steps::new(STEPS)));
            assert!(
                full(KEYS, TRUNCATE_STEPS).contains(&cutting),
                "{cutting} slices"
            );
            assert_eq!(rig.keyspace.size_bytes(), size_full);
        }
    }

    let head = rig.keyspace.head_revision();
    rig.write(Write::Put(PutRequest {
        key: Bytes::from_static(b"k"),
        ..PutRequest::default()
    }))
    .expect("put");
    rig.write(Write::Compact(head + 1)).expect("current");
    rig.keyspace.commit(rig.keyspace.folded_index());
    let reclaiming = slices(|| !rig.keyspace.reclaim(&mut Steps::new(STEPS)));
    assert!(
        full(2 * KEYS, RECLAIM_STEPS).contains(&reclaiming),
        "{reclaiming} slices"
    );
    assert_eq!(rig.keyspace.reclaimed_through(), head + 1);
    assert!(rig.keyspace.size_bytes() < 256, "one key is left");
}

/// Goal: a deletion that is cut in the middle of its fold leaves nothing behind.
#[test]
fn truncate_a_fold_under_way() {
    let mut rig = Rig::new(STEPS);
    for key in ["a", "b", "c"] {
        rig.write(Write::Put(PutRequest {
            key: Bytes::from(key),
            ..PutRequest::default()
        }))
        .expect("put");
    }
    let before = (
        rig.keyspace.folded_index(),
        rig.keyspace.head_revision(),
        rig.keyspace.size_bytes(),
    );
    let delete = Write::DeleteRange(DeleteRangeRequest {
        range: everything(),
        prev_kv: true,
    });
    let plan = rig.plan(delete).expect("no refusal");
    let entry = archive(&plan.effects);
    let mut fold = FoldJob::lead(&mut rig.keyspace, before.0.next(), plan.script);
    assert!(
        fold.run(&mut rig.keyspace, effects(&entry), &mut Steps::new(2))
            .is_none()
    );
    assert_ne!(rig.keyspace.size_bytes(), before.2);
    drop(fold);
    rig.truncate(before.0);
    let after = (
        rig.keyspace.folded_index(),
        rig.keyspace.head_revision(),
        rig.keyspace.size_bytes(),
    );
    assert_eq!(after, before);
    rig.keyspace.commit(before.0);
    let read = rig
        .range(RangeRequest {
            range: everything(),
            ..RangeRequest::default()
        })
        .expect("current");
    assert_eq!(read.response.kvs.len(), 3);
}
