//! Balancing policies: which endpoint gets the next exchange. Pure: no I/O, no clock, no tokio.
//!
//! The writer of an upstream calls [`build`] whenever members, weights or readiness change; workers
//! share the result and call [`Balancer::pick`], which takes no lock, allocates nothing and never
//! looks at a member that is not ready. One file a policy; `ready` (who may be picked), `schedule`,
//! `alias`, `two_choices` and `hashed` are the parts they are made of. Every policy passes
//! `conformance`; what papers and other proxies publish about them is reproduced in `tests`.

use std::any::Any;
use std::sync::Arc;

use crate::base::clock::Nanos;
use crate::base::load::Load;
use crate::base::rng::Rng;

use first::First;
use hashed::Hashed;
use least_request::LeastRequest;
use maglev::Maglev;
use peak_ewma::PeakEwma;
use random::Random;
use rendezvous::Rendezvous;
use ring_hash::Ring;
use round_robin::RoundRobin;
use weighted::Weighted;

mod alias;
mod bound;
mod cursor;
mod first;
mod hashed;
mod latency;
mod least_request;
mod maglev;
mod peak_ewma;
mod random;
mod ready;
mod rendezvous;
mod ring_hash;
mod round_robin;
mod schedule;
pub mod sticky;
mod two_choices;
mod weighted;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

/// What a policy knows of one endpoint: identity and configured weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// `host:port` (or `unix:/path`) as configured: the stable identity that hash policies hash.
    pub name: Box<str>,
    /// 0 = gets nothing unless every ready member has 0.
    pub weight: u32,
}

/// Which policy, with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The algorithm.
    pub kind: PolicyKind,
    /// Hash policies only: no endpoint above this multiple (> 1.0) of the mean load.
    pub bounded_load: Option<f64>,
}

/// The algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyKind {
    /// In turn, weights ignored.
    RoundRobin,
    /// nginx's smooth weighted round robin.
    Weighted,
    /// Weighted random.
    Random,
    /// Two choices, fewer in flight wins.
    LeastRequest,
    /// Latency-aware two choices.
    PeakEwma,
    /// Ketama ring, nginx-compatible.
    RingHash,
    /// Maglev table.
    Maglev,
    /// Weighted rendezvous.
    Rendezvous,
    /// The first ready endpoint.
    First,
}

// === impl PolicyKind ===

impl PolicyKind {
    /// Whether it chooses by a key.
    pub const fn hashes(self) -> bool {
        matches!(self, Self::RingHash | Self::Maglev | Self::Rendezvous)
    }

    /// The name in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::Weighted => "weighted",
            Self::Random => "random",
            Self::LeastRequest => "least_request",
            Self::PeakEwma => "peak_ewma",
            Self::RingHash => "ring_hash",
            Self::Maglev => "maglev",
            Self::Rendezvous => "rendezvous",
            Self::First => "first",
        }
    }
}

/// One question to a balancer.
#[derive(Debug)]
pub struct Ask<'a> {
    /// Load of every member, by index.
    pub loads: &'a [Arc<Load>],
    /// Bytes of the hash key; `None` = the exchange has no key (hash policies then pick at random).
    pub key: Option<&'a [u8]>,
    /// Members already tried for this exchange: picked again only if no other is ready.
    pub tried: &'a [usize],
    /// Time of the question.
    pub now: Nanos,
    /// The worker's generator.
    pub rng: &'a mut Rng,
}

/// How an exchange with an endpoint went, for policies that learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A response came (not a server error).
    Ok,
    /// Connect failure, reset, time-out or 5xx: counts as slow, never as fast.
    Failed,
    /// The client went away: nobody's fault; the elapsed time is still evidence.
    Cancelled,
}

/// An algorithm over one fixed set of members and one readiness. Shared by all workers.
pub trait Balancer: Send + Sync + std::fmt::Debug {
    /// The index of the member to use; `None` if and only if none is ready.
    fn pick(&self, ask: &mut Ask<'_>) -> Option<usize>;

    /// Tells the policy how an exchange went: `elapsed` until the response head (or the failure).
    fn observe(&self, load: &Load, outcome: Outcome, elapsed: Nanos, now: Nanos) {
        let _ = (load, outcome, elapsed, now);
    }

    /// `Some(self)` from a policy whose successor takes something over in [`build`]: its place in a
    /// schedule, its table, what it learnt.
    fn as_any(&self) -> Option<&dyn Any> {
        None
    }
}

/// Builds the balancers of one upstream in the place of [`build`]: a policy from outside. Called with
/// the members and which of them may be picked, once for each generation; it keeps what the next
/// balancer is to know of the one before.
#[derive(Clone)]
pub struct Factory(Arc<Make>);

type Make = dyn Fn(&[Member], &[bool]) -> Arc<dyn Balancer> + Send + Sync;

// === impl Factory ===

impl Factory {
    /// A factory that calls `make`.
    pub fn new(
        make: impl Fn(&[Member], &[bool]) -> Arc<dyn Balancer> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(make))
    }

    /// A balancer over `members`, of which those flagged in `ready` may be picked.
    pub fn build(&self, members: &[Member], ready: &[bool]) -> Arc<dyn Balancer> {
        (self.0)(members, ready)
    }
}

impl std::fmt::Debug for Factory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Factory").finish_non_exhaustive()
    }
}

/// Builds a balancer over `members`, of which those flagged in `ready` may be picked.
///
/// `previous` is the balancer it replaces, if any: turns go on where that one stood, tables are taken
/// over while members and weights are the same. One of another policy is ignored. `seed` decides the
/// order in which the two-choice policies take turns, and nothing else.
pub fn build(
    policy: &Policy,
    members: &[Member],
    ready: &[bool],
    previous: Option<&Arc<dyn Balancer>>,
    seed: u64,
) -> Arc<dyn Balancer> {
    let bound = policy.bounded_load;
    match policy.kind {
        PolicyKind::RoundRobin => Arc::new(RoundRobin::new(members, ready, heir(previous))),
        PolicyKind::Weighted => Arc::new(Weighted::new(members, ready, heir(previous))),
        PolicyKind::Random => Arc::new(Random::new(members, ready)),
        PolicyKind::LeastRequest => {
            Arc::new(LeastRequest::new(members, ready, heir(previous), seed))
        }
        PolicyKind::PeakEwma => Arc::new(PeakEwma::new(members, ready, heir(previous), seed)),
        PolicyKind::RingHash => {
            Arc::new(Hashed::<Ring>::new(members, ready, bound, heir(previous)))
        }
        PolicyKind::Maglev => {
            Arc::new(Hashed::<Maglev>::new(members, ready, bound, heir(previous)))
        }
        PolicyKind::Rendezvous => Arc::new(Hashed::<Rendezvous>::new(
            members,
            ready,
            bound,
            heir(previous),
        )),
        PolicyKind::First => Arc::new(First::new(members, ready)),
    }
}

/// The previous balancer, when it is of the same policy.
fn heir<T: 'static>(previous: Option<&Arc<dyn Balancer>>) -> Option<&T> {
    previous?.as_any()?.downcast_ref()
}
