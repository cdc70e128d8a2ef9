//! Messages of consensus, as version 1 archives them.

use rkyv::{Archive, Serialize};
use smallvec::SmallVec;

use super::WireError;
use crate::base::{Incarnation, Index, Instant, MemberId, Term};
use crate::raft::{
    Append, AppendResponse, AppendResult, Body as Said, Entries, Heartbeat, HeartbeatResponse,
    Matched, Message as RaftMessage, Position, ReadContext, Standing, StateDigest, TermRun,
    VoteRequest, VoteResponse, Voters,
};

/// No term or index reaches this in any group's life, and what is added to one does not overflow.
const NUMBER_MAX: u64 = 1 << 62;

/// A [`RaftMessage`].
#[derive(Archive, Serialize)]
pub(super) struct Message {
    term: u64,
    /// Little-endian bytes.
    incarnation: [u8; 16],
    body: Body,
}

/// What it says. Contexts and incarnations are little-endian bytes.
#[derive(Archive, Serialize)]
enum Body {
    VoteRequest {
        pre: bool,
        term: u64,
        last: Place,
        transfer: bool,
    },
    VoteResponse {
        pre: bool,
        term: u64,
        granted: bool,
    },
    Append {
        prev: Place,
        runs: Vec<Run>,
        size_bytes: u64,
        commit: u64,
        probe: bool,
    },
    Accepted {
        reached: Reached,
        rebuilding: bool,
    },
    Rejected {
        prev: u64,
        hint: Place,
        rebuilding: bool,
    },
    Heartbeat {
        commit: u64,
        sent_nanos: u64,
        context: Option<[u8; 16]>,
        digest: Option<Digest>,
    },
    HeartbeatResponse {
        sent_nanos: u64,
        context: Option<[u8; 16]>,
        reached: Reached,
        rebuilding: bool,
    },
    ReadRequest {
        context: [u8; 16],
        rebuilding: bool,
    },
    ReadResponse {
        context: [u8; 16],
        index: u64,
        last: u64,
    },
    TimeoutNow,
    NewerTerm,
    IdentityQuestion,
    IdentityConfirmed {
        incarnation: [u8; 16],
        changed_at: u64,
        voters: Vec<u64>,
        agreed: Vec<Directory>,
    },
    IdentityRefused {
        incarnation: [u8; 16],
    },
    Removed,
}

/// The data directory of a member.
#[derive(Archive, Serialize)]
struct Directory {
    member: u64,
    incarnation: [u8; 16],
}

/// A [`Position`].
#[derive(Archive, Serialize)]
struct Place {
    term: u64,
    index: u64,
}

/// A [`TermRun`].
#[derive(Archive, Serialize)]
struct Run {
    term: u64,
    count: u64,
}

/// A [`Matched`].
#[derive(Archive, Serialize)]
struct Reached {
    durable: u64,
    verified: u64,
}

/// A [`StateDigest`].
#[derive(Archive, Serialize)]
struct Digest {
    index: u64,
    digest: u64,
}

impl From<&RaftMessage> for Message {
    fn from(message: &RaftMessage) -> Message {
        Message {
            term: message.term.0,
            incarnation: message.incarnation.0.to_le_bytes(),
            body: (&message.body).into(),
        }
    }
}

