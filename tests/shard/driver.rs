//! A driver of one shard with its log in memory: performs effects when told to, crashes when told to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use kontiki::base::limits::SLICE_STEPS_MAX;
use kontiki::base::planted::Planted;
use kontiki::base::{ClusterId, Incarnation, Index, Instant, MemberId, ShardId};
use kontiki::checkpoint::{Block, Reader, Source};
use kontiki::keyspace::request::{KeyRange, PutRequest, RangeRequest};
use kontiki::keyspace::steps::Steps;
use kontiki::raft::{Position, Windows};
use kontiki::shard::checkpoints::CheckpointLimits;
use kontiki::shard::event::{
    Answer, CheckpointEffect, ClientRequest, Effects, EndReason, Event, Identity, KnownMembers,
    LogEffect, Member, Notice, PeerMessage, Refusal, Request, Response, Ticket,
};
use kontiki::shard::members::MembershipRules;
use kontiki::shard::replay::{Piece, Replayed, Replayer};
use kontiki::shard::{Settings, Shard};
use kontiki::wal::{
    Appender, Cut, Geometry, LogIdentity, Outcome, PreparedSegment, Recovery, SegmentFile,
    SegmentSequence,
};

const CLUSTER: ClusterId = ClusterId(11);
const MEMBER: MemberId = MemberId(7);
pub(crate) const SEGMENT_SIZE_BYTES: u64 = 256 * 1024;
/// How long every request of these tests may take, on the driver's clock.
pub(crate) const PATIENCE: Duration = Duration::from_secs(7);

/// Files as a disk keeps them: what is synced survives a crash.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) segments: BTreeMap<SegmentSequence, Vec<u8>>,
    /// Whether there was a segment once.
    has_begun: bool,
    /// What is stored beside the log about directories.
    pub(crate) known: KnownMembers,
    /// Blocks of the checkpoints that have their name.
    pub(crate) checkpoints: BTreeMap<Index, Vec<Block>>,
    /// Which of them are said to come from other members.
    pub(crate) received: BTreeSet<Index>,
}

impl Disk {
    /// A bit of the page at `offset` in the first segment is another one.
    pub(crate) fn flip(&mut self, offset: usize) {
        let (_, bytes) = self.segments.iter_mut().next().expect("a segment");
        bytes[offset + 130] ^= 1;
    }

    fn cut(&mut self, cut: Cut) {
        let (kept, zeros) = match cut {
            Cut::At { segment, offset } => (segment, Some(offset)),
            Cut::From(segment) => (SegmentSequence(segment.0 - 1), None),
            Cut::Everything => (SegmentSequence(0), None),
        };
        self.segments.retain(|&segment, _| segment <= kept);
        if let Some(offset) = zeros {
            let end = Geometry::new(SEGMENT_SIZE_BYTES).commits_end() as usize;
            let bytes = self.segments.get_mut(&kept).expect("the damaged one");
            bytes[offset as usize..end].fill(0);
        }
    }
}

/// One shard, its disk and its clients.
pub(crate) struct Driver {
    pub(crate) shard: Shard,
    pub(crate) disk: Disk,
    pub(crate) now: Instant,
    pub(crate) settings: Settings,
    /// Whether the disk has room for further segments.
    pub(crate) space: bool,
    /// Whether the disk completes no writes of the log.
    pub(crate) disk_hangs: bool,
    /// Whether it prepares no segments.
    pub(crate) prepares_nothing: bool,
    /// How long each sync of the log takes.
    pub(crate) sync_takes: Duration,
    /// When the one under way is done.
    sync_ends: Option<Instant>,
    /// What the process is said to have allocated.
    pub(crate) memory_used_bytes: u64,
    pub(crate) answers: Vec<Answer>,
    /// What was said to other members and not delivered.
    pub(crate) messages: Vec<(MemberId, PeerMessage)>,
    /// What was said about checkpoints on their way.
    pub(crate) notices: Vec<Notice>,
    /// Whether it may say that it must not go on, and why it did. It hears and does nothing after that.
    pub(crate) may_end: bool,
    pub(crate) ended: Option<EndReason>,
    pub(crate) effects: Effects,
    /// What is left of the turn under way; without one each event is a turn.
    steps: Option<Steps>,
    /// The checkpoint that has no name yet; gone with a crash.
    pub(crate) unfinished: Vec<Block>,
    /// Whether the disk has room for checkpoints.
    pub(crate) checkpoint_space: bool,
    /// States that were handed out to be freed beside the shard.
    pub(crate) freed_states: u64,
    salt: u64,
    requests: u32,
}

