//! `[upstreams.NAME.agent]`

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use crate::base::addr::EndpointAddr;

use super::super::diagnostic::Diagnostic;
use super::super::model::{AgentSpec, Endpoint};
use super::super::reader::Table;
use super::super::units::format_duration;
use super::headers::{self, Side};
use super::health;
use super::process::set;

/// As a check's, and as HAProxy's `agent-inter`.
const INTERVAL: Duration = Duration::from_secs(2);

/// As a check's: an agent that has not spoken by then has nothing to say.
const TIMEOUT: Duration = Duration::from_secs(1);

/// A line; HAProxy cuts it there too.
const MAX_SEND: usize = 1024;

/// Reads the table; `None` = nobody would be listened to, which was reported.
pub(super) fn lower(table: Table<'_>, endpoints: &[Endpoint]) -> Option<Arc<AgentSpec>> {
    let port = table.get("port");
    let header = table.get("header");
    let is_deaf = port.is_none() && header.is_none();
    if is_deaf {
        let message = format!("{} has neither `port` nor `header`", table.what);
        let d = Diagnostic::error("missing-key", table.at, message);
        let help = "`port` is where agents are asked, `header` the response field to listen to";
        table.report.push(d.help(help));
    }
    let mut spec = AgentSpec {
        port: None,
        send: None,
        interval: INTERVAL,
        timeout: TIMEOUT,
        header: header
            .and_then(|node| node.text())
            .and_then(|text| headers::name(text, Side::Response, table.report)),
    };
    if let Some(node) = port {
        let port = node.integer(1..=u64::from(u16::MAX));
        spec.port = port.and_then(|port| NonZeroU16::new(*port as u16));
        let unix = |e: &&Endpoint| matches!(e.addr, EndpointAddr::Unix(_));
        if let Some(unix) = endpoints.iter().find(unix) {
            let message = format!("`port` of {}: `{}` has no port", table.what, unix.addr);
            let help = "an agent is asked at the address of its endpoint: use `header`";
            table.report.push(node.error("no-port", message).help(help));
        }
    }
    if let Some(send) = table.text("send") {
        if send.len() <= MAX_SEND {
            spec.send = Some((*send).to_owned());
        } else {
            let message = format!("`send` of {} is longer than 1024 bytes", table.what);
            let d = Diagnostic::error("out-of-range", send.at, message);
            table.report.push(d);
        }
    }
    set(&mut spec.interval, health::interval(&table, "interval"));
    spec.timeout = spec.timeout.min(spec.interval);
    if let Some(timeout) = table.timeout("timeout") {
        spec.timeout = *timeout;
        if spec.timeout > spec.interval {
            let (long, short) = (
                format_duration(spec.timeout),
                format_duration(spec.interval),
            );
            let message = format!(
                "`timeout` of {} is {long}, longer than its `interval` of {short}",
                table.what
            );
            let d = Diagnostic::error("timeout-order", timeout.at, message);
            let help = format!(
                "an answer comes before the next question: lower `timeout` to \"{short}\", or \
                 raise `interval`"
            );
            table.report.push(d.help(help));
        }
    }
    if port.is_none() && !is_deaf {
        for key in ["send", "interval", "timeout"] {
            if table.has(key)
                && let Some(node) = table.get(key)
            {
                let message = format!("`{key}` does nothing: {} has no `port`", table.what);
                let d = Diagnostic::warning("no-effect", node.at, message);
                let help = "nobody is asked; what the header says is heard with each response";
                table.report.push(d.help(help));
            }
        }
    }
    table.finish();
    (!is_deaf).then(|| Arc::new(spec))
}
