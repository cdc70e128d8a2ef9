//! What members have told each other, and whether they stand by it.
//!
//! A vote and an acknowledgement bind their member beyond its process: both must lie on its disk before they
//! leave. So whoever restarts must remember the last term in which it voted, for whom, and every entry
//! that it has acknowledged and that no leader has cut off since. That is asked at each start, whether anything comes
//! of a lapse or not.

use std::collections::BTreeMap;

use super::{Promise, Verdict, broken};
use crate::base::{Incarnation, Index, MemberId, Term};
use crate::raft::Position;

/// One data directory of one member.
pub type Directory = (MemberId, Incarnation);

/// What a directory holds when its member starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The term.
    pub term: Term,
    /// Who got its vote in that term.
    pub vote: Option<MemberId>,
    /// The end of the log.
    pub last_index: Index,
}

/// A term, and who got a vote in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Vote {
    term: Term,
    candidate: MemberId,
}

/// What one directory is bound to.
#[derive(Clone, Copy, Debug, Default)]
struct Bond {
    vote: Option<Vote>,
    /// It has this entry, and all before it.
    acknowledged: Index,
    /// The end of the log when it was last looked at.
    last: Position,
}

/// Everything that the members have pledged.
#[derive(Clone, Debug, Default)]
pub struct Pledges {
    /// By member, whatever its directory: the last vote that left, and from which one.
    votes: BTreeMap<MemberId, (Incarnation, Vote)>,
    bonds: BTreeMap<Directory, Bond>,
}

impl Pledges {
    /// A vote leaves a member, or, as a vote for itself, its request for votes.
    ///
    /// # Errors
    /// It has voted for somebody else in that term.
    pub fn votes(&mut self, directory: Directory, term: Term, candidate: MemberId) -> Verdict {
        let vote = Vote { term, candidate };
        let bond = self.bonds.entry(directory).or_default();
        if bond.vote.is_none_or(|given| given.term <= term) {
            bond.vote = Some(vote);
        }
        let (member, incarnation) = directory;
        let (from, given) = self.votes.entry(member).or_insert((incarnation, vote));
        if given.term == term && given.candidate != candidate {
            return Err(broken(
                Promise::OneVote,
                format_args!(
                    "{member} votes for {candidate} in term {term}, in which it has voted for {}",
                    given.candidate
                ),
            ));
        }
        if given.term < term {
            *given = vote;
            *from = incarnation;
        }
        Ok(())
    }

    /// A member says that its log holds everything up to `index`, durably.
    pub fn acknowledges(&mut self, directory: Directory, index: Index) {
        let bond = self.bonds.entry(directory).or_default();
        bond.acknowledged = bond.acknowledged.max(index);
    }

    /// The log of a member that runs, after each thing that happens to it: it ends at `last`. If `held`, which tells
    /// the term at an index, does not know its former end any more, a leader has cut off a tail; what was not committed
    /// there is acknowledged no longer.
    pub fn log(
        &mut self,
        directory: Directory,
        last: Position,
        commit: Index,
        held: impl Fn(Index) -> Option<Term>,
    ) {
        let bond = self.bonds.entry(directory).or_default();
        let former = std::mem::replace(&mut bond.last, last);
        if former != last && held(former.index) != Some(former.term) {
            bond.acknowledged = bond.acknowledged.min(commit);
        }
    }

    /// The group has agreed on a directory of a member, for good: what another one of it has voted for counts no longer.
    /// Nobody whom it elects has that agreement, and nobody without it is elected any more.
    pub fn agreed(&mut self, (member, incarnation): Directory) {
        let another = |(from, _): &(Incarnation, Vote)| *from != incarnation;
        if self.votes.get(&member).is_some_and(another) {
            self.votes.remove(&member);
        }
    }

    /// A directory is damaged, and its member has noticed: what it once remembered, the others give back. The member's
    /// votes for others count as before: in their terms it gives no others. If its last term is lost as well, one for
    /// itself died with its campaign, of which nobody may have heard.
    pub fn void(&mut self, directory: Directory, term_lost: bool) {
        let (member, _) = directory;
        let own = |(_, given): &(Incarnation, Vote)| given.candidate == member;
        if term_lost && self.votes.get(&member).is_some_and(own) {
            self.votes.remove(&member);
        }
        let bond = self.bonds.entry(directory).or_default();
        bond.vote = None;
        bond.acknowledged = Index(0);
    }

    /// A member starts.
    ///
    /// # Errors
    /// It does not remember something.
    pub fn remembers(&mut self, directory: Directory, found: Remembered) -> Verdict {
        let (member, _) = directory;
        let bond = self.bonds.entry(directory).or_default();
        if found.last_index < bond.acknowledged {
            return Err(broken(
                Promise::NothingForgotten,
                format_args!(
                    "{member} starts with a log that ends at {} and has acknowledged {}",
                    found.last_index, bond.acknowledged
                ),
            ));
        }
        let Some(vote) = bond.vote else {
            return Ok(());
        };
        let same = found.term == vote.term && found.vote == Some(vote.candidate);
        if found.term > vote.term || same {
            return Ok(());
        }
        Err(broken(
            Promise::NothingForgotten,
            format_args!(
                "{member} starts in term {} with its vote for {:?} and has voted for {} in term {}",
                found.term, found.vote, vote.candidate, vote.term
            ),
        ))
    }
}
