//! The goals that a comparison can judge, and how far its figures have got.
//!
//! Owns the goals' levels. A figure is what each pair says by itself, and the median of that over the pairs is judged.
//! Levels are shown beside any two sides, but judged only where ours ran beside another's: nothing is to be reached by
//! a program beside itself. Must never judge a figure that some pair does not have on both sides.

use super::chart::Better;
use super::pairs::{METRICS, Metric, Paired, median, paired, points};
use super::table::Tone;
use super::{Block, Cell, Table, Unit};
use crate::result::{Figure, Met, RunResult, Wanted};

/// The program whose figures are judged.
const OURS: &str = "kontiki";
/// Members for which the levels were set.
const MEMBERS: u32 = 3;

/// One line of the table of goals.
struct Goal {
    id: &'static str,
    name: &'static str,
    /// What the names of its points begin with.
    at: &'static str,
    of: Of,
    wanted: Wanted,
    /// Must, target, stretch.
    levels: [f64; 3],
}

/// What is judged of a pair.
enum Of {
    /// The metric of this name: ours by theirs.
    Ratio(&'static str),
    /// A quotient that each run has by itself: that of ours.
    Own(Unit, fn(&RunResult) -> Option<f64>),
    /// Our rate by our rate at the point that begins with this instead, in the pair of the same number.
    RateBeside(&'static str),
}

const CPU: &str = "server CPU per operation";
const RATE: &str = "operations per second";

const GOALS: [Goal; 11] = [
    Goal {
        id: "G1",
        name: "CPU per put, all members",
        at: "put, 1000 in flight,",
        of: Of::Ratio(CPU),
        wanted: Wanted::AtMost,
        levels: [1.0 / 4.0, 1.0 / 7.0, 1.0 / 10.0],
    },
    Goal {
        id: "G2",
        name: "CPU per put, all members",
        at: "put, 1 in flight,",
        of: Of::Ratio(CPU),
        wanted: Wanted::AtMost,
        levels: [1.0 / 2.0, 1.0 / 3.0, 1.0 / 4.0],
    },
    Goal {
        id: "G2",
        name: "CPU of idle members",
        at: "idle,",
        of: Of::Ratio(super::pairs::IDLE_CPU),
        wanted: Wanted::AtMost,
        levels: [1.0 / 2.0, 1.0 / 3.0, 1.0 / 4.0],
    },
    Goal {
        id: "G3",
        name: "puts per second",
        at: "put, 64 in flight,",
        of: Of::Ratio(RATE),
        wanted: Wanted::AtLeast,
        levels: [3.0, 5.0, 7.0],
    },
    Goal {
        id: "G4",
        name: "puts per second",
        at: "put, 256 in flight,",
        of: Of::Ratio(RATE),
        wanted: Wanted::AtLeast,
        levels: [4.0, 5.0, 7.0],
    },
    Goal {
        id: "G5",
        name: "puts per second",
        at: "put, 1000 in flight,",
        of: Of::Ratio(RATE),
        wanted: Wanted::AtLeast,
        levels: [4.0, 5.0, 7.0],
    },
    Goal {
        id: "G6",
        name: "put p99",
        at: "put, open loop at the opponent's highest rate,",
        of: Of::Ratio("latency p99"),
        wanted: Wanted::AtMost,
        levels: [1.0 / 5.0, 1.0 / 10.0, 1.0 / 25.0],
    },
    Goal {
        id: "G7",
        name: "put p99.9 / p50",
        at: "put, open loop at half of its own highest rate,",
        of: Of::Own(Unit::Ratio, tail),
        wanted: Wanted::AtMost,
        levels: [8.0, 5.0, 3.0],
    },
    Goal {
        id: "G8",
        name: "share of the physical optimum",
        at: "put, one client at the leader",
        of: Of::Own(Unit::Share, RunResult::share_of_optimum),
        wanted: Wanted::AtLeast,
        levels: [0.80, 0.90, 0.95],
    },
    Goal {
        id: "G9",
        name: "CPU per linearizable get, all members",
        at: "get, 256 in flight,",
        of: Of::Ratio(CPU),
        wanted: Wanted::AtMost,
        levels: [1.0 / 4.0, 1.0 / 6.0, 1.0 / 12.0],
    },
    Goal {
        id: "G10",
        name: "rate of linearizable gets / serializable ones",
        at: "get,",
        of: Of::RateBeside("get serializable,"),
        wanted: Wanted::AtLeast,
        levels: [0.85, 0.95, 0.98],
    },
];

/// Every figure of these runs that has a goal, in the order of the goals.
pub fn figures(runs: &[RunResult]) -> Vec<Figure> {
    let judged = judged(runs);
    judged.into_iter().map(|(figure, _)| figure).collect()
}

/// The table of goals; nothing where no figure has one.
pub(super) fn blocks(runs: &[RunResult]) -> Vec<Block> {
    let judged = judged(runs);
    let Some(sides) = judged
        .first()
        .and_then(|(figure, _)| paired(runs, &figure.point))
    else {
        return Vec::new();
    };
    let (ours, theirs) = (sides.ours, sides.theirs);
    // What matters stands where a narrow page shows it.
    let mut table = Table::new(
        &["goal", "figure", "met"],
        &[
            "judged", "must", "target", "stretch", ours, theirs, "lowest", "highest", "pairs",
        ],
    );
    for (figure, unit) in &judged {
        let (met, tone) = match figure.met {
            None => ("-", Tone::Plain),
            Some(Met::Nothing) => (Met::Nothing.name(), Tone::Bad),
            Some(met) => (met.name(), Tone::Good),
        };
        let sign = match figure.wanted {
            Wanted::AtMost => "<=",
            Wanted::AtLeast => ">=",
        };
        let ratio = |value: f64| Cell::from(Unit::Ratio.format(value));
        let level = |value: f64| Cell::from(format!("{sign} {}", Unit::Ratio.format(value)));
        table.push(vec![
            figure.goal.as_str().into(),
            format!("{} ({})", figure.name, figure.point).into(),
            Cell::from(met).with_tone(tone),
            ratio(figure.value),
            level(figure.must),
            level(figure.target),
            level(figure.stretch),
            unit.format(figure.ours).into(),
            unit.format(figure.theirs).into(),
            ratio(figure.lowest),
            ratio(figure.highest),
            figure.pairs.to_string().into(),
        ]);
    }
    let mut text = format!(
        "Judged is the median of the pairs: {ours} / {theirs}, but {ours} alone for G7, G8 and G10. \
         Latencies of open loops count from the time at which a put was to start. A share of the optimum above 1 is not \
         judged: others used the disk."
    );
    let members: Vec<u32> = runs.iter().map(|run| run.target.members).collect();
    if members.iter().any(|members| *members != MEMBERS) {
        text.push_str(&format!(
            " The levels were set for {MEMBERS} members; these runs had others."
        ));
    }
    vec![Block::Text(text), Block::Table(table)]
}

fn judged(runs: &[RunResult]) -> Vec<(Figure, Unit)> {
    let points = points(runs);
    let mut figures = Vec::new();
    for goal in &GOALS {
        for point in points.iter().filter(|point| point.starts_with(goal.at)) {
            figures.extend(goal.judge(runs, point));
        }
    }
    figures
}

/// What one pair says.
struct Said {
    ours: f64,
    theirs: f64,
    judged: f64,
}

impl Goal {
    fn judge(&self, runs: &[RunResult], point: &str) -> Option<(Figure, Unit)> {
        let paired = paired(runs, point)?;
        let (unit, said) = match self.of {
            Of::Ratio(name) => {
                let metric = METRICS.iter().find(|metric| metric.name == name)?;
                assert_eq!(
                    metric.better == Better::Lower,
                    self.wanted == Wanted::AtMost,
                    "{name} and its goal go the same way"
                );
                (metric.unit, ratios(metric, &paired))
            }
            Of::Own(unit, of) => (unit, own(of, &paired)),
            Of::RateBeside(other) => {
                let other = format!("{other}{}", point.strip_prefix(self.at)?);
                (
                    Unit::Ratio,
                    rates_beside(&paired, &self::paired(runs, &other)?),
                )
            }
        };
        let sound = |said: &Said| {
            let all = [said.ours, said.theirs, said.judged];
            all.iter().all(|value| value.is_finite() && *value > 0.0)
        };
        let said: Vec<Said> = said.into_iter().filter(sound).collect();
        let of = |of: fn(&Said) -> f64| said.iter().map(of).collect::<Vec<f64>>();
        let judged = of(|said| said.judged);
        let value = median(&judged)?;
        let judges = paired.whole.first().is_some_and(|(_, ours, theirs)| {
            ours.target.program == OURS && theirs.target.program != OURS
        });
        // More than all of the optimum is no success: the disk was slower while it was timed alone.
        let possible = unit != Unit::Share || self.wanted == Wanted::AtMost || value <= 1.0;
        let [must, target, stretch] = self.levels;
        let figure = Figure {
            goal: self.id.to_owned(),
            name: self.name.to_owned(),
            point: point.to_owned(),
            ours: median(&of(|said| said.ours))?,
            theirs: median(&of(|said| said.theirs))?,
            unit: unit.name().to_owned(),
            value,
            lowest: judged.iter().copied().reduce(f64::min)?,
            highest: judged.iter().copied().reduce(f64::max)?,
            pairs: u32::try_from(judged.len()).unwrap_or(u32::MAX),
            wanted: self.wanted,
            must,
            target,
            stretch,
            met: (judges && possible).then(|| self.wanted.met(value, self.levels)),
        };
        Some((figure, unit))
    }
}

fn ratios(metric: &Metric, paired: &Paired<'_>) -> Vec<Said> {
    let pairs = paired.whole.iter();
    let values = pairs.filter_map(|(_, ours, theirs)| (metric.of)(ours).zip((metric.of)(theirs)));
    values
        .map(|(ours, theirs)| Said {
            ours,
            theirs,
            judged: ours / theirs,
        })
        .collect()
}

fn own(of: fn(&RunResult) -> Option<f64>, paired: &Paired<'_>) -> Vec<Said> {
    let pairs = paired.whole.iter();
    let values = pairs.filter_map(|(_, ours, theirs)| of(ours).zip(of(theirs)));
    values
        .map(|(ours, theirs)| Said {
            ours,
            theirs,
            judged: ours,
        })
        .collect()
}

fn rates_beside(paired: &Paired<'_>, others: &Paired<'_>) -> Vec<Said> {
    let mut said = Vec::new();
    for (pair, ours, theirs) in &paired.whole {
        let other = others.whole.iter().find(|(other, _, _)| other == pair);
        let Some((_, our_other, their_other)) = other else {
            continue;
        };
        let ours = ours.rate_per_second() / our_other.rate_per_second();
        said.push(Said {
            ours,
            theirs: theirs.rate_per_second() / their_other.rate_per_second(),
            judged: ours,
        });
    }
    said
}

/// How much longer one put in a thousand takes than the median.
fn tail(run: &RunResult) -> Option<f64> {
    let latency = run.latency();
    let p50_ns = latency.quantile_ns(0.5);
    (p50_ns > 0).then(|| latency.quantile_ns(0.999) as f64 / p50_ns as f64)
}
