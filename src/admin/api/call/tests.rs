//! What is taken, and what each wrong request is told.

use http::{HeaderValue, Method};

use super::super::route::find;
use super::*;

const ROOT: Peer = Peer { uid: 0, pid: None };
const NOW: u64 = 1_000_000;

fn read(method: &Method, target: &str, body: &str) -> Result<Call, (u16, &'static str)> {
    read_as(ROOT, method, target, body, Some("application/json"))
}

fn read_as(
    peer: Peer,
    method: &Method,
    target: &str,
    body: &str,
    kind: Option<&'static str>,
) -> Result<Call, (u16, &'static str)> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = HeaderMap::new();
    if let Some(kind) = kind {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    let given = Given {
        query,
        headers: &headers,
        body: body.as_bytes(),
    };
    Call::read(find(method, path).unwrap(), given, peer, NOW)
        .map_err(|problem| (problem.status().as_u16(), problem.code()))
}

const ENDPOINT: &str = "/v1/upstreams/app/endpoints/10.0.0.1:80";

fn change(verb: Verb) -> Change {
    Change {
        upstream: "app".into(),
        endpoint: overrides::address("10.0.0.1:80").unwrap(),
        verb,
        owner: "uid:0".to_owned(),
        reason: String::new(),
        expires_unix_ms: None,
    }
}

#[test]
fn changes_are_read_with_who_why_and_how_long() {
    let patch = |body: &str| read(&Method::PATCH, ENDPOINT, body);
    assert_eq!(
        patch(r#"{"weight": 5}"#),
        Ok(Call::Change(change(Verb::SetWeight(5))))
    );
    for (state, verb) in [
        ("active", Verb::Undrain),
        ("disable", Verb::Disable),
        ("drain", Verb::Drain),
    ] {
        let body = format!(r#"{{"state": "{state}"}}"#);
        assert_eq!(patch(&body), Ok(Call::Change(change(verb))));
    }
    let full = Change {
        owner: "deploy (uid:7)".to_owned(),
        reason: "why not".to_owned(),
        expires_unix_ms: Some(NOW + 90_000),
        ..change(Verb::Drain)
    };
    let body =
        r#"{"state": "drain", "owner": "deploy", "reason": "why not", "expires_in": "1m30s"}"#;
    let peer = Peer { uid: 7, pid: None };
    let read = read_as(
        peer,
        &Method::PATCH,
        ENDPOINT,
        body,
        Some("Application/JSON"),
    );
    assert_eq!(read, Ok(Call::Change(full)));
}

#[test]
fn additions_removals_and_clears_are_read() {
    let path = "/v1/upstreams/app/endpoints";
    assert_eq!(
        read(
            &Method::POST,
            path,
            r#"{"address": "10.0.0.1:80", "weight": 3}"#
        ),
        Ok(Call::Change(change(Verb::Add { weight: Some(3) })))
    );
    assert_eq!(
        read(&Method::DELETE, &format!("{ENDPOINT}?reason=too+slow"), ""),
        Ok(Call::Change(Change {
            reason: "too slow".to_owned(),
            ..change(Verb::Remove)
        }))
    );
    assert_eq!(
        read(&Method::DELETE, &format!("{ENDPOINT}/override"), ""),
        Ok(Call::Change(change(Verb::Clear)))
    );
}

#[test]
fn wrong_bodies_are_told_apart() {
    let patch = |body| read(&Method::PATCH, ENDPOINT, body).unwrap_err();
    for body in [
        "",
        "{",
        "nonsense",
        r#"{"weight": 5"#,
        r#"{"weight": 5} {}"#,
    ] {
        assert_eq!(patch(body), (400, "json"), "{body}");
    }
    for body in [
        "{}",
        "[]",
        "5",
        r#"{"weight": 5, "state": "drain"}"#,
        r#"{"weight": -1}"#,
        r#"{"weight": 1.5}"#,
        r#"{"weight": "5"}"#,
        r#"{"weight": 4294967296}"#,
        r#"{"state": "up"}"#,
        r#"{"weight": 5, "colour": "red"}"#,
        r#"{"weight": 5, "weight": 6}"#,
        r#"{"weight": 5, "expires_in": "soon"}"#,
    ] {
        assert_eq!(patch(body), (422, "invalid"), "{body}");
    }
    for kind in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
    ] {
        let refused = read_as(ROOT, &Method::PATCH, ENDPOINT, r#"{"weight": 5}"#, kind);
        assert_eq!(refused, Err((415, "media-type")));
    }
    let path = "/v1/upstreams/app/endpoints/nonsense";
    assert_eq!(
        read(&Method::PATCH, path, r#"{"weight": 5}"#),
        Err((422, "address"))
    );
    assert_eq!(read(&Method::GET, path, ""), Err((422, "address")));
}

#[test]
fn what_takes_no_body_takes_an_empty_object_and_nothing_else() {
    for path in ["/v1/drain", "/v1/reload", "/v1/upgrade", "/v1/plan"] {
        assert!(read(&Method::POST, path, "{}").is_ok(), "{path}");
        let without = read_as(ROOT, &Method::POST, path, "", None);
        assert!(
            without.is_ok_and(|c| c.is_change() == (path != "/v1/plan")),
            "{path}"
        );
        assert_eq!(
            read(&Method::POST, path, r#"{"force": true}"#),
            Err((422, "invalid"))
        );
    }
}

#[test]
fn only_who_could_read_a_file_may_have_it_read() {
    let plan = |peer, body| {
        read_as(
            peer,
            &Method::POST,
            "/v1/plan",
            body,
            Some("application/json"),
        )
    };
    let file = r#"{"file": "/etc/isobar/next.toml"}"#;
    assert_eq!(
        plan(ROOT, file),
        Ok(Call::Plan(Some("/etc/isobar/next.toml".into())))
    );
    assert_eq!(
        plan(ROOT, r#"{"file": "next.toml"}"#),
        Err((422, "invalid"))
    );
    // A user that is neither root nor, in any test run, this one.
    let other = Peer {
        uid: u32::MAX - 7,
        pid: None,
    };
    assert_eq!(plan(other, file), Err((403, "not-your-file")));
    assert_eq!(plan(other, "{}"), Ok(Call::Plan(None)));
}

#[test]
fn queries_are_checked() {
    assert_eq!(
        read(&Method::GET, "/v1/history", ""),
        Ok(Call::History {
            since: None,
            limit: 100
        })
    );
    assert_eq!(
        read(&Method::GET, "/v1/history?since=7&limit=0", ""),
        Ok(Call::History {
            since: Some(7),
            limit: 0
        })
    );
    for query in ["limit=-1", "limit=x", "since=", "limt=5", "limit"] {
        let refused = read(&Method::GET, &format!("/v1/history?{query}"), "");
        match query {
            // A name without a value is no value.
            "limit" => assert!(refused.is_ok()),
            _ => assert_eq!(refused, Err((400, "query")), "{query}"),
        }
    }
    let refused = read(&Method::DELETE, &format!("{ENDPOINT}?expire=10m"), "");
    assert_eq!(refused, Err((400, "query")));
}

#[test]
fn a_comparison_needs_to_know_with_whom() {
    let of = |query: &str| read(&Method::GET, &format!("/v1/fleet/diff{query}"), "");
    let with = |peer: &str| Ok(Call::FleetDiff(peer.to_owned()));
    assert_eq!(of("?peer=10.0.0.6:7946"), with("10.0.0.6:7946"));
    assert_eq!(of("?peer=%5B::1%5D:7946"), with("[::1]:7946"));
    for query in ["", "?peer", "?peer=", "?pear=1"] {
        assert_eq!(of(query), Err((400, "query")), "{query}");
    }
    assert_eq!(read(&Method::GET, "/v1/fleet", ""), Ok(Call::Fleet));
    let members = read(&Method::GET, "/v1/fleet/members", "");
    assert_eq!(members, Ok(Call::FleetMembers));
}

#[test]
fn configuration_is_toml_unless_json_is_asked_for() {
    let format = |accept: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        if let Some(accept) = accept {
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        }
        wanted_format(&headers)
    };
    assert_eq!(format(None), ConfigFormat::Toml);
    assert_eq!(format(Some("*/*")), ConfigFormat::Toml);
    assert_eq!(format(Some("application/toml")), ConfigFormat::Toml);
    assert_eq!(format(Some("application/json")), ConfigFormat::Json);
    assert_eq!(
        format(Some("text/html, application/json;q=0.9")),
        ConfigFormat::Json
    );
}
