//! gRPC over HTTP/2 as bytes: request headers, message framing, and the ends of calls.
//!
//! Pure functions of headers and chunks. Any bytes may come in; refusals carry the texts that gRPC's own
//! Go server uses, since clients show and sometimes compare them.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method as HttpMethod, StatusCode};

use super::convert::FRAME_PREFIX_BYTES;
use super::edge::{GRPC_MESSAGE, GRPC_STATUS};
use super::method::Method;
use super::status::{self, Code, Status};

/// What the headers of a call say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Which call.
    pub(super) method: Method,
    /// The client's own limit, from the arrival of the headers.
    pub(super) timeout: Option<Duration>,
    /// The call is to be refused while there is no leader.
    pub(super) needs_leader: bool,
}

/// A call refused by its headers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RefusedHead {
    /// 200 unless HTTP itself is misused.
    pub(super) http_status: StatusCode,
    /// gRPC's view of it.
    pub(super) status: Status,
}

impl From<Status> for RefusedHead {
    fn from(status: Status) -> RefusedHead {
        RefusedHead {
            http_status: StatusCode::OK,
            status,
        }
    }
}

/// Reads the headers of a call.
pub(super) fn read_head(parts: &Parts) -> Result<Head, RefusedHead> {
    let mut content_type: &[u8] = b"";
    let mut timeout: Option<&[u8]> = None;
    let mut encoding: &[u8] = b"identity";
    let mut api_version_is_text = true;
    let mut needs_leader = false;
    for (name, value) in &parts.headers {
        match name.as_str() {
            "content-type" => content_type = value.as_bytes(),
            "grpc-timeout" => timeout = Some(value.as_bytes()),
            "grpc-encoding" => encoding = value.as_bytes(),
            "hasleader" => needs_leader = value.as_bytes() == b"true",
            "client-api-version" => {
                api_version_is_text = std::str::from_utf8(value.as_bytes()).is_ok()
            }
            _ => {}
        }
    }
    if !is_grpc(content_type) {
        let content_type = String::from_utf8_lossy(content_type);
        return Err(RefusedHead {
            http_status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            status: Status::new(
                Code::InvalidArgument,
                format!("invalid gRPC request content-type {content_type:?}"),
            ),
        });
    }
    if parts.method != HttpMethod::POST {
        return Err(RefusedHead {
            http_status: StatusCode::METHOD_NOT_ALLOWED,
            status: Status::new(
                Code::Internal,
                format!(
                    "Received a HEADERS frame with :method {:?} which should be POST",
                    parts.method.as_str()
                ),
            ),
        });
    }
    let timeout = match timeout {
        None => None,
        Some(text) => Some(read_timeout(text).ok_or_else(|| RefusedHead {
            http_status: StatusCode::BAD_REQUEST,
            status: Status::new(
                Code::Internal,
                format!(
                    "malformed grpc-timeout: {:?}",
                    String::from_utf8_lossy(text)
                ),
            ),
        })?),
    };
    let method = Method::find(parts.uri.path())?;
    if encoding != b"identity" && !encoding.is_empty() {
        let encoding = String::from_utf8_lossy(encoding);
        return Err(Status::new(
            Code::Unimplemented,
            format!("grpc: Decompressor is not installed for grpc-encoding {encoding:?}"),
        )
        .into());
    }
    if !api_version_is_text {
        return Err(status::INVALID_CLIENT_API_VERSION.into());
    }
    Ok(Head {
        method,
        timeout,
        needs_leader,
    })
}

const CONTENT_TYPE: &[u8] = b"application/grpc";

/// `application/grpc`, alone or followed by a subtype or a parameter.
pub(super) fn is_grpc(content_type: &[u8]) -> bool {
    subtype(content_type).is_some()
}

/// What follows `application/grpc`: empty for nothing, none when it is another type.
fn subtype(content_type: &[u8]) -> Option<&[u8]> {
    let (start, rest) = content_type.split_at_checked(CONTENT_TYPE.len())?;
    if !start.eq_ignore_ascii_case(CONTENT_TYPE) {
        return None;
    }
    match rest {
        [] => Some(rest),
        [b'+' | b';', subtype @ ..] => Some(subtype),
        _ => None,
    }
}

/// The content type of the response, when it is not plain `application/grpc`: gRPC's Go server repeats
/// the subtype of the request, in small letters, and takes a parameter for one.
pub(super) fn response_content_type(request: &HeaderValue) -> Option<HeaderValue> {
    let subtype = subtype(request.as_bytes()).filter(|subtype| !subtype.is_empty())?;
    let mut content_type = [CONTENT_TYPE, b"+", subtype].concat();
    content_type.make_ascii_lowercase();
    HeaderValue::from_bytes(&content_type).ok()
}

