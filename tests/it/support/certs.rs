//! A CA of the test's own, and files of what it issues.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::openssl::Tool;

/// A CA, and a folder for its file and all that it issues.
pub struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
    issued: AtomicU64,
    /// Its certificate, PEM.
    pub file: PathBuf,
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Issued {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub der: CertificateDer<'static>,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub pin: [u8; 32],
    serial: SerialNumber,
    secret: Vec<u8>,
}

/// What a certificate is to be: [`Ca::issue`].
#[derive(Clone, Debug)]
pub struct Wanted {
    names: Vec<String>,
    subject: String,
    kind: Kind,
    valid: Valid,
    purpose: ExtendedKeyUsagePurpose,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Ecdsa,
    Rsa,
}

#[derive(Clone, Copy, Debug)]
enum Valid {
    Now,
    NoMore,
    NotYet,
}

// === impl Wanted ===

impl Wanted {
    /// A server of these names, ECDSA, valid.
    pub fn server(names: &[&str]) -> Self {
        Self {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            subject: "a server of a test".to_owned(),
            kind: Kind::Ecdsa,
            valid: Valid::Now,
            purpose: ExtendedKeyUsagePurpose::ServerAuth,
        }
    }

    /// A client called so, ECDSA, valid.
    pub fn client(subject: &str) -> Self {
        Self {
            names: Vec::new(),
            subject: subject.to_owned(),
            kind: Kind::Ecdsa,
            valid: Valid::Now,
            purpose: ExtendedKeyUsagePurpose::ClientAuth,
        }
    }

    /// CN of its subject.
    pub fn subject(mut self, subject: &str) -> Self {
        subject.clone_into(&mut self.subject);
        self
    }

    pub fn rsa(mut self) -> Self {
        self.kind = Kind::Rsa;
        self
    }

    pub fn expired(mut self) -> Self {
        self.valid = Valid::NoMore;
        self
    }

    pub fn not_yet(mut self) -> Self {
        self.valid = Valid::NotYet;
        self
    }
}

// === impl Ca ===

impl Ca {
    pub fn new() -> Self {
        Self::named("a CA of a test")
    }

    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, issuer.pem()).unwrap();
        Self {
            issuer,
            folder,
            issued: AtomicU64::new(0),
            file,
        }
    }

    pub fn issue(&self, wanted: &Wanted) -> Issued {
        let n = self.issued.fetch_add(1, Ordering::Relaxed);
        let mut params = CertificateParams::new(wanted.names.clone()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, &*wanted.subject);
        let serial = SerialNumber::from(1000 + n);
        params.serial_number = Some(serial.clone());
        params.extended_key_usages = vec![wanted.purpose.clone()];
        let (from, to) = match wanted.valid {
            Valid::Now => (1975, 4096),
            Valid::NoMore => (1975, 1976),
            Valid::NotYet => (4095, 4096),
        };
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let key = match wanted.kind {
            Kind::Ecdsa => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            Kind::Rsa => KeyPair::generate_for(&PKCS_RSA_SHA256),
        };
        let key = key.unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Issued {
            cert: self.write(&format!("{n}.pem"), cert.pem()),
            key: self.write(&format!("{n}.key"), key.serialize_pem()),
            der: cert.der().clone(),
            pin: Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&key)).into(),
            serial,
            secret: key.serialize_der(),
        }
    }

    /// A server for `localhost` and 127.0.0.1, of which one is enough for most tests.
    pub fn server(&self) -> Issued {
        self.issue(&Wanted::server(&["localhost", "127.0.0.1"]))
    }

    /// A list of what it has revoked, PEM.
    pub fn revokes(&self, revoked: &[&Issued]) -> String {
        let revoked = revoked.iter().map(|issued| RevokedCertParams {
            serial_number: issued.serial.clone(),
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
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// An OCSP response that `issued` is good, DER.
    #[track_caller]
    pub fn staple(&self, openssl: &Path, issued: &Issued) -> Vec<u8> {
        let serial: String = issued
            .serial
            .to_bytes()
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect();
        let index = format!("V\t400101000000Z\t\t{serial}\tunknown\t/CN=x\n");
        let index = self.write("index.txt", index);
        let key = self.write("ca.key", self.issuer.key().serialize_pem());
        let out = self.folder.path().join(format!("{serial}.ocsp"));
        let mut args: Vec<std::ffi::OsString> = vec!["ocsp".into()];
        for (name, path) in [
            ("-index", &index),
            ("-rsigner", &self.file),
            ("-rkey", &key),
            ("-CA", &self.file),
            ("-issuer", &self.file),
            ("-cert", &issued.cert),
            ("-respout", &out),
        ] {
            args.extend([name.into(), path.into()]);
        }
        args.extend(["-ndays".into(), "30".into()]);
        let (status, said) = Tool::run(openssl, &args);
        assert!(status.success() && out.exists(), "{said}");
        std::fs::read(out).unwrap()
    }

    /// A file in its folder.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Its certificate.
    pub fn der(&self) -> &CertificateDer<'static> {
        self.issuer.der()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

// === impl Issued ===

impl Issued {
    /// `{ cert = …, key = … }`
    pub fn toml(&self) -> String {
        format!(
            "{{ cert = '{}', key = '{}' }}",
            self.cert.display(),
            self.key.display()
        )
    }

    pub fn secret(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.secret.clone()).unwrap()
    }

    /// Puts this one where `other` is, the certificate first.
    pub fn replace(&self, other: &Self) {
        put(&self.cert, &other.cert);
        put(&self.key, &other.key);
    }
}

/// Puts what is in a file where another one is; nobody sees half of it.
pub fn put(from: &Path, to: &Path) {
    let new = to.with_extension("new");
    std::fs::copy(from, &new).unwrap();
    std::fs::rename(new, to).unwrap();
}

/// `tls = …` of a listener with these certificates; `more` are further keys, each after a comma.
pub fn listener_tls(certificates: &[&Issued], more: &str) -> String {
    let certificates: Vec<String> = certificates.iter().map(|issued| issued.toml()).collect();
    let certificates = certificates.join(", ");
    format!("tls = {{ certificates = [{certificates}]{more} }}")
}
