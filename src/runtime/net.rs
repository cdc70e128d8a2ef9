//! Sockets of one core: listening, accepting, streams.
//!
//! Owns the hazards of the library's listener by not using it: sockets are created here (a taken port is
//! an error, not a silent second server), connections are accepted by plain `accept4` calls once the
//! ring says that the listening descriptor is readable (so that nothing leaks when a task is cancelled),
//! and an accepted connection is an owned descriptor that may be sent to another core.
//! Streams have no timeouts; callers keep deadlines of their own.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::io::{AsyncRead, AsyncWrite};
use socket2::{Domain, Protocol, Socket, Type};

use super::executor;
use crate::base::limits::{ACCEPTS_PER_TURN_MAX, LISTEN_BACKLOG};

/// How long a core waits before it accepts again after the kernel refused for lack of a resource.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A listening socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process, or another listener of this one, has the port.
    #[error(
        "cannot listen on {address}: the address is already in use, by another process or by a URL of this member"
    )]
    InUse {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The address is not one of this machine's.
    #[error("cannot listen on {address}: it is not an address of this machine")]
    NotLocal {
        /// What was asked for.
        address: SocketAddr,
    },
    /// A port that needs a privilege.
    #[error(
        "cannot listen on {address}: permission denied (ports below net.ipv4.ip_unprivileged_port_start \
         need CAP_NET_BIND_SERVICE)"
    )]
    Denied {
        /// What was asked for.
        address: SocketAddr,
    },
    /// Anything else the kernel said.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// What was asked for.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// One core's listening socket. Made by [`open`] on any thread, used on one core.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    local: SocketAddr,
}

/// Who may listen on a port beside us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Nobody: an address that any other process listens on is refused, which sharing a port between
    /// cores would otherwise hide.
    Exclusive,
    /// Processes of the same user that ask for it too (`--socket-reuse-port`); the kernel spreads
    /// connections over all of them.
    Shared,
}

/// Opens `count` listening sockets on one address, one for each core that accepts; the kernel spreads
/// connections over them. Connections queue in the backlog from here on. Port zero takes a free port,
/// the same for all.
///
/// # Errors
/// [`ListenError`], with the cause in words.
pub fn open(
    address: SocketAddr,
    count: usize,
    sharing: Sharing,
) -> Result<Vec<Listener>, ListenError> {
    assert!(count > 0, "a listener without a core");
    let explain = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { address },
        io::ErrorKind::AddrNotAvailable => ListenError::NotLocal { address },
        io::ErrorKind::PermissionDenied => ListenError::Denied { address },
        _ => ListenError::Other { address, source },
    };
    match sharing {
        Sharing::Exclusive => open_exclusive(address, count),
        Sharing::Shared => open_shared(address, count),
    }
    .map_err(explain)
}

/// Between two attempts to bind a port.
const BIND_RETRY: Duration = Duration::from_millis(20);
/// Attempts to bind it: two seconds.
const BIND_ATTEMPTS: u32 = 100;

fn open_exclusive(address: SocketAddr, count: usize) -> io::Result<Vec<Listener>> {
    // Bound without SO_REUSEPORT, which fails if anybody listens there, with or without it.
    let probe = bound_once_free(address)?;
    let local = local_address(&probe)?;
    if count == 1 {
        probe.listen(LISTEN_BACKLOG)?;
        return Ok(vec![Listener {
            socket: probe,
            local,
        }]);
    }
    drop(probe);
    open_shared(local, count)
}

fn open_shared(address: SocketAddr, count: usize) -> io::Result<Vec<Listener>> {
    let mut listeners: Vec<Listener> = Vec::with_capacity(count);
    for _ in 0..count {
        // The first may be given a port, which is then that of all.
        let address = listeners.first().map_or(address, Listener::local_addr);
        let socket = bound(address, true)?;
        let local = local_address(&socket)?;
        socket.listen(LISTEN_BACKLOG)?;
        listeners.push(Listener { socket, local });
    }
    Ok(listeners)
}

/// Binds, and waits for a process that is going away: the kernel takes an io_uring apart after the exit
/// of its owner, and until then the listening socket that a request in it names is still open.
fn bound_once_free(address: SocketAddr) -> io::Result<Socket> {
    for _ in 0..BIND_ATTEMPTS {
        match bound(address, false) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                std::thread::park_timeout(BIND_RETRY);
            }
            result => return result,
        }
    }
    bound(address, false)
}

/// A close-on-exec, non-blocking socket bound to `address`. The unspecified address of either family is that of both, as
/// with etcd, where the machine has both.
fn bound(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    if address.ip().is_unspecified() {
        let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port()));
        let result = bound_to(both, false, reuse_port);
        if !result.as_ref().is_err_and(lacks_family) {
            return result;
        }
    }
    bound_to(address, address.is_ipv6(), reuse_port)
}

