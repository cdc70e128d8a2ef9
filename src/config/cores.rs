//! `--cores`: which CPUs get an executor.

/// The highest CPU number that can be asked for; Linux is built for at most this many.
pub const CPU_NUMBER_MAX: usize = 8_191;

/// Which CPUs get an executor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// Every CPU this process may use.
    All,
    /// This many of them, at least one; the runtime chooses.
    Count(usize),
    /// Exactly these CPU numbers, ascending, none twice, at least one.
    List(Vec<usize>),
}

impl Cores {
    /// Reads `all`, a number of cores, or a list of CPU numbers and ranges such as `0,2-3`.
    /// A lone number is a count; the list of CPU 2 alone is `2-2`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Cores> {
        if text == "all" {
            return Some(Cores::All);
        }
        if let Some(count) = number(text) {
            return (count > 0).then_some(Cores::Count(count));
        }
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            if first > last {
                return None;
            }
            cpus.extend(first..=last);
            // Before the next part, so that a long list of wide ranges stays small.
            cpus.sort_unstable();
            cpus.dedup();
        }
        Some(Cores::List(cpus))
    }
}

fn number(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .filter(|number| *number <= CPU_NUMBER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<Cores>) {
        assert_eq!(Cores::parse(text), expected, "{text}");
    }

    /// Goal: the three forms, and nothing else.
    #[test]
    fn forms() {
        check("all", Some(Cores::All));
        check("2", Some(Cores::Count(2)));
        check("2-2", Some(Cores::List(vec![2])));
        check("3,0,2-3", Some(Cores::List(vec![0, 2, 3])));
        check("0", None);
        check("", None);
        check("0,", None);
        check("3-2", None);
        check("-1", None);
        check("+1", None);
        check("0-99999999999", None);
        check("0-4000000000", None);
    }
}
