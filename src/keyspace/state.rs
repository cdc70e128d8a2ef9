//! The whole committed state, version by version: walked out of a keyspace in slices while writes go
//! on, and put together again from such a walk.
//!
//! What a walk shows depends on the log alone: not on what came after its index, not on how far reclaim
//! had come. So every member that walks at one index shows the same. Runs on the shard's core; what it
//! is put together from may come from outside, and is checked before it is believed.
//!
//! ```text
//! floor F, main revision M        history, in revision order:  F ......... M | later, not shown
//! base versions, in key order:    what was live at F and written before it
//! ```
//!
//! First the base, then the history. Both can be appended as they come: nothing is sorted, and no key is
//! needed twice.

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::compact::{Pin, Reclaim};
use super::digest::Digest;
use super::record::{Key, Record};
use super::revision::{FIRST_MAIN, FLOOR_NONE, Revision};
use super::span::Span;
use super::steps::Steps;
use super::{Keyspace, Mark, key_bytes, version_bytes};
use crate::base::{Index, LeaseId};

/// To show a version in key order, beside what [`Steps::of_bytes`] says of its value.
const BASE_STEPS: usize = 4;
/// The same in revision order, where each key has to be found again in cold memory.
const HISTORY_STEPS: usize = 8;
/// Revisions and versions above this are no numbers of a real store: they leave no room to go on.
const NUMBER_MAX: i64 = i64::MAX / 2;

/// Where a keyspace stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateMark {
    /// The index of the log.
    pub index: Index,
    /// Main revision.
    pub revision: i64,
    /// The compaction floor.
    pub floor: i64,
    /// The digest.
    pub digest: Digest,
}

impl From<Mark> for StateMark {
    fn from(mark: Mark) -> StateMark {
        StateMark {
            index: mark.index,
            revision: mark.main,
            floor: mark.floor,
            digest: mark.digest,
        }
    }
}

/// One version of a key, as a walk shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateVersion<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Where it was written.
    pub revision: Revision,
    /// Main revision of the key's creation; zero for a tombstone.
    pub create: i64,
    /// Puts since the creation; zero for a tombstone.
    pub version: i64,
    /// The lease, zero for none and for a tombstone.
    pub lease: LeaseId,
    /// The value; empty for a tombstone.
    pub value: &'a [u8],
}

impl<'a> StateVersion<'a> {
    fn of(key: &'a [u8], record: &'a Record) -> StateVersion<'a> {
        StateVersion {
            key,
            revision: record.revision(),
            create: record.create(),
            version: record.version(),
            lease: record.lease(),
            value: record.value(),
        }
    }
}

/// A walk under way. Reclaim does not pass its floor, and then not the change that is shown next.
#[derive(Debug)]
pub struct StateWalk {
    mark: Mark,
    pin: Option<Pin>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Keys that may have a base version.
    Base(Span),
    /// The place of the next change.
    History(u64),
    Done,
}

impl StateWalk {
    /// Begins at what is committed now.
    #[must_use]
    pub fn new(keyspace: &mut Keyspace) -> StateWalk {
        let mark = keyspace.committed;
        let pin = keyspace.pins.pin(mark.floor);
        let everything = Span {
            start: Bound::Unbounded,
            end: Bound::Unbounded,
        };
        StateWalk {
            mark,
            pin: Some(pin),
            phase: Phase::Base(everything),
        }
    }

    /// The state that is walked.
    #[must_use]
    pub fn mark(&self) -> StateMark {
        self.mark.into()
    }

