//! Random logs, random crashes: what recovery finds is what a plain list says.

use std::collections::VecDeque;

use kontiki::base::prng::Prng;
use kontiki::base::{Index, MemberId, Term};
use kontiki::wal::{Commit, CommitStep, HardState, Outcome, SegmentOpening};
use proptest::prelude::*;

use crate::disk::{Disk, Entry, Value, recover, resume};

/// One step of a random life of a log.
#[derive(Clone, Debug)]
enum Op {
    /// Stage an entry with a value of this size.
    Stage(usize),
    /// Void this many entries of what is not committed.
    Truncate(u64),
    /// A new term, with or without a vote in it.
    Elect(bool),
    /// Take this many of the durable, uncommitted entries as committed.
    Advance(u64),
    /// Hand out the next commit or open the next segment.
    Take,
    /// What is in flight becomes durable.
    Complete,
    /// Seal, if the log asks for it.
    Seal,
    /// Checkpoint what is committed and recycle what it makes needless.
    Recycle,
    /// Lose everything that is not on disk; of what is in flight, keep random sectors, all or none.
    Crash(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0_usize..3800).prop_map(Op::Stage),
        4 => (0_usize..200).prop_map(Op::Stage),
        1 => (0_u64..8).prop_map(Op::Truncate),
        1 => any::<bool>().prop_map(Op::Elect),
        3 => (0_u64..8).prop_map(Op::Advance),
        6 => Just(Op::Take),
        6 => Just(Op::Complete),
        1 => Just(Op::Seal),
        1 => Just(Op::Recycle),
        2 => any::<u64>().prop_map(Op::Crash),
    ]
}

/// A record in the order of staging.
enum Staged {
    Entry(Entry),
    Cut(u64),
    Seal,
}

enum Flight {
    Nothing,
    Commit(Commit),
    Opening(SegmentOpening),
}

/// The log, and beside it the lists it must agree with.
struct Life {
    disk: Disk,
    flight: Flight,
    /// Staged and not handed out.
    staged: VecDeque<Staged>,
    /// What the staged log looks like to the caller.
    head: Vec<Entry>,
    /// What the log holds with everything that was handed out.
    placed: Vec<Entry>,
    /// What it holds with everything that is durable.
    durable: Vec<Entry>,
    /// Never to be lost.
    committed: Vec<Entry>,
    /// Highest term and its vote that may have been used.
    used: (Term, Option<MemberId>),
    /// Entries that a checkpoint holds.
    checkpoint: usize,
    serial: u64,
}

