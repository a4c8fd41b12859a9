//! From facts to what they mean: told to a set of overrides, as the process does.

use super::*;
use crate::base::clock::nanos;
use crate::config::{Config, Name};
use crate::fleet::stamp::Stamp;
use crate::fleet::standing::SETTLES;
use crate::upstream::overrides::{By, Overrides, address, effective_members};

const OWN: PeerId = PeerId(1);
const A: PeerId = PeerId(0xa);
const B: PeerId = PeerId(0xb);

const SECOND: Nanos = 1_000_000_000;

/// A peer that looks at `pool` (dynamic) with these endpoints in its file.
struct Bed {
    config: Config,
    facts: Vec<Fact>,
    orphans: Orphans,
    brake: Brake,
    overrides: Overrides,
    seen: BTreeMap<EndpointAddr, Seen>,
    now: Nanos,
    again_at: Option<Nanos>,
    stamp: u64,
}

fn addr(n: usize) -> EndpointAddr {
    address(&format!("10.0.0.{n}:80")).unwrap()
}

impl Bed {
    fn new(listed: usize, dynamic: bool) -> Self {
        let list: Vec<String> = (1..=listed).map(|n| format!("'{}'", addr(n))).collect();
        let text = format!(
            "[listeners.web]\nbind = ':8080'\nupstream = 'pool'\n[upstreams.pool]\ndynamic = {dynamic}\nendpoints = [{}]\n",
            list.join(", ")
        );
        let mut orphans = Orphans::default();
        orphans.see([A, B], 0);
        Self {
            config: config::parse("test", &text).unwrap().config,
            facts: Vec::new(),
            orphans,
            brake: Brake::new(0.5),
            overrides: Overrides::default(),
            seen: BTreeMap::new(),
            now: 0,
            again_at: None,
            stamp: 0,
        }
    }

    /// Keeps a fact in place of the one with its key.
    fn say(&mut self, origin: PeerId, key: Key, value: Value) {
        self.stamp += 1;
        self.facts.retain(|fact| fact.key != key);
        self.facts.push(Fact {
            key,
            value,
            stamp: Stamp::at(self.stamp),
            origin,
        });
    }

    fn word(&mut self, origin: PeerId, n: usize, word: Word) {
        self.word_until(origin, n, word, None);
    }

    fn word_until(&mut self, origin: PeerId, n: usize, word: Word, expires_unix_ms: Option<u64>) {
        let by = By {
            owner: "uid:0".to_owned(),
            reason: String::new(),
            since_unix_ms: 0,
            expires_unix_ms,
        };
        self.say(origin, key(n, word.field()), Value::Said { word, by });
    }

    fn unsay(&mut self, origin: PeerId, n: usize, part: Part) {
        self.say(origin, key(n, part), Value::Gone);
    }

    fn register(&mut self, registrar: PeerId, n: usize, weight: u32) {
        let value = Value::Registered {
            weight,
            zone: None,
            ttl_ms: 30_000,
        };
        self.say(registrar, registration(n, registrar), value);
    }

    fn deregister(&mut self, registrar: PeerId, n: usize) {
        self.say(registrar, registration(n, registrar), Value::Gone);
    }

    /// Looks: what changed, without the beginnings of the sentences.
    fn look(&mut self) -> Vec<String> {
        let spec = &self.config.upstreams[0];
        let sight = Sight {
            spec,
            own: OWN,
            seen: &|addr| self.seen.get(addr).copied().unwrap_or_default(),
            now: self.now,
            unix_ms: self.now / 1_000_000,
        };
        let Standing {
            told: all,
            again_at,
        } = told(&sight, &self.facts, &mut self.orphans, &mut self.brake);
        self.again_at = again_at;
        let heeded = self.overrides.heed(all.clone(), spec);
        assert_eq!(heeded.left_out, 0);
        // Once more is no news, in any order.
        let again = told(
            &sight,
            self.facts.iter().rev(),
            &mut self.orphans,
            &mut self.brake,
        );
        assert_eq!(again.told, all);
        let texts = heeded.effects.into_iter().map(|e| e.text);
        texts
            .map(|text| text.replace("upstream `pool`, endpoint 10.0.0.", ""))
            .collect()
    }

    /// `n weight state` of every member; instead of its state `awaited`, if a check is to find it up first.
    fn members(&self) -> Vec<String> {
        let members = effective_members(&self.config.upstreams[0], &self.overrides);
        let members = members.iter().map(|m| {
            let addr = m.addr.to_string();
            let n = addr.trim_start_matches("10.0.0.").trim_end_matches(":80");
            let state = if m.is_unproven {
                "awaited"
            } else {
                AdminState::word(m.state)
            };
            format!("{n} {} {state}", m.weight)
        });
        members.collect()
    }

