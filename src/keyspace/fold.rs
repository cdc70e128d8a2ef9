//! The fold: applies an entry's effects at the next revision, in slices.
//!
//! Reads nothing but the archived effects, so a leader, a follower and a replay run the same code and end
//! in the same state. A leader gives the plan's script beside: reads and previous values of the answer are
//! collected between the effects, where the transaction sees them. Decides nothing and refuses nothing.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::answer::{self, Packer, Parts};
use super::digest::Digest;
use super::effects::ArchivedEffect;
use super::range::Scan;
use super::record::{Key, Record};
use super::request::{DeleteRangeResponse, PutResponse, ResponseOp, TxnResponse};
use super::revision::Revision;
use super::span::Span;
use super::steps::{DELETE_STEPS, PUT_STEPS, Steps};
use super::txn::{Script, Step};
use super::versions::Versions;
use super::{Busy, Keyspace, Mark, key_bytes, version_bytes};
use crate::base::Index;
use crate::base::planted::Defect;

/// What came out of a fold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folded {
    /// Main revision for the header: the new one if anything changed, else the one it was run at.
    pub revision: i64,
    /// Whether a version was written.
    pub changed: bool,
    /// The answer, when a script was given.
    pub answer: Option<Answer>,
}

/// The answer to a request that went through a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a put.
    Put(PutResponse),
    /// To a deletion.
    DeleteRange(DeleteRangeResponse),
    /// To a transaction.
    Txn(TxnResponse),
    /// To a compaction.
    Compact,
}

/// A fold, or a script that only reads, under way.
#[derive(Debug)]
pub struct FoldJob {
    /// None for a script that only reads.
    index: Option<Index>,
    script: Option<Script>,
    /// The main revision before.
    before: i64,
    /// The floor after.
    floor: i64,
    digest: Digest,
    /// Effects and steps of the script done completely.
    effects_done: usize,
    steps_done: usize,
    /// Changes made so far.
    sub: u32,
    active: Active,
    /// Answers of the transactions that are open, the outermost first.
    open: Vec<TxnResponse>,
    answer: Option<Answer>,
}

/// The operation that a slice stopped in.
#[derive(Debug, Default)]
enum Active {
    #[default]
    None,
    Range(Box<Scan>),
    DeleteRange(Box<Deletion>),
}

#[derive(Debug)]
struct Deletion {
    rest: Span,
    prev_kv: bool,
    packer: Packer,
    response: DeleteRangeResponse,
}

impl FoldJob {
    /// Folds the entry at `index`, which a plan against this head produced, and answers its request.
    #[must_use]
    pub fn lead(keyspace: &mut Keyspace, index: Index, script: Script) -> FoldJob {
        assert_eq!(
            script.revision,
            keyspace.head_revision(),
            "planned against another head"
        );
        FoldJob::start(keyspace, index, Some(script))
    }

    /// Folds the entry at `index`. An entry without effects is folded too, so that it has its digest.
    #[must_use]
    pub fn replay(keyspace: &mut Keyspace, index: Index) -> FoldJob {
        FoldJob::start(keyspace, index, None)
    }

    /// Runs the script of a plan without effects: nothing is changed, and no entry needed.
    #[must_use]
    pub fn read(script: Script) -> FoldJob {
        FoldJob {
            index: None,
            before: script.revision,
            script: Some(script),
            floor: 0,
            digest: Digest::default(),
            effects_done: 0,
            steps_done: 0,
            sub: 0,
            active: Active::None,
            open: Vec::new(),
            answer: None,
        }
    }

    fn start(keyspace: &mut Keyspace, index: Index, script: Option<Script>) -> FoldJob {
        let head = *keyspace.head();
        assert_eq!(keyspace.busy, Busy::Free, "one fold at a time");
        assert!(index > head.index, "fold of {index} after {}", head.index);
        keyspace.busy = Busy::Folding;
        FoldJob {
            index: Some(index),
            script,
            before: head.main,
            floor: head.floor,
            digest: head.digest,
            effects_done: 0,
            steps_done: 0,
            sub: 0,
            active: Active::None,
            open: Vec::new(),
            answer: None,
        }
    }

