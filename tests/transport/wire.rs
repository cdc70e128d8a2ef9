//! The bytes of messages: frozen, complete, and checked before use.
//!
//! `KONTIKI_GOLDEN=write cargo test --test transport golden` writes the file anew, after a change of a version
//! that was never released.

use bytes::Bytes;
use kontiki::base::limits::{CHECKPOINT_BLOCK_BYTES, PEER_FRAME_BYTES_MAX};
use kontiki::base::{Incarnation, Index, ShardId, Term};
use kontiki::frame::{
    FRAME_HEADER_BYTES, Frame, FrameEncoder, FrameHeader, FrameLabel, PageBuffer,
    RECORD_HEADER_BYTES,
};
use kontiki::keyspace::request::{KeyValue, RangeResponse};
use kontiki::raft::Body;
use kontiki::shard::event::{Header, PeerMessage, Refusal, Request, Response};
use kontiki::transport::wire::{PROTOCOL_VERSIONS, WireError, attachment, decode, encode};

use crate::messages;

const GOLDEN: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/transport/golden/messages-v1.txt"
);
const SHARD: ShardId = ShardId(3);
const VERSION: u8 = 1;

fn encoded(message: &PeerMessage) -> Vec<u8> {
    let mut buffer = PageBuffer::new();
    let length = encode(
        &mut FrameEncoder::new(),
        VERSION,
        SHARD,
        message,
        &mut buffer,
    )
    .expect("it fits");
    let bytes = [&buffer[..], &attachment(message).concat()].concat();
    assert_eq!(bytes.len(), length);
    bytes
}

fn opened(bytes: &[u8]) -> Frame {
    let header = FrameHeader::parse(bytes.first_chunk().expect("a header")).expect("a header");
    let body = Bytes::copy_from_slice(&bytes[FRAME_HEADER_BYTES..]);
    header.open(&body).expect("a frame")
}

fn decoded(bytes: &[u8]) -> Result<PeerMessage, WireError> {
    decode(&opened(bytes), VERSION, SHARD)
}

/// Goal: every message is read back as it was, and the same one always gives the same bytes.
#[test]
fn there_and_back() {
    for (name, message) in messages::all() {
        let bytes = encoded(&message);
        let back = decoded(&bytes).expect(&name);
        assert_eq!(format!("{back:?}"), format!("{message:?}"), "{name}");
        assert_eq!(encoded(&back), bytes, "{name}");
    }
}

/// Goal: the bytes of every message of version 1 stay what they are.
#[test]
fn golden() {
    let written: String = messages::all()
        .iter()
        .map(|(name, message)| {
            let hex: String = encoded(message)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            format!("{name}\n  {hex}\n")
        })
        .collect();
    if std::env::var_os("KONTIKI_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &written).expect("the golden file is writable");
    }
    let golden = std::fs::read_to_string(GOLDEN).expect("the golden file is there");
    for (written, golden) in written.lines().zip(golden.lines()) {
        assert_eq!(written, golden);
    }
    assert_eq!(written.lines().count(), golden.lines().count());
    assert_eq!(
        PROTOCOL_VERSIONS,
        (1, 1),
        "a new version has a file of its own"
    );
}

/// Goal: the records of an append are pieces of what was received, not copies.
#[test]
fn records_are_not_copied() {
    let bytes = encoded(&messages::append(5, &[100, 200]));
    let frame = opened(&bytes);
    let PeerMessage::Raft { records, .. } = decode(&frame, VERSION, SHARD).expect("sound") else {
        panic!("an append");
    };
    let range = frame.attachment.as_ptr_range();
    for record in &records {
        assert!(range.contains(&record.as_ptr()));
    }
    assert_eq!(records.concat(), frame.attachment);
}

/// Goal: a frame of another version, shard or kind is refused for that.
#[test]
fn other_frames() {
    let frame = opened(&encoded(&messages::heartbeat(1)));
    assert_eq!(
        decode(&frame, 2, SHARD).err(),
        Some(WireError::Version(VERSION))
    );
    assert_eq!(
        decode(&frame, VERSION, ShardId(9)).err(),
        Some(WireError::Shard(SHARD))
    );
    let mut frame = frame;
    frame.header.kind = 200;
    assert_eq!(
        decode(&frame, VERSION, SHARD).err(),
        Some(WireError::Kind(200))
    );
}

/// A frame of `message` with other bytes after its archive.
fn with_attachment(message: &PeerMessage, attachment: &[u8]) -> Frame {
    let mut frame = opened(&encoded(message));
    frame.attachment = Bytes::copy_from_slice(attachment);
    frame
}

/// Goal: an append with fewer, more or other records than it names is refused, and so is any other message
/// with bytes after it.
#[test]
fn attachments() {
    let append = messages::append(5, &[3, 4]);
    let records = attachment(&append).concat();
    let first = attachment(&append)[0].clone();
    let check = |message: &PeerMessage, bytes: &[u8], expected: u64| {
        assert_eq!(
            decode(&with_attachment(message, bytes), VERSION, SHARD).err(),
            Some(WireError::Attachment { expected })
        );
    };
    check(&append, &first, 2);
    check(&append, b"", 2);
    check(&append, &[&records[..], &first].concat(), 2);
    check(&messages::heartbeat(1), &first, 0);
    check(&PeerMessage::Introduce(Default::default()), &first, 0);
    let cut = with_attachment(&append, &records[..records.len() - 1]);
    assert!(matches!(
        decode(&cut, VERSION, SHARD),
        Err(WireError::Record(_))
    ));
}

