//! The series of a run as an HdrHistogram interval log, which other HdrHistogram tools read and plot.
//!
//! Each line is one second of one operation, tagged with the operation's name; values are nanoseconds, the
//! maximum in the line is milliseconds, as those tools expect. Seconds count from the start of the measured
//! part, which stands in the header.

use std::io;
use std::time::Duration;

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::result::RunResult;

/// Nanoseconds in the unit of the maximum.
const NS_PER_MS: f64 = 1e6;

/// The log of one run.
pub fn log(run: &RunResult) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let measured = run.started + run.warmup;
    let about = format!(
        "[Logged with kontiki-load {}: {}; values in nanoseconds, maxima in milliseconds]",
        run.generator_version, run.label
    );
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        // The line by which the Java tools know the format.
        .add_comment("[Histogram log format version 1.3]")
        .add_comment(&printable(&about))
        .with_start_time(measured)
        .with_base_time(measured)
        .with_max_value_divisor(NS_PER_MS);
    if let Some(reason) = &run.partial {
        builder.add_comment(&printable(&format!("[Partial result: {reason}]")));
    }
    let mut writer = builder.begin_log_with(&mut text, &mut serializer)?;
    writer.write_comment(
        "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"",
    )?;
    // Readers want ascending times, so operations alternate.
    let mut lines: Vec<_> = run
        .operations
        .iter()
        .flat_map(|operation| {
            let name = tag(&operation.name);
            operation
                .series
                .iter()
                .map(move |interval| (interval.second, name.clone(), interval))
        })
        .collect();
    lines.sort_by_key(|(second, _, _)| *second);
    for (second, name, interval) in lines {
        let latency = interval.latency.unpack();
        writer
            .write_histogram(
                latency.histogram(),
                Duration::from_secs(u64::from(second)),
                interval.length,
                Tag::new(&name),
            )
            .map_err(|error| io::Error::other(format!("{error:?}")))?;
    }
    Ok(text)
}

/// A tag ends at the first comma or blank.
fn tag(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            ',' | ' ' => '-',
            c if c.is_control() => '-',
            c => c,
        })
        .collect()
}

/// A comment is one line.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
