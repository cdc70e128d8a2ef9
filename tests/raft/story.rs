//! A story in text: commands to a cluster, and what its members said, one line each.
//!
//! ```text
//! > members 1 2 3            voters that know each other; with "learners 4" after them
//! > log 1: 1 1 2             a member's log before it starts: the terms of its entries
//! > committed 1 2            how far a member knows that it is committed, before it starts
//! > start                    everybody whose log was given starts
//! > timeout 1                time passes until 1 has heard nobody for two timeouts; only it notices
//! > heartbeat 1              time passes until 1 sends heartbeats
//! > deliver 1 2              what 1 has sent to 2 so far arrives
//! > drop 1 2                 it does not
//! > sync 1                   what 1 has written is on disk
//! > settle                   everything arrives and is synced, until nothing is left
//! > propose 1 / read 1 / transfer 1 2 / disconnect 2 1 / crash 1 / restart 1 / cut 1 2 / heal
//! > damage 1 2               1, which does not run, has lost its log after 2; its term and vote are found
//! > change 1 learner 4 / voter 4 / promote 4 / remove 4 / lease / quorum
//! > compact 1 5              1 releases its log up to 5
//! > quiet COMMAND            the command, without what is said
//! > state                    role, term, log and commit index of each
//! ```

use std::fmt::Write as _;
use std::time::Duration;

use kontiki::base::{Index, MemberId, Term};
use kontiki::raft::{
    AppendResult, Body, Change, Membership, Message, Output, Position, ReadMode, Rebuild, Standing,
};

use crate::cluster::{Cluster, known_disk};
use crate::member::{
    Disk, Doing, ELECTION_TIMEOUT, Entry, HEARTBEAT_INTERVAL, Options, Packet, Payload,
};

pub(crate) struct Story {
    cluster: Cluster,
    value: u64,
}

impl Story {
    pub(crate) fn new() -> Story {
        let mut cluster = Cluster::empty(Options::default(), 1);
        cluster.trace = Some(Vec::new());
        Story { cluster, value: 0 }
    }

    /// Obeys one command and tells what happened.
    pub(crate) fn tell(&mut self, command: &str) -> String {
        if let Some(command) = command.strip_prefix("quiet ") {
            self.tell(command);
            return String::new();
        }
        let words: Vec<_> = command.split_whitespace().collect();
        let id = |position: usize| MemberId(number(&words, position));
        match words[0] {
            "members" => self.members(&words[1..]),
            "log" => {
                let terms = words[2..].iter().map(|word| word.parse().expect("a term"));
                self.log(
                    MemberId(words[1].trim_end_matches(':').parse().expect("an id")),
                    terms.collect(),
                );
            }
            "committed" => self.disk(id(1)).hard_state.commit = Index(number(&words, 2)),
            "start" => {
                for id in self.cluster.disks.keys().copied().collect::<Vec<_>>() {
                    self.cluster.restart(id);
                    self.cluster.tick(id);
                }
            }
            "timeout" => {
                self.cluster.now = self.cluster.now + 2 * ELECTION_TIMEOUT;
                self.cluster.tick(id(1));
            }
            "heartbeat" => {
                self.cluster.now = self.cluster.now + HEARTBEAT_INTERVAL;
                self.cluster.tick(id(1));
            }
            "wait" => {
                self.cluster.now = self.cluster.now + Duration::from_millis(number(&words, 1))
            }
            "tick" => self.cluster.tick(id(1)),
            "deliver" => self.on_the_way(id(1), id(2), true),
            "drop" => self.on_the_way(id(1), id(2), false),
            "sync" => self.cluster.sync(id(1)),
            "settle" => self.cluster.settle(),
            "propose" => {
                self.value += 1;
                self.cluster.propose(id(1), Payload::Data(self.value));
            }
            "read" => self.cluster.read(id(1)),
            "transfer" => {
                let to = id(2);
                let mut result = Ok(to);
                self.cluster.with(id(1), |raft, _, now| {
                    result = raft.transfer_leader(Some(to), now)
                });
                if let Err(refusal) = result {
                    return format!("  {} refuses: {refusal}\n", id(1));
                }
            }
            "disconnect" => {
                let peer = id(2);
                self.cluster.with(id(1), |raft, outputs, now| {
                    raft.peer_disconnected(peer, now, outputs)
                });
            }
            "crash" => self.cluster.crash(id(1), false),
            "restart" => {
                self.cluster.restart(id(1));
                self.cluster.tick(id(1));
            }
            "damage" => {
                let kept = usize::try_from(number(&words, 2)).expect("small");
                let disk = self.disk(id(1));
                disk.vote_floor = disk.hard_state.term;
                disk.rebuild = Some(Rebuild::default());
                disk.log.entries.truncate(kept);
                disk.hard_state.term = disk.log.last_term();
                disk.hard_state.vote = None;
                disk.hard_state.commit = disk.hard_state.commit.min(disk.log.last());
            }
            "cut" => {
                self.cluster.cuts.insert((id(1), id(2)));
                self.cluster.cuts.insert((id(2), id(1)));
            }
            "heal" => self.cluster.cuts.clear(),
            "change" => return self.change(id(1), &words[2..]),
            "compact" => {
                let index = Index(number(&words, 2));
                self.cluster
                    .members
                    .get_mut(&id(1))
                    .expect("it runs")
                    .compact(index);
            }
            "state" => return self.state(),
            unknown => panic!("unknown command {unknown}"),
        }
        self.said()
    }

