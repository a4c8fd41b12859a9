//! What the fleet says, and what follows from it here.

use std::collections::{BTreeSet, HashMap};

use crate::base::addr::EndpointAddr;
use crate::config::Name;
use crate::fleet::duty::{Changes, Subject, names};
use crate::fleet::standing::Seen;
use crate::health::checker::{Ask, Found, Targets, Verdict, Vote};
use crate::health::duty::Duty;
use crate::runtime::fleet::Fleet;
use crate::telemetry::history::{Cause, What};
use crate::upstream::{Health, Members, Proof, Since};

use super::Live;

// === impl Live ===

impl Live {
    /// Takes in what the fleet has said since.
    pub fn heed_fleet(&mut self) {
        let Some(fleet) = self.fleet.clone() else {
            return;
        };
        // It is the successor's concern, who asks for all of it; if there is none in the end, it waits here.
        if self.is_stopping || self.is_frozen {
            return;
        }
        let upstreams = fleet.news();
        self.heed_upstreams(&upstreams);
        let changes = fleet.duty_changes();
        self.rule(&changes);
    }

    /// Takes in all that the fleet says of every upstream: the configuration is another one.
    pub(super) fn heed_all(&mut self) {
        let names = self.config.upstreams.iter().map(|u| u.name.clone());
        let names = names.collect();
        self.heed_upstreams(&names);
    }

