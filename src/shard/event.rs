//! All that can happen to a shard, and all that a shard can want. Read this first.
//!
//! A shard is a deterministic state machine: a driver hands it an [`Event`] and the time, and performs
//! the [`Effects`] that come out. The runtime is one driver; tests are another. What clients ask and are told
//! stands in `request`.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::checkpoints::UnknownRow;
pub use super::request::{
    Alarm, AlarmKind, AlarmRequest, Answer, ClientRequest, Header, Identity, Member,
    MembershipRefusal, MembershipRequest, Refusal, Request, Response, Status, Ticket,
};
use crate::base::limits::CHECKPOINT_BLOCK_BYTES;
use crate::base::{Incarnation, Index, MemberId, Term};
use crate::checkpoint::{Block, CheckpointError, CheckpointId, Source};
use crate::keyspace::Keyspace;
use crate::raft::{self, Directories, PeerRefusal, Position, Rebuild, StepDown};
use crate::wal::{Commit, Location, PreparedSegment, Recovered, SegmentOpening, SegmentSequence};

/// Something that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// Clients asked; the shard empties the batch.
    Requests(&'a mut Vec<ClientRequest>),
    /// What [`LogEffect::Commit`] asked for is on disk.
    CommitDurable(Commit),
    /// What [`LogEffect::OpenSegment`] asked for is on disk.
    SegmentOpened(SegmentOpening),
    /// What [`LogEffect::PrepareSegment`] asked for exists, in full.
    SegmentPrepared(PreparedSegment),
    /// The file system cannot hold the next segment now; the driver keeps trying.
    SegmentRefused,
    /// Another member said something. The connection vouches for who it is.
    Peer {
        /// Which member.
        from: MemberId,
        /// From which data directory.
        incarnation: Incarnation,
        /// What it said.
        message: PeerMessage,
    },
    /// The connection to another member was closed, or is a new one: what was on its way is lost.
    PeerDisconnected(MemberId),
    /// What [`Effects::known_members`] asked for is on disk.
    KnownMembersStored(KnownMembers),
    /// What [`Effects::log_reads`] asked for.
    LogRead {
        /// From the request.
        read: LogRead,
        /// The bytes there; fewer where the file ends, none where it was given up meanwhile.
        bytes: Vec<u8>,
    },
    /// Time passed: about every [`crate::base::limits::TICK_MILLIS`], and not later than
    /// [`crate::shard::Shard::next_deadline`].
    Tick {
        /// Memory the process has allocated, in bytes.
        memory_used_bytes: u64,
    },
    /// Nothing was written for about a millisecond.
    LogIdle,
    /// A sealed segment does not hold any more what was written: the state could not be restored from
    /// this log.
    LogDamaged,
    /// The oldest [`CheckpointEffect::Block`] that was not reported is written; durable later.
    CheckpointBlock,
    /// What [`CheckpointEffect::Finish`] asked for is done.
    CheckpointDurable(CheckpointId),
    /// What [`CheckpointEffect::Read`] asked for.
    CheckpointRead {
        /// From the request.
        read: CheckpointRead,
        /// The bytes there; fewer, or none, where the file ends or cannot be read.
        bytes: Bytes,
    },
    /// The checkpoint that was begun cannot be written, for want of space or because the disk fails. The
    /// driver has given it up, and reports nothing further about it.
    CheckpointFailed,
    /// The shard said that it has work left ([`crate::shard::Shard::has_work`]).
    Continue,
    /// The member is about to stop: if it leads, somebody else should. It still takes what comes.
    HandOver,
    /// The member stops: nothing new is taken, what was taken is finished.
    Stop,
}

