//! What a run of load found out: the one type that is measured into, written, read back, merged and shown.
//!
//! Owns the meaning and the unit of every figure, and the form of a result file. Latencies are whole
//! histograms, never percentiles alone: only histograms of threads and of runs can be added. Must never
//! measure anything itself, and never trust a file it reads: a number that cannot be is refused when read.
//! Runs on whatever thread holds the result; nothing here blocks but `ResultFile::{read, write}`.

mod figure;
mod latency;
mod machine;
mod optimum;
pub(crate) mod origin;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use figure::{Figure, Met, Wanted};
pub use latency::{LATENCY_NS_MAX, Latency, Packed, PackedError, Summary};
pub use machine::Machine;
pub use optimum::Optimum;
pub use origin::Origin;

/// The form of a result file. A file with a higher number is refused, not guessed at.
pub const FORMAT_VERSION: u32 = 1;

/// Seconds of one run whose histograms are kept one by one. Later ones count in the totals only.
pub const INTERVALS_MAX: usize = 7_200;

/// Error codes kept apart for one operation: there are 17 gRPC codes, and a few of ours beside them.
pub const ERROR_CODES_MAX: usize = 64;

/// Bytes of one error message that are kept.
pub const ERROR_MESSAGE_BYTES_MAX: usize = 512;

/// Bytes of a result file.
pub const RESULT_FILE_BYTES_MAX: u64 = 256 << 20;

/// Bounds the times in a file, so that sums of them cannot overflow: about 31 years.
const SECONDS_MAX: f64 = 1e9;

/// The content of a result file: one run, or all runs that belong together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultFile {
    /// See [`FORMAT_VERSION`].
    pub format: u32,
    /// Those that have goals; made of the runs, so that other programs need not know how.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<Figure>,
    /// In the order in which they ran.
    pub runs: Vec<RunResult>,
}

/// One run of load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// Short, for columns and legends: `etcd`, `kontiki 256 in flight`.
    pub label: String,
    /// The command line as given, secrets removed.
    pub command: Vec<String>,
    /// Version of the generator.
    pub generator_version: String,
    /// When the warm-up began.
    #[serde(with = "rfc3339")]
    pub started: SystemTime,
    /// Load before the measured part; nothing of it is in any figure.
    #[serde(rename = "warmup_seconds", with = "seconds")]
    pub warmup: Duration,
    /// The measured part.
    #[serde(rename = "duration_seconds", with = "seconds")]
    pub duration: Duration,
    /// Where the load went.
    pub endpoints: Vec<String>,
    /// What answered there.
    pub target: Target,
    /// Where the generator ran.
    pub machine: Machine,
    /// What was asked.
    pub workload: Workload,
    /// One for each kind of operation, in the order of the workload.
    pub operations: Vec<OpResult>,
    /// The servers whose processes were watched; empty if none was.
    pub servers: Vec<ServerCost>,
    /// CPU of this generator, all threads, over the measured part.
    pub generator: CpuCost,
    /// The steps of a search for the highest bearable rate; empty for other shapes.
    #[serde(default)]
    pub steps: Vec<RampStep>,
    /// Where this run stands among runs in turn (A B A B ...).
    #[serde(default)]
    pub pairing: Option<Pairing>,
    /// What disk and network alone would have taken; none where that was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimum: Option<Optimum>,
    /// What a reader must know, for example a failed check of the answers.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Why the run ended before its time. The figures then cover only the part that ran.
    #[serde(default)]
    pub partial: Option<String>,
}

/// The servers under load.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// `etcd`, `kontiki`, or what else it says it is.
    pub program: String,
    /// Its version.
    pub version: String,
    /// Members of the cluster; zero when unknown.
    pub members: u32,
    /// Settings worth knowing, such as flags or the file system of its data.
    #[serde(default)]
    pub details: BTreeMap<String, String>,
}

/// What was asked of the servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// In one line: `put, 256 in flight over 10 connections, 256 B values`.
    pub summary: String,
    /// Each setting with its unit, by name.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
}

/// Where a run stands in a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pairing {
    /// What both sides do: `put, 256 in flight`.
    pub point: String,
    /// Which of the two it is: `kontiki`.
    pub side: String,
    /// Its pair at this point, from zero.
    pub pair: u32,
}

