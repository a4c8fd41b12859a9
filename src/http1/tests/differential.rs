//! The corpus and seeded mutations of it, against hyper and against our own reading in pieces.

use crate::base::rng::Rng;

use super::oracle::{check_requests, check_response};
use super::*;

/// Change it to see other messages; a failure names it and the round.
const SEED: u64 = 0x1507_ba45;

/// Pieces that have broken parsers.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b"\x0b",
    b":",
    b",",
    b";",
    b"0",
    b"1",
    b"f",
    b"+",
    b"-",
    b"0x",
    b"\r\n ",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Host: a\r\n",
    b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: x\r\n",
    b"chunked",
    b"gzip",
    b"HTTP/1.0",
    b"HTTP/1.1",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"http://a",
    b"?",
    b"#",
    b"@",
    b"[::1]",
    b"%00",
    b"\x80",
    b"\xc3\xa4",
    b"Expect: 100-continue\r\n",
    b"X: 1\r\n",
    b"\"",
];

fn mutate(rng: &mut Rng, pool: &[&[u8]]) -> Vec<u8> {
    let mut bytes = pool[rng.below(pool.len())].to_vec();
    for _ in 0..=rng.below(4) {
        let at = rng.below(bytes.len() + 1);
        match rng.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            1 if at < bytes.len() => {
                bytes.remove(at);
            }
            2 => {
                let word = WORDS[rng.below(WORDS.len())];
                bytes.splice(at..at, word.iter().copied());
            }
            3 => {
                let end = at + rng.below(bytes.len() - at + 1);
                let copy = bytes[at..end].to_vec();
                let to = rng.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            4 => {
                let other = pool[rng.below(pool.len())];
                bytes.extend_from_slice(other);
            }
            // A line moved to another place: fields in another order.
            5 => {
                let mut lines: Vec<_> = bytes.split_inclusive(|&b| b == b'\n').collect();
                if lines.len() > 2 {
                    let i = rng.below(lines.len());
                    let line = lines.remove(i);
                    lines.insert(rng.below(lines.len() + 1), line);
                    bytes = lines.concat();
                }
            }
            _ => {}
        }
    }
    bytes
}

/// The accepted ones four times: mutations of refused ones are mostly refused.
fn pool(cases: impl Iterator<Item = &'static Case>) -> Vec<&'static [u8]> {
    let often =
        |c: &'static Case| std::iter::repeat_n(c.bytes, if c.expect.is_ok() { 4 } else { 1 });
    cases.flat_map(often).collect()
}

/// Pieces may be refused later than the whole, but never otherwise.
fn check_cut(rng: &mut Rng, bytes: &[u8], read: impl Fn(&[&[u8]]) -> Outcome) {
    let whole = read(&[bytes]);
    let (i, j) = (rng.below(bytes.len() + 1), rng.below(bytes.len() + 1));
    let (i, j) = (i.min(j), i.max(j));
    let cut = read(&[&bytes[..i], &bytes[i..j], &bytes[j..]]);
    if !(matches!(whole, Outcome::Refused(_)) && cut == Outcome::Partial) {
        assert_eq!(
            cut,
            whole,
            "{:?} cut at {i} and {j}",
            String::from_utf8_lossy(bytes)
        );
    }
}

#[test]
fn hyper_understands_the_corpus_as_we_do() {
    let accepted = requests()
        .filter(|c| check_requests(c.bytes, &LIMITS) > 0)
        .count();
    let expected = requests().filter(|c| c.expect.is_ok()).count();
    assert_eq!(accepted, expected, "every accepted request was compared");
    let accepted = responses()
        .filter(|c| check_response(c.bytes, &LIMITS, &method(c)))
        .count();
    // 100 twice, 101, 103, and 200 to CONNECT are not hyper's to hand out.
    let expected = responses().filter(|c| c.expect.is_ok()).count() - 5;
    assert_eq!(accepted, expected, "every accepted response was compared");
}

#[test]
fn hyper_understands_mutated_requests_as_we_do() {
    let pool = pool(requests());
    let mut rng = Rng::new(SEED);
    let mut accepted = 0;
    for round in 0..60_000 {
        let bytes = mutate(&mut rng, &pool);
        let _context = Context(round);
        accepted += usize::from(check_requests(&bytes, &LIMITS) > 0);
        check_cut(&mut rng, &bytes, |pieces| read_request(pieces, &LIMITS));
    }
    assert!(accepted > 9_000, "too few to prove anything: {accepted}");
}

#[test]
fn hyper_understands_mutated_responses_as_we_do() {
    let pool = pool(responses());
    let mut rng = Rng::new(SEED);
    let mut accepted = 0;
    for round in 0..30_000 {
        let bytes = mutate(&mut rng, &pool);
        let _context = Context(round);
        let method = [Method::GET, Method::HEAD, Method::CONNECT][rng.below(3)].clone();
        accepted += usize::from(check_response(&bytes, &LIMITS, &method));
        check_cut(&mut rng, &bytes, |pieces| {
            read_response(pieces, &LIMITS, &method)
        });
    }
    assert!(accepted > 4_000, "too few to prove anything: {accepted}");
}

/// Names the seed and the round when a check panics.
struct Context(u32);

impl Drop for Context {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {SEED:#x}, round {}", self.0);
        }
    }
}
