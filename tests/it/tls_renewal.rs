//! Certificates that change while they are served, OCSP responses, and what metrics tell of both.

use std::net::SocketAddr;
use std::path::Path;

use rustls::HandshakeKind;

use crate::support::binary::{Binary, free_port};
use crate::support::certs::{Ca, Issued, Wanted, listener_tls, put};
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::need;
use crate::support::openssl::s_client;
use crate::support::origin::Origin;
use crate::support::tls::{Offer, V12, V13};

/// The value of a series at `admin`.
fn metric(admin: SocketAddr, series: &str) -> f64 {
    let text = Client::get(admin, "/metrics").text();
    text.lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
        .unwrap_or(0.0)
}

/// What a new client of either version is shown.
#[track_caller]
fn expect_certificate(addr: SocketAddr, ca: &Ca, wanted: &Issued) {
    for versions in [V12, V13] {
        let mut client = Client::secure(addr, &Offer::of(ca, versions), "localhost");
        assert_eq!(client.request("GET", "/").text(), "a");
        let shown = client.tls().peer_certificates().expect("a chain");
        assert!(shown[0] == wanted.der, "another certificate");
    }
}

/// A client with a certificate: whether it is let in by a ticket, or by its certificate, or not at all.
fn come_in(addr: SocketAddr, offer: &Offer) -> Option<HandshakeKind> {
    let mut client = Client::try_secure(addr, offer, "localhost").ok()?;
    client.try_send("GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    let all = client.broken_or_all().ok()?;
    assert!(all.starts_with(b"HTTP/1.1 200"));
    client.tls().handshake_kind()
}

/// The files are looked at every 10 s, so one test has all that can happen to them.
#[test]
fn files_that_change_are_served_once_they_are_whole() {
    let (ca, clients) = (Ca::new(), Ca::named("clients"));
    let origin = Origin::named("a");
    let (fresh, newer) = (ca.server(), ca.server());
    let (broken, mended) = (ca.server(), ca.server());
    let expired = ca.issue(&Wanted::server(&["old.test"]).expired());
    let alice = clients.issue(&Wanted::client("alice"));
    let list = clients.write("revoked.pem", clients.revokes(&[]));
    let ports: Vec<u16> = (0..5).map(|_| free_port()).collect();
    let at = |n: usize| SocketAddr::from(([127, 0, 0, 1], ports[n]));
    let listener = |n: usize, name: &str, tls: &str| {
        format!(
            "[listeners.{name}]\nbind = '{}'\nupstream = 'app'\n{tls}\n",
            at(n)
        )
    };
    let asking = format!(
        ", client_ca = '{}', client_crl = '{}'",
        clients.file.display(),
        list.display()
    );
    let toml = [
        format!("[process]\nworkers = 1\n[admin]\nbind = '{}'\n", at(0)),
        listener(1, "fresh", &listener_tls(&[&fresh], "")),
        listener(2, "broken", &listener_tls(&[&broken], "")),
        listener(3, "asking", &listener_tls(&[&ca.server()], &asking)),
        listener(4, "expired", &listener_tls(&[&expired], "")),
        format!("[upstreams.app]\nendpoints = ['{}']\n", origin.addr()),
    ]
    .concat();
    let binary = Binary::start(&toml);
    binary.await_line("try: curl");
    let admin = at(0);
    let is = |series: &str| metric(admin, &format!("isobar_tls_certificate_{series}"));

    // As it was started.
    assert!(binary.await_line("has expired").contains("old.test"));
    let until = |listener: &str, name: &str| {
        let of = format!("{{listener=\"{listener}\",certificate=\"{name}\"}}");
        is(&format!("not_after_timestamp_seconds{of}"))
    };
    assert_eq!(until("fresh", "localhost"), 67_090_118_400.0, "of 4096");
    assert_eq!(until("expired", "old.test"), 189_302_400.0, "of 1976");
    expect_certificate(at(1), &ca, &fresh);
    expect_certificate(at(2), &ca, &broken);
    let mut kept = Client::secure(at(1), &Offer::trusting(&ca), "localhost");
    assert_eq!(kept.request("GET", "/").text(), "a");
    let offers = [V12, V13].map(|v| Offer::build(&ca).versions(v).own(&alice).done());
    for offer in &offers {
        assert_eq!(come_in(at(3), offer), Some(HandshakeKind::Full));
        assert_eq!(come_in(at(3), offer), Some(HandshakeKind::Resumed));
    }

    // One pair is new, of one the key alone, and a client is revoked.
    newer.replace(&fresh);
    put(&mended.key, &broken.key);
    put(&clients.write("list", clients.revokes(&[&alice])), &list);
    let renewals = |listener: &str, result: &str| {
        is(&format!(
            "renewals_total{{listener=\"{listener}\",result=\"{result}\"}}"
        ))
    };
    eventually(
        "the new pair, the broken one and the list are noticed",
        || {
            renewals("fresh", "ok") >= 1.0
                && renewals("broken", "failed") >= 1.0
                && renewals("asking", "ok") >= 1.0
        },
    );
    assert_eq!(is("renewal_failing{listener=\"fresh\"}"), 0.0);
    assert_eq!(is("renewal_failing{listener=\"broken\"}"), 1.0);
    binary.await_line("listener `fresh`: certificates renewed: localhost, 127.0.0.1 until 4096");
    let line = binary.await_line("listener `broken`: its certificate files have changed");
    assert!(line.contains("ERROR"), "{line}");
    assert!(line.contains(&*broken.key.to_string_lossy()), "{line}");
    expect_certificate(at(1), &ca, &newer);
    expect_certificate(at(2), &ca, &broken);
    assert_eq!(kept.request("GET", "/").text(), "a", "who is in stays in");
    for offer in &offers {
        assert_eq!(come_in(at(3), offer), None, "not by a ticket either");
    }

    // The certificate of the new key comes as well.
    put(&mended.cert, &broken.cert);
    eventually("the mended pair is served", || {
        is("renewal_failing{listener=\"broken\"}") == 0.0
    });
    assert_eq!(renewals("broken", "ok"), 1.0);
    expect_certificate(at(2), &ca, &mended);
    let output = binary.output();
    let errors = output.matches("listener `broken`: its certificate files have changed");
    assert_eq!(errors.count(), 1, "said once: {output}");
}

#[test]
fn ocsp_response_is_sent_to_who_asks() {
    let Some(openssl) = need("openssl") else {
        return;
    };
    let (ca, origin) = (Ca::new(), Origin::named("a"));
    let (stapled, plain) = (ca.server(), ca.issue(&Wanted::server(&["plain.test"])));
    let staple = ca.write("staple", ca.staple(&openssl, &stapled));
    let tls = format!(
        "tls = {{ certificates = [{{ cert = '{}', key = '{}', ocsp = '{}' }}, {}] }}",
        stapled.cert.display(),
        stapled.key.display(),
        staple.display(),
        plain.toml()
    );
    let proxy = crate::support::watched::Watched::over(origin.addr(), &tls, "");
    let file = ca.file.to_string_lossy();
    for version in ["-tls1_2", "-tls1_3"] {
        let ask = |name: &str| {
            let args = [version, "-status", "-CAfile", &file, "-servername", name];
            s_client(&openssl, proxy.addr(), &args)
        };
        let said = ask("localhost");
        assert!(said.contains("OCSP Response Status: successful"), "{said}");
        assert!(said.contains("Cert Status: good"), "{said}");
        assert!(said.contains("HTTP/1.1 200"), "{said}");
        let said = ask("plain.test");
        assert!(said.contains("OCSP response: no response sent"), "{said}");
        assert!(said.contains("HTTP/1.1 200"), "{said}");
        let args = [version, "-servername", "localhost"];
        let said = s_client(&openssl, proxy.addr(), &args);
        assert!(!said.contains("OCSP Response Status"), "{said}");
    }
}

#[test]
fn pair_that_does_not_match_is_refused_at_the_start() {
    let ca = Ca::new();
    let (one, other) = (ca.server(), ca.server());
    let toml = |cert: &Path, key: &Path| {
        format!(
            "[listeners.web]\nbind = '127.0.0.1:1'\nupstream = 'app'\n\
             tls = {{ certificates = [{{ cert = '{}', key = '{}' }}] }}\n\
             [upstreams.app]\nendpoints = ['127.0.0.1:2']\n",
            cert.display(),
            key.display()
        )
    };
    let missing = ca.folder().join("missing.key");
    for key in [&other.key, &missing, &one.cert] {
        let file = ca.write("isobar.toml", toml(&one.cert, key));
        let out = crate::support::binary::run(&["check", &file.to_string_lossy()]);
        let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success(), "{said}");
        assert!(said.contains(&*key.to_string_lossy()), "{said}");
    }
}
