//! Majorities.

use smallvec::SmallVec;

/// Voters that are counted without a heap allocation.
const VOTERS_INLINE: usize = 8;

/// How many of `voters` are a majority. Of no voters there is none, so one more than there are.
#[must_use]
pub fn majority_size(voters: usize) -> usize {
    voters / 2 + 1
}

/// How many voters may fail without the rest losing its majority.
#[must_use]
pub fn tolerated_faults(voters: usize) -> usize {
    voters.saturating_sub(majority_size(voters))
}

/// The highest value that a majority has reached, given each voter's: an index that is durable, or a
/// time at which it followed.
#[must_use]
pub fn majority_value<T: Copy + Ord + Default>(values: impl Iterator<Item = T>) -> T {
    let mut sorted: SmallVec<[T; VOTERS_INLINE]> = values.collect();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    sorted
        .get(majority_size(sorted.len()) - 1)
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Index;

    fn check(matched: &[u64], expected: u64) {
        let reached = majority_value(matched.iter().copied().map(Index));
        assert_eq!(reached, Index(expected), "of {matched:?}");
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

    /// Goal: majorities and tolerated faults of one to seven voters, as the tables of etcd's
    /// documentation list them.
    #[test]
    fn one_to_seven() {
        let table: Vec<_> = (1..=7)
            .map(|voters| (majority_size(voters), tolerated_faults(voters)))
            .collect();
        assert_eq!(
            table,
            [(1, 0), (2, 0), (2, 1), (3, 1), (3, 2), (4, 2), (4, 3)]
        );
        assert_eq!(tolerated_faults(0), 0);
    }
}
