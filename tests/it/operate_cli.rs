//! The commands to a running server: what each prints, its exit code, and what it does to traffic.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::net::SocketAddr;
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::support::binary::{Binary, free_port, run};
use super::support::client::Client;
use super::support::control::Control;
use super::support::eventually::eventually;
use super::support::gate::Gate;
use super::support::origin::{Origin, Step, reply};

/// The real program over two origins, `a` and `b`.
struct Bed {
    isobar: Binary,
    a: Origin,
    b: Origin,
    web: SocketAddr,
    socket: String,
    config: String,
}

impl Bed {
    fn start() -> Self {
        Self::over(Origin::named("a"), Origin::named("b"))
    }

    fn over(a: Origin, b: Origin) -> Self {
        let web: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        let toml = toml(web, &a, &b);
        let isobar = Binary::start(&toml);
        isobar.await_line("stop with Ctrl-C");
        let path = |name: &str| {
            isobar
                .folder
                .path()
                .join(name)
                .to_string_lossy()
                .into_owned()
        };
        let (socket, config) = (path("admin.sock"), path("isobar.toml"));
        Self {
            isobar,
            a,
            b,
            web,
            socket,
            config,
        }
    }

    /// `UPSTREAM/ADDRESS` of `a`.
    fn name_of_a(&self) -> String {
        format!("app/{}", self.a.addr())
    }

    /// Exit code, standard output, standard error.
    #[track_caller]
    fn isobar(&self, args: &[&str]) -> (i32, String, String) {
        outcome(&[args, &["--socket", &self.socket]].concat())
    }

    /// Standard output of what must succeed without a word on standard error.
    #[track_caller]
    fn done(&self, args: &[&str]) -> String {
        let (code, out, err) = self.isobar(args);
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}: {out}");
        out
    }

    /// Standard error of what must be refused with exit code 1.
    #[track_caller]
    fn refused(&self, args: &[&str]) -> String {
        let (code, out, err) = self.isobar(args);
        assert_eq!((code, out.as_str()), (1, ""), "{args:?}: {err}");
        err
    }

    /// The same command without waiting for it.
    fn begin(&self, args: &[&str]) -> JoinHandle<(i32, String, String)> {
        let args: Vec<String> = [args, &["--socket", &self.socket]]
            .concat()
            .into_iter()
            .map(ToOwned::to_owned)
            .collect();
        std::thread::spawn(move || {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            outcome(&args)
        })
    }

    fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&self.config, text.replace(from, to)).unwrap();
    }

    /// Waits until only `name` answers.
    #[track_caller]
    fn await_only(&self, name: &str) {
        eventually(&format!("only {name}"), || {
            let mut client = Client::connect(self.web);
            (0..4).all(|_| client.request("GET", "/").text() == name)
        });
    }

    /// Waits until both answer.
    #[track_caller]
    fn await_both(&self) {
        eventually("both", || {
            let mut client = Client::connect(self.web);
            let mut seen: Vec<_> = (0..2).map(|_| client.request("GET", "/").text()).collect();
            seen.sort();
            seen == ["a", "b"]
        });
    }
}

fn toml(web: SocketAddr, a: &Origin, b: &Origin) -> String {
    format!(
        "[process]\nworkers = 1\n[admin]\nsocket = 'admin.sock'\n\
         [listeners.web]\nbind = '{web}'\nupstream = 'app'\n\
         [upstreams.app]\ndynamic = true\nbalance = 'weighted'\nendpoints = [\n\
         '{}',\n{{ address = '{}', weight = 1 }},\n]\n",
        a.addr(),
        b.addr()
    )
}

#[track_caller]
fn outcome(args: &[&str]) -> (i32, String, String) {
    let out = run(args);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        out.status.code().unwrap(),
        text(out.stdout),
        text(out.stderr),
    )
}

/// The line of a table or list that begins with `name`, in words.
#[track_caller]
fn words<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let line = text.lines().find(|l| l.trim_start().starts_with(name));
    line.unwrap_or_else(|| panic!("no line with {name}:\n{text}"))
        .split_whitespace()
        .collect()
}

