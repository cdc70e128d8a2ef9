//! What an entry does to a keyspace: the archived form that is on disk, on the wire and folded.
//!
//! Owns the effect schema. An effect is decided once, by the leader, and holds no condition: folding it
//! gives the same result on every member. However many keys an effect touches, it stays small. Released
//! variants are never changed or reordered, because the archive has no schema evolution; a new kind of
//! effect is added at the end.

#![expect(
    missing_docs,
    reason = "the archive's derive writes public types without docs"
)]

use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize};

/// One change of an entry, in the order of execution.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub enum Effect {
    /// Sets a key. What the request asked to keep has already been filled in.
    Put {
        /// The key; never empty.
        key: Bytes,
        /// The value; may be empty.
        value: Bytes,
        /// The lease the key is attached to afterwards; zero for none.
        lease: i64,
    },
    /// Deletes every live key of an interval, in key order, each with its own sub revision.
    DeleteRange {
        /// First key, as in [`super::request::KeyRange`].
        key: Bytes,
        /// End of the interval, as in [`super::request::KeyRange`].
        range_end: Bytes,
    },
    /// Moves the compaction floor; takes effect when committed.
    Compact {
        /// The new floor, a main revision: the oldest that stays readable.
        revision: i64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the bytes of every effect stay what they are, and are read back as what was written.
    #[test]
    fn golden_bytes() {
        let effects = vec![
            Effect::Put {
                key: Bytes::from_static(b"a key beyond inlining"),
                value: Bytes::from_static(b"v"),
                lease: 0x0102_0304,
            },
            Effect::DeleteRange {
                key: Bytes::from_static(b"d"),
                range_end: Bytes::from_static(b"e"),
            },
            Effect::Compact { revision: 7 },
        ];
        let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(&effects).expect("memory suffices");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, include_str!("effects.golden").trim());

        let archived = rkyv::access::<rkyv::Archived<Vec<Effect>>, rkyv::rancor::Error>(&bytes)
            .expect("what was written is valid");
        let back: Vec<Effect> =
            rkyv::deserialize::<_, rkyv::rancor::Error>(archived).expect("memory suffices");
        assert_eq!(back, effects);
    }
}
