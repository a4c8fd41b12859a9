//! One flow: its client, its endpoint, and the connected socket between us and that one.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, connect, send, sendmsg,
    socket_with,
};

use crate::base::addr::EndpointAddr;
use crate::base::clock::Nanos;
use crate::base::proxy_protocol::{Addresses, Tlvs, Transport, write_v2};
use crate::proxy::flow::{self, FlowExchange};
use crate::proxy::worker::Worker;
use crate::telemetry::access_log::Phase;
use crate::telemetry::metrics::cells::{
    ConnectFailure, DatagramDrop, EndpointOutcome, FlowEnd, PoolOutcome,
};
use crate::telemetry::reason::Reason;
use crate::upstream::{self, LocalUpstream, Picked, Seen, Tried};

use super::flows::Id;

/// One flow. While it is idle it holds no buffer.
#[derive(Debug)]
pub(super) struct Flow {
    /// What will be told of it.
    pub x: FlowExchange,
    /// Where its client is.
    place: Place,
    /// Where it may have moved to.
    moved: Option<Box<Moved>>,
    /// The round of the last answer: see `answers`.
    pub round: u64,
    upstream: Rc<LocalUpstream>,
    link: Option<Link>,
    /// Endpoints that failed it since the last answer.
    tried: Tried,
    /// The snapshot and the generation under which its endpoint was last looked at.
    looked: (u64, u64),
    /// An endpoint has answered, this one or one before.
    has_answer: bool,
    /// Its client has spoken after that: it is where it says.
    is_proven: bool,
}

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its address.
    pub peer: SocketAddr,
    /// Our address that it sends to, where the socket has more than one.
    pub local: Option<IpAddr>,
}

/// Another place of a client, with a socket to the endpoint of its own: see `quic`.
#[derive(Debug)]
struct Moved {
    place: Place,
    socket: OwnedFd,
    allowance: Allowance,
    /// An answer was sent there.
    has_answer: bool,
}

/// What may be sent to a place that a client may have moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allowance {
    /// So many bytes.
    Bytes(usize),
    /// Anything: the client was there.
    All,
}

/// Which socket of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// That of where its client is.
    Home,
    /// That of where it may have moved to.
    Moved,
}

/// The socket to an endpoint.
#[derive(Debug)]
struct Link {
    socket: OwnedFd,
    /// The endpoint's epoch when it was made: another one means that it is to end.
    epoch: u32,
    /// When the first datagram was sent to it.
    since: Nanos,
    /// It has answered.
    has_answered: bool,
    /// Errors since its last answer.
    errors: u32,
}

/// A datagram of a client, and what can be told of it.
#[derive(Debug)]
pub(super) struct Told<'a> {
    /// The client, and what it has sent it to.
    pub addresses: Addresses,
    /// What a proxy in front has told besides.
    pub tlvs: Tlvs,
    /// What is the client's.
    pub data: &'a [u8],
}

/// Why a flow has no socket to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unopened {
    /// This process or host has no port, descriptor or memory left: less of it may help.
    Local,
    /// Something else.
    Refused(Reason),
}

/// What a flow needs of its surroundings.
pub(super) struct Surroundings<'a> {
    /// Its worker.
    pub worker: &'a Rc<Worker>,
    /// Where sockets are waited for.
    pub epoll: &'a OwnedFd,
    /// The version of the snapshot of now.
    pub version: u64,
    /// The time.
    pub now: Nanos,
}

/// No way leads to the endpoint.
const NO_WAY: Unopened = Unopened::Refused(Reason::Unreachable);

/// Endpoints of one datagram: the one that it has, and two in its place.
const ATTEMPTS: u32 = 3;

/// An endpoint that has answered and then refuses this many datagrams in a row is left: one that starts
/// again takes them back before.
const PATIENCE: u32 = 3;

/// Bytes to an address where nobody has shown to be, for one from there: RFC 9000 section 8.
const AMPLIFICATION: usize = 3;

// === impl Flow ===

impl Flow {
    /// A flow of `peer` to `upstream`, without an endpoint so far.
    pub(super) fn new(x: FlowExchange, upstream: Rc<LocalUpstream>, place: Place) -> Self {
        Self {
            x,
            place,
            moved: None,
            round: 0,
            upstream,
            link: None,
            tried: Tried::default(),
            looked: (0, 0),
            has_answer: false,
            is_proven: false,
        }
    }

    /// The socket to its endpoint, while it has one.
    pub(super) fn socket(&self, way: Way) -> Option<&OwnedFd> {
        match way {
            Way::Home => self.link.as_ref().map(|link| &link.socket),
            Way::Moved => self.moved.as_ref().map(|moved| &moved.socket),
        }
    }

