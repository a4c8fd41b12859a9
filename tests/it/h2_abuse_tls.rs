//! Abuse of HTTP/2 under TLS, and whether it is offered there at all.

use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use super::support::client::Client;
use super::support::h2raw::{
    CONTINUATION, END_STREAM, ENHANCE_YOUR_CALM, H2, HEADERS, block, frame, get, headers, ping,
    reset,
};
use super::support::origin::{self, Origin};
use super::support::watched::Watched;

const NAME: &str = "site.test";

/// A listener under TLS.
struct Site {
    watched: Watched,
    cert: CertificateDer<'static>,
    origin: Origin,
    _folder: TempDir,
}

// === impl Site ===

impl Site {
    #[expect(clippy::unwrap_used, reason = "setting a test up")]
    fn new(http2: &str) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (pem, key) = (
            folder.path().join("site.pem"),
            folder.path().join("site.key"),
        );
        std::fs::write(&pem, cert.pem()).unwrap();
        std::fs::write(&key, signing_key.serialize_pem()).unwrap();
        let origin = Origin::always(origin::reply(200, "ok"));
        let listener = format!(
            "http2 = {http2}\ntls = {{ certificates = [{{ cert = '{}', key = '{}' }}] }}",
            pem.display(),
            key.display()
        );
        Self {
            watched: Watched::over(origin.addr(), &listener, ""),
            cert: cert.der().clone(),
            origin,
            _folder: folder,
        }
    }

    /// A client's side that offers these protocols.
    #[expect(clippy::unwrap_used, reason = "setting a test up")]
    fn client(&self, alpn: &[&str]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.cert.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        config
    }

    #[track_caller]
    fn connect(&self) -> H2 {
        H2::connect_tls(self.watched.addr(), NAME, self.client(&["h2"]))
    }

    /// The abuse ends the connection with its code, is counted, and others are served.
    #[track_caller]
    fn expect_abuse(&self, attack: &[u8], kind: &str) {
        let mut bystander = self.connect();
        let mut client = self.connect();
        client.send(attack);
        assert_eq!(client.end(), Some(ENHANCE_YOUR_CALM), "{kind}");
        let series = format!("isobar_http2_abuse_total{{listener=\"web\",kind=\"{kind}\"}}");
        self.watched.await_metric(&series, 1.0);
        for client in [&mut bystander, &mut self.connect()] {
            assert_eq!(client.get("/ok").status, Some(200));
        }
    }
}

#[test]
fn rapid_reset_ends_the_connection() {
    let site = Site::new("{ max_resets = 20 }");
    let attack: Vec<u8> = (0..21)
        .flat_map(|n| {
            let stream = 2 * n + 1;
            let open = headers(stream, END_STREAM, get("/x"));
            [open, reset(stream, 8)].concat()
        })
        .collect();
    site.expect_abuse(&attack, "rapid_reset");
}

#[test]
fn ping_flood_ends_the_connection() {
    let site = Site::new("{ max_pings = 20 }");
    site.expect_abuse(&ping().repeat(21), "ping");
}

#[test]
fn endless_continuation_ends_the_connection() {
    let site = Site::new("{}");
    let begin = frame(HEADERS, END_STREAM, 1, get("/x"));
    let more = frame(CONTINUATION, 0, 1, block(&[("a", "b")]));
    site.expect_abuse(&[begin, more.repeat(17)].concat(), "continuation");
    let requests = site.origin.requests();
    assert!(requests.iter().all(|r| r.head.target() == "/ok"));
}

/// What the server chose of these protocols.
fn chosen(site: &Site, alpn: &[&str]) -> Result<Option<Vec<u8>>, std::io::Error> {
    let config = Arc::new(site.client(alpn));
    let name = NAME.try_into().map_err(std::io::Error::other)?;
    let tls = ClientConnection::new(config, name).map_err(std::io::Error::other)?;
    let socket = std::net::TcpStream::connect(site.watched.addr())?;
    let mut stream = StreamOwned::new(tls, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream.conn.alpn_protocol().map(<[u8]>::to_vec))
}

#[test]
fn http2_that_is_off_is_not_offered() {
    let site = Site::new("'off'");
    let protocol = chosen(&site, &["h2", "http/1.1"]).unwrap();
    assert_eq!(protocol.as_deref(), Some(&b"http/1.1"[..]));
    assert!(
        chosen(&site, &["h2"]).is_err(),
        "there is nothing in common"
    );

    let site = Site::new("{}");
    let protocol = chosen(&site, &["h2", "http/1.1"]).unwrap();
    assert_eq!(protocol.as_deref(), Some(&b"h2"[..]));
}

#[test]
fn preface_is_refused_as_a_version_where_http2_is_off() {
    let origin = Origin::named("a");
    let watched = Watched::over(origin.addr(), "http2 = 'off'", "");
    let mut client = Client::connect(watched.addr());
    client.send(super::support::h2raw::PREFACE);
    assert_eq!(client.response().status(), 505);
    assert_eq!(Client::get(watched.addr(), "/").status(), 200);
    assert_eq!(origin.requests().len(), 1);
}
