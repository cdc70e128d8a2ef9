//! Recovery over damaged and over arbitrary segments: an outcome, never a panic; and where the outcome
//! allows going on, the log can be continued and recovered again with everything in it.
//!
//! The input begins with one byte for the number of entries in a valid log, then come edits of five
//! bytes and more: file, page, position, length, and the bytes to put there. Without a valid log (first
//! byte zero) the rest of the input is the file.

#![no_main]

use std::cell::RefCell;
use std::collections::BTreeMap;

use kontiki::base::{Index, Term};
use kontiki::wal::{
    Appender, CommitStep, Geometry, Outcome, PreparedSegment, Recovered, Recovery, Refusal,
    Replayed, SegmentFile, SegmentSequence,
};
use kontiki_fuzz::{Effect, effects, identity, weigh, write_seeds_if_asked};
use libfuzzer_sys::fuzz_target;

/// The files of a log by number.
type Files = BTreeMap<SegmentSequence, Vec<u8>>;

/// The most entries of a valid log: enough for a change of segments.
const ENTRIES_MAX: u64 = 24;

thread_local! {
    /// Valid logs by their number of entries; building one costs more than recovering it.
    static LOGS: RefCell<BTreeMap<u64, Files>> = const { RefCell::new(BTreeMap::new()) };
}

fuzz_target!(
    init: write_seeds_if_asked(seeds),
    |data: &[u8]| {
        let Some((&entries, rest)) = data.split_first() else {
            return;
        };
        let files = if entries == 0 {
            Files::from([(SegmentSequence(1), file_of(rest))])
        } else {
            let mut files = valid_log(u64::from(entries) % ENTRIES_MAX + 1);
            edit(&mut files, rest);
            files
        };
        let Ok((recovered, seen)) = recover(&files) else {
            return;
        };
        if recovered.outcome.may_continue() {
            go_on(files, recovered, seen);
        }
    }
);

fn geometry() -> Geometry {
    Geometry::new(Geometry::SEGMENT_SIZE_BYTES_MIN)
}

fn segment_size() -> usize {
    usize::try_from(geometry().segment_size_bytes()).expect("a small segment")
}

fn file_of(bytes: &[u8]) -> Vec<u8> {
    let mut file = bytes[..bytes.len().min(segment_size())].to_vec();
    file.resize(segment_size(), 0);
    file
}

/// Replays a log; gives the indexes of the entries that stay.
fn recover(files: &Files) -> Result<(Recovered, Vec<Index>), Refusal> {
    let list: Vec<SegmentFile> = files
        .iter()
        .map(|(sequence, bytes)| SegmentFile {
            sequence: *sequence,
            size_bytes: bytes.len() as u64,
        })
        .collect();
    let mut recovery = Recovery::new(geometry(), identity(), Index(0), &list)?;
    let mut seen = Vec::new();
    while let Some(sequence) = recovery.next_file() {
        recovery.segment(&files[&sequence], &mut |replayed| {
            match replayed {
                Replayed::Entry(record) => {
                    let effects = kontiki::frame::access::<Vec<Effect>>(record.body)?;
                    std::hint::black_box(weigh(effects));
                    seen.push(record.header.index);
                }
                Replayed::Cut { after } => seen.retain(|index| *index <= after),
                Replayed::Committed(_) | Replayed::Checkpoint { .. } => {}
            }
            Ok(())
        })?;
    }
    Ok((recovery.finish(), seen))
}

/// Repairs as the outcome says, appends an entry, and expects all of it back.
fn go_on(mut files: Files, recovered: Recovered, seen: Vec<Index>) {
    if let Outcome::TornTail { segment, offset } = recovered.outcome {
        store(&mut files, segment, offset, &[0; 4096]);
    }
    for repair in &recovered.damaged_headers {
        store(&mut files, repair.segment, repair.offset, &repair.page());
    }
    assert_eq!(
        seen.last().copied().unwrap_or_default(),
        recovered.last_index
    );
    let mut appender = Appender::resume(geometry(), identity(), recovered);
    let index = appender.last_index().next();
    let term = Term(appender.hard_state().term.0.max(1_000));
    if appender.stage_entry(term, index, &effects(1)).is_err() {
        return;
    }
    write_out(&mut appender, &mut files);
    let (again, seen_again) = recover(&files).expect("a log that was continued");
    assert!(again.outcome.may_continue(), "{:?}", again.outcome);
    assert_eq!(
        seen_again,
        [seen, vec![index]].concat(),
        "nothing is lost by going on"
    );
}

fn write_out(appender: &mut Appender, files: &mut Files) {
    loop {
        match appender.commit() {
            CommitStep::Nothing => return,
            CommitStep::OpenSegment(sequence) => {
                let size = segment_size();
                files.entry(sequence).or_insert_with(|| vec![0; size]);
                let opening = appender.open_segment(PreparedSegment {
                    sequence,
                    salt: sequence.0 * 7 + 1,
                });
                for offset in geometry().header_offsets() {
                    store(files, sequence, offset, opening.page());
                }
                appender.segment_opened(opening);
            }
            CommitStep::Commit(commit) => {
                store(files, commit.segment, commit.offset, commit.bytes());
                appender.durable(commit);
            }
        }
    }
}

fn store(files: &mut Files, segment: SegmentSequence, offset: u64, bytes: &[u8]) {
    let offset = usize::try_from(offset).expect("a small segment");
    let file = files.get_mut(&segment).expect("a file of the log");
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}

fn valid_log(entries: u64) -> Files {
    LOGS.with_borrow_mut(|logs| {
        let make = || {
            let mut files = Files::new();
            let mut appender = Appender::new(geometry(), identity());
            for number in 1..=entries {
                let staged = appender.stage_entry(Term(1), Index(number), &effects(number));
                staged.expect("an empty log takes a small entry");
                if number % 3 != 0 {
                    write_out(&mut appender, &mut files);
                }
            }
            write_out(&mut appender, &mut files);
            if entries % 2 == 0 {
                appender.stage_seal();
                write_out(&mut appender, &mut files);
            }
            files
        };
        logs.entry(entries).or_insert_with(make).clone()
    })
}

/// Puts bytes of the input over the files.
fn edit(files: &mut Files, mut edits: &[u8]) {
    while let Some((&[file, page, high, low, length], rest)) = edits.split_first_chunk() {
        let count = usize::from(length).min(rest.len());
        let (bytes, rest) = rest.split_at(count);
        let position = usize::from(page) * 4096 + usize::from(high) * 256 + usize::from(low);
        let chosen = usize::from(file) % files.len();
        let target = files.values_mut().nth(chosen).expect("below the count");
        for (place, byte) in bytes.iter().enumerate() {
            let size = target.len();
            target[(position + place) % size] = *byte;
        }
        edits = rest;
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![3], vec![8], vec![20]];
    // An edit in the last commits, in a header page, in its copy.
    seeds.push([&[4, 0, 2, 0, 130, 4][..], &[0; 4]].concat());
    seeds.push([&[5, 0, 0, 0, 8, 2][..], &[1; 2]].concat());
    seeds.push([&[18, 1, 7, 0, 0, 1, 9][..], &[0, 0, 0, 40, 1, 5]].concat());
    let raw = valid_log(2).into_values().next().expect("one file");
    let written = raw
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    seeds.push([&[0], &raw[..written.min(3 * 4096)]].concat());
    seeds
}
