//! SIGTERM and SIGINT become mail.
//!
//! Owns the thread that waits for signals, so that no core ever runs in a handler. The first signal asks for
//! an orderly stop; a second one ends the process at once, for an operator who does not want to wait.

use std::io;

use signal_hook::consts::signal::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::mailbox::Sender;

/// The exit code after a second signal; nothing acknowledged is lost by it.
const EXIT_CODE_IMPATIENT: i32 = 130;

/// What asked for the stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A supervisor's request.
    Terminate,
    /// An operator's control-C.
    Interrupt,
    /// No signal: the member was removed from its cluster.
    Removed,
}

/// Mails each receiver the first SIGTERM or SIGINT, from a thread that lives as long as the process.
///
/// # Errors
/// The kernel refuses the handlers or the thread.
pub fn watch(receivers: Vec<Sender<Signal>>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let mut asked = false;
            for number in signals.forever() {
                let signal = match number {
                    SIGINT => Signal::Interrupt,
                    _ => Signal::Terminate,
                };
                if asked {
                    tracing::warn!(?signal, "second signal, stopping at once");
                    std::process::exit(EXIT_CODE_IMPATIENT);
                }
                asked = true;
                tracing::info!(?signal, "stopping");
                for receiver in &receivers {
                    // A receiver that is gone has stopped already.
                    let _ = receiver.send(signal);
                }
            }
        })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{executor, mailbox};

    /// Goal: a signal to this process wakes a core that sleeps.
    #[test]
    fn signal_is_mail() {
        let (sender, mut receiver) = mailbox::mailbox(1);
        watch(vec![sender]).expect("watching");
        std::thread::spawn(move || {
            let received = executor::run(async move {
                rustix::process::kill_process(
                    rustix::process::getpid(),
                    rustix::process::Signal::TERM,
                )
                .expect("sent");
                receiver.receive().await
            });
            assert_eq!(received.expect("a ring"), Some(Signal::Terminate));
        })
        .join()
        .expect("the test passes");
    }
}
