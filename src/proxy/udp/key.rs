//! What datagrams of one flow have in common, and who their client is: plain bytes, hashed by a
//! function whose key no client knows.

use std::hash::{BuildHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use crate::base::siphash::SipHash;

use super::quic;

/// What finds a flow: a client's address with the one that it speaks to, or a connection id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    len: u8,
    bytes: [u8; Key::MAX],
}

/// Whose flows are counted together: an IPv4 address, or an IPv6 /64, which one household or host has
/// to choose addresses from (RFC 6177 section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source(u128);

/// Hashes one slice with SipHash: clients choose ports, addresses and connection ids, and must not
/// find those that fall into one place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyed(SipHash);

/// One hash on its way.
#[derive(Debug)]
pub(super) struct Hashing {
    function: SipHash,
    value: u64,
}

// === impl Key ===

impl Key {
    /// A kind, two IPv6 addresses, a scope and a port.
    const MAX: usize = 1 + 16 + 4 + 2 + 16;

    /// Datagrams from `client` to our address `local` (`None` = there is only one).
    pub(super) fn of_address(client: SocketAddr, local: Option<IpAddr>) -> Self {
        let mut key = Self {
            len: 0,
            bytes: [0; Self::MAX],
        };
        match client {
            SocketAddr::V4(addr) => {
                key.push(&[4]);
                key.push(&addr.ip().octets());
            }
            SocketAddr::V6(addr) => {
                key.push(&[6]);
                key.push(&addr.ip().octets());
                key.push(&addr.scope_id().to_ne_bytes());
            }
        }
        key.push(&client.port().to_ne_bytes());
        match local {
            None => {}
            Some(IpAddr::V4(ip)) => key.push(&ip.octets()),
            Some(IpAddr::V6(ip)) => key.push(&ip.octets()),
        }
        key
    }

    /// Datagrams that bear the connection id `id`, cut to what any version in use allows.
    pub(super) fn of_id(id: &[u8]) -> Self {
        let mut key = Self {
            len: 0,
            bytes: [0; Self::MAX],
        };
        key.push(b"q");
        key.push(&id[..id.len().min(quic::MAX_ID)]);
        key
    }

    fn push(&mut self, bytes: &[u8]) {
        let at = usize::from(self.len);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len() as u8;
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Key {}

impl Hash for Key {
    /// One slice, once: see [`Hashing`].
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.bytes());
    }
}

// === impl Source ===

impl Source {
    /// The source that `client` belongs to.
    pub(super) fn of(client: IpAddr) -> Self {
        Self(match client {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
            // What is IPv4 in an IPv6 address is no /64.
            IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
                Some(v4) => v4.to_ipv6_mapped().to_bits(),
                None => ip.to_bits() >> 64 << 64,
            },
        })
    }
}

impl Hash for Source {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0.to_ne_bytes());
    }
}

// === impl Keyed ===

impl Keyed {
    /// The function of `seed`; keep it from clients.
    pub(super) fn new(seed: u64) -> Self {
        Self(SipHash::new(seed))
    }
}

impl BuildHasher for Keyed {
    type Hasher = Hashing;

    fn build_hasher(&self) -> Hashing {
        Hashing {
            function: self.0,
            value: 0,
        }
    }
}

// === impl Hashing ===

impl Hasher for Hashing {
    fn write(&mut self, bytes: &[u8]) {
        // What came before is not forgotten, though keys are written at once.
        self.value = self.value.rotate_left(1) ^ self.function.hash(bytes);
    }

    fn finish(&self) -> u64 {
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn keys_differ_in_every_part() {
        let key = Key::of_address;
        let local = |text: &str| Some(text.parse().unwrap());
        let keys = [
            key(addr("1.2.3.4:5"), None),
            key(addr("1.2.3.4:6"), None),
            key(addr("1.2.3.5:5"), None),
            key(addr("1.2.3.4:5"), local("127.0.0.1")),
            key(addr("1.2.3.4:5"), local("127.0.0.2")),
            key(addr("1.2.3.4:5"), local("::1")),
            key(addr("[::1]:5"), None),
            key(addr("[::1%1]:5"), None),
            key(
                addr("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:5"),
                local("ffff::1"),
            ),
            Key::of_id(b""),
            Key::of_id(b"12345678"),
            Key::of_id(&[7; 20]),
        ];
        for (i, a) in keys.iter().enumerate() {
            for (j, b) in keys.iter().enumerate() {
                assert_eq!(a == b, i == j, "{i} {j}");
            }
        }
    }

    #[test]
    fn a_household_is_one_source() {
        let source = |ip: &str| Source::of(ip.parse().unwrap());
        assert_eq!(source("2001:db8:0:1::1"), source("2001:db8:0:1:ffff::2"));
        assert_ne!(source("2001:db8:0:1::1"), source("2001:db8:0:2::1"));
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
        assert_eq!(source("10.0.0.1"), source("::ffff:10.0.0.1"));
        assert_ne!(source("::ffff:10.0.0.1"), source("::ffff:10.0.0.2"));
    }

    #[test]
    fn equal_keys_hash_alike_and_other_seeds_otherwise() {
        let (a, b) = (Keyed::new(1), Keyed::new(2));
        let key = || Key::of_id(b"12345678");
        assert_eq!(a.hash_one(key()), a.hash_one(key()));
        assert_ne!(a.hash_one(key()), b.hash_one(key()));
    }
}
