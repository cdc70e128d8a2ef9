//! Every bound of the product in one place, tied together at compile time.

use std::time::Duration;

/// The size of one log segment on disk.
pub const SEGMENT_SIZE_BYTES: u64 = 64 * MIB;
/// The unit in which commits are padded and copied: one page, one sector multiple.
pub const PAGE_SIZE_BYTES: u64 = 4 * KIB;
/// A commit stops taking further records above this, so that one burst does not hold up the next.
/// Soft: a commit always holds at least one whole record.
pub const COMMIT_SIZE_SOFT_BYTES: u64 = 256 * KIB;
/// The largest encoded entry. Below a quarter of a segment, so that no entry wastes much of one.
pub const ENTRY_SIZE_BYTES_MAX: u64 = 15 * MIB;
/// etcd's default for `--max-request-bytes`.
pub const REQUEST_SIZE_BYTES_DEFAULT: u64 = 1_572_864;
/// What gRPC may receive above `--max-request-bytes`, as in etcd.
pub const GRPC_OVERHEAD_BYTES: u64 = 524_288;
/// etcd's default for `--max-txn-ops`.
pub const TXN_OPERATIONS_DEFAULT: u64 = 128;
/// etcd's default for `--quota-backend-bytes`.
pub const QUOTA_BYTES_DEFAULT: i64 = 2_147_483_648;

/// How long a request waits for its answer, beside two election timeouts, as in etcd.
pub const REQUEST_TIME: Duration = Duration::from_secs(5);
/// Requests a shard holds that are waiting for evaluation. Above it: `too many requests`.
pub const SHARD_QUEUE_REQUESTS_MAX: usize = 65_536;
/// Entries proposed and not yet committed. etcd refuses above 5,000; a batch here is far larger.
pub const SHARD_UNCOMMITTED_ENTRIES_MAX: usize = 65_536;
/// Their bytes. Above either, requests wait in the queue until their deadlines.
pub const SHARD_UNCOMMITTED_BYTES_MAX: u64 = 256 * MIB;
/// Bytes staged and not yet durable. Above it requests wait in the queue.
pub const SHARD_STAGED_BYTES_MAX: u64 = 32 * MIB;
/// Reads that are walked in slices at the same time on one shard.
pub const SHARD_RANGE_JOBS_MAX: usize = 4_096;
/// Steps (see `keyspace/steps.rs`) of all writes, reads and reclaim in one turn: about 170 puts of one key
/// each, or 340 deletions. Chosen so that a turn stays below a millisecond also with cold memory.
pub const SLICE_STEPS_MAX: usize = 1_024;
/// What writes leave of that to reads that have work.
pub const SLICE_READS_STEPS: usize = SLICE_STEPS_MAX / 4;
/// What writes and reads leave of it to reclaim that has work, beside what versions pay for
/// ([`RECLAIM_UNPAID_CHANGES_MAX`]).
pub const SLICE_RECLAIM_STEPS: usize = SLICE_STEPS_MAX / 8;

/// How often a shard is told that time passed, in milliseconds.
pub const TICK_MILLIS: u64 = 100;
/// How long a log is idle before its last commit is sealed, in microseconds.
pub const SEAL_IDLE_MICROS: u64 = 1_000;
/// Room in the active segment that client writes leave when the file system is full: for alarms and
/// elections.
pub const LOG_RESERVE_BYTES: u64 = 4 * MIB;

/// Bytes of the newest entries that a shard keeps in memory for its followers.
pub const RECENT_ENTRIES_BYTES_MAX: usize = 16 * MIB as usize;
/// Memory that those entries are copied to at a time.
pub const RECENT_CHUNK_BYTES: usize = 256 * KIB as usize;

/// Bytes of the log that are read at a time for a follower that lags; more if one commit is larger.
pub const LOG_READ_BYTES: u64 = MIB;
/// Requests that a member has sent to one leader, and answers of it that wait here. Above it requests wait here.
pub const SHARD_FORWARDED_REQUESTS_MAX: usize = 16_384;

/// Batches in one mailbox between two cores.
pub const MAILBOX_BATCHES_MAX: usize = 1_024;

/// One kibibyte.
pub const KIB: u64 = 1_024;
/// One mebibyte.
pub const MIB: u64 = 1_024 * KIB;

