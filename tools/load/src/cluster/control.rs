//! Looking at a running cluster and hurting it: who leads, kill, stop, cut off, and making it whole again.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kontiki_harness::client::{CallError, Client, block_on};
use kontiki_harness::messages::{
    MOVE_LEADER, MoveLeaderRequest, MoveLeaderResponse, STATUS, StatusRequest, StatusResponse,
};
use kontiki_harness::server::Server;
use rustix::process::Signal;

use super::proxy::Proxies;
use super::start::member_name;
use super::{
    AGREE_TIME_MAX, Cluster, ClusterError, MEMBERS_MAX, Member, STATUS_TIME_MAX, STOP_TIME_MAX,
    TRANSFER_TIME_MAX, world,
};

/// Between two looks at the members while waiting.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Of a line of a log that is looked at in one piece.
const LOG_LINE_BYTES_MAX: u64 = 64 << 10;

/// What one member says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its id in the cluster.
    pub member_id: u64,
    /// Whom it takes for the leader; zero for nobody.
    pub leader_id: u64,
    /// Its term.
    pub term: u64,
    /// The revision it has applied.
    pub revision: i64,
    /// The version it says it has.
    pub version: String,
}

/// What all members say; none for one that does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterStatus(pub Vec<Option<MemberStatus>>);

impl ClusterStatus {
    /// The member that says in the highest term that it leads itself.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let leading = self.0.iter().enumerate().filter_map(|(index, member)| {
            let member = member.as_ref()?;
            (member.leader_id == member.member_id).then_some((member.term, index))
        });
        leading.max().map(|(_, index)| index)
    }

    /// The highest term.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.0
            .iter()
            .flatten()
            .map(|member| member.term)
            .max()
            .unwrap_or(0)
    }

    /// Whether all members answer and agree on who leads in which term.
    #[must_use]
    pub fn agreed(&self) -> bool {
        let Some(leader) = self.leader().and_then(|index| self.0[index].as_ref()) else {
            return false;
        };
        let agrees = |member: &MemberStatus| {
            (member.leader_id, member.term) == (leader.member_id, leader.term)
        };
        self.0
            .iter()
            .all(|member| member.as_ref().is_some_and(agrees))
    }

    /// Whether all members answer and have applied the same revision.
    #[must_use]
    pub fn level(&self) -> bool {
        let revision =
            |member: &Option<MemberStatus>| member.as_ref().map(|member| member.revision);
        let first = self.0.first().and_then(revision);
        first.is_some() && self.0.iter().all(|member| revision(member) == first)
    }
}

impl Cluster {
    /// Asks all members at once.
    #[must_use]
    pub fn status(&self) -> ClusterStatus {
        let addresses = self.addresses();
        block_on(async {
            let asked: Vec<_> = addresses
                .into_iter()
                .map(|address| tokio::task::spawn_local(ask(address)))
                .collect();
            let mut members = Vec::new();
            for answer in asked {
                members.push(answer.await.expect("asking does not panic"));
            }
            ClusterStatus(members)
        })
    }

