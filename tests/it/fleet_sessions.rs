//! What one peer hands to a client holds at every other: sticky cookies and session tickets, from the fleet's secret.

use rustls::HandshakeKind;

use crate::support::certs::{Ca, listener_tls};
use crate::support::client::{Client, Response};
use crate::support::fleet::{Fleet, Peer, Plan};
use crate::support::need;
use crate::support::openssl::s_client;
use crate::support::origin::Origin;
use crate::support::tls::{Offer, V12, V13};

/// A fleet of two, and a peer of another fleet over the same endpoints.
fn start(plan: &Plan) -> (Fleet, Fleet) {
    let other = Plan {
        peers: 1,
        secret: "the secret of another fleet in tests\n".to_owned(),
        ..plan.clone()
    };
    (plan.start(), other.start())
}

fn ask(peer: &Peer, cookie: &str) -> Response {
    let mut client = Client::connect(peer.web);
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: t\r\nCookie: {cookie}\r\n\r\n"
    ));
    client.response()
}

#[test]
fn sticky_cookie_of_one_peer_works_at_another() {
    let origins: Vec<Origin> = ["a", "b", "c"].map(Origin::named).into();
    let addrs: Vec<_> = origins.iter().map(Origin::addr).collect();
    let plan = Plan::over(
        2,
        &addrs,
        "balance = 'round_robin'\nsticky = { cookie = 'lb' }",
    );
    let (fleet, other) = start(&plan);
    for (from, to) in [(0, 1), (1, 0)] {
        for _ in 0..3 {
            let first = ask(&fleet.peers[from], "none=none");
            assert_eq!(first.status(), 200);
            let set = first.field("set-cookie").unwrap();
            let cookie = set.split(';').next().unwrap();
            for _ in 0..4 {
                let again = ask(&fleet.peers[to], cookie);
                assert_eq!((again.status(), again.text()), (200, first.text()));
                assert_eq!(again.field("set-cookie"), None, "it is known");
            }
            // Whoever has another secret gives another cookie.
            let stranger = ask(&other.peers[0], cookie);
            assert!(stranger.field("set-cookie").is_some());
        }
    }
}

/// A fleet that serves TLS by a certificate of `ca`.
fn secure(ca: &Ca, origin: &Origin) -> (Fleet, Fleet) {
    let mut plan = Plan::over(2, &[origin.addr()], "");
    plan.listener = listener_tls(&[&ca.server()], "");
    start(&plan)
}

#[track_caller]
fn resumes(peer: &Peer, offer: &Offer) -> bool {
    let mut client = Client::secure(peer.web, offer, "localhost");
    assert_eq!(client.request("GET", "/").status(), 200);
    client.tls().handshake_kind() == Some(HandshakeKind::Resumed)
}

#[test]
fn session_of_one_peer_goes_on_at_another() {
    let (ca, origin) = (Ca::new(), Origin::named("a"));
    let (fleet, other) = secure(&ca, &origin);
    for versions in [V12, V13] {
        let offer = Offer::of(&ca, versions);
        assert!(!resumes(&fleet.peers[0], &offer));
        for n in [1, 0, 1] {
            assert!(resumes(&fleet.peers[n], &offer), "at peer {n}");
        }
        assert!(!resumes(&other.peers[0], &offer), "of another fleet");
    }
}

#[test]
fn openssl_session_of_one_peer_goes_on_at_another() {
    let Some(openssl) = need("openssl") else {
        return;
    };
    let (ca, origin) = (Ca::new(), Origin::named("a"));
    let (fleet, other) = secure(&ca, &origin);
    let at = |peer: &Peer, args: &[&str]| {
        let said = s_client(&openssl, peer.web, args);
        assert!(said.contains("HTTP/1.1 200"), "{said}");
        said
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let file = ca.folder().join(version);
        let file = file.to_string_lossy();
        let said = at(&fleet.peers[0], &[version, "-sess_out", &file]);
        assert!(said.contains("New, TLSv1"), "{said}");
        let said = at(&fleet.peers[1], &[version, "-sess_in", &file]);
        assert!(said.contains("Reused, TLSv1"), "{said}");
        let said = at(&other.peers[0], &[version, "-sess_in", &file]);
        assert!(said.contains("New, TLSv1"), "{said}");
    }
}
