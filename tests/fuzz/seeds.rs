//! Writes every message of the corpus to the directory named by the argument, one file each:
//! requests and responses, and for the chunked target what follows a head.
//!
//! A fuzz target in form only: what is built with coverage instrumentation must link libFuzzer.
#![no_main]

use std::path::Path;

use isobar::base::addr::EndpointAddr;
use isobar::fleet::fact::{About, Fact, Key, Value};
use isobar::fleet::id::PeerId;
use isobar::fleet::stamp::Stamp;
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

/// The byte that steers; version 1, and version 2 with ALPN, a name, and a type of somebody's own.
const PROXY: [&[u8]; 2] = [
    b"0PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\nGET / HTTP/1.1\r\n",
    b"0\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x24\xc0\0\x02\x01\xc6\x33\x64\x02\xdc\x04\x01\xbb\
    \x01\0\x02h2\x02\0\x09a.example\xe0\0\x01x\x04\0\0",
];

/// The byte that steers; a ClientHello with a name and two protocols.
const HELLO: &[u8] = b"9\x16\x03\x01\0\x60\x01\0\0\x5c\x03\x03\
    01234567890123456789012345678901\0\0\x02\x13\x01\x01\0\0\x31\
    \0\0\0\x0e\0\x0c\0\0\x09a.example\
    \0\x10\0\x0b\0\x09\x08http/1.1\
    \0\x0d\0\x04\0\x02\x04\x03\0\x0a\0\x04\0\x02\0\x1d";

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
    if name == "proxy_protocol" {
        for (i, header) in PROXY.into_iter().enumerate() {
            std::fs::write(dir.join(format!("seed-{i}")), header)?;
        }
        return Ok(());
    }
    if name == "fleet_fact" {
        return write_facts(dir);
    }
    if name == "client_hello" {
        return std::fs::write(dir.join("seed"), HELLO);
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

fn write_facts(dir: &Path) -> std::io::Result<()> {
    let peer = PeerId(7);
    let endpoint = EndpointAddr::Ip(([10, 0, 0, 1], 8080).into());
    let vote = Key::Vote {
        upstream: "app".into(),
        endpoint,
        prober: peer,
    };
    let registration = Key::Registration {
        upstream: "app".into(),
        endpoint: EndpointAddr::Unix("/run/app.sock".into()),
        registrar: peer,
    };
    let why = "refused".to_owned();
    for (i, (key, value)) in [
        (Key::Peer(peer), Value::Peer(About::default())),
        (
            vote,
            Value::Vote {
                passed: false,
                check: 1,
                why,
            },
        ),
        (
            registration.clone(),
            Value::Registered {
                weight: 5,
                zone: Some("a".into()),
                ttl_ms: 30_000,
            },
        ),
        (registration, Value::Gone),
    ]
    .into_iter()
    .enumerate()
    {
        let stamp = Stamp::at(1_700_000_000_000);
        let fact = Fact {
            key,
            value,
            stamp,
            origin: peer,
        };
        let bytes = postcard::to_allocvec(&fact).map_err(std::io::Error::other)?;
        std::fs::write(dir.join(format!("seed-{i}")), bytes)?;
    }
    Ok(())
}
