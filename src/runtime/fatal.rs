//! How the process ends when it must not go on.
//!
//! Owns the exit of a member that cannot keep its promises: a failed sync, a lost mapping, a core that is
//! stuck, a panic. The message reaches standard error by a plain write before the exit, because log lines
//! travel through another thread. Nothing is retried, nothing is flushed, no destructor runs: what was
//! acknowledged is on disk, what was not is not promised.

use std::fmt::Display;
use std::io::Write;

/// The exit code of a member that failed while it ran. Refusals to start exit with 1, refused flags
/// with 2; supervisors that restart on failure treat all three alike.
pub const EXIT_CODE_FATAL: i32 = 3;

/// The exit code of a member that was removed from its cluster: no restart helps.
pub const EXIT_CODE_REMOVED: i32 = 4;

/// Says why and ends the process, from any thread.
pub fn fatal(message: impl Display) -> ! {
    fatal_with(EXIT_CODE_FATAL, message)
}

/// The same with another exit code.
pub(super) fn fatal_with(code: i32, message: impl Display) -> ! {
    tracing::error!(%message, "fatal");
    write_stderr(&format!("kontiki: fatal: {message}\n"));
    std::process::exit(code);
}

/// Makes every panic end the process: a panicking task would otherwise kill one core's work and leave a
/// member that still answers for the others.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let backtrace = std::backtrace::Backtrace::force_capture();
        write_stderr(&format!("kontiki: {info}\n{backtrace}\n"));
        std::process::abort();
    }));
}

/// One write, unbuffered; there is nobody left to tell when it fails.
fn write_stderr(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
