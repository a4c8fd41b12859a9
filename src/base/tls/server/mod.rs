//! A TLS server: what rustls is told, made of files and made again when they change.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateRevocationListDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::DefaultTimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};

use super::certificate::{
    CertificateError, CertificateFacts, Loaded, Wrong, read_cas, read_crls, read_pair,
};
use super::resolver::Resolver;
use super::spec::{ClientAuth, ServerSpec, TlsVersion};
use super::tickets::{Context, TicketSecrets, Ticketer};

/// A server as clients meet it. Its certificates may change while it serves: who makes a connection
/// takes [`config`](Self::config) anew.
#[derive(Debug)]
pub struct TlsServer {
    spec: ServerSpec,
    current: ArcSwap<Current>,
    watch: Mutex<Watch>,
}

/// What files became when they were last whole.
#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    facts: Arc<[CertificateFacts]>,
    ticketer: Option<Arc<Ticketer>>,
    made_of: MadeOf,
}

/// What all files hold together; equal = nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MadeOf {
    certificates: [u8; 32],
    context: Context,
}

/// What is known of the files.
#[derive(Debug)]
struct Watch {
    seen: Stamp,
    /// Whether to look into them though nothing shows that they changed: they failed, or changed just
    /// now, and what was written within one tick of the file system's clock does not show.
    again: bool,
    /// What was wrong with them.
    failing: Option<String>,
}

/// By what a change of files shows without reading them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp(Vec<Option<[i64; 7]>>);

/// What a look at the files found.
#[derive(Debug)]
pub enum Look {
    /// They cannot be served, since now or in another way than before; what was served is served on.
    Failed(CertificateError),
    /// They could not be served and are again what they were when they last could.
    Recovered,
    /// There are new certificates, CAs or revocation lists, and they are served.
    Renewed,
    /// Nothing that was not said before.
    Same,
}

/// All that is read from files.
struct Contents {
    loaded: Vec<Loaded>,
    verifier: Arc<dyn ClientCertVerifier>,
    made_of: MadeOf,
}

// === impl TlsServer ===

impl TlsServer {
    /// A server as `spec` wants it; without `tickets` no session is resumed. Blocks for the files.
    ///
    /// # Errors
    /// What is wrong with one of the files.
    pub fn new(
        spec: &ServerSpec,
        tickets: Option<TicketSecrets>,
    ) -> Result<Self, CertificateError> {
        // Before they are read: a change in between is found by the next look.
        let seen = Stamp::of(spec);
        let contents = Contents::read(spec)?;
        let ticketer = tickets.map(|secrets| {
            let clock = Arc::new(DefaultTimeProvider);
            Arc::new(Ticketer::new(secrets, contents.made_of.context, clock))
        });
        Ok(Self {
            spec: spec.clone(),
            current: ArcSwap::from_pointee(Current::new(spec, &contents, ticketer)),
            watch: Mutex::new(Watch {
                seen,
                again: true,
                failing: None,
            }),
        })
    }

    /// What it was made for.
    pub fn spec(&self) -> &ServerSpec {
        &self.spec
    }

