//! `kontiki-load check`.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::Failure;
use crate::history::{Checker, Close, RecordReader, Report};

/// Command line of `kontiki-load check`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// Records of one run, judged together. One of them holds the state before the run.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Print every entry, in the order of the files, instead of judging them.
    #[arg(long)]
    print: bool,
}

/// Judges the records; exit code 1 when a rule is broken.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut checker = Checker::new();
    for path in &arguments.files {
        let close = read(path, &mut checker, arguments.print)
            .map_err(|failure| format!("{}: {failure}", path.display()))?;
        if close == Close::Open {
            eprintln!(
                "kontiki-load: {} has no end: its writer was killed, and what it did not write is excused",
                path.display()
            );
        }
    }
    if arguments.print {
        return Ok(ExitCode::SUCCESS);
    }
    let report = checker.check()?;
    show(&report);
    Ok(if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn read(path: &Path, checker: &mut Checker, print: bool) -> Result<Close, Failure> {
    let mut record = RecordReader::new(BufReader::new(File::open(path)?))?;
    if !print {
        return Ok(record.give_to(checker)?);
    }
    while let Some(entry) = record.read()? {
        println!("{entry:?}");
    }
    Ok(record.close().unwrap_or(Close::Open))
}

fn show(report: &Report) {
    for violation in &report.violations {
        println!("{violation}");
    }
    let shown = report.violations.len() as u64;
    if report.violation_count > shown {
        println!("... and {} more", report.violation_count - shown);
    }
    println!("operations           {}", report.operations);
    println!("acknowledged writes  {}", report.writes);
    println!(
        "unanswered writes    {}, {} of them found in the history",
        report.unknown_writes, report.unknown_settled
    );
    println!("watch notices        {}", report.watch_notices);
    println!("watch events judged  {}", report.watch_events);
    println!("newest revision      {}", report.revision);
    println!("unsettled revisions  {}", report.revisions_unsettled);
    println!("not judged           {}", report.unjudged);
    println!("violations           {}", report.violation_count);
}
