//! Runs the simulator over many seeds.
//!
//! ```text
//! cargo run --profile sim -p simrun -- --seeds 1..101 --members 3 --jobs 2
//! cargo run --profile sim -p simrun -- --trace 57          every line of one seed
//! cargo run --profile sim -p simrun --features planted -- --planted all
//! ```
//!
//! A seed that fails says what was not kept, shows the end of its trace, and how to run it again; the exit
//! code is 1 then. With planted defects it is the other way round: the exit code is 1 when too few seeds fail.

mod survey;

use std::ops::Range;
use std::panic;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use kontiki::base::planted::{Defect, Planted};
use kontiki::sim::report::{Report, Statistics};
use kontiki::sim::trace::Keep;
use kontiki::sim::{Options, run};

use self::survey::{Survey, keep};

/// Simulates clusters under faults, each from one seed.
#[derive(Parser, Debug)]
struct Arguments {
    /// The seeds, as FROM..TO; TO is not run.
    #[arg(long, default_value = "1..101", value_parser = parse_seeds)]
    seeds: Range<u64>,
    /// Members of each cluster; one, or, with a planted defect, as many as that takes to be seen.
    #[arg(long)]
    members: Option<usize>,
    /// Seeds that run at the same time, each on its own thread.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Simulated minutes with faults.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Runs this one seed and prints every line of its trace.
    #[arg(long)]
    trace: Option<u64>,
    /// Plants defects, by their names with commas between, or "all": shows the seeds that find each. With --trace,
    /// the one is in that run. Needs the feature `planted`.
    #[arg(long)]
    planted: Option<String>,
    /// Seeds that must find a planted defect; no more are run.
    #[arg(long, default_value_t = 3)]
    found_by: usize,
    /// Writes these seeds, with what they have found and when, to a file: tab-separated, a line each.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// No seed with a planted defect begins after so many seconds of real time.
    #[arg(long, default_value_t = 3_600)]
    seconds_max: u64,
}

/// Of a cluster that can show a defect among its members.
const PEERS: usize = 3;
/// One of the counts of many runs.
type Count = fn(&Statistics) -> u64;

/// So much must happen in a hundred seeds of at least three members and ten minutes each: fewer, and the seeds are not worth
/// what they seem to be.
const MINIMUMS_PER_100_SEEDS: [(&str, u64, Count); 13] = [
    ("crashes", 10_000, |all| all.crashes),
    ("leader changes", 8_000, |all| all.leader_changes),
    ("truncations", 3_000, |all| all.truncations),
    ("checkpoint installs", 1_000, |all| all.checkpoint_installs),
    ("rebuilt members", 400, |all| all.rebuilt),
    ("membership changes", 2_000, |all| all.membership_changes),
    ("compactions", 20_000, |all| all.compactions),
    ("switches to lease reads", 200, |all| all.lease_switches),
    ("leaders deposed by hanging disks", 300, |all| {
        all.hung_leaders_left
    }),
    ("disks hung in the calm", 20, |all| all.calm_hangs),
    ("times that all disks were slow in the calm", 10, |all| {
        all.calm_slow
    }),
    ("lost logs", 500, |all| all.lost_logs),
    ("damaged checkpoints noticed", 200, |all| {
        all.bad_checkpoints
    }),
];

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("seeds are given as FROM..TO")?;
    let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number"));
    let seeds = number(from)?..number(to)?;
    if seeds.is_empty() {
        return Err("no seed lies in that range".to_owned());
    }
    Ok(seeds)
}

/// The defects of those names, or which name is none.
fn defects(names: &str) -> Result<Vec<Defect>, String> {
    if names == "all" {
        return Ok(Defect::ALL.to_vec());
    }
    let by_name = |name: &str| {
        let found = Defect::ALL
            .iter()
            .find(|defect| format!("{defect:?}") == name);
        found
            .copied()
            .ok_or_else(|| format!("no defect {name:?}; there are {:?}", Defect::ALL))
    };
    names.split(',').map(by_name).collect()
}

#[cfg(feature = "planted")]
fn plant(defect: Defect) -> Result<Planted, String> {
    Ok(Planted::one(defect))
}

#[cfg(not(feature = "planted"))]
fn plant(defect: Defect) -> Result<Planted, String> {
    Err(format!("{defect:?} needs a build with --features planted"))
}

