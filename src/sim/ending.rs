//! The end of a run: the faults end, the cluster must serve again, and its members must agree.

use super::checker::{Promise, Verdict, broken};
use super::cluster::{Cluster, Phase};
use super::member::{member_id, member_number};
use super::trace::What;
use super::workload::Workload;

impl Cluster {
    pub(super) fn calm(&mut self) -> Verdict {
        self.phase = Phase::Calm { since: self.now };
        self.line(0, What::Calm);
        self.meet_all();
        self.mend();
        for number in self.present() {
            self.relieve(number);
        }
        self.plan_calm_hang();
        Ok(())
    }

    /// Every member reads everything, when nothing else is under way any more.
    pub(super) fn last_reads(&mut self) -> Verdict {
        self.all_answered()?;
        for number in self.serving() {
            self.ask(number, Workload::everything(), "everything", true)?;
        }
        Ok(())
    }

    fn all_answered(&self) -> Verdict {
        self.operator_is_answered()?;
        if let Some((operation, asked)) = self.asked.first_key_value() {
            return Err(broken(
                Promise::Liveness,
                format_args!(
                    "request {operation} at member {} was never answered",
                    asked.member
                ),
            ));
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) -> Verdict {
        self.line(0, What::Over);
        self.all_answered()?;
        for number in self.serving() {
            let committed = self.replicas.committed_index();
            let process = self.members[number].process.as_ref();
            let reached = process.map(|process| process.shard.keyspace().committed_index());
            if reached != Some(committed) {
                return Err(broken(
                    Promise::Liveness,
                    format_args!("member {number} ends at {reached:?}, the cluster at {committed}"),
                ));
            }
        }
        for number in self.present() {
            self.gone_if_removed(number)?;
        }
        self.history.finish()
    }

    /// Who was removed has been told, if it knows anybody who could.
    fn gone_if_removed(&self, number: usize) -> Verdict {
        let Some(process) = &self.members[number].process else {
            return Ok(());
        };
        let known = process.shard.raft().membership().members();
        let told = known.into_iter().any(|id| self.group.contains(id));
        if told && self.group.is_removed(member_id(number)) {
            return Err(broken(
                Promise::Liveness,
                format_args!("member {number} was removed and does not know it"),
            ));
        }
        Ok(())
    }

    /// The members of the cluster, as far as that is committed.
    pub(super) fn serving(&self) -> Vec<usize> {
        let members = self.group.newest().iter();
        members.map(|member| member_number(member.id)).collect()
    }
}
