//! What a flag's text means: booleans, numbers and durations in the syntax Go programs accept.
//!
//! Pure; every text from outside gives a value or a reason, never a panic.

use std::fmt;

/// What kind of value a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// `true`, `false` and their short forms. The flag alone means `true`.
    Bool,
    /// A signed 64-bit number.
    Int,
    /// An unsigned 64-bit number.
    Uint,
    /// An unsigned 32-bit number.
    Uint32,
    /// A span such as `1h30m` or `100ms`. In a configuration file also a number of nanoseconds.
    Duration,
}

/// A value whose text was checked against its [`Kind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of [`Kind::Text`].
    Text(String),
    /// Of [`Kind::Bool`].
    Bool(bool),
    /// Of [`Kind::Int`].
    Int(i64),
    /// Of [`Kind::Uint`] and [`Kind::Uint32`].
    Uint(u64),
    /// Of [`Kind::Duration`], in nanoseconds, as signed as Go's.
    Duration(i64),
}

/// Why a text is not a value of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Neither true nor false.
    #[error("not true or false")]
    NotBool,
    /// Not a number, or one with a sign it may not have.
    #[error("not a whole number")]
    NotNumber,
    /// A number that its kind cannot hold.
    #[error("value out of range")]
    OutOfRange,
    /// Not a span of time.
    #[error("not a duration (examples: 300ms, 5s, 1h30m)")]
    NotDuration,
    /// In a configuration file: a mapping or a list of mappings where one value belongs.
    #[error("not a single value")]
    NotScalar,
}

impl Value {
    /// Reads `text` as a value of `kind`.
    pub fn parse(kind: Kind, text: &str) -> Result<Value, ValueError> {
        match kind {
            Kind::Text => Ok(Value::Text(text.to_owned())),
            Kind::Bool => parse_bool(text).map(Value::Bool),
            Kind::Int => parse_int(text).map(Value::Int),
            Kind::Uint => parse_uint(text).map(Value::Uint),
            Kind::Uint32 => {
                let number = parse_uint(text)?;
                u32::try_from(number).map_err(|_| ValueError::OutOfRange)?;
                Ok(Value::Uint(number))
            }
            Kind::Duration => parse_duration(text).map(Value::Duration),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => f.write_str(text),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Uint(value) => write!(f, "{value}"),
            Value::Duration(nanos) => write!(f, "{nanos}ns"),
        }
    }
}

/// The twelve spellings Go knows.
fn parse_bool(text: &str) -> Result<bool, ValueError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(ValueError::NotBool),
    }
}

fn parse_int(text: &str) -> Result<i64, ValueError> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = i128::from(parse_uint(digits)?);
    let number = if negative { -magnitude } else { magnitude };
    i64::try_from(number).map_err(|_| ValueError::OutOfRange)
}

/// Decimal, or with a prefix: `0x` hexadecimal, `0o` or `0` octal, `0b` binary.
/// `_` may separate digits after a prefix.
fn parse_uint(text: &str) -> Result<u64, ValueError> {
    let lower = text.to_ascii_lowercase();
    let (radix, digits) = if let Some(rest) = lower.strip_prefix("0x") {
        (16, rest)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (8, rest)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (2, rest)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    let digits = if radix == 10 {
        digits.to_owned()
    } else {
        digits.replace('_', "")
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(ValueError::NotNumber);
    }
    u64::from_str_radix(&digits, radix).map_err(|_| ValueError::OutOfRange)
}

/// A sign, then one or more of a decimal number followed by a unit; or a lone `0`.
fn parse_duration(text: &str) -> Result<i64, ValueError> {
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(ValueError::NotDuration);
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let (whole, after_whole) = split_digits(rest);
        let (fraction, after_number) = match after_whole.strip_prefix('.') {
            Some(after_dot) => split_digits(after_dot),
            None => ("", after_whole),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(ValueError::NotDuration);
        }
        let unit_end = after_number
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after_number.len());
        let (unit, after_unit) = after_number.split_at(unit_end);
        let unit_nanos: i128 = match unit {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(ValueError::NotDuration),
        };
        nanos += scaled(whole, unit_nanos)?;
        // Digits below a nanosecond of the largest unit cannot change the result.
        let fraction = &fraction[..fraction.len().min(FRACTION_DIGITS_MAX)];
        if !fraction.is_empty() {
            let divisor = (0..fraction.len()).fold(1_i128, |product, _| product * 10);
            nanos += scaled(fraction, unit_nanos)? / divisor;
        }
        if nanos > i128::from(i64::MAX) {
            return Err(ValueError::OutOfRange);
        }
        rest = after_unit;
    }
    i64::try_from(if negative { -nanos } else { nanos }).map_err(|_| ValueError::OutOfRange)
}