/// Whether this is what a machine without IPv6 says of its addresses.
fn lacks_family(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

fn bound_to(address: SocketAddr, only_v6: bool, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    // A restart must not wait for old connections in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    socket
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::other("not an internet socket"))
}

impl Listener {
    /// The address in use; with the port the kernel chose when zero was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Accepts for ever on this core and hands each connection to `on_connection`. Ends only by being
    /// dropped, at any point, without losing a descriptor; what was not accepted is then reset by the kernel.
    /// Refusals for lack of descriptors or memory are logged once and retried.
    pub async fn serve(self, mut on_connection: impl FnMut(Accepted)) {
        let mut failing = false;
        loop {
            match self.accept_ready(&mut on_connection).await {
                Ok(()) => failing = false,
                Err(error) => {
                    if !failing {
                        tracing::warn!(address = %self.local, %error, "cannot accept connections, retrying");
                        failing = true;
                    }
                    executor::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    /// Waits until connections are there and takes a bounded number of them.
    async fn accept_ready(&self, on_connection: &mut impl FnMut(Accepted)) -> io::Result<()> {
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            match self.socket.accept() {
                Ok((socket, peer)) => {
                    let Some(peer) = peer.as_socket() else {
                        continue;
                    };
                    // A socket of both families has other names for those of the older one.
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    // Answers are coalesced here, never by the kernel. A connection that refuses is broken.
                    if socket.set_tcp_nodelay(true).is_ok() {
                        on_connection(Accepted { socket, peer });
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return readable(&self.socket).await,
                    // The peer left between its handshake and now, or a signal came.
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    _ if is_network_error(&error) => {}
                    _ => return Err(error),
                },
            }
        }
        executor::yield_if_needed().await;
        Ok(())
    }
}

/// Errors of the new connection that Linux reports through `accept`.
fn is_network_error(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ENETDOWN
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
                | libc::EPERM
        )
    )
}

/// Completes when `socket` is readable or failed.
///
/// The library has no readiness future for a plain descriptor, but each of its streams arms a poll
/// when it is made. So a duplicate of the listening descriptor becomes a stream for one wait; its read
/// after the poll answers "not connected", which is as good as any answer: the poll has fired.
async fn readable(socket: &Socket) -> io::Result<()> {
    let duplicate: std::net::TcpStream = socket.try_clone()?.into();
    let mut waiter = glommio::net::TcpStream::from(glommio_socket2::Socket::from(duplicate));
    let mut nothing = [0u8; 1];
    std::future::poll_fn(|cx| {
        Pin::new(&mut waiter)
            .poll_read(cx, &mut nothing)
            .map(|_| Ok(()))
    })
    .await
}

/// A connection that no core has taken yet. Owned: dropping it closes it, sending it is safe.
#[derive(Debug)]
pub struct Accepted {
    socket: Socket,
    peer: SocketAddr,
}

impl Accepted {
    /// The client's address.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    pub(super) fn into_socket(self) -> Socket {
        self.socket
    }

    /// Binds the connection to this core, for life.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        let stream: std::net::TcpStream = self.socket.into();
        TcpStream {
            stream: glommio_socket2::Socket::from(stream).into(),
            peer: self.peer,
        }
    }
}

/// A TCP connection of this core. Reads and writes are unbuffered: one system call each, so callers
/// coalesce. Dropping it, or a pending read or write, loses and leaks nothing.
#[derive(Debug)]
pub struct TcpStream {
    stream: glommio::net::TcpStream,
    peer: SocketAddr,
}

