//! Every sector of a small log is flipped, zeroed and replaced by a stale one.

use kontiki::wal::Outcome;
use kontiki::wal::damage::Cause;

use crate::disk::{Disk, Found, Placed, recover};

const SECTOR: usize = 512;

#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip,
    Zero,
    Stale,
}

/// Three live segments, all with an earlier life, and a spare with one.
fn log(sealed: bool) -> (Disk, u64) {
    let mut disk = Disk::new(32 * 1024);
    for _ in 0..28 {
        disk.commit(1, &[3000]);
    }
    disk.recycle(28);
    let start = disk.entries.len() as u64;
    disk.flush();
    while disk.appender.segments().count() < 4 {
        let size = 1 + (disk.entries.len() * 977) % 3900;
        disk.commit(2, &[size, 40, 400]);
    }
    // The active segment of the first life goes too, so that every live file was recycled.
    let first_kept = disk
        .appender
        .segments()
        .nth(1)
        .expect("four segments")
        .first_index
        .0;
    disk.recycle(first_kept);
    disk.commit(2, &[10, 20]);
    disk.commit(3, &[3000, 20]);
    if sealed {
        disk.seal();
    }
    assert_eq!(disk.appender.segments().count(), 3);
    (disk, start.max(first_kept))
}

/// What a damaged range must lead to.
fn check(disk: &Disk, start: u64, name: u64, found: &Found, at: usize, changed: bool, what: &str) {
    let size = disk.geometry.segment_size_bytes() as usize;
    let live = disk
        .appender
        .segments()
        .any(|segment| segment.sequence.0 == name);
    let all = &disk.entries[start as usize..];
    let touched = |commit: &&Placed| {
        commit.segment == name && at < commit.offset + commit.used && commit.offset < at + SECTOR
    };
    let hit = disk
        .commits
        .iter()
        .find(touched)
        .filter(|_| changed && live);
    let last = disk.commits.last().expect("commits");
    match hit {
        None => {
            assert_eq!(found.outcome(), Outcome::Clean, "{what}");
            assert_eq!(found.entries, all, "{what}");
            let header = live && changed && (at == 0 || at == size - 4096);
            assert_eq!(
                found.recovered.damaged_headers.len(),
                usize::from(header),
                "{what}"
            );
        }
        Some(commit) if (commit.segment, commit.offset) == (last.segment, last.offset) => {
            assert!(
                found.outcome().may_continue(),
                "{what}: {:?}",
                found.outcome()
            );
            assert_eq!(
                found.entries,
                disk.entries[start as usize..last.last_index_before as usize],
                "{what}"
            );
        }
        Some(commit) => {
            let Outcome::Corrupt(damage) = found.outcome() else {
                panic!("{what}: {:?}", found.outcome())
            };
            assert_eq!(
                (damage.segment.0, damage.offset),
                (name, commit.offset as u64),
                "{what}"
            );
            assert_eq!(damage.index.0, commit.last_index_before + 1, "{what}");
            assert!(matches!(damage.cause, Cause::Commit(_)), "{what}: {damage}");
            let before = commit.last_index_before.max(start);
            assert_eq!(
                found.entries,
                disk.entries[start as usize..before as usize],
                "{what}"
            );
        }
    }
}

/// Goal: each damaged sector has the one outcome the design names: nothing, when nobody needs it; a torn
/// tail, when it is the last commit and nothing vouches for it; corruption, everywhere else.
#[test]
fn every_sector() {
    for sealed in [false, true] {
        let (disk, start) = log(sealed);
        let undamaged = recover(disk.geometry, &disk.files, start).expect("accepted");
        assert_eq!(
            (undamaged.outcome(), undamaged.entries.as_slice()),
            (Outcome::Clean, &disk.entries[start as usize..])
        );
        for name in disk.files.keys().copied() {
            for at in (0..disk.files[&name].len()).step_by(SECTOR) {
                for kind in [Damage::Flip, Damage::Zero, Damage::Stale] {
                    let mut files = disk.files.clone();
                    let sector =
                        &mut files.get_mut(&name).expect("the file exists")[at..at + SECTOR];
                    let before = sector.to_vec();
                    match kind {
                        Damage::Flip => sector.iter_mut().for_each(|byte| *byte ^= 0xff),
                        Damage::Zero => sector.fill(0),
                        Damage::Stale => {
                            sector.copy_from_slice(&disk.stale[&name][at..at + SECTOR])
                        }
                    }
                    let changed = *sector != *before;
                    let what = format!("segment {name} offset {at} {kind:?} sealed {sealed}");
                    let found = recover(disk.geometry, &files, start)
                        .unwrap_or_else(|refusal| panic!("{what}: {refusal}"));
                    check(&disk, start, name, &found, at, changed, &what);
                }
            }
        }
    }
}

/// Goal: a whole stale segment, an earlier life put back as it was, never replays.
#[test]
fn a_whole_earlier_life_never_replays() {
    let (disk, start) = log(true);
    for (name, stale) in &disk.stale {
        if !disk
            .appender
            .segments()
            .any(|segment| segment.sequence.0 == *name)
        {
            continue;
        }
        let mut files = disk.files.clone();
        files.insert(*name, stale.clone());
        match recover(disk.geometry, &files, start) {
            Err(_) => {}
            Ok(found) => {
                let kept = found.entries.len();
                assert_eq!(
                    found.entries,
                    disk.entries[start as usize..][..kept],
                    "segment {name}"
                );
                let last_live = disk.commits.last().expect("commits").segment;
                assert!(
                    *name == last_live || !found.outcome().may_continue(),
                    "segment {name}"
                );
            }
        }
    }
}
