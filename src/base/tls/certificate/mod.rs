//! Certificates, keys, CAs and revocation lists in files: read, checked, and what is wrong with them
//! in plain words.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{
    OID_KEY_TYPE_EC_PUBLIC_KEY, OID_PKCS1_RSAENCRYPTION, OID_PKCS1_RSASSAPSS, OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer as _;

use super::name;
use super::spec::CertificateFiles;

/// A certificate with its key, ready to serve.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What rustls signs with: the chain, the key, the OCSP response.
    pub key: Arc<CertifiedKey>,
    /// What it says.
    pub facts: CertificateFacts,
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// DNS names and IP addresses that it is for, in lower case; the common name if there is none.
    pub names: Vec<String>,
    /// Whose it is, as RFC 4514 writes it; printable ASCII.
    pub subject: String,
    /// From when it holds, in seconds since 1970.
    pub not_before: i64,
    /// Until when, in seconds since 1970.
    pub not_after: i64,
    /// SHA-256 of the certificate.
    pub fingerprint: [u8; 32],
    /// What it signs with.
    pub kind: KeyKind,
    /// The first certificate of the chain that did not issue the one before it, from 2. Most clients
    /// find their way all the same: it is worth a warning, not an outage.
    pub unlinked: Option<usize>,
}

/// The kind of a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// Over one of the NIST curves.
    Ecdsa,
    /// Browsers do not take it.
    Ed25519,
    /// Anything else.
    Other,
    /// RSA.
    Rsa,
}

/// A file is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("{}: {wrong}", .file.display())]
pub struct CertificateError {
    file: PathBuf,
    wrong: Wrong,
}

/// What is wrong with a file of certificates, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    /// What is between the lines of a PEM section is not base64.
    #[error("its PEM is damaged: what is in it is not base64; copy it again")]
    Base64,
    /// A PEM section begins and does not end.
    #[error("it is cut off: `-----END {0}-----` is missing; was it copied whole?")]
    Cut(String),
    /// The library takes no DER where PEM is expected.
    #[error(
        "it is in DER, and PEM is wanted: `openssl {command} -inform der -in FILE -out NEW` makes it so"
    )]
    Der {
        /// The command that knows these files.
        command: &'static str,
    },
    /// A key that needs a passphrase.
    #[error(
        "its key is encrypted, and nobody is there to type a passphrase: `openssl pkey -in FILE -out NEW` \
         decrypts it; let only the user that isobar runs as read the result"
    )]
    Encrypted,
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(io::Error),
    /// The library cannot sign with this kind of key.
    #[error(
        "its private key cannot be used; RSA of 2048 to 8192 bits, ECDSA over P-256, P-384 or P-521, and \
         Ed25519 can"
    )]
    KeyKind,
    /// The key is of another certificate.
    #[error(
        "this key does not belong to the certificate in {}; give the key that the certificate was \
         asked for with, or the certificate of this key",
        .cert.display()
    )]
    KeyMismatch {
        /// Where the certificate is.
        cert: PathBuf,
    },
    /// More than any such file has.
    #[error("it has more than {max_bytes} bytes; is it the right file?")]
    Long {
        /// What is read at most.
        max_bytes: u64,
    },
    /// The key is of a certificate further down.
    #[error(
        "the key in {} belongs to certificate {number} in it; the server's own must be the first, then \
         who issued it, and so on",
        .key.display()
    )]
    NotFirst {
        /// Where the key is.
        key: PathBuf,
        /// Counted from 1.
        number: usize,
    },
    /// A folder, a pipe, a device: reading it might never end.
    #[error("it is not a file")]
    NotAFile,
    /// Something else is in it, or nothing.
    #[error("there is no {wanted} in it{}", .found.hint())]
    Nothing {
        /// What should be.
        wanted: &'static str,
        /// What is.
        found: Found,
    },
    /// Not what a responder signs.
    #[error("it is not an OCSP response in DER; `openssl ocsp … -respout FILE` writes one")]
    Ocsp,
    /// A responder said that it has none.
    #[error("it is an OCSP responder's word that it has no answer; ask it again")]
    OcspRefused,
    /// The library does not take what is in it.
    #[error("it cannot be used: {0}")]
    Refused(String),
    /// A PEM section begins in a way that it may not.
    #[error("its PEM is damaged: a line that begins a section is not whole; copy it again")]
    Section,
    /// The library refuses it.
    #[error("{thing} {number} in it is not valid: {why}")]
    Unusable {
        /// What it is.
        thing: &'static str,
        /// Counted from 1.
        number: usize,
        /// What the library says.
        why: String,
    },
}

