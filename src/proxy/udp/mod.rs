//! Datagrams of UDP: flows of them, from clients to endpoints and back.
//!
//! | file | what is there |
//! |---|---|
//! | `answers` | from endpoints to clients |
//! | `batch` | many datagrams in one system call |
//! | `datagrams` | from clients to endpoints |
//! | `flow` | one flow and its socket |
//! | `flows` | the table of flows, pure |
//! | `key` | what finds a flow |
//! | `quic` | connection ids, pure |
//! | `serve` | the loop of one listening socket |
//!
//! # What a flow is
//! Datagrams that belong together, of one client to one endpoint, over a socket of their own to that one:
//! by the client's address and port, or by the connection ids of QUIC ([`quic`] has the rule). It begins
//! with the first datagram and ends when nothing was heard of it for `idle_timeout`, when the client has
//! had `responses` answers for each of its datagrams, or when there are too many ([`flows`] says who goes).
//! Each is one line in the log. It counts against `max_connections` of its endpoint as a connection does,
//! but does not wait in a queue: a datagram that finds no room is dropped.
//!
//! # Endpoints that fail
//! "Port unreachable" counts as a connect that failed. If nothing came from the endpoint before, the flow's
//! next datagram goes to another one; an endpoint that had answered is left after three in a row. A
//! flow leaves an endpoint that checks find down or that was removed with its next datagram, too. Silence
//! says nothing against an endpoint: a client that sends rubbish is not answered either.
//!
//! # The PROXY protocol
//! To endpoints (version 2): in front of every datagram of a flow until an endpoint has answered one, so
//! that none is without it that arrives first. From a listener's `proxy_protocol.from`: in front of the
//! first datagram of a flow at least; it is taken off wherever it is. The flow is known by the
//! sender's address and port, and counts for the client that it tells of.

mod answers;
mod batch;
mod datagrams;
mod flow;
mod flows;
mod key;
mod quic;
mod serve;

pub use batch::Slots;
pub use serve::{Assigned, Stage, serve};
