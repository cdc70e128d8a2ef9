//! `--feature-gates`: which of etcd's gates may be named, and with which value.
//!
//! No gate can be switched yet, so a line that says what is so anyway is accepted, and any other is not.

use super::error::ConfigError;

/// A gate of etcd's.
struct Gate {
    name: &'static str,
    /// etcd's default, and what holds here.
    default: bool,
    /// Whether either value is right, because the gate only tunes etcd's own insides.
    indifferent: bool,
}

const fn gate(name: &'static str, default: bool) -> Gate {
    Gate {
        name,
        default,
        indifferent: false,
    }
}

const GATES: &[Gate] = &[
    gate("StopGRPCServiceOnDefrag", false),
    gate("InitialCorruptCheck", false),
    gate("CompactHashCheck", false),
    gate("LeaseCheckpoint", false),
    gate("LeaseCheckpointPersist", false),
    Gate {
        name: "TxnModeWriteWithSharedBuffer",
        default: true,
        indifferent: true,
    },
    gate("SetMemberLocalAddr", false),
    gate("FastLeaseKeepAlive", true),
    gate("PriorityRequest", false),
    gate("AllAlpha", false),
    // True would switch on what is on already.
    Gate {
        name: "AllBeta",
        default: false,
        indifferent: true,
    },
];

/// Whether `text` leaves every gate as it is. An error when it is malformed or names an unknown gate.
pub(super) fn leaves_defaults(text: &str) -> Result<bool, ConfigError> {
    let mut defaults = true;
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let malformed = || ConfigError::FeatureGate {
            text: part.to_owned(),
        };
        let (name, value) = part.split_once('=').ok_or_else(malformed)?;
        let value = match value.trim() {
            "true" | "True" | "TRUE" | "1" | "t" | "T" => true,
            "false" | "False" | "FALSE" | "0" | "f" | "F" => false,
            _ => return Err(malformed()),
        };
        let gate = GATES
            .iter()
            .find(|gate| gate.name == name.trim())
            .ok_or_else(malformed)?;
        defaults &= gate.indifferent || gate.default == value;
    }
    Ok(defaults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<bool>) {
        assert_eq!(leaves_defaults(text).ok(), expected, "{text}");
    }

    /// Goal: naming defaults is fine, changing one is seen, nonsense is an error.
    #[test]
    fn gates() {
        check("", Some(true));
        check(
            "InitialCorruptCheck=false, FastLeaseKeepAlive=true",
            Some(true),
        );
        check(
            "TxnModeWriteWithSharedBuffer=false,AllBeta=true",
            Some(true),
        );
        check("InitialCorruptCheck=true", Some(false));
        check("AllAlpha=true", Some(false));
        check("InitialCorruptCheck", None);
        check("InitialCorruptCheck=perhaps", None);
        check("NoSuchGate=true", None);
    }
}
