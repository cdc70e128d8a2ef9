//! TCP proxies in front of the members' peer ports, so that a member can be cut off silently, or moved far away, without
//! root.
//!
//! Every member is known to the others by its proxy's port. Who connects to a proxy is told by the owner of
//! the connecting socket (/proc), because members have one address in common on loopback; it is looked up when a
//! member is cut off, as members connect before anybody knows their processes. Bytes of a member that is cut
//! off wait in both directions, as if the network dropped every packet and the sender repeated them; nothing is
//! closed and nothing is lost. Bytes of a member that is far away arrive later, as many on their way at a time as there are.
//! Runs on one thread of its own.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use kontiki_harness::client::block_on;
use kontiki_harness::server::{ServerOptions, free_port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Bytes that one direction of one connection holds.
const BUFFER_BYTES: usize = 64 * 1024;
/// Bytes that one direction of one connection has on its way to a member that is far away: a window that fills 80 MB/s
/// over 100 ms.
const DELAYED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Connections between members at a time, over all of them; more are refused.
const CONNECTIONS_MAX: usize = 1_024;
/// In `/proc/net/tcp`: the column of the local and the remote address and of the socket's number.
const COLUMNS: (usize, usize, usize) = (1, 2, 9);

/// All proxies of a cluster. Dropping it closes them.
#[derive(Debug)]
pub(super) struct Proxies {
    shared: Arc<Shared>,
    end: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
}

/// Who is cut off from what, and how far away.
#[derive(Debug)]
struct State {
    /// The process of each member; none for one that does not run.
    pids: Vec<Option<u32>>,
    /// Whether each member is cut off.
    cut: Vec<bool>,
    /// How long bytes from and to each member are on their way.
    delays: Vec<Duration>,
    /// Connections that are open, by a number of their own; at most [`CONNECTIONS_MAX`].
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
}

/// One connection between two members.
#[derive(Debug)]
struct Connection {
    /// Where it comes from.
    peer: SocketAddr,
    /// Whose that is; none before it was looked up. A connection of nobody known is cut at its other end only.
    from: Option<usize>,
    /// The member behind the proxy.
    to: usize,
    /// What its bytes meet.
    passage: watch::Sender<Passage>,
}

/// What the bytes of a connection meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Passage {
    /// They wait until this is over.
    waits: bool,
    /// They arrive so much later, in each direction.
    delay: Duration,
}

impl Proxies {
    /// One for each member, whose options learn its port.
    pub(super) fn start(members: &mut [ServerOptions]) -> io::Result<Proxies> {
        let mut listeners = Vec::new();
        for member in members.iter_mut() {
            let port = free_port()?;
            let listener = StdListener::bind(("127.0.0.1", port))?;
            listener.set_nonblocking(true)?;
            member.peer_proxy_port = Some(port);
            listeners.push((
                listener,
                SocketAddr::from(([127, 0, 0, 1], member.peer_port)),
            ));
        }
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                pids: vec![None; members.len()],
                cut: vec![false; members.len()],
                delays: vec![Duration::ZERO; members.len()],
                connections: BTreeMap::new(),
                next_connection: 0,
            }),
        });
        let (end, mut ended) = watch::channel(false);
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("peer-proxies".to_owned())
            .spawn(move || {
                block_on(async move {
                    for (member, (listener, address)) in listeners.into_iter().enumerate() {
                        tokio::task::spawn_local(serve(
                            listener,
                            address,
                            member,
                            Arc::clone(&theirs),
                        ));
                    }
                    // An error means that the owner is gone, which is the same end.
                    let _ = ended.wait_for(|ended| *ended).await;
                });
            })?;
        Ok(Proxies {
            shared,
            end,
            thread: Some(thread),
        })
    }

    /// Which process a member is.
    pub(super) fn set_pid(&self, member: usize, pid: Option<u32>) {
        self.shared.state().pids[member] = pid;
    }

    /// Cuts a member off, or lets its bytes pass again.
    pub(super) fn cut(&self, member: usize, cut: bool) {
        let mut state = self.shared.state();
        state.cut[member] = cut;
        state.tell_connections();
    }

    /// Lets bytes from and to a member arrive so much later, each way.
    pub(super) fn delay(&self, member: usize, delay: Duration) {
        let mut state = self.shared.state();
        state.delays[member] = delay;
        state.tell_connections();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done by who panics while holding it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection up, and gives its number and what its bytes meet.
    fn opened(&self, peer: SocketAddr, to: usize) -> (u64, watch::Receiver<Passage>) {
        let mut state = self.state();
        let number = state.next_connection;
        state.next_connection += 1;
        let passage = watch::Sender::new(Passage::default());
        let told = passage.subscribe();
        let connection = Connection {
            peer,
            from: None,
            to,
            passage,
        };
        state.connections.insert(number, connection);
        state.tell_connections();
        (number, told)
    }

    fn closed(&self, number: u64) {
        self.state().connections.remove(&number);
    }
}

