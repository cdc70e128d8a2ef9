//! What members say to each other. No bytes of entries: an [`Append`] names a range of the log, and the
//! caller attaches the entries to it and takes them off again.

use smallvec::SmallVec;

use super::types::Position;
use crate::base::{Incarnation, Index, Instant, MemberId, Term};

/// No term and no index comes near this in practice; what names one from here on is damaged or forged, and counting
/// on from it would end beyond what there is.
const NUMBERS_MAX: u64 = 1 << 62;

/// Whether a group can have come to this place.
pub(super) fn is_possible(term: Term, index: Index) -> bool {
    term.0 < NUMBERS_MAX && index.0 < NUMBERS_MAX
}

/// One message. The receiver learns from the connection who sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sender's term.
    pub term: Term,
    /// The sender's data directory.
    pub incarnation: Incarnation,
    /// What it says.
    pub body: Body,
}

impl Message {
    /// Whether every term and index in it is one that a group can have come to.
    pub(super) fn is_possible(&self) -> bool {
        let (term, index) = match &self.body {
            Body::VoteRequest(request) => (request.term.max(request.last.term), request.last.index),
            Body::VoteResponse(response) => (response.term, Index(0)),
            Body::Append(append) => (append.prev.term, append.last().max(append.commit)),
            Body::AppendResponse(response) => match response.result {
                AppendResult::Accepted(matched) => (Term(0), matched.durable.max(matched.verified)),
                AppendResult::Rejected { prev, hint } => (hint.term, prev.max(hint.index)),
            },
            Body::Heartbeat(heartbeat) => {
                let digest = heartbeat.digest.map_or(Index(0), |digest| digest.index);
                (Term(0), heartbeat.commit.max(digest))
            }
            Body::HeartbeatResponse(response) => {
                let matched = response.matched;
                (Term(0), matched.durable.max(matched.verified))
            }
            Body::ReadResponse { index, last, .. } => (Term(0), *index.max(last)),
            Body::IdentityConfirmed { voters, .. } => (Term(0), voters.changed_at),
            Body::ReadRequest { .. }
            | Body::TimeoutNow
            | Body::NewerTerm
            | Body::IdentityQuestion
            | Body::IdentityRefused { .. }
            | Body::Removed => (Term(0), Index(0)),
        };
        is_possible(self.term.max(term), index)
    }
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Asks for a vote, or whether it would be given. Leaves only after the sender's own vote is durable.
    VoteRequest(VoteRequest),
    /// Answers that. A vote leaves only after it is durable.
    VoteResponse(VoteResponse),
    /// The leader's log from a position on.
    Append(Append),
    /// Answers that. An acknowledgement leaves only after the entries are durable.
    AppendResponse(AppendResponse),
    /// The leader is there. Overtakes appends.
    Heartbeat(Heartbeat),
    /// Answers that.
    HeartbeatResponse(HeartbeatResponse),
    /// A follower asks up to where it must have committed for a linearizable read. That it asks says that it still
    /// followed in this term when the reads had come.
    ReadRequest {
        /// Of its round.
        context: ReadContext,
        /// Whether its word may be counted.
        standing: Standing,
    },
    /// Answers that.
    ReadResponse {
        /// From the request.
        context: ReadContext,
        /// Up to where.
        index: Index,
        /// The end of the leader's log by then: what a member whose log is rebuilt must reach.
        last: Index,
    },
    /// The leader hands over: campaign now (dissertation, section 3.10).
    TimeoutNow,
    /// The sender has nothing else to say than that the receiver's term is over.
    NewerTerm,
    /// Does the receiver know another directory for the sender's member id?
    IdentityQuestion,
    /// It does not, and will remember the sender's.
    IdentityConfirmed {
        /// The directory that asked.
        incarnation: Incarnation,
        /// Whom else to ask: an empty directory may know nobody.
        voters: Voters,
    },
    /// It does: the sender's directory is not the one that the member id belongs to.
    IdentityRefused {
        /// The directory that asked.
        incarnation: Incarnation,
    },
    /// The receiver was removed from the cluster; that entry is committed.
    Removed,
}

/// Who votes, as far as the sender's log says, and from where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Voters {
    /// The index of the entry that says so.
    pub changed_at: Index,
    /// They, in ascending order.
    pub ids: Vec<MemberId>,
    /// The directories of members that the group has agreed on for good, in ascending order of the members.
    pub agreed: Vec<(MemberId, Incarnation)>,
}

