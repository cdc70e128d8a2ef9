//! The slow obvious keyspace: every version of every key in a map, every question answered by looking
//! at all of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use kontiki::base::LeaseId;
use kontiki::keyspace::events::Event;
use kontiki::keyspace::fold::Answer;
use kontiki::keyspace::request::*;
use kontiki::keyspace::revision::Revision;
use kontiki::keyspace::{KEY_OVERHEAD_BYTES, VERSION_OVERHEAD_BYTES};

use super::rig::Write;

/// One version; `kv` is none for a tombstone.
#[derive(Clone, Debug)]
struct Version {
    at: Revision,
    kv: Option<KeyValue>,
}

/// The state after an index.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) index: u64,
    pub(crate) main: i64,
    pub(crate) floor: i64,
    versions: BTreeMap<Bytes, Vec<Version>>,
}

/// All states, so that truncation and commit are choices of one.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) states: Vec<State>,
    pub(crate) committed: usize,
}

pub(crate) fn inside(range: &KeyRange, key: &Bytes) -> bool {
    match range.range_end.as_ref() {
        [] => *key == range.key,
        [0] => *key >= range.key,
        end => *key >= range.key && key.as_ref() < end,
    }
}

impl State {
    fn at(&self, key: &Bytes, main: i64) -> Option<&KeyValue> {
        self.versions
            .get(key)?
            .iter()
            .rev()
            .find(|version| version.at.main <= main)?
            .kv
            .as_ref()
    }

    fn live(&self, range: &KeyRange, main: i64) -> Vec<KeyValue> {
        let keys = self.versions.keys().filter(|key| inside(range, key));
        keys.filter_map(|key| self.at(key, main)).cloned().collect()
    }

