//! Log lines as etcd writes them: one JSON object with level, ts, caller and msg, or columns for people.
//!
//! Owns the process-wide subscriber and the one thread that writes lines. A core only formats its line and
//! hands it over; when the thread cannot keep up, lines are dropped and counted, and no core ever waits.
//! Must not be used for every request: formatting allocates.

use std::fmt::{self, Write as _};
use std::fs::OpenOptions;
use std::io::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

use crate::base::limits::{LOG_LINES_QUEUED_MAX, LOG_VALUE_BYTES_MAX};
use crate::config::{LogFormat, LogLevel, LogOutput, LogSettings, Notice};

/// Why lines cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// A file of `--log-outputs` cannot be opened.
    #[error("--log-outputs: cannot open {path}: {source}")]
    Open {
        /// The file.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The process has a subscriber already.
    #[error("logging was started twice")]
    Twice,
}

/// Keeps the writing thread; lines that wait are written when this is dropped.
#[must_use = "dropping it ends the writing of log lines"]
pub struct Logging {
    _thread: WorkerGuard,
    lost: ErrorCounter,
}

impl Logging {
    /// Lines dropped because the writing thread was behind.
    #[must_use]
    pub fn lost_lines(&self) -> usize {
        self.lost.dropped_lines()
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let lost = self.lost_lines();
        if lost > 0 {
            // Not through the queue: it was full. Nobody is left to tell if this fails too.
            let _ = writeln!(
                io::stderr(),
                "kontiki: {lost} log lines were dropped, the outputs were too slow"
            );
        }
    }
}

/// Starts logging for the whole process.
pub fn start(settings: &LogSettings) -> Result<Logging, LoggingError> {
    let (layer, logging) = layer(settings, Outputs::open(&settings.outputs)?);
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LoggingError::Twice)?;
    Ok(logging)
}

/// Logs what the configuration found worth saying.
pub fn log_notices(notices: &[Notice]) {
    for notice in notices {
        let fields = Fields(&notice.fields);
        match notice.level {
            LogLevel::Debug => tracing::debug!(%fields, "{}", notice.message),
            LogLevel::Info => tracing::info!(%fields, "{}", notice.message),
            LogLevel::Warn => tracing::warn!(%fields, "{}", notice.message),
            LogLevel::Error => tracing::error!(%fields, "{}", notice.message),
        }
    }
}

/// `name=value` pairs in one field, for names that are only known when the program runs.
struct Fields<'a>(&'a [(&'static str, String)]);

impl fmt::Display for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (name, value)) in self.0.iter().enumerate() {
            let blank = if position == 0 { "" } else { " " };
            write!(f, "{blank}{name}={value}")?;
        }
        Ok(())
    }
}

fn layer(settings: &LogSettings, outputs: impl Write + Send + 'static) -> (LineLayer, Logging) {
    let (writer, thread) = NonBlockingBuilder::default()
        .buffered_lines_limit(LOG_LINES_QUEUED_MAX)
        .lossy(true)
        .thread_name("log")
        .finish(outputs);
    let lost = writer.error_counter();
    let level = match settings.level {
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Info => Level::INFO,
        LogLevel::Warn => Level::WARN,
        LogLevel::Error => Level::ERROR,
    };
    (
        LineLayer {
            level,
            format: settings.format,
            writer,
        },
        Logging {
            _thread: thread,
            lost,
        },
    )
}

/// Where the writing thread puts every line.
struct Outputs(Vec<Box<dyn Write + Send>>);

impl Outputs {
    fn open(outputs: &[LogOutput]) -> Result<Outputs, LoggingError> {
        let open = |output: &LogOutput| -> Result<Box<dyn Write + Send>, LoggingError> {
            Ok(match output {
                LogOutput::Stderr => Box::new(io::stderr()),
                LogOutput::Stdout => Box::new(io::stdout()),
                LogOutput::File(path) => {
                    let file = OpenOptions::new().create(true).append(true).open(path);
                    Box::new(file.map_err(|source| LoggingError::Open {
                        path: path.display().to_string(),
                        source,
                    })?)
                }
            })
        };
        outputs
            .iter()
            .map(open)
            .collect::<Result<_, _>>()
            .map(Outputs)
    }
}

