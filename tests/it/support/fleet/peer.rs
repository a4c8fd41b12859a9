//! One peer of a fleet: where it is, its process, and what it can be asked.

use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::binary::{Binary, free_port, program, run};
use crate::support::client::{Client, Response};
use crate::support::control::{Answer, Control};

/// One peer: its places, and its process while it runs.
#[derive(Debug)]
pub struct Peer {
    pub web: SocketAddr,
    pub admin: SocketAddr,
    pub gossip: SocketAddr,
    /// Where endpoints register, if its file says `REGISTER`.
    pub register: SocketAddr,
    pub control: Control,
    pub file: PathBuf,
    /// What is put before the program, such as `ip netns exec NAME`.
    pub within: Vec<String>,
    process: Option<Binary>,
    folder: tempfile::TempDir,
}

// === impl Peer ===

impl Peer {
    /// One with these addresses and an empty folder.
    pub fn at(web: SocketAddr, admin: SocketAddr, gossip: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            web,
            admin,
            gossip,
            register: ([127, 0, 0, 1], free_port()).into(),
            control: Control::at(folder.path().join("sock")),
            file: folder.path().join("isobar.toml"),
            within: Vec::new(),
            process: None,
            folder,
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its configuration; it is not told.
    pub fn write(&self, toml: &str) {
        let toml = toml
            .replace("WEB", &self.web.to_string())
            .replace("ADMIN", &self.admin.to_string())
            .replace("REGISTER", &self.register.to_string())
            .replace("GOSSIP", &self.gossip.to_string())
            .replace("DIR", &self.folder().display().to_string());
        std::fs::create_dir_all(self.folder().join("state")).unwrap();
        std::fs::write(&self.file, toml).unwrap();
    }

    /// The fleet's secrets; it is not told.
    pub fn write_secret(&self, secret: &str) {
        use std::io::Write as _;
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(self.folder().join("fleet.key"))
            .unwrap();
        file.write_all(secret.as_bytes()).unwrap();
    }

    /// Starts it, without waiting for anything.
    #[track_caller]
    pub fn spawn(&mut self) {
        assert!(self.process.is_none(), "it runs");
        let unused = tempfile::tempdir().unwrap();
        let file = self.file.to_string_lossy().into_owned();
        let mut words = self.within.clone();
        words.extend([
            program().to_string_lossy().into_owned(),
            "run".to_owned(),
            file,
        ]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.process = Some(Binary::spawn_at(Path::new(words[0]), &words[1..], unused));
    }

    /// Waits until it serves.
    #[track_caller]
    pub fn await_ready(&self) {
        self.process().await_line("stop with Ctrl-C");
    }

    /// Starts it, and waits until it serves.
    #[track_caller]
    pub fn start(&mut self) {
        self.spawn();
        self.await_ready();
    }

    /// `kill -9`; returns when it is gone.
    pub fn kill(&mut self) {
        for pid in self.successors() {
            // It may have ended.
            let _ = kill_process(pid, Signal::KILL);
        }
        drop(self.process.take());
    }

    /// Has its program replaced (SIGUSR2); returns when the successor serves and it is gone.
    #[track_caller]
    pub fn upgrade(&mut self) {
        let process = self.process.as_mut().expect("a peer that runs");
        process.signal(Signal::USR2);
        process.await_line("successor serves");
        assert_eq!(process.wait().code(), Some(0));
    }

    /// The process that took over, if one did.
    fn successors(&self) -> Vec<Pid> {
        let output = self.process.as_ref().map(Binary::output);
        let output = output.unwrap_or_default();
        let lines = output.lines().filter(|l| l.contains("successor serves"));
        let pids =
            lines.filter_map(|line| line.split("pid=").nth(1)?.split(' ').next()?.parse().ok());
        pids.filter_map(Pid::from_raw).collect()
    }

    /// SIGTERM; returns when it is gone, which it is with 0.
    #[track_caller]
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("a peer that runs");
        process.signal(Signal::TERM);
        assert_eq!(process.wait().code(), Some(0));
    }

    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    #[track_caller]
    pub fn process(&self) -> &Binary {
        self.process.as_ref().expect("a peer that runs")
    }

    /// Has it read its files again; returns when it has.
    #[track_caller]
    pub fn reload(&self) {
        let answer = self.control.ask("POST", "/v1/reload", "");
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    /// `isobar ARGS… --socket …`: exit code, standard output, standard error.
    #[track_caller]
    pub fn isobar(&self, args: &[&str]) -> (i32, String, String) {
        let socket = self.control.path.to_string_lossy();
        let out = run(&[args, &["--socket", &socket]].concat());
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            out.status.code().unwrap(),
            text(out.stdout),
            text(out.stderr),
        )
    }

    /// An operator says something of the upstream `app` here.
    #[track_caller]
    pub fn say(&self, method: &str, endpoint: Option<SocketAddr>, body: &str) -> Answer {
        let of = endpoint.map_or_else(String::new, |e| format!("/{e}"));
        let path = format!("/v1/upstreams/app/endpoints{of}");
        let answer = self.control.ask(method, &path, body);
        assert!(
            matches!(answer.status, 200 | 201),
            "{method} {path} {body}: {}",
            answer.body
        );
        answer
    }

    #[track_caller]
    pub fn add(&self, endpoint: SocketAddr) {
        self.say("POST", None, &format!("{{\"address\": \"{endpoint}\"}}"));
    }

    #[track_caller]
    pub fn remove(&self, endpoint: SocketAddr) {
        self.say("DELETE", Some(endpoint), "");
    }

    #[track_caller]
    pub fn set_state(&self, endpoint: SocketAddr, state: &str) {
        self.say(
            "PATCH",
            Some(endpoint),
            &format!("{{\"state\": \"{state}\"}}"),
        );
    }

    #[track_caller]
    pub fn set_weight(&self, endpoint: SocketAddr, weight: u32) {
        self.say(
            "PATCH",
            Some(endpoint),
            &format!("{{\"weight\": {weight}}}"),
        );
    }

    /// What an endpoint asks for where endpoints register, with this token.
    #[track_caller]
    pub fn registrar(&self, method: &str, path: &str, token: &str) -> Response {
        let mut client = Client::connect(self.register);
        client.send(format!(
            "{method} {path} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        ));
        client.response()
    }

    /// What it says of an endpoint of `app`; null if it knows nothing of it.
    #[track_caller]
    pub fn endpoint(&self, endpoint: SocketAddr) -> Value {
        let view = self.control.json("/v1/upstreams/app");
        let name = endpoint.to_string();
        let mut all = view["endpoints"].as_array().unwrap().iter();
        let found = all.find(|e| e["endpoint"] == name.as_str());
        found.cloned().unwrap_or(Value::Null)
    }

    /// Whether an endpoint is a member of `app` here.
    #[track_caller]
    pub fn has(&self, endpoint: SocketAddr) -> bool {
        !self.endpoint(endpoint)["effective"].is_null()
    }

    /// State and weight of an endpoint here, `-` if it is no member.
    #[track_caller]
    pub fn effective(&self, endpoint: SocketAddr) -> String {
        let view = self.endpoint(endpoint);
        let effective = &view["effective"];
        match effective["state"].as_str() {
            Some(state) => format!("{state} {}", effective["weight"]),
            None => "-".to_owned(),
        }
    }

    /// `up`, `down` or `unchecked`; empty if it is no member.
    #[track_caller]
    pub fn health(&self, endpoint: SocketAddr) -> String {
        let view = self.endpoint(endpoint);
        let health = view["observed"]["health"].as_str();
        health.unwrap_or_default().to_owned()
    }

    /// `/v1/fleet`
    #[track_caller]
    pub fn fleet(&self) -> Value {
        self.control.json("/v1/fleet")
    }

    #[track_caller]
    pub fn id(&self) -> String {
        self.fleet()["peer"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub fn digest(&self) -> String {
        self.fleet()["digest"].as_str().unwrap().to_owned()
    }

    /// How many peers it knows to be there, itself among them, and those that it suspects.
    #[track_caller]
    pub fn alive(&self) -> usize {
        let members = &self.fleet()["members"];
        let of = |state: &str| members[state].as_u64().unwrap() as usize;
        of("alive") + of("suspect")
    }

    /// `/v1/fleet/members`
    #[track_caller]
    pub fn members(&self) -> Vec<Value> {
        let members = self.control.json("/v1/fleet/members");
        members.as_array().unwrap().clone()
    }

    /// The state of another peer, empty if it does not know it.
    #[track_caller]
    pub fn state_of(&self, peer: &str) -> String {
        let members = self.members();
        let found = members.iter().find(|member| member["peer"] == peer);
        let state = found.and_then(|member| member["state"].as_str());
        state.unwrap_or_default().to_owned()
    }

    /// The value of one series of `/metrics`, named with its labels as printed; 0 if absent.
    #[track_caller]
    pub fn metric(&self, series: &str) -> f64 {
        Client::metric(self.admin, series)
    }

    /// The sum of all series of `/metrics` that are wanted, by their names with labels as printed.
    #[track_caller]
    pub fn metrics(&self, is_wanted: impl Fn(&str) -> bool) -> f64 {
        let text = Client::get(self.admin, "/metrics").text();
        let lines = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            is_wanted(series).then(|| value.parse::<f64>().ok())?
        });
        lines.sum()
    }

    /// CPU that its process has used, in hundredths of a second (proc(5): utime and stime of stat).
    pub fn cpu(&self) -> u64 {
        let stat = format!("/proc/{}/stat", self.process().pid());
        let stat = std::fs::read_to_string(stat).unwrap();
        // Its name may have blanks; fields 14 and 15, counted from 1.
        let (_, after) = stat.rsplit_once(") ").unwrap();
        let fields = after.split(' ').skip(11).take(2);
        fields.map(|field| field.parse::<u64>().unwrap()).sum()
    }

    /// For a failed wait: what it knows.
    pub(super) fn describe(&self) -> String {
        let fleet = self.control.get("/v1/fleet").body;
        let members = self.control.get("/v1/fleet/members").body;
        let app = self.control.get("/v1/upstreams/app").body;
        format!("{}\n{fleet}\n{members}\n{app}", self.gossip)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill();
    }
}
