//! The leases of the endpoints that registered here: renewals cost nobody else anything.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use thiserror::Error;

use crate::base::addr::EndpointAddr;
use crate::base::clock::{Nanos, nanos};
use crate::config::Name;

/// Most leases of one registrar: as many as one upstream may have registered endpoints.
pub const MAX_LEASES: usize = 10_000;

/// The endpoints that registered at this peer, each until its lease ends.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    all: BTreeMap<(Name, EndpointAddr), Lease>,
    /// The same, by their ends.
    ends: BTreeSet<(Nanos, Name, EndpointAddr)>,
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
        let end = |at| (at, upstream.clone(), endpoint.clone());
        let renewal = match self.all.entry(key) {
            Entry::Vacant(_) if is_full => return Err(Full),
            Entry::Vacant(vacant) => {
                vacant.insert(Lease { terms, ends });
                Renewal::New
            }
            Entry::Occupied(mut occupied) => {
                let lease = occupied.get_mut();
                self.ends.remove(&end(lease.ends));
                let is_same = lease.terms == terms;
                *lease = Lease { terms, ends };
                if is_same {
                    Renewal::Renewed
                } else {
                    Renewal::Changed
                }
            }
        };
        self.ends.insert(end(ends));
        Ok(renewal)
    }

    /// An endpoint takes its registration back; whether there was one.
    pub fn end(&mut self, upstream: &Name, endpoint: &EndpointAddr) -> bool {
        let Some(lease) = self.all.remove(&(upstream.clone(), endpoint.clone())) else {
            return false;
        };
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
            self.all.remove(&key);
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

    /// `now` without the times that this peer stood still.
    fn seen(&self, now: Nanos) -> Nanos {
        now.saturating_sub(self.stalled)
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
        assert_eq!(renewal, Ok(Renewal::Changed));
        assert_eq!(leases.iter().count(), MAX_LEASES);
        let expired = leases.expired(11 * SECOND);
        assert_eq!(expired.len(), MAX_LEASES - 1);
        assert_eq!(leases.ends.len(), 1, "both views agree");
    }
}
