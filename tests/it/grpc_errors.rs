//! What the proxy itself answers to calls of gRPC, and what it tries again.

use std::net::SocketAddr;

use crate::support::grpc::{self, GrpcServer};
use crate::support::unreachable::Refusing;
use crate::support::watched::Watched;

const TO_H2: &str = "protocol = 'h2'";

/// A proxy over `server` with one route that has these keys.
fn routed(server: SocketAddr, keys: &str) -> Watched {
    Watched::start(
        "",
        &format!(
            "[[routes]]\nname = 'api'\n{keys}\n\
             [upstreams.app]\nendpoints = ['{server}']\n{TO_H2}"
        ),
    )
}

#[test]
fn errors_of_the_proxy_are_statuses() {
    let Some(python) = grpc::python() else {
        return;
    };
    let server = GrpcServer::start(&python, None);
    let refusing = Refusing::new();
    let limit = "rate_limit = { rate = 1, per = '1h', burst = 1 }";
    let cases = [
        (server.addr, "no_route", "path = '/only'", "no_route"),
        (refusing.addr, "no_endpoint", "", "connect_refused"),
        (server.addr, "route_deadline", "timeout = '2s'", "deadline"),
        (server.addr, "rate_limit", limit, "rate_limit"),
    ];
    for (endpoint, case, keys, reason) in cases {
        let proxy = routed(endpoint, &format!("upstream = 'app'\n{keys}"));
        let cases = match case {
            "rate_limit" => &["health", case][..],
            case => &[case],
        };
        grpc::client(&python, proxy.addr(), None, cases);
        let log = proxy.await_log(reason, |lines| lines.iter().any(|l| l["reason"] == reason));
        assert!(log.iter().all(|line| line["status"] == 200), "{log:#?}");
    }
    server.await_line("stream cancelled");
}

/// A status that ends a call with its head alone, and that the route names, is tried again.
#[test]
fn status_that_the_route_names_is_tried_again() {
    let Some(python) = grpc::python() else {
        return;
    };
    let server = GrpcServer::start(&python, None);
    let retry = "upstream = 'app'\nretry = { on = ['grpc-resource-exhausted'] }";
    let proxy = routed(server.addr, retry);
    grpc::client(&python, proxy.addr(), None, &["flaky"]);
    assert_eq!(server.count("flaky first"), 2);
    assert_eq!(server.count("flaky again"), 2);
    let retries = "isobar_upstream_retries_total{upstream=\"app\",reason=\"status\"}";
    proxy.await_metric(retries, 2.0);
}

/// An endpoint that is checked as gRPC, and called as gRPC.
#[test]
fn checked_and_called() {
    let Some(python) = grpc::python() else {
        return;
    };
    let server = GrpcServer::start(&python, None);
    let health =
        "health = { check = 'grpc', interval = '100ms', init_state = 'fully-down', rise = 1 }";
    let proxy = Watched::over(server.addr, "", &format!("{TO_H2}\n{health}"));
    let healthy = format!(
        "isobar_endpoint_healthy{{upstream=\"app\",endpoint=\"{}\"}}",
        server.addr
    );
    proxy.await_metric(&healthy, 1.0);
    grpc::client(&python, proxy.addr(), None, &["unary", "health"]);
}
