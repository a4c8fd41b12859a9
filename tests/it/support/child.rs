//! An origin in a process of its own: one that can be killed, stopped and started again on its port.
//!
//! The process is this very test program, asked by libtest's arguments for the one test below, and
//! told by its environment to be a server. It needs no other program, and no port of its own
//! choosing.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use socket2::{Domain, Socket, Type};

use super::eventually::eventually;
use super::origin::{self, Origin, Request, Step};

/// A server that answers GET with its name, PUT and POST with what was sent, and an upgrade with a
/// tunnel that echoes. Killed when dropped.
#[derive(Debug)]
pub struct Server {
    name: String,
    addr: SocketAddr,
    /// Holds the port while nobody listens: connections are refused, and nobody else gets it.
    _held: Socket,
    child: Option<Child>,
    folder: tempfile::TempDir,
}

/// The variable that makes the test below a server: `ADDRESS NAME FILE`.
const SERVE: &str = "ISOBAR_TEST_SERVE";

// === impl Server ===

impl Server {
    /// One that runs.
    #[track_caller]
    pub fn start(name: &str) -> Self {
        let mut server = Self::dead(name);
        server.restart();
        server
    }

    /// One that does not run yet: connections are refused.
    #[track_caller]
    pub fn dead(name: &str) -> Self {
        let held = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        held.set_reuse_port(true).unwrap();
        held.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
            .unwrap();
        let addr = held.local_addr().unwrap().as_socket().unwrap();
        Self {
            name: name.to_owned(),
            addr,
            _held: held,
            child: None,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Kills it, if it runs, and starts it; returns when it listens.
    #[track_caller]
    pub fn restart(&mut self) {
        self.kill();
        let program = std::env::current_exe().unwrap();
        let file = self.file();
        let child = Command::new(program)
            .args(["support::child::serves_if_told", "--exact", "--nocapture"])
            .env(
                SERVE,
                format!("{} {} {}", self.addr, self.name, file.display()),
            )
            // Its end is ours: it lives until nobody holds the other end of this pipe.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        eventually("the child listens", || {
            TcpStream::connect(self.addr).is_ok()
        });
    }

    /// `kill -9`; returns when it and all its connections are gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGSTOP; returns when all its threads stand still.
    #[track_caller]
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        let stopped = waitpid(Some(self.pid()), WaitOptions::UNTRACED).unwrap();
        assert!(stopped.is_some_and(|(_, status)| status.stopped()));
    }

    /// SIGCONT.
    #[track_caller]
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Method and target of every request whose head has come, in all of its lives.
    pub fn requests(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.file()).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("requests")
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("a server that runs"))
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Nothing at all, but in a process started by [`Server`].
#[test]
fn serves_if_told() {
    let Some(told) = std::env::var_os(SERVE) else {
        return;
    };
    let told = told.into_string().unwrap();
    let mut words = told.splitn(3, ' ');
    let mut word = || words.next().unwrap().to_owned();
    let (addr, name, file) = (word().parse().unwrap(), word(), word());
    let _origin = Origin::build(move |request| serve(request, &name, &file))
        .at(addr)
        .start();
    let _ = std::io::stdin().read(&mut [0]);
}

fn serve(request: &Request, name: &str, file: &str) -> Vec<Step> {
    let (method, target) = (request.head.method(), request.head.target());
    // One write: lines do not mix, and what is written outlives a kill.
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .and_then(|mut file| file.write_all(format!("{method} {target}\n").as_bytes()))
        .unwrap();
    match (method, target) {
        (_, "/silent") => vec![Step::ReadBody, Step::AwaitClose],
        _ if request.head.field("upgrade").is_some() => origin::tunnel(),
        ("PUT" | "POST", _) => origin::mirror(),
        _ => origin::reply(200, name),
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;
    use crate::support::client::Client;

    #[test]
    fn server_dies_and_comes_back_at_its_address() {
        let mut server = Server::dead("one");
        let refused = |server: &Server| {
            TcpStream::connect(server.addr())
                .is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
        };
        for _ in 0..3 {
            assert!(refused(&server));
            server.restart();
            assert_eq!(Client::get(server.addr(), "/").text(), "one");
            server.kill();
        }
        assert!(refused(&server));
        assert_eq!(server.requests(), ["GET /"; 3]);
    }

    #[test]
    fn stopped_server_is_silent_until_it_goes_on() {
        let server = Server::start("one");
        server.stop();
        let mut client = Client::connect(server.addr());
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        client.expect_silence(std::time::Duration::from_millis(50));
        server.go_on();
        assert_eq!(client.response().text(), "one");
    }
}
