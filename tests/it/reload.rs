//! Reload: what a change touches, what it does not, and that one that fails changes nothing.

use std::net::SocketAddr;

use isobar::server::ReloadError;

use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::gate::Gate;
use crate::support::origin::{self, Origin, Step};
use crate::support::proxy::Proxy;

const ASK: &str =
    "GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const ANSWER: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Two listeners, two upstreams; `a` and `b` are the bodies of their tables.
fn two(a: &str, b: &str, grace: &str) -> String {
    format!(
        "[process]\nworkers = 2\ngrace = '{grace}'\n[admin]\nbind = '127.0.0.1:0'\n\
         [listeners.web]\nbind = '127.0.0.1:0'\nupstream = 'a'\n\
         [listeners.other]\nbind = '127.0.0.2:0'\nupstream = 'b'\n\
         [upstreams.a]\n{a}\n[upstreams.b]\n{b}\n"
    )
}

fn to(endpoints: &[SocketAddr]) -> String {
    let list: Vec<String> = endpoints.iter().map(|e| format!("'{e}'")).collect();
    format!("balance = 'round_robin'\nendpoints = [{}]", list.join(", "))
}

#[test]
fn route_and_endpoints_change_under_an_open_connection() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let proxy = Proxy::over(&[one.addr()], "");
    let mut client = Client::connect(proxy.addr());
    assert_eq!(client.request("GET", "/").text(), "one");
    proxy.reload(&Proxy::config_over(&[two.addr()], ""));
    // The same connection: it belongs to its listener, and that is the same.
    assert_eq!(client.request("GET", "/").text(), "two");
    assert_eq!(proxy.connections(), [1]);
}

#[test]
fn endpoint_that_stays_keeps_its_idle_connections() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let proxy = Proxy::over(&[one.addr()], "");
    let mut client = Client::connect(proxy.addr());
    for _ in 0..3 {
        assert_eq!(client.request("GET", "/").text(), "one");
    }
    // The upstream changes (a time-out, a policy, a second endpoint): its first endpoint stays.
    proxy.reload(&Proxy::config_over(
        &[one.addr(), two.addr()],
        "connect_timeout = '2s'",
    ));
    for _ in 0..4 {
        assert_eq!(client.request("GET", "/").status(), 200);
    }
    assert_eq!(one.accepted(), 1, "its connection was used on");
    assert_eq!(two.accepted(), 1);
}

#[test]
fn counters_of_what_stays_go_on_and_series_of_what_goes_disappear() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let proxy = Proxy::over(&[one.addr()], "");
    let mut client = Client::connect(proxy.addr());
    assert_eq!(client.request("GET", "/").text(), "one");
    let of = |origin: &Origin| {
        format!(
            "isobar_endpoint_requests_total{{upstream=\"app\",endpoint=\"{}\",outcome=\"ok\"}}",
            origin.addr()
        )
    };
    eventually("one request", || proxy.metric(&of(&one)) == 1.0);
    proxy.reload(&Proxy::config_over(&[two.addr()], ""));
    assert_eq!(client.request("GET", "/").text(), "two");
    eventually("the endpoint that left is not shown", || {
        proxy.metric(&of(&one)) == 0.0
    });
    assert!(proxy.metric("isobar_upstream_requests_total{upstream=\"app\",outcome=\"ok\"}") >= 1.0);
}

#[test]
fn address_in_use_changes_nothing() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::over(&[one.addr()], "");
    let mut client = Client::connect(proxy.addr());
    assert_eq!(client.request("GET", "/").text(), "one");
    let next = Proxy::config_over(&[two.addr()], "")
        + &format!(
            "[listeners.more]\nbind = '{}'\nupstream = 'app'\n",
            taken.local_addr().unwrap()
        );
    let error = proxy.try_reload(&next).unwrap_err();
    assert!(matches!(&error, ReloadError::Listener { name, .. } if &**name == "more"));
    assert!(error.to_string().contains("in use"), "{error}");
    assert_eq!(client.request("GET", "/").text(), "one");
    assert_eq!(Client::get(proxy.addr(), "/").text(), "one");
    // The address comes free: the same text is taken now.
    drop(taken);
    proxy.reload(&next);
    assert_eq!(Client::get(proxy.listener("more"), "/").text(), "two");
}

