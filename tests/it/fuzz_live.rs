//! Seeded mutations of the corpus thrown at a running proxy.
//!
//! `ISOBAR_FUZZ_SEED=n` repeats a run: every run prints its seed when it fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use isobar::base::rng::Rng;
use isobar::http1::Limits;
use isobar::http1::corpus::{Outcome, REQUESTS, read_request};

use crate::support::client::Client;
use crate::support::origin::{self, Origin, Step};
use crate::support::proxy::Proxy;
use crate::support::scaled;

/// Pieces that change how a message is read.
const TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: x\r\n",
    b"Host: b\r\n",
    b"Connection: close, host, content-length\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: echo\r\nConnection: upgrade\r\n",
    b"X_Forwarded_For: 6.6.6.6\r\n",
    b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"7fffffffffffffff",
    b";a=\"b\r\nc\"",
    b"HTTP/1.0",
    b"\xff",
];

/// Bytes of one connection: one to three corpus messages, mutated up to four times.
fn mutated(rng: &mut Rng, cases: &[&'static [u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..=rng.below(3) {
        bytes.extend_from_slice(cases[rng.below(cases.len())]);
    }
    for _ in 0..rng.below(5) {
        let at = rng.below(bytes.len() + 1);
        let to = (at + rng.below(8)).min(bytes.len());
        match rng.below(5) {
            0 => drop(bytes.drain(at..to)),
            1 => {
                let copy = bytes[at..to].to_vec();
                bytes.splice(at..at, copy);
            }
            2 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            3 => bytes.truncate(at.max(1)),
            _ => {
                let token = TOKENS[rng.below(TOKENS.len())];
                bytes.splice(at..at, token.iter().copied());
            }
        }
    }
    bytes
}

/// What the codec takes for whole requests in these bytes, at most.
fn readable(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    let mut n = 0;
    while let Outcome::Accepted(meaning) = read_request(&[rest], &Limits::default()) {
        n += 1;
        let left = meaning.rsplit_once(" +").map(|(_, n)| n.parse::<usize>());
        match left {
            Some(Ok(left)) if left < rest.len() => rest = &rest[rest.len() - left..],
            _ => break,
        }
    }
    n
}

/// Counts panics of worker threads: tokio catches those of a connection's task, and only its
/// client would notice.
fn count_worker_panics() -> Arc<AtomicUsize> {
    let panics = Arc::new(AtomicUsize::new(0));
    let seen = panics.clone();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let thread = std::thread::current();
        if thread.name().is_some_and(|n| n.starts_with("isobar-")) {
            // SeqCst: a handful of panics, nothing to save.
            seen.fetch_add(1, Ordering::SeqCst);
        }
        before(info);
    }));
    panics
}

#[test]
fn mutated_requests_neither_break_the_proxy_nor_pass_it_ambiguously() {
    let seed = std::env::var("ISOBAR_FUZZ_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()));
    println!("ISOBAR_FUZZ_SEED={seed}");
    let mut rng = Rng::new(seed);
    let panics = count_worker_panics();
    let cases: Vec<&'static [u8]> = REQUESTS
        .iter()
        .copied()
        .flatten()
        .map(|c| c.bytes)
        .collect();
    let origin = Origin::start(|request| match request.head.method() {
        // Bytes behind a head that the strict reader below refuses must not be waited for.
        _ if !is_sound_head(&request.head.raw) => vec![Step::Close],
        _ => origin::reply(200, ""),
    });
    let proxy = Proxy::over_h1(&[origin.addr()]);
    let mut clean = 0;
    let mut checked = 0;
    for n in 0..scaled(3000, 20_000) {
        let bytes = mutated(&mut rng, &cases);
        let context = || {
            format!(
                "ISOBAR_FUZZ_SEED={seed}, message {n}: {:?}",
                String::from_utf8_lossy(&bytes)
            )
        };
        let mut client = Client::connect(proxy.addr());
        let cut = rng.below(bytes.len() + 1);
        // The proxy may have refused the first half and be gone.
        let _ = client.try_send(&bytes[..cut]) && client.try_send(&bytes[cut..]);
        client.finish();
        let answer = client.until_closed();
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.contains("HTTP/1.1 500"), "{}\n{text}", context());
        assert!(
            answer.is_empty() || text.starts_with("HTTP/1.1 "),
            "{}\n{text}",
            context()
        );
        assert_eq!(panics.load(Ordering::SeqCst), 0, "{}", context());
        let answers = text.matches("HTTP/1.1 200").count();
        assert!(
            answers <= readable(&bytes),
            "more answers than requests; {}\n{text}",
            context()
        );
        if n % 100 == 99 {
            let response = Client::get(proxy.addr(), &format!("/clean/{clean}"));
            assert_eq!(response.status(), 200, "{}", context());
            clean += 1;
            checked = check_origin(&origin, checked, seed);
        }
    }
    let seen = origin.requests();
    let served: Vec<_> = seen
        .iter()
        .filter(|r| r.head.target().starts_with("/clean/"))
        .collect();
    assert_eq!(served.len(), clean, "ISOBAR_FUZZ_SEED={seed}");
    // Mutations that broke everything would show nothing: a tenth must still get through.
    assert!(seen.len() > clean * 10, "{} of {clean}00", seen.len());
}

/// Every request from the `from`-th on is one that reads in one way only; returns how many there
/// are.
#[track_caller]
fn check_origin(origin: &Origin, from: usize, seed: u64) -> usize {
    let until = origin.requests().len();
    for n in from..until {
        let request = origin.await_done(n);
        let context = || format!("ISOBAR_FUZZ_SEED={seed}: {request:#?}");
        assert!(is_sound_head(&request.head.raw), "{}", context());
        assert!(
            request.head.all("x_forwarded_for").is_empty(),
            "{}",
            context()
        );
        if request.is_done {
            let bytes = [&request.head.raw[..], &request.body.raw].concat();
            let outcome = read_request(&[&known_host(&bytes)], &Limits::default());
            let Outcome::Accepted(meaning) = outcome else {
                panic!("{outcome:?}, {}", context());
            };
            assert!(!meaning.contains(" +"), "{meaning}, {}", context());
        }
    }
    until
}

/// Whether the head reads in one way: by a reader of the tests' own.
fn is_sound_head(raw: &[u8]) -> bool {
    let Some(text) = raw.strip_suffix(b"\r\n\r\n") else {
        return false;
    };
    let text = String::from_utf8_lossy(text);
    let mut lines = text.split("\r\n");
    let start: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let fields: Vec<(&str, &str)> = lines
        .map(|line| line.split_once(": ").unwrap_or(("", line)))
        .collect();
    let count = |name: &str| {
        fields
            .iter()
            .filter(|(n, _)| n.replace('_', "-").eq_ignore_ascii_case(name))
            .count()
    };
    let is_token = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    matches!(start[..], [_, _, "HTTP/1.1"])
        && !text.replace("\r\n", "").contains(['\r', '\n', '\0'])
        && fields.iter().all(|(name, _)| is_token(name))
        && count("host") == 1
        && count("content-length") + count("transfer-encoding") <= 1
}

/// HTTP/1.0 without a host goes on with an empty one, which the codec does not take from clients.
fn known_host(bytes: &[u8]) -> Vec<u8> {
    let at = bytes.windows(8).position(|w| w == b"Host: \r\n");
    match at {
        Some(at) => [&bytes[..at], b"Host: a\r\n", &bytes[at + 8..]].concat(),
        None => bytes.to_vec(),
    }
}
