//! One failover after the other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kontiki_harness::client::CallError;
use thiserror::Error;

use super::chronicle::{Chronicle, HistoryError, HistorySpec, LOAD_PREFIX};
use super::kept::Kept;
use super::outcome::{Cell, Trial};
use super::pages::{Page, read_back};
use super::stream::{Did, RECORDS_MAX, Record, Stream, StreamSpec, number_of, value};
use super::verify::{EXAMPLES_MAX, Stored, verify};
use super::victim::{Choice, Victim};
use super::{Fault, TRIALS_MAX};
use crate::cluster::{AGREE_TIME_MAX, Cluster, ClusterError, ClusterOptions};

/// Between two looks at what the stream has seen. The times themselves come from the stream.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// How long endpoints may take until each acknowledges a put before the fault, and after the healing.
const SERVE_TIME_MAX: Duration = Duration::from_secs(30);

/// What to do.
#[derive(Clone, Debug)]
pub struct Spec {
    /// At least three members; talking through proxies is for the trials to say.
    pub cluster: ClusterOptions,
    /// What is done to a member; several take turns.
    pub faults: Vec<Fault>,
    /// To which one.
    pub victim: Victim,
    /// A recorded load beside the trials; none for the trials alone.
    pub history: Option<HistorySpec>,
    /// How often, at most [`TRIALS_MAX`].
    pub trials: u32,
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
    /// The history cannot be recorded or judged.
    #[error("the history: {0}")]
    History(#[from] HistoryError),
    /// A trial took so long that not everything was kept.
    #[error("more operations in one trial than are kept")]
    Full,
    /// The user ended it.
    #[error("interrupted")]
    Interrupted,
}

/// Runs all trials on one cluster. The cell holds those that ended, also when an error ends them.
pub fn failover(spec: &Spec, stop: &AtomicBool) -> (Cell, Option<FailoverError>) {
    let mut cell = Cell {
        settings: spec.cluster.settings,
        ..Cell::default()
    };
    let error = start(spec)
        .map_err(FailoverError::from)
        .and_then(|mut cluster| match &spec.history {
            None => run_trials(spec, &mut cluster, stop, &mut cell.trials, None),
            Some(history) => run_recorded(spec, history, &mut cluster, stop, &mut cell),
        });
    (cell, error.err())
}

/// Runs all trials beside a recorded load, and judges the record, also when an error ends the trials. Where something
/// is wrong, what the members said in their logs is kept beside the record.
fn run_recorded(
    spec: &Spec,
    history: &HistorySpec,
    cluster: &mut Cluster,
    stop: &AtomicBool,
    cell: &mut Cell,
) -> Result<(), FailoverError> {
    Cluster::remove_logs(&history.directory)?;
    let addresses = cluster.addresses();
    let mut chronicle = Chronicle::start(history, &addresses, spec.patience, spec.seed)?;
    let tried = run_trials(spec, cluster, stop, &mut cell.trials, Some(&mut chronicle));
    let ended = judge(spec, history, cluster, chronicle, tried, cell);
    if ended.is_err() || cell.is_wrong() {
        let copied = cluster.copy_logs(&history.directory);
        // What ended the trials says more than that.
        return ended.and(copied.map_err(FailoverError::from));
    }
    ended
}

/// Ends the load, and judges all that was recorded, as far as there is anything to judge.
fn judge(
    spec: &Spec,
    history: &HistorySpec,
    cluster: &Cluster,
    mut chronicle: Chronicle,
    tried: Result<(), FailoverError>,
    cell: &mut Cell,
) -> Result<(), FailoverError> {
    if tried.is_ok() {
        chronicle.await_last_writes();
    }
    let ended = chronicle.end_load();
    if let Err(FailoverError::Full) = tried {
        // Puts of that trial are nowhere: as nobody's they would be violations.
        return tried;
    }
    let read = match (&tried, &ended) {
        // Everything that was acknowledged is still there, by every member.
        (Ok(()), Ok(())) => read_load_keys(cluster, &mut chronicle),
        _ => Ok(()),
    };
    if spec.progress {
        eprintln!(
            "judging what was recorded in {}",
            history.directory.display()
        );
    }
    let judged = chronicle
        .judge()
        .map(|found| cell.history = Some(found))
        .map_err(FailoverError::from);
    // The first of them is the cause of the others.
    tried
        .and(ended.map_err(FailoverError::from))
        .and(read)
        .and(judged)
}

fn read_load_keys(cluster: &Cluster, chronicle: &mut Chronicle) -> Result<(), FailoverError> {
    for address in cluster.addresses() {
        let pages = read_back(&[address], LOAD_PREFIX).map_err(FailoverError::ReadBack)?;
        chronicle.pages(&pages);
    }
    Ok(())
}

/// A cluster as the trials need it.
pub(super) fn start(spec: &Spec) -> Result<Cluster, ClusterError> {
    if spec.cluster.members < 3 {
        return Err(ClusterError::Settings(
            "a failover needs at least 3 members".to_owned(),
        ));
    }
    Cluster::start(&ClusterOptions {
        proxied: spec.faults.contains(&Fault::Isolate),
        ..spec.cluster.clone()
    })
}

pub(super) fn run_trials(
    spec: &Spec,
    cluster: &mut Cluster,
    stop: &AtomicBool,
    trials: &mut Vec<Trial>,
    mut chronicle: Option<&mut Chronicle>,
) -> Result<(), FailoverError> {
    let mut random = fastrand::Rng::with_seed(spec.seed);
    let mut kept = Vec::new();
    for number in 1..=spec.trials.min(TRIALS_MAX) {
        if stop.load(Ordering::Relaxed) {
            return Err(FailoverError::Interrupted);
        }
        let fault = spec.faults[(number as usize - 1) % spec.faults.len()];
        // A random moment within heartbeats and elections.
        let before = spec.before.mul_f64(1.0 + random.f64());
        let plan = Plan {
            number,
            fault,
            before,
            victim: spec.victim.choose(&mut random),
        };
        let (trial, left) = run_trial(spec, cluster, &plan, chronicle.as_deref_mut())?;
        if spec.progress {
            eprintln!("{}", progress_line(&trial, spec.trials));
        }
        let recovered = trial.recovered();
        trials.push(trial);
        kept.push(left);
        if !recovered {
            // The next trial would measure the rest of this one.
            cluster.wait_agreed(AGREE_TIME_MAX)?;
        }
    }
    ask_again(spec, cluster, stop, trials, &kept, chronicle)
}

/// Reads what all trials have left, through every member: what was read back when its trial was over may have been lost
/// by a later restart or checkpoint, or by one member alone. What is gone counts as lost in its trial.
fn ask_again(
    spec: &Spec,
    cluster: &Cluster,
    stop: &AtomicBool,
    trials: &mut [Trial],
    kept: &[Kept],
    mut chronicle: Option<&mut Chronicle>,
) -> Result<(), FailoverError> {
    for (trial, kept) in trials.iter_mut().zip(kept) {
        // By one member alone or by all: it is the same puts.
        let mut lost = 0;
        for (member, address) in cluster.addresses().into_iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Err(FailoverError::Interrupted);
            }
            let pages = read_back(&[address], kept.prefix()).map_err(FailoverError::ReadBack)?;
            if let Some(chronicle) = chronicle.as_deref_mut() {
                chronicle.pages(&pages);
            }
            let Some(gone) = kept.gone(&pages) else {
                continue;
            };
            let (number, member) = (trial.number, member + 1);
            let words = format!("trial {number}, at the end through member {member}: {gone}");
            if spec.progress {
                eprintln!("{words}");
            }
            lost = lost.max(gone.puts);
            if trial.examples.len() < EXAMPLES_MAX {
                trial.examples.push(words);
            }
        }
        trial.lost += lost;
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
        records_max: RECORDS_MAX,
    })?)
}

