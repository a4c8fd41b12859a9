//! How a peer begins: its secret, what it knew, its sockets.

use std::io;
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdTcpListener,
    UdpSocket as StdUdpSocket,
};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Notify, mpsc, watch};

use crate::base::clock::Clock;
use crate::base::hash::hash;
use crate::config::{self, Seed};
use crate::fleet::Now;
use crate::fleet::fact::{About, Fact, Key, Value};
use crate::fleet::facts::Facts;
use crate::fleet::facts::snapshot::{self, LoadError, Loaded};
use crate::fleet::id::PeerId;
use crate::fleet::peer::{Past, Peer, Settings};
use crate::health::duty::Duty;
use crate::telemetry::history::utc;
use crate::telemetry::metrics::registry::Registry;

use super::super::fleet_keys::{FleetKeyError, keyring};
use super::super::secret_file::random;
use super::{AT_ONCE, Fleet, Orders, Shared, State};

/// The sockets of a peer, bound.
#[derive(Debug)]
pub struct Sockets {
    udp: StdUdpSocket,
    tcp: StdTcpListener,
}

/// Why this process cannot be a peer.
#[derive(Debug, Error)]
pub enum FleetError {
    /// Its address cannot be bound.
    #[error(
        "fleet: {addr} cannot be bound for {what}: {source}; write another `bind`, or end what listens there"
    )]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// `UDP` or `TCP`.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// What it knew cannot be read, and is in the way.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// There is no randomness to be had.
    #[error("fleet: the system gives no random bytes")]
    Random(#[source] io::Error),
    /// Nobody can be told where it is.
    #[error(
        "fleet: no address of this machine leads to a seed: write `advertise`, the address at which the others \
         reach this peer"
    )]
    Nowhere,
    /// What endpoints show to register cannot be read.
    #[error("fleet: {0}")]
    Tokens(String),
    /// The secret cannot be read.
    #[error(transparent)]
    Secret(#[from] FleetKeyError),
}

/// What a peer begins with.
#[derive(Debug)]
pub struct Begun {
    /// It.
    pub fleet: Fleet,
    /// What tells the checker.
    pub orders: Orders,
    /// What operators said here from then on, in milliseconds since 1970, may be missing in what it knows; whatever is
    /// missing of what they said before was taken back.
    pub missing_since: u64,
}

/// What was said so long before a snapshot may be missing in it: the clock of the peer where it was said may be
/// behind, and a snapshot takes time.
const SAVED_LATE_MS: u64 = 60_000;

