//! What goes wrong with TLS towards a server, in plain words.

use std::io;

use rustls::pki_types::ServerName;
use rustls::{
    AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible, PeerMisbehaved,
};

use super::verify::PinMismatch;

/// What is wrong with the TLS of a server that should be `name`, in plain words; `None` = the
/// connection broke.
pub fn in_words(error: &io::Error, name: &ServerName<'_>) -> Option<String> {
    let cause = error.get_ref()?.downcast_ref::<Error>()?;
    Some(explain(cause, name))
}

/// What a server says instead of an answer, in plain words; `None` = nothing of TLS. In TLS 1.3 it is
/// only then that a client learns that its certificate is not accepted.
pub fn refusal_in_words(error: &io::Error) -> Option<String> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::AlertReceived(received) => Some(alert(*received, "of this name")),
        _ => None,
    }
}

/// [`in_words`] of what rustls itself says.
pub fn explain(error: &Error, name: &ServerName<'_>) -> String {
    match error {
        Error::InvalidCertificate(wrong) => certificate(wrong, name),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it does not speak TLS".to_owned()
        }
        Error::AlertReceived(received) => alert(*received, &name.to_str()),
        Error::NoApplicationProtocol
        | Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol) => {
            NO_PROTOCOL.to_owned()
        }
        Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
            VERSION.to_owned()
        }
        other => format!("TLS failed: {other}"),
    }
}

const NO_PROTOCOL: &str = "it speaks no protocol that was offered (ALPN)";

const VERSION: &str = "it speaks neither TLS 1.2 nor TLS 1.3";

fn certificate(wrong: &CertificateError, name: &ServerName<'_>) -> String {
    match wrong {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("its certificate is not for `{}`", name.to_str())
        }
        // The latter: it has the name of one that is, and not its key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is of a CA that is not trusted".to_owned()
        }
        CertificateError::Other(other) => match other.0.downcast_ref::<PinMismatch>() {
            Some(mismatch) => mismatch.to_string(),
            None => format!("its certificate is not accepted: {other}"),
        },
        other => format!("its certificate is not accepted: {other}"),
    }
}

/// What a server says before it hangs up.
fn alert(alert: AlertDescription, name: &str) -> String {
    match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            "it wants a client certificate: say tls = { cert = …, key = … }".to_owned()
        }
        AlertDescription::UnknownCA => {
            "it does not trust the CA of our client certificate".to_owned()
        }
        AlertDescription::CertificateExpired => {
            "it finds that our client certificate has expired".to_owned()
        }
        AlertDescription::CertificateRevoked => {
            "it finds that our client certificate was revoked".to_owned()
        }
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate => {
            // TLS 1.2 has no other word for a certificate that is missing.
            "it wants another client certificate, or one at all: say tls = { cert = …, key = … }"
                .to_owned()
        }
        AlertDescription::NoApplicationProtocol => NO_PROTOCOL.to_owned(),
        AlertDescription::ProtocolVersion => VERSION.to_owned(),
        AlertDescription::UnrecognisedName => {
            format!("it knows no server `{name}`")
        }
        other => format!("it refuses TLS: {other:?}"),
    }
}
