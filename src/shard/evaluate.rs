//! Writes: evaluated one after the other against the head, each as one entry or none.
//!
//! ```text
//! request -> refused by alarms or space? -> plan -> no effects:  read the answer ----.
//!                                              `--> effects: append an entry, fold --+-> waiter
//! ```
//!
//! A plan, a fold or a read that does not finish in its slice becomes the shard's [`WriteJob`]; the next
//! write begins when it is done, so the order of the log is the order of evaluation.

use super::Shard;
use super::asker::Asker;
use super::cluster::ClusterChange;
use super::entry::{ArchivedEntryBody, EntryBody};
use super::event::{Alarm, AlarmKind, AlarmRequest, Refusal, Request, Response};
use super::waiters::Waiter;
use super::writes::Write;
use crate::base::limits::{
    LOG_RESERVE_BYTES, SHARD_STAGED_BYTES_MAX, SHARD_UNCOMMITTED_BYTES_MAX,
    SHARD_UNCOMMITTED_ENTRIES_MAX,
};
use crate::base::planted::Defect;
use crate::base::{Index, Instant};
use crate::frame;
use crate::keyspace::effects::ArchivedEffect;
use crate::keyspace::fold::{Answer as Folded, FoldJob};
use crate::keyspace::request::{RequestOp, TxnRequest};
use crate::keyspace::revision::View;
use crate::keyspace::steps::Steps;
use crate::keyspace::txn::{Plan, PlanJob};

/// What etcd counts a put at, beside its key and value.
const PUT_COST_BYTES: u64 = 256;
/// Steps of planning a write, making its entry and answering it, beside its fold.
const WRITE_STEPS: usize = 2;

/// A write that takes more than one slice.
pub(super) struct WriteJob {
    origin: Origin,
    stage: Stage,
}

/// Whose write it is.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    pub(super) asker: Asker,
    pub(super) deadline: Instant,
    /// Of a physical compaction: the revision below which the space must be free before the answer.
    pub(super) reclaim_through: Option<i64>,
}

enum Stage {
    /// With what was asked, if the plan may take more than one slice: without an entry the next leader may be asked.
    Plan(PlanJob, Option<Box<Write>>),
    /// The answer of a plan without effects is being read at the head.
    Read(FoldJob),
    /// The entry is in the log and being folded. Its body is kept apart, because the log's staging
    /// buffer goes its own way.
    Fold {
        index: Index,
        fold: FoldJob,
        body: Vec<u8>,
    },
}

impl Shard {
    /// Whether the head may take another write now.
    pub(super) fn may_evaluate(&self) -> bool {
        self.raft.next_position().is_some()
            && self.waiters.len() < SHARD_UNCOMMITTED_ENTRIES_MAX
            && self.has_room_uncommitted()
            && self.log.staged_bytes() < SHARD_STAGED_BYTES_MAX / 2
            && !self.transfers.holds_writes()
    }

    /// Whether what is decided by nobody yet leaves room for more. Who asked may have gone long ago: followers whose
    /// syncs hang go on to answer heartbeats.
    fn has_room_uncommitted(&self) -> bool {
        let entries = self
            .raft
            .last_index()
            .0
            .saturating_sub(self.raft.commit().0);
        entries < SHARD_UNCOMMITTED_ENTRIES_MAX as u64
            && self.raft.uncommitted_bytes() < SHARD_UNCOMMITTED_BYTES_MAX
    }

    /// Folds what the log holds, and evaluates writes in order behind it, for what `steps` allow.
    pub(super) fn evaluate_writes(&mut self, steps: &mut Steps) {
        if let Some(job) = self.job.take() {
            // What was appended since it began stands before the entry that it may make.
            let folds = matches!(job.stage, Stage::Fold { .. });
            let waits = !folds && !self.folder.run(&mut self.keyspace, steps);
            if waits || !self.may_resume(&job) {
                self.job = Some(job);
                return;
            }
            self.run_write(job.origin, job.stage, steps);
        }
        while self.job.is_none() && self.folder.run(&mut self.keyspace, steps) {
            if steps.spent() || !self.may_evaluate() {
                break;
            }
            let Some(write) = self.writes.pop() else {
                break;
            };
            steps.take_many(WRITE_STEPS);
            self.start_write(write, steps);
        }
    }

