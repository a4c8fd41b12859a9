//! Binding: one socket a worker for each address, so that the kernel spreads accepts.

use std::fs::Permissions;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::Mode;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use thiserror::Error;

use crate::base::addr::BindAddr;

use super::datagram;

/// Connections that may wait to be accepted; the kernel cuts it to net.core.somaxconn (4096 by
/// default since Linux 5.4).
const BACKLOG: i32 = 4096;

/// Silence until the first probe: below the 5 minutes after which NATs and firewalls forget at the
/// earliest in practice, above the `keepalive_timeout` of HTTP.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(120);

/// From one probe to the next, and how many stay unanswered before the connection is dead: a minute, as
/// long as a phone that changes networks.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;

/// Why an address could not be bound.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another program has it.
    #[error(
        "{addr} is in use by another program: stop that one, or bind another address \
         (`ss -ltuxnp` shows who has it)"
    )]
    InUse {
        /// The address.
        addr: BindAddr,
    },
    /// The system refused.
    #[error("cannot bind {addr}: {source}")]
    Io {
        /// The address.
        addr: BindAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Ports below 1024 need a privilege.
    #[error(
        "cannot bind {addr}: permission denied; ports below 1024 need root or \
         CAP_NET_BIND_SERVICE (`setcap cap_net_bind_service=+ep isobar`)"
    )]
    Permission {
        /// The address.
        addr: BindAddr,
    },
}

/// The sockets of one address, one a worker.
#[derive(Debug)]
pub enum Bound {
    /// TCP.
    Tcp {
        /// The address with the real port.
        addr: SocketAddr,
        /// At least one a worker, listening; more only when inherited.
        sockets: Vec<std::net::TcpListener>,
        /// See [`Bound::kept`].
        kept: usize,
    },
    /// UDP.
    Udp {
        /// The address with the real port.
        addr: SocketAddr,
        /// One a worker; when inherited there may be more, or fewer.
        sockets: Vec<std::net::UdpSocket>,
    },
    /// Unix: one socket, shared, because SO_REUSEPORT spreads only IP sockets.
    Unix {
        /// The file.
        file: SocketFile,
        /// Handles of the one socket.
        sockets: Vec<UnixListener>,
    },
}

/// The file of a Unix socket; removed once, at the latest when this is dropped: by then the path
/// may be another program's.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    owner: FileOwner,
    /// Or is not ours to remove any more.
    is_removed: AtomicBool,
}

/// With whom the port of a new socket may be shared.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sharing {
    Refused,
    WithOurselves,
}

/// What brings to an address what comes there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Carrier {
    Tcp,
    Udp,
}

/// Who removes the file of an inherited Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileOwner {
    Isobar,
    Systemd,
}

/// Binds `addr` for `workers` workers. Nothing stays bound after an error. A port that another
/// program holds, even one that allows sharing, is an error and not half of our traffic lost to it.
///
/// # Errors
/// The address cannot be had.
pub fn bind(addr: &BindAddr, workers: usize) -> Result<Bound, BindError> {
    bind_sharing(addr, workers, Sharing::Refused, Carrier::Tcp)
}

/// The same where this process holds the port already, at an address that overlaps.
///
/// # Errors
/// The address cannot be had.
pub fn bind_beside(addr: &BindAddr, workers: usize) -> Result<Bound, BindError> {
    bind_sharing(addr, workers, Sharing::WithOurselves, Carrier::Tcp)
}

/// The same for datagrams.
///
/// # Errors
/// The address cannot be had.
pub fn bind_udp(addr: &BindAddr, workers: usize) -> Result<Bound, BindError> {
    bind_sharing(addr, workers, Sharing::Refused, Carrier::Udp)
}

/// The same for datagrams where this process holds the port already.
///
/// # Errors
/// The address cannot be had.
pub fn bind_udp_beside(addr: &BindAddr, workers: usize) -> Result<Bound, BindError> {
    bind_sharing(addr, workers, Sharing::WithOurselves, Carrier::Udp)
}

fn bind_sharing(
    addr: &BindAddr,
    workers: usize,
    sharing: Sharing,
    carrier: Carrier,
) -> Result<Bound, BindError> {
    let bound = match addr {
        BindAddr::Any(port) => {
            let v6 = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), *port);
            match bind_ip(carrier, v6, workers, Stack::Dual, sharing) {
                // No IPv6 on this machine.
                Err(e) if is_no_v6(&e) => {
                    let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), *port);
                    bind_ip(carrier, v4, workers, Stack::Own, sharing)
                }
                bound => bound,
            }
        }
        BindAddr::Ip(ip) => bind_ip(carrier, *ip, workers, Stack::Own, sharing),
        BindAddr::Unix(path) => bind_unix(path.clone(), workers),
    };
    bound.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { addr: addr.clone() },
        io::ErrorKind::PermissionDenied => BindError::Permission { addr: addr.clone() },
        _ => BindError::Io {
            addr: addr.clone(),
            source,
        },
    })
}

