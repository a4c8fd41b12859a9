//! Datagrams: each is taken once, of whom has the secret.

use std::time::Duration;

use super::super::datagram::{HEADER_BYTES, MIN_DATAGRAM, cipher};
use super::super::window::SIZE;
use super::*;
use crate::base::rng::Rng;

#[test]
fn what_is_sealed_comes_out() {
    let (mut sealer, mut opener) = (sealer(&[NEW], 7, 1), opener(&[NEW]));
    let payload: Vec<u8> = (0..MAX_PAYLOAD).map(|i| i as u8).collect();
    let mut out = b"what was there".to_vec();
    for len in 0..=MAX_PAYLOAD {
        let kind = [Kind::Membership, Kind::Facts][len % 2];
        let unix_ms = [0, UNIX_MS, u64::MAX][len % 3];
        sealer
            .seal(kind, unix_ms, &payload[..len], &mut out)
            .unwrap();
        assert_eq!(out.len(), MIN_DATAGRAM + len);
        let opened = opener.open(&out, NOW).unwrap();
        let expected = Opened {
            sender: PeerId(7),
            session: 1_u64.to_be_bytes(),
            kind,
            unix_ms,
            is_latest: true,
            payload: payload[..len].to_vec(),
        };
        assert_eq!(opened, expected);
    }
    assert_eq!((out.len(), MAX_PAYLOAD), (MAX_DATAGRAM, 1342));
    assert_eq!(opener.sessions(), 1);
}

#[test]
fn payload_that_is_too_long_is_not_sealed() {
    let (mut sealer, mut opener) = (sealer(&[NEW], 7, 1), opener(&[NEW]));
    let mut out = vec![1];
    let long = sealer.seal(Kind::Facts, UNIX_MS, &[0; MAX_PAYLOAD + 1], &mut out);
    assert_eq!((long, out.len()), (Err(NotSealed::Long), 0));
    assert!(opener.open(&sealed(&mut sealer, b"next"), NOW).is_ok());
}

#[test]
fn bytes_are_those_of_the_description() {
    // By Python's `hmac` and `cryptography`, from the text of this module.
    let mut sealer = Sealer::new(&ring(&["0123456789abcdef"]), PeerId(0xfeed), *b"session!");
    let expected = "025badf422f8243a93000000000000feed73657373696f6e210000000000000000\
                    324fc1da358698eca48a95911b6b0bc96963dcabfaae5e215867de0b822f";
    assert_eq!(hex(&sealed(&mut sealer, b"drain")), expected);
    assert_eq!(sealer.session(), *b"session!");
}

#[test]
fn no_two_of_a_sender_are_alike() {
    let mut of_one = sealer(&[NEW], 7, 1);
    let mut all: Vec<Vec<u8>> = (0..3).map(|_| sealed(&mut of_one, b"same")).collect();
    all.push(sealed(&mut sealer(&[NEW], 7, 2), b"same"));
    all.push(sealed(&mut sealer(&[NEW], 8, 1), b"same"));
    all.push(sealed(&mut sealer(&[OLD], 7, 1), b"same"));
    let mut inner: Vec<_> = all.iter().map(|d| &d[HEADER_BYTES..]).collect();
    inner.sort_unstable();
    inner.dedup();
    assert_eq!(inner.len(), 6);
}

