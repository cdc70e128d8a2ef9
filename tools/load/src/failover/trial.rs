//! One failover after the other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kontiki_harness::client::{CallError, Client, block_on};
use kontiki_harness::messages::{RANGE, RangeRequest, RangeResponse};
use thiserror::Error;

use super::outcome::{Cell, Settings, Trial};
use super::stream::{Did, Record, Stream, StreamSpec, number_of, value};
use super::verify::{Stored, verify};
use super::{Fault, TRIALS_MAX};
use crate::cluster::{AGREE_TIME_MAX, Cluster, ClusterError, ClusterOptions, Placement, Program};

/// Between two looks at what the stream has seen. The times themselves come from the stream.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// How long endpoints may take until each acknowledges a put before the fault, and after the healing.
const SERVE_TIME_MAX: Duration = Duration::from_secs(30);
/// Keys read at once when all are checked.
const PAGE_KEYS: i64 = 5_000;
/// How often reading everything back is tried: a member may still be busy with its own return.
const READ_ATTEMPTS_MAX: u32 = 10;

/// What to do.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The server.
    pub program: Program,
    /// Further flags.
    pub flags: Vec<String>,
    /// Members, at least three.
    pub members: usize,
    /// Who runs where.
    pub placement: Placement,
    /// Below which servers keep their data.
    pub data_dir: PathBuf,
    /// What is done to the leader; several take turns.
    pub faults: Vec<Fault>,
    /// How often, at most [`TRIALS_MAX`].
    pub trials: u32,
    /// None for the server's defaults.
    pub settings: Option<Settings>,
    /// Between two probes of one endpoint.
    pub interval: Duration,
    /// Patience with one operation.
    pub patience: Duration,
    /// Puts of the load in flight.
    pub in_flight: usize,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Load before the fault, at least; up to twice of it, at random.
    pub before: Duration,
    /// Load after everything serves again.
    pub after: Duration,
    /// Time to the first acknowledged put after which a trial counts as failed.
    pub recovery_max: Duration,
    /// Where the random choices begin.
    pub seed: u64,
    /// A line for each trial on stderr.
    pub progress: bool,
}

