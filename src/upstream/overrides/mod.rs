//! Operator overrides: what an operator says of endpoints while the process runs, the middle of the
//! three layers of state (file, operator, observation). What an operator said wins over the file,
//! until it is taken back, expires, or has nothing left to say.
//!
//! ```text
//! Change -> Overrides::apply -> Applied | Refused       an operator speaks
//! Told   -> Overrides::heed  -> Heeded                  a fleet speaks: of an upstream, all that holds
//!           Overrides::expire -> [Expired]              time passes
//!           Overrides::reconcile -> [Reconciled]        the file changes: each is kept or dropped, and said
//! file + Overrides -> effective_members                 what a generation is built from
//!                  -> layers                            the same, told: `isobar get upstream/NAME`
//! ```
//!
//! All of it is pure but [`Store`]. To change the set so that nothing is half done, work on a clone:
//! apply, [`Store::save`], then replace the one in use, publish the members and answer. A reload does
//! the same with `reconcile`.
//!
//! What can be said of an endpoint:
//! - a **weight**, from 0 to [`MAX_WEIGHT`]. 0 is a drain by weight: policies that know weights give
//!   it no new picks while another endpoint has more, and clients that stick to it stay;
//! - a **state**: [`AdminState::Drain`] or [`AdminState::Disable`];
//! - in upstreams with `dynamic = true`, that it **joins** although the file does not list it, or
//!   **leaves** although the file does.
//!
//! Each of these has its own owner, reason, time and expiry: a drain by one operator does not renew
//! the weight that another one has set for ten minutes.
//!
//! Of a fleet, operators at every peer say these things, and endpoints *register* themselves: that makes them
//! members of `dynamic` upstreams as if the file listed them. What a fleet says is kept whatever the file says:
//! other peers may serve another file.

mod apply;
mod change;
mod heed;
mod layers;
mod parts;
mod reconcile;
mod store;

pub use change::{Applied, Change, Refused, Verb};
pub use heed::{Effect, Heard, Heeded, Held, MAX_REGISTERED, Registered, Spoken, Told};
pub use layers::{
    EndpointLayers, Field, FileLayer, HeldLayer, Layer, Member, Origin, RegisteredLayer, Verdict,
    effective_members, layers,
};
pub use parts::{Changed, Membership, Parts, Word, changed_parts};
pub use reconcile::{Fate, Reconciled};
pub use store::{OpenError, Opened, SaveError, SetAside, Store, Why};

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use crate::base::addr::EndpointAddr;
use crate::config::{self, Name};
use crate::telemetry::history::utc;

use self::heed::Elsewhere;

/// Most endpoints of which something is said: the file of overrides is written whole for each
/// change, and stays below 32 MB at the longest texts.
pub const MAX_ENTRIES: usize = 10_000;

/// Longest owner, in bytes.
pub const MAX_OWNER: usize = 64;

/// Longest reason, in bytes.
pub const MAX_REASON: usize = 256;

/// Largest weight: what `weight` in the file allows (a test keeps the two in step).
pub const MAX_WEIGHT: u32 = 1000;

/// What the operator may say of an endpoint's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminState {
    /// No picks at all, not even for clients that stick to it.
    Disable,
    /// No new picks; what is in flight ends, and clients that stick to it may finish.
    Drain,
}

/// Who says something, why, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct By {
    /// `uid:0`, or a given name.
    pub owner: String,
    /// In the operator's words; may be empty.
    pub reason: String,
    /// Milliseconds since 1970.
    pub since_unix_ms: u64,
    /// The moment from which it no longer holds, in milliseconds since 1970; `None` = until it is
    /// taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_unix_ms: Option<u64>,
}

/// One thing said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said<T> {
    /// What.
    pub value: T,
    /// By whom.
    pub by: By,
}

/// All that is said of one endpoint, as answers and the file of overrides have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorLayer {
    /// The endpoint joins with this weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added: Option<Said<u32>>,
    /// The endpoint leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<By>,
    /// Its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Said<AdminState>>,
    /// Its weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<Said<u32>>,
}

/// What an endpoint that is a member has in the end, before observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Effective {
    /// Its weight.
    pub weight: u32,
    /// `None` = active.
    #[serde(serialize_with = "state_word")]
    pub state: Option<AdminState>,
}

/// Which of the things said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The endpoint joins.
    Added,
    /// The endpoint leaves.
    Removed,
    /// Its state.
    State,
    /// Its weight.
    Weight,
}

/// Something said that reached its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Expired {
    /// Of which upstream.
    #[serde(serialize_with = "as_text")]
    pub upstream: Name,
    /// Of which endpoint.
    #[serde(serialize_with = "as_text")]
    pub endpoint: EndpointAddr,
    /// What of it.
    pub part: Part,
    /// One sentence for people.
    pub text: String,
}

