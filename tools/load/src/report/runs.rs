//! Runs as a report: what was asked, what came back, what it cost; one run, several side by side, or pairs.
//!
//! Owns which figures are shown, and in which order. Figures come from the results as they are; nothing is
//! smoothed. What makes a figure doubtful (a partial run, a failed check) stands above all figures.

mod curves;

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::chart::{Axis, Bar, BarChart, Line, LineChart, Scale, Stroke};
use super::{Block, Cell, Chart, Report, Table, Unit, goals, number, pairs};
use crate::result::{CpuCost, RunResult};

/// Runs that one report shows; more would be a page that nobody reads.
pub const RUNS_MAX: usize = 1_000;

/// Bars of costs that are still a picture.
const BARS_MAX: usize = 16;

/// The report of these runs, at most [`RUNS_MAX`] of them.
pub fn report(runs: &[RunResult]) -> Report {
    let left_out = runs.len().saturating_sub(RUNS_MAX);
    let runs = &runs[..runs.len() - left_out];
    let shown = Shown::new(runs);
    let mut report = Report::new(match runs {
        [run] => format!("kontiki-load: {}", run.workload.summary),
        _ => format!("kontiki-load: {} runs", runs.len()),
    });
    let mut head = warnings(&shown);
    if left_out > 0 {
        head.push(Block::Warning(format!(
            "{left_out} further runs are not shown"
        )));
    }
    match runs {
        [run] => head.push(Block::Facts(facts(run))),
        _ => head.push(Block::Table(overview(&shown))),
    }
    report.push("", head);
    report.push("Goals", goals::blocks(runs));
    for comparison in pairs::compare(runs) {
        let heading = format!("Compared: {}", comparison.point);
        report.push(heading, pairs::blocks(&comparison));
    }
    let mut operations = vec![Block::Table(operations(&shown))];
    operations.extend(errors(&shown).map(Block::Table));
    report.push("Operations", operations);
    report.push("Cost", cost(&shown));
    report.push("Highest bearable rate", steps(&shown));
    report.push("Latency by percentile", curves::percentiles(&shown));
    report.push("Over time", curves::over_time(&shown));
    if let [_, _, ..] = runs {
        report.push("Each run", details(&shown));
    }
    report
}

/// Runs with the names and colours by which a report knows them.
struct Shown<'a> {
    runs: Vec<Run<'a>>,
}

struct Run<'a> {
    result: &'a RunResult,
    /// Different for each run.
    name: String,
    /// For legends: the same for all runs of one side.
    group: String,
    colour: usize,
}

impl<'a> Shown<'a> {
    fn new(results: &'a [RunResult]) -> Shown<'a> {
        let sides = results.iter().filter_map(|run| run.pairing.as_ref());
        let sides = pairs::distinct(sides.map(|pairing| pairing.side.as_str()));
        let mut runs: Vec<Run<'a>> = Vec::with_capacity(results.len());
        for (index, result) in results.iter().enumerate() {
            let label = if result.label.is_empty() {
                "run"
            } else {
                result.label.as_str()
            };
            let alike = results[..index]
                .iter()
                .filter(|other| other.label == result.label);
            let (name, group, colour) = match &result.pairing {
                Some(pairing) => {
                    let name = format!("{} {}", pairing.side, pairing.pair + 1);
                    let colour = sides.iter().position(|side| *side == pairing.side);
                    (name, pairing.side.clone(), colour.unwrap_or(0))
                }
                None => {
                    let name = match alike.count() {
                        0 => label.to_owned(),
                        before => format!("{label} ({})", before + 1),
                    };
                    (name.clone(), name, index + sides.len())
                }
            };
            runs.push(Run {
                result,
                name,
                group,
                colour,
            });
        }
        Shown { runs }
    }

    fn single(&self) -> bool {
        self.runs.len() == 1
    }
}

impl Run<'_> {
    /// What it did: its point among pairs, else its workload.
    fn point(&self) -> &str {
        match &self.result.pairing {
            Some(pairing) => &pairing.point,
            None => "",
        }
    }
}

