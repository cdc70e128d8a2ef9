//! Who belongs to the group, what its members promise each other, and who leads it, changed on request.
//!
//! A change is checked against the head and is one entry; its answer waits for the commit. One is under way at
//! a time (Raft dissertation, section 4.1): those that come meanwhile wait here, in order, and go to the next
//! leader with the writes when this one steps down. What would leave the group without a majority is
//! refused before it is logged; consensus itself refuses only what is never right.

use std::collections::VecDeque;

use super::Shard;
use super::asker::Asker;
use super::cluster::ClusterChange;
use super::evaluate::Origin;
use super::event::{Member, MembershipRefusal, MembershipRequest, Refusal, Request, Response};
use super::writes::Write;
use crate::base::limits::{LEARNERS_MAX, SHARD_MEMBERSHIP_REQUESTS_MAX, SHARD_MOVE_REQUESTS_MAX};
use crate::base::{Instant, MemberId};
use crate::raft::{ChangeRefusal, Role, TransferRefusal, majority_size};

/// What is asked before the membership is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MembershipRules {
    /// `--strict-reconfig-check`: refuse what leaves no majority of members that have started and are heard. A
    /// member votes when it has the entry that makes it one, so without this check a group that takes in several
    /// voters at once, and loses its leader, may have no majority that can elect another.
    pub strict: bool,
    /// `--max-learners`.
    pub learners_max: usize,
}

impl Default for MembershipRules {
    fn default() -> MembershipRules {
        MembershipRules {
            strict: true,
            learners_max: LEARNERS_MAX,
        }
    }
}

/// Requests of this kind that were taken and not answered.
#[derive(Debug, Default)]
pub(super) struct MemberRequests {
    /// Changes that wait until the one before is committed.
    changes: VecDeque<Write>,
    moves: Vec<Move>,
}

/// A request to move the leader.
#[derive(Debug)]
struct Move {
    asker: Asker,
    deadline: Instant,
    to: MemberId,
    /// Whether the transfer was begun.
    begun: bool,
}

impl MemberRequests {
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.moves.is_empty()
    }
}

impl Shard {
    /// Takes a change whose turn at the head has come.
    pub(super) fn take_change(&mut self, change: Write) {
        if self.member_requests.changes.len() >= SHARD_MEMBERSHIP_REQUESTS_MAX {
            return self.refuse(change.ask.asker, Refusal::TooManyRequests);
        }
        self.member_requests.changes.push_back(change);
    }

    /// Makes the next change, when the one before is committed. Not in the middle of a write: answers wait in the
    /// order of the log.
    pub(super) fn change_members(&mut self) {
        while self.job.is_none() && self.raft.may_change() {
            let Some(Write { ask, .. }) = self.member_requests.changes.pop_front() else {
                return;
            };
            let Request::Membership(request) = ask.request else {
                unreachable!("only changes of the membership wait here");
            };
            let origin = Origin {
                asker: ask.asker,
                deadline: ask.deadline,
                reclaim_through: None,
            };
            if let MembershipRequest::ReadMode(mode) = request
                && mode == self.raft.membership().read_mode
            {
                self.wait_at_head(origin, Ok(Response::ReadMode(mode)));
                continue;
            }
            let changed = self
                .check_change(&request)
                .map_err(Refusal::from)
                .and_then(|change| self.append_cluster_change(change));
            match changed {
                Ok(index) => {
                    let revision = self.keyspace.head_revision();
                    let response = self.changed(&request);
                    self.wait(origin, index, revision, Ok(response));
                }
                Err(refusal) => self.wait_at_head(origin, Err(refusal)),
            }
        }
    }

    /// This member leads no longer: what waits is for the next leader, ahead of what came later.
    pub(super) fn give_back_changes(&mut self) {
        for change in self.member_requests.changes.drain(..) {
            self.writes.put_back(change);
        }
    }

    fn changed(&self, request: &MembershipRequest) -> Response {
        let members: Vec<Member> = self.cluster.members_at_head().cloned().collect();
        let id = match request {
            MembershipRequest::Add { id, .. } => id,
            MembershipRequest::ReadMode(mode) => return Response::ReadMode(*mode),
            MembershipRequest::Remove(_)
            | MembershipRequest::Promote(_)
            | MembershipRequest::Update { .. } => return Response::MembersChanged(members),
        };
        let added = members.iter().find(|member| member.id == *id);
        let member = added.cloned().expect("the change was folded just now");
        Response::MemberAdded { member, members }
    }

