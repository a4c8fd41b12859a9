//! The loop of one listening socket: datagrams of clients to endpoints, their answers back.
//!
//! # What it costs
//! One turn takes what has come: one recvmmsg for up to 32 datagrams of clients, a `send` for each on the
//! socket of its flow; one look at the flows that have answers (an epoll of our own, itself waited for by
//! the runtime, so that a flow has neither a task nor a waker), a `recv` for each, and one sendmmsg for
//! all of them. So an answered datagram costs `1/batch + 1 + 1 + 1/batch` calls, and its part of the
//! waits.
//!
//! A datagram that cannot be passed on at once is dropped and counted; nothing is ever queued here.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use rustix::event::epoll;
use tokio::io::Ready;
use tokio::io::unix::AsyncFd;

use crate::base::clock::{Nanos, nanos};
use crate::base::reactor::{poll_again, watch};
use crate::base::timer::Timer;
use crate::config::{Serves, UdpSpec};
use crate::proxy::snapshot::ListenerPlan;
use crate::proxy::worker::{Phase, Worker};
use crate::telemetry::metrics::cells::FlowEnd;
use crate::telemetry::reason::Reason;

use super::answers::Answers;
use super::batch::Batch;
use super::flow::{Flow, Surroundings};
use super::flows::{Bounds, Flows};
use super::group::Group;

/// What the runtime says of a listening socket, and may change while it is served.
#[derive(Debug)]
pub struct Assigned {
    /// The listener it belongs to.
    pub slot: Cell<usize>,
    /// Flows and connections of the listener, all workers together.
    pub open: RefCell<Arc<AtomicUsize>>,
    /// Tables of flows of the listener, all workers together: one for each of its sockets.
    pub tables: RefCell<Arc<AtomicUsize>>,
    /// What is done with it.
    pub stage: Cell<Stage>,
    /// Dropped once the socket is closed.
    pub done: RefCell<Option<Arc<()>>>,
}

/// What is done with a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is served.
    Open,
    /// Its address was given up: no new flow begins, those of before end by themselves, or when their
    /// time is over.
    Closing {
        /// When that is.
        until: Nanos,
    },
    /// A successor reads from it; the answers for the flows of before still go out by it.
    HandedOver,
}

/// One listening socket of one worker.
struct Serving {
    socket: Listening,
    epoll: AsyncFd<OwnedFd>,
    state: State,
    group: Arc<Group>,
}

/// The listening socket.
enum Listening {
    /// Its datagrams are ours.
    Read(AsyncFd<OwnedFd>),
    /// A successor reads them, and we are not to be woken by each; answers leave by it. `None` = it was taken.
    Written(Option<OwnedFd>),
}

/// All but the two descriptors that are waited for.
pub(super) struct State {
    pub(super) worker: Rc<Worker>,
    pub(super) flows: Flows<Flow>,
    pub(super) batch: Batch,
    pub(super) answers: Answers,
    /// Where the socket is bound.
    pub(super) bound: SocketAddr,
    assigned: Rc<Assigned>,
    timer: Timer,
    /// The last one of its listener that speaks UDP: a reload may have the same name speak TCP, and the
    /// flows of before end by what they began with.
    plan: Option<Arc<ListenerPlan>>,
    /// The listener whose count the flows are in, and that count.
    slot: usize,
    open: Arc<AtomicUsize>,
    /// Among how many `max_flows` is shared.
    tables: Sharing,
    idle: Box<dyn Fn()>,
}

/// One of those that share something, counted for as long as it lasts.
struct Sharing(Arc<AtomicUsize>);

/// What one turn sees.
pub(super) struct Turn<'a> {
    pub(super) around: Surroundings<'a>,
    pub(super) listener: &'a Arc<ListenerPlan>,
    pub(super) spec: &'a UdpSpec,
    /// Flows may begin.
    pub(super) is_open: bool,
}

/// Turns before the sockets and other tasks of the worker are looked at, with up to 32 datagrams of clients each:
/// a millisecond.
const TURNS: usize = 8;

// === impl Assigned ===

impl Assigned {
    /// A socket of the listener in `slot`.
    pub fn new(slot: usize, open: Arc<AtomicUsize>, tables: Arc<AtomicUsize>) -> Self {
        Self {
            slot: Cell::new(slot),
            open: RefCell::new(open),
            tables: RefCell::new(tables),
            stage: Cell::new(Stage::Open),
            done: RefCell::new(None),
        }
    }
}

