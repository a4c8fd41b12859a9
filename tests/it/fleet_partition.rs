//! Five peers in five network namespaces: a network that falls apart, both sides of which go on, and that is
//! whole again; and one that loses packets.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of a test: failing is their report"
)]

use std::net::SocketAddr;
use std::path::Path;

use crate::support::fleet::{Fleet, Peer, Plan, await_each};
use crate::support::namespaces::Namespaces;
use crate::support::openssl::Tool;
use crate::support::{need, not_run, scaled};

/// Two switches with a cable between them; peers 0, 1 and 2 are at the first, 3 and 4 at the second. All of it is
/// in namespaces of its own.
struct Net {
    /// Of the switches, then of the peers.
    spaces: Namespaces,
}

const PEERS: usize = 5;
const LEFT: usize = 3;

// === impl Net ===

impl Net {
    /// `None` where this process may not, after having said so. See [`Namespaces::build`].
    fn build(test: &str) -> Option<Self> {
        let ends = ["hub", "p0", "p1", "p2", "p3", "p4"];
        Namespaces::build(test, &ends, wire).map(|spaces| Self { spaces })
    }

    /// The namespace of a peer.
    fn of(&self, peer: usize) -> &str {
        self.spaces.name(peer + 1)
    }

    /// From now on each peer gets only so much of what is sent to it, datagrams and segments alike; `false` where this
    /// cannot be, after having said so. By nftables: what `tc` needs for it (netem) is in few kernels of small machines.
    fn lose(&self, percent: u32) -> bool {
        let Some(nft) = need("nft") else { return false };
        let rules = format!(
            "table inet loss {{ chain heard {{ type filter hook input priority 0; \
             iifname eth0 numgen random mod 100 < {percent} counter drop; }}; }}"
        );
        for peer in 0..PEERS {
            let within = ["netns", "exec", self.of(peer), &path(&nft), &rules];
            if let Err(why) = self.spaces.ip(&within) {
                not_run(&format!("packets cannot be lost here: {why}"));
                return false;
            }
        }
        true
    }

    /// How many packets a peer has not got.
    fn lost(&self, peer: usize) -> u64 {
        let list = [
            "netns",
            "exec",
            self.of(peer),
            "nft",
            "list",
            "chain",
            "inet",
            "loss",
            "heard",
        ];
        let (_, said) = Tool::run(self.spaces.program(), &list);
        let mut words = said
            .split_whitespace()
            .skip_while(|word| *word != "packets");
        words
            .nth(1)
            .and_then(|count| count.parse().ok())
            .unwrap_or(0)
    }

    /// The cable between the switches.
    #[track_caller]
    fn cable(&self, state: &str) {
        let hub = self.spaces.name(0);
        self.spaces
            .ip(&["-n", hub, "link", "set", "ends0", state])
            .unwrap();
    }
}

fn wire(spaces: &Namespaces) -> Result<(), String> {
    let hub = spaces.name(0);
    spaces.ip(&[
        "-n", hub, "link", "add", "ends0", "type", "veth", "peer", "name", "ends1",
    ])?;
    for (switch, end) in [("switch0", "ends0"), ("switch1", "ends1")] {
        spaces.ip(&["-n", hub, "link", "add", switch, "type", "bridge"])?;
        spaces.ip(&["-n", hub, "link", "set", switch, "up"])?;
        spaces.ip(&["-n", hub, "link", "set", end, "master", switch, "up"])?;
    }
    for n in 0..PEERS {
        let (of, port) = (spaces.name(n + 1), format!("port{n}"));
        let switch = if n < LEFT { "switch0" } else { "switch1" };
        let pair = ["type", "veth", "peer", "name", "eth0", "netns", of];
        spaces.ip(&[&["-n", hub, "link", "add", &port], &pair[..]].concat())?;
        spaces.ip(&["-n", hub, "link", "set", &port, "master", switch, "up"])?;
        let addr = format!("{}/24", gossip(n).ip());
        spaces.ip(&["-n", of, "addr", "add", &addr, "dev", "eth0"])?;
        spaces.ip(&["-n", of, "link", "set", "eth0", "up"])?;
    }
    Ok(())
}

fn gossip(peer: usize) -> SocketAddr {
    ([10, 99, 0, peer as u8 + 1], 7946).into()
}

