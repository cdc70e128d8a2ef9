//! Consensus: who leads, in which term, and up to which index the log is committed.
//!
//! Pure: time comes in as an argument, randomness from a seed, and what must be done comes out as
//! [`Output`]s in the order in which it must be done. It never sees the bytes of an entry and does not
//! know what a key is. The durability rules are carried by the outputs: a vote is counted only after
//! [`Raft::hard_state_durable`], an entry only after [`Raft::log_durable`].
//!
//! A cluster has one voter for now. The rules are written over a set of voters, so what a single voter
//! does (its own vote is a majority, its own log decides the commit index) is a consequence of them.

mod log;
mod quorum;
mod types;

use std::collections::BTreeMap;
use std::time::Duration;

pub use log::LogTerms;
pub use quorum::{majority_index, majority_size};
pub use types::{Output, Role};

use crate::base::planted::{Defect, Planted};
use crate::base::prng::Prng;
use crate::base::{HardState, Index, Instant, MemberId, Term};

/// What a consensus core is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member.
    pub id: MemberId,
    /// The members whose votes count, in force from the last membership entry of the log.
    pub voters: Vec<MemberId>,
    /// `--election-timeout`: a follower waits between this and twice this for a leader.
    pub election_timeout: Duration,
    /// Decides every random choice.
    pub seed: u64,
}

/// What a voter is known to have done in this term.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Its log is durable and agrees with ours up to here.
    matched: Index,
    /// It has granted us its vote in the current term, durably.
    granted: bool,
}

/// One member's consensus state for one shard.
#[derive(Debug)]
pub struct Raft {
    id: MemberId,
    role: Role,
    hard_state: HardState,
    /// The hard state that is known to be on disk; promises rest on this one.
    durable_hard_state: HardState,
    leader: Option<MemberId>,
    terms: LogTerms,
    voters: BTreeMap<MemberId, Progress>,
    election_timeout: Duration,
    election_deadline: Option<Instant>,
    prng: Prng,
    planted: Planted,
}

impl Raft {
    /// A follower that continues from what its log holds, durable up to `durable`.
    ///
    /// # Panics
    /// When the recovered commit index lies beyond the log: that is our bug, not damage, because
    /// recovery checks it.
    #[must_use]
    pub fn new(config: Config, hard_state: HardState, terms: LogTerms, durable: Index) -> Raft {
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
        let mut voters: BTreeMap<_, _> = config
            .voters
            .iter()
            .map(|&id| (id, Progress::default()))
            .collect();
        if let Some(own) = voters.get_mut(&config.id) {
            own.matched = durable;
        }
        Raft {
            id: config.id,
            role: Role::Follower,
            hard_state,
            durable_hard_state: hard_state,
            leader: None,
            terms,
            voters,
            election_timeout: config.election_timeout,
            election_deadline: None,
            prng: Prng::from_seed(config.seed),
            planted: Planted::NOTHING,
        }
    }

    /// Makes it wrong on purpose.
    pub fn plant(&mut self, planted: Planted) {
        self.planted = planted;
    }

    /// Which term wrote which index of the log.
    #[must_use]
    pub fn terms(&self) -> &LogTerms {
        &self.terms
    }

    /// The present role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The present term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.hard_state.term
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

    /// What the log must remember beside the entries.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// Whether a read of the committed state is linearizable now: this member leads, alone decides
    /// who leads, and has committed an entry of its own term (Raft dissertation, section 6.4).
    ///
    /// With one voter no other member can have been elected meanwhile, so no round is needed.
    #[must_use]
    pub fn may_read(&self) -> bool {
        self.role == Role::Leader
            && majority_size(self.voters.len()) == 1
            && (self.terms.term_at(self.hard_state.commit) == Some(self.hard_state.term)
                || self.planted.has(Defect::ReadBeforeOwnTerm))
    }

    /// Time passes: starts an election when no leader was heard for the timeout. A voter that is a
    /// majority by itself does not wait, because nobody else can lead.
    pub fn tick(&mut self, now: Instant, outputs: &mut Vec<Output>) {
        if self.role != Role::Follower || !self.voters.contains_key(&self.id) {
            return;
        }
        if majority_size(self.voters.len()) == 1 {
            self.campaign(now, outputs);
            return;
        }
        match self.election_deadline {
            None => self.rearm(now),
            Some(deadline) if deadline <= now => self.campaign(now, outputs),
            Some(_) => {}
        }
    }

    /// The hard state that [`Output::PersistHardState`] asked for is on disk.
    pub fn hard_state_durable(&mut self, durable: HardState, outputs: &mut Vec<Output>) {
        assert!(
            durable.term >= self.durable_hard_state.term,
            "durable term moved back from {} to {}",
            self.durable_hard_state.term,
            durable.term,
        );
        self.durable_hard_state = durable;
        let own_vote = durable.term == self.hard_state.term && durable.vote == Some(self.id);
        if self.role == Role::Candidate && own_vote {
            self.grant(self.id);
            self.count_votes(outputs);
        }
    }

    /// Where the next entry would go; `None` unless this member leads.
    #[must_use]
    pub fn next_position(&self) -> Option<(Term, Index)> {
        let leads = self.role == Role::Leader;
        leads.then(|| (self.hard_state.term, self.terms.last_index().next()))
    }

    /// The entry at [`Self::next_position`] is in the log; durable later.
    ///
    /// # Panics
    /// When this member does not lead: a follower's log grows by its leader's word only.
    pub fn append(&mut self) -> (Term, Index) {
        assert_eq!(self.role, Role::Leader, "only a leader appends");
        (
            self.hard_state.term,
            self.terms.append(self.hard_state.term),
        )
    }

