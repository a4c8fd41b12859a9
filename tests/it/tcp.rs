//! Listeners of TCP: bytes, ends and resets pass as they are; who is chosen, and who is turned away.

use std::net::SocketAddr;

use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::origin::pattern;
use crate::support::proxy::Proxy;
use crate::support::tcp::{Came, End, Endpoint};
use crate::support::unreachable::Refusing;

/// One listener `web` over these endpoints; `listener` and `upstream` are further lines of theirs.
fn config(endpoints: &[SocketAddr], listener: &str, upstream: &str) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|e| format!("\"{e}\"")).collect();
    format!(
        "[process]\nworkers = 1\n\n[admin]\nbind = \"127.0.0.1:0\"\n\n\
         [listeners.web]\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\nupstream = \"app\"\n{listener}\n\n\
         [upstreams.app]\nbalance = \"round_robin\"\nendpoints = [{}]\n{upstream}\n",
        endpoints.join(", ")
    )
}

fn over(endpoints: &[&Endpoint]) -> Proxy {
    let endpoints: Vec<_> = endpoints.iter().map(|e| e.addr()).collect();
    Proxy::start(&config(&endpoints, "", ""))
}

#[test]
fn bytes_pass_both_ways_whoever_speaks_first() {
    let endpoint = Endpoint::new();
    let proxy = over(&[&endpoint]);
    let (mut client, mut server) = endpoint.join(&proxy);
    server.send("220 ready\r\n");
    assert_eq!(client.exactly(11), b"220 ready\r\n");
    for n in 0..20 {
        let word = format!("message {n}");
        client.send(&word);
        assert_eq!(server.exactly(word.len()), word.as_bytes());
        server.send(&word);
        assert_eq!(client.exactly(word.len()), word.as_bytes());
    }
}

#[test]
fn bulk_passes_whole_and_in_the_kernel() {
    let endpoint = Endpoint::new();
    let proxy = over(&[&endpoint]);
    let (mut client, mut server) = endpoint.join(&proxy);
    let sent = pattern(0, 8 << 20);
    let (up, down) = (sent.clone(), sent.clone());
    let writing = std::thread::spawn(move || {
        server.send(&down);
        server.end();
        (server.read_to_end() == up).then_some(()).unwrap();
    });
    let mut reader = End(client.0.try_clone().unwrap());
    let reading = std::thread::spawn(move || reader.read_to_end());
    client.send(&sent);
    client.end();
    assert!(reading.join().unwrap() == sent, "other bytes");
    writing.join().unwrap();
    let spliced = "isobar_relayed_bytes_total{way=\"splice\"}";
    eventually("spliced bytes", || proxy.metric(spliced) > 12e6);
}

#[test]
fn an_end_passes_as_the_end_of_its_direction_alone() {
    let endpoint = Endpoint::new();
    let proxy = over(&[&endpoint]);
    // The client's first.
    let (mut client, mut server) = endpoint.join(&proxy);
    client.send("all I have");
    client.end();
    assert_eq!(server.read_to_end(), b"all I have");
    for n in 0..3 {
        server.send(format!("answer {n}"));
        assert_eq!(client.exactly(8), format!("answer {n}").as_bytes());
    }
    server.end();
    assert_eq!(client.next(), Came::End);
    // The endpoint's first.
    let (mut client, mut server) = endpoint.join(&proxy);
    server.send("goodbye");
    server.end();
    assert_eq!(client.read_to_end(), b"goodbye");
    client.send("and thanks");
    client.end();
    assert_eq!(server.read_to_end(), b"and thanks");
}

#[test]
fn a_reset_passes_as_a_reset() {
    let endpoint = Endpoint::new();
    let proxy = over(&[&endpoint]);
    let (mut client, mut server) = endpoint.join(&proxy);
    client.talks_to(&mut server);
    client.reset();
    assert_eq!(server.next(), Came::Reset);
    let (mut client, mut server) = endpoint.join(&proxy);
    client.talks_to(&mut server);
    server.reset();
    assert_eq!(client.next(), Came::Reset);
    let flows = |outcome| {
        let name = "isobar_listener_flows_total";
        proxy.metric(&format!("{name}{{listener=\"web\",outcome=\"{outcome}\"}}"))
    };
    eventually("the client's", || flows("cancelled") == 1.0);
    eventually("the endpoint's", || flows("failed") == 1.0);
}

#[test]
fn a_connection_without_a_byte_ends_on_both_sides() {
    let endpoint = Endpoint::new();
    let proxy = over(&[&endpoint]);
    let (client, mut server) = endpoint.join(&proxy);
    drop(client);
    assert_eq!(server.next(), Came::End);
    drop(server);
    let ok = "isobar_listener_flows_total{listener=\"web\",outcome=\"ok\"}";
    eventually("its record", || proxy.metric(ok) == 1.0);
    eventually("no connection", || proxy.connections() == [0]);
}

