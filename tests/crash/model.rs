//! What the store must hold: the obvious in-memory version of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use kontiki_harness::messages::{
    DeleteRangeRequest, KeyValue, PutRequest, RequestOp, TxnRequest, request_op,
};

/// A value that can be made again from its description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    /// Unique per write.
    pub(crate) stamp: u64,
    /// Length in bytes, at least the stamp's eight.
    pub(crate) size: usize,
}

impl Value {
    pub(crate) fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![0; self.size];
        fastrand::Rng::with_seed(self.stamp).fill(&mut bytes);
        bytes[..8].copy_from_slice(&self.stamp.to_le_bytes());
        bytes
    }
}

/// One request that writes; all of it takes effect at one revision, or nothing.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    /// One put.
    Put(u32, Value),
    /// A transaction of two puts and a deletion.
    Unit([(u32, Value); 2], u32),
}

impl Operation {
    /// The operation as a transaction, for a [`Operation::Unit`].
    pub(crate) fn transaction(&self) -> TxnRequest {
        let puts = self.puts().into_iter().map(|(number, value)| {
            request_op::Request::Put(PutRequest {
                key: key(number),
                value: value.bytes().into(),
            })
        });
        let deletion = self.deleted().map(|number| {
            request_op::Request::DeleteRange(DeleteRangeRequest {
                key: key(number),
                ..DeleteRangeRequest::default()
            })
        });
        let success = puts
            .chain(deletion)
            .map(|request| RequestOp {
                request: Some(request),
            })
            .collect();
        TxnRequest { success }
    }

    fn puts(&self) -> Vec<(u32, Value)> {
        match self {
            Operation::Put(number, value) => vec![(*number, *value)],
            Operation::Unit(puts, _) => puts.to_vec(),
        }
    }

    fn deleted(&self) -> Option<u32> {
        match self {
            Operation::Put(..) => None,
            Operation::Unit(_, number) => Some(*number),
        }
    }
}

/// What the client was told about an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It took effect at this revision.
    Acknowledged(i64),
    /// The connection ended first.
    Unknown,
}

/// A key as it must be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    create_revision: i64,
    mod_revision: i64,
    version: i64,
    value: Value,
}

/// How the unknown outcomes turned out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settled {
    pub(crate) acknowledged: usize,
    pub(crate) unknown_there: usize,
    pub(crate) unknown_gone: usize,
}

/// The whole expected state.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    /// The current revision.
    pub(crate) revision: i64,
    keys: BTreeMap<Bytes, Version>,
    /// Every put with its revision, above the compaction floor.
    pub(crate) history: Vec<(i64, u32, Value)>,
}

impl Model {
    /// An empty store, as a new member has it.
    pub(crate) fn new() -> Model {
        Model {
            revision: 1,
            keys: BTreeMap::new(),
            history: Vec::new(),
        }
    }

    /// Takes over operations of one cycle, no key of which occurs twice, after a restart has shown
    /// `observed` (the whole store) at `revision`, and checks that these agree in everything.
    ///
    /// # Errors
    /// With what is wrong, in words.
    pub(crate) fn settle(
        &mut self,
        operations: &[(Operation, Outcome)],
        observed: &[KeyValue],
        revision: i64,
    ) -> Result<Settled, String> {
        let by_key: BTreeMap<&[u8], &KeyValue> =
            observed.iter().map(|kv| (&kv.key[..], kv)).collect();
        let mut settled = Settled::default();
        let mut effective = BTreeMap::new();
        for (operation, outcome) in operations {
            let at = match outcome {
                Outcome::Acknowledged(at) => {
                    settled.acknowledged += 1;
                    Some(*at)
                }
                Outcome::Unknown => {
                    // It is there when any of its values is: then all of it must be, which the
                    // comparison of the whole state checks.
                    let there = operation.puts().into_iter().find_map(|(number, value)| {
                        let found = by_key.get(&key(number)[..])?;
                        holds(found, value).then_some(found.mod_revision)
                    });
                    match there {
                        Some(_) => settled.unknown_there += 1,
                        None => settled.unknown_gone += 1,
                    }
                    there
                }
            };
            if let Some(at) = at
                && let Some(other) = effective.insert(at, operation)
            {
                return Err(format!("revision {at} twice: {operation:?} and {other:?}"));
            }
        }
        for (at, operation) in effective {
            if at != self.revision + 1 {
                let last = self.revision;
                return Err(format!(
                    "revision {last} is followed by {at}: {operation:?}"
                ));
            }
            self.apply(operation, at);
        }
        if revision != self.revision {
            let expected = self.revision;
            return Err(format!(
                "the header says revision {revision}, expected {expected}"
            ));
        }
        self.compare(observed)?;
        Ok(settled)
    }

