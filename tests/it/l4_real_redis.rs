//! A real Redis behind a listener of TCP, with its own client in front: what waits outlives reloads.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::support;
use crate::support::eventually::eventually;
use crate::support::openssl::Tool;
use crate::support::proxy::Proxy;

/// A server that ends with its test.
struct Redis(Child);

impl Redis {
    #[expect(
        clippy::unwrap_used,
        reason = "a helper of tests: failing is its report"
    )]
    fn start(program: &Path, folder: &Path, socket: &Path) -> Self {
        let mut command = Command::new(program);
        command.args(["--port", "0", "--save", "", "--dir"]);
        command.arg(folder).arg("--unixsocket").arg(socket);
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
        Self(quiet.stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn config(socket: &Path, more: &str) -> String {
    format!(
        "[process]\nworkers = 1\n[listeners.web]\nbind = '127.0.0.1:0'\nprotocol = 'tcp'\nupstream \
         = 'app'\nidle_timeout = 'none'\n[upstreams.app]\nendpoints = ['unix:{}']\nhealth = {{ \
         check = 'redis', interval = '100ms', timeout = '100ms', rise = 1, init_state = \
         'fully-down' }}\n{more}\n",
        socket.display()
    )
}

#[test]
fn subscribers_and_blocked_clients_outlive_reloads() {
    let (Some(server), Some(cli)) = (support::need("redis-server"), support::need("redis-cli"))
    else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("redis.sock");
    let _redis = Redis::start(&server, folder.path(), &socket);
    let proxy = Proxy::start(&config(&socket, ""));
    eventually("the check passes", || {
        let view = proxy.operations().upstream("app").unwrap();
        view.endpoints[0].observed.as_ref().is_some_and(|o| o.ready)
    });
    let port = proxy.addr().port().to_string();
    let ask = |words: &[&str]| {
        let (status, said) = Tool::run(&cli, &[&["-h", "127.0.0.1", "-p", &port], words].concat());
        assert!(status.success(), "{said}");
        said.trim().to_owned()
    };
    assert_eq!(ask(&["set", "k", "v"]), "OK");
    let of =
        |words: &[&str]| Tool::start(&cli, &[&["-h", "127.0.0.1", "-p", &port], words].concat());
    let subscriber = of(&["subscribe", "news"]);
    subscriber.await_text("subscribe");
    let mut blocked = of(&["blpop", "queue", "0"]);
    let clients = "blocked_clients:1";
    eventually("a blocked client", || {
        ask(&["info", "clients"]).contains(clients)
    });
    for more in ["connect_timeout = '2s'", "slow_start = '3s'", ""] {
        proxy.reload(&config(&socket, more));
    }
    assert_eq!(ask(&["publish", "news", "after three reloads"]), "1");
    subscriber.await_text("after three reloads");
    assert_eq!(ask(&["rpush", "queue", "job"]), "1");
    assert!(blocked.wait().success());
    assert!(blocked.output().contains("job"), "{}", blocked.output());
    assert_eq!(ask(&["get", "k"]), "v");
}
