//! What every operation did and when, as a file, and what must hold of it.
//!
//! Each thread of a generator fills a [`Recorder`]; `kontiki-load check` reads the records and gives them to a
//! [`Checker`], which is pure and can be called by any test with a list of [`Entry`].
//!
//! # What is proved
//!
//! A store gives each write that changes something the next main revision, so revisions are the only
//! possible order of the writes, and nothing has to be searched. Let a record be *exclusive* (it holds every write and
//! compaction of the store from its base on) and *closed*, and let every write in it be answered. Write
//! `rev(o)` for the header revision of an answer, and `a < b` when `a` returned before `b` was invoked on the same clock.
//! The checker accepts if and only if
//!
//! 1. the writes' revisions are distinct and fill (base, newest] without a hole;
//! 2. replaying the writes in that order from the base, each answer is what the state says: of a write the state before
//!    it (previous versions, counts, compares, ranges inside), of a read at `rev` the state at `rev`, of a read
//!    of a past revision the state there;
//! 3. `a < b` implies `rev(a) <= rev(b)`, and `rev(a) < rev(b)` when `b` is a write, for every `b` but serializable
//!    reads.
//!
//! **This is the case exactly when the history is linearizable** with serializable reads as reads of some
//! earlier state: order by revision, at one revision the write first, then reads by invocation. 3. makes this order
//! agree with real time, 2. with the store; and in a linearizable history of a store that counts its writes, 1. to
//! 3. hold. Failed compares and deletions of nothing are reads.
//!
//! # Writes without an answer
//!
//! One that got no answer may have taken effect at any time after its invocation, or never. The revisions of (base,
//! newest] that nobody acknowledged each need one of these, or the end of a lease not before its time to live.
//! Answers and events that show such a revision say what it wrote. A write is *settled* there when no other one
//! can have made it, or all that can do the same. Its effects are then judged like those of the others. Where several
//! remain, the keys that they may have touched are uncertain from there on until the next write of them, and what
//! could go either way is counted as not judged. So an alarm is always a violation; the reverse holds up
//! to what the report counts as `revisions_unsettled` and `unjudged`: with both zero the theorem above holds.
//!
//! # Watches
//!
//! Against the same replay: events in revision order and, within one, in the order of the writes; none twice; none
//! missing between the start revision and the last event or bookmark; all of a revision in one response
//! (pieces of a fragmented one count as one); none at or below a bookmark after it; contents and previous
//! versions as written. A resumed watch is judged from its own start revision. What a watch had not been sent when it
//! ended, or when the record ended, it is not owed.
//!
//! # Not judged
//!
//! Sorted and filtered ranges, transactions inside transactions, compares of intervals and puts that keep value or
//! lease cannot be recorded. Order compares of values cannot be judged, as values are kept as hashes. Times
//! of different clocks are not compared. Whether a lease ended *late* is not judged.
//!
//! # Cost
//!
//! O(n log n) time in operations and shown keys. Memory at the peak is the encoded record (about 40 bytes for a put),
//! about 100 bytes more for each operation and 200 for each key: ten million puts of a million keys took 34 s
//! and 1.6 GB on one core of a virtual machine, unoptimised. Recording takes 0.1 to 0.15 us for each operation there.

mod check;
mod codec;
mod operation;
mod record;

pub use check::{Checker, Report, Rule, SourceId, Unjudgeable, Violation};
pub use codec::Malformed;
pub use operation::*;
pub use record::*;
