//! A worker thread: its runtime, its accept loops, its housekeeping, its drain.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, spawn_local};

use crate::base::clock::{Nanos, nanos};
use crate::base::reactor::{Reactor, watch};
use crate::base::stream::Stream;
use crate::base::timer::TICK;
use crate::listener::{Acceptor, Handed, Spread, is_transient};
use crate::proxy::snapshot::ListenerPlan;
use crate::proxy::udp::{self, Assigned, Group, Stage};
use crate::proxy::{Conn, Phase, Worker, passes_on, serve, turn_away};
use crate::telemetry::access_log::WorkerLog;
use crate::telemetry::metrics::cell::PerWorker;
use crate::telemetry::metrics::cells::ListenerCells;

/// What the control plane tells a worker.
#[derive(Debug)]
pub enum Command {
    /// A listening socket belongs to another listener from now on.
    Assign {
        /// Which.
        socket: u64,
        /// The listener.
        slot: usize,
        /// Its connections, all workers together.
        connections: Arc<AtomicUsize>,
        /// Its tables of flows, all workers together.
        tables: Arc<AtomicUsize>,
    },
    /// These sockets go. What waits in their queues is still served.
    Close {
        /// Which.
        sockets: Vec<u64>,
        /// Listeners that go with them: their connections finish what is in flight.
        listeners: Vec<usize>,
        /// How long what is already on its way may still arrive.
        last_call: Duration,
        /// Dropped once this worker has closed them.
        done: Arc<()>,
    },
    /// What is left ends now.
    Cut,
    /// These sockets for datagrams were given up before, and what is left of their flows ends now.
    CutDatagrams {
        /// Which.
        sockets: Vec<u64>,
    },
    /// What is left of one listener ends now.
    CutListener {
        /// Which.
        slot: usize,
    },
    /// Accept nothing more, finish what is in flight, end.
    Drain {
        /// How long what is already on its way may still arrive.
        last_call: Duration,
        /// Who accepts from now on.
        heir: Heir,
    },
    /// Listen on this socket.
    Listen(Listening),
    /// Write the access log here from now on.
    Log {
        /// This worker's end of it; `None` = no access log.
        log: Option<WorkerLog>,
        /// Dropped once nothing of this worker goes to the old one any more.
        done: Arc<()>,
    },
    /// Wake every connection, to see what has changed.
    Wake,
}

/// Who accepts connections at the addresses of a process that drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heir {
    /// Nobody: they are refused, once those under way were served.
    Nobody,
    /// A successor that has the same sockets: what waits in their queues is its own.
    Successor,
}

/// One socket for one worker.
#[derive(Debug)]
pub struct Listening {
    /// Its number, the same on every worker.
    pub socket: u64,
    /// The listening socket.
    pub fd: OwnedFd,
    /// TCP, UDP or Unix.
    pub kind: SocketKind,
    /// Whether systemd has it as well, and the next start inherits it.
    pub is_kept: bool,
    /// The listener it belongs to.
    pub slot: usize,
    /// Connections of the listener, all workers together.
    pub connections: Arc<AtomicUsize>,
    /// Its tables of flows, all workers together.
    pub tables: Arc<AtomicUsize>,
    /// What sockets for datagrams have in common with those of other workers at the same address.
    pub group: Arc<Group>,
}

/// The kind of a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKind {
    /// TCP over IPv4 or IPv6.
    Tcp,
    /// Datagrams over IPv4 or IPv6.
    Udp,
    /// A Unix stream socket.
    Unix,
}

/// The parts of a worker that its tasks share.
struct Shared {
    worker: Rc<Worker>,
    spread: Spread,
    sockets: RefCell<Vec<Socket>>,
    /// Sockets for datagrams, those included that were given up and still have flows.
    datagrams: RefCell<Vec<(u64, Rc<Assigned>)>>,
    /// Told when the last connection ends, and when the last call does.
    idle: Notify,
}

/// A listening socket of this worker and its accept loop.
struct Socket {
    id: u64,
    is_kept: bool,
    listening: Rc<RefCell<Admitting>>,
    acceptor: Rc<Acceptor>,
    accepting: JoinHandle<()>,
}

/// What an accept loop knows of its listener.
#[derive(Clone)]
struct Admitting {
    slot: usize,
    open: Arc<AtomicUsize>,
}

