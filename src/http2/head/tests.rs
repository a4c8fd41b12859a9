//! Requests, both ways.

use http::Method;

use super::kit::{Fields, decode, encode, owned};
use super::*;
use crate::http1::{FieldId, Form, Limits, Progress, Refusal, RequestBody, RequestHead};
use crate::http2::hpack::{Decoder, Encoder};
use crate::http2::websocket;

/// The fields of a request, its pseudo-fields first.
pub(super) fn parts(
    method: &str,
    authority: Option<&str>,
    path: &str,
    fields: &[(&str, &[u8])],
) -> Fields {
    let mut all = vec![(":method", method.as_bytes()), (":scheme", b"https")];
    all.extend(authority.map(|authority| (":authority", authority.as_bytes())));
    all.push((":path", path.as_bytes()));
    all.extend_from_slice(fields);
    owned(&all)
}

fn get(authority: Option<&str>, fields: &[(&str, &[u8])]) -> Fields {
    parts("GET", authority, "/", fields)
}

fn connect(authority: Option<&str>) -> Fields {
    let mut parts = parts("CONNECT", authority, "/", &[]);
    parts.retain(|(name, _)| name != ":scheme" && name != ":path");
    parts
}

fn extended(protocol: &str, fields: &[(&str, &[u8])]) -> Fields {
    let mut parts = parts("CONNECT", Some("test"), "/chat?room=1", fields);
    parts.insert(0, (":protocol".to_owned(), protocol.as_bytes().to_vec()));
    parts
}

pub(super) fn try_text(parts: &Fields, is_whole: bool) -> Result<(Vec<u8>, Asked), Malformed> {
    let mut request = RequestText::default();
    let mut out = Vec::new();
    request.begin(64 * 1024, 7);
    Decoder::new(4096)
        .decode(&encode(parts), |field| request.field(&mut out, &field))
        .unwrap();
    let asked = request.finish(&mut out, is_whole)?;
    Ok((out, asked))
}

#[track_caller]
pub(super) fn text(parts: &Fields, is_whole: bool) -> Vec<u8> {
    try_text(parts, is_whole).unwrap().0
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

/// What is sent of a text: the pseudo-fields, the others, and the rest.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) fields: Fields,
    length: Option<u64>,
    accept: Option<String>,
    pub(super) end: usize,
}

impl Sent {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| std::str::from_utf8(value).unwrap())
    }

    pub(super) fn others(&self) -> Vec<(&str, &[u8])> {
        let others = self.fields.iter().filter(|(n, _)| !n.starts_with(':'));
        others.map(|(n, v)| (n.as_str(), v.as_slice())).collect()
    }
}

pub(super) fn outbound(text: &[u8]) -> Result<Sent, HeadError> {
    let mut lines = Vec::new();
    let read = read_request(text, &mut lines, "fallback:8443")?;
    let mut block = Vec::new();
    read.write(&mut block, &mut Encoder::new(), &lines, true);
    Ok(Sent {
        fields: decode(&block),
        length: read.length,
        accept: read.accept,
        end: read.end,
    })
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
    for wrong in [
        &b""[..],
        b"5, 5",
        b"+5",
        b"-1",
        b"0x5",
        b"5 5",
        b" 5",
        b"5 ",
        b"\t5",
        b"99999999999999999999",
    ] {
        // The codec would take some of them for a length, which nobody would hold the body to.
        let text = try_text(&post(&[("content-length", wrong)]), false);
        assert_eq!(text, Err(Malformed), "{}", wrong.escape_ascii());
    }
    let two = |a, b| {
        try_text(
            &post(&[("content-length", a), ("content-length", b)]),
            false,
        )
    };
    assert_eq!(two(b"5", b"6"), Err(Malformed));
    assert_eq!(two(b"5", b"5").unwrap().1.length, Some(5));
}

#[test]
fn connect_names_its_authority_alone() {
    for authority in ["test:443", "test"] {
        let text = text(&connect(Some(authority)), false);
        // What follows is no body: seen red, as a 400 for its Transfer-Encoding.
        let head = parse(&text);
        assert_eq!(head.body, RequestBody::None);
        assert_eq!(
            (&head.method, head.form()),
            (&Method::CONNECT, Form::Authority)
        );
        assert_eq!(head.target(&text), "test:443");
    }
}

#[test]
fn connect_without_an_authority_is_refused() {
    assert!(try_parse(&text(&connect(None), false)).is_err());
}

