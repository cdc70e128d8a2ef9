//! The bytes of a shard's log: staged, committed, found again after a crash.
//!
//! Owns every byte of the segment files and the judgement over them. Does no I/O: it hands out bytes with
//! the place where they belong, and is handed the bytes of files. It knows indexes and terms, not
//! what an entry means. Runs on the shard's core. `docs/log-format.md` is the layout for users.
//!
//! ```text
//! segment   | header | commit 41        | commit 42 | commit 43          | ... free ... | header copy |
//!           0        4 KiB              page        page                                size - 4 KiB
//!
//! commit    | commit header 128 B | record | record | record | zeros to the page |
//!             salt, sequence, term, vote, commit index, durable mark, chained checksum
//!
//! record    | record header 32 B | rkyv archive | zeros to 16 |       the same bytes in a frame to a peer
//! ```
//!
//! The life of a log, with the caller doing the I/O:
//!
//! ```text
//! files -> Recovery::segment(bytes)... -> finish() -> Outcome
//!            Clean | TornTail: overwrite, sync all -> Appender::resume()
//!            Corrupt: mark it, cut at Damage::cut(), recover again, rebuild from peers; or stop
//!
//! Appender: stage_entry()... -> commit() -> write, sync -> durable() -> acknowledge
//! ```

pub mod append;
pub mod damage;
pub mod read;
pub mod record;
pub mod recover;
pub mod retain;
pub mod scrub;
pub mod segment;
pub mod stage;

pub use crate::base::HardState;
pub use append::{Appender, Commit, CommitStep, Durable, PreparedSegment, SegmentOpening, Staged};
pub use damage::{Cut, Damage, Outcome, Refusal};
pub use read::entries;
pub use record::CommitSequence;
pub use recover::{Checkpoint, Recovered, Recovery, Replayed, SegmentFile};
pub use retain::{Location, SegmentSummary};
pub use scrub::{SealedDamage, SealedSegment, check_sealed};
pub use segment::{Geometry, LogIdentity, SegmentSequence};
pub use stage::StageError;
