//! The Huffman code (RFC 7541 section 5.2, appendix B), read only.
//!
//! The code is canonical: codes of one length are consecutive, in the order of their symbols, and begin
//! where those of the length before end. So the lengths are all that is kept of appendix B; the tables
//! are worked out from them when this is compiled.
//!
//! Twelve bits are looked up at a time: they hold two symbols in most text (letters have five to seven
//! bits), and every code of a printable character but a few. Longer codes are found by their length.
//!
//! Nothing is written with this code: it saves a quarter of a literal's bytes and costs more than all
//! else that is done to a field; what repeats is in the dynamic table anyway.

use super::DecodeError;

/// What has to be room for to decode `len` bytes: the shortest codes have five bits, and writes go
/// eight symbols at a time.
pub(super) const fn room(len: usize) -> usize {
    len * 8 / 5 + 8
}

/// Decodes the first `len` bytes of `text` to the front of `out`, which has [`room`]; says how much that
/// is. Bytes behind the first `len` may be read, and have no influence.
pub(super) fn decode(text: &[u8], len: usize, out: &mut [u8]) -> Result<usize, DecodeError> {
    let total = len * 8;
    let mut at = 0;
    let mut written = 0;
    while at < total {
        let left = total - at;
        // Inverted, so that what is shifted in, zeroes, stands for the ones of the padding. At most 7
        // bits of what is loaded are behind us, and four look-ups take at most 48.
        let mut bits = !load(text, at);
        if left < 57 {
            bits &= !(u64::MAX >> left);
        }
        let mut symbols = 0u64;
        // Of the lengths, in the low 8 bits, and above of the numbers of symbols.
        let mut sums = 0u32;
        let mut pair = 0;
        for _ in 0..4 {
            // A longer code, such as that of the end, is 0: it takes nothing, and so is found again.
            pair = PAIRS[(bits >> 52) as usize];
            symbols |= u64::from(pair >> 16).wrapping_shl(sums >> 8);
            bits = bits.wrapping_shl(pair);
            sums = sums.wrapping_add(pair & 0xffff);
        }
        let Some(place) = out
            .get_mut(written..)
            .and_then(<[u8]>::first_chunk_mut::<8>)
        else {
            return Err(DecodeError::Truncated);
        };
        *place = symbols.to_le_bytes();
        written += (sums >> 11) as usize;
        let used = (sums & 0xff) as usize;
        // A code that is completed by padding: so that was not the beginning of the end's.
        let Some(left) = left.checked_sub(used) else {
            return Err(DecodeError::HuffmanPadding);
        };
        at += used;
        if pair == 0 {
            if left < 8 {
                // Less than a byte, which has to be ones.
                return if bits == 0 {
                    Ok(written)
                } else {
                    Err(DecodeError::HuffmanPadding)
                };
            }
            if used == 0 {
                let (symbol, length) = long(!bits);
                if length > left {
                    return Err(DecodeError::HuffmanPadding);
                }
                if symbol == EOS {
                    return Err(DecodeError::HuffmanEos);
                }
                if let Some(place) = out.get_mut(written) {
                    *place = symbol as u8;
                }
                written += 1;
                at += length;
            }
        }
    }
    Ok(written)
}

/// The 57 bits (or more) from bit `at` on, from the top; what is not in `text` is zero.
#[inline(always)]
fn load(text: &[u8], at: usize) -> u64 {
    let start = at / 8;
    let word = match text
        .get(start..start + 8)
        .and_then(<[u8]>::first_chunk::<8>)
    {
        Some(&chunk) => u64::from_be_bytes(chunk),
        None => load_end(text.get(start..).unwrap_or_default()),
    };
    word << (at % 8)
}

/// The end of a block: fewer than eight bytes.
#[cold]
fn load_end(rest: &[u8]) -> u64 {
    rest.iter()
        .rev()
        .fold(0, |word, &byte| word >> 8 | u64::from(byte) << 56)
}

