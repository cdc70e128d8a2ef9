//! Failovers as a report, a CSV file and a JSON file.

use super::outcome::{Cell, Outcome, Time, Times, Trial};
use super::verify::EXAMPLES_MAX;
use super::{CELLS_MAX, Fault, History};
use crate::report::chart::{Axis, HeatCell, HeatMap, Scale, Strip, StripChart};
use crate::report::origin::{head, title};
use crate::report::{Block, Chart, Report, Table, Unit, number};

/// A time of a trial.
struct Figure {
    /// In tables.
    name: &'static str,
    /// In the picture, which shows the most important ones only.
    charted: bool,
    of: fn(&Trial) -> Option<u64>,
}

/// The times that are shown, the most important first.
const FIGURES: [Figure; 5] = [
    Figure {
        name: "first put",
        charted: true,
        of: |trial| trial.first_put_ns,
    },
    Figure {
        name: "first linearizable read",
        charted: false,
        of: |trial| trial.first_read_ns,
    },
    Figure {
        name: "all other endpoints",
        charted: false,
        of: |trial| trial.all_endpoints_ns,
    },
    Figure {
        name: "longest gap",
        charted: true,
        of: |trial| trial.longest_gap_ns,
    },
    Figure {
        name: "whole again after healing",
        charted: false,
        of: |trial| Some(trial.heal_ns),
    },
];

/// The faults, in the order in which they are shown.
const FAULTS: [Fault; 4] = [Fault::Kill, Fault::Stop, Fault::Isolate, Fault::Terminate];

/// The report of trials, or of a sweep when there is more than one cell.
#[must_use]
pub fn report(outcome: &Outcome) -> Report {
    let mut report = Report::new(title("failover", &outcome.origin));
    report.push("", about(outcome));
    match &outcome.cells[..] {
        [cell] => trials(&mut report, cell, outcome.recovery_max_ns),
        cells => grid(&mut report, cells, outcome.recovery_max_ns),
    }
    report
}

/// One row for each trial.
#[must_use]
pub fn csv(outcome: &Outcome) -> String {
    let mut text = "heartbeat_ms,election_ms,trial,fault,member,led,term_before,term_after,first_put_ns,first_read_ns,\
                    all_endpoints_ns,longest_gap_ns,heal_ns,acknowledged,unanswered,took_effect,reads,lost,stale\n"
        .to_owned();
    let optional = |value: Option<u64>| value.map_or_else(String::new, |value| value.to_string());
    for cell in &outcome.cells {
        for trial in &cell.trials {
            let row = [
                optional(cell.settings.map(|settings| settings.heartbeat_ms)),
                optional(cell.settings.map(|settings| settings.election_ms)),
                trial.number.to_string(),
                trial.fault.name().to_owned(),
                trial.member.to_string(),
                trial.led.to_string(),
                trial.term_before.to_string(),
                trial.term_after.to_string(),
                optional(trial.first_put_ns),
                optional(trial.first_read_ns),
                optional(trial.all_endpoints_ns),
                optional(trial.longest_gap_ns),
                trial.heal_ns.to_string(),
                trial.acknowledged.to_string(),
                trial.unanswered.to_string(),
                trial.took_effect.to_string(),
                trial.reads.to_string(),
                trial.lost.to_string(),
                trial.stale.to_string(),
            ];
            text.push_str(&row.join(","));
            text.push('\n');
        }
    }
    text
}

