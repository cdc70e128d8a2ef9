//! What all subcommands that put load on servers have in common: flags, the run itself, and what comes of it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::Failure;
use super::report::Outputs;
use crate::run::{self, RecordClock, RecordSpec, RunSpec, Verdict};
use crate::shape::{RATE_MAX, RampSpec, Shape};
use crate::wire::{Endpoint, TlsOptions};
use crate::workload::{KeyOrder, KeySpec, Kind, ValueSpec, WorkloadSpec};

/// Connections when nothing else is said.
const CONNECTIONS: usize = 10;
/// Operations in flight at most in an open loop, when nothing else is said.
const OPEN_IN_FLIGHT_MAX: usize = 10_000;
/// The measured part when nothing else is said.
const DURATION: Duration = Duration::from_secs(10);
/// How long a run with a number of operations may take.
const TOTAL_DURATION_MAX: Duration = Duration::from_secs(3600);
/// Bytes of a value at most.
const VALUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Flags of every load.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct LoadArguments {
    #[command(flatten)]
    servers: Servers,
    #[command(flatten)]
    shape: ShapeArguments,
    #[command(flatten)]
    time: Time,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    outputs: Outputs,
    /// A name for this run in tables and legends.
    #[arg(long, default_value = "", help_heading = "Results")]
    label: String,
    /// Process ids of the servers on this machine: their CPU and memory is shown.
    #[arg(
        long = "server-pid",
        value_name = "PID",
        value_delimiter = ',',
        help_heading = "Results"
    )]
    server_pids: Vec<u32>,
    /// Writes down every operation with its times, for `kontiki-load check`.
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    record: Option<PathBuf>,
    /// Nobody else writes while --record goes on, so that every revision must be in the record.
    #[arg(long, requires = "record", help_heading = "Results")]
    exclusive: bool,
    /// No line of progress each second.
    #[arg(long, help_heading = "Results")]
    quiet: bool,
    /// Ends with exit code 0 also when operations failed; a run that ended early is 1 all the same.
    #[arg(long, help_heading = "Results")]
    allow_errors: bool,
}

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Servers")]
struct Servers {
    /// Where the servers are: http://host:port, https://host:port or host:port.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:2379")]
    endpoints: Vec<Endpoint>,
    /// Which of them get load.
    #[arg(long, value_enum, default_value = "all")]
    target: TargetArgument,
    /// Roots that may have signed the servers' certificates; the system's when absent.
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// Certificate of this client.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Takes any certificate.
    #[arg(long)]
    insecure_skip_tls_verify: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum TargetArgument {
    /// All endpoints, in turn.
    All,
    /// The one that leads.
    Leader,
}

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Shape of the load")]
struct ShapeArguments {
    /// Operations in flight; with --rate, how many there may be [default: 64; with --rate 10000].
    #[arg(long, value_name = "COUNT", conflicts_with = "clients")]
    in_flight: Option<usize>,
    /// Connections that share them [default: 10, or fewer if fewer are in flight].
    #[arg(long, value_name = "COUNT", conflicts_with = "clients")]
    connections: Option<usize>,
    /// So many clients with a connection each and one operation in flight.
    #[arg(long, value_name = "COUNT")]
    clients: Option<usize>,
    /// Operations per second, sent whether the servers keep up or not; latency counts from the intended time.
    #[arg(long)]
    rate: Option<f64>,
    /// Random intervals as of many independent users, instead of equal ones.
    #[arg(long, requires = "rate")]
    poisson: bool,
    /// Looks for the highest rate at which p99 stays below --p99-max, beginning at --rate. Each step is a run of its
    /// own, and a record is one run's.
    #[arg(long, requires = "rate", conflicts_with = "record")]
    ramp: bool,
    /// Bound of the 99th percentile for --ramp.
    #[arg(long, value_parser = duration, default_value = "10ms")]
    p99_max: Duration,
    /// Factor from one rate of a ramp to the next.
    #[arg(long, default_value_t = 1.5)]
    growth: f64,
    /// The ramp ends when the knee is known to this part of the rate.
    #[arg(long, default_value_t = 0.05)]
    precision: f64,
    /// Threads of the generator; one is enough unless it uses a whole core.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Binds the generator to one CPU.
    #[arg(long)]
    cpu: Option<usize>,
}

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Time")]
struct Time {
    /// The measured part; of each step in a ramp [default: 10s; with --total at most 1h].
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,
    /// Load before it that is not measured.
    #[arg(long, value_parser = duration, default_value = "2s")]
    warm_up: Duration,
    /// Ends after so many operations; sets --warm-up to zero.
    #[arg(long, value_name = "OPERATIONS")]
    total: Option<u64>,
    /// Patience with one operation from its sending; with --rate also with its waiting to be sent.
    #[arg(long, value_parser = duration, default_value = "5s")]
    timeout: Duration,
    /// Tells the servers of --timeout in each request, as a client with a deadline does.
    #[arg(long)]
    send_timeout: bool,
    /// Patience with an endpoint at the beginning.
    #[arg(long, value_parser = duration, default_value = "5s")]
    connect_timeout: Duration,
    /// Patience with servers that are gone in the middle of a run.
    #[arg(long, value_parser = duration, default_value = "3s")]
    patience: Duration,
}

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Keys and values")]
struct Keys {
    /// Different keys.
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Bytes of a key, or what its number needs.
    #[arg(long, default_value_t = 24)]
    key_size: usize,
    /// What every key begins with.
    #[arg(long, default_value = "kontiki-load/")]
    prefix: String,
    /// Which key comes next: sequential, uniform, zipfian, or zipfian:EXPONENT.
    #[arg(long, value_parser = key_order, default_value = "uniform")]
    order: KeyOrder,
    /// Bytes of a value: a number, or the smallest and the largest as 100-2000.
    #[arg(long, value_parser = value_size, default_value = "256")]
    value_size: ValueSpec,
    /// Puts every key once before the load; the default for what reads.
    #[arg(long, conflicts_with = "no_fill")]
    fill: bool,
    /// Does not, and takes the keys as they are.
    #[arg(long)]
    no_fill: bool,
    /// Where the random choices begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl LoadArguments {
    /// A workload of `mix`, with the other settings as given or as usual.
    pub(super) fn workload(&self, mix: Vec<(Kind, u32)>) -> WorkloadSpec {
        let reads = mix
            .iter()
            .any(|(kind, _)| matches!(kind, Kind::Get | Kind::Range));
        let keys = KeySpec {
            count: self.keys.keys,
            size_bytes: self.keys.key_size,
            prefix: self.keys.prefix.clone(),
            order: self.keys.order,
        };
        WorkloadSpec {
            fill: self.keys.fill || (reads && !self.keys.no_fill),
            ..WorkloadSpec::new(mix, keys, self.keys.value_size, self.keys.seed)
        }
    }

