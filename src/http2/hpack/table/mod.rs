//! The dynamic table (RFC 7541 section 2.3.2), of either side.
//!
//! Names and values stand one behind the other in one buffer, oldest first; entries say where. To evict
//! is to forget an entry: what it leaves at the front is dead, until adding would need more than twice
//! what the table may hold; then the live part moves to the front. By then at least as many bytes have
//! been added as are moved, so that a byte moves once on average, and nothing is allocated once the
//! buffer has its size. A table that was never used, or is empty and closed, holds no memory.

use std::collections::VecDeque;

use super::statics;

/// What an entry counts for beside its name and value (RFC 7541 section 4.1).
pub(super) const OVERHEAD: usize = 32;

/// The first index that is not one of the static table: that of the newest entry.
pub(super) const FIRST_DYNAMIC: usize = statics::FIELDS.len() + 1;

/// What a table may hold before anything is said about it (RFC 9113 section 6.5.2).
pub(super) const DEFAULT_MAX: usize = 4096;

/// A dynamic table.
#[derive(Debug)]
pub(super) struct Table {
    bytes: Vec<u8>,
    /// Newest first, as they are counted.
    entries: VecDeque<Entry>,
    /// Position of the first of `bytes` among all that were ever added; wraps.
    base: u32,
    /// How many entries were ever added; wraps.
    added: u32,
    size: usize,
    max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Position among all bytes that were ever added; wraps.
    position: u32,
    name_len: u32,
    value_len: u32,
    traits: Traits,
}

/// What is found out about a field once, when it is added.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traits {
    /// Id of the name in the static table, 0 = it has none.
    pub(super) id: u8,
    pub(super) is_name_sound: bool,
    pub(super) is_value_sound: bool,
}

/// An entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) traits: Traits,
}

// === impl Traits ===

impl Traits {
    /// Those of the name of the static table's field of this index, and of its value.
    #[inline]
    pub(super) fn of_static(index: usize) -> Self {
        Self {
            id: statics::id_at(index),
            is_name_sound: true,
            is_value_sound: true,
        }
    }
}

// === impl Entry ===

impl Entry {
    fn len(self) -> usize {
        self.name_len as usize + self.value_len as usize
    }
}

// === impl Table ===

impl Table {
    pub(super) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            entries: VecDeque::new(),
            base: 0,
            added: 0,
            size: 0,
            max: DEFAULT_MAX,
        }
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What counts for the limit (RFC 7541 section 4.1).
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Bytes of memory that are held.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    /// How many entries were ever added; wraps.
    pub(super) fn added(&self) -> u32 {
        self.added
    }

    /// The entry that `age` younger ones stand before.
    #[inline]
    pub(super) fn row(&self, age: usize) -> Option<Row<'_>> {
        let entry = self.entries.get(age)?;
        let start = self.place(entry.position);
        let (name, value) = self
            .bytes
            .get(start..start + entry.len())?
            .split_at_checked(entry.name_len as usize)?;
        Some(Row {
            name,
            value,
            traits: entry.traits,
        })
    }

    /// Lets the table hold `max`, at most [`super::integer::MAX`]; evicts what is too much.
    pub(super) fn set_max(&mut self, max: usize) {
        let is_less = max < self.max;
        self.max = max;
        self.evict(0);
        if self.entries.is_empty() {
            self.release();
        } else if is_less {
            self.compact();
            self.bytes.shrink_to(2 * max);
        }
    }

    /// Adds a field. One that is larger than the table empties it, and is not in it.
    pub(super) fn add(&mut self, row: Row<'_>) {
        if self.is_room_made(row.name.len(), row.value.len()) {
            self.bytes.extend_from_slice(row.name);
            self.bytes.extend_from_slice(row.value);
            self.push(row.name.len(), row.value.len(), row.traits);
        }
    }

    /// Adds a field with the name of the entry of this age, which may be evicted for it (RFC 7541
    /// section 4.4). If there is no such entry nothing happens.
    pub(super) fn add_named(&mut self, age: usize, value: &[u8], is_value_sound: bool) {
        let Some(&entry) = self.entries.get(age) else {
            return;
        };
        let name_len = entry.name_len as usize;
        if self.is_room_made(name_len, value.len()) {
            // Nothing is evicted yet, and nothing evicted is overwritten.
            let start = self.place(entry.position);
            self.bytes.extend_from_within(start..start + name_len);
            self.bytes.extend_from_slice(value);
            self.push(
                name_len,
                value.len(),
                Traits {
                    is_value_sound,
                    ..entry.traits
                },
            );
        }
    }

    /// Makes room for the bytes of a field, unless it is too large for the table: then that is emptied.
    fn is_room_made(&mut self, name_len: usize, value_len: usize) -> bool {
        let len = name_len + value_len;
        if len + OVERHEAD > self.max {
            self.entries.clear();
            self.size = 0;
            self.release();
            return false;
        }
        let limit = 2 * self.max;
        if self.bytes.len() + len > limit {
            self.compact();
        }
        let needed = self.bytes.len() + len;
        if needed > self.bytes.capacity() {
            // Doubles as `Vec` does, but not past the limit, to which it never has to grow again.
            let capacity = (2 * self.bytes.capacity()).clamp(needed, limit.max(needed));
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        true
    }

    /// Makes an entry of the last bytes.
    fn push(&mut self, name_len: usize, value_len: usize, traits: Traits) {
        let size = name_len + value_len + OVERHEAD;
        self.evict(size);
        let place = self.bytes.len() - name_len - value_len;
        self.entries.push_front(Entry {
            position: self.base.wrapping_add(place as u32),
            name_len: name_len as u32,
            value_len: value_len as u32,
            traits,
        });
        self.size += size;
        self.added = self.added.wrapping_add(1);
    }

    /// Forgets the oldest entries until there is room for `size`.
    fn evict(&mut self, size: usize) {
        while self.size + size > self.max {
            let Some(entry) = self.entries.pop_back() else {
                return;
            };
            self.size -= entry.len() + OVERHEAD;
        }
    }

    /// Where in `bytes` that is which has this position.
    #[inline]
    fn place(&self, position: u32) -> usize {
        position.wrapping_sub(self.base) as usize
    }

    /// Moves what is live to the front.
    fn compact(&mut self) {
        let oldest = self.entries.back().map(|entry| self.place(entry.position));
        let start = oldest.unwrap_or(self.bytes.len());
        self.bytes.drain(..start);
        self.base = self.base.wrapping_add(start as u32);
    }

    /// Gives back the memory of a table that has been emptied.
    fn release(&mut self) {
        self.bytes = Vec::new();
        self.entries = VecDeque::new();
    }
}

#[cfg(test)]
mod tests;
