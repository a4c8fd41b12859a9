//! What a TLS server is to be.

use std::path::PathBuf;

/// A server as it is wanted: paths, not what is in the files, because those change by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSpec {
    /// At least one. Which one a client gets: the most specific that has the name it asks for (exact,
    /// then wildcard), of those the first whose key it can check; else the first of all.
    pub certificates: Vec<CertificateFiles>,
    /// Whether clients are asked for a certificate.
    pub client_auth: Option<ClientAuth>,
    /// The oldest version spoken.
    pub min_version: TlsVersion,
    /// Application protocols (RFC 7301), the preferred one first.
    pub alpn: Vec<Box<[u8]>>,
}

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, PEM, the server's own certificate first.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// An OCSP response for it, DER, sent along.
    pub ocsp: Option<PathBuf>,
}

/// Whom a server asks for a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// Files of CAs that may vouch for clients, PEM; at least one.
    pub cas: Vec<PathBuf>,
    /// Files of revocation lists, PEM; with any, each CA in a client's chain must have one.
    pub crls: Vec<PathBuf>,
    /// Whether a client without one is refused; one with a bad one always is.
    pub required: bool,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
}

// === impl TlsVersion ===

impl TlsVersion {
    /// Every version.
    pub const ALL: [Self; 2] = [Self::V12, Self::V13];

    /// The word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V12 => "1.2",
            Self::V13 => "1.3",
        }
    }
}
