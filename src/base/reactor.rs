//! A reactor for sockets that only carry bytes: what is ready, in one word a socket, and who is to be woken.
//!
//! It is an epoll of its own inside that of the runtime. What the runtime keeps for a socket is made for many
//! threads (two locks and a dozen atomic operations a wake-up) and is taken out of its epoll by a call of its own;
//! here a socket belongs to one thread and one task, and leaves as it is closed. Edge-triggered: who finds less
//! than he asked for says so by [`Place::clear`], and is told of what comes next.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

/// The reactor of one worker.
#[derive(Clone, Debug)]
pub struct Reactor(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    epoll: AsyncFd<OwnedFd>,
    places: RefCell<Places>,
}

#[derive(Debug, Default)]
struct Places {
    all: Vec<Kept>,
    free: Vec<u32>,
    /// Who wants to be woken soon, the first to be woken first.
    asking: VecDeque<Asking>,
    /// Of who rings, while nobody asks.
    ringer: Option<Waker>,
}

/// What is kept for one socket.
#[derive(Debug, Default)]
struct Kept {
    /// How many sockets had this place before: an event that was fetched for one of them is not its own.
    turn: u32,
    ready: Ready,
    /// What its task waits for.
    wanted: Ready,
    soon: Soon,
    waker: Option<Waker>,
}

/// One who wants to be woken.
#[derive(Debug)]
struct Asking {
    at: Instant,
    key: u32,
    turn: u32,
}

/// Whether its task wants to be woken a little later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Soon {
    #[default]
    Unasked,
    Asked,
    Come,
}

/// A socket's place. Dropping it frees it; the socket is to be closed then.
#[derive(Debug)]
pub struct Place {
    reactor: Reactor,
    key: u32,
}

/// What a socket is ready for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready(u8);

/// When who asked to be woken soon is woken; the runtime's clock has milliseconds and adds up to one. Longer than an
/// answer takes in a busy process, so that few are woken for nothing; far shorter than the 40 ms after which Linux
/// acknowledges by itself.
const SOON: Duration = Duration::from_millis(2);

/// Events that are fetched in one call; if there are more, others have their turn between.
const FETCHED: usize = 256;

/// Has the runtime wait until `fd` can be read.
#[expect(
    deprecated,
    reason = "what replaces it is unsafe: descriptors that change behind its back; an OwnedFd does not"
)]
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}

/// Has the task of `cx` polled again once the runtime has looked at its sockets and clocks. One that wakes itself
/// is polled up to 61 times between two such looks (its `event_interval`), and everybody else waits.
pub fn poll_again(cx: &mut Context<'_>) {
    let _ = std::pin::pin!(tokio::task::yield_now()).poll(cx);
}

// === impl Ready ===

impl Ready {
    /// For nothing.
    pub const NONE: Self = Self(0);
    /// To be read from.
    pub const READ: Self = Self(1);
    /// To be written to.
    pub const WRITE: Self = Self(2);
    /// To be told of its end, for good.
    const READ_END: Self = Self(4);
    /// To be told that nothing more is taken, for good.
    const WRITE_END: Self = Self(8);
    /// To be told of an error.
    pub const ERROR: Self = Self(16);
    /// Urgent data has come, which a read stops at: fewer bytes than asked for are not all there are. For good.
    pub const URGENT: Self = Self(32);
    /// To be read from and written to.
    pub const BOTH: Self = Self(1 | 2);

    fn of(flags: EventFlags) -> Self {
        let mut ready = 0;
        for (flag, means) in [
            (EventFlags::IN, Self::READ.0),
            (EventFlags::OUT, Self::WRITE.0),
            (EventFlags::RDHUP, Self::READ_END.0),
            (EventFlags::HUP, Self::READ_END.0 | Self::WRITE_END.0),
            (EventFlags::ERR, Self::BOTH.0 | Self::ERROR.0),
            (EventFlags::PRI, Self::URGENT.0),
        ] {
            if flags.contains(flag) {
                ready |= means;
            }
        }
        Self(ready)
    }

    /// With what an end means for it.
    const fn with_ends(self) -> Self {
        Self(self.0 | ((self.0 & 3) << 2))
    }

