//! The stories in `tests/raft/*.txt`: what follows each command is what the members say to it.
//!
//! `REWRITE=1 cargo test --test raft transcripts` writes them anew; a person reads the difference.

use std::fs;
use std::path::{Path, PathBuf};

use crate::story::Story;

/// Everything but the answers, and the answers anew.
fn retell(text: &str) -> String {
    let mut story = Story::new();
    let mut told = String::new();
    for line in text.lines() {
        if line.starts_with("  ") {
            continue;
        }
        told += line;
        told.push('\n');
        if let Some(command) = line.strip_prefix("> ") {
            told += &story.tell(command);
        }
    }
    told
}

fn check(path: &Path) {
    let text = fs::read_to_string(path).expect("a story is text");
    let told = retell(&text);
    if std::env::var_os("REWRITE").is_some() {
        fs::write(path, told).expect("the story can be written");
        return;
    }
    for (number, (expected, actual)) in text.lines().zip(told.lines()).enumerate() {
        assert_eq!(expected, actual, "{}:{}", path.display(), number + 1);
    }
    assert_eq!(
        text.lines().count(),
        told.lines().count(),
        "{}",
        path.display()
    );
}

/// Goal: every story goes as it is written.
#[test]
fn stories() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/raft");
    let files = fs::read_dir(directory).expect("the stories are there");
    let mut stories: Vec<PathBuf> = files.map(|file| file.expect("readable").path()).collect();
    stories.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    stories.sort();
    assert!(stories.len() >= 10, "some stories are missing");
    for story in stories {
        println!("{}", story.display());
        check(&story);
    }
}