/// Symbol and length of the code of more than [`SHORT`] bits that `bits` begin with.
#[cold]
fn long(bits: u64) -> (u16, usize) {
    let code = (bits >> (64 - LONGEST)) as u32;
    for (row, length) in LONG.iter().zip(SHORT + 1..) {
        if code < row.end {
            let nth = code.wrapping_sub(row.start) >> (LONGEST - length);
            let symbol = ORDER.get(row.before + nth as usize).copied();
            return (symbol.unwrap_or(EOS), length);
        }
    }
    // Not reached: the codes of the last length end where the 30 bits do.
    (EOS, LONGEST)
}

/// End of the text: its code only ever is the padding.
const EOS: u16 = 256;
/// Bits that are looked up at a time: two symbols of six, in a table of 16 KiB.
const SHORT: usize = 12;
/// Bits of the longest code.
const LONGEST: usize = 30;

/// Codes of one length.
#[derive(Clone, Copy)]
struct Row {
    /// The first one, filled up to [`LONGEST`] bits with zeroes.
    start: u32,
    /// Where they end, filled up likewise.
    end: u32,
    /// How many symbols of [`ORDER`] have shorter codes.
    before: usize,
}

/// Symbols in the order of their codes.
static ORDER: [u16; 257] = order();

/// Codes of 13 bits, of 14, and so on to 30.
static LONG: [Row; LONGEST - SHORT] = {
    let rows = rows();
    let mut long = [rows[0]; LONGEST - SHORT];
    let mut at = 0;
    while at < long.len() {
        long[at] = rows[SHORT + 1 + at];
        at += 1;
    }
    long
};

/// What the 12 bits of the index, inverted, begin with: in the low 8 bits the length of all codes, in the
/// next 8 eight times their number, above them two symbols, of which the second may be missing. 0: a
/// longer code.
static PAIRS: [u32; 1 << SHORT] = pairs();

const fn pairs() -> [u32; 1 << SHORT] {
    // Symbol and length of the first code for each index.
    let mut firsts = [(0u8, 0u8); 1 << SHORT];
    let order = order();
    let mut nth = 0;
    let mut index = 0;
    while LENGTHS[order[nth] as usize] as usize <= SHORT {
        let length = LENGTHS[order[nth] as usize];
        let end = index + (1 << (SHORT - length as usize));
        while index < end {
            firsts[index] = (order[nth] as u8, length);
            index += 1;
        }
        nth += 1;
    }
    let mut pairs = [0; 1 << SHORT];
    let mut index = 0;
    while index < pairs.len() {
        let (symbol, length) = firsts[index];
        if length > 0 {
            let (second, more) = firsts[(index << length) % (1 << SHORT)];
            let all = length as u32 + more as u32;
            pairs[pairs.len() - 1 - index] = if more > 0 && all <= SHORT as u32 {
                (second as u32) << 24 | (symbol as u32) << 16 | 16 << 8 | all
            } else {
                (symbol as u32) << 16 | 8 << 8 | length as u32
            };
        }
        index += 1;
    }
    pairs
}

/// Codes by their length.
const fn rows() -> [Row; LONGEST + 1] {
    let mut rows = [Row {
        start: 0,
        end: 0,
        before: 0,
    }; LONGEST + 1];
    let mut length = 1;
    while length <= LONGEST {
        let (mut shorter, mut same) = (0, 0);
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if (LENGTHS[symbol] as usize) < length {
                shorter += 1;
            } else if LENGTHS[symbol] as usize == length {
                same += 1;
            }
            symbol += 1;
        }
        let start = rows[length - 1].end;
        rows[length] = Row {
            start,
            end: start + (same << (LONGEST - length)),
            before: shorter,
        };
        length += 1;
    }
    rows
}

/// Symbols by length, then by number.
const fn order() -> [u16; 257] {
    let mut order = [0; 257];
    let mut at = 0;
    let mut length = 1;
    while length <= LONGEST {
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                order[at] = symbol as u16;
                at += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    order
}

/// Length of the code of each symbol, EOS last (RFC 7541 appendix B).
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

#[cfg(test)]
mod tests;
