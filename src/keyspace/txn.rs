//! Planning: decides what a request will do, before anything is done.
//!
//! A plan holds effects without conditions for the entry, and a script by which a fold makes the answer.
//! All that depends on state is decided here. Compares (nested ones too) and refusals of ranges see the
//! state before the request; what `ignore_value` keeps and whether a deletion finds anything also depend on
//! the transaction's earlier operations, because etcd lets some of them meet on one key. A plan without
//! effects changes nothing and needs no entry. Changes nothing itself.

use std::ops::ControlFlow;
use std::vec::IntoIter;

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use super::answer;
use super::compact::Pin;
use super::effects::Effect;
use super::record::{Key, Record};
use super::request::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, KeyRange, PutRequest, RangeRequest,
    Refusal, RequestOp, TxnRequest,
};
use super::revision::View;
use super::span::Span;
use super::steps::Steps;
use super::versions::Versions;
use super::{Busy, Keyspace};
use crate::base::LeaseId;

/// Steps to take up the next thing to be planned.
const FRAME_STEPS: usize = 1;

/// What a request will do.
#[derive(Debug)]
pub struct Plan {
    /// For the entry, in order. None: nothing changes, and [`super::fold::FoldJob::read`] answers.
    pub effects: Vec<Effect>,
    /// How the answer is made.
    pub script: Script,
}

/// How the answer to a planned request is made: its operations in order of execution.
#[derive(Debug)]
pub struct Script {
    pub(super) steps: SmallVec<[Step; 1]>,
    /// The main revision it was planned against.
    pub(super) revision: i64,
    /// Keeps what a script without effects reads, until it has run.
    pub(super) pin: Option<Pin>,
}

impl Script {
    /// The main revision that the request was evaluated against.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }
}

/// One operation of a script.
#[derive(Debug)]
pub(super) enum Step {
    /// A read inside a transaction.
    Range(RangeRequest),
    /// The next effect.
    Effect { prev_kv: bool },
    /// A deletion that finds nothing, and so has no effect.
    NothingDeleted,
    /// A transaction begins.
    Begin { succeeded: bool },
    /// It ends.
    End,
}

impl Keyspace {
    /// Plans a put against the head.
    ///
    /// # Errors
    /// [`Refusal::LeaseNotFound`]; [`Refusal::KeyNotFound`] when there is nothing to keep.
    pub fn plan_put(&self, request: PutRequest) -> Result<Plan, Refusal> {
        self.assert_free();
        check_lease(request.lease)?;
        let prev_kv = request.prev_kv;
        let effect = put_effect(request, |key| self.kept_at(key, self.head_revision()))?;
        Ok(self.plan_one(effect, prev_kv))
    }

    /// Plans a compaction against the head.
    ///
    /// # Errors
    /// [`Refusal::Compacted`] at or below the floor, pending ones included; [`Refusal::FutureRevision`]
    /// above the head.
    pub fn plan_compact(&self, revision: i64) -> Result<Plan, Refusal> {
        self.assert_free();
        if revision <= self.head().floor {
            return Err(Refusal::Compacted);
        }
        if revision > self.head_revision() {
            return Err(Refusal::FutureRevision);
        }
        Ok(self.plan_one(Effect::Compact { revision }, false))
    }

    fn plan_one(&self, effect: Effect, prev_kv: bool) -> Plan {
        let steps = smallvec![Step::Effect { prev_kv }];
        let script = Script {
            steps,
            revision: self.head_revision(),
            pin: None,
        };
        Plan {
            effects: vec![effect],
            script,
        }
    }

    /// What a put of a live key could keep of it at main revision `main`.
    fn kept_at(&self, key: &[u8], main: i64) -> Option<Kept> {
        let record = self.keys.find(key)?.live_at(main)?;
        Some(Kept {
            value: answer::value(record),
            lease: record.lease().0,
        })
    }

    fn assert_free(&self) {
        assert_eq!(
            self.busy,
            Busy::Free,
            "planned against a head that is changing"
        );
    }
}

/// What `ignore_value` and `ignore_lease` leave as it is.
struct Kept {
    value: Bytes,
    lease: i64,
}

/// The effect of a put whose lease is known to exist, with what it keeps filled in. `present` looks up
/// what is there when the put is executed.
fn put_effect(
    request: PutRequest,
    present: impl FnOnce(&[u8]) -> Option<Kept>,
) -> Result<Effect, Refusal> {
    let PutRequest {
        key,
        mut value,
        lease: LeaseId(mut lease),
        ..
    } = request;
    if request.ignore_value || request.ignore_lease {
        let kept = present(&key).ok_or(Refusal::KeyNotFound)?;
        if request.ignore_value {
            value = kept.value;
        }
        if request.ignore_lease {
            lease = kept.lease;
        }
    }
    Ok(Effect::Put { key, value, lease })
}

