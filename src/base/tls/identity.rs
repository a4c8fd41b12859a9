//! Who a client is by its certificate, as endpoints are told.

use data_encoding::{BASE64, HEXLOWER};
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

use super::certificate::parse;
use super::name::rfc4514;

/// A client's certificate in words. Each is printable ASCII, so a value of a header field, whatever
/// the certificate holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// Whose it is, as RFC 4514 writes it; empty if it says nothing that can be read.
    pub subject: Box<str>,
    /// SHA-256 of the certificate, lower-case hex.
    pub fingerprint: Box<str>,
    /// The certificate itself as RFC 9440 section 2.1 writes it: base64 between colons.
    pub certificate: Box<str>,
}

/// Who is at the other end: what the first certificate of its chain says. `None` = it has none.
///
/// It proves nothing by itself: rustls has verified the chain by then.
pub fn identity(chain: &[CertificateDer<'_>]) -> Option<ClientIdentity> {
    let own = chain.first()?;
    let subject = parse(own).map_or_else(|_| String::new(), |c| rfc4514(c.subject()));
    Some(ClientIdentity {
        subject: subject.into(),
        fingerprint: HEXLOWER.encode(&Sha256::digest(own)).into(),
        certificate: format!(":{}:", BASE64.encode(own)).into(),
    })
}
