//! What differs between two versions of one thing.

use std::collections::HashSet;

use toml::{Table, Value};

use crate::base::addr::{BindAddr, EndpointAddr};

use super::super::effective;
use super::super::model::{
    CheckTls, Endpoint, Listener, Name, Route, Serves, Upstream, UpstreamTls,
};
use super::{Binding, BindingChange, Change, FieldChange, Kind, render};

/// An endpoint with its upstream's name.
#[derive(PartialEq)]
pub(super) struct Member<'c> {
    pub(super) upstream: &'c Name,
    pub(super) endpoint: &'c Endpoint,
}

pub(super) fn members(upstreams: &[Upstream]) -> Vec<Member<'_>> {
    let pairs = upstreams
        .iter()
        .flat_map(|u| u.endpoints.iter().map(|endpoint| (&u.name, endpoint)));
    pairs
        .map(|(upstream, endpoint)| Member { upstream, endpoint })
        .collect()
}

fn changed(what: Vec<FieldChange>) -> Change {
    Change::Changed { what }
}

pub(super) fn listener(old: &Listener, new: &Listener) -> Change {
    let what = fields(
        Kind::Listener.table(),
        &effective::listener(old),
        &effective::listener(new),
    );
    let (before, after): (HashSet<_>, HashSet<_>) =
        (old.bind.iter().collect(), new.bind.iter().collect());
    // The ports of UDP are others than those of TCP.
    let is_udp = |listener: &Listener| matches!(listener.serves, Serves::Udp(_));
    let moved = is_udp(old) != is_udp(new);
    if before == after && !moved {
        return changed(what);
    }
    let binding = |address: &BindAddr, change| Binding {
        address: address.clone(),
        change,
    };
    let of_new = new.bind.iter().map(|address| {
        let change = if before.contains(address) && !moved {
            BindingChange::Kept
        } else {
            BindingChange::Added
        };
        binding(address, change)
    });
    let gone = old.bind.iter();
    let gone = gone.filter(|address| moved || !after.contains(address));
    let gone = gone.map(|address| binding(address, BindingChange::Removed));
    Change::Rebind {
        from: old.bind.clone(),
        to: new.bind.clone(),
        addresses: of_new.chain(gone).collect(),
        what: what.into_iter().filter(|f| f.path != "bind").collect(),
    }
}

pub(super) fn route(old: &Route, new: &Route) -> Change {
    let tables = (effective::route(old), effective::route(new));
    changed(fields(Kind::Route.table(), &tables.0, &tables.1))
}

pub(super) fn endpoint(old: &Member<'_>, new: &Member<'_>) -> Change {
    let tables = (
        effective::endpoint(old.endpoint),
        effective::endpoint(new.endpoint),
    );
    changed(fields(Kind::Endpoint.table(), &tables.0, &tables.1))
}

/// An upstream's own keys, and the order of the endpoints that stay: some policies go by it.
pub(super) fn upstream(old: &Upstream, new: &Upstream) -> Change {
    let mut what = fields(
        Kind::Upstream.table(),
        &effective::upstream(old),
        &effective::upstream(new),
    );
    what.extend(endpoint_order(&old.endpoints, &new.endpoints));
    what.extend(tls_files(old, new));
    if what.is_empty() {
        // Only its endpoints differ: they are things of their own.
        Change::Unchanged
    } else {
        changed(what)
    }
}

/// The files of TLS towards endpoints are part of the configuration: their paths may be the same, and
/// what is in them not.
fn tls_files(old: &Upstream, new: &Upstream) -> Vec<FieldChange> {
    let of_check = |upstream: &Upstream| Some(upstream.health.as_ref()?.tls.as_ref()?.clone());
    let of_endpoints = match (&old.tls, &new.tls) {
        (Some(old), Some(new)) => {
            let same_paths = UpstreamTls {
                client: new.client.clone(),
                ..(**old).clone()
            };
            old != new && same_paths == **new
        }
        _ => false,
    };
    let of_checks = match (of_check(old), of_check(new)) {
        (Some(old), Some(new)) if !new.of_upstream => {
            let same_paths = CheckTls {
                client: new.client.clone(),
                ..old.clone()
            };
            old != new && same_paths == new
        }
        _ => false,
    };
    let changed = |path: &str| FieldChange {
        path: path.to_owned(),
        old: Some("as they were read".to_owned()),
        new: Some("as they are now".to_owned()),
    };
    let paths = [("tls.files", of_endpoints), ("health.tls.files", of_checks)];
    let differ = paths.iter().filter(|(_, differ)| *differ);
    differ.map(|(path, _)| changed(path)).collect()
}

fn endpoint_order(old: &[Endpoint], new: &[Endpoint]) -> Option<FieldChange> {
    /// Enough to recognise a place in a list.
    const SHOWN: usize = 3;
    let addresses = |all: &'_ [Endpoint]| -> HashSet<EndpointAddr> {
        all.iter().map(|e| e.addr.clone()).collect()
    };
    let (before, after) = (addresses(old), addresses(new));
    let old: Vec<_> = old
        .iter()
        .map(|e| &e.addr)
        .filter(|a| after.contains(a))
        .collect();
    let new: Vec<_> = new
        .iter()
        .map(|e| &e.addr)
        .filter(|a| before.contains(a))
        .collect();
    let first = old.iter().zip(&new).position(|(a, b)| a != b)?;
    let text = |all: &[&EndpointAddr]| {
        let names: Vec<_> = all[first..]
            .iter()
            .take(SHOWN)
            .map(ToString::to_string)
            .collect();
        let more = if all.len() > first + SHOWN {
            ", …"
        } else {
            ""
        };
        Some(names.join(", ") + more)
    };
    Some(FieldChange {
        path: "endpoints.order".to_owned(),
        old: text(&old),
        new: text(&new),
    })
}

/// What differs between two tables at `at`, in the order of the new one, then what is gone.
pub(super) fn fields(at: &str, old: &Table, new: &Table) -> Vec<FieldChange> {
    let mut found = Vec::new();
    collect(at, "", old, new, &mut found);
    found
}

fn collect(at: &str, path: &str, old: &Table, new: &Table, found: &mut Vec<FieldChange>) {
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    for key in new.keys().chain(gone) {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        match (old.get(key), new.get(key)) {
            (Some(old), Some(new)) if old == new => {}
            (Some(Value::Table(old)), Some(Value::Table(new))) => {
                collect(at, &path, old, new, found);
            }
            (old, new) => {
                let text = |value: Option<&Value>| {
                    let value = effective::shown(&format!("{at}.{path}"), value?.clone());
                    Some(render::text(&value))
                };
                let (old, new) = (text(old), text(new));
                found.push(FieldChange { path, old, new });
            }
        }
    }
}
