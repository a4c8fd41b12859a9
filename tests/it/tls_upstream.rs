//! TLS to endpoints: whom the proxy believes, and how each failure is told to clients, log and metrics.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of a test: failing is their report"
)]

use std::io::Read;
use std::net::{SocketAddr, TcpListener};

use data_encoding::BASE64;
use isobar::telemetry::reason::Reason;
use rustls::version::{TLS12, TLS13};

use crate::support::binary::{Binary, free_port};
use crate::support::certs::{Ca, Issued, Wanted};
use crate::support::client::Client;
use crate::support::origin::{self, Greeting, Origin, Request};
use crate::support::proxy::Proxy;
use crate::support::tls::server;
use crate::support::watched::{Watched, expect_answer};

/// An endpoint over TLS that says its name.
fn endpoint(own: &Issued) -> Origin {
    Origin::build(|_: &Request| origin::reply(200, "secret"))
        .tls(server(own, &[&TLS13, &TLS12], None))
        .start()
}

fn failures(reason: &str) -> String {
    format!("isobar_upstream_connect_failures_total{{upstream=\"app\",reason=\"{reason}\"}}")
}

/// The answer through a proxy with this `tls` to that endpoint.
#[track_caller]
fn trusted(addr: SocketAddr, tls: &str) {
    let proxy = Watched::over(addr, "", &format!("connect_timeout = '20s'\ntls = {tls}"));
    let response = proxy.connect().request("GET", "/");
    assert_eq!(response.status(), 200, "{tls}: {}", response.text());
    assert_eq!(response.text(), "secret");
}

/// 502, `Proxy-Status`, metric, and a warning in these words.
#[track_caller]
fn refused(addr: SocketAddr, more: &str, words: &str) {
    let (port, admin) = (free_port(), free_port());
    let binary = Binary::start(&format!(
        "[process]\nworkers = 1\n[admin]\nbind = '127.0.0.1:{admin}'\n\
         [listeners.web]\nbind = '127.0.0.1:{port}'\nupstream = 'app'\n\
         [upstreams.app]\nendpoints = ['{addr}']\n{more}\n"
    ));
    binary.await_line("try: curl");
    let mut client = Client::connect(([127, 0, 0, 1], port).into());
    let response = client.request("GET", "/");
    expect_answer(&response, Reason::EndpointTls);
    let line = binary.await_line("TLS with an endpoint failed");
    assert!(line.contains("WARN"), "{line}");
    assert!(line.contains(words), "{line}\nhas not: {words}");
    assert!(line.contains(&addr.to_string()), "{line}");
    // The client stays.
    assert_eq!(client.request("GET", "/").status(), 502);
    let metrics = Client::get(([127, 0, 0, 1], admin).into(), "/metrics").text();
    let failed = metrics
        .lines()
        .find_map(|l| l.strip_prefix(&failures("tls")));
    let failed: f64 = failed.unwrap().trim().parse().unwrap();
    assert!(failed >= 2.0, "{failed}");
}

fn trusting(ca: &Ca, more: &str) -> String {
    format!("{{ ca = '{}'{more} }}", ca.file.display())
}

#[test]
fn endpoint_is_believed_by_name_or_address() {
    let ca = Ca::new();
    let by_name = endpoint(&ca.issue(&Wanted::server(&["app.internal"])));
    trusted(
        by_name.addr(),
        &trusting(&ca, ", server_name = 'app.internal'"),
    );
    let by_address = endpoint(&ca.server());
    trusted(by_address.addr(), &trusting(&ca, ""));
    let rsa = endpoint(&ca.issue(&Wanted::server(&["127.0.0.1"]).rsa()));
    trusted(rsa.addr(), &trusting(&ca, ""));
}

#[test]
fn each_version_is_spoken() {
    let ca = Ca::new();
    for version in [&TLS12, &TLS13] {
        let origin = Origin::build(|_: &Request| origin::reply(200, "secret"))
            .tls(server(&ca.server(), &[version], None))
            .start();
        trusted(origin.addr(), &trusting(&ca, ""));
    }
}

