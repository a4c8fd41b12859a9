//! `[fleet]`

use std::fs::Metadata;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::addr::BindAddr;

use super::super::PortZero;
use super::super::diagnostic::Diagnostic;
use super::super::model::{Fleet, Process, Register};
use super::super::node::{Located, Node};
use super::super::reader::{Aliases, Table};
use super::super::source::At;
use super::super::units::format_duration;
use super::process::{self, set};
use super::{address, check_name, reference, seeds, sticky};

/// The table, and what later checks point at.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) fleet: Fleet,
    /// Where the fleet speaks: UDP and TCP.
    pub(super) bind: Option<address::Bind<'a>>,
    /// Where endpoints register.
    pub(super) register: Option<address::Bind<'a>>,
}

/// Checks of one endpoint that are worth counting: a majority of nine outvotes four liars.
const MAX_PROBERS: u64 = 9;

/// Below this a clock that NTP keeps is refused; above, "last" means nothing between operators.
const CLOCK_SKEW: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(600));

/// A lease that is shorter is renewed more often than checks find out; after a longer one nobody waits.
const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(86_400));

/// What other programs call such a table.
pub(super) const TABLE_ALIASES: Aliases = &[
    ("cluster", "`[fleet]`"),
    ("gossip", "`[fleet]`"),
    ("memberlist", "`[fleet]`"),
    (
        "peers",
        "`[fleet]`, and whom to ask for the others `seeds` there",
    ),
    ("serf", "`[fleet]`"),
];

const ALIASES: Aliases = &[
    ("advertise_addr", "`advertise`, with the port"),
    ("advertise_address", "`advertise`, with the port"),
    ("availability_zone", "`zone`"),
    ("bind_addr", "`bind`, with the port"),
    ("bind_address", "`bind`, with the port"),
    ("bind_port", "`bind`, with the address"),
    ("cluster", "`name`"),
    ("cluster_name", "`name`"),
    ("data_dir", "`state_dir`"),
    ("datacenter", "`zone`"),
    (
        "encrypt",
        "`secret_file`: the secret stands in a file of its own",
    ),
    (
        "encrypt_key",
        "`secret_file`: the secret stands in a file of its own",
    ),
    ("gossip", "`bind`"),
    ("join", "`seeds`"),
    (
        "key",
        "`secret_file`: the secret stands in a file of its own",
    ),
    (
        "keyring",
        "`secret_file`: a secret a line, the first encrypts",
    ),
    (
        "keyring_file",
        "`secret_file`: a secret a line, the first encrypts",
    ),
    ("label", "`name`"),
    ("listen", "`bind`"),
    ("max_clock_skew", "`max_clock_skew` too, in `guard`"),
    ("max_remove", "`max_remove` too, in `guard`"),
    (
        "node",
        "nothing: a peer is known by its address, and by an id of its own that it keeps in `state_dir`",
    ),
    (
        "node_name",
        "nothing: a peer is known by its address, and by an id of its own that it keeps in `state_dir`",
    ),
    ("peer", "`seeds`"),
    ("peers", "`seeds`: a few of them are enough"),
    ("port", "`bind`, with the address"),
    ("probers", "`probers` too, in `health`"),
    ("retry_join", "`seeds`: they are asked until one answers"),
    (
        "secret",
        "`secret_file`: the secret stands in a file of its own",
    ),
    ("start_join", "`seeds`"),
    ("token_file", "`token_file` too, in `register`"),
];

