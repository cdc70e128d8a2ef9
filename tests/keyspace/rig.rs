//! Drives a keyspace as a shard does: plan, archive, fold; each job in slices of a chosen size.

use kontiki::base::Index;
use kontiki::keyspace::effects::{ArchivedEffect, Effect};
use kontiki::keyspace::events::{Event, EventCursor, EventFilter, EventsCompacted, EventsRead};
use kontiki::keyspace::fold::{FoldJob, Folded};
use kontiki::keyspace::range::{RangeAnswer, RangeJob};
use kontiki::keyspace::request::*;
use kontiki::keyspace::revision::View;
use kontiki::keyspace::steps::Steps;
use kontiki::keyspace::txn::{Plan, PlanJob};
use kontiki::keyspace::{Keyspace, TruncateJob};
use rkyv::rancor::Error;

/// A request that may change something.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    Put(PutRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(i64),
}

pub(crate) struct Rig {
    pub(crate) keyspace: Keyspace,
    pub(crate) slice: usize,
}

impl Rig {
    pub(crate) fn new(slice: usize) -> Rig {
        Rig {
            keyspace: Keyspace::new(),
            slice,
        }
    }

    pub(crate) fn plan(&mut self, write: Write) -> Result<Plan, Refusal> {
        let keyspace = &mut self.keyspace;
        let mut job = match write {
            Write::Put(request) => return keyspace.plan_put(request),
            Write::Compact(revision) => return keyspace.plan_compact(revision),
            Write::DeleteRange(request) => PlanJob::delete_range(keyspace, request),
            Write::Txn(request) => PlanJob::txn(keyspace, request, View::Head),
        };
        loop {
            if let Some(result) = job.run(keyspace, &mut Steps::new(self.slice)) {
                return result;
            }
        }
    }

    /// Plans and folds; the entry's effects are empty when none was needed.
    pub(crate) fn write(&mut self, write: Write) -> Result<(Folded, Vec<u8>), Refusal> {
        let plan = self.plan(write)?;
        if plan.effects.is_empty() {
            return Ok((self.read(plan), vec![]));
        }
        let entry = archive(&plan.effects);
        let index = self.keyspace.folded_index().next();
        let job = FoldJob::lead(&mut self.keyspace, index, plan.script);
        Ok((self.finish(job, &entry), entry))
    }

    pub(crate) fn replay(&mut self, entry: &[u8]) -> Folded {
        let index = self.keyspace.folded_index().next();
        let job = FoldJob::replay(&mut self.keyspace, index);
        self.finish(job, entry)
    }

    pub(crate) fn read(&mut self, plan: Plan) -> Folded {
        let mut job = FoldJob::read(plan.script);
        loop {
            if let Some(folded) = job.run(&mut self.keyspace, &[], &mut Steps::new(self.slice)) {
                return folded;
            }
        }
    }

    fn finish(&mut self, mut job: FoldJob, entry: &[u8]) -> Folded {
        loop {
            if let Some(folded) = job.run(
                &mut self.keyspace,
                effects(entry),
                &mut Steps::new(self.slice),
            ) {
                return folded;
            }
        }
    }

    pub(crate) fn range(&mut self, request: RangeRequest) -> Result<RangeAnswer, Refusal> {
        let mut job = RangeJob::new(&mut self.keyspace, request)?;
        loop {
            if let Some(answer) = job.run(&self.keyspace, &mut Steps::new(self.slice)) {
                return Ok(answer);
            }
        }
    }

    pub(crate) fn truncate(&mut self, after: Index) {
        let mut job = TruncateJob::new(&mut self.keyspace, after);
        while !job.run(&mut self.keyspace, &mut Steps::new(self.slice)) {}
    }

    pub(crate) fn reclaim_all(&mut self) {
        while self.keyspace.reclaim(&mut Steps::new(self.slice)) {}
    }

    pub(crate) fn events(
        &self,
        from: i64,
        range: &KeyRange,
    ) -> Result<Vec<Event>, EventsCompacted> {
        let mut events = vec![];
        let mut cursor = EventCursor::at(from);
        let filter = EventFilter::new(range, true);
        while self.keyspace.read_events(
            &mut cursor,
            &filter,
            &mut Steps::new(self.slice),
            &mut events,
        )? == EventsRead::More
        {}
        Ok(events)
    }
}

pub(crate) fn archive(effects: &Vec<Effect>) -> Vec<u8> {
    rkyv::to_bytes::<Error>(effects)
        .expect("memory suffices")
        .to_vec()
}

pub(crate) fn effects(entry: &[u8]) -> &[ArchivedEffect] {
    rkyv::access::<rkyv::Archived<Vec<Effect>>, Error>(entry).expect("it was just archived")
}
