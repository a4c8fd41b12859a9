//! What endpoints are told of a client's certificate, and that no client can say it for itself.

use data_encoding::{BASE64, HEXLOWER};
use rustls::HandshakeKind;
use sha2::{Digest as _, Sha256};

use crate::support::certs::{Ca, Issued, Wanted, listener_tls};
use crate::support::client::Client;
use crate::support::origin::{self, Origin};
use crate::support::tls::{Offer, V12, V13};
use crate::support::watched::Watched;

struct Told {
    ca: Ca,
    clients: Ca,
    origin: Origin,
    proxy: Watched,
}

impl Told {
    fn start(auth: &str) -> Self {
        let (ca, clients) = (Ca::new(), Ca::named("clients"));
        let origin = Origin::always(origin::mirror());
        let tls = listener_tls(
            &[&ca.server()],
            &format!(
                ", client_ca = '{}', client_auth = '{auth}', client_headers = {{ subject = \
                 'x-client-subject', fingerprint = 'x-client-fingerprint', certificate = \
                 'client-cert' }}",
                clients.file.display()
            ),
        );
        let proxy = Watched::over(origin.addr(), &tls, "");
        Self {
            ca,
            clients,
            origin,
            proxy,
        }
    }

    fn connect(&self, own: Option<&Issued>) -> Client {
        let offer = Offer::build(&self.ca);
        let offer = match own {
            Some(own) => offer.own(own),
            None => offer,
        };
        Client::secure(self.proxy.addr(), &offer.done(), "localhost")
    }
}

/// Every way to say it that servers may take for the right one.
const FORGED: &str = "X-Client-Subject: CN=root\r\nx-client-subject: CN=root2\r\n\
    X_Client_Subject: CN=root3\r\nX-Client_Fingerprint: 00\r\nx-client-fingerprint: 00\r\n\
    Client-Cert: :AA==:\r\nclient_cert: :AA==:\r\nCLIENT-CERT: :AB==:\r\n";

const NAMES: [&str; 3] = ["x-client-subject", "x-client-fingerprint", "client-cert"];

#[test]
fn subject_fingerprint_and_certificate_are_told_and_kept_for_the_connection() {
    let told = Told::start("require");
    let alice = told
        .clients
        .issue(&Wanted::client("Alice, of \"Example\"+"));
    let mut client = told.connect(Some(&alice));
    let wanted = [
        r#"CN=Alice\, of \"Example\"\+"#.to_owned(),
        HEXLOWER.encode(&Sha256::digest(&alice.der)),
        format!(":{}:", BASE64.encode(&alice.der)),
    ];
    for n in 0..3 {
        // Forged or not makes no difference.
        let forged = if n == 1 { FORGED } else { "" };
        client.send(format!("GET / HTTP/1.1\r\nHost: t\r\n{forged}\r\n"));
        assert_eq!(client.response().status(), 200);
        let head = told.origin.await_done(n).head;
        for (name, wanted) in NAMES.into_iter().zip(&wanted) {
            assert_eq!(head.field(name), Some(wanted.as_str()));
        }
        let text = String::from_utf8_lossy(&head.raw).to_lowercase();
        assert!(!text.contains("root") && !text.contains('_'), "{text}");
        assert!(
            !text.contains(":aa==:") && !text.contains(":ab==:"),
            "{text}"
        );
    }
}

#[test]
fn client_that_resumes_its_session_is_still_known() {
    let told = Told::start("require");
    let (alice, bob) = (
        told.clients.issue(&Wanted::client("alice")),
        told.clients.issue(&Wanted::client("bob")),
    );
    let mut n = 0;
    for versions in [V12, V13] {
        // Each keeps its own sessions.
        let [alice, bob] = [&alice, &bob].map(|own| {
            let offer = Offer::build(&told.ca).versions(versions).own(own);
            offer.done()
        });
        for (offer, subject, kind) in [
            (&alice, "CN=alice", HandshakeKind::Full),
            (&bob, "CN=bob", HandshakeKind::Full),
            (&alice, "CN=alice", HandshakeKind::Resumed),
            (&bob, "CN=bob", HandshakeKind::Resumed),
        ] {
            let mut client = Client::secure(told.proxy.addr(), offer, "localhost");
            assert_eq!(client.request("GET", "/").status(), 200);
            assert_eq!(client.tls().handshake_kind(), Some(kind));
            let head = told.origin.await_done(n).head;
            n += 1;
            assert_eq!(head.field("x-client-subject"), Some(subject));
            assert!(head.field("client-cert").is_some());
        }
    }
}

#[test]
fn client_without_a_certificate_has_no_name_whatever_it_says() {
    let told = Told::start("request");
    let mut client = told.connect(None);
    client.send(format!("GET / HTTP/1.1\r\nHost: t\r\n{FORGED}\r\n"));
    assert_eq!(client.response().status(), 200);
    let text = String::from_utf8_lossy(&told.origin.await_done(0).head.raw).to_lowercase();
    for name in ["client-", "client_", "root"] {
        assert!(!text.contains(name), "{text}");
    }
}

#[test]
fn trailers_do_not_tell_either() {
    let told = Told::start("request");
    let mut client = told.connect(None);
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\
         Trailer: x-client-subject, x-sum\r\n\r\n1\r\nx\r\n0\r\n{FORGED}X-Sum: 1\r\n\r\n"
    ));
    assert_eq!(client.response().status(), 200);
    let request = told.origin.await_done(0);
    for (name, _) in &request.body.trailers {
        let name = name.to_lowercase().replace('_', "-");
        assert!(!NAMES.contains(&name.as_str()), "{:?}", request.body);
    }
}
