//! Overrides after the file has changed: each is kept or dropped, and each is said.
//!
//! | the file now | what becomes of it |
//! |---|---|
//! | lists the endpoint, with another value | kept: what an operator said wins |
//! | says the same | dropped: redundant |
//! | lists an endpoint that an operator added | the addition is dropped; its weight stays as an override if the file has another |
//! | no longer lists an endpoint that an operator removed | dropped: redundant |
//! | has no such endpoint, or no such upstream | dropped: an endpoint that is listed again later starts as the file says, without a surprise from last month |
//! | has the upstream without `dynamic` | additions and removals are dropped: only the file speaks of members there |
//!
//! What a fleet has said of an upstream is kept as long as the file has the upstream: each peer has a file of its
//! own, and what has no effect under this one may have one under the next. So are registrations.

use std::collections::HashMap;

use serde::Serialize;

use crate::base::addr::EndpointAddr;
use crate::config::{self, Config, Name};

use super::{Membership, Overrides, Part, Parts, Said, as_text};

/// What became of one thing said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reconciled {
    /// Of which upstream.
    #[serde(serialize_with = "as_text")]
    pub upstream: Name,
    /// Of which endpoint.
    #[serde(serialize_with = "as_text")]
    pub endpoint: EndpointAddr,
    /// What of it.
    pub part: Part,
    /// Kept or dropped, and why.
    pub fate: Fate,
    /// One sentence for people.
    pub text: String,
}

/// What becomes of something said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It holds on, and the file has not changed beside it.
    Kept,
    /// It holds on, although the file has just changed the value it overrides.
    KeptAgainstFile,
    /// Dropped: members of this upstream are no longer an operator's business.
    NotDynamic,
    /// Dropped: the endpoint or the upstream is gone from the file.
    Orphaned,
    /// Dropped: the file now says the same.
    Redundant,
}

// === impl Fate ===

impl Fate {
    /// Whether it still holds.
    pub const fn is_kept(self) -> bool {
        match self {
            Self::Kept | Self::KeptAgainstFile => true,
            Self::NotDynamic | Self::Orphaned | Self::Redundant => false,
        }
    }
}

// === impl Overrides ===

impl Overrides {
    /// Fits the overrides to a new configuration: every part of every one is in the answer, by
    /// upstream, endpoint and part. `old` is what was served before; `None` = the process starts.
    ///
    /// On a clone, it tells what a reload would do.
    pub fn reconcile(&mut self, old: Option<&Config>, new: &Config) -> Vec<Reconciled> {
        let specs: HashMap<&str, &config::Upstream> =
            new.upstreams.iter().map(|u| (&*u.name, u)).collect();
        let before: HashMap<&str, &config::Upstream> = old
            .into_iter()
            .flat_map(|old| &old.upstreams)
            .map(|u| (&*u.name, u))
            .collect();
        let mut told = Vec::new();
        self.fleet.retain(|name, _| specs.contains_key(&**name));
        let fleet = &self.fleet;
        self.upstreams.retain(|name, endpoints| {
            let mut desk = Desk {
                upstream: name,
                spec: specs.get(&**name).copied(),
                weights: specs.get(&**name).map(|spec| weights(spec)),
                before: before.get(&**name).map(|spec| weights(spec)),
                is_fleets: fleet.contains_key(name),
                told: &mut told,
            };
            let old = std::mem::take(endpoints);
            endpoints.extend(old.into_iter().filter_map(|(addr, parts)| {
                let parts = desk.settle(&addr, parts);
                (!parts.is_empty()).then_some((addr, parts))
            }));
            !endpoints.is_empty()
        });
        told
    }
}

/// The weights of the file, by address: overrides may be as many as endpoints.
fn weights(spec: &config::Upstream) -> HashMap<&EndpointAddr, u32> {
    spec.endpoints.iter().map(|e| (&e.addr, e.weight)).collect()
}

/// One upstream being reconciled.
struct Desk<'a> {
    upstream: &'a Name,
    spec: Option<&'a config::Upstream>,
    weights: Option<HashMap<&'a EndpointAddr, u32>>,
    before: Option<HashMap<&'a EndpointAddr, u32>>,
    is_fleets: bool,
    told: &'a mut Vec<Reconciled>,
}

// === impl Desk ===

