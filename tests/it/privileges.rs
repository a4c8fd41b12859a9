//! Giving up root: in a process of its own, because it is for good.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use isobar::base::addr::BindAddr;
use isobar::listener::bind;
use isobar::listener::handover::{Entry, Kind, Manifest, receive, send};
use isobar::runtime::privileges::{Dropped, PrivilegesError, drop_to};

/// A user of every Unix machine that is nobody's.
const USER: &str = "nobody";

/// What the child process is asked to do; absent in an ordinary run of the tests.
const ROLE: &str = "ISOBAR_TEST_PRIVILEGES";

/// Runs `role` of [`child`] in a process of its own; what it printed.
fn in_a_child(role: &str) -> String {
    let out = Command::new(std::env::current_exe().unwrap())
        .args(["privileges::child", "--exact", "--nocapture"])
        .env(ROLE, role)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}{errors}");
    // Else a renamed test would pass without having run.
    assert!(text.contains("1 passed"), "{text}");
    text
}

/// Not a test by itself: the others start it, each with a role.
#[test]
fn child() {
    match std::env::var(ROLE).as_deref() {
        Ok("drop") => dropped_for_good(),
        Ok("share") => sockets_of_root_are_shared(),
        Ok(other) => panic!("no role {other}"),
        Err(_) => {}
    }
}

#[test]
fn root_is_given_up_by_all_threads_for_good() {
    in_a_child("drop");
}

#[test]
fn workers_share_the_sockets_that_another_user_bound() {
    in_a_child("share");
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn dropped_for_good() {
    // A thread that was there before: the change is the whole process's.
    let (ask, asked) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || {
        asked.recv().unwrap();
        std::fs::read_to_string("/proc/thread-self/status").unwrap()
    });
    if !is_root() {
        // Nobody else can try it; that serving goes on unharmed is to be seen at least.
        let before = rustix::process::geteuid();
        match drop_to(USER) {
            Err(PrivilegesError::NotRoot { user, uid }) => {
                assert_eq!((user.as_str(), uid), (USER, before.as_raw()));
            }
            Ok(Dropped::Already) => {}
            outcome => panic!("{outcome:?}"),
        }
        assert_eq!(rustix::process::geteuid(), before);
        return;
    }
    let Dropped::Now { uid, gid } = drop_to(USER).unwrap() else {
        panic!("it was root");
    };
    assert!(uid != 0 && gid != 0);
    ask.send(()).unwrap();
    let here = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    for status in [here, other.join().unwrap()] {
        let line = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name));
            line.unwrap().split_whitespace().collect::<Vec<_>>()
        };
        let (uid, gid) = (uid.to_string(), gid.to_string());
        assert_eq!(line("Uid:"), [uid.as_str(); 4]);
        assert_eq!(line("Gid:"), [gid.as_str(); 4]);
        assert!(!line("Groups:").contains(&"0"), "root's groups went too");
        assert_eq!(line("CapEff:"), ["0000000000000000"]);
        assert_eq!(line("CapPrm:"), ["0000000000000000"]);
    }
    assert_eq!(drop_to(USER).unwrap(), Dropped::Already);
    assert!(matches!(
        drop_to("root"),
        Err(PrivilegesError::NotRoot { .. })
    ));
}

fn sockets_of_root_are_shared() {
    if !is_root() {
        // One user only, and the kernel lets that one share its ports.
        return;
    }
    let within = Duration::from_secs(10);
    let configured = BindAddr::Ip("127.0.0.1:0".parse().unwrap());
    let (fds, _) = bind(&configured, 1).unwrap().into_parts();
    drop_to(USER).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let entry = Entry {
        kind: Kind::Tcp,
        name: "web".to_owned(),
        addr: configured.to_string(),
        count: 1,
        kept: 0,
    };
    let manifest = Manifest::new(0, vec![entry]);
    send(&ours, &manifest, &[fds[0].as_fd()], within).unwrap();
    let mut inherited = receive(&theirs, within).unwrap();
    let bound = inherited.bind(Kind::Tcp, &configured, 3).unwrap().unwrap();
    let addr = bound.addr().unwrap();
    let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
    let (sockets, _) = bound.into_parts();
    let found: Vec<_> = sockets.iter().map(inode).collect();
    assert_eq!(found, [inode(&fds[0]); 3]);
    drop(fds);
    let _client = TcpStream::connect(addr).unwrap();
    let [.., last] = <[OwnedFd; 3]>::try_from(sockets).unwrap();
    let last = TcpListener::from(last);
    last.set_nonblocking(false).unwrap();
    last.accept().unwrap();
}
