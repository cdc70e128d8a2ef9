//! What one put costs: CPU of the server per acknowledged put, ours beside a real etcd in the same run.
//!
//! One member each, in turn (A B A B ...), on one core; this process generates the load on another.
//! Closed loop: each of `connections x in flight` callers sends its next put when the last one is
//! answered, so that latencies are those at saturation. Server CPU is user and system time of the whole
//! process: exited threads and the kernel's io_uring workers are in it.
//!
//! ```text
//! cargo bench --bench put_cost -- --etcd target/etcd/usr/bin/etcd --out DIRECTORY
//! cargo bench --bench put_cost -- --test        one pair of one second, small
//! ```

#![allow(
    missing_docs,
    clippy::disallowed_methods,
    reason = "a bench measures real time and has no public items"
)]

mod report;

use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use hdrhistogram::Histogram;
use kontiki_harness::client::{Client, block_on, framed};
use kontiki_harness::cpu::{self, CpuTime};
use kontiki_harness::messages::{PUT, PutRequest};
use kontiki_harness::server::{Server, ServerOptions};
use tokio::task::JoinSet;

use report::{Report, Run};

/// Latencies above this are recorded as this.
const LATENCY_US_MAX: u64 = 60_000_000;

/// Command line of the bench.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// The binary of ours.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_kontiki"))]
    kontiki: PathBuf,
    /// The binary of etcd, also by ETCD_BIN; without one only ours is measured.
    #[arg(long)]
    etcd: Option<PathBuf>,
    /// Load points, as connections x calls in flight on each.
    #[arg(long, default_value = "64x16", value_delimiter = ',')]
    points: Vec<Point>,
    /// Pairs of runs per point.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Measured seconds of each run.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds before them.
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Different keys, of eight bytes.
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// The CPU of the server.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// The CPU of the generator.
    #[arg(long, default_value_t = 1)]
    generator_cpu: usize,
    /// A run is disturbed when others use more of the two CPUs than this.
    #[arg(long, default_value_t = 10.0)]
    other_cpu_percent_max: f64,
    /// Where the servers keep their data: on the disk that is to be measured.
    #[arg(long, default_value = concat!(env!("CARGO_TARGET_TMPDIR"), "/put_cost"))]
    data_dir: PathBuf,
    /// Where raw.csv, summary.txt and machine.txt go.
    #[arg(long, default_value = concat!(env!("CARGO_TARGET_TMPDIR"), "/put_cost_results"))]
    out: PathBuf,
    /// Further flags for ours, separated by blanks.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    kontiki_flags: String,
    /// One pair of one second: only that it works.
    #[arg(long)]
    test: bool,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A fixed load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    connections: usize,
    in_flight: usize,
}

impl std::str::FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Point, String> {
        let parse = |number: &str| number.parse().ok().filter(|number| *number > 0);
        let (connections, in_flight) = text
            .split_once('x')
            .and_then(|(connections, in_flight)| Some((parse(connections)?, parse(in_flight)?)))
            .ok_or("a load point looks like 64x16")?;
        Ok(Point {
            connections,
            in_flight,
        })
    }
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.connections, self.in_flight)
    }
}

fn main() -> io::Result<()> {
    let mut arguments = Arguments::parse();
    let etcd = std::env::var_os("ETCD_BIN").map(PathBuf::from);
    arguments.etcd = arguments.etcd.or(etcd);
    if arguments.test {
        arguments.pairs = 1;
        arguments.seconds = 1.0;
        arguments.warm_up = 0.2;
        arguments.points = vec![Point {
            connections: 4,
            in_flight: 4,
        }];
    }
    cpu::bind_to_cpu(arguments.generator_cpu)?;
    fs::create_dir_all(&arguments.out)?;
    let mut report = Report::new(&arguments.out)?;
    report.describe_machine(&arguments)?;
    for point in arguments.points.clone() {
        for pair in 0..arguments.pairs {
            for (name, program) in programs(&arguments) {
                let run = measure(&arguments, name, &program, point, pair)?;
                report.add(run)?;
            }
        }
    }
    report.finish(arguments.other_cpu_percent_max)
}

fn programs(arguments: &Arguments) -> Vec<(&'static str, PathBuf)> {
    let ours = [("kontiki", arguments.kontiki.clone())];
    let other = arguments.etcd.clone().map(|program| ("etcd", program));
    ours.into_iter().chain(other).collect()
}