    /// Takes over an operation whose revision is known.
    pub(crate) fn apply(&mut self, operation: &Operation, at: i64) {
        self.revision = at;
        for (number, value) in operation.puts() {
            let before = self.keys.get(&key(number));
            let version = Version {
                create_revision: before.map_or(at, |before| before.create_revision),
                mod_revision: at,
                version: before.map_or(1, |before| before.version + 1),
                value,
            };
            self.keys.insert(key(number), version);
            self.history.push((at, number, value));
        }
        if let Some(number) = operation.deleted() {
            self.keys.remove(&key(number));
        }
    }

    /// Compares the whole store with the model.
    fn compare(&self, observed: &[KeyValue]) -> Result<(), String> {
        let mut expected = self.keys.iter();
        let mut observed = observed.iter();
        loop {
            match (expected.next(), observed.next()) {
                (None, None) => return Ok(()),
                (Some((key, version)), Some(found))
                    if found.key == *key
                        && found.create_revision == version.create_revision
                        && found.mod_revision == version.mod_revision
                        && found.version == version.version
                        && holds(found, version.value) => {}
                (expected, found) => {
                    let found = found.map(|kv| KeyValue {
                        value: kv.value.slice(..kv.value.len().min(16)),
                        ..kv.clone()
                    });
                    return Err(format!("expected {expected:?}, the store has {found:?}"));
                }
            }
        }
    }
}

/// The key with this number.
pub(crate) fn key(number: u32) -> Bytes {
    format!("crash/{number:06}").into()
}

/// Whether exactly this value was read.
pub(crate) fn holds(found: &KeyValue, value: Value) -> bool {
    found.value.len() == value.size
        && found.value.starts_with(&value.stamp.to_le_bytes())
        && found.value == value.bytes()
}

/// Goal: the checker itself finds what it exists for: a lost put, a torn unit, a gap, a wrong header.
#[test]
fn the_model_notices() {
    let value = |stamp| Value { stamp, size: 20 };
    let unit = Operation::Unit([(1, value(11)), (2, value(12))], 3);
    let operations = |outcome| {
        vec![
            (Operation::Put(0, value(10)), outcome),
            (unit.clone(), Outcome::Unknown),
        ]
    };
    let kv = |number, at, stamp| KeyValue {
        key: key(number),
        create_revision: at,
        mod_revision: at,
        version: 1,
        value: value(stamp).bytes().into(),
        lease: 0,
    };
    let check = |outcome, observed: &[KeyValue], revision, good: bool| {
        let mut model = Model::new();
        let result = model.settle(&operations(outcome), observed, revision);
        assert_eq!(result.is_ok(), good, "{observed:?}: {result:?}");
    };
    let whole = [kv(0, 2, 10), kv(1, 3, 11), kv(2, 3, 12)];
    check(Outcome::Acknowledged(2), &whole, 3, true);
    check(Outcome::Acknowledged(2), &whole[..1], 2, true);
    check(Outcome::Unknown, &[], 1, true);
    check(Outcome::Acknowledged(2), &[], 1, false);
    check(Outcome::Acknowledged(2), &whole[..2], 3, false);
    check(Outcome::Acknowledged(3), &whole, 3, false);
    check(Outcome::Unknown, &whole[1..], 3, false);
    check(Outcome::Acknowledged(2), &whole, 4, false);
    check(Outcome::Acknowledged(2), &[kv(0, 2, 13)], 2, false);
}
