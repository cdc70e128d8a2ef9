//! Configuration from the outside: command line, environment and file in, a checked `Config` or a
//! refusal out.

use std::time::Duration;

use kontiki::config::{
    self, AllowList, ClusterState, Config, ConfigError, ConfigFile, Cores, Invocation, LogFormat,
    LogLevel, LogOutput, Notice, UrlFault, ValueError, WalWrite, flags,
};

type Parsed = Result<(Config, Vec<Notice>), ConfigError>;

fn read(line: &str, environment: &[(&str, &str)], file: Option<&str>) -> Parsed {
    let words: Vec<String> = line.split_whitespace().map(ToOwned::to_owned).collect();
    let environment: Vec<(String, String)> = environment
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    let file = file.map(|text| ConfigFile {
        path: "kontiki.yaml",
        bytes: text.as_bytes(),
    });
    match config::parse(&words, &environment, file.as_ref())? {
        Invocation::Run(config, notices) => Ok((*config, notices)),
        Invocation::Print(text) => panic!("printed instead of run: {text}"),
    }
}

#[track_caller]
fn run(line: &str) -> Config {
    read(line, &[], None)
        .unwrap_or_else(|error| panic!("{line}: {error}"))
        .0
}

/// `line` is refused with exactly this message and exit code.
#[track_caller]
fn check_refused(line: &str, message: &str, exit_code: u8) {
    let refused = read(line, &[], None).map(|(config, _)| config);
    let error = refused.expect_err(line);
    assert_eq!(
        (error.to_string().as_str(), error.exit_code()),
        (message, exit_code),
        "{line}"
    );
}

/// Goal: the defaults are etcd's, apart from the directory's name.
#[test]
fn defaults() {
    let config = run("");
    assert_eq!(config.name, "default");
    assert_eq!(config.data_dir.to_str(), Some("default.kontiki"));
    assert_eq!(config.wal_dir, None);
    assert_eq!(
        config.urls.listen_client[0].socket_address().to_string(),
        "127.0.0.1:2379"
    );
    assert_eq!(
        config.urls.listen_peer[0].socket_address().to_string(),
        "127.0.0.1:2380"
    );
    assert_eq!(
        config.urls.advertise_client[0].as_str(),
        "http://localhost:2379"
    );
    assert_eq!(
        config.urls.advertise_peer[0].as_str(),
        "http://localhost:2380"
    );
    assert_eq!(config.initial.state, ClusterState::New);
    let founding = config.initial.founding.expect("a cluster of one");
    assert_eq!(founding.member_id.to_string(), "8e9e05c52164694d");
    assert_eq!(founding.cluster_id.to_string(), "cdf818194e3a8c32");
    let [own] = founding.members.as_slice() else {
        panic!("{:?}", founding.members)
    };
    assert_eq!((own.id, own.name.as_str()), (founding.member_id, "default"));
    assert_eq!(config.raft.election_timeout, Duration::from_secs(1));
    assert_eq!(config.raft.heartbeat_interval, Duration::from_millis(100));
    assert!(config.raft.pre_vote);
    assert!(!config.reuse_port);
    assert_eq!(config.slow_request, Some(Duration::from_millis(300)));
    assert_eq!(config.limits.quota_bytes, Some(2_147_483_648));
    assert_eq!(config.limits.txn_operations_max, 128);
    assert_eq!(config.limits.request_size_bytes_max, 1_572_864);
    assert_eq!(config.limits.concurrent_streams_max, u32::MAX);
    assert_eq!(config.keepalive.min_time, Duration::from_secs(5));
    assert_eq!(config.keepalive.interval, Some(Duration::from_secs(7_200)));
    assert_eq!(config.keepalive.timeout, Some(Duration::from_secs(20)));
    assert_eq!(
        (config.cors, config.host_whitelist),
        (AllowList::Any, AllowList::Any)
    );
    assert_eq!(
        (config.log.level, config.log.format),
        (LogLevel::Info, LogFormat::Json)
    );
    assert_eq!(config.log.outputs, [LogOutput::Stderr]);
    assert_eq!(config.placement.cores, Cores::All);
    assert_eq!(config.placement.wal_write, WalWrite::Mapped);
    assert_eq!(config.memory_budget_bytes, None);
}