/// Whether a put may name this lease. No lease can be granted yet, so none exists.
fn check_lease(lease: LeaseId) -> Result<(), Refusal> {
    if lease == LeaseId(0) {
        Ok(())
    } else {
        Err(Refusal::LeaseNotFound)
    }
}

/// A plan under way, of a deletion or a transaction. Until it is complete the head must stay as it is,
/// when it is planned against the head.
#[derive(Debug)]
pub struct PlanJob {
    view: View,
    /// The main revision evaluated against, and the oldest that a range may name.
    revision: i64,
    floor: i64,
    pin: Option<Pin>,
    effects: Vec<Effect>,
    steps: SmallVec<[Step; 1]>,
    /// What is still to be planned, the innermost last.
    frames: SmallVec<[Frame; 1]>,
    probe: Option<Probe>,
}

#[derive(Debug)]
enum Frame {
    /// A transaction's conditions, then one of its branches.
    Compares {
        left: IntoIter<Compare>,
        success: Vec<RequestOp>,
        failure: Vec<RequestOp>,
    },
    /// The operations of the branch taken.
    Operations(IntoIter<RequestOp>),
    /// A deletion on its own.
    Deletion(DeleteRangeRequest),
}

/// A walk over an interval to decide one question.
#[derive(Debug)]
struct Probe {
    rest: Span,
    question: Question,
    /// Whether a live key has been seen.
    found: bool,
}

#[derive(Debug)]
enum Question {
    /// Do all live keys satisfy this?
    Compare(Compare),
    /// Is there a live key at all, before the transaction?
    Deletion(DeleteRangeRequest),
}

impl PlanJob {
    /// Plans a deletion against the head.
    #[must_use]
    pub fn delete_range(keyspace: &Keyspace, request: DeleteRangeRequest) -> PlanJob {
        keyspace.assert_free();
        PlanJob::start(keyspace, View::Head, Frame::Deletion(request))
    }

    /// Plans a transaction. One that may write is planned against the head.
    #[must_use]
    pub fn txn(keyspace: &mut Keyspace, request: TxnRequest, view: View) -> PlanJob {
        if view == View::Head {
            keyspace.assert_free();
        } else {
            assert!(
                request.is_read_only(),
                "writes are planned against the head"
            );
        }
        let left = request.compare.into_iter();
        let frame = Frame::Compares {
            left,
            success: request.success,
            failure: request.failure,
        };
        let mut job = PlanJob::start(keyspace, view, frame);
        if view == View::Committed {
            job.pin = Some(keyspace.pins.pin(job.revision));
        }
        job
    }

    /// Steps that the plan of a deletion takes at most; `usize::MAX` where it walks over an interval.
    #[must_use]
    pub fn delete_range_steps_max(request: &DeleteRangeRequest) -> usize {
        FRAME_STEPS.saturating_add(Probe::steps_max(&request.range))
    }

    /// Steps that the plan of a transaction takes at most, whichever branches it enters; `usize::MAX` where it walks over
    /// an interval.
    #[must_use]
    pub fn txn_steps_max(request: &TxnRequest) -> usize {
        let compares = request.compare.iter();
        let compares =
            compares.map(|compare| FRAME_STEPS.saturating_add(Probe::steps_max(&compare.range)));
        let operations = request.success.iter().chain(&request.failure);
        let operations = operations.map(|operation| match operation {
            RequestOp::Range(_) | RequestOp::Put(_) => FRAME_STEPS,
            RequestOp::DeleteRange(delete) => PlanJob::delete_range_steps_max(delete),
            RequestOp::Txn(txn) => PlanJob::txn_steps_max(txn).saturating_add(FRAME_STEPS),
        });
        // To choose the branch and to leave it.
        let branch = 2 * FRAME_STEPS;
        compares
            .chain(operations)
            .fold(branch, usize::saturating_add)
    }

    fn start(keyspace: &Keyspace, view: View, frame: Frame) -> PlanJob {
        let mark = match view {
            View::Head => keyspace.head(),
            View::Committed => &keyspace.committed,
        };
        PlanJob {
            view,
            revision: mark.main,
            floor: mark.floor,
            pin: None,
            effects: Vec::new(),
            steps: SmallVec::new(),
            frames: smallvec![frame],
            probe: None,
        }
    }

