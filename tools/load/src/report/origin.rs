//! How a report on a cluster of our own begins: what it is about, what spoils its figures, and where they come from.

use super::Block;
use crate::result::{Origin, origin::early};

/// Its title, for what `subcommand` found.
#[must_use]
pub fn title(subcommand: &str, origin: &Origin) -> String {
    let target = &origin.target;
    format!(
        "kontiki-load {subcommand}: {} {}, {} members",
        target.program, target.version, target.members
    )
}

/// Its first part: an early end and further warnings, then the origin and further facts.
#[must_use]
pub fn head(
    origin: &Origin,
    partial: Option<&String>,
    warnings: Vec<String>,
    facts: Vec<(String, String)>,
) -> Vec<Block> {
    let warnings = early(partial).into_iter().chain(warnings);
    let mut blocks: Vec<Block> = warnings.map(Block::Warning).collect();
    let machine = &origin.machine;
    let fact = |(name, value): (&str, String)| (name.to_owned(), value);
    let own = [
        ("command", origin.command.join(" ")),
        ("started", origin.started.clone()),
        ("generator", origin.generator_version.clone()),
        (
            "machine",
            format!("{}, {} CPUs, {}", machine.cpu, machine.cpus, machine.kernel),
        ),
    ];
    let asked = origin.target.details.iter().chain(&origin.parameters);
    let asked = asked.map(|(name, value)| (name.clone(), value.clone()));
    let all = own.into_iter().map(fact).chain(asked).chain(facts);
    blocks.push(Block::Facts(all.collect()));
    blocks
}
