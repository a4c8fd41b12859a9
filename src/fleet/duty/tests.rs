use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use super::duties::SETTLE;
use super::*;
use crate::base::clock::{Nanos, nanos};
use crate::health::duty::{Phase, Role};
use crate::upstream::Health;

const ME: PeerId = PeerId(1);
const CHECK: u64 = 77;
const SECOND: Nanos = 1_000_000_000;

/// One peer, and the votes that it has heard.
struct World {
    duties: Duties,
    votes: HashMap<(EndpointAddr, PeerId), (bool, u64, Stamp)>,
    lookups: Cell<usize>,
    stamp: u64,
}

fn endpoint(n: u8) -> EndpointAddr {
    EndpointAddr::Ip(([10, 0, 0, n], 80).into())
}

fn subject(n: u8) -> Subject {
    Subject {
        upstream: "app".into(),
        endpoint: endpoint(n),
        zone: None,
        check: CHECK,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(1),
    }
}

fn peers(count: u64) -> Vec<(PeerId, Option<Name>)> {
    (1..=count).map(|n| (PeerId(n), None)).collect()
}

impl World {
    fn new(k: usize, fellows: u64, endpoints: u8) -> Self {
        let mut duties = Duties::new(ME, k);
        duties.set_peers(&peers(fellows));
        duties.set_subjects((1..=endpoints).map(subject));
        Self {
            duties,
            votes: HashMap::new(),
            lookups: Cell::new(0),
            stamp: 0,
        }
    }

    fn cast(&mut self, n: u8, prober: PeerId, passed: bool) {
        self.cast_on(n, prober, passed, CHECK);
    }

    fn cast_on(&mut self, n: u8, prober: PeerId, passed: bool, check: u64) {
        self.stamp += 1;
        let vote = (passed, check, Stamp(self.stamp));
        self.votes.insert((endpoint(n), prober), vote);
        self.duties.heard("app", &endpoint(n));
    }

    /// A peer is there again after what was said so far.
    fn came_back(&mut self, peer: PeerId, now: Nanos) {
        self.stamp += 1;
        self.duties.came(peer, Stamp(self.stamp), now);
        self.duties.heard("app", &endpoint(1));
    }

    fn update(&mut self, now: Nanos) -> Changes {
        self.lookups.set(0);
        let changes = self.duties.update(now, |subject, prober| {
            self.lookups.set(self.lookups.get() + 1);
            let vote = self.votes.get(&(subject.endpoint.clone(), prober))?;
            let (passed, check, stamp) = *vote;
            Some(Cast {
                passed,
                check,
                stamp,
                why: if passed { "" } else { "refused" },
            })
        });
        assert!(!self.duties.is_due());
        changes
    }

    fn role(&self, n: u8) -> Role {
        self.duties.role("app", &endpoint(n)).unwrap()
    }

    fn probers(&self, n: u8) -> Vec<PeerId> {
        self.duties.probers("app", &endpoint(n)).to_vec()
    }

    /// An endpoint that is this peer's to ask, or not.
    fn find(&self, is_mine: bool) -> u8 {
        let mut all =
            (1..=u8::MAX).take_while(|n| self.duties.role("app", &endpoint(*n)).is_some());
        all.find(|n| self.probers(*n).contains(&ME) == is_mine)
            .expect("one of many")
    }
}

fn health(changes: &Changes) -> Vec<Option<Health>> {
    let rulings = changes.rulings.iter();
    rulings.map(|ruled| ruled.ruling.health()).collect()
}

#[test]
fn who_is_alone_or_shares_nothing_asks_everybody() {
    for (k, fellows) in [(3, 1), (3, 0), (0, 9), (1, 9)] {
        let mut world = World::new(k, fellows, 5);
        let changes = world.update(0);
        let Some(Duty::Shared(roles)) = changes.duty.as_deref() else {
            unreachable!("it is told at the first time");
        };
        assert!(roles["app"].values().all(|role| *role == Role::Alone));
        assert_eq!(roles["app"].len(), 5);
        assert_eq!((changes.rulings, changes.retract), (vec![], vec![]));
        assert_eq!(world.duties.next_due(), None);
        assert_eq!(world.update(SECOND), Changes::default(), "nothing is new");
    }
}

