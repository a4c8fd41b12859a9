//! Heads of HTTP/2 as text and back: see `h2/head.rs`.
#![no_main]

use isobar::{base, http1};

#[allow(
    dead_code,
    unused_imports,
    reason = "the proxy uses more of it than this does"
)]
#[path = "../../../src/http2"]
mod http2 {
    #[path = "../../tests/fuzz/h2/head.rs"]
    pub mod drive;
    mod head;
    mod hpack;
    mod names;
    mod websocket;
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| http2::drive::drive(data));
