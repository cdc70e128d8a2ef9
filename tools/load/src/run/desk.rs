//! The calls of one thread: what was asked, when, and what came of it.

use std::collections::{BTreeSet, VecDeque};
use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::measure::Tally;
use crate::wire::{End, Event};
use crate::workload::messages::{WatchAnswer, watch_answer};
use crate::workload::{Asked, Author, Kind, stamped_start_ns};

use super::echo::Echo;
use super::pulse::Pulse;
use super::record::{Came, Scribe};

/// Nanoseconds of a second.
pub(super) const SECOND_NS: u64 = 1_000_000_000;
/// Codes of errors that are not gRPC's.
pub(crate) const WRONG_ANSWER: &str = "wrong answer";
const TIMEOUT: &str = "timeout";
const NOT_TAKEN: &str = "not taken";
const BROKEN: &str = "connection broken";

/// A token with this bit names a watch stream.
const WATCH_TOKEN: u64 = 1 << 63;
/// A token with this bit names the stream of renewals of a connection.
const RENEW_TOKEN: u64 = 1 << 62;

/// The part of a run in which operations count: those that were to start in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) from_ns: u64,
    pub(super) until_ns: u64,
}

impl Window {
    pub(super) fn holds(&self, start_ns: u64) -> bool {
        (self.from_ns..self.until_ns).contains(&start_ns)
    }

    /// Which second of it `now_ns` is, as far as it goes.
    pub(super) fn second(&self, now_ns: u64) -> u32 {
        let last_ns = self.until_ns.saturating_sub(1).max(self.from_ns);
        (now_ns
            .clamp(self.from_ns, last_ns)
            .saturating_sub(self.from_ns)
            / SECOND_NS) as u32
    }
}

#[derive(Debug)]
struct Call {
    asked: Asked,
    link: usize,
    stream: u32,
    start_ns: u64,
    /// When the patience with it ends.
    expires_ns: u64,
    /// Distinguishes calls that used the same place one after the other.
    generation: u32,
    open: bool,
    /// What the answer's message was worth.
    verdict: Option<Result<(), String>>,
    /// And its revision.
    revision: i64,
    /// Recording: what was asked, and what was answered.
    request: Vec<u8>,
    answer: Option<Vec<u8>>,
}

/// The renewals on their way over one connection, in order.
#[derive(Debug, Default)]
pub(super) struct Renewals {
    pub(super) stream: Option<u32>,
    waiting: VecDeque<u64>,
}

/// One stream of watchers.
#[derive(Debug)]
struct WatchStream {
    link: usize,
    /// For each watcher, by its number in the stream: the revision it saw last, and the hash of the key.
    seen: Vec<(i64, u64)>,
    /// And its events of puts, since the load began.
    puts_seen: Vec<u64>,
    /// In the order in which they were asked for, the place of each one's keys in the [`Echo`].
    keys: Vec<usize>,
    created: usize,
    /// Watchers that were created or refused.
    answered: usize,
    wanted: usize,
    /// It ended; its watchers are to be made again.
    lost: bool,
    /// Recording: what was asked for, in order.
    asked: Vec<Vec<u8>>,
}

/// The calls of one thread.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) author: Author,
    pub(super) tally: Tally,
    pub(super) window: Window,
    calls: Vec<Call>,
    free: Vec<u32>,
    generation: u32,
    /// Calls without an end.
    pub(super) open_count: usize,
    /// The same by connection.
    pub(super) busy: Vec<usize>,
    pub(super) renewals: Vec<Renewals>,
    watches: Vec<WatchStream>,
    /// The first so many were there when the load began, and are to see all of it.
    watches_of_all: usize,
    /// What watchers are to see.
    echo: Arc<Echo>,
    /// Events that arrived, of all time.
    pub(super) events: u64,
    /// Filling: the first failure ends the run, and nothing is counted.
    pub(super) filling: bool,
    pub(super) fill_failure: Option<String>,
    /// Told of every success of the load.
    pub(super) pulse: Option<Arc<Pulse>>,
    /// Successful operations, of all time.
    pub(super) succeeded: u64,
    /// When an operation last succeeded.
    pub(super) last_success_ns: u64,
    /// When the last one that counts succeeded, or its event came.
    pub(super) last_counted_ns: u64,
    /// Writes everything down, if that is wanted.
    scribe: Option<Scribe>,
}

