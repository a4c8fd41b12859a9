//! The bounds of a head.

/// The most fields a head may ever have, whatever is configured: the parser's scratch is an
/// uninitialised stack array of this many 32-byte entries (8 KiB), and the hop-by-hop set one bit
/// each.
pub const HARD_MAX_FIELDS: usize = 256;

/// The longest method; the longest registered one (`UPDATEREDIRECTREF`) has 17 letters.
pub(super) const MAX_METHOD_BYTES: usize = 32;

/// The most `Connection` options: each may name a field, so they multiply with the number of
/// fields. Real messages have at most three.
pub(super) const MAX_CONNECTION_OPTIONS: usize = 32;

/// Bounds on one message head (and, by `max_fields`, on its trailers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole head, request line and final empty line included. Beyond: 431.
    pub max_head_bytes: usize,
    /// Fields in a head or in trailers; values above [`HARD_MAX_FIELDS`] act as that. Beyond: 431.
    pub max_fields: usize,
    /// Bytes of a request target. Beyond: 414. The `http` crate's `Uri` ends at 65,534.
    pub max_target_bytes: usize,
}

// === impl Limits ===

impl Limits {
    /// `max_fields` under the hard cap.
    #[inline]
    pub(super) fn fields(&self) -> usize {
        self.max_fields.min(HARD_MAX_FIELDS)
    }
}

impl Default for Limits {
    /// 32 KiB, 100 fields and 8,000-byte targets: RFC 9110 section 4.1 recommends at least 8,000
    /// octets for a target; hyper and nginx stop at 100 fields and 32 KiB (4 x 8 KiB).
    fn default() -> Self {
        Self {
            max_head_bytes: 32 * 1024,
            max_fields: 100,
            max_target_bytes: 8000,
        }
    }
}
