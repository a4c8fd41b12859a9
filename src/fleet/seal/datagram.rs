//! Datagrams as they are on the wire, and sealing them.

use crate::fleet::id::PeerId;

use super::cipher::{Cipher, TAG_BYTES};
use super::keyring::{FleetHash, KeyId, Keyring};
use super::{NotSealed, Refusal, VERSION};

/// What a datagram is about. More may come: who does not know one refuses it, and counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Who is there.
    Membership = 1,
    /// What is said.
    Facts = 2,
}

/// 64 random bits, drawn anew at each start of a process: its counters begin at 0, and no key may see one twice.
pub type Session = [u8; 8];

/// Seals what this process sends.
#[derive(Debug)]
pub struct Sealer {
    sender: PeerId,
    session: Session,
    fleet: FleetHash,
    key: KeyId,
    cipher: Cipher,
    /// The counter of the next one; `None` = all were used.
    next: Option<u64>,
}

/// What is in clear before the sealed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) fleet: FleetHash,
    pub(super) key: KeyId,
    pub(super) sender: PeerId,
    pub(super) session: Session,
    pub(super) counter: u64,
}

/// The longest datagram. With 28 bytes of IPv4 and UDP, or 48 of IPv6, it passes whole where 1,500 bytes do, and
/// through a tunnel that takes 50 of them.
pub const MAX_DATAGRAM: usize = 1400;

/// The longest payload of a datagram.
pub const MAX_PAYLOAD: usize = MAX_DATAGRAM - MIN_DATAGRAM;

/// One without payload.
pub(super) const MIN_DATAGRAM: usize = HEADER_BYTES + INNER_BYTES + TAG_BYTES;

/// Version, fleet, key, sender, session, counter.
pub(super) const HEADER_BYTES: usize = 1 + 4 + 4 + 8 + 8 + 8;

/// Kind and the sender's clock, before the payload.
pub(super) const INNER_BYTES: usize = 1 + 8;

// === impl Kind ===

impl Kind {
    /// One word, for the label of a metric.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Membership => "membership",
            Self::Facts => "facts",
        }
    }
}

impl TryFrom<u8> for Kind {
    type Error = Refusal;

    fn try_from(byte: u8) -> Result<Self, Refusal> {
        match byte {
            1 => Ok(Self::Membership),
            2 => Ok(Self::Facts),
            _ => Err(Refusal::Kind(byte)),
        }
    }
}

// === impl Sealer ===

impl Sealer {
    /// Speaks as `sender`. Two with one sender and one session would use nonces twice, which gives the key away:
    /// `session` is random, and new secrets of a running peer come by [`set_keyring`](Self::set_keyring).
    pub fn new(keyring: &Keyring, sender: PeerId, session: Session) -> Self {
        let key = keyring.primary();
        Self {
            sender,
            session,
            fleet: keyring.fleet(),
            key: key.id(),
            cipher: cipher(key, sender, session),
            next: Some(0),
        }
    }

    /// Goes on with other secrets; the counter goes on too.
    pub fn set_keyring(&mut self, keyring: &Keyring) {
        *self = Self {
            next: self.next,
            ..Self::new(keyring, self.sender, self.session)
        };
    }

    /// Its session.
    pub fn session(&self) -> Session {
        self.session
    }

    /// Writes a datagram to `out`, in the place of what is in it: `payload`, with the time of this peer's clock.
    ///
    /// # Errors
    /// See [`NotSealed`]; `out` is empty then.
    pub fn seal(
        &mut self,
        kind: Kind,
        unix_ms: u64,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), NotSealed> {
        out.clear();
        if payload.len() > MAX_PAYLOAD {
            return Err(NotSealed::Long);
        }
        let counter = self.next.ok_or(NotSealed::Spent)?;
        let header = Header {
            fleet: self.fleet,
            key: self.key,
            sender: self.sender,
            session: self.session,
            counter,
        };
        header.write(out);
        out.push(kind as u8);
        out.extend_from_slice(&unix_ms.to_be_bytes());
        out.extend_from_slice(payload);
        let (header, plain) = out.split_at_mut(HEADER_BYTES);
        let Some(tag) = self.cipher.seal(counter, header, plain) else {
            out.clear();
            return Err(NotSealed::Long);
        };
        out.extend_from_slice(tag.as_ref());
        self.next = counter.checked_add(1);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn skip_to(&mut self, counter: u64) {
        self.next = Some(counter);
    }
}

/// The key of a sender in a session.
pub(super) fn cipher(key: &super::keyring::Key, sender: PeerId, session: Session) -> Cipher {
    key.cipher(&[b"datagram", &sender.0.to_be_bytes(), &session])
}

// === impl Header ===

impl Header {
    /// Reads it, and returns what follows.
    pub(super) fn parse(datagram: &[u8]) -> Result<(Self, &[u8]), Refusal> {
        // The version first: another one may have other lengths.
        match datagram.first() {
            None => return Err(Refusal::Short),
            Some(&VERSION) => {}
            Some(&version) => return Err(Refusal::Version(version)),
        }
        if datagram.len() > MAX_DATAGRAM {
            return Err(Refusal::Long);
        }
        if datagram.len() < MIN_DATAGRAM {
            return Err(Refusal::Short);
        }
        let mut rest = &datagram[1..];
        let header = Self {
            fleet: take(&mut rest)?,
            key: take(&mut rest)?,
            sender: PeerId(u64::from_be_bytes(take(&mut rest)?)),
            session: take(&mut rest)?,
            counter: u64::from_be_bytes(take(&mut rest)?),
        };
        Ok((header, rest))
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend_from_slice(&self.fleet);
        out.extend_from_slice(&self.key);
        out.extend_from_slice(&self.sender.0.to_be_bytes());
        out.extend_from_slice(&self.session);
        out.extend_from_slice(&self.counter.to_be_bytes());
    }
}

/// The next `N` bytes.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Refusal> {
    let (taken, rest) = bytes.split_first_chunk().ok_or(Refusal::Short)?;
    *bytes = rest;
    Ok(*taken)
}
