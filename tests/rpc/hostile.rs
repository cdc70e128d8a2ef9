//! Clients that flood, stall, lie or leave: they lose their connection or their call, the budgets hold,
//! and a well-behaved client beside them is served.

use std::time::Duration;

use crate::support::{Core, call, call_raw, finish, frame, head, run, settle};
use bytes::Bytes;
use kontiki::keyspace::request::{KeyValue, PutResponse, RangeResponse};
use kontiki::rpc::pb::etcdserverpb as pb;
use kontiki::rpc::{Allowed, EdgeConfig};
use kontiki::shard::event::{Refusal, Request, Response, Status};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const ENHANCE_YOUR_CALM: u32 = 11;

fn put() -> pb::PutRequest {
    pb::PutRequest {
        key: "k".into(),
        value: "v".into(),
        ..Default::default()
    }
}

fn accept(request: &Request) -> Option<Result<Response, Refusal>> {
    Some(Ok(match request {
        Request::Range(_) => Response::Range(RangeResponse::default()),
        _ => Response::Put(PutResponse::default()),
    }))
}

/// A frame of HTTP/2.
fn http2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block for a call, without compression.
fn header_block(path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend_from_slice(path.as_bytes());
    block.extend_from_slice(b"\x01\x01s\x0f\x10\x10application/grpc");
    block
}

/// The error code and text of the GOAWAY frame in what a server sent.
fn goaway(mut bytes: &[u8]) -> Option<(u32, String)> {
    while let Some((header, rest)) = bytes.split_at_checked(9) {
        let size = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let (payload, rest) = rest.split_at_checked(size)?;
        if header[3] == 7 {
            let code = u32::from_be_bytes(payload[4..8].try_into().unwrap());
            if code != 0 {
                return Some((code, String::from_utf8_lossy(&payload[8..]).into_owned()));
            }
        }
        bytes = rest;
    }
    None
}

/// Everything the server sends until it closes.
async fn read_all(stream: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    bytes
}

/// What the server has sent so far.
async fn read_some(stream: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        settle().await;
        let mut chunk = [0; 4_096];
        tokio::select! {
            biased;
            read = stream.read(&mut chunk) => match read {
                Ok(read) if read > 0 => bytes.extend_from_slice(&chunk[..read]),
                _ => return bytes,
            },
            () = settle() => return bytes,
        }
    }
}

/// Goal: a well-behaved client is served, whatever happened before.
async fn still_serves(core: &Core) {
    let (client, _server) = core.client().await;
    assert_eq!(call(&client, PUT, &put()).await.code, 0);
}

/// Goal: bytes that are no protocol end in an answer or a closed connection.
#[test]
fn garbage() {
    run(async {
        let core = Core::start(EdgeConfig::default(), accept);
        for garbage in [
            &b"\0\0\0\0\0\0\0\0"[..],
            b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
            b"GET / HTTP/9.9\r\n\r\n",
            b"PUT\r\n\r\n",
        ] {
            let (mut client, server) = core.connect(4_096);
            client.write_all(garbage).await.unwrap();
            client.shutdown().await.unwrap();
            read_all(&mut client).await;
            server.await.unwrap();
        }
        let (mut client, server) = core.connect(4_096);
        client.write_all(PREFACE).await.unwrap();
        client.write_all(&[0xff; 200]).await.unwrap();
        assert!(goaway(&read_all(&mut client).await).is_some());
        server.await.unwrap();
        assert_eq!(core.edge.connection_count(), 0);
        still_serves(&core).await;
    });
}

/// Goal: whoever says nothing is not waited for.
#[test]
fn silence() {
    run(async {
        let core = Core::start(EdgeConfig::default(), accept);
        let (mut silent, silent_server) = core.connect(4_096);
        let (mut half, half_server) = core.connect(4_096);
        half.write_all(&PREFACE[..10]).await.unwrap();
        settle().await;
        core.clock.advance(Duration::from_secs(20));
        for (stream, server) in [(&mut silent, silent_server), (&mut half, half_server)] {
            server.await.unwrap();
            read_all(stream).await;
        }
        assert_eq!(core.edge.counters().expelled.get(), 2);
    });
}

