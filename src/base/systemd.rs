//! What systemd and a service say to each other: inherited sockets, readiness, the watchdog.
//!
//! The environment comes in as a function, so that nothing here depends on the process's own.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use thiserror::Error;

use super::clock::{Clock, Nanos};

/// The first inherited descriptor (`SD_LISTEN_FDS_START` in sd-daemon.h).
const FIRST: RawFd = 3;

/// Descriptors of one message: the kernel's limit (`SCM_MAX_FD`). systemd itself would give more,
/// but nobody lists 253 addresses in socket units.
const MAX_DESCRIPTORS: usize = 253;

/// A manager that does not read is not waited for longer: it is busy, and so are we.
const PATIENCE: Duration = Duration::from_secs(1);

/// Variables that speak of one process, to be taken out of the environment of a successor: its
/// watchdog would not be fed, because `WATCHDOG_PID` is the predecessor's.
pub const OF_ONE_PROCESS: [&str; 4] =
    ["LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_PID"];

/// What systemd gave cannot be used.
#[derive(Debug, Error)]
pub enum SystemdError {
    /// Inherited descriptors that cannot be adopted.
    #[error("the sockets of systemd ({count} from descriptor 3 on) cannot be adopted")]
    Adopt {
        /// How many there should be.
        count: usize,
        /// What the system said.
        source: io::Error,
    },
    /// A variable of the environment that does not parse.
    #[error("{name}={value}: {expected}")]
    Variable {
        /// Its name.
        name: &'static str,
        /// What it holds.
        value: String,
        /// What it should hold.
        expected: &'static str,
    },
}

/// Tells systemd how the service is (`NOTIFY_SOCKET`). A failure is for the log: the service is no
/// worse for it.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    to: SocketAddr,
}

/// The sockets that systemd bound for this process (`LISTEN_FDS`), with their names (`unknown` when
/// it gave none); none if there are no such variables, or they are meant for another process.
///
/// Call it once, before anything else is opened: the descriptors are 3, 4, …, whose numbers mean
/// something else afterwards. `pid` is this process.
///
/// `OwnedFd::from_raw_fd` is `unsafe`, so the descriptors take a way round: they are sent to ourselves
/// over a socketpair, and what arrives is owned; the originals, which programs started later would
/// inherit, are closed. (`pidfd_getfd` would do as well, but containers and systemd's own
/// `@system-service` forbid it; the crates for this read, or change, the process's environment.)
///
/// # Errors
/// [`SystemdError`]; the descriptors are still open then.
pub fn listen_fds(
    env: &dyn Fn(&str) -> Option<String>,
    pid: u32,
) -> Result<Vec<(OwnedFd, String)>, SystemdError> {
    let Some(named) = announced(env, pid)? else {
        return Ok(Vec::new());
    };
    let count = named.len();
    let descriptors: Vec<RawFd> = (FIRST..).take(count).collect();
    let adopt = |source| SystemdError::Adopt { count, source };
    let owned = duplicate(&descriptors).map_err(adopt)?;
    for fd in descriptors {
        // They were open a moment ago, and stay harmless if they cannot be closed.
        let _ = nix::unistd::close(fd);
    }
    Ok(owned.into_iter().zip(named).collect())
}

/// How often the watchdog must hear from this process at least (`WATCHDOG_USEC`); `None` if it
/// does not watch it. Send at half of this.
///
/// # Errors
/// [`SystemdError::Variable`].
pub fn watchdog_interval(
    env: &dyn Fn(&str) -> Option<String>,
    pid: u32,
) -> Result<Option<Duration>, SystemdError> {
    if !is_for(env, "WATCHDOG_PID", pid)? {
        return Ok(None);
    }
    let micros: Option<u64> = number(env, "WATCHDOG_USEC", "microseconds are expected")?;
    Ok(micros.filter(|&m| m > 0).map(Duration::from_micros))
}

// === impl Notifier ===

impl Notifier {
    /// The notifier of this process; `None` if nobody wants to know.
    ///
    /// # Errors
    /// [`SystemdError::Variable`] for an address that is neither a path nor abstract (`@name`).
    pub fn new(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, SystemdError> {
        const NAME: &str = "NOTIFY_SOCKET";
        let Some(value) = env(NAME).filter(|v| !v.is_empty()) else {
            return Ok(None);
        };
        let to = match value.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            [b'/', ..] => SocketAddr::from_pathname(&value),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        };
        let open = || {
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(PATIENCE))?;
            Ok::<_, io::Error>(socket)
        };
        match (to, open()) {
            (Ok(to), Ok(socket)) => Ok(Some(Self { socket, to })),
            (Err(_), _) | (_, Err(_)) => Err(SystemdError::Variable {
                name: NAME,
                value,
                expected: "the path of a socket is expected, or @ and an abstract name",
            }),
        }
    }

    /// The service serves; after a reload too.
    pub fn ready(&self, status: &str) -> io::Result<()> {
        self.send(&format!("READY=1\n{}", status_line(status)))
    }

    /// A reload begins; [`ready`](Self::ready) ends it, whether it changed anything or not.
    pub fn reloading(&self, clock: Clock) -> io::Result<()> {
        self.send(&reloading(clock.now()))
    }

    /// The service drains and ends.
    pub fn stopping(&self, status: &str) -> io::Result<()> {
        self.send(&format!("STOPPING=1\n{}", status_line(status)))
    }

    /// One line for `systemctl status`.
    pub fn status(&self, status: &str) -> io::Result<()> {
        self.send(&status_line(status))
    }

    /// The process is well.
    pub fn watchdog(&self) -> io::Result<()> {
        self.send("WATCHDOG=1\n")
    }

    /// Process `pid` is the service from now on: said by the predecessor, while it is still the
    /// service itself, once its successor is ready (`NotifyAccess=all` lets the successor say it).
    pub fn main_pid(&self, pid: u32) -> io::Result<()> {
        self.send(&format!("MAINPID={pid}\n"))
    }

    fn send(&self, text: &str) -> io::Result<()> {
        self.socket.send_to_addr(text.as_bytes(), &self.to)?;
        Ok(())
    }
}