fn prefix(name: &str) -> String {
    format!("kontiki-load/failover/{name}/")
}

/// What one trial does.
struct Plan {
    number: u32,
    fault: Fault,
    /// Load before the fault.
    before: Duration,
    /// Who is hurt, counted from the leader.
    victim: Choice,
}

fn run_trial(
    spec: &Spec,
    cluster: &mut Cluster,
    plan: &Plan,
    mut chronicle: Option<&mut Chronicle>,
) -> Result<(Trial, Kept), FailoverError> {
    let start = Instant::now();
    let name = plan.number.to_string();
    let stream = start_stream(spec, cluster, &name)?;
    let seen = hurt_and_heal(spec, cluster, plan, &stream, start);
    let records = stream.finish().ok_or(FailoverError::Full)?;
    let prefix = prefix(&name);
    // Also those of a trial that failed: they may be there.
    if let Some(chronicle) = chronicle.as_deref_mut() {
        chronicle.puts(&records, &prefix, spec.value_bytes);
    }
    let seen = seen?;
    if let Some(chronicle) = chronicle.as_deref_mut() {
        chronicle.healed();
    }
    let mut addresses = cluster.addresses();
    // Not always through the same member.
    addresses.rotate_left(plan.number as usize % cluster.size());
    let pages = read_back(&addresses, &prefix).map_err(FailoverError::ReadBack)?;
    if let Some(chronicle) = chronicle {
        chronicle.pages(&pages);
    }
    let stored = stored_in(&pages, &prefix, spec.value_bytes);
    let findings = verify(&records, &stored, start);
    let at = seen.at;
    let first = |is_wanted: fn(Did) -> bool| {
        let sent_after = records
            .iter()
            .filter(|record| is_wanted(record.did) && record.invoked >= at);
        sent_after
            .filter_map(|record| Some(ns(record.acknowledged?.0 - at)))
            .min()
    };
    let trial = Trial {
        number: plan.number,
        fault: plan.fault,
        member: seen.member,
        led: seen.led,
        term_before: seen.term_before,
        term_after: seen.term_after,
        first_put_ns: first(|did| matches!(did, Did::Put(_)))
            .filter(|first| *first <= ns(spec.recovery_max)),
        first_read_ns: first(|did| matches!(did, Did::Read(_))),
        all_endpoints_ns: seen.all_served.map(|served| ns(served - at)),
        longest_gap_ns: longest_gap_ns(&records, at, seen.healing),
        heal_ns: seen.heal_ns,
        acknowledged: findings.acknowledged,
        unanswered: findings.unanswered,
        took_effect: findings.took_effect,
        reads: findings.reads,
        lost: findings.lost,
        stale: findings.stale,
        examples: findings.examples,
    };
    Ok((trial, Kept::new(prefix, &pages)))
}

