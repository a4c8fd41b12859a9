//! Sockets that another process bound: the predecessor in an upgrade, systemd at the start.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::net::sockopt::{socket_acceptconn, socket_type};
use rustix::net::{AddressFamily, SocketType};
use socket2::SockRef;

use super::{Entry, HandoverError, Kind, Manifest};
use crate::base::addr::BindAddr;
use crate::listener::socket::{BindError, Bound, Carrier, FileOwner, adopt_ip, adopt_unix};

/// Sockets to be taken in the place of new ones. What nobody takes is closed when this is dropped.
///
/// Hold it until the predecessor has got `Ready`: then what was not taken (a listener that the new
/// configuration does not have) is drained by the predecessor, as at a reload.
#[derive(Debug)]
pub struct Inherited {
    origin: Origin,
    sockets: Vec<Sockets>,
}

#[derive(Debug)]
enum Origin {
    /// systemd does not know what is admin.
    Activation,
    Predecessor {
        pid: u32,
        generation: u64,
    },
}

#[derive(Debug)]
struct Sockets {
    entry: Entry,
    local: Local,
    descriptors: Vec<OwnedFd>,
}

/// Where a socket is bound, as the kernel says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Local {
    Ip(SocketAddr),
    Unix(PathBuf),
}

// === impl Inherited ===

impl Inherited {
    /// Sockets that systemd bound, with the names it gave them (`FileDescriptorName=`): see
    /// [`crate::base::systemd::listen_fds`].
    ///
    /// # Errors
    /// [`HandoverError::Socket`] for a descriptor that is no listening socket (`Accept=yes`, a pipe).
    pub fn activated(descriptors: Vec<(OwnedFd, String)>) -> Result<Self, HandoverError> {
        let mut sockets: Vec<Sockets> = Vec::new();
        for (fd, name) in descriptors {
            let (kind, local) = examine(&fd).map_err(|why| HandoverError::Socket {
                kind: Kind::Tcp,
                name: name.clone(),
                addr: "an address of systemd".to_owned(),
                why,
            })?;
            let same = |s: &&mut Sockets| s.entry.kind == kind && s.local == local;
            if let Some(known) = sockets.iter_mut().find(same) {
                known.entry.count += 1;
                known.entry.kept += 1;
                known.descriptors.push(fd);
            } else {
                let addr = local.to_bind().to_string();
                sockets.push(Sockets {
                    entry: Entry {
                        kind,
                        name,
                        addr,
                        count: 1,
                        kept: 1,
                    },
                    local,
                    descriptors: vec![fd],
                });
            }
        }
        Ok(Self {
            origin: Origin::Activation,
            sockets,
        })
    }

    pub(super) fn handed(
        manifest: Manifest,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Self, HandoverError> {
        let origin = Origin::Predecessor {
            pid: manifest.pid,
            generation: manifest.generation,
        };
        let mut sockets = Vec::with_capacity(manifest.sockets.len());
        let mut rest = descriptors.into_iter();
        for entry in manifest.sockets {
            let descriptors: Vec<_> = rest.by_ref().take(entry.count).collect();
            let wrong = |why: String| HandoverError::Socket {
                kind: entry.kind,
                name: entry.name.clone(),
                addr: entry.addr.clone(),
                why,
            };
            let mut local = None;
            for fd in &descriptors {
                let found = check(&entry, fd).map_err(wrong)?;
                if local.get_or_insert_with(|| found.clone()) != &found {
                    return Err(wrong("its sockets have different addresses".to_owned()));
                }
            }
            let local = local.ok_or_else(|| wrong("no descriptor".to_owned()))?;
            sockets.push(Sockets {
                entry,
                local,
                descriptors,
            });
        }
        Ok(Self { origin, sockets })
    }

    /// The predecessor's process and generation; `None` when systemd bound the sockets.
    pub fn predecessor(&self) -> Option<(u32, u64)> {
        match self.origin {
            Origin::Activation => None,
            Origin::Predecessor { pid, generation } => Some((pid, generation)),
        }
    }

    /// What is still here, for the log.
    pub fn left(&self) -> impl Iterator<Item = &Entry> {
        self.sockets.iter().map(|s| &s.entry)
    }

    /// The sockets of `addr`, if they were inherited; they are the caller's from now on.
    pub fn take(&mut self, kind: Kind, addr: &BindAddr) -> Option<Vec<OwnedFd>> {
        self.remove(kind, addr).map(|s| s.descriptors)
    }

    /// [`take`](Self::take), made ready for `workers` workers, as [`bind`](crate::listener::bind)
    /// would have; `None` if the address was not inherited: then it is to be bound.
    ///
    /// - Fewer sockets than workers: the rest are new ones that share the port (`SO_REUSEPORT`).
    ///   Where the system refuses that, because another user made the first ones (before privileges
    ///   were dropped; systemd), workers share the inherited ones.
    /// - More sockets than workers: all of them come back, and a worker has to accept from several
    ///   (number `i` belongs to worker `i % workers`). None may be closed: the kernel goes on
    ///   spreading connections over them as long as the predecessor has its copies, and resets
    ///   what waits in one when the last copy goes.
    pub fn bind(
        &mut self,
        kind: Kind,
        addr: &BindAddr,
        workers: usize,
    ) -> Option<Result<Bound, BindError>> {
        let taken = self.remove(kind, addr)?;
        // From a predecessor too: what systemd once bound it keeps.
        let kept = taken.entry.kept;
        let owner = if kept > 0 {
            FileOwner::Systemd
        } else {
            FileOwner::Isobar
        };
        let bound = match taken.local {
            Local::Ip(local) => {
                let carrier = match kind {
                    Kind::Udp => Carrier::Udp,
                    _ => Carrier::Tcp,
                };
                adopt_ip(carrier, local, taken.descriptors, kept, workers)
            }
            Local::Unix(path) => adopt_unix(path, owner, taken.descriptors, workers),
        };
        Some(bound.map_err(|source| BindError::Io {
            addr: addr.clone(),
            source,
        }))
    }

    fn remove(&mut self, kind: Kind, addr: &BindAddr) -> Option<Sockets> {
        let text = addr.to_string();
        let is_kind = |s: &Sockets| match self.origin {
            Origin::Activation => s.entry.kind == kind.without_role(),
            Origin::Predecessor { .. } => s.entry.kind == kind,
        };
        // The configured text first: it tells two `:0` of different listeners from nothing else,
        // but a port that the kernel chose from one that is written.
        let at = (self.sockets.iter())
            .position(|s| is_kind(s) && s.entry.addr == text)
            .or_else(|| {
                (self.sockets.iter()).position(|s| is_kind(s) && s.local.is_exactly(addr))
            })?;
        Some(self.sockets.remove(at))
    }
}

// === impl Kind ===

impl Kind {
    fn without_role(self) -> Self {
        match self {
            Self::AdminTcp | Self::Tcp => Self::Tcp,
            Self::AdminUnix | Self::Unix => Self::Unix,
            Self::Udp => Self::Udp,
        }
    }
}

// === impl Local ===

impl Local {
    fn to_bind(&self) -> BindAddr {
        match self {
            Self::Ip(addr) => BindAddr::Ip(*addr),
            Self::Unix(path) => BindAddr::Unix(path.clone()),
        }
    }

