//! The subset rule against hyper's server.
#![no_main]

use isobar::http1 as codec;

#[allow(dead_code, reason = "responses are compared by the unit tests")]
#[path = "../../../src/http1/tests/oracle.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let [_, bytes @ ..] = data {
        oracle::check_requests(bytes, &codec::Limits::default());
    }
});
