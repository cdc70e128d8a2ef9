//! The follower's side of a checkpoint that travels: blocks are checked, kept in a file and read into a second
//! state, which takes the place of the first when the file is durable under its name.
//!
//! Until then the old state serves. Each step is durable before the next begins, so that a crash between any two
//! of them is harmless:
//!
//! ```text
//! blocks -> file durable under its name -> "begins anew" in the log, durable -> older checkpoints go
//!      |                                |                                   |   older segments go, and the name
//!      |                                |                                   |   is that of one of its own
//!      |                                |                                   `- the log goes on behind it
//!      |                                `- recovery loads it, finds a log that does not lead there, and
//!      |                                   begins that anew
//!      `- a file without a name is removed; the leader sends it again
//! ```
//!
//! A log that holds the checkpoint's last entry is kept (Raft paper, section 7): then there is nothing to
//! replace. The name says that the file was received: only then is a log that does not lead there no damage. Must never
//! believe a block before its checksum and the state's own rules hold.

use std::collections::{BTreeMap, VecDeque};

use super::Shard;
use super::checkpoints::{CheckpointSummary, Checkpoints};
use super::event::{
    CheckpointEffect, CheckpointPosition, CheckpointRefusal, Notice, PeerMessage, Refusal,
};
use super::folder::Folder;
use super::replay::Replayed;
use crate::base::limits::{
    CHECKPOINT_BLOCK_BYTES, CHECKPOINT_BLOCKS_WAITING_MAX, TRANSFER_BLOCK_STEPS,
    TRANSFER_WINDOW_BLOCKS,
};
use crate::base::{Instant, MemberId, Term};
use crate::checkpoint::{Block, CheckpointError, CheckpointId, Reader, Source};
use crate::keyspace::steps::Steps;
use crate::raft::Position;
use crate::wal::CommitSequence;

/// What comes from a leader.
#[derive(Default)]
pub(super) struct Incoming {
    receiving: Option<Receiving>,
    /// Blocks of one that was given up and that the driver has not reported: no other file is begun before.
    draining: usize,
    /// The state that consensus is about to put in the place of the present one.
    installing: Option<Box<Replayed>>,
    /// The commit that says that the log begins anew.
    anew: Option<CommitSequence>,
}

/// A checkpoint that comes.
struct Receiving {
    from: MemberId,
    term: Term,
    attempt: u64,
    id: CheckpointId,
    /// Reads blocks in order; none when all were read.
    reader: Option<Box<Reader>>,
    /// Blocks that came before their turn.
    early: BTreeMap<u32, Block>,
    /// Every block below this one was read.
    next_block: u32,
    /// What all of them together are.
    whole: Option<Whole>,
    /// Blocks handed to the driver and not written.
    blocks_waiting: usize,
    file: File,
}

/// How far the file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum File {
    Growing,
    Finishing,
    Durable,
}

/// A state that can be installed.
struct Whole {
    replayed: Box<Replayed>,
    summary: CheckpointSummary,
}

impl Receiving {
    fn position(&self) -> (MemberId, PeerMessage) {
        let message = PeerMessage::CheckpointPosition {
            term: self.term,
            attempt: self.attempt,
            position: CheckpointPosition::Next(self.next_block),
        };
        (self.from, message)
    }
}

impl Incoming {
    /// Whether nothing comes and nothing is left of what came.
    pub(super) fn is_idle(&self) -> bool {
        self.receiving.is_none() && self.draining == 0
    }

    /// Whether the next slice would read a block.
    pub(super) fn has_work(&self) -> bool {
        self.receiving.as_ref().is_some_and(|receiving| {
            receiving.reader.is_some()
                && receiving.blocks_waiting < CHECKPOINT_BLOCKS_WAITING_MAX
                && receiving.early.contains_key(&receiving.next_block)
        })
    }

    /// The oldest block handed to the driver is written.
    pub(super) fn block_written(&mut self) {
        if self.draining > 0 {
            self.draining -= 1;
        } else if let Some(receiving) = &mut self.receiving {
            assert!(receiving.blocks_waiting > 0, "no block is being written");
            receiving.blocks_waiting -= 1;
        }
    }

    /// The file has its name.
    pub(super) fn durable(&mut self, id: CheckpointId) {
        let receiving = self.receiving.as_mut().expect("a checkpoint is written");
        assert_eq!(
            (receiving.id, receiving.file),
            (id, File::Finishing),
            "a checkpoint that is not finished"
        );
        receiving.file = File::Durable;
    }
}

impl Checkpoints {
    /// What comes is not wanted any more. What was read of it is freed where nobody waits for that.
    pub(super) fn give_up_incoming(&mut self) {
        let Some(receiving) = self.incoming.receiving.take() else {
            return;
        };
        self.incoming.draining += receiving.blocks_waiting;
        let state = match (receiving.whole, receiving.reader) {
            (Some(whole), _) => Some(whole.replayed.keyspace),
            (None, reader) => reader.and_then(|reader| reader.abandon()),
        };
        if let Some(state) = state {
            let free = CheckpointEffect::Free(Box::new(state));
            self.effects.push(free);
        }
    }
}