impl Write for Outputs {
    /// Takes the whole line; an output that fails does not keep it from the others.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut result = Ok(line.len());
        for output in &mut self.0 {
            if let Err(error) = output.write_all(line) {
                result = Err(error);
            }
        }
        result
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.iter_mut().try_for_each(Write::flush)
    }
}

/// Turns events into lines.
struct LineLayer {
    level: Level,
    format: LogFormat,
    writer: NonBlocking,
}

impl<S: Subscriber> Layer<S> for LineLayer {
    /// Libraries narrate every frame below a warning; that is never an operator's log.
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let ours = metadata.target().starts_with(env!("CARGO_PKG_NAME"));
        *metadata.level() <= self.level && (ours || *metadata.level() <= Level::WARN)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.level))
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let line = line(event, self.format, jiff::Timestamp::now());
        // A full queue counts the line as lost; the writer itself never fails.
        let _ = self.writer.clone().write_all(line.as_bytes());
    }
}

/// The line for `event`, with its end of line.
fn line(event: &Event<'_>, format: LogFormat, now: jiff::Timestamp) -> String {
    let metadata = event.metadata();
    let level = match *metadata.level() {
        Level::TRACE | Level::DEBUG => "debug",
        Level::INFO => "info",
        Level::WARN => "warn",
        Level::ERROR => "error",
    };
    let time = now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ");
    let caller = Caller(metadata);
    let mut values = Values::default();
    event.record(&mut values);
    let Values { message, fields } = values;
    match format {
        LogFormat::Json => {
            let message = quoted(&message);
            let comma = if fields.is_empty() { "" } else { "," };
            format!(
                "{{\"level\":\"{level}\",\"ts\":\"{time}\",\"caller\":\"{caller}\",\"msg\":{message}{comma}{fields}}}\n"
            )
        }
        LogFormat::Console => {
            let one_line = message.replace(['\n', '\r'], " ");
            let fields = if fields.is_empty() {
                fields
            } else {
                format!("\t{{{fields}}}")
            };
            format!("{time}\t{level}\t{caller}\t{one_line}{fields}\n")
        }
    }
}

/// `dir/file.rs:line` of an event.
struct Caller<'a>(&'a Metadata<'static>);

impl fmt::Display for Caller<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.0.file().unwrap_or("unknown");
        let start = file
            .rmatch_indices('/')
            .nth(1)
            .map_or(0, |(slash, _)| slash + 1);
        write!(f, "{}:{}", &file[start..], self.0.line().unwrap_or(0))
    }
}

/// The values of one event.
#[derive(Default)]
struct Values {
    /// Its `message`.
    message: String,
    /// The others, as the inside of a JSON object.
    fields: String,
}

impl Values {
    fn add(&mut self, field: &Field, json: impl fmt::Display) {
        let comma = if self.fields.is_empty() { "" } else { "," };
        // Names that the line has already would make the object ambiguous.
        let suffix = if matches!(field.name(), "level" | "ts" | "caller" | "msg") {
            "_"
        } else {
            ""
        };
        let _ = write!(self.fields, "{comma}\"{}{suffix}\":{json}", field.name());
    }
}

impl Visit for Values {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.add(field, value)
        } else {
            self.add(field, quoted(&value.to_string()))
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = Cut(String::new());
        // An error is the sign that the value was cut.
        let _ = write!(text, "{value:?}");
        if field.name() == "message" {
            self.message = text.0
        } else {
            self.add(field, quoted(&text.0))
        }
    }
}

/// Text up to [`LOG_VALUE_BYTES_MAX`]; what formats into it is stopped there.
struct Cut(String);

impl fmt::Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LOG_VALUE_BYTES_MAX - self.0.len();
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        Err(fmt::Error)
    }
}

