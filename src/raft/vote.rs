//! Elections: pre-votes, votes, and when a member must not vote (Raft paper, sections 5.2 and 5.4.1;
//! dissertation, sections 4.2.3, 6.4.1 and 9.6).
//!
//! ```text
//!           timeout, or the leader's            a majority           a majority of durable
//!           connection closed                   would vote           votes
//! Follower ------------------> PreCandidate ------------> Candidate ------------> Leader
//!     ^                             |                         |                      |
//!     '---- a leader is heard, or somebody is in a later term, or a better log asks -'
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use super::membership::ReadMode;
use super::message::{Body, VoteRequest, VoteResponse};
use super::types::{Output, Role};
use super::{Leading, Raft};
use crate::base::planted::Defect;
use crate::base::{Instant, MemberId, Term};

/// A member's part in elections.
#[derive(Debug, Default)]
pub(super) struct Election {
    /// When to campaign if no leader is heard.
    pub(super) deadline: Option<Instant>,
    /// When a leader was last heard.
    pub(super) heard: Option<Instant>,
    /// Who votes, or would vote, for this member.
    granted: BTreeSet<MemberId>,
    /// Who does not.
    refused: BTreeSet<MemberId>,
    /// What waits until the present term and vote are durable. At most one per member.
    pub(super) promises: Vec<(MemberId, Body)>,
}

impl Raft {
    /// A voter that hears no leader for long enough campaigns. One that is a majority by itself does not
    /// wait, because nobody else can be elected, unless it has promised a leader to wait.
    pub(super) fn tick_election(&mut self, outputs: &mut Vec<Output>) {
        if !self.may_campaign() {
            // A deadline that means nothing would have the caller come at once, again and again.
            self.election.deadline = None;
            return;
        }
        if self.is_only_voter() {
            let promised_until = self.promised_until();
            if self.role == Role::Follower && promised_until.is_none_or(|until| until <= self.now) {
                self.campaign(false, outputs);
                self.election.deadline = None;
            } else {
                self.election.deadline = promised_until.filter(|_| self.role == Role::Follower);
            }
            return;
        }
        match self.election.deadline {
            None => self.rearm(),
            // A vote for itself in yet another term would take as long: it would never get to ask for any. And a term
            // that nobody was asked for deposes whoever leads by now.
            Some(deadline) if deadline <= self.now && self.is_storing_own_vote() => self.rearm(),
            Some(deadline) if deadline <= self.now => self.start_election(outputs),
            Some(_) => {}
        }
    }

    /// Until when this member has promised to elect nobody, not even itself, if it is the only voter left: a leader
    /// that removes itself reads under the lease that the last one's answers give it until that removal is committed.
    fn promised_until(&self) -> Option<Instant> {
        let lease = self.membership().read_mode == ReadMode::Lease && !self.is_alone();
        let heard = self.election.heard.filter(|_| lease)?;
        Some(heard + self.election_timeout)
    }

    /// Waits between one and two election timeouts from now.
    pub(super) fn rearm(&mut self) {
        let spread = u64::try_from(self.election_timeout.as_nanos())
            .unwrap_or(u64::MAX)
            .max(1);
        let jitter = Duration::from_nanos(self.prng.below(spread));
        self.election.deadline = Some(self.now + self.election_timeout + jitter);
    }

    /// The connection to the leader is closed: it is not heard any more, so it holds nobody back. Under
    /// leases only the clock may say so.
    pub(super) fn lose_leader(&mut self, outputs: &mut Vec<Output>) {
        if self.membership().read_mode == ReadMode::Lease {
            return;
        }
        self.election.heard = None;
        self.set_leader(None, outputs);
        // Without a pre-vote all followers would take each other's votes away.
        if self.pre_vote && self.may_campaign() {
            self.start_election(outputs);
        }
    }

    fn start_election(&mut self, outputs: &mut Vec<Output>) {
        self.ask_learners(outputs);
        if self.pre_vote {
            self.pre_campaign(outputs);
        } else {
            self.campaign(false, outputs);
        }
    }

    /// A campaign has come to nothing: perhaps this member was removed, and so were the voters that it knows. Who was a
    /// learner then may be the only one left that can tell.
    fn ask_learners(&mut self, outputs: &mut Vec<Output>) {
        if !matches!(self.role, Role::PreCandidate | Role::Candidate) {
            return;
        }
        for &to in &self.membership().learners {
            self.send(to, Body::IdentityQuestion, outputs);
        }
    }

    /// Whether this member may ask for votes at all. One whose removal is not committed may be the only one
    /// that can be elected: nobody else has the entry that removes it (dissertation, section 4.2.2).
    fn may_campaign(&self) -> bool {
        let committed = self.memberships.committed(self.hard_state.commit);
        let voter =
            self.membership().voters.contains(&self.id) || committed.voters.contains(&self.id);
        voter && self.may_vote() && !self.waits_after_restart()
    }