/// Goal: a silent client is pinged, and closed when it does not answer.
#[test]
fn dead_clients_are_found() {
    run(async {
        let core = Core::start(EdgeConfig::default(), accept);
        let (mut client, server) = core.connect(4_096);
        client.write_all(PREFACE).await.unwrap();
        read_some(&mut client).await;
        core.clock.advance(Duration::from_secs(2 * 60 * 60));
        let bytes = read_some(&mut client).await;
        assert_eq!(bytes.get(3), Some(&6), "a ping: {bytes:?}");
        assert!(!server.is_finished());
        core.clock.advance(Duration::from_secs(20));
        server.await.unwrap();
        // A client that answers stays.
        let (client, server) = core.client().await;
        core.clock.advance(Duration::from_secs(2 * 60 * 60));
        settle().await;
        core.clock.advance(Duration::from_secs(20));
        settle().await;
        assert!(!server.is_finished());
        assert_eq!(call(&client, PUT, &put()).await.code, 0);
    });
}

/// Goal: pinging without end is answered by gRPC's own GOAWAY, which its clients understand.
#[test]
fn too_many_pings() {
    run(async {
        let core = Core::start(EdgeConfig::default(), accept);
        let (mut client, server) = core.connect(4_096);
        client.write_all(PREFACE).await.unwrap();
        for _ in 0..4 {
            client
                .write_all(&http2_frame(6, 0, 0, &[1; 8]))
                .await
                .unwrap();
            core.clock.advance(Duration::from_secs(1));
            settle().await;
        }
        let sent = read_all(&mut client).await;
        assert_eq!(
            goaway(&sent),
            Some((ENHANCE_YOUR_CALM, "too_many_pings".to_owned()))
        );
        server.await.unwrap();
        still_serves(&core).await;
    });
}

/// Goal: a client that reads a large answer piece by piece may ping beside each piece: that is how gRPC
/// clients measure the network.
#[test]
fn pings_beside_a_large_answer() {
    run(async {
        const PIECE: u32 = 16_384;
        const PIECES: u32 = 20;
        let window_of_one_stream = 65_535;
        let size = window_of_one_stream + PIECES * PIECE;
        let core = Core::start(EdgeConfig::default(), large(size as usize));
        let (mut client, _server) = core.connect(1 << 20);
        client.write_all(PREFACE).await.unwrap();
        client.write_all(&http2_frame(4, 0, 0, &[])).await.unwrap();
        let body = frame(&pb::RangeRequest {
            key: "k".into(),
            ..Default::default()
        });
        let mut request = http2_frame(1, 4, 1, &header_block(RANGE));
        request.extend(http2_frame(0, 1, 1, &body));
        client.write_all(&request).await.unwrap();
        read_some(&mut client).await;
        for piece in 0..PIECES {
            let mut bytes = http2_frame(6, 0, 0, &[1; 8]);
            for stream in [0, 1] {
                bytes.extend(http2_frame(8, 0, stream, &PIECE.to_be_bytes()));
            }
            client.write_all(&bytes).await.unwrap();
            let answer = read_some(&mut client).await;
            assert_eq!(goaway(&answer), None, "after piece {piece}");
            assert!(answer.len() > PIECE as usize, "piece {piece}: {answer:?}");
        }
    });
}

/// Goal: opening and resetting streams without end costs the connection, in bounded memory.
#[test]
fn reset_flood() {
    run(async {
        let core = Core::start(EdgeConfig::default(), |_| None);
        let (mut client, server) = core.connect(1 << 16);
        client.write_all(PREFACE).await.unwrap();
        let body = frame(&put());
        let block = header_block(PUT);
        let mut stream = 1;
        while !server.is_finished() {
            assert!(stream < 40_000, "the flood is never stopped");
            let mut bytes = http2_frame(1, 4, stream, &block);
            bytes.extend(http2_frame(0, 1, stream, &body));
            bytes.extend(http2_frame(3, 0, stream, &[0, 0, 0, 8]));
            if client.write_all(&bytes).await.is_err() {
                break;
            }
            read_some_quickly(&mut client).await;
            stream += 2;
        }
        server.await.unwrap();
        assert_eq!(core.edge.counters().expelled.get(), 1);
        assert_eq!(core.edge.held_bytes(), 0);
    });
}

