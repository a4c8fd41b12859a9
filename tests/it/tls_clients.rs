//! Clients that are asked for a certificate: who comes in, who does not, and how each learns why.

use crate::support::certs::{Ca, Issued, Wanted, listener_tls};
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::need;
use crate::support::openssl::s_client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::tls::{Offer, V12, V13};
use crate::support::watched::Watched;

/// Handshakes that ended in this way.
fn ended(proxy: &Proxy, result: &str) -> f64 {
    proxy.metric(&format!(
        "isobar_tls_handshakes_total{{listener=\"web\",result=\"{result}\"}}"
    ))
}

/// What a client gets that shows `own`, or the alert.
fn ask(proxy: &Proxy, ca: &Ca, own: Option<&Issued>, is_v12: bool) -> Result<String, String> {
    let offer = Offer::build(ca).versions(if is_v12 { V12 } else { V13 });
    let offer = match own {
        Some(own) => offer.own(own),
        None => offer,
    };
    let mut client = match Client::try_secure(proxy.addr(), &offer.done(), "localhost") {
        Ok(client) => client,
        Err(broken) => return Err(format!("{broken:?}")),
    };
    // In TLS 1.3 the alert comes after the client's last word.
    client.try_send("GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    let broken = client.broken_or_all();
    match broken {
        Ok(all) => Ok(String::from_utf8_lossy(&all).into_owned()),
        Err(broken) => Err(format!("{broken:?}")),
    }
}

#[track_caller]
fn admitted(proxy: &Proxy, ca: &Ca, own: Option<&Issued>) {
    for is_v12 in [true, false] {
        let said = ask(proxy, ca, own, is_v12);
        assert!(
            said.as_ref().is_ok_and(|s| s.starts_with("HTTP/1.1 200")),
            "{said:?}"
        );
    }
}

/// Each version gets its alert, and the failures are counted.
#[track_caller]
fn refused(proxy: &Proxy, ca: &Ca, own: Option<&Issued>, alerts: [&str; 2]) {
    let before = ended(proxy, "certificate");
    for (is_v12, alert) in [(true, alerts[0]), (false, alerts[1])] {
        let said = ask(proxy, ca, own, is_v12);
        let is_it = said.as_ref().is_err_and(|e| e.contains(alert));
        assert!(is_it, "{said:?} instead of {alert}");
    }
    // Counted once the alert is out.
    eventually("two failures", || {
        ended(proxy, "certificate") == before + 2.0
    });
}

#[test]
fn required_certificate_is_checked() {
    let (ca, clients, stranger) = (Ca::new(), Ca::named("clients"), Ca::named("stranger"));
    let origin = Origin::named("a");
    let tls = listener_tls(
        &[&ca.server()],
        &format!(", client_ca = '{}'", clients.file.display()),
    );
    let proxy = Watched::over(origin.addr(), &tls, "");
    let proxy = &proxy.proxy;
    admitted(proxy, &ca, Some(&clients.issue(&Wanted::client("alice"))));
    let rsa = clients.issue(&Wanted::client("rita").rsa());
    admitted(proxy, &ca, Some(&rsa));
    refused(proxy, &ca, None, ["CertificateRequired"; 2]);
    let mallory = stranger.issue(&Wanted::client("mallory"));
    refused(proxy, &ca, Some(&mallory), ["UnknownCA"; 2]);
    let old = clients.issue(&Wanted::client("old").expired());
    refused(proxy, &ca, Some(&old), ["CertificateExpired"; 2]);
    let early = clients.issue(&Wanted::client("early").not_yet());
    refused(proxy, &ca, Some(&early), ["CertificateExpired"; 2]);
    let server = clients.issue(&Wanted::server(&["a.test"]));
    refused(proxy, &ca, Some(&server), ["UnsupportedCertificate"; 2]);
}

#[test]
fn requested_certificate_may_be_missing_but_not_wrong() {
    let (ca, clients, stranger) = (Ca::new(), Ca::named("clients"), Ca::named("stranger"));
    let origin = Origin::named("a");
    let tls = listener_tls(
        &[&ca.server()],
        &format!(
            ", client_ca = '{}', client_auth = 'request'",
            clients.file.display()
        ),
    );
    let proxy = Watched::over(origin.addr(), &tls, "");
    let proxy = &proxy.proxy;
    admitted(proxy, &ca, Some(&clients.issue(&Wanted::client("alice"))));
    admitted(proxy, &ca, None);
    let mallory = stranger.issue(&Wanted::client("mallory"));
    refused(proxy, &ca, Some(&mallory), ["UnknownCA"; 2]);
    let old = clients.issue(&Wanted::client("old").expired());
    refused(proxy, &ca, Some(&old), ["CertificateExpired"; 2]);
}

#[test]
fn several_cas_vouch_each_for_its_own() {
    let (ca, one, two) = (Ca::new(), Ca::named("one"), Ca::named("two"));
    let origin = Origin::named("a");
    let tls = listener_tls(
        &[&ca.server()],
        &format!(
            ", client_ca = ['{}', '{}']",
            one.file.display(),
            two.file.display()
        ),
    );
    let proxy = Watched::over(origin.addr(), &tls, "");
    let proxy = &proxy.proxy;
    for clients in [&one, &two] {
        admitted(proxy, &ca, Some(&clients.issue(&Wanted::client("alice"))));
    }
    let mallory = Ca::named("three").issue(&Wanted::client("mallory"));
    refused(proxy, &ca, Some(&mallory), ["UnknownCA"; 2]);
}

#[test]
fn revoked_certificates_are_refused_and_others_of_the_ca_are_not() {
    let (ca, one, two) = (Ca::new(), Ca::named("one"), Ca::named("two"));
    let origin = Origin::named("a");
    let (alice, mallory) = (
        one.issue(&Wanted::client("alice")),
        one.issue(&Wanted::client("mallory")),
    );
    let bob = two.issue(&Wanted::client("bob"));
    let lists = [
        one.write("revoked.pem", one.revokes(&[&mallory])),
        two.write("revoked.pem", two.revokes(&[])),
    ];
    let tls = listener_tls(
        &[&ca.server()],
        &format!(
            ", client_ca = ['{}', '{}'], client_crl = ['{}', '{}']",
            one.file.display(),
            two.file.display(),
            lists[0].display(),
            lists[1].display()
        ),
    );
    let proxy = Watched::over(origin.addr(), &tls, "");
    let proxy = &proxy.proxy;
    admitted(proxy, &ca, Some(&alice));
    admitted(proxy, &ca, Some(&bob));
    refused(proxy, &ca, Some(&mallory), ["CertificateRevoked"; 2]);
}

#[test]
fn openssl_is_told_whom_to_be_and_why_not() {
    let Some(openssl) = need("openssl") else {
        return;
    };
    let (ca, clients) = (Ca::new(), Ca::named("clients"));
    let origin = Origin::named("a");
    let tls = listener_tls(
        &[&ca.server()],
        &format!(", client_ca = '{}'", clients.file.display()),
    );
    let proxy = Watched::over(origin.addr(), &tls, "");
    let alice = clients.issue(&Wanted::client("alice"));
    let (cert, key) = (alice.cert.to_string_lossy(), alice.key.to_string_lossy());
    for version in ["-tls1_2", "-tls1_3"] {
        let said = s_client(&openssl, proxy.addr(), &[version]);
        assert!(said.contains("CN = clients"), "names of CAs: {said}");
        assert!(said.contains("certificate required"), "{said}");
        let args = [version, "-cert", &cert, "-key", &key];
        let said = s_client(&openssl, proxy.addr(), &args);
        assert!(said.contains("HTTP/1.1 200"), "{said}");
    }
}
