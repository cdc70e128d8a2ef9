//! What a member's log loses at rest: single pages that go bad (flipped bits, lost and misdirected writes), and whole
//! files that are gone.
//!
//! Damage is remembered, that of a checkpoint too, so that it can be undone where nobody could be expected to repair it.
//! Never damages a second thing before the first one is undone or accepted, and nothing whose loss could not be noticed.

use std::collections::BTreeMap;

use super::{Disk, PAGE, Placed, SECTOR_SIZE_BYTES, Write};
use crate::base::{Index, Instant};
use crate::sim::dice::Dice;
use crate::wal::SegmentSequence;
use crate::wal::segment::SegmentHeader;

/// Files that are gone, and what lay in them.
#[derive(Clone, Debug)]
pub(super) struct LostFiles {
    files: BTreeMap<SegmentSequence, Vec<u8>>,
    placed: Vec<Placed>,
    recycled: Vec<Vec<u8>>,
}

/// Which files of a log are gone. Where there is no such tail, all are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// All.
    Everything,
    /// All that were begun; the next one, which waits for its header, stays.
    Begun,
    /// From one on, so that the log ends before a checkpoint that was taken from it.
    Tail,
    /// Of those the next one stays.
    TailBegun,
}

/// How a block goes bad at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Damage {
    /// One bit is another one.
    Flip,
    /// A sector holds zeros.
    Zero,
    /// The last write to a page never happened, though it was confirmed.
    Lost,
    /// A page holds what was written to another one.
    Misdirected,
}

impl Disk {
    /// Damages one synced page that has been there since `before` or earlier, so that it is vouched for.
    /// At most one page is bad at a time. Whether anything was done.
    pub fn spoil(&mut self, damage: Damage, before: Instant, dice: &mut Dice) -> bool {
        if self.is_damaged() {
            return false;
        }
        let eligible = self.placed.partition_point(|placed| placed.since <= before);
        if eligible == 0 {
            return false;
        }
        // Mostly among the newest: that is where the end of the log is judged.
        let newest = match dice.below(4) {
            0 => 1,
            1 => eligible.min(8),
            _ => eligible,
        };
        let victim = self.placed[eligible - 1 - dice.place(newest)];
        let at = victim.offset + dice.place(victim.length / PAGE) * PAGE;
        let page = self.files[&victim.segment][at..at + PAGE].to_vec();
        let mut bad = page.clone();
        match damage {
            Damage::Flip => {
                // Where records are, not in the padding.
                let used = page.iter().rposition(|&byte| byte != 0).unwrap_or(0) + 1;
                bad[dice.place(used)] ^= 1 << dice.below(8);
            }
            Damage::Zero => {
                let used = page.iter().rposition(|&byte| byte != 0).unwrap_or(0);
                let sector = dice.place(used / SECTOR_SIZE_BYTES + 1) * SECTOR_SIZE_BYTES;
                bad[sector..sector + SECTOR_SIZE_BYTES].fill(0);
            }
            Damage::Lost => bad.fill(0),
            Damage::Misdirected => {
                let other = self.placed[dice.place(eligible)];
                bad.copy_from_slice(&self.files[&other.segment][other.offset..][..PAGE]);
            }
        }
        if bad == page {
            return false;
        }
        self.put(victim.segment, at, &bad);
        self.damage.push(Write {
            segment: victim.segment,
            offset: at,
            bytes: page,
        });
        true
    }

    /// Takes files of the log, if that can be told from a log that never had them. Whether anything was done.
    pub fn lose(&mut self, loss: Loss, dice: &mut Dice, now: Instant) -> bool {
        if self.is_damaged() {
            return false;
        }
        self.sync(now);
        let begun = self.begun();
        // Nothing vouches for a tail but a checkpoint of its own that lies in it, also below one that was received.
        let own = self.led_to(Index(u64::MAX));
        let led_to = |(_, first): &&(SegmentSequence, Index)| *first <= own;
        let tails = begun.iter().skip(1).take_while(led_to).count();
        let (first, keeps_next) = match loss {
            Loss::Tail if tails > 0 => (1 + dice.place(tails), false),
            Loss::TailBegun if tails > 0 => (1 + dice.place(tails), true),
            Loss::Everything | Loss::Tail => (0, false),
            Loss::Begun | Loss::TailBegun => (0, true),
        };
        // Those that wait to be used again lie in the same directory.
        let all_begun = first == 0;
        let Some(&(first, _)) = begun.get(first) else {
            return false;
        };
        let is_next = |segment| begun.iter().all(|&(other, _)| other < segment);
        let goes = |segment| segment >= first && !(keeps_next && is_next(segment));
        self.lost = Some(LostFiles {
            files: self
                .files
                .extract_if(.., |&segment, _| goes(segment))
                .collect(),
            placed: self
                .placed
                .extract_if(.., |placed| goes(placed.segment))
                .collect(),
            recycled: if all_begun {
                std::mem::take(&mut self.recycled)
            } else {
                Vec::new()
            },
        });
        true
    }

    /// Whether there is a segment that says whose it is.
    #[must_use]
    pub fn has_segments(&self) -> bool {
        !self.begun().is_empty()
    }

    /// The segments that have headers, and the first index of each.
    fn begun(&self) -> Vec<(SegmentSequence, Index)> {
        let offsets = self.geometry.header_offsets();
        let header = |(&segment, bytes): (&SegmentSequence, &Vec<u8>)| {
            let pages = offsets.iter().map(|&offset| {
                let offset = usize::try_from(offset).expect("an offset fits in an address");
                SegmentHeader::parse(&bytes[offset..])
            });
            let own = pages.flatten().find(|header| header.sequence == segment);
            own.map(|header| (segment, header.first_index))
        };
        self.files.iter().filter_map(header).collect()
    }

