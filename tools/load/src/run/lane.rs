//! One thread of a run: its connections, its calls, and the loop that drives them.
//!
//! A turn waits for sockets, handles all that arrived, starts what is due, and sends once on each connection.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;

use crate::measure::Sample;
use crate::shape::{Schedule, Shape};
use crate::wire::{Event, Method, READ_BYTES, Started};
use crate::workload::{Asked, Author, Kind, WorkloadSpec};

use super::desk::{Desk, SECOND_NS, Window};
use super::echo::Echo;
use super::edges::Edges;
use super::link::{Link, Place};
use super::pulse::Pulse;
use super::record::Scribe;

/// Sockets handled in one turn.
const EVENTS_MAX: usize = 256;
/// Time between two looks at deadlines, lost connections and the switch that ends a run.
const TICK_NS: u64 = 10_000_000;
/// Operations that an open loop starts or gives up in one turn; then it looks at sockets and at the switch that ends
/// a run, however many are due.
const STARTS_MAX: usize = 4096;
/// Puts of a fill in flight on one connection.
const FILL_IN_FLIGHT: usize = 32;

/// What a thread is told at its start.
#[derive(Clone, Debug)]
pub(super) struct LanePlan {
    pub(super) lane: usize,
    pub(super) lanes: usize,
    /// One for each connection.
    pub(super) places: Vec<Place>,
    pub(super) workload: WorkloadSpec,
    pub(super) shape: Shape,
    /// Operations this thread starts at most.
    pub(super) operations_max: u64,
    /// Patience with one operation.
    pub(super) timeout: Duration,
    /// Patience with a server that nobody can connect to.
    pub(super) patience: Duration,
    /// The zero of all times of the run.
    pub(super) epoch: Instant,
    /// Told of every success of the load.
    pub(super) pulse: Option<Arc<Pulse>>,
    /// Told where the measured part of an open loop begins and ends.
    pub(super) edges: Arc<Edges>,
    /// What the watchers of all threads are to see.
    pub(super) echo: Arc<Echo>,
}

/// What a thread says.
#[derive(Debug)]
pub(super) enum Note {
    /// A phase is complete: connected and watching, or filled.
    Ready,
    /// A second's counts.
    Sample(Sample),
    /// All connections are lost, and stay lost. Nothing follows but `Finished`.
    Lost(String),
    /// It could not begin, for this reason. Nothing follows.
    Failed(String),
    /// It has ended.
    Finished(Ending),
}

/// How a thread ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Ending {
    /// Successful operations of all time, those before the measured part included.
    pub(super) succeeded: u64,
    /// When the last one succeeded.
    pub(super) last_success_ns: u64,
    /// Why connections are down at the end.
    pub(super) down: Vec<String>,
}

/// One thread.
pub(super) struct Lane {
    plan: LanePlan,
    poller: OwnedFd,
    links: Vec<Link>,
    desk: Desk,
    /// Connections with something to do in this turn.
    touched: Vec<usize>,
    next_link: usize,
    next_tick_ns: u64,
    /// No operation of the load starts before.
    begin_ns: u64,
    /// Open loop: nothing of the warm-up waits to be sent.
    caught_up: bool,
    /// The others know that every operation of this thread has an end.
    told_end: bool,
    /// Every key of this thread's part of the fill is on its way.
    filled: bool,
    second: u32,
    request: Vec<u8>,
    buffer: Vec<u8>,
    events: Vec<epoll::Event>,
}

impl Drop for Lane {
    /// However a thread ends, no other one waits for it.
    fn drop(&mut self) {
        self.tell_end();
    }
}

/// What a thread does until it ends.
enum Phase {
    Connect,
    Fill,
    Watch,
    Load(Option<Schedule>),
}

