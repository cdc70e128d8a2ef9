//! Calls through the whole edge, from HTTP/2 frames to the shard and back.

use crate::support::{Core, call, call_raw, finish, frame, head, run, settle};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use kontiki::base::limits::EDGE_PIECE_PAUSE;
use kontiki::base::{LeaseId, MemberId};
use kontiki::keyspace::request::{
    KeyValue, PutResponse, RangeResponse, Refusal as KeyspaceRefusal, ResponseOp, TxnResponse,
};
use kontiki::rpc::EdgeConfig;
use kontiki::rpc::pb::etcdserverpb as pb;
use kontiki::rpc::pb::health;
use kontiki::shard::event::{Member, Refusal, Request, Response, Status};

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const RANGE_STREAM: &str = "/etcdserverpb.KV/RangeStream";

fn put(key: &'static str, size: usize) -> pb::PutRequest {
    pb::PutRequest {
        key: key.into(),
        value: vec![b'v'; size].into(),
        ..pb::PutRequest::default()
    }
}

fn accept(_: &Request) -> Option<Result<Response, Refusal>> {
    Some(Ok(Response::Put(PutResponse::default())))
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader {
        cluster_id: 0xc,
        member_id: 0xb,
        revision,
        raft_term: 7,
    })
}

/// Goal: requests arrive as they were sent, and answers with header, fields and status.
#[test]
fn unary_calls() {
    run(async {
        let core = Core::start(EdgeConfig::default(), |request| {
            Some(Ok(match request {
                Request::Put(put) => {
                    assert_eq!(
                        (&*put.key, put.value.len(), put.lease),
                        (&b"k"[..], 300, LeaseId(0))
                    );
                    Response::Put(PutResponse::default())
                }
                Request::Range(range) => {
                    assert_eq!((range.limit, range.serializable), (3, true));
                    let kv = KeyValue {
                        key: "k".into(),
                        value: "v".into(),
                        version: 2,
                        ..KeyValue::default()
                    };
                    Response::Range(RangeResponse {
                        kvs: vec![kv],
                        more: true,
                        count: 9,
                    })
                }
                Request::Txn(_) => Response::Txn(TxnResponse {
                    succeeded: true,
                    responses: vec![
                        ResponseOp::Put {
                            revision: 5,
                            response: PutResponse::default(),
                        },
                        ResponseOp::Txn(TxnResponse::default()),
                    ],
                }),
                Request::Compact {
                    revision: 4,
                    physical: true,
                } => Response::Compact,
                Request::Status => Response::Status(Box::new(Status {
                    leader: MemberId(0xb),
                    ..Status::default()
                })),
                Request::MemberList { linearizable: true } => Response::MemberList(vec![
                    Member {
                        id: MemberId(9),
                        ..Member::default()
                    },
                    Member {
                        id: MemberId(3),
                        ..Member::default()
                    },
                ]),
                other => panic!("{other:?}"),
            }))
        });
        let (client, _server) = core.client().await;
        let reply: pb::PutResponse = call(&client, PUT, &put("k", 300)).await.message();
        assert_eq!(reply.header, header(42));

        let request = pb::RangeRequest {
            key: "k".into(),
            limit: 3,
            serializable: true,
            ..Default::default()
        };
        let reply: pb::RangeResponse = call(&client, RANGE, &request).await.message();
        assert_eq!(
            (reply.header, reply.more, reply.count),
            (header(42), true, 9)
        );
        assert_eq!((&*reply.kvs[0].value, reply.kvs[0].version), (&b"v"[..], 2));

        let reply: pb::TxnResponse =
            call(&client, "/etcdserverpb.KV/Txn", &pb::TxnRequest::default())
                .await
                .message();
        assert_eq!((reply.header, reply.succeeded), (header(42), true));
        let headers: Vec<_> = reply
            .responses
            .into_iter()
            .map(|op| match op.response {
                Some(pb::response_op::Response::ResponsePut(put)) => put.header,
                Some(pb::response_op::Response::ResponseTxn(txn)) => txn.header,
                other => panic!("{other:?}"),
            })
            .collect();
        let revision = |revision| {
            Some(pb::ResponseHeader {
                revision,
                ..Default::default()
            })
        };
        assert_eq!(headers, [revision(5), revision(0)]);

        let request = pb::CompactionRequest {
            revision: 4,
            physical: true,
        };
        let reply: pb::CompactionResponse = call(&client, "/etcdserverpb.KV/Compact", &request)
            .await
            .message();
        assert_eq!(reply.header, header(42));

        let reply: pb::StatusResponse = call(
            &client,
            "/etcdserverpb.Maintenance/Status",
            &pb::StatusRequest {},
        )
        .await
        .message();
        assert_eq!(
            (&*reply.version, &*reply.storage_version),
            ("3.7.1", "3.7.0")
        );
        assert_eq!(
            (reply.errors.len(), reply.downgrade_info),
            (0, Some(pb::DowngradeInfo::default()))
        );

        let request = pb::MemberListRequest { linearizable: true };
        let reply: pb::MemberListResponse =
            call(&client, "/etcdserverpb.Cluster/MemberList", &request)
                .await
                .message();
        assert_eq!(
            reply.header,
            header(0),
            "the member service knows no revision"
        );
        assert_eq!(
            reply
                .members
                .iter()
                .map(|member| member.id)
                .collect::<Vec<_>>(),
            [3, 9]
        );
    });
}