    /// Works for what is left of the slice; the result when it is complete. `effects` are the same in
    /// every call.
    pub fn run(
        &mut self,
        keyspace: &mut Keyspace,
        effects: &[ArchivedEffect],
        steps: &mut Steps,
    ) -> Option<Folded> {
        assert!(
            self.index.is_some() || effects.is_empty(),
            "effects need an index"
        );
        loop {
            let done = match &self.script {
                Some(script) => self.steps_done == script.steps.len(),
                None => self.effects_done == effects.len(),
            };
            if done {
                assert_eq!(self.effects_done, effects.len(), "effects of another plan");
                return Some(self.finish(keyspace));
            }
            if steps.spent() || !self.advance(keyspace, effects, steps) {
                return None;
            }
        }
    }

    /// Does the next step, or as much of it as the slice allows; whether it is complete.
    fn advance(
        &mut self,
        keyspace: &mut Keyspace,
        effects: &[ArchivedEffect],
        steps: &mut Steps,
    ) -> bool {
        let step = self
            .script
            .as_ref()
            .map(|script| &script.steps[self.steps_done]);
        match step {
            Some(Step::Range(request)) => {
                let mut scan = match std::mem::take(&mut self.active) {
                    Active::Range(scan) => scan,
                    _ => {
                        let at = if request.revision > 0 {
                            request.revision
                        } else {
                            self.revision()
                        };
                        Box::new(Scan::new(request.clone(), at))
                    }
                };
                let Some(response) = scan.run(&keyspace.keys, steps) else {
                    self.active = Active::Range(scan);
                    return false;
                };
                let revision = self.revision();
                self.respond(ResponseOp::Range { revision, response });
            }
            Some(Step::Begin { succeeded }) => {
                steps.take();
                self.open.push(TxnResponse {
                    succeeded: *succeeded,
                    responses: Vec::new(),
                });
            }
            Some(Step::End) => {
                let response = self.open.pop().expect("every end has its beginning");
                self.respond(ResponseOp::Txn(response));
            }
            Some(Step::NothingDeleted) => {
                steps.take();
                let response = DeleteRangeResponse::default();
                self.respond(ResponseOp::DeleteRange {
                    revision: self.revision(),
                    response,
                });
            }
            Some(Step::Effect { prev_kv }) => {
                let prev_kv = *prev_kv;
                return self.apply(keyspace, effects, prev_kv, steps);
            }
            None => return self.apply(keyspace, effects, false, steps),
        }
        self.steps_done += 1;
        true
    }

    /// Applies the next effect, or as much of it as the slice allows; whether it is complete.
    fn apply(
        &mut self,
        keyspace: &mut Keyspace,
        effects: &[ArchivedEffect],
        prev_kv: bool,
        steps: &mut Steps,
    ) -> bool {
        match &effects[self.effects_done] {
            ArchivedEffect::Put { key, value, lease } => {
                let charge = keyspace.reclaim.charge();
                steps.take_many(PUT_STEPS + Steps::of_bytes(value.len()) + charge);
                let response = self.put(keyspace, key, value, lease.to_native(), prev_kv);
                self.respond(ResponseOp::Put {
                    revision: self.revision(),
                    response,
                });
            }
            ArchivedEffect::DeleteRange { key, range_end } => {
                let mut deletion = match std::mem::take(&mut self.active) {
                    Active::DeleteRange(deletion) => deletion,
                    _ => Box::new(Deletion {
                        rest: Span::new(
                            Bytes::copy_from_slice(key),
                            Bytes::copy_from_slice(range_end),
                        ),
                        prev_kv,
                        packer: Packer::default(),
                        response: DeleteRangeResponse::default(),
                    }),
                };
                if !self.delete(keyspace, &mut deletion, steps) {
                    self.active = Active::DeleteRange(deletion);
                    return false;
                }
                let response = deletion.response;
                self.respond(ResponseOp::DeleteRange {
                    revision: self.revision(),
                    response,
                });
            }
            ArchivedEffect::Compact { revision } => {
                steps.take();
                let replayed = self.script.is_none();
                if !(replayed && keyspace.planted.has(Defect::CompactionNotReplayed)) {
                    self.floor = self.floor.max(revision.to_native());
                }
                self.digest.floor(self.floor);
                if self.script.is_some() {
                    self.answer = Some(Answer::Compact);
                }
            }
        }
        self.effects_done += 1;
        self.steps_done += 1;
        true
    }