/// Drains what the server sent, so that its answers never hold it up.
async fn read_some_quickly(stream: &mut DuplexStream) {
    let mut chunk = [0; 4_096];
    tokio::select! {
        biased;
        _ = stream.read(&mut chunk) => {}
        () = tokio::task::yield_now() => {}
    }
}

/// Goal: headers beyond the limit are refused without keeping them; continuations without end too.
#[test]
fn header_flood() {
    run(async {
        let core = Core::start(EdgeConfig::default(), accept);
        let (client, _server) = core.client().await;
        let mut request = head(PUT);
        request
            .headers_mut()
            .insert("large", "x".repeat(100_000).parse().unwrap());
        let mut sender = client.clone().ready().await.unwrap();
        if let Ok((response, _)) = sender.send_request(request, true) {
            assert_eq!(
                response
                    .await
                    .map(|response| response.status().as_u16())
                    .unwrap_or(431),
                431
            );
        }
        let (mut client, server) = core.connect(1 << 16);
        client.write_all(PREFACE).await.unwrap();
        client
            .write_all(&http2_frame(1, 0, 1, &header_block(PUT)))
            .await
            .unwrap();
        for _ in 0..100_000 {
            if client
                .write_all(&http2_frame(9, 0, 1, &[0x0f; 1]))
                .await
                .is_err()
            {
                break;
            }
        }
        read_all(&mut client).await;
        server.await.unwrap();
        still_serves(&core).await;
    });
}

/// A shard that answers reads with a value of this size.
fn large(size: usize) -> impl FnMut(&Request) -> Option<Result<Response, Refusal>> {
    move |request| match request {
        Request::Range(_) => {
            let kv = KeyValue {
                key: "k".into(),
                value: vec![7; size].into(),
                ..KeyValue::default()
            };
            Some(Ok(Response::Range(RangeResponse {
                kvs: vec![kv],
                more: false,
                count: 1,
            })))
        }
        other => accept(other),
    }
}

/// Goal: a client that asks and does not read is refused beyond its budget, is closed in the end, and
/// costs nobody else anything.
#[test]
fn slow_reader() {
    run(async {
        let core = Core::start(EdgeConfig::default(), large(1 << 20));
        let (mut slow, server) = core.connect(1 << 16);
        slow.write_all(PREFACE).await.unwrap();
        // A client that claims windows without end, and then does not read.
        slow.write_all(&http2_frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]))
            .await
            .unwrap();
        slow.write_all(&http2_frame(8, 0, 0, &[0x7f, 0, 0, 0]))
            .await
            .unwrap();
        let block = header_block(RANGE);
        let body = frame(&pb::RangeRequest {
            key: "k".into(),
            ..Default::default()
        });
        for number in 0..400_u32 {
            let stream = 2 * number + 1;
            let mut bytes = http2_frame(1, 4, stream, &block);
            bytes.extend(http2_frame(0, 1, stream, &body));
            // Once its own output is stuck, the server stops reading: the rest does not get through.
            let sent = tokio::select! {
                biased;
                sent = slow.write_all(&bytes) => sent.is_ok(),
                () = settle() => false,
            };
            if !sent {
                break;
            }
            settle().await;
        }
        assert!(
            core.edge.held_bytes() < 70 << 20,
            "{} bytes are held",
            core.edge.held_bytes()
        );
        let (client, _server) = core.client().await;
        let request = pb::RangeRequest {
            key: "k".into(),
            ..Default::default()
        };
        let reply: pb::RangeResponse = call(&client, RANGE, &request).await.message();
        assert_eq!(reply.kvs[0].value.len(), 1 << 20);
        core.clock.advance(Duration::from_secs(1));
        settle().await;
        core.clock.advance(Duration::from_secs(60));
        server.await.unwrap();
        assert_eq!(core.edge.held_bytes(), 0);
    });
}