fn start(net: &Net) -> Fleet {
    let plan = Plan::over(PEERS, &[endpoint(1)], "");
    let seeds: Vec<SocketAddr> = (0..PEERS).map(gossip).collect();
    let peers = (0..PEERS).map(|n| {
        let admin = ([127, 0, 0, 1], 9090).into();
        let mut peer = Peer::at(([127, 0, 0, 1], 8080).into(), admin, gossip(n));
        peer.within = ["netns", "exec", net.of(n)].map(ToOwned::to_owned).into();
        peer.within.insert(0, path(net.spaces.program()));
        peer.write_secret(&plan.secret);
        peer.write(&plan.toml(&seeds));
        peer.spawn();
        peer
    });
    let fleet = Fleet {
        peers: peers.collect(),
    };
    fleet.await_whole();
    fleet
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Nobody has to be there: it is about what is known.
fn endpoint(n: u8) -> SocketAddr {
    ([10, 99, 1, n], 80).into()
}

#[test]
fn both_sides_of_a_cut_go_on_and_agree_once_it_is_mended() {
    let Some(net) = Net::build("cut") else { return };
    let fleet = start(&net);
    let (left, right): (Vec<&Peer>, Vec<&Peer>) = (
        fleet.peers[..LEFT].iter().collect(),
        fleet.peers[LEFT..].iter().collect(),
    );
    left[0].add(endpoint(2));
    let took = fleet.await_all("what was said before", |peer| peer.has(endpoint(2)));
    eprintln!("at five peers in five namespaces after {took:?}");

    net.cable("down");
    let took = await_each(&left, "the left side is three", |peer| peer.alive() == LEFT);
    await_each(&right, "the right side is two", |peer| {
        peer.alive() == PEERS - LEFT
    });
    eprintln!("the cut is seen after {took:?}");
    // Both sides go on, of different things, and of one and the same.
    left[1].add(endpoint(3));
    right[0].add(endpoint(4));
    left[2].set_weight(endpoint(1), 5);
    right[1].set_state(endpoint(1), "drain");
    left[0].set_weight(endpoint(2), 6);
    await_each(&left, "the left side agrees", |peer| {
        peer.has(endpoint(3)) && peer.effective(endpoint(2)) == "active 6"
    });
    // Later than what the left side said of it, so it is what holds.
    right[0].set_weight(endpoint(2), 7);
    await_each(&right, "the right side agrees", |peer| {
        peer.has(endpoint(4)) && peer.effective(endpoint(2)) == "active 7"
    });
    assert!(left.iter().all(|peer| !peer.has(endpoint(4))));
    assert!(right.iter().all(|peer| !peer.has(endpoint(3))));

    net.cable("up");
    let took = fleet.await_all("all agree", |peer| {
        peer.has(endpoint(3))
            && peer.has(endpoint(4))
            && peer.effective(endpoint(1)) == "drain 5"
            && peer.effective(endpoint(2)) == "active 7"
    });
    eprintln!("what both sides said is so at all {took:?} after the cable is mended");
    fleet.await_equal();
    fleet.await_whole();
    fleet.await_equal();
}

/// One packet in twenty is lost on each way: what is pushed reaches some by the other peers who push it, or once they
/// compare; whoever does not answer answers somebody else.
#[test]
fn lost_packets_keep_nothing_from_anybody() {
    let Some(net) = Net::build("loss") else {
        return;
    };
    let fleet = start(&net);
    if !net.lose(5) {
        return;
    }
    let mut took = Vec::new();
    let rounds = scaled(4, 40);
    for round in 0..rounds {
        let at = &fleet.peers[round % PEERS];
        let (new, word) = (endpoint(10 + round as u8), ["drain", "disable"][round % 2]);
        at.add(new);
        took.push(fleet.await_all("an endpoint is added", |peer| peer.has(new)));
        at.set_state(new, word);
        let says = format!("{word} 1");
        took.push(fleet.await_all("it is taken away", |peer| peer.effective(new) == says));
    }
    let lost: u64 = (0..PEERS).map(|peer| net.lost(peer)).sum();
    took.sort_unstable();
    let [middle, longest] = [took[took.len() / 2], took[took.len() - 1]];
    eprintln!("{lost} packets lost; known by all after {middle:?} (middle), {longest:?} (longest)");
    assert!(lost > 0);
    fleet.await_equal();
    fleet.await_whole();
}
