//! The bytes of one entry: written once here, and read back with every length checked.
//!
//! Unsigned numbers are LEB128, signed ones zigzag first, bytes have their length in front, a list its count.
//! A time is the difference to the entry before it in the block, so a usual put with a key of 16 bytes
//! takes about 40 bytes. Must never panic on, or allocate by a number found in, bytes from a file.

use bytes::Bytes;

use super::operation::{
    Answer, Base, Compare, Delete, DeleteAnswer, Entry, Event, Interval, Kv, Nanos, Operand,
    Operation, Outcome, Put, PutAnswer, Range, RangeAnswer, Refusal, Relation, Request, Txn,
    TxnAnswer, TxnOp, TxnOpAnswer, ValueHash, WatchEntry, WatchNotice, WatchRequest,
};

/// Bytes that are no entry of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an entry at byte {at}: {what}")]
pub struct Malformed {
    /// Offset in the bytes given.
    pub at: usize,
    /// What should have been there.
    pub what: &'static str,
}

/// No store has as many revisions; so those of a record can be added and subtracted without care.
const REVISION_MAX: u64 = 1 << 60;

const ENTRY_BASE: u8 = 1;
const ENTRY_OPERATION: u8 = 2;
const ENTRY_WATCH: u8 = 3;

/// Appends `entry`; `clock` is the time of the entry before, and becomes this one's.
pub(super) fn encode(into: &mut Vec<u8>, clock: &mut Nanos, entry: &Entry) {
    match entry {
        Entry::Base(base) => {
            into.push(ENTRY_BASE);
            signed(into, base.revision);
            kvs(into, &base.kvs);
        }
        Entry::Operation(operation) => encode_operation(into, clock, operation),
        Entry::Watch(watch) => {
            into.push(ENTRY_WATCH);
            unsigned(into, u64::from(watch.stream));
            signed(into, watch.watch);
            time(into, clock, watch.at);
            notice(into, &watch.notice);
        }
    }
}

/// Appends an operation, without the need to own it as an [`Entry`].
pub(super) fn encode_operation(into: &mut Vec<u8>, clock: &mut Nanos, operation: &Operation) {
    into.push(ENTRY_OPERATION);
    unsigned(into, u64::from(operation.client));
    time(into, clock, operation.invoked);
    signed(
        into,
        operation
            .returned
            .wrapping_sub(operation.invoked)
            .cast_signed(),
    );
    request(into, &operation.request);
    match &operation.outcome {
        Outcome::Ok { revision, answer } => {
            into.push(0);
            signed(into, *revision);
            encode_answer(into, answer);
        }
        Outcome::Refused(refusal) => match refusal {
            Refusal::Compacted => into.push(1),
            Refusal::Future => into.push(2),
            Refusal::Code(code) => {
                into.push(3);
                unsigned(into, u64::from(*code));
            }
        },
        Outcome::Unknown => into.push(4),
    }
}

fn unsigned(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    into.push((number & 0x7f) as u8);
}