/// Everything about one kind of operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpResult {
    /// `put`, `get`, `watch event`.
    pub name: String,
    /// Of the operations that succeeded.
    pub latency: Latency,
    /// The others, by gRPC code's name or by what happened to the connection.
    pub errors: BTreeMap<String, ErrorCount>,
    /// By second, ascending; at most [`INTERVALS_MAX`].
    pub series: Vec<Interval>,
    /// Intervals after the kept ones: in the totals, not in the series.
    #[serde(default)]
    pub intervals_dropped: u64,
}

/// Errors of one code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorCount {
    /// How many.
    pub count: u64,
    /// The first message; the others are usually the same.
    pub first: String,
}

/// One second of one operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Which second of the measured part, from zero.
    pub second: u32,
    /// How much of that second was measured: less than one at the end.
    #[serde(rename = "length_seconds", with = "seconds")]
    pub length: Duration,
    /// Of the operations that ended in it and succeeded.
    pub latency: Packed,
    /// Operations that ended in it and failed.
    pub errors: u64,
}

/// CPU time used over the measured part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CpuCost {
    /// In user mode.
    #[serde(rename = "user_seconds", with = "seconds")]
    pub user: Duration,
    /// In the kernel.
    #[serde(rename = "system_seconds", with = "seconds")]
    pub system: Duration,
}

/// What a watched server used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerCost {
    /// Its process.
    pub pid: u32,
    /// Its name in tables: the program, and which member.
    pub name: String,
    /// Over the measured part, exited threads and kernel workers included.
    pub cpu: CpuCost,
    /// The highest resident memory seen, in bytes.
    pub rss_bytes: u64,
}

/// One rate of a ramp.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RampStep {
    /// Operations per second that were asked for.
    pub offered_per_second: f64,
    /// Operations per second that were acknowledged.
    pub achieved_per_second: f64,
    /// Latency from the intended send time.
    pub latency: Packed,
    /// Whether the latency stayed under the bound and the rate was reached.
    pub held: bool,
}

/// Why a result cannot be used.
#[derive(Debug, Error)]
pub enum ResultError {
    /// The file system said no.
    #[error("{path}: {error}")]
    File {
        /// Which file.
        path: String,
        /// What it said.
        error: io::Error,
    },
    /// Not a result, or a damaged one.
    #[error("{path}: not a result of kontiki-load: {error}")]
    Content {
        /// Which file.
        path: String,
        /// Where and why.
        error: serde_json::Error,
    },
    /// Larger than any result.
    #[error("{path}: {size} bytes, more than {RESULT_FILE_BYTES_MAX}")]
    TooLarge {
        /// Which file.
        path: String,
        /// Bytes.
        size: u64,
    },
    /// Written by a newer version.
    #[error("{path}: format {format}; this version reads up to {FORMAT_VERSION}")]
    Format {
        /// Which file.
        path: String,
        /// What it says.
        format: u32,
    },
}

impl ResultFile {
    /// Runs that belong together.
    pub fn new(runs: Vec<RunResult>) -> ResultFile {
        ResultFile {
            format: FORMAT_VERSION,
            figures: Vec::new(),
            runs,
        }
    }

    /// As JSON, one field a line, so that kept results can be read and compared by eye.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("maps have text keys only");
        text.push('\n');
        text
    }

    /// From JSON; `name` is for the error.
    pub fn from_json(name: &str, text: &str) -> Result<ResultFile, ResultError> {
        /// What is looked at first: fields may have changed since.
        #[derive(Deserialize)]
        struct Header {
            format: u32,
        }
        let content = |error| ResultError::Content {
            path: name.to_owned(),
            error,
        };
        let header: Header = serde_json::from_str(text).map_err(content)?;
        if header.format > FORMAT_VERSION {
            return Err(ResultError::Format {
                path: name.to_owned(),
                format: header.format,
            });
        }
        serde_json::from_str(text).map_err(content)
    }

    /// Reads a file that [`ResultFile::write`] has written.
    pub fn read(path: &Path) -> Result<ResultFile, ResultError> {
        let name = path.display().to_string();
        let failed = |error| ResultError::File {
            path: name.clone(),
            error,
        };
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        if size > RESULT_FILE_BYTES_MAX {
            return Err(ResultError::TooLarge { path: name, size });
        }
        let mut text = String::new();
        // The file may grow while it is read.
        file.take(RESULT_FILE_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(failed)?;
        ResultFile::from_json(&name, &text)
    }

    /// Writes the file, whole or not at all: a result is never half a result.
    pub fn write(&self, path: &Path) -> Result<(), ResultError> {
        write_whole(path, self.to_json().as_bytes())
    }
}

