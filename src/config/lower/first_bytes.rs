//! `passthrough` and `detect` of `[listeners.NAME]`: what connections begin with says where they go.

use std::collections::HashMap;

use crate::route::HostPattern;

use super::super::diagnostic::{Diagnostic, Report};
use super::super::model::{Detect, Name, Passthrough};
use super::super::node::Located;
use super::super::reader::{Aliases, Table};
use super::super::source::At;
use super::layer4::Spoken;
use super::process::set;
use super::{Reference, matchers, reference};

/// What other programs call the keys of `passthrough`.
const PASSTHROUGH_ALIASES: Aliases = &[
    ("HostSNI", "`sni`"),
    ("application_protocols", "`alpn`"),
    ("backend", "`upstream`"),
    ("cluster", "`upstream`"),
    ("host", "`sni`"),
    ("hosts", "`sni`"),
    ("name", "`sni`"),
    ("names", "`sni`"),
    ("protocols", "`alpn`"),
    ("proxy_pass", "`upstream`"),
    ("req_ssl_sni", "`sni`"),
    ("server_name", "`sni`"),
    ("server_names", "`sni`"),
    ("sni_hosts", "`sni`"),
    ("ssl_alpn", "`alpn`"),
    ("to", "`upstream`"),
    ("use_backend", "`upstream`"),
];

/// The same of `detect`.
const DETECT_ALIASES: Aliases = &[
    ("default", "`other`"),
    ("inspect-delay", "`timeout`"),
    ("inspect_delay", "`timeout`"),
    ("listener_filters_timeout", "`timeout`"),
    ("plain", "`http`"),
    ("preread_timeout", "`timeout`"),
    ("ssh", "`other`, the name of an upstream"),
    ("upstream", "`other`"),
];

/// Longest protocol: RFC 7301 section 3.1 gives its length one byte.
const MAX_ALPN: usize = 255;

const FORM: &str = "write passthrough = [{ sni = \"*.example.com\", upstream = \"NAME\" }]";

/// Any name or protocol, and a particular one.
type Either<T> = Option<T>;

/// Reads `passthrough`: a list of tables, or one.
pub(super) fn passthrough<'a>(listener: &Table<'a>) -> (Vec<Passthrough>, Vec<Reference<'a>>) {
    let Some(node) = listener.get("passthrough") else {
        return (Vec::new(), Vec::new());
    };
    let nodes = if node.is_table() {
        vec![node]
    } else if node.is_list() {
        if node.list_is_empty() {
            let message = format!("`passthrough` of {} is an empty list", listener.what);
            let d = node.error("empty-list", message);
            listener
                .report
                .push(d.help("leave it out: nothing is passed through"));
        }
        node.list().unwrap_or_default()
    } else {
        listener
            .report
            .push(node.mismatch("a list of tables").help(FORM));
        Vec::new()
    };
    let mut found = Vec::new();
    let mut targets = Vec::new();
    let mut reached = Reached::default();
    for node in nodes {
        let what = format!("`passthrough` of {}", listener.what);
        let Some(table) = node.table(what, "listeners.*.passthrough") else {
            continue;
        };
        table.known_as(PASSTHROUGH_ALIASES);
        let sni = sni(&table);
        let alpn = alpn(&table);
        let upstream = table.require("upstream").and_then(|node| node.text());
        let upstream = upstream.map(reference);
        let (at, what) = (table.at, table.what.clone());
        table.finish();
        // What an error left out would look as if everything were taken.
        if let (Some(sni), Some(alpn)) = (&sni, &alpn)
            && !listener.report.has_errors()
        {
            reached.entry((at, &what), sni, alpn, listener.report);
        }
        targets.extend(upstream.clone());
        found.push(Passthrough {
            sni: values(sni),
            alpn: values(alpn),
            upstream: upstream.map_or_else(|| Name::from(""), |name| name.value),
        });
    }
    (found, targets)
}

fn values<T>(found: Option<Vec<Located<'_, T>>>) -> Vec<T> {
    found
        .unwrap_or_default()
        .into_iter()
        .map(|l| l.value)
        .collect()
}