fn signed(into: &mut Vec<u8>, number: i64) {
    unsigned(into, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

fn time(into: &mut Vec<u8>, clock: &mut Nanos, at: Nanos) {
    signed(into, at.wrapping_sub(*clock).cast_signed());
    *clock = at;
}

fn bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    unsigned(into, bytes.len() as u64);
    into.extend_from_slice(bytes);
}

fn hash(into: &mut Vec<u8>, hash: ValueHash) {
    into.extend_from_slice(&hash.0.to_le_bytes());
}

fn flag(into: &mut Vec<u8>, flag: bool) {
    into.push(u8::from(flag));
}

fn kv(into: &mut Vec<u8>, kv: &Kv) {
    bytes(into, &kv.key);
    signed(into, kv.create_revision);
    signed(into, kv.mod_revision);
    signed(into, kv.version);
    signed(into, kv.lease);
    flag(into, kv.value.is_some());
    if let Some(value) = kv.value {
        hash(into, value);
    }
}

fn kvs(into: &mut Vec<u8>, kvs: &[Kv]) {
    unsigned(into, kvs.len() as u64);
    for each in kvs {
        kv(into, each);
    }
}

fn interval(into: &mut Vec<u8>, interval: &Interval) {
    bytes(into, &interval.key);
    bytes(into, &interval.range_end);
}

fn put(into: &mut Vec<u8>, put: &Put) {
    bytes(into, &put.key);
    hash(into, put.value);
    signed(into, put.lease);
    flag(into, put.prev_kv);
}

fn range(into: &mut Vec<u8>, range: &Range) {
    interval(into, &range.interval);
    signed(into, range.limit);
    signed(into, range.revision);
    into.push(u8::from(range.serializable) | u8::from(range.count_only) << 1);
}

fn delete(into: &mut Vec<u8>, delete: &Delete) {
    interval(into, &delete.interval);
    flag(into, delete.prev_kv);
}

fn compare(into: &mut Vec<u8>, compare: &Compare) {
    bytes(into, &compare.key);
    into.push(match compare.relation {
        Relation::Equal => 0,
        Relation::Greater => 1,
        Relation::Less => 2,
        Relation::NotEqual => 3,
    });
    match compare.operand {
        Operand::Version(number) => tagged(into, 0, number),
        Operand::Create(number) => tagged(into, 1, number),
        Operand::Mod(number) => tagged(into, 2, number),
        Operand::Lease(number) => tagged(into, 3, number),
        Operand::Value(value) => {
            into.push(4);
            hash(into, value);
        }
    }
}

fn tagged(into: &mut Vec<u8>, tag: u8, number: i64) {
    into.push(tag);
    signed(into, number);
}

fn txn_ops(into: &mut Vec<u8>, ops: &[TxnOp]) {
    unsigned(into, ops.len() as u64);
    for op in ops {
        match op {
            TxnOp::Put(op) => {
                into.push(0);
                put(into, op);
            }
            TxnOp::Range(op) => {
                into.push(1);
                range(into, op);
            }
            TxnOp::Delete(op) => {
                into.push(2);
                delete(into, op);
            }
        }
    }
}

fn request(into: &mut Vec<u8>, request: &Request) {
    match request {
        Request::Put(op) => {
            into.push(0);
            put(into, op);
        }
        Request::Range(op) => {
            into.push(1);
            range(into, op);
        }
        Request::Delete(op) => {
            into.push(2);
            delete(into, op);
        }
        Request::Txn(txn) => {
            into.push(3);
            unsigned(into, txn.compares.len() as u64);
            for each in &txn.compares {
                compare(into, each);
            }
            txn_ops(into, &txn.success);
            txn_ops(into, &txn.failure);
        }
        Request::Compact(revision) => tagged(into, 4, *revision),
        Request::LeaseGrant { id, ttl } => {
            tagged(into, 5, *id);
            signed(into, *ttl);
        }
        Request::LeaseRevoke(id) => tagged(into, 6, *id),
        Request::LeaseKeepAlive(id) => tagged(into, 7, *id),
    }
}

fn put_answer(into: &mut Vec<u8>, answer: &PutAnswer) {
    flag(into, answer.prev.is_some());
    if let Some(prev) = &answer.prev {
        kv(into, prev);
    }
}

fn range_answer(into: &mut Vec<u8>, answer: &RangeAnswer) {
    kvs(into, &answer.kvs);
    flag(into, answer.more);
    signed(into, answer.count);
}

fn delete_answer(into: &mut Vec<u8>, answer: &DeleteAnswer) {
    signed(into, answer.deleted);
    kvs(into, &answer.prev_kvs);
}

fn encode_answer(into: &mut Vec<u8>, answer: &Answer) {
    match answer {
        Answer::Put(answer) => {
            into.push(0);
            put_answer(into, answer);
        }
        Answer::Range(answer) => {
            into.push(1);
            range_answer(into, answer);
        }
        Answer::Delete(answer) => {
            into.push(2);
            delete_answer(into, answer);
        }
        Answer::Txn(answer) => {
            into.push(3);
            flag(into, answer.succeeded);
            unsigned(into, answer.answers.len() as u64);
            for each in &answer.answers {
                match each {
                    TxnOpAnswer::Put(answer) => {
                        into.push(0);
                        put_answer(into, answer);
                    }
                    TxnOpAnswer::Range(answer) => {
                        into.push(1);
                        range_answer(into, answer);
                    }
                    TxnOpAnswer::Delete(answer) => {
                        into.push(2);
                        delete_answer(into, answer);
                    }
                }
            }
        }
        Answer::Compact => into.push(4),
        Answer::LeaseGrant { id, ttl } => {
            tagged(into, 5, *id);
            signed(into, *ttl);
        }
        Answer::LeaseRevoke => into.push(6),
        Answer::LeaseKeepAlive(ttl) => tagged(into, 7, *ttl),
    }
}

fn notice(into: &mut Vec<u8>, notice: &WatchNotice) {
    match notice {
        WatchNotice::Created { revision, request } => {
            tagged(into, 0, *revision);
            interval(into, &request.interval);
            signed(into, request.start_revision);
            into.push(
                u8::from(request.prev_kv)
                    | u8::from(request.no_put) << 1
                    | u8::from(request.no_delete) << 2,
            );
        }
        WatchNotice::Events {
            revision,
            fragment,
            events,
        } => {
            tagged(into, 1, *revision);
            flag(into, *fragment);
            unsigned(into, events.len() as u64);
            for event in events {
                flag(into, event.put);
                kv(into, &event.kv);
                flag(into, event.prev.is_some());
                if let Some(prev) = &event.prev {
                    kv(into, prev);
                }
            }
        }
        WatchNotice::Progress { revision } => tagged(into, 2, *revision),
        WatchNotice::Cancelled { compact_revision } => tagged(into, 3, *compact_revision),
        WatchNotice::Ended => into.push(4),
    }
}

/// Reads entries from bytes.
pub(super) struct Decoder<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a Bytes, at: usize) -> Decoder<'a> {
        Decoder { bytes, at }
    }

    /// Offset of the next byte.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The next entry; keys are slices of the bytes.
    pub(super) fn entry(&mut self, clock: &mut Nanos) -> Result<Entry, Malformed> {
        match self.byte("an entry's kind")? {
            ENTRY_BASE => Ok(Entry::Base(Base {
                revision: self.revision()?,
                kvs: self.list(Self::kv)?,
            })),
            ENTRY_OPERATION => Ok(Entry::Operation(self.operation(clock)?)),
            ENTRY_WATCH => Ok(Entry::Watch(WatchEntry {
                stream: self.small()?,
                watch: self.signed()?,
                at: self.time(clock)?,
                notice: self.notice()?,
            })),
            _ => Err(self.malformed("a known kind of entry")),
        }
    }

    fn operation(&mut self, clock: &mut Nanos) -> Result<Operation, Malformed> {
        let client = self.small()?;
        let invoked = self.time(clock)?;
        let took = self.signed()?.cast_unsigned();
        Ok(Operation {
            client,
            invoked,
            returned: invoked.wrapping_add(took),
            request: self.request()?,
            outcome: self.outcome()?,
        })
    }

    fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { at: self.at, what }
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, Malformed> {
        let byte = *self
            .bytes
            .get(self.at)
            .ok_or_else(|| self.malformed(what))?;
        self.at += 1;
        Ok(byte)
    }

    fn unsigned(&mut self) -> Result<u64, Malformed> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte("a number")?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(self.malformed("a number of at most 64 bits"))
    }

    fn signed(&mut self) -> Result<i64, Malformed> {
        let number = self.unsigned()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    /// A revision, or a version.
    fn revision(&mut self) -> Result<i64, Malformed> {
        let number = self.signed()?;
        if number.unsigned_abs() > REVISION_MAX {
            return Err(self.malformed("a revision that can be"));
        }
        Ok(number)
    }

    fn small(&mut self) -> Result<u32, Malformed> {
        let number = self.unsigned()?;
        u32::try_from(number).map_err(|_| self.malformed("a number of at most 32 bits"))
    }

    fn time(&mut self, clock: &mut Nanos) -> Result<Nanos, Malformed> {
        *clock = clock.wrapping_add(self.signed()?.cast_unsigned());
        Ok(*clock)
    }

    fn take(&mut self, length: u64) -> Result<Bytes, Malformed> {
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| self.at.checked_add(length))
            .filter(|end| *end <= self.bytes.len())
            .ok_or_else(|| self.malformed("as many bytes as announced"))?;
        let taken = self.bytes.slice(self.at..end);
        self.at = end;
        Ok(taken)
    }

    fn key(&mut self) -> Result<Bytes, Malformed> {
        let length = self.unsigned()?;
        self.take(length)
    }

    fn hash(&mut self) -> Result<ValueHash, Malformed> {
        let mut hash = [0; 8];
        hash.copy_from_slice(&self.take(8)?);
        Ok(ValueHash(u64::from_le_bytes(hash)))
    }

    fn flag(&mut self) -> Result<bool, Malformed> {
        match self.byte("a flag")? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.malformed("a flag of zero or one")),
        }
    }

    /// A list; its announced count decides nothing but when to stop.
    fn list<T>(
        &mut self,
        item: impl Fn(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.unsigned()?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn optional_kv(&mut self) -> Result<Option<Kv>, Malformed> {
        if self.flag()? {
            Ok(Some(self.kv()?))
        } else {
            Ok(None)
        }
    }

    fn kv(&mut self) -> Result<Kv, Malformed> {
        Ok(Kv {
            key: self.key()?,
            create_revision: self.revision()?,
            mod_revision: self.revision()?,
            version: self.revision()?,
            lease: self.signed()?,
            value: if self.flag()? {
                Some(self.hash()?)
            } else {
                None
            },
        })
    }

    fn interval(&mut self) -> Result<Interval, Malformed> {
        Ok(Interval {
            key: self.key()?,
            range_end: self.key()?,
        })
    }

    fn put(&mut self) -> Result<Put, Malformed> {
        Ok(Put {
            key: self.key()?,
            value: self.hash()?,
            lease: self.signed()?,
            prev_kv: self.flag()?,
        })
    }

    fn range(&mut self) -> Result<Range, Malformed> {
        let interval = self.interval()?;
        let limit = self.signed()?;
        let revision = self.signed()?;
        let flags = self.byte("flags of a range")?;
        Ok(Range {
            interval,
            limit,
            revision,
            serializable: flags & 1 != 0,
            count_only: flags & 2 != 0,
        })
    }

    fn delete(&mut self) -> Result<Delete, Malformed> {
        Ok(Delete {
            interval: self.interval()?,
            prev_kv: self.flag()?,
        })
    }

    fn compare(&mut self) -> Result<Compare, Malformed> {
        let key = self.key()?;
        let relation = match self.byte("a relation")? {
            0 => Relation::Equal,
            1 => Relation::Greater,
            2 => Relation::Less,
            3 => Relation::NotEqual,
            _ => return Err(self.malformed("a known relation")),
        };
        let operand = match self.byte("an operand")? {
            0 => Operand::Version(self.signed()?),
            1 => Operand::Create(self.signed()?),
            2 => Operand::Mod(self.signed()?),
            3 => Operand::Lease(self.signed()?),
            4 => Operand::Value(self.hash()?),
            _ => return Err(self.malformed("a known operand")),
        };
        Ok(Compare {
            key,
            relation,
            operand,
        })
    }

    fn txn_op(&mut self) -> Result<TxnOp, Malformed> {
        Ok(match self.byte("an operation of a transaction")? {
            0 => TxnOp::Put(self.put()?),
            1 => TxnOp::Range(self.range()?),
            2 => TxnOp::Delete(self.delete()?),
            _ => return Err(self.malformed("a known operation of a transaction")),
        })
    }

    fn request(&mut self) -> Result<Request, Malformed> {
        Ok(match self.byte("a request")? {
            0 => Request::Put(self.put()?),
            1 => Request::Range(self.range()?),
            2 => Request::Delete(self.delete()?),
            3 => Request::Txn(Txn {
                compares: self.list(Self::compare)?,
                success: self.list(Self::txn_op)?,
                failure: self.list(Self::txn_op)?,
            }),
            4 => Request::Compact(self.signed()?),
            5 => Request::LeaseGrant {
                id: self.signed()?,
                ttl: self.signed()?,
            },
            6 => Request::LeaseRevoke(self.signed()?),
            7 => Request::LeaseKeepAlive(self.signed()?),
            _ => return Err(self.malformed("a known request")),
        })
    }

    fn outcome(&mut self) -> Result<Outcome, Malformed> {
        Ok(match self.byte("an outcome")? {
            0 => Outcome::Ok {
                revision: self.revision()?,
                answer: self.answer()?,
            },
            1 => Outcome::Refused(Refusal::Compacted),
            2 => Outcome::Refused(Refusal::Future),
            3 => Outcome::Refused(Refusal::Code(self.small()?)),
            4 => Outcome::Unknown,
            _ => return Err(self.malformed("a known outcome")),
        })
    }

    fn put_answer(&mut self) -> Result<PutAnswer, Malformed> {
        Ok(PutAnswer {
            prev: self.optional_kv()?,
        })
    }

    fn range_answer(&mut self) -> Result<RangeAnswer, Malformed> {
        Ok(RangeAnswer {
            kvs: self.list(Self::kv)?,
            more: self.flag()?,
            count: self.signed()?,
        })
    }

    fn delete_answer(&mut self) -> Result<DeleteAnswer, Malformed> {
        Ok(DeleteAnswer {
            deleted: self.signed()?,
            prev_kvs: self.list(Self::kv)?,
        })
    }

    fn txn_op_answer(&mut self) -> Result<TxnOpAnswer, Malformed> {
        Ok(match self.byte("an answer inside a transaction")? {
            0 => TxnOpAnswer::Put(self.put_answer()?),
            1 => TxnOpAnswer::Range(self.range_answer()?),
            2 => TxnOpAnswer::Delete(self.delete_answer()?),
            _ => return Err(self.malformed("a known answer inside a transaction")),
        })
    }

    fn answer(&mut self) -> Result<Answer, Malformed> {
        Ok(match self.byte("an answer")? {
            0 => Answer::Put(self.put_answer()?),
            1 => Answer::Range(self.range_answer()?),
            2 => Answer::Delete(self.delete_answer()?),
            3 => Answer::Txn(TxnAnswer {
                succeeded: self.flag()?,
                answers: self.list(Self::txn_op_answer)?,
            }),
            4 => Answer::Compact,
            5 => Answer::LeaseGrant {
                id: self.signed()?,
                ttl: self.signed()?,
            },
            6 => Answer::LeaseRevoke,
            7 => Answer::LeaseKeepAlive(self.signed()?),
            _ => return Err(self.malformed("a known answer")),
        })
    }

    fn event(&mut self) -> Result<Event, Malformed> {
        Ok(Event {
            put: self.flag()?,
            kv: self.kv()?,
            prev: self.optional_kv()?,
        })
    }

    fn notice(&mut self) -> Result<WatchNotice, Malformed> {
        Ok(match self.byte("a notice")? {
            0 => {
                let revision = self.revision()?;
                let interval = self.interval()?;
                let start_revision = self.signed()?;
                let flags = self.byte("flags of a watch")?;
                WatchNotice::Created {
                    revision,
                    request: WatchRequest {
                        interval,
                        start_revision,
                        prev_kv: flags & 1 != 0,
                        no_put: flags & 2 != 0,
                        no_delete: flags & 4 != 0,
                    },
                }
            }
            1 => WatchNotice::Events {
                revision: self.revision()?,
                fragment: self.flag()?,
                events: self.list(Self::event)?,
            },
            2 => WatchNotice::Progress {
                revision: self.revision()?,
            },
            3 => WatchNotice::Cancelled {
                compact_revision: self.revision()?,
            },
            4 => WatchNotice::Ended,
            _ => return Err(self.malformed("a known notice")),
        })
    }
}
