//! TLS towards servers: which are trusted, and what went wrong in plain words.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, InvalidMessage, RootCertStore,
    SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use xxhash_rust::xxh3::xxh3_64;

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

/// What a client needs, made once. Equal when made of the same.
#[derive(Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    made_of: u64,
}

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

// === impl TlsClient ===

impl TlsClient {
    /// A client that trusts so and offers these protocols (ALPN).
    ///
    /// # Errors
    /// What is wrong with the CAs.
    pub fn new(trust: Trust<'_>, protocols: &[&[u8]]) -> Result<Self, TrustError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let setup = |error: Error| TrustError::Setup(error.to_string());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(setup)?;
        let (builder, made_of) = match trust {
            Trust::Anybody => {
                let verifier = Arc::new(Gullible(provider));
                let builder = builder
                    .dangerous()
                    .with_custom_certificate_verifier(verifier);
                (builder, 0)
            }
            Trust::Cas(pem) => (builder.with_root_certificates(cas(pem)?), xxh3_64(pem)),
            Trust::System => (builder.with_root_certificates(of_system()?), 1),
        };
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        Ok(Self {
            config: Arc::new(config),
            made_of: made_of ^ xxh3_64(&protocols.concat()),
        })
    }

    /// Agrees on TLS with a server that must be `name`.
    ///
    /// # Errors
    /// What rustls or the connection says; [`in_words`] tells them apart.
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

/// What is wrong with the TLS of a server that should be `name`, in plain words; `None` = the
/// connection broke.
pub fn in_words(error: &io::Error, name: &ServerName<'_>) -> Option<String> {
    let cause = error.get_ref()?.downcast_ref::<Error>()?;
    let name = name.to_str();
    Some(match cause {
        Error::InvalidCertificate(wrong) => match wrong {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("its certificate is not for `{name}`")
            }
            // The latter: it has the name of one that is, and not its key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate is of a CA that is not trusted".to_owned()
            }
            other => format!("its certificate is not accepted: {other}"),
        },
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it does not speak TLS".to_owned()
        }
        Error::AlertReceived(alert) => format!("it refuses TLS: {alert:?}"),
        other => format!("TLS failed: {other}"),
    })
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

/// Believes every certificate, but wants the server to have its key.
#[derive(Debug)]
struct Gullible(Arc<CryptoProvider>);

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