    /// Its client was heard of at `place`. Whether that is where it is from now on: not before it has
    /// spoken from there after an answer went there.
    pub(super) fn hear(&mut self, around: &Surroundings<'_>, place: Place) -> bool {
        if place == self.place {
            return false;
        }
        self.look(around);
        let Some(link) = &mut self.link else {
            // No endpoint knows it from anywhere else.
            self.place = place;
            return true;
        };
        match &mut self.moved {
            Some(moved) if moved.place == place && moved.has_answer => {
                std::mem::swap(&mut link.socket, &mut moved.socket);
                std::mem::swap(&mut self.place, &mut moved.place);
                // What is late still comes from, and goes to, where it was.
                moved.allowance = Allowance::All;
                true
            }
            _ => false,
        }
    }

    /// Where an answer of `len` bytes goes that came by `way`; `None` = nowhere: too much for somebody who
    /// may never have asked.
    pub(super) fn place_of_answer(&mut self, way: Way, len: usize) -> Option<Place> {
        match (way, &mut self.moved) {
            (Way::Home, _) => Some(self.place),
            (Way::Moved, None) => None,
            (Way::Moved, Some(moved)) => {
                moved.allowance = moved.allowance.take(len)?;
                moved.has_answer = true;
                Some(moved.place)
            }
        }
    }

    /// An error was read from one of its sockets.
    pub(super) fn broke(&mut self, around: &Surroundings<'_>, way: Way, errno: Errno) {
        match way {
            Way::Home => self.refused(around, errno),
            Way::Moved => self.moved = None,
        }
    }

    /// Picks an endpoint and makes a socket to it. One to which there is no way is known at once, before a datagram
    /// is lost to it, and another one is taken.
    pub(super) fn open(&mut self, around: &Surroundings<'_>) -> Result<(), Unopened> {
        let mut opened = self.open_one(around);
        for _ in 1..ATTEMPTS {
            if opened != Err(NO_WAY) || !self.upstream.has_other(&self.tried) {
                break;
            }
            opened = self.open_one(around);
        }
        if opened == Err(NO_WAY) {
            self.x.conclude(Seen::Unconnected, around.now);
        }
        opened
    }

    fn open_one(&mut self, around: &Surroundings<'_>) -> Result<(), Unopened> {
        let Surroundings { worker, now, .. } = *around;
        let upstream = worker.renewed(&self.upstream);
        self.looked = (around.version, upstream.shared.generation());
        self.upstream = upstream.clone();
        self.x.upstream = Some(upstream.clone());
        if !upstream.has_other(&self.tried) {
            self.tried.clear();
        }
        let mut key = Vec::new();
        let client = self.x.client.map(|c| c.ip());
        flow::hash_key(&upstream.shared.spec, client, &mut key);
        let key = (!key.is_empty()).then_some(&key[..]);
        let cells = upstream.shared.cells.worker(worker.index);
        self.x.phase = Phase::Pick;
        let picked = upstream.pick(key, &self.tried, false, now, &mut worker.rng.borrow_mut());
        let ticket = match picked {
            Picked::One(ticket) => ticket,
            Picked::Full => return Err(Unopened::Refused(Reason::EndpointsLimit)),
            Picked::Nobody => {
                cells.no_endpoint.inc();
                return Err(Unopened::Refused(Reason::NoEndpoint));
            }
        };
        self.x.phase = Phase::Connect;
        self.x.attempts += 1;
        self.x.picked_at = Some(now);
        let made = socket_to(&ticket.endpoint().shared.addr);
        let endpoint = ticket.endpoint().clone();
        self.x.ticket = Some(ticket);
        match made {
            Ok(socket) => {
                cells.pool(PoolOutcome::Fresh).inc();
                let of_endpoint = endpoint.shared.cells.worker(worker.index);
                of_endpoint.connects.inc();
                of_endpoint.connections.add(1);
                self.x.connected_at = Some(now);
                self.link = Some(Link {
                    socket,
                    epoch: endpoint.shared.epoch(),
                    since: now,
                    has_answered: false,
                    errors: 0,
                });
                Ok(())
            }
            Err(errno) => {
                let name = &endpoint.shared.name;
                tracing::debug!(endpoint.addr = %name, error = %errno, "no socket to it");
                if is_local(errno) {
                    self.fail(around, ConnectFailure::Local, Seen::Cancelled);
                    return Err(Unopened::Local);
                }
                self.fail(around, ConnectFailure::Unreachable, Seen::Unconnected);
                Err(NO_WAY)
            }
        }
    }

