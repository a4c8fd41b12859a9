//! One fact a key, whatever is heard in whatever order; what is past goes and does not come back.

use super::*;

const EVERYBODY: fn(PeerId) -> bool = |_| true;
const NOBODY: fn(PeerId) -> bool = |_| false;

proptest! {
    #[test]
    fn any_order_with_repeats_ends_the_same(
        facts in prop::collection::vec(any_fact(), 0..60),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let forth = store(&facts);
        let mut shuffled = facts.clone();
        if !facts.is_empty() {
            for index in &order {
                let at = index.index(facts.len());
                shuffled.swap(0, at);
                shuffled.push(facts[at].clone());
            }
        }
        let back = store(&shuffled);
        prop_assert_eq!(list(&forth), list(&back));
        prop_assert_eq!(forth.root(), back.root());
        assert_digests(&forth);
        let mut again = store(&list(&forth));
        prop_assert_eq!(list(&again), list(&forth));
        for fact in &facts {
            prop_assert_ne!(again.merge(fact.clone(), NOW), Merged::New { before: None });
        }
        prop_assert_eq!(list(&again), list(&forth));
    }

    /// What is heard again is told by its bytes from all that was heard before.
    #[test]
    fn what_holds_is_known_by_its_bytes_and_nothing_else(
        facts in prop::collection::vec(any_fact(), 0..40),
    ) {
        let mut store = store(&facts);
        let bytes = |fact: &Fact| postcard::to_allocvec(fact).unwrap();
        for fact in &facts {
            prop_assert_eq!(store.knows(&bytes(fact)), store.get(&fact.key) == Some(fact));
        }
        for fact in list(&store) {
            store.take_out(&fact.key);
            prop_assert!(!store.knows(&bytes(&fact)));
        }
    }

    #[test]
    fn digests_are_equal_where_facts_are(
        a in prop::collection::vec(any_fact(), 0..8),
        b in prop::collection::vec(any_fact(), 0..8),
    ) {
        let (a, b) = (store(&a), store(&b));
        prop_assert_eq!(list(&a) == list(&b), a.root() == b.root());
        prop_assert_eq!(list(&a) == list(&b), a.groups() == b.groups());
    }

    #[test]
    fn supersedes_is_a_total_order(a in any_fact(), b in any_fact()) {
        let b = Fact { key: a.key.clone(), ..b };
        let (ab, ba) = (order::supersedes(&a, &b), order::supersedes(&b, &a));
        prop_assert!(!(ab && ba));
        prop_assert_eq!(!ab && !ba, a == b);
    }

    #[test]
    fn ranges_find_what_a_scan_finds(facts in prop::collection::vec(any_fact(), 0..80)) {
        let facts = store(&facts);
        for upstream in ["app", "pool", "none"] {
            let of = |f: &&Fact| f.key.upstream().is_some_and(|u| **u == *upstream);
            let scanned: Vec<_> = facts.iter().filter(of).collect();
            prop_assert_eq!(facts.of_upstream(upstream).collect::<Vec<_>>(), scanned);
            for endpoint in (0..4).map(ip) {
                let of_it = |f: &&Fact| of(f) && f.key.endpoint() == Some(&endpoint);
                let scanned: Vec<_> = facts.iter().filter(of_it).collect();
                prop_assert_eq!(facts.of_endpoint(upstream, &endpoint).collect::<Vec<_>>(), scanned);
            }
        }
        let peers = facts.iter().filter(|f| f.key.upstream().is_none());
        prop_assert!(facts.of_peers().eq(peers));
    }

    #[test]
    fn stores_that_are_equal_collect_the_same(
        facts in prop::collection::vec(any_fact(), 0..60),
        live in 0..3_u64,
        later in 0..2_u64,
    ) {
        let (mut a, mut b) = (store(&facts), store(&facts.iter().rev().cloned().collect::<Vec<_>>()));
        let unix_ms = NOW + later * (DAY + 1);
        let is_live = |peer: PeerId| peer.0 <= live;
        prop_assert_eq!(a.collect(unix_ms, is_live), b.collect(unix_ms, is_live));
        prop_assert_eq!(list(&a), list(&b));
        assert_digests(&a);
        prop_assert_eq!(a.collect(unix_ms, is_live), 0);
        // What is past for all is not taken back either; what an absent peer said may be, and goes again.
        for fact in &facts {
            a.merge(fact.clone(), unix_ms);
        }
        prop_assert!(a.iter().all(|fact| !is_past(fact, unix_ms)));
    }
}