    /// Whether a write that was begun can go on. A plan is of use only where an entry may follow: not while this member
    /// hands over.
    fn may_resume(&self, job: &WriteJob) -> bool {
        !matches!(job.stage, Stage::Plan(..)) || self.raft.next_position().is_some()
    }

    /// Whether there is a write that was begun and can go on.
    pub(super) fn has_job(&self) -> bool {
        self.job.as_ref().is_some_and(|job| self.may_resume(job))
    }

    fn start_write(&mut self, write: Write, steps: &mut Steps) {
        let ask = &write.ask;
        if matches!(ask.request, Request::Membership(_)) {
            return self.take_change(write);
        }
        let mut origin = Origin {
            asker: ask.asker,
            deadline: ask.deadline,
            reclaim_through: None,
        };
        if let Err(refusal) = self.check_state(&ask.request) {
            return self.wait_at_head(origin, Err(refusal));
        }
        // Not always: a copy costs a tenth of what the usual transaction does.
        let kept = (!steps.has(plan_steps(&ask.request))).then(|| Box::new(write.clone()));
        let plan = match write.ask.request {
            Request::Put(put) => self.keyspace.plan_put(put),
            Request::Compact { revision, physical } => {
                origin.reclaim_through = physical.then_some(revision);
                self.keyspace.plan_compact(revision)
            }
            Request::DeleteRange(delete) => {
                let plan = PlanJob::delete_range(&self.keyspace, delete);
                return self.run_write(origin, Stage::Plan(plan, kept), steps);
            }
            Request::Txn(txn) => {
                let plan = PlanJob::txn(&mut self.keyspace, txn, View::Head);
                return self.run_write(origin, Stage::Plan(plan, kept), steps);
            }
            Request::Alarm(alarm) => return self.change_alarm(origin, alarm),
            other => unreachable!("not a write: {other:?}"),
        };
        match plan {
            Ok(plan) => self.carry_out(origin, plan, steps),
            Err(refusal) => self.wait_at_head(origin, Err(refusal.into())),
        }
    }

    /// Gives a write a slice; what is left of it becomes the job.
    fn run_write(&mut self, origin: Origin, mut stage: Stage, steps: &mut Steps) {
        match &mut stage {
            Stage::Plan(plan, _) => match plan.run(&mut self.keyspace, steps) {
                Some(Ok(plan)) => return self.carry_out(origin, plan, steps),
                Some(Err(refusal)) => return self.wait_at_head(origin, Err(refusal.into())),
                None => {}
            },
            Stage::Read(read) => {
                if let Some(folded) = read.run(&mut self.keyspace, &[], steps) {
                    return self.wait_at_head(origin, Ok(response(folded.answer)));
                }
            }
            Stage::Fold { index, fold, body } => {
                if let Some(folded) = fold.run(&mut self.keyspace, archived_effects(body), steps) {
                    let index = *index;
                    return self.wait(origin, index, folded.revision, Ok(response(folded.answer)));
                }
            }
        }
        self.job = Some(WriteJob { origin, stage });
    }

    /// Logs what a plan changes and folds it, or reads the answer of one that changes nothing.
    fn carry_out(&mut self, origin: Origin, plan: Plan, steps: &mut Steps) {
        if plan.effects.is_empty() {
            return self.run_write(origin, Stage::Read(FoldJob::read(plan.script)), steps);
        }
        let body = EntryBody::Effects(plan.effects);
        let (index, staged) = match self.append(&body, None) {
            Ok(appended) => appended,
            Err(refusal) => return self.wait_at_head(origin, Err(refusal)),
        };
        let mut fold = FoldJob::lead(&mut self.keyspace, index, plan.script);
        let body = self
            .log
            .staged_body(&staged)
            .expect("the entry was staged just now");
        let effects = archived_effects(body);
        // The usual entry is folded here and now, straight from the staging buffer.
        match fold.run(&mut self.keyspace, effects, steps) {
            Some(folded) => self.wait(origin, index, folded.revision, Ok(response(folded.answer))),
            None => {
                let stage = Stage::Fold {
                    index,
                    fold,
                    body: body.to_vec(),
                };
                self.job = Some(WriteJob { origin, stage });
            }
        }
    }

