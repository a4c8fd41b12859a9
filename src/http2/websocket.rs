//! WebSockets: RFC 8441 opens them by an extended CONNECT, RFC 6455 by an upgrade of HTTP/1.1 with a
//! key that the server must have understood. A proxy between the two makes up the one or the other.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use data_encoding::BASE64;

/// The value of `:protocol` and of `Upgrade`.
pub(super) const WEBSOCKET: &str = "websocket";

/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A key of 16 bytes in base64: what the client's end sends. It proves nothing and need not be
/// secret; it keeps caches from answering (section 10.3), so it is not the same twice.
pub(super) fn key(random: u128) -> String {
    BASE64.encode(&random.to_be_bytes())
}

/// What a server must answer to `key` (section 4.2.2).
pub(super) fn accept(key: &[u8]) -> String {
    BASE64.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat()).as_ref())
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
}
