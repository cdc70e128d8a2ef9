//! Every single value of a few groups, with median and 99th percentile: for samples too small for a curve.

use super::scale::Placed;
use super::{Axis, SERIES_COLOURS, WIDTH, hint, label, rule, shortened, svg};
use crate::report::markup::Element;

/// Groups of single values.
#[derive(Clone, Debug, PartialEq)]
pub struct StripChart {
    /// What it shows.
    pub title: String,
    /// Of the values.
    pub axis: Axis,
    /// From top to bottom.
    pub strips: Vec<Strip>,
}

/// One group.
#[derive(Clone, Debug, PartialEq)]
pub struct Strip {
    /// To its left.
    pub name: String,
    /// In any order.
    pub values: Vec<f64>,
}

const LEFT: f64 = 170.0;
/// Leaves room for the text beside the last mark.
const RIGHT: f64 = WIDTH - 86.0;
const TOP: f64 = 10.0;
const STEP: f64 = 62.0;
const NAME_CHARACTERS: usize = 24;

/// Rows that dots spread over, so that equal values do not hide each other.
const LANES: usize = 5;

impl StripChart {
    pub(super) fn draw(&self) -> (Option<Element>, Option<Element>) {
        let all = self.strips.iter().flat_map(|strip| strip.values.iter());
        let Some(x) = Placed::new(&self.axis, all.copied(), LEFT, RIGHT) else {
            return (None, None);
        };
        let bottom = TOP + STEP * self.strips.len() as f64;
        let mut drawing = svg(bottom + 40.0);
        for (value, text) in &x.ticks {
            let Some(at) = x.place(*value) else { continue };
            drawing = drawing
                .child(rule("grid", (at, TOP), (at, bottom)))
                .child(label(at, bottom + 16.0, "middle", text));
        }
        let middle = (LEFT + RIGHT) / 2.0;
        let name = label(middle, bottom + 34.0, "middle", &self.axis.name);
        drawing = drawing.child(name.attribute("class", "axis"));
        for (index, strip) in self.strips.iter().enumerate() {
            let y = TOP + STEP * (index as f64 + 0.5);
            let colour = index % SERIES_COLOURS;
            let name = label(
                LEFT - 8.0,
                y,
                "end",
                shortened(&strip.name, NAME_CHARACTERS),
            );
            let count = format!("{} values", strip.values.len());
            let count = label(LEFT - 8.0, y + 15.0, "end", count).attribute("class", "axis");
            drawing = drawing.child(name.child(hint(&strip.name))).child(count);
            drawing = drawing.children(self.draw_strip(strip, colour, &x, y));
        }
        (Some(drawing), None)
    }

    fn draw_strip(&self, strip: &Strip, colour: usize, x: &Placed, y: f64) -> Vec<Element> {
        let dot = |(index, value): (usize, &f64)| {
            let lane = (index % LANES) as f64 - (LANES as f64 - 1.0) / 2.0;
            let text = format!("{}: {}", strip.name, self.axis.unit.format(*value));
            let dot = Element::new("circle")
                .attribute("class", format!("dot f{colour} faint"))
                .at("cx", x.place(*value)?)
                .at("cy", y + lane * 5.0)
                .at("r", 3.0);
            Some(dot.child(hint(text)))
        };
        let mut marks: Vec<Element> = strip.values.iter().enumerate().filter_map(dot).collect();
        // Texts on the outer sides: both marks may stand close together.
        for (name, share, anchor, aside) in [("p50", 0.5, "end", -4.0), ("p99", 0.99, "start", 4.0)]
        {
            let Some(value) = quantile(&strip.values, share) else {
                continue;
            };
            let Some(at) = x.place(value) else { continue };
            let text = format!("{name} {}", self.axis.unit.format(value));
            let title = hint(format!("{}: {text}", strip.name));
            marks.push(rule("mark", (at, y - 28.0), (at, y + 14.0)).child(title));
            marks.push(label(at + aside, y - 18.0, anchor, text).attribute("class", "small"));
        }
        marks
    }
}

/// The smallest value that the share of all does not exceed; none without values.
pub(crate) fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}
