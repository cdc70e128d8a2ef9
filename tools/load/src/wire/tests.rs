//! Connections against bytes that a server could send, without a server.

use super::frame::{self, flag, kind, reason, setting};
use super::*;

fn connection() -> Connection {
    Connection::new(&CallOptions {
        scheme: "http",
        authority: "127.0.0.1:2379".into(),
        timeout: None,
    })
}

/// A connection that has heard `settings`, with nothing left to send.
fn ready(settings: &[(u16, u32)]) -> Connection {
    let mut connection = connection();
    let mut bytes = Vec::new();
    frame::put_settings(&mut bytes, settings);
    connection.receive(&bytes, &mut |_| {}).expect("settings");
    assert!(connection.is_ready());
    connection.out().clear();
    connection
}

fn received(connection: &mut Connection, bytes: &[u8]) -> (Vec<String>, Result<(), Fault>) {
    let mut seen = Vec::new();
    let result = connection.receive(bytes, &mut |event| seen.push(format!("{event:?}")));
    (seen, result)
}

/// The frames that wait to be sent, as (kind, stream, payload bytes, flags).
fn sent(connection: &mut Connection) -> Vec<(u8, u32, usize, u8)> {
    let out = std::mem::take(connection.out());
    let mut rest = &out[..];
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let size = usize::from(rest[0]) << 16 | usize::from(rest[1]) << 8 | usize::from(rest[2]);
        let stream = u32::from_be_bytes(rest[5..9].try_into().expect("four bytes"));
        frames.push((rest[3], stream, size, rest[4]));
        rest = &rest[frame::HEADER_BYTES + size..];
    }
    frames
}

fn answer(stream: u32, message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::put_header(&mut bytes, 1, kind::HEADERS, flag::END_HEADERS, stream);
    bytes.push(0x88);
    frame::put_header(&mut bytes, message.len() + 5, kind::DATA, 0, stream);
    bytes.push(0);
    bytes.extend_from_slice(&(message.len() as u32).to_be_bytes());
    bytes.extend_from_slice(message);
    let trailer = b"\x00\x0bgrpc-status\x010";
    frame::put_header(
        &mut bytes,
        trailer.len(),
        kind::HEADERS,
        flag::END_HEADERS | flag::END_STREAM,
        stream,
    );
    bytes.extend_from_slice(trailer);
    bytes
}

/// Goal: an answer is the same however its bytes are cut.
#[test]
fn answers_in_pieces() {
    let bytes = answer(1, b"hello");
    let expected = ["Message(9, [104, 101, 108, 108, 111])", "Ended(9, Ok)"];
    for size in 1..=bytes.len() {
        let mut connection = ready(&[]);
        assert_eq!(connection.start(Method::Put, b"x", true, 9), Started::On(1));
        let mut seen = Vec::new();
        for piece in bytes.chunks(size) {
            let (events, result) = received(&mut connection, piece);
            assert_eq!(result, Ok(()));
            seen.extend(events);
        }
        assert_eq!(seen, expected, "pieces of {size}");
        assert_eq!(connection.open_count(), 0);
    }
}

/// Goal: nothing is sent beyond either window, and all of it when they grow.
#[test]
fn windows() {
    let mut connection = ready(&[(setting::INITIAL_WINDOW_SIZE, 10)]);
    connection.start(Method::Put, &[7; 20], true, 1);
    let frames = sent(&mut connection);
    assert_eq!(frames[1..], [(kind::DATA, 1, 10, 0)]);
    let mut raise = Vec::new();
    frame::put_number(&mut raise, kind::WINDOW_UPDATE, 1, 5);
    assert_eq!(received(&mut connection, &raise).1, Ok(()));
    assert_eq!(sent(&mut connection), [(kind::DATA, 1, 5, 0)]);
    let mut more = Vec::new();
    frame::put_settings(&mut more, &[(setting::INITIAL_WINDOW_SIZE, 100_000)]);
    assert_eq!(received(&mut connection, &more).1, Ok(()));
    assert_eq!(
        sent(&mut connection)[1..],
        [(kind::DATA, 1, 10, flag::END_STREAM)]
    );
    // The connection's window of 65535 bytes has 25 less now.
    connection.start(Method::Put, &[7; 70_000], true, 2);
    let data: usize = sent(&mut connection)[1..].iter().map(|frame| frame.2).sum();
    assert_eq!(data, 65_535 - 25);
}

/// Goal: no call is started beyond what the server admits, or after its farewell; those it excludes are not taken.
#[test]
fn limits_and_farewell() {
    let mut connection = ready(&[(setting::MAX_CONCURRENT_STREAMS, 2)]);
    assert_eq!(connection.start(Method::Put, b"", true, 1), Started::On(1));
    assert_eq!(connection.start(Method::Put, b"", true, 2), Started::On(3));
    assert_eq!(connection.start(Method::Put, b"", true, 3), Started::Later);
    let mut farewell = Vec::new();
    frame::put_header(&mut farewell, 8, kind::GOAWAY, 0, 0);
    farewell.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0]);
    let (seen, result) = received(&mut connection, &farewell);
    assert_eq!(seen, ["Ended(2, NotTaken(\"the server says farewell\"))"]);
    assert_eq!(result, Ok(()));
    assert_eq!(connection.start(Method::Put, b"", true, 3), Started::Later);
    let (seen, result) = received(&mut connection, &answer(1, b""));
    assert_eq!(seen.len(), 2);
    assert!(result.is_err(), "the last call has ended");
}

