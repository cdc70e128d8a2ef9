//! HPACK (RFC 7541): the few request heads we send, and whatever heads a server answers with.
//!
//! Encoding: every field that repeats goes into the server's table once and is one byte from then on, and the
//! bytes of a head are kept until the table changes. Decoding: a field's meaning is found when it is first seen,
//! so that a later mention by number costs a look into the table.

use std::collections::VecDeque;

use super::huffman;
use super::{HEADER_LIST_BYTES_MAX, Method};

/// Size of the dynamic table on both sides: HTTP/2's default, which we keep.
const TABLE_BYTES: usize = 4096;
/// What a table entry counts beyond its name and value.
const ENTRY_BYTES: usize = 32;
/// Names of the static table, in order.
#[rustfmt::skip]
const STATIC_NAMES: [&str; 61] = [
    ":authority", ":method", ":method", ":path", ":path", ":scheme", ":scheme", ":status", ":status", ":status",
    ":status", ":status", ":status", ":status", "accept-charset", "accept-encoding", "accept-language", "accept-ranges",
    "accept", "access-control-allow-origin", "age", "allow", "authorization", "cache-control", "content-disposition",
    "content-encoding", "content-language", "content-length", "content-location", "content-range", "content-type",
    "cookie", "date", "etag", "expect", "expires", "from", "host", "if-match", "if-modified-since", "if-none-match",
    "if-range", "if-unmodified-since", "last-modified", "link", "location", "max-forwards", "proxy-authenticate",
    "proxy-authorization", "range", "referer", "refresh", "retry-after", "server", "set-cookie",
    "strict-transport-security", "transfer-encoding", "user-agent", "vary", "via", "www-authenticate",
];
/// The number of the first `:status` in the static table, and the values there.
const STATUS_FIRST: usize = 8;
const STATUSES: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];

/// What a head of an answer says, as far as gRPC cares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) http_status: Option<u16>,
    pub(super) grpc_status: Option<u32>,
    /// As on the wire, percent-encoded.
    pub(super) grpc_message: Option<String>,
}

#[derive(Clone, Debug)]
enum Meaning {
    HttpStatus(u16),
    GrpcStatus(u32),
    GrpcMessage(String),
    Other,
}

#[derive(Clone, Debug)]
struct Entry {
    name: Vec<u8>,
    meaning: Meaning,
    bytes: usize,
}

/// One connection's table for the heads that arrive.
#[derive(Debug)]
pub(super) struct Decoder {
    /// Newest first.
    entries: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
}

/// A head that cannot be read; the connection's tables are out of step from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

impl Decoder {
    pub(super) fn new() -> Decoder {
        Decoder {
            entries: VecDeque::new(),
            bytes: 0,
            bytes_max: TABLE_BYTES,
        }
    }

    /// Reads a whole header block.
    pub(super) fn decode(&mut self, mut block: &[u8]) -> Result<Head, Unreadable> {
        let mut head = Head::default();
        let mut list_bytes = 0;
        while let Some(first) = block.first().copied() {
            let (bytes, meaning) = if first & 0x80 != 0 {
                let index = integer(&mut block, 7)?;
                self.indexed(index)?
            } else if first & 0x40 != 0 {
                let entry = self.literal(&mut block, 6)?;
                let seen = (entry.bytes, entry.meaning.clone());
                self.insert(entry);
                seen
            } else if first & 0x20 != 0 {
                let bytes_max = integer(&mut block, 5)?;
                if bytes_max > TABLE_BYTES {
                    return Err(Unreadable);
                }
                self.bytes_max = bytes_max;
                self.evict();
                continue;
            } else {
                let entry = self.literal(&mut block, 4)?;
                (entry.bytes, entry.meaning)
            };
            list_bytes += bytes;
            if list_bytes > HEADER_LIST_BYTES_MAX {
                return Err(Unreadable);
            }
            match meaning {
                Meaning::HttpStatus(status) => head.http_status = Some(status),
                Meaning::GrpcStatus(status) => head.grpc_status = Some(status),
                Meaning::GrpcMessage(text) => head.grpc_message = Some(text),
                Meaning::Other => {}
            }
        }
        Ok(head)
    }

