//! The clients' view: every request, every answer, and the committed changes in between.
//!
//! Every value is unique and names its request, so each committed revision tells which request made it. A
//! revision is checked when it is first seen committed: it must be exactly what its request does right
//! after the revision before. An answer is checked against the model at the revision it names, and
//! against real time: it must lie at or above everything that was answered before it was asked. That is
//! linearizability, decided answer by answer, because revisions are the order.

use bytes::Bytes;

use super::model::{Answered, Change, Evaluated, Model};
use super::{Promise, Verdict, Violation, broken};
use crate::keyspace::events::Event;
use crate::keyspace::request::{Refusal as KeyspaceRefusal, RequestOp, ResponseOp, TxnResponse};
use crate::shard::event::{Refusal, Request, Response};

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Asked, or nobody knows: it may still take effect.
    Open,
    /// Answered.
    Answered,
    /// Refused for good: it must never take effect.
    Refused,
}

#[derive(Clone, Debug)]
struct Operation {
    /// Kept while it may take effect.
    request: Option<Request>,
    state: State,
    /// The newest revision anybody had been shown when this was asked.
    seen: i64,
    /// The highest floor that had been acknowledged then.
    floor: i64,
    /// The revision it made.
    made: Option<i64>,
}

/// Requests, answers, and the model in between.
#[derive(Clone, Debug, Default)]
pub struct History {
    model: Model,
    operations: Vec<Operation>,
    /// The newest revision anybody was shown.
    seen: i64,
    /// The highest compaction that was acknowledged.
    floor_acknowledged: i64,
    /// The highest compaction that was asked for.
    floor_asked: i64,
    /// Committed deletions that no answer has explained.
    unexplained: Vec<i64>,
    answered: u64,
}

/// How an answer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried out, or found nothing to do.
    Done,
    /// It was refused by its meaning: compacted, future.
    Declined,
    /// It was refused for good by circumstances.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// The value a request's n-th put writes.
#[must_use]
pub fn value_of(operation: u32, put: usize, padding: usize) -> Bytes {
    let mut value = format!("{operation}.{put};").into_bytes();
    value.resize(value.len() + padding, b'x');
    Bytes::from(value)
}

/// The request that wrote a value.
fn writer_of(value: &[u8]) -> Option<u32> {
    let end = value.iter().position(|&byte| byte == b'.')?;
    std::str::from_utf8(&value[..end]).ok()?.parse().ok()
}

impl History {
    /// The store as it is committed.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The number of the next request.
    #[must_use]
    pub fn next_operation(&self) -> u32 {
        u32::try_from(self.operations.len()).expect("fewer than 2^32 requests in a run")
    }

    /// The newest revision anybody was shown.
    #[must_use]
    pub fn seen(&self) -> i64 {
        self.seen
    }

    /// The highest compaction that was acknowledged.
    #[must_use]
    pub fn floor(&self) -> i64 {
        self.floor_acknowledged
    }

    /// Requests that were answered, refused or not.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// A client asks.
    pub fn asked(&mut self, request: &Request) {
        if let Request::Compact { revision, .. } = request {
            self.floor_asked = self.floor_asked.max(*revision);
        }
        self.operations.push(Operation {
            request: Some(request.clone()),
            state: State::Open,
            seen: self.seen,
            floor: self.floor_acknowledged,
            made: None,
        });
    }

    /// A member shows the changes of one or more further revisions as committed.
    ///
    /// # Errors
    /// They are not what their requests do.
    pub fn committed(&mut self, events: &[Event]) -> Verdict {
        for revision in events.chunk_by(|one, next| one.revision.main == next.revision.main) {
            self.committed_revision(revision)?;
        }
        Ok(())
    }

    fn committed_revision(&mut self, events: &[Event]) -> Verdict {
        let revision = events[0].revision.main;
        let last = self.model.revision();
        if revision != last + 1 {
            return Err(broken(
                Promise::OneHistory,
                format_args!("revision {revision} is committed after {last}"),
            ));
        }
        let change = |event: &Event| Change {
            key: event.kv.key.clone(),
            value: (!event.deleted).then(|| event.kv.value.clone()),
        };
        let changes: Vec<Change> = events.iter().map(change).collect();
        match changes.iter().find_map(|change| change.value.as_deref()) {
            Some(value) => self.made_by(value, revision, &changes)?,
            None => self.unexplained.push(revision),
        }
        self.model.apply(changes);
        for event in events.iter().filter(|event| !event.deleted) {
            let expected = self.model.key_at(&event.kv.key, revision);
            if expected.as_ref() != Some(&event.kv) {
                return Err(broken(
                    Promise::OneHistory,
                    format_args!(
                        "revision {revision} commits {:?}, expected {expected:?}",
                        event.kv
                    ),
                ));
            }
        }
        Ok(())
    }

