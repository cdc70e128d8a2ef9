//! The digest: a hash of everything the fold ever did, chained from index to index.
//!
//! Covers results (versions written, floors moved), not effects, so members that evaluated or folded
//! differently differ here; and it does not depend on what was reclaimed since. It is a check against our
//! own bugs and bad memory, not against an adversary.

use xxhash_rust::xxh3::xxh3_64;

use super::record::Record;
use crate::base::Index;

/// The digest after an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(pub u64);

const KIND_VERSION: u64 = 1;
const KIND_FLOOR: u64 = 2;
const KIND_INDEX: u64 = 3;

impl Digest {
    /// Adds a version that was written.
    pub(super) fn version(&mut self, key: &[u8], record: &Record) {
        let revision = record.revision();
        self.chain([
            KIND_VERSION,
            revision.main as u64,
            u64::from(revision.sub),
            record.create() as u64,
            record.version() as u64,
            record.lease().0 as u64,
            xxh3_64(key),
            xxh3_64(record.value()),
        ]);
    }

    /// Adds a floor that was set.
    pub(super) fn floor(&mut self, revision: i64) {
        self.chain([KIND_FLOOR, revision as u64, 0, 0, 0, 0, 0, 0]);
    }

    /// Ends an entry, with the main revision after it.
    pub(super) fn index(&mut self, index: Index, main: i64) {
        self.chain([KIND_INDEX, index.0, main as u64, 0, 0, 0, 0, 0]);
    }

    fn chain(&mut self, words: [u64; 8]) {
        let mut bytes = [0; 72];
        bytes[..8].copy_from_slice(&self.0.to_le_bytes());
        for (slot, word) in bytes[8..].chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        self.0 = xxh3_64(&bytes);
    }
}