/// What a file has that was to hold something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Certificates.
    Certificate,
    /// A private key.
    Key,
    /// Nothing that is known.
    Nothing,
    /// Something else.
    Other,
    /// A request for a certificate.
    Request,
}

/// A chain has a few certificates of 1 to 2 KiB; the CAs of a whole system have a quarter of this.
const MAX_BYTES: u64 = 1024 * 1024;

/// Public CAs have lists of some MiB; one's own of some KiB.
const MAX_CRL_BYTES: u64 = 16 * 1024 * 1024;

/// A response has 0.5 to 3 KiB.
const MAX_OCSP_BYTES: u64 = 64 * 1024;

/// Reads a certificate and its key, and makes sure that they belong together. Blocks for the files.
///
/// # Errors
/// What is wrong with one of the files.
pub fn read_pair(files: &CertificateFiles) -> Result<Loaded, CertificateError> {
    let CertificateFiles { cert, key, ocsp } = files;
    let of_cert = |wrong| CertificateError::new(cert, wrong);
    let of_key = |wrong| CertificateError::new(key, wrong);

    let chain = read_chain(cert).map_err(of_cert)?;
    let facts = facts(&chain).map_err(of_cert)?;
    let private = read_key(key).map_err(of_key)?;
    let signing = any_supported_type(&private).map_err(|_| of_key(Wrong::KeyKind))?;
    // Only kinds that can say their public key are among those supported; should there be others one
    // day, the first handshake tells.
    if let Some(public) = signing.public_key() {
        let owner = chain.iter().position(|certificate| {
            parse(certificate).is_ok_and(|c| c.public_key().raw == public.as_ref())
        });
        match owner {
            Some(0) => {}
            Some(i) => {
                let key = key.clone();
                return Err(of_cert(Wrong::NotFirst { key, number: i + 1 }));
            }
            None => return Err(of_key(Wrong::KeyMismatch { cert: cert.clone() })),
        }
    }
    let mut certified = CertifiedKey::new(chain, signing);
    if let Some(path) = ocsp {
        let response = read_ocsp(path).map_err(|wrong| CertificateError::new(path, wrong))?;
        certified.ocsp = Some(response);
    }
    Ok(Loaded {
        key: Arc::new(certified),
        facts,
    })
}

/// Reads CAs. Blocks for the file.
///
/// # Errors
/// What is wrong with it.
pub fn read_cas(path: &Path) -> Result<RootCertStore, CertificateError> {
    let chain = read_chain(path).map_err(|wrong| CertificateError::new(path, wrong))?;
    let mut roots = RootCertStore::empty();
    for (number, ca) in (1..).zip(chain) {
        roots.add(ca).map_err(|error| {
            let wrong = Wrong::Unusable {
                thing: "certificate",
                number,
                why: error.to_string(),
            };
            CertificateError::new(path, wrong)
        })?;
    }
    Ok(roots)
}

/// Reads revocation lists. Blocks for the file.
///
/// # Errors
/// What is wrong with it.
pub fn read_crls(
    path: &Path,
) -> Result<Vec<CertificateRevocationListDer<'static>>, CertificateError> {
    let read = || {
        let (sections, found) = sections(path, MAX_CRL_BYTES, "crl")?;
        let crls: Vec<_> = sections
            .into_iter()
            .filter(|(kind, _)| *kind == SectionKind::Crl)
            .map(|(_, der)| CertificateRevocationListDer::from(der))
            .collect();
        if crls.is_empty() {
            let wanted = "revocation list";
            return Err(Wrong::Nothing { wanted, found });
        }
        Ok(crls)
    };
    read().map_err(|wrong| CertificateError::new(path, wrong))
}