pub(crate) fn settings() -> Settings {
    let member = Member {
        id: MEMBER,
        name: "m".into(),
        peer_urls: vec!["http://localhost:2380".into()],
        client_urls: vec!["http://localhost:2379".into()],
        is_learner: false,
    };
    Settings {
        shard: ShardId(0),
        identity: Identity {
            cluster: CLUSTER,
            member: MEMBER,
        },
        initial_members: vec![member.clone()],
        membership: MembershipRules::default(),
        member,
        incarnation: Incarnation(1),
        known: KnownMembers {
            confirmed: true,
            ..KnownMembers::default()
        },
        version: (3, 7),
        quota_bytes: None,
        memory_budget_bytes: u64::MAX,
        election_timeout: Duration::from_secs(1),
        heartbeat_interval: Duration::from_millis(100),
        pre_vote: true,
        windows: Windows::default(),
        recent_bytes_max: 0,
        checkpoints: CheckpointLimits::default(),
        seed: 1,
        planted: Planted::NOTHING,
    }
}

impl Driver {
    /// A member on this disk that serves.
    pub(crate) fn start(disk: Disk, settings: Settings) -> Driver {
        let mut driver = Driver::recover(disk, settings);
        driver.tick();
        driver.settle();
        assert!(
            driver.shard.is_serving(),
            "a lone voter with a working disk serves"
        );
        driver
    }

