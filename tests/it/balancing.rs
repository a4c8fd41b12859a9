//! Policies end to end: which endpoint gets which exchange.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::support::client::Client;
use crate::support::gate::Gate;
use crate::support::origin::{self, Origin, Step};
use crate::support::proxy::Proxy;
use crate::support::unreachable::Refusing;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// The first `n` of four origins that answer with their names.
fn named(n: usize) -> Vec<Origin> {
    NAMES[..n].iter().map(|name| Origin::named(name)).collect()
}

fn list(endpoints: impl IntoIterator<Item = String>) -> String {
    endpoints.into_iter().collect::<Vec<_>>().join(", ")
}

fn quoted(origins: &[Origin]) -> String {
    list(origins.iter().map(|o| format!("\"{}\"", o.addr())))
}

/// One listener `web` over `endpoints`, with `balance` as written; `more` belongs to the upstream.
fn balanced(workers: usize, endpoints: &str, balance: &str, more: &str) -> Proxy {
    Proxy::start(&format!(
        "[process]\nworkers = {workers}\n[admin]\nbind = \"127.0.0.1:0\"\n\
         [listeners.web]\nbind = \"127.0.0.1:0\"\nupstream = \"app\"\n\
         [upstreams.app]\nendpoints = [{endpoints}]\nbalance = {balance}\n{more}\n"
    ))
}

/// Who answered `n` requests in a row, as one word.
fn answers(client: &mut Client, n: usize) -> String {
    (0..n).map(|_| client.request("GET", "/").text()).collect()
}

/// An origin that answers `/hold` only when the gate is open.
fn holding(name: &'static str, gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::start(move |r| {
        let mut steps = vec![Step::ReadBody, Step::Send(origin::response(200, name))];
        if r.head.target() == "/hold" {
            steps.insert(1, Step::Pass(gate.clone()));
        }
        steps
    })
}

#[test]
fn round_robin_takes_exact_turns_over_all_workers() {
    let origins = named(3);
    let proxy = balanced(2, &quoted(&origins), "\"round_robin\"", "");
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(proxy.addr())).collect();
    let mut seen = String::new();
    for _ in 0..6 {
        for client in &mut clients {
            seen += &answers(client, 1);
        }
    }
    assert_eq!(proxy.connections(), [2, 2], "both workers took part");
    assert_eq!(seen, "abc".repeat(8));
}

#[test]
fn weighted_is_smooth() {
    let origins = named(3);
    let endpoints = list(
        origins
            .iter()
            .zip([5, 1, 1])
            .map(|(o, weight)| format!("{{ address = \"{}\", weight = {weight} }}", o.addr())),
    );
    let proxy = balanced(1, &endpoints, "\"weighted\"", "");
    let mut client = Client::connect(proxy.addr());
    // What nginx does with 5, 1, 1.
    assert_eq!(answers(&mut client, 14), "aabacaaaabacaa");
}

#[test]
fn weight_of_zero_gets_nothing() {
    let origins = named(2);
    let endpoints = list(
        origins
            .iter()
            .zip([0, 1])
            .map(|(o, weight)| format!("{{ address = \"{}\", weight = {weight} }}", o.addr())),
    );
    for policy in ["weighted", "random", "least_request", "peak_ewma", "maglev"] {
        let proxy = balanced(1, &endpoints, &format!("\"{policy}\""), "");
        let mut client = Client::connect(proxy.addr());
        assert_eq!(answers(&mut client, 20), "b".repeat(20), "{policy}");
    }
}

#[test]
fn least_request_avoids_the_busy_endpoint() {
    let gate = Gate::new();
    let origins = [holding("a", &gate), holding("b", &gate)];
    let proxy = balanced(1, &quoted(&origins), "\"least_request\"", "");
    let mut held = Client::connect(proxy.addr());
    held.send("GET /hold HTTP/1.1\r\nHost: t\r\n\r\n");
    gate.await_reached(1);
    let others = answers(&mut Client::connect(proxy.addr()), 20);
    gate.open();
    let busy = held.response().text();
    assert!(!others.contains(&busy), "{busy} was busy: {others}");
    // Idle again, it takes its share.
    let all = answers(&mut held, 20);
    assert!(all.contains('a') && all.contains('b'), "{all}");
}