#[test]
fn probers_of_one_endpoint_take_turns_evenly() {
    let mut phases = Vec::new();
    for me in 1..=3 {
        let mut duties = Duties::new(PeerId(me), 3);
        duties.set_peers(&peers(3));
        duties.set_subjects([subject(1)]);
        duties.update(0, |_, _| None);
        let Some(Role::Prober { phase, is_ruled }) = duties.role("app", &endpoint(1)) else {
            unreachable!("all three ask");
        };
        assert!(!is_ruled);
        phases.push(phase.0);
    }
    phases.sort_unstable();
    let third = u64::MAX / 3;
    assert!(phases[1] - phases[0] >= third - 1 && phases[2] - phases[1] >= third - 1);
    assert_ne!(Phase(phases[0]), Phase(0));
}

#[test]
fn votes_rule_as_soon_as_there_are_two() {
    let mut world = World::new(3, 3, 1);
    world.update(0);
    world.cast(1, ME, false);
    assert_eq!(world.update(1), Changes::default(), "one is none");
    assert!(world.role(1).judges());
    world.cast(1, PeerId(2), false);
    let changes = world.update(2);
    let [ruled] = &changes.rulings[..] else {
        unreachable!("{changes:?}");
    };
    assert_eq!(ruled.ruling.health(), Some(Health::Down));
    assert_eq!(ruled.why, "2 of 2 peers: refused");
    assert_eq!(ruled.peers(), "0000000000000001, 0000000000000002");
    let duty = changes.duty.expect("it is ruled now");
    assert!(duty.role("app", &endpoint(1)).is_ruled());
    // As many for as against: what was stays.
    world.cast(1, ME, true);
    assert_eq!(health(&world.update(3)), [None]);
    assert!(world.role(1).is_ruled());
    world.cast(1, PeerId(3), true);
    let changes = world.update(4);
    assert_eq!(health(&changes), [Some(Health::Up)]);
    assert_eq!(changes.rulings[0].why, "2 of 3 peers");
    // The third agrees: nothing is new.
    world.cast(1, PeerId(2), true);
    assert_eq!(world.update(5), Changes::default());
    let of = world.duties.ruling("app", &endpoint(1));
    assert_eq!(of, Some(Ruling::Up { passing: 3, of: 3 }));
}

#[test]
fn votes_on_something_else_and_of_others_do_not_count() {
    let mut world = World::new(3, 9, 200);
    world.update(0);
    let n = world.find(true);
    let fellows: Vec<_> = world.probers(n).into_iter().filter(|p| *p != ME).collect();
    let mut strangers = peers(9).into_iter().map(|(id, _)| id);
    let stranger = strangers.find(|id| !world.probers(n).contains(id)).unwrap();
    world.cast(n, ME, false);
    world.cast(n, stranger, false);
    world.cast(n, PeerId(99), false);
    world.cast_on(n, fellows[0], false, CHECK + 1);
    assert_eq!(world.update(1).rulings, []);
    world.cast(n, fellows[0], false);
    assert_eq!(health(&world.update(1)), [Some(Health::Down)]);
}

#[test]
fn new_vote_costs_the_look_at_one_endpoint() {
    let mut world = World::new(3, 9, 200);
    world.update(0);
    assert_eq!(world.lookups.get(), 600);
    world.cast(7, PeerId(2), true);
    world.cast(7, PeerId(3), true);
    world.duties.heard("app", &endpoint(201));
    world.duties.heard("web", &endpoint(1));
    world.update(1);
    assert_eq!(world.lookups.get(), 3);
    // One who comes moves a few.
    world.duties.set_peers(&peers(10));
    world.update(2);
    let looked = world.lookups.get();
    assert!((1..=300).contains(&looked), "{looked}");
}

