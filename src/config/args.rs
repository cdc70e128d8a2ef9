//! Splits a command line as Go's flag package does.
//!
//! `--x=v`, `-x=v` and `--x v`; a boolean takes its value only after `=`; the first word that is no flag,
//! or `--`, ends the flags.

use super::error::ConfigError;
use super::flags::{self, Flag, IGNORED};
use super::value::{Kind, Value};

/// The flags of a command line in their order, without the program's name.
pub(super) fn split(words: &[String]) -> Result<Vec<(&'static Flag, Value)>, ConfigError> {
    let mut given = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let Some(body) = word.strip_prefix('-').filter(|body| !body.is_empty()) else {
            return Err(ConfigError::StrayText { text: word.clone() });
        };
        let body = body.strip_prefix('-').unwrap_or(body);
        if body.is_empty() {
            // A lone `--`: what follows is not a flag, and nothing else is expected.
            return match rest.next() {
                Some(stray) => Err(ConfigError::StrayText {
                    text: stray.clone(),
                }),
                None => Ok(given),
            };
        }
        if body.starts_with(['-', '=']) {
            return Err(ConfigError::BadSyntax { text: word.clone() });
        }
        let (name, inline) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        if IGNORED.contains(&name) {
            continue;
        }
        let name = if name == "h" { "help" } else { name };
        let flag = flags::find(name).ok_or_else(|| ConfigError::UnknownFlag {
            name: name.to_owned(),
        })?;
        let text = match inline {
            Some(text) => text,
            None if flag.kind == Kind::Bool => "true",
            None => rest
                .next()
                .ok_or(ConfigError::MissingValue { name: flag.name })?,
        };
        let value = Value::parse(flag.kind, text).map_err(|reason| ConfigError::InvalidValue {
            place: format!("--{}", flag.name),
            value: text.to_owned(),
            reason,
        })?;
        given.push((flag, value));
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::ValueError;

    #[track_caller]
    fn check(line: &[&str], expected: Result<&[(&str, &str)], ConfigError>) {
        let words: Vec<String> = line.iter().map(ToString::to_string).collect();
        let split = split(&words).map(|given| {
            given
                .iter()
                .map(|(flag, value)| (flag.name.to_owned(), value.to_string()))
                .collect::<Vec<_>>()
        });
        let expected = expected.map(|pairs| {
            pairs
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect::<Vec<_>>()
        });
        assert_eq!(split, expected, "{line:?}");
    }

    /// Goal: every way to write a flag that Go accepts.
    #[test]
    fn accepted() {
        check(&[], Ok(&[]));
        check(
            &["--name=a", "-name", "b"],
            Ok(&[("name", "a"), ("name", "b")]),
        );
        check(&["--name", "--pre-vote"], Ok(&[("name", "--pre-vote")]));
        check(
            &["--name=", "--pre-vote"],
            Ok(&[("name", ""), ("pre-vote", "true")]),
        );
        check(
            &["--pre-vote=false", "--name=a=b"],
            Ok(&[("pre-vote", "false"), ("name", "a=b")]),
        );
        check(&["-h"], Ok(&[("help", "true")]));
        check(&["--name=a", "--"], Ok(&[("name", "a")]));
    }

    /// Goal: names of old times vanish, whether they bring a value or not.
    #[test]
    fn ignored() {
        check(
            &["-v", "--force=1", "--snapshot", "--name=a"],
            Ok(&[("name", "a")]),
        );
    }

    /// Goal: each mistake has its own answer.
    #[test]
    fn refused() {
        let stray = |text: &str| {
            Err(ConfigError::StrayText {
                text: text.to_owned(),
            })
        };
        let syntax = |text: &str| {
            Err(ConfigError::BadSyntax {
                text: text.to_owned(),
            })
        };
        check(&["--pre-vote", "false"], stray("false"));
        check(&["--name=a", "gateway"], stray("gateway"));
        check(&["-"], stray("-"));
        check(&[""], stray(""));
        check(&["--", "x"], stray("x"));
        check(&["---name=a"], syntax("---name=a"));
        check(&["--=a"], syntax("--=a"));
        check(
            &["--nmae=a"],
            Err(ConfigError::UnknownFlag {
                name: "nmae".to_owned(),
            }),
        );
        check(&["--name"], Err(ConfigError::MissingValue { name: "name" }));
        let reason = ValueError::NotNumber;
        let (place, value) = ("--heartbeat-interval".to_owned(), "fast".to_owned());
        check(
            &["--heartbeat-interval=fast"],
            Err(ConfigError::InvalidValue {
                place,
                value,
                reason,
            }),
        );
    }
}
