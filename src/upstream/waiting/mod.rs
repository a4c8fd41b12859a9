//! The line in front of an upstream whose endpoints all have their most exchanges.
//!
//! One line for all workers. An exchange that ends calls one who waits; who is called picks again,
//! goes in, and calls the next if there may be room for more. Nobody who comes later goes in while
//! somebody waits.
//!
//! First come, first served, until the line has not been empty for 100 ms: then the latest is served
//! first and, when the line is full, the oldest is turned away. Under lasting overload a queue in
//! order makes everybody wait as long as the queue is, and serves those who are about to give up;
//! newest-first serves as many, each at once (B. Maurer, "Fail at Scale", ACM Queue 13(8), 2015:
//! adaptive LIFO with CoDel's interval of 100 ms).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::base::clock::Nanos;

/// The line of one upstream, shared by all workers.
#[derive(Debug, Default)]
pub struct Waiting {
    /// Those in the line, and those called who have not gone in yet. `SeqCst` throughout: who joins
    /// raises it and then looks for room once more, who makes room lowers the load and then looks
    /// here; one of the two sees the other.
    pending: AtomicUsize,
    line: Mutex<Line>,
}

/// One who waits. Dropping it leaves the line; a call that it got is passed on.
#[derive(Debug)]
pub struct Waiter {
    waiting: Arc<Waiting>,
    place: Arc<Place>,
    has_left: bool,
}

/// What became of a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    /// There may be room.
    In,
    /// The line was full, and it was the oldest under overload.
    Away,
}

#[derive(Debug, Default)]
struct Line {
    places: VecDeque<Arc<Place>>,
    /// Since when somebody waits.
    busy_since: Nanos,
    /// The time that was last told.
    now: Nanos,
}

#[derive(Debug)]
struct Place {
    state: AtomicU8,
    waker: Mutex<Option<Waker>>,
}

const WAITING: u8 = 0;
const CALLED: u8 = 1;
const AWAY: u8 = 2;

/// For how long a line may be a burst's.
const OVERLOADED_AFTER: Nanos = 100_000_000;

// === impl Waiting ===

impl Waiting {
    /// Whether somebody waits: then who comes now waits too.
    #[inline]
    pub fn is_busy(&self) -> bool {
        self.pending.load(Ordering::SeqCst) > 0
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.pending.load(Ordering::SeqCst)
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        !self.is_busy()
    }

    /// Joins the line, of at most `length`; `None` = it is full.
    pub fn join(self: &Arc<Self>, length: usize, now: Nanos) -> Option<Waiter> {
        let place = Arc::new(Place {
            state: AtomicU8::new(WAITING),
            waker: Mutex::default(),
        });
        let mut line = self.line();
        line.at(now);
        let mut turned_away = None;
        if line.places.len() >= length {
            if !line.is_overloaded() {
                return None;
            }
            // It keeps its count: who joins takes that over.
            turned_away = Some(line.places.pop_front()?.mark(AWAY));
        } else {
            self.pending.fetch_add(1, Ordering::SeqCst);
        }
        line.places.push_back(place.clone());
        drop(line);
        if let Some(oldest) = turned_away {
            oldest.wake();
        }
        Some(Waiter {
            waiting: self.clone(),
            place,
            has_left: false,
        })
    }

    /// There may be room: calls one.
    pub fn call(&self, now: Nanos) {
        let mut line = self.line();
        line.at(now);
        call_next(line);
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // Nobody panics while it is held; a line is whole between any two lines of code.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls the next one, in the order that holds now.
fn call_next(mut line: MutexGuard<'_, Line>) {
    let next = if line.is_overloaded() {
        line.places.pop_back()
    } else {
        line.places.pop_front()
    };
    let next = next.map(|next| next.mark(CALLED));
    drop(line);
    if let Some(next) = next {
        next.wake();
    }
}

// === impl Line ===

impl Line {
    /// It is `now`; workers' clocks may be a moment apart.
    fn at(&mut self, now: Nanos) {
        self.now = self.now.max(now);
        if self.places.is_empty() {
            self.busy_since = self.now;
        }
    }

    fn is_overloaded(&self) -> bool {
        !self.places.is_empty() && self.now - self.busy_since > OVERLOADED_AFTER
    }
}

// === impl Place ===

impl Place {
    /// Says what becomes of it; only while the line is locked, so that nobody leaves in between.
    fn mark(self: Arc<Self>, state: u8) -> Arc<Self> {
        self.state.store(state, Ordering::SeqCst);
        self
    }

    /// Wakes it to see; not while the line is locked.
    fn wake(&self) {
        let mut waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        let waker = waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

// === impl Waiter ===

impl Waiter {
    /// Waits to be called.
    pub fn poll_called(&self, cx: &Context<'_>) -> Poll<Called> {
        let mut waker = self
            .place
            .waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match self.place.state.load(Ordering::SeqCst) {
            CALLED => Poll::Ready(Called::In),
            AWAY => Poll::Ready(Called::Away),
            _ => {
                match &*waker {
                    Some(known) if known.will_wake(cx.waker()) => {}
                    _ => *waker = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }

    /// Whether nobody else waits: then room that was made before it joined is its own.
    pub fn is_alone(&self) -> bool {
        self.waiting.len() == 1
    }

    /// Was called and found no room: waits again, as the next to be called.
    pub fn again(&self, now: Nanos) {
        let mut line = self.waiting.line();
        line.at(now);
        self.place.state.store(WAITING, Ordering::SeqCst);
        if line.is_overloaded() {
            line.places.push_back(self.place.clone());
        } else {
            line.places.push_front(self.place.clone());
        }
    }

    /// Goes in; `has_room` says whether another one may.
    pub fn enter(mut self, has_room: bool, now: Nanos) {
        self.leave();
        if has_room {
            self.waiting.call(now);
        }
    }

    /// Out of the line, wherever it stands; whether it takes a call along.
    fn leave(&mut self) -> bool {
        if std::mem::replace(&mut self.has_left, true) {
            return false;
        }
        let mut line = self.waiting.line();
        let is_called = match self.place.state.load(Ordering::SeqCst) {
            // Whoever took its place took its count over.
            AWAY => return false,
            state => state == CALLED,
        };
        self.waiting.pending.fetch_sub(1, Ordering::SeqCst);
        if !is_called {
            let is_it = |p: &Arc<Place>| Arc::ptr_eq(p, &self.place);
            if let Some(at) = line.places.iter().position(is_it) {
                line.places.remove(at);
            }
        }
        is_called
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.leave() {
            let line = self.waiting.line();
            call_next(line);
        }
    }
}

#[cfg(test)]
mod tests;
