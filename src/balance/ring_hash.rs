//! `ring_hash`: the ketama ring, with the same key to endpoint mapping as nginx's
//! `hash … consistent`.
//!
//! A member has 160 points per unit of weight on a circle of 2^32: point k is
//! crc32(HOST 0 PORT point k-1), as in nginx and Perl's Cache::Memcached::Fast. A key goes to the
//! first point at or after crc32(key). Checked against a running nginx in `tests/it`.
//!
//! Shares are uneven by nature: with 50 members of weight 1 the busiest owns about 1.2 times its
//! share. `maglev` is even, and moves slightly more keys when a member is added or removed.

use std::sync::Arc;

use super::hashed::{Entry, Table};

/// nginx's, and so the ecosystem's.
const POINTS_PER_WEIGHT: u64 = 160;

/// More would take above 12 bytes x 2^20 for no better spread: sums of weights above 6,553 are
/// scaled down to this many points, and only then mappings differ from nginx's.
const MAX_POINTS: u64 = 1 << 20;

/// The sorted circle.
#[derive(Debug)]
pub(super) struct Ring {
    /// Ascending, distinct.
    points: Box<[u32]>,
    /// Owner of each point.
    owners: Arc<[u32]>,
    /// `directory[h >> shift]` = first point at or after the start of that stretch: about one
    /// stretch a point, so a look-up steps once or twice where a binary search takes 17 misses.
    directory: Box<[u32]>,
    shift: u32,
}

// === impl Ring ===

impl Table for Ring {
    fn build(entries: &[Entry<'_>], _members: usize, _previous: Option<&Self>) -> Self {
        let weights: u64 = entries.iter().map(|entry| u64::from(entry.weight)).sum();
        let mut circle: Vec<(u32, u32)> = Vec::new();
        for entry in entries {
            let weight = u64::from(entry.weight);
            let count = if weights * POINTS_PER_WEIGHT <= MAX_POINTS {
                weight * POINTS_PER_WEIGHT
            } else {
                (u128::from(weight) * u128::from(MAX_POINTS) / u128::from(weights)).max(1) as u64
            };
            circle.extend(
                points(entry)
                    .take(count as usize)
                    .map(|point| (point, entry.index)),
            );
        }
        // Stable, and entries come by name: of two members with one point the first by name has it.
        circle.sort_by_key(|&(point, _)| point);
        circle.dedup_by_key(|(point, _)| *point);

        let bits = circle.len().max(2).next_power_of_two().ilog2();
        let shift = 32 - bits;
        let points: Box<[u32]> = circle.iter().map(|&(point, _)| point).collect();
        let directory = (0..1u64 << bits)
            .map(|stretch| points.partition_point(|&p| u64::from(p) < stretch << shift) as u32)
            .collect();
        let owners = circle.iter().map(|&(_, owner)| owner).collect();
        Self {
            points,
            owners,
            directory,
            shift,
        }
    }

    fn owners(&self) -> &Arc<[u32]> {
        &self.owners
    }

    #[inline]
    fn slot(&self, key: &[u8]) -> usize {
        let hash = crc32fast::hash(key);
        let start = self.directory[(hash >> self.shift) as usize] as usize;
        let after = self.points[start..].iter().position(|&point| point >= hash);
        // Past the last point the circle closes.
        after.map_or(0, |steps| start + steps)
    }
}

/// The endless chain of a member's points.
fn points(entry: &Entry<'_>) -> impl Iterator<Item = u32> {
    let (host, port) = host_and_port(entry.name);
    let mut base = crc32fast::Hasher::new();
    base.update(host.as_bytes());
    base.update(&[0]);
    base.update(port.as_bytes());
    if entry.ordinal > 0 {
        // nginx gives equal names equal points; here each has its own.
        base.update(&entry.ordinal.to_le_bytes());
    }
    let mut previous = 0u32;
    std::iter::repeat_with(move || {
        let mut point = base.clone();
        // nginx feeds the four bytes of the word as they lie in memory: little-endian on the
        // machines whose mappings are worth matching.
        point.update(&previous.to_le_bytes());
        previous = point.finalize();
        previous
    })
}

/// nginx's split: `unix:PATH` has no port; else the digits after the last colon are the port.
fn host_and_port(name: &str) -> (&str, &str) {
    if name
        .get(..5)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("unix:"))
    {
        return (&name[5..], "");
    }
    match name.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (host, port),
        _ => (name, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::PolicyKind::RingHash;
    use crate::balance::fixture::Bench;

    fn entry(name: &str) -> Entry<'_> {
        Entry {
            index: 0,
            name,
            ordinal: 0,
            weight: 1,
        }
    }

