//! A chunked body, whole and in pieces.
#![no_main]

use isobar::http1::Limits;
use isobar::http1::corpus::{Outcome, read_request};

#[path = "../cuts.rs"]
mod cuts;

const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let limits = Limits {
        max_fields: 16,
        ..Limits::default()
    };
    cuts::check(data, |pieces| {
        let mut all = vec![HEAD];
        all.extend_from_slice(pieces);
        let outcome = read_request(&all, &limits);
        assert!(!matches!(&outcome, Outcome::Accepted(m) if m.is_empty()));
        outcome
    });
});