/// Serves a socket that [`bind_udp`](crate::listener::bind_udp) made until it is given up and its flows
/// have ended; it is closed once those of all in `group` have. `idle` is told when the worker's last flow ends.
///
/// # Errors
/// The socket cannot be waited for: there are no descriptors left.
pub fn serve(
    socket: OwnedFd,
    group: Arc<Group>,
    worker: Rc<Worker>,
    assigned: Rc<Assigned>,
    idle: impl Fn() + 'static,
) -> io::Result<impl Future<Output = ()>> {
    let bound = rustix::net::getsockname(&socket)?;
    let bound = SocketAddr::try_from(bound)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let seed = worker.rng.borrow_mut().next_u64();
    let open = assigned.open.borrow().clone();
    let tables = Sharing::new(&assigned.tables.borrow());
    let mut serving = Serving {
        socket: Listening::Read(watch(socket)?),
        epoll: watch(epoll)?,
        group,
        state: State {
            flows: Flows::new(seed),
            batch: Batch::new(bound),
            answers: Answers::default(),
            bound,
            timer: worker.timers.timer(),
            slot: assigned.slot.get(),
            open,
            assigned,
            plan: None,
            tables,
            idle: Box::new(idle),
            worker,
        },
    };
    Ok(async move {
        poll_fn(|cx| serving.poll(cx)).await;
        let done = serving.state.assigned.done.take();
        drop(serving);
        drop(done);
    })
}

// === impl Serving ===

impl Serving {
    /// Ready when nothing is left to do, ever.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self {
            socket,
            epoll,
            state,
            group: _,
        } = self;
        let worker = state.worker.clone();
        state.follow();
        let now = worker.clock.now();
        let phase = state.phase(now);
        let held = worker.snapshot_for(state.slot);
        let plan = held.as_ref().and_then(|h| h.kept_listener(state.slot));
        let (Some(held), Some(plan)) = (&held, plan) else {
            // Its listener had its time.
            state.end_all(epoll.get_ref(), None, now);
            return Poll::Ready(());
        };
        let is_spoken = matches!(plan.spec.serves, Serves::Udp(_));
        if is_spoken {
            state.plan = Some(plan);
        }
        let Some(listener) = state.plan.clone() else {
            return Poll::Ready(());
        };
        let Serves::Udp(spec) = &listener.spec.serves else {
            return Poll::Ready(());
        };
        let around = Surroundings {
            worker: &worker,
            epoll: epoll.get_ref(),
            version: held.version,
            now,
        };
        let mut turn = Turn {
            around,
            listener: &listener,
            spec,
            is_open: is_spoken && phase < Phase::Draining,
        };
        if phase == Phase::Cutting {
            state.end_all(epoll.get_ref(), Some(Reason::Draining), now);
            return Poll::Ready(());
        }
        state.expire(&turn);
        if state.assigned.stage.get() == Stage::HandedOver {
            socket.hand_over();
        }
        let mut slots = worker.datagrams.borrow_mut();
        let slots = slots.get_or_insert_default();
        state.answers.begin();
        let mut is_busy = true;
        for _ in 0..TURNS {
            is_busy = false;
            // Answers first: what is on its way out makes room for what comes in.
            if let Poll::Ready(Ok(mut guard)) = epoll.poll_read_ready(cx) {
                is_busy = true;
                if let Some(socket) = socket.get()
                    && state.take_answers(&turn, socket, slots)
                {
                    guard.clear_ready_matching(Ready::READABLE);
                }
            }
            if let Listening::Read(socket) = &*socket
                && let Poll::Ready(Ok(mut guard)) = socket.poll_read_ready(cx)
            {
                is_busy = true;
                if state.take_datagrams(&turn, socket.get_ref(), slots) {
                    guard.clear_ready();
                }
            }
            if !is_busy || state.answers.are_many() {
                break;
            }
            turn.around.now = worker.clock.now();
        }
        if phase == Phase::Draining && state.flows.len() == 0 {
            return Poll::Ready(());
        }
        state.arm(spec);
        if is_busy || state.timer.has_expired(cx) {
            poll_again(cx);
        }
        Poll::Pending
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // A successor has the same sockets, so that they stay as many.
        if self.state.assigned.stage.get() != Stage::HandedOver
            && let Some(socket) = self.socket.take()
        {
            self.group.park(socket);
        }
    }
}

// === impl Listening ===

impl Listening {
    fn get(&self) -> Option<&OwnedFd> {
        match self {
            Self::Read(socket) => Some(socket.get_ref()),
            Self::Written(socket) => socket.as_ref(),
        }
    }

