//! Pictures for reports, drawn as SVG by ourselves.
//!
//! Owns the frame of a plot: size, scales, ticks, legend. Colours are classes, so that the page's style sheet
//! decides them for light and dark. A picture is drawn from whatever numbers it gets: points that are no
//! numbers leave gaps, and an empty chart says that it is empty. No script; details are in `<title>`, which
//! browsers show under the pointer.

mod bars;
mod heat;
mod line;
mod ratio;
mod scale;
mod strip;

pub use bars::{Bar, BarChart};
pub use heat::{HeatCell, HeatMap};
pub use line::{Line, LineChart, Stroke};
pub use ratio::{Better, RatioChart, RatioRow};
pub use scale::{Axis, Scale};
pub use strip::{Strip, StripChart};

use super::markup::Element;

/// Width of every picture in its own units; the page scales it.
const WIDTH: f64 = 760.0;

/// Colours of series before they repeat.
pub const SERIES_COLOURS: usize = 8;

/// One picture.
#[derive(Clone, Debug, PartialEq)]
pub enum Chart {
    /// Lines over an axis: percentile curves, time series.
    Line(LineChart),
    /// Horizontal bars of parts: what something costs.
    Bars(BarChart),
    /// Ratios with their spread, around one.
    Ratios(RatioChart),
    /// Every single value of a few groups: failover times.
    Strips(StripChart),
    /// A grid of values: a sweep over two settings.
    Heat(HeatMap),
}

impl Chart {
    /// What it shows.
    pub fn title(&self) -> &str {
        match self {
            Chart::Line(chart) => &chart.title,
            Chart::Bars(chart) => &chart.title,
            Chart::Ratios(chart) => &chart.title,
            Chart::Strips(chart) => &chart.title,
            Chart::Heat(chart) => &chart.title,
        }
    }

    /// The picture with its title and legend.
    pub(super) fn to_element(&self) -> Element {
        let (drawing, legend) = match self {
            Chart::Line(chart) => chart.draw(),
            Chart::Bars(chart) => chart.draw(),
            Chart::Ratios(chart) => chart.draw(),
            Chart::Strips(chart) => chart.draw(),
            Chart::Heat(chart) => chart.draw(),
        };
        let figure = Element::new("figure")
            .child(Element::new("figcaption").text(self.title()))
            .children(legend);
        match drawing {
            Some(svg) => figure.child(svg.attribute("aria-label", self.title())),
            None => figure.child(
                Element::new("p")
                    .attribute("class", "note")
                    .text("Nothing was measured that could be drawn."),
            ),
        }
    }
}

/// An empty drawing area.
fn svg(height: f64) -> Element {
    Element::new("svg")
        .attribute("viewBox", format!("0 0 {WIDTH} {height:.0}"))
        .attribute("role", "img")
}

/// A text at a place; `anchor` is SVG's start, middle or end.
fn label(x: f64, y: f64, anchor: &'static str, text: impl Into<String>) -> Element {
    Element::new("text")
        .at("x", x)
        .at("y", y)
        .attribute("text-anchor", anchor)
        .text(text)
}

/// A straight line of a class.
fn rule(class: &'static str, from: (f64, f64), to: (f64, f64)) -> Element {
    Element::new("line")
        .attribute("class", class)
        .at("x1", from.0)
        .at("y1", from.1)
        .at("x2", to.0)
        .at("y2", to.1)
}

/// What browsers show under the pointer.
fn hint(text: impl Into<String>) -> Element {
    Element::new("title").text(text)
}

/// Names beside their colours; nothing for a single name, which the title says already.
fn legend(entries: &[(String, usize)]) -> Option<Element> {
    if entries.len() < 2 {
        return None;
    }
    let entry = |(name, colour): &(String, usize)| {
        let swatch =
            Element::new("span").attribute("class", format!("swatch b{}", colour % SERIES_COLOURS));
        Element::new("span")
            .attribute("class", "key")
            .child(swatch)
            .text(name)
    };
    Some(
        Element::new("div")
            .attribute("class", "legend")
            .children(entries.iter().map(entry)),
    )
}

/// The part of a name that fits into a margin.
fn shortened(name: &str, characters: usize) -> String {
    if name.chars().count() <= characters {
        return name.to_owned();
    }
    let mut short: String = name.chars().take(characters.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests;