impl Arguments {
    fn options(&self, seed: u64, keep: Keep) -> Options {
        Options {
            members: self.members.unwrap_or(1),
            faults_for: Duration::from_mins(self.minutes),
            keep,
            ..Options::of_seed(seed)
        }
    }

    fn options_with(&self, defect: Defect, planted: Planted, seed: u64, keep: Keep) -> Options {
        let enough = if defect.needs_peers() { PEERS } else { 1 };
        Options {
            members: self.members.unwrap_or(enough),
            planted,
            ..self.options(seed, keep)
        }
    }
}

/// What all threads of one call have found.
#[derive(Default)]
struct Findings {
    statistics: Statistics,
    seeds: u64,
    failed: Vec<Report>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some(names) = &arguments.planted else {
        return healthy(&arguments);
    };
    // One after the other, so that an unknown name, or a build without defects, says so at once.
    match defects(names).and_then(|defects| {
        let planted = defects.into_iter();
        planted
            .map(|defect| plant(defect).map(|planted| (defect, planted)))
            .collect()
    }) {
        Ok(planted) => with_defects(&arguments, planted),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Runs seeds that must pass.
fn healthy(arguments: &Arguments) -> ExitCode {
    let begun = (wall_clock(), processor_time());
    let findings = match arguments.trace {
        Some(seed) => traced(arguments.options(seed, Keep::All)),
        None => sweep(arguments, &|seed| arguments.options(seed, Keep::Tail)),
    };
    let took = wall_clock().duration_since(begun.0);
    let processor = processor_time().saturating_sub(begun.1);
    findings.print(took, processor, arguments);
    let counts =
        findings.seeds >= 100 && arguments.minutes >= 10 && arguments.members >= Some(PEERS);
    let eventful = !counts || findings.are_eventful();
    if findings.failed.is_empty() && eventful {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs seeds that must not.
fn with_defects(arguments: &Arguments, planted: Vec<(Defect, Planted)>) -> ExitCode {
    // The product's assertions are expected to fail, again and again.
    panic::set_hook(Box::new(|_| {}));
    if let Some(seed) = arguments.trace {
        for (defect, planted) in planted {
            let findings = traced(arguments.options_with(defect, planted, seed, Keep::All));
            for violation in findings
                .failed
                .iter()
                .filter_map(|one| one.violation.as_ref())
            {
                println!("{defect:?}: {violation}");
            }
        }
        return ExitCode::SUCCESS;
    }
    let begun = wall_clock();
    let seconds_max = Duration::from_secs(arguments.seconds_max);
    let rows = Survey {
        defects: planted.iter().map(|&(defect, _)| defect).collect(),
        seeds: arguments.seeds.clone(),
        found_by: arguments.found_by,
        jobs: arguments.jobs,
        options: &|defect, seed| {
            let planted = plant(defect).expect("it could be planted before");
            arguments.options_with(defect, planted, seed, Keep::Tail)
        },
        is_over: &|| wall_clock().duration_since(begun) > seconds_max,
    }
    .run();
    let missed = rows
        .iter()
        .filter(|row| !row.is_found_by(arguments.found_by));
    let missed = missed.count();
    println!(
        "{} of {} defects found by {} seeds, in {:.0} s",
        rows.len() - missed,
        rows.len(),
        arguments.found_by,
        wall_clock().duration_since(begun).as_secs_f64(),
    );
    let kept = arguments
        .keep
        .as_deref()
        .map_or(Ok(()), |path| keep(&rows, path));
    if let Err(error) = &kept {
        eprintln!("the seeds were not kept: {error}");
    }
    if missed == 0 && kept.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// One run with every line of its trace.
fn traced(options: Options) -> Findings {
    let report = run(options);
    for line in &report.trace {
        println!("{line}");
    }
    let mut findings = Findings::default();
    findings.add(report);
    findings
}

/// What this process has used of all processors; with others at work on the machine, the measure of speed.
fn processor_time() -> Duration {
    // Kernel ticks of user and system time, a hundred per second, after the name in parentheses.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a tool that tells how fast it was; the runs themselves know no clock"
)]
fn wall_clock() -> Instant {
    Instant::now()
}

/// Runs all seeds.
fn sweep(arguments: &Arguments, options: &(dyn Fn(u64) -> Options + Sync)) -> Findings {
    let next = AtomicU64::new(arguments.seeds.start);
    let findings = Mutex::new(Findings::default());
    thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= arguments.seeds.end {
                        return;
                    }
                    let report = run(options(seed));
                    let mut findings = findings.lock().unwrap_or_else(PoisonError::into_inner);
                    findings.add(report);
                }
            });
        }
    });
    findings
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
}