    /// Whether a socket here is what `addr` asks for.
    fn is_exactly(&self, addr: &BindAddr) -> bool {
        match (self, addr) {
            (Self::Ip(local), BindAddr::Ip(ip)) => local == ip,
            (Self::Ip(local), BindAddr::Any(port)) => {
                *local == SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), *port)
            }
            (Self::Unix(local), BindAddr::Unix(path)) => local == path,
            (Self::Ip(_), BindAddr::Unix(_)) | (Self::Unix(_), _) => false,
        }
    }

    /// Whether a socket bound for `addr` can be here: any port for port 0, IPv4 for `:80` where
    /// there is no IPv6.
    fn can_be(&self, addr: &BindAddr) -> bool {
        match (self, addr) {
            (Self::Ip(local), BindAddr::Ip(ip)) => {
                local.ip() == ip.ip() && (ip.port() == 0 || local.port() == ip.port())
            }
            (Self::Ip(local), BindAddr::Any(port)) => {
                local.ip().is_unspecified() && (*port == 0 || local.port() == *port)
            }
            (Self::Unix(local), BindAddr::Unix(path)) => local == path,
            (Self::Ip(_), BindAddr::Unix(_)) | (Self::Unix(_), _) => false,
        }
    }
}

/// Checks a descriptor against what the manifest says of it.
fn check(entry: &Entry, fd: &OwnedFd) -> Result<Local, String> {
    let (kind, local) = examine(fd)?;
    let expected = entry.kind.without_role();
    if kind != expected {
        return Err(format!("it is a {kind:?} socket, not a {expected:?} one"));
    }
    let addr = parse(&entry.addr).ok_or("its address is not one")?;
    if !local.can_be(&addr) {
        return Err(format!("the socket is bound to {}", local.to_bind()));
    }
    Ok(local)
}

/// What a descriptor is, and where; `Err` says why it is of no use here.
fn examine(fd: &OwnedFd) -> Result<(Kind, Local), String> {
    let system = |e: io::Error| format!("not a socket: {e}");
    let kind = socket_type(fd.as_fd()).map_err(|e| system(e.into()))?;
    let addr = SockRef::from(fd).local_addr().map_err(system)?;
    let is_listening = || socket_acceptconn(fd.as_fd()).unwrap_or(false);
    if let Some(ip) = addr.as_socket() {
        return match kind {
            SocketType::DGRAM => Ok((Kind::Udp, Local::Ip(ip))),
            SocketType::STREAM if is_listening() => Ok((Kind::Tcp, Local::Ip(ip))),
            SocketType::STREAM => Err("the socket does not listen".to_owned()),
            other => Err(format!("a socket of type {other:?}")),
        };
    }
    if addr.domain() != socket2::Domain::UNIX {
        let family = AddressFamily::from_raw(addr.family());
        return Err(format!("a socket of family {family:?}"));
    }
    let path = addr.as_pathname().ok_or("a Unix socket without a path")?;
    if kind != SocketType::STREAM || !is_listening() {
        return Err("the socket does not listen for streams".to_owned());
    }
    Ok((Kind::Unix, Local::Unix(path.to_owned())))
}

/// What [`BindAddr`] displays.
fn parse(text: &str) -> Option<BindAddr> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Some(BindAddr::Unix(Path::new(path).to_owned()));
    }
    if let Some(port) = text.strip_prefix(':') {
        return port.parse().ok().map(BindAddr::Any);
    }
    text.parse().ok().map(BindAddr::Ip)
}