    const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

// === impl Places ===

impl Places {
    /// When the first is to be woken of those who still want to be.
    fn next_asking(&mut self) -> Option<Instant> {
        while let Some(asking) = self.asking.front() {
            let kept = &self.all[asking.key as usize];
            if kept.turn == asking.turn && kept.soon == Soon::Asked {
                return Some(asking.at);
            }
            self.asking.pop_front();
        }
        None
    }

    fn wake_until(&mut self, now: Instant) {
        while self.next_asking().is_some_and(|at| at <= now) {
            let Some(asking) = self.asking.pop_front() else {
                return;
            };
            let kept = &mut self.all[asking.key as usize];
            kept.soon = Soon::Come;
            if let Some(waker) = &kept.waker {
                waker.wake_by_ref();
            }
        }
    }
}

// === impl Reactor ===

impl Reactor {
    /// A reactor, and what runs it: to be polled by a task of its own on the same thread.
    pub fn start() -> io::Result<(Self, impl Future<Output = ()>)> {
        let epoll = watch(epoll::create(CreateFlags::CLOEXEC)?)?;
        let reactor = Self(Rc::new(Inner {
            epoll,
            places: RefCell::default(),
        }));
        Ok((reactor.clone(), reactor.run()))
    }

    /// A place for `socket`, which counts as `ready` from the first.
    pub fn add(&self, socket: impl AsFd, ready: Ready) -> io::Result<Place> {
        let mut places = self.0.places.borrow_mut();
        let key = if let Some(key) = places.free.pop() {
            key
        } else {
            places.all.push(Kept::default());
            // A worker holds far fewer than 2^32 sockets.
            (places.all.len() - 1) as u32
        };
        let kept = &mut places.all[key as usize];
        kept.ready = ready;
        let data = EventData::new_u64((u64::from(kept.turn) << 32) | u64::from(key));
        drop(places);
        let place = Place {
            reactor: self.clone(),
            key,
        };
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP;
        let flags = flags | EventFlags::PRI | EventFlags::ET;
        epoll::add(&self.0.epoll, socket, data, flags)?;
        Ok(place)
    }

    /// Fetches events for as long as the worker runs.
    async fn run(self) {
        let epoll = &self.0.epoll;
        let mut events = Vec::with_capacity(FETCHED);
        let at_once = Timespec::default();
        poll_fn(|cx| {
            loop {
                // An error: the runtime shuts down.
                let Ok(mut guard) = ready!(epoll.poll_read_ready(cx)) else {
                    return Poll::Ready(());
                };
                let room = rustix::buffer::spare_capacity(&mut events);
                // Interrupted: it is asked again.
                let fetched = epoll::wait(epoll, room, Some(&at_once)).unwrap_or(FETCHED);
                self.tell(&events);
                events.clear();
                if fetched < FETCHED {
                    guard.clear_ready();
                } else {
                    poll_again(cx);
                    return Poll::Pending;
                }
            }
        })
        .await;
    }

    /// Wakes those who want to be woken soon, for as long as the worker runs: to be polled by a task of its own on
    /// the same thread.
    pub async fn ring(self) {
        loop {
            let next = poll_fn(|cx| {
                let mut places = self.0.places.borrow_mut();
                let next = places.next_asking();
                if next.is_none() {
                    places.ringer = Some(cx.waker().clone());
                }
                next.map_or(Poll::Pending, Poll::Ready)
            });
            tokio::time::sleep_until(next.await).await;
            self.0.places.borrow_mut().wake_until(Instant::now());
        }
    }

    /// Takes note of what the kernel has told, and wakes who waits for it.
    fn tell(&self, events: &[Event]) {
        let mut places = self.0.places.borrow_mut();
        for event in events {
            let data = event.data.u64();
            let Some(kept) = places.all.get_mut(data as u32 as usize) else {
                continue;
            };
            if kept.turn != (data >> 32) as u32 {
                continue;
            }
            let ready = Ready::of(event.flags);
            kept.ready.0 |= ready.0;
            if kept.wanted.meets(ready) {
                // Who waits for the other side too goes on waiting, though he does not ask again.
                kept.wanted.0 &= !ready.with_ends().0;
                if let Some(waker) = &kept.waker {
                    waker.wake_by_ref();
                }
            }
        }
    }
}

// === impl Place ===

impl Place {
    /// Whether its socket is ready for `what`, or that has ended.
    #[inline]
    pub fn is_ready(&self, what: Ready) -> bool {
        let places = self.reactor.0.places.borrow();
        places.all[self.key as usize].ready.meets(what.with_ends())
    }