impl Findings {
    fn add(&mut self, report: Report) {
        self.statistics += &report.statistics;
        self.seeds += 1;
        if report.violation.is_some() {
            self.failed.push(report);
        }
    }

    /// Whether enough has happened for so many seeds.
    fn are_eventful(&self) -> bool {
        let mut enough = true;
        for (what, minimum, of) in MINIMUMS_PER_100_SEEDS {
            let per_100_seeds = of(&self.statistics) * 100 / self.seeds;
            println!("per 100 seeds: {per_100_seeds} {what}, at least {minimum} are asked for");
            enough &= per_100_seeds >= minimum;
        }
        enough
    }

    fn print(&self, took: Duration, processor: Duration, arguments: &Arguments) {
        for report in &self.failed {
            let Some(violation) = &report.violation else {
                continue;
            };
            println!("seed {} failed. {violation}", report.seed);
            if arguments.trace.is_none() {
                for line in report.trace.iter().rev().take(60).rev() {
                    println!("  {line}");
                }
            }
            println!(
                "again: cargo run --profile sim -p simrun -- --members {} --minutes {} --trace {}",
                arguments.members.unwrap_or(1),
                arguments.minutes,
                report.seed
            );
        }
        let statistics = &self.statistics;
        let simulated = Duration::from_nanos(statistics.simulated_nanos).as_secs_f64();
        let per_second = |count: u64| count as f64 / simulated.max(1e-9);
        println!(
            "{} seeds, {} failed; {:.1} simulated hours in {:.1} s: {:.0} x real time on {} threads, {:.0} x per \
             processor",
            self.seeds,
            self.failed.len(),
            simulated / 3_600.0,
            took.as_secs_f64(),
            simulated / took.as_secs_f64().max(1e-9),
            arguments.jobs,
            simulated / processor.as_secs_f64().max(1e-9),
        );
        println!(
            "per simulated second: {:.1} operations, {:.2} faults, {:.0} events",
            per_second(statistics.operations),
            per_second(statistics.fault_count()),
            per_second(statistics.events),
        );
        println!(
            "operations: {} done, {} declined, {} refused, {} unknown; {} compactions",
            statistics.done,
            statistics.declined,
            statistics.refused,
            statistics.unknown,
            statistics.compactions,
        );
        println!(
            "members: {} crashes, {} starts, {} leader changes, {} truncations, {} checkpoints, {} installs ({} transfers given up), \
             {} torn tails, {} times damage found ({} lost logs, {} lost again), {} rebuilt",
            statistics.crashes,
            statistics.starts,
            statistics.leader_changes,
            statistics.truncations,
            statistics.checkpoints,
            statistics.checkpoint_installs,
            statistics.transfers_abandoned,
            statistics.torn_tails,
            statistics.damage_found,
            statistics.lost_logs,
            statistics.lost_again,
            statistics.rebuilt,
        );
        println!(
            "group: {} membership changes, {} switches to lease reads, {} removed members ended, {} leadership \
             transfers, {} foreign directories refused",
            statistics.membership_changes,
            statistics.lease_switches,
            statistics.removals,
            statistics.transfers,
            statistics.foreign_directories,
        );
        println!(
            "world: {} leaders with hanging disks lead no more, {} disks hung in the calm, {} times all were slow in it, {} damaged checkpoints noticed, {} pairs met \
             late, {} messages refused with their directories, {} new directories adopted, {} lone members got a second voter, {} were left alone again",
            statistics.hung_leaders_left,
            statistics.calm_hangs,
            statistics.calm_slow,
            statistics.bad_checkpoints,
            statistics.meetings,
            statistics.greetings_refused,
            statistics.adopted,
            statistics.grown,
            statistics.shrunk,
        );
        println!("faults: {:?}", statistics.faults);
    }
}