impl State {
    /// Looks up whose connections are those of which that is not known.
    fn find_owners(&mut self) {
        // A file of /proc that cannot be read leaves connections of nobody known.
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        let sockets: Vec<Vec<String>> = self.pids.iter().map(|pid| sockets_of(*pid)).collect();
        for connection in self.connections.values_mut() {
            if connection.from.is_none() {
                connection.from = owner(&table, &sockets, connection.peer);
            }
        }
    }

    fn tell_connections(&mut self) {
        if self.cut.contains(&true) || self.delays.iter().any(|delay| !delay.is_zero()) {
            self.find_owners();
        }
        for connection in self.connections.values() {
            let ends = connection.from.into_iter().chain([connection.to]);
            let passage = ends.fold(Passage::default(), |passage, member| Passage {
                waits: passage.waits || self.cut[member],
                delay: passage.delay.max(self.delays[member]),
            });
            connection.passage.send_replace(passage);
        }
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        self.end.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A proxy that panicked has shown it by members that do not find each other.
            let _ = thread.join();
        }
    }
}

async fn serve(listener: StdListener, address: SocketAddr, to: usize, shared: Arc<Shared>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    let permits = Arc::new(tokio::sync::Semaphore::new(
        CONNECTIONS_MAX / shared.state().cut.len(),
    ));
    loop {
        let Ok((inbound, peer)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::task::spawn_local(async move {
            let (number, passage) = shared.opened(peer, to);
            forward(inbound, address, Gate { passage }).await;
            shared.closed(number);
            drop(permit);
        });
    }
}

/// Bytes pass while neither side is cut off.
#[derive(Clone)]
struct Gate {
    passage: watch::Receiver<Passage>,
}

impl Gate {
    async fn open(&mut self) {
        // The sender lives as long as the connection.
        let _ = self.passage.wait_for(|passage| !passage.waits).await;
    }

    fn delay(&self) -> Duration {
        self.passage.borrow().delay
    }
}

async fn forward(inbound: TcpStream, address: SocketAddr, mut gate: Gate) {
    gate.open().await;
    let Ok(outbound) = TcpStream::connect(address).await else {
        return;
    };
    // Without it heartbeats would wait for acknowledgements.
    if inbound
        .set_nodelay(true)
        .and_then(|()| outbound.set_nodelay(true))
        .is_err()
    {
        return;
    }
    let (from_inbound, to_inbound) = inbound.into_split();
    let (from_outbound, to_outbound) = outbound.into_split();
    let there = pump(from_inbound, to_outbound, gate.clone());
    let back = pump(from_outbound, to_inbound, gate);
    let (mut there, mut back) = (std::pin::pin!(there), std::pin::pin!(back));
    // Either end is the end of both: members close connections, they do not half-close them.
    poll_fn(
        |cx| match (there.as_mut().poll(cx), back.as_mut().poll(cx)) {
            (Poll::Pending, Poll::Pending) => Poll::Pending,
            _ => Poll::Ready(()),
        },
    )
    .await;
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut gate: Gate) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut road = Road::default();
    let mut ended = false;
    loop {
        gate.open().await;
        tokio::select! {
            read = from.read(&mut buffer), if !ended && road.bytes < DELAYED_BYTES_MAX => match read {
                Ok(count) if count > 0 => road.enter(&buffer[..count], gate.delay()),
                // An end of the connection is a packet like any other.
                _ => ended = true,
            },
            () = sleep_until(road.next_due()), if !road.packets.is_empty() => {}
        }
        gate.open().await;
        while let Some(packet) = road.arrived(Instant::now()) {
            if to.write_all(&packet).await.is_err() {
                return;
            }
        }
        if ended && road.packets.is_empty() {
            return;
        }
    }
}

/// What is on its way in one direction, and when it arrives: in the order in which it was sent.
#[derive(Default)]
struct Road {
    packets: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
}

impl Road {
    fn enter(&mut self, bytes: &[u8], delay: Duration) {
        let mut due = Instant::now() + delay;
        if let Some((last, _)) = self.packets.back() {
            due = due.max(*last);
        }
        self.bytes += bytes.len();
        self.packets.push_back((due, bytes.to_vec()));
    }

