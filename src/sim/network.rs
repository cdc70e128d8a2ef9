//! The network between members: what becomes of each message.
//!
//! It carries opaque values and knows members by number. A message is delayed, and may be lost, doubled or
//! overtaken; a link may be cut in one direction; members may be partitioned. It decides when a message
//! arrives, and never looks into one.

use std::time::Duration;

use super::clock::Moment;
use super::dice::Dice;

/// How the links behave at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// Messages lost, in a million.
    pub lost_per_million: u64,
    /// Messages that arrive twice, in a million.
    pub doubled_per_million: u64,
    /// Messages that are held up, and so overtaken, in a million.
    pub held_per_million: u64,
    /// The shortest way.
    pub delay_min: Duration,
    /// The longest way of a message that is not held up.
    pub delay_max: Duration,
    /// The longest way of one that is.
    pub held_max: Duration,
}

impl Weather {
    /// Nothing is lost, and little time.
    pub const FAIR: Weather = Weather {
        lost_per_million: 0,
        doubled_per_million: 0,
        held_per_million: 0,
        delay_min: Duration::from_micros(50),
        delay_max: Duration::from_micros(300),
        held_max: Duration::from_micros(300),
    };
}

/// The links of all members.
#[derive(Clone, Debug)]
pub struct Network {
    members: usize,
    weather: Weather,
    /// `cut[from * members + to]`: nothing arrives.
    cut: Vec<bool>,
    /// The same for links that have not worked yet: nothing mends them but that the two meet.
    unmet: Vec<bool>,
    /// When the last message of each link arrives that keeps its turn.
    last: Vec<Moment>,
}

/// When the copies of one message arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Never.
    Lost,
    /// Once.
    Once(Moment),
    /// Twice.
    Twice(Moment, Moment),
}

impl Network {
    /// Links between so many members, in fair weather.
    #[must_use]
    pub fn new(members: usize) -> Network {
        Network {
            members,
            weather: Weather::FAIR,
            cut: vec![false; members * members],
            unmet: vec![false; members * members],
            last: vec![Moment(0); members * members],
        }
    }

    /// From now on the links behave like this.
    pub fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// What becomes of a message from one member to another.
    pub fn fate(&mut self, from: usize, to: usize, now: Moment, dice: &mut Dice) -> Fate {
        if self.is_cut(from, to) || dice.chance(self.weather.lost_per_million) {
            return Fate::Lost;
        }
        let first = self.arrival(from, to, now, dice);
        if dice.chance(self.weather.doubled_per_million) {
            Fate::Twice(first, self.arrival(from, to, now, dice))
        } else {
            Fate::Once(first)
        }
    }

    /// Messages of one link arrive in order, but for those that are held up.
    fn arrival(&mut self, from: usize, to: usize, now: Moment, dice: &mut Dice) -> Moment {
        let weather = &self.weather;
        if dice.chance(weather.held_per_million) {
            let longest = weather.held_max.max(weather.delay_min);
            return now.after(dice.time(weather.delay_min, longest));
        }
        let longest = weather.delay_max.max(weather.delay_min);
        let at = now.after(dice.time(weather.delay_min, longest));
        let last = &mut self.last[from * self.members + to];
        *last = at.max(*last);
        *last
    }

    /// Whether nothing arrives from one member at another. Also asked when a message arrives: what was
    /// under way when a link was cut is lost with it.
    #[must_use]
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        let link = from * self.members + to;
        self.cut[link] || self.unmet[link]
    }

    /// Nothing arrives between two members until they meet.
    pub fn keep_apart(&mut self, one: usize, other: usize) {
        self.set_unmet(one, other, true);
    }

    /// The links between two members work, unless they are cut.
    pub fn meet(&mut self, one: usize, other: usize) {
        self.set_unmet(one, other, false);
    }

    fn set_unmet(&mut self, one: usize, other: usize, unmet: bool) {
        for (from, to) in [(one, other), (other, one)] {
            self.unmet[from * self.members + to] = unmet;
        }
    }

    /// Somebody whom a member has not met yet.
    #[must_use]
    pub fn stranger_to(&self, member: usize) -> Option<usize> {
        let row = &self.unmet[member * self.members..][..self.members];
        row.iter().position(|&unmet| unmet)
    }

    /// Cuts one direction.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut[from * self.members + to] = from != to;
    }

    /// Cuts every link between members of different groups; `group` holds a number for each member. Those that
    /// are not there yet hear nobody in it.
    pub fn partition(&mut self, group: &[usize]) {
        for from in 0..self.members {
            for to in 0..self.members {
                self.cut[from * self.members + to] = group.get(from) != group.get(to);
            }
        }
    }

    /// Every link works whose members have met.
    pub fn mend(&mut self) {
        self.cut.fill(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: cuts are one-way, partitions are not, and mending ends both.
    #[test]
    fn cuts() {
        let mut network = Network::new(3);
        let mut dice = Dice::new(1, 0);
        network.cut(0, 1);
        assert_eq!(network.fate(0, 1, Moment(0), &mut dice), Fate::Lost);
        assert_ne!(network.fate(1, 0, Moment(0), &mut dice), Fate::Lost);
        network.partition(&[0, 0, 1]);
        assert!(!network.is_cut(0, 1) && !network.is_cut(1, 0));
        assert!(network.is_cut(0, 2) && network.is_cut(2, 1));
        network.mend();
        assert!(!network.is_cut(0, 2));
    }

    /// Goal: nothing but a meeting makes a link work that never has.
    #[test]
    fn strangers() {
        let mut network = Network::new(3);
        network.keep_apart(0, 2);
        network.partition(&[0, 0, 0]);
        network.mend();
        assert!(network.is_cut(0, 2) && network.is_cut(2, 0) && !network.is_cut(0, 1));
        assert_eq!(
            [0, 1, 2].map(|member| network.stranger_to(member)),
            [Some(2), None, Some(0)]
        );
        network.meet(2, 0);
        assert!(!network.is_cut(0, 2) && !network.is_cut(2, 0));
    }

    /// Goal: the weather's rates are those of the messages, within what chance allows.
    #[test]
    fn rates() {
        let mut network = Network::new(2);
        network.set_weather(Weather {
            lost_per_million: 100_000,
            doubled_per_million: 200_000,
            ..Weather::FAIR
        });
        let mut dice = Dice::new(1, 0);
        let (mut lost, mut twice) = (0, 0);
        for _ in 0..10_000 {
            match network.fate(0, 1, Moment(0), &mut dice) {
                Fate::Lost => lost += 1,
                Fate::Once(_) => {}
                Fate::Twice(..) => twice += 1,
            }
        }
        assert!((900..1_100).contains(&lost), "{lost}");
        assert!((1_650..1_950).contains(&twice), "{twice}");
    }
}