/// A peer as `spec` says, with what it knew when it last ran. Blocks for its files.
///
/// # Errors
/// [`FleetError`]; nothing has changed on disk, but for a damaged file that was set aside.
pub fn begin(
    spec: Arc<config::Fleet>,
    addr: SocketAddr,
    registry: &Registry,
) -> Result<Begun, FleetError> {
    let clock = Clock::start();
    let now = Now {
        now: clock.now(),
        unix_ms: clock.unix_ms(),
    };
    let keyring = keyring(&spec)?;
    let [chance @ .., _] = random().map_err(FleetError::Random)?;
    let word = |at: usize| hash(&chance[at..at + 8]);
    let mut missing_since = 0;
    let mut facts = Facts::default();
    let mut peer = PeerId(word(0));
    let mut knows_since_unix_ms = now.unix_ms;
    let mut past = None;
    // What was found by checks was found then: who meets his fellows does not judge by it before they have said what
    // they find now.
    let of_now = |fact: &Fact| !matches!(fact.key, Key::Vote { .. });
    if let Some(folder) = &spec.state_dir {
        match snapshot::load(folder, &spec.name, now.unix_ms)? {
            Loaded::Fresh => {}
            Loaded::SetAside(aside) => tracing::warn!("{aside}"),
            Loaded::Known(known) => {
                missing_since = known.saved_unix_ms.saturating_sub(SAVED_LATE_MS);
                peer = known.peer;
                for fact in known.facts.into_iter().filter(of_now) {
                    // What cannot be so is not.
                    let _ = facts.merge(fact, now.unix_ms);
                }
                let before = facts.get(&Key::Peer(peer)).map(|fact| &fact.value);
                if let Some(Value::Peer(about)) = before {
                    knows_since_unix_ms = about.knows_since_unix_ms;
                }
            }
            Loaded::Past(known) => {
                missing_since = known.saved_unix_ms.saturating_sub(SAVED_LATE_MS);
                peer = known.peer;
                past = Some(known);
            }
        }
    }
    let settings = Settings {
        peer,
        addr,
        keyring: keyring.clone(),
        session: word(8).to_be_bytes(),
        about: About {
            zone: spec.zone.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config: 0,
            started_unix_ms: now.unix_ms,
            knows_since_unix_ms,
        },
        max_clock_skew: spec.max_clock_skew,
        facts,
        probers: spec.probers as usize,
        max_remove: spec.max_remove,
        seed: word(16),
    };
    let (duty, duty_of) = watch::channel(Arc::new(Duty::default()));
    let (at_once, at_once_of) = mpsc::channel(AT_ONCE);
    let mut peer = Peer::new(settings, now);
    if let Some(known) = past {
        let facts = known.facts.into_iter().filter(of_now).collect();
        peer.remember(facts, known.saved_unix_ms, now);
        tracing::warn!(
            "fleet: this peer was last here {}, which is longer ago than the fleet remembers what is taken back: {} \
             words of operators from before that hold here alone, until it has met others; if they were not away too, \
             what they know holds",
            utc(known.saved_unix_ms),
            peer.past().map_or(0, Past::len)
        );
    }
    let state = State {
        peer,
        keyring,
        saved: (0, 0),
        is_to_be_saved: false,
        is_to_be_resolved: false,
        looks: Vec::new(),
        is_frozen: false,
        stopped: None,
    };
    let shared = Shared {
        wanted: ArcSwap::new(spec.clone()),
        spec,
        clock,
        saving: Mutex::default(),
        state: Mutex::new(state),
        wake: Notify::new(),
        duty,
        at_once,
        cells: registry.fleet(),
    };
    Ok(Begun {
        fleet: Fleet(Arc::new(shared)),
        orders: Orders {
            duty: duty_of,
            at_once: at_once_of,
        },
        missing_since,
    })
}

// === impl Sockets ===

impl Sockets {
    /// Binds UDP and TCP on one port.
    ///
    /// # Errors
    /// [`FleetError::Bind`].
    pub fn bind(addr: SocketAddr) -> Result<Self, FleetError> {
        let failed = |what| move |source| FleetError::Bind { addr, what, source };
        let tcp = StdTcpListener::bind(addr).map_err(failed("TCP"))?;
        // With port 0, the port that TCP got.
        let bound = tcp.local_addr().map_err(failed("TCP"))?;
        let udp = StdUdpSocket::bind(bound).map_err(failed("UDP"))?;
        Ok(Self { udp, tcp })
    }

    /// The address that both are bound to.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.tcp.local_addr().ok()
    }

    pub(super) fn into_tokio(self) -> io::Result<(UdpSocket, TcpListener)> {
        self.udp.set_nonblocking(true)?;
        self.tcp.set_nonblocking(true)?;
        Ok((
            UdpSocket::from_std(self.udp)?,
            TcpListener::from_std(self.tcp)?,
        ))
    }
}