    /// Checks found an endpoint down, or up: what is held back since one peer alone may not take so much away, or add
    /// so much that nobody has seen, may be so now.
    pub(super) fn heed_held<'a>(
        &mut self,
        upstream: &Name,
        changed: impl IntoIterator<Item = &'a EndpointAddr>,
    ) {
        let hangs = |fleet: &Fleet| fleet.hangs_on_any(upstream, changed);
        if self.fleet.as_ref().is_some_and(hangs) {
            self.heed_upstreams(&BTreeSet::from([upstream.clone()]));
        }
    }

    fn heed_upstreams(&mut self, upstreams: &BTreeSet<Name>) {
        let Some(fleet) = self.fleet.clone() else {
            return;
        };
        let config = self.config.clone();
        let snapshot = self.published.snapshot.load_full();
        let now = self.clock.unix_ms();
        let mut has_changed = false;
        for spec in config
            .upstreams
            .iter()
            .filter(|u| upstreams.contains(&u.name))
        {
            let members = snapshot.upstreams.iter().find(|u| u.spec.name == spec.name);
            let members = members.map(|u| u.members.load_full());
            // Asked for each endpoint of which something is said: a search for each would be a search of all for all.
            let seen: HashMap<&EndpointAddr, Seen> = members.iter().flat_map(|m| seen(m)).collect();
            let see = |addr: &EndpointAddr| seen.get(addr).copied().unwrap_or_default();
            let Some(told) = fleet.told(spec, &see) else {
                // The fleet has ended; what was heeded until then holds.
                break;
            };
            let heeded = self.overrides.heed(told, spec);
            if heeded.effects.is_empty() {
                continue;
            }
            has_changed = true;
            self.reseat(&spec.name);
            for effect in heeded.effects {
                tracing::info!("{}", effect.text);
                let what = What::of_override(&effect.upstream, &effect.endpoint);
                let peers = effect.peer.unwrap_or_default();
                self.timeline
                    .record(now, Cause::Fleet { peers }, what, effect.text);
            }
        }
        if has_changed {
            self.after_publishing();
            self.save();
        }
    }

    /// What the checks find here is said to the fleet.
    pub fn vote(&mut self, votes: Vec<Vote>) {
        if let Some(fleet) = &self.fleet {
            fleet.vote(votes);
        }
    }

    /// Whom this process checks for the fleet, now that these are checked at all.
    pub(super) fn share(&mut self, targets: &Targets) {
        let Some(fleet) = &self.fleet else {
            return;
        };
        let mut zones: HashMap<(&Name, &EndpointAddr), &Name> = HashMap::new();
        for upstream in &self.config.upstreams {
            for endpoint in &upstream.endpoints {
                if let Some(zone) = &endpoint.zone {
                    zones.insert((&upstream.name, &endpoint.addr), zone);
                }
            }
        }
        let subjects = targets.iter().filter_map(|target| {
            let Ask::Check(spec) = &target.ask else {
                return None;
            };
            let (upstream, endpoint) = (&target.upstream, &target.endpoint.addr);
            let registered = self.overrides.registered(upstream, endpoint);
            let own = registered.and_then(|registered| registered.zone.as_ref());
            let zone = zones.get(&(upstream, endpoint)).copied().or(own).cloned();
            Some(Subject::new(upstream.clone(), endpoint.clone(), zone, spec))
        });
        let changes = fleet.subjects(subjects.collect());
        self.rule(&changes);
    }

    /// What the votes of peers say holds here; only then the checker is told that it need not ask.
    fn rule(&mut self, changes: &Changes) {
        let mut verdicts = Vec::new();
        if !changes.rulings.is_empty() {
            // All are told anew whenever the set of endpoints is another one.
            let endpoints = self.endpoints();
            verdicts.extend(changes.rulings.iter().filter_map(|ruled| {
                let endpoint = endpoints.get(&(ruled.upstream.clone(), ruled.endpoint.clone()))?;
                Some(Verdict {
                    upstream: ruled.upstream.clone(),
                    endpoint: endpoint.clone(),
                    health: ruled.ruling.health()?,
                    why: ruled.why.clone(),
                    by: Found::Fleet(ruled.peers()),
                })
            }));
        }
        if !verdicts.is_empty() {
            self.judge(verdicts);
        }
        if let Some(duty) = &changes.duty {
            self.forget_own(duty);
        }
        if let Some(fleet) = &self.fleet {
            fleet.order(changes);
        }
    }

    /// That this process's own checks found an endpoint down ends when others are to ask it: nobody here would find
    /// that it is well again.
    fn forget_own(&mut self, duty: &Duty) {
        let snapshot = self.published.snapshot.load_full();
        for upstream in &snapshot.upstreams {
            let name = &upstream.spec.name;
            let members = upstream.members.load_full();
            let forgotten = members
                .endpoints
                .iter()
                .filter(|e| e.is_down_here() && !duty.role(name, &e.addr).asks());
            let mut has_changed = false;
            for endpoint in forgotten {
                let before = endpoint.health();
                endpoint.set_down_here(None);
                let fleet = self.fleet.as_ref();
                let probers = fleet.map(|fleet| fleet.shares(name, endpoint).1);
                let peers = names(&probers.unwrap_or_default());
                let why = format!("it is checked by {peers} from now on");
                let cause = Cause::Fleet { peers };
                if self.note_health(name, endpoint, before, (cause, &why)) {
                    has_changed = true;
                    upstream.forget(endpoint);
                    endpoint.set_since(Since {
                        at_unix_ms: self.clock.unix_ms(),
                        why,
                    });
                }
            }
            if has_changed {
                upstream.publish_health(self.clock.now());
            }
        }
    }
}

/// What the endpoints of an upstream are here.
fn seen(members: &Members) -> impl Iterator<Item = (&EndpointAddr, Seen)> {
    let endpoints = members.endpoints.iter().zip(&members.members);
    endpoints.map(|(endpoint, member)| {
        let seen = match (endpoint.health(), endpoint.proof()) {
            (_, Proof::Awaited) => Seen::Held,
            (Health::Down, Proof::Taken | Proof::Found) => Seen::Down,
            (Health::Unchecked | Health::Up, Proof::Found) => Seen::Up,
            (Health::Unchecked | Health::Up, Proof::Taken) if member.weight > 0 => Seen::Taken,
            (Health::Unchecked | Health::Up, Proof::Taken) => Seen::Unknown,
        };
        (&endpoint.addr, seen)
    })
}
