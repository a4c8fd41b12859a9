//! The metrics from end to end: exact values after known exchanges, and no series from traffic.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::collections::{BTreeMap, BTreeSet};

use super::support::client::Client;
use super::support::eventually::eventually;
use super::support::gate::Gate;
use super::support::origin::{self, Origin, Step};
use super::support::proxy::Proxy;
use super::support::unreachable::Refusing;
use super::support::{deadline, remaining};

/// All series with their values.
fn scrape(proxy: &Proxy) -> BTreeMap<String, f64> {
    Client::get(proxy.admin(), "/metrics")
        .text()
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[track_caller]
fn await_metric(proxy: &Proxy, series: &str, value: f64) {
    let end = deadline();
    while proxy.metric(series) != value {
        remaining(
            end,
            &format!("{series} {value}, is {}", proxy.metric(series)),
        );
    }
}

/// Every series of requests, connections and bytes that is not zero, apart from times and what a
/// worker tells of itself at its next tick.
#[track_caller]
fn assert_seen(proxy: &Proxy, want: &[(&str, f64)]) {
    let timing = [
        "isobar_buffers",
        "isobar_worker_busy",
        "isobar_worker_parks",
        "_seconds_bucket",
        "_seconds_sum",
        "process_",
        "isobar_metrics_",
    ];
    let fixed = [
        "build_info",
        "isobar_config_",
        "isobar_workers",
        "isobar_upstream_endpoints",
    ];
    let seen: BTreeMap<String, f64> = scrape(proxy)
        .into_iter()
        .filter(|(_, value)| *value != 0.0)
        .filter(|(series, _)| !timing.iter().chain(&fixed).any(|t| series.contains(t)))
        .collect();
    let want: BTreeMap<String, f64> = want.iter().map(|(s, v)| ((*s).to_owned(), *v)).collect();
    let wrong: Vec<_> = seen
        .iter()
        .filter(|(s, v)| want.get(*s) != Some(*v))
        .map(|(s, v)| format!("seen {s} {v}"))
        .chain(
            want.iter()
                .filter(|(s, _)| !seen.contains_key(*s))
                .map(|(s, v)| format!("missing {s} {v}")),
        )
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn known_exchanges_give_exactly_these_values() {
    let origin = Origin::start(|request| match request.head.target() {
        "/500" => origin::reply(500, "broken"),
        "/404" => origin::reply(404, ""),
        _ => origin::reply(200, "hello"),
    });
    let addr = origin.addr();
    let proxy = Proxy::over(&[addr], "");
    let mut client = Client::connect(proxy.addr());
    let requests = [
        ("GET /a HTTP/1.1\r\nHost: h\r\n\r\n", 200),
        (
            "POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
            200,
        ),
        ("GET /404 HTTP/1.1\r\nHost: h\r\n\r\n", 404),
        ("GET /500 HTTP/1.1\r\nHost: h\r\n\r\n", 500),
    ];
    let (mut sent, mut got) = (0, 0);
    for (request, status) in requests {
        sent += request.len();
        client.send(request);
        let response = client.response();
        assert_eq!(response.status(), status);
        got += response.head.raw.len() + response.body.raw.len();
    }
    let refused = "GET / HTTP/1.1\r\n\r\n";
    client.send(refused);
    let response = client.response();
    assert_eq!(response.status(), 400);
    let refusal = response.body.data.len();
    sent += refused.len();
    got += response.head.raw.len() + response.body.raw.len();
    drop(client);
    await_metric(&proxy, "isobar_listener_connections{listener=\"web\"}", 0.0);
    let to_endpoint: usize = origin
        .requests()
        .iter()
        .map(|r| r.head.raw.len() + r.body.raw.len())
        .sum();
    let from_endpoint: usize = [(200, "hello"), (200, "hello"), (404, ""), (500, "broken")]
        .map(|(status, body)| origin::response(status, body).len())
        .iter()
        .sum();
    let endpoint = |name: &str, more: &str| {
        format!("isobar_endpoint_{name}{{upstream=\"app\",endpoint=\"{addr}\"{more}}}")
    };
    let own = [
        (endpoint("requests_total", ",outcome=\"ok\""), 2.0),
        (endpoint("requests_total", ",outcome=\"client_error\""), 1.0),
        (endpoint("requests_total", ",outcome=\"server_error\""), 1.0),
        // The POST took a connection of its own (see `upstream::IdleLimit`).
        (endpoint("connections", ""), 2.0),
        (endpoint("idle_connections", ""), 2.0),
        (endpoint("connects_total", ""), 2.0),
        (endpoint("sent_bytes_total", ""), to_endpoint as f64),
        (endpoint("received_bytes_total", ""), from_endpoint as f64),
    ];
    let common = [
        ("isobar_worker_requests_total{worker=\"0\"}", 5.0),
        ("isobar_relayed_bytes_total{way=\"copy\"}", 19.0),
        ("isobar_listener_accepts_total{listener=\"web\"}", 1.0),
        ("isobar_listener_requests_total{listener=\"web\"}", 5.0),
        (
            "isobar_listener_refusals_total{listener=\"web\",reason=\"bad_host\"}",
            1.0,
        ),
        (
            "isobar_listener_received_bytes_total{listener=\"web\"}",
            sent as f64,
        ),
        (
            "isobar_listener_sent_bytes_total{listener=\"web\"}",
            got as f64,
        ),
        (
            "isobar_http_requests_total{route=\"web\",protocol=\"h1\",code_class=\"2xx\"}",
            2.0,
        ),
        (
            "isobar_http_requests_total{route=\"web\",protocol=\"h1\",code_class=\"4xx\"}",
            1.0,
        ),
        (
            "isobar_http_requests_total{route=\"web\",protocol=\"h1\",code_class=\"5xx\"}",
            1.0,
        ),
        (
            "isobar_http_requests_total{route=\"(none)\",protocol=\"h1\",code_class=\"4xx\"}",
            1.0,
        ),
        (
            "isobar_http_request_duration_seconds_count{route=\"web\"}",
            4.0,
        ),
        (
            "isobar_http_request_duration_seconds_count{route=\"(none)\"}",
            1.0,
        ),
        (
            "isobar_http_response_start_seconds_count{route=\"web\"}",
            4.0,
        ),
        ("isobar_http_request_body_bytes_total{route=\"web\"}", 3.0),
        ("isobar_http_response_body_bytes_total{route=\"web\"}", 16.0),
        (
            "isobar_http_response_body_bytes_total{route=\"(none)\"}",
            refusal as f64,
        ),
        (
            "isobar_upstream_connect_duration_seconds_count{upstream=\"app\"}",
            2.0,
        ),
        ("isobar_upstream_exchanges_total{upstream=\"app\"}", 4.0),
        (
            "isobar_upstream_pool_total{upstream=\"app\",result=\"fresh\"}",
            2.0,
        ),
        (
            "isobar_upstream_pool_total{upstream=\"app\",result=\"reused\"}",
            2.0,
        ),
        (
            "isobar_upstream_requests_total{upstream=\"app\",outcome=\"ok\"}",
            2.0,
        ),
        (
            "isobar_upstream_requests_total{upstream=\"app\",outcome=\"client_error\"}",
            1.0,
        ),
        (
            "isobar_upstream_requests_total{upstream=\"app\",outcome=\"server_error\"}",
            1.0,
        ),
        (
            "isobar_upstream_response_start_seconds_count{upstream=\"app\"}",
            4.0,
        ),
    ];
    let all: Vec<(&str, f64)> = own
        .iter()
        .map(|(s, v)| (s.as_str(), *v))
        .chain(common)
        .collect();
    assert_seen(&proxy, &all);
}

#[test]
fn refused_connects_are_counted_where_they_happen() {
    let nobody = Refusing::new();
    let proxy = Proxy::over(&[nobody.addr], "");
    assert_eq!(Client::get(proxy.addr(), "/").status(), 502);
    let attempts =
        proxy.metric("isobar_upstream_connect_failures_total{upstream=\"app\",reason=\"refused\"}");
    assert!(attempts >= 1.0);
    // An exchange is recorded when its answer is out, so the client may be quicker.
    for (series, value) in [
        (
            "isobar_http_refusals_total{route=\"web\",reason=\"connect_refused\"}",
            1.0,
        ),
        ("isobar_http_requests_in_flight{route=\"web\"}", 0.0),
        ("isobar_upstream_in_flight{upstream=\"app\"}", 0.0),
    ] {
        await_metric(&proxy, series, value);
    }
}

#[test]
fn large_bodies_are_spliced_and_small_ones_copied() {
    let origin = Origin::start(|request| match request.head.target() {
        "/large" => origin::filled(4 << 20),
        _ => origin::filled(1000),
    });
    let proxy = Proxy::over(&[origin.addr()], "");
    assert_eq!(Client::get(proxy.addr(), "/small").body.data.len(), 1000);
    let way = |way: &str| proxy.metric(&format!("isobar_relayed_bytes_total{{way=\"{way}\"}}"));
    await_metric(&proxy, "isobar_relayed_bytes_total{way=\"copy\"}", 1000.0);
    assert_eq!(way("splice"), 0.0);
    assert_eq!(Client::get(proxy.addr(), "/large").body.data.len(), 4 << 20);
    let end = deadline();
    while way("splice") + way("copy") < (4 << 20) as f64 + 1000.0 {
        remaining(end, "the large body to be counted");
    }
    assert_eq!(way("splice") + way("copy"), (4 << 20) as f64 + 1000.0);
    assert!(way("splice") > (3 << 20) as f64, "{}", way("splice"));
}

#[test]
fn tunnels_are_a_gauge_and_a_counter() {
    let origin = Origin::always(origin::tunnel());
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert_eq!(client.head().status(), 101);
    await_metric(&proxy, "isobar_tunnels", 1.0);
    client.finish();
    client.expect_closed();
    await_metric(&proxy, "isobar_tunnels", 0.0);
    assert_eq!(proxy.metric("isobar_tunnels_opened_total"), 1.0);
    await_metric(&proxy, "isobar_http_requests_in_flight{route=\"web\"}", 0.0);
}

#[test]
fn traffic_makes_no_series() {
    let origin = Origin::named("a");
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    let ask = |client: &mut Client, n: usize| {
        client.send(format!(
            "M{n} /p{n}?q={n} HTTP/1.1\r\nHost: h{n}.example\r\nUser-Agent: u{n}\r\n\r\n"
        ));
        assert_eq!(client.response().status(), 200);
    };
    ask(&mut client, 0);
    let names = || scrape(&proxy).into_keys().collect::<BTreeSet<_>>();
    let before = names();
    for n in 1..=500 {
        ask(&mut client, n);
    }
    let new: Vec<_> = names().difference(&before).cloned().collect();
    assert!(new.is_empty(), "{new:?}");
}

/// Seen red: these were declared and never written.
#[test]
fn worker_tells_how_busy_it_is_and_what_it_holds() {
    let gate = Gate::new();
    let origin = Origin::start({
        let gate = gate.clone();
        move |_| {
            let half = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na";
            vec![
                Step::ReadBody,
                Step::Send(half.to_vec()),
                Step::Pass(gate.clone()),
                Step::Send(b"b".to_vec()),
            ]
        }
    });
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    // The exchanger's own, and the one that the response goes through.
    await_metric(&proxy, "isobar_buffers{state=\"in_use\"}", 2.0);
    gate.open();
    await_metric(&proxy, "isobar_buffers{state=\"in_use\"}", 0.0);
    eventually("the worker to have been busy, and asleep", || {
        let seen = scrape(&proxy);
        ["busy_seconds", "parks"]
            .iter()
            .all(|name| seen[&format!("isobar_worker_{name}_total{{worker=\"0\"}}")] > 0.0)
    });
}

#[test]
fn workers_are_summed_and_the_process_is_told() {
    let origin = Origin::named("a");
    let toml = Proxy::config_over(&[origin.addr()], "").replace("workers = 1", "workers = 2");
    let proxy = Proxy::start(&toml);
    // Open at once, so that both workers get some.
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(proxy.addr())).collect();
    for client in &mut clients {
        assert_eq!(client.request("GET", "/").status(), 200);
    }
    let seen = scrape(&proxy);
    let requests = |w: u8| seen[&format!("isobar_worker_requests_total{{worker=\"{w}\"}}")];
    assert!(requests(0) > 0.0 && requests(1) > 0.0);
    assert_eq!(requests(0) + requests(1), 8.0);
    assert_eq!(
        seen["isobar_listener_requests_total{listener=\"web\"}"],
        8.0
    );
    assert_eq!(seen["isobar_listener_connections{listener=\"web\"}"], 8.0);
    assert_eq!(seen["isobar_workers"], 2.0);
    for family in [
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_cpu_seconds_total",
    ] {
        assert!(seen[family] > 0.0, "{family}");
    }
    let version = format!(
        "isobar_build_info{{version=\"{}\"}}",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(seen[&version], 1.0);
    drop(clients);
    await_metric(&proxy, "isobar_listener_connections{listener=\"web\"}", 0.0);
}