    /// What a connection that begins now is served with.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().config)
    }

    /// Its certificates, in the order of the configuration.
    pub fn facts(&self) -> Arc<[CertificateFacts]> {
        Arc::clone(&self.current.load().facts)
    }

    /// Whether sessions are resumed.
    pub fn has_tickets(&self) -> bool {
        self.current.load().ticketer.is_some()
    }

    /// Goes on with other secrets for tickets, if it has tickets at all.
    pub fn set_secrets(&self, secrets: &TicketSecrets) {
        if let Some(ticketer) = &self.current.load().ticketer {
            ticketer.set_secrets(secrets);
        }
    }

    /// By what a change of its files shows.
    pub fn stamp(&self) -> Stamp {
        Stamp::of(&self.spec)
    }

    /// Whether its files could not be served when they were last read.
    pub fn is_failing(&self) -> bool {
        self.watch().failing.is_some()
    }

    /// Reads its files again; `true` = they hold something else than what was served, and it is served
    /// from now on. Blocks for them.
    ///
    /// # Errors
    /// What is wrong with one of them; what was served is served on.
    pub fn renew(&self) -> Result<bool, CertificateError> {
        let seen = self.stamp();
        let result = self.read_again();
        let mut watch = self.watch();
        watch.again = result.is_err() || watch.seen != seen;
        watch.seen = seen;
        watch.failing = result.as_ref().err().map(ToString::to_string);
        result
    }

    /// Looks whether its files have changed, and [renews](Self::renew) if so.
    pub fn look(&self) -> Look {
        let before = {
            let watch = self.watch();
            if !watch.again && watch.seen == self.stamp() {
                return Look::Same;
            }
            watch.failing.clone()
        };
        match (self.renew(), before) {
            (Ok(true), _) => Look::Renewed,
            (Ok(false), Some(_)) => Look::Recovered,
            (Ok(false), None) => Look::Same,
            (Err(error), Some(before)) if error.to_string() == before => Look::Same,
            (Err(error), _) => Look::Failed(error),
        }
    }

    fn read_again(&self) -> Result<bool, CertificateError> {
        let contents = Contents::read(&self.spec)?;
        let current = self.current.load_full();
        if contents.made_of == current.made_of {
            return Ok(false);
        }
        // Its keys stay, unless what a session must not cross is another now: a client whose
        // certificate was revoked does not come back with its ticket.
        let ticketer = current.ticketer.as_ref().map(|ticketer| {
            let context = contents.made_of.context;
            if *ticketer.context() == context {
                return ticketer.clone();
            }
            let clock = Arc::new(DefaultTimeProvider);
            Arc::new(Ticketer::new(ticketer.secrets(), context, clock))
        });
        let next = Current::new(&self.spec, &contents, ticketer);
        self.current.store(Arc::new(next));
        Ok(true)
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        // Each change of it is a plain store.
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Current ===

impl Current {
    fn new(spec: &ServerSpec, contents: &Contents, ticketer: Option<Arc<Ticketer>>) -> Self {
        let versions: &[_] = match spec.min_version {
            TlsVersion::V12 => &[&TLS13, &TLS12],
            TlsVersion::V13 => &[&TLS13],
        };
        // X25519MLKEM768 is its first group. Suites are chosen by the client's order (rustls' default):
        // who has no AES in hardware puts ChaCha20 first, and ours does either.
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("invariant: the default provider has suites for both versions")
            .with_client_cert_verifier(contents.verifier.clone())
            .with_cert_resolver(Arc::new(Resolver::new(&contents.loaded)));
        config.alpn_protocols = spec.alpn.iter().map(|name| name.to_vec()).collect();
        // Who speaks HTTP/1 speaks 1.0, and some clients offer nothing else (`curl --http1.0`).
        if spec.alpn.iter().any(|name| **name == *b"http/1.1") {
            config.alpn_protocols.push(b"http/1.0".to_vec());
        }
        // What a client repeats is not ours to carry out twice (RFC 8446 section 8).
        config.max_early_data_size = 0;
        // Tickets say all there is to know: nothing is kept here.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // HTTP clients use their connections again: the second ticket that RFC 8446 thinks of is paid
        // for by every connection and used by hardly any.
        config.send_tls13_tickets = usize::from(ticketer.is_some());
        if let Some(ticketer) = &ticketer {
            config.ticketer = ticketer.clone();
        }
        Self {
            config: Arc::new(config),
            facts: contents.loaded.iter().map(|l| l.facts.clone()).collect(),
            ticketer,
            made_of: contents.made_of,
        }
    }
}

// === impl Contents ===

impl Contents {
    fn read(spec: &ServerSpec) -> Result<Self, CertificateError> {
        let mut certificates = Sha256::new();
        let mut loaded = Vec::with_capacity(spec.certificates.len());
        for files in &spec.certificates {
            let pair = read_pair(files)?;
            // The key follows from the certificate: they were found to belong together.
            certificates.update((pair.key.cert.len() as u64).to_be_bytes());
            for certificate in &pair.key.cert {
                put(&mut certificates, certificate);
            }
            put(
                &mut certificates,
                pair.key.ocsp.as_deref().unwrap_or_default(),
            );
            loaded.push(pair);
        }
        let mut context = Sha256::new();
        context.update([match spec.min_version {
            TlsVersion::V12 => 0,
            TlsVersion::V13 => 1,
        }]);
        context.update((spec.alpn.len() as u64).to_be_bytes());
        for protocol in &spec.alpn {
            put(&mut context, protocol);
        }
        let verifier = match &spec.client_auth {
            None => WebPkiClientVerifier::no_client_auth(),
            Some(auth) => verifier(auth, &mut context)?,
        };
        Ok(Self {
            loaded,
            verifier,
            made_of: MadeOf {
                certificates: certificates.finalize().into(),
                context: context.finalize().into(),
            },
        })
    }
}

fn put(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Who checks the certificates of clients; what it goes by is put into `context`.
fn verifier(
    auth: &ClientAuth,
    context: &mut Sha256,
) -> Result<Arc<dyn ClientCertVerifier>, CertificateError> {
    context.update([1 + u8::from(auth.required)]);
    let mut roots = RootCertStore::empty();
    for path in &auth.cas {
        roots.roots.extend(read_cas(path)?.roots);
    }
    for root in &roots.roots {
        put(context, &root.subject);
        put(context, &root.subject_public_key_info);
        put(
            context,
            root.name_constraints.as_deref().unwrap_or_default(),
        );
    }
    let roots = Arc::new(roots);
    let mut crls = Vec::new();
    for path in &auth.crls {
        let of_file = read_crls(path)?;
        // Each file alone first: rustls does not say which one it cannot use.
        build(auth, &roots, of_file.clone(), path)?;
        for crl in &of_file {
            put(context, crl);
        }
        crls.extend(of_file);
    }
    let first = auth.cas.first().map_or(Path::new(""), PathBuf::as_path);
    build(auth, &roots, crls, first)
}

/// `file` is to blame if it cannot be made.
fn build(
    auth: &ClientAuth,
    roots: &Arc<RootCertStore>,
    crls: Vec<CertificateRevocationListDer<'static>>,
    file: &Path,
) -> Result<Arc<dyn ClientCertVerifier>, CertificateError> {
    // With a list, a certificate whose state no list knows is refused. A list past its date still
    // counts: to refuse every client because nobody fetched a new one would be the worse outage.
    let builder = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider());
    let builder = if auth.required {
        builder
    } else {
        builder.allow_unauthenticated()
    };
    builder.with_crls(crls).build().map_err(|error| {
        let why = error.to_string();
        CertificateError::new(file, Wrong::Refused(why))
    })
}

// === impl Stamp ===

impl Stamp {
    fn of(spec: &ServerSpec) -> Self {
        let of_pairs = spec.certificates.iter().flat_map(|files| {
            let ocsp = files.ocsp.iter();
            [&files.cert, &files.key].into_iter().chain(ocsp)
        });
        let auth = spec.client_auth.iter();
        let of_clients = auth.flat_map(|auth| auth.cas.iter().chain(&auth.crls));
        // The change time tells of what keeps the time of its content: `cp -p`, `chmod`, another link.
        let stamp = |path: &PathBuf| {
            let of = fs::metadata(path).ok()?;
            Some([
                of.dev() as i64,
                of.ino() as i64,
                of.size() as i64,
                of.mtime(),
                of.mtime_nsec(),
                of.ctime(),
                of.ctime_nsec(),
            ])
        };
        Self(of_pairs.chain(of_clients).map(stamp).collect())
    }
}

#[cfg(test)]
mod tests;