/// Which protocols a socket of IPv6 takes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stack {
    Dual,
    Own,
}

fn is_no_v6(error: &io::Error) -> bool {
    matches!(
        error
            .raw_os_error()
            .map(rustix::io::Errno::from_raw_os_error),
        Some(rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::ADDRNOTAVAIL)
    )
}

fn bind_ip(
    carrier: Carrier,
    addr: SocketAddr,
    workers: usize,
    stack: Stack,
    sharing: Sharing,
) -> io::Result<Bound> {
    let mut addr = addr;
    let mut sockets: Vec<Socket> = Vec::with_capacity(workers);
    for i in 0..workers.max(1) {
        let socket = carrier.socket(addr)?;
        if addr.is_ipv6() {
            socket.set_only_v6(stack == Stack::Own)?;
        }
        if i > 0 || sharing == Sharing::WithOurselves {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&addr.into())?;
        if i == 0 {
            // The first socket binds WITHOUT the option (see `Sharing::Refused`).
            socket.set_reuse_port(true)?;
            addr = socket.local_addr()?.as_socket().unwrap_or(addr);
        }
        carrier.tune(&socket, addr)?;
        sockets.push(socket);
    }
    // Listening starts only when all are bound: no connection meets half a listener.
    for socket in &sockets {
        carrier.listen(socket)?;
    }
    Ok(carrier.bound(addr, sockets, 0))
}

/// Options that connections inherit: set before the socket listens, so that the first one has them.
fn tune(socket: &Socket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    // Inherited by accepted sockets (Linux), which saves a call for each: answers leave at
    // once, where Nagle would hold a second small write for an ACK.
    socket.set_tcp_nodelay(true)?;
    keep_alive(socket)?;
    Ok(())
}

/// Inherited as well: a client that vanished without a word (its power, a NAT that forgot it) is found
/// within three minutes however silent its connection may be. Idle connections of HTTP are closed before
/// the first probe.
fn keep_alive(socket: &Socket) -> rustix::io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_AFTER)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_EVERY)?;
    sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES)?;
    sockopt::set_socket_keepalive(socket, true)
}

/// Sockets that are open at `addr` already, made up to `workers`: see
/// [`Inherited::bind`](super::handover::Inherited::bind). Systemd keeps the first `kept`.
pub(super) fn adopt_ip(
    carrier: Carrier,
    addr: SocketAddr,
    inherited: Vec<OwnedFd>,
    mut kept: usize,
    workers: usize,
) -> io::Result<Bound> {
    let mut sockets: Vec<Socket> = inherited.into_iter().map(Into::into).collect();
    for socket in &sockets {
        if carrier == Carrier::Tcp {
            // A process that closed this socket and not the copy of systemd may have left its filter
            // (`Acceptor::refuse_new`), with which no connection ever comes. Mostly there is none.
            let _ = socket.detach_filter();
        }
        carrier.tune(socket, addr)?;
        carrier.tune_listening(socket);
    }
    let count = sockets.len();
    if count == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for i in count..workers {
        let another = match share_port(carrier, addr, &sockets[0]) {
            Ok(socket) => socket,
            // Whoever of them reads first would have the datagram, and flows are one worker's each.
            Err(error) if carrier == Carrier::Udp => {
                tracing::warn!(
                    %error, address = %addr, sockets = i, workers,
                    "an inherited socket for datagrams cannot be shared (it may be another user's): only so many \
                     workers serve it"
                );
                break;
            }
            // Any error: a handle of an inherited socket serves as well, only less evenly.
            Err(_) if kept > 0 => {
                sockets.insert(kept, sockets[i % kept].try_clone()?);
                kept += 1;
                continue;
            }
            Err(_) => sockets[i % count].try_clone()?,
        };
        sockets.push(another);
    }
    Ok(carrier.bound(addr, sockets, kept))
}

/// A new socket at the address of `first`, which is open.
fn share_port(carrier: Carrier, addr: SocketAddr, first: &Socket) -> io::Result<Socket> {
    let socket = carrier.socket(addr)?;
    first.set_reuse_port(true)?;
    socket.set_reuse_port(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(first.only_v6()?)?;
    }
    socket.bind(&addr.into())?;
    carrier.tune(&socket, addr)?;
    carrier.listen(&socket)?;
    Ok(socket)
}

