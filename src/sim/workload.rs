//! The clients: what they ask, chosen at random, with an eye on what makes answers interesting.
//!
//! Every value is unique. Compares are built from what the store holds, so that they hold about as
//! often as not, and old revisions are read on both sides of the floor. A client never asks the same thing twice: what
//! is not answered is unknown, and stays so.

use bytes::Bytes;

use super::checker::history::{History, value_of};
use super::conditions::Conditions;
use super::dice::Dice;
use crate::base::LeaseId;
use crate::keyspace::request::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, KeyRange, PutRequest, RangeRequest,
    RequestOp, TxnRequest,
};
use crate::shard::event::Request;

/// Puts of one transaction.
const TXN_PUTS_MAX: u64 = 3;
/// Compactions keep at least this many revisions.
const COMPACTION_KEEPS: i64 = 5;

#[derive(Clone, Copy)]
enum Kind {
    Put,
    Delete,
    Get,
    Range,
    OldRange,
    Txn,
    ReadTxn,
    Compact,
    Status,
}

const KINDS: &[(u32, Kind)] = &[
    (30, Kind::Put),
    (5, Kind::Delete),
    (12, Kind::Get),
    (8, Kind::Range),
    (5, Kind::OldRange),
    (28, Kind::Txn),
    (8, Kind::ReadTxn),
    (2, Kind::Compact),
    (1, Kind::Status),
];

/// The clients of one run.
#[derive(Debug)]
pub(super) struct Workload {
    dice: Dice,
    keys: u64,
    value_long_max: usize,
}

impl Workload {
    pub(super) fn new(dice: Dice, conditions: &Conditions) -> Workload {
        Workload {
            dice,
            keys: conditions.keys,
            value_long_max: conditions.value_long_max,
        }
    }

    /// The next request, with its kind for the trace.
    pub(super) fn next(&mut self, history: &History) -> (Request, &'static str) {
        let number = history.next_operation();
        let kind = self.dice.weighted(KINDS).expect("weights above zero");
        match kind {
            Kind::Put => {
                let key = self.key();
                (Request::Put(self.put(key, number, 0)), "put")
            }
            Kind::Delete => (Request::DeleteRange(self.delete()), "delete"),
            Kind::Get => {
                let range = RangeRequest {
                    range: KeyRange {
                        key: self.key(),
                        range_end: Bytes::new(),
                    },
                    serializable: self.dice.below(5) == 0,
                    ..RangeRequest::default()
                };
                (Request::Range(range), "get")
            }
            Kind::Range => (Request::Range(self.range()), "range"),
            Kind::OldRange => {
                let newest = history.seen() + 2;
                let oldest = (history.floor() - 3).max(1);
                let mut range = self.range();
                range.serializable = false;
                range.revision = oldest + self.dice.below((newest - oldest + 1) as u64) as i64;
                (Request::Range(range), "old range")
            }
            Kind::Txn => (Request::Txn(self.txn(history, number)), "txn"),
            Kind::ReadTxn => (Request::Txn(self.read_txn(history)), "read txn"),
            Kind::Compact => {
                let newest = history.seen() - COMPACTION_KEEPS;
                let oldest = (history.floor() - 3).max(1);
                let span = (newest - oldest + 1).max(1) as u64;
                let revision = match self.dice.below(20) {
                    0 => i64::MAX / 2,
                    _ => oldest + self.dice.below(span) as i64,
                };
                let physical = self.dice.below(2) == 0;
                (Request::Compact { revision, physical }, "compact")
            }
            Kind::Status => (Request::Status, "status"),
        }
    }

    /// A read of everything.
    pub(super) fn everything() -> Request {
        let all = Bytes::from_static(b"\0");
        Request::Range(RangeRequest {
            range: KeyRange {
                key: all.clone(),
                range_end: all,
            },
            ..RangeRequest::default()
        })
    }

    fn key(&mut self) -> Bytes {
        key(self.dice.below(self.keys))
    }

