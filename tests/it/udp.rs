//! Datagrams through the proxy: who gets them, how flows begin and end, what reloads and failures do.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, UdpSocket};

use rustix::process::Signal;

use crate::support::binary::{Binary, free_port};
use crate::support::eventually::eventually;
use crate::support::proxy::Proxy;
use crate::support::udp::{UdpClient, UdpOrigin};

fn quoted(endpoints: &[SocketAddr]) -> String {
    let quoted = endpoints.iter().map(|e| format!("\"{e}\""));
    quoted.collect::<Vec<_>>().join(", ")
}

/// A listener `web` of UDP over these endpoints; `listener` and `upstream` are further lines of each.
fn config(workers: usize, endpoints: &[SocketAddr], listener: &str, upstream: &str) -> String {
    format!(
        "[process]\nworkers = {workers}\ngrace = \"100ms\"\n[admin]\nbind = \"127.0.0.1:0\"\n\
         [listeners.web]\nprotocol = \"udp\"\nbind = \"127.0.0.1:0\"\nupstream = \"app\"\n{listener}\n\
         [upstreams.app]\nendpoints = [{}]\n{upstream}\n",
        quoted(endpoints)
    )
}

fn start(endpoints: &[SocketAddr], listener: &str, upstream: &str) -> Proxy {
    Proxy::start(&config(1, endpoints, listener, upstream))
}

fn flows(proxy: &Proxy) -> f64 {
    proxy.metric("isobar_udp_flows{listener=\"web\"}")
}

fn ended(proxy: &Proxy, reason: &str) -> f64 {
    let series = format!("isobar_udp_flow_ends_total{{listener=\"web\",reason=\"{reason}\"}}");
    proxy.metric(&series)
}

fn dropped(proxy: &Proxy, reason: &str) -> f64 {
    let series =
        format!("isobar_udp_dropped_datagrams_total{{listener=\"web\",reason=\"{reason}\"}}");
    proxy.metric(&series)
}

const ROUND_ROBIN: &str = "balance = \"round_robin\"";

/// A port that refuses. Its socket lives as long as the process, so nobody else gets the port.
fn refusing() -> SocketAddr {
    // Connected to itself, it hears nobody else, and the kernel answers others with "port unreachable".
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    socket.connect(addr).unwrap();
    std::mem::forget(socket);
    addr
}

#[test]
fn many_clients_get_their_own_answers() {
    let origins = [UdpOrigin::named("a"), UdpOrigin::named("b")];
    let addrs = [origins[0].addr(), origins[1].addr()];
    let proxy = Proxy::start(&config(2, &addrs, "", ROUND_ROBIN));
    let clients = UdpClient::many(100, proxy.addr());
    let mut served: HashMap<String, usize> = HashMap::new();
    for round in 0..5 {
        for (i, client) in clients.iter().enumerate() {
            client.send(format!("{i} {round}"));
        }
        for (i, client) in clients.iter().enumerate() {
            let answer = client.receive();
            let (name, text) = answer.split_once(':').unwrap();
            assert_eq!(text, format!("{i} {round}"));
            *served.entry(format!("{name} {i}")).or_default() += 1;
        }
    }
    // A flow stays where it began, and every one has a port of its own there.
    assert_eq!(served.len(), 100);
    assert!(served.values().all(|n| *n == 5));
    assert_eq!(origins[0].senders().len(), 50);
    assert_eq!(origins[1].senders().len(), 50);
    assert_eq!(flows(&proxy), 100.0);
    assert_eq!(
        proxy.metric("isobar_udp_received_datagrams_total{listener=\"web\"}"),
        500.0
    );
    eventually("500 answers counted", || {
        proxy.metric("isobar_udp_sent_datagrams_total{listener=\"web\"}") == 500.0
    });
}

#[test]
fn a_hash_policy_keeps_a_client_with_its_endpoint() {
    let origins: Vec<_> = ["a", "b", "c", "d"].map(UdpOrigin::named).into();
    let addrs: Vec<_> = origins.iter().map(UdpOrigin::addr).collect();
    for policy in ["maglev", "ring_hash"] {
        let balance = format!("balance = {{ policy = \"{policy}\", key = \"client\" }}");
        let proxy = start(&addrs, "", &balance);
        let mut names: HashSet<String> = HashSet::new();
        for host in 1..=20 {
            let own = SocketAddr::new(format!("127.0.0.{host}").parse().unwrap(), 0);
            let of_host: Vec<String> = (0..5)
                .map(|_| UdpClient::at(own, proxy.addr()).ask("x"))
                .collect();
            assert!(
                of_host.iter().all(|name| *name == of_host[0]),
                "{of_host:?}"
            );
            names.insert(of_host[0].clone());
        }
        assert!(names.len() > 1, "all clients at one endpoint");
    }
}

