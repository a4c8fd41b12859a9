//! One or two memberships by hand; fleets of them are in `sim`.

use std::time::Duration;

use super::*;

const SECOND: Nanos = 1_000_000_000;
const START: Nanos = 1000 * SECOND;

fn identity(number: u64) -> Identity {
    Identity {
        peer: PeerId(number),
        addr: ([10, 0, 0, number as u8], 7946).into(),
        incarnation: 1_790_000_000_000,
    }
}

fn membership(number: u64) -> Membership {
    Membership::new(identity(number), number, 1300, START)
}

fn sends(member: &mut Membership) -> Vec<(SocketAddr, Vec<u8>)> {
    let outs = std::iter::from_fn(|| member.poll());
    let sends = outs.filter_map(|out| match out {
        Out::Send { to, payload } => Some((to, payload)),
        _ => None,
    });
    sends.collect()
}

/// Two that know each other.
fn pair() -> (Membership, Membership) {
    let (mut a, mut b) = (membership(1), membership(2));
    a.announce(b.me().addr, START);
    for _ in 0..4 {
        for (_, payload) in sends(&mut a) {
            b.datagram(&payload, START).unwrap();
        }
        for (_, payload) in sends(&mut b) {
            a.datagram(&payload, START).unwrap();
        }
    }
    assert_eq!((a.len(), b.len()), (1, 1));
    (a, b)
}

#[test]
fn members_are_named_with_how_they_are() {
    let (a, b) = pair();
    let members: Vec<_> = a.members().collect();
    assert_eq!(members, [(b.me(), Liveness::Alive)]);
    assert_eq!(a.member(b.me().peer), Some(b.me()));
    assert_eq!(a.member(a.me().peer), None, "others only");
}

#[test]
fn who_does_not_answer_is_suspected_then_down() {
    let (mut a, b) = pair();
    let mut now = START;
    let mut was_suspect = false;
    while !a.is_alone() {
        now = a.wake_at().unwrap().max(now);
        assert!(now < START + 10 * SECOND);
        a.wake(now);
        was_suspect |= a.members().any(|(_, how)| how == Liveness::Suspect);
    }
    assert!(was_suspect);
    let outs: Vec<Out> = std::iter::from_fn(|| a.poll()).collect();
    let (peer, left) = (b.me(), false);
    assert!(outs.contains(&Out::Down { peer, left }), "{outs:?}");
}

/// Whoever suspected it forgot about it, and it never heard: it would be a suspect for ever.
#[test]
fn who_answers_is_no_suspect_for_long() {
    let (mut a, mut b) = pair();
    let suspicion = foca::Member::new(b.me(), 0, State::Suspect);
    let result = a
        .foca
        .apply_many([suspicion].into_iter(), false, &mut a.effects);
    a.took(&result, START);
    let is_suspect = |a: &Membership| a.members().any(|(_, how)| how == Liveness::Suspect);
    assert!(is_suspect(&a));
    let mut now = START;
    let mut ended = None;
    while now < START + 120 * SECOND {
        let next = a.wake_at().into_iter().chain(b.wake_at()).min();
        now = next.unwrap().max(now);
        a.wake(now);
        b.wake(now);
        for _ in 0..2 {
            for (_, payload) in sends(&mut a) {
                b.datagram(&payload, now).unwrap();
            }
            for (_, payload) in sends(&mut b) {
                a.datagram(&payload, now).unwrap();
            }
        }
        assert_eq!((a.len(), b.len()), (1, 1), "it answers");
        if !is_suspect(&a) {
            ended = ended.or(Some(now));
        }
    }
    assert!(ended.is_some_and(|at| at < START + 90 * SECOND));
    assert!(!is_suspect(&a), "and not again");
    // Who is silent from then on is found out as ever.
    let silent = now;
    while !a.is_alone() {
        now = a.wake_at().unwrap().max(now);
        a.wake(now);
        assert!(now < silent + 20 * SECOND);
    }
}

/// As long as it was asleep, nobody had a chance to answer.
#[test]
fn who_stood_still_suspects_nobody_at_once() {
    let (mut a, mut b) = pair();
    a.wake(a.wake_at().unwrap().max(START + SECOND / 2));
    let mut now = START + 60 * SECOND;
    assert!(a.wake_at().unwrap() < now);
    a.wake(now);
    assert_eq!(a.counts().stalls.count, 1);
    assert!(a.wake_at().unwrap() > now, "what waits is read first");
    // From here on all is as if the minute had not been.
    for _ in 0..100 {
        for (_, payload) in sends(&mut a) {
            b.datagram(&payload, now).unwrap();
        }
        for (_, payload) in sends(&mut b) {
            a.datagram(&payload, now).unwrap();
        }
        assert!(a.members().all(|(_, how)| how == Liveness::Alive));
        now = a.wake_at().unwrap();
        a.wake(now);
    }
    assert_eq!(a.counts().stalls.count, 1);
    assert_eq!(a.len(), 1);
}

#[test]
fn who_is_alone_asks_its_seeds_again_and_again() {
    let seed = identity(9).addr;
    let mut a = membership(1);
    a.set_seeds(vec![a.me().addr, seed], START);
    let mut asked = Vec::new();
    let mut now = START;
    while now < START + 60 * SECOND {
        a.wake(now);
        asked.extend(sends(&mut a).iter().map(|(to, _)| (*to, now)));
        now = a.wake_at().unwrap();
    }
    assert!(asked.iter().all(|(to, _)| *to == seed), "not itself");
    let at_first = asked.iter().filter(|(_, at)| *at < START + 6 * SECOND);
    assert!(at_first.count() >= 5);
    assert!((15..30).contains(&asked.len()), "{}", asked.len());
}