    fn indexed(&self, index: usize) -> Result<(usize, Meaning), Unreadable> {
        if let Some(entry) = index.checked_sub(STATIC_NAMES.len() + 1) {
            let entry = self.entries.get(entry).ok_or(Unreadable)?;
            return Ok((entry.bytes, entry.meaning.clone()));
        }
        let name = index.checked_sub(1).ok_or(Unreadable)?;
        let status = index.checked_sub(STATUS_FIRST);
        let meaning = match status.and_then(|place| STATUSES.get(place)) {
            Some(status) => Meaning::HttpStatus(*status),
            None => Meaning::Other,
        };
        Ok((STATIC_NAMES[name].len() + ENTRY_BYTES, meaning))
    }

    fn literal(&self, block: &mut &[u8], prefix_bits: u8) -> Result<Entry, Unreadable> {
        let index = integer(block, prefix_bits)?;
        let name = match index.checked_sub(1) {
            None => string(block)?,
            Some(place) => match STATIC_NAMES.get(place) {
                Some(name) => name.as_bytes().to_vec(),
                None => {
                    let entry = self.entries.get(place - STATIC_NAMES.len());
                    entry.ok_or(Unreadable)?.name.clone()
                }
            },
        };
        let value = string(block)?;
        let number = || std::str::from_utf8(&value).ok()?.parse::<u32>().ok();
        let meaning = match name.as_slice() {
            b":status" => {
                let status = number().and_then(|status| u16::try_from(status).ok());
                Meaning::HttpStatus(status.ok_or(Unreadable)?)
            }
            // What is no number is an unknown error to gRPC.
            b"grpc-status" => Meaning::GrpcStatus(number().unwrap_or(2)),
            b"grpc-message" => Meaning::GrpcMessage(String::from_utf8_lossy(&value).into_owned()),
            _ => Meaning::Other,
        };
        Ok(Entry {
            bytes: name.len() + value.len() + ENTRY_BYTES,
            name,
            meaning,
        })
    }

    fn insert(&mut self, entry: Entry) {
        self.bytes += entry.bytes;
        self.entries.push_front(entry);
        // An entry larger than the table empties it, itself included.
        self.evict();
    }

    fn evict(&mut self) {
        while self.bytes > self.bytes_max {
            match self.entries.pop_back() {
                Some(entry) => self.bytes -= entry.bytes,
                None => break,
            }
        }
    }
}

