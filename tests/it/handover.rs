//! Listening sockets go to a process that was started for it, by its standard input.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use isobar::base::addr::BindAddr;
use isobar::base::systemd::listen_fds;
use isobar::listener::handover::{
    ENV, Entry, HandoverError, Inherited, Kind, Manifest, Message, from_stdin, hear, receive, say,
    send,
};

use rustix::process::{Resource, getrlimit, setrlimit};

use super::support::DEADLINE;
use super::support::binary::ACTIVATE;

/// What the child process is asked to do; absent in an ordinary run of the tests.
pub(crate) const ROLE: &str = "ISOBAR_TEST_HANDOVER";

/// A process that runs `role` of [`child`]; killed with the test.
struct Successor(Child);

impl Drop for Successor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `role` with one end of a socketpair as its standard input; the other end.
fn start(role: &str) -> (Successor, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["handover::child", "--exact", "--nocapture"])
        .env(ROLE, role)
        .env(ENV, "1")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    (Successor(child), ours)
}

fn manifest(addr: SocketAddr) -> Manifest {
    let entry = Entry {
        kind: Kind::Tcp,
        name: "web".to_owned(),
        addr: addr.to_string(),
        count: 1,
        kept: 0,
    };
    Manifest::new(7, vec![entry])
}

fn local() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Not a test by itself: the others start it, each with a role.
#[test]
fn child() {
    match std::env::var(ROLE).as_deref() {
        Ok("serve") => serve(),
        Ok("fail") => fail(),
        Ok("limited") => limited(),
        Ok("activated") => activated(),
        Ok("deaf") => deaf(),
        Ok("vanish") => drop(from_stdin().unwrap()),
        Ok(other) => panic!("no role {other}"),
        Err(_) => {}
    }
}

/// Takes the socket, says so, and answers one connection, the one made before it was started.
fn serve() {
    let stream = from_stdin().unwrap();
    let mut nothing = Vec::new();
    std::io::stdin().read_to_end(&mut nothing).unwrap();
    assert!(nothing.is_empty(), "/dev/null took its place");
    let mut inherited = receive(&stream, DEADLINE).unwrap();
    let entry = inherited.left().next().unwrap().clone();
    let addr = BindAddr::Ip(entry.addr.parse().unwrap());
    let bound = inherited.bind(entry.kind, &addr, 1).unwrap().unwrap();
    let listener: TcpListener = bound.into_parts().0.remove(0).into();
    // As a worker would not: the test has no runtime.
    listener.set_nonblocking(false).unwrap();
    say(&stream, &Message::Ready, DEADLINE).unwrap();
    assert_eq!(hear(&stream, DEADLINE).unwrap(), Message::Go);
    let (mut client, _) = listener.accept().unwrap();
    let pid = inherited.predecessor().unwrap().0;
    write!(client, "from the successor of {pid}").unwrap();
}

fn fail() {
    let stream = from_stdin().unwrap();
    drop(receive(&stream, DEADLINE).unwrap());
    let why = Message::Failed("isobar.toml:1: no".to_owned());
    say(&stream, &why, DEADLINE).unwrap();
}

/// Serves, it says, and does not hear what it is told; for the tests of `upgrade`.
fn deaf() {
    let stream = from_stdin().unwrap();
    let _inherited = receive(&stream, DEADLINE).unwrap();
    stream.shutdown(Shutdown::Read).unwrap();
    say(&stream, &Message::Ready, DEADLINE).unwrap();
    // Until it is killed.
    std::thread::park_timeout(DEADLINE);
}

/// Has not room for all of the descriptors, and says so.
fn limited() {
    let stream = from_stdin().unwrap();
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(16);
    setrlimit(Resource::Nofile, limit).unwrap();
    let error = receive(&stream, DEADLINE).unwrap_err();
    say(&stream, &Message::Failed(error.to_string()), DEADLINE).unwrap();
}