/// What is seen of a trial while it goes on.
struct Seen {
    member: usize,
    led: bool,
    term_before: u64,
    term_after: u64,
    /// Right after the fault.
    at: Instant,
    /// When all other endpoints had acknowledged a put that was sent after it.
    all_served: Option<Instant>,
    /// When the healing began.
    healing: Instant,
    heal_ns: u64,
}

/// The fault and its healing, under the stream's load.
fn hurt_and_heal(
    spec: &Spec,
    cluster: &mut Cluster,
    plan: &Plan,
    stream: &Stream,
    start: Instant,
) -> Result<Seen, FailoverError> {
    let everywhere: Vec<usize> = (0..cluster.size()).collect();
    wait_served(stream, &everywhere, start, SERVE_TIME_MAX).ok_or(FailoverError::Silent {
        when: "before the fault",
    })?;
    std::thread::sleep(plan.before);
    // An election that nobody needed may just be over.
    let status = cluster.wait_agreed(AGREE_TIME_MAX)?;
    let leader = status.leader().expect("members that agree have a leader");
    let member = plan.victim.member(leader, cluster.size());
    let at = match plan.fault {
        Fault::Kill => cluster.kill(member)?,
        Fault::Stop => cluster.stop(member)?,
        Fault::Isolate => cluster.isolate(member)?,
        Fault::Terminate => cluster.terminate(member)?,
    };
    let others: Vec<usize> = everywhere
        .iter()
        .copied()
        .filter(|other| *other != member)
        .collect();
    let mut all_served = wait_served(stream, &others, at, spec.recovery_max);
    if plan.fault == Fault::Terminate {
        // It may serve and lead for a while yet; what counts is the gap when it goes, and that the others serve then.
        cluster.wait_ended(member)?;
        let after_its_end = wait_served(stream, &others, Instant::now(), spec.recovery_max);
        all_served = all_served.filter(|_| after_its_end.is_some());
    }
    std::thread::sleep(spec.after);
    let healing = Instant::now();
    cluster.heal(member)?;
    let healed = cluster.wait_agreed(AGREE_TIME_MAX)?;
    let heal_ns = ns(healing.elapsed());
    wait_served(stream, &everywhere, healing, SERVE_TIME_MAX).ok_or(FailoverError::Silent {
        when: "after the healing",
    })?;
    Ok(Seen {
        member,
        led: member == leader,
        term_before: status.term(),
        term_after: healed.term(),
        at,
        all_served,
        healing,
        heal_ns,
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

/// The puts of a trial that are there.
fn stored_in(pages: &[Page], prefix: &str, value_bytes: usize) -> BTreeMap<u64, Stored> {
    let kvs = pages.iter().flat_map(|page| &page.answer.kvs);
    let stored = kvs.filter_map(|kv| {
        let number = number_of(prefix, &kv.key)?;
        let stored = Stored {
            mod_revision: kv.mod_revision,
            version: kv.version,
            value_is_right: kv.value == value(number, value_bytes),
        };
        Some((number, stored))
    });
    stored.collect()
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
        "trial {} of {trials}, {} member {} ({}): put {}, read {}, all endpoints {}, longest gap {}, term {} -> {}, \
         {} puts, {} unanswered, {} lost, {} stale",
        trial.number,
        trial.fault.name(),
        trial.member + 1,
        trial.role(),
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
