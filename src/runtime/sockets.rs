//! Which listening sockets exist, and which listener each belongs to.
//!
//! A socket belongs to an ADDRESS, not to a listener: when a reload moves an address from one
//! listener to another, the socket and the connections that wait in its queue move along. New
//! addresses are bound before anything changes; one that cannot be had leaves all as it was.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::base::addr::BindAddr;
use crate::base::clock::{Clock, nanos};
use crate::config::{Listener, Name, Serves};
use crate::listener::handover::{Entry, Inherited, Kind};
use crate::listener::{BindError, Bound, SocketFile, bind, bind_beside, bind_udp, bind_udp_beside};
use crate::proxy::udp::Group;

use super::worker::{Command, Listening, SocketKind};
use super::workers::Workers;

/// The open sockets and the slots of listeners.
#[derive(Debug, Default)]
pub struct Sockets {
    open: Vec<Open>,
    slots: Vec<Slot>,
    closing: Vec<Closing>,
    ids: u64,
}

/// What a configuration needs, bound already. Dropping it closes what was bound for it.
#[derive(Debug)]
pub struct Prepared {
    /// `slots[i]` is the slot of the configuration's listener `i`.
    pub slots: Vec<usize>,
    /// Listeners that have a slot now and will not.
    pub removed: Vec<usize>,
    names: Vec<Name>,
    wanted: Vec<Wanted>,
}

/// One address of a configuration.
#[derive(Debug)]
struct Wanted {
    bind: BindAddr,
    kind: SocketKind,
    slot: usize,
    /// Its sockets if they are new.
    bound: Option<Bound>,
}

/// One listening address.
#[derive(Debug)]
struct Open {
    id: u64,
    bind: BindAddr,
    addr: Option<SocketAddr>,
    kind: SocketKind,
    slot: usize,
    /// One a worker: handles of our own, to hand to a successor.
    handles: Vec<OwnedFd>,
    /// How many of them, from the first on, systemd has as well.
    kept: usize,
    /// Removed when this goes.
    file: Option<SocketFile>,
}

/// An address that was given up, and that workers still listen on for the time of a last call.
#[derive(Debug)]
struct Closing {
    /// Its number, which workers know it by.
    id: u64,
    addr: SocketAddr,
    kind: SocketKind,
    /// Alive as long as a worker does.
    by: Weak<()>,
}

/// How long a new socket waits for one of ours at its port that closes: the last call of 100 ms,
/// and a worker that is late.
const CLOSED_WITHIN: Duration = Duration::from_secs(2);

/// How often it looks.
const CLOSED_POLL: Duration = Duration::from_millis(5);

/// A number that connections know their listener by; never used again for another.
#[derive(Debug)]
struct Slot {
    name: Name,
    /// Its connections, all workers together.
    connections: Arc<AtomicUsize>,
    /// Its tables of flows, all workers together.
    tables: Arc<AtomicUsize>,
    is_active: bool,
}

// === impl Sockets ===

