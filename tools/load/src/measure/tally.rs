//! What one thread has counted since it last handed over.

use std::collections::BTreeMap;

use crate::result::{ERROR_CODES_MAX, ERROR_MESSAGE_BYTES_MAX, ErrorCount, Latency};
use crate::workload::Kind;

/// One kind of operation within one interval.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counted {
    pub(crate) latency: Latency,
    pub(crate) errors: BTreeMap<String, ErrorCount>,
}

impl Counted {
    fn is_empty(&self) -> bool {
        self.latency.count() == 0 && self.errors.is_empty()
    }
}

/// What a thread hands over: the second of the measured part, and what was counted in it.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) second: u32,
    pub(crate) kinds: Vec<(Kind, Counted)>,
}

/// The counters of one thread.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// By the kind's number; kinds that never occur cost nothing.
    kinds: Vec<Option<Box<Counted>>>,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        let mut tally = Tally::default();
        tally.kinds.resize_with(Kind::ALL.len(), || None);
        tally
    }

    fn of(&mut self, kind: Kind) -> &mut Counted {
        self.kinds[kind as usize].get_or_insert_default()
    }

    /// An operation that succeeded.
    pub(crate) fn done(&mut self, kind: Kind, latency_ns: u64) {
        self.of(kind).latency.record_ns(latency_ns);
    }

    /// An operation that did not.
    pub(crate) fn failed(&mut self, kind: Kind, code: &str, message: &str) {
        self.failed_times(kind, code, message, 1);
    }

    /// So many operations that did not, all for the same reason.
    pub(crate) fn failed_times(&mut self, kind: Kind, code: &str, message: &str, count: u64) {
        if count == 0 {
            return;
        }
        let errors = &mut self.of(kind).errors;
        if let Some(known) = errors.get_mut(code) {
            known.count = known.count.saturating_add(count);
        } else if errors.len() < ERROR_CODES_MAX {
            let mut first = message.to_owned();
            first.truncate(first.floor_char_boundary(ERROR_MESSAGE_BYTES_MAX));
            errors.insert(code.to_owned(), ErrorCount { count, first });
        }
    }

    /// Gives what was counted, and begins again.
    pub(crate) fn hand_over(&mut self, second: u32) -> Sample {
        let mut kinds = Vec::new();
        for (kind, counted) in Kind::ALL.into_iter().zip(&mut self.kinds) {
            if let Some(counted) = counted.as_mut().filter(|counted| !counted.is_empty()) {
                kinds.push((kind, Counted::clone(counted)));
                counted.latency.clear();
                counted.errors.clear();
            }
        }
        Sample { second, kinds }
    }
}