/// What `[fleet]` says, on top of `[process]`.
pub(super) fn lower<'a>(table: Table<'a>, of_process: &Process, port_zero: PortZero) -> Draft<'a> {
    table.known_as(ALIASES);
    let mut fleet = Fleet {
        name: "".into(),
        bind: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        advertise: None,
        seeds: Vec::new(),
        secret_file: PathBuf::new(),
        state_dir: of_process.state_dir.clone(),
        zone: of_process.zone.clone(),
        probers: 3,
        max_remove: 0.5,
        max_clock_skew: Duration::from_secs(5),
        register: None,
    };
    if let Some(name) = table.require("name").and_then(|n| n.text()) {
        check_name(name, table.report);
        fleet.name = reference(name).value;
    }
    let bound = table
        .require("bind")
        .and_then(|n| bind(n, &table, port_zero));
    if let Some((addr, _)) = &bound {
        fleet.bind = *addr;
    }
    let advertise = table.get("advertise");
    fleet.advertise = advertise.and_then(|n| seeds::peer(n.text()?, "`advertise`", &table));
    let asked = table.get("seeds");
    if let Some(node) = asked {
        fleet.seeds = seeds::seeds(node, &table);
    }
    if let Some(text) = table.require("secret_file").and_then(|n| n.text()) {
        fleet.secret_file = secret(text, "secret_file", &table);
    }
    if let Some(text) = table.text("state_dir") {
        fleet.state_dir = Some(process::state_dir(text, &table));
    }
    if let Some(zone) = table.text("zone") {
        check_name(zone, table.report);
        fleet.zone = Some(reference(zone).value);
    }
    if let Some(t) = table.table("health", "fleet.health") {
        t.known_as(&[
            ("k", "`probers`"),
            ("count", "`probers`"),
            ("peers", "`probers`"),
        ]);
        let help = "3 outvote one that is wrong; 0 lets each peer check every endpoint for itself";
        if let Some(n) = t.bounded("probers", 0..=MAX_PROBERS, help) {
            fleet.probers = *n as u32;
        }
        t.finish();
    }
    if let Some(t) = table.table("guard", "fleet.guard") {
        guard(t, &mut fleet);
    }
    let mut registered = None;
    if let Some(t) = table.table("register", "fleet.register") {
        let (register, bound) = register(t, port_zero);
        fleet.register = Some(register);
        registered = bound;
    }
    reachable(&table, &fleet, bound.as_ref(), (advertise, asked));
    if fleet.state_dir.is_none() {
        let message = format!(
            "{} has no `state_dir`: after each start it is a new peer and has forgotten the fleet",
            table.what
        );
        let d = Diagnostic::warning("fleet-forgets", table.at, message);
        let help = "write state_dir = \"/var/lib/isobar\", in [process] or here";
        table.report.push(d.help(help));
    }
    table.finish();
    Draft {
        fleet,
        bind: bound.map(|(_, bind)| bind),
        register: registered,
    }
}

/// An address that this peer listens at; `":7946"` is `[::]`, which here stands for both kinds.
fn bind<'a>(
    node: Node<'a>,
    table: &Table<'a>,
    port_zero: PortZero,
) -> Option<(SocketAddr, address::Bind<'a>)> {
    let bound = address::bind(node.text()?, node.report, port_zero)?;
    let any = |port| {
        let addr = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let bind = Located {
            value: BindAddr::Any(port),
            at: bound.at,
        };
        Some((addr, bind))
    };
    match &bound.value {
        BindAddr::Any(port) => any(*port),
        BindAddr::Ip(addr) if addr.ip() == Ipv6Addr::UNSPECIFIED => any(addr.port()),
        BindAddr::Ip(addr) => Some((*addr, bound)),
        BindAddr::Unix(_) => {
            let message = format!("`{}` of {} is a Unix socket", node.key, table.what);
            let d = Diagnostic::error("bad-address", bound.at, message);
            let help = "others come to it by network: write \"10.0.0.5:7946\" or \":7946\"";
            table.report.push(d.help(help));
            None
        }
    }
}

fn guard(table: Table<'_>, fleet: &mut Fleet) {
    table.known_as(&[
        ("brake", "`max_remove`"),
        ("max_cut", "`max_remove`"),
        ("max_skew", "`max_clock_skew`"),
    ]);
    if let Some(share) = table.get("max_remove").and_then(|n| n.ratio()) {
        if *share < 0.01 {
            let d = Diagnostic::error(
                "out-of-range",
                share.at,
                "`max_remove` must be from 1% to 100%",
            );
            let help =
                "what one peer says may always take one endpoint away; \"50%\" lets it take half";
            table.report.push(d.help(help));
        }
        fleet.max_remove = *share;
    }
    set(
        &mut fleet.max_clock_skew,
        within(&table, "max_clock_skew", CLOCK_SKEW),
    );
    table.finish();
}

