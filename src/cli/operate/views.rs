//! What of the server's answers is shown to people. Members that a newer server adds are ignored,
//! so that a client of the version before still works during an upgrade.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
pub(super) struct Status {
    pub(super) version: String,
    pub(super) pid: u32,
    pub(super) uptime_seconds: u64,
    pub(super) state: String,
    pub(super) workers: usize,
    pub(super) config: Config,
    pub(super) listeners: Vec<Listener>,
    pub(super) upstreams: Vec<Summary>,
    pub(super) overrides: usize,
    pub(super) leaving: Leaving,
}

#[derive(Debug, Deserialize)]
pub(super) struct Config {
    pub(super) files: Vec<String>,
    pub(super) hash: String,
    pub(super) version: u64,
    pub(super) loaded_at_unix_ms: u64,
    pub(super) last_error: Option<LastError>,
    pub(super) needs_restart: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct LastError {
    pub(super) at_unix_ms: u64,
    pub(super) text: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Listener {
    pub(super) name: String,
    #[serde(default = "http")]
    pub(super) protocol: String,
    pub(super) upstream: Option<String>,
    pub(super) addresses: Vec<String>,
    pub(super) connections: u64,
    #[serde(default)]
    pub(super) certificates: Vec<Certificate>,
}

/// What a listener serves of which an older process says nothing.
fn http() -> String {
    "http".to_owned()
}

#[derive(Debug, Deserialize)]
pub(super) struct Certificate {
    pub(super) names: Vec<String>,
    pub(super) subject: String,
    pub(super) key: String,
    pub(super) not_after_unix_ms: i64,
    pub(super) fingerprint: String,
    pub(super) renewal_failing: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Summary {
    pub(super) name: String,
    pub(super) endpoints: usize,
    pub(super) ready: usize,
    #[serde(default)]
    pub(super) down: usize,
    #[serde(default)]
    pub(super) failing_open: bool,
    pub(super) in_flight: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Leaving {
    pub(super) listeners: usize,
    pub(super) endpoints: usize,
}

#[derive(Debug, Deserialize)]
pub(super) struct Upstream {
    pub(super) name: String,
    pub(super) policy: String,
    pub(super) dynamic: bool,
    #[serde(default)]
    pub(super) failing_open: bool,
    pub(super) breaker: Option<String>,
    #[serde(default)]
    pub(super) waiting: usize,
    pub(super) endpoints: Vec<Endpoint>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Endpoint {
    #[serde(rename = "endpoint")]
    pub(super) address: String,
    pub(super) file: Option<File>,
    pub(super) operator: Option<Operator>,
    pub(super) effective: Option<Effective>,
    pub(super) wins: Vec<Verdict>,
    pub(super) observed: Option<Observed>,
}

#[derive(Debug, Deserialize)]
pub(super) struct File {
    pub(super) weight: u32,
}

/// What an operator says; each with a `value` and who said it, or only the latter.
#[derive(Debug, Deserialize)]
pub(super) struct Operator {
    pub(super) added: Option<Said<u32>>,
    pub(super) removed: Option<By>,
    pub(super) state: Option<Said<String>>,
    pub(super) weight: Option<Said<u32>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Said<T> {
    pub(super) value: T,
}

#[derive(Debug, Deserialize)]
pub(super) struct By {}

#[derive(Debug, Deserialize)]
pub(super) struct Effective {
    pub(super) weight: u32,
    pub(super) state: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Verdict {
    pub(super) field: String,
    pub(super) layer: String,
    pub(super) why: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Observed {
    pub(super) ready: bool,
    #[serde(default)]
    pub(super) health: String,
    pub(super) since: Option<Since>,
    pub(super) last_check: Option<LastCheck>,
    #[serde(default)]
    pub(super) checked_by: Vec<String>,
    pub(super) ejected: Option<Ejected>,
    pub(super) says: Option<String>,
    pub(super) in_flight: u64,
    pub(super) connections: i64,
    pub(super) requests: BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Since {
    pub(super) at_unix_ms: u64,
    pub(super) why: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Ejected {
    pub(super) until_unix_ms: u64,
    pub(super) why: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct LastCheck {
    pub(super) at_unix_ms: u64,
    pub(super) result: String,
    pub(super) text: Option<String>,
    pub(super) took_ms: u64,
}

/// What a change did.
#[derive(Debug, Deserialize)]
pub(super) struct Applied {
    /// As the server writes it.
    pub(super) endpoint: String,
    pub(super) text: String,
    pub(super) notes: Vec<String>,
}

/// What a reload did or would do.
#[derive(Debug, Deserialize)]
pub(super) struct Plan {
    pub(super) text: String,
    pub(super) warnings: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct History {
    pub(super) events: Vec<Event>,
    pub(super) missed: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Event {
    pub(super) at_unix_ms: u64,
    pub(super) cause: Cause,
    pub(super) text: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Cause {
    pub(super) kind: String,
    /// Of an operator.
    pub(super) owner: Option<String>,
    /// Of an operator.
    pub(super) reason: Option<String>,
    /// Of a reload: a word, or who asked for it.
    pub(super) trigger: Option<Value>,
}
