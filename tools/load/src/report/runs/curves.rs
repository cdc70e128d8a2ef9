//! Percentile curves and time series of runs.
//!
//! A single run shows its operations side by side; several runs show one chart for each operation, with one
//! line for each run. Long series are drawn from fewer, longer intervals whose histograms are added, so
//! that no percentile is averaged and no stall is lost.

use std::time::Duration;

use super::{Run, Shown};
use crate::report::chart::{Axis, Line, LineChart, Scale, Stroke};
use crate::report::pairs::distinct;
use crate::report::{Block, Chart, Unit};
use crate::result::{INTERVALS_MAX, Interval, Latency, OpResult, Packed, sum};

/// Points of one time series.
const POINTS_MAX: usize = 300;

/// Points of a percentile curve for each factor of ten.
const POINTS_PER_NINE: f64 = 20.0;

/// Lines of a latency chart up to which the median is drawn beside the 99th percentile.
const LINES_WITH_MEDIAN_MAX: usize = 4;

/// A run rarely ends with a second: a rate over less than this would be noise at the end of a line.
const LENGTH_MIN: Duration = Duration::from_millis(100);

/// One line of a chart: an operation of a run.
struct Drawn<'a> {
    name: String,
    colour: usize,
    operation: &'a OpResult,
    duration: Duration,
}

pub(super) fn percentiles(shown: &Shown<'_>) -> Vec<Block> {
    let curve = |drawn: &Drawn<'_>| Line {
        name: drawn.name.clone(),
        colour: drawn.colour,
        stroke: Stroke::Solid,
        points: curve(&drawn.operation.latency),
    };
    let chart = |(title, drawn): (String, Vec<Drawn<'_>>)| {
        Block::Chart(Chart::Line(LineChart {
            title,
            x: Axis::new("share of operations", Unit::Share, Scale::Nines),
            y: Axis::new("latency", Unit::Nanoseconds, Scale::Log),
            lines: drawn.iter().map(curve).collect(),
        }))
    };
    charts(shown).into_iter().map(chart).collect()
}

pub(super) fn over_time(shown: &Shown<'_>) -> Vec<Block> {
    let mut blocks = Vec::new();
    for (title, drawn) in charts(shown) {
        if drawn.iter().all(|drawn| drawn.operation.series.is_empty()) {
            continue;
        }
        let with_median = drawn.len() <= LINES_WITH_MEDIAN_MAX;
        let mut rates = Vec::new();
        let mut latencies = Vec::new();
        for drawn in &drawn {
            let series = shortened(&drawn.operation.series, drawn.duration);
            let line = |name: String, stroke: Stroke, of: fn(&Interval) -> f64| Line {
                name,
                colour: drawn.colour,
                stroke,
                points: series
                    .iter()
                    // In the middle of its time.
                    .map(|interval| {
                        let half = interval.length.as_secs_f64() / 2.0;
                        (f64::from(interval.second) + half, of(interval))
                    })
                    .collect(),
            };
            rates.push(line(drawn.name.clone(), Stroke::Solid, rate));
            let p99 = |name: &str| match with_median {
                true => format!("{name} p99"),
                false => name.to_owned(),
            };
            latencies.push(line(p99(&drawn.name), Stroke::Solid, |interval| {
                latency(interval, interval.latency.summary().p99_ns)
            }));
            if with_median {
                let name = format!("{} p50 (dashed)", drawn.name);
                latencies.push(line(name, Stroke::Dashed, |interval| {
                    latency(interval, interval.latency.summary().p50_ns)
                }));
            }
        }
        let (y, kind) = if with_median {
            ("latency", "p50 and p99")
        } else {
            ("p99", "p99")
        };
        let charts = [
            (
                "acknowledged per second",
                "rate",
                Unit::PerSecond,
                Scale::Linear,
                rates,
            ),
            (kind, y, Unit::Nanoseconds, Scale::Log, latencies),
        ];
        for (kind, name, unit, scale, lines) in charts {
            blocks.push(Block::Chart(Chart::Line(LineChart {
                title: format!("{title}: {kind}"),
                x: Axis::new("time", Unit::Seconds, Scale::Linear),
                y: Axis::new(name, unit, scale),
                lines,
            })));
        }
    }
    blocks
}

