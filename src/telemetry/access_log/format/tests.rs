use std::net::SocketAddr;

use proptest::prelude::*;
use regex::Regex;
use serde_json::Value;

use super::super::entry::{Ending, Phase, Timings};
use super::*;
use crate::telemetry::reason::Reason;

const FORMATS: [Format; 4] = [Format::Combined, Format::Common, Format::Json, Format::Text];

fn sample() -> Entry<'static> {
    Entry {
        unix_nanos: 1_795_231_995_042_000_000,
        client: Some("192.0.2.7".parse().unwrap()),
        peer: Some("10.1.2.3:45678".parse().unwrap()),
        listener: "web",
        route: "api",
        upstream: "app",
        endpoint: "10.0.0.11:8000",
        method: b"GET",
        target: b"/v1/things?q=1",
        host: b"api.example.com",
        user_agent: b"curl/8.5.0",
        referer: b"https://example.com/",
        protocol: "HTTP/1.1",
        request_id: b"0123456789abcdef",
        status: 200,
        attempts: 1,
        bytes_in: 0,
        bytes_out: 128,
        timings: Timings {
            head: Some(12_345),
            picked: Some(15_000),
            connected: Some(16_999),
            first_byte: Some(1_234_567),
            total: 61_002_003_004,
        },
        ..Entry::default()
    }
}

fn line(format: Format, entry: &Entry<'_>) -> String {
    let mut formatter = Formatter::new(format);
    let mut out = Vec::new();
    formatter.write(entry, &mut out);
    let bound = Formatter::bound(entry);
    assert!(out.len() <= bound, "{} > {bound}", out.len());
    assert_eq!(out.pop(), Some(b'\n'));
    assert!(!out.contains(&b'\n'));
    String::from_utf8(out).unwrap()
}

#[test]
fn formats_of_a_plain_exchange() {
    assert_eq!(
        line(Format::Json, &sample()),
        concat!(
            r#"{"time":"2026-11-21T03:33:15.042Z","status":200,"outcome":"ok","phase":"done","#,
            r#""client":"192.0.2.7","peer":"10.1.2.3:45678","listener":"web","method":"GET","#,
            r#""host":"api.example.com","target":"/v1/things?q=1","protocol":"HTTP/1.1","#,
            r#""route":"api","upstream":"app","endpoint":"10.0.0.11:8000","attempts":1,"#,
            r#""bytes_in":0,"bytes_out":128,"head_ms":0.012,"picked_ms":0.015,"#,
            r#""connected_ms":0.016,"first_byte_ms":1.234,"total_ms":61002.003,"#,
            r#""request_id":"0123456789abcdef","user_agent":"curl/8.5.0","#,
            r#""referer":"https://example.com/"}"#,
        )
    );
    assert_eq!(
        line(Format::Common, &sample()),
        r#"192.0.2.7 - - [21/Nov/2026:03:33:15 +0000] "GET /v1/things?q=1 HTTP/1.1" 200 128"#
    );
    assert_eq!(
        line(Format::Combined, &sample()),
        concat!(
            r#"192.0.2.7 - - [21/Nov/2026:03:33:15 +0000] "GET /v1/things?q=1 HTTP/1.1" 200 128 "#,
            r#""https://example.com/" "curl/8.5.0""#,
        )
    );
    assert_eq!(
        line(Format::Text, &sample()),
        concat!(
            r#"2026-11-21T03:33:15.042Z 192.0.2.7 "GET /v1/things?q=1 HTTP/1.1" 200 61002.003ms "#,
            "outcome=ok phase=done host=api.example.com listener=web route=api upstream=app ",
            "endpoint=10.0.0.11:8000 attempts=1 bytes_in=0 bytes_out=128 first_byte_ms=1.234 ",
            "request_id=0123456789abcdef",
        )
    );
}

#[test]
fn head_never_read_still_makes_a_line() {
    let entry = Entry {
        listener: "web",
        ending: Ending::Refused,
        phase: Phase::RequestHead,
        reason: Some(Reason::HeaderTimeout),
        status: 408,
        ..Entry::default()
    };
    assert_eq!(
        line(Format::Common, &entry),
        r#"- - - [01/Jan/1970:00:00:00 +0000] "-" 408 -"#
    );
    let json: Value = serde_json::from_str(&line(Format::Json, &entry)).unwrap();
    assert_eq!(json["outcome"], "refused");
    assert_eq!(json["reason"], "header_timeout");
    assert_eq!(json["who"], "client");
    assert_eq!(json.get("method"), None);
    assert_eq!(json.get("client"), None);
}

#[test]
fn what_is_no_request_is_told_to_people_by_what_carried_it() {
    let entry = Entry {
        protocol: "UDP",
        bytes_in: 5,
        ..Entry::default()
    };
    assert!(line(Format::Text, &entry).contains(" \"UDP\" 000 "));
    // As programs expect it that read the formats of Apache.
    assert!(line(Format::Common, &entry).contains(" \"-\" 000 "));
    assert!(line(Format::Json, &entry).contains("\"protocol\":\"UDP\""));
}

