//! The facts that a peer knows: one for each key, the later one of two.
//!
//! ```text
//! heard -> Facts::merge -> Merged      | Refused -> Quarantine, for people
//! two peers -> Comparison -> each has what the other had
//! Facts -> Snapshot -> disk -> Facts   a restart with every other peer away
//! ```
//! Merging is commutative, associative and idempotent ([`order`]): peers that heard the same facts, however
//! often and in whatever order, know the same. What nobody needs any longer is collected, by a rule of times and
//! of who is there, so that equal stores stay equal. All of it is pure, but for the file of [`snapshot`].

mod check;
pub mod compare;
mod digest;
pub mod order;
mod quarantine;
mod quota;
pub mod snapshot;

pub use check::{Flaw, MAX_TTL, MAX_VERSION, MIN_TTL};
pub use compare::Comparison;
pub use digest::{BUCKETS, BUCKETS_OF_GROUP, GROUPS, bucket_of};
pub use quarantine::{Flawed, KEPT, Quarantine};
pub use quota::{MAX_EVER, MAX_OF_ORIGIN, ROOM_OF_EACH};
pub use snapshot::Snapshot;

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::mem::discriminant;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::base::addr::EndpointAddr;
use crate::base::hash::hash;
use crate::config::Name;

use super::fact::{Fact, GC_AFTER, Key, Part, Value};
use super::id::PeerId;
use digest::Digests;
use quota::Origins;

/// Most facts: 10,000 endpoints with three registrars, three parts of an override and three votes each are
/// 90,000, of 1,000 peers each says one of itself, and up to the next power of two there are tombstones. Beyond
/// it there is room for those who have said little ([`ROOM_OF_EACH`]).
pub const MAX_FACTS: usize = 131_072;

/// The facts that a peer knows.
#[derive(Debug, Default)]
pub struct Facts {
    by_key: BTreeSet<Held>,
    /// The same, by bucket: a comparison reads a few buckets of thousands. A set each, not a list: whoever
    /// chooses names chooses buckets, and a full one must not make merging slow.
    buckets: Buckets,
    digests: Digests,
    /// Of their encodings: most of what is heard is heard again.
    hashes: HashSet<u64>,
    /// Every upstream that a fact is about, and how many are: names are shared by all its facts.
    upstreams: BTreeMap<Name, usize>,
    counts: Counts,
    origins: Origins,
}

/// What became of a fact that was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merged {
    /// It holds now.
    New {
        /// What held before it.
        before: Option<Value>,
    },
    /// It held already: this very fact.
    Known,
    /// A later one holds, or it is of a time that nobody remembers (see [`is_past`]).
    Older,
    /// It cannot be so.
    Refused(Flaw),
}

/// How many facts there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of peers.
    pub peers: usize,
    /// Of endpoints that registered themselves.
    pub registrations: usize,
    /// Of what operators say.
    pub overrides: usize,
    /// Of what was found by checks.
    pub votes: usize,
    /// Of what holds no more, whatever it was; not among the others.
    pub tombstones: usize,
}

/// Whether a fact is of a time that nobody remembers, so that it is neither taken nor kept: a tombstone that is
/// older than [`GC_AFTER`], or an override that expired longer ago than that.
///
/// One rule for merging and for collecting: what was collected here is not brought back by a peer that has yet
/// to collect it.
pub fn is_past(fact: &Fact, unix_ms: u64) -> bool {
    let ended = match &fact.value {
        Value::Gone => fact.stamp.unix_ms(),
        Value::Said { by, .. } => match by.expires_unix_ms {
            // What was said after its own end is kept for as long as what was said before it.
            Some(end) => end.max(fact.stamp.unix_ms()),
            None => return false,
        },
        Value::Peer(_) | Value::Registered { .. } | Value::Vote { .. } => return false,
    };
    unix_ms.saturating_sub(ended) > GC_AFTER_MS
}

const GC_AFTER_MS: u64 = GC_AFTER.as_millis() as u64;

/// A fact in its two places, with what it takes time to find out.
#[derive(Clone, Debug)]
struct Held(Arc<Hashed>);

#[derive(Debug)]
struct Hashed {
    fact: Fact,
    hash: u64,
    bucket: u16,
    /// Of its encoding, in bytes.
    len: u16,
}

#[derive(Debug)]
struct Buckets(Box<[BTreeSet<Held>]>);

// === impl Facts ===