    /// Whether the load is an open loop.
    pub(super) fn has_rate(&self) -> bool {
        self.shape.rate.is_some()
    }

    /// The warm-up and the measured part together; none when operations end it, and no time.
    pub(super) fn span(&self) -> Option<Duration> {
        match self.time.total {
            Some(_) => None,
            None => Some(self.time.warm_up + self.time.duration.unwrap_or(DURATION)),
        }
    }

    /// Threads of the generator.
    pub(super) fn threads(&self) -> usize {
        self.shape.threads
    }

    /// Runs the workload, shows what came of it, and says it in the exit code.
    pub(super) fn run(&self, workload: WorkloadSpec) -> Result<ExitCode, Failure> {
        let spec = self.spec(workload)?;
        if let Some(cpu) = self.shape.cpu {
            kontiki_harness::cpu::bind_to_cpu(cpu)
                .map_err(|error| format!("--cpu {cpu}: {error}"))?;
        }
        let stop = stop_at_signals()?;
        let result = match self.shape.ramp {
            false => run::run(&spec, &stop)?,
            true => run::ramp(&spec, self.ramp()?, &stop)?,
        };
        let verdict = run::verdict(&result);
        let partial = result.partial.clone();
        let errors = result.errors();
        self.outputs.deliver(vec![result])?;
        if let Some(why) = partial {
            return Err(format!("partial result: {why}").into());
        }
        if verdict == Verdict::Marred && !self.allow_errors {
            return Err(format!("{errors} operations failed").into());
        }
        Ok(ExitCode::SUCCESS)
    }