impl Desk<'_> {
    /// What stays of what is said of an endpoint.
    fn settle(&mut self, endpoint: &EndpointAddr, parts: Parts) -> Parts {
        let Some(spec) = self.spec else {
            let why = "the upstream is gone from the file";
            return self.drop_all(endpoint, &parts, Fate::Orphaned, why);
        };
        if self.is_fleets {
            for (part, _) in parts.said() {
                self.tell(endpoint, &parts, part, Fate::Kept, "the fleet says so");
            }
            return parts;
        }
        let listed = self.weights.as_ref().and_then(|w| w.get(endpoint).copied());
        let Some(file) = listed else {
            return self.unlisted(endpoint, parts, spec.dynamic);
        };
        match parts.member.clone() {
            None => self.listed(endpoint, parts, file),
            Some(said) => match said.value {
                Membership::Joins(value) => {
                    let by = said.by;
                    self.now_listed(endpoint, parts, Said { value, by }, file)
                }
                Membership::Leaves if spec.dynamic => self.keep_all(endpoint, parts),
                Membership::Leaves => {
                    let why = "the upstream is no longer dynamic, the endpoint is a member again";
                    self.drop_all(endpoint, &parts, Fate::NotDynamic, why)
                }
            },
        }
    }

    /// What stays where the file does not list the endpoint.
    fn unlisted(&mut self, endpoint: &EndpointAddr, parts: Parts, is_dynamic: bool) -> Parts {
        let (fate, why) = match parts.member.as_ref().map(|said| said.value) {
            Some(Membership::Joins(_)) if is_dynamic => return self.keep_all(endpoint, parts),
            Some(Membership::Joins(_)) => (Fate::NotDynamic, "the upstream is no longer dynamic"),
            Some(Membership::Leaves) => (Fate::Redundant, "the file no longer lists it either"),
            None => (Fate::Orphaned, "the endpoint is gone from the file"),
        };
        self.drop_all(endpoint, &parts, fate, why)
    }

    /// What stays of an addition, with `weight`, that the file now lists with the weight `file`.
    fn now_listed(
        &mut self,
        endpoint: &EndpointAddr,
        parts: Parts,
        weight: Said<u32>,
        file: u32,
    ) -> Parts {
        let is_same = weight.value == file && parts.weight.is_none();
        let why = if is_same {
            "the file now lists it with the same weight"
        } else {
            "the file now lists it"
        };
        self.tell(endpoint, &parts, Part::Added, Fate::Redundant, why);
        // The operator's weight outlives the addition that brought it.
        let over = Parts {
            member: None,
            state: parts.state,
            weight: parts.weight.or((!is_same).then_some(weight)),
        };
        self.listed(endpoint, over, file)
    }

    /// What stays over an endpoint that the file lists with the weight `file`.
    fn listed(&mut self, endpoint: &EndpointAddr, parts: Parts, file: u32) -> Parts {
        let before = self.before.as_ref().and_then(|w| w.get(endpoint).copied());
        if parts.state.is_some() {
            self.tell(
                endpoint,
                &parts,
                Part::State,
                Fate::Kept,
                "it still applies",
            );
        }
        let Some(weight) = &parts.weight else {
            return parts;
        };
        let (fate, why) = match before {
            _ if weight.value == file => {
                let why = format!("the file now says weight {file} too");
                (Fate::Redundant, why)
            }
            Some(before) if before != file => {
                let why = format!("it still wins, the file changed weight {before} -> {file}");
                (Fate::KeptAgainstFile, why)
            }
            Some(_) | None => (
                Fate::Kept,
                format!("it still wins over weight {file} of the file"),
            ),
        };
        self.tell(endpoint, &parts, Part::Weight, fate, &why);
        Parts {
            weight: parts.weight.filter(|_| fate.is_kept()),
            ..parts
        }
    }

    fn keep_all(&mut self, endpoint: &EndpointAddr, parts: Parts) -> Parts {
        for (part, _) in parts.said() {
            self.tell(endpoint, &parts, part, Fate::Kept, "it still applies");
        }
        parts
    }

    fn drop_all(&mut self, endpoint: &EndpointAddr, parts: &Parts, fate: Fate, why: &str) -> Parts {
        for (part, _) in parts.said() {
            self.tell(endpoint, parts, part, fate, why);
        }
        Parts::default()
    }

    fn tell(&mut self, endpoint: &EndpointAddr, parts: &Parts, part: Part, fate: Fate, why: &str) {
        let upstream = self.upstream;
        let kept = if fate.is_kept() { "kept" } else { "dropped" };
        let by = parts.said().find(|(p, _)| *p == part);
        let by = by.map_or(String::new(), |(_, by)| format!(" by {by}"));
        self.told.push(Reconciled {
            upstream: upstream.clone(),
            endpoint: endpoint.clone(),
            part,
            fate,
            text: format!(
                "upstream `{upstream}`, endpoint {endpoint}: {}{by} is {kept}: {why}",
                parts.words(part)
            ),
        });
    }
}
