//! The certificates of listeners: made before they are served, taken over where nothing changed,
//! looked after while they are served.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::{Clock, Nanos, nanos};
use crate::base::tls::{CertificateError, CertificateFacts, Look, TlsServer};
use crate::config::{Config, Name};
use crate::proxy::snapshot::{ListenerPlan, Snapshot};
use crate::telemetry::history::{Cause, Timeline, What, utc};
use crate::telemetry::metrics::registry::{Certificates, Registry};

use super::ticket_keys::TicketKeys;

/// The TLS servers of listeners; who is not among them speaks clear text.
pub type TlsServers = HashMap<Name, Arc<TlsServer>>;

/// Looks at the files of certificates while they are served.
#[derive(Debug)]
pub struct CertificateWatch {
    clock: Clock,
    next: Nanos,
}

/// How often: soon enough for who renews by hand and watches, and a few calls of stat(2) cost nothing.
const EVERY: Duration = Duration::from_secs(10);

/// Makes the servers that `config` wants. One of `before` that was made for the same is taken over as it
/// is; nothing of it is changed yet.
///
/// # Errors
/// The listener, and what is wrong with one of its files.
pub fn prepare(
    config: &Config,
    before: Option<&Snapshot>,
    keys: &TicketKeys,
) -> Result<TlsServers, (Name, CertificateError)> {
    let old: HashMap<&str, &Arc<TlsServer>> = before
        .into_iter()
        .flat_map(|before| before.listeners.iter().flatten())
        .filter_map(|plan| Some((&*plan.spec.name, plan.tls.as_ref()?)))
        .collect();
    let mut servers = TlsServers::new();
    for listener in &config.listeners {
        let Some(tls) = &listener.tls else {
            continue;
        };
        let name = &listener.name;
        let secrets = keys.get(name);
        let server = match old.get(&**name) {
            Some(old) if *old.spec() == tls.server && old.has_tickets() == secrets.is_some() => {
                Arc::clone(old)
            }
            _ => {
                let made = TlsServer::new(&tls.server, secrets.cloned());
                Arc::new(made.map_err(|error| (name.clone(), error))?)
            }
        };
        servers.insert(name.clone(), server);
    }
    Ok(servers)
}

/// Shows what `snapshot`, which is published now, serves, and says what operators should know of it.
/// Servers that were taken over go on with the secrets of now.
pub fn settle(snapshot: &Snapshot, keys: &TicketKeys, registry: &Registry) {
    let now = (Clock::start().unix_ms() / 1000) as i64;
    for plan in snapshot.listeners.iter().flatten() {
        let name = &plan.spec.name;
        let Some(tls) = &plan.tls else {
            registry.set_certificates(name, None);
            continue;
        };
        if let Some(secrets) = keys.get(name) {
            tls.set_secrets(secrets);
        }
        show(name, tls, registry);
        for warning in tls.facts().iter().flat_map(|facts| facts.warnings(now)) {
            tracing::warn!("listener `{name}`: {warning}");
        }
    }
}

fn show(name: &Name, tls: &TlsServer, registry: &Registry) {
    // Certificates of several kinds for one name are one series: the one that expires first.
    let mut expiries: Vec<(String, i64)> = Vec::new();
    for facts in &*tls.facts() {
        match expiries.iter_mut().find(|(name, _)| name == facts.name()) {
            Some((_, not_after)) => *not_after = facts.not_after.min(*not_after),
            None => expiries.push((facts.name().to_owned(), facts.not_after)),
        }
    }
    let certificates = Certificates {
        expiries,
        is_failing: tls.is_failing(),
    };
    registry.set_certificates(name, Some(certificates));
}

// === impl CertificateWatch ===

impl CertificateWatch {
    /// The first look is one period from now.
    pub fn new() -> Self {
        let clock = Clock::start();
        let next = clock.now().saturating_add(nanos(EVERY));
        Self { clock, next }
    }

    /// Whether it is time to look.
    pub fn is_due(&self) -> bool {
        self.clock.now() >= self.next
    }

    /// Looks at the files of all that `snapshot` serves: new ones that are whole are served from now on.
    /// Blocks for files that have changed.
    pub fn look(&mut self, snapshot: &Snapshot, registry: &Registry, timeline: &Timeline) {
        self.next = self.clock.now().saturating_add(nanos(EVERY));
        for plan in snapshot.listeners.iter().flatten() {
            if let Some(tls) = &plan.tls {
                self.look_at(plan, tls, registry, timeline);
            }
        }
    }

    fn look_at(
        &self,
        plan: &ListenerPlan,
        tls: &TlsServer,
        registry: &Registry,
        timeline: &Timeline,
    ) {
        let name = &plan.spec.name;
        let cells = plan.cells.control();
        let text = match tls.look() {
            Look::Same => return,
            Look::Failed(error) => {
                cells.failed_renewals.inc();
                let text = format!(
                    "listener `{name}`: its certificate files have changed and cannot be served; \
                     those of before are served on: {error}"
                );
                tracing::error!("{text}");
                text
            }
            Look::Recovered => {
                cells.renewals.inc();
                let text = format!("listener `{name}`: its certificate files can be served again");
                tracing::info!("{text}");
                text
            }
            Look::Renewed => {
                cells.renewals.inc();
                let facts = tls.facts();
                let all: Vec<String> = facts.iter().map(in_words).collect();
                let text = format!(
                    "listener `{name}`: certificates renewed: {}",
                    all.join("; ")
                );
                tracing::info!("{text}");
                let now = (self.clock.unix_ms() / 1000) as i64;
                for warning in facts.iter().flat_map(|facts| facts.warnings(now)) {
                    tracing::warn!("listener `{name}`: {warning}");
                }
                text
            }
        };
        show(name, tls, registry);
        let what = What::Certificates {
            listener: name.to_string(),
        };
        timeline.record(self.clock.unix_ms(), Cause::Files, what, text);
    }
}

impl Default for CertificateWatch {
    fn default() -> Self {
        Self::new()
    }
}

/// `a.test, b.test until 2027-01-01T00:00:00Z`
fn in_words(facts: &CertificateFacts) -> String {
    let names = match facts.names.as_slice() {
        [] => facts.subject.clone(),
        names => names.join(", "),
    };
    let until = facts.not_after.max(0) as u64;
    format!("{names} until {}", utc(until.saturating_mul(1000)))
}

#[cfg(test)]
mod tests;
