//! What is tried again, limited and given a rest.

use schemars::JsonSchema;

use super::{Duration, Off, Ratio, Size};

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum RetryOrOff {
    Retry(Retry),
    Off(Off),
}

/// What is tried again, at another endpoint.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Retry {
    /// Attempts in all, the first and hedges included.
    #[schemars(range(min = 1, max = 10), extend("default" = 3))]
    attempts: Option<u32>,
    /// After what: "connect", "reset", "timeout", a status from 400 to 599, "5xx" (500, 502, 503,
    /// 504), "grpc-unavailable" or "grpc-N". Default: connect and reset, and timeout with
    /// `per_try_timeout`.
    on: Option<Conditions>,
    /// What share of the exchanges may be tried again, beside the `retry_floor` of the upstream.
    #[schemars(extend("default" = 0.2))]
    budget: Option<Ratio>,
    /// What one attempt may take until the head of its response. Default: as the upstream's timeouts.
    per_try_timeout: Option<Duration>,
    /// When a second attempt is made beside the first: "off", a duration, or a percentile of what
    /// responses take ("p50" to "p99").
    #[schemars(extend("default" = "off"))]
    hedge_after: Option<String>,
    /// Largest request body that is kept to be sent again, at most 16MiB.
    #[schemars(extend("default" = "64KiB"))]
    body: Option<Size>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Conditions {
    One(Condition),
    More(Vec<Condition>),
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Condition {
    Status(#[schemars(range(min = 400, max = 599))] u16),
    Word(
        #[schemars(regex(
            pattern = r"^(connect|reset|timeout|5xx|[45][0-9][0-9]|grpc-([0-9]+|cancelled|deadline-exceeded|internal|resource-exhausted|unavailable))$"
        ))]
        String,
    ),
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum RateLimits {
    One(RateLimit),
    More(#[schemars(length(min = 1))] Vec<RateLimit>),
}

/// How often whom it serves: 429 above.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct RateLimit {
    /// Who is counted apart: "client" (the address), "header:NAME", "cookie:NAME", or "route" for all
    /// together.
    #[schemars(extend("default" = "client"))]
    key: Option<String>,
    /// How many exchanges.
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

/// Whether a limit refuses.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum Mode {
    /// It does.
    Enforce,
    /// It only counts what it would have refused.
    Observe,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum MaxConcurrentOrCount {
    Count(#[schemars(range(min = 1, max = 1_000_000))] u32),
    Table(MaxConcurrent),
}

/// Most exchanges at once: 503 above.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct MaxConcurrent {
    /// How many.
    #[schemars(range(min = 1, max = 1_000_000))]
    limit: u32,
    /// Whether it refuses.
    #[schemars(extend("default" = "enforce"))]
    mode: Option<Mode>,
}

/// Where exchanges wait while every endpoint has its most.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Queue {
    /// Most that wait; 0: nobody does.
    #[schemars(range(min = 0, max = 1_000_000), extend("default" = 1000))]
    length: Option<u32>,
    /// Longest wait: 503 after.
    #[schemars(extend("default" = "2s"))]
    timeout: Option<Duration>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum AdaptiveOrSwitch {
    Switch(bool),
    Table(Adaptive),
}

/// A limit of exchanges in flight for each endpoint, learnt from what they take.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Adaptive {
    /// The limit is never lower.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 3))]
    min: Option<u32>,
    /// The limit is never higher.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 1000))]
    max: Option<u32>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum OutlierOrOff {
    Outlier(Outlier),
    Off(Off),
}

/// Passive checks: what requests say of an endpoint.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Outlier {
    /// Failures in a row (5xx, reset, silence) that eject an endpoint; 0: they do not.
    #[schemars(range(min = 0, max = 1000), extend("default" = 5))]
    consecutive_failures: Option<u32>,
    /// Connects in a row that fail; 0: they do not count.
    #[schemars(range(min = 0, max = 1000), extend("default" = 3))]
    consecutive_connect_failures: Option<u32>,
    /// Share of failures. Default: it does not count.
    failure_ratio: Option<FailureRatio>,
    /// First ejection; each further one is twice as long.
    #[schemars(extend("default" = "10s"))]
    eject_for: Option<Duration>,
    /// Longest ejection.
    #[schemars(extend("default" = "5m"))]
    max_eject: Option<Duration>,
    /// Share of the endpoints that may be ejected at once.
    #[schemars(extend("default" = 0.5))]
    max_ejected: Option<Ratio>,
    /// Whether anybody is ejected.
    #[schemars(extend("default" = "enforce"))]
    mode: Option<Mode>,
}

/// Share of failures that ejects an endpoint.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct FailureRatio {
    /// Above this share, below 100 %.
    #[schemars(extend("default" = 0.5))]
    above: Option<Ratio>,
    /// Of at least so many requests.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 20))]
    min_requests: Option<u32>,
    /// In this time, from 100ms to 1h.
    #[schemars(extend("default" = "10s"))]
    window: Option<Duration>,
}

/// When the upstream as a whole is given a rest: 503 at once.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Breaker {
    /// Opens when more than this share of the attempts fails, below 100 %. Where only `max_pending`
    /// or `max_in_flight` is given, failures do not open it.
    #[schemars(extend("default" = 0.5))]
    failure_ratio: Option<Ratio>,
    /// Of at least so many attempts.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 50))]
    min_requests: Option<u32>,
    /// In this time, from 100ms to 1h.
    #[schemars(extend("default" = "10s"))]
    window: Option<Duration>,
    /// How long it stays open before trials are let through.
    #[schemars(extend("default" = "5s"))]
    open_for: Option<Duration>,
    /// Trials that must all succeed before it closes.
    #[schemars(range(min = 1, max = 1000), extend("default" = 3))]
    trials: Option<u32>,
    /// Refuses while so many exchanges wait in the queue. Default: no limit but the queue's length.
    #[schemars(range(min = 1, max = 1_000_000))]
    max_pending: Option<u32>,
    /// Refuses while so many exchanges are in flight, all endpoints together. Default: no limit.
    #[schemars(range(min = 1, max = 1_000_000))]
    max_in_flight: Option<u32>,
    /// Whether it refuses.
    #[schemars(extend("default" = "enforce"))]
    mode: Option<Mode>,
}
