//! How two peers begin a stream: who connected greets, who accepted answers, and both have the stream's keys.
//!
//! Greetings are in clear and prove nothing. Keys follow from the secret and every byte of both greetings, with
//! who connected first: the random bytes of either side make them new, so that what was recorded is worth
//! nothing, and the first record of either side proves that it has the secret and that both saw the same.

use crate::fleet::id::PeerId;

use super::datagram::take;
use super::keyring::{FleetHash, KeyId, Keyring};
use super::stream::{StreamOpen, StreamSeal};
use super::{Refusal, VERSION};

/// The first bytes of either side of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    fleet: FleetHash,
    key: KeyId,
    sender: PeerId,
    random: [u8; 32],
}

// === impl Greeting ===

impl Greeting {
    /// How long it is.
    pub const BYTES: usize = 1 + 4 + 4 + 8 + 32;

    /// Of who connected.
    pub fn first(keyring: &Keyring, sender: PeerId, random: [u8; 32]) -> Self {
        Self {
            fleet: keyring.fleet(),
            key: keyring.primary().id(),
            sender,
            random,
        }
    }

    /// Of who accepted: with the key that `self`, the first one, asked for.
    #[must_use]
    pub fn answer(&self, sender: PeerId, random: [u8; 32]) -> Self {
        Self {
            sender,
            random,
            ..*self
        }
    }

    /// What the other side sent.
    ///
    /// # Errors
    /// [`Refusal::Version`], [`Refusal::Fleet`], [`Refusal::Key`].
    pub fn parse(bytes: &[u8; Self::BYTES], keyring: &Keyring) -> Result<Self, Refusal> {
        let mut rest = &bytes[..];
        let [version] = take(&mut rest)?;
        if version != VERSION {
            return Err(Refusal::Version(version));
        }
        let greeting = Self {
            fleet: take(&mut rest)?,
            key: take(&mut rest)?,
            sender: PeerId(u64::from_be_bytes(take(&mut rest)?)),
            random: take(&mut rest)?,
        };
        if greeting.fleet != keyring.fleet() {
            return Err(Refusal::Fleet);
        }
        keyring.find(greeting.key)?;
        Ok(greeting)
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let mut rest = &mut bytes[..];
        let sender = self.sender.0.to_be_bytes();
        for part in [
            &[VERSION][..],
            &self.fleet,
            &self.key,
            &sender,
            &self.random,
        ] {
            let (to, after) = rest.split_at_mut(part.len());
            to.copy_from_slice(part);
            rest = after;
        }
        bytes
    }

    /// Who says to be there: to be believed after the first record.
    pub fn sender(&self) -> PeerId {
        self.sender
    }

    /// Both directions, for who connected: `self` was sent, and `answer` came.
    ///
    /// # Errors
    /// [`Refusal::Own`] if it is connected to itself, [`Refusal::Key`] if the answer is of another key.
    pub fn connected(
        &self,
        answer: &Self,
        keyring: &Keyring,
    ) -> Result<(StreamSeal, StreamOpen), Refusal> {
        let [there, back] = ciphers(self, answer, keyring)?;
        Ok((StreamSeal::new(there), StreamOpen::new(back)))
    }

    /// Both directions, for who accepted: `first` came, and `self` was sent.
    ///
    /// # Errors
    /// As of [`connected`](Self::connected).
    pub fn accepted(
        &self,
        first: &Self,
        keyring: &Keyring,
    ) -> Result<(StreamSeal, StreamOpen), Refusal> {
        let [there, back] = ciphers(first, self, keyring)?;
        Ok((StreamSeal::new(back), StreamOpen::new(there)))
    }
}

/// The keys there and back.
fn ciphers(
    first: &Greeting,
    answer: &Greeting,
    keyring: &Keyring,
) -> Result<[super::cipher::Cipher; 2], Refusal> {
    if first.sender == answer.sender {
        return Err(Refusal::Own);
    }
    if first.key != answer.key {
        return Err(Refusal::Key);
    }
    let key = keyring.find(first.key)?;
    let (first, answer) = (first.to_bytes(), answer.to_bytes());
    let cipher = |label: &[u8]| key.cipher(&[label, &first, &answer]);
    Ok([cipher(b"stream there"), cipher(b"stream back")])
}
