//! What a member says that binds it, shown to the checker of pledges: its votes and acknowledgements as they leave,
//! its log as it changes, its memory when it starts.

use super::checker::Verdict;
use super::checker::pledges::{Directory, Remembered};
use super::cluster::Cluster;
use super::member::member_id;
use crate::raft::{AppendResult, Body, Message, Standing};
use crate::shard::event::PeerMessage;

impl Cluster {
    /// A message leaves a member.
    pub(super) fn pledge(&mut self, from: usize, to: usize, message: &PeerMessage) -> Verdict {
        let PeerMessage::Raft { message, .. } = message else {
            return Ok(());
        };
        let directory = self.directory(from);
        let Message { term, body, .. } = message;
        let matched = match body {
            Body::VoteRequest(request) if !request.pre => {
                return self.pledges.votes(directory, *term, directory.0);
            }
            Body::VoteResponse(response) if response.granted && !response.pre => {
                return self.pledges.votes(directory, response.term, member_id(to));
            }
            Body::AppendResponse(response) if response.standing == Standing::Whole => {
                match response.result {
                    AppendResult::Accepted(matched) => matched,
                    AppendResult::Rejected { .. } => return Ok(()),
                }
            }
            Body::HeartbeatResponse(response) if response.standing == Standing::Whole => {
                response.matched
            }
            _ => return Ok(()),
        };
        self.pledges.acknowledges(directory, matched.durable);
        Ok(())
    }

    /// Something happened to a member.
    pub(super) fn look_for_cuts(&mut self, number: usize) {
        let directory = self.directory(number);
        if let Some(process) = &self.members[number].process {
            let raft = process.shard.raft();
            let log = raft.log();
            let held = |index| log.term_at(index);
            self.pledges.log(directory, log.last(), raft.commit(), held);
        }
    }

    /// A member has started.
    pub(super) fn recall(&mut self, number: usize) -> Verdict {
        let directory = self.directory(number);
        let member = &self.members[number];
        let Some(process) = &member.process else {
            return Ok(());
        };
        if let Some(rebuild) = &member.known.rebuild {
            self.pledges.void(directory, rebuild.every_voter);
        }
        let raft = process.shard.raft();
        let hard_state = raft.hard_state();
        let found = Remembered {
            term: hard_state.term,
            vote: hard_state.vote,
            last_index: raft.last_index(),
        };
        self.pledges.remembers(directory, found)
    }

    fn directory(&self, number: usize) -> Directory {
        (member_id(number), self.members[number].incarnation())
    }
}
