//! The load of the jobs `handshake` and `resume` of `bench/compare.py`: what does a TLS connection
//! cost that brings one request?
//!
//! `handshakes PORT PATH BODY_BYTES SECONDS CLIENTS full|resumed CIPHER`, started by the script.
//! Clients are threads that each connect, shake hands (TLS 1.3, X25519, that one cipher), send one
//! GET with `connection: close`, read to the end and begin again. wrk and h2load can neither be told
//! to resume nor say whether they did; here each connection that was not of the kind asked for is
//! counted as an error. The certificate is not verified: what is measured is the other side. Without
//! arguments it ends at once.

#![expect(clippy::print_stdout, reason = "its figures are its output")]
#![expect(clippy::disallowed_methods, reason = "a load reads the clock itself")]
#![expect(
    clippy::unwrap_used,
    reason = "the load of a bench: what cannot go on stops"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme,
};

/// What the proxy is asked, and how.
struct Ask {
    proxy: SocketAddr,
    request: String,
    body_bytes: usize,
    kind: HandshakeKind,
    cipher: String,
    until: Instant,
}

#[derive(Default)]
struct Seen {
    latencies: Vec<Duration>,
    bytes: usize,
    connect: usize,
    broken: usize,
    /// An answer that is not a 200 of the size that was asked for.
    status: usize,
    /// A handshake that was not resumed and should have been, or the other way round.
    kind: usize,
}

fn main() {
    // `cargo bench` and `cargo test --benches` hand over flags of theirs.
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [port, path, body_bytes, seconds, clients, kind, cipher] = args.as_slice() else {
        return;
    };
    let begin = Instant::now();
    let ask = Arc::new(Ask {
        proxy: SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap())),
        request: format!("GET {path} HTTP/1.1\r\nHost: bench.test\r\nConnection: close\r\n\r\n"),
        body_bytes: body_bytes.parse().unwrap(),
        kind: match kind.as_str() {
            "full" => HandshakeKind::Full,
            "resumed" => HandshakeKind::Resumed,
            other => panic!("{other}: neither full nor resumed"),
        },
        cipher: cipher.clone(),
        until: begin + Duration::from_secs(seconds.parse().unwrap()),
    });
    let threads: Vec<_> = (0..clients.parse::<usize>().unwrap())
        .map(|_| {
            let ask = Arc::clone(&ask);
            std::thread::spawn(move || client(&ask))
        })
        .collect();
    let all: Vec<Seen> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    let took = begin.elapsed();
    let mut latencies: Vec<Duration> = all.iter().flat_map(|s| s.latencies.clone()).collect();
    latencies.sort_unstable();
    let at = |share: usize| {
        latencies
            .get(latencies.len() * share / 100)
            .map_or(0, Duration::as_micros)
    };
    let sum = |of: fn(&Seen) -> usize| all.iter().map(of).sum::<usize>();
    println!(
        "JSON {{\"requests\": {}, \"bytes\": {}, \"duration_us\": {}, \"p50_us\": {}, \
         \"p99_us\": {}, \"status\": {}, \"connect\": {}, \"broken\": {}, \"kind\": {}}}",
        latencies.len(),
        sum(|s| s.bytes),
        took.as_micros(),
        at(50),
        at(99),
        sum(|s| s.status),
        sum(|s| s.connect),
        sum(|s| s.broken),
        sum(|s| s.kind),
    );
}

/// One connection after the other. Tickets are a client's own, as those of a browser.
fn client(ask: &Ask) -> Seen {
    let config = config(ask);
    let mut seen = Seen::default();
    // Nobody's first handshake is resumed: it is made, and counted nowhere.
    let mut is_first = ask.kind == HandshakeKind::Resumed;
    let mut answer = Vec::with_capacity(ask.body_bytes + 4096);
    while Instant::now() < ask.until {
        let begin = Instant::now();
        let Ok(socket) = TcpStream::connect(ask.proxy) else {
            seen.connect += 1;
            continue;
        };
        let Some(kind) = exchange(socket, &config, ask, &mut answer) else {
            seen.broken += 1;
            continue;
        };
        if std::mem::take(&mut is_first) {
            continue;
        }
        seen.kind += usize::from(kind != ask.kind);
        seen.status += usize::from(!is_whole(&answer, ask.body_bytes));
        seen.bytes += answer.len();
        seen.latencies.push(begin.elapsed());
    }
    seen
}

/// The answer to one request, in `answer`, and how hands were shaken. `None`: the connection broke.
fn exchange(
    mut socket: TcpStream,
    config: &Arc<ClientConfig>,
    ask: &Ask,
    answer: &mut Vec<u8>,
) -> Option<HandshakeKind> {
    answer.clear();
    socket.set_nodelay(true).ok()?;
    let name = ServerName::try_from("bench.test").expect("invariant: a name");
    let mut tls = ClientConnection::new(Arc::clone(config), name).ok()?;
    let mut stream = rustls::Stream::new(&mut tls, &mut socket);
    stream.write_all(ask.request.as_bytes()).ok()?;
    match stream.read_to_end(answer) {
        Ok(_) => {}
        // Closed without a close_notify; whether all came is asked of the answer.
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => {}
        Err(_) => return None,
    }
    tls.handshake_kind()
}

fn is_whole(answer: &[u8], body_bytes: usize) -> bool {
    let head = answer.windows(4).position(|w| w == b"\r\n\r\n");
    answer.starts_with(b"HTTP/1.1 200") && head.is_some_and(|n| answer.len() - n - 4 == body_bytes)
}

fn config(ask: &Ask) -> Arc<ClientConfig> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    provider
        .cipher_suites
        .retain(|suite| format!("{:?}", suite.suite()) == ask.cipher.replace("TLS_", "TLS13_"));
    assert!(
        !provider.cipher_suites.is_empty(),
        "{}: unknown",
        ask.cipher
    );
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(aws_lc_rs::default_provider())))
        .with_no_client_auth();
    if ask.kind == HandshakeKind::Full {
        config.resumption = Resumption::disabled();
    }
    Arc::new(config)
}

/// Believes every certificate and every signature, so that the load's core has time for more.
#[derive(Debug)]
struct Anyone(CryptoProvider);

// === impl Anyone ===

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