    fn held(&self) -> Vec<String> {
        let held = self.brake.held();
        held.map(|(_, addr, held)| format!("{addr} {}", held.what))
            .collect()
    }

    /// Its endpoints are checked.
    fn checked(mut self) -> Self {
        let text = "[listeners.web]\nbind = ':8080'\nupstream = 'pool'\n[upstreams.pool]\nendpoints = ['10.0.0.1:80']\nhealth.check = 'tcp'\n";
        let config = config::parse("test", text).unwrap().config;
        let health = config.upstreams[0].health.clone();
        assert!(health.is_some());
        self.config.upstreams[0].health = health;
        self
    }

    fn wait(&mut self, duration: Duration) {
        self.now += nanos(duration);
    }
}

fn key(n: usize, part: Part) -> Key {
    Key::Override {
        upstream: "pool".into(),
        endpoint: addr(n),
        part,
    }
}

fn registration(n: usize, registrar: PeerId) -> Key {
    Key::Registration {
        upstream: "pool".into(),
        endpoint: addr(n),
        registrar,
    }
}

#[test]
fn endpoint_is_a_member_while_any_registrar_says_so() {
    let mut bed = Bed::new(0, true);
    bed.register(A, 9, 3);
    assert_eq!(
        bed.look(),
        ["9:80: joins with weight 3, registered at 000000000000000a"]
    );
    bed.register(B, 9, 5);
    assert_eq!(
        bed.look(),
        ["9:80: weight 3 -> 5, registered at 000000000000000b and 1 more"],
        "the later one says with which weight"
    );
    bed.deregister(B, 9);
    bed.look();
    assert_eq!(bed.members(), ["9 3 active"]);
    bed.deregister(A, 9);
    assert_eq!(
        bed.look(),
        ["9:80: leaves, no longer registered at peer 000000000000000a"]
    );
}

#[test]
fn weight_0_at_one_registrar_does_not_silence_another() {
    let mut bed = Bed::new(0, true);
    bed.register(A, 9, 3);
    bed.register(B, 9, 0);
    bed.look();
    assert_eq!(bed.members(), ["9 3 active"]);
}

#[test]
fn words_of_operators_have_effect_and_end_with_their_time() {
    let mut bed = Bed::new(3, false);
    bed.word_until(A, 1, Word::Drain, Some(5000));
    bed.word(B, 2, Word::Weight(7));
    assert_eq!(
        bed.look(),
        [
            "1:80: active -> drain, by uid:0 at peer 000000000000000a",
            "2:80: weight 1 -> 7, by uid:0 at peer 000000000000000b"
        ]
    );
    bed.wait(Duration::from_secs(5));
    assert_eq!(
        bed.look(),
        ["1:80: drain -> active, said at peer 000000000000000a: it has expired"]
    );
    bed.unsay(A, 2, Part::Weight);
    assert_eq!(
        bed.look(),
        ["2:80: weight 7 -> 1, taken back at peer 000000000000000a"]
    );
}

#[test]
fn orphans_end_after_a_while_unless_this_peer_is_alone() {
    let mut bed = Bed::new(0, true);
    bed.register(A, 1, 1);
    bed.register(A, 2, 1);
    bed.register(B, 2, 1);
    bed.look();
    assert_eq!(bed.again_at, None);
    bed.orphans.see([B], SECOND);
    bed.now = SECOND;
    assert!(bed.look().is_empty());
    assert_eq!(bed.again_at, Some(91 * SECOND));
    bed.now = 91 * SECOND - 1;
    assert!(bed.look().is_empty());
    bed.now = 91 * SECOND;
    assert_eq!(
        bed.look(),
        ["1:80: leaves, registered at peer 000000000000000a: the peer has been away for too long"]
    );
    assert_eq!(bed.members(), ["2 1 active"], "it has registered elsewhere");
    // It comes back, with all that it said.
    bed.orphans.see([A, B], 100 * SECOND);
    bed.look();
    assert_eq!(bed.members(), ["1 1 active", "2 1 active"]);
    bed.orphans.see([], 101 * SECOND);
    bed.now = 1000 * SECOND;
    assert!(bed.look().is_empty());
    assert_eq!(bed.again_at, None);
}

#[test]
fn own_registrations_are_no_orphans() {
    let mut bed = Bed::new(0, true);
    bed.register(OWN, 1, 1);
    bed.look();
    bed.now = 1000 * SECOND;
    assert!(bed.look().is_empty());
    bed.deregister(OWN, 1);
    assert_eq!(bed.look().len(), 1);
}

