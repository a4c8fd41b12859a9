//! What a change of configuration would do, thing by thing: the plan of a reload. Pure.
//!
//! Things are the settings of the process, the fleet, listeners, routes, upstreams and endpoints; their names
//! are their identities (an endpoint's is its upstream and address), so a thing with a new name is
//! one removed and one added. Parts are compared by value first; only those that differ are laid out
//! as the tables of [`super::effective`] and compared key by key.
//!
//! - The order of listeners and upstreams means nothing, and is no difference.
//! - The order of routes matters only between equally specific ones: `order` finds them.
//! - [`Diff::render`] shows a plan to people and, through serde, to programs.

mod compare;
mod order;
mod render;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use serde::{Serialize, Serializer};
use toml::Table;

use crate::base::addr::{BindAddr, EndpointAddr};

use super::effective;
use super::model::{Config, Fleet, Name, Upstream};

pub use render::{Rendered, Verbosity};

use compare::{endpoint, fields, listener, members, route, upstream};

/// What differs between two configurations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diff {
    /// By kind of thing; within a kind in the order of the new configuration, removed ones last.
    /// Settings of the process and of the admin server may have two: what changes in place, and
    /// what needs a restart.
    pub items: Vec<Item>,
}

/// What becomes of one thing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Item {
    /// The thing.
    #[serde(flatten)]
    pub object: Object,
    /// What becomes of it.
    #[serde(flatten)]
    pub change: Change,
    /// Connections that the change touches, once somebody who knows was asked
    /// ([`Diff::with_connections`]).
    pub connections: Option<u64>,
}

/// A thing that a configuration describes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Object {
    /// `[process]`
    Process,
    /// `[admin]`
    Admin,
    /// `[log]`
    Log,
    /// `[fleet]`
    Fleet,
    /// `[listeners.NAME]`
    Listener {
        /// Its name.
        #[serde(serialize_with = "as_text")]
        name: Name,
    },
    /// The order of routes, as far as it decides anything.
    RouteOrder,
    /// One of `[[routes]]`.
    Route {
        /// Its name.
        #[serde(serialize_with = "as_text")]
        name: Name,
    },
    /// `[upstreams.NAME]`, without its endpoints.
    Upstream {
        /// Its name.
        #[serde(serialize_with = "as_text")]
        name: Name,
    },
    /// One of an upstream's endpoints.
    Endpoint {
        /// Name of the upstream.
        #[serde(serialize_with = "as_text")]
        upstream: Name,
        /// Its address.
        #[serde(serialize_with = "as_text")]
        address: EndpointAddr,
    },
}

/// The kinds of things, in the order of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// [`Object::Process`]
    Process,
    /// [`Object::Admin`]
    Admin,
    /// [`Object::Log`]
    Log,
    /// [`Object::Fleet`]
    Fleet,
    /// [`Object::Listener`]
    Listener,
    /// [`Object::RouteOrder`]
    RouteOrder,
    /// [`Object::Route`]
    Route,
    /// [`Object::Upstream`]
    Upstream,
    /// [`Object::Endpoint`]
    Endpoint,
}

/// What becomes of a thing.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// It is new.
    Added,
    /// It changes in place; its connections stay.
    Changed {
        /// Key by key.
        what: Vec<FieldChange>,
    },
    /// A running process cannot change this: the old value holds until it is started anew.
    NeedsRestart {
        /// Key by key.
        what: Vec<FieldChange>,
    },
    /// A listener gets other addresses; those that stay keep their connections.
    Rebind {
        /// The old addresses.
        #[serde(serialize_with = "as_texts")]
        from: Vec<BindAddr>,
        /// The new addresses.
        #[serde(serialize_with = "as_texts")]
        to: Vec<BindAddr>,
        /// Each address: the new ones in their order, then the removed ones.
        addresses: Vec<Binding>,
        /// What else changes, in place.
        what: Vec<FieldChange>,
    },
    /// It goes: connections drain.
    Removed,
    /// Nothing.
    Unchanged,
}

/// What becomes of one address of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Binding {
    /// The address.
    #[serde(serialize_with = "as_text")]
    pub address: BindAddr,
    /// What becomes of it.
    pub change: BindingChange,
}

/// See [`Binding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BindingChange {
    /// It is bound anew.
    Added,
    /// The same socket goes on.
    Kept,
    /// It is closed; its connections drain.
    Removed,
}