    /// Whether everything was shown.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// Shows versions for what is left of the slice, until `show` breaks after taking one, or until all
    /// were shown.
    pub fn run(
        &mut self,
        keyspace: &Keyspace,
        steps: &mut Steps,
        show: &mut dyn FnMut(StateVersion<'_>) -> ControlFlow<()>,
    ) {
        if let Phase::Base(rest) = &mut self.phase {
            if !walk_base(keyspace, self.mark.floor, rest, steps, show) {
                return;
            }
            let first = Revision {
                main: self.mark.floor,
                sub: 0,
            };
            self.phase = Phase::History(keyspace.history.seek(first));
        }
        let Phase::History(place) = &mut self.phase else {
            return;
        };
        let main = self.mark.main;
        while let Some((revision, key)) = keyspace
            .history
            .change(*place)
            .filter(|(revision, _)| revision.main <= main)
        {
            let record = keyspace
                .keys
                .find(key.bytes())
                .and_then(|versions| versions.written_at(revision))
                .expect("a change from the floor on has its version");
            if !steps.take_many(HISTORY_STEPS + Steps::of_bytes(record.value().len())) {
                return;
            }
            *place += 1;
            if show(StateVersion::of(key.bytes(), record)).is_break() {
                return;
            }
        }
        self.phase = Phase::Done;
        self.pin = None;
    }

    /// Whether it is this walk that keeps reclaim from going on: nothing else is pinned below it.
    #[must_use]
    pub fn is_pinned_lowest(&self, keyspace: &mut Keyspace) -> bool {
        let own = self.pin.as_ref().map(Pin::revision);
        own.is_some() && own == keyspace.pins.lowest()
    }

    /// Lets reclaim follow: with the base shown, nothing is read again that was written before the next change.
    pub fn let_go(&mut self, keyspace: &mut Keyspace) {
        let Phase::History(place) = self.phase else {
            return;
        };
        let next = keyspace.history.change(place);
        let main = next.map_or(i64::MAX, |(revision, _)| revision.main);
        let main = main.min(self.mark.main);
        if self.pin.as_ref().is_some_and(|pin| pin.revision() < main) {
            self.pin = Some(keyspace.pins.pin(main));
        }
    }
}

/// Shows base versions; whether there are no more.
fn walk_base(
    keyspace: &Keyspace,
    floor: i64,
    rest: &mut Span,
    steps: &mut Steps,
    show: &mut dyn FnMut(StateVersion<'_>) -> ControlFlow<()>,
) -> bool {
    // Before the first revision nothing was written.
    if floor <= FIRST_MAIN {
        return true;
    }
    let mut stopped: Option<Bound<Bytes>> = None;
    let stop_at = |key: &Key| Bytes::copy_from_slice(key.bytes());
    keyspace.keys.scan(rest, |key, versions| {
        if !steps.take() {
            stopped = Some(Bound::Included(stop_at(key)));
            return ControlFlow::Break(());
        }
        let Some(record) = versions
            .live_at(floor)
            .filter(|record| record.main() < floor)
        else {
            return ControlFlow::Continue(());
        };
        steps.take_many(BASE_STEPS + Steps::of_bytes(record.value().len()));
        if show(StateVersion::of(key.bytes(), record)).is_break() {
            stopped = Some(Bound::Excluded(stop_at(key)));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    match stopped {
        Some(start) => {
            rest.start = start;
            false
        }
        None => true,
    }
}

/// Why something is not a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Revision and floor cannot be those of a keyspace.
    #[error("revision {revision} and floor {floor} do not belong together")]
    Mark {
        /// Main revision.
        revision: i64,
        /// The floor.
        floor: i64,
    },
    /// A version stands where another must.
    #[error("revision {}.{} follows {}.{}", found.main, found.sub, after.main, after.sub)]
    Order {
        /// Its revision.
        found: Revision,
        /// The one before.
        after: Revision,
    },
    /// Base versions are not in the order of their keys, or one has no key.
    #[error("a key of revision {}.{} is out of order", found.main, found.sub)]
    KeyOrder {
        /// Its revision.
        found: Revision,
    },
    /// A version says of itself what cannot be.
    #[error("the version of revision {}.{} contradicts itself", found.main, found.sub)]
    Version {
        /// Its revision.
        found: Revision,
    },
    /// Versions are missing at the end.
    #[error("the versions end at revision {last}, not at {revision}")]
    Short {
        /// The last main revision.
        last: i64,
        /// What it must be.
        revision: i64,
    },
}

/// A keyspace that is put together from what a walk showed, in its order.
#[derive(Debug)]
pub struct StateBuilder {
    mark: StateMark,
    keyspace: Keyspace,
    /// The last base key; none once the history has begun.
    base_key: Option<Key>,
    /// The last change of the history, or where it begins.
    last: Revision,
}

impl StateBuilder {
    /// An empty keyspace that will stand at `mark`.
    ///
    /// # Errors
    /// [`StateError::Mark`].
    pub fn new(mark: StateMark) -> Result<StateBuilder, StateError> {
        let StateMark {
            revision, floor, ..
        } = mark;
        let known = (FIRST_MAIN..=NUMBER_MAX).contains(&revision)
            && (FLOOR_NONE..=revision).contains(&floor);
        if !known {
            return Err(StateError::Mark { revision, floor });
        }
        Ok(StateBuilder {
            mark,
            keyspace: Keyspace::new(),
            base_key: None,
            last: Revision {
                main: first_change(floor) - 1,
                sub: 0,
            },
        })
    }

    /// Takes the next version.
    ///
    /// # Errors
    /// [`StateError`] when it cannot be the next one.
    pub fn push(&mut self, version: &StateVersion<'_>) -> Result<(), StateError> {
        let found = version.revision;
        check_version(version)?;
        let in_base = found.main < first_change(self.mark.floor);
        if in_base {
            let begun = self.keyspace.history.newest().is_some();
            let ascends = self
                .base_key
                .as_ref()
                .is_none_or(|last| last.bytes() < version.key);
            if begun || !ascends || version.create == 0 {
                return Err(StateError::KeyOrder { found });
            }
        } else {
            let begins = self.keyspace.history.newest().is_none();
            let same_main = !begins
                && found.main == self.last.main
                && Some(found.sub) == self.last.sub.checked_add(1);
            let next_main = found.main == self.last.main + 1 && found.sub == 0;
            if !(same_main || next_main) || found.main > self.mark.revision {
                let after = self.last;
                return Err(StateError::Order { found, after });
            }
        }
        let record = Record::restored(
            found,
            (version.create, version.version),
            version.lease,
            version.value,
        );
        let (key, created) = self.keyspace.keys.push(version.key, |_| record);
        self.keyspace.size_bytes +=
            version_bytes(version.value) + if created { key_bytes(version.key) } else { 0 };
        if in_base {
            self.base_key = Some(key);
        } else {
            self.keyspace.history.push(found, key);
            self.last = found;
        }
        Ok(())
    }

    /// The keyspace, committed at its mark.
    ///
    /// # Errors
    /// [`StateError::Short`] when versions are missing.
    pub fn finish(self) -> Result<Keyspace, StateError> {
        let StateMark {
            index,
            revision,
            floor,
            digest,
        } = self.mark;
        if self.last.main != revision.max(first_change(floor) - 1) {
            let last = self.last.main;
            return Err(StateError::Short { last, revision });
        }
        let mark = Mark {
            index,
            main: revision,
            floor,
            digest,
        };
        let mut keyspace = self.keyspace;
        keyspace.marks.clear();
        keyspace.marks.push_back(mark);
        keyspace.committed = mark;
        keyspace.commit_target = index;
        keyspace.reclaim = Reclaim::done(floor, keyspace.history.front());
        Ok(keyspace)
    }

    /// What was taken so far, for whoever frees it: it is no state that anybody had.
    #[must_use]
    pub fn abandon(self) -> Keyspace {
        self.keyspace
    }
}

/// Main revision of the first change that the history holds, if it holds one.
fn first_change(floor: i64) -> i64 {
    floor.max(FIRST_MAIN + 1)
}

fn check_version(version: &StateVersion<'_>) -> Result<(), StateError> {
    let found = version.revision;
    let position = found.main > FIRST_MAIN && found.main <= NUMBER_MAX && !version.key.is_empty();
    let live =
        (1..=found.main).contains(&version.create) && (1..=NUMBER_MAX).contains(&version.version);
    let tombstone = (version.create, version.version, version.lease) == (0, 0, LeaseId(0))
        && version.value.is_empty();
    if position && (live || tombstone) {
        Ok(())
    } else {
        Err(StateError::Version { found })
    }
}
