//! Three members as processes, and what the tests ask them.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kontiki_harness::client::{CallError, Client};
use kontiki_harness::messages::{
    PUT, PutRequest, PutResponse, RANGE, RangeRequest, RangeResponse, STATUS, StatusRequest,
    StatusResponse,
};
use kontiki_harness::server::{Server, ServerOptions};

/// For every wait on something that must happen. Slow machines run many tests at once.
pub(crate) const TIME_MAX: Duration = Duration::from_secs(60);
/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(20);
/// For one question about a member's state.
const ASK_TIME_MAX: Duration = Duration::from_secs(2);

/// Members, running or not, on a directory that is kept when the test fails.
pub(crate) struct Group {
    pub(crate) options: Vec<ServerOptions>,
    pub(crate) servers: Vec<Option<Server>>,
    home: tempfile::TempDir,
}

impl Group {
    /// Options of as many members with free ports; nothing runs yet.
    pub(crate) fn prepare(name: &str, count: usize, flags: &[&str]) -> Group {
        let home = tempfile::Builder::new()
            .prefix(name)
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .expect("a directory below target");
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let mut options: Vec<ServerOptions> = Vec::new();
        for index in 0..count {
            let directory = home.path().join(format!("m{}", index + 1));
            std::fs::create_dir(&directory).expect("a directory");
            let mut member = ServerOptions::new(&program(), &directory).expect("free ports");
            member.name = format!("m{}", index + 1);
            member.cpu = Some(index % cpus);
            member.extra = vec!["--cores=1".to_owned()];
            member
                .extra
                .extend(flags.iter().map(|flag| (*flag).to_owned()));
            options.push(member);
        }
        let listed: Vec<String> = options
            .iter()
            .map(|member| format!("{}={}", member.name, member.peer_url()))
            .collect();
        for member in &mut options {
            member.initial_cluster = listed.join(",");
        }
        Group {
            servers: options.iter().map(|_| None).collect(),
            options,
            home,
        }
    }

    /// Three members that agree on a leader.
    pub(crate) fn start(name: &str, flags: &[&str]) -> Group {
        let mut group = Group::prepare(name, 3, flags);
        group.start_missing();
        group
    }

    /// Starts every member that does not run, all at once: none is ready alone.
    pub(crate) fn start_missing(&mut self) {
        std::thread::scope(|scope| {
            let members = self.options.iter().zip(&mut self.servers);
            for (options, server) in members.filter(|(_, server)| server.is_none()) {
                scope.spawn(move || *server = Some(Server::start(options).expect("a start")));
            }
        });
    }

    /// Kills a member as `kill -9` does.
    pub(crate) fn kill(&mut self, member: usize) {
        let server = self.servers[member].take().expect("it runs");
        server.kill().expect("it is gone");
    }

    /// A connection to a member.
    pub(crate) async fn client(&self, member: usize) -> Client {
        let address = self.options[member].client_address();
        Client::connect(address).await.expect("a connection")
    }

    /// Waits until all members that run agree on a leader among them; which it is, and its term.
    pub(crate) async fn leader(&self) -> (usize, u64) {
        self.wait(|status| {
            let first = status.first()?.1.as_ref()?;
            let term = first.raft_term;
            let agrees = |answer: &Option<StatusResponse>| {
                let answer = answer.as_ref();
                answer
                    .is_some_and(|answer| (answer.leader, answer.raft_term) == (first.leader, term))
            };
            if !status.iter().all(|(_, answer)| agrees(answer)) {
                return None;
            }
            let leads = |answer: &StatusResponse| {
                let header = answer.header.as_ref();
                header.is_some_and(|header| header.member_id == first.leader)
            };
            let leader = status
                .iter()
                .find(|(_, answer)| answer.as_ref().is_some_and(leads))?;
            Some((leader.0, term))
        })
        .await
    }

    /// Waits until `enough` finds what it looks for in what all running members say about themselves.
    pub(crate) async fn wait<T>(
        &self,
        mut enough: impl FnMut(&[(usize, Option<StatusResponse>)]) -> Option<T>,
    ) -> T {
        let start = Instant::now();
        loop {
            let mut status = Vec::new();
            for (member, _) in self.running() {
                status.push((member, ask(&self.options[member]).await));
            }
            if let Some(found) = enough(&status) {
                return found;
            }
            assert!(start.elapsed() < TIME_MAX, "in vain, last seen: {status:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = (usize, &Server)> {
        let servers = self.servers.iter().enumerate();
        servers.filter_map(|(member, server)| Some((member, server.as_ref()?)))
    }

    /// Everything a member has logged.
    pub(crate) fn log(&self, member: usize) -> String {
        read_text(&self.options[member].log)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.home.disable_cleanup(true);
            // The test runner hides only what goes through `print`.
            let _ = writeln!(
                std::io::stderr(),
                "kept for inspection: {}",
                self.home.path().display()
            );
        }
    }
}

/// What one member says about itself; none when it does not answer.
pub(crate) async fn ask(options: &ServerOptions) -> Option<StatusResponse> {
    let asked = async {
        let client = Client::connect(options.client_address()).await.ok()?;
        client.call(STATUS, &StatusRequest {}).await.ok()
    };
    tokio::time::timeout(ASK_TIME_MAX, asked).await.ok()?
}

/// Waits for a text in a log.
pub(crate) fn wait_for_text(log: &Path, text: &str) {
    let start = Instant::now();
    while !read_text(log).contains(text) {
        assert!(
            start.elapsed() < TIME_MAX,
            "`{text}` is not in {}",
            log.display()
        );
        std::thread::park_timeout(LOOK);
    }
}

fn read_text(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The binary under test.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("KONTIKI_BIN")
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_kontiki").into())
        .into()
}

/// Puts one value and gives its revision.
pub(crate) async fn put(client: &Client, key: &str, value: &str) -> Result<i64, CallError> {
    let request = PutRequest {
        key: key.as_bytes().to_vec().into(),
        value: value.as_bytes().to_vec().into(),
    };
    let answer: PutResponse = client.call(PUT, &request).await?;
    Ok(answer.header.expect("every answer has a header").revision)
}

/// A linearizable read of one key: its value and revision.
pub(crate) async fn get(client: &Client, key: &str) -> Result<Option<(String, i64)>, CallError> {
    let request = RangeRequest {
        key: key.as_bytes().to_vec().into(),
        ..RangeRequest::default()
    };
    let answer: RangeResponse = client.call(RANGE, &request).await?;
    Ok(answer.kvs.first().map(|found| {
        let value = String::from_utf8_lossy(&found.value).into_owned();
        (value, found.mod_revision)
    }))
}
