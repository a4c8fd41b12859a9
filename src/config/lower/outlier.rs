//! `[upstreams.NAME.outlier]`: what makes an endpoint an outlier, and for how long

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::diagnostic::Diagnostic;
use super::super::model::{FailureRatio, Outlier};
use super::super::node::Node;
use super::super::reader::{Aliases, Table};
use super::super::units::format_duration;
use super::limits;

/// Failures in a row: with more, nobody is ever ejected.
const MAX_FAILURES: u64 = 1000;

/// Shortest and longest time in which a ratio is taken: below, there is nothing to count; above, an
/// endpoint is judged by what it was an hour ago.
const WINDOW: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));

/// What other programs call the keys.
const ALIASES: Aliases = &[
    ("base_ejection_time", "`eject_for`"),
    ("consecutive_5xx", "`consecutive_failures`"),
    ("consecutive_errors", "`consecutive_failures`"),
    ("consecutive_gateway_failure", "`consecutive_failures`"),
    (
        "consecutive_local_origin_failure",
        "`consecutive_connect_failures`",
    ),
    ("enforcing", "mode = \"observe\" or \"enforce\""),
    ("fail_timeout", "`eject_for`"),
    ("max_ejection_percent", "`max_ejected`"),
    ("max_ejection_time", "`max_eject`"),
    ("max_fails", "`consecutive_failures`"),
];

/// Reads `outlier`; without it only connects that fail count.
pub(super) fn lower(upstream: &Table<'_>) -> Outlier {
    let mut outlier = Outlier::unconfigured();
    let Some(node) = upstream.get("outlier") else {
        return outlier;
    };
    if node.as_str() == Some("off") {
        return Outlier::off();
    }
    if !node.is_table() {
        let help = "write outlier = { consecutive_failures = 5 }, or outlier = \"off\"";
        let d = node.mismatch("a table or \"off\"");
        upstream.report.push(d.help(help));
        return outlier;
    }
    let what = format!("`outlier` of {}", upstream.what);
    let Some(table) = node.table(what, "upstreams.*.outlier") else {
        return outlier;
    };
    table.known_as(ALIASES);
    outlier.consecutive_failures = NonZeroU32::new(5);
    for (key, slot) in [
        ("consecutive_failures", &mut outlier.consecutive_failures),
        (
            "consecutive_connect_failures",
            &mut outlier.consecutive_connect_failures,
        ),
    ] {
        if let Some(n) = table.bounded(key, 0..=MAX_FAILURES, "0 switches it off") {
            *slot = NonZeroU32::new(*n as u32);
        }
    }
    outlier.failure_ratio = table
        .get("failure_ratio")
        .and_then(|node| failure_ratio(node, &table));
    times(&table, &mut outlier);
    if let Some(ratio) = table.get("max_ejected").and_then(|n| n.ratio()) {
        outlier.max_ejected = *ratio;
        if *ratio == 0.0 {
            let message = format!("{} ejects nobody: `max_ejected` is 0", table.what);
            let d = Diagnostic::warning("no-effect", ratio.at, message);
            let help = "to count only, write mode = \"observe\"; to do without, outlier = \"off\"";
            table.report.push(d.help(help));
        }
    }
    outlier.mode = limits::mode(&table);
    let judges = outlier.consecutive_failures.is_some()
        || outlier.consecutive_connect_failures.is_some()
        || table.has("failure_ratio");
    if !judges {
        let message = format!("{} finds no endpoint at fault", table.what);
        let d = Diagnostic::warning("no-effect", node.at, message);
        let help = "write outlier = \"off\", or give it one of `consecutive_failures`, \
                    `consecutive_connect_failures` and `failure_ratio`";
        table.report.push(d.help(help));
    }
    table.finish();
    outlier
}

/// `eject_for` and `max_eject`: what is given moves the default of the other.
fn times(table: &Table<'_>, outlier: &mut Outlier) {
    let (eject_for, max_eject) = (table.timeout("eject_for"), table.timeout("max_eject"));
    match (eject_for, max_eject) {
        (Some(first), Some(longest)) if *first > *longest => {
            let message = format!(
                "`eject_for` of {} is {}, longer than its `max_eject` of {}",
                table.what,
                format_duration(*first),
                format_duration(*longest)
            );
            let d = Diagnostic::error("timeout-order", first.at, message);
            let help = "an ejection is twice as long each time, from `eject_for` up to `max_eject`";
            table.report.push(d.help(help));
        }
        (first, longest) => {
            let least = first.map_or(outlier.eject_for, |d| *d);
            outlier.max_eject = longest.map_or(outlier.max_eject.max(least), |d| *d);
            outlier.eject_for = least.min(outlier.max_eject);
        }
    }
}

fn failure_ratio(node: Node<'_>, outlier: &Table<'_>) -> Option<FailureRatio> {
    if !node.is_table() {
        let help = "write failure_ratio = { above = \"50%\", min_requests = 20, window = \"10s\" }";
        outlier.report.push(node.mismatch("a table").help(help));
        return None;
    }
    let what = format!("`failure_ratio` of {}", outlier.what);
    let table = node.table(what, "upstreams.*.outlier.failure_ratio")?;
    let ratio = FailureRatio {
        above: table.get("above").and_then(above).unwrap_or(0.5),
        min_requests: min_requests(&table).unwrap_or(20),
        window: window(&table).unwrap_or(Duration::from_secs(10)),
    };
    table.finish();
    Some(ratio)
}

/// A share that another one can be above.
pub(super) fn above(node: Node<'_>) -> Option<f64> {
    let ratio = node.ratio()?;
    if *ratio >= 1.0 {
        let message = format!("`{}` must be below 100%", node.key);
        let help = "it is reached when a larger share fails, and none is larger: write \"99%\"";
        node.report
            .push(node.error("out-of-range", message).help(help));
        return None;
    }
    Some(*ratio)
}

/// `min_requests`, here and of a breaker.
pub(super) fn min_requests(table: &Table<'_>) -> Option<u32> {
    let n = table.bounded(
        "min_requests",
        1..=limits::MAX_COUNT,
        "with fewer requests in `window` the share says nothing",
    )?;
    Some(*n as u32)
}

/// `window`, here and of a breaker.
pub(super) fn window(table: &Table<'_>) -> Option<Duration> {
    let (shortest, longest) = WINDOW;
    let window = table.timeout("window")?;
    if *window < shortest || *window > longest {
        let message = format!("`window` of {} must be from 100ms to 1h", table.what);
        let d = Diagnostic::error("out-of-range", window.at, message);
        let help = "what failed longer ago is forgotten: \"10s\" is usual";
        table.report.push(d.help(help));
        return None;
    }
    Some(*window)
}
