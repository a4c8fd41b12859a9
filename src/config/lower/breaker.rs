//! `[upstreams.NAME.breaker]`

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::diagnostic::Diagnostic;
use super::super::model::{Breaker, FailureRatio, Upstream};
use super::super::reader::{Aliases, Table};
use super::process::set;
use super::{limits, outlier};

/// Trials at once: more is no trial any more.
const MAX_TRIALS: u64 = 1000;

/// What other programs call the keys.
const ALIASES: Aliases = &[
    ("fallback_duration", "`open_for`"),
    ("half_open_requests", "`trials`"),
    ("max_connections", "`max_in_flight`"),
    ("max_pending_requests", "`max_pending`"),
    ("max_requests", "`max_in_flight`"),
    ("sleep_window", "`open_for`"),
    ("threshold", "`failure_ratio`"),
];

/// Reads `breaker`, once limits and queue are known.
pub(super) fn lower(upstream: &Table<'_>, u: &Upstream) -> Option<Breaker> {
    /// Any of them says that failures are to be counted.
    const OF_RATIO: [&str; 5] = [
        "failure_ratio",
        "min_requests",
        "window",
        "open_for",
        "trials",
    ];
    let node = upstream.get("breaker")?;
    if !node.is_table() {
        let help = "write breaker = { failure_ratio = \"50%\" }, or leave it out for none";
        upstream.report.push(node.mismatch("a table").help(help));
        return None;
    }
    let table = node.table(
        format!("`breaker` of {}", upstream.what),
        "upstreams.*.breaker",
    )?;
    table.known_as(ALIASES);
    let above = table.get("failure_ratio").and_then(outlier::above);
    let ratio = FailureRatio {
        above: above.unwrap_or(0.5),
        min_requests: outlier::min_requests(&table).unwrap_or(50),
        window: outlier::window(&table).unwrap_or(Duration::from_secs(10)),
    };
    let bounded = table.has("max_pending") || table.has("max_in_flight");
    let counts = !bounded || OF_RATIO.iter().any(|key| table.has(key));
    let mut open_for = Duration::from_secs(5);
    set(&mut open_for, table.timeout("open_for"));
    let trials = table.bounded(
        "trials",
        1..=MAX_TRIALS,
        "so many requests find out whether it is well: 3 is usual",
    );
    let breaker = Breaker {
        failure_ratio: counts.then_some(ratio),
        open_for,
        trials: NonZeroU32::new(trials.map_or(3, |n| *n as u32))?,
        max_pending: max_pending(&table, upstream, u),
        max_in_flight: limits::count(&table, "max_in_flight"),
        mode: limits::mode(&table),
    };
    table.finish();
    Some(breaker)
}

/// `max_pending`, which counts who waits in the queue.
fn max_pending(table: &Table<'_>, upstream: &Table<'_>, u: &Upstream) -> Option<NonZeroU32> {
    let node = table.get("max_pending")?;
    let pending = limits::whole(node)?;
    let limited = ["max_connections", "adaptive_concurrency"]
        .iter()
        .any(|key| upstream.has(key));
    let why = if !limited {
        Some("nobody waits where neither `max_connections` nor `adaptive_concurrency` is given")
    } else if u.queue.length < pending.get() {
        Some("the queue is full before that: it is above the `length` of `queue`")
    } else {
        None
    };
    if let Some(why) = why {
        let message = format!("`max_pending` of {} does nothing", table.what);
        let d = Diagnostic::warning("no-effect", node.at, message);
        table.report.push(d.help(why));
    }
    Some(pending)
}
