//! Who is chosen for a connection of TCP, and who is not asked: the rules of upstreams hold as they do
//! for requests.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::net::SocketAddr;
use std::thread::JoinHandle;

use isobar::upstream::overrides::Verb;

use crate::support::eventually::eventually;
use crate::support::proxy::Proxy;
use crate::support::tcp::{Came, End, Endpoint};
use crate::support::unreachable::Refusing;

/// One listener `web`; `upstream` are all lines of its upstream.
fn config(upstream: &str) -> String {
    format!(
        "[process]\nworkers = 1\n[admin]\nbind = '127.0.0.1:0'\n\
         [listeners.web]\nbind = '127.0.0.1:0'\nprotocol = 'tcp'\nupstream = 'app'\n\
         [upstreams.app]\n{upstream}\n"
    )
}

fn list(endpoints: &[SocketAddr]) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|e| format!("'{e}'")).collect();
    format!("endpoints = [{}]", endpoints.join(", "))
}

fn refusals(proxy: &Proxy, reason: &str) -> f64 {
    let name = "isobar_listener_refusals_total";
    proxy.metric(&format!("{name}{{listener=\"web\",reason=\"{reason}\"}}"))
}

fn ejected(proxy: &Proxy, endpoint: SocketAddr) -> f64 {
    let name = "isobar_endpoint_ejected";
    proxy.metric(&format!(
        "{name}{{upstream=\"app\",endpoint=\"{endpoint}\"}}"
    ))
}

/// The next connection from `from`: which of the endpoints has it, and both its ends.
fn join_from(from: &str, proxy: &Proxy, endpoints: &[Endpoint]) -> (usize, End, End) {
    let mut client = End::connect_from(from, proxy.addr());
    let mut found = None;
    eventually("its endpoint", || {
        let mut waiting = endpoints.iter().map(Endpoint::waiting).enumerate();
        found = waiting.find_map(|(n, end)| Some((n, end?)));
        found.is_some()
    });
    let (n, mut server) = found.unwrap();
    client.talks_to(&mut server);
    (n, client, server)
}

/// How many of `n` connections, all of them open at once, each endpoint has.
fn shares(proxy: &Proxy, endpoints: &[Endpoint], n: usize) -> Vec<usize> {
    let mut shares = vec![0; endpoints.len()];
    let mut open = Vec::new();
    for _ in 0..n {
        let (at, client, server) = join_from("127.0.0.1", proxy, endpoints);
        shares[at] += 1;
        open.push((client, server));
    }
    shares
}

/// An endpoint that hears a word and resets.
fn resetting() -> (SocketAddr, JoinHandle<()>) {
    let endpoint = Endpoint::new();
    let addr = endpoint.addr();
    let thread = std::thread::spawn(move || {
        // Five in a row eject it, and then it is asked no more. What says who the client is shows that the proxy
        // has seen the connection made: it might be told of a reset before.
        for _ in 0..5 {
            let mut end = endpoint.accept();
            assert!(matches!(end.next(), Came::Bytes(_)));
            end.reset();
        }
    });
    (addr, thread)
}

