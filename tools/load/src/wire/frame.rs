//! HTTP/2 frames as bytes (RFC 9113, sections 4 and 6).

/// What a client says first.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes in front of every frame's payload.
pub(super) const HEADER_BYTES: usize = 9;
/// The largest payload anyone may send to us, since we do not allow more.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16_384;

/// Types of frames.
pub(super) mod kind {
    pub(in crate::wire) const DATA: u8 = 0;
    pub(in crate::wire) const HEADERS: u8 = 1;
    pub(in crate::wire) const RST_STREAM: u8 = 3;
    pub(in crate::wire) const SETTINGS: u8 = 4;
    pub(in crate::wire) const PUSH_PROMISE: u8 = 5;
    pub(in crate::wire) const PING: u8 = 6;
    pub(in crate::wire) const GOAWAY: u8 = 7;
    pub(in crate::wire) const WINDOW_UPDATE: u8 = 8;
    pub(in crate::wire) const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub(super) mod flag {
    pub(in crate::wire) const ACK: u8 = 0x1;
    pub(in crate::wire) const END_STREAM: u8 = 0x1;
    pub(in crate::wire) const END_HEADERS: u8 = 0x4;
    pub(in crate::wire) const PADDED: u8 = 0x8;
    pub(in crate::wire) const PRIORITY: u8 = 0x20;
}

/// Settings by number.
pub(super) mod setting {
    pub(in crate::wire) const HEADER_TABLE_SIZE: u16 = 1;
    pub(in crate::wire) const ENABLE_PUSH: u16 = 2;
    pub(in crate::wire) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(in crate::wire) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(in crate::wire) const MAX_FRAME_SIZE: u16 = 5;
}

/// Error codes of RST_STREAM and GOAWAY.
pub(super) mod reason {
    pub(in crate::wire) const NO_ERROR: u32 = 0;
    pub(in crate::wire) const PROTOCOL_ERROR: u32 = 1;
    pub(in crate::wire) const REFUSED_STREAM: u32 = 7;
    pub(in crate::wire) const CANCEL: u32 = 8;
    pub(in crate::wire) const ENHANCE_YOUR_CALM: u32 = 11;
    pub(in crate::wire) const INADEQUATE_SECURITY: u32 = 12;
}

/// A frame that has arrived whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The first frame of `bytes` and how long it is; `Ok(None)` when it is not all there yet.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Option<(Frame<'a>, usize)>, &'static str> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let [a, b, c, kind, flags, stream @ ..] = *header;
        let size = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if size > PAYLOAD_BYTES_MAX {
            return Err("a frame larger than allowed");
        }
        let Some(payload) = rest.get(..size) else {
            return Ok(None);
        };
        let frame = Frame {
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
            payload,
        };
        Ok(Some((frame, HEADER_BYTES + size)))
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The payload of DATA or HEADERS without padding and priority; `None` when those do not fit.
    pub(super) fn content(&self) -> Option<&'a [u8]> {
        let mut content = self.payload;
        if self.has(flag::PADDED) {
            let (padding, rest) = content.split_first()?;
            content = rest.get(..rest.len().checked_sub(usize::from(*padding))?)?;
        }
        if self.kind == kind::HEADERS && self.has(flag::PRIORITY) {
            content = content.get(5..)?;
        }
        Some(content)
    }

    /// The one number that is the payload of RST_STREAM and WINDOW_UPDATE.
    pub(super) fn number(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.payload.try_into().ok()?))
    }
}

/// Appends the nine bytes in front of a payload.
pub(super) fn put_header(out: &mut Vec<u8>, size: usize, kind: u8, flags: u8, stream: u32) {
    let size = (size as u32).to_be_bytes();
    let stream = stream.to_be_bytes();
    out.extend_from_slice(&[
        size[1], size[2], size[3], kind, flags, stream[0], stream[1], stream[2], stream[3],
    ]);
}

/// Appends a frame whose payload is one number.
pub(super) fn put_number(out: &mut Vec<u8>, kind: u8, stream: u32, number: u32) {
    put_header(out, 4, kind, 0, stream);
    out.extend_from_slice(&number.to_be_bytes());
}

/// Appends a SETTINGS frame.
pub(super) fn put_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    put_header(out, settings.len() * 6, kind::SETTINGS, 0, 0);
    for (id, value) in settings {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What of a frame is looked at: kind, stream, payload.
    type Seen<'a> = (u8, u32, &'a [u8]);

    fn check(bytes: &[u8], expected: Result<Option<Seen<'_>>, &'static str>) {
        let parsed = Frame::parse(bytes);
        let seen =
            parsed.map(|found| found.map(|(frame, _)| (frame.kind, frame.stream, frame.payload)));
        assert_eq!(seen, expected, "{bytes:02x?}");
    }

    /// Goal: a frame is taken when it is whole, waited for when not, and refused when too large.
    #[test]
    fn frames() {
        let mut bytes = Vec::new();
        put_number(&mut bytes, kind::WINDOW_UPDATE, 5, 7);
        check(&bytes[..8], Ok(None));
        check(&bytes[..12], Ok(None));
        check(&bytes, Ok(Some((kind::WINDOW_UPDATE, 5, &[0, 0, 0, 7]))));
        check(
            &[0, 0x40, 1, 0, 0, 0, 0, 0, 1],
            Err("a frame larger than allowed"),
        );
    }

    /// Goal: padding and priority are taken off, and lying lengths are seen.
    #[test]
    fn content() {
        let frame = |kind, flags, payload| Frame {
            kind,
            flags,
            stream: 1,
            payload,
        };
        let padded = frame(kind::DATA, flag::PADDED, &[2, b'x', 0, 0]);
        assert_eq!(padded.content(), Some(&b"x"[..]));
        assert_eq!(
            frame(kind::DATA, flag::PADDED, &[4, b'x', 0, 0]).content(),
            None
        );
        assert_eq!(frame(kind::DATA, flag::PADDED, &[]).content(), None);
        let both = flag::PADDED | flag::PRIORITY;
        let head = frame(kind::HEADERS, both, &[1, 0, 0, 0, 0, 9, b'h', 0]);
        assert_eq!(head.content(), Some(&b"h"[..]));
        assert_eq!(
            frame(kind::HEADERS, flag::PRIORITY, &[0, 0]).content(),
            None
        );
    }
}