#[test]
fn one_peer_drains_no_more_than_its_share_and_a_second_one_lets_go() {
    let mut bed = Bed::new(4, false);
    for n in 1..=4 {
        bed.word(
            A,
            n,
            [Word::Drain, Word::Disable, Word::Weight(0), Word::Drain][n - 1],
        );
    }
    bed.look();
    assert_eq!(
        bed.members(),
        ["1 1 drain", "2 1 disable", "3 1 active", "4 1 active"]
    );
    assert_eq!(bed.held(), ["10.0.0.3:80 weight 0", "10.0.0.4:80 drain"]);
    let held = bed.overrides.held("pool", &addr(3));
    assert_eq!(
        (held[0].word, held[0].peer.as_str()),
        (Word::Weight(0), "000000000000000a")
    );
    bed.word(B, 4, Word::Drain);
    assert_eq!(
        bed.look(),
        ["4:80: active -> drain, by uid:0 at peer 000000000000000b"]
    );
    bed.seen.insert(addr(3), Seen::Down);
    assert_eq!(
        bed.look(),
        ["3:80: weight 1 -> 0, by uid:0 at peer 000000000000000a"]
    );
    bed.seen.clear();
    assert_eq!(
        bed.look(),
        [
            "3:80: weight 0 -> 1, said at peer 000000000000000a: it is more than one peer may take away"
        ]
    );
    // What is not taken away is not held.
    bed.word(A, 3, Word::Weight(5));
    bed.look();
    assert_eq!(bed.members()[2], "3 5 active");
}

#[test]
fn own_word_is_not_braked() {
    let mut bed = Bed::new(4, false);
    (1..=4).for_each(|n| bed.word(OWN, n, Word::Drain));
    assert_eq!(bed.look().len(), 4);
}

#[test]
fn one_peer_ends_no_more_than_its_share_of_registrations_at_a_time() {
    let mut bed = Bed::new(0, true);
    (1..=8).for_each(|n| bed.register(A, n, 1));
    bed.look();
    (1..=8).for_each(|n| bed.deregister(A, n));
    assert_eq!(bed.look().len(), 4);
    assert_eq!(
        bed.members(),
        ["5 1 active", "6 1 active", "7 1 active", "8 1 active"]
    );
    assert_eq!(bed.held()[0], "10.0.0.5:80 its registration ended");
    assert!(
        bed.overrides
            .registered("pool", &addr(5))
            .unwrap()
            .by
            .starts_with("registered at 000000000000000a, which ended that: it is more than")
    );
    assert_eq!(bed.again_at, Some(nanos(SETTLES)));
    // One is back, one is down, and the rest goes as share is free again.
    bed.register(A, 5, 1);
    bed.seen.insert(addr(6), Seen::Down);
    bed.look();
    assert_eq!(bed.members(), ["5 1 active", "7 1 active", "8 1 active"]);
    bed.wait(SETTLES);
    bed.look();
    assert_eq!(bed.members(), ["5 1 active", "8 1 active"]);
    bed.wait(SETTLES);
    bed.look();
    assert_eq!(bed.members(), ["5 1 active"]);
}

/// Those who come and go by the dozen, the new before the old, are no concern of the brake.
#[test]
fn rolling_replacement_is_not_held() {
    let mut bed = Bed::new(0, true);
    (1..=10).for_each(|n| bed.register(A, n, 1));
    bed.look();
    for round in 1..=5 {
        let (old, new) = ((round - 1) * 10, round * 10);
        (1..=10).for_each(|n| bed.register(A, new + n, 1));
        bed.look();
        (1..=10).for_each(|n| bed.deregister(A, old + n));
        bed.look();
        assert_eq!(bed.members().len(), 10);
        assert!(bed.held().is_empty());
        bed.wait(SETTLES);
    }
}

#[test]
fn registrations_that_ended_before_this_peer_knew_are_nothing_to_it() {
    let mut bed = Bed::new(2, true);
    for n in 3..=9 {
        bed.register(A, n, 1);
        bed.deregister(A, n);
    }
    assert!(bed.look().is_empty());
    assert!(bed.held().is_empty());
}