/// What the driver must do, all of it, before it hands in the next event.
#[derive(Debug, Default)]
pub struct Effects {
    /// For the log, in this order.
    pub log: Vec<LogEffect>,
    /// For the files of checkpoints, in this order. Nothing of the other effects waits for them.
    pub checkpoint: Vec<CheckpointEffect>,
    /// For clients, in any order between connections and in this order on one connection. None of
    /// them promises anything that is not yet durable.
    pub answers: Vec<Answer>,
    /// For other members, in this order for each of them. They may be lost, and may leave at once: what
    /// they promise is durable.
    pub messages: Vec<(MemberId, PeerMessage)>,
    /// Before those: connections are let in from these directories from now on, and others are closed.
    pub directories: Option<Directories>,
    /// Parts of the log to be read, for a follower that lags.
    pub log_reads: Vec<LogRead>,
    /// Write this beside the log, sync, then [`Event::KnownMembersStored`].
    pub known_members: Option<KnownMembers>,
    /// What an operator may want to know; nothing is to be done.
    pub notices: Vec<Notice>,
    /// This member must not go on: say why, and end.
    pub end: Option<EndReason>,
}

/// Something that happened between members, or to this one's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Notice {
    /// A follower gets a checkpoint.
    #[error("follower {to} needs what the log has not any more: it is sent the checkpoint at index {}", id.index)]
    TransferBegins {
        /// Who.
        to: MemberId,
        /// Which.
        id: CheckpointId,
    },
    /// It was not done before the log was as long as it may be.
    #[error(
        "the log has its longest size: the checkpoint at index {} on its way to follower {to} is given up for a \
         newer one, and writes are slowed until that is there",
        id.index
    )]
    TransferAbandoned {
        /// Who gets it.
        to: MemberId,
        /// Which.
        id: CheckpointId,
    },
    /// The file on disk here does not hold.
    #[error("the checkpoint at index {} cannot be read or is damaged: another one is taken", id.index)]
    Unreadable {
        /// Which.
        id: CheckpointId,
    },
    /// What the leader sent does not hold.
    #[error("block {ordinal} of the checkpoint at index {} from member {from} is damaged: dropped", id.index)]
    BlockRefused {
        /// Who sent it.
        from: MemberId,
        /// Of which.
        id: CheckpointId,
        /// Which block.
        ordinal: u32,
    },
    /// What the leader sent is no state.
    #[error("the checkpoint at index {} from member {from} is refused: {why}", id.index)]
    Refused {
        /// Who sent it.
        from: MemberId,
        /// Which.
        id: CheckpointId,
        /// Why.
        why: CheckpointRefusal,
    },
    /// What a follower needs of this member's log does not hold.
    #[error(
        "the entry at index {index} cannot be read from the log for follower {to}, or is damaged: the follower is sent \
         a checkpoint"
    )]
    LogUnreadable {
        /// Who needs it.
        to: MemberId,
        /// Where.
        index: Index,
    },
    /// The disk does not complete a sync.
    #[error(
        "the disk has not completed a sync of the log for {} ms{}", span.as_millis(),
        to.map_or(String::new(), |to| format!(": leadership is handed over to member {to}"))
    )]
    SyncStalled {
        /// For how long by now.
        span: Duration,
        /// To whom leadership is handed over, by a leader that can.
        to: Option<MemberId>,
    },
    /// This member leads no longer.
    #[error("this member leads no longer: {0}")]
    SteppedDown(StepDown),
    /// Another member is not heard. Said once of each.
    #[error("messages of member {member} from data directory {incarnation} are refused: {why}")]
    RefusedPeer {
        /// Who it says it is.
        member: MemberId,
        /// The directory it says it has.
        incarnation: Incarnation,
        /// Why.
        why: PeerRefusal,
    },
    /// A follower is without what it had made durable. Said once in a term, unless it has that again meanwhile.
    #[error(
        "follower {member} has acknowledged the log up to index {acknowledged} and now lacks what is there: its data \
         directory was put back from a copy, or its disk has lost what was synced. While this member leads, it gets no \
         more entries, but the next leader does not know of this; stop it, remove the member, and add it again with an \
         empty directory"
    )]
    FollowerForgot {
        /// Who.
        member: MemberId,
        /// What it had acknowledged to this leader.
        acknowledged: Index,
    },
    /// This member goes on from the leader's checkpoint.
    #[error("the state is that of the checkpoint at index {} from now on", id.index)]
    Installed {
        /// Which.
        id: CheckpointId,
    },
}