#[test]
fn later_wins_and_tells_what_was_before() {
    let mut facts = Facts::default();
    let (first, second) = (drain(1, NOW, 1), drain(1, NOW + 1, 2));
    assert_eq!(
        facts.merge(first.clone(), NOW),
        Merged::New { before: None }
    );
    assert_eq!(facts.merge(first.clone(), NOW), Merged::Known);
    let before = Some(first.value.clone());
    assert_eq!(facts.merge(second.clone(), NOW), Merged::New { before });
    assert_eq!(facts.merge(first, NOW), Merged::Older);
    assert_eq!(facts.get(&second.key), Some(&second));
    assert_eq!((facts.len(), facts.counts().overrides), (1, 1));
}

#[test]
fn of_one_stamp_the_stricter_wins_then_the_origin() {
    let vote = |passed| Value::Vote {
        passed,
        check: 0,
        why: String::new(),
    };
    let said = |word| Value::Said { word, by: by(None) };
    let registered = |weight| Value::Registered {
        weight,
        zone: None,
        ttl_ms: 1000,
    };
    let from_the_strictest = [
        Value::Gone,
        said(Word::Disable),
        said(Word::Drain),
        said(Word::Leaves),
        said(Word::Weight(0)),
        said(Word::Weight(1000)),
        said(Word::Joins(0)),
        said(Word::Joins(1000)),
        vote(false),
        vote(true),
        registered(0),
        registered(1000),
        Value::Peer(About::default()),
    ];
    let ranks = from_the_strictest.each_ref().map(order::strictness);
    assert!(ranks.windows(2).all(|w| w[0] > w[1]), "{ranks:?}");

    let disable = |origin| super::said(Part::State, Word::Disable, 1, NOW, origin);
    assert!(order::supersedes(&disable(1), &drain(1, NOW, 2)));
    assert!(order::supersedes(&drain(1, NOW, 2), &drain(1, NOW, 1)));
    assert!(order::supersedes(&drain(1, NOW + 1, 1), &disable(2)));
}

#[test]
fn old_tombstones_are_not_taken_and_not_kept() {
    let said = drain(1, NOW - DAY - 9, 1);
    for (age, is_taken) in [(DAY, true), (DAY + 1, false)] {
        let mut facts = store(&[]);
        let end = gone(&said, NOW - age);
        let merged = facts.merge(end.clone(), NOW);
        assert_eq!(
            merged == Merged::New { before: None },
            is_taken,
            "{merged:?}"
        );
        assert_eq!(facts.collect(NOW, EVERYBODY), 0);
        assert_eq!(facts.collect(NOW + 1, EVERYBODY), usize::from(is_taken));
        assert_eq!(facts.merge(end, NOW + 1), Merged::Older);
        assert_eq!((facts.len(), facts.root()), (0, 0));
    }
}

#[test]
fn overrides_go_a_day_after_they_expired() {
    let mut fact = drain(1, NOW, 1);
    fact.value = Value::Said {
        word: Word::Drain,
        by: by(Some(NOW + 5)),
    };
    let mut facts = store(&[fact.clone()]);
    assert_eq!(facts.collect(NOW + 5 + DAY, NOBODY), 0);
    assert_eq!(facts.collect(NOW + 5 + DAY + 1, EVERYBODY), 1);
    assert_eq!(facts.merge(fact, NOW + 5 + DAY + 1), Merged::Older);
    let mut facts = store(&[drain(1, NOW, 1)]);
    assert_eq!(facts.collect(u64::MAX, NOBODY), 0, "without an end");
}