impl Shard {
    /// The leader has a checkpoint for this member.
    pub(super) fn take_checkpoint_offer(
        &mut self,
        from: MemberId,
        term: Term,
        attempt: u64,
        id: CheckpointId,
    ) {
        // Whom this member follows was heard through consensus, which knows its directory.
        if !self.follows(from, term) || id.term > term || self.stopping {
            return;
        }
        if !self.raft.wants_checkpoint(term, position_of(id)) {
            let committed = self.raft.commit();
            if committed >= id.index {
                let position = CheckpointPosition::Committed(committed);
                self.send_position(from, term, attempt, position);
            }
            return;
        }
        let incoming = &mut self.checkpoints.incoming;
        if let Some(receiving) = &mut incoming.receiving {
            if receiving.id == id {
                receiving.from = from;
                receiving.term = term;
                receiving.attempt = attempt;
                self.messages.push(receiving.position());
                return;
            }
            if receiving.file != File::Growing {
                // It is installed first. Another one is offered again.
                return;
            }
            self.checkpoints.give_up_incoming();
        }
        if !self.checkpoints.may_begin() {
            return;
        }
        let reader = Reader::new(self.settings.identity.cluster, self.settings.shard);
        let receiving = Receiving {
            from,
            term,
            attempt,
            id,
            reader: Some(Box::new(reader)),
            early: BTreeMap::new(),
            next_block: 0,
            whole: None,
            blocks_waiting: 0,
            file: File::Growing,
        };
        self.messages.push(receiving.position());
        self.checkpoints.incoming.receiving = Some(receiving);
        self.checkpoints.effects.push(CheckpointEffect::Begin(id));
    }

    /// A block of it.
    pub(super) fn take_checkpoint_block(
        &mut self,
        from: MemberId,
        term: Term,
        id: CheckpointId,
        block: Block,
    ) {
        let Some(receiving) = &mut self.checkpoints.incoming.receiving else {
            return;
        };
        let ahead = block.ordinal.checked_sub(receiving.next_block);
        let in_window = ahead.is_some_and(|ahead| ahead < TRANSFER_WINDOW_BLOCKS);
        let known = (receiving.from, receiving.term, receiving.id) == (from, term, id);
        if known && in_window && block.bytes.len() <= CHECKPOINT_BLOCK_BYTES {
            receiving.early.insert(block.ordinal, block);
        }
    }

    /// Reads blocks that came, for what is left of the slice, and goes on when there are no more.
    pub(super) fn receive_checkpoint(&mut self, now: Instant, steps: &mut Steps) {
        // The leader that offered it may be gone, and the log of the next one, or of this member itself, has led
        // beyond it: nobody would send the rest, and meanwhile this member could take none of its own.
        let committed = self.raft.commit();
        let receiving = self.checkpoints.incoming.receiving.as_ref();
        if receiving.is_some_and(|receiving| {
            receiving.file == File::Growing && receiving.id.index <= committed
        }) {
            self.checkpoints.give_up_incoming();
        }
        self.read_blocks(now, steps);
        let log_exists = self.log.durable_commit() > CommitSequence(0);
        if let Some(receiving) = &mut self.checkpoints.incoming.receiving
            && receiving.whole.is_some()
            && receiving.file == File::Growing
            // Term and vote are in the log alone: a checkpoint without one would be taken for a loss.
            && log_exists
        {
            receiving.file = File::Finishing;
            let finish = CheckpointEffect::Finish(receiving.id, Source::Member);
            self.checkpoints.effects.push(finish);
        }
        self.install(now);
    }

    fn read_blocks(&mut self, now: Instant, steps: &mut Steps) {
        let checkpoints = &mut self.checkpoints;
        let Some(receiving) = &mut checkpoints.incoming.receiving else {
            return;
        };
        let (from, id) = (receiving.from, receiving.id);
        let before = receiving.next_block;
        let mut refused = None;
        while let Some(reader) = &mut receiving.reader
            && receiving.blocks_waiting < CHECKPOINT_BLOCKS_WAITING_MAX
            && !steps.spent()
            && let Some(block) = receiving.early.remove(&receiving.next_block)
        {
            steps.take_many(TRANSFER_BLOCK_STEPS);
            match reader.push(&block.bytes) {
                Err(CheckpointError::Block { ordinal }) => {
                    // The right one comes with the next attempt.
                    self.notices
                        .push(Notice::BlockRefused { from, id, ordinal });
                    break;
                }
                Err(error) => {
                    refused = Some(error.into());
                    break;
                }
                Ok(()) => {}
            }
            if let Some(origin) = reader.origin().filter(|origin| origin.id() != id) {
                refused = Some(CheckpointRefusal::Another(origin.id()));
                break;
            }
            receiving.next_block = reader.next_ordinal();
            receiving.blocks_waiting += 1;
            checkpoints.effects.push(CheckpointEffect::Block(block));
            if reader.is_complete() {
                let reader = receiving.reader.take().expect("just read with");
                match Whole::new(*reader) {
                    Ok(whole) => receiving.whole = Some(whole),
                    Err(why) => refused = Some(why),
                }
            }
        }
        if receiving.next_block > before {
            self.messages.push(receiving.position());
        }
        if let Some(why) = refused {
            self.notices.push(Notice::Refused { from, id, why });
            checkpoints.give_up_incoming();
            checkpoints.wait_to_retry(now);
        }
    }