#[test]
fn wrong_name_is_refused() {
    let ca = Ca::new();
    let origin = endpoint(&ca.issue(&Wanted::server(&["app.internal"])));
    refused(
        origin.addr(),
        &format!(
            "connect_timeout = '20s'\ntls = {}",
            trusting(&ca, ", server_name = 'other.internal'")
        ),
        "its certificate is not for `other.internal`",
    );
    assert!(origin.requests().is_empty(), "it was told nothing");
}

#[test]
fn address_that_is_not_in_the_certificate_is_refused() {
    let ca = Ca::new();
    let origin = endpoint(&ca.issue(&Wanted::server(&["app.internal"])));
    refused(
        origin.addr(),
        &format!("connect_timeout = '20s'\ntls = {}", trusting(&ca, "")),
        "its certificate is not for `127.0.0.1`",
    );
}

#[test]
fn expired_certificate_is_refused() {
    let ca = Ca::new();
    let origin = endpoint(&ca.issue(&Wanted::server(&["127.0.0.1"]).expired()));
    let tls = format!("connect_timeout = '20s'\ntls = {}", trusting(&ca, ""));
    refused(origin.addr(), &tls, "its certificate has expired");
}

#[test]
fn certificate_of_tomorrow_is_refused() {
    let ca = Ca::new();
    let origin = endpoint(&ca.issue(&Wanted::server(&["127.0.0.1"]).not_yet()));
    let tls = format!("connect_timeout = '20s'\ntls = {}", trusting(&ca, ""));
    refused(origin.addr(), &tls, "its certificate is not valid yet");
}

#[test]
fn unknown_ca_is_refused() {
    let (ca, stranger) = (Ca::new(), Ca::named("stranger"));
    let origin = endpoint(&stranger.server());
    let tls = format!("connect_timeout = '20s'\ntls = {}", trusting(&ca, ""));
    refused(
        origin.addr(),
        &tls,
        "its certificate is of a CA that is not trusted",
    );
}

#[test]
fn unknown_ca_of_the_same_name_is_refused() {
    let (ca, forged) = (Ca::new(), Ca::new());
    let origin = endpoint(&forged.server());
    let tls = format!("connect_timeout = '20s'\ntls = {}", trusting(&ca, ""));
    refused(
        origin.addr(),
        &tls,
        "its certificate is of a CA that is not trusted",
    );
}

#[test]
fn cas_of_the_system_do_not_know_our_own() {
    let origin = endpoint(&Ca::new().server());
    refused(
        origin.addr(),
        "connect_timeout = '20s'\ntls = true",
        "its certificate is of a CA that is not trusted",
    );
}

#[test]
fn pinned_key_is_wanted_beside_all_else() {
    let ca = Ca::new();
    let (own, other) = (ca.server(), ca.server());
    let origin = endpoint(&own);
    let pin = |issued: &Issued| format!("sha256/{}", BASE64.encode(&issued.pin));
    let right = trusting(
        &ca,
        &format!(", pin = ['{}', '{}']", pin(&other), pin(&own)),
    );
    trusted(origin.addr(), &right);
    let wrong = trusting(&ca, &format!(", pin = '{}'", pin(&other)));
    refused(
        origin.addr(),
        &format!("connect_timeout = '20s'\ntls = {wrong}"),
        &format!("its key is {}, which is not pinned", pin(&own)),
    );
}

#[test]
fn insecure_upstream_works_and_is_warned_of() {
    let stranger = Ca::named("stranger");
    let origin = endpoint(&stranger.issue(&Wanted::server(&["other"]).expired()));
    trusted(origin.addr(), "{ insecure = true }");
    let port = free_port();
    let binary = Binary::start(&format!(
        "[listeners.web]\nbind = '127.0.0.1:{port}'\nupstream = 'app'\n\
         [upstreams.app]\nendpoints = ['{}']\nconnect_timeout = '20s'\ntls = {{ insecure = true }}\n",
        origin.addr()
    ));
    binary.await_line("insecure");
    binary.await_line("try: curl");
    let addr = ([127, 0, 0, 1], port).into();
    assert_eq!(Client::get(addr, "/").text(), "secret");
}