    /// What a request changes, if it may.
    fn check_change(
        &self,
        request: &MembershipRequest,
    ) -> Result<ClusterChange, MembershipRefusal> {
        let change = match request {
            MembershipRequest::Add {
                id,
                peer_urls,
                is_learner,
            } => {
                self.check_add(*id, peer_urls, *is_learner)?;
                ClusterChange::MemberAdded(Member {
                    id: *id,
                    peer_urls: peer_urls.clone(),
                    is_learner: *is_learner,
                    ..Member::default()
                })
            }
            MembershipRequest::Remove(id) => {
                self.check_remove(*id)?;
                ClusterChange::MemberRemoved(*id)
            }
            MembershipRequest::Promote(id) => ClusterChange::MemberPromoted(*id),
            MembershipRequest::Update { id, peer_urls } => {
                self.member(*id).ok_or(MembershipRefusal::NotFound)?;
                self.check_urls(*id, peer_urls)?;
                ClusterChange::MemberUpdated {
                    id: *id,
                    peer_urls: peer_urls.clone(),
                }
            }
            MembershipRequest::ReadMode(mode) => ClusterChange::ReadMode(*mode),
        };
        if let Some(raft_change) = change.raft_change() {
            self.raft.check_change(&raft_change).map_err(refusal)?;
        }
        if let MembershipRequest::Promote(id) = request {
            // It is in sync, so it has started, whether or not it has said its name.
            let others = self.started_voters(*id) + 1;
            self.check_started(others, self.voters(*id) + 1)?;
        }
        Ok(change)
    }

    fn check_add(
        &self,
        id: MemberId,
        peer_urls: &[String],
        is_learner: bool,
    ) -> Result<(), MembershipRefusal> {
        let (voters, started) = (self.voters(id), self.started_voters(id));
        // One may always become two: nothing else makes a cluster of one larger.
        let lone = voters == 1 && started == 1;
        if !is_learner && !lone {
            self.check_started(started, voters + 1)?;
        }
        if self.settings.membership.strict && !lone {
            let heard = self.heard_voters();
            if heard < majority_size(voters + 1) {
                return Err(MembershipRefusal::Unhealthy);
            }
        }
        if self.member(id).is_some() || self.cluster.is_removed_at_head(id) {
            return Err(MembershipRefusal::Exists);
        }
        self.check_urls(id, peer_urls)?;
        let learners = self.cluster.members_at_head();
        let learners = learners.filter(|member| member.is_learner).count();
        if is_learner && learners >= self.settings.membership.learners_max {
            return Err(MembershipRefusal::TooManyLearners);
        }
        Ok(())
    }

    fn check_remove(&self, id: MemberId) -> Result<(), MembershipRefusal> {
        let member = self.member(id).ok_or(MembershipRefusal::NotFound)?;
        if member.is_learner {
            return Ok(());
        }
        let left = self.voters(id);
        self.check_started(self.started_voters(id), left)?;
        let strict = self.settings.membership.strict;
        // Who is not heard is no part of the majority that holds the group together.
        if strict && self.raft.is_heard(id) && self.heard_voters() - 1 < majority_size(left) {
            return Err(MembershipRefusal::Unhealthy);
        }
        Ok(())
    }

    fn check_urls(&self, id: MemberId, peer_urls: &[String]) -> Result<(), MembershipRefusal> {
        let mut others = self
            .cluster
            .members_at_head()
            .filter(|member| member.id != id);
        let used = |member: &Member| member.peer_urls.iter().any(|url| peer_urls.contains(url));
        if others.any(used) {
            return Err(MembershipRefusal::PeerUrlExists);
        }
        Ok(())
    }

    /// Of `voters` after a change so many have started.
    fn check_started(&self, started: usize, voters: usize) -> Result<(), MembershipRefusal> {
        if self.settings.membership.strict && started < majority_size(voters) {
            return Err(MembershipRefusal::NotEnoughStarted);
        }
        Ok(())
    }

    fn member(&self, id: MemberId) -> Option<&Member> {
        let mut members = self.cluster.members_at_head();
        members.find(|member| member.id == id)
    }

    /// Voters but this one.
    fn voters(&self, but: MemberId) -> usize {
        self.count_voters(|member| member.id != but)
    }