    /// Leaves it to who reads from now on.
    fn hand_over(&mut self) {
        if let Self::Read(_) = self {
            *self = Self::Written(self.take());
        }
    }

    /// The socket, which is not waited for any more.
    fn take(&mut self) -> Option<OwnedFd> {
        match std::mem::replace(self, Self::Written(None)) {
            Self::Read(socket) => Some(socket.into_inner()),
            Self::Written(socket) => socket,
        }
    }
}

// === impl Sharing ===

impl Sharing {
    /// One more.
    fn new(of: &Arc<AtomicUsize>) -> Self {
        // Relaxed, here and below: a count.
        of.fetch_add(1, Ordering::Relaxed);
        Self(of.clone())
    }

    /// How many there are.
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed).max(1)
    }
}

impl Drop for Sharing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl State ===

impl State {
    /// Follows the socket to the listener that it belongs to now, flows and all.
    fn follow(&mut self) {
        let slot = self.assigned.slot.get();
        if slot != self.slot {
            // Relaxed: a count.
            self.open.fetch_sub(self.flows.len(), Ordering::Relaxed);
            self.slot = slot;
            self.open = self.assigned.open.borrow().clone();
            self.open.fetch_add(self.flows.len(), Ordering::Relaxed);
            self.tables = Sharing::new(&self.assigned.tables.borrow());
        }
    }

    /// What is to be done with flows.
    fn phase(&self, now: Nanos) -> Phase {
        let phase = self.worker.life(self.slot).phase();
        match self.assigned.stage.get() {
            Stage::Open => phase,
            Stage::Closing { until } if now >= until => Phase::Cutting,
            Stage::Closing { .. } | Stage::HandedOver => phase.max(Phase::Draining),
        }
    }

    /// What the table may hold: its share. Once there are more tables, each is cut to its own as flows begin.
    pub(super) fn bounds(&self, spec: &UdpSpec) -> Bounds {
        let tables = self.tables.count();
        let share = |most: u32| (most as usize).div_ceil(tables);
        Bounds {
            flows: share(spec.max_flows.get()),
            of_source: share(spec.max_flows_per_client.get()),
        }
    }

    /// Counts one flow more.
    pub(super) fn count_begin(&self, listener: &ListenerPlan) {
        let cells = listener.cells.worker(self.worker.index);
        cells.open_flows.add(1);
        self.open.fetch_add(1, Ordering::Relaxed);
        let connections = &self.worker.connections;
        connections.set(connections.get() + 1);
    }

    /// Ends a flow that has left the table.
    pub(super) fn end(
        &self,
        around: &Surroundings<'_>,
        flow: Flow,
        why: FlowEnd,
        reason: Option<Reason>,
    ) {
        let cells = flow.x.listener.cells.worker(self.worker.index);
        cells.open_flows.dec();
        cells.flow_ends(why).inc();
        flow.end(around, why, reason);
        self.open.fetch_sub(1, Ordering::Relaxed);
        let left = self.worker.connections.get() - 1;
        self.worker.connections.set(left);
        if left == 0 {
            (self.idle)();
        }
    }

    fn expire(&mut self, turn: &Turn<'_>) {
        let idle = nanos(turn.spec.idle_timeout);
        while let Some(flow) = self.flows.expire(turn.around.now, idle) {
            // Where answers are due, silence is worth a word.
            let is_due = turn.spec.responses.is_some() && flow.is_unanswered();
            let reason = is_due.then_some(Reason::EndpointIdle);
            self.end(&turn.around, flow, FlowEnd::Idle, reason);
        }
    }

    fn end_all(&mut self, epoll: &OwnedFd, reason: Option<Reason>, now: Nanos) {
        let worker = self.worker.clone();
        let around = Surroundings {
            worker: &worker,
            epoll,
            version: 0,
            now,
        };
        while let Some(flow) = self.flows.pop() {
            self.end(&around, flow, FlowEnd::Stopped, reason);
        }
    }

    /// Wakes this loop when the next flow expires, or its time is over.
    fn arm(&self, spec: &UdpSpec) {
        let expiry = self.flows.next_expiry(nanos(spec.idle_timeout));
        let until = match self.assigned.stage.get() {
            Stage::Closing { until } => Some(until),
            Stage::Open | Stage::HandedOver => None,
        };
        match expiry.into_iter().chain(until).min() {
            Some(at) => self.timer.arm(at),
            None => self.timer.disarm(),
        }
    }
}
