//! Requests, both ways.

use http::header::HOST;

use super::*;
use crate::http1::{FieldId, Form, Limits, Progress, Refusal, RequestBody, RequestHead};

/// A request as `h2` makes it of its pseudo-headers and fields.
pub(super) fn parts(
    method: &str,
    authority: Option<&str>,
    path: &str,
    fields: &[(&str, &[u8])],
) -> request::Parts {
    let mut uri = Uri::builder().path_and_query(path);
    if let Some(authority) = authority {
        uri = uri.scheme("https").authority(authority);
    }
    let mut request = Request::builder().method(method).uri(uri.build().unwrap());
    for (name, value) in fields {
        request = request.header(*name, HeaderValue::from_bytes(value).unwrap());
    }
    request.body(()).unwrap().into_parts().0
}

fn get(authority: Option<&str>, fields: &[(&str, &[u8])]) -> request::Parts {
    parts("GET", authority, "/", fields)
}

fn extended(protocol: &'static str, fields: &[(&str, &[u8])]) -> request::Parts {
    let mut parts = parts("CONNECT", Some("test"), "/chat?room=1", fields);
    parts.extensions.insert(Protocol::from_static(protocol));
    parts
}

pub(super) fn text(parts: &request::Parts, is_whole: bool) -> Vec<u8> {
    let mut out = Vec::new();
    write_request(&mut out, parts, is_whole, || 7);
    out
}

#[track_caller]
pub(super) fn parse(text: &[u8]) -> RequestHead {
    try_parse(text).unwrap_or_else(|e| panic!("{e}: {}", text.escape_ascii()))
}

fn try_parse(text: &[u8]) -> Result<RequestHead, Refusal> {
    let mut head = RequestHead::new();
    let progress = head.parse(text, &Limits::default())?;
    assert_eq!(progress, Progress::Complete);
    assert_eq!(head.head_len(), text.len(), "nothing follows the head");
    Ok(head)
}

fn outbound(text: &str) -> Result<Outbound, HeadError> {
    read_request(text.as_bytes(), Scheme::HTTPS, "fallback:8443")
}

/// The fields by name, in the map's order, which keeps that of equal names.
pub(super) fn fields(headers: &HeaderMap) -> Vec<(&str, &[u8])> {
    let fields = headers.iter();
    fields.map(|(n, v)| (n.as_str(), v.as_bytes())).collect()
}

// === requests that came over HTTP/2 ===

#[test]
fn authority_is_host() {
    let parts = parts("GET", Some("Test:8443"), "/a?b", &[]);
    assert_eq!(
        text(&parts, true),
        b"GET /a?b HTTP/1.1\r\nHost: Test:8443\r\n\r\n"
    );
    let text = text(&parts, true);
    let head = parse(&text);
    assert_eq!(head.authority(&text), Some("Test:8443"));
    assert_eq!((head.path(&text), head.query(&text)), ("/a", Some("b")));
}

