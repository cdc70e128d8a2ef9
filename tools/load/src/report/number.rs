//! Figures as people read them: three significant digits and a unit that fits.
//!
//! Owns every format of a number in text and in pictures. Files for programs (JSON, CSV) carry plain numbers
//! in one unit and never pass here.

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Time in nanoseconds: `1.25 ms`.
    Nanoseconds,
    /// Time in seconds: `12 s`.
    Seconds,
    /// CPU microseconds for each operation: `9.43 us`.
    Microseconds,
    /// Things: `1,234`.
    Count,
    /// Things per second: `104,305/s`.
    PerSecond,
    /// Memory or disk: `12.5 MiB`.
    Bytes,
    /// A quotient: `0.21`.
    Ratio,
    /// A share, from 0 to 1: `12 %`.
    Share,
}

impl Unit {
    /// In files for programs.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Nanoseconds => "ns",
            Unit::Seconds => "s",
            Unit::Microseconds => "us",
            Unit::Count => "count",
            Unit::PerSecond => "per_second",
            Unit::Bytes => "bytes",
            Unit::Ratio => "ratio",
            Unit::Share => "share",
        }
    }

    /// The number with its unit; `-` for what is not a number.
    pub fn format(self, value: f64) -> String {
        if !value.is_finite() {
            return "-".to_owned();
        }
        match self {
            Unit::Nanoseconds => time(value),
            Unit::Seconds => time(value * 1e9),
            Unit::Microseconds => format!("{} us", digits(value)),
            Unit::Count => digits(value),
            Unit::PerSecond => format!("{}/s", digits(value)),
            Unit::Bytes => bytes(value),
            Unit::Ratio => digits(value),
            Unit::Share => format!("{} %", digits(value * 100.0)),
        }
    }

    /// The same for the round values of an axis: `0.5`, not `0.500`.
    pub fn format_round(self, value: f64) -> String {
        let text = self.format(value);
        let (number, unit) = match text.find([' ', '/']) {
            Some(at) => text.split_at(at),
            None => (text.as_str(), ""),
        };
        if !number.contains('.') {
            return text;
        }
        let number = number.trim_end_matches('0').trim_end_matches('.');
        format!("{number}{unit}")
    }
}

/// A whole number with separators: `1,234,567`.
pub fn whole(value: u64) -> String {
    let plain = value.to_string();
    let mut text = String::with_capacity(plain.len() + plain.len() / 3);
    for (at, digit) in plain.chars().enumerate() {
        if at > 0 && (plain.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three significant digits, or all before the point; no zeros at the end of a fraction that say nothing.
fn digits(value: f64) -> String {
    let size = value.abs();
    if size >= 99.95 {
        let sign = if value < 0.0 { "-" } else { "" };
        // A float beyond u64 is saturated, which no figure of ours reaches.
        return format!("{sign}{}", whole(size.round() as u64));
    }
    if size == 0.0 {
        return "0".to_owned();
    }
    let decimals = if size >= 9.995 {
        1
    } else if size >= 0.9995 {
        2
    } else {
        // 0.00123: three digits from the first that is not zero.
        (2 - size.log10().floor() as i32).clamp(3, 9) as usize
    };
    let text = format!("{value:.decimals$}");
    // 5.00 is 5, but 0.500 stays: a ratio keeps its precision.
    match text.split_once('.') {
        Some((integer, fraction)) if fraction.bytes().all(|digit| digit == b'0') => {
            integer.to_owned()
        }
        _ => text,
    }
}

fn time(ns: f64) -> String {
    let size = ns.abs();
    if size == 0.0 {
        return "0".to_owned();
    }
    let (value, unit) = if size < 999.5 {
        (ns, "ns")
    } else if size < 999.5e3 {
        (ns / 1e3, "us")
    } else if size < 999.5e6 {
        (ns / 1e6, "ms")
    } else {
        (ns / 1e9, "s")
    };
    format!("{} {unit}", digits(value))
}

fn bytes(value: f64) -> String {
    const STEPS: [(f64, &str); 4] = [
        (1_099_511_627_776.0, "TiB"),
        (1_073_741_824.0, "GiB"),
        (1_048_576.0, "MiB"),
        (1_024.0, "KiB"),
    ];
    let step = STEPS.iter().find(|(size, _)| value.abs() >= *size);
    let (size, unit) = step.copied().unwrap_or((1.0, "B"));
    format!("{} {unit}", digits(value / size))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: every unit, at the borders where the number of digits or the prefix changes.
    #[test]
    fn formats() {
        let check = |unit: Unit, value: f64, expected: &str| {
            assert_eq!(unit.format(value), expected, "{unit:?} of {value}");
        };
        check(Unit::Nanoseconds, 0.0, "0");
        check(Unit::Nanoseconds, 412.0, "412 ns");
        check(Unit::Nanoseconds, 999.4, "999 ns");
        check(Unit::Nanoseconds, 999.6, "1 us");
        check(Unit::Nanoseconds, 12_345.0, "12.3 us");
        check(Unit::Nanoseconds, 3_210_000.0, "3.21 ms");
        check(Unit::Nanoseconds, 600e9, "600 s");
        check(Unit::Seconds, 30.0, "30 s");
        check(Unit::Microseconds, 9.4321, "9.43 us");
        check(Unit::Count, 1_234_567.0, "1,234,567");
        check(Unit::PerSecond, 104_305.35, "104,305/s");
        check(Unit::PerSecond, 5.0, "5/s");
        check(Unit::Bytes, 500.0, "500 B");
        check(Unit::Bytes, 13_107_200.0, "12.5 MiB");
        check(Unit::Ratio, 0.2, "0.200");
        check(Unit::Ratio, 0.99951, "1");
        check(Unit::Ratio, 0.00123, "0.00123");
        check(Unit::Ratio, -2.5, "-2.50");
        check(Unit::Share, 0.123, "12.3 %");
        check(Unit::Ratio, f64::NAN, "-");
        let check_round = |unit: Unit, value: f64, expected: &str| {
            assert_eq!(unit.format_round(value), expected, "{unit:?} of {value}");
        };
        check_round(Unit::Ratio, 0.05, "0.05");
        check_round(Unit::Seconds, 1.5, "1.5 s");
        check_round(Unit::PerSecond, 0.2, "0.2/s");
        check_round(Unit::PerSecond, 2_000.0, "2,000/s");
        assert_eq!(whole(999), "999");
        assert_eq!(whole(u64::MAX), "18,446,744,073,709,551,615");
    }
}
