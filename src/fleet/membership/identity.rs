//! Who a member is, and how it is written into a datagram.

use std::net::SocketAddr;

use foca::{Codec, Header, Incarnation, Member, Message, PostcardCodec, State};
use serde::{Deserialize, Serialize};

use crate::fleet::id::PeerId;

/// A peer, where it is reached, and its how manieth life there this is.
///
/// Membership goes by the address: a datagram to a seed cannot say whom it expects there. So one address is one
/// member, and of two lives at one address the greater incarnation counts. That one *peer* is seen at two
/// addresses is resolved in the view that is given out, by the greater incarnation too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// Who.
    pub peer: PeerId,
    /// Where others reach it: neither a wildcard nor port 0.
    pub addr: SocketAddr,
    /// When this life began, in milliseconds since 1970; more after each time others took it for down, for what
    /// is down never comes back as itself.
    pub incarnation: u64,
}

/// The incarnation (foca's, not ours) of a member that says of itself that it is down. Nobody gets there
/// otherwise: who is suspected that often takes a new identity instead.
pub(super) const LEFT: Incarnation = Incarnation::MAX;

/// Whom an announcement is for that goes to an address of which nothing else is known.
const SOMEBODY: PeerId = PeerId(0);

/// Postcard, with three rules of our own; see the methods.
#[derive(Debug)]
pub(super) struct Wire {
    /// The address of this member.
    pub(super) here: SocketAddr,
}

// === impl Identity ===

impl Identity {
    /// Whoever is reached at `addr`.
    pub(super) fn somebody(addr: SocketAddr) -> Self {
        Self {
            peer: SOMEBODY,
            addr,
            incarnation: 0,
        }
    }

    /// The same peer in a life that began `by` later.
    pub(super) fn later(self, by: u64) -> Self {
        Self {
            incarnation: self.incarnation.saturating_add(by),
            ..self
        }
    }

    /// An address that a datagram can be sent to; any other one in a member list is a lie or a mistake.
    fn is_reachable(&self) -> bool {
        let ip = self.addr.ip();
        self.addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast()
    }
}

impl foca::Identity for Identity {
    type Addr = SocketAddr;

    fn renew(&self) -> Option<Self> {
        Some(self.later(1))
    }

    fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        // The peer decides between two that began in the same millisecond, so that all decide alike.
        (self.incarnation, self.peer) > (adversary.incarnation, adversary.peer)
    }
}

// === impl Wire ===

impl Codec<Identity> for Wire {
    type Error = postcard::Error;

    fn encode_header(
        &mut self,
        header: &Header<Identity>,
        buf: impl bytes::BufMut,
    ) -> Result<(), Self::Error> {
        PostcardCodec.encode_header(header, buf)
    }

    /// A seed may be known to others by another address than the one it advertises (a name, a forwarded
    /// port). An announcement for whoever is reached at an address is for whom it reached.
    fn decode_header(&mut self, buf: impl bytes::Buf) -> Result<Header<Identity>, Self::Error> {
        let mut header: Header<Identity> = PostcardCodec.decode_header(buf)?;
        if header.message == Message::Announce && header.dst.peer == SOMEBODY {
            header.dst.addr = self.here;
        }
        let third = match &header.message {
            Message::PingReq { target, .. } | Message::IndirectAck { target, .. } => Some(target),
            Message::IndirectPing { origin, .. } | Message::ForwardedAck { origin, .. } => {
                Some(origin)
            }
            Message::Ping(_)
            | Message::Ack(_)
            | Message::Announce
            | Message::Feed
            | Message::Gossip
            | Message::Broadcast
            | Message::TurnUndead => None,
        };
        if !header.src.is_reachable() || third.is_some_and(|third| !third.is_reachable()) {
            return Err(postcard::Error::DeserializeBadEncoding);
        }
        Ok(header)
    }

    /// Foca does not tell who left from who was found down. Whatever a member says of its own address is of its
    /// own accord, and marked so.
    fn encode_member(
        &mut self,
        member: &Member<Identity>,
        buf: impl bytes::BufMut,
    ) -> Result<(), Self::Error> {
        if member.state() == State::Down && member.id().addr == self.here {
            let left = Member::new(*member.id(), LEFT, State::Down);
            return PostcardCodec.encode_member(&left, buf);
        }
        PostcardCodec.encode_member(member, buf)
    }

    fn decode_member(&mut self, buf: impl bytes::Buf) -> Result<Member<Identity>, Self::Error> {
        let member: Member<Identity> = PostcardCodec.decode_member(buf)?;
        if !member.id().is_reachable() {
            return Err(postcard::Error::DeserializeBadEncoding);
        }
        Ok(member)
    }
}
