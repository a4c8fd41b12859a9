//! Streams of HTTP/2 as channels: each carries one exchange, its heads as HTTP/1.1 text.
//!
//! The `h2` crate does frames, HPACK, flow control and the state of streams; what is here makes one of
//! its streams a [`Channel`](crate::base::stream::Channel). The head that came is written out as text,
//! which the strict codec of HTTP/1 parses again: so there is one request story for both versions, and
//! nothing gets from a stream of HTTP/2 into a connection of HTTP/1 that could not have come in by the
//! front door. Bodies are handed on as they are; where they end is told beside the bytes.
//!
//! | file | decides |
//! |---|---|
//! | `head` | heads as text, and text as heads; pure |
//! | `names` | what fields are by their names; pure |
//! | `hpack` | heads compressed, by RFC 7541; pure |
//! | `websocket` | RFC 8441 to RFC 6455 and back: keys; pure |
//! | `body` | the two directions of a stream |
//! | `server` | a client's stream |
//! | `client` | a stream to an endpoint |

mod body;
mod client;
mod head;
// The engine that is to take the place of `h2` comes next; until then only tests use it.
#[expect(dead_code, reason = "the engine comes next")]
#[cfg_attr(not(test), expect(unused_imports, reason = "the engine comes next"))]
mod hpack;
mod names;
mod server;
mod websocket;

pub use client::{ClientStream, Link, UNSETTLED};
pub use server::ServerStream;
