//! Consensus alone: what one entry costs to propose, replicate and commit among three members in memory,
//! beside the crate `raft` (TiKV's) doing the same.
//!
//! `cargo bench -p kontiki-raft-bench` prints nanoseconds per entry for several batch sizes; without `--bench`, or with
//! `--test`, it runs small, as a test. The two are interleaved, and each figure is the median of the
//! repetitions. Messages are handed over as values, and a sync is complete at once. The crate runs twice: with its
//! default, a message to each follower for each proposal, and with `batch_append`, which puts proposals together.
//!
//! On both sides every member holds the bytes of its entries, and they travel with the messages. The crate
//! does that itself: its entries are messages of their own, with their bytes in a vector each. Kontiki's
//! core names ranges of the log and the caller attaches the bytes, so here a member has a log of
//! reference-counted records beside its core, as a shard has.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use kontiki::base::{HardState, Incarnation, Index, Instant, MemberId, Term};
use kontiki::raft::{Body, Config, LogTerms, Membership, Message, Output, Raft, Role, Windows};
use kontiki::runtime::clock::Clock;
use raft::eraftpb;
use raft::storage::MemStorage;
use raft::{RawNode, StateRole};

const MEMBERS: u64 = 3;
const BATCHES: [u64; 4] = [1, 16, 256, 1_024];
/// The bytes of one entry.
const ENTRY: [u8; 256] = [7; 256];
const ENTRY_SIZE_BYTES: u64 = ENTRY.len() as u64;
/// Entries after which both logs are shortened, so that memory stays the same.
const KEPT: u64 = 8_192;

/// How much is measured.
#[derive(Clone, Copy)]
struct Scale {
    repetitions: usize,
    entries: u64,
}

const FULL: Scale = Scale {
    repetitions: 9,
    entries: 262_144,
};
const SMALL: Scale = Scale {
    repetitions: 1,
    entries: 4_096,
};

/// Three members of one of the two kinds, with a leader.
trait Group {
    /// Elects the first member.
    fn elected() -> Self;
    /// Proposes `count` entries and works until all members know that they are committed.
    fn commit(&mut self, count: u64);
    /// What every member has committed.
    fn committed(&self) -> u64;
}

struct Ours {
    members: Vec<Raft>,
    /// The records of each member, the oldest kept in front.
    logs: Vec<Records>,
    network: VecDeque<(usize, usize, Message, Vec<Bytes>)>,
    outputs: Vec<Output>,
    now: Instant,
}

/// A log in memory.
#[derive(Default)]
struct Records {
    /// Entries up to here were let go.
    released: Index,
    kept: VecDeque<Bytes>,
}

impl Records {
    /// The records after `prev`, as many as are asked for.
    fn after(&self, prev: Index, count: u64) -> Vec<Bytes> {
        let size = |count| usize::try_from(count).expect("a batch fits in memory");
        let first = size(prev.0 - self.released.0);
        self.kept
            .range(first..first + size(count))
            .cloned()
            .collect()
    }

    fn release(&mut self, through: Index) {
        while self.released < through {
            self.kept.pop_front().expect("entries that are kept");
            self.released = self.released.next();
        }
    }
}

impl Ours {
    fn member(id: u64) -> Raft {
        let ids = (1..=MEMBERS).map(MemberId);
        let config = Config {
            id: MemberId(id),
            incarnation: Incarnation(id.into()),
            confirmed: true,
            incarnations: ids
                .clone()
                .map(|id| (id, Incarnation(id.0.into())))
                .collect::<BTreeMap<_, _>>(),
            memberships: vec![(Index(0), Membership::of_voters(ids))],
            rebuild: None,
            vote_floor: Term(0),
            election_timeout: Duration::from_secs(1),
            heartbeat_interval: Duration::from_millis(100),
            windows: Windows::default(),
            pre_vote: true,
            check_quorum: true,
            seed: id,
        };
        Raft::new(config, HardState::default(), LogTerms::default(), Index(0))
    }

    /// The leader takes an entry.
    fn append(&mut self) {
        self.members[0].append(ENTRY_SIZE_BYTES);
        self.logs[0].kept.push_back(Bytes::copy_from_slice(&ENTRY));
    }

