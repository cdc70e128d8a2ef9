//! The phases of a slow follower as a report, a CSV file and a JSON file.

use super::{Outcome, Phase, Sample, median};
use crate::report::origin::{head, title};
use crate::report::{Block, Report, Table, Unit, number};

/// The report.
#[must_use]
pub fn report(outcome: &Outcome) -> Report {
    let mut report = Report::new(title("slow-follower", &outcome.origin));
    let partial = outcome.partial.as_ref();
    let head = head(&outcome.origin, partial, Vec::new(), Vec::new());
    report.push("", head);
    let mut blocks = vec![
        Block::Text(
            "Medians over the rounds. Ratios are of a phase to the healthy one of the same round: median, lowest and highest. \
             Memory is the leader's; it grows with every put, as versions are kept, so that what counts is its growth for each \
             put beside that of the healthy phase."
                .to_owned(),
        ),
        Block::Table(summary(outcome)),
    ];
    for (phase, why) in &outcome.left_out {
        blocks.push(Block::Warning(format!("left out: {}: {why}", phase.name())));
    }
    report.push("One follower", blocks);
    report.push("Rounds", vec![Block::Table(rounds(outcome))]);
    report
}

/// One row for each phase of each round.
#[must_use]
pub fn csv(outcome: &Outcome) -> String {
    let mut text = "round,phase,puts_per_second,puts,puts_all,p50_ns,p99_ns,max_ns,errors,rss_before,rss_max,rss_after,elections,\
                    level_ns\n"
        .to_owned();
    for sample in &outcome.samples {
        let row = [
            sample.round.to_string(),
            sample.phase.name().to_owned(),
            format!("{:.1}", sample.rate),
            sample.puts.to_string(),
            sample.puts_all.to_string(),
            sample.p50_ns.to_string(),
            sample.p99_ns.to_string(),
            sample.max_ns.to_string(),
            sample.errors.to_string(),
            sample.rss_before.to_string(),
            sample.rss_max.to_string(),
            sample.rss_after.to_string(),
            sample.elections.to_string(),
            sample.level_ns.to_string(),
        ];
        text.push_str(&row.join(","));
        text.push('\n');
    }
    text
}

fn summary(outcome: &Outcome) -> Table {
    let mut table = Table::new(
        &["follower"],
        &[
            "rounds",
            "puts/s",
            "p50",
            "p99",
            "p50 ratio",
            "p99 ratio",
            "growth per put",
            "highest RSS",
            "level again after",
            "errors",
            "elections",
        ],
    );
    for phase in outcome.phases() {
        let of = |figure: fn(&Sample) -> u64| {
            let mut values: Vec<u64> = outcome.of(phase).map(figure).collect();
            values.sort_unstable();
            values
        };
        let middle = |figure| median(of(figure)).unwrap_or(0);
        let time = |figure| Unit::Nanoseconds.format(middle(figure) as f64);
        let sum = |figure: fn(&Sample) -> u64| outcome.of(phase).map(figure).sum::<u64>();
        table.push(vec![
            phase.name().into(),
            outcome.of(phase).count().to_string().into(),
            number::whole(middle(|sample| sample.rate as u64)).into(),
            time(|sample| sample.p50_ns).into(),
            time(|sample| sample.p99_ns).into(),
            ratio(outcome, phase, |sample| sample.p50_ns).into(),
            ratio(outcome, phase, |sample| sample.p99_ns).into(),
            format!("{} B", middle(growth_per_put)).into(),
            Unit::Bytes
                .format(of(|sample| sample.rss_max).last().copied().unwrap_or(0) as f64)
                .into(),
            time(|sample| sample.level_ns).into(),
            sum(|sample| sample.errors).to_string().into(),
            sum(|sample| sample.elections).to_string().into(),
        ]);
    }
    table
}

/// Memory that each put of the phase and its warm-up has left with the leader.
fn growth_per_put(sample: &Sample) -> u64 {
    let highest = sample.rss_max.max(sample.rss_after);
    highest.saturating_sub(sample.rss_before) / sample.puts_all.max(1)
}

fn ratio(outcome: &Outcome, phase: Phase, figure: fn(&Sample) -> u64) -> String {
    if phase == Phase::Healthy {
        return "1".to_owned();
    }
    let ratios = outcome.ratios(phase, figure);
    let ends = ratios.first().copied().zip(ratios.last().copied());
    let Some(((lowest, highest), middle)) = ends.zip(median(ratios)) else {
        return "-".to_owned();
    };
    format!("{middle:.2} ({lowest:.2} to {highest:.2})")
}

fn rounds(outcome: &Outcome) -> Table {
    let mut table = Table::new(
        &["round", "follower"],
        &[
            "puts/s",
            "p50",
            "p99",
            "max",
            "RSS before",
            "highest",
            "after",
            "level again after",
            "errors",
            "elections",
        ],
    );
    let time = |ns: u64| Unit::Nanoseconds.format(ns as f64);
    let bytes = |bytes: u64| Unit::Bytes.format(bytes as f64);
    for sample in &outcome.samples {
        table.push(vec![
            sample.round.to_string().into(),
            sample.phase.name().into(),
            number::whole(sample.rate as u64).into(),
            time(sample.p50_ns).into(),
            time(sample.p99_ns).into(),
            time(sample.max_ns).into(),
            bytes(sample.rss_before).into(),
            bytes(sample.rss_max).into(),
            bytes(sample.rss_after).into(),
            time(sample.level_ns).into(),
            sample.errors.to_string().into(),
            sample.elections.to_string().into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::tests::{outcome, sample};
    use super::*;

    /// Goal: results are read back from JSON as they were, and shown with ratios, and with what was left out and why.
    #[test]
    fn phases_are_shown() {
        let mut found = outcome(vec![
            sample(1, Phase::Healthy, 1_000_000),
            sample(1, Phase::Stopped, 1_500_000),
        ]);
        found
            .left_out
            .push((Phase::SlowSyncs, "no right to it".to_owned()));
        let read: Outcome =
            serde_json::from_str(&serde_json::to_string(&found).expect("text")).expect("ours");
        assert_eq!(read, found);
        let text = report(&found).to_text();
        for expected in [
            "1.50 (1.50 to 1.50)",
            "left out: slow syncs: no right to it",
            "209 B",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        let columns: Vec<usize> = csv(&found)
            .lines()
            .map(|line| line.split(',').count())
            .collect();
        assert_eq!(columns, [14, 14, 14]);
    }
}