/// Goal: a request is the same however its bytes are cut into DATA frames.
#[test]
fn frames_cut_anywhere() {
    run(async {
        let core = Core::start(EdgeConfig::default(), accept);
        let (client, _server) = core.client().await;
        let bytes = frame(&put("k", 20));
        for cut in 0..bytes.len() {
            let mut client = client.clone().ready().await.unwrap();
            let (response, mut stream) = client.send_request(head(PUT), false).unwrap();
            stream.send_data(bytes.slice(..cut), false).unwrap();
            settle().await;
            stream.send_data(bytes.slice(cut..), true).unwrap();
            assert_eq!(finish(response).await.unwrap().code, 0, "cut at {cut}");
        }
        let mut client = client.clone().ready().await.unwrap();
        let (response, mut stream) = client.send_request(head(PUT), false).unwrap();
        for byte in 0..bytes.len() {
            stream.send_data(bytes.slice(byte..=byte), false).unwrap();
            settle().await;
        }
        // A unary call is answered when its message is whole, not when the stream ends.
        assert_eq!(finish(response).await.unwrap().code, 0);
        assert_eq!(core.edge.held_bytes(), 0);
    });
}

/// Goal: what cannot be a call is refused with gRPC's codes and texts, and the connection lives on.
#[test]
fn refused_by_framing() {
    run(async {
        let core = Core::start(EdgeConfig::default(), accept);
        let (client, _server) = core.client().await;
        let check = async |path: &str, body: Bytes, code: u32, message: &str| {
            let reply = call_raw(&client, head(path), body).await;
            assert_eq!((reply.code, &*reply.message), (code, message));
        };
        let body = frame(&put("k", 1));
        check(
            "/etcdserverpb.KV/Nope",
            body.clone(),
            12,
            "unknown method Nope for service etcdserverpb.KV",
        )
        .await;
        check(
            "/etcdserverpb.Lease/LeaseGrant",
            body.clone(),
            12,
            "unknown method LeaseGrant for service etcdserverpb.Lease",
        )
        .await;
        check("/a.B/C", body.clone(), 12, "unknown service a.B").await;
        check("/x", body.clone(), 12, "malformed method name: \"/x\"").await;
        check(
            PUT,
            Bytes::from_static(&[0, 0, 32, 0, 1]),
            8,
            "grpc: received message larger than max (2097153 vs. 2097152)",
        )
        .await;
        check(
            PUT,
            Bytes::from_static(&[1, 0, 0, 0, 0]),
            13,
            "grpc: compressed flag set with identity or empty encoding",
        )
        .await;
        check(PUT, Bytes::new(), 2, "EOF").await;
        check(
            PUT,
            Bytes::from_static(&[0, 0, 0, 0, 9, 1]),
            2,
            "unexpected EOF",
        )
        .await;
        let reply = call_raw(
            &client,
            head(PUT),
            Bytes::from_static(&[0, 0, 0, 0, 1, 0xff]),
        )
        .await;
        assert_eq!(reply.code, 13);
        assert!(
            reply
                .message
                .starts_with("grpc: error unmarshalling request: "),
            "{reply:?}"
        );
        check(
            PUT,
            frame(&put("k", 1_572_864)),
            3,
            "etcdserver: request is too large",
        )
        .await;
        check(
            PUT,
            frame(&put("", 1)),
            3,
            "etcdserver: key is not provided",
        )
        .await;
        check(PUT, body, 0, "").await;
    });
}

