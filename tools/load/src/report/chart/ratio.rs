//! Ratios of one side to the other, each with its median and spread, on a logarithmic axis around one.

use super::scale::Placed;
use super::{Axis, Scale, WIDTH, hint, label, rule, shortened, svg};
use crate::report::Unit;
use crate::report::markup::Element;

/// Ratios with their spread.
#[derive(Clone, Debug, PartialEq)]
pub struct RatioChart {
    /// What is divided by what.
    pub title: String,
    /// From top to bottom.
    pub rows: Vec<RatioRow>,
}

/// One figure's ratios, one for each pair of runs.
#[derive(Clone, Debug, PartialEq)]
pub struct RatioRow {
    /// Which figure.
    pub name: String,
    /// In the order of the pairs.
    pub ratios: Vec<f64>,
    /// Their median.
    pub median: f64,
    /// Which side of one is the better one.
    pub better: Better,
}

/// Which way a figure should go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Costs and latencies.
    Lower,
    /// Rates.
    Higher,
}

impl Better {
    /// Whether a ratio is on the better side of one.
    pub fn is_better(self, ratio: f64) -> bool {
        match self {
            Better::Lower => ratio < 1.0,
            Better::Higher => ratio > 1.0,
        }
    }

    /// Whether all are on the better side (`Some(true)`), all on the worse one, or on both.
    pub fn verdict(self, ratios: &[f64]) -> Option<bool> {
        let first = self.is_better(*ratios.first()?);
        let agree = |ratio: &f64| *ratio != 1.0 && self.is_better(*ratio) == first;
        ratios.iter().all(agree).then_some(first)
    }
}

const LEFT: f64 = 230.0;
const RIGHT: f64 = WIDTH - 70.0;
const TOP: f64 = 6.0;
const STEP: f64 = 26.0;
const NAME_CHARACTERS: usize = 32;

impl RatioChart {
    pub(super) fn draw(&self) -> (Option<Element>, Option<Element>) {
        let drawn = |ratio: &&f64| ratio.is_finite() && **ratio > 0.0;
        let all = self.rows.iter().flat_map(|row| row.ratios.iter());
        let mut values: Vec<f64> = all.filter(drawn).copied().collect();
        if values.is_empty() {
            return (None, None);
        }
        // One is what all is compared with: always in the picture, and never at its very edge.
        values.extend([0.9, 1.0 / 0.9]);
        let axis = Axis::new("", Unit::Ratio, Scale::Log);
        let Some(x) = Placed::new(&axis, values, LEFT, RIGHT) else {
            return (None, None);
        };
        let bottom = TOP + STEP * self.rows.len() as f64;
        let mut drawing = svg(bottom + 24.0);
        for (value, text) in &x.ticks {
            let Some(at) = x.place(*value) else { continue };
            drawing = drawing
                .child(rule("grid", (at, TOP), (at, bottom)))
                .child(label(at, bottom + 16.0, "middle", text));
        }
        if let Some(one) = x.place(1.0) {
            drawing = drawing.child(rule("frame", (one, TOP), (one, bottom)));
        }
        for (index, row) in self.rows.iter().enumerate() {
            let y = TOP + STEP * (index as f64 + 0.5);
            let name = label(
                LEFT - 8.0,
                y + 4.0,
                "end",
                shortened(&row.name, NAME_CHARACTERS),
            );
            drawing = drawing.child(name.child(hint(&row.name)));
            drawing = drawing.children(row.draw(&x, y));
        }
        (Some(drawing), None)
    }
}

impl RatioRow {
    fn draw(&self, x: &Placed, y: f64) -> Vec<Element> {
        let class = match self.better.verdict(&self.ratios) {
            Some(true) => "good",
            Some(false) => "bad",
            None => "even",
        };
        let places: Vec<f64> = self.ratios.iter().filter_map(|r| x.place(*r)).collect();
        let low = places.iter().copied().reduce(f64::min);
        let high = places.iter().copied().reduce(f64::max);
        let (Some(low), Some(high), Some(median)) = (low, high, x.place(self.median)) else {
            return vec![label(LEFT, y + 4.0, "start", "not measured")];
        };
        let dot = |(pair, at): (usize, &f64)| {
            let text = format!("{}, pair {}: {:.3}", self.name, pair + 1, self.ratios[pair]);
            Element::new("circle")
                .attribute("class", format!("dot {class} faint"))
                .at("cx", *at)
                .at("cy", y)
                .at("r", 3.0)
                .child(hint(text))
        };
        let spread = rule("spread", (low, y), (high, y));
        let mark = Element::new("rect")
            .attribute("class", class)
            .at("x", median - 2.0)
            .at("y", y - 8.0)
            .at("width", 4.0)
            .at("height", 16.0)
            .child(hint(format!("{}: median {:.3}", self.name, self.median)));
        let text = label(
            high + 9.0,
            y + 4.0,
            "start",
            Unit::Ratio.format(self.median),
        );
        std::iter::once(spread)
            .chain(places.iter().enumerate().map(dot))
            .chain([mark, text.attribute("class", "value")])
            .collect()
    }
}
