//! What the index holds of one key: the versions it has, in the order they were written.
//!
//! Most keys have one, which costs no more than its handle; memory for more is taken and given back in small
//! steps. Knows no key and no watermark: who may see a version is for its readers to say.

use std::collections::VecDeque;

use super::record::Record;
use super::revision::Revision;

/// All versions of one key that are held; at least one.
#[derive(Debug)]
pub(super) struct Versions {
    /// Stands beside the key, because nearly every read and each next version looks at this one only.
    newest: Record,
    /// Those before it, oldest first; a queue, because the oldest are dropped first. Not empty.
    #[expect(
        clippy::box_collection,
        reason = "in place it would double the size of every key's entry"
    )]
    older: Option<Box<VecDeque<Record>>>,
}

impl Versions {
    /// Those of a new key.
    pub(super) fn of(first: Record) -> Versions {
        Versions {
            newest: first,
            older: None,
        }
    }

    /// The version written last, committed or not.
    pub(super) fn newest(&self) -> &Record {
        &self.newest
    }

    /// The value at main revision `main`, unless the key did not exist then.
    pub(super) fn live_at(&self, main: i64) -> Option<&Record> {
        self.last_until(main).filter(|record| record.is_live())
    }

    /// The version written at `revision`.
    pub(super) fn written_at(&self, revision: Revision) -> Option<&Record> {
        if self.newest.revision() == revision {
            return Some(&self.newest);
        }
        let older = self.older.as_ref()?;
        let at = older
            .binary_search_by_key(&revision, Record::revision)
            .ok()?;
        older.get(at)
    }

    /// The last version of those that main revision `main` sees: a transaction may write a key more
    /// than once, and only what it leaves behind can be read.
    fn last_until(&self, main: i64) -> Option<&Record> {
        if self.newest.main() <= main {
            return Some(&self.newest);
        }
        let older = self.older.as_ref()?;
        let after = older.partition_point(|record| record.main() <= main);
        older.get(after.checked_sub(1)?)
    }

    /// All of them, oldest first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Record> {
        let older = self.older.iter().flat_map(|older| older.iter());
        older.chain([&self.newest])
    }

    /// The version written first of those that are held.
    pub(super) fn oldest(&self) -> &Record {
        self.all().next().expect("there is at least one")
    }

    /// Adds a version above all others.
    pub(super) fn push(&mut self, record: Record) {
        assert!(
            record.revision() > self.newest.revision(),
            "version {:?} after {:?}: one version per key and revision",
            record.revision(),
            self.newest.revision()
        );
        let older = self.older.get_or_insert_default();
        if older.len() == older.capacity() {
            // Doubling would cost a further version twice its handle.
            older.reserve_exact((older.len() / 2).next_multiple_of(2).max(2));
        }
        older.push_back(std::mem::replace(&mut self.newest, record));
    }

    /// Takes the newest version off; `None` when it is the only one.
    pub(super) fn pop_newest(&mut self) -> Option<Record> {
        let newest = self.older.as_mut()?.pop_back();
        let newest = newest.expect("there is an older one");
        self.settle();
        Some(std::mem::replace(&mut self.newest, newest))
    }

    /// Takes the oldest version off; `None` when it is the only one.
    pub(super) fn pop_oldest(&mut self) -> Option<Record> {
        let oldest = self.older.as_mut()?.pop_front();
        self.settle();
        oldest
    }

    /// The one that is left.
    pub(super) fn into_last(self) -> Record {
        let Versions { newest, older } = self;
        assert!(older.is_none(), "a key with several versions is removed");
        newest
    }

    /// Gives memory back after a version went.
    fn settle(&mut self) {
        let Some(older) = &mut self.older else {
            return;
        };
        if older.is_empty() {
            self.older = None;
        } else if older.capacity() > 16 && older.len() < older.capacity() / 2 {
            older.shrink_to(older.len() * 3 / 2);
        }
    }
}