#[test]
fn additions_of_others_are_taken_back_up_to_the_share() {
    let mut bed = Bed::new(0, true);
    (1..=4).for_each(|n| bed.word(B, n, Word::Joins(2)));
    bed.look();
    bed.unsay(A, 1, Part::Member);
    bed.word(A, 2, Word::Leaves);
    bed.unsay(A, 3, Part::Member);
    bed.word(A, 4, Word::Joins(0));
    bed.look();
    assert_eq!(bed.members(), ["3 2 active", "4 2 active"]);
    assert_eq!(
        bed.held(),
        [
            "10.0.0.3:80 its addition was taken back",
            "10.0.0.4:80 its addition was taken back"
        ]
    );
    // Who added it says the same.
    bed.unsay(B, 3, Part::Member);
    assert_eq!(
        bed.look(),
        ["3:80: leaves, taken back at peer 000000000000000b"]
    );
}

#[test]
fn additions_for_a_time_end_in_time_and_at_once() {
    let mut bed = Bed::new(0, true);
    (1..=4).for_each(|n| bed.word_until(A, n, Word::Joins(2), Some(1000)));
    bed.look();
    bed.wait(Duration::from_secs(1));
    assert_eq!(bed.look().len(), 4);
    // But not those that somebody else gave an end.
    (1..=4).for_each(|n| bed.word(A, n, Word::Joins(2)));
    bed.look();
    (1..=4).for_each(|n| bed.word_until(B, n, Word::Joins(2), Some(2000)));
    bed.look();
    bed.wait(Duration::from_secs(1));
    bed.look();
    assert_eq!(bed.members(), ["3 2 active", "4 2 active"]);
}

#[test]
fn removal_wins_over_registrations_and_the_file_and_is_braked_like_a_drain() {
    let mut bed = Bed::new(1, true);
    bed.register(A, 2, 1);
    bed.register(B, 3, 1);
    bed.register(B, 4, 1);
    bed.look();
    (1..=4).for_each(|n| bed.word(A, n, Word::Leaves));
    bed.look();
    assert_eq!(bed.members(), ["3 1 active", "4 1 active"]);
    // Two peers: one says that it leaves, the other ends its registration.
    bed.deregister(B, 4);
    bed.look();
    assert_eq!(bed.members(), ["3 1 active"]);
}

#[test]
fn static_upstream_keeps_registrations_for_later() {
    let mut bed = Bed::new(2, false);
    (3..=6).for_each(|n| bed.register(A, n, 1));
    bed.word(A, 1, Word::Leaves);
    assert!(bed.look().is_empty());
    bed.deregister(A, 3);
    assert!(bed.look().is_empty());
    assert!(bed.held().is_empty());
    bed.config = Bed::new(2, true).config;
    bed.look();
    assert_eq!(
        bed.members(),
        ["2 1 active", "4 1 active", "5 1 active", "6 1 active"]
    );
}

#[test]
fn facts_about_others_and_words_out_of_place_are_passed_over() {
    let mut bed = Bed::new(1, true);
    let other: Name = "other".into();
    let by = By {
        owner: "uid:0".to_owned(),
        reason: String::new(),
        since_unix_ms: 0,
        expires_unix_ms: None,
    };
    let elsewhere = Key::Override {
        upstream: other,
        endpoint: addr(1),
        part: Part::State,
    };
    let word = |word| Value::Said {
        word,
        by: by.clone(),
    };
    bed.say(A, elsewhere, word(Word::Drain));
    bed.say(A, key(1, Part::Weight), word(Word::Drain));
    bed.say(
        A,
        Key::Peer(A),
        Value::Peer(crate::fleet::fact::About::default()),
    );
    assert!(bed.look().is_empty());
}

#[test]
fn weights_of_one_peer_move_no_more_than_its_share() {
    let mut bed = Bed::new(10, false);
    bed.look();
    (1..=9).for_each(|n| bed.word(A, n, Word::Weight(1000)));
    assert_eq!(bed.look().len(), 9, "one of ten has next to nothing");
    (1..=9).for_each(|n| bed.unsay(A, n, Part::Weight));
    bed.look();
    bed.word(A, 1, Word::Weight(1000));
    assert!(bed.look().is_empty());
    assert_eq!(bed.held(), ["10.0.0.1:80 weight 1000"]);
    let held = bed.overrides.held("pool", &addr(1));
    assert_eq!(held[0].word, Word::Weight(1000));
    // Another one says so in its place.
    bed.word(B, 1, Word::Weight(1000));
    assert_eq!(bed.look().len(), 1, "there are two");
    bed.word(OWN, 2, Word::Weight(1000));
    assert_eq!(bed.look().len(), 1, "its own word is done");
}

