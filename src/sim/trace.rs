//! What happened, one line per event: the same seed gives the same lines.
//!
//! Every line goes into a hash; the last ones, or all, are kept to be shown. A line is a small value and
//! becomes text only when somebody reads it.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use super::clock::Moment;
use super::disk::{Damage, Loss, Tear};
use crate::base::limits::SIM_TRACE_LINES_KEPT;

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// When.
    pub at: Moment,
    /// Which member, counted from zero.
    pub member: usize,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names of variants and fields say it all")]
pub enum What {
    Started {
        life: u32,
        last_index: u64,
        commit: u64,
    },
    StartFailed(StartFailure),
    TornTail {
        segment: u64,
        offset: u64,
    },
    Killed,
    PowerCut(Tear),
    Trapped {
        effects: u32,
        writing: bool,
    },
    Paused(Duration),
    Slow(Duration),
    Hung(Duration),
    Full,
    Room,
    Drift(i64),
    SyncWillFail,
    SyncFailed,
    Spoiled(Damage),
    CheckpointSpoiled(Damage),
    /// Files of the log are gone.
    LogLost(Loss),
    /// Checkpoints that do not hold.
    CheckpointsUnusable(usize),
    Restored,
    ReadWillFail,
    Commit {
        segment: u64,
        offset: u64,
        length: u64,
    },
    CommitDurable,
    Open {
        segment: u64,
    },
    Opened,
    Prepare {
        segment: u64,
    },
    Prepared {
        segment: u64,
    },
    NoRoom,
    Recycle {
        segment: u64,
    },
    Checkpoint {
        index: u64,
    },
    Transfer {
        what: &'static str,
        index: u64,
    },
    Says(&'static str),
    Leads {
        term: u64,
    },
    Follows {
        term: u64,
    },
    Commits {
        index: u64,
        digest: u64,
    },
    Truncated {
        index: u64,
    },
    Sends {
        to: usize,
        what: &'static str,
        term: u64,
    },
    Receives {
        from: usize,
        what: &'static str,
        term: u64,
    },
    Disconnected {
        from: usize,
    },
    LogRead {
        index: u64,
    },
    Knows {
        others: usize,
        confirmed: bool,
    },
    /// Damage was found; the log was cut, and is to be rebuilt by the others.
    Rebuilds {
        last_index: u64,
    },
    /// It is whole again.
    Rebuilt,
    Ended(&'static str),
    Wiped,
    /// The directory that took the place of a lost one is its own now.
    Adopted,
    /// Another member's directory lies where this one's was.
    Misplaced {
        of: usize,
    },
    /// The operator asks this member for something about another one.
    Orders {
        number: u32,
        what: &'static str,
        about: usize,
    },
    Obeys {
        number: u32,
        kind: &'static str,
    },
    /// It is not started again.
    Retired,
    Stormy,
    Fair,
    CutOff {
        to: usize,
    },
    Partition {
        group: u64,
    },
    Mended,
    /// These two have not met yet.
    Apart {
        from: usize,
    },
    Meets {
        other: usize,
    },
    Asked {
        operation: u32,
        kind: &'static str,
    },
    Answered {
        operation: u32,
        revision: i64,
        kind: &'static str,
    },
    Calm,
    Over,
}

/// Why a member did not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StartFailure {
    /// A file could not be read.
    ReadError,
    /// A file is not what it must be.
    Refused,
    /// Something that was durable is gone.
    Corrupt,
    /// The same, and the member died while it cut its log, to be rebuilt by the others.
    CutInterrupted,
}

/// Which lines are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// The last ones, [`SIM_TRACE_LINES_KEPT`] of them.
    #[default]
    Tail,
    /// All.
    All,
}

/// The lines of one run.
pub struct Trace {
    keep: Keep,
    kept: VecDeque<Line>,
    hash: Xxh3,
    count: u64,
}

impl Trace {
    /// No lines yet.
    #[must_use]
    pub fn new(keep: Keep) -> Trace {
        Trace {
            keep,
            kept: VecDeque::new(),
            hash: Xxh3::new(),
            count: 0,
        }
    }

    /// Adds a line.
    pub fn add(&mut self, line: Line) {
        self.count += 1;
        line.hash(&mut self.hash);
        if self.keep == Keep::Tail && self.kept.len() == SIM_TRACE_LINES_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(line);
    }

    /// Lines so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// A hash over every line so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash.finish()
    }

    /// The lines that were kept, as text.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.kept.iter().map(Line::to_string).collect()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.at.0 / 1_000_000_000, self.at.0 % 1_000_000_000);
        write!(f, "{seconds:5}.{nanos:09} m{} {:?}", self.member, self.what)
    }
}
