use rcgen::{
    CertificateParams, CertificateRevocationListParams, KeyIdMethod, KeyPair, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Error, HandshakeKind, NamedGroup, ServerConnection};

use super::*;
use crate::base::tls::fixture::{Ca, Issued};
use crate::base::tls::{Handshake, KeyKind, handshake_failure};

fn secrets(text: &str) -> TicketSecrets {
    TicketSecrets::new([text.as_bytes().into()]).unwrap()
}

fn spec(ca: &Ca, name: &str, issued: &Issued) -> ServerSpec {
    ServerSpec {
        certificates: vec![ca.files(name, issued)],
        client_auth: None,
        min_version: TlsVersion::V12,
        alpn: vec![(*b"h2").into(), (*b"http/1.1").into()],
    }
}

/// A client that keeps its sessions, as one process does.
fn client(ca: &Ca, own: Option<&Issued>, newest: TlsVersion) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.issuer.der().clone()).unwrap();
    let versions: &[_] = match newest {
        TlsVersion::V12 => &[&TLS12],
        TlsVersion::V13 => &[&TLS13, &TLS12],
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = vec![CertificateDer::from(own.der.clone())];
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    config.resumption = Resumption::in_memory_sessions(16);
    Arc::new(config)
}

/// What both ends know after a handshake.
struct Agreed {
    client: ClientConnection,
    server: ServerConnection,
}