#[test]
fn additions_of_one_peer_beyond_its_share_are_used_once_a_check_has_found_them_up() {
    let mut bed = Bed::new(2, true).checked();
    bed.look();
    (3..=6).for_each(|n| bed.register(A, n, 1));
    bed.look();
    assert_eq!(
        bed.members(),
        [
            "1 1 active",
            "2 1 active",
            "3 1 active",
            "4 1 active",
            "5 1 awaited",
            "6 1 awaited"
        ]
    );
    assert_eq!(
        bed.held()[0],
        "10.0.0.5:80 addition with weight 1, not checked yet"
    );
    // That the first two are taken for well lets nobody in.
    bed.seen.extend([3, 4].map(|n| (addr(n), Seen::Taken)));
    bed.seen.extend([5, 6].map(|n| (addr(n), Seen::Held)));
    assert!(bed.look().is_empty());
    bed.seen.insert(addr(6), Seen::Up);
    assert_eq!(bed.look(), ["6:80: what was added is used now"]);
    // Another registrar says the same.
    bed.register(B, 5, 1);
    bed.look();
    assert_eq!(bed.members()[4], "5 1 active");
    // Those that operators add, too; those of a peer that this one heard of when it began are used.
    (7..=9).for_each(|n| bed.word(B, n, Word::Joins(100)));
    bed.look();
    assert_eq!(
        bed.members()[6..],
        ["7 100 awaited", "8 100 awaited", "9 100 awaited"]
    );
    // Who waits is missed by nobody.
    bed.unsay(B, 8, Part::Member);
    bed.unsay(B, 9, Part::Member);
    bed.seen.extend([7, 8, 9].map(|n| (addr(n), Seen::Held)));
    assert_eq!(
        bed.look(),
        [
            "8:80: leaves, taken back at peer 000000000000000b",
            "9:80: leaves, taken back at peer 000000000000000b"
        ]
    );
    bed.word(B, 9, Word::Joins(100));
    bed.look();
    bed.brake = Brake::new(0.5);
    bed.look();
    assert!(bed.held().is_empty());
    assert_eq!(bed.members()[7], "9 100 active");
}

/// Its registrar has gone: the other one, where it had registered too, is now the one by whose word it is a member.
#[test]
fn members_that_lose_one_of_two_registrars_are_used_on() {
    for seen in [Seen::Down, Seen::Taken, Seen::Up] {
        let mut bed = Bed::new(2, true).checked();
        (3..=9).for_each(|n| bed.register(A, n, 1));
        bed.look();
        (3..=9).for_each(|n| bed.register(B, n, 1));
        assert!(bed.look().is_empty());
        bed.seen.extend((1..=9).map(|n| (addr(n), seen)));
        (3..=9).for_each(|n| bed.deregister(A, n));
        assert!(bed.look().is_empty(), "{seen:?}");
        assert!(bed.held().is_empty(), "{seen:?}");
    }
}

/// What it hears of before it has compared with anybody has effect at the others.
#[test]
fn additions_and_weights_are_believed_while_this_peer_learns() {
    let mut bed = Bed::new(2, true).checked();
    bed.brake = Brake::learning(0.5);
    bed.look();
    (3..=9).for_each(|n| bed.register(A, n, 1));
    bed.word(B, 1, Word::Weight(1000));
    bed.look();
    assert!(bed.held().is_empty());
    bed.brake.know();
    (3..=5).for_each(|n| bed.register(A, n + 10, 1));
    bed.look();
    assert!(bed.held().is_empty(), "it came with the rest");
    (6..=7).for_each(|n| bed.register(A, n + 10, 1000));
    bed.look();
    let held = ["10.0.0.17:80 addition with weight 1000, not checked yet"];
    assert_eq!(bed.held(), held, "the first is within the share");
}

#[test]
fn upstream_that_is_filled_by_one_registrar_is_used_at_once() {
    let mut bed = Bed::new(0, true).checked();
    bed.look();
    (1..=100).for_each(|n| bed.register(A, n, 10));
    bed.look();
    assert!(bed.held().is_empty());
    assert!(
        bed.members()
            .iter()
            .all(|member| member.ends_with("10 active"))
    );
}

#[test]
fn registrar_beside_another_neither_takes_weight_away_nor_too_much_of_it() {
    let mut bed = Bed::new(9, true);
    bed.register(A, 10, 100);
    bed.look();
    bed.register(B, 10, 24);
    assert!(bed.look().is_empty(), "less than a quarter");
    bed.register(B, 10, 25);
    bed.look();
    assert_eq!(bed.members()[9], "10 25 active");
    let mut bed = Bed::new(9, true);
    bed.register(A, 10, 1);
    bed.look();
    bed.register(B, 10, 1000);
    assert!(bed.look().is_empty());
    assert_eq!(bed.held(), ["10.0.0.10:80 registration with weight 1000"]);
}
