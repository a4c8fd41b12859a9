//! Config -> Snapshot: names become pointers, metric handles are resolved, tables are built.
//!
//! A second compilation takes over from the first whatever did not change: an upstream with an
//! equal spec is the same object, an endpoint that stays is the same object even when its upstream
//! changed. That is what lets pools, loads, learned limits and turns live through a reload.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::balance::Factory;
use crate::balance::sticky::Keyring;
use crate::base::addr::EndpointAddr;
use crate::base::clock::{Clock, nanos};
use crate::config::{self, Action, Config, Name, Serves};
use crate::health::threshold::Threshold;
use crate::proxy::limit::RouteLimits;
use crate::proxy::snapshot::{Layer4, ListenerPlan, Plan, RoutePlan, Snapshot};
use crate::route::RouteTable;
use crate::telemetry::metrics::registry::Registry;
use crate::upstream::{Admits, Endpoint, Health, Making, Seat, Signals, Since, Tier, Upstream};

use super::certificates::TlsServers;
use super::sticky_keys::Keyrings;

/// Where requests are counted that no route answers; no route can have this name.
pub const UNROUTED: &str = "(none)";

/// What one compilation knows of those before it.
#[derive(Debug)]
pub struct Compiler {
    balancers: BTreeMap<String, Factory>,
    registry: Arc<Registry>,
    seed: u64,
    signals: Signals,
    clock: Clock,
    /// A name keeps its slot for the life of the process, present or not.
    slots: HashMap<Name, usize>,
    /// Compilations so far.
    versions: u64,
    /// Upstreams made so far.
    upstreams: u64,
}

/// A member of an upstream as it is wanted: the file's word, or an operator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where it is.
    pub addr: EndpointAddr,
    /// Its weight.
    pub weight: u32,
    /// Whom it serves.
    pub admits: Admits,
    /// Where it stands, if it said so itself; of those that the file lists, the file says it.
    pub zone: Option<Name>,
    /// If it is new: one peer of the fleet has added more than it may, so it has no picks before a check has found
    /// it up.
    pub is_unproven: bool,
}

/// What a snapshot has that the configuration only names: it was read from other files.
#[derive(Debug, Default)]
pub struct FromFiles {
    /// What cookies are signed with.
    pub keyrings: Keyrings,
    /// What speaks TLS.
    pub tls: TlsServers,
}

/// What stays from before: by (upstream, address).
pub type Known = HashMap<(Name, EndpointAddr), Arc<Endpoint>>;

// === impl Compiler ===

impl Compiler {
    /// A compiler that has compiled nothing yet; upstreams named in `balancers` get theirs there.
    pub fn new(
        balancers: BTreeMap<String, Factory>,
        registry: Arc<Registry>,
        signals: Signals,
        seed: u64,
    ) -> Self {
        Self {
            balancers,
            registry,
            seed,
            signals,
            clock: Clock::start(),
            slots: HashMap::new(),
            versions: 0,
            upstreams: 0,
        }
    }

