//! Fields to blocks (RFC 7541 section 6).
//!
//! What a field is in the tables is found by hashes, of name and value and of the name, in slots that
//! say which entry it may be. The entry itself is compared, so hashes that collide cost a literal and
//! never are a wrong field. The slots come with the first field that is added.
//!
//! Texts are written as they are, see [`huffman`](super::huffman).

use std::ops::Range;

use super::table::{DEFAULT_MAX, FIRST_DYNAMIC, OVERHEAD, Row, Table, Traits};
use super::{integer, statics};

/// What the peer's table makes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http2) enum Indexing {
    /// Adds it, so that it is an index from the next time on.
    Add,
    /// Leaves it: it will not come again. It is not looked for in the dynamic table either.
    Leave,
    /// Must not have it, nor any table behind it (RFC 7541 section 7.1.3).
    Never,
}

/// Writes blocks.
#[derive(Debug)]
pub(in crate::http2) struct Encoder {
    table: Table,
    slots: Option<Box<Slots>>,
    /// The smallest size and the last one since the last block, if the peer has to hear of it.
    resize: Option<(usize, usize)>,
}

/// The low bits of the numbers, in the order of adding, of entries. More than the table has entries, so
/// that a number is that of one of them, or of none; a stale one is found out as any other lie.
#[derive(Debug)]
struct Slots {
    /// By name and value; a field has two.
    fields: [u16; FIELD_SLOTS],
    /// By name, of those that have no id.
    names: [u16; NAME_SLOTS],
}

/// Twice the entries of 32 bytes that go into the largest table.
const FIELD_SLOTS: usize = 256;
/// A connection has few names that are not in the static table.
const NAME_SLOTS: usize = 64;

/// A field larger than this part of the table is not added: it would be at the cost of too many others.
const LARGEST_PART: usize = 2;

// === impl Encoder ===

impl Encoder {
    /// The table is of the 4096 bytes that hold until the peer says otherwise.
    pub(in crate::http2) fn new() -> Self {
        Self {
            table: Table::new(),
            slots: None,
            resize: None,
        }
    }

    /// The peer's `SETTINGS_HEADER_TABLE_SIZE`. No more than 4096 bytes of it are used; the next block
    /// says so.
    pub(in crate::http2) fn set_max_table(&mut self, max: usize) {
        let max = max.min(DEFAULT_MAX);
        let lowest = self.resize.map_or(self.table.max(), |(lowest, _)| lowest);
        if max != self.table.max() || self.resize.is_some() {
            self.resize = Some((lowest.min(max), max));
        }
    }