    /// This member's log is on disk up to `index`.
    pub fn log_durable(&mut self, index: Index, outputs: &mut Vec<Output>) {
        assert!(
            index <= self.terms.last_index(),
            "durable index {index} lies beyond the end of the log {}",
            self.terms.last_index(),
        );
        if let Some(own) = self.voters.get_mut(&self.id) {
            own.matched = own.matched.max(index);
        }
        self.advance_commit(outputs);
    }

    fn rearm(&mut self, now: Instant) {
        let spread = u64::try_from(self.election_timeout.as_nanos())
            .unwrap_or(u64::MAX)
            .max(1);
        let jitter = Duration::from_nanos(self.prng.below(spread));
        self.election_deadline = Some(now + self.election_timeout + jitter);
    }

    /// Raft paper, section 5.2: next term, vote for oneself; the vote counts once it is durable.
    fn campaign(&mut self, now: Instant, outputs: &mut Vec<Output>) {
        self.rearm(now);
        self.role = Role::Candidate;
        self.leader = None;
        self.hard_state.term = self.hard_state.term.next();
        self.hard_state.vote = Some(self.id);
        for progress in self.voters.values_mut() {
            progress.granted = false;
        }
        outputs.push(Output::PersistHardState(self.hard_state));
    }

    fn grant(&mut self, voter: MemberId) {
        if let Some(progress) = self.voters.get_mut(&voter) {
            progress.granted = true;
        }
    }

    fn count_votes(&mut self, outputs: &mut Vec<Output>) {
        let granted = self
            .voters
            .values()
            .filter(|progress| progress.granted)
            .count();
        if granted < majority_size(self.voters.len()) {
            return;
        }
        self.role = Role::Leader;
        self.leader = Some(self.id);
        outputs.push(Output::BecameLeader {
            term: self.hard_state.term,
        });
    }

    /// Raft paper, section 5.4.2: only an entry of the current term is committed by counting; what is
    /// before it follows.
    fn advance_commit(&mut self, outputs: &mut Vec<Output>) {
        if self.role != Role::Leader {
            return;
        }
        let matched: Vec<Index> = self
            .voters
            .values()
            .map(|progress| progress.matched)
            .collect();
        let index = majority_index(&matched);
        let own_term = self.terms.term_at(index) == Some(self.hard_state.term);
        if own_term && index > self.hard_state.commit {
            self.hard_state.commit = index;
            outputs.push(Output::Committed(index));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: MemberId = MemberId(7);

    fn lone_voter(hard_state: HardState, terms: LogTerms) -> Raft {
        let config = Config {
            id: ME,
            voters: vec![ME],
            election_timeout: Duration::from_secs(1),
            seed: 1,
        };
        let durable = terms.last_index();
        Raft::new(config, hard_state, terms, durable)
    }

    fn outputs(step: impl FnOnce(&mut Vec<Output>)) -> Vec<Output> {
        let mut outputs = Vec::new();
        step(&mut outputs);
        outputs
    }

    /// Goal: a lone voter leads only after its own vote is durable (Raft paper, figure 2: persistent
    /// state is updated before responding).
    #[test]
    fn vote_counts_when_durable() {
        let mut raft = lone_voter(HardState::default(), LogTerms::default());
        let voted = HardState {
            term: Term(1),
            vote: Some(ME),
            commit: Index(0),
        };
        assert_eq!(
            outputs(|out| raft.tick(Instant(0), out)),
            [Output::PersistHardState(voted)]
        );
        assert_eq!(raft.role(), Role::Candidate);
        assert_eq!(raft.next_position(), None);
        assert_eq!(
            outputs(|out| raft.hard_state_durable(voted, out)),
            [Output::BecameLeader { term: Term(1) }],
        );
        assert_eq!(raft.leader(), Some(ME));
    }

    /// Goal: an older term's entries are not committed by counting, but by the first entry of the
    /// leader's own term after them (Raft paper, section 5.4.2 and figure 8).
    #[test]
    fn older_terms_commit_with_the_own_one() {
        let mut terms = LogTerms::default();
        terms.append(Term(1));
        terms.append(Term(1));
        let recovered = HardState {
            term: Term(1),
            vote: Some(ME),
            commit: Index(1),
        };
        let mut raft = lone_voter(recovered, terms);
        raft.tick(Instant(0), &mut Vec::new());
        let voted = raft.hard_state();
        raft.hard_state_durable(voted, &mut Vec::new());
        assert_eq!(outputs(|out| raft.log_durable(Index(2), out)), []);
        assert!(!raft.may_read());
        assert_eq!(raft.next_position(), Some((Term(2), Index(3))));
        raft.append();
        assert_eq!(
            outputs(|out| raft.log_durable(Index(3), out)),
            [Output::Committed(Index(3))]
        );
        assert!(raft.may_read());
    }

    /// Goal: with three voters one durable log is no majority and one vote elects nobody.
    #[test]
    fn one_of_three_decides_nothing() {
        let config = Config {
            id: ME,
            voters: vec![ME, MemberId(8), MemberId(9)],
            election_timeout: Duration::from_secs(1),
            seed: 1,
        };
        let mut raft = Raft::new(config, HardState::default(), LogTerms::default(), Index(0));
        assert_eq!(outputs(|out| raft.tick(Instant(0), out)), []);
        let late = Instant(0) + Duration::from_secs(3);
        assert_eq!(outputs(|out| raft.tick(late, out)).len(), 1);
        let voted = raft.hard_state();
        assert_eq!(outputs(|out| raft.hard_state_durable(voted, out)), []);
        assert_eq!(raft.role(), Role::Candidate);
        assert!(!raft.may_read());
    }
}
