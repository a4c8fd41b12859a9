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
    /// How the last check of this process went; `None` = none has ended, or others check it.
    pub last_check: Option<LastCheckView>,
    /// The peers of the fleet that check it, this one among them if it does; empty = no fleet shares that.
    pub checked_by: Vec<String>,
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

/// The fleet as this peer knows it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FleetView {
    /// Its name.
    pub name: String,
    /// This peer, 16 hexadecimal digits.
    pub peer: String,
    /// Where the others reach it.
    pub address: String,
    /// How many peers there are, this one among them.
    pub members: MemberCounts,
    /// Facts that say something, by kind: `override`, `peer`, `registration`, `vote`.
    pub facts: BTreeMap<&'static str, u64>,
    /// Facts that say that something is no more.
    pub tombstones: u64,
    /// Digest of all of them, 16 hexadecimal digits: equal at peers that know the same.
    pub digest: String,
    /// What was sent, by kind: `facts`, `membership`, `sync`.
    pub sent: BTreeMap<&'static str, TrafficView>,
    /// What was received and understood, by kind.
    pub received: BTreeMap<&'static str, TrafficView>,
    /// Facts that are still to be pushed to other peers.
    pub dirty: u64,
    /// How old the newest fact was when it came; `None` = none has come yet.
    pub lag_ms: Option<u64>,
    /// The last time that what is known was compared with another peer's; `None` = never yet.
    pub last_sync: Option<SyncView>,
    /// Which endpoints this peer checks.
    pub duties: DutiesView,
    /// Whether it has met others and has still to compare what it knows with one that was there before it: what one
    /// peer says of weights and additions has effect without a bound until then.
    pub learning: bool,
    /// What operators said before this peer was away for longer than the fleet remembers: it holds here alone, and
    /// nobody is told, until it is known whether it was taken back. `None` = there is nothing of the kind.
    pub aside: Option<AsideView>,
    /// What is said and has no effect here, as it would take too much away at once.
    pub held: Vec<HeldView>,
    /// Facts that were not taken, since the start.
    pub quarantined: u64,
    /// The last of them.
    pub quarantine: Vec<QuarantineView>,
    /// Datagrams that were not listened to, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// How far the clocks of other peers are ahead of this one, in milliseconds, by peer.
    pub clock_skew_ms: BTreeMap<String, i64>,
    /// For how long this peer has not come to its work, in all, as far as that was noticed.
    pub stall_seconds: f64,
    /// Why its part in the fleet has ended by a fault of isobar; `None` = it has not.
    pub stopped: Option<String>,
}

/// How many peers there are.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct MemberCounts {
    /// That answer, this one among them.
    pub alive: u64,
    /// That have not answered lately.
    pub suspect: u64,
    /// That were found not to answer any more, and are not forgotten yet.
    pub down: u64,
    /// That said that they go, and are not forgotten yet.
    pub left: u64,
}

/// What went one way.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct TrafficView {
    /// Bytes, without headers of UDP and TCP.
    pub bytes: u64,
    /// Datagrams, or conversations over TCP.
    pub messages: u64,
}

/// A comparison with another peer.
#[derive(Clone, Debug, Serialize)]
pub struct SyncView {
    /// With whom.
    pub peer: String,
    /// When it ended, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// Facts that the other did not have.
    pub facts_sent: u64,
    /// Facts that this peer did not have.
    pub facts_received: u64,
}

/// Which endpoints a peer checks.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct DutiesView {
    /// Those that it checks.
    pub mine: u64,
    /// All that are checked.
    pub of: u64,
}

/// What is kept aside.
#[derive(Clone, Debug, Serialize)]
pub struct AsideView {
    /// How many words there are.
    pub count: u64,
    /// When this peer was last here, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// The first of them.
    pub words: Vec<AsideWordView>,
}

/// Something that an operator said and that is kept aside.
#[derive(Clone, Debug, Serialize)]
pub struct AsideWordView {
    /// Of which upstream.
    pub upstream: String,
    /// Of which endpoint.
    pub endpoint: String,
    /// What, by whom and why: `drain (uid:0: kernel update)`.
    pub what: String,
}

/// What is said and has no effect yet.
#[derive(Clone, Debug, Serialize)]
pub struct HeldView {
    /// Of which upstream.
    pub upstream: String,
    /// Of which endpoint.
    pub endpoint: String,
    /// What: `drain`, `disable`, `leave`, `registration gone`.
    pub what: String,
    /// Which peer says it.
    pub by: String,
    /// Since when it is held, in milliseconds since 1970.
    pub since_unix_ms: u64,
}

/// A fact that was not taken.
#[derive(Clone, Debug, Serialize)]
pub struct QuarantineView {
    /// Which.
    pub what: String,
    /// Which peer it came from.
    pub from: String,
    /// Why it was not taken.
    pub why: String,
    /// When it came, in milliseconds since 1970.
    pub at_unix_ms: u64,
}

/// A peer, as this one sees it.
#[derive(Clone, Debug, Serialize)]
pub struct MemberView {
    /// 16 hexadecimal digits.
    pub peer: String,
    /// Where it is reached.
    pub address: String,
    /// `alive`, `suspect`, `down` (it was found not to answer) or `left` (it said that it goes).
    pub state: &'static str,
    /// Whether it is the one that was asked.
    pub this: bool,
    /// Where it stands; `None` = it does not say.
    pub zone: Option<String>,
    /// Its version; `None` = it has not said yet.
    pub version: Option<String>,
    /// Hash of the configuration that it serves, 16 hexadecimal digits; `None` = it has not said yet.
    pub config: Option<String>,
    /// Since when it is in this state, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// How long ago it was heard of by itself; `None` = never, or it is the one that was asked.
    pub last_contact_ms: Option<u64>,
    /// How far its clock is ahead of this peer's; `None` = it is not known.
    pub skew_ms: Option<i64>,
}

/// What two peers know differently.
#[derive(Clone, Debug, Serialize)]
pub struct FleetDiffView {
    /// The other.
    pub peer: String,
    /// Where it is.
    pub address: String,
    /// Whether they know the same.
    pub equal: bool,
    /// How many facts this peer has, tombstones among them.
    pub ours: u64,
    /// How many the other has.
    pub theirs: u64,
    /// What they know differently, not more than can be looked at.
    pub differences: Vec<DifferenceView>,
    /// How many more there are.
    pub more: u64,
}

/// A fact that two peers know differently.
#[derive(Clone, Debug, Serialize)]
pub struct DifferenceView {
    /// What it is about: `override app 10.0.0.1:80 state`.
    pub fact: String,
    /// What this peer knows; `None` = nothing.
    pub ours: Option<KnownView>,
    /// What the other knows; `None` = nothing.
    pub theirs: Option<KnownView>,
}

/// What a peer knows of something.
#[derive(Clone, Debug, Serialize)]
pub struct KnownView {
    /// What is so: `drain (uid:0: kernel update)`.
    pub what: String,
    /// Which peer said it.
    pub origin: String,
    /// When, in milliseconds since 1970.
    pub at_unix_ms: u64,
}
