//! Brings command line, environment and file together, by etcd's rules of precedence.

use std::collections::BTreeMap;

use super::error::ConfigError;
use super::flags::{self, FLAGS, Flag, Group, Support};
use super::value::Value;
use super::{ConfigFile, Notice, file, gates};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    CommandLine,
    Environment,
    File,
}

/// Every flag that was set, checked for its kind and for what this version can do.
#[derive(Debug, Default)]
pub(super) struct Settings {
    given: BTreeMap<&'static str, (Value, Source)>,
}

/// The path of the configuration file, from the flags of the command line or else the environment.
pub(super) fn config_file<'a>(
    line: &'a [(&'static Flag, Value)],
    environment: &'a [(String, String)],
) -> Option<&'a str> {
    let from_line = line
        .iter()
        .rev()
        .find(|(flag, _)| flag.name == "config-file");
    let path = match from_line {
        Some((_, Value::Text(path))) if !path.is_empty() => Some(path),
        _ => environment
            .iter()
            .find(|(name, _)| name == "ETCD_CONFIG_FILE")
            .map(|(_, path)| path),
    };
    path.map(String::as_str).filter(|path| !path.is_empty())
}

impl Settings {
    /// Merges the sources. With a file, it alone counts.
    pub(super) fn gather(
        line: Vec<(&'static Flag, Value)>,
        environment: &[(String, String)],
        config_file: Option<&ConfigFile<'_>>,
        notices: &mut Vec<Notice>,
    ) -> Result<Settings, ConfigError> {
        let mut settings = Settings::default();
        if let Some(config_file) = config_file {
            let from_file = file::parse(config_file)?;
            notices.push(Notice::info(
                "Loaded server configuration from a file; all other flags and environment variables are ignored",
                &[("path", config_file.path)],
            ));
            notices.extend(from_file.notices);
            for (flag, value) in from_file.given {
                settings.given.insert(flag.name, (value, Source::File));
            }
        } else {
            for (flag, value) in line {
                settings
                    .given
                    .insert(flag.name, (value, Source::CommandLine));
            }
            settings.take_environment(environment, notices)?;
        }
        settings.check_support(notices)?;
        Ok(settings)
    }

    /// Takes the non-empty variables of our two prefixes.
    fn take_environment(
        &mut self,
        environment: &[(String, String)],
        notices: &mut Vec<Notice>,
    ) -> Result<(), ConfigError> {
        for flag in FLAGS
            .iter()
            .filter(|flag| !matches!(flag.name, "config-file" | "version" | "help"))
        {
            let variable = flag.variable();
            let Some((_, text)) = environment
                .iter()
                .find(|(name, text)| *name == variable && !text.is_empty())
            else {
                continue;
            };
            if self.given.contains_key(flag.name) {
                return Err(ConfigError::Shadowed {
                    name: flag.name,
                    variable,
                });
            }
            let value =
                Value::parse(flag.kind, text).map_err(|reason| ConfigError::InvalidValue {
                    place: variable,
                    value: text.clone(),
                    reason,
                })?;
            self.given.insert(flag.name, (value, Source::Environment));
        }
        for (name, text) in environment {
            let ours = name.starts_with("ETCD_") || name.starts_with("KONTIKI_");
            let elsewhere = matches!(name.as_str(), "ETCD_CONFIG_FILE" | "ETCD_UNSUPPORTED_ARCH");
            if ours && !elsewhere && !text.is_empty() && !is_variable(name) {
                notices.push(Notice::warning(
                    "unrecognized environment variable",
                    &[("environment-variable", name)],
                ));
            }
        }
        Ok(())
    }

    /// Refuses features that are not built; notes what has no meaning.
    fn check_support(&self, notices: &mut Vec<Notice>) -> Result<(), ConfigError> {
        for flag in FLAGS {
            let Some((value, source)) = self.given.get(flag.name) else {
                continue;
            };
            match flag.support {
                Support::Works => {}
                Support::NoMeaning(why) => notices.push(Notice::warning(
                    "option is accepted and has no effect",
                    &[("option", &place(flag, *source)), ("reason", why)],
                )),
                Support::NotYet(remedy) => {
                    let harmless = match (flag.name, value) {
                        ("feature-gates", Value::Text(text)) => gates::leaves_defaults(text)?,
                        _ => *value == default_of(flag),
                    };
                    if !harmless {
                        let secret = flag.name.ends_with("password");
                        let value = if secret {
                            "(not shown)".to_owned()
                        } else {
                            value.to_string()
                        };
                        return Err(ConfigError::NotYet {
                            place: place(flag, *source),
                            value,
                            remedy,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether `name` was set, by whatever source.
    pub(super) fn is_set(&self, name: &'static str) -> bool {
        self.given.contains_key(name)
    }

    /// How to name the place where `name` was set, or would be.
    pub(super) fn place(&self, name: &'static str) -> String {
        let source = self
            .given
            .get(name)
            .map_or(Source::CommandLine, |(_, source)| *source);
        place(row(name), source)
    }

    /// The value of a text flag.
    pub(super) fn text(&self, name: &'static str) -> String {
        match self.value(name) {
            Value::Text(text) => text,
            other => panic!("--{name} is not a text flag but has the value {other}"),
        }
    }

    /// The value of a boolean flag.
    pub(super) fn bool(&self, name: &'static str) -> bool {
        match self.value(name) {
            Value::Bool(value) => value,
            other => panic!("--{name} is not a boolean flag but has the value {other}"),
        }
    }

    /// The value of a signed flag.
    pub(super) fn int(&self, name: &'static str) -> i64 {
        match self.value(name) {
            Value::Int(value) => value,
            other => panic!("--{name} is not a signed flag but has the value {other}"),
        }
    }

    /// The value of an unsigned flag.
    pub(super) fn uint(&self, name: &'static str) -> u64 {
        match self.value(name) {
            Value::Uint(value) => value,
            other => panic!("--{name} is not an unsigned flag but has the value {other}"),
        }
    }

    /// The value of a duration flag, in nanoseconds.
    pub(super) fn nanos(&self, name: &'static str) -> i64 {
        match self.value(name) {
            Value::Duration(nanos) => nanos,
            other => panic!("--{name} is not a duration flag but has the value {other}"),
        }
    }

    fn value(&self, name: &'static str) -> Value {
        match self.given.get(name) {
            Some((value, _)) => value.clone(),
            None => default_of(row(name)),
        }
    }
}

fn row(name: &'static str) -> &'static Flag {
    flags::find(name).unwrap_or_else(|| panic!("--{name} is read but is not in the table of flags"))
}

fn default_of(flag: &Flag) -> Value {
    Value::parse(flag.kind, flag.default).expect("a test keeps every default of its flag's kind")
}

fn place(flag: &Flag, source: Source) -> String {
    match (source, flag.file_key()) {
        (Source::CommandLine, _) => format!("--{}", flag.name),
        (Source::Environment, _) => flag.variable(),
        (Source::File, (Some(section), key)) => format!("{section}.{key}"),
        (Source::File, (None, key)) => key.to_owned(),
    }
}

/// Whether `name` is the variable of a flag, or of a name that is ignored.
fn is_variable(name: &str) -> bool {
    let etcd_style = |flag: &str| flag.to_ascii_uppercase().replace('-', "_");
    FLAGS.iter().any(|flag| {
        let prefix = if flag.group == Group::Kontiki {
            "KONTIKI_"
        } else {
            "ETCD_"
        };
        name.strip_prefix(prefix) == Some(etcd_style(flag.name).as_str())
            // etcd unsets it with a warning: it is common in scripts, and no flag.
            && flag.name != "version"
    }) || flags::IGNORED
        .iter()
        .any(|flag| name.strip_prefix("ETCD_") == Some(etcd_style(flag).as_str()))
}
