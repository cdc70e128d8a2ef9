//! A slow, obvious key-value store: every version of every key for ever, and what a request answers at a
//! revision. Written from the meaning of the API, sharing no code with the keyspace.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::base::LeaseId;
use crate::keyspace::request::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, DeleteRangeResponse, KeyRange,
    KeyValue, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp, ResponseOp,
    TxnRequest, TxnResponse,
};
use crate::shard::event::Request;

/// The revision of an empty store.
pub const FIRST_REVISION: i64 = 1;

/// One key that a revision changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Bytes,
    /// The new value; `None` when it was deleted.
    pub value: Option<Bytes>,
}

/// What a request does and answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluated {
    /// What its revision would change, in order; none when it makes no revision.
    pub changes: Vec<Change>,
    /// Its answer.
    pub answer: Answered,
}

/// The answer of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// To a range.
    Range(RangeResponse),
    /// To a put.
    Put(PutResponse),
    /// To a deletion.
    DeleteRange(DeleteRangeResponse),
    /// To a transaction.
    Txn(TxnResponse),
}

/// Every version since the beginning.
#[derive(Clone, Debug, Default)]
pub struct Model {
    keys: BTreeMap<Bytes, Vec<Version>>,
    /// By revision, from the one after [`FIRST_REVISION`].
    changes: Vec<Vec<Change>>,
}

#[derive(Clone, Debug)]
struct Version {
    main: i64,
    create: i64,
    version: i64,
    /// `None` for a tombstone.
    value: Option<Bytes>,
}

impl Model {
    /// The newest revision.
    #[must_use]
    pub fn revision(&self) -> i64 {
        FIRST_REVISION + self.changes.len() as i64
    }

    /// What a revision changed.
    #[must_use]
    pub fn changes(&self, revision: i64) -> Option<&[Change]> {
        let at = usize::try_from(revision - FIRST_REVISION - 1).ok()?;
        self.changes.get(at).map(Vec::as_slice)
    }

    /// Makes the next revision.
    pub fn apply(&mut self, changes: Vec<Change>) {
        let main = self.revision() + 1;
        for change in &changes {
            let versions = self.keys.entry(change.key.clone()).or_default();
            let live = versions.last().filter(|last| last.value.is_some());
            let (create, version) = live.map_or((main, 1), |last| (last.create, last.version + 1));
            versions.push(Version {
                main,
                create,
                version,
                value: change.value.clone(),
            });
        }
        self.changes.push(changes);
    }

    /// A key at a revision.
    #[must_use]
    pub fn key_at(&self, key: &[u8], revision: i64) -> Option<KeyValue> {
        let (key, versions) = self.keys.get_key_value(key)?;
        visible(key, versions, revision)
    }

    /// What a request answers and changes when it is executed right after `base`. `None` for requests
    /// that are not about keys.
    #[must_use]
    pub fn evaluate(&self, request: &Request, base: i64) -> Option<Evaluated> {
        let mut run = Run {
            model: self,
            base,
            written: BTreeMap::new(),
            changes: Vec::new(),
        };
        let answer = match request {
            Request::Range(range) => {
                run.base = if range.revision > 0 {
                    range.revision
                } else {
                    base
                };
                Answered::Range(run.range(range))
            }
            Request::Put(put) => Answered::Put(run.put(put)),
            Request::DeleteRange(delete) => Answered::DeleteRange(run.delete(delete)),
            Request::Txn(txn) => Answered::Txn(run.txn(txn)),
            _ => return None,
        };
        Some(Evaluated {
            changes: run.changes,
            answer,
        })
    }
}

/// One request being executed.
struct Run<'a> {
    model: &'a Model,
    base: i64,
    /// What it has written so far.
    written: BTreeMap<Bytes, Option<KeyValue>>,
    changes: Vec<Change>,
}

