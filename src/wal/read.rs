//! Entries out of the log's files, for a follower that lags.
//!
//! Reads what is known to be there: unlike recovery it judges nothing and ends at the first thing that does
//! not hold.

use super::record::{COMMIT_HEADER_BYTES, CommitHeader};
use crate::frame::{Record, RecordKind};

/// The entries in `bytes`, which begin at a commit, as far as whole commits go. A record's own checksum vouches
/// for it; behind the end of the log there may be those of an earlier use of the segment.
pub fn entries(bytes: &[u8]) -> impl Iterator<Item = Record<'_>> {
    commits(bytes)
        .flat_map(records)
        .filter(|record| record.header.kind == RecordKind::Entry)
}

fn commits(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let header = CommitHeader::parse(rest)?;
        let end = COMMIT_HEADER_BYTES + usize::try_from(header.body_length).ok()?;
        let body = rest.get(COMMIT_HEADER_BYTES..end)?;
        let size = usize::try_from(header.commit_size_bytes()).ok()?;
        rest = rest.get(size..).unwrap_or_default();
        Some(body)
    })
}

fn records(body: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let (record, behind) = Record::parse(rest).ok()?;
        rest = behind;
        Some(record)
    })
}
