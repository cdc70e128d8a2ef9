//! KV scenarios with the Rust client of etcd: the same code against a real etcd and against kontiki. Each states
//! what must hold; a server that the client can tell from etcd fails.

use etcd_client::{
    AlarmAction, AlarmType, Client, CompactionOptions, Compare, CompareOp, DeleteOptions, Error,
    GetOptions, GetResponse, KvClientPrefix, PutOptions, SortOrder, SortTarget, Txn, TxnOp,
    TxnOpResponse,
};
use kontiki_client_tests::{Kind, Member};

const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const OUT_OF_RANGE: i32 = 11;

/// Runs one scenario on an empty member of each kind.
async fn on_both(scenario: impl AsyncFn(&mut Client, &Member)) {
    for kind in Kind::ALL {
        let member = Member::start(kind)
            .await
            .unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        let mut client = Client::connect([member.address()], None)
            .await
            .expect("the member is healthy");
        scenario(&mut client, &member).await;
        drop(client);
        member
            .stop()
            .await
            .unwrap_or_else(|error| panic!("{kind:?}: {error}"));
    }
}

/// The keys of an answer, in its order.
fn keys(answer: &GetResponse) -> Vec<&str> {
    answer
        .kvs()
        .iter()
        .map(|kv| kv.key_str().expect("keys of these tests are text"))
        .collect()
}

/// The value of the only key of an answer.
fn value(answer: &GetResponse) -> &str {
    let [kv] = answer.kvs() else {
        panic!("one key expected: {answer:?}")
    };
    kv.value_str().expect("values of these tests are text")
}

/// Checks that a call was refused with a code and a message.
fn refused<T: std::fmt::Debug>(result: Result<T, Error>, code: i32, message: &str) {
    match result {
        Err(Error::GRpcStatus(status)) => {
            assert_eq!((status.code() as i32, status.message()), (code, message));
        }
        other => panic!("{message:?} expected, got {other:?}"),
    }
}

async fn seed(client: &mut Client, pairs: &[(&str, &str)]) {
    for (key, value) in pairs {
        client.put(*key, *value, None).await.expect("a plain put");
    }
}

/// What was put is read back, now and at old revisions, with its counters.
#[tokio::test]
async fn put_and_get() {
    on_both(async |client: &mut Client, _: &Member| {
        let first = client.put("key", "one", None).await.expect("put");
        assert_eq!(first.header().map(|header| header.revision()), Some(2));
        let second = client
            .put("key", "two", Some(PutOptions::new().with_prev_key()))
            .await
            .expect("put");
        assert_eq!(second.prev_key().map(|kv| kv.value()), Some(&b"one"[..]));
        let got = client.get("key", None).await.expect("get");
        assert_eq!(value(&got), "two");
        let kv = &got.kvs()[0];
        assert_eq!(
            (
                kv.create_revision(),
                kv.mod_revision(),
                kv.version(),
                kv.lease()
            ),
            (2, 3, 2, 0)
        );
        let old = client
            .get("key", Some(GetOptions::new().with_revision(2)))
            .await
            .expect("get");
        assert_eq!(value(&old), "one");
        assert_eq!(old.header().map(|header| header.revision()), Some(3));
        client
            .put("key", "", Some(PutOptions::new().with_ignore_value()))
            .await
            .expect("put");
        client
            .put("key", "three", Some(PutOptions::new().with_ignore_lease()))
            .await
            .expect("put");
        let got = client
            .get("key", Some(GetOptions::new().with_serializable()))
            .await
            .expect("get");
        assert_eq!((value(&got), got.kvs()[0].version()), ("three", 4));
        client
            .put([0u8, 255, 10], [0u8, 1, 255], None)
            .await
            .expect("put");
        let binary = client.get([0u8, 255, 10], None).await.expect("get");
        assert_eq!(binary.kvs()[0].value(), [0u8, 1, 255]);
        assert!(
            client
                .get("missing", None)
                .await
                .expect("get")
                .kvs()
                .is_empty()
        );
    })
    .await;
}

