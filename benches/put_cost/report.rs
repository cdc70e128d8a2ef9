//! The results of the bench: every run as a row, the median of the ratios of each pair, the machine.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{Arguments, Point};

/// The CPUs that are measured: the server's and the generator's.
const MEASURED_CPUS: f64 = 2.0;

/// One server under one load.
pub(crate) struct Run {
    pub(crate) program: &'static str,
    pub(crate) point: Point,
    /// Which pair it belongs to, from zero.
    pub(crate) pair: usize,
    /// Acknowledged in the measured time.
    pub(crate) puts: u64,
    /// The measured time.
    pub(crate) wall: Duration,
    pub(crate) server_user: Duration,
    pub(crate) server_system: Duration,
    /// The part of the server's CPU time in living `iou-wrk-*` threads.
    pub(crate) io_workers: Duration,
    pub(crate) generator_cpu: Duration,
    /// Busy time of the machine that is neither the server's nor the generator's.
    pub(crate) other_cpu: Duration,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) max_us: u64,
}

impl Run {
    /// CPU of the server per acknowledged put, in microseconds.
    fn cost_us(&self) -> f64 {
        self.per_put(self.server_user + self.server_system)
    }

    fn per_put(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e6 / self.puts as f64
    }

    fn rate(&self) -> f64 {
        self.puts as f64 / self.wall.as_secs_f64()
    }

    fn other_cpu_percent(&self) -> f64 {
        self.other_cpu.as_secs_f64() / self.wall.as_secs_f64() / MEASURED_CPUS * 100.0
    }
}

/// Collects runs and writes them down as they come.
pub(crate) struct Report {
    out: PathBuf,
    raw: File,
    runs: Vec<Run>,
}

impl Report {
    pub(crate) fn new(out: &Path) -> io::Result<Report> {
        let mut raw = File::create(out.join("raw.csv"))?;
        writeln!(
            raw,
            "program,point,pair,puts,seconds,puts_per_second,server_us_per_put,server_user_us_per_put,\
             server_system_us_per_put,io_worker_us_per_put,generator_us_per_put,other_cpu_percent,\
             p50_us,p99_us,max_us"
        )?;
        Ok(Report {
            out: out.to_owned(),
            raw,
            runs: Vec::new(),
        })
    }

    /// Writes what a reader needs to judge the figures.
    pub(crate) fn describe_machine(&self, arguments: &Arguments) -> io::Result<()> {
        let mut text = String::new();
        let mut add = |name: &str, value: &str| writeln!(text, "{name}: {}", value.trim());
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpu_info = read("/proc/cpuinfo");
        let model = cpu_info
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .unwrap_or("unknown");
        let memory = read("/proc/meminfo");
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        let written = [
            add("kernel", &read("/proc/version")),
            add("cpu", model.trim_start_matches(['\t', ' ', ':'])),
            add("processors this thread may use", &processors.to_string()),
            add("memory", memory.lines().next().unwrap_or_default()),
            add(
                "disk",
                &said(
                    "df",
                    &["-T", "--output=source,fstype", path(&arguments.out)],
                ),
            ),
            add("kontiki", &said(path(&arguments.kontiki), &["--version"])),
            add(
                "etcd",
                &arguments
                    .etcd
                    .as_deref()
                    .map_or_else(String::new, |etcd| said(path(etcd), &["--version"])),
            ),
            add("commit", &said("git", &["rev-parse", "HEAD"])),
            add("date", &said("date", &["-u", "+%Y-%m-%d %H:%M"])),
            add("load average at start", &read("/proc/loadavg")),
            add(
                "settings",
                &format!(
                    "{} pairs of {} s after {} s, values of {} B, {} keys, server on CPU {}, generator on CPU {}, \
                     flags of kontiki `--cores=1 {}`",
                    arguments.pairs,
                    arguments.seconds,
                    arguments.warm_up,
                    arguments.value_bytes,
                    arguments.keys,
                    arguments.server_cpu,
                    arguments.generator_cpu,
                    arguments.kontiki_flags,
                ),
            ),
        ];
        for result in written {
            result.map_err(io::Error::other)?;
        }
        fs::write(self.out.join("machine.txt"), text)
    }

