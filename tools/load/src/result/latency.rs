//! Latencies as HdrHistograms: to record into, and packed to keep one for each second.
//!
//! Owns the range and the precision, which are the same everywhere, so that any two can be added. Packed
//! histograms are HdrHistogram's own V2 encoding, which its libraries in other languages read; packed bytes
//! from a file are checked before they are used, and need no more memory than a histogram of ours.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer as HistogramReader, Serializer as _, V2Serializer};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Longer latencies count as this: ten minutes, in nanoseconds.
pub const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// Significant decimal digits: a latency is right to one part in a thousand.
const DIGITS: u8 = 3;

/// HdrHistogram's V2 header: cookie, payload length, offset, digits (4 bytes each), low, high, ratio (8 each).
const HEADER_BYTES: usize = 40;

/// What the cookie of an uncompressed V2 encoding reads.
const V2_COOKIE: u32 = 0x1c84_9303 | 0x10;

/// Recorded latencies in nanoseconds. Costs about 240 KiB, and a few nanoseconds for each record.
#[derive(Clone, PartialEq)]
pub struct Latency(Histogram<u64>);

/// Latencies that are not recorded into any more: some hundred bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Packed {
    /// What most readers want, so that few histograms are unpacked.
    summary: Summary,
    /// V2 encoding, not compressed.
    encoded: Box<[u8]>,
}

/// The usual figures of a histogram. All zero when nothing was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many were recorded.
    pub count: u64,
    /// Their mean, in nanoseconds.
    pub mean_ns: u64,
    /// Half took no longer, in nanoseconds.
    pub p50_ns: u64,
    /// 90 % took no longer.
    pub p90_ns: u64,
    /// 99 % took no longer.
    pub p99_ns: u64,
    /// 99.9 % took no longer.
    pub p999_ns: u64,
    /// None took longer.
    pub max_ns: u64,
}

/// Why bytes are not a histogram of ours.
#[derive(Debug, Error)]
pub enum PackedError {
    /// Not base64.
    #[error("not base64: {0}")]
    Base64(base64::DecodeError),
    /// Too short, or a length that does not fit.
    #[error("cut short or too long")]
    Length,
    /// Another encoding, range or precision.
    #[error("not a histogram of 1 ns to 10 min with 3 digits")]
    Range,
    /// The counts make no sense.
    #[error("damaged counts")]
    Counts,
}

