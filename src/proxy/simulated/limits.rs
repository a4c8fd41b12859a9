//! Limits and the line under real threads: never one too many, and nobody forgotten.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;

use crate::base::clock::Clock;
use crate::upstream::{Called, Picked, Tried};

use super::*;

const THREADS: usize = 4;
const ENDPOINTS: usize = 3;
const LIMIT: u32 = 4;

/// Each thread has so many exchanges at once: twice what all endpoints take, all threads together.
const TASKS: usize = 6;

/// What all threads see.
struct Shared {
    upstream: Arc<Upstream>,
    names: Vec<Box<str>>,
    /// Tickets held, counted beside the product: raised after a pick, lowered before the end.
    held: [AtomicU32; ENDPOINTS],
    /// The virtual time; each look is 10 us later.
    clock: AtomicU64,
    finished: AtomicU32,
    /// Members no longer change.
    is_quiet: AtomicBool,
    queued: AtomicU32,
    cancelled: AtomicU32,
}

enum Task {
    Idle,
    Holding(Ticket, usize),
    Waiting(Waiter, IsCalled, Arc<Flag>),
}

/// Polled only after a wake, as an executor does.
struct Flag(AtomicBool);

// === impl Flag ===

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

// === impl Shared ===

impl Shared {
    fn now(&self) -> Nanos {
        self.clock.fetch_add(MS / 100, Ordering::SeqCst)
    }

    fn place(&self, ticket: &Ticket) -> usize {
        let name = &ticket.endpoint().shared.name;
        self.names.iter().position(|n| n == name).unwrap()
    }

    fn hold(&self, ticket: Ticket, rng: &mut Rng) -> Task {
        let before = self.held[self.place(&ticket)].fetch_add(1, Ordering::SeqCst);
        assert!(before < LIMIT, "one too many");
        Task::Holding(ticket, 1 + rng.below(8))
    }

    fn begin(&self, local: &LocalUpstream, rng: &mut Rng) -> Task {
        match local.pick(None, &Tried::default(), false, self.now(), rng) {
            Picked::One(ticket) => self.hold(ticket, rng),
            Picked::Nobody => Task::Idle,
            Picked::Full => {
                // Now and then it is full.
                let Some(waiter) = self.upstream.waiting.join(10, self.now()) else {
                    return Task::Idle;
                };
                self.queued.fetch_add(1, Ordering::Relaxed);
                let may_pick = waiter.is_alone();
                let flag = Arc::new(Flag(AtomicBool::new(false)));
                self.poll(local, rng, (waiter, false, flag), may_pick)
            }
        }
    }

    /// As `queue::wait` does.
    fn poll(
        &self,
        local: &LocalUpstream,
        rng: &mut Rng,
        (waiter, mut is_called, flag): (Waiter, IsCalled, Arc<Flag>),
        mut may_pick: bool,
    ) -> Task {
        let waker = Waker::from(flag.clone());
        loop {
            if may_pick {
                match local.pick(None, &Tried::default(), true, self.now(), rng) {
                    Picked::One(ticket) => {
                        waiter.enter(|| local.has_room(), self.now());
                        return self.hold(ticket, rng);
                    }
                    Picked::Nobody => return Task::Idle,
                    Picked::Full => {}
                }
            }
            match waiter.poll_called(&Context::from_waker(&waker)) {
                Poll::Pending => return Task::Waiting(waiter, is_called, flag),
                Poll::Ready(Called::Away) => return Task::Idle,
                Poll::Ready(Called::In) if is_called => {
                    waiter.again(self.now());
                    is_called = false;
                    may_pick = waiter.is_alone();
                }
                Poll::Ready(Called::In) => {
                    is_called = true;
                    may_pick = true;
                }
            }
        }
    }

