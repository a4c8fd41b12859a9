//! WebSockets: RFC 8441 opens them by an extended CONNECT, RFC 6455 by an upgrade of HTTP/1.1 with a
//! key that the server must have understood. A proxy between the two makes up the one or the other.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// The value of `:protocol` and of `Upgrade`.
pub(super) const WEBSOCKET: &str = "websocket";

/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A key of 16 bytes in base64: what the client's end sends. It proves nothing and need not be
/// secret; it keeps caches from answering (section 10.3), so it is not the same twice.
pub(super) fn key(random: u128) -> String {
    base64(&random.to_be_bytes())
}

/// What a server must answer to `key` (section 4.2.2).
pub(super) fn accept(key: &[u8]) -> String {
    base64(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat()).as_ref())
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = (0..3).fold(0u32, |word, i| {
            word << 8 | u32::from(group.get(i).copied().unwrap_or(0))
        });
        for i in 0..4 {
            if i <= group.len() {
                text.push(DIGITS[(word >> (18 - 6 * i)) as usize & 63] as char);
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_6455_section_1_3() {
        assert_eq!(
            accept(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn rfc_4648_section_10() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, coded) in cases {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(key(0).len(), 24);
    }
}