/// What the first certificate of a chain says.
fn facts(chain: &[CertificateDer<'_>]) -> Result<CertificateFacts, Wrong> {
    let mut unlinked = None;
    let mut issuer: Option<Vec<u8>> = None;
    for (number, certificate) in (1..).zip(chain) {
        let parsed = parse(certificate).map_err(|why| unusable(number, why))?;
        if issuer.is_some_and(|issuer| issuer != parsed.subject().as_raw()) {
            unlinked = unlinked.or(Some(number));
        }
        issuer = Some(parsed.issuer().as_raw().to_vec());
    }
    let Some(own) = chain.first() else {
        return Err(Wrong::Nothing {
            wanted: "certificate",
            found: Found::Nothing,
        });
    };
    let parsed = parse(own).map_err(|why| unusable(1, why))?;
    Ok(CertificateFacts {
        names: names(&parsed),
        subject: name::rfc4514(parsed.subject()),
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
        fingerprint: Sha256::digest(own).into(),
        kind: kind(&parsed),
        unlinked,
    })
}

pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err("bytes follow it".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn unusable(number: usize, why: String) -> Wrong {
    Wrong::Unusable {
        thing: "certificate",
        number,
        why,
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let mut names = Vec::new();
    if let Ok(Some(extension)) = certificate.subject_alternative_name() {
        for name in &extension.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.push(name.to_ascii_lowercase()),
                GeneralName::IPAddress(bytes) => names.extend(address(bytes)),
                GeneralName::DirectoryName(_)
                | GeneralName::EDIPartyName(_)
                | GeneralName::Invalid(..)
                | GeneralName::OtherName(..)
                | GeneralName::RFC822Name(_)
                | GeneralName::RegisteredID(_)
                | GeneralName::URI(_)
                | GeneralName::X400Address(_) => {}
            }
        }
    }
    if names.is_empty() {
        let common = certificate.subject().iter_common_name();
        names.extend(
            common
                .filter_map(name::text)
                .map(|n| n.to_ascii_lowercase()),
        );
    }
    // They are shown in logs and metrics, and nobody asks for one with anything else in it.
    names.retain(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()));
    names
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    Some(v4.or(v6).ok()?.to_string())
}

fn kind(certificate: &X509Certificate<'_>) -> KeyKind {
    let algorithm = certificate.public_key().algorithm.oid();
    if [OID_PKCS1_RSAENCRYPTION, OID_PKCS1_RSASSAPSS].contains(algorithm) {
        KeyKind::Rsa
    } else if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        KeyKind::Ecdsa
    } else if *algorithm == OID_SIG_ED25519 {
        KeyKind::Ed25519
    } else {
        KeyKind::Other
    }
}

/// The certificates in a file, at least one; other things in it are passed over.
fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let (sections, found) = sections(path, MAX_BYTES, "x509")?;
    let chain: Vec<_> = sections
        .into_iter()
        .filter(|(kind, _)| *kind == SectionKind::Certificate)
        .map(|(_, der)| CertificateDer::from(der))
        .collect();
    if chain.is_empty() {
        let wanted = "certificate";
        return Err(Wrong::Nothing { wanted, found });
    }
    Ok(chain)
}

/// The first key in a file: PKCS#8, PKCS#1 (RSA) or SEC1 (EC).
fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, Wrong> {
    let (sections, found) = sections(path, MAX_BYTES, "pkey")?;
    sections
        .into_iter()
        .find_map(|(kind, der)| PrivateKeyDer::from_pem(kind, der))
        .ok_or(Wrong::Nothing {
            wanted: "private key",
            found,
        })
}

fn read_ocsp(path: &Path) -> Result<Vec<u8>, Wrong> {
    let response = read(path, MAX_OCSP_BYTES)?;
    // OCSPResponse ::= SEQUENCE { responseStatus ENUMERATED, responseBytes [0] … OPTIONAL }, RFC 6960
    // section 4.2.1. Its length must be the file's: half a response is not stapled.
    let content = match response.as_slice() {
        [0x30, 0x82, high, low, rest @ ..]
            if rest.len() == usize::from(u16::from_be_bytes([*high, *low])) =>
        {
            rest
        }
        [0x30, 0x81, len, rest @ ..] if rest.len() == usize::from(*len) => rest,
        [0x30, len @ ..=0x7f, rest @ ..] if rest.len() == usize::from(*len) => rest,
        _ => return Err(Wrong::Ocsp),
    };
    match content {
        [0x0a, 1, 0, ..] => Ok(response),
        [0x0a, 1, _, ..] => Err(Wrong::OcspRefused),
        _ => Err(Wrong::Ocsp),
    }
}

type Sections = Vec<(SectionKind, Vec<u8>)>;