#[test]
fn who_is_spared_waits_for_the_others_but_not_for_ever() {
    let mut world = World::new(3, 9, 200);
    world.update(10);
    let n = world.find(false);
    assert_eq!(world.role(n), Role::Spared { is_ruled: false });
    // interval + timeout + slack
    let until = 10 + nanos(Duration::from_secs(8));
    assert_eq!(world.duties.next_due(), Some(until));
    assert_eq!(world.update(until - 1), Changes::default());
    let changes = world.update(until);
    assert_eq!(world.role(n), Role::Alone);
    assert!(changes.duty.is_some());
    assert_eq!(world.duties.next_due(), None);
    let probers = world.probers(n);
    world.cast(n, probers[0], true);
    world.update(until + 1);
    assert_eq!(world.role(n), Role::Alone, "one has voted");
    world.cast(n, probers[1], true);
    let changes = world.update(until + 2);
    assert_eq!(health(&changes), [Some(Health::Up)]);
    assert_eq!(world.role(n), Role::Spared { is_ruled: true });
    // When their votes end, what they found stays for a while.
    let dead = |id: &PeerId| *id == probers[0] || *id == probers[1];
    let left: Vec<_> = peers(9).into_iter().filter(|(id, _)| !dead(id)).collect();
    world.duties.set_peers(&left);
    world.update(until + 3);
    assert!(!world.role(n).is_ruled());
    assert_ne!(world.role(n), Role::Alone);
}

#[test]
fn next_one_takes_over_from_a_prober_that_dies() {
    let mut world = World::new(3, 9, 200);
    world.update(0);
    let mine: HashSet<u8> = (1..=200).filter(|n| world.role(*n).votes()).collect();
    let n = world.find(false);
    let probers = world.probers(n);
    for prober in &probers {
        world.cast(n, *prober, false);
    }
    world.update(1);
    // All but the probers of another endpoint and this peer: until it is this one's turn.
    let mut list = peers(9);
    let mut dead = 0;
    while !world.role(n).votes() {
        let victim = world.probers(n)[0];
        list.retain(|(id, _)| *id != victim);
        dead += 1;
        world.duties.set_peers(&list);
        let changes = world.update(2);
        assert!(changes.retract.is_empty());
    }
    // Two of the three who voted may be dead by now; what they said does not count.
    let alive = probers
        .iter()
        .filter(|p| world.probers(n).contains(p))
        .count();
    assert_eq!(alive, 3_usize.saturating_sub(dead));
    assert_eq!(world.role(n).is_ruled(), alive >= 2);
    // They come back: it is theirs again, and this peer's vote is taken back.
    world.duties.set_peers(&peers(9));
    let changes = world.update(3);
    assert!(changes.retract.contains(&("app".into(), endpoint(n))));
    let again: HashSet<u8> = (1..=200).filter(|n| world.role(*n).votes()).collect();
    assert_eq!(again, mine);
    assert_eq!(world.duties.mine(), mine.len());
}

#[test]
fn what_leaves_the_file_is_given_up_and_what_stays_is_told_anew() {
    let mut world = World::new(3, 3, 3);
    for n in 1..=3 {
        world.cast(n, ME, true);
        world.cast(n, PeerId(2), true);
    }
    assert_eq!(world.update(0).rulings.len(), 3);
    // One leaves, one is there twice, one is asked something else.
    let other = Subject {
        check: CHECK + 1,
        ..subject(2)
    };
    let subjects = [subject(1), other, subject(1)];
    world.duties.set_subjects(subjects);
    let changes = world.update(1);
    assert_eq!(changes.retract, [("app".into(), endpoint(3))]);
    assert_eq!(health(&changes), [Some(Health::Up), None]);
    assert!(world.role(1).is_ruled() && !world.role(2).is_ruled());
    assert_eq!(world.duties.role("app", &endpoint(3)), None);
}