impl Sockets {
    /// Binds what `listeners` need and is not bound yet; takes it from `inherited` if it is there.
    ///
    /// # Errors
    /// The first address that cannot be had, with the listener's name; nothing stays bound for it.
    pub fn prepare(
        &self,
        listeners: &[Listener],
        workers: usize,
        mut inherited: Option<&mut Inherited>,
    ) -> Result<Prepared, (Name, BindError)> {
        let known: HashMap<&str, usize> = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.is_active)
            .map(|(i, slot)| (&*slot.name, i))
            .collect();
        let mut fresh = self.slots.len();
        let slots: Vec<usize> = listeners
            .iter()
            .map(|listener| {
                known.get(&*listener.name).copied().unwrap_or_else(|| {
                    fresh += 1;
                    fresh - 1
                })
            })
            .collect();
        let mut wanted = Vec::new();
        for (listener, slot) in listeners.iter().zip(&slots) {
            for addr in &listener.bind {
                let kind = SocketKind::of(listener, addr);
                let is_open =
                    (self.open.iter()).any(|open| open.bind == *addr && open.kind == kind);
                let bound = if is_open {
                    None
                } else {
                    if kind != SocketKind::Udp {
                        self.await_closed(addr);
                    }
                    let bound = inherited
                        .as_mut()
                        .and_then(|inherited| inherited.bind(kind.handed(), addr, workers))
                        .unwrap_or_else(|| match (kind, self.overlaps(addr, kind)) {
                            (SocketKind::Udp, false) => bind_udp(addr, workers),
                            (SocketKind::Udp, true) => bind_udp_beside(addr, workers),
                            (SocketKind::Tcp | SocketKind::Unix, false) => bind(addr, workers),
                            (SocketKind::Tcp | SocketKind::Unix, true) => {
                                bind_beside(addr, workers)
                            }
                        })
                        .map_err(|source| (listener.name.clone(), source))?;
                    Some(bound)
                };
                wanted.push(Wanted {
                    bind: addr.clone(),
                    kind,
                    slot: *slot,
                    bound,
                });
            }
        }
        let removed = known
            .values()
            .copied()
            .filter(|slot| !slots.contains(slot))
            .collect();
        Ok(Prepared {
            names: listeners.iter().map(|l| l.name.clone()).collect(),
            slots,
            removed,
            wanted,
        })
    }

    /// Waits until no worker listens any more at the port of `addr` on a socket that an earlier
    /// change gave up: a listener that comes back at once would find its own address in use.
    fn await_closed(&self, addr: &BindAddr) {
        let Some(port) = port(addr) else { return };
        let clock = Clock::start();
        let end = clock.now() + nanos(CLOSED_WITHIN);
        let is_open = |closing: &Closing| {
            let is_tcp = closing.kind == SocketKind::Tcp;
            is_tcp && closing.addr.port() == port && closing.by.strong_count() > 0
        };
        while self.closing.iter().any(is_open) && clock.now() < end {
            std::thread::park_timeout(CLOSED_POLL);
        }
    }

    /// Whether an address of ours may be in the way of `addr`: `0.0.0.0:80` and `10.0.0.1:80` may
    /// be open at once, for as long as it takes to close the one that goes; and flows of UDP may still
    /// use a socket that was given up.
    fn overlaps(&self, addr: &BindAddr, kind: SocketKind) -> bool {
        let Some(port) = port(addr) else { return false };
        let has_port =
            |open: &Open| open.kind == kind && open.addr.is_some_and(|a| a.port() == port);
        self.open.iter().any(has_port)
            || (kind == SocketKind::Udp && self.draining().any(|(_, a)| a.port() == port))
    }

    /// Sockets for datagrams that were given up and are still in use, with their addresses.
    fn draining(&self) -> impl Iterator<Item = (u64, SocketAddr)> {
        let in_use = self.closing.iter().filter(|c| c.by.strong_count() > 0);
        let udp = in_use.filter(|c| c.kind == SocketKind::Udp);
        udp.map(|c| (c.id, c.addr))
    }

    /// Makes it so: tells the workers which sockets are new and which change hands, and returns
    /// those that nobody wants any more, to be closed by [`Sockets::close`].
    pub fn commit(&mut self, prepared: Prepared, workers: &Workers) -> Vec<u64> {
        for slot in &mut self.slots {
            slot.is_active = false;
        }
        for (name, slot) in prepared.names.iter().zip(&prepared.slots) {
            match self.slots.get_mut(*slot) {
                Some(known) => known.is_active = true,
                // In order: `prepare` numbered them so.
                None => self.slots.push(Slot {
                    name: name.clone(),
                    connections: Arc::default(),
                    tables: Arc::default(),
                    is_active: true,
                }),
            }
        }
        let mut unwanted: Vec<u64> = self.open.iter().map(|open| open.id).collect();
        for Wanted {
            bind,
            kind,
            slot,
            bound,
        } in prepared.wanted
        {
            let Slot {
                connections,
                tables,
                ..
            } = &self.slots[slot];
            let (connections, tables) = (connections.clone(), tables.clone());
            if let Some(bound) = bound {
                self.open(bind, kind, slot, bound, workers);
                continue;
            }
            let is_it = |open: &&mut Open| open.bind == bind && open.kind == kind;
            if let Some(open) = self.open.iter_mut().find(is_it) {
                unwanted.retain(|id| *id != open.id);
                if open.slot != slot {
                    open.slot = slot;
                    let socket = open.id;
                    workers.tell(|_| Command::Assign {
                        socket,
                        slot,
                        connections: connections.clone(),
                        tables: tables.clone(),
                    });
                }
            }
        }
        unwanted
    }

    fn open(
        &mut self,
        addr: BindAddr,
        kind: SocketKind,
        slot: usize,
        bound: Bound,
        workers: &Workers,
    ) {
        if kind == SocketKind::Udp
            && let Some(new) = bound.addr()
        {
            // The address is back while flows of before still drain: their sockets would keep a part
            // of what comes, and know nothing of it.
            let draining = self.draining().filter(|(_, old)| hides(*old, new));
            let sockets: Vec<u64> = draining.map(|(id, _)| id).collect();
            if !sockets.is_empty() {
                workers.tell(|_| Command::CutDatagrams {
                    sockets: sockets.clone(),
                });
            }
        }
        self.ids += 1;
        let mut open = Open {
            id: self.ids,
            bind: addr,
            addr: bound.addr(),
            kind,
            slot,
            handles: Vec::new(),
            kept: 0,
            file: None,
        };
        let kept = bound.kept();
        let (sockets, file) = bound.into_parts();
        open.file = file;
        let Slot {
            connections,
            tables,
            ..
        } = &self.slots[slot];
        let group = Arc::<Group>::default();
        // One a worker; a predecessor with more workers leaves more, and none may be closed.
        for (i, fd) in sockets.into_iter().enumerate() {
            // Without a handle the socket serves; only a successor has to bind it anew.
            let is_kept = i < kept;
            if let Ok(handle) = fd.try_clone() {
                open.handles.push(handle);
                open.kept += usize::from(is_kept);
            }
            let listening = Listening {
                socket: open.id,
                fd,
                kind,
                is_kept,
                slot,
                connections: connections.clone(),
                tables: tables.clone(),
                group: group.clone(),
            };
            workers.tell_one(i % workers.len().max(1), Command::Listen(listening));
        }
        self.open.push(open);
    }

    /// Gives these sockets up: nobody new finds them. What is returned is for the workers to drop
    /// once they have closed them.
    pub fn close(&mut self, sockets: &[u64]) -> Arc<()> {
        let done = Arc::new(());
        self.closing.retain(|closing| closing.by.strong_count() > 0);
        let closing = &mut self.closing;
        self.open.retain(|open| {
            let goes = sockets.contains(&open.id);
            if goes {
                closing.extend(open.addr.map(|addr| Closing {
                    id: open.id,
                    addr,
                    kind: open.kind,
                    by: Arc::downgrade(&done),
                }));
                if let Some(file) = &open.file {
                    file.remove();
                }
            }
            !goes
        });
        done
    }

    /// The files of inherited Unix sockets go with this process from now on.
    pub fn own_files(&self) {
        for open in &self.open {
            if let Some(file) = &open.file {
                file.own();
            }
        }
    }

    /// Gives all sockets up. `keep_files`: a successor goes on listening there.
    pub fn close_all(&mut self, keep_files: bool) {
        for open in self.open.drain(..) {
            if let Some(file) = &open.file {
                if keep_files {
                    file.keep();
                } else {
                    file.remove();
                }
            }
        }
    }

    /// The name of the listener in `slot`, and its open connections.
    pub fn slot(&self, slot: usize) -> Option<(&Name, usize)> {
        let slot = self.slots.get(slot)?;
        // Relaxed: a count.
        Some((&slot.name, slot.connections.load(Ordering::Relaxed)))
    }

    /// Open connections of the listener that has this name now.
    pub fn connections(&self, listener: &str) -> Option<usize> {
        let slot = self
            .slots
            .iter()
            .find(|slot| slot.is_active && &*slot.name == listener)?;
        Some(slot.connections.load(Ordering::Relaxed))
    }

    /// The addresses that listener `name` is bound to, with their real ports.
    pub fn texts(&self, name: &str) -> Vec<String> {
        self.of(name)
            .map(|open| match open.addr {
                Some(addr) => addr.to_string(),
                None => open.bind.to_string(),
            })
            .collect()
    }

    /// The IP addresses that listener `name` is bound to.
    pub fn addrs(&self, name: &str) -> Vec<SocketAddr> {
        self.of(name).filter_map(|open| open.addr).collect()
    }

    fn of(&self, name: &str) -> impl Iterator<Item = &Open> {
        self.open.iter().filter(move |open| {
            let slot = &self.slots[open.slot];
            slot.is_active && &*slot.name == name
        })
    }

    /// Every listening address with its sockets, for a successor.
    pub fn handles(&self) -> impl Iterator<Item = (Entry, Vec<BorrowedFd<'_>>)> {
        self.open.iter().map(|open| {
            let entry = Entry {
                kind: open.kind.handed(),
                name: self.slots[open.slot].name.to_string(),
                addr: open.bind.to_string(),
                count: open.handles.len(),
                kept: open.kept,
            };
            (entry, open.handles.iter().map(AsFd::as_fd).collect())
        })
    }
}

