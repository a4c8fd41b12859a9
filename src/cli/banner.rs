//! What `isobar run` says when it serves: what listens where, and what to try.

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::config::{Action, Config, Listener, Name, Serves};
use crate::server::Server;

/// Listeners named before the rest is only counted.
const SHOWN: usize = 12;

/// A few lines for people.
pub(super) fn banner(config: &Config, server: &Server) -> String {
    let mut out = format!("isobar {} serves\n", env!("CARGO_PKG_VERSION"));
    // Writing to a String cannot fail.
    for listener in config.listeners.iter().take(SHOWN) {
        let at = server.local_addr(&listener.name).map_or_else(
            || listener.bind[0].to_string(),
            |addr| format!("{}://{}", scheme(listener), reach(addr)),
        );
        let to = match &listener.serves {
            Serves::Http => routes(listener, config),
            Serves::Tcp(_) | Serves::Udp(_) => {
                let upstream = listener.serves.upstream();
                upstream.map_or_else(|| "those who are named".to_owned(), |to| leads(to, config))
            }
        };
        let to = match listener.passthrough.len() {
            0 => to,
            n => format!("{to}, {n} of passthrough"),
        };
        let _ = writeln!(out, "  {:<12} {at:<28} {to}", listener.name);
    }
    if let Some(more) = config.listeners.len().checked_sub(SHOWN).filter(|n| *n > 0) {
        let _ = writeln!(out, "  … and {more} more listeners");
    }
    if let Some(admin) = server.admin_addr() {
        let url = format!("http://{}", reach(admin));
        let _ = writeln!(out, "  {:<12} {url:<28} /metrics /livez /readyz", "admin");
    }
    if let Some(first) = config
        .listeners
        .iter()
        .find(|l| l.serves == Serves::Http)
        .and_then(|l| Some((l.tls.is_some(), server.local_addr(&l.name)?)))
    {
        let (is_tls, addr) = first;
        // A name and a CA are missing for more than a look.
        let to = if is_tls { "-k https://" } else { "" };
        let _ = writeln!(out, "try: curl {to}{}", reach(addr));
    }
    let _ = writeln!(out, "stop with Ctrl-C: what is in flight is finished first");
    out
}

fn scheme(listener: &Listener) -> &'static str {
    match (&listener.serves, listener.tls.is_some()) {
        (Serves::Http, false) => "http",
        (Serves::Http, true) => "https",
        (Serves::Tcp(_), false) => "tcp",
        (Serves::Tcp(_), true) => "tls",
        (Serves::Udp(_), _) => "udp",
    }
}

/// Where the requests of a listener go.
fn routes(listener: &Listener, config: &Config) -> String {
    let to: Vec<String> = config
        .routes
        .iter()
        .filter(|r| r.rule.listeners.is_empty() || r.rule.listeners.contains(&listener.name))
        .map(|r| describe(&r.action, config))
        .collect();
    match to.as_slice() {
        [] => "nothing: no route leads on".to_owned(),
        [one] => one.clone(),
        many => format!("{} routes", many.len()),
    }
}

/// An address that can be typed into a client: a wildcard listens on this one too.
fn reach(addr: SocketAddr) -> SocketAddr {
    let mut addr = addr;
    if addr.ip().is_unspecified() {
        addr.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    addr
}

fn describe(action: &Action, config: &Config) -> String {
    match action {
        Action::Redirect { to, .. } => format!("redirects to {to}"),
        Action::Respond { status, .. } => format!("answers {}", status.as_u16()),
        Action::Split(to) => {
            let names: Vec<String> = to
                .iter()
                .map(|(name, weight)| format!("{name} {weight}"))
                .collect();
            format!("-> split: {}", names.join(", "))
        }
        Action::Upstream(name) => leads(name, config),
    }
}

fn leads(to: &Name, config: &Config) -> String {
    let endpoints = config
        .upstreams
        .iter()
        .find(|u| u.name == *to)
        .map_or(0, |u| u.endpoints.len());
    let plural = if endpoints == 1 { "" } else { "s" };
    format!("-> {to} ({endpoints} endpoint{plural})")
}
