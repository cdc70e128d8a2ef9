//! The threads' tallies, added up.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::result::{ErrorCount, INTERVALS_MAX, Interval, Latency, OpResult};
use crate::workload::Kind;

use super::tally::{Counted, Sample};

/// What all threads have counted.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    kinds: BTreeMap<Kind, Collected>,
}

#[derive(Debug, Default)]
struct Collected {
    total: Latency,
    errors: BTreeMap<String, ErrorCount>,
    seconds: BTreeMap<u32, Second>,
    /// Intervals beyond those kept.
    dropped: u64,
}

/// Parts of one second come from several threads, and late ones at the end.
#[derive(Debug, Default)]
struct Second {
    latency: Latency,
    errors: u64,
}

impl Collector {
    /// Adds what a thread hands over.
    pub(crate) fn add(&mut self, sample: Sample) {
        for (kind, counted) in sample.kinds {
            self.kinds
                .entry(kind)
                .or_default()
                .add(sample.second, &counted);
        }
    }

    /// Operations that failed so far.
    pub(crate) fn errors(&self) -> u64 {
        let errors = self
            .kinds
            .values()
            .flat_map(|collected| collected.errors.values());
        errors.map(|error| error.count).sum()
    }

    /// What is known of one second, for a line of progress: for each kind its name, operations, p50 and p99.
    pub(crate) fn second(&self, second: u32) -> Vec<(Kind, u64, u64, u64)> {
        let line = |(kind, collected): (&Kind, &Collected)| {
            let latency = &collected.seconds.get(&second)?.latency;
            let quantiles = latency.quantiles_ns(&[0.5, 0.99]);
            Some((*kind, latency.count(), quantiles[0], quantiles[1]))
        };
        self.kinds.iter().filter_map(line).collect()
    }

    /// The operations of the result, for a measured part of `duration`.
    pub(crate) fn finish(self, duration: Duration) -> Vec<OpResult> {
        self.kinds
            .into_iter()
            .map(|(kind, collected)| collected.finish(kind, duration))
            .collect()
    }
}

impl Collected {
    fn add(&mut self, number: u32, counted: &Counted) {
        self.total.add(&counted.latency);
        let mut errors = 0;
        for (code, error) in &counted.errors {
            let sum = self
                .errors
                .entry(code.clone())
                .or_insert_with(|| ErrorCount {
                    count: 0,
                    first: error.first.clone(),
                });
            sum.count += error.count;
            errors += error.count;
        }
        if number as usize >= INTERVALS_MAX {
            self.dropped += 1;
            return;
        }
        let second = self.seconds.entry(number).or_default();
        second.latency.add(&counted.latency);
        second.errors += errors;
    }

    fn finish(self, kind: Kind, duration: Duration) -> OpResult {
        let mut result = OpResult::new(kind.name());
        result.latency = self.total;
        result.errors = self.errors;
        result.intervals_dropped = self.dropped;
        let interval = |(number, second): (u32, Second)| Interval {
            second: number,
            length: duration
                .saturating_sub(Duration::from_secs(u64::from(number)))
                .min(Duration::from_secs(1)),
            latency: second.latency.pack(),
            errors: second.errors,
        };
        result.series = self.seconds.into_iter().map(interval).collect();
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Tally;

    /// Goal: totals, seconds and errors of two threads add up, and a tally begins again after its hand-over.
    #[test]
    fn adds_up() {
        let mut collector = Collector::default();
        let mut lanes = [Tally::new(), Tally::new()];
        for second in 0..3 {
            for (number, lane) in lanes.iter_mut().enumerate() {
                lane.done(Kind::Put, 1000 * (number as u64 + 1));
                if second == 1 {
                    lane.failed(Kind::Get, "Unavailable", "no leader");
                }
                collector.add(lane.hand_over(second));
            }
        }
        assert_eq!(collector.errors(), 2);
        assert_eq!(collector.second(1)[0].1, 2);
        let operations = collector.finish(Duration::from_millis(2500));
        let [put, get] = &operations[..] else {
            panic!("two kinds: {operations:?}");
        };
        assert_eq!(put.series.len(), 3);
        assert_eq!(put.series[2].length, Duration::from_millis(500));
        assert_eq!(put.latency.max_ns() / 10, 200);
        assert_eq!(get.errors["Unavailable"].count, 2);
        assert_eq!((get.series[0].second, get.series[0].errors), (1, 2));
    }
}
