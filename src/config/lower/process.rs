//! `[process]`, `[admin]`, `[log]` and `[defaults]`: what, with `[fleet]`, only the main file may hold.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use tracing::Level;

use super::super::PortZero;
use super::super::diagnostic::Diagnostic;
use super::super::model::{AccessFormat, AccessLog, Admin, Keepalive, Log, LogTarget, Process};
use super::super::node::{Located, Node};
use super::super::reader::Table;
use super::{address, check_name, fleet, reference};

/// The kinds of table here, with the name users write.
const SECTIONS: [&str; 5] = ["process", "admin", "log", "defaults", "fleet"];

/// More workers than any machine has cores: a typing error.
const MAX_WORKERS: u64 = 1024;

/// Largest user id: the next one, -1, stands for "no user" in system calls (`chown(2)`).
const MAX_UID: u64 = u32::MAX as u64 - 1;

/// What the main file says.
#[derive(Debug)]
pub(super) struct Main<'a> {
    pub(super) process: Process,
    pub(super) admin: Admin,
    /// What the admin server listens on, TCP and Unix.
    pub(super) admin_binds: Vec<address::Bind<'a>>,
    pub(super) log: Log,
    pub(super) defaults: Defaults,
    pub(super) fleet: Option<fleet::Draft<'a>>,
}

/// What upstreams inherit.
#[derive(Clone, Debug)]
pub(super) struct Defaults {
    pub(super) connect_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) keepalive: Keepalive,
}

impl Default for Main<'_> {
    fn default() -> Self {
        Self {
            // 30 s: what orchestrators allow between SIGTERM and SIGKILL by default.
            process: Process {
                workers: None,
                grace: Duration::from_secs(30),
                user: None,
                state_dir: None,
                watch: false,
                zone: None,
            },
            admin: Admin {
                bind: None,
                socket: None,
                allow_uids: Vec::new(),
            },
            admin_binds: Vec::new(),
            log: Log {
                level: Level::INFO,
                access: None,
            },
            defaults: Defaults::default(),
            fleet: None,
        }
    }
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            // A SYN that is lost once is repeated after 1 s (RFC 6298): a slower answer than that
            // is better sought at another endpoint.
            connect_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(60),
            keepalive: Keepalive {
                // Below the 60 s and more of most servers, so that we close first.
                idle_timeout: Duration::from_secs(55),
                // One client connection of HTTP/2 brings a hundred requests at once.
                max_idle: 256,
            },
        }
    }
}

/// Reads the tables of the main file alone.
pub(super) fn lower<'a>(root: &Table<'a>, port_zero: PortZero) -> Main<'a> {
    let mut main = Main::default();
    if let Some(table) = root.table("process", "process") {
        process(table, &mut main.process);
    }
    if let Some(table) = root.table("admin", "admin") {
        admin(table, port_zero, &mut main);
    }
    if let Some(table) = root.table("log", "log") {
        log(table, &mut main.log);
    }
    if let Some(table) = root.table("defaults", "defaults") {
        let d = &mut main.defaults;
        set(&mut d.connect_timeout, table.timeout("connect_timeout"));
        set(&mut d.idle_timeout, table.timeout("idle_timeout"));
        if let Some(t) = table.table("keepalive", "defaults.keepalive") {
            d.keepalive = keepalive(t, &d.keepalive);
        }
        table.finish();
    }
    if let Some(table) = root.table("fleet", "fleet") {
        main.fleet = Some(fleet::lower(table, &main.process, port_zero));
    }
    main
}

/// Reports these tables in an included file: a fragment describes traffic, not the process.
pub(super) fn refuse(root: &Table<'_>) {
    for section in SECTIONS {
        if let Some(node) = root.get(section) {
            let message = format!("`{section}` belongs in the main file, not in an included one");
            root.report.push(node.error("main-file-only", message));
        }
    }
}

/// `keepalive`, on top of what is inherited.
pub(super) fn keepalive(table: Table<'_>, inherited: &Keepalive) -> Keepalive {
    let mut keepalive = inherited.clone();
    set(&mut keepalive.idle_timeout, table.timeout("idle_timeout"));
    // 65,535: more idle connections per endpoint than it has ports to be told apart by.
    if let Some(n) = table.integer("max_idle", 0..=65_535) {
        keepalive.max_idle = *n as u32;
    }
    table.finish();
    keepalive
}

/// Overwrites a default if a good value was given.
pub(super) fn set<T>(slot: &mut T, given: Option<Located<'_, T>>) {
    if let Some(given) = given {
        *slot = given.value;
    }
}