/// Which lines go together.
fn charts<'a>(shown: &'a Shown<'a>) -> Vec<(String, Vec<Drawn<'a>>)> {
    if let [run] = &shown.runs[..] {
        let lines = run.result.operations.iter().enumerate();
        let drawn = lines.map(|(colour, operation)| Drawn {
            name: operation.name.clone(),
            colour,
            operation,
            duration: run.result.duration,
        });
        let drawn: Vec<Drawn<'a>> = drawn.collect();
        let title = match &drawn[..] {
            [] => return Vec::new(),
            [only] => only.name.clone(),
            _ => "all operations".to_owned(),
        };
        return vec![(title, drawn)];
    }
    let mut charts = Vec::new();
    for point in distinct(shown.runs.iter().map(Run::point)) {
        let here = || shown.runs.iter().filter(move |run| run.point() == point);
        let operations = here().flat_map(|run| run.result.operations.iter());
        for name in distinct(operations.map(|operation| operation.name.as_str())) {
            let drawn = here().filter_map(|run| {
                let mut operations = run.result.operations.iter();
                let operation = operations.find(|operation| operation.name == name)?;
                Some(Drawn {
                    name: run.group.clone(),
                    colour: run.colour,
                    operation,
                    duration: run.result.duration,
                })
            });
            let title = match point {
                "" => name.to_owned(),
                _ => format!("{point}: {name}"),
            };
            charts.push((title, drawn.collect()));
        }
    }
    charts
}

/// Latency by share of operations, up to the share that a single one is.
fn curve(latency: &Latency) -> Vec<(f64, f64)> {
    let count = latency.count();
    if count == 0 {
        return Vec::new();
    }
    let nines = (count as f64).log10();
    let steps = (nines * POINTS_PER_NINE).ceil() as usize;
    let share = |step: usize| 1.0 - 10f64.powf(-(step as f64) / POINTS_PER_NINE);
    let mut shares: Vec<f64> = (0..steps).map(share).collect();
    // The last operation stands where its own share begins.
    shares.push(1.0 - 1.0 / count as f64);
    let mut values = latency.quantiles_ns(&shares);
    if let Some(last) = values.last_mut() {
        *last = latency.max_ns();
    }
    let values = values.into_iter().map(|ns| ns as f64);
    shares.into_iter().zip(values).collect()
}

fn rate(interval: &Interval) -> f64 {
    interval.latency.summary().count as f64 / interval.length.as_secs_f64()
}

/// A gap where nothing was acknowledged.
fn latency(interval: &Interval, ns: u64) -> f64 {
    if interval.latency.summary().count == 0 {
        f64::NAN
    } else {
        ns as f64
    }
}