/// Every option of a read gives what its name says.
#[tokio::test]
async fn range_options() {
    on_both(async |client: &mut Client, _: &Member| {
        seed(
            client,
            &[
                ("p/b", "3"),
                ("p/a", "1"),
                ("p/c", "2"),
                ("q", "4"),
                ("p/a", "5"),
            ],
        )
        .await;
        let prefix = || GetOptions::new().with_prefix();
        for (what, key, options, expected) in [
            ("prefix", "p/", prefix(), &["p/a", "p/b", "p/c"][..]),
            (
                "all",
                "",
                GetOptions::new().with_all_keys(),
                &["p/a", "p/b", "p/c", "q"],
            ),
            (
                "from",
                "p/b",
                GetOptions::new().with_from_key(),
                &["p/b", "p/c", "q"],
            ),
            (
                "range",
                "p/a",
                GetOptions::new().with_range("p/c"),
                &["p/a", "p/b"],
            ),
            ("limit", "p/", prefix().with_limit(2), &["p/a", "p/b"]),
            (
                "descending",
                "p/",
                prefix().with_sort(SortTarget::Key, SortOrder::Descend),
                &["p/c", "p/b", "p/a"],
            ),
            (
                "value",
                "p/",
                prefix().with_sort(SortTarget::Value, SortOrder::Ascend),
                &["p/c", "p/b", "p/a"],
            ),
            (
                "create",
                "p/",
                prefix().with_sort(SortTarget::Create, SortOrder::Ascend),
                &["p/b", "p/a", "p/c"],
            ),
            (
                "mod",
                "p/",
                prefix().with_sort(SortTarget::Mod, SortOrder::Descend),
                &["p/a", "p/c", "p/b"],
            ),
            (
                "version",
                "p/",
                prefix()
                    .with_sort(SortTarget::Version, SortOrder::Descend)
                    .with_limit(1),
                &["p/a"],
            ),
            (
                "min mod",
                "p/",
                prefix().with_min_mod_revision(4),
                &["p/a", "p/c"],
            ),
            ("max mod", "p/", prefix().with_max_mod_revision(3), &["p/b"]),
            (
                "min create",
                "p/",
                prefix().with_min_create_revision(4),
                &["p/c"],
            ),
            (
                "max create",
                "p/",
                prefix().with_max_create_revision(3),
                &["p/a", "p/b"],
            ),
        ] {
            assert_eq!(
                keys(&client.get(key, Some(options)).await.expect("get")),
                expected,
                "{what}"
            );
        }
        let limited = client
            .get("p/", Some(prefix().with_limit(2)))
            .await
            .expect("get");
        assert_eq!((limited.more(), limited.count()), (true, 3));
        let counted = client
            .get("p/", Some(prefix().with_count_only()))
            .await
            .expect("get");
        assert_eq!(
            (counted.more(), counted.count(), counted.kvs().len()),
            (false, 3, 0)
        );
        let named = client
            .get("p/", Some(prefix().with_keys_only()))
            .await
            .expect("get");
        assert!(named.kvs().len() == 3 && named.kvs().iter().all(|kv| kv.value().is_empty()));
    })
    .await;
}

