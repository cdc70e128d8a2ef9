//! Records and the archives in them, from any bytes: a typed error or a value, never a panic.

#![no_main]

use kontiki::base::{Index, Term};
use kontiki::frame::{Encoder, PageBuffer, Record, RecordKind, access};
use kontiki_fuzz::{Effect, effects, weigh, write_seeds_if_asked};
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: write_seeds_if_asked(seeds),
    |data: &[u8]| {
        // As a checksum that holds would let it through.
        if let Ok(effects) = access::<Vec<Effect>>(data) {
            std::hint::black_box(weigh(effects));
        }
        let mut rest = data;
        while let Ok((record, after)) = Record::parse(rest) {
            assert!(after.len() < rest.len(), "parsing moves on");
            assert_eq!(record.bytes, &rest[..record.bytes.len()], "a record is its bytes");
            if record.header.kind == RecordKind::Entry
                && let Ok(effects) = access::<Vec<Effect>>(record.body)
            {
                std::hint::black_box(weigh(effects));
            }
            rest = after;
        }
    }
);

fn seeds() -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(u64::MAX);
    let mut seeds = Vec::new();
    let mut all = PageBuffer::new();
    for number in 0..4 {
        let mut buffer = PageBuffer::new();
        for buffer in [&mut buffer, &mut all] {
            encoder
                .entry(Term(1), Index(number + 1), &effects(number), buffer)
                .expect("a small entry");
        }
        let record = Record::parse(&buffer).expect("what was encoded").0;
        seeds.push(record.body.to_vec());
        seeds.push(buffer.to_vec());
    }
    for kind in [
        RecordKind::Truncate,
        RecordKind::Checkpoint,
        RecordKind::Seal,
    ] {
        Encoder::mark(kind, Term(2), Index(2), &mut all);
    }
    seeds.push(all.to_vec());
    seeds
}