#[test]
fn status_shows_the_server_at_a_glance() {
    let mut bed = Bed::start();
    let text = bed.done(&["status"]);
    let first = text.lines().next().unwrap();
    let pid = bed.isobar.pid();
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        first.starts_with(&format!("isobar {version}: ready, process {pid}, up ")),
        "{text}"
    );
    assert!(text.contains("isobar.toml"), "{text}");
    assert_eq!(words(&text, "web")[..2], ["web", &bed.web.to_string()]);
    assert_eq!(words(&text, "app"), ["app", "2", "2", "0", "0"]);
    assert!(!text.contains("override"), "{text}");
    let json: Value = serde_json::from_str(&bed.done(&["status", "--json"])).unwrap();
    assert_eq!(json["pid"], pid);
    assert_eq!(json["upstreams"][0]["endpoints"], 2);

    bed.done(&["set", &format!("endpoint/{}", bed.name_of_a()), "weight=3"]);
    let text = bed.done(&["status"]);
    assert!(text.contains("operators override 1 endpoint"), "{text}");
    bed.isobar.signal(Signal::TERM);
    assert_eq!(bed.isobar.wait().code(), Some(0));
    assert!(!std::path::Path::new(&bed.socket).exists());
    let (code, out, err) = bed.isobar(&["status"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(
        err.contains(&bed.socket) && err.contains("--socket"),
        "{err}"
    );
}

#[test]
fn history_tells_time_cause_and_who() {
    let bed = Bed::start();
    let name = bed.name_of_a();
    bed.done(&[
        "drain",
        &name,
        "--reason",
        "kernel update",
        "--owner",
        "ops",
    ]);
    bed.done(&["undrain", &name]);
    let text = bed.done(&["status", "--history"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    let uid = rustix::process::geteuid().as_raw();
    assert!(lines[0].contains("  start "), "{text}");
    let drained = format!("active -> drain (by ops (uid:{uid}): kernel update)");
    assert!(
        lines[1].contains("  operator ") && lines[1].ends_with(&drained),
        "{text}"
    );
    assert!(
        lines[2].ends_with(&format!("drain -> active (by uid:{uid})")),
        "{text}"
    );
    let one = bed.done(&["status", "--history", "1"]);
    assert_eq!(one.trim_end(), lines[2]);
    let json = bed.done(&["status", "--history", "2", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["events"].as_array().unwrap().len(), 2);
}

#[test]
fn get_shows_what_each_layer_says_and_which_wins() {
    let bed = Bed::start();
    let (a, b) = (bed.a.addr().to_string(), bed.b.addr().to_string());
    bed.done(&[
        "set",
        &format!("endpoint/app/{a}"),
        "weight=5",
        "--reason",
        "larger machine",
        "--expires",
        "10m",
    ]);
    bed.done(&["remove", "app", &b]);
    let text = bed.done(&["get", "upstream/app"]);
    assert!(
        text.starts_with("upstream app: weighted, dynamic, 2 endpoints\n"),
        "{text}"
    );
    assert_eq!(
        words(&text, &a)[..9],
        [
            &a,
            "active",
            "5",
            "weight",
            "1",
            "weight",
            "5",
            "unchecked",
            "yes"
        ]
    );
    assert_eq!(
        words(&text, &b),
        [
            &b, "no", "member", "-", "weight", "1", "removed", "-", "-", "-", "-", "-"
        ]
    );
    for why in [
        format!("{a} weight: the operator, weight 5 by uid:"),
        "(larger machine); the file says 1".to_owned(),
        format!("{b} member: the operator, removed by uid:"),
    ] {
        assert!(text.contains(&why), "no `{why}`:\n{text}");
    }
    assert!(
        bed.done(&["get", "upstreams"]).contains(&text),
        "the same for each"
    );

    let text = bed.done(&["get", &format!("endpoint/app/{a}")]);
    assert_eq!(words(&text, "file"), ["file", "weight", "1"]);
    assert_eq!(words(&text, "operator"), ["operator", "weight", "5"]);
    assert_eq!(words(&text, "in effect")[2..], ["active,", "weight", "5"]);
    assert_eq!(
        words(&text, "observed")[1..5],
        ["ready,", "0", "in", "flight,"]
    );
    assert_eq!(words(&text, "member")[..2], ["member", "file"]);
    assert_eq!(words(&text, "weight")[..2], ["weight", "operator"]);

    for what in [
        "upstream/app",
        "upstreams",
        &format!("endpoint/app/{a}"),
        "config",
    ] {
        let json = bed.done(&["get", what, "--json"]);
        assert!(serde_json::from_str::<Value>(&json).is_ok(), "{json}");
    }
    let config = bed.done(&["get", "config"]);
    assert!(isobar::config::parse("c", &config).is_ok(), "{config}");
    let err = bed.refused(&["get", "upstream/nope"]);
    assert!(
        err.starts_with("error: there is no upstream `nope`"),
        "{err}"
    );
}

#[test]
fn set_changes_weight_and_state_and_says_what_it_did() {
    let bed = Bed::start();
    let name = bed.name_of_a();
    let thing = format!("endpoint/{name}");
    let text = bed.done(&["set", &thing, "weight=0"]);
    let endpoint = format!("upstream `app`, endpoint {}", bed.a.addr());
    assert_eq!(text, format!("{endpoint}: weight 1 -> 0\n"));
    bed.await_only("b");
    let text = bed.done(&["clear", &name]);
    assert_eq!(text, format!("{endpoint}: weight 0 -> 1\n"));
    bed.await_both();
    let json = bed.done(&["set", &thing, "state=disable", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["after"]["state"], "disable");
    bed.await_only("b");
    bed.done(&["set", &thing, "state=active"]);
    bed.await_both();
    let err = bed.refused(&["set", &thing, "weight=1001"]);
    assert!(err.contains("from 0 to 1000"), "{err}");
    let err = bed.refused(&["set", "endpoint/app/127.0.0.1:1", "weight=1"]);
    assert!(err.contains("has no endpoint 127.0.0.1:1"), "{err}");
    let err = bed.refused(&["drain", "app/nonsense"]);
    assert!(err.contains("not the address of an endpoint"), "{err}");
    bed.isobar.await_line("admin socket: done");
}

#[test]
fn add_and_remove_change_the_members() {
    let bed = Bed::start();
    let c = Origin::named("c");
    let (a, b, addr) = (
        bed.a.addr().to_string(),
        bed.b.addr().to_string(),
        c.addr().to_string(),
    );
    let text = bed.done(&["add", "app", &addr, "--weight", "2"]);
    assert_eq!(
        text,
        format!("upstream `app`, endpoint {addr}: joins with weight 2\n")
    );
    for other in [&a, &b] {
        let text = bed.done(&["remove", "app", other, "--reason", "too slow & old"]);
        assert!(text.ends_with(": leaves\n"), "{text}");
    }
    bed.await_only("c");
    let err = bed.refused(&["add", "app", &addr]);
    assert!(err.contains("has the endpoint"), "{err}");
    let err = bed.refused(&["drain", &bed.name_of_a()]);
    assert!(err.contains("(too slow & old)"), "{err}");
    let text = bed.done(&["remove", "app", &addr]);
    assert!(text.contains("note: "), "nobody is left: {text}");
    bed.done(&["add", "app", &a]);
    bed.await_only("a");
}

#[test]
fn drain_waits_until_nothing_is_in_flight() {
    let gate = Gate::new();
    let held = Origin::start({
        let gate = gate.clone();
        move |_| [vec![Step::Pass(gate.clone())], reply(200, "a")].concat()
    });
    let bed = Bed::over(held, Origin::named("b"));
    let name = bed.name_of_a();
    let mut client = Client::connect(bed.web);
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut other = Client::connect(bed.web);
    other.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    // One of the two has gone to `a`, and waits at the gate.
    bed.a.await_requests(1);
    let draining = bed.begin(&["drain", &name, "--wait", "--deadline", "1m"]);
    let control = Control::at(&bed.socket);
    let endpoint = format!("/v1/upstreams/app/endpoints/{}", bed.a.addr());
    eventually("the drain", || {
        control.json(&endpoint)["effective"]["state"] == "drain"
    });
    bed.await_only("b");
    assert!(!draining.is_finished());
    gate.open();
    let (code, out, err) = draining.join().unwrap();
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("active -> drain"), "{out}");
    assert!(
        out.contains(&format!("{name}: nothing in flight, drained after ")),
        "{out}"
    );
    let mut answers = [client.response().text(), other.response().text()];
    answers.sort();
    assert_eq!(answers, ["a", "b"], "what was in flight was finished");
}

#[test]
fn drain_that_takes_too_long_fails_and_stays() {
    let gate = Gate::new();
    let held = Origin::start({
        let gate = gate.clone();
        move |_| [vec![Step::Pass(gate.clone())], reply(200, "a")].concat()
    });
    let bed = Bed::over(held, Origin::named("b"));
    let name = bed.name_of_a();
    let mut clients = [(); 2].map(|()| Client::connect(bed.web));
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    bed.a.await_requests(1);
    let args = ["drain", &name, "--disable", "--wait", "--deadline", "300ms"];
    let (code, out, err) = bed.isobar(&args);
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("active -> disable"), "{out}");
    for part in [
        "still 1 in flight after 300ms",
        "it stays drained",
        "isobar undrain",
    ] {
        assert!(err.contains(part), "no `{part}`: {err}");
    }
    bed.await_only("b");
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().status(), 200);
    }
    bed.done(&["undrain", &name]);
    bed.await_both();
}

#[test]
fn reload_says_what_changed_or_every_diagnostic() {
    let bed = Bed::start();
    assert!(
        bed.done(&["reload"])
            .starts_with("reloaded: nothing changes")
    );
    bed.edit("weight = 1", "weight = 3");
    let plan = bed.done(&["reload", "--plan"]);
    assert!(plan.starts_with("plan: 1 endpoint changed"), "{plan}");
    assert!(plan.contains("weight: 1 -> 3"), "{plan}");
    let upstream = || bed.done(&["get", "upstream/app"]);
    let b = bed.b.addr().to_string();
    assert_eq!(words(&upstream(), &b)[2], "1", "a plan changes nothing");
    let done = bed.done(&["reload"]);
    assert_eq!(done.strip_prefix("reloaded: "), plan.strip_prefix("plan: "));
    assert_eq!(words(&upstream(), &b)[2], "3");

    bed.edit("weight = 3", "weigth = 3");
    for args in [&["reload", "--plan"][..], &["reload"]] {
        let err = bed.refused(args);
        for part in ["error[unknown-key]", "`weigth`", "did you mean `weight`?"] {
            assert!(err.contains(part), "no `{part}`: {err}");
        }
        assert!(!err.contains("error: error"), "{err}");
    }
    assert_eq!(words(&upstream(), &b)[2], "3", "the old one serves on");
    bed.await_both();
    let status = bed.done(&["status"]);
    assert!(
        status.contains("was refused; this configuration serves on"),
        "{status}"
    );
    bed.edit("weigth = 3", "weight = 2");
    let json: Value = serde_json::from_str(&bed.done(&["reload", "--json"])).unwrap();
    assert_eq!(json["diff"]["counts"]["endpoint"]["changed"], 1);
    assert!(!bed.done(&["status"]).contains("refused"));
}

#[test]
fn folder_for_overrides_that_is_not_there_is_said_at_the_start() {
    let toml = format!(
        "[process]\nstate_dir = '/nonexistent/isobar'\n[listeners.web]\n\
         bind = '127.0.0.1:{}'\n[[routes]]\nrespond = {{}}\n",
        free_port()
    );
    let isobar = Binary::start(&toml);
    let line = isobar.await_line("state_dir is of no use");
    assert!(line.contains("/nonexistent/isobar"), "{line}");
}

/// It did so for a reload by signal only.
#[test]
fn reload_changes_the_level_of_the_log() {
    let bed = Bed::start();
    bed.edit("[admin]", "[log]\nlevel = 'error'\n[admin]");
    bed.done(&["reload"]);
    bed.edit("weight = 1", "weight = 3");
    bed.done(&["reload"]);
    bed.edit("level = 'error'", "level = 'info'");
    bed.done(&["reload"]);
    bed.done(&["reload"]);
    bed.isobar.await_line("reloaded: nothing changes");
    let said = bed.isobar.output();
    assert!(!said.contains("1 endpoint changed"), "{said}");
}

#[test]
fn overrides_outlive_a_reload_which_says_so() {
    let bed = Bed::start();
    let name = bed.name_of_a();
    bed.done(&["drain", &name]);
    bed.edit("weight = 1", "weight = 2");
    let text = bed.done(&["reload"]);
    assert!(
        text.contains("drain by uid:") && text.contains("is kept"),
        "{text}"
    );
    bed.await_only("b");
    bed.edit(&format!("'{}',\n", bed.a.addr()), "");
    let text = bed.done(&["reload"]);
    assert!(
        text.contains("is dropped: the endpoint is gone from the file"),
        "{text}"
    );
}

#[test]
fn check_against_the_running_server_changes_nothing() {
    let bed = Bed::start();
    let next = bed.isobar.folder.path().join("next.toml");
    let text = std::fs::read_to_string(&bed.config).unwrap();
    std::fs::write(&next, text.replace("weight = 1", "weight = 9")).unwrap();
    let next = next.to_string_lossy().into_owned();
    let text = bed.done(&["check", "--diff", &next]);
    assert!(text.contains("next.toml: ok ("), "{text}");
    assert!(text.contains("\nplan: 1 endpoint changed"), "{text}");
    assert!(text.contains("weight: 1 -> 9"), "{text}");
    let json = bed.done(&["check", "--format", "json", "--diff", &next]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["diff"]["counts"]["endpoint"]["changed"], 1);
    let b = bed.b.addr().to_string();
    let upstream = bed.done(&["get", "upstream/app"]);
    assert_eq!(words(&upstream, &b)[2], "1");

    std::fs::write(&next, "[listenerz.web]\n").unwrap();
    let (code, out, err) = bed.isobar(&["check", "--diff", &next]);
    assert_eq!((code, err.as_str()), (1, ""));
    assert!(out.contains("did you mean `listeners`?"), "{out}");
    let (code, _, err) = bed.isobar(&["check", "--diff", &next, &bed.config]);
    assert_eq!(code, 2);
    assert!(err.contains("--diff takes one file"), "{err}");
}

#[test]
fn order_to_drain_ends_the_process() {
    let mut bed = Bed::start();
    let answer = Control::at(&bed.socket).ask("POST", "/v1/drain", "");
    assert_eq!(
        (answer.status, &answer.json()["ordered"]),
        (202, &"drain".into())
    );
    assert_eq!(bed.isobar.wait().code(), Some(0));
}

/// Whoever serves now, ended when dropped: a successor is not the child of the test.
struct Successor(Pid);

impl Drop for Successor {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

#[test]
fn upgrade_hands_the_control_socket_on() {
    let mut bed = Bed::start();
    let first = bed.isobar.pid();
    assert!(bed.done(&["upgrade"]).starts_with("upgrade ordered"));
    assert_eq!(bed.isobar.wait().code(), Some(0));
    // The first has ended; the socket is where it was, and answers for the successor.
    let status: Value = serde_json::from_str(&bed.done(&["status", "--json"])).unwrap();
    let pid = status["pid"].as_u64().unwrap();
    let successor = Successor(Pid::from_raw(pid as i32).unwrap());
    assert_ne!(pid, u64::from(first));
    let told = bed.done(&["status", "--history"]);
    assert!(told.contains("  upgrade "), "{told}");
    bed.done(&["drain", &bed.name_of_a()]);
    bed.await_only("b");
    kill_process(successor.0, Signal::TERM).unwrap();
    eventually("the last one to remove the file", || {
        !std::path::Path::new(&bed.socket).exists()
    });
}

#[test]
fn successor_that_does_not_come_up_leaves_the_control_socket() {
    let bed = Bed::start();
    // It takes the control socket over, and then fails: this folder is not there.
    bed.edit(
        "[process]",
        "[log]\naccess = { to = '/nonexistent/log' }\n[process]",
    );
    bed.done(&["upgrade"]);
    bed.isobar.await_line("this process serves on");
    let status: Value = serde_json::from_str(&bed.done(&["status", "--json"])).unwrap();
    assert_eq!(status["pid"], bed.isobar.pid());
    let told = bed.done(&["status", "--history"]);
    let last = told.lines().last().unwrap();
    assert!(
        last.contains("  upgrade ") && last.contains("not upgraded") && last.contains("access log"),
        "{told}"
    );
    bed.done(&["drain", &bed.name_of_a()]);
    bed.await_only("b");
}

#[test]
fn status_is_told_while_the_server_drains() {
    let gate = Gate::new();
    let held = Origin::start({
        let gate = gate.clone();
        move |_| [vec![Step::Pass(gate.clone())], reply(200, "a")].concat()
    });
    let mut bed = Bed::over(held, Origin::named("b"));
    let mut clients = [(); 2].map(|()| Client::connect(bed.web));
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    bed.a.await_requests(1);
    bed.isobar.signal(Signal::TERM);
    eventually("draining", || {
        bed.done(&["status"]).contains(": draining, ")
    });
    let err = bed.refused(&["drain", &bed.name_of_a()]);
    assert!(err.contains("draining"), "{err}");
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().status(), 200);
    }
    assert_eq!(bed.isobar.wait().code(), Some(0));
}

