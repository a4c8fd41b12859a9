//! Connections of HTTP/2 to endpoints: how many streams they bear, when there is another, how they end.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use h2::client::Builder;

use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::gate::Gate;
use crate::support::h2::{H2Client, run, spawn};
use crate::support::h2_origin::{self, Exchange, H2Origin};
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::watched::Watched;

/// Answers once the gate is open.
fn held(gate: &Gate) -> h2_origin::Builder {
    let gate = gate.clone();
    H2Origin::build(move |exchange: Exchange| {
        let gate = gate.clone();
        async move {
            exchange.pass(&gate).await;
            exchange.reply("done").await;
        }
    })
}

/// `n` requests that are at the endpoint at once, then all answered.
fn burst(proxy: &Watched, origin: &H2Origin, gate: &Gate, n: usize) {
    run(async {
        let client = H2Client::connect_with(
            proxy.addr(),
            Builder::new()
                .initial_max_send_streams(n)
                .max_concurrent_streams(1000),
        )
        .await;
        let mut all = Vec::new();
        for n in 0..n {
            let client = client.clone();
            all.push(spawn(
                async move { client.get(&format!("/{n}")).await.text() },
            ));
        }
        origin.await_requests(n);
        gate.open();
        for one in all {
            assert_eq!(one.await.unwrap(), "done");
        }
    });
}

#[test]
fn burst_of_fifty_shares_one_connection() {
    let gate = Gate::new();
    let origin = held(&gate).start();
    let proxy = Watched::over(origin.addr(), "", "protocol = 'h2'");
    burst(&proxy, &origin, &gate, 50);
    assert_eq!(origin.accepted(), 1);
    let connects = format!(
        "isobar_endpoint_connects_total{{upstream=\"app\",endpoint=\"{}\"}}",
        origin.addr()
    );
    proxy.await_metric(&connects, 1.0);
}

#[test]
fn streams_above_the_limit_have_another_connection() {
    let gate = Gate::new();
    let origin = held(&gate).start();
    let proxy = Watched::over(origin.addr(), "", "protocol = 'h2'\nmax_streams = 10");
    burst(&proxy, &origin, &gate, 25);
    assert_eq!(origin.accepted(), 3);
    let mut by_connection = [0; 3];
    for seen in origin.requests() {
        by_connection[seen.connection] += 1;
    }
    assert_eq!(by_connection, [10, 10, 5]);
}

/// The lower of the two limits holds, once it is known: it comes with the first answer at the latest.
#[test]
fn limit_of_the_endpoint_holds() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = H2Origin::build(move |exchange: Exchange| {
        let gate = held.clone();
        async move {
            if exchange.seen.path != "/first" {
                exchange.pass(&gate).await;
            }
            exchange.reply("done").await;
        }
    });
    let origin = origin.max_streams(4).start();
    let proxy = Watched::over(origin.addr(), "", "protocol = 'h2'\nmax_streams = 100");
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        assert_eq!(client.get("/first").await.text(), "done");
        let ask = |n: usize| {
            let client = client.clone();
            spawn(async move { client.get(&format!("/{n}")).await.text() })
        };
        let mut all: Vec<_> = (0..4).map(ask).collect();
        origin.await_requests(5);
        assert_eq!(origin.accepted(), 1);
        all.push(ask(4));
        origin.await_requests(6);
        assert_eq!(origin.accepted(), 2);
        gate.open();
        for one in all {
            assert_eq!(one.await.unwrap(), "done");
        }
    });
}

#[test]
fn idle_connection_is_closed() {
    let origin = H2Origin::named("one");
    let proxy = Watched::over(
        origin.addr(),
        "",
        "protocol = 'h2'\nkeepalive = { idle_timeout = '200ms' }",
    );
    assert_eq!(Client::get(proxy.addr(), "/").text(), "one");
    assert_eq!(origin.accepted(), 1);
    origin.await_open(0);
    assert_eq!(Client::get(proxy.addr(), "/").text(), "one");
    assert_eq!(origin.accepted(), 2);
}

