//! Runs in turn (A B A B ...) as ratios: each pair ran side by side, so only pairs are divided.
//!
//! Owns which figures are compared and how: the median of the ratios of the pairs with the lowest and the
//! highest one. A pair of which a run is missing, partial or without acknowledged operations is left out and
//! counted. Never divides medians, and never averages ratios.

use std::collections::BTreeMap;

use super::chart::{Better, RatioChart, RatioRow};
use super::table::Tone;
use super::{Block, Cell, Chart, Table, Unit};
use crate::result::RunResult;

/// One figure of a run that can be compared.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// In tables.
    pub name: &'static str,
    /// Of the figure itself.
    pub unit: Unit,
    /// Which way it should go.
    pub better: Better,
    /// Reads it; none where it was not measured.
    pub of: fn(&RunResult) -> Option<f64>,
}

/// Both sides at one point.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// What both did.
    pub point: String,
    /// The side that is divided: the one that ran first.
    pub ours: String,
    /// The side that it is divided by.
    pub theirs: String,
    /// One for each figure that was measured on both sides.
    pub rows: Vec<ComparedMetric>,
    /// Pairs that could not be used.
    pub pairs_left_out: usize,
}

/// One figure on both sides.
#[derive(Clone, Debug, PartialEq)]
pub struct ComparedMetric {
    /// Which figure.
    pub name: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// Which way it should go.
    pub better: Better,
    /// Median over the pairs, ours.
    pub ours: f64,
    /// Median over the pairs, theirs.
    pub theirs: f64,
    /// Ours by theirs, in the order of the pairs.
    pub ratios: Vec<f64>,
}

/// CPU of servers of which nothing is asked.
pub(super) const IDLE_CPU: &str = "server CPU while idle, of one CPU";

/// Compared at every point, the most important first.
pub const METRICS: [Metric; 10] = [
    Metric {
        name: "server CPU per operation",
        unit: Unit::Microseconds,
        better: Better::Lower,
        of: RunResult::server_us_per_operation,
    },
    Metric {
        name: IDLE_CPU,
        unit: Unit::Share,
        better: Better::Lower,
        of: RunResult::idle_cpu_share,
    },
    Metric {
        name: "operations per second",
        unit: Unit::PerSecond,
        better: Better::Higher,
        of: |run| Some(run.rate_per_second()),
    },
    Metric {
        name: "latency p50",
        unit: Unit::Nanoseconds,
        better: Better::Lower,
        of: |run| Some(run.latency().quantile_ns(0.5) as f64),
    },
    Metric {
        name: "latency p99",
        unit: Unit::Nanoseconds,
        better: Better::Lower,
        of: |run| Some(run.latency().quantile_ns(0.99) as f64),
    },
    Metric {
        name: "latency p99.9",
        unit: Unit::Nanoseconds,
        better: Better::Lower,
        of: |run| Some(run.latency().quantile_ns(0.999) as f64),
    },
    Metric {
        name: "latency max",
        unit: Unit::Nanoseconds,
        better: Better::Lower,
        of: |run| Some(run.latency().max_ns() as f64),
    },
    Metric {
        name: "share of the physical optimum",
        unit: Unit::Share,
        better: Better::Higher,
        of: RunResult::share_of_optimum,
    },
    Metric {
        name: "server memory",
        unit: Unit::Bytes,
        better: Better::Lower,
        of: |run| run.server_rss_bytes().map(|bytes| bytes as f64),
    },
    Metric {
        name: "generator CPU per operation",
        unit: Unit::Microseconds,
        better: Better::Lower,
        of: RunResult::generator_us_per_operation,
    },
];

/// All points of these runs that have exactly two sides, in the order in which they ran.
pub fn compare(runs: &[RunResult]) -> Vec<Comparison> {
    points(runs)
        .into_iter()
        .filter_map(|point| compare_point(runs, point))
        .collect()
}

/// What a section says about a comparison.
pub fn blocks(comparison: &Comparison) -> Vec<Block> {
    let Comparison { ours, theirs, .. } = comparison;
    let mut table = Table::new(
        &["figure"],
        &[ours, theirs, "ratio", "lowest", "highest", "pairs"],
    );
    for row in &comparison.rows {
        let tone = match row.better.verdict(&row.ratios) {
            Some(true) => Tone::Good,
            Some(false) => Tone::Bad,
            None => Tone::Plain,
        };
        let (low, high) = row.spread();
        table.push(vec![
            row.name.into(),
            row.unit.format(row.ours).into(),
            row.unit.format(row.theirs).into(),
            Cell::from(Unit::Ratio.format(row.ratio())).with_tone(tone),
            Unit::Ratio.format(low).into(),
            Unit::Ratio.format(high).into(),
            row.ratios.len().to_string().into(),
        ]);
    }
    let mut blocks = Vec::new();
    if comparison.pairs_left_out > 0 {
        blocks.push(Block::Warning(format!(
            "{} of the pairs left out: a run is missing, partial or without an acknowledged operation",
            comparison.pairs_left_out
        )));
    }
    if comparison.rows.is_empty() {
        return blocks;
    }
    blocks.push(Block::Text(format!(
        "{ours} / {theirs}: medians of both sides; median, lowest and highest ratio of the pairs. \
         Latency ratios are comparable only where both sides had the same rate or the same number in flight."
    )));
    blocks.push(Block::Table(table));
    blocks.push(Block::Chart(Chart::Ratios(RatioChart {
        title: format!("{ours} / {theirs}, each pair and the median"),
        rows: comparison.rows.iter().map(ComparedMetric::row).collect(),
    })));
    blocks
}

