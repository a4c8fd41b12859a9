//! What one worker owns: everything here is used by one thread only.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::base::buffer::{Buffer, BufferPool};
use crate::base::clock::{Clock, Nanos};
use crate::base::reactor::Reactor;
use crate::base::rng::Rng;
use crate::base::timer::Timers;
use crate::base::tls::{Gate, RecordBuffers};
use crate::http2::Landing;
use crate::telemetry::access_log::WorkerLog;
use crate::telemetry::metrics::cell::PerWorker;
use crate::telemetry::metrics::cells::WorkerCells;
use crate::upstream::{LocalUpstream, Means, Upstream};

use super::h1::Exchanger;
use super::snapshot::{Held, ListenerPlan, Published};
use super::splice::Pipes;
use super::turn_away::TurnedAway;
use super::udp::Slots;

/// The state of one worker.
#[derive(Debug)]
pub struct Worker {
    /// Its number: index of its cells.
    pub index: usize,
    /// The clock of the server.
    pub clock: Clock,
    /// Deadlines of its connections.
    pub timers: Timers,
    /// Its source of chance.
    pub rng: RefCell<Rng>,
    /// Pipes for splicing.
    pub pipes: Pipes,
    /// Buffers that responses are read into.
    pub buffers: BufferPool,
    /// Larger ones for large bodies.
    pub bulk: BufferPool,
    /// Bulk buffers that may still be lent: beyond, bodies go through the small ones.
    pub bulk_left: Cell<usize>,
    /// Running, draining or cutting.
    pub phase: Cell<Phase>,
    /// Its buffer of access-log lines; `None` = no access log.
    pub log: RefCell<Option<WorkerLog>>,
    /// Its metrics.
    pub cells: Arc<PerWorker<WorkerCells>>,
    /// From the monotonic to the wall clock; read anew every tick, so that a log line costs no
    /// second clock.
    pub unix_offset: Cell<u64>,
    /// Client connections it serves.
    pub connections: Cell<usize>,
    /// Room for datagrams, lent to one turn of a loop; `None` until the first.
    pub datagrams: RefCell<Option<Slots>>,
    /// The reactor of connections that are passed on as they are; without one they are in the runtime's, as all
    /// others.
    pub reactor: OnceCell<Reactor>,
    /// Buffers for what is encrypted.
    pub records: Rc<RecordBuffers>,
    /// Where connections of HTTP/2 read.
    pub landing: Rc<Landing>,
    /// What handshakes pass.
    pub gate: Rc<Gate>,
    /// The second of the last line about a client that failed, and how many there were in it.
    logged: Cell<(u64, u32)>,
    pub(super) turned_away: TurnedAway,
    published: Arc<Published>,
    /// By slot of the listener: what its connections on this worker do.
    lives: RefCell<Vec<Rc<Life>>>,
    current: RefCell<Rc<Held>>,
    upstreams: RefCell<Vec<Option<Rc<LocalUpstream>>>>,
    /// The version of the snapshot that the last sweep looked at.
    swept: Cell<u64>,
    exchangers: RefCell<Vec<Exchanger>>,
    /// Exchangers at work.
    exchanging: Cell<usize>,
}

/// What the connections of one listener do on one worker. A listener that a reload removes goes
/// through the phases by itself; the worker's own phase takes all of them along.
#[derive(Debug)]
pub struct Life {
    /// The listener.
    pub slot: usize,
    phase: Cell<Phase>,
}

/// What the process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running,
    /// Draining, while what is already on its way still arrives: handshakes that had begun are
    /// accepted, idle connections may still speak. Every answer says that it is the last.
    LastCall,
    /// Finishing what is in flight; an idle connection is closed.
    Draining,
    /// Out of patience: what is left ends now.
    Cutting,
}

/// A response of a few kilobytes fits with its head; an origin's single write of 16 KiB too.
const BUFFER: usize = 16 * 1024 + 512;

/// Bulk bodies: fewer system calls per byte up to here, past it the copy leaves the L2 cache
/// (bench/README.md, "buffers").
const BULK_BUFFER: usize = 128 * 1024;

/// 64 x 128 KiB = 8 MiB a worker, whatever the number of slow readers.
const BULK_MAX: usize = 64;

/// Lines a second about clients that failed.
const LOGGED_MAX: u32 = 10;

/// Idle buffers and exchangers kept: enough for the concurrency of one worker's bursts.
const KEEP: usize = 256;

// === impl Life ===

impl Life {
    /// What the connections do.
    #[inline]
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Moves on to `phase`, never back.
    fn enter(&self, phase: Phase) {
        self.phase.set(self.phase.get().max(phase));
    }
}