/// Goal: refusals of the shard reach the client as etcd's errors.
#[test]
fn refusals() {
    run(async {
        let core = Core::start(EdgeConfig::default(), |_| {
            Some(Err(Refusal::Keyspace(KeyspaceRefusal::Compacted)))
        });
        let (client, _server) = core.client().await;
        let request = pb::RangeRequest {
            key: "k".into(),
            revision: 1,
            ..Default::default()
        };
        let reply = call(&client, RANGE, &request).await;
        assert_eq!((reply.http_status, reply.code), (200, 11));
        assert_eq!(
            reply.message,
            "etcdserver: mvcc: required revision has been compacted"
        );
        let reply = call(&client, RANGE_STREAM, &request).await;
        assert_eq!((reply.code, reply.body.len()), (11, 0));
    });
}

/// Goal: many calls in flight on one connection are answered, each with its own answer.
#[test]
fn calls_do_not_mix() {
    run(async {
        let core = Core::start(EdgeConfig::default(), |request| match request {
            Request::Range(range) => {
                let count = range.limit;
                Some(Ok(Response::Range(RangeResponse {
                    count,
                    ..RangeResponse::default()
                })))
            }
            _ => None,
        });
        let (client, _server) = core.client().await;
        let mut responses = Vec::new();
        for limit in 0..1_000 {
            let mut client = client.clone().ready().await.unwrap();
            let (response, mut stream) = client.send_request(head(RANGE), false).unwrap();
            let request = pb::RangeRequest {
                key: "k".into(),
                limit,
                ..Default::default()
            };
            stream.send_data(frame(&request), true).unwrap();
            responses.push((limit, response));
        }
        for (limit, response) in responses {
            let reply: pb::RangeResponse = finish(response).await.unwrap().message();
            assert_eq!(reply.count, limit);
        }
        assert_eq!(core.edge.held_bytes(), 0);
    });
}

/// A shard with `count` keys of `size` bytes that answers pages.
fn pages(count: usize, size: usize) -> impl FnMut(&Request) -> Option<Result<Response, Refusal>> {
    move |request| {
        let Request::Range(range) = request else {
            return None;
        };
        let first = range.range.key[..]
            .try_into()
            .map_or(0, |key| u32::from_be_bytes(key) as usize);
        // A page's key is the last one with a zero byte behind it.
        let first = if range.range.key.len() == 5 {
            u32::from_be_bytes(range.range.key[..4].try_into().unwrap()) as usize + 1
        } else {
            first
        };
        let last = count.min(first + usize::try_from(range.limit).unwrap());
        let kvs = (first..last).map(|number| KeyValue {
            key: u32::try_from(number).unwrap().to_be_bytes().to_vec().into(),
            value: vec![0; size].into(),
            ..KeyValue::default()
        });
        let kvs: Vec<_> = kvs.collect();
        Some(Ok(Response::Range(RangeResponse {
            count: kvs.len() as i64,
            more: last < count,
            kvs,
        })))
    }
}

fn all_keys() -> pb::RangeRequest {
    pb::RangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        ..Default::default()
    }
}

/// Goal: a streamed read delivers everything once, and only the last piece has a header.
#[test]
fn streamed_reads() {
    run(async {
        let core = Core::start(EdgeConfig::default(), pages(3_000, 1_000));
        let (client, _server) = core.client().await;
        let reply = call(&client, RANGE_STREAM, &all_keys()).await;
        assert_eq!(reply.code, 0);
        let pieces: Vec<pb::RangeStreamResponse> = reply.messages();
        let mut pieces: Vec<_> = pieces
            .into_iter()
            .map(|piece| piece.range_response.unwrap())
            .collect();
        let keys: Vec<_> = pieces
            .iter()
            .flat_map(|piece| &piece.kvs)
            .map(|kv| kv.key.clone())
            .collect();
        assert_eq!(keys.len(), 3_000);
        assert!(keys.is_sorted());
        let last = pieces.pop().unwrap();
        assert_eq!(
            (last.header, last.more, last.count),
            (header(42), false, 3_000)
        );
        assert!(
            pieces
                .iter()
                .all(|piece| piece.header.is_none() && piece.count == 0)
        );
        assert_eq!(core.edge.held_bytes(), 0);
    });
}

