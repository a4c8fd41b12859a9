//! One flow: its client, its endpoint, and the connected socket between us and that one.

use std::io::{self, IoSlice};
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
    ConnectFailure, DatagramDrop, EndpointOutcome, PoolOutcome,
};
use crate::telemetry::reason::Reason;
use crate::upstream::{self, LocalUpstream, Picked, Seen, Tried};

use super::flows::Id;

/// One flow. While it is idle it holds no buffer.
#[derive(Debug)]
pub(super) struct Flow {
    /// What will be told of it.
    pub x: FlowExchange,
    /// Where answers go: where its client was last heard of.
    pub peer: SocketAddr,
    /// Our address that its client sends to, where the socket has more than one.
    pub local: Option<IpAddr>,
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
}

/// The socket to an endpoint.
#[derive(Debug)]
struct Link {
    socket: OwnedFd,
    /// When the first datagram was sent to it.
    since: Nanos,
    /// It has answered.
    has_answered: bool,
    /// Errors since its last answer.
    errors: u32,
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

/// Endpoints of one datagram: the one that it has, and two in its place.
const ATTEMPTS: u32 = 3;

/// An endpoint that has answered and then refuses this many datagrams in a row is left: one that starts
/// again takes them back before.
const PATIENCE: u32 = 3;

/// "no room just now" and "never": not the endpoint's doing.
const LOCAL: [Errno; 5] = [
    Errno::AGAIN,
    Errno::NOBUFS,
    Errno::NOMEM,
    Errno::PERM,
    Errno::ACCESS,
];

// === impl Flow ===

impl Flow {
    /// A flow of `peer` to `upstream`, without an endpoint so far.
    pub(super) fn new(
        x: FlowExchange,
        upstream: Rc<LocalUpstream>,
        peer: SocketAddr,
        local: Option<IpAddr>,
    ) -> Self {
        Self {
            x,
            peer,
            local,
            round: 0,
            upstream,
            link: None,
            tried: Tried::default(),
            looked: (0, 0),
            has_answer: false,
        }
    }

    /// The socket to its endpoint, while it has one.
    pub(super) fn socket(&self) -> Option<&OwnedFd> {
        self.link.as_ref().map(|link| &link.socket)
    }