/// Why a checkpoint that came whole is not one that can be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointRefusal {
    /// What is in its blocks does not hold.
    #[error(transparent)]
    Content(#[from] CheckpointError),
    /// It holds what this program does not know.
    #[error(transparent)]
    Row(#[from] UnknownRow),
    /// It is another one than was offered.
    #[error("it is the checkpoint at index {}", .0.index)]
    Another(CheckpointId),
}

/// What a member remembers beside the log: about directories, its own and others', and about damage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownMembers {
    /// Whether a majority has confirmed that no other directory belongs to this member.
    pub confirmed: bool,
    /// The directory each other member was first heard from.
    pub incarnations: BTreeMap<MemberId, Incarnation>,
    /// Part of the log was lost: this member may have voted in any term up to this one, though the log does
    /// not say so. Zero when nothing ever was.
    pub vote_floor: Term,
    /// A damaged log is being rebuilt. It was stored before anything was cut from the log, and goes when
    /// consensus says that the log is whole again.
    pub rebuild: Option<Rebuild>,
    /// Part of the log is being cut away, or was, and nothing that followed is durable: that little or nothing is left
    /// of the log is the cut, and no further damage. It goes with the first commit that is durable; what is missing
    /// after that was lost again.
    pub just_cut: bool,
}

impl KnownMembers {
    /// Part of the log is to be cut away. `found` is what can be read of it, and `checkpoint` is where the
    /// newest checkpoint that holds stands. Stored before the cut, this keeps the member from voting where it may
    /// have voted, and from being counted until it is rebuilt.
    pub fn note_loss(&mut self, found: &Recovered, checkpoint: Position) {
        let term = found.hard_state.term.max(checkpoint.term).max(Term(1));
        self.vote_floor = self.vote_floor.max(term);
        let rebuild = Rebuild {
            through: found.hard_state.commit.max(checkpoint.index),
            every_voter: found.term_lost,
        };
        self.rebuild = Some(self.rebuild.map_or(rebuild, |before| before.and(rebuild)));
        self.just_cut = true;
    }
}

/// A part of the log's files that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRead {
    /// For which follower.
    pub to: MemberId,
    /// The index that is looked for.
    pub index: Index,
    /// Where to begin.
    pub location: Location,
    /// How many bytes at most.
    pub size_bytes: u64,
}

/// Why a member must not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndReason {
    /// The entry that removes it is committed.
    #[error("this member was removed from the cluster")]
    Removed,
    /// The others know another directory under its member id.
    #[error(
        "the other members know another data directory of this member: start it on that one (the very same, \
         no copy of it), or remove the member and add it again with an empty one"
    )]
    OtherDirectory,
    /// Its state at an index is not what the leader's is.
    #[error("the state at index {0} is not the leader's: the data of one of the two is damaged")]
    Diverged(Index),
}

