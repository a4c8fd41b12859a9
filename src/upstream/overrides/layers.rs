//! The file and the operator, one over the other: the members that result, and why.

use std::collections::HashSet;

use serde::Serialize;

use crate::base::addr::EndpointAddr;
use crate::config;

use super::{
    AdminState, Effective, Entry, OperatorLayer, Overrides, as_text, effective, state_word,
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
}

/// Where an endpoint comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The file lists it.
    File,
    /// An operator added it.
    Operator,
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
    /// What the operator says; `None` = nothing.
    pub operator: Option<OperatorLayer>,
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

/// What layers decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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
    /// An override.
    Operator,
}

/// The members of an upstream: those of the file in its order, then those that operators added, by
/// address.
pub fn effective_members(spec: &config::Upstream, overrides: &Overrides) -> Vec<Member> {
    walk(spec, overrides)
        .filter_map(|(addr, listed, entry)| {
            let Effective { weight, state } = effective(listed, entry)?;
            Some(Member {
                addr: addr.clone(),
                weight,
                state,
                origin: origin(listed),
            })
        })
        .collect()
}

/// Every endpoint of an upstream that the file or an operator knows, in the order of
/// [`effective_members`], those that operators removed included.
pub fn layers(spec: &config::Upstream, overrides: &Overrides) -> Vec<EndpointLayers> {
    walk(spec, overrides)
        .map(|(addr, listed, entry)| EndpointLayers {
            endpoint: addr.clone(),
            origin: origin(listed),
            file: listed.map(|weight| FileLayer { weight }),
            operator: entry.map(Entry::layer),
            effective: effective(listed, entry),
            wins: verdicts(listed, entry),
        })
        .collect()
}

/// Endpoints with their weight in the file and what the operator says.
fn walk<'a>(
    spec: &'a config::Upstream,
    overrides: &'a Overrides,
) -> impl Iterator<Item = (&'a EndpointAddr, Option<u32>, Option<&'a Entry>)> {
    let said = overrides.upstreams.get(&spec.name);
    let listed: HashSet<&EndpointAddr> = match said {
        Some(_) => spec.endpoints.iter().map(|e| &e.addr).collect(),
        None => HashSet::new(),
    };
    let from_file = spec.endpoints.iter().map(move |e| {
        let entry = said.and_then(|said| said.get(&e.addr));
        (&e.addr, Some(e.weight), entry)
    });
    let others = said
        .into_iter()
        .flatten()
        .filter(move |(addr, _)| !listed.contains(addr))
        .map(|(addr, entry)| (addr, None, Some(entry)));
    from_file.chain(others)
}

fn origin(listed: Option<u32>) -> Origin {
    match listed {
        Some(_) => Origin::File,
        None => Origin::Operator,
    }
}

fn verdicts(listed: Option<u32>, entry: Option<&Entry>) -> Vec<Verdict> {
    let file = |field, why: String| Verdict {
        field,
        layer: Layer::File,
        why,
    };
    let operator = |field, why: String| Verdict {
        field,
        layer: Layer::Operator,
        why,
    };
    let (member, default_weight, over) = match (listed, entry) {
        (_, Some(Entry::Removed(by))) => {
            return vec![operator(Field::Member, format!("removed by {by}"))];
        }
        (None, Some(Entry::Over(_)) | None) => {
            let why = "the file does not list it: the next reload drops what is said of it";
            return vec![file(Field::Member, why.to_owned())];
        }
        (Some(_), Some(Entry::Added { weight, over })) => (
            file(Field::Member, "the file lists it".to_owned()),
            operator(Field::Weight, weight_by(weight.value, &weight.by, listed)),
            Some(over),
        ),
        (None, Some(Entry::Added { weight, over })) => (
            operator(Field::Member, format!("added by {}", weight.by)),
            operator(
                Field::Weight,
                format!("weight {} of the addition", weight.value),
            ),
            Some(over),
        ),
        (Some(weight), Some(Entry::Over(over))) => (
            file(Field::Member, "the file lists it".to_owned()),
            file(Field::Weight, format!("weight {weight} of the file")),
            Some(over),
        ),
        (Some(weight), None) => (
            file(Field::Member, "the file lists it".to_owned()),
            file(Field::Weight, format!("weight {weight} of the file")),
            None,
        ),
    };
    let state = match over.and_then(|o| o.state.as_ref()) {
        Some(said) => {
            let word = said.value.as_str();
            operator(Field::State, format!("{word} by {}", said.by))
        }
        None => file(
            Field::State,
            "active: no operator says otherwise".to_owned(),
        ),
    };
    let weight = match over.and_then(|o| o.weight.as_ref()) {
        Some(said) => operator(Field::Weight, weight_by(said.value, &said.by, listed)),
        None => default_weight,
    };
    vec![member, state, weight]
}

fn weight_by(weight: u32, by: &super::By, listed: Option<u32>) -> String {
    match listed {
        Some(file) => format!("weight {weight} by {by}; the file says {file}"),
        None => format!("weight {weight} by {by}"),
    }
}
