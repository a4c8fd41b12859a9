//! Who is there: foca (SWIM with suspicion; Das, Gupta, Motivala, "SWIM: Scalable Weakly-consistent Infection-style
//! Process Group Membership Protocol", 2002) as a machine without sockets, clocks or chance of its own.
//!
//! What comes in is handed to [`Membership::datagram`], the time to [`Membership::wake`] when
//! [`Membership::wake_at`] has come, and after each call everything is taken out with [`Membership::poll`]. Who
//! drives it reads what waits in its socket before it wakes it: a loop that stood still would otherwise judge
//! others by its own absence. (If it does not, the stall is noticed and forgiven all the same: see `timers`.)
//!
//! Foca leaves to us: a peer that lost all others looks for them again at its seeds and where they were; a fleet
//! that fell apart grows together, since everybody knocks at those that are gone; a peer is one peer though it
//! moves or starts again; who leaves is told from who died; whom nobody suspects any longer is no suspect; memory
//! is bounded.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use foca::{Foca, NoCustomBroadcast, OwnedNotification, State, Timer};

mod doubts;
mod effects;
mod identity;
mod out;
mod seek;
mod settings;
#[cfg(test)]
mod tests;
mod timers;
mod view;

pub use self::identity::Identity;
pub use self::out::{Counts, Liveness, Out, Refused};
pub use self::timers::Stalls;

use self::doubts::Doubts;
use self::effects::{Chance, Effects};
use self::identity::{LEFT, Wire};
use self::seek::Seek;
use self::settings::{MAX_DOWN, SHORTEST, SMALLEST, config};
use self::timers::{Due, Timers};
use self::view::{Change, View};
use crate::base::clock::{Nanos, nanos};
use crate::base::rng::Rng;
use crate::fleet::id::PeerId;

/// One peer's knowledge of who is there.
pub struct Membership {
    foca: Foca<Identity, Wire, Chance, NoCustomBroadcast>,
    effects: Effects,
    timers: Timers,
    view: View,
    out: VecDeque<Out>,
    rng: Rng,
    /// Largest datagram.
    payload: NonZeroUsize,
    /// How many peers foca's settings are made for.
    size: u32,
    seeds: Vec<SocketAddr>,
    seek: Seek,
    doubts: Doubts,
    /// Who is down and when that is forgotten, the oldest first.
    downs: VecDeque<(Nanos, Identity)>,
    /// When this peer last took a new identity, and how many times in quick succession.
    renewed_at: Option<Nanos>,
    renewed_in_a_row: u32,
    has_left: bool,
    counts: Counts,
}

/// A second new identity within this time was refused as the first was: others remember a life that began
/// later than this one (a clock that was ahead when it began).
const IN_A_ROW: Duration = Duration::from_secs(10);

// === impl Membership ===

impl Membership {
    /// A member that knows nobody. `payload` is the largest datagram in bytes, at least 256; whatever depends on
    /// chance depends on `seed` only.
    pub fn new(me: Identity, seed: u64, payload: usize, now: Nanos) -> Self {
        let payload = NonZeroUsize::new(payload).map_or(SHORTEST, |payload| payload.max(SHORTEST));
        let mut rng = Rng::new(seed);
        let chance = Chance(Rng::new(rng.next_u64()));
        let size = SMALLEST;
        let wire = Wire { here: me.addr };
        let mut member = Self {
            foca: Foca::new(me, config(size, payload), chance, wire),
            effects: Effects::default(),
            timers: Timers::default(),
            view: View::of(me.peer),
            out: VecDeque::new(),
            rng,
            payload,
            size,
            seeds: Vec::new(),
            seek: Seek::default(),
            doubts: Doubts::default(),
            downs: VecDeque::new(),
            renewed_at: None,
            renewed_in_a_row: 0,
            has_left: false,
            counts: Counts::default(),
        };
        member.seek_afresh(now);
        member
    }

    /// Who this is: as it was made, or later, since others held it to be down.
    pub fn me(&self) -> Identity {
        *self.foca.identity()
    }

    /// Whom to ask for the others; asked at the next [`wake`](Self::wake) if this peer is alone.
    pub fn set_seeds(&mut self, seeds: Vec<SocketAddr>, now: Nanos) {
        self.seeds = seeds;
        if self.is_alone() && !self.has_left {
            self.seek_afresh(now);
        }
    }

