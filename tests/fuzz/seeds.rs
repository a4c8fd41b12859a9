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

/// What is done with a server: the bytes that steer; a GET that is accepted, read, answered with a body and let
/// go; a POST in two header frames with padded DATA and trailers; windows, settings, a PING, a reset, a goodbye.
const SERVER: &[u8] = b"\x00\x07\
    \x0f\x01\0\x10\0\x15\0\x20\x19\0\0\x1a\0\x08\x1c\0\x13\xff\x1e\0\
    \x01\0\x03\x03\x83\x87\x84\x09\x04\x03\x03\x41\x01t\x10\0\0\x08\x03\x05\x02ab\0\0\x15\0\x20\
    \x01\x05\x03\x05\x40\x01x\x01y\x18\0\
    \x08\0\0\x04\0\0\x10\0\x04\0\0\x06\0\x04\0\0\xff\xff\x0e\x06\0\0\x08pingpong\
    \x0f\x07\x05\x40\x01x\x01y\x10\0\x0d\x07\x10\x1f\0\x10\x1e\x01\
    \x03\0\x07\x04\0\0\0\x08\x14\0\x07\0\0\x08\0\0\0\0\0\0\0\0";

/// And with a client: three requests; an interim head, a response with DATA and trailers, one
/// that is given up in the midst of DATA.
const CLIENT: &[u8] = b"\x03\x02\
    \x04\0\0\x06\0\x08\0\0\0\x01\x10\0\x10\x02\x10\x04\x1b\x01\x10\x1c\x01\
    \x01\x04\x01\x05\x08\x03103\x0f\x01\0\0\0\x01\x05hello\x15\0\x40\x01\x05\x01\x05\x40\x01x\x01y\x18\0\
    \x0f\x05\0\x0c\x05\x10\x1f\0\x04\x15\x02\xff\x1d\x02\x1e\0";

/// The byte that steers; text, blocks behind their lengths, names and values.
const HEADS: [&[u8]; 4] = [
    b"\0Host: a\r\nContent-Length: 5\r\nX-A: b",
    b"\x10\x0e\x82\x87\x84\x41\x01t\x40\x01x\x01y\x0f\x0d\x015\x07\x82\x87\x84\xbe\xbf\x90\x90",
    b"\x10\x14\x88\x61\x96\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0",
    b"\x20\x01\x03\x01a\x09\x01b\x09\x01c\x14\x02 d\x07\x0242\x19e\x01f",
];

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
    if name == "h2_connection" {
        std::fs::write(dir.join("server"), SERVER)?;
        return std::fs::write(dir.join("client"), CLIENT);
    }
    if name == "h2_head" {
        return write_all(dir, &HEADS);
    }
    if name == "proxy_protocol" {
        return write_all(dir, &PROXY);
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

fn write_all(dir: &Path, seeds: &[&[u8]]) -> std::io::Result<()> {
    for (i, seed) in seeds.iter().enumerate() {
        std::fs::write(dir.join(format!("seed-{i}")), seed)?;
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