/// Writes beside the file and then takes its name.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<(), ResultError> {
    let failed = |error| ResultError::File {
        path: path.display().to_string(),
        error,
    };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let mut file = File::create(&beside).map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    drop(file);
    std::fs::rename(&beside, path).map_err(failed)
}

impl RunResult {
    /// Operations that succeeded.
    pub fn count(&self) -> u64 {
        sum(self.operations.iter().map(OpResult::count))
    }

    /// Operations that failed.
    pub fn errors(&self) -> u64 {
        sum(self.operations.iter().map(OpResult::error_count))
    }

    /// Operations that succeeded, per second of the measured part; zero for a run that measured nothing.
    pub fn rate_per_second(&self) -> f64 {
        per(self.count() as f64, self.duration.as_secs_f64()).unwrap_or(0.0)
    }

    /// Latency over all kinds of operations.
    pub fn latency(&self) -> Latency {
        let mut all = Latency::new();
        for operation in &self.operations {
            all.add(&operation.latency);
        }
        all
    }

    /// CPU of all watched servers together; none when none was watched.
    pub fn server_cpu(&self) -> Option<CpuCost> {
        let mut servers = self.servers.iter().map(|server| server.cpu);
        let first = servers.next()?;
        Some(servers.fold(first, CpuCost::plus))
    }

    /// CPU microseconds of all watched servers per acknowledged operation.
    pub fn server_us_per_operation(&self) -> Option<f64> {
        self.server_cpu()?.us_per(self.count())
    }

    /// CPU that all watched servers together used of one, if nothing was asked of them: 0.05 is 50 ms a second.
    pub fn idle_cpu_share(&self) -> Option<f64> {
        let cpu = self.server_cpu().filter(|_| self.operations.is_empty())?;
        per(cpu.total().as_secs_f64(), self.duration.as_secs_f64())
    }

    /// The shortest possible time of a commit by the median time of an operation; only where one client waits for
    /// each before the next one.
    pub fn share_of_optimum(&self) -> Option<f64> {
        let optimum = self.optimum.as_ref()?;
        let p50_ns = self.latency().quantile_ns(0.5);
        per(optimum.commit_ns() as f64, p50_ns as f64)
    }

    /// CPU microseconds of the generator per acknowledged operation.
    pub fn generator_us_per_operation(&self) -> Option<f64> {
        self.generator.us_per(self.count())
    }

    /// Resident memory of all watched servers; none when none was watched.
    pub fn server_rss_bytes(&self) -> Option<u64> {
        let servers = self.servers.iter().map(|server| server.rss_bytes);
        (!self.servers.is_empty()).then(|| sum(servers))
    }

    /// Appends a run that followed this one, as if both had been one: times and counts add up, and the
    /// seconds of the second follow those of the first. Label, command and target stay those of the first.
    pub fn append(&mut self, next: &RunResult) {
        let offset = self.duration.as_secs_f64().ceil() as u32;
        self.duration += next.duration;
        for operation in &next.operations {
            let mut shifted = operation.clone();
            for interval in &mut shifted.series {
                interval.second = interval.second.saturating_add(offset);
            }
            self.merge_operation(&shifted);
        }
        for server in &next.servers {
            match self.servers.iter_mut().find(|own| own.name == server.name) {
                Some(own) => {
                    own.cpu = own.cpu.plus(server.cpu);
                    own.rss_bytes = own.rss_bytes.max(server.rss_bytes);
                }
                None => self.servers.push(server.clone()),
            }
        }
        self.generator = self.generator.plus(next.generator);
        self.steps.extend(next.steps.iter().cloned());
        self.notes.extend(next.notes.iter().cloned());
        if self.partial.is_none() {
            self.partial.clone_from(&next.partial);
        }
    }

    /// Adds what another thread found in the same seconds.
    pub fn merge_operation(&mut self, other: &OpResult) {
        match self
            .operations
            .iter_mut()
            .find(|own| own.name == other.name)
        {
            Some(own) => own.merge(other),
            None => self.operations.push(other.clone()),
        }
    }
}

