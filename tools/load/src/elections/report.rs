//! Elections that nobody needed as a report.

use super::{KEPT_MAX, Outcome, Seen};
use crate::report::origin::{head, title};
use crate::report::{Block, Report, Table, Unit, number};

/// The report.
#[must_use]
pub fn report(outcome: &Outcome) -> Report {
    let mut report = Report::new(title("elections", &outcome.origin));
    let partial = outcome.partial.as_ref();
    let head = head(&outcome.origin, partial, Vec::new(), Vec::new());
    report.push("", head);
    report.push(
        "What was seen",
        vec![Block::Facts(facts(&outcome.seen, outcome.elections_max))],
    );
    if !outcome.seen.count.kept.is_empty() {
        report.push("Elections", elections(&outcome.seen));
    }
    if !outcome.seen.puts.failed.is_empty() {
        report.push(
            "Puts without an acknowledgement",
            vec![Block::Table(failed(&outcome.seen))],
        );
    }
    report
}

fn facts(seen: &Seen, elections_max: Option<u64>) -> Vec<(String, String)> {
    let (count, puts) = (&seen.count, &seen.puts);
    let fact = |name: &str, value: String| (name.to_owned(), value);
    let time = |ns: u64| Unit::Nanoseconds.format(ns as f64);
    let each = |values: Vec<String>| values.join(", ");
    let allowed = elections_max.map_or_else(String::new, |max| format!(", {max} allowed"));
    let failed: u64 = puts.failed.values().map(|(count, _)| count).sum();
    let first_failure = seen.compactions.first_failure.as_ref();
    vec![
        fact(
            "elections",
            format!(
                "{} in {:.1} s{allowed}",
                count.elections(),
                seen.duration_ns as f64 / 1e9
            ),
        ),
        fact("terms", format!("{} -> {}", count.first_term, count.term)),
        fact(
            "leader",
            format!(
                "member {} -> {}, {} changes",
                member(count.first_leader),
                member(count.leader),
                count.leader_changes
            ),
        ),
        fact(
            "looks",
            format!(
                "{}, at most {} apart; {} without a leader, {} answers missing",
                count.looks,
                time(count.longest_between_ns),
                count.leaderless,
                count.unanswered
            ),
        ),
        fact(
            "puts",
            format!(
                "{} acknowledged, {}/s, {failed} not",
                number::whole(puts.acknowledged),
                number::whole(puts.per_second as u64)
            ),
        ),
        fact(
            "latency",
            format!(
                "p50 {}, p99 {}, max {}",
                time(puts.p50_ns),
                time(puts.p99_ns),
                time(puts.max_ns)
            ),
        ),
        fact(
            "longest gap",
            format!(
                "{} without an acknowledged put, from {:.1} s on",
                time(puts.longest_gap_ns),
                puts.longest_gap_at_ns as f64 / 1e9
            ),
        ),
        fact(
            "compactions",
            format!(
                "{}, the last at revision {}; {} failed{}",
                seen.compactions.done,
                seen.compactions.revision,
                seen.compactions.failed,
                first_failure.map_or_else(String::new, |why| format!(", the first: {why}"))
            ),
        ),
        fact("CPU time of the stress", time(seen.stress_cpu_ns)),
        fact(
            "highest RSS of each member",
            each(
                seen.rss
                    .iter()
                    .map(|rss| Unit::Bytes.format(*rss as f64))
                    .collect(),
            ),
        ),
        fact(
            "slow syncs in each log",
            each(seen.slow_syncs.iter().map(u64::to_string).collect()),
        ),
    ]
}

fn elections(seen: &Seen) -> Vec<Block> {
    let mut table = Table::new(
        &[],
        &["seen at", "term", "terms", "leader", "leader seen at"],
    );
    let at = |ns: u64| format!("{:.1} s", ns as f64 / 1e9);
    for election in &seen.count.kept {
        table.push(vec![
            at(election.at_ns).into(),
            election.term.to_string().into(),
            election.terms.to_string().into(),
            member(election.leader).into(),
            election.led_at_ns.map_or_else(|| "-".to_owned(), at).into(),
        ]);
    }
    let mut blocks = vec![Block::Table(table)];
    if seen.count.kept.len() == KEPT_MAX {
        let text = format!("The first {KEPT_MAX} alone are kept.");
        blocks.push(Block::Text(text));
    }
    blocks
}

fn failed(seen: &Seen) -> Table {
    let mut table = Table::new(&["code", "the first"], &["puts"]);
    for (code, (count, first)) in &seen.puts.failed {
        table.push(vec![
            code.as_str().into(),
            first.as_str().into(),
            number::whole(*count).into(),
        ]);
    }
    table
}

/// As members are counted by people.
fn member(member: Option<usize>) -> String {
    member.map_or_else(|| "-".to_owned(), |member| (member + 1).to_string())
}

#[cfg(test)]
mod tests {
    use super::super::tests::outcome;
    use super::super::{Count, Election};
    use super::*;

    /// Goal: results are read back from JSON as they were, and shown with every election and every kind of failure.
    #[test]
    fn what_was_seen_is_shown() {
        let mut seen = Seen {
            count: Count {
                first_term: 2,
                term: 4,
                first_leader: Some(0),
                leader: Some(2),
                leader_changes: 1,
                kept: vec![Election {
                    at_ns: 1_500_000_000,
                    term: 4,
                    terms: 2,
                    leader: Some(2),
                    led_at_ns: Some(1_600_000_000),
                }],
                ..Count::default()
            },
            duration_ns: 20_000_000_000,
            ..Seen::default()
        };
        seen.puts.acknowledged = 12_345;
        let timeout = ("timeout".to_owned(), (3, "no answer".to_owned()));
        seen.puts.failed.extend([timeout]);
        let mut found = outcome(seen);
        found.elections_max = Some(0);
        let read: Outcome =
            serde_json::from_str(&serde_json::to_string(&found).expect("text")).expect("ours");
        assert_eq!(read, found);
        let text = report(&found).to_text();
        for expected in [
            "2 in 20.0 s, 0 allowed",
            "member 1 -> 3, 1 changes",
            "1.6 s",
            "timeout",
            "no answer",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
    }
}