/// A Unix socket that listens at `path` already.
pub(super) fn adopt_unix(
    path: PathBuf,
    owner: FileOwner,
    inherited: Vec<OwnedFd>,
    workers: usize,
) -> io::Result<Bound> {
    let mut sockets: Vec<UnixListener> = inherited.into_iter().map(Into::into).collect();
    for socket in &sockets {
        socket.set_nonblocking(true)?;
    }
    let count = sockets.len();
    if count == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for i in count..workers {
        sockets.push(sockets[i % count].try_clone()?);
    }
    let file = SocketFile {
        path,
        owner,
        // A predecessor still serves, and goes on if this process does not come up: the file
        // becomes ours with its word (`SocketFile::own`).
        is_removed: AtomicBool::new(true),
    };
    Ok(Bound::Unix { file, sockets })
}

/// Binds a Unix socket whose file has exactly the permissions `mode`, and never wider ones: not for
/// a moment, whatever the umask says.
///
/// # Errors
/// [`BindError`]; no file of ours is left then.
pub fn bind_unix_with_mode(
    path: &Path,
    mode: u32,
) -> Result<(UnixListener, SocketFile), BindError> {
    let bound = || {
        remove_dead(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Linux gives the file the mode of the socket, less the umask (unix_bind_bsd in
        // net/unix/af_unix.c): set before the bind, there is no moment with the default of 0777.
        rustix::fs::fchmod(&socket, Mode::from_raw_mode(mode))?;
        socket.bind(&SockAddr::unix(path)?)?;
        let file = SocketFile::new(path.to_owned());
        // What the umask took away is given back. Nobody connects before listen(2).
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
        socket.set_nonblocking(true)?;
        socket.listen(BACKLOG)?;
        Ok((socket.into(), file))
    };
    bound().map_err(|source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse {
            addr: BindAddr::Unix(path.to_owned()),
        },
        // `BindError::Permission` speaks of ports.
        _ => BindError::Io {
            addr: BindAddr::Unix(path.to_owned()),
            source,
        },
    })
}

/// Makes room for a socket: removes the file of a dead process, refuses that of a live one.
fn remove_dead(path: &Path) -> io::Result<()> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        // A socket file left by a dead process refuses connections: then it is ours to replace. So
        // does a file that is no socket: that one is somebody's and stays.
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused && is_socket(path) => {
            std::fs::remove_file(path)
        }
        Err(_) => Ok(()),
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
}

fn bind_unix(path: PathBuf, workers: usize) -> io::Result<Bound> {
    remove_dead(&path)?;
    let first = UnixListener::bind(&path)?;
    let file = SocketFile::new(path);
    first.set_nonblocking(true)?;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 1..workers {
        sockets.push(first.try_clone()?);
    }
    sockets.push(first);
    Ok(Bound::Unix { file, sockets })
}

// === impl Carrier ===

impl Carrier {
    /// A socket for `addr`.
    fn socket(self, addr: SocketAddr) -> io::Result<Socket> {
        let (kind, protocol) = match self {
            Self::Tcp => (Type::STREAM, Protocol::TCP),
            Self::Udp => (Type::DGRAM, Protocol::UDP),
        };
        let socket = Socket::new(Domain::for_address(addr), kind, Some(protocol))?;
        // With UDP it lets two programs have the same address.
        if self == Self::Tcp {
            socket.set_reuse_address(true)?;
        }
        Ok(socket)
    }

    fn tune(self, socket: &Socket, addr: SocketAddr) -> io::Result<()> {
        match self {
            Self::Tcp => tune(socket),
            Self::Udp => datagram::tune(socket, addr.ip()),
        }
    }

    /// Has connections wait for us; datagrams do without.
    fn listen(self, socket: &Socket) -> io::Result<()> {
        if self == Self::Tcp {
            socket.listen(BACKLOG)?;
        }
        self.tune_listening(socket);
        Ok(())
    }

    /// An option that listen(2) clears, so that it comes after: a request is acknowledged by its answer,
    /// not by a segment of its own. Inherited as well. Best effort: it only saves segments. Whoever serves the
    /// connection says so (`Stream::acknowledge`) where the answer is not the next thing to be sent.
    fn tune_listening(self, socket: &Socket) {
        if self == Self::Tcp {
            let _ = rustix::net::sockopt::set_tcp_quickack(socket, false);
        }
    }

