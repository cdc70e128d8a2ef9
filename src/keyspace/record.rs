//! The two immutable, reference-counted building blocks: a key, and one version of a key.
//!
//! Both are handles of one machine word. A key is stored once and shared by the index and the history; a
//! version's value is stored once and shared with the answers that carry it to other cores.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;

use bytes::Bytes;
use triomphe::ThinArc;

use super::revision::Revision;
use crate::base::LeaseId;

/// A key, stored once.
#[derive(Clone)]
pub(super) struct Key(ThinArc<(), u8>);

impl Key {
    pub(super) fn new(bytes: &[u8]) -> Key {
        Key(ThinArc::from_header_and_slice((), bytes))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0.slice
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.bytes()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.bytes().escape_ascii())
    }
}

/// What a version is, beside its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    main: i64,
    /// Main revision of the creation; zero marks a tombstone.
    create: i64,
    /// Puts since the creation, from one; zero in a tombstone.
    version: i64,
    lease: i64,
    sub: u32,
}

/// One version of a key: a value with its revisions and lease, or a tombstone.
#[derive(Clone)]
pub(super) struct Record(ThinArc<Stamp, u8>);

impl Record {
    /// The version that a put makes out of the key's newest version so far.
    pub(super) fn put(newest: Option<&Record>, at: Revision, value: &[u8], lease: i64) -> Record {
        let (create, version) = match newest.filter(|newest| newest.is_live()) {
            Some(newest) => (newest.create(), newest.version() + 1),
            None => (at.main, 1),
        };
        let stamp = Stamp {
            main: at.main,
            create,
            version,
            lease,
            sub: at.sub,
        };
        Record(ThinArc::from_header_and_slice(stamp, value))
    }

    /// The version that a deletion makes.
    pub(super) fn tombstone(at: Revision) -> Record {
        let stamp = Stamp {
            main: at.main,
            create: 0,
            version: 0,
            lease: 0,
            sub: at.sub,
        };
        Record(ThinArc::from_header_and_slice(stamp, &[]))
    }

    pub(super) fn main(&self) -> i64 {
        self.0.header.header.main
    }

    pub(super) fn revision(&self) -> Revision {
        Revision {
            main: self.main(),
            sub: self.0.header.header.sub,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.0.header.header.create != 0
    }

    pub(super) fn create(&self) -> i64 {
        self.0.header.header.create
    }

    pub(super) fn version(&self) -> i64 {
        self.0.header.header.version
    }

    pub(super) fn lease(&self) -> LeaseId {
        LeaseId(self.0.header.header.lease)
    }

    pub(super) fn value(&self) -> &[u8] {
        &self.0.slice
    }

    /// The value without copying it: the bytes live until the last holder, here or on another core,
    /// lets go.
    pub(super) fn share_value(&self) -> Bytes {
        Bytes::from_owner(SharedValue(self.clone()))
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.0.header, self.value().escape_ascii())
    }
}

/// Keeps a version alive behind a [`Bytes`] of its value.
struct SharedValue(Record);

impl AsRef<[u8]> for SharedValue {
    fn as_ref(&self) -> &[u8] {
        self.0.value()
    }
}
