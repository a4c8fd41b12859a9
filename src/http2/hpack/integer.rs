//! Integers with a prefix (RFC 7541 section 5.1).

use super::DecodeError;

/// The largest integer taken: no length, index or size that makes sense is near it, and it leaves
/// room to add two of them in 32 bits.
pub(super) const MAX: usize = 1 << 28;

/// The most bytes taken behind the prefix: four hold [`MAX`], one more is for encoders that fill up
/// with zeroes.
const MAX_CONTINUATION: usize = 5;

/// Reads the integer whose prefix is the low `bits` bits of the first byte; what follows it is left in
/// `rest`.
#[inline(always)]
pub(super) fn read(rest: &mut &[u8], bits: u32) -> Result<usize, DecodeError> {
    let Some((&first, behind)) = rest.split_first() else {
        return Err(DecodeError::Truncated);
    };
    *rest = behind;
    let mask = (1u8 << bits) - 1;
    let prefix = first & mask;
    if prefix < mask {
        Ok(prefix as usize)
    } else {
        read_behind(rest, prefix)
    }
}

/// The part behind a prefix that is all ones.
fn read_behind(rest: &mut &[u8], prefix: u8) -> Result<usize, DecodeError> {
    let mut sum = 0u64;
    for at in 0..MAX_CONTINUATION {
        let Some(&byte) = rest.get(at) else {
            return Err(DecodeError::Truncated);
        };
        // At most 7 bits behind 28: far from 64.
        sum |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            let value = sum + u64::from(prefix);
            *rest = rest.get(at + 1..).unwrap_or_default();
            return usize::try_from(value)
                .ok()
                .filter(|&value| value <= MAX)
                .ok_or(DecodeError::IntegerTooLarge);
        }
    }
    Err(DecodeError::IntegerTooLarge)
}

/// Writes `value` behind the bits of `pattern` that the prefix of `bits` bits leaves free.
#[inline(always)]
pub(super) fn write(out: &mut Vec<u8>, pattern: u8, bits: u32, value: usize) {
    let mask = (1u8 << bits) - 1;
    if value < mask as usize {
        out.push(pattern | value as u8);
    } else {
        write_behind(out, pattern | mask, value - mask as usize);
    }
}

/// The part behind a prefix that is all ones, and that prefix.
fn write_behind(out: &mut Vec<u8>, first: u8, mut value: usize) {
    out.push(first);
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(bits: u32, value: usize) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, 0, bits, value);
        out
    }

    #[test]
    fn examples_of_appendix_c_1_are_read_and_written() {
        for (bits, value, bytes) in [
            (5, 10, &[0x0a][..]),
            (5, 1337, &[0x1f, 0x9a, 0x0a]),
            (8 - 1, 42, &[0x2a]),
        ] {
            assert_eq!(written(bits, value), bytes);
            let mut rest = bytes;
            assert_eq!(read(&mut rest, bits), Ok(value));
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn all_edges_come_back() {
        for bits in 4..=7 {
            let edges = [
                0, 1, 14, 15, 16, 30, 31, 32, 126, 127, 128, 254, 255, 256, 16383, 16384,
            ];
            for value in edges.into_iter().chain([MAX - 1, MAX]) {
                let bytes = written(bits, value);
                let mut rest = &bytes[..];
                assert_eq!(read(&mut rest, bits), Ok(value), "{bits} {value}");
                assert!(rest.is_empty());
                for end in 0..bytes.len() {
                    assert_eq!(read(&mut &bytes[..end], bits), Err(DecodeError::Truncated));
                }
            }
        }
    }

    #[test]
    fn more_than_the_limit_is_refused_whatever_its_length() {
        assert_eq!(
            read(&mut &written(5, MAX + 1)[..], 5),
            Err(DecodeError::IntegerTooLarge)
        );
        let longest = [0x1f, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(
            read(&mut &longest[..], 5),
            Err(DecodeError::IntegerTooLarge)
        );
        let endless = [0xff; 64];
        assert_eq!(
            read(&mut &endless[..], 7),
            Err(DecodeError::IntegerTooLarge)
        );
        let zeroes = [0x1f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00];
        assert_eq!(read(&mut &zeroes[..], 5), Err(DecodeError::IntegerTooLarge));
        let few_zeroes = [0x1f, 0x80, 0x80, 0x80, 0x80, 0x00, 0xaa];
        let mut rest = &few_zeroes[..];
        assert_eq!(read(&mut rest, 5), Ok(31));
        assert_eq!(rest, [0xaa]);
    }
}
