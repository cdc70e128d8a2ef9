//! What a trial has left in the store, small enough to be remembered until the end of all trials.
//!
//! Nobody changes or deletes a trial's puts, so that everything that was there once has to be there ever after, as it
//! was. A put without an answer may still take effect later, at a higher revision: only what is not above the revision
//! of the first look is compared. No I/O and no clock.

use std::fmt;

use kontiki_harness::messages::KeyValue;
use xxhash_rust::xxh3::Xxh3;

use super::pages::Page;

/// Everything under a trial's prefix at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    prefix: String,
    /// At which it was looked at.
    revision: i64,
    puts: Puts,
}

/// How many there are, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Puts {
    count: u64,
    /// Of keys, values, revisions and versions, in the order of keys.
    digest: u128,
}

/// That something of a trial is not there any more as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone {
    /// How many puts at least.
    pub(super) puts: u64,
    before: Puts,
    now: Puts,
    revision: i64,
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, now, revision) = (self.before.count, self.now.count, self.revision);
        write!(
            f,
            "of {before} puts that were there at revision {revision}, {now} are"
        )?;
        match before == now {
            true => f.write_str(", not all of them as they were"),
            false => Ok(()),
        }
    }
}

impl Kept {
    /// From the first look, when the trial was over.
    pub(super) fn new(prefix: String, pages: &[Page]) -> Kept {
        let first = pages.first().and_then(|page| page.answer.header);
        let revision = first.map_or(0, |header| header.revision);
        Kept {
            prefix,
            revision,
            puts: Puts::up_to(revision, pages),
        }
    }

    /// What all keys of the trial begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What a later look misses, if anything.
    pub(super) fn gone(&self, pages: &[Page]) -> Option<Gone> {
        let (before, now) = (self.puts, Puts::up_to(self.revision, pages));
        (before != now).then(|| Gone {
            puts: before.count.saturating_sub(now.count).max(1),
            before,
            now,
            revision: self.revision,
        })
    }
}

impl Puts {
    fn up_to(revision: i64, pages: &[Page]) -> Puts {
        let (mut count, mut digest) = (0, Xxh3::new());
        let kvs = pages.iter().flat_map(|page| &page.answer.kvs);
        for kv in kvs.filter(|kv| kv.mod_revision <= revision) {
            count += 1;
            add(&mut digest, kv);
        }
        Puts {
            count,
            digest: digest.digest128(),
        }
    }
}

fn add(digest: &mut Xxh3, kv: &KeyValue) {
    for bytes in [&kv.key, &kv.value] {
        digest.update(&(bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    }
    for number in [kv.create_revision, kv.mod_revision, kv.version, kv.lease] {
        digest.update(&number.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use kontiki_harness::messages::{RangeRequest, RangeResponse, ResponseHeader};

    use super::*;

    fn kv(key: &str, mod_revision: i64) -> KeyValue {
        KeyValue {
            key: key.to_owned().into(),
            create_revision: mod_revision,
            mod_revision,
            version: 1,
            value: "v".into(),
            lease: 0,
        }
    }

    /// What a look at this revision finds, a page for each part.
    fn look(revision: i64, parts: &[&[KeyValue]]) -> Vec<Page> {
        let page = |kvs: &&[KeyValue]| Page {
            request: RangeRequest::default(),
            answer: RangeResponse {
                header: Some(ResponseHeader {
                    revision,
                    ..ResponseHeader::default()
                }),
                kvs: kvs.to_vec(),
                ..RangeResponse::default()
            },
            times: (Instant::now(), Instant::now()),
        };
        parts.iter().map(page).collect()
    }

    /// Goal: whatever was there when a trial was over is missed later, if it is gone or changed; what came after it is
    /// no matter, nor how it is cut into pages.
    #[test]
    fn what_is_gone_later() {
        let [a, b, c] = [kv("a", 2), kv("b", 4), kv("c", 3)];
        let all = [a.clone(), b.clone(), c.clone()];
        let kept = Kept::new("t/".to_owned(), &look(5, &[&all]));
        let check = |found: &[&[KeyValue]], expected: Option<u64>| {
            let gone = kept.gone(&look(9, found));
            assert_eq!(gone.map(|gone| gone.puts), expected, "{found:?}");
        };
        check(&[&all], None);
        check(&[&all[..1], &all[1..]], None);
        check(&[&[a.clone(), b.clone(), kv("bb", 7), c.clone()]], None);
        check(&[&[a.clone(), c.clone()]], Some(1));
        check(&[&[]], Some(3));
        let mut other = all.clone();
        other[1].value = "w".into();
        check(&[&other], Some(1));
        // Put again: it is gone as it was.
        check(&[&[a, kv("b", 8), c]], Some(1));
        let words = kept.gone(&look(9, &[&other])).expect("it is seen");
        assert_eq!(
            words.to_string(),
            "of 3 puts that were there at revision 5, 3 are, not all of them as they were"
        );
    }
}