impl Desk {
    pub(super) fn new(
        author: Author,
        links: usize,
        echo: Arc<Echo>,
        scribe: Option<Scribe>,
    ) -> Desk {
        let mut renewals = Vec::new();
        renewals.resize_with(links, Renewals::default);
        Desk {
            author,
            tally: Tally::new(),
            window: Window::default(),
            calls: Vec::new(),
            free: Vec::new(),
            generation: 0,
            open_count: 0,
            busy: vec![0; links],
            renewals,
            watches: Vec::new(),
            watches_of_all: 0,
            echo,
            events: 0,
            filling: false,
            fill_failure: None,
            pulse: None,
            succeeded: 0,
            last_success_ns: 0,
            last_counted_ns: 0,
            scribe,
        }
    }

    /// A place for a call that is about to start; gives its token.
    pub(super) fn open(
        &mut self,
        asked: Asked,
        request: &[u8],
        link: usize,
        start_ns: u64,
        expires_ns: u64,
    ) -> u64 {
        self.generation = (self.generation + 1) & 0x3fff_ffff;
        let call = Call {
            asked,
            link,
            stream: 0,
            start_ns,
            expires_ns,
            generation: self.generation,
            open: true,
            verdict: None,
            revision: 0,
            request: match self.scribe {
                Some(_) => request.to_vec(),
                None => Vec::new(),
            },
            answer: None,
        };
        let place = match self.free.pop() {
            Some(place) => {
                self.calls[place as usize] = call;
                place
            }
            None => {
                self.calls.push(call);
                (self.calls.len() - 1) as u32
            }
        };
        self.open_count += 1;
        self.busy[link] += 1;
        u64::from(self.generation) << 32 | u64::from(place)
    }

    /// The call was sent on `stream`.
    pub(super) fn sent(&mut self, token: u64, stream: u32) {
        if let Some(call) = self.call(token) {
            call.stream = stream;
        }
    }

    /// A renewal was sent on its connection's stream.
    pub(super) fn renewal_sent(&mut self, link: usize, token: u64) {
        self.renewals[link].waiting.push_back(token);
    }

    /// The token of the stream of renewals of a connection.
    pub(super) fn renewal_token(link: usize) -> u64 {
        RENEW_TOKEN | link as u64
    }

    /// A place for a stream of `wanted` watchers; gives its token.
    pub(super) fn open_watch(&mut self, link: usize, wanted: usize) -> u64 {
        self.watches.push(WatchStream {
            link,
            seen: Vec::new(),
            puts_seen: Vec::new(),
            keys: Vec::new(),
            created: 0,
            answered: 0,
            wanted,
            lost: false,
            asked: Vec::new(),
        });
        WATCH_TOKEN | (self.watches.len() - 1) as u64
    }

    /// Watcher number `watcher` of all threads was asked for on the stream of `token`.
    pub(super) fn watch_asked(&mut self, token: u64, watcher: u64, request: &[u8]) {
        let watch = &mut self.watches[(token & !WATCH_TOKEN) as usize];
        watch.keys.push(self.echo.place(watcher));
        if self.scribe.is_some() {
            watch.asked.push(request.to_vec());
        }
    }

    /// The load begins: from now on watchers see its puts, not the fill's of other threads.
    pub(super) fn begin_load(&mut self) {
        self.watches_of_all = self.watches.len();
        for watch in &mut self.watches {
            watch.puts_seen.fill(0);
        }
    }

    /// For each watcher that lives since the load began, how many events of acknowledged puts it has not seen.
    fn missing_events(&self) -> impl Iterator<Item = u64> {
        let lives = |watch: &&WatchStream| watch.wanted > 0;
        self.watches[..self.watches_of_all]
            .iter()
            .filter(lives)
            .flat_map(|watch| watch.keys.iter().enumerate().map(move |at| (watch, at)))
            .map(|(watch, (watcher, key))| {
                let puts = watch.puts_seen.get(watcher).copied().unwrap_or(0);
                let (revision, _) = watch.seen.get(watcher).copied().unwrap_or((0, 0));
                self.echo.missing(*key, puts, revision)
            })
    }