    /// Does what a member asked for; its disk is done at once. `records` came with the message.
    fn perform(&mut self, at: usize, mut records: Vec<Bytes>) {
        let mut written = false;
        while !self.outputs.is_empty() {
            let mut further = Vec::new();
            for output in std::mem::take(&mut self.outputs) {
                match output {
                    Output::Send { to, message } => {
                        let to = usize::try_from(to.0 - 1).expect("three members");
                        let records = match &message.body {
                            Body::Append(append) => {
                                self.logs[at].after(append.prev.index, append.entries.count())
                            }
                            _ => Vec::new(),
                        };
                        self.network.push_back((at, to, message, records));
                    }
                    Output::PersistHardState(state) => {
                        self.members[at].hard_state_durable(state, &mut further);
                    }
                    Output::BecameLeader { .. } => {
                        assert_eq!(at, 0, "the first member is elected");
                        self.append();
                        written = true;
                    }
                    Output::AppendEntries { first, last } => {
                        assert_eq!(
                            last.0 + 1 - first.0,
                            records.len() as u64,
                            "nothing is lost"
                        );
                        self.logs[at].kept.extend(records.drain(..));
                        written = true;
                    }
                    _ => {}
                }
            }
            if written {
                written = false;
                let last = self.members[at].last_index();
                self.members[at].log_durable(last, &mut further);
            }
            self.members[at].flush(self.now, &mut further);
            self.outputs = further;
        }
    }

    fn settle(&mut self) {
        while let Some((from, to, message, records)) = self.network.pop_front() {
            let from = self.members[from].id();
            self.members[to].step(from, message, self.now, &mut self.outputs);
            self.perform(to, records);
        }
    }
}

impl Group for Ours {
    fn elected() -> Ours {
        let mut group = Ours {
            members: (1..=MEMBERS).map(Ours::member).collect(),
            logs: (1..=MEMBERS).map(|_| Records::default()).collect(),
            network: VecDeque::new(),
            outputs: Vec::new(),
            now: Instant(0),
        };
        while group.members[0].role() != Role::Leader {
            group.now = group.now + Duration::from_secs(1);
            group.members[0].tick(group.now, &mut group.outputs);
            group.perform(0, Vec::new());
            group.settle();
        }
        group
    }

    fn commit(&mut self, count: u64) {
        for _ in 0..count {
            self.append();
        }
        // What is sent leaves before the leader's own sync.
        self.members[0].flush(self.now, &mut self.outputs);
        self.perform(0, Vec::new());
        let last = self.members[0].last_index();
        self.members[0].log_durable(last, &mut self.outputs);
        self.perform(0, Vec::new());
        self.settle();
        for (member, log) in self.members.iter_mut().zip(&mut self.logs) {
            let commit = member.commit();
            if commit.0 - member.log().base().index.0 > KEPT {
                member.log_released(commit);
                log.release(commit);
            }
        }
    }

    fn committed(&self) -> u64 {
        self.members
            .iter()
            .map(|member| member.commit().0)
            .min()
            .expect("three members")
    }
}

struct Theirs<const BATCH_APPEND: bool> {
    nodes: Vec<RawNode<MemStorage>>,
    network: VecDeque<eraftpb::Message>,
}

impl<const BATCH_APPEND: bool> Theirs<BATCH_APPEND> {
    fn ready(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        while node.has_ready() {
            let mut ready = node.ready();
            self.network.extend(ready.take_messages());
            let storage = node.raft.raft_log.store.clone();
            storage
                .wl()
                .append(ready.entries())
                .expect("entries in order");
            if let Some(state) = ready.hs() {
                storage.wl().set_hardstate(state.clone());
            }
            self.network.extend(ready.take_persisted_messages());
            let mut light = node.advance(ready);
            if let Some(commit) = light.commit_index() {
                storage.wl().mut_hard_state().commit = commit;
            }
            self.network.extend(light.take_messages());
            node.advance_apply();
        }
    }

