//! `retry` of `[[routes]]`

use std::time::Duration;

use super::super::diagnostic::Diagnostic;
use super::super::model::{Hedge, Retry, RetryOn};
use super::super::node::{Located, Node};
use super::super::reader::{Aliases, Table};
use super::super::suggest::closest;
use super::super::units::{format_duration, format_size, parse_duration};

/// What `5xx` stands for: what another endpoint may do better. 501 and 505 are the same everywhere.
const SERVER_ERRORS: [u16; 4] = [500, 502, 503, 504];

/// Those that `on` may have.
const STATUSES: std::ops::RangeInclusive<u16> = 400..=599;

/// Words of `on` for values of `grpc-status`; any other is written `grpc-N`.
pub(in super::super) const GRPC: [(&str, u8); 5] = [
    ("grpc-cancelled", 1),
    ("grpc-deadline-exceeded", 4),
    ("grpc-internal", 13),
    ("grpc-resource-exhausted", 8),
    ("grpc-unavailable", 14),
];

/// Values of `grpc-status` that are errors.
const GRPC_ERRORS: std::ops::RangeInclusive<u8> = 1..=16;

/// Most of a body that is kept: each exchange may take this much memory.
const MAX_BODY: u64 = 16 << 20;

/// What other programs call the keys.
const ALIASES: Aliases = &[
    ("backoff", "nothing: another endpoint is asked at once"),
    ("codes", "`on`"),
    ("conditions", "`on`"),
    ("max_retries", "`attempts`, the first one included"),
    ("num_retries", "`attempts`, the first one included"),
    ("retries", "`attempts`, the first one included"),
    ("retry_on", "`on`"),
    ("tries", "`attempts`"),
];

/// What other programs call the words of `on`.
const CONDITIONS: [(&str, &str); 9] = [
    ("4xx", "by its statuses, such as \"408\" and \"429\""),
    ("conn-failure", "`connect`"),
    ("connect-failure", "`connect`"),
    ("empty-response", "`reset`"),
    ("error", "`connect` and `reset`"),
    ("gateway-error", "`502`, `503` and `504`"),
    ("response-timeout", "`timeout`"),
    ("retriable-4xx", "`409`"),
    ("refused-stream", "`reset`"),
];

/// Reads the value; `timeout` is that of the route.
pub(super) fn lower(
    node: Node<'_>,
    route: &Table<'_>,
    timeout: Option<Located<'_, Duration>>,
) -> Retry {
    let mut retry = Retry::default();
    if node.as_str() == Some("off") {
        retry.attempts = 1;
        return retry;
    }
    let report = node.report;
    if !node.is_table() {
        let help = "write retry = { attempts = 3 }, or retry = \"off\"";
        report.push(node.mismatch("a table or \"off\"").help(help));
        return retry;
    }
    let what = format!("`retry` of {}", route.what);
    let Some(table) = node.table(what, "routes.retry") else {
        return retry;
    };
    table.known_as(ALIASES);
    if let Some(n) = table.bounded(
        "attempts",
        1..=u64::from(Retry::MAX_ATTEMPTS),
        "3 counts the first one; more only add to an outage",
    ) {
        retry.attempts = *n as u32;
    }
    if let Some(ratio) = table.get("budget").and_then(|n| n.ratio()) {
        retry.budget = *ratio;
    }
    let per_try = table.timeout("per_try_timeout");
    retry.per_try_timeout = per_try.map(|t| t.value);
    // Who limits an attempt wants another one after it.
    retry.on.timeout = per_try.is_some();
    if let (Some(per_try), Some(timeout)) = (per_try, timeout)
        && *per_try > *timeout
    {
        let message = format!(
            "`per_try_timeout` of {} is {}, longer than the route's `timeout` of {}",
            table.what,
            format_duration(*per_try),
            format_duration(*timeout)
        );
        let d = Diagnostic::warning("timeout-order", per_try.at, message);
        report.push(d.help("all attempts together have `timeout`: no attempt ever takes so long"));
    }
    let hedge_at = table.get("hedge_after").map(|node| {
        retry.hedge = hedge(node).unwrap_or(retry.hedge);
        node.at
    });
    if let Some(at) = hedge_at
        && retry.hedge != Hedge::Off
        && retry.attempts < 2
    {
        let message = "`hedge_after` does nothing with one attempt";
        let d = Diagnostic::warning("no-effect", at, message);
        report.push(d.help("a hedge is a second attempt: write attempts = 2 or more"));
    }
    if let Some(node) = table.get("on") {
        if node.list_is_empty() && retry.hedge == Hedge::Off {
            let message = format!("`on` of {} is an empty list", table.what);
            let help = "for one attempt, write retry = \"off\"";
            report.push(node.error("empty-list", message).help(help));
        }
        retry.on = on(node);
    }
    if let Some(size) = table.get("body").and_then(|n| n.size()) {
        if *size > MAX_BODY {
            let message = format!("`body` must be at most {}", format_size(MAX_BODY));
            let d = Diagnostic::error("out-of-range", size.at, message);
            let help = "every exchange may hold this much in memory: \"64KiB\" is usual";
            report.push(d.help(help));
        } else {
            retry.body = *size as usize;
        }
    }
    table.finish();
    retry
}

