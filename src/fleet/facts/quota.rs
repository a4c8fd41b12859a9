//! Whose the facts are, and how many one peer may have said.
//!
//! A store that anybody could fill would leave no room for what the others say next: a drain, a vote. So a peer has
//! at most [`MAX_OF_ORIGIN`] facts in it, and one that has said little ([`ROOM_OF_EACH`]) has room also where
//! others have filled it. What is said in place of what the same peer said before needs none, so whoever has no
//! room left can still take back.

use std::collections::HashMap;

use crate::fleet::fact::Fact;
use crate::fleet::id::PeerId;

use super::MAX_FACTS;
use super::check::Flaw;

/// Most facts of one peer: all that can be said of 10,000 endpoints at one peer (a registration, three parts of an
/// override, a vote) are 50,000, and up to the next power of two there are tombstones. Half of [`MAX_FACTS`].
pub const MAX_OF_ORIGIN: usize = MAX_FACTS / 2;

/// Facts that each peer may say though there are [`MAX_FACTS`]: 2,000 endpoints that it registers, weighs, drains
/// and votes on.
pub const ROOM_OF_EACH: usize = MAX_FACTS / 16;

/// Most facts in all. Whoever has the secret can speak as any number of peers: room for each ends, too.
pub const MAX_EVER: usize = 2 * MAX_FACTS;

/// How many facts each peer has said.
#[derive(Debug, Default)]
pub(super) struct Origins(HashMap<PeerId, usize>);

// === impl Origins ===

impl Origins {
    /// How many facts are of this peer.
    pub(super) fn of(&self, origin: PeerId) -> usize {
        self.0.get(&origin).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, origin: PeerId) {
        *self.0.entry(origin).or_default() += 1;
    }

    pub(super) fn remove(&mut self, origin: PeerId) {
        if let Some(count) = self.0.get_mut(&origin) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&origin);
            }
        }
    }

    /// Whether there is room for a fact among `all`, in place of the one of its key.
    pub(super) fn room(&self, fact: &Fact, held: Option<&Fact>, all: usize) -> Result<(), Flaw> {
        if held.is_some_and(|held| held.origin == fact.origin) {
            return Ok(());
        }
        let own = self.of(fact.origin);
        if own >= MAX_OF_ORIGIN {
            return Err(Flaw::Quota);
        }
        let most = if own < ROOM_OF_EACH {
            MAX_EVER
        } else {
            MAX_FACTS
        };
        if held.is_none() && all >= most {
            return Err(Flaw::Full);
        }
        Ok(())
    }
}
