//! Entries with good checksums and any body: taken for the replay, or refused when they are read.
//!
//! They are not folded: that a sound archive also makes sense, such as one version per key and revision,
//! is the leader's promise, and the fold asserts it. The input is a list of bodies, each behind two bytes
//! of length.

#![no_main]

use kontiki::base::{Index, Term};
use kontiki::frame::{Encoder, PageBuffer, Record, RecordKind, access};
use kontiki::shard::replay::Piece;
use kontiki::wal::Replayed;
use kontiki_fuzz::{Effect, effects, write_seeds_if_asked};
use libfuzzer_sys::fuzz_target;

/// What the shard stores as an entry, as far as the seeds need it: each variant is empty or one list,
/// so that the archive is laid out as the shard's own.
#[derive(rkyv::Archive, rkyv::Serialize)]
enum Body {
    Noop,
    Effects(Vec<Effect>),
    Cluster(Vec<u8>),
}

fuzz_target!(
    init: write_seeds_if_asked(seeds),
    |data: &[u8]| {
        let mut rest = data;
        while let Some((&length, after)) = rest.split_first_chunk() {
            let length = usize::from(u16::from_be_bytes(length)).min(after.len());
            let (body, after) = after.split_at(length);
            rest = after;
            // A body lies in a log at a multiple of the record's alignment, and so it does here.
            let mut aligned = PageBuffer::new();
            aligned.extend_from_slice(body);
            let mut buffer = PageBuffer::new();
            Encoder::mark(RecordKind::Seal, Term(1), Index(1), &mut buffer);
            let seal = Record::parse(&buffer).expect("what was encoded").0;
            let mut header = seal.header;
            header.kind = RecordKind::Entry;
            let entry = Record {
                header,
                body: &aligned,
                bytes: seal.bytes,
            };
            std::hint::black_box(Piece::new(Replayed::Entry(entry)).is_ok());
        }
    }
);

fn seeds() -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(u64::MAX);
    let mut bodies = vec![Body::Noop, Body::Cluster(Vec::new())];
    bodies.extend((0..4).map(|number| Body::Effects(effects(number))));
    let mut seeds = Vec::new();
    let mut all = Vec::new();
    for body in bodies {
        let mut buffer = PageBuffer::new();
        encoder
            .entry(Term(1), Index(1), &body, &mut buffer)
            .expect("a small entry");
        let record = Record::parse(&buffer).expect("what was encoded").0;
        assert!(access::<Body>(record.body).is_ok());
        let length = u16::try_from(record.body.len()).expect("a small entry");
        let seed = [&length.to_be_bytes()[..], record.body].concat();
        all.extend_from_slice(&seed);
        seeds.push(seed);
    }
    seeds.push(all);
    seeds
}