    fn bound(self, addr: SocketAddr, sockets: Vec<Socket>, kept: usize) -> Bound {
        match self {
            Self::Tcp => Bound::Tcp {
                addr,
                sockets: sockets.into_iter().map(Into::into).collect(),
                kept,
            },
            Self::Udp => Bound::Udp {
                addr,
                sockets: sockets.into_iter().map(Into::into).collect(),
            },
        }
    }
}

// === impl SocketFile ===

impl SocketFile {
    fn new(path: PathBuf) -> Self {
        Self {
            owner: FileOwner::Isobar,
            path,
            is_removed: AtomicBool::new(false),
        }
    }

    /// Leaves the file where it is, whatever happens: another process has the socket now.
    pub fn keep(&self) {
        // Relaxed: as in `remove`.
        self.is_removed.store(true, Ordering::Relaxed);
    }

    /// The predecessor has handed the socket over for good: the file goes with this process.
    pub fn own(&self) {
        self.is_removed
            .store(self.owner == FileOwner::Systemd, Ordering::Relaxed);
    }

    /// Removes the file: nobody new finds the socket.
    pub fn remove(&self) {
        // Relaxed: the flag guards itself only.
        if !self.is_removed.swap(true, Ordering::Relaxed) {
            // Gone already is as good.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

// === impl Bound ===

impl Bound {
    /// The address bound, if it is an IP one.
    pub fn addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp { addr, .. } | Self::Udp { addr, .. } => Some(*addr),
            Self::Unix { .. } => None,
        }
    }

    /// How many of the sockets, from the first on, systemd has as well: they stay open when this
    /// process closes its own, and the next start inherits them as they are left. (Datagrams: none,
    /// because nothing is left behind on their sockets.)
    pub fn kept(&self) -> usize {
        match self {
            Self::Tcp { kept, .. } => *kept,
            Self::Udp { .. } => 0,
            Self::Unix { file, sockets } => match file.owner {
                FileOwner::Isobar => 0,
                FileOwner::Systemd => sockets.len(),
            },
        }
    }

    /// The sockets as plain descriptors, and the file of a Unix one: to be held while they are.
    pub fn into_parts(self) -> (Vec<OwnedFd>, Option<SocketFile>) {
        match self {
            Self::Tcp { sockets, .. } => (sockets.into_iter().map(Into::into).collect(), None),
            Self::Udp { sockets, .. } => (sockets.into_iter().map(Into::into).collect(), None),
            Self::Unix { sockets, file } => {
                (sockets.into_iter().map(Into::into).collect(), Some(file))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> BindAddr {
        BindAddr::Ip("127.0.0.1:0".parse().unwrap())
    }

    #[test]
    fn every_worker_gets_a_socket_of_one_port() {
        let bound = bind(&local(), 3).unwrap();
        let Bound::Tcp { addr, sockets, .. } = &bound else {
            panic!("not TCP")
        };
        assert_eq!(sockets.len(), 3);
        assert!(sockets.iter().all(|s| s.local_addr().unwrap() == *addr));
    }

    #[test]
    fn a_port_in_use_is_an_error_even_if_its_holder_would_share() {
        let held = bind(&local(), 2).unwrap();
        let again = bind(&BindAddr::Ip(held.addr().unwrap()), 2);
        assert!(matches!(again, Err(BindError::InUse { .. })), "{again:?}");
    }

    #[test]
    fn a_file_that_is_no_socket_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes");
        std::fs::write(&path, "mine").unwrap();
        assert!(bind(&BindAddr::Unix(path.clone()), 1).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }

    #[test]
    fn a_socket_has_exactly_the_mode_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o600, 0o666] {
            let path = dir.path().join(format!("{mode:o}"));
            let (listener, file) = bind_unix_with_mode(&path, mode).unwrap();
            let has = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(has & 0o7777, mode, "{has:o}");
            let again = bind_unix_with_mode(&path, mode);
            assert!(matches!(again, Err(BindError::InUse { .. })), "{again:?}");
            drop(listener);
            // As a process that died would leave it.
            file.keep();
            drop(file);
            let (_listener, file) = bind_unix_with_mode(&path, mode).unwrap();
            drop(file);
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_dead_socket_file_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left by a dead process");
        let addr = BindAddr::Unix(path.clone());
        let live = bind(&addr, 2).unwrap();
        assert!(matches!(bind(&addr, 1), Err(BindError::InUse { .. })));
        assert!(path.exists());
        drop(live);
        assert!(!path.exists());
    }
}