impl Run<'_> {
    fn revision(&self) -> i64 {
        self.base + i64::from(!self.changes.is_empty())
    }

    fn key(&self, key: &[u8]) -> Option<KeyValue> {
        match self.written.get(key) {
            Some(written) => written.clone(),
            None => self.model.key_at(key, self.base),
        }
    }

    /// The live keys of an interval.
    fn keys(&self, range: &KeyRange) -> Vec<KeyValue> {
        if range.range_end.is_empty() {
            return self.key(&range.key).into_iter().collect();
        }
        let from = Bound::Included(range.key.clone());
        let to = match range.range_end.as_ref() {
            [0] => Bound::Unbounded,
            end if *end <= *range.key => return Vec::new(),
            _ => Bound::Excluded(range.range_end.clone()),
        };
        let bounds = (from, to);
        let mut found: BTreeMap<Bytes, Option<KeyValue>> = self
            .model
            .keys
            .range(bounds.clone())
            .map(|(key, versions)| (key.clone(), visible(key, versions, self.base)))
            .collect();
        for (key, written) in self.written.range(bounds) {
            found.insert(key.clone(), written.clone());
        }
        found.into_values().flatten().collect()
    }

    fn range(&self, request: &RangeRequest) -> RangeResponse {
        let mut kvs = self.keys(&request.range);
        let count = kvs.len() as i64;
        let mut more = false;
        if request.count_only {
            kvs.clear();
        } else if request.limit > 0 && count > request.limit {
            kvs.truncate(usize::try_from(request.limit).expect("positive"));
            more = true;
        }
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        RangeResponse { kvs, more, count }
    }

    fn put(&mut self, request: &PutRequest) -> PutResponse {
        let before = self.key(&request.key);
        let main = self.base + 1;
        let kv = KeyValue {
            key: request.key.clone(),
            create_revision: before.as_ref().map_or(main, |kv| kv.create_revision),
            mod_revision: main,
            version: before.as_ref().map_or(1, |kv| kv.version + 1),
            value: request.value.clone(),
            lease: LeaseId(0),
        };
        self.written.insert(request.key.clone(), Some(kv));
        self.changes.push(Change {
            key: request.key.clone(),
            value: Some(request.value.clone()),
        });
        PutResponse {
            prev_kv: before.filter(|_| request.prev_kv),
        }
    }

    fn delete(&mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        let found = self.keys(&request.range);
        for kv in &found {
            self.written.insert(kv.key.clone(), None);
            self.changes.push(Change {
                key: kv.key.clone(),
                value: None,
            });
        }
        DeleteRangeResponse {
            deleted: found.len() as i64,
            prev_kvs: if request.prev_kv { found } else { Vec::new() },
        }
    }

    fn txn(&mut self, request: &TxnRequest) -> TxnResponse {
        let succeeded = request.compare.iter().all(|compare| self.holds(compare));
        let operations = if succeeded {
            &request.success
        } else {
            &request.failure
        };
        let answer = |operation: &RequestOp| match operation {
            RequestOp::Range(range) => {
                let response = self.range(range);
                ResponseOp::Range {
                    revision: self.revision(),
                    response,
                }
            }
            RequestOp::Put(put) => {
                let response = self.put(put);
                ResponseOp::Put {
                    revision: self.revision(),
                    response,
                }
            }
            RequestOp::DeleteRange(delete) => {
                let response = self.delete(delete);
                ResponseOp::DeleteRange {
                    revision: self.revision(),
                    response,
                }
            }
            RequestOp::Txn(txn) => ResponseOp::Txn(self.txn(txn)),
        };
        TxnResponse {
            succeeded,
            responses: operations.iter().map(answer).collect(),
        }
    }

    /// Whether a compare holds for every key of its interval; a missing key has no value and zeros.
    fn holds(&self, compare: &Compare) -> bool {
        let found = self.keys(&compare.range);
        if found.is_empty() {
            return !matches!(compare.target, CompareTarget::Value(_))
                && relation(compare, &KeyValue::default());
        }
        found.iter().all(|kv| relation(compare, kv))
    }
}

fn relation(compare: &Compare, kv: &KeyValue) -> bool {
    let order = match &compare.target {
        CompareTarget::Version(version) => kv.version.cmp(version),
        CompareTarget::CreateRevision(revision) => kv.create_revision.cmp(revision),
        CompareTarget::ModRevision(revision) => kv.mod_revision.cmp(revision),
        CompareTarget::Value(value) => kv.value.cmp(value),
        CompareTarget::Lease(lease) => kv.lease.0.cmp(lease),
    };
    match compare.result {
        CompareResult::Equal => order == Ordering::Equal,
        CompareResult::Greater => order == Ordering::Greater,
        CompareResult::Less => order == Ordering::Less,
        CompareResult::NotEqual => order != Ordering::Equal,
        CompareResult::Unknown => true,
    }
}

fn visible(key: &Bytes, versions: &[Version], revision: i64) -> Option<KeyValue> {
    let newer = versions.partition_point(|version| version.main <= revision);
    let version = &versions[newer.checked_sub(1)?];
    Some(KeyValue {
        key: key.clone(),
        create_revision: version.create,
        mod_revision: version.main,
        version: version.version,
        value: version.value.clone()?,
        lease: LeaseId(0),
    })
}
