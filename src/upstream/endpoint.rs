//! One endpoint as all workers share it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use crate::base::addr::EndpointAddr;
use crate::base::clock::Nanos;
use crate::base::hash::hash;
use crate::base::load::Load;
use crate::telemetry::metrics::cell::PerWorker;
use crate::telemetry::metrics::cells::{CheckResult, EndpointCells};
use crate::telemetry::metrics::registry::Registry;

use super::IdleLimit;
use super::said::Said;

/// One address of an upstream. Its identity is (upstream, address): load, learned limits and idle
/// connections survive generations.
#[derive(Debug)]
pub struct Endpoint {
    /// The address as text: name in logs and metrics, identity for hash policies.
    pub name: Box<str>,
    /// Where to connect.
    pub addr: EndpointAddr,
    /// In-flight count and latency, shared by workers.
    pub load: Arc<Load>,
    /// How long it keeps idle connections.
    pub idle_limit: IdleLimit,
    /// Its metrics.
    pub cells: Arc<PerWorker<EndpointCells>>,
    /// It was removed, and what was in flight has had its time. Read on every turn of an exchange,
    /// written once: it lies among fields that nobody writes.
    cut: AtomicBool,
    /// How often all that was connected to it was ended. As `cut`, written rarely.
    epoch: AtomicU32,
    /// A [`Health`]; written by the control plane's lock holder alone.
    health: AtomicU8,
    /// This process's own checks find it down, whatever its fleet finds; written as `health` is.
    is_down_here: AtomicBool,
    /// Why, and since when.
    down_here: ArcSwapOption<Since>,
    /// A [`Proof`]. The control plane's lock holder makes it wait and takes that back, the checker alone writes that it
    /// was found up: none of them writes over what another one wrote meanwhile.
    proof: AtomicU8,
    /// Left alone for what requests say of it; written as `health` is.
    ejected: AtomicBool,
    /// Why, and until when.
    ejection: ArcSwapOption<Ejection>,
    /// When it last became ready after it had not been; 0 = it always was.
    ready_since: AtomicU64,
    /// A [`Said`], packed; written by the control plane's lock holder alone.
    said: AtomicU64,
    /// Hash of the line that it last said in a response; 0 = none. Workers write it when they hand a
    /// line on, and the control plane when it has taken one in: of two that came at once, the one
    /// that holds stands here in the end, and the other is news again.
    line: AtomicU64,
    /// When an answer of it last proved it well; 0 = never. Workers write it.
    well_at: AtomicU64,
    /// How the last check went; the checker writes it, views read it.
    last_check: ArcSwapOption<LastCheck>,
    /// Why it is what checks found it to be.
    since: ArcSwapOption<Since>,
}

/// Why an endpoint is left alone for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// When that ends, in milliseconds since 1970.
    pub until_unix_ms: u64,
    /// What requests said of it.
    pub why: String,
}

/// How a check went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastCheck {
    /// When it ended, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// How it went.
    pub result: CheckResult,
    /// The same for people, if it did not pass.
    pub text: Option<String>,
}

/// Since when an endpoint is up or down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since {
    /// In milliseconds since 1970.
    pub at_unix_ms: u64,
    /// What checks found then, for people.
    pub why: String,
}

/// Proofs are written this often at most: every worker would else fight for the line at every
/// response. A tenth of the shortest interval that makes sense for real traffic.
const PROOF_EVERY: Nanos = 100_000_000;

/// What checks found of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// Nobody checks it: it is taken for well.
    Unchecked,
    /// Not to be picked.
    Down,
    /// Well.
    Up,
}

/// Whether an endpoint that is taken for well is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Proof {
    /// It is what a new endpoint is taken for.
    Taken,
    /// It was added with more than one peer of a fleet may add: it is taken for down, and not even the last resort,
    /// before a check has found it up.
    Awaited,
    /// Checks have found it up, this process's or those of its fleet.
    Found,
}

// === impl Health ===

