//! Endpoints that are left alone for a while, for what requests said of them: who, and until when.

use std::sync::Arc;

use crate::base::clock::{Nanos, nanos};
use crate::config::{Mode, Name};
use crate::guard::outlier::{Sentence, Trip, may_eject};
use crate::upstream::{Admits, Ejection, Endpoint, Upstream};

/// The record of every endpoint that was ejected and may be remembered for it.
#[derive(Debug, Default)]
pub struct Ejections(Vec<Case>);

#[derive(Debug)]
struct Case {
    upstream: Name,
    endpoint: Arc<Endpoint>,
    sentence: Sentence,
    /// Until when it is not told again that it is spared.
    told_until: Nanos,
}

/// What became of evidence against an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is ejected for so long.
    Ejected(Nanos),
    /// It would be, were too many not ejected already, or another one ready.
    Spared,
    /// It would be, had its upstream not been told to observe.
    Observed,
    /// It is ejected already, or no member any more; or that it is spared was told just now.
    Moot,
}

// === impl Ejections ===

impl Ejections {
    /// Judges `endpoint`, a member of `upstream`, and notes what comes of it on the endpoint; to be
    /// published by the caller.
    pub fn convict(
        &mut self,
        upstream: &Upstream,
        endpoint: &Arc<Endpoint>,
        trip: &Trip,
        (now, unix_ms): (Nanos, u64),
    ) -> Verdict {
        let spec = &upstream.spec.outlier;
        let members = upstream.members.load();
        let is_member = members.endpoints.iter().any(|e| Arc::ptr_eq(e, endpoint));
        if !is_member || endpoint.is_ejected() {
            return Verdict::Moot;
        }
        let cells = endpoint.cells.control();
        let (eject_for, max_eject) = (nanos(spec.eject_for), nanos(spec.max_eject));
        let known = self
            .0
            .iter()
            .position(|c| Arc::ptr_eq(&c.endpoint, endpoint));
        let at = known.unwrap_or_else(|| {
            self.0.push(Case {
                upstream: upstream.spec.name.clone(),
                endpoint: endpoint.clone(),
                sentence: Sentence::default(),
                told_until: 0,
            });
            self.0.len() - 1
        });
        let case = &mut self.0[at];
        // An endpoint that nobody can do without fails thousands of times a second: once in a while is
        // news enough.
        let mut spare = |verdict| {
            cells.ejections_spared.inc();
            if now < case.told_until {
                return Verdict::Moot;
            }
            case.told_until = now.saturating_add(eject_for);
            verdict
        };
        if spec.mode == Mode::Observe {
            return spare(Verdict::Observed);
        }
        let admitted = || {
            let places = members.endpoints.iter().zip(&members.admits);
            places.filter(|(_, admits)| **admits == Admits::All)
        };
        let total = admitted().count();
        let ejected = admitted().filter(|(e, _)| e.is_ejected()).count();
        // In whatever tier: a backup that has no share yet gets one when nobody else is left.
        // Those that were ejected since the members were published are no help any more.
        let places = members.endpoints.iter().enumerate();
        let ready = places.filter(|(i, e)| members.is_eligible(*i) && !e.is_ejected());
        let ready = ready.count();
        if !may_eject(ejected, ready, total, spec.max_ejected) {
            return spare(Verdict::Spared);
        }
        let until = self.0[at].sentence.begin(now, eject_for, max_eject);
        let length = until.saturating_sub(now);
        endpoint.set_ejection(Some(Ejection {
            until_unix_ms: unix_ms.saturating_add(length / 1_000_000),
            why: trip.to_string(),
        }));
        cells.ejections.inc();
        Verdict::Ejected(length)
    }

    /// A check found the endpoint up: whether that ended an ejection.
    pub fn pardon(&mut self, endpoint: &Arc<Endpoint>, now: Nanos) -> bool {
        let case = self
            .0
            .iter_mut()
            .find(|c| Arc::ptr_eq(&c.endpoint, endpoint));
        if let Some(case) = case {
            case.sentence.end(now);
        }
        let was_ejected = endpoint.is_ejected();
        endpoint.set_ejection(None);
        was_ejected
    }

    /// Those whose time is over, by upstream; to be published by the caller.
    pub fn release(&mut self, now: Nanos) -> Vec<(Name, Arc<Endpoint>)> {
        let mut released = Vec::new();
        self.0.retain(|case| {
            if case.endpoint.is_ejected() && !case.sentence.is_ejected(now) {
                case.endpoint.set_ejection(None);
                released.push((case.upstream.clone(), case.endpoint.clone()));
            }
            // Nobody else knows it any more: it has left.
            Arc::strong_count(&case.endpoint) > 1
        });
        released
    }
}
