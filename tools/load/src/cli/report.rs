//! `kontiki-load report`: reads kept results and renders them again, without measuring anything.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::Failure;
use crate::report::{csv, hlog, runs};
use crate::result::{ResultFile, RunResult, write_whole};

/// Command line of `kontiki-load report`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// Results, as `--json` of other subcommands writes them; shown side by side.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Adds the runs of all files up as if they had been one, instead of showing each.
    #[arg(long)]
    merge: bool,
    #[command(flatten)]
    outputs: Outputs,
}

/// Where results go, beside the table on stdout.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Outputs {
    /// Writes the results as JSON, to be read again by `kontiki-load report`.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes one self-contained HTML page.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Writes the table into a file as well.
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// Writes one CSV row for each operation of each run.
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Writes one CSV row for each second of each operation.
    #[arg(long, value_name = "FILE")]
    pub csv_intervals: Option<PathBuf>,
    /// Writes an HdrHistogram interval log; the second and later runs get -2, -3, ... in the name.
    #[arg(long, value_name = "FILE")]
    pub hlog: Option<PathBuf>,
}

impl Outputs {
    /// Writes the wanted files and prints the table.
    pub fn deliver(&self, runs: Vec<RunResult>) -> Result<(), Failure> {
        let report = runs::report(&runs);
        print!("{}", report.to_text());
        if let Some(path) = &self.text {
            write_whole(path, report.to_text().as_bytes())?;
        }
        if let Some(path) = &self.html {
            report.write_html(path)?;
        }
        if let Some(path) = &self.csv {
            write_whole(path, csv::operations(&runs).as_bytes())?;
        }
        if let Some(path) = &self.csv_intervals {
            write_whole(path, csv::intervals(&runs).as_bytes())?;
        }
        if let Some(path) = &self.hlog {
            for (index, run) in runs.iter().enumerate() {
                write_whole(&numbered(path, index), &hlog::log(run)?)?;
            }
        }
        if let Some(path) = &self.json {
            ResultFile::new(runs).write(path)?;
        }
        Ok(())
    }
}

/// Runs it. Exit code 0 also for partial results: they are what the files hold.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut runs = Vec::new();
    for file in &arguments.files {
        runs.extend(ResultFile::read(file)?.runs);
    }
    if runs.is_empty() {
        return Err("the files hold no run".into());
    }
    if arguments.merge {
        let mut all = runs.remove(0);
        for run in &runs {
            all.append(run);
        }
        runs = vec![all];
    }
    arguments.outputs.deliver(runs)?;
    Ok(ExitCode::SUCCESS)
}

/// `a.hlog`, `a-2.hlog`, `a-3.hlog`.
fn numbered(path: &Path, index: usize) -> PathBuf {
    if index == 0 {
        return path.to_owned();
    }
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{}", index + 1));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}