    /// Waits for answers on its socket, as the flow `id`.
    pub(super) fn register(&self, around: &Surroundings<'_>, id: Id) -> Result<(), Reason> {
        let Some(link) = &self.link else {
            return Ok(());
        };
        watch(around, &link.socket, id).map_err(|_| Reason::Unreachable)
    }

    /// Sends a datagram of its client at `place` to its endpoint, or to another one that takes it.
    pub(super) fn forward(
        &mut self,
        around: &Surroundings<'_>,
        id: Id,
        place: Place,
        told: &Told<'_>,
    ) -> Result<(), DatagramDrop> {
        let data = told.data;
        self.is_proven |= self.has_answer;
        self.look(around);
        if place != self.place && self.link.is_some() {
            return self.forward_moved(around, id, place, told);
        }
        for _ in 0..ATTEMPTS {
            if self.link.is_none() {
                let opened = self.open(around).map_err(Reason::from);
                if let Err(reason) = opened.and_then(|()| self.register(around, id)) {
                    // One whose answers nobody waits for is none.
                    self.close(around);
                    self.x.let_go();
                    self.x.reason = Some(reason);
                    return Err(DatagramDrop::Endpoint);
                }
            }
            let Some(link) = &self.link else { continue };
            match self.send(&link.socket, told) {
                Ok(()) => {
                    self.sent(around, data.len());
                    return Ok(());
                }
                Err(errno) => match unsent(errno) {
                    Some(why) => return Err(why),
                    // What is told here came back for a datagram before; this one has not been sent.
                    None => self.refused(around, errno),
                },
            }
        }
        Err(DatagramDrop::Endpoint)
    }

    /// The same from a place where its client may be: by a socket of its own, so that the endpoint sees
    /// another path, and asks whether there is anybody.
    fn forward_moved(
        &mut self,
        around: &Surroundings<'_>,
        id: Id,
        place: Place,
        told: &Told<'_>,
    ) -> Result<(), DatagramDrop> {
        let known = self.moved.take().filter(|moved| moved.place == place);
        let mut moved = match known {
            Some(moved) => moved,
            None => Box::new(self.path(around, id, place)?),
        };
        moved.allowance = moved.allowance.add(told.data.len());
        let sent = self.send(&moved.socket, told).map_err(unsent);
        // An error that came back there says nothing of the flow: the socket goes.
        if sent != Err(None) {
            self.moved = Some(moved);
        }
        sent.map_err(|why| why.unwrap_or(DatagramDrop::Endpoint))?;
        self.sent(around, told.data.len());
        Ok(())
    }

    /// Another path to its endpoint, on which nothing was sent so far.
    fn path(&self, around: &Surroundings<'_>, id: Id, place: Place) -> Result<Moved, DatagramDrop> {
        let Some(ticket) = &self.x.ticket else {
            return Err(DatagramDrop::Endpoint);
        };
        let made = socket_to(&ticket.endpoint().shared.addr)
            .and_then(|socket| watch(around, &socket, id).map(|()| socket));
        Ok(Moved {
            place,
            socket: made.map_err(|_| DatagramDrop::Endpoint)?,
            allowance: Allowance::Bytes(0),
            has_answer: false,
        })
    }

    fn sent(&mut self, around: &Surroundings<'_>, len: usize) {
        self.x.reason = None;
        self.x.bytes_in += len as u64;
        if let Some(ticket) = &self.x.ticket {
            let cells = &ticket.endpoint().shared.cells;
            let cells = cells.worker(around.worker.index);
            cells.sent_bytes.add(len as u64);
        }
    }

    /// The endpoint has answered with `len` bytes.
    pub(super) fn answered(&mut self, around: &Surroundings<'_>, len: usize) {
        let Surroundings { worker, now, .. } = *around;
        self.x.bytes_out += len as u64;
        let Some(link) = &mut self.link else { return };
        link.errors = 0;
        let Some(ticket) = &self.x.ticket else { return };
        let cells = ticket.endpoint().shared.cells.worker(worker.index);
        cells.received_bytes.add(len as u64);
        if link.has_answered {
            return;
        }
        link.has_answered = true;
        let elapsed = now.saturating_sub(link.since);
        ticket.observe(Seen::Answered, Some(elapsed), now);
        ticket.judge(&self.upstream.shared, Seen::Answered, now);
        self.x.conclude(Seen::Answered, now);
        self.x.first_byte_at.get_or_insert(now);
        self.x.phase = Phase::Response;
        self.x.reason = None;
        self.tried.clear();
        self.has_answer = true;
    }

