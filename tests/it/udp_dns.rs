//! DNS through the proxy, over UDP and TCP at one port: dnsmasq answers, dig asks.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::support::binary::{Binary, free_port};
use crate::support::eventually::eventually;
use crate::support::need;

/// A server of DNS; killed when dropped.
struct Dnsmasq {
    child: Child,
    addr: SocketAddr,
    _folder: tempfile::TempDir,
}

/// Texts of a record that together do not fit into a datagram of 512 bytes, nor into the 1,232 that dig
/// offers by default.
const LONG: usize = 12;

impl Dnsmasq {
    /// Knows `a.test`, and tells `name` as a text of `who.test`.
    #[track_caller]
    fn start(program: &Path, name: &str) -> Self {
        let port = free_port();
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(program);
        // No file of the machine's is read, nobody else is asked, and no user is changed to.
        command
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-hosts",
            ])
            .args([
                "--no-resolv",
                "--bind-interfaces",
                "--listen-address=127.0.0.1",
            ])
            .arg(format!("--port={port}"))
            .arg(format!(
                "--pid-file={}",
                folder.path().join("pid").display()
            ))
            .args(["--user=", "--group=", "--edns-packet-max=8192"])
            .args([
                "--address=/a.test/192.0.2.1",
                "--address=/a.test/2001:db8::1",
            ])
            .arg(format!("--txt-record=who.test,{name}"));
        for n in 0..LONG {
            command.arg(format!("--txt-record=long.test,{}{n}", "x".repeat(200)));
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let dnsmasq = Self {
            child: command.spawn().unwrap(),
            addr: SocketAddr::from(([127, 0, 0, 1], port)),
            _folder: folder,
        };
        // It listens for both at once.
        eventually("dnsmasq", || TcpStream::connect(dnsmasq.addr).is_ok());
        dnsmasq
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `dig +short` says; `more` are further words. It never asks twice: what is lost is seen.
#[track_caller]
fn dig(program: &Path, port: u16, more: &[&str]) -> String {
    let output = Command::new(program)
        .args([
            "@127.0.0.1",
            "-p",
            &port.to_string(),
            "+short",
            "+tries=1",
            "+time=20",
        ])
        .args(more)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "dig {more:?}: {text}");
    text.trim().to_owned()
}

/// A port that is free for both protocols.
fn port() -> u16 {
    loop {
        let port = free_port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn config(port: u16, servers: &[&Dnsmasq]) -> String {
    let endpoints: Vec<String> = servers.iter().map(|s| format!("\"{}\"", s.addr)).collect();
    let endpoints = endpoints.join(", ");
    format!(
        "[process]\nworkers = 2\ngrace = \"10s\"\n\
         [listeners.dns]\nprotocol = \"udp\"\nbind = \"127.0.0.1:{port}\"\nupstream = \"resolvers\"\n\
         responses = 1\n\
         [listeners.dns_tcp]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:{port}\"\nupstream = \"resolvers\"\n\
         [upstreams.resolvers]\nbalance = \"round_robin\"\nendpoints = [{endpoints}]\n"
    )
}

fn tools() -> Option<(PathBuf, PathBuf)> {
    Some((need("dnsmasq")?, need("dig")?))
}

#[test]
fn names_are_resolved_over_udp_and_tcp_at_one_port() {
    let Some((dnsmasq, dig_at)) = tools() else {
        return;
    };
    let servers = [
        Dnsmasq::start(&dnsmasq, "one"),
        Dnsmasq::start(&dnsmasq, "two"),
    ];
    let port = port();
    let isobar = Binary::start(&config(port, &[&servers[0], &servers[1]]));
    isobar.await_line("stop with");
    let ask = |more: &[&str]| dig(&dig_at, port, more);
    assert_eq!(ask(&["a.test", "A"]), "192.0.2.1");
    assert_eq!(ask(&["a.test", "AAAA"]), "2001:db8::1");
    let mut names: Vec<String> = (0..4).map(|_| ask(&["who.test", "TXT"])).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["\"one\"", "\"one\"", "\"two\"", "\"two\""],
        "in turn"
    );
    // A large answer as one datagram, in fragments where the network needs them.
    let whole = ask(&["long.test", "TXT", "+bufsize=8192", "+ignore"]);
    assert_eq!(whole.lines().count(), LONG);
    // Too large for what the client takes: it is told so, and comes back over TCP.
    let retried = ask(&["long.test", "TXT", "+bufsize=512"]);
    assert_eq!(retried.lines().count(), LONG);
    assert_eq!(ask(&["a.test", "A", "+tcp"]), "192.0.2.1");
    assert_eq!(ask(&["long.test", "TXT", "+tcp"]).lines().count(), LONG);
}

/// One question after the other, none of them asked twice, while the program is replaced.
#[test]
fn an_upgrade_loses_no_question() {
    let Some((dnsmasq, dig_at)) = tools() else {
        return;
    };
    let server = Dnsmasq::start(&dnsmasq, "one");
    let port = port();
    let isobar = Binary::start(&config(port, &[&server]));
    isobar.await_line("stop with");
    let ask = || assert_eq!(dig(&dig_at, port, &["a.test", "A"]), "192.0.2.1");
    ask();
    isobar.signal(Signal::USR2);
    let mut after = 0;
    while after < 20 {
        ask();
        after += usize::from(isobar.output().contains("successor serves"));
    }
    let line = isobar.await_line("successor serves");
    let pid = line
        .split("pid=")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let pid = rustix::process::Pid::from_raw(pid.unwrap().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}
