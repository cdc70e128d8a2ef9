//! The end of a run: the faults end, the cluster must serve again, and its members must agree.

use super::checker::{Promise, Verdict, broken};
use super::cluster::{Cluster, Phase};
use super::trace::What;
use super::workload::Workload;

impl Cluster {
    pub(super) fn calm(&mut self) -> Verdict {
        self.phase = Phase::Calm { since: self.now };
        self.line(0, What::Calm);
        self.mend();
        for number in 0..self.members.len() {
            self.relieve(number);
        }
        Ok(())
    }

    /// Every member reads everything, when nothing else is under way any more.
    pub(super) fn last_reads(&mut self) -> Verdict {
        self.all_answered()?;
        for number in 0..self.members.len() {
            self.ask(number, Workload::everything(), "everything", true)?;
        }
        Ok(())
    }

    fn all_answered(&self) -> Verdict {
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
        for number in 0..self.members.len() {
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
        self.history.finish()
    }
}
