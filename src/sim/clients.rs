//! Clients' requests, and what the checkers make of the answers.

use std::time::Duration;

use super::checker::history::Outcome;
use super::checker::{Promise, Verdict, broken};
use super::cluster::{Cluster, Next, Phase};
use super::hung::CALM_HANG_BEGINS;
use super::operator::OPERATOR_CORE;
use super::trace::What;
use crate::shard::event::{Answer, ClientRequest, Event, Refusal, Request, Response, Ticket};

/// After the faults have ended, requests must succeed when this has passed.
const CALM_GRACE: Duration = Duration::from_secs(10);

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) member: usize,
    pub(super) must_succeed: bool,
}

impl Cluster {
    pub(super) fn burst(&mut self) -> Verdict {
        if self.phase == Phase::Quiet {
            return Ok(());
        }
        let after = self.dice.around(self.conditions.burst_interval);
        self.plan_in(after, Next::Burst);
        // A disk that hangs in the calm may cost the leader, and so an election, like what happened before. Where a
        // member keeps nothing in memory for others, the leader waits for its disk for some timeouts first.
        let grace = match self.hung_in_calm {
            Some(_) => CALM_GRACE + CALM_HANG_BEGINS + 2 * self.conditions.election_timeout,
            None => CALM_GRACE,
        };
        let must_succeed =
            matches!(self.phase, Phase::Calm { since } if self.now.since(since) > grace);
        // In the calm only who belongs to the cluster must serve.
        let members = match self.phase {
            Phase::Faults => self.present(),
            Phase::Calm { .. } | Phase::Quiet => self.serving(),
        };
        for _ in 0..self.dice.between(1, self.conditions.burst_max) {
            let member = members[self.dice.place(members.len())];
            let must_succeed = must_succeed && !self.is_excused(member);
            let (request, kind) = self.workload.next(&self.history);
            self.ask(member, request, kind, must_succeed)?;
        }
        Ok(())
    }

    /// Whether a member need not serve, for its disk hangs or all are slow, or did so a moment ago.
    fn is_excused(&self, number: usize) -> bool {
        let slow = self.slow_in_calm;
        self.hung_in_calm
            .is_some_and(|(hung, until)| hung == number && self.now < until)
            || slow.is_some_and(|slow| self.now < slow.excused_until())
    }

    pub(super) fn ask(
        &mut self,
        number: usize,
        request: Request,
        kind: &'static str,
        must_succeed: bool,
    ) -> Verdict {
        let member = &self.members[number];
        // Nobody answers at a member that is down.
        if member.process.is_none() {
            return Ok(());
        }
        let operation = self.history.next_operation();
        self.history.asked(&request);
        self.statistics.operations += 1;
        self.line(number, What::Asked { operation, kind });
        let asked = Asked {
            member: number,
            must_succeed,
        };
        self.asked.insert(operation, asked);
        let deadline = self.members[number].clock.read(self.now) + self.conditions.patience;
        let ticket = Ticket {
            core: 0,
            connection: 0,
            generation: 0,
            request: operation,
        };
        let request = ClientRequest {
            ticket,
            deadline,
            request,
        };
        if self.members[number].paused_until > self.now {
            let life = self.members[number].life;
            let request = Next::Request(number, life, Box::new(request));
            self.schedule.plan(self.now, request);
            return Ok(());
        }
        self.hand_in(number, Event::Requests(&mut vec![request]))
    }

    pub(super) fn answered(&mut self, number: usize, answer: &Answer) -> Verdict {
        let operation = answer.ticket.request;
        if answer.ticket.core == OPERATOR_CORE {
            return self.obeyed(number, answer);
        }
        let Some(asked) = self.asked.remove(&operation) else {
            return Err(broken(
                Promise::OnceAndWhole,
                format_args!("request {operation} is answered again: {:?}", answer.result),
            ));
        };
        let revision = answer.header.revision;
        let kind = kind_of(&answer.result);
        self.line(
            number,
            What::Answered {
                operation,
                revision,
                kind,
            },
        );
        match self.history.answer(operation, revision, &answer.result)? {
            Outcome::Done => self.statistics.done += 1,
            Outcome::Declined => self.statistics.declined += 1,
            outcome @ (Outcome::Refused | Outcome::Unknown) => {
                if asked.must_succeed {
                    return Err(broken(
                        Promise::Liveness,
                        format_args!(
                            "request {operation} is refused though the faults have ended: {:?}",
                            answer.result
                        ),
                    ));
                }
                if outcome == Outcome::Refused {
                    self.statistics.refused += 1;
                } else {
                    self.statistics.unknown += 1;
                }
            }
        }
        if matches!(answer.result, Ok(Response::Compact)) {
            self.statistics.compactions += 1;
        }
        Ok(())
    }
}

pub(super) fn kind_of(result: &Result<Response, Refusal>) -> &'static str {
    match result {
        Ok(_) => "done",
        Err(Refusal::Keyspace(_)) => "declined",
        Err(Refusal::NoLeader) => "no leader",
        Err(Refusal::LeaderChanged) => "leader changed",
        Err(Refusal::TimedOut) => "timed out",
        Err(Refusal::TimedOutBy(_)) => "timed out by an outage",
        Err(Refusal::NoLeaderInTime) => "no leader in time",
        Err(Refusal::TooManyRequests) => "too many requests",
        Err(Refusal::NoSpace) => "no space",
        Err(Refusal::Corrupt) => "corrupt",
        Err(Refusal::TooLarge) => "too large",
        Err(Refusal::Stopped) => "stopped",
        Err(Refusal::Membership(_)) => "not so",
    }
}