#[test]
fn weights_share_flows() {
    let origins = [UdpOrigin::named("a"), UdpOrigin::named("b")];
    let proxy = Proxy::start(&format!(
        "[process]\nworkers = 1\ngrace = \"100ms\"\n[admin]\nbind = \"127.0.0.1:0\"\n\
         [listeners.web]\nprotocol = \"udp\"\nbind = \"127.0.0.1:0\"\nupstream = \"app\"\n\
         [upstreams.app]\nbalance = \"weighted\"\n\
         endpoints = [{{ address = \"{}\", weight = 3 }}, {{ address = \"{}\", weight = 1 }}]\n",
        origins[0].addr(),
        origins[1].addr()
    ));
    for client in &UdpClient::many(40, proxy.addr()) {
        client.ask("x");
    }
    assert_eq!(origins[0].senders().len(), 30);
    assert_eq!(origins[1].senders().len(), 10);
}

#[test]
fn answers_that_are_due_end_a_flow() {
    let origin = UdpOrigin::start(|data| {
        let n = if data == b"twice" { 2 } else { 1 };
        vec![data.to_vec(); n]
    });
    let proxy = start(&[origin.addr()], "responses = 1", "");
    let client = UdpClient::new(proxy.addr());
    assert_eq!(client.ask("x"), "x");
    eventually("the end of the flow", || ended(&proxy, "responses") == 1.0);
    assert_eq!(flows(&proxy), 0.0);
    // Two questions from one port, as resolvers ask for A and AAAA, are two answers.
    client.send("a");
    client.send("b");
    let mut answers = [client.receive(), client.receive()];
    answers.sort_unstable();
    assert_eq!(answers, ["a", "b"]);
    eventually("the end of the flow", || flows(&proxy) == 0.0);
    // What comes after is nobody's.
    assert_eq!(client.ask("twice"), "twice");
    assert_eq!(client.ask("x"), "x");
}

#[test]
fn a_quiet_flow_ends() {
    let origin = UdpOrigin::named("a");
    let proxy = start(&[origin.addr()], "idle_timeout = \"200ms\"", "");
    let client = UdpClient::new(proxy.addr());
    // On a busy machine an answer may come later than that.
    assert_eq!(client.ask_until_answered("x"), "a:x");
    eventually("the end of the flow", || {
        ended(&proxy, "idle") >= 1.0 && flows(&proxy) == 0.0
    });
    let next = UdpClient::new(proxy.addr());
    assert_eq!(next.ask_until_answered("y"), "a:y");
    let ok = "isobar_listener_flows_total{listener=\"web\",outcome=\"ok\"}";
    eventually("both flows to be recorded", || proxy.metric(ok) >= 2.0);
}

#[test]
fn silence_where_answers_are_due_is_told() {
    let origin = UdpOrigin::start(|_| Vec::new());
    let proxy = start(
        &[origin.addr()],
        "idle_timeout = \"100ms\"\nresponses = 1",
        "",
    );
    UdpClient::new(proxy.addr()).send("x");
    let failed = "isobar_listener_flows_total{listener=\"web\",outcome=\"failed\"}";
    eventually("the end of the flow", || proxy.metric(failed) == 1.0);
    let series = "isobar_listener_refusals_total{listener=\"web\",reason=\"endpoint_idle\"}";
    assert_eq!(proxy.metric(series), 1.0);
}

#[test]
fn a_flow_leaves_an_endpoint_whose_port_is_unreachable() {
    let origin = UdpOrigin::named("b");
    let dead = refusing();
    let proxy = start(&[dead, origin.addr()], "", ROUND_ROBIN);
    for client in &UdpClient::many(4, proxy.addr()) {
        assert_eq!(client.ask_until_answered("x"), "b:x");
    }
    let series = "isobar_upstream_connect_failures_total{upstream=\"app\",reason=\"refused\"}";
    assert!(proxy.metric(series) > 0.0, "{series}");
    assert_eq!(flows(&proxy), 4.0);
}

