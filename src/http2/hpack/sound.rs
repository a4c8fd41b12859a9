//! What may be written as text of HTTP/1 (RFC 9110 sections 5.1 and 5.5, RFC 9113 section 8.2.1).

/// Whether a name that is not in the static table is a lower-case token, or `:protocol` (RFC 8441).
pub(super) fn is_name(name: &[u8]) -> bool {
    let (words, tail) = name.as_chunks::<8>();
    // Most names are of letters and hyphens; what else is in a word is looked up byte by byte.
    let is_token = words.iter().all(|&word| is_plain(word) || is_token(&word)) && is_token(tail);
    is_token && !name.is_empty() || name == b":protocol"
}

fn is_token(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| TOKEN[byte as usize])
}

/// Whether eight bytes are lower-case letters and hyphens. Without the top bit, no byte carries over to
/// the next.
#[inline(always)]
fn is_plain(bytes: [u8; 8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = ONES * 0x80;
    let word = u64::from_ne_bytes(bytes);
    let low = word & !TOPS;
    let from_a = low + ONES * (0x80 - b'a' as u64);
    let behind_z = low + ONES * (0x7f - b'z' as u64);
    let no_hyphen = (low ^ (ONES * b'-' as u64)) + ONES * 0x7f;
    (from_a & !behind_z | !no_hyphen) & !word & TOPS == TOPS
}

/// Whether a value holds but tabs, spaces, visible characters and bytes above ASCII.
#[inline]
pub(super) fn is_value(value: &[u8]) -> bool {
    let (chunks, _) = value.as_chunks::<8>();
    match value.last_chunk::<8>() {
        // The last word covers what is behind the chunks.
        Some(last) => {
            let words = chunks.iter().chain([last]);
            words.fold(0, |marks, &chunk| {
                marks | marks_of(u64::from_ne_bytes(chunk))
            }) == 0
                || is_value_bytewise(value)
        }
        None => is_value_bytewise(value),
    }
}

/// Not 0 if one of eight bytes is a control character, of which the tab is one. The test for a byte
/// less than 32 and that for a zero, here where the byte is DEL, borrow from the byte above only if they
/// found one, so they are exact as a whole.
#[inline(always)]
fn marks_of(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let less = word.wrapping_sub(ONES * 0x20);
    let delete = (word ^ (ONES * 0x7f)).wrapping_sub(ONES);
    (less | delete) & !word & (ONES * 0x80)
}

fn is_value_bytewise(value: &[u8]) -> bool {
    value
        .iter()
        .all(|&byte| byte >= b' ' && byte != 0x7f || byte == b'\t')
}

/// Characters of a token, without upper case.
static TOKEN: [bool; 256] = {
    let mut token = [false; 256];
    let mut byte = 0;
    while byte < token.len() {
        token[byte] = matches!(
            byte as u8,
            b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`'
                | b'|' | b'~'
        );
        byte += 1;
    }
    token
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_tokens() {
        for byte in 0..=255u8 {
            let is_token = byte.is_ascii_lowercase()
                || byte.is_ascii_digit()
                || b"!#$%&'*+-.^_`|~".contains(&byte);
            assert_eq!(is_name(&[b'x', byte, b'x']), is_token, "{byte}");
            assert_eq!(is_name(&[byte]), is_token, "{byte}");
            for at in 0..11 {
                let mut name = *b"ab-yz-0a-zz";
                name[at] = byte;
                assert_eq!(is_name(&name), is_token, "{byte} at {at}");
            }
        }
        assert!(!is_name(b""));
        assert!(is_name(b":protocol"));
        assert!(!is_name(b":protoco"));
        assert!(!is_name(b":pseudo"));
    }

    #[test]
    fn values_hold_no_control_character_but_tabs_wherever_it_stands() {
        for byte in 0..=255u8 {
            let is_visible = byte == b'\t' || byte >= b' ' && byte != 0x7f;
            for len in [1, 7, 8, 9, 15, 16, 23] {
                for at in 0..len {
                    for around in [b'~', b'\t', 0x80] {
                        let mut value = vec![around; len];
                        value[at] = byte;
                        assert_eq!(is_value(&value), is_visible, "{byte} at {at} of {len}");
                    }
                }
            }
        }
        assert!(is_value(b""));
    }
}
