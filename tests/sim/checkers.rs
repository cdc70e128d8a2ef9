//! Each checker is shown a violation made by hand, and the same thing done right.

use bytes::Bytes;
use kontiki::base::{Incarnation, Index, MemberId, Term};
use kontiki::keyspace::events::Event;
use kontiki::keyspace::request::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, DeleteRangeResponse, KeyRange,
    KeyValue, PutRequest, PutResponse, RangeRequest, RangeResponse, Refusal as KeyspaceRefusal,
    RequestOp, ResponseOp, TxnRequest, TxnResponse,
};
use kontiki::keyspace::revision::Revision;
use kontiki::raft::Position;
use kontiki::shard::event::{Member, Refusal, Request, Response};
use kontiki::sim::checker::history::{History, Outcome, value_of};
use kontiki::sim::checker::members::Members;
use kontiki::sim::checker::pledges::{Directory, Pledges, Remembered};
use kontiki::sim::checker::replicas::{Held, Life, Replicas};
use kontiki::sim::checker::{Promise, Verdict, Violation};

#[track_caller]
fn breaks(promise: Promise, verdict: Verdict) {
    let broken = verdict.expect_err("a violation made by hand is seen");
    assert_eq!(broken.promise, promise, "{broken}");
}

fn life(member: usize, life: u32) -> Life {
    Life { member, life }
}

fn held(index: u64, term: u64, digest: u64) -> Held {
    Held {
        index: Index(index),
        term: Term(term),
        digest,
    }
}

/// Goal: election safety: one leader per term, and a restart is somebody else.
#[test]
fn two_leaders() {
    let mut replicas = Replicas::default();
    let nothing = |_| None;
    replicas.leads(life(0, 1), Term(2), nothing).expect("first");
    replicas.leads(life(0, 1), Term(2), nothing).expect("again");
    replicas
        .leads(life(1, 1), Term(3), nothing)
        .expect("another term");
    breaks(
        Promise::OneLeader,
        replicas.leads(life(2, 1), Term(3), nothing),
    );
    breaks(
        Promise::OneLeader,
        replicas.leads(life(0, 2), Term(2), nothing),
    );
    assert_eq!(replicas.leaders_count(), 2);
}

/// Goal: a leader commits by counting only what it has written in its own term.
#[test]
fn older_term_counted() {
    let replicas = Replicas::default();
    let counts = |written_in| replicas.counts(life(0, 1), Term(4), Index(2), written_in);
    counts(Some(Term(4))).expect("its own");
    breaks(Promise::OwnTermCounted, counts(Some(Term(2))));
    breaks(Promise::OwnTermCounted, counts(None));
}

const FIRST: Directory = (MemberId(1), Incarnation(1));

/// Goal: one vote per member and term, whatever its directory; the same one may leave again.
#[test]
fn two_votes() {
    let mut pledges = Pledges::default();
    let (one, other) = (MemberId(1), MemberId(2));
    pledges.votes(FIRST, Term(2), one).expect("its own");
    pledges.votes(FIRST, Term(2), one).expect("again");
    pledges.votes(FIRST, Term(3), other).expect("a later term");
    breaks(Promise::OneVote, pledges.votes(FIRST, Term(3), one));
    let emptied = (one, Incarnation(7));
    breaks(Promise::OneVote, pledges.votes(emptied, Term(3), one));
    pledges
        .votes((other, Incarnation(2)), Term(3), one)
        .expect("another member");
}

fn remembered(term: u64, vote: Option<u64>, last_index: u64) -> Remembered {
    Remembered {
        term: Term(term),
        vote: vote.map(MemberId),
        last_index: Index(last_index),
    }
}

/// Goal: a member that starts remembers its last vote; nobody asks what it never said.
#[test]
fn forgotten_vote() {
    let mut pledges = Pledges::default();
    pledges
        .remembers(FIRST, remembered(0, None, 0))
        .expect("nothing was said");
    pledges.votes(FIRST, Term(3), MemberId(2)).expect("first");
    for (found, holds) in [
        (remembered(3, Some(2), 0), true),
        (remembered(4, None, 0), true),
        (remembered(3, None, 0), false),
        (remembered(3, Some(3), 0), false),
        (remembered(2, Some(2), 0), false),
    ] {
        let verdict = pledges.remembers(FIRST, found);
        if holds {
            verdict.expect("it remembers");
        } else {
            breaks(Promise::NothingForgotten, verdict);
        }
    }
}

