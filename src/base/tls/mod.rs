//! TLS: rustls over aws-lc-rs, both sides. The provider is given by hand: a process-wide default would
//! be a global.
//!
//! | file | what is there |
//! |---|---|
//! | `certificate` | certificates, keys, CAs and revocation lists in files, and what is wrong with them |
//! | `client` | whom a client trusts, what it proves itself with |
//! | `gate` | what handshakes may cost a worker in one turn |
//! | `handshake` | how handshakes with clients end |
//! | `hello` | what a connection begins with: whom a ClientHello asks for, or HTTP |
//! | `identity` | who a client is by its certificate, as endpoints are told |
//! | `name` | names in certificates as text (RFC 4514) |
//! | `resolver` | which certificate a client gets |
//! | `server` | a server made of files, and made again when they change |
//! | `spec` | what a server is to be: files, versions, protocols; no bytes of any key |
//! | `stream` | bytes over TLS, either side |
//! | `tickets` | session tickets, their keys derived from a secret and the time |
//! | `verify` | whom a client believes beside rustls' rules: anybody, and pinned keys |
//! | `words` | what went wrong with a server, in plain words |

mod certificate;
mod client;
#[cfg(test)]
pub(crate) mod fixture;
mod gate;
mod handshake;
mod hello;
mod identity;
mod name;
mod resolver;
mod server;
mod spec;
mod stream;
mod tickets;
mod verify;
mod words;

pub use certificate::{
    CertificateError, CertificateFacts, Found, KeyKind, Loaded, Wrong, read_cas, read_crls,
    read_pair,
};
pub use client::{ClientSetup, TlsClient, Trust, TrustError, server_name};
pub use gate::{Entered, Gate};
pub use handshake::{Handshake, failure_in_words, handshake_failure};
pub use hello::{ClientHello, HELLO_MAX, Peeked, alert, looks_like_http, peek};
pub use identity::{ClientIdentity, identity};
pub use server::{Look, Stamp, TlsServer};
pub use spec::{CertificateFiles, ClientAuth, ServerSpec, TlsVersion};
pub use stream::{RecordBuffers, TlsStream};
pub use tickets::TicketSecrets;
pub use words::{explain, in_words, refusal_in_words};