/// One to eight digits and a unit.
fn read_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits
        .iter()
        .fold(0, |count, digit| count * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(count * 3_600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// The trailers that end a call.
pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(3);
    trailers.insert(GRPC_STATUS, status.code.header());
    if let Some(message) = status.message_header() {
        trailers.insert(GRPC_MESSAGE, message);
    }
    trailers
}

/// Puts the first message of a call together from DATA chunks cut anywhere.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    /// What came so far, prefix included; empty while nothing did.
    partial: BytesMut,
}

impl Assembler {
    /// Bytes kept until the message is whole.
    pub(super) fn held_bytes(&self) -> usize {
        self.partial.len()
    }

    /// Takes a chunk. The whole message, or none while some of it is missing; what follows the message
    /// is dropped, since only the first counts.
    ///
    /// A message that came in one chunk is a slice of it.
    pub(super) fn push(
        &mut self,
        mut chunk: Bytes,
        size_bytes_max: u64,
    ) -> Result<Option<Bytes>, Status> {
        if self.partial.is_empty() {
            let Some(size) = prefix(&chunk, size_bytes_max)? else {
                self.partial.extend_from_slice(&chunk);
                return Ok(None);
            };
            if chunk.len() - FRAME_PREFIX_BYTES >= size {
                chunk.advance(FRAME_PREFIX_BYTES);
                chunk.truncate(size);
                return Ok(Some(chunk));
            }
        }
        self.partial.extend_from_slice(&chunk);
        let Some(size) = prefix(&self.partial, size_bytes_max)? else {
            return Ok(None);
        };
        if self.partial.len() - FRAME_PREFIX_BYTES < size {
            return Ok(None);
        }
        let mut message = std::mem::take(&mut self.partial).freeze();
        message.advance(FRAME_PREFIX_BYTES);
        message.truncate(size);
        Ok(Some(message))
    }

    /// The status for a stream that ends before its message is whole.
    pub(super) fn end(&self) -> Status {
        if self.partial.is_empty() {
            status::NO_MESSAGE
        } else {
            status::TRUNCATED_MESSAGE
        }
    }
}