    /// Word has come that the endpoint cannot be reached: the network's (ICMP), in the place of an answer.
    pub(super) fn refused(&mut self, around: &Surroundings<'_>, errno: Errno) {
        let failure = match errno {
            Errno::CONNREFUSED => ConnectFailure::Refused,
            _ => ConnectFailure::Unreachable,
        };
        if let Some(link) = &mut self.link
            && link.has_answered
        {
            link.errors += 1;
            if link.errors < PATIENCE {
                if let Some(ticket) = &self.x.ticket {
                    ticket.judge(&self.upstream.shared, Seen::Failed, around.now);
                }
                return;
            }
            self.x.reason = Some(Reason::EndpointReset);
            self.fail(around, failure, Seen::Failed);
            self.x.conclude(Seen::Failed, around.now);
            return;
        }
        self.x.reason = Some(match failure {
            ConnectFailure::Refused => Reason::ConnectRefused,
            _ => Reason::Unreachable,
        });
        self.fail(around, failure, Seen::Unconnected);
        // Another one is asked next; what was sent to this one is lost.
        self.x.conclude(Seen::Unconnected, around.now);
    }

    /// What becomes of the flow at its end, but for the reason, which the caller knows.
    pub(super) fn end(mut self, around: &Surroundings<'_>, why: FlowEnd, reason: Option<Reason>) {
        let Surroundings { worker, now, .. } = *around;
        self.x.reason = reason.or(self.x.reason);
        let outcome = match self.x.reason {
            None => EndpointOutcome::Ok,
            Some(Reason::EndpointIdle) => EndpointOutcome::Timeout,
            Some(_) => EndpointOutcome::Cancelled,
        };
        self.x.count_outcome(worker, outcome);
        self.close(around);
        let is_ordinary = match why {
            FlowEnd::Responses | FlowEnd::Stopped => true,
            FlowEnd::ClientLimit | FlowEnd::Idle | FlowEnd::Limit => self.is_proven,
        };
        if is_ordinary {
            self.x.record(worker, now);
        } else {
            // Anybody can forge a datagram, and each is a flow: not all of them are lines.
            self.x.record_refusal(worker, now);
        }
    }

    /// Whether its client never had an answer.
    pub(super) fn is_unanswered(&self) -> bool {
        !self.has_answer
    }

    /// Leaves an endpoint that may not be used any more; a cheap look as long as nothing has changed.
    fn look(&mut self, around: &Surroundings<'_>) {
        if self.is_cut() {
            self.leave(around);
        }
        let looked = (around.version, self.upstream.shared.generation());
        if looked == self.looked {
            return;
        }
        let upstream = around.worker.renewed(&self.upstream);
        self.looked = (around.version, upstream.shared.generation());
        self.upstream = upstream;
        let stays = |ticket| self.upstream.keeps(ticket);
        if self.x.ticket.as_ref().is_some_and(stays) {
            return;
        }
        self.leave(around);
    }

    /// Whether its endpoint was removed and has had its time to drain, or was disconnected.
    pub(super) fn is_cut(&self) -> bool {
        let (Some(ticket), Some(link)) = (&self.x.ticket, &self.link) else {
            return false;
        };
        let endpoint = &ticket.endpoint().shared;
        endpoint.is_cut() || endpoint.epoch() != link.epoch
    }

    /// Leaves its endpoint, which has not failed: what its client sends next goes to another one.
    pub(super) fn leave(&mut self, around: &Surroundings<'_>) {
        self.x
            .count_outcome(around.worker, EndpointOutcome::Cancelled);
        self.close(around);
        self.x.let_go();
    }

    fn send(&self, socket: &OwnedFd, told: &Told<'_>) -> Result<(), Errno> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if self.upstream.shared.spec.send_proxy_protocol.is_none() {
            return send(socket, told.data, flags).map(|_| ());
        }
        let mut header = Vec::with_capacity(64);
        let addresses = Some(&told.addresses);
        write_v2(&mut header, Transport::Datagram, addresses, &told.tlvs);
        let parts = [IoSlice::new(&header), IoSlice::new(told.data)];
        let mut nothing = SendAncillaryBuffer::default();
        sendmsg(socket, &parts, &mut nothing, flags).map(|_| ())
    }

    /// The endpoint has failed the flow: it is left, and told of.
    fn fail(&mut self, around: &Surroundings<'_>, failure: ConnectFailure, seen: Seen) {
        let Surroundings { worker, now, .. } = *around;
        let cells = self.upstream.shared.cells.worker(worker.index);
        cells.connect_failures(failure).inc();
        let outcome = match seen {
            Seen::Failed => EndpointOutcome::Reset,
            Seen::Cancelled => EndpointOutcome::Cancelled,
            _ => EndpointOutcome::ConnectError,
        };
        self.x.count_outcome(worker, outcome);
        let since = self
            .link
            .as_ref()
            .map(|link| now.saturating_sub(link.since));
        if let Some(ticket) = &self.x.ticket {
            ticket.observe(seen, Some(since.unwrap_or(0)), now);
            ticket.judge(&self.upstream.shared, seen, now);
            if seen != Seen::Cancelled {
                self.tried.push(ticket.endpoint());
            }
            let name = &ticket.endpoint().shared.name;
            tracing::debug!(endpoint.addr = %name, ?failure, "endpoint of a flow failed");
        }
        self.close(around);
        self.x.let_go();
    }

    /// Closes the sockets to the endpoint.
    fn close(&mut self, around: &Surroundings<'_>) {
        self.moved = None;
        if self.link.take().is_some()
            && let Some(ticket) = &self.x.ticket
        {
            let cells = &ticket.endpoint().shared.cells;
            cells.worker(around.worker.index).connections.dec();
        }
    }
}