#[test]
fn socket_is_found_by_the_configuration_file() {
    let bed = Bed::start();
    let (code, out, err) = outcome(&["status", "--config", &bed.config]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains(": ready, "), "{out}");
    bed.edit("socket = 'admin.sock'", "");
    let (code, _, err) = outcome(&["status", "--config", &bed.config]);
    assert_eq!(code, 2);
    assert!(err.contains("has no `socket` in [admin]"), "{err}");
    let (code, _, err) = outcome(&["status", "--config", "/nonexistent/isobar.toml"]);
    assert_eq!(code, 2);
    assert!(
        err.contains("cannot read /nonexistent/isobar.toml"),
        "{err}"
    );
}

#[test]
fn user_that_is_not_allowed_is_refused_and_logged() {
    let bed = Bed::start();
    let other = rustix::process::geteuid().as_raw() + 1;
    let socket = bed.isobar.folder.path().join("other.sock");
    let socket = socket.to_string_lossy().into_owned();
    let text = std::fs::read_to_string(&bed.config).unwrap();
    let admin = format!("socket = '{socket}'\nallow_uids = [{other}]");
    let text = text.replace("socket = 'admin.sock'", &admin);
    let text = text.replace(&bed.web.to_string(), &format!("127.0.0.1:{}", free_port()));
    let second = Binary::start(&text);
    second.await_line("stop with Ctrl-C");
    let (code, out, err) = outcome(&["status", "--socket", &socket]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.contains("may not use this socket") && err.contains("allow_uids"),
        "{err}"
    );
    let line = second.await_line("user is not allowed");
    assert!(
        line.contains(" WARN ") && line.contains("peer.uid="),
        "{line}"
    );
}

