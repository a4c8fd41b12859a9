//! What this peer knows, in its file.

use std::sync::PoisonError;
use std::time::Duration;

use crate::base::clock::nanos;
use crate::fleet::facts::snapshot::{self, Image};

use super::Fleet;

/// How often it is saved though nothing has changed: what is older than a day is not trusted.
const SAVE_ANYWAY: Duration = Duration::from_secs(60 * 60);

// === impl Fleet ===

impl Fleet {
    /// Writes what is known to its file, if it has changed and the file is not a successor's by now.
    pub(super) fn save(&self) {
        if !self.is_frozen() {
            self.write();
        }
    }

    pub(super) fn write(&self) {
        let Some(folder) = &self.0.spec.state_dir else {
            return;
        };
        // Two at once would write into one temporary file, and the older one could be the last.
        let saving = &self.0.saving;
        let _saving = saving.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        let name = &self.0.spec.name;
        let image = self.with(|state| {
            let root = state.peer.facts().root();
            let (saved, at) = state.saved;
            if root == saved && now.now < at.saturating_add(nanos(SAVE_ANYWAY)) {
                return None;
            }
            let mut facts: Vec<_> = state.peer.facts().iter().collect();
            let mut of = now.unix_ms;
            if let Some(past) = state.peer.past() {
                // Not decided yet: the next process decides, and has to know how old it is.
                facts.extend(past.facts());
                of = past.saved_unix_ms();
            }
            let image = Image::with(state.peer.id(), name, of, facts);
            Some((image, root))
        });
        let Some((image, root)) = image.flatten() else {
            return;
        };
        match snapshot::save(folder, &image) {
            Ok(()) => self.state().saved = (root, now.now),
            Err(error) => tracing::error!(
                %error,
                "fleet: what is known holds, but would be lost by a restart while all others are away"
            ),
        }
    }
}