/// Deletions answer how many and what; history keeps them; a recreated key starts again.
#[tokio::test]
async fn delete() {
    on_both(async |client: &mut Client, _: &Member| {
        seed(
            client,
            &[("d/a", "1"), ("d/b", "2"), ("d/c", "3"), ("e", "4")],
        )
        .await;
        let one = client
            .delete("d/a", Some(DeleteOptions::new().with_prev_key()))
            .await
            .expect("delete");
        assert_eq!((one.deleted(), one.prev_kvs()[0].value()), (1, &b"1"[..]));
        let none = client.delete("d/a", None).await.expect("delete");
        assert_eq!(none.deleted(), 0);
        assert_eq!(none.header().map(|header| header.revision()), Some(6));
        let prefix = client
            .delete(
                "d/",
                Some(DeleteOptions::new().with_prefix().with_prev_key()),
            )
            .await
            .expect("delete");
        assert_eq!((prefix.deleted(), prefix.prev_kvs().len()), (2, 2));
        let rest = client
            .delete("a", Some(DeleteOptions::new().with_from_key()))
            .await
            .expect("delete");
        assert_eq!(rest.deleted(), 1);
        let before = client
            .get("", Some(GetOptions::new().with_all_keys().with_revision(5)))
            .await
            .expect("get");
        assert_eq!(keys(&before), ["d/a", "d/b", "d/c", "e"]);
        seed(client, &[("d/a", "again")]).await;
        assert_eq!(
            client.get("d/a", None).await.expect("get").kvs()[0].version(),
            1
        );
    })
    .await;
}

/// A txn compares, writes at one revision, and reads its own writes.
#[tokio::test]
async fn txn() {
    on_both(async |client: &mut Client, _: &Member| {
        seed(client, &[("x", "1"), ("y", "2")]).await;
        let done = client
            .txn(
                Txn::new()
                    .when([
                        Compare::value("x", CompareOp::Equal, "1"),
                        Compare::version("missing", CompareOp::Equal, 0),
                        Compare::mod_revision("y", CompareOp::Greater, 2),
                        Compare::create_revision("a", CompareOp::Less, 4).with_range("z"),
                        Compare::lease("x", CompareOp::NotEqual, 7),
                    ])
                    .and_then([
                        TxnOp::put("z", "3", None),
                        TxnOp::get("z", None),
                        TxnOp::delete("y", Some(DeleteOptions::new().with_prev_key())),
                        TxnOp::txn(
                            Txn::new()
                                .when([Compare::value("y", CompareOp::Equal, "2")])
                                .and_then([TxnOp::get(
                                    "",
                                    Some(GetOptions::new().with_all_keys()),
                                )]),
                        ),
                    ])
                    .or_else([TxnOp::get("x", None)]),
            )
            .await
            .expect("txn");
        assert!(done.succeeded());
        assert_eq!(done.header().map(|header| header.revision()), Some(4));
        let [
            TxnOpResponse::Put(_),
            TxnOpResponse::Get(own),
            TxnOpResponse::Delete(gone),
            TxnOpResponse::Txn(nested),
        ] = &done.op_responses()[..]
        else {
            panic!("the kinds of answers follow the operations: {done:?}");
        };
        assert_eq!(value(own), "3");
        assert_eq!(gone.prev_kvs()[0].value(), b"2");
        // The nested compare saw y as it was before, its read sees it gone.
        assert!(nested.succeeded());
        let [TxnOpResponse::Get(left)] = &nested.op_responses()[..] else {
            panic!("{nested:?}")
        };
        assert_eq!(keys(left), ["x", "z"]);
        let failed = client
            .txn(
                Txn::new()
                    .when([Compare::value("x", CompareOp::Greater, "1")])
                    .and_then([TxnOp::put("x", "never", None)])
                    .or_else([TxnOp::get("x", None)]),
            )
            .await
            .expect("txn");
        assert!(!failed.succeeded());
        assert_eq!(failed.header().map(|header| header.revision()), Some(4));
        assert!(client.txn(Txn::new()).await.expect("txn").succeeded());
    })
    .await;
}