/// One key with another value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldChange {
    /// The key below the thing's own table: `weight`, `keepalive.max_idle`.
    pub path: String,
    /// As text; `None` = there was none. Long values are cut.
    pub old: Option<String>,
    /// As text; `None` = there is none now. Long values are cut.
    pub new: Option<String>,
}

/// How many things of one kind have which change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// [`Change::Added`]
    pub added: usize,
    /// [`Change::Changed`]
    pub changed: usize,
    /// [`Change::NeedsRestart`]
    pub needs_restart: usize,
    /// [`Change::Rebind`]
    pub rebind: usize,
    /// [`Change::Removed`]
    pub removed: usize,
    /// [`Change::Unchanged`]
    pub unchanged: usize,
}

/// Keys of `[process]` that are decided when a process starts.
const PROCESS_RESTART: &[&str] = &["workers", "user", "state_dir"];

/// Keys of `[admin]` that are decided when a process starts.
const ADMIN_RESTART: &[&str] = &["bind", "socket"];

/// What has to happen to a process that runs `old` so that it runs `new`.
pub fn diff(old: &Config, new: &Config) -> Diff {
    let mut diff = Diff::default();
    diff.settings(
        &Object::Process,
        (old.process != new.process).then(|| {
            (
                effective::process(&old.process),
                effective::process(&new.process),
            )
        }),
        PROCESS_RESTART,
    );
    diff.settings(
        &Object::Admin,
        (old.admin != new.admin)
            .then(|| (effective::admin(&old.admin), effective::admin(&new.admin))),
        ADMIN_RESTART,
    );
    diff.settings(
        &Object::Log,
        (old.log != new.log).then(|| (effective::log(&old.log), effective::log(&new.log))),
        &[],
    );
    diff.fleet(old.fleet.as_deref(), new.fleet.as_deref());
    diff.each(
        (&old.listeners, &new.listeners),
        |l| &l.name,
        |l| Object::Listener {
            name: l.name.clone(),
        },
        listener,
    );
    let what: Vec<_> = order::change(&old.routes, &new.routes)
        .into_iter()
        .collect();
    if !what.is_empty() {
        diff.push(Object::RouteOrder, Change::Changed { what });
    }
    diff.each(
        (&old.routes, &new.routes),
        |r| &r.name,
        |r| Object::Route {
            name: r.name.clone(),
        },
        route,
    );
    diff.each(
        (&old.upstreams, &new.upstreams),
        |u| &u.name,
        |u| Object::Upstream {
            name: u.name.clone(),
        },
        upstream,
    );
    diff.endpoints(&old.upstreams, &new.upstreams);
    diff
}

// === impl Diff ===

impl Diff {
    /// Whether nothing has to happen.
    pub fn is_empty(&self) -> bool {
        self.changes().next().is_none()
    }

