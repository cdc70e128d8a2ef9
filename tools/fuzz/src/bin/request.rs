//! The protobuf requests of the KV service and its neighbours: decoding, checks of form and conversion
//! give a request or a status, never a panic. The first byte chooses the method.

#![no_main]

use bytes::Bytes;
use kontiki::base::MemberId;
use kontiki::rpc::form::FormLimits;
use kontiki::rpc::method::{KvMethod, Method};
use kontiki::rpc::pb::etcdserverpb as pb;
use kontiki::rpc::{cluster, health, kv, maintenance};
use kontiki_fuzz::write_seeds_if_asked;
use libfuzzer_sys::fuzz_target;
use prost::Message;

const LIMITS: FormLimits = FormLimits {
    request_size_bytes_max: 4096,
    transaction_operations_max: 16,
    member: MemberId(1),
};

fuzz_target!(
    init: write_seeds_if_asked(seeds),
    |data: &[u8]| {
        let Some((&method, message)) = data.split_first() else {
            return;
        };
        if let Ok(path) = std::str::from_utf8(message) {
            std::hint::black_box(Method::find(path).is_ok());
        }
        let message = Bytes::copy_from_slice(message);
        let taken = match method % 10 {
            0 => kv::parse(KvMethod::Range, message, &LIMITS).is_ok(),
            1 => kv::parse(KvMethod::Put, message, &LIMITS).is_ok(),
            2 => kv::parse(KvMethod::DeleteRange, message, &LIMITS).is_ok(),
            3 => kv::parse(KvMethod::Txn, message, &LIMITS).is_ok(),
            4 => kv::parse(KvMethod::Compact, message, &LIMITS).is_ok(),
            5 => kv::parse_stream(message).is_ok(),
            6 => maintenance::parse_status(message).is_ok(),
            7 => maintenance::parse_alarm(message).is_ok(),
            8 => cluster::parse_member_list(message).is_ok(),
            _ => health::parse(message).is_ok(),
        };
        std::hint::black_box(taken);
    }
);

fn seeds() -> Vec<Vec<u8>> {
    let key = Bytes::from_static(b"key");
    let put = pb::PutRequest {
        key: key.clone(),
        value: Bytes::from_static(b"value"),
        lease: 1,
        prev_kv: true,
        ..Default::default()
    };
    let range = pb::RangeRequest {
        key: key.clone(),
        range_end: Bytes::from_static(&[0]),
        limit: 5,
        revision: 3,
        sort_order: 1,
        sort_target: 2,
        min_mod_revision: 1,
        ..Default::default()
    };
    let deletion = pb::DeleteRangeRequest {
        key: key.clone(),
        range_end: Bytes::from_static(b"kez"),
        prev_kv: true,
    };
    let operation = |request| pb::RequestOp {
        request: Some(request),
    };
    let inner = pb::TxnRequest {
        success: vec![operation(pb::request_op::Request::RequestPut(put.clone()))],
        ..Default::default()
    };
    let transaction = pb::TxnRequest {
        compare: vec![pb::Compare {
            result: 1,
            target: 3,
            key,
            target_union: Some(pb::compare::TargetUnion::Value(Bytes::from_static(b"v"))),
            ..Default::default()
        }],
        success: vec![
            operation(pb::request_op::Request::RequestRange(range.clone())),
            operation(pb::request_op::Request::RequestTxn(inner)),
        ],
        failure: vec![operation(pb::request_op::Request::RequestDeleteRange(
            deletion.clone(),
        ))],
    };
    let compaction = pb::CompactionRequest {
        revision: 4,
        physical: true,
    };
    let alarm = pb::AlarmRequest {
        action: 2,
        member_id: 9,
        alarm: 1,
    };
    let seed = |method: u8, message: Vec<u8>| [vec![method], message].concat();
    vec![
        seed(0, range.encode_to_vec()),
        seed(1, put.encode_to_vec()),
        seed(2, deletion.encode_to_vec()),
        seed(3, transaction.encode_to_vec()),
        seed(4, compaction.encode_to_vec()),
        seed(5, range.encode_to_vec()),
        seed(7, alarm.encode_to_vec()),
        seed(8, vec![8, 1]),
        seed(9, b"/etcdserverpb.KV/Put".to_vec()),
    ]
}
