//! TLS: rustls over aws-lc-rs, both sides. The provider is given by hand: a process-wide default would
//! be a global.
//!
//! | file | what is there |
//! |---|---|
//! | `certificate` | certificates, keys, CAs and revocation lists in files, and what is wrong with them |
//! | `client` | whom a client trusts, what it proves itself with |
//! | `identity` | who a client is by its certificate, as endpoints are told |
//! | `name` | names in certificates as text (RFC 4514) |
//! | `spec` | what a server is to be: files, versions, protocols; no bytes of any key |
//! | `verify` | whom a client believes beside rustls' rules: anybody, and pinned keys |
//! | `words` | what went wrong with a server, in plain words |

mod certificate;
mod client;
#[cfg(test)]
mod fixture;
mod identity;
mod name;
mod spec;
mod verify;
mod words;

pub use certificate::{
    CertificateError, CertificateFacts, Found, KeyKind, Loaded, Wrong, read_cas, read_crls,
    read_pair,
};
pub use client::{ClientSetup, TlsClient, Trust, TrustError, server_name};
pub use identity::{ClientIdentity, identity};
pub use spec::{CertificateFiles, ClientAuth, ServerSpec, TlsVersion};
pub use words::{explain, in_words};