impl Facts {
    /// Takes note of a fact, whose stamp the caller has compared with the clock.
    pub fn merge(&mut self, mut fact: Fact, unix_ms: u64) -> Merged {
        let held = self.by_key.get(&fact.key);
        // Most of what is heard is heard again; what is known was checked.
        if held.is_some_and(|held| held.0.fact == fact) {
            return Merged::Known;
        }
        let bytes = match check::encoded(&fact) {
            Ok(bytes) => bytes,
            Err(flaw) => return Merged::Refused(flaw),
        };
        if is_past(&fact, unix_ms) {
            return Merged::Older;
        }
        match held {
            Some(held) if !order::supersedes(&fact, &held.0.fact) => return Merged::Older,
            Some(_) | None => {}
        }
        if let Err(flaw) = self.origins.room(&fact, held.map(Held::fact), self.len()) {
            return Merged::Refused(flaw);
        }
        let before = self.remove(&fact.key).map(|held| held.0.fact.value.clone());
        self.share_name(&mut fact.key);
        let bucket = bucket_of(&fact.key);
        self.insert(Held(Arc::new(Hashed {
            fact,
            hash: hash(&bytes),
            bucket,
            // At most `MAX_FACT`.
            len: bytes.len() as u16,
        })));
        Merged::New { before }
    }

    /// Whether a fact would be taken, if it were the latest of its key.
    ///
    /// # Errors
    /// What [`merge`](Self::merge) would refuse it for.
    pub fn admits(&self, fact: &Fact) -> Result<(), Flaw> {
        fact.check()?;
        self.origins.room(fact, self.get(&fact.key), self.len())
    }

    /// How many facts are of one peer.
    pub fn of_origin(&self, origin: PeerId) -> usize {
        self.origins.of(origin)
    }

    /// Forgets what nobody needs any longer: what [`is_past`], and what a peer alone may say (that is, of itself,
    /// of who registered at it, of what it found) and said longer ago than [`GC_AFTER`], while it is no live
    /// member. Returns how many facts went. Whoever knows the same and asks with the same answers forgets the
    /// same.
    pub fn collect(&mut self, unix_ms: u64, is_live: impl Fn(PeerId) -> bool) -> usize {
        let is_abandoned = |fact: &Fact| {
            let age_ms = unix_ms.saturating_sub(fact.stamp.unix_ms());
            age_ms > GC_AFTER_MS && fact.key.writer().is_some_and(|writer| !is_live(writer))
        };
        let gone = self
            .iter()
            .filter(|f| is_past(f, unix_ms) || is_abandoned(f));
        let gone: Vec<Key> = gone.map(|fact| fact.key.clone()).collect();
        for key in &gone {
            self.remove(key);
        }
        gone.len()
    }

    /// Whether a fact is known, by its encoding: for what every peer hears from several others. By its hash, as
    /// [`root`](Self::root) tells stores apart. What is not known by it may be known all the same.
    pub fn knows(&self, encoded: &[u8]) -> bool {
        self.hashes.contains(&hash(encoded))
    }

    /// Takes a fact out, as if it had never been heard.
    pub fn take_out(&mut self, key: &Key) -> Option<Fact> {
        self.remove(key).map(|held| held.fact().clone())
    }

    /// The fact of a key.
    pub fn get(&self, key: &Key) -> Option<&Fact> {
        self.by_key.get(key).map(Held::fact)
    }

