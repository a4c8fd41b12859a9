//! Connections of clients that speak HTTP/2: how they end, and that nothing is lost by it.

use std::time::Duration;

use h2::Reason;
use rustix::process::Signal;

use crate::support::binary::{Binary, free_port};
use crate::support::client::Client;
use crate::support::gate::Gate;
use crate::support::h2::{H2Client, Identity, request, run, send_all, spawn, within};
use crate::support::h2_origin::{Exchange, H2Origin};
use crate::support::h2raw;
use crate::support::origin::{self, Origin, Step};
use crate::support::proxy::Proxy;
use crate::support::watched::Watched;

/// An origin whose requests for `/held` wait.
fn held(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::start(move |request| match request.head.target() {
        "/held" => [vec![Step::Pass(gate.clone())], origin::reply(200, "held")].concat(),
        _ => origin::reply(200, "other"),
    })
}

/// It was told that no more streams are taken, and why: for no fault of its own.
async fn told_to_go(client: &H2Client) {
    let error = client.await_goaway().await;
    assert!(error.is_go_away(), "{error}");
    assert_eq!(error.reason(), Some(Reason::NO_ERROR), "{error}");
}

#[test]
fn signal_lets_streams_in_flight_end_and_says_goaway() {
    let gate = Gate::new();
    let origin = held(&gate);
    let web = free_port();
    let mut isobar = Binary::start(&format!(
        "[process]\nworkers = 1\ngrace = '30s'\n[listeners.web]\nbind = '127.0.0.1:{web}'\n\
         upstream = 'app'\n[upstreams.app]\nendpoints = ['{}']\n",
        origin.addr()
    ));
    isobar.await_line("try: curl");
    run(async {
        let client = H2Client::connect(([127, 0, 0, 1], web).into()).await;
        let idle = H2Client::connect(([127, 0, 0, 1], web).into()).await;
        assert_eq!(idle.get("/").await.text(), "other");
        let under_way = {
            let client = client.clone();
            spawn(async move { client.get("/held").await.text() })
        };
        gate.await_reached(1);
        isobar.signal(Signal::TERM);
        told_to_go(&client).await;
        told_to_go(&idle).await;
        idle.ended().await.unwrap();
        gate.open();
        assert_eq!(under_way.await.unwrap(), "held");
        client.ended().await.unwrap();
    });
    assert_eq!(isobar.wait().code(), Some(0));
}

#[test]
fn listener_that_a_reload_removes_is_left_in_peace() {
    let gate = Gate::new();
    let origin = held(&gate);
    let config = |old: &str| {
        format!(
            "[process]\nworkers = 1\n{old}\
             [listeners.web]\nbind = '127.0.0.1:0'\nupstream = 'app'\n\
             [upstreams.app]\nendpoints = ['{}']\n",
            origin.addr()
        )
    };
    let proxy = Proxy::start(&config(
        "[listeners.old]\nbind = '127.0.0.1:0'\nupstream = 'app'\n",
    ));
    run(async {
        let client = H2Client::connect(proxy.listener("old")).await;
        let stays = H2Client::connect(proxy.addr()).await;
        assert_eq!(stays.get("/").await.text(), "other");
        let under_way = {
            let client = client.clone();
            spawn(async move { client.get("/held").await.text() })
        };
        gate.await_reached(1);
        proxy.reload(&config(""));
        told_to_go(&client).await;
        gate.open();
        assert_eq!(under_way.await.unwrap(), "held");
        client.ended().await.unwrap();
        assert_eq!(stays.get("/").await.text(), "other");
    });
}

/// A client that goes on asking while its connections grow old and are replaced: none is refused.
#[test]
fn oldest_age_of_a_connection_loses_no_request() {
    let identity = Identity::new();
    let origin = Origin::named("one");
    for tls in [String::new(), identity.listener()] {
        let listener = format!("max_connection_age = '1s'\n{tls}");
        let proxy = Watched::over(origin.addr(), &listener, "");
        let before = origin.requests().len();
        run(async {
            let mut connections = 0;
            let mut answers = 0;
            while connections < 2 {
                let client = match &*tls {
                    "" => H2Client::connect(proxy.addr()).await,
                    _ => H2Client::connect_tls(proxy.addr(), &identity).await,
                };
                connections += 1;
                loop {
                    let asked = request("GET", "/").body(()).unwrap();
                    let answer = match client.open(asked, true).await {
                        Ok((response, _send)) => within("a response", response).await,
                        Err(error) => Err(error),
                    };
                    match answer {
                        Ok(response) => {
                            assert_eq!(response.status(), 200);
                            answers += 1;
                        }
                        // It was told before, or as it asked: such a request was not touched (RFC 9113
                        // section 6.8), and a client sends it over its next connection.
                        Err(error) => {
                            assert!(error.is_go_away(), "{error}");
                            assert_eq!(error.reason(), Some(Reason::NO_ERROR), "{error}");
                            break;
                        }
                    }
                }
                client.ended().await.unwrap();
            }
            assert!(answers >= connections, "{answers}");
            assert_eq!(
                origin.requests().len(),
                answers + before,
                "what was not answered was not done"
            );
        });
    }
}

