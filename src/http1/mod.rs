//! The HTTP/1 codec: heads, framing, chunks. Pure: bytes in, decisions out.
//!
//! A head is never copied: [`RequestHead`] and [`ResponseHead`] hold [`Span`]s into the caller's
//! buffer and are filled again for the next message, so a steady connection allocates nothing.
//! Every accessor takes the buffer that was parsed; with another one it may answer nonsense, but
//! it never panics.
//!
//! | file | decides |
//! |---|---|
//! | `framing` | how long a body is, and that a head which leaves doubt is refused |
//! | `request`, `response` | what a head says, in one pass over its fields |
//! | `head` | what both share: line ends, resuming after a partial read, hop-by-hop fields |
//! | `target` | the forms of a request target, Host, and that they agree |
//! | `chunked` | the chunked coding and its trailers |
//! | `trailer` | which trailers may pass on |
//! | `field` | the names that matter, found by length and first byte |
//! | `refusal` | every reason to refuse, its status and its name |
//! | `corpus` | ambiguous messages and what becomes of them; tests and fuzzers share it |
//!
//! # Where we are stricter than RFC 9112 allows
//! - A line ends in CRLF; a lone LF is refused everywhere, and so is a lone CR.
//! - Requests: any second `Content-Length`, even an equal one, is refused; so are
//!   `Content-Length` beside `Transfer-Encoding`, codings other than one `chunked` (501 where the
//!   syntax is sound), and names that a CGI-like endpoint folds into a framing name
//!   (`content_length`). Folding of other names with `_` (`x_forwarded_for`) is left to the header
//!   filters, because it cannot change where a message ends.
//! - Responses: equal `Content-Length`s are merged, as 9112 section 6.3 allows; the spare fields
//!   are marked hop-by-hop so that one goes out.
//! - A host is letters, digits, `-._~` or a bracketed IPv6 address, with a port of 1-65535: no
//!   userinfo, no percent-encoding, no sub-delimiters, because no name in use needs them and each
//!   has been read in two ways by somebody.
//! - One empty line (CRLF) before a request is skipped (section 2.2), a second one is refused; none
//!   before a response.

mod chunked;
pub mod corpus;
mod field;
mod framing;
mod head;
mod limits;
mod refusal;
mod request;
mod response;
mod target;
#[cfg(test)]
mod tests;
mod trailer;

pub use chunked::{Chunk, ChunkDecoder, SizeLine};
pub use field::{Field, FieldId, Span};
pub use framing::{RequestBody, ResponseBody};
pub use head::{Progress, Version};
pub use limits::{HARD_MAX_FIELDS, Limits};
pub use refusal::Refusal;
pub use request::RequestHead;
pub use response::ResponseHead;
pub use target::Form;
pub use trailer::may_be_trailer;
