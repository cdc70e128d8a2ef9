//! Reads of the committed keyspace: short ones are answered at once, long ones walk on in slices.
//!
//! A linearizable read waits here until a round that began after it came in has confirmed up to where it must
//! be committed (Raft dissertation, section 6.4), and until that is committed here; on any member. A
//! serializable one never waits. No read waits for a write, or delays one by more than
//! a slice; new reads have half of the slice, so that a short one passes the long ones.

use std::collections::VecDeque;

use super::asker::{Ask, Asker, Reply};
use super::event::{Header, Refusal, Request, Response};
use super::{Shard, evaluate};
use crate::base::limits::{
    SHARD_QUEUE_REQUESTS_MAX, SHARD_RANGE_JOBS_MAX, SHARD_ROUNDS_WAITING_MAX, SLICE_STEPS_MAX,
};
use crate::base::planted::Defect;
use crate::base::{Index, Instant};
use crate::keyspace::fold::FoldJob;
use crate::keyspace::range::RangeJob;
use crate::keyspace::request::{RangeRequest, TxnRequest};
use crate::keyspace::revision::View;
use crate::keyspace::steps::Steps;
use crate::keyspace::txn::PlanJob;
use crate::raft::Round;

/// Steps one long read may take before the next one has its turn.
const READ_SLICE_STEPS: usize = SLICE_STEPS_MAX / 8;
/// Steps of taking a read up and answering it, beside its walk.
const READ_STEPS: usize = 2;

/// The reads of one shard.
#[derive(Default)]
pub(super) struct Reads {
    /// Linearizable ones, each with its round, whose round is not confirmed. Rounds only grow.
    unconfirmed: VecDeque<(Round, Ask)>,
    /// Ready to start.
    waiting: VecDeque<Ask>,
    /// Rounds that are confirmed as soon as this index is committed here.
    confirming: VecDeque<(Round, Index)>,
    /// Every round up to this one is confirmed.
    confirmed: Round,
    /// Started and not finished, in turn.
    running: VecDeque<Running>,
}

/// A read that takes more than one slice.
struct Running {
    asker: Asker,
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
        self.unconfirmed.len() + self.waiting.len() >= SHARD_QUEUE_REQUESTS_MAX
    }

    /// Takes a read that may start at once.
    pub(super) fn push(&mut self, ask: Ask) {
        assert!(!self.is_full(), "the caller refuses what does not fit");
        self.waiting.push_back(ask);
    }

    /// Takes a read that waits for a round.
    pub(super) fn push_linearizable(&mut self, round: Round, ask: Ask) {
        assert!(!self.is_full(), "the caller refuses what does not fit");
        self.unconfirmed.push_back((round, ask));
    }

    /// Every round up to `round` is confirmed when `index` is committed here.
    pub(super) fn round_ended(&mut self, round: Round, index: Index) {
        if self.confirming.len() == SHARD_ROUNDS_WAITING_MAX
            && let Some(last) = self.confirming.back_mut()
        {
            // Where the commit lags for long, a read of an earlier round may wait a little longer than it must.
            *last = (last.0.max(round), last.1.max(index));
            return;
        }
        self.confirming.push_back((round, index));
    }

    /// Everything up to `committed` is committed here: lets go what that makes linearizable.
    pub(super) fn settle(&mut self, committed: Index) {
        let settled = |&mut (_, index): &mut (Round, Index)| index <= committed;
        while let Some((round, _)) = self.confirming.pop_front_if(settled) {
            self.confirmed = self.confirmed.max(round);
        }
        let confirmed = self.confirmed;
        while let Some((_, ask)) = self
            .unconfirmed
            .pop_front_if(|(round, _)| *round <= confirmed)
        {
            self.waiting.push_back(ask);
        }
    }

    /// Every round up to this one is confirmed.
    pub(super) fn confirmed(&self) -> Round {
        self.confirmed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unconfirmed.is_empty() && self.waiting.is_empty() && self.running.is_empty()
    }

    pub(super) fn has_work(&self) -> bool {
        !self.running.is_empty() || !self.waiting.is_empty()
    }

    /// Gives up what was started and not finished.
    pub(super) fn drop_running(&mut self, mut each: impl FnMut(Asker)) {
        for running in self.running.drain(..) {
            each(running.asker);
        }
    }

    pub(super) fn expire(&mut self, now: Instant, late: &mut Vec<Asker>) {
        self.unconfirmed
            .retain(|(_, ask)| keep(ask.deadline, ask.asker, now, late));
        self.waiting
            .retain(|request| keep(request.deadline, request.asker, now, late));
        self.running
            .retain(|running| keep(running.deadline, running.asker, now, late));
    }
}