    fn is_only_voter(&self) -> bool {
        let voters = &self.membership().voters;
        voters.len() == 1 && voters.contains(&self.id)
    }

    /// Whether it is that by what is committed, so that nobody else leads.
    fn is_alone(&self) -> bool {
        let committed = self.memberships.committed(self.hard_state.commit);
        self.is_only_voter() && committed.voters.len() == 1 && committed.voters.contains(&self.id)
    }

    /// Whether this member's vote is worth anything: it must remember every vote and every
    /// acknowledgement it ever gave.
    pub(super) fn may_vote(&self) -> bool {
        self.identity.is_confirmed() && !self.is_rebuilding()
    }

    /// Under leases a restarted voter may have promised, a moment ago, to vote for nobody.
    fn waits_after_restart(&self) -> bool {
        let since_start = self.started.map_or(Duration::ZERO, |at| self.now.since(at));
        self.membership().read_mode == ReadMode::Lease
            && !self.is_alone()
            && since_start < self.election_timeout
    }

    /// Whether a leader was heard a moment ago, so that nobody needs another one (dissertation, sections
    /// 4.2.3 and 6.4.1).
    fn hears_leader(&self) -> bool {
        if self.role == Role::Leader {
            return true;
        }
        let heard = self
            .election
            .heard
            .is_some_and(|at| self.now.since(at) < self.election_timeout);
        let lease = self.membership().read_mode == ReadMode::Lease;
        heard && (lease || self.leader.is_some())
    }

    /// Whether the leader of the present term itself asked for this campaign.
    fn is_handed_over(&self, request: &VoteRequest) -> bool {
        request.transfer && request.term == self.hard_state.term.next()
    }

    /// Whether nobody gets a vote now, whatever its log.
    fn refuses_votes(&self, request: &VoteRequest) -> bool {
        self.waits_after_restart() || (self.hears_leader() && !self.is_handed_over(request))
    }

    /// The election restriction: nobody leads whose log ends before ours (Raft paper, section 5.4.1).
    fn is_up_to_date(&self, request: &VoteRequest) -> bool {
        request.last >= self.terms.last() || self.planted.has(Defect::ShorterLogElected)
    }

    /// One vote per term (Raft paper, section 5.2).
    fn has_vote_for(&self, candidate: MemberId) -> bool {
        self.hard_state.vote.is_none_or(|given| given == candidate)
            || self.planted.has(Defect::VotesTwice)
    }

    /// Asks the others whether they would vote for this member; nothing changes by it.
    fn pre_campaign(&mut self, outputs: &mut Vec<Output>) {
        self.rearm();
        self.role = Role::PreCandidate;
        self.set_leader(None, outputs);
        self.begin_count();
        self.election.granted.insert(self.id);
        for to in self.others() {
            self.ask_pre_vote(to, outputs);
        }
        self.count_votes(outputs);
    }

    fn ask_pre_vote(&self, to: MemberId, outputs: &mut Vec<Output>) {
        if self.membership().voters.contains(&to) {
            let request = self.vote_request(true, false);
            self.send(to, Body::VoteRequest(request), outputs);
        }
    }

    fn vote_request(&self, pre: bool, transfer: bool) -> VoteRequest {
        let term = if pre {
            self.hard_state.term.next()
        } else {
            self.hard_state.term
        };
        VoteRequest {
            pre,
            term,
            last: self.terms.last(),
            transfer,
        }
    }

    /// Raft paper, section 5.2: next term, vote for oneself. The requests leave when that is durable: after
    /// a crash nobody may campaign in the same term with another log.
    fn campaign(&mut self, transfer: bool, outputs: &mut Vec<Output>) {
        self.rearm();
        self.role = Role::Candidate;
        self.set_leader(None, outputs);
        self.begin_count();
        self.enter_term(self.hard_state.term.next(), Some(self.id), outputs);
        let request = self.vote_request(false, transfer);
        for to in self.others() {
            if self.membership().voters.contains(&to) {
                self.promise(to, Body::VoteRequest(request), outputs);
            }
        }
    }

    fn begin_count(&mut self) {
        self.election.granted.clear();
        self.election.refused.clear();
    }

    /// What rests on the present term and vote leaves when they are durable.
    fn promise(&mut self, to: MemberId, body: Body, outputs: &mut Vec<Output>) {
        if self.vote_is_durable() || self.planted.has(Defect::VoteBeforeSync) {
            self.send(to, body, outputs);
            return;
        }
        self.election.promises.retain(|&(member, _)| member != to);
        self.election.promises.push((to, body));
    }

    /// Whether a campaign has begun for which nobody was asked yet.
    fn is_storing_own_vote(&self) -> bool {
        self.role == Role::Candidate && !self.vote_is_durable()
    }

    pub(super) fn vote_is_durable(&self) -> bool {
        let durable = &self.durable_hard_state;
        (durable.term, durable.vote) == (self.hard_state.term, self.hard_state.vote)
    }

