//! Writes without an answer: which of them made the revisions that nobody acknowledged.
//!
//! A candidate may have made a revision only when it was invoked before that revision was known, and when
//! every version that answers and events show of that revision is one it writes. If just one candidate is left, or
//! all that are left do the same, it is settled. Everything else stays open, as fog: then a judgement that
//! could go either way is not made.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use foldhash::fast::FixedState;

use super::super::operation::{
    Answer, Interval, Kv, Nanos, Outcome, Put, Request, TxnOp, TxnOpAnswer, ValueHash, WatchNotice,
};
use super::History;
use super::arena::{Class, OpId};
use super::gaps::{Fog, Gaps};
use super::order::Known;
use super::rule::{Report, Rule};

/// Rounds over revisions with several candidates; each one that settles may settle another.
const ROUNDS_MAX: usize = 8;
/// A lease may be seen to end this part earlier than granted: clocks of two machines differ in speed.
const LEASE_SLACK: u64 = 100;

/// What an answer or event shows of a revision that nobody acknowledged.
#[derive(Clone, Debug)]
pub(super) enum Trace {
    /// The key had this version.
    Put(Kv),
    /// The key was deleted.
    Deletion,
}

/// Who may have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// A request without an answer.
    Operation(OpId),
    /// The end of a lease, revoked or expired.
    LeaseEnd(i64),
}

/// What happened at a revision that nobody acknowledged.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Its writer, when settled.
    pub(super) writer: Option<Writer>,
    /// What was seen of it, by key.
    pub(super) traces: BTreeMap<u32, Trace>,
}

/// Ends of leases that may have deleted keys.
pub(super) struct LeaseEnds {
    /// The leases, once for each grant.
    leases: Vec<i64>,
    /// The clock and the first moment of each end.
    pub(super) earliest: Vec<(u16, Nanos)>,
}

impl LeaseEnds {
    /// Every lease that keys were put on.
    pub(super) fn of(history: &History) -> LeaseEnds {
        // One end for each grant: an id may be granted again.
        let mut granted: BTreeMap<i64, Vec<(u16, Nanos)>> = BTreeMap::new();
        let mut revoked: Vec<(i64, u16, Nanos)> = Vec::new();
        let mut renewed: Vec<(i64, u16, Nanos)> = Vec::new();
        if !history.leases.is_empty() {
            for id in history.arena.ids() {
                let head = history.arena.head(id);
                if !matches!(head.class, Class::Seen | Class::Other) {
                    continue;
                }
                let operation = history.arena.operation(id);
                match (&operation.request, &operation.outcome) {
                    (
                        _,
                        Outcome::Ok {
                            answer: Answer::LeaseGrant { id, ttl },
                            ..
                        },
                    )
                    | (Request::LeaseGrant { id, ttl }, Outcome::Unknown) => {
                        let end = expiry(operation.invoked, *ttl);
                        granted.entry(*id).or_default().push((head.clock, end));
                    }
                    (
                        Request::LeaseKeepAlive(id),
                        Outcome::Ok {
                            answer: Answer::LeaseKeepAlive(ttl),
                            ..
                        },
                    ) if *ttl > 0 => {
                        renewed.push((*id, head.clock, expiry(operation.invoked, *ttl)));
                    }
                    (Request::LeaseRevoke(id), Outcome::Ok { .. } | Outcome::Unknown) => {
                        revoked.push((*id, head.clock, operation.invoked));
                    }
                    _ => {}
                }
            }
        }
        for (id, clock, at) in renewed {
            // Of several grants nobody knows which one was renewed; another clock's moment cannot be compared.
            if let Some([(of, end)]) = granted.get_mut(&id).map(Vec::as_mut_slice)
                && *of == clock
            {
                *end = (*end).max(at);
            }
        }
        for (id, clock, at) in revoked {
            // Another clock's moment cannot be compared: then it may end at any time.
            for (of, end) in granted.get_mut(&id).into_iter().flatten() {
                *end = if *of == clock { (*end).min(at) } else { 0 };
            }
        }
        let mut ends = LeaseEnds {
            leases: Vec::new(),
            earliest: Vec::new(),
        };
        for lease in &history.leases {
            let grants = granted.get(lease);
            for (clock, end) in grants.into_iter().flatten() {
                ends.leases.push(*lease);
                ends.earliest.push((*clock, *end));
            }
            if grants.is_none() {
                // Granted before the record: it may end at any time.
                ends.leases.push(*lease);
                ends.earliest.push((0, 0));
            }
        }
        ends
    }
}

