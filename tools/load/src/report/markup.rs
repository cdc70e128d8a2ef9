//! HTML and SVG as a tree of elements, so that everything is closed and everything is escaped.
//!
//! Names of elements and attributes are literals of this crate; texts and values come from anywhere, and are
//! escaped here and nowhere else. What comes out is HTML and well-formed XML at once.

use std::fmt::Write as _;

/// An element with all that is in it.
#[derive(Clone, Debug)]
pub(crate) struct Element {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    children: Vec<Node>,
}

#[derive(Clone, Debug)]
enum Node {
    Element(Element),
    Text(String),
    /// Ours, and right as it stands: the style sheet.
    Literal(&'static str),
}

/// Elements that HTML closes by itself.
const VOID: [&str; 3] = ["meta", "br", "hr"];

impl Element {
    pub(crate) fn new(name: &'static str) -> Element {
        Element {
            name,
            attributes: Vec::new(),
            children: Vec::new(),
        }
    }

    pub(crate) fn attribute(mut self, name: &'static str, value: impl Into<String>) -> Element {
        self.attributes.push((name, value.into()));
        self
    }

    /// A coordinate: a tenth of a pixel is enough, and keeps files small.
    pub(crate) fn at(self, name: &'static str, value: f64) -> Element {
        self.attribute(name, coordinate(value))
    }

    pub(crate) fn child(mut self, child: Element) -> Element {
        self.children.push(Node::Element(child));
        self
    }

    pub(crate) fn children(mut self, children: impl IntoIterator<Item = Element>) -> Element {
        self.children
            .extend(children.into_iter().map(Node::Element));
        self
    }

    pub(crate) fn text(mut self, text: impl Into<String>) -> Element {
        self.children.push(Node::Text(text.into()));
        self
    }

    pub(crate) fn literal(mut self, text: &'static str) -> Element {
        self.children.push(Node::Literal(text));
        self
    }

    /// Appends the element to a document.
    pub(crate) fn write(&self, to: &mut String) {
        to.push('<');
        to.push_str(self.name);
        for (name, value) in &self.attributes {
            to.push(' ');
            to.push_str(name);
            to.push_str("=\"");
            escape(value, to);
            to.push('"');
        }
        if VOID.contains(&self.name) {
            to.push_str("/>");
            return;
        }
        to.push('>');
        for child in &self.children {
            match child {
                Node::Element(element) => element.write(to),
                Node::Text(text) => escape(text, to),
                Node::Literal(text) => to.push_str(text),
            }
        }
        let written = write!(to, "</{}>", self.name);
        written.expect("a string takes everything");
        if matches!(
            self.name,
            "p" | "tr" | "table" | "svg" | "section" | "g" | "div"
        ) {
            to.push('\n');
        }
    }
}

/// A number as SVG wants it; what is no number would hide the whole picture, so it must not come here.
pub(crate) fn coordinate(value: f64) -> String {
    assert!(value.is_finite(), "a coordinate is a number, not {value}");
    let text = format!("{value:.1}");
    match text.strip_suffix(".0") {
        Some("-0") => "0".to_owned(),
        Some(whole) => whole.to_owned(),
        None => text,
    }
}

fn escape(text: &str, to: &mut String) {
    for c in text.chars() {
        match c {
            '&' => to.push_str("&amp;"),
            '<' => to.push_str("&lt;"),
            '>' => to.push_str("&gt;"),
            '"' => to.push_str("&quot;"),
            '\'' => to.push_str("&#39;"),
            '\t' | '\n' => to.push(c),
            // Neither HTML nor XML may hold them, not even escaped.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => to.push('\u{fffd}'),
            c => to.push(c),
        }
    }
}
