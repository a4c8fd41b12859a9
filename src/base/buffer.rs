//! A byte buffer with a read and a write end, always initialised, so that no `unsafe` is needed to
//! read into it; and the per-worker pool that lends buffers out.

use std::cell::{Cell, RefCell};

/// Bytes between a reader and a writer: `start..end` is filled, `end..capacity` is spare.
#[derive(Debug)]
pub struct Buffer {
    data: Vec<u8>,
    start: usize,
    end: usize,
}

/// Buffers of one size that a worker lends and takes back, so that the steady state allocates
/// nothing; LIFO, so that the one in the cache is the one reused.
#[derive(Debug)]
pub struct BufferPool {
    idle: RefCell<Vec<Buffer>>,
    lent: Cell<usize>,
    size: usize,
    keep: usize,
}

// === impl Buffer ===

impl Buffer {
    /// A buffer of `capacity` zeroed bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            data: vec![0; capacity],
            start: 0,
            end: 0,
        }
    }

    /// A buffer that holds nothing and has no memory: the place of one that was lent out.
    pub const fn none() -> Self {
        Self {
            data: Vec::new(),
            start: 0,
            end: 0,
        }
    }

    /// Whether this is the place of a buffer that is not here.
    pub fn is_none(&self) -> bool {
        self.data.is_empty()
    }

    /// Bytes read and not yet consumed.
    #[inline]
    pub fn filled(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    /// The same, to be changed in place.
    #[inline]
    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.start..self.end]
    }

    /// The number of filled bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether no byte is filled.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// All memory of the buffer.
    pub fn capacity(&self) -> usize {
        self.data.len()
    }

    /// Room behind the filled bytes.
    #[inline]
    pub fn spare(&mut self) -> &mut [u8] {
        &mut self.data[self.end..]
    }

    /// Says that `n` bytes were read into [`Buffer::spare`].
    #[inline]
    pub fn commit(&mut self, n: usize) {
        debug_assert!(self.end + n <= self.data.len());
        self.end = (self.end + n).min(self.data.len());
    }

    /// Drops `n` bytes from the front; an emptied buffer starts again at its first byte.
    #[inline]
    pub fn consume(&mut self, n: usize) {
        debug_assert!(n <= self.len());
        self.start = (self.start + n).min(self.end);
        if self.start == self.end {
            self.clear();
        }
    }

    /// Drops everything.
    #[inline]
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Moves the filled bytes to the front, so that all other room is spare.
    pub fn compact(&mut self) {
        if self.start > 0 {
            self.data.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }

    /// Keeps only the first `n` filled bytes.
    pub fn truncate(&mut self, n: usize) {
        self.end = self.end.min(self.start + n);
    }

    /// Removes the filled bytes `from..to`, moving those behind them up.
    pub fn close_gap(&mut self, from: usize, to: usize) {
        let (from, to) = (self.start + from, self.start + to);
        if from < to && to <= self.end {
            self.data.copy_within(to..self.end, from);
            self.end -= to - from;
        }
    }

    /// Makes the capacity at least `capacity`; never shrinks.
    pub fn grow(&mut self, capacity: usize) {
        if self.data.len() < capacity {
            self.data.resize(capacity, 0);
        }
    }

    /// Appends bytes; returns how many fitted.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.data.len() - self.end);
        self.data[self.end..self.end + n].copy_from_slice(&bytes[..n]);
        self.end += n;
        n
    }
}

// === impl BufferPool ===

impl BufferPool {
    /// A pool of buffers of `size` bytes that keeps at most `keep` idle ones.
    pub fn new(size: usize, keep: usize) -> Self {
        Self {
            idle: RefCell::new(Vec::new()),
            lent: Cell::new(0),
            size,
            keep,
        }
    }

    /// A buffer of the pool's size, empty.
    pub fn take(&self) -> Buffer {
        self.lent.set(self.lent.get() + 1);
        self.idle
            .borrow_mut()
            .pop()
            .unwrap_or_else(|| Buffer::with_capacity(self.size))
    }

    /// Takes a buffer back; one that grew, or is above the pool's measure, is freed. The place of
    /// one that was lent out is nothing to take back.
    pub fn put(&self, mut buffer: Buffer) {
        if buffer.is_none() {
            return;
        }
        self.lent.set(self.lent.get().saturating_sub(1));
        let mut idle = self.idle.borrow_mut();
        if buffer.capacity() == self.size && idle.len() < self.keep {
            buffer.clear();
            idle.push(buffer);
        }
    }

    /// Frees half of what lies idle: called every few seconds, so that a burst's memory goes back.
    pub fn shrink(&self) {
        let mut idle = self.idle.borrow_mut();
        let keep = idle.len() / 2;
        idle.truncate(keep);
    }

    /// Whether one may be held for longer than a step takes: so many are kept anyway.
    pub fn is_ample(&self) -> bool {
        self.lent.get() < self.keep
    }

    /// How many are lent now.
    pub fn lent(&self) -> usize {
        self.lent.get()
    }

    /// How many are kept for whoever comes next.
    pub fn spare(&self) -> usize {
        self.idle.borrow().len()
    }

    /// The size of the pool's buffers.
    pub fn size(&self) -> usize {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let mut b = Buffer::with_capacity(8);
        assert_eq!(b.push(b"abcdef"), 6);
        b.consume(4);
        assert_eq!(b.filled(), b"ef");
        assert_eq!(b.push(b"ghi"), 2);
        b.compact();
        assert_eq!(b.filled(), b"efgh");
        assert_eq!(b.push(b"ijklmn"), 4);
        assert_eq!(b.filled(), b"efghijkl");
        b.consume(8);
        assert_eq!(b.spare().len(), 8);
    }

    #[test]
    fn a_pool_keeps_no_more_than_its_measure_and_nothing_of_another_size() {
        let pool = BufferPool::new(4, 1);
        let (a, b) = (pool.take(), pool.take());
        pool.put(a);
        assert_eq!((pool.lent(), pool.spare()), (1, 1));
        pool.put(b);
        assert_eq!((pool.lent(), pool.spare()), (0, 1));
        let mut grown = pool.take();
        grown.grow(9);
        assert_eq!((pool.lent(), pool.spare()), (1, 0));
        pool.put(grown);
        pool.put(Buffer::none());
        assert_eq!((pool.lent(), pool.spare()), (0, 0));
    }
}