impl Life {
    fn new() -> Life {
        Life {
            disk: Disk::new(32 * 1024),
            flight: Flight::Nothing,
            staged: VecDeque::new(),
            head: Vec::new(),
            placed: Vec::new(),
            durable: Vec::new(),
            committed: Vec::new(),
            used: (Term(0), None),
            checkpoint: 0,
            serial: 0,
        }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Stage(size) => self.stage(*size),
            Op::Truncate(count) => self.truncate(*count),
            Op::Elect(vote) => {
                let now = self.disk.appender.hard_state();
                let vote = vote.then_some(MemberId(now.term.0 + 1));
                self.disk.appender.set_hard_state(HardState {
                    term: now.term.next(),
                    vote,
                    ..now
                });
            }
            Op::Advance(count) => self.advance(*count),
            Op::Take => self.take(),
            Op::Complete => self.complete(),
            Op::Seal => {
                if self.disk.appender.needs_seal() {
                    self.disk.appender.stage_seal();
                    self.staged.push_back(Staged::Seal);
                }
            }
            Op::Recycle => {
                if matches!(self.flight, Flight::Nothing) {
                    self.disk.recycle(self.committed.len() as u64);
                    self.checkpoint = self.committed.len();
                }
            }
            Op::Crash(seed) => self.crash(*seed),
        }
    }

    fn stage(&mut self, size: usize) {
        self.serial += 1;
        let mut bytes = vec![self.serial as u8; size];
        bytes.extend_from_slice(&self.serial.to_le_bytes());
        let index = self.disk.appender.last_index().next();
        assert_eq!(index.0, self.head.len() as u64 + 1);
        let term = self.disk.appender.hard_state().term;
        self.disk
            .appender
            .stage_entry(
                term,
                index,
                &Value {
                    bytes: bytes.clone(),
                },
            )
            .expect("staged");
        self.head.push((term, bytes.clone()));
        self.staged.push_back(Staged::Entry((term, bytes)));
    }

    fn truncate(&mut self, count: u64) {
        let after = (self.head.len() as u64)
            .saturating_sub(count)
            .max(self.committed.len() as u64);
        let term = self.disk.appender.hard_state().term;
        self.disk
            .appender
            .stage_truncate(term, Index(after))
            .expect("staged");
        self.head.truncate(after as usize);
        self.staged.push_back(Staged::Cut(after));
    }

    fn advance(&mut self, count: u64) {
        let durable = self.disk.appender.durable_index();
        let commit = durable.0.min(self.committed.len() as u64 + count);
        self.committed = self.head[..commit as usize].to_vec();
        let now = self.disk.appender.hard_state();
        self.disk.appender.set_hard_state(HardState {
            commit: Index(commit),
            ..now
        });
    }

    fn take(&mut self) {
        if self.disk.appender.in_flight() {
            return;
        }
        self.flight = match self.disk.appender.commit() {
            CommitStep::Nothing => Flight::Nothing,
            CommitStep::OpenSegment(sequence) => Flight::Opening(self.disk.open(sequence)),
            CommitStep::Commit(commit) => {
                for _ in 0..commit.record_count {
                    match self
                        .staged
                        .pop_front()
                        .expect("as many records as were staged")
                    {
                        Staged::Entry(entry) => self.placed.push(entry),
                        Staged::Cut(after) => self.placed.truncate(after as usize),
                        Staged::Seal => {}
                    }
                }
                assert_eq!(commit.last_index.0, self.placed.len() as u64);
                Flight::Commit(commit)
            }
        };
    }

    fn complete(&mut self) {
        match std::mem::replace(&mut self.flight, Flight::Nothing) {
            Flight::Nothing => {}
            Flight::Opening(opening) => {
                self.disk.write_opening(&opening);
                self.disk.appender.segment_opened(opening);
            }
            Flight::Commit(commit) => {
                self.disk.write_commit(&commit);
                let durable = self.disk.appender.durable(commit);
                self.durable.clone_from(&self.placed);
                let index = durable.index.0 as usize;
                assert!(index <= self.head.len() && self.durable[..index] == self.head[..index]);
                if durable.hard_state {
                    let now = self.disk.appender.hard_state();
                    self.used = (now.term, now.vote);
                }
            }
        }
    }

    fn crash(&mut self, seed: u64) {
        let mut prng = Prng::from_seed(seed);
        // All of it (a killed process), none of it, or whatever sectors the disk had got to.
        let manner = prng.below(4);
        let mut keep = || match manner {
            0 => true,
            1 => false,
            _ => prng.below(2) == 0,
        };
        match std::mem::replace(&mut self.flight, Flight::Nothing) {
            Flight::Nothing => {}
            Flight::Opening(opening) => {
                let file = self
                    .disk
                    .files
                    .get_mut(&opening.sequence.0)
                    .expect("prepared");
                for offset in opening.offsets {
                    write_sectors(file, offset as usize, opening.page(), &mut keep);
                }
            }
            Flight::Commit(commit) => {
                let file = self.disk.files.get_mut(&commit.segment.0).expect("opened");
                write_sectors(file, commit.offset as usize, commit.bytes(), &mut keep);
            }
        }
        let found = recover(self.disk.geometry, &self.disk.files, self.checkpoint as u64)
            .expect("no file is refused");
        assert!(
            found.outcome().may_continue(),
            "a crash is never corruption: {:?}",
            found.outcome()
        );
        if manner == 0 {
            assert_eq!(found.outcome(), Outcome::Clean);
        }
        let with_flight = found.entries == self.placed[self.checkpoint..];
        let without = found.entries == self.durable[self.checkpoint..];
        assert!(
            if manner == 0 {
                with_flight
            } else {
                with_flight || without
            },
            "neither with nor without the last commit"
        );
        let log = if with_flight {
            &self.placed
        } else {
            &self.durable
        }
        .clone();
        assert_eq!(
            log[..self.committed.len()],
            self.committed,
            "a committed entry is gone"
        );
        let state = found.recovered.hard_state;
        assert!(
            state.term >= self.used.0,
            "term {} after {} was used",
            state.term,
            self.used.0
        );
        if state.term == self.used.0 && self.used.1.is_some() {
            assert_eq!(state.vote, self.used.1, "a vote that was used is forgotten");
        }
        assert!(state.commit.0 as usize <= log.len());
        self.disk.appender = resume(self.disk.geometry, &mut self.disk.files, found.recovered);
        // The commit index may be behind; what Raft knows beyond it comes back from the leader. The
        // lists keep the higher one, which is what must survive.
        let now = self.disk.appender.hard_state();
        self.disk.appender.set_hard_state(HardState {
            commit: Index(self.committed.len() as u64),
            ..now
        });
        self.staged.clear();
        self.head.clone_from(&log);
        self.placed.clone_from(&log);
        self.durable = log;
    }
}

fn write_sectors(file: &mut [u8], offset: usize, bytes: &[u8], keep: &mut impl FnMut() -> bool) {
    for (at, sector) in bytes.chunks(512).enumerate() {
        if keep() {
            file[offset + at * 512..][..sector.len()].copy_from_slice(sector);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Goal: after any crash the log holds exactly what was durable, with or without the one commit in
    /// flight; nothing committed, no used term and no used vote is ever forgotten, and the log goes on.
    #[test]
    fn recovery_agrees_with_a_list(ops in prop::collection::vec(op(), 1..250)) {
        let mut life = Life::new();
        for op in &ops {
            life.apply(op);
        }
        life.complete();
        life.crash(0);
    }

    /// Goal: whatever is written over the files of a log, recovery answers; it never panics, and never
    /// hands on an entry that was not written there.
    #[test]
    fn hostile_files_never_panic(
        commits in prop::collection::vec(prop::collection::vec(1_usize..2500, 1..4), 1..12),
        holes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1_usize..600, any::<u64>()), 0..6),
    ) {
        let mut disk = Disk::new(32 * 1024);
        for sizes in &commits {
            disk.commit(1, sizes);
        }
        let names: Vec<u64> = disk.files.keys().copied().collect();
        for (name, offset, length, seed) in &holes {
            let mut prng = Prng::from_seed(*seed);
            let file = disk.files.get_mut(&names[name.index(names.len())]).expect("the file exists");
            let start = offset.index(file.len());
            let end = file.len().min(start + length);
            file[start..end].iter_mut().for_each(|byte| *byte = prng.next_u64() as u8);
        }
        if let Ok(found) = recover(disk.geometry, &disk.files, 0) {
            prop_assert_eq!(&found.entries, &disk.entries[..found.entries.len()]);
        }
    }
}
