//! What a run of a comparison is worth: whether the server has the operation at all, what failed, and who led.
//! No I/O and no clock.

use super::Operation;
use crate::result::RunResult;
use crate::workload::Kind;

/// gRPC's name of the answer to a method that a server does not have.
const UNIMPLEMENTED: &str = "Unimplemented";

/// Why the run is none of this operation; none if it is one. The puts of a watch without watchers, for one, would
/// be a fine rate of something else.
pub(super) fn refusal(operation: Operation, result: &RunResult) -> Option<String> {
    let errors = || {
        let all = result.operations.iter();
        all.flat_map(|done| {
            done.errors
                .iter()
                .map(move |(code, error)| (done, code, error))
        })
    };
    if let Some((done, code, error)) = errors().find(|(_, code, _)| *code == UNIMPLEMENTED) {
        return Some(format!("{}: {code}: {}", done.name, error.first));
    }
    let events = result
        .operations
        .iter()
        .find(|done| done.name == Kind::Event.name());
    let seen = events.map_or(0, |events| events.count());
    let silent = operation == Operation::Watch && seen == 0 && result.partial.is_none();
    silent.then(|| match errors().next() {
        Some((done, code, error)) => {
            format!("no event came; {}: {code}: {}", done.name, error.first)
        }
        None => "no event came".to_owned(),
    })
}

/// What failed in a run, in words.
pub(super) fn failures(result: &RunResult) -> String {
    let mut reasons: Vec<String> = result.partial.iter().cloned().collect();
    let (errors, all) = (
        result.errors(),
        result.errors().saturating_add(result.count()),
    );
    let errors_of = |done: &crate::result::OpResult| {
        let first = done.errors.iter().next()?;
        Some(format!("{}: {}: {}", done.name, first.0, first.1.first))
    };
    if let Some(first) = result.operations.iter().find_map(errors_of) {
        reasons.push(format!(
            "{errors} of {all} operations failed, the first ones: {first}"
        ));
    }
    reasons.join("; ")
}

/// Who led, before and after, and with whom it shared its CPU: a leader that has one alone gives other figures.
pub(super) fn leader(
    before: Option<usize>,
    after: Option<usize>,
    cpus: &[Option<usize>],
) -> String {
    let one = |leader: Option<usize>| {
        let Some(member) = leader else {
            return "nobody".to_owned();
        };
        let Some(cpu) = cpus.get(member).copied().flatten() else {
            return format!("member {} on any CPU", member + 1);
        };
        let others = cpus.iter().filter(|other| **other == Some(cpu)).count() - 1;
        let company = match others {
            0 => "alone".to_owned(),
            1 => "with 1 other member".to_owned(),
            count => format!("with {count} other members"),
        };
        format!("member {} on CPU {cpu}, {company}", member + 1)
    };
    if before == after {
        return one(before);
    }
    format!("{}; at the end {}", one(before), one(after))
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::result::{CpuCost, Machine, OpResult, Target, Workload};

    /// A run with so many successes of each operation.
    pub(in crate::compare) fn result(done: &[(&str, u64)]) -> RunResult {
        let operations = done.iter().map(|(name, count)| {
            let mut operation = OpResult::new(*name);
            for _ in 0..*count {
                operation.latency.record_ns(1_000);
            }
            operation
        });
        RunResult {
            label: String::new(),
            command: Vec::new(),
            generator_version: String::new(),
            started: SystemTime::UNIX_EPOCH,
            warmup: Duration::ZERO,
            duration: Duration::from_secs(1),
            endpoints: Vec::new(),
            target: Target::default(),
            machine: Machine::default(),
            workload: Workload::default(),
            operations: operations.collect(),
            servers: Vec::new(),
            generator: CpuCost::default(),
            steps: Vec::new(),
            pairing: None,
            optimum: None,
            notes: Vec::new(),
            partial: None,
        }
    }

    /// Goal: an operation that the server does not have, or a watch without an event, is refused; failures are not.
    #[test]
    fn refused_or_not() {
        let check = |operation, run: &RunResult, expected: Option<&str>| {
            assert_eq!(refusal(operation, run).as_deref(), expected);
        };
        let mut run = result(&[("put", 5), ("watch event", 5)]);
        check(Operation::Watch, &run, None);
        run.operations[0].add_error("Unavailable", "gone");
        check(Operation::Watch, &run, None);
        assert_eq!(
            failures(&run),
            "1 of 11 operations failed, the first ones: put: Unavailable: gone"
        );
        let puts = result(&[("put", 5)]);
        check(Operation::Put, &puts, None);
        check(Operation::Watch, &puts, Some("no event came"));
        let mut none = result(&[("put", 5), ("watch event", 0)]);
        none.operations[1].add_error("Unimplemented", "unknown method");
        let expected = "watch event: Unimplemented: unknown method";
        check(Operation::Watch, &none, Some(expected));
    }

    /// Goal: the leader's place tells whether it has its CPU alone, and whether it moved.
    #[test]
    fn places_of_leaders() {
        let check = |before, after, expected: &str| {
            let cpus = [Some(0), Some(1), Some(0), None];
            assert_eq!(leader(before, after, &cpus), expected);
        };
        check(Some(0), Some(0), "member 1 on CPU 0, with 1 other member");
        check(Some(1), Some(1), "member 2 on CPU 1, alone");
        check(Some(3), Some(3), "member 4 on any CPU");
        let moved = "member 2 on CPU 1, alone; at the end nobody";
        check(Some(1), None, moved);
    }
}