impl Health {
    /// The word in logs and views.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unchecked => "unchecked",
            Self::Down => "down",
            Self::Up => "up",
        }
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// An endpoint of upstream `upstream` that nothing is known of yet.
    pub fn new(addr: EndpointAddr, upstream: &str, registry: &Registry) -> Self {
        let name: Box<str> = addr.to_string().into();
        let load = Arc::new(Load::default());
        let cells = registry.endpoint(upstream, &name, &load);
        Self {
            name,
            addr,
            load,
            idle_limit: IdleLimit::default(),
            cells,
            cut: AtomicBool::new(false),
            epoch: AtomicU32::new(0),
            health: AtomicU8::new(Health::Unchecked as u8),
            is_down_here: AtomicBool::new(false),
            down_here: ArcSwapOption::empty(),
            proof: AtomicU8::new(Proof::Taken as u8),
            ejected: AtomicBool::new(false),
            ejection: ArcSwapOption::empty(),
            ready_since: AtomicU64::new(0),
            said: AtomicU64::new(Said::default().pack()),
            line: AtomicU64::new(0),
            well_at: AtomicU64::new(0),
            last_check: ArcSwapOption::empty(),
            since: ArcSwapOption::empty(),
        }
    }

    /// What checks found last: down, if those of this process do, else as [`Endpoint::verdict`] has it.
    pub fn health(&self) -> Health {
        if self.is_down_here() {
            Health::Down
        } else {
            self.verdict()
        }
    }

    /// What was found last by those whose word it is: the votes of a fleet, or, where they do not rule, the checks
    /// of this process.
    pub fn verdict(&self) -> Health {
        // Relaxed: picks go by the published members; this is for the next generation and for views.
        match self.health.load(Ordering::Relaxed) {
            1 => Health::Down,
            2 => Health::Up,
            _ => Health::Unchecked,
        }
    }

    /// Says what was found; seen by picks when the members are next published. One writer at a
    /// time: the control plane's lock sees to that.
    pub fn set_health(&self, health: Health) {
        self.health.store(health as u8, Ordering::Relaxed);
        self.show_health();
    }

    /// Whether this process's own checks find it down: enough for this process, whatever its fleet finds.
    pub fn is_down_here(&self) -> bool {
        self.is_down_here.load(Ordering::Relaxed)
    }

    /// Says that this process's own checks find it down, or takes that back; as [`Endpoint::set_health`].
    pub fn set_down_here(&self, since: Option<Since>) {
        let is_down = since.is_some();
        self.down_here.store(since.map(Arc::new));
        self.is_down_here.store(is_down, Ordering::Relaxed);
        self.show_health();
    }

    /// Whether checks have found it up since it is checked.
    pub fn proof(&self) -> Proof {
        // Relaxed: as `health`.
        match self.proof.load(Ordering::Relaxed) {
            1 => Proof::Awaited,
            2 => Proof::Found,
            _ => Proof::Taken,
        }
    }

    /// It is down until a check has found it up; whether that is new. Who was found up has no more to prove.
    pub fn await_proof(&self) -> bool {
        self.turn(Proof::Taken, Proof::Awaited)
    }

    /// It need not prove that it is up any more; whether it had to.
    pub fn waive_proof(&self) -> bool {
        self.turn(Proof::Awaited, Proof::Taken)
    }

    /// Checks find it up.
    pub fn found_up(&self) {
        self.proof.store(Proof::Found as u8, Ordering::Relaxed);
    }

    fn turn(&self, from: Proof, to: Proof) -> bool {
        let (from, to) = (from as u8, to as u8);
        let turned = self
            .proof
            .compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
        turned.is_ok()
    }

    fn show_health(&self) {
        self.cells.control().health.set(self.health() as u64);
    }

    /// How the last check went; `None` = none has ended.
    pub fn last_check(&self) -> Option<Arc<LastCheck>> {
        self.last_check.load_full()
    }

    /// Notes how a check went.
    pub fn set_last_check(&self, check: LastCheck) {
        self.last_check.store(Some(Arc::new(check)));
    }

    /// Since when it is what checks found it to be; `None` = it is what it was taken for.
    pub fn since(&self) -> Option<Arc<Since>> {
        self.down_here
            .load_full()
            .or_else(|| self.since.load_full())
    }

    /// Notes since when it is what [`Endpoint::verdict`] says.
    pub fn set_since(&self, since: Since) {
        self.since.store(Some(Arc::new(since)));
    }

    /// Nobody checks it any more: what was found is over.
    pub fn forget_checks(&self) {
        self.set_down_here(None);
        self.proof.store(Proof::Taken as u8, Ordering::Relaxed);
        self.since.store(None);
        self.last_check.store(None);
    }

    /// Whether it is left alone for a while, for what requests say of it.
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// Why it is left alone; `None` = it is not.
    pub fn ejection(&self) -> Option<Arc<Ejection>> {
        self.ejection.load_full()
    }

    /// Leaves it alone, or takes that back; as [`Endpoint::set_health`].
    pub fn set_ejection(&self, ejection: Option<Ejection>) {
        let is_ejected = ejection.is_some();
        self.ejection.store(ejection.map(Arc::new));
        self.ejected.store(is_ejected, Ordering::Relaxed);
        self.cells.control().ejected.set(u64::from(is_ejected));
    }

    /// When it last became ready after it had not been, for slow start; 0 = it always was.
    pub fn ready_since(&self) -> Nanos {
        self.ready_since.load(Ordering::Relaxed)
    }

    /// It is ready since `now`; as [`Endpoint::set_health`].
    pub(super) fn became_ready(&self, now: Nanos) {
        self.ready_since.store(now, Ordering::Relaxed);
    }

    /// What it says of itself.
    pub fn said(&self) -> Said {
        // Relaxed: as `health`, picks go by the published members.
        Said::unpack(self.said.load(Ordering::Relaxed))
    }

    /// Notes what it says of itself; seen by picks when the members are next published. One writer at
    /// a time: the control plane's lock sees to that.
    pub fn set_said(&self, said: Said) {
        self.said.store(said.pack(), Ordering::Relaxed);
    }

    /// Forgets what it said of itself; as [`Endpoint::set_said`].
    pub fn forget_said(&self) {
        self.set_said(Said::default());
        self.line.store(0, Ordering::Relaxed);
    }

    /// Whether it did not say this in the response before.
    #[inline]
    pub fn is_news(&self, line: &[u8]) -> bool {
        // Relaxed: it is compared, and nothing else is read because of it.
        self.line.load(Ordering::Relaxed) != line_hash(line)
    }

    /// It says this from now on.
    pub fn heard(&self, line: &[u8]) {
        self.line.store(line_hash(line), Ordering::Relaxed);
    }

    /// An answer of it at `now` proves it well: it may stand in for a check.
    #[inline]
    pub fn proved_well(&self, now: Nanos) {
        // Relaxed: a time that is read alone. Of two that write at once either will do.
        let before = self.well_at.load(Ordering::Relaxed);
        if now >= before.saturating_add(PROOF_EVERY) {
            self.well_at.store(now, Ordering::Relaxed);
        }
    }

    /// When an answer last proved it well, up to 100 ms early, on the clock of the machine; `None` =
    /// never.
    pub fn well_at(&self) -> Option<Nanos> {
        match self.well_at.load(Ordering::Relaxed) {
            0 => None,
            at => Some(at),
        }
    }

    /// Whether exchanges with it end now.
    #[inline]
    pub fn is_cut(&self) -> bool {
        // Relaxed: whoever sets it wakes the exchanges through a channel after.
        self.cut.load(Ordering::Relaxed)
    }

    /// Ends the exchanges with it, at their next turn; `false` takes that back.
    pub fn set_cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }

    /// Which generation of connections one made now belongs to.
    #[inline]
    pub fn epoch(&self) -> u32 {
        // Relaxed: as `is_cut`.
        self.epoch.load(Ordering::Relaxed)
    }

    /// Ends the exchanges on all connections that are there, at their next turn; those made from now
    /// on are not touched.
    pub fn disconnect(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// Exchanges in flight.
    pub fn in_flight(&self) -> u64 {
        u64::from(self.load.in_flight.load(Ordering::Relaxed))
    }
}

