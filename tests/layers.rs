//! Keeps the picture in `src/lib.rs` true: arrows only point down, and the lower half does no I/O.
//!
//! Reads the sources as text. Comments, text in quotes and test modules do not count.

use std::fs;
use std::path::{Path, PathBuf};

/// A layer, and the layers it may name.
const LAYERS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("frame", &["base"]),
    ("keyspace", &["frame", "base"]),
    ("wal", &["frame", "base"]),
    ("raft", &["frame", "base"]),
    ("checkpoint", &["keyspace", "frame", "base"]),
    (
        "shard",
        &["raft", "wal", "checkpoint", "keyspace", "frame", "base"],
    ),
    (
        "runtime",
        &[
            "shard",
            "raft",
            "wal",
            "checkpoint",
            "keyspace",
            "frame",
            "base",
        ],
    ),
    (
        "sim",
        &[
            "shard",
            "raft",
            "wal",
            "checkpoint",
            "keyspace",
            "frame",
            "base",
        ],
    ),
    (
        "rpc",
        &[
            "runtime",
            "shard",
            "raft",
            "wal",
            "checkpoint",
            "keyspace",
            "frame",
            "base",
        ],
    ),
    (
        "transport",
        &[
            "runtime",
            "shard",
            "raft",
            "wal",
            "checkpoint",
            "keyspace",
            "frame",
            "base",
        ],
    ),
    (
        "config",
        &[
            "runtime",
            "shard",
            "raft",
            "wal",
            "checkpoint",
            "keyspace",
            "frame",
            "base",
        ],
    ),
    ("logging", &["config", "base"]),
    ("read_mode", &["config", "rpc", "raft", "base"]),
    (
        "local_cluster",
        &[
            "config",
            "runtime",
            "shard",
            "raft",
            "wal",
            "checkpoint",
            "keyspace",
            "frame",
            "base",
        ],
    ),
    (
        "server",
        &[
            "logging",
            "config",
            "rpc",
            "transport",
            "runtime",
            "shard",
            "raft",
            "wal",
            "checkpoint",
            "keyspace",
            "frame",
            "base",
        ],
    ),
];

/// Layers that are functions of their arguments.
const PURE: &[&str] = &[
    "base",
    "frame",
    "keyspace",
    "wal",
    "checkpoint",
    "raft",
    "shard",
    "sim",
];

/// What the pure layers never say, and why.
const BANNED_BELOW: &[(&str, &str)] = &[
    ("std::time::Instant", "time is an argument"),
    ("SystemTime", "time is an argument"),
    ("std::fs", "no files"),
    ("std::net", "no sockets"),
    ("std::thread", "no threads"),
    ("std::sync::Mutex", "nothing is shared"),
    ("std::sync::RwLock", "nothing is shared"),
    ("std::env", "no environment"),
    ("std::process", "no processes"),
    ("async fn", "no async"),
    ("async move", "no async"),
    (".await", "no async"),
    ("RandomState", "a random seed makes two runs differ"),
    ("HashMap::new(", "a random seed makes two runs differ"),
    ("HashSet::new(", "a random seed makes two runs differ"),
    ("fastrand::", "randomness comes from base::prng, seeded"),
    ("tracing::", "the runtime logs"),
    ("println!", "the runtime logs"),
];

/// Crates that one layer alone may name.
const OWNED_CRATES: &[(&str, &[&str])] = &[
    ("runtime", &["glommio::"]),
    ("rpc", &["h2::", "hyper::", "prost::"]),
];

/// What `source`, a file of `layer`, does that it must not.
fn violations(layer: &str, source: &str) -> Vec<String> {
    let code = code_only(source);
    let mut found = Vec::new();
    let allowed = LAYERS
        .iter()
        .find(|(name, _)| *name == layer)
        .map(|(_, allowed)| *allowed);
    for named in named_layers(&code) {
        // `main` is not a layer of the library and names what it likes.
        if let Some(allowed) = allowed
            && named != layer
            && LAYERS.iter().any(|(name, _)| *name == named)
            && !allowed.contains(&named.as_str())
        {
            found.push(format!("{layer} must not name crate::{named}"));
        }
    }
    if PURE.contains(&layer) {
        for (text, why) in BANNED_BELOW {
            // The seeded generator is the one place that wraps the crate.
            let exempt = layer == "base" && *text == "fastrand::";
            if code.contains(text) && !exempt {
                found.push(format!("{layer} must not say `{text}`: {why}"));
            }
        }
    }
    for (owner, crates) in OWNED_CRATES {
        for name in crates
            .iter()
            .filter(|name| layer != *owner && names_crate(&code, name))
        {
            found.push(format!("only {owner} may name `{name}`, not {layer}"));
        }
    }
    found
}

