//! A request, whole and in pieces.
#![no_main]

use isobar::http1::Limits;
use isobar::http1::corpus::read_request;

#[path = "../cuts.rs"]
mod cuts;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let limits = Limits {
        max_head_bytes: 1024,
        max_fields: 16,
        max_target_bytes: 128,
    };
    cuts::check(data, |pieces| read_request(pieces, &limits));
});
