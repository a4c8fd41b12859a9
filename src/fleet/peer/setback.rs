//! A wall clock that was wrong and is set right.
//!
//! While it is ahead, what is said here bears stamps of times to come, which others refuse; once it is right again
//! they would go on to refuse what is said until that time has come. So it is said again, with the stamps that it
//! should have had: it does not win over what others said since. That a clock went back does not say which of the
//! two times is right. That others agree with it now does.
//!
//! A clock that was behind at the start makes this peer seem to know since long ago what the fleet says.

use std::time::Duration;

use crate::fleet::Now;
use crate::fleet::fact::Fact;
use crate::fleet::stamp::{HybridClock, Stamp};

use super::Peer;

/// How far the wall clock was set back.
#[derive(Debug)]
pub(super) struct Setback {
    last: Now,
    by_ms: u64,
    /// When it last went back.
    at: u64,
}

// === impl Setback ===

impl Setback {
    pub(super) fn new(now: Now) -> Self {
        Self {
            last: now,
            by_ms: 0,
            at: now.now,
        }
    }

    /// Compares the two clocks of this machine; how far the wall clock leapt ahead, in milliseconds.
    pub(super) fn notice(&mut self, now: Now, at_least: Duration) -> u64 {
        let passed_ms = now.now.saturating_sub(self.last.now) / 1_000_000;
        let expected = self.last.unix_ms.saturating_add(passed_ms);
        let back_ms = expected.saturating_sub(now.unix_ms);
        let ahead_ms = now.unix_ms.saturating_sub(expected);
        let is_step = |by_ms: u64| u128::from(by_ms) > at_least.as_millis();
        if is_step(back_ms) {
            self.by_ms = self.by_ms.saturating_add(back_ms);
            self.at = now.now;
        } else if is_step(ahead_ms) {
            self.by_ms = self.by_ms.saturating_sub(ahead_ms);
            self.at = now.now;
        }
        self.last = now;
        if is_step(ahead_ms) { ahead_ms } else { 0 }
    }
}

// === impl Peer ===

impl Peer {
    /// Whatever is said from now on is said after all that is known.
    pub(super) fn hear_all(&mut self, now: Now) {
        self.clock = HybridClock::default();
        for fact in self.facts.iter() {
            // What is of a time yet to come is not heard.
            let _ = self
                .clock
                .hear(fact.stamp, now.unix_ms, self.max_clock_skew);
        }
    }

    /// The clock leapt ahead, so this peer began that much later than it says. What it knows from others it knows
    /// since then all the same.
    pub(super) fn began_later(&mut self, by_ms: u64, now: Now) {
        let about = &mut self.about;
        let knows_by_itself = about.knows_since_unix_ms == about.started_unix_ms;
        about.started_unix_ms = about.started_unix_ms.saturating_add(by_ms);
        if knows_by_itself {
            about.knows_since_unix_ms = about.started_unix_ms;
        }
        self.introduce(now);
    }

    /// Once others agree with this clock: what this peer said by a clock that was ahead, it says at its time.
    pub(super) fn mend_clock(&mut self, now: Now) {
        if !self.is_agreed() {
            return;
        }
        // It began by a clock that was ahead: it would seem to know nothing until then, to itself after a restart too.
        let about = &mut self.about;
        about.started_unix_ms = about.started_unix_ms.min(now.unix_ms);
        about.knows_since_unix_ms = about.knows_since_unix_ms.min(now.unix_ms);
        let by_ms = std::mem::take(&mut self.setback.by_ms);
        let last = Stamp::at(
            now.unix_ms
                .saturating_add(self.max_clock_skew.as_millis() as u64),
        );
        let is_ahead = |fact: &&Fact| fact.origin == self.me && fact.stamp > last;
        let mut ahead: Vec<Fact> = self.facts.iter().filter(is_ahead).cloned().collect();
        if ahead.is_empty() && by_ms == 0 {
            return;
        }
        ahead.sort_by_key(|fact| fact.stamp);
        for fact in &ahead {
            self.facts.take_out(&fact.key);
        }
        self.hear_all(now);
        for mut fact in ahead {
            fact.stamp = fact.stamp.earlier(by_ms);
            if fact.stamp > last {
                // It was ahead when this process began: nobody knows by how much.
                fact.stamp = self.clock.next(now.unix_ms);
            }
            self.facts.merge(fact.clone(), now.unix_ms);
            self.note_news(&fact, None, now);
        }
        self.hear_all(now);
    }

    /// Of those who are there and were heard since the clock last changed, most agree with it.
    fn is_agreed(&self) -> bool {
        let heard = self.live.keys().filter_map(|peer| self.contacts.get(peer));
        let heard = heard.filter(|contact| contact.at > self.setback.at);
        let (agree, differ): (Vec<_>, Vec<_>) =
            heard.partition(|contact| !self.is_skewed(contact.skew_ms));
        agree.len() > differ.len()
    }
}
