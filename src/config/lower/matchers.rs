//! What a route matches.

use http::Method;
use regex::Regex;

use crate::route::{HostPattern, PathPattern, ValuePattern};

use super::super::diagnostic::{Diagnostic, Report};
use super::super::node::{Located, Node};
use super::super::reader::Table;

/// The methods of RFC 9110 section 9 and RFC 5789.
const METHODS: [&str; 9] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
];

/// Compiled size of one pattern, in bytes: ten times what a long hand-written one takes.
const REGEX_SIZE: usize = 1 << 20;

/// Longest host name (RFC 1035 section 2.3.4, in its text form).
const MAX_HOST: usize = 253;

/// `host`
pub(super) fn host(text: Located<'_, &str>, report: &Report) -> Option<HostPattern> {
    let bad = |why: &str, help: &str| {
        let message = format!("`{}` is not a host pattern: {why}", text.escape_debug());
        report.push(Diagnostic::error("bad-host", text.at, message).help(help));
        None
    };
    const FORMS: &str = "write \"example.com\" or \"*.example.com\"";
    let host = text.to_ascii_lowercase();
    if host == "*" {
        return bad(
            "it would match every host",
            "leave `host` out to match every host",
        );
    }
    // IPv6 literals keep their brackets, as in a Host field.
    if let Some(ip) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return match ip.parse::<std::net::Ipv6Addr>() {
            Ok(_) => Some(HostPattern::Exact(host)),
            Err(_) => bad("not an IPv6 address", FORMS),
        };
    }
    let (wildcard, name) = match host.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, host.as_str()),
    };
    if !name.is_ascii() {
        return bad("not ASCII", "write the name as it is sent: \"xn--…\"");
    }
    if name.contains("://") || name.contains('/') {
        return bad(
            "it is a URL",
            "write the host alone; a path goes into `path`",
        );
    }
    if name.contains('*') {
        return bad(
            "`*` stands only as the first label",
            "write \"*.example.com\"",
        );
    }
    if name.contains(':') {
        return bad(
            "it has a port",
            "ports are ignored when hosts are compared: write the host alone",
        );
    }
    if name.ends_with('.') {
        return bad("it ends with a dot", "leave the last dot out");
    }
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if name.len() > MAX_HOST || !name.split('.').all(label) {
        return bad("not a host name", FORMS);
    }
    let name = name.to_owned();
    Some(if wildcard {
        HostPattern::Wildcard(name)
    } else {
        HostPattern::Exact(name)
    })
}

/// `path`
pub(super) fn path(text: Located<'_, &str>, report: &Report) -> Option<PathPattern> {
    let path = *text;
    let bad = |why: &str, help: String| {
        let message = format!("`{}` is not a path pattern: {why}", path.escape_debug());
        report.push(Diagnostic::error("bad-path", text.at, message).help(help));
        None
    };
    if !path.starts_with('/') {
        return bad(
            "it does not begin with `/`",
            format!("did you mean \"/{path}\"?"),
        );
    }
    if let Some(i) = path.find(['?', '#']) {
        let c = &path[i..=i];
        let help = format!(
            "write \"{}\"; parameters are matched with `query`",
            &path[..i]
        );
        return bad(&format!("`{c}` ends a path"), help);
    }
    if !path.bytes().all(|b| b.is_ascii_graphic()) {
        let help = "write it as it is sent, percent-encoded: \"/caf%C3%A9\"".to_owned();
        return bad(
            "it holds a space, a control character or one that is not ASCII",
            help,
        );
    }
    let (prefix, base) = match path.strip_suffix("/*") {
        Some(base) => (true, base),
        None => (false, path),
    };
    if base.contains('*') {
        let help = "for everything below /a write \"/a/*\"; for more use `path_regex`".to_owned();
        return bad("`*` stands only as the last segment", help);
    }
    if base
        .split('/')
        .any(|segment| segment == "." || segment == "..")
    {
        return bad(
            "it has a `.` or `..` segment",
            "write the path it resolves to".to_owned(),
        );
    }
    let base = base.to_owned();
    Some(if prefix {
        PathPattern::Prefix(base)
    } else {
        PathPattern::Exact(base)
    })
}

/// `path_regex`, and what follows a `~`.
pub(super) fn regex(pattern: &str, text: Located<'_, &str>, report: &Report) -> Option<Regex> {
    match regex::RegexBuilder::new(pattern)
        .size_limit(REGEX_SIZE)
        .build()
    {
        Ok(regex) => Some(regex),
        Err(e) => {
            // The error of the parser draws the pattern over several lines; its last says why.
            let text_of_e = e.to_string();
            let why = match e {
                regex::Error::CompiledTooBig(_) => "it compiles to more than 1 MiB",
                _ => text_of_e
                    .lines()
                    .last()
                    .unwrap_or("")
                    .trim()
                    .trim_start_matches("error: "),
            };
            let message = format!(
                "`{}` is not a regular expression: {why}",
                pattern.escape_debug()
            );
            report.push(Diagnostic::error("bad-regex", text.at, message));
            None
        }
    }
}

/// `method`
pub(super) fn method(text: Located<'_, &str>, report: &Report) -> Option<Method> {
    let upper = text.to_ascii_uppercase();
    if *text != upper && METHODS.contains(&upper.as_str()) {
        let message = format!("`{}` never matches: methods are case-sensitive", *text);
        let d = Diagnostic::error("bad-method", text.at, message);
        report.push(d.help(format!("did you mean \"{upper}\"?")));
        return None;
    }
    let method = Method::from_bytes(text.as_bytes()).ok();
    if method.is_none() {
        let message = format!("`{}` is not a method", text.escape_debug());
        let d = Diagnostic::error("bad-method", text.at, message);
        report.push(d.help("write \"GET\" or [\"GET\", \"POST\"]; leave `method` out for all"));
    }
    method
}

/// `header` and `query`: named patterns, in file order.
pub(super) fn values<'a, N>(
    route: &Table<'a>,
    key: &'static str,
    kind: &'static str,
    name: impl Fn(Located<'a, &'a str>) -> Option<N>,
) -> Vec<(N, ValuePattern)> {
    let Some(table) = route.table(key, kind) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (key, node) in table.entries() {
        let pattern = value(node);
        if let (Some(name), Some(pattern)) = (name(key), pattern) {
            found.push((name, pattern));
        }
    }
    found
}

fn value(node: Node<'_>) -> Option<ValuePattern> {
    let text = node.text()?;
    match text.strip_prefix('~') {
        Some(pattern) => regex(pattern, text, node.report).map(ValuePattern::Regex),
        None if text.is_empty() => Some(ValuePattern::Present),
        None => Some(ValuePattern::Exact((*text).to_owned())),
    }
}
