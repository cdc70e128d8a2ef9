//! The operator: brings members in, promotes and removes them, moves the leader, and switches lease reads on and off,
//! amid all faults.
//!
//! It mostly makes one change at a time, and knows who belongs to the cluster from what is committed. What it asks for
//! may be refused, or its fate may stay unknown: a member that is to join is started all the same, and one
//! that was surely not taken is given up.

use std::collections::BTreeMap;

use super::checker::{Promise, Verdict, broken};
use super::clients::kind_of;
use super::clock::Moment;
use super::cluster::{Cluster, Next};
use super::member::{Member, introduction, member_id, member_number};
use super::trace::What;
use crate::base::limits::SIM_MEMBERS_MAX;
use crate::raft::{ReadMode, Role};
use crate::shard::event::{
    Answer, ClientRequest, Member as Listed, MembershipRequest, Refusal, Request, Response, Ticket,
};

/// The operator's requests come from a core of their own.
pub(super) const OPERATOR_CORE: u32 = 1;
/// Voters that the cluster keeps, if it was not smaller from the beginning.
const GROUP_MIN: usize = 3;
/// What an operator that does not wait asks for at once, at most.
const ORDERS_MAX: u64 = 4;

/// What the operator has asked for.
#[derive(Debug, Default)]
pub(super) struct Operator {
    asked: BTreeMap<u32, Order>,
    next: u32,
    /// Until then a change that was asked for may be under way.
    changes_until: Moment,
}

#[derive(Clone, Copy, Debug)]
struct Order {
    /// Whom it asked.
    at: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// This member joins.
    Add(usize),
    Remove,
    Change,
    ReadMode,
    Transfer,
}

/// What may be done to a group.
#[derive(Clone, Copy, Debug)]
enum Step {
    AddVoter,
    AddLearner,
    Promote,
    Remove,
    Update,
    ReadMode,
}

impl Cluster {
    /// The operator changes the membership, unless it waits for a change that may be under way. One that does not
    /// wait asks for several changes at once, all as if it were the only one. Whether it asks for any.
    pub(super) fn order_changes(&mut self) -> bool {
        let group = self.group.newest().to_vec();
        let Some(at) = self.somebody(&group) else {
            return false;
        };
        if !self.conditions.operator_waits {
            let ordered = (0..self.dice.between(1, ORDERS_MAX))
                .map(|_| self.order_change(at, &group))
                .fold(false, |any, ordered| any | ordered);
            return ordered;
        }
        self.operator.changes_until <= self.now && self.order_change(at, &group)
    }

    fn order_change(&mut self, at: usize, group: &[Listed]) -> bool {
        let Some(step) = self.choose_step(group) else {
            return false;
        };
        let learner = group.iter().find(|member| member.is_learner);
        let (what, request, kind) = match step {
            Step::AddVoter | Step::AddLearner => {
                let number = self.members.len();
                let is_learner = matches!(step, Step::AddLearner);
                let request = MembershipRequest::Add {
                    id: member_id(number),
                    peer_urls: introduction(number).peer_urls,
                    is_learner,
                };
                let what = if is_learner {
                    "add learner"
                } else {
                    "add voter"
                };
                (what, request, Kind::Add(number))
            }
            Step::Promote => {
                let Some(learner) = learner else {
                    return false;
                };
                let request = MembershipRequest::Promote(learner.id);
                ("promote", request, Kind::Change)
            }
            Step::Remove => {
                let at_leader = self.dice.below(3) == 0;
                let any = group[self.dice.place(group.len())].id;
                let leader = self.leader().map(member_id);
                let leader = leader.filter(|&id| self.group.contains(id));
                let id = leader.filter(|_| at_leader).unwrap_or(any);
                ("remove", MembershipRequest::Remove(id), Kind::Remove)
            }
            Step::Update => {
                let id = group[self.dice.place(group.len())].id;
                let port = 2_000 + self.dice.below(1_000);
                let request = MembershipRequest::Update {
                    id,
                    peer_urls: vec![format!("http://m{}:{port}", member_number(id))],
                };
                ("update", request, Kind::Change)
            }
            Step::ReadMode => {
                let (what, mode) = if self.dice.below(2) == 0 {
                    ("index reads", ReadMode::Quorum)
                } else {
                    ("lease reads", ReadMode::Lease)
                };
                (what, MembershipRequest::ReadMode(mode), Kind::ReadMode)
            }
        };
        let about = match &request {
            MembershipRequest::Add { id, .. }
            | MembershipRequest::Remove(id)
            | MembershipRequest::Promote(id)
            | MembershipRequest::Update { id, .. } => member_number(*id),
            MembershipRequest::ReadMode(_) => at,
        };
        if let Kind::Add(number) = kind {
            let member = Member::new(number, 0, &self.conditions, &mut self.dice, self.now);
            self.members.push(member);
            let after = self.dice.around(self.conditions.down_max);
            self.plan_in(after, Next::Start(number));
        }
        self.operator.changes_until = self.now.after(self.conditions.patience);
        self.order(at, Request::Membership(request), kind, what, about);
        true
    }

    /// Whether nothing that the operator asked for may still be done.
    pub(super) fn is_unchanging(&self) -> bool {
        self.operator.changes_until <= self.now && self.operator.asked.is_empty()
    }