/// RFC 9113 section 8.3.1, and RFC 8441 section 4.
#[test]
fn pseudo_fields_come_once_and_first_and_as_the_method_wants() {
    let ordinary = get(Some("test"), &[("x", b"y")]);
    assert!(try_text(&ordinary, true).is_ok());
    for (name, _) in &ordinary {
        let mut without = ordinary.clone();
        without.retain(|(n, _)| n != name);
        let is_well = matches!(name.as_str(), ":authority" | "x");
        assert_eq!(try_text(&without, true).is_ok(), is_well, "without {name}");
        let mut twice = ordinary.clone();
        twice.insert(0, ordinary.iter().find(|(n, _)| n == name).unwrap().clone());
        // Which is then in front of the others, too.
        assert!(try_text(&twice, true).is_err(), "{name} twice");
    }
    for i in 0..4 {
        let mut late = ordinary.clone();
        let moved = late.remove(i);
        late.push(moved);
        assert!(try_text(&late, true).is_err(), "{late:?}");
    }
    let with = |name: &str, value: &[u8]| {
        let mut parts = ordinary.clone();
        parts.insert(0, (name.to_owned(), value.to_vec()));
        try_text(&parts, true)
    };
    for (name, value) in [(":protocol", "websocket"), (":status", "200"), (":x", "y")] {
        assert_eq!(with(name, value.as_bytes()), Err(Malformed), "{name}");
    }
    let mut both = connect(Some("test"));
    both.push((":path".to_owned(), b"/".to_vec()));
    assert_eq!(try_text(&both, true), Err(Malformed));
}

#[test]
fn what_could_end_a_line_or_a_word_is_refused() {
    for bad in ["", "a b", "a\rb", "a\nb", "a\0b", "GET\t"] {
        assert_eq!(
            try_text(&parts(bad, Some("test"), "/", &[]), true),
            Err(Malformed)
        );
    }
    for bad in [
        "",
        "a",
        "/a b",
        "/\r\n",
        "/\0",
        "/\t",
        "http://t/",
        "*a",
        "/a#b",
        "/\x7f",
    ] {
        assert_eq!(
            try_text(&parts("GET", Some("test"), bad, &[]), true),
            Err(Malformed),
            "{bad:?}"
        );
    }
    for bad in ["a b", "a\r\nx: y", "a\0", "\t"] {
        assert_eq!(
            try_text(&get(Some(bad), &[]), true),
            Err(Malformed),
            "{bad:?}"
        );
    }
    for (name, value) in [
        ("x", "a\rb"),
        ("x", "a\nb"),
        ("x", "a\0b"),
        ("x\r", "a"),
        ("x y", "a"),
        ("x:", "a"),
        ("", "a"),
    ] {
        let parts = get(Some("test"), &[(name, value.as_bytes())]);
        assert_eq!(
            try_text(&parts, true),
            Err(Malformed),
            "{name:?}: {value:?}"
        );
    }
}