#[test]
fn removed_listener_finishes_what_is_in_flight_and_refuses_what_is_new() {
    let gate = Gate::new();
    let origin = Origin::always(vec![
        Step::Send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst".into()),
        Step::Pass(gate.clone()),
        Step::Send("-last".into()),
    ]);
    let (a, b) = (to(&[origin.addr()]), to(&[origin.addr()]));
    let proxy = Proxy::start(&two(&a, &b, "30s"));
    let other = proxy.listener("other");
    let mut busy = Client::connect(other);
    busy.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(busy.head().status(), 200);
    assert_eq!(busy.exactly(5), b"first");
    let mut idle = Client::connect(other);
    let without = two(&a, &b, "30s").replace(
        "[listeners.other]\nbind = '127.0.0.2:0'\nupstream = 'b'\n",
        "",
    );
    proxy.reload(&without);
    idle.expect_closed();
    eventually("new connections are refused", || {
        Client::try_connect(other).is_err()
    });
    gate.open();
    assert_eq!(busy.exactly(5), b"-last");
    busy.expect_closed();
    eventually("nothing is left of it", || {
        proxy.metric("isobar_listener_connections{listener=\"other\"}") == 0.0
    });
    assert!(Client::try_connect(proxy.addr()).is_ok());
}

#[test]
fn tunnel_of_a_removed_listener_is_cut_after_grace_and_the_others_live() {
    let origin = Origin::always(vec![Step::Send(ANSWER.into()), Step::Echo]);
    let (a, b) = (to(&[origin.addr()]), to(&[origin.addr()]));
    let proxy = Proxy::start(&two(&a, &b, "3s"));
    let mut tunnels: Vec<Client> = ["web", "other"]
        .iter()
        .map(|name| {
            let mut client = Client::connect(proxy.listener(name));
            client.send(ASK);
            assert_eq!(client.head().status(), 101);
            client
        })
        .collect();
    let without = two(&a, &b, "3s").replace(
        "[listeners.other]\nbind = '127.0.0.2:0'\nupstream = 'b'\n",
        "",
    );
    proxy.reload(&without);
    tunnels[1].send("ping");
    assert_eq!(tunnels[1].exactly(4), b"ping", "it has its time");
    tunnels[1].broken();
    tunnels[0].send("ping");
    assert_eq!(tunnels[0].exactly(4), b"ping");
}

#[test]
fn tunnel_to_a_removed_endpoint_is_cut_after_grace() {
    let origin = Origin::always(vec![Step::Send(ANSWER.into()), Step::Echo]);
    let stays = Origin::named("stays");
    let grace = "[process]\nworkers = 1\ngrace = '3s'\n";
    let config =
        |endpoint| Proxy::config_over(&[endpoint], "").replace("[process]\nworkers = 1\n", grace);
    let proxy = Proxy::start(&config(origin.addr()));
    let mut client = Client::connect(proxy.addr());
    client.send(ASK);
    assert_eq!(client.head().status(), 101);
    proxy.reload(&config(stays.addr()));
    client.send("ping");
    assert_eq!(client.exactly(4), b"ping", "it has its time");
    client.broken();
    assert_eq!(Client::get(proxy.addr(), "/").text(), "stays");
}

#[test]
fn address_moves_from_one_listener_to_another_with_its_socket() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let config = |listener: &str, upstream: SocketAddr| {
        format!(
            "[process]\nworkers = 2\n[listeners.{listener}]\nbind = '127.0.0.1:0'\nupstream = 'app'\n\
             [upstreams.app]\nendpoints = ['{upstream}']\n"
        )
    };
    let proxy = Proxy::start(&config("before", one.addr()));
    let addr = proxy.listener("before");
    assert_eq!(Client::get(addr, "/").text(), "one");
    proxy.reload(&config("after", two.addr()));
    assert_eq!(proxy.listener("after"), addr);
    assert_eq!(Client::get(addr, "/").text(), "two");
}

