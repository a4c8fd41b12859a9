//! What the facts mean at one peer: who registered here, and what is said of an upstream in the end.

use std::time::Duration;

use thiserror::Error;

use crate::base::addr::EndpointAddr;
use crate::base::clock::Nanos;
use crate::config::{self, Name};
use crate::fleet::Now;
use crate::fleet::fact::{Fact, Key, Value};
use crate::fleet::facts::Flaw;
use crate::fleet::standing::{Brake, Full, Renewal, Seen, Sight, Terms, told};
use crate::upstream::overrides::Told;

use super::Peer;

/// Why an endpoint is not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotRegistered {
    /// There is no room for more here.
    #[error(transparent)]
    Full(#[from] Full),
    /// It cannot be.
    #[error(transparent)]
    Flaw(#[from] Flaw),
}

// === impl Peer ===

impl Peer {
    /// What the fleet says of an upstream in the end; `seen` is what its endpoints are here.
    pub fn told(
        &mut self,
        spec: &config::Upstream,
        seen: &dyn Fn(&EndpointAddr) -> Seen,
        now: Now,
    ) -> Told {
        let sight = Sight {
            spec,
            own: self.me,
            seen,
            now: now.now,
            unix_ms: now.unix_ms,
        };
        let facts = self.facts.of_upstream(&spec.name);
        let past = self.past.iter();
        let facts = facts.chain(past.flat_map(|past| past.of_upstream(&spec.name)));
        let standing = told(&sight, facts, &mut self.orphans, &mut self.brake);
        match standing.again_at {
            Some(at) => self.again.insert(spec.name.clone(), at),
            None => self.again.remove(&spec.name),
        };
        standing.told
    }

    /// What is said and has no effect, since one peer may not take away so much.
    pub fn brake(&self) -> &Brake {
        &self.brake
    }

    /// How many endpoints have registered here.
    pub fn leases(&self) -> usize {
        self.leases.len()
    }

    /// An endpoint registers here, or renews that.
    ///
    /// # Errors
    /// Why not; then nothing has changed.
    pub fn register(
        &mut self,
        upstream: &Name,
        endpoint: &EndpointAddr,
        terms: Terms,
        now: Now,
    ) -> Result<(), NotRegistered> {
        let key = self.registration(upstream, endpoint);
        let value = registered(&terms);
        // Before it is leased: what is said later could not be refused any more.
        self.could_say(key.clone(), value.clone())?;
        let renewal = self.leases.renew(upstream, endpoint, terms, now.now)?;
        if renewal == Renewal::Later {
            return Ok(());
        }
        // A renewal, too, if what is known is something else: an earlier life of this peer took back what it had
        // registered after it saved for the last time, and the others still knew.
        let said = self.say_once(key, value, now);
        if said.is_err() && renewal != Renewal::Renewed {
            self.leases.end(upstream, endpoint);
        }
        Ok(said?)
    }

    /// Whether an endpoint is registered here.
    pub fn is_registered(&self, upstream: &str, endpoint: &EndpointAddr) -> bool {
        self.leases.terms(&upstream.into(), endpoint).is_some()
    }

    /// An endpoint takes back that it registered here; whether it had.
    pub fn deregister(&mut self, upstream: &Name, endpoint: &EndpointAddr, now: Now) -> bool {
        let was_there = self.leases.end(upstream, endpoint);
        if was_there {
            let key = self.registration(upstream, endpoint);
            // It was said before, so it can be taken back.
            let _ = self.say_once(key, Value::Gone, now);
        }
        was_there
    }

    /// Registrations that have changed too soon after they had are said as they are now.
    pub(super) fn say_changes(&mut self, now: Now) {
        for (upstream, endpoint, terms) in self.leases.due(now.now) {
            let key = self.registration(&upstream, &endpoint);
            // It could be said when it came; it takes the place of what was said before.
            let _ = self.say_once(key, registered(&terms), now);
        }
    }

    /// Those that did not renew are no members any more.
    pub(super) fn end_leases(&mut self, now: Now) {
        for (upstream, endpoint) in self.leases.expired(now.now) {
            let key = self.registration(&upstream, &endpoint);
            let _ = self.say_once(key, Value::Gone, now);
        }
    }

    /// Upstreams of which something else is so, though nothing was said.
    pub(super) fn look_again(&mut self, now: Nanos) {
        let due = self.again.iter().filter(|(_, at)| **at <= now);
        let due: Vec<_> = due.map(|(name, _)| name.clone()).collect();
        for name in due {
            self.again.remove(&name);
            self.news.upstreams.insert(name);
        }
    }

    /// Somebody came or went: those who registered with him are members, or soon are not.
    pub(super) fn see_registrars(&mut self, now: Nanos) {
        self.orphans.see(self.live.keys().copied(), now);
        // Registrations come first: one look for each upstream, not one for each fact.
        let registered = self.facts.upstreams().filter(|name| {
            let first = self.facts.of_upstream(name).next();
            first.is_some_and(|fact| matches!(fact.key, Key::Registration { .. }))
        });
        self.news.upstreams.extend(registered.cloned());
    }

    /// This peer is the registrar by this fact, which it said before it stopped or which it lost: the endpoint has
    /// one `ttl` to renew it here.
    pub(super) fn lease(&mut self, fact: &Fact, now: Nanos) {
        let Key::Registration {
            upstream,
            endpoint,
            registrar,
        } = &fact.key
        else {
            return;
        };
        if *registrar != self.me {
            return;
        }
        if let Value::Registered {
            weight,
            zone,
            ttl_ms,
        } = &fact.value
        {
            let terms = Terms {
                weight: *weight,
                zone: zone.clone(),
                ttl: Duration::from_millis(u64::from(*ttl_ms)),
            };
            // What does not fit ends as that of a peer that is gone.
            let _ = self.leases.renew(upstream, endpoint, terms, now);
        }
    }

    fn registration(&self, upstream: &Name, endpoint: &EndpointAddr) -> Key {
        Key::Registration {
            upstream: upstream.clone(),
            endpoint: endpoint.clone(),
            registrar: self.me,
        }
    }
}

/// What is said of a registration.
fn registered(terms: &Terms) -> Value {
    Value::Registered {
        weight: terms.weight,
        zone: terms.zone.clone(),
        ttl_ms: u32::try_from(terms.ttl.as_millis()).unwrap_or(u32::MAX),
    }
}