// === impl Worker ===

impl Worker {
    /// A worker that serves `published`.
    pub fn new(
        index: usize,
        clock: Clock,
        published: Arc<Published>,
        cells: Arc<PerWorker<WorkerCells>>,
        log: Option<WorkerLog>,
        seed: u64,
    ) -> Self {
        let snapshot = published.snapshot.load_full();
        Self {
            index,
            clock,
            timers: Timers::new(clock.now()),
            rng: RefCell::new(Rng::new(seed)),
            pipes: Pipes::default(),
            buffers: BufferPool::new(BUFFER, KEEP),
            bulk: BufferPool::new(BULK_BUFFER, BULK_MAX),
            bulk_left: Cell::new(BULK_MAX),
            phase: Cell::new(Phase::Running),
            log: RefCell::new(log),
            cells,
            connections: Cell::new(0),
            datagrams: RefCell::new(None),
            reactor: OnceCell::new(),
            records: Rc::default(),
            landing: Rc::default(),
            gate: Rc::new(Gate::new(clock)),
            logged: Cell::default(),
            turned_away: TurnedAway::default(),
            unix_offset: Cell::new(clock.unix_offset()),
            current: RefCell::new(Rc::new(Held(snapshot))),
            published,
            lives: RefCell::new(Vec::new()),
            swept: Cell::new(0),
            upstreams: RefCell::new(Vec::new()),
            exchangers: RefCell::new(Vec::new()),
            exchanging: Cell::new(0),
        }
    }

    /// This worker's cells.
    #[inline]
    pub fn cells(&self) -> &WorkerCells {
        self.cells.worker(self.index)
    }

    /// The configuration of now; the guard of the swap dies in this function.
    #[inline]
    pub fn snapshot(&self) -> Rc<Held> {
        let current = self.current.borrow().clone();
        let published = self.published.snapshot.load();
        if Arc::ptr_eq(&published, &current.0) {
            return current;
        }
        let next = Rc::new(Held(arc_swap::Guard::into_inner(published)));
        *self.current.borrow_mut() = next.clone();
        next
    }

    /// This worker's view of `upstream`.
    #[inline]
    pub fn upstream(&self, upstream: &Arc<Upstream>) -> Rc<LocalUpstream> {
        if let Some(Some(local)) = self.upstreams.borrow().get(upstream.slot) {
            // A request that began before a reload asks for the upstream as it was: the slot is
            // that of its name, and what the name means now is served.
            if local.shared.version >= upstream.version {
                return local.clone();
            }
        }
        self.renew_upstream(upstream)
    }

    /// This worker's view of what the name of `upstream` means now: for who has waited.
    pub(super) fn renewed(&self, upstream: &Rc<LocalUpstream>) -> Rc<LocalUpstream> {
        let snapshot = self.snapshot();
        let slot = upstream.shared.slot;
        let now = snapshot.upstreams.iter().find(|u| u.slot == slot);
        // Removed: it is served as it was.
        now.map_or_else(|| upstream.clone(), |now| self.upstream(now))
    }

    /// Takes over an upstream that is new, or that a reload changed: endpoints that stay keep
    /// their pools.
    #[cold]
    fn renew_upstream(&self, upstream: &Arc<Upstream>) -> Rc<LocalUpstream> {
        let mut upstreams = self.upstreams.borrow_mut();
        if upstreams.len() <= upstream.slot {
            upstreams.resize(upstream.slot + 1, None);
        }
        let before = upstreams[upstream.slot].take();
        let local = Rc::new(LocalUpstream::new(upstream.clone(), before.as_deref()));
        upstreams[upstream.slot] = Some(local.clone());
        local
    }

    /// The configuration for a connection of the listener in `slot`: that of now, or the last one
    /// that had the listener while its connections drain; `None` = they have had their time.
    #[inline]
    pub fn snapshot_for(&self, slot: usize) -> Option<Rc<Held>> {
        let current = self.snapshot();
        if current.listener(slot).is_some() {
            return Some(current);
        }
        let leaving = self.published.leaving.load();
        let (_, last) = leaving.iter().find(|(leaving, _)| *leaving == slot)?;
        Some(Rc::new(Held(last.clone())))
    }

    /// The plan of the listener in `slot`, as [`Worker::snapshot_for`] has it.
    pub fn listener_for(&self, slot: usize) -> Option<Arc<ListenerPlan>> {
        self.snapshot_for(slot)?.kept_listener(slot)
    }