#[test]
fn bind_may_widen_to_every_address_and_narrow_again() {
    let origin = Origin::named("one");
    let port = crate::support::binary::free_port();
    let config = |bind: &str| {
        format!(
            "[process]\nworkers = 2\n[listeners.web]\nbind = '{bind}:{port}'\nupstream = 'app'\n\
             [upstreams.app]\nendpoints = ['{}']\n",
            origin.addr()
        )
    };
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let proxy = Proxy::start(&config("127.0.0.1"));
    let mut kept = Client::connect(addr);
    for bind in ["0.0.0.0", "127.0.0.1", "0.0.0.0"] {
        assert_eq!(kept.request("GET", "/").status(), 200);
        proxy.reload(&config(bind));
        for _ in 0..20 {
            assert_eq!(Client::get(addr, "/").text(), "one", "{bind}");
        }
    }
    assert_eq!(kept.request("GET", "/").status(), 200);
}

/// Its sockets are open for the time of the last call still: a reload that brought it back within
/// that was told that its own address was "in use by another program".
#[test]
fn listener_may_go_and_come_back_at_once() {
    let origin = Origin::named("one");
    let port = crate::support::binary::free_port();
    let without = Proxy::config_over(&[origin.addr()], "");
    let with = format!("{without}[listeners.more]\nbind = '127.0.0.1:{port}'\nupstream = 'app'\n");
    let proxy = Proxy::start(&with);
    for _ in 0..3 {
        proxy.reload(&without);
        proxy.reload(&with);
        assert_eq!(Client::get(proxy.listener("more"), "/").text(), "one");
    }
}

#[test]
fn access_log_moves_to_another_file_and_loses_no_line() {
    let origin = Origin::named("one");
    let folder = tempfile::tempdir().unwrap();
    let config = |file: &str| {
        let file = folder.path().join(file);
        Proxy::config_over(&[origin.addr()], "")
            + &format!(
                "[log]\naccess = {{ format = 'json', to = '{}' }}\n",
                file.display()
            )
    };
    let proxy = Proxy::start(&config("one.log"));
    let mut client = Client::connect(proxy.addr());
    for n in 0..50 {
        assert_eq!(client.request("GET", "/").status(), 200);
        if n == 24 {
            proxy.reload(&config("two.log"));
        }
    }
    proxy.shutdown();
    let lines = |file: &str| {
        let text = std::fs::read_to_string(folder.path().join(file)).unwrap();
        text.lines().count()
    };
    assert_eq!(lines("one.log") + lines("two.log"), 50);
    assert!(lines("two.log") > 0);
}

#[test]
fn log_that_cannot_be_opened_changes_nothing() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let proxy = Proxy::over(&[one.addr()], "");
    let next = Proxy::config_over(&[two.addr()], "")
        + "[log]\naccess = { format = 'json', to = '/nonexistent/folder/access.log' }\n";
    let error = proxy.try_reload(&next).unwrap_err();
    assert!(matches!(error, ReloadError::AccessLog(_)));
    assert_eq!(Client::get(proxy.addr(), "/").text(), "one");
}

#[test]
fn request_in_flight_ends_under_the_old_configuration() {
    let gate = Gate::new();
    let slow = Origin::always(vec![
        Step::Pass(gate.clone()),
        Step::Send(origin::response(200, "slow")),
    ]);
    let next = Origin::named("next");
    let proxy = Proxy::over(&[slow.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    slow.await_requests(1);
    proxy.reload(&Proxy::config_over(&[next.addr()], ""));
    assert_eq!(Client::get(proxy.addr(), "/").text(), "next");
    gate.open();
    assert_eq!(client.response().text(), "slow");
    assert_eq!(client.request("GET", "/").text(), "next");
}