const _: () = assert!(ENTRY_SIZE_BYTES_MAX < SEGMENT_SIZE_BYTES / 4);
const _: () = assert!(REQUEST_SIZE_BYTES_DEFAULT < ENTRY_SIZE_BYTES_MAX);
const _: () = assert!(SLICE_READS_STEPS + SLICE_RECLAIM_STEPS < SLICE_STEPS_MAX);
const _: () = assert!(COMMIT_SIZE_SOFT_BYTES.is_multiple_of(PAGE_SIZE_BYTES));
const _: () = assert!(SEGMENT_SIZE_BYTES.is_multiple_of(PAGE_SIZE_BYTES));

// The runtime: cores, sockets, files.

/// Connections the kernel holds for one listening socket until its core accepts them.
pub const LISTEN_BACKLOG: i32 = 1_024;
/// Connections taken from one listening socket before other tasks of the core run.
pub const ACCEPTS_PER_TURN_MAX: usize = 64;
/// The longest turn of a core's loop that is not counted as a stall.
pub const TURN_MAX: Duration = Duration::from_millis(1);
/// A task that never has to wait works for so long before the others of its core run.
pub const STINT_MAX: Duration = TURN_MAX;
/// Between two heartbeats of a core that had nothing to do at the first: what a lost wake-up costs at most.
pub const HEARTBEAT_IDLE: Duration = Duration::from_millis(50);
/// Between two heartbeats of a core that had requests in flight at the first.
pub const HEARTBEAT_BUSY: Duration = Duration::from_millis(2);
/// A core without a heartbeat for this long is counted and logged.
pub const CORE_FROZEN: Duration = Duration::from_millis(150);
// One look without a beat is normal: a beat may come just before one and the next just after another.
const _: () = assert!(CORE_FROZEN.as_millis() >= 3 * HEARTBEAT_IDLE.as_millis());
/// A core without a heartbeat for this long ends the process: it holds leadership and connections hostage.
pub const CORE_STUCK: Duration = Duration::from_secs(30);
/// Requests to one log's disk thread that have not been worked on: one spare and what is being recycled.
pub const DISK_REQUESTS_MAX: usize = 1_024;
/// Segments kept for reuse beside the log; older ones are removed.
pub const SEGMENTS_RECYCLED_MAX: usize = 2;
/// Jobs given to a log's writer that have not completed: a commit, a segment change and its headers.
pub const LOG_JOBS_MAX: usize = 8;

// The log.

/// Scratch memory an encoder keeps between two entries; what one large entry needed beyond it is freed.
pub const ENCODER_SCRATCH_BYTES_MAX: usize = 256 * KIB as usize;
/// Staging buffers a log keeps for reuse; a burst that needed more gives the rest back.
pub const STAGING_BUFFERS_KEPT_MAX: usize = 4;
/// A staging buffer that one large entry has grown above this is freed instead of kept.
pub const STAGING_BUFFER_KEPT_BYTES_MAX: usize = 1_024 * KIB as usize;
/// Log bytes between two marks of where an index lies: what a reader may have to skip, against memory.
pub const LOCATION_STRIDE_BYTES: u64 = 64 * KIB;
// The keyspace.

/// Values of an answer at least this long are shared with the keyspace instead of copied.
pub const ANSWER_VALUE_SHARED_BYTES_MIN: usize = 1_024;

/// Digests of committed indexes that are kept for comparing members. A member further behind than this
/// is compared later.
pub const KEYSPACE_DIGESTS_KEPT_MAX: usize = 4_096;
// The edge: one client connection, and all of them on one core.

