//! What a route does: upstream, split, redirect, respond.

use std::collections::HashMap;

use http::{HeaderValue, StatusCode};

use super::super::diagnostic::Diagnostic;
use super::super::model::{Action, Name};
use super::super::node::{Located, Node};
use super::super::reader::Table;
use super::super::source::At;
use super::super::suggest::closest;
use super::{Reference, headers, reference};

/// The keys, of which a route has exactly one.
pub(super) const KEYS: [&str; 4] = ["upstream", "split", "redirect", "respond"];

/// What may stand in `{}` in `redirect.to`.
const PLACEHOLDERS: [&str; 4] = ["host", "path", "query", "rest"];

/// Shares of a split: as fine as one in a million.
const MAX_SHARE: u64 = 1_000_000;

/// An action and the upstreams it names.
pub(super) type Lowered<'a> = (Action, Vec<Reference<'a>>);

/// Reads the one action of a route.
pub(super) fn lower<'a>(route: &Table<'a>) -> Option<Lowered<'a>> {
    let mut given: Vec<(&str, Node<'a>)> = KEYS
        .iter()
        .filter_map(|key| Some((*key, route.get(key)?)))
        .collect();
    given.sort_by_key(|(_, node)| node.at.start);
    match given.as_slice() {
        [] => {
            let d = Diagnostic::error(
                "no-action",
                route.at,
                format!("{} does nothing", route.what),
            );
            let help = "give it one of `upstream`, `split`, `redirect`, `respond`";
            route.report.push(d.help(help));
            None
        }
        [(key, node)] => one(route, key, *node),
        [(_, first), rest @ ..] => {
            let message = format!("{} has more than one action", route.what);
            let at = rest.first().map_or(route.at, |(_, node)| node.at);
            let d = Diagnostic::error("many-actions", at, message).label("a second one");
            let help = "keep one of `upstream`, `split`, `redirect`, `respond`";
            route
                .report
                .push(d.related(first.at, "the first one").help(help));
            // Their own problems are reported all the same.
            let read: Vec<_> = given
                .iter()
                .filter_map(|(key, node)| one(route, key, *node))
                .collect();
            read.into_iter().next()
        }
    }
}

fn one<'a>(route: &Table<'a>, key: &str, node: Node<'a>) -> Option<Lowered<'a>> {
    match key {
        "upstream" => {
            let name = reference(node.text()?);
            Some((Action::Upstream(name.value.clone()), vec![name]))
        }
        "split" => split(route, node),
        "redirect" => Some((redirect(node, &route.what)?, Vec::new())),
        _ => Some((respond(node, &route.what)?, Vec::new())),
    }
}