/// Goal: a streamed read asks for no page beyond what its client takes.
#[test]
fn streamed_reads_wait_for_the_client() {
    run(async {
        let asked = std::rc::Rc::new(std::cell::Cell::new(0));
        let counter = std::rc::Rc::clone(&asked);
        let mut store = pages(100_000, 10_000);
        let core = Core::start(EdgeConfig::default(), move |request| {
            counter.set(counter.get() + 1);
            store(request)
        });
        let (stream, _server) = core.connect(1 << 20);
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::task::spawn_local(connection);
        let mut client = client.ready().await.unwrap();
        let (response, mut stream) = client.send_request(head(RANGE_STREAM), false).unwrap();
        stream.send_data(frame(&all_keys()), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        settle().await;
        let before = asked.get();
        settle().await;
        assert_eq!(asked.get(), before, "the window is full");
        assert!(
            before < 4,
            "64 KiB of window, {before} pages of 100 KB and more"
        );
        // Another call on the same core is not held up.
        let (other, _other_server) = core.client().await;
        let request = pb::RangeRequest {
            key: "k".into(),
            limit: 1,
            ..Default::default()
        };
        assert_eq!(call(&other, RANGE, &request).await.code, 0);
        let chunk = body.data().await.unwrap().unwrap();
        assert!(!chunk.is_empty());
        // The client loses interest: everything it held is given back.
        stream.send_reset(h2::Reason::CANCEL);
        settle().await;
        assert_eq!(core.edge.held_bytes(), 0);
    });
}

/// Goal: the health service answers, and its watch stays open until the server stops.
#[test]
fn health_service() {
    run(async {
        let core = Core::start(EdgeConfig::default(), accept);
        let (client, server) = core.client().await;
        let whole = health::HealthCheckRequest::default();
        let reply: health::HealthCheckResponse =
            call(&client, "/grpc.health.v1.Health/Check", &whole)
                .await
                .message();
        assert_eq!(reply.status, 1);
        let unknown = health::HealthCheckRequest {
            service: "x".to_owned(),
        };
        let reply = call(&client, "/grpc.health.v1.Health/Check", &unknown).await;
        assert_eq!((reply.code, &*reply.message), (5, "unknown service"));
        let mut client = client.clone().ready().await.unwrap();
        let (response, mut stream) = client
            .send_request(head("/grpc.health.v1.Health/Watch"), false)
            .unwrap();
        stream.send_data(frame(&unknown), true).unwrap();
        settle().await;
        core.edge.stop();
        let reply = finish(response).await.unwrap();
        assert_eq!(reply.messages::<health::HealthCheckResponse>()[0].status, 3);
        assert_eq!(
            (reply.code, &*reply.message),
            (14, "etcdserver: server stopped")
        );
        server.await.unwrap();
    });
}

/// Goal: a call that wants a leader is refused while there is none, and otherwise goes its way.
#[test]
fn leader_wanted() {
    run(async {
        let leader = Rc::new(Cell::new(MemberId(0)));
        let known = Rc::clone(&leader);
        let core = Core::start(EdgeConfig::default(), move |request| {
            Some(Ok(match request {
                Request::Status => Response::Status(Box::new(Status {
                    leader: known.get(),
                    ..Status::default()
                })),
                Request::Put(_) => Response::Put(PutResponse::default()),
                Request::Range(_) => Response::Range(RangeResponse::default()),
                other => panic!("{other:?}"),
            }))
        });
        let (client, _server) = core.client().await;
        let ask = async |path: &str, wants: &str, body: Bytes| {
            let mut request = head(path);
            let headers = request.headers_mut();
            headers.insert("hasleader", wants.parse().unwrap());
            let reply = call_raw(&client, request, body).await;
            (reply.code, reply.message)
        };
        let range = || {
            frame(&pb::RangeRequest {
                key: "k".into(),
                ..Default::default()
            })
        };
        let no_leader = (14, "etcdserver: no leader".to_owned());
        let fine = (0, String::new());
        assert_eq!(ask(PUT, "true", frame(&put("k", 1))).await, no_leader);
        assert_eq!(ask(RANGE_STREAM, "true", range()).await, no_leader);
        assert_eq!(ask(PUT, "false", frame(&put("k", 1))).await, fine);
        leader.set(MemberId(0xb));
        assert_eq!(ask(PUT, "true", frame(&put("k", 1))).await, fine);
        assert_eq!(ask(RANGE_STREAM, "true", range()).await, fine);
        assert_eq!(core.edge.held_bytes(), 0);
    });
}

/// A shard that answers reads of "large" with that many keys of 1 KiB, and all others with nothing.
fn many_keys(count: usize) -> impl FnMut(&Request) -> Option<Result<Response, Refusal>> {
    move |request| match request {
        Request::Range(range) => {
            let count = if &*range.range.key == b"large" {
                count
            } else {
                0
            };
            let kv = |number: usize| KeyValue {
                key: format!("{number:08}").into(),
                value: vec![b'v'; 1_024].into(),
                ..KeyValue::default()
            };
            Some(Ok(Response::Range(RangeResponse {
                kvs: (0..count).map(kv).collect(),
                more: false,
                count: count as i64,
            })))
        }
        other => accept(other),
    }
}

/// Goal: a large answer leaves a piece at a time, each after a pause in which other connections are
/// served, and arrives as a whole.
#[test]
fn large_answers_leave_in_pieces() {
    const COUNT: usize = 20_000;
    run(async {
        let core = Core::start(EdgeConfig::default(), many_keys(COUNT));
        let (client, _server) = core.client().await;
        let (other, _other_server) = core.client().await;
        let ask = |key: &'static str| pb::RangeRequest {
            key: key.into(),
            range_end: "z".into(),
            ..Default::default()
        };
        let large = tokio::task::spawn_local(async move {
            let reply = call(&client, RANGE, &ask("large")).await;
            reply.message::<pb::RangeResponse>()
        });
        let mut pauses = 0;
        while !large.is_finished() {
            let reply: pb::RangeResponse = call(&other, RANGE, &ask("small")).await.message();
            assert_eq!(reply.kvs.len(), 0);
            settle().await;
            // The answer's list of keys; its values are the keyspace's.
            let holds = core.edge.held_bytes();
            assert!(holds < 4 << 20, "{holds} bytes held");
            core.clock.advance(EDGE_PIECE_PAUSE);
            settle().await;
            pauses += 1;
        }
        assert!(pauses > COUNT / 1_024, "{pauses} pauses");
        let reply = large.await.unwrap();
        assert_eq!((reply.header, reply.count), (header(42), COUNT as i64));
        assert_eq!(reply.kvs.len(), COUNT);
        for (number, kv) in reply.kvs.iter().enumerate() {
            assert_eq!(kv.key, format!("{number:08}"));
            assert_eq!(kv.value.len(), 1_024);
        }
        assert_eq!(core.edge.held_bytes(), 0);
    });
}