/// The strings of a key; `None` = some are wrong, which was reported.
fn strings<'a, T>(
    table: &Table<'a>,
    key: &'static str,
    empty: &str,
    read: impl Fn(Located<'a, &'a str>, &Table<'a>) -> Option<T>,
) -> Option<Vec<Located<'a, T>>> {
    let Some(node) = table.get(key) else {
        return Some(Vec::new());
    };
    if node.list_is_empty() {
        // An empty list reads like "none" and would mean "all".
        let message = format!("`{key}` of {} is an empty list", table.what);
        table
            .report
            .push(node.error("empty-list", message).help(empty));
        return None;
    }
    let count = node.list_length();
    let found: Vec<_> = node
        .one_or_more()
        .into_iter()
        .filter_map(|text| {
            let value = read(text, table)?;
            Some(Located { value, at: text.at })
        })
        .collect();
    (found.len() == count).then_some(found)
}

/// `sni`: patterns as those of routes, of names alone.
fn sni<'a>(table: &Table<'a>) -> Option<Vec<Located<'a, HostPattern>>> {
    strings(
        table,
        "sni",
        "leave `sni` out for every name, and none",
        |text, table| {
            let bad = |why: &str, help: &str| {
                let message = format!(
                    "`{}` is no name that clients ask for: {why}",
                    text.escape_debug()
                );
                let d = Diagnostic::error("bad-host", text.at, message);
                table.report.push(d.help(help));
                None
            };
            let bare = text.trim_start_matches('[').trim_end_matches(']');
            if bare.parse::<std::net::IpAddr>().is_ok() {
                // RFC 6066 section 3: literal addresses are not permitted in it.
                return bad(
                    "it is an address",
                    "who connects to an address sends no name (SNI): leave `sni` out, as the last of \
                 `passthrough`",
                );
            }
            if *text == "*" {
                return bad(
                    "it would match every name",
                    "leave `sni` out for every name, and none",
                );
            }
            if text.contains("://") || text.contains('/') {
                return bad("it is a URL", "write the name alone: \"example.com\"");
            }
            if text.contains(':') {
                return bad("it has a port", "write the name alone: \"example.com\"");
            }
            matchers::host(text, table.report)
        },
    )
}

/// `alpn`: protocols as they are registered.
fn alpn<'a>(table: &Table<'a>) -> Option<Vec<Located<'a, String>>> {
    let empty = "leave `alpn` out for clients that offer anything, or nothing";
    strings(table, "alpn", empty, |text, table| {
        if (1..=MAX_ALPN).contains(&text.len()) {
            return Some((*text).to_owned());
        }
        let message = format!(
            "a protocol in `alpn` has from 1 to {MAX_ALPN} bytes, this one {}",
            text.len()
        );
        let d = Diagnostic::error("bad-alpn", text.at, message);
        let help = "write it as it is registered (RFC 7301): \"h2\", \"http/1.1\", \"acme-tls/1\"";
        table.report.push(d.help(help));
        None
    })
}

/// What earlier entries of `passthrough` take already.
#[derive(Default)]
struct Reached<'a> {
    taken: HashMap<(Either<String>, Either<String>), At<'a>>,
}

