//! The route table: which route answers a request. Pure.
//!
//! # The order: the most specific rule wins
//!
//! Every matcher a rule has must hold. Of the rules that hold, the first difference in this list
//! decides; the length of a string and the place in the file never do before it.
//!
//! 1. **Host**: exact, then the wildcard with more labels (`*.a.example.com` before
//!    `*.example.com`), then rules without a host.
//! 2. **Path**: exact, then `path_regex`, then the prefix with more segments (`/v1/users/*` before
//!    `/v1/*` before `/*`), then rules without a path.
//! 3. **Method**: a rule with methods before one without.
//! 4. **Headers**: more header matchers first.
//! 5. **Query**: more query matchers first.
//! 6. **Client**: the longest network that holds the client's address first (as in a routing
//!    table), then rules without networks.
//! 7. **File order**: the earlier rule. [`RouteTable::shadowed`] tells when the later one can never
//!    win.
//!
//! The walk goes back: when the exact host's rules all fail on a later matcher, the rules of the
//! wildcards are tried, then those without a host; within one host likewise from exact path down to
//! no path. A rule on `*.example.com` catches what the rules on `shop.example.com` leave.
//! So a rule never has to be repeated, and no rule hides another by anything but the list above.
//!
//! Why a regex stands before prefixes: beside `/*`, which nearly every host has, a regex that lost
//! to prefixes would never be reached; nginx (regex locations override prefix locations) and the
//! Gateway API implementations Contour and Envoy Gateway rank it the same way. Regexes have no
//! measurable specificity, so all of one host are equals: matchers 3-6 decide between them, then
//! the file. Steps 3 to 5 and their order are those of the Gateway API's `HTTPRoute`.
//!
//! # What matches what
//!
//! - Host: ASCII case is folded, one trailing dot is dropped, on both sides. `*.example.com` needs
//!   one label or more in front and so does not match `example.com`. An IPv6 literal is matched as
//!   text, with its brackets. A host above [`HOST_BYTES_MAX`] bytes has only the rules without a
//!   host. The caller strips the port.
//! - Path: bytes, case-sensitive, as the caller gives it (normalise before). `/v1/*` matches `/v1`,
//!   `/v1/` and `/v1/x`, never `/v1x`. `/*` matches every path, `*` of `OPTIONS *` included.
//! - Method: equal to one of the list; `GET` does not stand for `HEAD`.
//! - Header: any value of the field; a regex never matches a value that is not UTF-8.
//! - Query: any parameter of that name; names and values are compared percent-decoded, `+` is a
//!   space, a broken escape stands for itself. A parameter without `=` has the value `""`.
//! - Client: an IPv4-mapped address is its IPv4 address, on both sides; a client without an address
//!   (Unix socket) is in no network.
//!
//! # Cost
//!
//! One hash of the folded host, one more for each label count that some wildcard has; one descent
//! of a radix tree by the bytes of the path; then only the rules whose host and path fit. Nothing
//! depends on the number of routes, nothing allocates (but for a query regex on a value with
//! escapes), nothing locks. A regex that starts `^/literal` is tried only for paths that start so;
//! one without such a start is tried for every path of its host. Equal texts are compiled once.
//! One that is anchored and made of literals and runs of characters (`^/u/[0-9]+/edit$`) is decided
//! without a regex machine, by a few steps over the path; thousands of others do not fit a cache, and
//! then one match costs microseconds (`cargo bench --bench route`). [`regex::Regex`] keeps its scratch
//! space in a pool whose first thread is served fastest: give each worker a clone of the table when
//! such regexes matter.
//!
//! ```
//! use std::sync::Arc;
//! use isobar::route::{HeaderLookup, HostPattern, Miss, PathPattern, Request, RouteTable, Rule};
//!
//! #[derive(Debug)]
//! struct NoHeaders;
//! impl HeaderLookup for NoHeaders {
//!     fn any(&self, _: &str, _: &mut dyn FnMut(&[u8]) -> bool) -> bool {
//!         false
//!     }
//! }
//!
//! let shop = Rule {
//!     hosts: vec![HostPattern::Exact("shop.example.com".into())],
//!     path: Some(PathPattern::Prefix("/v1".into())),
//!     ..Rule::default()
//! };
//! let any = Rule { hosts: vec![HostPattern::Wildcard("example.com".into())], ..Rule::default() };
//! let table = RouteTable::build(&[Arc::from("web")], vec![(any, "any"), (shop, "shop")]);
//!
//! let mut request = Request {
//!     listener: 0,
//!     host: "Shop.Example.com",
//!     path: "/v1/cart",
//!     query: None,
//!     method: "GET",
//!     client: None,
//!     headers: &NoHeaders,
//! };
//! let found = table.find(&request).expect("the shop's route");
//! assert_eq!((*found.action, found.rest), ("shop", "/cart"));
//! request.path = "/v2";
//! assert_eq!(*table.find(&request).expect("the wildcard's route").action, "any");
//! request.host = "example.org";
//! assert_eq!(table.find(&request).unwrap_err(), Miss::NoHost);
//! ```