/// Digits of a fraction that are read; an hour has 3.6e12 nanoseconds, so later ones do not count.
const FRACTION_DIGITS_MAX: usize = 15;

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
    )
}

/// `digits` times `unit_nanos`; no digits are zero.
fn scaled(digits: &str, unit_nanos: i128) -> Result<i128, ValueError> {
    if digits.is_empty() {
        return Ok(0);
    }
    let number: u64 = digits.parse().map_err(|_| ValueError::OutOfRange)?;
    Ok(i128::from(number) * unit_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: Kind, text: &str, expected: Result<Value, ValueError>) {
        assert_eq!(Value::parse(kind, text), expected, "{text}");
    }

    /// Goal: numbers have Go's prefixes, and no other text passes.
    #[test]
    fn numbers() {
        check(Kind::Uint, "0", Ok(Value::Uint(0)));
        check(Kind::Uint, "1572864", Ok(Value::Uint(1_572_864)));
        check(Kind::Uint, "0x10", Ok(Value::Uint(16)));
        check(Kind::Uint, "010", Ok(Value::Uint(8)));
        check(Kind::Uint, "0b11", Ok(Value::Uint(3)));
        check(Kind::Uint, "0x1_0", Ok(Value::Uint(16)));
        check(Kind::Uint, "1_0", Err(ValueError::NotNumber));
        check(Kind::Uint, "+1", Err(ValueError::NotNumber));
        check(Kind::Uint, "-1", Err(ValueError::NotNumber));
        check(Kind::Uint, "", Err(ValueError::NotNumber));
        check(
            Kind::Uint,
            "18446744073709551616",
            Err(ValueError::OutOfRange),
        );
        check(Kind::Uint32, "4294967295", Ok(Value::Uint(4_294_967_295)));
        check(Kind::Uint32, "4294967296", Err(ValueError::OutOfRange));
        check(Kind::Int, "-1", Ok(Value::Int(-1)));
        check(Kind::Int, "-9223372036854775808", Ok(Value::Int(i64::MIN)));
        check(
            Kind::Int,
            "9223372036854775808",
            Err(ValueError::OutOfRange),
        );
        check(Kind::Int, "--1", Err(ValueError::NotNumber));
    }

    /// Goal: durations are Go's, fractions and several units included.
    #[test]
    fn durations() {
        let second = 1_000_000_000;
        check(Kind::Duration, "0", Ok(Value::Duration(0)));
        check(Kind::Duration, "5s", Ok(Value::Duration(5 * second)));
        check(Kind::Duration, "1h30m", Ok(Value::Duration(5400 * second)));
        check(Kind::Duration, "1.5s", Ok(Value::Duration(3 * second / 2)));
        check(Kind::Duration, ".5s", Ok(Value::Duration(second / 2)));
        check(Kind::Duration, "100us", Ok(Value::Duration(100_000)));
        check(Kind::Duration, "100µs", Ok(Value::Duration(100_000)));
        check(Kind::Duration, "-2ms", Ok(Value::Duration(-2_000_000)));
        check(Kind::Duration, "5", Err(ValueError::NotDuration));
        check(Kind::Duration, "", Err(ValueError::NotDuration));
        check(Kind::Duration, "-", Err(ValueError::NotDuration));
        check(Kind::Duration, ".s", Err(ValueError::NotDuration));
        check(Kind::Duration, "5 s", Err(ValueError::NotDuration));
        check(Kind::Duration, "9999999999h", Err(ValueError::OutOfRange));
        check(
            Kind::Duration,
            "99999999999999999999s",
            Err(ValueError::OutOfRange),
        );
        let long = format!("0.{}s", "9".repeat(400));
        check(Kind::Duration, &long, Ok(Value::Duration(second - 1)));
    }

    /// Goal: exactly Go's spellings of a boolean.
    #[test]
    fn booleans() {
        check(Kind::Bool, "T", Ok(Value::Bool(true)));
        check(Kind::Bool, "False", Ok(Value::Bool(false)));
        check(Kind::Bool, "yes", Err(ValueError::NotBool));
        check(Kind::Bool, "", Err(ValueError::NotBool));
    }
}
