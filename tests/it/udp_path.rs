//! Endpoints of datagrams to which the way is narrow, or to which there is none, in network namespaces.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::support::eventually::eventually;
use crate::support::namespaces::Namespaces;
use crate::support::proxy::Proxy;
use crate::support::udp::{UdpClient, UdpOrigin};

/// What passes the second half of the way, headers included; the first half has 1500. The least that IPv6 allows.
const NARROW: &str = "1280";

const HERE: usize = 0;
const ROUTER: usize = 1;
const THERE: usize = 2;

/// Ours, a router's, and behind it the endpoint's, to which the way is narrow.
fn in_a_row(test: &str) -> Option<Namespaces> {
    Namespaces::build(test, &["here", "router", "there"], wire)
}

fn wire(spaces: &Namespaces) -> Result<(), String> {
    let ip = |line: String| spaces.ip(&line.split_whitespace().collect::<Vec<_>>());
    let router = spaces.name(ROUTER);
    for (end, mtu) in [(HERE, "1500"), (THERE, NARROW)] {
        let of = spaces.name(end);
        ip(format!(
            "-n {router} link add to{end} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {of}"
        ))?;
        for (of, device, host) in [(router, format!("to{end}"), 1), (of, "eth0".into(), 2)] {
            ip(format!(
                "-n {of} addr add 10.98.{end}.{host}/24 dev {device}"
            ))?;
            // No time for the detection of duplicates.
            ip(format!(
                "-n {of} addr add fd00:98:{end}::{host}/64 dev {device} nodad"
            ))?;
            ip(format!("-n {of} link set {device} up"))?;
        }
        ip(format!("-n {of} route add default via 10.98.{end}.1"))?;
        ip(format!("-n {of} -6 route add default via fd00:98:{end}::1"))?;
    }
    turn_on(spaces, ROUTER, "ipv4/ip_forward")?;
    turn_on(spaces, ROUTER, "ipv6/conf/all/forwarding")
}

/// Sets what `/proc/sys/net` has by that name there.
fn turn_on(spaces: &Namespaces, end: usize, what: &str) -> Result<(), String> {
    let set = format!("echo 1 >/proc/sys/net/{what}");
    spaces.ip(&["netns", "exec", spaces.name(end), "sh", "-c", &set])
}

fn config(endpoints: &[SocketAddr], upstream: &str) -> String {
    let quoted: Vec<String> = endpoints.iter().map(|e| format!("'{e}'")).collect();
    format!(
        "[process]\nworkers = 1\ngrace = '0s'\n[admin]\nbind = '127.0.0.1:0'\n\
         [listeners.web]\nprotocol = 'udp'\nbind = '127.0.0.1:0'\nupstream = 'app'\n\
         [upstreams.app]\nendpoints = [{}]\n{upstream}\n",
        quoted.join(", ")
    )
}

fn start(endpoints: &[SocketAddr], upstream: &str) -> Proxy {
    Proxy::start(&config(endpoints, upstream))
}

/// On a thread that may leave its namespace.
#[track_caller]
fn apart(test: impl FnOnce() + Send + 'static) {
    if let Err(panic) = std::thread::spawn(test).join() {
        std::panic::resume_unwind(panic);
    }
}

