//! Which counters were heard: a sliding window (RFC 4303 section 3.4.3), as a ring of bits (RFC 6479).

/// The last 1,024 counters of a session: each is taken once, in any order, and none from before them.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// `None` = nothing was heard.
    highest: Option<u64>,
    /// Bit `counter % SIZE`: heard; of the counters from `highest - SIZE + 1` to `highest`.
    heard: [u64; WORDS],
}

/// At the 1,000 datagrams a second that a burst may have, one second of delay.
pub(super) const SIZE: u64 = 1024;

const WORDS: usize = SIZE as usize / 64;

// === impl Window ===

impl Window {
    pub(super) fn new() -> Self {
        Self {
            highest: None,
            heard: [0; WORDS],
        }
    }

    /// Whether it was not heard yet, and is not too old to know.
    pub(super) fn is_new(&self, counter: u64) -> bool {
        let Some(highest) = self.highest else {
            return true;
        };
        if counter > highest {
            return true;
        }
        let (word, bit) = place(counter);
        highest - counter < SIZE && self.heard[word] & bit == 0
    }

    /// Whether it comes after all that were heard.
    pub(super) fn is_latest(&self, counter: u64) -> bool {
        self.highest.is_none_or(|highest| counter > highest)
    }

    /// Takes note of a counter that [is new](Self::is_new), once what bears it was authenticated.
    pub(super) fn hear(&mut self, counter: u64) {
        let highest = *self.highest.get_or_insert(counter);
        if counter > highest {
            // What falls out at one end comes in at the other: not heard. A leap clears all of it.
            for passed in 0..(counter - highest).min(SIZE) {
                let (word, bit) = place(counter - passed);
                self.heard[word] &= !bit;
            }
            self.highest = Some(counter);
        }
        let (word, bit) = place(counter);
        self.heard[word] |= bit;
    }
}

fn place(counter: u64) -> (usize, u64) {
    let at = counter % SIZE;
    ((at / 64) as usize, 1 << (at % 64))
}
