//! How many seeds find each planted defect, after how long, and by which promise.
//!
//! Every defect is run over the seeds in their order until enough have found it. The result does not depend on the
//! number of threads.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{fs, io, thread};

use kontiki::base::planted::Defect;
use kontiki::sim::checker::Promise;
use kontiki::sim::{Options, run};

/// What is asked.
pub(crate) struct Survey<'a> {
    /// Which defects.
    pub(crate) defects: Vec<Defect>,
    /// Which seeds, at most.
    pub(crate) seeds: Range<u64>,
    /// A defect is found when so many seeds have found it.
    pub(crate) found_by: usize,
    /// Threads.
    pub(crate) jobs: usize,
    /// The run of a seed with a defect.
    pub(crate) options: &'a (dyn Fn(Defect, u64) -> Options + Sync),
    /// Whether no further seed may begin.
    pub(crate) is_over: &'a (dyn Fn() -> bool + Sync),
}

/// One seed that found a defect.
#[derive(Clone, Copy, Debug)]
struct Found {
    seed: u64,
    after: Duration,
    promise: Promise,
}

/// What became of one defect.
#[derive(Debug)]
pub(crate) struct Row {
    defect: Defect,
    members: usize,
    /// In the order of seeds, no more than were asked for.
    found: Vec<Found>,
    /// Seeds up to the last that was needed.
    tried: u64,
}

impl Survey<'_> {
    /// One row per defect, printed as soon as it is known.
    pub(crate) fn run(&self) -> Vec<Row> {
        println!("{HEAD}");
        let row = |&defect: &Defect| {
            let row = self.look_for(defect);
            println!("{}", row.line());
            row
        };
        self.defects.iter().map(row).collect()
    }

    fn look_for(&self, defect: Defect) -> Row {
        let next = AtomicU64::new(self.seeds.start);
        let enough = AtomicUsize::new(0);
        let found = Mutex::new(Vec::new());
        let work = || {
            while enough.load(Ordering::Relaxed) < self.found_by && !(self.is_over)() {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= self.seeds.end {
                    return;
                }
                let report = run((self.options)(defect, seed));
                if let Some(violation) = report.violation {
                    enough.fetch_add(1, Ordering::Relaxed);
                    let one = Found {
                        seed,
                        after: Duration::from_nanos(report.statistics.simulated_nanos),
                        promise: violation.promise,
                    };
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.push(one);
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(work);
            }
        });
        // Every seed before one that was begun has ended, so the first ones are among these.
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.sort_by_key(|found: &Found| found.seed);
        found.truncate(self.found_by);
        let begun = next.into_inner().min(self.seeds.end);
        let last = match found.last() {
            Some(last) if found.len() == self.found_by => last.seed + 1,
            _ => begun,
        };
        Row {
            defect,
            members: (self.options)(defect, self.seeds.start).members,
            found,
            tried: last - self.seeds.start,
        }
    }
}

const HEAD: &str = "| defect | members | found by seeds | of | simulated time to find | by |\n|---|---|---|---|---|---|";

impl Row {
    /// Whether so many seeds found it.
    pub(crate) fn is_found_by(&self, count: usize) -> bool {
        self.found.len() >= count
    }

    fn line(&self) -> String {
        let each = |text: &dyn Fn(&Found) -> String| {
            let texts: Vec<String> = self.found.iter().map(text).collect();
            texts.join(", ")
        };
        format!(
            "| `{:?}` | {} | {} | {} | {} | {} |",
            self.defect,
            self.members,
            each(&|found| found.seed.to_string()),
            self.tried,
            each(&|found| format!("{:.0} s", found.after.as_secs_f64().ceil())),
            each(&|found| format!("{:?}", found.promise)),
        )
    }
}

/// Writes every seed that found a defect, the soonest first, for the test that they still do.
pub(crate) fn keep(rows: &[Row], path: &Path) -> io::Result<()> {
    let mut text = String::from("defect\tmembers\tseed\tsimulated_ms\tpromise\n");
    for row in rows {
        let mut found = row.found.clone();
        found.sort_by_key(|found| found.after);
        for found in found {
            let _ = writeln!(
                text,
                "{:?}\t{}\t{}\t{}\t{:?}",
                row.defect,
                row.members,
                found.seed,
                found.after.as_millis(),
                found.promise,
            );
        }
    }
    fs::write(path, text)
}
