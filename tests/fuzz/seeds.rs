//! Writes every message of the corpus to the directory named by the argument, one file each:
//! requests and responses, and for the chunked target what follows a head.
//!
//! A fuzz target in form only: what is built with coverage instrumentation must link libFuzzer.
#![no_main]

use std::path::Path;

use isobar::http1::corpus::{REQUESTS, RESPONSES};

libfuzzer_sys::fuzz_target!(
    init: write_and_leave(),
    |_data: &[u8]| {}
);

/// The byte that steers the cuts; preface, SETTINGS, HEADERS with CONTINUATION, padded DATA,
/// RST_STREAM, PING, WINDOW_UPDATE.
const FRAMES: &[u8] = b"7PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\
    \0\0\x06\x04\0\0\0\0\0\0\x04\0\0\xff\xff\
    \0\0\x02\x01\0\0\0\0\x01\x82\x84\
    \0\0\x01\x09\x04\0\0\0\x01\x86\
    \0\0\x03\x00\x08\0\0\0\x01\x02\0\0\
    \0\0\x04\x03\0\0\0\0\x01\0\0\0\x08\
    \0\0\x08\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\
    \0\0\x04\x08\0\0\0\0\0\0\0\x10\0";

fn write_and_leave() {
    write().expect("usage: seeds DIRECTORY, which exists");
    std::process::exit(0);
}

fn write() -> std::io::Result<()> {
    let dir = std::env::args_os().nth(1).unwrap_or_default();
    let dir = Path::new(&dir);
    let name = dir.file_name().unwrap_or_default();
    if name == "h2_meter" {
        return std::fs::write(dir.join("seed"), FRAMES);
    }
    let cases = if name == "response_head" {
        RESPONSES
    } else {
        REQUESTS
    };
    for (i, case) in cases.iter().copied().flatten().enumerate() {
        let bytes = match case.bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            Some(end) if name == "chunked" => &case.bytes[end + 4..],
            _ => case.bytes,
        };
        // The first byte steers the cuts or the method.
        let mut seed = vec![b'0' + (i % 10) as u8];
        seed.extend_from_slice(bytes);
        std::fs::write(dir.join(format!("seed-{i:03}")), seed)?;
    }
    Ok(())
}