/// The words of `on`: one, or a list.
fn on(node: Node<'_>) -> RetryOn {
    let mut on = RetryOn {
        connect: false,
        reset: false,
        timeout: false,
        statuses: Vec::new(),
        grpc: Vec::new(),
    };
    let nodes = if node.is_string() || node.is_integer() {
        vec![node]
    } else {
        node.list().unwrap_or_default()
    };
    for node in nodes {
        condition(node, &mut on);
    }
    on.statuses.sort_unstable();
    on.statuses.dedup();
    on.grpc.sort_unstable();
    on.grpc.dedup();
    on
}

fn condition(node: Node<'_>, on: &mut RetryOn) {
    const WORDS: [&str; 4] = ["connect", "reset", "timeout", "5xx"];
    if node.is_integer() {
        let status = node.as_integer().and_then(|n| u16::try_from(n).ok());
        if let Some(status) = status.filter(|n| STATUSES.contains(n)) {
            on.statuses.push(status);
        } else {
            let d = node.error("out-of-range", "a status in `on` must be from 400 to 599");
            let help = "an answer below 400 is none to repeat";
            node.report.push(d.help(help));
        }
        return;
    }
    let Some(text) = node.as_str() else {
        let d = node.mismatch("a word or a status");
        node.report
            .push(d.help("such as \"connect\", \"reset\" or 503"));
        return;
    };
    match text {
        "connect" => on.connect = true,
        "reset" => on.reset = true,
        "timeout" => on.timeout = true,
        "5xx" => on.statuses.extend(SERVER_ERRORS),
        word => {
            if let Some(status) = status(word) {
                on.statuses.push(status);
                return;
            }
            if let Some(code) = grpc(word) {
                on.grpc.push(code);
                return;
            }
            let known = || WORDS.into_iter().chain(GRPC.iter().map(|(word, _)| *word));
            let alias = CONDITIONS.iter().find(|(theirs, _)| *theirs == word);
            let number = word.bytes().all(|b| b.is_ascii_digit());
            let help = if let Some((_, ours)) = alias {
                format!("isobar calls it {ours}")
            } else if let Some(near) = closest(word, known()).filter(|_| !number) {
                format!("did you mean `{near}`?")
            } else {
                "`connect`, `reset`, `timeout`, a status from 400 to 599, `5xx`, `grpc-unavailable`, \
                 or `grpc-N` with N from 1 to 16"
                    .to_owned()
            };
            let message = format!("`on` cannot have `{}`", word.escape_debug());
            node.report
                .push(node.error("unknown-value", message).help(help));
        }
    }
}

fn status(word: &str) -> Option<u16> {
    let status = word.parse().ok().filter(|_| word.len() == 3)?;
    STATUSES.contains(&status).then_some(status)
}

fn grpc(word: &str) -> Option<u8> {
    if let Some((_, code)) = GRPC.iter().find(|(known, _)| *known == word) {
        return Some(*code);
    }
    let number = word.strip_prefix("grpc-")?;
    let code = number.parse().ok().filter(|_| !number.starts_with('+'))?;
    GRPC_ERRORS.contains(&code).then_some(code)
}

/// `off`, `50ms`, `p95`
fn hedge(node: Node<'_>) -> Option<Hedge> {
    const HELP: &str = "write \"off\", a duration such as \"50ms\" or a percentile such as \"p95\"";
    let Some(text) = node.as_str() else {
        let d = node.mismatch("a duration, a percentile or \"off\"");
        node.report.push(d.help(HELP));
        return None;
    };
    if text == "off" {
        return Some(Hedge::Off);
    }
    if let Some(number) = text.strip_prefix('p') {
        let percentile = number.parse().ok().filter(|n| (50..=99).contains(n));
        if percentile.is_none() {
            let d = node.error("out-of-range", "a percentile must be from `p50` to `p99`");
            let help = "p95 sends a second attempt for one exchange of twenty";
            node.report.push(d.help(help));
        }
        return percentile.map(Hedge::Percentile);
    }
    match parse_duration(text) {
        Ok(Duration::ZERO) => {
            let d = node.error("zero-timeout", "`hedge_after` must be longer than zero");
            let help = "to do without, write \"off\"; to send everything twice is no hedge";
            node.report.push(d.help(help));
            None
        }
        Ok(after) => Some(Hedge::After(after)),
        Err(e) => {
            let text = text.escape_debug();
            let message = format!("`hedge_after` must be a duration or a percentile: `{text}` {e}");
            node.report.push(node.error("bad-unit", message).help(HELP));
            None
        }
    }
}
