//! The control API on its Unix socket: who may, what is refused, what is seen in traffic.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Barrier};

use serde_json::{Value, json};

use super::support::client::Client;
use super::support::control::{Answer, Control};
use super::support::eventually::eventually;
use super::support::origin::Origin;
use super::support::proxy::Proxy;

/// A proxy with a control socket over some origins.
struct Bed {
    origins: Vec<Origin>,
    /// First, so that it has ended when the folder goes.
    proxy: Proxy,
    control: Control,
    _folder: tempfile::TempDir,
}

impl Bed {
    fn new(names: &[&str]) -> Self {
        Self::with(names, "")
    }

    fn with(names: &[&str], admin: &str) -> Self {
        let origins: Vec<Origin> = names.iter().map(|n| Origin::named(n)).collect();
        let folder = tempfile::tempdir().unwrap();
        let control = Control::at(folder.path().join("admin.sock"));
        let toml = toml(&control, &origins, admin);
        Self {
            origins,
            proxy: Proxy::start(&toml),
            control,
            _folder: folder,
        }
    }

    fn endpoint(&self, index: usize) -> String {
        let addr = self.origins[index].addr();
        format!("/v1/upstreams/app/endpoints/{addr}")
    }

    /// Must be a success; what it says.
    #[track_caller]
    fn done(&self, method: &str, target: &str, body: &str) -> Value {
        let answer = self.control.ask(method, target, body);
        assert!(matches!(answer.status, 200 | 201), "{}", answer.body);
        answer.json()
    }

    /// Who answers the next `n` requests of one client.
    fn answers(&self, n: usize) -> Vec<String> {
        let mut client = Client::connect(self.proxy.addr());
        (0..n).map(|_| client.request("GET", "/").text()).collect()
    }

    /// Waits until these are the shares of 12 requests.
    #[track_caller]
    fn await_shares(&self, wanted: &[(&str, usize)]) {
        eventually(&format!("shares {wanted:?}"), || {
            let answers = self.answers(12);
            let count = |name: &str| answers.iter().filter(|a| *a == name).count();
            wanted.iter().all(|(name, share)| count(name) == *share)
        });
    }
}

fn toml(control: &Control, origins: &[Origin], admin: &str) -> String {
    let endpoints: Vec<String> = origins.iter().map(|o| format!("'{}'", o.addr())).collect();
    format!(
        "[process]\nworkers = 1\n[admin]\nsocket = '{}'\n{admin}\n\
         [listeners.web]\nbind = '127.0.0.1:0'\nupstream = 'app'\n\
         [upstreams.app]\ndynamic = true\nbalance = 'weighted'\nendpoints = [{}]\n",
        control.path.display(),
        endpoints.join(", ")
    )
}

fn mode(control: &Control) -> u32 {
    let metadata = std::fs::metadata(&control.path).unwrap();
    metadata.permissions().mode() & 0o7777
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[test]
fn socket_is_private_and_gone_at_the_end() {
    let bed = Bed::new(&["a"]);
    assert_eq!(mode(&bed.control), 0o600);
    assert_eq!(bed.control.json("/v1/status")["state"], "ready");
    let path = bed.control.path.clone();
    bed.proxy.shutdown();
    assert!(!path.exists());
}

/// Root gives itself up after everything is bound; the socket is for whom it becomes.
#[test]
fn socket_belongs_to_the_user_that_the_process_becomes() {
    let daemon = nix::unistd::User::from_name("daemon").unwrap();
    let expected = match (own_uid(), daemon) {
        (0, Some(daemon)) => daemon.uid.as_raw(),
        (own, _) => own,
    };
    let origin = [Origin::named("a")];
    let folder = tempfile::tempdir().unwrap();
    let control = Control::at(folder.path().join("admin.sock"));
    let toml = toml(&control, &origin, "").replace("[process]", "[process]\nuser = 'daemon'");
    let _proxy = Proxy::start(&toml);
    assert_eq!(std::fs::metadata(&control.path).unwrap().uid(), expected);
    assert_eq!(mode(&control), 0o600);
    let allowed = control.get("/").status;
    // Root is among the usual users, and so is whoever this is.
    assert_eq!(allowed, 200);
}

#[test]
fn socket_of_a_dead_process_is_replaced_and_that_of_a_live_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::at(folder.path().join("admin.sock"));
    drop(UnixListener::bind(&control.path).unwrap());
    let origin = [Origin::named("a")];
    let proxy = Proxy::start(&toml(&control, &origin, ""));
    assert_eq!(control.get("/").status, 200);
    let second = Proxy::try_start(&toml(&control, &origin, "")).unwrap_err();
    let text = second.to_string();
    assert!(text.contains("admin.sock is in use"), "{text}");
    // The refused one has taken nothing with it.
    assert_eq!(control.get("/").status, 200);
    drop(proxy);
    assert!(!control.path.exists());
}

