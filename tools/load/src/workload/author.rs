//! Writes the requests of one thread, and judges the answers.

use std::collections::{BTreeMap, VecDeque};

use crate::wire::Method;

use super::keys::{KeyPicker, ValueMaker, write_key};
use super::messages::{self, Answer, Form};
use super::{Kind, WorkloadSpec};

/// Revisions of writes that are remembered to find one that is given twice.
const REVISIONS_REMEMBERED: usize = 1 << 16;

/// A request that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) kind: Kind,
    pub(crate) method: Method,
    /// The number of its key, or its lease.
    pub(crate) subject: i64,
    /// Every write that was acknowledged before it began has at most this revision.
    pub(crate) floor: i64,
}

/// The requests of one thread.
#[derive(Debug)]
pub(crate) struct Author {
    spec: WorkloadSpec,
    random: fastrand::Rng,
    keys: KeyPicker,
    values: ValueMaker,
    key: Vec<u8>,
    key_end: Vec<u8>,
    weight_sum: u32,
    /// For each key, at which revision it was last seen modified; only for swaps.
    modified: Vec<i64>,
    /// Leases that are there, oldest first, and at most this many.
    leases: VecDeque<i64>,
    leases_max: usize,
    next_lease: usize,
    /// Leases without a key yet, and when each ends.
    unkeyed: VecDeque<(i64, u64)>,
    /// Keys that end with their lease, and when.
    ending: BTreeMap<Vec<u8>, u64>,
    next_ending: u64,
    /// The highest revision in any answer to a linearizable request.
    floor: i64,
    /// The revision in the answer that was judged last.
    judged: i64,
    /// Revisions of writes, each at its place modulo the length.
    writes: Vec<i64>,
    /// Keys left to fill: the next one, and the step.
    fill: u64,
    lanes: u64,
    /// Every key is there: filled by this run, and never deleted.
    all_there: bool,
}

impl Author {
    /// For the thread `lane` of `lanes`.
    pub(crate) fn new(spec: &WorkloadSpec, lane: u64, lanes: u64) -> Author {
        let mut random = fastrand::Rng::with_seed(spec.seed.wrapping_mul(lanes).wrapping_add(lane));
        let swaps = if spec.does(Kind::Txn) {
            spec.keys.count as usize
        } else {
            0
        };
        Author {
            keys: KeyPicker::new(&spec.keys, lane, lanes),
            values: ValueMaker::new(spec.values, lane, &mut random),
            key: Vec::new(),
            key_end: Vec::new(),
            weight_sum: spec.mix.iter().map(|(_, weight)| weight).sum(),
            modified: vec![0; swaps],
            leases: VecDeque::new(),
            leases_max: (spec.leases / lanes).max(1) as usize,
            next_lease: 0,
            unkeyed: VecDeque::new(),
            ending: BTreeMap::new(),
            next_ending: lane,
            floor: 0,
            judged: 0,
            writes: vec![0; REVISIONS_REMEMBERED],
            fill: lane,
            lanes,
            all_there: spec.fill && !spec.does(Kind::Delete),
            spec: spec.clone(),
            random,
        }
    }

    /// Writes the next put of the fill; `None` when all keys of this thread are written.
    pub(crate) fn fill(&mut self, out: &mut Vec<u8>) -> Option<Asked> {
        if self.fill >= self.spec.keys.count {
            return None;
        }
        let key = self.fill;
        self.fill += self.lanes;
        out.clear();
        Some(self.put(key, 0, out))
    }

    /// Writes the next request, which is to start at `start_ns`.
    pub(crate) fn next(&mut self, start_ns: u64, out: &mut Vec<u8>) -> Asked {
        out.clear();
        let kind = self.kind();
        match kind {
            Kind::Grant => return self.grant(out),
            Kind::Renew | Kind::Revoke => return self.use_lease(kind, out),
            Kind::Expiry => return self.hang_on_lease(start_ns, out),
            _ => {}
        }
        let key = self.keys.next(&mut self.random);
        match kind {
            Kind::Put | Kind::Event => self.put(key, start_ns, out),
            Kind::Get => self.read(key, out),
            Kind::Range => self.range(key, out),
            Kind::Txn => self.swap(key, start_ns, out),
            Kind::Delete => {
                write_key(&mut self.key, &self.spec.keys, key);
                messages::delete(out, &self.key);
                self.asked(Kind::Delete, Method::DeleteRange, key as i64)
            }
            Kind::Grant | Kind::Renew | Kind::Revoke | Kind::Expiry => self.grant(out),
        }
    }

    /// Passes over the next request, which cannot be sent in time; says what it would have been.
    pub(crate) fn unsent(&mut self) -> Kind {
        match self.kind() {
            Kind::Event => Kind::Put,
            Kind::Expiry if self.unkeyed.is_empty() => Kind::Grant,
            Kind::Expiry => Kind::Put,
            kind => kind,
        }
    }