#[test]
fn every_policy_spreads_connections_in_its_own_way() {
    const N: usize = 60;
    for policy in [
        "round_robin",
        "weighted",
        "random",
        "least_request",
        "peak_ewma",
        "ring_hash",
        "maglev",
        "rendezvous",
        "first",
    ] {
        let endpoints = [(); 3].map(|()| Endpoint::new());
        let weighted: Vec<String> = [1, 2, 3]
            .iter()
            .zip(&endpoints)
            .map(|(weight, e)| format!("{{ address = '{}', weight = {weight} }}", e.addr()))
            .collect();
        let upstream = format!(
            "endpoints = [{}]\nbalance = '{policy}'",
            weighted.join(", ")
        );
        let proxy = Proxy::start(&config(&upstream));
        let mut shares = [0; 3];
        let mut open = Vec::new();
        for n in 0..N {
            let from = format!("127.0.1.{}", 1 + n);
            let (at, client, server) = join_from(&from, &proxy, &endpoints);
            shares[at] += 1;
            open.push((from, at, client, server));
        }
        match policy {
            "round_robin" => assert_eq!(shares, [20, 20, 20]),
            "weighted" => assert_eq!(shares, [10, 20, 30]),
            "first" => assert_eq!(shares, [60, 0, 0]),
            // What is open counts, and by its weight.
            "least_request" => {
                assert!(shares[0] < shares[1] && shares[1] < shares[2], "{shares:?}");
            }
            // One in six at least is missed with a chance of (5/6)^60, 1 in 50,000, or less.
            _ => assert!(shares.iter().all(|n| *n > 0), "{policy}: {shares:?}"),
        }
        println!("{policy}: {shares:?}");
        if ["ring_hash", "maglev", "rendezvous"].contains(&policy) {
            for (from, at, ..) in &open {
                assert_eq!(
                    join_from(from, &proxy, &endpoints).0,
                    *at,
                    "{policy}: {from}"
                );
            }
        }
        drop(open);
        eventually("no connection", || proxy.connections() == [0]);
    }
}

#[test]
fn an_endpoint_that_refuses_is_ejected() {
    let (dead, endpoint) = (Refusing::new(), Endpoint::new());
    let upstream = format!(
        "{}\nbalance = 'round_robin'",
        list(&[dead.addr, endpoint.addr()])
    );
    let proxy = Proxy::start(&config(&upstream));
    for _ in 0..12 {
        let (mut client, mut server) = endpoint.join(&proxy);
        client.talks_to(&mut server);
    }
    eventually("it is ejected", || ejected(&proxy, dead.addr) == 1.0);
    assert_eq!(ejected(&proxy, endpoint.addr()), 0.0);
}

/// What a client says may be a reason to hang up on it: that ejects nobody, so these say nothing.
#[test]
fn an_endpoint_that_resets_at_once_is_ejected() {
    let (sick, thread) = resetting();
    let endpoint = Endpoint::new();
    let upstream = format!(
        "{}\nbalance = 'first'\nsend_proxy_protocol = 'v1'\n\
         outlier = {{ eject_for = '1h', max_eject = '1h' }}",
        list(&[sick, endpoint.addr()])
    );
    let proxy = Proxy::start(&config(&upstream));
    for _ in 0..5 {
        End::connect_to_be_reset(proxy.addr());
    }
    thread.join().unwrap();
    eventually("it is ejected", || ejected(&proxy, sick) == 1.0);
    for _ in 0..5 {
        let (mut client, mut server) = endpoint.join(&proxy);
        assert!(matches!(server.next(), Came::Bytes(_)));
        client.talks_to(&mut server);
    }
    // Each is counted when its client has been told already.
    eventually("their reason", || refusals(&proxy, "endpoint_reset") == 5.0);
}

#[test]
fn a_breaker_opens_and_nobody_is_asked() {
    let (sick, thread) = resetting();
    let upstream = format!(
        "{}\noutlier = 'off'\nsend_proxy_protocol = 'v1'\n\
         breaker = {{ failure_ratio = '50%', min_requests = 5, window = '1h', open_for = '10m' }}",
        list(&[sick])
    );
    let proxy = Proxy::start(&config(&upstream));
    for _ in 0..5 {
        End::connect_to_be_reset(proxy.addr());
    }
    thread.join().unwrap();
    let open = "isobar_upstream_breaker_opened_total{upstream=\"app\"}";
    eventually("it is open", || proxy.metric(open) == 1.0);
    End::connect_to_be_reset(proxy.addr());
    eventually("its reason", || refusals(&proxy, "breaker") == 1.0);
    // Each is counted when its client has been told already.
    eventually("their reason", || refusals(&proxy, "endpoint_reset") == 5.0);
}

