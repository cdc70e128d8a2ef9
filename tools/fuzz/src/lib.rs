//! What the fuzz targets share: the effects of an entry, the identity of a log, and the writing of seeds.
//!
//! Each target makes its own seeds with the product's encoders, so that they follow the format:
//! started with `KONTIKI_FUZZ_SEEDS` naming a directory, it writes them there and exits.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use kontiki::base::{ClusterId, Incarnation, MemberId, ShardId};
pub use kontiki::keyspace::effects::{ArchivedEffect, Effect};
use kontiki::wal::LogIdentity;

/// Some effects that differ from each other and with `number`.
#[must_use]
pub fn effects(number: u64) -> Vec<Effect> {
    let key = Bytes::copy_from_slice(&number.to_be_bytes());
    let put = Effect::Put {
        key: key.clone(),
        value: vec![u8::try_from(number % 251).expect("below 251"); 40].into(),
        lease: 0,
    };
    let deletion = Effect::DeleteRange {
        key: key.clone(),
        range_end: Bytes::from_static(&[0]),
    };
    let compaction = Effect::Compact {
        revision: i64::try_from(number).unwrap_or(i64::MAX),
    };
    match number % 4 {
        0 => Vec::new(),
        1 => vec![put],
        2 => vec![put, deletion],
        _ => vec![compaction],
    }
}

/// Touches every byte that a checked archive claims to hold.
#[must_use]
pub fn weigh(effects: &[ArchivedEffect]) -> u64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    effects
        .iter()
        .map(|effect| match effect {
            ArchivedEffect::Put { key, value, lease } => {
                sum(key) + sum(value) + lease.to_native().unsigned_abs() % 7
            }
            ArchivedEffect::DeleteRange { key, range_end } => sum(key) + sum(range_end),
            ArchivedEffect::Compact { revision } => revision.to_native().unsigned_abs() % 7,
        })
        .sum()
}

/// Whose log the fuzzed segments are.
#[must_use]
pub fn identity() -> LogIdentity {
    LogIdentity {
        cluster: ClusterId(0xcdf8_1819_4e3a_8c32),
        member: MemberId(0x8e9e_05c5_2164_694d),
        incarnation: Incarnation(1),
        shard: ShardId(0),
    }
}

/// Writes the seeds and exits, when the environment asks for it.
///
/// # Panics
/// When a seed cannot be written.
pub fn write_seeds_if_asked(seeds: impl FnOnce() -> Vec<Vec<u8>>) {
    let Some(directory) = std::env::var_os("KONTIKI_FUZZ_SEEDS").map(PathBuf::from) else {
        return;
    };
    fs::create_dir_all(&directory).expect("the directory of the seeds");
    for (number, seed) in seeds().into_iter().enumerate() {
        fs::write(directory.join(format!("{number:02}")), seed).expect("room for a seed");
    }
    std::process::exit(0);
}
