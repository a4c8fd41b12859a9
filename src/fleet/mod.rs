//! The fleet: several isobars that act as one. An endpoint that is added, drained or found dead at one of
//! them is so at all of them, with no central server, and a peer that is alone works as before.
//!
//! ```text
//! datagram -> seal (who may speak) -> membership (foca: who is there) -> shared health (who asks whom)
//!                                  -> facts (what is said)  -> standing (what that means here)  -> runtime::live
//! ```
//! Everything above the sockets is pure: it takes time, chance and bytes, and is tested as a thousand peers under
//! a virtual clock. Peers say *facts*; each fact has one key, and of two facts with one key the later one holds
//! ([`fact`]). New facts are pushed to a few peers a round, and what that misses is found by comparing digests
//! over TCP.

pub mod duty;
pub mod fact;
pub mod facts;
pub mod id;
pub mod membership;
pub mod peer;
pub mod push;
pub mod seal;
#[cfg(test)]
pub(crate) mod sim;
pub mod stamp;
pub mod standing;

use crate::base::clock::Nanos;

/// The time, as the clocks of one machine have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since an arbitrary moment: it only goes forward, and evenly.
    pub now: Nanos,
    /// Milliseconds since 1970: it may be wrong, or be set.
    pub unix_ms: u64,
}
