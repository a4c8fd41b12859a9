//! Checks of real servers: Redis, PostgreSQL, MariaDB and gRPC, started by the test on Unix sockets of
//! its own.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of a test: failing is their report"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::support;
use crate::support::eventually::eventually;
use crate::support::grpc;
use crate::support::proxy::Proxy;

/// A server that ends with its test.
struct Server(Child);

impl Server {
    fn start(command: &mut Command) -> Self {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
        Self(quiet.stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A proxy whose one endpoint is this socket; what it serves is nobody's concern here.
fn checking(check: &str, socket: &Path) -> Proxy {
    checking_with(check, "", socket)
}

/// The same with further keys.
fn checking_with(check: &str, more: &str, socket: &Path) -> Proxy {
    Proxy::start(&format!(
        "[listeners.web]\nbind = '127.0.0.1:0'\nupstream = 'app'\n\
         [upstreams.app]\nendpoints = ['unix:{}']\n\
         health = {{ check = '{check}', interval = '100ms', timeout = '100ms', rise = 1, fall = 2, \
         init_state = 'fully-down'{more} }}\n",
        socket.display()
    ))
}

fn await_health(proxy: &Proxy, word: &str) {
    let operations = proxy.operations();
    eventually(&format!("the server is {word}"), || {
        let view = operations.upstream("app").unwrap();
        view.endpoints[0]
            .observed
            .as_ref()
            .is_some_and(|o| o.health == word)
    });
}

#[test]
fn redis_is_up_while_it_runs_with_and_without_a_password() {
    let Some(redis) = support::need("redis-server") else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("redis.sock");
    let start = |more: &[&str]| {
        let mut command = Command::new(&redis);
        command.args(["--port", "0", "--save", "", "--dir"]);
        command.arg(folder.path()).arg("--unixsocket").arg(&socket);
        Server::start(command.args(more))
    };
    let proxy = checking("redis", &socket);
    for more in [&[][..], &["--requirepass", "secret"]] {
        let server = start(more);
        await_health(&proxy, "up");
        drop(server);
        await_health(&proxy, "down");
    }
}

#[test]
fn postgres_is_up_while_it_runs() {
    let Some(initdb) = postgres_tool("initdb") else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let owner = owner(folder.path());
    let as_owner = |program: &Path| {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new(program);
        command.current_dir("/");
        if let Some(owner) = owner {
            command.uid(owner).gid(owner);
        }
        command
    };
    let password = folder.path().join("password");
    std::fs::write(&password, "secret").unwrap();
    let made = as_owner(&initdb)
        .args(["--auth", "scram-sha-256", "--no-sync", "--no-locale"])
        .args(["--username", "admin", "--pgdata"])
        .arg(&data)
        .arg("--pwfile")
        .arg(&password)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let proxy = checking("postgres", &folder.path().join(".s.PGSQL.5432"));
    let mut command = as_owner(&initdb.with_file_name("postgres"));
    command.args(["-c", "listen_addresses=", "-c", "fsync=off", "-D"]);
    command.arg(&data).arg("-k").arg(folder.path());
    let server = Server::start(&mut command);
    await_health(&proxy, "up");
    drop(server);
    await_health(&proxy, "down");
}

#[test]
fn mysql_is_up_while_it_runs_with_and_without_a_user() {
    // The last is what the first calls.
    let (Some(install), Some(server), Some(_)) = (
        support::need("mariadb-install-db"),
        support::need("mariadbd"),
        support::need("my_print_defaults"),
    ) else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let user = if owner(folder.path()).is_some() {
        "--user=nobody"
    } else {
        "--skip-symbolic-links"
    };
    // A server that starts removes the temporary tables of every other in its folder for them.
    let made = Command::new(install)
        .env("TMPDIR", folder.path())
        .arg("--no-defaults")
        .arg(user)
        .args(["--auth-root-authentication-method=socket", "--skip-test-db"])
        .arg(format!("--datadir={}", data.display()))
        .current_dir("/")
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let socket = folder.path().join("mysql.sock");
    let greeted = checking("mysql", &socket);
    // A user that the server does not know: refused, and answered.
    let refused = checking_with("mysql", ", user = 'isobar'", &socket);
    let started = Server::start(
        Command::new(server)
            .env("TMPDIR", folder.path())
            .arg("--no-defaults")
            .arg(user)
            .args(["--skip-networking", "--innodb-buffer-pool-size=8M"])
            .arg("--innodb-flush-log-at-trx-commit=0")
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", socket.display()))
            .arg(format!(
                "--pid-file={}",
                folder.path().join("pid").display()
            ))
            .current_dir("/"),
    );
    for proxy in [&greeted, &refused] {
        await_health(proxy, "up");
    }
    drop(started);
    for proxy in [&greeted, &refused] {
        await_health(proxy, "down");
    }
}

/// The server of grpcio with its own health service.
const GRPC_SERVER: &str = "
import sys, grpc
from concurrent import futures
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
servicer = health.HealthServicer()
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
for name in ('', 'well'):
    servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
servicer.set('sick', health_pb2.HealthCheckResponse.NOT_SERVING)
server.add_insecure_port('unix:' + sys.argv[1])
server.start()
server.wait_for_termination()
";

#[test]
fn grpc_service_is_what_its_server_says() {
    let Some(python) = grpc::python() else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("grpc.sock");
    let check = |service: &str| {
        let more = format!(", service = '{service}'");
        checking_with("grpc", &more, &socket)
    };
    let (all, well, sick, unknown) = (check(""), check("well"), check("sick"), check("none"));
    let mut command = Command::new(python);
    let server = Server::start(command.args(["-c", GRPC_SERVER]).arg(&socket));
    await_health(&all, "up");
    await_health(&well, "up");
    for (proxy, text) in [
        (&sick, "it says NOT_SERVING"),
        (&unknown, "it knows no service `none`"),
    ] {
        let operations = proxy.operations();
        eventually(text, || {
            let view = operations.upstream("app").unwrap();
            let last = view.endpoints[0]
                .observed
                .as_ref()
                .unwrap()
                .last_check
                .clone();
            last.is_some_and(|last| last.text.as_deref() == Some(text))
        });
        await_health(proxy, "down");
    }
    drop(server);
    await_health(&all, "down");
}

/// Debian keeps the server's programs out of the PATH.
fn postgres_tool(tool: &str) -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    let found = versions
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|version| version.path().join("bin").join(tool))
        .find(|path| path.is_file());
    found.or_else(|| support::need(tool))
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
