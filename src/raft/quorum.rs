//! Majorities.

use crate::base::Index;

/// How many of `voters` are a majority. Of no voters there is none, so one more than there are.
#[must_use]
pub fn majority_size(voters: usize) -> usize {
    voters / 2 + 1
}

/// The highest index that a majority has reached, given each voter's.
#[must_use]
pub fn majority_index(matched: &[Index]) -> Index {
    let mut sorted = matched.to_vec();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    sorted
        .get(majority_size(sorted.len()) - 1)
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(matched: &[u64], expected: u64) {
        let matched: Vec<Index> = matched.iter().copied().map(Index).collect();
        assert_eq!(majority_index(&matched), Index(expected), "of {matched:?}");
    }

    /// Goal: the index that survives the loss of any minority.
    #[test]
    fn what_a_majority_has() {
        check(&[], 0);
        check(&[5], 5);
        check(&[5, 3], 3);
        check(&[5, 3, 9], 5);
        check(&[9, 1, 1, 9], 1);
        check(&[9, 9, 9, 0, 0], 9);
    }
}
