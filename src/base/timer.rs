//! Deadlines of a worker's connections: a coarse wheel on which re-arming is one store.
//!
//! A proxy moves each connection's deadline several times a request and almost none of them ever
//! fires. So a [`Timer`] only stores its deadline; the wheel holds a link that is checked when its
//! slot comes up and moved on if the deadline has moved (nginx skips re-arms for the same reason).
//! A link is added only when a deadline comes EARLIER than the link that exists.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use super::clock::Nanos;

/// Length of a tick. Deadlines of a proxy are seconds; a tenth of one is the error.
pub const TICK: Duration = Duration::from_millis(100);

const TICK_NANOS: u64 = TICK.as_nanos() as u64;

/// 1,024 slots of 100 ms: deadlines up to 102 s are linked once, later ones are moved on each lap.
const SLOTS: usize = 1024;

/// The wheel of one worker.
#[derive(Clone, Debug)]
pub struct Timers(Rc<RefCell<Wheel>>);

/// One connection's deadline. Dropping it frees its place.
#[derive(Debug)]
pub struct Timer {
    wheel: Timers,
    key: u32,
}

#[derive(Debug)]
struct Wheel {
    /// Keys of entries to be looked at.
    slots: Vec<Vec<u32>>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// The tick up to which everything has fired.
    tick: u64,
    live: usize,
    scratch: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    /// Tick after which the timer has expired; `NEVER` when disarmed.
    deadline: u64,
    /// The earliest tick at which a link of this entry comes up; `NEVER` without one.
    linked: u64,
    waker: Option<Waker>,
}

const NEVER: u64 = u64::MAX;

// === impl Timers ===

impl Timers {
    /// An empty wheel whose present is `now`.
    pub fn new(now: Nanos) -> Self {
        Self(Rc::new(RefCell::new(Wheel {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            entries: Vec::new(),
            free: Vec::new(),
            tick: now / TICK_NANOS,
            live: 0,
            scratch: Vec::new(),
        })))
    }

    /// A disarmed timer.
    pub fn timer(&self) -> Timer {
        let mut wheel = self.0.borrow_mut();
        wheel.live += 1;
        let key = if let Some(key) = wheel.free.pop() {
            key
        } else {
            wheel.entries.push(Entry {
                deadline: NEVER,
                linked: NEVER,
                waker: None,
            });
            // A worker holds far fewer than 2^32 connections.
            (wheel.entries.len() - 1) as u32
        };
        Timer {
            wheel: self.clone(),
            key,
        }
    }

    /// The time as deadlines know it, without a look at the clock: the end of the tick that runs, so that what
    /// is reckoned from it is never early (but for what a worker that does not come round lags behind).
    #[inline]
    pub fn present(&self) -> Nanos {
        (self.0.borrow().tick + 1) * TICK_NANOS
    }

    /// How many timers exist.
    pub fn live(&self) -> usize {
        self.0.borrow().live
    }

    /// Fires every slot up to `now` and wakes the tasks whose deadline has passed.
    pub fn advance(&self, now: Nanos) {
        let mut wheel = self.0.borrow_mut();
        let target = now / TICK_NANOS;
        // After a long sleep one lap visits every slot.
        let first = wheel.tick.max(target.saturating_sub(SLOTS as u64)) + 1;
        for tick in first..=target {
            wheel.fire(tick, target);
        }
        wheel.tick = wheel.tick.max(target);
    }

    /// Wakes every task that waits on a timer: the process changes its phase.
    pub fn wake_all(&self) {
        let wheel = self.0.borrow();
        for waker in wheel.entries.iter().filter_map(|e| e.waker.as_ref()) {
            waker.wake_by_ref();
        }
    }
}

// === impl Timer ===

impl Timer {
    /// Sets the deadline, replacing the one before.
    #[inline]
    pub fn arm(&self, deadline: Nanos) {
        let mut wheel = self.wheel.0.borrow_mut();
        // Rounded up: a timer never fires early.
        let tick = (deadline / TICK_NANOS + 1).max(wheel.tick + 1);
        let entry = &mut wheel.entries[self.key as usize];
        entry.deadline = tick;
        if entry.linked > tick {
            wheel.link(self.key, tick);
        }
    }

    /// Takes the deadline away.
    pub fn disarm(&self) {
        self.wheel.0.borrow_mut().entries[self.key as usize].deadline = NEVER;
    }

