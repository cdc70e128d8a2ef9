//! Which operation comes next, and its bytes.
//!
//! A [`WorkloadSpec`] is what the command line asks for; an `Author` writes the requests of one thread from it and
//! knows what a right answer looks like. Deterministic: the same seed writes the same requests. Must never look at
//! a clock or a socket.

mod author;
mod keys;
pub(crate) mod messages;
pub(crate) mod proto;

use std::fmt;

pub use keys::{KeyOrder, KeySpec, ValueSpec};

pub(crate) use author::{Asked, Author};
pub(crate) use keys::stamped_start_ns;

/// The kinds of operations that are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One key written.
    Put,
    /// One key read, linearizable or serializable as the workload says.
    Get,
    /// Many keys read.
    Range,
    /// A compare-and-swap of one key.
    Txn,
    /// One key deleted.
    Delete,
    /// A lease granted.
    Grant,
    /// A lease renewed, over a stream that stays open.
    Renew,
    /// A lease revoked.
    Revoke,
    /// A put seen by a watcher; the latency is from the put's start to the arrival of the event.
    Event,
    /// The deletion of a key by the end of its lease; the latency is how much later than promised.
    Expiry,
}

impl Kind {
    /// All of them; each one's number is its place here.
    pub const ALL: [Kind; 10] = [
        Kind::Put,
        Kind::Get,
        Kind::Range,
        Kind::Txn,
        Kind::Delete,
        Kind::Grant,
        Kind::Renew,
        Kind::Revoke,
        Kind::Event,
        Kind::Expiry,
    ];

    /// Its name in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Put => "put",
            Kind::Get => "get",
            Kind::Range => "range",
            Kind::Txn => "txn",
            Kind::Delete => "delete",
            Kind::Grant => "lease grant",
            Kind::Renew => "lease renew",
            Kind::Revoke => "lease revoke",
            Kind::Event => "watch event",
            Kind::Expiry => "lease expiry",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a run does.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkloadSpec {
    /// Operations and how often each is chosen, relative to the others. Never empty.
    pub mix: Vec<(Kind, u32)>,
    /// The keys.
    pub keys: KeySpec,
    /// The values of puts and swaps.
    pub values: ValueSpec,
    /// Reads may be answered by any member from what it has.
    pub serializable: bool,
    /// Keys that a range reads.
    pub range_keys: u64,
    /// Every key is put once before the load starts.
    pub fill: bool,
    /// Watchers that are open while the load goes on, over all connections.
    pub watchers: u64,
    /// Streams that the watchers of one connection share.
    pub watch_streams: u64,
    /// The first so many keys are those that are watched, each by the same number of watchers; zero for one watcher
    /// of the whole key space each.
    pub watched_keys: u64,
    /// Leases that are kept at the same time, over all threads; further grants revoke the oldest.
    pub leases: u64,
    /// Seconds that a lease lives.
    pub lease_ttl_seconds: i64,
    /// Where the random choices start.
    pub seed: u64,
}

impl WorkloadSpec {
    /// Operations of `mix` on `keys`, and nothing before or beside them.
    #[must_use]
    pub fn new(mix: Vec<(Kind, u32)>, keys: KeySpec, values: ValueSpec, seed: u64) -> WorkloadSpec {
        WorkloadSpec {
            mix,
            keys,
            values,
            serializable: false,
            range_keys: 100,
            fill: false,
            watchers: 0,
            watch_streams: 1,
            watched_keys: 0,
            leases: 1,
            lease_ttl_seconds: 60,
            seed,
        }
    }

    /// Whether `kind` is among the operations.
    #[must_use]
    pub fn does(&self, kind: Kind) -> bool {
        self.mix
            .iter()
            .any(|(other, weight)| *other == kind && *weight > 0)
    }

    /// What it does, in a few words: `put 20 : get 80, 100000 keys (uniform), 256 B values`.
    #[must_use]
    pub fn summary(&self) -> String {
        let reads = self.does(Kind::Get) || self.does(Kind::Range);
        let consistency = match (reads, self.serializable) {
            (false, _) => "",
            (true, false) => ", linearizable",
            (true, true) => ", serializable",
        };
        let order = match self.keys.order {
            KeyOrder::Sequential => "sequential".to_owned(),
            KeyOrder::Uniform => "uniform".to_owned(),
            KeyOrder::Zipfian { exponent } => format!("zipfian {exponent}"),
        };
        let values = match self.values {
            ValueSpec { size_min, size_max } if size_min == size_max => {
                format!("{size_max} B values")
            }
            ValueSpec { size_min, size_max } => format!("values of {size_min} to {size_max} B"),
        };
        let mut summary = format!(
            "{}{consistency}, {} keys ({order}), {values}",
            self.mix_text(),
            self.keys.count
        );
        if self.does(Kind::Range) {
            summary += &format!(", ranges of {} keys", self.range_keys);
        }
        if self.watchers > 0 {
            let watched = match self.watched_keys {
                0 => "of all keys".to_owned(),
                keys => format!("of {keys} keys"),
            };
            summary += &format!(", {} watchers {watched}", self.watchers);
        }
        summary
    }

    fn mix_text(&self) -> String {
        let alone = self.mix.len() == 1;
        let part = |(kind, weight): &(Kind, u32)| match alone {
            true => kind.to_string(),
            false => format!("{kind} {weight}"),
        };
        let parts: Vec<String> = self.mix.iter().map(part).collect();
        parts.join(" : ")
    }
}