/// Every second of the run, also those without an operation, in at most [`POINTS_MAX`] intervals.
fn shortened(series: &[Interval], duration: Duration) -> Vec<Interval> {
    let last = series.last().map_or(0, |interval| interval.second);
    let whole = u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    // A run whose series was cut ends with it; never more seconds than were kept.
    let seconds = if series.len() < INTERVALS_MAX {
        whole.max(last.saturating_add(1)).min(INTERVALS_MAX as u32)
    } else {
        last.saturating_add(1)
    };
    let stride = seconds.div_ceil(POINTS_MAX as u32).max(1);
    let mut rest = series;
    let mut shortened = Vec::new();
    for second in (0..seconds).step_by(stride as usize) {
        let end = second.saturating_add(stride);
        let count = rest
            .iter()
            .take_while(|interval| interval.second < end)
            .count();
        let (here, after) = rest.split_at(count);
        rest = after;
        let measured: Duration = here.iter().map(|interval| interval.length).sum();
        // Seconds that nobody reported were measured, and nothing ended in them.
        let silent = Duration::from_secs(u64::from(stride).saturating_sub(here.len() as u64));
        let left = duration.saturating_sub(Duration::from_secs(u64::from(second)));
        let length = (measured + silent).min(left.max(measured));
        if length < LENGTH_MIN {
            continue;
        }
        let latency = match here {
            [one] => one.latency.clone(),
            _ => Packed::sum(here.iter().map(|interval| &interval.latency)),
        };
        shortened.push(Interval {
            second,
            length,
            latency,
            errors: sum(here.iter().map(|interval| interval.errors)),
        });
    }
    shortened
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds with their lengths in milliseconds; each holds one latency of as many microseconds.
    fn series(seconds: &[(u32, u64)]) -> Vec<Interval> {
        let mut latency = Latency::new();
        let interval = |(second, length_ms): &(u32, u64)| {
            latency.clear();
            latency.record_ns(u64::from(*second) * 1_000);
            Interval {
                second: *second,
                length: Duration::from_millis(*length_ms),
                latency: latency.pack(),
                errors: 0,
            }
        };
        seconds.iter().map(interval).collect()
    }

    // Goal: a silent second is a point of rate zero, and a splinter at the end is none.
    #[test]
    fn seconds_without_operations() {
        let check = |seconds: &[(u32, u64)], duration_ms: u64, expected: &[(u32, u64, u64)]| {
            let drawn = shortened(&series(seconds), Duration::from_millis(duration_ms));
            let drawn: Vec<(u32, u64, u64)> = drawn
                .iter()
                .map(|interval| {
                    let length_ms = interval.length.as_millis() as u64;
                    (interval.second, length_ms, interval.latency.summary().count)
                })
                .collect();
            assert_eq!(drawn, expected, "{seconds:?} in {duration_ms} ms");
        };
        check(&[], 0, &[]);
        check(
            &[(1, 1_000)],
            3_000,
            &[(0, 1_000, 0), (1, 1_000, 1), (2, 1_000, 0)],
        );
        check(
            &[(0, 1_000), (1, 400)],
            1_400,
            &[(0, 1_000, 1), (1, 400, 1)],
        );
        check(&[(0, 1_000), (1, 3)], 1_003, &[(0, 1_000, 1)]);
        check(&[(0, 1_000)], 1_003, &[(0, 1_000, 1)]);
    }

    // Goal: a long series keeps every operation and its slowest second.
    #[test]
    fn long_series() {
        let all: Vec<(u32, u64)> = (0..INTERVALS_MAX as u32)
            .map(|second| (second, 1_000))
            .collect();
        let duration = Duration::from_secs(INTERVALS_MAX as u64);
        let drawn = shortened(&series(&all), duration);
        assert!(drawn.len() <= POINTS_MAX);
        let counts = drawn
            .iter()
            .map(|interval| interval.latency.summary().count);
        assert_eq!(counts.sum::<u64>(), INTERVALS_MAX as u64);
        assert_eq!(
            drawn
                .iter()
                .map(|interval| interval.length)
                .sum::<Duration>(),
            duration
        );
        let slowest = drawn
            .iter()
            .map(|interval| interval.latency.summary().max_ns)
            .max();
        let expected = (INTERVALS_MAX as u64 - 1) * 1_000;
        assert!(slowest.expect("drawn").abs_diff(expected) < expected / 500);
    }

    // Goal: a curve ends at the share of its last operation, with the maximum.
    #[test]
    fn curves_end_at_the_maximum() {
        let mut latency = Latency::new();
        assert!(curve(&latency).is_empty());
        latency.record_ns(5);
        assert_eq!(curve(&latency), [(0.0, 5.0)]);
        for at in 0..999 {
            latency.record_ns(at);
        }
        let points = curve(&latency);
        let last = points.last().expect("drawn");
        assert!((last.0 - 0.999).abs() < 1e-9 && last.1 == 998.0, "{last:?}");
        assert!(points.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1));
    }
}