fn admin<'a>(table: Table<'a>, port_zero: PortZero, main: &mut Main<'a>) {
    if let Some(node) = table.get("bind")
        && let Some((addr, bind)) = address::admin(node, port_zero)
    {
        main.admin.bind = Some(addr);
        main.admin_binds.push(bind);
    }
    let socket = table.get("socket");
    if let Some((path, bind)) = socket.and_then(address::socket) {
        main.admin.socket = Some(path);
        main.admin_binds.push(bind);
    }
    if let Some(node) = table.get("allow_uids") {
        if node.list_is_empty() {
            // An empty list reads like "nobody".
            let d = node.error("empty-list", "`allow_uids` of `admin` is an empty list");
            let help = "leave `allow_uids` out to allow root and the user that isobar runs as";
            table.report.push(d.help(help));
        } else if socket.is_none() {
            let message = "`allow_uids` does nothing without `socket`";
            let d = Diagnostic::warning("no-effect", node.at, message);
            let help =
                "it says who may use the control socket: socket = \"/run/isobar/admin.sock\"";
            table.report.push(d.help(help));
        }
        let uids = node.list().unwrap_or_default();
        main.admin.allow_uids = uids
            .iter()
            .filter_map(|n| n.integer(0..=MAX_UID))
            .map(|uid| *uid as u32)
            .collect();
    }
    table.finish();
}

fn process(table: Table<'_>, process: &mut Process) {
    if let Some(node) = table.get("workers") {
        match node.as_str() {
            Some("auto") => process.workers = None,
            Some(_) => {
                let help = "write \"auto\" (one per available core) or a number";
                table
                    .report
                    .push(node.mismatch("\"auto\" or an integer").help(help));
            }
            None => {
                if let Some(n) = node.integer(1..=MAX_WORKERS) {
                    process.workers = NonZeroUsize::new(*n as usize);
                }
            }
        }
    }
    if let Some(grace) = table.get("grace").and_then(|n| n.duration()) {
        process.grace = *grace;
    }
    if let Some(user) = table.text("user") {
        // What passwd(5) cannot hold is no name; whether there is such a user is known at the start.
        if user.is_empty() || user.contains(|c: char| c == ':' || c.is_control()) {
            let message = format!("`{}` is not the name of a user", user.escape_debug());
            table
                .report
                .push(Diagnostic::error("bad-user", user.at, message));
        }
        process.user = Some((*user).to_owned());
    }
    if let Some(path) = table.text("state_dir") {
        process.state_dir = Some(state_dir(path, &table));
    }
    if let Some(zone) = table.text("zone") {
        check_name(zone, table.report);
        process.zone = Some(reference(zone).value);
    }
    process.watch = table.flag("watch").unwrap_or(process.watch);
    table.finish();
}

/// A folder for what outlives the process.
pub(super) fn state_dir(text: Located<'_, &str>, table: &Table<'_>) -> PathBuf {
    if text.is_empty() || text.contains('\0') {
        let message = format!("`state_dir` cannot be `{}`", text.escape_debug());
        let d = Diagnostic::error("bad-path", text.at, message);
        let help = "write the path of a folder, such as \"/var/lib/isobar\"";
        table.report.push(d.help(help));
    }
    text.at.source.folder().join(*text)
}

fn log(table: Table<'_>, log: &mut Log) {
    const LEVELS: [(&str, Level); 5] = [
        ("error", Level::ERROR),
        ("warn", Level::WARN),
        ("info", Level::INFO),
        ("debug", Level::DEBUG),
        ("trace", Level::TRACE),
    ];
    if let Some(level) = table.get("level").and_then(|n| n.word(&LEVELS)) {
        log.level = level;
    }
    if let Some(node) = table.get("access")
        && node.as_str() != Some("off")
    {
        if node.is_table() {
            log.access = access(&table, node);
        } else {
            let help = "write access = { format = \"json\", to = \"stdout\" }";
            table
                .report
                .push(node.mismatch("a table or \"off\"").help(help));
        }
    }
    table.finish();
}

fn access(log: &Table<'_>, node: Node<'_>) -> Option<AccessLog> {
    const FORMATS: [(&str, AccessFormat); 4] = [
        ("combined", AccessFormat::Combined),
        ("common", AccessFormat::Common),
        ("json", AccessFormat::Json),
        ("text", AccessFormat::Text),
    ];
    let table = node.table(format!("`access` of {}", log.what), "log.access")?;
    let format = table
        .get("format")
        .and_then(|n| n.word(&FORMATS))
        .unwrap_or(AccessFormat::Json);
    let to = match table.text("to") {
        None => LogTarget::Stdout,
        Some(text) => match *text {
            "stdout" => LogTarget::Stdout,
            "stderr" => LogTarget::Stderr,
            "" => {
                let d = Diagnostic::error("bad-path", text.at, "`to` of `access` is empty");
                table
                    .report
                    .push(d.help("\"stdout\", \"stderr\" or the path of a file"));
                LogTarget::Stdout
            }
            path => LogTarget::File(node.source().folder().join(path)),
        },
    };
    let mut sample = 1.0;
    if let Some(given) = table.get("sample").and_then(|n| n.ratio()) {
        sample = *given;
        if sample == 0.0 {
            let d = Diagnostic::warning("no-effect", given.at, "`sample` 0 logs nothing");
            table
                .report
                .push(d.help("to switch the access log off, write access = \"off\""));
        }
    }
    table.finish();
    Some(AccessLog { format, to, sample })
}