    /// What the connections of the listener in `slot` do.
    pub fn life(&self, slot: usize) -> Rc<Life> {
        let mut lives = self.lives.borrow_mut();
        for slot in lives.len()..=slot {
            lives.push(Rc::new(Life {
                slot,
                phase: Cell::new(self.phase.get()),
            }));
        }
        lives[slot].clone()
    }

    /// What is lent to connections to endpoints.
    pub(super) fn means(&self) -> Means {
        Means {
            worker: self.index,
            clock: self.clock,
            records: self.records.clone(),
            landing: self.landing.clone(),
            gate: self.gate.clone(),
        }
    }

    /// An exchanger: an idle one, or what `make` makes.
    pub(super) fn take_exchanger(self: &Rc<Self>, make: impl FnOnce() -> Exchanger) -> Exchanger {
        self.exchanging.set(self.exchanging.get() + 1);
        self.exchangers.borrow_mut().pop().unwrap_or_else(make)
    }

    /// Takes an exchanger back whose job has ended.
    pub(super) fn put_exchanger(&self, exchanger: Exchanger) {
        self.exchanging.set(self.exchanging.get() - 1);
        let mut exchangers = self.exchangers.borrow_mut();
        if exchangers.len() < KEEP {
            exchangers.push(exchanger);
        }
    }

    /// A larger buffer for a large body, while there are any to lend.
    pub fn take_bulk(&self) -> Option<Buffer> {
        let left = self.bulk_left.get().checked_sub(1)?;
        self.bulk_left.set(left);
        Some(self.bulk.take())
    }

    /// Takes back what [`Worker::take_bulk`] or the small pool lent.
    pub fn give_back(&self, buffer: Buffer) {
        if buffer.capacity() == self.bulk.size() {
            self.bulk_left.set((self.bulk_left.get() + 1).min(BULK_MAX));
            self.bulk.put(buffer);
        } else {
            self.buffers.put(buffer);
        }
    }

    /// Tells the metrics what is not counted as it happens: how many buffers there are, those of
    /// exchangers included, and what the runtime has counted itself.
    pub fn report(&self, busy: Nanos, parks: u64) {
        let cells = self.cells();
        cells.busy.store(busy);
        cells.parks.store(parks);
        let in_use =
            self.buffers.lent() + self.bulk.lent() + self.records.lent() + self.exchanging.get();
        cells.buffers_in_use.set(in_use as u64);
        let kept = self.buffers.spare() + self.bulk.spare() + self.records.spare();
        let spare = kept + self.exchangers.borrow().len();
        cells.buffers_spare.set(spare as u64);
    }

    /// Whether one more line about a client that failed may go to the log: ten a second, so that nobody
    /// fills a disk from outside. All are counted.
    pub fn may_log(&self, now: Nanos) -> bool {
        let second = now / 1_000_000_000;
        let (of, count) = self.logged.get();
        let count = if of == second { count + 1 } else { 1 };
        self.logged.set((second, count));
        count <= LOGGED_MAX
    }

    /// Housekeeping, once a second: dead and old idle connections go, spare memory shrinks.
    pub fn sweep(&self, now: Nanos) {
        let snapshot = self.snapshot();
        let mut upstreams = self.upstreams.borrow_mut();
        if self.swept.replace(snapshot.version) != snapshot.version {
            // Views of upstreams that a reload removed: their idle connections close here.
            let mut stays = vec![false; upstreams.len()];
            for upstream in &snapshot.upstreams {
                if let Some(stays) = stays.get_mut(upstream.slot) {
                    *stays = true;
                }
            }
            for (local, stays) in upstreams.iter_mut().zip(stays) {
                if !stays {
                    *local = None;
                }
            }
        }
        for local in upstreams.iter().flatten() {
            local.sweep(now, self.index);
        }
    }

    /// Gives half of the spare memory back: after a burst it is all gone within a minute.
    pub fn shrink(&self) {
        self.buffers.shrink();
        self.bulk.shrink();
        self.records.shrink();
        let mut exchangers = self.exchangers.borrow_mut();
        let keep = exchangers.len() / 2;
        exchangers.truncate(keep);
    }

    /// Closes every idle connection to endpoints, and drops the exchangers (they hold this worker).
    pub fn clear(&self) {
        for local in self.upstreams.borrow().iter().flatten() {
            local.clear();
        }
        self.exchangers.borrow_mut().clear();
    }

    /// Changes the phase and wakes every connection to notice.
    pub fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        for life in &*self.lives.borrow() {
            life.enter(phase);
        }
        self.timers.wake_all();
    }

    /// Moves the connections of the listener in `slot` on to `phase` and wakes them to notice.
    pub fn enter_listener(&self, slot: usize, phase: Phase) {
        self.life(slot).enter(phase);
        self.timers.wake_all();
    }
}