#[test]
fn a_connect_that_fails_is_made_to_another_endpoint() {
    let dead = Refusing::new();
    let endpoint = Endpoint::new();
    let proxy = Proxy::start(&config(
        &[dead.addr, endpoint.addr()],
        "",
        "outlier = \"off\"",
    ));
    for _ in 0..6 {
        let (mut client, mut server) = endpoint.join(&proxy);
        client.talks_to(&mut server);
    }
    let retries = "isobar_upstream_retries_total{upstream=\"app\",reason=\"connect\"}";
    // The turn after the dead one is the next connection's again.
    assert_eq!(proxy.metric(retries), 6.0);
}

#[test]
fn who_finds_no_endpoint_is_reset() {
    let dead = Refusing::new();
    let proxy = Proxy::start(&config(&[dead.addr], "", "outlier = \"off\""));
    End::connect_to_be_reset(proxy.addr());
    let refused = "isobar_listener_refusals_total{listener=\"web\",reason=\"connect_refused\"}";
    eventually("its reason", || proxy.metric(refused) == 1.0);
}

#[test]
fn a_hash_policy_goes_by_the_clients_address() {
    let (a, b) = (Endpoint::new(), Endpoint::new());
    let policy = "balance = { policy = \"maglev\", key = \"client\" }";
    let config = config(&[a.addr(), b.addr()], "", policy);
    let proxy = Proxy::start(&config.replace("balance = \"round_robin\"\n", ""));
    let mut seen = [0, 0];
    for n in 1..=16 {
        let from = format!("127.0.1.{n}");
        let place = |client: &mut End| {
            client.send("?");
            let mut found = None;
            eventually("its endpoint", || {
                for (i, e) in [&a, &b].into_iter().enumerate() {
                    if !e.is_quiet() {
                        found = Some(i);
                    }
                }
                found.is_some()
            });
            found.unwrap()
        };
        let first = place(&mut End::connect_from(&from, proxy.addr()));
        for _ in 0..2 {
            assert_eq!(place(&mut End::connect_from(&from, proxy.addr())), first);
        }
        seen[first] += 1;
    }
    assert!(seen.iter().all(|n| *n > 0), "{seen:?}");
}

#[test]
fn silence_ends_a_connection_and_progress_keeps_it() {
    let endpoint = Endpoint::new();
    let listener = "idle_timeout = \"700ms\"";
    let proxy = Proxy::start(&config(&[endpoint.addr()], listener, ""));
    let (mut client, mut server) = endpoint.join(&proxy);
    let began = crate::support::now();
    while began.elapsed().as_millis() < 1500 {
        client.talks_to(&mut server);
    }
    assert_eq!(client.next(), Came::End);
    assert_eq!(server.next(), Came::End);
}

#[test]
fn half_closed_connections_have_a_time_of_their_own() {
    let endpoint = Endpoint::new();
    let listener = "half_close_timeout = \"300ms\"";
    let proxy = Proxy::start(&config(&[endpoint.addr()], listener, ""));
    let (mut client, mut server) = endpoint.join(&proxy);
    client.talks_to(&mut server);
    client.end();
    assert_eq!(server.next(), Came::End);
    // The endpoint never ends.
    assert_eq!(client.next(), Came::End);
    eventually("no connection", || proxy.connections() == [0]);
}

#[test]
fn a_listener_that_is_full_resets_at_once() {
    let endpoint = Endpoint::new();
    let proxy = Proxy::start(&config(&[endpoint.addr()], "max_connections = 1", ""));
    let (mut client, mut server) = endpoint.join(&proxy);
    client.talks_to(&mut server);
    End::connect_to_be_reset(proxy.addr());
    let refused = "isobar_listener_refusals_total{listener=\"web\",reason=\"connections_limit\"}";
    eventually("its reason", || proxy.metric(refused) == 1.0);
    client.talks_to(&mut server);
}

#[test]
fn a_full_endpoint_is_waited_for_in_line() {
    let endpoint = Endpoint::new();
    let upstream = "max_connections = 1\nqueue = { length = 1, timeout = \"20s\" }";
    let proxy = Proxy::start(&config(&[endpoint.addr()], "", upstream));
    let (mut first, mut server) = endpoint.join(&proxy);
    first.talks_to(&mut server);
    let mut second = End::connect(proxy.addr());
    second.send("over");
    let queued = "isobar_upstream_queue_length{upstream=\"app\"}";
    eventually("one in the line", || proxy.metric(queued) == 1.0);
    // No third one fits.
    End::connect_to_be_reset(proxy.addr());
    drop(first);
    drop(server);
    let mut server = endpoint.accept();
    assert_eq!(server.exactly(4), b"over");
    // One that leaves the line makes room in it.
    let fourth = End::connect(proxy.addr());
    eventually("one in the line", || proxy.metric(queued) == 1.0);
    drop(fourth);
    eventually("nobody in the line", || proxy.metric(queued) == 0.0);
    assert!(endpoint.is_quiet());
}

