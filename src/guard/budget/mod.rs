//! How many attempts beside the first one an upstream may get: a budget for retries and hedges.
//!
//! Finagle's `RetryBudget` (defaults: 20 % of the requests, at least 10 a second, tokens live for
//! 10 s; `TpsBudget` of tower has the same shape): with retries limited by a count for each request
//! an outage multiplies the load, with a share of all requests it adds that share. As there, what is
//! withdrawn counts against the exchanges of ten seconds and is forgotten after ten: what was saved
//! before an outage may be spent at once, because what breaks as an endpoint dies is a burst, and is
//! missing in the next ten seconds. Hence, for any ten seconds and for any longer time `T` there is:
//! - withdrawals in ten seconds <= ratio x exchanges in the ten before the last of them + floor x 20 s,
//! - withdrawals in `T` <= ratio x exchanges in (`T` and the 10 s before it) + floor x (`T` + 10 s).
//!
//! Departures:
//! - No deposits. Both write a shared counter with each request; here the caller has a cumulative
//!   count of exchanges anyway, and what was added since the last look is the deposit. A look that
//!   is late cannot know when the exchanges in between were, so they count as of the look before,
//!   the earliest they can have been. [`Budget::note`], once a second, keeps that from mattering.
//! - Time is in seconds, and both roundings are on the safe side: exchanges live for 9 to 10 s,
//!   withdrawals for 10 to 11. An outage that lasts gets 0.9 to 1 of the share for it.
//! - What is deposited are exchanges, and a withdrawal costs 1 / ratio of them: routes with
//!   different ratios share one upstream's budget, and the bound holds with the greatest of them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::base::clock::Nanos;

/// The budget of one upstream; shared by workers. Behind a lock: it is asked only when something
/// has failed or is late.
#[derive(Debug)]
pub struct Budget {
    /// Time that one attempt of the floor takes to come back; `None` = no floor.
    floor_cost: Option<Nanos>,
    purse: Mutex<Purse>,
}

#[derive(Debug)]
struct Purse {
    /// Time and cumulative exchanges of the last look.
    last: Option<(Nanos, u64)>,
    /// The exchanges of each second, in [`UNIT`]s; the second modulo [`SLOTS`].
    deposits: [u64; SLOTS as usize],
    /// What was withdrawn in each second, in the same; modulo one more.
    withdrawn: [u64; SLOTS as usize + 1],
    /// Time the floor has had to come back, at most [`LIFE`].
    floor_credit: Nanos,
}

const SECOND: Nanos = 1_000_000_000;

/// Seconds that a deposit lives (Finagle's default); the last of them only to its end, so that none
/// is older: 9 s to 10 s.
const SLOTS: u64 = 10;

const LIFE: Nanos = SLOTS * SECOND;

/// Parts of an exchange: the cost of a withdrawal is rounded to one, less than a millionth of it,
/// and 2^44 exchanges in a second fit.
const UNIT: u64 = 1 << 20;

// === impl Budget ===

impl Budget {
    /// A budget that grants `floor_per_second` whatever the traffic.
    ///
    /// It starts with ten seconds of the floor, as after any quiet time, and as Finagle's and
    /// tower's do: just started, there are no exchanges yet that could pay for the first failures.
    /// It does not need more: the bound above holds from the start.
    pub fn new(floor_per_second: u32) -> Self {
        let floor = u64::from(floor_per_second);
        Self {
            // Rounded up: never more than the floor. More than 10^9 a second is 10^9.
            floor_cost: (floor > 0).then(|| SECOND.div_ceil(floor)),
            purse: Mutex::new(Purse {
                last: None,
                deposits: [0; SLOTS as usize],
                withdrawn: [0; SLOTS as usize + 1],
                floor_credit: LIFE,
            }),
        }
    }

