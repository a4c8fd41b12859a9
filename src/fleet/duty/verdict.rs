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
        if vote {
            passing += 1;
        } else {
            failing += 1;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    /// `+` and `-` are votes, `.` is none.
    fn of(votes: &str) -> Ruling {
        let votes = votes.as_bytes();
        let probers: Vec<_> = (0..votes.len() as u64).map(PeerId).collect();
        verdict(&probers, |prober| match votes[prober.0 as usize] {
            b'+' => Some(true),
            b'-' => Some(false),
            _ => None,
        })
    }

    #[test]
    fn majority_of_those_who_voted_decides_and_one_is_none() {
        let down = |failing, of| Ruling::Down { failing, of };
        let up = |passing, of| Ruling::Up { passing, of };
        for few in ["", ".", "...", "-", "+..", "..-"] {
            assert_eq!(of(few), Ruling::TooFew, "{few}");
        }
        assert_eq!(of("--"), down(2, 2));
        assert_eq!(of("+-"), Ruling::Undecided);
        assert_eq!(of("+-."), Ruling::Undecided);
        assert_eq!(of("+--"), down(2, 3));
        assert_eq!(of("++-"), up(2, 3));
        assert_eq!(of(".++"), up(2, 2));
        assert_eq!(of("++--"), Ruling::Undecided);
        assert_eq!(of("---++"), down(3, 5));
        assert_eq!(of("+--").to_string(), "2 of 3 peers");
    }

    #[test]
    fn neither_order_nor_those_who_do_not_ask_matter() {
        let mut rng = Rng::new(9);
        for round in 0..2000 {
            let count = rng.below(8);
            let mut votes: Vec<_> = (0..count).map(|_| ['+', '-', '.'][rng.below(3)]).collect();
            let text = |votes: &[char]| votes.iter().collect::<String>();
            let ruling = of(&text(&votes));
            let (passing, failing) = (
                votes.iter().filter(|v| **v == '+').count(),
                votes.iter().filter(|v| **v == '-').count(),
            );
            let expected = match passing + failing {
                0 | 1 => None,
                _ if failing > passing => Some(Health::Down),
                _ if passing > failing => Some(Health::Up),
                _ => None,
            };
            assert_eq!(ruling.health(), expected, "seed 9, round {round}");
            if count > 1 {
                votes.swap(rng.below(count), rng.below(count));
            }
            votes.push('.');
            assert_eq!(of(&text(&votes)), ruling, "seed 9, round {round}");
            // One vote more never turns a ruling into its opposite.
            for more in ['+', '-'] {
                votes.push(more);
                let next = of(&text(&votes)).health();
                let before = ruling.health();
                assert!(next == before || next.is_none() || before.is_none());
                votes.pop();
            }
        }
    }
}
