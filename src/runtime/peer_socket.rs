//! Sockets between members: connecting, sending from many places at once, receiving without a copy.
//!
//! Owns what the library's streams lack: gathering writes, reads into memory that nobody has zeroed, the
//! kernel's timeouts for a silent peer, and names that are resolved beside the cores. The descriptor is held
//! twice, by the library's stream for waiting and by ours for the system calls.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::io::{AsyncReadExt, AsyncWrite};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::beside::spawn_beside;
use super::mailbox::mailbox;
use super::net::Accepted;

/// Read with the call that waits; what is more is read straight into the buffer.
const FIRST_READ_BYTES: usize = 4 << 10;
/// Probes that a silent peer may leave unanswered.
const KEEPALIVE_PROBES: u32 = 3;

/// Both halves of a connection to a peer, of this core.
#[derive(Debug)]
pub struct PeerSocket {
    /// Sends.
    pub sender: Sender,
    /// Receives.
    pub receiver: Receiver,
}

/// The sending half. Ends both when it is told to.
#[derive(Debug)]
pub struct Sender {
    socket: Rc<Socket>,
    /// For waiting, from the first time that the kernel had no room.
    waiter: Option<glommio::net::TcpStream>,
}

/// The receiving half.
#[derive(Debug)]
pub struct Receiver {
    socket: Rc<Socket>,
    stream: glommio::net::TcpStream,
}

impl PeerSocket {
    /// Connects to `address`. Wrap in [`super::executor::timeout`] for a bound shorter than the kernel's.
    ///
    /// # Errors
    /// The kernel's answer.
    pub async fn connect(address: SocketAddr, silence: Duration) -> io::Result<PeerSocket> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking().cloexec(),
            Some(Protocol::TCP),
        )?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
                // To send nothing is possible as soon as the connection is there, or has failed.
                let mut waiter = stream_of(&socket)?;
                std::future::poll_fn(|cx| Pin::new(&mut waiter).poll_write(cx, &[])).await?;
                if let Some(error) = socket.take_error()? {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
        PeerSocket::new(socket, silence)
    }

    /// Binds an accepted connection to this core, for life.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn accepted(accepted: Accepted, silence: Duration) -> io::Result<PeerSocket> {
        PeerSocket::new(accepted.into_socket(), silence)
    }

    fn new(socket: Socket, silence: Duration) -> io::Result<PeerSocket> {
        // A peer that is gone without a word is noticed while something waits for it, and while nothing does.
        socket.set_tcp_user_timeout(Some(silence))?;
        let probe = (silence / KEEPALIVE_PROBES).max(Duration::from_secs(1));
        let keepalive = TcpKeepalive::new()
            .with_time(probe)
            .with_interval(probe)
            .with_retries(KEEPALIVE_PROBES);
        socket.set_tcp_keepalive(&keepalive)?;
        let stream = stream_of(&socket)?;
        let socket = Rc::new(socket);
        Ok(PeerSocket {
            sender: Sender {
                socket: Rc::clone(&socket),
                waiter: None,
            },
            receiver: Receiver { socket, stream },
        })
    }
}

/// A stream of the library on a duplicate of the descriptor.
fn stream_of(socket: &Socket) -> io::Result<glommio::net::TcpStream> {
    let duplicate: std::net::TcpStream = socket.try_clone()?.into();
    Ok(glommio_socket2::Socket::from(duplicate).into())
}

