//! Where a server listens, as people write it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use thiserror::Error;

/// One endpoint: `http://host:port`, `https://host:port`, or `host:port` for the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether it is reached through TLS.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// An endpoint that cannot be.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// Not of the form.
    #[error("{0:?} is no endpoint: it looks like http://127.0.0.1:2379")]
    Form(String),
    /// The name is not known.
    #[error("{0}: {1}")]
    Name(Endpoint, io::Error),
}

impl Endpoint {
    /// Host and port as a request names them.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// The first address of the name. Asks the system's resolver: may block.
    ///
    /// # Errors
    /// When the name is not known.
    pub fn address(&self) -> Result<SocketAddr, EndpointError> {
        let known = (self.host.as_str(), self.port).to_socket_addrs();
        known
            .and_then(|mut addresses| {
                addresses
                    .next()
                    .ok_or_else(|| io::ErrorKind::NotFound.into())
            })
            .map_err(|error| EndpointError::Name(self.clone(), error))
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Endpoint {
        Endpoint {
            tls: false,
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Endpoint, EndpointError> {
        let form = || EndpointError::Form(text.to_owned());
        let (tls, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return Err(form()),
            None => (false, text),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = rest.rsplit_once(':').ok_or_else(form)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = match bare {
            Some(host) => host,
            None if host.contains([':', '/', '[']) => return Err(form()),
            None => host,
        };
        let port = port
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(form)?;
        if host.is_empty() {
            return Err(form());
        }
        Ok(Endpoint {
            tls,
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::Endpoint;

    fn check(text: &str, expected: Option<&str>) {
        let parsed = text
            .parse::<Endpoint>()
            .ok()
            .map(|endpoint| endpoint.to_string());
        assert_eq!(parsed.as_deref(), expected, "{text}");
    }

    /// Goal: every form people write is taken, and what is none is refused.
    #[test]
    fn forms() {
        check("127.0.0.1:2379", Some("http://127.0.0.1:2379"));
        check("http://localhost:1/", Some("http://localhost:1"));
        check("https://[::1]:2379", Some("https://[::1]:2379"));
        check(
            "https://etcd.example:2379",
            Some("https://etcd.example:2379"),
        );
        for wrong in [
            "",
            "localhost",
            ":2379",
            "http://:2379",
            "unix://a:1",
            "::1:2379",
            "a:0",
            "a:x",
            "http://a/b:1",
        ] {
            check(wrong, None);
        }
    }
}
