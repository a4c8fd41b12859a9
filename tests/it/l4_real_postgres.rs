//! A real PostgreSQL behind a listener of TCP, with psql in front: transactions outlive reloads, and a
//! cancel reaches the server that runs the query.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of a test: failing is their report"
)]

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support;
use crate::support::eventually::eventually;
use crate::support::openssl::Tool;
use crate::support::proxy::Proxy;

/// A server on a socket in a folder of its own; ends with its test.
struct Postgres {
    child: Child,
    folder: TempDir,
}

impl Postgres {
    /// The server of `initdb`, on a database that it makes.
    fn start(initdb: &Path) -> Self {
        let folder = TempDir::new().unwrap();
        let owner = owner(folder.path());
        let as_owner = |program: &Path| {
            let mut command = Command::new(program);
            command.current_dir("/");
            if let Some(owner) = owner {
                command.uid(owner).gid(owner);
            }
            command
        };
        let data = folder.path().join("data");
        let made = as_owner(initdb)
            .args(["--auth", "trust", "--no-sync", "--no-locale"])
            .args(["--username", "admin", "--pgdata"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let mut command = as_owner(&initdb.with_file_name("postgres"));
        command.args(["-c", "listen_addresses=", "-c", "fsync=off"]);
        command.arg("-k").arg(folder.path()).arg("-D").arg(&data);
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = quiet.stderr(Stdio::null()).spawn().unwrap();
        Self { child, folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join(".s.PGSQL.5432")
    }

    /// What it answers, without the proxy.
    fn ask(&self, psql: &Path, query: &str) -> String {
        let host = self.folder.path().display().to_string();
        let mut args = quiet(&host, "5432");
        args.extend(["-c".to_owned(), query.to_owned()]);
        Tool::run(psql, &args).1.trim().to_owned()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGQUIT: its processes end at once, and with it.
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            Signal::QUIT,
        );
        let _ = self.child.wait();
    }
}

/// Debian keeps the server's programs out of the PATH.
fn initdb() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    let found = versions
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|version| version.path().join("bin/initdb"))
        .find(|path| path.is_file());
    found.or_else(|| support::need("initdb"))
}

/// PostgreSQL refuses to run as root: then `nobody` owns the folder and runs it.
fn owner(folder: &Path) -> Option<u32> {
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
    Some(NOBODY)
}

/// psql that says values alone.
fn quiet(host: &str, port: &str) -> Vec<String> {
    let words = [
        "-X", "-A", "-t", "-q", "-U", "admin", "-d", "postgres", "-h",
    ];
    let words = words.iter().map(|word| (*word).to_owned());
    words
        .chain([host.to_owned(), "-p".to_owned(), port.to_owned()])
        .collect()
}

fn config(servers: &[&Postgres], balance: &str, more: &str) -> String {
    let endpoints: Vec<_> = servers
        .iter()
        .map(|server| format!("'unix:{}'", server.socket().display()))
        .collect();
    format!(
        "[process]\nworkers = 2\n[listeners.web]\nbind = '127.0.0.1:0'\nprotocol = 'tcp'\nupstream \
         = 'app'\n[upstreams.app]\nendpoints = [{}]\nbalance = {balance}\non_down = 'close'\nhealth \
         = {{ check = 'postgres', interval = '200ms', timeout = '200ms', rise = 1, fall = 20, \
         init_state = 'fully-down' }}\n{more}\n",
        endpoints.join(", ")
    )
}

fn await_ready(proxy: &Proxy) {
    let operations = proxy.operations();
    eventually("all servers are well", || {
        let view = operations.upstream("app").unwrap();
        let is_ready =
            |e: &isobar::runtime::views::EndpointView| e.observed.as_ref().is_some_and(|o| o.ready);
        view.endpoints.iter().all(is_ready)
    });
}

#[test]
fn a_transaction_outlives_reloads() {
    let (Some(initdb), Some(psql)) = (initdb(), support::need("psql")) else {
        return;
    };
    let server = Postgres::start(&initdb);
    let proxy = Proxy::start(&config(&[&server], "'first'", ""));
    await_ready(&proxy);
    let port = proxy.addr().port().to_string();
    let mut session = Tool::start(&psql, &quiet("127.0.0.1", &port));
    session.try_send("CREATE TABLE t (n int);\nBEGIN;\nINSERT INTO t VALUES (1);\n");
    session.try_send("SELECT 'begun ' || count(*) FROM t;\n");
    session.await_text("begun 1");
    for (balance, more) in [
        ("'first'", "connect_timeout = '2s'"),
        ("'least_request'", "max_connections = 50"),
        ("'first'", ""),
    ] {
        proxy.reload(&config(&[&server], balance, more));
        session.try_send("INSERT INTO t VALUES (2);\n");
    }
    let open = "SELECT 'seen ' || count(*) FROM t";
    assert_eq!(
        server.ask(&psql, open),
        "seen 0",
        "nothing is committed yet"
    );
    session.try_send("COMMIT;\nSELECT 'done ' || count(*) FROM t;\n\\q\n");
    session.await_text("done 4");
    assert!(session.wait().success());
    assert_eq!(server.ask(&psql, open), "seen 4");
}

#[test]
fn a_cancel_reaches_the_server_that_runs_the_query() {
    let (Some(initdb), Some(psql)) = (initdb(), support::need("psql")) else {
        return;
    };
    let servers = [Postgres::start(&initdb), Postgres::start(&initdb)];
    let [a, b] = &servers;
    let by_client = "{ policy = 'maglev', key = 'client' }";
    let proxy = Proxy::start(&config(&[a, b], by_client, ""));
    await_ready(&proxy);
    let port = proxy.addr().port().to_string();
    let mut args = quiet("127.0.0.1", &port);
    args.extend(["-c".to_owned(), "SELECT pg_sleep(600)".to_owned()]);
    let mut query = Tool::start(&psql, &args);
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'";
    eventually("the query runs", || {
        servers.iter().any(|s| s.ask(&psql, running) == "1")
    });
    query.signal(Signal::INT);
    query.await_text("canceling statement due to user request");
    assert!(!query.wait().success());
}