fn keep(deadline: Instant, asker: Asker, now: Instant, late: &mut Vec<Asker>) -> bool {
    let keep = deadline > now;
    if !keep {
        late.push(asker);
    }
    keep
}

impl Shard {
    /// Runs reads for what is left of the turn: new ones first, because most are short, with at most half
    /// of it; then those under way, one after the other.
    pub(super) fn run_reads(&mut self, steps: &mut Steps) {
        let under_way = self.reads.running.len();
        let mut for_new = if under_way == 0 {
            steps.part(usize::MAX)
        } else {
            steps.half()
        };
        self.start_reads(&mut for_new);
        steps.put_back(for_new);
        for _ in 0..under_way {
            if steps.spent() {
                return;
            }
            let running = self.reads.running.pop_front().expect("counted before");
            self.run_read(running, steps);
        }
    }

    /// Takes a read, now or after a round.
    pub(super) fn take_read(&mut self, ask: Ask) {
        if self.reads.is_full() {
            self.refuse(ask.asker, Refusal::TooManyRequests);
        } else if is_linearizable(&ask.request) {
            let round = self.raft.read();
            self.reads.push_linearizable(round, ask);
        } else {
            self.reads.push(ask);
        }
    }

    fn start_reads(&mut self, steps: &mut Steps) {
        while !steps.spent() && self.reads.running.len() < SHARD_RANGE_JOBS_MAX {
            let Some(ask) = self.reads.waiting.pop_front() else {
                break;
            };
            self.start_read(ask, steps);
        }
    }

    fn start_read(&mut self, request: Ask, steps: &mut Steps) {
        steps.take_many(READ_STEPS);
        let Ask {
            asker,
            deadline,
            request,
            ..
        } = request;
        let job = match request {
            Request::Range(range) => self.start_range(range),
            Request::Txn(txn) => Ok(self.start_txn(txn)),
            Request::MemberList { .. } => {
                self.answer_member_list(asker);
                return;
            }
            other => unreachable!("not a read: {other:?}"),
        };
        match job {
            Ok(job) => self.run_read(
                Running {
                    asker,
                    deadline,
                    job,
                },
                steps,
            ),
            Err(refusal) => self.refuse(asker, refusal),
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
    fn run_read(&mut self, running: Running, steps: &mut Steps) {
        let Running {
            asker,
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
                            asker,
                            deadline,
                            job,
                        },
                        steps,
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
                self.replies.push(Reply {
                    asker,
                    index: self.keyspace.committed_index(),
                    header,
                    result,
                });
            }
            None => {
                self.reads.running.push_back(Running {
                    asker,
                    deadline,
                    job,
                });
            }
        }
    }
}

fn is_linearizable(request: &Request) -> bool {
    match request {
        Request::Range(range) => !range.serializable,
        Request::Txn(txn) => !txn.is_serializable(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: while the commit lags, the rounds that wait for it stay bounded, and none is confirmed before its index is
    /// committed.
    #[test]
    fn rounds_that_wait_are_bounded() {
        let mut reads = Reads::default();
        let most = SHARD_ROUNDS_WAITING_MAX as u64;
        for number in 1..=3 * most {
            reads.round_ended(Round(number), Index(10 + number));
        }
        assert_eq!(reads.confirming.len(), SHARD_ROUNDS_WAITING_MAX);
        let mut check = |committed: u64, confirmed: u64| {
            reads.settle(Index(committed));
            assert_eq!(reads.confirmed(), Round(confirmed), "at {committed}");
        };
        check(10, 0);
        check(15, 5);
        check(10 + most, most - 1);
        check(9 + 3 * most, most - 1);
        check(10 + 3 * most, 3 * most);
    }
}
