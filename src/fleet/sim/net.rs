//! The network: who is where, what is under way, what goes wrong.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::event::{Arrival, Event, Events};
use super::streams::Streams;
use super::{Machine, Now, Sent};
use crate::base::clock::{Nanos, nanos};
use crate::base::rng::Rng;

/// Machines and what is between them. A machine is named by the number that [`Net::add`] gave it.
pub(crate) struct Net<M> {
    pub(crate) weather: Weather,
    /// Who stood still looks at its timers before it reads what waits; a shell does not, but may be too slow.
    pub(crate) timers_first: bool,
    pub(super) now: Nanos,
    pub(super) events: Events,
    pub(super) hosts: Vec<Host<M>>,
    pub(super) by_addr: BTreeMap<SocketAddr, usize>,
    pub(super) streams: Streams,
    rng: Rng,
    /// Bytes around each datagram.
    overhead: u64,
}

/// What happens to a datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Each way, evenly between the two.
    pub(crate) latency: (Duration, Duration),
    /// Shares of all datagrams that get lost, come twice, or come later by up to `late_by`.
    pub(crate) loss: f64,
    pub(crate) twice: f64,
    pub(crate) late: f64,
    pub(crate) late_by: Duration,
}

/// What one machine sent and got since the counters were last cleared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) datagrams: u64,
    /// With what is around each datagram.
    pub(crate) bytes: u64,
    /// The largest datagram, without what is around it.
    pub(crate) largest: usize,
    /// Datagrams that came to it while it stood still and its socket was full.
    pub(crate) overflowed: u64,
    pub(crate) messages: u64,
    pub(crate) message_bytes: u64,
    pub(crate) dials: u64,
}

pub(super) struct Host<M> {
    pub(super) addr: SocketAddr,
    pub(super) machine: Option<M>,
    /// Which of its lives this is.
    pub(super) life: u64,
    /// Its monotonic clock is ahead of the network's by this.
    epoch: Nanos,
    /// Its wall clock is ahead of the true one by this.
    skew_ms: i64,
    group: usize,
    is_frozen: bool,
    /// What came while it stood still.
    socket: VecDeque<(SocketAddr, Vec<u8>)>,
    waiting: VecDeque<Arrival>,
    /// The earliest wake that is among the events.
    wakes_at: Option<Nanos>,
    pub(super) traffic: Traffic,
}

/// What Linux gives a UDP socket by default holds some 256 small datagrams.
const SOCKET: usize = 256;

/// The true time of the network's zero: some day of 2026.
const UNIX_MS: u64 = 1_790_000_000_000;

/// How long it takes until a stream that cannot go on is given up.
pub(super) const GIVE_UP: Duration = Duration::from_secs(3);

// === impl Weather ===

impl Weather {
    /// A network of one room.
    pub(crate) const FAIR: Self = Self {
        latency: (Duration::from_micros(200), Duration::from_millis(1)),
        loss: 0.0,
        twice: 0.0,
        late: 0.0,
        late_by: Duration::ZERO,
    };

    /// A share each is lost, comes twice, or up to 50 ms late and so after others.
    pub(crate) const fn foul(share: f64) -> Self {
        Self {
            loss: share,
            twice: share,
            late: share,
            late_by: Duration::from_millis(50),
            ..Self::FAIR
        }
    }
}

// === impl Net ===

impl<M: Machine> Net<M> {
    /// An empty network. `overhead` is what is around each datagram: 28 bytes of IPv4 and UDP, and the seal if
    /// the machines do not seal.
    pub(crate) fn new(seed: u64, overhead: u64) -> Self {
        Self {
            weather: Weather::FAIR,
            timers_first: false,
            now: 0,
            events: Events::default(),
            hosts: Vec::new(),
            by_addr: BTreeMap::new(),
            streams: Streams::default(),
            rng: Rng::new(seed),
            overhead,
        }
    }

    // --- machines

    /// Puts a machine at an address.
    pub(crate) fn add(&mut self, addr: SocketAddr, make: impl FnOnce(Now) -> M) -> usize {
        let index = self.hosts.len();
        self.hosts.push(Host {
            addr,
            machine: None,
            life: 0,
            epoch: self.rng.next_u64() >> 22,
            skew_ms: 0,
            group: 0,
            is_frozen: false,
            socket: VecDeque::new(),
            waiting: VecDeque::new(),
            wakes_at: None,
            traffic: Traffic::default(),
        });
        assert!(
            self.by_addr.insert(addr, index).is_none(),
            "{addr} is taken"
        );
        self.start(index, make);
        index
    }

