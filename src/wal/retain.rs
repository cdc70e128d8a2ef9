//! What lies where in the log, and which segments may be recycled.
//!
//! Owns one summary per segment and a sparse list of marks, so memory stays small whatever the log
//! holds. Must never touch a file: the caller renames and rewrites what is named here.

use std::collections::VecDeque;

use crate::base::Index;
use crate::base::limits::LOCATION_STRIDE_BYTES;
use crate::wal::record::CommitSequence;
use crate::wal::segment::{Geometry, SegmentHeader, SegmentSequence};

/// A place in the log where a commit begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The segment.
    pub segment: SegmentSequence,
    /// The offset of the commit in it.
    pub offset: u64,
    /// The commit.
    pub commit: CommitSequence,
}

/// One segment that holds commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSummary {
    /// Its number.
    pub sequence: SegmentSequence,
    /// Its salt, without which its commits cannot be told from those of an earlier life.
    pub salt: u64,
    /// The index after the last entry before it.
    pub first_index: Index,
    /// The first commit in it.
    pub first_commit: CommitSequence,
}

/// What a commit put into the log, as far as finding it again is concerned.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extent {
    /// The lowest index of an entry in it.
    pub(crate) first_index: Option<Index>,
    /// The lowest index after which it voids entries.
    pub(crate) cut_after: Option<Index>,
}

/// Where each index lies, and what can go.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    segment_size_bytes: u64,
    /// Ascending, without gaps; the last one is the active segment.
    segments: VecDeque<SegmentSummary>,
    /// Ascending in index and in place. The present version of an index lies at or after the last mark
    /// that is not above it: a commit that voids entries always gets a mark, and removes those above.
    marks: VecDeque<(Index, Location)>,
}

impl Catalog {
    pub(crate) fn new(geometry: Geometry) -> Catalog {
        let segment_size_bytes = geometry.segment_size_bytes();
        Catalog {
            segment_size_bytes,
            segments: VecDeque::new(),
            marks: VecDeque::new(),
        }
    }

    pub(crate) fn add_segment(&mut self, header: &SegmentHeader) {
        let summary = SegmentSummary {
            sequence: header.sequence,
            salt: header.salt,
            first_index: header.first_index,
            first_commit: header.first_commit,
        };
        self.segments.push_back(summary);
    }

    pub(crate) fn add_commit(&mut self, location: Location, extent: Extent) {
        let cut_first = extent.cut_after.map(Index::next);
        let Some(lowest) = extent.first_index.into_iter().chain(cut_first).min() else {
            return;
        };
        if cut_first.is_some() {
            while self.marks.back().is_some_and(|(index, _)| *index >= lowest) {
                self.marks.pop_back();
            }
        } else if let Some((_, last)) = self.marks.back() {
            let near = last.segment == location.segment
                && location.offset - last.offset < LOCATION_STRIDE_BYTES;
            if near {
                return;
            }
        }
        self.marks.push_back((lowest, location));
    }

    /// Where to begin reading for `index`.
    pub(crate) fn locate(&self, index: Index) -> Option<Location> {
        let after = self.marks.partition_point(|(first, _)| *first <= index);
        after.checked_sub(1).map(|at| self.marks[at].1)
    }

    pub(crate) fn segments(&self) -> impl Iterator<Item = &SegmentSummary> {
        self.segments.iter()
    }

    pub(crate) fn log_size_bytes(&self) -> u64 {
        self.segments.len() as u64 * self.segment_size_bytes
    }

    /// The segments, oldest first, of which a state that needs the log from `kept_from` on needs nothing.
    ///
    /// What a segment holds ends where the next one begins, so a segment can go when the next begins at
    /// or below the first index that is still needed. Term and vote live in commit headers only, so two
    /// durable commits must lie behind it as well. The active segment never goes.
    pub(crate) fn recyclable(
        &self,
        kept_from: Index,
        durable_commit: CommitSequence,
    ) -> Vec<SegmentSequence> {
        let followers = self.segments.iter().skip(1);
        let needless = |next: &SegmentSummary| {
            let second = next.first_commit.next();
            next.first_index <= kept_from && second <= durable_commit
        };
        let pairs = self.segments.iter().zip(followers);
        pairs
            .take_while(|(_, next)| needless(next))
            .map(|(segment, _)| segment.sequence)
            .collect()
    }