fn about(outcome: &Outcome) -> Vec<Block> {
    let mut warnings = Vec::new();
    let all = || outcome.cells.iter().flat_map(|cell| &cell.trials);
    let stuck = all().filter(|trial| trial.first_put_ns.is_none()).count();
    if stuck > 0 {
        warnings.push(format!(
            "in {stuck} trials no put was acknowledged in time; their times count as longer than all others"
        ));
    }
    let half: usize = outcome.cells.iter().map(Cell::half_recovered).sum();
    if half > 0 {
        warnings.push(format!(
            "in {half} trials not every endpoint but that of the hurt member acknowledged a put in time"
        ));
    }
    let history = outcome.cells.iter().find_map(|cell| cell.history.as_ref());
    let gaps = outcome.cells.iter().flat_map(Cell::gaps);
    warnings.extend(gaps.map(|gap| format!("the recorded history is not enough: {gap}")));
    let of_history = history.iter().flat_map(|history| &history.examples);
    let of_trials = all().flat_map(|trial| &trial.examples).take(EXAMPLES_MAX);
    warnings.extend(of_trials.chain(of_history).cloned());
    let fact = |name: &str, value: String| (name.to_owned(), value);
    let sum = |of: fn(&Trial) -> u64| number::whole(all().map(of).sum());
    let mut facts = vec![
        fact("trials", all().count().to_string()),
        fact("faults", faults(all())),
        fact("acknowledged puts", sum(|trial| trial.acknowledged)),
        fact("of them lost", sum(|trial| trial.lost)),
        fact("answered reads", sum(|trial| trial.reads)),
        fact("stale results", sum(|trial| trial.stale)),
        fact("unanswered puts", sum(|trial| trial.unanswered)),
        fact("of them in effect", sum(|trial| trial.took_effect)),
    ];
    facts.extend(history.into_iter().flat_map(history_facts));
    let mut blocks = head(&outcome.origin, outcome.partial.as_ref(), warnings, facts);
    blocks.push(Block::Text(
        "Every endpoint gets a put and a linearizable read at a fixed interval, whether earlier ones are answered or not, \
         so that a gap is the cluster's and not a client's, up to one interval. Times begin right after the fault and end \
         with the first acknowledgement of what was sent after it; the longest gap ends with any acknowledged put, and \
         is the figure of a planned stop. Lost: acknowledged and afterwards not there as \
         acknowledged. Stale: an answer older than what was acknowledged before it was asked for."
            .to_owned(),
    ));
    if history.is_some() {
        blocks.push(Block::Text(
            "History: a mixed load beside all trials wrote down every operation, and so did the trials with their puts and what \
             they read back; the checker judged them together as the whole history of the store. A violation is an answer that \
             no linearizable store can have given, an acknowledged write that is gone among them."
                .to_owned(),
        ));
    }
    blocks
}

/// How often each kind of fault struck a leader and a follower.
fn faults<'a>(trials: impl Iterator<Item = &'a Trial> + Clone) -> String {
    let count = |fault: Fault, led: bool| {
        let alike = |trial: &&Trial| (trial.fault, trial.led) == (fault, led);
        trials.clone().filter(alike).count()
    };
    let words = FAULTS.into_iter().filter_map(|fault| {
        let name = fault.name();
        match (count(fault, true), count(fault, false)) {
            (0, 0) => None,
            (leaders, 0) => Some(format!("{name} {leaders} (leaders)")),
            (0, followers) => Some(format!("{name} {followers} (followers)")),
            (leaders, followers) => Some(format!(
                "{name} {} ({leaders} leaders, {followers} followers)",
                leaders + followers
            )),
        }
    });
    words.collect::<Vec<_>>().join(", ")
}

fn history_facts(history: &History) -> [(String, String); 7] {
    let fact = |name: &str, value: u64| (name.to_owned(), number::whole(value));
    [
        fact("history: operations checked", history.operations),
        fact("history: acknowledged writes", history.writes),
        fact("history: violations", history.violations),
        fact("history: wrong answers while it ran", history.wrong_answers),
        (
            "history: unanswered writes".to_owned(),
            format!(
                "{}, {} of them found in effect",
                number::whole(history.unanswered),
                number::whole(history.settled)
            ),
        ),
        fact(
            "history: revisions of one of several unanswered writes",
            history.unsettled_revisions,
        ),
        fact("history: judgements left open by these", history.unjudged),
    ]
}

fn trials(report: &mut Report, cell: &Cell, recovery_max_ns: u64) {
    let mut blocks = Vec::new();
    if let Some(why) = &cell.failed {
        blocks.push(Block::Warning(why.clone()));
    }
    let mut table = Table::new(
        &["fault", "time to"],
        &["trials", "never", "min", "p50", "p90", "p99", "max"],
    );
    let mut strips = Vec::new();
    let kinds = FAULTS
        .into_iter()
        .flat_map(|fault| [(fault, true), (fault, false)]);
    for (fault, led) in kinds {
        let of_fault = Cell {
            trials: cell
                .trials
                .iter()
                .filter(|trial| (trial.fault, trial.led) == (fault, led))
                .cloned()
                .collect(),
            ..Cell::default()
        };
        let named = match led {
            true => fault.name().to_owned(),
            false => format!("{}, follower", fault.name()),
        };
        for Figure { name, charted, of } in FIGURES {
            let times = of_fault.times(of);
            if times.count() == 0 {
                continue;
            }
            table.push(vec![
                named.clone().into(),
                name.into(),
                times.count().to_string().into(),
                times.never().to_string().into(),
                at(&times, 0.0).into(),
                at(&times, 0.5).into(),
                high(&times, 0.9).into(),
                high(&times, 0.99).into(),
                at(&times, 1.0).into(),
            ]);
            if charted {
                let never = match times.never() {
                    0 => String::new(),
                    count => format!(", {count} never"),
                };
                strips.push(Strip {
                    name: format!("{named}: {name}{never}"),
                    values: times.came_ns().iter().map(|ns| *ns as f64).collect(),
                });
            }
        }
    }
    blocks.push(Block::Text(percentiles(recovery_max_ns)));
    blocks.push(Block::Table(table));
    blocks.push(Block::Chart(Chart::Strips(StripChart {
        title: "Each trial".to_owned(),
        axis: Axis::new("time", Unit::Nanoseconds, Scale::Log),
        strips,
    })));
    report.push("Failover", blocks);
    report.push("Trials", vec![Block::Table(each_trial(cell))]);
}

