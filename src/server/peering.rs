//! This process as a peer of its fleet: how it begins, and where endpoints register themselves.

use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::admin::register::{
    self, Desk, MemberView, RegisterError, Registrar, Registration, Rules, Wish,
};
use crate::base::addr::EndpointAddr;
use crate::config::{self, Config};
use crate::fleet::peer::NotRegistered;
use crate::fleet::standing::{Seen, Terms};
use crate::proxy::snapshot::Published;
use crate::runtime::fleet::{Begun, Fleet, FleetError, Sockets, advertised, begin};
use crate::telemetry::metrics::registry::Registry;
use crate::upstream::overrides::{Overrides, changed_parts};
use crate::upstream::{Admits, Upstream};

/// A peer that is about to run.
#[derive(Debug)]
pub(super) struct Peering {
    pub(super) begun: Begun,
    /// `None` = the process before holds them yet.
    pub(super) sockets: Option<Sockets>,
    pub(super) counter: Option<Counter>,
}

/// Where endpoints register themselves.
#[derive(Debug)]
pub(super) struct Counter {
    spec: config::Register,
    /// `None` = the process before holds it yet.
    listener: Option<TcpListener>,
    rules: Rules,
}

/// How often a successor tries to bind what the process before it still holds.
const SUCCEED_EVERY: Duration = Duration::from_millis(20);

/// How often it is looked whether the file of tokens is another one, or a reload names another.
const RULES_EVERY: Duration = Duration::from_secs(2);

/// What this process is in its fleet, if it has one. What the fleet knew when it was last here is in `overrides` then.
/// `generation` counts the processes before it, who may hold its sockets.
///
/// # Errors
/// What cannot be had; nothing is bound then.
pub(super) fn begin_with(
    config: &Config,
    generation: u64,
    registry: &Registry,
    overrides: &mut Overrides,
) -> Result<Option<Peering>, FleetError> {
    let Some(spec) = &config.fleet else {
        return Ok(None);
    };
    let sockets = match Sockets::bind(spec.bind) {
        Ok(sockets) => Some(sockets),
        Err(_) if generation > 0 => None,
        Err(error) => return Err(error),
    };
    let counter = match &spec.register {
        Some(register) => Some(Counter::new(register, generation)?),
        None => None,
    };
    let bound = sockets.as_ref().and_then(Sockets::addr);
    let addr = advertised(spec, bound.unwrap_or(spec.bind))?;
    let begun = begin(spec.clone(), addr, registry)?;
    // What operators said here before there was a fleet is the fleet's now; so is what they said and this process lost
    // before it was saved with the rest.
    let before = Overrides::default();
    for (upstream, endpoint) in overrides.endpoints() {
        let mut parts = changed_parts(&before, overrides, upstream, endpoint);
        parts.retain(|(_, word)| {
            let said = word.as_ref().map(|(_, by)| by.since_unix_ms);
            said.is_some_and(|at| at >= begun.missing_since)
        });
        begun.fleet.recall(upstream, endpoint, parts);
    }
    for upstream in &config.upstreams {
        if let Some(told) = begun.fleet.told(upstream, &|_| Seen::Unknown) {
            overrides.heed(told, upstream);
        }
    }
    Ok(Some(Peering {
        begun,
        sockets,
        counter,
    }))
}

// === impl Counter ===

impl Counter {
    fn new(spec: &config::Register, generation: u64) -> Result<Self, FleetError> {
        let rules = Rules::read(spec).map_err(|error| FleetError::Tokens(error.to_string()))?;
        let listener = match TcpListener::bind(spec.bind) {
            Ok(listener) => Some(listener),
            Err(_) if generation > 0 => None,
            Err(source) => {
                return Err(FleetError::Bind {
                    addr: spec.bind,
                    what: "registrations",
                    source,
                });
            }
        };
        Ok(Self {
            spec: spec.clone(),
            listener,
            rules,
        })
    }