    /// Compiles a checked configuration. `slots[i]` is the slot of listener `i`; `before` is the
    /// configuration that it replaces, `known` the endpoints that are still alive, `files` what
    /// it only names; `wanted` says which members an upstream is to have.
    pub fn compile(
        &mut self,
        config: &Config,
        slots: &[usize],
        before: Option<&Snapshot>,
        known: &Known,
        files: &FromFiles,
        wanted: impl Fn(&config::Upstream) -> Vec<Wanted>,
    ) -> Snapshot {
        self.versions += 1;
        let old: HashMap<&str, &Arc<Upstream>> = before
            .into_iter()
            .flat_map(|b| &b.upstreams)
            .map(|u| (&*u.spec.name, u))
            .collect();
        let zone = config.process.zone.as_ref();
        let upstreams: Vec<Arc<Upstream>> = config
            .upstreams
            .iter()
            .map(|spec| {
                let old = old.get(&*spec.name).copied();
                let keyring = files.keyrings.get(&spec.name).cloned().unwrap_or_default();
                let is_same = |old: &Upstream| {
                    old.spec == *spec && old.zone.as_ref() == zone && old.keyring == keyring
                };
                match old {
                    Some(old) if is_same(old) => old.clone(),
                    _ => Arc::new(self.upstream(spec, zone, keyring, old, known, &wanted(spec))),
                }
            })
            .collect();
        let by_name: HashMap<Name, &Arc<Upstream>> =
            upstreams.iter().map(|u| (u.spec.name.clone(), u)).collect();
        let names: Vec<Name> = config.listeners.iter().map(|l| l.name.clone()).collect();
        let mut listeners = vec![None; slots.iter().max().map_or(0, |max| max + 1)];
        for (i, (spec, slot)) in config.listeners.iter().zip(slots).enumerate() {
            let cells = self.registry.listener(&spec.name);
            let tls = files.tls.get(&spec.name).cloned();
            let old = before.and_then(|before| before.listener(*slot));
            let layer4 = layer4(spec, old, &by_name, self.seed ^ *slot as u64);
            let plan = ListenerPlan::new(spec.clone(), i, tls, layer4, cells);
            listeners[*slot] = Some(Arc::new(plan));
        }
        let limits: HashMap<&str, &Arc<RouteLimits>> = before
            .into_iter()
            .flat_map(|b| &b.plans)
            .filter_map(|p| Some((&*p.name, p.limits.as_ref()?)))
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
                retry: route.retry.clone(),
                limits: RouteLimits::new(
                    &route.rate_limits,
                    route.max_concurrent,
                    limits.get(&*route.name).copied(),
                    self.seed,
                ),
                cells: self.registry.route(&route.name),
            })
            .collect();
        let rules = config
            .routes
            .iter()
            .map(|route| (route.rule.clone(), ()))
            .collect();
        Snapshot {
            version: self.versions,
            listeners,
            routes: RouteTable::build(&names, rules),
            plans,
            unrouted: self.registry.route(UNROUTED),
            upstreams,
        }
    }

    /// The seats of `wanted`; endpoints that are not known are made. What is known of the health of
    /// the others stays, as long as somebody checks it.
    pub fn seats(
        &self,
        spec: &config::Upstream,
        zone: Option<&Name>,
        known: &Known,
        wanted: &[Wanted],
    ) -> Vec<Seat> {
        // Those that were added have no place in the file: first tier, where they say that they stand.
        let places: HashMap<&EndpointAddr, Tier> = spec
            .endpoints
            .iter()
            .filter_map(|e| {
                Some((
                    &e.addr,
                    Some(tier(e, zone)).filter(|t| *t != Tier::default())?,
                ))
            })
            .collect();
        wanted
            .iter()
            .map(|wanted| {
                let known = known.get(&(spec.name.clone(), wanted.addr.clone()));
                let endpoint = known.cloned().unwrap_or_else(|| {
                    let addr = wanted.addr.clone();
                    Arc::new(Endpoint::new(addr, &spec.name, &self.registry))
                });
                let is_awaited = wanted.is_unproven && spec.health.is_some();
                let has_changed = if is_awaited {
                    endpoint.await_proof()
                } else {
                    endpoint.waive_proof()
                };
                let health = match (&spec.health, known.map(|known| known.verdict())) {
                    (None, _) => Health::Unchecked,
                    (Some(_), _) if is_awaited && has_changed => Health::Down,
                    // What was found of it meanwhile is known; if nothing was, it is a new one like others.
                    (Some(_), Some(_)) if has_changed && has_failed(&endpoint) => Health::Down,
                    (Some(checks), None) => Threshold::new(checks).health(),
                    (Some(checks), Some(_)) if has_changed => Threshold::new(checks).health(),
                    // It took requests until now: that checks begin is no reason to take it down.
                    (Some(_), Some(Health::Unchecked)) => Health::Up,
                    (Some(_), Some(health)) => health,
                };
                endpoint.set_health(health);
                if is_awaited && has_changed {
                    endpoint.set_since(Since {
                        at_unix_ms: self.clock.unix_ms(),
                        why: "no check has found it up yet, and one peer has added more than it may without that"
                            .to_owned(),
                    });
                }
                if spec.health.is_none() {
                    endpoint.forget_checks();
                }
                if spec.agent.is_none() {
                    // Nobody could take back what it said.
                    endpoint.forget_said();
                }
                Seat {
                    health: endpoint.health(),
                    endpoint,
                    weight: wanted.weight,
                    admits: wanted.admits,
                    tier: match places.get(&wanted.addr) {
                        Some(tier) => *tier,
                        None => Tier {
                            is_remote: is_remote(wanted.zone.as_ref(), zone),
                            ..Tier::default()
                        },
                    },
                }
            })
            .collect()
    }

    fn upstream(
        &mut self,
        spec: &config::Upstream,
        zone: Option<&Name>,
        keyring: Keyring,
        old: Option<&Arc<Upstream>>,
        known: &Known,
        wanted: &[Wanted],
    ) -> Upstream {
        let next = self.slots.len();
        let slot = *self.slots.entry(spec.name.clone()).or_insert(next);
        self.upstreams += 1;
        let seats = self.seats(spec, zone, known, wanted);
        let making = Making {
            number: (slot, self.upstreams),
            custom: self.balancers.get(&*spec.name).cloned(),
            keyring,
            zone: zone.cloned(),
            previous: old.map(|old| &**old),
            registry: &self.registry,
            seed: self.seed ^ slot as u64,
            now: self.clock.now(),
            signals: self.signals.clone(),
        };
        Upstream::new(spec.clone(), &seats, making)
    }
}