    /// Writes the creation of watcher number `watcher` of all threads.
    pub(crate) fn watch(&mut self, watcher: u64, out: &mut Vec<u8>) {
        match self.spec.watched_keys {
            0 => {
                self.write_key_end();
                messages::watch(out, self.spec.keys.prefix.as_bytes(), &self.key_end);
            }
            keys => {
                write_key(&mut self.key, &self.spec.keys, watcher % keys);
                messages::watch(out, &self.key, &[]);
            }
        }
    }

    fn kind(&mut self) -> Kind {
        let [(only, _)] = self.spec.mix[..] else {
            let mut place = self.random.u32(0..self.weight_sum);
            for (kind, weight) in &self.spec.mix {
                if place < *weight {
                    return *kind;
                }
                place -= weight;
            }
            return self.spec.mix[0].0;
        };
        only
    }

    fn asked(&self, kind: Kind, method: Method, subject: i64) -> Asked {
        Asked {
            kind,
            method,
            subject,
            floor: self.floor,
        }
    }

    fn put(&mut self, key: u64, start_ns: u64, out: &mut Vec<u8>) -> Asked {
        write_key(&mut self.key, &self.spec.keys, key);
        messages::put(
            out,
            &self.key,
            self.values.next(start_ns, &mut self.random),
            0,
        );
        self.asked(Kind::Put, Method::Put, key as i64)
    }

    fn read(&mut self, key: u64, out: &mut Vec<u8>) -> Asked {
        write_key(&mut self.key, &self.spec.keys, key);
        messages::range(out, &self.key, &[], 0, self.spec.serializable);
        self.asked(Kind::Get, Method::Range, key as i64)
    }

    /// Reads from `key` on; at the end of the key space it begins earlier, so that all ranges are equally long.
    fn range(&mut self, key: u64, out: &mut Vec<u8>) -> Asked {
        let length = self.spec.range_keys.min(self.spec.keys.count);
        let first = key.min(self.spec.keys.count - length);
        if first + length < self.spec.keys.count {
            write_key(&mut self.key, &self.spec.keys, first + length);
            std::mem::swap(&mut self.key, &mut self.key_end);
        } else {
            self.write_key_end();
        }
        write_key(&mut self.key, &self.spec.keys, first);
        messages::range(out, &self.key, &self.key_end, 0, self.spec.serializable);
        self.asked(Kind::Range, Method::Range, first as i64)
    }

    /// The prefix with its last byte raised ends the key space. Prefixes are text: never 0xff.
    fn write_key_end(&mut self) {
        self.key_end.clear();
        self.key_end
            .extend_from_slice(self.spec.keys.prefix.as_bytes());
        match self.key_end.last_mut() {
            Some(last) => *last += 1,
            None => self.key_end.push(0),
        }
    }

    fn swap(&mut self, key: u64, start_ns: u64, out: &mut Vec<u8>) -> Asked {
        write_key(&mut self.key, &self.spec.keys, key);
        let value = self.values.next(start_ns, &mut self.random);
        messages::swap(out, &self.key, value, self.modified[key as usize]);
        self.asked(Kind::Txn, Method::Txn, key as i64)
    }

    /// Grants a lease. When there are as many as may be, the oldest is revoked instead.
    fn grant(&mut self, out: &mut Vec<u8>) -> Asked {
        if self.leases.len() >= self.leases_max && self.spec.does(Kind::Grant) {
            return self.use_lease(Kind::Revoke, out);
        }
        messages::grant(out, self.spec.lease_ttl_seconds);
        self.asked(Kind::Grant, Method::LeaseGrant, 0)
    }

    /// Renews or revokes a lease, or grants one when there is none.
    fn use_lease(&mut self, kind: Kind, out: &mut Vec<u8>) -> Asked {
        if kind == Kind::Renew
            && self.leases.len() < self.leases_max
            && !self.spec.does(Kind::Grant)
        {
            return self.grant(out);
        }
        let lease = if kind == Kind::Revoke {
            self.leases.pop_front()
        } else {
            self.next_lease = self.next_lease.wrapping_add(1);
            self.leases
                .get(self.next_lease % self.leases.len().max(1))
                .copied()
        };
        let Some(lease) = lease else {
            messages::grant(out, self.spec.lease_ttl_seconds);
            return self.asked(Kind::Grant, Method::LeaseGrant, 0);
        };
        messages::lease(out, lease);
        let method = if kind == Kind::Revoke {
            Method::LeaseRevoke
        } else {
            Method::LeaseKeepAlive
        };
        self.asked(kind, method, lease)
    }

    /// Puts a key that ends with its lease, or grants a lease for the next one.
    fn hang_on_lease(&mut self, start_ns: u64, out: &mut Vec<u8>) -> Asked {
        let Some((lease, end_ns)) = self.unkeyed.pop_front() else {
            messages::grant(out, self.spec.lease_ttl_seconds);
            return self.asked(Kind::Grant, Method::LeaseGrant, 0);
        };
        let key = self.next_ending;
        self.next_ending += self.lanes;
        write_key(&mut self.key, &self.spec.keys, key);
        let value = self.values.next(start_ns, &mut self.random);
        messages::put(out, &self.key, value, lease);
        self.ending.insert(self.key.clone(), end_ns);
        self.asked(Kind::Put, Method::Put, key as i64)
    }

