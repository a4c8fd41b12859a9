//! The turn counter that all workers share.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Counts turns. Shared rather than per worker: with W private cursors the merged sequence has
/// bursts of W on one endpoint. Alone on its line (128 bytes: x86 prefetches lines in pairs), so
/// that this one contended word does not slow the read-only fields next to it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Cursor {
    turn: AtomicU64,
}

// === impl Cursor ===

impl Cursor {
    /// A cursor whose first turn is `turn`.
    pub(super) fn starting_at(turn: u64) -> Self {
        Self {
            turn: AtomicU64::new(turn),
        }
    }

    /// Takes a turn: no other caller gets the same number before the counter wraps at 2^64.
    #[inline]
    pub(super) fn take(&self) -> u64 {
        // Relaxed: the read-modify-write alone makes turns unique; nothing else is published.
        self.turn.fetch_add(1, Relaxed)
    }

    /// The number the next turn will have.
    pub(super) fn peek(&self) -> u64 {
        self.turn.load(Relaxed)
    }
}
