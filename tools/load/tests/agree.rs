//! The hand-written client and one made with `h2` get the same answers from a real server.
//!
//! `KONTIKI_BIN` and `ETCD_BIN` name the servers; the first is the debug build of this checkout when absent, the
//! second is left out then.

#![allow(missing_docs, reason = "a test has no public items")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use kontiki_harness::client::{CallError as ReferenceError, Client, block_on};
use kontiki_harness::messages::{
    PUT, PutRequest, PutResponse, RANGE, RangeRequest, RangeResponse, TXN, TxnRequest, TxnResponse,
};
use kontiki_harness::server::{Server, ServerOptions};
use kontiki_load::wire::{CallError, Endpoint, Method, call};
use prost::Message;

/// An answer, or a refusal's code and text.
type Said<A> = Result<A, (u32, String)>;

fn servers() -> Vec<PathBuf> {
    let kontiki = std::env::var_os("KONTIKI_BIN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/debug/kontiki"),
        PathBuf::from,
    );
    assert!(
        kontiki.exists(),
        "{} is missing: run cargo build, or set KONTIKI_BIN",
        kontiki.display()
    );
    let etcd = std::env::var_os("ETCD_BIN").map(PathBuf::from);
    [kontiki].into_iter().chain(etcd).collect()
}

/// What each client hears; the reference first.
fn ask<A: Message + Default>(
    options: &ServerOptions,
    method: Method,
    path: &'static str,
    request: &impl Message,
) -> (Said<A>, Said<A>) {
    let reference = block_on(async {
        let client = Client::connect(options.client_address())
            .await
            .expect("a connection");
        client.call::<A>(path, request).await
    });
    let reference = reference.map_err(|error| match error {
        ReferenceError::Refused { code, message } => (code, message),
        other => panic!("{other}"),
    });
    let endpoint: Endpoint = options
        .client_address()
        .to_string()
        .parse()
        .expect("an endpoint");
    let own = call(
        &endpoint,
        None,
        method,
        &request.encode_to_vec(),
        Duration::from_secs(20),
    );
    let own = match own {
        Ok(message) => Ok(A::decode(&message[..]).expect("a message")),
        Err(CallError::Refused { code, message, .. }) => Err((code, message)),
        Err(other) => panic!("{other}"),
    };
    (reference, own)
}

/// Goal: values of every size, refusals and an unknown range end are heard alike by both clients.
#[test]
fn same_answers() {
    for program in servers() {
        let home = tempfile::tempdir().expect("a directory");
        let options = ServerOptions::new(&program, home.path()).expect("free ports");
        let server = Server::start(&options).expect("a server");
        for size in [0, 1, 1000, 20_000, 1_000_000] {
            let put = PutRequest {
                key: Bytes::from(format!("key-{size}")),
                value: vec![b'v'; size].into(),
            };
            let (reference, own) = ask::<PutResponse>(&options, Method::Put, PUT, &put);
            let (mut reference, own) = (reference.expect("a put"), own.expect("a put"));
            // The second put has the next revision, and all else is the same.
            reference.header.as_mut().expect("a header").revision += 1;
            assert_eq!(reference, own, "{size}");
        }
        let everything = RangeRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            ..RangeRequest::default()
        };
        let (reference, own) = ask::<RangeResponse>(&options, Method::Range, RANGE, &everything);
        assert_eq!(own.as_ref().expect("a range").kvs.len(), 5);
        assert_eq!(reference, own);
        let (reference, own) =
            ask::<PutResponse>(&options, Method::Put, PUT, &PutRequest::default());
        assert_eq!(own.as_ref().expect_err("an empty key").0, 3);
        assert_eq!(reference, own);
        let future = RangeRequest {
            key: Bytes::from_static(b"a"),
            revision: 1_000,
            ..RangeRequest::default()
        };
        let (reference, own) = ask::<RangeResponse>(&options, Method::Range, RANGE, &future);
        assert_eq!(own.as_ref().expect_err("a future revision").0, 11);
        assert_eq!(reference, own);
        let (reference, own) =
            ask::<TxnResponse>(&options, Method::Txn, TXN, &TxnRequest::default());
        assert_eq!(reference, own);
        server.kill().expect("it ends");
    }
}