/// Goal: a client that leaves in the middle of a large answer leaves nothing behind.
#[test]
fn large_answers_are_given_up() {
    run(async {
        let core = Core::start(EdgeConfig::default(), many_keys(20_000));
        for pauses in [0, 1, 12, 20] {
            let (client, _server) = core.client().await;
            let mut sender = client.clone().ready().await.unwrap();
            let (response, mut stream) = sender.send_request(head(RANGE), false).unwrap();
            let request = pb::RangeRequest {
                key: "large".into(),
                ..Default::default()
            };
            stream.send_data(frame(&request), true).unwrap();
            settle().await;
            for _ in 0..pauses {
                core.clock.advance(EDGE_PIECE_PAUSE);
                settle().await;
            }
            drop((response, stream));
            settle().await;
            core.clock.advance(EDGE_PIECE_PAUSE);
            settle().await;
            assert_eq!(core.edge.held_bytes(), 0, "after {pauses} pauses");
            let reply = call(&client, PUT, &put("k", 1)).await;
            assert_eq!(reply.code, 0);
        }
    });
}

/// Goal: unary calls that the shard answers late are noted, by the operator's measure.
#[test]
fn slow_calls_are_noted() {
    run(async {
        let config = EdgeConfig {
            slow_request: Duration::from_millis(250),
            ..EdgeConfig::default()
        };
        let core = Core::start(config, |_| None);
        let (client, _server) = core.client().await;
        for (millis, noted) in [(250, 0), (251, 1), (0, 1), (900, 2)] {
            let client = client.clone();
            let call =
                tokio::task::spawn_local(async move { call(&client, PUT, &put("k", 1)).await });
            settle().await;
            core.clock.advance(Duration::from_millis(millis));
            core.answer_oldest(Ok(Response::Put(PutResponse::default())));
            assert_eq!(call.await.unwrap().code, 0);
            assert_eq!(core.edge.counters().read().slow, noted, "after {millis} ms");
        }
    });
}
