//! The default of `--memory-budget-bytes`: how much of the machine a member may fill.
//!
//! Pure: the texts of the kernel's files come in as arguments.

use crate::base::limits::{KIB, MEMORY_BUDGET_BYTES_FALLBACK, MEMORY_BUDGET_SHARE_DIVISOR};

/// A safe share of the memory that `meminfo` (the text of `/proc/meminfo`) and the limits of this
/// process's control groups (texts of `memory.max` files, from its own group up to the root) allow.
///
/// Three quarters: the rest is for the allocator's slack, the kernel's page cache of the log, and
/// connections. When nothing is known, a small fixed budget.
#[must_use]
pub fn default_budget<'a>(
    meminfo: Option<&str>,
    cgroup_limits: impl IntoIterator<Item = &'a str>,
) -> u64 {
    let total = meminfo.and_then(|text| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(KIB)
    });
    // "max" means no limit and is no number.
    let limits = cgroup_limits
        .into_iter()
        .filter_map(|text| text.trim().parse::<u64>().ok());
    match total.into_iter().chain(limits).min() {
        Some(bytes) => bytes - bytes / MEMORY_BUDGET_SHARE_DIVISOR,
        None => MEMORY_BUDGET_BYTES_FALLBACK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::MIB;

    #[track_caller]
    fn check(meminfo: Option<&str>, limits: &[&str], expected: u64) {
        assert_eq!(
            default_budget(meminfo, limits.iter().copied()),
            expected,
            "{meminfo:?} {limits:?}"
        );
    }

    /// Goal: three quarters of the tightest limit, and never a failure.
    #[test]
    fn budgets() {
        let machine = Some("MemTotal:        4096000 kB\nMemFree: 1 kB\n");
        check(machine, &[], 3_072_000 * KIB);
        check(machine, &["max\n", "max\n"], 3_072_000 * KIB);
        check(machine, &["max\n", "1073741824\n"], 768 * MIB);
        check(None, &["1073741824\n"], 768 * MIB);
        check(
            Some("MemTotal: many kB"),
            &["x"],
            MEMORY_BUDGET_BYTES_FALLBACK,
        );
        check(None, &[], MEMORY_BUDGET_BYTES_FALLBACK);
        check(None, &["18446744073709551615"], u64::MAX - u64::MAX / 4);
    }
}
