//! The checked-in protobuf types are what `proto/` says.
//!
//! `REWRITE=1 cargo test --test rpc_pb` writes them anew after a change in `proto/`; a plain run
//! compares. No outside compiler is needed.

use std::path::Path;

/// The protobuf package and the file its types live in.
const FILES: [(&str, &str); 5] = [
    ("authpb", "authpb.rs"),
    ("etcdserverpb", "etcdserverpb.rs"),
    ("grpc.health.v1", "health.rs"),
    ("kontiki", "kontiki.rs"),
    ("mvccpb", "mvccpb.rs"),
];

/// Goal: nobody edits generated code, and nobody forgets to generate it.
#[test]
fn generated_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let set = protox::compile(
        ["rpc.proto", "health.proto", "kontiki.proto"],
        [root.join("proto")],
    )
    .expect("proto/ compiles");
    let modules = set.file.into_iter().map(|file| {
        let module = prost_build::Module::from_protobuf_package_name(file.package());
        (module, file)
    });
    let mut config = prost_build::Config::new();
    config.bytes(["."]).btree_map(["."]);
    let mut generated = config
        .generate(modules.collect())
        .expect("descriptors turn into code");
    for (package, name) in FILES {
        let code = generated
            .remove(&prost_build::Module::from_protobuf_package_name(package))
            .expect("every package generates code");
        let path = root.join("src/rpc/pb").join(name);
        if std::env::var_os("REWRITE").is_some() {
            std::fs::write(&path, code).expect("src/rpc/pb is writable");
            continue;
        }
        let present = std::fs::read_to_string(&path).expect("generated code is checked in");
        assert!(
            present == code,
            "{name} is stale: run with REWRITE=1 and commit the result"
        );
    }
    assert!(generated.is_empty(), "a package without a file in FILES");
}