impl From<&Said> for Body {
    fn from(said: &Said) -> Body {
        let context_bytes = |context: &ReadContext| context.0.to_le_bytes();
        match said {
            Said::VoteRequest(vote) => Body::VoteRequest {
                pre: vote.pre,
                term: vote.term.0,
                last: vote.last.into(),
                transfer: vote.transfer,
            },
            Said::VoteResponse(vote) => Body::VoteResponse {
                pre: vote.pre,
                term: vote.term.0,
                granted: vote.granted,
            },
            Said::Append(append) => Body::Append {
                prev: append.prev.into(),
                runs: append.entries.runs.iter().map(Run::from).collect(),
                size_bytes: append.entries.size_bytes,
                commit: append.commit.0,
                probe: append.probe,
            },
            Said::AppendResponse(AppendResponse { result, standing }) => match result {
                AppendResult::Accepted(matched) => Body::Accepted {
                    reached: matched.into(),
                    rebuilding: is_rebuilding(*standing),
                },
                AppendResult::Rejected { prev, hint } => Body::Rejected {
                    prev: prev.0,
                    hint: (*hint).into(),
                    rebuilding: is_rebuilding(*standing),
                },
            },
            Said::Heartbeat(heartbeat) => Body::Heartbeat {
                commit: heartbeat.commit.0,
                sent_nanos: heartbeat.sent.0,
                context: heartbeat.context.as_ref().map(context_bytes),
                digest: heartbeat.digest.map(|digest| Digest {
                    index: digest.index.0,
                    digest: digest.digest,
                }),
            },
            Said::HeartbeatResponse(response) => Body::HeartbeatResponse {
                sent_nanos: response.sent.0,
                context: response.context.as_ref().map(context_bytes),
                reached: (&response.matched).into(),
                rebuilding: is_rebuilding(response.standing),
            },
            Said::ReadRequest { context, standing } => Body::ReadRequest {
                context: context_bytes(context),
                rebuilding: is_rebuilding(*standing),
            },
            Said::ReadResponse {
                context,
                index,
                last,
            } => Body::ReadResponse {
                context: context_bytes(context),
                index: index.0,
                last: last.0,
            },
            Said::TimeoutNow => Body::TimeoutNow,
            Said::NewerTerm => Body::NewerTerm,
            Said::IdentityQuestion => Body::IdentityQuestion,
            Said::IdentityConfirmed {
                incarnation,
                voters,
            } => Body::IdentityConfirmed {
                incarnation: incarnation.0.to_le_bytes(),
                changed_at: voters.changed_at.0,
                voters: voters.ids.iter().map(|id| id.0).collect(),
                agreed: voters
                    .agreed
                    .iter()
                    .map(|(member, incarnation)| Directory {
                        member: member.0,
                        incarnation: incarnation.0.to_le_bytes(),
                    })
                    .collect(),
            },
            Said::IdentityRefused { incarnation } => Body::IdentityRefused {
                incarnation: incarnation.0.to_le_bytes(),
            },
            Said::Removed => Body::Removed,
        }
    }
}

impl TryFrom<&ArchivedMessage> for RaftMessage {
    type Error = WireError;

    fn try_from(message: &ArchivedMessage) -> Result<RaftMessage, WireError> {
        Ok(RaftMessage {
            term: term_of(message.term.to_native())?,
            incarnation: incarnation(&message.incarnation),
            body: (&message.body).try_into()?,
        })
    }
}

impl TryFrom<&ArchivedBody> for Said {
    type Error = WireError;

    fn try_from(body: &ArchivedBody) -> Result<Said, WireError> {
        Ok(match body {
            ArchivedBody::VoteRequest {
                pre,
                term,
                last,
                transfer,
            } => Said::VoteRequest(VoteRequest {
                pre: *pre,
                term: term_of(term.to_native())?,
                last: last.try_into()?,
                transfer: *transfer,
            }),
            ArchivedBody::VoteResponse { pre, term, granted } => Said::VoteResponse(VoteResponse {
                pre: *pre,
                term: term_of(term.to_native())?,
                granted: *granted,
            }),
            ArchivedBody::Append {
                prev,
                runs,
                size_bytes,
                commit,
                probe,
            } => Said::Append(Append {
                prev: prev.try_into()?,
                entries: Entries {
                    runs: runs_of(runs)?,
                    size_bytes: size_bytes.to_native(),
                },
                commit: index_of(commit.to_native())?,
                probe: *probe,
            }),
            ArchivedBody::Accepted {
                reached,
                rebuilding,
            } => Said::AppendResponse(AppendResponse {
                result: AppendResult::Accepted(reached.try_into()?),
                standing: standing(*rebuilding),
            }),
            ArchivedBody::Rejected {
                prev,
                hint,
                rebuilding,
            } => Said::AppendResponse(AppendResponse {
                result: AppendResult::Rejected {
                    prev: index_of(prev.to_native())?,
                    hint: hint.try_into()?,
                },
                standing: standing(*rebuilding),
            }),
            ArchivedBody::Heartbeat {
                commit,
                sent_nanos,
                context,
                digest,
            } => Said::Heartbeat(Heartbeat {
                commit: index_of(commit.to_native())?,
                sent: Instant(sent_nanos.to_native()),
                context: context.as_ref().map(read_context),
                digest: match digest.as_ref() {
                    Some(digest) => Some(StateDigest {
                        index: index_of(digest.index.to_native())?,
                        digest: digest.digest.to_native(),
                    }),
                    None => None,
                },
            }),
            ArchivedBody::HeartbeatResponse {
                sent_nanos,
                context,
                reached,
                rebuilding,
            } => Said::HeartbeatResponse(HeartbeatResponse {
                sent: Instant(sent_nanos.to_native()),
                context: context.as_ref().map(read_context),
                matched: reached.try_into()?,
                standing: standing(*rebuilding),
            }),
            ArchivedBody::ReadRequest {
                context,
                rebuilding,
            } => Said::ReadRequest {
                context: read_context(context),
                standing: standing(*rebuilding),
            },
            ArchivedBody::ReadResponse {
                context,
                index,
                last,
            } => Said::ReadResponse {
                context: read_context(context),
                index: index_of(index.to_native())?,
                last: index_of(last.to_native())?,
            },
            ArchivedBody::TimeoutNow => Said::TimeoutNow,
            ArchivedBody::NewerTerm => Said::NewerTerm,
            ArchivedBody::IdentityQuestion => Said::IdentityQuestion,
            ArchivedBody::IdentityConfirmed {
                incarnation: of,
                changed_at,
                voters,
                agreed,
            } => Said::IdentityConfirmed {
                incarnation: incarnation(of),
                voters: Voters {
                    changed_at: index_of(changed_at.to_native())?,
                    ids: voters.iter().map(|id| MemberId(id.to_native())).collect(),
                    agreed: agreed
                        .iter()
                        .map(|of| {
                            (
                                MemberId(of.member.to_native()),
                                incarnation(&of.incarnation),
                            )
                        })
                        .collect(),
                },
            },
            ArchivedBody::IdentityRefused { incarnation: of } => Said::IdentityRefused {
                incarnation: incarnation(of),
            },
            ArchivedBody::Removed => Said::Removed,
        })
    }
}

