//! The members that may be picked, with the weights that count.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Member;
use crate::base::load::Load;
use crate::base::rng::Rng;

/// Draws from the policy's own order before a retry settles for any untried member. Three more
/// draws keep retries spread by weight when one or two of many were tried; it bounds the pick.
const REDRAWS: usize = 3;

/// The candidates of one readiness, as a dense list: what a pick never has to skip.
///
/// A *position* counts in this list, an *index* in the members of the upstream. Candidates are the
/// ready members with a weight above 0; when every ready member has weight 0, all of them, each
/// with weight 1.
#[derive(Debug)]
pub(super) struct Ready {
    index: Box<[u32]>,
    weight: Box<[u32]>,
    total: u64,
}

// === impl Ready ===

impl Ready {
    /// Candidates in the order of the members. A member without a flag in `ready` is not ready.
    pub(super) fn new(members: &[Member], ready: &[bool]) -> Self {
        let is_ready = |i: usize| ready.get(i).copied().unwrap_or(false);
        let list = |weight_of: &dyn Fn(&Member) -> u32| -> (Vec<u32>, Vec<u32>) {
            members
                .iter()
                .enumerate()
                .filter(|&(i, member)| is_ready(i) && weight_of(member) > 0)
                .map(|(i, member)| (i as u32, weight_of(member)))
                .unzip()
        };
        let (mut index, mut weight) = list(&|member| member.weight);
        if index.is_empty() {
            (index, weight) = list(&|_| 1);
        }
        let total = weight.iter().map(|&w| u64::from(w)).sum();
        Self {
            index: index.into(),
            weight: weight.into(),
            total,
        }
    }

    /// The same candidates in an order drawn from `rng`.
    pub(super) fn shuffled(members: &[Member], ready: &[bool], rng: &mut Rng) -> Self {
        let mut list = Self::new(members, ready);
        // Fisher and Yates, from the end.
        for last in (1..list.index.len()).rev() {
            let other = rng.below(last + 1);
            list.index.swap(last, other);
            list.weight.swap(last, other);
        }
        list
    }

    /// Number of candidates.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether nobody is ready.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The member at `position`.
    #[inline]
    pub(super) fn index(&self, position: usize) -> usize {
        self.index[position] as usize
    }

    /// Every candidate's member index.
    pub(super) fn indices(&self) -> &[u32] {
        &self.index
    }

    /// The weight at `position`, at least 1.
    #[inline]
    pub(super) fn weight(&self, position: usize) -> u32 {
        self.weight[position]
    }

    /// Every candidate's weight.
    pub(super) fn weights(&self) -> &[u32] {
        &self.weight
    }

    /// Sum of the weights; above 0 unless nobody is ready.
    #[inline]
    pub(super) fn total_weight(&self) -> u64 {
        self.total
    }

    /// A position from `draw`, avoiding `tried` members while any other candidate is left.
    #[inline]
    pub(super) fn draw(
        &self,
        tried: &[usize],
        rng: &mut Rng,
        mut draw: impl FnMut(&mut Rng) -> usize,
    ) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        let position = draw(rng);
        if tried.is_empty() || !tried.contains(&self.index(position)) {
            return Some(position);
        }
        for _ in 0..REDRAWS {
            let again = draw(rng);
            if !tried.contains(&self.index(again)) {
                return Some(again);
            }
        }
        // A random start: the neighbour of a failed endpoint must not inherit all its retries.
        let start = rng.below(self.len());
        Some(
            self.untried_from(start, |index| tried.contains(&index))
                .unwrap_or(position),
        )
    }

    /// The first position at or after `start`, in a circle, whose member `avoid` does not name.
    /// Members are distinct, so this ends after as many steps as there are members to avoid.
    pub(super) fn untried_from(
        &self,
        start: usize,
        avoid: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let (before, after) = (0..start, start..self.len());
        after
            .chain(before)
            .find(|&position| !avoid(self.index(position)))
    }
}

/// Exchanges in flight at the member `index`.
#[inline]
pub(super) fn in_flight(loads: &[Arc<Load>], index: usize) -> u32 {
    // Relaxed: a count that is a moment old is as good a hint as a fresh one.
    loads
        .get(index)
        .map_or(0, |load| load.in_flight.load(Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::fixture::members;

    #[test]
    fn weight_zero_counts_only_when_everybody_has_it() {
        let set = members(&[0, 3, 0]);
        assert_eq!(Ready::new(&set, &[true; 3]).indices(), [1]);
        let only_zeros = Ready::new(&set, &[true, false, true]);
        assert_eq!(
            (only_zeros.indices(), only_zeros.weights()),
            (&[0, 2][..], &[1, 1][..])
        );
        assert_eq!(only_zeros.total_weight(), 2);
    }

    #[test]
    fn a_missing_flag_means_not_ready() {
        assert_eq!(Ready::new(&members(&[1, 1, 1]), &[true]).indices(), [0]);
        assert!(Ready::new(&members(&[1]), &[]).is_empty());
    }

    #[test]
    fn shuffling_keeps_each_weight_with_its_member() {
        let set = members(&[1, 2, 3, 4, 5, 6, 7, 8]);
        let list = Ready::shuffled(&set, &[true; 8], &mut Rng::new(5));
        let mut seen = list.indices().to_vec();
        assert_ne!(seen, [0, 1, 2, 3, 4, 5, 6, 7], "seed 5");
        for position in 0..8 {
            assert_eq!(list.weight(position), set[list.index(position)].weight);
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
