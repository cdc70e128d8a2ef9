//! What disk and network alone would have taken for a commit.

use serde::{Deserialize, Serialize};

use super::Packed;

/// Measured right before and right after a run, of which the faster time counts, on the members' own disk and over loopback.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Optimum {
    /// Of a request and its answer between two threads, the server's on the leader's CPU.
    pub round_trip: Packed,
    /// Of a small write into a file that is as long already, and its fdatasync.
    pub sync: Packed,
    /// Whether a commit waits for a follower.
    pub replicated: bool,
}

impl Optimum {
    /// The shortest time of a commit, by the medians, in nanoseconds: a round trip between client and leader, and the
    /// later of the leader's own sync and a round trip to a follower with its sync.
    #[must_use]
    pub fn commit_ns(&self) -> u64 {
        let round_trip_ns = self.round_trip.summary().p50_ns;
        let sync_ns = self.sync.summary().p50_ns;
        let follower_ns = match self.replicated {
            true => round_trip_ns.saturating_add(sync_ns),
            false => 0,
        };
        round_trip_ns.saturating_add(sync_ns.max(follower_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Latency;

    /// Goal: one member waits for its own disk alone, several for the way to a follower as well.
    #[test]
    fn commits() {
        let packed = |ns| {
            let mut latency = Latency::new();
            latency.record_ns(ns);
            latency.pack()
        };
        let check = |replicated, expected_us: u64| {
            let optimum = Optimum {
                round_trip: packed(50_000),
                sync: packed(300_000),
                replicated,
            };
            let us = (optimum.commit_ns() as f64 / 1e3).round() as u64;
            assert!(us.abs_diff(expected_us) <= 1, "{us}");
        };
        check(false, 350);
        check(true, 400);
    }
}
