//! What two peers say to each other when they compare.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::fleet::fact::{Fact, MAX_FACT};
use crate::fleet::facts::Hashed;

/// Longest encoded message, in bytes: with what seals it, it fits a record of 64 KiB. The longest one without
/// facts, 4,096 sums of up to ten bytes, takes two thirds.
pub const MAX_MESSAGE: usize = 60 * 1024;

/// Most facts that one side tells in one comparison: 90,000 take two, and a peer that is told lies is told no
/// more of them at once.
pub const MAX_TOLD_FACTS: usize = 65_536;

/// Most bytes of facts that one side tells in one comparison: as many facts of 128 bytes; twice what typical ones
/// take.
pub const MAX_TOLD_BYTES: usize = 8 * 1024 * 1024;

/// Most messages with facts that one side sends in one comparison: all but the last are too full for another
/// fact, and the buckets that they name take less than one of them.
pub const MAX_MESSAGES: usize = MAX_TOLD_BYTES / (MAX_MESSAGE - MAX_FACT - OVERHEAD) + 2;

/// What a message of facts has beside buckets and facts: variant, two lengths of up to three bytes, `more`;
/// rounded up.
const OVERHEAD: usize = 16;

/// The number of a bucket, encoded.
const BUCKET: usize = 2;

/// One message; which one may come when, [`Comparison`](super::Comparison) knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// "These are the sums of my groups." Whoever begins says it.
    Groups {
        /// All of them, in order.
        sums: Vec<u64>,
        /// Nobody is to merge anything: people want to see what differs.
        look: bool,
    },
    /// "Mine are the same." The end.
    Same,
    /// "In these groups mine differ; here are the sums of their buckets."
    Buckets {
        /// Number of the group, in ascending order, and its sums, in order.
        sums: Vec<(u8, Vec<u64>)>,
    },
    /// "Here is what I have", of whoever began; "here is what you lack", of whoever was asked.
    Facts {
        /// The buckets of which everything has been said with this message.
        buckets: Vec<u16>,
        /// Of these buckets, and of those of the next messages.
        facts: Vec<Fact>,
        /// There is a next message.
        more: bool,
    },
}

/// Bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotAMessage {
    /// They cannot be decoded, or are more than one message.
    #[error("it cannot be decoded")]
    Garbage,
    /// They are longer than any message.
    #[error("it is longer than {MAX_MESSAGE} bytes")]
    TooLong,
}

/// Packs facts into as few messages as they fit.
#[derive(Debug, Default)]
pub(super) struct Packer {
    messages: Vec<Message>,
    buckets: Vec<u16>,
    facts: Vec<Fact>,
    /// Of the message that is being filled.
    bytes: usize,
    told_facts: usize,
    told_bytes: usize,
}

// === impl Message ===

impl Message {
    /// The bytes of a record; at most [`MAX_MESSAGE`] for every message that a [`Comparison`](super::Comparison)
    /// makes.
    pub fn encode(&self) -> Vec<u8> {
        // Facts that are held can be encoded, and so can numbers.
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// The message of a record.
    ///
    /// # Errors
    /// [`NotAMessage`].
    pub fn decode(bytes: &[u8]) -> Result<Self, NotAMessage> {
        if bytes.len() > MAX_MESSAGE {
            return Err(NotAMessage::TooLong);
        }
        match postcard::take_from_bytes(bytes) {
            Ok((message, [])) => Ok(message),
            Ok(_) | Err(_) => Err(NotAMessage::Garbage),
        }
    }
}

// === impl Packer ===

impl Packer {
    /// Whether this many more fit what may be told at once.
    pub(super) fn has_room(&self, facts: usize, bytes: usize) -> bool {
        self.told_facts + facts <= MAX_TOLD_FACTS && self.told_bytes + bytes <= MAX_TOLD_BYTES
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.told_facts == 0 && self.buckets.is_empty() && self.messages.is_empty()
    }

    pub(super) fn put(&mut self, held: &Hashed) {
        let len = usize::from(held.len);
        self.make_room(len);
        self.facts.push(held.fact.clone());
        self.told_facts += 1;
        self.told_bytes += len;
    }

    /// All of the bucket has been put.
    pub(super) fn end_bucket(&mut self, bucket: u16) {
        self.make_room(BUCKET);
        self.buckets.push(bucket);
    }

    /// The messages, one at least.
    pub(super) fn finish(mut self) -> Vec<Message> {
        self.flush(false);
        self.messages
    }

    fn make_room(&mut self, len: usize) {
        if OVERHEAD + self.bytes + len > MAX_MESSAGE {
            self.flush(true);
        }
        self.bytes += len;
    }

    fn flush(&mut self, more: bool) {
        self.bytes = 0;
        self.messages.push(Message::Facts {
            buckets: std::mem::take(&mut self.buckets),
            facts: std::mem::take(&mut self.facts),
            more,
        });
    }
}
