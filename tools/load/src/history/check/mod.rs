//! The checker: given records, is there an order in which a single correct store would have answered so?
//!
//! Pure: no I/O, no clock, no randomness; the same entries give the same report. Runs on the thread that
//! calls it. Steps: collect; find revisions nobody acknowledged (`gaps`); real time (`order`); settle writes
//! without an answer (`unknown`); replay the writes and judge every answer (`replay`, on `store`); watches.

mod arena;
mod gaps;
mod keys;
mod order;
mod replay;
mod rule;
mod store;
mod unknown;
mod watch;

use std::collections::{BTreeMap, BTreeSet};

use super::operation::{
    Answer, Base, Entry, Interval, Kv, Nanos, Operation, Outcome, Range, RangeAnswer, Request,
    WatchEntry, WatchNotice,
};
use super::record::{Close, Header};
use arena::{Arena, Class};
use gaps::Gaps;
use keys::{KeyCollector, Keys};
pub use rule::{Report, Rule, Violation};
use unknown::{LeaseEnds, for_each_kv, for_each_put};

/// Why a history cannot be judged at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unjudgeable {
    /// No record says what the store held before.
    #[error("no record holds the state before the first operation")]
    NoBase,
}

/// One record among those judged together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceId(u16);

/// Collects records, then judges them together.
#[derive(Default)]
pub struct Checker {
    arena: Arena,
    keys: KeyCollector,
    /// The states that records begin with, by source and revision.
    bases: BTreeMap<(u16, i64), Vec<Kv>>,
    watch: Vec<(u16, WatchEntry)>,
    leases: BTreeSet<i64>,
    newest: i64,
    /// The clocks that were met.
    clocks: Vec<[u8; 16]>,
    /// Per source, its clock's place.
    sources: Vec<u16>,
    /// A record is open, or others write as well.
    shared: bool,
    misshapen: Vec<u32>,
}

/// Everything that is to be judged.
struct History {
    arena: Arena,
    keys: Keys,
    base: i64,
    base_kvs: Vec<Kv>,
    watch: Vec<(u16, WatchEntry)>,
    leases: BTreeSet<i64>,
    newest: i64,
    clocks: u16,
    sources: Vec<u16>,
    /// The records hold every write and every compaction.
    exclusive: bool,
}

impl History {
    fn clock_of_source(&self, source: u16) -> u16 {
        self.sources[usize::from(source)]
    }

    fn describe_watch(&self, number: u32) -> String {
        let (source, entry) = &self.watch[number as usize];
        let mut text = format!("record {source}: {entry:?}");
        const SHOWN_CHARS_MAX: usize = 1200;
        if let Some((end, _)) = text.char_indices().nth(SHOWN_CHARS_MAX) {
            text.truncate(end);
            text.push_str(" ...");
        }
        text
    }
}

impl Checker {
    /// Without any record.
    #[must_use]
    pub fn new() -> Checker {
        Checker::default()
    }

    /// One more record.
    ///
    /// # Panics
    /// With more than 65,535 records.
    pub fn source(&mut self, header: &Header) -> SourceId {
        let clock = self.clocks.iter().position(|clock| *clock == header.clock);
        let clock = clock.unwrap_or_else(|| {
            self.clocks.push(header.clock);
            self.clocks.len() - 1
        });
        self.shared |= !header.exclusive;
        let source = u16::try_from(self.sources.len()).expect("records are few");
        self.sources
            .push(u16::try_from(clock).expect("no more clocks than records"));
        SourceId(source)
    }

    /// How a record ended.
    pub fn close(&mut self, close: Close) {
        self.shared |= close == Close::Open;
    }

    /// The next entry of a record.
    ///
    /// # Panics
    /// With more than 2^32 operations.
    pub fn add(&mut self, source: SourceId, entry: Entry) {
        match entry {
            Entry::Base(base) => self.add_base(source, base),
            Entry::Operation(operation) => self.add_operation(source, &operation),
            Entry::Watch(watch) => self.add_watch(source, watch),
        }
    }

    fn add_base(&mut self, source: SourceId, base: Base) {
        let kvs = self.bases.entry((source.0, base.revision)).or_default();
        kvs.extend(base.kvs);
    }

    /// The lowest state is the base of all. Records may begin one after the other: what another found at its
    /// beginning is a read of that revision, at no known time.
    fn settle_bases(&mut self) -> Result<(i64, Vec<Kv>), Unjudgeable> {
        let bases = std::mem::take(&mut self.bases);
        let lowest = bases.keys().map(|(_, revision)| *revision).min();
        let lowest = lowest.ok_or(Unjudgeable::NoBase)?;
        let mut base_kvs = Vec::new();
        for ((source, revision), mut kvs) in bases {
            if revision == lowest {
                for kv in &kvs {
                    self.keys.add(&kv.key);
                    if kv.lease != 0 {
                        self.leases.insert(kv.lease);
                    }
                }
                base_kvs.append(&mut kvs);
                continue;
            }
            kvs.sort_unstable_by(|a, b| a.key.cmp(&b.key));
            let count = kvs.len() as i64;
            let answer = RangeAnswer {
                kvs,
                more: false,
                count,
            };
            let range = Range {
                interval: Interval::all(),
                limit: 0,
                revision: 0,
                serializable: true,
                count_only: false,
            };
            let read = Operation {
                client: u32::MAX,
                invoked: 0,
                returned: Nanos::MAX,
                request: Request::Range(range),
                outcome: Outcome::Ok {
                    revision,
                    answer: Answer::Range(answer),
                },
            };
            self.add_operation(SourceId(source), &read);
        }
        Ok((lowest, base_kvs))
    }