#[test]
fn an_endpoint_that_nobody_reaches_is_ejected_like_any_other() {
    let origin = UdpOrigin::named("b");
    let dead = refusing();
    let proxy = start(&[dead, origin.addr()], "", ROUND_ROBIN);
    let ejected = format!("isobar_endpoint_ejected{{upstream=\"app\",endpoint=\"{dead}\"}}");
    eventually("the ejection", || {
        UdpClient::new(proxy.addr()).send("x");
        proxy.metric(&ejected) == 1.0
    });
    for _ in 0..10 {
        assert_eq!(UdpClient::new(proxy.addr()).ask("x"), "b:x");
    }
}

#[test]
fn a_flow_whose_endpoint_was_taken_out_goes_to_another() {
    use isobar::upstream::overrides::Verb;
    let origins = [UdpOrigin::named("a"), UdpOrigin::named("b")];
    let proxy = start(&[origins[0].addr(), origins[1].addr()], "", ROUND_ROBIN);
    let client = UdpClient::new(proxy.addr());
    let first = client.ask("x");
    let (gone, other) = if first == "a:x" { (0, "b") } else { (1, "a") };
    proxy.change(origins[gone].addr(), Verb::Disable);
    assert_eq!(client.ask("x"), format!("{other}:x"));
    assert_eq!(flows(&proxy), 1.0, "the same flow");
}

#[test]
fn a_flood_of_sources_stays_within_its_bounds() {
    let origin = UdpOrigin::start(|data| {
        let is_flood = data == b"flood";
        if is_flood {
            Vec::new()
        } else {
            vec![data.to_vec()]
        }
    });
    let limits = "max_flows = 50\nmax_flows_per_client = 1000";
    let proxy = start(&[origin.addr()], limits, "");
    let chatty = UdpClient::new(proxy.addr());
    chatty.ask("x");
    chatty.ask("x");
    for n in 0..300u16 {
        // Addresses of their own: a port that has gone may come again.
        let forged = SocketAddr::from(([127, 0, 1 + (n / 250) as u8, (n % 250) as u8], 0));
        UdpClient::at(forged, proxy.addr()).send("flood");
        if n % 100 == 0 {
            chatty.ask("x");
        }
    }
    eventually("all of the flood", || ended(&proxy, "limit") == 251.0);
    assert_eq!(flows(&proxy), 50.0);
    chatty.ask("x");
    let of_chatty = origin.seen().into_iter().filter(|(_, data)| data == b"x");
    let mut ports: Vec<_> = of_chatty.map(|(from, _)| from).collect();
    ports.dedup();
    assert_eq!(ports.len(), 1, "its flow has outlived the flood");
    let gauge = "isobar_listener_refusals_total{listener=\"web\",reason=\"flows_limit\"}";
    assert_eq!(proxy.metric(gauge), 251.0);
}

#[test]
fn one_client_has_its_share_of_flows_and_no_more() {
    let origin = UdpOrigin::named("a");
    let proxy = start(&[origin.addr()], "max_flows_per_client = 10", "");
    let other = UdpClient::at("127.0.0.2:0".parse().unwrap(), proxy.addr());
    other.ask("x");
    for client in &UdpClient::many(30, proxy.addr()) {
        client.ask("x");
    }
    eventually("20 to go", || ended(&proxy, "client_limit") == 20.0);
    assert_eq!(flows(&proxy), 11.0);
    other.ask("x");
    let seen = origin.seen();
    assert_eq!(seen.len(), 32);
    assert_eq!(seen[0].0, seen[31].0, "the same flow");
}

#[test]
fn rates_limit_new_flows_and_leave_old_ones_alone() {
    let origin = UdpOrigin::named("a");
    let limit = "rate_limit = { key = \"client\", rate = 1, per = \"1h\", burst = 2 }";
    let proxy = start(&[origin.addr()], limit, "");
    let clients = UdpClient::many(3, proxy.addr());
    for _ in 0..3 {
        assert_eq!(clients[0].ask("x"), "a:x");
        assert_eq!(clients[1].ask("x"), "a:x");
    }
    clients[2].send("x");
    eventually("the refusal", || dropped(&proxy, "flow_refused") == 1.0);
    let series = "isobar_listener_refusals_total{listener=\"web\",reason=\"rate_limit\"}";
    assert_eq!(proxy.metric(series), 1.0);
    assert_eq!(clients[0].ask("x"), "a:x");
    let other = UdpClient::at("127.0.0.2:0".parse().unwrap(), proxy.addr());
    assert_eq!(other.ask("x"), "a:x");
}

