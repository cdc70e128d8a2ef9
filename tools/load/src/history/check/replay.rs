//! Replays the writes in revision order, and judges every answer against the state of its revision.

use std::collections::BTreeMap;

use super::super::operation::{
    Answer, Compare, Delete, DeleteAnswer, Interval, Kv, Operand, Outcome, Put, PutAnswer, Range,
    RangeAnswer, Relation, Request, Txn, TxnAnswer, TxnOp, TxnOpAnswer,
};
use super::History;
use super::arena::{Class, OpId, taken};
use super::gaps::Fog;
use super::rule::{Report, Rule};
use super::store::{Store, UNCERTAIN};
use super::unknown::{Plan, Trace, Writer, for_each_put};

/// What one step judges of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// It makes its revision.
    Write,
    /// It reads the state of its revision.
    Read,
    /// Only its ranges at this past revision.
    Past,
}

/// Replays and judges; gives the state after the last revision, with the log of changes.
pub(super) fn run(
    history: &History,
    plans: &BTreeMap<i64, Plan>,
    fog: &Fog,
    report: &mut Report,
) -> Store {
    let arena = &history.arena;
    let mut steps: Vec<(i64, Step, OpId)> = Vec::with_capacity(arena.heads.len());
    for id in arena.ids() {
        let head = arena.head(id);
        match head.class {
            Class::Write => steps.push((head.revision, Step::Write, id)),
            Class::Read | Class::Stale => steps.push((head.at, Step::Read, id)),
            Class::Unknown | Class::Seen | Class::Other => {}
        }
    }
    let past = arena.past.iter();
    steps.extend(past.map(|(revision, id)| (*revision, Step::Past, *id)));
    steps.sort_unstable();
    let mut replay = Replay {
        history,
        fog,
        report,
        store: Store::new(history.keys.len(), !history.watch.is_empty()),
        now: None,
    };
    replay.load_base();
    let mut plans = plans.iter().peekable();
    for (revision, step, id) in steps {
        while let Some((gap, plan)) = plans.next_if(|(gap, _)| **gap <= revision) {
            replay.apply_plan(*gap, plan);
        }
        if revision < history.base {
            replay.report.unjudged += 1;
            continue;
        }
        replay.now = Some(id);
        replay.judge(revision, step, id);
        replay.now = None;
    }
    for (gap, plan) in plans {
        replay.apply_plan(*gap, plan);
    }
    replay.store
}

struct Replay<'a> {
    history: &'a History,
    fog: &'a Fog,
    report: &'a mut Report,
    store: Store,
    /// The operation being judged.
    now: Option<OpId>,
}