#[test]
fn idle_connection_is_closed_after_its_time() {
    let origin = Origin::named("one");
    let proxy = Watched::over(origin.addr(), "keepalive_timeout = '200ms'", "");
    run(async {
        // One that has served, and one that was never asked anything.
        for asks in [true, false] {
            let client = H2Client::connect(proxy.addr()).await;
            if asks {
                assert_eq!(client.get("/").await.text(), "one");
            }
            told_to_go(&client).await;
            client.ended().await.unwrap();
        }
    });
    proxy.await_metric("isobar_listener_connections{listener=\"web\"}", 0.0);
}

/// One with a stream is not idle, however quiet the stream.
#[test]
fn connection_with_a_stream_is_not_idle() {
    let gate = Gate::new();
    let origin = held(&gate);
    let proxy = Watched::over(origin.addr(), "keepalive_timeout = '100ms'", "");
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        let under_way = {
            let client = client.clone();
            spawn(async move { client.get("/held").await.text() })
        };
        gate.await_reached(1);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(client.get("/").await.text(), "other");
        gate.open();
        assert_eq!(under_way.await.unwrap(), "held");
    });
}

/// A client that never says what it came for.
#[test]
fn client_that_sends_only_the_preface_is_closed() {
    let origin = Origin::named("one");
    let proxy = Watched::over(
        origin.addr(),
        "header_timeout = '200ms'\nkeepalive_timeout = '200ms'",
        "",
    );
    let mut client = proxy.connect();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    client.until_closed();
    proxy.await_metric("isobar_listener_connections{listener=\"web\"}", 0.0);
}

/// A client that stops in the middle of its upload is told so, and the endpoint too.
#[test]
fn upload_that_stops_is_ended() {
    let origin = H2Origin::start(|mut exchange: Exchange| async move {
        exchange.read().await;
    });
    let proxy = Watched::over(origin.addr(), "idle_timeout = '200ms'", "protocol = 'h2'");
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        let asked = request("POST", "/").body(()).unwrap();
        let (response, mut send) = client.open(asked, false).await.unwrap();
        send_all(&mut send, b"hello", false).await.unwrap();
        let response = within("a response", response).await.unwrap();
        assert_eq!(response.status(), 408);
    });
    assert_eq!(proxy.log(1)[0]["reason"], "client_idle");
    assert!(origin.await_done(0).body.is_empty(), "it did not end well");
}

/// All of a response is in the kernel's hands, its connection is told to go, and its client reads slowly,
/// telling so as it goes: closing at once would reset it.
#[test]
fn slow_reader_gets_the_rest_after_the_farewell() {
    const SIZE: usize = 128 * 1024;
    let origin = Origin::always(origin::filled(SIZE));
    let proxy = Watched::over(origin.addr(), "keepalive_timeout = '50ms'", "");
    let mut client = Client::connect_narrow(proxy.addr());
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    client.send(h2raw::settings(&[(4, 1 << 30)]));
    client.send(h2raw::window_update(0, 1 << 30));
    client.send(h2raw::headers(1, 5, h2raw::get("/")));
    proxy.log(1);
    let mut all = Vec::new();
    let mut data = 0;
    while data < SIZE {
        all.extend_from_slice(&client.exactly(4096));
        client.send(h2raw::ping());
        // A slow line; the farewell is 2 s long.
        std::thread::park_timeout(Duration::from_millis(100));
        data = sum_of_data(&all);
        if SIZE - data < 4096 {
            all.extend(client.until_closed());
            data = sum_of_data(&all);
            break;
        }
    }
    assert_eq!(data, SIZE);
}

/// Bytes of whole DATA frames, and of the last that is there in part.
fn sum_of_data(mut bytes: &[u8]) -> usize {
    let mut sum = 0;
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = bytes {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        let (payload, after) = rest.split_at(length.min(rest.len()));
        if *kind == 0 {
            sum += payload.len();
        }
        bytes = after;
    }
    sum
}
