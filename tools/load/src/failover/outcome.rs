//! What trials and sweeps find out, as it is kept in files.

use serde::{Deserialize, Serialize};

use super::{Fault, History};
use crate::cluster::Settings;
use crate::result::{Origin, origin::failure};

/// The form of a file of failovers.
pub const FORMAT_VERSION: u32 = 2;

/// All trials of a run, or all cells of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: Origin,
    /// Time to the first acknowledged put after which a trial counts as never recovered.
    #[serde(default)]
    pub recovery_max_ns: u64,
    /// One cell for a run; for a sweep one for each pair of settings.
    pub cells: Vec<Cell>,
    /// Why it ended early.
    pub partial: Option<String>,
}

/// Everything under the same settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// None for the server's defaults.
    pub settings: Option<Settings>,
    /// In order.
    pub trials: Vec<Trial>,
    /// What was found in the record of the load beside them, if one was asked for.
    #[serde(default)]
    pub history: Option<History>,
    /// Terms that began without a fault while nothing was asked; none where that was not watched.
    pub elections_quiet: Option<u64>,
    /// The same under load.
    pub elections_loaded: Option<u64>,
    /// Why servers take no such settings: nothing was run, and that is no failure.
    #[serde(default)]
    pub refused: Option<String>,
    /// Why there is nothing, or not everything, although servers were to take the settings.
    pub failed: Option<String>,
}

/// One failover. Times begin right after the fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// From one.
    pub number: u32,
    /// What was done.
    pub fault: Fault,
    /// To which member, from zero.
    pub member: usize,
    /// Whether it was the leader.
    pub led: bool,
    /// The term before.
    pub term_before: u64,
    /// The term in which the cluster agreed afterwards.
    pub term_after: u64,
    /// Until the first acknowledgement of a put that was sent after the fault; none if there was none in time.
    pub first_put_ns: Option<u64>,
    /// The same for a linearizable read.
    pub first_read_ns: Option<u64>,
    /// Until every endpoint but that of the hurt member had acknowledged such a put; none if one had not in time, or, when
    /// a member was asked to end, had not once more after it was gone.
    pub all_endpoints_ns: Option<u64>,
    /// The longest time without any acknowledged put, from the last one before the fault until the healing begins;
    /// none if no put was acknowledged after the fault. Unlike `first_put_ns` it ends with any acknowledgement, also of a
    /// put that was sent before the fault. It is the figure of a planned stop, which may serve before it goes.
    pub longest_gap_ns: Option<u64>,
    /// From the begin of the healing until all members agreed on a leader again.
    pub heal_ns: u64,
    /// Acknowledged puts, of probe and load.
    pub acknowledged: u64,
    /// Puts without a good answer.
    pub unanswered: u64,
    /// Unanswered puts that took effect.
    pub took_effect: u64,
    /// Answered reads.
    pub reads: u64,
    /// Acknowledged puts that are gone or changed.
    pub lost: u64,
    /// Answers older than what was known before.
    pub stale: u64,
    /// The first violations, in words.
    pub examples: Vec<String>,
}

impl Cell {
    /// A figure of all trials.
    pub fn times(&self, of: fn(&Trial) -> Option<u64>) -> Times {
        Times::new(self.trials.iter().map(of))
    }

    /// Trials in which no put was acknowledged in time.
    #[must_use]
    pub fn without_recovery(&self) -> usize {
        self.trials
            .iter()
            .filter(|trial| trial.first_put_ns.is_none())
            .count()
    }

    /// Other trials, in which some endpoint but that of the hurt member acknowledged none in time.
    #[must_use]
    pub fn half_recovered(&self) -> usize {
        self.trials
            .iter()
            .filter(|trial| trial.first_put_ns.is_some() && !trial.recovered())
            .count()
    }

    /// Lost and stale results together.
    #[must_use]
    pub fn lost_or_stale(&self) -> u64 {
        self.trials
            .iter()
            .map(|trial| trial.lost + trial.stale)
            .sum()
    }

    /// Whether there is anything that the members' logs may explain.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        self.violations() > 0 || self.gaps().next().is_some()
    }

    /// Why the recorded history says less than it should.
    pub fn gaps(&self) -> impl Iterator<Item = &String> {
        self.history.iter().flat_map(|history| &history.gaps)
    }

    /// These, and whatever is wrong with the recorded history.
    #[must_use]
    pub fn violations(&self) -> u64 {
        let history = self.history.as_ref();
        let history = history.map_or(0, |history| history.violations + history.wrong_answers);
        self.lost_or_stale() + history
    }
}

impl Trial {
    /// Whether every endpoint but that of the hurt member served again, in time.
    #[must_use]
    pub fn recovered(&self) -> bool {
        self.first_put_ns.is_some() && self.all_endpoints_ns.is_some()
    }

    /// What the hurt member was.
    #[must_use]
    pub fn role(&self) -> &'static str {
        if self.led { "leader" } else { "follower" }
    }
}