/// Does what `serve` does, with a socket that systemd would have given.
fn activated() {
    let env = |name: &str| std::env::var(name).ok();
    let other = std::process::id() + 1;
    assert!(listen_fds(&env, other).unwrap().is_empty(), "not for it");
    let given = listen_fds(&env, std::process::id()).unwrap();
    let names: Vec<_> = given.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["web"]);
    let socket = |path: String| std::fs::read_link(path).ok();
    let ours = socket(format!("/proc/self/fd/{}", given[0].0.as_raw_fd()));
    assert!(ours.is_some());
    assert_ne!(socket("/proc/self/fd/3".to_owned()), ours, "closed");
    let mut inherited = Inherited::activated(given).unwrap();
    let addr = inherited.left().next().unwrap().addr.clone();
    let addr = BindAddr::Ip(addr.parse().unwrap());
    let bound = inherited.bind(Kind::Tcp, &addr, 2).unwrap().unwrap();
    let (mut sockets, _) = bound.into_parts();
    assert_eq!(sockets.len(), 2);
    let listener: TcpListener = sockets.remove(0).into();
    listener.set_nonblocking(false).unwrap();
    let (mut client, _) = listener.accept().unwrap();
    write!(client, "activated").unwrap();
}

#[test]
fn socket_of_systemd_is_adopted() {
    let (listener, addr) = local();
    let mut client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    let child = Command::new("sh")
        .args(["-c", ACTIVATE, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["handover::child", "--exact", "--nocapture"])
        .env(ROLE, "activated")
        .stdin(OwnedFd::from(listener))
        .stdout(Stdio::null())
        .spawn();
    let _service = Successor(child.unwrap());
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "activated");
}

#[test]
fn connection_made_before_the_successor_started_is_served_by_it() {
    let (listener, addr) = local();
    let mut client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    let (_successor, stream) = start("serve");
    send(&stream, &manifest(addr), &[listener.as_fd()], DEADLINE).unwrap();
    assert_eq!(hear(&stream, DEADLINE).unwrap(), Message::Ready);
    drop(listener);
    say(&stream, &Message::Go, DEADLINE).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    let expected = format!("from the successor of {}", std::process::id());
    assert_eq!(answer, expected);
}

#[test]
fn successor_that_fails_says_why_and_leaves_the_socket_alone() {
    let (listener, addr) = local();
    let (_successor, stream) = start("fail");
    send(&stream, &manifest(addr), &[listener.as_fd()], DEADLINE).unwrap();
    let why = Message::Failed("isobar.toml:1: no".to_owned());
    assert_eq!(hear(&stream, DEADLINE).unwrap(), why);
    let end = hear(&stream, DEADLINE);
    assert!(matches!(end, Err(HandoverError::Closed)), "{end:?}");
    let _client = TcpStream::connect(addr).unwrap();
    listener.accept().unwrap();
}

#[test]
fn successor_without_room_for_all_descriptors_takes_none() {
    let (listener, addr) = local();
    let (_successor, stream) = start("limited");
    let mut manifest = manifest(addr);
    manifest.sockets[0].count = 20;
    send(&stream, &manifest, &[listener.as_fd(); 20], DEADLINE).unwrap();
    match hear(&stream, DEADLINE).unwrap() {
        Message::Failed(why) => assert!(why.contains("raise the limit of open files"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn successor_that_dies_is_a_closed_stream() {
    let (listener, addr) = local();
    let (_successor, stream) = start("vanish");
    // It may be gone before, or after, the descriptors are on their way.
    let sent = send(&stream, &manifest(addr), &[listener.as_fd()], DEADLINE);
    assert!(
        matches!(sent, Ok(()) | Err(HandoverError::Closed)),
        "{sent:?}"
    );
    let end = hear(&stream, DEADLINE);
    assert!(matches!(end, Err(HandoverError::Closed)), "{end:?}");
}