    /// Forgets the oldest segment and the marks in it.
    pub(crate) fn remove_oldest(&mut self, sequence: SegmentSequence) {
        assert!(
            self.segments.len() > 1,
            "segment {sequence} is the active one and cannot be recycled"
        );
        let oldest = self.segments.pop_front().expect("more than one segment");
        assert_eq!(
            oldest.sequence, sequence,
            "segments are recycled oldest first"
        );
        while self
            .marks
            .front()
            .is_some_and(|(_, location)| location.segment == sequence)
        {
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ClusterId, Incarnation, MemberId, ShardId};
    use crate::wal::segment::LogIdentity;

    fn catalog(first_indexes: &[u64]) -> Catalog {
        let mut catalog = Catalog::new(Geometry::new(65_536));
        for (at, first_index) in first_indexes.iter().enumerate() {
            catalog.add_segment(&SegmentHeader {
                identity: LogIdentity {
                    cluster: ClusterId(1),
                    member: MemberId(2),
                    incarnation: Incarnation(3),
                    shard: ShardId(0),
                },
                segment_size_bytes: 65_536,
                sequence: SegmentSequence(at as u64 + 1),
                salt: 1,
                first_index: Index(*first_index),
                first_commit: CommitSequence(at as u64 * 10 + 1),
                previous_sequence: SegmentSequence(at as u64),
                previous_checksum: 0,
            });
        }
        catalog
    }

    /// Goal: a segment goes only when every index in it is below what is kept and two durable commits
    /// follow, which carry term and vote; and never the active one.
    #[test]
    fn recyclable() {
        let check = |kept_from: u64, durable: u64, expected: &[u64]| {
            let found =
                catalog(&[1, 10, 10, 25]).recyclable(Index(kept_from), CommitSequence(durable));
            let found: Vec<u64> = found.iter().map(|sequence| sequence.0).collect();
            assert_eq!(found, expected, "kept from {kept_from}, durable {durable}");
        };
        check(0, 99, &[]);
        check(9, 99, &[]);
        check(10, 99, &[1, 2]);
        check(24, 99, &[1, 2]);
        check(25, 99, &[1, 2, 3]);
        check(1000, 99, &[1, 2, 3]);
        check(1000, 32, &[1, 2, 3]);
        check(1000, 31, &[1, 2]);
        check(1000, 11, &[]);
    }

    fn location(segment: u64, offset: u64) -> Location {
        Location {
            segment: SegmentSequence(segment),
            offset,
            commit: CommitSequence(offset / 4096),
        }
    }

    /// Goal: a mark leads at or before the present version of an index, also after entries were voided,
    /// and the list stays sparse.
    #[test]
    fn locate() {
        let mut catalog = catalog(&[1, 500]);
        let entries = |first: u64| Extent {
            first_index: Some(Index(first)),
            cut_after: None,
        };
        for commit in 0..64 {
            catalog.add_commit(location(1, 4096 * (commit + 1)), entries(1 + commit * 10));
        }
        assert_eq!(catalog.marks.len(), 4);
        let offset = |catalog: &Catalog, index: u64| {
            catalog
                .locate(Index(index))
                .map(|found| found.offset / 4096)
        };
        assert_eq!(offset(&catalog, 0), None);
        assert_eq!(offset(&catalog, 160), Some(1));
        assert_eq!(offset(&catalog, 161), Some(17));
        assert_eq!(offset(&catalog, 9999), Some(49));
        catalog.add_commit(
            location(2, 4096 * 65),
            Extent {
                first_index: Some(Index(171)),
                cut_after: Some(Index(170)),
            },
        );
        assert_eq!(offset(&catalog, 170), Some(17));
        assert_eq!(offset(&catalog, 171), Some(65));
        assert_eq!(offset(&catalog, 400), Some(65));
        catalog.add_commit(location(2, 4096 * 66), Extent::default());
        assert_eq!(catalog.marks.len(), 3);
        catalog.remove_oldest(SegmentSequence(1));
        assert_eq!(offset(&catalog, 170), None);
        assert_eq!(offset(&catalog, 171), Some(65));
        assert_eq!(catalog.log_size_bytes(), 65_536);
    }
}
