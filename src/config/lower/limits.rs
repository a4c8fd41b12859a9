//! `rate_limit` of `[[routes]]` and of listeners of layer 4, and `max_concurrent`

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::diagnostic::Diagnostic;
use super::super::model::{LimitKey, MaxConcurrent, Mode, RateLimit};
use super::super::node::{Located, Node};
use super::super::reader::{Aliases, Table};
use super::super::units::MAX_DURATION;
use super::headers;
use super::process::set;

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// Connections or flows are counted.
    Listener,
    /// Exchanges are.
    Route,
}

const MODES: [(&str, Mode); 2] = [("enforce", Mode::Enforce), ("observe", Mode::Observe)];

/// Largest rate and burst: above, a limit costs more than it saves.
const MAX_RATE: u64 = 1_000_000;

/// Most keys: at some tens of bytes each, hundreds of megabytes.
const MAX_KEYS: u64 = 10_000_000;

/// Exchanges that any limit may allow at once: more than a machine has descriptors.
pub(super) const MAX_COUNT: u64 = 1_000_000;

/// What other programs call the keys.
const ALIASES: Aliases = &[
    ("average", "`rate`"),
    ("dry_run", "mode = \"observe\""),
    ("limit", "`rate`"),
    ("nodelay", "`burst`: nobody is delayed"),
    ("period", "`per`"),
    ("requests", "`rate`"),
    ("window", "`per`"),
];

/// `mode`, where there is one.
pub(super) fn mode(table: &Table<'_>) -> Mode {
    let mode = table.get("mode").and_then(|n| n.word(&MODES));
    mode.unwrap_or(Mode::Enforce)
}

/// A limit from 1 to [`MAX_COUNT`].
pub(super) fn count(table: &Table<'_>, key: &'static str) -> Option<NonZeroU32> {
    whole(table.get(key)?)
}

/// The same, of its value.
pub(super) fn whole(node: Node<'_>) -> Option<NonZeroU32> {
    let help = format!("for no limit, leave `{}` out", node.key);
    let n = node.bounded(1..=MAX_COUNT, Some(&help))?;
    NonZeroU32::new(*n as u32)
}

/// `rate_limit`: a table, or a list of them.
pub(super) fn rate_limits(table: &Table<'_>, of: Of) -> Vec<RateLimit> {
    let Some(node) = table.get("rate_limit") else {
        return Vec::new();
    };
    let nodes = if node.is_table() {
        vec![node]
    } else if node.is_list() {
        if node.list_is_empty() {
            let message = format!("`rate_limit` of {} is an empty list", table.what);
            let d = node.error("empty-list", message);
            table
                .report
                .push(d.help("leave `rate_limit` out for no limit"));
        }
        node.list().unwrap_or_default()
    } else {
        let help = "write rate_limit = { key = \"client\", rate = 100, per = \"1s\" }";
        let d = node.mismatch("a table or a list of tables");
        table.report.push(d.help(help));
        Vec::new()
    };
    let kind = match of {
        Of::Listener => "listeners.*.rate_limit",
        Of::Route => "routes.rate_limit",
    };
    nodes
        .into_iter()
        .filter_map(|node| {
            let what = format!("`rate_limit` of {}", table.what);
            rate_limit(node.table(what, kind)?, of)
        })
        .collect()
}

