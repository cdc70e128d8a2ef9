//! What must always hold (Raft paper, figure 3), checked from outside after every step.

use std::collections::BTreeMap;

use kontiki::base::{Index, MemberId, Term};
use kontiki::raft::{Output, Round, majority_size};

use crate::member::{Disk, Entry, Member};

/// Everything seen so far.
#[derive(Default)]
pub(crate) struct Checker {
    leaders: BTreeMap<Term, MemberId>,
    /// What is committed, from index 1.
    pub(crate) committed: Vec<Entry>,
    /// Up to where each member has committed, in its present life.
    commits: BTreeMap<MemberId, Index>,
    /// Reads that wait: what was committed anywhere when they came in.
    reads: BTreeMap<MemberId, Vec<(Round, usize)>>,
    pub(crate) counts: Counts,
}

/// What happened, so that a run that shows nothing is noticed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) elections: u64,
    pub(crate) truncations: u64,
    pub(crate) resets: u64,
    pub(crate) reads: u64,
    pub(crate) changes: u64,
    pub(crate) committed: u64,
    pub(crate) rebuilt: u64,
    pub(crate) refused: u64,
    pub(crate) transfers: u64,
}

impl Checker {
    pub(crate) fn restarted(&mut self, id: MemberId) {
        self.commits.remove(&id);
        self.reads.remove(&id);
    }

    pub(crate) fn asked(&mut self, id: MemberId, round: Round) {
        self.reads
            .entry(id)
            .or_default()
            .push((round, self.committed.len()));
    }

    /// One output of `member`, which has been performed.
    pub(crate) fn check(
        &mut self,
        id: MemberId,
        output: &Output,
        members: &BTreeMap<MemberId, Member>,
        disks: &BTreeMap<MemberId, Disk>,
    ) {
        match output {
            Output::BecameLeader { term } => self.elected(id, *term, &members[&id]),
            Output::Committed(index) => self.commit(id, *index, members, disks),
            Output::TruncateLog { .. } => self.counts.truncations += 1,
            Output::ResetLog { base } => {
                self.counts.resets += 1;
                self.commits.insert(id, base.index);
                let entry = self.committed[usize::try_from(base.index.0).expect("small") - 1];
                assert_eq!(entry.term, base.term, "a checkpoint is committed state");
            }
            Output::ReadReady { round, index } => self.read(id, *round, *index),
            Output::MembershipChanged(_) => self.counts.changes += 1,
            Output::Rebuilt => self.counts.rebuilt += 1,
            Output::OwnIdentityRefused => self.counts.refused += 1,
            _ => {}
        }
    }

    /// Election safety and leader completeness.
    fn elected(&mut self, id: MemberId, term: Term, member: &Member) {
        self.counts.elections += 1;
        let other = self.leaders.insert(term, id);
        assert!(
            other.is_none_or(|other| other == id),
            "{other:?} and {id} lead in term {term}"
        );
        let base = member.log.base.index.0;
        for (position, &entry) in self.committed.iter().enumerate() {
            let index = Index(position as u64 + 1);
            if index.0 > base {
                assert_eq!(
                    member.log.at(index),
                    Some(entry),
                    "leader {id} of term {term} at {index}"
                );
            }
        }
    }

    /// State machine safety, and no commit before a majority has it durable.
    fn commit(
        &mut self,
        id: MemberId,
        index: Index,
        members: &BTreeMap<MemberId, Member>,
        disks: &BTreeMap<MemberId, Disk>,
    ) {
        let member = &members[&id];
        let before = self
            .commits
            .insert(id, index)
            .unwrap_or(member.log.base.index);
        for at in before.0 + 1..=index.0 {
            let Some(entry) = member.log.at(Index(at)) else {
                // Released meanwhile, and so checked before.
                continue;
            };
            let position = usize::try_from(at).expect("small") - 1;
            match self.committed.get(position) {
                Some(&known) => assert_eq!(known, entry, "{id} commits something else at {at}"),
                None => {
                    assert_eq!(
                        position,
                        self.committed.len(),
                        "{id} commits {at} without what is before"
                    );
                    self.committed.push(entry);
                    self.counts.committed += 1;
                }
            }
        }
        if member.raft.leader() == Some(id) {
            self.majority_has(member, index, members, disks);
        }
    }

    fn majority_has(
        &self,
        leader: &Member,
        index: Index,
        members: &BTreeMap<MemberId, Member>,
        disks: &BTreeMap<MemberId, Disk>,
    ) {
        let voters = &leader.raft.membership().voters;
        let entry = leader.log.at(index);
        let having = voters.iter().filter(|id| {
            let disk = members.get(id).map(|member| &member.disk).or(disks.get(id));
            disk.is_some_and(|disk| {
                disk.lost_something || disk.log.base.index >= index || disk.log.at(index) == entry
            })
        });
        let having = having.count();
        assert!(
            having >= majority_size(voters.len()),
            "{} committed {index} when {having} of {} had it durable",
            leader.id,
            voters.len()
        );
    }

    /// A read sees whatever was committed anywhere before it came in.
    fn read(&mut self, id: MemberId, round: Round, index: Index) {
        let waiting = self.reads.entry(id).or_default();
        waiting.retain(|&(asked, committed)| {
            if asked <= round {
                self.counts.reads += 1;
                assert!(
                    index.0 >= committed as u64,
                    "{id} reads at {index} after {committed} was committed"
                );
            }
            asked > round
        });
    }

    /// Log matching: the same term at the same index is the same entry, and so is all before it.
    pub(crate) fn logs_match(&self, members: &BTreeMap<MemberId, Member>) {
        for a in members.values() {
            for b in members.values().filter(|b| b.id > a.id) {
                let first = a.log.base.index.max(b.log.base.index).0 + 1;
                let last = a.log.last().min(b.log.last()).0;
                let agree = (first..=last).rev().find(|&at| {
                    a.log.at(Index(at)).map(|entry| entry.term)
                        == b.log.at(Index(at)).map(|entry| entry.term)
                });
                for at in first..=agree.unwrap_or(0) {
                    assert_eq!(
                        a.log.at(Index(at)),
                        b.log.at(Index(at)),
                        "{} and {} at {at}",
                        a.id,
                        b.id
                    );
                }
            }
        }
    }
}