/// Goal: flags reach the fields they are for.
#[test]
fn flags_reach_the_config() {
    let config = run(
        "--name=m1 -data-dir /d --wal-dir=/w --quota-backend-bytes=-1 --max-txn-ops 9 \
         --max-request-bytes=0x100000 --socket-reuse-port --warning-unary-request-duration=0 \
         --max-concurrent-streams=0 --cors=a,b --host-whitelist= --cores=0,2-3 \
         --wal-write=written --memory-budget-bytes=1000 --log-outputs=stdout,/l,default,stderr --log-level=fatal \
         --log-format=console --grpc-keepalive-interval=0s --initial-cluster-state=existing \
         --initial-advertise-peer-urls=http://b:2,http://a:1 --initial-cluster=m1=http://a:1,m1=http://b:2",
    );
    assert_eq!(config.name, "m1");
    assert_eq!(config.data_dir.to_str(), Some("/d"));
    assert_eq!(
        config.wal_dir.as_deref().and_then(|path| path.to_str()),
        Some("/w")
    );
    assert_eq!(config.limits.quota_bytes, None);
    assert_eq!(config.limits.txn_operations_max, 9);
    assert_eq!(config.limits.request_size_bytes_max, 1 << 20);
    assert!(config.reuse_port);
    assert_eq!(config.slow_request, None);
    assert_eq!(config.limits.concurrent_streams_max, u32::MAX);
    assert_eq!(
        config.cors,
        AllowList::Only(vec!["a".to_owned(), "b".to_owned()])
    );
    assert_eq!(config.host_whitelist, AllowList::Any);
    assert_eq!(config.placement.cores, Cores::List(vec![0, 2, 3]));
    assert_eq!(config.placement.wal_write, WalWrite::Written);
    assert_eq!(config.memory_budget_bytes, Some(1_000));
    let outputs = [
        LogOutput::Stdout,
        LogOutput::File("/l".into()),
        LogOutput::Stderr,
    ];
    assert_eq!(config.log.outputs, outputs);
    assert_eq!(
        (config.log.level, config.log.format),
        (LogLevel::Error, LogFormat::Console)
    );
    assert_eq!(config.keepalive.interval, None);
    assert_eq!(config.initial.state, ClusterState::Existing);
    let peers: Vec<_> = config
        .urls
        .advertise_peer
        .iter()
        .map(config::Url::as_str)
        .collect();
    assert_eq!(peers, ["http://a:1", "http://b:2"]);
}

/// Goal: each thing that etcd refuses is refused, in words that name the flag.
#[test]
fn refusals() {
    check_refused("--nmae=a", "flag provided but not defined: -nmae", 2);
    check_refused("gateway start", "\"gateway\" is not a valid flag", 2);
    check_refused("--name", "flag needs an argument: -name", 2);
    check_refused(
        "--pre-vote=perhaps",
        "invalid value \"perhaps\" for --pre-vote: not true or false",
        2,
    );
    check_refused(
        "--heartbeat-interval=0",
        "--heartbeat-interval must be >0 (set to 0ms)",
        1,
    );
    check_refused(
        "--election-timeout=0",
        "--election-timeout must be >0 (set to 0ms)",
        1,
    );
    check_refused(
        "--heartbeat-interval=201",
        "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[201ms]",
        1,
    );
    check_refused(
        "--election-timeout=50001",
        "--election-timeout[50001ms] is too long, and should be set less than 50000ms",
        1,
    );
    run("--election-timeout=50000");
    run("--heartbeat-interval=200");
    check_refused(
        "--listen-client-urls=http://0.0.0.0:2379",
        "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        1,
    );
    check_refused(
        "--listen-peer-urls=http://a.example:2380",
        "--listen-peer-urls: expected an IP address or \"localhost\" in a URL to listen on: \"http://a.example:2380\"",
        1,
    );
    check_refused(
        "--initial-cluster-state=old",
        "--initial-cluster-state: \"old\" is not one of new, existing",
        1,
    );
    check_refused(
        "--logger=capnslog",
        "--logger: \"capnslog\" is not one of zap",
        1,
    );
    check_refused(
        "--max-request-bytes=15728641",
        "--max-request-bytes=15728641 is out of range: it must be 1 to 15728640 (the largest entry of the log)",
        1,
    );
    check_refused(
        "--cores=0",
        "--cores: \"0\" is not one of all, a count, or CPU numbers such as 0,2-3",
        1,
    );
    check_refused(
        "--grpc-keepalive-timeout=-1s",
        "--grpc-keepalive-timeout=-1000000000ns is out of range: it must be zero or more",
        1,
    );
}

