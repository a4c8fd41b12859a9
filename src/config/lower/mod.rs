//! Document -> [`Config`]: reads every table, then checks how they fit together.
//!
//! One file a table: `process` (process, admin, log, defaults), `fleet` with `seeds`, `listener`, `route`,
//! `upstream`; `layer4`, `first_bytes`, `listener_tls` and `http2` belong to listeners, `proxy_protocol` to them
//! and to upstreams; `matchers`, `actions`, `headers`, `retry` and `limits` to routes; `endpoints`,
//! `sticky`, `capacity`, `outlier`, `breaker`, `upstream_tls` and `health` to upstreams; `address`
//! reads addresses, `certificates` and `trust` what TLS needs; `fit` holds the checks across tables,
//! `reach` those of who leads to which upstream. Each returns its part with the places that later
//! checks point at.

mod actions;
mod address;
mod agent;
mod breaker;
mod capacity;
mod certificates;
mod check_tls;
mod endpoints;
mod first_bytes;
mod fit;
mod fleet;
#[cfg(test)]
mod fleet_tests;
mod headers;
mod health;
mod http2;
mod layer4;
#[cfg(test)]
mod layer4_tests;
mod limits;
mod listener;
mod listener_tls;
mod matchers;
mod outlier;
mod process;
mod proxy_protocol;
mod reach;
mod retry;
mod route;
mod seeds;
mod sticky;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
mod trust;
mod upstream;
mod upstream_tls;

use std::sync::Arc;

use toml::de::DeTable;

use super::PortZero;
use super::diagnostic::{Diagnostic, Report};
use super::model::{Config, Name};
use super::name::{self, BadName, MAX_NAME};
use super::node::{Located, Node};
use super::reader::Table;
use super::source::{At, Source};

pub(super) use retry::GRPC;

/// Syntax errors reported per file: what follows the first ones is mostly their echo.
const MAX_SYNTAX_ERRORS: usize = 100;

/// Lowers all files; `None` when a file cannot even be read as TOML. The result is to be used only
/// if `report` holds no error.
pub(super) fn lower(sources: &[Source], report: &Report, port_zero: PortZero) -> Option<Config> {
    let mut documents = Vec::new();
    for source in sources {
        let (document, errors) = DeTable::parse_recoverable(&source.text);
        for e in errors.iter().take(MAX_SYNTAX_ERRORS) {
            report.push(syntax_error(source, e.message(), e.span()));
        }
        documents.push(document);
    }
    // What a broken file would have defined is unknown: every reference to it would be reported.
    if report.has_errors() {
        return None;
    }
    let mut draft = Draft::default();
    let mut main = process::Main::default();
    let clients = trust::Clients::default();
    for (index, (source, document)) in sources.iter().zip(&documents).enumerate() {
        let at = source.at(0..0);
        let what = "the top level".to_owned();
        let root = Table::new(report, at, what, "", document.get_ref());
        root.known_as(fleet::TABLE_ALIASES);
        root.get("include");
        if index == 0 {
            main = process::lower(&root, port_zero);
        } else {
            process::refuse(&root);
        }
        each(&root, "listeners", |name, node| {
            draft
                .listeners
                .extend(listener::lower(name, node, port_zero));
        });
        each(&root, "upstreams", |name, node| {
            draft
                .upstreams
                .extend(upstream::lower(name, node, &main.defaults, &clients));
        });
        if let Some(routes) = root.get("routes") {
            if routes.is_table() {
                let help = "routes are a list: write [[routes]] with two brackets";
                report.push(routes.mismatch("a list of tables").help(help));
            } else {
                let nodes = routes.list().unwrap_or_default();
                draft
                    .routes
                    .extend(nodes.into_iter().filter_map(route::lower));
            }
        }
        root.finish();
    }
    Some(fit::fit(draft, main, report))
}

/// What was read, with the places that the checks across tables point at.
#[derive(Debug, Default)]
struct Draft<'a> {
    listeners: Vec<listener::Draft<'a>>,
    routes: Vec<route::Draft<'a>>,
    upstreams: Vec<upstream::Draft<'a>>,
}

/// A name of something else.
type Reference<'a> = Located<'a, Name>;

fn reference<'a>(text: Located<'a, &'a str>) -> Reference<'a> {
    Located {
        value: Arc::from(text.value),
        at: text.at,
    }
}

/// The entries of a table of named tables.
fn each<'a>(root: &Table<'a>, key: &'static str, mut f: impl FnMut(Reference<'a>, Node<'a>)) {
    let Some(node) = root.get(key) else { return };
    // Its keys are names, not keys of a schema.
    let Some(table) = node.table(format!("`{key}`"), "") else {
        return;
    };
    for (name, node) in table.entries() {
        check_name(name, node.report);
        f(reference(name), node);
    }
}

fn check_name(name: Located<'_, &str>, report: &Report) {
    let Err(bad) = name::check(&name) else { return };
    let message = match bad {
        BadName::Character(c) => format!(
            "the name `{}` cannot contain `{}`",
            *name,
            c.escape_default()
        ),
        BadName::Empty => "a name cannot be empty".to_owned(),
        BadName::TooLong => format!("a name cannot be longer than {MAX_NAME} characters"),
    };
    let help = "names are made of letters, digits, `_`, `.` and `-`";
    report.push(Diagnostic::error("bad-name", name.at, message).help(help));
}

fn syntax_error(
    source: &Source,
    message: &str,
    span: Option<std::ops::Range<usize>>,
) -> Diagnostic {
    let span = span.unwrap_or(source.text.len()..source.text.len());
    let at = source.at(span);
    if message.starts_with("duplicate key") {
        let name = source.text.get(at.start..at.end).unwrap_or("");
        let d = Diagnostic::error("duplicate-key", at, format!("`{name}` is defined twice"));
        return match first_of(source, at) {
            Some(first) => d
                .label("defined again here")
                .related(first, "first defined here"),
            None => d,
        };
    }
    let message = message
        .strip_suffix(", expected nothing")
        .unwrap_or(message);
    Diagnostic::error("syntax", at, format!("not TOML: {message}"))
}

/// Where a key or header that is repeated at `again` stood first: the same header line, or a line
/// of the same table that begins with the same key.
fn first_of<'a>(source: &'a Source, again: At<'_>) -> Option<At<'a>> {
    let squeeze = |s: &str| {
        s.split('#')
            .next()
            .unwrap_or("")
            .split_whitespace()
            .collect::<String>()
    };
    let (again_line, _) = source.position(again.start);
    let name = source
        .text
        .get(again.start..again.end)
        .filter(|n| !n.is_empty())?;
    let header = squeeze(source.line(again_line));
    let is_header = header.starts_with('[');
    for line in (1..again_line).rev() {
        let text = source.line(line);
        let squeezed = squeeze(text);
        if is_header {
            if squeezed == header {
                let start = offset_of(source, text) + text.find(name)?;
                return Some(source.at(start..start + name.len()));
            }
            continue;
        }
        if text.trim_start().starts_with(name)
            && squeezed
                .get(name.len()..)
                .is_some_and(|rest| rest.starts_with(['=', '.']))
        {
            let start = offset_of(source, text) + text.find(name)?;
            return Some(source.at(start..start + name.len()));
        }
        if squeezed.starts_with('[') {
            return None;
        }
    }
    None
}

/// Where a line, borrowed from the source's own text, begins in it.
fn offset_of(source: &Source, line: &str) -> usize {
    (line.as_ptr() as usize).saturating_sub(source.text.as_ptr() as usize)
}
