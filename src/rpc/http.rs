//! The HTTP/1.1 side as a function: which path asks for what, and what each answer says.
//!
//! Pure: `http1` fetches what a check needs from the shard and comes back with it. Paths, bodies and
//! headers are etcd's, since probes and dashboards read them.

use super::edge::Allowed;
use super::status::Status;
use super::version;
use crate::keyspace::request::{KeyRange, RangeRequest};
use crate::shard::event::{Alarm, AlarmKind};

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// A fixed answer.
    Page(Page),
    /// `/health`.
    Health {
        /// Alarms that do not count, by name.
        exclude: Vec<String>,
        /// Ask this member alone.
        serializable: bool,
    },
    /// `/livez` and `/readyz`, whole or one check of them.
    Checks {
        /// What to look at, in this order.
        checks: Vec<Check>,
        /// Name each check in the answer.
        verbose: bool,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// The HTTP status.
    pub(super) status: u16,
    /// The body's type, when it has one.
    pub(super) content_type: Option<&'static str>,
    /// Tells browsers to believe the type.
    pub(super) nosniff: bool,
    /// Methods the path takes, with a 405.
    pub(super) allow: Option<&'static str>,
    /// The body.
    pub(super) body: String,
}

/// One thing to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// No corruption alarm is raised.
    DataCorruption,
    /// This member answers from its own state.
    SerializableRead,
    /// A quorum answers.
    LinearizableRead,
    /// This member has a vote.
    NonLearner,
}

const LIVEZ: [Check; 1] = [Check::SerializableRead];
const READYZ: [Check; 4] = [
    Check::DataCorruption,
    Check::SerializableRead,
    Check::LinearizableRead,
    Check::NonLearner,
];
const PLAIN: &str = "text/plain; charset=utf-8";

impl Check {
    /// The name in paths and answers.
    pub(super) fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }
}

impl Page {
    fn plain(status: u16, body: String) -> Page {
        Page {
            status,
            content_type: Some(PLAIN),
            nosniff: true,
            allow: None,
            body,
        }
    }

    fn json(status: u16, body: String) -> Page {
        Page {
            status,
            content_type: Some("application/json"),
            nosniff: false,
            allow: None,
            body,
        }
    }
}

