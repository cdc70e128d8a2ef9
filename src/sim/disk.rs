//! One member's disk: the files of its log, byte by byte, and what can go wrong with them.
//!
//! What was synced is in a file's bytes. What was written and not synced survives the death of the process
//! (it is in the page cache) and is lost, or torn, by a power cut: whole pages, or single sectors, in
//! any combination. Damage at rest (flipped bits, lost and misdirected writes) is remembered, so that it can be undone
//! where nobody could be expected to repair it. Decides nothing by itself.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::dice::Dice;
use crate::base::limits::PAGE_SIZE_BYTES;
use crate::base::{Index, Instant};
use crate::checkpoint::Source;
use crate::shard::event::CheckpointRead;
use crate::wal::segment::SegmentHeader;
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

/// What the name of a checkpoint's file says.
pub type CheckpointName = (Index, Source);

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

/// Files that are gone, and what lay in them.
#[derive(Clone, Debug)]
struct LostFiles {
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

    /// Checkpoints, newest first.
    pub fn checkpoints(&self) -> impl Iterator<Item = (CheckpointName, &[u8])> {
        let all = self.checkpoints.iter().rev();
        all.map(|(&name, bytes)| (name, bytes.as_slice()))
    }

    /// How far the log led once, as the names of checkpoints up to `index` say: one of its own gets its name when the log
    /// is durable that far.
    #[must_use]
    pub fn led_to(&self, index: Index) -> Index {
        let names = self.checkpoints.keys().rev();
        let mut own = names.filter(|&&(own, source)| source == Source::Log && own <= index);
        own.next().map_or(Index(0), |&(own, _)| own)
    }

    /// The file of a checkpoint begins.
    pub fn begin_checkpoint(&mut self) {
        self.writing.clear();
        self.naming = None;
    }

    /// It is being synced and named: from now on a crash may leave it there.
    pub fn name_checkpoint(&mut self, index: Index, source: Source) {
        self.naming = Some((index, source));
    }

    /// What the name of a checkpoint says; of two, the one that promises less.
    #[must_use]
    pub fn checkpoint_source(&self, index: Index) -> Source {
        if self.checkpoints.contains_key(&(index, Source::Member)) {
            Source::Member
        } else {
            Source::Log
        }
    }

    /// A checkpoint that was received gets the name of one of its own. Until that is synced, a power cut may undo it.
    pub fn settle_checkpoint(&mut self, index: Index) {
        if self.rename_checkpoint(index, Source::Member, Source::Log) {
            self.renamed.insert(index);
        }
    }

    /// The directory of the checkpoints is synced.
    pub fn sync_names(&mut self) {
        self.renamed.clear();
    }

    fn rename_checkpoint(&mut self, index: Index, from: Source, to: Source) -> bool {
        let Some(bytes) = self.checkpoints.remove(&(index, from)) else {
            return false;
        };
        self.checkpoints.insert((index, to), bytes);
        // What had that name is gone.
        self.spoiled.take_if(|(name, _)| *name == (index, to));
        if let Some((name, _)) = &mut self.spoiled
            && *name == (index, from)
        {
            name.1 = to;
        }
        true
    }

    /// Its writer died. What was being named may have its name, also beside one of the same index from elsewhere; a file
    /// without a name is removed.
    pub fn abandon_checkpoint(&mut self, dice: &mut Dice) {
        if let Some((index, source)) = self.naming {
            let other = match source {
                Source::Log => (index, Source::Member),
                Source::Member => (index, Source::Log),
            };
            match dice.below(4) {
                0 if self.checkpoints.contains_key(&other) => self.put_checkpoint((index, source)),
                0 | 1 => self.finish_checkpoint(index),
                _ => {}
            }
        }
        self.begin_checkpoint();
    }

    /// A part of it is written.
    pub fn write_checkpoint(&mut self, offset: u64, bytes: &[u8]) {
        let from = usize::try_from(offset).expect("an offset fits in an address");
        let to = from + bytes.len();
        if self.writing.len() < to {
            self.writing.resize(to, 0);
        }
        self.writing[from..to].copy_from_slice(bytes);
    }

    /// It is synced and has its name, and no other has that index.
    pub fn finish_checkpoint(&mut self, index: Index) {
        let source = self.naming.take().map_or(Source::Log, |(_, source)| source);
        for other in [Source::Log, Source::Member] {
            self.remove_checkpoint((index, other));
        }
        self.put_checkpoint((index, source));
        self.sync_names();
    }

    fn put_checkpoint(&mut self, name: CheckpointName) {
        let bytes = std::mem::take(&mut self.writing);
        self.remove_checkpoint(name);
        self.checkpoints.insert(name, bytes);
    }

    /// A part of one that has its name; what is not there is missing.
    #[must_use]
    pub fn read_checkpoint(&self, read: &CheckpointRead) -> Bytes {
        let named = |source| self.checkpoints.get(&(read.id.index, source));
        let file = named(Source::Log).or_else(|| named(Source::Member));
        let file = file.map_or(&[][..], Vec::as_slice);
        let from = usize::try_from(read.offset()).expect("an offset fits in an address");
        let from = file.len().min(from);
        let to = file.len().min(from + read.size_bytes());
        Bytes::copy_from_slice(&file[from..to])
    }

    /// Older ones go.
    pub fn remove_checkpoints_before(&mut self, index: Index) {
        self.checkpoints = self.checkpoints.split_off(&(index, Source::Log));
        self.spoiled.take_if(|((spoiled, _), _)| *spoiled < index);
        self.sync_names();
    }