/// Starts one server on a fresh directory, loads it, and takes the readings around the measured part.
fn measure(
    arguments: &Arguments,
    name: &'static str,
    program: &Path,
    point: Point,
    pair: usize,
) -> io::Result<Run> {
    let home = arguments.data_dir.join(name);
    if home.exists() {
        fs::remove_dir_all(&home)?;
    }
    fs::create_dir_all(&home)?;
    let mut options = ServerOptions::new(program, &home)?;
    options.cpu = Some(arguments.server_cpu);
    if name == "kontiki" {
        options.extra = vec!["--cores=1".to_owned()];
        let flags = arguments.kontiki_flags.split_whitespace();
        options.extra.extend(flags.map(str::to_owned));
    }
    let server = Server::start(&options)?;
    let load = Rc::new(Load {
        stop: Cell::new(false),
        puts: Cell::new(0),
        latencies_us: RefCell::new(
            Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("sound bounds"),
        ),
        random: RefCell::new(fastrand::Rng::with_seed(pair as u64)),
        value: vec![b'v'; arguments.value_bytes].into(),
        keys: arguments.keys,
    });
    let run = block_on(async {
        let mut callers = JoinSet::new();
        for _ in 0..point.connections {
            let client = Client::connect(options.client_address()).await?;
            for _ in 0..point.in_flight {
                callers.spawn_local(Rc::clone(&load).call_until_stopped(client.clone()));
            }
        }
        tokio::time::sleep(Duration::from_secs_f64(arguments.warm_up)).await;
        load.latencies_us.borrow_mut().reset();
        let before = Readings::take(&server, &load)?;
        tokio::time::sleep(Duration::from_secs_f64(arguments.seconds)).await;
        let after = Readings::take(&server, &load)?;
        load.stop.set(true);
        while let Some(ended) = callers.join_next().await {
            ended.expect("callers do not panic");
        }
        let latencies = load.latencies_us.borrow();
        let busy = |from: CpuTime, to: CpuTime| to.total().saturating_sub(from.total());
        let server_cpu = busy(before.server, after.server);
        let generator_cpu = busy(before.generator, after.generator);
        io::Result::Ok(Run {
            program: name,
            point,
            pair,
            puts: after.puts - before.puts,
            wall: after.at - before.at,
            server_user: after.server.user.saturating_sub(before.server.user),
            server_system: after.server.system.saturating_sub(before.server.system),
            io_workers: busy(before.io_workers, after.io_workers),
            generator_cpu,
            other_cpu: (after.machine - before.machine)
                .saturating_sub(server_cpu)
                .saturating_sub(generator_cpu),
            p50_us: latencies.value_at_quantile(0.5),
            p99_us: latencies.value_at_quantile(0.99),
            max_us: latencies.max(),
        })
    })?;
    server.kill()?;
    fs::remove_dir_all(&home)?;
    Ok(run)
}

/// All counters at one moment.
struct Readings {
    at: Instant,
    puts: u64,
    server: CpuTime,
    io_workers: CpuTime,
    generator: CpuTime,
    machine: Duration,
}

impl Readings {
    fn take(server: &Server, load: &Load) -> io::Result<Readings> {
        Ok(Readings {
            at: Instant::now(),
            puts: load.puts.get(),
            server: CpuTime::of_process(server.pid())?,
            io_workers: CpuTime::of_io_workers(server.pid())?,
            generator: CpuTime::of_process(std::process::id())?,
            machine: cpu::machine_busy()?,
        })
    }
}

/// What all callers share.
struct Load {
    stop: Cell<bool>,
    puts: Cell<u64>,
    latencies_us: RefCell<Histogram<u64>>,
    random: RefCell<fastrand::Rng>,
    value: Bytes,
    keys: u64,
}

impl Load {
    async fn call_until_stopped(self: Rc<Load>, client: Client) {
        let head = client.prepare(PUT);
        while !self.stop.get() {
            let key = self.random.borrow_mut().u64(0..self.keys);
            let request = PutRequest {
                key: Bytes::copy_from_slice(&key.to_be_bytes()),
                value: self.value.clone(),
            };
            let start = Instant::now();
            let answer = client.send(head.clone(), framed(&request)).await;
            // Every put must succeed, else the cost per put is that of something else.
            answer.unwrap_or_else(|error| panic!("a put was {error}"));
            let took_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(LATENCY_US_MAX);
            self.latencies_us.borrow_mut().saturating_record(took_us);
            self.puts.set(self.puts.get() + 1);
        }
    }
}