#[test]
fn plaintext_endpoint_is_refused() {
    let ca = Ca::new();
    // Like a web server, it answers what it does not understand.
    let origin = Origin::build(|_: &Request| Vec::new())
        .greeting(|_| Greeting::Send(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()))
        .start();
    let tls = format!("connect_timeout = '20s'\ntls = {}", trusting(&ca, ""));
    refused(origin.addr(), &tls, "it does not speak TLS");
}

#[test]
fn endpoint_that_hangs_up_in_the_handshake_is_told_of() {
    let ca = Ca::new();
    // With all read that was said it is FIN, else RST.
    for reads in [64 * 1024, 1] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        // It ends with the process: nobody waits for it.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let _ = stream.read(&mut vec![0; reads]);
            }
        });
        let tls = format!("connect_timeout = '20s'\ntls = {}", trusting(&ca, ""));
        refused(addr, &tls, "it hung up in the handshake");
    }
}

#[test]
fn silent_endpoint_is_given_up_in_time() {
    let ca = Ca::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let tls = format!("connect_timeout = '300ms'\ntls = {}", trusting(&ca, ""));
    let proxy = Watched::over(silent.local_addr().unwrap(), "", &tls);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    expect_answer(&client.response(), Reason::ConnectTimeout);
    assert_eq!(proxy.proxy.metric(&failures("timeout")), 1.0);
}

#[test]
fn another_endpoint_is_tried() {
    let (ca, stranger) = (Ca::new(), Ca::named("stranger"));
    let (good, bad) = (endpoint(&ca.server()), endpoint(&stranger.server()));
    let plain = Origin::build(|_: &Request| Vec::new())
        .greeting(|_| Greeting::Send(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()))
        .start();
    let proxy = Proxy::over(
        &[bad.addr(), plain.addr(), good.addr()],
        &format!("connect_timeout = '20s'\ntls = {}", trusting(&ca, "")),
    );
    let mut client = Client::connect(proxy.addr());
    // A body as well: nothing of it has been sent to anybody.
    for _ in 0..6 {
        client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello");
        let response = client.response();
        assert_eq!(response.text(), "secret");
    }
    assert!(bad.requests().is_empty());
    assert!(proxy.metric(&failures("tls")) >= 2.0);
}

#[test]
fn client_certificate_is_shown_to_who_asks() {
    let (ca, clients) = (Ca::new(), Ca::named("clients"));
    let me = clients.issue(&Wanted::client("proxy"));
    let identity = format!(
        ", cert = '{}', key = '{}'",
        me.cert.display(),
        me.key.display()
    );
    for version in [&TLS12, &TLS13] {
        let origin = Origin::build(|_: &Request| origin::reply(200, "secret"))
            .tls(server(&ca.server(), &[version], Some(&clients)))
            .start();
        trusted(origin.addr(), &trusting(&ca, &identity));
    }
    // Nobody asks: nothing is shown, and nothing is wrong.
    let origin = endpoint(&ca.server());
    trusted(origin.addr(), &trusting(&ca, &identity));
}

#[test]
fn client_certificate_that_is_missing_or_wrong_is_told() {
    let (ca, clients) = (Ca::new(), Ca::named("clients"));
    let stranger = Ca::named("stranger");
    let mallory = stranger.issue(&Wanted::client("mallory"));
    let wrong = format!(
        ", cert = '{}', key = '{}'",
        mallory.cert.display(),
        mallory.key.display()
    );
    // TLS 1.3 tells where the answer is due.
    for version in [&TLS12, &TLS13] {
        let origin = Origin::build(|_: &Request| origin::reply(200, "secret"))
            .tls(server(&ca.server(), &[version], Some(&clients)))
            .start();
        refused(
            origin.addr(),
            &format!("connect_timeout = '20s'\ntls = {}", trusting(&ca, "")),
            "it wants a client certificate",
        );
        refused(
            origin.addr(),
            &format!("connect_timeout = '20s'\ntls = {}", trusting(&ca, &wrong)),
            "it does not trust the CA of our client certificate",
        );
        assert!(origin.requests().is_empty());
    }
}