/// `text` as a JSON string.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("every string has a JSON form")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// An output whose content can be read afterwards.
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .expect("no test panics while it writes")
                .write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `log` leads to.
    fn lines(level: LogLevel, format: LogFormat, log: impl FnOnce()) -> Vec<String> {
        let output = Shared::default();
        let settings = LogSettings {
            level,
            format,
            outputs: vec![LogOutput::Stderr],
        };
        let (layer, logging) = layer(&settings, output.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        drop(logging);
        let bytes = output
            .0
            .lock()
            .expect("no test panics while it writes")
            .clone();
        String::from_utf8(bytes)
            .expect("lines are text")
            .lines()
            .map(ToOwned::to_owned)
            .collect()
    }

    /// Goal: a line has etcd's keys first, a parsable time, the place, and typed fields.
    #[test]
    fn json_lines() {
        let lines = lines(LogLevel::Info, LogFormat::Json, || {
            tracing::info!(
                count = 3,
                ready = true,
                path = "a\"b\nc",
                level = "x",
                "ready to serve client requests"
            );
        });
        let [line] = lines.as_slice() else {
            panic!("{lines:?}")
        };
        let value: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(
            line.starts_with("{\"level\":\"info\",\"ts\":\"20"),
            "{line}"
        );
        assert_eq!(value["msg"], "ready to serve client requests");
        assert_eq!(
            (&value["count"], &value["ready"]),
            (&3.into(), &true.into())
        );
        assert_eq!(
            (&value["path"], &value["level_"]),
            (&"a\"b\nc".into(), &"x".into())
        );
        let caller = value["caller"].as_str().expect("a text");
        assert!(caller.starts_with("src/logging.rs:"), "{caller}");
        let time = value["ts"].as_str().expect("a text");
        assert_eq!(time.len(), "2026-01-02T03:04:05.678901Z".len(), "{time}");
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");
    }

    /// Goal: less severe lines are dropped, and libraries only warn.
    #[test]
    fn levels() {
        let log = || {
            tracing::debug!("one");
            tracing::info!("two");
            tracing::error!("three");
            tracing::info!(target: "h2::codec", "four");
            tracing::warn!(target: "h2::codec", "five");
        };
        assert_eq!(lines(LogLevel::Debug, LogFormat::Json, log).len(), 4);
        assert_eq!(lines(LogLevel::Info, LogFormat::Json, log).len(), 3);
        assert_eq!(lines(LogLevel::Error, LogFormat::Json, log).len(), 1);
    }

    /// Goal: columns for people, one line per event whatever the message holds.
    #[test]
    fn console_lines() {
        let lines = lines(LogLevel::Info, LogFormat::Console, || {
            tracing::warn!(a = 1, "x\ny")
        });
        let [line] = lines.as_slice() else {
            panic!("{lines:?}")
        };
        let columns: Vec<&str> = line.split('\t').collect();
        assert_eq!(
            (columns[1], columns[3], columns[4]),
            ("warn", "x y", "{\"a\":1}")
        );
    }

    /// Goal: a huge value costs a bounded line, cut between characters.
    #[test]
    fn long_values_are_cut() {
        let long = "ä".repeat(LOG_VALUE_BYTES_MAX);
        let lines = lines(
            LogLevel::Info,
            LogFormat::Json,
            || tracing::info!(long = ?long, "m"),
        );
        assert!(
            lines[0].len() < LOG_VALUE_BYTES_MAX + 200,
            "{}",
            lines[0].len()
        );
        assert!(serde_json::from_str::<serde_json::Value>(&lines[0]).is_ok());
    }

    /// Goal: notices of the configuration arrive with their fields.
    #[test]
    fn notices() {
        let fields = vec![
            ("option", "--snapshot-count".to_owned()),
            ("reason", "own log".to_owned()),
        ];
        let notice = Notice {
            level: LogLevel::Warn,
            message: "no effect",
            fields,
        };
        let lines = lines(LogLevel::Info, LogFormat::Json, || log_notices(&[notice]));
        assert!(
            lines[0].contains("\"fields\":\"option=--snapshot-count reason=own log\""),
            "{}",
            lines[0]
        );
    }
}