#[test]
fn user_that_is_not_allowed_is_refused_whatever_it_asks() {
    // This very user is left out, so that a test without root sees it as well.
    let other = own_uid() + 1;
    let bed = Bed::with(&["a"], &format!("allow_uids = [{other}]"));
    assert_eq!(mode(&bed.control), 0o666, "another user must be let in");
    for (method, target) in [
        ("GET", "/v1/status"),
        ("GET", "/nowhere"),
        ("DELETE", &bed.endpoint(0)),
        ("BREW", "/"),
    ] {
        let answer = bed.control.ask(method, target, "");
        assert_eq!(answer.problem(), (403, "uid".to_owned()), "{method}");
        assert!(answer.body.contains("allow_uids"), "{}", answer.body);
    }
    assert_eq!(bed.answers(1), ["a"], "nothing was removed");
}

#[test]
fn refused_connections_are_few_and_short() {
    let other = own_uid() + 1;
    let bed = Bed::with(&["a"], &format!("allow_uids = [{other}]"));
    // More than there are places for anybody: the first of them wait, the rest are closed at once.
    let mut held: Vec<_> = (0..100).map(|_| bed.control.connect()).collect();
    let mut closed = 0;
    for stream in &mut held {
        // A place of a refused client is its own for two seconds, and then free.
        if Answer::read(stream).status == 0 {
            closed += 1;
        }
    }
    assert_eq!(closed, held.len());
    eventually("a place for a refusal", || {
        bed.control.get("/").status == 403
    });
}

