//! A client and an endpoint, joined: both directions, and the time that they have.

use std::task::{Context, Poll};
use std::time::Duration;

use crate::base::clock::{Nanos, nanos};
use crate::base::stream::Stream;
use crate::base::timer::Timer;
use crate::telemetry::reason::Reason;

use super::owed::Owed;
use super::pump::Pump;
use super::splice::Side;
use super::worker::Worker;

/// Both directions of two connections that are joined.
#[derive(Debug)]
pub(super) struct Pair {
    /// From the client to the endpoint.
    pub up: Pump,
    /// From the endpoint to the client.
    pub down: Pump,
    patience: Patience,
    owed: Owed,
    /// What had moved when that was last looked at.
    progress: u64,
    /// When something last moved, or ended, to the tick.
    active_at: Nanos,
    /// When a side that nobody reads from was last looked after.
    looked_at: Nanos,
    /// Some of what was read cannot be written for now.
    is_stuck: bool,
    /// Whether the kernel asks the endpoint from time to time whether it is still there.
    is_kept_alive: bool,
    /// Who was found to have reset it by writing to him. What he had said before is still passed on.
    fault: Option<Reason>,
}

/// How long nothing may move.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// While both directions are open; `Nanos::MAX` = for ever.
    pub idle: Nanos,
    /// Once one of them has ended.
    pub half_closed: Nanos,
}

/// Once it has been quiet for so long the kernel asks the endpoint whether it is there, so that one which went
/// without a word is found, however long a connection may be silent. (Clients are asked too: their sockets
/// have that from the one that listens.) Short connections never need it, and do not pay for it. NATs and
/// firewalls forget connections after a few minutes.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// How often those are looked after whom nobody reads from: while what they said cannot be passed on, and once
/// they have ended their direction. A reset of theirs is told to nobody who does not write to them; asking
/// costs a system call.
const LOOK: Duration = Duration::from_secs(1);

// === impl Pair ===

impl Pair {
    pub(super) fn new(
        (up, down): (Pump, Pump),
        patience: Patience,
        owed: Owed,
        timer: &Timer,
        now: Nanos,
    ) -> Self {
        let pair = Self {
            up,
            down,
            patience,
            owed,
            progress: 0,
            active_at: now,
            looked_at: now,
            is_stuck: false,
            is_kept_alive: false,
            fault: None,
        };
        pair.arm(timer);
        pair
    }