#[test]
fn peak_ewma_counts_failures_as_slow() {
    let good = Origin::named("a");
    let bad = Origin::always(origin::reply(500, "b"));
    let origins = [good, bad];
    let proxy = balanced(1, &quoted(&origins), "\"peak_ewma\"", "");
    let seen = answers(&mut Client::connect(proxy.addr()), 100);
    let good = seen.matches('a').count();
    assert!(good >= 90, "{good} of 100 to the one that works: {seen}");
    assert!(seen.contains('b'), "each was tried: {seen}");
}

#[test]
fn random_reaches_every_endpoint() {
    let origins = named(3);
    let proxy = balanced(1, &quoted(&origins), "\"random\"", "");
    let seen = answers(&mut Client::connect(proxy.addr()), 100);
    // One that is missed has a chance of 3 (2/3)^100 = 10^-17.
    assert!(NAMES[..3].iter().all(|name| seen.contains(name)), "{seen}");
}

#[test]
fn first_is_the_first_that_can_be_reached() {
    let origins = named(2);
    let proxy = balanced(1, &quoted(&origins), "\"first\"", "");
    assert_eq!(
        answers(&mut Client::connect(proxy.addr()), 10),
        "a".repeat(10)
    );

    let gone = Refusing::new();
    let endpoints = format!("\"{}\", {}", gone.addr, quoted(&origins));
    let proxy = balanced(1, &endpoints, "\"first\"", "");
    assert_eq!(
        answers(&mut Client::connect(proxy.addr()), 10),
        "a".repeat(10)
    );
}

/// A request whose key of some kind is `value`, or has none.
fn keyed(addr: SocketAddr, kind: &str, value: Option<usize>) -> String {
    let v = value.map(|v| format!("v{v}"));
    let (mut target, mut host, mut fields) = ("/".to_owned(), "t".to_owned(), String::new());
    let mut local = Ipv4Addr::LOCALHOST;
    match (kind, v) {
        ("client", Some(_)) => local = Ipv4Addr::new(127, 0, 1, value.unwrap() as u8 + 1),
        ("header:x-user", Some(v)) => fields = format!("X-User: {v}\r\n"),
        ("cookie:user", Some(v)) => fields = format!("Cookie: a=b; user={v}; user2=no\r\n"),
        ("query:user", Some(v)) => target = format!("/?x=y&user={v}&userx=no"),
        ("path", Some(v)) => target = format!("/{v}?ignored={}", addr.port()),
        ("host", Some(v)) => host = format!("{v}.example.com:80"),
        _ => {}
    }
    let mut client = Client::connect_from(IpAddr::V4(local), addr);
    client.send(format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"
    ));
    let response = client.response();
    assert_eq!(response.status(), 200, "{kind} {value:?}");
    response.text()
}

#[test]
fn hash_policies_stick_by_every_kind_of_key() {
    let origins = named(4);
    let endpoints = quoted(&origins);
    for policy in ["ring_hash", "maglev", "rendezvous"] {
        for key in [
            "client",
            "header:x-user",
            "cookie:user",
            "query:user",
            "path",
            "host",
        ] {
            let balance = format!("{{ policy = \"{policy}\", key = \"{key}\" }}");
            let proxy = balanced(2, &endpoints, &balance, "");
            let mut homes = HashMap::new();
            for value in 0..24 {
                let home = keyed(proxy.addr(), key, Some(value));
                for _ in 0..2 {
                    assert_eq!(
                        keyed(proxy.addr(), key, Some(value)),
                        home,
                        "{policy} {key}"
                    );
                }
                homes.entry(home).or_insert(value);
            }
            // That 24 keys all avoid two of four has a chance of 6 (1/2)^24.
            assert!(homes.len() >= 3, "{policy} {key}: {homes:?}");
            keyed(proxy.addr(), key, None);
        }
    }
}

