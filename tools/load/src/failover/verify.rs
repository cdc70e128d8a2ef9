//! Whether a cluster kept its word over a failover, from what was sent, what was answered, and what is there
//! afterwards. No I/O and no clock.
//!
//! Checked: (1) every acknowledged put is there, with the revision it was acknowledged with and its own value;
//! (2) no two acknowledged puts have one revision; (3) real time: an operation that was sent after another one
//! was acknowledged shows a higher revision if it is a put, and no lower one if it is a linearizable read; (4) a
//! linearizable read of a put that was acknowledged before finds it as it was acknowledged, whatever its revision
//! says. A put without an answer may be there or not. These are necessary conditions of linearizability, and for puts
//! of keys that are never written again (1) to (4) are all of it: the order of revisions is an order of the
//! puts that agrees with real time.

use std::collections::BTreeMap;
use std::time::Instant;

use super::stream::{Did, Known, Record};

/// Violations that are told in words; further ones are counted.
pub const EXAMPLES_MAX: usize = 10;

/// What is stored under one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// Revision of its last change.
    pub(super) mod_revision: i64,
    /// Changes since its creation.
    pub(super) version: i64,
    /// Whether it holds the value that was put.
    pub(super) value_is_right: bool,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Puts that were acknowledged.
    pub(super) acknowledged: u64,
    /// Puts without a good answer.
    pub(super) unanswered: u64,
    /// Unanswered puts that are there.
    pub(super) took_effect: u64,
    /// Reads that were answered.
    pub(super) reads: u64,
    /// Acknowledged puts that are not there, or with another value, version or revision.
    pub(super) lost: u64,
    /// Answers that are older than what was known before they were asked for, and revisions given twice.
    pub(super) stale: u64,
    /// The first violations, in words.
    pub(super) examples: Vec<String>,
}

/// Checks one trial. `start` is only for the times in words.
pub(super) fn verify(
    records: &[Record],
    stored: &BTreeMap<u64, Stored>,
    start: Instant,
) -> Findings {
    let mut findings = Findings::default();
    for record in records {
        match (record.did, record.acknowledged) {
            (Did::Put(number), Some((_, revision))) => {
                findings.acknowledged += 1;
                findings.check_kept(number, revision, stored.get(&number));
            }
            (Did::Put(number), None) => {
                findings.unanswered += 1;
                findings.took_effect += u64::from(stored.contains_key(&number));
            }
            (Did::Read(known), Some(_)) => {
                findings.reads += 1;
                findings.check_found(known, record, start);
            }
            (Did::Read(_), None) => {}
        }
    }
    findings.check_unique(records);
    findings.check_real_time(records, start);
    findings
}

impl Findings {
    fn check_kept(&mut self, number: u64, revision: i64, stored: Option<&Stored>) {
        if stored != Some(&as_put(revision)) {
            self.lost += 1;
            self.tell(|| format!("put {number} was acknowledged with revision {revision}; afterwards there is {stored:?}"));
        }
    }

    fn check_found(&mut self, known: Option<Known>, record: &Record, start: Instant) {
        let Some(Known { number, revision }) = known else {
            return;
        };
        if record.found != Some(as_put(revision)) {
            self.stale += 1;
            let after = record.invoked.saturating_duration_since(start);
            let Record {
                endpoint, found, ..
            } = record;
            self.tell(|| {
                format!(
                    "put {number} was acknowledged with revision {revision}; a read of it through endpoint {endpoint}, sent \
                     {after:?} after the start, found {found:?}"
                )
            });
        }
    }

    fn check_unique(&mut self, records: &[Record]) {
        let mut owners: BTreeMap<i64, u64> = BTreeMap::new();
        for record in records {
            let (Did::Put(number), Some((_, revision))) = (record.did, record.acknowledged) else {
                continue;
            };
            if let Some(other) = owners.insert(revision, number) {
                self.stale += 1;
                self.tell(|| {
                    format!(
                        "puts {other} and {number} were both acknowledged with revision {revision}"
                    )
                });
            }
        }
    }

    fn check_real_time(&mut self, records: &[Record], start: Instant) {
        let mut by_invocation: Vec<(&Record, i64)> = records
            .iter()
            .filter_map(|record| Some((record, record.acknowledged?.1)))
            .collect();
        by_invocation.sort_by_key(|(record, _)| record.invoked);
        let mut by_answer: Vec<(Instant, i64)> = records
            .iter()
            .filter_map(|record| record.acknowledged)
            .collect();
        by_answer.sort_unstable();
        let (mut known, mut answered) = (i64::MIN, by_answer.iter().peekable());
        for (record, revision) in by_invocation {
            while let Some((_, earlier)) = answered.next_if(|(at, _)| *at < record.invoked) {
                known = known.max(*earlier);
            }
            let newer = match record.did {
                Did::Put(_) => revision > known,
                Did::Read(_) => revision >= known,
            };
            if !newer {
                self.stale += 1;
                let after = record.invoked.saturating_duration_since(start);
                let Record { did, endpoint, .. } = record;
                self.tell(|| {
                    format!(
                        "{did:?} through endpoint {endpoint}, sent {after:?} after the start, was answered with revision \
                         {revision}; {known} was known before"
                    )
                });
            }
        }
    }