/// Goal: member and cluster ids of a group are those that a real etcd computes, whoever computes them.
#[test]
fn ids_of_a_group() {
    const LISTED: &str =
        "infra1=http://127.0.0.1:12380,infra2=http://127.0.0.1:22380,infra3=http://127.0.0.1:32380";
    let check = |name: &str, port: u16, id: &str| {
        let config = run(&format!(
            "--name={name} --initial-advertise-peer-urls=http://127.0.0.1:{port} --initial-cluster={LISTED} \
             --initial-cluster-token=etcd-cluster-1"
        ));
        let founding = config.initial.founding.expect("founded");
        assert_eq!(founding.member_id.to_string(), id);
        assert_eq!(founding.cluster_id.to_string(), "ef37ad9dc622a7c4");
        founding.members
    };
    let members = check("infra1", 12_380, "8211f1d0f64f3269");
    assert_eq!(check("infra2", 22_380, "91bc3c398fb3c146"), members);
    assert_eq!(check("infra3", 32_380, "fd422379fda50e48"), members);
    let names: Vec<_> = members.iter().map(|member| &member.name).collect();
    assert_eq!(names, ["infra1", "infra2", "infra3"]);
}

/// Goal: what cannot found a cluster says why, and is no reason to refuse the flags: a member that has its data
/// never looks at it.
#[test]
fn unsound_initial_clusters() {
    #[track_caller]
    fn check(line: &str, message: &str) {
        let refused = run(line).initial.founding.expect_err(line);
        assert_eq!(
            (refused.to_string().as_str(), refused.exit_code()),
            (message, 1),
            "{line}"
        );
    }
    check(
        "--initial-cluster=a=http://localhost:2380",
        "--initial-cluster: couldn't find local name \"default\" in the initial cluster configuration: add \
         \"default=<its peer URL>\" or change --name",
    );
    check(
        "--initial-cluster=default",
        "--initial-cluster: \"default\" does not have the form name=url",
    );
    check(
        "--initial-cluster=default=http://localhost:2380,=http://b:2380",
        "--initial-cluster: \"=http://b:2380\" does not have the form name=url",
    );
    check(
        "--initial-cluster=default=http://localhost:2380,b=b:2380",
        "--initial-cluster: URL scheme must be http, https, unix, or unixs: \"b:2380\"",
    );
    check(
        "--initial-cluster=default=http://127.0.0.1:2380",
        "--initial-cluster gives this member the peer URLs \"http://127.0.0.1:2380\", \
         --initial-advertise-peer-urls \"http://localhost:2380\": they must be the same, letter by letter",
    );
    check(
        "--initial-cluster=default=http://localhost:2380,b=http://b:1,c=http://b:1",
        "initial cluster default=http://localhost:2380,b=http://b:1,c=http://b:1 has duplicate url http://b:1",
    );
    check(
        "--initial-cluster=default=http://localhost:2380,default=http://localhost:2380 \
         --initial-advertise-peer-urls=http://localhost:2380,http://localhost:2380",
        "initial cluster default=http://localhost:2380,default=http://localhost:2380 has duplicate url \
         http://localhost:2380",
    );
    let many: Vec<_> = (0..65).map(|n| format!("m{n}=http://m{n}:1")).collect();
    check(
        &format!("--initial-cluster={}", many.join(",")),
        "--initial-cluster names 65 members; a cluster has at most 64",
    );
}

