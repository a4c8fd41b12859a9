//! What answers which request.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::resilience::{MaxConcurrentOrCount, RateLimits, RetryOrOff};
use super::{Duration, OneOrMore};

/// What answers which request. Exactly one of upstream, split, redirect, respond.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Route {
    /// Its name in metrics and logs; derived from the matchers when left out.
    name: Option<String>,
    /// Names of listeners. Default: all.
    listeners: Option<OneOrMore>,
    /// "example.com" or "*.example.com", one or a list. Default: every host.
    host: Option<OneOrMore>,
    /// "/v1" (exactly) or "/v1/*" (it and everything below). Default: every path.
    path: Option<String>,
    /// A regular expression on the whole path, instead of `path`: "^/u/[0-9]+$".
    path_regex: Option<String>,
    /// "GET" or a list. Default: every method.
    method: Option<OneOrMore>,
    /// All of these header fields: exact value, "~regex", or "" for present.
    header: Option<BTreeMap<String, String>>,
    /// All of these query parameters: exact value, "~regex", or "" for present.
    query: Option<BTreeMap<String, String>>,
    /// The client's address is in one of these networks. Default: every client.
    client: Option<OneOrMore>,
    /// Send it to this upstream.
    upstream: Option<String>,
    /// Send it to one of several upstreams, by weight.
    split: Option<Vec<Share>>,
    /// Answer with a redirect.
    redirect: Option<Redirect>,
    /// Answer with a fixed response.
    respond: Option<Respond>,
    /// Total deadline of the exchange. Default: none.
    timeout: Option<Duration>,
    /// What is tried again, at another endpoint: a table, or "off".
    retry: Option<RetryOrOff>,
    /// How often whom it serves: a table, or a list of them, which must all let an exchange pass.
    rate_limit: Option<RateLimits>,
    /// Most exchanges at once, all workers together. Default: no limit.
    max_concurrent: Option<MaxConcurrentOrCount>,
    /// Changes to the target and Host on the way to the endpoint.
    rewrite: Option<Rewrite>,
    /// Edits of the request head, after isobar's own fields: remove, set, add.
    request_headers: Option<HeaderEdits>,
    /// Edits of the response head: remove, set, add.
    response_headers: Option<HeaderEdits>,
}

/// One part of a split.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Share {
    /// Name of an upstream.
    upstream: String,
    /// Its share.
    #[schemars(range(min = 0, max = 1_000_000), extend("default" = 1))]
    weight: Option<u32>,
}

/// Answer with a redirect.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Redirect {
    /// Location; {rest}, {path}, {query} and {host} are filled in.
    to: String,
    /// 301, 302, 303, 307 or 308.
    #[schemars(extend("default" = 307, "enum" = [301, 302, 303, 307, 308]))]
    status: Option<u16>,
}

/// Answer with a fixed response.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Respond {
    /// Status.
    #[schemars(range(min = 200, max = 599), extend("default" = 200))]
    status: Option<u16>,
    /// Body. Default: empty.
    body: Option<String>,
    /// Content-Type.
    #[schemars(extend("default" = "text/plain; charset=utf-8"))]
    content_type: Option<String>,
}

/// Changes to the target and Host.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Rewrite {
    /// Removed from the front of the path, by whole segments.
    strip_prefix: Option<String>,
    /// Put in front of the path, after stripping.
    add_prefix: Option<String>,
    /// Replaces Host towards the endpoint.
    host: Option<String>,
}

/// Edits of a head: remove, then set, then add.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct HeaderEdits {
    /// Replace or insert.
    set: Option<BTreeMap<String, String>>,
    /// Append.
    add: Option<BTreeMap<String, OneOrMore>>,
    /// Remove.
    remove: Option<OneOrMore>,
}
