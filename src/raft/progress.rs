//! What a leader knows about one follower, and how much it may send ahead.
//!
//! ```text
//!            rejected: next moves back                 entries were released
//!  .------.  --------------------------->  .-------.  ------------------>  .------------.
//!  | Pipe |                                | Probe |                       | Checkpoint |
//!  '------'  <---------------------------  '-------'  <------------------  '------------'
//!            accepted                       one message at a time     sent, or failed
//! ```

use std::collections::VecDeque;

use super::message::Matched;
use crate::base::limits::{
    RAFT_APPEND_BYTES_MAX, RAFT_INFLIGHT_BYTES_MAX, RAFT_INFLIGHT_FRAMES_MAX,
};
use crate::base::{Index, Instant};

/// How much may be on its way to one follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Bytes of the entries of one message, unless one entry alone is larger.
    pub append_bytes_max: u64,
    /// Bytes sent and not acknowledged. Soft by one message.
    pub inflight_bytes_max: u64,
    /// Messages with entries sent and not acknowledged.
    pub inflight_frames_max: usize,
}

impl Default for Windows {
    fn default() -> Windows {
        Windows {
            append_bytes_max: RAFT_APPEND_BYTES_MAX,
            inflight_bytes_max: RAFT_INFLIGHT_BYTES_MAX,
            inflight_frames_max: RAFT_INFLIGHT_FRAMES_MAX,
        }
    }
}

/// How a follower is brought up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Where the logs part is not known: one message at a time.
    Probe {
        /// It is under way.
        waiting: bool,
    },
    /// Messages follow each other without waiting.
    Pipeline,
    /// What it needs is not in the log any more: a checkpoint is on its way.
    Checkpoint,
}

/// What a leader knows about one follower in its term.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Its log agrees with ours up to here, durably.
    pub matched: Index,
    /// Its log agrees with ours up to here, durably or not, as it said last.
    pub verified: Index,
    /// What to send next.
    pub next: Index,
    /// How.
    pub flow: Flow,
    /// Whether its word counts: not while it rebuilds a damaged log, or before its directory is confirmed.
    pub counts: bool,
    /// When it was last heard, on our clock.
    pub heard: Instant,
    /// When it was last heard with a word that counts, on our clock. One that is new has as long as one that falls
    /// silent: its directory is about to be confirmed.
    pub heard_whole: Instant,
    /// Whether it was heard like that at all in this term, and not otherwise since.
    pub answered: bool,
    /// When the newest heartbeat that it has answered left, on our clock; zero for none.
    pub followed: Instant,
    /// The commit index it was last told.
    pub told_commit: Index,
    /// Messages with entries: the last index and the bytes of each.
    inflight: VecDeque<(Index, u64)>,
    inflight_bytes: u64,
    /// Whether anything was acknowledged since the last heartbeat.
    pub moved: bool,
    /// Whether it lacks what it has acknowledged, which was said: until it has that again or says itself that its word does
    /// not count, that adds nothing to a majority, probes have no entries for it, and the log is not kept for it.
    pub forgot: bool,
    /// Whether what was sent was still being read from the log since then: it has not left, so it is not lost.
    pub being_read: bool,
}

impl Progress {
    /// Nothing known: probe from the end of our log backwards.
    #[must_use]
    pub fn new(next: Index, now: Instant) -> Progress {
        Progress {
            matched: Index(0),
            verified: Index(0),
            next,
            flow: Flow::Probe { waiting: false },
            counts: true,
            heard: now,
            heard_whole: now,
            answered: false,
            followed: Instant(0),
            told_commit: Index(0),
            inflight: VecDeque::new(),
            inflight_bytes: 0,
            moved: false,
            forgot: false,
            being_read: false,
        }
    }

    /// What this follower adds to a majority.
    #[must_use]
    pub fn counted(&self) -> Index {
        if self.has_all() {
            self.matched
        } else {
            Index(0)
        }
    }

    /// Whether it still has what it has acknowledged, as far as anybody can tell.
    #[must_use]
    pub fn has_all(&self) -> bool {
        self.counts && !self.forgot
    }

    /// Bytes sent and not acknowledged.
    #[must_use]
    pub fn inflight_bytes(&self) -> u64 {
        self.inflight_bytes
    }

