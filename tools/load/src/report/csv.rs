//! Results as comma-separated values: one row for each operation of a run, or for each of its seconds.
//!
//! For programs: plain numbers, the unit in the column's name, and the same columns for every workload.
//! Fields from outside are quoted as RFC 4180 says.

use std::fmt::Write as _;

use crate::result::{Interval, OpResult, RunResult, Summary};

/// Columns that say which run a row belongs to.
const RUN: &str = "run,label,point,side,pair,operation";

/// Columns of a [`Summary`].
const LATENCY: &str = "count,mean_us,p50_us,p90_us,p99_us,p999_us,max_us";

/// One row for each operation of each run, and one for a run in which nothing was asked. Costs are those of the whole run, per operation of any kind.
pub fn operations(runs: &[RunResult]) -> String {
    let mut text = format!(
        "{RUN},{LATENCY},seconds,per_second,errors,server_us_per_operation,server_rss_bytes,server_cpu_seconds,\
         generator_us_per_operation,partial\n"
    );
    let nothing = [OpResult::new("")];
    for (index, run) in runs.iter().enumerate() {
        let operations = match &run.operations[..] {
            [] => &nothing[..],
            operations => operations,
        };
        for operation in operations {
            let seconds = run.duration.as_secs_f64();
            let rate = if seconds > 0.0 {
                operation.count() as f64 / seconds
            } else {
                0.0
            };
            let fields = [
                identity(index, run, operation),
                latency(&operation.latency.summary()),
                format!("{seconds:.3}"),
                format!("{rate:.2}"),
                operation.error_count().to_string(),
                optional(run.server_us_per_operation()),
                run.server_rss_bytes()
                    .map_or_else(String::new, |bytes| bytes.to_string()),
                optional(run.server_cpu().map(|cpu| cpu.total().as_secs_f64())),
                optional(run.generator_us_per_operation()),
                quoted(run.partial.as_deref().unwrap_or_default()),
            ];
            push_row(&mut text, &fields);
        }
    }
    text
}

/// One row for each second of each operation of each run.
pub fn intervals(runs: &[RunResult]) -> String {
    let mut text = format!("{RUN},second,length_seconds,{LATENCY},errors\n");
    for (index, run) in runs.iter().enumerate() {
        for operation in &run.operations {
            let identity = identity(index, run, operation);
            for interval in &operation.series {
                let Interval {
                    second,
                    length,
                    latency: packed,
                    errors,
                } = interval;
                let fields = [
                    identity.clone(),
                    second.to_string(),
                    format!("{:.3}", length.as_secs_f64()),
                    latency(packed.summary()),
                    errors.to_string(),
                ];
                push_row(&mut text, &fields);
            }
        }
    }
    text
}

fn push_row(text: &mut String, fields: &[String]) {
    text.push_str(&fields.join(","));
    text.push('\n');
}

fn identity(index: usize, run: &RunResult, operation: &OpResult) -> String {
    let (point, side, pair) = match &run.pairing {
        Some(pairing) => (
            quoted(&pairing.point),
            quoted(&pairing.side),
            pairing.pair.to_string(),
        ),
        None => Default::default(),
    };
    let label = quoted(&run.label);
    let name = quoted(&operation.name);
    format!("{index},{label},{point},{side},{pair},{name}")
}

fn latency(summary: &Summary) -> String {
    let mut text = summary.count.to_string();
    let Summary {
        count: _,
        mean_ns,
        p50_ns,
        p90_ns,
        p99_ns,
        p999_ns,
        max_ns,
    } = *summary;
    for ns in [mean_ns, p50_ns, p90_ns, p99_ns, p999_ns, max_ns] {
        let written = write!(text, ",{:.3}", ns as f64 / 1e3);
        written.expect("a string takes everything");
    }
    text
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.3}"))
}

/// A field that may hold anything.
pub(crate) fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