    /// A revision with a put in it is exactly what the put's request does, once.
    fn made_by(&mut self, value: &[u8], revision: i64, changes: &[Change]) -> Verdict {
        let number = writer_of(value);
        let operation = number.and_then(|number| self.operations.get_mut(number as usize));
        let Some(operation) = operation else {
            return Err(broken(
                Promise::OnceAndWhole,
                format_args!("revision {revision} was asked for by nobody: {changes:?}"),
            ));
        };
        let number = number.unwrap_or_default();
        let problem = match (operation.state, operation.made) {
            (_, Some(made)) => format!("made revision {made} already"),
            (State::Refused, None) => "was refused before".to_owned(),
            (State::Answered, None) => "was answered with another revision".to_owned(),
            (State::Open, None) => {
                operation.made = Some(revision);
                let request = operation
                    .request
                    .as_ref()
                    .expect("kept while it may take effect");
                let evaluated = self.model.evaluate(request, revision - 1);
                if evaluated.is_some_and(|evaluated| evaluated.changes == changes) {
                    return Ok(());
                }
                format!("changes {changes:?}, which is not what {request:?} does there")
            }
        };
        Err(broken(
            Promise::OnceAndWhole,
            format_args!("revision {revision}: request {number} {problem}"),
        ))
    }

    /// A member answers; `revision` is that of the header.
    ///
    /// # Errors
    /// No order of all requests has this answer.
    pub fn answer(
        &mut self,
        number: u32,
        revision: i64,
        result: &Result<Response, Refusal>,
    ) -> Result<Outcome, Violation> {
        let operation = &self.operations[number as usize];
        assert_eq!(operation.state, State::Open, "answered twice: {number}");
        self.answered += 1;
        let outcome = match result {
            Ok(response) => {
                self.carried_out(number, revision, response)?;
                Outcome::Done
            }
            Err(Refusal::Keyspace(refusal)) => {
                self.declined(number, revision, *refusal)?;
                Outcome::Declined
            }
            Err(Refusal::TimedOut | Refusal::TimedOutBy(_) | Refusal::NoLeader) => {
                return Ok(Outcome::Unknown);
            }
            Err(_) => Outcome::Refused,
        };
        let operation = &mut self.operations[number as usize];
        if outcome == Outcome::Done {
            operation.state = State::Answered;
        } else {
            operation.state = State::Refused;
            if let Some(made) = operation.made {
                return Err(broken(
                    Promise::OnceAndWhole,
                    format_args!(
                        "request {number} made revision {made} and is refused: {result:?}"
                    ),
                ));
            }
        }
        operation.request = None;
        Ok(outcome)
    }

    fn carried_out(&mut self, number: u32, revision: i64, response: &Response) -> Verdict {
        let operation = &self.operations[number as usize];
        let committed = self.model.revision();
        let request = operation
            .request
            .as_ref()
            .expect("kept until it is answered");
        if revision > committed {
            return Err(broken(
                Promise::NothingUncommitted,
                format_args!(
                    "request {number} is answered at revision {revision}, committed is {committed}"
                ),
            ));
        }
        if let (Request::Compact { revision, .. }, Response::Compact) = (request, response) {
            self.floor_acknowledged = self.floor_acknowledged.max(*revision);
            return Ok(());
        }
        let Some(wrote) = wrote(response) else {
            return Ok(());
        };
        let (seen, floor, made) = (operation.seen, operation.floor, operation.made);
        if is_linearizable(request) && revision < seen + i64::from(wrote) {
            return Err(broken(
                Promise::Linearizable,
                format_args!(
                    "request {number} is answered at revision {revision}; {seen} was shown before it was asked"
                ),
            ));
        }
        if let Request::Range(range) = request
            && range.revision > 0
            && ((range.revision < floor && !range.serializable) || range.revision > committed)
        {
            return Err(broken(
                Promise::Linearizable,
                format_args!(
                    "request {number} reads revision {}, the floor was {floor}, committed is {committed}",
                    range.revision
                ),
            ));
        }
        let base = revision - i64::from(wrote);
        let expected = self.model.evaluate(request, base);
        if !expected
            .as_ref()
            .is_some_and(|expected| answers(response, expected))
        {
            return Err(broken(
                Promise::Linearizable,
                format_args!(
                    "request {number} {request:?} is answered at revision {revision} with {response:?}, \
                     expected {expected:?}"
                ),
            ));
        }
        let changes = expected
            .map(|expected| expected.changes)
            .unwrap_or_default();
        if wrote {
            self.explain(number, revision, &changes)?;
        } else if let Some(made) = made {
            return Err(broken(
                Promise::OnceAndWhole,
                format_args!("request {number} made revision {made} and says it changed nothing"),
            ));
        }
        self.seen = self.seen.max(revision);
        Ok(())
    }

