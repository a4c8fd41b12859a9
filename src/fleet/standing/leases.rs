//! The leases of the endpoints that registered here: renewals cost nobody else anything.
//!
//! What an endpoint says of itself may change with each renewal, and the fleet hears of it. So that none of them,
//! and nobody who has a token, keeps the fleet busy, a change is said at once only if the last one was [`EVERY`] ago,
//! and all of them together are [`CHANGES_A_SECOND`]. One that comes sooner waits, and what is newest by then is
//! said. The endpoint is answered as if it had been: at its registrar its terms hold from then on.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use thiserror::Error;

use crate::base::addr::EndpointAddr;
use crate::base::clock::{Nanos, nanos};
use crate::config::Name;
use crate::guard::gcra::{Rate, Tat};

/// How often something else is said of one registration: renewals come every ten seconds, so who changes its weight
/// with each of them never waits.
pub const EVERY: Duration = Duration::from_secs(5);

/// Changes of all registrations together in a second, and at once: as many as may be new with one token.
pub const CHANGES_A_SECOND: u32 = 100;

/// Most leases of one registrar: as many as one upstream may have registered endpoints.
pub const MAX_LEASES: usize = 10_000;

/// The endpoints that registered at this peer, each until its lease ends.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    all: BTreeMap<(Name, EndpointAddr), Lease>,
    /// The same, by their ends.
    ends: BTreeSet<(Nanos, Name, EndpointAddr)>,
    /// Those whose terms have changed and are to be said, by when.
    waiting: BTreeSet<(Nanos, Name, EndpointAddr)>,
    /// When the next change of any may be said, as of the last one.
    pace: Tat,
    /// Until then none that waits is said.
    gate: Nanos,
    /// How long this peer has stood still: ends are in the time that it has seen.
    stalled: Nanos,
}

/// One endpoint that registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// As what.
    pub terms: Terms,
    /// In the time that this peer has seen.
    ends: Nanos,
    /// When its terms were said last.
    said_at: Nanos,
    /// When those of now will be.
    waits_until: Option<Nanos>,
}

/// As what an endpoint registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Its weight.
    pub weight: u32,
    /// Where it stands.
    pub zone: Option<Name>,
    /// How long it is a member without renewing that.
    pub ttl: Duration,
}

/// What became of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It is there with other terms: to be said.
    Changed,
    /// It is there with terms that are said [later](Leases::due).
    Later,
    /// It was not there: to be said.
    New,
    /// It lasts longer, and nobody else needs to know.
    Renewed,
}

/// There are [`MAX_LEASES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("this peer has {MAX_LEASES} registrations, the most there can be; register at another one")]
pub struct Full;

// === impl Leases ===

impl Leases {
    /// An endpoint registers, or renews that.
    ///
    /// # Errors
    /// [`Full`]; what is there is untouched.
    pub fn renew(
        &mut self,
        upstream: &Name,
        endpoint: &EndpointAddr,
        terms: Terms,
        now: Nanos,
    ) -> Result<Renewal, Full> {
        let ends = self.seen(now).saturating_add(nanos(terms.ttl));
        let is_full = self.all.len() >= MAX_LEASES;
        let key = (upstream.clone(), endpoint.clone());
        let at = |at| (at, upstream.clone(), endpoint.clone());
        let renewal = match self.all.entry(key) {
            Entry::Vacant(_) if is_full => return Err(Full),
            Entry::Vacant(vacant) => {
                vacant.insert(Lease {
                    terms,
                    ends,
                    said_at: now,
                    waits_until: None,
                });
                Renewal::New
            }
            Entry::Occupied(mut occupied) => {
                let lease = occupied.get_mut();
                self.ends.remove(&at(lease.ends));
                lease.ends = ends;
                let is_same = lease.terms == terms;
                lease.terms = terms;
                if lease.waits_until.is_some() {
                    Renewal::Later
                } else if is_same {
                    Renewal::Renewed
                } else {
                    match next_change(lease.said_at, &mut self.pace, now) {
                        None => {
                            lease.said_at = now;
                            Renewal::Changed
                        }
                        Some(until) => {
                            lease.waits_until = Some(until);
                            self.waiting.insert(at(until));
                            Renewal::Later
                        }
                    }
                }
            }
        };
        self.ends.insert(at(ends));
        Ok(renewal)
    }

