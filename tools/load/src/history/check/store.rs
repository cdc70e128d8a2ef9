//! The state that the writes of a history build, revision by revision: the slow, obvious key-value store.

use std::collections::{BTreeSet, HashMap};

use foldhash::fast::FixedState;

use super::super::operation::{Kv, ValueHash};
use super::gaps::Fog;
use super::keys::Counter;

/// A create revision or version that an unknown write before may have changed.
pub(super) const UNCERTAIN: i64 = -1;

/// One key now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KeyState {
    pub(super) live: bool,
    /// A settled write may have changed it, and it is not known whether it did.
    pub(super) tainted: bool,
    /// Or [`UNCERTAIN`].
    pub(super) create: i64,
    /// Of the last known change, a deletion included; zero for none.
    pub(super) modified: i64,
    /// Or [`UNCERTAIN`].
    pub(super) version: i64,
    /// Absent when no answer has shown it yet.
    pub(super) value: Option<ValueHash>,
    pub(super) lease: i64,
}

/// What happened to one key at one revision.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) revision: i64,
    pub(super) key: u32,
    pub(super) put: bool,
    /// A deletion is uncertain when the key may have been gone, or may have been there, unseen.
    pub(super) certain: bool,
    pub(super) create: i64,
    pub(super) version: i64,
    pub(super) value: Option<ValueHash>,
    pub(super) lease: i64,
}

/// All keys now.
pub(super) struct Store {
    pub(super) keys: Vec<KeyState>,
    pub(super) live: BTreeSet<u32>,
    pub(super) counter: Counter,
    leases: HashMap<i64, BTreeSet<u32>, FixedState>,
    /// Whether any key ever was tainted.
    pub(super) tainted: bool,
    /// Revisions whose changes are known, but not their order.
    pub(super) unordered: BTreeSet<i64>,
    /// Every change in order, kept when there are watches to judge.
    pub(super) log: Option<Vec<Change>>,
}

impl Store {
    pub(super) fn new(keys: usize, keep_log: bool) -> Store {
        Store {
            keys: vec![KeyState::default(); keys],
            live: BTreeSet::new(),
            counter: Counter::new(keys),
            leases: HashMap::default(),
            tainted: false,
            unordered: BTreeSet::new(),
            log: keep_log.then(Vec::new),
        }
    }

    pub(super) fn key(&self, key: u32) -> &KeyState {
        &self.keys[key as usize]
    }

    /// Whether the key may be in another state than the one held here, as of `upto`.
    pub(super) fn is_unsure(&self, fog: &Fog, key: u32, upto: i64) -> bool {
        let state = self.key(key);
        state.tainted || fog.may_change(key, state.modified, upto)
    }

    /// Whether a key that is there here may be gone.
    pub(super) fn may_be_gone(&self, fog: &Fog, key: u32, upto: i64) -> bool {
        let state = self.key(key);
        state.tainted || fog.may_delete(key, state.modified, upto)
    }

    /// Whether anything in an interval may be in another state.
    pub(super) fn is_interval_unsure(&self, fog: &Fog, span: (u32, u32), upto: i64) -> bool {
        self.tainted || fog.lies_on(span, upto)
    }

    pub(super) fn put(&mut self, fog: &Fog, key: u32, revision: i64, value: ValueHash, lease: i64) {
        let unsure = self.is_unsure(fog, key, revision - 1);
        let state = self.key(key);
        let (create, version) = if unsure {
            (UNCERTAIN, UNCERTAIN)
        } else if state.live {
            let version = match state.version {
                UNCERTAIN => UNCERTAIN,
                version => version + 1,
            };
            (state.create, version)
        } else {
            (revision, 1)
        };
        let value = Some(value);
        self.set(key, revision, create, version, value, lease);
    }

    /// Takes over a version as an answer showed it.
    pub(super) fn adopt(&mut self, key: u32, kv: &Kv) {
        self.set(
            key,
            kv.mod_revision,
            kv.create_revision,
            kv.version,
            kv.value,
            kv.lease,
        );
    }

    fn set(
        &mut self,
        key: u32,
        revision: i64,
        create: i64,
        version: i64,
        value: Option<ValueHash>,
        lease: i64,
    ) {
        self.detach(key);
        if lease != 0 {
            self.leases.entry(lease).or_default().insert(key);
        }
        let state = &mut self.keys[key as usize];
        if !state.live {
            self.live.insert(key);
            self.counter.add(key);
        }
        *state = KeyState {
            live: true,
            tainted: false,
            create,
            modified: revision,
            version,
            value,
            lease,
        };
        if let Some(log) = &mut self.log {
            log.push(Change {
                revision,
                key,
                put: true,
                certain: true,
                create,
                version,
                value,
                lease,
            });
        }
    }

    fn detach(&mut self, key: u32) {
        let lease = self.key(key).lease;
        if lease != 0
            && let Some(keys) = self.leases.get_mut(&lease)
        {
            keys.remove(&key);
        }
    }

    /// Deletes a key that is there here.
    pub(super) fn delete(&mut self, fog: &Fog, key: u32, revision: i64) {
        let certain = !self.may_be_gone(fog, key, revision - 1);
        self.detach(key);
        self.live.remove(&key);
        self.counter.remove(key);
        self.keys[key as usize] = KeyState {
            modified: revision,
            ..KeyState::default()
        };
        self.log_deletion(key, revision, certain);
    }

    /// Notes that a key which is not there here may have been deleted.
    pub(super) fn log_deletion(&mut self, key: u32, revision: i64, certain: bool) {
        if let Some(log) = &mut self.log {
            log.push(Change {
                revision,
                key,
                put: false,
                certain,
                create: 0,
                version: 0,
                value: None,
                lease: 0,
            });
        }
    }

    /// The keys of a lease, in key order.
    pub(super) fn keys_of_lease(&self, lease: i64) -> Vec<u32> {
        let keys = self.leases.get(&lease);
        keys.map(|keys| keys.iter().copied().collect())
            .unwrap_or_default()
    }

    /// Compares a version that an answer shows with the one here, and learns what was uncertain.
    pub(super) fn compare(&mut self, key: u32, kv: &Kv) -> Result<(), String> {
        let state = &mut self.keys[key as usize];
        let (shown, held) = (kv.mod_revision, state.modified);
        if shown < held {
            let done = if state.live { "written" } else { "deleted" };
            return Err(format!(
                "the version of revision {shown} is shown, and the key was {done} at {held}"
            ));
        }
        if shown > held || !state.live {
            return Err(format!(
                "a version of revision {shown} is shown, where the key was not written"
            ));
        }
        if let Some(value) = kv.value {
            if *state.value.get_or_insert(value) != value {
                return Err(format!("another value than the one written at {held}"));
            }
            if state.lease != kv.lease {
                return Err(format!(
                    "lease {} is shown, {} was put",
                    kv.lease, state.lease
                ));
            }
        }
        if state.create == UNCERTAIN || state.version == UNCERTAIN {
            let first = kv.version == 1 && kv.create_revision == held;
            let later = kv.version > 1
                && kv.create_revision < held
                && kv.version <= held - kv.create_revision + 1;
            if !(first || later) {
                return Err(format!(
                    "version {} of a key created at {} is impossible at {held}",
                    kv.version, kv.create_revision
                ));
            }
            if state.create == UNCERTAIN {
                state.create = kv.create_revision;
            }
            state.version = kv.version;
        }
        if (state.create, state.version) != (kv.create_revision, kv.version) {
            return Err(format!(
                "created at {} and version {} is shown, it is {} and {}",
                kv.create_revision, kv.version, state.create, state.version
            ));
        }
        Ok(())
    }
}
