//! `[[routes]]`

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::route::{HostPattern, PathPattern, Rule};

use super::super::diagnostic::{Diagnostic, Report};
use super::super::model::{Action, HeaderEdits, Name, Retry, Rewrite, Route};
use super::super::node::{Located, Node};
use super::super::reader::{Aliases, Table};
use super::super::source::At;
use super::headers::Side;
use super::{Reference, actions, address, check_name, headers, limits, matchers, reference, retry};

/// A route with its places.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) route: Route,
    pub(super) at: At<'a>,
    /// The name, if one was given.
    pub(super) name: Option<Reference<'a>>,
    pub(super) listeners: Vec<Reference<'a>>,
    pub(super) upstreams: Vec<Reference<'a>>,
    pub(super) timeout: Option<Located<'a, Duration>>,
}

/// What other programs call keys.
const ALIASES: Aliases = &[
    ("hedge", "`hedge_after`, in `retry`"),
    ("hedge_policy", "`hedge_after`, in `retry`"),
    ("limit_conn", "`max_concurrent`"),
    ("limit_req", "`rate_limit`"),
    ("num_retries", "`attempts`, in `retry`"),
    ("per_try_timeout", "`per_try_timeout`, in `retry`"),
    ("proxy_next_upstream", "`on`, in `retry`"),
    ("ratelimit", "`rate_limit`"),
    ("retries", "`retry`"),
    ("retry_on", "`on`, in `retry`"),
    ("retry_policy", "`retry`"),
];

/// Longest derived name.
const MAX_DERIVED: usize = 100;

pub(super) fn lower(node: Node<'_>) -> Option<Draft<'_>> {
    let what = match node.peek("name") {
        Some(name) => format!("route `{name}`"),
        None => "this route".to_owned(),
    };
    let table = node.table(what, "routes")?;
    table.known_as(ALIASES);
    let report = table.report;
    let name = table.text("name");
    if let Some(name) = name {
        check_name(name, report);
    }
    let listeners: Vec<_> = strings(&table, "listeners")
        .into_iter()
        .map(reference)
        .collect();
    let path = table.text("path");
    let path_regex = table.text("path_regex");
    if let (Some(path), Some(regex)) = (path, path_regex) {
        let message = format!("{} has both `path` and `path_regex`", table.what);
        let d = Diagnostic::error("two-paths", regex.at, message).related(path.at, "the other one");
        report.push(d.help("keep one: the regular expression alone can say both"));
    }
    let rule = Rule {
        listeners: listeners.iter().map(|l| l.value.clone()).collect(),
        hosts: strings(&table, "host")
            .into_iter()
            .filter_map(|t| matchers::host(t, report))
            .collect(),
        path: match (path, path_regex) {
            (Some(text), _) => matchers::path(text, report),
            (None, Some(text)) => matchers::regex(*text, text, report).map(PathPattern::Regex),
            (None, None) => None,
        },
        methods: strings(&table, "method")
            .into_iter()
            .filter_map(|t| matchers::method(t, report))
            .collect(),
        headers: matchers::values(&table, "header", "routes.header", |key| match key.parse() {
            Ok(name) => Some(name),
            Err(_) => headers::name(key, Side::Response, report),
        }),
        query: matchers::values(&table, "query", "routes.query", |key| {
            Some((*key).to_owned())
        }),
        clients: strings(&table, "client")
            .into_iter()
            .filter_map(|t| address::network(t, report))
            .collect(),
    };
    let (action, upstreams) = match actions::lower(&table) {
        Some(lowered) => lowered,
        // Reported; the configuration will not be used.
        None => (Action::Split(Vec::new()), Vec::new()),
    };
    let timeout = table.timeout("timeout");
    let rewrite_at = table.get("rewrite").map(|n| n.at);
    let (rewrite, strip) = table
        .table("rewrite", "routes.rewrite")
        .map(rewrite)
        .unwrap_or_default();
    let request_at = table.get("request_headers").map(|n| n.at);
    let request_headers = edits(
        &table,
        "request_headers",
        "routes.request_headers",
        Side::Request,
        ["routes.request_headers.set", "routes.request_headers.add"],
    );
    let response_headers = edits(
        &table,
        "response_headers",
        "routes.response_headers",
        Side::Response,
        ["routes.response_headers.set", "routes.response_headers.add"],
    );

    let retry_node = table.get("retry");
    let retry = retry_node.map_or_else(Retry::default, |node| retry::lower(node, &table, timeout));
    let rate_limits = limits::rate_limits(&table, limits::Of::Route);
    let max_concurrent = limits::max_concurrent(&table);
    table.later("mirror", "mirroring comes in a later version");

    if let Action::Redirect { to, .. } = &action
        && to.contains("{rest}")
        && !matches!(rule.path, Some(PathPattern::Prefix(_)))
        && let Some(node) = table.get("redirect")
    {
        let d = Diagnostic::warning(
            "no-effect",
            node.at,
            "`{rest}` is empty without a prefix path",
        );
        report.push(
            d.help("it is what follows a `path` that ends with `/*`; the whole path is `{path}`"),
        );
    }
    if matches!(action, Action::Redirect { .. } | Action::Respond { .. }) {
        let what = if matches!(action, Action::Redirect { .. }) {
            "redirect"
        } else {
            "respond"
        };
        for (key, at) in [
            ("timeout", timeout.map(|t| t.at)),
            ("rewrite", rewrite_at),
            ("request_headers", request_at),
            ("retry", retry_node.map(|n| n.at)),
        ] {
            if let Some(at) = at {
                let message = format!("`{key}` does nothing beside `{what}`");
                let d = Diagnostic::warning("no-effect", at, message);
                report.push(d.help("no endpoint is asked"));
            }
        }
    }
    if let Some(strip) = strip
        && let Some(PathPattern::Exact(path) | PathPattern::Prefix(path)) = &rule.path
        && !path
            .strip_prefix(*strip)
            .is_some_and(|r| r.is_empty() || r.starts_with('/'))
    {
        let message = format!("`strip_prefix` `{}` is not the beginning of `path`", *strip);
        let d = Diagnostic::warning("no-effect", strip.at, message);
        let help = format!(
            "no path of this route begins with `{}`: nothing is stripped",
            *strip
        );
        report.push(d.help(help));
    }
    let at = table.at;
    table.finish();
    let name = name.map(reference);
    let route = Route {
        name: name
            .as_ref()
            .map_or_else(|| derived_name(&rule), |n| n.value.clone()),
        rule,
        action,
        timeout: timeout.map(|t| t.value),
        rewrite,
        request_headers,
        response_headers,
        retry,
        rate_limits,
        max_concurrent,
    };
    Some(Draft {
        route,
        at,
        name,
        listeners,
        upstreams,
        timeout,
    })
}

/// `GET,POST shop.example.com/v1/*`: what the matchers say, made unique by `fit`.
fn derived_name(rule: &Rule) -> Name {
    let mut name = String::new();
    let methods: Vec<_> = rule.methods.iter().map(http::Method::as_str).collect();
    if !methods.is_empty() {
        name = methods.join(",") + " ";
    }
    match rule.hosts.first() {
        Some(HostPattern::Exact(host)) => name += host,
        Some(HostPattern::Wildcard(host)) => name = name + "*." + host,
        None => {}
    }
    if rule.hosts.len() > 1 {
        name = name + "+" + &(rule.hosts.len() - 1).to_string();
    }
    match &rule.path {
        Some(PathPattern::Exact(path)) => name += path,
        Some(PathPattern::Prefix(path)) => name = name + path + "/*",
        Some(PathPattern::Regex(regex)) => name = name + "~" + regex.as_str(),
        None => name += "/*",
    }
    Arc::from(name.chars().take(MAX_DERIVED).collect::<String>())
}

fn strings<'a>(table: &Table<'a>, key: &'static str) -> Vec<Located<'a, &'a str>> {
    let Some(node) = table.get(key) else {
        return Vec::new();
    };
    if node.list_is_empty() {
        // An empty list reads like "none" and would mean "all".
        let message = format!("`{key}` of {} is an empty list", table.what);
        table.report.push(
            node.error("empty-list", message)
                .help(format!("leave `{key}` out to match all")),
        );
    }
    node.one_or_more()
}