    /// Asks for one more attempt at `now`; false = there must be none.
    ///
    /// `exchanges` is the cumulative number of exchanges of the upstream, each counted once however
    /// many attempts it had; the sum of counters that are read at different times may go back a
    /// little. `ratio` is what each adds to the budget, that of the route that asks. Ask when there
    /// is an endpoint to try: what is withdrawn is gone.
    pub fn withdraw(&self, exchanges: u64, ratio: f64, now: Nanos) -> bool {
        let mut purse = self.lock();
        purse.look(exchanges, now);
        // Deposits first: they expire, the floor comes back.
        cost(ratio).is_some_and(|cost| purse.take(cost))
            || self.floor_cost.is_some_and(|cost| purse.take_floor(cost))
    }

    /// Looks at the count of exchanges, so that they count as of now and not as of the last look.
    /// Once a second from one place is enough.
    pub fn note(&self, exchanges: u64, now: Nanos) {
        self.lock().look(exchanges, now);
    }

    /// How many withdrawals in a row would be granted at `now`.
    pub fn balance(&self, exchanges: u64, ratio: f64, now: Nanos) -> u64 {
        let mut purse = self.lock();
        purse.look(exchanges, now);
        let deposited = cost(ratio).map_or(0, |cost| purse.left() / cost);
        let floor = self.floor_cost.map_or(0, |cost| purse.floor_credit / cost);
        deposited.saturating_add(floor)
    }

    fn lock(&self) -> MutexGuard<'_, Purse> {
        // Any state of the purse is a valid one.
        self.purse.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Purse ===

impl Purse {
    /// Brings everything to `now`.
    fn look(&mut self, exchanges: u64, now: Nanos) {
        let Some((then, before)) = self.last else {
            // What was before the first look may be of any time: it pays for nothing.
            self.last = Some((now, exchanges));
            return;
        };
        // Clocks and counts of other threads may be a little behind.
        let (now, exchanges) = (now.max(then), exchanges.max(before));
        self.last = Some((now, exchanges));
        self.floor_credit = self.floor_credit.saturating_add(now - then).min(LIFE);
        let (then, now) = (then / SECOND, now / SECOND);
        // What is older than the slots is forgotten once.
        for second in (then + 1..=now).take(SLOTS as usize + 1) {
            self.withdrawn[(second % (SLOTS + 1)) as usize] = 0;
        }
        if now - then >= SLOTS {
            self.deposits = [0; SLOTS as usize];
            return;
        }
        for second in then + 1..=now {
            self.deposits[(second % SLOTS) as usize] = 0;
        }
        let new = (exchanges - before).saturating_mul(UNIT);
        let slot = &mut self.deposits[(then % SLOTS) as usize];
        *slot = slot.saturating_add(new);
    }

    /// What the exchanges still pay for.
    fn left(&self) -> u64 {
        let sum = |parts: &[u64]| parts.iter().fold(0, |sum: u64, p| sum.saturating_add(*p));
        sum(&self.deposits).saturating_sub(sum(&self.withdrawn))
    }

    /// Takes `cost` from what is left, or nothing.
    fn take(&mut self, cost: u64) -> bool {
        if self.left() < cost {
            return false;
        }
        let current = self.last.map_or(0, |(now, _)| now / SECOND);
        let slot = &mut self.withdrawn[(current % (SLOTS + 1)) as usize];
        *slot = slot.saturating_add(cost);
        true
    }

    fn take_floor(&mut self, cost: Nanos) -> bool {
        let left = self.floor_credit.checked_sub(cost);
        self.floor_credit = left.unwrap_or(self.floor_credit);
        left.is_some()
    }
}

/// What a withdrawal costs in [`UNIT`]s of exchanges; `None` = exchanges pay for nothing.
fn cost(ratio: f64) -> Option<u64> {
    // A ratio of 10^-13 costs more than the slots can hold: the conversion saturates.
    (ratio > 0.0).then(|| ((UNIT as f64 / ratio).round() as u64).max(1))
}

#[cfg(test)]
mod tests;
