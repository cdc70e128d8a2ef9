//! Reads of an interval at one revision, in slices, with everything etcd lets a range ask for.
//!
//! A read is pinned to its revision when it is created: what commits or is compacted later does not
//! change or break it. Never sees an uncommitted version, except inside a transaction.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::Keyspace;
use super::answer::{self, Packer, Parts};
use super::compact::Pin;
use super::index::KeyIndex;
use super::record::{Key, Record};
use super::request::{KeyValue, RangeRequest, RangeResponse, Refusal, SortOrder, SortTarget};
use super::span::Span;
use super::steps::{EMIT_STEPS, PACK_STEPS, SORT_STEPS, Steps};
use super::versions::Versions;

/// The answer to a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeAnswer {
    /// The committed main revision when the read was created, for the header.
    pub revision: i64,
    /// The keys.
    pub response: RangeResponse,
}

/// A range of the committed state that is under way.
#[derive(Debug)]
pub struct RangeJob {
    revision: i64,
    scan: Scan,
    /// None for a single key, which was read at creation.
    pin: Option<Pin>,
}

impl RangeJob {
    /// Starts a read at the committed state as it is now. A single key is read at once.
    ///
    /// # Errors
    /// [`Refusal::Compacted`] or [`Refusal::FutureRevision`] by the request's revision.
    pub fn new(keyspace: &mut Keyspace, request: RangeRequest) -> Result<RangeJob, Refusal> {
        let revision = keyspace.committed_revision();
        let at = match request.revision {
            ..=0 => revision,
            at if at > revision => return Err(Refusal::FutureRevision),
            at if at < keyspace.compacted_revision() => return Err(Refusal::Compacted),
            at => at,
        };
        let mut scan = Scan::new(request, at);
        let pin = if scan.span.point().is_some() {
            scan.walk(&keyspace.keys, &mut Steps::new(1));
            None
        } else {
            Some(keyspace.pins.pin(at))
        };
        Ok(RangeJob {
            revision,
            scan,
            pin,
        })
    }

    /// Works for what is left of the slice; the answer when it is complete.
    pub fn run(&mut self, keyspace: &Keyspace, steps: &mut Steps) -> Option<RangeAnswer> {
        let response = self.scan.run(&keyspace.keys, steps)?;
        self.pin = None;
        Some(RangeAnswer {
            revision: self.revision,
            response,
        })
    }
}

/// The walk itself, without the questions of what is readable and for how long.
#[derive(Debug)]
pub(super) struct Scan {
    /// What has not been visited yet.
    span: Span,
    walked: bool,
    backward: bool,
    collector: Collector,
}

impl Scan {
    /// A walk that sees main revision `at` as the newest.
    pub(super) fn new(request: RangeRequest, at: i64) -> Scan {
        let filters = Filters {
            mod_min: request.min_mod_revision,
            mod_max: request.max_mod_revision,
            create_min: request.min_create_revision,
            create_max: request.max_create_revision,
        };
        let limit = usize::try_from(request.limit)
            .ok()
            .filter(|limit| *limit > 0);
        let sorted = request.sort_target != SortTarget::Key && !request.count_only;
        // etcd's quirk: without an explicit order the limit cuts the walk in key order, with one key to
        // spare, and only what was walked is sorted.
        let quirk = sorted && request.sort_order == SortOrder::None && !filters.any();
        let collector = Collector {
            at,
            limit: limit.unwrap_or(usize::MAX),
            filters,
            count_only: request.count_only,
            stop_at_limit: request.count_skipped && !request.count_only && (!sorted || quirk),
            candidates: limit
                .filter(|_| quirk)
                .map_or(usize::MAX, |limit| limit.saturating_add(1)),
            sort: sorted.then_some(request.sort_target),
            descend: request.sort_order == SortOrder::Descend,
            parts: Parts {
                value: !request.keys_only,
                lease: !request.keys_only || request.sort_target == SortTarget::Value,
            },
            packer: Packer::default(),
            kvs: Vec::new(),
            sorted: BTreeMap::new(),
            matched: 0,
            count: 0,
        };
        let backward = !sorted && request.sort_order == SortOrder::Descend && !request.count_only;
        Scan {
            span: Span::of(&request.range),
            walked: false,
            backward,
            collector,
        }
    }

    /// Works for what is left of the slice; the answer when it is complete. A key costs a step when it
    /// is visited, and more when it is sorted.
    pub(super) fn run(&mut self, keys: &KeyIndex, steps: &mut Steps) -> Option<RangeResponse> {
        if !self.walked {
            self.walk(keys, steps);
        }
        (self.walked && self.collector.emit(steps)).then(|| self.collector.finish())
    }

    fn walk(&mut self, keys: &KeyIndex, steps: &mut Steps) {
        let Scan {
            span, collector, ..
        } = self;
        if let Some(key) = span.point() {
            if !steps.take() {
                return;
            }
            if let Some(record) = keys
                .find(key)
                .and_then(|versions| versions.live_at(collector.at))
            {
                match collector.admit(record) {
                    Admission::Direct => {
                        collector
                            .kvs
                            .push(answer::single(key.clone(), record, collector.parts));
                    }
                    Admission::Ranked => collector.rank(&Key::new(key), record),
                    Admission::Refused => {}
                }
            }
            self.walked = true;
            return;
        }
        let mut stopped: Option<Key> = None;
        let visit = |key: &Key, versions: &Versions| {
            if !steps.take() {
                stopped = Some(key.clone());
                return ControlFlow::Break(());
            }
            collector.visit(key, versions, steps)
        };
        if self.backward {
            keys.scan_back(span, visit);
        } else {
            keys.scan(span, visit);
        }
        match stopped {
            Some(key) if self.backward => span.resume_back_at(key.bytes()),
            Some(key) => span.resume_at(key.bytes()),
            None => self.walked = true,
        }
    }
}

