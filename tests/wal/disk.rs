//! A log with its files in memory: does what a driver does, and remembers what was promised.

use std::collections::BTreeMap;
use std::ops::Range;

use kontiki::base::{ClusterId, Incarnation, Index, MemberId, ShardId, Term};
use kontiki::frame::access;
use kontiki::wal::{
    Appender, Checkpoint, Commit, CommitStep, Durable, Geometry, LogIdentity, Outcome,
    PreparedSegment, Recovered, Recovery, Refusal, Replayed, SegmentFile, SegmentOpening,
    SegmentSequence,
};

/// The body of every entry in these tests.
#[derive(rkyv::Archive, rkyv::Serialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) bytes: Vec<u8>,
}

/// Term and value of an entry; its index is its place, counted from one.
pub(crate) type Entry = (Term, Vec<u8>);

pub(crate) fn identity() -> LogIdentity {
    LogIdentity {
        cluster: ClusterId(0xc1),
        member: MemberId(0x3e),
        incarnation: Incarnation(0x1c),
        shard: ShardId(0),
    }
}

/// A commit as the disk holds it.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) segment: u64,
    pub(crate) offset: usize,
    /// Bytes in use: header and records, without padding.
    pub(crate) used: usize,
    /// Bytes taken.
    pub(crate) size: usize,
    /// Last index before this commit.
    pub(crate) last_index_before: u64,
}

impl Placed {
    pub(crate) fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.size
    }
}

/// A log and its files. Everything written becomes durable at once unless a test does it by hand.
pub(crate) struct Disk {
    pub(crate) geometry: Geometry,
    pub(crate) files: BTreeMap<u64, Vec<u8>>,
    /// What each file held when it was recycled.
    pub(crate) stale: BTreeMap<u64, Vec<u8>>,
    pub(crate) appender: Appender,
    pub(crate) commits: Vec<Placed>,
    pub(crate) entries: Vec<Entry>,
    last_placed: u64,
    salt: u64,
}

impl Disk {
    pub(crate) fn new(segment_size_bytes: u64) -> Disk {
        let geometry = Geometry::new(segment_size_bytes);
        let appender = Appender::new(geometry, identity());
        let (files, stale) = (BTreeMap::new(), BTreeMap::new());
        Disk {
            geometry,
            files,
            stale,
            appender,
            commits: Vec::new(),
            entries: Vec::new(),
            last_placed: 0,
            salt: 0,
        }
    }

    /// Stages one entry of `size` bytes, distinct by index.
    pub(crate) fn stage(&mut self, term: u64, size: usize) {
        let index = self.appender.last_index().next();
        let bytes: Vec<u8> = (0..size)
            .map(|at| (index.0 as usize * 31 + at * 7) as u8 | 1)
            .collect();
        self.appender
            .stage_entry(
                Term(term),
                index,
                &Value {
                    bytes: bytes.clone(),
                },
            )
            .expect("staged");
        self.entries.truncate(index.0 as usize - 1);
        self.entries.push((Term(term), bytes));
    }

    /// One commit of entries with these sizes.
    pub(crate) fn commit(&mut self, term: u64, sizes: &[usize]) {
        for size in sizes {
            self.stage(term, *size);
        }
        self.flush();
    }

    pub(crate) fn seal(&mut self) {
        self.appender.stage_seal();
        self.flush();
    }

    /// Writes until nothing is left.
    pub(crate) fn flush(&mut self) -> Option<Durable> {
        let mut durable = None;
        loop {
            match self.appender.commit() {
                CommitStep::Nothing => return durable,
                CommitStep::OpenSegment(sequence) => {
                    let opening = self.open(sequence);
                    self.write_opening(&opening);
                    self.appender.segment_opened(opening);
                }
                CommitStep::Commit(commit) => {
                    self.write_commit(&commit);
                    durable = Some(self.appender.durable(commit));
                }
            }
        }
    }

    pub(crate) fn open(&mut self, sequence: SegmentSequence) -> SegmentOpening {
        self.prepare(sequence);
        self.salt += 1;
        let salt = 0x5a17_0000_0000_0000 + self.salt;
        self.appender
            .open_segment(PreparedSegment { sequence, salt })
    }

    /// Makes a spare: of a recycled file if there is one set aside, else of zeros.
    pub(crate) fn prepare(&mut self, sequence: SegmentSequence) {
        let size = self.geometry.segment_size_bytes() as usize;
        self.files
            .entry(sequence.0)
            .or_insert_with(|| vec![0; size]);
    }