mod build;
mod client;
mod explain;
mod host;
mod listeners;
mod literal;
mod order;
mod path;
mod predicate;
mod shadow;
mod steps;
mod table;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

pub use explain::{Candidate, Explanation, Verdict};
pub use host::{HOST_BYTES_MAX, HostLevel};
pub use order::Step;
pub use path::PathLevel;
pub use predicate::Lost;
pub use shadow::Shadow;
pub use table::{Match, Miss, RouteTable};

/// What one route matches. Every matcher that is present must hold; an absent one matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Listener names; empty = every listener.
    pub listeners: Vec<Arc<str>>,
    /// Any of these; empty = every host.
    pub hosts: Vec<HostPattern>,
    /// `None` = every path.
    pub path: Option<PathPattern>,
    /// Any of these; empty = every method. Case-sensitive (RFC 9110 section 9.1).
    pub methods: Vec<http::Method>,
    /// All of these.
    pub headers: Vec<(http::HeaderName, ValuePattern)>,
    /// All of these query parameters.
    pub query: Vec<(String, ValuePattern)>,
    /// Client address in any of these networks; empty = every client.
    pub clients: Vec<IpNet>,
}

/// A host matcher; ports are ignored, case is folded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `example.com`
    Exact(String),
    /// `*.example.com`: one or more labels in front; stored as `example.com`. An empty suffix (`*`)
    /// is every host, as if the rule had none.
    Wildcard(String),
}

/// A path matcher.
#[derive(Clone, Debug)]
pub enum PathPattern {
    /// `/v1`
    Exact(String),
    /// `/v1/*`: `/v1` itself and everything below it, by whole segments; stored as `/v1`, and `/*`
    /// as the empty string.
    Prefix(String),
    /// `path_regex`, matched against the whole path (unanchored unless it says so). Compiled by
    /// `Regex::new`: the table reads the pattern's text, flags belong in it (`(?i)`), not in a
    /// `RegexBuilder`.
    Regex(regex::Regex),
}

/// A header or query matcher.
#[derive(Clone, Debug)]
pub enum ValuePattern {
    /// Equal.
    Exact(String),
    /// `""`: present with any value.
    Present,
    /// `"~…"`
    Regex(regex::Regex),
}

/// What is known about a request when it is routed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Index of the listener in the table's own list.
    pub listener: usize,
    /// Host without port, any case; empty when unknown.
    pub host: &'a str,
    /// Absolute path, without query.
    pub path: &'a str,
    /// Query without `?`.
    pub query: Option<&'a str>,
    /// Method.
    pub method: &'a str,
    /// The client's address (after `trusted_proxies`); `None` for Unix sockets.
    pub client: Option<IpAddr>,
    /// Header lookup.
    pub headers: &'a dyn HeaderLookup,
}

/// Looks up header fields by lower-case name.
pub trait HeaderLookup: std::fmt::Debug {
    /// Calls `f` with each value of `name` until it returns true; says whether it did.
    fn any(&self, name: &str, f: &mut dyn FnMut(&[u8]) -> bool) -> bool;
}

// === impl PathPattern ===

/// Regular expressions are equal if their texts are: the table reads nothing else of them.
impl PartialEq for PathPattern {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) | (Self::Prefix(a), Self::Prefix(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            (Self::Exact(_) | Self::Prefix(_) | Self::Regex(_), _) => false,
        }
    }
}

impl Eq for PathPattern {}

// === impl ValuePattern ===

/// As for [`PathPattern`].
impl PartialEq for ValuePattern {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) => a == b,
            (Self::Present, Self::Present) => true,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            (Self::Exact(_) | Self::Present | Self::Regex(_), _) => false,
        }
    }
}

impl Eq for ValuePattern {}