    /// Whether entries are under way.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.inflight.is_empty()
    }

    /// How many bytes may be sent now; `None` for nothing at all.
    #[must_use]
    pub(super) fn budget_bytes(&self, windows: &Windows) -> Option<u64> {
        match self.flow {
            Flow::Checkpoint | Flow::Probe { waiting: true } => None,
            Flow::Probe { waiting: false } => Some(windows.append_bytes_max),
            Flow::Pipeline => {
                let room = self.inflight.len() < windows.inflight_frames_max
                    && self.inflight_bytes < windows.inflight_bytes_max;
                room.then_some(windows.append_bytes_max)
            }
        }
    }

    /// A message with the entries up to `last` leaves.
    pub(super) fn sent(&mut self, last: Index, size_bytes: u64) {
        let empty = last < self.next;
        match &mut self.flow {
            Flow::Probe { waiting } => *waiting = true,
            Flow::Pipeline if !empty => {
                self.inflight.push_back((last, size_bytes));
                self.inflight_bytes += size_bytes;
                self.next = last.next();
            }
            Flow::Pipeline | Flow::Checkpoint => {}
        }
    }

    /// The follower's log agrees up to `matched`.
    pub(super) fn accepted(&mut self, matched: Matched) {
        self.moved = true;
        self.forgot &= matched.durable < self.matched;
        self.matched = self.matched.max(matched.durable);
        self.verified = matched.verified;
        // A probe may ask far above what they share, and be lost: only its answer says that they share it.
        self.next = match self.flow {
            Flow::Probe { .. } => matched.verified.max(self.matched).next(),
            Flow::Pipeline | Flow::Checkpoint => self.next.max(matched.verified.next()),
        };
        while self
            .inflight
            .front()
            .is_some_and(|&(last, _)| last <= self.matched)
        {
            let (_, size_bytes) = self.inflight.pop_front().expect("the front was just seen");
            self.inflight_bytes -= size_bytes;
        }
        if matches!(self.flow, Flow::Probe { .. }) {
            self.flow = Flow::Pipeline;
        }
    }

    /// Start over, with `next` as what to send first.
    pub(super) fn probe_from(&mut self, next: Index) {
        self.next = next.max(self.matched.next());
        self.flow = Flow::Probe { waiting: false };
        self.forget_inflight();
    }

    /// It needs a checkpoint; nothing is sent until that is done.
    pub(super) fn wait_for_checkpoint(&mut self) {
        self.flow = Flow::Checkpoint;
        self.forget_inflight();
    }

    fn forget_inflight(&mut self) {
        self.inflight.clear();
        self.inflight_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Windows = Windows {
        append_bytes_max: 10,
        inflight_bytes_max: 20,
        inflight_frames_max: 3,
    };

    fn at(index: u64) -> Matched {
        Matched {
            durable: Index(index),
            verified: Index(index),
        }
    }

    /// Goal: a probe is one message at a time, and its answer opens the pipeline.
    #[test]
    fn probe_then_pipeline() {
        let mut progress = Progress::new(Index(5), Instant(0));
        assert_eq!(progress.budget_bytes(&SMALL), Some(10));
        progress.sent(Index(5), 10);
        assert_eq!(progress.budget_bytes(&SMALL), None);
        progress.accepted(at(5));
        assert_eq!((progress.flow, progress.next), (Flow::Pipeline, Index(6)));
        assert_eq!(progress.budget_bytes(&SMALL), Some(10));
    }

    /// Goal: both windows close, by bytes and by messages, and open with the acknowledgements.
    #[test]
    fn windows_close_and_open() {
        let pipeline = || {
            let mut progress = Progress::new(Index(1), Instant(0));
            progress.accepted(at(0));
            progress
        };
        let mut by_bytes = pipeline();
        by_bytes.sent(Index(1), 10);
        by_bytes.sent(Index(2), 10);
        assert_eq!(by_bytes.budget_bytes(&SMALL), None);
        by_bytes.accepted(at(1));
        assert_eq!(by_bytes.budget_bytes(&SMALL), Some(10));
        assert_eq!(by_bytes.inflight_bytes(), 10);

        let mut by_messages = pipeline();
        for index in 1..=3 {
            by_messages.sent(Index(index), 1);
        }
        assert_eq!(by_messages.budget_bytes(&SMALL), None);
        by_messages.accepted(at(3));
        assert_eq!(by_messages.budget_bytes(&SMALL), Some(10));
        assert!(!by_messages.is_waiting());
    }

    /// Goal: a word from before the connection was lost opens the pipeline at what it says, not at what a lost probe
    /// asked.
    #[test]
    fn lost_probe() {
        let mut progress = Progress::new(Index(101), Instant(0));
        progress.sent(Index(100), 0);
        progress.accepted(at(80));
        assert_eq!((progress.flow, progress.next), (Flow::Pipeline, Index(81)));
        progress.sent(Index(100), 20);
        progress.accepted(at(90));
        assert_eq!(progress.next, Index(101));
    }

    /// Goal: a rejected follower is never asked for what it has acknowledged.
    #[test]
    fn never_below_the_match() {
        let mut progress = Progress::new(Index(9), Instant(0));
        progress.accepted(at(6));
        progress.probe_from(Index(2));
        assert_eq!(progress.next, Index(7));
    }
}