    /// A member on this disk before its first tick. A damaged log is cut, to be rebuilt.
    pub(crate) fn recover(mut disk: Disk, settings: Settings) -> Driver {
        let geometry = Geometry::new(SEGMENT_SIZE_BYTES);
        let identity = LogIdentity {
            cluster: CLUSTER,
            member: settings.identity.member,
            incarnation: settings.incarnation,
            shard: ShardId(0),
        };
        let file = |(&sequence, bytes): (&SegmentSequence, &Vec<u8>)| SegmentFile {
            sequence,
            size_bytes: bytes.len() as u64,
        };
        let files: Vec<SegmentFile> = disk.segments.iter().map(file).collect();
        let mut start = Index(0);
        let mut checkpoint = None;
        let mut replayer = Replayer::default();
        if let Some((&index, blocks)) = disk.checkpoints.last_key_value() {
            start = index;
            let mut reader = Reader::new(CLUSTER, ShardId(0));
            for block in blocks {
                reader.push(&block.bytes).expect("a block that was written");
            }
            let restored = reader.finish().expect("a checkpoint that has its name");
            assert_eq!(restored.origin.id().index, index);
            let source = match disk.received.contains(&index) {
                true => Source::Member,
                false => Source::Log,
            };
            let base = Replayed::from_checkpoint(restored, source).expect("rows of this build");
            let own = disk.checkpoints.keys().rev();
            let led_to = own.copied().find(|own| !disk.received.contains(own));
            checkpoint = base.recovers_after(led_to.unwrap_or_default());
            replayer = Replayer::after(base);
        }
        let mut recovery =
            Recovery::new(geometry, identity, start, &files).expect("the files are in order");
        if let Some(checkpoint) = checkpoint {
            recovery.after_checkpoint(checkpoint);
        }
        if disk.known.just_cut {
            recovery.was_cut();
        }
        if disk.has_begun {
            recovery.has_begun();
        }
        while let Some(sequence) = recovery.next_file() {
            let mut visit = |recovered: kontiki::wal::Replayed<'_>| {
                replayer.take(Piece::new(recovered)?);
                Ok(())
            };
            recovery
                .segment(&disk.segments[&sequence], &mut visit)
                .expect("the file is a segment");
        }
        while !replayer.run(&mut Steps::new(SLICE_STEPS_MAX)) {}
        let recovered = recovery.finish();
        if let Outcome::Corrupt(damage) = recovered.outcome {
            disk.known.note_loss(&recovered, Position::default());
            disk.cut(damage.cut());
            return Driver::recover(disk, settings);
        }
        assert_eq!(
            recovered.outcome,
            Outcome::Clean,
            "only whole commits were lost"
        );
        let replayed = replayer.finish(recovered.hard_state);
        let appender = Appender::resume(geometry, identity, recovered);
        Driver {
            shard: Shard::new(
                Settings {
                    known: match settings.initial_members.len() {
                        1 => settings.known.clone(),
                        _ => disk.known.clone(),
                    },
                    ..settings.clone()
                },
                appender,
                replayed,
            ),
            salt: disk.salts(),
            unfinished: Vec::new(),
            checkpoint_space: true,
            freed_states: 0,
            disk,
            now: Instant::default(),
            settings,
            space: true,
            disk_hangs: false,
            prepares_nothing: false,
            sync_takes: Duration::ZERO,
            sync_ends: None,
            memory_used_bytes: 0,
            answers: Vec::new(),
            messages: Vec::new(),
            notices: Vec::new(),
            may_end: false,
            ended: None,
            effects: Effects::default(),
            steps: None,
            requests: 0,
        }
    }

    /// Kill and restart: what was handed to the log and not synced is gone.
    pub(crate) fn crash(self) -> Driver {
        Driver::start(self.disk, self.settings)
    }

    /// Hands in requests without performing what follows. Returns their numbers.
    pub(crate) fn ask(&mut self, requests: Vec<Request>) -> Vec<u32> {
        let mut numbers = Vec::new();
        let mut batch = Vec::new();
        for request in requests {
            self.requests += 1;
            numbers.push(self.requests);
            let ticket = Ticket {
                core: 0,
                connection: 0,
                generation: 0,
                request: self.requests,
            };
            batch.push(ClientRequest {
                ticket,
                deadline: self.now + PATIENCE,
                request,
            });
        }
        self.hand_in(Event::Requests(&mut batch));
        numbers
    }

    pub(crate) fn tick(&mut self) {
        let memory_used_bytes = self.memory_used_bytes;
        self.hand_in(Event::Tick { memory_used_bytes });
    }

    pub(crate) fn hand_in(&mut self, event: Event<'_>) {
        if self.ended.is_some() {
            return;
        }
        let mut whole = Steps::new(SLICE_STEPS_MAX);
        let steps = self.steps.as_mut().unwrap_or(&mut whole);
        self.shard.handle(event, self.now, steps, &mut self.effects);
        self.answers.append(&mut self.effects.answers);
        self.messages.append(&mut self.effects.messages);
        self.notices.append(&mut self.effects.notices);
        self.ended = self.effects.end.take();
        assert!(self.may_end || self.ended.is_none(), "{:?}", self.ended);
    }

    /// All events that are handed in until its end share a turn.
    pub(crate) fn begin_turn(&mut self) {
        self.steps = Some(Steps::new(SLICE_STEPS_MAX));
    }

    pub(crate) fn end_turn(&mut self) {
        self.steps = None;
    }

    /// Performs the oldest effect on a checkpoint and reports it. False when there is none.
    pub(crate) fn perform_checkpoint(&mut self) -> bool {
        if self.effects.checkpoint.is_empty() {
            return false;
        }
        match self.effects.checkpoint.remove(0) {
            CheckpointEffect::Begin(_) => self.unfinished.clear(),
            CheckpointEffect::Block(_) if !self.checkpoint_space => {
                self.effects.checkpoint.clear();
                self.hand_in(Event::CheckpointFailed);
            }
            CheckpointEffect::Block(block) => {
                self.unfinished.push(block);
                self.hand_in(Event::CheckpointBlock);
            }
            CheckpointEffect::Finish(id, source) => {
                let blocks = std::mem::take(&mut self.unfinished);
                match source {
                    Source::Member => self.disk.received.insert(id.index),
                    Source::Log => self.disk.received.remove(&id.index),
                };
                self.disk.checkpoints.insert(id.index, blocks);
                self.hand_in(Event::CheckpointDurable(id));
            }
            CheckpointEffect::Settle(id) => {
                assert!(self.disk.received.remove(&id.index), "it was received");
            }
            CheckpointEffect::RemoveBefore(index) => {
                self.disk.checkpoints.retain(|&of, _| of >= index);
            }
            CheckpointEffect::Read(read) => {
                let blocks = self.disk.checkpoints.get(&read.id.index);
                let blocks = blocks.map_or(&[][..], Vec::as_slice).iter();
                let wanted = blocks
                    .skip(read.first_block as usize)
                    .take(read.block_count as usize);
                let bytes: Vec<u8> = wanted.flat_map(|block| block.bytes.to_vec()).collect();
                self.hand_in(Event::CheckpointRead {
                    read,
                    bytes: bytes.into(),
                });
            }
            CheckpointEffect::Free(_) => self.freed_states += 1,
        }
        true
    }

    /// Performs the oldest effect on the log and reports it. False when there is none.
    pub(crate) fn perform_one(&mut self) -> bool {
        if let Some(known) = self.effects.known_members.take() {
            self.disk.known = known.clone();
            self.hand_in(Event::KnownMembersStored(known));
            return true;
        }
        if let Some(read) = self.effects.log_reads.pop() {
            let file = self.disk.segments.get(&read.location.segment);
            let file = file.map_or(&[][..], Vec::as_slice);
            let from = usize::try_from(read.location.offset).expect("small");
            let size = usize::try_from(read.size_bytes).expect("small");
            let bytes = file[from.min(file.len())..file.len().min(from + size)].to_vec();
            self.hand_in(Event::LogRead { read, bytes });
            return true;
        }
        if self.effects.log.is_empty() || self.disk_hangs {
            return false;
        }
        let waits = |effect: &LogEffect| {
            self.prepares_nothing && matches!(effect, LogEffect::PrepareSegment(_))
        };
        let Some(next) = self.effects.log.iter().position(|effect| !waits(effect)) else {
            return false;
        };
        if matches!(
            self.effects.log[next],
            LogEffect::Commit(_) | LogEffect::OpenSegment(_)
        ) {
            let takes = self.sync_takes;
            let ends = *self.sync_ends.get_or_insert(self.now + takes);
            if self.now < ends {
                return false;
            }
            self.sync_ends = None;
        }
        match self.effects.log.remove(next) {
            LogEffect::Commit(commit) => {
                self.disk
                    .write(commit.segment, commit.offset, commit.bytes());
                self.hand_in(Event::CommitDurable(commit));
            }
            LogEffect::OpenSegment(opening) => {
                for offset in opening.offsets {
                    self.disk.write(opening.sequence, offset, opening.page());
                }
                self.hand_in(Event::SegmentOpened(opening));
            }
            LogEffect::PrepareSegment(sequence) if self.space => {
                let size = usize::try_from(SEGMENT_SIZE_BYTES).expect("small");
                self.disk
                    .segments
                    .entry(sequence)
                    .or_insert_with(|| vec![0; size]);
                self.disk.has_begun = true;
                self.salt += 1;
                let salt = 0x5a17_0000 + self.salt;
                self.hand_in(Event::SegmentPrepared(PreparedSegment { sequence, salt }));
            }
            LogEffect::Recycle(sequence) => {
                let first = self.disk.segments.pop_first();
                assert_eq!(first.map(|(oldest, _)| oldest), Some(sequence));
            }
            refused @ LogEffect::PrepareSegment(_) => {
                self.hand_in(Event::SegmentRefused);
                self.effects.log.push(refused);
                return self.effects.log.len() > 1;
            }
        }
        true
    }

    /// Performs and continues until nothing is left to do.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut idle = true;
            while self.perform_one() || self.perform_checkpoint() {
                idle = false;
            }
            if self.shard.has_work() {
                self.hand_in(Event::Continue);
                idle = false;
            }
            if idle || self.ended.is_some() {
                return;
            }
        }
    }

    /// Asks, performs everything and returns the answer.
    pub(crate) fn call(&mut self, request: Request) -> (i64, Result<Response, Refusal>) {
        let number = self.ask(vec![request])[0];
        self.settle();
        self.take(number)
            .expect("everything is answered when nothing is left to do")
    }

    /// The answer to a request, if it has come: the header's revision and the result.
    pub(crate) fn take(&mut self, number: u32) -> Option<(i64, Result<Response, Refusal>)> {
        let at = self
            .answers
            .iter()
            .position(|answer| answer.ticket.request == number)?;
        let answer = self.answers.remove(at);
        Some((answer.header.revision, answer.result))
    }

    /// Every key and value, read at the committed revision.
    pub(crate) fn contents(&mut self) -> BTreeMap<Bytes, Bytes> {
        match self.call(Request::Range(RangeRequest {
            range: everything(),
            ..Default::default()
        })) {
            (_, Ok(Response::Range(range))) => {
                range.kvs.into_iter().map(|kv| (kv.key, kv.value)).collect()
            }
            other => panic!("not the answer to a range: {other:?}"),
        }
    }
}

impl Disk {
    /// Bytes of the log's files.
    pub(crate) fn log_size_bytes(&self) -> u64 {
        self.segments.len() as u64 * SEGMENT_SIZE_BYTES
    }

    /// Higher than any salt that was used.
    fn salts(&self) -> u64 {
        self.segments.last_key_value().map_or(0, |(last, _)| last.0)
    }

    fn write(&mut self, segment: SegmentSequence, offset: u64, bytes: &[u8]) {
        let file = self
            .segments
            .get_mut(&segment)
            .expect("a segment is prepared before it is written");
        let offset = usize::try_from(offset).expect("small");
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}

pub(crate) fn everything() -> KeyRange {
    KeyRange {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
    }
}

pub(crate) fn put(key: &str, value: impl Into<Bytes>) -> Request {
    let key = Bytes::copy_from_slice(key.as_bytes());
    Request::Put(PutRequest {
        key,
        value: value.into(),
        ..PutRequest::default()
    })
}