/// The sections of a PEM file, and what it has most of all; `command` is what openssl calls its kind.
fn sections(path: &Path, max: u64, command: &'static str) -> Result<(Sections, Found), Wrong> {
    let bytes = read(path, max)?;
    // A SEQUENCE of more than 127 bytes, which no text begins with.
    if matches!(bytes.as_slice(), [0x30, 0x81..=0x84, ..]) {
        return Err(Wrong::Der { command });
    }
    let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    // RFC 5958 section 3, and what openssl wrote before that (RFC 1421 section 4.6.1.1).
    let is_encrypted = has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED");
    let sections =
        <(SectionKind, Vec<u8>)>::pem_slice_iter(&bytes).collect::<Result<Sections, _>>();
    let is_key = |kind: SectionKind| {
        use SectionKind::{EcPrivateKey, PrivateKey, RsaPrivateKey};
        matches!(kind, EcPrivateKey | PrivateKey | RsaPrivateKey)
    };
    if is_encrypted && command == "pkey" {
        let has_plain = sections
            .as_ref()
            .is_ok_and(|all| all.iter().any(|(kind, _)| is_key(*kind)));
        if !has_plain {
            return Err(Wrong::Encrypted);
        }
    }
    let sections = sections.map_err(|error| match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            let printable: Vec<u8> = end_marker
                .into_iter()
                .filter(|b| matches!(b, b' '..=b'~'))
                .take(64)
                .collect();
            Wrong::Cut(String::from_utf8_lossy(&printable).into_owned())
        }
        pem::Error::IllegalSectionStart { .. } => Wrong::Section,
        pem::Error::Base64Decode(_) => Wrong::Base64,
        _ => Wrong::Base64,
    })?;
    let of = |wanted: &dyn Fn(SectionKind) -> bool| sections.iter().any(|(kind, _)| wanted(*kind));
    let found = if of(&|kind| kind == SectionKind::Certificate) {
        Found::Certificate
    } else if is_encrypted || of(&is_key) {
        Found::Key
    } else if of(&|kind| kind == SectionKind::Csr) {
        Found::Request
    } else if !sections.is_empty() {
        Found::Other
    } else {
        Found::Nothing
    };
    Ok((sections, found))
}

fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>, Wrong> {
    if !fs::metadata(path).map_err(Wrong::Io)?.is_file() {
        return Err(Wrong::NotAFile);
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(max_bytes + 1).read_to_end(&mut bytes))
        .map_err(Wrong::Io)?;
    if bytes.len() as u64 > max_bytes {
        return Err(Wrong::Long { max_bytes });
    }
    Ok(bytes)
}

// === impl CertificateError ===

impl CertificateError {
    pub(super) fn new(file: &Path, wrong: Wrong) -> Self {
        let file = file.to_owned();
        Self { file, wrong }
    }

    /// Which file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What is wrong with it, without its name.
    pub fn wrong(&self) -> &Wrong {
        &self.wrong
    }
}

// === impl Found ===

impl Found {
    fn hint(self) -> &'static str {
        match self {
            Self::Certificate => ", but a certificate; are two files swapped?",
            Self::Key => ", but a private key; are two files swapped?",
            Self::Nothing => "; PEM files begin with a line `-----BEGIN …-----`",
            Self::Other => ", but something else; is it the right file?",
            Self::Request => ", but a request for a certificate; give what the CA made of it",
        }
    }
}

// === impl CertificateFacts ===

impl CertificateFacts {
    /// What calls it in a sentence and in a label: its first name, else its subject.
    pub fn name(&self) -> &str {
        self.names.first().unwrap_or(&self.subject)
    }

    /// What an operator should know about it, `now` in seconds since 1970.
    pub fn warnings(&self, now: i64) -> Vec<String> {
        let name = self.name();
        let mut warnings = Vec::new();
        if self.not_after < now {
            warnings.push(format!(
                "the certificate for `{name}` has expired: clients refuse it; renew it"
            ));
        }
        if self.not_before > now {
            warnings.push(format!(
                "the certificate for `{name}` is not valid yet: clients refuse it; is the clock right?"
            ));
        }
        if let Some(number) = self.unlinked {
            warnings.push(format!(
                "in the chain of the certificate for `{name}`, certificate {number} did not issue \
                 certificate {}: some clients refuse it; put each one's issuer right after it",
                number - 1
            ));
        }
        warnings
    }
}

// === impl KeyKind ===

impl KeyKind {
    /// The word shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ecdsa => "ecdsa",
            Self::Ed25519 => "ed25519",
            Self::Other => "other",
            Self::Rsa => "rsa",
        }
    }
}

#[cfg(test)]
mod tests;
