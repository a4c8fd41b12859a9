//! Ten thousand connections of TCP that end in every order: nothing of them stays.
//!
//! They need 20,000 descriptors on either side of the program, so the test is a process of its own: this
//! very test, started once more.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test code outside #[test] functions: a panic is the report, and its figures are printed"
)]

use std::net::TcpListener;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::SockRef;

use crate::support::DEADLINE;
use crate::support::eventually::eventually;
use crate::support::running::{Running, config};
use crate::support::tcp::{Came, End};

/// The variable that says that this is the process of its own.
const ALONE: &str = "ISOBAR_TEST_TCP_MANY";

/// Connections that are made before those that came of them are accepted: the standard library has 128 of
/// them wait.
const BATCH: usize = 100;

/// Beside the two of each connection: what a process has, and what metrics are asked with.
const SPARE: u64 = 200;

/// A client and its endpoint's end; what was reset is gone.
struct Pair {
    client: Option<End>,
    server: Option<End>,
    order: Order,
}

/// Who ends first, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    ClientFirst,
    EndpointFirst,
    BothAtOnce,
    ClientResets,
    EndpointResets,
    ClientEndsThenResets,
    EndpointEndsThenResets,
    ClientWithItsLastBytes,
    EndpointWithItsLastBytes,
}

const ORDERS: [Order; 9] = [
    Order::ClientFirst,
    Order::EndpointFirst,
    Order::BothAtOnce,
    Order::ClientResets,
    Order::EndpointResets,
    Order::ClientEndsThenResets,
    Order::EndpointEndsThenResets,
    Order::ClientWithItsLastBytes,
    Order::EndpointWithItsLastBytes,
];

// === impl Order ===

impl Order {
    /// What its record says.
    fn outcome(self) -> &'static str {
        match self {
            Self::ClientResets | Self::ClientEndsThenResets => "cancelled",
            Self::EndpointResets => "failed",
            _ => "ok",
        }
    }
}

// === impl Pair ===

impl Pair {
    fn both(&mut self) -> (&mut End, &mut End) {
        (self.client.as_mut().unwrap(), self.server.as_mut().unwrap())
    }

    /// The first thing that is done.
    fn begin(&mut self) {
        match self.order {
            Order::ClientFirst | Order::ClientEndsThenResets => self.both().0.end(),
            Order::EndpointFirst | Order::EndpointEndsThenResets => self.both().1.end(),
            Order::BothAtOnce => {
                self.both().0.end();
                self.both().1.end();
            }
            Order::ClientResets => self.client.take().unwrap().reset(),
            Order::EndpointResets => self.server.take().unwrap().reset(),
            Order::ClientWithItsLastBytes => {
                self.both().0.send("last");
                self.both().0.end();
            }
            Order::EndpointWithItsLastBytes => {
                self.both().1.send("last");
                self.both().1.end();
            }
        }
    }

    /// What comes of it on the other side, and what that does.
    fn go_on(&mut self) {
        match self.order {
            Order::ClientFirst => {
                let (client, server) = self.both();
                assert_eq!(server.next(), Came::End);
                server.end();
                assert_eq!(client.next(), Came::End);
            }
            Order::EndpointFirst => {
                let (client, server) = self.both();
                assert_eq!(client.next(), Came::End);
                client.end();
                assert_eq!(server.next(), Came::End);
            }
            Order::BothAtOnce => {
                let (client, server) = self.both();
                assert_eq!(client.next(), Came::End);
                assert_eq!(server.next(), Came::End);
            }
            Order::ClientResets => {
                assert_eq!(self.server.as_mut().unwrap().next(), Came::Reset);
            }
            Order::EndpointResets => {
                assert_eq!(self.client.as_mut().unwrap().next(), Came::Reset);
            }
            // The other end stays: whoever waits for its word would wait for long.
            Order::ClientEndsThenResets => {
                assert_eq!(self.both().1.next(), Came::End);
                self.client.take().unwrap().reset();
            }
            Order::EndpointEndsThenResets => {
                assert_eq!(self.both().0.next(), Came::End);
                self.server.take().unwrap().reset();
            }
            Order::ClientWithItsLastBytes => {
                let (client, server) = self.both();
                assert_eq!(server.read_to_end(), b"last");
                server.end();
                assert_eq!(client.next(), Came::End);
            }
            Order::EndpointWithItsLastBytes => {
                let (client, server) = self.both();
                assert_eq!(client.read_to_end(), b"last");
                client.end();
                assert_eq!(server.next(), Came::End);
            }
        }
    }
}