    /// Whether a watcher has not seen every acknowledged put of its keys.
    pub(super) fn awaits_events(&self) -> bool {
        self.missing_events().any(|missing| missing > 0)
    }

    /// Patience with events is over: what is missing is lost.
    pub(super) fn miss_events(&mut self) {
        let missing = self.missing_events().sum();
        let why = "an acknowledged put was not seen by a watcher of its key";
        self.tally
            .failed_times(Kind::Event, "event missing", why, missing);
    }

    /// Whether every watcher is there.
    pub(super) fn all_watch(&self) -> bool {
        self.watches
            .iter()
            .all(|watch| watch.created >= watch.wanted)
    }

    /// The connections that have lost watchers and can have them again; they are told once.
    pub(super) fn take_lost_watches(&mut self, is_up: impl Fn(usize) -> bool) -> BTreeSet<usize> {
        let lost = self
            .watches
            .iter_mut()
            .filter(|watch| watch.lost && is_up(watch.link));
        lost.map(|watch| {
            watch.lost = false;
            watch.link
        })
        .collect()
    }

    fn call(&mut self, token: u64) -> Option<&mut Call> {
        let call = self.calls.get_mut((token & 0xffff_ffff) as usize)?;
        (call.open && u64::from(call.generation) == token >> 32).then_some(call)
    }

    /// What arrived on a connection at `now_ns`.
    pub(super) fn handle(&mut self, link: usize, event: Event<'_>, now_ns: u64) {
        match event {
            Event::Ready => {}
            Event::Message(token, message) if token & WATCH_TOKEN != 0 => {
                self.watch_message(token, message, now_ns);
            }
            Event::Message(token, message) if token & RENEW_TOKEN != 0 => {
                if let Some(token) = self.renewals[link].waiting.pop_front() {
                    self.message(token, message, now_ns);
                    self.ended(token, End::Ok, now_ns);
                }
            }
            Event::Message(token, message) => self.message(token, message, now_ns),
            Event::Ended(token, end) if token & WATCH_TOKEN != 0 => {
                let place = (token & !WATCH_TOKEN) as usize;
                let watch = &mut self.watches[place];
                (watch.wanted, watch.lost) = (0, true);
                if let Some(scribe) = &mut self.scribe {
                    scribe.watch_ended(place, now_ns);
                }
                let (code, text) = failure(&end);
                self.tally.failed(Kind::Event, &code, &text);
            }
            Event::Ended(token, end) if token & RENEW_TOKEN != 0 => {
                let renewals = std::mem::take(&mut self.renewals[link]);
                // A stream may end well, its renewals then have no answer all the same.
                let end = match end {
                    End::Ok => End::Broken("the stream of renewals ended".into()),
                    end => end,
                };
                for token in renewals.waiting {
                    self.ended(token, end.clone(), now_ns);
                }
            }
            Event::Ended(token, end) => self.ended(token, end, now_ns),
        }
    }

    fn message(&mut self, token: u64, message: &[u8], now_ns: u64) {
        let Some(asked) = self.call(token).map(|call| call.asked) else {
            return;
        };
        let verdict = self.author.judge(&asked, message, now_ns);
        let revision = self.author.judged_revision();
        let recorded = self.scribe.is_some();
        if let Some(call) = self.call(token) {
            call.verdict = Some(verdict);
            call.revision = revision;
            call.answer = recorded.then(|| message.to_vec());
        }
    }

    fn ended(&mut self, token: u64, end: End, now_ns: u64) {
        let Some(call) = self.call(token) else {
            return;
        };
        call.open = false;
        let (kind, link, start_ns) = (call.asked.kind, call.link, call.start_ns);
        let verdict = call.verdict.take();
        let (subject, revision) = (call.asked.subject, call.revision);
        let late = call.expires_ns <= now_ns;
        self.write_down((token & 0xffff_ffff) as usize, Some(&end), now_ns);
        self.free.push((token & 0xffff_ffff) as u32);
        self.open_count -= 1;
        self.busy[link] -= 1;
        match (end, verdict) {
            // Whoever looks for calls whose time is up comes by only now and then.
            (End::Ok, Some(Ok(()))) if late && !self.filling => {
                self.failed(kind, start_ns, TIMEOUT, "the answer came too late");
            }
            (End::Ok, Some(Ok(()))) => {
                self.succeeded += 1;
                self.last_success_ns = now_ns;
                if let Some(pulse) = self.pulse.as_ref().filter(|_| !self.filling) {
                    pulse.beat(now_ns);
                }
                if kind == Kind::Put && !self.filling {
                    self.echo.acknowledged(subject, revision);
                }
                if self.window.holds(start_ns) {
                    self.last_counted_ns = now_ns;
                    self.tally.done(kind, now_ns.saturating_sub(start_ns));
                }
            }
            (End::Ok, Some(Err(why))) => self.failed(kind, start_ns, WRONG_ANSWER, &why),
            (End::Ok, None) => {
                self.failed(kind, start_ns, WRONG_ANSWER, "an OK without a message");
            }
            (end, _) => {
                let (code, text) = failure(&end);
                self.failed(kind, start_ns, &code, &text);
            }
        }
    }

