//! Fleets of nothing but membership: who knows whom, when.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::{Machine, Net, Now, Sent, Weather, each_seed, is_long};
use crate::base::clock::Nanos;
use crate::base::rng::Rng;
use crate::fleet::id::PeerId;
use crate::fleet::membership::{Identity, Membership, Out};

/// A membership, and what it said.
pub(super) struct Member {
    membership: Membership,
    said: Vec<Out>,
}

/// What fits beside IPv4, UDP and the seal into 1400 bytes.
const PAYLOAD: usize = 1300;

/// 28 bytes of IPv4 and UDP, and some 60 of the seal.
const OVERHEAD: u64 = 88;

type Fleet = Net<Member>;

// === impl Member ===

impl Machine for Member {
    fn datagram(&mut self, from: SocketAddr, bytes: &[u8], clock: Now) {
        let result = self.membership.datagram(bytes, clock.now);
        assert!(
            result.is_ok() || self.membership.wake_at().is_none(),
            "{result:?} from {from}"
        );
    }

    fn wake_at(&self) -> Option<Nanos> {
        self.membership.wake_at()
    }

    fn wake(&mut self, clock: Now) {
        self.membership.wake(clock.now);
    }

    fn poll(&mut self) -> Option<Sent> {
        loop {
            match self.membership.poll()? {
                Out::Send { to, payload } => return Some(Sent::Datagram { to, bytes: payload }),
                news => self.said.push(news),
            }
        }
    }
}

/// Machine `index` of a fleet has this address, and this number as its peer's.
pub(super) fn addr(index: usize) -> SocketAddr {
    let [_, _, high, low] = (index as u32 + 1).to_be_bytes();
    (Ipv4Addr::new(10, 0, high, low), 7946).into()
}

pub(super) fn peer(index: usize) -> PeerId {
    // As random ones are: large.
    PeerId((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// One that begins now, and asks the first three where the others are.
fn member(index: usize, seed: u64) -> impl FnOnce(Now) -> Member {
    move |clock| {
        let me = Identity {
            peer: peer(index),
            addr: addr(index),
            incarnation: clock.unix_ms,
        };
        let seed = Rng::new(seed ^ clock.unix_ms).next_u64() ^ index as u64;
        let mut membership = Membership::new(me, seed, PAYLOAD, clock.now);
        membership.set_seeds((0..3).map(addr).collect(), clock.now);
        let said = Vec::new();
        Member { membership, said }
    }
}

fn fleet(n: usize, seed: u64) -> Fleet {
    let mut net = Net::new(seed, OVERHEAD);
    for index in 0..n {
        net.add(addr(index), member(index, seed));
    }
    net
}

/// Everybody who runs knows just those who run.
fn is_one(net: &Fleet) -> bool {
    let all = net.running().count() - 1;
    net.running().all(|(_, m)| m.membership.len() == all)
}

#[test]
fn try_out() {
    for n in [5, 50, 200, 1000] {
        let began = std::time::SystemTime::now();
        let mut net = fleet(n, 1);
        let joined = net.run_until(Duration::from_secs(120), is_one);
        let t1 = began.elapsed().unwrap();
        net.run(Duration::from_secs(60));
        let missing: usize = net.running().map(|(_, m)| n - 1 - m.membership.len()).sum();
        net.clear_traffic();
        net.run(Duration::from_secs(60));
        let bytes: u64 = (0..n).map(|i| net.traffic(i).bytes).sum();
        let msgs: u64 = (0..n).map(|i| net.traffic(i).datagrams).sum();
        net.crash(n - 1);
        let known = net.run_until(Duration::from_secs(60), is_one);
        println!(
            "{n}: joined {joined:?} in {t1:?}, missing {missing}, {} B/s {} msg/s, crash known {known:?}; {:?}",
            bytes / 60 / n as u64,
            msgs as f64 / 60.0 / n as f64,
            began.elapsed().unwrap()
        );
    }
}
