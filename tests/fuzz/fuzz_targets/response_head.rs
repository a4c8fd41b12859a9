//! A response, whole and in pieces.
#![no_main]

use http::Method;
use isobar::http1::Limits;
use isobar::http1::corpus::read_response;

#[path = "../cuts.rs"]
mod cuts;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let limits = Limits {
        max_head_bytes: 1024,
        max_fields: 16,
        max_target_bytes: 128,
    };
    let method = match data.first().map(|b| b % 4) {
        Some(1) => Method::HEAD,
        Some(2) => Method::CONNECT,
        _ => Method::GET,
    };
    cuts::check(data, |pieces| read_response(pieces, &limits, &method));
});
