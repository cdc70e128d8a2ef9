//! What every operation did and when, as a file, and what must hold of it.
mod check;
mod codec;
mod operation;
mod record;

pub use check::{Checker, Report, Rule, SourceId, Unjudgeable, Violation};
pub use codec::Malformed;
pub use operation::*;
pub use record::*;
