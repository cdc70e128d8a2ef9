//! Where the operations of a history wait: encoded, with what ordering needs beside them.

use std::fmt::Write as _;

use bytes::Bytes;

use super::super::codec::{Decoder, encode_operation};
use super::super::operation::{
    Answer, Entry, Nanos, Operation, Outcome, Request, Txn, TxnAnswer, TxnOp, TxnOpAnswer,
};

/// Encoded operations per piece of memory.
const CHUNK_BYTES: usize = 4 * 1024 * 1024;

/// What an operation means for the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// It made its revision.
    Write,
    /// It read the newest state, or found nothing to change.
    Read,
    /// It read a state, perhaps an old one.
    Stale,
    /// It may have made a revision.
    Unknown,
    /// Its header only says that a revision exists.
    Seen,
    /// It was refused, or tells nothing.
    Other,
}

/// An operation's number, in the order they were added.
pub(super) type OpId = u32;

/// What is known of an operation without decoding it.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpHead {
    pub(super) invoked: Nanos,
    /// Never for [`Class::Unknown`].
    pub(super) returned: Nanos,
    /// Of the answer's header; zero without an answer.
    pub(super) revision: i64,
    /// The revision whose state answers it: the header's, or the one a range asked for.
    pub(super) at: i64,
    chunk: u32,
    offset: u32,
    pub(super) clock: u16,
    pub(super) class: Class,
}

/// All operations.
#[derive(Default)]
pub(super) struct Arena {
    chunks: Vec<Bytes>,
    filling: Vec<u8>,
    pub(super) heads: Vec<OpHead>,
    /// Transactions with a range at a past revision, by that revision.
    pub(super) past: Vec<(i64, OpId)>,
}

impl Arena {
    pub(super) fn add(&mut self, clock: u16, operation: &Operation) {
        let (class, revision) = classify(operation);
        let at = match &operation.request {
            Request::Range(range) if range.revision > 0 => range.revision,
            Request::Txn(txn) if revision > 0 => {
                let id =
                    u32::try_from(self.heads.len()).expect("operations are numbered with 32 bits");
                let past = ops(txn).filter_map(|op| match op {
                    TxnOp::Range(range) => (range.revision > 0).then_some((range.revision, id)),
                    TxnOp::Put(_) | TxnOp::Delete(_) => None,
                });
                self.past.extend(past);
                revision
            }
            _ => revision,
        };
        let chunk = u32::try_from(self.chunks.len()).expect("chunks are few");
        let offset = u32::try_from(self.filling.len()).expect("a chunk is small");
        encode_operation(&mut self.filling, &mut 0, operation);
        self.heads.push(OpHead {
            invoked: operation.invoked,
            returned: if class == Class::Unknown {
                Nanos::MAX
            } else {
                operation.returned
            },
            revision,
            at,
            chunk,
            offset,
            clock,
            class,
        });
        if self.filling.len() >= CHUNK_BYTES {
            self.seal();
        }
    }

    /// Must be called before operations are read again.
    pub(super) fn seal(&mut self) {
        self.chunks.push(std::mem::take(&mut self.filling).into());
    }

    pub(super) fn ids(&self) -> std::ops::Range<OpId> {
        0..u32::try_from(self.heads.len()).expect("operations are numbered with 32 bits")
    }

    pub(super) fn head(&self, id: OpId) -> &OpHead {
        &self.heads[id as usize]
    }

    pub(super) fn operation(&self, id: OpId) -> Operation {
        let head = self.head(id);
        let chunk = &self.chunks[head.chunk as usize];
        match Decoder::new(chunk, head.offset as usize).entry(&mut 0) {
            Ok(Entry::Operation(operation)) => operation,
            other => panic!("operation {id} was encoded here, and reads as {other:?}"),
        }
    }

