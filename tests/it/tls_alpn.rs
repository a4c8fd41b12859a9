//! Which application protocol clients and listeners agree on.

use crate::support::certs::{Ca, listener_tls};
use crate::support::client::Client;
use crate::support::need;
use crate::support::openssl::{Tool, s_client};
use crate::support::origin::Origin;
use crate::support::tls::{Offer, V12, V13};
use crate::support::watched::Watched;
use crate::support::wire::Broken;

fn start(more: &str, listener: &str) -> (Ca, Origin, Watched) {
    let (ca, origin) = (Ca::new(), Origin::named("a"));
    let tls = listener_tls(&[&ca.server()], more);
    let proxy = Watched::over(origin.addr(), &format!("{tls}\n{listener}"), "");
    (ca, origin, proxy)
}

/// What a client of both versions gets that offers this.
#[track_caller]
fn expect(ca: &Ca, proxy: &Watched, offered: &[&str], agreed: Option<&str>) {
    for versions in [V12, V13] {
        let offer = Offer::build(ca).versions(versions).alpn(offered).done();
        let mut client = Client::secure(proxy.addr(), &offer, "localhost");
        let protocol = client.tls().alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(
            protocol.as_deref(),
            agreed.map(str::as_bytes),
            "{offered:?}"
        );
        if agreed != Some("h2") {
            assert_eq!(client.request("GET", "/").text(), "a");
        }
    }
}

/// The alert, to a client of both versions that offers this.
#[track_caller]
fn expect_refusal(ca: &Ca, proxy: &Watched, offered: &[&str]) {
    for versions in [V12, V13] {
        let offer = Offer::build(ca).versions(versions).alpn(offered).done();
        match Client::try_secure(proxy.addr(), &offer, "localhost") {
            Err(Broken::Tls(why)) => assert!(why.contains("NoApplicationProtocol"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn http_2_is_preferred_and_http_1_is_spoken_without_a_word() {
    let (ca, _origin, proxy) = start("", "");
    expect(&ca, &proxy, &["http/1.1", "h2"], Some("h2"));
    expect(&ca, &proxy, &["h2"], Some("h2"));
    expect(&ca, &proxy, &["http/1.1"], Some("http/1.1"));
    expect(&ca, &proxy, &["spdy/3", "http/1.1"], Some("http/1.1"));
    expect(&ca, &proxy, &[], None);
    expect_refusal(&ca, &proxy, &["imap"]);
    expect_refusal(&ca, &proxy, &["http/0.9", "h2c"]);
    proxy.await_metric(
        "isobar_tls_handshakes_total{listener=\"web\",result=\"no_protocol\"}",
        4.0,
    );
}

#[test]
fn listener_without_http_2_does_not_offer_it() {
    let (ca, _origin, proxy) = start("", "http2 = \"off\"");
    expect(&ca, &proxy, &["h2", "http/1.1"], Some("http/1.1"));
    expect_refusal(&ca, &proxy, &["h2"]);
}

#[test]
fn order_of_the_configuration_is_that_of_preference() {
    let (ca, _origin, proxy) = start(", alpn = ['http/1.1', 'h2']", "");
    expect(&ca, &proxy, &["h2", "http/1.1"], Some("http/1.1"));
    expect(&ca, &proxy, &["h2"], Some("h2"));
}

#[test]
fn openssl_is_told_the_protocol_or_the_alert() {
    let Some(openssl) = need("openssl") else {
        return;
    };
    let (_ca, _origin, proxy) = start("", "");
    for version in ["-tls1_2", "-tls1_3"] {
        let said = s_client(&openssl, proxy.addr(), &[version, "-alpn", "http/1.1"]);
        assert!(said.contains("ALPN protocol: http/1.1"), "{said}");
        assert!(said.contains("HTTP/1.1 200"), "{said}");
        let said = s_client(&openssl, proxy.addr(), &[version]);
        assert!(said.contains("No ALPN negotiated"), "{said}");
        assert!(said.contains("HTTP/1.1 200"), "{said}");
        let said = s_client(&openssl, proxy.addr(), &[version, "-alpn", "imap"]);
        assert!(said.contains("no application protocol"), "{said}");
    }
}

#[test]
fn curl_speaks_both_versions_of_http() {
    let Some(curl) = need("curl") else {
        return;
    };
    let (ca, _origin, proxy) = start("", "");
    let url = format!("https://localhost:{}/", proxy.addr().port());
    let file = ca.file.to_string_lossy();
    for (how, version) in [("--http1.1", "1.1"), ("--http2", "2"), ("--http1.0", "1.1")] {
        let args = [
            "-sS",
            "--max-time",
            "25",
            "-4",
            "--noproxy",
            "*",
            "--cacert",
            &*file,
            how,
            "-w",
            " by %{http_version}",
            &*url,
        ];
        let (status, said) = Tool::run(&curl, &args);
        assert!(status.success(), "{said}");
        assert_eq!(said, format!("a by {version}"), "{how}");
    }
}
