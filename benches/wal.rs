//! The log on a real disk: what a commit costs, in both ways to write, side by side.
//!
//! `cargo bench --bench wal` prints one line per run and a summary; without `--bench`, or with `--test`, it
//! runs small, as a test. What is compared is interleaved, each figure is the median of the repetitions,
//! and what else used the CPU is printed beside each run, so that a disturbed one can be thrown away.
//! `KONTIKI_BENCH_DIR` names the directory to measure in.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kontiki::base::limits::{KIB, MIB, PAGE_SIZE_BYTES};
use kontiki::base::{ClusterId, Incarnation, Index, MemberId, ShardId, Term};
use kontiki::runtime::clock::Clock;
use kontiki::runtime::disk::log::{LogDone, LogJob, LogWriter, WriteMode};
use kontiki::runtime::disk::segments::{DiskAnswer, DiskSettings, DiskThread};
use kontiki::runtime::disk::{identity, segments, workers};
use kontiki::runtime::placement::{CoreRequest, choose, start};
use kontiki::runtime::{executor, mailbox, preflight};
use kontiki::wal::{
    Appender, Commit, CommitStep, Geometry, LogIdentity, PreparedSegment, SegmentOpening,
};

const MODES: [WriteMode; 2] = [WriteMode::Mapped, WriteMode::Written];
/// Of a record's archive; with its header the record has about 300 bytes.
const VALUE_BYTES: usize = 256;
const RECORD_BYTES: f64 = 300.0;

/// How much is measured.
#[derive(Clone, Copy)]
struct Scale {
    repetitions: usize,
    commits: usize,
    segment_size_bytes: u64,
}

const FULL: Scale = Scale {
    repetitions: 5,
    commits: 1_500,
    segment_size_bytes: 64 * MIB,
};
const SMALL: Scale = Scale {
    repetitions: 1,
    commits: 20,
    segment_size_bytes: 512 * KIB,
};

/// The body of the records.
#[derive(rkyv::Archive, rkyv::Serialize)]
struct Value {
    bytes: Vec<u8>,
}

/// What the writer holds while it writes.
enum Staged {
    Commit(Commit),
    Opening(SegmentOpening),
}

impl AsRef<[u8]> for Staged {
    fn as_ref(&self) -> &[u8] {
        match self {
            Staged::Commit(commit) => commit.bytes(),
            Staged::Opening(opening) => opening.page(),
        }
    }
}

/// A log as a shard's core drives it.
struct Log {
    appender: Appender,
    writer: LogWriter<Staged>,
    disk: DiskThread,
    answers: mailbox::Receiver<DiskAnswer>,
    spare: Option<segments::PreparedSegment>,
    directory: PathBuf,
    value: Value,
    next_index: Index,
    commits: u64,
}

impl Log {
    fn open(directory: &Path, mode: WriteMode, scale: Scale) -> Log {
        let geometry = Geometry::new(scale.segment_size_bytes);
        let log_identity = LogIdentity {
            cluster: ClusterId(1),
            member: MemberId(1),
            incarnation: Incarnation(1),
            shard: ShardId(0),
        };
        let (sender, answers) = mailbox::mailbox(4);
        let settings = DiskSettings {
            directory: directory.to_owned(),
            segment_size_bytes: geometry.segment_size_bytes(),
            mode,
            core_thread: Some(workers::current_thread()),
        };
        let log = Log {
            appender: Appender::new(geometry, log_identity),
            writer: LogWriter::start(mode),
            disk: DiskThread::start(settings, sender).expect("a thread"),
            answers,
            spare: None,
            directory: directory.to_owned(),
            value: Value {
                bytes: vec![0x6b; VALUE_BYTES],
            },
            next_index: Index(1),
            commits: 0,
        };
        log.ask_for_spare();
        log
    }

    fn ask_for_spare(&self) {
        let next = self.appender.next_segment();
        let path = self.directory.join(next.file_name());
        self.disk.prepare(next.0, path).expect("one at a time");
    }