    /// Moves what can be moved; ready when there is nothing more to come: why, if it is a fault. `is_cut` says
    /// that its time is over.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        timer: &Timer,
        (client, endpoint): (&mut Stream, &mut Stream),
        is_cut: bool,
    ) -> Poll<Option<Reason>> {
        let was_half = self.is_half();
        let (up, down) = (&mut self.up, &mut self.down);
        match up.poll(cx, worker, client, endpoint, down.is_done) {
            Ok(()) => {}
            Err((Side::Read, _)) => return Poll::Ready(self.fault.or(Some(Reason::ClientGone))),
            // It may have said something before, which lies here unread.
            Err((Side::Write, _)) => {
                self.fault.get_or_insert(Reason::EndpointReset);
                up.give_up(worker);
            }
        }
        match down.poll(cx, worker, endpoint, client, up.is_done) {
            Ok(()) => {}
            Err((Side::Read, _)) => return Poll::Ready(self.fault.or(Some(Reason::EndpointReset))),
            Err((Side::Write, _)) => {
                self.fault.get_or_insert(Reason::ClientGone);
                down.give_up(worker);
                // What it said before is read now, if its endpoint takes it.
                cx.waker().wake_by_ref();
            }
        }
        if up.is_done && down.is_done {
            return Poll::Ready(self.verdict());
        }
        self.owed.settle(client, endpoint, up, down);
        if is_cut {
            return Poll::Ready(Some(Reason::Draining));
        }
        let moved = up.moved + down.moved;
        let is_stuck = up.holds_bytes() || down.holds_bytes();
        if moved != self.progress || self.is_half() != was_half {
            self.progress = moved;
            // Messages come by the thousand in a tick: once is enough.
            let now = worker.timers.present();
            if now != self.active_at || is_stuck != self.is_stuck || self.is_half() != was_half {
                self.active_at = now;
                self.is_stuck = is_stuck;
                self.arm(timer);
            }
        } else if is_stuck != self.is_stuck {
            self.is_stuck = is_stuck;
            self.looked_at = worker.clock.now();
            self.arm(timer);
        }
        while timer.has_expired(cx) {
            let now = worker.clock.now();
            let quiet = now.saturating_sub(self.active_at);
            if quiet >= self.allowed() {
                return Poll::Ready(self.fault.or(Some(Reason::ClientIdle)));
            }
            if !self.is_kept_alive && quiet >= nanos(KEEPALIVE) {
                self.is_kept_alive = true;
                endpoint.keep_alive(KEEPALIVE);
            }
            if let Some(reason) = self.look_after(worker, client, endpoint) {
                return Poll::Ready(Some(reason));
            }
            if self.up.is_done && self.down.is_done {
                return Poll::Ready(self.verdict());
            }
            self.looked_at = now;
            self.arm(timer);
        }
        // A stream of HTTP/2 tells by itself.
        if self.up.holds_bytes() && client.channel().is_some_and(|c| c.poll_gone(cx).is_ready()) {
            return Poll::Ready(Some(Reason::ClientGone));
        }
        Poll::Pending
    }

    /// Finds out who has gone without a word that anybody here waits for: one whose bytes lie here, or one who
    /// had ended his direction before.
    fn look_after(
        &mut self,
        worker: &Worker,
        client: &Stream,
        endpoint: &Stream,
    ) -> Option<Reason> {
        if self.up.is_done && !self.down.is_done && client.is_reset() {
            self.down.give_up(worker);
        } else if self.down.is_done && !self.up.is_done && endpoint.is_reset() {
            self.up.give_up(worker);
        }
        // Its endpoint does not read, and what it wants is moot.
        if self.up.holds_bytes() && !self.down.is_done && client.is_reset() {
            return Some(Reason::ClientGone);
        }
        // What an endpoint said before is for the client to hear, however slowly.
        None
    }

    /// How it ended, once both directions have.
    fn verdict(&self) -> Option<Reason> {
        // It had more to hear than it wanted to. An endpoint may: its client needs the answer alone.
        let is_gone = self.down.is_deaf.then_some(Reason::ClientGone);
        self.fault.or(is_gone)
    }

    /// Whether both connections may simply be closed when it has ended for `reason`: otherwise they are to
    /// be reset, so that nobody takes what came for all of it.
    pub(super) fn ends_quietly(&self, reason: Option<Reason>) -> bool {
        match reason {
            None => true,
            Some(Reason::ClientIdle) => !self.up.holds_bytes() && !self.down.holds_bytes(),
            // It ended its direction first, and all of that was passed on.
            Some(Reason::ClientGone) => self.down.is_deaf && self.fault.is_none(),
            Some(_) => false,
        }
    }

    /// Gives back what is borrowed, and counts what went which way.
    pub(super) fn release(&mut self, worker: &Worker) {
        let cells = worker.cells();
        for pump in [&mut self.up, &mut self.down] {
            cells.spliced_bytes.add(pump.spliced);
            cells.copied_bytes.add(pump.moved - pump.spliced);
            pump.release(worker);
        }
    }

    fn is_half(&self) -> bool {
        self.up.is_done || self.down.is_done
    }

    /// For how long it may be quiet.
    fn allowed(&self) -> Nanos {
        if self.is_half() {
            self.patience.idle.min(self.patience.half_closed)
        } else {
            self.patience.idle
        }
    }

    /// Waits for the next thing that time brings.
    fn arm(&self, timer: &Timer) {
        let mut at = self.active_at.saturating_add(self.allowed());
        if !self.is_kept_alive {
            at = at.min(self.active_at.saturating_add(nanos(KEEPALIVE)));
        }
        if self.is_stuck || self.is_half() {
            let since = self.looked_at.max(self.active_at);
            at = at.min(since.saturating_add(nanos(LOOK)));
        }
        if at == Nanos::MAX {
            timer.disarm();
        } else {
            timer.arm(at);
        }
    }
}
