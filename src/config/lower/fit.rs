//! Checks across tables: names, references, addresses, what is never used.

use std::cell::Cell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::addr::BindAddr;
use crate::route::{RouteTable, Rule};

use super::super::diagnostic::{Diagnostic, Report};
use super::super::model::{Action, Config, HeaderEdits, Name, Retry, Rewrite, Route, Serves};
use super::super::node::quote_all;
use super::super::suggest::closest;
use super::process::Main;
use super::{Draft, Reference, address, reach, route};

/// Puts the parts together and reports what does not fit.
pub(super) fn fit(draft: Draft<'_>, main: Main<'_>, report: &Report) -> Config {
    unique("listener", draft.listeners.iter().map(|l| &l.name), report);
    unique("upstream", draft.upstreams.iter().map(|u| &u.name), report);
    unique(
        "route",
        draft.routes.iter().filter_map(|r| r.name.as_ref()),
        report,
    );
    shorthand_names(&draft, report);
    binds(&draft, &main, report);
    references(&draft, report);
    reach::check(&draft, report);
    timeouts(&draft, report);
    // What an error left out would look unused, and routes whose matchers are wrong look alike.
    let sound = !report.has_errors();
    if sound {
        used(&draft, report);
        zones(&draft, &main, report);
        registrations(&draft, &main, report);
    }

    let Draft {
        listeners,
        mut routes,
        upstreams,
    } = draft;
    uniquify(&mut routes);
    let shorthands: Vec<_> = listeners.iter().filter_map(shorthand).collect();
    let places: Vec<_> = routes
        .iter()
        .map(|r| r.at)
        .chain(
            listeners
                .iter()
                .filter_map(|l| l.upstream.as_ref())
                .map(|u| u.at),
        )
        .collect();
    let config = Config {
        process: main.process,
        admin: main.admin,
        log: main.log,
        listeners: listeners.into_iter().map(|l| l.listener).collect(),
        routes: routes
            .into_iter()
            .map(|r| r.route)
            .chain(shorthands)
            .collect(),
        upstreams: upstreams.into_iter().map(|u| u.upstream).collect(),
        fleet: main.fleet.map(|draft| Arc::new(draft.fleet)),
    };
    let shadowed = if sound {
        shadowed_routes(&config)
    } else {
        Vec::new()
    };
    for (loser, winner) in shadowed {
        if let (Some(&at), Some(&by)) = (places.get(loser), places.get(winner)) {
            let name = &config.routes[loser].name;
            let message = format!("route `{name}` never answers: another route matches the same");
            let d = Diagnostic::warning("shadowed-route", at, message);
            report.push(
                d.related(by, "this one answers instead")
                    .help("remove one, or tell them apart"),
            );
        }
    }
    config
}

/// Pairs (route that never answers, route that answers instead), by index in `config.routes`: the
/// router itself is asked, so `check` and the running proxy cannot disagree.
fn shadowed_routes(config: &Config) -> Vec<(usize, usize)> {
    let listeners: Vec<Name> = config.listeners.iter().map(|l| l.name.clone()).collect();
    let rules = config
        .routes
        .iter()
        .map(|route| (route.rule.clone(), ()))
        .collect();
    let table = RouteTable::build(&listeners, rules);
    table
        .shadowed()
        .into_iter()
        .map(|shadow| (shadow.rule, shadow.by))
        .collect()
}

/// Names are identities: metrics, logs and reloads go by them.
fn unique<'r, 'a: 'r>(kind: &str, names: impl Iterator<Item = &'r Reference<'a>>, report: &Report) {
    let mut first: HashMap<Name, &Reference<'a>> = HashMap::new();
    for name in names {
        match first.entry(name.value.clone()) {
            Entry::Vacant(slot) => {
                slot.insert(name);
            }
            Entry::Occupied(before) => {
                let message = format!("{kind} `{}` is defined twice", name.value);
                report.push(
                    Diagnostic::error("duplicate-name", name.at, message)
                        .label("defined again here")
                        .related(before.get().at, "first defined here"),
                );
            }
        }
    }
}

/// A listener's shorthand makes a route of the listener's name.
fn shorthand_names(draft: &Draft<'_>, report: &Report) {
    let made: HashMap<&str, _> = draft
        .listeners
        .iter()
        .filter_map(|l| Some((&*l.name.value, l.upstream.as_ref()?.at)))
        .collect();
    for name in draft.routes.iter().filter_map(|r| r.name.as_ref()) {
        if let Some(&by) = made.get(&*name.value) {
            let message = format!("route `{}` is defined twice", name.value);
            report.push(
                Diagnostic::error("duplicate-name", name.at, message)
                    .label("defined here")
                    .related(by, "this makes a route that bears the listener's name")
                    .help("give the route another name"),
            );
        }
    }
}

