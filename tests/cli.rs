//! The binary's command line as a process: what it prints where, and its exit codes.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};

fn kontiki(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kontiki"));
    command
        .env_clear()
        .args(arguments)
        .output()
        .expect("the binary starts")
}

/// `arguments` end with `code`, print nothing on standard output, and say `message`.
#[track_caller]
fn check_refused(arguments: &[&str], code: i32, message: &str) {
    let output = kontiki(arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(output.stdout.is_empty() && text.contains(message), "{text}");
}

/// Goal: help and version go to standard output and succeed.
#[test]
fn help_and_version() {
    for flag in ["--help", "-h"] {
        let output = kontiki(&[flag]);
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("--listen-client-urls"));
    }
    let output = kontiki(&["--version"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("\netcd Version: 3.7.1\n"),
        "{text}"
    );
}

/// Goal: refusals reach standard error with their exit codes.
#[test]
fn refusals() {
    check_refused(&["--nmae=a"], 2, "flag provided but not defined: -nmae");
    check_refused(
        &["--cert-file=c"],
        2,
        "--cert-file=c asks for what this version",
    );
    check_refused(
        &["--unsafe-no-fsync"],
        2,
        "every acknowledged write is synced",
    );
    check_refused(
        &["--heartbeat-interval=0"],
        1,
        "--heartbeat-interval must be >0",
    );
    check_refused(&["--config-file=/nonexistent/f"], 1, "/nonexistent/f");
    check_refused(
        &["--log-outputs=/nonexistent/f"],
        1,
        "--log-outputs: cannot open /nonexistent/f",
    );
}

/// Goal: a cluster on this machine is asked for by a word of its own, with flags of its own.
#[test]
fn local_cluster() {
    let output = kontiki(&["local-cluster", "--help"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("--members '3'"));
    check_refused(&["local-cluster", "--members=0"], 1, "it must be 1 to 7");
    check_refused(
        &["local-cluster", "--cores=1"],
        2,
        "flag provided but not defined: -cores",
    );
}

/// Goal: the command about reads explains itself, refuses what is no wish, and says which member it cannot reach.
#[test]
fn read_mode() {
    let output = kontiki(&["read-mode", "--help"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("CLOCK_BOOTTIME"));
    check_refused(
        &["read-mode", "quorum"],
        2,
        "\"quorum\" is not a valid flag",
    );
    // A port that nobody listens on.
    let endpoint = "--endpoints=127.0.0.1:1";
    check_refused(&["read-mode", endpoint], 1, "http://127.0.0.1:1: ");
    check_refused(
        &["read-mode", "lease", "--endpoints=127.0.0.1:1,127.0.0.1:1"],
        1,
        "2 of 2 members did not answer",
    );
}

/// For a command to connect.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Names and values of headers.
type Fields = &'static [(&'static str, &'static str)];

/// What somebody answers to each call.
#[derive(Clone, Copy)]
struct Answer {
    /// Of HTTP.
    status: u16,
    headers: Fields,
    /// Of the body; none for an answer that ends with its headers.
    data: Option<&'static [u8]>,
    trailers: Fields,
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");
/// The message that says that reads ask a quorum, with gRPC's prefix.
const INDEX: &[u8] = &[0, 0, 0, 0, 2, 0x10, 1];

impl Answer {
    const GOOD: Answer = Answer {
        status: 200,
        headers: &[GRPC],
        data: Some(INDEX),
        trailers: &[("grpc-status", "0")],
    };

    fn with_status(self, status: u16) -> Answer {
        Answer { status, ..self }
    }

    fn with_data(self, data: &'static [u8]) -> Answer {
        let data = Some(data);
        Answer { data, ..self }
    }

    fn with_trailers(self, trailers: Fields) -> Answer {
        Answer { trailers, ..self }
    }

    /// With its headers only.
    fn ending(self, headers: Fields) -> Answer {
        let data = None;
        Answer {
            headers,
            data,
            ..self
        }
    }

    fn send(self, mut respond: h2::server::SendResponse<Bytes>) -> Result<(), h2::Error> {
        let mut head = Response::new(());
        *head.status_mut() = self.status.try_into().expect("a status");
        *head.headers_mut() = header_map(self.headers);
        let mut body = respond.send_response(head, self.data.is_none())?;
        let Some(data) = self.data else {
            return Ok(());
        };
        body.send_data(Bytes::from_static(data), self.trailers.is_empty())?;
        match self.trailers {
            [] => Ok(()),
            trailers => body.send_trailers(header_map(trailers)),
        }
    }
}

fn header_map(fields: Fields) -> HeaderMap {
    let field = |(name, value)| {
        let name = http::HeaderName::from_static(name);
        (name, HeaderValue::from_static(value))
    };
    fields.iter().copied().map(field).collect()
}

/// Serves one connection and answers every call on it in the same way, once the call names this server.
async fn answer(tell: mpsc::Sender<SocketAddr>, answer: Answer) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("an address");
    tell.send(address).expect("it is awaited");
    let accepted = tokio::time::timeout(TIME_MAX, listener.accept()).await;
    let (stream, _) = accepted.expect("in time").expect("a connection");
    let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
    // The client ends when it has its answer.
    while let Some(Ok((request, respond))) = connection.accept().await {
        let authority = request.uri().authority().expect("it names one");
        assert_eq!(authority.as_str(), address.to_string());
        answer.send(respond).expect("the client is there");
    }
}

/// Asks somebody who answers so; what is said on standard output, and on standard error.
fn ask(given: Answer) -> (String, String) {
    let (tell, told) = mpsc::channel();
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.expect("a reactor");
        runtime.block_on(answer(tell, given));
    });
    let address = told.recv().expect("a server");
    let output = kontiki(&["read-mode", &format!("--endpoints=HTTP://{address}")]);
    server.join().expect("it was asked as it should be");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Goal: an answer counts only when it is whole and says that the call went well; what else answers there is told
/// apart, and its words do not reach the terminal as they are.
#[test]
fn answers_of_strangers() {
    let (said, complaint) = ask(Answer::GOOD);
    assert!(said.ends_with(": index\n"), "{said}{complaint}");
    let check = |answer: Answer, expected: &str| {
        let (said, complaint) = ask(answer);
        assert!(
            said.is_empty() && complaint.contains(expected),
            "{said}{complaint}"
        );
    };
    let good = Answer::GOOD;

    let nonsense = "what came is no answer to that";
    check(good.with_trailers(&[]), nonsense);
    check(good.with_trailers(&[("grpc-message", "fine")]), nonsense);
    check(good.with_data(b""), nonsense);
    check(good.with_data(&INDEX[..4]), nonsense);
    check(good.with_data(&INDEX[..6]), nonsense);
    check(good.with_data(&[1, 0, 0, 0, 2, 0x10, 1]), nonsense);
    check(good.with_data(&[0, 0, 0, 0, 2, 0x10, 9]), nonsense);
    check(good.ending(&[GRPC]), nonsense);
    check(good.ending(&[GRPC, ("grpc-status", "0")]), nonsense);

    let stranger = Answer {
        status: 404,
        headers: &[("content-type", "text/html")],
        data: Some(b"<html>"),
        trailers: &[],
    };
    let no_member = "no member of kontiki there?";
    check(stranger, "HTTP 404 Not Found");
    check(stranger, no_member);
    check(stranger.with_status(200), no_member);
    check(good.with_status(502), no_member);

    let unknown = &[GRPC, ("grpc-status", "12"), ("grpc-message", "?")];
    check(good.ending(unknown), "there are no read modes");
    let refused = &[("grpc-status", "14"), ("grpc-message", "100%25%1B[2J")];
    check(
        good.with_data(b"").with_trailers(refused),
        "100%\u{fffd}[2J (code 14)",
    );
}

/// Goal: a file is read, bounded in size, and its faults name it.
#[test]
fn configuration_files() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("kontiki.yaml");
    let argument = format!("--config-file={}", path.display());
    std::fs::write(&path, "heartbeat-interval: 0\n").expect("written");
    check_refused(&[&argument], 1, "--heartbeat-interval must be >0");
    std::fs::write(&path, "name: [\n").expect("written");
    check_refused(&[&argument], 1, "kontiki.yaml");
    std::fs::write(&path, vec![b'#'; 1024 * 1024 + 1]).expect("written");
    check_refused(&[&argument], 1, "larger than 1048576 bytes");
}

/// Goal: the build gives the allocator its settings, wherever it is built from within the tree.
#[test]
fn allocator_settings() {
    let settings = tikv_jemalloc_ctl::config::malloc_conf::read().expect("jemalloc tells");
    assert_eq!(
        settings.trim_end_matches('\0'),
        "thp:always",
        "see .cargo/config.toml"
    );
}