    fn interval(&mut self) -> KeyRange {
        let from = self.dice.below(self.keys);
        let range_end = match self.dice.below(4) {
            0 => Bytes::new(),
            1 => Bytes::from_static(b"\0"),
            _ => key(from + 1 + self.dice.below(5)),
        };
        KeyRange {
            key: key(from),
            range_end,
        }
    }

    fn put(&mut self, key: Bytes, operation: u32, number: usize) -> PutRequest {
        let padding = match self.dice.below(30) {
            0 => self.dice.place(self.value_long_max),
            _ => self.dice.place(64),
        };
        PutRequest {
            key,
            value: value_of(operation, number, padding),
            lease: LeaseId(0),
            prev_kv: self.dice.below(3) == 0,
            ..PutRequest::default()
        }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        DeleteRangeRequest {
            range: self.interval(),
            prev_kv: self.dice.below(2) == 0,
        }
    }

    fn range(&mut self) -> RangeRequest {
        let mut range = RangeRequest {
            range: self.interval(),
            serializable: self.dice.below(5) == 0,
            ..RangeRequest::default()
        };
        match self.dice.below(6) {
            0 => range.count_only = true,
            1 => range.keys_only = true,
            2 => range.limit = self.dice.between(1, 4) as i64,
            _ => {}
        }
        range
    }

    /// A transaction that writes in at least one branch. No key is written twice in one branch.
    fn txn(&mut self, history: &History, number: u32) -> TxnRequest {
        let mut txn = TxnRequest {
            compare: self.compares(history),
            ..TxnRequest::default()
        };
        let first = self.dice.below(self.keys);
        if self.dice.below(6) == 0 {
            txn.success.push(RequestOp::DeleteRange(self.delete()));
        } else {
            for put in 0..self.dice.between(1, TXN_PUTS_MAX) {
                if self.dice.below(3) == 0 {
                    txn.success.push(RequestOp::Range(self.read()));
                }
                let put_number = usize::try_from(put).expect("few");
                let key = key(first + put);
                txn.success
                    .push(RequestOp::Put(self.put(key, number, put_number)));
            }
        }
        if self.dice.below(2) == 0 {
            txn.failure.push(RequestOp::Range(self.read()));
        } else if self.dice.below(4) == 0 {
            let key = self.key();
            txn.failure.push(RequestOp::Put(self.put(key, number, 9)));
        }
        if self.dice.below(3) == 0 {
            txn.success.push(RequestOp::Range(self.read()));
        }
        txn
    }

    fn read_txn(&mut self, history: &History) -> TxnRequest {
        let reads = |this: &mut Workload| {
            (0..this.dice.between(1, 3))
                .map(|_| RequestOp::Range(this.read()))
                .collect()
        };
        TxnRequest {
            compare: self.compares(history),
            success: reads(self),
            failure: reads(self),
        }
    }

    fn read(&mut self) -> RangeRequest {
        RangeRequest {
            serializable: false,
            ..self.range()
        }
    }

    fn compares(&mut self, history: &History) -> Vec<Compare> {
        (0..self.dice.below(3))
            .map(|_| self.compare(history))
            .collect()
    }

    /// A compare with what the key holds now, or held some revisions ago.
    fn compare(&mut self, history: &History) -> Compare {
        let key = self.key();
        let model = history.model();
        let back = match self.dice.below(3) {
            0 => self.dice.below(20) as i64,
            _ => 0,
        };
        let held = model
            .key_at(&key, (model.revision() - back).max(1))
            .unwrap_or_default();
        let target = match self.dice.below(4) {
            0 => CompareTarget::Version(held.version),
            1 => CompareTarget::CreateRevision(held.create_revision),
            2 => CompareTarget::ModRevision(held.mod_revision),
            _ => CompareTarget::Value(held.value),
        };
        let result = match self.dice.below(8) {
            0 => CompareResult::NotEqual,
            1 => CompareResult::Greater,
            2 => CompareResult::Less,
            _ => CompareResult::Equal,
        };
        Compare {
            range: KeyRange {
                key,
                range_end: Bytes::new(),
            },
            result,
            target,
        }
    }
}

fn key(number: u64) -> Bytes {
    Bytes::from(format!("k{number:03}"))
}