    /// A second address that leads to a machine.
    pub(crate) fn alias(&mut self, addr: SocketAddr, index: usize) {
        self.by_addr.insert(addr, index);
    }

    /// Starts a machine where one has crashed.
    pub(crate) fn start(&mut self, index: usize, make: impl FnOnce(Now) -> M) {
        let clock = self.clock(index);
        let host = &mut self.hosts[index];
        assert!(host.machine.is_none(), "machine {index} runs");
        host.machine = Some(make(clock));
        self.flush(index);
    }

    /// Stops a machine without a word; gives what is left of it. Streams to it break.
    pub(crate) fn crash(&mut self, index: usize) -> Option<M> {
        let host = &mut self.hosts[index];
        host.life += 1;
        host.is_frozen = false;
        host.socket.clear();
        host.waiting.clear();
        let machine = host.machine.take();
        self.cut(|a, b| a == index || b == index, Duration::ZERO);
        machine
    }

    /// A machine stands still for a while: what comes waits, and its timers do.
    pub(crate) fn freeze(&mut self, index: usize, during: Duration) {
        self.hosts[index].is_frozen = true;
        let at = self.now + nanos(during);
        self.events.add(at, Event::Thaw(index));
    }

    /// Sets a machine's wall clock ahead of the true one.
    pub(crate) fn skew(&mut self, index: usize, by_ms: i64) {
        self.hosts[index].skew_ms = by_ms;
    }

    /// A machine that runs.
    pub(crate) fn get(&self, index: usize) -> Option<&M> {
        self.hosts[index].machine.as_ref()
    }

    /// All machines that run.
    pub(crate) fn running(&self) -> impl Iterator<Item = (usize, &M)> {
        let hosts = self.hosts.iter().enumerate();
        hosts.filter_map(|(index, host)| Some((index, host.machine.as_ref()?)))
    }

    /// Does something with a machine that runs, and sends what it sends then.
    pub(crate) fn with<T>(&mut self, index: usize, act: impl FnOnce(&mut M, Now) -> T) -> T {
        let clock = self.clock(index);
        let machine = self.hosts[index].machine.as_mut();
        let result = act(
            machine.expect("invariant: the test says that it runs"),
            clock,
        );
        self.flush(index);
        result
    }

    /// Where a machine is.
    pub(crate) fn addr(&self, index: usize) -> SocketAddr {
        self.hosts[index].addr
    }

    /// What its clocks show.
    pub(crate) fn clock(&self, index: usize) -> Now {
        let host = &self.hosts[index];
        let unix_ms = UNIX_MS + self.now / 1_000_000;
        Now {
            now: self.now + host.epoch,
            unix_ms: unix_ms.saturating_add_signed(host.skew_ms),
        }
    }

    // --- between them

    /// Machines reach each other only if `group` is the same for both. Streams between groups break in a while.
    pub(crate) fn split(&mut self, group: impl Fn(usize) -> usize) {
        for (index, host) in self.hosts.iter_mut().enumerate() {
            host.group = group(index);
        }
        let groups: Vec<usize> = self.hosts.iter().map(|host| host.group).collect();
        self.cut(|a, b| groups[a] != groups[b], GIVE_UP);
    }

    /// All reach all again.
    pub(crate) fn heal(&mut self) {
        self.split(|_| 0);
    }

    /// What a machine sent and got.
    pub(crate) fn traffic(&self, index: usize) -> Traffic {
        self.hosts[index].traffic
    }

    /// Counts from here on.
    pub(crate) fn clear_traffic(&mut self) {
        for host in &mut self.hosts {
            host.traffic = Traffic::default();
        }
    }

    // --- time