fn warnings(shown: &Shown<'_>) -> Vec<Block> {
    let mut warnings = Vec::new();
    for run in &shown.runs {
        let name = if shown.single() { "" } else { &run.name };
        let name = if name.is_empty() {
            String::new()
        } else {
            format!("{name}: ")
        };
        if let Some(reason) = &run.result.partial {
            warnings.push(Block::Warning(format!(
                "PARTIAL RESULT: {name}{reason}. All figures are of the {} that ran.",
                seconds(run.result.duration)
            )));
        }
        for note in &run.result.notes {
            warnings.push(Block::Warning(format!("{name}{note}")));
        }
        let dropped = |operation: &crate::result::OpResult| operation.intervals_dropped > 0;
        if run.result.operations.iter().any(dropped) {
            warnings.push(Block::Warning(format!(
                "{name}the time series ends before the run; the totals are complete"
            )));
        }
    }
    warnings
}

/// Names and values.
type Facts = Vec<(String, String)>;

fn facts(run: &RunResult) -> Facts {
    let mut facts = Vec::new();
    let mut add = |name: &str, value: String| facts.push((name.to_owned(), value));
    add("target", target(run));
    for (name, value) in &run.target.details {
        add(name, value.clone());
    }
    add("endpoints", run.endpoints.join(" "));
    add("workload", run.workload.summary.clone());
    for (name, value) in &run.workload.parameters {
        add(name, value.clone());
    }
    add("started", stamp(run.started));
    add(
        "measured",
        format!(
            "{} after {} of warm-up",
            seconds(run.duration),
            seconds(run.warmup)
        ),
    );
    add("machine", machine(run));
    add(
        "generator",
        format!("kontiki-load {}", run.generator_version),
    );
    add("command", command(&run.command));
    facts
}

fn target(run: &RunResult) -> String {
    let target = &run.target;
    let members = match target.members {
        0 => String::new(),
        1 => ", 1 member".to_owned(),
        members => format!(", {members} members"),
    };
    format!("{} {}{members}", target.program, target.version)
        .trim()
        .to_owned()
}

