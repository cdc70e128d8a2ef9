//! Counting terms and leaders from what members say at each look.
//!
//! Terms only grow, so that a look that comes late, or to which a member does not answer, hides no election: the next one
//! shows its term. A leader that came and went between two looks stays unknown.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cluster::ClusterStatus;
use crate::run::whole_ns;

/// Elections whose times are kept; further ones are only counted.
pub const KEPT_MAX: usize = 1_000;

/// One or more terms that began between two looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Election {
    /// When the new term was seen, from the beginning of the load.
    pub at_ns: u64,
    /// The highest term.
    pub term: u64,
    /// How many terms began since the look before.
    pub terms: u64,
    /// Which member leads in it, from zero; none if nobody was seen to.
    pub leader: Option<usize>,
    /// When it was first seen to.
    pub led_at_ns: Option<u64>,
}

/// What all looks have shown so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Before the load.
    pub first_term: u64,
    /// The highest so far.
    pub term: u64,
    /// Which member led before the load, from zero.
    pub first_leader: Option<usize>,
    /// Which member was last seen to lead, from zero.
    pub leader: Option<usize>,
    /// How often that was another member than before.
    pub leader_changes: u64,
    /// Terms that began, at most [`KEPT_MAX`] of them.
    pub kept: Vec<Election>,
    /// Looks since the load began.
    pub looks: u64,
    /// Questions to which a member gave no answer in time.
    pub unanswered: u64,
    /// Looks in which nobody said that it leads in the highest term.
    pub leaderless: u64,
    /// The longest time from one look to the next.
    pub longest_between_ns: u64,
    /// When the last look was, from the beginning of the load.
    pub looked_at_ns: u64,
}

impl Count {
    /// From members that agree, before the load.
    #[must_use]
    pub fn new(before: &ClusterStatus) -> Count {
        let leader = before.leader();
        Count {
            first_term: before.term(),
            term: before.term(),
            first_leader: leader,
            leader,
            ..Count::default()
        }
    }

    /// Terms that began since.
    #[must_use]
    pub fn elections(&self) -> u64 {
        self.term.saturating_sub(self.first_term)
    }

    /// What members say, so long after the beginning of the load.
    pub fn look(&mut self, at: Duration, status: &ClusterStatus) {
        let at_ns = whole_ns(at);
        let between_ns = at_ns.saturating_sub(self.looked_at_ns);
        self.longest_between_ns = self.longest_between_ns.max(between_ns);
        self.looked_at_ns = at_ns;
        self.looks += 1;
        let silent = status.0.iter().filter(|member| member.is_none());
        self.unanswered += silent.count() as u64;
        let term = status.term();
        if term > self.term {
            if self.kept.len() < KEPT_MAX {
                self.kept.push(Election {
                    at_ns,
                    term,
                    terms: term - self.term,
                    leader: None,
                    led_at_ns: None,
                });
            }
            self.term = term;
        }
        // Whoever says so in a lower term has not heard of the end of its own.
        let leads = |member: &usize| {
            let member = status.0[*member].as_ref();
            member.is_some_and(|member| member.term == self.term)
        };
        let Some(leader) = status.leader().filter(leads) else {
            self.leaderless += 1;
            return;
        };
        if let Some(election) = self.kept.last_mut()
            && election.term == self.term
            && election.leader.is_none()
        {
            election.leader = Some(leader);
            election.led_at_ns = Some(at_ns);
        }
        if self.leader != Some(leader) {
            self.leader_changes += 1;
            self.leader = Some(leader);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::MemberStatus;

    /// Three members, each as the term that it is in and whom it takes for the leader; ids are 1, 2 and 3.
    fn status(members: [Option<(u64, u64)>; 3]) -> ClusterStatus {
        let member = |(index, said): (usize, &Option<(u64, u64)>)| {
            said.map(|(term, leader_id)| MemberStatus {
                member_id: index as u64 + 1,
                leader_id,
                term,
                revision: 1,
                version: String::new(),
            })
        };
        ClusterStatus(members.iter().enumerate().map(member).collect())
    }

    fn count(looks: &[[Option<(u64, u64)>; 3]]) -> Count {
        let mut count = Count::new(&status([Some((2, 1)); 3]));
        for (number, members) in looks.iter().enumerate() {
            let at = Duration::from_millis(100 * (number as u64 + 1));
            count.look(at, &status(*members));
        }
        count
    }

    /// Goal: every term counts once, also several between two looks, and one in which the same member leads again; who
    /// does not answer, or is behind, changes nothing.
    #[test]
    fn terms_and_leaders() {
        let check = |looks: &[[Option<(u64, u64)>; 3]], expected: (u64, u64, Option<usize>)| {
            let count = count(looks);
            let found = (count.elections(), count.leader_changes, count.leader);
            assert_eq!(found, expected, "{looks:?}");
        };
        let of = |term, leader| [Some((term, leader)); 3];
        check(&[], (0, 0, Some(0)));
        check(&[of(2, 1), of(2, 1)], (0, 0, Some(0)));
        check(&[of(3, 2), of(3, 2)], (1, 1, Some(1)));
        check(&[of(3, 1)], (1, 0, Some(0)));
        check(&[of(6, 3)], (4, 1, Some(2)));
        check(&[of(3, 2), of(4, 1)], (2, 2, Some(0)));
        // Nobody answers, or the leader alone does not.
        check(&[[None; 3], of(2, 1)], (0, 0, Some(0)));
        check(&[[None, Some((2, 1)), Some((2, 1))]], (0, 0, Some(0)));
        // The old leader has not heard of the new term, whose leader is not known yet; then it is.
        let candidate = [Some((2, 1)), Some((3, 0)), Some((2, 1))];
        check(&[candidate], (1, 0, Some(0)));
        check(&[candidate, of(3, 2)], (1, 1, Some(1)));
        // Nobody but a leader of an old term answers: it leads no longer.
        check(&[of(3, 2), [Some((2, 1)), None, None]], (1, 1, Some(1)));
        // A member that was ahead is gone: terms do not go back.
        check(&[candidate, [Some((2, 1)), None, None]], (1, 0, Some(0)));
    }

    /// Goal: times are those of the looks, a leader is that of its own term, and looks without an answer, without a leader
    /// and far apart are counted.
    #[test]
    fn what_is_kept() {
        let candidate = [Some((2, 1)), Some((3, 0)), None];
        let found = count(&[candidate, [Some((3, 2)); 3], [Some((5, 0)); 3]]);
        let ms = 1_000_000;
        let expected = [
            Election {
                at_ns: 100 * ms,
                term: 3,
                terms: 1,
                leader: Some(1),
                led_at_ns: Some(200 * ms),
            },
            Election {
                at_ns: 300 * ms,
                term: 5,
                terms: 2,
                leader: None,
                led_at_ns: None,
            },
        ];
        assert_eq!(found.kept, expected);
        let others = (found.looks, found.unanswered, found.leaderless);
        assert_eq!(others, (3, 1, 2));
        assert_eq!(found.longest_between_ns, 100 * ms);
    }

    /// Goal: however many elections there are, a bounded number of them is kept, and all are counted.
    #[test]
    fn bounded() {
        let mut found = count(&[]);
        for number in 0..2 * KEPT_MAX as u64 {
            let leader = number % 3 + 1;
            found.look(
                Duration::from_millis(number),
                &status([Some((3 + number, leader)); 3]),
            );
        }
        assert_eq!(found.kept.len(), KEPT_MAX);
        assert_eq!(found.elections(), 2 * KEPT_MAX as u64);
    }
}
