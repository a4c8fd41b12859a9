//! The command line: what each command prints, where, and its exit code.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::net::TcpListener;

use rustix::process::Signal;
use serde_json::Value;

use super::support::binary::{Binary, free_port, run};
use super::support::client::Client;
use super::support::origin::Origin;

const GOOD: &str =
    "[listeners.web]\nbind = ':80'\nupstream = 'a'\n[upstreams.a]\nendpoints = ['10.0.0.1:1']\n";
/// Two problems.
const BAD: &str = "[listenerz.web]\n[log]\nlevel = 'loud'\n";

fn repository(path: &str) -> String {
    format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// A folder with `good.toml` and `bad.toml`.
fn files() -> (tempfile::TempDir, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let [good, bad] = [("good.toml", GOOD), ("bad.toml", BAD)].map(|(name, text)| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    });
    (folder, good, bad)
}

/// Exit code, standard output, standard error.
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

/// The quickstart's text with every address on a free port; port of `web`, of `admin`.
fn quickstart() -> (String, u16, u16) {
    let mut text = std::fs::read_to_string(repository("config/quickstart.toml")).unwrap();
    let ports = [8080, 8081, 8082, 8083, 9090].map(|old| {
        let new = free_port();
        text = text.replace(&format!(":{old}"), &format!(":{new}"));
        new
    });
    (text, ports[0], ports[4])
}

#[test]
fn quickstart_takes_turns_and_says_where_to_look() {
    let (text, web, admin) = quickstart();
    let mut isobar = Binary::start(&text);
    isobar.await_line(&format!("try: curl 127.0.0.1:{web}"));
    isobar.await_line("stop with Ctrl-C");
    let said = isobar.output();
    for (name, at, what) in [
        ("web", web, "-> app (3 endpoints)"),
        ("admin", admin, "/metrics /livez /readyz"),
    ] {
        let at = format!("http://127.0.0.1:{at}");
        let line = said.lines().find(|l| l.trim_start().starts_with(name));
        assert!(
            line.is_some_and(|l| l.contains(&at) && l.contains(what)),
            "{said}"
        );
    }
    let (web, admin) = (([127, 0, 0, 1], web).into(), ([127, 0, 0, 1], admin).into());
    // A worker for each connection may have its own turn: one connection is one worker.
    let mut client = Client::connect(web);
    let mut answers: Vec<String> = (0..6).map(|_| client.request("GET", "/").text()).collect();
    assert_eq!(answers[..3], answers[3..]);
    answers.truncate(3);
    answers.sort();
    assert_eq!(
        answers,
        ["hello from one\n", "hello from three\n", "hello from two\n"]
    );
    assert_eq!(Client::get(admin, "/livez").text(), "ok\n");
    assert_eq!(Client::get(admin, "/readyz").text(), "ready\n");
    let metrics = Client::get(admin, "/metrics").text();
    assert!(metrics.contains("isobar_build_info{version="), "{metrics}");
    isobar.signal(Signal::TERM);
    assert_eq!(isobar.wait().code(), Some(0));
}

#[test]
fn two_endpoints_from_the_command_line_take_turns() {
    let [a, b] = ["a", "b"].map(Origin::named);
    let listen = format!("127.0.0.1:{}", free_port());
    let to = [&a, &b].map(|o| o.addr().to_string());
    let args = ["run", "--listen", &listen, "--to", &to[0], "--to", &to[1]];
    let mut isobar = Binary::spawn(&args, tempfile::tempdir().unwrap());
    let web = isobar.await_addr("try: curl");
    let mut client = Client::connect(web);
    let mut answers = [0; 2].map(|_| client.request("GET", "/").text());
    answers.sort();
    // The default policy begins each worker's schedule anywhere, but is fair from the start.
    assert_eq!(answers, ["a", "b"]);
    isobar.signal(Signal::INT);
    assert_eq!(isobar.wait().code(), Some(0));
}

#[test]
fn every_file_of_config_is_valid() {
    let files: Vec<String> = std::fs::read_dir(repository("config"))
        .unwrap()
        .map(|f| f.unwrap().path())
        .filter(|f| f.extension().is_some_and(|e| e == "toml"))
        .map(|f| f.to_string_lossy().into_owned())
        .collect();
    let args: Vec<&str> = ["check"]
        .into_iter()
        .chain(files.iter().map(String::as_str))
        .collect();
    let (code, out, err) = outcome(&args);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for file in &files {
        assert!(out.contains(&format!("{file}: ok (")), "{out}");
    }
}

#[test]
fn check_says_every_problem_of_every_file_at_once_and_exits_1() {
    let (_folder, good, bad) = files();
    let (code, out, err) = outcome(&["check", &good, &bad]);
    assert_eq!((code, err.as_str()), (1, ""));
    assert!(
        out.contains(&format!("{good}: ok (1 listener, 1 route, 1 upstream)")),
        "{out}"
    );
    for problem in ["listenerz", "did you mean `listeners`?", "loud"] {
        assert!(out.contains(problem), "no `{problem}`:\n{out}");
    }
}