    fn put(
        &mut self,
        keyspace: &mut Keyspace,
        key: &[u8],
        value: &[u8],
        lease: i64,
        prev_kv: bool,
    ) -> PutResponse {
        let at = self.next_revision();
        let mut response = PutResponse::default();
        let digest = &mut self.digest;
        let (stored, created) = keyspace.keys.push(key, |newest| {
            if prev_kv && let Some(live) = newest.filter(|newest| newest.is_live()) {
                let key = Bytes::copy_from_slice(key);
                response.prev_kv = Some(answer::single(key, live, Parts::ALL));
            }
            let record = Record::put(newest, at, value, lease);
            digest.version(key, &record);
            record
        });
        keyspace.size_bytes += version_bytes(value) + if created { key_bytes(key) } else { 0 };
        keyspace.history.push(at, stored);
        response
    }

    /// Deletes for what is left of the slice; whether the interval is done.
    fn delete(
        &mut self,
        keyspace: &mut Keyspace,
        deletion: &mut Deletion,
        steps: &mut Steps,
    ) -> bool {
        let Keyspace {
            keys,
            history,
            reclaim,
            size_bytes,
            ..
        } = keyspace;
        let Deletion {
            rest,
            prev_kv,
            packer,
            response,
        } = deletion;
        let mut stopped: Option<Key> = None;
        keys.scan_mut(rest, |key: &Key, versions: &mut Versions| {
            if !steps.take() {
                stopped = Some(key.clone());
                return ControlFlow::Break(());
            }
            if versions.newest().is_live() {
                steps.take_many(DELETE_STEPS - 1 + reclaim.charge());
                if *prev_kv {
                    response
                        .prev_kvs
                        .push(packer.pack(key.bytes(), versions.newest(), Parts::ALL));
                }
                let at = self.next_revision();
                let record = Record::tombstone(at);
                self.digest.version(key.bytes(), &record);
                versions.push(record);
                *size_bytes += version_bytes(&[]);
                history.push(at, key.clone());
                response.deleted += 1;
            }
            ControlFlow::Continue(())
        });
        match stopped {
            Some(key) => rest.resume_at(key.bytes()),
            None => return true,
        }
        false
    }

    /// The main revision as the transaction sees it now.
    fn revision(&self) -> i64 {
        self.before + i64::from(self.sub > 0)
    }

    fn next_revision(&mut self) -> Revision {
        let at = Revision {
            main: self.before + 1,
            sub: self.sub,
        };
        self.sub = self
            .sub
            .checked_add(1)
            .expect("fewer than 2^32 keys fit in memory");
        at
    }

    /// Gives an operation's answer to the transaction around it, or to the caller.
    fn respond(&mut self, response: ResponseOp) {
        if let Some(txn) = self.open.last_mut() {
            txn.responses.push(response);
        } else if self.script.is_some() {
            self.answer = Some(match response {
                ResponseOp::Put { response, .. } => Answer::Put(response),
                ResponseOp::DeleteRange { response, .. } => Answer::DeleteRange(response),
                ResponseOp::Txn(response) => Answer::Txn(response),
                ResponseOp::Range { .. } => {
                    unreachable!("a range is planned only inside a transaction")
                }
            });
        }
    }

    fn finish(&mut self, keyspace: &mut Keyspace) -> Folded {
        let revision = self.revision();
        if let Some(script) = &mut self.script {
            script.pin = None;
        }
        if let Some(index) = self.index {
            self.digest.index(index, revision);
            keyspace.marks.push_back(Mark {
                index,
                main: revision,
                floor: self.floor,
                digest: self.digest,
            });
            keyspace.busy = Busy::Free;
            keyspace.advance();
        }
        Folded {
            revision,
            changed: self.sub > 0,
            answer: self.answer.take(),
        }
    }
}