    fn spec(&self, workload: WorkloadSpec) -> Result<RunSpec, Failure> {
        let shape = &self.shape;
        if workload.keys.count == 0 {
            return Err("--keys must be at least 1".into());
        }
        if self.keys.prefix.is_empty() {
            return Err("--prefix must not be empty: the keys of a run are its own".into());
        }
        let in_flight = shape
            .clients
            .or(shape.in_flight)
            .unwrap_or(match shape.rate {
                None => 64,
                Some(_) => OPEN_IN_FLIGHT_MAX,
            });
        let connections = shape
            .clients
            .or(shape.connections)
            .unwrap_or(CONNECTIONS.min(in_flight));
        for (flag, value) in [
            ("--in-flight", in_flight),
            ("--connections", connections),
            ("--threads", shape.threads),
        ] {
            if value == 0 {
                return Err(format!("{flag} must be at least 1").into());
            }
        }
        if shape.rate.is_none() && connections > in_flight {
            return Err(format!(
                "{connections} connections for {in_flight} in flight: some would be idle"
            )
            .into());
        }
        Ok(RunSpec {
            label: match self.label.as_str() {
                "" => workload
                    .mix
                    .iter()
                    .map(|(kind, _)| kind.name())
                    .collect::<Vec<_>>()
                    .join("+"),
                label => label.to_owned(),
            },
            command: std::env::args().collect(),
            endpoints: self.servers.endpoints.clone(),
            tls: TlsOptions {
                cacert: self.servers.cacert.clone(),
                cert: self.servers.cert.clone(),
                key: self.servers.key.clone(),
                insecure_skip_tls_verify: self.servers.insecure_skip_tls_verify,
            },
            leader_only: self.servers.target == TargetArgument::Leader,
            workload,
            shape: match shape.rate {
                None => Shape::Closed { in_flight },
                Some(rate) if rate > 0.0 && rate <= RATE_MAX => Shape::Open {
                    rate,
                    poisson: shape.poisson,
                    in_flight_max: in_flight,
                },
                Some(_) => {
                    return Err(
                        format!("--rate must be above zero, and at most {RATE_MAX:.0}").into(),
                    );
                }
            },
            connections,
            threads: shape.threads,
            warm_up: if self.time.total.is_some() {
                Duration::ZERO
            } else {
                self.time.warm_up
            },
            duration: match (self.time.duration, self.time.total) {
                (Some(duration), _) => duration,
                (None, Some(_)) => TOTAL_DURATION_MAX,
                (None, None) => DURATION,
            },
            operations_max: self.time.total,
            timeout: self.time.timeout,
            send_timeout: self.time.send_timeout,
            connect_timeout: self.time.connect_timeout,
            patience: self.time.patience,
            server_pids: self.server_pids.clone(),
            pulse: None,
            record: self.record.clone().map(|path| RecordSpec {
                path,
                exclusive: self.exclusive,
                clock: RecordClock::start(),
            }),
            progress: !self.quiet,
        })
    }

    fn ramp(&self) -> Result<RampSpec, Failure> {
        let shape = &self.shape;
        if shape.growth <= 1.0 || shape.precision <= 0.0 {
            return Err("--growth must be above 1, --precision above 0".into());
        }
        Ok(RampSpec {
            start_rate: shape.rate.ok_or("--ramp begins at --rate")?,
            growth: shape.growth,
            precision: shape.precision,
            p99_max: shape.p99_max,
        })
    }
}

/// What becomes true when somebody wants the end, or closes the terminal; the second signal ends the process at once.
pub(super) fn stop_at_signals() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    // `nohup` wants it to go on without a terminal.
    let hangup = (!ignores_hangups()).then_some(SIGHUP);
    for signal in [SIGINT, SIGTERM].into_iter().chain(hangup) {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// Whether this process was started with SIGHUP ignored.
fn ignores_hangups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (SIGHUP - 1) & 1 == 1)
}