    /// Whether the deadline has passed; if not, the task of `cx` is woken when it does.
    #[inline]
    pub fn has_expired(&self, cx: &Context<'_>) -> bool {
        let mut wheel = self.wheel.0.borrow_mut();
        let tick = wheel.tick;
        let entry = &mut wheel.entries[self.key as usize];
        if entry.deadline <= tick {
            return true;
        }
        match &entry.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => entry.waker = Some(cx.waker().clone()),
        }
        false
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let mut wheel = self.wheel.0.borrow_mut();
        let entry = &mut wheel.entries[self.key as usize];
        // Its link stays, and is the next one's: a stream of HTTP/2 lives for a millisecond and is armed
        // for a minute, so that a link for each would be a million of them.
        entry.deadline = NEVER;
        entry.waker = None;
        wheel.free.push(self.key);
        wheel.live -= 1;
    }
}

// === impl Wheel ===

impl Wheel {
    fn link(&mut self, key: u32, tick: u64) {
        // Beyond the horizon: the last slot of the lap, where it is moved on.
        let at = tick.min(self.tick + SLOTS as u64 - 1);
        let entry = &mut self.entries[key as usize];
        entry.linked = at;
        self.slots[(at % SLOTS as u64) as usize].push(key);
    }

    fn fire(&mut self, tick: u64, now: u64) {
        let mut due = std::mem::take(&mut self.scratch);
        std::mem::swap(&mut due, &mut self.slots[(tick % SLOTS as u64) as usize]);
        self.tick = tick;
        for key in due.drain(..) {
            let entry = &mut self.entries[key as usize];
            if entry.linked > tick {
                continue; // an earlier link took over, and has been here
            }
            entry.linked = NEVER;
            if entry.deadline <= now {
                if let Some(waker) = &entry.waker {
                    waker.wake_by_ref();
                }
            } else if entry.deadline != NEVER {
                let deadline = entry.deadline;
                self.link(key, deadline);
            }
        }
        self.scratch = due;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn at(seconds: f64) -> Nanos {
        (seconds * 1e9) as Nanos
    }

    #[test]
    fn fires_after_the_deadline_and_never_before() {
        let timers = Timers::new(at(5.0));
        let timer = timers.timer();
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let cx = Context::from_waker(&waker);
        timer.arm(at(6.0));
        assert!(!timer.has_expired(&cx));
        timers.advance(at(6.0));
        assert!(!timer.has_expired(&cx));
        timers.advance(at(6.1));
        assert!(timer.has_expired(&cx));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_moved_deadline_fires_once_at_its_last_place() {
        let timers = Timers::new(0);
        let timer = timers.timer();
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let cx = Context::from_waker(&waker);
        for second in 1..300 {
            timer.arm(at(f64::from(second) + 10.0));
            timers.advance(at(f64::from(second)));
            assert!(!timer.has_expired(&cx), "second {second}");
        }
        timer.arm(at(301.0)); // earlier than before
        timers.advance(at(300.5));
        assert!(!timer.has_expired(&cx));
        timers.advance(at(301.2));
        assert!(timer.has_expired(&cx));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(timers.0.borrow().slots.iter().map(Vec::len).sum::<usize>() <= 3);
    }

    #[test]
    fn beyond_the_horizon_and_after_a_long_sleep() {
        let timers = Timers::new(0);
        let timer = timers.timer();
        let waker = Waker::noop();
        let cx = Context::from_waker(waker);
        timer.arm(at(5000.0));
        timers.advance(at(4999.0));
        assert!(!timer.has_expired(&cx));
        timers.advance(at(9999.0));
        assert!(timer.has_expired(&cx));
    }

    #[test]
    fn a_freed_place_is_reused_without_ghosts() {
        let timers = Timers::new(0);
        let first = timers.timer();
        first.arm(at(1.0));
        drop(first);
        let second = timers.timer();
        second.arm(at(60.0));
        timers.advance(at(2.0));
        assert!(!second.has_expired(&Context::from_waker(Waker::noop())));
        second.disarm();
        timers.advance(at(100.0));
        assert!(!second.has_expired(&Context::from_waker(Waker::noop())));
        assert_eq!(timers.live(), 1);
    }

    /// A stream of HTTP/2 is over long before its deadline, and thousands follow it each second.
    #[test]
    fn a_place_that_is_used_again_and_again_is_linked_once() {
        let timers = Timers::new(0);
        let waker = Waker::noop();
        let cx = Context::from_waker(waker);
        for n in 0..1000 {
            let now = f64::from(n) / 100.0;
            timers.advance(at(now));
            let timer = timers.timer();
            timer.arm(at(now + 60.0));
            assert!(!timer.has_expired(&cx));
        }
        let links = timers.0.borrow().slots.iter().map(Vec::len).sum::<usize>();
        assert_eq!(links, 1);
        // And the deadline of the last one holds.
        let last = timers.timer();
        last.arm(at(70.0));
        timers.advance(at(69.9));
        assert!(!last.has_expired(&cx));
        timers.advance(at(70.2));
        assert!(last.has_expired(&cx));
    }
}
