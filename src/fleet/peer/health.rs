//! Shared health at one peer: whom it asks, what it and the others found.

use crate::base::addr::EndpointAddr;
use crate::config::Name;
use crate::fleet::Now;
use crate::fleet::duty::{Cast, Changes, Duties, Subject};
use crate::fleet::fact::{Key, MAX_WHY, Value};
use crate::fleet::facts::Facts;
use crate::fleet::id::PeerId;

use super::Peer;

// === impl Peer ===

impl Peer {
    /// All endpoints that are checked by the configuration of this process.
    pub fn set_subjects(&mut self, subjects: Vec<Subject>) {
        self.duties.set_subjects(subjects);
    }

    /// What follows for the checks from all that happened since it was last asked.
    pub fn duty_changes(&mut self, now: Now) -> Changes {
        if std::mem::take(&mut self.has_moved) {
            self.place_peers();
        }
        self.is_duty_due = false;
        let facts = &self.facts;
        let changes = self
            .duties
            .update(now.now, |subject, prober| cast(facts, subject, prober));
        for (upstream, endpoint) in &changes.retract {
            let key = self.vote_key(upstream, endpoint);
            // It was said before, so it can be taken back.
            let _ = self.say_once(key, Value::Gone, now);
        }
        changes
    }

    /// Says what a check found here. A failure is told to the others who ask the endpoint at once: they ask again
    /// instead of waiting for their turn.
    pub fn vote(
        &mut self,
        upstream: Name,
        endpoint: EndpointAddr,
        passed: bool,
        check: u64,
        mut why: String,
        now: Now,
    ) {
        why.retain(|c| !c.is_control());
        let end = (0..=MAX_WHY).rev().find(|at| why.is_char_boundary(*at));
        why.truncate(end.unwrap_or(0));
        let fellows: Vec<_> = self.duties.probers(&upstream, &endpoint).to_vec();
        let key = Key::Vote {
            upstream,
            endpoint,
            prober: self.me,
        };
        let value = Value::Vote { passed, check, why };
        if self.facts.get(&key).is_some_and(|fact| fact.value == value) {
            return;
        }
        if let Err(flaw) = self.say(key.clone(), value, now) {
            self.flaw(flaw.as_str());
        }
        self.tell(&key, fellows, now);
    }

    /// What this peer asks, and what it is told.
    pub fn duties(&self) -> &Duties {
        &self.duties
    }

    /// Says who is there and where each stands.
    pub(super) fn place_peers(&mut self) {
        let zone = |peer| match self.facts.get(&Key::Peer(peer)).map(|fact| &fact.value) {
            Some(Value::Peer(about)) => about.zone.clone(),
            _ => None,
        };
        let all = self.live.keys().copied().chain([self.me]);
        let peers: Vec<_> = all.map(|peer| (peer, zone(peer))).collect();
        self.duties.set_peers(&peers);
    }

    fn vote_key(&self, upstream: &Name, endpoint: &EndpointAddr) -> Key {
        Key::Vote {
            upstream: upstream.clone(),
            endpoint: endpoint.clone(),
            prober: self.me,
        }
    }
}

fn cast<'f>(facts: &'f Facts, subject: &Subject, prober: PeerId) -> Option<Cast<'f>> {
    let key = Key::Vote {
        upstream: subject.upstream.clone(),
        endpoint: subject.endpoint.clone(),
        prober,
    };
    let fact = facts.get(&key)?;
    match &fact.value {
        Value::Vote { passed, check, why } => Some(Cast {
            passed: *passed,
            check: *check,
            stamp: fact.stamp,
            why,
        }),
        _ => None,
    }
}
