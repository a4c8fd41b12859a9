//! Facts that were refused, for the people who ask why.

use std::collections::VecDeque;

use crate::fleet::fact::Fact;
use crate::fleet::id::PeerId;

use super::check::Flaw;

/// How many are kept in full: a screen of `isobar fleet status`. Of the others there is the count.
pub const KEPT: usize = 64;

/// Longest text of a key that is kept, in characters: a name of 128, a path of 107 and some words fit.
const MAX_TEXT: usize = 320;

/// The facts that were refused last, and how often each [`Flaw`] was seen.
#[derive(Clone, Debug, Default)]
pub struct Quarantine {
    last: VecDeque<Flawed>,
    counts: [u64; Flaw::ALL.len()],
}

/// A fact that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flawed {
    /// What it was about; control characters are escaped, and what is too long is cut.
    pub key: String,
    /// Who is said to have said it.
    pub origin: PeerId,
    /// From whom it came.
    pub from: PeerId,
    /// What is wrong with it.
    pub flaw: Flaw,
    /// When it came, in milliseconds since 1970.
    pub unix_ms: u64,
}

// === impl Quarantine ===

impl Quarantine {
    /// Takes note of a fact that was refused.
    pub fn note(&mut self, fact: &Fact, flaw: Flaw, from: PeerId, unix_ms: u64) {
        self.counts[flaw as usize] += 1;
        if self.last.len() >= KEPT {
            self.last.pop_front();
        }
        let text = fact.key.to_string();
        self.last.push_back(Flawed {
            key: text.escape_debug().take(MAX_TEXT).collect(),
            origin: fact.origin,
            from,
            flaw,
            unix_ms,
        });
    }

    /// The last of them, the newest first.
    pub fn last(&self) -> impl ExactSizeIterator<Item = &Flawed> {
        self.last.iter().rev()
    }

    /// How often each flaw was seen, all of them, in the order of [`Flaw::ALL`].
    pub fn counts(&self) -> impl Iterator<Item = (Flaw, u64)> {
        Flaw::ALL.into_iter().zip(self.counts)
    }

    /// How many facts were refused.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}