#[test]
fn every_bit_counts() {
    let (mut sealer, mut opener) = (sealer(&[NEW], 7, 1), opener(&[NEW]));
    for payload in [&b""[..], b"a drain of an endpoint", &[0; MAX_PAYLOAD]] {
        let datagram = sealed(&mut sealer, payload);
        // The sender is known from the second on, so that both ways to its key are walked.
        for bit in 0..datagram.len() * 8 {
            let mut changed = datagram.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let refusal = opener.open(&changed, NOW).unwrap_err();
            let counter = u64::from_be_bytes(changed[25..33].try_into().unwrap());
            match bit / 8 {
                0 => assert_eq!(refusal, Refusal::Version(changed[0])),
                1..5 => assert_eq!(refusal, Refusal::Fleet, "bit {bit}"),
                5..9 => assert_eq!(refusal, Refusal::Key, "bit {bit}"),
                // The counter of one that was heard before.
                25..33 if counter < counter_of(&datagram) => {
                    assert_eq!(refusal, Refusal::Replayed, "bit {bit}");
                }
                _ => assert_eq!(refusal, Refusal::Forged, "bit {bit}"),
            }
        }
        assert_eq!(opener.open(&datagram, NOW).unwrap().payload, payload);
    }
    assert_eq!(opener.sessions(), 1);
}

/// The counter of a datagram.
fn counter_of(datagram: &[u8]) -> u64 {
    u64::from_be_bytes(datagram[25..33].try_into().unwrap())
}

#[test]
fn every_length_counts() {
    let (mut sealer, mut opener) = (sealer(&[NEW], 7, 1), opener(&[NEW]));
    let datagram = sealed(&mut sealer, b"a drain of an endpoint");
    for len in 0..datagram.len() {
        let expected = if len < MIN_DATAGRAM {
            Refusal::Short
        } else {
            Refusal::Forged
        };
        assert_eq!(opener.open(&datagram[..len], NOW), Err(expected), "{len}");
        assert!(
            opener.open(&datagram[len + 1..], NOW).is_err(),
            "from {len}"
        );
    }
    let mut longer = datagram.clone();
    while longer.len() < MAX_DATAGRAM {
        longer.push(0);
        assert_eq!(opener.open(&longer, NOW), Err(Refusal::Forged));
    }
    longer.push(0);
    assert_eq!(opener.open(&longer, NOW), Err(Refusal::Long));
    longer.resize(1 << 20, 0);
    assert_eq!(opener.open(&longer, NOW), Err(Refusal::Long));
    for other in [1, 3] {
        longer[0] = other;
        assert_eq!(opener.open(&longer, NOW), Err(Refusal::Version(other)));
    }
    assert_eq!(opener.open(&[0], NOW), Err(Refusal::Version(0)));
    assert_eq!(opener.open(&[2], NOW), Err(Refusal::Short));
    assert_eq!(opener.sessions(), 0);
}

/// Peers before and after everything that they might be told by others.
#[test]
fn others_change_nothing() {
    let mut opener = opener(&[NEW]);
    let from = |keyring: &Keyring| sealed(&mut Sealer::new(keyring, PeerId(7), [1; 8]), b"x");
    assert_eq!(
        opener.open(&from(&ring_of("other", &[NEW])), NOW),
        Err(Refusal::Fleet)
    );
    assert_eq!(opener.open(&from(&ring(&[OLD])), NOW), Err(Refusal::Key));

    // Who claims more than it has: the name of the fleet, and the id of its key.
    let good = from(&ring(&[NEW]));
    for keyring in [ring_of("other", &[NEW]), ring(&[OLD])] {
        let mut claims = from(&keyring);
        claims[1..5].copy_from_slice(&good[1..5]);
        assert_eq!(opener.open(&claims, NOW), Err(Refusal::Key));
        claims[5..9].copy_from_slice(&good[5..9]);
        assert_eq!(opener.open(&claims, NOW), Err(Refusal::Forged));
    }
    assert_eq!(
        opener.sessions(),
        0,
        "nobody without the secret is remembered"
    );
    assert!(opener.open(&good, NOW).is_ok());
}

#[test]
fn own_voice_is_told_from_a_forged_one() {
    let mut opener = opener(&[NEW]);
    let own = sealed(&mut sealer(&[NEW], 0, 1), b"echo");
    for _ in 0..2 {
        assert_eq!(opener.open(&own, NOW), Err(Refusal::Own));
    }
    let twin = sealed(&mut sealer(&[NEW], 0, 2), b"a copy of the machine");
    assert_eq!(opener.open(&twin, NOW), Err(Refusal::Own));
    let mut forged = own;
    forged[40] ^= 1;
    assert_eq!(opener.open(&forged, NOW), Err(Refusal::Forged));
    assert_eq!(opener.sessions(), 0);
}