/// Tasks between two looks at the sockets: tokio's default, stated because the cost of a request
/// depends on it (more tasks a look are fuller batches of events and staler readiness).
const EVENT_INTERVAL: u32 = 61;

/// How long flows may go on at an address that their listener gives up, if the listener does not say
/// (`grace`): as long as a flow may be quiet by default.
const ADDRESS_GRACE: Duration = Duration::from_secs(30);

/// Housekeeping that need not happen ten times a second.
const SWEEP_TICKS: u64 = 10;
const SHRINK_TICKS: u64 = 50;

/// Runs a worker until it has drained or was cut. `make` builds its state on this thread, because
/// the state stays here.
pub fn run(
    make: impl FnOnce() -> Worker,
    spread: Spread,
    handed: mpsc::Receiver<Handed>,
    commands: mpsc::Receiver<Command>,
) -> std::io::Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .event_interval(EVENT_INTERVAL)
        .build_local(LocalOptions::default())?;
    runtime.block_on(async move {
        let worker = Rc::new(make());
        let shared = Rc::new(Shared {
            worker: worker.clone(),
            spread,
            sockets: RefCell::default(),
            datagrams: RefCell::default(),
            idle: Notify::new(),
        });
        let tick = spawn_local(tick(worker.clone()));
        let reactor = match Reactor::start() {
            Ok((reactor, running)) => {
                let ringing = spawn_local(reactor.clone().ring());
                let _ = worker.reactor.set(reactor);
                Some([spawn_local(running), ringing])
            }
            Err(error) => {
                tracing::debug!(%error, "no reactor for connections that are passed on");
                None
            }
        };
        let gate = worker.gate.clone();
        let gate = spawn_local(async move { gate.keep().await });
        obey(&shared, commands, handed).await;
        tick.abort();
        gate.abort();
        for task in reactor.into_iter().flatten() {
            task.abort();
        }
        worker.clear();
        if let Some(log) = worker.log.borrow_mut().as_mut() {
            log.flush();
        }
    });
    Ok(())
}

/// Follows commands, and takes connections that other workers pass on, until the worker has nothing
/// left to do.
async fn obey(
    shared: &Rc<Shared>,
    mut commands: mpsc::Receiver<Command>,
    mut handed: mpsc::Receiver<Handed>,
) {
    let worker = &shared.worker;
    loop {
        if worker.phase.get() >= Phase::Draining && worker.connections.get() == 0 {
            // From here on other workers keep theirs; what was under way before is served.
            handed.close();
            match handed.try_recv() {
                Ok(connection) => take_over(shared, connection),
                Err(_) => return,
            }
        }
        let command = tokio::select! {
            command = commands.recv() => command,
            Some(connection) = handed.recv() => {
                take_over(shared, connection);
                continue;
            }
            () = shared.idle.notified() => continue,
        };
        match command {
            Some(Command::Listen(listening)) => listen(shared, listening),
            Some(Command::Drain { last_call, heir }) => drain(shared, last_call, heir),
            Some(Command::Assign {
                socket,
                slot,
                connections,
                tables,
            }) => {
                for known in &*shared.sockets.borrow() {
                    if known.id == socket {
                        known.listening.replace(Admitting {
                            slot,
                            open: connections.clone(),
                        });
                    }
                }
                for (id, assigned) in &*shared.datagrams.borrow() {
                    if *id == socket {
                        assigned.slot.set(slot);
                        assigned.open.replace(connections.clone());
                        assigned.tables.replace(tables.clone());
                    }
                }
                worker.timers.wake_all();
            }
            Some(Command::Close {
                sockets,
                listeners,
                last_call,
                done,
            }) => close(shared, &sockets, listeners, last_call, done),
            Some(Command::CutDatagrams { sockets }) => {
                let until = worker.clock.now();
                for (id, assigned) in &*shared.datagrams.borrow() {
                    if sockets.contains(id) {
                        assigned.stage.set(Stage::Closing { until });
                    }
                }
                worker.timers.wake_all();
            }
            Some(Command::CutListener { slot }) => worker.enter_listener(slot, Phase::Cutting),
            Some(Command::Log { log, done }) => {
                if let Some(mut old) = worker.log.replace(log) {
                    old.flush();
                }
                drop(done);
            }
            Some(Command::Wake) => worker.timers.wake_all(),
            // The control plane is gone: nobody could tell us to stop later.
            Some(Command::Cut) | None => {
                for socket in shared.sockets.take() {
                    socket.accepting.abort();
                }
                worker.enter(Phase::Cutting);
                cut(shared).await;
                return;
            }
        }
    }
}