/// Refusals carry etcd's codes and texts.
#[tokio::test]
async fn refusals() {
    on_both(async |client: &mut Client, _: &Member| {
        seed(client, &[("k", "1"), ("k", "2"), ("k", "3")]).await;
        let at = |revision| Some(GetOptions::new().with_revision(revision));
        refused(
            client.put("", "v", None).await,
            INVALID_ARGUMENT,
            "etcdserver: key is not provided",
        );
        refused(
            client.get("", None).await,
            INVALID_ARGUMENT,
            "etcdserver: key is not provided",
        );
        refused(
            client.delete("", None).await,
            INVALID_ARGUMENT,
            "etcdserver: key is not provided",
        );
        refused(
            client
                .put("k", "v", Some(PutOptions::new().with_lease(77)))
                .await,
            NOT_FOUND,
            "etcdserver: requested lease not found",
        );
        refused(
            client
                .put("k", "v", Some(PutOptions::new().with_ignore_value()))
                .await,
            INVALID_ARGUMENT,
            "etcdserver: value is provided",
        );
        refused(
            client
                .put("missing", "", Some(PutOptions::new().with_ignore_value()))
                .await,
            INVALID_ARGUMENT,
            "etcdserver: key not found",
        );
        refused(
            client.get("k", at(99)).await,
            OUT_OF_RANGE,
            "etcdserver: mvcc: required revision is a future revision",
        );
        let twice = Txn::new().and_then([TxnOp::put("a", "1", None), TxnOp::put("a", "2", None)]);
        refused(
            client.txn(twice).await,
            INVALID_ARGUMENT,
            "etcdserver: duplicate key given in txn request",
        );
        let many = Txn::new().and_then(vec![TxnOp::get("k", None); 129]);
        refused(
            client.txn(many).await,
            INVALID_ARGUMENT,
            "etcdserver: too many operations in txn request",
        );
        refused(
            client.put("k", vec![b'x'; 1_600_000], None).await,
            INVALID_ARGUMENT,
            "etcdserver: request is too large",
        );
        client.compact(3, None).await.expect("compact");
        refused(
            client.get("k", at(2)).await,
            OUT_OF_RANGE,
            "etcdserver: mvcc: required revision has been compacted",
        );
        refused(
            client.compact(3, None).await,
            OUT_OF_RANGE,
            "etcdserver: mvcc: required revision has been compacted",
        );
        refused(
            client.compact(99, None).await,
            OUT_OF_RANGE,
            "etcdserver: mvcc: required revision is a future revision",
        );
        client
            .compact(4, Some(CompactionOptions::new().with_physical()))
            .await
            .expect("compact");
        assert_eq!(value(&client.get("k", at(4)).await.expect("get")), "3");
    })
    .await;
}

/// A prefix that the client adds and removes by itself.
#[tokio::test]
async fn namespace() {
    on_both(async |client: &mut Client, _: &Member| {
        let mut inside = KvClientPrefix::new(client.kv_client(), b"space/".to_vec());
        inside.put("a", "1", None).await.expect("put");
        inside.put("b", "2", None).await.expect("put");
        seed(client, &[("spacf", "outside")]).await;
        let got = inside
            .get("a", Some(GetOptions::new().with_range("c")))
            .await
            .expect("get");
        assert_eq!(keys(&got), ["a", "b"]);
        let gone = inside
            .delete("a", Some(DeleteOptions::new().with_range("c")))
            .await
            .expect("delete");
        assert_eq!(gone.deleted(), 2);
        assert_eq!(
            keys(
                &client
                    .get("", Some(GetOptions::new().with_all_keys()))
                    .await
                    .expect("get")
            ),
            ["spacf"]
        );
    })
    .await;
}

/// Many tasks add to one counter by compare-and-put on one connection; no increment is lost.
#[tokio::test]
async fn counter() {
    const TASKS: i64 = 8;
    const INCREMENTS: i64 = 20;
    on_both(async |client: &mut Client, _: &Member| {
        let mut tasks = Vec::new();
        for _ in 0..TASKS {
            let mut client = client.clone();
            tasks.push(tokio::spawn(async move {
                for _ in 0..INCREMENTS {
                    increment(&mut client).await;
                }
            }));
        }
        for task in tasks {
            task.await.expect("the task did not panic");
        }
        let got = client.get("counter", None).await.expect("get");
        assert_eq!(value(&got), (TASKS * INCREMENTS).to_string());
        assert_eq!(got.kvs()[0].version(), TASKS * INCREMENTS);
        assert_eq!(
            got.header().map(|header| header.revision()),
            Some(TASKS * INCREMENTS + 1)
        );
    })
    .await;
}

