//! A report as one HTML page: no network, no script, light or dark as the reader's system is.

use super::markup::Element;
use super::{Block, Report, Section};

const STYLE: &str = include_str!("style.css");

pub(super) fn page(report: &Report) -> String {
    let head = Element::new("head")
        .child(Element::new("meta").attribute("charset", "utf-8"))
        .child(
            Element::new("meta")
                .attribute("name", "viewport")
                .attribute("content", "width=device-width, initial-scale=1"),
        )
        .child(
            // Even a mistake of ours could not make the page load anything.
            Element::new("meta")
                .attribute("http-equiv", "Content-Security-Policy")
                .attribute("content", "default-src 'none'; style-src 'unsafe-inline'"),
        )
        .child(Element::new("title").text(&report.title))
        .child(Element::new("style").literal(STYLE));
    let main = Element::new("main")
        .child(Element::new("h1").text(&report.title))
        .children(report.sections.iter().map(section));
    let html = Element::new("html")
        .attribute("lang", "en")
        .child(head)
        .child(Element::new("body").child(main));
    let mut text = "<!DOCTYPE html>\n".to_owned();
    html.write(&mut text);
    text.push('\n');
    text
}

fn section(section: &Section) -> Element {
    let mut element = Element::new("section");
    if !section.heading.is_empty() {
        element = element.child(Element::new("h2").text(&section.heading));
    }
    element.children(section.blocks.iter().map(block))
}

fn block(block: &Block) -> Element {
    match block {
        Block::Text(text) => Element::new("p").text(text),
        Block::Warning(text) => Element::new("p")
            .attribute("class", "warning")
            .attribute("role", "alert")
            .text(text),
        Block::Facts(facts) => {
            let facts = facts.iter().filter(|(_, value)| !value.is_empty());
            Element::new("dl").children(facts.flat_map(|(name, value)| {
                [
                    Element::new("dt").text(name),
                    Element::new("dd").text(value),
                ]
            }))
        }
        Block::Table(table) => table.to_element(),
        Block::Chart(chart) => chart.to_element(),
    }
}
