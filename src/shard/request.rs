//! What clients ask of a shard, and what they are told. Part of `event`, which names it all.

use crate::base::{ClusterId, Instant, MemberId, Term};
use crate::keyspace::request::{
    DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    Refusal as KeyspaceRefusal, TxnRequest, TxnResponse,
};
use crate::raft::{Outage, ReadMode};

/// Where an answer goes: opaque to the shard, returned as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// The core that holds the connection.
    pub core: u32,
    /// The connection's slot on that core.
    pub connection: u32,
    /// Distinguishes successive connections in one slot.
    pub generation: u32,
    /// Distinguishes the requests of one connection.
    pub request: u32,
}

/// One request of a client, checked for form.
#[derive(Clone, Debug)]
pub struct ClientRequest {
    /// Where the answer goes.
    pub ticket: Ticket,
    /// When the client, or the server's own limit, gives up.
    pub deadline: Instant,
    /// What is asked.
    pub request: Request,
}

/// What a client can ask of a shard.
#[derive(Clone, Debug)]
pub enum Request {
    /// KV.Range; linearizable unless it says serializable.
    Range(RangeRequest),
    /// KV.Put.
    Put(PutRequest),
    /// KV.DeleteRange.
    DeleteRange(DeleteRangeRequest),
    /// KV.Txn.
    Txn(TxnRequest),
    /// KV.Compact.
    Compact {
        /// Everything below this main revision becomes unreadable.
        revision: i64,
        /// Answer only when the space is reclaimed.
        physical: bool,
    },
    /// Maintenance.Status: this member's own view.
    Status,
    /// Cluster.MemberList.
    MemberList {
        /// Confirm leadership first.
        linearizable: bool,
    },
    /// Maintenance.Alarm.
    Alarm(AlarmRequest),
    /// Cluster.MemberAdd, MemberRemove, MemberPromote and MemberUpdate. One after the other: each waits until
    /// the one before is committed.
    Membership(MembershipRequest),
    /// Maintenance.MoveLeader to this member; of the leader only, and never forwarded.
    MoveLeader(MemberId),
    /// On what linearizable reads rest: this member's own view.
    ReadMode,
}

/// A change of who belongs to the group, or of what its members promise each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipRequest {
    /// A member joins. It is started with an empty directory and without initial members.
    Add {
        /// Its id, which no member has or had.
        id: MemberId,
        /// Where its peers will reach it.
        peer_urls: Vec<String>,
        /// Whether it has no vote until it is promoted.
        is_learner: bool,
    },
    /// A member leaves for good, told so as soon as that is committed.
    Remove(MemberId),
    /// A learner that is in sync gets a vote.
    Promote(MemberId),
    /// Peers reach a member elsewhere from now on.
    Update {
        /// Whose.
        id: MemberId,
        /// In place of all it had.
        peer_urls: Vec<String>,
    },
    /// On what linearizable reads rest from now on, of the whole group.
    ReadMode(ReadMode),
}

/// What to do with alarms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmRequest {
    /// List alarms of a kind, or all.
    List(Option<AlarmKind>),
    /// Raise one, for a member.
    Activate(MemberId, AlarmKind),
    /// Clear one, for a member.
    Deactivate(MemberId, AlarmKind),
    /// Raise or clear alarm type NONE: an answer with nothing in it.
    Nothing,
}

/// The alarms etcd knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmKind {
    /// A quota or budget is exhausted: only what frees space is accepted.
    NoSpace,
    /// Members disagree about the data.
    Corrupt,
}

/// An alarm that is raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// Whose.
    pub member: MemberId,
    /// Which.
    pub kind: AlarmKind,
}

/// One answer to one [`ClientRequest`].
#[derive(Clone, Debug)]
pub struct Answer {
    /// From the request.
    pub ticket: Ticket,
    /// For the response header.
    pub header: Header,
    /// The answer itself.
    pub result: Result<Response, Refusal>,
}

/// The parts of etcd's ResponseHeader that vary; ids are the same for every answer of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Main revision: of this write, or the current one when nothing was written, or the one a read ran at.
    pub revision: i64,
    /// The member's current term.
    pub term: Term,
}