/// Goal: a client that reads its socket but gives an answer no window loses that call, not the others.
#[test]
fn stalled_window() {
    run(async {
        let core = Core::start(EdgeConfig::default(), large(1 << 20));
        let (stream, _server) = core.connect(1 << 16);
        let (client, connection) = h2::client::Builder::new()
            .initial_window_size(1_000)
            .initial_connection_window_size(1 << 24)
            .handshake::<_, Bytes>(stream)
            .await
            .unwrap();
        tokio::task::spawn_local(connection);
        let mut client = client.ready().await.unwrap();
        let (response, mut stream) = client.send_request(head(RANGE), false).unwrap();
        stream
            .send_data(
                frame(&pb::RangeRequest {
                    key: "k".into(),
                    ..Default::default()
                }),
                true,
            )
            .unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(call(&client, PUT, &put()).await.code, 0);
        assert!(core.edge.held_bytes() > 1_000_000);
        core.clock.advance(Duration::from_secs(60));
        settle().await;
        assert_eq!(core.edge.held_bytes(), 0);
        while let Some(Ok(_)) = body.data().await {}
        assert_eq!(call(&client, PUT, &put()).await.code, 0);
    });
}

/// Goal: half-sent messages are counted, time out, and their memory comes back.
#[test]
fn half_messages() {
    run(async {
        let config = EdgeConfig {
            held_bytes_max: 100_000,
            ..EdgeConfig::default()
        };
        let core = Core::start(config, accept);
        let (client, _server) = core.client().await;
        let part = Bytes::from([&[0, 0, 1, 0, 0][..], &[1; 40_000]].concat());
        let mut streams = Vec::new();
        for _ in 0..3 {
            let mut client = client.clone().ready().await.unwrap();
            let (response, mut stream) = client.send_request(head(PUT), false).unwrap();
            stream.send_data(part.clone(), false).unwrap();
            settle().await;
            streams.push((response, stream));
        }
        assert!(core.edge.held_bytes() <= 100_000);
        let (refused, _) = streams.pop().unwrap();
        let reply = finish(refused).await.unwrap();
        assert_eq!(
            (reply.code, &*reply.message),
            (2, "etcdserver: too many requests")
        );
        core.clock.advance(Duration::from_secs(60));
        settle().await;
        assert_eq!(core.edge.held_bytes(), 0);
        assert_eq!(call(&client, PUT, &put()).await.code, 0);
    });
}

/// Goal: a client's deadline ends a call that still waits for its message.
#[test]
fn deadlines_of_clients() {
    run(async {
        let core = Core::start(EdgeConfig::default(), |_| None);
        let (client, _server) = core.client().await;
        let with_timeout = |timeout: &str| {
            let mut request = head(PUT);
            request
                .headers_mut()
                .insert("grpc-timeout", timeout.parse().unwrap());
            request
        };
        let mut sender = client.clone().ready().await.unwrap();
        let (response, _stream) = sender.send_request(with_timeout("1S"), false).unwrap();
        settle().await;
        core.clock.advance(Duration::from_secs(1));
        let reply = finish(response).await.unwrap();
        assert_eq!(
            (reply.code, &*reply.message),
            (4, "context deadline exceeded")
        );
        // The shard gets the earlier of both limits.
        for (timeout, expected) in [("2S", 3), ("1H", 8)] {
            let (_response, mut stream) =
                sender.send_request(with_timeout(timeout), false).unwrap();
            stream.send_data(frame(&put()), true).unwrap();
            settle().await;
            let deadline = core.unanswered.borrow().last().unwrap().deadline;
            assert_eq!(deadline.0, expected * 1_000_000_000, "{timeout}");
        }
    });
}

/// Goal: a call the client has reset leaves nothing behind, and its late answer disturbs nobody.
#[test]
fn reset_while_the_shard_works() {
    run(async {
        let core = Core::start(EdgeConfig::default(), |_| None);
        let (client, _server) = core.client().await;
        let mut sender = client.clone().ready().await.unwrap();
        let (response, mut stream) = sender.send_request(head(PUT), false).unwrap();
        stream.send_data(frame(&put()), true).unwrap();
        settle().await;
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
        let (response, mut stream) = sender.send_request(head(PUT), false).unwrap();
        stream.send_data(frame(&put()), true).unwrap();
        settle().await;
        core.answer_oldest(Err(Refusal::NoLeader));
        core.answer_oldest(Ok(Response::Put(PutResponse::default())));
        assert_eq!(finish(response).await.unwrap().code, 0);
        assert_eq!(core.edge.held_bytes(), 0);
    });
}

