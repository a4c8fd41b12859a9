//! What is not said by a peer, or was said long ago.

use super::*;

/// What a test compares before and after.
fn state_of_peer(net: &Fleet, index: usize) -> (u64, Vec<(PeerId, u64)>, u64) {
    let peer = &net.get(index).unwrap().peer;
    let live = peer.live().values();
    let mut live: Vec<_> = live.map(|(id, _)| (id.peer, id.incarnation)).collect();
    live.sort_unstable();
    let counts = peer.counts();
    (peer.facts().root(), live, counts.merged)
}

fn refused(net: &Fleet, index: usize, why: &str) -> u64 {
    let counts = net.get(index).unwrap().peer.counts();
    counts.refused.get(why).copied().unwrap_or(0)
}

/// Machine `by` sends this to `to`.
fn send_all(net: &mut Fleet, by: usize, to: usize, all: &[Vec<u8>]) {
    let to = addr(to);
    net.with(by, |machine, _| {
        let datagrams = all.iter().cloned();
        let datagrams = datagrams.map(|bytes| Sent::Datagram { to, bytes });
        machine.extra.extend(datagrams);
    });
}

/// Five peers, and all datagrams that were sent to the last in a minute with changes of every kind.
fn recorded(common: &Common) -> (Fleet, Vec<Vec<u8>>) {
    let mut net = common.fleet(5);
    for index in 0..5 {
        net.with(index, |machine, _| machine.tape = Some(Vec::new()));
    }
    let mut rng = Rng::new(common.seed);
    for _ in 0..30 {
        happen_somewhere(&mut net, &mut rng);
        net.run(seconds(1));
    }
    // Somebody goes and comes back: what was said of him then is no longer so.
    net.crash(3);
    net.run(seconds(30));
    net.start(3, common.start(3, Facts::default()));
    net.with(3, |machine, _| machine.tape = Some(Vec::new()));
    net.run(seconds(30));
    assert!(is_one(&net) && is_equal(&net));
    let mut tape = Vec::new();
    for index in 0..4 {
        let sent = net.with(index, |machine, _| machine.tape.take());
        let sent = sent.into_iter().flatten();
        tape.extend(
            sent.filter(|(to, _)| *to == addr(4))
                .map(|(_, bytes)| bytes),
        );
    }
    assert!(tape.len() > 50, "{}", tape.len());
    (net, tape)
}

#[test]
fn what_is_replayed_changes_nothing() {
    each_seed(2, 200, |seed| {
        let common = Common::new(seed);
        let (mut net, tape) = recorded(&common);
        net.run(seconds(10));
        let before = state_of_peer(&net, 4);
        send_all(&mut net, 0, 4, &tape);
        net.run(seconds(1));
        assert_eq!(state_of_peer(&net, 4), before);
        let old = refused(&net, 4, "replayed") + refused(&net, 4, "clock");
        assert_eq!(old, tape.len() as u64);

        // Who has just started does not know what was heard before it.
        let facts = snapshot(&net, 4);
        net.crash(4);
        net.run(seconds(10));
        let facts = restored(facts, net.clock(4));
        net.start(4, common.start(4, facts));
        send_all(&mut net, 0, 4, &tape);
        net.run(seconds(2));
        let joined = net.run_until(seconds(30), |net| is_one(net) && is_equal(net));
        assert!(joined.is_some());
        net.run(seconds(5));
        let before = state_of_peer(&net, 4);
        let others: Vec<_> = (0..4).map(|index| state_of_peer(&net, index)).collect();
        send_all(&mut net, 0, 4, &tape);
        net.run(seconds(20));
        assert_eq!(state_of_peer(&net, 4), before);
        let now: Vec<_> = (0..4).map(|index| state_of_peer(&net, index)).collect();
        assert_eq!(now, others);
        let old = refused(&net, 4, "replayed") + refused(&net, 4, "clock");
        assert_eq!(old, 2 * tape.len() as u64);
    });
}

/// Others with another secret, another name, and another version ask to be let in.
#[test]
fn who_is_of_another_fleet_changes_nothing() {
    let mut net = Common::new(1).fleet(3);
    net.run(seconds(15));
    assert!(is_equal(&net));
    let secret = |text: &[u8]| -> Box<[u8]> { text.into() };
    let other_key = Keyring::new("sim", [secret(b"another secret of thirty-two bytes")]);
    let same = secret(b"a secret of the fleet in the simulator");
    let other_name = Keyring::new("simulator", [same]);
    let before: Vec<_> = (0..3).map(|index| state_of_peer(&net, index)).collect();
    for (index, keyring) in [(3, other_key), (4, other_name)] {
        let common = Common {
            keyring: keyring.unwrap(),
            ..Common::new(2)
        };
        net.add(addr(index), common.start(index, Facts::default()));
        say(&mut net, index, 1, Some(Word::Drain));
    }
    net.run(seconds(40));
    let bytes = vec![1; 100];
    send_all(
        &mut net,
        3,
        0,
        &[bytes, Vec::new(), vec![2; 20], vec![2; 1401]],
    );
    net.run(seconds(1));
    for (index, before) in before.iter().enumerate() {
        assert_eq!(state_of_peer(&net, index), *before, "{index}");
    }
    let all: BTreeMap<_, u64> = (0..3).fold(BTreeMap::new(), |mut all, index| {
        for (why, count) in &net.get(index).unwrap().peer.counts().refused {
            *all.entry(*why).or_default() += count;
        }
        all
    });
    for why in ["key", "fleet", "version", "short", "long"] {
        assert!(
            all.get(why).is_some_and(|count| *count > 0),
            "{why}: {all:?}"
        );
    }
}
