//! Small histories around writes without an answer and ends of leases: what is excused, and what is not.

use kontiki_load::history::{
    Answer, Base, Entry, Interval, Kv, Operation, Outcome, Put, PutAnswer, Range, RangeAnswer,
    Refusal, Request, Rule, ValueHash,
};

const SECOND: u64 = 1_000_000_000;

fn operation(invoked: u64, returned: u64, request: Request, outcome: Outcome) -> Entry {
    Entry::Operation(Operation {
        client: 1,
        invoked,
        returned,
        request,
        outcome,
    })
}

fn ok(revision: i64, answer: Answer) -> Outcome {
    Outcome::Ok { revision, answer }
}

fn put(times: (u64, u64), key: &'static str, lease: i64, outcome: Outcome) -> Entry {
    let put = Put {
        key: key.into(),
        value: ValueHash(1),
        lease,
        prev_kv: false,
    };
    operation(times.0, times.1, Request::Put(put), outcome)
}

fn put_at(revision: i64) -> Outcome {
    ok(revision, Answer::Put(PutAnswer::default()))
}

/// A read of everything that shows keys as (name, mod revision, version, lease).
fn read(times: (u64, u64), revision: i64, shown: &[(&'static str, i64, i64, i64)]) -> Entry {
    let kvs = shown.iter().map(|(key, modified, version, lease)| Kv {
        key: (*key).into(),
        create_revision: modified - version + 1,
        mod_revision: *modified,
        version: *version,
        value: Some(ValueHash(1)),
        lease: *lease,
    });
    let answer = RangeAnswer {
        kvs: kvs.collect(),
        more: false,
        count: shown.len() as i64,
    };
    let range = Range {
        interval: Interval::all(),
        limit: 0,
        revision: 0,
        serializable: false,
        count_only: false,
    };
    operation(
        times.0,
        times.1,
        Request::Range(range),
        ok(revision, Answer::Range(answer)),
    )
}

fn grant(times: (u64, u64), ttl: i64) -> Entry {
    let request = Request::LeaseGrant { id: 7, ttl };
    operation(
        times.0,
        times.1,
        request,
        ok(1, Answer::LeaseGrant { id: 7, ttl }),
    )
}

/// The rules that an otherwise empty store's history breaks.
fn check(operations: Vec<Entry>, expected: &[Rule]) {
    let mut entries = vec![Entry::Base(Base {
        revision: 1,
        kvs: vec![],
    })];
    entries.extend(operations);
    let report = crate::check(&entries);
    let broken: Vec<Rule> = report.violations.iter().map(|each| each.rule).collect();
    assert_eq!(broken, expected, "{:?}", report.violations);
}

/// A write without an answer may be there, or not; once it was seen it must stay.
#[test]
fn an_unanswered_put_may_be_there_or_not() {
    let lost = || put((10, 20), "a", 0, Outcome::Unknown);
    check(vec![lost(), read((30, 40), 1, &[])], &[]);
    check(vec![lost(), read((30, 40), 2, &[("a", 2, 1, 0)])], &[]);
    let seen = read((30, 40), 2, &[("a", 2, 1, 0)]);
    check(
        vec![lost(), seen, read((50, 60), 2, &[])],
        &[Rule::WrongCount, Rule::WrongRange],
    );
}

/// It may take effect long after its client gave up, but not before it was invoked.
#[test]
fn an_unanswered_put_is_not_before_its_invocation() {
    let seen = || read((30, 40), 2, &[("a", 2, 1, 0)]);
    check(vec![put((35, 36), "a", 0, Outcome::Unknown), seen()], &[]);
    let late = put((50, 60), "a", 0, Outcome::Unknown);
    check(vec![late, seen()], &[Rule::WrittenTooLate]);
}

/// It takes effect once: a second revision needs a second write.
#[test]
fn an_unanswered_put_happens_once() {
    let lost = || put((10, 20), "a", 0, Outcome::Unknown);
    let twice = || read((30, 40), 3, &[("a", 3, 2, 0)]);
    check(vec![lost(), lost(), twice()], &[]);
    check(vec![lost(), twice()], &[Rule::MissingWriter]);
}

/// Two answers must agree about what it did.
#[test]
fn answers_agree_about_an_unanswered_put() {
    let lost = put((10, 20), "a", 0, Outcome::Unknown);
    let first = read((30, 40), 2, &[("a", 2, 1, 0)]);
    let other = read((30, 40), 2, &[("a", 2, 2, 0)]);
    check(
        vec![lost, first, other],
        &[Rule::Disagreement, Rule::WrongRange],
    );
}

/// A refused write that is seen has no writer.
#[test]
fn a_refused_put_is_never_seen() {
    let refused = put((10, 20), "a", 0, Outcome::Refused(Refusal::Code(8)));
    let seen = read((30, 40), 2, &[("a", 2, 1, 0)]);
    check(vec![refused, seen], &[Rule::Phantom]);
}

/// A lease takes its keys along when its time is over, or it is revoked, and not before.
#[test]
fn a_lease_ends_at_its_time() {
    let leased = || {
        let grant = grant((10, 20), 5);
        vec![grant, put((30, 40), "a", 7, put_at(2))]
    };
    let gone = |at: u64| read((at, at + 10), 3, &[]);
    let told = |entry: Entry| {
        let mut entries = leased();
        entries.push(entry);
        // The moment is judged at the next invocation.
        entries.push(put((20 * SECOND, 20 * SECOND + 1), "b", 0, put_at(4)));
        entries
    };
    check(told(gone(6 * SECOND)), &[]);
    check(told(gone(2 * SECOND)), &[Rule::MissingWriter]);
    let mut revoked = told(gone(2 * SECOND));
    revoked.push(operation(
        SECOND,
        SECOND + 1,
        Request::LeaseRevoke(7),
        Outcome::Unknown,
    ));
    check(revoked, &[]);
}

/// A renewed lease does not take its keys along before the time of its renewal is over.
#[test]
fn a_renewed_lease_ends_later() {
    let judge = |gone: u64, answered: i64, expected: &[Rule]| {
        let renewal = operation(
            4 * SECOND,
            4 * SECOND + 1,
            Request::LeaseKeepAlive(7),
            ok(2, Answer::LeaseKeepAlive(answered)),
        );
        let entries = vec![
            grant((10, 20), 5),
            put((30, 40), "a", 7, put_at(2)),
            renewal,
            read((gone, gone + 10), 3, &[]),
            // The moment is judged at the next invocation.
            put((20 * SECOND, 20 * SECOND + 1), "b", 0, put_at(4)),
        ];
        check(entries, expected);
    };
    judge(10 * SECOND, 5, &[]);
    judge(6 * SECOND, 5, &[Rule::MissingWriter]);
    // Answered as gone, or for a shorter time: the grant counts.
    judge(6 * SECOND, 0, &[]);
    judge(6 * SECOND, 1, &[]);
}
