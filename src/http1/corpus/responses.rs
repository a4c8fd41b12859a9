//! Responses. One a line, whatever its length: it is a table.

use super::Case;
use crate::http1::Refusal;

const fn ok(name: &'static str, bytes: &'static [u8], meaning: &'static str) -> Case {
    Case::accept(name, bytes, meaning)
}

const fn no(name: &'static str, bytes: &'static [u8], refusal: Refusal) -> Case {
    Case::refuse(name, bytes, refusal)
}

/// Every response of the corpus.
pub static RESPONSES: &[&[Case]] = &[STATUS_LINES, BODIES, LENGTHS, CODINGS];

/// Status lines and line ends.
#[rustfmt::skip]
const STATUS_LINES: &[Case] = &[
    ok("plain", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "200 (OK) 0 keep cl=0"),
    ok("no fields", b"HTTP/1.1 200 OK\r\n\r\n", "200 (OK) until-close close"),
    ok("an empty reason", b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "200 () 0 keep cl=0"),
    ok("no reason and no space", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "200 () 0 keep cl=0"),
    ok("no reason and no fields", b"HTTP/1.1 304\r\n\r\n", "304 () none keep"),
    ok("spaces and a tab in the reason", b"HTTP/1.1 404  Not\tFound \r\nContent-Length: 0\r\n\r\n", "404 ( Not\tFound ) 0 keep cl=0"),
    ok("obs-text in the reason", b"HTTP/1.1 200 \xc3\xa4\r\nContent-Length: 0\r\n\r\n", "200 (\u{e4}) 0 keep cl=0"),
    ok("an unknown status", b"HTTP/1.1 999 ?\r\nContent-Length: 0\r\n\r\n", "999 (?) 0 keep cl=0"),
    ok("1.0", b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", "200 (OK) 1 close 1.0 cl=1 \"x\""),
    ok("1.0 keep-alive", b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\nx", "200 (OK) 1 keep 1.0 cl=1 \"x\""),
    ok("close", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "200 (OK) 0 close cl=0"),
    ok("a named field", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x-a, set-cookie\r\nX-A: 1\r\nSet-Cookie: a=b\r\n\r\n", "200 (OK) 0 keep cl=0 -X-A"),
    ok("names that fold are the endpoint's own", b"HTTP/1.1 200 OK\r\nContent_Length: 5\r\nContent-Length: 0\r\n\r\n", "200 (OK) 0 keep cl=0"),
    Case::partial("nothing", b""),
    Case::partial("half a version", b"HTTP/1."),
    Case::partial("half a status", b"HTTP/1.1 2"),
    Case::partial("half a head", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"),
    Case::partial("half a body", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"),
    no("an empty line before", b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Refusal::BadStatusLine),
    no("a bare LF before", b"\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Refusal::BadStatusLine),
    no("bare LF after the status line", b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", Refusal::BareLf),
    no("bare LF after the status", b"HTTP/1.1 200\nContent-Length: 0\r\n\r\n", Refusal::BareLf),
    no("bare LF after a field", b"HTTP/1.1 200 OK\r\nContent-Length: 0\nX: 1\r\n\r\n", Refusal::BareLf),
    no("bare LF as the empty line", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n", Refusal::BareLf),
    no("bare LFs without fields", b"HTTP/1.1 200 OK\n\n", Refusal::BareLf),
    no("bare CR in the reason", b"HTTP/1.1 200 O\rK\r\n\r\n", Refusal::BadStatusLine),
    no("NUL in the reason", b"HTTP/1.1 200 O\x00K\r\n\r\n", Refusal::BadStatusLine),
    no("DEL in the reason", b"HTTP/1.1 200 O\x7fK\r\n\r\n", Refusal::BadStatusLine),
    no("bare CR in a value", b"HTTP/1.1 200 OK\r\nX: 1\r2\r\n\r\n", Refusal::BareCr),
    no("NUL in a value", b"HTTP/1.1 200 OK\r\nX: 1\x002\r\n\r\n", Refusal::BadFieldValue),
    no("a folded value", b"HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\n\r\n", Refusal::ObsFold),
    no("a space before the colon", b"HTTP/1.1 200 OK\r\nX : 1\r\n\r\n", Refusal::SpaceBeforeColon),
    no("a space before the first field", b"HTTP/1.1 200 OK\r\n X: 1\r\n\r\n", Refusal::ObsFold),
    no("no colon", b"HTTP/1.1 200 OK\r\nfoo\r\n\r\n", Refusal::BadFieldName),
    no("no name", b"HTTP/1.1 200 OK\r\n: 1\r\n\r\n", Refusal::BadFieldName),
    no("two digits", b"HTTP/1.1 20 OK\r\n\r\n", Refusal::BadStatusLine),
    no("four digits", b"HTTP/1.1 2000 OK\r\n\r\n", Refusal::BadStatusLine),
    no("099", b"HTTP/1.1 099 OK\r\n\r\n", Refusal::BadStatusLine),
    no("000", b"HTTP/1.1 000 OK\r\n\r\n", Refusal::BadStatusLine),
    no("a sign", b"HTTP/1.1 +20 OK\r\n\r\n", Refusal::BadStatusLine),
    no("two spaces before the status", b"HTTP/1.1  200 OK\r\n\r\n", Refusal::BadStatusLine),
    no("a tab after the status", b"HTTP/1.1 200\tOK\r\n\r\n", Refusal::BadStatusLine),
    no("no status", b"HTTP/1.1\r\n\r\n", Refusal::BadStatusLine),
    no("HTTP/2.0", b"HTTP/2.0 200 OK\r\n\r\n", Refusal::UnsupportedVersion),
    no("HTTP/1.2", b"HTTP/1.2 200 OK\r\n\r\n", Refusal::UnsupportedVersion),
    no("HTTP/11", b"HTTP/11 200 OK\r\n\r\n", Refusal::BadVersion),
    no("a lower-case version", b"http/1.1 200 OK\r\n\r\n", Refusal::BadVersion),
    no("HTTP/0.9", b"<html>hello</html>", Refusal::BadVersion),
    no("ICY", b"ICY 200 OK\r\n\r\n", Refusal::BadVersion),
    no("HTTP/2 settings", b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x40\x00", Refusal::BadVersion),
    no("a TLS alert", b"\x15\x03\x01\x00\x02\x02\x46", Refusal::BadVersion),
];

/// When there is a body at all.
#[rustfmt::skip]
const BODIES: &[Case] = &[
    ok("until close", b"HTTP/1.1 200 OK\r\n\r\nhello", "200 (OK) until-close close \"hello\""),
    ok("until close, whatever keep-alive says", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nhello", "200 (OK) until-close close 1.0 \"hello\""),
    ok("HEAD keeps its length", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "200 (OK) none keep cl=5").to("HEAD"),
    ok("HEAD of chunks", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "200 (OK) none keep").to("HEAD"),
    ok("HEAD without a length", b"HTTP/1.1 200 OK\r\n\r\n", "200 (OK) none keep").to("HEAD"),
    ok("304 keeps its length", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "304 (Not Modified) none keep cl=5"),
    ok("204", b"HTTP/1.1 204 No Content\r\n\r\n", "204 (No Content) none keep"),
    ok("204 with length 0", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "204 (No Content) none keep"),
    ok("204 that lies", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", "204 (No Content) none close +5"),
    ok("204 with chunks", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "204 (No Content) none close +5"),
    ok("205 has a length", b"HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n", "205 (Reset) 0 keep cl=0"),
    ok("100", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", "100 (Continue) none keep +17"),
    ok("103", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "103 (Early Hints) none keep"),
    ok("100 that lies", b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n", "100 (Continue) none close"),
    ok("101", b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00", "101 (Switching Protocols) none keep upgrade +2"),
    ok("200 to CONNECT", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "200 (OK) none keep +5").to("CONNECT"),
    ok("407 to CONNECT", b"HTTP/1.1 407 Auth\r\nContent-Length: 5\r\n\r\nhello", "407 (Auth) 5 keep cl=5 \"hello\"").to("CONNECT"),
    ok("a body to POST", b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhello", "201 (Created) 5 keep cl=5 \"hello\"").to("POST"),
];

/// Content-Length.
#[rustfmt::skip]
const LENGTHS: &[Case] = &[
    ok("two that are equal", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "200 (OK) 5 keep cl=5 \"hello\""),
    ok("a list that is equal", b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5 ,5\r\n\r\nhello", "200 (OK) 5 keep cl=5 \"hello\""),
    ok("two that are equal in value", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 05\r\n\r\nhello", "200 (OK) 5 keep cl=5 \"hello\""),
    no("two that differ", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", Refusal::ConflictingLength),
    no("a list that differs", b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello", Refusal::ConflictingLength),
    no("two that differ, to HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", Refusal::ConflictingLength).to("HEAD"),
    no("an empty element", b"HTTP/1.1 200 OK\r\nContent-Length: 5,\r\n\r\nhello", Refusal::BadLength),
    no("an empty length", b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nhello", Refusal::BadLength),
    no("a sign", b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", Refusal::BadLength),
    no("a minus", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello", Refusal::BadLength),
    no("hexadecimal", b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello", Refusal::BadLength),
    no("2^63", b"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\nhello", Refusal::BadLength),
    no("2^64", b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\nhello", Refusal::BadLength),
    no("length and encoding", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refusal::LengthAndEncoding),
    no("encoding and length", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", Refusal::LengthAndEncoding),
];

/// Transfer-Encoding.
#[rustfmt::skip]
const CODINGS: &[Case] = &[
    ok("chunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nX: 1\r\n\r\n", "200 (OK) chunked keep X=1 \"hello\""),
    no("chunked in 1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refusal::TransferEncodingIn10),
    no("gzip and chunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Refusal::UnknownCoding),
    no("identity", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello", Refusal::UnknownCoding),
    no("chunked twice", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refusal::BadTransferEncoding),
    no("chunked not last", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", Refusal::BadTransferEncoding),
    no("a vertical tab", b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", Refusal::BadFieldValue),
    no("a bad chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello", Refusal::BadChunk),
    Case::partial("cut short", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"),
];
