//! The file and the operator, one over the other: the members that result, and why.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize, Serializer};

use crate::base::addr::EndpointAddr;
use crate::config::{self, Name};

use super::heed::Elsewhere;
use super::{
    AdminState, By, Effective, Ground, Held, Membership, OperatorLayer, Overrides, Parts, as_text,
    state_word,
};

/// One member of the generation to build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Where it is.
    #[serde(serialize_with = "as_text")]
    pub addr: EndpointAddr,
    /// Its share.
    pub weight: u32,
    /// `None` = active.
    #[serde(serialize_with = "state_word")]
    pub state: Option<AdminState>,
    /// Where it comes from.
    pub origin: Origin,
    /// Where it stands, as it said when it registered; of those that the file lists, the file knows.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "zone_text")]
    pub zone: Option<Name>,
    /// It is to have no picks before a check has found it up: one peer has added more than it may without that.
    #[serde(skip)]
    pub is_unproven: bool,
}

/// Where an endpoint comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The file lists it.
    File,
    /// An operator added it.
    Operator,
    /// It registered itself.
    Registered,
}

/// An endpoint as each layer has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointLayers {
    /// Which.
    #[serde(serialize_with = "as_text")]
    pub endpoint: EndpointAddr,
    /// Where it comes from.
    pub origin: Origin,
    /// What the file says; `None` = it is not listed.
    pub file: Option<FileLayer>,
    /// What it said when it registered itself with a fleet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registered: Option<RegisteredLayer>,
    /// What the operator says; `None` = nothing.
    pub operator: Option<OperatorLayer>,
    /// What is said at other peers and has no effect, since it is more than one peer may take away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<HeldLayer>,
    /// What results; `None` = it is no member.
    pub effective: Option<Effective>,
    /// Which layer decided what.
    pub wins: Vec<Verdict>,
}

/// What the file says of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FileLayer {
    /// Its weight, given or by default.
    pub weight: u32,
}

/// What an endpoint said when it registered itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RegisteredLayer {
    /// Its weight.
    pub weight: u32,
    /// Where it stands.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "zone_text")]
    pub zone: Option<Name>,
    /// At whom, for people.
    pub by: String,
}

/// Something said that has no effect for now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeldLayer {
    /// Of what.
    pub field: Field,
    /// Since when, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// In words.
    pub why: String,
}

/// Who decided one thing, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// What was decided.
    pub field: Field,
    /// By which layer.
    pub layer: Layer,
    /// In words.
    pub why: String,
}

/// What layers decide; each can be said by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// Whether it belongs to the upstream.
    Member,
    /// Its state.
    State,
    /// Its weight.
    Weight,
}

/// The layers that this module knows; observation comes on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// The configuration.
    File,
    /// What endpoints say when they register.
    Fleet,
    /// An override.
    Operator,
}

/// The members of an upstream: those of the file in its order, then the others by address.
pub fn effective_members(spec: &config::Upstream, overrides: &Overrides) -> Vec<Member> {
    walk(spec, overrides)
        .filter_map(|seen| {
            let Effective { weight, state } = seen.ground.effective(seen.parts)?;
            let own = seen
                .ground
                .registered
                .filter(|_| seen.ground.listed.is_none());
            Some(Member {
                addr: seen.addr.clone(),
                weight,
                state,
                origin: seen.origin(),
                zone: own.and_then(|registered| registered.zone.clone()),
                is_unproven: seen.ground.is_unproven,
            })
        })
        .collect()
}

/// Every endpoint of an upstream that the file, an operator or a fleet knows, in the order of
/// [`effective_members`], those that are no members included.
pub fn layers(spec: &config::Upstream, overrides: &Overrides) -> Vec<EndpointLayers> {
    walk(spec, overrides)
        .map(|seen| {
            let registered = seen.ground.registered.map(|registered| RegisteredLayer {
                weight: registered.weight,
                zone: registered.zone.clone(),
                by: registered.by.clone(),
            });
            EndpointLayers {
                endpoint: seen.addr.clone(),
                origin: seen.origin(),
                file: seen.ground.listed.map(|weight| FileLayer { weight }),
                registered,
                operator: seen.parts.map(Parts::layer),
                held: seen.held(),
                effective: seen.ground.effective(seen.parts),
                wins: seen.verdicts(),
            }
        })
        .collect()
}

/// One endpoint as all layers have it.
struct Seen<'a> {
    addr: &'a EndpointAddr,
    ground: Ground<'a>,
    parts: Option<&'a Parts>,
    elsewhere: Option<&'a Elsewhere>,
    is_fleets: bool,
}

/// Endpoints with what each layer says of them.
fn walk<'a>(
    spec: &'a config::Upstream,
    overrides: &'a Overrides,
) -> impl Iterator<Item = Seen<'a>> {
    let said = overrides.upstreams.get(&spec.name);
    let elsewhere = overrides.fleet.get(&spec.name).map(|all| &**all);
    let see = move |addr, listed| {
        let elsewhere = elsewhere.and_then(|all| all.get(addr));
        Seen {
            addr,
            ground: Ground {
                is_dynamic: spec.dynamic,
                listed,
                registered: elsewhere.and_then(|e| e.registered.as_ref()),
                is_unproven: elsewhere.is_some_and(|e| e.is_unproven),
            },
            parts: said.and_then(|said| said.get(addr)),
            elsewhere,
            is_fleets: overrides.is_fleets(&spec.name),
        }
    };
    let from_file = spec.endpoints.iter();
    let from_file = from_file.map(move |e| see(&e.addr, Some(e.weight)));
    let mut others: BTreeSet<&EndpointAddr> = BTreeSet::new();
    others.extend(said.into_iter().flatten().map(|(addr, _)| addr));
    others.extend(elsewhere.into_iter().flatten().map(|(addr, _)| addr));
    if !others.is_empty() {
        for listed in &spec.endpoints {
            others.remove(&listed.addr);
        }
    }
    from_file.chain(others.into_iter().map(move |addr| see(addr, None)))
}