impl Replay<'_> {
    fn load_base(&mut self) {
        for kv in &self.history.base_kvs {
            let key = self.history.keys.number(&kv.key);
            self.store.adopt(key, kv);
        }
    }

    fn complain(&mut self, rule: Rule, what: String) {
        let involved = self.now.map(|id| self.history.arena.describe(id));
        self.report.add(rule, what, involved.into_iter().collect());
    }

    fn judge(&mut self, revision: i64, step: Step, id: OpId) {
        let operation = self.history.arena.operation(id);
        let Outcome::Ok {
            answer,
            revision: header,
        } = &operation.outcome
        else {
            return;
        };
        match (&operation.request, answer) {
            (Request::Put(put), Answer::Put(answer)) => self.put(revision, put, answer),
            (Request::Range(range), Answer::Range(answer)) => {
                if revision > *header {
                    self.complain(
                        Rule::FutureVersion,
                        format!("revision {revision} was read by an answer of revision {header}"),
                    );
                }
                self.range(revision, range, answer);
            }
            (Request::Delete(delete), Answer::Delete(answer)) => {
                self.delete(revision, delete, answer);
            }
            (Request::Txn(txn), Answer::Txn(answer)) => match step {
                Step::Past => self.past(revision, txn, answer),
                Step::Write | Step::Read => self.txn(revision, txn, answer),
            },
            _ => {}
        }
    }

    fn put(&mut self, revision: i64, put: &Put, answer: &PutAnswer) {
        let key = self.history.keys.number(&put.key);
        if put.prev_kv {
            self.previous(revision, key, answer.prev.as_ref());
        }
        self.store
            .put(self.fog, key, revision, put.value, put.lease);
    }

    fn previous(&mut self, revision: i64, key: u32, shown: Option<&Kv>) {
        let name = self.history.keys.name(key);
        let found = match shown {
            Some(kv) if kv.key != name => Err(format!("it is one of key {:?}", kv.key)),
            Some(kv) => self.store.compare(key, kv),
            None if !self.store.key(key).live => Ok(()),
            None if self.store.may_be_gone(self.fog, key, revision) => {
                self.report.unjudged += 1;
                Ok(())
            }
            None => Err("none is shown".into()),
        };
        if let Err(what) = found {
            self.complain(
                Rule::WrongPrevious,
                format!("the previous version of {name:?} at revision {revision}: {what}"),
            );
        }
    }

    fn range(&mut self, revision: i64, range: &Range, answer: &RangeAnswer) {
        let span = self.history.keys.span(&range.interval);
        let unsure = self.store.is_interval_unsure(self.fog, span, revision);
        let shown = answer.kvs.len() as i64;
        let count = i64::from(self.store.counter.between(span));
        if unsure {
            self.report.unjudged += u64::from(count != answer.count);
        } else if count != answer.count {
            self.complain(
                Rule::WrongCount,
                format!(
                    "{} keys were counted at revision {revision}, there are {count}",
                    answer.count
                ),
            );
        }
        if range.count_only {
            return;
        }
        let limited = range.limit > 0;
        let more = limited && answer.count > shown;
        if more != answer.more || (limited && shown > range.limit) {
            self.complain(
                Rule::WrongCount,
                format!(
                    "{shown} of {} keys with a limit of {}, and more is {}",
                    answer.count, range.limit, answer.more
                ),
            );
        }
        let cut = limited && shown >= range.limit;
        self.versions(revision, span, &answer.kvs, cut, Rule::WrongRange);
    }

    /// Compares versions shown in key order with those of an interval, up to the last one shown when the
    /// answer was `cut` there.
    fn versions(&mut self, revision: i64, span: (u32, u32), kvs: &[Kv], cut: bool, rule: Rule) {
        let keys = &self.history.keys;
        let end = match kvs.last() {
            Some(last) if cut => keys.number(&last.key) + 1,
            _ => span.1,
        };
        let live = self.store.live.range(span.0..end.clamp(span.0, span.1));
        let mut live = live.copied().collect::<Vec<u32>>().into_iter().peekable();
        let mut last = None;
        for kv in kvs {
            let key = keys.number(&kv.key);
            if !(span.0..span.1).contains(&key) || last.is_some_and(|last| last >= key) {
                let what = format!("key {:?} is outside the interval or its order", kv.key);
                self.complain(rule, what);
                continue;
            }
            last = Some(key);
            while let Some(missing) = live.next_if(|each| *each < key) {
                self.missing(revision, missing, rule);
            }
            live.next_if_eq(&key);
            if let Err(what) = self.store.compare(key, kv) {
                let rule = if kv.mod_revision > revision {
                    Rule::FutureVersion
                } else {
                    rule
                };
                self.complain(
                    rule,
                    format!("key {:?} at revision {revision}: {what}", kv.key),
                );
            }
        }
        for missing in live {
            self.missing(revision, missing, rule);
        }
    }

    fn missing(&mut self, revision: i64, key: u32, rule: Rule) {
        if self.store.may_be_gone(self.fog, key, revision) {
            self.report.unjudged += 1;
            return;
        }
        let name = self.history.keys.name(key);
        let written = self.store.key(key).modified;
        self.complain(
            rule,
            format!("key {name:?}, written at {written}, is missing at revision {revision}"),
        );
    }

    fn delete(&mut self, revision: i64, delete: &Delete, answer: &DeleteAnswer) {
        let span = self.history.keys.span(&delete.interval);
        let count = i64::from(self.store.counter.between(span));
        if self.store.is_interval_unsure(self.fog, span, revision) {
            self.report.unjudged += u64::from(count != answer.deleted);
        } else if count != answer.deleted {
            self.complain(
                Rule::WrongCount,
                format!(
                    "{} keys were deleted at revision {revision}, there were {count}",
                    answer.deleted
                ),
            );
        }
        if delete.prev_kv {
            if answer.prev_kvs.len() as i64 != answer.deleted {
                self.complain(
                    Rule::WrongPrevious,
                    format!(
                        "{} previous versions of {} deleted keys",
                        answer.prev_kvs.len(),
                        answer.deleted
                    ),
                );
            }
            self.versions(revision, span, &answer.prev_kvs, false, Rule::WrongPrevious);
        }
        if answer.deleted > 0 {
            self.delete_span(revision, span);
        }
    }

    /// Deletes what is there; says whether that was anything.
    fn delete_span(&mut self, revision: i64, span: (u32, u32)) -> bool {
        if self.fog.lies_on(span, revision) {
            let touched = &self.fog.touched;
            let first = touched.partition_point(|key| *key < span.0);
            for key in touched[first..].iter().take_while(|key| **key < span.1) {
                if !self.store.key(*key).live {
                    self.store.log_deletion(*key, revision, false);
                }
            }
        }
        let live: Vec<u32> = self.store.live.range(span.0..span.1).copied().collect();
        for key in &live {
            self.store.delete(self.fog, *key, revision);
        }
        !live.is_empty()
    }

    fn txn(&mut self, revision: i64, txn: &Txn, answer: &TxnAnswer) {
        match self.holds(revision, &txn.compares) {
            Some(holds) if holds != answer.succeeded => self.complain(
                Rule::WrongCompare,
                format!(
                    "succeeded is {} at revision {revision}, it should be {holds}",
                    answer.succeeded
                ),
            ),
            Some(_) => {}
            None => self.report.unjudged += 1,
        }
        for pair in taken(txn, answer.succeeded).iter().zip(&answer.answers) {
            match pair {
                (TxnOp::Put(put), TxnOpAnswer::Put(answer)) => self.put(revision, put, answer),
                (TxnOp::Range(range), TxnOpAnswer::Range(answer)) if range.revision <= 0 => {
                    self.range(revision, range, answer);
                }
                (TxnOp::Delete(delete), TxnOpAnswer::Delete(answer)) => {
                    self.delete(revision, delete, answer);
                }
                _ => {}
            }
        }
    }

    fn past(&mut self, revision: i64, txn: &Txn, answer: &TxnAnswer) {
        for pair in taken(txn, answer.succeeded).iter().zip(&answer.answers) {
            if let (TxnOp::Range(range), TxnOpAnswer::Range(answer)) = pair
                && range.revision == revision
            {
                self.range(revision, range, answer);
            }
        }
    }

    /// Whether all compares hold before `revision`; nothing when that is not certain.
    fn holds(&self, revision: i64, compares: &[Compare]) -> Option<bool> {
        let mut all = Some(true);
        for compare in compares {
            match self.compare_holds(revision, compare) {
                Some(true) => {}
                Some(false) => return Some(false),
                None => all = None,
            }
        }
        all
    }

    fn compare_holds(&self, revision: i64, compare: &Compare) -> Option<bool> {
        let key = self.history.keys.number(&compare.key);
        if self.store.is_unsure(self.fog, key, revision) {
            return None;
        }
        let state = self.store.key(key);
        let number = |held: i64, operand: i64| {
            let held = if state.live { held } else { 0 };
            (held != UNCERTAIN).then_some(match compare.relation {
                Relation::Equal => held == operand,
                Relation::Greater => held > operand,
                Relation::Less => held < operand,
                Relation::NotEqual => held != operand,
            })
        };
        match compare.operand {
            Operand::Version(operand) => number(state.version, operand),
            Operand::Create(operand) => number(state.create, operand),
            Operand::Mod(operand) => number(state.modified, operand),
            Operand::Lease(operand) => number(state.lease, operand),
            Operand::Value(_) if !state.live => Some(false),
            Operand::Value(operand) => {
                let same = state.value? == operand;
                match compare.relation {
                    Relation::Equal => Some(same),
                    Relation::NotEqual => Some(!same),
                    // A value is neither above nor below itself; of two hashes nothing is known.
                    Relation::Greater | Relation::Less => (same).then_some(false),
                }
            }
        }
    }

    /// What happened at a revision that nobody acknowledged.
    fn apply_plan(&mut self, revision: i64, plan: &Plan) {
        let changed = match plan.writer {
            None => {
                self.adopt_traces(plan, revision);
                return;
            }
            Some(Writer::LeaseEnd(lease)) => {
                let keys = self.store.keys_of_lease(lease);
                for key in &keys {
                    self.store.delete(self.fog, *key, revision);
                }
                !keys.is_empty()
            }
            Some(Writer::Operation(id)) => {
                self.now = Some(id);
                self.apply_unanswered(revision, id, plan)
            }
        };
        if !changed && self.fog.gaps.last_at_most(revision).is_none() && !self.store.tainted {
            self.complain(
                Rule::MissingWriter,
                format!("the only write that can have made revision {revision} changes nothing"),
            );
        }
        for (key, trace) in &plan.traces {
            let found = match trace {
                Trace::Put(kv) => self.store.compare(*key, kv),
                Trace::Deletion => {
                    let state = self.store.key(*key);
                    if !state.live && state.modified == revision {
                        Ok(())
                    } else {
                        Err("a deletion that did not happen was shown".into())
                    }
                }
            };
            if let Err(what) = found {
                let name = self.history.keys.name(*key);
                self.complain(
                    Rule::Disagreement,
                    format!("key {name:?} at revision {revision}: {what}"),
                );
            }
        }
        self.now = None;
    }

    /// Says whether anything changed.
    fn apply_unanswered(&mut self, revision: i64, id: OpId, plan: &Plan) -> bool {
        match self.history.arena.operation(id).request {
            Request::Put(put) => {
                self.put(revision, &unasked(put), &PutAnswer::default());
                true
            }
            Request::Delete(delete) => self.delete_interval(revision, &delete.interval),
            Request::Txn(txn) => match self.holds(revision, &txn.compares) {
                Some(holds) => {
                    let mut changed = false;
                    for op in taken(&txn, holds) {
                        changed |= match op {
                            TxnOp::Put(put) => {
                                let put = unasked(put.clone());
                                self.put(revision, &put, &PutAnswer::default());
                                true
                            }
                            TxnOp::Delete(delete) => {
                                self.delete_interval(revision, &delete.interval)
                            }
                            TxnOp::Range(_) => false,
                        };
                    }
                    changed
                }
                None => {
                    self.taint(&txn);
                    self.adopt_traces(plan, revision);
                    true
                }
            },
            _ => false,
        }
    }

    fn delete_interval(&mut self, revision: i64, interval: &Interval) -> bool {
        let span = self.history.keys.span(interval);
        self.delete_span(revision, span)
    }

    /// Everything a transaction might do is uncertain from here on.
    fn taint(&mut self, txn: &Txn) {
        self.store.tainted = true;
        for_each_put(&Request::Txn(txn.clone()), |put| {
            let key = self.history.keys.number(&put.key);
            self.store.keys[key as usize].tainted = true;
        });
        for op in txn.success.iter().chain(&txn.failure) {
            if let TxnOp::Delete(delete) = op {
                let (first, end) = self.history.keys.span(&delete.interval);
                for state in &mut self.store.keys[first as usize..end as usize] {
                    state.tainted = true;
                }
            }
        }
    }

    fn adopt_traces(&mut self, plan: &Plan, revision: i64) {
        self.store.unordered.insert(revision);
        for (key, trace) in &plan.traces {
            match trace {
                Trace::Put(kv) => self.store.adopt(*key, kv),
                Trace::Deletion if self.store.key(*key).live => {
                    self.store.delete(self.fog, *key, revision);
                }
                Trace::Deletion => self.store.log_deletion(*key, revision, true),
            }
        }
    }
}

/// A put nobody was told the previous version of.
fn unasked(put: Put) -> Put {
    Put {
        prev_kv: false,
        ..put
    }
}
