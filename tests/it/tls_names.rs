//! Which certificate a client gets: by the name it asks for, and by what it can check.

use crate::support::certs::{Ca, Issued, Wanted, listener_tls};
use crate::support::client::Client;
use crate::support::openssl::s_client;
use crate::support::origin::Origin;
use crate::support::tls::{Offer, V12, V13};
use crate::support::watched::Watched;
use crate::support::{find, need};

/// The subject of the certificate that openssl was shown.
#[track_caller]
fn subject_in(said: &str) -> &str {
    let at = said.find("subject=").expect("a certificate");
    said[at..].lines().next().unwrap_or_default()
}

fn named(ca: &Ca, subject: &str, names: &[&str]) -> Issued {
    ca.issue(&Wanted::server(names).subject(subject))
}

#[test]
fn certificate_is_chosen_by_the_name_asked_for() {
    let Some(openssl) = need("openssl") else {
        return;
    };
    let (ca, origin) = (Ca::new(), Origin::named("a"));
    let first = named(&ca, "first", &["first.test"]);
    let exact = named(&ca, "exact", &["www.site.test"]);
    let wild = named(&ca, "wild", &["*.site.test"]);
    let tls = listener_tls(&[&first, &wild, &exact], "");
    let proxy = Watched::over(origin.addr(), &tls, "");
    let cases = [
        (Some("first.test"), "first"),
        (Some("www.site.test"), "exact"),
        (Some("WWW.Site.Test"), "exact"),
        (Some("other.site.test"), "wild"),
        // `*` stands for one label.
        (Some("a.b.site.test"), "first"),
        (Some("site.test"), "first"),
        (Some("unknown.test"), "first"),
        (None, "first"),
    ];
    for version in ["-tls1_2", "-tls1_3"] {
        for (name, wanted) in cases {
            let args = match name {
                Some(name) => vec![version, "-servername", name],
                None => vec![version, "-noservername"],
            };
            let said = s_client(&openssl, proxy.addr(), &args);
            let subject = format!("subject=CN = {wanted}");
            assert_eq!(subject_in(&said), subject, "{version} {name:?}");
            assert!(said.contains("HTTP/1.1 200"), "{version} {name:?}: {said}");
        }
    }
}

#[test]
fn rsa_and_ecdsa_stand_side_by_side() {
    let Some(openssl) = need("openssl") else {
        return;
    };
    let (ca, origin) = (Ca::new(), Origin::named("a"));
    let ecdsa = named(&ca, "ecdsa", &["localhost"]);
    let rsa = ca.issue(&Wanted::server(&["localhost"]).subject("rsa").rsa());
    let proxy = Watched::over(origin.addr(), &listener_tls(&[&ecdsa, &rsa], ""), "");
    let cases = [
        ("-tls1_2", "ECDSA+SHA256", "ecdsa"),
        ("-tls1_2", "RSA+SHA256", "rsa"),
        ("-tls1_2", "RSA-PSS+SHA256", "rsa"),
        ("-tls1_2", "RSA+SHA256:ECDSA+SHA256", "ecdsa"),
        ("-tls1_3", "ECDSA+SHA256", "ecdsa"),
        ("-tls1_3", "RSA-PSS+SHA256", "rsa"),
        ("-tls1_3", "RSA-PSS+SHA256:ECDSA+SHA256", "ecdsa"),
    ];
    for (version, algorithms, wanted) in cases {
        for name in ["localhost", "unknown.test"] {
            let args = [version, "-sigalgs", algorithms, "-servername", name];
            let said = s_client(&openssl, proxy.addr(), &args);
            let subject = format!("subject=CN = {wanted}");
            assert_eq!(subject_in(&said), subject, "{version} {algorithms} {name}");
        }
    }
}

#[test]
fn client_that_can_check_no_certificate_is_told() {
    let Some(openssl) = need("openssl") else {
        return;
    };
    let (ca, origin) = (Ca::new(), Origin::named("a"));
    let proxy = Watched::over(origin.addr(), &listener_tls(&[&ca.server()], ""), "");
    for version in ["-tls1_2", "-tls1_3"] {
        let args = [version, "-sigalgs", "RSA-PSS+SHA256"];
        let said = s_client(&openssl, proxy.addr(), &args);
        assert!(said.contains("handshake failure"), "{said}");
    }
    proxy.await_metric(
        "isobar_tls_handshakes_total{listener=\"web\",result=\"protocol\"}",
        2.0,
    );
}

#[test]
fn addresses_have_certificates_as_well() {
    let (ca, origin) = (Ca::new(), Origin::named("a"));
    let proxy = Watched::over(origin.addr(), &listener_tls(&[&ca.server()], ""), "");
    for versions in [V12, V13] {
        // No SNI: an address is not a name.
        let mut client = Client::secure(proxy.addr(), &Offer::of(&ca, versions), "127.0.0.1");
        assert_eq!(client.request("GET", "/").text(), "a");
    }
    // And curl, by its own library.
    if let Some(curl) = find("curl") {
        let url = format!("https://{}/", proxy.addr());
        let file = ca.file.to_string_lossy();
        let args = ["-sS", "--max-time", "25", "--cacert", &*file, &*url];
        let (status, said) = crate::support::openssl::Tool::run(&curl, &args);
        assert!(status.success(), "{said}");
        assert_eq!(said, "a");
    }
}