    /// Whether keys are still there whose leases were to end within the window.
    pub(super) fn awaits_ends(&self) -> bool {
        self.author.overdue(self.window.until_ns).next().is_some()
    }

    /// Ends what is still open, because the run is over.
    pub(super) fn give_up(&mut self, now_ns: u64) {
        self.end_watches(now_ns);
        for end_ns in self.author.overdue(self.window.until_ns) {
            if self.window.holds(end_ns) {
                self.tally
                    .failed(Kind::Expiry, TIMEOUT, "the key is still there");
            }
        }
        for place in 0..self.calls.len() {
            if std::mem::take(&mut self.calls[place].open) {
                self.write_down(place, None, now_ns);
            }
        }
    }

    /// The run is over: nothing more is heard of the watchers.
    fn end_watches(&mut self, now_ns: u64) {
        let Some(scribe) = &mut self.scribe else {
            return;
        };
        for stream in 0..self.watches.len() {
            scribe.watch_ended(stream, now_ns);
        }
    }

    /// Records the call at `place`, which ended so or not at all.
    fn write_down(&mut self, place: usize, end: Option<&End>, now_ns: u64) {
        let Some(scribe) = &mut self.scribe else {
            return;
        };
        let call = &self.calls[place];
        let came = match (end, &call.answer) {
            (Some(End::Ok), Some(message)) => Came::Answer(message),
            (Some(end), _) => Came::End(end),
            (None, _) => Came::Nothing,
        };
        let times = (call.start_ns, now_ns);
        scribe.over(call.link, call.asked.method, &call.request, times, &came);
    }

    fn failed(&mut self, kind: Kind, start_ns: u64, code: &str, why: &str) {
        if self.filling {
            self.fill_failure
                .get_or_insert_with(|| format!("{code}: {why}"));
        } else if self.window.holds(start_ns) || code == WRONG_ANSWER {
            // A wrong answer counts whenever it comes.
            self.tally.failed(kind, code, why);
        }
    }

    /// An operation that was due and never got onto a connection.
    pub(super) fn never_sent(&mut self, kind: Kind, start_ns: u64, why: &str) {
        self.failed(kind, start_ns, "not sent", why);
    }

    /// Ends the calls whose time is up; `cancel` is told their connection and stream.
    pub(super) fn expire(
        &mut self,
        now_ns: u64,
        timeout_ms: u128,
        cancel: &mut impl FnMut(usize, u32),
    ) {
        for place in 0..self.calls.len() {
            let call = &mut self.calls[place];
            if !call.open || call.expires_ns > now_ns {
                continue;
            }
            call.open = false;
            let (kind, link, start_ns, stream) =
                (call.asked.kind, call.link, call.start_ns, call.stream);
            self.write_down(place, None, now_ns);
            // Renewals share a stream, which goes on; their answers will find nobody.
            if kind != Kind::Renew {
                cancel(link, stream);
            }
            self.free.push(place as u32);
            self.open_count -= 1;
            self.busy[link] -= 1;
            self.failed(
                kind,
                start_ns,
                TIMEOUT,
                &format!("no answer within {timeout_ms} ms"),
            );
        }
    }

