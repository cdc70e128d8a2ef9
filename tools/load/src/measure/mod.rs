//! Histograms, counters and costs while a run goes on.
//!
//! A `Tally` belongs to one thread and is handed over once a second; the `Collector` adds the threads' tallies
//! up to the result's operations. `Watched` reads what servers and the generator use, outside the hot path.

mod collect;
mod cost;
mod tally;

pub(crate) use collect::Collector;
pub(crate) use cost::{Watched, own_cpu, rss_bytes, used};
pub(crate) use tally::{Sample, Tally};