    /// Begins a block.
    #[inline]
    pub(in crate::http2) fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some((lowest, last)) = self.resize.take() {
            self.resize_table(out, lowest, last);
        }
    }

    /// Says how the size of the table has changed: the smallest first, as what it does not hold is gone
    /// on the other side as well (RFC 7541 section 4.2).
    fn resize_table(&mut self, out: &mut Vec<u8>, lowest: usize, last: usize) {
        if lowest < last && lowest < self.table.max() {
            integer::write(out, 0x20, 5, lowest);
            self.table.set_max(lowest);
        }
        if last != self.table.max() {
            integer::write(out, 0x20, 5, last);
            self.table.set_max(last);
        }
    }

    /// Appends a field. `name`, in any case, is written in lower case; `id` is that of the static table,
    /// 0 if there is none or none is known. With an id the name itself is not looked at.
    pub(in crate::http2) fn field(
        &mut self,
        out: &mut Vec<u8>,
        id: u8,
        name: &[u8],
        value: &[u8],
        indexing: Indexing,
    ) {
        debug_assert!(
            usize::from(id) < FIRST_DYNAMIC,
            "an id is of the static table"
        );
        if indexing != Indexing::Never {
            let index = statics::index_of(id, value);
            if index != 0 {
                out.push(0x80 | index);
                return;
            }
        }
        match indexing {
            Indexing::Add => self.add(out, id, name, value),
            Indexing::Leave => self.literal(out, 0x00, id, name, value),
            Indexing::Never => self.literal(out, 0x10, id, name, value),
        }
    }

    #[cfg(test)]
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// Bytes of memory that are held.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.table.held() + self.slots.as_ref().map_or(0, |_| size_of::<Slots>())
    }

    /// A field as an index, or as a literal that is added.
    fn add(&mut self, out: &mut Vec<u8>, id: u8, name: &[u8], value: &[u8]) {
        let name_hash = match id {
            0 => hash_of_name(name),
            _ => u64::from(id).wrapping_mul(FACTOR),
        };
        let slot = slot::<FIELD_SLOTS>(hash(name_hash, value, 0));
        if let Some(slots) = &self.slots {
            // One after the other, as the first is the one nearly always.
            let find = |slot: usize| self.age_of(slots.fields[slot], id, name, value);
            if let Some(age) = find(slot).or_else(|| find(slot ^ 1)) {
                integer::write(out, 0x80, 7, FIRST_DYNAMIC + age);
                return;
            }
        }

        self.add_new(out, id, name, value, (slot, name_hash));
    }

    /// A field that is not in the table, as a literal that is added, if it is not too large.
    #[inline(never)]
    fn add_new(
        &mut self,
        out: &mut Vec<u8>,
        id: u8,
        name: &[u8],
        value: &[u8],
        (slot, name_hash): (usize, u64),
    ) {
        let static_name = statics::FIELDS
            .get(usize::from(id).wrapping_sub(1))
            .map(|row| row.name);
        let name_len = static_name.unwrap_or(name).len();
        if name_len + value.len() + OVERHEAD > self.table.max() / LARGEST_PART {
            self.literal(out, 0x00, id, name, value);
            return;
        }
        let index = self.index_of_name(id, name);
        integer::write(out, 0x40, 6, index);
        let lower = match index {
            0 => write_name(out, name),
            _ => 0..0,
        };
        write_text(out, value);
        if let Some(age) = index.checked_sub(FIRST_DYNAMIC) {
            self.table.add_named(age, value, true);
        } else {
            let name = static_name.or(out.get(lower)).unwrap_or_default();
            let traits = Traits {
                id,
                is_name_sound: true,
                is_value_sound: true,
            };
            self.table.add(Row {
                name,
                value,
                traits,
            });
        }
        self.note(slot, id, name_hash);
    }

    /// Age of the entry of this number, if it is this field.
    #[inline(always)]
    fn age_of(&self, number: u16, id: u8, name: &[u8], value: &[u8]) -> Option<usize> {
        let age = self.age(number);
        let row = self.table.row(age)?;
        (is_equal(row.value, value) && has_name(row, id, name)).then_some(age)
    }

    /// Notes where the newest entry is to be found.
    fn note(&mut self, slot: usize, id: u8, name_hash: u64) {
        let number = self.table.added().wrapping_sub(1) as u16;
        let ages = [slot, slot ^ 1].map(|slot| match &self.slots {
            Some(slots) => self.age(slots.fields[slot]),
            None => 0,
        });
        let slots = self.slots.get_or_insert_with(|| {
            // All say "this one", which is the only one yet.
            Box::new(Slots {
                fields: [number; FIELD_SLOTS],
                names: [number; NAME_SLOTS],
            })
        });
        // In place of the older of two, which may well be gone.
        let older = if ages[0] >= ages[1] { slot } else { slot ^ 1 };
        slots.fields[older] = number;
        if id == 0 {
            slots.names[self::slot::<NAME_SLOTS>(name_hash)] = number;
        }
    }

    /// A literal that is not added; the index of its name has a prefix of four bits.
    #[inline(never)]
    fn literal(&self, out: &mut Vec<u8>, pattern: u8, id: u8, name: &[u8], value: &[u8]) {
        let index = self.index_of_name(id, name);
        integer::write(out, pattern, 4, index);
        if index == 0 {
            write_name(out, name);
        }
        write_text(out, value);
    }

    /// Index of a field of this name, 0 if none is known.
    fn index_of_name(&self, id: u8, name: &[u8]) -> usize {
        if id != 0 {
            return usize::from(id);
        }
        let Some(slots) = &self.slots else {
            return 0;
        };
        let age = self.age(slots.names[slot::<NAME_SLOTS>(hash_of_name(name))]);
        match self.table.row(age) {
            Some(row) if has_name(row, 0, name) => FIRST_DYNAMIC + age,
            _ => 0,
        }
    }

    /// How many entries are newer than that of this number; anything if it is gone.
    #[inline]
    fn age(&self, number: u16) -> usize {
        usize::from(
            (self.table.added() as u16)
                .wrapping_sub(number)
                .wrapping_sub(1),
        )
    }
}

/// Whether an entry has a name, which is compared only where no id tells.
#[inline(always)]
fn has_name(row: Row<'_>, id: u8, name: &[u8]) -> bool {
    row.traits.id == id && (id != 0 || is_equal(row.name, name) || is_lowered(row.name, name))
}

/// The same for a name that is not lower-case yet.
#[cold]
fn is_lowered(lower: &[u8], name: &[u8]) -> bool {
    lower.eq_ignore_ascii_case(name)
}

