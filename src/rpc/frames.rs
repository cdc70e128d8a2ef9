//! Watches the headers of the HTTP/2 frames that come and go, for what the HTTP/2 library keeps to itself.
//!
//! It answers pings and resets without telling, and sends large answers when it can; the keepalive rules
//! and the limit on resets need the numbers. Only the nine bytes of each frame header are looked at; the library judges the rest. Pure.

use std::time::Duration;

use crate::base::Instant;
use crate::base::limits::{EDGE_RESET_WINDOW_MS, EDGE_RESETS_MAX};

/// What every HTTP/2 client says first.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADER_BYTES: usize = 9;
const KIND_DATA: u8 = 0;
const KIND_HEADERS: u8 = 1;
const KIND_RESET: u8 = 3;
const KIND_PING: u8 = 6;
const FLAG_ACK: u8 = 1;

/// Follows the frames of one direction of a connection through chunks cut anywhere.
pub(super) struct FrameWalker {
    /// Bytes to pass over: the preface, then payloads.
    skip: usize,
    header: [u8; HEADER_BYTES],
    /// Bytes of `header` that are there.
    have: usize,
    /// Pings that ask for an answer, since last taken.
    pub(super) pings: u64,
    /// Streams the client has reset, since last taken.
    pub(super) resets: u64,
    /// Frames with headers or data of streams, since last taken.
    pub(super) on_streams: u64,
    /// The highest stream the client has opened.
    pub(super) last_stream: u32,
}

impl FrameWalker {
    /// For what a client sends, from its preface on.
    pub(super) fn before_preface() -> FrameWalker {
        FrameWalker {
            skip: PREFACE.len(),
            ..FrameWalker::before_frames()
        }
    }

    /// For what a server sends.
    pub(super) fn before_frames() -> FrameWalker {
        FrameWalker {
            skip: 0,
            header: [0; HEADER_BYTES],
            have: 0,
            pings: 0,
            resets: 0,
            on_streams: 0,
            last_stream: 0,
        }
    }

    /// Follows the next bytes.
    pub(super) fn walk(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let taken = (HEADER_BYTES - self.have).min(bytes.len());
            self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == HEADER_BYTES {
                self.have = 0;
                self.frame();
            }
        }
    }

    fn frame(&mut self) {
        let [a, b, c, kind, flags, stream @ ..] = self.header;
        self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        match kind {
            KIND_HEADERS => {
                let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
                self.last_stream = self.last_stream.max(stream);
                self.on_streams += 1;
            }
            KIND_DATA => self.on_streams += 1,
            KIND_RESET => self.resets += 1,
            KIND_PING if flags & FLAG_ACK == 0 => self.pings += 1,
            _ => {}
        }
    }
}

/// The text that tells gRPC clients to ping less; they read it and slow down.
pub(super) const TOO_MANY_PINGS: &[u8] = b"too_many_pings";
/// The text for clients that reset streams without end.
pub(super) const TOO_MANY_RESETS: &[u8] = b"too_many_resets";

/// A GOAWAY frame that says "enhance your calm" with a short text.
pub(super) fn goaway(last_stream: u32, text: &[u8]) -> Vec<u8> {
    const KIND_GOAWAY: u8 = 7;
    const ENHANCE_YOUR_CALM: u32 = 11;
    let size = u8::try_from(8 + text.len()).expect("a short text");
    let mut frame = vec![0, 0, size, KIND_GOAWAY, 0, 0, 0, 0, 0];
    frame.extend_from_slice(&last_stream.to_be_bytes());
    frame.extend_from_slice(&ENHANCE_YOUR_CALM.to_be_bytes());
    frame.extend_from_slice(text);
    frame
}

/// Whether a client pings too often, by gRPC's rule: three strikes since the last answer it got.
#[derive(Default)]
pub(super) struct PingRule {
    last: Option<Instant>,
    strikes: u32,
}

impl PingRule {
    /// Strikes a client may have.
    const STRIKES_MAX: u32 = 2;
    /// The least time between pings of a client that has no call open.
    const IDLE_MIN_TIME: Duration = Duration::from_secs(2 * 60 * 60);