#[test]
fn fields_of_a_connection_are_malformed() {
    for (name, value) in [
        ("connection", "close"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
    ] {
        let parts = get(Some("test"), &[(name, value.as_bytes())]);
        assert_eq!(try_text(&parts, true), Err(Malformed), "{name}: {value}");
    }
}

/// What is within the limit is there to its last field.
#[test]
fn long_paths_and_cookies_take_no_field_away() {
    let (path, crumb) = (format!("/{}", "p".repeat(30_000)), vec![b'c'; 25_000]);
    let fields = [("cookie", &crumb[..]), ("if-match", b"x"), ("range", b"y")];
    let (text, _) = try_text(&parts("GET", Some("test"), &path, &fields), true).unwrap();
    for field in ["if-match: x\r\n", "range: y\r\n"] {
        assert!(
            text.windows(field.len()).any(|w| w == field.as_bytes()),
            "{field}"
        );
    }
}

/// Its reader says that it is too long; it is not gathered beyond that.
#[test]
fn text_ends_a_little_beyond_the_limit() {
    let long = vec![b'x'; 1000];
    for name in ["x", "cookie"] {
        let fields: Vec<(&str, &[u8])> = vec![(name, &long); 1000];
        let (text, _) = try_text(&get(Some("test"), &fields), true).unwrap();
        assert!(text.len() > 64 * 1024 + 500, "{}", text.len());
        assert!(text.len() < 64 * 1024 + 4 * BEYOND, "{}", text.len());
    }
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
fn what_passes_here_and_not_the_codec_is_refused() {
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
        b"POST /a/b?c=d HTTP/1.1\r\nHost: Test:81\r\nX-Mixed-Case: Yes\r\nContent-Length: 12\r\n\
         x-two: 1\r\nempty:\r\nX-Two: 2\r\nblank:   \r\ntrailer: x-sum\r\n\r\n",
    )
    .unwrap();
    assert_eq!((read.length, &read.accept), (Some(12), &None));
    let want: [(&str, &[u8]); 11] = [
        (":method", b"POST"),
        (":scheme", b"https"),
        (":authority", b"Test:81"),
        (":path", b"/a/b?c=d"),
        ("x-mixed-case", b"Yes"),
        ("content-length", b"12"),
        ("x-two", b"1"),
        ("empty", b""),
        ("x-two", b"2"),
        ("blank", b""),
        ("trailer", b"x-sum"),
    ];
    assert_eq!(read.fields, owned(&want));
}

#[test]
fn length_of_a_request_is_told_or_by_its_end() {
    let length = |field: &str| {
        let text = format!("POST / HTTP/1.1\r\nHost: t\r\n{field}\r\n");
        outbound(text.as_bytes()).map(|o| o.length)
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
        b"GET / HTTP/1.1\r\nHost: t\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: close\r\nHTTP2-Settings: AAMAAABk\r\nTE: gzip\r\n\
         Transfer-Encoding: chunked\r\nX: y\r\n\r\n",
    )
    .unwrap();
    assert_eq!(read.others(), [("x", &b"y"[..])]);
}

#[test]
fn grpc_says_that_it_takes_trailers() {
    for (kind, te) in [
        ("application/grpc", Some("trailers")),
        ("application/grpc+proto", Some("trailers")),
        ("application/json", None),
    ] {
        let text = format!("POST /s/m HTTP/1.1\r\nHost: t\r\nContent-Type: {kind}\r\n\r\n");
        let read = outbound(text.as_bytes()).unwrap();
        assert_eq!(read.get("te"), te, "{kind}");
    }
}

#[test]
fn host_that_is_absent_or_empty_falls_back() {
    for host in ["", "Host:\r\n", "Host:  \r\n"] {
        let read = outbound(format!("GET / HTTP/1.1\r\n{host}\r\n").as_bytes()).unwrap();
        assert_eq!(read.get(":authority"), Some("fallback:8443"));
        assert_eq!(read.get("host"), None);
    }
}

#[test]
fn asterisk_and_root_are_targets() {
    for target in ["*", "/"] {
        let text = format!("OPTIONS {target} HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(
            outbound(text.as_bytes()).unwrap().get(":path"),
            Some(target)
        );
    }
    for wrong in ["a", "t:443", "http://t/"] {
        let text = format!("GET {wrong} HTTP/1.1\r\nHost: t\r\n\r\n");
        assert!(outbound(text.as_bytes()).is_err(), "{wrong}");
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
            let read = outbound(text.as_bytes()).unwrap();
            let got = read.get(":path").unwrap();
            let encoded = target.replace(byte as char, &format!("%{byte:02X}"));
            assert!(got == target || got == encoded, "{target}: {got}");
        }
    }
}

#[test]
fn characters_that_no_uri_has_are_percent_encoded() {
    let target = |target: &str| {
        let text = format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n");
        outbound(text.as_bytes()).map(|o| o.get(":path").unwrap().to_owned())
    };
    assert_eq!(target("/a?b<c>d").unwrap(), "/a?b%3Cc%3Ed");
    assert_eq!(target("/a%20b?c=%3C").unwrap(), "/a%20b?c=%3C");
    assert!(target("").is_err());
}

#[test]
fn upgrade_to_a_websocket_is_an_extended_connect() {
    let read = outbound(
        b"GET /chat HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )
    .unwrap();
    assert_eq!(read.get(":method"), Some("CONNECT"));
    assert_eq!(
        (read.get(":scheme"), read.get(":path")),
        (Some("https"), Some("/chat"))
    );
    assert_eq!(read.get(":protocol"), Some("websocket"));
    assert_eq!(read.others(), [("sec-websocket-version", &b"13"[..])]);
    assert_eq!(read.length, None);
    // RFC 6455 section 1.3.
    let accept = read.accept.as_deref();
    assert_eq!(accept, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
}

#[test]
fn other_upgrades_cannot_be_told() {
    let read = outbound(b"GET / HTTP/1.1\r\nHost: t\r\nUpgrade: h2c\r\n\r\n");
    assert!(matches!(read, Err(HeadError::Upgrade)));
}

#[test]
fn text_that_is_no_head_is_malformed() {
    let cases: [&[u8]; 11] = [
        b"",
        b"GET / HTTP/1.1",
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nHost: t\r\n",
        b"GET\r\n\r\n",
        b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\n: no name\r\n\r\n",
        b"GET / HTTP/1.1\r\na: b\nc: d\r\n\r\n",
        b"GET / HTTP/1.1\r\na: b\rc\r\n\r\n",
        b"GET / HTTP/1.1\r\na: b\0c\r\n\r\n",
    ];
    for text in cases {
        let read = outbound(text);
        assert!(
            matches!(read, Err(HeadError::Malformed)),
            "{}: {read:?}",
            text.escape_ascii()
        );
    }
}