/// Bounds of revisions, each in force when not zero.
#[derive(Clone, Copy, Debug)]
struct Filters {
    mod_min: i64,
    mod_max: i64,
    create_min: i64,
    create_max: i64,
}

impl Filters {
    fn any(self) -> bool {
        self.mod_min != 0 || self.mod_max != 0 || self.create_min != 0 || self.create_max != 0
    }

    fn pass(self, record: &Record) -> bool {
        let within = |value, min, max| (min == 0 || value >= min) && (max == 0 || value <= max);
        within(record.main(), self.mod_min, self.mod_max)
            && within(record.create(), self.create_min, self.create_max)
    }
}

/// What becomes of a live key of the interval.
enum Admission {
    /// It is the next of the answer.
    Direct,
    /// It takes part in sorting.
    Ranked,
    /// It is counted only.
    Refused,
}

/// Takes the visited versions and makes the answer of them.
#[derive(Debug)]
struct Collector {
    at: i64,
    limit: usize,
    filters: Filters,
    count_only: bool,
    /// Leave off when it is known that there is more than the limit.
    stop_at_limit: bool,
    /// How many keys in key order take part in sorting.
    candidates: usize,
    sort: Option<SortTarget>,
    descend: bool,
    parts: Parts,
    packer: Packer,
    kvs: Vec<KeyValue>,
    /// The best `limit` candidates so far, best first, equal ones in key order. Kept in order all the
    /// time: sorting a million keys at the end could not be cut into slices.
    sorted: BTreeMap<(Rank, Key), Record>,
    /// Keys that passed the filters.
    matched: usize,
    count: i64,
}

impl Collector {
    fn visit(&mut self, key: &Key, versions: &Versions, steps: &mut Steps) -> ControlFlow<()> {
        if let Some(record) = versions.live_at(self.at) {
            match self.admit(record) {
                Admission::Direct => {
                    steps.take_many(PACK_STEPS + Steps::of_bytes(record.value().len()));
                    self.kvs
                        .push(self.packer.pack(key.bytes(), record, self.parts));
                }
                Admission::Ranked => {
                    steps.take_many(SORT_STEPS);
                    self.rank(key, record);
                }
                Admission::Refused => {}
            }
            if self.stop_at_limit && self.matched > self.limit {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Counts a live key, and tells what becomes of it.
    fn admit(&mut self, record: &Record) -> Admission {
        self.count += 1;
        if self.count_only || !self.filters.pass(record) {
            return Admission::Refused;
        }
        self.matched += 1;
        match self.sort {
            Some(_) if self.matched <= self.candidates => Admission::Ranked,
            None if self.matched <= self.limit => Admission::Direct,
            _ => Admission::Refused,
        }
    }

    fn rank(&mut self, key: &Key, record: &Record) {
        let target = match self.sort {
            Some(SortTarget::Version) => Target::Number(record.version()),
            Some(SortTarget::Create) => Target::Number(record.create()),
            Some(SortTarget::Mod) => Target::Number(record.main()),
            Some(SortTarget::Value) => Target::Value(record.clone()),
            Some(SortTarget::Key) | None => return,
        };
        let rank = if self.descend {
            Rank::Descending(Reverse(target))
        } else {
            Rank::Ascending(target)
        };
        self.sorted.insert((rank, key.clone()), record.clone());
        if self.sorted.len() > self.limit {
            // The worst can never be in the answer.
            self.sorted.pop_last();
        }
    }

    /// Moves sorted versions into the answer; whether all are there.
    fn emit(&mut self, steps: &mut Steps) -> bool {
        if self.kvs.capacity() == 0 {
            // Growing would move all of a large answer at once.
            self.kvs.reserve_exact(self.sorted.len());
        }
        while !self.sorted.is_empty() {
            if !steps.take_many(EMIT_STEPS) {
                return false;
            }
            let ((_, key), record) = self.sorted.pop_first().expect("it is not empty");
            self.kvs
                .push(self.packer.pack(key.bytes(), &record, self.parts));
        }
        true
    }

    fn finish(&mut self) -> RangeResponse {
        RangeResponse {
            kvs: std::mem::take(&mut self.kvs),
            more: !self.count_only && self.matched > self.limit,
            count: self.count,
        }
    }
}

/// The place of a key in a sorted answer; all of one answer are of one kind.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Ascending(Target),
    Descending(Reverse<Target>),
}

/// What an answer is sorted by, when not by key.
#[derive(Debug)]
enum Target {
    Number(i64),
    Value(Record),
}

impl Ord for Target {
    fn cmp(&self, other: &Target) -> Ordering {
        match (self, other) {
            (Target::Number(one), Target::Number(other)) => one.cmp(other),
            (Target::Value(one), Target::Value(other)) => one.value().cmp(other.value()),
            (Target::Number(_), Target::Value(_)) => Ordering::Less,
            (Target::Value(_), Target::Number(_)) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Target {
    fn partial_cmp(&self, other: &Target) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Target {
    fn eq(&self, other: &Target) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Target {}
