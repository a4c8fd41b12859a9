//! What a peer has counted.

use std::collections::BTreeMap;

use crate::base::clock::Nanos;

/// What it has counted.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// What was sent, without headers of IP, UDP and TCP: membership, facts, streams.
    pub sent: [Count; 3],
    /// What was received and understood, likewise.
    pub received: [Count; 3],
    /// Datagrams refused, by why.
    pub refused: BTreeMap<&'static str, u64>,
    /// Facts refused, by why.
    pub flaws: BTreeMap<&'static str, u64>,
    /// Facts that were news.
    pub merged: u64,
    /// Comparisons that found something different.
    pub synced: u64,
    /// Comparisons that found nothing.
    pub equal: u64,
    /// Comparisons that did not.
    pub unsynced: u64,
    /// How long this process stood still, in all.
    pub stalled: Nanos,
    /// How old the last fact was when it came here, in milliseconds; `None` = none has come.
    pub lag_ms: Option<u64>,
}

/// What went one way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// Bytes.
    pub bytes: u64,
    /// Datagrams, or messages of streams.
    pub messages: u64,
}

// === impl Count ===

impl Count {
    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.messages += 1;
    }
}