    /// When the next packet arrives; now, when there is none.
    fn next_due(&self) -> Instant {
        let next = self.packets.front();
        next.map_or_else(Instant::now, |(due, _)| *due)
    }

    fn arrived(&mut self, now: Instant) -> Option<Vec<u8>> {
        let (_, packet) = self.packets.pop_front_if(|(due, _)| *due <= now)?;
        self.bytes -= packet.len();
        Some(packet)
    }
}

/// Which member's process holds the socket that connects from `peer`, by the table of all sockets and the links of
/// each member's.
fn owner(table: &str, sockets: &[Vec<String>], peer: SocketAddr) -> Option<usize> {
    let socket = socket_of(table, peer.port())?;
    let link = format!("socket:[{socket}]");
    sockets.iter().position(|links| links.contains(&link))
}

/// What the descriptors of a process link to, sockets among them; nothing if it does not run.
fn sockets_of(pid: Option<u32>) -> Vec<String> {
    let descriptors = pid.and_then(|pid| std::fs::read_dir(format!("/proc/{pid}/fd")).ok());
    let target = |entry: std::fs::DirEntry| {
        let link = std::fs::read_link(entry.path()).ok()?;
        Some(link.to_str()?.to_owned())
    };
    descriptors
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(target)
        .collect()
}

/// The number of the socket with this local port, which is connected.
fn socket_of(table: &str, port: u16) -> Option<&str> {
    let (local, _, number) = COLUMNS;
    let port = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let number = columns.get(number)?;
        // A number of zero is a socket without a process.
        (columns.get(local)?.ends_with(&port) && *number != "0").then_some(*number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the connecting process is found, by a real connection.
    #[test]
    fn finds_the_owner() {
        let listener = StdListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let client = std::net::TcpStream::connect(address).expect("listens");
        let (_server, peer) = listener.accept().expect("connected");
        let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
        let own = sockets_of(Some(std::process::id()));
        assert_eq!(owner(&table, &[Vec::new(), own], peer), Some(1));
        assert_eq!(owner(&table, &[Vec::new()], peer), None);
        drop(client);
    }

    /// Goal: bytes wait while either side is cut off, and arrive when it is not; also those of a connection that is
    /// older than what is known of its process, as it is for members that have just started.
    #[test]
    fn cut_and_healed() {
        use std::io::{Read, Write};
        let target = StdListener::bind("127.0.0.1:0").expect("a port");
        let home = tempfile::tempdir().expect("a directory");
        let mut options =
            ServerOptions::new(std::path::Path::new("unused"), home.path()).expect("ports");
        options.peer_port = target.local_addr().expect("bound").port();
        let mut members = [options.clone(), options];
        let proxies = Proxies::start(&mut members).expect("ports");
        let port = members[0].peer_proxy_port.expect("proxied");
        let mut client = std::net::TcpStream::connect(("127.0.0.1", port)).expect("listens");
        let (mut server, _) = target.accept().expect("forwarded");
        let mut byte = [0];
        client.write_all(b"a").expect("open");
        server.read_exact(&mut byte).expect("passes");
        // This process is the second member, which has connected to the first.
        proxies.set_pid(1, Some(std::process::id()));
        for cut in [0, 1] {
            proxies.cut(cut, true);
            client.write_all(b"b").expect("buffered");
            server
                .set_read_timeout(Some(Duration::from_millis(100)))
                .expect("a timeout");
            assert!(
                server.read_exact(&mut byte).is_err(),
                "waits while {cut} is cut off"
            );
            proxies.cut(cut, false);
            server
                .set_read_timeout(Some(Duration::from_secs(10)))
                .expect("a timeout");
            server
                .read_exact(&mut byte)
                .expect("arrives after the heal");
            assert_eq!(&byte, b"b");
        }
        // Far away: whole and in order, no byte earlier than it may be; and near again, none passes those on their way.
        let delay = Duration::from_millis(80);
        proxies.delay(1, delay);
        let sent = Instant::now();
        client.write_all(b"cd").expect("buffered");
        let mut two = [0; 2];
        server.read_exact(&mut two).expect("arrives");
        assert_eq!(&two, b"cd");
        assert!(sent.elapsed() >= delay, "{:?}", sent.elapsed());
        client.write_all(b"e").expect("buffered");
        proxies.delay(1, Duration::ZERO);
        client.write_all(b"f").expect("buffered");
        server.read_exact(&mut two).expect("arrives");
        assert_eq!(&two, b"ef");
    }
}
