//! This worker's HTTP/2 connections to one endpoint, and who makes them.
//!
//! Requests share a connection up to its limit of streams, so they must not each make one when there is
//! none: one of them dials, the others wait for what comes of that.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::base::clock::Nanos;
use crate::http2::{ClientStream, Link};

/// The connections.
#[derive(Debug, Default)]
pub struct Links {
    kept: RefCell<Vec<Kept>>,
    /// Somebody is making one.
    is_dialing: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
    /// When it was asked, it agreed on HTTP/1.1.
    speaks_h1: Cell<bool>,
}

#[derive(Debug)]
struct Kept {
    link: Rc<Link>,
    /// When it had streams last.
    used: Nanos,
}

/// What a request gets that wants a stream.
#[derive(Debug)]
pub(super) enum Turn<'l> {
    /// One.
    Stream(Box<ClientStream>),
    /// The task of making a connection.
    Dial(Dialing<'l>),
    /// Neither: the endpoint speaks HTTP/1.1.
    H1,
}

/// Making a connection; others wait until this is dropped.
#[derive(Debug)]
pub(super) struct Dialing<'l>(&'l Links);

// === impl Links ===

impl Links {
    /// A stream on a connection with room for one: `max` on each at most.
    pub fn take(&self, max: u32) -> Option<Box<ClientStream>> {
        let all = self.kept.borrow();
        let open = all.iter().find(|kept| kept.link.has_room(max))?;
        Some(Box::new(ClientStream::new(open.link.clone())))
    }

    /// Ready when there is something to be done for who wants a stream.
    pub(super) fn poll_turn(&self, cx: &mut Context<'_>, max: u32) -> Poll<Turn<'_>> {
        if let Some(stream) = self.take(max) {
            return Poll::Ready(Turn::Stream(stream));
        }
        if self.speaks_h1.get() {
            return Poll::Ready(Turn::H1);
        }
        if !self.is_dialing.replace(true) {
            return Poll::Ready(Turn::Dial(Dialing(self)));
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Keeps one more connection.
    pub(super) fn add(&self, link: Rc<Link>, now: Nanos) {
        self.speaks_h1.set(false);
        self.kept.borrow_mut().push(Kept { link, used: now });
    }

    /// Closes what is idle for longer than `idle_timeout`, and forgets what is closing.
    pub fn sweep(&self, idle_timeout: Nanos, now: Nanos) {
        self.kept.borrow_mut().retain_mut(|kept| {
            if kept.link.streams() > 0 {
                kept.used = now;
            }
            let is_old = now.saturating_sub(kept.used) > idle_timeout;
            !(kept.link.is_closing() || is_old)
        });
    }

    /// Opens no stream on any of them any more; those that are open go on.
    pub fn clear(&self) {
        for kept in self.kept.borrow_mut().drain(..) {
            kept.link.retire();
        }
    }
}

// === impl Dialing ===

impl Dialing<'_> {
    /// A connection was made.
    pub(super) fn made(self, link: Rc<Link>, now: Nanos) {
        self.0.add(link, now);
    }

    /// One was made that speaks HTTP/1.1.
    pub(super) fn made_h1(self) {
        self.0.speaks_h1.set(true);
    }
}

impl Drop for Dialing<'_> {
    fn drop(&mut self) {
        self.0.is_dialing.set(false);
        for waker in self.0.waiting.borrow_mut().drain(..) {
            waker.wake();
        }
    }
}