fn register(table: Table<'_>, port_zero: PortZero) -> (Register, Option<address::Bind<'_>>) {
    table.known_as(&[
        ("address", "`bind`"),
        ("listen", "`bind`"),
        ("token", "`token_file`: tokens stand in a file of their own"),
        (
            "tokens",
            "`token_file`: tokens stand in a file of their own",
        ),
        ("ttl", "`max_ttl`"),
    ]);
    let mut register = Register {
        bind: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        token_file: PathBuf::new(),
        max_ttl: Duration::from_secs(3600),
    };
    let bound = table
        .require("bind")
        .and_then(|n| bind(n, &table, port_zero));
    if let Some((addr, _)) = &bound {
        register.bind = *addr;
    }
    if let Some(text) = table.require("token_file").and_then(|n| n.text()) {
        register.token_file = secret(text, "token_file", &table);
    }
    set(&mut register.max_ttl, within(&table, "max_ttl", TTL));
    table.finish();
    (register, bound.map(|(_, bind)| bind))
}

/// A duration from the first to the second, both included.
fn within<'a>(
    table: &Table<'a>,
    key: &'static str,
    (least, most): (Duration, Duration),
) -> Option<Located<'a, Duration>> {
    let duration = table.get(key)?.duration()?;
    if (least..=most).contains(&*duration) {
        return Some(duration);
    }
    let (least, most) = (format_duration(least), format_duration(most));
    let message = format!("`{key}` must be from {least} to {most}");
    let d = Diagnostic::error("out-of-range", duration.at, message);
    table.report.push(d);
    None
}

/// A file of secrets, which nobody else should read.
fn secret(text: Located<'_, &str>, key: &str, table: &Table<'_>) -> PathBuf {
    const HELP: &str = "make it once, for the user that isobar runs as alone, and copy it to every peer: \
                        isobar fleet keygen FILE";
    let path = sticky::file_of_secrets(text, key, HELP, table);
    warn_of_readers(&path, text.at, table);
    path
}

/// The fleet's traffic, cookies and tickets are worth what the secret is.
fn warn_of_readers(path: &Path, at: At<'_>, table: &Table<'_>) {
    let found = std::fs::metadata(path).ok().filter(Metadata::is_file);
    let mode = found.map_or(0, |found| found.permissions().mode());
    if mode & 0o004 == 0 {
        return;
    }
    let message = format!(
        "everybody on this machine can read the secret {} (its mode is {:03o})",
        path.display(),
        mode & 0o777
    );
    let d = Diagnostic::warning("key-readable", at, message);
    let help =
        "who has it can send your traffic anywhere: chmod 600, for the user that isobar runs as";
    table.report.push(d.help(help));
}

/// Where the others find this peer.
fn reachable(
    table: &Table<'_>,
    fleet: &Fleet,
    bound: Option<&(SocketAddr, address::Bind<'_>)>,
    (advertise, seeds): (Option<Node<'_>>, Option<Node<'_>>),
) {
    let Some((addr, bind)) = bound else { return };
    let has_seeds = seeds.is_some_and(|node| !node.list_is_empty());
    if addr.ip().is_unspecified() && advertise.is_none() && !has_seeds {
        let message = format!(
            "{} binds every address, and has neither `advertise` nor `seeds`: nobody could find it",
            table.what
        );
        let port = addr.port();
        let help = format!(
            "say where the others reach it: advertise = \"10.0.0.5:{port}\"; or whom to ask: \
             seeds = [\"10.0.0.6:{port}\"]"
        );
        let d = Diagnostic::error("unreachable-peer", bind.at, message);
        table.report.push(d.help(help));
    }
    if let (true, Some(advertised), Some(node)) =
        (addr.ip().is_loopback(), fleet.advertise, advertise)
        && !advertised.ip().is_loopback()
    {
        let message = format!(
            "`advertise` is {advertised}, but {} binds {addr}: only this machine reaches that",
            table.what
        );
        let d = Diagnostic::warning("unreachable-peer", node.at, message);
        let help = format!("write bind = \"0.0.0.0:{}\"", addr.port());
        table.report.push(d.help(help));
    }
}