/// Goal: a shutdown lets calls finish, takes no new ones, and ends; stragglers are cut off.
#[test]
fn drain() {
    run(async {
        let core = Core::start(EdgeConfig::default(), |_| None);
        let (client, server) = core.client().await;
        let mut sender = client.clone().ready().await.unwrap();
        let (response, mut stream) = sender.send_request(head(PUT), false).unwrap();
        stream.send_data(frame(&put()), true).unwrap();
        settle().await;
        let (straggler, straggler_server) = core.client().await;
        let mut straggler = straggler.ready().await.unwrap();
        let (_late, mut stream) = straggler.send_request(head(PUT), false).unwrap();
        stream.send_data(frame(&put()), true).unwrap();
        settle().await;
        core.edge.stop();
        settle().await;
        assert!(sender.ready().await.is_err(), "no new streams");
        let (mut refused, refused_server) = core.connect(4_096);
        assert!(read_all(&mut refused).await.is_empty());
        refused_server.await.unwrap();
        core.answer_oldest(Ok(Response::Put(PutResponse::default())));
        assert_eq!(finish(response).await.unwrap().code, 0);
        drop(client);
        server.await.unwrap();
        assert!(!straggler_server.is_finished());
        core.clock.advance(Duration::from_secs(5));
        straggler_server.await.unwrap();
        assert_eq!(
            (core.edge.connection_count(), core.edge.held_bytes()),
            (0, 0)
        );
    });
}

/// Goal: connections, streams and the shard's queue have their bounds, each with its answer.
#[test]
fn bounds() {
    run(async {
        let config = EdgeConfig {
            connections_max: 1,
            streams_per_connection_max: 2,
            ..EdgeConfig::default()
        };
        let core = Core::start(config, |_| None);
        let (client, _server) = core.client().await;
        let (mut refused, _refused_server) = core.connect(4_096);
        assert!(read_all(&mut refused).await.is_empty());
        assert_eq!(core.edge.counters().refused.get(), 1);
        settle().await;
        let mut sender = client.clone().ready().await.unwrap();
        for _ in 0..2 {
            let (_, mut stream) = sender.send_request(head(PUT), false).unwrap();
            stream.send_data(frame(&put()), false).unwrap();
            std::mem::forget(stream);
            sender = sender.ready().await.unwrap();
            settle().await;
        }
        assert_eq!(core.unanswered.borrow().len(), 2);
    });
}

/// Goal: over HTTP/1.1 only listed hosts are served; over HTTP/2 every host is.
#[test]
fn hosts() {
    run(async {
        let config = EdgeConfig {
            hosts: Allowed::These(vec!["listed".to_owned()]),
            ..EdgeConfig::default()
        };
        let core = Core::start(config, accept);
        let (mut client, _server) = core.connect(1 << 16);
        for (request, expected) in [
            (
                "GET /version HTTP/1.1\r\nHost: listed:2379\r\n\r\n",
                "HTTP/1.1 200",
            ),
            (
                "GET /version HTTP/1.1\r\nHost: evil\r\n\r\n",
                "HTTP/1.1 421",
            ),
            ("OPTIONS / HTTP/1.1\r\nHost: evil\r\n\r\n", "HTTP/1.1 421"),
            (
                "GET http://listed/version HTTP/1.1\r\nHost: evil\r\n\r\n",
                "HTTP/1.1 200",
            ),
            ("GET /version HTTP/1.0\r\n\r\n", "HTTP/1.0 421"),
        ] {
            client.write_all(request.as_bytes()).await.unwrap();
            let page = String::from_utf8(read_some(&mut client).await).unwrap();
            assert!(page.starts_with(expected), "{request}: {page}");
        }
        still_serves(&core).await;
    });
}

