//! TLS: rustls over aws-lc-rs, both sides. The provider is given by hand: a process-wide default would
//! be a global.
//!
//! | file | what is there |
//! |---|---|
//! | `client` | whom a client trusts, what it proves itself with |
//! | `spec` | what a server is to be: files, versions, protocols; no bytes of any key |
//! | `verify` | whom a client believes beside rustls' rules: anybody, and pinned keys |
//! | `words` | what went wrong with a server, in plain words |

mod client;
mod spec;
mod verify;
mod words;

pub use client::{ClientSetup, TlsClient, Trust, TrustError, server_name};
pub use spec::{CertificateFiles, ClientAuth, ServerSpec, TlsVersion};
pub use words::{explain, in_words};