impl<'a> Reached<'a> {
    /// Warns of what never gets to this entry, `what` at `at`, and remembers what does.
    fn entry(
        &mut self,
        (at, what): (At<'a>, &str),
        sni: &[Located<'a, HostPattern>],
        alpn: &[Located<'a, String>],
        report: &Report,
    ) {
        let any_name = [(None, at)];
        let names: Vec<_> = sni.iter().map(|p| (Some(text(&p.value)), p.at)).collect();
        let names = if names.is_empty() {
            &any_name[..]
        } else {
            &names
        };
        let protocols: Vec<_> = alpn.iter().map(|a| Some(a.value.clone())).collect();
        let protocols = if protocols.is_empty() {
            &[None][..]
        } else {
            &protocols
        };
        let mut news = Vec::new();
        let mut unreached = Vec::new();
        for (name, at) in names {
            let before: Vec<_> = protocols
                .iter()
                .map(|protocol| self.taker(name.as_deref(), protocol.as_deref()))
                .collect();
            match before.iter().copied().collect::<Option<Vec<_>>>() {
                Some(by) => unreached.extend(by.first().map(|by| (name, *at, *by))),
                None => news.extend(protocols.iter().map(|p| ((name.clone(), p.clone()), *at))),
            }
            // The same again in one list is said, too.
            for (key, at) in news.drain(..) {
                self.taken.entry(key).or_insert(at);
            }
        }
        if unreached.len() == names.len() {
            let message = format!("this entry of {what} is never reached");
            let d = Diagnostic::warning("unreachable", at, message);
            let help = "the first that matches is taken: put the narrower one first, or remove one";
            let d = d.related(unreached[0].2, "this takes all that it would");
            report.push(d.help(help));
            return;
        }
        for (name, at, by) in unreached {
            let message = format!(
                "`{}` in {} is never reached",
                name.as_deref().unwrap_or("*"),
                what
            );
            let d = Diagnostic::warning("unreachable", at, message);
            let help = "the first that matches is taken: remove one";
            report.push(d.related(by, "this takes it").help(help));
        }
    }

    /// Who takes all connections for this name with this protocol.
    fn taker(&self, name: Either<&str>, protocol: Either<&str>) -> Option<At<'a>> {
        let find = |name: Either<String>| {
            let any = self.taken.get(&(name.clone(), None));
            any.or_else(|| self.taken.get(&(name, Some(protocol?.to_owned()))))
                .copied()
        };
        find(None).or_else(|| {
            let name = name?;
            find(Some(name.to_owned())).or_else(|| {
                let labels = name.strip_prefix("*.").unwrap_or(name);
                // A wildcard is one or more labels: it does not take the name below it itself.
                labels
                    .match_indices('.')
                    .find_map(|(dot, _)| find(Some(format!("*{}", &labels[dot..]))))
            })
        })
    }
}

fn text(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Exact(name) => name.clone(),
        HostPattern::Wildcard(name) => format!("*.{name}"),
    }
}

/// Reads `detect`; what it says must be of use beside the rest of the listener.
pub(super) fn detect<'a>(
    listener: &Table<'a>,
    spoken: Option<Spoken>,
) -> (Option<Detect>, Option<Reference<'a>>) {
    let Some(node) = listener.get("detect") else {
        return (None, None);
    };
    if !node.is_table() {
        let help = "write detect = { http = true, other = \"NAME\" }";
        listener.report.push(node.mismatch("a table").help(help));
        return (None, None);
    }
    let what = format!("`detect` of {}", listener.what);
    let Some(table) = node.table(what, "listeners.*.detect") else {
        return (None, None);
    };
    table.known_as(DETECT_ALIASES);
    let mut found = Detect::default();
    let http = table.get("http");
    found.http = http.and_then(|node| node.flag()).unwrap_or(found.http);
    let other = table.text("other").map(reference);
    found.other = other.as_ref().map(|name| name.value.clone());
    set(&mut found.timeout, table.timeout("timeout"));
    let (tls, passthrough) = (listener.has("tls"), listener.has("passthrough"));
    if spoken == Some(Spoken::Tcp) {
        if let Some(http) = http.filter(|_| found.http) {
            let message = format!("{} cannot serve HTTP", listener.what);
            let help = "it has no routes: write protocol = \"http\" with `tls`, `detect` and routes; \
                        `other` in `detect` names an upstream that gets its bytes";
            let d = http.error("wrong-protocol", message);
            table.report.push(d.help(help));
        } else if !tls && !passthrough {
            let message = format!("{} tells nothing apart", table.what);
            let help = "TLS is told from the rest: it needs `tls` or `passthrough` beside it; \
                        without them write upstream = \"NAME\" alone";
            table
                .report
                .push(node.error("needs-tls", message).help(help));
        }
    } else if let Some(http) = http.filter(|_| found.http && !tls) {
        let message = format!("`http` in {} does nothing", table.what);
        let help = "without `tls` HTTP in clear text is served anyway";
        let d = Diagnostic::warning("no-effect", http.at, message);
        table.report.push(d.help(help));
    } else if !found.http && !table.has("other") && !passthrough {
        let message = format!("{} tells nothing apart", table.what);
        let help = "write http = true for HTTP beside TLS, or other = \"NAME\" for what is neither";
        let d = Diagnostic::warning("no-effect", node.at, message);
        table.report.push(d.help(help));
    }
    table.finish();
    (Some(found), other)
}