impl Lane {
    /// # Errors
    /// When the system has no descriptors left.
    pub(super) fn new(plan: LanePlan, scribe: Option<Scribe>) -> io::Result<Lane> {
        let in_flight = match plan.shape {
            Shape::Closed { in_flight } => share(in_flight, plan.lane, plan.lanes),
            Shape::Open { .. } => 0,
        };
        let count = plan.places.len();
        let place = |(number, place): (usize, &Place)| {
            Link::new(number, place.clone(), share(in_flight, number, count))
        };
        let links: Vec<Link> = plan.places.iter().enumerate().map(place).collect();
        let author = Author::new(&plan.workload, plan.lane as u64, plan.lanes as u64);
        let mut desk = Desk::new(author, links.len(), Arc::clone(&plan.echo), scribe);
        desk.pulse.clone_from(&plan.pulse);
        Ok(Lane {
            poller: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            desk,
            touched: (0..links.len()).collect(),
            links,
            plan,
            next_link: 0,
            next_tick_ns: 0,
            begin_ns: 0,
            caught_up: false,
            told_end: false,
            filled: false,
            second: 0,
            request: Vec::new(),
            buffer: vec![0; READ_BYTES],
            events: Vec::with_capacity(EVENTS_MAX),
        })
    }

    fn now_ns(&self) -> u64 {
        self.plan.epoch.elapsed().as_nanos() as u64
    }

    /// Connects, and opens what the load needs.
    pub(super) fn prepare(&mut self, time_max: Duration, stop: &AtomicBool) -> Result<(), String> {
        self.drive_until(Phase::Connect, time_max, stop, |lane| {
            lane.links.iter().all(Link::is_up)
        })?;
        if self.plan.workload.fill {
            self.desk.filling = true;
            let filled = |lane: &Lane| lane.filled && lane.desk.open_count == 0;
            let outcome = self.drive_until(Phase::Fill, Duration::MAX, stop, filled);
            self.desk.filling = false;
            outcome.map_err(|why| format!("while the keys are filled: {why}"))?;
        }
        if self.plan.workload.watchers > 0 {
            for link in 0..self.links.len() {
                self.open_watches(link);
            }
            self.drive_until(Phase::Watch, time_max, stop, |lane| lane.desk.all_watch())
                .map_err(|why| format!("while the watchers are made: {why}"))?;
        }
        Ok(())
    }

    /// Goes on with `phase` until `done` says so.
    fn drive_until(
        &mut self,
        mut phase: Phase,
        time_max: Duration,
        stop: &AtomicBool,
        done: impl Fn(&Lane) -> bool,
    ) -> Result<(), String> {
        let begin_ns = self.now_ns();
        self.touched = (0..self.links.len()).collect();
        loop {
            self.turn(&mut phase, u64::MAX)
                .map_err(|error| error.to_string())?;
            if done(self) {
                return Ok(());
            }
            if let Some(why) = self.desk.fill_failure.take() {
                return Err(why);
            }
            if stop.load(Ordering::Relaxed) {
                return Err("interrupted".into());
            }
            let now_ns = self.now_ns();
            let patience = match phase {
                Phase::Fill => self.lost(now_ns),
                _ => u128::from(now_ns - begin_ns) > time_max.as_nanos(),
            };
            let refused = self.links.iter().find_map(|link| match &link.down {
                // A refusal at the very beginning is final: nobody waits for a server that is not there.
                Some((0, why)) if why.starts_with(&link.place.endpoint.to_string()) => {
                    Some(why.clone())
                }
                _ => None,
            });
            if let Some(why) = refused.filter(|_| matches!(phase, Phase::Connect)) {
                return Err(why);
            }
            if patience {
                return Err(self
                    .why_down()
                    .unwrap_or_else(|| "no answer in time".into()));
            }
        }
    }