/// What one read of a client's socket may take.
pub const EDGE_READ_BUFFER_BYTES: usize = 64 * KIB as usize;
/// Read from one client before the others get their turn.
pub const EDGE_TURN_READ_BYTES_MAX: usize = 256 * KIB as usize;
/// Answer payload handed to HTTP/2 in one pass of a connection.
pub const EDGE_TURN_SEND_BYTES_MAX: usize = MIB as usize;
/// Pieces of large answers that are measured or encoded in one turn of a connection.
pub const EDGE_TURN_PIECES: u32 = 1;
/// The size of such a piece. Soft by one key with its value.
pub const EDGE_PIECE_BYTES: usize = 256 * KIB as usize;
/// Keys in such a piece.
pub const EDGE_PIECE_KEYS_MAX: usize = 2_048;
/// After how long a connection goes on with such an answer, at the earliest.
pub const EDGE_PIECE_PAUSE: Duration = Duration::from_micros(20);
/// Lines about slow requests of one core: one in this time.
pub const EDGE_SLOW_LOG_INTERVAL: Duration = Duration::from_secs(1);
/// Passes of one connection before the others get their turn.
pub const EDGE_TURN_PASSES_MAX: usize = 8;
/// Unsent bytes of one connection above which HTTP/2 is told to wait. Soft by one frame.
pub const EDGE_OUTPUT_BYTES_MAX: usize = 256 * KIB as usize;
/// Idle buffers a core keeps for its connections.
pub const EDGE_IDLE_BUFFERS_MAX: usize = 64;
/// HTTP/2 flow control: what one stream may send before it is read.
/// Larger than a request, so that unary calls need no window updates of their own.
pub const EDGE_STREAM_WINDOW_BYTES: u32 = 2 * MIB as u32;
/// HTTP/2 flow control: what all streams of a connection may send before they are read.
pub const EDGE_CONNECTION_WINDOW_BYTES: u32 = 4 * MIB as u32;
/// The largest HTTP/2 frame a client may send.
pub const EDGE_FRAME_BYTES_MAX: u32 = 64 * KIB as u32;
/// The largest set of request headers, decoded.
pub const EDGE_HEADER_LIST_BYTES_MAX: u32 = 64 * KIB as u32;
/// Answer payload that HTTP/2 buffers for one stream.
pub const EDGE_STREAM_SEND_BUFFER_BYTES: usize = 256 * KIB as usize;
/// Streams a client may have open on one connection, unless a flag says otherwise.
pub const EDGE_STREAMS_DEFAULT: u32 = 4_096;
/// The most that flag may say: calls are numbered in 16 bits, with room for cancelled ones.
pub const EDGE_STREAMS_MAX: u32 = 32_768;
/// Calls of one connection that are noted as woken; beyond that all of its calls are looked at. Every
/// connection pays for this list, idle or not.
pub const EDGE_WAKES_MAX: usize = 256;
/// Streams a client may reset before this server has looked at them.
pub const EDGE_PENDING_RESETS_MAX: usize = 256;
/// Streams this server remembers after resetting them.
pub const EDGE_LOCAL_RESETS_MAX: usize = 128;
/// Protocol errors on single streams after which the connection is closed.
pub const EDGE_STREAM_ERRORS_MAX: usize = 1_024;
/// Streams a client may reset within [`EDGE_RESET_WINDOW_MS`].
pub const EDGE_RESETS_MAX: u64 = 4_096;
/// The time over which resets are counted.
pub const EDGE_RESET_WINDOW_MS: u64 = 10_000;
/// Memory a call takes beside its bytes: its state here and in HTTP/2.
pub const EDGE_CALL_BYTES: u64 = 1_024;
/// Bytes of requests and answers one connection holds. Above it: `too many requests`.
pub const EDGE_CONNECTION_HELD_BYTES_MAX: u64 = 64 * MIB;
/// The same for all connections of a core, unless a flag says otherwise.
pub const EDGE_CORE_HELD_BYTES_DEFAULT: u64 = 512 * MIB;
/// Client connections of a core, unless a flag says otherwise.
pub const EDGE_CONNECTIONS_DEFAULT: usize = 16_384;
/// From accept to the first bytes that tell the protocol.
pub const EDGE_FIRST_BYTES_MS_MAX: u64 = 20_000;
/// Without progress for this long, a half-sent request or a half-read answer is given up.
pub const EDGE_STALL_MS_MAX: u64 = 60_000;
/// From the start of a shutdown to the end of the last call.
pub const EDGE_DRAIN_MS_MAX: u64 = 5_000;
/// How often a connection with calls in flight looks at its deadlines.
pub const EDGE_TICK_MS: u64 = 1_000;
/// The largest request head over HTTP/1.1.
pub const EDGE_HTTP1_HEAD_BYTES_MAX: usize = 16 * KIB as usize;
/// An HTTP/1.1 connection without a finished request for this long is closed.
pub const EDGE_HTTP1_IDLE_MS_MAX: u64 = 30_000;
/// The first chunk of a streamed read, in keys.
pub const RANGE_STREAM_FIRST_KEYS: i64 = 10;

