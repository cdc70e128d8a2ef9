//! What a plan says of itself before it begins.

use bytes::Bytes;
use kontiki::keyspace::Keyspace;
use kontiki::keyspace::request::*;
use kontiki::keyspace::revision::View;
use kontiki::keyspace::steps::Steps;
use kontiki::keyspace::txn::PlanJob;

fn point() -> KeyRange {
    KeyRange {
        key: Bytes::from_static(b"k"),
        range_end: Bytes::new(),
    }
}

/// One of each operation, and `depth` times one more transaction inside. There is one branch to take.
fn nested(depth: u32) -> TxnRequest {
    let compare = Compare {
        range: point(),
        result: CompareResult::Equal,
        target: CompareTarget::Version(0),
    };
    let put = PutRequest {
        key: Bytes::from_static(b"p"),
        ..PutRequest::default()
    };
    let deletion = DeleteRangeRequest {
        range: point(),
        prev_kv: false,
    };
    let range = RangeRequest {
        range: point(),
        ..RangeRequest::default()
    };
    let mut success = vec![
        RequestOp::Range(range),
        RequestOp::Put(put),
        RequestOp::DeleteRange(deletion),
    ];
    if depth > 0 {
        success.push(RequestOp::Txn(nested(depth - 1)));
    }
    TxnRequest {
        compare: vec![compare; 3],
        success,
        failure: Vec::new(),
    }
}

/// Goal: a plan takes as many steps as is said before it begins, and is complete with them.
#[test]
fn steps_are_foretold() {
    let mut keyspace = Keyspace::new();
    for depth in 0..3 {
        let request = nested(depth);
        let most = PlanJob::txn_steps_max(&request);
        for (steps, is_done) in [(most - 1, false), (most, true)] {
            let mut job = PlanJob::txn(&mut keyspace, request.clone(), View::Head);
            let plan = job.run(&mut keyspace, &mut Steps::new(steps));
            assert_eq!(plan.is_some(), is_done, "{steps} steps at depth {depth}");
        }
    }
    let mut interval = nested(1);
    interval.compare[0].range.range_end = Bytes::from_static(b"l");
    assert_eq!(PlanJob::txn_steps_max(&interval), usize::MAX);
}