/// A connection on which nothing at all came while an answer was waited for may be dead, and the kernel
/// would not say so for minutes: what follows is asked of another.
#[test]
fn connection_that_was_silent_is_not_used_again() {
    let origin = H2Origin::start(|mut exchange: Exchange| async move {
        match &*exchange.seen.path.clone() {
            "/silent" => exchange.await_reset().await,
            _ => exchange.reply("one").await,
        }
    });
    let proxy = Watched::over(origin.addr(), "", "protocol = 'h2'\nidle_timeout = '2s'");
    assert_eq!(Client::get(proxy.addr(), "/").text(), "one");
    assert_eq!(Client::get(proxy.addr(), "/").text(), "one");
    assert_eq!(Client::get(proxy.addr(), "/silent").status(), 504);
    assert_eq!(Client::get(proxy.addr(), "/").text(), "one");
    let by_connection: Vec<_> = origin.requests().iter().map(|r| r.connection).collect();
    assert_eq!(by_connection, [0, 0, 0, 1]);
    origin.await_open(1);
}

/// An endpoint that a reload removes: what is under way ends, then its connection does.
#[test]
fn removed_endpoint_is_left_after_its_streams() {
    let gate = Gate::new();
    let old = held(&gate).start();
    let new = H2Origin::named("new");
    let proxy = Proxy::over(&[old.addr()], "protocol = 'h2'");
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        let under_way = {
            let client = client.clone();
            spawn(async move { client.get("/").await.text() })
        };
        old.await_requests(1);
        proxy.reload(&Proxy::config_over(&[new.addr()], "protocol = 'h2'"));
        assert_eq!(client.get("/").await.text(), "new");
        assert_eq!(old.open(), 1);
        gate.open();
        assert_eq!(under_way.await.unwrap(), "done");
        old.await_open(0);
    });
}

/// The protocol is agreed on where the endpoint may choose.
#[test]
fn auto_takes_what_the_endpoint_speaks() {
    let identity = crate::support::h2::Identity::new();
    let two = H2Origin::build(|exchange: Exchange| exchange.reply("two"))
        .tls(&identity)
        .start();
    let more = format!("protocol = 'auto'\n{}", identity.upstream());
    let proxy = Watched::over(two.addr(), "", &more);
    for _ in 0..3 {
        assert_eq!(Client::get(proxy.addr(), "/").text(), "two");
    }
    assert_eq!(two.accepted(), 1, "one connection for all");
    // In clear text there is nothing to agree by.
    let one = Origin::named("one");
    let proxy = Watched::over(one.addr(), "", "protocol = 'h1'");
    assert_eq!(Client::get(proxy.addr(), "/").text(), "one");
}

/// An endpoint that does not speak HTTP/2 at all.
#[test]
fn endpoint_of_http1_asked_for_http2_is_an_error() {
    let origin = Origin::named("one");
    let proxy = Watched::over(origin.addr(), "", "protocol = 'h2'");
    let response = Client::get(proxy.addr(), "/");
    assert_eq!(response.status(), 502);
    eventually("the connection ends", || origin.open() == 0);
}

#[test]
fn a_thousand_requests_leave_nothing_behind() {
    let origin = H2Origin::named("one");
    let proxy = Watched::over(origin.addr(), "", "protocol = 'h2'");
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        for _ in 0..20 {
            let all: Vec<_> = (0..50)
                .map(|_| {
                    let client = client.clone();
                    spawn(async move { client.get("/").await.text() })
                })
                .collect();
            for one in all {
                assert_eq!(one.await.unwrap(), "one");
            }
        }
    });
    assert_eq!(proxy.log(1000).len(), 1000);
    let endpoint = format!("upstream=\"app\",endpoint=\"{}\"", origin.addr());
    for series in [
        "isobar_http_requests_in_flight{route=\"web\"}".to_owned(),
        "isobar_upstream_in_flight{upstream=\"app\"}".to_owned(),
        format!("isobar_endpoint_in_flight{{{endpoint}}}"),
        "isobar_listener_connections{listener=\"web\"}".to_owned(),
    ] {
        proxy.await_metric(&series, 0.0);
    }
    proxy.await_metric(&format!("isobar_endpoint_connections{{{endpoint}}}"), 1.0);
    assert_eq!(origin.accepted(), 1);
}