const _: () = assert!(EDGE_STREAMS_DEFAULT <= EDGE_STREAMS_MAX);
const _: () = assert!(EDGE_STREAM_WINDOW_BYTES <= EDGE_CONNECTION_WINDOW_BYTES);
const _: () = assert!((EDGE_STREAM_WINDOW_BYTES as u64) < EDGE_CONNECTION_HELD_BYTES_MAX);
// Configuration and logs.

/// The largest configuration file that is read.
pub const CONFIG_FILE_SIZE_BYTES_MAX: u64 = MIB;
/// One part in this many of the available memory stays outside the default memory budget.
pub const MEMORY_BUDGET_SHARE_DIVISOR: u64 = 4;
/// The memory budget when neither the machine's nor the container's memory is known.
pub const MEMORY_BUDGET_BYTES_FALLBACK: u64 = 512 * MIB;
/// Log lines that wait for the thread that writes them; further ones are dropped and counted.
pub const LOG_LINES_QUEUED_MAX: usize = 8_192;
/// Bytes of one value in a log line; what is longer is cut. A line has at most 32 values.
pub const LOG_VALUE_BYTES_MAX: usize = 4 * 1_024;

// Recovery.

/// Pieces of a log that travel together from the walking thread to the core.
pub const RECOVERY_BATCH_PIECES_MAX: usize = 1_024;
/// Batches of them that wait for the core.
pub const RECOVERY_BATCHES_MAX: usize = 16;

// The shard's core.

/// Messages from the disk thread that the core has not looked at.
pub const DISK_ANSWERS_MAX: usize = 64;
/// How long a stopping member waits for calls that are under way, in seconds.
pub const CONNECTION_DRAIN_SECONDS_MAX: u64 = 5;

// The scrub of the log.

/// Between two passes over the sealed segments.
pub const SCRUB_INTERVAL: Duration = Duration::from_hours(24);
/// Between two segments of one pass, so that it takes a small share of the disk.
pub const SCRUB_SEGMENT_PAUSE: Duration = Duration::from_secs(2);
/// Descriptors that client connections leave to the log, the rings, the sockets and the log lines.
pub const DESCRIPTORS_RESERVED: u64 = 128;

// Consensus.

/// Entries of one message to a follower, unless one entry alone is larger.
pub const RAFT_APPEND_BYTES_MAX: u64 = 512 * KIB;
/// Bytes sent to one follower and not yet acknowledged. Soft by one message.
pub const RAFT_INFLIGHT_BYTES_MAX: u64 = 16 * MIB;
/// Messages with entries sent to one follower and not yet acknowledged.
pub const RAFT_INFLIGHT_FRAMES_MAX: usize = 256;
/// Log bytes between two marks of how long the log is: what a window may be off by.
pub const RAFT_SIZE_STRIDE_BYTES: u64 = 16 * KIB;
/// Members of one Raft group, learners included.
pub const RAFT_MEMBERS_MAX: usize = 64;

const _: () = assert!(RAFT_SIZE_STRIDE_BYTES * 4 <= RAFT_APPEND_BYTES_MAX);
const _: () = assert!(RAFT_APPEND_BYTES_MAX <= RAFT_INFLIGHT_BYTES_MAX);

// Checkpoints.