#[test]
fn unknown_kind_is_refused_and_not_heard_again() {
    let mut opener = opener(&[NEW]);
    let keyring = ring(&[NEW]);
    for kind in [0_u8, 3, 255] {
        let session = [kind; 8];
        let mut datagram = sealed(&mut Sealer::new(&keyring, PeerId(7), session), b"");
        let (header, _) = datagram.split_at_mut(HEADER_BYTES);
        let mut inner = [0; 9];
        inner[0] = kind;
        let tag = cipher(keyring.primary(), PeerId(7), session).seal(0, header, &mut inner);
        datagram.truncate(HEADER_BYTES);
        datagram.extend_from_slice(&inner);
        datagram.extend_from_slice(tag.unwrap().as_ref());
        assert_eq!(opener.open(&datagram, NOW), Err(Refusal::Kind(kind)));
        assert_eq!(opener.open(&datagram, NOW), Err(Refusal::Replayed));
    }
    for kind in [Kind::Membership, Kind::Facts] {
        assert_eq!(Kind::try_from(kind as u8), Ok(kind));
    }
    assert_ne!(Kind::Membership.as_str(), Kind::Facts.as_str());
}

#[test]
fn secrets_are_rotated_without_a_gap() {
    // First the new one is accepted everywhere, then it seals, then the old one goes: peers are at any two
    // neighbouring steps at once.
    let steps: [&[&str]; 4] = [&[OLD], &[OLD, NEW], &[NEW, OLD], &[NEW]];
    let mut speaks = sealer(steps[0], 7, 1);
    let mut hears = opener(steps[0]);
    let mut sent = Vec::new();
    let mut speak = |speaks: &mut Sealer, hears: &mut Opener| {
        let datagram = sealed(speaks, b"x");
        assert!(hears.open(&datagram, NOW).is_ok());
        assert_eq!(hears.open(&datagram, NOW), Err(Refusal::Replayed));
        sent.push(datagram);
    };
    for pair in steps.windows(2) {
        let mut ahead = opener(pair[1]);
        speak(&mut speaks, &mut ahead);
        speak(&mut speaks, &mut hears);
        speaks.set_keyring(&ring(pair[1]));
        speak(&mut speaks, &mut hears);
        hears.set_keyring(ring(pair[1]));
        speak(&mut speaks, &mut hears);
    }
    assert_eq!(hears.sessions(), 1, "one session over all of them");
    hears.set_keyring(ring(&[NEW, OLD]));
    for (counter, datagram) in (0..).zip(&sent) {
        assert_eq!(counter_of(datagram), counter, "it goes on over all of them");
        // But for those that only others heard.
        let again = hears.open(datagram, NOW);
        assert_eq!(again.is_ok(), counter % 4 == 0, "{counter}: {again:?}");
    }
    // A secret that is gone opens nothing, known session or not.
    hears.set_keyring(ring(&[OLD]));
    assert_eq!(
        hears.open(&sealed(&mut speaks, b"x"), NOW),
        Err(Refusal::Key)
    );
}

#[test]
fn keyring_that_is_replaced_by_a_stranger_opens_nothing() {
    let (mut sealer, mut opener) = (sealer(&[NEW], 7, 1), opener(&[NEW]));
    opener.open(&sealed(&mut sealer, b"x"), NOW).unwrap();
    opener.set_keyring(ring_of("other", &[NEW]));
    assert_eq!(
        opener.open(&sealed(&mut sealer, b"x"), NOW),
        Err(Refusal::Fleet)
    );
    sealer.set_keyring(&ring_of("other", &[NEW]));
    assert!(opener.open(&sealed(&mut sealer, b"x"), NOW).is_ok());
}

