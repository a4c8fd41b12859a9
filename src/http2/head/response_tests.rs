//! Responses, both ways.

use super::tests::fields;
use super::*;
use crate::http1::{FieldId, Limits, Progress, ResponseBody, ResponseHead};

fn response_text(
    status: u16,
    fields: &[(&str, &[u8])],
    is_whole: bool,
    is_head: bool,
    accept: Option<&str>,
) -> Vec<u8> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(value).unwrap());
    }
    let mut out = Vec::new();
    let status = StatusCode::from_u16(status).unwrap();
    write_response(&mut out, status, &headers, is_whole, is_head, accept);
    out
}

#[track_caller]
pub(super) fn parse_response(text: &[u8], method: &Method) -> ResponseHead {
    let mut head = ResponseHead::new();
    let progress = head
        .parse(text, &Limits::default(), method)
        .unwrap_or_else(|e| panic!("{e}: {}", text.escape_ascii()));
    assert_eq!(progress, Progress::Complete);
    assert_eq!(head.head_len(), text.len(), "nothing follows the head");
    head
}

// === responses that came over HTTP/2 ===

#[test]
fn response_is_told_by_length_in_chunks_or_is_all_there() {
    let body = |text: &[u8]| parse_response(text, &Method::GET).body;
    let sized: [(&str, &[u8]); 1] = [("content-length", b"5")];
    assert_eq!(
        response_text(200, &[], false, false, None),
        b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    assert_eq!(
        body(&response_text(404, &[], false, false, None)),
        ResponseBody::Chunked
    );
    assert_eq!(
        body(&response_text(200, &sized, false, false, None)),
        ResponseBody::Length(5)
    );
    // Nothing is said: that it ends with its head is told beside the text.
    assert_eq!(
        body(&response_text(200, &[], true, false, None)),
        ResponseBody::UntilClose
    );
}

#[test]
fn responses_without_a_body_announce_none() {
    for status in [100, 103, 204, 304] {
        for is_whole in [false, true] {
            let text = response_text(status, &[("x", b"y")], is_whole, false, None);
            let head = parse_response(&text, &Method::GET);
            assert_eq!(head.status.as_u16(), status);
            assert_eq!(head.body, ResponseBody::None);
            assert!(head.keep_alive);
            assert!(!head.has(FieldId::TransferEncoding));
        }
    }
    let length: [(&str, &[u8]); 1] = [("content-length", b"5")];
    for is_whole in [false, true] {
        for fields in [&length[..], &[]] {
            let text = response_text(200, fields, is_whole, true, None);
            let head = parse_response(&text, &Method::HEAD);
            assert_eq!(head.body, ResponseBody::None);
            assert!(!head.has(FieldId::TransferEncoding));
            let got = head.get(&text, FieldId::ContentLength);
            assert_eq!(got, fields.first().map(|(_, v)| *v));
        }
    }
}

#[test]
fn websocket_that_was_opened_is_switched_to() {
    // RFC 6455 section 1.3.
    let accept = websocket::accept(b"dGhlIHNhbXBsZSBub25jZQ==");
    let fields: [(&str, &[u8]); 3] = [
        ("sec-websocket-protocol", b"chat"),
        ("sec-websocket-accept", b"of nothing"),
        ("content-length", b"5"),
    ];
    let text = response_text(200, &fields, false, false, Some(&accept));
    let head = parse_response(&text, &Method::GET);
    assert_eq!(head.status, StatusCode::SWITCHING_PROTOCOLS);
    assert!(head.upgrade);
    let accepts: Vec<_> = head.get_all(&text, "sec-websocket-accept").collect();
    assert_eq!(accepts, [b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]);
    assert!(!head.has(FieldId::ContentLength));
    assert!(!head.has(FieldId::TransferEncoding));
}

#[test]
fn websocket_that_was_refused_is_an_answer_like_others() {
    let text = response_text(403, &[("content-length", b"2")], false, false, Some("x"));
    let head = parse_response(&text, &Method::GET);
    assert_eq!((head.status.as_u16(), head.upgrade), (403, false));
    assert_eq!(head.body, ResponseBody::Length(2));
    assert!(head.get_all(&text, "sec-websocket-accept").next().is_none());
}

// === responses that go over HTTP/2 ===

fn response(text: &str, opens: bool) -> Result<(Response<()>, Option<u64>), HeadError> {
    read_response(text.as_bytes(), opens).map(|reply| (reply.response, reply.length))
}

#[test]
fn response_of_text_is_the_same_response() {
    let (response, length) = response(
        "HTTP/1.1 201 Created\r\nConnection: close\r\nKeep-Alive: timeout=5\r\n\
         Transfer-Encoding: chunked\r\nUpgrade: h3\r\nSet-Cookie: a=1\r\nX: caf\u{e9}\r\n\
         set-cookie: b=2\r\nEmpty:\r\n\r\n",
        false,
    )
    .unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(length, None);
    let mut got = fields(response.headers());
    got.sort_unstable();
    let mut want: Vec<(&str, &[u8])> = vec![
        ("empty", b""),
        ("set-cookie", b"a=1"),
        ("set-cookie", b"b=2"),
        ("x", "caf\u{e9}".as_bytes()),
    ];
    want.sort_unstable();
    assert_eq!(got, want);
    let cookies: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
}

#[test]
fn length_of_a_response_is_told_and_stays() {
    let (told, length) = response("HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\n", false).unwrap();
    assert_eq!(length, Some(5));
    assert_eq!(told.headers()[CONTENT_LENGTH], "5");
    let wrong = response("HTTP/1.1 200 \r\nContent-Length: five\r\n\r\n", false);
    assert!(matches!(wrong, Err(HeadError::Malformed)));
}

#[test]
fn switching_to_a_websocket_is_a_success() {
    let text = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
                Sec-WebSocket-Protocol: chat\r\n\r\n";
    let (opened, _) = response(text, true).unwrap();
    assert_eq!(opened.status(), 200);
    assert_eq!(
        fields(opened.headers()),
        [("sec-websocket-protocol", &b"chat"[..])]
    );
}

/// A success would say that the WebSocket is open, and a page would be read as its frames.
#[test]
fn success_without_a_switch_opens_nothing() {
    for status in [200, 201, 204, 206] {
        let text = format!("HTTP/1.1 {status} Fine\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(response(&text, true).unwrap().0.status(), 502);
        assert_eq!(response(&text, false).unwrap().0.status(), status);
    }
    for status in [100, 103, 302, 401, 403, 503] {
        let text = format!("HTTP/1.1 {status} No\r\n\r\n");
        assert_eq!(response(&text, true).unwrap().0.status(), status);
    }
}

#[test]
fn response_text_that_is_no_head_is_malformed() {
    for text in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1\r\n\r\n",
        "HTTP/1.1 2x0 \r\n\r\n",
        "HTTP/1.1 099 \r\n\r\n",
        "HTTP/1.1 200 \r\nX: y\r\n",
        "HTTP/1.1 200 \r\nno colon\r\n\r\n",
        "HTTP/1.1 200 \r\nX: a\nb\r\n\r\n",
    ] {
        let read = response(text, false);
        assert!(matches!(read, Err(HeadError::Malformed)), "{text:?}");
    }
}

/// Bytes behind a head, be they few or many, are none of it.
#[test]
fn what_lies_behind_a_head_is_left_there() {
    let request = "GET / HTTP/1.1\r\nHost: t\r\nX: y\r\n\r\n";
    let response = "HTTP/1.1 200 \r\nX: y\r\nContent-Length: 9\r\n\r\n";
    for behind in ["", "X: z\r\n\r\n", &"z\r\n\r\n".repeat(1000)] {
        let text = [request, behind].concat();
        let read = read_request(text.as_bytes(), Scheme::HTTP, "t").unwrap();
        assert_eq!(read.end, request.len());
        assert_eq!(fields(read.request.headers()), [("x", &b"y"[..])]);
        let text = [response, behind].concat();
        let read = read_response(text.as_bytes(), false).unwrap();
        assert_eq!((read.end, read.length), (response.len(), Some(9)));
        assert_eq!(read.response.headers()["x"], "y");
    }
}