/// The names of the descriptors meant for this process.
fn announced(
    env: &dyn Fn(&str) -> Option<String>,
    pid: u32,
) -> Result<Option<Vec<String>>, SystemdError> {
    const NAME: &str = "LISTEN_FDS";
    const EXPECTED: &str = "a number up to 253 is expected";
    // Without the process they were meant for, a parent's variables would be taken for ours.
    if env("LISTEN_PID").is_none() || !is_for(env, "LISTEN_PID", pid)? {
        return Ok(None);
    }
    let Some(count) = number::<usize>(env, NAME, EXPECTED)? else {
        return Ok(None);
    };
    if count > MAX_DESCRIPTORS {
        return Err(SystemdError::Variable {
            name: NAME,
            value: count.to_string(),
            expected: EXPECTED,
        });
    }
    let names = env("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').map(str::to_owned);
    let named = names.chain(std::iter::repeat(String::new())).take(count);
    let or_unknown = |name: String| {
        if name.is_empty() {
            "unknown".to_owned()
        } else {
            name
        }
    };
    Ok(Some(named.map(or_unknown).collect()))
}

/// Whether variable `name` says `pid`, or nothing.
fn is_for(
    env: &dyn Fn(&str) -> Option<String>,
    name: &'static str,
    pid: u32,
) -> Result<bool, SystemdError> {
    let said: Option<u32> = number(env, name, "the number of a process is expected")?;
    Ok(said.is_none_or(|said| said == pid))
}

fn number<T: std::str::FromStr>(
    env: &dyn Fn(&str) -> Option<String>,
    name: &'static str,
    expected: &'static str,
) -> Result<Option<T>, SystemdError> {
    let Some(value) = env(name) else {
        return Ok(None);
    };
    match value.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(SystemdError::Variable {
            name,
            value,
            expected,
        }),
    }
}

/// Owned copies of raw descriptors, at most [`MAX_DESCRIPTORS`], close-on-exec.
fn duplicate(descriptors: &[RawFd]) -> io::Result<Vec<OwnedFd>> {
    if descriptors.is_empty() {
        return Ok(Vec::new());
    }
    let (ours, theirs) = UnixStream::pair()?;
    let data = [IoSlice::new(&[0])];
    let rights = [ControlMessage::ScmRights(descriptors)];
    sendmsg::<()>(
        ours.as_raw_fd(),
        &data,
        &rights,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    let message = recvmsg(&theirs, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut owned = Vec::with_capacity(descriptors.len());
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            owned.extend(fds);
        }
    }
    // The limit of open files: half of them would be worse than none.
    if message.flags.contains(ReturnFlags::CTRUNC) || owned.len() != descriptors.len() {
        return Err(rustix::io::Errno::MFILE.into());
    }
    Ok(owned)
}

/// `Type=notify-reload` compares the time with that of its signal, in microseconds.
fn reloading(now: Nanos) -> String {
    format!("RELOADING=1\nMONOTONIC_USEC={}\n", now / 1000)
}

