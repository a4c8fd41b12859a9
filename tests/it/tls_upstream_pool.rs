//! TLS connections to endpoints that are kept: used again, given up when they must be.

use rustls::version::{TLS12, TLS13};

use crate::support::certs::{Ca, Wanted};
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::origin::{self, Origin, Request, Step};
use crate::support::proxy::Proxy;
use crate::support::tls::server;

#[test]
fn kept_connections_are_used_again_in_each_version() {
    let ca = Ca::new();
    for version in [&TLS12, &TLS13] {
        // In TLS 1.3 a server sends tickets after the handshake, before its first answer or while
        // the connection is idle: no reason to give it up.
        let origin = Origin::build(|_: &Request| origin::reply(200, "a"))
            .tls(server(&ca.server(), &[version], None))
            .start();
        let tls = format!(
            "connect_timeout = '20s'\ntls = {{ ca = '{}' }}",
            ca.file.display()
        );
        let proxy = Proxy::over(&[origin.addr()], &tls);
        for n in 0..20 {
            // Clients come and go; the endpoint's connection stays.
            assert_eq!(Client::get(proxy.addr(), "/").text(), "a");
            origin.await_done(n);
        }
        assert_eq!(origin.accepted(), 1);
    }
}

#[test]
fn connection_that_the_endpoint_closed_is_not_used() {
    let ca = Ca::new();
    // With close_notify, and without.
    for last in [Step::Finish, Step::Close] {
        let origin = Origin::build(move |_: &Request| {
            let answer = Step::Send(origin::response(200, "a"));
            vec![Step::ReadBody, answer, last.clone(), Step::Close]
        });
        let origin = origin.tls(server(&ca.server(), &[&TLS13], None)).start();
        let tls = format!(
            "connect_timeout = '20s'\ntls = {{ ca = '{}' }}",
            ca.file.display()
        );
        let proxy = Proxy::over(&[origin.addr()], &tls);
        let mut client = Client::connect(proxy.addr());
        for n in 0..10 {
            // POST is not repeated: a connection that has ended is known before.
            client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx");
            assert_eq!(client.response().text(), "a");
            origin.await_done(n);
            origin.await_open(0);
        }
        assert_eq!(origin.accepted(), 10);
    }
}

#[test]
fn reload_with_other_tls_does_not_use_old_connections() {
    let ca = Ca::new();
    let own = ca.issue(&Wanted::server(&["one.test", "two.test"]));
    let origin = Origin::build(|_: &Request| origin::reply(200, "a"))
        .tls(server(&own, &[&TLS13], None))
        .start();
    let toml = |name: &str, more: &str| {
        Proxy::config_over(
            &[origin.addr()],
            &format!(
                "{more}\nconnect_timeout = '20s'\ntls = {{ ca = '{}', server_name = '{name}' }}",
                ca.file.display()
            ),
        )
    };
    let proxy = Proxy::start(&toml("one.test", ""));
    let mut client = Client::connect(proxy.addr());
    let mut n = 0;
    let mut ask = || {
        let response = client.request("GET", "/");
        if response.status() == 200 {
            origin.await_done(n);
            n += 1;
        }
        (response.status(), origin.accepted())
    };
    assert_eq!(ask(), (200, 1));
    assert_eq!(ask(), (200, 1));
    // Nothing of TLS is another: the connection stays.
    proxy.reload(&toml("one.test", "idle_timeout = '59s'"));
    assert_eq!(ask(), (200, 1));
    proxy.reload(&toml("two.test", ""));
    assert_eq!(ask(), (200, 2));
    // Who must not be believed any more is not, though there was a connection.
    proxy.reload(&toml("three.test", ""));
    assert_eq!(ask().0, 502);
    eventually("old connections are closed", || origin.open() == 0);
}

#[test]
fn reload_with_another_ca_in_the_same_file_believes_only_that() {
    let (old, new) = (Ca::named("old"), Ca::named("new"));
    let origin = Origin::build(|_: &Request| origin::reply(200, "a"))
        .tls(server(&old.server(), &[&TLS13], None))
        .start();
    let toml = Proxy::config_over(
        &[origin.addr()],
        &format!(
            "connect_timeout = '20s'\ntls = {{ ca = '{}' }}",
            old.file.display()
        ),
    );
    let proxy = Proxy::start(&toml);
    let mut client = Client::connect(proxy.addr());
    assert_eq!(client.request("GET", "/").status(), 200);
    std::fs::copy(&new.file, &old.file).unwrap();
    proxy.reload(&toml);
    assert_eq!(client.request("GET", "/").status(), 502);
}

#[test]
fn checks_speak_the_tls_of_their_upstream() {
    let (ca, stranger) = (Ca::new(), Ca::named("stranger"));
    let serve = |ca: &Ca| {
        Origin::build(|_: &Request| origin::reply(200, "a"))
            .tls(server(&ca.server(), &[&TLS13], None))
            .start()
    };
    let (good, bad) = (serve(&ca), serve(&stranger));
    let proxy = Proxy::over(
        &[good.addr(), bad.addr()],
        &format!(
            "connect_timeout = '20s'\ntls = {{ ca = '{}' }}\nhealth = {{ check = 'http', interval = '10s', \
             down_interval = '10s', timeout = '10s', rise = 1, fall = 1 }}",
            ca.file.display()
        ),
    );
    let result = |n: usize| {
        let view = proxy.operations().upstream("app").unwrap();
        let observed = view.endpoints[n].observed.as_ref().unwrap();
        observed.last_check.as_ref().map(|check| check.result)
    };
    eventually("both are checked", || {
        result(0).is_some() && result(1).is_some()
    });
    let both = [result(0), result(1)];
    assert!(
        both.contains(&Some("ok")) && both.contains(&Some("tls")),
        "{both:?}"
    );
    assert!(bad.requests().is_empty());
}