/// One limit; `None` = it has no usable rate, which was reported.
fn rate_limit(table: Table<'_>, of: Of) -> Option<RateLimit> {
    table.known_as(ALIASES);
    let key = table
        .text("key")
        .map_or(Some(LimitKey::Client), |text| match of {
            Of::Listener => listener_key(text, &table),
            Of::Route => limit_key(text, &table),
        });
    let rate = table
        .require("rate")
        .and_then(|n| n.bounded(1..=MAX_RATE, Some("for no limit, leave `rate_limit` out")))
        .map(|n| *n as u32);
    let mut per = Duration::from_secs(1);
    set(&mut per, table.timeout("per"));
    let burst = table.bounded(
        "burst",
        1..=MAX_RATE,
        match of {
            Of::Listener => "1 spaces connections evenly",
            Of::Route => "1 spaces exchanges evenly",
        },
    );
    let mode = mode(&table);
    let max_keys = table.bounded(
        "max_keys",
        1..=MAX_KEYS,
        "each takes some tens of bytes: 100000 is usual",
    );
    if let (Some(LimitKey::Route), Some(max_keys)) = (&key, max_keys) {
        let message = format!("`max_keys` of {} does nothing", table.what);
        let d = Diagnostic::warning("no-effect", max_keys.at, message);
        table.report.push(d.help(match of {
            Of::Listener => "key = \"listener\" counts everybody together",
            Of::Route => "key = \"route\" counts everybody together",
        }));
    }
    let limit = RateLimit {
        key: key.unwrap_or(LimitKey::Client),
        rate: rate.unwrap_or(1),
        per,
        burst: burst.map_or(rate.unwrap_or(1), |n| *n as u32),
        mode,
        max_keys: max_keys.map_or(100_000, |n| *n as u32),
    };
    // Also keeps the arithmetic of limits far from its bounds.
    let refill = limit.per.as_secs_f64() * f64::from(limit.burst) / f64::from(limit.rate);
    if rate.is_some() && refill > MAX_DURATION.as_secs_f64() {
        let message = format!(
            "{} takes more than 365d to allow a full burst again",
            table.what
        );
        let d = Diagnostic::error("out-of-range", burst.map_or(table.at, |b| b.at), message);
        table
            .report
            .push(d.help("`burst` times `per` through `rate`: lower one of the first two"));
    }
    table.finish();
    rate.map(|_| limit)
}

/// The same where there is no request: whom a connection or a flow is of is all that is known.
fn listener_key(text: Located<'_, &str>, table: &Table<'_>) -> Option<LimitKey> {
    let help = match *text {
        "client" => return Some(LimitKey::Client),
        "listener" => return Some(LimitKey::Route),
        "route" => "there are no routes here: \"listener\" counts everybody together",
        other if other.starts_with("header") || other.starts_with("cookie") => {
            "there are no requests here, only addresses: `client`, or `listener` for everybody \
             together"
        }
        _ => "one of `client`, `listener`",
    };
    let message = format!("`{}` is no key of {}", text.escape_debug(), table.what);
    let d = Diagnostic::error("bad-limit-key", text.at, message);
    table.report.push(d.help(help));
    None
}

fn limit_key(text: Located<'_, &str>, table: &Table<'_>) -> Option<LimitKey> {
    let bad = |message: String| {
        let d = Diagnostic::error("bad-limit-key", text.at, message);
        let help = "one of `client`, `header:NAME`, `cookie:NAME`, `route`";
        table.report.push(d.help(help));
        None
    };
    let (kind, name) = text.split_once(':').unwrap_or((*text, ""));
    match (kind, name) {
        ("client", "") => Some(LimitKey::Client),
        ("route", "") => Some(LimitKey::Route),
        ("header" | "cookie", "") => bad(format!("`{kind}` needs a name: \"{kind}:NAME\"")),
        ("header", name) => match name.parse() {
            Ok(name) => Some(LimitKey::Header(name)),
            Err(_) => bad(format!("`{}` is not a header name", name.escape_debug())),
        },
        ("cookie", name) if name.bytes().all(headers::is_token_byte) => {
            Some(LimitKey::Cookie(name.to_owned()))
        }
        ("cookie", name) => bad(format!("`{}` is not a cookie name", name.escape_debug())),
        _ => bad(format!("`{}` is no key of a limit", text.escape_debug())),
    }
}

/// `max_concurrent`: a number, or a table with a mode.
pub(super) fn max_concurrent(route: &Table<'_>) -> Option<MaxConcurrent> {
    let node = route.get("max_concurrent")?;
    if node.is_integer() {
        let limit = whole(node)?;
        return Some(MaxConcurrent {
            limit,
            mode: Mode::Enforce,
        });
    }
    if !node.is_table() {
        let help = "write max_concurrent = 500 or { limit = 500, mode = \"observe\" }";
        let d = node.mismatch("an integer or a table");
        route.report.push(d.help(help));
        return None;
    }
    let what = format!("`max_concurrent` of {}", route.what);
    let table = node.table(what, "routes.max_concurrent")?;
    let limit = table.require("limit").and_then(whole);
    let mode = mode(&table);
    table.finish();
    limit.map(|limit| MaxConcurrent { limit, mode })
}