#[test]
fn wrong_requests_get_problems() {
    let bed = Bed::new(&["a"]);
    let endpoint = bed.endpoint(0);
    for (method, target, body, status, code) in [
        ("GET", "/v2/status", "", 404, "path"),
        ("GET", "/metrics", "", 404, "path"),
        ("POST", "/v1/status", "", 405, "method"),
        ("PATCH", &*endpoint, "{", 400, "json"),
        ("PATCH", &*endpoint, "{}", 422, "invalid"),
        ("PATCH", &*endpoint, r#"{"weight": 1001}"#, 422, "weight"),
        ("GET", "/v1/upstreams/nope", "", 404, "unknown-upstream"),
        (
            "GET",
            "/v1/upstreams/app/endpoints/127.0.0.1:1",
            "",
            404,
            "unknown-endpoint",
        ),
        (
            "PATCH",
            "/v1/upstreams/app/endpoints/127.0.0.1:1",
            r#"{"weight": 1}"#,
            404,
            "unknown-endpoint",
        ),
        (
            "POST",
            "/v1/upstreams/app/endpoints",
            &*format!(r#"{{"address": "{}"}}"#, bed.origins[0].addr()),
            409,
            "already-there",
        ),
        ("GET", "/v1/history?limit=x", "", 400, "query"),
        ("POST", "/v1/reload", "", 409, "no-file"),
        ("POST", "/v1/plan", "{}", 409, "no-file"),
    ] {
        let answer = bed.control.ask(method, target, body);
        let problem = answer.problem();
        assert_eq!(
            problem,
            (status, code.to_owned()),
            "{method} {target} {body}"
        );
        if status == 405 {
            assert!(
                answer.head.contains("\r\nallow: get, head"),
                "{}",
                answer.head
            );
        }
    }
    let mut without_kind = bed.control.connect();
    write!(
        without_kind,
        "PATCH {endpoint} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}"
    )
    .unwrap();
    let answer = Answer::read(&mut without_kind);
    assert_eq!(answer.problem(), (415, "media-type".to_owned()));
    assert_eq!(bed.answers(1), ["a"]);
}

#[test]
fn large_bodies_are_refused_announced_or_not() {
    let bed = Bed::new(&["a"]);
    let endpoint = bed.endpoint(0);
    let head = format!(
        "PATCH {endpoint} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: application/json\r\n"
    );
    let announced = bed
        .control
        .send(&format!("{head}content-length: 65537\r\n\r\n"));
    assert_eq!(announced.problem(), (413, "too-large".to_owned()));
    let chunk = "x".repeat(0x4000);
    let chunks = format!("4000\r\n{chunk}\r\n").repeat(5);
    let unannounced = bed.control.send(&format!(
        "{head}transfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
    ));
    assert_eq!(unannounced.problem(), (413, "too-large".to_owned()));
    // The largest one is read: it is no problem but what it says.
    let spaces = " ".repeat(65_536 - 2);
    let full = bed
        .control
        .ask("POST", "/v1/plan", &format!("{{{spaces}}}"));
    assert_eq!(full.problem(), (409, "no-file".to_owned()));
}

#[test]
fn half_requests_change_nothing_and_hold_nobody_up() {
    let bed = Bed::new(&["a"]);
    let endpoint = bed.endpoint(0);
    // Silent and slow ones, which stay.
    let _silent: Vec<_> = (0..20).map(|_| bed.control.connect()).collect();
    let mut slow = bed.control.connect();
    write!(slow, "GET /v1/status HTTP/1.1\r\nhost:").unwrap();
    let mut unfinished = bed.control.connect();
    write!(
        unfinished,
        "PATCH {endpoint} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: 100\r\n\r\n{{\"weight\": "
    )
    .unwrap();
    for bytes in [
        "",
        "GET",
        "GET /v1/status HTTP/1.1\r\nho",
        "\r\n\r\n\r\n",
        "nonsense\r\n\r\n",
        "\u{16}\u{3}\u{1}",
    ] {
        let answer = bed.control.send_and_finish(bytes);
        assert!(
            matches!(answer.status, 0 | 400),
            "{bytes:?}: {}",
            answer.status
        );
    }
    let cut = bed.control.send_and_finish(&format!(
        "PATCH {endpoint} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: 30\r\n\r\n{{\"weight\": 0}}"
    ));
    assert!(matches!(cut.status, 0 | 400), "{}", cut.body);
    let view = bed.control.json(&endpoint);
    assert_eq!(view["operator"], Value::Null, "{view}");
    assert_eq!(bed.answers(1), ["a"]);
}

#[test]
fn many_at_once_are_answered_or_told_to_come_again() {
    let bed = Bed::new(&["a"]);
    const CLIENTS: usize = 100;
    let barrier = Arc::new(Barrier::new(CLIENTS));
    let threads: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (control, barrier) = (bed.control.clone(), barrier.clone());
            std::thread::spawn(move || {
                barrier.wait();
                control.get("/v1/upstreams")
            })
        })
        .collect();
    let mut answered = 0;
    for thread in threads {
        let answer = thread.join().unwrap();
        if answer.status == 200 {
            answered += 1;
        } else {
            assert_eq!(answer.problem(), (503, "overloaded".to_owned()));
            assert!(
                answer.head.contains("\r\nretry-after: 1"),
                "{}",
                answer.head
            );
        }
    }
    assert!(answered > 0);
    assert_eq!(bed.control.get("/v1/upstreams").status, 200);
}

