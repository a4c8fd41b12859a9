//! Responses, both ways.

use http::{Method, StatusCode};

use super::kit::{Fields, decode, encode, owned};
use super::tests::outbound;
use super::*;
use crate::http1::{FieldId, Limits, Progress, ResponseBody, ResponseHead};
use crate::http2::hpack::{Decoder, Encoder};
use crate::http2::websocket;

pub(super) fn try_text(
    fields: &Fields,
    is_whole: bool,
    is_head: bool,
    accept: Option<&str>,
) -> Result<(Vec<u8>, Answered), Malformed> {
    let mut out = Vec::new();
    let mut response = ResponseText::new(&out, 64 * 1024, is_head, accept.map(str::to_owned));
    Decoder::new(4096)
        .decode(&encode(fields), |field| response.field(&mut out, &field))
        .unwrap();
    let answered = response.finish(&mut out, is_whole)?;
    Ok((out, answered))
}

fn response_text(
    status: u16,
    fields: &[(&str, &[u8])],
    is_whole: bool,
    is_head: bool,
    accept: Option<&str>,
) -> Vec<u8> {
    let mut all = owned(&[(":status", status.to_string().as_bytes())]);
    all.extend(owned(fields));
    try_text(&all, is_whole, is_head, accept).unwrap().0
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
            if is_whole && status < 200 {
                // RFC 9113 section 8.1: an interim head ends nothing.
                let fields = owned(&[(":status", status.to_string().as_bytes())]);
                assert!(try_text(&fields, true, false, None).is_err());
                continue;
            }
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

pub(super) fn sent(text: &[u8], opens: bool) -> Result<(Fields, Option<u64>, usize), HeadError> {
    let mut lines = Vec::new();
    let reply = read_response(text, &mut lines, opens)?;
    let mut block = Vec::new();
    reply.write(&mut block, &mut Encoder::new(), &lines);
    Ok((decode(&block), reply.length, reply.end))
}

fn response(text: &str, opens: bool) -> Result<(Fields, Option<u64>), HeadError> {
    sent(text.as_bytes(), opens).map(|(fields, length, _)| (fields, length))
}

fn status_of(fields: &Fields) -> &str {
    assert_eq!(fields[0].0, ":status");
    std::str::from_utf8(&fields[0].1).unwrap()
}

#[test]
fn response_of_text_is_the_same_response() {
    let (fields, length) = response(
        "HTTP/1.1 201 Created\r\nConnection: close\r\nKeep-Alive: timeout=5\r\n\
         Transfer-Encoding: chunked\r\nUpgrade: h3\r\nSet-Cookie: a=1\r\nX: caf\u{e9}\r\n\
         set-cookie: b=2\r\nEmpty:\r\n\r\n",
        false,
    )
    .unwrap();
    assert_eq!(length, None);
    let want: [(&str, &[u8]); 5] = [
        (":status", b"201"),
        ("set-cookie", b"a=1"),
        ("x", "caf\u{e9}".as_bytes()),
        ("set-cookie", b"b=2"),
        ("empty", b""),
    ];
    assert_eq!(fields, owned(&want));
}

/// RFC 9113 sections 8.3.2 and 8.6.
#[test]
fn status_is_the_only_pseudo_field_and_comes_first() {
    let bad: [&[(&str, &[u8])]; 10] = [
        &[],
        &[("x", b"y")],
        &[("x", b"y"), (":status", b"200")],
        &[(":status", b"200"), (":status", b"200")],
        &[(":status", b"200"), (":path", b"/")],
        &[(":status", b"101")],
        &[(":status", b"099")],
        &[(":status", b"2000")],
        &[(":status", b"2x0")],
        &[(":status", b"200"), ("x", b"a\r\nb: c")],
    ];
    for fields in bad {
        let text = try_text(&owned(fields), false, false, None);
        assert_eq!(text, Err(Malformed), "{fields:?}");
    }
    for length in ["", " 5", "5 ", "5, 5", "x"] {
        let fields = owned(&[(":status", b"200"), ("content-length", length.as_bytes())]);
        assert_eq!(
            try_text(&fields, false, false, None),
            Err(Malformed),
            "{length:?}"
        );
    }
    for name in ["connection", "keep-alive", "transfer-encoding", "upgrade"] {
        let fields = owned(&[(":status", b"200"), (name, b"x")]);
        assert_eq!(try_text(&fields, false, false, None), Err(Malformed));
    }
}

#[test]
fn response_that_is_too_long_is_cut_and_said_to_be() {
    let long = vec![b'x'; 1000];
    let mut fields = owned(&[(":status", b"200")]);
    fields.extend(vec![("x".to_owned(), long); 1000]);
    let (text, answered) = try_text(&fields, false, false, None).unwrap();
    assert!(answered.is_too_long && text.len() < 64 * 1024 + 2000);
}

#[test]
fn length_of_a_response_is_told_and_stays() {
    let (told, length) = response("HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\n", false).unwrap();
    assert_eq!(length, Some(5));
    assert_eq!(told[1], ("content-length".to_owned(), b"5".to_vec()));
    let wrong = response("HTTP/1.1 200 \r\nContent-Length: five\r\n\r\n", false);
    assert!(matches!(wrong, Err(HeadError::Malformed)));
}

#[test]
fn switching_to_a_websocket_is_a_success() {
    let text = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
                Sec-WebSocket-Protocol: chat\r\n\r\n";
    let (opened, _) = response(text, true).unwrap();
    let want: [(&str, &[u8]); 2] = [(":status", b"200"), ("sec-websocket-protocol", b"chat")];
    assert_eq!(opened, owned(&want));
}

/// A success would say that the WebSocket is open, and a page would be read as its frames.
#[test]
fn success_without_a_switch_opens_nothing() {
    for status in [200, 201, 204, 206] {
        let text = format!("HTTP/1.1 {status} Fine\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(status_of(&response(&text, true).unwrap().0), "502");
        let other = response(&text, false).unwrap().0;
        assert_eq!(status_of(&other), status.to_string());
    }
    for status in [100, 103, 302, 401, 403, 503] {
        let text = format!("HTTP/1.1 {status} No\r\n\r\n");
        let other = response(&text, true).unwrap().0;
        assert_eq!(status_of(&other), status.to_string());
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
        let read = outbound(text.as_bytes()).unwrap();
        assert_eq!(read.end, request.len());
        assert_eq!(read.others(), [("x", &b"y"[..])]);
        let text = [response, behind].concat();
        let (fields, length, end) = sent(text.as_bytes(), false).unwrap();
        assert_eq!((end, length), (response.len(), Some(9)));
        assert_eq!(fields[1], ("x".to_owned(), b"y".to_vec()));
    }
}
