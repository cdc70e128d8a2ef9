//! Files: the data directory and who it belongs to, segments of the log, and the device below.
//!
//! Owns every file of a member. What may block (creating, locking, mapping) runs at start or on the disk
//! thread; a core only submits I/O through its ring. Refusals at start are typed errors with the file
//! and the cure; a failure of the log while running ends the process through [`super::fatal`].
//!
//! ```text
//! <data-dir>/            0700, one process at a time
//!   lock                 held with flock while the member runs
//!   identity             whose directory this is; written once, never changed
//!   shard-0/wal/         the segments of one shard's log; whose it is (owner), what is known beside it (members),
//!                        and whether it has begun (begun)
//!   shard-0/checkpoints/ its state as files, the newest and for a moment the one before
//! ```

pub mod begun;
mod checked;
pub mod checkpoint;
pub mod cut;
pub mod device;
pub mod directory;
pub mod identity;
pub mod known;
pub mod log;
pub mod read;
pub mod segments;
pub mod workers;
