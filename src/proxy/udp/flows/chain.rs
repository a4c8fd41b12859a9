//! Chains through the slots of a table: the order in which flows were last heard of, by index.

use super::Slot;

/// One chain: the quietest first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    head: u32,
    tail: u32,
    len: usize,
}

/// Two chains: of flows that are not proven, and of those that are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kinds([Chain; 2]);

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

/// The proven ones are safe as long as they leave one in so many to the others.
const UNPROVEN_PART: usize = 8;

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

// === impl Kinds ===

impl Kinds {
    #[inline]
    pub(super) fn of(&mut self, is_proven: bool) -> &mut Chain {
        &mut self.0[usize::from(is_proven)]
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|chain| chain.len).sum()
    }

    /// The quietest slots of both.
    pub(super) fn heads(&self) -> impl Iterator<Item = u32> {
        let heads = self.0.map(|chain| chain.head);
        heads.into_iter().filter(|&index| index != NONE)
    }

    /// The quietest slot that is not proven.
    pub(super) fn unproven(&self) -> u32 {
        self.0[0].head
    }

    /// Which slot goes first where there is room for `most`.
    pub(super) fn first_to_go(&self, most: usize) -> u32 {
        let [unproven, proven] = &self.0;
        let share = most - most / UNPROVEN_PART;
        if unproven.len == 0 || proven.len > share {
            proven.head
        } else {
            unproven.head
        }
    }
}

// === impl Links ===

impl Links {
    /// Whether it has no neighbour.
    pub(super) fn is_alone(self) -> bool {
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