    fn change_alarm(&mut self, origin: Origin, request: AlarmRequest) {
        let change = match request {
            AlarmRequest::List(kind) => {
                return self.wait_at_head(
                    origin,
                    Ok(Response::Alarm(self.cluster.alarms_at_head(kind))),
                );
            }
            AlarmRequest::Nothing => {
                return self.wait_at_head(origin, Ok(Response::Alarm(Vec::new())));
            }
            AlarmRequest::Activate(member, kind) => {
                let alarm = Alarm { member, kind };
                if self.cluster.is_raised_at_head(alarm) {
                    return self.wait_at_head(origin, Ok(Response::Alarm(vec![alarm])));
                }
                (alarm, ClusterChange::AlarmRaised(alarm))
            }
            AlarmRequest::Deactivate(member, kind) => {
                let alarm = Alarm { member, kind };
                if !self.cluster.is_raised_at_head(alarm) {
                    return self.wait_at_head(origin, Ok(Response::Alarm(Vec::new())));
                }
                (alarm, ClusterChange::AlarmCleared(alarm))
            }
        };
        let (alarm, change) = change;
        match self.append_cluster_change(change) {
            Ok(index) => {
                let revision = self.keyspace.head_revision();
                self.wait(origin, index, revision, Ok(Response::Alarm(vec![alarm])));
            }
            Err(refusal) => self.wait_at_head(origin, Err(refusal)),
        }
    }

    /// Refuses by alarms, quota, memory and disk. What raises the first two is what would grow the
    /// keyspace; whatever frees space goes on.
    fn check_state(&mut self, request: &Request) -> Result<(), Refusal> {
        if matches!(request, Request::Alarm(_)) {
            return Ok(());
        }
        if self.cluster.in_force(AlarmKind::Corrupt) {
            return Err(Refusal::Corrupt);
        }
        if self.log_space_exhausted && self.log.room_bytes() < LOG_RESERVE_BYTES {
            return Err(Refusal::NoSpace);
        }
        let cost = match request {
            Request::Put(put) => PUT_COST_BYTES + put.key.len() as u64 + put.value.len() as u64,
            Request::Txn(txn) => txn_cost_bytes(txn),
            _ => 0,
        };
        if cost == 0 {
            return Ok(());
        }
        if self.cluster.in_force(AlarmKind::NoSpace) {
            return Err(Refusal::NoSpace);
        }
        let size = self.keyspace.size_bytes() + cost;
        let budget = self.settings.memory_budget_bytes;
        let above_quota = self.settings.quota_bytes.is_some_and(|quota| size >= quota);
        if above_quota || size >= budget {
            let member = self.settings.identity.member;
            let alarm = Alarm {
                member,
                kind: AlarmKind::NoSpace,
            };
            // Without room for the alarm itself the refusal stands alone.
            let _raised = self.append_cluster_change(ClusterChange::AlarmRaised(alarm));
            return Err(Refusal::NoSpace);
        }
        // What the process holds beside the keyspace, answers on their way to slow clients for example,
        // goes by itself, and so does this refusal: no alarm.
        if self.memory_used_bytes + cost >= budget {
            return Err(Refusal::NoSpace);
        }
        Ok(())
    }

    /// An answer that changed nothing is a read at the head: it leaves when the head is committed and this
    /// member's leadership confirmed.
    pub(super) fn wait_at_head(&mut self, origin: Origin, result: Result<Response, Refusal>) {
        let revision = self.keyspace.head_revision();
        let waiter = waiter(origin, self.raft.last_index(), revision, result);
        if self
            .settings
            .planted
            .has(Defect::FailedCompareAnsweredAtOnce)
        {
            return self.physical.push((i64::MIN, waiter));
        }
        if self.settings.planted.has(Defect::FailedCompareUnconfirmed) {
            return self.waiters.push(waiter);
        }
        let round = self.raft.read();
        self.waiters.push_unlogged(round, waiter);
    }