#[test]
fn what_absent_peers_alone_may_say_goes_after_a_day() {
    let peer = Fact {
        key: Key::Peer(PeerId(1)),
        value: Value::Peer(About::default()),
        stamp: Stamp::at(NOW),
        origin: PeerId(1),
    };
    let all = [
        registered("app", 1, 1, NOW),
        vote("app", 1, 1, NOW),
        peer,
        drain(1, NOW, 1),
    ];
    let mut facts = store(&all);
    assert_eq!(facts.collect(NOW + DAY, NOBODY), 0);
    assert_eq!(facts.collect(NOW + DAY + 1, |peer| peer == PeerId(1)), 0);
    assert_eq!(facts.collect(NOW + DAY + 1, NOBODY), 3);
    assert_eq!(list(&facts), [drain(1, NOW, 1)]);
    assert_digests(&facts);
}

#[test]
fn counts_are_by_kind_and_tombstones_apart() {
    let facts = store(&[
        registered("app", 1, 1, NOW),
        registered("app", 1, 2, NOW),
        vote("pool", 1, 1, NOW),
        drain(1, NOW, 1),
        gone(&drain(2, NOW, 1), NOW),
    ]);
    let counts = Counts {
        peers: 0,
        registrations: 2,
        overrides: 1,
        votes: 1,
        tombstones: 1,
    };
    assert_eq!(facts.counts(), counts);
    let names: Vec<&str> = facts.upstreams().map(|name| &**name).collect();
    assert_eq!(names, ["app", "pool"]);
}

#[test]
fn full_store_takes_news_of_what_it_knows_and_of_those_who_have_said_little() {
    let mut facts = Facts::default();
    let half = MAX_OF_ORIGIN as u32;
    for n in 0..2 * half {
        let merged = facts.merge(drain(n, NOW, u64::from(1 + n / half)), NOW);
        assert_eq!(merged, Merged::New { before: None });
    }
    assert_eq!(facts.len(), MAX_FACTS);
    assert_eq!(facts.of_origin(PeerId(1)), MAX_OF_ORIGIN);
    // Those who have said so much say no more.
    let new = drain(2 * half, NOW, 1);
    assert_eq!(facts.admits(&new), Err(Flaw::Quota));
    assert_eq!(facts.merge(new, NOW), Merged::Refused(Flaw::Quota));
    // Nor in place of what another has said.
    let taken_over = drain(half, NOW + 1, 1);
    assert_eq!(facts.merge(taken_over, NOW), Merged::Refused(Flaw::Quota));
    assert_eq!(facts.merge(drain(0, NOW, 1), NOW), Merged::Known);
    let end = gone(&drain(0, NOW, 1), NOW + 1);
    assert_eq!(
        facts.admits(&end),
        Ok(()),
        "what was said can be taken back"
    );
    assert!(matches!(
        facts.merge(end, NOW),
        Merged::New { before: Some(_) }
    ));
    assert_eq!(facts.len(), MAX_FACTS);
    // Everybody else has some room.
    for n in 0..ROOM_OF_EACH as u32 {
        let merged = facts.merge(drain(2 * half + n, NOW, 3), NOW);
        assert_eq!(merged, Merged::New { before: None });
    }
    let more = drain(4 * half, NOW, 3);
    assert_eq!(facts.merge(more, NOW), Merged::Refused(Flaw::Full));
    let other = drain(4 * half, NOW, 4);
    assert!(matches!(facts.merge(other, NOW), Merged::New { .. }));
    assert_eq!(MAX_EVER, MAX_FACTS + 16 * ROOM_OF_EACH);
}

/// What was said by another counts for who says it now.
#[test]
fn facts_are_counted_by_who_said_them() {
    let mut facts = store(&[drain(1, NOW, 1), drain(2, NOW, 1), drain(3, NOW, 2)]);
    facts.merge(drain(1, NOW + 1, 2), NOW);
    let of = |facts: &Facts| [1, 2].map(|peer| facts.of_origin(PeerId(peer)));
    assert_eq!(of(&facts), [1, 2]);
    facts.merge(gone(&drain(2, NOW, 1), NOW + 1), NOW);
    assert_eq!(of(&facts), [1, 2]);
    facts.collect(NOW + 2 * DAY, |_| true);
    assert_eq!(of(&facts), [0, 2]);
    facts.take_out(&drain(3, NOW, 2).key);
    assert_eq!(of(&facts), [0, 1]);
}
