//! What etcd promises of a watch: ordered, unique, reliable, atomic, resumable, bookmarkable.
//!
//! Each response is compared with the log of changes that the replay of the writes has left. A watch that
//! was resumed is a new one with its own start revision, so a gap at the seam is a gap after that start.

use std::collections::{BTreeMap, BTreeSet};

use super::super::operation::{
    Event, Kv, Outcome, Request, WATCH_ALL, WatchEntry, WatchNotice, WatchRequest,
};
use super::History;
use super::gaps::Fog;
use super::rule::{Report, Rule};
use super::store::{Change, Store, UNCERTAIN};

/// Judges every watch.
pub(super) fn judge(history: &History, store: &Store, fog: &Fog, report: &mut Report) {
    let Some(log) = &store.log else {
        return;
    };
    let mut judge = Judge {
        history,
        fog,
        unordered: &store.unordered,
        report,
        index: Index::new(log, history.keys.len(), history.base),
        compactions: compactions(history),
        watches: BTreeMap::new(),
        now: 0,
    };
    for (number, (source, entry)) in (0..).zip(&history.watch) {
        judge.now = number;
        judge.notice(*source, entry);
    }
}

/// The revisions of all compactions that may have taken effect.
fn compactions(history: &History) -> Vec<i64> {
    let mut compactions = Vec::new();
    for id in history.arena.ids() {
        use super::arena::Class;
        if !matches!(history.arena.head(id).class, Class::Seen | Class::Other) {
            continue;
        }
        let operation = history.arena.operation(id);
        if let Request::Compact(revision) = operation.request
            && !matches!(operation.outcome, Outcome::Refused(_))
        {
            compactions.push(revision);
        }
    }
    compactions
}

/// The log of changes, also by key.
struct Index<'a> {
    log: &'a [Change],
    /// Where the changes after the base begin.
    first: usize,
    /// Places in the log, by key; those of key k are `places[starts[k]..starts[k + 1]]`.
    places: Vec<u32>,
    starts: Vec<u32>,
}

impl<'a> Index<'a> {
    fn new(log: &'a [Change], keys: usize, base: i64) -> Index<'a> {
        // The base's versions stand first, in key order; whatever follows is above it.
        let first = log.iter().take_while(|change| change.revision <= base);
        let first = first.count();
        let mut starts = vec![0u32; keys + 1];
        for change in log {
            starts[change.key as usize + 1] += 1;
        }
        for at in 0..keys {
            starts[at + 1] += starts[at];
        }
        let mut next = starts.clone();
        let mut places = vec![0; log.len()];
        for (place, change) in (0u32..).zip(log) {
            let at = &mut next[change.key as usize];
            places[*at as usize] = place;
            *at += 1;
        }
        Index {
            log,
            first,
            places,
            starts,
        }
    }

    fn of_key(&self, key: u32) -> &[u32] {
        let (first, end) = (self.starts[key as usize], self.starts[key as usize + 1]);
        &self.places[first as usize..end as usize]
    }

    fn change(&self, place: u32) -> &'a Change {
        &self.log[place as usize]
    }

    /// Places of the changes in a span of keys with `after < revision <= upto`, in order.
    fn between(&self, span: (u32, u32), after: i64, upto: i64) -> Vec<u32> {
        let log = &self.log[self.first..];
        let from = self.first + log.partition_point(|change| change.revision <= after);
        let to = self.first + log.partition_point(|change| change.revision <= upto);
        if from >= to {
            return Vec::new();
        }
        let window = from as u32..to as u32;
        if window.len() <= 4 * (span.1 - span.0) as usize {
            return window
                .filter(|place| (span.0..span.1).contains(&self.change(*place).key))
                .collect();
        }
        let mut places = Vec::new();
        for key in span.0..span.1 {
            let of_key = self.of_key(key);
            let begin = of_key.partition_point(|place| *place < window.start);
            places.extend(
                of_key[begin..]
                    .iter()
                    .take_while(|place| **place < window.end),
            );
        }
        places.sort_unstable();
        places
    }

    /// The place of a key's change at a revision.
    fn find(&self, key: u32, revision: i64) -> Option<u32> {
        let of_key = self.of_key(key);
        let at = of_key.partition_point(|place| self.change(*place).revision < revision);
        let place = *of_key.get(at)?;
        (self.change(place).revision == revision).then_some(place)
    }