    fn tell(&mut self, words: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(words());
        }
    }
}

/// What is there of a put that was acknowledged with this revision.
fn as_put(revision: i64) -> Stored {
    Stored {
        mod_revision: revision,
        version: 1,
        value_is_right: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// What, sent at, answered at with revision; times in milliseconds.
    type Operation = (Did, u64, Option<(u64, i64)>);

    fn history(operations: &[Operation]) -> (Vec<Record>, Instant) {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let record = |(did, invoked, answer): &Operation| Record {
            did: *did,
            endpoint: 0,
            probe: true,
            invoked: at(*invoked),
            acknowledged: answer.map(|(ms, revision)| (at(ms), revision)),
            found: match did {
                Did::Read(Some(known)) => Some(as_put(known.revision)),
                _ => None,
            },
        };
        (operations.iter().map(record).collect(), start)
    }

    fn kept(puts: &[(u64, i64)]) -> BTreeMap<u64, Stored> {
        puts.iter()
            .map(|(number, revision)| (*number, as_put(*revision)))
            .collect()
    }

    fn check(operations: &[Operation], stored: &BTreeMap<u64, Stored>, expected: (u64, u64)) {
        let (records, start) = history(operations);
        let findings = verify(&records, stored, start);
        assert_eq!((findings.lost, findings.stale), expected, "{findings:?}");
        assert_eq!(findings.examples.is_empty(), expected == (0, 0));
    }

    /// Goal: what a right cluster may do is no violation: any order of what overlaps, unanswered puts there or not.
    #[test]
    fn no_false_alarm() {
        use Did::{Put, Read};
        check(&[], &kept(&[]), (0, 0));
        check(
            &[(Put(0), 0, Some((10, 3))), (Put(1), 1, Some((9, 2)))],
            &kept(&[(0, 3), (1, 2)]),
            (0, 0),
        );
        check(
            &[(Put(0), 0, None), (Put(1), 1, None)],
            &kept(&[(1, 2)]),
            (0, 0),
        );
        check(
            &[
                (Put(0), 0, Some((2, 2))),
                (Read(None), 3, Some((4, 2))),
                (Read(None), 1, Some((5, 1))),
            ],
            &kept(&[(0, 2)]),
            (0, 0),
        );
    }

    /// Goal: every kind of violation is found, once.
    #[test]
    fn planted_violations() {
        use Did::{Put, Read};
        let put = (Put(0), 0, Some((2, 2)));
        check(&[put], &kept(&[]), (1, 0));
        check(&[put], &kept(&[(0, 3)]), (1, 0));
        let mut other = kept(&[(0, 2)]);
        other.get_mut(&0).expect("there").value_is_right = false;
        check(&[put], &other, (1, 0));
        other.insert(
            0,
            Stored {
                mod_revision: 2,
                version: 2,
                value_is_right: true,
            },
        );
        check(&[put], &other, (1, 0));
        // Two puts with one revision, at the same time.
        check(
            &[put, (Put(1), 1, Some((3, 2)))],
            &kept(&[(0, 2), (1, 2)]),
            (0, 1),
        );
        // A put that goes before an older one, a read that does not see it.
        check(
            &[(Put(0), 0, Some((2, 5))), (Put(1), 3, Some((4, 4)))],
            &kept(&[(0, 5), (1, 4)]),
            (0, 1),
        );
        check(
            &[put, (Read(None), 3, Some((4, 1)))],
            &kept(&[(0, 2)]),
            (0, 1),
        );
        // A read that goes back behind an earlier read.
        check(
            &[(Read(None), 0, Some((1, 7))), (Read(None), 2, Some((3, 6)))],
            &kept(&[]),
            (0, 1),
        );
    }

    /// Goal: old data under a new revision is found: a read shows the put that was acknowledged before it as it was.
    #[test]
    fn reads_show_what_was_acknowledged() {
        let known = Known {
            number: 0,
            revision: 2,
        };
        let operations = [
            (Did::Put(0), 0, Some((2, 2))),
            (Did::Read(Some(known)), 3, Some((4, 9))),
        ];
        let check_found = |found: Option<Stored>, expected: u64| {
            let (mut records, start) = history(&operations);
            records[1].found = found;
            let findings = verify(&records, &kept(&[(0, 2)]), start);
            assert_eq!((findings.lost, findings.stale), (0, expected), "{found:?}");
        };
        let right = as_put(2);
        check_found(Some(right), 0);
        check_found(None, 1);
        check_found(Some(as_put(1)), 1);
        let version = 2;
        check_found(Some(Stored { version, ..right }), 1);
        let value_is_right = false;
        let other = Stored {
            value_is_right,
            ..right
        };
        check_found(Some(other), 1);
    }
}
