//! Lines over two axes.
//!
//! Lines with the same colour and name belong to one thing, such as the five runs of one side, and share an
//! entry in the legend. A point that is no number interrupts its line.

use std::fmt::Write as _;

use super::scale::Placed;
use super::{Axis, SERIES_COLOURS, Scale, hint, label, legend, rule, svg};
use crate::report::markup::{Element, coordinate};

/// Lines over two axes.
#[derive(Clone, Debug, PartialEq)]
pub struct LineChart {
    /// What it shows.
    pub title: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// Drawn in this order.
    pub lines: Vec<Line>,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// For the legend.
    pub name: String,
    /// Which colour of the page; repeats after [`SERIES_COLOURS`].
    pub colour: usize,
    /// How it is drawn.
    pub stroke: Stroke,
    /// By ascending x.
    pub points: Vec<(f64, f64)>,
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stroke {
    /// What the chart is about.
    Solid,
    /// The same thing at another percentile.
    Dashed,
}

const HEIGHT: f64 = 300.0;
/// Leaves room for ticks such as `100,000/s` beside the name of the axis.
const LEFT: f64 = 96.0;
/// Leaves room for half of the last tick.
const RIGHT: f64 = super::WIDTH - 36.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = HEIGHT - 44.0;

/// Points of a chart up to which each one tells its value under the pointer.
const HINTS_MAX: usize = 600;

impl LineChart {
    pub(super) fn draw(&self) -> (Option<Element>, Option<Element>) {
        let points = || self.lines.iter().flat_map(|line| line.points.iter());
        let drawable = || points().filter(|(x, y)| x.is_finite() && y.is_finite());
        let x = Placed::new(&self.x, drawable().map(|point| point.0), LEFT, RIGHT);
        let y = Placed::new(&self.y, drawable().map(|point| point.1), BOTTOM, TOP);
        let (Some(x), Some(y)) = (x, y) else {
            return (None, None);
        };
        let hints = points().count() <= HINTS_MAX;
        let mut drawing = frame(svg(HEIGHT), &self.x, &self.y, &x, &y);
        for line in &self.lines {
            drawing = drawing.child(self.draw_line(line, &x, &y, hints));
        }
        let mut entries: Vec<(String, usize)> = Vec::new();
        for line in &self.lines {
            let entry = (line.name.clone(), line.colour % SERIES_COLOURS);
            if !entries.contains(&entry) {
                entries.push(entry);
            }
        }
        (Some(drawing), legend(&entries))
    }

    fn draw_line(&self, line: &Line, x: &Placed, y: &Placed, hints: bool) -> Element {
        let mut path = String::new();
        let mut group = Element::new("g");
        let mut marks = Vec::new();
        let mut drawing = false;
        for (at, point) in line.points.iter().enumerate() {
            let placed = x.place(point.0).zip(y.place(point.1));
            let Some((px, py)) = placed else {
                drawing = false;
                continue;
            };
            let command = if drawing { 'L' } else { 'M' };
            let written = write!(path, "{command}{} {}", coordinate(px), coordinate(py));
            written.expect("a string takes everything");
            // A point between two gaps has no line to be seen by.
            let next = line.points.get(at + 1);
            let alone = !drawing && next.is_none_or(|next| y.place(next.1).is_none());
            drawing = true;
            if alone || hints {
                let class = if alone { "dot" } else { "touch" };
                let text = format!(
                    "{}\n{}, {}",
                    line.name,
                    self.x_text(point.0),
                    self.y.unit.format(point.1)
                );
                let mark = Element::new("circle")
                    .attribute(
                        "class",
                        format!("{class} f{}", line.colour % SERIES_COLOURS),
                    )
                    .at("cx", px)
                    .at("cy", py)
                    .at("r", if alone { 2.5 } else { 6.0 });
                marks.push(mark.child(hint(text)));
            }
        }
        let dashed = match line.stroke {
            Stroke::Solid => "",
            Stroke::Dashed => " dashed",
        };
        let class = format!("line s{}{dashed}", line.colour % SERIES_COLOURS);
        let path = Element::new("path")
            .attribute("class", class)
            .attribute("d", path);
        group = group.child(path.child(hint(&line.name)));
        group.children(marks)
    }

    fn x_text(&self, value: f64) -> String {
        match self.x.scale {
            // A curve's last points are single values: more digits than ticks have.
            Scale::Nines => format!("{:.4} %", value * 100.0),
            _ => self.x.unit.format(value),
        }
    }
}

/// Grid, ticks and names of the axes.
fn frame(mut drawing: Element, x_axis: &Axis, y_axis: &Axis, x: &Placed, y: &Placed) -> Element {
    for (value, text) in &y.ticks {
        let Some(at) = y.place(*value) else { continue };
        drawing = drawing
            .child(rule("grid", (LEFT, at), (RIGHT, at)))
            .child(label(LEFT - 8.0, at + 4.0, "end", text));
    }
    for (value, text) in &x.ticks {
        let Some(at) = x.place(*value) else { continue };
        drawing = drawing
            .child(rule("grid", (at, TOP), (at, BOTTOM)))
            .child(label(at, BOTTOM + 16.0, "middle", text));
    }
    let middle = (LEFT + RIGHT) / 2.0;
    let height = (TOP + BOTTOM) / 2.0;
    let upwards = label(0.0, 0.0, "middle", &y_axis.name)
        .attribute("class", "axis")
        .attribute(
            "transform",
            format!("translate(14 {height:.0}) rotate(-90)"),
        );
    drawing
        .child(rule("frame", (LEFT, BOTTOM), (RIGHT, BOTTOM)))
        .child(label(middle, HEIGHT - 8.0, "middle", &x_axis.name).attribute("class", "axis"))
        .child(upwards)
}