impl Outcome {
    /// Why this is no good result, in one line.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let violations: u64 = self.cells.iter().map(Cell::lost_or_stale).sum();
        let history: u64 = self.cells.iter().map(Cell::violations).sum::<u64>() - violations;
        let stuck: usize = self.cells.iter().map(Cell::without_recovery).sum();
        let half: usize = self.cells.iter().map(Cell::half_recovered).sum();
        let failed = || self.cells.iter().filter_map(|cell| cell.failed.as_ref());
        let cells = self.cells.len();
        let reasons = [
            (violations > 0).then(|| format!("{violations} lost or stale results")),
            (history > 0).then(|| format!("{history} violations in the recorded history")),
            self.cells
                .iter()
                .flat_map(Cell::gaps)
                .next()
                .map(|gap| format!("the recorded history is not enough: {gap}")),
            (stuck > 0).then(|| format!("{stuck} trials without an acknowledged put in time")),
            (half > 0)
                .then(|| format!("{half} trials in which not every other endpoint served in time")),
            failed().next().map(|first| {
                let count = failed().count();
                format!("{count} of {cells} cells failed, the first one: {first}")
            }),
        ];
        let reasons = reasons.into_iter().flatten().collect();
        failure(reasons, self.partial.as_ref())
    }
}

/// A figure of several trials. Where it never came within the trial's time, it is longer than any that came: left
/// out, a cluster that sometimes never recovers would look faster than one that always does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    /// Those that came, ascending.
    came_ns: Vec<u64>,
    /// How many did not.
    never: usize,
}

/// One time of [`Times`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// It came so late.
    After(u64),
    /// It did not come within the trial's time.
    Never,
}

impl Times {
    /// From the figure of each trial, none where it never came.
    pub fn new(trials: impl Iterator<Item = Option<u64>>) -> Times {
        let (mut came_ns, mut never) = (Vec::new(), 0);
        for figure in trials {
            match figure {
                Some(ns) => came_ns.push(ns),
                None => never += 1,
            }
        }
        came_ns.sort_unstable();
        Times { came_ns, never }
    }

    /// Trials.
    #[must_use]
    pub fn count(&self) -> usize {
        self.came_ns.len() + self.never
    }

    /// Trials in which it did not come.
    #[must_use]
    pub fn never(&self) -> usize {
        self.never
    }

    /// Those that came, in nanoseconds, ascending.
    #[must_use]
    pub fn came_ns(&self) -> &[u64] {
        &self.came_ns
    }

    /// The smallest time that at least the share `quantile` of all does not exceed; none without trials.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<Time> {
        let place = self.rank(quantile).checked_sub(1)?;
        let came = self.came_ns.get(place);
        Some(came.map_or(Time::Never, |ns| Time::After(*ns)))
    }

    /// Whether there are so few trials that this quantile is the maximum, and says nothing of its own.
    #[must_use]
    pub fn is_maximum(&self, quantile: f64) -> bool {
        self.rank(quantile) == self.count()
    }

    /// From one; zero without trials.
    fn rank(&self, quantile: f64) -> usize {
        let rank = (quantile * self.count() as f64).ceil() as usize;
        rank.max(1).min(self.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a cell that failed is a failure of the whole, one that servers refuse is not.
    #[test]
    fn cells_that_failed() {
        let check = |cells: Vec<Cell>, expected: Option<&str>| {
            let outcome = Outcome {
                origin: Origin::default(),
                recovery_max_ns: 0,
                cells,
                partial: None,
            };
            assert_eq!(outcome.failure().as_deref(), expected);
        };
        let whole = Cell::default();
        let refused = Cell {
            refused: Some("too fast".to_owned()),
            ..Cell::default()
        };
        let failed = |why: &str| Cell {
            failed: Some(why.to_owned()),
            ..Cell::default()
        };
        check(vec![whole.clone(), refused.clone()], None);
        check(
            vec![refused, whole, failed("no leader"), failed("no start")],
            Some("2 of 4 cells failed, the first one: no leader"),
        );
    }

    /// Goal: percentiles by nearest rank: values that occurred, also of few trials; those that never came are above all.
    #[test]
    fn percentiles_of_few() {
        use Time::{After, Never};
        let check = |values: &[Option<u64>], quantile, expected: Option<Time>, maximum: bool| {
            let times = Times::new(values.iter().copied());
            let found = (times.quantile(quantile), times.is_maximum(quantile));
            assert_eq!(found, (expected, maximum), "{values:?} at {quantile}");
        };
        check(&[], 0.5, None, true);
        check(&[Some(7)], 0.0, Some(After(7)), true);
        check(&[Some(7)], 0.99, Some(After(7)), true);
        check(&[Some(3), Some(1), Some(2)], 0.5, Some(After(2)), false);
        check(
            &[Some(4), Some(3), Some(1), Some(2)],
            0.5,
            Some(After(2)),
            false,
        );
        check(&[None, Some(1), Some(2)], 0.5, Some(After(2)), false);
        check(&[None, Some(1), Some(2)], 0.9, Some(Never), true);
        check(&[None, Some(1), None], 0.5, Some(Never), false);
        let hundred: Vec<Option<u64>> = (1..=100).map(Some).collect();
        check(&hundred, 0.99, Some(After(99)), false);
        check(&hundred[..99], 0.99, Some(After(99)), true);
        check(&hundred, 1.0, Some(After(100)), true);
    }
}