fn runs_of(runs: &[ArchivedRun]) -> Result<SmallVec<[TermRun; 2]>, WireError> {
    runs.iter()
        .map(|run| match run.count.to_native() {
            0 => Err(WireError::EmptyRun),
            // Their sum is formed.
            count if count > u64::from(u32::MAX) => Err(WireError::Number(count)),
            count => Ok(TermRun {
                term: term_of(run.term.to_native())?,
                count,
            }),
        })
        .collect()
}

/// A term or index that can be counted on from: whoever sends a larger one invents it.
fn counted(number: u64) -> Result<u64, WireError> {
    if number <= NUMBER_MAX {
        Ok(number)
    } else {
        Err(WireError::Number(number))
    }
}

fn term_of(number: u64) -> Result<Term, WireError> {
    counted(number).map(Term)
}

fn index_of(number: u64) -> Result<Index, WireError> {
    counted(number).map(Index)
}

fn is_rebuilding(standing: Standing) -> bool {
    match standing {
        Standing::Whole => false,
        Standing::Rebuilding => true,
    }
}

fn standing(rebuilding: bool) -> Standing {
    if rebuilding {
        Standing::Rebuilding
    } else {
        Standing::Whole
    }
}

fn incarnation(bytes: &[u8; 16]) -> Incarnation {
    Incarnation(u128::from_le_bytes(*bytes))
}

fn read_context(bytes: &[u8; 16]) -> ReadContext {
    ReadContext(u128::from_le_bytes(*bytes))
}

impl From<Position> for Place {
    fn from(position: Position) -> Place {
        Place {
            term: position.term.0,
            index: position.index.0,
        }
    }
}

impl TryFrom<&ArchivedPlace> for Position {
    type Error = WireError;

    fn try_from(place: &ArchivedPlace) -> Result<Position, WireError> {
        Ok(Position {
            term: term_of(place.term.to_native())?,
            index: index_of(place.index.to_native())?,
        })
    }
}

impl From<&TermRun> for Run {
    fn from(run: &TermRun) -> Run {
        Run {
            term: run.term.0,
            count: run.count,
        }
    }
}

impl From<&Matched> for Reached {
    fn from(matched: &Matched) -> Reached {
        Reached {
            durable: matched.durable.0,
            verified: matched.verified.0,
        }
    }
}

impl TryFrom<&ArchivedReached> for Matched {
    type Error = WireError;

    fn try_from(reached: &ArchivedReached) -> Result<Matched, WireError> {
        Ok(Matched {
            durable: index_of(reached.durable.to_native())?,
            verified: index_of(reached.verified.to_native())?,
        })
    }
}