/// When a lease that was granted or renewed after `invoked` may be seen to expire, at the earliest.
fn expiry(invoked: Nanos, ttl_seconds: i64) -> Nanos {
    let ttl = u64::try_from(ttl_seconds)
        .unwrap_or(0)
        .saturating_mul(1_000_000_000);
    invoked.saturating_add(ttl - ttl / LEASE_SLACK)
}

struct Candidate {
    writer: Writer,
    /// It can only have made a revision above this one.
    after: i64,
    taken: bool,
}

type ByKey<K> = HashMap<K, Vec<usize>, FixedState>;

/// All candidates, by what they may do.
#[derive(Default)]
struct Candidates {
    all: Vec<Candidate>,
    by_put: ByKey<(u32, ValueHash)>,
    by_delete: ByKey<u32>,
    range_deletes: Vec<((u32, u32), usize)>,
}

/// Settles what can be settled.
pub(super) fn settle(
    history: &History,
    gaps: &Gaps,
    known: &Known,
    ends: &LeaseEnds,
    report: &mut Report,
) -> (BTreeMap<i64, Plan>, Fog) {
    if gaps.is_empty() {
        return (BTreeMap::new(), Fog::default());
    }
    let mut plans = collect_traces(history, gaps, report);
    let mut candidates = Candidates::collect(history, known, ends);
    let mut wild = !history.exclusive;
    let impossible = candidates.settle_by_traces(history, &mut plans, wild, report);
    let done: BTreeSet<i64> = settled(&plans).chain(impossible).collect();
    let open = gaps.without(done.into_iter());
    if !wild && candidates.settle_the_rest(&open, &mut plans, report) {
        // One revision too many was reported; what it did is anybody's guess.
        wild = true;
    }
    report.unknown_settled = settled(&plans).count() as u64;
    let open = gaps.without(settled(&plans));
    report.revisions_unsettled = open.count();
    (plans, candidates.fog(open, wild))
}

fn settled(plans: &BTreeMap<i64, Plan>) -> impl Iterator<Item = i64> {
    plans
        .iter()
        .filter(|(_, plan)| plan.writer.is_some())
        .map(|(revision, _)| *revision)
}

/// Everything that answers and events show of the gaps.
fn collect_traces(history: &History, gaps: &Gaps, report: &mut Report) -> BTreeMap<i64, Plan> {
    let mut plans = BTreeMap::new();
    let mut add = |kv: &Kv, by: &dyn Fn() -> String| {
        if gaps.contains(kv.mod_revision) {
            add_trace(history, &mut plans, kv, Trace::Put(kv.clone()), by, report);
        }
    };
    for id in history.arena.ids() {
        let head = history.arena.head(id);
        if matches!(head.class, Class::Unknown | Class::Other | Class::Seen) {
            continue;
        }
        let by = || history.arena.describe(id);
        for_each_kv(&history.arena.operation(id).outcome, |kv| add(kv, &by));
    }
    for (number, (_, entry)) in (0..).zip(&history.watch) {
        let WatchNotice::Events { events, .. } = &entry.notice else {
            continue;
        };
        let by = || history.describe_watch(number);
        for event in events {
            if let Some(prev) = &event.prev {
                add(prev, &by);
            }
            if event.put {
                add(&event.kv, &by);
            }
        }
    }
    for (number, (_, entry)) in (0..).zip(&history.watch) {
        let WatchNotice::Events { events, .. } = &entry.notice else {
            continue;
        };
        let by = || history.describe_watch(number);
        for event in events.iter().filter(|event| !event.put) {
            if gaps.contains(event.kv.mod_revision) {
                add_trace(history, &mut plans, &event.kv, Trace::Deletion, &by, report);
            }
        }
    }
    plans
}