    /// This one goes.
    pub fn remove_checkpoint(&mut self, name: CheckpointName) {
        self.checkpoints.remove(&name);
        self.spoiled.take_if(|spoiled| spoiled.0 == name);
    }

    /// Damages the file of the newest checkpoint, if there is one and nothing else is bad. Whether anything was done.
    pub fn spoil_checkpoint(&mut self, damage: Damage, dice: &mut Dice) -> bool {
        if self.is_damaged() {
            return false;
        }
        let Some(mut newest) = self.checkpoints.last_entry() else {
            return false;
        };
        let name = *newest.key();
        let bytes = newest.get_mut();
        let whole = bytes.clone();
        let part = |size: usize, dice: &mut Dice| {
            let from = dice.place(whole.len().div_ceil(size)) * size;
            from..whole.len().min(from + size)
        };
        match damage {
            Damage::Flip => bytes[dice.place(whole.len())] ^= 1 << dice.below(8),
            Damage::Zero => bytes[part(SECTOR_SIZE_BYTES, dice)].fill(0),
            // The end of the file was never written.
            Damage::Lost => bytes.truncate(dice.place(whole.len())),
            Damage::Misdirected => {
                let (at, other) = (part(PAGE, dice), part(PAGE, dice));
                let length = at.len().min(other.len());
                bytes[at.start..][..length].copy_from_slice(&whole[other.start..][..length]);
            }
        }
        if *bytes == whole {
            return false;
        }
        self.spoiled = Some((name, whole));
        true
    }

    /// Whether the file of this checkpoint is damaged.
    #[must_use]
    pub fn is_spoiled(&self, name: CheckpointName) -> bool {
        self.spoiled
            .as_ref()
            .is_some_and(|spoiled| spoiled.0 == name)
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
        for index in std::mem::take(&mut self.renamed) {
            if dice.below(2) == 0 && !self.checkpoints.contains_key(&(index, Source::Member)) {
                self.rename_checkpoint(index, Source::Log, Source::Member);
            }
        }
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
    use crate::base::{ClusterId, Incarnation, MemberId, ShardId};
    use crate::wal::append::header_page;
    use crate::wal::{CommitSequence, LogIdentity};

    const SEGMENT: SegmentSequence = SegmentSequence(1);

    fn disk() -> Disk {
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

    /// Goal: a received checkpoint that was renamed has either name after a power cut, until the directory is synced; of two at
    /// one index the one that promises less comes first, and a third replaces both.
    #[test]
    fn names_of_checkpoints() {
        let received = || {
            let mut disk = disk();
            disk.name_checkpoint(Index(4), Source::Member);
            disk.write_checkpoint(0, &[1]);
            disk.finish_checkpoint(Index(4));
            disk
        };
        let names = |disk: &Disk| -> Vec<Source> {
            disk.checkpoints().map(|((_, source), _)| source).collect()
        };
        let after_power_cut = |synced: bool| {
            let after = |seed| {
                let mut disk = received();
                disk.settle_checkpoint(Index(4));
                if synced {
                    disk.sync_names();
                }
                disk.power_cut(Tear::Nothing, &mut Dice::new(seed, 0), Instant(1));
                names(&disk)
            };
            let mut seen: Vec<_> = (0..20).map(after).collect();
            seen.sort();
            seen.dedup();
            seen
        };
        let (own, other) = (vec![Source::Log], vec![Source::Member]);
        assert_eq!(after_power_cut(false), [own.clone(), other]);
        assert_eq!(after_power_cut(true), [own]);
        let died = |seed| {
            let mut disk = received();
            disk.begin_checkpoint();
            disk.write_checkpoint(0, &[2]);
            disk.name_checkpoint(Index(4), Source::Log);
            disk.abandon_checkpoint(&mut Dice::new(seed, 0));
            disk
        };
        let both = [Source::Member, Source::Log];
        let mut both = (0..40).map(died).filter(|disk| names(disk) == both);
        let mut both = both.next().expect("one death leaves both");
        both.write_checkpoint(0, &[3]);
        both.finish_checkpoint(Index(4));
        assert_eq!(names(&both), [Source::Log]);
    }

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

    /// Goal: a damaged checkpoint is another file, counts as damage until it goes or is written anew, and can be undone.
    #[test]
    fn damaged_checkpoint() {
        for damage in [
            Damage::Flip,
            Damage::Zero,
            Damage::Lost,
            Damage::Misdirected,
        ] {
            let mut disk = disk();
            let mut dice = Dice::new(5, 0);
            assert!(!disk.spoil_checkpoint(damage, &mut dice), "there is none");
            let whole: Vec<u8> = (0..3 * PAGE).map(|at| (at / 7) as u8).collect();
            disk.write_checkpoint(0, &whole);
            disk.finish_checkpoint(Index(4));
            let mut tries = 0..100;
            assert!(tries.any(|_| disk.spoil_checkpoint(damage, &mut dice)));
            assert!(!disk.spoil_checkpoint(damage, &mut dice), "once");
            assert!(disk.is_damaged() && disk.is_spoiled((Index(4), Source::Log)));
            assert_ne!(
                disk.checkpoints().next(),
                Some(((Index(4), Source::Log), &whole[..]))
            );
            let mut undone = disk.clone();
            undone.undo_damage();
            assert_eq!(
                undone.checkpoints().next(),
                Some(((Index(4), Source::Log), &whole[..]))
            );
            let mut replaced = disk.clone();
            replaced.write_checkpoint(0, &whole);
            replaced.finish_checkpoint(Index(4));
            disk.remove_checkpoints_before(Index(5));
            assert!(![undone, replaced, disk].iter().any(Disk::is_damaged));
        }
    }
}