#[test]
fn no_socket_exits_2_and_says_which_was_tried_and_how_to_have_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder
        .path()
        .join("none.sock")
        .to_string_lossy()
        .into_owned();
    for args in [
        &["status"][..],
        &["get", "config"],
        &["set", "endpoint/app/10.0.0.1:80", "weight=1"],
        &["drain", "app/10.0.0.1:80", "--wait"],
        &["undrain", "app/10.0.0.1:80"],
        &["clear", "app/10.0.0.1:80"],
        &["add", "app", "10.0.0.1:80"],
        &["remove", "app", "10.0.0.1:80"],
        &["fleet", "status"],
        &["fleet", "members"],
        &["fleet", "diff", "10.0.0.6:7946"],
        &["reload", "--plan"],
        &["upgrade"],
    ] {
        let (code, out, err) = outcome(&[args, &["--socket", &path]].concat());
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}");
        let hint = format!("there is no socket {path}");
        assert!(
            err.contains(&hint) && err.contains("[admin]"),
            "{args:?}: {err}"
        );
    }
    // One that nobody listens at any more.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let (code, _, err) = outcome(&["status", "--socket", &path]);
    assert_eq!(code, 2);
    assert!(err.contains("nobody listens at"), "{err}");
}

#[test]
fn server_without_a_fleet_says_so() {
    let bed = Bed::start();
    for args in [
        &["fleet", "status"][..],
        &["fleet", "members", "--json"],
        &["fleet", "diff", "10.0.0.6:7946"],
    ] {
        let err = bed.refused(args);
        assert_eq!(err, "error: this server has no [fleet]\n", "{args:?}");
    }
}