async fn increment(client: &mut Client) {
    loop {
        let got = client.get("counter", None).await.expect("get");
        let (number, revision) = match got.kvs() {
            [kv] => (
                kv.value_str()
                    .expect("text")
                    .parse::<i64>()
                    .expect("a number"),
                kv.mod_revision(),
            ),
            _ => (0, 0),
        };
        let put = Txn::new()
            .when([Compare::mod_revision("counter", CompareOp::Equal, revision)])
            .and_then([TxnOp::put("counter", (number + 1).to_string(), None)]);
        if client.txn(put).await.expect("txn").succeeded() {
            return;
        }
    }
}

/// What a client learns about the member and the cluster.
#[tokio::test]
async fn member_and_status() {
    on_both(async |client: &mut Client, member: &Member| {
        seed(client, &[("k", "v")]).await;
        let list = client.member_list().await.expect("member list");
        let [only] = list.members() else {
            panic!("one member: {list:?}")
        };
        assert_eq!((only.name(), only.is_learner()), ("default", false));
        assert_eq!(only.peer_urls(), ["http://localhost:2380"]);
        assert_eq!(only.client_urls(), [format!("http://{}", member.address())]);
        let status = client.status().await.expect("status");
        assert_eq!(status.leader(), only.id());
        assert_eq!(status.header().map(|header| header.revision()), Some(2));
        assert!(status.raft_term() >= 1 && status.raft_index() > 0 && status.errors().is_empty());
        let alarms = client
            .alarm(AlarmAction::Get, AlarmType::None, None)
            .await
            .expect("alarms");
        assert!(alarms.alarms().is_empty());
    })
    .await;
}

/// A megabyte goes in and comes out unchanged.
#[tokio::test]
async fn large_values() {
    on_both(async |client: &mut Client, _: &Member| {
        let large: Vec<u8> = (0..1_048_576_u32).map(|i| (i % 251) as u8).collect();
        for key in ["large-1", "large-2", "large-3"] {
            client.put(key, large.clone(), None).await.expect("put");
        }
        let got = client
            .get("large-", Some(GetOptions::new().with_prefix()))
            .await
            .expect("get");
        assert!(got.kvs().len() == 3 && got.kvs().iter().all(|kv| kv.value() == large));
    })
    .await;
}

/// A streamed read says what a plain one says; an etcd older than 3.7 does not have it.
#[tokio::test]
async fn range_stream() {
    on_both(async |client: &mut Client, member: &Member| {
        for i in 0..40 {
            seed(client, &[(&format!("s/{i:02}"), "v")]).await;
        }
        let options = || Some(GetOptions::new().with_prefix().with_limit(35));
        let plain = client.get("s/", options()).await.expect("get");
        let mut streamed = Vec::new();
        let mut last = None;
        let mut stream = match client.kv_client().get_stream("s/", options()).await {
            Ok(stream) => stream,
            Err(Error::GRpcStatus(status)) if member.kind() == Kind::Etcd => {
                assert_eq!(
                    status.message(),
                    "unknown method RangeStream for service etcdserverpb.KV"
                );
                return;
            }
            Err(error) => panic!("{error}"),
        };
        while let Some(chunk) = stream.message().await.expect("chunk") {
            streamed.extend(chunk.kvs().iter().map(|kv| kv.key().to_vec()));
            last = chunk
                .header()
                .map(|header| (header.revision(), chunk.more(), chunk.count()));
        }
        assert_eq!(
            streamed,
            plain
                .kvs()
                .iter()
                .map(|kv| kv.key().to_vec())
                .collect::<Vec<_>>()
        );
        assert_eq!(last, Some((41, true, 40)));
    })
    .await;
}