    /// Making a segment writes all of it: not while anything else is measured.
    async fn wait_for_spare(&mut self) {
        if self.spare.is_none() {
            match self.answers.receive().await {
                Some(DiskAnswer::Ready(prepared)) => self.spare = Some(prepared),
                other => panic!("the disk has no segment: {other:?}"),
            }
        }
    }

    fn stage(&mut self, count: usize) {
        for _ in 0..count {
            self.appender
                .stage_entry(Term(1), self.next_index, &self.value)
                .expect("it fits");
            self.next_index = self.next_index.next();
        }
    }

    /// Hands the staged batch to the writer, through a segment change if need be.
    async fn submit(&mut self) {
        loop {
            match self.appender.commit() {
                CommitStep::Nothing => panic!("something is staged"),
                CommitStep::Commit(commit) => {
                    self.commits += 1;
                    let job = LogJob::Commit {
                        tag: commit.sequence.0,
                        offset: commit.offset,
                        also_at: None,
                        bytes: Staged::Commit(commit),
                    };
                    assert!(self.writer.submit(job).is_ok(), "one in flight");
                    return;
                }
                CommitStep::OpenSegment(sequence) => {
                    self.wait_for_spare().await;
                    let prepared = self.spare.take().expect("waited for");
                    assert_eq!(prepared.sequence, sequence.0);
                    let opening = self.appender.open_segment(PreparedSegment {
                        sequence,
                        salt: identity::random_u64().expect("random") | 1,
                    });
                    let [offset, copy] = opening.offsets;
                    assert!(self.writer.submit(LogJob::Open(prepared)).is_ok());
                    let job = LogJob::Commit {
                        tag: 0,
                        offset,
                        also_at: Some(copy),
                        bytes: Staged::Opening(opening),
                    };
                    assert!(self.writer.submit(job).is_ok());
                    self.done().await;
                    self.done().await;
                    self.ask_for_spare();
                }
            }
        }
    }

    async fn done(&mut self) {
        match self.writer.done().await {
            LogDone::Opened { .. } => {}
            LogDone::Durable { bytes, .. } => match bytes {
                Staged::Commit(commit) => {
                    self.appender.durable(commit);
                }
                Staged::Opening(opening) => self.appender.segment_opened(opening),
            },
        }
    }

    async fn commit(&mut self, records: usize) {
        self.stage(records);
        self.submit().await;
        self.done().await;
    }
}

/// The figures of one run.
struct Figures {
    amplification: f64,
    flushes_per_commit: f64,
    append_mean_ns: f64,
    append_p999_ns: f64,
    commit_p50_us: f64,
    commit_p99_us: f64,
    commit_max_us: f64,
    blocking_p50_us: f64,
    records_per_s_at_1: f64,
    records_per_s_at_256: f64,
    burst_idle_p999_us: f64,
    burst_syncing_p999_us: f64,
    other_cpu_percent: f64,
    shared_percent: f64,
    shared_p50_us: f64,
}

const FIGURES: usize = 15;

const NAMES: [&str; FIGURES] = [
    "device bytes per payload byte, 64 records",
    "flushes per commit",
    "append while syncing, mean ns",
    "append while syncing, p99.9 ns",
    "commit of one record, p50 us",
    "commit of one record, p99 us",
    "commit of one record, max us",
    "blocking fdatasync of a mapped page, p50 us",
    "records/s at 1 per commit",
    "records/s at 256 per commit",
    "burst of 64 appends, no sync, p99.9 us",
    "burst of 64 appends, syncing, p99.9 us",
    "CPU used by others, percent",
    "bursts that shared their CPU, percent",
    "burst of 64 appends that shared, p50 us",
];

