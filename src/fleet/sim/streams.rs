//! Streams between machines: what is sent arrives whole, once and in order, or the stream breaks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::event::{Arrival, Event};
use super::net::{GIVE_UP, Net};
use super::{Heard, Link, Machine};
use crate::base::clock::{Nanos, nanos};

/// All streams that somebody still hears of.
#[derive(Debug, Default)]
pub(super) struct Streams {
    wires: BTreeMap<Link, Wire>,
    next: u64,
}

#[derive(Debug)]
struct Wire {
    /// Who dialled, then who was dialled.
    ends: [End; 2],
    /// What the dialler calls it until it is open.
    token: u64,
    /// Nothing that is under way or sent from now on arrives.
    is_broken: bool,
}

#[derive(Debug)]
struct End {
    host: usize,
    life: u64,
    /// When the last thing that was sent to it arrives: nothing overtakes.
    last: Nanos,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has not heard of the stream yet.
    Coming,
    Open,
    /// It has closed it, or heard that it is closed.
    Done,
}

impl<M: Machine> Net<M> {
    pub(super) fn dial(&mut self, from: usize, addr: SocketAddr, token: u64) {
        self.hosts[from].traffic.dials += 1;
        let to = self.by_addr.get(&addr).copied();
        let to = to.filter(|&to| !self.is_cut(from, to));
        let there = to.filter(|&to| self.hosts[to].machine.is_some());
        let Some(there) = there else {
            // A machine without a listener says so at once; a cable that is cut says nothing.
            let after = match to {
                Some(_) => 2 * self.latency(),
                None => nanos(GIVE_UP),
            };
            let life = self.hosts[from].life;
            let what = Arrival::Failed { token, life };
            let event = Event::Stream { to: from, what };
            self.events.add(self.now + after, event);
            return;
        };
        self.streams.next += 1;
        let link = Link(self.streams.next);
        let accepted = self.now + self.latency();
        let opened = accepted + self.latency();
        let end = |host: usize, last: Nanos| End {
            host,
            life: self.hosts[host].life,
            last,
            stage: Stage::Coming,
        };
        let wire = Wire {
            ends: [end(from, opened), end(there, accepted)],
            token,
            is_broken: false,
        };
        self.streams.wires.insert(link, wire);
        let what = Arrival::Accepted { link };
        self.events.add(accepted, Event::Stream { to: there, what });
        let what = Arrival::Opened { link };
        self.events.add(opened, Event::Stream { to: from, what });
    }

    /// Sends a message, or that there is none to come any more.
    pub(super) fn send_on(&mut self, from: usize, link: Link, what: Arrival) {
        let latency = self.latency();
        let Some(wire) = self.streams.wires.get_mut(&link) else {
            return;
        };
        let mine = wire.ends.iter().position(|end| end.host == from);
        let mine = mine.expect("invariant: a machine names streams of its own");
        if matches!(what, Arrival::Closed { .. }) {
            wire.ends[mine].stage = Stage::Done;
        }
        if wire.is_broken {
            return;
        }
        let other = &mut wire.ends[1 - mine];
        other.last = other.last.max(self.now + latency);
        let to = other.host;
        self.events.add(other.last, Event::Stream { to, what });
    }

    /// Something of a stream has come to a machine.
    pub(super) fn hear(&mut self, to: usize, what: Arrival) {
        let life = self.hosts[to].life;
        let link = match what {
            Arrival::Failed { token, life: whose } => {
                if whose == life {
                    self.tell(to, Heard::Failed { token });
                }
                return;
            }
            Arrival::Opened { link }
            | Arrival::Accepted { link }
            | Arrival::Message { link, .. }
            | Arrival::Closed { link } => link,
        };
        let Some(wire) = self.streams.wires.get_mut(&link) else {
            return;
        };
        let (token, dialler) = (wire.token, wire.ends[0].host);
        let is_broken = wire.is_broken;
        let mut ends = wire.ends.iter_mut();
        let Some(end) = ends.find(|end| end.host == to && end.life == life) else {
            return;
        };
        let stage = end.stage;
        match what {
            Arrival::Closed { .. } => end.stage = Stage::Done,
            Arrival::Opened { .. } | Arrival::Accepted { .. }
                if stage == Stage::Coming && !is_broken =>
            {
                end.stage = Stage::Open;
            }
            _ => {}
        }
        if wire.ends.iter().all(|end| end.stage == Stage::Done) {
            self.streams.wires.remove(&link);
        }
        let from = self.hosts[dialler].addr;
        match (what, stage) {
            (Arrival::Closed { .. }, Stage::Open) => self.tell(to, Heard::Closed { link }),
            (Arrival::Closed { .. }, Stage::Coming) if to == dialler => {
                self.tell(to, Heard::Failed { token });
            }
            (Arrival::Opened { .. }, Stage::Coming) if !is_broken => {
                self.tell(to, Heard::Opened { link, token });
            }
            (Arrival::Accepted { .. }, Stage::Coming) if !is_broken => {
                self.tell(to, Heard::Accepted { link, from });
            }
            (Arrival::Message { bytes, .. }, Stage::Open) if !is_broken => {
                let bytes = &bytes;
                self.tell(to, Heard::Message { link, bytes });
            }
            _ => {}
        }
    }

    /// Breaks the streams between machines for which `is_cut` says so; both ends hear of it after a while.
    pub(super) fn cut(&mut self, is_cut: impl Fn(usize, usize) -> bool, after: Duration) {
        let at = self.now + nanos(after);
        for (&link, wire) in &mut self.streams.wires {
            let [a, b] = [wire.ends[0].host, wire.ends[1].host];
            if wire.is_broken || !is_cut(a, b) {
                continue;
            }
            wire.is_broken = true;
            for to in [a, b] {
                let what = Arrival::Closed { link };
                self.events.add(at, Event::Stream { to, what });
            }
        }
    }

    fn tell(&mut self, to: usize, heard: Heard<'_>) {
        if self.hosts[to].machine.is_some() {
            self.with(to, |machine, clock| machine.stream(heard, clock));
        }
    }
}