/// What members of one shard's group say to each other.
#[derive(Clone, Debug)]
pub enum PeerMessage {
    /// Consensus.
    Raft {
        /// What.
        message: raft::Message,
        /// The records of an append's entries, in order: the same bytes as in the log.
        records: Vec<Bytes>,
    },
    /// The sender's name and where its clients reach it; the receiver leads.
    Introduce(Member),
    /// A client of the sender asked for this; the receiver leads.
    Forward {
        /// The sender's number for it.
        request: u64,
        /// How long the client still waits.
        patience: Duration,
        /// What is asked.
        body: Request,
    },
    /// The answer to a [`PeerMessage::Forward`].
    Forwarded {
        /// From the forward.
        request: u64,
        /// The client gets it when the receiver, too, has committed this index.
        index: Index,
        /// For the response header.
        header: Header,
        /// The answer itself. After a refusal without an effect ([`Refusal::is_without_effect`]) the receiver goes on
        /// for its client.
        result: Result<Response, Refusal>,
    },
    /// The sender leads and has this checkpoint for the receiver, which needs what the log has not any more.
    /// Answered by [`PeerMessage::CheckpointPosition`]; without an answer it comes again.
    CheckpointOffer {
        /// The sender's term.
        term: Term,
        /// The sender's number for this attempt; never used again in the term.
        attempt: u64,
        /// Which checkpoint.
        id: CheckpointId,
        /// Bytes of its blocks.
        size_bytes: u64,
    },
    /// A block of what was offered. Bulk: nothing else waits for it, and it may be lost with its connection.
    CheckpointBlock {
        /// The sender's term.
        term: Term,
        /// From the offer.
        attempt: u64,
        /// Which checkpoint.
        id: CheckpointId,
        /// The block, as it lies in the sender's file; the receiver checks it.
        block: Block,
    },
    /// How far the sender has come with what it was offered.
    CheckpointPosition {
        /// The sender's term.
        term: Term,
        /// From the offer.
        attempt: u64,
        /// How far.
        position: CheckpointPosition,
    },
}

/// How far a follower has come with a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointPosition {
    /// Every block before this one was taken; counted from zero.
    Next(u32),
    /// It needs no checkpoint at or below this index: that is committed there.
    Committed(Index),
}

/// Something to do with the log's files. At most one of `Commit` and `OpenSegment` is under way.
#[derive(Debug)]
pub enum LogEffect {
    /// Write these bytes at their place, sync, then [`Event::CommitDurable`].
    Commit(Commit),
    /// Write this header page at both its places, sync, then [`Event::SegmentOpened`].
    OpenSegment(SegmentOpening),
    /// Have this segment ready as a file written in full, then [`Event::SegmentPrepared`].
    PrepareSegment(SegmentSequence),
    /// Nothing needs this segment any more: it may be used again. They come oldest first, and are given
    /// up in this order, so that what is left has no gap.
    Recycle(SegmentSequence),
}

/// Something to do with the files of checkpoints. One is written at a time.
#[derive(Debug)]
pub enum CheckpointEffect {
    /// Begin a file that is no checkpoint yet.
    Begin(CheckpointId),
    /// Write this at its offset, then [`Event::CheckpointBlock`].
    Block(Block),
    /// Make the file and its name, which says where it comes from, durable, then [`Event::CheckpointDurable`].
    Finish(CheckpointId, Source),
    /// The log leads durably to this checkpoint that another member sent: from now on it is like one of one's own.
    /// Nobody waits for that.
    Settle(CheckpointId),
    /// Checkpoints below this index are not needed any more.
    RemoveBefore(Index),
    /// Read a part of a checkpoint that has its name, then [`Event::CheckpointRead`]. One read is under way at a
    /// time.
    Read(CheckpointRead),
    /// Free this state, which an installed checkpoint has replaced or which came in part only, where nobody waits for
    /// it: that takes long.
    Free(Box<Keyspace>),
}

/// A part of a checkpoint's file that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointRead {
    /// For which follower.
    pub to: MemberId,
    /// For which attempt to send it.
    pub attempt: u64,
    /// Which checkpoint.
    pub id: CheckpointId,
    /// The first block, counted from zero.
    pub first_block: u32,
    /// How many blocks at most.
    pub block_count: u32,
}

impl CheckpointRead {
    /// Where to begin, in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        u64::from(self.first_block) * CHECKPOINT_BLOCK_BYTES as u64
    }

    /// How many bytes at most.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.block_count as usize * CHECKPOINT_BLOCK_BYTES
    }
}
