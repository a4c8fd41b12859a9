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

pub mod fact;
pub mod id;
pub mod membership;
#[cfg(test)]
pub(crate) mod sim;
pub mod stamp;