#[test]
fn each_is_heard_once_in_any_order_within_the_window() {
    let (mut sealer, mut opener) = (sealer(&[NEW], 7, 1), opener(&[NEW]));
    let all: Vec<Vec<u8>> = (0..3 * SIZE).map(|_| sealed(&mut sealer, b"x")).collect();
    let highest = 2 * SIZE as usize + 77;
    assert!(opener.open(&all[highest], NOW).is_ok());
    let oldest = highest - (SIZE as usize - 1);
    let mut within: Vec<usize> = (oldest..highest).collect();
    let mut rng = Rng::new(7);
    for i in (1..within.len()).rev() {
        within.swap(i, rng.below(i + 1));
    }
    for i in within {
        assert!(opener.open(&all[i], NOW).is_ok(), "{i}");
        assert_eq!(opener.open(&all[i], NOW), Err(Refusal::Replayed), "{i}");
    }
    for (i, datagram) in all[..=highest].iter().enumerate() {
        assert_eq!(opener.open(datagram, NOW), Err(Refusal::Replayed), "{i}");
    }
    // One further, and one falls out that was never heard.
    let mut opener = super::opener(&[NEW]);
    assert!(opener.open(&all[highest], NOW).is_ok());
    assert!(opener.open(&all[highest + 1], NOW).is_ok());
    assert_eq!(opener.open(&all[oldest], NOW), Err(Refusal::Replayed));
    assert!(opener.open(&all[oldest + 1], NOW).is_ok());
}

#[test]
fn forged_one_does_not_move_the_window() {
    let (mut sealer, mut opener) = (sealer(&[NEW], 7, 1), opener(&[NEW]));
    let first = sealed(&mut sealer, b"x");
    let second = sealed(&mut sealer, b"y");
    assert!(opener.open(&first, NOW).is_ok());
    let mut far = second.clone();
    far[25..33].copy_from_slice(&u64::MAX.to_be_bytes());
    assert_eq!(opener.open(&far, NOW), Err(Refusal::Forged));
    assert!(opener.open(&second, NOW).is_ok());
}

#[test]
fn counters_have_an_end() {
    let (mut sealer, mut opener) = (sealer(&[NEW], 7, 1), opener(&[NEW]));
    let early = sealed(&mut sealer, b"x");
    sealer.skip_to(u64::MAX - SIZE);
    let all: Vec<Vec<u8>> = (0..=SIZE).map(|_| sealed(&mut sealer, b"x")).collect();
    let mut out = vec![1];
    let spent = sealer.seal(Kind::Facts, UNIX_MS, b"x", &mut out);
    assert_eq!((spent, out.len()), (Err(NotSealed::Spent), 0));
    sealer.set_keyring(&ring(&[NEW, OLD]));
    let spent = sealer.seal(Kind::Facts, UNIX_MS, b"x", &mut out);
    assert_eq!(spent, Err(NotSealed::Spent), "the same key again");

    assert!(opener.open(&early, NOW).is_ok());
    let [below, rest @ .., last] = &all[..] else {
        unreachable!()
    };
    assert_eq!(counter_of(last), u64::MAX);
    assert!(opener.open(last, NOW).is_ok());
    for datagram in rest {
        assert!(opener.open(datagram, NOW).is_ok());
    }
    for datagram in all.iter().chain([&early]) {
        assert_eq!(opener.open(datagram, NOW), Err(Refusal::Replayed));
    }
    assert_eq!(opener.open(below, NOW), Err(Refusal::Replayed));
}

