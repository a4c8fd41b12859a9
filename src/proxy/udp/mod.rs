//! Datagrams of UDP: flows of them, from clients to endpoints and back.
//!
//! | file | what is there |
//! |---|---|
//! | `allowance` | how much may be sent where a client may be, pure |
//! | `answers` | from endpoints to clients |
//! | `batch` | many datagrams in one system call |
//! | `datagrams` | from clients to endpoints |
//! | `flow` | one flow and its endpoint |
//! | `flows` | the table of flows, pure |
//! | `group` | the sockets of one address, until the last flow there has ended |
//! | `key` | what finds a flow |
//! | `quic` | connection ids, pure |
//! | `serve` | the loop of one listening socket |
//! | `socket` | sockets to endpoints, and what their errors mean |
//!
//! # What a flow is
//! Datagrams that belong together, of one client to one endpoint, over a socket of their own to that one:
//! by the client's address and port, or by the connection ids of QUIC (`quic` has the rule). It begins
//! with the first datagram and ends when nothing was heard of it for `idle_timeout`, when the client has
//! had `responses` answers for each of its datagrams, or when there are too many (`flows` says who goes).
//! Each is one line in the log; but of those whose client never spoke after an answer, and that end because
//! they were quiet or too many, ten lines a second and worker at most (all are counted): a flood of
//! forged datagrams does not fill a disk. It counts against `max_connections` of its endpoint as a connection does,
//! but does not wait in a queue: a datagram that finds no room is dropped.
//!
//! # Endpoints that fail
//! One to which no way leads is known before anything is sent there, and another one has the datagram. "Port
//! unreachable" counts as a connect that failed. If nothing came from the endpoint before, the flow's
//! next datagram goes to another one; an endpoint that had answered is left after three in a row. A
//! flow leaves an endpoint that checks find down or that was removed with its next datagram, too, and one that
//! has had its time to drain with its next answer. "Fragmentation needed" is about the path: that datagram is lost,
//! and the kernel cuts the next one itself. Silence
//! says nothing against an endpoint: a client that sends rubbish is not answered either. Where no answers are due
//! (`responses`) one that has refused nothing for a second is well, as far as a breaker is concerned.
//!
//! # The PROXY protocol
//! Version 2, in front of every datagram, both ways. Endpoints go by it datagram by datagram (dnsdist and
//! PowerDNS drop those without), and could not tell otherwise whether a header is ours or the
//! client's. What a listener with `proxy_protocol` takes has one, too, from those that it is taken from:
//! one without is dropped, and what looks like a second one is the client's. Addresses and TLVs of it are
//! told on as they are. A flow is known by its sender's address and port, and counts for the client
//! that its first datagram tells of.

mod allowance;
mod answers;
mod batch;
mod datagrams;
mod flow;
mod flows;
mod group;
mod key;
mod quic;
mod serve;
mod socket;

pub use batch::Slots;
pub use group::Group;
pub use serve::{Assigned, Stage, serve};
