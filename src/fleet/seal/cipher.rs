//! AES-256-GCM whose nonce is a counter (NIST SP 800-38D, section 8.2.1: deterministic construction).
//!
//! No two messages of a key may have one counter: then whoever sees both reads them, and forges others. So each
//! key here is of one sender and one session (or one stream and direction), whose owner only counts up.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};

/// A key, ready to use.
pub(super) struct Cipher(LessSafeKey);

/// What sealing adds.
pub(super) const TAG_BYTES: usize = 16;

// === impl Cipher ===

impl Cipher {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key)
            .expect("invariant: 32 bytes, which is what AES-256 takes");
        Self(LessSafeKey::new(key))
    }

    /// Seals in place; the tag goes behind. `None` = longer than GCM can (64 GiB).
    pub(super) fn seal(&self, counter: u64, header: &[u8], plain: &mut [u8]) -> Option<Tag> {
        let sealed = self
            .0
            .seal_in_place_separate_tag(nonce(counter), Aad::from(header), plain);
        sealed.ok()
    }

    /// Opens in place, and returns what is in it; `None` = not sealed with this key, counter and header. Then
    /// `sealed` may have been written over.
    pub(super) fn open<'a>(
        &self,
        counter: u64,
        header: &[u8],
        sealed: &'a mut [u8],
    ) -> Option<&'a [u8]> {
        let opened = self
            .0
            .open_in_place(nonce(counter), Aad::from(header), sealed);
        opened.ok().map(|plain| &*plain)
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(…)")
    }
}

/// Four zeros and the counter, as TLS 1.3 pads its own (RFC 8446 section 5.3).
fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}