    /// Puts a checkpoint that is durable in the place of the present state, as soon as somebody leads who can
    /// go on from there.
    fn install(&mut self, now: Instant) {
        let own = self.raft.id();
        let incoming = &mut self.checkpoints.incoming;
        let Some(receiving) = incoming
            .receiving
            .take_if(|receiving| receiving.file == File::Durable)
        else {
            return;
        };
        let base = position_of(receiving.id);
        let leader = self.raft.leader().filter(|&leader| leader != own);
        let term = self.raft.term();
        let wanted = self.raft.wants_checkpoint(term, base);
        let ready = wanted && leader.is_some() && self.has_room_for_entries();
        // Of a member that leads itself the commit index may lie below, but not the log.
        if self.raft.commit() < base.index && !ready {
            self.checkpoints.incoming.receiving = Some(receiving);
            return;
        }
        let whole = receiving.whole.expect("a file that has its name is whole");
        let membership = whole.replayed.cluster.membership_at_head();
        self.checkpoints.incoming.installing = Some(whole.replayed);
        if let Some(leader) = leader.filter(|_| wanted) {
            let outputs = &mut self.outputs;
            self.raft
                .install_checkpoint(leader, term, base, membership, now, outputs);
            self.follow_raft(VecDeque::new());
        }
        // What consensus did not need goes on a thread.
        self.free_unused();
        let anew = self.checkpoints.incoming.anew.take();
        let began = self.log_position();
        self.checkpoints.adopt(whole.summary, began, anew);
        let id = receiving.id;
        if anew.is_some() {
            self.notices.push(Notice::Installed { id });
        }
        if self.follows(receiving.from, receiving.term) {
            let position = CheckpointPosition::Committed(self.raft.commit());
            self.send_position(receiving.from, receiving.term, receiving.attempt, position);
        }
    }

    /// The log begins anew after `base`: the state there takes the place of the present one, and what rests on
    /// that is answered.
    pub(super) fn begin_anew(&mut self, base: Position) {
        let installed = self.checkpoints.incoming.installing.take();
        let Replayed {
            mut keyspace,
            cluster,
            ..
        } = *installed.expect("consensus installs what was received");
        let committed = self.log.hard_state().commit;
        let commit = self
            .log
            .stage_base(self.raft.term(), base.term, base.index)
            .expect("there was room when it was installed");
        self.checkpoints.incoming.anew = Some(commit);
        keyspace.plant(self.settings.planted);
        let old = std::mem::replace(&mut self.keyspace, keyspace);
        let before = std::mem::replace(&mut self.cluster, cluster);
        self.cluster.replaces(&before);
        self.folder = Folder::default();
        self.recent.clear();
        self.sending.clear();
        self.drop_evaluation();
        // What was committed before is true. What lies above the base never happened: another entry is committed
        // at the base. Between the two nobody here can tell.
        let mut gone = Vec::new();
        self.waiters.truncate(base.index, |waiter| {
            gone.push((waiter, Refusal::LeaderChanged))
        });
        self.waiters
            .truncate(committed, |waiter| gone.push((waiter, Refusal::TimedOut)));
        for (waiter, refusal) in gone {
            self.refuse(waiter.asker, refusal);
        }
        // Their place in the old state is gone; whoever reads can ask again.
        let mut reading = Vec::new();
        self.reads.drop_running(|asker| reading.push(asker));
        for asker in reading {
            self.refuse(asker, Refusal::LeaderChanged);
        }
        let free = CheckpointEffect::Free(Box::new(old));
        self.checkpoints.effects.push(free);
    }

    fn free_unused(&mut self) {
        if let Some(unused) = self.checkpoints.incoming.installing.take() {
            let free = CheckpointEffect::Free(Box::new(unused.keyspace));
            self.checkpoints.effects.push(free);
        }
    }

    fn follows(&self, leader: MemberId, term: Term) -> bool {
        self.raft.leader() == Some(leader) && leader != self.raft.id() && self.raft.term() == term
    }

    fn send_position(
        &mut self,
        to: MemberId,
        term: Term,
        attempt: u64,
        position: CheckpointPosition,
    ) {
        let message = PeerMessage::CheckpointPosition {
            term,
            attempt,
            position,
        };
        self.messages.push((to, message));
    }
}

impl Whole {
    fn new(reader: Reader) -> Result<Whole, CheckpointRefusal> {
        let replayed = Replayed::from_checkpoint(reader.finish()?, Source::Member)?;
        let summary = replayed.checkpoint.expect("it is of a checkpoint");
        Ok(Whole {
            replayed: Box::new(replayed),
            summary,
        })
    }
}

fn position_of(id: CheckpointId) -> Position {
    Position {
        term: id.term,
        index: id.index,
    }
}
