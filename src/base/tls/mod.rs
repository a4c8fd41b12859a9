//! TLS: rustls over aws-lc-rs, both sides. The provider is given by hand: a process-wide default would
//! be a global.
//!
//! | file | what is there |
//! |---|---|
//! | `client` | whom a client trusts, what it proves itself with, and what went wrong in plain words |
//! | `spec` | what a server is to be: files, versions, protocols; no bytes of any key |

mod client;
mod spec;

pub use client::{TlsClient, Trust, TrustError, in_words, server_name};
pub use spec::{CertificateFiles, ClientAuth, ServerSpec, TlsVersion};
