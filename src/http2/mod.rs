//! Streams of HTTP/2 as channels: each carries one exchange, its heads as HTTP/1.1 text.
//!
//! A connection is a machine without sockets (`mux`), which a task feeds with bytes; each of its streams is
//! a [`Channel`](crate::base::stream::Channel). The fields of a head that came are written out as text as
//! HPACK finds them, and the strict codec of HTTP/1 parses that: so there is one request story for both
//! versions, and nothing gets from a stream of HTTP/2 into a connection of HTTP/1 that could not have
//! come in by the front door. Bodies are handed on as they are; where they end is told beside the bytes.
//!
//! It is our own because the `h2` crate, relaying alone, takes as many instructions for a call of gRPC
//! as HAProxy in all (bench/README.md): most of them in maps of fields, slabs of frames and reference
//! counts that a proxy has no use for.
//!
//! | file | decides |
//! |---|---|
//! | `frame` | frames by their headers, and writing them; pure |
//! | `hpack` | blocks of fields; pure |
//! | `names` | what fields are by their names; pure |
//! | `head` | heads as text, and text as heads; pure |
//! | `websocket` | RFC 8441 to RFC 6455 and back: keys; pure |
//! | `mux` | one connection: streams, windows, its end; pure |
//! | `connection` | moving its bytes |
//! | `server` | a client's stream |
//! | `client` | a stream to an endpoint |

mod client;
mod connection;
mod frame;
mod head;
mod hpack;
mod mux;
mod names;
mod server;
mod websocket;

pub use client::{ClientStream, Link};
pub use connection::{Accepted, Connection, Landing, Wire};
pub use frame::Code;
pub use mux::{End, Limits, StreamError};
pub use server::ServerStream;