impl OpResult {
    /// An operation of which nothing has been seen.
    pub fn new(name: impl Into<String>) -> OpResult {
        OpResult {
            name: name.into(),
            latency: Latency::new(),
            errors: BTreeMap::new(),
            series: Vec::new(),
            intervals_dropped: 0,
        }
    }

    /// Operations that succeeded.
    pub fn count(&self) -> u64 {
        self.latency.count()
    }

    /// Operations that failed.
    pub fn error_count(&self) -> u64 {
        sum(self.errors.values().map(|error| error.count))
    }

    /// Counts one failure. Beyond [`ERROR_CODES_MAX`] codes, further ones are counted as `other`.
    pub fn add_error(&mut self, code: &str, message: &str) {
        self.add_errors(code, message, 1);
    }

    fn add_errors(&mut self, code: &str, message: &str, count: u64) {
        let full = self.errors.len() >= ERROR_CODES_MAX && !self.errors.contains_key(code);
        let code = if full { "other" } else { code };
        let entry = self.errors.entry(code.to_owned()).or_default();
        if entry.count == 0 {
            let mut end = message.len().min(ERROR_MESSAGE_BYTES_MAX);
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message[..end].clone_into(&mut entry.first);
        }
        entry.count = entry.count.saturating_add(count);
    }

    /// Takes one second that is over: its latencies go into the total and into the series.
    ///
    /// Called for every second, also for one in which nothing ended: a stall shows as a rate of zero.
    pub fn close_interval(
        &mut self,
        second: u32,
        length: Duration,
        latency: &Latency,
        errors: u64,
    ) {
        self.latency.add(latency);
        self.add_interval(&Interval {
            second,
            length,
            latency: latency.pack(),
            errors,
        });
    }

    /// Adds what another thread found in the same seconds.
    pub fn merge(&mut self, other: &OpResult) {
        self.latency.add(&other.latency);
        for (code, error) in &other.errors {
            self.add_errors(code, &error.first, error.count);
        }
        self.intervals_dropped = self
            .intervals_dropped
            .saturating_add(other.intervals_dropped);
        for interval in &other.series {
            self.add_interval(interval);
        }
    }

    fn add_interval(&mut self, interval: &Interval) {
        match self
            .series
            .binary_search_by_key(&interval.second, |own| own.second)
        {
            Ok(at) => {
                let own = &mut self.series[at];
                own.length = own.length.max(interval.length);
                own.errors = own.errors.saturating_add(interval.errors);
                own.latency = Packed::sum([&own.latency, &interval.latency]);
            }
            Err(_) if self.series.len() >= INTERVALS_MAX => {
                self.intervals_dropped = self.intervals_dropped.saturating_add(1);
            }
            Err(at) => self.series.insert(at, interval.clone()),
        }
    }
}

impl CpuCost {
    /// User and system time.
    pub fn total(&self) -> Duration {
        self.user.saturating_add(self.system)
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: CpuCost) -> CpuCost {
        CpuCost {
            user: self.user.saturating_add(other.user),
            system: self.system.saturating_add(other.system),
        }
    }

    /// Microseconds for each of `count`; none when there was nothing to divide by.
    pub fn us_per(&self, count: u64) -> Option<f64> {
        per(self.total().as_secs_f64() * 1e6, count as f64)
    }
}

/// A sum of counts, which a file may have put anywhere near the end of their range.
pub(crate) fn sum(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}

/// A quotient, if there is one.
fn per(value: f64, by: f64) -> Option<f64> {
    (by > 0.0).then(|| value / by)
}

/// Durations as seconds with a fraction.
mod seconds {
    use std::time::Duration;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(value.as_secs_f64())
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(from)?;
        if !(0.0..=super::SECONDS_MAX).contains(&seconds) {
            return Err(D::Error::custom(format!("{seconds} is not a time span")));
        }
        Ok(Duration::from_secs_f64(seconds))
    }
}

/// Points in time as people and tools read them.
mod rfc3339 {
    use std::time::SystemTime;

    use jiff::Timestamp;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        let stamp = Timestamp::try_from(*value).map_err(serde::ser::Error::custom)?;
        to.collect_str(&stamp)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(from)?;
        let stamp: Timestamp = text.parse().map_err(D::Error::custom)?;
        if stamp < Timestamp::UNIX_EPOCH {
            return Err(D::Error::custom(format!("{stamp} is before all runs")));
        }
        Ok(SystemTime::from(stamp))
    }
}

#[cfg(test)]
mod tests;