/// As `==`, in place: a call for a few bytes costs more than they do.
#[inline(always)]
fn is_equal(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    if let (Some(left_last), Some(right_last)) = (left.last_chunk::<8>(), right.last_chunk::<8>()) {
        let words = left.as_chunks::<8>().0.iter().zip(right.as_chunks::<8>().0);
        left_last == right_last && words.into_iter().all(|(left, right)| left == right)
    } else if let (Some(left_last), Some(right_last)) =
        (left.last_chunk::<4>(), right.last_chunk::<4>())
    {
        left_last == right_last && left.first_chunk::<4>() == right.first_chunk::<4>()
    } else {
        left.iter().zip(right).all(|(left, right)| left == right)
    }
}

/// Appends a name in lower case; says where.
fn write_name(out: &mut Vec<u8>, name: &[u8]) -> Range<usize> {
    write_text(out, name);
    let lower = out.len() - name.len()..out.len();
    if let Some(name) = out.get_mut(lower.clone()) {
        name.make_ascii_lowercase();
    }
    lower
}

#[inline]
fn write_text(out: &mut Vec<u8>, text: &[u8]) {
    integer::write(out, 0x00, 7, text.len());
    out.extend_from_slice(text);
}

/// Slot of a hash, of which the high bits are the best.
#[inline]
fn slot<const SLOTS: usize>(hash: u64) -> usize {
    (hash >> 32) as usize % SLOTS
}

/// Hash of a name in any case.
fn hash_of_name(name: &[u8]) -> u64 {
    // The bit that tells lower case from upper; it folds others too, which only is a collision.
    hash(0, name, 0x2020_2020_2020_2020)
}

/// Eight bytes at a time, each with the bits of `mask` set, multiplied and folded; the last eight overlap
/// those before. Not keyed: who makes fields collide makes them literals.
#[inline]
fn hash(seed: u64, bytes: &[u8], mask: u64) -> u64 {
    let step = |hash: u64, word: u64| {
        let product = u128::from(hash ^ (word | mask)) * u128::from(FACTOR);
        product as u64 ^ (product >> 64) as u64
    };
    let hash = seed ^ (bytes.len() as u64) << 56;
    if let Some(&last) = bytes.last_chunk::<8>() {
        let (chunks, _) = bytes.as_chunks::<8>();
        let hash = chunks
            .iter()
            .fold(hash, |hash, &chunk| step(hash, u64::from_le_bytes(chunk)));
        step(hash, u64::from_le_bytes(last))
    } else if let (Some(&first), Some(&last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>())
    {
        step(
            hash,
            u64::from(u32::from_le_bytes(first)) | u64::from(u32::from_le_bytes(last)) << 32,
        )
    } else {
        step(
            hash,
            bytes
                .iter()
                .fold(0, |word, &byte| word << 8 | u64::from(byte)),
        )
    }
}

/// Odd, half of its bits set: 2^64 divided by the golden ratio.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_that_lie_cost_an_index_and_nothing_else() {
        let mut encoder = Encoder::new();
        let mut out = Vec::new();
        encoder.field(&mut out, 0, b"x-first", b"1", Indexing::Add);
        for number in [0, 1, 7, u16::MAX] {
            if let Some(slots) = &mut encoder.slots {
                slots.fields.fill(number);
                slots.names.fill(number);
            }
            for (name, value) in [(&b"x-other"[..], &b"1"[..]), (b"x-other", b"2")] {
                out.clear();
                encoder.field(&mut out, 0, name, value, Indexing::Leave);
                let written = [b"\x00\x07x-other\x01", value].concat();
                assert_eq!(out, written, "{number}");
            }
        }
        if let Some(slots) = &mut encoder.slots {
            slots.fields.fill(0);
        }
        out.clear();
        encoder.field(&mut out, statics::COOKIE, b"", b"1", Indexing::Add);
        assert_eq!(out, b"\x60\x011");
    }

    #[test]
    fn texts_are_equal_that_are_so_whatever_their_lengths() {
        for len in 0..40 {
            let text: Vec<u8> = (0..len).collect();
            assert!(is_equal(&text, &text.clone()));
            for at in 0..text.len() {
                let mut other = text.clone();
                other[at] ^= 0x40;
                assert!(!is_equal(&text, &other));
                assert!(!is_equal(&text, &text[..at]));
                assert_ne!(hash(0, &text, 0), hash(0, &other, 0));
            }
        }
    }

    #[test]
    fn hashes_of_names_are_the_same_in_any_case() {
        for name in [
            "",
            "X",
            "Te",
            "dNt",
            "X-Id",
            "GrPc-Timeout",
            "X-Forwarded-For",
            "X-B3-TraceId-",
        ] {
            assert_eq!(
                hash_of_name(name.as_bytes()),
                hash_of_name(name.to_ascii_lowercase().as_bytes())
            );
        }
    }
}
