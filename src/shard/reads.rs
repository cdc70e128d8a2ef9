//! Reads of the committed keyspace: short ones are answered at once, long ones walk on in slices.
//!
//! A linearizable read needs this member to lead and to have committed an entry of its term; until then
//! it waits here. A serializable one never waits. No read waits for a write, or delays one by more than
//! a slice; new reads have half of the slice, so that a short one passes the long ones.

use std::collections::VecDeque;

use super::event::{Answer, ClientRequest, Effects, Header, Refusal, Request, Response, Ticket};
use super::{Shard, evaluate};
use crate::base::Instant;
use crate::base::limits::{SHARD_QUEUE_REQUESTS_MAX, SHARD_RANGE_JOBS_MAX, SLICE_STEPS_MAX};
use crate::base::planted::Defect;
use crate::keyspace::fold::FoldJob;
use crate::keyspace::range::RangeJob;
use crate::keyspace::request::{RangeRequest, TxnRequest};
use crate::keyspace::revision::View;
use crate::keyspace::steps::Steps;
use crate::keyspace::txn::PlanJob;

/// Steps one long read may take before the next one has its turn.
const READ_SLICE_STEPS: usize = SLICE_STEPS_MAX / 8;
/// Steps of taking a read up and answering it, beside its walk.
const READ_STEPS: usize = 2;

/// The reads of one shard.
#[derive(Default)]
pub(super) struct Reads {
    /// Not started: they came while nothing linearizable could be read, or too many are under way.
    waiting: VecDeque<ClientRequest>,
    /// Those of them that may start now have been looked at.
    blocked: bool,
    /// Started and not finished, in turn.
    running: VecDeque<Running>,
}

/// A read that takes more than one slice.
struct Running {
    ticket: Ticket,
    deadline: Instant,
    job: Job,
}

enum Job {
    Range(RangeJob),
    Plan(PlanJob),
    Txn(FoldJob),
}

impl Reads {
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= SHARD_QUEUE_REQUESTS_MAX
    }

    pub(super) fn push(&mut self, request: ClientRequest) {
        assert!(!self.is_full(), "the caller refuses what does not fit");
        self.waiting.push_back(request);
        self.blocked = false;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    pub(super) fn has_work(&self) -> bool {
        !self.running.is_empty() || (!self.waiting.is_empty() && !self.blocked)
    }

    pub(super) fn expire(&mut self, now: Instant, late: &mut Vec<Ticket>) {
        self.waiting
            .retain(|request| keep(request.deadline, request.ticket, now, late));
        self.running
            .retain(|running| keep(running.deadline, running.ticket, now, late));
    }
}

fn keep(deadline: Instant, ticket: Ticket, now: Instant, late: &mut Vec<Ticket>) -> bool {
    let keep = deadline > now;
    if !keep {
        late.push(ticket);
    }
    keep
}

impl Shard {
    /// Runs reads for what is left of the turn: new ones first, because most are short, with at most half
    /// of it; then those under way, one after the other.
    pub(super) fn run_reads(&mut self, steps: &mut Steps, effects: &mut Effects) {
        let under_way = self.reads.running.len();
        let mut for_new = if under_way == 0 {
            steps.part(usize::MAX)
        } else {
            steps.half()
        };
        self.start_reads(&mut for_new, effects);
        steps.put_back(for_new);
        for _ in 0..under_way {
            if steps.spent() {
                return;
            }
            let running = self.reads.running.pop_front().expect("counted before");
            self.run_read(running, steps, effects);
        }
    }

    fn start_reads(&mut self, steps: &mut Steps, effects: &mut Effects) {
        let mut unready = VecDeque::new();
        while !steps.spent() && self.reads.running.len() < SHARD_RANGE_JOBS_MAX {
            let Some(request) = self.reads.waiting.pop_front() else {
                break;
            };
            if needs_leader(&request.request) && !self.raft.may_read() {
                unready.push_back(request);
            } else {
                self.start_read(request, steps, effects);
            }
        }
        self.reads.blocked = self.reads.waiting.is_empty();
        unready.append(&mut self.reads.waiting);
        self.reads.waiting = unready;
    }

    fn start_read(&mut self, request: ClientRequest, steps: &mut Steps, effects: &mut Effects) {
        steps.take_many(READ_STEPS);
        let ClientRequest {
            ticket,
            deadline,
            request,
        } = request;
        let job = match request {
            Request::Range(range) => self.start_range(range),
            Request::Txn(txn) => Ok(self.start_txn(txn)),
            Request::MemberList { .. } => {
                effects.answers.push(self.member_list(ticket));
                return;
            }
            other => unreachable!("not a read: {other:?}"),
        };
        match job {
            Ok(job) => self.run_read(
                Running {
                    ticket,
                    deadline,
                    job,
                },
                steps,
                effects,
            ),
            Err(refusal) => effects.answers.push(self.refuse(ticket, refusal)),
        }
    }

    fn start_range(&mut self, range: RangeRequest) -> Result<Job, Refusal> {
        Ok(Job::Range(RangeJob::new(&mut self.keyspace, range)?))
    }

    fn start_txn(&mut self, txn: TxnRequest) -> Job {
        let view = if self.settings.planted.has(Defect::UncommittedRead) {
            View::Head
        } else {
            View::Committed
        };
        Job::Plan(PlanJob::txn(&mut self.keyspace, txn, view))
    }

    /// Gives one read a slice, and puts it at the end of the line when it is not finished.
    fn run_read(&mut self, running: Running, steps: &mut Steps, effects: &mut Effects) {
        let Running {
            ticket,
            deadline,
            mut job,
        } = running;
        let mut slice = steps.part(READ_SLICE_STEPS);
        let done = match &mut job {
            Job::Range(range) => range
                .run(&self.keyspace, &mut slice)
                .map(|answer| (answer.revision, Ok(Response::Range(answer.response)))),
            Job::Plan(plan) => match plan.run(&mut self.keyspace, &mut slice) {
                None => None,
                Some(Err(refusal)) => {
                    Some((self.keyspace.committed_revision(), Err(refusal.into())))
                }
                Some(Ok(plan)) => {
                    assert!(
                        plan.effects.is_empty(),
                        "a read-only transaction changes something"
                    );
                    steps.put_back(slice);
                    let job = Job::Txn(FoldJob::read(plan.script));
                    return self.run_read(
                        Running {
                            ticket,
                            deadline,
                            job,
                        },
                        steps,
                        effects,
                    );
                }
            },
            Job::Txn(fold) => fold
                .run(&mut self.keyspace, &[], &mut slice)
                .map(|folded| (folded.revision, Ok(evaluate::response(folded.answer)))),
        };
        steps.put_back(slice);
        match done {
            Some((revision, result)) => {
                let header = Header {
                    revision,
                    term: self.raft.term(),
                };
                effects.answers.push(Answer {
                    ticket,
                    header,
                    result,
                });
            }
            None => {
                self.reads.running.push_back(Running {
                    ticket,
                    deadline,
                    job,
                });
            }
        }
    }
}

fn needs_leader(request: &Request) -> bool {
    match request {
        Request::Range(range) => !range.serializable,
        Request::Txn(txn) => !txn.is_serializable(),
        _ => true,
    }
}
