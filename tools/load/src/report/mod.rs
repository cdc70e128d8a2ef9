//! What people see of results: text, HTML with pictures, CSV, and HdrHistogram's interval log.
//!
//! A [`Report`] is a list of sections made of text, tables and charts. It knows nothing of load: what is
//! measured becomes a report in [`runs`] and [`pairs`], and further kinds of results build their own from the
//! same parts. Text and HTML are two renderings of one report, so they cannot disagree. Must never measure,
//! and never put a text from outside into HTML unescaped: everything goes through `markup`.

pub mod chart;
pub mod csv;
pub mod goals;
pub mod hlog;
mod html;
mod markup;
pub mod number;
pub mod origin;
pub mod pairs;
pub mod runs;
pub mod table;

use std::path::Path;

use crate::result::{ResultError, write_whole};

pub use chart::Chart;
pub use number::Unit;
pub use table::{Cell, Table};

/// Something to read, from top to bottom.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What it is about, in one line.
    pub title: String,
    /// What it says.
    pub sections: Vec<Section>,
}

/// A part of a report under its own heading.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// In one line; empty for the first part of a report.
    pub heading: String,
    /// In reading order.
    pub blocks: Vec<Block>,
}

/// What a section is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// A paragraph.
    Text(String),
    /// Something that changes what the figures mean: a partial result, a failed check.
    Warning(String),
    /// Names and values, such as versions; empty values are left out.
    Facts(Vec<(String, String)>),
    /// Rows and columns.
    Table(Table),
    /// A picture; text shows only its title.
    Chart(Chart),
}

impl Report {
    /// A report that says nothing yet.
    pub fn new(title: impl Into<String>) -> Report {
        Report {
            title: title.into(),
            sections: Vec::new(),
        }
    }

    /// Adds a section, unless it is empty.
    pub fn push(&mut self, heading: impl Into<String>, blocks: Vec<Block>) {
        if !blocks.is_empty() {
            self.sections.push(Section {
                heading: heading.into(),
                blocks,
            });
        }
    }

    /// For a terminal. Charts are left out: their figures stand in tables.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        push_line(&mut text, &self.title);
        for section in &self.sections {
            let shown = |block: &&Block| !matches!(block, Block::Chart(_));
            let blocks: Vec<String> = section
                .blocks
                .iter()
                .filter(shown)
                .map(block_text)
                .collect();
            if blocks.is_empty() {
                continue;
            }
            text.push('\n');
            if !section.heading.is_empty() {
                push_line(&mut text, &section.heading);
            }
            text.push_str(&blocks.join("\n"));
        }
        text
    }

    /// One HTML page that needs nothing but itself: no network, no script.
    pub fn to_html(&self) -> String {
        html::page(self)
    }

    /// Writes the page, whole or not at all.
    pub fn write_html(&self, path: &Path) -> Result<(), ResultError> {
        write_whole(path, self.to_html().as_bytes())
    }
}

fn block_text(block: &Block) -> String {
    let mut text = String::new();
    match block {
        Block::Text(paragraph) => push_line(&mut text, paragraph),
        Block::Warning(warning) => push_line(&mut text, &format!("!! {warning}")),
        Block::Facts(facts) => {
            let facts = facts.iter().filter(|(_, value)| !value.is_empty());
            let width = facts.clone().map(|(name, _)| name.chars().count()).max();
            let width = width.unwrap_or(0);
            for (name, value) in facts {
                push_line(&mut text, &format!("{name:width$}  {value}"));
            }
        }
        Block::Table(table) => text = table.to_text(),
        Block::Chart(chart) => push_line(&mut text, chart.title()),
    }
    text
}

/// One line, whatever is in it: control characters of a server's message must not move a terminal's cursor.
fn push_line(text: &mut String, line: &str) {
    text.extend(
        line.chars()
            .map(|c| if c.is_control() { '\u{fffd}' } else { c }),
    );
    text.push('\n');
}

#[cfg(test)]
mod tests;