    fn members(&mut self, words: &[&str]) {
        let mut membership = Membership::default();
        let mut learners = false;
        for word in words {
            match word.parse() {
                Err(_) => learners = true,
                Ok(id) if learners => {
                    membership.learners.insert(MemberId(id));
                }
                Ok(id) => {
                    membership.voters.insert(MemberId(id));
                }
            }
        }
        let everybody: Vec<_> = (1..=9).map(MemberId).collect();
        for id in membership.members() {
            let disk = known_disk(id, membership.clone(), &everybody);
            self.cluster.disks.insert(id, disk);
        }
    }

    fn disk(&mut self, id: MemberId) -> &mut Disk {
        self.cluster.disks.get_mut(&id).expect("it does not run")
    }

    fn log(&mut self, id: MemberId, terms: Vec<u64>) {
        let disk = self.disk(id);
        disk.log.entries = terms
            .iter()
            .map(|&term| Entry {
                term: Term(term),
                payload: Payload::Data(1_000 + term),
            })
            .collect();
        disk.hard_state.term = Term(terms.last().copied().unwrap_or(0));
    }

    fn on_the_way(&mut self, from: MemberId, to: MemberId, arrives: bool) {
        let all = std::mem::take(&mut self.cluster.network);
        let (now, later): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|flight| (flight.from, flight.to) == (from, to));
        self.cluster.network = later.into();
        for flight in now.into_iter().filter(|_| arrives) {
            self.cluster.deliver(flight);
        }
    }

    fn change(&mut self, leader: MemberId, words: &[&str]) -> String {
        let id = || MemberId(number(words, 1));
        let change = match words[0] {
            "learner" => Change::AddLearner(id()),
            "voter" => Change::AddVoter(id()),
            "promote" => Change::Promote(id()),
            "remove" => Change::Remove(id()),
            "lease" => Change::ReadMode(ReadMode::Lease),
            "quorum" => Change::ReadMode(ReadMode::Quorum),
            unknown => panic!("unknown change {unknown}"),
        };
        if let Change::AddLearner(id) | Change::AddVoter(id) = change {
            let everybody: Vec<_> = (1..=9).map(MemberId).collect();
            let first = self.cluster.members.values().next().expect("somebody runs");
            let bootstrap = first.disk.log.membership.clone();
            if !self.cluster.members.contains_key(&id) {
                self.cluster
                    .start(id, known_disk(id, bootstrap, &everybody));
            }
        }
        if let Err(refusal) = self.cluster.members[&leader].raft.check_change(&change) {
            return format!("  {leader} refuses: {refusal}\n");
        }
        self.cluster.propose(leader, Payload::Change(change));
        self.said()
    }

    fn said(&mut self) -> String {
        let trace = self
            .cluster
            .trace
            .replace(Vec::new())
            .expect("it is traced");
        let mut text = String::new();
        for (id, doing) in trace {
            if let Some(line) = line(id, &doing) {
                writeln!(text, "  {line}").expect("text grows");
            }
        }
        text
    }

    fn state(&self) -> String {
        let mut text = String::new();
        for member in self.cluster.members.values() {
            let raft = &member.raft;
            let terms: Vec<_> = member
                .log
                .entries
                .iter()
                .map(|entry| entry.term.to_string())
                .collect();
            let base = match member.log.base.index.0 {
                0 => String::new(),
                index => format!("..{index}| "),
            };
            writeln!(
                text,
                "  {} {:<12} term {}  log {base}{}  commit {}",
                member.id,
                format!("{:?}", raft.role()),
                raft.term(),
                terms.join(" "),
                raft.commit()
            )
            .expect("text grows");
        }
        text
    }
}

fn number(words: &[&str], position: usize) -> u64 {
    words[position].parse().expect("a number")
}

fn place(position: Position) -> String {
    format!("{}@{}", position.index, position.term)
}