#[test]
fn keys_map_alike_in_every_process_and_order() {
    let origins = named(4);
    let forward = quoted(&origins);
    let backward = list(origins.iter().rev().map(|o| format!("\"{}\"", o.addr())));
    for policy in ["ring_hash", "maglev", "rendezvous"] {
        let balance = format!("{{ policy = \"{policy}\", key = \"path\" }}");
        let one = balanced(1, &forward, &balance, "");
        let other = balanced(1, &backward, &balance, "");
        for value in 0..24 {
            assert_eq!(
                keyed(one.addr(), "path", Some(value)),
                keyed(other.addr(), "path", Some(value)),
                "{policy}"
            );
        }
    }
}

#[test]
fn requests_without_the_key_are_spread() {
    let origins = named(3);
    let balance = "{ policy = \"maglev\", key = \"header:x-user\" }";
    let proxy = balanced(1, &quoted(&origins), balance, "");
    let seen = answers(&mut Client::connect(proxy.addr()), 100);
    assert!(NAMES[..3].iter().all(|name| seen.contains(name)), "{seen}");
}

#[test]
fn bounded_load_sends_the_overflow_of_a_hot_key_elsewhere() {
    for policy in ["ring_hash", "maglev", "rendezvous"] {
        let gate = Gate::new();
        let origins = NAMES.map(|name| holding(name, &gate));
        let balance = format!("{{ policy = \"{policy}\", key = \"path\", bounded_load = 1.25 }}");
        let proxy = balanced(1, &quoted(&origins), &balance, "");
        let mut clients = Vec::new();
        for n in 1..=16 {
            let mut client = Client::connect(proxy.addr());
            client.send("GET /hold HTTP/1.1\r\nHost: t\r\n\r\n");
            gate.await_reached(n);
            clients.push(client);
        }
        let most = origins.iter().map(|o| o.requests().len()).max();
        gate.open();
        for client in &mut clients {
            assert_eq!(client.response().status(), 200);
        }
        // ceil(1.25 * 16 / 4), and the hot key's own endpoint fills up first.
        assert_eq!(most, Some(5), "{policy}");
    }
}

#[test]
fn hash_policy_goes_on_from_an_endpoint_that_cannot_be_reached() {
    let gone = Refusing::new();
    let origins = named(2);
    let endpoints = format!("\"{}\", {}", gone.addr, quoted(&origins));
    let balance = "{ policy = \"ring_hash\", key = \"path\" }";
    let proxy = balanced(1, &endpoints, balance, "");
    for value in 0..24 {
        let home = keyed(proxy.addr(), "path", Some(value));
        assert_eq!(keyed(proxy.addr(), "path", Some(value)), home);
    }
}

#[test]
fn split_follows_the_weights() {
    let origins = named(3);
    let toml = format!(
        "[process]\nworkers = 1\n[listeners.web]\nbind = \"127.0.0.1:0\"\n\
         [[routes]]\nsplit = [{{ upstream = \"a\", weight = 80 }}, \
         {{ upstream = \"b\", weight = 20 }}, {{ upstream = \"c\", weight = 0 }}]\n\
         [upstreams.a]\nendpoints = [\"{}\"]\n[upstreams.b]\nendpoints = [\"{}\"]\n\
         [upstreams.c]\nendpoints = [\"{}\"]\n",
        origins[0].addr(),
        origins[1].addr(),
        origins[2].addr()
    );
    let proxy = Proxy::start(&toml);
    let seen = answers(&mut Client::connect(proxy.addr()), 2_000);
    let b = seen.matches('b').count();
    assert_eq!(seen.matches('c').count(), 0, "weight 0");
    // Binomial: mean 400, standard deviation 17.9; five of them is one chance in two millions.
    assert!((311..=489).contains(&b), "{b} of 2000");
}
