use proptest::prelude::*;

use super::*;

/// Texts of any bytes in the code, as an encoder would write them.
fn encoded(text: &[u8]) -> Vec<u8> {
    let mut bits = Bits::default();
    for &byte in text {
        bits.push(CODES[byte as usize], LENGTHS[byte as usize]);
    }
    bits.padded()
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    len: usize,
}

impl Bits {
    fn push(&mut self, code: u32, length: u8) {
        for at in (0..length).rev() {
            if self.len.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let bit = (code >> at & 1) as u8;
            *self.bytes.last_mut().unwrap() |= bit << (7 - self.len % 8);
            self.len += 1;
        }
    }

    fn padded(mut self) -> Vec<u8> {
        while !self.len.is_multiple_of(8) {
            self.push(1, 1);
        }
        self.bytes
    }
}

/// With what stands behind the text in the block.
fn decoded_before(text: &[u8], behind: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut out = vec![0xaa; room(text.len())];
    let all = [text, behind].concat();
    let written = decode(&all, text.len(), &mut out)?;
    out.truncate(written);
    Ok(out)
}

/// The same whatever stands behind the text.
fn decoded(text: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let alone = decoded_before(text, b"");
    for behind in [&[0][..], &[0xff], &[0; 9], &[0xff; 9], b"behind"] {
        assert_eq!(decoded_before(text, behind), alone);
    }
    alone
}

#[test]
fn codes_made_of_their_lengths_are_those_of_appendix_b() {
    let mut next = 0u32;
    let mut length = 0;
    for symbol in order() {
        let symbol = symbol as usize;
        next <<= LENGTHS[symbol] - length;
        length = LENGTHS[symbol];
        assert_eq!(next, CODES[symbol], "{symbol}");
        next += 1;
    }
    assert_eq!(next, 1 << LONGEST);
}

#[test]
fn every_symbol_is_decoded_alone_and_among_others() {
    for symbol in 0..=255u8 {
        for text in [
            vec![symbol],
            vec![symbol; 40],
            vec![b'a', symbol, b'X', symbol, b'~', 0],
        ] {
            assert_eq!(decoded(&encoded(&text)), Ok(text), "{symbol}");
        }
        for other in 0..=255u8 {
            let text = [symbol, other];
            assert_eq!(decoded_before(&encoded(&text), b""), Ok(text.to_vec()));
        }
    }
    assert_eq!(decoded(b""), Ok(vec![]));
}

#[test]
fn padding_is_ones_and_less_than_a_byte() {
    // Texts of all lengths, so that the end falls on both parts of the loop.
    for len in 0..40 {
        let text = encoded(&vec![b'a'; len]);
        for more in [&[0xff][..], &[0xff, 0xff]] {
            let long = [&text, more].concat();
            assert_eq!(decoded(&long), Err(DecodeError::HuffmanPadding), "{len}");
        }
        // `a` is 00011: what is left of the last byte is padding.
        let padding = text.len() * 8 - len * 5;
        for bit in 0..padding {
            let mut wrong = text.clone();
            *wrong.last_mut().unwrap() ^= 1 << bit;
            let found = decoded(&wrong);
            assert_ne!(found, Ok(vec![b'a'; len]), "{len} {bit}");
            // A wrong bit far enough from the end may make it a code of its own.
            assert!(
                found == Err(DecodeError::HuffmanPadding) || padding >= 5,
                "{len} {bit}"
            );
        }
    }
}

#[test]
fn the_end_symbol_is_an_error_in_a_text() {
    for before in 0..20 {
        let mut bits = Bits::default();
        for _ in 0..before {
            bits.push(CODES[b'a' as usize], LENGTHS[b'a' as usize]);
        }
        bits.push(CODES[256], LENGTHS[256]);
        for _ in 0..20 {
            bits.push(CODES[b'a' as usize], LENGTHS[b'a' as usize]);
        }
        let text = bits.padded();
        assert_eq!(decoded(&text), Err(DecodeError::HuffmanEos), "{before}");
    }
}

/// One bit after the other, by the list of codes.
fn model(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let (mut code, mut length) = (0u32, 0u8);
    for at in 0..text.len() * 8 {
        code = code << 1 | u32::from(text[at / 8] >> (7 - at % 8) & 1);
        length += 1;
        let symbol = (0..257).find(|&symbol| LENGTHS[symbol] == length && CODES[symbol] == code);
        if let Some(symbol) = symbol {
            out.push(u8::try_from(symbol).ok()?);
            (code, length) = (0, 0);
        }
    }
    (length < 8 && code == (1 << length) - 1).then_some(out)
}

proptest! {
    #[test]
    fn texts_come_back(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(decoded(&encoded(&text)), Ok(text));
    }

    #[test]
    fn visible_texts_come_back(text in "[ -~]{0,200}") {
        prop_assert_eq!(decoded(&encoded(text.as_bytes())), Ok(text.into_bytes()));
    }

    #[test]
    fn any_bytes_are_what_the_list_of_codes_says(
        text in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0xff), Just(0)], 0..40),
    ) {
        prop_assert_eq!(decoded(&text).ok(), model(&text));
    }
}