/// Calls `each` with every version an answer shows.
pub(super) fn for_each_kv(outcome: &Outcome, mut each: impl FnMut(&Kv)) {
    let Outcome::Ok { answer, .. } = outcome else {
        return;
    };
    let mut all = |kvs: &[Kv]| kvs.iter().for_each(&mut each);
    match answer {
        Answer::Put(answer) => all(answer.prev.as_slice()),
        Answer::Range(answer) => all(&answer.kvs),
        Answer::Delete(answer) => all(&answer.prev_kvs),
        Answer::Txn(answer) => {
            for answer in &answer.answers {
                match answer {
                    TxnOpAnswer::Put(answer) => all(answer.prev.as_slice()),
                    TxnOpAnswer::Range(answer) => all(&answer.kvs),
                    TxnOpAnswer::Delete(answer) => all(&answer.prev_kvs),
                }
            }
        }
        Answer::Compact
        | Answer::LeaseGrant { .. }
        | Answer::LeaseRevoke
        | Answer::LeaseKeepAlive(_) => {}
    }
}

fn add_trace(
    history: &History,
    plans: &mut BTreeMap<i64, Plan>,
    kv: &Kv,
    trace: Trace,
    by: &dyn Fn() -> String,
    report: &mut Report,
) {
    let key = history.keys.number(&kv.key);
    let plan: &mut Plan = plans.entry(kv.mod_revision).or_default();
    let agree = match (plan.traces.get_mut(&key), trace) {
        (None, trace) => {
            plan.traces.insert(key, trace);
            true
        }
        (Some(Trace::Put(first)), Trace::Put(other)) => {
            let same = first.value.is_none() || other.value.is_none() || {
                first.value == other.value && first.lease == other.lease
            };
            let same = same
                && first.create_revision == other.create_revision
                && first.version == other.version;
            if first.value.is_none() {
                *first = other;
            }
            same
        }
        (Some(Trace::Deletion), Trace::Deletion) => true,
        (Some(_), _) => false,
    };
    if !agree {
        report.add(
            Rule::Disagreement,
            format!(
                "two answers differ about key {:?} at revision {}",
                kv.key, kv.mod_revision
            ),
            vec![by()],
        );
    }
}

impl Candidates {
    fn collect(history: &History, known: &Known, ends: &LeaseEnds) -> Candidates {
        let mut candidates = Candidates::default();
        let mut on_lease: BTreeMap<i64, BTreeSet<u32>> = BTreeMap::new();
        let keys = &history.keys;
        for id in history.arena.ids() {
            let class = history.arena.head(id).class;
            // Acknowledged puts are read only for their leases.
            if class != Class::Unknown && (class != Class::Write || history.leases.is_empty()) {
                continue;
            }
            let request = history.arena.operation(id).request;
            for_each_put(&request, |put| {
                if put.lease != 0 {
                    let keys_of = on_lease.entry(put.lease).or_default();
                    keys_of.insert(keys.number(&put.key));
                }
            });
            if class == Class::Unknown {
                let number = candidates.all.len();
                candidates.all.push(Candidate {
                    writer: Writer::Operation(id),
                    after: known.before[id as usize],
                    taken: false,
                });
                candidates.index(history, number, &request);
            }
        }
        for kv in &history.base_kvs {
            if kv.lease != 0 {
                let keys_of = on_lease.entry(kv.lease).or_default();
                keys_of.insert(keys.number(&kv.key));
            }
        }
        for (lease, before) in ends.leases.iter().zip(&known.before_lease_end) {
            let number = candidates.all.len();
            candidates.all.push(Candidate {
                writer: Writer::LeaseEnd(*lease),
                after: *before,
                taken: false,
            });
            for key in on_lease.get(lease).into_iter().flatten() {
                candidates.by_delete.entry(*key).or_default().push(number);
            }
        }
        candidates
    }

