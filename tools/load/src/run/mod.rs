//! One run from start to result: threads that load, and the main thread that collects, watches and prints.

mod desk;
mod echo;
mod edges;
mod lane;
mod link;
mod pulse;
mod record;
mod target;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;

use crate::history::RecordWriter;
use crate::measure::{Collector, Watched, own_cpu, used};
use crate::result::{Latency, Machine, OpResult, RampStep, RunResult, Workload};
use crate::shape::{Ramp, RampSpec, Shape};
use crate::wire::{CallOptions, Endpoint, EndpointError, TlsError, TlsOptions, client_config};
use crate::workload::{Kind, WorkloadSpec};

use desk::{SECOND_NS, Window};
use echo::Echo;
use edges::Edges;
use lane::{Ending, Lane, LanePlan, Note, share};
use link::Place;
use record::Scribe;

pub(crate) use desk::WRONG_ANSWER;
pub(crate) use pulse::whole_ns;
pub use pulse::{Gap, Pulse};
pub use record::{RecordClock, RecordSpec};

/// Hand-overs of all threads that may wait for the main thread.
const NOTES_MAX: usize = 64;
/// The parameter of a result that says how many operations succeeded in all.
pub(crate) const SUCCEEDED_ALL: &str = "succeeded with fill and warm-up";
/// From the moment all threads are ready to the first operation.
const START_DELAY: Duration = Duration::from_millis(5);
/// Between two looks for the edges of the measured part of an open loop.
const EDGE_LOOK_NS: u64 = 2_000_000;
/// A run without any success for longer than this at its end is partial.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// Everything that decides about a run.
#[derive(Clone, Debug)]
pub struct RunSpec {
    /// For columns and legends.
    pub label: String,
    /// The command line, for the result.
    pub command: Vec<String>,
    /// Where the servers are.
    pub endpoints: Vec<Endpoint>,
    /// How to trust them.
    pub tls: TlsOptions,
    /// Load goes to the leader alone.
    pub leader_only: bool,
    /// What to do.
    pub workload: WorkloadSpec,
    /// When to do it.
    pub shape: Shape,
    /// Connections, over all threads and endpoints.
    pub connections: usize,
    /// Threads that load.
    pub threads: usize,
    /// Load before the measured part.
    pub warm_up: Duration,
    /// The measured part.
    pub duration: Duration,
    /// Operations in all, the warm-up's included; the run ends when they are done.
    pub operations_max: Option<u64>,
    /// Patience with one operation.
    pub timeout: Duration,
    /// The servers are told of that patience in each request.
    pub send_timeout: bool,
    /// Patience with an endpoint before the load starts.
    pub connect_timeout: Duration,
    /// Patience with servers that are gone while the load goes on.
    pub patience: Duration,
    /// Processes of the servers on this machine, to account for.
    pub server_pids: Vec<u32>,
    /// Where every operation is written down.
    pub record: Option<RecordSpec>,
    /// Told of every success, for other threads to see; not beside a record, which has a clock of its own.
    pub pulse: Option<Arc<Pulse>>,
    /// A line each second on stderr.
    pub progress: bool,
}