    /// Asks whoever is at `addr` for the others.
    pub fn announce(&mut self, addr: SocketAddr, now: Nanos) {
        self.timers.notice(now);
        if addr != self.me().addr && !self.has_left {
            let result = self
                .foca
                .announce(Identity::somebody(addr), &mut self.effects);
            self.took(&result, now);
        }
    }

    /// Takes what another peer sent.
    ///
    /// # Errors
    /// It is refused, and nothing has changed.
    pub fn datagram(&mut self, payload: &[u8], now: Nanos) -> Result<(), Refused> {
        self.timers.notice(now);
        if self.has_left {
            // Foca would take the echo of its own farewell for slander, and come back.
            return Err(Refused::Left);
        }
        let result = self.foca.handle_data(payload, &mut self.effects);
        self.after(now);
        let refused = match result {
            Ok(()) => return Ok(()),
            Err(foca::Error::DataTooBig) => Refused::TooLong,
            // Not counted: a seed may be this very peer under another name.
            Err(foca::Error::DataFromOurselves) => return Err(Refused::OwnAddress),
            Err(_) => Refused::Malformed,
        };
        self.counts.refused += 1;
        Err(refused)
    }

    /// When [`wake`](Self::wake) is to be called next; never again after it has left.
    pub fn wake_at(&self) -> Option<Nanos> {
        self.timers.next_at()
    }

    /// Does what is due.
    pub fn wake(&mut self, now: Nanos) {
        self.timers.notice(now);
        while let Some(due) = self.timers.pop(now) {
            match due {
                Due::Foca(timer) => {
                    let result = self.foca.handle_timer(timer, &mut self.effects);
                    self.took(&result, now);
                }
                Due::Seek(number) if number == self.seek.number => {
                    self.end_doubts(now);
                    self.look_around(now);
                }
                Due::Seek(_) => {}
            }
        }
    }

    /// Tells others that this peer goes. What is to be sent then is the last of it.
    pub fn leave(&mut self, now: Nanos) {
        if self.has_left {
            return;
        }
        let result = self.foca.leave_cluster(&mut self.effects);
        self.took(&result, now);
        // Nine are told, not three: none of them is asked whether it heard.
        for _ in 0..2 {
            let result = self.foca.gossip(&mut self.effects);
            self.took(&result, now);
        }
        self.has_left = true;
        self.timers.clear();
    }