impl Sender {
    /// Sends what the kernel has room for, with one system call. `None` when there is no room.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn try_send(&self, pieces: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        loop {
            match self
                .socket
                .send_vectored_with_flags(pieces, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
            {
                Ok(count) => return Ok(Some(count)),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(None),
                    io::ErrorKind::Interrupted => {}
                    _ => return Err(error),
                },
            }
        }
    }

    /// Sends from `bytes` as soon as the kernel has room.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.waiter.is_none() {
            self.waiter = Some(stream_of(&self.socket)?);
        }
        let waiter = self.waiter.as_mut().expect("just made");
        Pin::new(waiter).poll_write(cx, bytes)
    }

    /// Ends the connection, both ways: what waits for it is told.
    pub fn close(&self) {
        // It may be closed already, by the other side: then it is what it should be.
        let _closed = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

impl Receiver {
    /// Waits for bytes and appends what is there to `buffer`, within its capacity but for a small first
    /// read. Zero is the end.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let mut first = [0; FIRST_READ_BYTES];
        let mut count = self.stream.read(&mut first).await?;
        buffer.extend_from_slice(&first[..count]);
        if count < first.len() {
            return Ok(count);
        }
        while buffer.len() < buffer.capacity() {
            match rustix::net::recv(&*self.socket, spare_capacity(buffer), RecvFlags::DONTWAIT) {
                // The end is seen again by the next call.
                Ok((_, 0)) | Err(Errno::AGAIN) => break,
                Ok((_, more)) => count += more,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(count)
    }
}

/// The addresses of `host`, in the resolver's order. Names are resolved anew each time, on a thread beside
/// the cores.
///
/// # Errors
/// The resolver's answer.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (found, mut wait) = mailbox(1);
    let host = host.to_owned();
    spawn_beside("resolver", move || {
        let addresses = (host.as_str(), port)
            .to_socket_addrs()
            .map(Iterator::collect::<Vec<_>>);
        // Nobody waits any more: the peer was removed.
        let _sent = found.send(addresses);
    })?;
    let addresses = wait.receive().await.transpose()?.unwrap_or_default();
    if addresses.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address",
        ));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::executor::{Queue, Task, run, spawn_local, timeout};
    use crate::runtime::net::{Sharing, open};

    const SILENCE: Duration = Duration::from_secs(3);

    fn on_new_thread<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
        std::thread::spawn(move || run(test()).expect("a ring"))
            .join()
            .expect("the test passes");
    }

    /// Two ends of one connection, and the listener that must live as long.
    async fn pair(address: &str) -> (PeerSocket, PeerSocket, Task<()>) {
        let address = address.parse().expect("an address");
        let listener = open(address, 1, Sharing::Exclusive)
            .expect("a free port")
            .remove(0);
        let address = listener.local_addr();
        let (taken, mut take) = mailbox(1);
        let serving = spawn_local(
            Queue::Connections,
            listener.serve(move |accepted| taken.send(accepted).expect("one connection")),
        );
        let dialed = PeerSocket::connect(address, SILENCE)
            .await
            .expect("connected");
        let accepted = take.receive().await.expect("accepted");
        let accepted = PeerSocket::accepted(accepted, SILENCE).expect("a socket");
        (dialed, accepted, serving)
    }

    /// Goal: pieces arrive as one row of bytes, over both families, and the end is an end.
    #[test]
    fn gathered() {
        on_new_thread(|| async {
            for address in ["127.0.0.1:0", "[::1]:0"] {
                let (dialed, mut accepted, _serving) = pair(address).await;
                let pieces = [IoSlice::new(b"one "), IoSlice::new(b"two")];
                let sent = dialed.sender.try_send(&pieces).expect("connected");
                assert_eq!(sent, Some(7));
                let mut buffer = Vec::with_capacity(64);
                accepted.receiver.receive(&mut buffer).await.expect("bytes");
                assert_eq!(buffer, b"one two");
                dialed.sender.close();
                let end = accepted.receiver.receive(&mut buffer).await;
                assert_eq!(end.expect("an end"), 0);
            }
        });
    }

    /// Goal: when the kernel has no room the sender waits for it, and nothing is lost or doubled.
    #[test]
    fn waits_for_room() {
        on_new_thread(|| async {
            let (mut dialed, mut accepted, _serving) = pair("127.0.0.1:0").await;
            let bytes: Vec<u8> = (0..16 << 20_u32).map(|n| (n >> 8) as u8).collect();
            let expected = bytes.clone();
            let reading = spawn_local(Queue::Connections, async move {
                let mut received = Vec::with_capacity(expected.len() + FIRST_READ_BYTES);
                while received.len() < expected.len() {
                    let count = accepted.receiver.receive(&mut received).await;
                    assert_ne!(count.expect("bytes"), 0);
                }
                assert!(received == expected);
            });
            let mut sent = 0;
            let mut waits = 0;
            while sent < bytes.len() {
                sent += match dialed
                    .sender
                    .try_send(&[IoSlice::new(&bytes[sent..])])
                    .expect("connected")
                {
                    Some(count) => count,
                    None => {
                        waits += 1;
                        std::future::poll_fn(|cx| dialed.sender.poll_send(cx, &bytes[sent..]))
                            .await
                            .expect("connected")
                    }
                };
            }
            reading.await;
            assert!(waits > 0, "16 MiB fit into no socket");
        });
    }

    /// Goal: a port nobody listens on is refused at once, and a name is resolved.
    #[test]
    fn refused_and_resolved() {
        on_new_thread(|| async {
            let (dialed, accepted, serving) = pair("127.0.0.1:0").await;
            let address = dialed.sender.socket.peer_addr().expect("connected");
            drop((dialed, accepted));
            serving.cancel().await;
            let address = address.as_socket().expect("an address");
            let refused = timeout(SILENCE, PeerSocket::connect(address, SILENCE)).await;
            let error = refused.expect("at once").expect_err("nobody listens");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);

            let found = resolve("localhost", 7).await.expect("every machine has it");
            assert!(found.iter().all(|address| address.ip().is_loopback()));
            let literal = resolve("::1", 7).await.expect("an address");
            assert_eq!(literal, [SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 7))]);
            assert!(resolve("no-such-host.invalid", 7).await.is_err());
        });
    }
}