    /// Puts load on the servers in `window`, from `begin_ns` on, and tells `notes` each second.
    pub(super) fn load(
        &mut self,
        begin_ns: u64,
        window: Window,
        stop: &AtomicBool,
        notes: &SyncSender<Note>,
    ) -> Ending {
        self.desk.window = window;
        self.begin_ns = begin_ns;
        self.touched = (0..self.links.len()).collect();
        let schedule = match self.plan.shape {
            Shape::Closed { .. } => None,
            Shape::Open { rate, poisson, .. } => {
                let (lane, lanes) = (self.plan.lane as u64, self.plan.lanes as u64);
                Some(Schedule::new(rate, poisson, lane, lanes, begin_ns))
            }
        };
        let mut phase = Phase::Load(schedule);
        let mut until_ns = window.until_ns;
        let timeout_ns = self.plan.timeout.as_nanos() as u64;
        // When the last operation of all threads had an end, and watchers have seen nothing more to come since.
        let mut complete_ns = None;
        if let Some(pulse) = &self.plan.pulse {
            pulse.end(window.until_ns);
        }
        self.desk.begin_load();
        loop {
            if let Err(error) = self.turn(&mut phase, until_ns) {
                // The poller itself failed: nothing can go on.
                let _ = notes.send(Note::Lost(error.to_string()));
                break;
            }
            if self.desk.last_counted_ns > 0 {
                self.plan.edges.done(self.desk.last_counted_ns);
            }
            let now_ns = self.now_ns();
            let second = window.second(now_ns);
            if second > self.second {
                // Nobody listens only after the main thread has given up.
                let _ = notes.send(Note::Sample(self.desk.tally.hand_over(self.second)));
                self.second = second;
            }
            if stop.load(Ordering::Relaxed) {
                // Nothing more is started, what is due and waits included.
                until_ns = 0;
                if let Some(pulse) = &self.plan.pulse {
                    pulse.end(now_ns);
                }
            }
            if self.lost(now_ns) {
                let why = self.why_down().unwrap_or_default();
                let _ = notes.send(Note::Lost(why));
                break;
            }
            let all_started = match &phase {
                // The measured part is as long as asked for, also if nothing is to start at its end.
                Phase::Load(Some(schedule)) => schedule.next_ns().min(now_ns) >= until_ns,
                _ => now_ns >= until_ns,
            };
            // Every call has an end: its answer, or its timeout.
            let all_ended =
                (all_started || self.plan.operations_max == 0) && self.desk.open_count == 0;
            // Leases end by time, also after the last operation.
            let patient = now_ns < until_ns.saturating_add(timeout_ns);
            if !all_ended || (patient && self.desk.awaits_ends()) {
                continue;
            }
            self.tell_end();
            if stop.load(Ordering::Relaxed) || self.plan.workload.watchers == 0 {
                break;
            }
            if !self.plan.echo.is_complete() {
                continue;
            }
            // Events come after the answers, the slowest last of all.
            let complete_ns = *complete_ns.get_or_insert(now_ns);
            if !self.desk.awaits_events() {
                break;
            }
            if now_ns.saturating_sub(complete_ns) > timeout_ns {
                self.desk.miss_events();
                break;
            }
        }
        self.desk.give_up(self.now_ns());
        let _ = notes.send(Note::Sample(self.desk.tally.hand_over(self.second)));
        Ending {
            succeeded: self.desk.succeeded,
            last_success_ns: self.desk.last_success_ns,
            down: self
                .links
                .iter()
                .filter_map(|link| link.down.clone())
                .map(|(_, why)| why)
                .collect(),
        }
    }

    /// The other threads need not wait for acknowledgements of this one.
    fn tell_end(&mut self) {
        if !std::mem::replace(&mut self.told_end, true) {
            self.plan.echo.all_ended();
        }
    }

    /// One turn.
    fn turn(&mut self, phase: &mut Phase, until_ns: u64) -> io::Result<()> {
        let now_ns = self.now_ns();
        if now_ns >= self.next_tick_ns {
            self.tick(now_ns);
        }
        let next_ns = self.start(phase, now_ns, until_ns);
        if let Phase::Load(Some(schedule)) = phase {
            let from_ns = self.desk.window.from_ns;
            if !self.caught_up && schedule.next_ns() >= from_ns {
                self.caught_up = true;
                self.plan.edges.begin(now_ns.max(from_ns));
            }
        }
        self.flush();
        let wait_ns = next_ns.min(self.next_tick_ns).saturating_sub(self.now_ns());
        let timeout = Timespec {
            tv_sec: (wait_ns / SECOND_NS) as i64,
            tv_nsec: (wait_ns % SECOND_NS) as i64,
        };
        self.events.clear();
        let spare = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.poller, spare, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.touched.clear();
        for place in 0..self.events.len() {
            let number = self.events[place].data.u64() as usize;
            let epoch = self.plan.epoch;
            let desk = &mut self.desk;
            let clock = move || epoch.elapsed().as_nanos() as u64;
            let mut sink = |event: Event<'_>, at_ns| desk.handle(number, event, at_ns);
            self.links[number].ready(&self.poller, &clock, &mut self.buffer, &mut sink);
            self.touched.push(number);
        }
        Ok(())
    }

