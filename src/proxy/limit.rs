//! The limits of a route: how many exchanges at once, and how often whom it serves.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::base::clock::Nanos;
use crate::config::{LimitKey, MaxConcurrent, Mode, RateLimit};
use crate::guard::keys::Limiter;
use crate::telemetry::reason::Reason;
use crate::upstream::SOON;

use super::exchange::Exchange;
use super::forwarded::Client;
use super::scratch::Scratch;
use super::stick::{cookie, range};
use super::worker::Worker;

/// The limits of one route, shared by all workers; they go on over reloads while the file says the
/// same.
#[derive(Debug)]
pub struct RouteLimits {
    rates: Vec<(RateLimit, Arc<Limiter>)>,
    concurrent: Option<(MaxConcurrent, Arc<AtomicU32>)>,
}

/// One of the exchanges at once; given back when dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicU32>);

// === impl RouteLimits ===

impl RouteLimits {
    /// The limits, if there are any. `before` are those of the same name before a reload.
    pub fn new(
        rate_limits: &[RateLimit],
        max_concurrent: Option<MaxConcurrent>,
        before: Option<&Arc<Self>>,
        seed: u64,
    ) -> Option<Arc<Self>> {
        if rate_limits.is_empty() && max_concurrent.is_none() {
            return None;
        }
        let counted = before.and_then(|b| Some(b.concurrent.as_ref()?.1.clone()));
        // By its place, so that two that are alike stay two.
        let known = |i: usize, limit: &RateLimit| {
            let (known, limiter) = before?.rates.get(i)?;
            (known == limit).then(|| limiter.clone())
        };
        let rates = rate_limits.iter().enumerate().map(|(i, limit)| {
            let fresh = || {
                let seed = seed.wrapping_add(i as u64);
                Arc::new(Limiter::new(
                    limit.rate,
                    limit.per,
                    limit.burst,
                    limit.max_keys,
                    seed,
                ))
            };
            (limit.clone(), known(i, limit).unwrap_or_else(fresh))
        });
        Some(Arc::new(Self {
            rates: rates.collect(),
            concurrent: max_concurrent.map(|limit| (limit, counted.unwrap_or_default())),
        }))
    }

    /// Whether a flow of `client` may begin, as far as rates go; `observed` hears of a limit that only
    /// observes.
    pub(super) fn admit_flow(
        &self,
        client: Option<IpAddr>,
        now: Nanos,
        mut observed: impl FnMut(),
    ) -> Result<(), Reason> {
        for (limit, limiter) in &self.rates {
            let mut key = [0; 17];
            let n = match limit.key {
                LimitKey::Client => client_key(client, &mut key),
                LimitKey::Cookie(_) | LimitKey::Header(_) | LimitKey::Route => 0,
            };
            match (limiter.allow(&key[..n], now), limit.mode) {
                (Ok(()), _) => {}
                (Err(_), Mode::Observe) => observed(),
                (Err(_), Mode::Enforce) => return Err(Reason::RateLimit),
            }
        }
        Ok(())
    }

    /// Whether the exchange may go on; `Err` = why not, with when to come again noted on it.
    pub(super) fn admit(
        &self,
        worker: &Worker,
        s: &mut Scratch,
        x: &mut Exchange,
        client: Client,
    ) -> Result<(), Reason> {
        for (limit, limiter) in &self.rates {
            s.key.clear();
            write_key(&limit.key, s, client);
            // Each counts what the one before it let pass.
            match (limiter.allow(&s.key, worker.clock.now()), limit.mode) {
                (Ok(()), _) => {}
                (Err(_), Mode::Observe) => x.observed(worker, Reason::RateLimit),
                (Err(after), Mode::Enforce) => {
                    x.retry_after = Some(after);
                    return Err(Reason::RateLimit);
                }
            }
        }
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
        let Ok(before) = taken else {
            x.retry_after = Some(SOON);
            return Err(Reason::RouteLimit);
        };
        x.place = Some(Place(counted.clone()));
        if before >= limit.limit.get() {
            x.observed(worker, Reason::RouteLimit);
        }
        Ok(())
    }
}

/// Lays out in `s.key` who is counted: a byte for whether there is anybody, then who.
fn write_key(key: &LimitKey, s: &mut Scratch, client: Client) {
    let found = match key {
        LimitKey::Route => None,
        LimitKey::Client => {
            let mut key = [0; 17];
            let n = client_key(client.addr, &mut key);
            s.key.extend_from_slice(&key[..n]);
            return;
        }
        LimitKey::Cookie(name) => cookie(s, name),
        LimitKey::Header(name) => {
            let buf = s.inbound.filled();
            s.head.get_all(buf, name.as_str()).next()
        }
    };
    if let Some((start, end)) = found.and_then(|value| range(s.inbound.filled(), value)) {
        s.key.push(1);
        s.key.extend_from_slice(&s.inbound.filled()[start..end]);
    }
}

/// Writes who a client counts as, and how long that is; 0 = nobody.
fn client_key(client: Option<IpAddr>, key: &mut [u8; 17]) -> usize {
    key[0] = 1;
    match client {
        Some(IpAddr::V4(addr)) => {
            key[1..5].copy_from_slice(&addr.octets());
            5
        }
        // A household or a host has a /64 to choose addresses from (RFC 6177 section 2).
        Some(IpAddr::V6(addr)) => {
            key[1..9].copy_from_slice(&addr.octets()[..8]);
            9
        }
        None => 0,
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
