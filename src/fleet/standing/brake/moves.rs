//! How much traffic the word of one peer may move to other endpoints: by weights, and by what it adds.
//!
//! Both are measured as what they come to. With `w_i` the weights without the peer's word and `v_i` with it, the part of
//! the traffic that goes elsewhere is the total variation distance of the two distributions,
//! `½ Σ |v_i / Σv - w_i / Σw|`: 0 where all weights are multiplied by ten, one half where half of the endpoints get
//! next to nothing, nearly 1 where one of many gets a thousand times its weight. One peer moves at most its share.
//!
//! - **Weights** of endpoints that are members without its word: all of its words together, or, if that is too much,
//!   those that had effect before and then the oldest, up to some number that is not. The others are held until another
//!   peer says the same.
//! - **Additions** are endpoints that are members by its word alone (it registered or added them). They take
//!   `A / (W + A)` from the others, who have the weight `W` together. What is more than the share, the oldest first,
//!   are members that get no picks until a check has found them up: a thousand endpoints that live are served within
//!   a check, and a thousand that do not take nothing away. So it is only where the upstream is checked: without that
//!   nobody could ever tell, and an addition is believed. Where there is nobody else to take from there is no bound.
//!   What was a member before, by the word of somebody who is gone now, is not new and is not held.
//!
//! What is said while this peer learns (after its start, until it knows what the others do) has effect as it has at
//! the others.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::addr::EndpointAddr;
use crate::fleet::id::PeerId;
use crate::fleet::stamp::Stamp;

use super::super::seen::Seen;
use super::{Braked, By};

/// The word of one peer about one endpoint, where that changes its weight.
#[derive(Clone, Debug)]
pub(in crate::fleet::standing) struct Claim {
    pub(in crate::fleet::standing) endpoint: EndpointAddr,
    pub(in crate::fleet::standing) origin: PeerId,
    pub(in crate::fleet::standing) by: By,
    /// Its weight without the word, 0 if it were no member.
    pub(in crate::fleet::standing) without: u32,
    /// Its weight in the end.
    pub(in crate::fleet::standing) with: u32,
    /// What the endpoint is here.
    pub(in crate::fleet::standing) seen: Seen,
    pub(in crate::fleet::standing) stamp: Stamp,
    /// For people.
    pub(in crate::fleet::standing) what: String,
}

/// All that is said of the weights of one upstream.
#[derive(Clone, Debug, Default)]
pub(in crate::fleet::standing) struct Claims {
    pub(in crate::fleet::standing) all: Vec<Claim>,
    /// The weights of all members together, in the end.
    pub(in crate::fleet::standing) total: u64,
    /// How many have one.
    pub(in crate::fleet::standing) members: usize,
    /// Whether checks find out who lives.
    pub(in crate::fleet::standing) is_checked: bool,
}

/// What became of the claims of one upstream.
#[derive(Clone, Debug, Default)]
pub(super) struct Moves {
    all: BTreeMap<(EndpointAddr, PeerId), Move>,
    /// Whether it has been looked at before by one who knew what the others do.
    is_known: bool,
}

#[derive(Clone, Debug)]
struct Move {
    by: By,
    /// The weight that was decided about.
    with: u32,
    has_effect: bool,
    /// A check has found the endpoint up, or it was here before this peer looked.
    has_passed: bool,
    /// Another peer said the same before this one did in its place.
    is_seconded: bool,
    held: Option<Braked>,
}

// === impl Moves ===

impl Moves {
    /// All that is held.
    pub(super) fn held(&self) -> impl Iterator<Item = (&EndpointAddr, &Braked)> {
        let all = self.all.iter();
        all.filter_map(|((addr, _), of)| Some((addr, of.held.as_ref()?)))
    }

    /// Whether a peer's word about the weight of an endpoint is held.
    pub(super) fn held_of(
        &self,
        endpoint: &EndpointAddr,
        origin: PeerId,
        by: By,
    ) -> Option<&Braked> {
        let found = self.all.get(&(endpoint.clone(), origin))?;
        found.held.as_ref().filter(|_| found.by == by)
    }

    /// Whether an endpoint is to have no picks before a check has found it up.
    pub(super) fn is_unproven(&self, endpoint: &EndpointAddr) -> bool {
        let first = (endpoint.clone(), PeerId(0));
        let of_endpoint = self.all.range(first..);
        let mut of_endpoint = of_endpoint.take_while(|((addr, _), _)| addr == endpoint);
        of_endpoint.any(|(_, of)| of.by == By::Added && of.held.is_some())
    }

