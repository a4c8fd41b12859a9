//! The plan of a reload: told beforehand, changes nothing, and is what the reload then does.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::net::SocketAddr;
use std::path::Path;

use isobar::server::{Operations, Server};
use isobar::telemetry::history::Trigger;
use serde_json::{Value, json};

use crate::support::binary::free_port;
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::origin::{Origin, Step, reply};

struct Bed {
    server: Server,
    operations: Operations,
    folder: tempfile::TempDir,
}

impl Bed {
    fn start(toml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("isobar.toml");
        std::fs::write(&file, toml).unwrap();
        let loaded = isobar::config::load(&file).unwrap();
        let server = Server::start(&loaded.config).unwrap();
        let operations = server.operations();
        operations.set_source(&loaded);
        Self {
            server,
            operations,
            folder,
        }
    }

    fn write(&self, toml: &str) {
        std::fs::write(self.file(), toml).unwrap();
    }

    fn file(&self) -> std::path::PathBuf {
        Path::new(self.folder.path()).join("isobar.toml")
    }

    /// What is there, without what time changes.
    fn picture(&self) -> Value {
        let mut status = serde_json::to_value(self.operations.status()).unwrap();
        status.as_object_mut().unwrap().remove("uptime_seconds");
        let upstreams = serde_json::to_value(self.operations.upstreams()).unwrap();
        json!([status, upstreams, self.operations.config()])
    }
}

/// `[change, connections]` of the thing of this kind and name, as the plan has it; nothing if it is
/// unchanged.
fn told(plan: &Value, kind: &str, name: &str) -> Value {
    let items = plan["diff"]["items"].as_array().unwrap();
    let item = items.iter().find(|item| {
        let has = |key: &str| item[key] == name;
        item["kind"] == kind && (has("name") || has("address"))
    });
    item.map_or(Value::Null, |item| {
        json!([item["change"], item["connections"]])
    })
}

#[test]
fn plan_changes_nothing_and_the_reload_does_what_it_said() {
    let stays = Origin::named("stays");
    let goes = Origin::start(|request| {
        if request.head.start.contains("/tunnel") {
            let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                          Upgrade: websocket\r\n\r\n";
            vec![Step::Send(answer.into()), Step::Echo]
        } else {
            reply(200, "goes")
        }
    });
    let comes = Origin::named("comes");
    let other = Origin::named("other");
    let [web, old, new] = [(); 3].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
    let before = format!(
        "[process]\nworkers = 2\n\
         [listeners.web]\nbind = '{web}'\n[listeners.old]\nbind = '{old}'\n\
         [[routes]]\nname = 'to-b'\npath = '/b'\nupstream = 'b'\n\
         [[routes]]\nname = 'to-a'\nupstream = 'a'\n\
         [upstreams.a]\nbalance = 'first'\nendpoints = ['{}', '{}']\n\
         [upstreams.b]\nendpoints = ['{}']\n",
        goes.addr(),
        stays.addr(),
        other.addr()
    );
    let after = format!(
        "[process]\nworkers = 2\n\
         [listeners.web]\nbind = '{web}'\nmax_connections = 99\n[listeners.new]\nbind = '{new}'\n\
         [[routes]]\nname = 'to-b'\npath = '/b'\nupstream = 'b'\n\
         [[routes]]\nname = 'to-a'\nupstream = 'a'\n\
         [upstreams.a]\nbalance = 'first'\n\
         endpoints = [{{ address = '{}', weight = 3 }}, '{}']\n\
         [upstreams.b]\nendpoints = ['{}']\n",
        stays.addr(),
        comes.addr(),
        other.addr()
    );
    let bed = Bed::start(&before);
    let mut kept = Client::connect(web);
    assert_eq!(kept.request("GET", "/b").text(), "other");
    let mut leaves: Vec<Client> = (0..2).map(|_| Client::connect(old)).collect();
    for client in &mut leaves {
        assert_eq!(client.request("GET", "/").text(), "goes");
    }
    let mut tunnel = Client::connect(web);
    tunnel.send(
        "GET /tunnel HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    assert_eq!(tunnel.head().status(), 101);
    eventually("four connections", || {
        bed.server.connections().iter().sum::<usize>() == 4
    });

    // 1 the plan says it
    bed.write(&after);
    let picture = bed.picture();
    let planned = serde_json::to_value(bed.operations.plan().unwrap()).unwrap();
    assert_eq!(bed.picture(), picture, "a plan changes nothing");
    assert_eq!(told(&planned, "listener", "web")[0], "changed");
    assert_eq!(told(&planned, "listener", "new")[0], "added");
    assert_eq!(told(&planned, "listener", "old"), json!(["removed", 2]));
    assert_eq!(told(&planned, "route", "to-a"), Value::Null);
    assert_eq!(told(&planned, "upstream", "b"), Value::Null);
    let endpoint = |origin: &Origin| told(&planned, "endpoint", &origin.addr().to_string());
    assert_eq!(endpoint(&stays)[0], "changed");
    assert_eq!(endpoint(&comes)[0], "added");
    assert_eq!(endpoint(&goes), json!(["removed", 1]), "the tunnel");
    assert_eq!(endpoint(&other), Value::Null);

    // 2 the reload says the same, and does it
    let done = bed.operations.reload(Trigger::Signal).unwrap();
    assert_eq!(serde_json::to_value(&done.diff).unwrap(), planned["diff"]);
    for client in &mut leaves {
        client.expect_closed();
    }
    assert_eq!(kept.request("GET", "/b").text(), "other");
    assert_eq!(other.accepted(), 1, "its connection is the same");
    assert_eq!(kept.request("GET", "/").text(), "stays");
    tunnel.send("still");
    assert_eq!(tunnel.exactly(5), b"still", "it drains, it is not cut");
    assert_eq!(Client::get(new, "/").text(), "stays");
    eventually("nobody listens there", || Client::try_connect(old).is_err());
    let status = bed.operations.status();
    let names: Vec<&str> = status.listeners.iter().map(|l| &*l.name).collect();
    assert_eq!(names, ["web", "new"]);
    assert_eq!(status.config.version, 2);
    assert_eq!(status.leaving.endpoints, 1);

    // 3 and nothing is left to do
    let again = bed.operations.plan().unwrap();
    assert!(again.diff.is_empty(), "{}", again.text);
    drop(tunnel);
    eventually("what left is gone", || {
        let leaving = bed.operations.status().leaving;
        leaving.listeners == 0 && leaving.endpoints == 0
    });
}

#[test]
fn what_only_a_restart_changes_is_said_and_kept_in_mind() {
    let origin = Origin::named("a");
    let web = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let config = |workers: usize| {
        format!(
            "[process]\nworkers = {workers}\n[listeners.web]\nbind = '{web}'\nupstream = 'a'\n\
             [upstreams.a]\nendpoints = ['{}']\n",
            origin.addr()
        )
    };
    let bed = Bed::start(&config(1));
    bed.write(&config(2));
    let plan = bed.operations.plan().unwrap();
    assert!(plan.text.contains("restart"), "{}", plan.text);
    bed.operations.reload(Trigger::Signal).unwrap();
    let status = bed.operations.status();
    assert_eq!(status.workers, 1);
    assert_eq!(status.config.needs_restart, ["process.workers: 1 -> 2"]);
    bed.write(&config(1));
    bed.operations.reload(Trigger::Signal).unwrap();
    assert!(bed.operations.status().config.needs_restart.is_empty());
}
