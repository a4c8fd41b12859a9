//! What clients send, on to the endpoints of their flows.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::base::proxy_protocol::{self, Addresses, Parsed, Tlvs, Transport};
use crate::config::FlowKey;
use crate::proxy::flow::{FlowExchange, Transport as Carrier};
use crate::proxy::snapshot::ListenerPlan;
use crate::telemetry::metrics::cells::{DatagramDrop, FlowEnd};
use crate::telemetry::reason::Reason;

use super::batch::{Received, Slots};
use super::flow::{Flow, Place, Told, Unopened};
use super::flows::{Evicted, Id};
use super::key::{Key, Source};
use super::quic::{self, Header};
use super::serve::{State, Turn};

/// Which flow a datagram belongs to.
enum Found {
    /// This one.
    Known(Id),
    /// One that begins with it, and is found by the first key, and by the second if there is one.
    New(Key, Option<Key>),
}

// === impl State ===

impl State {
    /// Passes on what clients have sent, one batch of it. Whether that was all.
    pub(super) fn take_datagrams(
        &mut self,
        turn: &Turn<'_>,
        socket: &OwnedFd,
        slots: &mut Slots,
    ) -> bool {
        let is_all = match self.batch.receive(socket, slots) {
            Ok(is_all) => is_all,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return false,
            Err(error) => {
                if error.kind() != std::io::ErrorKind::WouldBlock {
                    tracing::debug!(%error, "nothing could be received");
                }
                return true;
            }
        };
        let received = std::mem::take(&mut self.batch.received);
        let cells = turn.listener.cells.worker(self.worker.index);
        cells.received_datagrams.add(received.len() as u64);
        for got in &received {
            let data = slots.get(got.slot, got.len);
            if let Err(why) = self.take_datagram(turn, got, data) {
                cells.dropped_datagrams(why).inc();
            }
        }
        self.batch.received = received;
        is_all
    }

    fn take_datagram(
        &mut self,
        turn: &Turn<'_>,
        got: &Received,
        data: &[u8],
    ) -> Result<(), DatagramDrop> {
        let mut own = self.bound;
        if let Some(local) = got.local {
            own.set_ip(local);
        }
        let told = told(turn.listener, got, own, data)?;
        let id = match self.find(turn.spec.flow, got, told.data) {
            Found::Known(id) => {
                self.hear(turn, id, got, told.addresses.source);
                self.flows.ask(id, turn.around.now);
                id
            }
            Found::New(..) if !turn.is_open => return Err(DatagramDrop::Draining),
            Found::New(key, more) => self.begin(turn, got, told.addresses.source, (key, more))?,
        };
        let Some(flow) = self.flows.get(id) else {
            return Err(DatagramDrop::Endpoint);
        };
        flow.forward(&turn.around, id, got.place(), &told)
    }

    /// The flow of a datagram; see [`quic`] for the rule of connection ids.
    fn find(&mut self, rule: FlowKey, got: &Received, data: &[u8]) -> Found {
        let address = Key::of_address(got.peer, got.local);
        let header = match rule {
            FlowKey::Client => None,
            FlowKey::Quic { length } => quic::header(data, usize::from(length)),
        };
        let (id, is_long) = match header {
            None => (None, false),
            Some(Header::Long {
                destination: [], ..
            }) => (None, false),
            Some(Header::Long { destination, .. }) => (Some(Key::of_id(destination)), true),
            Some(Header::Short { destination }) => (Some(Key::of_id(destination)), false),
        };
        let Some(id) = id else {
            let known = self.flows.find(&address);
            return known.map_or(Found::New(address, None), Found::Known);
        };
        if let Some(known) = self.flows.find(&id) {
            return Found::Known(known);
        }
        match self.flows.find(&address).filter(|_| !is_long) {
            Some(known) => {
                // However many ids its client takes, by its address it is found.
                self.flows.add_key(known, address);
                self.flows.add_key(known, id);
                Found::Known(known)
            }
            None => Found::New(id, Some(address)),
        }
    }

