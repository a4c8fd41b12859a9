//! Header names, values and edits.

use http::{HeaderName, HeaderValue};

use super::super::diagnostic::{Diagnostic, Report};
use super::super::model::HeaderEdits;
use super::super::node::{Located, Node};
use super::super::reader::Table;

/// Whose head is edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Request,
    Response,
}

/// Fields that belong to one connection (RFC 9110 section 7.6.1) or decide where a message ends:
/// isobar writes them itself, and an edit could split a message in two.
const FRAMING: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// RFC 9110 section 5.6.2.
pub(super) fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// `request_headers` or `response_headers`.
pub(super) fn edits(table: Table<'_>, side: Side, kind: [&'static str; 2]) -> HeaderEdits {
    let mut edits = HeaderEdits::default();
    if let Some(node) = table.get("set") {
        edits.set = fields(node, side, kind[0]);
    }
    if let Some(node) = table.get("add") {
        edits.add = fields(node, side, kind[1]);
    }
    if let Some(node) = table.get("remove") {
        let names = node.one_or_more();
        edits.remove = names
            .into_iter()
            .filter_map(|n| name(n, side, table.report))
            .collect();
    }
    table.finish();
    edits
}

/// `{ name = "value", … }`; in `add` a list gives several.
fn fields(node: Node<'_>, side: Side, kind: &'static str) -> Vec<(HeaderName, HeaderValue)> {
    let Some(table) = node.table(format!("`{}`", node.key), kind) else {
        return Vec::new();
    };
    let many = node.key == "add";
    let mut found: Vec<(HeaderName, HeaderValue)> = Vec::new();
    let mut seen: Vec<Located<'_, HeaderName>> = Vec::new();
    for (key, node) in table.entries() {
        let values = if many {
            node.one_or_more()
        } else {
            node.text().into_iter().collect()
        };
        let values: Vec<_> = values
            .into_iter()
            .filter_map(|v| value(v, node.report))
            .collect();
        let Some(name) = name(key, side, node.report) else {
            continue;
        };
        if let Some(first) = seen.iter().find(|s| s.value == name) {
            let message = format!("`{name}` is given twice: case does not matter in header names");
            let d = Diagnostic::error("duplicate-header", key.at, message);
            node.report.push(d.related(first.at, "first given here"));
        }
        seen.push(Located {
            value: name.clone(),
            at: key.at,
        });
        found.extend(values.into_iter().map(|v| (name.clone(), v)));
    }
    found
}

/// A name that may be edited.
pub(super) fn name(text: Located<'_, &str>, side: Side, report: &Report) -> Option<HeaderName> {
    let Ok(name) = text.parse::<HeaderName>() else {
        let message = format!("`{}` is not a header name", text.escape_debug());
        let d = Diagnostic::error("bad-header", text.at, message);
        report.push(d.help("letters, digits and !#$%&'*+-.^_`|~"));
        return None;
    };
    let forbidden = |message: String, help: &str| {
        report.push(Diagnostic::error("reserved-header", text.at, message).help(help));
        None
    };
    if FRAMING.contains(&name.as_str()) {
        let help = "it belongs to one connection or frames the message: isobar writes it itself";
        return forbidden(format!("`{name}` is reserved"), help);
    }
    if side == Side::Request && name == http::header::HOST {
        let help = "to change it, write rewrite = { host = \"app.internal\" }";
        return forbidden("`host` is not among the headers to edit".to_owned(), help);
    }
    Some(name)
}

/// A field value: visible ASCII, spaces and tabs inside.
pub(super) fn value(text: Located<'_, &str>, report: &Report) -> Option<HeaderValue> {
    let trimmed = text.trim_matches([' ', '\t']) == *text;
    match HeaderValue::from_str(*text) {
        Ok(value) if trimmed && text.is_ascii() => Some(value),
        _ => {
            let message = format!("`{}` is not a header value", text.escape_debug());
            let d = Diagnostic::error("bad-header", text.at, message);
            report.push(d.help("visible ASCII, with spaces only inside; encode anything else"));
            None
        }
    }
}
