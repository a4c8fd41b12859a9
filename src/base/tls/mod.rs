//! TLS: rustls over aws-lc-rs, both sides. The provider is given by hand: a process-wide default would
//! be a global.
//!
//! | file | what is there |
//! |---|---|
//! | `certificate` | certificates, keys, CAs and revocation lists in files, and what is wrong with them |
//! | `client` | whom a client trusts, what it proves itself with, and what went wrong in plain words |
//! | `identity` | who a client is by its certificate, as endpoints are told |
//! | `name` | names in certificates as text (RFC 4514) |
//! | `spec` | what a server is to be: files, versions, protocols; no bytes of any key |

mod certificate;
mod client;
#[cfg(test)]
mod fixture;
mod identity;
mod name;
mod spec;

pub use certificate::{
    CertificateError, CertificateFacts, Found, KeyKind, Loaded, Wrong, read_cas, read_crls,
    read_pair,
};
pub use client::{TlsClient, Trust, TrustError, in_words, server_name};
pub use identity::{ClientIdentity, identity};
pub use spec::{CertificateFiles, ClientAuth, ServerSpec, TlsVersion};