/// One block of a checkpoint, its header included: what is checked, handed on and written as one.
pub const CHECKPOINT_BLOCK_BYTES: usize = 64 * KIB as usize;
/// Bytes of entries since the last checkpoint, at least, before the next one is taken.
pub const CHECKPOINT_PAYLOAD_BYTES_MIN: u64 = 256 * MIB;
/// Bytes of the log on disk from which on a checkpoint is due however few entries are in them.
pub const LOG_BYTES_MAX: u64 = 2 * 1_024 * MIB;
/// Between a checkpoint that could not be written and the next attempt.
pub const CHECKPOINT_RETRY_SECONDS: u64 = 10;
/// Blocks of a checkpoint that wait for the disk.
pub const CHECKPOINT_BLOCKS_WAITING_MAX: usize = 16;
/// Messages from the thread that writes checkpoints: one for each block, one for the whole, one for a read.
pub const CHECKPOINT_ANSWERS_MAX: usize = CHECKPOINT_BLOCKS_WAITING_MAX + 3;
/// Bytes of a checkpoint that are written between two syncs of its file.
pub const CHECKPOINT_SYNC_BYTES: u64 = 4 * MIB;
/// One row of a table without versions, in a checkpoint: what fits into an entry fits into a row.
pub const CHECKPOINT_ROW_BYTES_MAX: usize = (ENTRY_SIZE_BYTES_MAX + KIB / 2) as usize;
/// All such rows of one checkpoint.
pub const CHECKPOINT_ROWS_BYTES_MAX: usize = 256 * MIB as usize;
/// What writes and reads leave of a turn to a checkpoint that is being taken.
pub const SLICE_CHECKPOINT_STEPS: usize = SLICE_STEPS_MAX / 8;
/// The same while it, and no read before it, keeps more than [`RECLAIM_UNPAID_CHANGES_MAX`] changes from being reclaimed:
/// then writes get no more than it does. It keeps everything from its floor on until it has one version of each live key,
/// and then what it has not come to. With values of a few hundred bytes a live key takes as many steps as a put, and a
/// further change half as many again: over L live keys and K changes from the floor on it keeps at most 8,192 + L + K / 2,
/// as long as it does not wait for the disk.
pub const SLICE_AWAITED_CHECKPOINT_STEPS: usize = SLICE_STEPS_MAX / 2;

const _: () = assert!(LOG_BYTES_MAX >= 4 * SEGMENT_SIZE_BYTES);
const _: () = assert!(SLICE_CHECKPOINT_STEPS <= SLICE_AWAITED_CHECKPOINT_STEPS);
// Something is left to writes.
const _: () = assert!(
    SLICE_READS_STEPS + SLICE_RECLAIM_STEPS + SLICE_AWAITED_CHECKPOINT_STEPS < SLICE_STEPS_MAX
);

// Checkpoints on their way to a follower.

/// Blocks sent to one follower that it has not taken; as many wait there for those before them.
pub const TRANSFER_WINDOW_BLOCKS: u32 = 32;
/// Blocks of one read of the file.
pub const TRANSFER_READ_BLOCKS: u32 = 4;
/// Steps of reading a block into a state: as many versions as fit in one.
pub const TRANSFER_BLOCK_STEPS: usize = 512;
/// A slowed leader waits no longer for a follower that takes no block.
pub const TRANSFER_PACE_PATIENCE: Duration = Duration::from_secs(5);

const _: () = assert!(TRANSFER_READ_BLOCKS <= TRANSFER_WINDOW_BLOCKS);

// The simulator.

/// Lines of a trace that are kept when not all are asked for.
pub const SIM_TRACE_LINES_KEPT: usize = 200;
/// Members of one run, those that were removed and those that never joined included.
pub const SIM_MEMBERS_MAX: usize = 60;

// Members of a group.

/// What came from other members and is handled in one turn of a shard, in events.
pub const PEER_EVENTS_PER_TURN_MAX: usize = 256;
/// How long a member of a group that starts waits for a leader before it serves without one, in seconds.
pub const LEADER_WAIT_SECONDS_MAX: u64 = 5;
/// How long a member that stops waits until another one leads, in seconds.
pub const HAND_OVER_SECONDS_MAX: u64 = 5;
/// How long a member of a group that stops waits for answers that depend on other members, in seconds.
pub const STOP_SECONDS_MAX: u64 = 2;

// Damaged logs.

/// Lines about cuts that are kept beside a log.
pub const CUT_RECORDS_MAX: usize = 100;
/// Cuts of one start: the damage, and what it leaves to be cut.
pub const RECOVERY_CUTS_MAX: usize = 4;

// Between members.

/// One frame: an append of one entry of the largest size fits twice.
pub const PEER_FRAME_BYTES_MAX: usize = 2 * ENTRY_SIZE_BYTES_MAX as usize;

