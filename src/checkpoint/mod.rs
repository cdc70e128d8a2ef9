//! A shard's committed state at one index, as bytes: written in slices while writes go on, read back
//! with every byte checked.
//!
//! Owns the form of the file. Must never touch one: it hands out blocks, and is handed blocks. The same
//! state gives the same bytes wherever and whenever it is written: a member's identity, its salt and how
//! far its reclaim had come are not in it, so members can compare checkpoints, and one can continue a
//! transfer that another began. It knows versions of keys, and rows of tables whose meaning is the
//! shard's. Written on the shard's core; read on any thread.
//!
//! ```text
//! block     | header 16 B | 65,520 B of the stream |      all but the last are full, so block n is at n x 64 KiB
//!
//! stream    | header | row | row | version | version | ... | version | end |
//!             index,   members,    what was live at the      counts, checksum
//!             term,    alarms      floor, in key order;      of the stream
//!             floor                then the history
//! ```
//!
//! A row or version may begin in one block and end in a later one.

mod format;
mod read;
mod write;

pub use format::{CheckpointId, Origin, Row, Source};
pub use read::{CheckpointError, Reader, Restored, read_header};
pub use write::{Block, Writer};
