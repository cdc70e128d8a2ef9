//! `--help` and `--version`, from the table of flags.

use std::fmt::Write as _;

use super::flags::{FLAGS, Group, Support};

/// The version of etcd's API that members claim, in `--version`, Status and `/version` alike.
pub const ETCD_VERSION: &str = "3.7.1";
/// Our own version.
pub const KONTIKI_VERSION: &str = env!("CARGO_PKG_VERSION");

/// What `--version` prints. Tools read the line with etcd's name.
#[must_use]
pub fn version() -> String {
    format!(
        "kontiki {KONTIKI_VERSION}\netcd Version: {ETCD_VERSION}\nRust Version: {}\nOS/Arch: {}/{}\n",
        env!("CARGO_PKG_RUST_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
    )
}

/// What `--help` prints.
#[must_use]
pub fn usage() -> String {
    let mut text = String::from(
        "Usage:\n  kontiki [flags]\n    Run a member.\n\n  \
         kontiki local-cluster [flags]\n    Run a cluster on this machine; `kontiki local-cluster --help` says more.\n\n  \
         kontiki read-mode [index|lease]\n    On what linearizable reads rest; `kontiki read-mode --help` says more.\n\n  \
         kontiki recover --accept-cut [flags]\n    Give up what a damaged log has lost, when nobody can restore \
         it, so that the member\n    starts again. It says what is lost.\n\n\
         Every flag has an environment variable: ETCD_ (KONTIKI_ for our own) and its name in capitals,\n\
         with _ for -. A flag and its variable must not both be set.\n",
    );
    let mut group = None;
    for flag in FLAGS.iter().filter(|flag| flag.support == Support::Works) {
        if group != Some(flag.group) {
            group = Some(flag.group);
            let _ = write!(text, "\n{}:\n", flag.group.title());
        }
        let _ = write!(
            text,
            "  --{} '{}'\n    {}\n",
            flag.name, flag.default, flag.help
        );
    }
    text.push_str("\nNot built yet (accepted only with these values):\n");
    for flag in FLAGS {
        if let Support::NotYet(_) = flag.support {
            let _ = writeln!(text, "  --{} '{}'", flag.name, flag.default);
        }
    }
    text.push_str("\nAccepted without effect:\n");
    for flag in FLAGS {
        if matches!(flag.support, Support::NoMeaning(_)) && flag.group != Group::Older {
            let _ = writeln!(text, "  --{} '{}'", flag.name, flag.default);
        }
    }
    text.push_str("  --experimental-* names of etcd 3.5 and 3.6\n");
    text
}

/// The table of all flags for `docs/configuration.md`; a test keeps the page current.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from("| flag | default | state | meaning |\n|---|---|---|---|\n");
    for flag in FLAGS.iter().filter(|flag| flag.group != Group::Older) {
        let state = match flag.support {
            Support::Works => "works",
            Support::NoMeaning(_) => "no effect",
            Support::NotYet(_) => "not yet",
        };
        let default = if flag.default.is_empty() {
            "\"\""
        } else {
            flag.default
        };
        let help = flag.help.replace('|', "\\|").replace('<', "&lt;");
        let _ = writeln!(text, "| `{}` | `{default}` | {state} | {help} |", flag.name);
    }
    text
}
