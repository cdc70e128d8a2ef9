//! Whole runs of the program against a server that behaves, and against those that do not.
//!
//! Each failure must be one clear line on stderr, a result that says it is partial where there is one, and an exit
//! code that is not zero.

#![allow(
    missing_docs,
    clippy::disallowed_methods,
    reason = "a test has no public items, and its server uses plain sockets"
)]

mod server;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kontiki_load::result::{ResultFile, RunResult};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use server::{Manner, TestServer};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// Runs `kontiki-load` with `arguments` against `endpoint`.
fn load(endpoint: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kontiki-load"))
        .args(arguments)
        .args(["--endpoints", endpoint, "--quiet"])
        .output()
        .expect("the program runs")
}

/// A run with its result and what it said.
fn measured(endpoint: &str, arguments: &[&str]) -> (RunResult, Output) {
    let home = tempfile::tempdir().expect("a directory");
    let json = home.path().join("result.json");
    let mut all = arguments.to_vec();
    all.extend(["--json", json.to_str().expect("a path as text")]);
    let output = load(endpoint, &all);
    let mut file = ResultFile::read(&json).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (file.runs.remove(0), output)
}

#[track_caller]
fn check_failure(output: &Output, expected: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("kontiki-load: ") && last.contains(expected),
        "{said}"
    );
}