/// Waits for the tasks that were told to end; each does so at its next poll.
async fn cut(shared: &Rc<Shared>) {
    // Every wait of a connection looks at the phase when it is woken, and all were woken.
    while shared.worker.connections.get() > 0 {
        shared.worker.timers.wake_all();
        tokio::select! {
            () = shared.idle.notified() => {}
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

/// Begins no new connection, takes what is on its way for the time of the last call, then drains.
fn drain(shared: &Rc<Shared>, last_call: Duration, heir: Heir) {
    if shared.worker.phase.get() != Phase::Running {
        return;
    }
    if heir == Heir::Successor {
        // Before the loops are woken. What they send still leaves by the same socket.
        for (_, assigned) in &*shared.datagrams.borrow() {
            // One that was given up before is nobody's but ours.
            if assigned.stage.get() == Stage::Open {
                assigned.stage.set(Stage::HandedOver);
            }
        }
    }
    shared.worker.enter(Phase::LastCall);
    let sockets = refuse(shared.sockets.take(), heir);
    let shared = shared.clone();
    spawn_local(async move {
        tokio::time::sleep(last_call).await;
        empty(&shared, sockets).await;
        if shared.worker.phase.get() == Phase::LastCall {
            shared.worker.enter(Phase::Draining);
            shared.idle.notify_one();
        }
    });
}

/// The same for some sockets, and for the connections of listeners that have none left.
fn close(
    shared: &Rc<Shared>,
    ids: &[u64],
    listeners: Vec<usize>,
    last_call: Duration,
    done: Arc<()>,
) {
    for slot in &listeners {
        shared.worker.enter_listener(*slot, Phase::LastCall);
    }
    close_datagrams(shared, ids, &listeners, &done);
    let (go, stay) = shared
        .sockets
        .take()
        .into_iter()
        .partition::<Vec<_>, _>(|socket| ids.contains(&socket.id));
    shared.sockets.replace(stay);
    let go = refuse(go, Heir::Nobody);
    let shared = shared.clone();
    spawn_local(async move {
        tokio::time::sleep(last_call).await;
        empty(&shared, go).await;
        drop(done);
        for slot in listeners {
            shared.worker.enter_listener(slot, Phase::Draining);
        }
    });
}

/// Begins no new flow on these sockets; each is closed when its flows have ended.
fn close_datagrams(shared: &Rc<Shared>, ids: &[u64], listeners: &[usize], done: &Arc<()>) {
    let worker = &shared.worker;
    let mut datagrams = shared.datagrams.borrow_mut();
    // Those whose loop has ended.
    datagrams.retain(|(_, assigned)| Rc::strong_count(assigned) > 1);
    for (id, assigned) in &*datagrams {
        if !ids.contains(id) {
            continue;
        }
        assigned.done.replace(Some(done.clone()));
        // The flows of a listener that goes are cut with it.
        let slot = assigned.slot.get();
        let until = if listeners.contains(&slot) {
            Nanos::MAX
        } else {
            let grace = worker
                .snapshot()
                .listener(slot)
                .and_then(|plan| plan.spec.grace);
            let grace = grace.unwrap_or(ADDRESS_GRACE);
            worker.clock.now().saturating_add(nanos(grace))
        };
        assigned.stage.set(Stage::Closing { until });
    }
    worker.timers.wake_all();
}

/// Closes the entrances of these sockets. Those that another process goes on with are left to it at
/// once, with all that waits in them and as they are: it has the same sockets, and what is set on
/// one of ours is set on its own. The others come back, to be emptied.
fn refuse(mut sockets: Vec<Socket>, heir: Heir) -> Vec<Socket> {
    sockets.retain(|socket| {
        let is_left = heir == Heir::Successor || socket.is_kept;
        if is_left {
            socket.accepting.abort();
        } else {
            socket.acceptor.refuse_new();
        }
        !is_left
    });
    sockets
}

/// Accepts what still waits, then closes the listening sockets.
async fn empty(shared: &Rc<Shared>, sockets: Vec<Socket>) {
    for socket in sockets {
        // The loop holds the acceptor too: it must be gone when the queue is emptied.
        socket.accepting.abort();
        let _ = socket.accepting.await;
        let listening = socket.listening.borrow().clone();
        while let Some((stream, peer)) = socket.acceptor.accept_waiting() {
            shared.spread.add(shared.worker.index);
            count_accept(shared, listening.slot);
            admit(shared, &listening, stream, peer);
        }
    }
}

fn listen(shared: &Rc<Shared>, listening: Listening) {
    let acceptor = match listening.kind {
        SocketKind::Udp => return listen_for_datagrams(shared, listening),
        SocketKind::Tcp => match own_reactor(&shared.worker, listening.slot) {
            Some(reactor) => watch(listening.fd).map(|listener| Acceptor::Bytes(listener, reactor)),
            None => TcpListener::from_std(listening.fd.into()).map(Acceptor::Tcp),
        },
        SocketKind::Unix => {
            UnixListener::from_std(std::os::unix::net::UnixListener::from(listening.fd))
                .map(Acceptor::Unix)
        }
    };
    let acceptor = match acceptor {
        Ok(acceptor) => Rc::new(acceptor),
        Err(error) => {
            tracing::error!(%error, "a bound socket could not be registered; it accepts nothing");
            return;
        }
    };
    let known = Rc::new(RefCell::new(Admitting {
        slot: listening.slot,
        open: listening.connections,
    }));
    let task = spawn_local(accept(shared.clone(), acceptor.clone(), known.clone()));
    shared.sockets.borrow_mut().push(Socket {
        id: listening.socket,
        is_kept: listening.is_kept,
        listening: known,
        acceptor,
        accepting: task,
    });
}

/// The reactor for the connections of the listener in `slot`, if they are passed on as they are. (Should a reload
/// make something else of it they may stay there.)
fn own_reactor(worker: &Worker, slot: usize) -> Option<Reactor> {
    let plan = worker.listener_for(slot)?;
    passes_on(&plan).then(|| worker.reactor.get().cloned())?
}

fn listen_for_datagrams(shared: &Rc<Shared>, listening: Listening) {
    let (slot, open, tables) = (listening.slot, listening.connections, listening.tables);
    let assigned = Rc::new(Assigned::new(slot, open, tables));
    let idle = {
        let shared = shared.clone();
        move || shared.idle.notify_one()
    };
    let worker = shared.worker.clone();
    let (fd, group) = (listening.fd, listening.group);
    match udp::serve(fd, group, worker, assigned.clone(), idle) {
        Ok(serving) => {
            spawn_local(serving);
            let mut datagrams = shared.datagrams.borrow_mut();
            datagrams.push((listening.socket, assigned));
        }
        Err(error) => {
            tracing::error!(%error, "a bound socket could not be registered; it receives nothing");
        }
    }
}

/// One accept loop.
async fn accept(shared: Rc<Shared>, acceptor: Rc<Acceptor>, known: Rc<RefCell<Admitting>>) {
    let me = shared.worker.index;
    loop {
        let accepted = acceptor.accept().await;
        let listening = known.borrow().clone();
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                let snapshot = shared.worker.snapshot();
                if let Some(plan) = snapshot.listener(listening.slot) {
                    plan.cells.worker(me).accept_errors.inc();
                }
                if is_transient(&error) {
                    continue;
                }
                tracing::warn!(%error, "accept failed; trying again shortly");
                tokio::time::sleep(crate::listener::ACCEPT_PAUSE).await;
                continue;
            }
        };
        shared.spread.add(me);
        count_accept(&shared, listening.slot);
        match shared.spread.better(me) {
            Some(to) => pass_on(&shared, &listening, to, stream, peer),
            None => admit(&shared, &listening, stream, peer),
        }
    }
}

/// Passes a connection that is counted for this worker on to worker `to`, or keeps it.
fn pass_on(
    shared: &Rc<Shared>,
    listening: &Admitting,
    to: usize,
    stream: Stream,
    peer: Option<SocketAddr>,
) {
    let me = shared.worker.index;
    let handed = match Handed::new(stream, peer, listening.slot, listening.open.clone()) {
        Ok(handed) => handed,
        Err(error) => {
            shared.spread.sub(me);
            return tracing::warn!(%error, "a connection was lost on its way to another worker");
        }
    };
    match shared.spread.hand_over(me, to, handed) {
        Ok(()) => {
            if let Some(plan) = shared.worker.snapshot().listener(listening.slot) {
                plan.cells.worker(me).handoffs.inc();
            }
        }
        Err(kept) => take_over(shared, kept),
    }
}

fn count_accept(shared: &Shared, slot: usize) {
    if let Some(plan) = shared.worker.snapshot().listener(slot) {
        plan.cells.worker(shared.worker.index).accepts.inc();
    }
}

/// Admits a connection that is off any reactor and counted for this worker.
fn take_over(shared: &Rc<Shared>, handed: Handed) {
    let peer = handed.peer;
    let listening = Admitting {
        slot: handed.slot,
        open: handed.open.clone(),
    };
    let reactor = own_reactor(&shared.worker, handed.slot);
    match handed.into_stream(reactor.as_ref()) {
        Ok(stream) => admit(shared, &listening, stream, peer),
        Err(error) => {
            shared.spread.sub(shared.worker.index);
            tracing::warn!(%error, "a connection from another worker could not be registered");
        }
    }
}

/// Starts serving a connection that is counted for this worker, or refuses it.
fn admit(shared: &Rc<Shared>, listening: &Admitting, stream: Stream, peer: Option<SocketAddr>) {
    let worker = &shared.worker;
    let snapshot = worker.snapshot_for(listening.slot);
    let Some((held, plan)) = snapshot
        .as_ref()
        .and_then(|held| Some((held, held.kept_listener(listening.slot)?)))
    else {
        shared.spread.sub(worker.index);
        return;
    };
    let timer = worker.timers.timer();
    let conn = Conn {
        stream,
        timer,
        peer,
        life: worker.life(listening.slot),
        ended: false,
        expires: expiry(&plan, worker),
        identity: None,
        proxied: None,
    };
    // Relaxed: a count; one connection too many for an instant is no harm.
    let open = listening.open.fetch_add(1, Ordering::Relaxed);
    if open >= plan.spec.max_connections as usize {
        listening.open.fetch_sub(1, Ordering::Relaxed);
        shared.spread.sub(worker.index);
        if let Some(lingering) = turn_away(conn, worker, held.clone()) {
            spawn_local(lingering);
        }
        return;
    }
    plan.cells.worker(worker.index).connections.inc();
    worker.cells().connections.inc();
    worker.connections.set(worker.connections.get() + 1);
    conn.timer.arm(worker.clock.now() + plan.header_timeout);
    let guard = Open {
        shared: shared.clone(),
        of_listener: listening.open.clone(),
        cells: plan.cells.clone(),
    };
    spawn_local(serve(conn, plan, worker.clone(), guard));
}

/// When a connection that begins now has been open for long enough: up to a tenth sooner or later than
/// `max_connection_age`, so that those opened together do not end together.
fn expiry(plan: &ListenerPlan, worker: &Worker) -> Nanos {
    let Some(age) = plan.spec.max_connection_age.map(nanos) else {
        return Nanos::MAX;
    };
    let spread = worker.rng.borrow_mut().below(200) as u64;
    worker
        .clock
        .now()
        .saturating_add(age / 1000 * (900 + spread))
}

/// Counts a connection for as long as it is open.
struct Open {
    shared: Rc<Shared>,
    of_listener: Arc<AtomicUsize>,
    cells: Arc<PerWorker<ListenerCells>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        let worker = &self.shared.worker;
        self.of_listener.fetch_sub(1, Ordering::Relaxed);
        self.shared.spread.sub(worker.index);
        self.cells.worker(worker.index).connections.dec();
        worker.cells().connections.dec();
        let left = worker.connections.get() - 1;
        worker.connections.set(left);
        if left == 0 {
            self.shared.idle.notify_one();
        }
    }
}

/// The worker's clock: deadlines every tick, log lines at most a tick old, housekeeping.
async fn tick(worker: Rc<Worker>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let runtime = tokio::runtime::Handle::current().metrics();
    let mut ticks = 0u64;
    loop {
        interval.tick().await;
        ticks += 1;
        let now = worker.clock.now();
        worker.timers.advance(now);
        worker.unix_offset.set(worker.clock.unix_offset());
        // A current-thread runtime has one worker, number 0.
        let busy = runtime.worker_total_busy_duration(0);
        worker.report(nanos(busy), runtime.worker_park_count(0));
        if let Some(log) = worker.log.borrow_mut().as_mut()
            && !log.is_empty()
        {
            log.flush();
        }
        if ticks.is_multiple_of(SWEEP_TICKS) {
            worker.sweep(now);
        }
        if ticks.is_multiple_of(SHRINK_TICKS) {
            worker.shrink();
        }
    }
}