    fn step(&self, local: &LocalUpstream, rng: &mut Rng, task: Task) -> Task {
        match task {
            Task::Idle => Task::Idle,
            Task::Holding(ticket, 0) => {
                self.held[self.place(&ticket)].fetch_sub(1, Ordering::SeqCst);
                Task::Idle
            }
            Task::Holding(ticket, left) => Task::Holding(ticket, left - 1),
            // Its client went, or its time was up, whatever has become of it meanwhile.
            Task::Waiting(..) if rng.below(100) == 0 => {
                self.cancelled.fetch_add(1, Ordering::Relaxed);
                Task::Idle
            }
            Task::Waiting(waiter, is_called, flag) => {
                if !flag.0.swap(false, Ordering::SeqCst) {
                    return Task::Waiting(waiter, is_called, flag);
                }
                self.poll(local, rng, (waiter, is_called, flag), false)
            }
        }
    }

    /// A worker: `exchanges` of them, and then until the last one has ended.
    fn work(&self, mut exchanges: u32, seed: u64) {
        let local = LocalUpstream::new(self.upstream.clone(), None);
        let mut rng = Rng::new(seed);
        let mut tasks: Vec<Task> = (0..TASKS).map(|_| Task::Idle).collect();
        let deadline = Clock::start().now() + 120 * SECOND;
        loop {
            let at = rng.below(TASKS);
            let task = std::mem::replace(&mut tasks[at], Task::Idle);
            tasks[at] = match task {
                Task::Idle if exchanges > 0 => {
                    exchanges -= 1;
                    if exchanges == 0 {
                        self.finished.fetch_add(1, Ordering::SeqCst);
                    }
                    self.begin(&local, &mut rng)
                }
                task => self.step(&local, &mut rng, task),
            };
            let is_over = || tasks.iter().all(|task| matches!(task, Task::Idle));
            if exchanges == 0 && is_over() && self.is_quiet.load(Ordering::SeqCst) {
                return;
            }
            // So that threads take turns within an exchange even where there is one core.
            if rng.below(4) == 0 {
                thread::yield_now();
            }
            assert!(Clock::start().now() < deadline, "somebody was forgotten");
        }
    }

    /// The control thread: endpoints go down and up, all of them too.
    fn change(&self, seed: u64) {
        let mut rng = Rng::new(seed);
        let endpoints = self.upstream.members.load().endpoints.clone();
        while self.finished.load(Ordering::SeqCst) < THREADS as u32 {
            let health = [Health::Down, Health::Up, Health::Up][rng.below(3)];
            endpoints[rng.below(ENDPOINTS)].set_health(health);
            self.upstream.publish_health(self.now());
            for _ in 0..100 {
                thread::yield_now();
            }
        }
        endpoints.iter().for_each(|e| e.set_health(Health::Up));
        self.upstream.publish_health(self.now());
        self.is_quiet.store(true, Ordering::SeqCst);
    }
}

#[test]
fn threads_never_exceed_a_limit_and_leave_nobody_in_the_line() {
    each_seed(3, 20, |seed| {
        let upstream = format!("max_connections = {LIMIT}");
        let setup = Setup {
            endpoints: ENDPOINTS,
            workers: THREADS,
            upstream: &upstream,
            ..Setup::default()
        };
        let upstream = setup.sim(seed).upstream;
        let endpoints = upstream.members.load().endpoints.clone();
        let shared = Shared {
            names: endpoints.iter().map(|e| e.name.clone()).collect(),
            upstream,
            held: Default::default(),
            clock: AtomicU64::new(BEGIN),
            finished: AtomicU32::new(0),
            is_quiet: AtomicBool::new(false),
            queued: AtomicU32::new(0),
            cancelled: AtomicU32::new(0),
        };
        thread::scope(|scope| {
            let shared = &shared;
            for thread in 0..THREADS as u64 {
                scope.spawn(move || shared.work(3_000, seed << 8 | thread));
            }
            scope.spawn(move || shared.change(seed));
        });
        for (endpoint, held) in endpoints.iter().zip(&shared.held) {
            assert_eq!(held.load(Ordering::SeqCst), 0);
            assert_eq!(endpoint.in_flight(), 0, "seed {seed}");
        }
        assert_eq!(shared.upstream.waiting.len(), 0, "seed {seed}");
        let queued = shared.queued.into_inner();
        eprintln!(
            "queued {queued}, cancelled {}",
            shared.cancelled.into_inner()
        );
        assert!(queued > 100, "seed {seed}: nobody had to wait");
    });
}