/// Why there is no result at all.
#[derive(Debug, Error)]
pub enum RunError {
    /// Nobody answers.
    #[error("no endpoint answers: {0}")]
    NoEndpoint(String),
    /// None of the endpoints leads.
    #[error("none of the endpoints is the leader")]
    NoLeader,
    /// A name is not known.
    #[error("{0}")]
    Endpoint(#[from] EndpointError),
    /// TLS cannot be set up.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// A server's process is not there, or a thread cannot be had.
    #[error("{0}")]
    System(#[from] io::Error),
    /// The load could not begin.
    #[error("{0}")]
    Preparation(String),
}

/// How loudly a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything as asked.
    Clean,
    /// Operations failed, answers were wrong, or the run ended early: said in the result.
    Marred,
}

/// The verdict over a result.
#[must_use]
pub fn verdict(result: &RunResult) -> Verdict {
    if result.partial.is_none() && result.errors() == 0 {
        Verdict::Clean
    } else {
        Verdict::Marred
    }
}

/// Runs the load. `stop` ends it early, with what was measured until then.
///
/// # Errors
/// When it could not begin. What happens later is in the result.
pub fn run(spec: &RunSpec, stop: &Arc<AtomicBool>) -> Result<RunResult, RunError> {
    run_told(spec, stop, || {})
}

/// The same. `loading` is called when every connection is up, the keys are filled and the load begins: from then on
/// servers may go and come back, within the run's patience.
///
/// # Errors
/// As for [`run`].
pub fn run_told(
    spec: &RunSpec,
    stop: &Arc<AtomicBool>,
    loading: impl FnOnce(),
) -> Result<RunResult, RunError> {
    let tls = match spec.endpoints.iter().any(|endpoint| endpoint.tls) {
        true => Some(client_config(&spec.tls)?),
        false => None,
    };
    let found = target::find(
        &spec.endpoints,
        tls.as_ref(),
        spec.leader_only,
        spec.connect_timeout,
    )?;
    for why in &found.down {
        eprintln!("kontiki-load: goes on without {why}");
    }
    let mut watched = Watched::new(&spec.server_pids)?;
    let mut places = Vec::new();
    for endpoint in &found.up {
        let timeout = spec
            .send_timeout
            .then(|| format!("{}m", spec.timeout.as_millis().max(1)));
        places.push(Place {
            endpoint: endpoint.clone(),
            address: endpoint.address()?,
            tls: tls.clone(),
            options: CallOptions {
                scheme: endpoint.scheme(),
                authority: endpoint.authority(),
                timeout,
            },
        });
    }
    let connections = spec.connections.max(1);
    let lanes = spec.threads.clamp(1, connections);
    let epoch = match (&spec.record, &spec.pulse) {
        (Some(record), _) => record.clock.zero,
        (None, Some(pulse)) => pulse.zero(),
        (None, None) => Instant::now(),
    };
    let record = match &spec.record {
        Some(record) => Some(record::start(record, spec, &found.up[0], tls.as_ref())?),
        None => None,
    };
    let crew = Crew::start(
        spec,
        &places,
        (connections, lanes),
        epoch,
        stop,
        record.as_ref(),
    )?;
    if let Some(pulse) = &spec.pulse {
        pulse.begin(whole_ns(epoch.elapsed()));
    }
    loading();
    let outcome = crew.measure(spec, epoch, stop, &mut watched);
    if let Some(record) = record {
        record.finish()?;
    }
    let Measured {
        collector,
        succeeded,
        mut partial,
        duration,
        extent,
        generator,
        started,
    } = outcome?;
    let mut notes = Vec::new();
    for why in found.down {
        partial.get_or_insert_with(|| why.clone());
        notes.push(format!("without an endpoint from the beginning: {why}"));
    }
    for pid in watched.gone() {
        partial.get_or_insert_with(|| format!("the server with process id {pid} has ended"));
    }
    let operations = collector.finish(extent);
    let wrong = operations
        .iter()
        .filter_map(|operation| operation.errors.get(WRONG_ANSWER));
    let wrong: u64 = wrong.map(|error| error.count).sum();
    if wrong > 0 {
        notes.push(format!("{wrong} answers were wrong"));
    }
    let mut workload = describe(spec, connections, lanes);
    workload
        .parameters
        .insert(SUCCEEDED_ALL.to_owned(), succeeded.to_string());
    let mut target = found.target;
    let servers = watched.costs();
    // The protocol tells a version and no name; the process has one.
    if let Some(server) = servers.first() {
        target.program.clone_from(&server.name);
    }
    Ok(RunResult {
        label: spec.label.clone(),
        command: spec.command.clone(),
        generator_version: env!("CARGO_PKG_VERSION").to_owned(),
        started,
        warmup: spec.warm_up,
        duration,
        endpoints: spec.endpoints.iter().map(Endpoint::to_string).collect(),
        target,
        machine: Machine::read(),
        workload,
        operations,
        servers,
        generator,
        steps: Vec::new(),
        pairing: None,
        optimum: None,
        notes,
        partial,
    })
}

/// Looks for the highest rate that holds. The result is that of the best step, with all steps beside it.
///
/// # Errors
/// As for [`run`].
pub fn ramp(spec: &RunSpec, ramp: RampSpec, stop: &Arc<AtomicBool>) -> Result<RunResult, RunError> {
    let mut search = Ramp::new(ramp);
    let mut steps = Vec::new();
    let mut best: Option<RunResult> = None;
    let mut last = None;
    while let Some(rate) = search.next_rate() {
        let mut step = spec.clone();
        if let Shape::Open { rate: asked, .. } = &mut step.shape {
            *asked = rate;
        }
        // The keys are there after the first step.
        step.workload.fill = spec.workload.fill && steps.is_empty();
        let result = run(&step, stop)?;
        let (count, latency) = step_figures(&result.operations);
        let p99 = Duration::from_nanos(latency.quantile_ns(0.99));
        let achieved = match result.duration.as_secs_f64() {
            seconds if seconds > 0.0 => count as f64 / seconds,
            _ => 0.0,
        };
        let in_time = achieved * tail_factor(&result, spec.duration, ramp.p99_max);
        let held = search.tried(rate, in_time, p99, result.errors());
        if spec.progress {
            let sign = if held { "holds" } else { "does not hold" };
            eprintln!("{rate:>10.0}/s offered, {achieved:>10.0}/s done, p99 {p99:>10.1?}: {sign}");
        }
        steps.push(RampStep {
            offered_per_second: rate,
            achieved_per_second: achieved,
            latency: latency.pack(),
            held,
        });
        if held && search.knee() == Some(rate) {
            best = Some(result);
        } else {
            last = Some(result);
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    let mut result = match (best, last) {
        (Some(best), _) => best,
        (None, Some(mut last)) => {
            last.notes.push("no rate held".into());
            last.partial.get_or_insert_with(|| "no rate held".into());
            last
        }
        (None, None) => return Err(RunError::Preparation("no rate was tried".into())),
    };
    if stop.load(Ordering::Relaxed) {
        result.partial.get_or_insert_with(|| "interrupted".into());
    }
    result.workload.summary = format!(
        "{}; the knee below a p99 of {:?}",
        result.workload.summary, ramp.p99_max
    );
    result.steps = steps;
    Ok(result)
}

/// What decides about a step of a ramp: how many requests succeeded, and the latency of the slowest kind. Events and
/// expiries follow from requests, a thousand from one if there are so many watchers: added up with them they would
/// make up for requests that were never answered, and hide their latency.
fn step_figures(operations: &[OpResult]) -> (u64, Latency) {
    let follows = [Kind::Event.name(), Kind::Expiry.name()];
    let requests = operations
        .iter()
        .filter(|operation| !follows.contains(&operation.name.as_str()));
    let slowest = operations
        .iter()
        .map(|operation| &operation.latency)
        .max_by_key(|latency| latency.quantile_ns(0.99));
    (
        requests.map(OpResult::count).sum(),
        slowest.cloned().unwrap_or_else(Latency::new),
    )
}

/// The measured part of an open loop ends with its last success. What rates are to be multiplied with so that a last
/// answer within `p99_max` is not taken for a server that falls behind: in a short run it is much of the time.
fn tail_factor(result: &RunResult, asked: Duration, p99_max: Duration) -> f64 {
    let tail = result.duration.saturating_sub(asked).min(p99_max);
    let rest = result.duration.saturating_sub(tail).as_secs_f64();
    if rest > 0.0 {
        result.duration.as_secs_f64() / rest
    } else {
        1.0
    }
}

/// The threads of a run.
struct Crew {
    notes: Receiver<Note>,
    edges: Arc<Edges>,
    go: Vec<SyncSender<(u64, Window)>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

struct Measured {
    collector: Collector,
    /// Operations of all time, the fill and the warm-up included.
    succeeded: u64,
    partial: Option<String>,
    /// What rates and costs are over.
    duration: Duration,
    /// What the seconds are counted over: from where the measured part was to begin.
    extent: Duration,
    generator: crate::result::CpuCost,
    started: SystemTime,
}

impl Crew {
    /// Starts the threads and waits until each is connected, has filled its keys and made its watchers.
    fn start(
        spec: &RunSpec,
        places: &[Place],
        (connections, lanes): (usize, usize),
        epoch: Instant,
        stop: &Arc<AtomicBool>,
        record: Option<&RecordWriter<File>>,
    ) -> Result<Crew, RunError> {
        let (notes_in, notes) = mpsc::sync_channel(NOTES_MAX);
        let mut crew = Crew {
            notes,
            edges: Arc::new(Edges::new()),
            go: Vec::new(),
            threads: Vec::new(),
        };
        let echo = Arc::new(Echo::new(spec.workload.watched_keys, lanes));
        let mut number = 0;
        for lane in 0..lanes {
            let own = share(connections, lane, lanes);
            let plan = LanePlan {
                lane,
                lanes,
                places: (number..number + own)
                    .map(|link| places[link % places.len()].clone())
                    .collect(),
                workload: spec.workload.clone(),
                shape: spec.shape,
                operations_max: spec.operations_max.map_or(u64::MAX, |all| {
                    let (lane, lanes) = (lane as u64, lanes as u64);
                    all / lanes + u64::from(lane < all % lanes)
                }),
                timeout: spec.timeout,
                patience: spec.patience,
                epoch,
                pulse: spec.pulse.clone(),
                edges: Arc::clone(&crew.edges),
                echo: Arc::clone(&echo),
            };
            number += own;
            let (go_in, go) = mpsc::sync_channel(1);
            crew.go.push(go_in);
            let (notes, stop, time_max) =
                (notes_in.clone(), Arc::clone(stop), spec.connect_timeout);
            let first_client = (number - own) as u32;
            let scribe = record.map(|record| Scribe::new(record.recorder(), first_client));
            let body = move || work(plan, scribe, time_max, &go, &stop, &notes);
            crew.threads.push(
                std::thread::Builder::new()
                    .name(format!("lane-{lane}"))
                    .spawn(body)?,
            );
        }
        let mut ready = 0;
        while ready < lanes {
            match crew.notes.recv() {
                Ok(Note::Ready) => ready += 1,
                Ok(Note::Failed(why)) => {
                    crew.dismiss();
                    return Err(RunError::Preparation(why));
                }
                Ok(_) => {}
                Err(_) => {
                    return Err(RunError::Preparation(
                        "a thread ended without a word".into(),
                    ));
                }
            }
        }
        Ok(crew)
    }

    /// Lets threads that wait to be told to begin go home, and waits for all.
    fn dismiss(self) {
        drop(self.go);
        drop(self.notes);
        for thread in self.threads {
            // A thread that panicked has said so on stderr.
            let _ = thread.join();
        }
    }

    /// Lets the threads load, and collects what they count.
    fn measure(
        self,
        spec: &RunSpec,
        epoch: Instant,
        stop: &AtomicBool,
        watched: &mut Watched,
    ) -> Result<Measured, RunError> {
        let started = SystemTime::now();
        let begin = epoch.elapsed() + START_DELAY;
        let from = begin + spec.warm_up;
        let window = Window {
            from_ns: from.as_nanos() as u64,
            until_ns: (from + spec.duration).as_nanos() as u64,
        };
        for go in &self.go {
            // A thread that is gone is noticed by its silence.
            let _ = go.send((begin.as_nanos() as u64, window));
        }
        let edges = match spec.shape {
            Shape::Closed { .. } => None,
            Shape::Open { .. } => Some(Arc::clone(&self.edges)),
        };
        let mut clerk = Clerk::new(epoch, window, edges, spec.progress, self.threads.len());
        clerk.collect(&self.notes, stop, watched);
        self.dismiss();
        let end_ns = clerk.window_end_ns();
        let span = |from_ns| Duration::from_nanos(clerk.measured_end_ns().saturating_sub(from_ns));
        let (duration, extent) = (span(clerk.begin_ns), span(window.from_ns));
        let mut partial = clerk.partial.take();
        if stop.load(Ordering::Relaxed) {
            partial.get_or_insert_with(|| "interrupted".into());
        }
        for why in clerk.endings.iter().flat_map(|ending| &ending.down) {
            partial.get_or_insert_with(|| format!("a connection is down at the end: {why}"));
        }
        let last_ns = clerk
            .endings
            .iter()
            .map(|ending| ending.last_success_ns)
            .max()
            .unwrap_or(0);
        if end_ns.saturating_sub(last_ns) > SILENCE_MAX.as_nanos() as u64
            && spec.operations_max.is_none()
        {
            let silent =
                (end_ns.saturating_sub(last_ns.max(window.from_ns))) as f64 / SECOND_NS as f64;
            partial
                .get_or_insert_with(|| format!("no operation succeeded in the last {silent:.1} s"));
        }
        let succeeded = clerk.endings.iter().map(|ending| ending.succeeded).sum();
        Ok(Measured {
            collector: clerk.collector,
            succeeded,
            partial,
            duration,
            extent,
            generator: used(clerk.cpu_begin, clerk.cpu_end),
            started,
        })
    }
}

/// The body of a thread.
fn work(
    plan: LanePlan,
    scribe: Option<Scribe>,
    time_max: Duration,
    go: &Receiver<(u64, Window)>,
    stop: &AtomicBool,
    notes: &SyncSender<Note>,
) {
    let prepared = Lane::new(plan, scribe)
        .map_err(|error| error.to_string())
        .and_then(|mut lane| lane.prepare(time_max, stop).map(|()| lane));
    // The main thread listens until every thread has finished or it has given up.
    match prepared {
        Err(why) => {
            let _ = notes.send(Note::Failed(why));
        }
        Ok(mut lane) => {
            let _ = notes.send(Note::Ready);
            if let Ok((begin_ns, window)) = go.recv() {
                let ending = lane.load(begin_ns, window, stop, notes);
                let _ = notes.send(Note::Finished(ending));
            }
        }
    }
}

/// What the main thread does while the others load.
struct Clerk {
    epoch: Instant,
    window: Window,
    /// An open loop's.
    edges: Option<Arc<Edges>>,
    /// Where the measured part began.
    begin_ns: u64,
    /// The last success that is within the costs.
    done_ns: u64,
    progress: bool,
    lanes: usize,
    /// How many threads have handed over a second, until all have.
    handed_over: BTreeMap<u32, usize>,
    collector: Collector,
    endings: Vec<Ending>,
    partial: Option<String>,
    cpu_begin: kontiki_harness::cpu::CpuTime,
    cpu_end: kontiki_harness::cpu::CpuTime,
    /// When the load ended, if before its time.
    stopped_ns: Option<u64>,
}

impl Clerk {
    fn new(
        epoch: Instant,
        window: Window,
        edges: Option<Arc<Edges>>,
        progress: bool,
        lanes: usize,
    ) -> Clerk {
        Clerk {
            epoch,
            window,
            edges,
            begin_ns: window.from_ns,
            done_ns: 0,
            progress,
            lanes,
            handed_over: BTreeMap::new(),
            collector: Collector::default(),
            endings: Vec::new(),
            partial: None,
            cpu_begin: own_cpu(),
            cpu_end: own_cpu(),
            stopped_ns: None,
        }
    }

    fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn window_end_ns(&self) -> u64 {
        self.stopped_ns
            .unwrap_or(self.window.until_ns)
            .min(self.window.until_ns)
    }

    /// Where the measured part ends: with its last success, if servers have fallen behind an open loop.
    fn measured_end_ns(&self) -> u64 {
        self.window_end_ns().max(self.done_ns)
    }

    /// When the measured part begins, as far as it is known; never before it was to.
    fn begins_ns(&self) -> u64 {
        self.edges.as_ref().map_or(self.window.from_ns, |edges| {
            edges.begin_ns().max(self.window.from_ns)
        })
    }

    /// Takes what was used until the last success, if there is a new one.
    fn follow_end(&mut self, watched: &mut Watched) {
        let end_ns = self.edges.as_ref().map_or(0, |edges| edges.end_ns());
        if end_ns > self.done_ns {
            self.done_ns = end_ns;
            watched.look();
            self.cpu_end = own_cpu();
        }
    }

    /// Takes notes until every thread has finished. Costs are read where the measured part begins and ends.
    fn collect(&mut self, notes: &Receiver<Note>, stop: &AtomicBool, watched: &mut Watched) {
        let mut begun = false;
        let mut ended = false;
        let mut next_look_ns = 0;
        while self.endings.len() < self.lanes {
            let now_ns = self.now_ns();
            if !begun && now_ns >= self.begins_ns() {
                begun = true;
                self.begin_ns = self.begins_ns();
                watched.begin();
                self.cpu_begin = own_cpu();
                next_look_ns = self.begin_ns + SECOND_NS;
            }
            if begun && !ended && now_ns >= self.window.until_ns {
                ended = true;
                watched.look();
                self.cpu_end = own_cpu();
            }
            if begun && !ended && now_ns >= next_look_ns {
                watched.look();
                next_look_ns += SECOND_NS;
            }
            if ended {
                self.follow_end(watched);
            }
            if stop.load(Ordering::Relaxed) {
                self.stopped_ns.get_or_insert(now_ns);
            }
            let next_ns = match (begun, ended) {
                (false, _) => self.window.from_ns.max(now_ns + EDGE_LOOK_NS),
                (true, false) => next_look_ns.min(self.window.until_ns),
                (true, true) if self.edges.is_some() => now_ns + EDGE_LOOK_NS,
                (true, true) => now_ns + SECOND_NS,
            };
            let wait = Duration::from_nanos(next_ns.saturating_sub(now_ns))
                .min(Duration::from_millis(100));
            match notes.recv_timeout(wait) {
                Ok(note) => self.take(note, stop),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if ended {
            self.follow_end(watched);
        } else {
            // All operations are done, or nobody is left to do them.
            self.stopped_ns
                .get_or_insert(self.epoch.elapsed().as_nanos() as u64);
            watched.look();
            self.cpu_end = own_cpu();
        }
    }

    fn take(&mut self, note: Note, stop: &AtomicBool) {
        match note {
            Note::Sample(sample) => {
                let second = sample.second;
                self.collector.add(sample);
                let handed_over = self.handed_over.entry(second).or_default();
                *handed_over += 1;
                if *handed_over == self.lanes {
                    self.handed_over.remove(&second);
                    if self.progress {
                        self.print(second);
                    }
                }
            }
            Note::Lost(why) => {
                self.partial
                    .get_or_insert_with(|| format!("the servers are gone: {why}"));
                // The other threads would measure half of what was asked.
                stop.store(true, Ordering::Relaxed);
            }
            Note::Finished(ending) => self.endings.push(ending),
            Note::Ready | Note::Failed(_) => {}
        }
    }

    /// One line about a second that all threads have handed over.
    fn print(&self, second: u32) {
        let mut line = format!("{:>5} s", second + 1);
        for (kind, count, p50_ns, p99_ns) in self.collector.second(second) {
            let (p50, p99) = (Duration::from_nanos(p50_ns), Duration::from_nanos(p99_ns));
            line += &format!("  {kind} {count}/s p50 {p50:.1?} p99 {p99:.1?}");
        }
        match self.collector.errors() {
            0 => {}
            errors => line += &format!("  {errors} errors"),
        }
        // A closed stderr ends the progress, not the run.
        let _ = writeln!(io::stderr(), "{line}");
    }
}

fn describe(spec: &RunSpec, connections: usize, lanes: usize) -> Workload {
    let shape = match spec.shape {
        Shape::Closed { in_flight } => format!("{in_flight} in flight"),
        Shape::Open {
            rate,
            poisson: false,
            ..
        } => format!("{rate:.0}/s at equal intervals"),
        Shape::Open {
            rate,
            poisson: true,
            ..
        } => format!("{rate:.0}/s at random intervals"),
    };
    let mut workload = Workload {
        summary: format!(
            "{}, {shape} over {connections} connections",
            spec.workload.summary()
        ),
        ..Workload::default()
    };
    let parameters = [
        ("shape", shape),
        ("connections", connections.to_string()),
        ("threads of the generator", lanes.to_string()),
        ("keys", spec.workload.keys.count.to_string()),
        ("bytes of a key", spec.workload.keys.size_bytes.to_string()),
        (
            "bytes of a value",
            format!(
                "{} to {}",
                spec.workload.values.size_min, spec.workload.values.size_max
            ),
        ),
        ("filled first", spec.workload.fill.to_string()),
        (
            "load goes to",
            if spec.leader_only {
                "the leader"
            } else {
                "all endpoints"
            }
            .to_owned(),
        ),
        ("patience with one operation", format!("{:?}", spec.timeout)),
        ("seed", spec.workload.seed.to_string()),
    ];
    for (name, value) in parameters {
        workload.parameters.insert(name.to_owned(), value);
    }
    if spec.workload.does(Kind::Range) {
        workload.parameters.insert(
            "keys of a range".into(),
            spec.workload.range_keys.to_string(),
        );
    }
    if spec.workload.watchers > 0 {
        workload
            .parameters
            .insert("watchers".into(), spec.workload.watchers.to_string());
    }
    workload
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: neither the number nor the speed of events makes a ramp believe that requests were answered in time.
    #[test]
    fn events_are_no_requests() {
        let operation = |kind: Kind, count, latency_ns| {
            let mut operation = OpResult::new(kind.name());
            for _ in 0..count {
                operation.latency.record_ns(latency_ns);
            }
            operation
        };
        let check = |operations: &[OpResult], expected: (u64, u64)| {
            let (count, latency) = step_figures(operations);
            // Histograms keep two digits at least.
            let millis = (latency.quantile_ns(0.99) as f64 / 1e6).round() as u64;
            assert_eq!((count, millis), expected);
        };
        let puts = operation(Kind::Put, 10, 80_000_000);
        let gets = operation(Kind::Get, 5, 1_000_000);
        let events = |latency_ns| operation(Kind::Event, 10_000, latency_ns);
        check(&[puts.clone(), gets, events(2_000_000)], (15, 80));
        check(&[puts.clone(), events(200_000_000)], (10, 200));
        check(&[puts, operation(Kind::Expiry, 50, 1_000_000)], (10, 80));
        check(&[], (0, 0));
    }
}
