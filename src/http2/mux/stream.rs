//! One stream, and where all of them are kept.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::ops::{Index, IndexMut};
use std::task::{Context, Waker};

use http::HeaderMap;
use thiserror::Error;

use crate::http2::frame::Code;

/// Where a stream is kept; good until it is let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http2) struct Key(usize);

/// Why a stream ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StreamError {
    /// The other end gave it up.
    #[error("the other end has reset the stream ({0})")]
    Reset(Code),
    /// We gave it up.
    #[error("the stream was reset ({0})")]
    Given(Code),
    /// The other end says goodbye, and that it did nothing with this stream.
    #[error("the other end takes no more streams ({0})")]
    Goodbye(Code),
    /// The connection is over.
    #[error("the connection has ended")]
    Ended,
}

/// Memory for text, and for a body, that a stream keeps while nothing of it waits to be read, and leaves
/// to the next one.
pub(super) const KEPT: usize = 4 * 1024;

/// One stream.
#[derive(Debug, Default)]
pub(super) struct StreamState {
    pub(super) id: u32,
    /// Whoever reads and writes it.
    waker: Option<Waker>,
    pub(super) wants_read: bool,
    pub(super) wants_write: bool,
    /// It stands in the line of those that wait for room.
    pub(super) is_blocked: bool,
    /// The turn in which it wrote last.
    pub(super) wrote_in: u32,

    // What comes.
    /// Heads, as text.
    pub(super) text: Bytes,
    /// The body, as far as it was not read.
    pub(super) inbox: Bytes,
    /// The last head has come: those before it were interim.
    pub(super) has_head: bool,
    /// END_STREAM has come.
    pub(super) has_end: bool,
    /// And with the head.
    pub(super) is_only_head: bool,
    /// Who reads has taken the end.
    pub(super) is_end_taken: bool,
    pub(super) trailers: Option<HeaderMap>,
    /// How much of the body has to come, where that was said.
    pub(super) due: Option<u64>,
    /// What the other end may send.
    pub(super) window_in: i64,
    /// What was read, and the other end was not told of.
    pub(super) freed: u32,

    // What goes.
    /// What we may send.
    pub(super) window_out: i64,
    /// How much of the body has to go, where that is known.
    pub(super) left: Option<u64>,
    /// END_STREAM has gone.
    pub(super) has_ended: bool,
    /// A head has gone that is not interim.
    pub(super) has_begun: bool,

    // What it is about.
    /// It asks for the head alone.
    pub(super) is_head: bool,
    /// It opens a WebSocket.
    pub(super) opens: bool,
    /// What the answer to that must bear.
    pub(super) accept: Option<String>,
    pub(super) error: Option<StreamError>,
}

/// Bytes that are read from the front and added to at the end.
#[derive(Debug, Default)]
pub(super) struct Bytes {
    bytes: Vec<u8>,
    read: usize,
}

/// All streams of a connection.
#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Vec<Option<Box<StreamState>>>,
    free: Vec<usize>,
    /// Those whose frames may still come or go.
    by_id: HashMap<u32, Key, BuildHasherDefault<IdHasher>>,
}

/// Identifiers of streams are the other end's to choose, in ascending order and a few hundred at once:
/// multiplying by an odd number (Knuth, TAOCP 6.4) keeps such apart.
#[derive(Debug, Default)]
pub(super) struct IdHasher(u64);

// === impl StreamError ===

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        Self::other(error)
    }
}

// === impl StreamState ===

impl StreamState {
    /// Remembers whom to wake.
    #[inline]
    pub(super) fn wait(&mut self, cx: &Context<'_>) {
        match &self.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => self.waker = Some(cx.waker().clone()),
        }
    }

    /// Something to read has come, or the end of it.
    #[inline]
    pub(super) fn wake_reader(&mut self) {
        if std::mem::take(&mut self.wants_read) {
            self.wake();
        }
    }

    /// There is room to write.
    #[inline]
    pub(super) fn wake_writer(&mut self) {
        if std::mem::take(&mut self.wants_write) {
            self.wake();
        }
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Ends it by `error`; whoever has it learns of that.
    pub(super) fn fail(&mut self, error: StreamError) {
        if self.error.is_none() {
            self.error = Some(error);
        }
        self.wants_read = false;
        self.wants_write = false;
        self.wake();
    }

    /// Neither side has anything left to say.
    pub(super) fn is_closed(&self) -> bool {
        self.error.is_some() || self.has_end && self.has_ended
    }
}

