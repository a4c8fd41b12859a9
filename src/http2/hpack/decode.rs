//! Blocks to fields (RFC 7541 sections 3 and 6).

use super::table::{FIRST_DYNAMIC, Row, Table, Traits};
use super::{Field, huffman, integer, sound, statics};

/// What is wrong with a block. The table is out of step from then on: the connection has to end with
/// `COMPRESSION_ERROR` (RFC 9113 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::http2) enum DecodeError {
    /// A Huffman text with the symbol of the end in it.
    #[error("the end symbol stands in a Huffman text")]
    HuffmanEos,
    /// A Huffman text that does not end as it should, or in the midst of a code.
    #[error("a Huffman text is not padded with up to seven ones")]
    HuffmanPadding,
    /// An index of no field.
    #[error("index {index} is that of no field")]
    IndexUnknown {
        /// The index.
        index: usize,
    },
    /// An integer of more than 28 bits, or more bytes than those take.
    #[error("an integer is larger than any that makes sense")]
    IntegerTooLarge,
    /// A change of the table's size behind a field, or the third one of a block.
    #[error("a table size update stands behind a field or two others")]
    SizeUpdateMisplaced,
    /// More than our settings grant.
    #[error("a table size of {size} bytes where {max} are granted")]
    SizeUpdateTooLarge {
        /// The size.
        size: usize,
        /// The most we said.
        max: usize,
    },
    /// The block ends before what it says is in it.
    #[error("the block ends in the midst of a field")]
    Truncated,
}

/// Reads blocks.
#[derive(Debug)]
pub(in crate::http2) struct Decoder {
    table: Table,
    /// The most the table may hold by our settings.
    max_table: usize,
    /// Where Huffman texts become text: all of it is place, none of it is kept from field to field.
    scratch: Vec<u8>,
}

/// Size of scratch from which on it does not outlive its block.
const LARGE_SCRATCH: usize = 16 * 1024;

/// What a block may have of them: the smallest size since the last block, and the one now (RFC 7541
/// section 4.2).
const MAX_SIZE_UPDATES: usize = 2;

// === impl Decoder ===

impl Decoder {
    /// `max_table` is the `SETTINGS_HEADER_TABLE_SIZE` we say. Until the peer has read it, it uses the
    /// 4096 bytes that hold without it, and goes on with these unless it says so; so that is where the
    /// table starts whatever is said, also when it is less.
    pub(in crate::http2) fn new(max_table: usize) -> Self {
        Self {
            table: Table::new(),
            max_table: max_table.min(integer::MAX),
            scratch: Vec::new(),
        }
    }