    /// What comes from now on is new.
    pub(super) fn know(&mut self) {
        self.is_known = true;
    }

    /// Decides which of the claims have effect; `limit` is the part of the traffic that one peer may move.
    pub(super) fn judge(&mut self, claims: &Claims, limit: f64, own: PeerId, unix_ms: u64) {
        let is_first = !self.is_known;
        let mut by_origin: BTreeMap<PeerId, (Vec<&Claim>, Vec<&Claim>)> = BTreeMap::new();
        for claim in claims.all.iter().filter(|claim| claim.origin != own) {
            let is_seconded = self.note(claim, is_first);
            let (added, weighed) = by_origin.entry(claim.origin).or_default();
            if claim.by == By::Added {
                added.push(claim);
            } else if !is_seconded {
                weighed.push(claim);
            }
        }
        // Only now: what another peer said before was looked at.
        let keys: BTreeSet<(&EndpointAddr, PeerId)> =
            claims.all.iter().map(|c| (&c.endpoint, c.origin)).collect();
        self.all
            .retain(|(addr, origin), _| keys.contains(&(addr, *origin)));
        // Where there are few, one of them all the same.
        let limit = limit.max(1.0 / claims.members.max(1) as f64);
        for (mut added, mut weighed) in by_origin.into_values() {
            for of_kind in [&mut added, &mut weighed] {
                of_kind
                    .sort_by_key(|claim| (!self.has_effect(claim), claim.stamp, &claim.endpoint));
            }
            let of_others = claims
                .total
                .saturating_sub(added.iter().map(|c| u64::from(c.with)).sum());
            // What it says of their weights makes no room for what it adds.
            let more: u64 = weighed.iter().map(|c| u64::from(c.with)).sum();
            let less: u64 = weighed.iter().map(|c| u64::from(c.without)).sum();
            let without_it = (of_others + less).saturating_sub(more);
            self.add(&added, without_it, limit, claims.is_checked, unix_ms);
            self.weigh(&weighed, of_others, limit, unix_ms);
        }
    }

    /// Takes note of a claim; whether two peers say so.
    fn note(&mut self, claim: &Claim, is_first: bool) -> bool {
        let is_same = |of: &Move| of.by == claim.by && of.with == claim.with;
        let first = (claim.endpoint.clone(), PeerId(0));
        let of_endpoint = self.all.range(first..);
        let mut others = of_endpoint.take_while(|((addr, _), _)| *addr == claim.endpoint);
        let is_new = !self
            .all
            .contains_key(&(claim.endpoint.clone(), claim.origin));
        let is_seconded = is_new && others.any(|(_, of)| is_same(of));
        let key = (claim.endpoint.clone(), claim.origin);
        let is_believed = is_first || is_seconded;
        let is_old = claim.by == By::Added && claim.seen.is_old();
        let known = self.all.entry(key).or_insert(Move {
            by: claim.by,
            with: claim.with,
            has_effect: is_believed || is_old,
            has_passed: is_believed,
            is_seconded,
            held: None,
        });
        if !is_same(known) {
            // It had effect for what it was.
            let is_more = known.by == claim.by && known.with < claim.with;
            known.has_effect = is_first || is_old && !is_more;
            known.has_passed = is_first || known.has_passed && known.by == claim.by;
            known.is_seconded = false;
            known.by = claim.by;
            known.with = claim.with;
        }
        known.has_passed |= claim.by == By::Added && claim.seen == Seen::Up;
        if known.is_seconded {
            known.held = None;
        }
        known.is_seconded
    }

    fn has_effect(&self, claim: &Claim) -> bool {
        let known = self.all.get(&(claim.endpoint.clone(), claim.origin));
        known.is_some_and(|known| known.has_effect)
    }

    /// Lets additions have picks for as much weight as one peer may take from the others.
    fn add(
        &mut self,
        added: &[&Claim],
        of_others: u64,
        limit: f64,
        is_checked: bool,
        unix_ms: u64,
    ) {
        // A / (W + A) <= limit
        let room = limit / (1.0 - limit) * of_others as f64 + 1e-9;
        let is_bounded = is_checked && of_others > 0 && limit < 1.0;
        let mut taken = 0.0;
        for claim in added {
            let Some(of) = self.of_mut(claim) else {
                continue;
            };
            if !is_bounded || of.has_passed {
                of.has_effect = true;
            } else {
                taken += f64::from(claim.with);
                of.has_effect |= taken <= room;
            }
            of.settle(claim, unix_ms);
        }
    }

