//! Horizontal bars, each made of parts: what an operation costs, and where.

use super::scale::Placed;
use super::{Axis, SERIES_COLOURS, Scale, WIDTH, hint, label, legend, rule, shortened, svg};
use crate::report::Unit;
use crate::report::markup::Element;

/// Bars of parts.
#[derive(Clone, Debug, PartialEq)]
pub struct BarChart {
    /// What it shows.
    pub title: String,
    /// Of all values.
    pub unit: Unit,
    /// Names of the parts; each has its colour.
    pub parts: Vec<String>,
    /// From top to bottom.
    pub bars: Vec<Bar>,
}

/// One bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// To its left.
    pub name: String,
    /// One for each part, not negative.
    pub values: Vec<f64>,
}

const LEFT: f64 = 200.0;
const RIGHT: f64 = WIDTH - 90.0;
const TOP: f64 = 6.0;
const STEP: f64 = 26.0;
const THICK: f64 = 16.0;
const NAME_CHARACTERS: usize = 28;

impl BarChart {
    pub(super) fn draw(&self) -> (Option<Element>, Option<Element>) {
        let drawn = |value: &&f64| value.is_finite() && **value > 0.0;
        let total = |bar: &Bar| bar.values.iter().filter(drawn).sum::<f64>();
        let axis = Axis::new("", self.unit, Scale::Linear);
        let totals = self.bars.iter().map(total).filter(|total| *total > 0.0);
        let Some(x) = Placed::new(&axis, totals, LEFT, RIGHT) else {
            return (None, None);
        };
        let bottom = TOP + STEP * self.bars.len() as f64;
        let mut drawing = svg(bottom + 24.0);
        for (value, text) in &x.ticks {
            let Some(at) = x.place(*value) else { continue };
            drawing = drawing
                .child(rule("grid", (at, TOP), (at, bottom)))
                .child(label(at, bottom + 16.0, "middle", text));
        }
        for (row, bar) in self.bars.iter().enumerate() {
            let y = TOP + STEP * row as f64 + (STEP - THICK) / 2.0;
            let text_y = y + THICK / 2.0 + 4.0;
            let name = label(
                LEFT - 8.0,
                text_y,
                "end",
                shortened(&bar.name, NAME_CHARACTERS),
            );
            drawing = drawing.child(name.child(hint(&bar.name)));
            let mut before = 0.0;
            for (part, value) in bar.values.iter().enumerate().filter(|(_, v)| drawn(v)) {
                let places = x.place(before).zip(x.place(before + value));
                let Some((from, to)) = places else { continue };
                let text = format!(
                    "{}: {} {}",
                    bar.name,
                    self.parts.get(part).map_or("", String::as_str),
                    self.unit.format(*value)
                );
                // A hair of background between parts keeps them apart.
                let rect = Element::new("rect")
                    .attribute("class", format!("f{}", part % SERIES_COLOURS))
                    .at("x", from)
                    .at("y", y)
                    .at("width", (to - from - 1.0).max(0.5))
                    .at("height", THICK);
                drawing = drawing.child(rect.child(hint(text)));
                before += value;
            }
            let end = x.place(before).unwrap_or(LEFT);
            let value = label(end + 6.0, text_y, "start", self.unit.format(total(bar)));
            drawing = drawing.child(value.attribute("class", "value"));
        }
        let parts = self.parts.iter().cloned();
        let entries: Vec<_> = parts.enumerate().map(|(at, name)| (name, at)).collect();
        (Some(drawing), legend(&entries))
    }
}