    /// Decodes one whole block, and hands on its fields in order. What `field` makes of them has no
    /// influence on those that follow. How many they are, and how large, is for the caller to count: an
    /// index of one byte can stand for a field of the size of the table.
    ///
    /// # Errors
    /// All are the end of the connection; fields handed on before are right.
    pub(in crate::http2) fn decode(
        &mut self,
        block: &[u8],
        mut field: impl FnMut(Field<'_>),
    ) -> Result<(), DecodeError> {
        let mut rest = block;
        self.resize(&mut rest)?;
        while let Some(&first) = rest.first() {
            if first >= 0x80 {
                let index = integer::read(&mut rest, 7)?;
                field(self.row(index)?.into());
            } else if first >= 0x40 {
                self.literal(&mut rest, Prefix::Added, &mut field)?;
            } else if first >= 0x20 {
                return Err(DecodeError::SizeUpdateMisplaced);
            } else {
                self.literal(&mut rest, Prefix::Passing, &mut field)?;
            }
        }
        if self.scratch.len() > LARGE_SCRATCH {
            self.scratch = Vec::new();
        }
        Ok(())
    }

    /// Changes of the table's size, which stand at the beginning of a block.
    #[inline]
    fn resize(&mut self, rest: &mut &[u8]) -> Result<(), DecodeError> {
        for _ in 0..MAX_SIZE_UPDATES {
            if !matches!(rest.first(), Some(0x20..=0x3f)) {
                break;
            }
            let size = integer::read(rest, 5)?;
            if size > self.max_table {
                return Err(DecodeError::SizeUpdateTooLarge {
                    size,
                    max: self.max_table,
                });
            }
            self.table.set_max(size);
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// Bytes of memory that are held.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.table.held() + self.scratch.capacity()
    }

    /// The field of this index.
    #[inline(always)]
    fn row(&self, index: usize) -> Result<Row<'_>, DecodeError> {
        match statics::FIELDS.get(index.wrapping_sub(1)) {
            Some(field) => {
                let traits = Traits::of_static(index);
                Ok(Row {
                    name: field.name,
                    value: field.value,
                    traits,
                })
            }
            None => self
                .table
                .row(index.wrapping_sub(FIRST_DYNAMIC))
                .ok_or(DecodeError::IndexUnknown { index }),
        }
    }

    /// A field that stands in the block, of which the name may be an index.
    fn literal(
        &mut self,
        rest: &mut &[u8],
        bits: Prefix,
        field: &mut impl FnMut(Field<'_>),
    ) -> Result<(), DecodeError> {
        let index = integer::read(rest, bits as u32)?;
        let name = match index {
            0 => Some(text(rest, &mut self.scratch, 0)?),
            _ => None,
        };
        let value_start = name.map_or(0, Text::scratch_end);
        let value = text(rest, &mut self.scratch, value_start)?;

        let value = value.bytes(&self.scratch);
        let is_value_sound = sound::is_value(value);
        let (name, traits) = match (name, statics::FIELDS.get(index.wrapping_sub(1))) {
            (Some(name), _) => {
                let name = name.bytes(&self.scratch);
                let id = statics::id_of(name);
                let is_name_sound = id != 0 || sound::is_name(name);
                (
                    name,
                    Traits {
                        id,
                        is_name_sound,
                        is_value_sound,
                    },
                )
            }
            (None, Some(field)) => (
                field.name,
                Traits {
                    is_value_sound,
                    ..Traits::of_static(index)
                },
            ),
            (None, None) => {
                let age = index.wrapping_sub(FIRST_DYNAMIC);
                let Some(Row { name, traits, .. }) = self.table.row(age) else {
                    return Err(DecodeError::IndexUnknown { index });
                };
                field(
                    Row {
                        name,
                        value,
                        traits: Traits {
                            is_value_sound,
                            ..traits
                        },
                    }
                    .into(),
                );
                if bits == Prefix::Added {
                    self.table.add_named(age, value, is_value_sound);
                }
                return Ok(());
            }
        };
        let row = Row {
            name,
            value,
            traits,
        };
        field(row.into());
        if bits == Prefix::Added {
            self.table.add(row);
        }
        Ok(())
    }
}

/// Bits of the index of a literal's name, by what the literal is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Prefix {
    /// To be added to the table.
    Added = 6,
    /// Not to be added, now or ever.
    Passing = 4,
}

impl<'a> From<Row<'a>> for Field<'a> {
    #[inline(always)]
    fn from(row: Row<'a>) -> Self {
        let Traits {
            id,
            is_name_sound,
            is_value_sound,
        } = row.traits;
        Self {
            name: row.name,
            value: row.value,
            id,
            is_sound: is_name_sound && is_value_sound,
        }
    }
}

/// A text of a block.
#[derive(Clone, Copy)]
enum Text<'a> {
    /// As it stands there.
    Plain(&'a [u8]),
    /// Decoded, to this part of scratch.
    Decoded { start: usize, end: usize },
}

// === impl Text ===

impl<'a> Text<'a> {
    /// Where scratch is free again.
    fn scratch_end(self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Decoded { end, .. } => end,
        }
    }

    fn bytes<'b>(self, scratch: &'b [u8]) -> &'b [u8]
    where
        'a: 'b,
    {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Decoded { start, end } => scratch.get(start..end).unwrap_or_default(),
        }
    }
}

/// Reads a text; one of Huffman's code becomes text in `scratch`, from `start` on.
fn text<'a>(
    rest: &mut &'a [u8],
    scratch: &mut Vec<u8>,
    start: usize,
) -> Result<Text<'a>, DecodeError> {
    let is_huffman = rest.first().is_some_and(|&byte| byte >= 0x80);
    let len = integer::read(rest, 7)?;
    let all = *rest;
    let Some((bytes, behind)) = all.split_at_checked(len) else {
        return Err(DecodeError::Truncated);
    };
    *rest = behind;
    if !is_huffman {
        return Ok(Text::Plain(bytes));
    }
    let needed = start + huffman::room(len);
    if scratch.len() < needed {
        scratch.resize(needed, 0);
    }
    let place = scratch.get_mut(start..).unwrap_or_default();
    let end = start + huffman::decode(all, len, place)?;
    Ok(Text::Decoded { start, end })
}