    /// Serves until `stop`. Cancel safe: dropping it closes every connection.
    pub(super) async fn serve(
        self,
        fleet: Fleet,
        published: Arc<Published>,
        stop: CancellationToken,
    ) {
        let Self {
            spec,
            listener,
            rules,
        } = self;
        let rules = Arc::new(ArcSwap::from_pointee(rules));
        let desk = Desk {
            registrar: Arc::new(Window {
                fleet: fleet.clone(),
                published,
            }),
            rules: rules.clone(),
        };
        let serving = async {
            let listener = match listener {
                Some(listener) => listener,
                None => succeed(&spec).await,
            };
            if let Err(error) = register::serve(listener, desk, stop.clone()).await {
                tracing::error!(%error, "fleet: registrations are not served");
            }
        };
        // The second never ends.
        tokio::select! {
            () = serving => {}
            () = follow_rules(&spec, &fleet, &rules) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Binds when the process before has let go. Cancel safe.
async fn succeed(spec: &config::Register) -> TcpListener {
    loop {
        match TcpListener::bind(spec.bind) {
            Ok(listener) => return listener,
            Err(_in_use) => sleep(SUCCEED_EVERY).await,
        }
    }
}

/// Takes over the tokens of a file that has changed, and what a reload says of registrations; what cannot be used leaves
/// what was. Cancel safe.
async fn follow_rules(begun: &config::Register, fleet: &Fleet, rules: &ArcSwap<Rules>) {
    let mut before = (begun.clone(), version(&begun.token_file));
    loop {
        sleep(RULES_EVERY).await;
        // Where it is served stays what it was.
        let wanted = fleet.wanted().register.clone();
        let spec = wanted.unwrap_or_else(|| before.0.clone());
        let path = spec.token_file.clone();
        let now = tokio::task::spawn_blocking(move || version(&path)).await;
        let Ok(now) = now else { continue };
        if (&spec, &now) == (&before.0, &before.1) {
            continue;
        }
        before = (spec.clone(), now);
        match tokio::task::spawn_blocking(move || Rules::read(&spec)).await {
            Ok(Ok(next)) => {
                rules.store(Arc::new(next));
                tracing::info!("fleet: registrations follow the tokens and `max_ttl` of now");
            }
            Ok(Err(error)) => tracing::error!("fleet: {error}; those from before hold"),
            Err(_) => {}
        }
    }
}

/// What tells one content of a file from another.
fn version(path: &Path) -> Option<(SystemTime, u64)> {
    let about =
        std::fs::metadata(path).and_then(|about| io::Result::Ok((about.modified()?, about.len())));
    about.ok()
}

/// Takes registrations for the fleet.
#[derive(Debug)]
struct Window {
    fleet: Fleet,
    published: Arc<Published>,
}

// === impl Window ===

impl Window {
    fn upstream(&self, name: &str) -> Result<Arc<Upstream>, RegisterError> {
        let snapshot = self.published.snapshot.load();
        let found = snapshot.upstreams.iter().find(|u| &*u.spec.name == name);
        found
            .cloned()
            .ok_or_else(|| RegisterError::UnknownUpstream {
                upstream: name.into(),
            })
    }

    fn dynamic(&self, name: &str) -> Result<Arc<Upstream>, RegisterError> {
        let upstream = self.upstream(name)?;
        if !upstream.spec.dynamic {
            return Err(RegisterError::NotDynamic {
                upstream: upstream.spec.name.clone(),
            });
        }
        if self.fleet.is_frozen() {
            let why = "its successor is starting";
            return Err(RegisterError::Unready { why });
        }
        Ok(upstream)
    }
}

impl Registrar for Window {
    fn register(&self, wish: Wish) -> Result<Registration, RegisterError> {
        let upstream = self.dynamic(&wish.upstream)?;
        let is_new = !self.is_registered(&wish.upstream, &wish.endpoint);
        let terms = Terms {
            weight: wish.weight,
            zone: wish.zone,
            ttl: wish.ttl,
        };
        let name = &upstream.spec.name;
        let Some(registered) = self.fleet.register(name, &wish.endpoint, terms) else {
            let why = "it takes no part in its fleet any more";
            return Err(RegisterError::Unready { why });
        };
        match registered {
            Ok(registrar) => Ok(Registration {
                registrar: registrar.to_string(),
                is_new,
            }),
            Err(NotRegistered::Full(full)) => Err(RegisterError::Full(full.to_string())),
            Err(NotRegistered::Flaw(flaw)) => Err(RegisterError::Full(flaw.to_string())),
        }
    }

    fn is_registered(&self, upstream: &str, endpoint: &EndpointAddr) -> bool {
        self.fleet.is_registered(upstream, endpoint)
    }

    fn deregister(&self, upstream: &str, endpoint: &EndpointAddr) -> Result<bool, RegisterError> {
        let upstream = self.dynamic(upstream)?;
        Ok(self.fleet.deregister(&upstream.spec.name, endpoint))
    }

    fn members(&self, upstream: &str) -> Result<Vec<MemberView>, RegisterError> {
        let upstream = self.upstream(upstream)?;
        let members = upstream.members.load();
        let view = |at: usize| {
            let endpoint = &members.endpoints[at];
            let is_listed = upstream
                .spec
                .endpoints
                .iter()
                .any(|e| e.addr == endpoint.addr);
            let origin = if is_listed {
                "file"
            } else if self
                .fleet
                .has_registration(&upstream.spec.name, &endpoint.addr)
            {
                "registered"
            } else {
                "operator"
            };
            let state = match members.admits[at] {
                Admits::All => "active",
                Admits::Sticky => "drain",
                Admits::Nobody => "disable",
            };
            MemberView {
                endpoint: endpoint.name.to_string(),
                weight: members.members[at].weight,
                state: state.to_owned(),
                origin: origin.to_owned(),
            }
        };
        Ok((0..members.endpoints.len()).map(view).collect())
    }
}