    /// A key was deleted: when its lease was to end, if it hung on one of ours.
    pub(crate) fn ended(&mut self, key: &[u8]) -> Option<u64> {
        self.ending.remove(key)
    }

    /// The revision in the answer that was judged last, if it could be read.
    pub(crate) fn judged_revision(&self) -> i64 {
        self.judged
    }

    /// The ends that are due before `until_ns` and have not been seen.
    pub(crate) fn overdue(&self, until_ns: u64) -> impl Iterator<Item = u64> {
        self.ending
            .values()
            .copied()
            .filter(move |end_ns| *end_ns < until_ns)
    }

    /// Judges the answer to `asked`, which came at `at_ns`. An `Err` is a wrong answer, with the reason.
    pub(crate) fn judge(
        &mut self,
        asked: &Asked,
        message: &[u8],
        at_ns: u64,
    ) -> Result<(), String> {
        let form = match asked.kind {
            Kind::Put => Form::Put,
            Kind::Get | Kind::Range => Form::Range,
            Kind::Txn => Form::Txn,
            Kind::Delete => Form::Delete,
            Kind::Grant | Kind::Renew | Kind::Revoke | Kind::Event | Kind::Expiry => Form::Lease,
        };
        let answer = match asked.kind {
            Kind::Renew => messages::answer(message, Form::Lease),
            _ => messages::answer(message, form),
        };
        let answer = answer.ok_or("the answer cannot be read")?;
        self.judged = answer.revision;
        let wrote = match asked.kind {
            Kind::Put => true,
            Kind::Txn => answer.succeeded,
            Kind::Delete => answer.count > 0,
            _ => false,
        };
        self.judge_revision(asked, &answer, wrote)?;
        self.judge_content(asked, &answer, at_ns)
    }

    fn judge_revision(
        &mut self,
        asked: &Asked,
        answer: &Answer,
        wrote: bool,
    ) -> Result<(), String> {
        let revision = answer.revision;
        if wrote {
            if revision <= asked.floor {
                return Err(format!(
                    "a {} got revision {revision}, although {} was acknowledged before it began",
                    asked.kind, asked.floor
                ));
            }
            let place = &mut self.writes[revision as usize % REVISIONS_REMEMBERED];
            if *place == revision {
                return Err(format!("two writes got revision {revision}"));
            }
            *place = revision;
        } else if self.is_linearizable(asked.kind) && revision < asked.floor {
            return Err(format!(
                "a linearizable {} was answered at revision {revision}, although {} was acknowledged before it began",
                asked.kind, asked.floor
            ));
        }
        if wrote || self.is_linearizable(asked.kind) {
            self.floor = self.floor.max(revision);
        }
        Ok(())
    }

    fn is_linearizable(&self, kind: Kind) -> bool {
        match kind {
            Kind::Get | Kind::Range => !self.spec.serializable,
            Kind::Txn | Kind::Delete | Kind::Put => true,
            // The header of a lease's answer carries a revision without a promise.
            _ => false,
        }
    }

    fn judge_content(&mut self, asked: &Asked, answer: &Answer, at_ns: u64) -> Result<(), String> {
        match asked.kind {
            // A member that lags may not have the fill yet.
            Kind::Get if self.all_there && !self.spec.serializable && answer.count != 1 => Err(
                format!("a key that was put is not there ({} found)", answer.count),
            ),
            Kind::Range if self.all_there && !self.spec.serializable => {
                let expected = self.spec.range_keys.min(self.spec.keys.count);
                match answer.count {
                    count if count == expected => Ok(()),
                    count => Err(format!("a range of {expected} keys found {count}")),
                }
            }
            Kind::Txn => {
                let known = &mut self.modified[asked.subject as usize];
                let seen = if answer.succeeded {
                    answer.revision
                } else {
                    answer.modified
                };
                // Answers may arrive in another order than they were given; a deletion is zero.
                *known = if seen == 0 { 0 } else { seen.max(*known) };
                Ok(())
            }
            Kind::Grant if self.spec.does(Kind::Expiry) => {
                let ttl_ns = answer.ttl_seconds.max(0) as u64 * 1_000_000_000;
                self.unkeyed.push_back((answer.lease, at_ns + ttl_ns));
                Ok(())
            }
            Kind::Grant => {
                self.leases.push_back(answer.lease);
                Ok(())
            }
            Kind::Renew if answer.lease != asked.subject => Err(format!(
                "the renewal of lease {} was answered for {}",
                asked.subject, answer.lease
            )),
            Kind::Renew if answer.ttl_seconds == 0 => {
                self.leases.retain(|lease| *lease != asked.subject);
                Err(format!("lease {} is gone before its time", asked.subject))
            }
            _ => Ok(()),
        }
    }
}