    /// An answered write made the revision that its answer names, and no other.
    fn explain(&mut self, number: u32, revision: i64, changes: &[Change]) -> Verdict {
        let operation = &mut self.operations[number as usize];
        let same = self.model.changes(revision) == Some(changes);
        let deletion = changes.iter().all(|change| change.value.is_none());
        if same && deletion {
            let unexplained = self.unexplained.iter().position(|&other| other == revision);
            if let Some(at) = unexplained {
                self.unexplained.swap_remove(at);
                operation.made = Some(revision);
                return Ok(());
            }
        } else if same && operation.made == Some(revision) {
            return Ok(());
        }
        Err(broken(
            Promise::OnceAndWhole,
            format_args!(
                "request {number} says it made revision {revision}; it made {:?}, and that revision changed {:?}",
                operation.made,
                self.model.changes(revision),
            ),
        ))
    }

    /// Compacted and future revisions are refused exactly when they are.
    fn declined(&mut self, number: u32, revision: i64, refusal: KeyspaceRefusal) -> Verdict {
        let operation = &self.operations[number as usize];
        let request = operation
            .request
            .as_ref()
            .expect("kept until it is answered");
        let wanted = match request {
            Request::Range(range) => range.revision,
            Request::Compact { revision, .. } => *revision,
            _ => return Ok(()),
        };
        let right = match refusal {
            KeyspaceRefusal::Compacted => wanted <= self.floor_asked,
            KeyspaceRefusal::FutureRevision => wanted > operation.seen || !is_linearizable(request),
            KeyspaceRefusal::KeyNotFound | KeyspaceRefusal::LeaseNotFound => false,
        };
        if right {
            return Ok(());
        }
        Err(broken(
            Promise::Linearizable,
            format_args!(
                "request {number} for revision {wanted} is refused at {revision}: {refusal}; shown before was \
                 {}, compaction was asked for up to {}",
                operation.seen, self.floor_asked
            ),
        ))
    }

    /// The run is over: deletions that nobody was answered must be somebody's.
    ///
    /// # Errors
    /// One is nobody's.
    pub fn finish(&self) -> Verdict {
        for &revision in &self.unexplained {
            let changes = self.model.changes(revision);
            let explains = |operation: &Operation| {
                operation.state == State::Open
                    && operation.made.is_none()
                    && operation.seen < revision
                    && operation
                        .request
                        .as_ref()
                        .is_some_and(|request| self.does(request, revision, changes))
            };
            if !self.operations.iter().any(explains) {
                return Err(broken(
                    Promise::OnceAndWhole,
                    format_args!("revision {revision} was asked for by nobody: {changes:?}"),
                ));
            }
        }
        Ok(())
    }

    fn does(&self, request: &Request, revision: i64, changes: Option<&[Change]>) -> bool {
        matches!(request, Request::DeleteRange(_) | Request::Txn(_))
            && self
                .model
                .evaluate(request, revision - 1)
                .is_some_and(|evaluated| Some(evaluated.changes.as_slice()) == changes)
    }
}

/// Whether an answer says that a revision was made; `None` for answers without one.
fn wrote(response: &Response) -> Option<bool> {
    match response {
        Response::Range(_) => Some(false),
        Response::Put(_) => Some(true),
        Response::DeleteRange(response) => Some(response.deleted > 0),
        Response::Txn(response) => Some(txn_wrote(response)),
        Response::Compact
        | Response::Status(_)
        | Response::MemberList(_)
        | Response::Alarm(_)
        | Response::MemberAdded { .. }
        | Response::MembersChanged(_)
        | Response::LeaderMoved
        | Response::ReadMode(_) => None,
    }
}

fn txn_wrote(response: &TxnResponse) -> bool {
    response.responses.iter().any(|response| match response {
        ResponseOp::Put { .. } => true,
        ResponseOp::DeleteRange { response, .. } => response.deleted > 0,
        ResponseOp::Range { .. } => false,
        ResponseOp::Txn(txn) => txn_wrote(txn),
    })
}

fn answers(response: &Response, expected: &Evaluated) -> bool {
    match (response, &expected.answer) {
        (Response::Range(found), Answered::Range(expected)) => found == expected,
        (Response::Put(found), Answered::Put(expected)) => found == expected,
        (Response::DeleteRange(found), Answered::DeleteRange(expected)) => found == expected,
        (Response::Txn(found), Answered::Txn(expected)) => found == expected,
        _ => false,
    }
}

fn is_linearizable(request: &Request) -> bool {
    match request {
        Request::Range(range) => !range.serializable,
        Request::Txn(txn) => !txn
            .success
            .iter()
            .chain(&txn.failure)
            .all(|op| matches!(op, RequestOp::Range(range) if range.serializable)),
        _ => true,
    }
}
