//! What one core tells about itself: progress, turns, stalls.
//!
//! Owns the counters that the core alone writes and that the watchdog and the metrics read from other
//! threads. Reading never disturbs the core: plain loads of padded words, nothing locked.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::utils::CachePadded;

use crate::base::Instant;
use crate::base::limits::TURN_MAX;

/// The counters of one core. Only the core itself may call what begins or ends a turn.
#[derive(Debug, Default)]
pub struct CoreStats {
    /// Written each turn, all by one core: one cache line.
    own: CachePadded<OwnCounters>,
    /// Times the watchdog found the core without progress; written by the watchdog.
    freezes: CachePadded<AtomicU64>,
}

#[derive(Debug, Default)]
struct OwnCounters {
    heartbeats: AtomicU64,
    busy: AtomicBool,
    ended: AtomicBool,
    turn_began: AtomicU64,
    turns: AtomicU64,
    stalls: AtomicU64,
    longest_turn_nanos: AtomicU64,
}

/// A reading of [`CoreStats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Turns since the start.
    pub turns: u64,
    /// Turns longer than [`TURN_MAX`].
    pub stalls: u64,
    /// The longest turn since the start.
    pub longest_turn: Duration,
    /// Times the watchdog saw no progress for its span.
    pub freezes: u64,
}

impl CoreStats {
    /// A turn of the core's loop begins.
    pub fn turn_begin(&self, now: Instant) {
        self.own.turn_began.store(now.0, Ordering::Relaxed);
    }

    /// The turn that began last ends; returns its length.
    pub fn turn_end(&self, now: Instant) -> Duration {
        let own = &self.own;
        let began = Instant(own.turn_began.load(Ordering::Relaxed));
        let length = now.since(began);
        bump(&own.turns);
        if length > TURN_MAX {
            bump(&own.stalls);
        }
        let nanos = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        if nanos > own.longest_turn_nanos.load(Ordering::Relaxed) {
            own.longest_turn_nanos.store(nanos, Ordering::Relaxed);
        }
        length
    }

    /// Whether requests are in flight: the heartbeat then beats faster, so that a wake-up lost by the
    /// executor costs little.
    pub fn set_busy(&self, busy: bool) {
        self.own.busy.store(busy, Ordering::Relaxed);
    }

    /// The counters now.
    #[must_use]
    pub fn read(&self) -> Reading {
        let own = &self.own;
        Reading {
            turns: own.turns.load(Ordering::Relaxed),
            stalls: own.stalls.load(Ordering::Relaxed),
            longest_turn: Duration::from_nanos(own.longest_turn_nanos.load(Ordering::Relaxed)),
            freezes: self.freezes.load(Ordering::Relaxed),
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.own.busy.load(Ordering::Relaxed)
    }

    /// The executor ran its heartbeat.
    pub(super) fn heartbeat(&self) {
        bump(&self.own.heartbeats);
    }

    pub(super) fn heartbeats(&self) -> u64 {
        self.own.heartbeats.load(Ordering::Relaxed)
    }

    /// The core's work is over; it will make no more progress.
    pub(super) fn end(&self) {
        self.own.ended.store(true, Ordering::Release);
    }

    pub(super) fn is_ended(&self) -> bool {
        self.own.ended.load(Ordering::Acquire)
    }

    pub(super) fn count_freeze(&self) {
        self.freezes.fetch_add(1, Ordering::Relaxed);
    }
}

/// Adds one to a counter that has one writer: no locked instruction.
fn bump(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: turns are counted, long ones are stalls, and the longest is kept.
    #[test]
    fn turns() {
        let stats = CoreStats::default();
        let mut now = Instant(5);
        for micros in [10, 1_000, 1_001, 30_000, 20] {
            stats.turn_begin(now);
            now = now + Duration::from_micros(micros);
            assert_eq!(stats.turn_end(now), Duration::from_micros(micros));
        }
        let expected = Reading {
            turns: 5,
            stalls: 2,
            longest_turn: Duration::from_millis(30),
            freezes: 0,
        };
        assert_eq!(stats.read(), expected);
    }
}