fn machine(run: &RunResult) -> String {
    let machine = &run.machine;
    let parts = [
        (machine.cpus > 0).then(|| format!("{} CPUs", machine.cpus)),
        (!machine.cpu.is_empty()).then(|| machine.cpu.clone()),
        (machine.memory_bytes > 0).then(|| Unit::Bytes.format(machine.memory_bytes as f64)),
        (!machine.kernel.is_empty()).then(|| machine.kernel.clone()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// As a shell would take it.
fn command(arguments: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    let word = |argument: &String| {
        if !argument.is_empty() && argument.chars().all(plain) {
            argument.clone()
        } else {
            format!("'{}'", argument.replace('\'', r"'\''"))
        }
    };
    arguments.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// To the second, in UTC.
fn stamp(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(
        |_| String::new(),
        |stamp| stamp.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    )
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// One row for each run, or for all runs of one side at one point.
fn overview(shown: &Shown<'_>) -> Table {
    struct Row {
        names: Vec<Cell>,
        runs: usize,
        partial: usize,
        started: SystemTime,
        measured: Duration,
    }
    let mut rows: Vec<Row> = Vec::new();
    for run in &shown.runs {
        let result = run.result;
        let names: Vec<Cell> = vec![
            run.group.as_str().into(),
            target(result).into(),
            result.workload.summary.as_str().into(),
        ];
        let at = match rows.iter().position(|row| row.names == names) {
            Some(at) => at,
            None => {
                rows.push(Row {
                    names,
                    runs: 0,
                    partial: 0,
                    started: result.started,
                    measured: Duration::ZERO,
                });
                rows.len() - 1
            }
        };
        let row = &mut rows[at];
        row.runs += 1;
        row.partial += usize::from(result.partial.is_some());
        row.started = row.started.min(result.started);
        row.measured += result.duration;
    }
    let names = ["run", "target", "workload", "started"];
    let mut table = Table::new(&names, &["runs", "partial", "measured"]);
    for row in rows {
        let mut cells = row.names;
        cells.push(stamp(row.started).into());
        cells.push(row.runs.to_string().into());
        cells.push(row.partial.to_string().into());
        cells.push(seconds(row.measured).into());
        table.push(cells);
    }
    table
}

/// Columns of names: those of the run only where there are several.
fn names<'a>(shown: &Shown<'_>, own: &[&'a str]) -> Vec<&'a str> {
    let mut names = Vec::new();
    if !shown.single() {
        names.push("run");
    }
    if shown.runs.iter().any(|run| !run.point().is_empty()) {
        names.push("point");
    }
    names.extend(own);
    names
}

/// The cells below [`names`].
fn name_cells(shown: &Shown<'_>, run: &Run<'_>, own: &[&str]) -> Vec<Cell> {
    let columns = names(shown, &[]);
    let mut cells: Vec<Cell> = Vec::new();
    for column in columns {
        cells.push(if column == "run" {
            run.name.as_str().into()
        } else {
            run.point().into()
        });
    }
    cells.extend(own.iter().map(|name| Cell::from(*name)));
    cells
}

fn operations(shown: &Shown<'_>) -> Table {
    let numbers = [
        "count", "rate", "mean", "p50", "p90", "p99", "p99.9", "max", "errors",
    ];
    let mut table = Table::new(&names(shown, &["operation"]), &numbers);
    for run in &shown.runs {
        for operation in &run.result.operations {
            let mut row = name_cells(shown, run, &[&operation.name]);
            let summary = operation.latency.summary();
            let seconds = run.result.duration.as_secs_f64();
            let rate = if seconds > 0.0 {
                summary.count as f64 / seconds
            } else {
                0.0
            };
            row.push(number::whole(summary.count).into());
            row.push(Unit::PerSecond.format(rate).into());
            let latencies = [
                summary.mean_ns,
                summary.p50_ns,
                summary.p90_ns,
                summary.p99_ns,
                summary.p999_ns,
                summary.max_ns,
            ];
            for ns in latencies {
                // Nothing succeeded: there is no latency, and zero would be a lie.
                row.push(if summary.count == 0 {
                    "-".into()
                } else {
                    Unit::Nanoseconds.format(ns as f64).into()
                });
            }
            row.push(number::whole(operation.error_count()).into());
            table.push(row);
        }
    }
    table
}

fn errors(shown: &Shown<'_>) -> Option<Table> {
    let mut table = Table::new(
        &names(shown, &["operation", "error", "first message"]),
        &["count"],
    );
    for run in &shown.runs {
        for operation in &run.result.operations {
            for (code, error) in &operation.errors {
                let mut row = name_cells(shown, run, &[&operation.name, code, &error.first]);
                row.push(number::whole(error.count).into());
                table.push(row);
            }
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

fn cost(shown: &Shown<'_>) -> Vec<Block> {
    let numbers = ["CPU per op", "user", "system", "CPU", "memory"];
    let mut table = Table::new(&names(shown, &["process"]), &numbers);
    let mut bars = Vec::new();
    for run in &shown.runs {
        let result = run.result;
        for (name, cpu, rss_bytes) in processes(result, shown.single()) {
            let per_operation = |time: Duration| {
                let cost = CpuCost {
                    user: time,
                    system: Duration::ZERO,
                };
                cost.us_per(result.count()).unwrap_or(f64::NAN)
            };
            let costs = [cpu.total(), cpu.user, cpu.system].map(per_operation);
            let mut row = name_cells(shown, run, &[&name]);
            row.extend(costs.map(|cost| Unit::Microseconds.format(cost).into()));
            let busy = cpu.total().as_secs_f64() / result.duration.as_secs_f64();
            row.push(Unit::Share.format(busy).into());
            let memory = rss_bytes.map_or(f64::NAN, |bytes| bytes as f64);
            row.push(Unit::Bytes.format(memory).into());
            table.push(row);
            let name = match shown.single() {
                true => name,
                false => format!("{}: {name}", run.name),
            };
            bars.push(Bar {
                name,
                values: costs[1..].to_vec(),
            });
        }
    }
    let mut blocks = vec![Block::Table(table)];
    if bars.len() <= BARS_MAX {
        blocks.push(Block::Chart(Chart::Bars(BarChart {
            title: "CPU per acknowledged operation".to_owned(),
            unit: Unit::Microseconds,
            parts: vec!["user".to_owned(), "system".to_owned()],
            bars,
        })));
    }
    blocks
}

/// What a run's table of costs shows: each server only where a report is about one run.
fn processes(run: &RunResult, each: bool) -> Vec<(String, CpuCost, Option<u64>)> {
    let mut processes = Vec::new();
    if each || run.servers.len() == 1 {
        for server in &run.servers {
            let name = format!("{} (pid {})", server.name, server.pid);
            processes.push((name, server.cpu, Some(server.rss_bytes)));
        }
    }
    if let ([_, _, ..], Some(cpu)) = (&run.servers[..], run.server_cpu()) {
        processes.push(("all servers".to_owned(), cpu, run.server_rss_bytes()));
    }
    processes.push(("generator".to_owned(), run.generator, None));
    processes
}

fn steps(shown: &Shown<'_>) -> Vec<Block> {
    let numbers = ["offered", "achieved", "p50", "p99", "p99.9", "max"];
    let mut table = Table::new(&names(shown, &["held"]), &numbers);
    let mut lines = Vec::new();
    for run in &shown.runs {
        let steps = &run.result.steps;
        for step in steps {
            let mut row = name_cells(shown, run, &[if step.held { "yes" } else { "no" }]);
            row.push(Unit::PerSecond.format(step.offered_per_second).into());
            row.push(Unit::PerSecond.format(step.achieved_per_second).into());
            let latency = step.latency.summary();
            for ns in [
                latency.p50_ns,
                latency.p99_ns,
                latency.p999_ns,
                latency.max_ns,
            ] {
                row.push(Unit::Nanoseconds.format(ns as f64).into());
            }
            table.push(row);
        }
        let mut points: Vec<(f64, f64)> = steps
            .iter()
            .map(|step| {
                (
                    step.offered_per_second,
                    step.latency.summary().p99_ns as f64,
                )
            })
            .collect();
        // A search goes back and forth; a line goes to the right.
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        if !points.is_empty() {
            lines.push(Line {
                name: run.group.clone(),
                colour: run.colour,
                stroke: Stroke::Solid,
                points,
            });
        }
    }
    if lines.is_empty() {
        return Vec::new();
    }
    vec![
        Block::Table(table),
        Block::Chart(Chart::Line(LineChart {
            title: "p99 by offered rate".to_owned(),
            x: Axis::new("offered rate", Unit::PerSecond, Scale::Linear),
            y: Axis::new("p99", Unit::Nanoseconds, Scale::Log),
            lines,
        })),
    ]
}

/// Command and machine of every run, each different one once.
fn details(shown: &Shown<'_>) -> Vec<Block> {
    let mut seen: Vec<(Vec<&str>, Facts)> = Vec::new();
    for run in &shown.runs {
        let result = run.result;
        let mut facts = vec![
            ("target".to_owned(), target(result)),
            ("endpoints".to_owned(), result.endpoints.join(" ")),
            ("machine".to_owned(), machine(result)),
            (
                "generator".to_owned(),
                format!("kontiki-load {}", result.generator_version),
            ),
            ("command".to_owned(), command(&result.command)),
        ];
        let details = result.target.details.iter();
        let parameters = result.workload.parameters.iter();
        facts.extend(
            details
                .chain(parameters)
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        match seen.iter_mut().find(|(_, other)| *other == facts) {
            Some((names, _)) => names.push(&run.name),
            None => seen.push((vec![&run.name], facts)),
        }
    }
    seen.into_iter()
        .map(|(names, mut facts)| {
            facts.insert(0, ("run".to_owned(), names.join(", ")));
            Block::Facts(facts)
        })
        .collect()
}
