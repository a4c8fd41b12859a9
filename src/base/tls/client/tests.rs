//! Handshakes with servers of rustls' own, in memory.

use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConnection, ServerConfig, ServerConnection};

use super::super::fixture::{Ca, Issued};
use super::super::{KeyKind, explain, read_cas, read_pair};
use super::*;

const NAMES: &[&str] = &["app.example"];

/// The hash that a pin of this certificate has.
fn pin(issued: &Issued) -> [u8; 32] {
    use x509_parser::prelude::{FromDer as _, X509Certificate};
    let (_, certificate) = X509Certificate::from_der(&issued.der).unwrap();
    Sha256::digest(certificate.tbs_certificate.subject_pki.raw).into()
}

/// A server with this certificate that speaks so, and wants a certificate of `clients` if there is one.
fn server(ca: &Ca, issued: &Issued, alpn: &[&[u8]], clients: Option<&Ca>) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        Some(clients) => {
            let file = clients.write("clients.pem", clients.issuer.pem());
            let roots = Arc::new(read_cas(&file).unwrap());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                .build()
                .unwrap();
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let loaded = read_pair(&ca.files("server", issued)).unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let mut config = builder
        .with_single_cert(loaded.key.cert.clone(), key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    config
}

/// What the client finds wrong, in words, or what both agreed to speak.
fn outcome(client: &TlsClient, server: ServerConfig, name: &str) -> Result<Vec<u8>, String> {
    let name = server_name(name).unwrap();
    let mut ours = ClientConnection::new(client.config().clone(), name.clone()).unwrap();
    let mut theirs = ServerConnection::new(Arc::new(server)).unwrap();
    for _ in 0..8 {
        let mut wire = Vec::new();
        ours.write_tls(&mut wire).unwrap();
        theirs.read_tls(&mut &*wire).unwrap();
        // What it finds wrong comes to the client as an alert.
        let _ = theirs.process_new_packets();
        let mut wire = Vec::new();
        theirs.write_tls(&mut wire).unwrap();
        ours.read_tls(&mut &*wire).unwrap();
        if let Err(error) = ours.process_new_packets() {
            return Err(explain(&error, &name));
        }
    }
    assert!(!ours.is_handshaking() && !theirs.is_handshaking());
    Ok(ours.alpn_protocol().unwrap_or_default().to_vec())
}

fn setup<'a>(trust: Trust<'a>, pins: &'a [[u8; 32]]) -> ClientSetup<'a> {
    ClientSetup {
        trust,
        protocols: &[b"h2", b"http/1.1"],
        identity: None,
        pins,
    }
}

fn client(setup: &ClientSetup<'_>) -> TlsClient {
    TlsClient::new(setup).unwrap()
}

#[test]
fn pins_hold_whoever_is_trusted() {
    let ca = Ca::new("ca");
    let pem = ca.issuer.pem();
    let issued = ca.issue(NAMES, KeyKind::Ecdsa);
    let other = ca.issue(NAMES, KeyKind::Ecdsa);
    let pins = [[0; 32], pin(&issued)];
    for trust in [Trust::Cas(pem.as_bytes()), Trust::Anybody] {
        let client = client(&setup(trust, &pins));
        let of = |issued| outcome(&client, server(&ca, issued, &[b"h2"], None), "app.example");
        assert_eq!(of(&issued), Ok(b"h2".to_vec()), "{trust:?}");
        let found = data_encoding::BASE64.encode(&pin(&other));
        let words = format!("its key is sha256/{found}, which is not pinned");
        assert_eq!(of(&other), Err(words), "{trust:?}");
    }
}

#[test]
fn a_pin_alone_makes_nobody_trusted() {
    let (ca, stranger) = (Ca::new("ca"), Ca::new("stranger"));
    let issued = ca.issue(NAMES, KeyKind::Ecdsa);
    let pins = [pin(&issued)];
    let of = |ca_pem: &str, name| {
        let client = client(&setup(Trust::Cas(ca_pem.as_bytes()), &pins));
        outcome(&client, server(&ca, &issued, &[], None), name)
    };
    assert_eq!(of(&ca.issuer.pem(), "app.example"), Ok(Vec::new()));
    assert_eq!(
        of(&stranger.issuer.pem(), "app.example"),
        Err("its certificate is of a CA that is not trusted".to_owned())
    );
    assert_eq!(
        of(&ca.issuer.pem(), "other.example"),
        Err("its certificate is not for `other.example`".to_owned())
    );
}

#[test]
fn a_client_shows_who_it_is_when_it_is_asked() {
    let (ca, stranger) = (Ca::new("ca"), Ca::new("stranger"));
    let pem = ca.issuer.pem();
    let issued = ca.issue(NAMES, KeyKind::Ecdsa);
    let of = |identity: Option<&Ca>| {
        let identity = identity.map(|issuer| {
            let own = issuer.issue(&["proxy"], KeyKind::Ecdsa);
            read_pair(&issuer.files("own", &own)).unwrap().key
        });
        let client = client(&ClientSetup {
            identity,
            ..setup(Trust::Cas(pem.as_bytes()), &[])
        });
        let server = server(&ca, &issued, &[], Some(&ca));
        outcome(&client, server, "app.example")
    };
    assert_eq!(of(Some(&ca)), Ok(Vec::new()));
    let wanted = "it wants a client certificate: say tls = { cert = …, key = … }";
    assert_eq!(of(None), Err(wanted.to_owned()));
    let unknown = "it does not trust the CA of our client certificate";
    assert_eq!(of(Some(&stranger)), Err(unknown.to_owned()));
}

#[test]
fn without_a_common_protocol_nothing_is_spoken() {
    let ca = Ca::new("ca");
    let pem = ca.issuer.pem();
    let issued = ca.issue(NAMES, KeyKind::Ecdsa);
    let client = client(&setup(Trust::Cas(pem.as_bytes()), &[]));
    let of = |alpn: &[&[u8]]| outcome(&client, server(&ca, &issued, alpn, None), "app.example");
    assert_eq!(of(&[b"http/1.1"]), Ok(b"http/1.1".to_vec()));
    let none = "it speaks no protocol that was offered (ALPN)";
    assert_eq!(of(&[b"smtp"]), Err(none.to_owned()));
}

#[test]
fn clients_are_equal_when_made_of_the_same() {
    let ca = Ca::new("ca");
    let pem = ca.issuer.pem();
    let own = ca.issue(&["proxy"], KeyKind::Ecdsa);
    let key = || Some(read_pair(&ca.files("own", &own)).unwrap().key);
    let (trust, pins) = (Trust::Cas(pem.as_bytes()), [[1; 32]]);
    let full = || ClientSetup {
        identity: key(),
        ..setup(trust, &pins)
    };
    assert_eq!(client(&full()), client(&full()));
    let others = [
        ClientSetup {
            trust: Trust::Anybody,
            ..full()
        },
        ClientSetup {
            protocols: &[b"h2http/1.1"],
            ..full()
        },
        ClientSetup {
            identity: None,
            ..full()
        },
        ClientSetup {
            pins: &[],
            ..full()
        },
        ClientSetup {
            pins: &[[1; 32], [2; 32]],
            ..full()
        },
    ];
    for (i, other) in others.iter().enumerate() {
        assert_ne!(client(other), client(&full()), "{i}");
    }
}