/// Goal: what a member has acknowledged is in its log when it starts, unless a leader has cut it off.
#[test]
fn forgotten_entries() {
    let mut pledges = Pledges::default();
    let at = |term, index| Position {
        term: Term(term),
        index: Index(index),
    };
    pledges.log(FIRST, at(1, 9), Index(5), |_| Some(Term(1)));
    pledges.acknowledges(FIRST, Index(8));
    let mut starts = |last| pledges.remembers(FIRST, remembered(1, None, last));
    starts(8).expect("the ninth was not acknowledged");
    breaks(Promise::NothingForgotten, starts(7));
    // Another leader's entries replace what follows the sixth.
    let held = |index: Index| (index <= Index(7)).then_some(Term(if index.0 == 7 { 2 } else { 1 }));
    pledges.log(FIRST, at(2, 7), Index(5), held);
    let mut starts = |last| pledges.remembers(FIRST, remembered(2, None, last));
    starts(5).expect("the rest may be gone");
    breaks(Promise::NothingForgotten, starts(4));
    pledges
        .remembers((MemberId(1), Incarnation(7)), remembered(0, None, 0))
        .expect("another directory has said nothing");
}

/// Goal: damage that was noticed ends what a directory is bound to; its member still votes once in a term.
#[test]
fn noticed_damage() {
    let mut pledges = Pledges::default();
    pledges.acknowledges(FIRST, Index(8));
    pledges.votes(FIRST, Term(3), MemberId(2)).expect("first");
    pledges.void(FIRST, true);
    pledges
        .remembers(FIRST, remembered(0, None, 0))
        .expect("nothing binds it");
    breaks(Promise::OneVote, pledges.votes(FIRST, Term(3), MemberId(1)));
    // Its own campaign is over where it may not remember it.
    pledges.votes(FIRST, Term(4), MemberId(1)).expect("its own");
    pledges.void(FIRST, false);
    breaks(Promise::OneVote, pledges.votes(FIRST, Term(4), MemberId(2)));
    pledges.void(FIRST, true);
    pledges.votes(FIRST, Term(4), MemberId(2)).expect("another");
    // What a directory has said counts no longer when the group has agreed on another one.
    let new = (MemberId(1), Incarnation(7));
    pledges.agreed(FIRST);
    breaks(Promise::OneVote, pledges.votes(new, Term(4), MemberId(3)));
    pledges.agreed(new);
    pledges.votes(new, Term(4), MemberId(3)).expect("new");
}

/// Goal: log matching: one index and term, one history.
#[test]
fn logs_differ() {
    let mut replicas = Replicas::default();
    replicas.holds(0, held(1, 1, 0xa)).expect("first");
    replicas.holds(1, held(1, 1, 0xa)).expect("the same");
    replicas.holds(1, held(1, 2, 0xb)).expect("another term");
    breaks(Promise::LogMatching, replicas.holds(2, held(1, 2, 0xa)));
}

/// Goal: state machine safety: what is committed somewhere is committed everywhere, or nothing is.
#[test]
fn commits_differ() {
    let mut replicas = Replicas::default();
    replicas
        .commits(0, held(1, 1, 0xa), Term(1))
        .expect("first");
    replicas.commits(1, held(1, 1, 0xa), Term(2)).expect("same");
    breaks(
        Promise::OneHistory,
        replicas.commits(1, held(1, 1, 0xb), Term(2)),
    );
    breaks(
        Promise::OneHistory,
        replicas.commits(1, held(1, 2, 0xa), Term(2)),
    );
    assert_eq!(replicas.committed_index(), Index(1));
}

/// Goal: leader completeness: a leader of a later term holds what was committed before; one of the same or an
/// earlier term need not.
#[test]
fn leader_without_the_committed() {
    let mut replicas = Replicas::default();
    replicas
        .commits(0, held(1, 2, 0xa), Term(2))
        .expect("first");
    replicas
        .commits(0, held(2, 2, 0xb), Term(4))
        .expect("later");
    let log = |terms: &'static [u64]| {
        move |index: Index| terms.get(index.0 as usize - 1).map(|&term| Term(term))
    };
    replicas
        .leads(life(1, 1), Term(3), log(&[2]))
        .expect("the second was known in term 4 only");
    replicas
        .leads(life(1, 1), Term(5), log(&[2, 2, 3]))
        .expect("it holds both");
    breaks(
        Promise::LeaderCompleteness,
        replicas.leads(life(2, 1), Term(6), log(&[2])),
    );
    breaks(
        Promise::LeaderCompleteness,
        replicas.leads(life(2, 1), Term(7), log(&[2, 3])),
    );
}

