//! Heads of HTTP/2 as text: what the types of the `http` crate hold is read again as it was written, and
//! text that nobody wrote is refused without a panic.
#![no_main]

use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};

#[allow(dead_code, reason = "the proxy uses more of it than this does")]
#[path = "../../../src/http2/head/mod.rs"]
mod head;
#[allow(dead_code, reason = "the proxy uses more of it than this does")]
#[path = "../../../src/http2/websocket.rs"]
mod websocket;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [first, bytes @ ..] = data else { return };
    let opens = first & 1 != 0;
    let _ = head::read_request(bytes, Scheme::HTTPS, "test");
    let _ = head::read_response(bytes, opens);

    // Lines as fields: of each the name, a NUL, the value.
    let mut fields = HeaderMap::new();
    for line in bytes.split(|b| *b == b'\n') {
        let mut words = line.splitn(2, |b| *b == 0);
        let (name, value) = (words.next(), words.next());
        if let Ok(name) = HeaderName::from_bytes(name.unwrap_or_default())
            && let Ok(value) = HeaderValue::from_bytes(value.unwrap_or_default())
        {
            fields.append(name, value);
        }
    }
    let mut request = Request::new(());
    *request.headers_mut() = fields.clone();
    let mut text = Vec::new();
    head::write_request(&mut text, &request.into_parts().0, opens, || 7);
    expect_lines(&text, fields.len() + 2);
    let _ = head::read_request(&text, Scheme::HTTPS, "test");
    text.clear();
    head::write_response(&mut text, StatusCode::OK, &fields, opens, false, None);
    expect_lines(&text, fields.len() + 2);
    let is_length = |value: &HeaderValue| value.to_str().is_ok_and(|v| v.parse::<u64>().is_ok());
    if fields.get_all("content-length").iter().all(is_length) {
        assert!(head::read_response(&text, opens).is_ok());
    }
});

/// Not more than so many, and nothing but CRLF ends them.
fn expect_lines(text: &[u8], most: usize) {
    let count = |byte| text.iter().filter(|b| **b == byte).count();
    let ends = text.windows(2).filter(|w| *w == b"\r\n").count();
    assert_eq!((count(b'\r'), count(b'\n'), count(0)), (ends, ends, 0));
    // And the empty one.
    assert!(ends <= most + 1);
}