    fn index(&mut self, history: &History, number: usize, request: &Request) {
        for_each_put(request, |put| {
            let key = history.keys.number(&put.key);
            let with = self.by_put.entry((key, put.value)).or_default();
            with.push(number);
        });
        for_each_deletion(request, |interval| {
            let span = history.keys.span(interval);
            if span.1 == span.0 + 1 {
                self.by_delete.entry(span.0).or_default().push(number);
            } else if span.0 < span.1 {
                self.range_deletes.push((span, number));
            }
        });
    }

    /// Those that may have left every trace.
    fn fitting(&self, plan: &Plan) -> Vec<usize> {
        let mut fitting: Option<BTreeSet<usize>> = None;
        for (key, trace) in &plan.traces {
            let with: BTreeSet<usize> = match trace {
                // Only the key was shown: whoever puts it.
                Trace::Put(Kv { value: None, .. }) => continue,
                Trace::Put(Kv {
                    value: Some(value), ..
                }) => {
                    let with = self.by_put.get(&(*key, *value));
                    with.into_iter().flatten().copied().collect()
                }
                Trace::Deletion => {
                    let ranges = self.range_deletes.iter();
                    let ranges = ranges
                        .filter(|((first, end), _)| (*first..*end).contains(key))
                        .map(|(_, number)| *number);
                    let single = self.by_delete.get(key).into_iter().flatten().copied();
                    single.chain(ranges).collect()
                }
            };
            fitting = Some(match fitting {
                None => with,
                Some(before) => before.intersection(&with).copied().collect(),
            });
        }
        match fitting {
            Some(fitting) => fitting.into_iter().collect(),
            None => (0..self.all.len()).collect(),
        }
    }

    /// Gives the revisions that no candidate can have made, after telling of them.
    fn settle_by_traces(
        &mut self,
        history: &History,
        plans: &mut BTreeMap<i64, Plan>,
        wild: bool,
        report: &mut Report,
    ) -> Vec<i64> {
        let mut impossible = Vec::new();
        let mut open: Vec<i64> = plans.keys().copied().collect();
        for round in 0..ROUNDS_MAX {
            let before = open.len();
            open.retain(|revision| {
                let Some(plan) = plans.get_mut(revision) else {
                    return false;
                };
                let fitting = self.fitting(plan);
                let free: Vec<usize> = fitting
                    .iter()
                    .copied()
                    .filter(|number| !self.all[*number].taken)
                    .collect();
                let timely = free.iter().copied();
                let timely: Vec<usize> = timely
                    .filter(|number| self.all[*number].after < *revision)
                    .collect();
                // Of some that do the same, the one with the least choice: the others may be needed for
                // an older revision.
                match timely.iter().max_by_key(|number| self.all[**number].after) {
                    // Others write as well: it need not have been any of these.
                    _ if wild => false,
                    None => {
                        complain(history, *revision, plan, self, &free, report);
                        impossible.push(*revision);
                        false
                    }
                    Some(first) if self.are_alike(history, &timely) => {
                        self.all[*first].taken = true;
                        plan.writer = Some(self.all[*first].writer);
                        false
                    }
                    Some(_) => true,
                }
            });
            if round > 0 && open.len() == before {
                break;
            }
        }
        impossible
    }

    /// Whether it makes no difference which of them it was.
    fn are_alike(&self, history: &History, numbers: &[usize]) -> bool {
        let effects = |number: &usize| match self.all[*number].writer {
            Writer::Operation(id) => Some(history.arena.operation(id).request),
            Writer::LeaseEnd(_) => None,
        };
        match numbers {
            [] | [_] => true,
            [first, rest @ ..] => {
                let first = effects(first);
                first.is_some() && rest.iter().all(|number| effects(number) == first)
            }
        }
    }