// === impl Allowance ===

impl Allowance {
    /// What it is after `len` bytes came from there: RFC 9000 section 8.2 allows three times as many.
    fn add(self, len: usize) -> Self {
        match self {
            Self::Bytes(left) => {
                Self::Bytes(left.saturating_add(len.saturating_mul(AMPLIFICATION)))
            }
            Self::All => Self::All,
        }
    }

    /// What is left of it after `len` bytes; `None` = it is less than those.
    fn take(self, len: usize) -> Option<Self> {
        match self {
            Self::Bytes(left) => left.checked_sub(len).map(Self::Bytes),
            Self::All => Some(Self::All),
        }
    }
}

// === impl Unopened ===

impl From<Unopened> for Reason {
    fn from(why: Unopened) -> Self {
        match why {
            Unopened::Local => Self::Unreachable,
            Unopened::Refused(reason) => reason,
        }
    }
}

/// Whether we lack something: says nothing of the endpoint. A connect of UDP takes a port of ours, and with none
/// left gives EAGAIN; there is one pool of them whatever the destination (`udp_lib_get_port` of Linux).
fn is_local(errno: Errno) -> bool {
    matches!(errno, Errno::AGAIN | Errno::ADDRINUSE) || upstream::is_local(&errno.into())
}

/// Waits for answers on a socket of the flow `id`.
fn watch(around: &Surroundings<'_>, socket: &OwnedFd, id: Id) -> Result<(), Errno> {
    let data = epoll::EventData::new_u64(id.to_bits());
    // By level: a flow with more than was read is told of again.
    epoll::add(around.epoll, socket, data, epoll::EventFlags::IN)
}

/// Why a datagram was not sent, if it is not the endpoint's doing.
fn unsent(errno: Errno) -> Option<DatagramDrop> {
    match errno {
        Errno::MSGSIZE => Some(DatagramDrop::TooLong),
        Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM => Some(DatagramDrop::SendBuffer),
        Errno::PERM | Errno::ACCESS => Some(DatagramDrop::Refused),
        _ => None,
    }
}

/// A socket that speaks with `addr` only: the kernel drops what others send, tells of ICMP errors, and
/// finds the route once.
fn socket_to(addr: &EndpointAddr) -> Result<OwnedFd, Errno> {
    let EndpointAddr::Ip(addr) = addr else {
        return Err(Errno::AFNOSUPPORT);
    };
    let family = match addr {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
    connect(&socket, addr)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::{Allowance, is_local};

    /// EAGAIN was taken for the endpoint's failure: a flood that had all ports ejected every endpoint.
    #[test]
    fn want_of_ports_and_descriptors_is_ours() {
        for errno in [
            Errno::AGAIN,
            Errno::ADDRINUSE,
            Errno::ADDRNOTAVAIL,
            Errno::MFILE,
        ] {
            assert!(is_local(errno), "{errno}");
        }
        for errno in [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::CONNREFUSED] {
            assert!(!is_local(errno), "{errno}");
        }
    }

    #[test]
    fn three_bytes_may_go_for_one_that_came() {
        let none = Allowance::Bytes(0);
        assert_eq!(none.take(1), None);
        let some = none.add(100);
        assert_eq!(some, Allowance::Bytes(300));
        assert_eq!(some.take(300), Some(none));
        assert_eq!(some.take(301), None);
        assert_eq!(
            some.take(200).map(|left| left.add(1)),
            Some(Allowance::Bytes(103))
        );
        assert_eq!(Allowance::All.take(usize::MAX), Some(Allowance::All));
    }
}