// === impl Bytes ===

impl Bytes {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.read == self.bytes.len()
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.read
    }

    #[inline]
    pub(super) fn unread(&self) -> &[u8] {
        self.bytes.get(self.read..).unwrap_or_default()
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        // At most as much is moved as was read since: a byte is moved once on average.
        if self.read > 0 && self.read >= self.len() {
            self.bytes.drain(..self.read);
            self.read = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// To add to it.
    pub(super) fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    #[inline]
    pub(super) fn consume(&mut self, n: usize) {
        self.read += n;
        if self.is_empty() {
            self.bytes.clear();
            self.read = 0;
        }
    }

    /// Lets its memory go once it is empty, if it is more than `keep`.
    pub(super) fn shrink(&mut self, keep: usize) {
        if self.is_empty() && self.bytes.capacity() > keep {
            *self = Self::default();
        }
    }

    fn reset(&mut self) {
        self.bytes.clear();
        self.read = 0;
    }
}

// === impl Streams ===

impl Streams {
    /// Adds one that is open.
    pub(super) fn insert(&mut self, id: u32) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let state = self.slots[index].get_or_insert_default();
        state.id = id;
        self.by_id.insert(id, Key(index));
        Key(index)
    }

    /// The one of this identifier, if its frames may still come.
    #[inline]
    pub(super) fn find(&self, id: u32) -> Option<Key> {
        self.by_id.get(&id).copied()
    }

    /// Takes no more frames for it; whoever has it keeps it.
    pub(super) fn close(&mut self, key: Key) {
        let id = self[key].id;
        self.by_id.remove(&id);
    }

    /// Forgets it: nobody has it any more.
    pub(super) fn remove(&mut self, key: Key) {
        self.close(key);
        let Some(slot) = self.slots.get_mut(key.0).and_then(Option::as_mut) else {
            return;
        };
        let (mut text, mut inbox) = (
            std::mem::take(&mut slot.text),
            std::mem::take(&mut slot.inbox),
        );
        text.reset();
        text.shrink(KEPT);
        inbox.reset();
        inbox.shrink(KEPT);
        **slot = StreamState {
            text,
            inbox,
            ..StreamState::default()
        };
        self.free.push(key.0);
        if self.len() == 0 {
            // A connection without streams keeps nothing for them.
            *self = Self::default();
        }
    }

    /// Those whose frames may come or go.
    pub(super) fn open(&self) -> usize {
        self.by_id.len()
    }

    /// Those that somebody has.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// All that somebody has.
    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = &StreamState> {
        let free = |index: &usize| !self.free.contains(index);
        let held = (0..self.slots.len()).filter(free);
        held.filter_map(|index| self.slots[index].as_deref())
    }

    /// All whose frames may come or go.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.by_id.values().copied().collect()
    }
}

impl Index<Key> for Streams {
    type Output = StreamState;

    #[inline]
    fn index(&self, key: Key) -> &StreamState {
        self.slots[key.0]
            .as_deref()
            .expect("invariant: a key is let go with its stream")
    }
}

impl IndexMut<Key> for Streams {
    #[inline]
    fn index_mut(&mut self, key: Key) -> &mut StreamState {
        self.slots[key.0]
            .as_deref_mut()
            .expect("invariant: a key is let go with its stream")
    }
}

// === impl IdHasher ===

impl Hasher for IdHasher {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32((*byte).into());
        }
    }

    #[inline]
    fn write_u32(&mut self, id: u32) {
        // hashbrown takes its buckets from the low bits and its tags from the high ones.
        let product = (self.0 ^ u64::from(id >> 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }
}