    /// The operation in words, for people.
    pub(super) fn describe(&self, id: OpId) -> String {
        let operation = self.operation(id);
        let mut text = format!("client {} [{} .. ", operation.client, operation.invoked);
        // A String takes everything.
        let _ = if operation.outcome == Outcome::Unknown {
            write!(text, "?] ")
        } else {
            write!(text, "{}] ", operation.returned)
        };
        let _ = write!(text, "{:?} -> {:?}", operation.request, operation.outcome);
        const SHOWN_BYTES_MAX: usize = 1200;
        if text.len() > SHOWN_BYTES_MAX {
            let end = (0..=SHOWN_BYTES_MAX)
                .rev()
                .find(|end| text.is_char_boundary(*end))
                .unwrap_or(0);
            text.truncate(end);
            text.push_str(" ...");
        }
        text
    }
}

/// Whether an answer is one to its request.
pub(super) fn answer_fits(request: &Request, answer: &Answer) -> bool {
    match (request, answer) {
        (Request::Put(_), Answer::Put(_))
        | (Request::Range(_), Answer::Range(_))
        | (Request::Delete(_), Answer::Delete(_))
        | (Request::Compact(_), Answer::Compact)
        | (Request::LeaseGrant { .. }, Answer::LeaseGrant { .. })
        | (Request::LeaseRevoke(_), Answer::LeaseRevoke)
        | (Request::LeaseKeepAlive(_), Answer::LeaseKeepAlive(_)) => true,
        (Request::Txn(txn), Answer::Txn(answer)) => {
            let branch = taken(txn, answer.succeeded);
            branch.len() == answer.answers.len()
                && branch.iter().zip(&answer.answers).all(|pair| {
                    matches!(
                        pair,
                        (TxnOp::Put(_), TxnOpAnswer::Put(_))
                            | (TxnOp::Range(_), TxnOpAnswer::Range(_))
                            | (TxnOp::Delete(_), TxnOpAnswer::Delete(_))
                    )
                })
        }
        _ => false,
    }
}

/// The branch of a transaction.
pub(super) fn taken(txn: &Txn, succeeded: bool) -> &[TxnOp] {
    if succeeded {
        &txn.success
    } else {
        &txn.failure
    }
}

fn classify(operation: &Operation) -> (Class, i64) {
    let class = match &operation.outcome {
        Outcome::Ok { answer, .. } => match (&operation.request, answer) {
            (Request::Put(_), _) => Class::Write,
            (Request::Range(range), _) if range.serializable => Class::Stale,
            (Request::Range(_), _) => Class::Read,
            (_, Answer::Delete(answer)) if answer.deleted > 0 => Class::Write,
            (Request::Delete(_), _) => Class::Read,
            (Request::Txn(txn), Answer::Txn(answer)) => classify_txn(txn, answer),
            _ => Class::Seen,
        },
        Outcome::Unknown => match &operation.request {
            Request::Put(_) | Request::Delete(_) => Class::Unknown,
            Request::Txn(txn) if !is_read_only(txn) => Class::Unknown,
            _ => Class::Other,
        },
        Outcome::Refused(_) => Class::Other,
    };
    let revision = match operation.outcome {
        Outcome::Ok { revision, .. } => revision,
        _ => 0,
    };
    (class, revision)
}

fn is_read_only(txn: &Txn) -> bool {
    ops(txn).all(|op| matches!(op, TxnOp::Range(_)))
}

fn ops(txn: &Txn) -> impl Iterator<Item = &TxnOp> {
    txn.success.iter().chain(&txn.failure)
}

fn classify_txn(txn: &Txn, answer: &TxnAnswer) -> Class {
    let changed = answer.answers.iter().any(|answer| match answer {
        TxnOpAnswer::Put(_) => true,
        TxnOpAnswer::Delete(answer) => answer.deleted > 0,
        TxnOpAnswer::Range(_) => false,
    });
    // An empty transaction counts as serializable, as etcd routes it.
    let stale = ops(txn).all(|op| matches!(op, TxnOp::Range(range) if range.serializable));
    if changed {
        Class::Write
    } else if stale {
        Class::Stale
    } else {
        Class::Read
    }
}
