//! One flow: its client, its endpoint, and the connected socket between us and that one.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};

use crate::base::clock::{Nanos, nanos};
use crate::base::proxy_protocol::{Addresses, Tlvs, Transport, write_v2};
use crate::config::Serves;
use crate::proxy::flow::{self, FlowExchange, KEPT};
use crate::proxy::worker::Worker;
use crate::telemetry::access_log::Phase;
use crate::telemetry::metrics::cells::{
    ConnectFailure, DatagramDrop, EndpointOutcome, FlowEnd, PoolOutcome,
};
use crate::telemetry::reason::Reason;
use crate::upstream::{LocalUpstream, Picked, Seen, Tried};

use super::allowance::Allowance;
use super::flows::Id;
use super::socket::{is_local, socket_to, unsent};

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

/// Endpoints that one datagram is sent to, each of which may refuse what was sent there before; and endpoints that are
/// picked for one of these, should no way lead there.
const ATTEMPTS: u32 = 3;

/// An endpoint that has answered and then refuses this many datagrams in a row is left: one that starts
/// again takes them back before.
const PATIENCE: u32 = 3;

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
            match self.send(around, &link.socket, told) {
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
        let sent = self.send(around, &moved.socket, told);
        let sent = sent.map_err(unsent);
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
        self.note_silence(around.now);
        self.x.reason = None;
        self.x.bytes_in += len as u64;
        if let Some(ticket) = &self.x.ticket {
            let cells = &ticket.endpoint().shared.cells;
            let cells = cells.worker(around.worker.index);
            cells.sent_bytes.add(len as u64);
        }
    }

    /// Tells the breaker of an endpoint that says nothing, as it need not (a sink of logs), and has not refused what
    /// it was sent either: word of that comes within a round trip.
    fn note_silence(&mut self, now: Nanos) {
        let is_kept = |link: &Link| now.saturating_sub(link.since) >= nanos(KEPT);
        if self.x.is_watched()
            && let Serves::Udp(spec) = &self.x.listener.spec.serves
            && spec.responses.is_none()
            && self.link.as_ref().is_some_and(is_kept)
        {
            self.x.conclude(Seen::Answered, now);
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
        self.note_silence(now);
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

    fn send(
        &self,
        around: &Surroundings<'_>,
        socket: &OwnedFd,
        told: &Told<'_>,
    ) -> Result<(), Errno> {
        match self.try_send(socket, told) {
            // A router's word on a datagram before, perhaps, and this one was not sent. One that is itself too long
            // is refused again.
            Err(Errno::MSGSIZE) => {
                self.try_send(socket, told)?;
                let cells = self.x.listener.cells.worker(around.worker.index);
                cells.dropped_datagrams(DatagramDrop::TooLong).inc();
                Ok(())
            }
            sent => sent,
        }
    }

    fn try_send(&self, socket: &OwnedFd, told: &Told<'_>) -> Result<(), Errno> {
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

// === impl Unopened ===

impl From<Unopened> for Reason {
    fn from(why: Unopened) -> Self {
        match why {
            Unopened::Local => Self::Unreachable,
            Unopened::Refused(reason) => reason,
        }
    }
}

/// Waits for answers on a socket of the flow `id`.
fn watch(around: &Surroundings<'_>, socket: &OwnedFd, id: Id) -> Result<(), Errno> {
    let data = epoll::EventData::new_u64(id.to_bits());
    // By level: a flow with more than was read is told of again.
    epoll::add(around.epoll, socket, data, epoll::EventFlags::IN)
}
