//! Runs the simulator over many seeds.
//!
//! ```text
//! cargo run --profile sim -p simrun -- --seeds 1..101 --members 3 --jobs 2
//! cargo run --profile sim -p simrun -- --trace 57          every line of one seed
//! ```
//!
//! A seed that fails says what was not kept, shows the end of its trace, and how to run it again; the exit
//! code is 1 then.

use std::ops::Range;
use std::panic;
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

/// Simulates clusters under faults, each from one seed.
#[derive(Parser, Debug)]
struct Arguments {
    /// The seeds, as FROM..TO; TO is not run.
    #[arg(long, default_value = "1..101", value_parser = parse_seeds)]
    seeds: Range<u64>,
    /// Members of each cluster.
    #[arg(long, default_value_t = 1)]
    members: usize,
    /// Seeds that run at the same time, each on its own thread.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Simulated minutes with faults.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Runs this one seed and prints every line of its trace.
    #[arg(long)]
    trace: Option<u64>,
    /// Plants a defect, by its name, and stops at the first seed that finds it. "list" names them. Needs the feature
    /// `planted`.
    #[arg(long)]
    planted: Option<String>,
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("seeds are given as FROM..TO")?;
    let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number"));
    let seeds = number(from)?..number(to)?;
    if seeds.is_empty() {
        return Err("no seed lies in that range".to_owned());
    }
    Ok(seeds)
}

/// The defect of that name, or why there is none.
fn planted(name: &str) -> Result<Planted, String> {
    let defect = Defect::ALL
        .iter()
        .chain(Defect::RARE)
        .copied()
        .find(|defect| format!("{defect:?}") == name);
    match defect {
        Some(defect) => plant(defect),
        None => Err(format!("no defect {name:?}; there are {:?}", Defect::ALL)),
    }
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
    fn options(&self, seed: u64, keep: Keep) -> Result<Options, String> {
        let planted = self.planted.as_deref().map(planted).transpose()?;
        Ok(Options {
            members: self.members,
            faults_for: Duration::from_mins(self.minutes),
            planted: planted.unwrap_or_default(),
            keep,
            ..Options::of_seed(seed)
        })
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
    let kept = if arguments.trace.is_some() {
        Keep::All
    } else {
        Keep::Tail
    };
    let options = |seed| arguments.options(seed, kept);
    // One for all: only the seed differs.
    if let Err(error) = options(arguments.seeds.start) {
        eprintln!("{error}");
        return ExitCode::from(2);
    }
    if arguments.planted.is_some() {
        // The product's assertions are expected to fail, again and again.
        panic::set_hook(Box::new(|_| {}));
    }
    let begun = (wall_clock(), processor_time());
    let findings = match arguments.trace {
        Some(seed) => {
            let report = run(options(seed).expect("checked above"));
            for line in &report.trace {
                println!("{line}");
            }
            let mut findings = Findings::default();
            findings.add(report);
            findings
        }
        None => sweep(&arguments, &|seed| options(seed).expect("checked above")),
    };
    let took = wall_clock().duration_since(begun.0);
    let processor = processor_time().saturating_sub(begun.1);
    findings.print(took, processor, &arguments);
    if findings.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
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

/// Runs all seeds, or up to the first that finds a planted defect.
fn sweep(arguments: &Arguments, options: &(dyn Fn(u64) -> Options + Sync)) -> Findings {
    let next = AtomicU64::new(arguments.seeds.start);
    let findings = Mutex::new(Findings::default());
    let stop_at_first = arguments.planted.is_some();
    thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= arguments.seeds.end {
                        return;
                    }
                    let report = run(options(seed));
                    let failed = report.violation.is_some();
                    let mut findings = findings.lock().unwrap_or_else(PoisonError::into_inner);
                    findings.add(report);
                    if failed && stop_at_first {
                        next.store(arguments.seeds.end, Ordering::Relaxed);
                    }
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

    fn print(&self, took: Duration, processor: Duration, arguments: &Arguments) {
        for report in &self.failed {
            let Some(violation) = &report.violation else {
                continue;
            };
            println!("seed {} failed. {violation}", report.seed);
            if arguments.trace.is_none() && arguments.planted.is_none() {
                for line in report.trace.iter().rev().take(60).rev() {
                    println!("  {line}");
                }
            }
            println!(
                "again: cargo run --profile sim -p simrun -- --members {} --minutes {} --trace {}",
                arguments.members, arguments.minutes, report.seed
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
             {} torn tails, {} times damage found, {} rebuilt",
            statistics.crashes,
            statistics.starts,
            statistics.leader_changes,
            statistics.truncations,
            statistics.checkpoints,
            statistics.checkpoint_installs,
            statistics.transfers_abandoned,
            statistics.torn_tails,
            statistics.damage_found,
            statistics.rebuilt,
        );
        println!(
            "group: {} membership changes, {} removed members ended, {} leadership transfers, {} foreign \
             directories refused",
            statistics.membership_changes,
            statistics.removals,
            statistics.transfers,
            statistics.foreign_directories,
        );
        println!("faults: {:?}", statistics.faults);
    }
}