fn each_trial(cell: &Cell) -> Table {
    let mut table = Table::new(
        &["trial", "fault", "hurt", "terms"],
        &[
            "first put",
            "first read",
            "all others",
            "longest gap",
            "puts",
            "unanswered",
            "lost",
            "stale",
        ],
    );
    for trial in &cell.trials {
        table.push(vec![
            trial.number.to_string().into(),
            trial.fault.name().into(),
            format!("member {}, {}", trial.member + 1, trial.role()).into(),
            format!("{} -> {}", trial.term_before, trial.term_after).into(),
            time(trial.first_put_ns).into(),
            time(trial.first_read_ns).into(),
            time(trial.all_endpoints_ns).into(),
            time(trial.longest_gap_ns).into(),
            number::whole(trial.acknowledged).into(),
            number::whole(trial.unanswered).into(),
            trial.lost.to_string().into(),
            trial.stale.to_string().into(),
        ]);
    }
    table
}

/// What the columns mean.
fn percentiles(recovery_max_ns: u64) -> String {
    format!(
        "Percentiles are values that occurred, over all trials; with so few trials that one is the maximum, it says so. \
         Never: not within the trial, for puts {}; such a trial is above all others.",
        time(Some(recovery_max_ns))
    )
}

/// A quantile in a table.
fn at(times: &Times, quantile: f64) -> String {
    match times.quantile(quantile) {
        None => time(None),
        Some(Time::After(ns)) => time(Some(ns)),
        Some(Time::Never) => "never".to_owned(),
    }
}

/// A high quantile beside the maximum: named so where it is no other value.
fn high(times: &Times, quantile: f64) -> String {
    match times.count() > 0 && times.is_maximum(quantile) {
        true => "= max".to_owned(),
        false => at(times, quantile),
    }
}

fn grid(report: &mut Report, cells: &[Cell], recovery_max_ns: u64) {
    let mut table = Table::new(
        &["heartbeat", "election timeout"],
        &[
            "trials",
            "never",
            "first put p50",
            "p99",
            "max",
            "needless elections, quiet",
            "loaded",
            "lost or stale",
        ],
    );
    let mut blocks = Vec::new();
    for cell in cells.iter().take(CELLS_MAX) {
        let Some(settings) = cell.settings else {
            continue;
        };
        let times = cell.times(|trial| trial.first_put_ns);
        let count = |elections: Option<u64>| {
            elections.map_or_else(|| "-".to_owned(), |count| count.to_string())
        };
        table.push(vec![
            format!("{} ms", settings.heartbeat_ms).into(),
            format!("{} ms", settings.election_ms).into(),
            times.count().to_string().into(),
            times.never().to_string().into(),
            at(&times, 0.5).into(),
            high(&times, 0.99).into(),
            at(&times, 1.0).into(),
            count(cell.elections_quiet).into(),
            count(cell.elections_loaded).into(),
            cell.violations().to_string().into(),
        ]);
        let named = format!(
            "heartbeat {} ms, election timeout {} ms",
            settings.heartbeat_ms, settings.election_ms
        );
        if let Some(why) = &cell.refused {
            blocks.push(Block::Text(format!("{named}: {why}")));
        }
        if let Some(why) = &cell.failed {
            blocks.push(Block::Warning(format!("{named} failed: {why}")));
        }
    }
    blocks.insert(0, Block::Text(percentiles(recovery_max_ns)));
    blocks.insert(1, Block::Table(table));
    let few = cells
        .iter()
        .all(|cell| cell.times(|trial| trial.first_put_ns).is_maximum(0.99));
    let highest = if few { ("maximum", 1.0) } else { ("p99", 0.99) };
    for (name, quantile) in [("p50", 0.5), highest] {
        let map = heat(cells, name, quantile, recovery_max_ns);
        blocks.push(Block::Chart(Chart::Heat(map)));
    }
    report.push("Heartbeat interval and election timeout", blocks);
}