    fn settle(&mut self) {
        while let Some(message) = self.network.pop_front() {
            let at = usize::try_from(message.to - 1).expect("three members");
            self.nodes[at].step(message).expect("a message of a member");
            self.ready(at);
        }
    }
}

impl<const BATCH_APPEND: bool> Group for Theirs<BATCH_APPEND> {
    fn elected() -> Self {
        let logger = raft_logger();
        let node = |id| {
            let config = raft::Config {
                id,
                election_tick: 10,
                heartbeat_tick: 1,
                max_size_per_msg: Windows::default().append_bytes_max,
                max_inflight_msgs: Windows::default().inflight_frames_max,
                check_quorum: true,
                pre_vote: true,
                batch_append: BATCH_APPEND,
                ..raft::Config::default()
            };
            let voters: Vec<u64> = (1..=MEMBERS).collect();
            let storage = MemStorage::new_with_conf_state((voters, vec![]));
            RawNode::new(&config, storage, &logger).expect("a valid configuration")
        };
        let mut group = Theirs {
            nodes: (1..=MEMBERS).map(node).collect(),
            network: VecDeque::new(),
        };
        group.nodes[0].campaign().expect("a voter campaigns");
        group.ready(0);
        group.settle();
        assert_eq!(group.nodes[0].raft.state, StateRole::Leader);
        group
    }

    fn commit(&mut self, count: u64) {
        for _ in 0..count {
            self.nodes[0]
                .propose(vec![], ENTRY.to_vec())
                .expect("a leader takes it");
        }
        self.ready(0);
        self.settle();
        for node in &mut self.nodes {
            let log = &node.raft.raft_log;
            let first = log.first_index();
            if log.committed - first > KEPT {
                let commit = log.committed;
                log.store
                    .clone()
                    .wl()
                    .compact(commit)
                    .expect("what is committed");
            }
        }
    }

    fn committed(&self) -> u64 {
        let commits = self.nodes.iter().map(|node| node.raft.raft_log.committed);
        commits.min().expect("three members")
    }
}

/// Says nothing.
fn raft_logger() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

/// Nanoseconds per entry.
fn measure<G: Group>(clock: &Clock, batch: u64, entries: u64) -> f64 {
    let mut group = G::elected();
    group.commit(batch);
    let before = group.committed();
    let start = clock.now();
    for _ in 0..entries / batch {
        group.commit(batch);
    }
    let took = clock.now().since(start);
    let committed = group.committed() - before;
    assert_eq!(
        committed,
        entries / batch * batch,
        "every entry is committed everywhere"
    );
    took.as_nanos() as f64 / committed as f64
}

fn median(mut figures: Vec<f64>) -> (f64, f64, f64) {
    figures.sort_by(f64::total_cmp);
    (
        figures[figures.len() / 2],
        figures[0],
        figures[figures.len() - 1],
    )
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let scale = if has("--bench") && !has("--test") {
        FULL
    } else {
        SMALL
    };
    let clock = Clock::new();
    println!(
        "ns per entry proposed, replicated to two followers and committed on all three: median (min..max)"
    );
    let [crate_raft, batched] = ["crate raft 0.7", "the same, batch_append"];
    println!(
        "{:>6}  {:>24}  {crate_raft:>26} {:>6}  {batched:>26} {:>6}",
        "batch", "kontiki", "ratio", "ratio"
    );
    let text = |(middle, low, high): (f64, f64, f64)| format!("{middle:.1} ({low:.1}..{high:.1})");
    for batch in BATCHES {
        let mut figures = [const { Vec::new() }; 3];
        for _ in 0..scale.repetitions {
            figures[0].push(measure::<Ours>(&clock, batch, scale.entries));
            figures[1].push(measure::<Theirs<false>>(&clock, batch, scale.entries));
            figures[2].push(measure::<Theirs<true>>(&clock, batch, scale.entries));
        }
        let [ours, theirs, batched] = figures.map(median);
        println!(
            "{batch:>6}  {:>24}  {:>26} {:>6.2}  {:>26} {:>6.2}",
            text(ours),
            text(theirs),
            theirs.0 / ours.0,
            text(batched),
            batched.0 / ours.0
        );
    }
}