impl Figures {
    fn all(&self) -> [f64; FIGURES] {
        [
            self.amplification,
            self.flushes_per_commit,
            self.append_mean_ns,
            self.append_p999_ns,
            self.commit_p50_us,
            self.commit_p99_us,
            self.commit_max_us,
            self.blocking_p50_us,
            self.records_per_s_at_1,
            self.records_per_s_at_256,
            self.burst_idle_p999_us,
            self.burst_syncing_p999_us,
            self.other_cpu_percent,
            self.shared_percent,
            self.shared_p50_us,
        ]
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |name| arguments.iter().any(|argument| argument == name);
    let scale = if has("--bench") && !has("--test") {
        FULL
    } else {
        SMALL
    };
    preflight::check().unwrap_or_else(|error| panic!("{error}"));
    let base = std::env::var_os("KONTIKI_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let cpu = *choose(&CoreRequest::All)
        .expect("a CPU")
        .last()
        .expect("one");

    let mut results: [Vec<[f64; FIGURES]>; 2] = [Vec::new(), Vec::new()];
    println!(
        "mode,repetition,{}",
        NAMES.map(|name| name.replace(',', ";")).join(",")
    );
    for repetition in 0..scale.repetitions {
        for (mode, results) in MODES.into_iter().zip(&mut results) {
            let figures = run(cpu, &base, mode, scale);
            let cells = figures.map(|value| format!("{value:.2}")).join(",");
            println!("{mode:?},{repetition},{cells}");
            results.push(figures);
        }
    }
    report(&results);
}

/// Every figure of one mode, on a core of its own.
fn run(cpu: usize, base: &Path, mode: WriteMode, scale: Scale) -> [f64; FIGURES] {
    let (sender, receiver) = std::sync::mpsc::channel();
    let base = base.to_owned();
    start(
        vec![(cpu, (sender, base))],
        None,
        move |core, (sender, base), ready| async move {
            ready.succeed();
            core.stats.set_busy(true);
            let figures = measure(&base, mode, scale).await;
            sender.send(figures.all()).expect("main waits");
        },
    )
    .expect("a core")
    .join();
    receiver.recv().expect("figures")
}

async fn measure(base: &Path, mode: WriteMode, scale: Scale) -> Figures {
    let root = tempfile::tempdir_in(base).expect("a directory");
    let mut log = Log::open(root.path(), mode, scale);
    let clock = Clock::new();
    let cpu_before = CpuTimes::read();
    log.commit(1).await;
    log.wait_for_spare().await;

    let device = Device::of(root.path());
    let (sectors, flushes) = device.written();
    let (commits, count) = (log.commits, scale.commits / 3);
    for _ in 0..count {
        log.commit(64).await;
    }
    let (sectors_after, flushes_after) = device.written();
    let commits = (log.commits - commits) as f64;
    let payload = commits * 64.0 * RECORD_BYTES;

    let mut one = Vec::with_capacity(scale.commits);
    let mut blocking = Vec::with_capacity(scale.commits);
    let mut page = BlockingPage::new(root.path(), scale);
    for _ in 0..scale.commits {
        let began = clock.now();
        log.commit(1).await;
        one.push(clock.now() - began);
        let began = clock.now();
        page.sync();
        blocking.push(clock.now() - began);
    }

    let at = async |log: &mut Log, records: usize, commits: usize| {
        let began = clock.now();
        for _ in 0..commits {
            log.commit(records).await;
        }
        (records * commits) as f64 / (clock.now() - began).as_secs_f64()
    };
    let records_per_s_at_1 = at(&mut log, 1, scale.commits / 2).await;
    let records_per_s_at_256 = at(&mut log, 256, scale.commits / 6).await;
    let bursts = bursts(&mut log, clock, scale).await;
    let other_cpu_percent = cpu_before.others_since();
    Figures {
        amplification: (sectors_after - sectors) as f64 * 512.0 / payload,
        flushes_per_commit: (flushes_after - flushes) as f64 / commits,
        append_mean_ns: bursts.mean_ns,
        append_p999_ns: micros(&mut bursts.single.clone(), 0.999) * 1e3,
        shared_percent: 100.0 * bursts.shared.len() as f64 / scale.commits as f64,
        shared_p50_us: micros(&mut bursts.shared.clone(), 0.5),
        commit_p50_us: micros(&mut one, 0.5),
        commit_p99_us: micros(&mut one, 0.99),
        commit_max_us: micros(&mut one, 1.0),
        blocking_p50_us: micros(&mut blocking, 0.5),
        records_per_s_at_1,
        records_per_s_at_256,
        burst_idle_p999_us: micros(&mut bursts.idle.clone(), 0.999),
        burst_syncing_p999_us: micros(&mut bursts.syncing.clone(), 0.999),
        other_cpu_percent,
    }
}

/// Times of appends, of each and of bursts.
struct Bursts {
    mean_ns: f64,
    single: Vec<Duration>,
    idle: Vec<Duration>,
    syncing: Vec<Duration>,
    /// Bursts in which the core's thread lost its CPU, mostly to the kernel's worker that submits the sync and
    /// shares it: counted apart, because no way of appending makes them shorter.
    shared: Vec<Duration>,
}

/// How often this thread was given a CPU.
struct Scheduled(File);

impl Scheduled {
    fn open() -> Scheduled {
        Scheduled(File::open("/proc/thread-self/schedstat").expect("the kernel counts"))
    }

    fn count(&self) -> u64 {
        let mut text = [0; 96];
        let length = self.0.read_at(&mut text, 0).expect("readable");
        let text = std::str::from_utf8(&text[..length]).expect("digits");
        let count = text.split_whitespace().nth(2).expect("the third number");
        count.parse().expect("a number")
    }
}

/// Bursts of 64 appends, alternately with nothing in flight and with a sync that runs meanwhile.
async fn bursts(log: &mut Log, clock: Clock, scale: Scale) -> Bursts {
    const BURST: usize = 64;
    let mut bursts = Bursts {
        mean_ns: 0.0,
        single: Vec::new(),
        idle: Vec::new(),
        syncing: Vec::new(),
        shared: Vec::new(),
    };
    let scheduled = Scheduled::open();
    let mut singles = Vec::with_capacity(BURST);
    for round in 0..scale.commits {
        let began = clock.now();
        log.stage(BURST);
        bursts.idle.push(clock.now() - began);
        log.submit().await;
        // Lets the core submit the sync, which then takes some tens of microseconds more.
        executor::sleep(Duration::from_micros(5)).await;
        let times = scheduled.count();
        let burst = clock.now();
        if round % 2 == 0 {
            log.stage(BURST);
        } else {
            for _ in 0..BURST {
                let began = clock.now();
                log.stage(1);
                singles.push(clock.now() - began);
            }
        }
        let burst = clock.now() - burst;
        if scheduled.count() != times {
            singles.clear();
            bursts.shared.push(burst);
        } else if round % 2 == 0 {
            bursts.syncing.push(burst);
        } else {
            bursts.single.append(&mut singles);
        }
        log.done().await;
    }
    let total: Duration = bursts.syncing.iter().sum();
    bursts.mean_ns = total.as_nanos() as f64 / (bursts.syncing.len() * BURST) as f64;
    bursts
}

/// The yardstick: one page stored through a mapping, then a blocking fdatasync.
struct BlockingPage {
    segment: segments::PreparedSegment,
    file: File,
    offset: u64,
}

impl BlockingPage {
    fn new(directory: &Path, scale: Scale) -> BlockingPage {
        let path = directory.join("yardstick");
        let (sender, mut answers) = mailbox::mailbox(1);
        let settings = DiskSettings {
            directory: directory.to_owned(),
            segment_size_bytes: scale.segment_size_bytes,
            mode: WriteMode::Mapped,
            core_thread: None,
        };
        let disk = DiskThread::start(settings, sender).expect("a thread");
        disk.prepare(1, path.clone()).expect("taken");
        let segment = loop {
            match answers.try_receive() {
                Some(DiskAnswer::Ready(segment)) => break segment,
                Some(other) => panic!("{other:?}"),
                None => std::thread::yield_now(),
            }
        };
        let file = File::options().write(true).open(path).expect("opened");
        BlockingPage {
            segment,
            file,
            offset: 0,
        }
    }

    fn sync(&mut self) {
        let page = [0x6b; PAGE_SIZE_BYTES as usize];
        self.segment.map.copy_in(self.offset, &page);
        self.offset = (self.offset + PAGE_SIZE_BYTES) % self.segment.map.size_bytes() as u64;
        self.file.sync_data().expect("synced");
    }
}

/// The block device below a directory.
struct Device(PathBuf);

impl Device {
    fn of(directory: &Path) -> Device {
        let number = directory.metadata().expect("there").dev();
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        Device(PathBuf::from(format!(
            "/sys/dev/block/{major}:{minor}/stat"
        )))
    }

    /// Sectors written and flushes completed; zero where the kernel does not say.
    fn written(&self) -> (u64, u64) {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        let numbers: Vec<u64> = text.split_whitespace().flat_map(str::parse).collect();
        let at = |position: usize| numbers.get(position).copied().unwrap_or_default();
        (at(6), at(15))
    }
}

/// Clock ticks of the machine and of this process.
struct CpuTimes {
    all: u64,
    idle: u64,
    own: u64,
}

impl CpuTimes {
    fn read() -> CpuTimes {
        let stat = std::fs::read_to_string("/proc/stat").expect("readable");
        let line = stat.lines().next().expect("a first line");
        let ticks: Vec<u64> = line.split_whitespace().flat_map(str::parse).collect();
        let own = std::fs::read_to_string("/proc/self/stat").expect("readable");
        let (_, fields) = own.rsplit_once(')').expect("a name in parentheses");
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let field = |position: usize| fields[position].parse::<u64>().expect("a number");
        CpuTimes {
            all: ticks.iter().take(8).sum(),
            idle: ticks[3] + ticks[4],
            own: field(11) + field(12),
        }
    }

    /// The share of all CPU time since `self` that neither this process nor idling used.
    fn others_since(&self) -> f64 {
        let now = CpuTimes::read();
        let all = (now.all - self.all).max(1);
        let busy = all.saturating_sub(now.idle - self.idle);
        busy.saturating_sub(now.own - self.own) as f64 * 100.0 / all as f64
    }
}

/// The value below which the given share of the samples lies, in microseconds.
fn micros(samples: &mut [Duration], share: f64) -> f64 {
    if samples.is_empty() {
        return f64::NAN;
    }
    samples.sort_unstable();
    let position = ((samples.len() - 1) as f64 * share).round() as usize;
    samples[position].as_nanos() as f64 / 1e3
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The medians side by side, and the gates.
fn report(results: &[Vec<[f64; FIGURES]>; 2]) {
    let medians = results.each_ref().map(|runs| {
        std::array::from_fn::<f64, FIGURES, _>(|figure| {
            median(runs.iter().map(|run| run[figure]).collect())
        })
    });
    println!("\n{:<46} {:>12} {:>12}", "median", "mapped", "written");
    for (position, name) in NAMES.iter().enumerate() {
        let [mapped, written] = medians.each_ref().map(|figures| figures[position]);
        println!("{name:<46} {mapped:>12.2} {written:>12.2}");
    }
    println!(
        "\n{:<46} {:>12} {:>12}  gate (mapped)",
        "derived", "mapped", "written"
    );
    let gate = |name: &str,
                bound: &str,
                figure: &dyn Fn(&[f64; FIGURES]) -> f64,
                holds: &dyn Fn(f64) -> bool| {
        let [mapped, written] = medians.each_ref().map(figure);
        let verdict = if holds(mapped) { "holds" } else { "MISSED" };
        println!("{name:<46} {mapped:>12.2} {written:>12.2}  {bound}: {verdict}");
    };
    gate("device bytes / payload bytes", "< 1.6", &|f| f[0], &|x| {
        x < 1.6
    });
    gate("flushes per commit", "1", &|f| f[1], &|x| {
        (x - 1.0).abs() < 0.05
    });
    gate("append while syncing, mean ns", "< 50", &|f| f[2], &|x| {
        x < 50.0
    });
    gate(
        "append while syncing, p99.9 ns",
        "< 2000",
        &|f| f[3],
        &|x| x < 2_000.0,
    );
    gate(
        "commit p50 / blocking fdatasync p50",
        "< 1.3",
        &|f| f[4] / f[7],
        &|x| x < 1.3,
    );
    gate(
        "records/s, 256 against 1 per commit",
        "> 80",
        &|f| f[9] / f[8],
        &|x| x > 80.0,
    );
    gate(
        "burst p99.9, syncing minus idle, us",
        "< 50",
        &|f| f[11] - f[10],
        &|x| x < 50.0,
    );
}
