//! The two immutable, reference-counted building blocks: a key, and one version of a key.
//!
//! Both are handles of one machine word. A key is stored once and shared by the index and the history; a
//! version's value is stored once and shared with the answers that carry it to other cores.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;

use bytes::Bytes;
use smallvec::SmallVec;
use triomphe::ThinArc;

use super::revision::Revision;
use crate::base::LeaseId;

/// A prefix with its value is put together on the stack up to this size.
const PREFIXED_INLINE_BYTES: usize = 1_024;

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
    sub: u32,
    /// Main revision of the creation; zero marks a tombstone.
    create: i64,
    /// Puts since the creation, from one; zero in a tombstone.
    version: i64,
    lease: i64,
}

/// A [`Stamp`] in two words, because it is stored with every version:
///
/// ```text
/// place  main: 40 bits | sub: 22 bits | shape: 2 bits
/// life   main - create: 32 bits | version: 32 bits, zero in a tombstone
/// ```
///
/// What else a shape needs stands before the value. The numbers of a store that writes 10,000 transactions
/// a second fit for three years; what does not fit is stored whole.
#[derive(Clone, Copy)]
struct Packed {
    place: u64,
    life: u64,
}

/// Everything is in the two words; the lease is zero.
const SHAPE_PLAIN: u64 = 0;
/// The lease stands before the value.
const SHAPE_LEASED: u64 = 1;
/// Nothing is in the two words; the whole stamp stands before the value.
const SHAPE_WIDE: u64 = 2;

const SHAPE_BITS: u32 = 2;
const SUB_BITS: u32 = 22;
const MAIN_BITS: u32 = u64::BITS - SUB_BITS - SHAPE_BITS;

const LEASED_PREFIX_BYTES: usize = 8;
/// Main, create, version, lease and sub.
const WIDE_PREFIX_BYTES: usize = 4 * 8 + 4;

impl Packed {
    /// The two words of a stamp, but for the lease; `None` when they cannot hold it.
    fn of(stamp: &Stamp) -> Option<Packed> {
        let main = u64::try_from(stamp.main).ok()?;
        let version = u32::try_from(stamp.version).ok()?;
        let behind = match stamp.create {
            0 if version == 0 => 0,
            // A life that begins at revision zero would look like a tombstone's.
            create if create > 0 && version > 0 => {
                u32::try_from(stamp.main.checked_sub(create)?).ok()?
            }
            _ => return None,
        };
        let fits = main < 1 << MAIN_BITS && stamp.sub < 1 << SUB_BITS;
        let place = (main << SUB_BITS | u64::from(stamp.sub)) << SHAPE_BITS;
        fits.then_some(Packed {
            place,
            life: u64::from(behind) << 32 | u64::from(version),
        })
    }

    fn shape(self) -> u64 {
        self.place & ((1 << SHAPE_BITS) - 1)
    }

    fn main(self) -> i64 {
        i64::try_from(self.place >> (SUB_BITS + SHAPE_BITS)).expect("40 bits fit")
    }

    fn sub(self) -> u32 {
        u32::try_from(self.place >> SHAPE_BITS & ((1 << SUB_BITS) - 1)).expect("22 bits fit")
    }

    fn version(self) -> i64 {
        i64::from(self.life as u32)
    }

    fn create(self) -> i64 {
        match self.version() {
            0 => 0,
            _ => self.main() - i64::try_from(self.life >> 32).expect("32 bits fit"),
        }
    }
}

/// One version of a key: a value with its revisions and lease, or a tombstone.
#[derive(Clone)]
pub(super) struct Record(ThinArc<Packed, u8>);

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
        Record::new(&stamp, value)
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
        Record::new(&stamp, &[])
    }

    /// A version as it was once: `(create, version)` is the main revision of its creation and its count of puts, zeros
    /// in a tombstone.
    pub(super) fn restored(
        at: Revision,
        (create, version): (i64, i64),
        lease: LeaseId,
        value: &[u8],
    ) -> Record {
        let stamp = Stamp {
            main: at.main,
            create,
            version,
            lease: lease.0,
            sub: at.sub,
        };
        Record::new(&stamp, value)
    }

    fn new(stamp: &Stamp, value: &[u8]) -> Record {
        match Packed::of(stamp) {
            Some(packed) if stamp.lease == 0 => {
                Record(ThinArc::from_header_and_slice(packed, value))
            }
            Some(packed) => {
                let place = packed.place | SHAPE_LEASED;
                let packed = Packed { place, ..packed };
                Record::prefixed(packed, &stamp.lease.to_le_bytes(), value)
            }
            None => {
                let packed = Packed {
                    place: SHAPE_WIDE,
                    life: 0,
                };
                let mut prefix = [0; WIDE_PREFIX_BYTES];
                let words = [stamp.main, stamp.create, stamp.version, stamp.lease];
                for (slot, word) in prefix.chunks_exact_mut(8).zip(words) {
                    slot.copy_from_slice(&word.to_le_bytes());
                }
                prefix[4 * 8..].copy_from_slice(&stamp.sub.to_le_bytes());
                Record::prefixed(packed, &prefix, value)
            }
        }
    }

    fn prefixed(packed: Packed, prefix: &[u8], value: &[u8]) -> Record {
        let mut bytes = SmallVec::<[u8; PREFIXED_INLINE_BYTES]>::new();
        bytes.reserve_exact(prefix.len() + value.len());
        bytes.extend_from_slice(prefix);
        bytes.extend_from_slice(value);
        Record(ThinArc::from_header_and_slice(packed, &bytes))
    }

    fn packed(&self) -> Packed {
        self.0.header.header
    }

    /// The whole stamp, when that is how it is stored.
    fn wide(&self) -> Option<Stamp> {
        (self.packed().shape() == SHAPE_WIDE).then(|| {
            let prefix = &self.0.slice[..WIDE_PREFIX_BYTES];
            Stamp {
                main: word(prefix, 0),
                create: word(prefix, 1),
                version: word(prefix, 2),
                lease: word(prefix, 3),
                sub: u32::from_le_bytes(prefix[4 * 8..].try_into().expect("four bytes")),
            }
        })
    }

    pub(super) fn main(&self) -> i64 {
        self.wide()
            .map_or_else(|| self.packed().main(), |wide| wide.main)
    }

    pub(super) fn revision(&self) -> Revision {
        let sub = self
            .wide()
            .map_or_else(|| self.packed().sub(), |wide| wide.sub);
        Revision {
            main: self.main(),
            sub,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.create() != 0
    }

    pub(super) fn create(&self) -> i64 {
        self.wide()
            .map_or_else(|| self.packed().create(), |wide| wide.create)
    }

    pub(super) fn version(&self) -> i64 {
        self.wide()
            .map_or_else(|| self.packed().version(), |wide| wide.version)
    }

    pub(super) fn lease(&self) -> LeaseId {
        LeaseId(match self.packed().shape() {
            SHAPE_PLAIN => 0,
            SHAPE_LEASED => word(&self.0.slice, 0),
            _ => word(&self.0.slice, 3),
        })
    }

    pub(super) fn value(&self) -> &[u8] {
        &self.0.slice[match self.packed().shape() {
            SHAPE_PLAIN => 0,
            SHAPE_LEASED => LEASED_PREFIX_BYTES,
            _ => WIDE_PREFIX_BYTES,
        }..]
    }

    /// The value without copying it: the bytes live until the last holder, here or on another core,
    /// lets go.
    pub(super) fn share_value(&self) -> Bytes {
        Bytes::from_owner(SharedValue(self.clone()))
    }

    fn stamp(&self) -> Stamp {
        let Revision { main, sub } = self.revision();
        Stamp {
            main,
            sub,
            create: self.create(),
            version: self.version(),
            lease: self.lease().0,
        }
    }
}

