//! When something is due, in time that was lived.
//!
//! A machine that stood still (stopped, swapped out, its loop blocked) finds all its timers due at once: a probe
//! ends whose answer waits unread in the socket, a suspicion ends that was refuted long ago. So the time that was
//! slept does not count: every timer moves by it. Nobody is declared down for what happened meanwhile.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use foca::Timer;

use super::identity::Identity;
use crate::base::clock::{Nanos, nanos};

/// All that is to come, the earliest first; what is due at once in foca's order.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Entry>,
    next: u64,
    /// How much of the clock's time does not count.
    slept: Nanos,
    pub(super) stalls: Stalls,
}

/// How often and how long the loop that drives this machine stood still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalls {
    /// Times that a timer came more than a second late.
    pub count: u64,
    /// By how much in sum.
    pub total: Duration,
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Foca(Timer<Identity>),
    /// Look for peers; an older number was overtaken by a newer one.
    Seek(u64),
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    /// In lived time.
    at: Nanos,
    due: Due,
    /// Equal ones in the order in which they were asked for.
    number: u64,
}

/// A second: no loop that does its work is that late, and foca's shortest period is no longer.
const STALL: Nanos = 1_000_000_000;

/// After a stall nothing is due for as long as foca waits for an answer, so that what waits in the socket is
/// read before anything is concluded.
const GRACE: Nanos = 500_000_000;

// === impl Timers ===

impl Timers {
    pub(super) fn add(&mut self, due: Due, after: Duration, now: Nanos) {
        let at = self.lived(now).saturating_add(nanos(after));
        let number = self.next;
        self.next += 1;
        self.heap.push(Entry { at, due, number });
    }

    /// When the next one is due, by the clock.
    pub(super) fn next_at(&self) -> Option<Nanos> {
        let next = self.heap.peek()?;
        Some(next.at.saturating_add(self.slept))
    }

    /// Takes note of the time; to be called before anything else that comes with a new time.
    pub(super) fn notice(&mut self, now: Nanos) {
        let Some(at) = self.next_at() else { return };
        let late = now.saturating_sub(at);
        if late > STALL {
            self.slept += late + GRACE;
            self.stalls.count += 1;
            self.stalls.total += Duration::from_nanos(late);
        }
    }

    pub(super) fn pop(&mut self, now: Nanos) -> Option<Due> {
        if self.next_at()? > now {
            return None;
        }
        self.heap.pop().map(|entry| entry.due)
    }

    pub(super) fn clear(&mut self) {
        self.heap.clear();
    }

    fn lived(&self, now: Nanos) -> Nanos {
        now.saturating_sub(self.slept)
    }
}

// === impl Entry ===

impl Ord for Entry {
    /// Reversed: the heap gives its greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        let kind = || match (&self.due, &other.due) {
            (Due::Foca(mine), Due::Foca(theirs)) => mine.cmp(theirs),
            (Due::Foca(_), Due::Seek(_)) => Ordering::Less,
            (Due::Seek(_), Due::Foca(_)) => Ordering::Greater,
            (Due::Seek(_), Due::Seek(_)) => Ordering::Equal,
        };
        let order = self.at.cmp(&other.at).then_with(kind);
        order.then(self.number.cmp(&other.number)).reverse()
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