#[test]
fn an_endpoint_has_no_more_flows_than_connections() {
    let origin = UdpOrigin::named("a");
    let proxy = start(
        &[origin.addr()],
        "idle_timeout = \"200ms\"",
        "max_connections = 1",
    );
    let first = UdpClient::new(proxy.addr());
    first.ask_until_answered("x");
    let second = UdpClient::new(proxy.addr());
    // The second has its turn when the first is over, and not before.
    assert_eq!(second.ask_until_answered("y"), "a:y");
    assert!(ended(&proxy, "idle") >= 1.0);
}

#[test]
fn the_longest_datagram_passes_whole_both_ways() {
    let origin = UdpOrigin::start(|data| vec![data.to_vec()]);
    let proxy = start(&[origin.addr()], "", "");
    let client = UdpClient::new(proxy.addr());
    for length in [65_507, 0, 1, 1472, 1473, 30_000] {
        let data: Vec<u8> = (0..length).map(|i: u32| (i % 251) as u8).collect();
        client.send(&data);
        assert!(client.receive_from().0 == data, "{length} bytes");
    }
}

#[test]
fn many_answers_to_one_datagram_all_arrive() {
    let origin = UdpOrigin::start(|_| (0..40u8).map(|n| vec![n; 1000]).collect());
    let proxy = start(&[origin.addr()], "", "");
    let client = UdpClient::new(proxy.addr());
    client.send("x");
    // Fewer than what a socket's buffer holds: nothing slows an endpoint down.
    for n in 0..40 {
        assert_eq!(client.receive_from().0, [n; 1000]);
    }
}

#[test]
fn answers_come_from_the_address_that_was_asked() {
    let origin = UdpOrigin::named("a");
    let toml = config(2, &[origin.addr()], "", "");
    for bind in ["0.0.0.0:0", ":0"] {
        let proxy = Proxy::start(&toml.replacen(
            "bind = \"127.0.0.1:0\"\nupstream",
            &format!("bind = \"{bind}\"\nupstream"),
            1,
        ));
        let port = proxy.addr().port();
        for ip in ["127.0.0.1", "127.0.0.2", "127.9.9.9"] {
            let asked = SocketAddr::new(ip.parse().unwrap(), port);
            let client = UdpClient::new(asked);
            client.send("x");
            assert_eq!(client.receive_from(), (b"a:x".to_vec(), asked));
        }
    }
}

#[test]
fn ipv6_is_served_on_both_sides() {
    let Ok(probe) = UdpSocket::bind("[::1]:0") else {
        return;
    };
    drop(probe);
    let origin = UdpOrigin::at("[::1]:0".parse().unwrap(), |data| vec![data.to_vec()]);
    for bind in ["[::1]:0", "[::]:0", ":0"] {
        let toml = config(1, &[origin.addr()], "", "");
        let proxy = Proxy::start(&toml.replacen(
            "bind = \"127.0.0.1:0\"\nupstream",
            &format!("bind = \"{bind}\"\nupstream"),
            1,
        ));
        let asked = SocketAddr::new("::1".parse().unwrap(), proxy.addr().port());
        let client = UdpClient::new(asked);
        client.send("x");
        let (data, from) = client.receive_from();
        assert_eq!(
            (&data[..], from.ip(), from.port()),
            (&b"x"[..], asked.ip(), asked.port())
        );
    }
}

#[test]
fn a_reload_keeps_flows_and_serves_new_ones_anew() {
    let origins = [UdpOrigin::named("a"), UdpOrigin::named("b")];
    let before = config(1, &[origins[0].addr()], "", ROUND_ROBIN);
    let proxy = Proxy::start(&before);
    let client = UdpClient::new(proxy.addr());
    assert_eq!(client.ask("x"), "a:x");
    proxy.reload(&config(
        1,
        &[origins[0].addr(), origins[1].addr()],
        "",
        ROUND_ROBIN,
    ));
    for _ in 0..4 {
        assert_eq!(client.ask("x"), "a:x");
    }
    let others = UdpClient::many(4, proxy.addr());
    let mut names: Vec<String> = others.iter().map(|other| other.ask("x")).collect();
    names.sort_unstable();
    assert_eq!(names, ["a:x", "a:x", "b:x", "b:x"]);
    // Its endpoint is removed: with its next datagram it goes to another one.
    proxy.reload(&config(1, &[origins[1].addr()], "", ROUND_ROBIN));
    assert_eq!(client.ask("x"), "b:x");
    assert_eq!(flows(&proxy), 5.0);
}