fn line(id: MemberId, doing: &Doing) -> Option<String> {
    Some(match doing {
        Doing::Send(to, Packet::Message(message, _)) => format!("{id} -> {to}  {}", body(message)),
        Doing::Send(to, Packet::Checkpoint { base, .. }) => {
            format!("{id} => {to}  checkpoint {}", place(*base))
        }
        Doing::Said(output) => format!("{id}: {}", output_text(output)?),
    })
}

fn body(message: &Message) -> String {
    let term = message.term;
    let text = match &message.body {
        Body::VoteRequest(request) => {
            let kind = if request.pre {
                "would you vote"
            } else {
                "vote"
            };
            let transfer = if request.transfer {
                ", handed over"
            } else {
                ""
            };
            format!(
                "{kind} for term {}, my log ends at {}{transfer}?",
                request.term,
                place(request.last)
            )
        }
        Body::VoteResponse(response) => {
            let kind = if response.pre { "would vote" } else { "votes" };
            let not = if response.granted { "yes" } else { "no" };
            format!("{kind} in term {}: {not}", response.term)
        }
        Body::Append(append) => {
            let runs: Vec<_> = append
                .entries
                .runs
                .iter()
                .map(|run| format!("{}x@{}", run.count, run.term))
                .collect();
            let probe = if append.probe { " (probe)" } else { "" };
            format!(
                "append after {}: [{}] commit {}{probe}",
                place(append.prev),
                runs.join(" "),
                append.commit
            )
        }
        Body::AppendResponse(response) => {
            let rebuilding = rebuilding(response.standing);
            match response.result {
                AppendResult::Accepted(matched) => format!(
                    "durable {}, verified {}{rebuilding}",
                    matched.durable, matched.verified
                ),
                AppendResult::Rejected { prev, hint } => {
                    format!("rejected after {prev}, try {}{rebuilding}", place(hint))
                }
            }
        }
        Body::Heartbeat(heartbeat) => {
            let round = if heartbeat.context.is_some() {
                ", confirm"
            } else {
                ""
            };
            format!("heartbeat commit {}{round}", heartbeat.commit)
        }
        Body::HeartbeatResponse(response) => {
            let round = if response.context.is_some() {
                ", confirmed"
            } else {
                ""
            };
            format!(
                "heard, durable {}, verified {}{round}{}",
                response.matched.durable,
                response.matched.verified,
                rebuilding(response.standing)
            )
        }
        Body::ReadRequest { standing, .. } => format!("read where?{}", rebuilding(*standing)),
        Body::ReadResponse { index, last, .. } => {
            format!("read at {index}, my log ends at {last}")
        }
        Body::TimeoutNow => "campaign now".into(),
        Body::NewerTerm => "your term is over".into(),
        Body::IdentityQuestion => "who am I?".into(),
        Body::IdentityConfirmed { .. } => "you are you".into(),
        Body::IdentityRefused { .. } => "you are somebody else".into(),
        Body::Removed => "you were removed".into(),
    };
    format!("[{term}] {text}")
}

fn rebuilding(standing: Standing) -> &'static str {
    match standing {
        Standing::Whole => "",
        Standing::Rebuilding => ", rebuilding",
    }
}

fn output_text(output: &Output) -> Option<String> {
    Some(match output {
        Output::Send { .. } | Output::NeedsCheckpoint { .. } => return None,
        Output::PersistHardState(state) => match state.vote {
            Some(vote) => format!("writes term {}, vote for {vote}", state.term),
            None => format!("writes term {}", state.term),
        },
        Output::TruncateLog { after } => format!("cuts its log after {after}"),
        Output::AppendEntries { first, last } => format!("appends {first}..={last}"),
        Output::ResetLog { base } => format!("begins anew after {}", place(*base)),
        Output::Committed(index) => format!("committed {index}"),
        Output::BecameLeader { term } => format!("leads term {term}"),
        Output::SteppedDown(why) => format!("steps down: {why:?}"),
        Output::LeaderChanged(Some(leader)) => format!("follows {leader}"),
        Output::LeaderChanged(None) => "knows no leader".into(),
        Output::ReadReady { index, .. } => format!("reads at {index}"),
        Output::MembershipChanged(membership) => {
            let ids = |set: &std::collections::BTreeSet<MemberId>| {
                set.iter()
                    .map(|id| id.to_string())
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            format!(
                "members {} learners [{}] {:?}",
                ids(&membership.voters),
                ids(&membership.learners),
                membership.read_mode
            )
        }
        Output::ForgetIncarnation { member } => format!("forgets the directory of {member}"),
        other => format!("{other:?}"),
    })
}
