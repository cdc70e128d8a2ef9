//! Real time: what was known before an operation was invoked must not be newer than what it did.
//!
//! One pass over all invocations and returns of one clock in time order, with the newest revision that
//! was known so far. Equal times count as concurrent.

use super::super::operation::{Answer, Nanos, Operation, Outcome, Refusal, Request, WatchNotice};
use super::History;
use super::arena::{Class, OpId};
use super::rule::{Report, Rule};

/// Who tells that a revision exists.
#[derive(Clone, Copy, Debug)]
enum Witness {
    Operation(OpId),
    /// A notice, by its place in the history.
    Watch(u32),
}

/// Something that happens and may not be older than what was known before.
#[derive(Clone, Copy, Debug)]
enum Call {
    Operation(OpId),
    /// The first moment at which a lease may end, by its place among them.
    LeaseEnd(u32),
}

/// What was known before each operation and each end of a lease.
pub(super) struct Known {
    /// Per operation: the newest revision seen before its invocation.
    pub(super) before: Vec<i64>,
    /// Per end of a lease.
    pub(super) before_lease_end: Vec<i64>,
}

/// Judges real time, and says what was known when.
pub(super) fn judge(history: &History, lease_ends: &[(u16, Nanos)], report: &mut Report) -> Known {
    let arena = &history.arena;
    let mut known = Known {
        before: vec![0; arena.heads.len()],
        before_lease_end: vec![0; lease_ends.len()],
    };
    for clock in 0..history.clocks {
        let mut calls: Vec<(Nanos, Call)> = arena
            .ids()
            .filter(|id| arena.head(*id).clock == clock)
            .map(|id| (arena.head(id).invoked, Call::Operation(id)))
            .collect();
        for (number, (of, at)) in (0..).zip(lease_ends) {
            if *of == clock {
                calls.push((*at, Call::LeaseEnd(number)));
            }
        }
        calls.sort_unstable_by_key(|(at, _)| *at);
        let mut returns: Vec<(Nanos, i64, Witness)> = arena
            .ids()
            .filter(|id| arena.head(*id).clock == clock && arena.head(*id).revision > 0)
            .map(|id| {
                let head = arena.head(id);
                (head.returned, head.revision, Witness::Operation(id))
            })
            .collect();
        for (number, (of, entry)) in (0..).zip(&history.watch) {
            let revision = match &entry.notice {
                WatchNotice::Created { revision, .. }
                | WatchNotice::Events { revision, .. }
                | WatchNotice::Progress { revision } => *revision,
                WatchNotice::Cancelled { .. } | WatchNotice::Ended => continue,
            };
            if history.clock_of_source(*of) == clock {
                returns.push((entry.at, revision, Witness::Watch(number)));
            }
        }
        returns.sort_unstable_by_key(|(at, ..)| *at);
        let mut returns = returns.into_iter().peekable();
        let mut newest: Option<(i64, Witness)> = None;
        for (at, call) in calls {
            while let Some((_, revision, witness)) = returns.next_if(|(when, ..)| *when < at) {
                if newest.is_none_or(|(newest, _)| revision > newest) {
                    newest = Some((revision, witness));
                }
            }
            let (revision, witness) = match newest {
                Some((revision, witness)) => (revision, Some(witness)),
                None => (0, None),
            };
            match call {
                Call::Operation(id) => {
                    known.before[id as usize] = revision;
                    if let Some(witness) = witness {
                        judge_one(history, id, revision, witness, report);
                    }
                }
                Call::LeaseEnd(number) => known.before_lease_end[number as usize] = revision,
            }
        }
    }
    judge_compactions(history, &known, report);
    known
}

fn judge_one(history: &History, id: OpId, known: i64, witness: Witness, report: &mut Report) {
    let head = history.arena.head(id);
    let what = match head.class {
        Class::Write if head.revision <= known => "was written at",
        Class::Read if head.revision < known => "was answered from",
        _ => return,
    };
    let witness = match witness {
        Witness::Operation(id) => history.arena.describe(id),
        Witness::Watch(number) => history.describe_watch(number),
    };
    report.add(
        Rule::RealTime,
        format!(
            "revision {known} was known before an operation was invoked that {what} revision {}",
            head.revision
        ),
        vec![witness, history.arena.describe(id)],
    );
}

/// A compaction that may have taken effect.
struct Compaction {
    revision: i64,
    clock: u16,
    invoked: Nanos,
    /// Never when it was not acknowledged.
    returned: Nanos,
}

fn judge_compactions(history: &History, known: &Known, report: &mut Report) {
    let arena = &history.arena;
    let mut compactions = Vec::new();
    let mut judged = Vec::new();
    for id in arena.ids() {
        // Only what compaction can concern is decoded: refusals, compactions, reads of a past revision.
        let head = arena.head(id);
        if !matches!(head.class, Class::Seen | Class::Other | Class::Read) {
            continue;
        }
        let operation = arena.operation(id);
        if let Request::Compact(revision) = operation.request
            && !matches!(operation.outcome, Outcome::Refused(_))
        {
            compactions.push(Compaction {
                revision,
                clock: head.clock,
                invoked: operation.invoked,
                returned: match operation.outcome {
                    Outcome::Ok { .. } => operation.returned,
                    _ => Nanos::MAX,
                },
            });
        }
        if let Some(revision) = past(&operation) {
            judged.push((id, revision, operation));
        }
    }
    for (id, revision, operation) in judged {
        let clock = arena.head(id).clock;
        let linearizable =
            !matches!(&operation.request, Request::Range(range) if range.serializable);
        let is_compact = matches!(operation.request, Request::Compact(_));
        let complaint = match operation.outcome {
            // Another client may have compacted, or this one before the record began.
            Outcome::Refused(Refusal::Compacted)
                if history.exclusive && revision >= history.base + i64::from(is_compact) =>
            {
                let excused = compactions.iter().any(|compaction| {
                    let floor = compaction.revision.saturating_add(i64::from(is_compact));
                    floor > revision
                        && (compaction.clock != clock || compaction.invoked < operation.returned)
                });
                (!excused).then_some((
                    Rule::WrongCompacted,
                    "was refused as compacted, and nothing had compacted it",
                ))
            }
            Outcome::Refused(Refusal::Future)
                if linearizable && revision <= known.before[id as usize] =>
            {
                Some((
                    Rule::WrongFuture,
                    "was refused as a future one although it had been seen before",
                ))
            }
            Outcome::Ok {
                answer: Answer::Range(_),
                ..
            } if linearizable => compactions
                .iter()
                .any(|compaction| {
                    compaction.revision > revision
                        && compaction.clock == clock
                        && compaction.returned < operation.invoked
                })
                .then_some((
                    Rule::WrongCompacted,
                    "was answered although it had been compacted before",
                )),
            _ => None,
        };
        if let Some((rule, what)) = complaint {
            report.add(
                rule,
                format!("revision {revision} {what}"),
                vec![arena.describe(id)],
            );
        }
    }
}

/// The revision that a request names, if compaction decides about its answer.
fn past(operation: &Operation) -> Option<i64> {
    let revision = match &operation.request {
        Request::Range(range) => range.revision,
        Request::Compact(revision) => *revision,
        _ => 0,
    };
    (revision > 0).then_some(revision)
}