#[test]
fn client_that_left_before_a_response_shows_as_499() {
    let gone = Entry {
        reason: Some(Reason::ClientGone),
        ..sample()
    };
    assert!(line(Format::Common, &Entry { status: 0, ..gone }).contains("\" 499 "));
    assert!(
        line(
            Format::Common,
            &Entry {
                status: 206,
                ..gone
            }
        )
        .contains("\" 206 ")
    );
}

/// Every text as long as can be, of bytes that escape worst: still within the bound, and within a
/// buffer; without texts: the longest line gives [`FIXED`] its figure.
#[test]
fn worst_line_fits_its_bound() {
    let long = "\u{1}".repeat(100_000);
    let ip = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap();
    let at = Some(u64::MAX);
    let fixed = Entry {
        unix_nanos: u64::MAX,
        client: Some(ip),
        peer: Some(SocketAddr::V6(std::net::SocketAddrV6::new(
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap(),
            65535,
            0,
            u32::MAX,
        ))),
        status: u16::MAX,
        attempts: u32::MAX,
        bytes_in: u64::MAX,
        bytes_out: u64::MAX,
        timings: Timings {
            head: at,
            picked: at,
            connected: at,
            first_byte: at,
            total: u64::MAX,
        },
        ending: Ending::Cancelled,
        phase: Phase::RequestHead,
        reason: Some(Reason::ResponseHeadTooLarge),
        tunnel: true,
        ..Entry::default()
    };
    let worst = Entry {
        listener: &long,
        route: &long,
        upstream: &long,
        endpoint: &long,
        method: long.as_bytes(),
        target: long.as_bytes(),
        host: long.as_bytes(),
        user_agent: long.as_bytes(),
        referer: long.as_bytes(),
        protocol: &long,
        request_id: long.as_bytes(),
        ..fixed
    };
    let texts = WORST
        * (4 * MAX_NAME
            + MAX_METHOD
            + MAX_HOST
            + MAX_TARGET
            + MAX_USER_AGENT
            + MAX_REFERER
            + MAX_REQUEST_ID
            + MAX_PROTOCOL);
    for format in FORMATS {
        let len = line(format, &worst).len();
        assert!(len <= BUFFER_BYTES);
        if format == Format::Json {
            assert_eq!(len - texts, 705, "keep the doc of FIXED honest");
        }
    }
}

#[test]
fn clipped_text_says_so() {
    let target = vec![b'a'; MAX_TARGET + 1];
    let json = line(
        Format::Json,
        &Entry {
            target: &target,
            ..sample()
        },
    );
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["target"].as_str().unwrap().len(), MAX_TARGET + 3);
    let exact = line(
        Format::Json,
        &Entry {
            target: &target[1..],
            ..sample()
        },
    );
    assert!(!exact.contains("..."));
}

proptest! {
    #[test]
    fn any_bytes_make_a_line_that_parses(
        method in proptest::collection::vec(any::<u8>(), 1..12),
        target in proptest::collection::vec(any::<u8>(), 0..40),
        host in proptest::collection::vec(any::<u8>(), 0..20),
        user_agent in proptest::collection::vec(any::<u8>(), 0..40),
        referer in proptest::collection::vec(any::<u8>(), 0..40),
        name in ".{0,20}",
        status in 0..1000u16,
        nanos in any::<u64>(),
    ) {
        let entry = Entry {
            unix_nanos: nanos,
            listener: &name,
            route: &name,
            method: &method,
            target: &target,
            host: &host,
            user_agent: &user_agent,
            referer: &referer,
            status,
            timings: Timings { total: nanos, ..Timings::default() },
            ..sample()
        };
        let json: Value = serde_json::from_str(&line(Format::Json, &entry)).unwrap();
        let said = |key: &str| json.get(key).map(|v| v.as_str().unwrap().to_owned());
        let text = |b: &[u8]| (!b.is_empty()).then(|| String::from_utf8_lossy(b).into_owned());
        prop_assert_eq!(said("method"), text(&method));
        prop_assert_eq!(said("target"), text(&target));
        prop_assert_eq!(said("user_agent"), text(&user_agent));
        prop_assert_eq!(said("route"), text(name.as_bytes()));
        prop_assert_eq!(json["status"].as_u64(), Some(u64::from(status)));

        // The line as log analysers take it apart.
        let common = r#"^(\S+) (\S+) (\S+) \[([^\]]+)\] "(\S+) (\S*) (\S+)" (\d{3}) (\d+|-)"#;
        let quoted = r#" "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)"$"#;
        let combined = Regex::new(&[common, quoted].concat()).unwrap();
        prop_assert!(combined.is_match(&line(Format::Combined, &entry)));
        let plain = Regex::new(&[common, "$"].concat()).unwrap();
        prop_assert!(plain.is_match(&line(Format::Common, &entry)));
        prop_assert!(line(Format::Text, &entry).bytes().all(|b| (0x20..0x7f).contains(&b)));
    }
}
