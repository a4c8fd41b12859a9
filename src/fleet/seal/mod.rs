//! Who may speak in the fleet.
//!
//! Peers have a secret in common, and a name of the fleet. Whoever has both is a peer and is believed as one;
//! what others send changes nothing and is counted by its [`Refusal`]. All of it is pure: bytes, times and chance
//! are arguments. Numbers on the wire are big endian.
//!
//! # A datagram
//! | bytes | what | why it is there |
//! |---|---|---|
//! | 1 | version, 2 | what changes later is refused by its number, and not as a forgery |
//! | 4 | hash of the fleet's name | two fleets in one network are told apart before any work |
//! | 4 | key id | says which secret of the keyring, so that none is tried in vain |
//! | 8 | sender | each peer has keys of its own, so that no two need to agree on counters |
//! | 8 | session | random at each start of the sender: its counter begins at 0 again, with another key |
//! | 8 | counter | the nonce, and what the replay window is about |
//! | 1 | kind, sealed | see [`Kind`] |
//! | 8 | the sender's clock, sealed | milliseconds since 1970: what tells an old datagram where the window cannot |
//! | 0 to 1,342 | payload, sealed | |
//! | 16 | tag | |
//!
//! The first 33 bytes are the additional data of AES-256-GCM: no bit of a datagram can be changed. 58 bytes are not
//! payload; the whole is at most [`MAX_DATAGRAM`].
//!
//! # A stream
//! Either side begins with a [`Greeting`], and then sends records.
//!
//! | bytes | of a greeting | why it is there |
//! |---|---|---|
//! | 1, 4, 4 | version, hash of the fleet's name, key id | as above; who accepts answers with the key id that it was asked for |
//! | 8 | sender | who has its own bytes sent back to it notices |
//! | 32 | random | makes the keys new: what was recorded opens nothing |
//!
//! | bytes | of a record | why it is there |
//! |---|---|---|
//! | 4 | length of what follows, 16 to 65,552 | the additional data |
//! | 0 to 65,536 | payload, sealed | |
//! | 16 | tag | |
//!
//! The nonce of a record is its number in its direction, from 0 on, so that none can be left out, repeated or moved.
//! Only a first record that opens proves that the other side has the secret, and is the peer of its greeting: nothing
//! of it may be believed before. Where a stream was cut between two records, the seal does not notice: the last
//! record has to say that it is the last.
//!
//! # Keys
//! All are HKDF-SHA256 (RFC 5869) of a secret. `root` = expand(extract(salt `"isobar fleet 1 "` and the name, secret),
//! `"root"`), and of the root:
//!
//! | label | and after it | gives |
//! |---|---|---|
//! | `key id` | | its first 4 bytes: the key id |
//! | `datagram` | sender, session | the key of a sender's session |
//! | `stream there`, `stream back` | first greeting, answer | the keys of who connected, and of who accepted |
//! | `use ` | a purpose | [`Keyring::derive`]: cookies and tickets that every peer reads |
//!
//! Nonces are four zeros and a counter, and a key never sees one twice as long as sessions and the random bytes of
//! greetings differ: with n sessions of a peer two meet with a chance of n² / 2^65. Secrets are rotated as in any
//! keyring: first the new one is added below at all peers, then it is put first at all peers, then the old one goes.
//!
//! # What somebody without the secret can do
//! - See who speaks to whom, when, how much, and how often peers restart; not what they say.
//! - Drop, delay and mix datagrams, which gossip is made for, and cut streams, which is noticed. With each record of
//!   a stream in its place and each datagram taken once, nothing old is heard again, but for this: a process that
//!   has just started, or has forgotten a session (after an hour of silence, or after 4,096 others), cannot know
//!   what was heard before it. So who opens datagrams compares [`Opened::unix_ms`] with its own clock: what is
//!   replayed then is as old as the skew that is allowed.
//! - Cost time. A datagram of no version, fleet or key of ours costs a few comparisons. One that copies those of a
//!   real one costs, with a sender or session that is not known, an HKDF-Expand and a key schedule, and in any case
//!   one AES-GCM pass over at most 1,400 bytes: under 6 µs unoptimised, no memory, and no answer, so that nobody is
//!   flooded through a peer. A connection costs a greeting in return and up to 128 KiB of buffer until its first
//!   record is refused: who accepts limits their number and time.
//! - Guess. A secret that people made up is found by trying, from one datagram; one of [`keygen`] is not.
//!
//! # What somebody with the secret can do
//! Be any peer: all have one secret, and a sender is proven to be *a* peer, not which one. It can read all that is
//! said and was recorded under this secret (there is no forward secrecy: rotate), speak as others, and push sessions
//! out of the table of who hears it. What its facts can do is limited above (the brake, quarantine, skew), by the
//! origin that they claim.

mod cipher;
mod datagram;
mod greeting;
mod keyring;
mod opener;
mod stream;
mod window;

use thiserror::Error;

pub use datagram::{Kind, MAX_DATAGRAM, MAX_PAYLOAD, Sealer, Session};
pub use greeting::Greeting;
pub use keyring::{Keyring, keygen};
pub use opener::{Opened, Opener};
pub use stream::{MAX_RECORD, StreamOpen, StreamSeal};

/// Why something is not listened to. None of them is more than a count: the sender may be anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum Refusal {
    /// It is of another fleet.
    #[error("it is of a fleet of another name")]
    Fleet,
    /// It was not sealed with the key that it names, or was changed on its way.
    #[error("it was changed on its way, or its sender does not have the secret")]
    Forged,
    /// It is sealed with a key that is not in the keyring.
    #[error("it is sealed with a secret that is not in this peer's file")]
    Key,
    /// It is of a kind that this version does not know; its sender has the secret.
    #[error("its kind, {0}, is not known to this version")]
    Kind(u8),
    /// It is longer than anything that a peer sends.
    #[error("it is longer than anything that a peer sends")]
    Long,
    /// It comes from this peer itself, or from one that took its identity; it was sealed with the secret.
    #[error("it comes from this peer itself, or from another with its identity")]
    Own,
    /// It was heard before, or is too old to know.
    #[error("it was heard before, or is too old to know")]
    Replayed,
    /// It is shorter than anything that a peer sends.
    #[error("it is shorter than anything that a peer sends")]
    Short,
    /// It is of a version that this one does not speak.
    #[error("it is of version {0}, and this peer speaks version {VERSION}")]
    Version(u8),
}

/// Why something was not sealed; nothing was written then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotSealed {
    /// It is longer than [`MAX_PAYLOAD`] or [`MAX_RECORD`].
    #[error("it is too long to be sealed")]
    Long,
    /// All 2^64 counters were used; a new session begins anew.
    #[error("its key is used up")]
    Spent,
}

/// The first byte of all that peers send. What is in it counts: another shape of a fact is another version. In the
/// first, which was never released, a peer did not say since when it knows what the fleet says.
const VERSION: u8 = 2;

// === impl Refusal ===

impl Refusal {
    /// One word, for the label of a metric.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fleet => "fleet",
            Self::Forged => "forged",
            Self::Key => "key",
            Self::Kind(_) => "kind",
            Self::Long => "long",
            Self::Own => "own",
            Self::Replayed => "replayed",
            Self::Short => "short",
            Self::Version(_) => "version",
        }
    }
}

#[cfg(test)]
mod tests;
