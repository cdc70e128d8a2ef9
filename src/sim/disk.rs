//! One member's disk: the files of its log, byte by byte, and what can go wrong with them.
//!
//! What was synced is in a file's bytes. What was written and not synced survives the death of the process
//! (it is in the page cache) and is lost, or torn, by a power cut: whole pages, or single sectors, in
//! any combination. Checkpoints lie beside the log, in `checkpoints`; what the disk loses at rest is in `loss`. Decides
//! nothing by itself.

mod checkpoints;
mod loss;

use std::collections::{BTreeMap, BTreeSet};

pub use self::checkpoints::CheckpointName;
use self::loss::LostFiles;
pub use self::loss::{Damage, Loss};
use super::dice::Dice;
use crate::base::limits::PAGE_SIZE_BYTES;
use crate::base::{Index, Instant};
use crate::wal::{Cut, Geometry, SegmentFile, SegmentSequence};

/// What a disk writes as one.
pub const SECTOR_SIZE_BYTES: usize = 512;

const PAGE: usize = PAGE_SIZE_BYTES as usize;

/// The files of one member's log.
#[derive(Clone, Debug)]
pub struct Disk {
    geometry: Geometry,
    files: BTreeMap<SegmentSequence, Vec<u8>>,
    /// In the page cache only, in the order of writing.
    unsynced: Vec<Write>,
    /// Where synced bytes lie, and since when by the member's clock.
    placed: Vec<Placed>,
    /// What damage has replaced.
    damage: Vec<Write>,
    /// Whole files of the log that are gone.
    lost: Option<LostFiles>,
    /// Files of segments that were given up, as they were: the next segments are made of them.
    recycled: Vec<Vec<u8>>,
    /// Whether there was a segment once: said beside the log.
    has_begun: bool,
    /// Checkpoints that have their names. Of two at one index that which promises less is the newer one.
    checkpoints: BTreeMap<CheckpointName, Vec<u8>>,
    /// Which of them is damaged, and what it was.
    spoiled: Option<(CheckpointName, Vec<u8>)>,
    /// The one that is being written. A crash leaves nothing of it that counts.
    writing: Vec<u8>,
    /// It is about to get its name.
    naming: Option<CheckpointName>,
    /// Which of those that were received have the names of ones of its own, though no sync of the directory says so.
    renamed: BTreeSet<Index>,
}

/// Some bytes and their place.
#[derive(Clone, Debug)]
struct Write {
    segment: SegmentSequence,
    offset: usize,
    bytes: Vec<u8>,
}

/// A synced write.
#[derive(Clone, Copy, Debug)]
struct Placed {
    segment: SegmentSequence,
    offset: usize,
    length: usize,
    since: Instant,
}

/// How much of what was not synced a power cut leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tear {
    /// Nothing.
    Nothing,
    /// Everything.
    Everything,
    /// Any of the pages.
    Pages,
    /// Any of the sectors.
    Sectors,
    /// The sectors up to some point.
    Prefix,
}

impl Disk {
    /// An empty directory.
    #[must_use]
    pub fn new(geometry: Geometry) -> Disk {
        Disk {
            geometry,
            files: BTreeMap::new(),
            unsynced: Vec::new(),
            placed: Vec::new(),
            damage: Vec::new(),
            lost: None,
            recycled: Vec::new(),
            has_begun: false,
            checkpoints: BTreeMap::new(),
            spoiled: None,
            writing: Vec::new(),
            naming: None,
            renamed: BTreeSet::new(),
        }
    }

    /// The sizes of its files.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// What a listing shows.
    #[must_use]
    pub fn listing(&self) -> Vec<SegmentFile> {
        let file = |(&sequence, bytes): (&SegmentSequence, &Vec<u8>)| SegmentFile {
            sequence,
            size_bytes: bytes.len() as u64,
        };
        self.files.iter().map(file).collect()
    }

