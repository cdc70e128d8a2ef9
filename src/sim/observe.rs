//! What the checkers see of a member after each event: who leads, what its log holds, what is committed.

use super::checker::replicas::{Held, Life};
use super::checker::{Promise, Verdict, broken};
use super::cluster::Cluster;
use super::member::{Process, Watched};
use super::trace::What;
use crate::base::Index;
use crate::keyspace::events::EventCursor;
use crate::keyspace::steps::Steps;
use crate::raft::Role;
use crate::shard::event::Member;

/// Steps of the checkers' reading of the history: everything at once.
const CHECKER_STEPS: usize = 1 << 30;

impl Cluster {
    /// Shows the checkers what changed at a member.
    pub(super) fn observe(&mut self, number: usize) -> Verdict {
        self.look_for_cuts(number);
        let member = &self.members[number];
        let Some(process) = &member.process else {
            return Ok(());
        };
        let Process { shard, watched, .. } = process;
        let keyspace = shard.keyspace();
        let raft = shard.raft();
        let mut seen: Watched = *watched;
        let leads = raft.role() == Role::Leader;
        let mut leader_term = None;
        if leads && !seen.leads {
            let life = Life {
                member: number,
                life: member.life,
            };
            let (log, base) = (raft.log(), raft.log().base().index);
            self.replicas
                .leads_after(base, life, raft.term(), |index| log.term_at(index))?;
            leader_term = Some(What::Leads {
                term: raft.term().0,
            });
        } else if !leads && seen.leads {
            leader_term = Some(What::Follows {
                term: raft.term().0,
            });
        }
        let agreed = raft.commit();
        if leads && seen.leads && agreed > seen.agreed {
            let written_in = raft.log().term_at(agreed);
            let life = Life {
                member: number,
                life: member.life,
            };
            self.replicas
                .counts(life, raft.term(), agreed, written_in)?;
        }
        seen.agreed = agreed;
        seen.leads = leads;
        let committed = keyspace.committed_index();
        let folded = keyspace.folded_index();
        let mut truncated = None;
        let kept = keyspace.digest(seen.folded).map(|digest| digest.0);
        if seen.folded > Index(0) && (folded < seen.folded || kept != Some(seen.folded_digest)) {
            // A tail was cut. What is committed was not in it.
            truncated = Some(What::Truncated { index: folded.0 });
            seen.folded = seen.folded.min(seen.committed);
        }
        if seen.folded == Index(0) {
            // A life begins: what is committed was shown in an earlier one, or by somebody else.
            let known = self.replicas.committed_index();
            seen.folded = Index(committed.min(known).0.saturating_sub(1));
            seen.committed = seen.folded;
        }
        while seen.folded < folded {
            seen.folded = seen.folded.next();
            if let Some(held) = held(shard, seen.folded) {
                self.replicas.holds(number, held)?;
                seen.folded_digest = held.digest;
            }
        }
        let moved = committed > seen.committed;
        while seen.committed < committed {
            seen.committed = seen.committed.next();
            if let Some(held) = held(shard, seen.committed) {
                self.replicas.commits(number, held, raft.term())?;
            }
        }
        let changed_at = shard.cluster().changed_at();
        if changed_at != seen.changed_at {
            seen.changed_at = changed_at;
            let list = shard.cluster().members();
            let before = voters(self.group.newest());
            self.group.shows(number, changed_at, list)?;
            match (before, voters(self.group.newest())) {
                (1, 2) => self.statistics.grown += 1,
                (2, 1) => self.statistics.shrunk += 1,
                _ => {}
            }
            let committed = shard.cluster().memberships().into_iter().next();
            for (id, incarnation) in committed.into_iter().flat_map(|(_, of)| of.incarnations) {
                let first = *self.agreed.entry(id).or_insert_with(|| {
                    self.pledges.agreed((id, incarnation));
                    incarnation
                });
                if first != incarnation {
                    return Err(broken(
                        Promise::OneHistory,
                        format_args!(
                            "the group agrees on {incarnation:?} for {id:?}, and has on {first:?}"
                        ),
                    ));
                }
            }
        }
        let mut events = Vec::new();
        let shown = self.history.model().revision();
        if keyspace.committed_revision() > shown {
            // Another one each time: a cursor remembers places of one member's memory.
            let mut cursor = EventCursor::at(shown + 1);
            let mut steps = Steps::new(CHECKER_STEPS);
            let read = keyspace.read_events(&mut cursor, &self.filter, &mut steps, &mut events);
            read.expect("clients compact only what was shown to them");
        }
        if !events.is_empty() {
            self.history.committed(&events)?;
        }
        let commits = moved.then(|| What::Commits {
            index: committed.0,
            digest: keyspace.digest(committed).map_or(0, |digest| digest.0),
        });
        if truncated.is_some() {
            self.statistics.truncations += 1;
        }
        if matches!(leader_term, Some(What::Follows { .. })) {
            self.note_end_of_leading(number);
        }
        for what in [leader_term, truncated, commits].into_iter().flatten() {
            self.line(number, what);
        }
        if matches!(leader_term, Some(What::Leads { .. })) {
            self.strike_new_leader();
        }
        if let Some(process) = &mut self.members[number].process {
            process.watched = seen;
        }
        Ok(())
    }
}

fn voters(members: &[Member]) -> usize {
    members.iter().filter(|member| !member.is_learner).count()
}

fn held(shard: &crate::shard::Shard, index: Index) -> Option<Held> {
    Some(Held {
        index,
        term: shard.raft().log().term_at(index)?,
        digest: shard.keyspace().digest(index)?.0,
    })
}