#[test]
fn rates_are_by_client() {
    let endpoint = Endpoint::new();
    let listener = "rate_limit = { key = \"client\", rate = 1, per = \"1h\", burst = 2 }";
    let proxy = Proxy::start(&config(&[endpoint.addr()], listener, ""));
    for _ in 0..2 {
        let mut client = End::connect_from("127.0.1.1", proxy.addr());
        client.talks_to(&mut endpoint.accept());
    }
    End::connect_from_to_be_reset("127.0.1.1", proxy.addr());
    let mut other = End::connect_from("127.0.1.2", proxy.addr());
    other.talks_to(&mut endpoint.accept());
    let refused = "isobar_listener_refusals_total{listener=\"web\",reason=\"rate_limit\"}";
    eventually("its reason", || proxy.metric(refused) == 1.0);
}

#[test]
fn connections_outlive_a_reload_and_a_removed_listener_for_its_grace() {
    let (a, b) = (Endpoint::new(), Endpoint::new());
    let listener = "grace = \"1h\"";
    let before =
        config(&[a.addr()], listener, "").replace("[process]", "[process]\ngrace = \"1s\"");
    let proxy = Proxy::start(&before);
    let (mut client, mut server) = a.join(&proxy);
    client.talks_to(&mut server);
    // Another endpoint: the connection stays where it is, new ones go there.
    proxy.reload(&before.replace(&a.addr().to_string(), &b.addr().to_string()));
    let (mut second, mut other) = b.join(&proxy);
    client.talks_to(&mut server);
    // The listener goes altogether.
    let web = Endpoint::new();
    let gone = Proxy::config_over(&[web.addr()], "").replace("listeners.web", "listeners.new");
    proxy.reload(&gone.replace("[process]", "[process]\ngrace = \"1s\""));
    let began = crate::support::now();
    while began.elapsed().as_millis() < 2500 {
        client.talks_to(&mut server);
        second.talks_to(&mut other);
    }
}

#[test]
fn what_has_had_its_grace_is_reset() {
    let endpoint = Endpoint::new();
    let config = config(&[endpoint.addr()], "grace = \"300ms\"", "");
    let proxy = Proxy::start(&config);
    let (mut client, mut server) = endpoint.join(&proxy);
    client.talks_to(&mut server);
    proxy.shutdown();
    assert_eq!(client.next(), Came::Reset);
    assert_eq!(server.next(), Came::Reset);
}

#[test]
fn an_endpoint_that_goes_down_closes_its_connections_if_told_so() {
    for (on_down, is_cut) in [("close", true), ("keep", false)] {
        let endpoint = Endpoint::new();
        let check = Endpoint::new();
        let upstream = format!(
            "on_down = \"{on_down}\"\nhealth = {{ check = \"tcp\", port = {}, interval = \"50ms\", fall = 1, rise = 1 }}",
            check.addr().port()
        );
        let proxy = Proxy::start(&config(&[endpoint.addr()], "", &upstream));
        let (mut client, mut server) = endpoint.join(&proxy);
        client.talks_to(&mut server);
        drop(check);
        let health = format!(
            "isobar_endpoint_healthy{{upstream=\"app\",endpoint=\"{}\"}}",
            endpoint.addr()
        );
        if is_cut {
            assert_eq!(client.next(), Came::Reset);
            assert_eq!(server.next(), Came::Reset);
        } else {
            eventually("down", || proxy.metric(&health) == 0.0);
            client.talks_to(&mut server);
        }
    }
}

#[test]
fn a_connection_has_a_line_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let endpoint = Endpoint::new();
    let log = format!(
        "[log]\naccess = {{ format = \"json\", to = \"{}\" }}\n\n",
        path.display()
    );
    let proxy = Proxy::start(&(log + &config(&[endpoint.addr()], "", "")));
    let (mut client, mut server) = endpoint.join(&proxy);
    client.talks_to(&mut server);
    client.send("more");
    assert_eq!(server.exactly(4), b"more");
    drop((client, server));
    eventually("a line", || {
        std::fs::read_to_string(&path).is_ok_and(|text| text.contains('\n'))
    });
    let line = std::fs::read_to_string(&path).unwrap();
    let line: serde_json::Value = serde_json::from_str(line.trim()).unwrap();
    assert_eq!(line["listener"], "web", "{line}");
    assert_eq!(line["protocol"], "TCP", "{line}");
    assert_eq!(line["upstream"], "app", "{line}");
    assert_eq!(line["endpoint"], endpoint.addr().to_string(), "{line}");
    assert_eq!(line["bytes_in"], 8, "{line}");
    assert_eq!(line["bytes_out"], 4, "{line}");
    assert_eq!(line["client"], "127.0.0.1", "{line}");
    // HTTP goes on beside it.
    assert!(
        Client::get(proxy.admin(), "/metrics")
            .text()
            .contains("isobar_listener_flows_total")
    );
}

