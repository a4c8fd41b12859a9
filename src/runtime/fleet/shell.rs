//! The sockets of a peer, and what goes between them and it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::base::addr::canonical;
use crate::fleet::peer::{Out, StreamId};
use crate::fleet::seal::Greeting;
use crate::runtime::secret_file::random;

use super::Fleet;
use super::stream::{self, Event, Link, OUTBOX};

/// What is read before the clock is looked at: a burst of a thousand facts from three peers.
const READS: usize = 512;

/// The sockets of a peer, and the tasks of its streams.
pub(super) struct Shell {
    pub(super) fleet: Fleet,
    pub(super) udp: UdpSocket,
    pub(super) tasks: JoinSet<()>,
    links: HashMap<StreamId, mpsc::Sender<Vec<u8>>>,
    events: mpsc::Sender<Event>,
    buffer: Vec<u8>,
}

// === impl Shell ===

impl Shell {
    pub(super) fn new(fleet: Fleet, udp: UdpSocket, events: mpsc::Sender<Event>) -> Self {
        Self {
            fleet,
            udp,
            tasks: JoinSet::new(),
            links: HashMap::new(),
            events,
            buffer: vec![0; 2048],
        }
    }

    /// Takes the datagrams that wait; whether there may be more.
    pub(super) fn read(&mut self) -> bool {
        let now = self.fleet.now();
        let (udp, buffer) = (&self.udp, &mut self.buffer);
        let read = self.fleet.with(|state| {
            for _ in 0..READS {
                match udp.try_recv_from(buffer) {
                    Ok((length, _from)) => state.peer.datagram(&buffer[..length], now),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                    // What ICMP says of a datagram that was sent: membership finds out.
                    Err(_) => {}
                }
            }
            true
        });
        read.unwrap_or(false)
    }

    /// Does what the peer wants done.
    pub(super) fn act(&mut self) {
        while let Some(Some(out)) = self.fleet.with(|state| state.peer.poll()) {
            match out {
                Out::Datagram { to, bytes } => {
                    // Lost on this machine or on its way is the same: it is said again, or compared.
                    let _ = self.udp.try_send_to(&bytes, to);
                }
                Out::Dial { stream, to, .. } => self.dial(stream, to),
                Out::Message { stream, bytes } => {
                    let sent = self.links.get(&stream).map(|link| link.try_send(bytes));
                    if !matches!(sent, Some(Ok(()))) {
                        self.closed(stream);
                    }
                }
                Out::Close { stream } => {
                    self.links.remove(&stream);
                }
            }
        }
    }

    fn closed(&mut self, stream: StreamId) {
        self.links.remove(&stream);
        self.fleet.with(|state| state.peer.closed(stream));
    }

    fn dial(&mut self, stream: StreamId, to: SocketAddr) {
        let Ok(random) = random() else {
            return self.closed(stream);
        };
        let (keyring, me) = {
            let state = self.fleet.state();
            (state.keyring.clone(), state.peer.id())
        };
        let greeting = Greeting::first(&keyring, me, random);
        let (outbox, waiting) = mpsc::channel(OUTBOX);
        self.links.insert(stream, outbox);
        let events = self.events.clone();
        self.tasks
            .spawn(stream::dial(stream, to, keyring, greeting, waiting, events));
    }

    pub(super) fn accept(&mut self, tcp: TcpStream, from: SocketAddr) {
        /// Tasks at once: those of this peer's own streams, those it serves, and as many that prove nothing.
        const MAX_TASKS: usize = 64;
        /// Of them for who comes from where no member is: connections of strangers keep no member out.
        const MAX_STRANGERS: usize = 32;
        let (keyring, me, is_members) = {
            let state = self.fleet.state();
            let mut live = state.peer.live().values();
            let is_members = live.any(|(member, _)| member.addr.ip() == canonical(from).ip());
            (state.keyring.clone(), state.peer.id(), is_members)
        };
        let places = if is_members { MAX_TASKS } else { MAX_STRANGERS };
        if self.tasks.len() >= places {
            return;
        }
        let Ok(random) = random() else {
            return;
        };
        let events = self.events.clone();
        self.tasks
            .spawn(stream::answer(tcp, from, keyring, me, random, events));
    }

    /// Takes what a stream has brought.
    pub(super) fn heed(&mut self, event: Event) {
        let now = self.fleet.now();
        match event {
            Event::Accepted { peer, link } => {
                let accepted = self.fleet.with(|state| state.peer.accepted(peer, now));
                if let Some(stream) = accepted.flatten() {
                    let Link { outbox, name } = link;
                    self.links.insert(stream, outbox);
                    // Who has gone since says nothing more.
                    let _ = name.send(stream);
                }
            }
            Event::Opened { stream, peer } => {
                self.fleet
                    .with(|state| state.peer.opened(stream, peer, now));
            }
            Event::Message { stream, bytes } => {
                self.fleet
                    .with(|state| state.peer.message(stream, &bytes, now));
            }
            Event::Closed { stream } => self.closed(stream),
        }
    }
}