/// Whether the last check of an endpoint did not pass.
fn has_failed(endpoint: &Endpoint) -> bool {
    let last = endpoint.last_check();
    last.is_some_and(|last| last.text.is_some())
}

/// After whom an endpoint in `place`, as the file has it, is used by a process in `zone`.
fn tier(place: &config::Endpoint, zone: Option<&Name>) -> Tier {
    Tier {
        priority: place.priority,
        is_remote: is_remote(place.zone.as_ref(), zone),
    }
}

/// Whether what stands in `place` is in another zone than `own`, as far as both are known.
fn is_remote(place: Option<&Name>, own: Option<&Name>) -> bool {
    place.zip(own).is_some_and(|(place, own)| place != own)
}

/// Where `listener` passes things on; `old` is what it was before.
fn layer4(
    listener: &config::Listener,
    old: Option<&ListenerPlan>,
    upstreams: &HashMap<Name, &Arc<Upstream>>,
    seed: u64,
) -> Layer4 {
    let rate_limits = match &listener.serves {
        Serves::Http => &[][..],
        Serves::Tcp(tcp) => &tcp.rate_limits,
        Serves::Udp(udp) => &udp.rate_limits,
    };
    let other = listener.detect.as_ref().and_then(|d| d.other.as_ref());
    let old_limits = old.and_then(|old| old.layer4.limits.as_ref());
    Layer4 {
        upstream: listener.serves.upstream().map(|name| find(name, upstreams)),
        passthrough: listener
            .passthrough
            .iter()
            .map(|to| (to.clone(), find(&to.upstream, upstreams)))
            .collect(),
        other: other.map(|name| find(name, upstreams)),
        limits: RouteLimits::new(rate_limits, None, old_limits, seed),
    }
}

fn find(name: &Name, upstreams: &HashMap<Name, &Arc<Upstream>>) -> Arc<Upstream> {
    let found = upstreams.get(name).copied().cloned();
    found.expect("invariant: config::lower refuses names of upstreams that do not exist")
}

