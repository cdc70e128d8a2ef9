//! A figure beside its goal.

use serde::{Deserialize, Serialize};

/// One figure of a comparison that has a goal: the median over the pairs, and how far it has got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Which goal: `G6`.
    pub goal: String,
    /// What is judged, in words.
    pub name: String,
    /// Where it was measured.
    pub point: String,
    /// Median of the side that ran first, in `unit`.
    pub ours: f64,
    /// Median of the other side, in `unit`.
    pub theirs: f64,
    /// Of both: `us` of CPU, `ns`, `per_second`, `share`, `ratio`.
    pub unit: String,
    /// What is judged: the median of the pairs.
    pub value: f64,
    /// The lowest of the pairs.
    pub lowest: f64,
    /// The highest of the pairs.
    pub highest: f64,
    /// How many pairs these are.
    pub pairs: u32,
    /// Which way it should go.
    pub wanted: Wanted,
    /// What must be reached.
    pub must: f64,
    /// What is to be reached.
    pub target: f64,
    /// What would be the best.
    pub stretch: f64,
    /// How far it has got; none where the sides are not ours and another's, so that nothing is to be reached.
    pub met: Option<Met>,
}

/// Which way a figure should go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// At most the level.
    AtMost,
    /// At least the level.
    AtLeast,
}

/// The highest level that a figure has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Met {
    /// Not even what must be.
    Nothing,
    /// What must be.
    Must,
    /// What is to be.
    Target,
    /// The best.
    Stretch,
}

impl Wanted {
    /// How far `value` has got.
    #[must_use]
    pub fn met(self, value: f64, [must, target, stretch]: [f64; 3]) -> Met {
        let reached = |level: f64| match self {
            Wanted::AtMost => value <= level,
            Wanted::AtLeast => value >= level,
        };
        if reached(stretch) {
            Met::Stretch
        } else if reached(target) {
            Met::Target
        } else if reached(must) {
            Met::Must
        } else {
            Met::Nothing
        }
    }
}

impl Met {
    /// In tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Met::Nothing => "not met",
            Met::Must => "must",
            Met::Target => "target",
            Met::Stretch => "stretch",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a level is reached by its own value, from either side, and the highest one counts.
    #[test]
    fn levels() {
        let check = |wanted: Wanted, levels: [f64; 3], value: f64, expected: Met| {
            assert_eq!(wanted.met(value, levels), expected, "{value} of {levels:?}");
        };
        let low = [8.0, 5.0, 3.0];
        check(Wanted::AtMost, low, 8.1, Met::Nothing);
        check(Wanted::AtMost, low, 8.0, Met::Must);
        check(Wanted::AtMost, low, 4.9, Met::Target);
        check(Wanted::AtMost, low, 1.0, Met::Stretch);
        let high = [0.80, 0.90, 0.95];
        check(Wanted::AtLeast, high, 0.79, Met::Nothing);
        check(Wanted::AtLeast, high, 0.80, Met::Must);
        check(Wanted::AtLeast, high, 0.94, Met::Target);
        check(Wanted::AtLeast, high, 2.0, Met::Stretch);
        check(Wanted::AtMost, low, f64::NAN, Met::Nothing);
    }
}
