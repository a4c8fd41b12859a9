//! HPACK, the compression of heads (RFC 7541). Pure.
//!
//! A connection has a [`Decoder`] and an [`Encoder`], which both live as long as it does: a block means
//! what it does by those before it, so every block has to go through, in order, wanted or not.
//!
//! What a field is to us is found out once, when it first comes: the id of its name, whether it could be
//! written as a field of HTTP/1. From then on an index brings both along.
//!
//! | file | decides |
//! |---|---|
//! | `statics` | the static table, ids of names |
//! | `table` | the dynamic table, of either side |
//! | `integer` | integers with a prefix |
//! | `huffman` | the Huffman code |
//! | `sound` | what may be written as text of HTTP/1 |
//! | `decode` | blocks to fields |
//! | `encode` | fields to blocks |

mod decode;
mod encode;
mod huffman;
mod integer;
mod sound;
pub(super) mod statics;
mod table;

pub(super) use decode::{DecodeError, Decoder};
pub(super) use encode::{Encoder, Indexing};

/// A field of a header block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field<'a> {
    /// As it came.
    pub(super) name: &'a [u8],
    /// As it came.
    pub(super) value: &'a [u8],
    /// Index of the name in the static table (the lowest one with that name), 0 = it has none.
    pub(super) id: u8,
    /// Whether the name is a lower-case token (RFC 9110 section 5.6.2) or a pseudo field of a request or
    /// a response, and the value holds but tabs, spaces, visible characters and bytes above ASCII: what
    /// may be written as text of HTTP/1. White space at the ends of a value is not looked at.
    pub(super) is_sound: bool,
}

#[cfg(test)]
mod tests;