    fn see(&mut self, kv: &Kv) {
        self.keys.add(&kv.key);
        self.newest = self.newest.max(kv.mod_revision);
    }

    fn add_operation(&mut self, source: SourceId, operation: &Operation) {
        let (keys, leases) = (&mut self.keys, &mut self.leases);
        for_each_put(&operation.request, |put| {
            keys.add(&put.key);
            if put.lease != 0 {
                leases.insert(put.lease);
            }
        });
        if let Request::Txn(txn) = &operation.request {
            for compare in &txn.compares {
                keys.add(&compare.key);
            }
        }
        // A read of one key that is not there is no reason to know the key; a deletion neither.
        for_each_kv(&operation.outcome, |kv| self.see(kv));
        if let Outcome::Ok { revision, answer } = &operation.outcome {
            self.newest = self.newest.max(*revision);
            if !arena::answer_fits(&operation.request, answer) {
                self.misshapen.push(
                    self.arena
                        .heads
                        .len()
                        .try_into()
                        .expect("32 bits number operations"),
                );
            }
        }
        self.arena
            .add(self.sources[usize::from(source.0)], operation);
    }

    fn add_watch(&mut self, source: SourceId, entry: WatchEntry) {
        match &entry.notice {
            WatchNotice::Created { revision, .. } | WatchNotice::Progress { revision } => {
                self.newest = self.newest.max(*revision);
            }
            WatchNotice::Events {
                revision, events, ..
            } => {
                self.newest = self.newest.max(*revision);
                for event in events {
                    self.see(&event.kv);
                    if let Some(prev) = &event.prev {
                        self.see(prev);
                    }
                }
            }
            WatchNotice::Cancelled { .. } | WatchNotice::Ended => {}
        }
        self.watch.push((source.0, entry));
    }

    /// Judges everything that was added.
    ///
    /// # Errors
    /// When the records do not say where they begin.
    pub fn check(mut self) -> Result<Report, Unjudgeable> {
        let (base, base_kvs) = self.settle_bases()?;
        let mut history = History {
            base,
            arena: self.arena,
            keys: self.keys.finish(),
            base_kvs,
            watch: self.watch,
            leases: self.leases,
            newest: self.newest,
            clocks: u16::try_from(self.clocks.len()).unwrap_or(u16::MAX),
            sources: self.sources,
            exclusive: !self.shared,
        };
        history.arena.seal();
        let mut report = Report {
            operations: history.arena.heads.len() as u64,
            watch_notices: history.watch.len() as u64,
            revision: history.newest,
            ..Report::default()
        };
        for id in self.misshapen {
            let what = "the answer does not fit the request".to_owned();
            report.add(Rule::Shape, what, vec![history.arena.describe(id)]);
        }
        judge(&history, &mut report);
        Ok(report)
    }
}

fn judge(history: &History, report: &mut Report) {
    let arena = &history.arena;
    let mut written: Vec<(i64, u32)> = Vec::new();
    for id in arena.ids() {
        match arena.head(id).class {
            Class::Write => written.push((arena.head(id).revision, id)),
            Class::Unknown => report.unknown_writes += 1,
            Class::Read | Class::Stale | Class::Seen | Class::Other => {}
        }
    }
    report.writes = written.len() as u64;
    written.sort_unstable();
    for pair in written.windows(2) {
        if pair[0].0 == pair[1].0 {
            report.add(
                Rule::DuplicateRevision,
                format!("two writes were given revision {}", pair[0].0),
                vec![arena.describe(pair[0].1), arena.describe(pair[1].1)],
            );
        }
    }
    for (revision, id) in &written {
        if *revision > history.base {
            break;
        }
        report.add(
            Rule::DuplicateRevision,
            format!("revision {revision} existed before the record"),
            vec![arena.describe(*id)],
        );
    }
    let revisions = written.iter().map(|(revision, _)| *revision);
    let gaps = Gaps::between(history.base, history.newest, revisions);
    drop(written);
    let ends = LeaseEnds::of(history);
    let known = order::judge(history, &ends.earliest, report);
    let (plans, fog) = unknown::settle(history, &gaps, &known, &ends, report);
    let store = replay::run(history, &plans, &fog, report);
    watch::judge(history, &store, &fog, report);
}
