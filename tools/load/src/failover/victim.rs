//! Who is hurt in a trial.

use serde::{Deserialize, Serialize};

/// Which members are hurt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Victim {
    /// The one that leads.
    #[default]
    Leader,
    /// One that does not, at random.
    Follower,
    /// One of all, at random.
    Any,
}

/// One of the members, before it is known who leads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Choice {
    victim: Victim,
    /// From zero to below one, evenly.
    random: f64,
}

impl Victim {
    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Victim::Leader => "the leader",
            Victim::Follower => "a follower, at random",
            Victim::Any => "any member, at random",
        }
    }

    /// Chooses for one trial.
    pub(super) fn choose(self, random: &mut fastrand::Rng) -> Choice {
        Choice {
            victim: self,
            random: random.f64(),
        }
    }
}

impl Choice {
    /// Which of `members` that is while `leader` leads.
    pub(super) fn member(self, leader: usize, members: usize) -> usize {
        let (first, choices) = match self.victim {
            Victim::Leader => (0, 1),
            Victim::Follower => (1, members - 1),
            Victim::Any => (0, members),
        };
        let step = first + (self.random * choices as f64) as usize;
        (leader + step) % members
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a follower is never the leader, and every member that may be hurt has its turn.
    #[test]
    fn who_is_hurt() {
        let check = |victim: Victim, expected: &[usize]| {
            let mut random = fastrand::Rng::with_seed(1);
            let mut found: Vec<usize> = (0..100)
                .map(|_| victim.choose(&mut random).member(1, 3))
                .collect();
            found.sort_unstable();
            found.dedup();
            assert_eq!(found, expected, "{victim:?}");
        };
        check(Victim::Leader, &[1]);
        check(Victim::Follower, &[0, 2]);
        check(Victim::Any, &[0, 1, 2]);
    }
}