    pub(super) fn wait(
        &mut self,
        origin: Origin,
        index: Index,
        revision: i64,
        result: Result<Response, Refusal>,
    ) {
        self.waiters.push(waiter(origin, index, revision, result));
    }

    /// This member leads no longer: what was being evaluated is not, and what has no plan yet is for the next leader. A
    /// fold goes on, because its entry is in the log.
    pub(super) fn abandon_evaluation(&mut self) {
        let Some(WriteJob { origin, stage }) = self.job.take() else {
            return;
        };
        match stage {
            Stage::Plan(_, Some(write)) => self.writes.put_back(*write),
            Stage::Plan(_, None) | Stage::Read(_) => {
                self.refuse(origin.asker, Refusal::LeaderChanged);
            }
            Stage::Fold { .. } => self.job = Some(WriteJob { origin, stage }),
        }
    }

    /// Another state takes the place of this one. An entry of this write may be in the log of others.
    pub(super) fn drop_evaluation(&mut self) {
        if let Some(job) = self.job.take() {
            self.refuse(job.origin.asker, Refusal::TimedOut);
        }
    }

    /// The log ends after `after` now.
    pub(super) fn truncate_evaluation(&mut self, after: Index) {
        let is_cut =
            |job: &mut WriteJob| matches!(job.stage, Stage::Fold { index, .. } if index > after);
        if let Some(job) = self.job.take_if(is_cut) {
            // Its entry is in the log, and may be in others' logs.
            self.refuse(job.origin.asker, Refusal::TimedOut);
            self.folder.give_up_fold(&mut self.keyspace, after);
        }
    }
}

fn waiter(
    origin: Origin,
    index: Index,
    revision: i64,
    result: Result<Response, Refusal>,
) -> Waiter {
    let Origin {
        asker,
        deadline,
        reclaim_through,
    } = origin;
    Waiter {
        index,
        asker,
        deadline,
        revision,
        reclaim_through: reclaim_through.filter(|_| result.is_ok()),
        result,
    }
}

/// The effects of an entry that this process has encoded or checked.
pub(super) fn archived_effects(body: &[u8]) -> &[ArchivedEffect] {
    match frame::access::<EntryBody>(body).expect("the entry was checked when it came in") {
        ArchivedEntryBody::Effects(effects) => effects,
        ArchivedEntryBody::Noop | ArchivedEntryBody::Cluster(_) => &[],
    }
}

/// A planned request's answer as a shard's.
pub(super) fn response(answer: Option<Folded>) -> Response {
    match answer.expect("a script was given, so there is an answer") {
        Folded::Put(response) => Response::Put(response),
        Folded::DeleteRange(response) => Response::DeleteRange(response),
        Folded::Txn(response) => Response::Txn(response),
        Folded::Compact => Response::Compact,
    }
}

/// What etcd counts a transaction at: the dearer branch, nested ones included.
fn txn_cost_bytes(txn: &TxnRequest) -> u64 {
    let branch = |operations: &[RequestOp]| -> u64 {
        let cost = |operation: &RequestOp| match operation {
            RequestOp::Put(put) => PUT_COST_BYTES + put.key.len() as u64 + put.value.len() as u64,
            RequestOp::Txn(txn) => txn_cost_bytes(txn),
            RequestOp::Range(_) | RequestOp::DeleteRange(_) => 0,
        };
        operations.iter().map(cost).sum()
    };
    branch(&txn.success).max(branch(&txn.failure))
}

/// Steps that a plan takes at most.
fn plan_steps(request: &Request) -> usize {
    match request {
        Request::DeleteRange(delete) => PlanJob::delete_range_steps_max(delete),
        Request::Txn(txn) => PlanJob::txn_steps_max(txn),
        _ => 0,
    }
}
