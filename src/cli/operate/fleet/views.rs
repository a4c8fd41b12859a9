//! What of the server's answers is shown to people, as in [`super::super::views`].

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(super) struct Fleet {
    pub(super) name: String,
    pub(super) peer: String,
    pub(super) address: String,
    pub(super) members: Counts,
    pub(super) facts: BTreeMap<String, u64>,
    pub(super) tombstones: u64,
    pub(super) digest: String,
    pub(super) sent: BTreeMap<String, Traffic>,
    pub(super) received: BTreeMap<String, Traffic>,
    pub(super) dirty: u64,
    pub(super) lag_ms: Option<u64>,
    pub(super) last_sync: Option<Sync>,
    pub(super) duties: Duties,
    /// Of a server that does not tell: no.
    #[serde(default)]
    pub(super) learning: bool,
    #[serde(default)]
    pub(super) aside: Option<Aside>,
    pub(super) held: Vec<Held>,
    pub(super) quarantined: u64,
    pub(super) quarantine: Vec<Quarantined>,
    pub(super) refused: BTreeMap<String, u64>,
    pub(super) clock_skew_ms: BTreeMap<String, i64>,
    pub(super) stall_seconds: f64,
    #[serde(default)]
    pub(super) stopped: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Counts {
    pub(super) alive: u64,
    pub(super) suspect: u64,
    pub(super) down: u64,
    /// Of a server that does not tell them apart: 0.
    #[serde(default)]
    pub(super) left: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Traffic {
    pub(super) bytes: u64,
    pub(super) messages: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Sync {
    pub(super) peer: String,
    pub(super) at_unix_ms: u64,
    pub(super) facts_sent: u64,
    pub(super) facts_received: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Duties {
    pub(super) mine: u64,
    pub(super) of: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Aside {
    pub(super) count: u64,
    pub(super) since_unix_ms: u64,
    pub(super) words: Vec<AsideWord>,
}

#[derive(Debug, Deserialize)]
pub(super) struct AsideWord {
    pub(super) upstream: String,
    pub(super) endpoint: String,
    pub(super) what: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Held {
    pub(super) upstream: String,
    pub(super) endpoint: String,
    pub(super) what: String,
    pub(super) by: String,
    pub(super) since_unix_ms: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Quarantined {
    pub(super) what: String,
    pub(super) from: String,
    pub(super) why: String,
    pub(super) at_unix_ms: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Member {
    pub(super) peer: String,
    pub(super) address: String,
    pub(super) state: String,
    pub(super) this: bool,
    pub(super) zone: Option<String>,
    pub(super) version: Option<String>,
    pub(super) config: Option<String>,
    pub(super) since_unix_ms: u64,
    pub(super) last_contact_ms: Option<u64>,
    pub(super) skew_ms: Option<i64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Diff {
    pub(super) peer: String,
    pub(super) address: String,
    pub(super) equal: bool,
    pub(super) ours: u64,
    pub(super) theirs: u64,
    pub(super) differences: Vec<Difference>,
    pub(super) more: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Difference {
    pub(super) fact: String,
    pub(super) ours: Option<Known>,
    pub(super) theirs: Option<Known>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Known {
    pub(super) what: String,
    pub(super) origin: String,
    pub(super) at_unix_ms: u64,
}