#[test]
fn check_with_deny_warnings_exits_1_on_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("doubtful.toml");
    std::fs::write(&file, "[upstreams.a]\nendpoints = ['127.0.0.1:1']\n").unwrap();
    let file = file.to_string_lossy();
    let (code, said, _) = outcome(&["check", &file]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("warning[unused-upstream]"), "{said}");
    let (code, again, err) = outcome(&["check", "--deny-warnings", &file]);
    assert_eq!((code, again, err.as_str()), (1, said, ""));
}

#[test]
fn check_of_a_missing_file_exits_2_and_still_checks_the_others() {
    let (_folder, _, bad) = files();
    let (code, out, _) = outcome(&["check", "/nonexistent/isobar.toml", &bad]);
    assert_eq!(code, 2);
    assert!(
        out.contains("error: cannot read /nonexistent/isobar.toml: "),
        "{out}"
    );
    assert!(out.contains("listenerz"), "{out}");
}

#[test]
fn check_in_json_is_one_array_with_places() {
    let (_folder, good, bad) = files();
    let (code, out, err) = outcome(&["check", "--format", "json", &good, &bad]);
    assert_eq!((code, err.as_str()), (1, ""));
    let all: Value = serde_json::from_str(&out).unwrap();
    let all = all.as_array().unwrap();
    assert!(all.len() >= 2, "{out}");
    for problem in all {
        assert_eq!(problem["file"], bad.as_str());
        assert!(
            problem["line"].is_u64() && problem["code"].is_string(),
            "{problem}"
        );
    }
    let (code, out, _) = outcome(&["check", "--format", "json", &good]);
    assert_eq!((code, out.trim()), (0, "[]"));
}

#[test]
fn schema_is_a_json_schema() {
    let (code, out, err) = outcome(&["schema"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let schema: Value = serde_json::from_str(&out).unwrap();
    assert!(
        schema["$schema"]
            .as_str()
            .unwrap()
            .contains("json-schema.org")
    );
    for key in [
        "listeners",
        "routes",
        "upstreams",
        "admin",
        "log",
        "process",
    ] {
        assert!(schema["properties"][key].is_object(), "{key}");
    }
}

#[test]
fn help_names_commands_exit_codes_and_signals() {
    for (args, words) in [
        (
            vec!["--help"],
            vec!["run", "check", "schema", "Exit codes: 0", "quickstart.toml"],
        ),
        (vec!["check", "--help"], vec!["Exit codes: 0", "--format"]),
        (
            vec!["run", "--help"],
            vec![
                "Exit codes: 0",
                "TERM, QUIT, INT",
                "USR1",
                "--listen",
                "--to",
            ],
        ),
    ] {
        let (code, out, err) = outcome(&args);
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
        for word in words {
            assert!(out.contains(word), "{args:?} does not say `{word}`:\n{out}");
        }
    }
    let version = format!("isobar {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(outcome(&["--version"]), (0, version, String::new()));
}

#[test]
fn wrong_usage_exits_2_and_says_how_on_standard_error() {
    for args in [
        vec![],
        vec!["frobnicate"],
        vec!["run"],
        vec!["check"],
        vec!["run", "a.toml", "--to", "127.0.0.1:1"],
        vec!["check", "--format", "xml", "a.toml"],
        vec!["run", "--frob"],
    ] {
        let (code, out, err) = outcome(&args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}");
        // Where one value is wrong clap lists the right ones in the place of the usage.
        let says_how = err.contains("Usage: isobar") || err.contains("possible values: json, text");
        assert!(says_how && err.contains("--help"), "{args:?}: {err}");
    }
}

#[test]
fn run_refuses_what_it_cannot_serve() {
    let (_folder, _, bad) = files();
    let (code, out, err) = outcome(&["run", &bad]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.contains("did you mean `listeners`?") && err.contains("loud"),
        "{err}"
    );

    let (code, _, err) = outcome(&["run", "/nonexistent/isobar.toml"]);
    assert_eq!(code, 2);
    assert!(
        err.starts_with("error: cannot read /nonexistent/isobar.toml: No such file"),
        "{err}"
    );

    let (code, _, err) = outcome(&["run", "--to", "not an address"]);
    assert_eq!(code, 1);
    assert!(err.contains("not an address"), "{err}");
}

#[test]
fn port_in_use_exits_1_and_names_listener_and_address() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let (code, out, err) = outcome(&["run", "--listen", &addr, "--to", "127.0.0.1:1"]);
    assert_eq!((code, out.as_str()), (1, ""));
    for word in ["error: listener `web`", &addr, "in use"] {
        assert!(err.contains(word), "no `{word}`: {err}");
    }
    assert!(!err.contains("serves"), "{err}");
}

#[test]
fn access_log_that_cannot_be_opened_exits_1_and_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("isobar.toml");
    let text = format!(
        "[log]\naccess = {{ to = '/nonexistent/access.log' }}\n[listeners.web]\n\
         bind = '127.0.0.1:{}'\nupstream = 'a'\n[upstreams.a]\nendpoints = ['127.0.0.1:1']\n",
        free_port()
    );
    std::fs::write(&file, text).unwrap();
    let (code, _, err) = outcome(&["run", &file.to_string_lossy()]);
    assert_eq!(code, 1);
    assert!(
        err.contains("access log /nonexistent/access.log cannot be opened"),
        "{err}"
    );
    assert!(err.contains("No such file"), "{err}");
}