    /// Works for what is left of the slice; the plan, or why there is none, when it is complete.
    pub fn run(
        &mut self,
        keyspace: &mut Keyspace,
        steps: &mut Steps,
    ) -> Option<Result<Plan, Refusal>> {
        if self.view == View::Head {
            keyspace.assert_free();
            assert_eq!(
                self.revision,
                keyspace.head_revision(),
                "the head changed during a plan"
            );
        }
        loop {
            if let Some(probe) = &mut self.probe {
                let answer = probe.run(keyspace, self.revision, steps)?;
                let probe = self.probe.take().expect("it just ran");
                self.conclude(probe.question, answer);
            } else if self.frames.is_empty() {
                return Some(self.finish(keyspace));
            } else if !steps.take_many(FRAME_STEPS) {
                return None;
            } else if let Err(refusal) = self.advance(keyspace) {
                return Some(Err(refusal));
            }
        }
    }

    /// Takes up the next thing to be planned.
    fn advance(&mut self, keyspace: &mut Keyspace) -> Result<(), Refusal> {
        match self.frames.last_mut() {
            Some(Frame::Compares { left, .. }) => match left.next() {
                Some(compare) => {
                    let rest = Span::of(&compare.range);
                    self.probe = Some(Probe {
                        rest,
                        question: Question::Compare(compare),
                        found: false,
                    });
                }
                None => self.enter(true),
            },
            Some(Frame::Operations(left)) => match left.next() {
                Some(operation) => return self.operation(keyspace, operation),
                None => {
                    self.frames.pop();
                    self.steps.push(Step::End);
                }
            },
            Some(Frame::Deletion(_)) => {
                if let Some(Frame::Deletion(request)) = self.frames.pop() {
                    self.probe_deletion(request);
                }
            }
            None => {}
        }
        Ok(())
    }

    fn operation(&mut self, keyspace: &mut Keyspace, operation: RequestOp) -> Result<(), Refusal> {
        match operation {
            RequestOp::Range(request) => {
                match request.revision {
                    0 => {}
                    at if at > self.revision => {
                        return Err(Refusal::FutureRevision);
                    }
                    at if at < self.floor.max(keyspace.readable_from(self.view)) => {
                        return Err(Refusal::Compacted);
                    }
                    at => self.keep_readable(keyspace, at),
                }
                self.steps.push(Step::Range(request));
            }
            RequestOp::Put(request) => {
                let prev_kv = request.prev_kv;
                check_lease(request.lease)?;
                let effect = put_effect(request, |key| self.kept(keyspace, key))?;
                self.effects.push(effect);
                self.steps.push(Step::Effect { prev_kv });
            }
            RequestOp::DeleteRange(request) => self.probe_deletion(request),
            RequestOp::Txn(request) => {
                let left = request.compare.into_iter();
                let (success, failure) = (request.success, request.failure);
                self.frames.push(Frame::Compares {
                    left,
                    success,
                    failure,
                });
            }
        }
        Ok(())
    }

    /// What a put at this place of the transaction could keep of a key: etcd checks only the state before
    /// the transaction, and stops the whole server when an earlier deletion has taken the key since.
    fn kept(&self, keyspace: &Keyspace, key: &[u8]) -> Option<Kept> {
        for effect in self.effects.iter().rev() {
            match effect {
                Effect::Put {
                    key: put,
                    value,
                    lease,
                } if put == key => {
                    let value = value.clone();
                    return Some(Kept {
                        value,
                        lease: *lease,
                    });
                }
                Effect::DeleteRange {
                    key: start,
                    range_end,
                } if Span::new(start.clone(), range_end.clone()).contains(key) => return None,
                Effect::Put { .. } | Effect::DeleteRange { .. } | Effect::Compact { .. } => {}
            }
        }
        keyspace.kept_at(key, self.revision)
    }

    /// Whether an earlier operation of the transaction puts a key into an interval.
    fn has_put_into(&self, range: &KeyRange) -> bool {
        let span = Span::of(range);
        self.effects
            .iter()
            .any(|effect| matches!(effect, Effect::Put { key, .. } if span.contains(key)))
    }

    /// Keeps the versions readable that a script without effects will read at revision `at`, however
    /// long that takes.
    fn keep_readable(&mut self, keyspace: &mut Keyspace, at: i64) {
        if at > 0 && self.pin.as_ref().is_none_or(|pin| at < pin.revision()) {
            self.pin = Some(keyspace.pins.pin(at));
        }
    }