#[test]
fn host_that_says_the_same_is_one_field() {
    for host in ["test", "TEST"] {
        let text = text(&get(Some("test"), &[("host", host.as_bytes())]), true);
        assert_eq!(text, b"GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    }
}

#[test]
fn host_alone_is_the_authority() {
    let text = text(&get(None, &[("host", b"test")]), true);
    assert_eq!(parse(&text).authority(&text), Some("test"));
}

#[test]
fn authority_and_host_that_differ_are_refused() {
    let two = text(&get(Some("test"), &[("host", b"other")]), true);
    assert_eq!(try_parse(&two).unwrap_err().status(), 400);
    let two = text(&get(None, &[("host", b"test"), ("host", b"test")]), true);
    assert_eq!(try_parse(&two).unwrap_err().status(), 400);
    let none = text(&get(None, &[]), true);
    assert_eq!(try_parse(&none).unwrap_err().status(), 400);
}

#[test]
fn crumbs_of_cookies_are_one_field() {
    let cookies: [(&str, &[u8]); 4] = [
        ("cookie", b"a=1"),
        ("x", b"y"),
        ("cookie", b"b=2; c=3"),
        ("cookie", b""),
    ];
    let text = text(&get(Some("test"), &cookies), true);
    let head = parse(&text);
    let got: Vec<_> = head.get_all(&text, "cookie").collect();
    // The codec trims what follows the last separator.
    assert_eq!(got, [b"a=1; b=2; c=3;"]);
}

#[test]
fn body_is_told_by_length_or_in_chunks() {
    let post = |fields: &[(&str, &[u8])]| parts("POST", Some("test"), "/", fields);
    let body = |text: Vec<u8>| parse(&text).body;
    assert_eq!(body(text(&post(&[]), true)), RequestBody::None);
    assert_eq!(body(text(&post(&[]), false)), RequestBody::Chunked);
    let sized = post(&[("content-length", b"5")]);
    assert_eq!(body(text(&sized, false)), RequestBody::Length(5));
    let empty = post(&[("content-length", b"0")]);
    assert_eq!(body(text(&empty, true)), RequestBody::Length(0));
    for wrong in [&b""[..], b"5, 5", b"+5", b"-1", b"0x5", b"5 5"] {
        let text = text(&post(&[("content-length", wrong)]), false);
        assert!(try_parse(&text).is_err(), "{}", wrong.escape_ascii());
    }
}

#[test]
fn connect_names_its_authority_alone() {
    let mut connect = parts("GET", Some("test:443"), "/", &[]);
    connect.method = Method::CONNECT;
    let text = text(&connect, false);
    // What follows is no body: seen red, as a 400 for its Transfer-Encoding.
    let head = parse(&text);
    assert_eq!(head.body, RequestBody::None);
    assert_eq!(
        (&head.method, head.form()),
        (&Method::CONNECT, Form::Authority)
    );
    assert_eq!(head.target(&text), "test:443");
}

#[test]
fn connect_without_an_authority_is_refused() {
    let mut connect = get(None, &[]);
    connect.method = Method::CONNECT;
    assert!(try_parse(&text(&connect, false)).is_err());
}

#[test]
fn websocket_is_an_upgrade() {
    let fields: [(&str, &[u8]); 4] = [
        ("sec-websocket-version", b"13"),
        (
            "sec-websocket-key",
            b"the client's, which RFC 8441 does not know",
        ),
        ("content-length", b"5"),
        ("origin", b"https://test"),
    ];
    for protocol in ["websocket", "WebSocket"] {
        let text = text(&extended(protocol, &fields), false);
        let head = parse(&text);
        assert_eq!(head.method, Method::GET);
        assert_eq!(head.target(&text), "/chat?room=1");
        assert!(head.upgrade);
        assert_eq!(head.body, RequestBody::None);
        assert_eq!(head.get(&text, FieldId::Upgrade), Some(&b"websocket"[..]));
        let keys: Vec<_> = head.get_all(&text, "sec-websocket-key").collect();
        assert_eq!(keys, [websocket::key(7).as_bytes()]);
        let versions: Vec<_> = head.get_all(&text, "sec-websocket-version").collect();
        assert_eq!(versions, [b"13"]);
    }
}

#[test]
fn extended_connect_of_another_protocol_is_a_connect() {
    let text = text(&extended("connect-udp", &[]), false);
    let head = parse(&text);
    assert_eq!(
        (&head.method, head.target(&text)),
        (&Method::CONNECT, "test:443")
    );
    assert!(!head.upgrade);
}

#[test]
fn asterisk_is_that_of_options() {
    let all = text(&parts("OPTIONS", Some("test"), "*", &[]), true);
    let head = parse(&all);
    assert!(head.is_asterisk());
    assert_eq!(head.target(&all), "*");
    assert!(try_parse(&text(&parts("GET", Some("test"), "*", &[]), true)).is_err());
}

#[test]
fn target_without_a_path_is_the_root() {
    let mut parts = get(Some("test"), &[]);
    parts.uri = Uri::from_static("test");
    assert!(text(&parts, true).starts_with(b"GET / HTTP/1.1\r\n"));
}

#[test]
fn what_the_type_lets_pass_and_the_codec_does_not_is_refused() {
    for path in ["/caf\u{e9}", "/a\u{2028}b"] {
        let text = text(&parts("GET", Some("test"), path, &[]), true);
        assert!(try_parse(&text).is_err(), "{path}");
    }
    for authority in ["user@test", "user:secret@test", "te$t", "test:0", "test:"] {
        let text = text(&get(Some(authority), &[]), true);
        assert!(try_parse(&text).is_err(), "{authority}");
    }
}

#[test]
fn values_are_kept_to_the_byte_and_in_their_order() {
    let given: [(&str, &[u8]); 5] = [
        ("x", b"caf\xe9 \xff\x80"),
        ("empty", b""),
        ("x", b"tab\tand  spaces"),
        ("te", b"trailers"),
        ("x", b"a: b"),
    ];
    let text = text(&get(Some("test"), &given), true);
    let head = parse(&text);
    let values = |name| -> Vec<_> { head.get_all(&text, name).collect() };
    assert_eq!(
        values("x"),
        [&b"caf\xe9 \xff\x80"[..], b"tab\tand  spaces", b"a: b"]
    );
    assert_eq!(values("empty"), [b""]);
    assert_eq!(values("te"), [b"trailers"]);
}

// === requests that go over HTTP/2 ===

#[test]
fn request_of_text_is_the_same_request() {
    let read = outbound(
        "POST /a/b?c=d HTTP/1.1\r\nHost: Test:81\r\nX-Mixed-Case: Yes\r\nContent-Length: 12\r\n\
         x-two: 1\r\nempty:\r\nX-Two: 2\r\nblank:   \r\ntrailer: x-sum\r\n\r\n",
    )
    .unwrap();
    let request = &read.request;
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.uri(), "https://Test:81/a/b?c=d");
    assert_eq!(read.length, Some(12));
    assert_eq!(read.accept, None);
    let mut got = fields(request.headers());
    got.sort_unstable();
    let mut want: Vec<(&str, &[u8])> = vec![
        ("blank", b""),
        ("content-length", b"12"),
        ("empty", b""),
        ("trailer", b"x-sum"),
        ("x-mixed-case", b"Yes"),
        ("x-two", b"1"),
        ("x-two", b"2"),
    ];
    want.sort_unstable();
    assert_eq!(got, want);
    let twice: Vec<_> = request.headers().get_all("x-two").iter().collect();
    assert_eq!(twice, ["1", "2"]);
}

#[test]
fn length_of_a_request_is_told_or_by_its_end() {
    let length = |field: &str| {
        let text = format!("POST / HTTP/1.1\r\nHost: t\r\n{field}\r\n");
        outbound(&text).map(|o| o.length)
    };
    assert_eq!(length("").unwrap(), Some(0));
    assert_eq!(length("Content-Length: 0\r\n").unwrap(), Some(0));
    assert_eq!(length("Content-Length: 7\r\n").unwrap(), Some(7));
    assert_eq!(length("Transfer-Encoding: chunked\r\n").unwrap(), None);
    for wrong in ["", "x", "-1", "+1", "7, 7", "99999999999999999999"] {
        let field = format!("Content-Length: {wrong}\r\n");
        assert!(
            matches!(length(&field), Err(HeadError::Malformed)),
            "{wrong:?}"
        );
    }
}

#[test]
fn fields_of_a_connection_are_left_behind() {
    let read = outbound(
        "GET / HTTP/1.1\r\nHost: t\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: close\r\nHTTP2-Settings: AAMAAABk\r\nTE: gzip\r\n\
         Transfer-Encoding: chunked\r\nX: y\r\n\r\n",
    )
    .unwrap();
    assert_eq!(fields(read.request.headers()), [("x", &b"y"[..])]);
}

#[test]
fn grpc_says_that_it_takes_trailers() {
    for (kind, te) in [
        ("application/grpc", Some("trailers")),
        ("application/grpc+proto", Some("trailers")),
        ("application/json", None),
    ] {
        let text = format!("POST /s/m HTTP/1.1\r\nHost: t\r\nContent-Type: {kind}\r\n\r\n");
        let read = outbound(&text).unwrap();
        let got = read.request.headers().get("te");
        assert_eq!(got.map(|v| v.to_str().unwrap()), te, "{kind}");
    }
}

#[test]
fn host_that_is_absent_or_empty_falls_back() {
    for host in ["", "Host:\r\n", "Host:  \r\n"] {
        let read = outbound(&format!("GET / HTTP/1.1\r\n{host}\r\n")).unwrap();
        assert_eq!(read.request.uri(), "https://fallback:8443/");
        assert!(!read.request.headers().contains_key(HOST));
    }
    let wrong = outbound("GET / HTTP/1.1\r\nHost: a b\r\n\r\n");
    assert!(matches!(wrong, Err(HeadError::Authority)));
}

#[test]
fn asterisk_and_root_are_targets() {
    let target = |text: &str| outbound(text).map(|o| o.request.uri().path().to_owned());
    assert_eq!(
        target("OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n").unwrap(),
        "*"
    );
    assert_eq!(target("GET / HTTP/1.1\r\nHost: t\r\n\r\n").unwrap(), "/");
    for wrong in ["a", "t:443", "http://t/"] {
        let read = target(&format!("GET {wrong} HTTP/1.1\r\nHost: t\r\n\r\n"));
        assert!(matches!(read, Err(HeadError::Target)), "{wrong}");
    }
}

/// Whatever the front door lets in gets through, and means the same.
#[test]
fn every_target_that_the_codec_takes_can_be_told() {
    for byte in 0x21..0x7f_u8 {
        for target in [
            format!("/a{}b", byte as char),
            format!("/?a{}b", byte as char),
        ] {
            let text = format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n");
            if try_parse(text.as_bytes()).is_err() {
                continue;
            }
            let read = outbound(&text).unwrap_or_else(|e| panic!("{target}: {e}"));
            let got = read.request.uri().path_and_query().unwrap().as_str();
            let encoded = target.replace(byte as char, &format!("%{byte:02X}"));
            assert!(got == target || got == encoded, "{target}: {got}");
        }
    }
}

#[test]
fn characters_that_no_uri_has_are_percent_encoded() {
    let target = |target: &str| {
        let read = outbound(&format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
        read.map(|o| o.request.uri().path_and_query().unwrap().to_string())
    };
    assert_eq!(target("/a?b<c>d").unwrap(), "/a?b%3Cc%3Ed");
    assert_eq!(target("/a%20b?c=%3C").unwrap(), "/a%20b?c=%3C");
    for wrong in ["", "/a\tb", "/a\rb", "/a\nb", "/a\0b"] {
        assert!(target(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn upgrade_to_a_websocket_is_an_extended_connect() {
    let read = outbound(
        "GET /chat HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )
    .unwrap();
    assert_eq!(read.request.method(), Method::CONNECT);
    assert_eq!(read.request.uri(), "https://t/chat");
    let protocol = read.request.extensions().get::<Protocol>().unwrap();
    assert_eq!(protocol.as_str(), "websocket");
    assert_eq!(
        fields(read.request.headers()),
        [("sec-websocket-version", &b"13"[..])]
    );
    assert_eq!(read.length, None);
    // RFC 6455 section 1.3.
    let accept = read.accept.as_deref();
    assert_eq!(accept, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
}

#[test]
fn other_upgrades_cannot_be_told() {
    let read = outbound("GET / HTTP/1.1\r\nHost: t\r\nUpgrade: h2c\r\n\r\n");
    assert!(matches!(read, Err(HeadError::Upgrade)));
}

#[test]
fn text_that_is_no_head_is_malformed() {
    let cases: [&[u8]; 13] = [
        b"",
        b"GET / HTTP/1.1",
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nHost: t\r\n",
        b"GET\r\n\r\n",
        b"\r\n\r\n",
        b"GE(T / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\n: no name\r\n\r\n",
        b"GET / HTTP/1.1\r\na b: c\r\n\r\n",
        b"GET / HTTP/1.1\r\na: b\nc: d\r\n\r\n",
        b"GET / HTTP/1.1\r\na: b\rc\r\n\r\n",
        b"GET / HTTP/1.1\r\na: b\0c\r\n\r\n",
    ];
    for text in cases {
        let read = read_request(text, Scheme::HTTP, "t");
        assert!(
            matches!(read, Err(HeadError::Malformed)),
            "{}: {read:?}",
            text.escape_ascii()
        );
    }
}