const _: () = assert!(RAFT_APPEND_BYTES_MAX + ENTRY_SIZE_BYTES_MAX < PEER_FRAME_BYTES_MAX as u64);
/// Bytes of messages of consensus that wait for the connection to one peer.
pub const PEER_QUEUED_BYTES_MAX: usize = 2 * RAFT_INFLIGHT_BYTES_MAX as usize;
/// Bytes of forwarded requests and their answers that wait for the connection to one peer.
pub const PEER_CLIENT_QUEUED_BYTES_MAX: usize = 32 * MIB as usize;
/// Bytes of checkpoints that wait for the connection to one peer.
pub const PEER_BULK_QUEUED_BYTES_MAX: usize = 4 * MIB as usize;
/// Messages of one of these kinds that wait, whatever their size.
pub const PEER_QUEUED_MESSAGES_MAX: usize = 2 * SHARD_FORWARDED_REQUESTS_MAX;
/// Encoded bytes that one connection holds for the kernel. Soft by one frame.
pub const PEER_UNSENT_BYTES_MAX: usize = 512 * KIB as usize;
/// Bytes that the end of a turn hands to the kernel for one connection; the rest goes beside the shard.
pub const PEER_FLUSH_BYTES_MAX: usize = MIB as usize;
/// Records up to this size are copied for the kernel, larger ones are gathered from where they lie.
pub const PEER_COPIED_BYTES_MAX: usize = 4 * KIB as usize;
/// Bytes received over one connection that the shard has not looked at. Soft by one buffer or frame.
pub const PEER_RECEIVED_BYTES_MAX: usize = 8 * MIB as usize;
/// What a connection receives into; more for a frame that is longer.
pub const PEER_RECEIVE_BUFFER_BYTES: usize = 64 * KIB as usize;
/// One frame from a directory that is not known to be the member's: an append of one entry, or a forwarded request, of
/// the usual largest size fits. One connection at a time may have a longer one under way, if its directory says that
/// the group has agreed on it.
pub const PEER_STRANGER_FRAME_BYTES_MAX: usize = 2 * MIB as usize;
/// A frame that has begun goes on by [`PEER_FRAME_GROWTH_BYTES_MIN`], or ends, in this time.
pub const PEER_FRAME_TIMEOUT: Duration = Duration::from_secs(10);
/// What comes of it in that time at least: slower than any link over which members could follow each other.
pub const PEER_FRAME_GROWTH_BYTES_MIN: usize = 64 * KIB as usize;
/// A peer's connections that have not said who they are yet.
pub const PEER_HANDSHAKES_MAX: usize = 64;
/// Members that are heard without being known as peers.
pub const PEER_STRANGERS_MAX: usize = 16;
/// Refused connections that are remembered, so that each is logged once.
pub const PEER_COMPLAINTS_MAX: usize = 64;
/// The kernel's answer to a connection attempt.
pub const PEER_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The peer's answer to a greeting.
pub const PEER_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes without an acknowledgement by the peer's kernel for this long end a connection.
pub const PEER_SILENCE_MAX: Duration = Duration::from_secs(3);
/// Between a lost connection and the first attempt for another one, at most.
pub const PEER_RECONNECT_MIN: Duration = Duration::from_millis(2);
/// Between two attempts, at most.
pub const PEER_RECONNECT_MAX: Duration = Duration::from_millis(250);
/// A connection that held for less counts as a failed attempt.
pub const PEER_SETTLED: Duration = Duration::from_secs(1);

const _: () = assert!(PEER_COPIED_BYTES_MAX < PEER_UNSENT_BYTES_MAX);
const _: () = assert!(PEER_FRAME_BYTES_MAX < PEER_QUEUED_BYTES_MAX);
const _: () = assert!(REQUEST_SIZE_BYTES_DEFAULT + KIB < PEER_STRANGER_FRAME_BYTES_MAX as u64);
const _: () = assert!(RAFT_APPEND_BYTES_MAX + KIB < PEER_STRANGER_FRAME_BYTES_MAX as u64);

// Membership on request.

/// Changes of the membership that wait for the one before.
pub const SHARD_MEMBERSHIP_REQUESTS_MAX: usize = 64;
/// Requests to move the leader that wait for it to move.
pub const SHARD_MOVE_REQUESTS_MAX: usize = 64;
/// `--max-learners`, unless it says otherwise.
pub const LEARNERS_MAX: usize = 1;

// Linearizable reads.

/// Confirmed rounds that wait for the index they rest on, each by itself. Above it the newest wait together.
pub const SHARD_ROUNDS_WAITING_MAX: usize = 1_024;

// What is said of other members.

/// Members of which it is said that their messages are refused.
pub const SHARD_REFUSED_PEERS_MAX: usize = 64;

// Who is no member.

/// Directories of those that are stored, and of as many more that are remembered: of the latter, who was not heard for
/// longest makes way.
pub const RAFT_STRANGERS_MAX: usize = 64;