#[test]
fn after_the_farewell_there_is_silence() {
    let (mut a, mut b) = pair();
    a.leave(START);
    let farewell = sends(&mut a);
    assert!(!farewell.is_empty());
    assert_eq!(a.wake_at(), None);
    for (_, payload) in farewell {
        let _ = b.datagram(&payload, START);
    }
    let outs: Vec<Out> = std::iter::from_fn(|| b.poll()).collect();
    let (peer, left) = (a.me(), true);
    assert!(outs.contains(&Out::Down { peer, left }), "{outs:?}");
    // What b says to that does not bring it back.
    for out in outs {
        if let Out::Send { payload, .. } = out {
            assert_eq!(a.datagram(&payload, START), Err(Refused::Left));
        }
    }
    a.announce(b.me().addr, START);
    a.leave(START);
    assert_eq!(a.poll(), None);
}

/// Bytes that nobody sent, and those that somebody sent with a few of them changed: refused or taken, never
/// fatal, and what was taken names nobody who cannot be reached.
#[test]
fn junk_is_refused() {
    let (mut a, mut b) = pair();
    let mut real = Vec::new();
    for step in 1..20 {
        let now = START + step * SECOND / 4;
        for (me, other) in [(1, 2), (2, 1)] {
            let (from, to) = if me < other {
                (&mut a, &mut b)
            } else {
                (&mut b, &mut a)
            };
            from.wake(now);
            for (_, payload) in sends(from) {
                let _ = to.datagram(&payload, now);
                real.push(payload);
            }
        }
    }
    assert!(real.len() > 5);
    let mut rng = Rng::new(7);
    let now = START + 5 * SECOND;
    for round in 0..20_000 {
        let mut bytes = if round % 4 == 0 {
            (0..rng.below(100)).map(|_| rng.next_u64() as u8).collect()
        } else {
            real[rng.below(real.len())].clone()
        };
        for _ in 0..=rng.below(3) {
            if !bytes.is_empty() {
                let at = rng.below(bytes.len());
                bytes[at] = rng.next_u64() as u8;
            }
        }
        bytes.truncate(bytes.len() - rng.below(2).min(bytes.len()));
        let _ = a.datagram(&bytes, now);
        for (to, payload) in sends(&mut a) {
            assert!(to.port() != 0 && !to.ip().is_unspecified());
            assert!(payload.len() <= 1300);
        }
    }
    assert!(a.counts().refused > 5000);
    assert_eq!(a.counts().faults, 0);
    let too_long = vec![0; 1301];
    assert_eq!(a.datagram(&too_long, now), Err(Refused::TooLong));
}

#[test]
fn of_those_that_are_down_only_so_many_are_remembered() {
    let mut a = membership(1);
    let mut others = Vec::new();
    for number in 0..MAX_DOWN as u32 + 100 {
        let [_, x, y, z] = number.to_be_bytes();
        others.push(Identity {
            peer: PeerId(u64::from(number) + 100),
            addr: ([10, x + 1, y, z], 7946).into(),
            incarnation: 1,
        });
    }
    let downs = others.iter().map(|id| foca::Member::down(*id));
    let result = a.foca.apply_many(downs, false, &mut a.effects);
    a.took(&result, START);
    assert_eq!(a.foca.iter_membership_state().len(), MAX_DOWN);
    assert_eq!(a.downs.len(), MAX_DOWN);
    // And those not for ever.
    let mut now = START;
    while now < START + nanos(settings::DOWN_FOR) + 60 * SECOND {
        a.wake(now);
        while a.poll().is_some() {}
        now = a.wake_at().unwrap();
    }
    assert_eq!(a.foca.iter_membership_state().len(), 0);
}

#[test]
fn of_two_lives_at_one_address_the_later_wins_and_all_agree() {
    use foca::Identity as _;
    let early = identity(1);
    let late = early.renew().unwrap();
    assert!(late.incarnation > early.incarnation);
    assert!(late.win_addr_conflict(&early) && !early.win_addr_conflict(&late));
    let other = Identity {
        peer: PeerId(2),
        ..early
    };
    assert!(other.win_addr_conflict(&early) != early.win_addr_conflict(&other));
}

#[test]
fn the_generator_fills_bytes_of_any_number() {
    use rand_core::Rng as _;
    let mut chance = Chance(Rng::new(1));
    for n in 0..20 {
        let mut bytes = vec![0; n];
        chance.fill_bytes(&mut bytes);
        assert!(n < 8 || bytes.iter().any(|byte| *byte != 0));
    }
}

#[test]
fn a_stall_is_of_more_than_a_second() {
    let mut timers = Timers::default();
    timers.add(Due::Seek(1), Duration::from_secs(1), START);
    timers.notice(START + 2 * SECOND);
    assert_eq!(timers.stalls, Stalls::default());
    timers.notice(START + 4 * SECOND);
    let (count, total) = (1, Duration::from_secs(3));
    assert_eq!(timers.stalls, Stalls { count, total });
    assert_eq!(timers.pop(START + 4 * SECOND), None);
    assert_eq!(timers.next_at(), Some(START + 9 * SECOND / 2));
    assert_eq!(timers.pop(START + 9 * SECOND / 2), Some(Due::Seek(1)));
    assert_eq!(timers.next_at(), None);
}
