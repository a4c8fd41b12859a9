//! How long does the codec take for one head, and for chunked data? One number a message.
//!
//! `cargo bench --bench codec`; the median of 15 rounds of 200,000, after one to warm up. hyper's
//! parser cannot be called alone; httparse alone is printed as the floor.
#![expect(clippy::print_stdout, reason = "a bench prints")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::hint::black_box;
use std::mem::MaybeUninit;
use std::time::Instant;

use http::Method;
use isobar::http1::{Chunk, ChunkDecoder, Limits, RequestHead, ResponseHead};

const ROUNDS: usize = 15;
const TIMES: u32 = 200_000;

/// Twelve fields, as a browser sends them: 574 bytes.
const BROWSER: &[u8] = b"GET /products/shoes?colour=red&size=42&page=3 HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://www.example.com/products\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; consent=yes; theme=dark\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Priority: u=0, i\r\n\r\n";

/// As wrk and most load generators send.
const SHORT: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: nginx/1.27.0\r\n\
    Date: Tue, 15 Nov 1994 08:12:31 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Content-Length: 128\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: max-age=0, private, must-revalidate\r\n\
    Etag: \"0123456789abcdef\"\r\n\
    Vary: Accept-Encoding\r\n\r\n";

fn measure(name: &str, bytes: usize, mut once: impl FnMut()) {
    let mut rounds = [0.0; ROUNDS];
    for warm in [true, false] {
        for round in &mut rounds {
            let begin = Instant::now();
            for _ in 0..TIMES {
                once();
            }
            *round = begin.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES);
            if warm {
                break;
            }
        }
    }
    rounds.sort_by(f64::total_cmp);
    println!(
        "{name:32} {bytes:5} B  {:7.1} ns  (min {:.1}, max {:.1})",
        rounds[ROUNDS / 2],
        rounds[0],
        rounds[ROUNDS - 1]
    );
}

fn main() {
    let limits = Limits::default();
    let mut request = RequestHead::new();
    for (name, bytes) in [("request, browser", BROWSER), ("request, short", SHORT)] {
        measure(name, bytes.len(), || {
            assert!(
                black_box(&mut request)
                    .parse(black_box(bytes), &limits)
                    .is_ok()
            );
        });
        measure("  httparse alone", bytes.len(), || {
            let mut scratch = [const { MaybeUninit::uninit() }; 100];
            let mut request = httparse::Request::new(&mut []);
            assert!(
                request
                    .parse_with_uninit_headers(black_box(bytes), &mut scratch)
                    .is_ok()
            );
            black_box(&request);
        });
    }
    let mut response = ResponseHead::new();
    measure("response", RESPONSE.len(), || {
        let progress = black_box(&mut response).parse(black_box(RESPONSE), &limits, &Method::GET);
        assert!(progress.is_ok());
    });
    let mut body = Vec::new();
    for _ in 0..8 {
        body.extend_from_slice(b"400\r\n");
        body.resize(body.len() + 1024, b'x');
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    let mut chunks = ChunkDecoder::new(&limits);
    measure("8 chunks of 1 KiB", body.len(), || {
        chunks.reset();
        let mut at = 0;
        loop {
            match chunks.decode(black_box(body.get(at..).unwrap_or_default())) {
                Ok(Chunk::Data { skip, len }) => at += skip + len,
                Ok(Chunk::End { skip }) => break at += skip,
                Ok(Chunk::NeedMore { .. }) | Err(_) => unreachable!("the body is whole and sound"),
            }
        }
        assert_eq!(at, body.len());
    });
}