impl ComparedMetric {
    /// The median of the ratios.
    pub fn ratio(&self) -> f64 {
        median(&self.ratios).unwrap_or(f64::NAN)
    }

    /// The lowest and the highest ratio.
    pub fn spread(&self) -> (f64, f64) {
        let ratios = self.ratios.iter().copied();
        (
            ratios.clone().reduce(f64::min).unwrap_or(f64::NAN),
            ratios.reduce(f64::max).unwrap_or(f64::NAN),
        )
    }

    fn row(&self) -> RatioRow {
        RatioRow {
            name: self.name.to_owned(),
            ratios: self.ratios.clone(),
            median: self.ratio(),
            better: self.better,
        }
    }
}

/// The middle value; the mean of the two middle ones of an even number; none without values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some((sorted[sorted.len() / 2 - 1] + upper) / 2.0)
}

/// The points of paired runs, each once.
pub(super) fn points(runs: &[RunResult]) -> Vec<&str> {
    let all = runs.iter().filter_map(|run| run.pairing.as_ref());
    distinct(all.map(|pairing| pairing.point.as_str()))
}

/// Each value once, in the order of its first appearance.
pub(super) fn distinct<'a>(values: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for value in values {
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    seen
}

/// The pairs of runs at one point.
pub(super) struct Paired<'a> {
    /// The side that ran first.
    pub(super) ours: &'a str,
    /// The other one.
    pub(super) theirs: &'a str,
    /// Number and both runs of each pair that can be used.
    pub(super) whole: Vec<(u32, &'a RunResult, &'a RunResult)>,
    /// How many cannot.
    pub(super) left_out: usize,
}

/// The pairs at this point; none unless it has exactly two sides.
pub(super) fn paired<'a>(runs: &'a [RunResult], point: &str) -> Option<Paired<'a>> {
    let here = || {
        let paired = runs
            .iter()
            .filter_map(|run| run.pairing.as_ref().map(|pairing| (pairing, run)));
        paired.filter(move |(pairing, _)| pairing.point == point)
    };
    let [ours, theirs] = *distinct(here().map(|(pairing, _)| pairing.side.as_str())) else {
        return None;
    };
    let mut pairs: BTreeMap<u32, [Option<&RunResult>; 2]> = BTreeMap::new();
    for (pairing, run) in here() {
        let side = usize::from(pairing.side != ours);
        pairs.entry(pairing.pair).or_default()[side] = Some(run);
    }
    // Where nothing was asked, nothing could be acknowledged.
    let answered = |run: &RunResult| run.count() > 0 || run.operations.is_empty();
    let sound = |run: &&RunResult| run.partial.is_none() && answered(run);
    let whole: Vec<(u32, &RunResult, &RunResult)> = pairs
        .iter()
        .filter_map(|(pair, [ours, theirs])| {
            let both = ours.filter(sound).zip(theirs.filter(sound));
            both.map(|(ours, theirs)| (*pair, ours, theirs))
        })
        .collect();
    Some(Paired {
        ours,
        theirs,
        left_out: pairs.len() - whole.len(),
        whole,
    })
}

fn compare_point(runs: &[RunResult], point: &str) -> Option<Comparison> {
    let paired = paired(runs, point)?;
    Some(Comparison {
        point: point.to_owned(),
        ours: paired.ours.to_owned(),
        theirs: paired.theirs.to_owned(),
        rows: METRICS
            .iter()
            .filter_map(|metric| compare_metric(metric, &paired))
            .collect(),
        pairs_left_out: paired.left_out,
    })
}

fn compare_metric(metric: &Metric, paired: &Paired<'_>) -> Option<ComparedMetric> {
    let values: Vec<(f64, f64)> = paired
        .whole
        .iter()
        .filter_map(|(_, ours, theirs)| (metric.of)(ours).zip((metric.of)(theirs)))
        .filter(|(ours, theirs)| *ours > 0.0 && *theirs > 0.0)
        .collect();
    let side = |of: fn(&(f64, f64)) -> f64| median(&values.iter().map(of).collect::<Vec<f64>>());
    Some(ComparedMetric {
        name: metric.name,
        unit: metric.unit,
        better: metric.better,
        ours: side(|pair| pair.0)?,
        theirs: side(|pair| pair.1)?,
        ratios: values.iter().map(|(ours, theirs)| ours / theirs).collect(),
    })
}