/// The little-endian number that stands at a place of a prefix.
fn word(prefix: &[u8], at: usize) -> i64 {
    let bytes = prefix[at * 8..][..8].try_into().expect("eight bytes");
    i64::from_le_bytes(bytes)
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.stamp(), self.value().escape_ascii())
    }
}

/// Keeps a version alive behind a [`Bytes`] of its value.
struct SharedValue(Record);

impl AsRef<[u8]> for SharedValue {
    fn as_ref(&self) -> &[u8] {
        self.0.value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a version without a lease costs beside its value, in bytes.
    const HEADER_BYTES: usize = 32;

    fn check(stamp: Stamp, expected: u64) {
        for value in [&b""[..], b"v", &[7; 3 * PREFIXED_INLINE_BYTES]] {
            let record = Record::new(&stamp, value);
            assert_eq!(record.packed().shape(), expected, "{stamp:?}");
            assert_eq!(record.stamp(), stamp);
            assert_eq!(record.value(), value);
            assert_eq!(record.is_live(), stamp.create != 0);
            assert_eq!(record.share_value(), value);
        }
    }

    /// Goal: every stamp is read back exactly, at the ends of what each shape holds and beyond.
    #[test]
    fn shapes() {
        let put = Stamp {
            main: 7,
            sub: 3,
            create: 5,
            version: 2,
            lease: 0,
        };
        let tombstone = Stamp {
            create: 0,
            version: 0,
            ..put
        };
        let main = (1 << MAIN_BITS) - 1;
        let sub = (1 << SUB_BITS) - 1;
        let behind = i64::from(u32::MAX);
        let version = i64::from(u32::MAX);
        check(put, SHAPE_PLAIN);
        check(tombstone, SHAPE_PLAIN);
        let last = Stamp {
            main,
            sub,
            create: main - behind,
            version,
            lease: 0,
        };
        check(last, SHAPE_PLAIN);
        check(
            Stamp {
                main,
                sub,
                ..tombstone
            },
            SHAPE_PLAIN,
        );
        for lease in [1, i64::MAX, i64::MIN] {
            check(Stamp { lease, ..put }, SHAPE_LEASED);
            check(Stamp { lease, ..last }, SHAPE_LEASED);
        }
        let create = last.create;
        for wide in [
            Stamp {
                main: main + 1,
                create: main,
                ..put
            },
            Stamp {
                sub: sub + 1,
                ..put
            },
            Stamp {
                create: create - 1,
                ..last
            },
            Stamp {
                version: version + 1,
                ..last
            },
            Stamp {
                main: main + 1,
                ..tombstone
            },
            Stamp {
                sub: u32::MAX,
                ..tombstone
            },
            Stamp {
                main: i64::MIN,
                create: i64::MAX,
                version: i64::MIN,
                ..put
            },
            Stamp {
                main: i64::MAX,
                create: i64::MIN,
                version: i64::MAX,
                ..put
            },
            Stamp {
                main: i64::MAX,
                sub: u32::MAX,
                create: 1,
                version: -1,
                lease: -1,
            },
            Stamp { version: 0, ..put },
            Stamp { create: 0, ..put },
        ] {
            check(wide, SHAPE_WIDE);
        }
    }

    /// Goal: the header stays as small as it is.
    #[test]
    fn header_size() {
        let counts = 2 * size_of::<usize>();
        assert_eq!(size_of::<Packed>() + counts, HEADER_BYTES);
        assert_eq!(size_of::<Record>(), size_of::<usize>());
    }
}