    /// The same; if it is not, the task of `cx`, which is always the same, is woken when it may be.
    pub fn poll_ready(&self, cx: &mut Context<'_>, what: Ready) -> Poll<()> {
        let mut places = self.reactor.0.places.borrow_mut();
        let kept = &mut places.all[self.key as usize];
        let what = what.with_ends();
        if kept.ready.meets(what) {
            return Poll::Ready(());
        }
        kept.wanted.0 |= what.0;
        let before = match &kept.waker {
            Some(waker) if waker.will_wake(cx.waker()) => None,
            _ => kept.waker.replace(cx.waker().clone()),
        };
        drop(places);
        drop(before);
        Poll::Pending
    }

    /// It was found that there is no more for now: what comes is told. Ends stay.
    #[inline]
    pub fn clear(&self, what: Ready) {
        let mut places = self.reactor.0.places.borrow_mut();
        places.all[self.key as usize].ready.0 &= !what.0;
    }

    /// Has its task, if that waits for its socket, woken a little later (some 3 ms), once.
    pub fn ask_soon(&self) {
        let mut places = self.reactor.0.places.borrow_mut();
        let kept = &mut places.all[self.key as usize];
        kept.soon = Soon::Asked;
        let (key, turn) = (self.key, kept.turn);
        let at = Instant::now() + SOON;
        places.asking.push_back(Asking { at, key, turn });
        if let Some(ringer) = places.ringer.take() {
            ringer.wake();
        }
    }

    /// Whether it was woken because it had asked for that.
    pub fn is_soon(&self) -> bool {
        let places = self.reactor.0.places.borrow();
        places.all[self.key as usize].soon == Soon::Come
    }

    /// It need not be woken any more.
    pub fn forget_soon(&self) {
        let mut places = self.reactor.0.places.borrow_mut();
        places.all[self.key as usize].soon = Soon::Unasked;
    }

    /// Takes `socket` out of the reactor: it lives on elsewhere.
    pub fn leave(self, socket: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.reactor.0.epoll, socket)?)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.reactor.0.places.borrow_mut();
        let kept = &mut places.all[self.key as usize];
        let turn = kept.turn.wrapping_add(1);
        let left = std::mem::replace(
            kept,
            Kept {
                turn,
                ..Kept::default()
            },
        );
        places.free.push(self.key);
        // Whatever a waker is the last to hold may have places of its own.
        drop(places);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
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

    fn event(key: u64, turn: u64, flags: EventFlags) -> Event {
        Event {
            flags,
            data: EventData::new_u64((turn << 32) | key),
        }
    }

    #[tokio::test]
    async fn who_waits_is_woken_once_and_only_for_what_he_waits_for() {
        let (reactor, _running) = Reactor::start().unwrap();
        let (socket, _other) = UnixStream::pair().unwrap();
        let place = reactor.add(&socket, Ready::NONE).unwrap();
        let count = Arc::new(Count::default());
        let woken = || count.0.load(Ordering::Relaxed);
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(place.poll_ready(&mut cx, Ready::READ).is_pending());
        reactor.tell(&[event(0, 0, EventFlags::OUT)]);
        assert_eq!(woken(), 0);
        reactor.tell(&[event(0, 0, EventFlags::IN), event(0, 0, EventFlags::IN)]);
        assert_eq!(woken(), 1);
        assert!(place.poll_ready(&mut cx, Ready::READ).is_ready());
        assert!(place.is_ready(Ready::WRITE));
        place.clear(Ready::READ);
        assert!(place.poll_ready(&mut cx, Ready::READ).is_pending());
        assert!(place.is_ready(Ready::WRITE));
    }

