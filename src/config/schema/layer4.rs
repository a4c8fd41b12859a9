//! Layer 4: the PROXY protocol, what connections begin with, flows.

use schemars::JsonSchema;

use super::resilience::Mode;
use super::{Duration, NoLimit, Off, OneOrMore};

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum DurationOrNone {
    None(NoLimit),
    Duration(Duration),
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum ProxyProtocolOrOff {
    Off(Off),
    No(#[schemars(extend("const" = false))] bool),
    Table(ProxyProtocol),
}

/// Who speaks the PROXY protocol; others are refused.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct ProxyProtocol {
    /// Networks, one or a list; who connects to a Unix socket always may. Required unless all of `bind`
    /// are such sockets.
    from: Option<OneOrMore>,
    /// Within what time the header must be there (http and tcp).
    #[schemars(extend("default" = "3s"))]
    timeout: Option<Duration>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Passthroughs {
    One(Passthrough),
    More(#[schemars(length(min = 1))] Vec<Passthrough>),
}

/// TLS connections that go to an upstream unopened.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Passthrough {
    /// Names that clients ask for, "example.com" or "*.example.com", one or a list. Default: every name,
    /// and none.
    sni: Option<OneOrMore>,
    /// Protocols that clients offer, such as "h2", one or a list. Default: whatever they offer.
    alpn: Option<OneOrMore>,
    /// Where they go.
    upstream: String,
}

/// What is spoken at a port beside TLS.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Detect {
    /// HTTP in clear text is served beside TLS (http).
    #[schemars(extend("default" = false))]
    http: Option<bool>,
    /// The upstream of connections that begin with neither TLS nor HTTP, or with nothing for `timeout`.
    /// Default: none, they end.
    other: Option<String>,
    /// For how long the first bytes are waited for.
    #[schemars(extend("default" = "3s"))]
    timeout: Option<Duration>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Flow {
    Word(FlowWord),
    Quic(QuicFlow),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum FlowWord {
    /// The client's address and port.
    Client,
    /// The QUIC connection id, of 8 bytes.
    Quic,
}

/// The QUIC connection id.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct QuicFlow {
    /// How many bytes the ids have that endpoints choose.
    #[schemars(range(min = 1, max = 20))]
    quic: u8,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum ListenerRateLimits {
    One(ListenerRateLimit),
    More(#[schemars(length(min = 1))] Vec<ListenerRateLimit>),
}

/// How often new connections or flows are taken; others are refused.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct ListenerRateLimit {
    /// Who is counted apart: "client" (the address), or "listener" for all together.
    #[schemars(extend("default" = "client"))]
    key: Option<LimitKey>,
    /// How many.
    #[schemars(range(min = 1, max = 1_000_000))]
    rate: u32,
    /// In what time.
    #[schemars(extend("default" = "1s"))]
    per: Option<Duration>,
    /// How many at once. Default: as `rate`.
    #[schemars(range(min = 1, max = 1_000_000))]
    burst: Option<u32>,
    /// Whether it refuses.
    #[schemars(extend("default" = "enforce"))]
    mode: Option<Mode>,
    /// Keys that are remembered; those heard of least recently go first.
    #[schemars(range(min = 1, max = 10_000_000), extend("default" = 100_000))]
    max_keys: Option<u32>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum LimitKey {
    Client,
    Listener,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum ProxyVersion {
    /// Text: addresses only.
    V1,
    /// Binary: addresses, and what is known besides; the only one for udp.
    V2,
    /// Nothing is told.
    Off,
}

/// What becomes of an endpoint's exchanges when checks take it down.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum OnDown {
    /// They go on.
    Keep,
    /// They end.
    Close,
}