    /// The change of a key before one of its changes.
    fn before(&self, place: u32) -> Option<&Change> {
        let of_key = self.of_key(self.change(place).key);
        let at = of_key.partition_point(|each| *each < place);
        Some(self.change(of_key[at.checked_sub(1)?]))
    }
}

struct Watch {
    request: WatchRequest,
    span: (u32, u32),
    /// First revision owed.
    start: i64,
    /// Everything up to here has come, or was complained about.
    seen: i64,
    /// Of the last event that came; zero for none.
    last: i64,
    bookmark: i64,
    /// Pieces of a response of which more are to come.
    pieces: Vec<Event>,
    /// Events of revision `last` that did not come with it.
    owed: BTreeSet<u32>,
    /// Events that should have come earlier, by place; complained about.
    missed: BTreeSet<u32>,
}

struct Judge<'a> {
    history: &'a History,
    fog: &'a Fog,
    unordered: &'a BTreeSet<i64>,
    report: &'a mut Report,
    index: Index<'a>,
    compactions: Vec<i64>,
    watches: BTreeMap<(u16, u32, i64), Watch>,
    /// The notice being judged.
    now: u32,
}

impl Judge<'_> {
    fn complain(&mut self, rule: Rule, what: String) {
        let notice = self.history.describe_watch(self.now);
        self.report.add(rule, what, vec![notice]);
    }

    fn notice(&mut self, source: u16, entry: &WatchEntry) {
        let name = (source, entry.stream, entry.watch);
        match &entry.notice {
            WatchNotice::Created { revision, request } => {
                let start = match request.start_revision {
                    0 => revision + 1,
                    asked => asked,
                };
                let watch = Watch {
                    request: request.clone(),
                    span: self.history.keys.span(&request.interval),
                    start,
                    // What lies at or before the base is not known here.
                    seen: start.saturating_sub(1).max(self.history.base),
                    last: 0,
                    bookmark: 0,
                    pieces: Vec::new(),
                    owed: BTreeSet::new(),
                    missed: BTreeSet::new(),
                };
                if self.watches.insert(name, watch).is_some() {
                    self.complain(Rule::WatchUnasked, "created twice".into());
                }
            }
            WatchNotice::Progress { revision } if entry.watch == WATCH_ALL => {
                let first = (source, entry.stream, i64::MIN);
                let last = (source, entry.stream, i64::MAX);
                let names: Vec<_> = self
                    .watches
                    .range(first..=last)
                    .map(|(name, _)| *name)
                    .collect();
                for name in names {
                    self.with(name, |judge, watch| judge.progress(watch, *revision));
                }
            }
            WatchNotice::Progress { revision } => {
                self.with(name, |judge, watch| judge.progress(watch, *revision));
            }
            WatchNotice::Events {
                revision,
                fragment,
                events,
            } => self.with(name, |judge, watch| {
                let newest = events.iter().map(|event| event.kv.mod_revision).max();
                if newest.is_some_and(|newest| newest > *revision) {
                    judge.complain(
                        Rule::WatchHeader,
                        format!("the header's revision {revision} is behind {newest:?}"),
                    );
                }
                if *fragment {
                    watch.pieces.extend_from_slice(events);
                } else if watch.pieces.is_empty() {
                    judge.events(watch, events);
                } else {
                    let mut all = std::mem::take(&mut watch.pieces);
                    all.extend_from_slice(events);
                    judge.events(watch, &all);
                }
            }),
            // The server refused to create one: there is nothing that it owes.
            WatchNotice::Cancelled { .. } if entry.watch == WATCH_ALL => {}
            WatchNotice::Cancelled { compact_revision } => {
                self.with(name, |judge, watch| {
                    judge.cancelled(watch, *compact_revision)
                });
                self.watches.remove(&name);
            }
            WatchNotice::Ended => {
                self.with(name, |judge, watch| judge.settle_owed(watch));
                self.watches.remove(&name);
            }
        }
    }

    fn with(&mut self, name: (u16, u32, i64), judge: impl FnOnce(&mut Self, &mut Watch)) {
        match self.watches.remove(&name) {
            Some(mut watch) => {
                judge(self, &mut watch);
                self.watches.insert(name, watch);
            }
            None => self.complain(
                Rule::WatchUnasked,
                "before the watch was created, or after its end".into(),
            ),
        }
    }

    fn progress(&mut self, watch: &mut Watch, revision: i64) {
        if revision < watch.bookmark {
            self.complain(
                Rule::WatchBookmark,
                format!(
                    "the bookmark moved from {} back to {revision}",
                    watch.bookmark
                ),
            );
        }
        self.settle_owed(watch);
        self.expect_none(watch, revision);
        watch.bookmark = watch.bookmark.max(revision);
    }

    /// Nothing owed may lie between what was seen and `upto`.
    fn expect_none(&mut self, watch: &mut Watch, upto: i64) {
        for place in self.expected(watch, upto) {
            self.gap(watch, place);
        }
        watch.seen = watch.seen.max(upto);
    }

    fn expected(&self, watch: &Watch, upto: i64) -> Vec<u32> {
        let mut places = self.index.between(watch.span, watch.seen, upto);
        let request = &watch.request;
        places.retain(|place| match self.index.change(*place).put {
            true => !request.no_put,
            false => !request.no_delete,
        });
        places
    }

    fn gap(&mut self, watch: &mut Watch, place: u32) {
        let change = self.index.change(place);
        if !change.certain {
            self.report.unjudged += 1;
            return;
        }
        watch.missed.insert(place);
        let name = self.history.keys.name(change.key);
        let what = if change.put { "put" } else { "deletion" };
        self.complain(
            Rule::WatchGap,
            format!(
                "the {what} of {name:?} at revision {} did not come",
                change.revision
            ),
        );
    }

    fn settle_owed(&mut self, watch: &mut Watch) {
        for place in std::mem::take(&mut watch.owed) {
            self.gap(watch, place);
        }
    }

    fn cancelled(&mut self, watch: &mut Watch, compact_revision: i64) {
        self.settle_owed(watch);
        if compact_revision <= self.history.base || !self.history.exclusive {
            return;
        }
        let compacted = self
            .compactions
            .iter()
            .any(|each| *each >= compact_revision);
        // A watch is where its last event was, or further when nothing concerned it.
        let still_owed = watch.seen + 1 < compact_revision;
        if !compacted || !still_owed {
            self.complain(
                Rule::WatchCancelled,
                format!(
                    "cancelled because of a compaction at {compact_revision}, having seen all up to {}",
                    watch.seen
                ),
            );
        }
    }

    /// One whole response.
    fn events(&mut self, watch: &mut Watch, events: &[Event]) {
        let Some(upto) = events.iter().map(|event| event.kv.mod_revision).max() else {
            return;
        };
        self.report.watch_events += events.len() as u64;
        if events[0].kv.mod_revision == watch.last && !watch.owed.is_empty() {
            self.torn(watch, events);
        }
        self.settle_owed(watch);
        let mut expected: BTreeSet<u32> = self.expected(watch, upto).into_iter().collect();
        let mut newest = None;
        for event in events {
            let place = self.event(watch, event);
            let Some(place) = place else {
                continue;
            };
            let revision = event.kv.mod_revision;
            let later = newest.filter(|newest| place < *newest);
            let within = later.map(|later| self.index.change(later).revision) == Some(revision);
            if later.is_some() && !(within && self.unordered.contains(&revision)) {
                self.complain(
                    Rule::WatchOrder,
                    format!(
                        "the event of {:?} at {} comes after a later one",
                        event.kv.key, event.kv.mod_revision
                    ),
                );
            }
            newest = newest.max(Some(place));
            if !expected.remove(&place) && event.kv.mod_revision > self.history.base {
                self.again(watch, event, place);
            }
        }
        for place in expected {
            if self.index.change(place).revision == upto {
                watch.owed.insert(place);
            } else {
                self.gap(watch, place);
            }
        }
        watch.last = watch.last.max(upto);
        watch.seen = watch.seen.max(upto);
    }

    /// The response before ended within a revision that this one goes on with.
    fn torn(&mut self, watch: &mut Watch, events: &[Event]) {
        let mut rest = false;
        for event in events {
            let key = self.history.keys.find(&event.kv.key);
            let place = key.and_then(|key| self.index.find(key, event.kv.mod_revision));
            if let Some(place) = place
                && watch.owed.remove(&place)
            {
                watch.missed.insert(place);
                rest = true;
            }
        }
        if rest {
            let what = format!("revision {} came in two responses", watch.last);
            self.complain(Rule::WatchTorn, what);
        }
    }

    /// An event that is not the next one owed.
    fn again(&mut self, watch: &mut Watch, event: &Event, place: u32) {
        let (key, revision) = (&event.kv.key, event.kv.mod_revision);
        if revision < watch.start || revision <= watch.bookmark {
            // Complained about as such.
            return;
        }
        if watch.missed.remove(&place) {
            if revision < watch.last {
                let what = format!(
                    "the event of {key:?} at {revision} comes after {}",
                    watch.last
                );
                self.complain(Rule::WatchOrder, what);
            }
            return;
        }
        self.complain(
            Rule::WatchDuplicate,
            format!("the event of {key:?} at {revision} came before"),
        );
    }

    /// Judges one event for itself, and gives its place in the log.
    fn event(&mut self, watch: &mut Watch, event: &Event) -> Option<u32> {
        let (name, revision) = (&event.kv.key, event.kv.mod_revision);
        let filtered = if event.put {
            watch.request.no_put
        } else {
            watch.request.no_delete
        };
        if filtered || !watch.request.interval.contains(name) {
            let what = format!("the event of {name:?} at {revision} was not asked for");
            self.complain(Rule::WatchUnasked, what);
            return None;
        }
        if revision < watch.start {
            let what = format!("an event of {revision} on a watch from {}", watch.start);
            self.complain(Rule::WatchStart, what);
        }
        if revision <= watch.bookmark {
            let what = format!(
                "an event of {revision} after the bookmark {}",
                watch.bookmark
            );
            self.complain(Rule::WatchBookmark, what);
        }
        if revision <= self.history.base {
            self.report.unjudged += 1;
            return None;
        }
        let key = self.history.keys.number(name);
        let Some(place) = self.index.find(key, revision) else {
            if self.fog.may_change(key, 0, revision) {
                self.report.unjudged += 1;
            } else {
                let what = format!("no write changed {name:?} at {revision}");
                self.complain(Rule::WatchContent, what);
            }
            return None;
        };
        let change = *self.index.change(place);
        let wrong = if event.put == change.put {
            change.put && differs(&change, &event.kv)
        } else {
            true
        };
        if wrong {
            let what =
                format!("the event of {name:?} at {revision} is not what was written: {change:?}");
            self.complain(Rule::WatchContent, what);
        }
        if watch.request.prev_kv {
            self.previous(event, place);
        }
        Some(place)
    }

    fn previous(&mut self, event: &Event, place: u32) {
        let (key, revision) = (self.index.change(place).key, event.kv.mod_revision);
        let before = self.index.before(place);
        let since = before.map_or(0, |before| before.revision);
        if self.fog.may_change(key, since, revision - 1) {
            self.report.unjudged += 1;
            return;
        }
        let before = before.filter(|before| before.put);
        let right = match (before, &event.prev) {
            (None, None) => true,
            (Some(before), Some(prev)) => {
                prev.mod_revision == before.revision && !differs(before, prev)
            }
            // What is compacted away is left out.
            (Some(_), None) => {
                !self.history.exclusive || self.compactions.iter().any(|each| *each > revision - 1)
            }
            (None, Some(_)) => false,
        };
        if !right {
            self.complain(
                Rule::WatchContent,
                format!(
                    "the previous version of {:?} at {revision} is {:?}, it should be {before:?}",
                    event.kv.key, event.prev
                ),
            );
        }
    }
}

/// Whether a version that was shown is not the one that was written.
fn differs(change: &Change, kv: &Kv) -> bool {
    let number = |held: i64, shown: i64| held != UNCERTAIN && held != shown;
    let value = matches!((change.value, kv.value), (Some(held), Some(shown)) if held != shown);
    value
        || number(change.create, kv.create_revision)
        || number(change.version, kv.version)
        || (kv.value.is_some() && change.lease != kv.lease)
}
