//! A non-blocking socket, plain or through TLS.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use socket2::{Domain, Protocol, Type};

use super::Endpoint;
use super::tls::HTTP2;

/// Plaintext that TLS holds at most; what goes beyond stays with its owner, whose bounds it counts against.
const PLAINTEXT_BYTES_MAX: usize = 64 * 1024;

/// One socket to a server.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    tls: Option<Box<Tls>>,
}

#[derive(Debug)]
struct Tls {
    session: ClientConnection,
    /// The handshake is over, and the server has agreed to HTTP/2.
    agreed: bool,
}

/// What one read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The server has closed its side.
    End,
}

/// How far one send went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Nothing is left that could go: at most the handshake is awaited, which goes on with a read.
    All,
    /// The rest goes when the socket is writable again.
    Part,
}

impl Socket {
    /// Begins to connect. The socket is writable when it is connected, or has failed: see [`Socket::connected`].
    ///
    /// # Errors
    /// When the system has no socket for us, or knows at once that there is no way.
    pub fn connect(
        endpoint: &Endpoint,
        address: SocketAddr,
        tls: Option<&Arc<ClientConfig>>,
    ) -> io::Result<Socket> {
        let kind = Type::STREAM.nonblocking();
        let socket = socket2::Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error)
                if rustix::io::Errno::from_io_error(&error)
                    == Some(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let tls = match tls.filter(|_| endpoint.tls) {
            None => None,
            Some(config) => {
                let name = ServerName::try_from(endpoint.host.clone()).map_err(io::Error::other)?;
                let mut session =
                    ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
                session.set_buffer_limit(Some(PLAINTEXT_BYTES_MAX));
                let agreed = false;
                Some(Box::new(Tls { session, agreed }))
            }
        };
        Ok(Socket {
            stream: socket.into(),
            tls,
        })
    }

    /// After the socket became writable for the first time: whether it is connected.
    ///
    /// # Errors
    /// When it is not, with the reason.
    pub fn connected(&self) -> io::Result<()> {
        match self.stream.take_error()? {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// When the connection is broken, or the server's certificate is not to be trusted.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<Received> {
        let read = match &mut self.tls {
            None => self.stream.read(into),
            Some(tls) => tls.read(&mut self.stream, into),
        };
        match read {
            Ok(0) => Ok(Received::End),
            Ok(count) => Ok(Received::Bytes(count)),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(Received::Nothing),
                _ => Err(error),
            },
        }
    }

    /// Sends what is in `out` and takes off what was sent, with few system calls if the kernel has room.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn send(&mut self, out: &mut Vec<u8>) -> io::Result<Sent> {
        if let Some(tls) = &mut self.tls {
            return tls.send(&mut self.stream, out);
        }
        let mut sent = 0;
        while sent < out.len() {
            match self.stream.write(&out[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        out.drain(..sent);
        Ok(if out.is_empty() {
            Sent::All
        } else {
            Sent::Part
        })
    }

    /// Whether TLS has something to say although its owner has not: a handshake, an alert.
    #[must_use]
    pub fn wants_send(&self) -> bool {
        self.tls
            .as_ref()
            .is_some_and(|tls| tls.session.wants_write())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Tls {
    /// Hands plaintext over only while nothing waits in TLS for the kernel: the server's pace is then seen in `out`.
    fn send(&mut self, stream: &mut TcpStream, out: &mut Vec<u8>) -> io::Result<Sent> {
        let mut taken = 0;
        let sent = loop {
            match self.write_tls(stream) {
                Ok(Sent::All) if taken < out.len() => {}
                sent => break sent,
            }
            let size = (out.len() - taken).min(PLAINTEXT_BYTES_MAX);
            match self.session.writer().write(&out[taken..taken + size]) {
                // The handshake is not over, and TLS holds as much as it may.
                Ok(0) => break Ok(Sent::All),
                Ok(count) => taken += count,
                Err(error) => break Err(error),
            }
        };
        out.drain(..taken);
        sent
    }

    /// Sends what TLS has ready.
    fn write_tls(&mut self, stream: &mut TcpStream) -> io::Result<Sent> {
        while self.session.wants_write() {
            match self.session.write_tls(stream) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Sent::Part),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Sent::All)
    }

    fn read(&mut self, stream: &mut TcpStream, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            if self.session.read_tls(stream)? == 0 {
                return Ok(0);
            }
            if let Err(error) = self.session.process_new_packets() {
                // The server is told why, as far as it listens.
                let _ = self.session.write_tls(stream);
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            if !self.agreed && !self.session.is_handshaking() {
                if self.session.alpn_protocol() != Some(HTTP2) {
                    return Err(io::Error::other(
                        "the server does not offer HTTP/2 in its handshake",
                    ));
                }
                self.agreed = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc;

    use rustix::event::{PollFd, PollFlags, poll};
    use rustls::crypto::ring;
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use rustls::{ServerConfig, ServerConnection, StreamOwned};

    use super::super::{TlsOptions, client_config};
    use super::*;

    fn server_config() -> Arc<ServerConfig> {
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
        let key = PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("usual versions")
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], PrivateKeyDer::from(key))
            .expect("a pair");
        config.alpn_protocols = vec![HTTP2.to_vec()];
        Arc::new(config)
    }

    fn wait(socket: &Socket, flags: PollFlags) {
        poll(&mut [PollFd::new(socket, flags)], None).expect("it becomes ready");
    }

    /// Goal: what a server does not read stays with the caller, and goes in order, whole, when it reads.
    #[test]
    fn a_server_that_does_not_read() {
        // Far more than the kernel holds for one connection.
        const BYTES: usize = 48 * 1024 * 1024;
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (go, gone) = mpsc::channel();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            let session = ServerConnection::new(server_config()).expect("a session");
            let mut stream = StreamOwned::new(session, stream);
            // The handshake, and one byte in each direction.
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a byte");
            stream.write_all(&byte).expect("a byte");
            gone.recv().expect("the client has sent what goes");
            let mut all = vec![0; BYTES];
            stream.read_exact(&mut all).expect("all bytes");
            all
        });
        let endpoint: Endpoint = format!("https://{address}").parse().expect("an endpoint");
        let config = client_config(&TlsOptions {
            insecure_skip_tls_verify: true,
            ..TlsOptions::default()
        })
        .expect("a client");
        let mut socket = Socket::connect(&endpoint, address, Some(&config)).expect("a socket");
        wait(&socket, PollFlags::OUT);
        socket.connected().expect("it listens");
        // Before the handshake is over no more than the bound is taken either.
        let mut out = vec![7; 1 + PLAINTEXT_BYTES_MAX];
        let mut buffer = [0; 100];
        assert_eq!(socket.send(&mut out).expect("it is connected"), Sent::All);
        assert_eq!(out, [7]);
        while socket.read(&mut buffer).expect("a handshake") == Received::Nothing {
            socket.send(&mut out).expect("it is connected");
            wait(&socket, PollFlags::IN);
        }
        let expected: Vec<u8> = (0..BYTES - PLAINTEXT_BYTES_MAX)
            .map(|at| (at / 1000) as u8)
            .collect();
        out.extend_from_slice(&expected);
        assert_eq!(socket.send(&mut out).expect("it is connected"), Sent::Part);
        assert!(out.len() > BYTES / 2, "{} bytes are left", out.len());
        go.send(()).expect("the server waits");
        while socket.send(&mut out).expect("it is connected") == Sent::Part {
            wait(&socket, PollFlags::OUT);
        }
        let read = server.join().expect("the server reads");
        assert!(read[PLAINTEXT_BYTES_MAX..] == expected, "in order");
    }
}