/// Goal: HTTP/1.1 on the same port: pages, health, keep-alive and its end.
#[test]
fn http1() {
    run(async {
        let core = Core::start(EdgeConfig::default(), |request| {
            Some(Ok(match request {
                Request::Status => Response::Status(Box::new(Status {
                    leader: crate::support::IDENTITY.member,
                    ..Status::default()
                })),
                Request::Range(_) => Response::Range(RangeResponse::default()),
                other => panic!("{other:?}"),
            }))
        });
        let (mut client, server) = core.connect(1 << 16);
        let mut exchange = async |request: &str| {
            client.write_all(request.as_bytes()).await.unwrap();
            String::from_utf8(read_some(&mut client).await).unwrap()
        };
        let version = exchange("GET /version HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert!(version.starts_with("HTTP/1.1 200 OK\r\n"), "{version}");
        assert!(
            version.ends_with(r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#),
            "{version}"
        );
        assert!(
            version.contains("access-control-allow-origin: *\r\n"),
            "{version}"
        );
        let health = exchange("GET /health HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert!(
            health.ends_with(r#"{"health":"true","reason":""}"#),
            "{health}"
        );
        let ready = exchange("GET /readyz?verbose HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert!(
            ready.ends_with("[+]linearizable_read ok\n[+]non_learner ok\nok\n"),
            "{ready}"
        );
        let refused = exchange("DELETE /health HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert!(
            refused.starts_with("HTTP/1.1 405") && refused.contains("allow: GET\r\n"),
            "{refused}"
        );
        assert!(
            exchange("GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n")
                .await
                .starts_with("HTTP/1.1 404")
        );
        let options = exchange("OPTIONS /v3/kv/put HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert!(
            options.starts_with("HTTP/1.1 200") && options.contains("content-length: 0\r\n"),
            "{options}"
        );
        core.clock.advance(Duration::from_secs(30));
        settle().await;
        assert!(!server.is_finished(), "it was busy until now");
        core.clock.advance(Duration::from_secs(30));
        server.await.unwrap();
        // Whoever closes the sending side after the request gets the answer.
        let (mut client, server) = core.connect(1 << 16);
        client
            .write_all(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
            .await
            .unwrap();
        client.shutdown().await.unwrap();
        let health = String::from_utf8(read_all(&mut client).await).unwrap();
        assert!(health.starts_with("HTTP/1.1 200 OK\r\n"), "{health}");
        server.await.unwrap();
        // A head without end.
        let (mut client, server) = core.connect(1 << 16);
        client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        while !server.is_finished()
            && client
                .write_all(b"a: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n")
                .await
                .is_ok()
        {
            settle().await;
        }
        assert!(read_all(&mut client).await.starts_with(b"HTTP/1.1 431"));
        server.await.unwrap();
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Goal: no bytes behind a valid preface break anything.
    #[test]
    fn random_frames(frames in prop::collection::vec((0..12_u8, any::<u8>(), 0..6_u32, prop::collection::vec(any::<u8>(), 0..64)), 0..20)) {
        run(async move {
            let core = Core::start(EdgeConfig::default(), accept);
            let (mut client, server) = core.connect(1 << 20);
            client.write_all(PREFACE).await.unwrap();
            client.write_all(&http2_frame(1, 4, 1, &header_block(PUT))).await.unwrap();
            for (kind, flags, stream, payload) in frames {
                if client.write_all(&http2_frame(kind, flags, stream, &payload)).await.is_err() {
                    break;
                }
                settle().await;
            }
            let _ = client.shutdown().await;
            drop(client);
            settle().await;
            server.await.unwrap();
            prop_assert_eq!(core.edge.held_bytes(), 0);
            Ok(())
        })?;
    }

    /// Goal: no message bytes break a call or its connection.
    #[test]
    fn random_messages(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..10)) {
        run(async move {
            let core = Core::start(EdgeConfig::default(), accept);
            let (client, _server) = core.client().await;
            for body in bodies {
                let framed = [&[0, 0, 0, 0, u8::try_from(body.len()).unwrap()][..], &body].concat();
                for path in [PUT, RANGE, "/etcdserverpb.KV/Txn", "/etcdserverpb.KV/DeleteRange", "/etcdserverpb.Maintenance/Alarm"] {
                    call_raw(&client, head(path), framed.clone().into()).await;
                }
                call_raw(&client, head(PUT), body.into()).await;
            }
        });
    }
}