    /// Takes out the changes that may be said by now, in their order.
    pub fn due(&mut self, now: Nanos) -> Vec<(Name, EndpointAddr, Terms)> {
        let mut due = Vec::new();
        while self.waiting.first().is_some_and(|(at, ..)| *at <= now) {
            match rate().decide(self.pace, now) {
                Ok(next) => self.pace = next,
                Err(wait) => {
                    self.gate = now.saturating_add(wait);
                    break;
                }
            }
            let Some((_, upstream, endpoint)) = self.waiting.pop_first() else {
                break;
            };
            if let Some(lease) = self.all.get_mut(&(upstream.clone(), endpoint.clone())) {
                lease.said_at = now;
                lease.waits_until = None;
                due.push((upstream, endpoint, lease.terms.clone()));
            }
        }
        due
    }

    /// When [`due`](Self::due) has something to take out next.
    pub fn next_due(&self) -> Option<Nanos> {
        let (at, ..) = self.waiting.first()?;
        Some((*at).max(self.gate))
    }

    /// An endpoint takes its registration back; whether there was one.
    pub fn end(&mut self, upstream: &Name, endpoint: &EndpointAddr) -> bool {
        let Some(lease) = self.all.remove(&(upstream.clone(), endpoint.clone())) else {
            return false;
        };
        self.forget(upstream, endpoint, &lease);
        let end = (lease.ends, upstream.clone(), endpoint.clone());
        self.ends.remove(&end)
    }

    /// Takes out the leases that have ended by `now`, the earliest first.
    pub fn expired(&mut self, now: Nanos) -> Vec<(Name, EndpointAddr)> {
        let seen = self.seen(now);
        let mut expired = Vec::new();
        while self.ends.first().is_some_and(|(at, ..)| *at <= seen) {
            let Some((_, upstream, endpoint)) = self.ends.pop_first() else {
                break;
            };
            let key = (upstream, endpoint);
            if let Some(lease) = self.all.remove(&key) {
                self.forget(&key.0, &key.1, &lease);
            }
            expired.push(key);
        }
        expired
    }

    /// When [`expired`](Self::expired) has something to take out next.
    pub fn next_end(&self) -> Option<Nanos> {
        let (at, ..) = self.ends.first()?;
        Some(at.saturating_add(self.stalled))
    }

    /// Notes that this peer stood still for so long: nobody could renew, so every lease lasts that much longer.
    pub fn stalled(&mut self, by: Duration) {
        self.stalled = self.stalled.saturating_add(nanos(by));
    }

    /// All of them, by upstream and endpoint: for saying them again. Also what a process that starts has to
    /// [`renew`](Self::renew), each for one `ttl` from then on.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &EndpointAddr, &Terms)> {
        let leases = self.all.iter();
        leases.map(|((upstream, endpoint), lease)| (upstream, endpoint, &lease.terms))
    }

    /// As what an endpoint is registered here.
    pub fn terms(&self, upstream: &Name, endpoint: &EndpointAddr) -> Option<&Terms> {
        let lease = self.all.get(&(upstream.clone(), endpoint.clone()))?;
        Some(&lease.terms)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// What was to be said of it is not.
    fn forget(&mut self, upstream: &Name, endpoint: &EndpointAddr, lease: &Lease) {
        if let Some(until) = lease.waits_until {
            let place = (until, upstream.clone(), endpoint.clone());
            self.waiting.remove(&place);
        }
    }

    /// `now` without the times that this peer stood still.
    fn seen(&self, now: Nanos) -> Nanos {
        now.saturating_sub(self.stalled)
    }
}