    /// Term and vote are on disk: what waited for that leaves, and a candidate counts itself.
    pub(super) fn release_promises(&mut self, outputs: &mut Vec<Output>) {
        if !self.vote_is_durable() {
            return;
        }
        for (to, body) in std::mem::take(&mut self.election.promises) {
            self.send(to, body, outputs);
        }
        if self.role == Role::Candidate && self.hard_state.vote == Some(self.id) {
            self.election.granted.insert(self.id);
            self.count_votes(outputs);
        }
    }

    pub(super) fn on_vote_request(
        &mut self,
        from: MemberId,
        sender_term: Term,
        request: VoteRequest,
        outputs: &mut Vec<Output>,
    ) {
        if request.pre {
            self.on_pre_vote(from, request, outputs);
        } else if request.term == sender_term {
            self.on_vote(from, request, outputs);
        }
    }

    fn on_pre_vote(&mut self, from: MemberId, request: VoteRequest, outputs: &mut Vec<Output>) {
        let mut granted = request.term > self.hard_state.term
            && self.may_vote()
            && !self.refuses_votes(&request)
            && self.is_up_to_date(&request);
        if self.role == Role::PreCandidate {
            // All followers notice at once that a connection to their leader was closed. They must not
            // take each other's votes away: the best log goes first, and of equal ones the highest id.
            if (request.last, from) > (self.terms.last(), self.id) {
                if granted {
                    self.role = Role::Follower;
                    self.rearm();
                }
            } else {
                granted = false;
                self.ask_pre_vote(from, outputs);
            }
        }
        self.answer_vote(from, &request, granted, outputs);
    }

    fn on_vote(&mut self, from: MemberId, request: VoteRequest, outputs: &mut Vec<Output>) {
        if request.term < self.hard_state.term || self.refuses_votes(&request) {
            self.answer_vote(from, &request, false, outputs);
            return;
        }
        if request.term > self.hard_state.term {
            self.become_follower(request.term, None, outputs);
        }
        let granted = self.role == Role::Follower
            && self.leader.is_none()
            && self.may_vote()
            && self.has_vote_for(from)
            && self.is_up_to_date(&request);
        if !granted {
            self.answer_vote(from, &request, false, outputs);
            return;
        }
        self.rearm();
        if self.hard_state.vote.is_none() {
            self.hard_state.vote = Some(from);
            outputs.push(Output::PersistHardState(self.hard_state));
        }
        let response = VoteResponse {
            pre: false,
            term: request.term,
            granted: true,
        };
        self.promise(from, Body::VoteResponse(response), outputs);
    }

    fn answer_vote(
        &self,
        to: MemberId,
        request: &VoteRequest,
        granted: bool,
        outputs: &mut Vec<Output>,
    ) {
        let response = VoteResponse {
            pre: request.pre,
            term: request.term,
            granted,
        };
        self.send(to, Body::VoteResponse(response), outputs);
    }

    pub(super) fn on_vote_response(
        &mut self,
        from: MemberId,
        sender_term: Term,
        response: VoteResponse,
        outputs: &mut Vec<Output>,
    ) {
        if sender_term > self.hard_state.term {
            self.become_follower(sender_term, None, outputs);
            return;
        }
        let asked = match self.role {
            Role::PreCandidate => (true, self.hard_state.term.next()),
            Role::Candidate => (false, self.hard_state.term),
            Role::Follower | Role::Learner | Role::Leader => return,
        };
        // Only voters were asked. Invented ids must not fill memory.
        let was_asked = self.membership().voters.contains(&from);
        if (response.pre, response.term) != asked || !was_asked {
            return;
        }
        if response.granted {
            self.election.granted.insert(from);
            self.count_votes(outputs);
        } else {
            self.election.refused.insert(from);
            // A pre-candidate goes on: who refuses may not have noticed yet that the leader is gone.
            if self.role == Role::Candidate && self.membership().is_majority(&self.election.refused)
            {
                self.role = Role::Follower;
            }
        }
    }

    fn count_votes(&mut self, outputs: &mut Vec<Output>) {
        if !self.membership().is_majority(&self.election.granted) {
            return;
        }
        match self.role {
            Role::PreCandidate => self.campaign(false, outputs),
            Role::Candidate => self.become_leader(outputs),
            Role::Follower | Role::Learner | Role::Leader => {}
        }
    }

    fn become_leader(&mut self, outputs: &mut Vec<Output>) {
        self.role = Role::Leader;
        self.leading = Leading::new(self.others(), self.terms.last_index(), self.now);
        self.outages.elected = Some(self.now);
        self.set_leader(Some(self.id), outputs);
        outputs.push(Output::BecameLeader {
            term: self.hard_state.term,
        });
    }

    /// The leader hands over (dissertation, section 3.10): no pre-vote, because it is alive and agrees.
    pub(super) fn on_timeout_now(&mut self, from: MemberId, outputs: &mut Vec<Output>) {
        if self.role == Role::Follower && self.leader == Some(from) && self.may_campaign() {
            self.campaign(true, outputs);
        }
    }
}