    /// Goes over the revisions nothing is settled about in order; says whether there is one too many.
    fn settle_the_rest(
        &mut self,
        open: &Gaps,
        plans: &mut BTreeMap<i64, Plan>,
        report: &mut Report,
    ) -> bool {
        let mut waiting: Vec<usize> = (0..self.all.len())
            .filter(|number| !self.all[*number].taken)
            .collect();
        waiting.sort_unstable_by_key(|number| self.all[*number].after);
        let mut waiting = waiting.into_iter().peekable();
        // Those that may have made the revision at hand, and how many of them made one before.
        let (mut free, mut used) = (Vec::new(), 0);
        for (first, last) in open.ranges() {
            let mut revision = *first;
            while revision <= *last {
                while let Some(number) =
                    waiting.next_if(|number| self.all[*number].after < revision)
                {
                    free.push(number);
                }
                if free.len() <= used {
                    report.add(
                        Rule::MissingWriter,
                        format!("no write can have made revision {revision}"),
                        vec![],
                    );
                    return true;
                }
                if let (&[only], 0) = (&free[..], used) {
                    self.all[only].taken = true;
                    plans.entry(revision).or_default().writer = Some(self.all[only].writer);
                    free.clear();
                } else {
                    used += 1;
                }
                revision += 1;
            }
        }
        false
    }

    fn fog(self, gaps: Gaps, wild: bool) -> Fog {
        let mut fog = Fog {
            gaps,
            wild,
            ..Fog::default()
        };
        if fog.gaps.is_empty() {
            return fog;
        }
        let first = |numbers: &[usize]| {
            let free = numbers.iter().filter(|number| !self.all[**number].taken);
            free.map(|number| self.all[*number].after).min()
        };
        // The order of these maps decides nothing: each entry takes part in a minimum, or is sorted.
        for ((key, _), numbers) in &self.by_put {
            if let Some(after) = first(numbers) {
                let least = fog.puts.entry(*key).or_insert(after);
                *least = after.min(*least);
            }
        }
        for (key, numbers) in &self.by_delete {
            if let Some(after) = first(numbers) {
                fog.deletes.insert(*key, after);
            }
        }
        for (span, number) in &self.range_deletes {
            if let Some(after) = first(&[*number]) {
                fog.range_deletes.push((*span, after));
            }
        }
        let touched: BTreeSet<u32> = fog.puts.keys().chain(fog.deletes.keys()).copied().collect();
        fog.touched = touched.into_iter().collect();
        fog
    }
}

fn complain(
    history: &History,
    revision: i64,
    plan: &Plan,
    candidates: &Candidates,
    free: &[usize],
    report: &mut Report,
) {
    let shown: Vec<String> = plan
        .traces
        .iter()
        .map(|(key, trace)| format!("key {:?}: {trace:?}", history.keys.name(*key)))
        .collect();
    let writers: Vec<String> = free
        .iter()
        .map(|number| match candidates.all[*number].writer {
            Writer::Operation(id) => history.arena.describe(id),
            Writer::LeaseEnd(lease) => format!("the end of lease {lease}"),
        })
        .collect();
    let (rule, what) = if free.is_empty() {
        let what = "was seen, and no write can have made it";
        (Rule::Phantom, what)
    } else {
        let what = "was known before the write that left these traces was invoked";
        (Rule::WrittenTooLate, what)
    };
    report.add(
        rule,
        format!("revision {revision} {what}"),
        shown.into_iter().chain(writers).collect(),
    );
}

/// Calls `each` with every put a request may do.
pub(super) fn for_each_put(request: &Request, mut each: impl FnMut(&Put)) {
    match request {
        Request::Put(put) => each(put),
        Request::Txn(txn) => {
            for op in txn.success.iter().chain(&txn.failure) {
                if let TxnOp::Put(put) = op {
                    each(put);
                }
            }
        }
        _ => {}
    }
}

/// Calls `each` with every interval a request may delete.
fn for_each_deletion(request: &Request, mut each: impl FnMut(&Interval)) {
    match request {
        Request::Delete(delete) => each(&delete.interval),
        Request::Txn(txn) => {
            for op in txn.success.iter().chain(&txn.failure) {
                if let TxnOp::Delete(delete) = op {
                    each(&delete.interval);
                }
            }
        }
        _ => {}
    }
}