/// The modules after every `crate::`, those of a `use crate::{a::..., b}` group included.
fn named_layers(code: &str) -> Vec<String> {
    let mut named = Vec::new();
    for (start, prefix) in code.match_indices("crate::") {
        let rest = code[start + prefix.len()..].trim_start();
        match rest.strip_prefix('{') {
            None => named.push(identifier(rest)),
            Some(group) => {
                let mut depth = 0;
                let mut item_starts = true;
                for (position, letter) in group.char_indices() {
                    match letter {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => item_starts = true,
                        letter if item_starts && !letter.is_whitespace() => {
                            named.push(identifier(&group[position..]));
                            item_starts = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    named
}

fn identifier(text: &str) -> String {
    text.chars()
        .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
        .collect()
}

/// Whether `name` (such as `h2::`) stands in `code` as a crate and not as the end of another path.
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(start, _)| {
        let before = code[..start].chars().next_back();
        !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')
            && (!code[..start].ends_with("::") || code[..start].ends_with("(::"))
    })
}

/// `source` without comments, without the inside of string literals, and without its test module.
fn code_only(source: &str) -> String {
    let source = source.split("#[cfg(test)]\nmod ").next().unwrap_or(source);
    let mut code = String::with_capacity(source.len());
    let mut letters = source.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '/' if letters.peek() == Some(&'/') => {
                for skipped in letters.by_ref() {
                    if skipped == '\n' {
                        break;
                    }
                }
                code.push('\n');
            }
            '"' => {
                code.push('"');
                while let Some(inside) = letters.next() {
                    match inside {
                        '\\' => {
                            letters.next();
                        }
                        '"' => break,
                        _ => {}
                    }
                }
                code.push('"');
            }
            // A quote as a character: '"' and '\"' would open a string otherwise.
            '\'' => {
                code.push('\'');
                let mut ahead = letters.clone();
                let first = ahead.next();
                let second = ahead.next();
                if first == Some('"') && second == Some('\'') {
                    letters.nth(1);
                } else if first == Some('\\') && second == Some('"') {
                    letters.nth(2);
                }
            }
            letter => code.push(letter),
        }
    }
    code
}

/// Every Rust file below `directory`.
fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("the sources are there") {
        let path = entry.expect("the sources are readable").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Goal: no file of the library names a layer, a crate or a facility that its layer must not know.
#[test]
fn arrows_point_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for path in rust_files(&root) {
        let inside = path.strip_prefix(&root).expect("below src");
        let first = inside
            .components()
            .next()
            .expect("a file has a name")
            .as_os_str()
            .to_string_lossy();
        let layer = first.trim_end_matches(".rs");
        // A module's tests in a file of their own are no product code.
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        let known =
            LAYERS.iter().any(|(name, _)| *name == layer) || matches!(layer, "lib" | "main");
        assert!(
            known,
            "src/{layer} is no layer of the picture in src/lib.rs"
        );
        let source = fs::read_to_string(&path).expect("sources are text");
        found.extend(
            violations(layer, &source)
                .iter()
                .map(|text| format!("{}: {text}", inside.display())),
        );
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[track_caller]
fn check(layer: &str, source: &str, expected: &[&str]) {
    assert_eq!(violations(layer, source), expected, "{source}");
}

/// Goal: the checker sees each kind of violation, in each way to write it.
#[test]
fn violations_are_seen() {
    check(
        "raft",
        "use crate::keyspace::X;",
        &["raft must not name crate::keyspace"],
    );
    check(
        "wal",
        "use crate::{base::{Index, Term}, raft::Log};",
        &["wal must not name crate::raft"],
    );
    check(
        "keyspace",
        "fn f(x: crate::shard::Event) {}",
        &["keyspace must not name crate::shard"],
    );
    check(
        "rpc",
        "use crate::config::Config;",
        &["rpc must not name crate::config"],
    );
    check(
        "shard",
        "let x = f().await;",
        &["shard must not say `.await`: no async"],
    );
    check(
        "wal",
        "let c = '\"'; use std::fs;",
        &["wal must not say `std::fs`: no files"],
    );
    check(
        "server",
        "use glommio::Task;",
        &["only runtime may name `glommio::`, not server"],
    );
    check(
        "runtime",
        "use h2::server;",
        &["only rpc may name `h2::`, not runtime"],
    );
}

/// Goal: what is allowed, and what only looks forbidden, passes.
#[test]
fn the_rest_passes() {
    check(
        "shard",
        "use crate::{base::Term, keyspace, raft::Raft, wal};",
        &[],
    );
    check(
        "wal",
        "//! Like std::fs, but pure.\n// crate::raft\nlet text = \"crate::raft \\\" std::fs\";",
        &[],
    );
    check("base", "Prng(fastrand::Rng::with_seed(seed))", &[]);
    check(
        "raft",
        "fn f() {}\n#[cfg(test)]\nmod tests { use std::thread; }",
        &[],
    );
    check("server", "use crate::{config, rpc, runtime::Core};", &[]);
    check(
        "runtime",
        "use glommio::Task; use crate::shard::event::Event;",
        &[],
    );
    check("config", "fn launch2::x() {}", &[]);
}
