//! Tables, for a terminal and for a page.
//!
//! Owns alignment only: names to the left, numbers to the right, columns as wide as their widest cell. Cells
//! are finished text; a number has got its unit before it comes here.

use super::markup::Element;

/// Longer cells of a page break into lines.
const CELL_CHARACTERS_IN_ONE_LINE: usize = 56;

/// Rows and columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Heads of the columns.
    pub columns: Vec<Column>,
    /// Each with one cell for each column.
    pub rows: Vec<Vec<Cell>>,
}

/// The head of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// What stands in it.
    pub name: String,
    /// Numbers stand to the right.
    pub number: bool,
}

/// One cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// What is shown.
    pub text: String,
    /// How it stands out on a page; text shows no difference.
    pub tone: Tone,
}

/// How good a figure is, where that can be said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// As any other.
    #[default]
    Plain,
    /// Better than what it is compared with.
    Good,
    /// Worse.
    Bad,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell {
            text: text.into(),
            tone: Tone::Plain,
        }
    }
}

impl Cell {
    /// The same with a tone.
    #[must_use]
    pub fn with_tone(self, tone: Tone) -> Cell {
        Cell { tone, ..self }
    }
}

impl Table {
    /// A table without rows: first the columns of names, then those of numbers.
    pub fn new(names: &[&str], numbers: &[&str]) -> Table {
        let column = |number: bool| {
            move |name: &&str| Column {
                name: (*name).to_owned(),
                number,
            }
        };
        let names = names.iter().map(column(false));
        Table {
            columns: names.chain(numbers.iter().map(column(true))).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn push(&mut self, row: Vec<Cell>) {
        assert_eq!(row.len(), self.columns.len(), "one cell for each column");
        self.rows.push(row);
    }

    /// Aligned lines, the last one ended as well.
    pub fn to_text(&self) -> String {
        let head = self.columns.iter().map(|column| column.name.as_str());
        let mut lines: Vec<Vec<String>> = vec![head.map(one_line).collect()];
        for row in &self.rows {
            lines.push(row.iter().map(|cell| one_line(&cell.text)).collect());
        }
        let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|at| width(at).unwrap_or(0))
            .collect();
        let mut text = String::new();
        for line in &lines {
            let cells = line.iter().zip(&self.columns).zip(&widths);
            let cells: Vec<String> = cells
                .map(|((cell, column), width)| match column.number {
                    true => format!("{cell:>width$}"),
                    false => format!("{cell:width$}"),
                })
                .collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        text
    }

    pub(super) fn to_element(&self) -> Element {
        let align = |column: &Column| if column.number { "number" } else { "name" };
        let mut head = Element::new("tr");
        for column in &self.columns {
            let cell = Element::new("th").attribute("class", align(column));
            head = head.child(cell.attribute("scope", "col").text(&column.name));
        }
        let mut body = Element::new("tbody");
        for row in &self.rows {
            let mut line = Element::new("tr");
            for (cell, column) in row.iter().zip(&self.columns) {
                let tone = match cell.tone {
                    Tone::Plain => "",
                    Tone::Good => " good",
                    Tone::Bad => " bad",
                };
                let long = if cell.text.chars().count() > CELL_CHARACTERS_IN_ONE_LINE {
                    " long"
                } else {
                    ""
                };
                let class = format!("{}{tone}{long}", align(column));
                line = line.child(
                    Element::new("td")
                        .attribute("class", class)
                        .text(&cell.text),
                );
            }
            body = body.child(line);
        }
        let table = Element::new("table").child(Element::new("thead").child(head));
        // Wide tables scroll by themselves, not the page.
        Element::new("div")
            .attribute("class", "wide")
            .child(table.child(body))
    }
}

/// A cell is one line, whatever is in it.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