    fn choose_step(&mut self, group: &[Listed]) -> Option<Step> {
        let learners = group.iter().filter(|member| member.is_learner).count();
        let leaving = |order: &&Order| matches!(order.kind, Kind::Remove);
        let leaving = self.operator.asked.values().filter(leaving).count();
        let voters = group.len() - learners;
        let smallest = GROUP_MIN.min(self.options.members);
        let room = group.len() < self.conditions.group_max && self.members.len() < SIM_MEMBERS_MAX;
        // Unchecked, a majority might come to be of members that have nothing yet and so do not vote, or that have lost
        // what they had.
        let strict = self.conditions.membership.strict;
        let all_whole = self
            .present()
            .into_iter()
            .all(|of| self.members[of].is_whole());
        let weight = |possible: bool, weight: u32| if possible { weight } else { 0 };
        self.dice.weighted(&[
            (weight(room && strict, 3), Step::AddVoter),
            (weight(room, 3), Step::AddLearner),
            (weight(learners > 0, 6), Step::Promote),
            (
                weight(voters > smallest + leaving && (strict || all_whole), 5),
                Step::Remove,
            ),
            (weight(!group.is_empty(), 1), Step::Update),
            (weight(self.conditions.read_modes, 4), Step::ReadMode),
        ])
    }

    /// The operator moves the leader. Whether there is one that can be asked.
    pub(super) fn order_transfer(&mut self) -> bool {
        let group = self.group.newest().to_vec();
        let Some(leader) = self.leader() else {
            return false;
        };
        if group.is_empty() {
            return false;
        }
        let to = group[self.dice.place(group.len())].id;
        let about = member_number(to);
        self.order(
            leader,
            Request::MoveLeader(to),
            Kind::Transfer,
            "move leader",
            about,
        );
        true
    }

    /// A member that leads, or thinks so.
    fn leader(&mut self) -> Option<usize> {
        let leads = |member: &Member| {
            let process = member.process.as_ref();
            process.is_some_and(|process| process.shard.raft().role() == Role::Leader)
        };
        let leaders: Vec<usize> = (0..self.members.len())
            .filter(|&number| leads(&self.members[number]))
            .collect();
        let count = leaders.len();
        (count > 0).then(|| leaders[self.dice.place(count)])
    }

    /// A member of the group that runs; often one that leads.
    fn somebody(&mut self, group: &[Listed]) -> Option<usize> {
        if self.dice.below(3) == 0
            && let Some(leader) = self.leader()
        {
            return Some(leader);
        }
        let running: Vec<usize> = group
            .iter()
            .map(|member| member_number(member.id))
            .filter(|&number| self.members[number].process.is_some())
            .collect();
        let count = running.len();
        (count > 0).then(|| running[self.dice.place(count)])
    }

    fn order(&mut self, at: usize, request: Request, kind: Kind, what: &'static str, about: usize) {
        let number = self.operator.next;
        self.operator.next += 1;
        self.operator.asked.insert(number, Order { at, kind });
        self.line(
            at,
            What::Orders {
                number,
                what,
                about,
            },
        );
        let deadline = self.members[at].clock.read(self.now) + self.conditions.patience;
        let request = ClientRequest {
            ticket: Ticket {
                core: OPERATOR_CORE,
                connection: 0,
                generation: 0,
                request: number,
            },
            deadline,
            request,
        };
        let life = self.members[at].life;
        let request = Next::Request(at, life, Box::new(request));
        self.schedule.plan(self.now, request);
    }

    /// A member has answered the operator.
    pub(super) fn obeyed(&mut self, number: usize, answer: &Answer) -> Verdict {
        let order = answer.ticket.request;
        let Some(Order { kind, .. }) = self.operator.asked.remove(&order) else {
            return Err(broken(
                Promise::OnceAndWhole,
                format_args!("order {order} is answered again: {:?}", answer.result),
            ));
        };
        let result = kind_of(&answer.result);
        self.line(
            number,
            What::Obeys {
                number: order,
                kind: result,
            },
        );
        match (&answer.result, kind) {
            (Ok(Response::LeaderMoved), Kind::Transfer) => self.statistics.transfers += 1,
            (Ok(Response::MemberAdded { .. }), Kind::Add(_))
            | (Ok(Response::MembersChanged(_)), Kind::Change | Kind::Remove) => {
                self.statistics.membership_changes += 1;
                self.operator.changes_until = self.now;
            }
            (Ok(Response::ReadMode(mode)), Kind::ReadMode) => {
                if *mode == ReadMode::Lease {
                    self.statistics.lease_switches += 1;
                }
                self.operator.changes_until = self.now;
            }
            (Err(Refusal::TimedOut | Refusal::TimedOutBy(_) | Refusal::NoLeader), _)
            | (Err(_), Kind::Transfer) => {}
            (Err(_), Kind::Add(joining)) => {
                self.retire(joining);
                self.operator.changes_until = self.now;
            }
            (Err(_), Kind::Change | Kind::Remove | Kind::ReadMode) => {
                self.operator.changes_until = self.now
            }
            (Ok(response), kind) => {
                return Err(broken(
                    Promise::OnceAndWhole,
                    format_args!("{kind:?} is answered with {response:?}"),
                ));
            }
        }
        Ok(())
    }

    /// A member has died, and with it what the operator had asked it.
    pub(super) fn operator_forgets(&mut self, number: usize) {
        self.operator.asked.retain(|_, order| order.at != number);
    }

    /// # Errors
    /// Something that was asked for was never answered.
    pub(super) fn operator_is_answered(&self) -> Verdict {
        match self.operator.asked.first_key_value() {
            None => Ok(()),
            Some((number, order)) => Err(broken(
                Promise::Liveness,
                format_args!("order {number} at member {} was never answered", order.at),
            )),
        }
    }
}
