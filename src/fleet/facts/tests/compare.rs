//! Two peers that compare end with the same, in few bytes; who does not keep to the rules gets nothing more.

use super::*;
use std::collections::VecDeque;

use crate::fleet::facts::compare::{
    Aim, Broken, Difference, End, MAX_MESSAGE, MAX_MESSAGES, MAX_TOLD_BYTES, MAX_TOLD_FACTS,
    Message, NotAMessage, Step,
};

/// What it took.
#[derive(Debug, Default)]
struct Cost {
    messages: usize,
    bytes: usize,
    facts: usize,
    differences: Vec<Difference>,
    is_cut: bool,
}

fn merge(facts: &mut Facts, received: Vec<Fact>) {
    for fact in received {
        facts.merge(fact, NOW);
    }
}

/// One comparison, through encoded messages.
fn compare(a: &mut Facts, b: &mut Facts, aim: Aim, turn: u64) -> Cost {
    let (mut begins, first) = Comparison::begin(a, aim, turn);
    let mut asked = Comparison::answer();
    let mut wire = VecDeque::from([(true, first)]);
    let mut cost = Cost::default();
    while let Some((is_to_asked, message)) = wire.pop_front() {
        let (side, facts) = if is_to_asked {
            (&mut asked, &mut *b)
        } else {
            (&mut begins, &mut *a)
        };
        let bytes = message.encode();
        assert!(bytes.len() <= MAX_MESSAGE, "{}", bytes.len());
        cost.messages += 1;
        cost.bytes += bytes.len();
        let step = side.take(Message::decode(&bytes).unwrap(), facts).unwrap();
        assert_eq!(side.is_over(), step.end != End::NotYet);
        assert!(aim == Aim::Share || step.received.is_empty());
        cost.is_cut |= step.end == End::Cut;
        cost.facts += step.received.len();
        cost.differences.extend(step.differences);
        wire.extend(step.send.into_iter().map(|m| (!is_to_asked, m)));
        merge(facts, step.received);
    }
    assert!(
        begins.is_over() && asked.is_over(),
        "somebody waits for ever"
    );
    cost
}

fn share(a: &mut Facts, b: &mut Facts) -> Cost {
    compare(a, b, Aim::Share, 0)
}

proptest! {
    #[test]
    fn two_peers_end_with_the_same_whatever_was_lost(
        facts in prop::collection::vec((any_fact(), any::<bool>(), any::<bool>()), 0..80),
        turn in any::<u64>(),
    ) {
        let heard = |by_a: bool| -> Vec<Fact> {
            let heard = facts.iter().filter(|(_, a, b)| if by_a { *a } else { *b });
            heard.map(|(fact, _, _)| fact.clone()).collect()
        };
        let (mut a, mut b) = (store(&heard(true)), store(&heard(false)));
        let all = store(&[heard(true), heard(false)].concat());
        let looked = compare(&mut a, &mut b, Aim::Look, turn);
        let expected: Vec<Difference> = all
            .iter()
            .map(|fact| Difference {
                key: fact.key.clone(),
                here: a.get(&fact.key).cloned(),
                there: b.get(&fact.key).cloned(),
            })
            .filter(|d| d.here != d.there)
            .collect();
        prop_assert_eq!(looked.differences, expected);
        compare(&mut a, &mut b, Aim::Share, turn);
        prop_assert_eq!(list(&a), list(&all));
        prop_assert_eq!(list(&b), list(&all));
        prop_assert_eq!(share(&mut a, &mut b).messages, 2);
        assert_digests(&a);
        assert_digests(&b);
    }

    #[test]
    fn five_peers_end_with_the_same(
        facts in prop::collection::vec((any_fact(), 0..5_usize), 0..80),
    ) {
        let mut peers: Vec<Facts> = (0..5).map(|_| Facts::default()).collect();
        for (fact, peer) in &facts {
            peers[*peer].merge(fact.clone(), NOW);
        }
        // Around the ring, twice: everything has then been at every peer.
        for n in 0..10 {
            let mut other = std::mem::take(&mut peers[(n + 1) % 5]);
            share(&mut peers[n % 5], &mut other);
            peers[(n + 1) % 5] = other;
        }
        let all = store(&facts.into_iter().map(|(fact, _)| fact).collect::<Vec<_>>());
        for peer in &peers {
            prop_assert_eq!(list(peer), list(&all));
        }
    }

    /// Messages that are of the right kind and of no sense, in any order, at every stage.
    #[test]
    fn garbage_breaks_nothing(messages in prop::collection::vec(any_message(), 1..12), begins in any::<bool>()) {
        let facts = store(&(0..50).map(|n| drain(n, NOW, 1)).collect::<Vec<_>>());
        let mut side = if begins {
            Comparison::begin(&facts, Aim::Share, 3).0
        } else {
            Comparison::answer()
        };
        let mut is_broken = false;
        for message in messages {
            let was_over = side.is_over();
            match side.take(message, &facts) {
                Ok(step) => {
                    prop_assert!(!was_over && !is_broken);
                    prop_assert!(step.send.iter().all(|m| m.encode().len() <= MAX_MESSAGE));
                }
                Err(_) => is_broken = true,
            }
            prop_assert!(!is_broken || side.is_over());
        }
    }

    #[test]
    fn bytes_decode_or_do_not(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }
}