/// Goal: every flag of a missing feature is refused by name with code 2 and a remedy, but not with its
/// default; every flag without meaning is accepted and noted once.
#[test]
fn every_flag_keeps_its_promise() {
    for flag in flags::FLAGS {
        let other = match flag.kind {
            config::Kind::Bool if flag.default == "true" => "false",
            config::Kind::Bool => "true",
            config::Kind::Duration => "77s",
            config::Kind::Text => "other",
            config::Kind::Int | config::Kind::Uint | config::Kind::Uint32 => "77",
        };
        match flag.support {
            flags::Support::Works => {}
            flags::Support::NotYet(remedy) => {
                run(&format!("--{}={}", flag.name, flag.default));
                let line = format!("--{}={other}", flag.name);
                if flag.name == "feature-gates" {
                    check_refused(
                        &line,
                        "--feature-gates: \"other\" is not a known gate with =true or =false",
                        1,
                    );
                    continue;
                }
                let error = read(&line, &[], None)
                    .map(|(config, _)| config)
                    .expect_err(&line);
                let text = error.to_string();
                assert_eq!(error.exit_code(), 2, "{line}");
                assert!(
                    text.contains(&format!("--{}=", flag.name)) && text.ends_with(remedy),
                    "{text}"
                );
            }
            flags::Support::NoMeaning(_) => {
                let line = format!("--{0}={other} --{0}={other}", flag.name);
                let (_, notices) = read(&line, &[], None).expect(&line);
                let about = |notice: &&Notice| {
                    notice
                        .fields
                        .contains(&("option", format!("--{}", flag.name)))
                };
                assert_eq!(notices.iter().filter(about).count(), 1, "{line}");
            }
        }
    }
    check_refused(
        "--unsafe-no-fsync",
        "--unsafe-no-fsync=true asks for what this version of kontiki does not do yet: every acknowledged write is \
         synced, always; for fast tests put --data-dir on tmpfs",
        2,
    );
    assert_eq!(
        read("--shards=2", &[], None)
            .expect_err("one shard")
            .exit_code(),
        2
    );
    run("--feature-gates=InitialCorruptCheck=false");
}

/// Goal: what kubeadm of the 3.5 days writes for a member without TLS starts.
#[test]
fn a_line_as_kubeadm_writes_it() {
    let config = run(
        "--advertise-client-urls=http://10.0.0.1:2379 --data-dir=/var/lib/etcd \
         --experimental-initial-corrupt-check=true --experimental-watch-progress-notify-interval=5s \
         --initial-advertise-peer-urls=http://10.0.0.1:2380 --initial-cluster=cp=http://10.0.0.1:2380 \
         --listen-client-urls=http://127.0.0.1:2379,http://10.0.0.1:2379 --listen-peer-urls=http://10.0.0.1:2380 \
         --name=cp --snapshot-count=10000",
    );
    assert_eq!(config.urls.listen_client.len(), 2);
}

/// Goal: variables count when flags are silent; both is an error that names both; strangers are noted.
#[test]
fn environment() {
    let (config, notices) = read(
        "--socket-reuse-port",
        &[
            ("ETCD_NAME", "m2"),
            ("KONTIKI_CORES", "2"),
            ("ETCD_DATA_DIR", ""),
            ("ETCD_DATA_DRI", "x"),
            ("HOME", "/"),
        ],
        None,
    )
    .expect("accepted");
    assert_eq!(
        (config.name.as_str(), config.placement.cores),
        ("m2", Cores::Count(2))
    );
    assert!(config.reuse_port);
    assert_eq!(config.data_dir.to_str(), Some("m2.kontiki"));
    let fields: Vec<_> = notices
        .iter()
        .flat_map(|notice| notice.fields.clone())
        .collect();
    assert_eq!(
        fields,
        [("environment-variable", "ETCD_DATA_DRI".to_owned())]
    );

    let error = read("--name=m1", &[("ETCD_NAME", "m1")], None).expect_err("both are set");
    assert_eq!(
        error,
        ConfigError::Shadowed {
            name: "name",
            variable: "ETCD_NAME".to_owned()
        }
    );
    assert!(error.to_string().contains("ETCD_NAME") && error.to_string().contains("--name"));
    let error = read("", &[("ETCD_HEARTBEAT_INTERVAL", "x")], None).expect_err("no number");
    let place = "ETCD_HEARTBEAT_INTERVAL".to_owned();
    assert_eq!(
        error,
        ConfigError::InvalidValue {
            place,
            value: "x".to_owned(),
            reason: ValueError::NotNumber
        }
    );
    let error = read("", &[("ETCD_CERT_FILE", "c")], None).expect_err("TLS");
    assert!(
        error.to_string().starts_with("ETCD_CERT_FILE=c asks for"),
        "{error}"
    );
    // Not a flag, and common in scripts: named in a warning and otherwise ignored, as etcd does.
    let (_, notices) = read("--name=a", &[("ETCD_VERSION", "v3.5.0")], None).expect("accepted");
    assert_eq!(notices.len(), 1);
}

