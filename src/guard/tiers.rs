//! Which share of the traffic goes to which tier: all to the first, and down as it fails.
//!
//! The rule is Envoy's ("Priority levels" and "Overprovisioning factor" of its documentation): a
//! tier is well while 1.4 times its ready members are all its members; below, it keeps 1.4 times
//! their share and the tier below gets the rest. When all tiers together cannot take everything, what
//! there is is shared in proportion. Departure: Envoy counts in whole percent and cuts 99.4 to
//! 99; here shares are parts of [`WHOLE`].
//!
//! A tier is a priority, or the own zone and then the other zones within one. The rule takes every
//! full tier to be able to carry everything.

/// Members of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Those that may be picked.
    pub ready: u32,
    /// All of them.
    pub total: u32,
}

/// What the shares add up to.
pub const WHOLE: u32 = 10_000;

/// Envoy's default overprovisioning factor, 1.4, in parts of [`WHOLE`]: a tier that has lost up to 28 %
/// of its members keeps all its traffic, as there is no moving it without warming something cold.
const OVERPROVISIONING: u64 = 14_000;

/// The share of each of `tiers` (in order, the preferred first), in parts of [`WHOLE`]: together
/// exactly that, or all 0 when nobody is ready. A tier without a ready member has 0.
pub fn shares(tiers: &[Tier]) -> Vec<u32> {
    let whole = u64::from(WHOLE);
    let healths: Vec<u64> = tiers.iter().map(|tier| tier.health()).collect();
    // The normalised total health; 0 only when nobody is ready.
    let sum = healths.iter().sum::<u64>().min(whole);
    let Some(first) = healths.iter().position(|&health| health > 0) else {
        return vec![0; tiers.len()];
    };
    let mut left = whole;
    let mut shares: Vec<u32> = healths
        .iter()
        .map(|health| {
            let share = (health * whole / sum).min(left);
            left -= share;
            share as u32
        })
        .collect();
    // What the divisions cut off: less than one part for each tier.
    shares[first] += left as u32;
    shares
}

// === impl Tier ===

impl Tier {
    /// Its capacity in parts of [`WHOLE`], at most all; above 0 as soon as somebody is ready.
    fn health(self) -> u64 {
        let ready = u64::from(self.ready.min(self.total));
        if ready == 0 {
            return 0;
        }
        (OVERPROVISIONING * ready / u64::from(self.total)).clamp(1, u64::from(WHOLE))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The shares of tiers of 100 members each.
    fn percent(ready: &[u32]) -> Vec<u32> {
        let tiers: Vec<Tier> = ready
            .iter()
            .map(|&ready| Tier { ready, total: 100 })
            .collect();
        shares(&tiers)
    }

    /// Ready percent of each tier, and the whole percents of traffic that Envoy documents; ours
    /// differ by what it rounds off.
    fn assert_table(rows: &[(&[u32], &[u32])]) {
        for (ready, traffic) in rows {
            let shares = percent(ready);
            for (share, documented) in shares.iter().zip(*traffic) {
                assert!(
                    share.abs_diff(documented * 100) < 100,
                    "{ready:?}: {shares:?} beside {traffic:?}"
                );
            }
            assert_eq!(shares.iter().sum::<u32>(), WHOLE, "{ready:?}");
        }
    }

    #[test]
    fn two_tiers_the_second_well_as_envoy_documents() {
        assert_table(&[
            (&[100, 100], &[100, 0]),
            (&[72, 100], &[100, 0]),
            (&[71, 100], &[99, 1]),
            (&[50, 100], &[70, 30]),
            (&[25, 100], &[35, 65]),
            (&[0, 100], &[0, 100]),
        ]);
    }

    #[test]
    fn two_tiers_both_failing_as_envoy_documents() {
        assert_table(&[
            (&[100, 100], &[100, 0]),
            (&[72, 72], &[100, 0]),
            (&[71, 71], &[99, 1]),
            (&[50, 50], &[70, 30]),
            (&[25, 100], &[35, 65]),
            (&[25, 25], &[50, 50]),
        ]);
    }

    #[test]
    fn three_tiers_as_envoy_documents() {
        assert_table(&[
            (&[100, 100, 100], &[100, 0, 0]),
            (&[72, 72, 100], &[100, 0, 0]),
            (&[71, 71, 100], &[99, 1, 0]),
            (&[50, 50, 100], &[70, 30, 0]),
            (&[25, 100, 100], &[35, 65, 0]),
            (&[25, 25, 100], &[35, 35, 30]),
            (&[25, 25, 20], &[36, 36, 28]),
        ]);
    }

    #[test]
    fn shares_are_finer_than_percents() {
        assert_eq!(percent(&[71, 100]), [9_940, 60]);
        assert_eq!(percent(&[72, 100]), [WHOLE, 0]);
        assert_eq!(percent(&[25, 25, 20]), [3_572, 3_571, 2_857]);
        // Healths of 20 and 30 percent in the documentation's text: 40 and 60.
        let tiers = [(2, 14), (3, 14)].map(|(ready, total)| Tier { ready, total });
        assert_eq!(shares(&tiers), [4_000, 6_000]);
    }

    #[test]
    fn nobody_there_or_nobody_ready_is_all_zero() {
        assert_eq!(shares(&[]), Vec::<u32>::new());
        assert_eq!(percent(&[0, 0]), [0, 0]);
        assert_eq!(shares(&[Tier { ready: 0, total: 0 }]), [0]);
    }

    #[test]
    fn empty_tiers_are_passed_over() {
        let tiers = [(0, 0), (0, 5), (1, 2), (0, 0), (2, 2)];
        let tiers = tiers.map(|(ready, total)| Tier { ready, total });
        assert_eq!(shares(&tiers), [0, 0, 7_000, 0, 3_000]);
    }

    #[test]
    fn the_last_ready_member_of_very_many_gets_everything() {
        let last = Tier {
            ready: 1,
            total: u32::MAX,
        };
        assert_eq!(shares(&[last]), [WHOLE]);
        assert_eq!(shares(&[last, last]), [5_000, 5_000]);
    }

    proptest! {
        #[test]
        fn any_tiers_share_exactly_the_whole(
            tiers in proptest::collection::vec((any::<u32>(), any::<u32>()), 0..9)
        ) {
            let tiers: Vec<Tier> = tiers
                .into_iter()
                .map(|(ready, total)| Tier { ready, total })
                .collect();
            let shares = shares(&tiers);
            let somebody = tiers.iter().any(|tier| tier.ready.min(tier.total) > 0);
            prop_assert_eq!(shares.iter().sum::<u32>(), if somebody { WHOLE } else { 0 });
            for (tier, share) in tiers.iter().zip(shares) {
                prop_assert!(tier.ready.min(tier.total) > 0 || share == 0);
            }
        }

        #[test]
        fn losing_a_member_never_brings_the_first_tier_more(
            total in 1u32..200, other in 0u32..=100, ready in 1u32..200
        ) {
            let ready = ready.min(total);
            let beside = Tier { ready: other, total: 100 };
            let before = shares(&[Tier { ready, total }, beside])[0];
            let after = shares(&[Tier { ready: ready - 1, total }, beside])[0];
            prop_assert!(after <= before);
        }
    }
}
