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

use std::collections::HashMap;

use serde::Serialize;

use crate::base::addr::EndpointAddr;
use crate::config::{self, Config, Name};

use super::{Entry, Override, Overrides, Part, Said, as_text};

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
        self.upstreams.retain(|name, endpoints| {
            let mut desk = Desk {
                upstream: name,
                spec: specs.get(&**name).copied(),
                weights: specs.get(&**name).map(|spec| weights(spec)),
                before: before.get(&**name).map(|spec| weights(spec)),
                told: &mut told,
            };
            let old = std::mem::take(endpoints);
            endpoints.extend(old.into_iter().filter_map(|(addr, entry)| {
                let entry = desk.settle(&addr, entry)?;
                Some((addr, entry))
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
    told: &'a mut Vec<Reconciled>,
}

// === impl Desk ===

impl Desk<'_> {
    /// What stays of an entry.
    fn settle(&mut self, endpoint: &EndpointAddr, entry: Entry) -> Option<Entry> {
        let Some(spec) = self.spec else {
            return self.drop_all(
                endpoint,
                &entry,
                Fate::Orphaned,
                "the upstream is gone from the file",
            );
        };
        let listed = self.weights.as_ref().and_then(|w| w.get(endpoint).copied());
        match (entry, listed) {
            (Entry::Added { weight, over }, Some(file)) => {
                let is_same = weight.value == file && over.weight.is_none();
                let entry = Entry::Added {
                    weight: weight.clone(),
                    over: Override::default(),
                };
                let why = if is_same {
                    "the file now lists it with the same weight"
                } else {
                    "the file now lists it"
                };
                self.tell(endpoint, &entry, Part::Added, Fate::Redundant, why);
                // The operator's weight outlives the addition that brought it.
                let weight = over.weight.or((!is_same).then_some(weight));
                let state = over.state;
                self.listed(endpoint, Override { state, weight }, file)
            }
            (entry @ Entry::Added { .. }, None) if spec.dynamic => {
                self.keep_all(endpoint, &entry);
                Some(entry)
            }
            (entry @ Entry::Added { .. }, None) => self.drop_all(
                endpoint,
                &entry,
                Fate::NotDynamic,
                "the upstream is no longer dynamic",
            ),
            (Entry::Over(over), Some(file)) => self.listed(endpoint, over, file),
            (entry @ Entry::Over(_), None) => self.drop_all(
                endpoint,
                &entry,
                Fate::Orphaned,
                "the endpoint is gone from the file",
            ),
            (entry @ Entry::Removed(_), Some(_)) if spec.dynamic => {
                self.keep_all(endpoint, &entry);
                Some(entry)
            }
            (entry @ Entry::Removed(_), Some(_)) => {
                let why = "the upstream is no longer dynamic, the endpoint is a member again";
                self.drop_all(endpoint, &entry, Fate::NotDynamic, why)
            }
            (entry @ Entry::Removed(_), None) => {
                let why = "the file no longer lists it either";
                self.drop_all(endpoint, &entry, Fate::Redundant, why)
            }
        }
    }

    /// What stays of an override over an endpoint that the file lists with the weight `file`.
    fn listed(&mut self, endpoint: &EndpointAddr, over: Override, file: u32) -> Option<Entry> {
        let before = self.before.as_ref().and_then(|w| w.get(endpoint).copied());
        let entry = Entry::over(over)?;
        let parts: Vec<Part> = entry.parts().map(|(part, _)| part).collect();
        for part in parts {
            if part != Part::Weight {
                self.tell(endpoint, &entry, part, Fate::Kept, "it still applies");
            }
        }
        let Entry::Over(Override {
            state,
            weight: Some(weight),
        }) = &entry
        else {
            return Some(entry);
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
        self.tell(endpoint, &entry, Part::Weight, fate, &why);
        Entry::over(Override {
            state: state.clone(),
            weight: fate.is_kept().then(|| Said::clone(weight)),
        })
    }

    fn keep_all(&mut self, endpoint: &EndpointAddr, entry: &Entry) {
        for (part, _) in entry.parts() {
            self.tell(endpoint, entry, part, Fate::Kept, "it still applies");
        }
    }

    fn drop_all(
        &mut self,
        endpoint: &EndpointAddr,
        entry: &Entry,
        fate: Fate,
        why: &str,
    ) -> Option<Entry> {
        for (part, _) in entry.parts() {
            self.tell(endpoint, entry, part, fate, why);
        }
        None
    }

    fn tell(&mut self, endpoint: &EndpointAddr, entry: &Entry, part: Part, fate: Fate, why: &str) {
        let upstream = self.upstream;
        let kept = if fate.is_kept() { "kept" } else { "dropped" };
        let by = entry.parts().find(|(p, _)| *p == part);
        let by = by.map_or(String::new(), |(_, by)| format!(" by {by}"));
        self.told.push(Reconciled {
            upstream: upstream.clone(),
            endpoint: endpoint.clone(),
            part,
            fate,
            text: format!(
                "upstream `{upstream}`, endpoint {endpoint}: {}{by} is {kept}: {why}",
                entry.words(part)
            ),
        });
    }
}