/// Goal: a file alone counts; its path comes from the flag, else from the environment.
#[test]
fn file() {
    let words = ["--config-file=a".to_owned(), "--name=from-flag".to_owned()];
    let environment = [
        ("ETCD_CONFIG_FILE".to_owned(), "b".to_owned()),
        ("ETCD_NAME".to_owned(), "from-variable".to_owned()),
    ];
    assert_eq!(
        config::config_file(&words, &environment),
        Ok(Some("a".to_owned()))
    );
    assert_eq!(
        config::config_file(&[], &environment),
        Ok(Some("b".to_owned()))
    );
    assert_eq!(config::config_file(&[], &[]), Ok(None));

    let file = ConfigFile {
        path: "a",
        bytes: b"election-timeout: 2000\nunknown: 1\n",
    };
    let parsed = config::parse(&words, &environment, Some(&file));
    let Ok(Invocation::Run(config, notices)) = parsed else {
        panic!("{parsed:?}")
    };
    assert_eq!(config.name, "default");
    assert_eq!(config.raft.election_timeout, Duration::from_secs(2));
    assert!(
        notices
            .iter()
            .any(|notice| notice.fields == [("path", "a".to_owned())])
    );
    assert!(
        notices
            .iter()
            .any(|notice| notice.fields == [("option", "unknown".to_owned())])
    );

    let nested = read("", &[], Some("peer-transport-security: {cert-file: c}")).expect_err("TLS");
    assert!(
        nested
            .to_string()
            .starts_with("peer-transport-security.cert-file=c asks for"),
        "{nested}"
    );
    let alone = read("", &[], Some("listen-client-urls: http://10.0.0.1:2379"));
    assert_eq!(
        alone.map(|(config, _)| config),
        Err(ConfigError::AdvertiseClientUrlsRequired)
    );
    let https = read("", &[], Some("listen-peer-urls: https://10.0.0.1:2380"));
    assert!(matches!(
        https,
        Err(ConfigError::Url {
            fault: UrlFault::SchemeNotYet,
            ..
        })
    ));
}

/// Goal: help and version are printed whatever else the line says, if its form is right.
#[test]
fn printed() {
    let print =
        |word: &str| match config::parse(&["--name=a".to_owned(), word.to_owned()], &[], None) {
            Ok(Invocation::Print(text)) => text,
            other => panic!("{other:?}"),
        };
    assert_eq!(print("-h"), config::usage());
    let version = print("--version");
    assert!(
        version.starts_with("kontiki ")
            && version.lines().any(|line| line == "etcd Version: 3.7.1")
    );
    for flag in flags::FLAGS
        .iter()
        .filter(|flag| flag.group != flags::Group::Older)
    {
        assert!(
            config::usage().contains(&format!("--{} '", flag.name)),
            "{}",
            flag.name
        );
    }
}

/// Goal: the page about configuration lists the flags as they are.
#[test]
fn the_page_is_current() {
    let page = include_str!("../docs/configuration.md");
    assert!(
        page.contains(&config::markdown()),
        "docs/configuration.md wants:\n{}",
        config::markdown()
    );
}

proptest::proptest! {
    /// Goal: no line, environment or file makes the parser panic.
    #[test]
    fn never_panics(
        words in proptest::collection::vec("(--?[a-z-]{0,12}(=[ -~]{0,9})?|[ -~]{0,9})", 0..4),
        value in "\\PC{0,20}",
        file in proptest::option::of("([a-z-]{0,9}: [ -~]{0,9}\n|[ -~\n]{0,40})"),
        row in 0..flags::FLAGS.len(),
    ) {
        let environment = [(flags::FLAGS[row].variable(), value.clone())];
        let file = file.as_deref().map(|text| ConfigFile { path: "f", bytes: text.as_bytes() });
        let _ = config::config_file(&words, &environment);
        let _ = config::parse(&words, &environment, file.as_ref());
        let keyed = format!("{}: {value}", flags::FLAGS[row].name);
        let _ = config::parse(&[], &[], Some(&ConfigFile { path: "f", bytes: keyed.as_bytes() }));
        let flagged = [format!("--{}={value}", flags::FLAGS[row].name)];
        let _ = config::parse(&flagged, &[], None);
    }
}