/// Goal: one list of members at an index, wherever and in whatever order it is seen; and nobody comes back.
#[test]
fn members_differ() {
    let list = |ids: &[u64]| -> Vec<Member> {
        let member = |&id: &u64| Member {
            id: MemberId(id),
            ..Member::default()
        };
        ids.iter().map(member).collect()
    };
    let mut members = Members::default();
    members.shows(0, Index(1), list(&[1, 2, 3])).expect("first");
    members.shows(0, Index(9), list(&[1, 2])).expect("one goes");
    members.shows(1, Index(1), list(&[1, 2, 3])).expect("late");
    assert!(members.is_removed(MemberId(3)) && !members.is_removed(MemberId(2)));
    assert!(members.contains(MemberId(2)) && !members.contains(MemberId(3)));
    breaks(
        Promise::OneHistory,
        members.shows(2, Index(9), list(&[1, 3])),
    );
    breaks(
        Promise::OneHistory,
        members.shows(2, Index(12), list(&[1, 2, 3])),
    );
}

/// Goal: a lone member's log never restarts shorter than what was committed.
#[test]
fn lone_member_forgets() {
    let mut replicas = Replicas::default();
    replicas.lone_restart(0, Index(0)).expect("nothing yet");
    replicas
        .commits(0, held(1, 1, 0xa), Term(1))
        .expect("first");
    replicas.lone_restart(0, Index(1)).expect("all");
    breaks(Promise::NothingLost, replicas.lone_restart(0, Index(0)));
}

// The clients' view.

/// A history being made by hand.
#[derive(Default)]
struct Hand {
    history: History,
    asked: u32,
}

impl Hand {
    fn ask(&mut self, request: Request) -> u32 {
        let number = self.history.next_operation();
        self.history.asked(&request);
        self.asked += 1;
        number
    }

    fn put(&mut self, key: &'static str) -> u32 {
        let number = self.history.next_operation();
        self.ask(Request::Put(put(key, number, 0)))
    }