fn edits(
    table: &Table<'_>,
    key: &'static str,
    kind: &'static str,
    side: Side,
    kinds: [&'static str; 2],
) -> HeaderEdits {
    table
        .table(key, kind)
        .map(|t| headers::edits(t, side, kinds))
        .unwrap_or_default()
}

/// The rewrite, and where its `strip_prefix` is if it is a good one.
fn rewrite(table: Table<'_>) -> (Rewrite, Option<Located<'_, &str>>) {
    let report = table.report;
    let strip = table.text("strip_prefix");
    let strip_prefix = strip.and_then(|t| prefix(t, "strip_prefix", report));
    let strip = strip.filter(|_| strip_prefix.is_some());
    let add_prefix = table
        .text("add_prefix")
        .and_then(|t| prefix(t, "add_prefix", report));
    let host = table.text("host").and_then(|t| authority(t, report));
    table.finish();
    (
        Rewrite {
            strip_prefix,
            add_prefix,
            host,
        },
        strip,
    )
}

/// A path prefix: begins with `/`, does not end with one.
fn prefix(text: Located<'_, &str>, key: &str, report: &Report) -> Option<String> {
    let bad = |why: &str, help: String| {
        let message = format!("`{key}` cannot be `{}`: {why}", text.escape_debug());
        report.push(Diagnostic::error("bad-prefix", text.at, message).help(help));
        None
    };
    let bare = text.trim_matches('/');
    if bare.is_empty() {
        return bad("it names no segment", format!("leave `{key}` out"));
    }
    if !text
        .bytes()
        .all(|b| b.is_ascii_graphic() && !b"?#*".contains(&b))
    {
        return bad("it is not a plain path", "write \"/v1\"".to_owned());
    }
    if !text.starts_with('/') || text.ends_with('/') || text.contains("//") {
        let help = format!("did you mean \"/{bare}\"?");
        return bad("a prefix begins with `/` and does not end with one", help);
    }
    Some((*text).to_owned())
}

/// `rewrite.host`: a host with an optional port.
fn authority(text: Located<'_, &str>, report: &Report) -> Option<HeaderValue> {
    let valid = text
        .parse::<http::uri::Authority>()
        .is_ok_and(|a| !a.host().is_empty() && !a.as_str().contains('@'));
    if !valid {
        let message = format!("`host` cannot be `{}`", text.escape_debug());
        let d = Diagnostic::error("bad-host", text.at, message);
        report.push(d.help("write a host, with a port if need be: \"app.internal:8080\""));
        return None;
    }
    headers::value(text, report)
}