/// Goal: a block of a checkpoint has bytes, and not more than a block has.
#[test]
fn blocks() {
    for size in [1, CHECKPOINT_BLOCK_BYTES] {
        assert!(decoded(&encoded(&messages::block(&vec![1; size]))).is_ok());
    }
    for size in [0, CHECKPOINT_BLOCK_BYTES + 1] {
        let bytes = encoded(&messages::block(&vec![1; size]));
        assert_eq!(decoded(&bytes).err(), Some(WireError::BlockSize(size)));
    }
}

/// Goal: an append that claims more entries than can be is refused before memory is taken for them.
#[test]
fn claims_of_entries() {
    let PeerMessage::Raft { mut message, .. } = messages::append(5, &[3]) else {
        unreachable!("an append");
    };
    let Body::Append(append) = &mut message.body else {
        unreachable!("an append");
    };
    for (count, expected) in [
        (u64::MAX, WireError::Number(u64::MAX)),
        (1 << 31, WireError::Attachment { expected: 1 << 31 }),
        (0, WireError::EmptyRun),
    ] {
        append.entries.runs[0].count = count;
        let claims = PeerMessage::Raft {
            message: kontiki::raft::Message {
                body: Body::Append(append.clone()),
                term: Term(9),
                incarnation: message.incarnation,
            },
            records: Vec::new(),
        };
        let frame = opened(&encoded(&claims));
        assert_eq!(decode(&frame, VERSION, SHARD).err(), Some(expected));
    }
    // More than there are headers in so many bytes: the records are not looked at.
    append.entries.runs[0].count = 101;
    let claims = PeerMessage::Raft {
        message,
        records: Vec::new(),
    };
    let frame = with_attachment(&claims, &vec![0; 100 * RECORD_HEADER_BYTES]);
    assert_eq!(
        decode(&frame, VERSION, SHARD).err(),
        Some(WireError::Attachment { expected: 101 })
    );
}

/// Goal: terms and indexes that would overflow when they are counted on are refused at the door.
#[test]
fn numbers_nobody_reached() {
    let check = |term: u64, body: Body, expected: Option<u64>| {
        let message = kontiki::raft::Message {
            term: Term(term),
            incarnation: Incarnation(1),
            body,
        };
        let message = PeerMessage::Raft {
            message,
            records: Vec::new(),
        };
        let frame = opened(&encoded(&message));
        let refused = decode(&frame, VERSION, SHARD).err();
        assert_eq!(refused, expected.map(WireError::Number), "{message:?}");
    };
    let read = |index| Body::ReadResponse {
        context: kontiki::raft::ReadContext(1),
        index: Index(index),
        last: Index(1),
    };
    check(1 << 62, Body::NewerTerm, None);
    check(u64::MAX, Body::NewerTerm, Some(u64::MAX));
    check(1, read(1 << 62), None);
    check(1, read(u64::MAX), Some(u64::MAX));
}

/// Goal: transactions nest as deep as requests may, and deeper ones are refused without harm to the stack.
#[test]
fn nesting() {
    let forward = |depth| PeerMessage::Forward {
        request: 1,
        patience: Default::default(),
        body: Request::Txn(messages::nested(depth)),
    };
    assert!(decoded(&encoded(&forward(60))).is_ok());
    assert!(matches!(
        decoded(&encoded(&forward(2_000))),
        Err(WireError::Archive(_))
    ));
}

/// Goal: an answer that fits into no frame says that the outcome is not known instead.
#[test]
fn large_answers() {
    let value = Bytes::from(vec![1; PEER_FRAME_BYTES_MAX]);
    let answer = PeerMessage::Forwarded {
        request: 4,
        index: Index(5),
        header: Header::default(),
        result: Ok(Response::Range(RangeResponse {
            kvs: vec![KeyValue {
                value,
                ..KeyValue::default()
            }],
            more: false,
            count: 1,
        })),
    };
    let back = decoded(&encoded(&answer)).expect("sound");
    assert!(matches!(
        back,
        PeerMessage::Forwarded {
            request: 4,
            index: Index(5),
            result: Err(Refusal::TimedOut),
            ..
        }
    ));
}

/// Goal: archives that were cut or have a flipped bit, with checksums that hold, are refused or are some
/// other message, and never a panic.
#[test]
fn hostile_archives() {
    for (_, message) in messages::all() {
        let frame = opened(&encoded(&message));
        let attempt = |archive: &[u8]| {
            let mut hostile = frame.clone();
            hostile.archive = Bytes::copy_from_slice(archive);
            if let Ok(message) = decode(&hostile, VERSION, SHARD) {
                // What is believed can be said again.
                let mut buffer = PageBuffer::new();
                let mut encoder = FrameEncoder::new();
                encode(&mut encoder, VERSION, SHARD, &message, &mut buffer).expect("it fits");
            }
        };
        let mut archive = frame.archive.to_vec();
        for cut in 0..archive.len() {
            attempt(&archive[..cut]);
        }
        for bit in 0..archive.len() * 8 {
            archive[bit / 8] ^= 1 << (bit % 8);
            attempt(&archive);
            archive[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

/// Goal: a kind cannot be taken for another one: archives are refused or read, but never out of bounds.
#[test]
fn kinds_confused() {
    for (_, message) in messages::all() {
        let frame = opened(&encoded(&message));
        for kind in 0..=255 {
            let mut confused = frame.clone();
            confused.header.kind = kind;
            drop(decode(&confused, VERSION, SHARD));
        }
    }
    let label = FrameLabel {
        version: VERSION,
        kind: 1,
        shard: SHARD,
    };
    let mut buffer = PageBuffer::new();
    FrameEncoder::new()
        .frame(label, &0_u8, &[], &mut buffer)
        .expect("small");
    assert!(matches!(decoded(&buffer), Err(WireError::Archive(_))));
}
