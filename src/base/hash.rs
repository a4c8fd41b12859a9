//! One stable 64-bit hash for everything that must agree between processes and versions.
//!
//! XXH3 (64 bits, seed 0, as specified by xxHash 0.8): the value of a byte string never changes, so
//! two proxies, or one before and after an upgrade, map a key to the same endpoint. It is not a
//! keyed hash: tables that an attacker can fill need another one, [`siphash`](super::siphash).

use xxhash_rust::xxh3::xxh3_64;

/// The hash of `bytes`.
#[inline]
pub fn hash(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// Scrambles one word: a bijection in which every input bit moves about half of the output bits.
///
/// The finaliser of SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
/// Generators", 2014, with Stafford's variant 13 constants). `mix(a ^ b)` joins two hashes.
#[inline]
pub fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_reference_implementation() {
        // From the C library, by way of Python's `xxhash.xxh3_64_intdigest`. One length of every
        // branch of the algorithm: 0, 1-3, 4-8, 9-16, 17-128, 129-240, above.
        let long = |n: usize| -> Vec<u8> { (0..n).map(|i| (i % 251) as u8).collect() };
        for (bytes, value) in [
            (Vec::new(), 0x2d06_8005_38d3_94c2),
            (b"a".to_vec(), 0xe6c6_32b6_1e96_4e1f),
            (b"10.0.0.1:80".to_vec(), 0x0bda_c9db_975d_9f08),
            (b"isobar".to_vec(), 0x5bad_f422_631d_7b4b),
            (long(100), 0x004e_4f92_1a64_bd1c),
            (long(200), 0xf42a_8864_feaf_0703),
            (long(1000), 0x33ef_703f_b2b2_0ed1),
        ] {
            assert_eq!(hash(&bytes), value, "{} bytes", bytes.len());
        }
    }

    #[test]
    fn mix_is_the_finaliser_of_splitmix64() {
        // The published first outputs of SplitMix64 seeded with 1234567 (state += golden gamma).
        let gamma = 0x9e37_79b9_7f4a_7c15_u64;
        let seed = 1234567_u64;
        assert_eq!(mix(seed.wrapping_add(gamma)), 6457827717110365317);
        assert_eq!(
            mix(seed.wrapping_add(gamma.wrapping_mul(2))),
            3203168211198807973
        );
    }
}