/// No two listeners may want one address.
fn binds(draft: &Draft<'_>, main: &Main<'_>, report: &Report) {
    // The ports of UDP are others than those of TCP.
    let of_listeners = draft.listeners.iter().flat_map(|l| {
        let udp = matches!(l.listener.serves, Serves::Udp(_));
        l.binds.iter().map(move |bind| (bind, udp))
    });
    let of_admin = main.admin_binds.iter().map(|bind| (bind, false));
    let of_fleet = main.fleet.iter().flat_map(|fleet| {
        let both = fleet
            .bind
            .iter()
            .flat_map(|bind| [(bind, false), (bind, true)]);
        both.chain(fleet.register.iter().map(|bind| (bind, false)))
    });
    let all = of_admin.chain(of_fleet);
    // By port (or path), so that thousands of listeners are not compared with one another.
    let mut by_port: HashMap<_, Vec<&address::Bind<'_>>> = HashMap::new();
    for (bind, udp) in all.chain(of_listeners) {
        let text = bind.value.to_string();
        let others = by_port.entry((place_of(&bind.value), udp)).or_default();
        if let Some(other) = others
            .iter()
            .find(|o| address::conflict(&o.value, &bind.value))
        {
            let message = format!("`{text}` cannot be bound: `{}` has it already", other.value);
            report.push(
                Diagnostic::error("bind-conflict", bind.at, message)
                    .related(other.at, "bound here"),
            );
        }
        others.push(bind);
    }
}

/// What addresses must share to be in conflict: the port, or the path without its `.` parts.
fn place_of(bind: &BindAddr) -> String {
    match bind {
        BindAddr::Any(port) => port.to_string(),
        BindAddr::Ip(addr) => addr.port().to_string(),
        BindAddr::Unix(path) => path.components().collect::<PathBuf>().display().to_string(),
    }
}

/// Names that are compared with unknown ones to suggest the nearest, in all: among 10,000 upstreams
/// the first twenty misspelt references get a suggestion, and the time stays below 0.1 s.
const MAX_COMPARISONS: usize = 200_000;

/// Every name of a listener or upstream must exist.
fn references(draft: &Draft<'_>, report: &Report) {
    let listeners: BTreeSet<&str> = draft.listeners.iter().map(|l| &*l.name.value).collect();
    let upstreams: BTreeSet<&str> = draft.upstreams.iter().map(|u| &*u.name.value).collect();
    let comparisons = Cell::new(MAX_COMPARISONS);
    let check = |kind: &str, known: &BTreeSet<&str>, name: &Reference<'_>| {
        if known.contains(&*name.value) {
            return;
        }
        let message = format!("there is no {kind} `{}`", name.value.escape_debug());
        let left = comparisons.get().checked_sub(known.len());
        comparisons.set(left.unwrap_or(0));
        let near = left.and_then(|_| closest(name, known.iter().copied()));
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => {
                format!("define it: [{kind}s.{}]", name.value.escape_debug())
            }
            None => format!(
                "known {kind}s: {}",
                quote_all(known.iter().copied().take(20))
            ),
        };
        report.push(Diagnostic::error("unknown-reference", name.at, message).help(help));
    };
    let others: HashMap<&str, &super::listener::Draft<'_>> = draft
        .listeners
        .iter()
        .filter(|l| l.listener.serves != Serves::Http)
        .map(|l| (&*l.name.value, l))
        .collect();
    for route in &draft.routes {
        for name in &route.listeners {
            check("listener", &listeners, name);
            if let Some(other) = others.get(&*name.value) {
                no_requests(name, other, report);
            }
        }
        route
            .upstreams
            .iter()
            .for_each(|u| check("upstream", &upstreams, u));
    }
    for listener in &draft.listeners {
        listener
            .upstream
            .iter()
            .chain(&listener.targets)
            .for_each(|u| check("upstream", &upstreams, u));
    }
}

/// A route for a listener that has none.
fn no_requests(name: &Reference<'_>, listener: &super::listener::Draft<'_>, report: &Report) {
    let word = listener.listener.serves.as_str();
    let message = format!(
        "listener `{}` speaks `{word}`: it has no requests",
        name.value
    );
    let d = Diagnostic::error("wrong-protocol", name.at, message);
    let d = d.related(listener.name.at, "it is this one");
    let help = format!(
        "it has no routes: write upstream = \"NAME\" in [listeners.{}]",
        name.value
    );
    report.push(d.help(help));
}

