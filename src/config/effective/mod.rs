//! What a checked configuration amounts to: every key with the value that holds, as the loader
//! reads it back.
//!
//! A key without a value (no admin socket, no deadline of a route) is left out, because no text
//! stands for "none" there. Paths are given as they were resolved. What an upstream inherited from
//! `[defaults]` stands in the upstream.
//!
//! `tables` and `listener` make one table of each part, with those of `resilience` and `tls` in them;
//! plans compare the same tables (`diff`).

mod listener;
mod resilience;
mod tables;
mod tls;

use toml::{Table, Value};

use crate::route::Rule;

use super::model::{Action, Config, HeaderEdits, Retry, Rewrite, Route};

pub(super) use listener::listener;
use tables::Put as _;
pub(super) use tables::{admin, endpoint, fleet, log, process, route, upstream};

/// Keys whose values nobody is shown, such as `upstreams.*.password`. There are none: what is secret
/// stands in files of its own, and here are their paths.
const SECRETS: &[&str] = &[];

/// What stands for a secret.
const MASK: &str = "********";

/// The configuration as a table, in the order of a file; secrets are masked.
///
/// Serialised, it is the configuration as JSON; for TOML see [`effective_toml`].
pub fn effective(config: &Config) -> Table {
    let Config {
        process: p,
        admin: a,
        log: l,
        listeners,
        routes,
        upstreams,
        fleet: f,
    } = config;
    let shorthands = shorthands(config);
    let explicit = routes.len() - shorthands.len();
    let mut targets = shorthands.into_iter().peekable();
    let mut root = Table::new();
    root.put("process", process(p));
    root.put("admin", admin(a));
    root.put("log", log(l));
    root.put_some("fleet", f.as_deref().map(fleet));
    let mut named = Table::new();
    for (index, l) in listeners.iter().enumerate() {
        let mut table = listener(l);
        if let Some((_, upstream)) = targets.next_if(|(of, _)| *of == index) {
            table.put("upstream", upstream);
        }
        named.put(&l.name, table);
    }
    root.put("listeners", named);
    let routes = routes.iter().take(explicit).map(|r| {
        let mut table = route(r);
        if is_given(&r.name) {
            // First, where people look for it.
            let rest = std::mem::take(&mut table);
            table.put("name", &*r.name);
            table.extend(rest);
        }
        Value::Table(table)
    });
    root.put("routes", Value::Array(routes.collect()));
    let mut named = Table::new();
    for u in upstreams {
        let endpoints = u.endpoints.iter().map(|e| {
            let mut table = Table::new();
            table.put("address", e.addr.to_string());
            table.extend(endpoint(e));
            Value::Table(table)
        });
        let mut table = Table::new();
        table.put("endpoints", Value::Array(endpoints.collect()));
        table.extend(upstream(u));
        named.put(&u.name, table);
    }
    root.put("upstreams", named);
    mask(&mut root, &mut String::new());
    root
}

/// [`effective`] as TOML: what [`super::parse`] reads to an equal configuration, as long as nothing
/// is masked.
pub fn effective_toml(config: &Config) -> String {
    let mut out = String::new();
    for (section, value) in &effective(config) {
        match (section.as_str(), value) {
            ("listeners" | "upstreams", Value::Table(named)) => {
                for (name, value) in named {
                    write_table(&mut out, &format!("[{section}.{}]", key(name)), value);
                }
            }
            (_, Value::Array(all)) => {
                for value in all {
                    write_table(&mut out, &format!("[[{section}]]"), value);
                }
            }
            (_, value) => write_table(&mut out, &format!("[{section}]"), value),
        }
    }
    out
}

/// The one place that decides what is shown of the value at `path` (as in [`SECRETS`]).
pub(super) fn shown(path: &str, value: Value) -> Value {
    if SECRETS.contains(&path) {
        Value::from(MASK)
    } else {
        value
    }
}

/// The last routes that are shorthands of listeners: (index of the listener, upstream), in the order
/// of listeners. A route that was written out and says the same is one too.
fn shorthands(config: &Config) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut before = config.listeners.len();
    for route in config.routes.iter().rev() {
        let shorthand = config.listeners[..before]
            .iter()
            .rposition(|l| l.name == route.name)
            .and_then(|index| Some((index, shorthand(route)?)));
        let Some((index, upstream)) = shorthand else {
            break;
        };
        before = index;
        found.push((index, upstream));
    }
    found.reverse();
    found
}

/// The upstream, if this is what a listener's `upstream` makes.
fn shorthand(route: &Route) -> Option<&str> {
    let Action::Upstream(upstream) = &route.action else {
        return None;
    };
    let made = Route {
        name: route.name.clone(),
        rule: Rule {
            listeners: vec![route.name.clone()],
            ..Rule::default()
        },
        action: route.action.clone(),
        timeout: None,
        rewrite: Rewrite::default(),
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        retry: Retry::default(),
        rate_limits: Vec::new(),
        max_concurrent: None,
    };
    (*route == made).then_some(upstream)
}

/// Whether a file may give this name. Others were derived, and will be again.
fn is_given(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// Masks what is secret below `path`.
fn mask(table: &mut Table, path: &mut String) {
    // Names of listeners and upstreams are no part of a path.
    let named = matches!(path.as_str(), "listeners" | "upstreams");
    for (key, value) in table.iter_mut() {
        let length = path.len();
        if length > 0 {
            path.push('.');
        }
        path.push_str(if named { "*" } else { key });
        match value {
            Value::Table(table) => mask(table, path),
            Value::Array(all) => all
                .iter_mut()
                .filter_map(Value::as_table_mut)
                .for_each(|table| mask(table, path)),
            _ => {}
        }
        let taken = std::mem::replace(value, Value::Boolean(false));
        *value = shown(path, taken);
        path.truncate(length);
    }
}

fn write_table(out: &mut String, header: &str, value: &Value) {
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(header);
    out.push('\n');
    for (name, value) in value.as_table().into_iter().flatten() {
        out.push_str(&key(name));
        out.push_str(" = ");
        match value {
            // One endpoint a line.
            Value::Array(all) if all.len() > 1 && all.iter().all(Value::is_table) => {
                out.push_str("[\n");
                for value in all {
                    out.push_str(&format!("  {value},\n"));
                }
                out.push(']');
            }
            value => out.push_str(&value.to_string()),
        }
        out.push('\n');
    }
}

/// A key as TOML writes it; ours and names hold no character that needs an escape.
fn key(name: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if name.bytes().all(bare) {
        name.to_owned()
    } else {
        format!("\"{name}\"")
    }
}

#[cfg(test)]
mod tests;
