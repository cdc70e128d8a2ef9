//! Builds the keys and values of an answer, sharing memory where that is cheaper than copying.
//!
//! A large value is shared: the answer holds a reference, and no byte is copied. A small value and every
//! key are copied into blocks that the whole answer shares: a reference of its own would cost each of them
//! an allocation, freed on another core, which takes longer than copying a few hundred bytes.

use bytes::{Bytes, BytesMut};

use super::record::Record;
use super::request::KeyValue;
use crate::base::LeaseId;
use crate::base::limits::ANSWER_VALUE_SHARED_BYTES_MIN;

/// The first block of an answer; each further one is twice as large, up to the maximum.
const BLOCK_BYTES_FIRST: usize = 1_024;
const BLOCK_BYTES_MAX: usize = 65_536;

/// Which parts of a version an answer shows; the rest is left out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    pub(super) value: bool,
    pub(super) lease: bool,
}

impl Parts {
    pub(super) const ALL: Parts = Parts {
        value: true,
        lease: true,
    };
}

/// Makes the keys and values of one answer.
#[derive(Debug, Default)]
pub(super) struct Packer {
    block: BytesMut,
    blocks: u32,
}

impl Packer {
    /// A version of a key, as one of many in an answer.
    pub(super) fn pack(&mut self, key: &[u8], record: &Record, parts: Parts) -> KeyValue {
        let value = match record.value() {
            _ if !parts.value => Bytes::new(),
            value if value.len() >= ANSWER_VALUE_SHARED_BYTES_MIN => record.share_value(),
            value => self.copy(value),
        };
        key_value(self.copy(key), value, record, parts)
    }

    fn copy(&mut self, bytes: &[u8]) -> Bytes {
        if self.block.capacity() < bytes.len() {
            let size = (BLOCK_BYTES_FIRST << self.blocks.min(16)).min(BLOCK_BYTES_MAX);
            self.blocks += 1;
            self.block = BytesMut::with_capacity(size.max(bytes.len()));
        }
        self.block.extend_from_slice(bytes);
        self.block.split().freeze()
    }
}

/// The only version of an answer.
pub(super) fn single(key: Bytes, record: &Record, parts: Parts) -> KeyValue {
    let value = if parts.value {
        value(record)
    } else {
        Bytes::new()
    };
    key_value(key, value, record, parts)
}

/// A value on its own.
pub(super) fn value(record: &Record) -> Bytes {
    match record.value() {
        value if value.len() >= ANSWER_VALUE_SHARED_BYTES_MIN => record.share_value(),
        value => Bytes::copy_from_slice(value),
    }
}

fn key_value(key: Bytes, value: Bytes, record: &Record, parts: Parts) -> KeyValue {
    KeyValue {
        key,
        create_revision: record.create(),
        mod_revision: record.main(),
        version: record.version(),
        value,
        lease: if parts.lease {
            record.lease()
        } else {
            LeaseId(0)
        },
    }
}