/// Time to the first put over both settings, at least `recovery_max_ns` where it never came; below it the needless
/// elections of both phases.
fn heat(cells: &[Cell], name: &str, quantile: f64, recovery_max_ns: u64) -> HeatMap {
    let settings: Vec<_> = cells.iter().filter_map(|cell| cell.settings).collect();
    let sorted = |mut values: Vec<u64>| {
        values.sort_unstable();
        values.dedup();
        values
    };
    let heartbeats = sorted(
        settings
            .iter()
            .map(|settings| settings.heartbeat_ms)
            .collect(),
    );
    let elections = sorted(
        settings
            .iter()
            .map(|settings| settings.election_ms)
            .collect(),
    );
    let cell_of = |heartbeat_ms: u64, election_ms: u64| {
        let cell = cells.iter().find(|cell| {
            cell.settings.is_some_and(|found| {
                (found.heartbeat_ms, found.election_ms) == (heartbeat_ms, election_ms)
            })
        })?;
        let times = cell.times(|trial| trial.first_put_ns);
        let (ns, never) = match times.quantile(quantile)? {
            Time::After(ns) => (ns, None),
            Time::Never => (recovery_max_ns, Some("never".to_owned())),
        };
        let needless = cell.elections_quiet.zip(cell.elections_loaded);
        let needless = needless.map(|(quiet, loaded)| format!("{quiet} + {loaded} needless"));
        let notes: Vec<String> = never.into_iter().chain(needless).collect();
        Some(HeatCell {
            value: ns as f64,
            note: notes.join(", "),
        })
    };
    let milliseconds = |values: &[u64]| values.iter().map(|value| format!("{value} ms")).collect();
    HeatMap {
        title: format!(
            "Time to the first put, {name}; needless elections without load + under load"
        ),
        x: ("heartbeat interval".to_owned(), milliseconds(&heartbeats)),
        y: ("election timeout".to_owned(), milliseconds(&elections)),
        unit: Unit::Nanoseconds,
        cells: elections
            .iter()
            .map(|election| {
                heartbeats
                    .iter()
                    .map(|heartbeat| cell_of(*heartbeat, *election))
                    .collect()
            })
            .collect(),
    }
}