/// Goal: after a farewell calls and renewals end with their answers, and an open watch does not hold the connection.
#[test]
fn farewell_with_open_streams() {
    let mut connection = ready(&[]);
    let open = |connection: &mut Connection, method, last, token| {
        let Started::On(stream) = connection.start(method, b"", last, token) else {
            panic!("nothing limits it");
        };
        stream
    };
    let watch = open(&mut connection, Method::Watch, false, 1);
    let renewals = open(&mut connection, Method::LeaseKeepAlive, false, 2);
    let put = open(&mut connection, Method::Put, true, 3);
    sent(&mut connection);
    let mut farewell = Vec::new();
    frame::put_header(&mut farewell, 8, kind::GOAWAY, 0, 0);
    farewell.extend_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    // A server may say it twice: a warning, then the last stream.
    assert_eq!(received(&mut connection, &farewell.repeat(2)).1, Ok(()));
    let half = [(kind::DATA, renewals, 0, flag::END_STREAM)];
    assert_eq!(sent(&mut connection), half);
    connection.send(renewals, b"too late");
    assert!(connection.out().is_empty());
    assert_eq!(received(&mut connection, &answer(put, b"")).1, Ok(()));
    let (seen, result) = received(&mut connection, &answer(renewals, b""));
    assert_eq!(seen, ["Message(2, [])", "Ended(2, Ok)"]);
    assert!(result.is_err(), "only stream {watch} is left");
    let mut ended = Vec::new();
    connection.fail("over", &mut |event| ended.push(format!("{event:?}")));
    assert_eq!(ended, ["Ended(1, Broken(\"over\"))"]);
}

/// Goal: only a status in the server's trailers is the server's; what this side makes of anything else is told apart.
#[test]
fn whose_status() {
    // Literal fields without indexing: the length of the name, the name, the length of the value, the value.
    let field = |name: &str, value: &str| {
        let mut field = vec![0, name.len() as u8];
        field.extend_from_slice(name.as_bytes());
        field.push(value.len() as u8);
        field.extend_from_slice(value.as_bytes());
        field
    };
    let check = |frames: &[(u8, u8, Vec<u8>)], expected: &str| {
        let mut connection = ready(&[]);
        connection.start(Method::Put, b"", true, 1);
        let mut bytes = Vec::new();
        for (kind, flags, payload) in frames {
            frame::put_header(&mut bytes, payload.len(), *kind, *flags, 1);
            bytes.extend_from_slice(payload);
        }
        let (seen, _) = received(&mut connection, &bytes);
        assert!(seen[0].starts_with(expected), "{seen:?}");
    };
    let (more, last) = (flag::END_HEADERS, flag::END_HEADERS | flag::END_STREAM);
    let ok = (kind::HEADERS, more, vec![0x88]);
    let status = |code| (kind::HEADERS, last, field("grpc-status", code));
    check(&[ok.clone(), status("8")], "Ended(1, Status(8, ");
    for (http, code) in [("401", 16), ("403", 7), ("404", 12), ("503", 14)] {
        let head = (kind::HEADERS, last, field(":status", http));
        check(&[head], &format!("Ended(1, NoStatus({code}, "));
    }
    let silent = (kind::HEADERS, last, field("x", "y"));
    check(&[ok.clone(), silent], "Ended(1, NoStatus(2, ");
    let oversized = (kind::DATA, 0, vec![0, 0xff, 0xff, 0xff, 0xff]);
    check(&[ok.clone(), oversized], "Ended(1, NoStatus(8, ");
    let cut = (kind::DATA, flag::END_STREAM, Vec::new());
    check(&[ok, cut], "Ended(1, NoStatus(13, ");
}

/// Goal: each way to end a stream is told apart, and a ping is answered.
#[test]
fn ends() {
    let check = |code: u32, expected: &str| {
        let mut connection = ready(&[]);
        connection.start(Method::Put, b"", true, 1);
        let mut reset = Vec::new();
        frame::put_number(&mut reset, kind::RST_STREAM, 1, code);
        let (seen, _) = received(&mut connection, &reset);
        assert!(seen[0].starts_with(expected), "{seen:?}");
    };
    check(reason::REFUSED_STREAM, "Ended(1, NotTaken(");
    check(reason::CANCEL, "Ended(1, NoStatus(1, ");
    check(reason::ENHANCE_YOUR_CALM, "Ended(1, NoStatus(8, ");
    check(2, "Ended(1, NoStatus(13, ");
    let mut connection = ready(&[]);
    let mut ping = Vec::new();
    frame::put_header(&mut ping, 8, kind::PING, 0, 0);
    ping.extend_from_slice(b"12345678");
    assert_eq!(received(&mut connection, &ping).1, Ok(()));
    assert_eq!(sent(&mut connection), [(kind::PING, 0, 8, flag::ACK)]);
}

/// Goal: whatever a server sends, the client neither panics nor waits for ever for bytes that are there.
#[test]
fn hostile_bytes() {
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..3_000 {
        let mut connection = ready(&[]);
        for token in 0..3 {
            connection.start(Method::Range, b"abc", token != 2, token);
        }
        let mut bytes = Vec::new();
        for _ in 0..random.usize(1..12) {
            let size = random.usize(0..40);
            let stream = random.u32(0..8);
            frame::put_header(&mut bytes, size, random.u8(0..11), random.u8(..), stream);
            bytes.extend((0..size).map(|_| random.u8(..)));
        }
        let mut ended = 0;
        let mut count = |event: Event<'_>| ended += usize::from(matches!(event, Event::Ended(..)));
        let _ = connection.receive(&bytes, &mut count);
        connection.fail("over", &mut count);
        assert_eq!(ended, 3, "every call ends exactly once");
    }
}