#[test]
fn restart_begins_a_session_beside_the_old_one() {
    let mut opener = opener(&[NEW]);
    let (mut before, mut after) = (sealer(&[NEW], 7, 1), sealer(&[NEW], 7, 2));
    let late = sealed(&mut before, b"late");
    assert!(opener.open(&sealed(&mut before, b"x"), NOW).is_ok());
    let reborn = opener.open(&sealed(&mut after, b"x"), NOW).unwrap();
    assert_eq!(
        (reborn.sender, reborn.session),
        (PeerId(7), 2_u64.to_be_bytes())
    );
    assert!(
        opener.open(&late, NOW).is_ok(),
        "still under way at the restart"
    );
    assert_eq!(opener.open(&late, NOW), Err(Refusal::Replayed));
    assert_eq!(opener.sessions(), 2);
}

#[test]
fn silent_sessions_are_forgotten_and_others_not() {
    let mut opener = opener(&[NEW]);
    let minutes = |n| NOW + nanos(Duration::from_secs(60 * n));
    let (mut silent, mut steady) = (sealer(&[NEW], 1, 1), sealer(&[NEW], 2, 1));
    opener.open(&sealed(&mut silent, b"x"), NOW).unwrap();
    for n in 0..60 {
        opener.open(&sealed(&mut steady, b"x"), minutes(n)).unwrap();
        assert!(
            opener
                .open(&sealed(&mut sealer(&[NEW], 3, n), b"x"), minutes(n))
                .is_ok()
        );
    }
    assert_eq!(opener.sessions(), 62);
    opener
        .open(&sealed(&mut sealer(&[NEW], 3, 60), b"x"), minutes(60))
        .unwrap();
    assert_eq!(
        opener.sessions(),
        61,
        "peer 1, and the first of peer 3, went"
    );
    let last = sealed(&mut steady, b"x");
    opener.open(&last, minutes(60)).unwrap();
    assert_eq!(opener.open(&last, minutes(60)), Err(Refusal::Replayed));
    // A clock that seems to go back removes nobody.
    opener
        .open(&sealed(&mut sealer(&[NEW], 4, 0), b"x"), 0)
        .unwrap();
    assert_eq!(opener.sessions(), 62);
}

#[test]
fn table_of_sessions_has_an_end_and_the_longest_silent_goes_first() {
    let mut opener = opener(&[NEW]);
    let firsts: Vec<Vec<u8>> = (0..4097)
        .map(|peer| sealed(&mut sealer(&[NEW], 1 + peer, 1), b"x"))
        .collect();
    for (n, datagram) in (0..).zip(&firsts[..4096]) {
        opener.open(datagram, NOW + n).unwrap();
    }
    assert_eq!(opener.sessions(), 4096);
    // The first one speaks again, so the second one is the longest silent.
    let mut first = sealer(&[NEW], 1, 1);
    let _ = sealed(&mut first, b"x");
    opener.open(&sealed(&mut first, b"y"), NOW + 5000).unwrap();
    opener.open(&firsts[4096], NOW + 5001).unwrap();
    assert_eq!(opener.sessions(), 4096);
    for (n, datagram) in firsts.iter().enumerate().filter(|(n, _)| *n != 1) {
        assert_eq!(
            opener.open(datagram, NOW + 5002),
            Err(Refusal::Replayed),
            "{n}"
        );
    }
    // What is forgotten is new again: this is why a message's time has to be looked at too.
    assert!(opener.open(&firsts[1], NOW + 5003).is_ok());
}

#[test]
fn a_thousand_sessions_at_once() {
    let mut opener = opener(&[NEW]);
    let mut sealers: Vec<Sealer> = (0..1000).map(|n| sealer(&[NEW], 1 + n / 2, n)).collect();
    for round in 0..5_u8 {
        for (n, sealer) in (0..).zip(&mut sealers) {
            let opened = opener.open(&sealed(sealer, &[round]), NOW).unwrap();
            assert_eq!(opened.sender, PeerId(1 + n / 2));
            assert_eq!(
                (opened.session, opened.payload),
                (n.to_be_bytes(), vec![round])
            );
        }
    }
    assert_eq!(opener.sessions(), 1000);
}