    /// Lets words about weights have effect for as much as one peer may move.
    fn weigh(&mut self, weighed: &[&Claim], of_others: u64, limit: f64, unix_ms: u64) {
        let before = weighed.iter().take_while(|c| self.has_effect(c)).count();
        let is_too_much = |count: usize| moved(weighed, count, of_others) > limit + 1e-9;
        let mut effective = weighed.len();
        if is_too_much(effective) {
            // Between one number that will do and one that is too much there is a last one that will do.
            effective = before;
            let mut beyond = weighed.len();
            while effective + 1 < beyond {
                let middle = effective.midpoint(beyond);
                if is_too_much(middle) {
                    beyond = middle;
                } else {
                    effective = middle;
                }
            }
        }
        for (at, claim) in weighed.iter().enumerate() {
            if let Some(of) = self.of_mut(claim) {
                of.has_effect = at < effective;
                of.settle(claim, unix_ms);
            }
        }
    }

    fn of_mut(&mut self, claim: &Claim) -> Option<&mut Move> {
        self.all.get_mut(&(claim.endpoint.clone(), claim.origin))
    }
}

impl Move {
    fn settle(&mut self, claim: &Claim, unix_ms: u64) {
        if self.has_effect {
            self.held = None;
            return;
        }
        let since_unix_ms = self.held.take().map_or(unix_ms, |held| held.since_unix_ms);
        self.held = Some(Braked {
            origin: claim.origin,
            what: claim.what.clone(),
            since_unix_ms,
        });
    }
}

