//! Sessions that go on by their tickets, and those that must not.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of a test: failing is their report"
)]

use std::path::PathBuf;

use rustls::HandshakeKind;

use crate::support::binary::{Binary, free_port};
use crate::support::certs::{Ca, Issued, Wanted, listener_tls};
use crate::support::client::Client;
use crate::support::need;
use crate::support::openssl::s_client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::tls::{Offer, V12, V13};

const VERSIONS: [&[&rustls::SupportedProtocolVersion]; 2] = [V12, V13];

/// A listener `web` with this `tls`; `more` is further TOML.
fn config(workers: usize, origin: &Origin, tls: &str, more: &str) -> String {
    format!(
        "[process]\nworkers = {workers}\n[admin]\nbind = '127.0.0.1:0'\n\
         [listeners.web]\nbind = '127.0.0.1:0'\nupstream = 'app'\n{tls}\n\
         [upstreams.app]\nendpoints = ['{}']\n{more}\n",
        origin.addr()
    )
}

/// One connection with one request: whether its session went on.
#[track_caller]
fn resumes(addr: std::net::SocketAddr, offer: &Offer) -> bool {
    let mut client = Client::secure(addr, offer, "localhost");
    // The ticket of TLS 1.3 comes before the answer.
    assert_eq!(client.request("GET", "/").status(), 200);
    match client.tls().handshake_kind() {
        Some(HandshakeKind::Resumed) => true,
        Some(HandshakeKind::Full) => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn sessions_go_on_at_every_worker() {
    let (ca, origin) = (Ca::new(), Origin::named("a"));
    let proxy = Proxy::start(&config(3, &origin, &listener_tls(&[&ca.server()], ""), ""));
    for versions in VERSIONS {
        let offer = Offer::of(&ca, versions);
        assert!(!resumes(proxy.addr(), &offer));
        // Held open, so that the others are other workers' too.
        let mut held = Vec::new();
        for _ in 0..12 {
            let mut client = Client::secure(proxy.addr(), &offer, "localhost");
            assert_eq!(client.request("GET", "/").text(), "a");
            assert_eq!(client.tls().handshake_kind(), Some(HandshakeKind::Resumed));
            held.push(client);
        }
        assert!(proxy.connections().iter().filter(|&&n| n > 0).count() > 1);
    }
    let resumed = "isobar_tls_handshakes_total{listener=\"web\",result=\"resumed\"}";
    assert_eq!(proxy.metric(resumed), 24.0);
}

#[test]
fn listener_without_tickets_gives_none() {
    let (ca, origin) = (Ca::new(), Origin::named("a"));
    let tls = listener_tls(&[&ca.server()], ", tickets = false");
    let proxy = Proxy::start(&config(1, &origin, &tls, ""));
    for versions in VERSIONS {
        let offer = Offer::of(&ca, versions);
        for _ in 0..3 {
            assert!(!resumes(proxy.addr(), &offer));
        }
    }
}

#[test]
fn sessions_go_on_after_a_reload_with_new_certificates() {
    let (ca, origin) = (Ca::new(), Origin::named("a"));
    let (before, after) = (ca.server(), ca.server());
    let toml = |issued: &Issued, grace: &str| {
        let tls = listener_tls(&[issued], "");
        config(1, &origin, &tls, grace)
    };
    let proxy = Proxy::start(&toml(&before, ""));
    let offers = VERSIONS.map(|versions| Offer::of(&ca, versions));
    for offer in &offers {
        assert!(!resumes(proxy.addr(), offer));
    }
    // The same files with another content, then other files.
    after.replace(&before);
    proxy.reload(&toml(&before, "connect_timeout = '3s'"));
    for offer in &offers {
        assert!(resumes(proxy.addr(), offer));
    }
    proxy.reload(&toml(&after, ""));
    for offer in &offers {
        assert!(resumes(proxy.addr(), offer));
    }
}

#[test]
fn sessions_do_not_cross_to_a_listener_that_asks_for_other_certificates() {
    let (ca, clients, origin) = (Ca::new(), Ca::named("clients"), Origin::named("a"));
    let server = ca.server();
    let asking = listener_tls(
        &[&server],
        &format!(", client_ca = '{}'", clients.file.display()),
    );
    let optional = listener_tls(
        &[&server],
        &format!(
            ", client_ca = '{}', client_auth = 'request'",
            clients.file.display()
        ),
    );
    let open = listener_tls(&[&server], "");
    let more = format!(
        "[listeners.same]\nbind = '127.0.0.1:0'\nupstream = 'app'\n{open}\n\
         [listeners.asking]\nbind = '127.0.0.1:0'\nupstream = 'app'\n{asking}\n\
         [listeners.optional]\nbind = '127.0.0.1:0'\nupstream = 'app'\n{optional}\n"
    );
    let proxy = Proxy::start(&config(1, &origin, &open, &more));
    let alice = clients.issue(&Wanted::client("alice"));
    for versions in VERSIONS {
        let offer = Offer::build(&ca).versions(versions).own(&alice).done();
        assert!(!resumes(proxy.addr(), &offer));
        assert!(resumes(proxy.listener("same"), &offer), "of the same kind");
        assert!(!resumes(proxy.listener("asking"), &offer));
        assert!(resumes(proxy.listener("asking"), &offer), "its own");
        assert!(!resumes(proxy.listener("optional"), &offer));
        assert!(!resumes(proxy.listener("web"), &offer));
    }
    // Who got in without a certificate is not let in by its ticket where one is required.
    for versions in VERSIONS {
        let offer = Offer::of(&ca, versions);
        assert!(!resumes(proxy.listener("optional"), &offer));
        assert!(resumes(proxy.listener("optional"), &offer));
        match Client::try_secure(proxy.listener("asking"), &offer, "localhost") {
            Err(_) => {}
            Ok(mut client) => {
                client.try_send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
                let said = client.broken_or_all();
                assert!(said.is_err(), "{said:?}");
            }
        }
    }
}

/// A folder with a secret for tickets.
struct Secret {
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Secret {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let secret = Self {
            file: folder.path().join("ticket.key"),
            _folder: folder,
        };
        secret.write(text);
        secret
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.file, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&self.file, mode).unwrap();
    }

    fn tls(&self, server: &Issued) -> String {
        let more = format!(", tickets = {{ secret_file = '{}' }}", self.file.display());
        listener_tls(&[server], &more)
    }
}

#[test]
fn sessions_end_when_their_secret_does() {
    let (ca, origin) = (Ca::new(), Origin::named("a"));
    let server = ca.server();
    let secret = Secret::new("the first secret of all\n");
    let toml = config(1, &origin, &secret.tls(&server), "");
    let proxy = Proxy::start(&toml);
    let offers = VERSIONS.map(|versions| Offer::of(&ca, versions));
    for offer in &offers {
        assert!(!resumes(proxy.addr(), offer));
        assert!(resumes(proxy.addr(), offer));
    }
    // A new one in front, the old one still known.
    secret.write("the second secret of all\nthe first secret of all\n");
    proxy.reload(&toml);
    for offer in &offers {
        assert!(resumes(proxy.addr(), offer));
    }
    // What was given since is of the second.
    secret.write("the second secret of all\n");
    proxy.reload(&toml);
    for offer in &offers {
        assert!(resumes(proxy.addr(), offer));
    }
    secret.write("the third secret of all\n");
    proxy.reload(&toml);
    for offer in &offers {
        assert!(!resumes(proxy.addr(), offer));
        assert!(resumes(proxy.addr(), offer));
    }
}

#[test]
fn sessions_go_on_in_another_process_with_the_same_secret() {
    let Some(openssl) = need("openssl") else {
        return;
    };
    let (ca, origin) = (Ca::new(), Origin::named("a"));
    let server = ca.server();
    let secret = Secret::new("a secret that two share\n");
    let other = Secret::new("a secret that nobody shares\n");
    let start = |secret: &Secret| {
        let port = free_port();
        let toml = format!(
            "[listeners.web]\nbind = '127.0.0.1:{port}'\nupstream = 'app'\n{}\n\
             [upstreams.app]\nendpoints = ['{}']\n",
            secret.tls(&server),
            origin.addr()
        );
        let binary = Binary::start(&toml);
        binary.await_line("try: curl");
        (binary, ([127, 0, 0, 1], port).into())
    };
    let (one, two, stranger) = (start(&secret), start(&secret), start(&other));
    for version in ["-tls1_2", "-tls1_3"] {
        let file = ca.folder().join(version);
        let file = file.to_string_lossy();
        let said = s_client(&openssl, one.1, &[version, "-sess_out", &file]);
        assert!(said.contains("New, TLSv1"), "{said}");
        assert!(said.contains("HTTP/1.1 200"), "{said}");
        for addr in [two.1, one.1, two.1] {
            let said = s_client(&openssl, addr, &[version, "-sess_in", &file]);
            assert!(said.contains("Reused, TLSv1"), "{said}");
            assert!(said.contains("HTTP/1.1 200"), "{said}");
        }
        let said = s_client(&openssl, stranger.1, &[version, "-sess_in", &file]);
        assert!(said.contains("New, TLSv1"), "{said}");
        assert!(said.contains("HTTP/1.1 200"), "{said}");
    }
}

#[test]
fn early_data_are_not_invited_and_not_taken() {
    let Some(openssl) = need("openssl") else {
        return;
    };
    let (ca, origin) = (Ca::new(), Origin::named("a"));
    let proxy = Proxy::start(&config(1, &origin, &listener_tls(&[&ca.server()], ""), ""));
    let session = ca.folder().join("session");
    let session = session.to_string_lossy();
    let early = ca.write("early", "GET /early HTTP/1.1\r\nHost: t\r\n\r\n");
    let early = early.to_string_lossy();
    let args = ["-tls1_3", "-sess_out", &*session];
    let said = s_client(&openssl, proxy.addr(), &args);
    assert!(said.contains("Max Early Data: 0"), "{said}");
    let args = ["-tls1_3", "-sess_in", &*session, "-early_data", &*early];
    let said = s_client(&openssl, proxy.addr(), &args);
    assert!(!said.contains("Early data was accepted"), "{said}");
    assert!(said.contains("HTTP/1.1 200"), "{said}");
    assert!(origin.requests().iter().all(|r| r.head.target() == "/"));
}
