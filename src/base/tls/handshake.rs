//! How handshakes with clients end.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

/// How a handshake with a client ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Handshake {
    /// The client refused, by an alert: our certificate, most often.
    Alert,
    /// The client's certificate is missing or not accepted.
    Certificate,
    /// The client went away in the middle.
    Closed,
    /// A new session.
    Full,
    /// The two have no application protocol in common (ALPN).
    NoProtocol,
    /// What came is not TLS, but HTTP or noise.
    Plaintext,
    /// It is TLS and against its rules, or the two have no way in common.
    Protocol,
    /// A session went on by its ticket.
    Resumed,
    /// It took longer than `handshake_timeout`.
    Timeout,
    /// The client speaks only versions older than `min_version`.
    Version,
}

// === impl Handshake ===

impl Handshake {
    /// Every ending.
    pub const ALL: [Self; 10] = [
        Self::Alert,
        Self::Certificate,
        Self::Closed,
        Self::Full,
        Self::NoProtocol,
        Self::Plaintext,
        Self::Protocol,
        Self::Resumed,
        Self::Timeout,
        Self::Version,
    ];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Certificate => "certificate",
            Self::Closed => "closed",
            Self::Full => "full",
            Self::NoProtocol => "no_protocol",
            Self::Plaintext => "plaintext",
            Self::Protocol => "protocol",
            Self::Resumed => "resumed",
            Self::Timeout => "timeout",
            Self::Version => "version",
        }
    }
}

/// What kind of failure an error of rustls is.
pub fn handshake_failure(error: &Error) -> Handshake {
    match error {
        Error::AlertReceived(AlertDescription::CloseNotify | AlertDescription::UserCanceled) => {
            Handshake::Closed
        }
        // A client that has not the versions in common may find out first.
        Error::AlertReceived(AlertDescription::ProtocolVersion) => Handshake::Version,
        Error::AlertReceived(AlertDescription::NoApplicationProtocol)
        | Error::NoApplicationProtocol => Handshake::NoProtocol,
        Error::AlertReceived(_) => Handshake::Alert,
        Error::InvalidCertificate(_) | Error::NoCertificatesPresented => Handshake::Certificate,
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => Handshake::Plaintext,
        // TLS 1.1 has no signature_algorithms, and rustls misses them before it looks at versions.
        Error::InvalidMessage(InvalidMessage::UnknownProtocolVersion)
        | Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => Handshake::Version,
        _ => Handshake::Protocol,
    }
}

/// What went wrong with a client, in plain words.
pub fn failure_in_words(error: &Error) -> String {
    let words = match error {
        Error::AlertReceived(alert) => match alert {
            AlertDescription::CloseNotify | AlertDescription::UserCanceled => "the client gave up",
            AlertDescription::UnknownCA => "the client does not trust the CA of our certificate",
            AlertDescription::CertificateExpired => {
                "the client says that our certificate has expired"
            }
            AlertDescription::CertificateRevoked => {
                "the client says that our certificate is revoked"
            }
            AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate => {
                "the client does not accept our certificate"
            }
            AlertDescription::ProtocolVersion => "the client does not speak our versions of TLS",
            AlertDescription::NoApplicationProtocol => {
                "the client does not speak our application protocols (ALPN)"
            }
            other => return format!("the client refuses: {other:?}"),
        },
        Error::InvalidCertificate(wrong) => match wrong {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the client's certificate has expired"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the client's certificate is not valid yet"
            }
            CertificateError::Revoked => "the client's certificate is revoked",
            CertificateError::UnknownRevocationStatus => {
                "no revocation list covers the client's certificate or a CA above it; \
                 `client_crl` needs one of each"
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the client's certificate is of a CA that is not in `client_ca`"
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                "the client's certificate is not one for clients"
            }
            other => return format!("the client's certificate is not accepted: {other}"),
        },
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the client does not speak TLS"
        }
        Error::NoApplicationProtocol => {
            "the client does not speak our application protocols (ALPN)"
        }
        Error::NoCertificatesPresented => "the client has no certificate, and must have one",
        Error::PeerIncompatible(
            PeerIncompatible::NoSignatureSchemesInCommon | PeerIncompatible::NoCipherSuitesInCommon,
        ) => {
            "the client cannot check a certificate of our kind, or has no cipher in common with us"
        }
        Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon) => {
            "the client has no key exchange in common with us"
        }
        error if handshake_failure(error) == Handshake::Version => {
            "the client speaks only versions of TLS that are too old"
        }
        other => return format!("TLS failed: {other}"),
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ending_has_its_place_and_its_word() {
        for (i, ending) in Handshake::ALL.into_iter().enumerate() {
            assert_eq!(ending as usize, i);
        }
        let mut words: Vec<_> = Handshake::ALL.iter().map(|e| e.as_str()).collect();
        assert!(words.is_sorted());
        words.dedup();
        assert_eq!(words.len(), Handshake::ALL.len());
    }

    #[test]
    fn errors_are_told_apart() {
        let cases = [
            (
                Error::AlertReceived(AlertDescription::UnknownCA),
                Handshake::Alert,
                "the client does not trust the CA of our certificate",
            ),
            (
                Error::AlertReceived(AlertDescription::DecodeError),
                Handshake::Alert,
                "the client refuses: DecodeError",
            ),
            (
                Error::AlertReceived(AlertDescription::ProtocolVersion),
                Handshake::Version,
                "the client does not speak our versions of TLS",
            ),
            (
                Error::NoCertificatesPresented,
                Handshake::Certificate,
                "the client has no certificate, and must have one",
            ),
            (
                Error::InvalidCertificate(CertificateError::Revoked),
                Handshake::Certificate,
                "the client's certificate is revoked",
            ),
            (
                Error::InvalidMessage(InvalidMessage::InvalidContentType),
                Handshake::Plaintext,
                "the client does not speak TLS",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered),
                Handshake::Version,
                "the client speaks only versions of TLS that are too old",
            ),
            (
                Error::NoApplicationProtocol,
                Handshake::NoProtocol,
                "the client does not speak our application protocols (ALPN)",
            ),
            (
                Error::AlertReceived(AlertDescription::CloseNotify),
                Handshake::Closed,
                "the client gave up",
            ),
            (
                Error::DecryptError,
                Handshake::Protocol,
                "TLS failed: cannot decrypt peer's message",
            ),
        ];
        for (error, ending, words) in cases {
            assert_eq!(handshake_failure(&error), ending, "{error}");
            assert_eq!(failure_in_words(&error), words);
        }
    }
}
