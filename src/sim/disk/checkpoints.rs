//! The checkpoints of one member's disk: their files, the names these have, and damage to the newest.
//!
//! A name that was given is settled only once the directory is synced; until then a power cut may undo it. What is being
//! written counts for nothing before it has a name. Never touches the log, and never decides which checkpoint is
//! loaded.

use bytes::Bytes;

use super::{Damage, Disk, PAGE, SECTOR_SIZE_BYTES};
use crate::base::Index;
use crate::checkpoint::Source;
use crate::shard::event::CheckpointRead;
use crate::sim::dice::Dice;

/// What the name of a checkpoint's file says.
pub type CheckpointName = (Index, Source);

impl Disk {
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

    /// The power fails before the directory is synced: any of the renames may be undone.
    pub(super) fn lose_renames(&mut self, dice: &mut Dice) {
        for index in std::mem::take(&mut self.renamed) {
            if dice.below(2) == 0 && !self.checkpoints.contains_key(&(index, Source::Member)) {
                self.rename_checkpoint(index, Source::Log, Source::Member);
            }
        }
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Instant;
    use crate::sim::disk::Tear;
    use crate::sim::disk::tests::disk;

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