/// Raft paper, figure 2, RequestVote; dissertation, section 9.6 for the pre-vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoteRequest {
    /// Only a question: nobody's term or vote changes.
    pub pre: bool,
    /// The term the sender wants to lead: its own, or with `pre` the one after it.
    pub term: Term,
    /// The end of the sender's log.
    pub last: Position,
    /// The leader of the term before asked the sender to campaign.
    pub transfer: bool,
}

/// The answer to a [`VoteRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoteResponse {
    /// From the request.
    pub pre: bool,
    /// From the request: an answer to an older campaign counts for nothing.
    pub term: Term,
    /// Whether the vote is given.
    pub granted: bool,
}

/// Raft paper, figure 2, AppendEntries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// What precedes the entries in the leader's log.
    pub prev: Position,
    /// The entries after it.
    pub entries: Entries,
    /// The leader's commit index.
    pub commit: Index,
    /// Whether the leader waits for an answer even when this says nothing new.
    pub probe: bool,
}

/// Entries in a row, without their bytes: the terms as runs, for terms never fall along a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// In the order of the log.
    pub runs: SmallVec<[TermRun; 2]>,
    /// Of all of them together, encoded.
    pub size_bytes: u64,
}

/// Some entries in a row, of one term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TermRun {
    /// The term that wrote them.
    pub term: Term,
    /// How many, at least one.
    pub count: u64,
}

impl Entries {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.runs
            .iter()
            .fold(0, |sum: u64, run| sum.saturating_add(run.count))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Adds one entry of `size_bytes` at the end.
    pub fn push(&mut self, term: Term, size_bytes: u64) {
        self.size_bytes = self.size_bytes.saturating_add(size_bytes);
        match self.runs.last_mut() {
            Some(run) if run.term == term => run.count += 1,
            _ => self.runs.push(TermRun { term, count: 1 }),
        }
    }
}

impl Append {
    /// The index of the last entry, or of what precedes when there is none.
    #[must_use]
    pub fn last(&self) -> Index {
        Index(self.prev.index.0.saturating_add(self.entries.count()))
    }

    /// Whether a leader of `term` can have sent it: indexes that exist, terms that rise to its own.
    #[must_use]
    pub fn is_sound(&self, term: Term) -> bool {
        let mut before = self.prev.term;
        for run in &self.entries.runs {
            if run.count == 0 || run.term < before || run.term == Term(0) {
                return false;
            }
            before = run.term;
        }
        before <= term && self.last() < Index(u64::MAX)
    }
}

/// The answer to an [`Append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendResponse {
    /// What became of it.
    pub result: AppendResult,
    /// Whether this answer may be counted.
    pub standing: Standing,
}

/// What became of an [`Append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendResult {
    /// The follower's log agrees.
    Accepted(Matched),
    /// The entry before is missing or another one.
    Rejected {
        /// The index of the entry before.
        prev: Index,
        /// The last place at which the two logs can agree, as far as the follower can tell: it skips
        /// whole terms (Raft paper, section 5.3).
        hint: Position,
    },
}

/// How far a follower's log is known to agree with the leader's, in this term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// It agrees up to here, and is durable.
    pub durable: Index,
    /// It agrees up to here, durable or not.
    pub verified: Index,
}

/// Whether what a member says may be counted towards a majority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It keeps what it promised.
    #[default]
    Whole,
    /// Its log was damaged and is being rebuilt, or its directory is not confirmed yet: it may have forgotten
    /// what it acknowledged.
    Rebuilding,
}

/// Keeps followers from campaigning, carries the commit index and confirms leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Never above what this follower is known to have.
    pub commit: Index,
    /// When it left, on the leader's clock; it comes back in the answer.
    pub sent: Instant,
    /// The round of reads that waits for a majority.
    pub context: Option<ReadContext>,
    /// The leader's state at an index, to compare.
    pub digest: Option<StateDigest>,
}

/// The answer to a [`Heartbeat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatResponse {
    /// From the heartbeat.
    pub sent: Instant,
    /// From the heartbeat.
    pub context: Option<ReadContext>,
    /// How far the logs agree.
    pub matched: Matched,
    /// Whether this answer may be counted.
    pub standing: Standing,
}

/// Tells one attempt to confirm leadership from every other one: no answer to an earlier attempt, not
/// even of an earlier process, can be taken for one to this. It counts only in the term it was sent in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadContext(pub u128);

/// A digest of the state at an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateDigest {
    /// After the entry at this index.
    pub index: Index,
    /// What the fold of everything up to there gave.
    pub digest: u64,
}
