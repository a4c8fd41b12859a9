//! Peers that write a message in two parts and have Nagle's algorithm on: the second part leaves once the first is
//! acknowledged. Nobody here may leave that to the kernel, which takes 40 ms at least where it expects an answer
//! to carry it.
//!
//! Of many tries the fastest is looked at: a machine that is slow now and then is not what is asked about.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::certs::{Ca, listener_tls};
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::now;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::tcp::{Came, End, Endpoint};
use crate::support::tls::{Offer, V12, V13};

/// What Linux waits at least (`TCP_ATO_MIN`), and how long a try may take: half of that.
const SOON: Duration = Duration::from_millis(20);

fn config(endpoint: SocketAddr, listener: &str, upstream: &str) -> String {
    format!(
        "[process]\nworkers = 1\n[admin]\nbind = '127.0.0.1:0'\n\
         [listeners.web]\nbind = '127.0.0.1:0'\nupstream = 'app'\n{listener}\n\
         [upstreams.app]\nendpoints = ['{endpoint}']\n{upstream}\n"
    )
}

/// The shortest of twenty.
#[track_caller]
fn expect_soon(mut attempt: impl FnMut() -> Duration) {
    let fastest = (0..20).map(|_| attempt()).min().unwrap();
    assert!(fastest < SOON, "the fastest took {fastest:?}");
}

/// How long a message in two parts takes, to one who is silent until he has heard all.
#[track_caller]
fn in_parts(from: &mut End, to: &mut End) -> Duration {
    from.0.set_nodelay(false).unwrap();
    let began = now();
    from.send("one, ");
    from.send("two");
    assert_eq!(to.exactly(8), b"one, two");
    began.elapsed()
}

#[test]
fn bodies_and_heads_in_parts_are_not_held_up() {
    let origin = Origin::named("a");
    let proxy = Proxy::start(&config(origin.addr(), "", ""));
    for parts in [
        [
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
            "hello",
        ],
        [
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
        ],
        // It does not wait for the 100.
        [
            "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
            "hello",
        ],
        ["GET / HTTP/1.1\r\n", "Host: a\r\n\r\n"],
    ] {
        let ask = |client: &mut Client| {
            let began = now();
            client.send(parts[0]);
            client.send(parts[1]);
            assert_eq!(client.response().status(), 200);
            began.elapsed()
        };
        let nagling = || {
            let client = Client::connect(proxy.addr());
            client.stream().set_nodelay(false).unwrap();
            client
        };
        expect_soon(|| ask(&mut nagling()));
        let mut kept = nagling();
        expect_soon(|| ask(&mut kept));
    }
}

/// In TLS 1.3 the client has the last word of the handshake, and nothing answers it where there are no tickets.
#[test]
fn requests_are_not_held_up_by_a_handshake() {
    let origin = Origin::named("a");
    let ca = Ca::new();
    for tickets in [true, false] {
        let tls = listener_tls(&[&ca.server()], &format!(", tickets = {tickets}"));
        let proxy = Proxy::start(&config(origin.addr(), &tls, ""));
        for version in [V12, V13] {
            let offer = Offer::of(&ca, version);
            expect_soon(|| {
                let mut client = Client::secure(proxy.addr(), &offer, "localhost");
                client.stream().set_nodelay(false).unwrap();
                let began = now();
                assert_eq!(client.request("GET", "/").text(), "a");
                began.elapsed()
            });
        }
    }
}

#[test]
fn clients_whose_bytes_are_passed_on_are_not_held_up() {
    let endpoint = Endpoint::new();
    let proxy = Proxy::start(&config(endpoint.addr(), "protocol = 'tcp'", ""));
    expect_soon(|| {
        let (mut client, mut server) = endpoint.join(&proxy);
        in_parts(&mut client, &mut server)
    });
}

#[test]
fn clients_that_were_greeted_are_not_held_up() {
    let endpoint = Endpoint::new();
    let proxy = Proxy::start(&config(endpoint.addr(), "protocol = 'tcp'", ""));
    expect_soon(|| {
        let (mut client, mut server) = endpoint.join(&proxy);
        server.send("220 ready\r\n");
        assert_eq!(client.exactly(11), b"220 ready\r\n");
        in_parts(&mut client, &mut server)
    });
}

#[test]
fn what_is_announced_is_not_held_up_by_its_announcement() {
    let endpoint = Endpoint::new();
    let listener = "protocol = 'tcp'\nproxy_protocol = { from = ['127.0.0.1'] }";
    let proxy = Proxy::start(&config(endpoint.addr(), listener, ""));
    expect_soon(|| {
        let mut client = End::connect(proxy.addr());
        client.0.set_nodelay(false).unwrap();
        let began = now();
        client.send("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
        client.send("over");
        let mut server = endpoint.accept();
        assert_eq!(server.exactly(4), b"over");
        began.elapsed()
    });
}

#[test]
fn endpoints_that_answer_first_words_are_not_held_up() {
    let endpoint = Endpoint::new();
    let upstream = "max_connections = 1\nqueue = { length = 1, timeout = '20s' }";
    let proxy = Proxy::start(&config(endpoint.addr(), "protocol = 'tcp'", upstream));
    let queued = "isobar_upstream_queue_length{upstream=\"app\"}";
    expect_soon(|| {
        let (first, server) = endpoint.join(&proxy);
        let mut client = End::connect(proxy.addr());
        client.send("over");
        eventually("one in the line", || proxy.metric(queued) == 1.0);
        // Its words are there by the time that an endpoint is connected for it.
        drop((first, server));
        let mut server = endpoint.accept();
        assert_eq!(server.exactly(4), b"over");
        let took = in_parts(&mut server, &mut client);
        // All the same, what follows passes in both directions.
        client.talks_to(&mut server);
        client.end();
        assert!(matches!(server.next(), Came::End));
        drop((client, server));
        eventually("room", || {
            proxy.metric("isobar_listener_connections{listener=\"web\"}") == 0.0
        });
        took
    });
}