/// Everything operators say, by upstream and endpoint; of a fleet, who has registered besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// No upstream without an endpoint, at most [`MAX_ENTRIES`] endpoints together.
    upstreams: BTreeMap<Name, BTreeMap<EndpointAddr, Parts>>,
    /// Upstreams of which a fleet has spoken, also if all it says is nothing. Not kept over a restart: the fleet
    /// has a memory of its own.
    fleet: BTreeMap<Name, Arc<BTreeMap<EndpointAddr, Elsewhere>>>,
}

/// What an endpoint is without operators.
#[derive(Clone, Copy, Debug)]
struct Ground<'a> {
    /// Whether members come and go in this upstream.
    is_dynamic: bool,
    /// Its weight in the file, if the file lists it.
    listed: Option<u32>,
    registered: Option<&'a Registered>,
    /// No check has found it up yet, as it should be before it has picks.
    is_unproven: bool,
}

/// Reads the address of an endpoint as answers and the CLI write it: `10.0.0.1:80`, `[::1]:80`,
/// `unix:/run/app.sock`.
///
/// # Errors
/// [`Refused::Address`] for what the file would refuse too; relative paths, because here no file says
/// from where.
pub fn address(text: &str) -> Result<EndpointAddr, Refused> {
    let addr = match text.strip_prefix("unix:") {
        Some(path) => Some(EndpointAddr::Unix(PathBuf::from(path))),
        None => text.parse().ok().map(EndpointAddr::Ip),
    };
    addr.filter(is_usable).ok_or_else(|| Refused::Address {
        // Cut: the text is the client's, and comes back in an answer.
        text: text
            .chars()
            .take(120)
            .collect::<String>()
            .escape_debug()
            .to_string(),
    })
}

/// Whether an endpoint can have this address: the rules of the file, and that its text leads back to
/// it (a path that is not UTF-8 would be another one after a restart).
pub fn is_usable(addr: &EndpointAddr) -> bool {
    /// `sun_path` has 108 bytes and ends with a NUL (unix(7)).
    const MAX_UNIX_PATH: usize = 107;
    match addr {
        EndpointAddr::Ip(ip) => ip.port() != 0 && !ip.ip().is_unspecified(),
        EndpointAddr::Unix(path) => {
            path.is_absolute()
                && path != Path::new("/")
                && path.as_os_str().len() <= MAX_UNIX_PATH
                && path.to_str().is_some_and(|p| !p.contains(char::is_control))
        }
    }
}

/// Whether somebody can have said it: an owner, and texts of one short line.
fn is_bounded(by: &By) -> bool {
    let is_text = |text: &str, max| text.len() <= max && !text.contains(char::is_control);
    !by.owner.is_empty() && is_text(&by.owner, MAX_OWNER) && is_text(&by.reason, MAX_REASON)
}

// === impl AdminState ===

impl AdminState {
    /// The word in answers, logs and the history.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Drain => "drain",
        }
    }

    /// The word of a state that may be none.
    pub const fn word(state: Option<Self>) -> &'static str {
        match state {
            Some(state) => state.as_str(),
            None => "active",
        }
    }
}

// === impl By ===

/// `uid:0 since 2026-11-21T15:04:05Z until 2026-11-21T16:04:05Z (deploy)`
impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} since {}", self.owner, utc(self.since_unix_ms))?;
        if let Some(end) = self.expires_unix_ms {
            write!(f, " until {}", utc(end))?;
        }
        if !self.reason.is_empty() {
            write!(f, " ({})", self.reason)?;
        }
        Ok(())
    }
}

impl By {
    /// Whether an operator can have said it: somebody has, and the texts are within their bounds.
    ///
    /// # Errors
    /// [`Refused::NoOwner`], [`Refused::TooLong`], [`Refused::ControlCharacter`].
    pub fn check(&self) -> Result<(), Refused> {
        apply::check_texts(&self.owner, &self.reason)
    }

    fn has_expired(&self, now_unix_ms: u64) -> bool {
        self.expires_unix_ms.is_some_and(|end| end <= now_unix_ms)
    }
}

// === impl Parts ===

impl Parts {
    fn layer(&self) -> OperatorLayer {
        let member = self.member.as_ref();
        OperatorLayer {
            added: member.and_then(|said| match said.value {
                Membership::Joins(value) => {
                    let by = said.by.clone();
                    Some(Said { value, by })
                }
                Membership::Leaves => None,
            }),
            removed: self.leaves().cloned(),
            state: self.state.clone(),
            weight: self.weight.clone(),
        }
    }

    /// Who says that it leaves.
    fn leaves(&self) -> Option<&By> {
        let member = self.member.as_ref();
        let leaves = member.filter(|said| said.value == Membership::Leaves);
        leaves.map(|said| &said.by)
    }

    /// Whether it is said to join.
    fn joins(&self) -> bool {
        let member = self.member.as_ref();
        member.is_some_and(|said| matches!(said.value, Membership::Joins(_)))
    }