fn time(ns: Option<u64>) -> String {
    ns.map_or_else(|| "-".to_owned(), |ns| Unit::Nanoseconds.format(ns as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Settings;

    fn outcome(cells: Vec<Cell>) -> Outcome {
        Outcome {
            origin: crate::result::Origin::default(),
            recovery_max_ns: 30_000_000_000,
            cells,
            partial: None,
        }
    }

    fn trial(number: u32, first_put_ns: Option<u64>) -> Trial {
        Trial {
            number,
            fault: Fault::Kill,
            member: 1,
            led: true,
            term_before: 2,
            term_after: 3,
            first_put_ns,
            first_read_ns: first_put_ns,
            all_endpoints_ns: first_put_ns,
            longest_gap_ns: first_put_ns,
            heal_ns: 5,
            acknowledged: 1_000,
            unanswered: 3,
            took_effect: 1,
            reads: 7,
            lost: 0,
            stale: 0,
            examples: Vec::new(),
        }
    }

    /// Goal: trials are read back from JSON as they were, and shown in table, page and CSV.
    #[test]
    fn trials_are_shown() {
        let mut trials = vec![trial(1, Some(1_500_000)), trial(2, None)];
        trials[0].examples.push("put 7 is <lost>".to_owned());
        trials[0].lost = 1;
        let outcome = outcome(vec![Cell {
            trials,
            ..Cell::default()
        }]);
        let read: Outcome =
            serde_json::from_str(&serde_json::to_string(&outcome).expect("text")).expect("ours");
        assert_eq!(read, outcome);
        assert_eq!(
            outcome.failure().as_deref(),
            Some("1 lost or stale results; 1 trials without an acknowledged put in time")
        );
        let shown = report(&outcome);
        let text = shown.to_text();
        // The trial that never recovered is the slowest of the two; with two, high percentiles are the maximum.
        let row = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .find(|line| line.starts_with("kill first put "));
        assert_eq!(
            row.as_deref(),
            Some("kill first put 2 1 1.50 ms 1.50 ms = max = max never")
        );
        for expected in ["1.50 ms", "put 7 is <lost>", "in 1 trials no put", "2 -> 3"] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        assert!(shown.to_html().contains("put 7 is &lt;lost"));
        let table = csv(&outcome);
        let columns: Vec<usize> = table.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(columns, [19, 19, 19]);
    }

    /// Goal: a violation in the recorded history is a failure, and shown with its words beside what was checked.
    #[test]
    fn history_is_shown() {
        let of_follower = Trial {
            led: false,
            ..trial(2, Some(2_000_000))
        };
        let history = History {
            operations: 1_234_567,
            violations: 1,
            examples: vec!["Phantom: nobody wrote it".to_owned()],
            ..History::default()
        };
        let outcome = outcome(vec![Cell {
            trials: vec![trial(1, Some(1_000_000)), of_follower],
            history: Some(history),
            ..Cell::default()
        }]);
        assert_eq!(
            outcome.failure().as_deref(),
            Some("1 violations in the recorded history")
        );
        let text = report(&outcome).to_text();
        for expected in [
            "kill 2 (1 leaders, 1 followers)",
            "kill, follower",
            "member 2, follower",
            "1,234,567",
            "!! Phantom: nobody wrote it",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
    }

    /// Goal: a history that says less than it should is a failure although nothing in it is wrong.
    #[test]
    fn history_with_gaps() {
        let history = History {
            gaps: vec!["the load ended by itself".to_owned()],
            ..History::default()
        };
        let outcome = outcome(vec![Cell {
            trials: vec![trial(1, Some(1_000_000))],
            history: Some(history),
            ..Cell::default()
        }]);
        let expected = "the recorded history is not enough: the load ended by itself";
        assert_eq!(outcome.failure().as_deref(), Some(expected));
        assert!(report(&outcome).to_text().contains(expected));
    }

    /// Goal: a trial in which one of the others never serves, or serves no more once the old leader is gone, is a failure
    /// although puts were acknowledged.
    #[test]
    fn half_a_recovery_is_none() {
        let half = Trial {
            all_endpoints_ns: None,
            ..trial(2, Some(2_000_000))
        };
        let outcome = outcome(vec![Cell {
            trials: vec![trial(1, Some(1_000_000)), half],
            ..Cell::default()
        }]);
        let expected = "1 trials in which not every other endpoint served in time";
        assert_eq!(outcome.failure().as_deref(), Some(expected));
        let text = report(&outcome).to_text();
        assert!(text.contains("in 1 trials not every endpoint"), "{text}");
    }

    /// Goal: a sweep is a grid with a hole where servers refuse the settings.
    #[test]
    fn grid_with_a_hole() {
        let cell = |heartbeat_ms, election_ms, first_put_ns: Option<u64>| Cell {
            settings: Some(Settings {
                heartbeat_ms,
                election_ms,
            }),
            trials: first_put_ns
                .map(|ns| trial(1, Some(ns)))
                .into_iter()
                .collect(),
            elections_quiet: first_put_ns.map(|_| 0),
            elections_loaded: first_put_ns.map(|_| 2),
            history: None,
            refused: first_put_ns.is_none().then(|| "refused".to_owned()),
            failed: None,
        };
        let cells = vec![
            cell(10, 100, Some(1)),
            cell(100, 100, None),
            cell(10, 500, Some(2)),
            cell(100, 500, Some(3)),
        ];
        let map = heat(&cells, "p50", 0.5, 9);
        let values: Vec<Vec<Option<u64>>> = map
            .cells
            .iter()
            .map(|row| {
                row.iter()
                    .map(|cell| cell.as_ref().map(|cell| cell.value as u64))
                    .collect()
            })
            .collect();
        assert_eq!(values, [[Some(1), None], [Some(2), Some(3)]]);
        let mut stuck = cells.clone();
        stuck[0].trials.push(trial(2, None));
        let cell = heat(&stuck, "maximum", 1.0, 9).cells[0][0].clone();
        let cell = cell.expect("measured");
        assert_eq!(
            (cell.value as u64, cell.note.as_str()),
            (9, "never, 0 + 2 needless")
        );
        let text = report(&outcome(cells)).to_text();
        assert!(
            text.contains("heartbeat 100 ms, election timeout 100 ms: refused"),
            "{text}"
        );
    }
}
