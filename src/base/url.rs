//! The URLs of flags and of members: `http://host:port` and nothing else, because ids are computed from their text.
//! Whoever takes one and whoever connects to it read it here, so that they agree.
//!
//! Parsed here and not by a general URL library: such a library rewrites what it reads (case, default
//! ports, a trailing slash), and a member id would change with it.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::fmt;

/// What is wrong with a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlFault {
    /// No scheme, or one that etcd does not know either.
    #[error("URL scheme must be http, https, unix, or unixs")]
    Scheme,
    /// https, unix or unixs.
    #[error("only http URLs work in this version of kontiki (no TLS and no unix sockets yet)")]
    SchemeNotYet,
    /// The address is not `host:port`.
    #[error("URL address does not have the form \"host:port\"")]
    HostPort,
    /// Something after the port.
    #[error("URL must not contain a path, a query or a fragment")]
    Path,
    /// User name or password in the address.
    #[error("URL must not contain a user name")]
    User,
    /// A name where the address of an interface is needed.
    #[error("expected an IP address or \"localhost\" in a URL to listen on")]
    NotAnAddress,
}

/// A checked `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    /// As given, without surrounding blanks. Member ids are computed from this text.
    text: String,
    /// Without the brackets of IPv6 addresses.
    host: String,
    /// Zero only in listen URLs, for "any free port".
    port: u16,
}

impl Url {
    /// Checks `text`, which may have blanks around it.
    pub fn parse(text: &str) -> Result<Url, UrlFault> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").ok_or(UrlFault::Scheme)?;
        match scheme.to_ascii_lowercase().as_str() {
            "http" => {}
            "https" | "unix" | "unixs" => return Err(UrlFault::SchemeNotYet),
            _ => return Err(UrlFault::Scheme),
        }
        if rest.contains(['/', '?', '#']) {
            return Err(UrlFault::Path);
        }
        if rest.contains('@') {
            return Err(UrlFault::User);
        }
        let (host, port) = rest.rsplit_once(':').ok_or(UrlFault::HostPort)?;
        let host = match host.strip_prefix('[') {
            Some(bracketed) => {
                let inside = bracketed.strip_suffix(']').ok_or(UrlFault::HostPort)?;
                inside.parse::<Ipv6Addr>().map_err(|_| UrlFault::HostPort)?;
                inside
            }
            None => host,
        };
        let name_like = host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b));
        let bare_colon = host.contains(':') && !rest.starts_with('[');
        if host.is_empty() || !name_like || bare_colon {
            return Err(UrlFault::HostPort);
        }
        // `parse` alone would accept a sign.
        if !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(UrlFault::HostPort);
        }
        let port = port.parse().map_err(|_| UrlFault::HostPort)?;
        Ok(Url {
            text: text.to_owned(),
            host: host.to_owned(),
            port,
        })
    }

    /// The URL as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Host name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A URL to listen on: its host is an address, so that binding needs no name resolution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenUrl {
    url: Url,
    address: IpAddr,
}

impl ListenUrl {
    /// Checks `text`. `localhost` is 127.0.0.1, as where etcd binds it.
    pub fn parse(text: &str) -> Result<ListenUrl, UrlFault> {
        let url = Url::parse(text)?;
        let address = if url.host == "localhost" {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            url.host.parse().map_err(|_| UrlFault::NotAnAddress)?
        };
        Ok(ListenUrl { url, address })
    }

    /// Where to bind.
    #[must_use]
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.url.port)
    }

    /// The URL as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.url.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<(&str, u16), UrlFault>) {
        let parsed = Url::parse(text);
        let parsed = parsed
            .as_ref()
            .map(|url| (url.host(), url.port()))
            .map_err(|fault| *fault);
        assert_eq!(parsed, expected, "{text}");
    }

    /// Goal: host and port of every accepted form, and a reason for each refused one.
    #[test]
    fn urls() {
        check("http://localhost:2380", Ok(("localhost", 2380)));
        check(" http://10.0.0.1:1 ", Ok(("10.0.0.1", 1)));
        check("http://[::1]:2379", Ok(("::1", 2379)));
        check("http://a.example-1.org:80", Ok(("a.example-1.org", 80)));
        check("http://etcd.1:2380", Ok(("etcd.1", 2380)));
        check("http://127.1:2380", Ok(("127.1", 2380)));
        check("localhost:2380", Err(UrlFault::Scheme));
        check("ftp://localhost:2380", Err(UrlFault::Scheme));
        check("https://localhost:2380", Err(UrlFault::SchemeNotYet));
        check("unix://a:1", Err(UrlFault::SchemeNotYet));
        check("http://localhost", Err(UrlFault::HostPort));
        check("http://:2380", Err(UrlFault::HostPort));
        check("http://localhost:", Err(UrlFault::HostPort));
        check("http://localhost:+80", Err(UrlFault::HostPort));
        check("http://localhost:65536", Err(UrlFault::HostPort));
        check("http://::1:2379", Err(UrlFault::HostPort));
        check("http://[::1:2379", Err(UrlFault::HostPort));
        check("http://[a]:2379", Err(UrlFault::HostPort));
        check("http://a b:2379", Err(UrlFault::HostPort));
        check("http://localhost:2380/", Err(UrlFault::Path));
        check("http://localhost:2380?a", Err(UrlFault::Path));
        check("http://user@localhost:2380", Err(UrlFault::User));
        check("", Err(UrlFault::Scheme));
    }

    /// Goal: only addresses are listened on, and `localhost` is one of them.
    #[test]
    fn listen_urls() {
        let bound = |text| ListenUrl::parse(text).map(|url| url.socket_address().to_string());
        assert_eq!(
            bound("http://localhost:2379"),
            Ok("127.0.0.1:2379".to_owned())
        );
        assert_eq!(bound("http://0.0.0.0:0"), Ok("0.0.0.0:0".to_owned()));
        assert_eq!(bound("http://[::]:2379"), Ok("[::]:2379".to_owned()));
        assert_eq!(
            bound("http://example.org:2379"),
            Err(UrlFault::NotAnAddress)
        );
    }
}