/// Connections that stay were told of when they ended, those that failed at once: a few of them stood alone.
#[test]
fn connections_that_stay_count_for_their_endpoint() {
    let endpoint = Endpoint::new();
    let upstream = format!(
        "{}\noutlier = {{ failure_ratio = {{ above = '60%', min_requests = 5, window = '1h' }} }}\n\
         send_proxy_protocol = 'v1'\n\
         breaker = {{ failure_ratio = '60%', min_requests = 5, window = '1h', open_for = '10m' }}",
        list(&[endpoint.addr()])
    );
    let proxy = Proxy::start(&config(&upstream));
    let mut stay = Vec::new();
    for is_good in [
        true, true, true, true, true, true, false, false, false, true, false, false,
    ] {
        let (mut client, mut server) = endpoint.join(&proxy);
        // What says who the client is shows that the proxy has seen the connection made.
        assert!(matches!(server.next(), Came::Bytes(_)));
        if is_good {
            client.talks_to(&mut server);
            stay.push((client, server));
        } else {
            server.reset();
            assert_eq!(client.next(), Came::Reset);
        }
    }
    eventually("their reason", || refusals(&proxy, "endpoint_reset") == 5.0);
    let opened = "isobar_upstream_breaker_opened_total{upstream=\"app\"}";
    assert_eq!(proxy.metric(opened), 0.0);
    assert_eq!(ejected(&proxy, endpoint.addr()), 0.0);
    for (client, server) in &mut stay {
        client.talks_to(server);
    }
}

#[test]
fn a_wait_in_line_has_its_time() {
    let endpoint = Endpoint::new();
    let upstream = format!(
        "{}\nmax_connections = 1\nqueue = {{ length = 4, timeout = '300ms' }}",
        list(&[endpoint.addr()])
    );
    let proxy = Proxy::start(&config(&upstream));
    let (mut client, mut server) = endpoint.join(&proxy);
    client.talks_to(&mut server);
    let mut late = End::connect(proxy.addr());
    late.send("said while it waits");
    assert_eq!(late.next(), Came::Reset);
    eventually("its reason", || refusals(&proxy, "queue_timeout") == 1.0);
    client.talks_to(&mut server);
    assert!(endpoint.is_quiet());
}

/// A new endpoint of an old upstream begins with little.
#[test]
fn a_slow_start_spares_who_is_new() {
    let endpoints = [(); 2].map(|()| Endpoint::new());
    let [old, new] = [&endpoints[0], &endpoints[1]].map(Endpoint::addr);
    let more = "balance = 'round_robin'\nslow_start = '1h'";
    let proxy = Proxy::start(&config(&format!("{}\n{more}", list(&[old]))));
    assert_eq!(shares(&proxy, &endpoints, 4), [4, 0]);
    proxy.reload(&config(&format!("{}\n{more}", list(&[old, new]))));
    let shares = shares(&proxy, &endpoints, 60);
    // A tenth of its share at most, which were three: sixteen have a chance of 1 in 10^7.
    assert!(shares[1] < 16, "{shares:?}");
}

#[test]
fn a_backup_is_asked_when_the_others_are_down_and_what_is_there_stays() {
    let (main, backup) = (Endpoint::new(), Endpoint::new());
    let upstream = format!(
        "endpoints = [{{ address = '{}' }}, {{ address = '{}', backup = true }}]",
        main.addr(),
        backup.addr(),
    );
    let proxy = Proxy::start(&config(&upstream));
    let (mut client, mut server) = main.join(&proxy);
    client.talks_to(&mut server);
    assert!(backup.is_quiet());
    proxy.change(main.addr(), Verb::Drain);
    let (mut next, mut its) = backup.join(&proxy);
    next.talks_to(&mut its);
    client.talks_to(&mut server);
    assert!(main.is_quiet());
}

/// Nobody can be given a cookie here: it is no reason not to serve.
#[test]
fn an_upstream_with_a_cookie_serves_connections_too() {
    let endpoint = Endpoint::new();
    let upstream = format!(
        "{}\nsticky = {{ cookie = 'isobar' }}",
        list(&[endpoint.addr()])
    );
    let proxy = Proxy::start(&config(&upstream));
    let (mut client, mut server) = endpoint.join(&proxy);
    client.talks_to(&mut server);
}
