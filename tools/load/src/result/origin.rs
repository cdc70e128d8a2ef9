//! Where the result of a cluster of our own comes from: what was run, when, on what, and what was asked of it.
//!
//! Failovers, elections and slow followers begin their files with it. The fields stand in the file beside those of the
//! result itself, so that files keep their form. Must never hold a figure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Machine, Target};

/// The head of a result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The form of the file: each kind of result counts its own.
    pub format: u32,
    /// The command line.
    pub command: Vec<String>,
    /// Version of this program.
    pub generator_version: String,
    /// When it began, in UTC.
    pub started: String,
    /// Which servers.
    pub target: Target,
    /// Where.
    pub machine: Machine,
    /// What was asked, by name with unit.
    pub parameters: BTreeMap<String, String>,
}

/// Why a result is no good one, in one line: these reasons, and that it ended early; none for a good one.
pub(crate) fn failure(mut reasons: Vec<String>, partial: Option<&String>) -> Option<String> {
    reasons.extend(early(partial));
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// That a result ended early, and why.
pub(crate) fn early(partial: Option<&String>) -> Option<String> {
    partial.map(|why| format!("partial result: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: in a file the head is no object of its own, and comes first.
    #[test]
    fn head_of_a_file() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Outcome {
            #[serde(flatten)]
            origin: Origin,
            partial: Option<String>,
        }
        let outcome = Outcome {
            origin: Origin {
                format: 2,
                parameters: BTreeMap::from([("seed".to_owned(), "1".to_owned())]),
                ..Origin::default()
            },
            partial: None,
        };
        let text = r#"{"format":2,"command":[],"generator_version":"","started":"","target":{"program":"","version":"","members":0,"details":{}},"machine":{"cpu":"","cpus":0,"memory_bytes":0,"kernel":""},"parameters":{"seed":"1"},"partial":null}"#;
        let written = serde_json::to_string(&outcome).expect("text");
        assert_eq!(written, text);
        let read: Outcome = serde_json::from_str(text).expect("ours");
        assert_eq!(read, outcome);
    }
}
