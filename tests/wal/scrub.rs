//! A scrub over sealed segments: silent on what was written, and loud about every sector that changed.

use kontiki::wal::check_sealed;

use crate::disk::{Disk, identity};

const SECTOR: usize = 512;

/// Goal: every sector of a sealed segment that holds something is checked, and nothing else is.
#[test]
fn every_used_sector() {
    let mut disk = Disk::new(32 * 1024);
    while disk.appender.segments().count() < 4 {
        let size = 1 + (disk.entries.len() * 977) % 3900;
        disk.commit(1, &[size, 40]);
    }
    let sealed = disk.appender.sealed_segments();
    assert_eq!(sealed.len(), 3, "the active segment is not sealed");
    for segment in sealed {
        let name = segment.summary.sequence.0;
        let intact = disk.files[&name].clone();
        check_sealed(disk.geometry, identity(), &segment, &intact).expect("intact");
        let used: Vec<_> = disk
            .commits
            .iter()
            .filter(|commit| commit.segment == name)
            .map(|commit| commit.offset..commit.offset + commit.used)
            .collect();
        let last_page = intact.len() - 4096;
        for at in (0..intact.len()).step_by(SECTOR) {
            let header = at % last_page == 0;
            let held = header
                || used
                    .iter()
                    .any(|range| range.start < at + SECTOR && at < range.end);
            let mut flipped = intact.clone();
            // The sector's first byte in use: padding behind a commit's records says nothing.
            flipped[at] ^= 0x10;
            let found = check_sealed(disk.geometry, identity(), &segment, &flipped);
            assert_eq!(found.is_err(), held, "segment {name}, offset {at}");
        }
    }
}

/// Goal: a cut file, another segment's file and another member's file are found.
#[test]
fn whole_files() {
    let mut disk = Disk::new(32 * 1024);
    while disk.appender.segments().count() < 3 {
        disk.commit(1, &[3000]);
    }
    let sealed = disk.appender.sealed_segments();
    let bytes = &disk.files[&1];
    let check = |bytes: &[u8], owner| check_sealed(disk.geometry, owner, &sealed[0], bytes);
    assert!(check(bytes, identity()).is_ok());
    assert!(check(&bytes[..bytes.len() - 1], identity()).is_err());
    assert!(check(&disk.files[&2], identity()).is_err());
    let mut other = identity();
    other.incarnation.0 += 1;
    assert!(check(bytes, other).is_err());
}
