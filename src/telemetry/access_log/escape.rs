//! Bytes from the network as text of a log line: never a byte that ends a value, a line, or speaks
//! to a terminal.
//!
//! Nearly every value is plain ASCII: it is scanned eight bytes at a time and copied whole.

/// Most bytes of output for one of input, in any function here: `\u00XX`.
pub(super) const WORST: usize = 6;

/// Which bytes are printable ASCII other than `"` and `\`.
const PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = b' ';
    while byte < 0x7f {
        table[byte as usize] = byte != b'"' && byte != b'\\';
        byte += 1;
    }
    table
};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The inside of a JSON string (RFC 8259, section 7). Control characters (C0, DEL, C1) are escaped,
/// other valid UTF-8 stays, each ill-formed sequence becomes U+FFFD.
#[inline]
pub(super) fn json(bytes: &[u8], out: &mut Vec<u8>) {
    if is_plain(bytes) {
        out.extend_from_slice(bytes);
    } else {
        json_slow(bytes, out);
    }
}

/// The inside of a quoted value as Apache writes it: `\"`, `\\`, and `\xHH` for every byte that is
/// not printable ASCII. Nothing is lost.
#[inline]
pub(super) fn apache(bytes: &[u8], out: &mut Vec<u8>) {
    if is_plain(bytes) {
        out.extend_from_slice(bytes);
    } else {
        hex(bytes, out, |_| false);
    }
}

/// An unquoted value: as [`apache`], spaces and quotes as `\xHH` too.
pub(super) fn token(bytes: &[u8], out: &mut Vec<u8>) {
    hex(bytes, out, |b| matches!(b, b' ' | b'"'));
}

/// Whether every byte is printable ASCII other than `"` and `\`.
///
/// The tests of a word are those of Bit Twiddling Hacks (S. E. Anderson), "Determine if a word has
/// a byte less than n" and "has a zero byte"; they may accuse a plain byte next to a true hit, never
/// the reverse, and a word without a hit is never accused.
#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let zero = |x: u64| x.wrapping_sub(ONES) & !x;
    let hit = |x: u64| {
        let below_space = x.wrapping_sub(ONES * 0x20) & !x;
        let quote = zero(x ^ (ONES * b'"' as u64));
        let backslash = zero(x ^ (ONES * b'\\' as u64));
        let delete = zero(x ^ (ONES * 0x7f));
        (x | below_space | quote | backslash | delete) & TOPS
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let hits = words
        .iter()
        .fold(0, |hits, &word| hits | hit(u64::from_le_bytes(word)));
    // The rest is tested in one word that overlaps the one before.
    let last = match bytes.last_chunk::<8>() {
        Some(&word) if !rest.is_empty() => hit(u64::from_le_bytes(word)),
        Some(_) => 0,
        None => return rest.iter().all(|&byte| PLAIN[usize::from(byte)]),
    };
    hits | last == 0
}

#[cold]
fn json_slow(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                c if c.is_control() => {
                    // Controls end at U+009F.
                    let n = c as usize & 0xff;
                    out.extend_from_slice(&[b'\\', b'u', b'0', b'0', HEX[n >> 4], HEX[n & 15]]);
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

fn hex(bytes: &[u8], out: &mut Vec<u8>, also: impl Fn(u8) -> bool) {
    for &b in bytes {
        match b {
            b if also(b) || !(0x20..0x7f).contains(&b) => {
                let n = usize::from(b);
                out.extend_from_slice(&[b'\\', b'x', HEX[n >> 4], HEX[n & 15]]);
            }
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', b]),
            b => out.push(b),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(f: impl Fn(&[u8], &mut Vec<u8>), bytes: &[u8]) -> String {
        let mut out = Vec::new();
        f(bytes, &mut out);
        assert!(out.len() <= WORST * bytes.len());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn plain_is_what_a_byte_by_byte_test_says() {
        let plain = |b: u8| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\';
        for b in 0..=255 {
            for len in 1..=20 {
                for at in 0..len {
                    let mut bytes = vec![b'a'; len];
                    bytes[at] = b;
                    assert_eq!(is_plain(&bytes), plain(b), "{b:#x} at {at} of {len}");
                }
            }
        }
        assert!(is_plain(b""));
    }

    #[test]
    fn each_style_escapes_what_it_must() {
        let bytes = b"a\"b\\c\n\x1b[0m \xffz \xc2\x9b \xc3\xa9";
        assert_eq!(
            run(json, bytes),
            "a\\\"b\\\\c\\u000a\\u001b[0m \u{fffd}z \\u009b é"
        );
        assert_eq!(
            run(apache, bytes),
            r#"a\"b\\c\x0a\x1b[0m \xffz \xc2\x9b \xc3\xa9"#
        );
        assert_eq!(
            run(token, bytes),
            r"a\x22b\\c\x0a\x1b[0m\x20\xffz\x20\xc2\x9b\x20\xc3\xa9"
        );
    }

    proptest! {
        #[test]
        fn json_says_what_was_there(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let text = format!("\"{}\"", run(json, &bytes));
            let back: String = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(back, String::from_utf8_lossy(&bytes).into_owned());
            prop_assert!(!text.chars().any(char::is_control));
        }

        #[test]
        fn apache_loses_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            for f in [apache, token] {
                let text = run(f, &bytes);
                prop_assert!(text.bytes().all(|b| (0x20..0x7f).contains(&b)));
                prop_assert_eq!(unescape(text.as_bytes()), bytes.clone());
            }
        }
    }

    fn unescape(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = text;
        while let Some((&b, tail)) = rest.split_first() {
            rest = tail;
            if b != b'\\' {
                out.push(b);
            } else if rest[0] == b'x' {
                let digits = std::str::from_utf8(&rest[1..3]).unwrap();
                out.push(u8::from_str_radix(digits, 16).unwrap());
                rest = &rest[3..];
            } else {
                out.push(rest[0]);
                rest = &rest[1..];
            }
        }
        out
    }
}
