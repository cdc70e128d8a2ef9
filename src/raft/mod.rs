//! Consensus: who leads, in which term, who belongs to the group, and up to which index the log is
//! committed.
//!
//! Pure: time comes in as an argument, randomness from a seed, and what must be done comes out as
//! [`Output`]s in the order in which it must be done. It never sees the bytes of an entry and does not
//! know what a key is. What promises durability (a vote, an acknowledgement, a request for votes)
//! is not put out before [`Raft::hard_state_durable`] or [`Raft::log_durable`] has said that it is
//! durable; what is put out may leave at once. Runs on the core of its shard.
//!
//! ```text
//! tick, step(message) ----.            .----> Send, PersistHardState, TruncateLog, AppendEntries
//! append, read, transfer -+--> Raft ---+----> Committed, ReadReady, BecameLeader, LeaderChanged
//! *_durable --------------'            '----> NeedsCheckpoint, ResetLog
//!                  flush, once per turn: what queued meanwhile leaves in batches
//! ```
//!
//! Where to look: `vote` elections, `identity` and `directories` whose word is heard, `lead` and `progress` the
//! leader's side of the log, `follow` the follower's, `rebuild` what a damaged one waits for, `read` confirmed
//! leadership, `change` and `membership` who belongs to the group, `transfer` handing over, `outage` what is told of all
//! this to who waited in vain.

mod change;
mod directories;
mod follow;
mod identity;
mod lead;
mod log;
mod membership;
mod message;
mod outage;
mod progress;
mod quorum;
mod read;
mod rebuild;
mod transfer;
mod types;
mod vote;

use std::collections::BTreeMap;
use std::time::Duration;

pub use directories::{Directories, DirectoriesVersion};
pub use identity::Confirmation;
pub use log::LogTerms;
pub use membership::{Change, ChangeRefusal, Membership, ReadMode};
pub use message::{
    Append, AppendResponse, AppendResult, Body, Entries, Heartbeat, HeartbeatResponse, Matched,
    Message, ReadContext, Standing, StateDigest, TermRun, VoteRequest, VoteResponse, Voters,
};
pub use outage::Outage;
pub use progress::{Flow, Progress, Windows};
pub use quorum::{majority_size, majority_value, tolerated_faults};
pub use transfer::{SyncStall, TransferRefusal};
pub use types::{Output, PeerRefusal, Position, Rebuild, Role, Round, StepDown};

use self::follow::Following;
use self::identity::Identity;
use self::lead::Leading;
use self::membership::Memberships;
use self::outage::Outages;
use self::read::Reads;
use self::rebuild::{Rebuilding, above_floor};
use self::vote::Election;
use crate::base::planted::{Defect, Planted};
use crate::base::prng::Prng;
use crate::base::{HardState, Incarnation, Index, Instant, MemberId, Term};

/// What a consensus core is started with, beside its log.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member.
    pub id: MemberId,
    /// This member's data directory.
    pub incarnation: Incarnation,
    /// Whether a majority has confirmed that no other directory belongs to this member
    /// ([`Output::IdentityConfirmed`]); it does not vote before.
    pub confirmed: bool,
    /// The directories of others that are stored durably here ([`Output::LearnIncarnation`]).
    pub incarnations: BTreeMap<MemberId, Incarnation>,
    /// The newest membership at or below the commit index, and every later one of the log.
    pub memberships: Vec<(Index, Membership)>,
    /// A damaged log that is being rebuilt: the member neither votes nor acknowledges before it is whole
    /// again ([`Output::Rebuilt`]).
    pub rebuild: Option<Rebuild>,
    /// Part of the log was lost once: the member has no vote left in any term up to this one.
    pub vote_floor: Term,
    /// `--election-timeout`: a follower waits between this and twice this for a leader.
    pub election_timeout: Duration,
    /// `--heartbeat-interval`.
    pub heartbeat_interval: Duration,
    /// How much may be on its way to one follower.
    pub windows: Windows,
    /// `--pre-vote`: ask whether one would be elected before disturbing anybody.
    pub pre_vote: bool,
    /// Whether a leader that hears no majority steps down.
    pub check_quorum: bool,
    /// Decides every random choice. Must differ between members and between starts of one member.
    pub seed: u64,
}