    fn watch_message(&mut self, token: u64, message: &[u8], now_ns: u64) {
        let Some(WatchAnswer {
            watcher,
            created,
            cancelled,
            events,
            ..
        }) = watch_answer(message)
        else {
            self.tally
                .failed(Kind::Event, WRONG_ANSWER, "the watch answer cannot be read");
            return;
        };
        let stream = (token & !WATCH_TOKEN) as usize;
        let watch = &mut self.watches[stream];
        if let Some(scribe) = &mut self.scribe {
            // Servers create or refuse the watchers of a stream in the order in which they were asked for.
            let asked = watch.asked.get(watch.answered).map(Vec::as_slice);
            scribe.watch_message(stream, asked, message, now_ns);
        }
        watch.answered += usize::from(created);
        if let Some(reason) = cancelled {
            let why = String::from_utf8_lossy(reason).into_owned();
            self.tally.failed(Kind::Event, "watch cancelled", &why);
            // That it sees nothing more has been said.
            let place = usize::try_from(watcher).unwrap_or(usize::MAX);
            if let (Some(puts), Some(seen)) =
                (watch.puts_seen.get_mut(place), watch.seen.get_mut(place))
            {
                (*puts, seen.0) = (u64::MAX, i64::MAX);
            }
            return;
        }
        let Ok(place) = usize::try_from(watcher) else {
            return;
        };
        if created {
            watch.created += 1;
        }
        // Servers number the watchers of a stream from zero.
        if place >= watch.seen.len() {
            watch
                .seen
                .resize(watch.wanted.max(place.min(watch.wanted) + 1), (0, 0));
            watch.puts_seen.resize(watch.seen.len(), 0);
        }
        let (Some(seen), Some(puts_seen)) =
            (watch.seen.get_mut(place), watch.puts_seen.get_mut(place))
        else {
            self.tally.failed(
                Kind::Event,
                WRONG_ANSWER,
                "an event for a watcher that nobody made",
            );
            return;
        };
        for event in events {
            // A revision may change several keys, but each of them once.
            let now_seen = (event.modified, FixedState::default().hash_one(event.key));
            if event.modified < seen.0 || now_seen == *seen {
                let why = format!(
                    "an event of revision {} after one of {}",
                    event.modified, seen.0
                );
                self.tally.failed(Kind::Event, WRONG_ANSWER, &why);
            }
            *seen = now_seen;
            self.events += 1;
            if event.deleted {
                let end_ns = self.author.ended(event.key);
                if let Some(end_ns) = end_ns.filter(|end_ns| self.window.holds(*end_ns)) {
                    self.tally.done(Kind::Expiry, now_ns.saturating_sub(end_ns));
                }
                continue;
            }
            *puts_seen = puts_seen.saturating_add(1);
            let start_ns = stamped_start_ns(event.value).unwrap_or(u64::MAX);
            if self.window.holds(start_ns) && now_ns >= start_ns {
                self.last_counted_ns = now_ns;
                self.tally.done(Kind::Event, now_ns - start_ns);
            }
        }
    }
}

/// The name and the text of an end that is no success.
fn failure(end: &End) -> (String, String) {
    match end {
        End::Ok => ("OK".into(), String::new()),
        End::Status(code, text) | End::NoStatus(code, text) => (code_name(*code), text.clone()),
        End::NotTaken(text) => (NOT_TAKEN.into(), text.clone()),
        End::Broken(text) => (BROKEN.into(), text.clone()),
    }
}

