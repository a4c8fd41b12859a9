//! A connection of HTTP/2, of either end, that is told anything: see `h2/connection.rs`.
#![no_main]

use isobar::base;

#[allow(
    dead_code,
    unused_imports,
    reason = "the proxy uses more of it than this does"
)]
#[path = "../../../src/http2"]
mod http2 {
    #[path = "../../tests/fuzz/h2/connection.rs"]
    pub mod drive;
    mod frame;
    mod head;
    mod hpack;
    mod mux;
    mod names;
    mod websocket;
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| http2::drive::drive(data));