fn plan(action: &Action, upstreams: &HashMap<Name, &Arc<Upstream>>) -> Plan {
    let find = |name: &Name| find(name, upstreams);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::cells::CheckResult;
    use crate::upstream::{LastCheck, Proof};

    /// What a compiler makes of one endpoint of an upstream with these lines.
    struct Bed {
        compiler: Compiler,
        config: Config,
        known: Known,
    }

    impl Bed {
        fn new(lines: &str) -> Self {
            let text = format!(
                "[listeners.web]\nbind = ':8080'\nupstream = 'app'\n[upstreams.app]\nendpoints = ['10.0.0.1:80']\n{lines}\n"
            );
            let config = config::parse("test", &text).unwrap().config;
            let (signals, _) = Signals::channel();
            let registry = Arc::new(Registry::new(1));
            Self {
                compiler: Compiler::new(BTreeMap::new(), registry, signals, 7),
                config,
                known: Known::new(),
            }
        }

        fn seat(&mut self, is_unproven: bool) -> Seat {
            let spec = &self.config.upstreams[0];
            let wanted = Wanted {
                addr: spec.endpoints[0].addr.clone(),
                weight: 1,
                admits: Admits::All,
                zone: None,
                is_unproven,
            };
            let seat = self
                .compiler
                .seats(spec, None, &self.known, &[wanted])
                .remove(0);
            let key = (spec.name.clone(), seat.endpoint.addr.clone());
            self.known.insert(key, seat.endpoint.clone());
            seat
        }
    }

    fn check(passed: bool) -> LastCheck {
        LastCheck {
            at_unix_ms: 1,
            took_ms: 1,
            result: if passed {
                CheckResult::Ok
            } else {
                CheckResult::Connect
            },
            text: (!passed).then(|| "connection refused".to_owned()),
        }
    }

    #[test]
    fn who_is_to_be_found_up_first_is_down_until_then() {
        let mut bed = Bed::new("health.check = 'tcp'");
        assert_eq!(bed.seat(false).health, Health::Up, "as `init_state` says");
        // Whoever decided so: it is new no more than it was.
        let seat = bed.seat(true);
        assert_eq!(
            (seat.health, seat.endpoint.proof()),
            (Health::Down, Proof::Awaited)
        );
        assert!(
            seat.endpoint
                .since()
                .unwrap()
                .why
                .contains("no check has found it up yet")
        );
        assert_eq!(bed.seat(true).health, Health::Down);
        // A check does, and what is said here of it may be older.
        seat.endpoint.found_up();
        seat.endpoint.set_health(Health::Up);
        assert_eq!(bed.seat(true).health, Health::Up);
        assert_eq!(bed.seat(false).health, Health::Up);
    }

    #[test]
    fn who_need_not_be_found_up_any_more_is_taken_for_what_is_known_of_it() {
        for (last, health) in [
            (None, Health::Up),
            (Some(check(true)), Health::Up),
            (Some(check(false)), Health::Down),
        ] {
            let mut bed = Bed::new("health.check = 'tcp'");
            let seat = bed.seat(true);
            assert_eq!(seat.health, Health::Down);
            if let Some(last) = last.clone() {
                seat.endpoint.set_last_check(last);
            }
            let seat = bed.seat(false);
            assert_eq!(seat.health, health, "{last:?}");
            assert_eq!(seat.endpoint.proof(), Proof::Taken);
        }
        let mut bed = Bed::new("health = { check = 'tcp', init_state = 'down' }");
        bed.seat(true);
        assert_eq!(bed.seat(false).health, Health::Down);
    }

    #[test]
    fn nobody_waits_for_checks_that_there_are_not() {
        let mut bed = Bed::new("");
        let seat = bed.seat(true);
        assert_eq!(
            (seat.health, seat.endpoint.proof()),
            (Health::Unchecked, Proof::Taken)
        );
        // They have ended.
        let mut bed = Bed::new("health.check = 'tcp'");
        bed.seat(true);
        let spec = Bed::new("").config;
        bed.config = spec;
        let seat = bed.seat(true);
        assert_eq!(
            (seat.health, seat.endpoint.proof()),
            (Health::Unchecked, Proof::Taken)
        );
    }
}