#[test]
fn weights_are_seen_in_traffic_until_they_are_cleared() {
    let bed = Bed::new(&["a", "b"]);
    bed.await_shares(&[("a", 6), ("b", 6)]);
    let body = r#"{"weight": 3, "reason": "the larger machine", "owner": "test"}"#;
    let applied = bed.done("PATCH", &bed.endpoint(0), body);
    assert_eq!(applied["before"], json!({ "weight": 1, "state": "active" }));
    assert_eq!(applied["after"], json!({ "weight": 3, "state": "active" }));
    bed.await_shares(&[("a", 9), ("b", 3)]);
    let said = &bed.control.json(&bed.endpoint(0))["operator"]["weight"];
    assert_eq!(said["value"], 3);
    assert_eq!(said["by"]["owner"], format!("test (uid:{})", own_uid()));
    assert_eq!(said["by"]["reason"], "the larger machine");
    bed.done("DELETE", &format!("{}/override", bed.endpoint(0)), "");
    bed.await_shares(&[("a", 6), ("b", 6)]);
    assert_eq!(bed.control.json(&bed.endpoint(0))["operator"], Value::Null);
}

#[test]
fn drained_and_disabled_endpoints_get_nothing_until_they_are_active_again() {
    let bed = Bed::new(&["a", "b"]);
    for state in ["drain", "disable"] {
        let body = json!({ "state": state }).to_string();
        let applied = bed.done("PATCH", &bed.endpoint(0), &body);
        assert_eq!(applied["after"]["state"], state);
        bed.await_shares(&[("a", 0), ("b", 12)]);
        let view = bed.control.json(&bed.endpoint(0));
        assert_eq!(view["observed"]["ready"], false, "{view}");
        let wins = view["wins"].as_array().unwrap();
        let state_by = wins.iter().find(|v| v["field"] == "state").unwrap();
        assert_eq!(state_by["layer"], "operator");
        bed.done("PATCH", &bed.endpoint(0), r#"{"state": "active"}"#);
        bed.await_shares(&[("a", 6), ("b", 6)]);
    }
}

#[test]
fn what_expires_is_taken_back() {
    let bed = Bed::new(&["a", "b"]);
    let body = r#"{"state": "drain", "expires_in": "1s"}"#;
    bed.done("PATCH", &bed.endpoint(0), body);
    eventually("the drain to expire", || {
        bed.control.json(&bed.endpoint(0))["operator"].is_null()
    });
    bed.await_shares(&[("a", 6), ("b", 6)]);
    let history = bed.control.json("/v1/history");
    let causes: Vec<&str> = history["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["cause"]["kind"].as_str().unwrap())
        .collect();
    assert_eq!(causes, ["start", "operator", "expiry"]);
}

#[test]
fn endpoints_come_and_go_in_traffic() {
    let bed = Bed::new(&["a", "b"]);
    let c = Origin::named("c");
    let body = json!({ "address": c.addr().to_string(), "weight": 2 }).to_string();
    let answer = bed
        .control
        .ask("POST", "/v1/upstreams/app/endpoints", &body);
    assert_eq!(answer.status, 201, "{}", answer.body);
    let at = format!("/v1/upstreams/app/endpoints/{}", c.addr());
    assert!(
        answer.head.contains(&format!("\r\nlocation: {at}")),
        "{}",
        answer.head
    );
    bed.await_shares(&[("a", 3), ("b", 3), ("c", 6)]);
    bed.done("DELETE", &bed.endpoint(0), "");
    bed.await_shares(&[("a", 0), ("b", 4), ("c", 8)]);
    let removed = bed.control.json(&bed.endpoint(0));
    assert_eq!(
        (&removed["effective"], &removed["observed"]),
        (&Value::Null, &Value::Null)
    );
    bed.done("DELETE", &format!("{}/override", bed.endpoint(0)), "");
    bed.done("DELETE", &at, "");
    bed.await_shares(&[("a", 6), ("b", 6), ("c", 0)]);
    assert_eq!(
        bed.control.get(&at).problem(),
        (404, "unknown-endpoint".to_owned())
    );
}

#[test]
fn history_goes_on_from_a_number() {
    let bed = Bed::new(&["a"]);
    for weight in 2..6 {
        bed.done(
            "PATCH",
            &bed.endpoint(0),
            &json!({ "weight": weight }).to_string(),
        );
    }
    let numbers = |target: &str| -> Vec<u64> {
        let page = bed.control.json(target);
        assert_eq!(page["last"], 5);
        let events = page["events"].as_array().unwrap().iter();
        events.map(|e| e["seq"].as_u64().unwrap()).collect()
    };
    assert_eq!(numbers("/v1/history"), [1, 2, 3, 4, 5]);
    assert_eq!(numbers("/v1/history?limit=2"), [4, 5]);
    assert_eq!(numbers("/v1/history?since=1&limit=2"), [2, 3]);
    assert!(numbers("/v1/history?since=5").is_empty());
}

#[test]
fn configuration_served_is_shown_in_both_forms() {
    let bed = Bed::new(&["a"]);
    let toml = bed.control.get("/v1/config");
    assert!(
        toml.head.contains("content-type: application/toml"),
        "{}",
        toml.head
    );
    let read = isobar::config::parse_with("c", &toml.body, isobar::config::PortZero::Allowed);
    assert!(read.is_ok(), "{}", toml.body);
    let json = bed.control.send(
        "GET /v1/config HTTP/1.1\r\nhost: x\r\nconnection: close\r\naccept: application/json\r\n\r\n",
    );
    assert_eq!(json.json()["upstreams"]["app"]["balance"], "weighted");
}

/// HEAD, keep-alive and the index: what an HTTP client may expect.
#[test]
fn one_connection_serves_several_requests() {
    let bed = Bed::new(&["a"]);
    let mut stream = bed.control.connect();
    write!(
        stream,
        "HEAD /v1/status HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\
         connection: close\r\n\r\n"
    )
    .unwrap();
    let both = Answer::read(&mut stream);
    assert_eq!(both.status, 200);
    // The head alone, then the second answer.
    assert!(both.body.starts_with("HTTP/1.1 200"), "{}", both.body);
    for route in ["/v1/status", "/v1/upstreams/{name}/endpoints/{address}"] {
        assert!(both.body.contains(route), "{}", both.body);
    }
}

/// What the description shows as an example is what comes: member by member, type by type.
#[test]
fn answers_have_the_shape_that_is_described() {
    let bed = Bed::new(&["a"]);
    let description = bed.control.json("/v1/openapi.json");
    let body = r#"{"weight": 5, "reason": "why"}"#;
    let example = |path: &str, method: &str, status: &str| {
        let operation = &description["paths"][path][method]["responses"][status];
        let example = &operation["content"]["application/json"]["example"];
        assert!(!example.is_null(), "{method} {path}");
        example.clone()
    };
    let endpoint = "/v1/upstreams/{name}/endpoints/{address}";
    let applied = bed.done("PATCH", &bed.endpoint(0), body);
    same_shape(&example(endpoint, "patch", "200"), &applied, "applied");
    for (path, target) in [
        (endpoint, &*bed.endpoint(0)),
        ("/v1/status", "/v1/status"),
        ("/v1/upstreams", "/v1/upstreams"),
        ("/v1/upstreams/{name}", "/v1/upstreams/app"),
        ("/v1/history", "/v1/history?since=1"),
    ] {
        let answer = bed.control.json(target);
        same_shape(&example(path, "get", "200"), &answer, path);
    }
    let problem = bed.control.get("/v1/upstreams/nope").json();
    let described = "/components/responses/Problem/content/application~1problem+json/example";
    same_shape(description.pointer(described).unwrap(), &problem, "problem");
}

/// Equal members in objects, and equal types; `null` may stand for anything, and an empty list for
/// a full one.
#[track_caller]
fn same_shape(example: &Value, real: &Value, place: &str) {
    match (example, real) {
        (Value::Null, _) | (_, Value::Null) => {}
        (Value::Object(example), Value::Object(real)) => {
            let keys =
                |o: &serde_json::Map<String, Value>| -> Vec<String> { o.keys().cloned().collect() };
            let (mut wanted, mut given) = (keys(example), keys(real));
            wanted.sort();
            given.sort();
            assert_eq!(given, wanted, "{place}");
            for (key, value) in example {
                same_shape(value, &real[key], &format!("{place}.{key}"));
            }
        }
        (Value::Array(example), Value::Array(real)) => {
            for value in real {
                if let Some(first) = example.first() {
                    same_shape(first, value, &format!("{place}[]"));
                }
            }
        }
        (Value::Bool(_), Value::Bool(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::String(_), Value::String(_)) => {}
        (example, real) => panic!("{place}: {example} is described, {real} comes"),
    }
}
