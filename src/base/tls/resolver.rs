//! Which certificate a client gets: the most specific that has the name it asks for, of those the
//! first that it can check.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::Loaded;

/// The certificates of a server by name.
#[derive(Debug)]
pub(super) struct Resolver {
    certificates: Box<[Candidate]>,
    /// Indices of those for a name, in the order of the configuration.
    exact: HashMap<Box<str>, Box<[usize]>>,
    /// The same for `*.NAME`, by NAME.
    wildcard: HashMap<Box<str>, Box<[usize]>>,
    /// For everybody else: the first certificate, and others that share its first name.
    default: Box<[usize]>,
}

#[derive(Debug)]
struct Candidate {
    key: Arc<CertifiedKey>,
    /// What its key can sign with. Asking the key itself would allocate a signer each time.
    schemes: Box<[SignatureScheme]>,
}

/// Every scheme that rustls' provider signs with.
const SCHEMES: [SignatureScheme; 13] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::ML_DSA_44,
    SignatureScheme::ML_DSA_65,
    SignatureScheme::ML_DSA_87,
];

// === impl Resolver ===

impl Resolver {
    /// Chooses among these; with none, every client is refused.
    pub(super) fn new(loaded: &[Loaded]) -> Self {
        let mut exact: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut wildcard: HashMap<&str, Vec<usize>> = HashMap::new();
        for (i, loaded) in loaded.iter().enumerate() {
            for name in &loaded.facts.names {
                let of_name = match name.strip_prefix("*.") {
                    Some(parent) => wildcard.entry(parent).or_default(),
                    None => exact.entry(name).or_default(),
                };
                if of_name.last() != Some(&i) {
                    of_name.push(i);
                }
            }
        }
        let first_name = loaded.first().and_then(|first| first.facts.names.first());
        let default = (0..loaded.len())
            .filter(|&i| {
                let has = |name| loaded[i].facts.names.contains(name);
                i == 0 || first_name.is_some_and(has)
            })
            .collect();
        let frozen = |by_name: HashMap<&str, Vec<usize>>| {
            let all = by_name.into_iter();
            all.map(|(name, of_name)| (name.into(), of_name.into()))
                .collect()
        };
        Self {
            exact: frozen(exact),
            wildcard: frozen(wildcard),
            default,
            certificates: loaded.iter().map(Candidate::new).collect(),
        }
    }

    /// The certificate for a client that asks for `name` and can check `schemes`.
    ///
    /// It has the name if any has it, whether the client can check it or not: then rustls says what is
    /// missing, while a certificate for another name would only confuse.
    fn find(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        // rustls has it in lower case already.
        let name = name.map(|name| match name.bytes().any(|b| b.is_ascii_uppercase()) {
            true => Cow::Owned(name.to_ascii_lowercase()),
            false => Cow::Borrowed(name),
        });
        let name = name.as_deref();
        // RFC 9525 section 6.3: `*` stands for exactly one label.
        let parent = name.and_then(|name| Some(name.split_once('.')?.1));
        let exact = name.and_then(|name| self.exact.get(name));
        let wildcard = parent.and_then(|parent| self.wildcard.get(parent));
        let exact = exact.map_or(&[][..], |found| found);
        let wildcard = wildcard.map_or(&[][..], |found| found);
        let default = match (exact, wildcard) {
            ([], []) => &*self.default,
            _ => &[],
        };
        let mut all = exact.iter().chain(wildcard).chain(default).copied();
        let can_check = |&i: &usize| self.certificates[i].suits(schemes);
        let first = all.clone().next()?;
        let found = all.find(can_check).unwrap_or(first);
        Some(&self.certificates[found].key)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name(), hello.signature_schemes())
            .cloned()
    }
}

// === impl Candidate ===

impl Candidate {
    fn new(loaded: &Loaded) -> Self {
        let signs = |scheme: &SignatureScheme| loaded.key.key.choose_scheme(&[*scheme]).is_some();
        Self {
            key: loaded.key.clone(),
            schemes: SCHEMES.into_iter().filter(signs).collect(),
        }
    }