/// So many connections, each of which has carried a number.
fn open(running: &Running, endpoint: &TcpListener, count: usize) -> Vec<Pair> {
    let mut pairs = Vec::with_capacity(count);
    while pairs.len() < count {
        let first = pairs.len();
        for n in first..(first + BATCH).min(count) {
            let mut client = End::connect(running.web);
            client.send((n as u32).to_be_bytes());
            pairs.push(Pair {
                client: Some(client),
                server: None,
                order: ORDERS[n % ORDERS.len()],
            });
        }
        for _ in first..pairs.len() {
            let mut server = End::new(endpoint.accept().unwrap().0);
            let bytes = server.exactly(4).try_into().unwrap();
            let pair = &mut pairs[u32::from_be_bytes(bytes) as usize];
            assert!(pair.server.replace(server).is_none(), "a number came twice");
        }
    }
    pairs
}

#[test]
fn nothing_stays_of_connections_that_end_in_every_order() {
    if std::env::var_os(ALONE).is_some() {
        return alone();
    }
    let name = "tcp_many::nothing_stays_of_connections_that_end_in_every_order";
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(ALONE, "yes")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
}

fn alone() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = maximum;
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
    let room = (maximum.unwrap_or(u64::MAX) - SPARE) / 2;
    let count = room.min(10_000) as usize;

    let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
    // It ends a wait for a connection too (socket(7), SO_RCVTIMEO).
    SockRef::from(&endpoint)
        .set_read_timeout(Some(DEADLINE))
        .unwrap();
    let toml = config(
        endpoint.local_addr().unwrap(),
        "",
        "connect_timeout = '20s'",
    );
    let running = Running::start(&toml);
    // Whatever is made once is made.
    drop(open(&running, &endpoint, BATCH));
    eventually("none", || running.connections() == 0);
    let descriptors = running.descriptors();
    let outcomes = ["ok", "cancelled", "failed", "refused"];
    let mut before = outcomes.map(|outcome| running.flows(outcome));
    let mut resident = Vec::new();
    for round in 0..5 {
        let mut pairs = open(&running, &endpoint, count);
        assert_eq!(running.connections(), count);
        // Every other nine of them end one by one, the others all at once.
        let is_first = |n: usize| (n / ORDERS.len()).is_multiple_of(2);
        let mut rest: Vec<Pair> = Vec::new();
        let mut ending: Vec<Pair> = Vec::new();
        for (n, pair) in pairs.drain(..).enumerate() {
            (if is_first(n) { &mut ending } else { &mut rest }).push(pair);
        }
        ending.iter_mut().for_each(Pair::begin);
        ending.iter_mut().for_each(Pair::go_on);
        eventually("half of them", || running.connections() == rest.len());
        let now = outcomes.map(|outcome| running.flows(outcome));
        for (i, outcome) in outcomes.iter().enumerate() {
            let due = ending.iter().filter(|p| p.order.outcome() == *outcome);
            assert_eq!(now[i] - before[i], due.count(), "{outcome}");
        }
        drop(ending);
        for pair in &mut rest {
            let (client, server) = pair.both();
            client.talks_to(server);
        }
        let last = rest.len();
        drop(rest);
        eventually("none", || running.connections() == 0);
        let after = outcomes.map(|outcome| running.flows(outcome));
        let ended: usize = (0..outcomes.len()).map(|i| after[i] - now[i]).sum();
        assert_eq!(ended, last, "each is recorded once: {now:?}, {after:?}");
        before = after;
        eventually("its descriptors are closed", || {
            running.descriptors() <= descriptors
        });
        resident.push(running.resident());
        println!("round {round}: {count} connections, {resident:?} KiB resident");
    }
    // What a round leaves behind it the next one uses; what leaks grows with every round. An allocator takes
    // a few MiB now and then, in the first rounds above all: 100 bytes a connection in each of them are a leak.
    let grown = resident.windows(2).map(|two| two[1] - two[0]);
    let least = grown.fold(f64::MAX, f64::min);
    assert!(least <= count as f64 * 0.1, "{resident:?}");
}