// What one member may make another one hold.

/// Room for staged records that a leader's entries leave: for a cut before them, and for what this member
/// writes of its own accord when it is elected.
pub const SHARD_STAGED_RESERVE_BYTES: u64 = 64 * KIB;
/// Bytes of answers of the leader that wait until this member has committed what they rest on. Above half of it
/// nothing more is forwarded; an answer above the whole is given up, unless it is the only one.
pub const SHARD_FORWARDED_ANSWERS_BYTES_MAX: u64 = 64 * MIB;

// What an honest leader sends is taken whenever any entries are.
const _: () = assert!(
    SHARD_STAGED_BYTES_MAX / 2 + ENTRY_SIZE_BYTES_MAX + 2 * SHARD_STAGED_RESERVE_BYTES
        <= SHARD_STAGED_BYTES_MAX
);
const _: () = assert!(PEER_FRAME_BYTES_MAX as u64 <= SHARD_FORWARDED_ANSWERS_BYTES_MAX / 2);

// Commands of operators that ask a member.

/// For a member to take the connection.
pub const CLIENT_CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// From the first attempt to connect to its answer, without looking up its name: longer than a member waits for its group, with usual settings.
pub const CLIENT_CALL_TIME_MAX: Duration = Duration::from_secs(15);
/// One answer.
pub const CLIENT_ANSWER_BYTES_MAX: usize = 64 * KIB as usize;
/// The headers or trailers of one answer, by HTTP/2's way to count.
pub const CLIENT_HEADERS_BYTES_MAX: u32 = 16 * KIB as u32;
/// What is shown of a member's reason to refuse.
pub const CLIENT_REASON_CHARS_MAX: usize = 512;

// Reclaim of what compaction gave up.

/// Changes that may wait for reclaim while versions are written for nothing: so few are freed from what writes leave of
/// a turn, and nobody notices. While more wait, each version that a member folds, as leader, as follower or in a
/// replay, pays with steps of the same turn for looking at [`RECLAIM_CHANGES_PER_VERSION`] of them: what waits
/// shrinks with every write.
///
/// Its bound: say N versions are written between two compactions, each of which gives up N changes, and A changes
/// are of the revision at a floor (one, unless it was a large transaction), to be looked at once more below the next
/// floor. If W wait right after a compaction, at most max(8,192, W - 2 N) are left before the next one, which adds
/// N + A; and A is at most N. So no more than **8,192 + N + A** ever wait, and what is written in the turns until a
/// committed floor is followed. Beside them a member holds only what compaction keeps: a version of each live
/// key, and those from the floor on.
///
/// A compaction that gives up more, after a long time without one, adds nothing to what is held, and has that freed
/// by the time half as many versions are written. What is pinned does not wait: a read pins no longer than
/// its deadline; a checkpoint as said at [`SLICE_AWAITED_CHECKPOINT_STEPS`].
pub const RECLAIM_UNPAID_CHANGES_MAX: u64 = 8_192;
/// One would only keep what waits from growing, and not even that where each change is looked at twice.
pub const RECLAIM_CHANGES_PER_VERSION: usize = 2;

// What the clients of one member make the leader hold.

/// Bytes of requests that a member has sent to one leader and that are not answered, beside one of any size: half of
/// what may wait for that connection, where answers wait too. Above it they wait before they are sent.
pub const SHARD_FORWARDED_BYTES_MAX: u64 = 16 * MIB;
/// How long such a request counts after its client was told that it takes too long, unless it is answered or its
/// connection ends before: so long it may still wait for a slow connection.
pub const SHARD_FORWARDED_LINGER: Duration = Duration::from_secs(30);

/// Bytes of requests that clients of other members wait with for their turn at the leader, beside one of any size. Above
/// it what they forward is refused.
pub const SHARD_MEMBERS_WRITES_BYTES_MAX: u64 = 64 * MIB;

const _: () = assert!(ENTRY_SIZE_BYTES_MAX < SHARD_FORWARDED_BYTES_MAX);
const _: () = assert!(SHARD_FORWARDED_BYTES_MAX <= PEER_CLIENT_QUEUED_BYTES_MAX as u64 / 2);
const _: () = assert!(2 * SHARD_FORWARDED_BYTES_MAX <= SHARD_MEMBERS_WRITES_BYTES_MAX);
