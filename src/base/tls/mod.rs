//! TLS: rustls over aws-lc-rs, both sides. The provider is given by hand: a process-wide default would
//! be a global.
//!
//! | file | what is there |
//! |---|---|
//! | `client` | whom a client trusts, what it proves itself with, and what went wrong in plain words |
//! | `gate` | what handshakes may cost a worker in one turn |
//! | `spec` | what a server is to be: files, versions, protocols; no bytes of any key |
//! | `stream` | bytes over TLS, either side |

mod client;
mod gate;
mod spec;
mod stream;

pub use client::{TlsClient, Trust, TrustError, in_words, server_name};
pub use gate::{Entered, Gate};
pub use spec::{CertificateFiles, ClientAuth, ServerSpec, TlsVersion};
pub use stream::{RecordBuffers, TlsStream};