/// One member's consensus state for one shard.
#[derive(Debug)]
pub struct Raft {
    id: MemberId,
    incarnation: Incarnation,
    election_timeout: Duration,
    heartbeat_interval: Duration,
    windows: Windows,
    pre_vote: bool,
    check_quorum: bool,
    /// Never [`Role::Learner`]: that is a follower whose membership says so.
    role: Role,
    hard_state: HardState,
    /// The hard state that is known to be on disk; promises rest on this one.
    durable_hard_state: HardState,
    leader: Option<MemberId>,
    terms: LogTerms,
    /// The log is on disk up to here.
    durable: Index,
    memberships: Memberships,
    /// The latest time seen.
    now: Instant,
    /// The first time seen.
    started: Option<Instant>,
    /// Removed, or not who it says it is: nothing is said or heard any more.
    silent: bool,
    rebuilding: Option<Rebuilding>,
    digest: Option<StateDigest>,
    election: Election,
    following: Following,
    leading: Leading,
    /// How long who was asked to take over may need for it, where this member has led until then.
    successor_due: Option<Instant>,
    reads: Reads,
    identity: Identity,
    outages: Outages,
    prng: Prng,
    planted: Planted,
}

impl Raft {
    /// A follower that continues from what its log holds, durable up to `durable`.
    ///
    /// # Panics
    /// When the recovered commit index lies outside the log, or the log is newer than the member's term: that is
    /// our bug, not damage, because recovery checks it.
    #[must_use]
    pub fn new(config: Config, hard_state: HardState, terms: LogTerms, durable: Index) -> Raft {
        let recovered = hard_state;
        let mut hard_state = above_floor(hard_state, config.vote_floor, config.id);
        if config.rebuild.is_some() {
            hard_state.vote = hard_state.vote.or(Some(config.id));
        }
        // A checkpoint is committed state, whatever the log remembers of that.
        hard_state.commit = hard_state.commit.max(terms.base().index);
        assert!(
            hard_state.commit <= terms.last_index(),
            "commit index {} lies beyond the end of the log {}",
            hard_state.commit,
            terms.last_index(),
        );
        assert!(
            terms.last_term() <= hard_state.term,
            "the log's last term {} is newer than the member's {}",
            terms.last_term(),
            hard_state.term,
        );
        assert!(
            durable <= terms.last_index(),
            "durable index {durable} lies beyond the end of the log {}",
            terms.last_index(),
        );
        let mut memberships = Memberships::new(config.memberships);
        memberships.settle(hard_state.commit);
        let silent = memberships
            .committed(hard_state.commit)
            .removed
            .contains(&config.id);
        Raft {
            id: config.id,
            incarnation: config.incarnation,
            election_timeout: config.election_timeout,
            heartbeat_interval: config.heartbeat_interval,
            windows: config.windows,
            pre_vote: config.pre_vote,
            check_quorum: config.check_quorum,
            role: Role::Follower,
            hard_state,
            durable_hard_state: recovered,
            leader: None,
            durable,
            terms,
            memberships,
            now: Instant(0),
            started: None,
            silent,
            rebuilding: config.rebuild.map(Rebuilding::new),
            digest: None,
            election: Election::default(),
            following: Following::default(),
            leading: Leading::default(),
            successor_due: None,
            reads: Reads::default(),
            identity: Identity::new(config.confirmed, config.incarnations),
            outages: Outages::default(),
            prng: Prng::from_seed(config.seed),
            planted: Planted::NOTHING,
        }
    }

    /// Makes it wrong on purpose.
    pub fn plant(&mut self, planted: Planted) {
        self.planted = planted;
        self.identity.planted = planted;
    }

    /// The present role.
    #[must_use]
    pub fn role(&self) -> Role {
        let voter = self.membership().voters.contains(&self.id);
        match self.role {
            Role::Follower if !voter => Role::Learner,
            role => role,
        }
    }

    /// This member.
    #[must_use]
    pub fn id(&self) -> MemberId {
        self.id
    }

    /// The present term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    /// The data directory that this member runs on.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The leader of this term, when known.
    #[must_use]
    pub fn leader(&self) -> Option<MemberId> {
        self.leader
    }

    /// Highest index known to be committed.
    #[must_use]
    pub fn commit(&self) -> Index {
        self.hard_state.commit
    }

    /// The end of the log, durable or not.
    #[must_use]
    pub fn last_index(&self) -> Index {
        self.terms.last_index()
    }

    /// The bytes of the entries that are not committed, about.
    #[must_use]
    pub fn uncommitted_bytes(&self) -> u64 {
        self.terms.bytes_after(self.hard_state.commit)
    }

    /// Which term wrote which index.
    #[must_use]
    pub fn log(&self) -> &LogTerms {
        &self.terms
    }

