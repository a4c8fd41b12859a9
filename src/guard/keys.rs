//! A rate limit for each of very many keys, in a table of fixed size shared by the workers.
//!
//! A key is forgotten only for another one, and then the one with the oldest theoretical arrival
//! time of its set goes ([`gcra`](super::gcra)). Those that are over come first, and to forget
//! one of them changes nothing: an arrival time that has passed is as good as none. Of the others,
//! who is furthest above the rate stays longest; so a flood of new keys cannot wash out
//! those that are being refused, and to be forgotten is never to a client's harm.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::gcra::{Rate, Tat};
use crate::base::clock::Nanos;
use crate::base::siphash::SipHash;

/// One limit over the keys of a route.
#[derive(Debug)]
pub struct Limiter {
    rate: Rate,
    hash: SipHash,
    sets: usize,
    ways: usize,
    /// Set `s` is in shard `s % shards`.
    shards: Box<[Mutex<Shard>]>,
    forgotten: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    /// The latest time that was seen. Workers read the clock apart and then wait for the lock: an
    /// earlier time, taken as such, would be refused the rest of a burst.
    latest: Nanos,
    /// Empty until the first key.
    table: Vec<Entry>,
}

/// A key: 32 bits of its hash above the 96 of its arrival time. 16 bytes, so that a set is two
/// cache lines; 0 is a place that is free, and needs no other mark, since its time is over.
///
/// The place in the table stands for up to 32 further bits: among 100,000 keys, two of which
/// share a place at all, some pair is taken for one with a chance of 10^5 * 8 / 2^32 = 1 in 5,000.
type Entry = u128;

/// Entries among which a key is looked for: two cache lines. With twice as many places as live keys
/// a set overflows with a chance of 2 % (Poisson, 4 expected, more than 8).
const WAYS: usize = 8;

/// Locks: far more than workers, so that two seldom meet at other than the same key; 64 of them
/// are 3 kB.
const SHARDS: usize = 64;

// === impl Limiter ===

impl Limiter {
    /// `rate` in each `per` and `burst` at once, for each of at most `max_keys` keys (0 counts as
    /// 1), at 16 bytes each, taken as keys come. `seed` keeps clients from aiming at places of the
    /// table.
    pub fn new(rate: u32, per: Duration, burst: u32, max_keys: u32, seed: u64) -> Self {
        let max_keys = max_keys.max(1) as usize;
        let ways = max_keys.min(WAYS);
        // Down: `max_keys` is a bound.
        let sets = max_keys / ways;
        Self {
            rate: Rate::new(rate, per, burst),
            hash: SipHash::new(seed),
            sets,
            ways,
            shards: (0..sets.min(SHARDS)).map(|_| Mutex::default()).collect(),
            forgotten: AtomicU64::new(0),
        }
    }

    /// Whether one of `key` may pass at `now`; else how long until one would.
    pub fn allow(&self, key: &[u8], now: Nanos) -> Result<(), Nanos> {
        let hash = self.hash.hash(key);
        // The upper half chooses the set (multiply-shift), the lower half tells keys of it apart.
        let set = (((hash >> 32) * self.sets as u64) >> 32) as usize;
        let tag = u128::from(hash as u32);

        let (shard, place) = (set % self.shards.len(), set / self.shards.len());
        // What a panic elsewhere left is a table of whole numbers, valid whatever they are.
        let sets = self.sets_of(shard);
        let mut shard = self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        shard.latest = shard.latest.max(now);
        let now = shard.latest;
        if shard.table.is_empty() {
            shard.table = vec![0; sets * self.ways];
        }
        let set = &mut shard.table[place * self.ways..][..self.ways];

        // An empty place matches tag 0, with a time that is over: as if it had been seen long ago.
        let known = set.iter().position(|entry| entry >> Tat::BITS == tag);
        let tat = known.map_or(Tat::default(), |way| Tat::from_bits(set[way]));
        let next = self.rate.decide(tat, now)?;
        let way = known.unwrap_or_else(|| self.make_room(set, now));
        set[way] = tag << Tat::BITS | next.to_bits();
        Ok(())
    }