fn any_message() -> impl Strategy<Value = Message> {
    let sums = || prop::collection::vec(0..3_u64, 63..=65);
    prop_oneof![
        (sums(), any::<bool>()).prop_map(|(sums, look)| Message::Groups { sums, look }),
        Just(Message::Groups {
            sums: vec![1; GROUPS],
            look: false
        }),
        Just(Message::Same),
        prop::collection::vec((0..66_u8, sums()), 0..3).prop_map(|sums| Message::Buckets { sums }),
        Just(Message::Buckets {
            sums: vec![(0, vec![1; BUCKETS_OF_GROUP])]
        }),
        (
            prop::collection::vec(0..4200_u16, 0..5),
            prop::collection::vec(any_fact(), 0..5),
            any::<bool>()
        )
            .prop_map(|(buckets, facts, more)| Message::Facts {
                buckets,
                facts,
                more
            }),
    ]
}

fn many(n: u32) -> Vec<Fact> {
    (0..n).map(|n| drain(n, NOW, 1)).collect()
}

#[test]
fn equal_peers_say_two_messages() {
    let (mut a, mut b) = (store(&many(1000)), store(&many(1000)));
    let cost = share(&mut a, &mut b);
    assert_eq!((cost.messages, cost.facts, cost.is_cut), (2, 0, false));
    // 64 sums of at most ten bytes.
    assert!(cost.bytes <= 650, "{}", cost.bytes);
    assert_eq!(
        share(&mut Facts::default(), &mut Facts::default()).messages,
        2
    );
}

#[test]
fn a_difference_costs_its_bucket() {
    let (mut a, mut b) = (store(&many(4000)), store(&many(4000)));
    let new = drain(7, NOW + 1, 2);
    a.merge(new.clone(), NOW);
    let in_bucket = a.in_bucket(bucket_of(&new.key)).len();
    let cost = share(&mut a, &mut b);
    assert_eq!((cost.messages, cost.facts), (4, in_bucket), "{cost:?}");
    assert_eq!(b.get(&new.key), Some(&new));
    assert!(a.iter().eq(b.iter()));
    // The other way around it is the one that is asked who tells it.
    b.merge(drain(8, NOW + 2, 2), NOW);
    share(&mut a, &mut b);
    assert!(a.iter().eq(b.iter()));
}

#[test]
fn a_new_peer_hears_everything_in_messages_that_fit() {
    let (mut a, mut b) = (store(&many(5000)), Facts::default());
    let cost = share(&mut b, &mut a);
    assert_eq!((cost.facts, cost.is_cut), (5000, false));
    assert!(a.iter().eq(b.iter()));
    let mut c = Facts::default();
    let cost = share(&mut a, &mut c);
    assert_eq!((cost.facts, cost.is_cut), (5000, false));
    assert!(a.iter().eq(c.iter()));
}

#[test]
fn what_does_not_fit_goes_with_the_next_one() {
    let count = MAX_TOLD_FACTS as u32 + 5000;
    let mut all = Facts::default();
    for n in 0..count {
        // Of two: one alone may not say so much.
        all.merge(gone(&drain(n, NOW, u64::from(n % 2)), NOW), NOW);
    }
    for is_new_one_first in [true, false] {
        let mut new = Facts::default();
        let mut rounds = 0;
        while new.len() < count as usize {
            let cost = if is_new_one_first {
                compare(&mut new, &mut all, Aim::Share, rounds)
            } else {
                compare(&mut all, &mut new, Aim::Share, rounds * 4000)
            };
            assert!(cost.facts <= MAX_TOLD_FACTS);
            assert_eq!(cost.is_cut, new.len() < count as usize);
            rounds += 1;
            assert!(rounds <= 8, "{}", new.len());
        }
        assert!(all.iter().eq(new.iter()));
        if is_new_one_first {
            assert_eq!(rounds, 2);
        }
    }
}