/// What a shard answers.
#[derive(Clone, Debug)]
pub enum Response {
    /// To a range.
    Range(RangeResponse),
    /// To a put.
    Put(PutResponse),
    /// To a deletion.
    DeleteRange(DeleteRangeResponse),
    /// To a transaction.
    Txn(TxnResponse),
    /// To a compaction.
    Compact,
    /// To a status request.
    Status(Box<Status>),
    /// To a member list.
    MemberList(Vec<Member>),
    /// To an alarm request.
    Alarm(Vec<Alarm>),
    /// To [`MembershipRequest::Add`].
    MemberAdded {
        /// The new one.
        member: Member,
        /// All, with the new one.
        members: Vec<Member>,
    },
    /// To every other change of the membership: the members after it.
    MembersChanged(Vec<Member>),
    /// To a request to move the leader: it leads.
    LeaderMoved,
    /// To a question on what linearizable reads rest, or to a change of that.
    ReadMode(ReadMode),
}

/// A member's own view of itself and the cluster.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Bytes the keyspace holds.
    pub db_size_bytes: i64,
    /// Bytes of them that are reachable.
    pub db_size_in_use_bytes: i64,
    /// The limit in force, in bytes.
    pub db_size_quota_bytes: i64,
    /// Leader, zero for none.
    pub leader: MemberId,
    /// Highest committed index.
    pub raft_index: u64,
    /// Current term.
    pub raft_term: u64,
    /// Highest applied index.
    pub raft_applied_index: u64,
    /// Alarms that are raised.
    pub alarms: Vec<Alarm>,
    /// Whether this member is a learner.
    pub is_learner: bool,
}

/// One member as the committed membership knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Its name; empty until it has started.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where its clients reach it.
    pub client_urls: Vec<String>,
    /// Whether it has no vote.
    pub is_learner: bool,
}

/// Why a shard refuses a request. `rpc/status.rs` turns each into etcd's code and text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The keyspace says no.
    #[error(transparent)]
    Keyspace(#[from] KeyspaceRefusal),
    /// No leader is known.
    #[error("no leader")]
    NoLeader,
    /// Leadership was lost before there was an entry: the request has no effect.
    #[error("leader changed")]
    LeaderChanged,
    /// The deadline passed; a write may or may not take effect.
    #[error("request timed out")]
    TimedOut,
    /// The deadline passed before there was a leader: nothing was begun. The client of another member hears
    /// [`Refusal::TimedOut`] of it.
    #[error("no leader in time")]
    NoLeaderInTime,
    /// The deadline passed, as for [`Refusal::TimedOut`], and this may be why. The client of another member
    /// hears only that.
    #[error("request timed out, perhaps by an outage")]
    TimedOutBy(Outage),
    /// A queue is full.
    #[error("too many requests")]
    TooManyRequests,
    /// The quota, the memory budget or the disk is exhausted.
    #[error("database space exceeded")]
    NoSpace,
    /// The corrupt alarm is raised.
    #[error("corrupt cluster")]
    Corrupt,
    /// The encoded entry would be larger than the log accepts.
    #[error("request is too large")]
    TooLarge,
    /// The member is stopping.
    #[error("server stopped")]
    Stopped,
    /// The membership, or the leadership, cannot be changed so.
    #[error(transparent)]
    Membership(#[from] MembershipRefusal),
}

impl Refusal {
    /// Whether what is refused like this has had no effect and never will: it may be asked for again, elsewhere too.
    #[must_use]
    pub fn is_without_effect(&self) -> bool {
        matches!(
            self,
            Refusal::LeaderChanged | Refusal::TooManyRequests | Refusal::Stopped
        )
    }
}

/// Why a change of the membership, or of the leader, is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipRefusal {
    /// No member has this id.
    #[error("member not found")]
    NotFound,
    /// A member has this id, or had it before it was removed.
    #[error("the member id is used")]
    Exists,
    /// Another member has one of these URLs.
    #[error("a peer URL is used")]
    PeerUrlExists,
    /// There are as many learners as there may be.
    #[error("too many learners")]
    TooManyLearners,
    /// There are as many members as there may be.
    #[error("too many members")]
    TooMany,
    /// Only learners are promoted.
    #[error("not a learner")]
    NotLearner,
    /// The learner is too far behind, or silent.
    #[error("the learner is not in sync")]
    LearnerNotReady,
    /// Fewer than a majority of the voters after the change would be members that have started.
    #[error("not enough started members")]
    NotEnoughStarted,
    /// Fewer than a majority of the voters after the change are heard.
    #[error("not enough members are heard")]
    Unhealthy,
    /// Only the leader hands over.
    #[error("this member does not lead")]
    NotLeader,
    /// Nobody without a vote is handed over to.
    #[error("the member cannot lead")]
    BadTransferee,
    /// Whom it was handed over to did not take the lead in time.
    #[error("the transfer took too long")]
    TransferTimedOut,
}

/// Ids a shard puts into its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// This member.
    pub member: MemberId,
}
