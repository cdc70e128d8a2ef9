//! Axes: from a value to a place, and which values get a tick.
//!
//! Three scales: linear, logarithmic, and "nines" for percentiles, on which 90 %, 99 % and 99.9 % stand
//! equally far apart. Domains are widened to whole ticks, so that a curve does not touch its frame.

use crate::report::Unit;

/// How values spread over an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Equal differences, equally far; begins at zero.
    Linear,
    /// Equal factors, equally far; values of zero and less are not drawn.
    Log,
    /// Shares from 0 to below 1 by their number of nines.
    Nines,
}

/// One axis of a chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// What it shows.
    pub name: String,
    /// How tick values are written; [`Scale::Nines`] writes percent.
    pub unit: Unit,
    /// How values spread.
    pub scale: Scale,
}

impl Axis {
    /// An axis.
    pub fn new(name: impl Into<String>, unit: Unit, scale: Scale) -> Axis {
        Axis {
            name: name.into(),
            unit,
            scale,
        }
    }
}

/// An axis that knows its domain and its place on the page.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    scale: Scale,
    /// In scaled values: logarithms, nines.
    from: f64,
    to: f64,
    /// In pixels; `start` may lie below `end` or above.
    start: f64,
    end: f64,
    /// Values and texts.
    pub(super) ticks: Vec<(f64, String)>,
}

/// Ticks that fit an axis.
const TICKS: f64 = 6.0;

impl Placed {
    /// The axis for these values; none if there is no value that can be drawn.
    pub(super) fn new(
        axis: &Axis,
        values: impl IntoIterator<Item = f64>,
        start: f64,
        end: f64,
    ) -> Option<Placed> {
        let scaled = values
            .into_iter()
            .filter_map(|value| scaled(axis.scale, value));
        let bounds = scaled.fold(None, |bounds: Option<(f64, f64)>, value| {
            let (low, high) = bounds.unwrap_or((value, value));
            Some((low.min(value), high.max(value)))
        });
        let (low, high) = bounds?;
        let (from, to, ticks) = match axis.scale {
            Scale::Linear => linear(low, high),
            Scale::Log => log(low, high),
            Scale::Nines => nines(high),
        };
        let ticks = ticks.into_iter().map(|value| {
            let text = match axis.scale {
                Scale::Nines => percent(value),
                _ => axis.unit.format_round(value),
            };
            (value, text)
        });
        Some(Placed {
            scale: axis.scale,
            from,
            to,
            start,
            end,
            ticks: ticks.collect(),
        })
    }

    /// Where a value stands, if it can be drawn.
    pub(super) fn place(&self, value: f64) -> Option<f64> {
        let value = scaled(self.scale, value)?;
        let share = (value - self.from) / (self.to - self.from);
        Some(self.start + share * (self.end - self.start))
    }
}

fn scaled(scale: Scale, value: f64) -> Option<f64> {
    let scaled = match scale {
        Scale::Linear => value,
        Scale::Log if value <= 0.0 => return None,
        Scale::Log => value.log10(),
        Scale::Nines if value >= 1.0 => return None,
        Scale::Nines => -(1.0 - value.max(0.0)).log10(),
    };
    scaled.is_finite().then_some(scaled)
}

/// A step of 1, 2 or 5 times a power of ten that divides a span into about [`TICKS`] parts.
fn step(span: f64) -> f64 {
    let rough = span / TICKS;
    let power = 10f64.powf(rough.log10().floor());
    let factor = rough / power;
    let nice = if factor <= 1.0 {
        1.0
    } else if factor <= 2.0 {
        2.0
    } else if factor <= 5.0 {
        5.0
    } else {
        10.0
    };
    nice * power
}

fn linear(low: f64, high: f64) -> (f64, f64, Vec<f64>) {
    let low = low.min(0.0);
    let high = if high <= low { low + 1.0 } else { high };
    let step = step(high - low);
    let first = (low / step).floor();
    let count = ((high / step).ceil() - first).max(1.0);
    let ticks: Vec<f64> = (0..=count as usize)
        .map(|at| (first + at as f64) * step)
        .collect();
    (first * step, (first + count) * step, ticks)
}

/// Steps within a decade: the finest that does not crowd the axis.
const DECADES: [&[f64]; 3] = [&[1.0, 2.0, 3.0, 5.0, 7.0], &[1.0, 2.0, 5.0], &[1.0]];

fn log(low: f64, high: f64) -> (f64, f64, Vec<f64>) {
    // Decades are counted from the power below, so a domain never begins after its first value.
    let powers = low.floor() as i32..=high.ceil() as i32;
    for factors in DECADES {
        let all: Vec<f64> = powers
            .clone()
            .flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)))
            .collect();
        // One tick below the lowest value and one above the highest.
        let below = all.iter().rposition(|tick| tick.log10() <= low + 1e-9);
        let above = all.iter().position(|tick| tick.log10() >= high - 1e-9);
        let (first, last) = (below.unwrap_or(0), above.unwrap_or(all.len() - 1));
        let last = if last == first { last + 1 } else { last };
        let ticks: Vec<f64> = all[first..=last.min(all.len() - 1)].to_vec();
        if ticks.len() as f64 <= TICKS + 4.0 && ticks.len() > 1 {
            return (ticks[0].log10(), ticks[ticks.len() - 1].log10(), ticks);
        }
    }
    // More decades than ticks: every few of them.
    let (first, last) = (low.floor(), high.ceil().max(low.floor() + 1.0));
    let stride = ((last - first) / TICKS).ceil().max(1.0);
    let ticks = (0..=((last - first) / stride) as usize)
        .map(|at| 10f64.powf(first + at as f64 * stride))
        .collect();
    (first, last, ticks)
}

fn nines(high: f64) -> (f64, f64, Vec<f64>) {
    let to = high.max(2.0);
    let whole = (1..=to.floor() as i32).map(|count| 1.0 - 10f64.powi(-count));
    let ticks = [0.0, 0.5].into_iter().chain(whole).collect();
    (0.0, to, ticks)
}

/// `99.9%`, with as many digits as it has nines.
pub(super) fn percent(share: f64) -> String {
    let nines = -(1.0 - share).log10();
    let decimals = (nines.round() as usize).saturating_sub(2);
    format!("{:.decimals$}%", share * 100.0)
}
