//! Client networks, grouped by prefix length: one binary search each, the longest first.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// The networks of one rule that have one family and one prefix length. A rule enters its leaf once
/// for each (at most 33 + 129 times), so that the leaf's fixed order is longest match first.
#[derive(Clone, Debug)]
pub(super) enum NetworkGroup {
    /// First addresses, sorted.
    V4 { length: u8, starts: Box<[u32]> },
    /// First addresses, sorted.
    V6 { length: u8, starts: Box<[u128]> },
}

// === impl NetworkGroup ===

impl NetworkGroup {
    pub(super) fn of_rule(networks: &[IpNet]) -> Vec<Self> {
        let mut v4 = BTreeMap::<u8, Vec<u32>>::new();
        let mut v6 = BTreeMap::<u8, Vec<u128>>::new();
        for network in networks {
            match canonical(*network) {
                IpNet::V4(net) => v4
                    .entry(net.prefix_len())
                    .or_default()
                    .push(net.addr().into()),
                IpNet::V6(net) => v6
                    .entry(net.prefix_len())
                    .or_default()
                    .push(net.addr().into()),
            }
        }
        let v4 = v4.into_iter().map(|(length, starts)| Self::V4 {
            length,
            starts: sorted(starts),
        });
        let v6 = v6.into_iter().map(|(length, starts)| Self::V6 {
            length,
            starts: sorted(starts),
        });
        v4.chain(v6).collect()
    }

    pub(super) fn length(&self) -> u8 {
        match self {
            Self::V4 { length, .. } | Self::V6 { length, .. } => *length,
        }
    }

    pub(super) fn contains(&self, client: IpAddr) -> bool {
        match (self, client.to_canonical()) {
            (Self::V4 { length, starts }, IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(*length)).unwrap_or(0);
                starts.binary_search(&(u32::from(address) & mask)).is_ok()
            }
            (Self::V6 { length, starts }, IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(*length)).unwrap_or(0);
                starts.binary_search(&(u128::from(address) & mask)).is_ok()
            }
            (Self::V4 { .. }, IpAddr::V6(_)) | (Self::V6 { .. }, IpAddr::V4(_)) => false,
        }
    }
}

/// Host bits cleared, IPv4-mapped networks as IPv4: equal networks are equal values.
pub(super) fn canonical(network: IpNet) -> IpNet {
    let network = network.trunc();
    // ::ffff:0:0/96 is where the mapped addresses live (RFC 4291 section 2.5.5.2).
    if let IpNet::V6(v6) = network
        && let Some(address) = v6.addr().to_ipv4_mapped()
        && let Some(length) = v6.prefix_len().checked_sub(96)
        && let Ok(v4) = Ipv4Net::new(address, length)
    {
        return IpNet::V4(v4.trunc());
    }
    network
}

fn sorted<T: Ord>(mut starts: Vec<T>) -> Box<[T]> {
    starts.sort_unstable();
    starts.dedup();
    starts.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(networks: &[&str], client: &str) -> Vec<u8> {
        let networks: Vec<IpNet> = networks.iter().map(|n| n.parse().unwrap()).collect();
        let client = client.parse().unwrap();
        let groups = NetworkGroup::of_rule(&networks);
        groups
            .iter()
            .filter(|g| g.contains(client))
            .map(NetworkGroup::length)
            .collect()
    }

    #[test]
    fn membership_at_every_edge() {
        assert_eq!(
            held(&["10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8"], "10.1.2.3"),
            [8, 16]
        );
        assert_eq!(held(&["10.0.0.0/8"], "10.255.255.255"), [8]);
        assert_eq!(held(&["10.0.0.0/8"], "9.255.255.255"), [0u8; 0]);
        assert_eq!(held(&["0.0.0.0/0"], "255.1.1.1"), [0]);
        assert_eq!(held(&["1.2.3.4/32"], "1.2.3.4"), [32]);
        assert_eq!(held(&["::/0", "fd00::/8", "::1/128"], "fd12::1"), [0, 8]);
        assert_eq!(held(&["::1/128"], "::1"), [128]);
        assert_eq!(held(&["::/0"], "1.2.3.4"), [0u8; 0]);
        assert_eq!(held(&["0.0.0.0/0"], "::1"), [0u8; 0]);
    }

    #[test]
    fn host_bits_are_ignored_and_mapped_addresses_are_ipv4() {
        assert_eq!(held(&["10.1.2.3/8"], "10.9.9.9"), [8]);
        assert_eq!(held(&["10.0.0.0/8"], "::ffff:10.1.1.1"), [8]);
        assert_eq!(held(&["::ffff:10.0.0.0/104"], "10.1.1.1"), [8]);
    }
}
