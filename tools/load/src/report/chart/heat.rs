//! A grid of values over two settings, darker where there is more.

use super::{WIDTH, hint, label, shortened, svg};
use crate::report::Unit;
use crate::report::markup::Element;

/// A grid of values.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    /// What it shows.
    pub title: String,
    /// The setting to the right, and its values.
    pub x: (String, Vec<String>),
    /// The setting downwards, and its values.
    pub y: (String, Vec<String>),
    /// Of the values.
    pub unit: Unit,
    /// By row; each row has one for each value to the right. None where nothing was measured.
    pub cells: Vec<Vec<Option<HeatCell>>>,
}

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatCell {
    /// Decides the colour.
    pub value: f64,
    /// A second line in the cell, for example how many elections were needless; may be empty.
    pub note: String,
}

const LEFT: f64 = 130.0;
const RIGHT: f64 = WIDTH - 10.0;
const TOP: f64 = 44.0;
const STEP: f64 = 44.0;
const NAME_CHARACTERS: usize = 16;

/// Colours from least to most.
const SHADES: usize = 7;

impl HeatMap {
    pub(super) fn draw(&self) -> (Option<Element>, Option<Element>) {
        let cells = self.cells.iter().flatten().flatten();
        let values: Vec<f64> = cells
            .map(|cell| cell.value)
            .filter(|v| v.is_finite())
            .collect();
        let low = values.iter().copied().reduce(f64::min);
        let high = values.iter().copied().reduce(f64::max);
        let (Some(low), Some(high)) = (low, high) else {
            return (None, None);
        };
        let width = (RIGHT - LEFT) / self.x.1.len().max(1) as f64;
        let bottom = TOP + STEP * self.y.1.len() as f64;
        let mut drawing = svg(bottom + 8.0);
        let middle = (LEFT + RIGHT) / 2.0;
        let x_name = label(middle, 14.0, "middle", &self.x.0).attribute("class", "axis");
        let y_name = label(LEFT - 8.0, TOP - 8.0, "end", &self.y.0).attribute("class", "axis");
        drawing = drawing.child(x_name).child(y_name);
        for (column, name) in self.x.1.iter().enumerate() {
            let at = LEFT + width * (column as f64 + 0.5);
            drawing = drawing.child(label(at, TOP - 8.0, "middle", name));
        }
        for (row, name) in self.y.1.iter().enumerate() {
            let y = TOP + STEP * row as f64;
            let name = shortened(name, NAME_CHARACTERS);
            drawing = drawing.child(label(LEFT - 8.0, y + STEP / 2.0 + 4.0, "end", name));
            for (column, x_name) in self.x.1.iter().enumerate() {
                let cell = self.cells.get(row).and_then(|cells| cells.get(column));
                let cell = cell.and_then(Option::as_ref);
                let x = LEFT + width * column as f64;
                let shade = cell.and_then(|cell| shade(cell.value, low, high));
                let text = cell.map_or("-".to_owned(), |cell| self.unit.format(cell.value));
                let note = cell.map_or("", |cell| cell.note.as_str());
                let title = format!(
                    "{} {x_name}, {} {}: {text} {note}",
                    self.x.0, self.y.0, self.y.1[row]
                );
                let class = shade.map_or("none".to_owned(), |shade| format!("h{shade}"));
                let rect = Element::new("rect")
                    .attribute("class", format!("cell {class}"))
                    .at("x", x + 1.0)
                    .at("y", y + 1.0)
                    .at("width", (width - 2.0).max(1.0))
                    .at("height", STEP - 2.0)
                    .child(hint(title));
                let on = format!("on{}", shade.map_or(0, |shade| shade));
                let line = if note.is_empty() { 4.0 } else { -2.0 };
                let centre = (x + width / 2.0, y + STEP / 2.0);
                let value = label(centre.0, centre.1 + line, "middle", text);
                drawing = drawing
                    .child(rect)
                    .child(value.attribute("class", on.clone()));
                if !note.is_empty() {
                    let note = label(centre.0, centre.1 + 13.0, "middle", note);
                    drawing = drawing.child(note.attribute("class", format!("small {on}")));
                }
            }
        }
        (Some(drawing), None)
    }
}

/// By factors where values span more than one decade, else by differences.
fn shade(value: f64, low: f64, high: f64) -> Option<usize> {
    if !value.is_finite() {
        return None;
    }
    let (value, low, high) = if low > 0.0 && high / low > 10.0 {
        (value.ln(), low.ln(), high.ln())
    } else {
        (value, low, high)
    };
    let share = if high > low {
        (value - low) / (high - low)
    } else {
        0.0
    };
    Some(((share * SHADES as f64) as usize).min(SHADES - 1))
}