/// Goal: through small windows, few streams and split messages every operation is counted once, none is lost.
#[test]
fn counts_every_operation() {
    let server = TestServer::start(Manner::Good, None);
    let arguments = [
        "put",
        "--total",
        "3000",
        "--in-flight",
        "100",
        "--connections",
        "3",
        "--value-size",
        "10-5000",
    ];
    let (result, output) = measured(&server.address.to_string(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        (result.count(), result.errors(), &result.partial),
        (3000, 0, &None)
    );
    assert!(result.operations[0].latency.max_ns() > 0 && !result.operations[0].series.is_empty());
}

/// Goal: an open loop sends what its rate says, and a ramp ends with a knee.
#[test]
fn open_loop_and_ramp() {
    let server = TestServer::start(Manner::Good, None);
    let endpoint = server.address.to_string();
    let (result, output) = measured(
        &endpoint,
        &[
            "put",
            "--rate",
            "500",
            "--duration",
            "1s",
            "--warm-up",
            "100ms",
        ],
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(result.count(), 500);
    let ramp = [
        "put",
        "--rate",
        "200",
        "--ramp",
        "--growth",
        "4",
        "--precision",
        "2",
        "--p99-max",
        "1s",
        "--duration",
        "200ms",
        "--warm-up",
        "0s",
        "--timeout",
        "2s",
        "--connections",
        "2",
    ];
    let (result, output) = measured(&endpoint, &ramp);
    assert!(
        !result.steps.is_empty() && result.steps[0].held,
        "{output:?}"
    );
    assert!(
        result.steps.iter().any(|step| !step.held),
        "{:?}",
        result.steps
    );
}

/// Goal: a server that falls behind an open loop is given the rate that it had, not the one it was asked for: the
/// time in which it worked off what had piled up counts, and that of the warm-up's does not.
#[test]
fn open_loop_too_fast() {
    let server = TestServer::start(Manner::Slow(Duration::from_millis(5)), None);
    let arguments = [
        "put",
        "--rate",
        "400",
        "--duration",
        "1s",
        "--warm-up",
        "500ms",
        "--timeout",
        "60s",
        "--connections",
        "1",
    ];
    let (result, output) = measured(&server.address.to_string(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(result.count(), 400);
    let seconds = result.duration.as_secs_f64();
    // One takes 5 ms at least: all of them 2 s, of which those in flight at the beginning may have had 0.1 s.
    assert!(seconds > 1.8, "{seconds}");
    let rate = result.rate_per_second();
    assert!(rate < 220.0, "{rate}/s");
    // Latency is that from the intended time: at the end about as long as all the lost time.
    let longest_ns = result.latency().max_ns();
    assert!(longest_ns > 1_000_000_000, "{longest_ns}");
}

/// Goal: far beyond what a server can do it still does that much: what is sent has all its patience before it, and only
/// what cannot be sent in time fails.
#[test]
fn overload() {
    let server = TestServer::start(Manner::Slow(Duration::from_millis(5)), None);
    let arguments = [
        "put",
        "--rate",
        "3000",
        "--duration",
        "2s",
        "--warm-up",
        "1s",
        "--timeout",
        "500ms",
        "--connections",
        "1",
    ];
    let (result, _) = measured(&server.address.to_string(), &arguments);
    // At most 200/s can be done, on a busy machine fewer; 20 in flight take 0.1 s together.
    assert!(result.count() > 100, "{}", result.count());
    let unsent = &result.operations[0].errors["not sent"];
    assert!(unsent.count > 4_000, "{unsent:?}");
}

/// Goal: a rate that no clock can keep is refused; one that no generator can keep is no reason not to hear a signal.
#[test]
fn absurd_rates() {
    let server = TestServer::start(Manner::Good, None);
    let endpoint = server.address.to_string();
    for rate in ["1e18", "inf", "nan", "0"] {
        check_failure(
            &load(&endpoint, &["put", "--rate", rate]),
            "--rate must be above zero, and at most 100000000",
        );
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_kontiki-load"))
        .args(["put", "--rate", "1e8", "--duration", "60s"])
        .args(["--warm-up", "0s", "--timeout", "100ms"])
        .args(["--endpoints", &endpoint])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut said = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    // The first second is over.
    said.read_line(&mut line).expect("progress");
    let begin = Instant::now();
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&child),
        rustix::process::Signal::TERM,
    )
    .expect("a signal");
    let mut rest = String::new();
    said.read_to_string(&mut rest).expect("its last words");
    let status = child.wait().expect("an end");
    assert!(rest.contains("partial result: interrupted"), "{line}{rest}");
    assert_eq!(status.code(), Some(1));
    assert!(begin.elapsed() < Duration::from_secs(20));
}

/// Goal: nobody listens: said at once, and there is no result.
#[test]
fn endpoint_down() {
    let port = kontiki_harness::server::free_port().expect("a port");
    let output = load(&format!("127.0.0.1:{port}"), &["put"]);
    check_failure(&output, "Connection refused");
    assert!(output.stdout.is_empty());
}

/// Goal: with one endpoint of two down the other is loaded, and the result says that it is partial.
#[test]
fn one_endpoint_down() {
    let server = TestServer::start(Manner::Good, None);
    let port = kontiki_harness::server::free_port().expect("a port");
    let endpoints = format!("{},127.0.0.1:{port}", server.address);
    let (result, output) = measured(&endpoints, &["put", "--total", "100"]);
    check_failure(&output, "Connection refused");
    assert_eq!(result.count(), 100);
    assert!(
        result
            .partial
            .is_some_and(|why| why.contains(&port.to_string()))
    );
}

/// Goal: operations that are not answered in time are errors, and silence until the end makes a result partial.
#[test]
fn deadline() {
    let server = TestServer::start(Manner::SilentAfter(50), None);
    let arguments = [
        "put",
        "--in-flight",
        "10",
        "--timeout",
        "300ms",
        "--duration",
        "4s",
        "--warm-up",
        "0s",
    ];
    let (result, output) = measured(&server.address.to_string(), &arguments);
    check_failure(
        &output,
        "partial result: no operation succeeded in the last",
    );
    let timeouts = &result.operations[0].errors["timeout"];
    assert!(
        timeouts.count >= 100 && timeouts.first == "no answer within 300 ms",
        "{timeouts:?}"
    );
    assert_eq!(result.count(), 50);
}

/// Goal: a server that dies midway leaves a partial result with what was measured until then.
#[test]
fn dies_midway() {
    let server = TestServer::start(Manner::GoneAfter(200), None);
    let arguments = [
        "put",
        "--in-flight",
        "10",
        "--duration",
        "60s",
        "--warm-up",
        "0s",
        "--patience",
        "500ms",
    ];
    let (result, output) = measured(&server.address.to_string(), &arguments);
    check_failure(&output, "partial result: the servers are gone");
    // What it had answered and not sent went with it.
    assert!((150..=200).contains(&result.count()), "{}", result.count());
    assert!(result.duration.as_secs() < 10, "{:?}", result.duration);
}

/// Goal: a farewell is no failure of an operation: what was taken is answered, the rest goes to a new connection.
#[test]
fn farewells() {
    let server = TestServer::start(Manner::FarewellEvery(100), None);
    let arguments = [
        "put",
        "--total",
        "500",
        "--in-flight",
        "4",
        "--connections",
        "1",
    ];
    let (result, _) = measured(&server.address.to_string(), &arguments);
    let errors: Vec<&String> = result.operations[0].errors.keys().collect();
    assert!(errors.iter().all(|code| *code == "not taken"), "{errors:?}");
    assert!(result.count() >= 480, "{}", result.count());
}

/// Goal: a refusal without a message keeps its code and its text.
#[test]
fn refusal() {
    let server = TestServer::start(Manner::Refuses, None);
    let (result, output) = measured(
        &server.address.to_string(),
        &["put", "--total", "20", "--in-flight", "2"],
    );
    check_failure(&output, "20 operations failed");
    let error = &result.operations[0].errors["Unavailable"];
    assert_eq!((error.count, error.first.as_str()), (20, "no leader: 100%"));
}

/// Goal: a revision that is given twice is a wrong answer.
#[test]
fn wrong_answer() {
    let server = TestServer::start(Manner::RepeatsAfter(30), None);
    let (result, output) = measured(
        &server.address.to_string(),
        &["put", "--total", "40", "--in-flight", "1"],
    );
    check_failure(&output, "10 operations failed");
    let error = &result.operations[0].errors["wrong answer"];
    assert_eq!(error.count, 10);
    assert!(error.first.contains("got revision 30"), "{}", error.first);
}

/// A server's TLS with a certificate for 127.0.0.1, and the root that signed it in a file.
fn tls(home: &Path) -> (Arc<ServerConfig>, String) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root =
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a root");
    let key = KeyPair::generate().expect("a key");
    let names = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
    let leaf = names.signed_by(&key, &root).expect("a certificate");
    let path = home.join("root.pem");
    std::fs::write(&path, root.pem()).expect("a file");
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("usual versions")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], private)
        .expect("a pair");
    config.alpn_protocols = vec![b"h2".to_vec()];
    (
        Arc::new(config),
        path.to_str().expect("a path as text").to_owned(),
    )
}