// === impl Seen ===

impl Seen<'_> {
    fn origin(&self) -> Origin {
        let joins = self.parts.is_some_and(Parts::joins);
        match (self.ground.listed, self.ground.registered) {
            (Some(_), _) => Origin::File,
            (None, Some(_)) if !joins => Origin::Registered,
            (None, _) => Origin::Operator,
        }
    }

    fn held(&self) -> Vec<HeldLayer> {
        let held = self.elsewhere.map_or(&[][..], |elsewhere| &elsewhere.held);
        let held = held.iter().map(|held| {
            let Held { word, by, peer, .. } = held;
            HeldLayer {
                field: word.field(),
                since_unix_ms: held.since_unix_ms,
                why: format!("{word} by {by} at peer {peer} has no effect: it is more than one peer may take away"),
            }
        });
        held.collect()
    }

    /// Who decided what.
    fn verdicts(&self) -> Vec<Verdict> {
        let Ground {
            is_dynamic,
            listed,
            registered,
            is_unproven,
        } = self.ground;
        let verdict = |layer, field, why: String| Verdict { field, layer, why };
        let said = self.parts.and_then(|parts| parts.member.as_ref());
        let member = said.filter(|_| is_dynamic);
        let (member, default_weight) = match (member, listed, registered) {
            (Some(said), ..) if said.value == Membership::Leaves => {
                let why = format!("removed by {}", self.by(Field::Member, &said.by));
                return vec![verdict(Layer::Operator, Field::Member, why)];
            }
            (Some(said), ..) => {
                let by = self.by(Field::Member, &said.by);
                let weight = self.ground.effective(Some(&Parts {
                    weight: None,
                    ..self.parts.cloned().unwrap_or_default()
                }));
                let weight = weight.map_or(0, |effective| effective.weight);
                match listed {
                    Some(_) => (
                        verdict(Layer::File, Field::Member, LISTED.to_owned()),
                        verdict(
                            Layer::Operator,
                            Field::Weight,
                            weight_by(weight, &by, listed),
                        ),
                    ),
                    None => (
                        verdict(Layer::Operator, Field::Member, format!("added by {by}")),
                        verdict(
                            Layer::Operator,
                            Field::Weight,
                            format!("weight {weight} of the addition"),
                        ),
                    ),
                }
            }
            (None, Some(weight), _) => (
                verdict(Layer::File, Field::Member, LISTED.to_owned()),
                verdict(
                    Layer::File,
                    Field::Weight,
                    format!("weight {weight} of the file"),
                ),
            ),
            (None, None, Some(registered)) if is_dynamic => (
                verdict(Layer::Fleet, Field::Member, registered.by.clone()),
                verdict(
                    Layer::Fleet,
                    Field::Weight,
                    format!("weight {} of the registration", registered.weight),
                ),
            ),
            (None, None, _) => {
                let why = match (registered, said) {
                    (Some(_), _) => "it has registered, and the upstream is not dynamic",
                    (None, Some(_)) => "the file does not list it, and the upstream is not dynamic",
                    (None, None) if self.is_fleets => {
                        "neither does the file list it nor has it registered: what is said of it waits for that"
                    }
                    (None, None) => {
                        "the file does not list it: the next reload drops what is said of it"
                    }
                };
                return vec![verdict(Layer::File, Field::Member, why.to_owned())];
            }
        };
        let state = if let Some(said) = self.parts.and_then(|parts| parts.state.as_ref()) {
            let by = self.by(Field::State, &said.by);
            let why = format!("{} by {by}", said.value.as_str());
            verdict(Layer::Operator, Field::State, why)
        } else if is_unproven {
            let why = "no picks before a check has found it up: one peer has added more than it may without that";
            verdict(Layer::Fleet, Field::State, why.to_owned())
        } else {
            let why = "active: no operator says otherwise";
            verdict(Layer::File, Field::State, why.to_owned())
        };
        let weight = match self.parts.and_then(|parts| parts.weight.as_ref()) {
            Some(said) => {
                let by = self.by(Field::Weight, &said.by);
                let why = weight_by(said.value, &by, listed);
                verdict(Layer::Operator, Field::Weight, why)
            }
            None => default_weight,
        };
        vec![member, state, weight]
    }

    /// Who said it, and at which peer.
    fn by(&self, field: Field, by: &By) -> String {
        let peers = self.elsewhere.map(|elsewhere| &elsewhere.peers);
        match peers.and_then(|peers| peers[field as usize].as_ref()) {
            Some(peer) => format!("{by} at peer {peer}"),
            None => by.to_string(),
        }
    }
}

const LISTED: &str = "the file lists it";

fn weight_by(weight: u32, by: &str, listed: Option<u32>) -> String {
    match listed {
        Some(file) => format!("weight {weight} by {by}; the file says {file}"),
        None => format!("weight {weight} by {by}"),
    }
}

#[expect(
    clippy::ref_option,
    reason = "serde calls it with a reference to the field"
)]
fn zone_text<S: Serializer>(zone: &Option<Name>, serializer: S) -> Result<S::Ok, S::Error> {
    zone.as_deref().serialize(serializer)
}