/// The first datagram that is too long is lost, as on any path; it is counted, its flow goes on, and the endpoint is
/// none the worse for it. The next are cut to what passes, and arrive.
#[test]
fn a_path_that_takes_less_is_not_the_endpoints_failure() {
    let Some(path) = in_a_row("narrow") else {
        return;
    };
    apart(move || {
        for (endpoint, unspecified) in [("10.98.2.2", "0.0.0.0"), ("fd00:98:2::2", "::")] {
            let endpoint = SocketAddr::new(endpoint.parse().unwrap(), 0);
            let unspecified: IpAddr = unspecified.parse().unwrap();
            path.enter(THERE);
            let origin = UdpOrigin::at(endpoint, |data| vec![data.to_vec()]);
            path.enter(HERE);
            // Links that were just made take a moment.
            let probe = UdpSocket::bind((unspecified, 0)).unwrap();
            eventually("the way there", || {
                let _ = probe.send_to(b"probe", origin.addr());
                !origin.seen().is_empty()
            });
            let proxy = start(&[origin.addr()], "");
            let client = UdpClient::new(proxy.addr());
            assert_eq!(client.ask("short"), "short");
            // Fits the first half of the way, and not the second.
            let long = "x".repeat(1400);
            client.send(&long);
            // Word of the first may come before the second is sent.
            assert_eq!(client.ask("short"), "short");
            let dropped =
                "isobar_udp_dropped_datagrams_total{listener=\"web\",reason=\"too_long\"}";
            eventually("the router's word", || proxy.metric(dropped) == 1.0);
            assert_eq!(client.ask(&long), long);
            assert_eq!(client.ask("short"), "short");
            let mut seen = origin.seen();
            seen.retain(|(_, data)| data != b"probe");
            assert_eq!(seen.len(), 4);
            // A failure would have left the endpoint, and come back from another port.
            assert!(seen.iter().all(|(from, _)| *from == seen[0].0), "one flow");
            assert_eq!(proxy.metric("isobar_udp_flows{listener=\"web\"}"), 1.0);
        }
    });
}

/// That is known before anything is sent there: no datagram is lost to it, and the breaker is told of the end alone.
#[test]
fn no_way_to_an_endpoint_costs_no_datagram() {
    let Some(path) = Namespaces::build("noway", &["here"], |spaces| {
        // As in many containers: IPv6 is off. Where there is none at all, it is off, too.
        let _ = turn_on(spaces, HERE, "ipv6/conf/all/disable_ipv6");
        Ok(())
    }) else {
        return;
    };
    apart(move || {
        path.enter(HERE);
        let origin = UdpOrigin::named("a");
        let upstream = "balance = 'first'\noutlier = 'off'\n\
                        breaker = { failure_ratio = '10%', min_requests = 3, window = '1h' }";
        // No route, and no address to send from.
        for nowhere in ["10.97.0.1:53", "[2001:db8::1]:53"] {
            let nowhere: SocketAddr = nowhere.parse().unwrap();
            let proxy = start(&[nowhere, origin.addr()], upstream);
            let clients = UdpClient::many(5, proxy.addr());
            for client in &clients {
                assert_eq!(client.ask("x"), "a:x");
            }
            let failures =
                "isobar_upstream_connect_failures_total{upstream=\"app\",reason=\"unreachable\"}";
            assert_eq!(proxy.metric(failures), 5.0, "{nowhere}");
            let opened = "isobar_upstream_breaker_opened_total{upstream=\"app\"}";
            assert_eq!(proxy.metric(opened), 0.0);
            // With nobody else there, it is told.
            let lonely = start(&[nowhere], upstream);
            for client in &UdpClient::many(3, lonely.addr()) {
                client.send("x");
            }
            eventually("the breaker", || lonely.metric(opened) == 1.0);
        }
    });
}

/// Games look for servers so. What is to all on a network was answered as if that were an address of ours.
#[test]
fn who_asks_all_on_a_network_is_answered() {
    let Some(path) = in_a_row("all") else { return };
    apart(move || {
        path.enter(HERE);
        let origin = UdpOrigin::named("a");
        let toml = config(&[origin.addr()], "").replacen(
            "'udp'\nbind = '127.0.0.1:0'",
            "'udp'\nbind = '0.0.0.0:0'",
            1,
        );
        let proxy = Proxy::start(&toml);
        let port = proxy.addr().port();
        path.enter(ROUTER);
        let client = UdpClient::at(([10, 98, 0, 1], 0).into(), ([10, 98, 0, 255], port).into());
        client.socket.set_broadcast(true).unwrap();
        client.ask_until_answered("x");
        client.send("who is there?");
        loop {
            let (answer, from) = client.receive_from();
            assert_eq!(from, SocketAddr::from(([10, 98, 0, 2], port)));
            // More than one of those before may have been answered.
            if answer == b"a:who is there?" {
                break;
            }
        }
    });
}
