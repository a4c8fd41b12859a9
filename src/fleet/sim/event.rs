//! What is to happen, in order.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::net::SocketAddr;

use super::Link;
use crate::base::clock::Nanos;

/// The earliest first; of those at one time, the one that was added first.
#[derive(Debug, Default)]
pub(super) struct Events {
    heap: BinaryHeap<Entry>,
    next: u64,
}

#[derive(Debug)]
pub(super) enum Event {
    /// Machine `to` gets a datagram.
    Datagram {
        from: SocketAddr,
        to: usize,
        bytes: Vec<u8>,
    },
    /// Machine `to` hears of a stream.
    Stream { to: usize, what: Arrival },
    /// Machine may want to be woken.
    Wake(usize),
    /// Machine moves again.
    Thaw(usize),
}

/// `Heard`, on its way.
#[derive(Debug)]
pub(super) enum Arrival {
    Opened {
        link: Link,
    },
    /// To that life of the machine that dialled.
    Failed {
        token: u64,
        life: u64,
    },
    Accepted {
        link: Link,
    },
    Message {
        link: Link,
        bytes: Vec<u8>,
    },
    Closed {
        link: Link,
    },
}

#[derive(Debug)]
struct Entry {
    at: Nanos,
    number: u64,
    event: Event,
}

// === impl Events ===

impl Events {
    pub(super) fn add(&mut self, at: Nanos, event: Event) {
        let number = self.next;
        self.next += 1;
        self.heap.push(Entry { at, number, event });
    }

    /// The next one, unless it is later than `until`.
    pub(super) fn pop(&mut self, until: Nanos) -> Option<(Nanos, Event)> {
        if self.heap.peek()?.at > until {
            return None;
        }
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }
}

// === impl Entry ===

impl Ord for Entry {
    /// Reversed: the heap gives its greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        let order = self.at.cmp(&other.at);
        order.then(self.number.cmp(&other.number)).reverse()
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}