    fn probe_deletion(&mut self, request: DeleteRangeRequest) {
        let rest = Span::of(&request.range);
        self.probe = Some(Probe {
            rest,
            question: Question::Deletion(request),
            found: false,
        });
    }

    fn conclude(&mut self, question: Question, answer: bool) {
        match question {
            Question::Compare(_) if answer => {}
            Question::Compare(_) => self.enter(false),
            Question::Deletion(request) if !answer && !self.has_put_into(&request.range) => {
                self.steps.push(Step::NothingDeleted);
            }
            Question::Deletion(request) => {
                let DeleteRangeRequest { range, prev_kv } = request;
                self.effects.push(Effect::DeleteRange {
                    key: range.key,
                    range_end: range.range_end,
                });
                self.steps.push(Step::Effect { prev_kv });
            }
        }
    }

    /// Goes on with the branch that the innermost transaction takes.
    fn enter(&mut self, succeeded: bool) {
        let Some(Frame::Compares {
            success, failure, ..
        }) = self.frames.pop()
        else {
            unreachable!("only a transaction's conditions choose a branch");
        };
        let branch = if succeeded { success } else { failure };
        self.steps.push(Step::Begin { succeeded });
        self.frames.push(Frame::Operations(branch.into_iter()));
    }

    fn finish(&mut self, keyspace: &mut Keyspace) -> Result<Plan, Refusal> {
        let effects = std::mem::take(&mut self.effects);
        let steps = std::mem::take(&mut self.steps);
        let reads = steps.iter().any(|step| matches!(step, Step::Range(_)));
        if effects.is_empty() && reads {
            self.keep_readable(keyspace, self.revision);
        } else {
            // With effects it runs before anything can move the floor past what it reads.
            self.pin = None;
        }
        let script = Script {
            steps,
            revision: self.revision,
            pin: self.pin.take(),
        };
        Ok(Plan { effects, script })
    }
}

impl Keyspace {
    /// The oldest main revision that a new read of `view` may name.
    fn readable_from(&self, view: View) -> i64 {
        match view {
            View::Head => self.head().floor,
            View::Committed => self.committed.floor,
        }
    }
}

impl Probe {
    /// Steps to answer a question about a range at most.
    fn steps_max(range: &KeyRange) -> usize {
        if range.range_end.is_empty() {
            1
        } else {
            usize::MAX
        }
    }

    /// Walks on; the answer when it is known.
    fn run(&mut self, keyspace: &Keyspace, main: i64, steps: &mut Steps) -> Option<bool> {
        let Probe {
            rest,
            question,
            found,
        } = self;
        if let Some(key) = rest.point() {
            if !steps.take() {
                return None;
            }
            let record = keyspace
                .keys
                .find(key)
                .and_then(|versions| versions.live_at(main));
            return Some(match question {
                Question::Compare(compare) => holds(compare, record),
                Question::Deletion(_) => record.is_some(),
            });
        }
        let mut stopped: Option<Key> = None;
        let mut decided = None;
        keyspace.keys.scan(rest, |key: &Key, versions: &Versions| {
            if !steps.take() {
                stopped = Some(key.clone());
                return ControlFlow::Break(());
            }
            if let Some(record) = versions.live_at(main) {
                *found = true;
                decided = match question {
                    Question::Compare(compare) => (!holds(compare, Some(record))).then_some(false),
                    Question::Deletion(_) => Some(true),
                };
            }
            if decided.is_some() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        if let Some(key) = stopped {
            rest.resume_at(key.bytes());
            return None;
        }
        decided.or(Some(match question {
            Question::Compare(compare) => *found || holds(compare, None),
            Question::Deletion(_) => false,
        }))
    }
}

/// Whether one key, or a missing one, satisfies a condition.
fn holds(compare: &Compare, record: Option<&Record>) -> bool {
    let number = |of: fn(&Record) -> i64, given: &i64| record.map_or(0, of).cmp(given);
    let order = match &compare.target {
        CompareTarget::Version(given) => number(Record::version, given),
        CompareTarget::CreateRevision(given) => number(Record::create, given),
        CompareTarget::ModRevision(given) => number(Record::main, given),
        CompareTarget::Lease(given) => number(|record| record.lease().0, given),
        CompareTarget::Value(given) => match record {
            Some(record) => record.value().cmp(given.as_ref()),
            // No value compares to anything, not even as different.
            None => return false,
        },
    };
    match compare.result {
        CompareResult::Equal => order.is_eq(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Unknown => true,
    }
}