    /// Picks an endpoint and makes a socket to it.
    pub(super) fn open(&mut self, around: &Surroundings<'_>) -> Result<(), Reason> {
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
            Picked::Full => return Err(Reason::EndpointsLimit),
            Picked::Nobody => {
                cells.no_endpoint.inc();
                return Err(Reason::NoEndpoint);
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
                    since: now,
                    has_answered: false,
                    errors: 0,
                });
                Ok(())
            }
            Err(error) => {
                let error = io::Error::from(error);
                let is_local = upstream::is_local(&error);
                let failure = if is_local {
                    ConnectFailure::Local
                } else {
                    ConnectFailure::Unreachable
                };
                tracing::debug!(endpoint.addr = %endpoint.shared.name, %error, "no socket to it");
                let seen = if is_local {
                    Seen::Cancelled
                } else {
                    Seen::Unconnected
                };
                self.fail(around, failure, seen);
                Err(Reason::Unreachable)
            }
        }
    }

    /// Waits for answers on its socket, as the flow `id`.
    pub(super) fn register(&self, around: &Surroundings<'_>, id: Id) -> Result<(), Reason> {
        let Some(link) = &self.link else {
            return Ok(());
        };
        let data = epoll::EventData::new_u64(id.to_bits());
        // By level: a flow with more than was read is told of again.
        epoll::add(around.epoll, &link.socket, data, epoll::EventFlags::IN)
            .map_err(|_| Reason::Unreachable)
    }

    /// Sends a datagram of its client to its endpoint, or to another one that takes it. `own` is our
    /// address for the header of the PROXY protocol.
    pub(super) fn forward(
        &mut self,
        around: &Surroundings<'_>,
        id: Id,
        data: &[u8],
        own: SocketAddr,
    ) -> Result<(), DatagramDrop> {
        self.look(around);
        for _ in 0..ATTEMPTS {
            if self.link.is_none() {
                let opened = self.open(around).and_then(|()| self.register(around, id));
                if let Err(reason) = opened {
                    self.x.reason = Some(reason);
                    return Err(DatagramDrop::Endpoint);
                }
            }
            let Some(link) = &self.link else { continue };
            match self.send(&link.socket, data, own) {
                Ok(()) => {
                    self.x.reason = None;
                    self.x.bytes_in += data.len() as u64;
                    if let Some(ticket) = &self.x.ticket {
                        let cells = &ticket.endpoint().shared.cells;
                        let cells = cells.worker(around.worker.index);
                        cells.sent_bytes.add(data.len() as u64);
                    }
                    return Ok(());
                }
                Err(Errno::MSGSIZE) => return Err(DatagramDrop::TooLong),
                Err(errno) if LOCAL.contains(&errno) => {
                    let is_full = matches!(errno, Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM);
                    return Err(if is_full {
                        DatagramDrop::SendBuffer
                    } else {
                        DatagramDrop::Refused
                    });
                }
                // What is told here came back for a datagram before; this one has not been sent.
                Err(errno) => self.refused(around, errno),
            }
        }
        Err(DatagramDrop::Endpoint)
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
            return;
        }
        self.x.reason = Some(match failure {
            ConnectFailure::Refused => Reason::ConnectRefused,
            _ => Reason::Unreachable,
        });
        self.fail(around, failure, Seen::Unconnected);
    }

    /// What becomes of the flow at its end, but for the reason, which the caller knows.
    pub(super) fn end(mut self, around: &Surroundings<'_>, reason: Option<Reason>) {
        let Surroundings { worker, now, .. } = *around;
        self.x.reason = reason.or(self.x.reason);
        let outcome = match self.x.reason {
            None => EndpointOutcome::Ok,
            Some(Reason::EndpointIdle) => EndpointOutcome::Timeout,
            Some(_) => EndpointOutcome::Cancelled,
        };
        self.x.count_outcome(worker, outcome);
        self.close(around);
        self.x.record(worker, now);
    }

    /// Whether its client never had an answer.
    pub(super) fn is_unanswered(&self) -> bool {
        !self.has_answer
    }

    /// Leaves an endpoint that may not be used any more; a cheap look as long as nothing has changed.
    fn look(&mut self, around: &Surroundings<'_>) {
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
        self.x
            .count_outcome(around.worker, EndpointOutcome::Cancelled);
        self.close(around);
        self.x.let_go();
    }

    fn send(&self, socket: &OwnedFd, data: &[u8], own: SocketAddr) -> Result<(), Errno> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if self.upstream.shared.spec.send_proxy_protocol.is_none() || self.has_answer {
            return send(socket, data, flags).map(|_| ());
        }
        // Any datagram may be the first to arrive, so each tells, until an answer shows that one has.
        let mut header = Vec::with_capacity(64);
        let addresses = self.x.client.map(|source| Addresses {
            source,
            destination: own,
        });
        let tlvs = Tlvs::default();
        write_v2(&mut header, Transport::Datagram, addresses.as_ref(), &tlvs);
        let parts = [IoSlice::new(&header), IoSlice::new(data)];
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
            self.tried.push(ticket.endpoint());
            let name = &ticket.endpoint().shared.name;
            tracing::debug!(endpoint.addr = %name, ?failure, "endpoint of a flow failed");
        }
        if seen != Seen::Cancelled {
            self.x.conclude(seen, now);
        }
        self.close(around);
        self.x.let_go();
    }

    /// Closes the socket to the endpoint.
    fn close(&mut self, around: &Surroundings<'_>) {
        if self.link.take().is_some()
            && let Some(ticket) = &self.x.ticket
        {
            let cells = &ticket.endpoint().shared.cells;
            cells.worker(around.worker.index).connections.dec();
        }
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