    /// A client that has moved, and was seen to be where it is now, is found there from then on.
    fn hear(&mut self, turn: &Turn<'_>, id: Id, got: &Received, client: SocketAddr) {
        let Some(flow) = self.flows.get(id) else {
            return;
        };
        if flow.hear(&turn.around, got.place()) {
            self.flows.set_source(id, Source::of(client.ip()));
            let address = Key::of_address(got.peer, got.local);
            self.flows.add_key(id, address);
        }
    }

    /// Begins a flow, if it may.
    fn begin(
        &mut self,
        turn: &Turn<'_>,
        got: &Received,
        client: SocketAddr,
        (key, more): (Key, Option<Key>),
    ) -> Result<Id, DatagramDrop> {
        let around = &turn.around;
        let listener = turn.listener.clone();
        let mut x = FlowExchange::begin(listener, Carrier::Udp, Some(client), around.now);
        let Some(upstream) = &turn.listener.layer4.upstream else {
            return Err(DatagramDrop::Refusal);
        };
        let upstream = match x.admit(&self.worker, upstream, around.now) {
            Ok(upstream) => upstream,
            Err(reason) => return Err(self.refuse(turn, x, reason)),
        };
        let source = Source::of(client.ip());
        let bounds = self.bounds(turn.spec);
        // First: those that go leave their descriptors and ports.
        while let Some((why, evicted)) = self.flows.make_room(source, bounds) {
            let why = match why {
                Evicted::Full => FlowEnd::Limit,
                Evicted::Source => FlowEnd::ClientLimit,
            };
            self.end(around, evicted, why, Some(Reason::FlowsLimit));
        }
        let mut flow = Flow::new(x, upstream, got.place());
        let mut opened = flow.open(around);
        if opened == Err(Unopened::Local)
            && let Some(evicted) = self.flows.shed()
        {
            self.end(around, evicted, FlowEnd::Limit, Some(Reason::FlowsLimit));
            opened = flow.open(around);
        }
        if let Err(why) = opened {
            return Err(self.refuse(turn, flow.x, why.into()));
        }
        self.count_begin(turn.listener);
        let id = self.flows.insert(key, source, around.now, flow);
        if let Some(more) = more {
            self.flows.add_key(id, more);
        }
        if let Some(flow) = self.flows.get(id)
            && let Err(reason) = flow.register(around, id)
        {
            if let Some(flow) = self.flows.remove(id) {
                // Nobody can be waited for: a limit of the system's, and no line for each of a flood.
                self.end(around, flow, FlowEnd::Limit, Some(reason));
            }
            return Err(DatagramDrop::Refusal);
        }
        Ok(id)
    }

    fn refuse(&self, turn: &Turn<'_>, mut x: FlowExchange, reason: Reason) -> DatagramDrop {
        x.reason = Some(reason);
        x.record_refusal(&self.worker, turn.around.now);
        DatagramDrop::Refusal
    }
}

// === impl Received ===

impl Received {
    /// Where its sender is.
    fn place(&self) -> Place {
        Place {
            peer: self.peer,
            local: self.local,
        }
    }
}

/// Takes the header of the PROXY protocol off, where one is spoken, and its word for whose the datagram is.
/// Every datagram has one: what a client sends is behind it, whatever it looks like.
fn told<'a>(
    listener: &ListenerPlan,
    got: &Received,
    own: SocketAddr,
    data: &'a [u8],
) -> Result<Told<'a>, DatagramDrop> {
    let mut told = Told {
        addresses: Addresses {
            source: got.peer,
            destination: own,
        },
        tlvs: Tlvs::default(),
        data,
    };
    let Some(spoken) = &listener.spec.proxy_protocol else {
        return Ok(told);
    };
    let ip = got.peer.ip();
    if !spoken.from.iter().any(|net| net.contains(&ip)) {
        return Err(DatagramDrop::ProxyProtocol);
    }
    let Ok(Parsed::Header(header)) = proxy_protocol::parse(data, Transport::Datagram) else {
        return Err(DatagramDrop::ProxyProtocol);
    };
    told.addresses = header.addresses.unwrap_or(told.addresses);
    told.data = data.get(header.len..).unwrap_or_default();
    told.tlvs = header.tlvs;
    Ok(told)
}
