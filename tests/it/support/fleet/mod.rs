//! A fleet of real programs on loopback, each with a folder of its own that outlives its process.

mod peer;

use std::net::SocketAddr;
use std::time::Duration;

use super::binary::free_port;
use super::eventually::eventually;
use super::{DEADLINE, now};

pub use peer::Peer;

/// What endpoints show to register.
pub const TOKEN: &str = "the token of endpoints in tests";

/// What a fleet is made of; tables of TOML in which `WEB`, `ADMIN`, `GOSSIP`, `REGISTER` and
/// `DIR` stand for the peer's own.
#[derive(Clone, Debug)]
pub struct Plan {
    pub peers: usize,
    /// What the fleet is called: each has a name of its own, so that one whose port another test took is nobody there.
    pub name: String,
    /// Further lines of the listener `web`.
    pub listener: String,
    /// Further lines of `[fleet]`.
    pub fleet: String,
    /// All tables after it; `[upstreams.app]` is one of them.
    pub tables: String,
    /// The file of the secret.
    pub secret: String,
}

/// Peers that know each other. They are killed when dropped.
#[derive(Debug)]
pub struct Fleet {
    pub peers: Vec<Peer>,
}

/// What peers of a plan share unless it says otherwise.
pub const SECRET: &str = "the secret of a fleet in tests, and of no other\n";

// === impl Plan ===

impl Plan {
    /// So many peers with one dynamic upstream `app` over these endpoints; `upstream` are further lines of it.
    pub fn over(peers: usize, endpoints: &[SocketAddr], upstream: &str) -> Self {
        let endpoints: Vec<String> = endpoints.iter().map(|e| format!("'{e}'")).collect();
        Self {
            peers,
            name: format!("test-{}-{}", std::process::id(), free_port()),
            listener: String::new(),
            fleet: String::new(),
            tables: format!(
                "[upstreams.app]\ndynamic = true\nendpoints = [{}]\n{upstream}\n",
                endpoints.join(", ")
            ),
            secret: SECRET.to_owned(),
        }
    }

    /// Peers that have their places, and do not run yet.
    pub fn prepare(&self) -> Vec<Peer> {
        let addr = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let gossip: Vec<SocketAddr> = (0..self.peers).map(|_| addr()).collect();
        let peers = gossip.iter().map(|own| {
            let peer = Peer::at(addr(), addr(), *own);
            peer.write_secret(&self.secret);
            peer.write(&self.toml(&gossip));
            peer
        });
        peers.collect()
    }

    /// The configuration of a peer whose seeds these are.
    pub fn toml(&self, seeds: &[SocketAddr]) -> String {
        let seeds: Vec<String> = seeds.iter().map(|s| format!("'{s}'")).collect();
        let Self {
            name,
            listener,
            fleet,
            tables,
            ..
        } = self;
        let bind = if fleet.contains("bind = 'GOSSIP'") {
            ""
        } else {
            "bind = 'GOSSIP'\n"
        };
        format!(
            "[process]\nworkers = 1\nstate_dir = 'DIR/state'\ngrace = '5s'\n\
             [admin]\nsocket = 'DIR/sock'\nbind = 'ADMIN'\n\
             [listeners.web]\nbind = 'WEB'\nupstream = 'app'\n{listener}\n\
             [fleet]\nname = '{name}'\n{bind}seeds = [{}]\nsecret_file = 'DIR/fleet.key'\n{fleet}\n\
             {tables}\n",
            seeds.join(", ")
        )
    }

    /// Peers that run and know each other.
    #[track_caller]
    pub fn start(&self) -> Fleet {
        self.start_with(|_| {})
    }

    /// The same, that take registrations with [`TOKEN`].
    #[track_caller]
    pub fn start_to_register(mut self) -> Fleet {
        self.fleet =
            "register = { bind = 'REGISTER', token_file = 'DIR/tokens', max_ttl = '60s' }".into();
        self.start_with(|peer| {
            std::fs::write(peer.folder().join("tokens"), TOKEN)
                .expect("a file in a folder of the test");
        })
    }

    fn start_with(&self, before: impl Fn(&Peer)) -> Fleet {
        let mut peers = self.prepare();
        for peer in &mut peers {
            before(peer);
            peer.spawn();
        }
        let fleet = Fleet { peers };
        fleet.await_whole();
        fleet
    }
}

// === impl Fleet ===

impl Fleet {
    /// Waits until every peer knows as many as there are.
    #[track_caller]
    pub fn await_whole(&self) {
        for peer in &self.peers {
            peer.await_ready();
        }
        self.await_all("all peers know each other", |peer| {
            peer.alive() == self.peers.len()
        });
    }

    /// Waits until all peers say so; how long it took.
    #[track_caller]
    pub fn await_all(&self, what: &str, is_so: impl Fn(&Peer) -> bool) -> Duration {
        let all: Vec<&Peer> = self.peers.iter().collect();
        await_each(&all, what, is_so)
    }

    /// Waits until all peers that run have the same digest.
    #[track_caller]
    pub fn await_equal(&self) -> Duration {
        let begun = now();
        eventually("equal digests", || {
            let running = self.peers.iter().filter(|peer| peer.is_running());
            let mut digests: Vec<String> = running.map(Peer::digest).collect();
            digests.dedup();
            digests.len() == 1
        });
        begun.elapsed()
    }
}

/// Waits until each of these peers says so; how long that took.
#[track_caller]
pub fn await_each(peers: &[&Peer], what: &str, is_so: impl Fn(&Peer) -> bool) -> Duration {
    let begun = now();
    let mut missing: Vec<&Peer> = peers.to_vec();
    while !missing.is_empty() {
        missing.retain(|peer| !is_so(peer));
        if begun.elapsed() > DEADLINE {
            let views = missing.iter().map(|peer| peer.describe());
            let views: Vec<String> = views.collect();
            panic!("not within {DEADLINE:?}: {what}: {}", views.join("\n"));
        }
        if !missing.is_empty() {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
    begun.elapsed()
}
