//! The command line, the environment and the configuration file: a configuration or an error that
//! exits with a code, never a panic.
//!
//! The input is text of three parts separated by a zero byte: words of the command line, one a line;
//! variables, one a line; the file.

#![no_main]

use kontiki::config::{ConfigFile, Invocation, config_file, parse};
use kontiki_fuzz::write_seeds_if_asked;
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: write_seeds_if_asked(seeds),
    |data: &[u8]| {
        let mut parts = data.splitn(3, |byte| *byte == 0);
        let mut text = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        let words: Vec<String> = text().lines().map(str::to_owned).collect();
        let environment: Vec<(String, String)> = text()
            .lines()
            .map(|line| line.split_once('=').unwrap_or((line, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let bytes = parts.next();
        let named = config_file(&words, &environment);
        let file = bytes.map(|bytes| ConfigFile {
            path: "etcd.yml",
            bytes,
        });
        match parse(&words, &environment, file.as_ref()) {
            Ok(Invocation::Run(config, notices)) => {
                assert!(named.is_ok(), "what is read as a whole is read for the file's name");
                std::hint::black_box((config, notices));
            }
            Ok(Invocation::Print(text)) => assert!(!text.is_empty()),
            Err(error) => {
                assert!(error.exit_code() > 0, "an error is no success");
                assert!(!error.to_string().is_empty(), "an error says what is wrong");
            }
        }
    }
);

fn seeds() -> Vec<Vec<u8>> {
    let line = "--name\nn1\n--data-dir=/d\n--listen-client-urls\nhttp://127.0.0.1:2379\n\
                --advertise-client-urls=http://127.0.0.1:2379\n--initial-cluster=n1=http://localhost:2380";
    let variables =
        "ETCD_NAME=n1\nETCD_HEARTBEAT_INTERVAL=100\nETCD_UNKNOWN=1\nKONTIKI_CORES=0,2-3";
    let yaml = "name: n1\ndata-dir: /d\nelection-timeout: 1000\nheartbeat-interval: 100\n\
                initial-cluster: n1=http://localhost:2380\ncors: '*'\nlog-outputs: [stderr]\n";
    let json = "{\"name\": \"n1\", \"quota-backend-bytes\": 1000000, \"snapshot-count\": 10000}";
    let seed = |words: &str, variables: &str, file: Option<&str>| {
        let mut seed = format!("{words}\0{variables}");
        if let Some(file) = file {
            seed.push('\0');
            seed.push_str(file);
        }
        seed.into_bytes()
    };
    vec![
        seed("", "", None),
        seed(line, "", None),
        seed("", variables, None),
        seed("--config-file=etcd.yml", "", Some(yaml)),
        seed("--config-file\netcd.yml", "", Some(json)),
        seed("--version", "", None),
        seed("-h", "", None),
        seed(
            "--cores=0-1\n--shards=1\n--wal-write=written\n--memory-budget-bytes=9",
            "",
            None,
        ),
        seed(
            "--quota-backend-bytes=-1\n--max-txn-ops=0\n--strict-reconfig-check=false",
            "",
            None,
        ),
    ]
}
