//! What operators are shown: never the live types, so that an answer is a picture of one moment.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::upstream::overrides::EndpointLayers;

/// The server at a glance.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Version of the program.
    pub version: &'static str,
    /// Process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// `starting`, `ready` or `draining`.
    pub state: &'static str,
    /// Worker threads.
    pub workers: usize,
    /// The configuration served.
    pub config: ConfigView,
    /// In the order of the file.
    pub listeners: Vec<ListenerView>,
    /// In the order of the file.
    pub upstreams: Vec<UpstreamSummary>,
    /// Endpoints of which an operator has said something.
    pub overrides: usize,
    /// What was removed and has not ended yet.
    pub leaving: LeavingView,
}

/// The configuration served.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigView {
    /// The files it was read from, the main one first; none for a server that an embedding program
    /// configures.
    pub files: Vec<String>,
    /// Hash of their texts, 16 hexadecimal digits.
    pub hash: String,
    /// Counts the configurations of this process.
    pub version: u64,
    /// Since when it is served, in milliseconds since 1970.
    pub loaded_at_unix_ms: u64,
    /// The last attempt to replace it, if that failed.
    pub last_error: Option<FailureView>,
    /// Settings that the files have and only a restart or an upgrade takes up.
    pub needs_restart: Vec<String>,
}

/// A reload that was refused.
#[derive(Clone, Debug, Serialize)]
pub struct FailureView {
    /// When, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// What was wrong: the rendered diagnostics.
    pub text: String,
}

/// A listener.
#[derive(Clone, Debug, Serialize)]
pub struct ListenerView {
    /// Its name.
    pub name: String,
    /// What it serves: `http`, `tcp` or `udp`.
    pub protocol: &'static str,
    /// Whom its connections (tcp) or datagrams (udp) go to; none for one of requests, which have
    /// routes, or where only `passthrough` and `detect` name somebody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Where it listens.
    pub addresses: Vec<String>,
    /// Open client connections.
    pub connections: usize,
    /// What it serves by TLS; none for one that speaks clear text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateView>,
}

/// A certificate that a listener serves.
#[derive(Clone, Debug, Serialize)]
pub struct CertificateView {
    /// DNS names and addresses that it is for.
    pub names: Vec<String>,
    /// Whose it is, as RFC 4514 writes it.
    pub subject: String,
    /// Kind of its key: `ecdsa`, `rsa`, `ed25519` or `other`.
    pub key: &'static str,
    /// Until when it holds, in milliseconds since 1970.
    pub not_after_unix_ms: i64,
    /// SHA-256 of it, in hex.
    pub fingerprint: String,
    /// Its files have changed and cannot be served, so it is served on.
    pub renewal_failing: bool,
}

/// An upstream at a glance.
#[derive(Clone, Debug, Serialize)]
pub struct UpstreamSummary {
    /// Its name.
    pub name: String,
    /// Members.
    pub endpoints: usize,
    /// Members that may be picked.
    pub ready: usize,
    /// Members that checks found down.
    pub down: usize,
    /// No member is up, and all are used all the same.
    pub failing_open: bool,
    /// Exchanges in flight.
    pub in_flight: u64,
}

/// What is on its way out.
#[derive(Clone, Debug, Serialize)]
pub struct LeavingView {
    /// Listeners whose connections drain.
    pub listeners: usize,
    /// Endpoints whose exchanges drain.
    pub endpoints: usize,
}

/// An upstream with all that is known of its endpoints.
#[derive(Clone, Debug, Serialize)]
pub struct UpstreamView {
    /// Its name.
    pub name: String,
    /// The policy's name.
    pub policy: String,
    /// Whether operators may add and remove endpoints.
    pub dynamic: bool,
    /// Counts the sets of members that were published.
    pub generation: u64,
    /// No endpoint is up, and all are used all the same.
    pub failing_open: bool,
    /// The state of its breaker: `closed`, `half-open` or `open`; `None` = it has none.
    pub breaker: Option<&'static str>,
    /// Exchanges that wait for an endpoint with room.
    pub waiting: usize,
    /// In the order of the file, then those that operators added.
    pub endpoints: Vec<EndpointView>,
}

/// An endpoint in its three layers: file, operator, observation.
#[derive(Clone, Debug, Serialize)]
pub struct EndpointView {
    /// What file and operator say, and which wins.
    #[serde(flatten)]
    pub layers: EndpointLayers,
    /// What the workers see; `None` = it is no member.
    pub observed: Option<Observed>,
}

/// What the workers see of an endpoint.
#[derive(Clone, Debug, Serialize)]
pub struct Observed {
    /// Whether new exchanges may go there.
    pub ready: bool,
    /// What checks found: `up`, `down`, or `unchecked`.
    pub health: &'static str,
    /// Since when, and why; `None` = it is what it was taken for at first.
    pub since: Option<SinceView>,
    /// How the last check went; `None` = none has ended.
    pub last_check: Option<LastCheckView>,
    /// It is left alone for what requests say of it; `None` = it is not.
    pub ejected: Option<EjectedView>,
    /// What it says of itself, in the words of its agent; `None` = nothing that changes anything.
    pub says: Option<String>,
    /// Exchanges in flight.
    pub in_flight: u64,
    /// Open connections to it, idle ones included.
    pub connections: i64,
    /// Requests that ended, by outcome.
    pub requests: BTreeMap<&'static str, u64>,
}

/// Since when an endpoint is up or down.
#[derive(Clone, Debug, Serialize)]
pub struct SinceView {
    /// In milliseconds since 1970.
    pub at_unix_ms: u64,
    /// What checks found then.
    pub why: String,
}

/// Why an endpoint is left alone.
#[derive(Clone, Debug, Serialize)]
pub struct EjectedView {
    /// When that ends, in milliseconds since 1970.
    pub until_unix_ms: u64,
    /// What requests said of it.
    pub why: String,
}

/// How a check went.
#[derive(Clone, Debug, Serialize)]
pub struct LastCheckView {
    /// When it ended, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// How it went, as the metric has it.
    pub result: &'static str,
    /// The same for people; `None` = it passed.
    pub text: Option<String>,
    /// How long it took.
    pub took_ms: u64,
}