/// Where others reach a peer that is bound to `bound`: what `spec` says, or that address, or that of the interface
/// towards a seed, or, if none is known now, towards anybody.
///
/// # Errors
/// [`FleetError::Nowhere`].
pub fn advertised(spec: &config::Fleet, bound: SocketAddr) -> Result<SocketAddr, FleetError> {
    if let Some(addr) = spec.advertise {
        let port = if addr.port() == 0 {
            bound.port()
        } else {
            addr.port()
        };
        return Ok(SocketAddr::new(addr.ip(), port));
    }
    if !bound.ip().is_unspecified() {
        return Ok(bound);
    }
    let towards = |seed: SocketAddr| {
        let any = if seed.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = StdUdpSocket::bind(any).ok()?;
        // Nothing is sent: the kernel says by which address it would be.
        socket.connect(seed).ok()?;
        let ip = socket.local_addr().ok()?.ip();
        (!ip.is_unspecified()).then(|| SocketAddr::new(ip, bound.port()))
    };
    // No name can be resolved: traffic is not to wait for that. Most machines have one address, towards anybody.
    const ANYBODY: [SocketAddr; 2] = [
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
        SocketAddr::new(
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
            9,
        ),
    ];
    let seeds = spec.seeds.iter().flat_map(addresses);
    seeds
        .chain(ANYBODY)
        .find_map(towards)
        .ok_or(FleetError::Nowhere)
}

/// The addresses of a seed; none if its name cannot be resolved now.
fn addresses(seed: &Seed) -> Vec<SocketAddr> {
    match seed {
        Seed::Addr(addr) => vec![*addr],
        Seed::Dns { name, port } => {
            use std::net::ToSocketAddrs as _;
            let found = (name.as_str(), *port).to_socket_addrs();
            found.map(Iterator::collect).unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt as _;

    use super::*;
    use crate::base::addr::EndpointAddr;
    use crate::fleet::fact::Value;
    use crate::fleet::facts::snapshot::Image;
    use crate::fleet::stamp::Stamp;

    /// A file with a secret, as `isobar fleet keygen` makes one.
    fn secret(file: &std::path::Path) {
        use std::io::Write as _;
        let mut file = std::fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(file)
            .unwrap();
        file.write_all(b"the secret of a fleet that has one peer")
            .unwrap();
    }

    /// All endpoints were down in the incident that it was killed in. It met two others who had found so, and their
    /// votes of then took down what was well long since.
    #[test]
    fn what_checks_found_is_not_known_after_a_restart_but_all_else_is() {
        let folder = tempfile::tempdir().unwrap();
        secret(&folder.path().join("fleet.key"));
        let text = format!(
            "[listeners.web]\nbind = ':8080'\nupstream = 'app'\n[upstreams.app]\nendpoints = ['10.1.0.1:80']\n\
             [fleet]\nname = 'test'\nbind = '127.0.0.1:7946'\nsecret_file = '{0}/fleet.key'\nstate_dir = '{0}'\n",
            folder.path().display()
        );
        let spec = config::parse("test", &text).unwrap().config.fleet.unwrap();
        let now = Clock::start().unix_ms();
        let endpoint = EndpointAddr::Ip("10.1.0.1:80".parse().unwrap());
        let mut known = Facts::default();
        for origin in [PeerId(1), PeerId(2), PeerId(3)] {
            let vote = Key::Vote {
                upstream: "app".into(),
                endpoint: endpoint.clone(),
                prober: origin,
            };
            let registration = Key::Registration {
                upstream: "app".into(),
                endpoint: endpoint.clone(),
                registrar: origin,
            };
            let failed = Value::Vote {
                passed: false,
                check: 7,
                why: "connection refused".to_owned(),
            };
            let registered = Value::Registered {
                weight: 1,
                zone: None,
                ttl_ms: 30_000,
            };
            for (key, value) in [(vote, failed), (registration, registered)] {
                let stamp = Stamp::at(now - 1000);
                known.merge(
                    Fact {
                        key,
                        value,
                        stamp,
                        origin,
                    },
                    now,
                );
            }
        }
        assert_eq!((known.counts().votes, known.counts().registrations), (3, 3));
        snapshot::save(folder.path(), &Image::new(PeerId(1), "test", now, &known)).unwrap();

        let bind = "127.0.0.1:7946".parse().unwrap();
        let begun = begin(spec, bind, &Registry::new(1)).unwrap();
        let state = begun.fleet.state();
        assert_eq!(state.peer.id(), PeerId(1));
        let counts = state.peer.facts().counts();
        assert_eq!((counts.votes, counts.registrations), (0, 3));
    }
}