/// What nothing leads to.
fn used(draft: &Draft<'_>, report: &Report) {
    let named: HashSet<&str> = draft
        .routes
        .iter()
        .flat_map(|r| &r.upstreams)
        .chain(draft.listeners.iter().flat_map(|l| &l.upstream))
        .chain(draft.listeners.iter().flat_map(|l| &l.targets))
        .map(|u| &*u.value)
        .collect();
    for upstream in draft
        .upstreams
        .iter()
        .filter(|u| !named.contains(&*u.name.value))
    {
        let message = format!("upstream `{}` is used by no route", *upstream.name);
        let d = Diagnostic::warning("unused-upstream", upstream.name.at, message);
        report.push(d.help("name it in a route or a listener, or remove it"));
    }
    let everywhere = draft.routes.iter().any(|r| r.listeners.is_empty());
    let reached: HashSet<&str> = draft
        .routes
        .iter()
        .flat_map(|r| &r.listeners)
        .map(|l| &*l.value)
        .collect();
    let of_requests = |l: &&super::listener::Draft<'_>| l.listener.serves == Serves::Http;
    let without = |l: &&super::listener::Draft<'_>| l.upstream.is_none();
    for l in draft.listeners.iter().filter(of_requests).filter(without) {
        if !everywhere && !reached.contains(&*l.name.value) {
            let message = format!(
                "listener `{}` has no route: every request gets 404",
                *l.name
            );
            let d = Diagnostic::warning("unused-listener", l.name.at, message);
            report.push(d.help("write upstream = \"NAME\" in it, or a route for it"));
        }
    }
    if !draft.listeners.iter().any(|l| of_requests(&l)) && !draft.routes.is_empty() {
        let at = draft.routes[0].at;
        let message = if draft.listeners.is_empty() {
            "there are routes but no listener"
        } else {
            "there are routes but no listener that speaks `http`"
        };
        let d = Diagnostic::warning("unused-route", at, message);
        report.push(d.help("write [listeners.web] with bind = \":8080\""));
    }
}

/// Zones of endpoints, where nobody knows which one is ours.
fn zones(draft: &Draft<'_>, main: &Main<'_>, report: &Report) {
    let zoned = draft.upstreams.iter().find_map(|u| u.zoned);
    if let (None, Some(at)) = (&main.process.zone, zoned) {
        let message = "endpoints have zones, but the process has none: no zone is preferred";
        let d = Diagnostic::warning("no-effect", at, message);
        report.push(d.help("say where isobar stands: zone = \"a\" in [process]"));
    }
}

/// Endpoints that may say that they are there, where nobody takes them.
fn registrations(draft: &Draft<'_>, main: &Main<'_>, report: &Report) {
    let Some(bind) = main
        .fleet
        .as_ref()
        .and_then(|fleet| fleet.register.as_ref())
    else {
        return;
    };
    if draft.upstreams.iter().any(|u| u.upstream.dynamic) {
        return;
    }
    let message = "`register` of `fleet` does nothing: no upstream has `dynamic = true`";
    let d = Diagnostic::warning("no-effect", bind.at, message);
    let help = "write dynamic = true in the upstream that endpoints may join";
    report.push(d.help(help));
}

/// Deadlines that cannot both be met.
fn timeouts(draft: &Draft<'_>, report: &Report) {
    let connect: HashMap<&str, _> = draft
        .upstreams
        .iter()
        .map(|u| (&*u.name.value, u.upstream.connect_timeout))
        .collect();
    for route in &draft.routes {
        let Some(timeout) = route.timeout else {
            continue;
        };
        for name in &route.upstreams {
            if let Some(connect) = connect.get(&*name.value).filter(|c| **c > timeout.value) {
                let connect = super::super::units::format_duration(*connect);
                let message = format!(
                    "`timeout` is shorter than the `connect_timeout` of upstream `{}` ({connect})",
                    name.value
                );
                let d = Diagnostic::warning("timeout-order", timeout.at, message);
                report.push(d.help("the whole exchange may not last longer than one connect"));
            }
        }
    }
}

/// `upstream = "app"` in a listener: a catch-all route that bears the listener's name.
fn shorthand(draft: &super::listener::Draft<'_>) -> Option<Route> {
    let upstream = draft.upstream.as_ref()?;
    Some(Route {
        name: draft.listener.name.clone(),
        rule: Rule {
            listeners: vec![draft.listener.name.clone()],
            ..Rule::default()
        },
        action: Action::Upstream(upstream.value.clone()),
        timeout: None,
        rewrite: Rewrite::default(),
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        retry: Retry::default(),
        rate_limits: Vec::new(),
        max_concurrent: None,
    })
}

/// Derived names that meet again get `#2`, `#3`; given names never hold a `#`.
fn uniquify(routes: &mut [route::Draft<'_>]) {
    let given: Vec<Name> = routes
        .iter()
        .filter_map(|r| Some(r.name.as_ref()?.value.clone()))
        .collect();
    let mut seen: HashMap<Name, usize> = given.into_iter().map(|n| (n, 1)).collect();
    for draft in routes.iter_mut().filter(|r| r.name.is_none()) {
        let base = draft.route.name.clone();
        let count = seen.entry(base.clone()).or_insert(0);
        *count += 1;
        if *count > 1 {
            draft.route.name = Arc::from(format!("{base}#{count}"));
        }
    }
}
