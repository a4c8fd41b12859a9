//! Chains through the slots of a table: the order in which flows were last heard of, by index.

use super::Slot;

/// One chain: the quietest first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    pub(super) head: u32,
    tail: u32,
    pub(super) len: usize,
}

/// A slot's neighbours in one chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    prev: u32,
    pub(super) next: u32,
}

/// Which of a slot's links.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// With all of its kind.
    Quiet,
    /// With those of its source.
    Source,
}

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

// === impl Links ===

impl Links {
    /// Whether it has no neighbour.
    pub(super) fn is_alone(&self) -> bool {
        self.prev == NONE && self.next == NONE
    }
}

impl Default for Links {
    fn default() -> Self {
        Self {
            prev: NONE,
            next: NONE,
        }
    }
}

// === impl Chain ===

impl Chain {
    /// Adds the slot at `index`, which is in no chain of this place, at the loud end.
    pub(super) fn push<F>(&mut self, slots: &mut [Slot<F>], place: Place, index: u32) {
        slots[index as usize].links[place as usize] = Links {
            prev: self.tail,
            next: NONE,
        };
        if self.tail == NONE {
            self.head = index;
        } else {
            slots[self.tail as usize].links[place as usize].next = index;
        }
        self.tail = index;
        self.len += 1;
    }

    /// Takes out the slot at `index`, which is in this chain.
    pub(super) fn unlink<F>(&mut self, slots: &mut [Slot<F>], place: Place, index: u32) {
        let links = std::mem::take(&mut slots[index as usize].links[place as usize]);
        if links.prev == NONE {
            self.head = links.next;
        } else {
            slots[links.prev as usize].links[place as usize].next = links.next;
        }
        if links.next == NONE {
            self.tail = links.prev;
        } else {
            slots[links.next as usize].links[place as usize].prev = links.prev;
        }
        self.len -= 1;
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            head: NONE,
            tail: NONE,
            len: 0,
        }
    }
}