impl Latency {
    /// Nothing recorded.
    pub fn new() -> Latency {
        let histogram = Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS);
        Latency(histogram.expect("bounds and digits that a histogram can have"))
    }

    /// Records one latency; above [`LATENCY_NS_MAX`] as that.
    pub fn record_ns(&mut self, latency_ns: u64) {
        self.0.saturating_record(latency_ns);
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// Adds what the other has recorded.
    pub fn add(&mut self, other: &Latency) {
        self.0
            .add(&other.0)
            .expect("all latencies have the same range");
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that the share `quantile` (0 to 1) did not exceed, in nanoseconds; zero when empty.
    pub fn quantile_ns(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }

    /// The same for many quantiles, which must ascend, in one pass.
    pub fn quantiles_ns(&self, quantiles: &[f64]) -> Vec<u64> {
        if self.0.is_empty() {
            return vec![0; quantiles.len()];
        }
        self.0
            .value_at_quantiles(quantiles.iter().copied())
            .collect()
    }

    /// The longest, in nanoseconds; zero when empty.
    pub fn max_ns(&self) -> u64 {
        self.0.max()
    }

    /// The usual figures.
    pub fn summary(&self) -> Summary {
        let quantiles = self.quantiles_ns(&[0.5, 0.9, 0.99, 0.999]);
        Summary {
            count: self.count(),
            mean_ns: self.0.mean() as u64,
            p50_ns: quantiles[0],
            p90_ns: quantiles[1],
            p99_ns: quantiles[2],
            p999_ns: quantiles[3],
            max_ns: self.max_ns(),
        }
    }

    /// The histogram itself, in nanoseconds.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    /// A small copy to keep.
    pub fn pack(&self) -> Packed {
        let mut encoded = Vec::new();
        V2Serializer::new()
            .serialize(&self.0, &mut encoded)
            .expect("memory takes all bytes, and our counts fit");
        Packed {
            summary: self.summary(),
            encoded: encoded.into(),
        }
    }
}

impl Default for Latency {
    fn default() -> Latency {
        Latency::new()
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Latency({:?})", self.summary())
    }
}

impl Packed {
    /// The usual figures, at no cost.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Something to add to others.
    pub fn unpack(&self) -> Latency {
        decode(&self.encoded).expect("packed here, or checked when it was read")
    }

    /// All of them together.
    pub fn sum<'a>(parts: impl IntoIterator<Item = &'a Packed>) -> Packed {
        let mut sum = Latency::new();
        for part in parts {
            // An idle second costs nothing.
            if part.summary.count > 0 {
                sum.add(&part.unpack());
            }
        }
        sum.pack()
    }

    /// The encoding as text, as it stands in result files.
    pub fn to_base64(&self) -> String {
        BASE64.encode(&self.encoded)
    }

    /// Back from text; anything may stand in it.
    pub fn from_base64(text: &str) -> Result<Packed, PackedError> {
        let encoded = BASE64.decode(text).map_err(PackedError::Base64)?;
        Ok(decode(&encoded)?.pack())
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packed({:?})", self.summary)
    }
}

/// Checks the header first: the decoder would allocate whatever it says.
fn decode(encoded: &[u8]) -> Result<Latency, PackedError> {
    let (header, payload) = encoded
        .split_at_checked(HEADER_BYTES)
        .ok_or(PackedError::Length)?;
    let u32_at = |at: usize| {
        header[at..at + 4]
            .iter()
            .fold(0, |n, b| n << 8 | u32::from(*b))
    };
    let u64_at = |at: usize| u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4));
    let ours = [u64::from(DIGITS), 1, LATENCY_NS_MAX];
    if u32_at(0) != V2_COOKIE || [u64::from(u32_at(12)), u64_at(16), u64_at(24)] != ours {
        return Err(PackedError::Range);
    }
    if usize::try_from(u32_at(4)) != Ok(payload.len()) {
        return Err(PackedError::Length);
    }
    let mut rest = encoded;
    let histogram = HistogramReader::new()
        .deserialize(&mut rest)
        .map_err(|_| PackedError::Counts)?;
    Ok(Latency(histogram))
}

/// A histogram in a file: figures for people, the encoding for programs. Only the encoding is read.
#[derive(Serialize)]
struct Written {
    count: u64,
    mean_ns: u64,
    p50_ns: u64,
    p90_ns: u64,
    p99_ns: u64,
    p999_ns: u64,
    max_ns: u64,
    hdr: String,
}

/// See [`Written`].
#[derive(Deserialize)]
struct Readable {
    hdr: String,
}

impl Serialize for Packed {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let summary = self.summary;
        Written {
            count: summary.count,
            mean_ns: summary.mean_ns,
            p50_ns: summary.p50_ns,
            p90_ns: summary.p90_ns,
            p99_ns: summary.p99_ns,
            p999_ns: summary.p999_ns,
            max_ns: summary.max_ns,
            hdr: self.to_base64(),
        }
        .serialize(to)
    }
}

impl<'a> Deserialize<'a> for Packed {
    fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Packed, D::Error> {
        let readable = Readable::deserialize(from)?;
        Packed::from_base64(&readable.hdr).map_err(D::Error::custom)
    }
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.pack().serialize(to)
    }
}

impl<'a> Deserialize<'a> for Latency {
    fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Latency, D::Error> {
        Ok(Packed::deserialize(from)?.unpack())
    }
}
