//! What every layer may use: identities, limits, time values, checksums and seeded randomness.
//!
//! Owns no state. Must never do I/O, read a clock or call a global generator: time and randomness
//! come in as arguments.

pub mod checksum;
mod hard_state;
pub mod ids;
pub mod limits;
pub mod planted;
pub mod prng;
pub mod time;
pub mod url;

pub use hard_state::HardState;
pub use ids::{ClusterId, CoreId, Incarnation, Index, LeaseId, MemberId, ShardId, Term};
pub use time::Instant;