/// Finds what a request asks for.
pub(super) fn route(method: &str, path: &str, query: Option<&str>) -> Route {
    if method == "OPTIONS" {
        return Route::Page(Page {
            status: 200,
            content_type: None,
            nosniff: false,
            allow: None,
            body: String::new(),
        });
    }
    let parameters: Vec<(String, String)> =
        url::form_urlencoded::parse(query.unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    let get = |route: Route| {
        if method == "GET" {
            return route;
        }
        Route::Page(Page {
            allow: Some("GET"),
            ..Page::plain(405, "Method Not Allowed\n".to_owned())
        })
    };
    match path {
        "/version" => get(Route::Page(version_page())),
        "/health" => get(Route::Health {
            exclude: values(&parameters, "exclude"),
            serializable: values(&parameters, "serializable")
                .first()
                .is_some_and(|value| value == "true"),
        }),
        _ => match find_checks(path) {
            Some(checks) => {
                let exclude = values(&parameters, "exclude");
                let included = |check: &Check| !exclude.iter().any(|name| name == check.name());
                get(Route::Checks {
                    checks: checks.into_iter().filter(included).collect(),
                    verbose: parameters.iter().any(|(name, _)| name == "verbose"),
                })
            }
            None => Route::Page(Page::plain(404, "404 page not found\n".to_owned())),
        },
    }
}

fn values(parameters: &[(String, String)], name: &str) -> Vec<String> {
    let named = parameters.iter().filter(|parameter| parameter.0 == name);
    named.map(|parameter| parameter.1.clone()).collect()
}

/// The checks behind a path: all of a family, or the one named after it.
fn find_checks(path: &str) -> Option<Vec<Check>> {
    let (family, checks) = if let Some(rest) = path.strip_prefix("/livez") {
        (rest, &LIVEZ[..])
    } else if let Some(rest) = path.strip_prefix("/readyz") {
        (rest, &READYZ[..])
    } else {
        return None;
    };
    if family.is_empty() {
        return Some(checks.to_vec());
    }
    let name = family.strip_prefix('/')?;
    let check = checks.iter().find(|check| check.name() == name)?;
    Some(vec![*check])
}

fn version_page() -> Page {
    let (server, cluster, storage) = (version::SERVER, version::CLUSTER, version::STORAGE);
    Page::json(
        200,
        format!(r#"{{"etcdserver":"{server}","etcdcluster":"{cluster}","storage":"{storage}"}}"#),
    )
}

/// The read of one key that shows whether reads work.
pub(super) fn probe(serializable: bool) -> RangeRequest {
    RangeRequest {
        range: KeyRange {
            key: b"\0"[..].into(),
            range_end: b"\0"[..].into(),
        },
        limit: 1,
        keys_only: true,
        count_skipped: true,
        serializable,
        ..RangeRequest::default()
    }
}

/// Why a member with these alarms is not healthy, if it is not.
pub(super) fn alarm_reason(alarms: &[Alarm], exclude: &[String]) -> Option<&'static str> {
    let name = |kind| match kind {
        AlarmKind::NoSpace => ("NOSPACE", "ALARM NOSPACE"),
        AlarmKind::Corrupt => ("CORRUPT", "ALARM CORRUPT"),
    };
    let reasons = alarms.iter().map(|alarm| name(alarm.kind));
    let mut counted = reasons.filter(|(name, _)| !exclude.iter().any(|excluded| excluded == name));
    counted.next().map(|(_, reason)| reason)
}

/// Why a failed read makes a member unhealthy.
pub(super) fn read_reason(status: &Status) -> String {
    format!("RANGE ERROR:{}", status.message)
}

/// The answer of `/health`; a reason means unhealthy.
pub(super) fn health_page(reason: Option<&str>) -> Page {
    let health = if reason.is_none() { "true" } else { "false" };
    let reason_text = serde_json::Value::from(reason.unwrap_or_default());
    let body = format!(r#"{{"health":"{health}","reason":{reason_text}}}"#);
    if reason.is_none() {
        // etcd names no type here, and its HTTP library takes the body for text.
        Page {
            nosniff: false,
            ..Page::plain(200, body)
        }
    } else {
        Page::plain(503, body + "\n")
    }
}

/// The answer of `/livez` and `/readyz`: each check with the reason it failed for, if it did.
pub(super) fn checks_page(results: &[(Check, Option<String>)], verbose: bool) -> Page {
    let failed = results.iter().any(|(_, reason)| reason.is_some());
    let mut body = String::new();
    if failed || verbose {
        for (check, reason) in results {
            let name = check.name();
            match reason {
                None => body.push_str(&format!("[+]{name} ok\n")),
                Some(reason) => body.push_str(&format!("[-]{name} failed: {reason}\n")),
            }
        }
    }
    if failed {
        return Page::plain(503, body);
    }
    body.push_str("ok\n");
    Page::plain(200, body)
}

/// The origin that web pages are told may read an answer.
pub(super) fn allowed_origin<'a>(origins: &Allowed, origin: Option<&'a str>) -> Option<&'a str> {
    match origins {
        Allowed::Any => Some("*"),
        Allowed::These(_) => origin.filter(|origin| origins.has(origin)),
    }
}

/// The refusal of a request that was meant for another host, or for none: a web page may have led a
/// browser here under a name of its own.
pub(super) fn misdirected(hosts: &Allowed, authority: &str) -> Option<Page> {
    let host = host_of(authority);
    (!hosts.has(host)).then(|| {
        let body = format!(
            "The host {host:?} is not one that this member answers for.\nUse a host name of its list, or add \
             this one to it with --host-whitelist.\n"
        );
        Page::plain(421, body)
    })
}

