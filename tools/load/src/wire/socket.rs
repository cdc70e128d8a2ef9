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
    /// Nothing is left.
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
                // What is handed over is bounded by its owner already.
                session.set_buffer_limit(None);
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

    /// Sends what is in `out` and takes off what was sent, with one system call if the kernel has room.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn send(&mut self, out: &mut Vec<u8>) -> io::Result<Sent> {
        if let Some(tls) = &mut self.tls {
            tls.session.writer().write_all(out)?;
            out.clear();
            while tls.session.wants_write() {
                match tls.session.write_tls(&mut self.stream) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return Ok(Sent::Part);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            return Ok(Sent::All);
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