    fn tick(&mut self, now_ns: u64) {
        self.next_tick_ns = now_ns + TICK_NS;
        for link in &mut self.links {
            link.revive(&self.poller, now_ns);
        }
        let links = &mut self.links;
        let mut cancel = |link: usize, stream| links[link].connection.cancel(stream);
        self.desk
            .expire(now_ns, self.plan.timeout.as_millis(), &mut cancel);
        let links = &self.links;
        for link in self.desk.take_lost_watches(|link| links[link].is_up()) {
            self.open_watches(link);
        }
        self.touched = (0..self.links.len()).collect();
    }

    /// Starts what is due, and says when the next is.
    fn start(&mut self, phase: &mut Phase, now_ns: u64, until_ns: u64) -> u64 {
        match phase {
            Phase::Connect | Phase::Watch => u64::MAX,
            Phase::Fill => {
                self.start_fill(now_ns);
                u64::MAX
            }
            Phase::Load(_) if now_ns < self.begin_ns => {
                // Nothing has arrived, but all is to start.
                self.next_tick_ns = self.begin_ns;
                self.begin_ns
            }
            Phase::Load(None) => {
                if now_ns < until_ns {
                    self.start_closed();
                    return until_ns;
                }
                u64::MAX
            }
            Phase::Load(Some(schedule)) => self.start_open(schedule, now_ns, until_ns),
        }
    }

    fn start_fill(&mut self, now_ns: u64) {
        for place in 0..self.touched.len() {
            let number = self.touched[place];
            while self.desk.busy[number] < FILL_IN_FLIGHT && self.can_start(number) {
                let Some(asked) = self.desk.author.fill(&mut self.request) else {
                    self.filled = true;
                    return;
                };
                self.submit(number, asked, now_ns, now_ns);
            }
        }
    }

    fn start_closed(&mut self) {
        for place in 0..self.touched.len() {
            let number = self.touched[place];
            while self.desk.busy[number] < self.links[number].quota
                && self.plan.operations_max > 0
                && self.can_start(number)
            {
                let start_ns = self.now_ns();
                self.begin(number, start_ns, start_ns);
            }
        }
    }

    fn start_open(&mut self, schedule: &mut Schedule, now_ns: u64, until_ns: u64) -> u64 {
        let Shape::Open { in_flight_max, .. } = self.plan.shape else {
            return u64::MAX;
        };
        let in_flight_max = share(in_flight_max, self.plan.lane, self.plan.lanes);
        for _ in 0..STARTS_MAX {
            let start_ns = schedule.next_ns();
            if start_ns >= until_ns || self.plan.operations_max == 0 {
                return until_ns.max(now_ns + TICK_NS);
            }
            if start_ns > now_ns {
                return start_ns;
            }
            if now_ns - start_ns > self.plan.timeout.as_nanos() as u64 {
                // Patience ended before it began.
                self.plan.operations_max -= 1;
                let kind = self.desk.author.unsent();
                self.desk
                    .never_sent(kind, start_ns, "the servers were too slow to take it");
                schedule.advance();
                continue;
            }
            if self.desk.open_count >= in_flight_max {
                return u64::MAX;
            }
            let free = (0..self.links.len())
                .map(|step| (self.next_link + step) % self.links.len())
                .find(|number| self.can_start(*number));
            let Some(number) = free else {
                return u64::MAX;
            };
            self.next_link = number + 1;
            self.begin(number, start_ns, now_ns);
            self.touched.push(number);
            schedule.advance();
        }
        // More is due: at once, after a look at the rest.
        now_ns
    }

