//! The PROXY protocol: `proxy_protocol` of `[listeners.NAME]`, `send_proxy_protocol` of
//! `[upstreams.NAME]`

use std::time::Duration;

use crate::base::addr::BindAddr;

use super::super::diagnostic::Diagnostic;
use super::super::model::{Protocol, ProxyProtocol, ProxyVersion, Upstream};
use super::super::reader::{Aliases, Table};
use super::address;
use super::layer4::Spoken;
use super::process::set;

const VERSIONS: [(&str, Option<ProxyVersion>); 3] = [
    ("v1", Some(ProxyVersion::V1)),
    ("v2", Some(ProxyVersion::V2)),
    ("off", None),
];

/// What other programs call the keys.
const ALIASES: Aliases = &[
    ("allow", "`from`"),
    (
        "insecure",
        "nothing: `from` names who may say who the client is",
    ),
    ("networks", "`from`"),
    ("proxy_protocol_timeout", "`timeout`"),
    ("set_real_ip_from", "`from`"),
    ("trustedIPs", "`from`"),
    ("trusted_ips", "`from`"),
    ("trusted_proxies", "`from`"),
    ("version", "nothing: both versions are understood"),
    ("versions", "nothing: both versions are understood"),
];

const FORM: &str = "write proxy_protocol = { from = [\"10.0.0.0/8\"] }: the networks of the balancers in \
                    front, because whoever may speak it can claim any address";

/// The header is the first thing that a balancer sends: three losses of a segment, as HAProxy's docs
/// advise for `tcp-request connection expect-proxy`.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Reads `proxy_protocol`; `None` = clients connect themselves, or nobody may speak it, which was
/// reported.
pub(super) fn accepted(
    listener: &Table<'_>,
    bind: &[BindAddr],
    spoken: Option<Spoken>,
) -> Option<ProxyProtocol> {
    let node = listener.get("proxy_protocol")?;
    if matches!(node.as_str(), Some("off")) || node.as_bool() == Some(false) {
        return None;
    }
    if !node.is_table() {
        listener.report.push(node.mismatch("a table").help(FORM));
        return None;
    }
    let what = format!("`proxy_protocol` of {}", listener.what);
    let table = node.table(what, "listeners.*.proxy_protocol")?;
    table.known_as(ALIASES);
    // Who may open a Unix socket is decided by its folder.
    let is_unix = !bind.is_empty() && bind.iter().all(|b| matches!(b, BindAddr::Unix(_)));
    let from = table.get("from");
    if from.is_none() && !is_unix {
        let d = Diagnostic::error(
            "missing-key",
            table.at,
            format!("{} has no `from`", table.what),
        );
        table.report.push(d.label("`from` is required").help(FORM));
    }
    if let Some(from) = from
        && from.list_is_empty()
    {
        let message = format!("`from` of {} is an empty list", table.what);
        table
            .report
            .push(from.error("empty-list", message).help(FORM));
    }
    let texts = from.map(|node| node.one_or_more()).unwrap_or_default();
    let mut networks = Vec::new();
    for text in texts {
        if *text == "unix" || text.starts_with("unix:") {
            let message = format!(
                "`from` of {} cannot be `{}`",
                table.what,
                text.escape_debug()
            );
            let d = Diagnostic::error("bad-network", text.at, message);
            let help = "leave it out: who connects to a Unix socket may always speak it";
            table.report.push(d.help(help));
        } else {
            networks.extend(address::network(text, table.report));
        }
    }
    let mut found = ProxyProtocol {
        from: networks,
        timeout: TIMEOUT,
    };
    let timeout = table.timeout("timeout");
    if let Some(timeout) = timeout.filter(|_| spoken == Some(Spoken::Udp)) {
        let message = format!("`timeout` of {} does nothing", table.what);
        let d = Diagnostic::warning("no-effect", timeout.at, message);
        let help = "each datagram brings its header along: nothing is waited for";
        table.report.push(d.help(help));
    }
    set(&mut found.timeout, timeout);
    table.finish();
    Some(found)
}

/// Reads `send_proxy_protocol`, once the upstream's protocol is known.
pub(super) fn sent(table: &Table<'_>, u: &mut Upstream) {
    let Some(node) = table.get("send_proxy_protocol") else {
        return;
    };
    if !node.is_string() {
        let help = "write send_proxy_protocol = \"v2\", or \"v1\" for what does not understand it";
        table
            .report
            .push(node.mismatch("\"v1\", \"v2\" or \"off\"").help(help));
        return;
    }
    u.send_proxy_protocol = node.word(&VERSIONS).flatten();
    if u.send_proxy_protocol.is_some() && u.protocol != Protocol::H1 {
        let word = if u.protocol == Protocol::H2 {
            "h2"
        } else {
            "auto"
        };
        let message = format!(
            "`send_proxy_protocol` of {} does not go with protocol `{word}`",
            table.what
        );
        let d = node.error("shared-connection", message);
        let help = "a connection of HTTP/2 carries the requests of many clients, and the PROXY protocol \
                    names one for all of it: write protocol = \"h1\", or leave it out and let \
                    `forwarding` of the listener tell who the client is";
        table.report.push(d.help(help));
    }
}
