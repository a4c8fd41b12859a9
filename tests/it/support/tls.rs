//! TLS of the tests' own side, by rustls: what a client offers, whom it trusts; a server for origins.

use std::sync::Arc;

use rustls::client::{EchGreaseConfig, EchMode};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion,
};

use super::certs::{Ca, Issued};

/// A client that trusts a CA. Kept and used again, it resumes its sessions.
#[derive(Clone, Debug)]
pub struct Offer {
    pub config: Arc<ClientConfig>,
}

/// What a client offers, before it is one.
#[derive(Debug)]
pub struct OfferBuilder<'a> {
    roots: RootCertStore,
    versions: &'static [&'static SupportedProtocolVersion],
    alpn: &'a [&'a str],
    own: Option<&'a Issued>,
    groups: Option<Vec<&'static dyn SupportedKxGroup>>,
}

pub const V12: &[&SupportedProtocolVersion] = &[&TLS12];
pub const V13: &[&SupportedProtocolVersion] = &[&TLS13];
pub const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

// === impl Offer ===

impl Offer {
    /// Both versions, `http/1.1`, no certificate.
    pub fn trusting(ca: &Ca) -> Self {
        Self::build(ca).done()
    }

    /// The same of one version.
    pub fn of(ca: &Ca, versions: &'static [&'static SupportedProtocolVersion]) -> Self {
        Self::build(ca).versions(versions).done()
    }

    /// TLS 1.3 with an Encrypted Client Hello that is none, as browsers send it.
    pub fn with_grease(ca: &Ca) -> Self {
        let suite = aws_lc_rs::hpke::ALL_SUPPORTED_SUITES[0];
        let (key, _) = suite.generate_key_pair().unwrap();
        let mode = EchMode::Grease(EchGreaseConfig::new(suite, key));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(provider)
            .with_ech(mode)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            config: Arc::new(config),
        }
    }

    /// What a client says first that wants `name`; an address is not asked for.
    pub fn hello(&self, name: &str) -> Vec<u8> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(self.config.clone(), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    pub fn build<'a>(ca: &Ca) -> OfferBuilder<'a> {
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        OfferBuilder {
            roots,
            versions: BOTH,
            alpn: &["http/1.1"],
            own: None,
            groups: None,
        }
    }
}

// === impl OfferBuilder ===

impl<'a> OfferBuilder<'a> {
    pub fn versions(mut self, versions: &'static [&'static SupportedProtocolVersion]) -> Self {
        self.versions = versions;
        self
    }

    pub fn alpn(mut self, alpn: &'a [&'a str]) -> Self {
        self.alpn = alpn;
        self
    }

    pub fn own(mut self, own: &'a Issued) -> Self {
        self.own = Some(own);
        self
    }

    pub fn groups(mut self, groups: &[&'static dyn SupportedKxGroup]) -> Self {
        self.groups = Some(groups.to_vec());
        self
    }

    pub fn done(self) -> Offer {
        let mut provider = aws_lc_rs::default_provider();
        if let Some(groups) = self.groups {
            provider.kx_groups = groups;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_root_certificates(self.roots);
        let mut config = match self.own {
            None => builder.with_no_client_auth(),
            Some(own) => builder
                .with_client_auth_cert(vec![own.der.clone()], own.secret())
                .unwrap(),
        };
        config.alpn_protocols = self
            .alpn
            .iter()
            .map(|name| name.as_bytes().into())
            .collect();
        Offer {
            config: Arc::new(config),
        }
    }
}

/// A server with this certificate; with `clients` it asks for one of that CA.
pub fn server(
    own: &Issued,
    versions: &[&'static SupportedProtocolVersion],
    clients: Option<&Ca>,
) -> ServerConfig {
    let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
    let verifier = match clients {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add(ca.der().clone()).unwrap();
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .unwrap()
        }
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![own.der.clone()], own.secret())
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}
