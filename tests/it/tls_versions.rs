//! Which version of TLS, and which key exchange, clients and listeners agree on.

use rustls::crypto::aws_lc_rs::kx_group;
use rustls::{NamedGroup, ProtocolVersion};

use crate::support::certs::{Ca, listener_tls};
use crate::support::client::Client;
use crate::support::need;
use crate::support::openssl::s_client;
use crate::support::origin::Origin;
use crate::support::tls::{BOTH, Offer, V12, V13};
use crate::support::watched::Watched;

#[test]
fn both_versions_are_spoken_and_counted() {
    let Some(openssl) = need("openssl") else {
        return;
    };
    let (ca, origin) = (Ca::new(), Origin::named("a"));
    let proxy = Watched::over(origin.addr(), &listener_tls(&[&ca.server()], ""), "");
    let file = ca.file.to_string_lossy();
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let args = [version, "-CAfile", &file, "-servername", "localhost"];
        let said = s_client(&openssl, proxy.addr(), &args);
        assert!(said.contains(&format!("New, {name}")), "{said}");
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        assert!(said.contains("HTTP/1.1 200"), "{said}");
    }
    for version in ["1.2", "1.3"] {
        proxy.await_metric(
            &format!("isobar_tls_connections_total{{listener=\"web\",version=\"{version}\"}}"),
            1.0,
        );
    }
    proxy.await_metric(
        "isobar_tls_handshakes_total{listener=\"web\",result=\"full\"}",
        2.0,
    );
    proxy.await_metric(
        "isobar_tls_handshake_duration_seconds_count{listener=\"web\"}",
        2.0,
    );
}

#[test]
fn older_versions_than_wanted_are_refused_with_their_alert() {
    let Some(openssl) = need("openssl") else {
        return;
    };
    let (ca, origin) = (Ca::new(), Origin::named("a"));
    let tls = listener_tls(&[&ca.server()], ", min_version = '1.3'");
    let proxy = Watched::over(origin.addr(), &tls, "");
    let said = s_client(&openssl, proxy.addr(), &["-tls1_2"]);
    assert!(said.contains("alert protocol version"), "{said}");
    let said = s_client(&openssl, proxy.addr(), &["-tls1_3"]);
    assert!(said.contains("HTTP/1.1 200"), "{said}");
    proxy.await_metric(
        "isobar_tls_handshakes_total{listener=\"web\",result=\"version\"}",
        1.0,
    );
}

#[test]
fn tls_1_1_is_refused_and_counted_as_too_old() {
    let Some(openssl) = need("openssl") else {
        return;
    };
    let (ca, origin) = (Ca::new(), Origin::named("a"));
    let proxy = Watched::over(origin.addr(), &listener_tls(&[&ca.server()], ""), "");
    // Its own library refuses to speak it above level 0.
    let args = ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"];
    let said = s_client(&openssl, proxy.addr(), &args);
    // It has no signature_algorithms, and rustls finds that first.
    assert!(said.contains("alert handshake failure"), "{said}");
    proxy.await_metric(
        "isobar_tls_handshakes_total{listener=\"web\",result=\"version\"}",
        1.0,
    );
}

#[test]
fn newest_version_is_taken_and_each_alone_too() {
    let (ca, origin) = (Ca::new(), Origin::named("a"));
    let proxy = Watched::over(origin.addr(), &listener_tls(&[&ca.server()], ""), "");
    let cases = [
        (BOTH, ProtocolVersion::TLSv1_3),
        (V13, ProtocolVersion::TLSv1_3),
        (V12, ProtocolVersion::TLSv1_2),
    ];
    for (versions, agreed) in cases {
        let mut client = Client::secure(proxy.addr(), &Offer::of(&ca, versions), "localhost");
        assert_eq!(client.tls().protocol_version(), Some(agreed));
        assert_eq!(client.request("GET", "/").text(), "a");
    }
}

#[test]
fn post_quantum_key_exchange_is_taken_from_who_offers_it() {
    let (ca, origin) = (Ca::new(), Origin::named("a"));
    let proxy = Watched::over(origin.addr(), &listener_tls(&[&ca.server()], ""), "");
    let cases = [
        (NamedGroup::X25519MLKEM768, kx_group::X25519MLKEM768),
        (NamedGroup::X25519, kx_group::X25519),
        (NamedGroup::secp256r1, kx_group::SECP256R1),
        (NamedGroup::secp384r1, kx_group::SECP384R1),
    ];
    for (name, group) in cases {
        let offer = Offer::build(&ca).groups(&[group]).done();
        let mut client = Client::secure(proxy.addr(), &offer, "localhost");
        let agreed = client.tls().negotiated_key_exchange_group().unwrap();
        assert_eq!(agreed.name(), name);
        assert_eq!(client.request("GET", "/").text(), "a");
    }
    // Who offers both, in whatever order, and has sent a share of the older one only, is asked again.
    let both = [kx_group::X25519, kx_group::X25519MLKEM768];
    let offer = Offer::build(&ca).groups(&both).done();
    let mut client = Client::secure(proxy.addr(), &offer, "localhost");
    assert_eq!(client.request("GET", "/").text(), "a");
}
