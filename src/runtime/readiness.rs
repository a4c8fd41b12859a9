//! Whether this process wants traffic: one word, set by the runtime, read by load balancers.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Whether this process wants traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ready {
    /// Not yet: listeners are being bound, or endpoints checked for the first time.
    Starting,
    /// Yes.
    Ready,
    /// No more: it finishes what is in flight.
    Draining,
}

/// The shared state; starts as [`Ready::Starting`].
#[derive(Debug, Default)]
pub struct Readiness {
    state: AtomicU8,
    note: Mutex<Option<String>>,
}

// === impl Ready ===

impl Ready {
    /// The word `/readyz` answers with.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

// === impl Readiness ===

impl Readiness {
    /// Sets the state; seen by the next request.
    pub fn set(&self, state: Ready) {
        // Release, so that what made the process ready (bound listeners) is visible to whoever
        // reads this and acts on it.
        self.state.store(state as u8, Ordering::Release);
    }

    /// What there is to know before traffic may come is known: ready, unless it drains already.
    pub fn set_known(&self) {
        let (starting, ready) = (Ready::Starting as u8, Ready::Ready as u8);
        // As in `set`. Anything but starting stays as it is.
        let _ = self
            .state
            .compare_exchange(starting, ready, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Says beside the state what people should know; it changes nothing for load balancers.
    pub fn note(&self, note: String) {
        *self.lock() = Some(note);
    }

    /// What was noted last.
    pub fn noted(&self) -> Option<String> {
        self.lock().clone()
    }

    /// The state.
    pub fn state(&self) -> Ready {
        match self.state.load(Ordering::Acquire) {
            1 => Ready::Ready,
            2 => Ready::Draining,
            _ => Ready::Starting,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        // A text is written whole.
        self.note.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