    /// What the log must remember beside the entries.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The membership in force, committed or not.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        self.memberships.in_force()
    }

    /// What is known about a follower, while this member leads.
    #[must_use]
    pub fn progress(&self, of: MemberId) -> Option<&Progress> {
        self.leading.progress.get(&of)
    }

    /// Whether this member leads and has committed an entry of its own term: before that it does not know
    /// what is committed (Raft dissertation, section 6.4).
    #[must_use]
    pub fn has_committed_in_term(&self) -> bool {
        self.role == Role::Leader
            && (self.terms.term_at(self.hard_state.commit) == Some(self.hard_state.term)
                || self.planted.has(Defect::ReadBeforeOwnTerm))
    }

    /// The leader's state at a committed index: heartbeats carry the newest one, for followers to
    /// compare with theirs.
    pub fn set_digest(&mut self, digest: StateDigest) {
        self.digest = Some(digest);
    }

    /// When [`Self::tick`] has something to do at the latest; `None` for now.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.role == Role::Leader {
            Some(self.leading.heartbeat_due)
        } else if self.identity.is_confirmed() {
            self.election.deadline
        } else {
            None
        }
    }

    /// Time passes: elections, heartbeats, and whether a majority is still there.
    pub fn tick(&mut self, now: Instant, outputs: &mut Vec<Output>) {
        self.observe(now);
        if self.silent {
            return;
        }
        self.ask_for_confirmation(outputs);
        if self.role == Role::Leader {
            self.tick_leader(outputs);
        } else {
            self.ask_again(outputs);
            self.tick_election(outputs);
        }
    }

    /// A message arrived. A peer's connection said who sent it.
    pub fn step(
        &mut self,
        from: MemberId,
        message: Message,
        now: Instant,
        outputs: &mut Vec<Output>,
    ) {
        self.observe(now);
        if self.silent || !message.is_possible() || !self.admit(from, &message, outputs) {
            return;
        }
        if self.is_lie(from, &message, outputs) {
            return;
        }
        let Message {
            term,
            incarnation,
            body,
        } = message;
        self.heard_while_rebuilding(from, term);
        match body {
            Body::VoteRequest(request) => self.on_vote_request(from, term, request, outputs),
            Body::VoteResponse(response) => self.on_vote_response(from, term, response, outputs),
            Body::IdentityQuestion => self.on_identity_question(from, incarnation, outputs),
            Body::IdentityConfirmed {
                incarnation,
                voters,
            } => {
                self.on_identity_confirmed(from, incarnation, voters, outputs);
            }
            Body::IdentityRefused { incarnation } => {
                self.on_identity_refused(incarnation, outputs);
            }
            Body::Removed => self.on_removed(outputs),
            body => self.step_in_term(from, term, body, outputs),
        }
        self.notice_rebuilt(outputs);
    }

    /// What means something in the term it was sent in only.
    fn step_in_term(&mut self, from: MemberId, term: Term, body: Body, outputs: &mut Vec<Output>) {
        if term < self.hard_state.term {
            // A leader that does not know that its term is over would go on for ever.
            if matches!(body, Body::Append(_) | Body::Heartbeat(_)) {
                self.send(from, Body::NewerTerm, outputs);
            }
            return;
        }
        if term > self.hard_state.term {
            self.become_follower(term, None, outputs);
        }
        match body {
            Body::Append(append) => self.on_append(from, &append, outputs),
            Body::AppendResponse(response) => self.on_append_response(from, response, outputs),
            Body::Heartbeat(heartbeat) => self.on_heartbeat(from, heartbeat, outputs),
            Body::HeartbeatResponse(response) => {
                self.on_heartbeat_response(from, response, outputs);
            }
            Body::ReadRequest { context, standing } => {
                self.on_read_request(from, context, standing, outputs);
            }
            Body::ReadResponse {
                context,
                index,
                last,
            } => {
                self.on_read_response(from, context, (index, last), outputs);
            }
            Body::TimeoutNow => self.on_timeout_now(from, outputs),
            // That it came in a later term was all it had to say.
            Body::NewerTerm => {}
            Body::VoteRequest(_)
            | Body::VoteResponse(_)
            | Body::IdentityQuestion
            | Body::IdentityConfirmed { .. }
            | Body::IdentityRefused { .. }
            | Body::Removed => unreachable!("has no term"),
        }
    }

    /// The end of a turn: entries appended and reads asked for meanwhile leave together.
    pub fn flush(&mut self, now: Instant, outputs: &mut Vec<Output>) {
        self.observe(now);
        if self.silent {
            return;
        }
        self.begin_round(outputs);
        if self.role == Role::Leader {
            self.send_appends(outputs);
            self.hand_over_when_ready(outputs);
        }
    }

    /// The hard state that [`Output::PersistHardState`] asked for is on disk: votes may leave.
    pub fn hard_state_durable(&mut self, durable: HardState, outputs: &mut Vec<Output>) {
        assert!(
            durable.term >= self.durable_hard_state.term,
            "durable term moved back from {} to {}",
            self.durable_hard_state.term,
            durable.term,
        );
        self.durable_hard_state = durable;
        if self.silent {
            return;
        }
        self.release_promises(outputs);
        self.notice_rebuilt(outputs);
    }

    /// This member's log is on disk up to `index`: it may be counted, or acknowledged.
    pub fn log_durable(&mut self, index: Index, outputs: &mut Vec<Output>) {
        assert!(
            index <= self.terms.last_index(),
            "durable index {index} lies beyond the end of the log {}",
            self.terms.last_index(),
        );
        self.durable = self.durable.max(index);
        if self.silent {
            return;
        }
        if self.role == Role::Leader {
            self.advance_commit(outputs);
        } else {
            self.notice_rebuilt(outputs);
            self.acknowledge(outputs);
        }
    }

    /// The connection to a peer was closed or is new: what was under way on it is lost. Without its
    /// leader a follower asks at once who would vote for it; the log that reaches furthest wins.
    pub fn peer_disconnected(&mut self, peer: MemberId, now: Instant, outputs: &mut Vec<Output>) {
        self.observe(now);
        if self.silent {
            return;
        }
        let membership = self.memberships.in_force();
        self.outages.note_closed(peer, membership, self.now);
        if self.role == Role::Leader {
            self.restart_progress(peer);
        } else if self.leader == Some(peer) {
            self.lose_leader(outputs);
        }
    }

    /// Back to following, in this term or a later one.
    fn become_follower(&mut self, term: Term, leader: Option<MemberId>, outputs: &mut Vec<Output>) {
        assert!(
            term >= self.hard_state.term,
            "term falls from {} to {term}",
            self.hard_state.term
        );
        let led = self.role == Role::Leader;
        self.role = Role::Follower;
        if term > self.hard_state.term {
            let vote = self.vote_on_entry();
            self.enter_term(term, vote, outputs);
        }
        if led {
            self.note_handed_over();
            self.leading = Leading::default();
            self.reads.abandon();
            outputs.push(Output::SteppedDown(StepDown::HigherTerm));
        }
        self.set_leader(leader, outputs);
        // Only a leader that is heard or a vote that is given puts a campaign off (Raft paper, figure 2). A later term
        // alone does not: a candidate that nobody can elect would keep off the one that can be.
        if led || leader.is_some() || self.election.deadline.is_none() {
            self.rearm();
        }
    }

    /// A new term: whatever was promised or verified in the last one is void.
    fn enter_term(&mut self, term: Term, vote: Option<MemberId>, outputs: &mut Vec<Output>) {
        assert!(
            term > self.hard_state.term,
            "term {term} after {}",
            self.hard_state.term
        );
        self.hard_state.term = term;
        self.hard_state.vote = vote;
        self.election.promises.clear();
        self.following = Following::default();
        outputs.push(Output::PersistHardState(self.hard_state));
    }

    fn set_leader(&mut self, leader: Option<MemberId>, outputs: &mut Vec<Output>) {
        if self.leader == leader {
            return;
        }
        self.leader = leader;
        self.forget_leader_end();
        self.reads.abandon();
        outputs.push(Output::LeaderChanged(leader));
    }

    /// Everything up to `index` is committed, if it was not known before.
    fn commit_to(&mut self, index: Index, outputs: &mut Vec<Output>) {
        let before = self.hard_state.commit;
        if index <= before {
            return;
        }
        assert!(
            index <= self.terms.last_index(),
            "commit index {index} lies beyond the end of the log {}",
            self.terms.last_index(),
        );
        self.hard_state.commit = index;
        outputs.push(Output::Committed(index));
        let changed = self.memberships.index();
        if before < changed && changed <= index {
            self.membership_committed(outputs);
        }
        self.memberships.settle(index);
    }

    fn send(&self, to: MemberId, body: Body, outputs: &mut Vec<Output>) {
        let message = Message {
            term: self.hard_state.term,
            incarnation: self.incarnation,
            body,
        };
        outputs.push(Output::Send { to, message });
    }

    /// The other members, whose messages and votes matter.
    fn others(&self) -> Vec<MemberId> {
        let own = self.id;
        self.membership()
            .members()
            .filter(|&id| id != own)
            .collect()
    }

    fn observe(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.started.get_or_insert(self.now);
    }
}

#[cfg(test)]
mod tests;