    /// Whether files of the log are gone, and nobody has noticed yet.
    #[must_use]
    pub fn has_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// Whether damage was done that is neither undone nor accepted.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        !self.damage.is_empty() || self.spoiled.is_some() || self.lost.is_some()
    }

    /// The bytes are again what they were: the directory was restored by an operator.
    pub fn undo_damage(&mut self) {
        while let Some(write) = self.damage.pop() {
            self.put(write.segment, write.offset, &write.bytes);
        }
        self.checkpoints.extend(self.spoiled.take());
        if let Some(lost) = self.lost.take() {
            self.files.extend(lost.files);
            self.recycled.extend(lost.recycled);
            self.placed.extend(lost.placed);
            self.placed.sort_by_key(|placed| placed.since);
        }
    }

    /// The member lives with the damage of its log: it was repaired, cut off, or where nothing is read.
    pub fn accept_damage(&mut self) {
        self.damage.clear();
        self.lost = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ClusterId, Incarnation, MemberId, ShardId};
    use crate::checkpoint::Source;
    use crate::sim::disk::CheckpointName;
    use crate::sim::disk::tests::{SEGMENT, disk};
    use crate::wal::append::header_page;
    use crate::wal::{CommitSequence, Cut, Geometry, LogIdentity};

    /// Goal: damage changes one old page, once, and can be undone.
    #[test]
    fn damage_and_its_end() {
        for damage in [
            Damage::Flip,
            Damage::Zero,
            Damage::Lost,
            Damage::Misdirected,
        ] {
            let mut disk = disk();
            let mut dice = Dice::new(3, 0);
            disk.write_synced(SEGMENT, 4_096, &[1; PAGE], Instant(5));
            disk.write_synced(SEGMENT, 8_192, &[2; PAGE], Instant(6));
            disk.write_synced(SEGMENT, 12_288, &[3; PAGE], Instant(9));
            let whole = disk.read(SEGMENT).to_vec();
            assert!(!disk.spoil(damage, Instant(4), &mut dice), "nothing is old");
            let mut tries = 0..100;
            assert!(tries.any(|_| disk.spoil(damage, Instant(6), &mut dice)));
            assert!(!disk.spoil(damage, Instant(6), &mut dice), "once");
            assert_ne!(disk.read(SEGMENT), whole);
            assert_eq!(disk.read(SEGMENT)[12_288..], whole[12_288..], "too young");
            disk.undo_damage();
            assert_eq!(disk.read(SEGMENT), whole);
        }
    }

    /// Goal: files of a log go where that can be noticed, what an operator brings back is what there was, and a cut leaves
    /// nothing to bring back.
    #[test]
    fn lost_files() {
        let with_segments = |begun: u64| {
            let mut disk = Disk::new(Geometry::new(64 * 1_024));
            for sequence in 1..=begun {
                disk.prepare(SegmentSequence(sequence));
                let page = header_page(&header(sequence, disk.geometry()));
                disk.write_synced(SegmentSequence(sequence), 0, &page, Instant(sequence));
            }
            disk.prepare(SegmentSequence(begun + 1));
            disk
        };
        let check = |loss: Loss, checkpoints: &[CheckpointName], expected: &[u64]| {
            let mut disk = with_segments(3);
            for &(index, source) in checkpoints {
                disk.write_checkpoint(0, &[1; PAGE]);
                disk.name_checkpoint(index, source);
                disk.finish_checkpoint(index);
            }
            let listing = |disk: &Disk| -> Vec<u64> {
                disk.listing().iter().map(|file| file.sequence.0).collect()
            };
            assert!(
                disk.lose(loss, &mut Dice::new(1, 0), Instant(9)),
                "{loss:?}"
            );
            assert!(!disk.lose(loss, &mut Dice::new(1, 0), Instant(9)), "once");
            assert!(disk.is_damaged() && disk.has_lost());
            assert_eq!(listing(&disk), expected, "{loss:?} {checkpoints:?}");
            let mut cut = disk.clone();
            cut.cut(Cut::Everything, false);
            cut.undo_damage();
            assert!(cut.listing().is_empty() && !cut.is_damaged());
            disk.undo_damage();
            assert_eq!(listing(&disk), [1, 2, 3, 4]);
            assert!(!disk.is_damaged());
        };
        let own = |index| (Index(index), Source::Log);
        let received = |index| (Index(index), Source::Member);
        check(Loss::Everything, &[], &[]);
        check(Loss::Begun, &[], &[4]);
        // Nothing vouches for a tail.
        check(Loss::Tail, &[], &[]);
        check(Loss::Tail, &[received(19)], &[]);
        check(Loss::TailBegun, &[own(9)], &[4]);
        // Segment 2 begins with index 10, segment 3 with index 20.
        check(Loss::Tail, &[own(10)], &[1]);
        check(Loss::TailBegun, &[own(19)], &[1, 4]);
        check(Loss::Tail, &[own(10), received(90)], &[1]);
        let mut new = Disk::new(Geometry::new(64 * 1_024));
        new.prepare(SEGMENT);
        assert!(!new.lose(Loss::Everything, &mut Dice::new(1, 0), Instant(9)));
    }

    fn header(sequence: u64, geometry: Geometry) -> SegmentHeader {
        SegmentHeader {
            identity: LogIdentity {
                cluster: ClusterId(1),
                member: MemberId(1),
                incarnation: Incarnation(1),
                shard: ShardId(0),
            },
            segment_size_bytes: geometry.segment_size_bytes(),
            sequence: SegmentSequence(sequence),
            salt: sequence,
            first_index: Index(10 * (sequence - 1)),
            first_commit: CommitSequence(sequence),
            previous_sequence: SegmentSequence(sequence - 1),
            previous_checksum: 0,
        }
    }
}