#[test]
fn keygen_makes_a_secret_that_a_fleet_takes() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("fleet.key").display().to_string();
    let (code, out, err) = outcome(&["fleet", "keygen", &key]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains(&format!("secret_file = {key:?}")), "{out}");
    let main = folder.path().join("isobar.toml").display().to_string();
    let text = format!(
        "[listeners.web]\nbind = ':80'\nupstream = 'app'\n[upstreams.app]\ndynamic = true\n\
         [fleet]\nname = 'edge'\nbind = '10.0.0.5:7946'\nstate_dir = '.'\nsecret_file = '{key}'\n"
    );
    std::fs::write(&main, text).unwrap();
    let (code, out, err) = outcome(&["check", "--deny-warnings", &main]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let (code, out, err) = outcome(&["fleet", "keygen", &key]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("is not overwritten"), "{err}");
    let (code, out, err) = outcome(&["fleet", "keygen"]);
    assert_eq!((code, out.len(), err.as_str()), (0, 65, ""));
}

#[test]
fn wrong_usage_exits_2_and_shows_the_right_one() {
    for (args, hint) in [
        (&["get"][..], "Usage: isobar get"),
        (&["get", "routes"], "upstream/NAME"),
        (&["set", "app", "weight=1"], "UPSTREAM/ADDRESS"),
        (
            &["set", "endpoint/app/10.0.0.1:80", "weight"],
            "weight=NUMBER",
        ),
        (&["drain"], "Usage: isobar drain"),
        (&["drain", "app"], "UPSTREAM/ADDRESS"),
        (&["drain", "app/10.0.0.1:80", "--deadline", "5m"], "--wait"),
        (
            &["drain", "app/10.0.0.1:80", "--wait", "--deadline", "5"],
            "--deadline",
        ),
        (
            &["drain", "app/10.0.0.1:80", "--expires", "soon"],
            "--expires",
        ),
        (&["add", "app"], "Usage: isobar add"),
        (&["fleet"], "Usage: isobar fleet"),
        (&["fleet", "diff"], "Usage: isobar fleet diff"),
        (&["status", "--socket", "a", "--config", "b"], "--config"),
    ] {
        let (code, out, err) = outcome(args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}");
        assert!(err.contains(hint), "{args:?}: {err}");
    }
}

#[test]
fn help_of_every_command_says_where_the_server_is_sought() {
    for command in [
        "status",
        "get",
        "set",
        "drain",
        "undrain",
        "clear",
        "add",
        "remove",
        "reload",
        "upgrade",
        "fleet status",
        "fleet members",
        "fleet diff",
    ] {
        let words: Vec<&str> = ["help"].into_iter().chain(command.split(' ')).collect();
        let (code, out, err) = outcome(&words);
        assert_eq!((code, err.as_str()), (0, ""), "{command}");
        for word in [
            "--socket",
            "ISOBAR_SOCKET",
            "/run/isobar/admin.sock",
            "--config",
            "--json",
        ] {
            assert!(
                out.contains(word),
                "{command} does not say `{word}`:\n{out}"
            );
        }
    }
    let (_, out, _) = outcome(&["help", "drain"]);
    for word in [
        "--wait",
        "--deadline",
        "[default: 60s]",
        "exit code 1",
        "isobar undrain",
    ] {
        assert!(out.contains(word), "no `{word}`:\n{out}");
    }
}