/// Reads `1.5s`, `20ms`, `250us`, `2m` or `1h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let form = || format!("{text:?} is no time: it looks like 30s, 20ms, 250us, 2m or 1h");
    let unit_at = text
        .find(|letter: char| letter.is_ascii_alphabetic())
        .ok_or_else(form)?;
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(form()),
    };
    let number: f64 = number.parse().map_err(|_| form())?;
    // A year is longer than any run, and far from what a clock cannot hold.
    let within = |seconds: &f64| (0.0..=365.0 * 86_400.0).contains(seconds);
    let seconds = Some(number * seconds).filter(within).ok_or_else(form)?;
    Ok(Duration::from_secs_f64(seconds))
}

fn key_order(text: &str) -> Result<KeyOrder, String> {
    let exponent = match text {
        "sequential" => return Ok(KeyOrder::Sequential),
        "uniform" => return Ok(KeyOrder::Uniform),
        "zipfian" => "0.99",
        other => other
            .strip_prefix("zipfian:")
            .ok_or("sequential, uniform, zipfian or zipfian:EXPONENT")?,
    };
    match exponent.parse() {
        Ok(exponent) if exponent > 0.0 && exponent <= 10.0 => Ok(KeyOrder::Zipfian { exponent }),
        _ => Err(format!("{exponent} is no exponent above 0")),
    }
}

fn value_size(text: &str) -> Result<ValueSpec, String> {
    let (size_min, size_max) = text.split_once('-').unwrap_or((text, text));
    let parse = |size: &str| {
        size.parse::<usize>()
            .ok()
            .filter(|size| *size <= VALUE_BYTES_MAX)
    };
    match (parse(size_min), parse(size_max)) {
        (Some(size_min), Some(size_max)) if size_min <= size_max => {
            Ok(ValueSpec { size_min, size_max })
        }
        _ => Err(format!(
            "{text:?} is no size: it looks like 256 or 100-2000, up to {VALUE_BYTES_MAX}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: times are read as people write them, and what is none is refused.
    #[test]
    fn durations() {
        let check = |text: &str, expected: Option<u64>| {
            let read = duration(text).ok().map(|time| time.as_micros() as u64);
            assert_eq!(read, expected, "{text}");
        };
        check("250us", Some(250));
        check("1.5s", Some(1_500_000));
        check("2m", Some(120_000_000));
        check("1h", Some(3_600_000_000));
        for wrong in ["", "5", "s", "-1s", "nans", "5d", "1e9h"] {
            check(wrong, None);
        }
    }

    /// Goal: no step of a ramp overwrites what the one before has recorded.
    #[test]
    fn no_record_of_a_ramp() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            _load: LoadArguments,
        }
        let taken = |line: &str| {
            let words = ["put"].into_iter().chain(line.split_whitespace());
            <Line as clap::Parser>::try_parse_from(words).is_ok()
        };
        assert!(taken("--rate 10 --ramp") && taken("--rate 10 --record file"));
        assert!(!taken("--rate 10 --ramp --record file"));
    }

    /// Goal: sizes and orders as the help says, nothing else.
    #[test]
    fn sizes_and_orders() {
        let size = |text: &str| {
            value_size(text)
                .ok()
                .map(|spec| (spec.size_min, spec.size_max))
        };
        assert_eq!(size("256"), Some((256, 256)));
        assert_eq!(size("1-20"), Some((1, 20)));
        assert_eq!(
            (size("20-1"), size("x"), size("999999999")),
            (None, None, None)
        );
        assert_eq!(
            key_order("zipfian:1.2"),
            Ok(KeyOrder::Zipfian { exponent: 1.2 })
        );
        assert!(key_order("zipfian:0").is_err() && key_order("random").is_err());
    }
}
