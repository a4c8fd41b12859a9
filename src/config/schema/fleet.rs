//! The keys of `[fleet]`.

use schemars::JsonSchema;

use super::{Duration, OneOrMore, Ratio};

/// Peers that act as one: what one is told of endpoints, or finds out, all know.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Fleet {
    /// Peers of other names are not listened to.
    name: String,
    /// Address and port, UDP and TCP: "10.0.0.5:7946", ":7946" (every address).
    bind: String,
    /// Where the others reach this one. Default: as `bind`, or, where that is every address, the one that
    /// this machine has towards its seeds.
    advertise: Option<String>,
    /// Whom to ask for the others: "10.0.0.6:7946", "dns:isobar.internal:7946". At most 64.
    seeds: Option<OneOrMore>,
    /// File of the fleet's secret, the same at every peer, made by `isobar fleet keygen`; a secret a line,
    /// the first is used, the others are accepted.
    secret_file: String,
    /// Folder for this peer's identity and what it knows. Default: as `state_dir` of `process`.
    state_dir: Option<String>,
    /// Where this peer stands. Default: as `zone` of `process`.
    zone: Option<String>,
    /// Who checks endpoints.
    health: Option<Health>,
    /// How much a single peer may do.
    guard: Option<Guard>,
    /// Where endpoints say themselves that they are there. Default: nowhere.
    register: Option<Register>,
}

/// Who checks endpoints.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Health {
    /// How many peers check each endpoint; 0 lets each peer check every endpoint for itself.
    #[schemars(range(min = 0, max = 9), extend("default" = 3))]
    probers: Option<u32>,
}

/// How much a single peer may do.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Guard {
    /// The share of an upstream's endpoints that the word of one peer takes away, 1% to 100%.
    #[schemars(extend("default" = "50%"))]
    max_remove: Option<Ratio>,
    /// A peer whose clock is off by more is not believed, 100ms to 10m.
    #[schemars(extend("default" = "5s"))]
    max_clock_skew: Option<Duration>,
}

/// Where endpoints say themselves that they are there.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Register {
    /// Address and port that it is served at, over HTTP.
    bind: String,
    /// File of the tokens that endpoints show, one a line: any of them will do.
    token_file: String,
    /// The longest `ttl` that an endpoint may ask for, 1s to 1d.
    #[schemars(extend("default" = "1h"))]
    max_ttl: Option<Duration>,
}
