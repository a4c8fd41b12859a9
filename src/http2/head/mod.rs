//! Heads between HTTP/2 and the text of HTTP/1.1 (RFC 9113 section 8.3); pure.
//!
//! A head as text is not what goes to a peer: the codec of HTTP/1 parses it, with all its rules, and
//! what may go on is written anew. Text from here is sound line by line: no name or value in it has CR,
//! LF or NUL, no part of its first line a space. Whether it makes sense is not decided here.
//!
//! | file | decides |
//! |---|---|
//! | `request` | a request that came, as text |
//! | `response` | a response that came, as text |
//! | `trailers` | trailers that came, as a map; those to be sent |
//! | `lines` | where the fields of a text stand |
//! | `send` | a text as a block of fields |

mod lines;
mod request;
mod response;
mod send;
mod trailers;

use thiserror::Error;

pub(super) use lines::Line;
pub(super) use request::{Asked, RequestText};
#[cfg(test)]
pub(super) use response::Answered;
pub(super) use response::ResponseText;
pub(super) use send::{Outbound, Reply, read_request, read_response};
pub(super) use trailers::{Trailers, write_trailers};

/// What came is no head (RFC 9113 section 8.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the head is malformed")]
pub(super) struct Malformed;

/// A head of ours cannot be said in HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum HeadError {
    /// It is not what the rest of the program writes.
    #[error("the head is not one of HTTP/1.1")]
    Malformed,
    /// An upgrade to something other than a WebSocket.
    #[error("only WebSockets can be opened over HTTP/2")]
    Upgrade,
}

/// Text that goes beyond the limit of heads ends so far behind it: its reader finds it too long, and says
/// so to the client.
const BEYOND: usize = 1024;

/// Adds a line, unless the text is too long already.
fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Takes note of what Content-Length says; false if that is no length, or another one than before.
fn note_length(length: &mut Option<u64>, value: &[u8]) -> bool {
    let said = number(value);
    let before = std::mem::replace(length, said);
    said.is_some() && (before.is_none() || before == said)
}

/// Digits alone (RFC 9110 section 8.6).
fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| byte - b'0')?;
        sum.checked_mul(10)?.checked_add(digit.into())
    })
}

#[cfg(test)]
mod any_fields;
#[cfg(test)]
pub(super) mod kit;
#[cfg(test)]
mod response_tests;
#[cfg(test)]
mod tests;