/// Goal: load through TLS with the right root, or with none when told so; a wrong root is said in one line.
#[test]
fn certificates() {
    let home = tempfile::tempdir().expect("a directory");
    let other = tempfile::tempdir().expect("a directory");
    let (config, root) = tls(home.path());
    let (_, foreign) = tls(other.path());
    let server = TestServer::start(Manner::Good, Some(config));
    let endpoint = format!("https://{}", server.address);
    let put = ["put", "--total", "300", "--value-size", "5000"];
    let (result, output) = measured(&endpoint, &[&put[..], &["--cacert", &root]].concat());
    assert_eq!(
        (output.status.code(), result.count()),
        (Some(0), 300),
        "{output:?}"
    );
    let (result, _) = measured(
        &endpoint,
        &[&put[..], &["--insecure-skip-tls-verify"]].concat(),
    );
    assert_eq!(result.count(), 300);
    let output = load(&endpoint, &[&put[..], &["--cacert", &foreign]].concat());
    check_failure(&output, "invalid peer certificate");
    let output = load(
        &endpoint,
        &[&put[..], &["--cacert", "/does/not/exist"]].concat(),
    );
    check_failure(&output, "/does/not/exist");
    // Plain HTTP to a TLS port.
    let output = load(&server.address.to_string(), &put);
    check_failure(&output, "no endpoint answers");
}