    /// Gives up everything up to `checkpoint`: files become spares with the next free names.
    pub(crate) fn recycle(&mut self, checkpoint: u64) {
        for sequence in self.appender.recyclable(Index(checkpoint)) {
            self.appender.recycled(sequence);
            let bytes = self.files.remove(&sequence.0).expect("the file exists");
            let name = self.files.last_key_value().expect("the active segment").0 + 1;
            self.stale.insert(name, bytes.clone());
            self.files.insert(name, bytes);
        }
    }

    pub(crate) fn write_opening(&mut self, opening: &SegmentOpening) {
        let file = self.files.get_mut(&opening.sequence.0).expect("prepared");
        for offset in opening.offsets {
            file[offset as usize..][..opening.page().len()].copy_from_slice(opening.page());
        }
    }

    pub(crate) fn write_commit(&mut self, commit: &Commit) {
        let file = self.files.get_mut(&commit.segment.0).expect("opened");
        let offset = commit.offset as usize;
        file[offset..][..commit.bytes().len()].copy_from_slice(commit.bytes());
        let used = 128
            + u32::from_le_bytes(commit.bytes()[24..28].try_into().expect("four bytes")) as usize;
        let (segment, size, last_index_before) =
            (commit.segment.0, commit.bytes().len(), self.last_placed);
        self.commits.push(Placed {
            segment,
            offset,
            used,
            size,
            last_index_before,
        });
        self.last_placed = commit.last_index.0;
    }
}

/// What a recovery found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) entries: Vec<Entry>,
    pub(crate) recovered: Recovered,
}

impl Found {
    pub(crate) fn outcome(&self) -> Outcome {
        self.recovered.outcome
    }
}

/// Recovers from `files`, with a state that already holds `start` entries.
pub(crate) fn recover(
    geometry: Geometry,
    files: &BTreeMap<u64, Vec<u8>>,
    start: u64,
) -> Result<Found, Refusal> {
    recover_as(geometry, identity(), files, start)
}

pub(crate) fn recover_as(
    geometry: Geometry,
    identity: LogIdentity,
    files: &BTreeMap<u64, Vec<u8>>,
    start: u64,
) -> Result<Found, Refusal> {
    recover_after(geometry, identity, files, start, None)
}

/// Recovers behind a checkpoint at `start`.
pub(crate) fn recover_after(
    geometry: Geometry,
    identity: LogIdentity,
    files: &BTreeMap<u64, Vec<u8>>,
    start: u64,
    checkpoint: Option<Checkpoint>,
) -> Result<Found, Refusal> {
    let list: Vec<SegmentFile> = files
        .iter()
        .map(|(name, bytes)| SegmentFile {
            sequence: SegmentSequence(*name),
            size_bytes: bytes.len() as u64,
        })
        .collect();
    let mut recovery = Recovery::new(geometry, identity, Index(start), &list)?;
    if let Some(checkpoint) = checkpoint {
        recovery.after_checkpoint(checkpoint);
    }
    let mut entries: Vec<Entry> = Vec::new();
    while let Some(name) = recovery.next_file() {
        recovery.segment(&files[&name.0], &mut |replayed| {
            match replayed {
                Replayed::Entry(record) => {
                    assert_eq!(
                        record.header.index.0,
                        start + entries.len() as u64 + 1,
                        "entries come in order"
                    );
                    let value = access::<Value>(record.body)?;
                    entries.push((record.header.term, value.bytes.to_vec()));
                }
                Replayed::Cut { after } => entries.truncate((after.0 - start) as usize),
                Replayed::Committed(index) => {
                    assert!(
                        index.0 <= start + entries.len() as u64,
                        "committed beyond the log"
                    );
                }
                Replayed::Checkpoint { .. } => {}
            }
            Ok(())
        })?;
    }
    Ok(Found {
        entries,
        recovered: recovery.finish(),
    })
}

/// Does what the outcome of a recovery asks for, and goes on.
pub(crate) fn resume(
    geometry: Geometry,
    files: &mut BTreeMap<u64, Vec<u8>>,
    recovered: Recovered,
) -> Appender {
    if let Outcome::TornTail { segment, offset } = recovered.outcome {
        files.get_mut(&segment.0).expect("the file exists")[offset as usize..][..4096].fill(0);
    }
    for repair in &recovered.damaged_headers {
        let file = files.get_mut(&repair.segment.0).expect("the file exists");
        file[repair.offset as usize..][..4096].copy_from_slice(&repair.page());
    }
    Appender::resume(geometry, identity(), recovered)
}
