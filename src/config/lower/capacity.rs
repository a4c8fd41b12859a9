//! How much endpoints take, of `[upstreams.NAME]`: `max_connections`, `queue`,
//! `adaptive_concurrency` and `slow_start`

use std::num::NonZeroU32;
use std::time::Duration;

use crate::balance::PolicyKind;

use super::super::diagnostic::Diagnostic;
use super::super::model::{Adaptive, Upstream};
use super::super::node::Node;
use super::super::reader::{Aliases, Table};
use super::limits;
use super::process::set;

/// Longest slow start: who takes longer to be warm has another problem.
const MAX_SLOW_START: Duration = Duration::from_secs(3600);

/// What other programs call the keys of `queue`.
const QUEUE_ALIASES: Aliases = &[
    ("max", "`length`"),
    ("max_pending", "`length`"),
    ("maxqueue", "`length`"),
    ("size", "`length`"),
];

/// Reads the four, once the policy is known.
pub(super) fn lower(table: &Table<'_>, u: &mut Upstream) {
    u.max_connections = limits::count(table, "max_connections");
    u.adaptive = table
        .get("adaptive_concurrency")
        .and_then(|node| adaptive(node, table));
    if let Some(node) = table.get("queue") {
        queue(node, table, u);
    }
    if let Some(slow_start) = table.timeout("slow_start") {
        if *slow_start > MAX_SLOW_START {
            let d = Diagnostic::error(
                "out-of-range",
                slow_start.at,
                "`slow_start` must be at most 1h",
            );
            let help = "\"30s\" is usual: what caches and just-in-time compilers take";
            table.report.push(d.help(help));
        } else {
            u.slow_start = Some(*slow_start);
        }
        let why = match u.policy.kind {
            PolicyKind::RingHash | PolicyKind::Maglev | PolicyKind::Rendezvous => {
                Some("keys stay with their endpoint, however new it is")
            }
            PolicyKind::First => Some("the first that is ready gets everything"),
            PolicyKind::LeastRequest
            | PolicyKind::PeakEwma
            | PolicyKind::Random
            | PolicyKind::RoundRobin
            | PolicyKind::Weighted => None,
        };
        if let Some(why) = why {
            let message = format!(
                "`slow_start` does nothing with the policy of {}",
                table.what
            );
            let d = Diagnostic::warning("no-effect", slow_start.at, message);
            table.report.push(d.help(why));
        }
    }
}

/// `true`, or its bounds.
fn adaptive(node: Node<'_>, upstream: &Table<'_>) -> Option<Adaptive> {
    // Three: fewer cannot tell a queue from a slow answer. A thousand is above what one endpoint
    // has in flight where a limit matters.
    let mut found = Adaptive {
        min: NonZeroU32::new(3)?,
        max: NonZeroU32::new(1000)?,
    };
    if let Some(on) = node.as_bool() {
        return on.then_some(found);
    }
    if !node.is_table() {
        let help = "write adaptive_concurrency = true or { min = 3, max = 1000 }";
        let d = node.mismatch("true, false or a table");
        upstream.report.push(d.help(help));
        return None;
    }
    let what = format!("`adaptive_concurrency` of {}", upstream.what);
    let table = node.table(what, "upstreams.*.adaptive_concurrency")?;
    let bound = |key| {
        let help = "the limit moves between `min` and `max`: 3 and 1000 are usual";
        let n = table.bounded(key, 1..=limits::MAX_COUNT, help)?;
        NonZeroU32::new(*n as u32)
    };
    let (min, max) = (bound("min"), bound("max"));
    match (min, max) {
        (Some(min), Some(max)) if min > max => {
            let message = format!("`min` of {} is {min}, above its `max` of {max}", table.what);
            let d = node.error("out-of-range", message);
            table
                .report
                .push(d.help("the limit moves between the two: swap them, or give one"));
        }
        // The other one makes room for the one that was given.
        _ => {
            found.min = min.unwrap_or(max.map_or(found.min, |max| max.min(found.min)));
            found.max = max.unwrap_or(found.max.max(found.min));
        }
    }
    table.finish();
    Some(found)
}

fn queue(node: Node<'_>, upstream: &Table<'_>, u: &mut Upstream) {
    let what = format!("`queue` of {}", upstream.what);
    let Some(table) = node.table(what, "upstreams.*.queue") else {
        return;
    };
    table.known_as(QUEUE_ALIASES);
    if let Some(n) = table.bounded(
        "length",
        0..=limits::MAX_COUNT,
        "what endpoints answer within `timeout` is enough; 0: nobody waits",
    ) {
        u.queue.length = *n as u32;
    }
    set(&mut u.queue.timeout, table.timeout("timeout"));
    // A bad limit was reported; that nothing waits is no second problem.
    let limited = ["max_connections", "adaptive_concurrency"]
        .iter()
        .any(|key| upstream.has(key));
    if !limited {
        let message = format!(
            "`queue` does nothing: endpoints of {} have no limit",
            upstream.what
        );
        let d = Diagnostic::warning("no-effect", node.at, message);
        let help = "exchanges wait while every endpoint has its `max_connections`";
        table.report.push(d.help(help));
    }
    table.finish();
}
