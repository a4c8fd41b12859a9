//! Who may speak in the fleet.
//!
//! Peers have a secret in common, and a name of the fleet. Whoever has both is a peer and is believed as one;
//! what others send changes nothing and is counted by its [`Refusal`]. All of it is pure: bytes, times and chance
//! are arguments.

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

/// The first byte of all that peers send.
const VERSION: u8 = 1;

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