/// An authority without its port; brackets go with it, as in Go.
fn host_of(authority: &str) -> &str {
    let Some((host, port)) = authority.rsplit_once(':') else {
        return authority;
    };
    match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(address) => address,
        // Several colons and no brackets: an address alone.
        None if host.contains(':') || port.contains(']') => authority,
        None => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::MemberId;
    use crate::rpc::status;

    /// Goal: paths, methods and parameters lead where etcd's do.
    #[test]
    fn routes() {
        let page = |method, path| match route(method, path, None) {
            Route::Page(page) => (page.status, page.body),
            other => panic!("{other:?} is no page"),
        };
        assert_eq!(page("OPTIONS", "/anything"), (200, String::new()));
        assert_eq!(
            page("POST", "/health"),
            (405, "Method Not Allowed\n".to_owned())
        );
        assert_eq!(page("PUT", "/version").0, 405);
        assert_eq!(page("GET", "/nothing").0, 404);
        assert_eq!(page("GET", "/livez/linearizable_read").0, 404);
        assert_eq!(page("GET", "/readyzz").0, 404);
        assert_eq!(
            page("GET", "/version").1,
            r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#
        );
        let health = |query| route("GET", "/health", query);
        let expected = |exclude: &[&str], serializable| Route::Health {
            exclude: exclude.iter().map(|name| (*name).to_owned()).collect(),
            serializable,
        };
        assert_eq!(health(None), expected(&[], false));
        assert_eq!(
            health(Some("serializable=true&exclude=NOSPACE&exclude=CORRUPT")),
            expected(&["NOSPACE", "CORRUPT"], true)
        );
        assert_eq!(
            route("GET", "/readyz", Some("verbose&exclude=linearizable_read")),
            Route::Checks {
                checks: vec![
                    Check::DataCorruption,
                    Check::SerializableRead,
                    Check::NonLearner
                ],
                verbose: true
            }
        );
    }

    /// Goal: bodies are the ones probes parse.
    #[test]
    fn pages() {
        let healthy = health_page(None);
        assert_eq!(
            (healthy.status, &*healthy.body),
            (200, r#"{"health":"true","reason":""}"#)
        );
        let reason = read_reason(&status::TIMED_OUT);
        let sick = health_page(Some(&reason));
        assert_eq!(
            (sick.status, &*sick.body),
            (
                503,
                "{\"health\":\"false\",\"reason\":\"RANGE ERROR:etcdserver: request timed out\"}\n"
            )
        );
        let results = [
            (Check::DataCorruption, None),
            (Check::SerializableRead, None),
        ];
        assert_eq!(checks_page(&results, false).body, "ok\n");
        assert_eq!(
            checks_page(&results, true).body,
            "[+]data_corruption ok\n[+]serializable_read ok\nok\n"
        );
        let results = [
            (Check::DataCorruption, Some("alarm".to_owned())),
            (Check::SerializableRead, None),
        ];
        let page = checks_page(&results, false);
        assert_eq!(
            (page.status, &*page.body),
            (
                503,
                "[-]data_corruption failed: alarm\n[+]serializable_read ok\n"
            )
        );
    }

    /// Goal: alarms count unless they are excluded.
    #[test]
    fn alarms() {
        let alarms = [AlarmKind::NoSpace, AlarmKind::Corrupt].map(|kind| Alarm {
            member: MemberId(1),
            kind,
        });
        let check = |exclude: &[&str], expected| {
            let exclude: Vec<String> = exclude.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(alarm_reason(&alarms, &exclude), expected);
        };
        check(&[], Some("ALARM NOSPACE"));
        check(&["NOSPACE"], Some("ALARM CORRUPT"));
        check(&["NOSPACE", "CORRUPT"], None);
        assert_eq!(alarm_reason(&[], &[]), None);
    }

    /// Goal: origins are told what the operator allows.
    #[test]
    fn origins() {
        let these = Allowed::These(vec!["http://a".to_owned()]);
        assert_eq!(allowed_origin(&Allowed::Any, Some("http://b")), Some("*"));
        assert_eq!(allowed_origin(&these, Some("http://a")), Some("http://a"));
        assert_eq!(allowed_origin(&these, Some("http://b")), None);
        assert_eq!(allowed_origin(&these, None), None);
    }

    /// Goal: a request for another host is refused, whatever its port.
    #[test]
    fn hosts() {
        let these = Allowed::These(vec!["node-1".to_owned(), "::1".to_owned()]);
        let check = |authority: &str, served: bool| {
            assert_eq!(
                misdirected(&these, authority).is_none(),
                served,
                "{authority}"
            );
            assert_eq!(misdirected(&Allowed::Any, authority), None);
        };
        check("node-1", true);
        check("node-1:2379", true);
        check("[::1]:2379", true);
        check("::1", true);
        check("[::1]", false);
        check("Node-1", false);
        check("evil.example:2379", false);
        check("", false);
        assert_eq!(
            misdirected(&these, "evil").map(|page| page.status),
            Some(421)
        );
    }
}
