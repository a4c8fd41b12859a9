//! Whom a membership asks of its own accord: the seeds, those that were there, and while it is new, anybody.

use std::net::SocketAddr;
use std::time::Duration;

use foca::State;

use super::Membership;
use super::identity::Identity;
use super::timers::Due;
use crate::base::clock::{Nanos, nanos};
use crate::base::rng::Rng;

/// What is remembered from one look around to the next.
#[derive(Debug, Default)]
pub(super) struct Seek {
    /// The number of the last [`Due::Seek`].
    pub(super) number: u64,
    /// How many in a row found nobody.
    in_vain: u32,
    /// Until when it asks around who else is there, as long as that brings news.
    curious_until: Nanos,
    /// How many it knew when it last asked, and how many times in a row there was no news.
    knew: usize,
    no_news: usize,
}

/// How often somebody at a seed's address is asked who is not known from there: two halves of a fleet that
/// never knew each other meet by this.
const SEEK_EVERY: Duration = Duration::from_secs(30);

/// How often a peer that is alone looks for others, at first and after [`EAGER`] times in vain.
const SEEK_AT_FIRST: Duration = Duration::from_secs(1);
const SEEK_ALONE: Duration = Duration::from_secs(5);
const EAGER: u32 = 10;

/// An answer names some [`NAMED`] others, drawn at random. A peer of a large fleet asks one after the other, for a
/// minute at most, until as many as name everybody once, and four more, brought no news.
const ASK_EVERY: Duration = Duration::from_millis(500);
const CURIOUS_FOR: Duration = Duration::from_secs(60);
const NO_NEWS: usize = 4;
const NAMED: usize = 48;

/// Seeds that are asked at once.
const SEEDS_AT_ONCE: usize = 4;

impl Membership {
    /// Asks whom it is time to ask, and says when it is time again.
    pub(super) fn look_around(&mut self, now: Nanos) {
        while self.downs.front().is_some_and(|(at, _)| *at <= now) {
            self.forget_down(now);
        }
        let me = self.me().addr;
        let is_there = |addr| self.foca.iter_members().any(|m| m.id().addr == addr);
        let mut whom: Vec<SocketAddr> = self.seeds.clone();
        whom.retain(|addr| *addr != me && !is_there(*addr));
        let after = if self.is_alone() {
            self.seek.in_vain += 1;
            shuffle(&mut whom, &mut self.rng);
            whom.truncate(SEEDS_AT_ONCE);
            whom.extend(self.some_of(2, State::Down).iter().map(|id| id.addr));
            if self.seek.in_vain <= EAGER {
                SEEK_AT_FIRST
            } else {
                SEEK_ALONE
            }
        } else if self.is_curious(now) {
            let some = self.some_of(1, State::Alive);
            whom = some.iter().map(|id| id.addr).collect();
            ASK_EVERY
        } else {
            self.seek.in_vain = 0;
            shuffle(&mut whom, &mut self.rng);
            whom.truncate(1);
            SEEK_EVERY
        };
        for addr in whom {
            self.announce(addr, now);
        }
        let jitter = 0.8 + 0.4 * self.rng.unit();
        self.seek_in(after.mul_f64(jitter), now);
    }

    /// Whoever it knows now is not all there are.
    pub(super) fn be_curious(&mut self, now: Nanos) {
        self.seek.curious_until = now.saturating_add(nanos(CURIOUS_FOR));
        self.seek.no_news = 0;
        self.seek_in(ASK_EVERY, now);
    }

    fn seek_in(&mut self, after: Duration, now: Nanos) {
        self.seek.number += 1;
        self.timers.add(Due::Seek(self.seek.number), after, now);
    }

    /// Up to `n` at random of those that foca holds to be down, or not to be.
    pub(super) fn some_of(&mut self, n: usize, state: State) -> Vec<Identity> {
        let wants_down = state == State::Down;
        let all = self.foca.iter_membership_state();
        let fitting = all.filter(|m| (m.state() == State::Down) == wants_down);
        let mut ids: Vec<Identity> = fitting.map(|m| *m.id()).collect();
        shuffle(&mut ids, &mut self.rng);
        ids.truncate(n);
        ids
    }

    /// At once, and eagerly.
    pub(super) fn seek_afresh(&mut self, now: Nanos) {
        self.seek.in_vain = 0;
        self.seek_in(Duration::ZERO, now);
    }

    fn is_curious(&mut self, now: Nanos) -> bool {
        let knew = self.seek.knew;
        self.seek.knew = self.len();
        self.seek.no_news = if self.seek.knew > knew {
            0
        } else {
            self.seek.no_news + 1
        };
        now < self.seek.curious_until && self.seek.no_news < NO_NEWS + self.seek.knew / NAMED
    }
}

/// Fisher and Yates.
fn shuffle<T>(items: &mut [T], rng: &mut Rng) {
    for last in (1..items.len()).rev() {
        items.swap(last, rng.below(last + 1));
    }
}