/// One that only listens does not keep an endpoint that was removed: it had its time to drain.
#[test]
fn a_flow_that_only_its_endpoint_feeds_ends_with_the_grace_of_that_one() {
    let (feed, other) = (
        UdpSocket::bind("127.0.0.1:0").unwrap(),
        UdpOrigin::named("b"),
    );
    let addr = feed.local_addr().unwrap();
    let proxy = start(&[addr], "", "");
    let client = UdpClient::new(proxy.addr());
    client.send("subscribe");
    let (_, from) = feed.recv_from(&mut [0; 99]).unwrap();
    feed.connect(from).unwrap();
    feed.send(b"first").unwrap();
    assert_eq!(client.receive(), "first");
    proxy.reload(&config(1, &[other.addr()], "", ""));
    // Once its socket is closed the kernel says that nobody is there.
    eventually("it to be left", || feed.send(b"more").is_err());
    assert_eq!(UdpClient::new(proxy.addr()).ask("x"), "b:x");
}

/// An address that a reload removes is closed, and can be had again at once, even while flows of before
/// still drain.
#[test]
fn an_address_that_comes_back_is_served() {
    let origin = UdpOrigin::named("a");
    let more =
        "[listeners.other]\nprotocol = \"udp\"\nbind = \"127.0.0.1:0\"\nupstream = \"app\"\n";
    let with = |listener: &str| format!("{}{listener}", config(1, &[origin.addr()], "", ""));
    let proxy = Proxy::start(&with(more));
    let port = proxy.listener("other").port();
    let client = UdpClient::new(proxy.listener("other"));
    client.ask("x");
    proxy.reload(&with(""));
    // A flow of before is still served.
    assert_eq!(client.ask("x"), "a:x");
    let again = more.replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    proxy.reload(&with(&again));
    assert_eq!(client.ask_until_answered("x"), "a:x");
    assert_eq!(
        UdpClient::new(proxy.listener("other")).ask_until_answered("y"),
        "a:y"
    );
}

#[test]
fn a_drain_lets_flows_go_on() {
    let origin = UdpOrigin::named("a");
    let port = free_port();
    let mut isobar = Binary::start(&format!(
        "[process]\nworkers = 1\ngrace = \"20s\"\n\
         [listeners.dns]\nprotocol = \"udp\"\nbind = \"127.0.0.1:{port}\"\nupstream = \"app\"\n\
         idle_timeout = \"1m\"\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n",
        origin.addr()
    ));
    let proxy = SocketAddr::from(([127, 0, 0, 1], port));
    let client = UdpClient::new(proxy);
    assert_eq!(client.ask_until_answered("x"), "a:x");
    isobar.signal(Signal::TERM);
    isobar.await_line("drain");
    for _ in 0..10 {
        // The same again: the first may have been answered twice.
        assert_eq!(client.ask("x"), "a:x");
    }
    assert_eq!(origin.senders().len(), 1);
    // A second signal ends what is left.
    isobar.signal(Signal::TERM);
    isobar.wait();
}

