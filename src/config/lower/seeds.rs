//! Addresses of peers: `fleet.seeds`, `fleet.advertise`

use std::net::SocketAddr;

use super::super::diagnostic::Diagnostic;
use super::super::model::Seed;
use super::super::node::{Located, Node};
use super::super::reader::Table;
use super::address;

/// More addresses than a peer needs to find one that answers: that many are a list of the fleet, which
/// DNS keeps better.
const MAX_SEEDS: usize = 64;

/// Longest name in DNS (RFC 1035 section 2.3.4).
const MAX_DNS_NAME: usize = 253;

/// An address that another peer connects to.
pub(super) fn peer(text: Located<'_, &str>, what: &str, table: &Table<'_>) -> Option<SocketAddr> {
    let bad = |message: String, help: String| {
        let d = Diagnostic::error("bad-address", text.at, message);
        table.report.push(d.help(help));
        None
    };
    let shown = text.escape_debug();
    let is_seed = what != "`advertise`";
    match address::read(&text) {
        address::Read::Ip(addr) if addr.port() == 0 => {
            let d = Diagnostic::error("port-zero", text.at, format!("{what} `{shown}` has port 0"));
            table
                .report
                .push(d.help("peers need the port that it listens on"));
            None
        }
        address::Read::Ip(addr) if addr.ip().is_unspecified() => bad(
            format!("{what} `{shown}` is every address, not one to connect to"),
            format!(
                "write one of the machine's own, such as \"10.0.0.5:{}\"",
                addr.port()
            ),
        ),
        address::Read::Ip(addr) if addr.ip().is_multicast() => bad(
            format!("{what} `{shown}` is a multicast address"),
            "peers speak to one another one by one: write the address of one".to_owned(),
        ),
        address::Read::Ip(addr) => Some(addr),
        address::Read::NoPort(ip) => bad(
            format!("{what} `{shown}` has no port"),
            format!("did you mean \"{}\"?", SocketAddr::new(ip, 7946)),
        ),
        address::Read::Name if is_seed => {
            let (name, port) = text.rsplit_once(':').unwrap_or((*text, "7946"));
            bad(
                format!("{what} `{shown}` is a name"),
                format!("did you mean \"dns:{name}:{port}\"?"),
            )
        }
        address::Read::Name => bad(
            format!("{what} `{shown}` is a name: the others are told an address"),
            "write one of the machine's own, such as \"10.0.0.5:7946\"".to_owned(),
        ),
        address::Read::Port(port) | address::Read::BarePort(port) => bad(
            format!("{what} `{shown}` has no address"),
            format!("write one that peers reach, such as \"10.0.0.5:{port}\""),
        ),
        address::Read::Url | address::Read::Nonsense => bad(
            format!("{what} `{shown}` is not the address of a peer"),
            if is_seed {
                "write \"10.0.0.6:7946\", \"[2001:db8::6]:7946\" or \"dns:isobar.internal:7946\""
                    .to_owned()
            } else {
                "write \"10.0.0.5:7946\" or \"[2001:db8::5]:7946\"".to_owned()
            },
        ),
    }
}

pub(super) fn seeds(node: Node<'_>, table: &Table<'_>) -> Vec<Seed> {
    let mut seeds = Vec::new();
    if node.list_length() > MAX_SEEDS {
        let message = format!(
            "`seeds` of {} has {} addresses; at most {MAX_SEEDS}",
            table.what,
            node.list_length()
        );
        let help = "a few that are mostly up are enough, or a name for all: \
                    \"dns:isobar.internal:7946\"";
        table
            .report
            .push(node.error("too-many", message).help(help));
        return seeds;
    }
    for text in node.one_or_more() {
        let seed = match text.strip_prefix("dns:") {
            Some(rest) => name_and_port(rest, text, table),
            None => peer(text, "the seed", table).map(Seed::Addr),
        };
        seeds.extend(seed);
    }
    seeds
}

/// What follows `dns:`.
fn name_and_port(rest: &str, text: Located<'_, &str>, table: &Table<'_>) -> Option<Seed> {
    let bad = |message: String, help: String| {
        let d = Diagnostic::error("bad-address", text.at, message);
        table.report.push(d.help(help));
        None
    };
    let shown = text.escape_debug();
    let (name, port) = match rest.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() => (name, port),
        Some((name, _)) => (name, ""),
        None => (rest, ""),
    };
    if let address::Read::Ip(addr) = address::read(rest) {
        return bad(
            format!("the seed `{shown}` is an address, not a name"),
            format!("did you mean \"{addr}\"?"),
        );
    }
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let labels = name.strip_suffix('.').unwrap_or(name);
    if labels.len() > MAX_DNS_NAME || !labels.split('.').all(is_label) {
        return bad(
            format!("the seed `{shown}` has no name that DNS knows"),
            "write \"dns:isobar.internal:7946\"".to_owned(),
        );
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Some(Seed::Dns {
            name: name.to_owned(),
            port,
        }),
        _ if port.is_empty() => bad(
            format!("the seed `{shown}` has no port"),
            format!("did you mean \"dns:{name}:7946\"?"),
        ),
        _ => bad(
            format!("the seed `{shown}` has the port `{}`", port.escape_debug()),
            "ports are 1 to 65535".to_owned(),
        ),
    }
}
