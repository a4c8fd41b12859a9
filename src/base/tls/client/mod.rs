//! What a client needs for TLS towards servers: whom it trusts, what it proves itself with.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, Error, RootCertStore};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::verify::{Gullible, Pinned};

/// Whom a client trusts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust<'a> {
    /// Whoever answers: a certificate proves nothing.
    Anybody,
    /// Who has a certificate of one of these CAs (PEM).
    Cas(&'a [u8]),
    /// Who has a certificate of a CA of this system.
    System,
}

/// What a client is made of.
#[derive(Clone, Debug)]
pub struct ClientSetup<'a> {
    /// Whom it trusts.
    pub trust: Trust<'a>,
    /// What it offers (ALPN, RFC 7301), the preferred one first; none = the server is not asked.
    pub protocols: &'a [&'a [u8]],
    /// What it shows to a server that asks who it is.
    pub identity: Option<Arc<CertifiedKey>>,
    /// SHA-256 of the public keys (SubjectPublicKeyInfo) of which a server must have one, whoever is
    /// trusted; none = any.
    pub pins: &'a [[u8; 32]],
}

/// What a client needs, made once. Equal when made of the same.
#[derive(Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    /// The same without a protocol.
    silent: Arc<ClientConfig>,
    /// SHA-256 of all that it is made of.
    made_of: [u8; 32],
}

/// Sessions that are remembered: what rustls has by itself. One is a few KiB, and goes by the name of
/// the server.
const SESSIONS: usize = 256;

/// A text is not a list of CAs, or there are none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// There is no certificate in it.
    #[error("there is no certificate in it")]
    Empty,
    /// One of them cannot be used.
    #[error("certificate {number} in it is not valid: {why}")]
    Invalid {
        /// Counted from 1.
        number: usize,
        /// What the library says.
        why: String,
    },
    /// The system has none where it should.
    #[error("this system has no CA certificates")]
    NoneOnSystem,
    /// The library cannot do what is asked for.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

// === impl ClientSetup ===

impl ClientSetup<'_> {
    /// SHA-256 of all of it: of equal setups, equal clients.
    pub fn digest(&self) -> [u8; 32] {
        // Each part with its length in front, each list with how many there are: no two setups have
        // one text.
        let mut hash = Sha256::new();
        let mut add = |part: &[u8]| {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        };
        match self.trust {
            Trust::Anybody => add(b"anybody"),
            Trust::Cas(pem) => {
                add(b"cas");
                add(pem);
            }
            Trust::System => add(b"system"),
        }
        add(&self.protocols.len().to_be_bytes());
        self.protocols.iter().for_each(|protocol| add(protocol));
        // The key fits the certificate: who has the same of the one has the same of the other.
        let chain = self.identity.as_ref().map_or(&[][..], |own| &own.cert);
        add(&chain.len().to_be_bytes());
        for certificate in chain {
            add(certificate);
        }
        self.pins.iter().for_each(|pin| add(pin));
        hash.finalize().into()
    }
}

// === impl TlsClient ===

impl TlsClient {
    /// A client of this setup.
    ///
    /// # Errors
    /// What is wrong with the CAs.
    pub fn new(setup: &ClientSetup<'_>) -> Result<Self, TrustError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let failed = |error: String| TrustError::Setup(error);
        let by_webpki = |roots: RootCertStore| {
            let roots = Arc::new(roots);
            WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build()
        };
        let trusted = |roots| match by_webpki(roots) {
            Ok(verifier) => Ok(verifier as Arc<dyn ServerCertVerifier>),
            Err(error) => Err(failed(error.to_string())),
        };
        let mut verifier = match setup.trust {
            Trust::Anybody => Arc::new(Gullible(provider.clone())),
            Trust::Cas(pem) => trusted(cas(pem)?)?,
            Trust::System => trusted(of_system()?)?,
        };
        if !setup.pins.is_empty() {
            verifier = Arc::new(Pinned {
                inner: verifier,
                pins: setup.pins.into(),
            });
        }
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error: Error| failed(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &setup.identity {
            Some(identity) => {
                let always = SingleCertAndKey::from(identity.clone());
                builder.with_client_cert_resolver(Arc::new(always))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = setup.protocols.iter().map(|p| p.to_vec()).collect();
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        let mut silent = config.clone();
        silent.alpn_protocols.clear();
        // A server may tie a session to what was agreed on in it.
        silent.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(Self {
            config: Arc::new(config),
            silent: Arc::new(silent),
            made_of: setup.digest(),
        })
    }

    /// A client that trusts so, offers these protocols (ALPN), and is nobody itself.
    ///
    /// # Errors
    /// As [`TlsClient::new`].
    pub fn trusting(trust: Trust<'_>, protocols: &[&[u8]]) -> Result<Self, TrustError> {
        Self::new(&ClientSetup {
            trust,
            protocols,
            identity: None,
            pins: &[],
        })
    }

    /// What rustls goes by.
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// The same for connections whose protocol nobody here knows: none is offered, because a server that
    /// speaks none of those offered must hang up (RFC 7301 section 3.2).
    pub fn config_without_protocol(&self) -> &Arc<ClientConfig> {
        &self.silent
    }

    /// Agrees on TLS with a server that must be `name`.
    ///
    /// # Errors
    /// What rustls or the connection says; [`in_words`](super::in_words) tells them apart.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        name: ServerName<'static>,
        stream: S,
    ) -> io::Result<TlsStream<S>> {
        TlsConnector::from(self.config.clone())
            .connect(name, stream)
            .await
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient").finish_non_exhaustive()
    }
}

impl PartialEq for TlsClient {
    fn eq(&self, other: &Self) -> bool {
        self.made_of == other.made_of
    }
}

impl Eq for TlsClient {}

/// A DNS name or IP address as a server's name.
///
/// # Errors
/// It is neither.
pub fn server_name(text: &str) -> Result<ServerName<'static>, InvalidDnsNameError> {
    let text = text.strip_prefix('[').unwrap_or(text);
    let text = text.strip_suffix(']').unwrap_or(text);
    ServerName::try_from(text.to_owned())
}

fn cas(pem: &[u8]) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    for (i, ca) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let added = ca
            .map_err(|error| error.to_string())
            .and_then(|ca| roots.add(ca).map_err(|error| error.to_string()));
        added.map_err(|why| TrustError::Invalid { number: i + 1, why })?;
    }
    if roots.is_empty() {
        return Err(TrustError::Empty);
    }
    Ok(roots)
}

fn of_system() -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    // A system's bundle may hold old ones that nobody can read: the others hold.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(TrustError::NoneOnSystem);
    }
    Ok(roots)
}

#[cfg(test)]
mod tests;