/// Takes an integer with a prefix of `prefix_bits` off the front of `block`.
fn integer(block: &mut &[u8], prefix_bits: u8) -> Result<usize, Unreadable> {
    let (first, mut rest) = block.split_first().ok_or(Unreadable)?;
    let prefix_max = (1_usize << prefix_bits) - 1;
    let mut value = usize::from(*first) & prefix_max;
    if value == prefix_max {
        // Four bytes say 256 MiB: nothing in a head is larger.
        for shift in [0, 7, 14, 21, 28] {
            let (byte, after) = rest.split_first().ok_or(Unreadable)?;
            rest = after;
            if shift == 28 {
                return Err(Unreadable);
            }
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *block = rest;
    Ok(value)
}

/// Takes a string off the front of `block`.
fn string(block: &mut &[u8]) -> Result<Vec<u8>, Unreadable> {
    let coded = block.first().ok_or(Unreadable)? & 0x80 != 0;
    let size = integer(block, 7)?;
    let (raw, rest) = block.split_at_checked(size).ok_or(Unreadable)?;
    *block = rest;
    if !coded {
        return Ok(raw.to_vec());
    }
    let mut text = Vec::new();
    huffman::decode(raw, &mut text, HEADER_LIST_BYTES_MAX).ok_or(Unreadable)?;
    Ok(text)
}

/// One connection's heads that leave.
#[derive(Debug)]
pub(super) struct Encoder {
    /// Fields that are the same in every head, pseudo-fields first.
    common: Vec<(&'static str, String)>,
    /// What the server's table holds, oldest first. Never evicted: when it is full, the rest goes out as text.
    entries: Vec<(&'static str, String)>,
    bytes: usize,
    bytes_max: usize,
    /// The next head must say that the table is given up.
    give_up: bool,
    /// Heads of which every field is in the table.
    ready: Vec<Vec<u8>>,
}

impl Encoder {
    /// For heads to `authority`. A `timeout` is told the server in each head.
    pub(super) fn new(scheme: &str, authority: &str, timeout: Option<String>) -> Encoder {
        let mut common = vec![
            (":scheme", scheme.to_owned()),
            (":authority", authority.to_owned()),
            ("content-type", "application/grpc".to_owned()),
            ("te", "trailers".to_owned()),
            (
                "user-agent",
                concat!("kontiki-load/", env!("CARGO_PKG_VERSION")).to_owned(),
            ),
        ];
        if let Some(timeout) = timeout {
            common.push(("grpc-timeout", timeout));
        }
        Encoder {
            common,
            entries: Vec::new(),
            bytes: 0,
            bytes_max: TABLE_BYTES,
            give_up: false,
            ready: vec![Vec::new(); Method::COUNT],
        }
    }

    /// The server's limit. Below the default the table is given up, rather than evicted in step with it.
    pub(super) fn limit_table(&mut self, bytes_max: usize) {
        if bytes_max < TABLE_BYTES && self.bytes_max > 0 {
            self.bytes_max = 0;
            self.bytes = 0;
            self.give_up = true;
            self.entries.clear();
            self.ready.iter_mut().for_each(Vec::clear);
        }
    }

    /// Appends the head of a call of `method`.
    pub(super) fn encode(&mut self, method: Method, out: &mut Vec<u8>) {
        let ready = &self.ready[method as usize];
        if !ready.is_empty() {
            out.extend_from_slice(ready);
            return;
        }
        let start = out.len();
        let entries_before = self.entries.len();
        if std::mem::take(&mut self.give_up) {
            out.push(0x20);
        }
        // ":method: POST" is in the static table.
        out.push(0x80 | 3);
        self.field(":path", method.path(), out);
        for place in 0..self.common.len() {
            let (name, value) = self.common[place].clone();
            self.field(name, &value, out);
        }
        if self.entries.len() == entries_before && out[start] != 0x20 {
            self.ready[method as usize] = out[start..].to_vec();
        } else {
            // New entries move the numbers of the older ones.
            self.ready.iter_mut().for_each(Vec::clear);
        }
    }

    fn field(&mut self, name: &'static str, value: &str, out: &mut Vec<u8>) {
        if (name, value) == (":scheme", "http") {
            out.push(0x80 | 6);
            return;
        }
        if (name, value) == (":scheme", "https") {
            out.push(0x80 | 7);
            return;
        }
        let known = |entry: &(&str, String)| entry.0 == name && entry.1 == value;
        if let Some(place) = self.entries.iter().rev().position(known) {
            put_integer(out, 0x80, 7, STATIC_NAMES.len() + 1 + place);
            return;
        }
        let bytes = name.len() + value.len() + ENTRY_BYTES;
        let kept = self.bytes + bytes <= self.bytes_max;
        let (form, prefix_bits) = if kept { (0x40, 6) } else { (0, 4) };
        match STATIC_NAMES.iter().position(|known| *known == name) {
            Some(place) => put_integer(out, form, prefix_bits, place + 1),
            None => {
                out.push(form);
                put_string(out, name);
            }
        }
        put_string(out, value);
        if kept {
            self.bytes += bytes;
            self.entries.push((name, value.to_owned()));
        }
    }
}

fn put_integer(out: &mut Vec<u8>, form: u8, prefix_bits: u8, value: usize) {
    let prefix_max = (1_usize << prefix_bits) - 1;
    if value < prefix_max {
        out.push(form | value as u8);
        return;
    }
    out.push(form | prefix_max as u8);
    let mut rest = value - prefix_max;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    put_integer(out, 0, 7, text.len());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(http: Option<u16>, grpc: Option<u32>, message: Option<&str>) -> Head {
        Head {
            http_status: http,
            grpc_status: grpc,
            grpc_message: message.map(str::to_owned),
        }
    }

    fn put_literal(out: &mut Vec<u8>, form: u8, name: &str, value: &str) {
        out.push(form);
        put_string(out, name);
        put_string(out, value);
    }

    /// Goal: answers as servers send them, new fields first, by number afterwards.
    #[test]
    fn answers() {
        let mut decoder = Decoder::new();
        let mut block = vec![0x88];
        put_literal(&mut block, 0x40, "content-type", "application/grpc");
        assert_eq!(decoder.decode(&block), Ok(head(Some(200), None, None)));
        let mut trailers = Vec::new();
        put_literal(&mut trailers, 0x40, "grpc-status", "0");
        put_literal(&mut trailers, 0x40, "grpc-message", "");
        assert_eq!(decoder.decode(&trailers), Ok(head(None, Some(0), Some(""))));
        assert_eq!(
            decoder.decode(&[0x88, 0x80 | 62, 0x80 | 63, 0x80 | 64]),
            Ok(head(Some(200), Some(0), Some("")))
        );
        // An own status, with a name from the static table, never kept.
        assert_eq!(
            decoder.decode(&[0x18, 3, b'5', b'0', b'3']),
            Ok(head(Some(503), None, None))
        );
        assert_eq!(decoder.decode(&[0x80 | 65]), Err(Unreadable));
    }

    /// Goal: entries leave the table in the order of their age when it is full or made smaller.
    #[test]
    fn eviction() {
        let mut decoder = Decoder::new();
        let mut block = Vec::new();
        put_literal(&mut block, 0x40, "grpc-status", "5");
        put_literal(
            &mut block,
            0x40,
            "x",
            &"y".repeat(4096 - ENTRY_BYTES - 1 - 44),
        );
        assert_eq!(decoder.decode(&block), Ok(head(None, Some(5), None)));
        assert_eq!(decoder.entries.len(), 2);
        let mut more = Vec::new();
        put_literal(&mut more, 0x40, "a", "b");
        assert_eq!(decoder.decode(&more), Ok(Head::default()));
        assert_eq!(decoder.entries.len(), 2, "the oldest made room");
        assert_eq!(decoder.decode(&[0x20]), Ok(Head::default()));
        assert_eq!((decoder.entries.len(), decoder.bytes), (0, 0));
    }

    /// Goal: no bytes make the decoder panic, and lengths that lie are refused.
    #[test]
    fn hostile() {
        for block in [
            &[0x40][..],
            &[0x80],
            &[0x40, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x3f, 0xe2, 0x1f],
            &[0x08, 1, b'x'],
        ] {
            assert_eq!(
                Decoder::new().decode(block),
                Err(Unreadable),
                "{block:02x?}"
            );
        }
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let block: Vec<u8> = (0..random.usize(0..40)).map(|_| random.u8(..)).collect();
            // Either result is right; returning is the test.
            let _ = Decoder::new().decode(&block);
        }
    }

    /// Goal: what the encoder says is what its table and another decoder's agree on, also when it is given up.
    #[test]
    fn heads_repeat() {
        let mut encoder = Encoder::new("http", "127.0.0.1:2379", Some("5S".to_owned()));
        let mut sizes = Vec::new();
        let mut decoder = Decoder::new();
        for method in [
            Method::Put,
            Method::Put,
            Method::Range,
            Method::Put,
            Method::Put,
        ] {
            let mut out = Vec::new();
            encoder.encode(method, &mut out);
            decoder.decode(&out).expect("a head");
            sizes.push(out.len());
        }
        assert!(sizes[0] > 100, "{sizes:?}");
        assert_eq!((sizes[1], sizes[3], sizes[4]), (8, 8, 8));
        assert_eq!(decoder.entries.len(), encoder.entries.len());
        encoder.limit_table(0);
        let mut out = Vec::new();
        encoder.encode(Method::Put, &mut out);
        decoder.decode(&out).expect("a head");
        assert!(out.len() > 100 && decoder.entries.is_empty());
    }
}
