//! Who leads to which upstream: what its keys amount to there, what cannot be.

use std::collections::HashMap;

use super::super::diagnostic::{Diagnostic, Report};
use super::super::model::{ProxyVersion, Serves};
use super::super::source::At;
use super::{Draft, upstream};

/// The first place of each kind that leads to an upstream.
#[derive(Debug, Default)]
struct Reach<'a> {
    http: Option<At<'a>>,
    tcp: Option<At<'a>>,
    udp: Option<At<'a>>,
}

/// Reports what does not go with those who lead to an upstream.
pub(super) fn check(draft: &Draft<'_>, report: &Report) {
    let reached = reached(draft);
    for upstream in &draft.upstreams {
        let Some(reach) = reached.get(&*upstream.name.value) else {
            continue;
        };
        if let Some(by) = reach.udp {
            datagrams(upstream, by, report);
        }
        if reach.http.is_none()
            && let Some(by) = reach.tcp.or(reach.udp)
        {
            requests_only(upstream, by, report);
        } else if let Some(at) = upstream.places.idle_connections {
            let message = format!(
                "`keepalive` does nothing: upstream `{}` has `send_proxy_protocol`",
                *upstream.name
            );
            let d = Diagnostic::warning("no-effect", at, message);
            let help = "a connection tells of one client, so none is kept for the next: leave \
                        `keepalive` out";
            report.push(d.help(help));
        }
    }
}

fn reached<'d, 'a>(draft: &'d Draft<'a>) -> HashMap<&'d str, Reach<'a>> {
    let mut reached: HashMap<&str, Reach<'a>> = HashMap::new();
    for route in &draft.routes {
        for name in &route.upstreams {
            let reach = reached.entry(&*name.value).or_default();
            reach.http.get_or_insert(name.at);
        }
    }
    for listener in &draft.listeners {
        if let Some(name) = &listener.upstream {
            let reach = reached.entry(&*name.value).or_default();
            reach.http.get_or_insert(name.at);
        }
        for name in &listener.targets {
            let reach = reached.entry(&*name.value).or_default();
            match listener.listener.serves {
                Serves::Udp(_) => reach.udp.get_or_insert(name.at),
                Serves::Http | Serves::Tcp(_) => reach.tcp.get_or_insert(name.at),
            };
        }
    }
    reached
}

/// What cannot be where datagrams are sent.
fn datagrams(draft: &upstream::Draft<'_>, by: At<'_>, report: &Report) {
    let name = &*draft.name.value;
    let wrong = |at: Option<At<'_>>, message: String, help: &str| {
        if let Some(at) = at {
            let d = Diagnostic::error("no-datagrams", at, message);
            report.push(d.related(by, "it gets datagrams from here").help(help));
        }
    };
    wrong(
        draft.places.unix,
        format!("upstream `{name}` gets datagrams, and this endpoint is a Unix socket"),
        "write the address and port that it takes datagrams at",
    );
    wrong(
        draft.places.tls,
        format!("upstream `{name}` gets datagrams, and has `tls`"),
        "TLS needs a connection: remove `tls`, or make another upstream for datagrams; DTLS and QUIC \
         pass through as they are",
    );
    let v1 = draft.upstream.send_proxy_protocol == Some(ProxyVersion::V1);
    wrong(
        draft.places.send_proxy_protocol.filter(|_| v1),
        format!("upstream `{name}` gets datagrams, and `send_proxy_protocol` is \"v1\""),
        "the text of version 1 knows connections only: write \"v2\"",
    );
}

/// Warns of what means something to requests alone, where there are none.
fn requests_only(draft: &upstream::Draft<'_>, by: At<'_>, report: &Report) {
    for &(key, at) in &draft.places.of_requests {
        let name = &*draft.name.value;
        let (what, help) = match key {
            "header" => (
                "`header`, in `agent`,",
                "no responses are read here: `port` is where agents are asked",
            ),
            "idle_timeout" => ("`idle_timeout`", "the `idle_timeout` of the listener holds"),
            "keepalive" => (
                "`keepalive`",
                "each client has a connection of its own, which ends with it",
            ),
            "key" => (
                "`key`, in `balance`,",
                "there are no requests to take it from: only \"client\" is known of a connection",
            ),
            "protocol" => (
                "`protocol`",
                "bytes are passed on as they are, whatever they say",
            ),
            _ => (
                "`sticky`",
                "there are no cookies here: balance = { policy = \"maglev\", key = \"client\" } keeps \
                 clients with their endpoint",
            ),
        };
        let message = format!("{what} does nothing: no requests lead to upstream `{name}`");
        let d = Diagnostic::warning("no-effect", at, message);
        report.push(d.related(by, "bytes are sent to it from here").help(help));
    }
}
