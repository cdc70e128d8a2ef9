//! The edge on a real core with real sockets: what the in-memory tests cannot show is that wake-ups of
//! the executor reach a connection, however reads and writes meet.

use std::rc::Rc;
use std::sync::mpsc;

use bytes::Bytes;
use kontiki::base::CoreId;
use kontiki::keyspace::request::{KeyValue, PutResponse, RangeResponse};
use kontiki::rpc::pb::etcdserverpb as pb;
use kontiki::rpc::{CoreClock, Edge, EdgeConfig, serve_connection};
use kontiki::runtime::clock::Clock;
use kontiki::runtime::executor::{self, Queue};
use kontiki::runtime::net::{self, Sharing};
use kontiki::runtime::router::{Doorbell, Outbound, Router};
use kontiki::shard::event::{Answer, Header, Request, Response};

use crate::support::{IDENTITY, call, run};

/// Answers puts with nothing and reads with a value of as many bytes as the limit says; those that want
/// keys only, with that many keys of a KiB.
async fn shard(doorbell: Rc<Doorbell>, outbound: Rc<Outbound>, router: Rc<Router>) {
    let mut batch = Vec::new();
    loop {
        doorbell.wait().await;
        outbound.take_into(&mut batch);
        router.deliver(batch.drain(..).map(|request| Answer {
            ticket: request.ticket,
            header: Header::default(),
            result: Ok(match request.request {
                Request::Range(range) if range.keys_only => Response::Range(RangeResponse {
                    kvs: vec![
                        KeyValue {
                            key: range.range.key,
                            value: vec![7; 1_024].into(),
                            ..KeyValue::default()
                        };
                        usize::try_from(range.limit).unwrap()
                    ],
                    more: true,
                    count: range.limit,
                }),
                Request::Range(range) => Response::Range(RangeResponse {
                    kvs: vec![KeyValue {
                        key: range.range.key,
                        value: vec![7; usize::try_from(range.limit).unwrap()].into(),
                        ..KeyValue::default()
                    }],
                    more: false,
                    count: 1,
                }),
                _ => Response::Put(PutResponse::default()),
            }),
        }));
    }
}

/// Keys of an answer of some 50 MiB.
const LARGE_KEYS: i64 = 50_000;

/// Goal: large and small calls, many at once over several connections, all come back; then the core stops.
#[test]
fn calls_over_tcp() {
    let (address, told) = mpsc::channel();
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    let core = std::thread::spawn(move || {
        let served = async move {
            let listener = net::open("127.0.0.1:0".parse().unwrap(), 1, Sharing::Exclusive)
                .unwrap()
                .remove(0);
            address.send(listener.local_addr()).unwrap();
            let doorbell = Rc::new(Doorbell::default());
            let outbound = Rc::new(Outbound::new(Rc::clone(&doorbell)));
            let router = Router::new(CoreId(0), vec![Rc::clone(&outbound)]);
            let clock = Rc::new(CoreClock(Clock::new()));
            let edge = Edge::new(IDENTITY, EdgeConfig::default(), Rc::clone(&router), clock);
            let shard = executor::spawn_local(Queue::Shard, shard(doorbell, outbound, router));
            let accepting = Rc::clone(&edge);
            let listening = executor::spawn_local(
                Queue::Connections,
                listener.serve(move |accepted| {
                    let serving = serve_connection(accepted.into_stream(), Rc::clone(&accepting));
                    executor::spawn_local(Queue::Connections, serving).detach();
                }),
            );
            (&mut stopped).await.unwrap();
            edge.stop();
            while edge.connection_count() > 0 {
                executor::sleep(std::time::Duration::from_millis(1)).await;
            }
            listening.cancel().await;
            shard.cancel().await;
            edge.held_bytes()
        };
        executor::run(served).unwrap()
    });
    let address = told.recv().unwrap();
    run(async move {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let (client, connection) = h2::client::Builder::new()
                .initial_window_size(1 << 20)
                .initial_connection_window_size(1 << 21)
                .handshake::<_, Bytes>(stream)
                .await
                .unwrap();
            tokio::task::spawn_local(connection);
            for number in 0..50_i64 {
                let client = client.clone();
                tasks.spawn_local(async move {
                    let value = vec![b'v'; usize::try_from(number).unwrap() * 5_000];
                    let put = pb::PutRequest {
                        key: "k".into(),
                        value: value.into(),
                        ..Default::default()
                    };
                    assert_eq!(call(&client, "/etcdserverpb.KV/Put", &put).await.code, 0);
                    let range = pb::RangeRequest {
                        key: "k".into(),
                        limit: number * 40_000,
                        ..Default::default()
                    };
                    let reply: pb::RangeResponse = call(&client, "/etcdserverpb.KV/Range", &range)
                        .await
                        .message();
                    assert_eq!(reply.kvs[0].value.len() as i64, number * 40_000);
                });
            }
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        // A large answer to one, and small ones to another meanwhile.
        let mut clients = Vec::new();
        for _ in 0..2 {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let (client, connection) = h2::client::Builder::new()
                .initial_window_size(1 << 30)
                .initial_connection_window_size(1 << 30)
                .handshake::<_, Bytes>(stream)
                .await
                .unwrap();
            tokio::task::spawn_local(connection);
            clients.push(client);
        }
        let (small, large) = (clients.remove(0), clients.remove(0));
        let range = |limit, keys_only| pb::RangeRequest {
            key: "k".into(),
            limit,
            keys_only,
            ..Default::default()
        };
        let large = tokio::task::spawn_local(async move {
            let request = range(LARGE_KEYS, true);
            let reply = call(&large, "/etcdserverpb.KV/Range", &request).await;
            let reply: pb::RangeResponse = reply.message();
            assert!(reply.kvs.iter().all(|kv| kv.value.len() == 1_024));
            (reply.kvs.len() as i64, reply.count, reply.more)
        });
        let mut beside = 0;
        while !large.is_finished() {
            let reply = call(&small, "/etcdserverpb.KV/Range", &range(9, false)).await;
            assert_eq!(reply.message::<pb::RangeResponse>().kvs[0].value.len(), 9);
            beside += 1;
        }
        assert_eq!(large.await.unwrap(), (LARGE_KEYS, LARGE_KEYS, true));
        assert!(beside > 0, "{beside} calls while the large answer left");
        stop.send(()).unwrap();
    });
    assert_eq!(core.join().unwrap(), 0, "nothing is held in the end");
}
