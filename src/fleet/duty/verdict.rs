//! What votes make of an endpoint. Pure.

use std::fmt;

use crate::fleet::id::PeerId;
use crate::upstream::Health;

/// What the probers of an endpoint have found, taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// More than half of those who voted found it dead.
    Down {
        /// How many.
        failing: usize,
        /// Of how many votes.
        of: usize,
    },
    /// Fewer than two have voted: what a peer finds by itself holds for it.
    TooFew,
    /// As many for as against: it stays what it was.
    Undecided,
    /// More than half of those who voted found it well.
    Up {
        /// How many.
        passing: usize,
        /// Of how many votes.
        of: usize,
    },
}

/// What the votes of `probers` come to: of the v who have voted, floor(v / 2) + 1 decide, and v is at least 2
/// (distributed.md 1.6.4). One alone takes nothing away from others.
pub fn verdict(probers: &[PeerId], votes: impl Fn(PeerId) -> Option<bool>) -> Ruling {
    let (mut passing, mut failing) = (0, 0);
    for vote in probers.iter().filter_map(|prober| votes(*prober)) {
        match vote {
            true => passing += 1,
            false => failing += 1,
        }
    }
    let of = passing + failing;
    let majority = of / 2 + 1;
    if of < 2 {
        Ruling::TooFew
    } else if failing >= majority {
        Ruling::Down { failing, of }
    } else if passing >= majority {
        Ruling::Up { passing, of }
    } else {
        Ruling::Undecided
    }
}

// === impl Ruling ===

impl Ruling {
    /// What the endpoint is from now on; `None` = what it was.
    pub fn health(self) -> Option<Health> {
        match self {
            Self::Down { .. } => Some(Health::Down),
            Self::Up { .. } => Some(Health::Up),
            Self::TooFew | Self::Undecided => None,
        }
    }
}

impl fmt::Display for Ruling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down { failing: n, of } | Self::Up { passing: n, of } => {
                write!(f, "{n} of {of} peers")
            }
            Self::TooFew => f.write_str("fewer than two peers have voted"),
            Self::Undecided => f.write_str("as many peers for as against"),
        }
    }
}
