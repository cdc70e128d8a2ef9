//! What members say to each other, from any bytes: a typed error or a message, never a panic. A message that
//! is believed says the same when it is said again.
//!
//! The input is frames in a row. A frame whose checksums do not hold is tried again as if they did: the rest
//! of it is taken for the archive, its first byte for the kind.

#![no_main]

use bytes::Bytes;
use kontiki::base::{Incarnation, Index, Instant, MemberId, ShardId, Term};
use kontiki::frame::{
    Encoder, FRAME_HEADER_BYTES, Frame, FrameEncoder, FrameHeader, FrameLabel, PageBuffer,
};
use kontiki::keyspace::request::{PutRequest, RequestOp, TxnRequest};
use kontiki::raft::{Append, Body, Entries, Heartbeat, Message, Position};
use kontiki::shard::event::{Header, Member, PeerMessage, Refusal, Request};
use kontiki::transport::wire::{attachment, decode, encode};
use kontiki_fuzz::{effects, write_seeds_if_asked};
use libfuzzer_sys::fuzz_target;

const VERSION: u8 = 1;
const SHARD: ShardId = ShardId(0);

fuzz_target!(
    init: write_seeds_if_asked(seeds),
    |data: &[u8]| {
        let mut rest = data;
        while let Some(first) = rest.first_chunk::<FRAME_HEADER_BYTES>() {
            let Ok(header) = FrameHeader::parse(first) else {
                break;
            };
            let Some(body) = rest.get(FRAME_HEADER_BYTES..header.length) else {
                break;
            };
            if let Ok(frame) = header.open(&Bytes::copy_from_slice(body)) {
                check(&frame);
            }
            rest = &rest[header.length..];
        }
        if let Some((&kind, archive)) = data.split_first() {
            check(&forged(kind, archive));
        }
    }
);

/// A frame of this archive, whatever it is.
fn forged(kind: u8, archive: &[u8]) -> Frame {
    let mut buffer = PageBuffer::new();
    let label = FrameLabel {
        version: VERSION,
        kind,
        shard: SHARD,
    };
    FrameEncoder::new()
        .frame(label, &0_u8, &[], &mut buffer)
        .expect("a small frame");
    let header = FrameHeader::parse(buffer.first_chunk().expect("a header")).expect("just made");
    let mut frame = header
        .open(&Bytes::copy_from_slice(&buffer[FRAME_HEADER_BYTES..]))
        .expect("just made");
    frame.archive = Bytes::copy_from_slice(archive);
    frame
}

fn check(frame: &Frame) {
    let Ok(message) = decode(frame, VERSION, SHARD) else {
        return;
    };
    let said = framed(&message);
    let header = FrameHeader::parse(said.first_chunk().expect("a header")).expect("just made");
    let frame = header
        .open(&Bytes::copy_from_slice(&said[FRAME_HEADER_BYTES..]))
        .expect("just made");
    let again = decode(&frame, VERSION, SHARD).expect("what is said is believed");
    assert_eq!(framed(&again), said, "{message:?}");
}

fn framed(message: &PeerMessage) -> Vec<u8> {
    let mut buffer = PageBuffer::new();
    encode(
        &mut FrameEncoder::new(),
        VERSION,
        SHARD,
        message,
        &mut buffer,
    )
    .expect("what fitted fits");
    [&buffer[..], &attachment(message).concat()].concat()
}

fn raft(body: Body, records: Vec<Bytes>) -> PeerMessage {
    PeerMessage::Raft {
        message: Message {
            term: Term(3),
            incarnation: Incarnation(4),
            body,
        },
        records,
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let mut entries = Entries::default();
    let mut records = Vec::new();
    for number in 1..4 {
        let mut buffer = PageBuffer::new();
        Encoder::new(u64::MAX)
            .entry(Term(3), Index(number), &effects(number), &mut buffer)
            .expect("a small entry");
        entries.push(Term(3), buffer.len() as u64);
        records.push(Bytes::copy_from_slice(&buffer));
    }
    let append = Body::Append(Append {
        prev: Position::default(),
        entries,
        commit: Index(1),
        probe: false,
    });
    let heartbeat = Body::Heartbeat(Heartbeat {
        commit: Index(1),
        sent: Instant(2),
        context: None,
        digest: None,
    });
    let put = PutRequest {
        key: Bytes::from_static(b"key"),
        value: Bytes::from_static(b"value"),
        ..PutRequest::default()
    };
    let txn = TxnRequest {
        success: vec![RequestOp::Txn(TxnRequest {
            success: vec![RequestOp::Put(put.clone())],
            ..TxnRequest::default()
        })],
        ..TxnRequest::default()
    };
    let forward = |body| PeerMessage::Forward {
        request: 1,
        patience: std::time::Duration::from_secs(1),
        body,
    };
    let messages = [
        raft(append, records),
        raft(heartbeat, Vec::new()),
        forward(Request::Put(put)),
        forward(Request::Txn(txn)),
        PeerMessage::Forwarded {
            request: 1,
            index: Index(2),
            header: Header::default(),
            result: Err(Refusal::TimedOut),
        },
        PeerMessage::Introduce(Member {
            id: MemberId(1),
            name: "infra0".into(),
            peer_urls: vec!["http://10.0.0.1:2380".into()],
            ..Member::default()
        }),
    ];
    let mut seeds = Vec::new();
    let mut all = Vec::new();
    for message in &messages {
        let frame = framed(message);
        all.extend_from_slice(&frame);
        // The same as a kind and an archive.
        let header = FrameHeader::parse(frame.first_chunk().expect("a header")).expect("just made");
        let opened = header
            .open(&Bytes::copy_from_slice(&frame[FRAME_HEADER_BYTES..]))
            .expect("just made");
        seeds.push([&[header.kind][..], &opened.archive].concat());
        seeds.push(frame);
    }
    seeds.push(all);
    seeds
}