/// Never 0.
fn line_hash(line: &[u8]) -> u64 {
    hash(line).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_source_of_checks_is_enough_to_be_down() {
        let registry = Registry::new(1);
        let addr = EndpointAddr::Ip(([127, 0, 0, 1], 80).into());
        let endpoint = Endpoint::new(addr, "app", &registry);
        let shown = || endpoint.cells.control().health.value();
        let since = |why: &str| Since {
            at_unix_ms: 7,
            why: why.to_owned(),
        };
        let why = || endpoint.since().map(|since| since.why.clone());
        for found in [Health::Unchecked, Health::Up, Health::Down] {
            endpoint.set_health(found);
            endpoint.set_since(since("the fleet"));
            assert_eq!((endpoint.health(), endpoint.verdict()), (found, found));
            endpoint.set_down_here(Some(since("own checks")));
            assert_eq!(
                (endpoint.health(), endpoint.verdict()),
                (Health::Down, found)
            );
            assert_eq!(shown(), Health::Down as i64);
            assert_eq!(why().as_deref(), Some("own checks"));
            endpoint.set_down_here(None);
            assert_eq!((endpoint.health(), shown()), (found, found as i64));
            assert_eq!(why().as_deref(), Some("the fleet"));
        }
        endpoint.set_down_here(Some(since("own checks")));
        endpoint.set_health(Health::Up);
        assert_eq!(endpoint.health(), Health::Down);
        endpoint.forget_checks();
        assert_eq!((endpoint.health(), endpoint.since()), (Health::Up, None));
    }

    #[test]
    fn who_was_found_up_waits_for_no_proof() {
        let registry = Registry::new(1);
        let addr = EndpointAddr::Ip(([127, 0, 0, 1], 80).into());
        let endpoint = Endpoint::new(addr, "app", &registry);
        assert!(!endpoint.waive_proof() && endpoint.await_proof() && !endpoint.await_proof());
        assert_eq!(endpoint.proof(), Proof::Awaited);
        assert!(endpoint.waive_proof());
        endpoint.found_up();
        assert!(!endpoint.await_proof() && !endpoint.waive_proof());
        assert_eq!(endpoint.proof(), Proof::Found);
        endpoint.forget_checks();
        assert_eq!(endpoint.proof(), Proof::Taken);
    }
}