    /// All facts, tombstones too, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &Fact> {
        self.by_key.iter().map(Held::fact)
    }

    /// How many facts there are, tombstones too.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// How many facts there are of each kind.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The upstreams that any fact is about, a tombstone too, in order.
    pub fn upstreams(&self) -> impl Iterator<Item = &Name> {
        self.upstreams.keys()
    }

    /// What is said of the peers, in order.
    pub fn of_peers(&self) -> impl Iterator<Item = &Fact> {
        let all = self.by_key.range(Key::Peer(PeerId(0))..);
        all.map(Held::fact)
            .take_while(|fact| matches!(fact.key, Key::Peer(_)))
    }

    /// What is said of the endpoints of an upstream: registrations, then overrides, then votes, each by endpoint.
    /// Takes the time of these facts, not of all.
    pub fn of_upstream(&self, upstream: &str) -> impl Iterator<Item = &Fact> + use<'_> {
        self.ranges(upstream, &FIRST, |key, start| {
            key.upstream() == start.upstream()
        })
    }

    /// What is said of an endpoint: registrations, then overrides, then votes.
    pub fn of_endpoint(
        &self,
        upstream: &str,
        endpoint: &EndpointAddr,
    ) -> impl Iterator<Item = &Fact> + use<'_> {
        self.ranges(upstream, endpoint, |key, start| {
            key.endpoint() == start.endpoint() && key.upstream() == start.upstream()
        })
    }

    /// The sum of everything: equal at peers that know the same (and, but for one chance in 2^64, only there).
    pub fn root(&self) -> u64 {
        self.digests.root()
    }

    /// The sum of each group of buckets.
    pub fn groups(&self) -> [u64; GROUPS] {
        self.digests.groups()
    }

    /// The sum of each bucket of a group; zeros for a group that does not exist.
    pub fn buckets(&self, group: usize) -> [u64; BUCKETS_OF_GROUP] {
        self.digests.buckets(group)
    }

    /// The facts of a bucket in the order of their keys; none for a bucket that does not exist. Takes the time of
    /// these facts, not of all.
    pub fn in_bucket(&self, bucket: u16) -> impl ExactSizeIterator<Item = &Fact> + Clone {
        self.buckets.of(bucket).iter().map(Held::fact)
    }

    /// The facts of a bucket, with their hashes and lengths.
    fn hashed_in_bucket(&self, bucket: u16) -> impl ExactSizeIterator<Item = &Hashed> + Clone {
        self.buckets.of(bucket).iter().map(|held| &*held.0)
    }

    /// The facts from the first of each kind on, for as long as they belong to it.
    fn ranges(
        &self,
        upstream: &str,
        endpoint: &EndpointAddr,
        belongs: fn(&Key, &Key) -> bool,
    ) -> impl Iterator<Item = &Fact> + use<'_> {
        let name = self.upstreams.get_key_value(upstream);
        let starts = name.map(|(name, _)| starts(name, endpoint));
        starts.into_iter().flatten().flat_map(move |start| {
            let range = self.by_key.range::<Key, _>(&start..).map(Held::fact);
            range.take_while(move |fact| {
                // Of the next kind's first upstream and endpoint, too, the names may be the same.
                discriminant(&fact.key) == discriminant(&start) && belongs(&fact.key, &start)
            })
        })
    }

    /// A thousand facts of one upstream have one name, not a thousand.
    fn share_name(&self, key: &mut Key) {
        let (Key::Registration { upstream, .. }
        | Key::Override { upstream, .. }
        | Key::Vote { upstream, .. }) = key
        else {
            return;
        };
        if let Some((name, _)) = self.upstreams.get_key_value(upstream) {
            *upstream = name.clone();
        }
    }

    /// Puts in its places what is in none.
    fn insert(&mut self, held: Held) {
        self.digests.add(held.0.bucket, held.0.hash);
        self.hashes.insert(held.0.hash);
        *self.counts.of(held.fact()) += 1;
        self.origins.add(held.fact().origin);
        if let Some(name) = held.fact().key.upstream() {
            *self.upstreams.entry(name.clone()).or_default() += 1;
        }
        self.buckets.of_mut(held.0.bucket).insert(held.clone());
        self.by_key.insert(held);
    }

    fn remove(&mut self, key: &Key) -> Option<Held> {
        let held = self.by_key.take(key)?;
        self.buckets.of_mut(held.0.bucket).remove(key);
        self.digests.subtract(held.0.bucket, held.0.hash);
        self.hashes.remove(&held.0.hash);
        *self.counts.of(held.fact()) -= 1;
        self.origins.remove(held.fact().origin);
        if let Some(name) = held.fact().key.upstream()
            && let Some(facts) = self.upstreams.get_mut(name)
        {
            *facts -= 1;
            if *facts == 0 {
                self.upstreams.remove(name);
            }
        }
        Some(held)
    }
}

/// Of all endpoints the first in order.
const FIRST: EndpointAddr = EndpointAddr::Ip(SocketAddr::new(
    std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    0,
));

/// The first key of each kind that may be of the endpoint.
fn starts(upstream: &Name, endpoint: &EndpointAddr) -> [Key; 3] {
    let (upstream, endpoint) = (|| upstream.clone(), || endpoint.clone());
    [
        Key::Registration {
            upstream: upstream(),
            endpoint: endpoint(),
            registrar: PeerId(0),
        },
        Key::Override {
            upstream: upstream(),
            endpoint: endpoint(),
            part: Part::Member,
        },
        Key::Vote {
            upstream: upstream(),
            endpoint: endpoint(),
            prober: PeerId(0),
        },
    ]
}

// === impl Counts ===

impl Counts {
    /// All of them.
    pub fn total(&self) -> usize {
        self.peers + self.registrations + self.overrides + self.votes + self.tombstones
    }

    fn of(&mut self, fact: &Fact) -> &mut usize {
        if fact.value == Value::Gone {
            return &mut self.tombstones;
        }
        match fact.key {
            Key::Peer(_) => &mut self.peers,
            Key::Registration { .. } => &mut self.registrations,
            Key::Override { .. } => &mut self.overrides,
            Key::Vote { .. } => &mut self.votes,
        }
    }
}

// === impl Held ===

impl Held {
    fn fact(&self) -> &Fact {
        &self.0.fact
    }
}

impl Borrow<Key> for Held {
    fn borrow(&self) -> &Key {
        &self.0.fact.key
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.fact.key.cmp(&other.0.fact.key)
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.0.fact.key == other.0.fact.key
    }
}

impl Eq for Held {}

// === impl Buckets ===

impl Buckets {
    fn of(&self, bucket: u16) -> &BTreeSet<Held> {
        const NONE: &BTreeSet<Held> = &BTreeSet::new();
        self.0.get(usize::from(bucket)).unwrap_or(NONE)
    }

    fn of_mut(&mut self, bucket: u16) -> &mut BTreeSet<Held> {
        // `bucket_of` is below `BUCKETS`.
        &mut self.0[usize::from(bucket)]
    }
}

impl Default for Buckets {
    fn default() -> Self {
        Self(vec![BTreeSet::new(); BUCKETS].into())
    }
}

#[cfg(test)]
mod tests;