    #[test]
    fn names_split_as_in_nginx() {
        assert_eq!(host_and_port("10.0.0.1:80"), ("10.0.0.1", "80"));
        assert_eq!(host_and_port("[::1]:8080"), ("[::1]", "8080"));
        assert_eq!(host_and_port("backend"), ("backend", ""));
        assert_eq!(host_and_port("a:b"), ("a:b", ""));
        assert_eq!(host_and_port("unix:/run/x:1"), ("/run/x:1", ""));
        assert_eq!(host_and_port("é"), ("é", ""));
    }

    #[test]
    fn points_chain_through_crc32() {
        // Python: zlib.crc32(b"10.0.0.1\x0080" + prev.to_bytes(4, "little")), starting from prev = 0.
        let chain: Vec<u32> = points(&entry("10.0.0.1:80")).take(4).collect();
        assert_eq!(chain, [0xa2ad5d56, 0x0bdeb0ab, 0x75f00c5b, 0x8368489f]);
    }

    #[test]
    fn keys_map_as_in_nginx() {
        // Recorded from nginx 1.22.1: `hash $arg_k consistent` over these three servers.
        let mut bench = Bench::named(
            RingHash,
            &[
                ("127.0.0.1:7001", 1),
                ("127.0.0.1:7002", 2),
                ("127.0.0.1:7003", 1),
            ],
        );
        let picks: Vec<usize> = (0..40)
            .map(|k| bench.pick_key(format!("key{k}").as_bytes()).unwrap())
            .collect();
        assert_eq!(
            picks,
            [
                2, 0, 2, 0, 2, 2, 1, 0, 1, 0, 1, 0, 2, 2, 1, 2, 1, 1, 1, 1, 1, 1, 2, 2, 1, 1, 1, 2,
                2, 2, 2, 2, 1, 1, 2, 1, 0, 1, 0, 1
            ]
        );
    }

    #[test]
    fn the_circle_closes() {
        let ring = Ring::build(&[entry("10.0.0.1:80")], 1, None);
        let (last, first) = (ring.points[ring.points.len() - 1], ring.points[0]);
        assert!(last < u32::MAX && first > 0);
        // Some key beyond the last point: found by trial.
        let key = (0..u32::MAX)
            .find(|k| crc32fast::hash(&k.to_le_bytes()) > last)
            .unwrap();
        assert_eq!(ring.slot(&key.to_le_bytes()), 0);
    }

    #[test]
    fn the_directory_finds_what_a_binary_search_finds() {
        let names: Vec<String> = (0..50).map(|i| format!("10.0.0.{i}:80")).collect();
        let entries: Vec<Entry<'_>> = names.iter().map(|name| entry(name)).collect();
        let ring = Ring::build(&entries, 1, None);
        for key in 0u32..100_000 {
            let hash = crc32fast::hash(&key.to_le_bytes());
            let expected = ring.points.partition_point(|&p| p < hash) % ring.points.len();
            assert_eq!(ring.slot(&key.to_le_bytes()), expected);
        }
    }

    #[test]
    fn huge_weights_are_scaled_and_everybody_keeps_a_point() {
        let mut bench = Bench::new(RingHash, &[u32::MAX, u32::MAX / 2, 1]);
        let counts = bench.count_keys(30_000);
        let ratio = f64::from(counts[0]) / f64::from(counts[1]);
        assert!((1.9..2.1).contains(&ratio), "{counts:?}");
        bench.set_ready(0, false);
        bench.set_ready(1, false);
        assert_eq!(bench.count_keys(10), [0, 0, 10]);
    }
}