/// The part of the traffic that the first `count` words of a peer move; `of_others` is the weight of all members with
/// all its words.
fn moved(weighed: &[&Claim], count: usize, of_others: u64) -> f64 {
    let sum = |of: fn(&Claim) -> u32| weighed.iter().map(|c| f64::from(of(c))).sum::<f64>();
    let untouched = of_others as f64 - sum(|c| c.with);
    let before = untouched + sum(|c| c.without);
    let chosen = |at: usize, claim: &Claim| {
        let weight = if at < count {
            claim.with
        } else {
            claim.without
        };
        f64::from(weight)
    };
    let claims = || weighed.iter().enumerate();
    let after = untouched + claims().map(|(at, claim)| chosen(at, claim)).sum::<f64>();
    if before <= 0.0 || after <= 0.0 {
        // Nobody to take from, or nobody to give to: removals are no concern of this.
        return 0.0;
    }
    let of_untouched = untouched.max(0.0) * (1.0 / after - 1.0 / before).abs();
    let of_touched = claims()
        .map(|(at, claim)| (chosen(at, claim) / after - f64::from(claim.without) / before).abs());
    of_touched.sum::<f64>().midpoint(of_untouched)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: PeerId = PeerId(1);
    const LIAR: PeerId = PeerId(2);

    fn addr(n: usize) -> EndpointAddr {
        let text = format!("10.0.{}.{}:80", n / 200, n % 200 + 1);
        EndpointAddr::Ip(text.parse().unwrap())
    }

    fn claim(n: usize, by: By, without: u32, with: u32) -> Claim {
        Claim {
            endpoint: addr(n),
            origin: LIAR,
            by,
            without,
            with,
            seen: Seen::Unknown,
            stamp: Stamp::at(n as u64),
            what: format!("weight {with}"),
        }
    }

    /// The same words, of endpoints that are this.
    fn seen(claims: &Claims, which: std::ops::Range<usize>, seen: Seen) -> Claims {
        let mut claims = claims.clone();
        let addrs: BTreeSet<EndpointAddr> = which.map(addr).collect();
        let of_those = |c: &&mut Claim| addrs.contains(&c.endpoint);
        claims
            .all
            .iter_mut()
            .filter(of_those)
            .for_each(|c| c.seen = seen);
        claims
    }

    /// `members` endpoints of weight `base`, and these words.
    fn claims(members: usize, base: u32, all: Vec<Claim>) -> Claims {
        let delta = |c: &Claim| i64::from(c.with) - i64::from(c.without);
        let total = (members * base as usize) as i64 + all.iter().map(delta).sum::<i64>();
        let added = all.iter().filter(|c| c.by == By::Added).count();
        Claims {
            all,
            total: total as u64,
            members: members + added,
            is_checked: true,
        }
    }

    fn held(moves: &mut Moves, claims: &Claims, limit: f64) -> usize {
        moves.judge(claims, limit, OWN, 7);
        let once = moves.held().count();
        moves.judge(claims, limit, OWN, 8);
        assert_eq!(moves.held().count(), once, "stable");
        assert!(moves.held().all(|(_, held)| held.since_unix_ms == 7));
        once
    }

    /// One that has looked before.
    fn known() -> Moves {
        Moves {
            is_known: true,
            ..Moves::default()
        }
    }

    fn weights(which: std::ops::Range<usize>, without: u32, with: u32) -> Vec<Claim> {
        which.map(|n| claim(n, By::Weight, without, with)).collect()
    }

    fn additions(which: std::ops::Range<usize>, with: u32) -> Vec<Claim> {
        which.map(|n| claim(n, By::Added, 0, with)).collect()
    }

    #[test]
    fn weights_move_no_more_than_the_share_whichever_way_they_are_put() {
        // All but one get next to nothing.
        let low = claims(10, 1000, weights(0..9, 1000, 1));
        let mut moves = known();
        assert_eq!(
            held(&mut moves, &low, 0.5),
            4,
            "five of ten: half of the traffic"
        );
        let effective: Vec<&Claim> = low.all.iter().filter(|c| moves.has_effect(c)).collect();
        assert_eq!(effective.last().unwrap().endpoint, addr(4), "the oldest");
        // One gets nearly all.
        let high = claims(10, 1, weights(0..1, 1, 1000));
        assert_eq!(held(&mut known(), &high, 0.5), 1);
        // What people do.
        for (without, with) in [(1, 2), (1, 5), (10, 1), (100, 50)] {
            let usual = claims(10, without, weights(0..1, without, with));
            assert_eq!(held(&mut known(), &usual, 0.5), 0, "{without} -> {with}");
        }
        assert_eq!(held(&mut known(), &low, 1.0), 0);
        let two = claims(2, 1, weights(0..1, 1, 1000));
        assert_eq!(held(&mut known(), &two, 0.01), 0, "as much as one of two");
    }

    #[test]
    fn another_scale_moves_nothing_once_all_of_it_is_said() {
        let mut moves = known();
        let some = claims(10, 1, weights(0..3, 1, 100));
        assert!(held(&mut moves, &some, 0.3) > 0);
        let all = claims(10, 1, weights(0..10, 1, 100));
        moves.judge(&all, 0.3, OWN, 9);
        assert_eq!(moves.held().count(), 0);
    }

    #[test]
    fn what_had_effect_keeps_it_and_what_is_said_anew_does_not() {
        let mut moves = known();
        let half = claims(10, 10, weights(0..4, 10, 1));
        assert_eq!(held(&mut moves, &half, 0.5), 0);
        let fewer = claims(5, 10, weights(0..4, 10, 1));
        moves.judge(&fewer, 0.3, OWN, 9);
        assert_eq!(moves.held().count(), 0);
        let more = claims(10, 10, weights(0..1, 10, 1000));
        assert_eq!(
            held(&mut moves, &more, 0.5),
            1,
            "another weight, decided anew"
        );
        assert!(moves.held_of(&addr(0), LIAR, By::Weight).is_some());
        assert!(moves.held_of(&addr(0), OWN, By::Weight).is_none());
    }

    #[test]
    fn second_word_lets_go() {
        let mut moves = known();
        let high = claims(10, 1, weights(0..1, 1, 1000));
        assert_eq!(held(&mut moves, &high, 0.5), 1);
        let mut again = high.clone();
        again.all[0].origin = PeerId(3);
        moves.judge(&again, 0.5, OWN, 9);
        assert_eq!(moves.held().count(), 0);
        moves.judge(&again, 0.5, OWN, 9);
        assert_eq!(moves.held().count(), 0, "for as long as it is said");
        again.all[0].with = 999;
        moves.judge(&again, 0.5, OWN, 9);
        assert_eq!(moves.held().count(), 1, "that one says alone");
    }

    #[test]
    fn additions_beyond_the_share_wait_for_a_check() {
        let flood = claims(10, 1, additions(10..110, 1));
        let mut moves = known();
        assert_eq!(held(&mut moves, &flood, 0.5), 90);
        assert!(!moves.is_unproven(&addr(19)) && moves.is_unproven(&addr(20)));
        // That those within the share are taken for well frees nothing for others, nor does that others wait.
        let flood = seen(&flood, 10..20, Seen::Taken);
        let flood = seen(&flood, 20..110, Seen::Held);
        assert_eq!(held(&mut moves, &flood, 0.5), 90);
        // Those that live are used, and free the share for others.
        let flood = seen(&flood, 10..60, Seen::Up);
        moves.judge(&flood, 0.5, OWN, 9);
        assert_eq!(moves.held().count(), 40);
        // They stay believed when they fall.
        let flood = seen(&flood, 10..60, Seen::Down);
        moves.judge(&flood, 0.5, OWN, 9);
        assert_eq!(moves.held().count(), 40);
        let flood = seen(&flood, 60..110, Seen::Up);
        moves.judge(&flood, 0.5, OWN, 9);
        assert_eq!(moves.held().count(), 0);
        let heavy = claims(10, 1, additions(10..12, 1000));
        assert_eq!(held(&mut known(), &heavy, 0.5), 2);
    }

    /// Who registered at two peers is a member by the word of one alone when the other goes: claimed only now, served
    /// all along.
    #[test]
    fn members_that_are_claimed_only_now_are_not_held() {
        let flood = claims(10, 1, additions(10..110, 1));
        for is in [Seen::Down, Seen::Taken, Seen::Up] {
            let flood = seen(&flood, 10..110, is);
            assert_eq!(held(&mut known(), &flood, 0.5), 0, "{is:?}");
        }
        // It was one of several, with another weight.
        let before = claims(110, 1, weights(10..110, 1, 2));
        let mut moves = known();
        moves.judge(&before, 1.0, OWN, 6);
        let flood = seen(&flood, 10..110, Seen::Taken);
        assert_eq!(held(&mut moves, &flood, 0.5), 0);
        // New ones beside them wait, for as long as nobody has found those up.
        let more = claims(10, 1, additions(10..111, 1));
        let more = seen(&more, 10..110, Seen::Taken);
        assert_eq!(held(&mut moves, &more, 0.5), 1);
        // Less of what is served is nothing new; more of it is, until it was found up.
        let other = |with| seen(&claims(10, 1, additions(10..20, with)), 10..20, Seen::Taken);
        let mut moves = known();
        assert_eq!(held(&mut moves, &other(1), 0.5), 0);
        moves.judge(&other(1000), 0.5, OWN, 9);
        assert_eq!(moves.held().count(), 10);
        let mut moves = known();
        moves.judge(&other(1000), 0.5, OWN, 9);
        moves.judge(&other(999), 0.5, OWN, 9);
        assert_eq!(moves.held().count(), 0);
    }

    #[test]
    fn what_is_said_while_this_peer_learns_has_effect() {
        let flood = claims(10, 1, additions(10..110, 1));
        let high = claims(10, 1, weights(0..1, 1, 1000));
        for all in [&flood, &high] {
            let mut moves = Moves::default();
            moves.judge(&claims(10, 1, Vec::new()), 0.5, OWN, 6);
            assert_eq!(held(&mut moves, all, 0.5), 0);
            let mut later = (*all).clone();
            later.all.iter_mut().for_each(|claim| claim.with += 1);
            assert_eq!(held(&mut moves, &later, 0.5), 0);
            moves.know();
            assert_eq!(held(&mut moves, &later, 0.5), 0, "and keeps it");
            let mut moves = known();
            assert!(held(&mut moves, all, 0.5) > 0);
        }
    }

    #[test]
    fn weights_that_are_held_make_no_room_for_additions() {
        let mut words = weights(0..1, 1, 1000);
        words.extend(additions(10..110, 1));
        let both = claims(10, 1, words);
        let mut moves = known();
        assert_eq!(held(&mut moves, &both, 0.5), 91);
        assert!(moves.held_of(&addr(0), LIAR, By::Weight).is_some());
    }

    #[test]
    fn new_upstreams_fill_and_those_that_nobody_checks_are_believed() {
        let fill = claims(0, 0, additions(0..1000, 1));
        assert_eq!(held(&mut known(), &fill, 0.5), 0);
        let mut unchecked = claims(10, 1, additions(10..110, 1));
        unchecked.is_checked = false;
        assert_eq!(held(&mut known(), &unchecked, 0.5), 0);
        // What was there when this peer began.
        let flood = claims(10, 1, additions(10..110, 1));
        let mut moves = Moves::default();
        assert_eq!(held(&mut moves, &flood, 0.5), 0);
        let mut own = claims(10, 1, additions(10..110, 1));
        own.all.iter_mut().for_each(|claim| claim.origin = OWN);
        assert_eq!(held(&mut known(), &own, 0.5), 0, "its own word");
    }

    #[test]
    fn upstream_without_weight_is_no_division_by_zero() {
        let zero = claims(3, 0, weights(0..3, 0, 5));
        assert_eq!(held(&mut known(), &zero, 0.5), 0);
        assert_eq!(held(&mut known(), &Claims::default(), 0.5), 0);
    }
}