/// gRPC's name of a code.
fn code_name(code: u32) -> String {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    match NAMES.get(code as usize) {
        Some(name) => (*name).to_owned(),
        None => format!("code {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::proto::{put_bytes, put_message, put_number};
    use crate::workload::{KeyOrder, KeySpec, ValueSpec, WorkloadSpec};

    const KEYS: u64 = 2;

    fn desk() -> Desk {
        let keys = KeySpec {
            count: KEYS,
            size_bytes: 8,
            prefix: "k/".into(),
            order: KeyOrder::Sequential,
        };
        let spec = WorkloadSpec {
            watchers: 3,
            watched_keys: KEYS,
            ..WorkloadSpec::new(vec![(Kind::Put, 1)], keys, ValueSpec::equal(16), 1)
        };
        let echo = Arc::new(Echo::new(KEYS, 1));
        let mut desk = Desk::new(Author::new(&spec, 0, 1), 1, echo, None);
        desk.window = Window {
            from_ns: 0,
            until_ns: SECOND_NS,
        };
        desk
    }

    fn header(out: &mut Vec<u8>, revision: u64) {
        put_message(out, 1, |header| put_number(header, 3, revision));
    }

    /// A put of the next key is asked for, and acknowledged with `revision`.
    fn put(desk: &mut Desk, revision: u64) {
        let mut request = Vec::new();
        let asked = desk.author.next(1, &mut request);
        let token = desk.open(asked, &request, 0, 1, SECOND_NS);
        let mut answer = Vec::new();
        header(&mut answer, revision);
        desk.handle(0, Event::Message(token, &answer), 2);
        desk.handle(0, Event::Ended(token, End::Ok), 2);
    }

    fn watchers(desk: &mut Desk) -> u64 {
        let token = desk.open_watch(0, 3);
        for watcher in 0..3 {
            desk.watch_asked(token, watcher, &[]);
            let mut created = Vec::new();
            put_number(&mut created, 2, watcher);
            put_number(&mut created, 3, 1);
            desk.handle(0, Event::Message(token, &created), 1);
        }
        desk.begin_load();
        token
    }

    fn event(desk: &mut Desk, token: u64, watcher: u64, revision: u64) {
        let mut message = Vec::new();
        put_number(&mut message, 2, watcher);
        put_message(&mut message, 11, |event| {
            put_message(event, 2, |pair| {
                put_bytes(pair, 1, b"k/");
                put_number(pair, 3, revision);
                put_bytes(pair, 5, &[0; 16]);
            });
        });
        desk.handle(0, Event::Message(token, &message), 3);
    }

    fn missing(desk: &mut Desk) -> u64 {
        desk.miss_events();
        let sample = desk.tally.hand_over(0);
        let events = sample.kinds.iter().find(|(kind, _)| *kind == Kind::Event);
        let error = events.and_then(|(_, counted)| counted.errors.get("event missing"));
        error.map_or(0, |error| error.count)
    }

    /// Goal: an answer after the patience is no success, whether the timeout was noticed before it or not.
    #[test]
    fn late_answers() {
        let mut desk = desk();
        let mut check = |answered_ns: u64, expected: (u64, u64)| {
            let mut request = Vec::new();
            let asked = desk.author.next(1, &mut request);
            let token = desk.open(asked, &request, 0, 1, 1_000);
            let mut answer = Vec::new();
            header(&mut answer, answered_ns);
            desk.handle(0, Event::Message(token, &answer), answered_ns);
            desk.handle(0, Event::Ended(token, End::Ok), answered_ns);
            let sample = desk.tally.hand_over(0);
            let [(Kind::Put, counted)] = &sample.kinds[..] else {
                panic!("puts only: {sample:?}");
            };
            let errors = counted.errors.get(TIMEOUT).map_or(0, |error| error.count);
            assert_eq!((counted.latency.count(), errors), expected, "{answered_ns}");
        };
        check(999, (1, 0));
        check(1_000, (0, 1));
        check(5_000, (0, 1));
    }

    /// Goal: a load waits until each watcher has seen every acknowledged put of its key; what never comes is an error,
    /// one for each watcher and put.
    #[test]
    fn waits_for_events() {
        let mut desk = desk();
        let token = watchers(&mut desk);
        assert!(!desk.awaits_events());
        // Keys in turn: watchers 0 and 2 have the first, watcher 1 the second.
        for revision in [2, 3, 4] {
            put(&mut desk, revision);
        }
        assert!(desk.awaits_events());
        assert_eq!(missing(&mut desk), 5);
        for (watcher, revision) in [(0, 2), (0, 4), (1, 3), (2, 4)] {
            event(&mut desk, token, watcher, revision);
        }
        // One lost in the middle is missing too.
        assert_eq!(missing(&mut desk), 1);
        event(&mut desk, token, 2, 5);
        assert!(!desk.awaits_events());
        assert_eq!(missing(&mut desk), 0);
        // With an event to spare, of a put whose answer was lost, the newest is missing all the same.
        put(&mut desk, 6);
        event(&mut desk, token, 1, 6);
        put(&mut desk, 7);
        event(&mut desk, token, 0, 7);
        assert_eq!(missing(&mut desk), 1);
        // Watchers that are gone are an error of their own, once.
        desk.handle(0, Event::Ended(token, End::Broken("gone".into())), 4);
        assert!(!desk.awaits_events());
    }
}