/// The codes as appendix B lists them, EOS last.
#[rustfmt::skip]
const CODES: [u32; 257] = [
    0x1ff8, 0x7fffd8, 0xfffffe2, 0xfffffe3, 0xfffffe4, 0xfffffe5, 0xfffffe6, 0xfffffe7,
    0xfffffe8, 0xffffea, 0x3ffffffc, 0xfffffe9, 0xfffffea, 0x3ffffffd, 0xfffffeb, 0xfffffec,
    0xfffffed, 0xfffffee, 0xfffffef, 0xffffff0, 0xffffff1, 0xffffff2, 0x3ffffffe, 0xffffff3,
    0xffffff4, 0xffffff5, 0xffffff6, 0xffffff7, 0xffffff8, 0xffffff9, 0xffffffa, 0xffffffb,
    0x14, 0x3f8, 0x3f9, 0xffa, 0x1ff9, 0x15, 0xf8, 0x7fa,
    0x3fa, 0x3fb, 0xf9, 0x7fb, 0xfa, 0x16, 0x17, 0x18,
    0x0, 0x1, 0x2, 0x19, 0x1a, 0x1b, 0x1c, 0x1d,
    0x1e, 0x1f, 0x5c, 0xfb, 0x7ffc, 0x20, 0xffb, 0x3fc,
    0x1ffa, 0x21, 0x5d, 0x5e, 0x5f, 0x60, 0x61, 0x62,
    0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a,
    0x6b, 0x6c, 0x6d, 0x6e, 0x6f, 0x70, 0x71, 0x72,
    0xfc, 0x73, 0xfd, 0x1ffb, 0x7fff0, 0x1ffc, 0x3ffc, 0x22,
    0x7ffd, 0x3, 0x23, 0x4, 0x24, 0x5, 0x25, 0x26,
    0x27, 0x6, 0x74, 0x75, 0x28, 0x29, 0x2a, 0x7,
    0x2b, 0x76, 0x2c, 0x8, 0x9, 0x2d, 0x77, 0x78,
    0x79, 0x7a, 0x7b, 0x7ffe, 0x7fc, 0x3ffd, 0x1ffd, 0xffffffc,
    0xfffe6, 0x3fffd2, 0xfffe7, 0xfffe8, 0x3fffd3, 0x3fffd4, 0x3fffd5, 0x7fffd9,
    0x3fffd6, 0x7fffda, 0x7fffdb, 0x7fffdc, 0x7fffdd, 0x7fffde, 0xffffeb, 0x7fffdf,
    0xffffec, 0xffffed, 0x3fffd7, 0x7fffe0, 0xffffee, 0x7fffe1, 0x7fffe2, 0x7fffe3,
    0x7fffe4, 0x1fffdc, 0x3fffd8, 0x7fffe5, 0x3fffd9, 0x7fffe6, 0x7fffe7, 0xffffef,
    0x3fffda, 0x1fffdd, 0xfffe9, 0x3fffdb, 0x3fffdc, 0x7fffe8, 0x7fffe9, 0x1fffde,
    0x7fffea, 0x3fffdd, 0x3fffde, 0xfffff0, 0x1fffdf, 0x3fffdf, 0x7fffeb, 0x7fffec,
    0x1fffe0, 0x1fffe1, 0x3fffe0, 0x1fffe2, 0x7fffed, 0x3fffe1, 0x7fffee, 0x7fffef,
    0xfffea, 0x3fffe2, 0x3fffe3, 0x3fffe4, 0x7ffff0, 0x3fffe5, 0x3fffe6, 0x7ffff1,
    0x3ffffe0, 0x3ffffe1, 0xfffeb, 0x7fff1, 0x3fffe7, 0x7ffff2, 0x3fffe8, 0x1ffffec,
    0x3ffffe2, 0x3ffffe3, 0x3ffffe4, 0x7ffffde, 0x7ffffdf, 0x3ffffe5, 0xfffff1, 0x1ffffed,
    0x7fff2, 0x1fffe3, 0x3ffffe6, 0x7ffffe0, 0x7ffffe1, 0x3ffffe7, 0x7ffffe2, 0xfffff2,
    0x1fffe4, 0x1fffe5, 0x3ffffe8, 0x3ffffe9, 0xffffffd, 0x7ffffe3, 0x7ffffe4, 0x7ffffe5,
    0xfffec, 0xfffff3, 0xfffed, 0x1fffe6, 0x3fffe9, 0x1fffe7, 0x1fffe8, 0x7ffff3,
    0x3fffea, 0x3fffeb, 0x1ffffee, 0x1ffffef, 0xfffff4, 0xfffff5, 0x3ffffea, 0x7ffff4,
    0x3ffffeb, 0x7ffffe6, 0x3ffffec, 0x3ffffed, 0x7ffffe7, 0x7ffffe8, 0x7ffffe9, 0x7ffffea,
    0x7ffffeb, 0xffffffe, 0x7ffffec, 0x7ffffed, 0x7ffffee, 0x7ffffef, 0x7fffff0, 0x3ffffee,
    0x3fffffff,
];
