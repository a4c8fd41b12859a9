//! `http2` of `[listeners.NAME]`

use std::num::NonZeroU32;

use super::super::diagnostic::Diagnostic;
use super::super::model::Http2;
use super::super::node::{Located, Node};
use super::super::reader::{Aliases, Table};
use super::super::units::format_size;

/// Most streams of a connection: above, one client is a flood.
pub(super) const MAX_STREAMS: u64 = 10_000;

/// Window of a stream: below a frame's size (RFC 9113 section 4.2) every frame would wait for an
/// update; above, one upload that nobody reads holds more than ten thousand idle connections.
const STREAM_WINDOW: (u64, u64) = (16 << 10, 16 << 20);

/// Window of a connection: it begins at this (65,535 in RFC 9113 section 6.9.2) and cannot be lowered;
/// and no window may be larger than 2^31-1 (section 6.9.1).
const CONNECTION_WINDOW: (u64, u64) = (64 << 10, (1 << 31) - 1);

/// Most frames of a kind at once.
const MAX_BUDGET: u64 = 1_000_000;

/// What other programs call the keys.
const ALIASES: Aliases = &[
    ("concurrent_streams", "`max_streams`"),
    ("connection_window_size", "`connection_window`"),
    ("http2_max_concurrent_streams", "`max_streams`"),
    ("initial_connection_window_size", "`connection_window`"),
    ("initial_stream_window_size", "`stream_window`"),
    ("initial_window_size", "`stream_window`"),
    ("max_concurrent_streams", "`max_streams`"),
    ("max_reset_streams", "`max_resets`"),
    ("max_streams_per_connection", "`max_streams`"),
    ("stream_window_size", "`stream_window`"),
];

/// Reads `http2`: a table or "off"; `None` = HTTP/1 only.
pub(super) fn lower(listener: &Table<'_>) -> Option<Http2> {
    let mut http2 = Http2::default();
    let Some(node) = listener.get("http2") else {
        return Some(http2);
    };
    if node.as_str() == Some("off") {
        return None;
    }
    if !node.is_table() {
        let d = node.mismatch("a table or \"off\"");
        let help = "it is on by itself: write http2 = { max_streams = 100 }, or http2 = \"off\"";
        listener.report.push(d.help(help));
        return Some(http2);
    }
    let what = format!("`http2` of {}", listener.what);
    let Some(table) = node.table(what, "listeners.*.http2") else {
        return Some(http2);
    };
    table.known_as(ALIASES);
    if let Some(n) = table.bounded(
        "max_streams",
        1..=MAX_STREAMS,
        "100 is usual: clients open another connection, or wait",
    ) {
        http2.max_streams = NonZeroU32::new(*n as u32).unwrap_or(http2.max_streams);
    }
    if let Some(node) = table.get("stream_window")
        && let Some(size) = within(node, &table, STREAM_WINDOW, "128KiB is usual")
    {
        http2.stream_window = *size as u32;
    }
    http2.connection_window = connection_window(&table, &http2);
    for (key, slot) in [
        ("max_resets", &mut http2.max_resets),
        ("max_pings", &mut http2.max_pings),
        ("max_settings", &mut http2.max_settings),
        ("max_idle_frames", &mut http2.max_idle_frames),
    ] {
        let help = "so many at once are well, and a thirtieth of them a second: 1000 is usual";
        if let Some(n) = table.bounded(key, 1..=MAX_BUDGET, help) {
            *slot = *n as u32;
        }
    }
    table.finish();
    Some(http2)
}

/// A size or "auto": the windows of all streams together.
fn connection_window(table: &Table<'_>, http2: &Http2) -> u32 {
    let stream = u64::from(http2.stream_window);
    let (low, high) = CONNECTION_WINDOW;
    let auto = (u64::from(http2.max_streams.get()) * stream).clamp(low, high) as u32;
    let Some(node) = table.get("connection_window") else {
        return auto;
    };
    if node.as_str() == Some("auto") {
        return auto;
    }
    let help = "\"auto\" is `max_streams` times `stream_window`";
    let Some(size) = within(node, table, CONNECTION_WINDOW, help) else {
        return auto;
    };
    if *size < stream {
        let message = format!(
            "`connection_window` of {} is {}, below its `stream_window` of {}",
            table.what,
            format_size(*size),
            format_size(stream)
        );
        let d = Diagnostic::error("out-of-range", size.at, message);
        let help = "streams share the window of their connection, and one that is not read takes \
                    its share: write \"auto\", `max_streams` times `stream_window`";
        table.report.push(d.help(help));
        return auto;
    }
    *size as u32
}

fn within<'a>(
    node: Node<'a>,
    table: &Table<'_>,
    (low, high): (u64, u64),
    help: &str,
) -> Option<Located<'a, u64>> {
    let size = node.size()?;
    if (low..=high).contains(&size) {
        return Some(size);
    }
    // Nobody reads 2147483647B.
    let high = match high {
        0x7fff_ffff => "2GiB - 1".to_owned(),
        high => format_size(high),
    };
    let message = format!(
        "`{}` of {} must be from {} to {high}",
        node.key,
        table.what,
        format_size(low)
    );
    table
        .report
        .push(node.error("out-of-range", message).help(help));
    None
}