impl TcpStream {
    /// Connects to `address`. Wrap in [`executor::timeout`] for a bound shorter than the kernel's.
    ///
    /// # Errors
    /// The kernel's answer.
    pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
        let stream = glommio::net::TcpStream::connect(address)
            .await
            .map_err(io::Error::from)?;
        stream.set_nodelay(true).map_err(io::Error::from)?;
        Ok(TcpStream {
            stream,
            peer: address,
        })
    }

    /// The other side's address.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// This side's address.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr().map_err(io::Error::from)
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    /// Nothing to flush: writes go to the kernel at once.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends the sending half; the peer reads end of file.
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use futures_lite::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::runtime::executor::{Queue, run, spawn_local, timeout};

    const LOOPBACK: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    fn on_new_thread<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
        std::thread::spawn(move || run(test()).expect("a ring"))
            .join()
            .expect("the test passes");
    }

    /// Goal: a port that somebody listens on is refused, shared port or not, and then released.
    #[test]
    fn taken_port() {
        for (first, second) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
            let held = open(LOOPBACK, first, Sharing::Exclusive).expect("a free port");
            assert_eq!(held.len(), first);
            let address = held[0].local_addr();
            assert!(held.iter().all(|listener| listener.local_addr() == address));
            for sharing in [Sharing::Exclusive, Sharing::Shared] {
                if sharing == Sharing::Exclusive || first == 1 {
                    let refused = open(address, second, sharing).expect_err("the port is taken");
                    assert!(matches!(refused, ListenError::InUse { .. }), "{refused}");
                }
            }
            drop(held);
            open(address, second, Sharing::Exclusive).expect("the port is free again");
        }
    }

    /// Goal: two that both want to share a port do; whoever wants it alone does not get it.
    #[test]
    fn shared_port() {
        for (first, second) in [(1, 1), (2, 2)] {
            let held = open(LOOPBACK, first, Sharing::Shared).expect("a free port");
            let address = held[0].local_addr();
            assert!(held.iter().all(|listener| listener.local_addr() == address));
            let beside = open(address, second, Sharing::Shared).expect("the port is shared");
            assert_eq!((beside.len(), beside[0].local_addr()), (second, address));
            let refused = open(address, 1, Sharing::Exclusive).expect_err("the port is taken");
            assert!(matches!(refused, ListenError::InUse { .. }), "{refused}");
        }
    }

    /// Goal: who listens on the unspecified address of either family is reached by both, as far as this machine has both.
    #[test]
    fn both_families() {
        let loopbacks = [LOOPBACK.ip(), Ipv6Addr::LOCALHOST.into()];
        let there = loopbacks.map(|ip| open((ip, 0).into(), 1, Sharing::Exclusive).is_ok());
        let wildcards = ["0.0.0.0:0", "[::]:0"].map(|address| address.parse().expect("one"));
        for (wildcard, _) in wildcards.into_iter().zip(there).filter(|(_, there)| *there) {
            for count in [1, 2] {
                let held = open(wildcard, count, Sharing::Exclusive).expect("a free port");
                let port = held[0].local_addr().port();
                for (ip, _) in loopbacks.into_iter().zip(there).filter(|(_, there)| *there) {
                    let connected = std::net::TcpStream::connect((ip, port));
                    assert!(connected.is_ok(), "{ip} to {wildcard}: {connected:?}");
                }
            }
        }
    }

    /// Goal: connections before and after the first wait are accepted, carry bytes both ways, end on close.
    #[test]
    fn accept_and_echo() {
        on_new_thread(|| async {
            let listener = open(LOOPBACK, 1, Sharing::Exclusive)
                .expect("a free port")
                .remove(0);
            let address = listener.local_addr();
            let serve = spawn_local(
                Queue::Connections,
                listener.serve(|accepted| {
                    spawn_local(Queue::Connections, async move {
                        let mut stream = accepted.into_stream();
                        let mut buffer = [0; 64];
                        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                            stream.write_all(&buffer[..count]).await.expect("echoed");
                        }
                        stream.close().await.expect("closed");
                    })
                    .detach();
                }),
            );
            for round in 0..3 {
                let client = std::thread::spawn(move || {
                    let mut sockets: Vec<_> = (0..20)
                        .map(|_| std::net::TcpStream::connect(address).expect("connected"))
                        .collect();
                    for socket in &mut sockets {
                        socket.write_all(b"hello").expect("sent");
                        socket.shutdown(std::net::Shutdown::Write).expect("ended");
                        let mut text = String::new();
                        socket.read_to_string(&mut text).expect("answered");
                        assert_eq!(text, "hello", "round {round}");
                    }
                });
                while !client.is_finished() {
                    executor::sleep(Duration::from_millis(1)).await;
                }
                client.join().expect("the clients are content");
            }
            serve.cancel().await;
            let refused = TcpStream::connect(address).await;
            assert!(refused.is_err(), "a cancelled listener is closed");
        });
    }

    /// Goal: accepting from another core's hands works, and a dropped pending read loses no bytes.
    #[test]
    fn dropped_read_loses_nothing() {
        on_new_thread(|| async {
            let listener = open(LOOPBACK, 1, Sharing::Exclusive)
                .expect("a free port")
                .remove(0);
            let address = listener.local_addr();
            let (sender, receiver) = std::sync::mpsc::channel();
            spawn_local(
                Queue::Connections,
                listener.serve(move |accepted| sender.send(accepted).expect("taken")),
            )
            .detach();
            let mut client = TcpStream::connect(address).await.expect("connected");
            let accepted = loop {
                if let Ok(accepted) = receiver.try_recv() {
                    break accepted;
                }
                executor::sleep(Duration::from_millis(1)).await;
            };
            assert_eq!(accepted.peer_addr(), client.local_addr().expect("known"));
            let mut stream = accepted.into_stream();
            let mut buffer = [0; 8];
            let span = Duration::from_millis(5);
            assert!(timeout(span, stream.read(&mut buffer)).await.is_err());
            client.write_all(b"late").await.expect("sent");
            assert_eq!(stream.read(&mut buffer).await.expect("read"), 4);
            assert_eq!(&buffer[..4], b"late");
        });
    }
}