fn rate() -> Rate {
    Rate::new(CHANGES_A_SECOND, Duration::from_secs(1), CHANGES_A_SECOND)
}

/// Until when a change waits, if it does; if not, it counts.
fn next_change(said_at: Nanos, pace: &mut Tat, now: Nanos) -> Option<Nanos> {
    let next = said_at.saturating_add(nanos(EVERY));
    if now < next {
        return Some(next);
    }
    match rate().decide(*pace, now) {
        Ok(next) => {
            *pace = next;
            None
        }
        Err(wait) => Some(now.saturating_add(wait)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn addr(n: usize) -> EndpointAddr {
        let text = format!("10.0.{}.{}:80", n / 200, n % 200 + 1);
        EndpointAddr::Ip(text.parse().unwrap())
    }

    fn terms(weight: u32, seconds: u64) -> Terms {
        Terms {
            weight,
            zone: None,
            ttl: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn lease_ends_a_ttl_after_the_last_renewal() {
        let (mut leases, app) = (Leases::default(), "app".into());
        let renew = |leases: &mut Leases, n, terms, now| leases.renew(&app, &addr(n), terms, now);
        assert_eq!(renew(&mut leases, 1, terms(1, 30), 0), Ok(Renewal::New));
        assert_eq!(renew(&mut leases, 2, terms(1, 10), 0), Ok(Renewal::New));
        assert_eq!(leases.next_end(), Some(10 * SECOND));
        assert_eq!(
            renew(&mut leases, 2, terms(1, 10), 9 * SECOND),
            Ok(Renewal::Renewed)
        );
        assert_eq!(
            renew(&mut leases, 2, terms(5, 10), 9 * SECOND),
            Ok(Renewal::Changed)
        );
        assert!(leases.expired(19 * SECOND - 1).is_empty());
        assert_eq!(leases.expired(19 * SECOND), [("app".into(), addr(2))]);
        assert_eq!(
            renew(&mut leases, 2, terms(5, 10), 19 * SECOND),
            Ok(Renewal::New)
        );
        let all = leases.expired(100 * SECOND);
        assert_eq!(all, [("app".into(), addr(2)), ("app".into(), addr(1))]);
        assert!(leases.is_empty());
        assert_eq!(leases.next_end(), None);
    }

    #[test]
    fn of_changes_in_quick_succession_the_newest_is_said_in_time() {
        let (mut leases, app) = (Leases::default(), "app".into());
        let renew = |leases: &mut Leases, weight, at| {
            leases.renew(&app, &addr(1), terms(weight, 30), at * SECOND)
        };
        assert_eq!(renew(&mut leases, 1, 0), Ok(Renewal::New));
        assert_eq!(renew(&mut leases, 2, 1), Ok(Renewal::Later));
        assert_eq!(renew(&mut leases, 3, 2), Ok(Renewal::Later));
        assert_eq!(renew(&mut leases, 3, 3), Ok(Renewal::Later), "not said yet");
        assert_eq!(leases.next_due(), Some(5 * SECOND));
        assert!(leases.due(5 * SECOND - 1).is_empty());
        let due = leases.due(5 * SECOND);
        assert_eq!(due, [("app".into(), addr(1), terms(3, 30))]);
        assert_eq!(leases.next_due(), None);
        assert_eq!(renew(&mut leases, 3, 6), Ok(Renewal::Renewed));
        assert_eq!(renew(&mut leases, 4, 7), Ok(Renewal::Later));
        assert_eq!(leases.next_due(), Some(10 * SECOND));
        // It goes before that: there is nothing left to say.
        assert!(leases.end(&"app".into(), &addr(1)));
        assert_eq!(leases.next_due(), None);
        // Who changes seldom does not wait, and whose lease ends has nothing left to say either.
        assert_eq!(renew(&mut leases, 1, 20), Ok(Renewal::New));
        assert_eq!(renew(&mut leases, 2, 25), Ok(Renewal::Changed));
        assert_eq!(renew(&mut leases, 3, 29), Ok(Renewal::Later));
        assert_eq!(leases.expired(100 * SECOND).len(), 1);
        assert_eq!(leases.next_due(), None);
    }

    #[test]
    fn all_changes_together_keep_a_pace() {
        let (mut leases, app) = (Leases::default(), "app".into());
        let all = 1000;
        for n in 0..all {
            leases.renew(&app, &addr(n), terms(1, 3600), 0).unwrap();
        }
        // Each says something else, every second.
        let mut said = 0;
        let mut now = 10 * SECOND;
        for round in 0..20 {
            for n in 0..all {
                let weight = 2 + round;
                let renewal = leases.renew(&app, &addr(n), terms(weight, 3600), now);
                said += usize::from(renewal == Ok(Renewal::Changed));
            }
            let next = now + SECOND;
            while let Some(at) = leases.next_due().filter(|at| *at < next) {
                now = now.max(at);
                said += leases.due(now).len();
            }
            now = next;
        }
        let most = CHANGES_A_SECOND as usize;
        assert!((19 * most..=21 * most).contains(&said), "{said}");
        // They stop, and the newest of each is known in the end.
        let mut last = BTreeMap::new();
        while let Some(at) = leases.next_due() {
            now = now.max(at);
            for (_, endpoint, terms) in leases.due(now) {
                last.insert(endpoint, terms.weight);
            }
        }
        assert!(last.len() > all / 2 && last.values().all(|weight| *weight == 21));
        assert!(now < 45 * SECOND, "{now}");
    }

    #[test]
    fn deregistration_ends_it_once() {
        let (mut leases, app) = (Leases::default(), "app".into());
        leases.renew(&app, &addr(1), terms(3, 30), 0).unwrap();
        assert_eq!(leases.terms(&app, &addr(1)), Some(&terms(3, 30)));
        assert!(leases.end(&app, &addr(1)));
        assert!(!leases.end(&app, &addr(1)));
        assert_eq!(leases.terms(&app, &addr(1)), None);
        assert!(leases.expired(Nanos::MAX).is_empty());
    }

    /// Who stood still heard no renewals: nobody is to lose a lease by that.
    #[test]
    fn stall_lengthens_every_lease_by_itself() {
        let (mut leases, app) = (Leases::default(), "app".into());
        leases.renew(&app, &addr(1), terms(1, 10), 0).unwrap();
        leases.stalled(Duration::from_secs(12));
        assert!(leases.expired(22 * SECOND - 1).is_empty());
        assert_eq!(leases.next_end(), Some(22 * SECOND));
        // One that comes after it has no more than it asked for.
        leases
            .renew(&app, &addr(2), terms(1, 10), 13 * SECOND)
            .unwrap();
        assert_eq!(leases.expired(22 * SECOND).len(), 1);
        assert_eq!(leases.expired(23 * SECOND).len(), 1);
    }

    #[test]
    fn leases_are_bounded_and_those_that_are_there_are_renewed_all_the_same() {
        let (mut leases, app) = (Leases::default(), "app".into());
        for n in 0..MAX_LEASES {
            leases
                .renew(&app, &addr(n), terms(1, 10), n as Nanos)
                .unwrap();
        }
        assert_eq!(
            leases.renew(&app, &addr(MAX_LEASES), terms(1, 10), 0),
            Err(Full)
        );
        assert_eq!(leases.len(), MAX_LEASES);
        let renewal = leases.renew(&app, &addr(7), terms(1, 20), 7);
        assert_eq!(renewal, Ok(Renewal::Later));
        assert_eq!(leases.iter().count(), MAX_LEASES);
        let expired = leases.expired(11 * SECOND);
        assert_eq!(expired.len(), MAX_LEASES - 1);
        assert_eq!(leases.ends.len(), 1, "both views agree");
    }
}
