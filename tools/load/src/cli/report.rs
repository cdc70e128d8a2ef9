//! `kontiki-load report`: reads kept results and renders them again, without measuring anything.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::Failure;
use crate::report::{Report, csv, goals, hlog, runs};
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
    /// Writes everything that is worth keeping into a directory: result.json, raw.csv, summary.txt,
    /// report.html.
    #[arg(long, value_name = "DIRECTORY")]
    pub out: Option<PathBuf>,
    /// Writes the results as JSON, to be read again by `kontiki-load report`.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes one self-contained HTML page.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
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
    /// Prints the table of these runs and writes the wanted files.
    pub fn deliver(&self, runs: Vec<RunResult>) -> Result<(), Failure> {
        self.deliver_report(&runs::report(&runs), &runs)
    }

    /// The same for a report of another kind, with the runs that it is made of.
    pub fn deliver_report(&self, report: &Report, runs: &[RunResult]) -> Result<(), Failure> {
        let text = report.to_text();
        print_and(io::stdout(), &text, || self.write(report, &text, runs))
    }

    fn write(&self, report: &Report, text: &str, runs: &[RunResult]) -> Result<(), Failure> {
        let kept = |name: &str| self.out.as_ref().map(|directory| directory.join(name));
        let both = |file: &Option<PathBuf>, name| file.clone().into_iter().chain(kept(name));
        make_directory(self.out.as_deref())?;
        if let Some(path) = kept("summary.txt") {
            write_whole(&path, text.as_bytes())?;
        }
        for path in both(&self.json, "result.json") {
            let mut file = ResultFile::new(runs.to_vec());
            file.figures = goals::figures(runs);
            file.write(&path)?;
        }
        for path in both(&self.csv, "raw.csv") {
            write_whole(&path, csv::operations(runs).as_bytes())?;
        }
        if let Some(path) = &self.csv_intervals {
            write_whole(path, csv::intervals(runs).as_bytes())?;
        }
        if let Some(path) = &self.hlog {
            for (index, run) in runs.iter().enumerate() {
                write_whole(&numbered(path, index), &hlog::log(run)?)?;
            }
        }
        for path in both(&self.html, "report.html") {
            report.write_html(&path)?;
        }
        Ok(())
    }
}

/// Prints a text and writes what is kept, whatever becomes of the printing: whoever has read enough of it (`| head`) must
/// not cost the files, and is no failure.
fn print_and(
    mut to: impl Write,
    text: &str,
    write: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let printed = to.write_all(text.as_bytes()).and_then(|()| to.flush());
    write()?;
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Makes the directory that `--out` names, if there is none.
pub(super) fn make_directory(out: Option<&Path>) -> Result<(), Failure> {
    let Some(directory) = out else {
        return Ok(());
    };
    let made = std::fs::create_dir_all(directory);
    made.map_err(|error| format!("{}: {error}", directory.display()).into())
}

/// Prints a report and writes files, each to the place that was named for it, else under its own name into the
/// directory, else nowhere; the report is one of them, as summary.txt.
pub(super) fn deliver<const N: usize>(
    report: &Report,
    out: Option<&Path>,
    files: [(&Option<PathBuf>, &str, String); N],
) -> Result<(), Failure> {
    deliver_to(io::stdout(), report, out, files)
}

fn deliver_to<const N: usize>(
    to: impl Write,
    report: &Report,
    out: Option<&Path>,
    files: [(&Option<PathBuf>, &str, String); N],
) -> Result<(), Failure> {
    let text = report.to_text();
    let summary = (&None, "summary.txt", text.clone());
    print_and(to, &text, || {
        for (named, name, content) in files.into_iter().chain([summary]) {
            let kept = || out.map(|directory| directory.join(name));
            if let Some(path) = named.clone().or_else(kept) {
                write_whole(&path, content.as_bytes())?;
            }
        }
        Ok(())
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: logs of several runs stand beside each other.
    #[test]
    fn numbered_names() {
        let check = |path: &str, index: usize, expected: &str| {
            assert_eq!(numbered(Path::new(path), index), Path::new(expected));
        };
        check("d/a.hlog", 0, "d/a.hlog");
        check("d/a.hlog", 1, "d/a-2.hlog");
        check("a", 9, "a-10");
    }

    // Goal: a directory of kept results holds what can be read back, and nothing is left half written.
    #[test]
    fn kept_results() {
        let directory = tempfile::tempdir().expect("a directory");
        let out = directory.path().join("new/one");
        let outputs = Outputs {
            out: Some(out.clone()),
            html: Some(directory.path().join("page.html")),
            ..Outputs::default()
        };
        outputs.deliver(Vec::new()).expect("written");
        let read = ResultFile::read(&out.join("result.json")).expect("read");
        assert_eq!(read, ResultFile::new(Vec::new()));
        let mut names: Vec<_> = std::fs::read_dir(&out)
            .expect("listed")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        assert_eq!(
            names,
            ["raw.csv", "report.html", "result.json", "summary.txt"]
        );
        let page = std::fs::read_to_string(directory.path().join("page.html"));
        assert!(page.expect("written").starts_with("<!DOCTYPE html>"));
    }

    // Goal: the files are written also where nobody reads what is printed, which is no failure, or where it cannot be
    // printed, which is one.
    #[test]
    fn kept_though_not_printed() {
        let directory = tempfile::tempdir().expect("a directory");
        let json = directory.path().join("named.json");
        let deliver = |to: &mut dyn Write| {
            let files = [(&Some(json.clone()), "raw.json", "{}".to_owned())];
            let delivered = deliver_to(to, &runs::report(&[]), Some(directory.path()), files);
            for path in [&json, &directory.path().join("summary.txt")] {
                std::fs::remove_file(path).expect("written");
            }
            delivered
        };
        deliver(&mut io::sink()).expect("printed");
        let (reader, mut writer) = io::pipe().expect("a pipe");
        drop(reader);
        deliver(&mut writer).expect("no failure");
        let mut full = std::fs::File::options();
        let mut full = full.write(true).open("/dev/full").expect("every Linux");
        deliver(&mut full).expect_err("no space");
    }
}