// === impl SocketKind ===

impl SocketKind {
    /// What `listener` needs at `addr`.
    fn of(listener: &Listener, addr: &BindAddr) -> Self {
        match (&listener.serves, addr) {
            (Serves::Udp(_), _) => Self::Udp,
            (Serves::Http | Serves::Tcp(_), BindAddr::Any(_) | BindAddr::Ip(_)) => Self::Tcp,
            (Serves::Http | Serves::Tcp(_), BindAddr::Unix(_)) => Self::Unix,
        }
    }

    /// How a handover calls it.
    fn handed(self) -> Kind {
        match self {
            Self::Tcp => Kind::Tcp,
            Self::Udp => Kind::Udp,
            Self::Unix => Kind::Unix,
        }
    }
}

/// The port that `addr` asks for; `None` = any, or it has no ports.
fn port(addr: &BindAddr) -> Option<u16> {
    let port = match addr {
        BindAddr::Any(port) => *port,
        BindAddr::Ip(ip) => ip.port(),
        BindAddr::Unix(_) => return None,
    };
    (port != 0).then_some(port)
}

/// Whether a socket for datagrams at `old` receives some of what is sent to `new`. Of those that fit, the
/// kernel takes the one that is bound more closely, and shares what comes between equal ones.
fn hides(old: SocketAddr, new: SocketAddr) -> bool {
    if old.port() != new.port() {
        return false;
    }
    match (old.ip(), new.ip()) {
        (old, new) if old == new => true,
        (IpAddr::V4(_), IpAddr::V4(new)) => new.is_unspecified(),
        // It may take IPv4 as well. If it does not, no more is lost than flows that were to end.
        (IpAddr::V4(_) | IpAddr::V6(_), IpAddr::V6(new)) => new.is_unspecified(),
        (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::hides;

    #[test]
    fn a_socket_that_was_given_up_hides_the_same_address_and_wider_ones() {
        let cases = [
            ("10.0.0.1:53", "10.0.0.1:53", true),
            ("10.0.0.1:53", "10.0.0.1:54", false),
            ("10.0.0.1:53", "10.0.0.2:53", false),
            ("10.0.0.1:53", "0.0.0.0:53", true),
            ("10.0.0.1:53", "[::]:53", true),
            ("10.0.0.1:53", "[::1]:53", false),
            ("0.0.0.0:53", "10.0.0.1:53", false),
            ("0.0.0.0:53", "0.0.0.0:53", true),
            ("0.0.0.0:53", "[::]:53", true),
            ("[::1]:53", "[::]:53", true),
            ("[::1]:53", "[::2]:53", false),
            ("[::]:53", "[::1]:53", false),
            ("[::]:53", "0.0.0.0:53", false),
        ];
        for (old, new, expected) in cases {
            let is = hides(old.parse().unwrap(), new.parse().unwrap());
            assert_eq!(is, expected, "{old} {new}");
        }
    }
}
