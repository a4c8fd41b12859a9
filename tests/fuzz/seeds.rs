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

fn write_and_leave() {
    write().expect("usage: seeds DIRECTORY, which exists");
    std::process::exit(0);
}

fn write() -> std::io::Result<()> {
    let dir = std::env::args_os().nth(1).unwrap_or_default();
    let dir = Path::new(&dir);
    let name = dir.file_name().unwrap_or_default();
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