    /// The next of what is to be done and of what has changed.
    pub fn poll(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    /// The other peers that are there, in no order.
    pub fn members(&self) -> impl Iterator<Item = (Identity, Liveness)> {
        let counts = |id: &Identity| self.view.life(id.peer) == Some(*id);
        let members = self.foca.iter_members().filter(move |m| counts(m.id()));
        members.map(|m| match m.state() {
            State::Alive => (*m.id(), Liveness::Alive),
            State::Suspect | State::Down => (*m.id(), Liveness::Suspect),
        })
    }

    /// Another peer, if it is there.
    pub fn member(&self, peer: PeerId) -> Option<Identity> {
        self.view.life(peer)
    }

    /// How many other peers are there.
    pub fn len(&self) -> usize {
        self.view.len()
    }

    /// As [`is_alone`](Self::is_alone).
    pub fn is_empty(&self) -> bool {
        self.is_alone()
    }

    /// There is no other peer.
    pub fn is_alone(&self) -> bool {
        self.view.len() == 0
    }

    /// What went wrong so far.
    pub fn counts(&self) -> Counts {
        Counts {
            stalls: self.timers.stalls,
            ..self.counts
        }
    }

    /// Knows these from now on, as after a while with them.
    #[cfg(test)]
    pub(crate) fn meet(&mut self, others: impl Iterator<Item = Identity>, now: Nanos) {
        let others = others.map(foca::Member::alive);
        let result = self.foca.apply_many(others, false, &mut self.effects);
        self.took(&result, now);
    }

    /// After a call into foca that cannot fail.
    fn took(&mut self, result: &Result<(), foca::Error>, now: Nanos) {
        if result.is_err() {
            self.counts.faults += 1;
        }
        self.after(now);
    }

    /// Takes over what a call into foca wants and changed.
    fn after(&mut self, now: Nanos) {
        let mut was_slandered = false;
        let mut is_idle = false;
        let mut is_active = false;
        let me = self.me();
        for note in std::mem::take(&mut self.effects.notes) {
            match &note {
                OwnedNotification::MemberUp(id) | OwnedNotification::Rename(_, id)
                    // An earlier life at another address is no news, and no other peer either.
                    if id.peer == me.peer && id.incarnation >= me.incarnation =>
                {
                    self.out.push_back(Out::Twin(*id));
                }
                OwnedNotification::Rejoin(_) => was_slandered = true,
                OwnedNotification::Idle => is_idle = true,
                OwnedNotification::Active => is_active = true,
                _ => {}
            }
            self.view.note(&note);
        }
        self.send_and_schedule(now);
        self.tell();
        self.follow_size();
        if is_idle && !self.has_left {
            self.seek_afresh(now);
        }
        if is_active && !self.has_left {
            self.be_curious(now);
        }
        if was_slandered {
            self.come_back(now);
        }
    }

    fn send_and_schedule(&mut self, now: Nanos) {
        for (to, payload) in self.effects.sends.drain(..) {
            let to = to.addr;
            self.out.push_back(Out::Send { to, payload });
        }
        for (timer, after) in self.effects.timers.drain(..) {
            match timer {
                Timer::RemoveDown(id) => {
                    self.downs.push_back((now.saturating_add(nanos(after)), id));
                }
                timer => self.timers.add(Due::Foca(timer), after, now),
            }
        }
        while self.downs.len() > MAX_DOWN {
            self.forget_down(now);
        }
    }

    fn forget_down(&mut self, now: Nanos) {
        if let Some((_, id)) = self.downs.pop_front() {
            let result = self
                .foca
                .handle_timer(Timer::RemoveDown(id), &mut self.effects);
            self.counts.faults += u64::from(result.is_err());
            debug_assert!(self.effects.timers.is_empty(), "nothing follows at {now}");
        }
    }

    fn tell(&mut self) {
        for change in self.view.changes() {
            let out = match change {
                Change::Up(id) => Out::Up(id),
                Change::Renewed { from, to } => Out::Renewed { from, to },
                Change::Down(peer) => {
                    let mut all = self.foca.iter_membership_state();
                    let known = all.find(|m| *m.id() == peer);
                    let left = known.is_some_and(|m| m.incarnation() == LEFT);
                    Out::Down { peer, left }
                }
            };
            self.out.push_back(out);
        }
    }

    /// Suspicion and gossip last longer in a larger fleet. Back only at a quarter, so that half a fleet that is
    /// cut off keeps its patience.
    fn follow_size(&mut self) {
        let live = u32::try_from(self.foca.num_members() + 1).unwrap_or(u32::MAX >> 1);
        if live > self.size || (live < self.size / 4 && self.size > SMALLEST) {
            self.size = live.next_power_of_two().max(SMALLEST);
            let result = self.foca.set_config(config(self.size, self.payload));
            self.counts.faults += u64::from(result.is_err());
        }
    }

    /// Others held this peer to be down, foca took a new identity, and has told a few. They do not answer to
    /// that, so they are asked as well.
    fn come_back(&mut self, now: Nanos) {
        self.counts.rejoined += 1;
        let last = self.renewed_at.replace(now);
        let is_again = last.is_some_and(|last| now.saturating_sub(last) < nanos(IN_A_ROW));
        self.renewed_in_a_row = if is_again {
            self.renewed_in_a_row + 1
        } else {
            0
        };
        if self.renewed_in_a_row > 0 {
            let by = 1000_u64.saturating_mul(1 << self.renewed_in_a_row.min(40));
            let later = self.me().later(by);
            let result = self.foca.change_identity(later, &mut self.effects);
            self.counts.faults += u64::from(result.is_err());
            self.send_and_schedule(now);
        }
        self.out.push_back(Out::Rejoined(self.me()));
        for id in self.some_of(3, State::Alive) {
            self.announce(id.addr, now);
        }
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership")
            .field("me", &self.me())
            .field("len", &self.len())
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}