    /// What is said by whom, in the order of [`Part`].
    fn said(&self) -> impl Iterator<Item = (Part, &By)> {
        let member = self.member.as_ref().map(|said| match said.value {
            Membership::Joins(_) => (Part::Added, &said.by),
            Membership::Leaves => (Part::Removed, &said.by),
        });
        let state = self.state.as_ref().map(|said| (Part::State, &said.by));
        let weight = self.weight.as_ref().map(|said| (Part::Weight, &said.by));
        [member, state, weight].into_iter().flatten()
    }

    /// One part in words: `weight 5`, `drain`; nothing for what is not said.
    fn words(&self, part: Part) -> String {
        let field = match part {
            Part::Added | Part::Removed => Field::Member,
            Part::State => Field::State,
            Part::Weight => Field::Weight,
        };
        let word = self.word(field);
        word.map_or(String::new(), |(word, _)| word.to_string())
    }
}

// === impl OperatorLayer ===

impl OperatorLayer {
    /// `None` for nothing, and for what contradicts itself.
    fn into_parts(self) -> Option<Parts> {
        let member = match (self.added, self.removed) {
            (None, None) => None,
            (None, Some(by)) => {
                let value = Membership::Leaves;
                Some(Said { value, by })
            }
            (Some(Said { value, by }), None) => {
                let value = Membership::Joins(value);
                Some(Said { value, by })
            }
            (Some(_), Some(_)) => return None,
        };
        let parts = Parts {
            member,
            state: self.state,
            weight: self.weight,
        };
        (!parts.is_empty()).then_some(parts)
    }
}

// === impl Overrides ===

impl Overrides {
    /// How many endpoints something is said of.
    pub fn len(&self) -> usize {
        self.upstreams.values().map(BTreeMap::len).sum()
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.upstreams.is_empty()
    }

    /// The endpoints of which something is said.
    pub fn endpoints(&self) -> impl Iterator<Item = (&Name, &EndpointAddr)> {
        let upstreams = self.upstreams.iter();
        upstreams.flat_map(|(name, endpoints)| endpoints.keys().map(move |addr| (name, addr)))
    }

    /// What is said of one endpoint.
    pub fn of(&self, upstream: &str, endpoint: &EndpointAddr) -> Option<OperatorLayer> {
        self.entry(upstream, endpoint).map(Parts::layer)
    }

    fn entry(&self, upstream: &str, endpoint: &EndpointAddr) -> Option<&Parts> {
        self.upstreams.get(upstream)?.get(endpoint)
    }

    /// Puts what is said in its place; nothing takes it away.
    fn put(&mut self, upstream: &Name, endpoint: &EndpointAddr, parts: Parts) {
        if parts.is_empty() {
            if let Some(endpoints) = self.upstreams.get_mut(upstream) {
                endpoints.remove(endpoint);
                if endpoints.is_empty() {
                    self.upstreams.remove(upstream);
                }
            }
            return;
        }
        let endpoints = self.upstreams.entry(upstream.clone()).or_default();
        endpoints.insert(endpoint.clone(), parts);
    }
}

// === impl Ground ===

impl<'a> Ground<'a> {
    /// That of one endpoint.
    fn of(spec: &config::Upstream, overrides: &'a Overrides, endpoint: &EndpointAddr) -> Self {
        let listed = spec.endpoints.iter().find(|e| e.addr == *endpoint);
        Self {
            is_dynamic: spec.dynamic,
            listed: listed.map(|e| e.weight),
            registered: overrides.registered(&spec.name, endpoint),
            is_unproven: overrides
                .elsewhere(&spec.name, endpoint)
                .is_some_and(|elsewhere| elsewhere.is_unproven),
        }
    }

    /// Its weight if it is a member: the file is asked first.
    fn weight(&self) -> Option<u32> {
        let registered = self.registered.filter(|_| self.is_dynamic);
        self.listed.or(registered.map(|r| r.weight))
    }

    /// What it has in the end, given what operators say; `None` = it is no member.
    fn effective(&self, parts: Option<&Parts>) -> Option<Effective> {
        let member = parts.and_then(|p| p.member.as_ref());
        let weight = match member.filter(|_| self.is_dynamic).map(|said| said.value) {
            None => self.weight()?,
            Some(Membership::Joins(weight)) => weight,
            Some(Membership::Leaves) => return None,
        };
        let state = parts.and_then(|p| p.state.as_ref());
        let own = parts.and_then(|p| p.weight.as_ref());
        Some(Effective {
            weight: own.map_or(weight, |said| said.value),
            state: state.map(|said| said.value),
        })
    }
}

fn as_text<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[expect(
    clippy::ref_option,
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference to the field"
)]
fn state_word<S: Serializer>(state: &Option<AdminState>, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(AdminState::word(*state))
}

#[cfg(test)]
mod tests;