    /// Those of them that have said their name, which a member does when it starts.
    fn started_voters(&self, but: MemberId) -> usize {
        self.count_voters(|member| member.id != but && !member.name.is_empty())
    }

    fn heard_voters(&self) -> usize {
        self.count_voters(|member| self.raft.is_heard(member.id))
    }

    fn count_voters(&self, wanted: impl Fn(&Member) -> bool) -> usize {
        let members = self.cluster.members_at_head();
        members
            .filter(|member| !member.is_learner && wanted(member))
            .count()
    }

    /// Somebody asks that `to` leads.
    pub(super) fn take_move(&mut self, asker: Asker, deadline: Instant, to: MemberId) {
        if self.member_requests.moves.len() >= SHARD_MOVE_REQUESTS_MAX {
            return self.refuse(asker, Refusal::TooManyRequests);
        }
        self.member_requests.moves.push(Move {
            asker,
            deadline,
            to,
            begun: false,
        });
    }

    /// Begins the transfers that were asked for, and answers those that have happened.
    pub(super) fn move_leader(&mut self, now: Instant) {
        for mut one in std::mem::take(&mut self.member_requests.moves) {
            if !one.begun {
                match self.begin_move(one.to, now) {
                    Ok(()) => one.begun = true,
                    Err(refusal) => {
                        self.refuse(one.asker, refusal);
                        continue;
                    }
                }
            }
            if self.raft.leader() == Some(one.to) {
                self.answer(one.asker, Ok(Response::LeaderMoved));
            } else {
                self.member_requests.moves.push(one);
            }
        }
    }

    fn begin_move(&mut self, to: MemberId, now: Instant) -> Result<(), Refusal> {
        if self.raft.role() != Role::Leader {
            return Err(MembershipRefusal::NotLeader.into());
        }
        match self.raft.transfer_leader(Some(to), now) {
            Ok(_) | Err(TransferRefusal::LeadsAlready) => Ok(()),
            Err(TransferRefusal::UnderWay) if self.raft.transfer_target() == Some(to) => Ok(()),
            Err(TransferRefusal::UnderWay) => Err(Refusal::TooManyRequests),
            Err(TransferRefusal::NotLeader) => Err(MembershipRefusal::NotLeader.into()),
            Err(TransferRefusal::NotVoter | TransferRefusal::Nobody) => {
                Err(MembershipRefusal::BadTransferee.into())
            }
        }
    }

    /// The leader goes on leading.
    pub(super) fn move_abandoned(&mut self, to: MemberId) {
        let abandoned = |one: &mut Move| one.begun && one.to == to;
        let abandoned: Vec<_> = self
            .member_requests
            .moves
            .extract_if(.., abandoned)
            .collect();
        self.refuse_moves(abandoned);
    }

    fn refuse_moves(&mut self, moves: Vec<Move>) {
        for one in moves {
            self.refuse(one.asker, MembershipRefusal::TransferTimedOut.into());
        }
    }

    /// Changes whose deadline has passed are `late`; for a leader that has not moved there is an answer of its own.
    pub(super) fn expire_member_requests(&mut self, now: Instant, late: &mut Vec<Asker>) {
        self.member_requests.changes.retain(|Write { ask, .. }| {
            let keep = ask.deadline > now;
            if !keep {
                late.push(ask.asker);
            }
            keep
        });
        let passed = |one: &mut Move| one.deadline <= now;
        let passed: Vec<_> = self.member_requests.moves.extract_if(.., passed).collect();
        self.refuse_moves(passed);
    }
}

/// What consensus refuses, in the words of the request. That it cannot take any change now was asked before.
fn refusal(refusal: ChangeRefusal) -> MembershipRefusal {
    match refusal {
        ChangeRefusal::Exists | ChangeRefusal::OtherIncarnation => MembershipRefusal::Exists,
        ChangeRefusal::NotFound | ChangeRefusal::Removed => MembershipRefusal::NotFound,
        ChangeRefusal::NotLearner => MembershipRefusal::NotLearner,
        ChangeRefusal::LearnerNotReady => MembershipRefusal::LearnerNotReady,
        ChangeRefusal::LastVoter => MembershipRefusal::NotEnoughStarted,
        ChangeRefusal::TooMany => MembershipRefusal::TooMany,
        ChangeRefusal::NotLeader | ChangeRefusal::NotReady | ChangeRefusal::UnderWay => {
            unreachable!("it was asked whether a change may be made")
        }
    }
}
