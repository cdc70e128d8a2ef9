//! Whether members serve, asked over HTTP on a thread of its own: a member that takes a connection and says nothing
//! makes a look last seconds, and nothing else may wait for that.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Sender, SyncSender, sync_channel};
use std::time::Duration;

use super::Happening;

/// For one connection, and for each part of its answer.
const PROBE_TIME_MAX: Duration = Duration::from_secs(1);
/// More of an answer is not looked at.
const PROBE_BYTES_MAX: u64 = 4_096;

/// The way to the thread that looks.
pub(super) struct Looker {
    /// One look is under way at a time.
    questions: SyncSender<Vec<SocketAddr>>,
}

impl Looker {
    /// Starts the thread. It ends when nobody can ask any more.
    pub(super) fn start(answers: Sender<Happening>) -> io::Result<Looker> {
        let (questions, asked) = sync_channel::<Vec<SocketAddr>>(1);
        std::thread::Builder::new()
            .name("look".into())
            .spawn(move || {
                for addresses in asked {
                    let all_serve = addresses.into_iter().all(serves);
                    if answers.send(Happening::Looked(all_serve)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Looker { questions })
    }

    /// Asks whether all of these serve; [`Happening::Looked`] says it. Not again before that.
    pub(super) fn look(&self, addresses: Vec<SocketAddr>) {
        let taken = self.questions.try_send(addresses);
        assert!(taken.is_ok(), "one look is under way at a time");
    }
}

/// Whether a member answers that it is healthy: it knows a leader and can read.
fn serves(address: SocketAddr) -> bool {
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, PROBE_TIME_MAX)?;
        stream.set_read_timeout(Some(PROBE_TIME_MAX))?;
        stream.set_write_timeout(Some(PROBE_TIME_MAX))?;
        let request =
            format!("GET /health HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.take(PROBE_BYTES_MAX).read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}