/// A line end would begin another variable.
fn status_line(status: &str) -> String {
    format!("STATUS={}\n", status.replace(['\n', '\r', '\0'], " "))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn env<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        move |name| {
            let found = pairs.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| (*value).to_owned())
        }
    }

    fn received(socket: &UnixDatagram) -> String {
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut buffer = [0; 4096];
        let n = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..n].to_vec()).unwrap()
    }

    #[test]
    fn notifications_arrive_as_systemd_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let path = path.to_str().unwrap();
        let notifier = Notifier::new(&env(&[("NOTIFY_SOCKET", path)]));
        let notifier = notifier.unwrap().unwrap();
        notifier.ready("serving\nMAINPID=1").unwrap();
        assert_eq!(received(&manager), "READY=1\nSTATUS=serving MAINPID=1\n");
        notifier.status("3 of 4 endpoints up").unwrap();
        assert_eq!(received(&manager), "STATUS=3 of 4 endpoints up\n");
        notifier.stopping("draining").unwrap();
        assert_eq!(received(&manager), "STOPPING=1\nSTATUS=draining\n");
        notifier.watchdog().unwrap();
        assert_eq!(received(&manager), "WATCHDOG=1\n");
        notifier.main_pid(77).unwrap();
        assert_eq!(received(&manager), "MAINPID=77\n");
        let before = Clock::start().now() / 1000;
        notifier.reloading(Clock::start()).unwrap();
        let text = received(&manager);
        let time = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(time.trim_end().parse::<u64>().unwrap() >= before, "{text}");
        // A manager that is gone is an error for the log, no more.
        drop(manager);
        assert!(notifier.ready("").is_err());
    }

    #[test]
    fn abstract_names_begin_with_an_at_sign() {
        // Abstract names are the whole machine's: this one is of this process and test.
        let name = format!("isobar-test-{}-abstract", std::process::id());
        let addr = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&addr).unwrap();
        let value = format!("@{name}");
        let notifier = Notifier::new(&env(&[("NOTIFY_SOCKET", &value)]));
        notifier.unwrap().unwrap().watchdog().unwrap();
        assert_eq!(received(&manager), "WATCHDOG=1\n");
    }

    #[test]
    fn without_a_socket_nobody_is_notified() {
        assert!(Notifier::new(&env(&[])).unwrap().is_none());
        assert!(
            Notifier::new(&env(&[("NOTIFY_SOCKET", "")]))
                .unwrap()
                .is_none()
        );
        let vsock = Notifier::new(&env(&[("NOTIFY_SOCKET", "vsock:2:1")])).unwrap_err();
        assert_eq!(
            vsock.to_string(),
            "NOTIFY_SOCKET=vsock:2:1: the path of a socket is expected, or @ and an abstract name"
        );
    }

    #[test]
    fn watchdog_is_for_the_process_it_names() {
        let of = |pairs: &[(&str, &str)]| watchdog_interval(&env(pairs), 7);
        let half_a_minute = Some(Duration::from_secs(30));
        assert_eq!(of(&[]).unwrap(), None);
        assert_eq!(of(&[("WATCHDOG_USEC", "30000000")]).unwrap(), half_a_minute);
        let named = [("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", "7")];
        assert_eq!(of(&named).unwrap(), half_a_minute);
        let other = [("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", "8")];
        assert_eq!(of(&other).unwrap(), None);
        assert_eq!(of(&[("WATCHDOG_USEC", "0")]).unwrap(), None);
        assert!(of(&[("WATCHDOG_USEC", "soon")]).is_err());
    }

    #[test]
    fn sockets_for_another_process_are_not_ours() {
        let of = |pairs: &[(&str, &str)]| announced(&env(pairs), 7);
        assert_eq!(of(&[]).unwrap(), None);
        assert_eq!(of(&[("LISTEN_FDS", "1")]).unwrap(), None, "no LISTEN_PID");
        let other = [("LISTEN_FDS", "1"), ("LISTEN_PID", "8")];
        assert_eq!(of(&other).unwrap(), None);
        assert_eq!(of(&[("LISTEN_PID", "7")]).unwrap(), None, "no LISTEN_FDS");
    }

    #[test]
    fn names_go_with_the_descriptors_in_order() {
        let of = |fds: &str, names: Option<&str>| {
            let mut pairs = vec![("LISTEN_FDS", fds), ("LISTEN_PID", "7")];
            pairs.extend(names.map(|n| ("LISTEN_FDNAMES", n)));
            announced(&env(&pairs), 7)
        };
        let none = of("2", None).unwrap().unwrap();
        assert_eq!(none, ["unknown", "unknown"]);
        let both = of("2", Some("web:admin")).unwrap().unwrap();
        assert_eq!(both, ["web", "admin"]);
        let fewer = of("3", Some("web:")).unwrap().unwrap();
        assert_eq!(fewer, ["web", "unknown", "unknown"]);
        assert_eq!(of("0", None).unwrap().unwrap().len(), 0);
        assert!(of("254", None).is_err());
        assert!(of("-1", None).is_err());
    }

    #[test]
    fn owned_copies_are_the_same_sockets() {
        let listeners = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let raw = listeners.each_ref().map(AsRawFd::as_raw_fd);
        let copies: Vec<TcpListener> = duplicate(&raw)
            .unwrap()
            .into_iter()
            .map(TcpListener::from)
            .collect();
        let addrs = listeners.each_ref().map(|l| l.local_addr().unwrap());
        let copied: Vec<_> = copies.iter().map(|l| l.local_addr().unwrap()).collect();
        assert_eq!(copied, addrs);
        for copy in &copies {
            let flags = rustix::io::fcntl_getfd(copy).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
        drop(listeners);
        let mut client = TcpStream::connect(addrs[1]).unwrap();
        drop(copies[1].accept().unwrap());
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        // A number that nothing is open at: an error, and nothing else.
        assert!(duplicate(&[RawFd::MAX]).is_err());
    }
}