    /// Everything that is not [`Change::Unchanged`].
    pub fn changes(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| !item.is_unchanged())
    }

    /// How many things of each kind have which change; kinds without any are left out.
    pub fn counts(&self) -> BTreeMap<Kind, Counts> {
        let mut counts: BTreeMap<Kind, Counts> = BTreeMap::new();
        for item in &self.items {
            let counts = counts.entry(item.object.kind()).or_default();
            *match item.change {
                Change::Added => &mut counts.added,
                Change::Changed { .. } => &mut counts.changed,
                Change::NeedsRestart { .. } => &mut counts.needs_restart,
                Change::Rebind { .. } => &mut counts.rebind,
                Change::Removed => &mut counts.removed,
                Change::Unchanged => &mut counts.unchanged,
            } += 1;
        }
        counts
    }

    /// Asks how many connections each thing has that will lose some: what is removed, and listeners
    /// that leave an address.
    pub fn with_connections(&mut self, connections: &mut impl FnMut(&Object) -> Option<u64>) {
        for item in &mut self.items {
            let loses = match &item.change {
                Change::Removed => true,
                Change::Rebind { addresses, .. } => addresses
                    .iter()
                    .any(|binding| binding.change == BindingChange::Removed),
                Change::Added
                | Change::Changed { .. }
                | Change::NeedsRestart { .. }
                | Change::Unchanged => false,
            };
            if loses {
                item.connections = connections(&item.object);
            }
        }
    }

    fn push(&mut self, object: Object, change: Change) {
        self.items.push(Item {
            object,
            change,
            connections: None,
        });
    }

    /// One of the tables that there is exactly one of; `tables` if they differ.
    fn settings(&mut self, object: &Object, tables: Option<(Table, Table)>, restart: &[&str]) {
        let Some((old, new)) = tables else {
            self.push(object.clone(), Change::Unchanged);
            return;
        };
        let (later, what): (Vec<_>, Vec<_>) = fields(object.kind().table(), &old, &new)
            .into_iter()
            .partition(|field| restart.contains(&field.path.as_str()));
        if !what.is_empty() {
            self.push(object.clone(), Change::Changed { what });
        }
        if !later.is_empty() {
            self.push(object.clone(), Change::NeedsRestart { what: later });
        }
    }

    /// Who a process acts as one with is decided when it starts: sockets and identity hang on it. (What the
    /// secret file holds is no part of a configuration.)
    fn fleet(&mut self, old: Option<&Fleet>, new: Option<&Fleet>) {
        /// `register`: a place to register, where there was none, or none any more.
        const RESTART: [&str; 6] = [
            "name",
            "bind",
            "advertise",
            "state_dir",
            "register",
            "register.bind",
        ];
        let name = |fleet: Option<&Fleet>| fleet.map(|fleet| fleet.name.to_string());
        match (old, new) {
            (None, None) => {}
            (Some(old), Some(new)) => {
                let tables = (old != new).then(|| (effective::fleet(old), effective::fleet(new)));
                self.settings(&Object::Fleet, tables, &RESTART);
            }
            // It comes or goes as a whole.
            (old, new) => {
                let what = vec![FieldChange {
                    path: "name".to_owned(),
                    old: name(old),
                    new: name(new),
                }];
                self.push(Object::Fleet, Change::NeedsRestart { what });
            }
        }
    }

    /// Things of one kind, by identity.
    fn each<'c, T: PartialEq, K: Eq + Hash>(
        &mut self,
        (old, new): (&'c [T], &'c [T]),
        key: impl Fn(&'c T) -> K,
        object: impl Fn(&T) -> Object,
        compare: impl Fn(&T, &T) -> Change,
    ) {
        let mut before: HashMap<K, &T> = old.iter().map(|t| (key(t), t)).collect();
        self.items.reserve(new.len());
        for thing in new {
            let change = match before.remove(&key(thing)) {
                None => Change::Added,
                Some(old) if old == thing => Change::Unchanged,
                Some(old) => compare(old, thing),
            };
            self.push(object(thing), change);
        }
        for thing in old.iter().filter(|t| before.contains_key(&key(t))) {
            self.push(object(thing), Change::Removed);
        }
    }

    fn endpoints(&mut self, old: &[Upstream], new: &[Upstream]) {
        let (old, new) = (members(old), members(new));
        self.each(
            (&old, &new),
            |m| (m.upstream, &m.endpoint.addr),
            |m| Object::Endpoint {
                upstream: m.upstream.clone(),
                address: m.endpoint.addr.clone(),
            },
            endpoint,
        );
    }
}

// === impl Item ===

impl Item {
    /// Whether nothing becomes of it.
    pub fn is_unchanged(&self) -> bool {
        matches!(self.change, Change::Unchanged)
    }
}

// === impl Object ===

impl Object {
    /// What it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Process => Kind::Process,
            Self::Admin => Kind::Admin,
            Self::Log => Kind::Log,
            Self::Fleet => Kind::Fleet,
            Self::Listener { .. } => Kind::Listener,
            Self::RouteOrder => Kind::RouteOrder,
            Self::Route { .. } => Kind::Route,
            Self::Upstream { .. } => Kind::Upstream,
            Self::Endpoint { .. } => Kind::Endpoint,
        }
    }
}

// === impl Kind ===

impl Kind {
    /// Its table in a file, as the masks of [`effective`] have it.
    fn table(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Admin => "admin",
            Self::Log => "log",
            Self::Fleet => "fleet",
            Self::Listener => "listeners.*",
            Self::RouteOrder | Self::Route => "routes",
            Self::Upstream => "upstreams.*",
            Self::Endpoint => "upstreams.*.endpoints",
        }
    }
}

fn as_text<S: Serializer>(value: &impl ToString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

fn as_texts<S: Serializer>(all: &[impl ToString], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(all.iter().map(ToString::to_string))
}