/// A client that asks one question after the other while the program is replaced twice has an answer to
/// each, and asks none twice.
#[test]
fn an_upgrade_loses_no_datagram() {
    let origin = UdpOrigin::named("a");
    let port = free_port();
    let isobar = Binary::start(&format!(
        "[process]\nworkers = 2\ngrace = \"20s\"\n\
         [listeners.dns]\nprotocol = \"udp\"\nbind = [\"127.0.0.1:{port}\", \"127.0.0.2:{port}\"]\n\
         upstream = \"app\"\nidle_timeout = \"20s\"\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n",
        origin.addr()
    ));
    let proxy = SocketAddr::from(([127, 0, 0, 1], port));
    let clients = UdpClient::many(4, proxy);
    // One that is asked again may be answered twice: not one of those.
    assert_eq!(UdpClient::new(proxy).ask_until_answered("x"), "a:x");
    isobar.signal(Signal::USR2);
    let mut n = 0;
    let mut after = 0;
    // Questions before, during and well after the upgrade.
    while after < 200 {
        n += 1;
        let client = &clients[n % 4];
        assert_eq!(client.ask(&n.to_string()), format!("a:{n}"));
        let serves = isobar.output().contains("successor serves");
        after += usize::from(serves);
    }
    assert_eq!(UdpClient::new(proxy).ask("z"), "a:z");
    let other = SocketAddr::from(([127, 0, 0, 2], port));
    assert_eq!(UdpClient::new(other).ask("z"), "a:z");
    // Binary kills the first only: the successor is asked to go.
    let line = isobar.await_line("successor serves");
    let pid = line
        .split("pid=")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let pid = rustix::process::Pid::from_raw(pid.unwrap().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}

#[test]
fn endpoints_are_told_of_the_client_with_every_datagram() {
    let origin = UdpOrigin::start(|data| {
        let is_mute = data.ends_with(b"mute");
        if is_mute {
            Vec::new()
        } else {
            vec![b"ok".to_vec()]
        }
    });
    let proxy = start(&[origin.addr()], "", "send_proxy_protocol = \"v2\"");
    let client = UdpClient::new(proxy.addr());
    client.send("mute");
    assert_eq!(client.ask("first"), "ok");
    assert_eq!(client.ask("second"), "ok");
    let seen = origin.seen();
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    let from = client.socket.local_addr().unwrap();
    for (n, end) in [(0, &b"mute"[..]), (1, b"first"), (2, b"second")] {
        let data = &seen[n].1;
        assert!(
            data.starts_with(signature) && data.ends_with(end),
            "{data:?}"
        );
        // PROXY, IPv4 and datagrams; the client's address and port, then ours.
        assert_eq!(data[12..14], [0x21, 0x12]);
        assert_eq!(data[16..24], [127, 0, 0, 1, 127, 0, 0, 1]);
        assert_eq!(data[24..26], from.port().to_be_bytes());
        assert_eq!(data[26..28], proxy.addr().port().to_be_bytes());
    }
    assert_eq!(seen.len(), 3);
}

#[test]
fn clients_are_told_of_by_those_who_may_and_nobody_else() {
    let origin = UdpOrigin::named("a");
    let backend = "send_proxy_protocol = \"v2\"";
    let inner = "proxy_protocol = { from = [\"127.0.0.1/32\"] }";
    let proxy = start(&[origin.addr()], inner, "");
    // A proxy in front, which tells.
    let front = start(&[proxy.addr()], "", backend);
    let client = UdpClient::new(front.addr());
    assert_eq!(client.ask("x"), "a:x");
    assert_eq!(client.ask("y"), "a:y");
    // A datagram that tells of nobody, and one of somebody who may not.
    UdpClient::new(proxy.addr()).send("x");
    eventually("the first refusal", || {
        dropped(&proxy, "proxy_protocol") == 1.0
    });
    UdpClient::at("127.0.0.2:0".parse().unwrap(), proxy.addr()).send("x");
    eventually("the second", || dropped(&proxy, "proxy_protocol") == 2.0);
    assert_eq!(origin.seen().len(), 2);
}

/// What the proxy in front has told of a datagram is told on; what a client sends that looks like a header
/// stays what it is.
#[test]
fn what_a_proxy_in_front_tells_is_told_on() {
    let origin = UdpOrigin::start(|_| vec![b"ok".to_vec()]);
    let proxy = start(
        &[origin.addr()],
        "proxy_protocol = { from = [\"127.0.0.1/32\"] }",
        "send_proxy_protocol = \"v2\"",
    );
    let front = UdpClient::new(proxy.addr());
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    // Addresses, ports and a TLV of the name that was asked for.
    let told = |host: u8| {
        let addresses = [192, 0, 2, host, 198, 51, 100, 7, 0x10, 0x92, 0, 53];
        [&addresses[..], &[2, 0, 4], b"name"].concat()
    };
    let header = |host: u8| [signature, &[0x21, 0x12, 0, 19][..], &told(host)].concat();
    // Two clients of one sender, the second of whom begins like a header.
    front.send([&header(1)[..], b"first"].concat());
    assert_eq!(front.receive(), "ok");
    front.send([&header(2)[..], &header(3), b"second"].concat());
    assert_eq!(front.receive(), "ok");
    let seen = origin.seen();
    let ends = [b"first".to_vec(), [&header(3)[..], b"second"].concat()];
    for (host, end) in [1, 2].into_iter().zip(ends) {
        let data = &seen[usize::from(host) - 1].1;
        // Ours adds a checksum.
        assert_eq!(data[..16], [signature, &[0x21, 0x12, 0, 26][..]].concat());
        assert_eq!(data[16..35], told(host));
        assert_eq!(data[42..], end);
    }
    assert_eq!(flows(&proxy), 1.0);
}

/// A packet of QUIC with a long header.
fn long(destination: &[u8], source: &[u8]) -> Vec<u8> {
    let mut packet = vec![0xc3, 0, 0, 0, 1, destination.len() as u8];
    packet.extend(destination);
    packet.push(source.len() as u8);
    packet.extend(source);
    packet
}

#[test]
fn a_quic_client_that_moves_keeps_its_endpoint_by_its_connection_id() {
    // Each chooses the id that its client uses from then on.
    let origin = |name: &'static [u8; 8]| {
        UdpOrigin::start(move |data| {
            if data[0] & 0x80 != 0 {
                vec![long(b"client", name)]
            } else {
                vec![[b"@", &name[..]].concat()]
            }
        })
    };
    let origins = [origin(b"server-a"), origin(b"server-b")];
    let addrs = [origins[0].addr(), origins[1].addr()];
    let proxy = start(&addrs, "flow = \"quic\"", ROUND_ROBIN);
    let short = |id: &[u8]| [&[0x41], id, b"data"].concat();
    let mut ids = Vec::new();
    let clients = UdpClient::many(2 * 7 + 1, proxy.addr());
    let mut rounds = clients.chunks_exact(7);
    for (n, clients) in (0u8..).zip(rounds.by_ref()) {
        let (client, moved) = clients.split_first().unwrap();
        client.send(long(&[n; 12], b"client"));
        let answer = client.receive_from().0;
        let id = answer[answer.len() - 8..].to_vec();
        client.send(short(&id));
        assert_eq!(client.receive_from().0, [b"@", &id[..]].concat());
        // From other addresses, with the id that the endpoint has chosen.
        for moved in &moved[..5] {
            moved.send(short(&id));
            assert_eq!(moved.receive_from().0, [b"@", &id[..]].concat());
        }
        // An id that the endpoint gave out in secret, from an address that is known.
        client.send(short(&id));
        client.receive_from();
        client.send(short(&[b'n', n, 0, 0, 0, 0, 0, 0]));
        assert_eq!(client.receive_from().0, [b"@", &id[..]].concat());
        moved[5].send(short(&[b'n', n, 0, 0, 0, 0, 0, 0]));
        assert_eq!(moved[5].receive_from().0, [b"@", &id[..]].concat());
        ids.push(id);
    }
    assert_ne!(ids[0], ids[1], "one flow at each endpoint");
    assert_eq!(flows(&proxy), 2.0);
    // Each place is another path, and the endpoint is to see that it is.
    assert!(origins.iter().all(|origin| origin.senders().len() > 1));
    // No QUIC at all goes by its address.
    let client = &rounds.remainder()[0];
    client.send("\u{1}plain");
    client.receive_from();
    assert_eq!(flows(&proxy), 3.0);
}

#[test]
fn a_flow_is_one_line_in_the_log() {
    let origin = UdpOrigin::named("a");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = format!(
        "[log.access]\nformat = \"json\"\nto = \"{}\"\n",
        path.display()
    );
    let toml = config(1, &[origin.addr()], "responses = 2", "");
    let proxy = Proxy::start(&format!("{toml}{log}"));
    let client = UdpClient::new(proxy.addr());
    client.ask("hello");
    assert_eq!(flows(&proxy), 1.0);
    client.ask("you");
    let port = client.socket.local_addr().unwrap().port();
    proxy.shutdown();
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("UDP")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    let line: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
    let text = line.to_string();
    for part in [
        "\"listener\":\"web\"".to_owned(),
        format!("{}", origin.addr()),
        format!("{port}"),
        "127.0.0.1".to_owned(),
    ] {
        assert!(text.contains(&part), "{part} in {text}");
    }
}