#[test]
fn a_client_that_resets_while_its_endpoint_does_not_read_is_noticed() {
    let endpoint = Endpoint::new();
    let proxy = over(&[&endpoint]);
    let (client, mut server) = endpoint.join(&proxy);
    // Until nothing more is taken anywhere on the way.
    client.0.set_nonblocking(true).unwrap();
    let sent = std::cell::Cell::new(0);
    crate::support::eventually::stalled("bytes on their way", || {
        let chunk = [b'x'; 16 * 1024];
        while let Ok(n) = std::io::Write::write(&mut &client.0, &chunk) {
            sent.set(sent.get() + n);
        }
        sent.get()
    });
    client.reset();
    // The endpoint reads nothing, and its connection ends nevertheless.
    let cancelled = "isobar_listener_flows_total{listener=\"web\",outcome=\"cancelled\"}";
    eventually("its record", || proxy.metric(cancelled) == 1.0);
    let mut last = server.next();
    while let Came::Bytes(_) = last {
        last = server.next();
    }
    assert_eq!(last, Came::Reset);
}

#[test]
fn a_client_that_closes_before_its_answer_is_no_success() {
    let endpoint = Endpoint::new();
    let proxy = over(&[&endpoint]);
    let (mut client, mut server) = endpoint.join(&proxy);
    client.send("question");
    assert_eq!(server.exactly(8), b"question");
    drop(client);
    assert_eq!(server.next(), Came::End);
    // The first word is answered by a reset, a later one finds nobody.
    let cancelled = "isobar_listener_flows_total{listener=\"web\",outcome=\"cancelled\"}";
    eventually("its record", || {
        let _ = std::io::Write::write(&mut &server.0, b"more");
        proxy.metric(cancelled) == 1.0
    });
}

#[test]
fn clients_of_ipv4_are_told_apart_on_a_socket_of_both_stacks() {
    let endpoint = Endpoint::new();
    let listener = "rate_limit = { key = \"client\", rate = 1, per = \"1h\", burst = 1 }";
    let config = config(&[endpoint.addr()], listener, "");
    let bind = "[listeners.web]\nbind = \"";
    let proxy = Proxy::start(&config.replace(&format!("{bind}127.0.0.1:0"), &format!("{bind}:0")));
    let to = SocketAddr::from(([127, 0, 0, 1], proxy.addr().port()));
    for from in ["127.0.1.1", "127.0.1.2"] {
        let mut client = End::connect_from(from, to);
        client.talks_to(&mut endpoint.accept());
    }
    End::connect_from_to_be_reset("127.0.1.1", to);
}

#[test]
fn kept_connections_of_before_a_fall_are_not_used_again() {
    let endpoint = Endpoint::new();
    let check = Endpoint::new();
    let to = check.addr();
    let upstream = format!(
        "on_down = \"close\"\nwhen_unhealthy = \"fail_open\"\noutlier = \"off\"\n\
         health = {{ check = \"tcp\", port = {}, interval = \"50ms\", fall = 1, rise = 1 }}",
        to.port()
    );
    let proxy = Proxy::over(&[endpoint.addr()], &upstream);
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let ask = || {
        let mut client = Client::connect(proxy.addr());
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        let mut end = endpoint.accept();
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            seen.extend(end.exactly(1));
        }
        end.send(answer);
        assert_eq!(client.head().status(), 200);
        end
    };
    let metric = |name: &str| {
        let labels = format!("{{upstream=\"app\",endpoint=\"{}\"}}", endpoint.addr());
        proxy.metric(&format!("{name}{labels}"))
    };
    // One that is not answered shows when it happens.
    let mut held = Client::connect(proxy.addr());
    held.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    let silent = endpoint.accept();
    let kept = ask();
    eventually("kept", || metric("isobar_endpoint_idle_connections") == 1.0);
    drop(check);
    assert_eq!(held.head().status(), 503);
    drop(silent);
    // It fails open: a new connection is made, that of before is not lent.
    let _second = ask();
    drop(kept);
}