    /// A connection whose bulk waited for room heard nothing of its other direction any more.
    #[tokio::test]
    async fn a_wait_for_one_side_outlives_what_is_told_of_the_other() {
        let (reactor, _running) = Reactor::start().unwrap();
        let (socket, _other) = UnixStream::pair().unwrap();
        let place = reactor.add(&socket, Ready::NONE).unwrap();
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(place.poll_ready(&mut cx, Ready::READ).is_pending());
        assert!(place.poll_ready(&mut cx, Ready::WRITE).is_pending());
        reactor.tell(&[event(0, 0, EventFlags::OUT)]);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        reactor.tell(&[event(0, 0, EventFlags::IN)]);
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_is_woken_soon_once_unless_he_forgets() {
        let (reactor, _running) = Reactor::start().unwrap();
        let (socket, other) = UnixStream::pair().unwrap();
        let mut ringing = std::pin::pin!(reactor.clone().ring());
        let place = reactor.add(&socket, Ready::NONE).unwrap();
        let second = reactor.add(&other, Ready::NONE).unwrap();
        let counts = [(); 2].map(|()| Arc::new(Count::default()));
        let woken = || counts.each_ref().map(|c| c.0.load(Ordering::Relaxed));
        for (place, count) in [&place, &second].iter().zip(&counts) {
            let waker = Waker::from(count.clone());
            let mut cx = Context::from_waker(&waker);
            assert!(place.poll_ready(&mut cx, Ready::READ).is_pending());
        }
        let mut pass = async |time| {
            tokio::select! {
                () = &mut ringing => {}
                () = tokio::time::sleep(time) => {}
            }
        };
        pass(SOON * 3).await;
        place.ask_soon();
        second.ask_soon();
        assert!(!place.is_soon());
        pass(SOON / 2).await;
        second.forget_soon();
        assert_eq!(woken(), [0, 0]);
        pass(SOON * 2).await;
        assert_eq!(woken(), [1, 0]);
        assert!(place.is_soon());
        assert!(!second.is_soon());
        pass(SOON * 3).await;
        assert_eq!(woken(), [1, 0]);
        // One that is closed meanwhile leaves nothing to the next in its place.
        place.ask_soon();
        let key = place.key;
        drop((place, socket));
        let (socket, _other) = UnixStream::pair().unwrap();
        let next = reactor.add(&socket, Ready::NONE).unwrap();
        assert_eq!(next.key, key);
        pass(SOON * 3).await;
        assert!(!next.is_soon());
    }

    #[tokio::test]
    async fn an_end_stays_whatever_is_read() {
        let (reactor, _running) = Reactor::start().unwrap();
        let (socket, _other) = UnixStream::pair().unwrap();
        let place = reactor.add(&socket, Ready::NONE).unwrap();
        reactor.tell(&[event(0, 0, EventFlags::IN | EventFlags::RDHUP)]);
        place.clear(Ready::READ);
        assert!(place.is_ready(Ready::READ));
        assert!(!place.is_ready(Ready::WRITE));
        assert!(!place.is_ready(Ready::ERROR));
        reactor.tell(&[event(0, 0, EventFlags::HUP | EventFlags::ERR)]);
        place.clear(Ready::BOTH);
        assert!(place.is_ready(Ready::WRITE));
        assert!(place.is_ready(Ready::ERROR));
    }

    #[tokio::test]
    async fn what_is_told_of_one_that_was_closed_is_not_the_next_ones() {
        let (reactor, _running) = Reactor::start().unwrap();
        let (socket, other) = UnixStream::pair().unwrap();
        let first = reactor.add(&socket, Ready::BOTH).unwrap();
        drop((first, socket));
        let second = reactor.add(&other, Ready::NONE).unwrap();
        assert_eq!(second.key, 0);
        reactor.tell(&[event(0, 0, EventFlags::IN)]);
        assert!(!second.is_ready(Ready::BOTH));
        reactor.tell(&[event(0, 1, EventFlags::IN), event(7, 0, EventFlags::IN)]);
        assert!(second.is_ready(Ready::READ));
    }
}