    /// A file as it is read past the page cache.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn read(&self, segment: SegmentSequence) -> &[u8] {
        &self.files[&segment]
    }

    /// Whether there is such a file.
    #[must_use]
    pub fn holds(&self, segment: SegmentSequence) -> bool {
        self.files.contains_key(&segment)
    }

    /// A file is made and synced: of one that was given up, or of zeros. One that exists stays as it is.
    pub fn prepare(&mut self, segment: SegmentSequence) {
        let size = usize::try_from(self.geometry.segment_size_bytes()).expect("a segment fits");
        let recycled = &mut self.recycled;
        self.files
            .entry(segment)
            .or_insert_with(|| recycled.pop().unwrap_or_else(|| vec![0; size]));
        self.has_begun = true;
    }

    /// Whether a segment was ever made.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Nothing needs a segment any more.
    pub fn recycle(&mut self, segment: SegmentSequence) {
        let bytes = self.files.remove(&segment);
        self.recycled.extend(bytes);
        self.placed.retain(|placed| placed.segment != segment);
        self.damage.retain(|write| write.segment != segment);
    }

    /// A write and its sync are complete.
    pub fn write_synced(
        &mut self,
        segment: SegmentSequence,
        offset: u64,
        bytes: &[u8],
        now: Instant,
    ) {
        // A sync covers the file, so also what an earlier process left in the page cache.
        if self.unsynced.iter().any(|write| write.segment == segment) {
            self.sync(now);
        }
        let offset = usize::try_from(offset).expect("an offset fits in an address");
        self.put(segment, offset, bytes);
        self.placed.push(Placed {
            segment,
            offset,
            length: bytes.len(),
            since: now,
        });
    }

    /// A write stays in the page cache, and nobody syncs it.
    pub fn write_unsynced(&mut self, segment: SegmentSequence, offset: u64, bytes: &[u8]) {
        let offset = usize::try_from(offset).expect("an offset fits in an address");
        self.unsynced.push(Write {
            segment,
            offset,
            bytes: bytes.to_vec(),
        });
    }

    /// Whether something waits in the page cache.
    #[must_use]
    pub fn has_unsynced(&self) -> bool {
        !self.unsynced.is_empty()
    }

    /// Everything in the page cache is synced.
    pub fn sync(&mut self, now: Instant) {
        for write in std::mem::take(&mut self.unsynced) {
            self.write_synced(write.segment, write.offset as u64, &write.bytes, now);
        }
    }

    /// The power fails: what was not synced is lost as `tear` says, and a name may be what it was.
    pub fn power_cut(&mut self, tear: Tear, dice: &mut Dice, now: Instant) {
        self.lose_renames(dice);
        for write in std::mem::take(&mut self.unsynced) {
            self.tear(&write, tear, dice);
            self.placed.push(Placed {
                segment: write.segment,
                offset: write.offset,
                length: write.bytes.len(),
                since: now,
            });
        }
    }

    fn tear(&mut self, write: &Write, tear: Tear, dice: &mut Dice) {
        let unit = if tear == Tear::Pages {
            PAGE
        } else {
            SECTOR_SIZE_BYTES
        };
        let units = write.bytes.len() / unit;
        let prefix = dice.place(units + 1);
        for at in 0..units {
            let kept = match tear {
                Tear::Nothing => false,
                Tear::Everything => true,
                Tear::Pages | Tear::Sectors => dice.below(2) == 0,
                Tear::Prefix => at < prefix,
            };
            if kept {
                let bytes = &write.bytes[at * unit..][..unit];
                self.put(write.segment, write.offset + at * unit, bytes);
            }
        }
    }

    /// Cuts the log as the product does; a crash `in_between` leaves the damaged segment itself as it is.
    pub fn cut(&mut self, cut: Cut, in_between: bool) {
        // Nobody brings back what was there before.
        self.lost = None;
        let (zeros, first_gone) = match cut {
            Cut::At { segment, offset } => (Some((segment, offset)), segment.next()),
            Cut::From(segment) => (None, segment),
            Cut::Everything => (None, SegmentSequence(0)),
        };
        self.files.retain(|&segment, _| segment < first_gone);
        if self.files.is_empty() {
            // Those that wait to be used again lie in the same directory.
            self.recycled.clear();
        }
        self.placed.retain(|placed| placed.segment < first_gone);
        self.damage.retain(|write| write.segment < first_gone);
        let Some((segment, offset)) = zeros.filter(|_| !in_between) else {
            return;
        };
        let place = |offset| usize::try_from(offset).expect("an offset fits in an address");
        let (from, to) = (place(offset), place(self.geometry.commits_end()));
        self.put(segment, from, &vec![0; to - from]);
        self.placed
            .retain(|placed| placed.segment != segment || placed.offset < from);
        self.accept_damage();
    }

    /// Writes the page that recovery asks for.
    pub fn repair(&mut self, segment: SegmentSequence, offset: u64, page: &[u8]) {
        let offset = usize::try_from(offset).expect("an offset fits in an address");
        self.put(segment, offset, page);
    }

    fn put(&mut self, segment: SegmentSequence, offset: usize, bytes: &[u8]) {
        let file = self
            .files
            .get_mut(&segment)
            .expect("a segment is prepared before it is written");
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const SEGMENT: SegmentSequence = SegmentSequence(1);

    pub(super) fn disk() -> Disk {
        let mut disk = Disk::new(Geometry::new(64 * 1_024));
        disk.prepare(SEGMENT);
        disk
    }

    /// Goal: a killed process loses nothing, a power cut loses what its tear says and no synced byte.
    #[test]
    fn what_survives() {
        let check = |tear: Option<Tear>, expected: fn(usize) -> bool| {
            let mut disk = disk();
            disk.write_synced(SEGMENT, 4_096, &[1; PAGE], Instant(0));
            disk.write_unsynced(SEGMENT, 8_192, &[2; 4 * PAGE]);
            match tear {
                None => disk.sync(Instant(1)),
                Some(tear) => disk.power_cut(tear, &mut Dice::new(7, 0), Instant(1)),
            }
            assert!(!disk.has_unsynced());
            assert_eq!(disk.read(SEGMENT)[4_096..8_192], [1; PAGE]);
            let sectors = disk.read(SEGMENT)[8_192..8_192 + 4 * PAGE].chunks(SECTOR_SIZE_BYTES);
            let kept = sectors.filter(|sector| *sector == [2; SECTOR_SIZE_BYTES]);
            assert!(expected(kept.count()), "{tear:?}");
        };
        check(None, |kept| kept == 32);
        check(Some(Tear::Everything), |kept| kept == 32);
        check(Some(Tear::Nothing), |kept| kept == 0);
        check(Some(Tear::Pages), |kept| {
            kept.is_multiple_of(8) && kept < 32
        });
        check(Some(Tear::Sectors), |kept| (1..32).contains(&kept));
        check(Some(Tear::Prefix), |kept| kept <= 32);
    }
}
