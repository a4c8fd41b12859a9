//! Streams as rows of sealed records.

use bytes::{Buf as _, BytesMut};

use super::cipher::{Cipher, TAG_BYTES};
use super::{NotSealed, Refusal};

/// Seals one direction of a stream.
#[derive(Debug)]
pub struct StreamSeal {
    cipher: Cipher,
    /// The counter of the next record; `None` = all were used.
    next: Option<u64>,
}

/// Opens the other direction.
#[derive(Debug)]
pub struct StreamOpen {
    cipher: Cipher,
    /// The counter of the next record; `None` = all were used.
    next: Option<u64>,
    buffer: BytesMut,
    /// Why it is listened to no more.
    refused: Option<Refusal>,
}

/// The longest record, before it is sealed.
pub const MAX_RECORD: usize = 64 * 1024;

/// The length of what is sealed follows, in 4 bytes.
const LENGTH_BYTES: usize = 4;

/// The record that is not whole yet, and as much again that came in one read.
const MAX_BUFFER: usize = 2 * (LENGTH_BYTES + MAX_RECORD + TAG_BYTES);

// === impl StreamSeal ===

impl StreamSeal {
    pub(super) fn new(cipher: Cipher) -> Self {
        Self {
            cipher,
            next: Some(0),
        }
    }

    /// Appends a record to `out`; one may be empty.
    ///
    /// # Errors
    /// See [`NotSealed`]; nothing is appended then.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), NotSealed> {
        if plain.len() > MAX_RECORD {
            return Err(NotSealed::Long);
        }
        let counter = self.next.ok_or(NotSealed::Spent)?;
        let start = out.len();
        let length = (plain.len() + TAG_BYTES) as u32;
        out.reserve(LENGTH_BYTES + plain.len() + TAG_BYTES);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(plain);
        let (header, plain) = out[start..].split_at_mut(LENGTH_BYTES);
        let Some(tag) = self.cipher.seal(counter, header, plain) else {
            out.truncate(start);
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

// === impl StreamOpen ===

impl StreamOpen {
    pub(super) fn new(cipher: Cipher) -> Self {
        Self {
            cipher,
            next: Some(0),
            buffer: BytesMut::new(),
            refused: None,
        }
    }

    /// Takes bytes as they come, up to 64 KiB at a time: then all records that are there are taken out with
    /// [`next_record`](Self::next_record). More than two records' worth that nobody takes out are
    /// [`Refusal::Long`].
    pub fn push(&mut self, bytes: &[u8]) {
        if self.refused.is_some() {
            return;
        }
        if self.buffer.len() + bytes.len() > MAX_BUFFER {
            self.refuse(Refusal::Long);
            return;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next record; `None` = it is not whole yet.
    ///
    /// # Errors
    /// [`Refusal::Short`], [`Refusal::Long`] or [`Refusal::Forged`]; from then on it is the answer to everything:
    /// nothing after it can be opened.
    pub fn next_record(&mut self) -> Result<Option<Vec<u8>>, Refusal> {
        if let Some(refusal) = self.refused {
            return Err(refusal);
        }
        let Some(header) = self.buffer.first_chunk::<LENGTH_BYTES>().copied() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(header) as usize;
        if length < TAG_BYTES {
            return Err(self.refuse(Refusal::Short));
        }
        if length > MAX_RECORD + TAG_BYTES {
            return Err(self.refuse(Refusal::Long));
        }
        if self.buffer.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        let mut sealed = self.buffer.split_to(length);
        let opened = self.next.and_then(|counter| {
            let plain = self.cipher.open(counter, &header, &mut sealed)?;
            self.next = counter.checked_add(1);
            Some(plain.to_vec())
        });
        match opened {
            Some(plain) => Ok(Some(plain)),
            None => Err(self.refuse(Refusal::Forged)),
        }
    }

    /// Whether what came so far ends with a record. A stream that ends here may still have been cut: the last
    /// record has to say that it is the last.
    pub fn is_whole(&self) -> bool {
        self.buffer.is_empty() && self.refused.is_none()
    }

    fn refuse(&mut self, refusal: Refusal) -> Refusal {
        self.refused = Some(refusal);
        self.buffer = BytesMut::new();
        refusal
    }

    #[cfg(test)]
    pub(super) fn skip_to(&mut self, counter: u64) {
        self.next = Some(counter);
    }
}