    pub(crate) fn range(&self, request: &RangeRequest, main: i64) -> RangeResponse {
        let all = self.live(&request.range, main);
        let count = all.len() as i64;
        if request.count_only {
            return RangeResponse {
                kvs: vec![],
                more: false,
                count,
            };
        }
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let filtered = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ] != [0; 4];
        let mut kvs = all;
        if limit > 0 && request.sort_order == SortOrder::None && !filtered {
            kvs.truncate(limit + 1);
        }
        kvs.retain(|kv| {
            (request.max_mod_revision == 0 || kv.mod_revision <= request.max_mod_revision)
                && (request.min_mod_revision == 0 || kv.mod_revision >= request.min_mod_revision)
                && (request.max_create_revision == 0
                    || kv.create_revision <= request.max_create_revision)
                && (request.min_create_revision == 0
                    || kv.create_revision >= request.min_create_revision)
        });
        // Stable in both directions: equal ones stay in key order.
        kvs.sort_by(|one, other| {
            let order = match request.sort_target {
                SortTarget::Key => one.key.cmp(&other.key),
                SortTarget::Version => one.version.cmp(&other.version),
                SortTarget::Create => one.create_revision.cmp(&other.create_revision),
                SortTarget::Mod => one.mod_revision.cmp(&other.mod_revision),
                SortTarget::Value => one.value.cmp(&other.value),
            };
            match request.sort_order {
                SortOrder::Descend => order.reverse(),
                SortOrder::None | SortOrder::Ascend => order,
            }
        });
        let more = limit > 0 && kvs.len() > limit;
        if limit > 0 {
            kvs.truncate(limit);
        }
        if request.keys_only {
            for kv in &mut kvs {
                kv.value = Bytes::new();
                if request.sort_target != SortTarget::Value {
                    kv.lease = LeaseId(0);
                }
            }
        }
        RangeResponse { kvs, more, count }
    }

    fn put(&mut self, request: &PutRequest, at: Revision) -> PutResponse {
        let prev = self.at(&request.key, i64::MAX).cloned();
        let value = match &prev {
            Some(prev) if request.ignore_value => prev.value.clone(),
            _ => request.value.clone(),
        };
        let kv = KeyValue {
            key: request.key.clone(),
            create_revision: prev.as_ref().map_or(at.main, |prev| prev.create_revision),
            mod_revision: at.main,
            version: prev.as_ref().map_or(1, |prev| prev.version + 1),
            value,
            lease: LeaseId(0),
        };
        self.versions
            .entry(request.key.clone())
            .or_default()
            .push(Version { at, kv: Some(kv) });
        PutResponse {
            prev_kv: prev.filter(|_| request.prev_kv),
        }
    }

    fn delete(
        &mut self,
        request: &DeleteRangeRequest,
        main: i64,
        sub: &mut u32,
    ) -> DeleteRangeResponse {
        let gone = self.live(&request.range, i64::MAX);
        for kv in &gone {
            let at = Revision { main, sub: *sub };
            *sub += 1;
            self.versions
                .get_mut(&kv.key)
                .unwrap()
                .push(Version { at, kv: None });
        }
        DeleteRangeResponse {
            deleted: gone.len() as i64,
            prev_kvs: if request.prev_kv { gone } else { vec![] },
        }
    }

    fn compares(&self, txn: &TxnRequest) -> bool {
        txn.compare.iter().all(|compare| {
            let mut kvs = self.live(&compare.range, self.main);
            if kvs.is_empty() {
                if matches!(compare.target, CompareTarget::Value(_)) {
                    return false;
                }
                kvs.push(KeyValue::default());
            }
            kvs.iter().all(|kv| {
                let order = match &compare.target {
                    CompareTarget::Version(given) => kv.version.cmp(given),
                    CompareTarget::CreateRevision(given) => kv.create_revision.cmp(given),
                    CompareTarget::ModRevision(given) => kv.mod_revision.cmp(given),
                    CompareTarget::Lease(given) => kv.lease.0.cmp(given),
                    CompareTarget::Value(given) => kv.value.cmp(given),
                };
                match compare.result {
                    CompareResult::Equal => order.is_eq(),
                    CompareResult::NotEqual => order.is_ne(),
                    CompareResult::Greater => order.is_gt(),
                    CompareResult::Less => order.is_lt(),
                    CompareResult::Unknown => true,
                }
            })
        })
    }

    fn branch<'t>(&self, txn: &'t TxnRequest) -> &'t [RequestOp] {
        if self.compares(txn) {
            &txn.success
        } else {
            &txn.failure
        }
    }

    /// The first refusal, in the order of the operations. `deleted`: what earlier ones have deleted.
    fn check(&self, txn: &TxnRequest, deleted: &mut Vec<KeyRange>) -> Result<(), Refusal> {
        for operation in self.branch(txn) {
            match operation {
                RequestOp::Put(put) => {
                    let gone = self.at(&put.key, self.main).is_none()
                        || deleted.iter().any(|range| inside(range, &put.key));
                    if put.lease != LeaseId(0) {
                        return Err(Refusal::LeaseNotFound);
                    }
                    if (put.ignore_value || put.ignore_lease) && gone {
                        return Err(Refusal::KeyNotFound);
                    }
                }
                RequestOp::Range(range) if range.revision != 0 => {
                    if range.revision > self.main {
                        return Err(Refusal::FutureRevision);
                    }
                    if range.revision < self.floor {
                        return Err(Refusal::Compacted);
                    }
                }
                RequestOp::DeleteRange(delete) => deleted.push(delete.range.clone()),
                RequestOp::Txn(inner) => self.check(inner, deleted)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// `before` is the state that conditions see; `self` is what is being written.
    fn execute(&mut self, before: &State, txn: &TxnRequest, sub: &mut u32) -> TxnResponse {
        let main = before.main + 1;
        let mut responses = vec![];
        for operation in before.branch(txn) {
            let response = match operation {
                RequestOp::Put(put) => {
                    let at = Revision { main, sub: *sub };
                    *sub += 1;
                    ResponseOp::Put {
                        revision: main,
                        response: self.put(put, at),
                    }
                }
                RequestOp::DeleteRange(delete) => {
                    let response = self.delete(delete, main, sub);
                    ResponseOp::DeleteRange {
                        revision: before.main + i64::from(*sub > 0),
                        response,
                    }
                }
                RequestOp::Range(range) => {
                    let revision = before.main + i64::from(*sub > 0);
                    let at = if range.revision > 0 {
                        range.revision
                    } else {
                        i64::MAX
                    };
                    ResponseOp::Range {
                        revision,
                        response: self.range(range, at),
                    }
                }
                RequestOp::Txn(inner) => ResponseOp::Txn(self.execute(before, inner, sub)),
            };
            responses.push(response);
        }
        TxnResponse {
            succeeded: before.compares(txn),
            responses,
        }
    }

    /// The next state and the answer; the caller decides whether it became an entry.
    pub(crate) fn write(&self, write: &Write) -> Result<(State, Answer), Refusal> {
        let mut next = self.clone();
        let mut sub = 0;
        let answer = match write {
            Write::Put(put) => {
                if put.lease != LeaseId(0) {
                    return Err(Refusal::LeaseNotFound);
                }
                if (put.ignore_value || put.ignore_lease) && self.at(&put.key, self.main).is_none()
                {
                    return Err(Refusal::KeyNotFound);
                }
                let at = Revision {
                    main: self.main + 1,
                    sub,
                };
                sub += 1;
                Answer::Put(next.put(put, at))
            }
            Write::DeleteRange(delete) => {
                Answer::DeleteRange(next.delete(delete, self.main + 1, &mut sub))
            }
            Write::Txn(txn) => {
                self.check(txn, &mut vec![])?;
                Answer::Txn(next.execute(self, txn, &mut sub))
            }
            Write::Compact(revision) => {
                if *revision <= self.floor {
                    return Err(Refusal::Compacted);
                }
                if *revision > self.main {
                    return Err(Refusal::FutureRevision);
                }
                next.floor = *revision;
                Answer::Compact
            }
        };
        next.main += i64::from(sub > 0);
        Ok((next, answer))
    }

    /// What is kept of this state when everything below the floor is gone: all that is an event from the
    /// floor on, and beside it what can be read at the floor.
    pub(crate) fn reclaimed_size(&self, floor: i64) -> u64 {
        let mut size = 0;
        for (key, versions) in &self.versions {
            let newest = versions
                .iter()
                .rposition(|version| version.at.main <= floor);
            let mut kept = 0;
            for (at, version) in versions.iter().enumerate() {
                let keep = match newest {
                    Some(newest) if at <= newest => {
                        version.at.main == floor || at == newest && version.kv.is_some()
                    }
                    _ => true,
                };
                if keep {
                    let value = version.kv.as_ref().map_or(0, |kv| kv.value.len());
                    size += value as u64 + VERSION_OVERHEAD_BYTES;
                    kept += 1;
                }
            }
            if kept > 0 {
                size += key.len() as u64 + KEY_OVERHEAD_BYTES;
            }
        }
        size
    }

    /// All events from main revision `from` on.
    pub(crate) fn events(&self, from: i64, range: &KeyRange) -> Vec<Event> {
        let mut events = vec![];
        for (key, versions) in self.versions.iter().filter(|(key, _)| inside(range, key)) {
            for version in versions.iter().filter(|version| version.at.main >= from) {
                let before = version.at.main - 1;
                let prev_kv = self
                    .at(key, before)
                    .filter(|_| before >= self.floor)
                    .cloned();
                let deleted = KeyValue {
                    key: key.clone(),
                    mod_revision: version.at.main,
                    ..KeyValue::default()
                };
                events.push(Event {
                    revision: version.at,
                    deleted: version.kv.is_none(),
                    kv: version.kv.clone().unwrap_or(deleted),
                    prev_kv,
                });
            }
        }
        events.sort_by_key(|event| event.revision);
        events
    }
}

impl Model {
    pub(crate) fn new() -> Model {
        let empty = State {
            index: 0,
            main: 1,
            floor: -1,
            versions: BTreeMap::new(),
        };
        Model {
            states: vec![empty],
            committed: 0,
        }
    }

    pub(crate) fn head(&self) -> &State {
        self.states.last().unwrap()
    }

    pub(crate) fn visible(&self) -> &State {
        &self.states[self.committed]
    }
}