#[test]
fn fellow_that_fails_is_a_reason_to_ask_if_this_one_passes() {
    let mut world = World::new(3, 3, 1);
    world.update(0);
    let name = || vec![("app".into(), endpoint(1))];
    world.cast(1, PeerId(2), false);
    assert_eq!(
        world.update(0).confirm,
        [],
        "it has not voted: it is about to ask"
    );
    world.cast(1, ME, true);
    assert_eq!(world.update(1).confirm, [], "it has asked since");
    world.cast(1, PeerId(3), false);
    assert_eq!(world.update(2).confirm, name());
    world.duties.heard("app", &endpoint(1));
    assert_eq!(world.update(SECOND).confirm, [], "once each");
    // A liar: ten times an interval at most.
    let mut asked = 0;
    for ms in 0..10_000 {
        world.cast(1, PeerId(3), ms % 2 == 0);
        asked += world.update(SECOND + ms * 1_000_000).confirm.len();
    }
    assert_eq!(asked, 20);
    world.cast(1, ME, false);
    world.cast(1, PeerId(2), false);
    assert_eq!(world.update(60 * SECOND).confirm, [], "it fails here too");
}

/// What they found before they went may be long past.
#[test]
fn votes_of_peers_that_came_back_count_once_they_are_said_again() {
    let mut world = World::new(3, 3, 1);
    for (peer, passed) in [(ME, true), (PeerId(2), false), (PeerId(3), false)] {
        world.cast(1, peer, passed);
    }
    assert_eq!(health(&world.update(0)), [Some(Health::Down)]);
    // They went, and what was dead is well: this peer found so, and so did those who asked in their place.
    world.duties.set_peers(&peers(1));
    world
        .duties
        .set_peers(&[(ME, None), (PeerId(4), None), (PeerId(5), None)]);
    world.cast(1, PeerId(4), true);
    assert_eq!(health(&world.update(1)), [Some(Health::Up)]);
    world.duties.set_peers(&peers(3));
    world.came_back(PeerId(2), 2 * SECOND);
    world.came_back(PeerId(3), 3 * SECOND);
    let changes = world.update(3 * SECOND);
    assert_eq!(
        changes.rulings,
        [],
        "what they found before says nothing now"
    );
    assert!(world.role(1).is_ruled(), "it stays what it was");
    assert_eq!(changes.confirm, [], "nor does anybody doubt it");
    // Who came back first would have said by then that it finds something else.
    let settle = nanos(SETTLE);
    assert_eq!(world.duties.next_due(), Some(2 * SECOND + settle));
    assert_eq!(world.update(2 * SECOND + settle - 1), Changes::default());
    assert_eq!(
        health(&world.update(2 * SECOND + settle)),
        [None],
        "one each"
    );
    assert_eq!(world.duties.next_due(), Some(3 * SECOND + settle));
    assert_eq!(
        health(&world.update(3 * SECOND + settle)),
        [Some(Health::Down)]
    );
    assert_eq!(world.duties.next_due(), None);
}

#[test]
fn what_peers_find_after_they_came_back_counts_at_once() {
    let mut world = World::new(3, 3, 1);
    for peer in [ME, PeerId(2), PeerId(3)] {
        world.cast(1, peer, true);
    }
    assert_eq!(health(&world.update(0)), [Some(Health::Up)]);
    world.came_back(PeerId(2), SECOND);
    world.came_back(PeerId(3), SECOND);
    assert_eq!(world.update(SECOND).rulings, []);
    world.cast(1, PeerId(3), false);
    assert_eq!(health(&world.update(SECOND + 1)), [None], "one each");
    world.cast(1, PeerId(2), false);
    assert_eq!(health(&world.update(SECOND + 2)), [Some(Health::Down)]);
    assert_eq!(world.duties.next_due(), None);
}

#[test]
fn what_is_not_checked_is_nobodys_duty() {
    let mut world = World::new(3, 3, 0);
    world.cast(1, PeerId(2), false);
    world.cast(1, PeerId(3), false);
    let changes = world.update(0);
    assert_eq!(changes.duty.as_deref(), Some(&Duty::Shared(HashMap::new())));
    assert_eq!((changes.rulings, changes.confirm), (vec![], vec![]));
    assert_eq!(world.duties.mine(), 0);
}