/// The two talk until neither has anything to say.
fn handshake(
    server: Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    name: &'static str,
) -> Result<Agreed, Error> {
    let name = ServerName::try_from(name).unwrap();
    let mut client = ClientConnection::new(client.clone(), name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    loop {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut is_quiet = wire.is_empty();
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        is_quiet &= wire.is_empty();
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
        if is_quiet {
            return Ok(Agreed { client, server });
        }
    }
}

fn kind(server: &TlsServer, client: &Arc<ClientConfig>) -> HandshakeKind {
    let agreed = handshake(server.config(), client, "a.test").unwrap();
    agreed.server.handshake_kind().unwrap()
}

#[test]
fn server_is_as_its_spec_says() {
    let ca = Ca::new("a CA");
    let issued = ca.issue(&["a.test"], KeyKind::Ecdsa);
    let mut spec = spec(&ca, "a", &issued);
    let server = TlsServer::new(&spec, Some(secrets("a secret"))).unwrap();
    let config = server.config();
    assert_eq!(
        (config.max_early_data_size, config.send_tls13_tickets),
        (0, 1)
    );
    assert!(!config.ignore_client_order && !config.key_log.will_log("CLIENT_RANDOM"));
    assert!(!config.session_storage.can_cache());
    assert!(server.has_tickets() && *server.spec() == spec);
    assert_eq!(server.facts()[0].names, ["a.test"]);

    let agreed = handshake(config, &client(&ca, None, TlsVersion::V13), "a.test").unwrap();
    assert_eq!(
        agreed.server.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
    let group = agreed.server.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
    // Ours is the order.
    assert_eq!(agreed.client.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(
        agreed.client.peer_certificates().unwrap()[0].as_ref(),
        issued.der
    );

    let old = client(&ca, None, TlsVersion::V12);
    let agreed = handshake(server.config(), &old, "a.test").unwrap();
    assert_eq!(
        agreed.server.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_2)
    );
    spec.min_version = TlsVersion::V13;
    let server = TlsServer::new(&spec, None).unwrap();
    let error = handshake(server.config(), &old, "a.test").err().unwrap();
    assert_eq!(handshake_failure(&error), Handshake::Version, "{error}");
}

#[test]
fn session_is_resumed_by_any_server_with_the_secret() {
    let ca = Ca::new("a CA");
    let issued = ca.issue(&["a.test"], KeyKind::Ecdsa);
    let spec = spec(&ca, "a", &issued);
    let server = |secret: Option<&str>| TlsServer::new(&spec, secret.map(secrets)).unwrap();
    for version in [TlsVersion::V12, TlsVersion::V13] {
        let client = client(&ca, None, version);
        let is_full = |kind| matches!(kind, HandshakeKind::Full);
        assert!(is_full(kind(&server(Some("a secret")), &client)));
        assert_eq!(
            kind(&server(Some("a secret")), &client),
            HandshakeKind::Resumed
        );
        assert!(is_full(kind(&server(Some("another")), &client)));
        let one = server(Some("a third"));
        one.set_secrets(&secrets("another"));
        assert_eq!(kind(&one, &client), HandshakeKind::Resumed);
        assert!(is_full(kind(&server(None), &client)));
        assert!(is_full(kind(&server(None), &client)));
    }
}

#[test]
fn renewal_serves_what_is_whole_and_keeps_what_it_had() {
    let ca = Ca::new("a CA");
    let issued = ca.issue(&["a.test"], KeyKind::Ecdsa);
    let spec = spec(&ca, "a", &issued);
    let server = TlsServer::new(&spec, Some(secrets("a secret"))).unwrap();
    let client = client(&ca, None, TlsVersion::V13);
    kind(&server, &client);
    let first = server.config();
    assert!(!server.renew().unwrap(), "nothing has changed");
    assert!(Arc::ptr_eq(&first, &server.config()));
    assert!(matches!(server.look(), Look::Same));

    // The certificate comes first, the key later.
    let next = ca.issue(&["a.test", "b.test"], KeyKind::Rsa);
    ca.write("a.pem", &next.cert);
    let Look::Failed(error) = server.look() else {
        panic!("it is broken");
    };
    assert_eq!(error.file(), spec.certificates[0].key);
    assert!(server.is_failing());
    assert!(matches!(server.look(), Look::Same), "it was said");
    assert!(Arc::ptr_eq(&first, &server.config()));
    ca.write("a.key", &next.key[..100]);
    assert!(matches!(server.look(), Look::Failed(_)), "in another way");
    ca.write("a.key", &next.key);
    assert!(matches!(server.look(), Look::Renewed));
    assert!(!server.is_failing());
    assert_eq!(server.facts()[0].names, ["a.test", "b.test"]);
    // The ticketer stays.
    assert_eq!(kind(&server, &client), HandshakeKind::Resumed);
    let agreed = handshake(server.config(), &client, "b.test").unwrap();
    assert_eq!(
        agreed.client.peer_certificates().unwrap()[0].as_ref(),
        next.der
    );

    fs::remove_file(&spec.certificates[0].key).unwrap();
    assert!(matches!(server.look(), Look::Failed(_)));
    ca.write("a.key", &next.key);
    assert!(matches!(server.look(), Look::Recovered));
    assert!(matches!(server.look(), Look::Same));
    // Every file is watched.
    let quiet = server.stamp();
    assert_eq!(quiet, server.stamp());
    fs::remove_file(&spec.certificates[0].cert).unwrap();
    assert_ne!(quiet, server.stamp());
    assert!(TlsServer::new(&spec, None).is_err());
}

/// A client's certificate that can be revoked.
fn of_client(ca: &Ca, name: &str) -> (Issued, SerialNumber) {
    // One for each CA is enough here.
    let serial = SerialNumber::from(1000_u64);
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    params.serial_number = Some(serial.clone());
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    (ca.issue_with(&params, KeyKind::Ecdsa), serial)
}

fn crl(ca: &Ca, revoked: &[&SerialNumber]) -> String {
    let revoked = revoked.iter().map(|serial| RevokedCertParams {
        serial_number: (*serial).clone(),
        revocation_time: date_time_ymd(2020, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(2100, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&ca.issuer).unwrap().pem().unwrap()
}

#[test]
fn clients_are_asked_and_checked_as_the_spec_says() {
    let (ca, stranger) = (Ca::new("a CA"), Ca::new("a stranger"));
    let issued = ca.issue(&["a.test"], KeyKind::Ecdsa);
    let (alice, serial) = of_client(&ca, "alice");
    let (mallory, _) = of_client(&stranger, "mallory");
    let mut spec = spec(&ca, "a", &issued);
    let cas = ca.write("clients.pem", ca.issuer.pem());
    let crls = ca.write("revoked.pem", crl(&ca, &[]));
    let agree = |server: &TlsServer, own: Option<&Issued>| {
        handshake(
            server.config(),
            &client(&ca, own, TlsVersion::V13),
            "a.test",
        )
    };
    let fails = |server: &TlsServer, own: Option<&Issued>| {
        handshake_failure(&agree(server, own).err().unwrap())
    };
    for required in [true, false] {
        spec.client_auth = Some(ClientAuth {
            cas: vec![cas.clone()],
            crls: vec![crls.clone()],
            required,
        });
        ca.write("revoked.pem", crl(&ca, &[]));
        let server = TlsServer::new(&spec, Some(secrets("a secret"))).unwrap();
        let known = agree(&server, Some(&alice)).unwrap();
        let chain = known.server.peer_certificates().unwrap();
        let identity = crate::base::tls::identity(chain).unwrap();
        assert_eq!(&*identity.subject, "CN=alice");
        assert_eq!(fails(&server, Some(&mallory)), Handshake::Certificate);
        match required {
            true => assert_eq!(fails(&server, None), Handshake::Certificate),
            false => assert!(
                agree(&server, None)
                    .unwrap()
                    .server
                    .peer_certificates()
                    .is_none()
            ),
        }
        // A session does not outlive the right to it.
        let with_session = client(&ca, Some(&alice), TlsVersion::V13);
        kind(&server, &with_session);
        assert_eq!(kind(&server, &with_session), HandshakeKind::Resumed);
        ca.write("revoked.pem", crl(&ca, &[&serial]));
        assert!(server.renew().unwrap());
        let error = handshake(server.config(), &with_session, "a.test")
            .err()
            .unwrap();
        assert_eq!(handshake_failure(&error), Handshake::Certificate, "{error}");
        let words = crate::base::tls::failure_in_words(&error);
        assert_eq!(words, "the client's certificate is revoked");
    }
}

#[test]
fn session_without_a_certificate_does_not_open_a_door_that_wants_one() {
    let ca = Ca::new("a CA");
    let issued = ca.issue(&["a.test"], KeyKind::Ecdsa);
    let open = spec(&ca, "a", &issued);
    let cas = ca.write("clients.pem", ca.issuer.pem());
    let with = |required| ServerSpec {
        client_auth: Some(ClientAuth {
            cas: vec![cas.clone()],
            crls: Vec::new(),
            required,
        }),
        ..open.clone()
    };
    let server = |spec: &ServerSpec| TlsServer::new(spec, Some(secrets("a secret"))).unwrap();
    for version in [TlsVersion::V12, TlsVersion::V13] {
        let client = client(&ca, None, version);
        kind(&server(&open), &client);
        kind(&server(&with(false)), &client);
        let error = handshake(server(&with(true)).config(), &client, "a.test").err();
        assert_eq!(handshake_failure(&error.unwrap()), Handshake::Certificate);
    }
}

#[test]
fn file_that_is_to_blame_is_named() {
    let ca = Ca::new("a CA");
    let issued = ca.issue(&["a.test"], KeyKind::Ecdsa);
    let mut spec = spec(&ca, "a", &issued);
    let cas = ca.write("clients.pem", ca.issuer.pem());
    let good = ca.write("good.pem", crl(&ca, &[]));
    let bad = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    let bad = ca.write("bad.pem", bad);
    spec.client_auth = Some(ClientAuth {
        cas: vec![cas],
        crls: vec![good, bad.clone()],
        required: true,
    });
    let error = TlsServer::new(&spec, None).unwrap_err();
    assert_eq!(error.file(), bad);
    assert!(error.to_string().contains("it cannot be used: "), "{error}");
    let key = ca.write("clients.key", KeyPair::generate().unwrap().serialize_pem());
    if let Some(auth) = &mut spec.client_auth {
        auth.cas.push(key.clone());
    }
    assert_eq!(TlsServer::new(&spec, None).unwrap_err().file(), key);
}