    /// Since the network began.
    pub(crate) fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.now)
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, during: Duration) {
        let until = self.now + nanos(during);
        while let Some((at, event)) = self.events.pop(until) {
            self.now = at;
            self.handle(event);
        }
        self.now = until;
    }

    /// Lets time pass until something is so, which is looked at every 50 ms; gives how long it took, or `None`
    /// if it is not so within `limit`.
    pub(crate) fn run_until(
        &mut self,
        limit: Duration,
        is_so: impl Fn(&Self) -> bool,
    ) -> Option<Duration> {
        let began = self.now;
        loop {
            let took = Duration::from_nanos(self.now - began);
            if is_so(self) {
                return Some(took);
            }
            if took >= limit {
                return None;
            }
            self.run(Duration::from_millis(50));
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Datagram { from, to, bytes } => self.datagram(from, to, bytes),
            Event::Stream { to, what } if self.hosts[to].is_frozen => {
                self.hosts[to].waiting.push_back(what);
            }
            Event::Stream { to, what } => self.hear(to, what),
            Event::Wake(index) => {
                let host = &mut self.hosts[index];
                if host.wakes_at == Some(self.now) {
                    host.wakes_at = None;
                }
                self.wake(index);
            }
            Event::Thaw(index) => self.thaw(index),
        }
    }

    fn datagram(&mut self, from: SocketAddr, to: usize, bytes: Vec<u8>) {
        let host = &mut self.hosts[to];
        if host.machine.is_none() {
            return;
        }
        if !host.is_frozen {
            self.with(to, |machine, clock| machine.datagram(from, &bytes, clock));
        } else if host.socket.len() < SOCKET {
            host.socket.push_back((from, bytes));
        } else {
            host.traffic.overflowed += 1;
        }
    }

    fn wake(&mut self, index: usize) {
        let host = &self.hosts[index];
        let (false, Some(machine)) = (host.is_frozen, &host.machine) else {
            return;
        };
        if machine
            .wake_at()
            .is_some_and(|at| at <= self.now + host.epoch)
        {
            self.with(index, M::wake);
        } else {
            self.schedule(index);
        }
    }

    fn thaw(&mut self, index: usize) {
        self.hosts[index].is_frozen = false;
        if self.timers_first {
            self.wake(index);
        }
        let host = &mut self.hosts[index];
        for (from, bytes) in std::mem::take(&mut host.socket) {
            self.datagram(from, index, bytes);
        }
        for what in std::mem::take(&mut self.hosts[index].waiting) {
            self.hear(index, what);
        }
        self.wake(index);
    }

    /// Takes from a machine what it sends, and when it wants to be woken.
    fn flush(&mut self, index: usize) {
        while let Some(sent) = self.hosts[index].machine.as_mut().and_then(M::poll) {
            match sent {
                Sent::Datagram { to, bytes } => self.send(index, to, &bytes),
                Sent::Dial { to, token } => self.dial(index, to, token),
                Sent::Message { link, bytes } => {
                    let traffic = &mut self.hosts[index].traffic;
                    traffic.messages += 1;
                    traffic.message_bytes += bytes.len() as u64;
                    self.send_on(index, link, Arrival::Message { link, bytes });
                }
                Sent::Close { link } => self.send_on(index, link, Arrival::Closed { link }),
            }
        }
        self.schedule(index);
    }

    fn schedule(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        let Some(at) = host.machine.as_ref().and_then(M::wake_at) else {
            return;
        };
        // A moment later at the earliest, so that a machine that is never content does not stop the clock.
        let at = at.saturating_sub(host.epoch).max(self.now + 1000);
        if host.wakes_at.is_none_or(|earlier| at < earlier) {
            host.wakes_at = Some(at);
            self.events.add(at, Event::Wake(index));
        }
    }

    fn send(&mut self, from: usize, to: SocketAddr, bytes: &[u8]) {
        let traffic = &mut self.hosts[from].traffic;
        traffic.datagrams += 1;
        traffic.bytes += bytes.len() as u64 + self.overhead;
        traffic.largest = traffic.largest.max(bytes.len());
        let Some(&to) = self.by_addr.get(&to) else {
            return;
        };
        let times = 1 + usize::from(self.happens(self.weather.twice));
        for _ in 0..times {
            if self.is_cut(from, to) || self.happens(self.weather.loss) {
                continue;
            }
            let mut at = self.now + self.latency();
            if self.happens(self.weather.late) {
                at += self.rng.below(nanos(self.weather.late_by) as usize) as Nanos;
            }
            let from = self.hosts[from].addr;
            let bytes = bytes.to_vec();
            self.events.add(at, Event::Datagram { from, to, bytes });
        }
    }

    fn happens(&mut self, share: f64) -> bool {
        share > 0.0 && self.rng.unit() < share
    }

    pub(super) fn latency(&mut self) -> Nanos {
        let (least, most) = self.weather.latency;
        let spread = nanos(most.saturating_sub(least)) as usize;
        nanos(least) + self.rng.below(spread) as Nanos
    }

    pub(super) fn is_cut(&self, a: usize, b: usize) -> bool {
        self.hosts[a].group != self.hosts[b].group
    }
}