/// Why trials ended early.
#[derive(Debug, Error)]
pub enum FailoverError {
    /// A cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The threads of a stream.
    #[error("the load: {0}")]
    Stream(#[from] std::io::Error),
    /// Some endpoint acknowledged nothing for too long.
    #[error("not every endpoint acknowledged a put within {SERVE_TIME_MAX:?} {when}")]
    Silent {
        /// When that was.
        when: &'static str,
    },
    /// What is stored cannot be read.
    #[error("reading everything back: {0}")]
    ReadBack(CallError),
    /// The user ended it.
    #[error("interrupted")]
    Interrupted,
}

/// Runs all trials on one cluster. The cell holds those that ended, also when an error ends them.
pub fn failover(spec: &Spec, stop: &AtomicBool) -> (Cell, Option<FailoverError>) {
    let mut cell = Cell {
        settings: spec.settings,
        ..Cell::default()
    };
    let error = start(spec)
        .map_err(FailoverError::from)
        .and_then(|mut cluster| run_trials(spec, &mut cluster, stop, &mut cell.trials));
    (cell, error.err())
}

/// A cluster as the trials need it.
pub(super) fn start(spec: &Spec) -> Result<Cluster, ClusterError> {
    if spec.members < 3 {
        return Err(ClusterError::Settings(
            "a failover needs at least 3 members".to_owned(),
        ));
    }
    let timing = spec.settings.map(|settings| {
        (
            Duration::from_millis(settings.heartbeat_ms),
            Duration::from_millis(settings.election_ms),
        )
    });
    Cluster::start(&ClusterOptions {
        program: spec.program.clone(),
        members: spec.members,
        data_dir: spec.data_dir.clone(),
        placement: spec.placement,
        timing,
        proxied: spec.faults.contains(&Fault::Isolate),
        flags: spec.flags.clone(),
    })
}

pub(super) fn run_trials(
    spec: &Spec,
    cluster: &mut Cluster,
    stop: &AtomicBool,
    trials: &mut Vec<Trial>,
) -> Result<(), FailoverError> {
    let mut random = fastrand::Rng::with_seed(spec.seed);
    for number in 1..=spec.trials.min(TRIALS_MAX) {
        if stop.load(Ordering::Relaxed) {
            return Err(FailoverError::Interrupted);
        }
        let fault = spec.faults[(number as usize - 1) % spec.faults.len()];
        // A random moment within heartbeats and elections.
        let before = spec.before.mul_f64(1.0 + random.f64());
        let trial = run_trial(spec, cluster, number, fault, before)?;
        if spec.progress {
            eprintln!("{}", progress_line(&trial, spec.trials));
        }
        let recovered = trial.first_put_ns.is_some();
        trials.push(trial);
        if !recovered {
            // The next trial would measure the rest of this one.
            cluster.wait_agreed(AGREE_TIME_MAX)?;
        }
    }
    Ok(())
}

/// The stream of a trial or of a phase of a sweep.
pub(super) fn start_stream(
    spec: &Spec,
    cluster: &Cluster,
    name: &str,
) -> Result<Stream, FailoverError> {
    Ok(Stream::start(StreamSpec {
        addresses: cluster.addresses(),
        prefix: prefix(name),
        interval: spec.interval,
        patience: spec.patience,
        in_flight: spec.in_flight,
        value_bytes: spec.value_bytes,
    })?)
}

fn prefix(name: &str) -> String {
    format!("kontiki-load/failover/{name}/")
}

fn run_trial(
    spec: &Spec,
    cluster: &mut Cluster,
    number: u32,
    fault: Fault,
    before: Duration,
) -> Result<Trial, FailoverError> {
    let start = Instant::now();
    let stream = start_stream(spec, cluster, &number.to_string())?;
    let everywhere: Vec<usize> = (0..cluster.size()).collect();
    wait_served(&stream, &everywhere, start, SERVE_TIME_MAX).ok_or(FailoverError::Silent {
        when: "before the fault",
    })?;
    std::thread::sleep(before);
    // An election that nobody needed may just be over.
    let status = cluster.wait_agreed(AGREE_TIME_MAX)?;
    let leader = status.leader().expect("members that agree have a leader");
    let at = match fault {
        Fault::Kill => cluster.kill(leader)?,
        Fault::Stop => cluster.stop(leader)?,
        Fault::Isolate => cluster.isolate(leader)?,
        Fault::Terminate => cluster.terminate(leader)?,
    };
    let others: Vec<usize> = everywhere
        .iter()
        .copied()
        .filter(|member| *member != leader)
        .collect();
    let all_served = wait_served(&stream, &others, at, spec.recovery_max);
    if fault == Fault::Terminate {
        // It may serve and lead for a while yet; what counts is the gap when it goes.
        cluster.wait_ended(leader)?;
        wait_served(&stream, &others, Instant::now(), spec.recovery_max);
    }
    std::thread::sleep(spec.after);
    let healing = Instant::now();
    cluster.heal(leader)?;
    let healed = cluster.wait_agreed(AGREE_TIME_MAX)?;
    let heal_ns = ns(healing.elapsed());
    wait_served(&stream, &everywhere, healing, SERVE_TIME_MAX).ok_or(FailoverError::Silent {
        when: "after the healing",
    })?;
    let records = stream.finish();
    let stored = read_back(cluster, &prefix(&number.to_string()), spec.value_bytes)?;
    let findings = verify(&records, &stored, start);
    let first = |is_wanted: fn(Did) -> bool| {
        let sent_after = records
            .iter()
            .filter(|record| is_wanted(record.did) && record.invoked >= at);
        sent_after
            .filter_map(|record| Some(ns(record.acknowledged?.0 - at)))
            .min()
    };
    Ok(Trial {
        number,
        fault,
        leader,
        term_before: status.term(),
        term_after: healed.term(),
        first_put_ns: first(|did| matches!(did, Did::Put(_)))
            .filter(|first| *first <= ns(spec.recovery_max)),
        first_read_ns: first(|did| matches!(did, Did::Read(_))),
        all_endpoints_ns: all_served.map(|served| ns(served - at)),
        longest_gap_ns: longest_gap_ns(&records, at, healing),
        heal_ns,
        acknowledged: findings.acknowledged,
        unanswered: findings.unanswered,
        took_effect: findings.took_effect,
        reads: findings.reads,
        lost: findings.lost,
        stale: findings.stale,
        examples: findings.examples,
    })
}

/// When each of `endpoints` had acknowledged a put that was sent after `since`; none if not within `time_max`.
pub(super) fn wait_served(
    stream: &Stream,
    endpoints: &[usize],
    since: Instant,
    time_max: Duration,
) -> Option<Instant> {
    let mut firsts: BTreeMap<usize, Instant> = BTreeMap::new();
    let mut looked_at = 0;
    loop {
        let records = stream.records();
        for record in &records[looked_at..] {
            let (Did::Put(_), Some((answered, _))) = (record.did, record.acknowledged) else {
                continue;
            };
            if record.invoked >= since {
                // Records come in the order of their ends.
                firsts.entry(record.endpoint).or_insert(answered);
            }
        }
        looked_at = records.len();
        drop(records);
        let served: Option<Vec<Instant>> = endpoints
            .iter()
            .map(|endpoint| firsts.get(endpoint).copied())
            .collect();
        if let Some(latest) = served.and_then(|served| served.into_iter().max()) {
            return Some(latest);
        }
        if since.elapsed() > time_max || stream.is_full() {
            return None;
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// The longest time between two successive acknowledgements of puts, from the last one before `from` to `to`; none
/// if there is none in between.
fn longest_gap_ns(records: &[Record], from: Instant, to: Instant) -> Option<u64> {
    let puts = records
        .iter()
        .filter(|record| matches!(record.did, Did::Put(_)));
    let mut times: Vec<Instant> = puts
        .filter_map(|record| Some(record.acknowledged?.0))
        .collect();
    times.sort_unstable();
    let first = times.partition_point(|at| *at < from).saturating_sub(1);
    let last = times.partition_point(|at| *at <= to);
    let gaps = times[first..last.max(first)]
        .windows(2)
        .map(|pair| ns(pair[1] - pair[0]));
    gaps.max()
}

/// Everything under the prefix, by linearizable reads of pages at one revision.
fn read_back(
    cluster: &Cluster,
    prefix: &str,
    value_bytes: usize,
) -> Result<BTreeMap<u64, Stored>, FailoverError> {
    let addresses = cluster.addresses();
    let mut attempt = 1;
    loop {
        let address = addresses[attempt as usize % addresses.len()];
        let read = block_on(async {
            let client = Client::connect(address)
                .await
                .map_err(|error| CallError::Broken(error.to_string()))?;
            read_pages(&client, prefix, value_bytes).await
        });
        match read {
            Ok(stored) => return Ok(stored),
            Err(error) if attempt == READ_ATTEMPTS_MAX => {
                return Err(FailoverError::ReadBack(error));
            }
            Err(_) => {
                std::thread::sleep(SERVE_TIME_MAX / READ_ATTEMPTS_MAX);
                attempt += 1;
            }
        }
    }
}

async fn read_pages(
    client: &Client,
    prefix: &str,
    value_bytes: usize,
) -> Result<BTreeMap<u64, Stored>, CallError> {
    let mut stored = BTreeMap::new();
    let mut end = prefix.as_bytes().to_vec();
    // The prefix ends with a slash, so that its last byte has a successor.
    *end.last_mut().expect("a prefix is not empty") += 1;
    let mut request = RangeRequest {
        key: prefix.to_owned().into(),
        range_end: end.into(),
        limit: PAGE_KEYS,
        revision: 0,
    };
    loop {
        let page: RangeResponse = client.call(RANGE, &request).await?;
        for kv in &page.kvs {
            if let Some(number) = number_of(prefix, &kv.key) {
                let value_is_right = kv.value == value(number, value_bytes);
                stored.insert(
                    number,
                    Stored {
                        mod_revision: kv.mod_revision,
                        version: kv.version,
                        value_is_right,
                    },
                );
            }
        }
        let Some(last) = page.kvs.last().filter(|_| page.more) else {
            return Ok(stored);
        };
        let mut next = last.key.to_vec();
        next.push(0);
        request.key = next.into();
        request.revision = page
            .header
            .map_or(0, |header| header.revision)
            .max(request.revision);
    }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn progress_line(trial: &Trial, trials: u32) -> String {
    let ms = |time: Option<u64>| {
        time.map_or_else(
            || "never".to_owned(),
            |ns| format!("{:.1} ms", ns as f64 / 1e6),
        )
    };
    format!(
        "trial {} of {trials}, {} member {}: put {}, read {}, all endpoints {}, longest gap {}, term {} -> {}, \
         {} puts, {} unanswered, {} lost, {} stale",
        trial.number,
        trial.fault.name(),
        trial.leader + 1,
        ms(trial.first_put_ns),
        ms(trial.first_read_ns),
        ms(trial.all_endpoints_ns),
        ms(trial.longest_gap_ns),
        trial.term_before,
        trial.term_after,
        trial.acknowledged,
        trial.unanswered,
        trial.lost,
        trial.stale,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the gap counts from the last answer before the fault, over all endpoints, up to the given end.
    #[test]
    fn gaps() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let check = |answers: &[u64], from: u64, to: u64, expected_ms: Option<u64>| {
            let records: Vec<Record> = answers
                .iter()
                .map(|ms| Record {
                    did: Did::Put(*ms),
                    endpoint: 0,
                    probe: true,
                    invoked: start,
                    acknowledged: Some((at(*ms), 1)),
                    found: None,
                })
                .collect();
            let gap_ms = longest_gap_ns(&records, at(from), at(to)).map(|ns| ns / 1_000_000);
            assert_eq!(gap_ms, expected_ms, "{answers:?}");
        };
        check(&[0, 10, 11, 50, 60], 12, 60, Some(39));
        check(&[60, 50, 11, 10, 0], 12, 60, Some(39));
        check(&[0, 10, 20], 12, 15, None);
        check(&[], 1, 2, None);
    }
}