    /// Takes one ping. True when the client is to be sent away.
    ///
    /// `answered`: something was sent on a stream since the last ping; clients measure the network with
    /// pings beside the data they get.
    pub(super) fn ping(
        &mut self,
        now: Instant,
        min_time: Duration,
        calls_open: bool,
        answered: bool,
    ) -> bool {
        let last = self.last.replace(now);
        if answered {
            self.strikes = 0;
            return false;
        }
        let least = if calls_open {
            min_time
        } else {
            Self::IDLE_MIN_TIME
        };
        if last.is_some_and(|last| now.since(last) < least) {
            self.strikes += 1;
        }
        self.strikes > Self::STRIKES_MAX
    }
}

/// Whether a client resets streams faster than anyone needs to.
#[derive(Default)]
pub(super) struct ResetRule {
    window_start: Instant,
    count: u64,
}

impl ResetRule {
    /// Takes some resets. True when the client is to be sent away.
    pub(super) fn resets(&mut self, now: Instant, count: u64) -> bool {
        if now.since(self.window_start) >= Duration::from_millis(EDGE_RESET_WINDOW_MS) {
            self.window_start = now;
            self.count = 0;
        }
        self.count += count;
        self.count > EDGE_RESETS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Goal: frames are counted right wherever the chunks are cut.
    #[test]
    fn frames_are_found_across_chunks() {
        let mut bytes = PREFACE.to_vec();
        let mut frame = |kind: u8, flags: u8, stream: u8, size: u8| {
            bytes.extend_from_slice(&[0, 0, size, kind, flags, 0, 0, 0, stream]);
            // Payloads that look like ping headers.
            bytes.extend((0..size).map(|at| if at % 9 == 3 { KIND_PING } else { 0 }));
        };
        frame(4, 0, 0, 0);
        frame(KIND_HEADERS, 4, 3, 40);
        frame(KIND_PING, 0, 0, 8);
        frame(KIND_PING, FLAG_ACK, 0, 8);
        frame(0, 0, 3, 200);
        frame(KIND_RESET, 0, 3, 4);
        frame(KIND_PING, 0, 0, 8);
        for size in 1..bytes.len() {
            let mut walker = FrameWalker::before_preface();
            for chunk in bytes.chunks(size) {
                walker.walk(chunk);
            }
            assert_eq!(
                (
                    walker.pings,
                    walker.resets,
                    walker.on_streams,
                    walker.last_stream
                ),
                (2, 1, 2, 3),
                "chunks of {size}"
            );
        }
    }

    /// Goal: pings strike by gRPC's rule.
    #[test]
    fn pings_strike() {
        let min = Duration::from_secs(5);
        let check = |pings: &[(u64, bool, bool)], expected: bool| {
            let mut rule = PingRule::default();
            let mut last = false;
            for &(second, calls_open, answered) in pings {
                last = rule.ping(Instant(second * SECOND), min, calls_open, answered);
            }
            assert_eq!(last, expected, "{pings:?}");
        };
        check(
            &[(0, true, false), (1, true, false), (2, true, false)],
            false,
        );
        check(
            &[
                (0, true, false),
                (1, true, false),
                (2, true, false),
                (3, true, false),
            ],
            true,
        );
        check(
            &[
                (0, true, false),
                (5, true, false),
                (10, true, false),
                (15, true, false),
            ],
            false,
        );
        check(
            &[
                (0, false, false),
                (60, false, false),
                (120, false, false),
                (180, false, false),
            ],
            true,
        );
        check(
            &[
                (0, true, false),
                (1, true, false),
                (2, true, true),
                (3, true, false),
            ],
            false,
        );
    }

    /// Goal: resets are counted per window.
    #[test]
    fn resets_are_counted_per_window() {
        let mut rule = ResetRule::default();
        assert!(!rule.resets(Instant(0), EDGE_RESETS_MAX));
        assert!(!rule.resets(Instant(10 * SECOND), EDGE_RESETS_MAX));
        assert!(rule.resets(Instant(11 * SECOND), 1));
    }
}
