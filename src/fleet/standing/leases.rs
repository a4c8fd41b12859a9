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
    leases: BTreeMap<(Name, EndpointAddr), Lease>,
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
        let is_full = self.leases.len() >= MAX_LEASES;
        let key = (upstream.clone(), endpoint.clone());
        let end = |at| (at, upstream.clone(), endpoint.clone());
        let renewal = match self.leases.entry(key) {
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
        let Some(lease) = self.leases.remove(&(upstream.clone(), endpoint.clone())) else {
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
            self.leases.remove(&key);
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
        let leases = self.leases.iter();
        leases.map(|((upstream, endpoint), lease)| (upstream, endpoint, &lease.terms))
    }

    /// As what an endpoint is registered here.
    pub fn terms(&self, upstream: &Name, endpoint: &EndpointAddr) -> Option<&Terms> {
        let lease = self.leases.get(&(upstream.clone(), endpoint.clone()))?;
        Some(&lease.terms)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// `now` without the times that this peer stood still.
    fn seen(&self, now: Nanos) -> Nanos {
        now.saturating_sub(self.stalled)
    }
}