fn split<'a>(route: &Table<'a>, node: Node<'a>) -> Option<Lowered<'a>> {
    let mut parts: Vec<(Reference<'a>, u32)> = Vec::new();
    let mut first: HashMap<Name, At<'a>> = HashMap::new();
    let nodes = node.list()?;
    for node in &nodes {
        let Some(table) = node.table(format!("`split` of {}", route.what), "routes.split") else {
            continue;
        };
        let name = table.require("upstream").and_then(|n| n.text());
        let weight = table.integer("weight", 0..=MAX_SHARE);
        table.finish();
        let Some(name) = name.map(reference) else {
            continue;
        };
        if let Some(before) = first.insert(name.value.clone(), name.at) {
            let message = format!("`split` of {} names `{}` twice", route.what, *name);
            let d = Diagnostic::error("duplicate-split", name.at, message);
            route.report.push(d.related(before, "named here before"));
        }
        parts.push((name, weight.map_or(1, |w| *w as u32)));
    }
    if nodes.is_empty() {
        let d = node.error(
            "zero-weights",
            format!("`split` of {} is empty", route.what),
        );
        route.report.push(d.help(
            "write split = [{ upstream = \"a\", weight = 95 }, { upstream = \"b\", weight = 5 }]",
        ));
    } else if parts.len() == nodes.len() && parts.iter().all(|(_, weight)| *weight == 0) {
        let message = format!("`split` of {} has weight 0 on every upstream", route.what);
        route.report.push(
            node.error("zero-weights", message)
                .help("set one weight above 0"),
        );
    }
    let action = parts
        .iter()
        .map(|(name, weight)| (name.value.clone(), *weight))
        .collect();
    Some((
        Action::Split(action),
        parts.into_iter().map(|(name, _)| name).collect(),
    ))
}

fn redirect(node: Node<'_>, route: &str) -> Option<Action> {
    let table = node.table(format!("`redirect` of {route}"), "routes.redirect")?;
    let to = table.require("to").and_then(|n| n.text());
    if let Some(to) = to {
        template(to, &table);
    }
    // 307 unless said otherwise: keeps the method, and a browser does not remember a mistake.
    let mut status = StatusCode::TEMPORARY_REDIRECT;
    if let Some(given) = table.integer("status", 0..=999) {
        match StatusCode::from_u16(*given as u16) {
            Ok(s) if [301, 302, 303, 307, 308].contains(&s.as_u16()) => status = s,
            _ => {
                let message = format!("{} is not the status of a redirect", *given);
                let d = Diagnostic::error("bad-status", given.at, message);
                let help = "301, 308: permanent; 302, 307: for now; 303: see other (308 and 307 keep the method)";
                table.report.push(d.help(help));
            }
        }
    }
    table.finish();
    Some(Action::Redirect {
        to: (*to?).to_owned(),
        status,
    })
}

/// Checks the template of a Location.
fn template(to: Located<'_, &str>, table: &Table<'_>) {
    let bad = |message: String, help: String| {
        table
            .report
            .push(Diagnostic::error("bad-redirect", to.at, message).help(help));
    };
    if !["http://", "https://", "/", "{path}", "{rest}"]
        .iter()
        .any(|p| to.starts_with(p))
    {
        bad(
            format!("`{}` is not a place to redirect to", to.escape_debug()),
            "begin with \"https://\", \"http://\" or \"/\"".to_owned(),
        );
    }
    if !to.bytes().all(|b| b.is_ascii_graphic()) {
        bad(
            "`to` holds a space, a control character or one that is not ASCII".to_owned(),
            "percent-encode it".to_owned(),
        );
    }
    let known = || {
        format!(
            "placeholders are {}",
            super::super::node::quote_all(["{host}", "{path}", "{query}", "{rest}"].into_iter(),)
        )
    };
    // Both begin with a slash, and `//name/…` leads to another host: an open redirect.
    if ["/{path}", "/{rest}"].iter().any(|p| to.starts_with(p)) {
        bad(
            format!(
                "`{}` would begin with two slashes, which leads to another host",
                to.escape_debug()
            ),
            "{path} and {rest} bring their own slash".to_owned(),
        );
    }
    let mut rest = *to;
    while let Some(open) = rest.find(['{', '}']) {
        let tail = &rest[open + 1..];
        let close = tail
            .find(['{', '}'])
            .filter(|&i| tail[i..].starts_with('}'));
        let (true, Some(close)) = (rest[open..].starts_with('{'), close) else {
            bad(
                format!("`{}` has a brace without its partner", to.escape_debug()),
                known(),
            );
            return;
        };
        let name = &tail[..close];
        if !PLACEHOLDERS.contains(&name) {
            let help = match closest(name, PLACEHOLDERS) {
                Some(near) => format!("did you mean `{{{near}}}`?"),
                None => known(),
            };
            bad(
                format!("there is no placeholder `{{{}}}`", name.escape_debug()),
                help,
            );
        }
        rest = &tail[close + 1..];
    }
}

fn respond(node: Node<'_>, route: &str) -> Option<Action> {
    let table = node.table(format!("`respond` of {route}"), "routes.respond")?;
    let mut status = StatusCode::OK;
    if let Some(given) = table.integer("status", 0..=999) {
        match StatusCode::from_u16(*given as u16) {
            Ok(s) if (200..600).contains(&s.as_u16()) => status = s,
            _ => {
                let message = format!("{} is not the status of a final response", *given);
                let d = Diagnostic::error("bad-status", given.at, message);
                table.report.push(d.help("choose one from 200 to 599"));
            }
        }
    }
    let body = table.text("body");
    if let Some(body) = body
        && !body.is_empty()
        && [204, 205, 304].contains(&status.as_u16())
    {
        let message = format!("a {} response has no body", status.as_u16());
        table
            .report
            .push(Diagnostic::error("body-not-allowed", body.at, message));
    }
    let content_type = table
        .text("content_type")
        .and_then(|text| headers::value(text, table.report))
        .unwrap_or(HeaderValue::from_static("text/plain; charset=utf-8"));
    table.finish();
    Some(Action::Respond {
        status,
        body: body.map_or_else(String::new, |b| (*b).to_owned()),
        content_type,
    })
}
