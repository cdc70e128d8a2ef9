//! The configuration file: etcd's keys in YAML, of which JSON is a part.

use serde_json::Value as Node;

use super::error::ConfigError;
use super::flags::{self, FILE_SECTIONS, Flag, Group};
use super::value::{Kind, Value, ValueError};
use super::{ConfigFile, Notice};

/// What a file sets.
pub(super) struct FileSettings {
    /// Flags with their values, by their keys' names.
    pub(super) given: Vec<(&'static Flag, Value)>,
    /// Keys that mean nothing.
    pub(super) notices: Vec<Notice>,
}

/// Reads `file`: a mapping from flag names, or from sections, to values.
pub(super) fn parse(file: &ConfigFile<'_>) -> Result<FileSettings, ConfigError> {
    let malformed = |reason: String| ConfigError::FileMalformed {
        path: file.path.to_owned(),
        reason,
    };
    let text = std::str::from_utf8(file.bytes).map_err(|error| malformed(error.to_string()))?;
    let root: Node = serde_saphyr::from_str(text).map_err(|error| malformed(error.to_string()))?;
    let map = match root {
        Node::Object(map) => map,
        Node::Null => serde_json::Map::new(),
        _ => {
            return Err(malformed(
                "the file is not a mapping from option names to values".to_owned(),
            ));
        }
    };
    let mut settings = FileSettings {
        given: Vec::new(),
        notices: Vec::new(),
    };
    for (key, node) in map {
        match node {
            Node::Object(section) if FILE_SECTIONS.iter().any(|(name, _, _)| *name == key) => {
                for (inner, node) in section {
                    let row = FILE_SECTIONS
                        .iter()
                        .find(|(name, nested, _)| *name == key && *nested == inner);
                    match row.and_then(|(_, _, flag)| flags::find(flag)) {
                        Some(flag) => settings.take(flag, &format!("{key}.{inner}"), &node)?,
                        None => settings.unknown(&format!("{key}.{inner}")),
                    }
                }
            }
            node => match flags::find(&key).filter(|flag| in_files(flag)) {
                Some(flag) => settings.take(flag, &key, &node)?,
                None => settings.unknown(&key),
            },
        }
    }
    Ok(settings)
}

/// Whether a flag can be set in a file at all.
fn in_files(flag: &Flag) -> bool {
    !matches!(flag.name, "config-file" | "version" | "help") && flag.group != Group::Older
}

impl FileSettings {
    fn take(&mut self, flag: &'static Flag, key: &str, node: &Node) -> Result<(), ConfigError> {
        let value = value_of(flag.kind, node).map_err(|reason| ConfigError::InvalidValue {
            place: format!("\"{key}\" in the configuration file"),
            value: node.to_string(),
            reason,
        })?;
        // A key without a value is as good as absent.
        self.given.extend(value.map(|value| (flag, value)));
        Ok(())
    }

    fn unknown(&mut self, key: &str) {
        self.notices.push(Notice::warning(
            "the configuration file sets an option that does not exist",
            &[("option", key)],
        ));
    }
}

/// The value of `kind` that `node` holds; `None` when it holds nothing.
fn value_of(kind: Kind, node: &Node) -> Result<Option<Value>, ValueError> {
    let text = match node {
        Node::Null => return Ok(None),
        // etcd's file has durations as plain numbers of nanoseconds.
        Node::Number(number) if kind == Kind::Duration => {
            let nanos = number.as_i64().ok_or(ValueError::OutOfRange)?;
            return Ok(Some(Value::Duration(nanos)));
        }
        Node::Number(number) => number.to_string(),
        Node::Bool(value) => value.to_string(),
        Node::String(text) => text.clone(),
        // `log-outputs: [stderr, a.log]`; other lists are comma strings in etcd, and mean the same.
        Node::Array(items) if kind == Kind::Text => {
            let texts: Option<Vec<&str>> = items.iter().map(Node::as_str).collect();
            texts.ok_or(ValueError::NotScalar)?.join(",")
        }
        Node::Array(_) | Node::Object(_) => return Err(ValueError::NotScalar),
    };
    Value::parse(kind, &text).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The flags that `text` sets, as `name=value`, then the number of unknown keys.
    fn read(text: &str) -> Result<(Vec<String>, usize), ConfigError> {
        let settings = parse(&ConfigFile {
            path: "f",
            bytes: text.as_bytes(),
        })?;
        let given = settings
            .given
            .iter()
            .map(|(flag, value)| format!("{}={value}", flag.name))
            .collect();
        Ok((given, settings.notices.len()))
    }

    #[track_caller]
    fn check(text: &str, given: &[&str], unknown: usize) {
        let given = given.iter().map(ToString::to_string).collect();
        assert_eq!(read(text), Ok((given, unknown)), "{text}");
    }

    /// Goal: YAML and JSON, sections, lists, nanoseconds and empty values mean what they mean in etcd.
    #[test]
    fn accepted() {
        check("", &[], 0);
        check("# only a remark\n", &[], 0);
        check(
            "name: a\nheartbeat-interval: 50\n",
            &["heartbeat-interval=50", "name=a"],
            0,
        );
        check(
            r#"{"name": "a", "pre-vote": false}"#,
            &["name=a", "pre-vote=false"],
            0,
        );
        check(
            "grpc-keepalive-min-time: 5000000000",
            &["grpc-keepalive-min-time=5000000000ns"],
            0,
        );
        check(
            "grpc-keepalive-min-time: 5s",
            &["grpc-keepalive-min-time=5000000000ns"],
            0,
        );
        check(
            "log-outputs: [stderr, a.log]",
            &["log-outputs=stderr,a.log"],
            0,
        );
        check(
            "socket-options: {reuse-port: true}",
            &["socket-reuse-port=true"],
            0,
        );
        check(
            "peer-transport-security:\n  cert-file: c\n",
            &["peer-cert-file=c"],
            0,
        );
        check("wal-dir:\nname: null\n", &[], 0);
        check("nmae: a\nsocket-options: {x: 1}\nversion: true\n", &[], 3);
    }

    /// Goal: what is not a mapping of values is refused and never half-read.
    #[test]
    fn refused() {
        for text in [
            "- a",
            "name",
            "name: [",
            "{\"name\": ",
            "\u{0}",
            "name: a\nname: b\n",
        ] {
            assert!(
                matches!(read(text), Err(ConfigError::FileMalformed { .. })),
                "{text}"
            );
        }
        for text in [
            "name: {a: b}",
            "heartbeat-interval: fast",
            "heartbeat-interval: -1",
            "pre-vote: [true]",
        ] {
            assert!(
                matches!(read(text), Err(ConfigError::InvalidValue { .. })),
                "{text}"
            );
        }
        let path = "f".to_owned();
        let bytes = [0xff];
        let refused = parse(&ConfigFile {
            path: &path,
            bytes: &bytes,
        });
        assert!(matches!(refused, Err(ConfigError::FileMalformed { .. })));
    }

    /// Goal: a file that is built to exhaust memory or stack is refused, quickly.
    #[test]
    fn hostile() {
        let deep = "[".repeat(100_000);
        let deep_map = (0..2_000)
            .map(|depth| format!("{}a:\n", " ".repeat(depth)))
            .collect::<String>();
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..10 {
            let alias = format!("*a{}", level - 1);
            let aliases = vec![alias; 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        for text in [deep, deep_map, bomb] {
            let start = &text[..40];
            assert!(
                matches!(read(&text), Err(ConfigError::FileMalformed { .. })),
                "{start}"
            );
        }
    }
}
