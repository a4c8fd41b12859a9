//! gRPC through the proxy with a published client and server, every kind of call.

use std::path::Path;

use crate::support::grpc::{self, GrpcServer};
use crate::support::h2::Identity;
use crate::support::watched::Watched;

const TO_H2: &str = "protocol = 'h2'";

/// Everything a client may do, over these two connections.
fn calls(python: &Path, front: Option<&Identity>, back: Option<&Identity>) {
    let server = GrpcServer::start(python, back);
    let listener = front.map_or_else(String::new, Identity::listener);
    let tls = back.map_or_else(String::new, Identity::upstream);
    let proxy = Watched::over(server.addr, &listener, &format!("{TO_H2}\n{tls}"));
    let cases = ["unary", "streams", "large", "statuses", "hundred", "health"];
    grpc::client(python, proxy.addr(), front, &cases);
    proxy.await_metric("isobar_http_requests_in_flight{route=\"web\"}", 0.0);
    let log = proxy.await_log("all calls", |lines| lines.len() >= 100);
    assert!(log.iter().all(|line| line["protocol"] == "HTTP/2.0"));
    assert!(log.iter().all(|line| line["status"] == 200));
}

#[test]
fn calls_of_every_kind_in_clear_text() {
    let Some(python) = grpc::python() else {
        return;
    };
    calls(&python, None, None);
}

#[test]
fn calls_of_every_kind_over_tls() {
    let Some(python) = grpc::python() else {
        return;
    };
    let identity = Identity::new();
    calls(&python, Some(&identity), Some(&identity));
}

#[test]
fn cancellation_and_deadline_of_the_client_reach_the_server() {
    let Some(python) = grpc::python() else {
        return;
    };
    let server = GrpcServer::start(&python, None);
    let proxy = Watched::over(server.addr, "", TO_H2);
    grpc::client(&python, proxy.addr(), None, &["client_deadline", "cancel"]);
    server.await_line("stream cancelled");
    // The server knows the deadline too: whose end comes first is theirs to settle. A cancellation is the
    // client's alone.
    let ended = |lines: &[serde_json::Value], target: &str| {
        let mut ended = lines.iter().filter(|line| line["target"] == target);
        ended.next().map(|line| line["reason"] == "client_gone")
    };
    let log = proxy.await_log("both calls", |lines| {
        ended(lines, "/t.S/Hang").is_some() && ended(lines, "/t.S/HangStream").is_some()
    });
    assert_eq!(ended(&log, "/t.S/HangStream"), Some(true), "{log:#?}");
    proxy.await_metric("isobar_http_requests_in_flight{route=\"web\"}", 0.0);
}