    fn can_start(&self, number: usize) -> bool {
        let link = &self.links[number];
        link.is_up() && link.connection.takes_calls()
    }

    /// Starts the next operation on a connection, which was to start at `start_ns`.
    fn begin(&mut self, number: usize, start_ns: u64, now_ns: u64) {
        self.plan.operations_max -= 1;
        let asked = self.desk.author.next(start_ns, &mut self.request);
        self.submit(number, asked, start_ns, now_ns);
    }

    /// Patience begins with the sending: in a queue of operations that are late, each would be sent with none left, and
    /// none would succeed however many the servers can do. Latency counts from `start_ns` all the same.
    fn submit(&mut self, number: usize, asked: Asked, start_ns: u64, now_ns: u64) {
        let expires_ns = now_ns.saturating_add(self.plan.timeout.as_nanos() as u64);
        let token = self
            .desk
            .open(asked, &self.request, number, start_ns, expires_ns);
        let connection = &mut self.links[number].connection;
        if asked.kind == Kind::Renew {
            let renewals = &mut self.desk.renewals[number];
            match renewals.stream {
                Some(stream) => connection.send(stream, &self.request),
                None => {
                    let token = Desk::renewal_token(number);
                    if let Started::On(stream) =
                        connection.start(asked.method, &self.request, false, token)
                    {
                        renewals.stream = Some(stream);
                    }
                }
            }
            self.desk.renewal_sent(number, token);
        } else if let Started::On(stream) =
            connection.start(asked.method, &self.request, true, token)
        {
            self.desk.sent(token, stream);
        }
    }

    /// Sends what waits on the connections that were touched.
    fn flush(&mut self) {
        for place in 0..self.touched.len() {
            let number = self.touched[place];
            let epoch = self.plan.epoch;
            let desk = &mut self.desk;
            // Only a send that fails reads the clock.
            let clock = move || epoch.elapsed().as_nanos() as u64;
            let mut sink = |event: Event<'_>, at_ns| desk.handle(number, event, at_ns);
            self.links[number].flush(&self.poller, &clock, &mut sink);
        }
    }

    /// Makes the watchers of one connection.
    fn open_watches(&mut self, number: usize) {
        let spec = &self.plan.workload;
        let links = self.links.len();
        let (lane, lanes) = (self.plan.lane, self.plan.lanes);
        let own = share(share(spec.watchers as usize, lane, lanes), number, links);
        let streams = (spec.watch_streams as usize).clamp(1, own.max(1));
        // Watchers of all connections take the watched keys in turn.
        let mut next = number + lane * links;
        for stream in 0..streams {
            let wanted = share(own, stream, streams);
            if wanted == 0 {
                continue;
            }
            let token = self.desk.open_watch(number, wanted);
            let connection = &mut self.links[number].connection;
            let mut on = None;
            for _ in 0..wanted {
                self.request.clear();
                self.desk.author.watch(next as u64, &mut self.request);
                self.desk.watch_asked(token, next as u64, &self.request);
                next += links * lanes;
                match on {
                    Some(stream) => connection.send(stream, &self.request),
                    None => match connection.start(Method::Watch, &self.request, false, token) {
                        Started::On(stream) => on = Some(stream),
                        Started::Later => break,
                    },
                }
            }
        }
        self.touched.push(number);
    }

    /// Whether no connection is up, and has not been for longer than there is patience.
    fn lost(&self, now_ns: u64) -> bool {
        let patience_ns = self.plan.patience.as_nanos() as u64;
        self.links.iter().all(|link| {
            link.down
                .as_ref()
                .is_some_and(|(since_ns, _)| now_ns.saturating_sub(*since_ns) > patience_ns)
        })
    }

    fn why_down(&self) -> Option<String> {
        self.links
            .iter()
            .find_map(|link| link.down.as_ref())
            .map(|(_, why)| why.clone())
    }
}

/// The part of `whole` that falls to number `part` of `parts`, as even as can be.
pub(super) fn share(whole: usize, part: usize, parts: usize) -> usize {
    whole / parts + usize::from(part < whole % parts)
}
