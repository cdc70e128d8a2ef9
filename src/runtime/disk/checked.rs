//! Small files of text that prove what they say: a JSON object on one line, and the CRC-32C of that line on
//! the next. They are read whole and replaced whole. Knows nothing of what they mean.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::base::checksum::crc32c;

/// Why the text is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckedError {
    /// It does not say what it should, or its checksum is wrong.
    Damaged(&'static str),
    /// A newer build wrote it, in this format.
    Newer(u32),
}

/// Read on its own first, so that a newer file is told from a damaged one.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// The two lines.
pub(super) fn render(line: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_string(line).expect("text and numbers always encode");
    let checksum = crc32c(text.as_bytes());
    text.push_str(&format!("\n{checksum:08x}\n"));
    text.into_bytes()
}

/// What the two lines say, if their format, which the object names, is not newer than `newest`.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8], newest: u32) -> Result<T, CheckedError> {
    let damaged = CheckedError::Damaged;
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
    let (line, checksum) = text
        .strip_suffix('\n')
        .and_then(|text| text.split_once('\n'))
        .ok_or_else(|| damaged("it does not have two lines"))?;
    if checksum != format!("{:08x}", crc32c(line.as_bytes())) {
        return Err(damaged("the checksum does not match"));
    }
    let FormatOnly { format } =
        serde_json::from_str(line).map_err(|_| damaged("it has no format version"))?;
    if format > newest {
        return Err(CheckedError::Newer(format));
    }
    serde_json::from_str(line).map_err(|_| damaged("a field is missing"))
}
