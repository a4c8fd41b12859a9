//! What a membership says of others, of itself, and of what it was handed.

use std::net::SocketAddr;

use thiserror::Error;

use super::identity::Identity;
use super::timers::Stalls;

/// What is to be done, and what has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out {
    /// A peer is there that was not.
    Up(Identity),
    /// A peer is not there any more.
    Down {
        /// Its last life.
        peer: Identity,
        /// It said so itself.
        left: bool,
    },
    /// A peer is there as it was, in another life: it started again, moved, or was wrongly held to be down.
    Renewed {
        /// Before.
        from: Identity,
        /// Now.
        to: Identity,
    },
    /// Others held *this* peer to be down. It is back as this.
    Rejoined(Identity),
    /// To be sent.
    Send {
        /// Where.
        to: SocketAddr,
        /// No longer than was asked for.
        payload: Vec<u8>,
    },
    /// Another one goes by the name of this peer: its `state_dir` was copied, most likely.
    Twin(Identity),
}

/// What is known of a peer that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It answers.
    Alive,
    /// It did not answer, and may yet say that it lives.
    Suspect,
}

/// What went wrong, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams that were refused.
    pub refused: u64,
    /// Calls that foca failed at, of those that cannot fail.
    pub faults: u64,
    /// New identities of this peer, since others held it to be down.
    pub rejoined: u64,
    /// The loop that drives it stood still.
    pub stalls: Stalls,
}

/// A datagram changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// This peer has left.
    #[error("this peer has left the fleet")]
    Left,
    /// Not what foca says.
    #[error("the datagram cannot be read")]
    Malformed,
    /// Its sender says that it is at this very address.
    #[error("the sender claims this peer's own address")]
    OwnAddress,
    /// Longer than any peer sends.
    #[error("the datagram is too long")]
    TooLong,
}