    pub(crate) fn add(&mut self, run: Run) -> io::Result<()> {
        writeln!(
            self.raw,
            "{},{},{},{},{:.3},{:.0},{:.2},{:.2},{:.2},{:.2},{:.2},{:.1},{},{},{}",
            run.program,
            run.point,
            run.pair,
            run.puts,
            run.wall.as_secs_f64(),
            run.rate(),
            run.cost_us(),
            run.per_put(run.server_user),
            run.per_put(run.server_system),
            run.per_put(run.io_workers),
            run.per_put(run.generator_cpu),
            run.other_cpu_percent(),
            run.p50_us,
            run.p99_us,
            run.max_us,
        )?;
        println!(
            "{} {:>7} pair {}: {:.0} puts/s, {:.2} us of server CPU per put, p50 {} us, p99 {} us, \
             generator {:.2} us, others {:.1} %",
            run.point,
            run.program,
            run.pair,
            run.rate(),
            run.cost_us(),
            run.p50_us,
            run.p99_us,
            run.per_put(run.generator_cpu),
            run.other_cpu_percent(),
        );
        self.runs.push(run);
        Ok(())
    }

    /// Writes and prints the summary.
    pub(crate) fn finish(self, other_cpu_percent_max: f64) -> io::Result<()> {
        let mut points: Vec<Point> = self.runs.iter().map(|run| run.point).collect();
        points.dedup();
        let mut text = String::new();
        for point in points {
            self.summarise(point, other_cpu_percent_max, &mut text)
                .map_err(io::Error::other)?;
        }
        print!("{text}");
        fs::write(self.out.join("summary.txt"), text)
    }

    fn summarise(
        &self,
        point: Point,
        other_cpu_percent_max: f64,
        text: &mut String,
    ) -> std::fmt::Result {
        writeln!(text, "{point} (connections x in flight)")?;
        for program in ["kontiki", "etcd"] {
            let of = |figure: fn(&Run) -> f64| {
                let runs = self.runs.iter().filter(|run| run.point == point);
                Spread::of(runs.filter(|run| run.program == program).map(figure))
            };
            let Some(cost) = of(Run::cost_us) else {
                continue;
            };
            let figures: [(&str, Option<Spread>); 6] = [
                ("server CPU us/put", Some(cost)),
                ("puts/s", of(Run::rate)),
                ("p50 us", of(|run| run.p50_us as f64)),
                ("p99 us", of(|run| run.p99_us as f64)),
                ("io workers us/put", of(|run| run.per_put(run.io_workers))),
                ("generator us/put", of(|run| run.per_put(run.generator_cpu))),
            ];
            for (name, spread) in figures {
                if let Some(spread) = spread {
                    writeln!(text, "  {program:>7} {name:<18} {spread}")?;
                }
            }
        }
        let disturbed =
            |run: &&Run| run.point == point && run.other_cpu_percent() > other_cpu_percent_max;
        let pairs: Vec<(&Run, &Run)> = self
            .runs
            .iter()
            .filter(|run| run.point == point && run.program == "kontiki")
            .filter_map(|ours| {
                let same = |run: &&Run| run.point == point && run.pair == ours.pair;
                let other = self
                    .runs
                    .iter()
                    .filter(same)
                    .find(|run| run.program == "etcd");
                Some((ours, other?))
            })
            .collect();
        let ratio = |figure: fn(&Run) -> f64| {
            Spread::of(pairs.iter().map(|(ours, etcd)| figure(ours) / figure(etcd)))
        };
        let ratios: [(&str, Option<Spread>); 3] = [
            ("server CPU per put", ratio(Run::cost_us)),
            ("puts/s", ratio(Run::rate)),
            ("p99", ratio(|run| run.p99_us as f64)),
        ];
        for (name, spread) in ratios {
            if let Some(spread) = spread {
                writeln!(text, "  kontiki / etcd, per pair: {name:<18} {spread}")?;
            }
        }
        let count = self.runs.iter().filter(disturbed).count();
        writeln!(
            text,
            "  runs in which others used more than {other_cpu_percent_max} % of both CPUs: {count}"
        )
    }
}

/// Median and extremes.
struct Spread {
    median: f64,
    min: f64,
    max: f64,
    count: usize,
}

impl Spread {
    fn of(figures: impl Iterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = figures.collect();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        Some(Spread {
            median: if sorted.len() % 2 == 1 {
                sorted[middle]
            } else {
                f64::midpoint(*sorted.get(middle.checked_sub(1)?)?, sorted[middle])
            },
            min: *sorted.first()?,
            max: *sorted.last()?,
            count: sorted.len(),
        })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Spread {
            median,
            min,
            max,
            count,
        } = self;
        write!(f, "median {median:.2} ({min:.2} to {max:.2}, {count} runs)")
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

/// What a program prints, on one line; empty when it cannot be run.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default()
        .lines()
        .collect::<Vec<_>>()
        .join("; ")
}
