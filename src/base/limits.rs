//! Every bound of the product in one place, tied together at compile time.

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

/// Requests a shard holds that are waiting for evaluation. Above it: `too many requests`.
pub const SHARD_QUEUE_REQUESTS_MAX: usize = 65_536;
/// Entries proposed and not yet committed. etcd refuses above 5,000; a batch here is far larger.
pub const SHARD_UNCOMMITTED_ENTRIES_MAX: usize = 65_536;
/// Bytes staged and not yet durable. Above it requests wait in the queue.
pub const SHARD_STAGED_BYTES_MAX: u64 = 32 * MIB;
/// Reads that are walked in slices at the same time on one shard.
pub const SHARD_RANGE_JOBS_MAX: usize = 4_096;
/// Steps (keys or versions visited) of a long fold, read or reclaim in one slice.
pub const SLICE_STEPS_MAX: usize = 2_048;

/// Batches in one mailbox between two cores.
pub const MAILBOX_BATCHES_MAX: usize = 1_024;

/// One kibibyte.
pub const KIB: u64 = 1_024;
/// One mebibyte.
pub const MIB: u64 = 1_024 * KIB;

const _: () = assert!(ENTRY_SIZE_BYTES_MAX < SEGMENT_SIZE_BYTES / 4);
const _: () = assert!(REQUEST_SIZE_BYTES_DEFAULT < ENTRY_SIZE_BYTES_MAX);
const _: () = assert!(COMMIT_SIZE_SOFT_BYTES.is_multiple_of(PAGE_SIZE_BYTES));
const _: () = assert!(SEGMENT_SIZE_BYTES.is_multiple_of(PAGE_SIZE_BYTES));

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
// The log.

/// Scratch memory an encoder keeps between two entries; what one large entry needed beyond it is freed.
pub const ENCODER_SCRATCH_BYTES_MAX: usize = 256 * KIB as usize;
/// Staging buffers a log keeps for reuse; a burst that needed more gives the rest back.
pub const STAGING_BUFFERS_KEPT_MAX: usize = 4;
/// A staging buffer that one large entry has grown above this is freed instead of kept.
pub const STAGING_BUFFER_KEPT_BYTES_MAX: usize = 1_024 * KIB as usize;
/// Log bytes between two marks of where an index lies: what a reader may have to skip, against memory.
pub const LOCATION_STRIDE_BYTES: u64 = 64 * KIB;