    /// Keys that were forgotten while their arrival time was still to come: above 0 means that
    /// somebody may have got more than the limit, and that `max_keys` is too low for the traffic.
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// The place in `set` of the oldest arrival time.
    fn make_room(&self, set: &[Entry], now: Nanos) -> usize {
        let oldest = set
            .iter()
            .map(|&entry| Tat::from_bits(entry))
            .enumerate()
            .min_by_key(|&(_, tat)| tat);
        let Some((way, tat)) = oldest else { return 0 };
        if tat > self.rate.ticks(now) {
            // Relaxed: a count for metrics, nothing hangs on it.
            self.forgotten.fetch_add(1, Ordering::Relaxed);
        }
        way
    }

    /// Sets of a shard: the first ones have what the division leaves over.
    fn sets_of(&self, shard: usize) -> usize {
        let shards = self.shards.len();
        self.sets / shards + usize::from(shard < self.sets % shards)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const S: Nanos = 1_000_000_000;
    const SECOND: Duration = Duration::from_secs(1);

    fn places(limiter: &Limiter) -> usize {
        let taken = |shard: &Mutex<Shard>| shard.lock().unwrap().table.len();
        limiter.shards.iter().map(taken).sum()
    }

    #[test]
    fn keys_are_counted_apart() {
        let limiter = Limiter::new(1, SECOND, 2, 1_000, 1);
        for key in [&b"a"[..], b"b", b""] {
            assert_eq!(limiter.allow(key, 0), Ok(()));
            assert_eq!(limiter.allow(key, 0), Ok(()));
            assert_eq!(limiter.allow(key, 0), Err(S));
        }
        assert_eq!(limiter.allow(b"a", S), Ok(()));
        assert_eq!(limiter.allow(b"a", S), Err(S));
        assert_eq!(limiter.forgotten(), 0);
    }

    #[test]
    fn a_table_takes_memory_as_keys_come_and_never_more_than_its_bound() {
        let limiter = Limiter::new(1, SECOND, 1, 100_000, 1);
        assert_eq!(places(&limiter), 0);
        let _ = limiter.allow(b"one", 0);
        assert!(places(&limiter) <= 100_000 / SHARDS + WAYS);
        for key in 0..10_000u32 {
            let _ = limiter.allow(&key.to_le_bytes(), 0);
        }
        assert_eq!(places(&limiter), 100_000);
        assert_eq!(size_of::<Entry>(), 16, "1.6 MB for 100,000");
    }

    #[test]
    fn small_tables_hold_what_they_say() {
        for max_keys in (0..40).chain([511, 512, 513, 1_000, 4_097]) {
            let limiter = Limiter::new(1, SECOND, 1, max_keys, 1);
            for key in 0..20_000u32 {
                assert_eq!(
                    limiter.allow(&key.to_le_bytes(), 0),
                    Ok(()),
                    "never refused unseen"
                );
            }
            let most = max_keys.max(1) as usize;
            let places = places(&limiter);
            assert!(places <= most && places + WAYS > most, "{places} of {most}");
            assert_eq!(limiter.forgotten(), 20_000 - places as u64);
        }
    }

    #[test]
    fn a_table_of_one_key_limits_that_key() {
        let limiter = Limiter::new(1, SECOND, 1, 1, 1);
        assert_eq!(limiter.allow(b"", 0), Ok(()));
        assert_eq!(limiter.allow(b"", 0), Err(S));
    }

    /// A million keys in a second against places for 10,000: one that keeps its rate passes
    /// always, one that is far above it is not washed out and gets nothing more.
    #[test]
    fn a_flood_of_keys_neither_harms_the_slow_nor_helps_the_greedy() {
        let limiter = Limiter::new(10, SECOND, 5, 10_000, 3);
        let mut greedy = 0;
        for n in 0..1_000_000u64 {
            let now = n * 1_000;
            let _ = limiter.allow(&n.to_le_bytes(), now);
            if n % 100_000 == 0 {
                assert_eq!(limiter.allow(b"slow and steady", now), Ok(()));
            }
            if n % 100 == 0 && limiter.allow(b"greedy", now).is_ok() {
                greedy += 1;
            }
        }
        // Keys by the thousand asked for its place: their arrival times are older.
        assert_eq!(greedy, 5 + 9, "a burst, and 10 a second");
        assert_eq!(places(&limiter), 10_000);
        assert!(limiter.forgotten() > 800_000);
    }

    #[test]
    fn who_is_over_makes_room_first_and_is_not_counted() {
        let limiter = Limiter::new(1, SECOND, 1, 8, 1);
        for key in 0..4u8 {
            assert_eq!(limiter.allow(&[key], 0), Ok(()));
        }
        for key in 4..8u8 {
            assert_eq!(limiter.allow(&[key], S), Ok(()));
        }
        for key in 8..12u8 {
            assert_eq!(limiter.allow(&[key], S), Ok(()));
        }
        assert_eq!(limiter.forgotten(), 0);
        for key in 4..12u8 {
            assert_eq!(limiter.allow(&[key], S), Err(S), "key {key} is remembered");
        }
        assert_eq!(limiter.allow(&[12], S), Ok(()));
        assert_eq!(limiter.forgotten(), 1);
    }

    #[test]
    fn threads_on_one_key_get_exactly_the_burst_and_the_rate() {
        let limiter = Limiter::new(1_000, SECOND, 50, 1_000, 9);
        let clock = AtomicU64::new(0);
        let attempt = || {
            // 4 threads, 1 us each time: 20,000 attempts are 20 ms of this clock.
            let attempts = (0..5_000).map(|_| clock.fetch_add(1_000, Ordering::Relaxed));
            attempts
                .filter(|&now| limiter.allow(b"key", now).is_ok())
                .count()
        };
        let passed: usize = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(attempt));
            threads.map(|thread| thread.join().unwrap()).iter().sum()
        });
        // At 0, 1, .. 19 ms one more; who is late with a time drawn long ago is taken for the latest.
        assert_eq!(passed, 50 + 19);
    }

    #[test]
    fn a_worker_whose_clock_is_behind_gets_the_rest_of_the_burst() {
        let limiter = Limiter::new(1, SECOND, 2, 1_000, 9);
        assert_eq!(limiter.allow(b"key", 5 * S), Ok(()));
        assert_eq!(limiter.allow(b"key", 5 * S - 1), Ok(()));
        assert_eq!(limiter.allow(b"key", 0), Err(S));
    }

    #[test]
    fn threads_at_one_moment_get_exactly_the_burst() {
        let limiter = Limiter::new(1, SECOND, 50, 1_000, 9);
        let attempt = || {
            (0..500)
                .filter(|_| limiter.allow(b"key", 7).is_ok())
                .count()
        };
        let passed: usize = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(attempt));
            threads.map(|thread| thread.join().unwrap()).iter().sum()
        });
        assert_eq!(passed, 50);
    }

    #[test]
    fn a_lock_that_a_panic_poisoned_still_limits() {
        let limiter = Limiter::new(1, SECOND, 1, 1, 1);
        assert_eq!(limiter.allow(b"key", 0), Ok(()));
        std::thread::scope(|scope| {
            let poison = scope.spawn(|| {
                let _guard = limiter.shards[0].lock().unwrap();
                std::panic::resume_unwind(Box::new(()));
            });
            assert!(poison.join().is_err());
        });
        assert!(limiter.shards[0].is_poisoned());
        assert_eq!(limiter.allow(b"key", 0), Err(S));
    }

    proptest! {
        /// Few enough keys that none is ever forgotten: the table is then a map of GCRAs.
        #[test]
        fn decisions_are_those_of_a_map_of_rates(
            rate in 1u32..20,
            burst in 1u32..10,
            seed in any::<u64>(),
            asks in proptest::collection::vec((0u8..20, 0u64..50_000_000), 1..300),
        ) {
            let limiter = Limiter::new(rate, SECOND, burst, 100_000, seed);
            let each = Rate::new(rate, SECOND, burst);
            let mut model: HashMap<u8, Tat> = HashMap::new();
            let mut now = 0;
            for (key, gap) in asks {
                now += gap;
                let tat = model.entry(key).or_default();
                let expected = each.decide(*tat, now).map(|next| *tat = next);
                prop_assert_eq!(limiter.allow(&[key], now), expected);
            }
            prop_assert_eq!(limiter.forgotten(), 0);
        }
    }
}