    fn suits(&self, schemes: &[SignatureScheme]) -> bool {
        self.schemes.iter().any(|scheme| schemes.contains(scheme))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::tls::fixture::Ca;
    use crate::base::tls::{KeyKind, read_pair};

    const ECDSA: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];
    const P384: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP384_SHA384];
    const RSA: &[SignatureScheme] = &[
        SignatureScheme::RSA_PSS_SHA256,
        SignatureScheme::RSA_PKCS1_SHA256,
    ];
    const BOTH: &[SignatureScheme] = &[
        SignatureScheme::RSA_PSS_SHA256,
        SignatureScheme::ECDSA_NISTP256_SHA256,
    ];

    /// Certificates for names; each is known by its place.
    struct Server {
        loaded: Vec<Loaded>,
        resolver: Resolver,
    }

    impl Server {
        fn new(certificates: &[(&[&str], KeyKind)]) -> Self {
            let ca = Ca::new("a CA");
            let load = |(names, kind): &(&[&str], KeyKind)| {
                read_pair(&ca.files("a", &ca.issue(names, *kind))).unwrap()
            };
            let loaded: Vec<Loaded> = certificates.iter().map(load).collect();
            let resolver = Resolver::new(&loaded);
            Self { loaded, resolver }
        }

        #[track_caller]
        fn finds(&self, name: &str, schemes: &[SignatureScheme], wanted: usize) {
            let name = Some(name).filter(|name| !name.is_empty());
            let found = self.resolver.find(name, schemes).unwrap();
            let is_found = |l: &Loaded| Arc::ptr_eq(&l.key, found);
            assert_eq!(
                self.loaded.iter().position(is_found),
                Some(wanted),
                "{name:?}"
            );
        }
    }

    #[test]
    fn most_specific_name_wins_whatever_the_order() {
        let server = Server::new(&[
            (&["default.test"], KeyKind::Ecdsa),
            (&["*.example.com"], KeyKind::Ecdsa),
            (&["*.a.example.com", "example.com"], KeyKind::Ecdsa),
            (&["www.example.com", "*.example.com"], KeyKind::Ecdsa),
            (&["*.com"], KeyKind::Ecdsa),
        ]);
        let wanted = [
            ("", 0),
            ("default.test", 0),
            ("other.test", 0),
            ("localhost", 0),
            ("com", 0),
            ("example.com", 2),
            ("EXAMPLE.com", 2),
            ("www.example.com", 3),
            ("Other.example.com", 1),
            ("b.a.example.com", 2),
            // A wildcard is one label.
            ("c.b.a.example.com", 0),
            ("b.c.example.com", 0),
            ("a.example.com", 1),
            ("other.com", 4),
            // An asterisk is not a name.
            ("*.example.com", 1),
            (".example.com", 1),
            (".", 0),
            ("default.test.", 0),
        ];
        for (name, index) in wanted {
            server.finds(name, BOTH, index);
        }
    }

    #[test]
    fn of_one_name_the_first_that_the_client_can_check() {
        let server = Server::new(&[
            (&["a.test"], KeyKind::Rsa),
            (&["a.test", "*.b.test"], KeyKind::Ecdsa),
            (&["*.b.test"], KeyKind::Rsa),
            (&["x.b.test"], KeyKind::Ecdsa),
            (&["only.test"], KeyKind::Rsa),
            (&["new.test"], KeyKind::Ed25519),
        ]);
        let wanted = [
            ("a.test", RSA, 0),
            ("a.test", ECDSA, 1),
            // Ours is the order.
            ("a.test", BOTH, 0),
            ("y.b.test", RSA, 2),
            ("y.b.test", BOTH, 1),
            // The exact one is of no use to it, the wildcard is.
            ("x.b.test", RSA, 2),
            ("x.b.test", ECDSA, 3),
            ("x.b.test", BOTH, 3),
            // None is of use: the one with the name, so that the error is about it.
            ("only.test", ECDSA, 4),
            ("x.b.test", P384, 3),
            ("a.test", &[], 0),
            ("new.test", &[SignatureScheme::ED25519], 5),
            ("new.test", BOTH, 5),
            // Who asks for nothing or for what nobody has: the first, or its sibling.
            ("", RSA, 0),
            ("", ECDSA, 1),
            ("unknown.test", ECDSA, 1),
            ("unknown.test", &[SignatureScheme::ED25519], 0),
        ];
        for (name, schemes, index) in wanted {
            server.finds(name, schemes, index);
        }
    }

    #[test]
    fn certificate_without_names_is_the_default_still() {
        let ca = Ca::new("a CA");
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let nameless = ca.issue_with(&params, KeyKind::Ecdsa);
        let nameless = read_pair(&ca.files("a", &nameless)).unwrap();
        assert!(nameless.facts.names.is_empty());
        let named = ca.issue(&["a.test"], KeyKind::Ecdsa);
        let named = read_pair(&ca.files("b", &named)).unwrap();
        let loaded = vec![nameless, named];
        let resolver = Resolver::new(&loaded);
        let server = Server { loaded, resolver };
        server.finds("", ECDSA, 0);
        server.finds("b.test", ECDSA, 0);
        server.finds("a.test", ECDSA, 1);
        assert!(Resolver::new(&[]).find(None, BOTH).is_none());
    }
}
