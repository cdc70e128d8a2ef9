//! Whether a cluster kept its word over a failover, from what was sent, what was answered, and what is there
//! afterwards. No I/O and no clock.
//!
//! Checked: (1) every acknowledged put is there, with the revision it was acknowledged with and its own value;
//! (2) no two acknowledged puts have one revision; (3) real time: an operation that was sent after another one
//! was acknowledged shows a higher revision if it is a put, and no lower one if it is a linearizable read. A put
//! without an answer may be there or not. These are necessary conditions of linearizability, and for puts
//! of keys that are never written again (1) to (3) are all of it: the order of revisions is an order of the
//! puts that agrees with real time.

use std::collections::BTreeMap;
use std::time::Instant;

use super::stream::{Did, Record};

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
            (Did::Read, Some(_)) => findings.reads += 1,
            (Did::Read, None) => {}
        }
    }
    findings.check_unique(records);
    findings.check_real_time(records, start);
    findings
}

impl Findings {
    fn check_kept(&mut self, number: u64, revision: i64, stored: Option<&Stored>) {
        let right = Stored {
            mod_revision: revision,
            version: 1,
            value_is_right: true,
        };
        if stored != Some(&right) {
            self.lost += 1;
            self.tell(|| format!("put {number} was acknowledged with revision {revision}; afterwards there is {stored:?}"));
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
                Did::Read => revision >= known,
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
        };
        (operations.iter().map(record).collect(), start)
    }

    fn kept(puts: &[(u64, i64)]) -> BTreeMap<u64, Stored> {
        let stored = |mod_revision| Stored {
            mod_revision,
            version: 1,
            value_is_right: true,
        };
        puts.iter()
            .map(|(number, revision)| (*number, stored(*revision)))
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
                (Read, 3, Some((4, 2))),
                (Read, 1, Some((5, 1))),
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
        check(&[put, (Read, 3, Some((4, 1)))], &kept(&[(0, 2)]), (0, 1));
        // A read that goes back behind an earlier read.
        check(
            &[(Read, 0, Some((1, 7))), (Read, 2, Some((3, 6)))],
            &kept(&[]),
            (0, 1),
        );
    }
}
