//! Operator overrides: what an operator says of endpoints while the process runs, the middle of the
//! three layers of state (file, operator, observation). What an operator said wins over the file,
//! until it is taken back, expires, or has nothing left to say.
//!
//! ```text
//! Change -> Overrides::apply -> Applied | Refused       an operator speaks
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

mod apply;
mod change;
mod layers;
mod reconcile;
mod store;

pub use change::{Applied, Change, Refused, Verb};
pub use layers::{
    EndpointLayers, Field, FileLayer, Layer, Member, Origin, Verdict, effective_members, layers,
};
pub use reconcile::{Fate, Reconciled};
pub use store::{OpenError, Opened, SaveError, SetAside, Store, Why};

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};

use crate::base::addr::EndpointAddr;
use crate::config::{self, Name};
use crate::telemetry::history::utc;

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

/// What is said of an endpoint that is a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Override {
    /// `None` = active.
    pub state: Option<Said<AdminState>>,
    /// `None` = the weight of the file, or of the addition.
    pub weight: Option<Said<u32>>,
}

/// All that is said of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    /// It joins, with this weight, and may be overridden like any other.
    Added { weight: Said<u32>, over: Override },
    /// The file lists it. Never empty: what says nothing is no entry.
    Over(Override),
    /// It leaves, although the file lists it.
    Removed(By),
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

/// Everything operators say, by upstream and endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// No upstream without an endpoint, at most [`MAX_ENTRIES`] endpoints together.
    upstreams: BTreeMap<Name, BTreeMap<EndpointAddr, Entry>>,
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

// === impl Override ===

impl Override {
    fn is_empty(&self) -> bool {
        self.state.is_none() && self.weight.is_none()
    }

    /// What it makes of an endpoint with this weight.
    fn on(&self, weight: u32) -> Effective {
        Effective {
            weight: self.weight.as_ref().map_or(weight, |said| said.value),
            state: self.state.as_ref().map(|said| said.value),
        }
    }
}

// === impl Entry ===

impl Entry {
    /// An entry for a listed endpoint, if anything is said.
    fn over(over: Override) -> Option<Self> {
        (!over.is_empty()).then_some(Self::Over(over))
    }

    fn layer(&self) -> OperatorLayer {
        let nothing = OperatorLayer::default();
        match self.clone() {
            Self::Added { weight, over } => OperatorLayer {
                added: Some(weight),
                state: over.state,
                weight: over.weight,
                ..nothing
            },
            Self::Over(Override { state, weight }) => OperatorLayer {
                state,
                weight,
                ..nothing
            },
            Self::Removed(by) => OperatorLayer {
                removed: Some(by),
                ..nothing
            },
        }
    }

    /// What is said by whom, in the order of [`Part`].
    fn parts(&self) -> impl Iterator<Item = (Part, &By)> {
        let (added, removed, over) = match self {
            Self::Added { weight, over } => (Some(&weight.by), None, Some(over)),
            Self::Over(over) => (None, None, Some(over)),
            Self::Removed(by) => (None, Some(by), None),
        };
        let state = over.and_then(|o| o.state.as_ref()).map(|s| &s.by);
        let weight = over.and_then(|o| o.weight.as_ref()).map(|s| &s.by);
        [
            added.map(|by| (Part::Added, by)),
            removed.map(|by| (Part::Removed, by)),
            state.map(|by| (Part::State, by)),
            weight.map(|by| (Part::Weight, by)),
        ]
        .into_iter()
        .flatten()
    }

    /// One part in words: `weight 5`, `drain`.
    fn words(&self, part: Part) -> String {
        let layer = self.layer();
        match part {
            Part::Added => {
                let weight = layer.added.map_or(0, |said| said.value);
                format!("the addition with weight {weight}")
            }
            Part::Removed => "the removal".to_owned(),
            Part::State => AdminState::word(layer.state.map(|said| said.value)).to_owned(),
            Part::Weight => format!("weight {}", layer.weight.map_or(0, |said| said.value)),
        }
    }
}

// === impl OperatorLayer ===

impl OperatorLayer {
    /// `None` for nothing, and for what contradicts itself.
    fn into_entry(self) -> Option<Entry> {
        let over = Override {
            state: self.state,
            weight: self.weight,
        };
        match (self.added, self.removed) {
            (None, None) => Entry::over(over),
            (None, Some(by)) => over.is_empty().then_some(Entry::Removed(by)),
            (Some(weight), None) => Some(Entry::Added { weight, over }),
            (Some(_), Some(_)) => None,
        }
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

    /// What is said of one endpoint.
    pub fn of(&self, upstream: &str, endpoint: &EndpointAddr) -> Option<OperatorLayer> {
        self.entry(upstream, endpoint).map(Entry::layer)
    }

    fn entry(&self, upstream: &str, endpoint: &EndpointAddr) -> Option<&Entry> {
        self.upstreams.get(upstream)?.get(endpoint)
    }

    /// Puts an entry in its place, or takes it away.
    fn put(&mut self, upstream: &Name, endpoint: &EndpointAddr, entry: Option<Entry>) {
        let endpoints = self.upstreams.entry(upstream.clone()).or_default();
        match entry {
            Some(entry) => {
                endpoints.insert(endpoint.clone(), entry);
            }
            None => {
                endpoints.remove(endpoint);
            }
        }
        if endpoints.is_empty() {
            self.upstreams.remove(upstream);
        }
    }
}

/// What an endpoint has in the end; `None` = it is no member. `listed` is its weight in the file.
fn effective(listed: Option<u32>, entry: Option<&Entry>) -> Option<Effective> {
    match (listed, entry) {
        (_, Some(Entry::Removed(_))) => None,
        (_, Some(Entry::Added { weight, over })) => Some(over.on(weight.value)),
        (Some(weight), Some(Entry::Over(over))) => Some(over.on(weight)),
        (Some(weight), None) => Some(Override::default().on(weight)),
        (None, Some(Entry::Over(_)) | None) => None,
    }
}

/// The weight of an endpoint in the file, if it is listed.
fn listed(spec: &config::Upstream, endpoint: &EndpointAddr) -> Option<u32> {
    let found = spec.endpoints.iter().find(|e| e.addr == *endpoint)?;
    Some(found.weight)
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