/// Reads a message's prefix: its size, or none while the prefix is not whole.
fn prefix(bytes: &[u8], size_bytes_max: u64) -> Result<Option<usize>, Status> {
    let Some(&[flag, a, b, c, d]) = bytes.first_chunk::<FRAME_PREFIX_BYTES>() else {
        return Ok(None);
    };
    let size = u32::from_be_bytes([a, b, c, d]);
    // The Go server reads the whole message first, and so looks at its size first.
    if u64::from(size) > size_bytes_max {
        return Err(Status::message_too_large(u64::from(size), size_bytes_max));
    }
    match flag {
        0 => Ok(Some(size as usize)),
        1 => Err(status::COMPRESSED_WITHOUT_ENCODING),
        other => Err(Status::new(
            Code::Internal,
            format!("grpc: received unexpected payload format {other}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 100;

    /// Goal: a message is the same wherever its frames are cut, and what follows it does not matter.
    #[test]
    fn messages_are_assembled_from_any_cut() {
        let mut stream = vec![0, 0, 0, 0, 11];
        stream.extend_from_slice(b"hello world");
        stream.extend_from_slice(&[0, 0, 0, 0, 1, 7]);
        for first in 0..stream.len() {
            for second in first..stream.len() {
                let mut assembler = Assembler::default();
                let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
                let message = pieces
                    .into_iter()
                    .find_map(|piece| assembler.push(Bytes::copy_from_slice(piece), MAX).unwrap());
                assert_eq!(
                    message.as_deref(),
                    Some(&b"hello world"[..]),
                    "cut at {first} and {second}"
                );
            }
        }
    }

    /// Goal: an answer names the codec that the request named.
    #[test]
    fn subtypes_are_repeated() {
        let check = |request: &'static str, expected: Option<&str>| {
            let answered = response_content_type(&HeaderValue::from_static(request));
            assert_eq!(
                answered.as_ref().map(|value| value.to_str().unwrap()),
                expected,
                "{request}"
            );
        };
        check("application/grpc", None);
        check("application/grpc+", None);
        check("application/grpcx", None);
        check("text/plain", None);
        check("application/grpc+proto", Some("application/grpc+proto"));
        check("Application/GRPC+Proto", Some("application/grpc+proto"));
        check(
            "application/grpc;charset=x",
            Some("application/grpc+charset=x"),
        );
    }

    /// Goal: an empty message is a message.
    #[test]
    fn empty_messages() {
        let mut assembler = Assembler::default();
        let chunk = Bytes::from_static(&[0, 0, 0, 0, 0]);
        assert_eq!(assembler.push(chunk, MAX), Ok(Some(Bytes::new())));
        assert_eq!(assembler.end(), status::NO_MESSAGE);
        assert_eq!(assembler.push(Bytes::from_static(&[0, 0]), MAX), Ok(None));
        assert_eq!(assembler.end(), status::TRUNCATED_MESSAGE);
    }

    /// Goal: bad prefixes are refused as gRPC's Go server does, before the message is collected.
    #[test]
    fn prefixes_are_checked() {
        let check = |prefix: [u8; 5], code: Code, text: &str| {
            let status = Assembler::default()
                .push(prefix.to_vec().into(), MAX)
                .unwrap_err();
            assert_eq!((status.code, &*status.message), (code, text));
        };
        check(
            [0, 0, 0, 0, 101],
            Code::ResourceExhausted,
            "grpc: received message larger than max (101 vs. 100)",
        );
        check(
            [1, 255, 255, 255, 255],
            Code::ResourceExhausted,
            "grpc: received message larger than max (4294967295 vs. 100)",
        );
        check(
            [1, 0, 0, 0, 1],
            Code::Internal,
            "grpc: compressed flag set with identity or empty encoding",
        );
        check(
            [9, 0, 0, 0, 1],
            Code::Internal,
            "grpc: received unexpected payload format 9",
        );
    }

    /// Goal: timeouts are read by gRPC's grammar.
    #[test]
    fn timeouts() {
        let check = |text: &str, expected: Option<Duration>| {
            assert_eq!(read_timeout(text.as_bytes()), expected, "{text}");
        };
        check("1H", Some(Duration::from_secs(3_600)));
        check("99999999H", Some(Duration::from_secs(99_999_999 * 3_600)));
        check("2M", Some(Duration::from_secs(120)));
        check("7S", Some(Duration::from_secs(7)));
        check("5m", Some(Duration::from_millis(5)));
        check("5u", Some(Duration::from_micros(5)));
        check("5n", Some(Duration::from_nanos(5)));
        for bad in ["", "S", "5", "5x", "-5S", "123456789S", "5 S"] {
            check(bad, None);
        }
    }

    /// Goal: which headers make a call, and what the others are told.
    #[test]
    fn heads() {
        let check = |headers: &[(&str, &str)],
                     method: &str,
                     expected: Result<Option<Duration>, (u16, &str)>| {
            let mut request = http::Request::builder()
                .method(method)
                .uri("/etcdserverpb.KV/Range");
            for (name, value) in headers {
                request = request.header(
                    *name,
                    http::HeaderValue::from_bytes(value.as_bytes()).unwrap(),
                );
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            let head = read_head(&parts);
            match (&head, expected) {
                (Ok(head), Ok(timeout)) => assert_eq!(head.timeout, timeout),
                (Err(refused), Err(expected)) => assert_eq!(
                    (refused.http_status.as_u16(), &*refused.status.message),
                    expected
                ),
                (_, expected) => panic!("{head:?} is not {expected:?}"),
            }
        };
        let grpc = ("content-type", "application/grpc");
        check(&[grpc], "POST", Ok(None));
        check(
            &[
                ("content-type", "application/grpc+proto"),
                ("grpc-timeout", "1S"),
            ],
            "POST",
            Ok(Some(Duration::from_secs(1))),
        );
        check(&[grpc, ("grpc-encoding", "identity")], "POST", Ok(None));
        check(
            &[],
            "POST",
            Err((415, "invalid gRPC request content-type \"\"")),
        );
        check(
            &[("content-type", "application/grpcx")],
            "POST",
            Err((
                415,
                "invalid gRPC request content-type \"application/grpcx\"",
            )),
        );
        check(
            &[grpc],
            "GET",
            Err((
                405,
                "Received a HEADERS frame with :method \"GET\" which should be POST",
            )),
        );
        check(
            &[grpc, ("grpc-timeout", "soon")],
            "POST",
            Err((400, "malformed grpc-timeout: \"soon\"")),
        );
        check(
            &[grpc, ("grpc-encoding", "gzip")],
            "POST",
            Err((
                200,
                "grpc: Decompressor is not installed for grpc-encoding \"gzip\"",
            )),
        );
        check(&[grpc, ("client-api-version", "3.7")], "POST", Ok(None));
    }

    /// Goal: a client version that is no text is refused as etcd does.
    #[test]
    fn api_version_must_be_text() {
        let (parts, ()) = http::Request::builder()
            .method("POST")
            .uri("/etcdserverpb.KV/Range")
            .header("content-type", "application/grpc")
            .header(
                "client-api-version",
                http::HeaderValue::from_bytes(b"\xff\xfe").unwrap(),
            )
            .body(())
            .unwrap()
            .into_parts();
        let refused = read_head(&parts).unwrap_err();
        assert_eq!(refused.status, status::INVALID_CLIENT_API_VERSION);
    }
}