    fn commit(
        &mut self,
        revision: i64,
        changes: &[(&'static str, Option<(u32, usize)>)],
    ) -> Verdict {
        let events: Vec<Event> = (0..)
            .zip(changes)
            .map(|(sub, &(key, value))| self.event(revision, sub, key, value))
            .collect();
        self.history.committed(&events)
    }

    /// With the versions that the model expects.
    fn event(&self, main: i64, sub: u32, key: &'static str, value: Option<(u32, usize)>) -> Event {
        let before = self.history.model().key_at(key.as_bytes(), main - 1);
        let kv = KeyValue {
            key: Bytes::from_static(key.as_bytes()),
            create_revision: before.as_ref().map_or(main, |kv| kv.create_revision),
            mod_revision: main,
            version: before.as_ref().map_or(1, |kv| kv.version + 1),
            value: value.map_or(Bytes::new(), |(number, put)| value_of(number, put, 0)),
            ..KeyValue::default()
        };
        Event {
            revision: Revision { main, sub },
            deleted: value.is_none(),
            kv,
            prev_kv: None,
        }
    }

    /// A put that is asked for, committed and answered.
    fn done(&mut self, key: &'static str, revision: i64) -> u32 {
        let number = self.put(key);
        self.commit(revision, &[(key, Some((number, 0)))])
            .expect("what was asked for");
        self.answer(number, revision, Response::Put(PutResponse::default()))
            .expect("answered right");
        number
    }

    fn answer(
        &mut self,
        number: u32,
        revision: i64,
        response: Response,
    ) -> Result<Outcome, Violation> {
        self.history.answer(number, revision, &Ok(response))
    }

    fn refuse(
        &mut self,
        number: u32,
        revision: i64,
        refusal: Refusal,
    ) -> Result<Outcome, Violation> {
        self.history.answer(number, revision, &Err(refusal))
    }
}

fn put(key: &'static str, number: u32, put: usize) -> PutRequest {
    PutRequest {
        key: Bytes::from_static(key.as_bytes()),
        value: value_of(number, put, 0),
        ..PutRequest::default()
    }
}

fn one(key: &'static str) -> KeyRange {
    KeyRange {
        key: Bytes::from_static(key.as_bytes()),
        range_end: Bytes::new(),
    }
}

fn get(key: &'static str, revision: i64) -> Request {
    Request::Range(RangeRequest {
        range: one(key),
        revision,
        ..RangeRequest::default()
    })
}

fn found(kv: KeyValue) -> Response {
    Response::Range(RangeResponse {
        kvs: vec![kv],
        more: false,
        count: 1,
    })
}

fn absent() -> Response {
    Response::Range(RangeResponse::default())
}

fn kv(key: &'static str, number: u32, create: i64, main: i64, version: i64) -> KeyValue {
    KeyValue {
        key: Bytes::from_static(key.as_bytes()),
        create_revision: create,
        mod_revision: main,
        version,
        value: value_of(number, 0, 0),
        ..KeyValue::default()
    }
}

/// Goal: a read that began after a write was answered sees it; content and revision are both checked.
#[test]
fn stale_and_wrong_reads() {
    let mut hand = Hand::default();
    let early = hand.ask(get("a", 0));
    let first = hand.done("a", 2);
    let second = hand.done("a", 3);
    hand.answer(early, 1, absent()).expect("asked before both");
    let read = hand.ask(get("a", 0));
    let right = found(kv("a", second, 2, 3, 2));
    hand.answer(read, 3, right.clone()).expect("the newest");
    let read = hand.ask(get("a", 0));
    let stale = hand.answer(read, 2, found(kv("a", first, 2, 2, 1)));
    breaks(Promise::Linearizable, stale.map(drop));
    let read = hand.ask(get("a", 0));
    let wrong = hand.answer(read, 3, found(kv("a", first, 2, 2, 1)));
    breaks(Promise::Linearizable, wrong.map(drop));
    let read = hand.ask(get("a", 0));
    let future = hand.answer(read, 4, right);
    breaks(Promise::NothingUncommitted, future.map(drop));
}

/// Goal: a failed compare is a read: it may not show what was replaced before it was asked.
#[test]
fn failed_compares() {
    let mut hand = Hand::default();
    hand.done("a", 2);
    hand.done("a", 3);
    let ask = |hand: &mut Hand| {
        let number = hand.history.next_operation();
        hand.ask(Request::Txn(TxnRequest {
            compare: vec![Compare {
                range: one("a"),
                result: CompareResult::Equal,
                target: CompareTarget::ModRevision(3),
            }],
            success: vec![RequestOp::Put(put("a", number, 0))],
            failure: Vec::new(),
        }))
    };
    let failed = || Response::Txn(TxnResponse::default());
    let number = ask(&mut hand);
    breaks(
        Promise::Linearizable,
        hand.answer(number, 2, failed()).map(drop),
    );
    let number = ask(&mut hand);
    breaks(
        Promise::Linearizable,
        hand.answer(number, 3, failed()).map(drop),
    );
}

/// Goal: a transaction's reads see its own writes and nothing newer.
#[test]
fn reads_of_a_transaction() {
    let mut hand = Hand::default();
    let number = hand.history.next_operation();
    hand.ask(Request::Txn(TxnRequest {
        compare: Vec::new(),
        success: vec![
            RequestOp::Put(put("a", number, 0)),
            RequestOp::Range(RangeRequest {
                range: one("a"),
                ..RangeRequest::default()
            }),
        ],
        failure: Vec::new(),
    }));
    hand.commit(2, &[("a", Some((number, 0)))]).expect("asked");
    let answer = |response| {
        Response::Txn(TxnResponse {
            succeeded: true,
            responses: vec![
                ResponseOp::Put {
                    revision: 2,
                    response: PutResponse::default(),
                },
                ResponseOp::Range {
                    revision: 2,
                    response,
                },
            ],
        })
    };
    let mut wrong = hand.history.clone();
    let blind = wrong.answer(number, 2, &Ok(answer(RangeResponse::default())));
    breaks(Promise::Linearizable, blind.map(drop));
    let response = RangeResponse {
        kvs: vec![kv("a", number, 2, 2, 1)],
        more: false,
        count: 1,
    };
    hand.answer(number, 2, answer(response)).expect("its own");
}

/// Goal: what was refused for good never takes effect; what timed out may.
#[test]
fn refused_and_done() {
    let mut hand = Hand::default();
    let late = hand.put("a");
    let outcome = hand.refuse(late, 1, Refusal::TimedOut).expect("late");
    assert_eq!(outcome, Outcome::Unknown);
    hand.commit(2, &[("a", Some((late, 0)))]).expect("it may");
    let full = hand.put("a");
    let outcome = hand.refuse(full, 2, Refusal::NoSpace).expect("refused");
    assert_eq!(outcome, Outcome::Refused);
    breaks(
        Promise::OnceAndWhole,
        hand.commit(3, &[("a", Some((full, 0)))]),
    );
    let mut hand = Hand::default();
    let number = hand.put("a");
    hand.commit(2, &[("a", Some((number, 0)))]).expect("asked");
    breaks(
        Promise::OnceAndWhole,
        hand.refuse(number, 2, Refusal::LeaderChanged).map(drop),
    );
}

/// Goal: a request takes effect once.
#[test]
fn done_twice() {
    let mut hand = Hand::default();
    let number = hand.put("a");
    hand.commit(2, &[("a", Some((number, 0)))]).expect("once");
    breaks(
        Promise::OnceAndWhole,
        hand.commit(3, &[("a", Some((number, 0)))]),
    );
}

/// Goal: half a transaction is seen, even when nobody was answered.
#[test]
fn half_of_a_transaction() {
    let ask = |hand: &mut Hand| {
        let number = hand.history.next_operation();
        hand.ask(Request::Txn(TxnRequest {
            compare: Vec::new(),
            success: vec![
                RequestOp::Put(put("a", number, 0)),
                RequestOp::Put(put("b", number, 1)),
            ],
            failure: Vec::new(),
        }))
    };
    let mut hand = Hand::default();
    let number = ask(&mut hand);
    let whole = [("a", Some((number, 0))), ("b", Some((number, 1)))];
    hand.commit(2, &whole).expect("both");
    let mut hand = Hand::default();
    let number = ask(&mut hand);
    breaks(
        Promise::OnceAndWhole,
        hand.commit(2, &[("a", Some((number, 0)))]),
    );
}

/// Goal: revisions have no gaps, and nothing is committed that nobody asked for.
#[test]
fn out_of_nowhere() {
    let mut hand = Hand::default();
    let number = hand.put("a");
    breaks(
        Promise::OneHistory,
        hand.commit(3, &[("a", Some((number, 0)))]),
    );
    breaks(
        Promise::OnceAndWhole,
        hand.commit(2, &[("a", Some((99, 0)))]),
    );
}

/// Goal: a deletion carries no value, and is traced to a request all the same.
#[test]
fn deletions() {
    let delete = || {
        Request::DeleteRange(DeleteRangeRequest {
            range: one("a"),
            prev_kv: false,
        })
    };
    let deleted = |deleted| {
        Response::DeleteRange(DeleteRangeResponse {
            deleted,
            prev_kvs: Vec::new(),
        })
    };
    let mut hand = Hand::default();
    hand.done("a", 2);
    hand.commit(3, &[("a", None)]).expect("checked at the end");
    breaks(Promise::OnceAndWhole, hand.history.finish());

    let mut hand = Hand::default();
    hand.done("a", 2);
    let number = hand.ask(delete());
    hand.commit(3, &[("a", None)]).expect("asked");
    hand.history
        .finish()
        .expect("the open one may have done it");
    hand.answer(number, 3, deleted(1)).expect("it has");
    hand.history.finish().expect("explained");
    let number = hand.ask(delete());
    breaks(
        Promise::Linearizable,
        hand.answer(number, 3, deleted(1)).map(drop),
    );
}

/// Goal: a compaction that was acknowledged is in force, and refusals have reasons.
#[test]
fn floors() {
    let mut hand = Hand::default();
    for revision in 2..8 {
        hand.done("a", revision);
    }
    let read = hand.ask(get("a", 3));
    let compacted = Refusal::Keyspace(KeyspaceRefusal::Compacted);
    breaks(
        Promise::Linearizable,
        hand.refuse(read, 7, compacted).map(drop),
    );
    let compact = hand.ask(Request::Compact {
        revision: 5,
        physical: false,
    });
    let under_way = hand.ask(get("a", 3));
    hand.answer(compact, 7, Response::Compact).expect("done");
    hand.refuse(under_way, 7, compacted).expect("it may");
    let below = hand.ask(get("a", 3));
    let number = 1;
    breaks(
        Promise::Linearizable,
        hand.answer(below, 7, found(kv("a", number, 2, 3, 2)))
            .map(drop),
    );
    let read = hand.ask(get("a", 6));
    let future = Refusal::Keyspace(KeyspaceRefusal::FutureRevision);
    breaks(
        Promise::Linearizable,
        hand.refuse(read, 7, future).map(drop),
    );
}