    /// Waits until all members agree on a leader, and gives what they say.
    ///
    /// # Errors
    /// When they do not within `time_max`.
    pub fn wait_agreed(&self, time_max: Duration) -> Result<ClusterStatus, ClusterError> {
        let start = Instant::now();
        loop {
            let status = self.status();
            if status.agreed() {
                return Ok(status);
            }
            if start.elapsed() > time_max {
                return Err(ClusterError::NoLeader {
                    seen: format!("{:?}", status.0),
                });
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Asks the leader that the member leads which shares its CPU with the fewest others, and waits until all know it:
    /// who wins an election is chance, and a leader alone on its CPU gives other figures. Somebody may lead who hands
    /// leadership back, so it is asked again and again, until `stop`.
    ///
    /// # Errors
    /// When it does not, within `time_max` and one more question.
    pub fn seat_leader(&self, time_max: Duration, stop: &AtomicBool) -> Result<(), ClusterError> {
        let seat = quietest(&self.cpus());
        let start = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let status = self.wait_agreed(time_max.saturating_sub(start.elapsed()))?;
            let leader = status.leader().expect("they agree on one");
            if leader == seat {
                return Ok(());
            }
            let target = status.0[seat].as_ref().expect("all answer").member_id;
            let address = self.addresses()[leader];
            // Refused, somebody else leads by now, or will.
            let asked = block_on(move_leader(address, target));
            let waited = start.elapsed();
            if waited >= time_max {
                return Err(ClusterError::NotSeated {
                    member: seat,
                    waited,
                    seen: match asked {
                        Ok(()) => "it was made leader, and others led again".to_owned(),
                        Err(error) => error.to_string(),
                    },
                });
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Kills a member as `kill -9` does, and gives the moment right after the signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self, member: usize) -> Result<Instant, ClusterError> {
        let server = self.take_running(member)?;
        server.signal(Signal::KILL);
        let at = Instant::now();
        server.kill().map_err(world(format!("member {member}")))?;
        Ok(at)
    }

    /// Asks a member to end (SIGTERM); gives the moment right after the signal. [`Cluster::wait_ended`] waits for
    /// its end, and has to, before [`Cluster::heal`] can start it again.
    ///
    /// # Errors
    /// When it does not run.
    pub fn terminate(&mut self, member: usize) -> Result<Instant, ClusterError> {
        self.running(member)?.signal(Signal::TERM);
        Ok(Instant::now())
    }

    /// Stops a member as it stands (SIGSTOP): it keeps its connections and answers nothing.
    ///
    /// # Errors
    /// When it does not run.
    pub fn stop(&mut self, member: usize) -> Result<Instant, ClusterError> {
        self.running(member)?.signal(Signal::STOP);
        let at = Instant::now();
        self.members[member].stopped = true;
        Ok(at)
    }

    /// Cuts a member off from the others, silently, in both directions; clients still reach it.
    ///
    /// # Errors
    /// When it does not run, or the cluster was started without proxies.
    pub fn isolate(&mut self, member: usize) -> Result<Instant, ClusterError> {
        self.proxies_of(member)?.cut(member, true);
        Ok(Instant::now())
    }

    /// Moves a member away from the others: bytes between them arrive so much later, each way; clients are as near as
    /// before.
    ///
    /// # Errors
    /// When it does not run, or the cluster was started without proxies.
    pub fn delay(&mut self, member: usize, delay: Duration) -> Result<(), ClusterError> {
        self.proxies_of(member)?.delay(member, delay);
        Ok(())
    }

    /// The process of a member.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self, member: usize) -> Result<u32, ClusterError> {
        self.running(member).map(Server::pid)
    }

    /// Waits until every member has applied what the others have; only without load that comes.
    ///
    /// # Errors
    /// When they do not agree on a leader, or some member is still behind after `time_max`.
    pub fn wait_level(&self, time_max: Duration) -> Result<ClusterStatus, ClusterError> {
        let start = Instant::now();
        loop {
            let status = self.wait_agreed(AGREE_TIME_MAX)?;
            if status.level() {
                return Ok(status);
            }
            if start.elapsed() > time_max {
                return Err(ClusterError::Behind {
                    seen: format!("{:?}", status.0),
                });
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Undoes everything that was done to a member and starts it again if it has ended, on the data it has.
    ///
    /// # Errors
    /// When it does not end after SIGTERM, or does not start.
    pub fn heal(&mut self, member: usize) -> Result<(), ClusterError> {
        if let Some(proxies) = &self.proxies {
            proxies.cut(member, false);
            proxies.delay(member, Duration::ZERO);
        }
        let hurt = &mut self.members[member];
        if hurt.stopped {
            hurt.stopped = false;
            self.running(member)?.signal(Signal::CONT);
        }
        self.start_missing()
    }

    /// Waits for the end of a member that was asked to end.
    ///
    /// # Errors
    /// When it has not ended after [`STOP_TIME_MAX`].
    pub fn wait_ended(&mut self, member: usize) -> Result<(), ClusterError> {
        let server = self.take_running(member)?;
        server
            .wait(STOP_TIME_MAX)
            .map(drop)
            .map_err(world(format!("member {member}")))
    }

    /// Copies what all members have said in their logs so far to `directory`, one file each.
    ///
    /// # Errors
    /// When one cannot be copied.
    pub fn copy_logs(&self, directory: &Path) -> Result<(), ClusterError> {
        for member in &self.members {
            let to = directory.join(format!("{}.log", member.options.name));
            std::fs::copy(&member.options.log, &to).map_err(world(to.display().to_string()))?;
        }
        Ok(())
    }

    /// How many lines in each member's log have one of `texts` in them.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn lines_in_logs(&self, texts: &[&str]) -> Result<Vec<u64>, ClusterError> {
        let count = |member: &Member| {
            let log = &member.options.log;
            let shown = || log.display().to_string();
            let file = File::open(log).map_err(|error| world(shown())(error))?;
            lines_with(BufReader::new(file), texts).map_err(|error| world(shown())(error))
        };
        self.members.iter().map(count).collect()
    }

    /// Removes what [`Cluster::copy_logs`] has left there, of however many members: it would look like that of a later run.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn remove_logs(directory: &Path) -> Result<(), ClusterError> {
        for member in 0..MEMBERS_MAX {
            let log = directory.join(format!("{}.log", member_name(member)));
            match std::fs::remove_file(&log) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(world(log.display().to_string())(error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// The proxies, for a member that runs behind them.
    fn proxies_of(&self, member: usize) -> Result<&Proxies, ClusterError> {
        self.running(member)?;
        let proxies = self.proxies.as_ref();
        proxies.ok_or(ClusterError::State {
            member,
            state: "not behind a proxy",
        })
    }

    fn running(&self, member: usize) -> Result<&Server, ClusterError> {
        let running = self
            .members
            .get(member)
            .and_then(|member| member.server.as_ref());
        running.ok_or(ClusterError::State {
            member,
            state: "not running",
        })
    }

    fn take_running(&mut self, member: usize) -> Result<Server, ClusterError> {
        let running = self
            .members
            .get_mut(member)
            .and_then(|member: &mut Member| member.server.take());
        running.ok_or(ClusterError::State {
            member,
            state: "not running",
        })
    }
}

/// Lines in which one of `texts` is. The rest of a line that is too long is taken for another one.
fn lines_with(mut log: impl BufRead, texts: &[&str]) -> io::Result<u64> {
    let mut count = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut log)
            .take(LOG_LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)?
            == 0
        {
            return Ok(count);
        }
        let line = String::from_utf8_lossy(&line);
        count += u64::from(texts.iter().any(|text| line.contains(text)));
    }
}

/// The first of the members that share their CPU with the fewest others.
fn quietest(cpus: &[Option<usize>]) -> usize {
    let company = |member: &usize| {
        cpus.iter()
            .filter(|other| **other == cpus[*member] && other.is_some())
            .count()
    };
    (0..cpus.len()).min_by_key(company).unwrap_or(0)
}

async fn move_leader(address: SocketAddr, target_id: u64) -> Result<(), CallError> {
    let asked = async {
        let client = Client::connect(address)
            .await
            .map_err(|error| CallError::Broken(error.to_string()))?;
        let request = MoveLeaderRequest { target_id };
        client
            .call::<MoveLeaderResponse>(MOVE_LEADER, &request)
            .await
            .map(drop)
    };
    let late = |_| CallError::Broken(format!("no answer within {TRANSFER_TIME_MAX:?}"));
    tokio::time::timeout(TRANSFER_TIME_MAX, asked)
        .await
        .map_err(late)?
}

async fn ask(address: SocketAddr) -> Option<MemberStatus> {
    let asked = async {
        let client = Client::connect(address).await.ok()?;
        client
            .call::<StatusResponse>(STATUS, &StatusRequest {})
            .await
            .ok()
    };
    let answer = tokio::time::timeout(STATUS_TIME_MAX, asked).await.ok()??;
    let header = answer.header?;
    Some(MemberStatus {
        member_id: header.member_id,
        leader_id: answer.leader,
        term: answer.raft_term,
        revision: header.revision,
        version: answer.version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(member_id: u64, leader_id: u64, term: u64) -> Option<MemberStatus> {
        Some(MemberStatus {
            member_id,
            leader_id,
            term,
            revision: 1,
            version: String::new(),
        })
    }

    /// Goal: only members' logs are removed, and a directory that is not there has none.
    #[test]
    fn logs_of_earlier_runs() {
        let home = tempfile::tempdir().expect("a directory");
        let names = ["m1.log", "m9.log", "load.record"];
        for name in names {
            std::fs::write(home.path().join(name), "x").expect("written");
        }
        Cluster::remove_logs(home.path()).expect("removed");
        let left = names.map(|name| home.path().join(name).exists());
        assert_eq!(left, [false, false, true]);
        Cluster::remove_logs(&home.path().join("nowhere")).expect("none");
    }

    /// Goal: a line counts once, wherever the text is in it, and what is no text is no end.
    #[test]
    fn lines_of_logs() {
        let log = b"slow\na slow and late one\n\xff\xfe late\nnothing\nslow" as &[u8];
        let check = |texts: &[&str], expected| {
            assert_eq!(
                lines_with(log, texts).expect("bytes"),
                expected,
                "{texts:?}"
            );
        };
        check(&["slow"], 3);
        check(&["slow", "late"], 4);
        check(&["fast"], 0);
    }

    /// Goal: a leader gets the CPU that the fewest members use, and the first one where all are alike.
    #[test]
    fn seats() {
        let check = |cpus: &[usize], expected: usize| {
            let cpus: Vec<_> = cpus.iter().copied().map(Some).collect();
            assert_eq!(quietest(&cpus), expected, "{cpus:?}");
        };
        check(&[0], 0);
        check(&[0, 1, 0], 1);
        check(&[0, 1, 2], 0);
        check(&[0, 0, 1, 1, 0], 2);
        assert_eq!(quietest(&[None, None]), 0);
    }

    /// Goal: the leader is the one of the highest term, and agreement needs everybody.
    #[test]
    fn who_leads() {
        let check = |members: Vec<Option<MemberStatus>>, leader: Option<usize>, agreed: bool| {
            let status = ClusterStatus(members);
            assert_eq!(
                (status.leader(), status.agreed()),
                (leader, agreed),
                "{status:?}"
            );
        };
        check(vec![member(1, 1, 2)], Some(0), true);
        check(
            vec![member(1, 2, 2), member(2, 2, 2), member(3, 2, 2)],
            Some(1),
            true,
        );
        check(
            vec![member(1, 1, 2), member(2, 2, 3), member(3, 2, 3)],
            Some(1),
            false,
        );
        check(vec![member(1, 0, 2), member(2, 2, 2)], Some(1), false);
        check(vec![None, member(2, 2, 2)], Some(1), false);
        check(vec![None, member(2, 1, 2)], None, false);
        check(vec![], None, false);
    }
}
