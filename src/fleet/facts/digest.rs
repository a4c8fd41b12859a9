//! Digests: what two peers compare instead of everything that they know.
//!
//! Each fact has a hash of its encoding and, by the hash of its key, a bucket. A digest is the sum of hashes
//! modulo 2^64: it does not depend on the order, and a fact goes as easily as it comes. Two stores that differ
//! have one sum with a chance of 2^-64; the sums guard against loss, not against a peer that lies (it can
//! as well say anything else that it may say).

use crate::base::hash::hash;
use crate::fleet::fact::Key;

/// How many buckets there are: at 90,000 facts 22 each, so that a difference costs a few dozen facts.
pub const BUCKETS: usize = GROUPS * BUCKETS_OF_GROUP;

/// How many groups: their sums fit half a datagram.
pub const GROUPS: usize = 64;

/// How many buckets a group has.
pub const BUCKETS_OF_GROUP: usize = 64;

/// The bucket of a key, the same at every peer.
pub fn bucket_of(key: &Key) -> u16 {
    (hash_of(key) % BUCKETS as u64) as u16
}

/// The hash of a key, the same at every peer.
pub(super) fn hash_of(key: &Key) -> u64 {
    // Keys that were checked can be encoded. All that cannot fall into one bucket, as nothing that is held.
    hash(&postcard::to_allocvec(key).unwrap_or_default())
}

/// The sums of all buckets, kept while facts come and go.
#[derive(Debug)]
pub(super) struct Digests {
    root: u64,
    groups: [u64; GROUPS],
    buckets: Box<[[u64; BUCKETS_OF_GROUP]]>,
}

// === impl Digests ===

impl Digests {
    pub(super) fn root(&self) -> u64 {
        self.root
    }

    pub(super) fn groups(&self) -> [u64; GROUPS] {
        self.groups
    }

    pub(super) fn buckets(&self, group: usize) -> [u64; BUCKETS_OF_GROUP] {
        let buckets = self.buckets.get(group);
        buckets.copied().unwrap_or([0; BUCKETS_OF_GROUP])
    }

    pub(super) fn add(&mut self, bucket: u16, hash: u64) {
        self.each(bucket, |sum| sum.wrapping_add(hash));
    }

    pub(super) fn subtract(&mut self, bucket: u16, hash: u64) {
        self.each(bucket, |sum| sum.wrapping_sub(hash));
    }

    /// `bucket` is one of [`bucket_of`].
    fn each(&mut self, bucket: u16, change: impl Fn(u64) -> u64) {
        let (group, bucket) = (
            usize::from(bucket) / BUCKETS_OF_GROUP,
            usize::from(bucket) % BUCKETS_OF_GROUP,
        );
        for sum in [
            &mut self.root,
            &mut self.groups[group],
            &mut self.buckets[group][bucket],
        ] {
            *sum = change(*sum);
        }
    }
}

impl Default for Digests {
    fn default() -> Self {
        Self {
            root: 0,
            groups: [0; GROUPS],
            buckets: vec![[0; BUCKETS_OF_GROUP]; GROUPS].into(),
        }
    }
}
