//! A keyed 64-bit hash, for tables that an attacker may fill.
//!
//! SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012): whoever does not
//! know the key cannot find two inputs that collide, nor one that falls into a given place. XXH3
//! (`base::hash`) makes no such promise, with a seed or without.

use super::hash::mix;

/// A hash function drawn by a seed.
#[derive(Clone, Copy, Debug)]
pub struct SipHash {
    k0: u64,
    k1: u64,
}

/// v0 to v3 of the paper, section 2.
struct State([u64; 4]);

// === impl SipHash ===

impl SipHash {
    /// The function of `seed`. Its values depend on the seed only; keep it from clients.
    pub fn new(seed: u64) -> Self {
        Self {
            k0: mix(seed),
            // Another point of SplitMix64's sequence (golden gamma), so that the halves differ.
            k1: mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)),
        }
    }

    /// The hash of `bytes`.
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        // The words are "somepseudorandomlygeneratedbytes" (section 2.1).
        let mut state = State([
            self.k0 ^ 0x736f_6d65_7073_6575,
            self.k1 ^ 0x646f_7261_6e64_6f6d,
            self.k0 ^ 0x6c79_6765_6e65_7261,
            self.k1 ^ 0x7465_6462_7974_6573,
        ]);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            state.compress(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        // The last byte is the length modulo 256 (section 2.2).
        last[7] = bytes.len() as u8;
        state.compress(u64::from_le_bytes(last));
        state.finish()
    }
}

// === impl State ===

impl State {
    fn compress(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.round();
        self.0[0] ^= word;
    }

    fn finish(mut self) -> u64 {
        self.0[2] ^= 0xff;
        for _ in 0..4 {
            self.round();
        }
        self.0.iter().fold(0, |all, v| all ^ v)
    }

    /// SipRound (figure 2.1).
    fn round(&mut self) {
        let [mut v0, mut v1, mut v2, mut v3] = self.0;
        v0 = v0.wrapping_add(v1);
        v1 = v1.rotate_left(13) ^ v0;
        v0 = v0.rotate_left(32);
        v2 = v2.wrapping_add(v3);
        v3 = v3.rotate_left(16) ^ v2;
        v0 = v0.wrapping_add(v3);
        v3 = v3.rotate_left(21) ^ v0;
        v2 = v2.wrapping_add(v1);
        v1 = v1.rotate_left(17) ^ v2;
        v2 = v2.rotate_left(32);
        self.0 = [v0, v1, v2, v3];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_paper_and_its_reference_code() {
        let key = SipHash {
            k0: 0x0706_0504_0302_0100,
            k1: 0x0f0e_0d0c_0b0a_0908,
        };
        let bytes: Vec<u8> = (0..15).collect();
        // Appendix A.
        assert_eq!(key.hash(&bytes), 0xa129_ca61_49be_45e5);
        // The first vector of the reference code.
        assert_eq!(key.hash(&[]), 0x726f_db47_dd0e_0e31);
    }

    #[test]
    fn every_length_agrees_with_the_standard_library() {
        #[expect(
            deprecated,
            reason = "the standard library's SipHash-2-4, as an oracle"
        )]
        fn oracle(key: SipHash, bytes: &[u8]) -> u64 {
            use std::hash::{Hasher, SipHasher};
            let mut hasher = SipHasher::new_with_keys(key.k0, key.k1);
            hasher.write(bytes);
            hasher.finish()
        }
        let key = SipHash::new(7);
        let bytes: Vec<u8> = (0..300).map(|i| (i * 7 % 251) as u8).collect();
        for length in 0..=bytes.len() {
            let bytes = &bytes[..length];
            assert_eq!(key.hash(bytes), oracle(key, bytes), "{length} bytes");
        }
    }

    #[test]
    fn another_seed_is_another_function() {
        assert_ne!(SipHash::new(1).hash(b"key"), SipHash::new(2).hash(b"key"));
    }
}
