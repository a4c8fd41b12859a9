//! Config -> Snapshot: names become pointers, metric handles are resolved, tables are built.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::balance::Factory;
use crate::base::clock::nanos;
use crate::config::{Action, Config, Name};
use crate::proxy::snapshot::{ListenerPlan, Plan, RoutePlan, Snapshot};
use crate::route::RouteTable;
use crate::telemetry::metrics::registry::Registry;
use crate::upstream::Upstream;

/// Where requests are counted that no route answers; no route can have this name.
pub const UNROUTED: &str = "(none)";

/// Compiles a checked configuration. Listeners get the slots of their order; upstreams named in
/// `balancers` get theirs from there.
pub fn compile(
    config: &Config,
    balancers: &BTreeMap<String, Factory>,
    registry: &Registry,
    seed: u64,
) -> Snapshot {
    let upstreams: Vec<Arc<Upstream>> = config
        .upstreams
        .iter()
        .enumerate()
        .map(|(slot, spec)| {
            Arc::new(Upstream::new(
                slot,
                spec.clone(),
                balancers.get(&*spec.name).cloned(),
                registry,
                seed ^ slot as u64,
            ))
        })
        .collect();
    let by_name: HashMap<Name, &Arc<Upstream>> =
        upstreams.iter().map(|u| (u.spec.name.clone(), u)).collect();
    let names: Vec<Name> = config.listeners.iter().map(|l| l.name.clone()).collect();
    let listeners = config
        .listeners
        .iter()
        .enumerate()
        .map(|(i, spec)| {
            let cells = registry.listener(&spec.name);
            Some(Arc::new(ListenerPlan::new(spec.clone(), i, cells)))
        })
        .collect();
    let plans = config
        .routes
        .iter()
        .map(|route| RoutePlan {
            name: route.name.clone(),
            action: plan(&route.action, &by_name),
            timeout: route.timeout.map(nanos),
            rewrite: route.rewrite.clone(),
            request_headers: route.request_headers.clone(),
            response_headers: route.response_headers.clone(),
            cells: registry.route(&route.name),
        })
        .collect();
    let rules = config
        .routes
        .iter()
        .map(|route| (route.rule.clone(), ()))
        .collect();
    Snapshot {
        version: 1,
        listeners,
        routes: RouteTable::build(&names, rules),
        plans,
        unrouted: registry.route(UNROUTED),
        upstreams,
    }
}

fn plan(action: &Action, upstreams: &HashMap<Name, &Arc<Upstream>>) -> Plan {
    // `lower` made sure that every name exists.
    let find = |name: &Name| {
        let found = upstreams.get(name).copied().cloned();
        found.expect("invariant: config::lower refuses routes to upstreams that do not exist")
    };
    match action {
        Action::Redirect { to, status } => Plan::Redirect {
            to: to.clone(),
            status: *status,
        },
        Action::Respond {
            status,
            body,
            content_type,
        } => Plan::Respond {
            status: *status,
            body: body.as_bytes().into(),
            content_type: content_type.clone(),
        },
        Action::Split(to) => Plan::Split {
            total: to.iter().map(|(_, weight)| u64::from(*weight)).sum(),
            to: to
                .iter()
                .map(|(name, weight)| (find(name), *weight))
                .collect(),
        },
        Action::Upstream(name) => Plan::Upstream(find(name)),
    }
}
