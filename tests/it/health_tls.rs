//! Checks over TLS: certificates of a CA of the test's own.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of a test: failing is their report"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use crate::support::eventually::eventually;
use crate::support::proxy::Proxy;

/// A CA, and the file that it is in.
struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
    _folder: TempDir,
}

/// When a certificate holds.
#[derive(Clone, Copy)]
enum Valid {
    Long,
    NoMore,
    NotYet,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "a CA of a test");
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, issuer.pem()).unwrap();
        Self {
            issuer,
            file,
            _folder: folder,
        }
    }

    /// A server with a certificate for `name`; it answers every request with 200.
    fn server(&self, name: &str, valid: Valid) -> SocketAddr {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let (from, to) = match valid {
            Valid::Long => (1975, 4096),
            Valid::NoMore => (1975, 1976),
            Valid::NotYet => (4095, 4096),
        };
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        // It ends with the process: nobody waits for it.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let connection = ServerConnection::new(config.clone()).unwrap();
                let mut stream = StreamOwned::new(connection, stream);
                // Whoever does not like the certificate is gone.
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                let _ = stream.flush();
            }
        });
        addr
    }
}

/// A server that answers what it does not understand as web servers do.
fn plain() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    addr
}

/// A proxy that checks `server` with this `tls`.
fn checking(server: SocketAddr, tls: &str) -> Proxy {
    // Patient: no check of a server that is well fails for want of a processor.
    Proxy::over(
        &[server],
        &format!(
            "health = {{ check = 'http', interval = '10s', down_interval = '10s', \
             timeout = '10s', rise = 1, init_state = 'fully-down', tls = {tls} }}"
        ),
    )
}

/// How the first check of its endpoint went.
fn first_check(proxy: &Proxy) -> (&'static str, String) {
    let operations = proxy.operations();
    let mut found = None;
    eventually("a check", || {
        let view = operations.upstream("app").unwrap();
        let observed = view.endpoints[0].observed.as_ref().unwrap();
        found.clone_from(&observed.last_check);
        found.is_some()
    });
    let check = found.unwrap();
    (check.result, check.text.unwrap_or_default())
}

#[test]
fn good_certificate_is_well_and_every_other_is_named() {
    let (ca, other) = (Ca::new(), Ca::new());
    let trusting = |ca: &Ca, more: &str| format!("{{ ca = '{}'{more} }}", ca.file.display());
    let named = |name: &str| trusting(&ca, &format!(", server_name = '{name}'"));
    let by_name = ca.server("app.example", Valid::Long);
    let by_ip = ca.server("127.0.0.1", Valid::Long);
    let plain = plain();
    for (server, tls, result, text) in [
        (by_name, named("app.example"), "ok", ""),
        // The address of the endpoint is its name where nothing else is said.
        (by_ip, trusting(&ca, ""), "ok", ""),
        (by_name, "{ insecure = true }".to_owned(), "ok", ""),
        (
            by_name,
            named("other.example"),
            "tls",
            "its certificate is not for `other.example`",
        ),
        (
            by_name,
            trusting(&other, ", server_name = 'app.example'"),
            "tls",
            "its certificate is of a CA that is not trusted",
        ),
        (
            ca.server("app.example", Valid::NoMore),
            named("app.example"),
            "tls",
            "its certificate has expired",
        ),
        (
            ca.server("app.example", Valid::NotYet),
            named("app.example"),
            "tls",
            "its certificate is not valid yet",
        ),
        (plain, named("app.example"), "tls", "it does not speak TLS"),
    ] {
        let proxy = checking(server, &tls);
        assert_eq!(first_check(&proxy), (result, text.to_owned()), "{tls}");
    }
}

#[test]
fn without_a_common_protocol_tls_is_refused() {
    let ca = Ca::new();
    // It has http/1.1 only.
    let server = ca.server("127.0.0.1", Valid::Long);
    let proxy = Proxy::over(
        &[server],
        &format!(
            "health = {{ check = 'grpc', interval = '10s', timeout = '10s', tls = {{ ca = '{}' }} }}",
            ca.file.display()
        ),
    );
    let (result, text) = first_check(&proxy);
    assert_eq!(
        (result, &*text),
        ("tls", "it speaks no protocol that was offered (ALPN)")
    );
}

/// The CAs are part of what is configured: a reload with another file content is another check.
#[test]
fn new_cas_come_with_a_reload() {
    let (old, new) = (Ca::new(), Ca::new());
    let server = new.server("127.0.0.1", Valid::Long);
    let tls = format!("{{ ca = '{}' }}", old.file.display());
    let proxy = checking(server, &tls);
    assert_eq!(first_check(&proxy).0, "tls");
    std::fs::copy(&new.file, &old.file).unwrap();
    let text = Proxy::config_over(
        &[server],
        &format!(
            "health = {{ check = 'http', interval = '10s', down_interval = '10s', \
             timeout = '10s', rise = 1, init_state = 'fully-down', tls = {tls} }}"
        ),
    );
    proxy.reload(&text);
    eventually("trusted", || first_check(&proxy).0 == "ok");
}