#[test]
fn floods_are_cut_off() {
    let facts = Facts::default();
    let other = store(&many(1));
    let listening = || {
        let mut side = Comparison::answer();
        let (_, first) = Comparison::begin(&other, Aim::Share, 0);
        side.take(first, &facts).unwrap();
        side
    };
    let told = |facts: Vec<Fact>| Message::Facts {
        buckets: Vec::new(),
        facts,
        more: true,
    };
    let mut side = listening();
    for _ in 0..MAX_MESSAGES {
        side.take(told(Vec::new()), &facts).unwrap();
    }
    let end = side.take(told(Vec::new()), &facts);
    assert_eq!(end.unwrap_err(), Broken::TooMuch);
    assert!(side.is_over());

    let mut side = listening();
    let chunk = many(1024);
    for _ in 0..MAX_TOLD_FACTS / chunk.len() {
        side.take(told(chunk.clone()), &facts).unwrap();
    }
    assert_eq!(
        side.take(told(many(1)), &facts).unwrap_err(),
        Broken::TooMuch
    );
}

#[test]
fn numbers_and_turns_that_cannot_be_end_it() {
    let (facts, other) = (store(&many(3)), store(&many(4)));
    let told = |buckets: &[u16]| Message::Facts {
        buckets: buckets.to_vec(),
        facts: Vec::new(),
        more: false,
    };
    let begun = || Comparison::begin(&facts, Aim::Share, 0);
    let asked = |look| {
        let mut side = Comparison::answer();
        let sums = other.groups().to_vec();
        side.take(Message::Groups { sums, look }, &facts).unwrap();
        side
    };
    let sums = |n| vec![9; n];
    let listed = Message::Buckets {
        sums: vec![(0, sums(64))],
    };
    let mut told_all = begun().0;
    let Step { send, .. } = told_all.take(listed.clone(), &facts).unwrap();
    assert!(matches!(&send[..], [Message::Facts { buckets, .. }] if buckets.len() == 64));
    let mut looks = Comparison::begin(&facts, Aim::Look, 0).0;
    looks.take(listed.clone(), &facts).unwrap();
    let elsewhere = (0..99).map(|n| drain(n, NOW, 1));
    let elsewhere = elsewhere
        .into_iter()
        .find(|f| bucket_of(&f.key) >= 64)
        .unwrap();
    let with = |fact: &Fact| Message::Facts {
        buckets: Vec::new(),
        facts: vec![fact.clone()],
        more: true,
    };

    for (broken, mut side, message) in [
        (Broken::Unexpected, begun().0, begun().1),
        (Broken::Unexpected, begun().0, told(&[])),
        (Broken::Unexpected, Comparison::answer(), Message::Same),
        (Broken::Unexpected, Comparison::answer(), listed.clone()),
        (Broken::Unexpected, Comparison::answer(), told(&[])),
        (Broken::Unexpected, asked(false), begun().1),
        (Broken::Unexpected, asked(true), with(&elsewhere)),
        (
            Broken::Shape,
            Comparison::answer(),
            Message::Groups {
                sums: sums(63),
                look: false,
            },
        ),
        (Broken::Shape, asked(false), told(&[4096])),
        (Broken::Shape, asked(false), told(&[5, 5])),
        (Broken::Shape, begun().0, Message::Buckets { sums: vec![] }),
        (
            Broken::Shape,
            begun().0,
            Message::Buckets {
                sums: vec![(64, sums(64))],
            },
        ),
        (
            Broken::Shape,
            begun().0,
            Message::Buckets {
                sums: vec![(0, sums(65))],
            },
        ),
        (
            Broken::Shape,
            begun().0,
            Message::Buckets {
                sums: vec![(1, sums(64)), (1, sums(64))],
            },
        ),
        (Broken::Shape, told_all, told(&[64])),
        (Broken::Shape, looks, with(&elsewhere)),
    ] {
        assert_eq!(side.take(message, &facts).unwrap_err(), broken);
        assert_eq!(
            side.take(Message::Same, &facts).unwrap_err(),
            Broken::Unexpected
        );
    }
}

#[test]
fn bytes_that_are_no_message_are_refused() {
    assert_eq!(Message::decode(&[]), Err(NotAMessage::Garbage));
    let mut bytes = Message::Same.encode();
    assert_eq!(Message::decode(&bytes), Ok(Message::Same));
    bytes.push(0);
    assert_eq!(Message::decode(&bytes), Err(NotAMessage::Garbage));
    // Four thousand million facts, says the length.
    assert_eq!(
        Message::decode(&[3, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        Err(NotAMessage::Garbage)
    );
    assert_eq!(
        Message::decode(&vec![0; MAX_MESSAGE + 1]),
        Err(NotAMessage::TooLong)
    );
    let longest = Message::Buckets {
        sums: (0..64).map(|group| (group, vec![u64::MAX; 64])).collect(),
    };
    assert!(longest.encode().len() <= MAX_MESSAGE);
    const { assert!(MAX_MESSAGES * MAX_MESSAGE <= MAX_TOLD_BYTES * 5 / 4) };
}
