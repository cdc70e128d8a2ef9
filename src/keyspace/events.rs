//! The history as events: what a watcher is shown, from a revision on, never beyond what is committed.
//!
//! A cursor is a position and costs nothing while it rests. When the floor passes it, reading fails with
//! the floor instead of skipping anything.

use super::Keyspace;
use super::answer::{Packer, Parts};
use super::request::{KeyRange, KeyValue};
use super::revision::Revision;
use super::span::Span;
use super::steps::Steps;
use bytes::Bytes;

/// One change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where it lies.
    pub revision: Revision,
    /// The key was deleted; otherwise it was put.
    pub deleted: bool,
    /// The key after a put; after a deletion only its name and the revision of the deletion.
    pub kv: KeyValue,
    /// The key before, if it existed, is still readable and was asked for.
    pub prev_kv: Option<KeyValue>,
}

/// Which events are wanted.
#[derive(Clone, Debug)]
pub struct EventFilter {
    span: Span,
    prev_kv: bool,
}

impl EventFilter {
    /// Events of the keys in `range`, with the key before each when `prev_kv`.
    #[must_use]
    pub fn new(range: &KeyRange, prev_kv: bool) -> EventFilter {
        EventFilter {
            span: Span::of(range),
            prev_kv,
        }
    }
}

/// A position in the history: the next change to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventCursor {
    next: Revision,
    /// The place of `next`, if it was there when the cursor was last moved.
    place: Option<u64>,
}

impl EventCursor {
    /// Before the first change of main revision `main`.
    #[must_use]
    pub fn at(main: i64) -> EventCursor {
        EventCursor {
            next: Revision { main, sub: 0 },
            place: None,
        }
    }

    /// The next change to be read.
    #[must_use]
    pub fn next(&self) -> Revision {
        self.next
    }
}

/// How a slice of reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventsRead {
    /// Everything committed has been read.
    CaughtUp,
    /// There is more.
    More,
}

/// The floor has passed a cursor; the events it would read next are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("events before revision {floor} have been compacted")]
pub struct EventsCompacted {
    /// The floor: the oldest revision with events.
    pub floor: i64,
}

impl Keyspace {
    /// Appends the events that follow `cursor` to `events`, visiting changes for what is left of the slice,
    /// and moves the cursor behind them. A transaction larger than a slice is read in parts.
    ///
    /// # Errors
    /// [`EventsCompacted`] when the cursor lies below the committed floor; nothing is read then.
    pub fn read_events(
        &self,
        cursor: &mut EventCursor,
        filter: &EventFilter,
        steps: &mut Steps,
        events: &mut Vec<Event>,
    ) -> Result<EventsRead, EventsCompacted> {
        let floor = self.compacted_revision();
        if cursor.next.main < floor {
            return Err(EventsCompacted { floor });
        }
        let mut packer = Packer::default();
        let front = self.history.front();
        let mut place = match cursor.place {
            Some(place) if place >= front => place,
            _ => self.history.seek(cursor.next),
        };
        loop {
            let Some((revision, key)) = self
                .history
                .change(place)
                .filter(|(revision, _)| revision.main <= self.committed_revision())
            else {
                // The place stays right when what follows is truncated: it belongs to the first change
                // after the committed ones, whichever that will be.
                let after = self.committed_revision() + 1;
                let place = (cursor.next.main <= after).then_some(place);
                let next = Revision {
                    main: cursor.next.main.max(after),
                    sub: 0,
                };
                *cursor = EventCursor { next, place };
                return Ok(EventsRead::CaughtUp);
            };
            if !steps.take() {
                *cursor = EventCursor {
                    next: revision,
                    place: Some(place),
                };
                return Ok(EventsRead::More);
            }
            place += 1;
            if revision >= cursor.next && filter.span.contains(key.bytes()) {
                events.push(self.event(revision, key.bytes(), filter.prev_kv, &mut packer));
            }
        }
    }

    fn event(&self, revision: Revision, key: &[u8], prev_kv: bool, packer: &mut Packer) -> Event {
        let versions = self
            .keys
            .find(key)
            .expect("a change from the floor on has its version");
        let record = versions
            .written_at(revision)
            .expect("a change from the floor on has its version");
        let deleted = !record.is_live();
        let kv = if deleted {
            KeyValue {
                key: Bytes::copy_from_slice(key),
                mod_revision: revision.main,
                ..KeyValue::default()
            }
        } else {
            packer.pack(key, record, Parts::ALL)
        };
        let before = revision.main - 1;
        let prev = versions
            .live_at(before)
            .filter(|_| prev_kv && before >= self.compacted_revision());
        Event {
            revision,
            deleted,
            kv,
            prev_kv: prev.map(|prev| packer.pack(key, prev, Parts::ALL)),
        }
    }
}
