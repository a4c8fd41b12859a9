//! Choosing among the members of one generation: tiers, limits, slow start.

use std::sync::atomic::Ordering;

use crate::balance::Ask;
use crate::base::clock::Nanos;
use crate::base::rng::Rng;

use super::Members;
use super::groups::draw;

/// Least share of its weight that a ramping endpoint gets: with less, nothing would warm it up
/// (Envoy's `min_weight_percent`).
const LEAST: f64 = 0.1;

// === impl Members ===

impl Members {
    /// Whether the policy alone decides.
    #[inline]
    pub(super) fn is_plain(&self, now: Nanos) -> bool {
        self.limits.is_none() && now >= self.ramps_until
    }

    /// The policy's choice, outside of `tried` while anybody else is ready.
    #[inline]
    pub(super) fn pick(
        &self,
        key: Option<&[u8]>,
        tried: &[usize],
        now: Nanos,
        rng: &mut Rng,
    ) -> Option<usize> {
        let first = draw(&self.groups, rng)?;
        let mut ask = Ask {
            loads: &self.loads,
            key,
            tried,
            now,
            rng,
        };
        let picked = first.balancer.pick(&mut ask);
        let is_good = picked.is_some_and(|index| tried.is_empty() || !tried.contains(&index));
        if is_good || self.groups.len() == 1 {
            return picked;
        }
        // Everybody in that tier was tried: the others, in their order.
        let others = self.groups.iter();
        let others = others.filter(|g| !std::ptr::eq(*g, first) && g.may_help());
        let mut other = others.filter_map(|g| g.balancer.pick(&mut ask));
        other.find(|index| !tried.contains(index)).or(picked)
    }

    /// Whether another may be asked in its place now: as [`Members::is_eligible`], without backups
    /// that have no share.
    pub(super) fn is_open(&self, index: usize) -> bool {
        let group = self.group_of.get(index).copied().map_or(0, usize::from);
        let group = self.groups.get(group);
        group.is_some_and(|g| g.ready[index] && g.may_help())
    }

    /// Whether it may be picked once its tier is used, whether or not that has a share as things are.
    pub fn is_eligible(&self, index: usize) -> bool {
        let group = self.group_of.get(index).copied().map_or(0, usize::from);
        self.groups.get(group).is_some_and(|g| g.ready[index])
    }

    /// Whether an endpoint that ramps up is passed over this time: it gets `t/T` of its picks, `t`
    /// after it became ready, of a slow start of `T`; at least [`LEAST`].
    pub(super) fn is_spared(
        &self,
        index: usize,
        slow_start: Nanos,
        now: Nanos,
        rng: &mut Rng,
    ) -> bool {
        let since = self.endpoints[index].ready_since();
        let age = now.saturating_sub(since);
        if since == 0 || age >= slow_start {
            return false;
        }
        let share = (age as f64 / slow_start as f64).max(LEAST);
        rng.below(1 << 20) as f64 >= share * f64::from(1 << 20)
    }

    /// Whether it has room for one more.
    pub(super) fn has_room(&self, index: usize) -> bool {
        let in_flight = self.loads[index].in_flight.load(Ordering::SeqCst);
        self.limits.is_none() || in_flight < self.limit(index)
    }

    /// How many exchanges it may have in flight.
    pub(super) fn limit(&self, index: usize) -> u32 {
        let fixed = self
            .limits
            .as_ref()
            .map_or(u32::MAX, |limits| limits[index]);
        match &self.guards[index].gradient {
            None => fixed,
            Some(gradient) => fixed.min(gradient.limit()),
        }
    }
}
